"""Correlation, what it spreads, and segments grown from it, against loops over single places in float64."""

import math
from contextlib import nullcontext

import pytest
import torch

from sfumato.functional import correlation as module
from sfumato.functional.correlation import Regions, bounded, correlation, drawn_regions, grown, propagated, resized
from tests.functional.oracle import logits_of, softmax

N, D, C = 3, 6, 4
GRID, SIZE = (3, 4), (7, 10)


def validity(*shape, share=0.8, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share).double()


def test_rows_are_softmax_over_valid_places_and_spread_logits():
    f1, f2, z = (logits_of(N, D, *GRID, scale=1.5, seed=seed) for seed in range(3))
    valid = validity(N, *GRID)
    a = correlation(f1, f2, valid)
    got = propagated(z, a, valid).flatten(2)
    flat = [x.flatten(2).transpose(1, 2).tolist() for x in (f1, f2, z)]
    places = range(GRID[0] * GRID[1])
    for n in range(N):
        f, g, logits = (x[n] for x in flat)
        kept = [i for i in places if valid[n].flatten()[i]]
        assert 0 < len(kept) < len(places)
        spread = {j: [0.0] * D for j in places}
        for i in kept:
            row = softmax([sum(x * y for x, y in zip(f[i], g[j], strict=True)) / math.sqrt(D) for j in kept])
            for j, share in zip(kept, row, strict=True):
                assert float(a[n, i, j]) == pytest.approx(share)
                spread[j] = [s + share * x for s, x in zip(spread[j], logits[i], strict=True)]
        for j in places:
            assert got[n, :, j].tolist() == pytest.approx(spread[j], abs=1e-12)


def test_places_that_are_not_valid_get_and_give_no_gradient():
    f1, f2, z = (logits_of(N, D, *GRID, seed=seed).requires_grad_() for seed in range(3))
    valid = validity(N, *GRID)
    out = propagated(z, correlation(f1, f2, valid), valid)
    out.square().sum().backward()
    assert z.grad is None
    for f in (f1, f2):
        gradient = f.grad.movedim(1, -1)
        assert (gradient[valid == 0] == 0).all()
        assert (gradient[valid > 0] != 0).any(dim=1).all()


def test_nothing_valid_and_far_apart_is_finite():
    f, z = logits_of(N, D, *GRID, scale=1e6).float().requires_grad_(), logits_of(N, D, *GRID).float()
    for valid in (torch.zeros(N, *GRID), torch.ones(N, *GRID), validity(N, *GRID).float()):
        out = propagated(z, correlation(f, f, valid), valid)
        (gradient,) = torch.autograd.grad(out.sum(), f)
        assert out.isfinite().all()
        assert gradient.isfinite().all()
        if valid.sum() == 0:
            assert (out == 0).all()


def test_gradients_are_those_of_differences():
    f1, f2, z = (logits_of(1, 2, 2, 2, seed=seed) for seed in range(3))
    valid = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, y: propagated(z, correlation(x, y, valid), valid), (f1.requires_grad_(), f2.requires_grad_())
    )


def given_regions(seed=0, regions=12):
    """Labels in large blocks of which most are sure, and smooth regions that overlap."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(C, (N, 2, 2), generator=draw).repeat_interleave(4, 1).repeat_interleave(5, 2)[:, :7]
    selected = (torch.rand(label.shape, generator=draw) < 0.75).double()
    valid = (torch.rand(label.shape, generator=draw) < 0.9).double()
    maps = torch.randn((N, regions, *GRID), generator=draw, dtype=torch.float64)
    maps[0, 1] = 0.25  # no range, no segment
    there = torch.rand((N, regions), generator=draw) < 0.8
    return Regions(maps, there), label, selected, valid


def bilinear(grid, row, column):
    """One pixel of `grid` at SIZE, corner on corner."""

    def place(at, out, into):
        exact = at * (into - 1) / (out - 1)
        first = min(int(exact), into - 2)
        return first, exact - first

    (r, dr), (c, dc) = place(row, SIZE[0], GRID[0]), place(column, SIZE[1], GRID[1])
    upper = grid[r][c] * (1 - dc) + grid[r][c + 1] * dc
    lower = grid[r + 1][c] * (1 - dc) + grid[r + 1][c + 1] * dc
    return upper * (1 - dr) + lower * dr


def by_loops(regions, label, selected, valid, threshold):
    """One region after another, each writing over what stands there. Also how many rule, and how often one overwrites
    another's pixel by a different class.
    """
    label, before, sure = label.clone(), label.clone(), selected.clone()
    accepted = overwritten = 0
    for n in range(N):
        pixels = [(i, j) for i in range(SIZE[0]) for j in range(SIZE[1]) if valid[n, i, j]]
        written: set[tuple[int, int]] = set()
        for k, grid in enumerate(regions.maps[n].tolist()):
            value = {at: bilinear(grid, *at) for at in pixels}
            low, high = min(value.values()), max(value.values())
            if not regions.there[n, k] or high == low:
                continue
            segment = [at for at in pixels if (value[at] - low) / (high - low) > 0.5]
            classes = [int(before[n][at]) for at in segment if selected[n][at]]
            if not len(classes) / len(segment) > threshold:
                continue
            ruler = max(range(C), key=classes.count)
            if not classes.count(ruler) / len(classes) > threshold:
                continue
            accepted += 1
            for at in segment:
                overwritten += at in written and int(label[n][at]) != ruler
                written.add(at)
                label[n][at], sure[n][at] = ruler, 1.0
    return label, sure, accepted, overwritten


@pytest.mark.parametrize("block", [1 << 19, 500, 1])
@pytest.mark.parametrize("seed", range(3))
def test_growth_is_that_of_one_region_after_another(seed, block, monkeypatch):
    monkeypatch.setattr(module, "_ON_CPU", block)
    regions, label, selected, valid = given_regions(seed)
    want, sure, accepted, overwritten = by_loops(regions, label, selected, valid, 0.6)
    got = grown(regions, label, selected, valid, threshold=torch.tensor(0.6), num_classes=C)
    assert accepted >= 5
    assert overwritten >= 5
    assert torch.equal(got[0], want)
    assert torch.equal(got[1], sure)
    assert got[1].dtype == selected.dtype
    backwards = Regions(regions.maps.flip(1), regions.there.flip(1))
    other = grown(backwards, label, selected, valid, threshold=0.6, num_classes=C)
    assert not torch.equal(other[0], want), "the order of the regions matters where they overlap"
    assert torch.equal(other[1], sure)


def test_both_shares_must_be_above_the_threshold():
    """A segment of four pixels: 3/4 sure, of those 2/3 of one class."""
    label = torch.tensor([[[1, 1, 2, 0, 0, 0]]])
    selected = torch.tensor([[[1.0, 1.0, 1.0, 0.0, 1.0, 1.0]]])
    maps = torch.tensor([[[[1.0, 0.9, 0.9, 0.8, 0.0, 0.1]]]])
    regions = Regions(maps, torch.ones(1, 1, dtype=torch.bool))

    def classes(threshold, sure=selected, there=regions):
        return grown(there, label, sure, torch.ones_like(sure), threshold=threshold, num_classes=3)[0].tolist()

    assert classes(0.6) == [[[1, 1, 1, 1, 0, 0]]]
    assert classes(0.7) == label.tolist()  # 2/3 of one class
    assert classes(0.6, torch.tensor([[[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]])) == label.tolist()  # 2/4 sure
    assert classes(0.5, torch.tensor([[[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]])) == label.tolist()  # not above
    assert classes(0.6, there=Regions(maps, torch.zeros(1, 1, dtype=torch.bool))) == label.tolist()


def test_drawn_regions_are_rows_of_the_places_drawn():
    a, valid = logits_of(2, 12, 12).softmax(2), torch.ones(2, *GRID)
    valid[1, 0, 1] = 0
    uniform = torch.tensor([[0.0, 0.5, 1 - 2.0**-24], [1.5 / 12, 0.99, 1.5 / 12]])
    regions = drawn_regions(a, valid, uniform)
    places = [[0, 6, 11], [1, 11, 1]]
    for n in range(2):
        for k in range(3):
            assert torch.equal(regions.maps[n, k].flatten(), a[n, places[n][k]])
    assert regions.there.tolist() == [[True] * 3, [False, True, False]]


def test_autocast_changes_nothing():
    f1, f2, z = (logits_of(N, D, *GRID, seed=seed).float() for seed in range(3))
    valid = validity(N, *GRID).float()
    _, label, selected, inside = given_regions()
    uniform = torch.rand((N, 5), generator=torch.Generator().manual_seed(1))

    def everything():
        a = correlation(f1, f2, valid)
        rows = drawn_regions(a, valid, uniform)
        return a, propagated(z, a, valid), *grown(rows, label, selected, inside, threshold=0.5, num_classes=C)

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got, want in zip(everything(), plain, strict=True):
            assert torch.equal(got, want)


def test_nothing_waits_for_the_device(monkeypatch):
    """Tensors of the meta device have no values: whatever asked for one would fail."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which that device has not
    f, valid = torch.empty(N, D, *GRID, device="meta"), torch.empty(N, *GRID, device="meta")
    a = correlation(f, f, valid)
    assert propagated(f, a, valid).shape == f.shape
    regions = drawn_regions(a, valid, torch.empty(N, 9, device="meta"))
    label = torch.empty((N, *SIZE), dtype=torch.int64, device="meta")
    maps = torch.empty((N, *SIZE), device="meta")
    got = grown(regions, label, maps, maps, threshold=torch.empty((), device="meta"), num_classes=C)
    assert [x.shape for x in got] == [label.shape, label.shape]


def test_grids_are_bounded_and_keep_their_shape():
    assert bounded((41, 41), 41) == (41, 41)
    assert bounded((81, 81), 41) == (41, 41)
    assert all(bounded((side, side), 41) == (41, 41) for side in range(41, 400))
    height, width = bounded((100, 400), 41)
    assert height * width <= 41 * 41
    assert width / height == pytest.approx(4, rel=0.05)
    assert bounded((1, 10), 3) == (1, 9)
    assert bounded((1, 10_000), 3) == (1, 300)  # a side never falls below 1
    assert bounded((10_000, 2), 3) == (212, 1)
    x = torch.rand(1, 2, 5, 5)
    assert resized(x, (5, 5)) is x
    torch.testing.assert_close(resized(x, (3, 3)), x[..., ::2, ::2])
