from dataclasses import replace

import pytest

from sfumato.errors import UsageError
from sfumato.views import DENSE_PRESETS, Boxes, Colors, DenseAugment, DensePreset, Operation, Patches


def test_unimatch_has_the_released_parameters():
    preset = DENSE_PRESETS["unimatch"]
    assert (preset.scale, preset.base, preset.flip) == ((0.5, 2.0), None, 0.5)
    expected = Colors((0.5, 0.5, 0.5, 0.25), 0.8, grey_probability=0.2, blur_probability=0.5, sigma=(0.1, 2.0))
    assert preset.colors == expected
    assert preset.colors.operations == ()
    assert preset.boxes == Boxes(0.5, False, area=(0.02, 0.4), beta=None, shape="uniform", aspect=(0.3, 1 / 0.3))
    assert preset.boxes.count == 1


def test_csl_masks_as_released():
    preset = DENSE_PRESETS["csl"]
    assert replace(preset, patches=DENSE_PRESETS["unimatch"].patches) == DENSE_PRESETS["unimatch"]
    patches = preset.patches
    assert (patches.side, patches.rate, patches.probability) == (32, 0.7, 0.5)
    assert patches.colors.jitter[:3] == (0.2, 0.2, 0.2)
    assert (patches.colors.grey_probability, patches.colors.blur_probability) == (0, 0.5)


def test_augseg_draws_from_eleven_operations():
    preset = DENSE_PRESETS["augseg"]
    ranges = {operation.name: (operation.low, operation.high) for operation in preset.colors.operations}
    assert len(preset.colors.operations) == 11
    assert preset.colors.most == 3
    assert {ranges[name] for name in ("contrast", "brightness", "color", "sharpness")} == {(0.05, 0.95)}
    expected = {"blur": (0.1, 2), "posterize": (4, 8), "solarize": (1, 256), "hue": (-0.5, 0.5)}
    assert expected.items() <= ranges.items()
    assert {"identity", "autocontrast", "equalize"} <= ranges.keys()
    assert preset.base == 500
    assert (preset.colors.jitter_probability, preset.colors.grey_probability, preset.colors.blur_probability) == (
        0,
    ) * 3


def test_u2pl_mixes_half_of_the_image_and_nothing_else():
    preset = DENSE_PRESETS["u2pl"]
    assert (preset.colors.jitter_probability, preset.colors.grey_probability, preset.colors.blur_probability) == (
        0,
    ) * 3
    assert preset.colors.operations == ()
    assert preset.boxes == Boxes(0.5, together=True, area=(0.5, 0.5), shape="width")


def test_small_images_have_small_patches():
    assert DENSE_PRESETS["small"].patches.side == 8 < DENSE_PRESETS["unimatch"].patches.side


def test_unknown_preset_names_the_nearest():
    with pytest.raises(
        UsageError, match=r"Views preset 'unimach' for images with masks does not exist. Did you mean 'unimatch'\?"
    ):
        DenseAugment("unimach", seed=0, crop=(32, 32), mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Colors(jitter=(0.5, 0.5, 0.5, 0.6)), r"Colors\(jitter=.*\) must hold four numbers .* at most 0.5"),
        (lambda: Colors(jitter_probability=2), r"Colors\(jitter_probability=2\) must lie in 0 to 1"),
        (lambda: Colors(sigma=(2.0, 0.1)), r"Colors\(sigma=\(2.0, 0.1\)\) must be \(smallest, largest\)"),
        (lambda: Colors(most=0), r"Colors\(most=0\) must be 1 or more"),
        (lambda: Colors(operations=(Operation("rotate", -9, 9),)), r"holds 'rotate', which would move pixels away"),
        (lambda: Boxes(area=(0.1, 1.2)), r"areas reach at most 1"),
        (lambda: Boxes(aspect=(0.0, 1.0)), r"aspects exceed 0"),
        (lambda: Boxes(shape="unifrom"), r"Boxes\(shape='unifrom'\): expected one of .*Did you mean 'uniform'\?"),
        (lambda: Boxes(count=0), r"Boxes\(count=0, beta=None\) must be whole numbers of 1 or more"),
        (lambda: Patches(side=0), r"Patches\(side=0\) must be 1 pixel or more"),
        (lambda: Patches(rate=-0.1), r"Patches\(rate=-0.1\) must lie in 0 to 1"),
        (lambda: DensePreset(scale=(0.0, 1.0)), r"DensePreset\(scale=\(0.0, 1.0\), base=None\) must be above 0"),
        (lambda: DensePreset(flip=1.5), r"DensePreset\(flip=1.5\) must lie in 0 to 1"),
    ],
)
def test_a_preset_says_what_is_wrong(build, text):
    with pytest.raises(UsageError, match=text):
        build()
