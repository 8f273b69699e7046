"""How the settings of the recipe "quick" were chosen: by validation accuracy, on label draws that no table uses.

    python benchmarks/settings/choose_quick.py

MNIST-5k, 40 labels, seeds 3 to 5 (the demo's tables use 0 to 2), 500 validation images; the 1,000 test images are not
looked at. One line for each learning rate, strength of the strong view and method; the recipe takes the setting with
the best mean over methods. About 20 minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from statistics import mean

import torch

from sfumato.data import Table, draw_splits, load_table
from sfumato.image_data import ImageData
from sfumato.methods import Facts, build
from sfumato.models import build_model
from sfumato.train import train
from sfumato.train_config import TrainConfig
from sfumato.views import PRESETS, Augment

SEEDS = (3, 4, 5)
METHODS: dict[str, dict[str, object]] = {
    "supervised_strong": {},
    "fixmatch": {},
    "uncertainty_weighted_flat": {"k": (0.0, 1.0), "momentum": 0.99},
}
RATES = (0.05, 0.1, 0.2)
OPERATIONS = (1, 2, 3)


def accuracy(table: Table, method: str, rate: float, operations: int, seed: int) -> float:
    splits = draw_splits(table, labels=40, val=500, test=0, seed=seed)
    preset = replace(PRESETS["digits"], slots=operations)
    augment = Augment(preset, seed=seed, image_size=28, mean=(0.5,), std=(0.5,))
    torch.manual_seed(seed)
    model = build_model("small", num_classes=10, in_channels=1, image_size=28)
    chosen = build(method, Facts(num_classes=10, num_unlabeled=len(splits.unlabeled)), METHODS[method])
    result = train(chosen, model, ImageData(table, splits, augment), TrainConfig(lr=rate), seed=seed, quiet=True)
    assert result.val is not None
    return result.val["acc"]


def settings() -> Iterator[tuple[float, int]]:
    """One thing changed at a time from the middle, and the middle itself."""
    for rate, operations in product(RATES, OPERATIONS):
        if RATES[1] == rate or OPERATIONS[1] == operations:
            yield rate, operations


def main() -> None:
    torch.set_num_threads(1)
    table = load_table("mnist5k")
    print("lr    operations  " + "  ".join(f"{name:>26}" for name in METHODS) + "    mean validation accuracy")
    for rate, operations in settings():
        found = {m: [accuracy(table, m, rate, operations, seed) for seed in SEEDS] for m in METHODS}
        cells = "  ".join(f"{mean(values):26.1%}" for values in found.values())
        print(f"{rate:<6}{operations:<12}{cells}    {mean(mean(values) for values in found.values()):.1%}", flush=True)


if __name__ == "__main__":
    main()
