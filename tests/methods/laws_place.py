"""Laws of place: ignored entries, warps, and pixels as samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.types import Batch, unwarped
from tests.methods.cases import (
    Case,
    assert_same,
    nets_of,
    pseudo_of,
    state,
    steps,
    values,
)
from tests.methods.problems import (
    flip,
    halve,
    on_images,
    on_maps,
    with_validity,
    with_warps,
)


def ignored_entries_weigh_nothing(case: Case) -> None:
    method, other = case.method(), case.method()
    reached = False  # in some step: a mixture with what is ignored is ignored
    for k, plain in enumerate(case.batches(2, method, void=0.4)):
        batch = on_images(plain, lambda x: x.clone().requires_grad_())
        (losses,) = steps(method, [batch], nets_of(layout="concat"), start=k)
        losses.total.backward()
        marked, rest = batch.labeled, batch.unlabeled
        views = [(marked.x, marked.valid), (marked.strong, marked.valid), (rest.weak, rest.valid)]
        views += [(view, rest.valid) for view in rest.strong]
        for image, valid in views:
            if image is not None and image.grad is not None:
                assert (image.grad.movedim(1, -1)[valid == 0] == 0).all(), "gradient at an ignored entry"
        seen = [x.grad for x in (marked.x, marked.strong) if x is not None and x.grad is not None]
        reached = reached or any(bool((grad.movedim(1, -1)[marked.valid > 0] != 0).any()) for grad in seen)

        changed = _rewritten(plain)
        (got,) = steps(other, [changed], nets_of(layout="concat"), start=k)
        assert_same(values(got), values(losses), 1e-6)
        kept = rest.valid > 0
        for key, value in pseudo_of(got).items():
            a, b = (x.movedim(1, -1) if x.dim() > kept.dim() else x for x in (value, pseudo_of(losses)[key]))
            torch.testing.assert_close(a[kept], b[kept], rtol=0, atol=1e-6)
    assert reached, "no gradient at a labelled entry"
    assert_same(state(other), state(method), 1e-6)


def _rewritten(batch: Batch) -> Batch:
    """Other values at the ignored entries, and another label than 255."""
    marked, rest = batch.labeled, batch.unlabeled

    def spoil(image: Tensor, valid: Tensor) -> Tensor:
        out = image.clone()
        out.movedim(1, -1)[valid == 0] = torch.linspace(-30, 30, image.shape[1])
        return out

    return Batch(
        replace(
            marked,
            x=spoil(marked.x, marked.valid),
            y=marked.y.masked_fill(marked.valid == 0, -1),
            strong=None if marked.strong is None else spoil(marked.strong, marked.valid),
        ),
        replace(rest, weak=spoil(rest.weak, rest.valid), strong=tuple(spoil(v, rest.valid) for v in rest.strong)),
    )


def the_warp_carries_the_pseudo_label(case: Case) -> str | None:
    if not case.method().views.strong:
        return "no strong view"
    (batch,) = case.batches(1, case.method())

    def charged(batch: Batch) -> Tensor:
        (losses,) = steps(case.method(), [batch])
        return distributed.sum_over_ranks(losses.unsupervised)

    plain = charged(batch)
    if not case.task.dense:
        half = charged(with_warps(batch, halve))
        if case.method().views.weak_gradient:  # the weak view, which is not warped, may be charged too
            assert plain / 2 * 0.999 < half < plain
        else:
            torch.testing.assert_close(half, plain / 2)
        return None
    followed = charged(with_warps(batch, flip, lambda x: x.flip(-1)))
    ignored = charged(with_warps(batch, unwarped, lambda x: x.flip(-1)))
    torch.testing.assert_close(followed, plain, rtol=1e-5, atol=1e-6)
    assert (ignored - plain).abs() > 1e-3 * plain.abs(), "a strong view that was flipped costs the same without a warp"
    return None


def one_pixel_is_one_sample(case: Case) -> str | None:
    if case.task.dense:
        return "compared from the other side"
    images = case.method()
    try:
        pixels = Case(case.name, case.make, replace(case.task, space=(1, 1))).method()
    except UsageError as error:
        if "for one class per image only" in str(error):
            return "for one class per image only"
        raise

    def widened(batch: Batch) -> Batch:
        marked, rest = batch.labeled, batch.unlabeled
        wide = on_images(batch, lambda x: x[..., None, None])
        wide = with_validity(wide, marked.valid[..., None, None], rest.valid[..., None, None])
        patches = None if rest.patches is None else rest.patches[..., None, None]
        stored = None if rest.stored is None else on_maps(rest.stored, lambda x: x[..., None, None])
        unlabeled = replace(wide.unlabeled, patches=patches, stored=stored)
        return replace(wide, labeled=replace(wide.labeled, y=marked.y[..., None, None]), unlabeled=unlabeled)

    batches = case.batches(3, images)
    batches = [with_validity(b, b.labeled.valid, torch.ones_like(b.unlabeled.valid)) for b in batches]
    for batch, k in zip(batches, range(3), strict=True):
        (want,), (got,) = steps(images, [batch], start=k), steps(pixels, [widened(batch)], start=k)
        assert_same(values(got), values(want), 1e-5)
        assert_same({key: v.squeeze((-1, -2)) for key, v in pseudo_of(got).items()}, pseudo_of(want), 1e-6)
    return None
