import pytest
import torch

from sfumato.views.dense_presets import Patches
from sfumato.views.patches import draw_patches, small_patches, with_patches

SLOTS = torch.arange(4000)
ABOUT = {"seed": 1, "step": 2, "purpose": "patches"}


def drawn(size=(32, 32), slots=SLOTS, patches=None, **about):
    return draw_patches(slots, size, patches or small_patches(size), **ABOUT | about)


@pytest.mark.parametrize(
    ("size", "side"), [((32, 32), 8), ((96, 64), 16), ((224, 224), 32), ((64, 320), 16), ((8, 8), 2), ((2, 3), 1)]
)
def test_patches_are_squares_of_32_pixels_or_a_quarter(size, side):
    patches = drawn(size, SLOTS[:200])
    assert patches.shape == (200, *size)
    assert patches.dtype == torch.float32
    assert set(patches.unique().tolist()) == {0.0, 1.0}
    for axis in (1, 2):
        assert changes(patches, axis) == [k for k in range(1, size[axis - 1]) if k % side == 0]


def test_patches_fill_a_side_that_they_do_not_divide():
    patches = drawn((75, 30), SLOTS[:200], Patches(side=10))
    assert changes(patches, 1) == [11, 22, 33, 43, 54, 65]  # seven parts, as equal as whole pixels can be
    assert changes(patches, 2) == [10, 20]


def changes(patches, axis):
    """Where a patch begins, along one side."""
    steps = patches.diff(dim=axis).abs().sum(dim=(0, 3 - axis))
    return (steps.nonzero().flatten() + 1).tolist()


def test_half_of_the_images_and_seven_of_ten_patches():
    patches = drawn()[:, ::8, ::8].flatten(1)
    masked = patches.amax(dim=1) > 0
    assert masked.float().mean() == pytest.approx(0.5, abs=0.03)
    assert patches[masked].mean() == pytest.approx(0.7, abs=0.01)


def test_which_images_have_patches_is_known_without_them():
    patches = Patches(side=8, rate=1.0, probability=0.3)
    assert torch.equal(with_patches(SLOTS, patches, **ABOUT), drawn(patches=patches).amax(dim=(1, 2)) == 1)


def test_a_function_of_seed_step_purpose_and_slot():
    whole = drawn()
    assert torch.equal(drawn(slots=SLOTS[100:110]), whole[100:110])
    for change in ({"seed": 3}, {"step": 3}, {"purpose": "other"}):
        assert not torch.equal(drawn(**change), whole)
