import re

import pytest
import torch
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.functional.margins import margins
from sfumato.functional.percentile import percentile
from sfumato.methods import Facts, build
from sfumato.types import Progress
from tests.given import step
from tests.methods.problems import Echo

C, N = 3, 40


def made(salt=5, **options):
    method = build("marginmatch", Facts(C, N), {"warmup": 0.1, "turns": 4, "share": 0.1, **options})
    method.attach(Echo(classes=C))
    method.samples.salt.fill_(salt)
    return method


def at(fraction):
    return Progress(round(fraction * 1000), 1001)


def sure(labels, logit=6.0):
    return logit * F.one_hot(torch.as_tensor(labels), C).float()


def with_virtual(z, bias):
    return torch.cat([z, torch.full((len(z), 1), bias)], dim=1)


def test_a_pseudo_label_has_to_be_sure_now_and_to_have_been_right_before():
    method, index = made(), torch.tensor([0, 1, 2])
    method.samples.choose(-1)
    method.samples.level.fill_(2.0)
    labels = torch.tensor([0, 1, 2])
    for _ in range(3):  # the second sample was of another class, the third was never sure
        step(
            method, sure([0, 0, 2]) * torch.tensor([[1.0], [1.0], [0.1]]), sure(labels), index=index, progress=at(0.05)
        )
    assert method.margins.seen(index).tolist() == [3, 3, 3]
    losses = step(method, sure([0, 1, 2]), sure(labels), index=index, progress=at(0.95))
    average = method.margins.at(index).gather(1, labels.unsqueeze(1)).squeeze(1)
    assert losses.pseudo.target.tolist() == labels.tolist()
    assert average[0] > 2.0 > average[1]
    assert losses.pseudo.weight.tolist() == (average > 2.0).float().tolist()
    assert losses.pseudo.weight.tolist() == [1.0, 0.0, 1.0 if average[2] > 2 else 0.0]


def test_before_the_warmup_is_over_margins_do_not_count():
    method = made()
    method.samples.level.fill_(100.0)
    for fraction, kept in ((0.05, 1.0), (0.95, 0.0)):
        losses = step(method, sure([0, 1]), sure([0, 1]), progress=at(fraction))
        assert losses.pseudo.weight.tolist() == [kept, kept]


def test_threshold_samples_are_taught_the_virtual_class_and_nothing_else_is_learned_of_them():
    method = made()
    step(method, sure([0]), sure([0]), index=torch.tensor([0]), progress=at(0.1))  # the first choice is made here
    (held, *_), others = method.samples.ids, [i for i in range(1, N) if i not in method.samples.ids.tolist()][:3]
    index = torch.tensor([held, *others])
    weak, strong = sure([0, 1, 2, 0]), torch.randn(4, C, generator=torch.Generator().manual_seed(0))
    weak[3] = 0.1 * weak[3]
    method.samples.level.fill_(1.0)  # which the last sample does not reach
    losses = step(method, weak, strong, index=index, progress=at(0.101))

    bias = method.virtual.bias.item()
    charge = F.cross_entropy(with_virtual(strong, bias), torch.tensor([C, 1, 2, 0]), reduction="none")
    weight = torch.tensor([2 / 3, 1.0, 1.0, 0.0])
    torch.testing.assert_close(losses.unsupervised, (weight * charge).mean())
    assert losses.pseudo.weight.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert losses.pseudo.target.tolist() == [0, 1, 2, 0]

    assert method.margins.seen(index).tolist() == [0, 1, 1, 1]
    place = (method.samples.ids == held).nonzero().item()
    assert method.samples.memory.visits[place] == 1
    want = 0.997 * margins(with_virtual(weak, bias))[0, -1]
    torch.testing.assert_close(method.samples.memory.average[place], want)
    assert method.weigh.memory.label[held] == C, "a threshold sample counts for the status of its class"


def test_the_level_is_a_percentile_of_the_visited_threshold_samples():
    method = made(share=0.25, percentile=90.0)
    step(method, sure([0]), sure([0]), index=torch.tensor([0]), progress=at(0.1))
    ids = method.samples.ids[:6]
    weak = torch.randn(6, C, generator=torch.Generator().manual_seed(1))
    before = method.samples.level.clone()
    step(method, weak, weak, index=ids, progress=at(0.101))  # too early
    assert method.samples.level == before
    step(method, weak, weak, index=ids, progress=at(0.15))
    seen = method.samples.memory.visits[:-1] > 0
    assert seen.sum() >= 6
    want = percentile(method.samples.memory.average[:-1], seen, 0.9)
    torch.testing.assert_close(method.samples.level, want)
    assert want < method.samples.memory.average[:-1][seen].max()


def test_threshold_samples_are_chosen_anew_and_none_is_left_at_the_end():
    method, chosen = made(), []
    for k in range(41):
        step(method, sure([0, 1]), sure([0, 1]), progress=Progress(k, 41))
        chosen.append(tuple(method.samples.ids.tolist()))
    turns = list(dict.fromkeys(chosen))
    none = (N,) * 4
    assert [turn for turn in turns if turn == none] == [none]
    assert chosen[3] == chosen[36] == chosen[40] == none
    lengths = [chosen.count(ids) for ids in turns if ids != none]
    assert len(lengths) == 4
    assert sum(lengths) == 32
    assert max(lengths) - min(lengths) <= 2  # where a turn ends hangs on rounding
    for ids in turns[1:]:
        assert len(set(ids)) == 4
        assert max(ids) < N


def test_choices_are_a_function_of_the_training_and_the_turn():
    first, same, other = made(), made(), made(salt=6)
    for method in (first, same, other):
        method.samples.choose(2)
    assert torch.equal(first.samples.ids, same.samples.ids)
    assert not torch.equal(first.samples.ids, other.samples.ids)


def test_the_same_choice_again_forgets_nothing_and_another_everything():
    samples = made().samples
    samples.choose(1)
    samples.observe(samples.ids, torch.ones(4), torch.ones(4))
    samples.choose(1)
    assert samples.memory.visits.tolist() == [1, 1, 1, 1, 0]
    samples.choose(2)
    assert not samples.memory.visits.any()
    assert not samples.memory.average.any()


def test_labels_are_charged_with_the_virtual_class_among_the_others():
    method, z = made(), torch.randn(5, C, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([0, 1, 2, 0, 1])
    losses = step(method, sure([0]), sure([0]), labeled=z, y=y, progress=at(0.95))
    torch.testing.assert_close(losses.supervised, F.cross_entropy(with_virtual(z, method.virtual.bias.item()), y))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"share": 0.0}, "marginmatch(share=0.0): expected above 0 and at most 0.5"),
        ({"percentile": 101.0}, "marginmatch(percentile=101.0): expected a number between 0 and 100"),
        ({"warmup": 0.9}, "marginmatch(warmup=0.9): expected a share of training from 0 to below 0.9"),
        ({"turns": 0}, "marginmatch(turns=0): expected at least 1 choice of threshold samples"),
        ({"threshold": 2.0}, "ClassCurriculum(threshold=2.0): expected a probability"),
    ],
)
def test_messages(options, text):
    with pytest.raises(UsageError, match=re.escape(text)):
        build("marginmatch", Facts(C, N), options)


def test_masks_are_refused_with_the_reason():
    with pytest.raises(
        UsageError, match="marginmatch is for one class per image only: it remembers margins of every s"
    ):
        build("marginmatch", Facts(C, N, dense=True))
