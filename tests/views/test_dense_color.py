"""Every operation against torchvision's, and the whole against its ColorJitter's law."""

import itertools

import pytest
import torch
from scipy.stats import chisquare, kstest
from torchvision.transforms.v2 import functional as tv

from sfumato.views import DENSE_PRESETS, Colors, dense_color, uniform
from sfumato.views.dense_color import BRIGHTNESS, CONTRAST, HUE, SATURATION, blended, colored, drawn
from tests.views.pictures import pictures

# torchvision writes its weights of red, green and blue with one digit less: up to 1e-4 of white.
NEAR = 1e-4
JITTER = Colors(jitter_probability=1.0, grey_probability=0.0, blur_probability=0.0)
STEPS = {
    BRIGHTNESS: tv.adjust_brightness,
    CONTRAST: tv.adjust_contrast,
    SATURATION: tv.adjust_saturation,
    HUE: tv.adjust_hue,
}


def fractions(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def recipe_of(colors: Colors, count: int, seed: int = 0) -> dense_color.Recipe:
    return drawn(colors, uniform(seed, 0, "p", torch.arange(count), dense_color.draws(colors)))


@pytest.mark.parametrize("factor", [0.5, 0.83, 1.0, 1.5])
@pytest.mark.parametrize("kind", [BRIGHTNESS, CONTRAST, SATURATION])
def test_an_operation_equals_torchvision(kind, factor):
    images = pictures(3)
    view = blended(images.float(), torch.full((3,), kind), torch.full((3,), factor))
    expected = torch.stack([STEPS[kind](fractions(image), factor) for image in images])
    assert (view / 255 - expected).abs().max() < NEAR


def test_operations_and_factors_of_each_sample():
    images = pictures(3).float()
    kinds, factors = torch.tensor([SATURATION, BRIGHTNESS, CONTRAST]), torch.tensor([0.6, 1.4, 0.7])
    together = blended(images, kinds, factors)
    for row in range(3):
        assert torch.equal(
            together[row], blended(images[row : row + 1], kinds[row : row + 1], factors[row : row + 1])[0]
        )


def test_a_jitter_equals_torchvision_one_step_after_the_other():
    images, recipe = pictures(40, side=16), recipe_of(JITTER, 40)
    views = colored(images.float(), recipe)
    for image, view, order, factor in zip(images, views, recipe.order, recipe.factor, strict=True):
        expected = fractions(image)
        for kind in order.tolist():
            expected = STEPS[kind](expected, float(factor[kind]))
        assert (view / 255 - expected).abs().max() < 3 * NEAR


def test_grey_equals_torchvision():
    images = pictures(3)
    recipe = recipe_of(Colors(jitter_probability=0.0, grey_probability=1.0, blur_probability=0.0), 3)
    expected = tv.rgb_to_grayscale(fractions(images), num_output_channels=3)
    assert (colored(images.float(), recipe) / 255 - expected).abs().max() < 2 * NEAR


def test_blur_equals_torchvision():
    images = pictures(6, side=40)
    recipe = recipe_of(Colors(jitter_probability=0.0, grey_probability=0.0, blur_probability=1.0), 6)
    views = colored(images.float(), recipe)
    for image, view, sigma in zip(images, views, recipe.sigma.tolist(), strict=True):
        expected = tv.gaussian_blur(fractions(image), [13, 13], [sigma, sigma])
        assert (view / 255 - expected)[:, 6:-6, 6:-6].abs().max() < 1e-5  # torchvision mirrors at the border
    assert recipe.sigma.unique().numel() == 6


def test_grey_and_blur_come_after_the_jitter():
    colors = Colors(grey_probability=1.0, blur_probability=1.0, jitter_probability=1.0)
    images, recipe = pictures(5), recipe_of(colors, 5)
    step = colored(images.float(), recipe_of(JITTER, 5))
    grey = tv.rgb_to_grayscale(step, num_output_channels=3)
    for row, sigma in enumerate(recipe.sigma.tolist()):
        expected = tv.gaussian_blur(grey[row], [13, 13], [sigma, sigma])
        assert (colored(images.float(), recipe)[row] - expected)[:, 6:-6, 6:-6].abs().max() < 255 * NEAR


def test_the_parameters_of_the_unimatch_preset():
    recipe = recipe_of(DENSE_PRESETS["unimatch"].colors, 24_000)
    for coin, share in ((recipe.jitters, 0.8), (recipe.greys, 0.2), (recipe.blurs, 0.5)):
        assert float(coin.double().mean()) == pytest.approx(share, abs=0.01)
    laws = [(0.5, 1.0)] * 3 + [(-0.25, 0.5)]
    for factor, (low, width) in zip(recipe.factor.double().T, laws, strict=True):
        assert kstest(factor.numpy(), "uniform", args=(low, width)).pvalue > 1e-3
    assert kstest(recipe.sigma.double().numpy(), "uniform", args=(0.1, 1.9)).pvalue > 1e-3
    orders = recipe.order @ torch.tensor([64, 16, 4, 1])
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == len(list(itertools.permutations(range(4))))
    assert chisquare(counts.numpy()).pvalue > 1e-3
    columns = torch.cat([recipe.factor, recipe.sigma[:, None], recipe.order[:, :1].float()], 1)
    assert (torch.corrcoef(columns.T) - torch.eye(6)).abs().max() < 0.03


def test_one_to_three_operations_of_the_pool():
    colors = DENSE_PRESETS["augseg"].colors
    slots = recipe_of(colors, 30_000).slots
    identity = dense_color.OPERATIONS.index("identity")
    without = (slots.operation == identity).double().mean(0)
    # A slot is left without with its draw of the identity too, one time in eleven.
    expected = [1 - share * 10 / 11 for share in (1, 2 / 3, 1 / 3)]
    assert without.tolist() == pytest.approx(expected, abs=0.01)
    drew = [float(slots.drew(operation.name)[:, 0].double().mean()) for operation in colors.operations]
    assert drew == pytest.approx([1 / 11] * 11, abs=0.01)


@pytest.mark.parametrize(("name", "function"), [("hue", tv.adjust_hue), ("blur", None), ("solarize", None)])
def test_the_pool_reaches_the_image(name, function):
    pool = tuple(operation for operation in DENSE_PRESETS["augseg"].colors.operations if operation.name == name)
    colors = Colors(jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0, operations=pool, most=1)
    images, recipe = pictures(8), recipe_of(colors, 8)
    views = colored(images.float(), recipe)
    assert ((views - images).abs().mean((1, 2, 3)) > 0.01).sum() >= 6
    assert torch.equal(views, views.round())
    if function is not None:
        for image, view, magnitude in zip(images, views, recipe.slots.magnitude[:, 0].tolist(), strict=True):
            assert (view - 255 * function(fractions(image), magnitude)).abs().max() <= 0.51


def test_gentle_and_strong_recipes_side_by_side():
    colors, gentle = DENSE_PRESETS["augseg"].colors, DENSE_PRESETS["csl"].patches.colors
    images, mask = pictures(20), torch.arange(20) % 3 == 0
    both = colored(images.float(), recipe_of(colors, 20).unless(mask, recipe_of(gentle, 20)))
    strong, weak = (colored(images.float(), recipe_of(one, 20)) for one in (colors, gentle))
    assert torch.equal(both[~mask], strong[~mask])
    # The pool's tables round to whole values, also where they do nothing.
    assert (both[mask] - weak[mask]).abs().max() <= 0.51


@pytest.mark.parametrize("channels", [1, 4])
def test_without_three_channels_there_is_no_hue(channels):
    images = pictures(30, channels)
    colors = Colors(jitter=(0.0, 0.0, 1.0, 0.5), jitter_probability=1.0, grey_probability=1.0, blur_probability=0.0)
    assert (colored(images.float(), recipe_of(colors, 30)) - images).abs().max() < 1e-3


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("name", DENSE_PRESETS)
def test_constant_images_stay_finite_and_in_range(name, value):
    images = torch.full((60, 3, 5, 7), float(value))
    views = colored(images, recipe_of(DENSE_PRESETS[name].colors, 60))
    assert views.isfinite().all()
    assert views.min() >= -1e-3
    assert views.max() <= 255 + 1e-3
