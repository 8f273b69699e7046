"""CoMatch: classes smooth the predictions of neighbors, and predictions say which features are to be alike.

With h the features of a view through a projection, of length 1, and p the prediction on the weak view, aligned:

    a_k  = softmax_k(cos(h_weak, h_k) / T) over the samples seen last, of which p_k are the predictions or labels
    q    = alpha p + (1 - alpha) sum_k a_k p_k
    L_u  = mean(1[max q >= tau] CE(strong view, q))
    W_ij = q_i . q_j, 0 below the graph's threshold, 1 where i = j; rows sum to 1
    L_c  = mean_i -sum_j W_ij log softmax_j(cos(h_strong i, h'_strong j) / T)       h': of another strong view
    L    = L_x + lambda_u L_u + lambda_contrast L_c

Li, Xiong and Hoi 2021 (arXiv:2011.11183), section 3. The memory takes in h_weak with p, before smoothing, and the
labeled h with the labels, once they have been used. Alignment is to equal classes over the last 32 batches.

Different here: rows of the memory that hold nothing yet have no weight, so smoothing begins with the first of them,
where the published code waits for a full memory; all of it is in log space; the graph is of the images of all ranks.
The projection is two layers with a layer norm in between, on the features that the network gives. The published memory
is of 5 batches of 512 images, `memory=2560`. Gradient flows through both strong views, and not through the memory.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch, gather_with_gradient
from sfumato.errors import UsageError
from sfumato.functional.divergence import Divergence, cross_entropy
from sfumato.functional.graph import graph_contrast, label_graph
from sfumato.functional.neighbors import blended, log_similarity, recalled
from sfumato.functional.probability import one_hot, probability
from sfumato.functional.prototypes import unit
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.base import Method, Networks, Slot, context
from sfumato.methods.consistency import Consistency, pseudo_label
from sfumato.rules import DistributionAlignment, FixedThreshold, Refiner, Soft, Targeter, Weigher
from sfumato.rules.base import attached, features_of
from sfumato.running.queue import SampleQueue
from sfumato.running.representation import Projection
from sfumato.types import Batch, Labeled, Losses, Output, Progress, Unlabeled, ViewSpec


class CoMatch(Method):
    """Rules as of `Consistency`, a memory that smooths what they are given, and a graph of the batch.

    Args:
        num_classes: C.
        refine, weigh, target: of the weak view; the memory comes after the first.
        alpha: share of a sample's own prediction.
        temperature: T.
        graph_threshold: below which two pseudo-labels are not alike.
        lambda_u, lambda_contrast: weights of L_u and L_c.
        dim: of the features.
        memory: samples that are remembered.
        labeled_strong: train on strong views of the labelled images too.
    """

    slots: ClassVar[frozenset[Slot]] = Consistency.slots

    def __init__(
        self,
        num_classes: int,
        *,
        refine: Refiner,
        weigh: Weigher,
        target: Targeter,
        alpha: float,
        temperature: float,
        graph_threshold: float,
        lambda_u: float,
        lambda_contrast: float,
        dim: int,
        memory: int,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        self.refine, self.weigh, self.target = refine, weigh, target
        self.divergence: Divergence = cross_entropy
        self.alpha, self.temperature, self.graph_threshold = alpha, temperature, graph_threshold
        self.lambda_u, self.lambda_contrast, self.dim = lambda_u, lambda_contrast, dim
        self.memory = SampleQueue(num_classes, size=memory, dim=dim)
        self.projection: Projection | None = None
        self.views = ViewSpec(strong=2, labeled_strong=labeled_strong)

    def attach(self, net: nn.Module) -> None:
        super().attach(net)
        self.projection = Projection(cast(int, net.num_features), self.dim)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out, u = nets.forward(batch, self.views), batch.unlabeled
        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong, progress)
        if u is None or out.weak is None:
            return Losses(supervised, torch.zeros_like(supervised), self.labels_alone(out, batch, nets, progress))

        with torch.no_grad():
            p, seen = probability(out.weak.logits), context(batch, out, progress)
            self.refine.observe(p, u.valid, seen)
            p = self.refine(p)
            h = self._embedded(out.weak, u.valid)
            q = self._smoothed(p, h)
            pseudo = pseudo_label(q, u.valid, seen, self.weigh, self.target, (self.charge, self.divergence))
            self._remember(batch.labeled, u, self._embedded(out.labeled, batch.labeled.valid), h, p)

        warped = u.warps[0](pseudo)
        charged = self.divergence(out.strong[0].logits, warped.target)
        unsupervised = weighted_mean(charged, warped.weight, over=warped.valid)
        first, second = (self._embedded(view, u.valid) for view in out.strong)
        extras = {"contrast": self.lambda_contrast * self._contrasted(first, second, q, u.valid)}
        extras |= self.further_losses(q, seen, out, batch, pseudo, nets)
        return Losses(supervised, self.lambda_u * unsupervised, extras, pseudo)

    def _embedded(self, view: Output, valid: Tensor) -> Tensor:
        """h, (N, D) of length 1."""
        return unit(attached(self.projection, "comatch")(features_of(view, valid, "comatch")))

    def _smoothed(self, p: Tensor, h: Tensor) -> Tensor:
        """q, by what was remembered before this step."""
        filled = self.memory.filled
        log_a = log_similarity(h, self.memory.features, filled, self.temperature)
        return blended(p, recalled(log_a, self.memory.probs).to(p.dtype), filled, self.alpha)

    def _remember(self, labeled: Labeled, u: Unlabeled, h_labeled: Tensor, h: Tensor, p: Tensor) -> None:
        known = one_hot(labeled.y.masked_fill(labeled.valid == 0, 0), p.shape[1], p.dtype)
        # The keys are numbers of a sample, not of its place: what is written does not hang on the order of a batch.
        keys = torch.cat((u.draw("memory", 1), labeled.draw("memory of labeled", 1)))[:, 0]
        valid = torch.cat((u.valid, labeled.valid))
        self.memory.observe(torch.cat((h, h_labeled)), torch.cat((p, known)), valid, keys)

    def _contrasted(self, first: Tensor, second: Tensor, q: Tensor, valid: Tensor) -> Tensor:
        """L_c over the images of all ranks, which every rank computes whole: it is of their pairs."""
        valid = gather_batch(valid)
        graph = label_graph(gather_batch(q), valid, self.graph_threshold)
        first, second = gather_with_gradient(first), gather_with_gradient(second)
        charge = graph_contrast(first, second, graph.to(first.dtype), valid, self.temperature)
        return charge.sum() / valid.sum().clamp_min(1)


def comatch(
    num_classes: int,
    dense: bool,
    *,
    threshold: float = 0.95,
    alpha: float = 0.9,
    temperature: float = 0.2,
    graph_threshold: float = 0.8,
    lambda_u: float = 1.0,
    lambda_contrast: float = 1.0,
    dim: int = 64,
    memory: int = 2560,
    window: int = 32,
    labeled_strong: bool = False,
) -> CoMatch:
    """The method with its rules.

    Args:
        num_classes: C.
        dense: labels are maps; must be false.
        threshold: tau.
        alpha: share of a sample's own prediction in its pseudo-label; 1 asks no neighbors.
        temperature: T.
        graph_threshold: below which two pseudo-labels are not alike.
        lambda_u: weight of L_u.
        lambda_contrast: weight of L_c.
        dim: values of h.
        memory: samples that are remembered, some batches of them.
        window: batches over which predictions are aligned.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: labels that are maps, or a number out of range.
    """
    if dense:
        raise UsageError(
            "comatch is for one class per image only: it compares every sample of a batch with every other, and pixels "
            "are too many for that. Take u2pl, which contrasts pixels with some others."
        )
    check_neighbors("comatch", alpha=alpha, temperature=temperature, dim=dim)
    if not 0.0 <= graph_threshold <= 1.0:
        raise UsageError(f"comatch(graph_threshold={graph_threshold}): expected a number between 0 and 1, such as 0.8.")
    if memory < 1:
        raise UsageError(f"comatch(memory={memory}): expected a number of samples, at least 1.")
    return CoMatch(
        num_classes,
        refine=DistributionAlignment(num_classes, window=window),
        weigh=FixedThreshold(threshold),
        target=Soft(),
        alpha=alpha,
        temperature=temperature,
        graph_threshold=graph_threshold,
        lambda_u=lambda_u,
        lambda_contrast=lambda_contrast,
        dim=dim,
        memory=memory,
        labeled_strong=labeled_strong,
    )


def check_neighbors(owner: str, *, alpha: float, temperature: float, dim: int) -> None:
    """Raise a UsageError unless these are a share, a positive number and at least 1."""
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"{owner}(alpha={alpha}): expected a share between 0 and 1; 1 asks no neighbors.")
    if temperature <= 0:
        raise UsageError(f"{owner}(temperature={temperature}): expected a number above 0, such as 0.1.")
    if dim < 1:
        raise UsageError(f"{owner}(dim={dim}): expected at least 1.")
