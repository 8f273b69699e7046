"""A training run small enough to repeat: scikit-learn's digits, 8 x 8, the small net. Runs as a program too.

`python tiny.py FOLDER METHOD STEPS` trains with checkpoints in FOLDER, continuing from whatever is there, and prints a
line when each step is done: the tests kill it by those lines. Under torchrun it trains over all ranks.
"""

from __future__ import annotations

import atexit
import sys
from dataclasses import replace
from pathlib import Path

import torch

from sfumato.console import Reporter
from sfumato.data import draw_splits, load_table
from sfumato.image_data import ImageData
from sfumato.methods import Facts, Method, build
from sfumato.models import Classifier, build_model
from sfumato.train import Result, train
from sfumato.train_config import TrainConfig
from sfumato.views import Augment

CONFIG = TrainConfig(
    steps=24,
    batch_size=8,
    unlabeled_ratio=2,
    lr=0.05,
    ema=0.9,
    log_every=3,
    eval_every=8,
    save_every=5,
    unlabeled_start=0.2,
)


def data(seed: int = 0) -> ImageData:
    table = load_table("digits")
    splits = draw_splits(table, labels=20, val=60, test=0, seed=seed)
    augment = Augment("digits", seed=seed, image_size=8, mean=(0.5,), std=(0.5,))
    return ImageData(table, splits, augment)


def network(seed: int = 0, norm: str = "batch", dropout: float = 0.0) -> Classifier:
    torch.manual_seed(seed)
    return build_model("small", num_classes=10, in_channels=1, image_size=8, norm=norm, dropout=dropout)


def method(name: str, given: ImageData, **options: object) -> Method:
    return build(name, Facts(num_classes=10, num_unlabeled=len(given.splits.unlabeled)), options)


def run(
    name: str = "freematch",
    *,
    folder: Path | None = None,
    resume: bool = False,
    config: TrainConfig = CONFIG,
    norm: str = "batch",
    dropout: float = 0.0,
    **changes: object,
) -> tuple[Result, Method]:
    given = data()
    chosen = method(name, given)
    settings = replace(config, **changes)  # type: ignore[arg-type]
    result = train(
        chosen, network(norm=norm, dropout=dropout), given, settings, folder=folder, resume=resume, quiet=True
    )
    return result, chosen


class Announced(Reporter):
    def step(self, step: int) -> None:
        print(f"step {step}", flush=True)


def say_what_is_open() -> None:
    """Threads of a group that was left but is held by something would meet the end of the interpreter too."""
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]  # of Linux; none elsewhere
    if torch.distributed.is_initialized() or any("gloo" in name for name in threads):
        print("the ranks have not left each other", flush=True)


if __name__ == "__main__":
    import sfumato.train

    atexit.register(say_what_is_open)  # what is registered first is called last
    torch.set_num_threads(1)
    sfumato.train.Reporter = Announced  # type: ignore[misc]
    where, which, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    run(which, folder=where, resume=True, steps=steps, dropout=0.2 if "dropout" in sys.argv else 0.0,
        norm="group" if "group" in sys.argv else "batch")  # fmt: skip
