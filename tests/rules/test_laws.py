"""What every rule obeys, whichever there are."""

import inspect
import io
from dataclasses import replace

import pytest
import torch

import sfumato.rules
from sfumato import distributed
from sfumato.rules import Refiner, Rule, Spectral, Targeter, Weigher
from sfumato.types import Sparse
from tests.rules.factory import observe, rules, steps, variants

VARIANTS = list(variants())
SPACES = ((), (3, 4))
each = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
spaces = pytest.mark.parametrize("space", SPACES, ids=str)


def copied(rule: Rule) -> dict:
    return {key: value.clone() for key, value in rule.state_dict().items()}


def answer(rule: Rule, p: torch.Tensor) -> torch.Tensor:
    """What the rule says of p, as one tensor: of a target over few classes the distribution."""
    result = rule(p)
    if not isinstance(result, Sparse):
        return result
    return torch.zeros_like(p).scatter_add_(1, result.labels, result.share)


def assert_state(rule: Rule, expected: dict, tolerance: float = 0.0) -> None:
    assert rule.state_dict().keys() == expected.keys()
    for key, value in rule.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}")


def test_all_rules_are_walked_and_public():
    names = {rule.__name__ for rule in rules()}
    assert names <= set(sfumato.rules.__all__)
    assert {variant.rule for variant in VARIANTS} == set(rules())
    walked = {kind.__name__: sum(issubclass(rule, kind) for rule in rules()) for kind in (Refiner, Weigher, Targeter)}
    assert sum(walked.values()) == len(names)
    print(f"walked {len(names)} rules in {len(VARIANTS)} forms: {walked}")
    assert len(names) >= 22
    assert len(VARIANTS) > len(names)


@each
@spaces
def test_shapes_and_ranges(variant, space):
    rule = observe(variant.build(5, space), steps(3, space=space))
    p = steps(1, space=space)[0].p
    result = answer(rule, p)
    assert result.isfinite().all()
    assert not result.requires_grad
    if isinstance(rule, Weigher):
        assert result.shape == (12, *space)
        assert result.dtype == torch.float32
        assert (result >= 0).all()
    elif isinstance(rule, Refiner) or result.is_floating_point():
        assert result.shape == p.shape
        torch.testing.assert_close(result.sum(dim=1), torch.ones(12, *space))
    else:
        assert isinstance(rule, Targeter)
        assert result.shape == (12, *space)
        assert result.dtype == torch.int64


@each
@spaces
def test_calling_changes_nothing(variant, space):
    rule = observe(variant.build(5, space), steps(2, space=space))
    before = copied(rule)
    for step in steps(3, space=space, seed=1):
        first = answer(rule, step.p)
        assert torch.equal(answer(rule, step.p), first)
    assert_state(rule, before)


@each
@spaces
def test_ignored_entries_change_nothing(variant, space):
    """Neither an unlabelled nor a labelled ignored entry: not the state, not the result for any other entry."""
    seen = steps(3, space=space, void=0.4)
    poisoned = []
    for step in seen:
        p, logits = step.p.clone(), step.context.labeled_logits.clone()
        p.movedim(1, -1)[step.valid == 0] = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
        logits.movedim(1, -1)[step.context.labeled_valid == 0] = torch.tensor([9.0, 0.0, 0.0, -9.0, 0.0])
        y = step.context.labeled_y.masked_fill(step.context.labeled_valid == 0, 3)
        poisoned.append(replace(step, p=p, context=replace(step.context, labeled_logits=logits, labeled_y=y)))
    rule, other = observe(variant.build(5, space), seen), observe(variant.build(5, space), poisoned)
    assert_state(other, copied(rule))
    kept = seen[-1].valid > 0
    clean, dirty = (
        torch.movedim(r, 1, -1) if r.dim() == seen[-1].p.dim() else r
        for r in (answer(rule, seen[-1].p), answer(other, poisoned[-1].p))
    )
    assert torch.equal(clean[kept], dirty[kept])


@each
@spaces
def test_order_of_samples_does_not_matter(variant, space):
    seen = steps(3, space=space)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    shuffled = [
        replace(s, p=s.p[order], valid=s.valid[order], context=replace(s.context, index=s.context.index[order]))
        for s in seen
    ]
    rule, other = observe(variant.build(5, space), seen), observe(variant.build(5, space), shuffled)
    assert_state(other, copied(rule), 1e-6)
    got, want = answer(other, shuffled[-1].p), answer(rule, seen[-1].p)[order]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@each
@spaces
def test_names_of_classes_do_not_matter(variant, space):
    seen = steps(3, space=space, void=0.0)
    order = torch.tensor([3, 1, 4, 0, 2])
    back = order.argsort()
    renamed = []
    for s in seen:
        context = replace(
            s.context, labeled_logits=s.context.labeled_logits[:, order], labeled_y=back[s.context.labeled_y]
        )
        renamed.append(replace(s, p=s.p[:, order], context=context))
    rule, other = observe(variant.build(5, space), seen), observe(variant.build(5, space), renamed)
    want, got = answer(rule, seen[-1].p), answer(other, renamed[-1].p)
    if not want.is_floating_point():
        want = back[want]
    elif want.dim() == seen[-1].p.dim():
        want = want[:, order]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@each
def test_a_map_is_its_pixels(variant):
    """A rule that does not count images gives every pixel what it gives a sample; one that looks at each image by
    itself where it is one pixel.
    """
    space, size = ((1, 1), 24) if variant.rule is Spectral else ((2, 2), 6)
    seen = steps(3, space=space, size=size, void=0.3)
    flat = []
    for s in seen:
        c = s.context
        context = replace(
            c,
            labeled_logits=c.labeled_logits.movedim(1, -1).reshape(-1, 5),
            labeled_y=c.labeled_y.flatten(),
            labeled_valid=c.labeled_valid.flatten(),
            index=torch.arange(24),
        )
        flat.append(replace(s, p=s.p.movedim(1, -1).reshape(-1, 5), valid=s.valid.flatten(), context=context))
    if "dense" in inspect.signature(variant.rule).parameters:
        seen, flat = seen[:1], flat[:1]  # an image's vote is shared by its pixels: the same until something is learnt
    dense, plain = observe(variant.build(5, space), seen), observe(variant.build(5, ()), flat)
    want, got = answer(plain, flat[-1].p), answer(dense, seen[-1].p)
    if got.dim() == 4:
        got = got.movedim(1, -1).reshape(-1, 5)
    torch.testing.assert_close(got.flatten(), want.flatten(), rtol=1e-5, atol=1e-6)


@each
@spaces
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_hard_cases_are_finite(variant, space, classes):
    rule = variant.build(classes, space)
    sure = torch.zeros(4, classes, *space)
    sure[:, 1] = 1.0
    even = torch.full((4, classes, *space), 1 / classes)
    cases = [
        *steps(2, classes=classes, space=space, void=1.0),
        *steps(2, classes=classes, space=space, size=1, void=0.0),
        *steps(1, classes=classes, space=space),
    ]
    for p in (sure, even):
        (step,) = steps(1, classes=classes, space=space, size=4)
        cases.append(replace(step, p=p))
    for case in cases:
        rule.observe(case.p, case.valid, case.context)
        assert answer(rule, case.p).isfinite().all()
        assert all(value.isfinite().all() for value in rule.state_dict().values())


@each
@spaces
def test_autocast_changes_nothing(variant, space):
    seen = steps(3, space=space)
    rule, other = observe(variant.build(5, space), seen), variant.build(5, space)
    dtypes = {key: value.dtype for key, value in other.state_dict().items()}
    assert torch.float16 not in dtypes.values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        observe(other, seen)
        result = answer(other, seen[-1].p)
    assert {key: value.dtype for key, value in other.state_dict().items()} == dtypes
    assert_state(other, copied(rule))
    assert torch.equal(result, answer(rule, seen[-1].p))


@each
@spaces
def test_save_and_restore(variant, space):
    seen = steps(6, space=space)
    whole = observe(variant.build(5, space), seen)
    file = io.BytesIO()
    torch.save(observe(variant.build(5, space), seen[:3]).state_dict(), file)
    file.seek(0)
    resumed = variant.build(5, space)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    observe(resumed, seen[3:])
    assert_state(resumed, copied(whole))
    assert torch.equal(answer(resumed, seen[-1].p), answer(whole, seen[-1].p))


def on_this_rank() -> dict[tuple[str, tuple[int, ...]], tuple[dict, torch.Tensor]]:
    out = {}
    for variant in VARIANTS:
        for space in SPACES:
            seen = steps(4, space=space)
            mine = [step.part(distributed.rank(), distributed.world_size()) for step in seen]
            rule = observe(variant.build(5, space), mine)
            out[variant.name, space] = copied(rule), distributed.gather(answer(rule, mine[-1].p))
    return out


def test_two_ranks_of_half_a_batch_equal_one_rank(two_ranks):
    alone, together = on_this_rank(), two_ranks.call(on_this_rank)
    assert len(alone) == len(VARIANTS) * len(SPACES)
    for rank in together:
        assert rank.keys() == alone.keys()
        for name, (state, result) in rank.items():
            torch.testing.assert_close(state, alone[name][0], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
            torch.testing.assert_close(result, alone[name][1], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
