from dataclasses import replace

import pytest

from sfumato.errors import UsageError
from sfumato.views import OPERATIONS, PRESETS, Augment, Operation, Preset


def ranges(name: str) -> dict[str, tuple[float, float]]:
    return {operation.name: (operation.low, operation.high) for operation in PRESETS[name].operations}


def test_digits_are_the_benchmark_settings():
    preset = PRESETS["digits"]
    assert (preset.slots, preset.flip, preset.cutout, preset.fill, preset.padding) == (3, 0.0, 0.3, 0.0, "zeros")
    assert preset.shift * 28 == 4
    expected = {"rotate": (-21, 21), "brightness": (0.3, 1.5), "contrast": (0.3, 1.6), "equalize": (64, 64)}
    expected |= {f"{kind}_{axis}": (-0.21, 0.21) for kind in ("shear", "translate") for axis in "xy"}
    assert expected.items() <= ranges("digits").items()
    assert len(preset.operations) == 13


def test_natural_images_draw_from_all_fourteen():
    assert sorted([*ranges("natural32"), "blur", "hue"]) == sorted(OPERATIONS)
    assert len(OPERATIONS) == 16
    assert PRESETS["natural32"].slots == 3
    assert PRESETS["natural32"].cutout == 0.5
    assert {ranges("natural32")[name] for name in ("brightness", "color", "contrast", "sharpness")} == {(0.05, 0.95)}
    assert PRESETS["photos"].operations == PRESETS["natural32"].operations
    assert PRESETS["photos"].area is not None
    assert replace(PRESETS["natural32_no_flip"], flip=0.5) == PRESETS["natural32"]


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match=r"Views preset 'natural' does not exist. Did you mean 'natural32'\?"):
        Augment("natural", seed=0, image_size=32, mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Operation("rotat", 0, 1), r"Operation\(name='rotat'\) does not exist. Did you mean 'rotate'\?"),
        (lambda: Operation("rotate", 1, 0), r"needs low <= high, got low=1, high=0"),
        (lambda: Preset(()), r"Preset\(slots=2\) needs operations to draw from"),
        (lambda: Preset((), slots=0, flip=1.5), r"Preset\(flip=1.5\) must lie in 0 to 1"),
        (lambda: Preset((), slots=0, area=(0.9, 0.1)), r"Preset\(area=\(0.9, 0.1\)\) must be \(smallest, largest\)"),
        (lambda: Preset((), slots=0, aspect=0.5), r"Preset\(aspect=0.5\) must be 1 or more"),
        (lambda: Preset((), slots=0, padding="black"), r"must be 'zeros' or 'reflection'"),
    ],
)
def test_a_preset_says_what_is_wrong(build, text):
    with pytest.raises(UsageError, match=text):
        build()
