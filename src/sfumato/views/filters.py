"""The two photometric operations that look at more than one value of a pixel: sharpness and color.

Images are (N, channels, H, W) float in 0..255. Both move the image away from a plainer version of itself by a factor
per sample; a factor of 1 leaves it, and the factors of several slots multiply.
"""

from __future__ import annotations

from torch import Tensor

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


def luma(values: Tensor) -> Tensor:
    """(N, 1, ...) the grey value of (N, channels, ...): weighted for three channels, the mean otherwise."""
    if values.shape[1] != len(LUMA):
        return values.mean(1, keepdim=True)
    red, green, blue = (weight * values[:, place] for place, weight in enumerate(LUMA))
    return (red + green + blue).unsqueeze(1)
