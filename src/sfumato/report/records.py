"""What a report knows: run folders as frozen records. Fractions, never percents; absent numbers are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.criterion import CRITERIA, Criterion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIGURES = ("score", "beside", "boundary", "pixels", "ece", "ece_after", "nll", "seconds")
"""Figures of the test split; `score` and `beside` are those of the criterion, `ece_after` is after scaling.

`boundary` (IoU along contours) and `pixels` (share that is right) are of masks only.
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart. Holds finite values only, in the order of their steps."""

    steps: Floats  # (T,)
    values: Floats  # (T,)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Test predictions, N labelled images of C classes. With masks, logits and labels are of M pixels of them."""

    rows: Ints  # (N,) rows of the data table
    names: tuple[str, ...]  # (N,)
    logits: NDArray[np.float32]  # (N or M, C), finite
    labels: Ints  # (N or M,)
    counts: Ints | None = None  # (C, C), all pixels of all images, rows = label; None without masks

    @property
    def judged(self) -> bool:
        """Whether there is anything with a label."""
        return bool(len(self.labels) if self.counts is None else self.counts.any())


@dataclass(frozen=True, slots=True)
class Maps:
    """One image, pixel for pixel: what is known of it and what the network says."""

    name: str
    image: NDArray[np.uint8]  # (channels, H, W)
    truth: NDArray[np.uint8]  # (H, W), VOID where nothing is known
    labels: NDArray[np.uint8]  # (H, W)
    entropy: NDArray[np.float32]  # (H, W), 1 = all classes alike


@dataclass(frozen=True, slots=True)
class Gallery:
    """Some images of a run with masks."""

    colors: NDArray[np.uint8]  # (C, 3)
    test: tuple[Maps, ...]
    unlabeled: tuple[Maps, ...]


@dataclass(frozen=True, slots=True)
class Collapse:
    step: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A label to look at. The margin is negative where the network preferred another class on average."""

    file: str
    label: str
    suggested: str
    margin: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class DoubtedPair:
    """Of the `of` labels `label`, `count` may be `suggested`."""

    label: str
    suggested: str
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class Doubts:
    """All of them. precision and recall are of labels that were made wrong on purpose; None where none were."""

    listed: int
    labels: int
    evaluations: int
    precision: float | None
    recall: float | None
    first: tuple[Doubt, ...]  # the lowest margins
    agreement: float | None = None  # share of labels that the network preferred on average
    pairs: tuple[DoubtedPair, ...] = ()  # the largest counts
    kinds: int = 0  # how many pairs there are in all
    limit: int | None = None  # the number of labels from which on there is no list, where there are more


@dataclass(frozen=True, slots=True)
class Stage:
    """One of several trainings that a run takes. `val` and `test` are the criterion's."""

    method: str
    images: Mapping[str, int]  # of each part
    joined: int  # images that were trained on as labelled under the label of a network
    right: float | None  # share of these labels that are right, where it is known
    val: float | None
    test: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: one method, one seed."""

    folder: Path
    method: str
    criterion: Criterion
    seed: int | None
    steps: int | None
    seconds: float | None
    temperature: float | None
    test: Mapping[str, float]
    test_calibrated: Mapping[str, float]
    val: Mapping[str, float]
    best_step: int | None
    best: Mapping[str, float]  # test figures of the checkpoint that was best on validation
    student: Mapping[str, float]  # and of the weights themselves, where all others are of their average
    classes: tuple[str, ...]
    labels: int | None  # how many labelled images it learned from
    collapse: Collapse | None
    warnings: tuple[str, ...]
    curves: Mapping[str, Series]
    predictions: Predictions | None
    rare: tuple[str, ...] = ()  # classes with few of the labelled pixels
    trained: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # part -> images of each class
    doubts: Doubts | None = None
    stages: tuple[Stage, ...] = ()  # the trainings of a run that takes several, the last one included


@dataclass(frozen=True, slots=True)
class Entry:
    """One method with all its seeds. `figures` holds one value a seed for each name of `FIGURES`."""

    name: str
    runs: tuple[Run, ...]
    figures: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Finding:
    """`verdict.json`: did the unlabelled data help?"""

    answer: str
    sentence: str
    metric: str = "accuracy"
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    confidence: float | None = None
    n: int | None = None
    split: str = "test"
    seeds: int | None = None
    method: str | None = None
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """How it was run."""

    command: str
    config: str = ""
    facts: tuple[tuple[str, str], ...] = ()  # a few settings worth reading first
    environment: tuple[tuple[str, str], ...] = ()
    splits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """Everything one report tells. `focus` and `baseline` are names of `entries`."""

    folder: Path
    title: str
    entries: tuple[Entry, ...]
    focus: str
    baseline: str | None
    finding: Finding | None
    provenance: Provenance
    warnings: tuple[str, ...] = field(default=())
    gallery: Gallery | None = None  # of the first run of `focus`

    @property
    def criterion(self) -> Criterion:
        """That of its runs; the task is the same for all."""
        return next((run.criterion for entry in self.entries for run in entry.runs), CRITERIA["acc"])

    def entry(self, name: str | None) -> Entry | None:
        return next((entry for entry in self.entries if entry.name == name), None)
