"""Folders of runs that nobody trained: the files that a table reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato.config import dump, load

DIGITS = ("data.source=digits", "steps=10", "batch_size=4", "unlabeled_ratio=2", "unlabeled_start=0.2")


def fake_run(
    folder: Path,
    *settings: str,
    seed: int = 0,
    acc: float | None = None,
    recall: tuple[float | None, ...] = (),
    splits: str | None = None,
    collapse: bool = False,
    cell: dict[str, str] | None = None,
    **more: Any,
) -> None:
    """A run of `settings`, ended if `acc` is given. more: what metrics.json says beside or instead."""
    folder.mkdir(parents=True)
    given = {text.partition("=")[0].rpartition(".")[2]: text for text in (*DIGITS, *settings)}
    config = load(overrides=[*given.values(), f"seed={seed}"])
    (folder / "config.yaml").write_text(dump(config))
    if cell is not None:
        (folder / "cell.json").write_text(json.dumps(cell))
    if acc is None:
        return
    figures = {"acc": acc, "balanced_acc": acc / 2, "f1_macro": acc / 5, "ece": 1 - acc, "nll": 2 * (1 - acc)}
    figures |= {f"recall/{name}": value for name, value in enumerate(recall)}
    metrics = {
        "method": config.label, "criterion": "acc", "seed": seed, "steps": 10, "seconds": 10.0 + seed,
        "cpu_seconds": 12.0, "test": figures, "test_calibrated": {"ece": 0.01}, "val": {"acc": acc - 0.1, "ece": 0.2},
        "images": {"labeled": 40, "unlabeled": 100, "val": 10, "test": 10},
        "collapse": {"step": 1} if collapse else None,
    } | more  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "card.json").write_text(json.dumps({"splits": splits or f"of seed {seed}"}))
