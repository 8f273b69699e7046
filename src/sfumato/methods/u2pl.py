"""U2PL: what the teacher is least sure of is not thrown away; it says which classes a pixel is not.

With p the teacher's prediction on the weak view, y its class, e its entropy, and alpha = 20 % (1 - progress):

    drop e >= gamma, the (100 - alpha)-th percentile of e over the valid pixels of the batch
    L_u = mean over what is kept of CE(strong view, y), times valid / kept
    L_c = mean over classes c of the mean over anchors a of  -log  exp(cos(a, m_c) / 0.5)
                                         / (exp(cos(a, m_c) / 0.5) + sum over 50 negatives n of exp(cos(a, n) / 0.5))
    L = L_x + L_u + 0.1 L_c

Representations are of the embedding, through a head that is trained here, and labels those of the nearest pixel. There
are as many places as the embedding has, or one for every fourth pixel of the image, as in the paper, where it has more.

    anchors a:    the student's, up to 256 of each class: labeled pixels, and unlabeled ones of the strong view with e
                  below the alpha-th percentile, where the teacher gives their class more than 0.3
    positive m_c: the mean of the teacher's over such pixels of the labeled images and of the weak view
    negatives n:  the teacher's, from a memory of the last of each class: dropped pixels where c has rank 3 to 19 (0 is
                  the most probable), and labeled pixels of another class where c is among the first 3

Wang et al. 2022, arXiv:2203.03884. The above is the paper with what the released code adds: the factor valid / kept
(its mean and its factor both divide by what is kept; `normalize="selected"` divides once), and the percentile of the
anchors, which leaves none of the unlabeled pixels at the end (`anchors="paper"` takes all that is kept). The code's
negatives are not the paper's: they are dropped pixels whose own pseudo-label is c, where another look of the teacher
ranks c 4th or lower, and labeled pixels never; `negatives="released"`. Where a class is absent from the batch, the code
takes the anchors and the positive of another one; this does not.

Different here: padding is ignored. With few classes the ranks start at C - 1, so that there are negatives. The teacher
looks once, in evaluation mode, at the labeled images and the weak view together; in the code a second time in training
mode, at the mixed images, whose features and probabilities it takes. "released" has a second look, in evaluation mode.
Anchors are drawn without replacement, of the images of all ranks. The head has two layers on each pixel, not two 3 x 3
convolutions, and layer norm; its average for the teacher moves with `train.ema`. The memory holds 256 of each class
for minutes on a CPU; the authors' 30,000, 50,000 of the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sfumato.distributed import mean_over_ranks, sum_over_ranks, world_size
from sfumato.errors import UsageError, check_choice
from sfumato.functional.contrast import negatives_as_released, negatives_of_labeled, negatives_of_unlabeled
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.grid import as_rows, nearest
from sfumato.functional.hashing import GOLDEN, mix, numbers
from sfumato.functional.probability import confidence, full_precision, most_probable, probability
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.base import Method, Networks, context
from sfumato.rules import EntropyPercentile, PixelContrast, Ramp
from sfumato.rules.base import features_of
from sfumato.rules.pixel_contrast import Rows
from sfumato.types import Batch, Losses, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec

Normalize = Literal["boosted", "selected", "valid", "all"]
NUM_ANCHORS = 256
HIGH_RANK = 20
MEMORY, MEMORY_OF_ALL = 256, 65_536
STRIDE, LEAST = 4, 16  # pixels of the image to a place, and places that a side has at least


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher says of each view."""

    weak: Output
    labeled: Output
    mixed: Output | None = None  # the strong view, for negatives as released


class U2PL(Method):
    """Pseudo-labels below a percentile of the entropy, and a contrast with what lies above it.

    Args:
        weigh: which pseudo-labels are kept, 1 or 0; those dropped are unreliable. Its surest may be anchors.
        anchor_threshold: of the probability of an anchor's class.
        contrast: of anchors with negatives.
        low_rank: from which on a class is none that the pixel could be.
        released: negatives as in the authors' code.
        normalize: what divides L_u.
        lambda_u, lambda_contrast: weights of L_u and of L_c.
        labeled_strong: train on strong views of the labelled images too.
    """

    def __init__(
        self,
        weigh: EntropyPercentile,
        *,
        anchor_threshold: float,
        contrast: PixelContrast,
        low_rank: int,
        released: bool,
        normalize: Normalize,
        lambda_u: float,
        lambda_contrast: float,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        self.weigh, self.contrast = weigh, contrast
        self.anchor_threshold, self.low_rank, self.released = anchor_threshold, low_rank, released
        self.normalize, self.lambda_u, self.lambda_contrast = normalize, lambda_u, lambda_contrast
        self.views = ViewSpec(teacher="ema", labeled_strong=labeled_strong)

    def attach(self, net: nn.Module) -> None:
        super().attach(net)
        self.contrast.attach(int(net.num_features))  # type: ignore[arg-type]

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        u = batch.unlabeled
        taught = None if u is None else self._taught(nets, batch, u)
        out = nets.forward(batch, self.views, None if taught is None else taught.weak)
        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
        if u is None or taught is None:
            return Losses(supervised, torch.zeros_like(supervised))

        with torch.no_grad():
            p, seen = probability(taught.weak.logits), context(batch, out, progress)
            confident, label = confidence(p)
            self.weigh.observe(p, u.valid, seen)
            pseudo = Pseudo(label, self.weigh(p), u.valid)
            anchors = replace(pseudo, weight=pseudo.weight * self.weigh.sure(p) * (confident > self.anchor_threshold))
        unsupervised = self._charge(out.strong[0], u.warps[0](pseudo))

        self.contrast.follow(progress.step, nets.momentum(max(0, progress.step - 1)))
        contrasted = self._contrasted(batch, out, taught, pseudo, anchors)
        extras = {"contrast": self.lambda_contrast * contrasted}
        return Losses(supervised, self.lambda_u * unsupervised, extras, pseudo)

    def _taught(self, nets: Networks, batch: Batch, u: Unlabeled) -> Taught:
        """Of all views in one forward of the teacher."""
        images = [u.weak, batch.labeled.x, *(u.strong if self.released else ())]
        out = nets.weak(replace(batch, unlabeled=replace(u, weak=torch.cat(images))), self.views)
        sizes, features = [len(x) for x in images], features_of(out, u.valid, "u2pl")
        views = zip(torch.split(out.logits, sizes), torch.split(features, sizes), strict=True)
        return Taught(*(Output(logits, part) for logits, part in views))

    def _charge(self, strong: Output, warped: Pseudo) -> Tensor:
        """L_u."""
        charge = cross_entropy(strong.logits, warped.target)
        if self.normalize != "boosted":
            return weighted_mean(charge, warped.weight, over=warped.valid, normalize=self.normalize)
        there = warped.valid > 0
        kept = there & (warped.weight > 0)
        valid, selected = mean_over_ranks(torch.stack((there.sum(), kept.sum())).to(charge.dtype)).unbind()
        total = (charge * warped.weight).masked_fill(~there, 0.0).sum()
        return total * valid / selected.clamp_min(1.0 / world_size()).square()

    def _contrasted(self, batch: Batch, out: Views, taught: Taught, pseudo: Pseudo, anchors: Pseudo) -> Tensor:
        """L_c. Rows are places of the embedding: those of the labeled images, then those of the unlabeled ones."""
        marked, u = batch.labeled, batch.unlabeled
        assert u is not None
        space = _grid(features_of(out.strong[0], u.valid, "u2pl"), u.valid)
        student = torch.cat([_rows_of(view, space) for view in (out.labeled, out.strong[0])])
        with torch.no_grad():
            known = _rows(marked.valid, space) > 0
            y = _rows(marked.y, space).masked_fill(~known, 0)
            p = probability(as_rows(nearest(taught.labeled.logits, space)))
            likely = known & (p.gather(1, y.unsqueeze(1)).squeeze(1) > self.anchor_threshold)
            seen = self._represented(space, taught.labeled, taught.weak)
            uniform = _uniform(batch, u, space)
            if taught.mixed is None:
                members = negatives_of_labeled(p, y, known, self.low_rank)
                members = torch.cat((members, self._negatives(taught.weak, pseudo, space)))
                self.contrast.remember(seen, members, uniform[:, 0])
            else:
                members = self._negatives(taught.mixed, u.warps[0](pseudo), space)
                self.contrast.remember(self._represented(space, taught.mixed), members, uniform[len(y) :, 0])

        def labeled_and(labels: Pseudo, features: Tensor) -> Rows:
            used = _rows(labels.weight * labels.valid, space) > 0
            label = _rows(most_probable(labels.target), space)
            return Rows(features, torch.cat((y, label)), torch.cat((likely, used)))

        loss: Tensor = self.contrast(labeled_and(u.warps[0](anchors), student), labeled_and(anchors, seen), uniform)
        return loss

    def _negatives(self, view: Output, labels: Pseudo, space: Sequence[int]) -> Tensor:
        """The classes whose negatives the rows of unlabeled images are, (M, C) bool."""
        p = probability(as_rows(nearest(view.logits, space)))
        dropped = (_rows(labels.weight, space) == 0) & (_rows(labels.valid, space) > 0)
        if not self.released:
            return negatives_of_unlabeled(p, dropped, self.low_rank, HIGH_RANK)
        label = _rows(most_probable(labels.target), space)
        return negatives_as_released(p, label, dropped, self.low_rank, HIGH_RANK)

    def _represented(self, space: Sequence[int], *views: Output) -> Tensor:
        """The teacher's rows through the averaged head."""
        return self.contrast.represent(torch.cat([_rows_of(view, space) for view in views]))


def _grid(features: Tensor, like: Tensor) -> tuple[int, ...]:
    """The places of the embedding, or one for every fourth pixel where it has more; (h, w), or () without space."""
    return tuple(min(f, max(LEAST, -(-s // STRIDE))) for f, s in zip(features.shape[2:], like.shape[1:], strict=True))


def _rows_of(view: Output, space: Sequence[int]) -> Tensor:
    """The embedding, a row for each place."""
    assert view.features is not None
    return full_precision(as_rows(nearest(view.features, space)))


def _rows(x: Tensor, space: Sequence[int]) -> Tensor:
    """A map of one value a pixel (N, *S) at the places of the embedding, (M,)."""
    return nearest(x, space).flatten()


def _uniform(batch: Batch, u: Unlabeled, space: Sequence[int]) -> Tensor:
    """Two numbers in [0, 1) for each row, (M, 2), which stay with a sample wherever in the batch it is.

    Those of a labeled image are a hash of its place in the labeled set and of a number that all ranks share.
    """
    places = math.prod(space)
    shared = sum_over_ranks((u.draw("contrast of labeled", 1) * 2**24).long().sum())
    labeled = numbers(mix(mix(shared) + batch.labeled.index * GOLDEN), 2 * places)
    return torch.cat((labeled, u.draw("contrast", 2 * places))).reshape(-1, 2)


def u2pl(
    num_classes: int,
    *,
    unreliable: float = 0.2,
    anchors: Literal["released", "paper"] = "released",
    negatives: Literal["paper", "released"] = "paper",
    normalize: Normalize = "boosted",
    lambda_u: float = 1.0,
    lambda_contrast: float = 0.1,
    anchor_threshold: float = 0.3,
    low_rank: int = 3,
    num_negatives: int = 50,
    temperature: float = 0.5,
    dim: int = 256,
    memory: int | None = None,
    labeled_strong: bool = False,
) -> U2PL:
    """The method with its rules.

    Args:
        num_classes: C.
        unreliable: alpha at the start, the share of predictions to drop; it falls to 0.
        anchors: which unlabeled predictions may be anchors: those below the alpha-th percentile, or all that are kept.
        negatives: the paper's, or those of the released code, which take another look of the teacher.
        normalize: what divides L_u: "boosted" is the mean over what is kept times valid / kept; "selected" that mean
            alone; "valid" predictions, or "all", padding too.
        lambda_u: weight of L_u.
        lambda_contrast: weight of L_c; the released configurations have 1.
        anchor_threshold: of the teacher's probability of an anchor's class.
        low_rank: from this rank on a class is none that the pixel could be; C - 1 with fewer classes.
        num_negatives: of each anchor.
        temperature: of the cosines.
        dim: of the representations.
        memory: negatives kept of each class; none for 256, or fewer where all classes would hold more than 65,536.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a share or a threshold out of range, a rank or a number below 1.
    """
    if not 0.0 <= unreliable <= 0.5:
        raise UsageError(f"u2pl(unreliable={unreliable}): expected a share of the predictions from 0 to 0.5.")
    if not 0.0 <= anchor_threshold <= 1.0:
        raise UsageError(f"u2pl(anchor_threshold={anchor_threshold}): expected a probability between 0 and 1.")
    if low_rank < 1:
        raise UsageError(f"u2pl(low_rank={low_rank}): expected at least 1; rank 0 is the pseudo-label itself.")
    check_choice("u2pl", "normalize", normalize, get_args(Normalize))
    check_choice("u2pl", "anchors", anchors, ("released", "paper"))
    check_choice("u2pl", "negatives", negatives, ("paper", "released"))
    return U2PL(
        EntropyPercentile(Ramp(unreliable, 0.0), surest=Ramp(unreliable, 0.0) if anchors == "released" else None),
        anchor_threshold=anchor_threshold,
        contrast=PixelContrast(
            num_classes,
            num_anchors=NUM_ANCHORS,
            num_negatives=num_negatives,
            temperature=temperature,
            dim=dim,
            memory=min(MEMORY, max(1, MEMORY_OF_ALL // num_classes)) if memory is None else memory,
        ),
        low_rank=min(low_rank, num_classes - 1),
        released=negatives == "released",
        normalize=normalize,
        lambda_u=lambda_u,
        lambda_contrast=lambda_contrast,
        labeled_strong=labeled_strong,
    )
