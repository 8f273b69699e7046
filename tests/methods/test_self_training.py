"""Classic self-training: its loss is that of labels, its plan is scikit-learn's, and its options are checked.

What joins, as in scikit-learn: tests/functional/test_selection.py and tests/run/test_generations.py.
"""

from __future__ import annotations

import pytest

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build, describe
from sfumato.rules.picking import SurerThan, Surest
from sfumato.run import prepare
from sfumato.types import Generations, Progress
from tests.methods.problems import CLASSIFICATION, Echo, logits_batch

C = 5


def test_the_plan() -> None:
    plain = Generations(5, SurerThan(0.75), stay=True)
    assert describe("self_training").rounds == plain
    told = "up to 5 trainings, after each of which images join the labeled set"
    assert describe("self_training").trainings == told
    assert (describe("st_pp").trainings or "").startswith("3 trainings, all but the first on labels that a network")
    assert describe("fixmatch").trainings is None
    some = build("self_training", Facts(C), {"k_best": 10, "rounds": 3, "labeler": "best"})
    assert some.rounds == Generations(3, Surest(10), stay=True, labeler="best")
    assert build("self_training", Facts(C), {"threshold": 0.9}).rounds == Generations(5, SurerThan(0.9), stay=True)


@pytest.mark.parametrize("base", ["supervised_strong", "supervised"])
def test_a_round_is_a_training_on_labels(base: str) -> None:
    mine, theirs = build("self_training", Facts(C), {"base": base}), build(base, Facts(C))
    assert mine.views == theirs.views
    batch, nets = logits_batch(CLASSIFICATION, mine.views), Nets(Echo())
    one, other = (method.loss(nets, batch, Progress(0, 2)) for method in (mine, theirs))
    assert one.total.item() == other.total.item()


def test_it_is_compared_with_labels_alone_although_no_training_sees_unlabeled_images() -> None:
    assert prepare.uses_unlabeled("self_training")
    assert not prepare.sees_unlabeled("self_training")
    assert not prepare.uses_unlabeled("supervised")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"threshold": 0.5, "k_best": 3},
            "self_training: threshold=0.5 and k_best=3 are both given. Give one of them.",
        ),
        (
            {"threshold": 1.0},
            "self_training.threshold=1.0: expected a confidence from 0 to below 1, such as 0.75.",
        ),
        ({"k_best": 0}, "self_training.k_best=0: expected a number of images, such as 10."),
        (
            {"rounds": 1, "base": "supervised"},
            "self_training.rounds=1: expected 2 or more; one training on labels is method=supervised.",
        ),
    ],
)
def test_options_out_of_range(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        build("self_training", Facts(C), options)
    assert str(caught.value) == text
