"""Which pixels are kept depends on the images alone, and how many is bounded."""

from __future__ import annotations

import pytest
import torch

from sfumato import distributed
from sfumato.pixel_sample import PixelSample
from sfumato.types import HeldOut

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def sample(n: int = 12, space: tuple[int, int] = (20, 30)) -> Batch:
    """Logits hold the image's number and the pixel's place."""
    place = torch.arange(space[0] * space[1]).reshape(space).expand(n, *space)
    images = torch.arange(n)
    logits = torch.stack([images[:, None, None].expand(n, *space), place], dim=1).float()
    valid = torch.rand(n, *space, generator=torch.Generator().manual_seed(0)) > 0.1
    valid[0] = False
    valid[1, 1:] = False  # 30 pixels at most
    return images, logits, (images[:, None, None] + place) % 2, valid


def kept(batches: list[Batch], **options: int) -> HeldOut:
    stream = PixelSample(2, **options)
    for batch in batches:
        stream.observe(*batch)
    return stream.held_out


def part(batch: Batch, rows: list[int]) -> Batch:
    return tuple(tensor[rows] for tensor in batch)


def same(one: HeldOut, other: HeldOut) -> bool:
    return torch.equal(one.logits, other.logits) and torch.equal(one.y, other.y)


def test_takes_valid_pixels_with_their_labels_once():
    images, logits, labels, valid = sample()
    found = kept([(images, logits, labels, valid)], each=100)
    image, place = found.logits.long().unbind(dim=1)
    assert image.tolist() == sorted(image.tolist())
    assert image.bincount(minlength=12).tolist() == [0, int(valid[1].sum())] + [100] * 10
    assert bool(valid.flatten(1)[image, place].all())
    assert torch.equal(labels.flatten(1)[image, place], found.y)
    assert len({*zip(image.tolist(), place.tolist(), strict=True)}) == len(image)
    assert (found.valid == 1).all()


def test_is_spread_over_the_image_and_differs_between_images():
    images, logits, labels, valid = sample()
    found = kept([(images, logits, labels, valid)], each=100)
    for i in (2, 3):
        place = found.logits[found.logits[:, 0] == i][:, 1].long()
        rank = (valid[i].flatten().cumsum(0) - 1)[place]
        assert sorted((rank * 100 // int(valid[i].sum())).tolist()) == pytest.approx(range(100), abs=1)
    first, second = (set(found.logits[found.logits[:, 0] == i][:, 1].tolist()) for i in (2, 3))
    assert 5 < len(first & second) < 50


def test_what_a_limit_leaves_is_spread_too():
    images, logits, labels, valid = sample()
    found = kept([(images, logits, labels, valid)], each=100, most=300)
    place = found.logits[:, 1] / (20 * 30)
    quarters = torch.histc(place, bins=4, min=0, max=1)
    assert len(place) == 11 * 25
    assert float(quarters.min()) > 0.15 * len(place)


@pytest.mark.parametrize("most", [10_000, 500, 130, 3])
def test_batches_and_their_order_change_nothing(most):
    batch = sample()
    whole = kept([batch], each=100, most=most)
    order = [7, 2, 0, 11, 5, 1, 3, 10, 4, 9, 8, 6]
    assert same(kept([part(batch, [i]) for i in order], each=100, most=most), whole)
    assert same(kept([part(batch, order[:5]), part(batch, order[5:])], each=100, most=most), whole)
    assert len(whole.y) <= max(most, 11)  # one pixel of each image is the least


def test_memory_is_bounded_while_images_come():
    batch = sample()
    stream = PixelSample(2, each=100, most=300)
    for i in range(12):
        stream.observe(*part(batch, [i]))
        assert sum(len(logits) for logits in stream._logits) <= 300
        assert all(logits.untyped_storage().nbytes() <= 100 * 2 * 4 for logits in stream._logits)
    before = stream._quota
    _ = stream.held_out
    assert stream._quota == before == 25


def of_one_rank(most: int) -> HeldOut:
    batch = sample()
    rows = [[0, 3, 7], [1, 2, 4, 5, 6, 8, 9, 10, 11]][distributed.rank()]
    return kept([part(batch, rows)], each=100, most=most)


@pytest.mark.parametrize("most", [10_000, 400, 130])  # 400: more than the first rank alone would keep
def test_two_ranks_keep_what_one_keeps(two_ranks, most):
    whole = kept([sample()], each=100, most=most)
    assert all(same(found, whole) for found in two_ranks.call(of_one_rank, most))


def test_torchs_random_state_is_not_touched():
    before = torch.get_rng_state()
    kept([sample()], each=10)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_pixels_wanted_or_none_there():
    images, logits, labels, valid = sample()
    for options, where in (({"each": 0}, valid), ({"each": 5}, valid & False)):
        found = kept([(images, logits, labels, where)], **options)
        assert (found.logits.shape, found.y.shape, found.y.dtype) == ((0, 2), (0,), torch.int64)
