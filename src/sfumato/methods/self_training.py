"""Classic self-training (Yarowsky 1995; scikit-learn's `SelfTrainingClassifier`).

    1. train on the labeled set
    2. label the other images; the sure ones join the labeled set under the label that they are given, for good
    3. from 1 again, until nothing joins, nothing is left, or `rounds` trainings are done

An image is sure when its confidence is above a threshold, or when it is one of the k surest. Each training starts from
scratch and takes `train.steps`, and sees the images that have joined as it sees the labeled ones. What follows from the
networks' labels is what scikit-learn makes of an estimator's, with max_iter = rounds - 1.

On features of a pretrained network, `model.frozen=true` trains the last layer alone, a logistic regression: the usage
of scikit-learn.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from sfumato.errors import UsageError
from sfumato.methods.base import Slot
from sfumato.methods.supervised import Supervised
from sfumato.rules.picking import SurerThan, Surest
from sfumato.types import Generations

THRESHOLD = 0.75  # of scikit-learn


class Yarowsky(Supervised):
    """Labels only; the images that have joined are labels."""

    slots: ClassVar[frozenset[Slot]] = frozenset({"charge", "extras"})

    def __init__(self, *, strong: bool, rounds: Generations) -> None:
        super().__init__(strong=strong)
        self.rounds = rounds


def self_training(
    dense: bool,
    *,
    threshold: float | None = None,
    k_best: int | None = None,
    rounds: int = 5,
    base: Literal["supervised_strong", "supervised"] = "supervised_strong",
    labeler: Literal["last", "best"] = "last",
) -> Yarowsky:
    """Trainings on labels alone, between which the sure ones of the other images join the labeled set.

    Args:
        dense: labels are maps, which this method has no use for.
        threshold: confidence above which an image joins; 0.75 unless `k_best` is given.
        k_best: so many images join each time, the surest ones, in place of a threshold.
        rounds: trainings at most.
        base: strong views of the labeled images and of those that have joined, or weak ones alone.
        labeler: the network that labels: the last of its training, or the one that was best on validation.

    Raises:
        UsageError: maps of labels, both a threshold and k_best, or a value out of range.
    """
    if dense:
        raise UsageError(
            "self_training is for one class per image only: whole images join the labeled set, and a map is not "
            "sure or unsure as a whole. For masks, method=st_pp labels those images first that the network was sure of."
        )
    if threshold is not None and k_best is not None:
        raise UsageError(f"self_training: threshold={threshold} and k_best={k_best} are both given. Give one of them.")
    if threshold is not None and not 0 <= threshold < 1:
        raise UsageError(f"self_training.threshold={threshold}: expected a confidence from 0 to below 1, such as 0.75.")
    if k_best is not None and k_best < 1:
        raise UsageError(f"self_training.k_best={k_best}: expected a number of images, such as 10.")
    if rounds < 2:
        raise UsageError(f"self_training.rounds={rounds}: expected 2 or more; one training on labels is method={base}.")
    pick = SurerThan(THRESHOLD if threshold is None else threshold) if k_best is None else Surest(k_best)
    return Yarowsky(strong=base == "supervised_strong", rounds=Generations(rounds, pick, stay=True, labeler=labeler))
