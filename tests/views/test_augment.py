import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.views import Augment, Operation, Preset, pixels, strong, uniform
from sfumato.views.slots import chosen, everywhere
from tests.views.pictures import only, pictures, plain

NAMES = ["digits", "natural32", "photos"]
SLOTS = torch.arange(8)


def made(name: str, channels: int = 3) -> Augment:
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.5, 0.6, 0.7)[:channels]
    return Augment(name, seed=5, image_size=24, mean=mean, std=std)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [24, 31, 60])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_type(name, side, channels):
    images = pictures(8, channels, side)
    views = made(name, channels)
    for view in (
        views.weak(images, step=0, slots=SLOTS, purpose="w"),
        views.strong(images, step=0, slots=SLOTS, purpose="s"),
        views.evaluation(images),
    ):
        assert view.shape == (8, channels, 24, 24)
        assert view.dtype == torch.float32
        assert view.isfinite().all()


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize("name", NAMES)
def test_a_view_does_not_depend_on_the_batch(name, kind):
    images = pictures(37, side=24)
    view = getattr(made(name), kind)
    slots = torch.arange(37)
    whole = view(images, step=3, slots=slots, purpose="p")
    for cuts in ([4, 33], [1] * 37, [20, 17]):
        parts = zip(images.split(cuts), slots.split(cuts), strict=True)
        assert torch.equal(whole, torch.cat([view(some, step=3, slots=at, purpose="p") for some, at in parts]))
    order = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order], view(images[order], step=3, slots=slots[order], purpose="p"))


def test_chunks_do_not_show(monkeypatch):
    images = pictures(11)
    slots = torch.arange(11)
    whole = plain("natural32").strong(images, step=0, slots=slots, purpose="p")
    monkeypatch.setattr(pixels, "CHUNK", 3 * 3 * 32 * 32)
    assert torch.equal(whole, plain("natural32").strong(images, step=0, slots=slots, purpose="p"))


def test_computing_every_row_gives_the_same(monkeypatch):
    images, slots = pictures(60), torch.arange(60)
    expected = plain("natural32").strong(images, step=0, slots=slots, purpose="p")
    monkeypatch.setattr(strong, "on_rows", everywhere)
    monkeypatch.setattr(strong.tables, "on_rows", everywhere)
    assert torch.equal(plain("natural32").strong(images, step=0, slots=slots, purpose="p"), expected)


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize("name", NAMES)
def test_views_repeat_and_differ_with_what_they_are_for(name, kind):
    images = pictures(8, side=24)

    def view(seed=5, step=0, purpose="p", slots=SLOTS):
        one = Augment(name, seed=seed, image_size=24, mean=(0.0,) * 3, std=(1.0,) * 3)
        return getattr(one, kind)(images, step=step, slots=slots, purpose=purpose)

    first = view()
    assert torch.equal(first, view())
    for other in (view(seed=6), view(step=1), view(purpose="q"), view(slots=SLOTS + 8)):
        assert (first != other).flatten(1).any(1).float().mean() > 0.8


def test_samples_of_a_batch_get_operations_of_their_own():
    images = pictures(1).expand(64, -1, -1, -1)
    views = plain("natural32").strong(images, step=0, slots=torch.arange(64), purpose="p")
    assert views.flatten(1).unique(dim=0).shape[0] == 64


@pytest.mark.parametrize("kind", ["weak", "strong", "evaluation"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [24, 50])
def test_bytes_and_fractions_agree(kind, name, side):
    images = pictures(8, side=side)
    draws = {} if kind == "evaluation" else {"step": 0, "slots": SLOTS, "purpose": "p"}
    of_bytes, of_fractions = (getattr(made(name), kind)(form, **draws) for form in (images, images / 255))
    assert torch.allclose(of_bytes, of_fractions, atol=1e-5) or near(of_bytes, of_fractions)


def near(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Up to the one pixel in a hundred whose rounding to a whole grey value falls on the other side."""
    return bool(((left - right).abs() > 1e-5).float().mean() < 0.01)


@pytest.mark.parametrize("kind", ["weak", "strong", "evaluation"])
def test_normalisation(kind):
    images = pictures(8, side=24)
    draws = {} if kind == "evaluation" else {"step": 0, "slots": SLOTS, "purpose": "p"}
    bare = getattr(Augment("natural32", seed=5, image_size=24, mean=(0.0,) * 3, std=(1.0,) * 3), kind)(images, **draws)
    expected = (bare - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    assert torch.allclose(getattr(made("natural32"), kind)(images, **draws), expected, atol=1e-5)


def test_weak_and_strong_of_one_purpose_share_their_crop():
    images = pictures(8)
    bare = plain(Preset((), slots=0, shift=0.25, flip=0.5))
    weak = bare.weak(images, step=0, slots=SLOTS, purpose="p")
    strong_view = bare.strong(images, step=0, slots=SLOTS, purpose="p")
    assert torch.allclose(weak, strong_view, atol=1e-5)
    assert not torch.allclose(weak, bare.strong(images, step=0, slots=SLOTS, purpose="q"), atol=0.1)


@pytest.mark.parametrize(
    ("name", "magnitude"),
    [
        ("autocontrast", 0.0),
        ("brightness", 0.5),
        ("equalize", 256.0),
        ("color", 0.1),
        ("sharpness", 0.1),
        ("rotate", 20.0),
    ],
)
def test_the_operation_of_the_preset_reaches_the_image(name, magnitude):
    images = pictures(2) // 2 + 30
    view = plain(only(name, magnitude)).strong(images, step=0, slots=SLOTS[:2], purpose="p")
    assert ((view * 255 - images).abs().mean((1, 2, 3)) > 0.5).all()
    same = plain(only("identity")).strong(images, step=0, slots=SLOTS[:2], purpose="p")
    assert torch.allclose(same * 255, images.float(), atol=1e-3)


@pytest.mark.parametrize("name", ["color", "sharpness"])
def test_factors_of_several_slots_multiply(name):
    images = pictures(1)
    twice = Preset((Operation(name, 0.5, 0.5),), slots=2)
    views = [plain(preset).strong(images, step=0, slots=SLOTS[:1], purpose="p") for preset in (twice, only(name, 0.25))]
    assert torch.allclose(*views, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_all_operations_are_drawn_equally_often(name):
    one = plain(name)
    pool = one.preset.operations
    drawn = chosen(pool, *uniform(0, 0, "p", torch.arange(6000), 4).chunk(2, dim=1))
    for operation in pool:
        drew = drawn.drew(operation.name)
        assert abs(float(drew.float().mean()) - 1 / len(pool)) < 0.01
        magnitudes = drawn.magnitude[drew]
        assert operation.low <= magnitudes.min()
        assert magnitudes.max() <= operation.high
        assert math.isclose(
            float(magnitudes.mean()), (operation.low + operation.high) / 2, abs_tol=0.08 * (1 + operation.high)
        )


@pytest.mark.parametrize(("largest", "fill"), [(0.3, 0.0), (0.5, 0.48)])
def test_cutout_is_a_square_within_bounds(largest, fill):
    images = torch.full((400, 1, 32, 32), 255, dtype=torch.uint8)
    preset = Preset((), slots=0, cutout=largest, fill=fill)
    views = plain(preset, channels=1).strong(images, step=0, slots=torch.arange(400), purpose="p")[:, 0]
    assert torch.allclose(views.unique(), torch.tensor([fill, 1.0]), atol=1e-6)
    hole = views < 0.9
    width, height = hole.any(1).sum(1), hole.any(2).sum(1)
    assert torch.equal(hole.sum((1, 2)), width * height)  # one rectangle
    inside = ~(hole[:, 0].any(1) | hole[:, -1].any(1) | hole[:, :, 0].any(1) | hole[:, :, -1].any(1))
    assert inside.sum() > 100
    assert ((width - height).abs()[inside] <= 1).all()
    assert width.max() <= math.ceil(largest * 32)
    assert width.max() >= largest * 32 - 2
    assert width.min() == 0 or width.min() == 1
    assert (hole.float().mean(0) > 0).all()  # it reaches every pixel


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_stay_finite(name, value):
    images = torch.full((200, 1, 16, 16), value, dtype=torch.uint8)
    views = plain(name, size=16, channels=1).strong(images, step=0, slots=torch.arange(200), purpose="p")
    assert views.isfinite().all()
    assert views.min() >= 0
    assert views.max() <= 1


def test_one_image_and_one_pixel():
    views = plain("natural32", size=1)
    image = torch.tensor([[[[10]], [[20]], [[30]]]], dtype=torch.uint8)
    for view in (
        views.weak(image, step=0, slots=SLOTS[:1], purpose="p"),
        views.strong(image, step=0, slots=SLOTS[:1], purpose="p"),
        views.evaluation(image),
    ):
        assert view.shape == (1, 3, 1, 1)
        assert view.isfinite().all()


def test_evaluation_is_the_image_itself():
    images = pictures(5, side=24)
    assert torch.allclose(plain("natural32", size=24).evaluation(images), images / 255, atol=1e-6)


def test_evaluation_takes_the_middle_and_smooths_before_it_shrinks():
    images = torch.zeros(1, 1, 40, 60, dtype=torch.uint8)
    images[..., 10:50] = 255 * (torch.arange(40) % 4 == 0).to(torch.uint8)  # thin stripes in the middle square
    view = plain("photos", size=10, channels=1).evaluation(images)
    assert torch.allclose(view[..., 1:-1], torch.tensor(0.25), atol=0.05)
    stripes = plain("photos", size=40, channels=1).evaluation(images)
    assert torch.equal(stripes, images[..., 10:50] / 255)


def test_large_images_are_averaged_before_the_warp():
    images = (255 * (torch.arange(80) % 4 == 0)).expand(1, 1, 80, 80).to(torch.uint8)
    view = plain(Preset((), slots=0), size=20, channels=1).weak(images, step=0, slots=SLOTS[:1], purpose="p")
    assert torch.allclose(view, torch.tensor(0.25), atol=0.01)


def test_no_generator_is_touched_and_inputs_stay():
    images = pictures(8)
    before, state = images.clone(), torch.get_rng_state()
    fractions = images / 255
    kept = fractions.clone()
    for form in (images, fractions):
        plain("natural32").strong(form, step=0, slots=SLOTS, purpose="p")
        plain("natural32").weak(form, step=0, slots=SLOTS, purpose="p")
        plain("natural32").evaluation(form)
    assert torch.equal(images, before)
    assert torch.equal(fractions, kept)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (
            torch.zeros(8, 32, 32, dtype=torch.uint8),
            r"images must be \(N, 3, H, W\), uint8 in 0..255 .* got \(8, 32, 32\)",
        ),
        (torch.zeros(8, 1, 32, 32, dtype=torch.uint8), r"got \(8, 1, 32, 32\) of torch.uint8"),
        (torch.zeros(8, 3, 32, 32, dtype=torch.int64), r"got \(8, 3, 32, 32\) of torch.int64"),
        (torch.zeros(7, 3, 32, 32), r"slots must be \(7,\), one for each image; got \(8,\)"),
    ],
)
def test_wrong_input_says_what_was_expected(images, text):
    with pytest.raises(UsageError, match=text):
        plain("natural32").strong(images, step=0, slots=SLOTS, purpose="p")


def test_std_must_be_positive():
    with pytest.raises(UsageError, match="std above 0"):
        Augment("digits", seed=0, image_size=28, mean=(0.1,), std=(0.0,))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", NAMES)
def test_an_accelerator_shows_the_same(name):
    images, slots = pictures(64), torch.arange(64)
    on_device, slots_on_device = images.cuda(), slots.cuda()
    for kind in ("weak", "strong"):
        view = getattr(plain(name), kind)
        here = view(images, step=0, slots=slots, purpose="p")
        there = view(on_device, step=0, slots=slots_on_device, purpose="p")
        assert ((here - there.cpu()).abs() > 1e-4).float().mean() < 0.01
        torch.cuda.set_sync_debug_mode("error")
        try:
            view(on_device, step=1, slots=slots_on_device, purpose="p")  # waits for nothing
        finally:
            torch.cuda.set_sync_debug_mode("default")
