from __future__ import annotations

import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.functional.refine import sharpen
from sfumato.methods import Facts, build
from tests.given import step


def views(seed=0, n=20):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn((n, 4), generator=draw) * 3, torch.randn((n, 4), generator=draw)


def test_the_mean_is_over_the_whole_batch():
    weak, strong = views()
    losses = step(build("fixmatch", Facts(4), {"threshold": 0.8}), weak, strong)
    top, label = probability(weak).max(dim=1)
    charge = torch.nn.functional.cross_entropy(strong, label, reduction="none")
    chosen = top >= 0.8
    assert 0 < chosen.sum() < 20
    torch.testing.assert_close(losses.unsupervised, charge[chosen].sum() / 20)
    assert torch.equal(losses.pseudo.target, label)


def test_one_selected_sample_among_many_counts_little():
    weak = torch.zeros(100, 4)
    weak[0, 1] = 20.0
    losses = step(build("fixmatch", Facts(4)), weak, torch.zeros(100, 4))
    assert losses.unsupervised.item() == pytest.approx(torch.tensor(4.0).log().item() / 100)


def test_soft_targets_are_sharpened_and_keep_the_mask():
    weak, strong = views()
    hard = step(build("fixmatch", Facts(4), {"threshold": 0.8}), weak, strong)
    for temperature in (0.5, 1.0):
        soft = step(
            build("fixmatch", Facts(4), {"threshold": 0.8, "target": "soft", "temperature": temperature}), weak, strong
        )
        torch.testing.assert_close(soft.pseudo.target, sharpen(probability(weak), temperature))
        assert torch.equal(soft.pseudo.weight, hard.pseudo.weight)


def test_the_threshold_itself_is_enough():
    p = torch.tensor([[0.75, 0.25, 1e-9, 1e-9]])
    at = probability(p.log()).amax().item()
    assert step(build("fixmatch", Facts(4), {"threshold": at}), p.log(), p.log()).pseudo.weight.item() == 1


def test_strong_labeled_views_count_like_the_weak():
    method = build("fixmatch", Facts(4), {"labeled_strong": True})
    weak, strong = views()
    labeled = torch.randn(6, 4)
    plain = step(build("fixmatch", Facts(4)), weak, strong, labeled=labeled)
    both = step(method, weak, strong, labeled=labeled)  # the same view twice
    assert method.views.labeled_strong
    torch.testing.assert_close(both.supervised, plain.supervised)
