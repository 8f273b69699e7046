"""Run folders that look like real ones, without training: for the tests, and to look at the page.

`python tests/report/fake_run.py FOLDER` writes one of each kind with its report.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Fake:
    """How good a method is, and what its training looked like."""

    method: str
    accuracy: float
    coverage: float | None = None  # None: a method without pseudo-labels
    precision: float = 0.95
    boldness: float = 2.6  # how far its confidence goes beyond its accuracy
    seconds: float = 48.0
    collapse_at: int | None = None


SUPERVISED = Fake("supervised", 0.785, seconds=21.4)
STRONG = Fake("supervised_strong", 0.842, seconds=24.9)
FIXMATCH = Fake("fixmatch", 0.902, coverage=0.82, precision=0.94, seconds=51.0)
WEIGHTED = Fake("uncertainty_weighted", 0.918, coverage=0.9, precision=0.95, boldness=2.2, seconds=52.3)
FLAT = Fake("uncertainty_weighted_flat", 0.935, coverage=1.0, precision=0.955, boldness=1.9, seconds=52.9)
COLLAPSED = Fake("fixmatch", 0.31, coverage=0.97, precision=0.3, boldness=4.0, collapse_at=600)


def predictions(fake: Fake, classes: int, n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Over-confident logits (n, classes) that are right at about the wanted rate, and labels (n,)."""
    rng = np.random.default_rng([seed, 7, len(fake.method)])
    labels = np.arange(n) % classes
    neighbour = (labels + rng.choice([1, 3, 4], n, p=[0.5, 0.3, 0.2])) % classes
    hard = rng.random(n) ** (1 + 3 * fake.accuracy)  # most images are easy
    wrong = rng.random(n) < (1 - fake.accuracy) * (0.35 + 1.3 * (hard > np.quantile(hard, 0.5)))
    wrong |= (labels == classes - 1) & (rng.random(n) < 0.6 * (1 - fake.accuracy))
    logits = rng.normal(0, 0.8, (n, classes))
    truth = np.where(wrong, neighbour, labels)
    logits[np.arange(n), truth] += (1 + 5.5 * rng.random(n) ** 0.5 * (1 - 0.55 * wrong)) * fake.boldness
    logits[np.arange(n), np.where(wrong, labels, neighbour)] += 2.6 * hard
    return logits.astype(np.float32), labels.astype(np.int64)


def figures(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> dict[str, float]:
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right, top = p.argmax(1) == labels, p.max(1)
    place = np.clip(np.ceil(top * 15).astype(int) - 1, 0, 14)
    gaps = [abs((right[place == b] - top[place == b]).sum()) for b in range(15)]
    recall = [right[labels == c].mean() for c in np.unique(labels)]
    nll = -np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-12)).mean()
    named = {"acc": right.mean(), "balanced_acc": np.mean(recall), "nll": nll, "ece": sum(gaps) / len(labels)}
    return {key: float(value) for key, value in named.items()}


def telemetry(fake: Fake, names: Sequence[str], share: float, rng: np.random.Generator) -> dict[str, float | None]:
    """Coverage and precision at `share` of the training, by class; a class without pseudo-labels has null."""
    if fake.coverage is None:
        return {}
    skew = 1 + 0.9 * np.sin(np.arange(len(names)) * 2.1) * (1 - share)
    if fake.collapse_at is not None and share > 0.3:
        skew = np.full(len(names), 0.02)
        skew[1] = 3.0
    skew[-1] *= min(1.0, max(0.0, share - 0.12) * 3)
    parts = np.abs(skew * (1 + 0.05 * rng.normal(size=len(names))))
    parts /= parts.sum()
    found: dict[str, float | None] = {
        "pl/coverage": float(np.clip(fake.coverage * (1 - np.exp(-6 * share)) + 0.01 * rng.normal(), 0, 1)),
        "pl/precision": float(np.clip(fake.precision - 0.3 * np.exp(-5 * share) + 0.006 * rng.normal(), 0, 1)),
    }
    for place, name in enumerate(names):
        found[f"pl/coverage/{name}"] = float(parts[place])
        right = np.clip(fake.precision - 0.05 * (place % 3) - 0.35 * np.exp(-4 * share) + 0.02 * rng.normal(), 0, 1)
        found[f"pl/precision/{name}"] = float(right) if parts[place] > 0.004 else None
    return found


def write_run(
    folder: Path, fake: Fake, *, seed: int = 0, classes: Sequence[str] = DIGITS, steps: int = 2000, n: int = 1000
) -> Path:
    """One run folder as training leaves it."""
    rng = np.random.default_rng([seed, 3, len(fake.method)])
    (folder / "predictions").mkdir(parents=True)
    lines: list[dict[str, object]] = []
    for step in range(25, steps + 1, 25):
        share = step / steps
        entry: dict[str, object] = {
            "step": step,
            "train/loss_sup": float(2.2 * np.exp(-9 * share) + 0.03 + 0.02 * rng.random()),
            "train/loss_unsup": float(0.5 * np.exp(-2 * share) + 0.05 * rng.random()) if fake.coverage else None,
            "train/lr": 0.03 * float(np.cos(7 * np.pi * share / 16)),
            "perf/images_per_s": float(2600 + 90 * rng.normal()),
        }
        lines.append(entry | telemetry(fake, classes, share, rng))
        if step % 100 == 0:
            reached = fake.accuracy - 0.5 * np.exp(-6 * share) + 0.008 * rng.normal()
            if fake.collapse_at is not None and step > fake.collapse_at:
                reached = max(0.1, fake.accuracy + 0.3 * np.exp(-(step - fake.collapse_at) / 300))
            lines.append({"step": step, "val/acc": float(reached), "val/ece": 0.05})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    logits, labels = predictions(fake, len(classes), n, seed)
    temperature = min(np.linspace(0.5, 4.0, 36), key=lambda t: figures(logits, labels, float(t))["nll"])
    rows = np.arange(n, dtype=np.int64)
    names = np.array([f"test/{row:05d}.png" for row in rows])
    np.savez(folder / "predictions" / "test.npz", rows=rows, names=names, logits=logits, labels=labels)
    reason = "one class (1) took 91 % of the pseudo-labels, and agreement with validation labels fell from 0.78 to 0.31"
    test = figures(logits, labels, 1.0)
    metrics = {
        "method": fake.method,
        "seed": seed,
        "steps": steps,
        "seconds": fake.seconds + seed,
        "cpu_seconds": 2 * fake.seconds,
        "temperature": float(temperature),
        "test": test,
        "test_calibrated": figures(logits, labels, float(temperature)),
        "val": {"acc": fake.accuracy},
        "best": {"step": steps - 200, "test": {"acc": test["acc"] + 0.002}},
        "student": {"test": {"acc": test["acc"] - 0.003}},
        "classes": list(classes),
        "collapse": None if fake.collapse_at is None else {"step": fake.collapse_at, "reason": reason},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_surroundings(folder, fake, seed, classes, steps)
    return folder


def write_surroundings(folder: Path, fake: Fake, seed: int, classes: Sequence[str], steps: int) -> None:
    splits = {
        "labeled": list(range(4 * len(classes))),
        "unlabeled": list(range(3800)),
        "val": list(range(200)),
        "test": list(range(1000)),
        "seed": seed,
        "fingerprint": "5f1c9a0e77d2b4c1",
        "notes": [],
    }
    (folder / "splits.json").write_text(json.dumps(splits))
    environment = {"python": "3.11.9", "sfumato": "0.1.0", "torch": "2.14.1", "device": "cpu", "cores": 2, "git": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "config.yaml").write_text(
        f"name: digits\nseed: {seed}\nrecipe: quick\n"
        f"data:\n  source: mnist5k\n  labels: {4 * len(classes)}\n  val: 200\n"
        f"method:\n  name: {fake.method}\nmodel:\n  name: small\n  norm: batch\nviews:\n  preset: digits\n"
        f"train:\n  steps: {steps}\n  batch_size: 40\n  unlabeled_ratio: 3\n  optimizer: sgd\n  lr: 0.03\n"
        "  momentum: 0.9\n  weight_decay: 0.0005\n  schedule: cosine_7_16\n  ema: 0.99\n  precision: fp32\n"
        "evaluate:\n  bins: 15\n"
    )


def write_verdict(
    folder: Path, answer: str, difference: float, half: float, *, method: str = "fixmatch", seeds: int = 1
) -> None:
    sentences = {
        "helps": f"{method} is {100 * difference:.1f} points more accurate than labels only, beyond doubt.",
        "no difference": f"{method} and labels only agree within one point.",
        "hurts": f"{method} is {-100 * difference:.1f} points less accurate than labels only; use supervised_strong.",
        "cannot tell": "60 test labels are too few: the interval reaches from worse to better. Label about 600.",
    }
    verdict = {
        "answer": answer,
        "metric": "accuracy",
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "margin": 0.01,
        "confidence": 0.95,
        "n": 1000,
        "seeds": seeds,
        "sentence": sentences[answer],
    }
    (folder / "verdict.json").write_text(json.dumps(verdict))


def write_pair(folder: Path, fake: Fake = FIXMATCH, **options: object) -> Path:
    """A run with its baseline and a verdict."""
    write_run(folder, fake, **options)  # type: ignore[arg-type]
    write_run(folder / "baseline", STRONG, **options)  # type: ignore[arg-type]
    answer = "helps" if fake.accuracy > STRONG.accuracy else "hurts"
    write_verdict(folder, answer, fake.accuracy - STRONG.accuracy, 0.021, method=fake.method)
    return folder


def write_demo(folder: Path, *, seeds: int = 3, n: int = 1000) -> Path:
    """Several methods side by side, as the demo leaves them."""
    rows = []
    for fake in (SUPERVISED, STRONG, FIXMATCH, WEIGHTED, FLAT):
        runs = [write_run(folder / fake.method / f"seed-{seed}", fake, seed=seed, n=n) for seed in range(seeds)]
        metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]
        row: dict[str, object] = {"method": fake.method, "seconds": [one["seconds"] for one in metrics]}
        for key, name in (("score", "acc"), ("ece", "ece"), ("nll", "nll")):
            row[key] = [one["test"][name] for one in metrics]
        rows.append(row)
    (folder / "table.json").write_text(json.dumps({"rows": rows}))
    write_verdict(folder, "helps", 0.089, 0.017, method=FLAT.method, seeds=seeds)
    return folder


def images(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Real handwritten digits whose class agrees with the fake labels (row modulo 10). -> (n, 1, 8, 8)"""
    from sklearn.datasets import load_digits

    held = load_digits()
    of_class = [np.flatnonzero(held.target == digit) for digit in range(10)]
    places = [of_class[row % 10][row // 10 % len(of_class[row % 10])] for row in rows]
    return np.minimum(held.images[places] * 16, 255).astype(np.uint8)[:, None]


def main(folder: Path) -> None:
    from sfumato.report import write_report

    animals = [f"{coat} {animal}" for coat in ("grey", "spotted") for animal in ("cat", "dog", "horse", "deer", "frog")]
    folders = [
        write_pair(folder / "digits"),
        write_pair(folder / "collapsed", COLLAPSED),
        write_demo(folder / "demo"),
        write_pair(folder / "animals", FLAT, classes=[*animals, *(name + " cub" for name in animals)]),
        write_pair(folder / "many", FLAT, classes=[f"n{1440000 + 37 * c:08d}" for c in range(200)]),
        write_pair(folder / "binary", FIXMATCH, classes=["healthy", "lesion"], n=120),
        write_run(folder / "alone", SUPERVISED),
    ]
    write_verdict(folders[4], "no difference", 0.002, 0.006, method="uncertainty_weighted_flat")
    write_verdict(folders[5], "cannot tell", 0.02, 0.07)
    for one in folders:
        path = write_report(one, images=images)
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
