"""MarginMatch (Sosea and Caragea 2023, arXiv:2308.09037): pseudo-labels that were right all along, not only now.

    PM_c = z_c - max_{j != c} z_j                                 pseudo-margin of a weak view
    APM_c <- PM_c d / (1 + t) + APM_c (1 - d / (1 + t))           its average over the sample's t visits, d = 0.997
    keep = 1[max p >= T_c] 1[APM_c > g],  c = argmax p            T_c: FlexMatch's threshold
    g = 95th percentile of APM_{C+1} of the threshold samples

Threshold samples are unlabeled images, one in a hundred, that are taught to be of a virtual class C + 1, which none of
them is: what margin the network can be brought to for a wrong label is what a pseudo-label has to exceed. Others take
their place now and then, and none is one at the end. The virtual class is an output beside those of the network, from
the same features; it takes part in the losses of labels and pseudo-labels, and the network is kept without it.

Schedule as released, in shares of its 2^20 steps: margins count after 8 % of training, threshold samples are exchanged
20 times until 90 %, g follows them but for the first fiftieth of each time. Threshold samples count as much as the mean
of the pseudo-labels beside them. Three slips of the released code are not repeated: a runner-up below 0 is taken as it
is; of the percentile 95, divided by 100 twice and counted from the top, remains the largest margin; and samples not
visited yet count as 0. A percentile of 100 is nearest to it.

g rises as wrong labels are learned by heart, for which the paper has 450 visits of each threshold sample before they
are exchanged. With a dozen it stays well below 0, all pass, and what remains is FlexMatch (on 40 labels of MNIST, 10
visits: g = -3.6 where half of all margins are above 4); fewer `turns` leave more time.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from sfumato.distributed import mean_over_ranks
from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.hashing import GOLDEN, mix, numbers
from sfumato.functional.margins import margins
from sfumato.functional.percentile import percentile
from sfumato.functional.probability import full_precision, probability
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.base import Method, Networks, Slot, context
from sfumato.rules import ClassCurriculum, NoRefinement, Refiner, Weigher
from sfumato.rules.base import attached, features_of
from sfumato.running.margin_memory import MarginMemory, Storage
from sfumato.types import Batch, Losses, Output, Progress, Pseudo, Unlabeled, ViewSpec

DELTA = 0.997  # d
UNTIL = 0.9  # share of training with threshold samples
DELAY = 0.02  # share of the time of each choice of them that g waits for


class ThresholdSamples(nn.Module):
    """Which unlabeled samples are taught the virtual class, what margin they reach in it, and g.

    Args:
        num_unlabeled: N, the size of the unlabeled set.
        share: of N, how many they are, at least one.
        percentile: which of their margins g is.

    Buffers: `ids` (T,), in order, N for none; `level`, g; `salt`, which sets the choices of this training apart.
    """

    ids: Tensor
    level: Tensor
    salt: Tensor

    def __init__(self, num_unlabeled: int, *, share: float, percentile: float) -> None:
        super().__init__()
        if not 0.0 < share <= 0.5:
            raise UsageError(f"marginmatch(share={share}): expected above 0 and at most 0.5, such as 0.01.")
        if not 0.0 <= percentile <= 100.0:
            raise UsageError(f"marginmatch(percentile={percentile}): expected a number between 0 and 100, such as 95.")
        self.num_unlabeled, self.share, self.percentile = num_unlabeled, share, percentile
        count = -int(-num_unlabeled * share // 1)
        self.memory = MarginMemory(count, decay="eq5", delta=DELTA)
        self.register_buffer("ids", torch.full((count,), num_unlabeled))
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("salt", torch.zeros((), dtype=torch.int64))

    def choose(self, turn: int) -> None:
        """The threshold samples of this turn, a function of it and of the salt; none where it is below 0.

        Of others than before nothing is known yet.
        """
        ids = torch.full_like(self.ids, self.num_unlabeled)
        if turn >= 0:
            everyone = torch.arange(self.num_unlabeled, device=self.ids.device)
            lots = numbers(mix(everyone * GOLDEN + mix(self.salt + turn)), 1)[:, 0]
            ids = lots.topk(len(ids)).indices.sort().values
        same = (ids == self.ids).all()
        self.memory.average.mul_(same)
        self.memory.visits.mul_(same)
        self.ids.copy_(ids)

    def holds(self, index: Tensor) -> Tensor:
        """Which of these samples are threshold samples, (B,) bool."""
        return self.ids[self._place(index)] == index

    def observe(self, index: Tensor, margin: Tensor, valid: Tensor) -> None:
        """index, margin, valid: (B,); the margins of the virtual class, of samples that may be others too."""
        self.memory.observe(self._place(index), margin, valid * self.holds(index))

    def follow(self) -> None:
        """Move g; without a visited threshold sample it stays."""
        found = percentile(self.memory.average[:-1], self.memory.visits[:-1] > 0, self.percentile / 100)
        self.level.copy_(torch.where(found.isfinite(), found, self.level))

    def _place(self, index: Tensor) -> Tensor:
        return torch.searchsorted(self.ids, index).clamp_max(len(self.ids) - 1)


class MarginMatch(Method):
    """See the head of this file; `marginmatch` says what the arguments mean."""

    slots: ClassVar[frozenset[Slot]] = frozenset({"extras", "refine", "weigh"})

    def __init__(
        self,
        num_classes: int,
        num_unlabeled: int,
        samples: ThresholdSamples,
        curriculum: ClassCurriculum,
        *,
        warmup: float,
        turns: int,
        lambda_u: float,
        memory: Storage,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        self.num_classes, self.samples = num_classes, samples
        self.refine: Refiner = NoRefinement()
        self.weigh: Weigher = curriculum
        self.margins = MarginMemory(num_unlabeled, num_classes, decay="eq5", delta=DELTA, memory=memory)
        self.warmup, self.turns, self.lambda_u = warmup, turns, lambda_u
        self.views = ViewSpec(labeled_strong=labeled_strong)
        self.virtual: nn.Linear | None = None

    def attach(self, net: nn.Module) -> None:
        super().attach(net)
        self.virtual = nn.Linear(cast(int, net.num_features), 1)
        nn.init.zeros_(self.virtual.weight)  # at first the virtual class is as rare as its samples
        nn.init.constant_(self.virtual.bias, math.log(self.samples.share))
        self.samples.salt.copy_(torch.randint(2**62, ()))

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        turn, since = self._turn(progress)
        if turn != self._turn(Progress(progress.step - 1, progress.steps))[0]:
            self.samples.choose(turn)

        out = nets.forward(batch, self.views)
        strong = None if out.labeled_strong is None else self._with_virtual(out.labeled_strong)
        supervised = self.supervised_loss(batch.labeled, self._with_virtual(out.labeled), strong)
        u = batch.unlabeled
        if u is None or out.weak is None:
            return Losses(supervised, torch.zeros_like(supervised), self.labels_alone(out, batch, nets, progress))

        with torch.no_grad():
            p, seen, held = probability(out.weak.logits), context(batch, out, progress), self.samples.holds(u.index)
            self.refine.observe(p, u.valid * ~held, seen)
            p = self.refine(p)
            self.weigh.observe(p, u.valid * ~held, seen)
            self._learn(margins(self._with_virtual(out.weak).logits), u, held)
            if turn >= 0 and since >= DELAY:
                self.samples.follow()
            label = p.argmax(dim=1)
            kept = self.weigh(p) * ~held
            if progress.fraction >= self.warmup:
                reached = self.margins.at(u.index).gather(1, label.unsqueeze(1)).squeeze(1)
                kept = kept * (reached > self.samples.level)
            pseudo = Pseudo(label, kept, u.valid)
            taught = self._taught(pseudo, held)

        charges = []
        for view, warp in zip(out.strong, u.warps, strict=True):
            warped = warp(taught)
            charge = cross_entropy(self._with_virtual(view).logits, warped.target)
            charges.append(weighted_mean(charge, warped.weight, over=warped.valid))
        extras = self.further_losses(p, seen, out, batch, pseudo, nets)
        return Losses(supervised, self.lambda_u * torch.stack(charges).mean(), extras, pseudo)

    def _turn(self, progress: Progress) -> tuple[int, float]:
        """Which choice of threshold samples is in force, and for which share of its time; -1 where there is none."""
        if not self.warmup <= progress.fraction < UNTIL:
            return -1, 0.0
        whole, share = divmod((progress.fraction - self.warmup) / (UNTIL - self.warmup) * self.turns, 1)
        return int(whole), share

    def _learn(self, margin: Tensor, u: Unlabeled, held: Tensor) -> None:
        """margin: (N, C + 1). A sample's memory stands still while it is taught the virtual class."""
        self.margins.observe(u.index, margin[:, :-1], u.valid * ~held)
        self.samples.observe(u.index, margin[:, -1], u.valid)

    def _taught(self, pseudo: Pseudo, held: Tensor) -> Pseudo:
        """With the virtual class for the threshold samples, which weigh what the others do in the mean."""
        others = pseudo.valid * ~held
        sums = mean_over_ranks(torch.stack([(pseudo.weight * others).sum(), others.sum()]))
        share = sums[0] / sums[1].clamp_min(torch.finfo(sums.dtype).tiny)
        target = torch.where(held, self.num_classes, cast(Tensor, pseudo.target))
        return Pseudo(target, torch.where(held, share, pseudo.weight), pseudo.valid)

    def _with_virtual(self, out: Output) -> Output:
        """The output with a further logit, that of the virtual class."""
        features = features_of(out, out.logits[:, 0], "marginmatch")
        head = attached(self.virtual, "marginmatch")
        with torch.autocast(features.device.type, enabled=False):  # margins must not hang on rounding
            further = head(full_precision(features))
        return Output(torch.cat([full_precision(out.logits), further], dim=1), out.features)


def marginmatch(
    num_classes: int,
    num_unlabeled: int,
    dense: bool = False,
    *,
    threshold: float = 0.95,
    count_unused: bool = True,
    percentile: float = 95.0,
    share: float = 0.01,
    warmup: float = 0.08,
    turns: int = 20,
    lambda_u: float = 1.0,
    memory: Storage = "auto",
    labeled_strong: bool = False,
) -> MarginMatch:
    """FlexMatch, and a threshold on the average margin that is learned from samples with a wrong label.

    Args:
        num_classes, num_unlabeled: C, and the size of the unlabeled set.
        dense: whether labels are maps, for which it is not.
        threshold, count_unused: of FlexMatch.
        percentile: of the margins of threshold samples, which a pseudo-label has to exceed.
        share: how many of the unlabeled samples are threshold samples.
        warmup: share of training before margins count.
        turns: how often the threshold samples are chosen anew.
        lambda_u: weight of the unlabeled loss.
        memory: where the margins lie, 4 bytes a sample and class: "ram", "mapped" to a file, or "auto" by their size.
        labeled_strong: train on strong views of the labeled images too.

    Raises:
        UsageError: labels are maps, or a number is out of range.
    """
    if dense:
        raise UsageError(
            "marginmatch is for one class per image only: it remembers margins of every sample, and for masks that "
            "would be C numbers a pixel, of places that each crop moves."
        )
    if not 0.0 <= warmup < UNTIL:
        raise UsageError(f"marginmatch(warmup={warmup}): expected a share of training from 0 to below {UNTIL}.")
    if turns < 1:
        raise UsageError(f"marginmatch(turns={turns}): expected at least 1 choice of threshold samples.")
    return MarginMatch(
        num_classes,
        num_unlabeled,
        ThresholdSamples(num_unlabeled, share=share, percentile=percentile),
        ClassCurriculum(num_classes, num_unlabeled, threshold=threshold, count_unused=count_unused),
        warmup=warmup,
        turns=turns,
        lambda_u=lambda_u,
        memory=memory,
        labeled_strong=labeled_strong,
    )
