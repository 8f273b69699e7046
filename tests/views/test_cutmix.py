import pytest
import torch

from sfumato.functional.probability import most_probable
from sfumato.types import Pseudo, Sparse
from sfumato.views import CutMix, classmix
from sfumato.views.cutmix import from_boxes, paired
from tests.views.pictures import pictures

HEIGHT, WIDTH, CLASSES = 12, 10, 6
FORMS = ["hard", "soft", "sparse"]


def pseudo(form: str, count: int = 4, seed: int = 0) -> Pseudo:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(count, CLASSES, HEIGHT, WIDTH, generator=generator).softmax(1)
    top = p.topk(2, dim=1)
    target = {
        "hard": p.argmax(1),
        "soft": p,
        "sparse": Sparse(top.indices, top.values / top.values.sum(1, keepdim=True)),
    }[form]
    weight = torch.rand(count, HEIGHT, WIDTH, generator=generator)
    valid = (torch.rand(count, HEIGHT, WIDTH, generator=generator) < 0.8).float()
    return Pseudo(target, weight, valid)


def planes(mixed: Pseudo) -> list[torch.Tensor]:
    """Everything that a pseudo-label holds, without channels or as (N, K, H, W)."""
    target = mixed.target
    return [*((target.labels, target.share) if isinstance(target, Sparse) else (target,)), mixed.weight, mixed.valid]


def some_boxes(count: int = 4) -> torch.Tensor:
    return torch.tensor([[2, 3, 7, 9], [0, 0, 10, 12], [9, 11, 10, 12], [0, 0, 0, 0]])[:count]


@pytest.mark.parametrize("count", range(2, 10))
def test_the_partner_is_never_the_image_itself(count):
    partner = paired(count)
    assert (partner != torch.arange(count)).all()
    assert ((partner >= 0) & (partner < count)).all()
    even = count - count % 2
    assert torch.equal(partner[:even], torch.arange(even) ^ 1)
    if count % 2:
        assert partner[-1] == count - 2


def test_parts_of_even_size_make_the_pairs_of_the_whole():
    assert torch.equal(paired(8), torch.cat([paired(2), paired(4) + 2, paired(2) + 6]))


@pytest.mark.parametrize("form", FORMS)
def test_an_image_alone_is_left_alone(form):
    whole = torch.tensor([[0, 0, WIDTH, HEIGHT]])
    one = pseudo(form, 1)
    for mixing in (from_boxes(whole, (HEIGHT, WIDTH)), classmix(one, torch.rand(1, CLASSES))):
        assert not mixing.region.any()
        for before, after in zip(planes(one), planes(mixing(one)), strict=True):
            assert torch.equal(before, after)


@pytest.mark.parametrize("form", FORMS)
def test_everything_is_mixed_in_the_same_region(form):
    mixing = from_boxes(some_boxes(), (HEIGHT, WIDTH))
    before = pseudo(form)
    images, ignore = torch.rand(4, 3, HEIGHT, WIDTH), torch.rand(4, HEIGHT, WIDTH)
    pairs = [*zip(planes(before), planes(mixing(before)), strict=True)]
    pairs += [(images, mixing.images(images)), (ignore, mixing.maps(ignore))]
    for old, new in pairs:
        assert new.dtype == old.dtype
        for row, (left, top, right, bottom) in enumerate(some_boxes().tolist()):
            expected = old[row].clone()
            expected[..., top:bottom, left:right] = old[row ^ 1][..., top:bottom, left:right]
            assert torch.equal(new[row], expected)


def test_sparse_and_dense_targets_mix_to_the_same():
    mixing = from_boxes(some_boxes(), (HEIGHT, WIDTH))
    sparse = pseudo("sparse")
    dense = torch.zeros(4, CLASSES, HEIGHT, WIDTH).scatter(1, sparse.target.labels, sparse.target.share)
    mixed = mixing(sparse).target
    again = torch.zeros_like(dense).scatter(1, mixed.labels, mixed.share)
    assert torch.equal(again, mixing(Pseudo(dense, sparse.weight, sparse.valid)).target)


def test_several_boxes_are_one_region():
    boxes = torch.tensor([[[0, 0, 4, 4], [2, 2, 6, 6]], [[0, 0, 0, 0], [1, 1, 2, 3]]])
    region = from_boxes(boxes, (HEIGHT, WIDTH)).region
    assert region.flatten(1).sum(1).tolist() == [16 + 16 - 4, 2]
    assert region[0, 5, 5]
    assert not region[0, 0, 5]


def test_padding_stays_ignored():
    # The right half of the second image and the lower half of the first are padding.
    valid = torch.ones(2, HEIGHT, WIDTH)
    valid[1, :, 5:] = 0
    valid[0, 6:] = 0
    mixing = from_boxes(torch.tensor([[0, 0, WIDTH, 6], [0, 6, WIDTH, HEIGHT]]), (HEIGHT, WIDTH))
    images = valid[:, None] * 7
    mixed = mixing(Pseudo(torch.zeros(2, HEIGHT, WIDTH, dtype=torch.int64), torch.ones_like(valid), valid))
    assert torch.equal(mixing.images(images)[:, 0] > 0, mixed.valid > 0)
    assert mixed.valid[0, :6, 5:].sum() == 0
    assert mixed.valid[0, 6:].sum() == 0
    assert mixed.valid[1, 6:].sum() == 0


@pytest.mark.parametrize("form", FORMS)
def test_partners_from_a_bank(form):
    # Labeled images and their labels, as many as there are.
    batch, bank = pseudo(form), pseudo(form, count=3, seed=1)
    partner = torch.tensor([2, 0, 1, 2])
    mixing = from_boxes(some_boxes(), (HEIGHT, WIDTH), partner)
    for old, other, new in zip(planes(batch), planes(bank), planes(mixing(batch, bank)), strict=True):
        assert torch.equal(new[1], other[0])
        assert torch.equal(new[3], old[3])
        assert torch.equal(new[0][..., 3:9, 2:7], other[2][..., 3:9, 2:7])
    images, labeled = pictures(4, side=12)[..., :10], pictures(3, side=12, seed=1)[..., :10]
    assert torch.equal(mixing.images(images, labeled)[1], labeled[0])
    alone = from_boxes(some_boxes()[1:2], (HEIGHT, WIDTH), torch.tensor([1]))
    assert torch.equal(alone.images(images[:1], labeled)[0], labeled[1])


@pytest.mark.parametrize("form", FORMS)
def test_classmix_takes_half_of_the_partners_classes(form):
    before = pseudo(form, 5)
    draw = torch.rand(5, CLASSES, generator=torch.Generator().manual_seed(1))
    mixing = classmix(before, draw)
    labels = most_probable(before.target)
    for row, other in enumerate(paired(5).tolist()):
        valid = before.valid[other] > 0
        present = labels[other][valid].unique()
        smallest = present[draw[row, present].argsort()][: len(present) // 2]
        assert torch.equal(mixing.region[row], torch.isin(labels[other], smallest) & valid)
        assert mixing.region[row].any()


def test_classmix_of_void_and_of_single_classes():
    labels = torch.full((4, HEIGHT, WIDTH), 255)
    labels[1] = 3  # one class: half of it is none
    labels[3, :4], labels[3, 4:8] = 0, 5  # two classes, the rest void
    before = Pseudo(labels, torch.ones(4, HEIGHT, WIDTH), (labels != 255).float())
    region = classmix(before, torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.6, 0.1]]).expand(4, -1)).region
    assert not region[[0, 1, 3]].any()
    assert torch.equal(region[2], labels[3] == 5)


def test_classmix_draws_every_class_equally_often():
    labels = (torch.arange(HEIGHT * WIDTH) % 4).view(1, HEIGHT, WIDTH).expand(4000, -1, -1)
    before = Pseudo(labels, torch.ones(labels.shape), torch.ones(labels.shape))
    region = classmix(before, torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))).region
    shares = region.flatten(1).float()[:, :4].mean(0)
    assert torch.allclose(shares, torch.full((4,), 0.5), atol=0.04)


@pytest.mark.parametrize("form", FORMS)
def test_only_some_images_are_mixed(form):
    before = pseudo(form)
    mixing = from_boxes(some_boxes(), (HEIGHT, WIDTH))
    some = mixing.only(torch.tensor([True, False, True, False]))
    for old, all_mixed, mixed in zip(planes(before), planes(mixing(before)), planes(some(before)), strict=True):
        assert torch.equal(mixed[::2], all_mixed[::2])
        assert torch.equal(mixed[1::2], old[1::2])


def test_a_mixing_is_a_warp():
    mixing = CutMix(torch.tensor([1, 0]), torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool))
    both = pseudo("hard", 2)
    assert torch.equal(mixing(both).target, both.target.flip(0))
    assert torch.equal(mixing(mixing(both)).weight, both.weight)
