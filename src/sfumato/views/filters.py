"""The photometric operations that look at more than one value of a pixel: sharpness, color, hue and blur.

Images are (N, channels, H, W) float in 0..255. The first two move the image away from a plainer version of itself by a
factor per sample; a factor of 1 leaves it, and the factors of several slots multiply.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL and torchvision weigh red, green and blue


def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the image smoothed by PIL's 3 x 3 kernel (centre 5, others 1, sum 13); the border pixels stay."""
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = images[..., 1:-1, 1:-1]
    smooth = (box + 4 * inner) / 13
    sharpened = images.clone()
    sharpened[..., 1:-1, 1:-1] = smooth + factor.view(-1, 1, 1, 1) * (inner - smooth)
    return sharpened.clamp_(0, 255)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Away from the grey image. Anything but three channels has no color and stays."""
    if images.shape[1] != len(LUMA):
        return images
    grey = luma(images)
    return (grey + factor.view(-1, 1, 1, 1) * (images - grey)).clamp_(0, 255)


def turn(images: Tensor, turns: Tensor) -> Tensor:
    """Hues turned on the color circle by `turns` (N,) of it, saturation and value as they are (HSV, Smith 1978).

    Anything but three channels has no hue and stays.
    """
    if images.shape[1] != len(LUMA):
        return images
    red, green, blue = images.unbind(1)
    brightest = images.amax(1)
    chroma = brightest - images.amin(1)
    # The circle in six parts, from red at 0 over green at 2 to blue at 4.
    by_blue = torch.where(green == brightest, 2 * chroma + blue - red, 4 * chroma + red - green)
    hue = torch.where(red == brightest, green - blue, by_blue) / chroma.where(chroma > 0, torch.ones_like(chroma))
    hue = hue + 6 * turns.view(-1, 1, 1)
    # A channel lacks the whole chroma over a third of the circle, none of it over another, and is in between elsewhere.
    lacks = [(hue + start).remainder_(6) for start in (5, 3, 1)]
    return torch.stack([brightest - chroma * part.minimum(4 - part).clamp_(0, 1) for part in lacks], 1)


def blur(images: Tensor, sigma: Tensor, *, widest: float) -> Tensor:
    """Gaussian blur of standard deviation `sigma` (N,) in pixels, none above `widest`; border pixels repeat outwards.

    The kernel reaches three times `widest` for every sample, so that a view does not depend on the others.
    """
    reach = math.ceil(3 * widest)
    places = torch.arange(reach + 1, device=images.device)
    weight = (-0.5 * (places / sigma.clamp(min=1e-3)[:, None]).square()).exp()  # (N, reach + 1), one side
    weight = weight / (2 * weight.sum(1, keepdim=True) - 1)
    weights = weight.view(len(images), -1, 1, 1, 1).unbind(1)
    for axis, border in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        length, wide = images.shape[axis], pad(images, border, mode="replicate")
        images = images * weights[0]
        for place in range(1, reach + 1):  # a third of the time of a convolution with a kernel per sample
            left, right = wide.narrow(axis, reach - place, length), wide.narrow(axis, reach + place, length)
            images.addcmul_(left + right, weights[place])
    return images


def luma(values: Tensor) -> Tensor:
    """(N, 1, ...) the grey value of (N, channels, ...): weighted for three channels, the mean otherwise."""
    if values.shape[1] != len(LUMA):
        return values.mean(1, keepdim=True)
    red, green, blue = (weight * values[:, place] for place, weight in enumerate(LUMA))
    return (red + green + blue).unsqueeze(1)
