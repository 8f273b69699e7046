"""Training on images that have a mask each: a class for every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfumato import distributed
from sfumato.batches import Part, TrainData
from sfumato.data import Splits
from sfumato.data.pairs import PairTable
from sfumato.data.pairs.stored import StoredMasks
from sfumato.evaluate import PARTS, Measured, Scored, refuse_broken, undisturbed
from sfumato.evaluate_dense import DenseScores
from sfumato.inference import Mode, segment, segment_maps
from sfumato.posthoc.temperature import fit_temperature
from sfumato.types import VOID, Labeled, Output, Pseudo, Unlabeled, ViewSpec, Warp, unwarped
from sfumato.views import DenseAugment
from sfumato.views.draws import draw_for

RARE = 0.1  # of an even share of the labeled pixels: a class with less is rare
_SHOWN = 4  # images whose maps are kept for the report, of the test and of the unlabeled ones
_LONGEST = 320  # their long side at most
_KEPT_PIXELS = 20_000  # whose logits are kept for the reliability diagram


@dataclass(frozen=True)
class Whole:
    """How whole images of a table are given to a net: see `PairData`."""

    table: PairTable
    augment: DenseAugment
    eval_batch: int = 8
    inference: Mode = "full"

    def scores(
        self,
        model: nn.Module,
        rows: NDArray[np.int64],
        device: torch.device,
        *,
        bins: int = 15,
        temperature: float | None = None,
    ) -> DenseScores:
        """Of these rows, each rank its share, every image at its own size."""
        scores = DenseScores(self.table.classes, bins=bins, temperature=temperature, device=device)
        mine = np.array_split(rows, distributed.world_size())[distributed.rank()]
        with undisturbed(model, device):
            for batch in self._of_one_size(mine):
                images = torch.stack([self.table.images.image(row) for row in batch])
                labels = torch.stack([self.table.images.mask(row) for row in batch])
                logits = self._logits(model, self.augment.evaluation(images.to(device)))
                scores.observe(logits, labels.to(device), torch.tensor(batch))
        return scores

    def predictions(
        self, models: Sequence[nn.Module], rows: NDArray[np.int64], device: torch.device, *, flip: bool
    ) -> Iterator[tuple[NDArray[np.int64], list[Tensor]]]:
        """See `TrainData.predictions`; labels are uint8 (n, H, W)."""
        mine = np.array_split(rows, distributed.world_size())[distributed.rank()]
        for batch in self._of_one_size(mine):
            images = torch.stack([self.table.images.image(row) for row in batch])
            prepared = self.augment.evaluation(images.to(device))
            found = []
            for model in models:
                with undisturbed(model, device):
                    p = torch.softmax(self._logits(model, prepared).float(), dim=1)
                    if flip and self.augment.preset.flip > 0:
                        p += torch.softmax(self._logits(model, prepared.flip(-1)).float(), dim=1).flip(-1)
                    found.append(p.argmax(dim=1).to(torch.uint8).cpu())
            yield np.array(batch, dtype=np.int64), found

    def _of_one_size(self, rows: NDArray[np.int64]) -> Iterator[list[int]]:
        sizes = self.table.images.sizes(rows)
        batch: list[int] = []
        for place, row in enumerate(rows.tolist()):
            if batch and (len(batch) == self.eval_batch or (sizes[place] != sizes[place - 1]).any()):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        if self.inference == "full":
            answer: Output = model(images)
            return answer.logits
        return torch.stack([segment(model, image, mode=self.inference, crop=self.augment.crop) for image in images])


@dataclass(frozen=True)
class PairData(TrainData):
    """A table of images with masks, its splits and the views of it.

    eval_batch: images at a time in an evaluation, if they are of one size; changes no result.
    inference: "full" gives the net whole images, "sliding" windows of the crop's size.
    stored: masks that an earlier network gave to the unlabeled images, for methods that train on them.
    held: see `TrainData`.
    """

    table: PairTable
    splits: Splits
    augment: DenseAugment
    eval_batch: int = 8
    inference: Mode = "full"
    stored: StoredMasks | None = None
    held: NDArray[np.int64] | None = None
    criterion = "miou"

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        return self.table.classes

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        return self.table.names

    def read(self, part: Part) -> tuple[Tensor, ...]:
        """Crops of images and masks, where they are not padding, places in the labeled or unlabeled set and the batch.

        Masks of images that training has labels of are void among the unlabeled. Of these come last the stored masks,
        where there are any.
        """
        rows, store = part.rows, self.table.images
        purpose = "labeled weak" if part.labeled else "weak"
        windows = self.augment.windows(store.sizes(rows), step=part.step, slots=part.slots, purpose=purpose)
        crops = store.crops(rows, windows, self.augment.crop, masks=True)
        assert crops.masks is not None
        if not part.labeled:
            crops.masks[torch.from_numpy(np.isin(rows, self.splits.labeled))] = VOID
        index = np.searchsorted(self.splits.labeled if part.labeled else self.splits.unlabeled, rows)
        read = (crops.images, crops.masks, crops.inside, torch.from_numpy(index), torch.from_numpy(part.slots))
        if part.labeled or self.stored is None:
            return read
        return *read, self.stored.crops(rows, windows, self.augment.crop)

    def labeled(self, part: Part, read: tuple[Tensor, ...], spec: ViewSpec) -> Labeled:
        images, masks, _, index, slots = read
        strong: Tensor | None = None
        warp: Warp = unwarped
        if spec.labeled_strong:
            strong, warp = self._strong(images, part.step, slots, "labeled strong")
        y = masks.long()
        draw = draw_for(self.augment.seed, part.step, slots, "labeled")
        return Labeled(self.augment.weak(images), y, (y != VOID).float(), index, strong, warp, draw)

    def unlabeled(self, part: Part, read: tuple[Tensor, ...], spec: ViewSpec) -> tuple[Unlabeled, Tensor]:
        images, masks, inside, index, slots, *stored = read
        views: list[Tensor] = []
        warps: list[Warp] = []
        for number in range(spec.strong):
            purpose, last = f"strong {number}", number == spec.strong - 1
            if spec.further == "weak":
                view, warp = self._mixed(self.augment.weak(images), part.step, slots, purpose)
            elif number < spec.strong - spec.uncut:
                view, warp = self._strong(images, part.step, slots, purpose, cutout=spec.cutout)
            else:
                make = self.augment.masked if spec.patches and last else self.augment.strong
                view, warp = make(images, step=part.step, slots=slots, purpose=purpose), unwarped
            views.append(view)
            warps.append(warp)
        patches = None
        if spec.patches:
            patches = self.augment.patches(step=part.step, slots=slots, purpose=f"strong {spec.strong - 1}")
        truth = masks.long()
        found = Unlabeled(
            weak=self.augment.weak(images),
            strong=tuple(views),
            valid=inside.float(),
            index=index,
            warps=tuple(warps),
            patches=patches,
            pasting=self.augment.pasting(step=part.step, slots=slots, purpose="pasted") if spec.pasting else None,
            stored=_pseudo(stored[0]) if spec.stored and stored else None,
            draw=draw_for(self.augment.seed, part.step, slots),
        )
        return found, truth.masked_fill_(truth == VOID, -1)

    def _strong(
        self, images: Tensor, step: int, slots: Tensor, purpose: str, *, cutout: bool = False
    ) -> tuple[Tensor, Warp]:
        """Strong colors, and boxes of other images of the batch, or with `cutout` of noise."""
        if cutout:
            erasing = self.augment.cutout(step=step, slots=slots, purpose=purpose)
            return erasing.images(self.augment.strong(images, step=step, slots=slots, purpose=purpose)), erasing
        strong = self.augment.strong(images, step=step, slots=slots, purpose=purpose)
        return self._mixed(strong, step, slots, purpose)

    def _mixed(self, views: Tensor, step: int, slots: Tensor, purpose: str) -> tuple[Tensor, Warp]:
        mixing = self.augment.cutmix(step=step, slots=slots, purpose=purpose)
        return mixing.images(views), mixing

    def predictions(
        self, models: Sequence[nn.Module], rows: NDArray[np.int64], device: torch.device, *, flip: bool
    ) -> Iterator[tuple[NDArray[np.int64], list[Tensor]]]:
        whole = Whole(self.table, self.augment, self.eval_batch, self.inference)
        return whole.predictions(models, rows, device, flip=flip)

    def score(self, model: nn.Module, rows: NDArray[np.int64], device: torch.device) -> Scored:
        scores = self._scores(model, rows, device)
        return Scored(self._with_rare(scores.result()) if len(rows) else {}, scores.held_out)

    def measure(self, model: nn.Module, device: torch.device, *, bins: int) -> Measured:
        val = self._scores(model, self.splits.val, device, bins)
        sample = val.held_out
        refuse_broken({"val": sample.logits})
        temperature = fit_temperature(sample.logits, sample.y)
        test = self._scores(model, self.splits.test, device, bins, temperature)
        refuse_broken({"test": test.held_out.logits})
        sections: dict[str, dict[str, float]] = {"test": {}, "test_calibrated": {}, "val": {}}
        if len(self.splits.val):
            sections["val"] = self._with_rare(val.result())
        if len(self.splits.test):
            sections["test"] = self._with_rare(test.result())
            sections["test_calibrated"] = self._with_rare(test.calibrated())
        arrays = {part: self._arrays(part, scores) for part, scores in zip(PARTS, (val, test), strict=True)}
        return Measured(temperature, sections, arrays | {"gallery": self._gallery(model, device)})

    def card(self) -> dict[str, Any]:
        return {
            "task": "segmentation",
            "crop": list(self.augment.crop),
            "channels": self.table.images.channels,
            "mean": list(self.augment.mean),
            "std": list(self.augment.std),
            "colors": self.table.colors.tolist(),
            "rare": self.rare,
            "inference": self.inference,
        }

    def label_counts(self) -> Tensor:
        return torch.from_numpy(self.table.counts[self.splits.labeled, :-1].sum(axis=0))

    @property
    def rare(self) -> list[str]:
        """Classes with less than a tenth of an even share of the labeled pixels."""
        counts = self.label_counts().double()
        few = counts < RARE * counts.sum() / len(counts)
        return [name for name, is_rare in zip(self.classes, few.tolist(), strict=True) if is_rare]

    def _with_rare(self, metrics: dict[str, float]) -> dict[str, float]:
        """With "miou_rare", the mean IoU of the rare classes, where there are any."""
        found = [metrics[f"iou/{name}"] for name in self.rare]
        return metrics | ({"miou_rare": float(np.nanmean(found))} if np.isfinite(found).any() else {})

    def _scores(
        self,
        model: nn.Module,
        rows: NDArray[np.int64],
        device: torch.device,
        bins: int = 15,
        temperature: float | None = None,
    ) -> DenseScores:
        whole = Whole(self.table, self.augment, self.eval_batch, self.inference)
        return whole.scores(model, rows, device, bins=bins, temperature=temperature)

    def _arrays(self, part: str, scores: DenseScores) -> dict[str, NDArray[Any]]:
        """Rows and names (N,), the confusion matrix of each (N, C, C), logits (M, C) and labels (M,) of some pixels."""
        rows, sample = getattr(self.splits, part), scores.held_out
        kept = torch.linspace(0, max(0, len(sample.y) - 1), min(len(sample.y), _KEPT_PIXELS)).long()
        return {
            "rows": rows,
            "names": np.array([self.names[row] for row in rows], dtype=np.str_),
            "counts": scores.per_image.counts.cpu().numpy(),
            "logits": sample.logits.cpu()[kept].numpy(),
            "labels": sample.y.cpu()[kept].numpy(),
        }

    def _gallery(self, model: nn.Module, device: torch.device) -> dict[str, NDArray[Any]]:
        """Some images with what is known and what the network says: image-0, truth-0, labels-0, entropy-0, ..."""
        shown = {"test": self.splits.test if len(self.splits.test) else self.splits.val}
        shown["unlabeled"] = np.setdiff1d(self.splits.unlabeled, self.splits.labeled)
        arrays: dict[str, NDArray[Any]] = {"colors": self.table.colors}
        for kind, rows in shown.items():
            chosen = rows[np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).astype(np.int64)] if len(rows) else rows
            arrays[f"{kind}-rows"] = chosen
            arrays[f"{kind}-names"] = np.array([self.names[row] for row in chosen], dtype=np.str_)
            for place, row in enumerate(chosen.tolist()):
                image = self.table.images.image(row)
                prepared = self.augment.evaluation(image[None].to(device))[0]
                maps = segment_maps(model, prepared, mode=self.inference, crop=self.augment.crop)
                step = -(-max(image.shape[1:]) // _LONGEST)
                for name, plane in (
                    ("image", image),
                    ("truth", self.table.images.mask(row)),
                    ("labels", maps.labels),
                    ("entropy", maps.entropy),
                ):
                    arrays[f"{kind}-{name}-{place}"] = plane[..., ::step, ::step].cpu().numpy()
        return arrays


def _pseudo(labels: Tensor) -> Pseudo:
    """Stored labels (N, H, W) uint8 as a pseudo-label of weight 1, valid where they are not void."""
    known = labels != VOID
    return Pseudo(labels.long().masked_fill(~known, 0), torch.ones_like(labels, dtype=torch.float32), known.float())
