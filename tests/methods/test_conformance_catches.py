"""The conformance suite notices what it is there for: each method here breaks one law, and that law says so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import mean
from sfumato.methods import Consistency
from sfumato.methods.fixmatch import fixmatch
from sfumato.rules import FixedThreshold, Sharpened, Weigher
from sfumato.types import Losses, Pseudo
from tests.methods.cases import Case
from tests.methods.conformance import CHECKS, run
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, TASKS


class Keeps(FixedThreshold):
    """Memory outside the buffers."""

    def __init__(self):
        super().__init__()
        self.seen = torch.tensor(0.3)

    def observe(self, p, valid, context):
        self.seen = self.seen + 0.05

    def forward(self, p):
        return (p.amax(dim=1) >= self.seen).float()


class LearnsWhenRead(FixedThreshold):
    """Counts entries that are ignored, and does so when asked."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.tensor(0.3))

    def observe(self, p, valid, context):
        self.level.copy_(p.amax(dim=1).mean())

    def forward(self, p):
        return (p.amax(dim=1) >= self.level).float()


class ByPlace(Weigher):
    """Looks at where in the batch a sample stands."""

    def forward(self, p):
        return torch.linspace(0, 1, len(p)).reshape(-1, *(1,) * (p.dim() - 2)).expand(p[:, 0].shape)


class NotANumber(Weigher):
    """A variance of one sample."""

    def forward(self, p):
        top = p.amax(dim=1)
        return top * (top - top.mean()).square().sum() / (top.numel() - 1)


class Rolls(Weigher):
    def forward(self, p):
        return torch.rand(p[:, 0].shape)


class OverSelected(Consistency):
    """Reads the mean over what was selected: nothing selected is 0 / 0."""

    def loss(self, nets, batch, progress):
        losses = super().loss(nets, batch, progress)
        if losses.pseudo is None:
            return losses
        share = (losses.pseudo.weight * losses.pseudo.valid).sum() / losses.pseudo.valid.sum()
        return Losses(losses.supervised, losses.unsupervised / share, pseudo=losses.pseudo)


class Attached(Consistency):
    """Gradient flows through the target."""

    def loss(self, nets, batch, progress):
        out = nets.forward(batch, self.views)
        y = batch.labeled.y.masked_fill(batch.labeled.valid == 0, 0)
        supervised = mean(cross_entropy(out.labeled.logits, y), over=batch.labeled.valid)
        u = batch.unlabeled
        if u is None:
            return Losses(supervised, supervised * 0)
        p = probability(out.weak.logits)
        charge = -(p * torch.log_softmax(out.strong[0].logits, dim=1)).sum(dim=1)
        pseudo = u.warps[0](Pseudo(p, torch.ones_like(charge), u.valid))
        plain = Pseudo(p.detach(), torch.ones_like(charge).detach(), u.valid)
        return Losses(supervised, mean(charge * pseudo.weight, over=u.valid), pseudo=plain)


class Unwarped(Consistency):
    def loss(self, nets, batch, progress):
        if batch.unlabeled is not None:
            object.__setattr__(batch.unlabeled, "warps", (lambda pseudo: pseudo,))
        return super().loss(nets, batch, progress)


class Unreduced(Consistency):
    """An ignored label of 255 reaches the cross-entropy, with a weight of 0."""

    def loss(self, nets, batch, progress):
        losses = super().loss(nets, batch, progress)
        logits = nets.forward(batch, self.views).labeled.logits
        y = batch.labeled.y.clamp(0, logits.shape[1] - 1)
        return Losses(cross_entropy(logits, y).mean(), losses.unsupervised, pseudo=losses.pseudo)


class Deaf(Consistency):
    """The student is not taught by the unlabelled data."""

    def loss(self, nets, batch, progress):
        losses = super().loss(nets, batch, progress)
        return Losses(losses.supervised, losses.unsupervised.detach(), pseudo=losses.pseudo)


class AlwaysCharges(Consistency):
    """Expects unlabelled images, also in the warm start."""

    def loss(self, nets, batch, progress):
        assert batch.unlabeled is not None, "no unlabelled images"
        return super().loss(nets, batch, progress)


class Headed(Consistency):
    """Trains a head on the features of the labeled images, properly."""

    def attach(self, net):
        self.head = nn.Linear(net.num_features, net.num_classes)

    def loss(self, nets, batch, progress):
        losses = super().loss(nets, batch, progress)
        features = nets.forward(batch, self.views).labeled.features
        y = batch.labeled.y.masked_fill(batch.labeled.valid == 0, 0)
        extra = mean(cross_entropy(self.answer(features), y), over=batch.labeled.valid)
        return Losses(losses.supervised + extra, losses.unsupervised, pseudo=losses.pseudo)

    def answer(self, features):
        return self.head(features.movedim(1, -1)).movedim(-1, 1)


class Untaught(Headed):
    def answer(self, features):
        with torch.no_grad():
            return super().answer(features)


class Keeper(Headed):
    """Has the student among its modules: it would be saved, and trained, twice."""

    def attach(self, net):
        super().attach(net)
        self.net = net


def ineffective(*, threshold: float = 0.95, temperature: float = 0.5) -> Consistency:
    """The temperature is read by nothing."""
    return fixmatch(threshold=threshold)


class Stuck(Consistency):
    """Climbs instead of descending."""

    def loss(self, nets, batch, progress):
        losses = super().loss(nets, batch, progress)
        return Losses(2 * losses.supervised.detach() - losses.supervised, losses.unsupervised, pseudo=losses.pseudo)


class Wide(FixedThreshold):
    """Flattens space into samples and forgets to put it back."""

    def forward(self, p):
        return super().forward(p).reshape(len(p), -1).mean(dim=1).reshape(-1, *(1,) * (p.dim() - 2)) * 1.0


BROKEN = {
    "stopping_and_resuming_is_not_seen": (lambda: Consistency(weigh=Keeps()), CLASSIFICATION),
    "ignored_entries_weigh_nothing": (lambda: Consistency(weigh=LearnsWhenRead()), CLASSIFICATION),
    "shuffling_samples_shuffles_pseudo_labels": (lambda: Consistency(weigh=ByPlace()), CLASSIFICATION),
    "a_batch_of_one_is_survived": (lambda: Consistency(weigh=NotANumber()), CLASSIFICATION),
    "evaluating_changes_nothing": (lambda: Consistency(weigh=Rolls()), CLASSIFICATION),
    "a_batch_of_which_nothing_is_selected_is_survived": (
        lambda: OverSelected(weigh=FixedThreshold()),
        CLASSIFICATION,
    ),
    "the_unlabeled_term_teaches_through_the_right_view": (lambda: Attached(weigh=FixedThreshold()), SEGMENTATION),
    "the_warp_carries_the_pseudo_label": (lambda: Unwarped(weigh=FixedThreshold(0.5)), SEGMENTATION),
    "hard_labels_alone_count_if_so_asked": (lambda: Attached(weigh=FixedThreshold()), SEGMENTATION),
    "nothing_valid_is_nothing_lost": (lambda: Unreduced(weigh=FixedThreshold()), SEGMENTATION),
    "without_unlabeled_images_only_labels_count": (lambda: AlwaysCharges(weigh=FixedThreshold()), CLASSIFICATION),
    "the_loss_falls_on_a_toy_problem": (lambda: Stuck(weigh=FixedThreshold()), CLASSIFICATION),
    "what_a_method_attaches_is_its_own": (lambda: Keeper(weigh=FixedThreshold()), CLASSIFICATION),
    "losses_are_finite_and_teach_the_student": (lambda: Untaught(weigh=FixedThreshold()), SEGMENTATION),
    "the_pseudo_label_is_well_formed": (lambda: Consistency(weigh=Wide()), SEGMENTATION),
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_method_is_caught(law):
    make, task = BROKEN[law]
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[law](Case("broken", lambda facts, options: make(), task))


class Asks(FixedThreshold):
    """Reads another rule's memory; of that rule nobody else knows."""

    def __init__(self):
        super().__init__()
        self._other = (LearnsWhenRead(),)


def test_a_rule_that_is_read_and_belongs_to_nothing_is_caught():
    case = Case("broken", lambda facts, options: Consistency(weigh=Asks()), CLASSIFICATION)
    with pytest.raises(AssertionError, match="read, but neither shown anything nor saved: LearnsWhenRead"):
        CHECKS["what_is_read_is_a_part"](case)


def test_an_option_without_effect_is_caught():
    case = Case("broken", lambda facts, options: ineffective(**options), CLASSIFICATION, ineffective)
    with pytest.raises(AssertionError, match="option temperature changes nothing"):
        CHECKS["every_option_changes_something"](case)


def test_a_loss_without_gradient_is_caught():
    case = Case("deaf", lambda facts, options: Deaf(weigh=FixedThreshold()), CLASSIFICATION)
    with pytest.raises(ExceptionGroup, match="fails the_unlabeled_term_teaches_through_the_right_view"):
        run(case)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_method_may_train_modules_of_its_own(task):
    run(Case("headed", lambda facts, options: Headed(weigh=FixedThreshold()), task))


def test_a_method_of_ones_own_needs_no_table():
    """Rules put together by a user, as the documentation shows, go through the same laws."""
    case = Case(
        "mine",
        lambda facts, options: Consistency(weigh=FixedThreshold(0.7), target=Sharpened(0.3), divergence=cross_entropy),
        CLASSIFICATION,
    )
    report = run(case)
    teaching = ("held_out_labels_are_survived", "what_held_out_labels_taught_is_resumed")
    assert report.not_applicable == {
        "every_option_changes_something": "options not known",
        **dict.fromkeys(teaching, "learns nothing from held-out labels"),
    }
    assert len(report.held) == len(CHECKS) - 3
