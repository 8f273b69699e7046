"""Images with masks as training data: what a batch holds, what is measured, what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.batches import Part
from sfumato.data.pairs import draw_pair_splits, pairs_from_arrays
from sfumato.errors import CollapseError
from sfumato.evaluate_dense import DenseScores
from sfumato.pair_data import PairData, Whole
from sfumato.types import VOID, Output, Pseudo, ViewSpec
from sfumato.views import DenseAugment

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class ByColor(nn.Module):
    """Calls bright pixels 1 and dark ones 0, more or less surely; never 2."""

    def __init__(self, scale: float = 4.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Output:
        bright = x.mean(dim=1)
        return Output(self.scale * torch.stack([-bright, bright, torch.full_like(bright, -1.0)], dim=1))


def table(count: int = 24, sizes: tuple[tuple[int, int], ...] = ((20, 24),)):
    """Dark ground 0 with a bright square 1 and one gray pixel 2, a void line beside it; the last four have no mask."""
    draw = np.random.default_rng(0)
    images, masks = [], []
    for n in range(count):
        height, width = sizes[n % len(sizes)]
        image = draw.integers(0, 60, (height, width, 3)).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        top, left = draw.integers(0, height - 9), draw.integers(0, width - 9)
        image[top : top + 8, left : left + 8] += 150
        mask[top : top + 8, left : left + 8] = 1
        mask[top : top + 8, left + 8] = VOID
        mask[0, 0] = 2
        images.append(image)
        masks.append(mask if n < count - 4 else None)
    return pairs_from_arrays(images, masks, classes=["ground", "square", "dot"])


def data(**given: object) -> PairData:
    pairs = table(**given)  # type: ignore[arg-type]
    splits = draw_pair_splits(pairs, labels=6, fraction=None, val=4, test=6, seed=0, split_seed=0)
    return PairData(pairs, splits, DenseAugment("small", seed=0, crop=(16, 16), mean=MEAN, std=STD))


def part(given: PairData, *, labeled: bool) -> Part:
    rows = given.splits.labeled if labeled else given.splits.unlabeled
    return Part(rows, np.arange(len(rows)), 3, labeled)


def test_a_labeled_batch_knows_void_and_padding_as_nothing_to_learn() -> None:
    given = data()
    place = part(given, labeled=True)
    batch = given.labeled(place, given.read(place), ViewSpec(labeled_strong=True))
    assert batch.x.shape == (6, 3, 16, 16)
    assert torch.equal(batch.valid == 0, batch.y == VOID)
    assert (batch.y == VOID).any()
    assert batch.strong is not None
    assert batch.index.tolist() == list(range(6))
    # the labels of the strong view are mixed as its images are
    whose = torch.arange(6)[:, None, None].expand_as(batch.y).clone()
    mixed = batch.warp(Pseudo(whose, batch.valid, batch.valid))
    assert not torch.equal(mixed.target, whose)
    assert torch.equal(mixed.valid, batch.valid.gather(0, mixed.target))


def test_labels_that_training_uses_are_not_known_among_the_unlabeled() -> None:
    given = data()
    place = part(given, labeled=False)
    batch, truth = given.unlabeled(place, given.read(place), ViewSpec())
    trained_on = torch.from_numpy(np.isin(place.rows, given.splits.labeled))
    without = torch.from_numpy(~given.table.known[place.rows])
    assert trained_on.sum() == 6
    assert without.sum() == 4
    assert (truth[trained_on | without] == -1).all()
    assert all((one >= 0).any() for one in truth[~(trained_on | without)])
    assert set(truth.unique().tolist()) <= {-1, 0, 1, 2}
    assert batch.valid.shape == truth.shape
    assert (truth[batch.valid == 0] == -1).all()


def test_views_are_what_the_method_declares() -> None:
    given = data()
    place = part(given, labeled=False)
    read = given.read(place)
    batch, _ = given.unlabeled(place, read, ViewSpec(strong=3, uncut=1, patches=True))
    assert len(batch.strong) == len(batch.warps) == 3
    assert batch.patches is not None
    assert batch.patches.shape == batch.valid.shape
    label = Pseudo(torch.arange(len(read[0]))[:, None, None].expand_as(batch.valid).clone(), batch.valid, batch.valid)
    mixed = [not torch.equal(warp(label).target, label.target) for warp in batch.warps]
    assert mixed == [True, True, False]
    again, _ = given.unlabeled(place, read, ViewSpec(strong=3, uncut=1, patches=True))
    assert all(torch.equal(a, b) for a, b in zip(batch.strong, again.strong, strict=True))


def test_scores_are_those_of_the_predictions_made_one_by_one() -> None:
    given, net = data(), ByColor()
    found = given.score(net, given.splits.val, CPU)
    scores = DenseScores(given.classes)
    for row in given.splits.val.tolist():
        image = given.augment.evaluation(given.table.images.image(row)[None])
        scores.observe(net(image).logits.detach(), given.table.images.mask(row)[None])
    direct = scores.result()
    assert found.metrics.keys() - direct.keys() == {"miou_rare"}
    for key, value in direct.items():
        assert found.metrics[key] == pytest.approx(value, nan_ok=True)
    assert found.metrics["iou/square"] > 0.95
    assert found.metrics["iou/dot"] == found.metrics["miou_rare"] == 0
    assert given.score(net, given.splits.val[:0], CPU).metrics == {}


def test_images_of_several_sizes_and_windows_give_the_same_scores() -> None:
    given, net = data(sizes=((20, 24), (31, 17), (18, 18))), ByColor()
    rows, results = given.splits.test, []
    for batch, inference in ((8, "full"), (1, "full"), (8, "sliding")):
        whole = Whole(given.table, given.augment, batch, inference)  # type: ignore[arg-type]
        results.append(whole.scores(net, rows, CPU).result())
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        for key, value in results[0].items():
            assert other[key] == pytest.approx(value, abs=1e-6, nan_ok=True)


def test_what_is_measured_in_the_end() -> None:
    given, net = data(), ByColor()
    found = given.measure(net, CPU, bins=10)
    assert found.sections["test"]["miou"] == found.sections["test_calibrated"]["miou"]
    assert found.sections["test"]["nll"] > found.sections["test_calibrated"]["nll"]
    arrays = found.arrays["test"]
    assert arrays["counts"].shape == (6, 3, 3)
    assert arrays["rows"].tolist() == given.splits.test.tolist()
    total = arrays["counts"].sum(axis=0)
    assert np.diag(total).sum() / total.sum() == pytest.approx(found.sections["test"]["acc"])
    assert (total.sum(axis=1) == given.table.counts[given.splits.test, :-1].sum(axis=0)).all()
    gallery = found.arrays["gallery"]
    assert gallery["colors"].shape == (3, 3)
    for n, row in enumerate(gallery["test-rows"]):
        assert (gallery[f"test-truth-{n}"] == given.table.images.mask(row).numpy()).all()
        assert (gallery[f"test-labels-{n}"][gallery[f"test-truth-{n}"] == 1] == 1).mean() > 0.95
    assert not set(gallery["unlabeled-rows"]) & set(given.splits.labeled)


def test_a_network_that_broke_down_is_told() -> None:
    with pytest.raises(CollapseError, match="predictions on the val split are not finite"):
        data().measure(ByColor(float("nan")), CPU, bins=10)


def test_pixels_are_counted_and_rare_classes_named() -> None:
    given = data()
    counts = np.zeros(3, dtype=np.int64)
    for row in given.splits.labeled.tolist():
        mask = given.table.images.mask(row).numpy()
        counts += np.bincount(mask[mask != VOID], minlength=3)
    assert given.label_counts().tolist() == counts.tolist()
    assert given.rare == ["dot"]
