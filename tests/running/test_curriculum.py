import io
import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.offsets import class_offsets
from sfumato.running.curriculum import START, Curriculum, OffsetSearch, Replay, ThresholdSearch, sampled
from sfumato.types import HeldOut, Progress
from tests.functional.test_offsets import problem

NONE = torch.zeros(6)


def curriculum(classes=6, *, offsets=None, thresholds=None, **options):
    return Curriculum(classes, offsets or OffsetSearch(), thresholds or ThresholdSearch(0.9), **options)


def held(seed=0, samples=400, **about):
    z, y = problem(samples, seed=seed, **about)
    return HeldOut(z.float(), y, torch.ones(samples))


def test_starts_without_offsets_and_with_a_high_threshold():
    c = curriculum()
    assert torch.equal(c.offset, NONE)
    assert torch.equal(c.threshold, torch.full((6,), START))


def test_one_evaluation_is_what_the_searches_find():
    c, seen = curriculum(thresholds=ThresholdSearch(0.5)), held()
    c.learn(seen, NONE)
    b = class_offsets(seen.logits, seen.y).float()
    torch.testing.assert_close(c.offset, b)
    tau, _ = c.thresholds_of(seen.logits - b, seen.y)
    torch.testing.assert_close(c.threshold, tau.float())
    assert 0 < int((tau > 0).sum()) < 6  # some classes are right enough as they are


def test_what_was_deployed_is_added_back():
    plain, deployed = curriculum(), curriculum()
    for seed in range(3):
        seen, moved = held(seed), deployed.offset
        plain.learn(seen, NONE)
        deployed.learn(HeldOut(seen.logits - moved, seen.y, seen.valid), moved)
    torch.testing.assert_close(deployed.offset, plain.offset, rtol=0, atol=1e-6)
    torch.testing.assert_close(deployed.threshold, plain.threshold, rtol=0, atol=1e-5)


def test_mean_of_logarithms_does_not_see_the_scale_of_pi():
    """The simplex finds pi at any scale: averaged as it is, a larger pi would count more."""
    b = torch.tensor([1.0, -1.0])
    logs, plain = curriculum(2, decay=0.5), curriculum(2, decay=0.5, average="arithmetic_official")
    for scale in (0.0, 3.0):
        for one in (logs, plain):
            one.offsets.observe((b + scale) if one.in_log else (b + scale).exp())
    torch.testing.assert_close(logs.offset - logs.offset.mean(), b)
    assert abs(float(plain.offset.diff())) < 1.95


def test_maps_are_as_many_samples_without_void():
    z, y = problem(400)
    maps = HeldOut(z.float().reshape(4, 10, 10, 6).movedim(-1, 1), y.reshape(4, 10, 10).clone(), torch.ones(4, 10, 10))
    flat = HeldOut(z.float()[100:], y[100:], torch.ones(300))
    maps.y[0], maps.valid[0] = 255, 0
    one, other = curriculum(), curriculum()
    one.learn(maps, NONE)
    other.learn(flat, NONE)
    assert torch.equal(one.offset, other.offset)
    assert torch.equal(one.threshold, other.threshold)


def test_sample_of_many_pixels_is_the_same_each_time():
    draw = torch.Generator().manual_seed(0)
    z, y = torch.randn(1, 3, 500, 500, generator=draw), torch.randint(3, (1, 500, 500), generator=draw)
    z[0, 0, 0, 0] = math.nan
    seen = HeldOut(z, y, torch.ones(1, 500, 500))
    first, second = sampled(seen), sampled(seen)
    assert len(first[1]) == 200_000
    assert torch.equal(first[0], second[0])
    assert first[0].isfinite().all()
    assert abs(float(first[1].float().mean() - y.float().mean())) < 0.01


def test_classes_that_are_not_held_out_stay_neutral_and_let_all_pass():
    c, seen = curriculum(7), held()
    logits = torch.cat([seen.logits, seen.logits[:, :1]], dim=1)  # the seventh is predicted as often as the first
    c.learn(HeldOut(logits, seen.y, seen.valid), torch.zeros(7))
    assert c.offset[6] == 0
    assert c.offset[:6].abs().min() > 0
    assert c.offset.isfinite().all()


def test_predictions_of_a_class_that_is_not_held_out_do_not_raise_the_threshold_of_its_group():
    draw = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 100 + [1] * 40)
    z = torch.randn(140, 3, generator=draw).double()
    z[torch.arange(140), y] += 1.0
    z[::10, 2] = 9.0  # surely the third class, which nobody has and which shares the threshold of the second
    search = ThresholdSearch(0.9)
    kept = torch.arange(140) % 10 != 0
    (tau, _), (without, _) = search(z, y), search(z[kept], y[kept])
    assert tau[2] == tau[1]
    assert 0 < float(tau[1]) < 1
    torch.testing.assert_close(tau, without, rtol=0, atol=0.02)  # the weights of the classes differ a little


def test_pseudo_labels_of_classes_of_which_nothing_is_known_are_not_trusted():
    """The threshold of the start, where all would count by the authors' rule."""
    search = ThresholdSearch(0.75)
    z = 4 * torch.eye(3, dtype=torch.float64).repeat(20, 1)  # right, but for one prediction of a fourth class
    z, y = torch.cat((z, torch.zeros(60, 1)), dim=1), torch.arange(3).repeat(20)
    y = torch.cat((y, torch.full((12,), 3)))
    z = torch.cat((z, torch.tensor([[2.0, 0, 0, 0]]).repeat(12, 1)))
    z[0] = torch.tensor([0.0, 0, 0, 1])
    tau, rare = search(z, y)
    assert rare.tolist() == [False, False, False, True]
    assert tau[3] == START
    assert tau[1:3].tolist() == [0, 0]  # these are right as they are
    z[-1] = torch.tensor([0.0, 0, 0, 9])  # one of two is right, and two are few
    assert search(z, y)[0][3] == START
    z[-12:] = torch.tensor([0.0, 0, 0, 9])  # twelve of thirteen
    assert search(z, y)[0][3] == 0
    assert search(z[:0], y[:0])[0].tolist() == [START] * 4


def test_official_rule_for_rare_classes_raises_them_the_most():
    z, y = problem(400, seed=3)
    keep = (y != 2) | (torch.cumsum(y == 2, 0) <= 4)
    seen = HeldOut(z[keep].float(), y[keep], torch.ones(int(keep.sum())))
    thresholds = ThresholdSearch(0.9, groups=6)
    neutral, official = curriculum(thresholds=thresholds), curriculum(thresholds=thresholds, rare="official_min")
    for one in (neutral, official):
        one.learn(seen, NONE)
    assert official.threshold[2] == 0 < neutral.threshold[2]
    assert official.offset[2] == official.offset.min() < neutral.offset[2]
    assert official.last_offset[2] == official.last_offset.min()


@pytest.mark.parametrize("solver", ["newton", "nelder_mead_official"])
@pytest.mark.parametrize("choice", ["first_reaching", "argmin_gap", "official_nm"])
def test_every_search_learns(solver, choice):
    c = curriculum(4, offsets=OffsetSearch(solver=solver), thresholds=ThresholdSearch(0.95, choice=choice), decay=0.5)
    for seed in range(2):
        c.learn(held(seed, 200, classes=4), torch.zeros(4))
    assert c.offset.isfinite().all()
    assert c.offset[0] > c.offset[-1]
    assert ((c.threshold >= 0) & (c.threshold <= 1)).all()


def test_ridge_fades_with_samples():
    z, y = problem(400)
    search = OffsetSearch(ridge=0.5, fade=100)
    torch.testing.assert_close(search(z, y, NONE), class_offsets(z, y, ridge=0.125))


def test_limit_of_pi():
    z, y = problem(400)
    assert OffsetSearch(limit=1.2)(z, y, NONE).abs().max() <= math.log(1.2) + 1e-12
    assert OffsetSearch()(z, y, NONE).abs().max() > math.log(1.3)


def test_nothing_held_out_teaches_nothing():
    c = curriculum()
    c.learn(held(), NONE)
    before = {key: value.clone() for key, value in c.state_dict().items()}
    c.learn(HeldOut(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), torch.zeros(0)), NONE)
    c.learn(HeldOut(torch.full((5, 6), math.nan), torch.zeros(5, dtype=torch.int64), torch.ones(5)), NONE)
    assert all(torch.equal(value, before[key]) for key, value in c.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"average": "arithmetic_official", "rare": "official_min"}], ids=str)
def test_resumed_in_the_middle_bit_for_bit(options):
    whole, first, rest = (curriculum(**options) for _ in range(3))
    for one in (whole, first, rest):
        one.record(6)
    for seed in range(6):
        whole.learn(held(seed), NONE)
        if seed < 3:
            first.learn(held(seed), NONE)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    rest.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        rest.learn(held(seed), NONE)
    for key, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[key], value), key


def test_replay_is_what_was_recorded_at_the_same_steps():
    """At each step the values that the recorded training had then, without any held-out label."""
    c = curriculum()
    c.record(3)
    had = []
    for step in range(30):
        had.append((c.offset, c.threshold))
        if (step + 1) % 10 == 0:
            c.learn(held(step), NONE)
    again = Replay([10, 20, 30], c.history[:, 0], c.history[:, 1])
    for step in range(30):
        again.follow(Progress(step, 30))
        torch.testing.assert_close(again.offset, had[step][0], rtol=0, atol=0)
        torch.testing.assert_close(again.threshold, had[step][1], rtol=0, atol=0)
    again.learn(held(), NONE)  # the evaluation after the last step
    torch.testing.assert_close(again.offset, c.offset, rtol=0, atol=0)
    torch.testing.assert_close(again.last_offset, c.offset, rtol=0, atol=0)
    again.learn(held(), NONE)
    torch.testing.assert_close(again.threshold, c.threshold, rtol=0, atol=0)


def test_messages():
    for make, text in (
        (lambda: OffsetSearch(ridge=-1), "ridge=-1: expected a number of 0 or more, such as 0.01"),
        (lambda: OffsetSearch(fade=0), "fade=0: expected a number of samples, 1 or more, or None"),
        (lambda: OffsetSearch(limit=1.0), "pi_limit=1.0: expected a number above 1, such as 30"),
        (lambda: OffsetSearch(solver="newtn"), "Did you mean 'newton'"),
        (lambda: ThresholdSearch(0.0), "target_precision=0.0: expected a precision above 0 and up to 1, such as 0.75"),
        (lambda: ThresholdSearch(choice="nm"), "choice='nm'"),
        (lambda: ThresholdSearch(groups=0), "tau_groups=0: expected a number of groups, 1 or more, or None"),
        (lambda: curriculum(average="log"), "average='log'"),
        (lambda: curriculum(rare="min"), "rare='min'"),
    ):
        with pytest.raises(UsageError, match=text):
            make()
