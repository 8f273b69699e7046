import pytest
import torch

from sfumato.views.patches import draw_patches

SLOTS = torch.arange(4000)


def drawn(size=(32, 32), slots=SLOTS, **about):
    return draw_patches(slots, size, **{"seed": 1, "step": 2, "purpose": "patches", **about})


@pytest.mark.parametrize(
    ("size", "side"), [((32, 32), 8), ((96, 64), 16), ((224, 224), 32), ((70, 300), 17), ((8, 8), 2), ((2, 3), 1)]
)
def test_patches_are_squares_of_32_pixels_or_a_quarter(size, side):
    patches = drawn(size, SLOTS[:200])
    assert patches.shape == (200, *size)
    assert patches.dtype == torch.float32
    assert set(patches.unique().tolist()) == {0.0, 1.0}
    for axis in (1, 2):
        within = [k for k in range(1, size[axis - 1]) if k % side]
        borders = [k for k in range(1, size[axis - 1]) if k % side == 0]
        steps = patches.diff(dim=axis).abs().sum(dim=(0, 3 - axis))
        assert (steps[[k - 1 for k in within]] == 0).all()
        assert (steps[[k - 1 for k in borders]] > 0).all()


def test_half_of_the_images_and_seven_of_ten_patches():
    patches = drawn()[:, ::8, ::8].flatten(1)
    masked = patches.amax(dim=1) > 0
    assert masked.float().mean() == pytest.approx(0.5, abs=0.03)
    assert patches[masked].mean() == pytest.approx(0.7, abs=0.01)


def test_a_function_of_seed_step_purpose_and_slot():
    whole = drawn()
    assert torch.equal(drawn(slots=SLOTS[100:110]), whole[100:110])
    for change in ({"seed": 3}, {"step": 3}, {"purpose": "other"}):
        assert not torch.equal(drawn(**change), whole)


def test_another_side():
    assert (
        drawn((6, 6), side=3)[:, ::3, ::3].repeat_interleave(3, 1).repeat_interleave(3, 2).equal(drawn((6, 6), side=3))
    )
