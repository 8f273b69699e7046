"""Noisy Student (Xie et al. 2020, arXiv:1911.04252, algorithm 1).

    1. train a teacher on the labels
    2. label all other images by the teacher, which sees them as they are
    3. train a student from scratch on both, with noise: strong views and dropout
    4. the student is the next teacher: from 2 again

The labels are the teacher's probabilities (soft, as in the paper) or its classes. Those with a confidence of 0.3 or
less are left out, and the classes may be balanced: of each the surest `per_class` images, those of a rarer class
several times (section 3.1). The loss of a step is the mean over labels and pseudo-labels together, as in the paper's
appendix; its algorithm adds the mean of each.

Dropout and stochastic depth are the network's, in the teacher's training as in the students': `model.dropout=0.5`, or
`model.options.drop_path_rate` of a model of timm. The paper's students are larger than their teachers, once; here all
networks are alike, as in its other iterations. Every training takes `train.steps`.
"""

from __future__ import annotations

from typing import Literal

from sfumato.errors import UsageError
from sfumato.methods.st import First, Mean, SelfTraining
from sfumato.rules.picking import EquallyMany
from sfumato.types import Rounds


def noisy_student(
    dense: bool,
    *,
    rounds: int = 4,
    target: Literal["soft", "hard"] = "soft",
    threshold: float = 0.3,
    per_class: int | None = None,
    first: First = "supervised_strong",
    labeler: Literal["last", "best"] = "last",
    mean: Mean = "union",
    labeled_strong: bool = True,
) -> SelfTraining:
    """A teacher, and students that are each trained on the labels of the one before.

    Args:
        dense: labels are maps, which this method has no use for.
        rounds: trainings in all, the first teacher's included; the paper has three students.
        target: the teacher's probabilities, or the most probable class.
        threshold: confidence above which a label is trained on.
        per_class: images of each class to train on, the surest ones, or the few again and again; all by default.
        first: the labels-only method of the teacher.
        labeler: the network that labels: the last of its training, or the one that was best on validation.
        mean: "union" is the mean over both kinds of labels; "each" adds the mean of each (algorithm 1).
        labeled_strong: train on strong views of the labeled images too, after the first round.

    Raises:
        UsageError: maps of labels, or a value out of range.
    """
    if dense:
        raise UsageError(
            "noisy_student is for one class per image only: it keeps the probabilities of all images on the disk, and "
            "those of all pixels would take C numbers for each. For masks, method=st has rounds of stored labels."
        )
    if rounds < 2:
        raise UsageError(f"noisy_student.rounds={rounds}: expected 2 or more, a teacher and a student.")
    if not 0 <= threshold < 1:
        raise UsageError(f"noisy_student.threshold={threshold}: expected a confidence from 0 to below 1, such as 0.3.")
    if per_class is not None and per_class < 1:
        raise UsageError(f"noisy_student.per_class={per_class}: expected a number of images, or none for all.")
    plan = Rounds(
        first, None, labeler, flip=False, labelings=rounds - 1, keep=EquallyMany(threshold, per_class),
        soft=target == "soft",
    )  # fmt: skip
    return SelfTraining(rounds=plan, mean=mean, cutout=False, labeled_strong=labeled_strong)
