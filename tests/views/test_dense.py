import itertools

import numpy as np
import pytest
import torch

from sfumato.errors import UsageError
from sfumato.types import Pseudo
from sfumato.views import DENSE_PRESETS, Boxes, Colors, DenseAugment, DensePreset, Patches, dense_color, pixels, strong
from sfumato.views.slots import everywhere
from tests.views.pictures import pictures

NAMES = [*DENSE_PRESETS]
CROP = (40, 48)
SLOTS = torch.arange(8)
QUIET = Colors(jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0)


def made(preset="unimatch", crop=CROP, channels=3, seed=5) -> DenseAugment:
    return DenseAugment(preset, seed=seed, crop=crop, mean=(0.1, 0.2, 0.3)[:channels], std=(0.5, 0.6, 0.7)[:channels])


def plain(preset="unimatch", crop=CROP) -> DenseAugment:
    """Views in 0..1: normalized by nothing."""
    return DenseAugment(preset, seed=5, crop=crop, mean=(0.0,) * 3, std=(1.0,) * 3)


def crops(count: int = 8, channels: int = 3) -> torch.Tensor:
    return pictures(count, channels, 48)[:, :, :40]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_type(name, channels):
    images, draws = crops(channels=channels), {"step": 0, "slots": SLOTS, "purpose": "p"}
    views = made(name, channels=channels)
    for view in (
        views.weak(images),
        views.evaluation(images),
        views.strong(images, **draws),
        views.masked(images, **draws),
    ):
        assert view.shape == (8, channels, 40, 48)
        assert view.dtype == torch.float32
        assert view.isfinite().all()
    assert views.patches(**draws).shape == (8, 40, 48)
    assert views.cutmix(**draws).region.shape == (8, 40, 48)
    assert views.windows(np.full((8, 2), 50), **draws).box.shape == (8, 4)


def test_weak_and_evaluation_views_are_the_crops_normalized():
    images = crops()
    expected = (images / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[
        :, None, None
    ]
    for form in (images, images / 255):
        assert torch.allclose(made().weak(form), expected, atol=1e-5)
        assert torch.allclose(made().evaluation(form), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["strong", "masked"])
def test_colors_come_before_normalization(kind):
    images, draws = crops(), {"step": 0, "slots": SLOTS, "purpose": "p"}
    bare = getattr(plain(), kind)(images, **draws)
    expected = (bare - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    assert torch.allclose(getattr(made(), kind)(images, **draws), expected, atol=1e-5)
    assert torch.allclose(getattr(plain(), kind)(images / 255, **draws), bare, atol=1e-5)


@pytest.mark.parametrize("kind", ["strong", "masked"])
@pytest.mark.parametrize("name", NAMES)
def test_a_view_does_not_depend_on_the_batch(name, kind):
    images, slots = crops(19), torch.arange(19)
    view = getattr(made(name), kind)
    whole = view(images, step=3, slots=slots, purpose="p")
    for cuts in ([4, 15], [1] * 19):
        parts = zip(images.split(cuts), slots.split(cuts), strict=True)
        assert torch.equal(whole, torch.cat([view(some, step=3, slots=at, purpose="p") for some, at in parts]))
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order], view(images[order], step=3, slots=slots[order], purpose="p"))


@pytest.mark.parametrize("kind", ["strong", "masked"])
@pytest.mark.parametrize("name", ["unimatch", "augseg"])
def test_views_repeat_and_differ_with_what_they_are_for(name, kind):
    images = crops(40)

    def view(seed=5, step=0, purpose="p", first=0):
        slots = torch.arange(first, first + 40)
        return getattr(made(name, seed=seed), kind)(images, step=step, slots=slots, purpose=purpose)

    first = view()
    assert torch.equal(first, view())
    for other in (view(seed=6), view(step=1), view(purpose="q"), view(first=40)):
        assert (first != other).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.parametrize("name", ["unimatch", "augseg"])
def test_chunks_and_skipped_rows_do_not_show(name, monkeypatch):
    # What an accelerator does: all rows at once, each operation on all of them.
    images, draws = crops(30), {"step": 0, "slots": torch.arange(30), "purpose": "p"}
    views = [getattr(made(name), kind)(images, **draws) for kind in ("strong", "masked")]
    monkeypatch.setattr(pixels, "CHUNK", 3 * 3 * 40 * 48)
    assert torch.equal(views[0], made(name).strong(images, **draws))
    for module in (dense_color, strong, strong.tables):
        monkeypatch.setattr(module, "on_rows", everywhere)
    for kind, expected in zip(("strong", "masked"), views, strict=True):
        assert torch.equal(getattr(made(name), kind)(images, **draws), expected)


def test_strong_colors_leave_every_pixel_in_its_place():
    # Left half dark, right half bright: no color operation of the preset moves the edge.
    images = torch.full((60, 3, 40, 48), 40, dtype=torch.uint8)
    images[..., 24:] = 200
    views = plain(DensePreset(colors=Colors(blur_probability=0.0))).strong(
        images, step=0, slots=torch.arange(60), purpose="p"
    )
    assert torch.equal(views[..., :24].amax((2, 3)), views[..., :24].amin((2, 3)))
    assert (views[..., 24:].mean((1, 2, 3)) > views[..., :24].mean((1, 2, 3))).all()


def test_without_colors_the_strong_view_is_the_weak_one():
    images = crops()
    assert torch.equal(made("u2pl").strong(images, step=0, slots=SLOTS, purpose="p"), made().weak(images))


def test_patches_are_whole_and_as_frequent_as_said():
    patches = made(crop=(70, 100)).patches(step=0, slots=torch.arange(2000), purpose="p")  # 2 by 3 patches
    assert patches.unique().tolist() == [0, 1]
    masked = patches.flatten(1).any(1)
    # One image in two, less those in which no patch was drawn.
    assert float(masked.double().mean()) == pytest.approx(0.5 * (1 - 0.3**6), abs=0.035)
    assert float(patches.double().mean()) == pytest.approx(0.5 * 0.7, abs=0.03)
    columns = [0, 34, 67, 100]  # 100 pixels in three parts
    for top in (0, 35):
        for left, right in itertools.pairwise(columns):
            part = patches[:, top : top + 35, left:right].flatten(1)
            assert torch.equal(part.amin(1), part.amax(1))
    rates = torch.stack([patches[masked][:, top, left] for top in (0, 35) for left in columns[:3]], 1).double()
    assert rates.mean(0).tolist() == pytest.approx([0.7] * 6, abs=0.05)
    assert (torch.corrcoef(rates.T) - torch.eye(6)).abs().max() < 0.1


def test_patches_of_the_published_size():
    patches = made(crop=(321, 321)).patches(step=0, slots=torch.arange(64), purpose="p")
    edges = (patches[:, 1:] != patches[:, :-1]).any(0).any(1).nonzero().squeeze(1) + 1
    assert len(edges) == 9  # ten patches of 32 or 33 pixels
    assert set(edges.diff().tolist()) <= {32, 33}


def test_a_crop_below_the_patch_is_one_patch():
    patches = made(crop=(20, 20)).patches(step=0, slots=torch.arange(50), purpose="p").flatten(1)
    assert torch.equal(patches.amin(1), patches.amax(1))
    assert 0 < patches.mean() < 1


def test_images_with_patches_have_gentle_colors_and_the_others_strong_ones():
    gentle = Colors(jitter=(0.0, 0.0, 0.0, 0.0), grey_probability=0.0, blur_probability=0.0)
    preset = DensePreset(colors=Colors(jitter_probability=1.0), patches=Patches(rate=1.0, colors=gentle))
    views, images, draws = made(preset), crops(40), {"step": 0, "slots": torch.arange(40), "purpose": "p"}
    masked = views.patches(**draws).flatten(1).any(1)
    assert 10 < masked.sum() < 30
    view, plain_view = views.masked(images, **draws), views.weak(images)
    assert torch.allclose(view[masked], plain_view[masked], atol=1e-5)
    assert ((view - plain_view).abs().mean((1, 2, 3))[~masked] > 0.01).all()
    assert torch.equal(view[~masked], views.strong(images, **draws)[~masked])


def test_all_that_belongs_to_a_strong_view_shares_one_box():
    # The image says by its values where each pixel came from, and the label must say the same.
    count = 9
    source = torch.arange(count)
    images = (source.float() / 10).view(-1, 1, 1, 1).expand(-1, 3, *CROP)
    maps = source.view(-1, 1, 1).expand(-1, *CROP)
    augment = plain(DensePreset(colors=QUIET, boxes=Boxes(probability=0.9)))
    draws = {"step": 1, "slots": torch.arange(count), "purpose": "strong 0"}
    mixing = augment.cutmix(**draws)
    mixed = mixing.images(augment.strong(images, **draws))[:, 0]
    pseudo = mixing(Pseudo(maps, maps / 20, (maps != 3).float()))
    shown = (mixed * 10).round().long()
    assert torch.equal(pseudo.target, shown)
    assert torch.equal(pseudo.weight, shown / 20)
    assert torch.equal(pseudo.valid, (shown != 3).float())
    assert set(shown.flatten(1)[8].tolist()) == {8, 7}
    assert (mixing.region.flatten(1).any(1)).sum() > 5


def test_boxes_of_a_batch_are_those_of_its_slots():
    slots = torch.arange(12)
    whole = made().cutmix(step=0, slots=slots, purpose="p")
    parts = [made().cutmix(step=0, slots=part, purpose="p") for part in slots.split(4)]
    assert torch.equal(whole.region, torch.cat([part.region for part in parts]))
    pairs = torch.cat([part.partner + 4 * place for place, part in enumerate(parts)])
    assert torch.equal(whole.partner, pairs)
    other = made().cutmix(step=0, slots=slots, purpose="q")
    assert not torch.equal(whole.region, other.region)


def test_labeled_boxes_are_pasted_row_by_row():
    """A fifth of the image on average; other boxes have other places; any part of the batch has its own again."""
    slots = torch.arange(400)
    pasting = made("augseg").pasting(step=0, slots=slots, purpose="pasted")
    assert torch.equal(pasting.labeled.partner, slots)
    assert float(pasting.labeled.region.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(pasting.others.region.float().mean()) == pytest.approx(0.5, abs=0.03)
    part = made("augseg").pasting(step=0, slots=slots[8:16], purpose="pasted")
    assert torch.equal(part.labeled.region, pasting.labeled.region[8:16])
    assert torch.equal(part.others.region, pasting.others.region[8:16])
    alone = made("augseg").pasting(step=0, slots=slots[:1], purpose="pasted")
    assert torch.equal(alone.labeled.region, pasting.labeled.region[:1])
    assert not alone.others.region.any()


def test_one_image_is_never_mixed():
    for step in range(20):
        assert not made().cutmix(step=step, slots=torch.tensor([step]), purpose="p").region.any()


def test_classmix_by_the_draws_of_the_slots():
    labels = (torch.arange(40 * 48) % 4).view(1, *CROP).expand(300, -1, -1)
    pseudo = Pseudo(labels, torch.ones(labels.shape), torch.ones(labels.shape))
    draws = {"num_classes": 4, "step": 0, "purpose": "p"}
    mixing = made().classmix(pseudo, slots=torch.arange(300), **draws)
    share = mixing.region.float().mean((1, 2))
    assert set(share.tolist()) == {0.0, 0.5}
    assert float((share > 0).double().mean()) == pytest.approx(0.5, abs=0.1)
    few = Pseudo(labels[:4], pseudo.weight[:4], pseudo.valid[:4])
    assert torch.equal(made().classmix(few, slots=torch.arange(4), **draws).region, mixing.region[:4])


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(8, 1, 40, 48), r"images must be \(N, 3, H, W\).* got \(8, 1, 40, 48\) of torch.float32"),
        (torch.zeros(8, 3, 40, 48, dtype=torch.int32), r"uint8 in 0..255 or floating .* of torch.int32"),
        (torch.zeros(7, 3, 40, 48), r"slots must be \(7,\), one for each image; got \(8,\)"),
    ],
)
def test_wrong_input_says_what_was_expected(images, text):
    with pytest.raises(UsageError, match=text):
        made().strong(images, step=0, slots=SLOTS, purpose="p")


def test_wrong_settings_say_what_was_expected():
    with pytest.raises(UsageError, match=r"crop=\(0, 32\) must be \(height, width\) in pixels, each 1 or more"):
        made(crop=(0, 32))
    with pytest.raises(UsageError, match="std above 0"):
        DenseAugment("small", seed=0, crop=(8, 8), mean=(0.1,), std=(0.0,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", ["unimatch", "augseg"])
def test_an_accelerator_shows_the_same(name):
    images, slots = crops(64), torch.arange(64)
    on_device, slots_on_device = images.cuda(), slots.cuda()
    augment = made(name)
    for kind in ("strong", "masked"):
        view = getattr(augment, kind)
        here = view(images, step=0, slots=slots, purpose="p")
        there = view(on_device, step=0, slots=slots_on_device, purpose="p").cpu()
        assert ((here - there).abs() > 1e-3).float().mean() < 0.01
    draws = {"step": 0, "purpose": "p"}
    assert torch.equal(augment.patches(slots=slots, **draws), augment.patches(slots=slots_on_device, **draws).cpu())
    here, there = augment.cutmix(slots=slots, **draws), augment.cutmix(slots=slots_on_device, **draws)
    assert (here.region != there.region.cpu()).float().mean() < 1e-3
    weight = torch.ones(64, *CROP, device="cuda")
    pseudo = Pseudo(weight.long(), weight, weight)
    torch.cuda.set_sync_debug_mode("error")
    try:  # waits for nothing
        mixing = augment.cutmix(slots=slots_on_device, **draws)
        mixing.images(augment.masked(on_device, slots=slots_on_device, **draws))
        mixing(pseudo)
        augment.patches(slots=slots_on_device, **draws)
        augment.classmix(pseudo, num_classes=3, slots=slots_on_device, **draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
