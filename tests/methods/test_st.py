"""ST and ST++: the loss of a round by hand, and where its labels come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sfumato.batches import Part
from sfumato.data.pairs import PairTable, pairs_from_arrays
from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, Method, build, describe
from sfumato.teacher import Ema
from sfumato.types import Batch, Progress, Pseudo, Rounds, ViewSpec
from sfumato.views.cutout import CutOut
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Echo, Task, logits_batch
from tests.train import pixels, tiny

C = 5
MAPS = Task("segmentation", (4, 6))
NAMES = ("st", "st_pp")


def made(name: str = "st", task: Task = MAPS, **options: object) -> tuple[Method, Batch]:
    """The method and a batch in float64 whose first strong view has lost a box in every image."""
    method = build(name, Facts(C, 64, task.dense), options).double()
    batch = logits_batch(task, method.views, labeled=3, unlabeled=5, void=0.3)
    assert batch.unlabeled is not None
    region = torch.zeros(batch.unlabeled.valid.shape, dtype=torch.bool)
    warp = CutOut(region, batch.unlabeled.strong[0])
    if task.dense:
        region[:, 1:3, 2:5] = True
    return method, replace(batch, unlabeled=replace(batch.unlabeled, warps=(warp,)))


def by_hand(batch: Batch, mean: str) -> tuple[float, float]:
    """The shares of the labels and of the stored ones in the loss, pixel by pixel; Echo's logits are the images."""
    x, u = batch.labeled, batch.unlabeled
    assert u is not None
    assert u.stored is not None
    kept = u.warps[0](Pseudo(u.stored.target, u.stored.weight, u.valid)).valid
    sums = []
    for logits, labels, valid in ((x.x, x.y, x.valid), (u.strong[0], u.stored.target, kept)):
        charges = [
            -F.log_softmax(logits.double().movedim(1, -1)[tuple(place)], dim=0)[labels[tuple(place)]].item()
            for place in (valid > 0).nonzero()
        ]
        sums.append((sum(charges), len(charges)))
    (a, n), (b, m) = sums
    return (a / (n + m), b / (n + m)) if mean == "union" else (a / n, b / m)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mean", ["union", "each"])
@pytest.mark.parametrize("task", [MAPS, CLASSIFICATION], ids=["maps", "labels"])
def test_the_loss_is_the_mean_over_both_kinds_of_labels(name: str, mean: str, task: Task) -> None:
    method, batch = made(name, task, mean=mean)
    net = Echo().double()
    losses = method.loss(Nets(net, Ema(net)), batch, Progress(3, 9))
    supervised, unsupervised = by_hand(batch, mean)
    assert losses.supervised.item() == pytest.approx(supervised, rel=1e-6)
    assert losses.unsupervised.item() == pytest.approx(unsupervised, rel=1e-6)
    assert losses.pseudo is not None
    assert batch.unlabeled is not None
    assert torch.equal(losses.pseudo.valid, batch.unlabeled.valid)  # before the warp, for telemetry


def test_stored_pixels_without_a_class_count_as_nothing() -> None:
    method, batch = made()
    u = batch.unlabeled
    assert u is not None
    assert u.stored is not None
    known = torch.ones_like(u.valid)
    known[0] = 0
    with_void = replace(batch, unlabeled=replace(u, stored=replace(u.stored, valid=known)))
    padded = replace(batch, unlabeled=replace(u, valid=u.valid * known))
    nets = Nets(Echo().double())
    one, other = (method.loss(nets, given, Progress(0, 9)) for given in (with_void, padded))
    torch.testing.assert_close(one.total, other.total)
    assert not torch.allclose(one.total, method.loss(nets, batch, Progress(0, 9)).total)


class Counting(Echo):
    seen: int = 0

    def forward(self, x, perturb=None):  # type: ignore[no-untyped-def]
        self.seen += len(x)
        return super().forward(x, perturb)


@pytest.mark.parametrize("layout", ["split", "concat"])
def test_weak_views_of_unlabelled_images_do_not_go_through(layout) -> None:  # type: ignore[no-untyped-def]
    method, batch = made()
    net = Counting().double()
    method.loss(Nets(net, layout=layout), batch, Progress(0, 9))
    assert net.seen == 3 + 5


def test_without_stored_labels_it_is_told_where_they_come_from() -> None:
    method, batch = made()
    assert batch.unlabeled is not None
    without = replace(batch, unlabeled=replace(batch.unlabeled, stored=None))
    with pytest.raises(UsageError, match=r"the data has none\. `sfumato train method=st_pp` makes them in rounds"):
        method.loss(Nets(Echo().double()), without, Progress(0, 9))


def test_what_the_rounds_are() -> None:
    plain, halves = (build(name, Facts(C)).rounds for name in NAMES)
    assert plain == Rounds("supervised_strong", None, "last", True)
    assert halves == Rounds("supervised_strong", 0.5, "last", True)
    assert (plain.count, halves.count) == (2, 3)
    assert describe("st_pp").views.stored
    assert describe("st").views.cutout
    assert not build("st", Facts(C), {"cutout": False}).views.cutout
    for wrong in (0.0, 1.0):
        with pytest.raises(UsageError, match=rf"st_pp: reliable={wrong}: expected a share.*method=st labels all"):
            build("st_pp", Facts(C), {"reliable": wrong})


def other_truth(given: PairTable, rows: np.ndarray) -> PairTable:
    """The same images, whose masks say something else in `rows`."""
    store, masks = given.images, []
    for row in range(len(given)):
        mask = store.mask(row).numpy().copy()
        if row in rows:
            mask[mask < 255] = (mask[mask < 255] + 1) % len(given.classes)
        masks.append(mask)
    images = [store.image(row).permute(1, 2, 0).numpy() for row in range(len(given))]
    return pairs_from_arrays(images, masks, classes=given.classes)


def test_the_truth_of_unlabelled_images_cannot_be_read() -> None:
    given = pixels.data()
    unlabeled = np.setdiff1d(given.splits.unlabeled, given.splits.labeled)
    other = replace(given, table=other_truth(given.table, unlabeled))
    place = Part(unlabeled, np.arange(len(unlabeled)), 2, False)
    method = pixels.method("st_pp", given)
    (one, truth), (two, changed) = (data.unlabeled(place, data.read(place), method.views) for data in (given, other))
    assert not torch.equal(truth, changed)
    for a, b in ((one.weak, two.weak), (one.strong[0], two.strong[0]), (one.valid, two.valid)):
        assert torch.equal(a, b)
    assert one.stored is not None
    assert two.stored is not None
    assert torch.equal(one.stored.target, two.stored.target)
    assert torch.equal(one.stored.valid, two.stored.valid)
    assert (one.stored.target[truth >= 0] == truth[truth >= 0]).float().mean() > 0.5  # the same window of the image


def test_stored_labels_of_images_are_read_by_row() -> None:
    given = tiny.data()
    rows = given.splits.unlabeled[:7]
    stored = np.full(len(given.table), -1, dtype=np.int64)
    stored[rows[:5]] = [3, 1, 4, 1, 5]
    filled, place = replace(given, stored=stored), Part(rows, np.arange(7), 0, False)
    found, _ = filled.unlabeled(place, filled.read(place), ViewSpec(stored=True))
    assert found.stored is not None
    assert found.stored.target[:5].tolist() == [3, 1, 4, 1, 5]
    assert found.stored.valid.tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert filled.unlabeled(place, filled.read(place), ViewSpec())[0].stored is None


def test_no_warm_start_without_the_stored_labels() -> None:
    result, _ = pixels.run("st", unlabeled_start=1.0)
    assert all(record["train/loss_unsup"] > 0 for record in result.history if "train/loss_unsup" in record)
    result, _ = pixels.run("fixmatch", unlabeled_start=1.0)
    assert all(record["train/loss_unsup"] == 0 for record in result.history if "train/loss_unsup" in record)


def test_both_tasks_are_conformant() -> None:
    """The suite walks them; here only that it can."""
    for task in (CLASSIFICATION, SEGMENTATION):
        assert logits_batch(task, build("st", Facts(C)).views).unlabeled.stored is not None  # type: ignore[union-attr]
