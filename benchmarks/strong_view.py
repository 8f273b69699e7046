"""Strong views per second of CPU time, one thread: sfumato's batch against torchvision and PIL image by image.

    python benchmarks/strong_view.py

Exits with 1 when the 32-pixel ratio to torchvision is below the gate. The sides alternate and the median of the
ratios counts, so that a busy machine disturbs both alike. Ours also crops, flips and cuts out, which RandAugment of
torchvision does not; the larger pictures are reported without a gate.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from sfumato.views import PRESETS, Augment

GATE = 6.0
REPETITIONS = 7
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
View = Callable[[int], object]


def pictures(count: int, side: int) -> Tensor:
    """Smooth color fields with a little noise, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = 0.05 * torch.randn(count, 3, side, side, generator=generator)
    return ((fine + noise).clamp(0, 1) * 255).to(torch.uint8)


def ours(images: Tensor, preset: str, size: int) -> View:
    augment = Augment(replace(PRESETS[preset], slots=3), seed=0, image_size=size, mean=MEAN, std=STD)
    slots = torch.arange(len(images))
    return lambda step: augment.strong(images, step=step, slots=slots, purpose="benchmark")


def torchvisions(images: Tensor, *before: v2.Transform) -> View:
    steps = [*before, v2.RandAugment(num_ops=3), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose(steps)
    return lambda step: torch.stack([transform(image) for image in images])


def pils(images: Tensor, size: int) -> View:
    """The same pool with PIL's own operations, as the loaders of older code bases do it."""
    stored = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    crop = v2.Compose([v2.RandomResizedCrop(size, scale=(0.5, 1.0)), v2.RandomHorizontalFlip()])
    mean, scale = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))

    def one(image: Image.Image) -> Tensor:
        view = crop(image)
        for operation in random.choices(PIL_POOL, k=3):
            view = operation(view)
        values = torch.from_numpy(np.array(view)).permute(2, 0, 1)
        return (values.float() / 255 - mean) / scale

    return lambda step: torch.stack([one(image) for image in stored])


def moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def enhanced(kind: type) -> Callable[[Image.Image], Image.Image]:
    return lambda image: kind(image).enhance(random.uniform(0.05, 0.95))


PIL_POOL: list[Callable[[Image.Image], Image.Image]] = [
    ImageOps.autocontrast,
    ImageOps.equalize,
    lambda image: image,
    lambda image: ImageOps.posterize(image, random.randint(4, 7)),
    lambda image: ImageOps.solarize(image, random.randint(0, 256)),
    lambda image: image.rotate(random.uniform(-30, 30)),
    lambda image: moved(image, 1, random.uniform(-0.3, 0.3), 0, 0, 1, 0),
    lambda image: moved(image, 1, 0, 0, random.uniform(-0.3, 0.3), 1, 0),
    lambda image: moved(image, 1, 0, random.uniform(-0.3, 0.3) * image.width, 0, 1, 0),
    lambda image: moved(image, 1, 0, 0, 0, 1, random.uniform(-0.3, 0.3) * image.height),
    *(
        enhanced(kind)
        for kind in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Sharpness)
    ),
]


def rate(view: View, images: int, calls: int, first: int) -> float:
    """Images per second of CPU time."""
    start = time.process_time()
    for step in range(first, first + calls):
        view(step)
    return images * calls / (time.process_time() - start)


def compare(our: View, their: View, images: int, our_calls: int) -> tuple[float, float, float]:
    """Median rates of both and the median of their ratios, after a call each to warm up."""
    our(0), their(0)
    rounds = [
        (rate(our, images, our_calls, 1 + turn * our_calls), rate(their, images, 1, turn))
        for turn in range(REPETITIONS)
    ]
    us, them = (statistics.median(side) for side in zip(*rounds, strict=True))
    return us, them, statistics.median(mine / other for mine, other in rounds)


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    small, large = pictures(448, 32), pictures(32, 240)

    us, them, ratio = compare(ours(small, "natural32", 32), torchvisions(small), len(small), 10)
    print(f"strong view 32px: {us:,.0f} img/s, torchvision {them:,.0f} img/s, ratio {ratio:.1f} (gate >= {GATE:.0f})")

    crop = (v2.RandomResizedCrop(224, scale=(0.5, 1.0), antialias=True), v2.RandomHorizontalFlip())
    for name, other in (("torchvision", torchvisions(large, *crop)), ("PIL", pils(large, 224))):
        us, them, large_ratio = compare(ours(large, "photos", 224), other, len(large), 2)
        print(f"strong view 240px: {us:,.0f} img/s, {name} {them:,.0f} img/s, ratio {large_ratio:.2f} (no gate)")
    return 0 if ratio >= GATE else 1


if __name__ == "__main__":
    sys.exit(main())
