"""Every method of the table on images with masks, from files' pixels to the weights after some steps."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sfumato import checkpoint
from sfumato.batches import BatchMaker
from sfumato.forward import Nets
from sfumato.interrupt import Interrupted
from sfumato.methods import METHODS
from sfumato.methods.fixmatch import fixmatch
from sfumato.teacher import Ema
from sfumato.types import Batch, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec
from sfumato.views.draws import draw_for
from tests.train.pixels import CROP, data, method, network, run, table
from tests.train.test_ranks import launch
from tests.train.test_resume import assert_same_run

FOR_MASKS = [name for name, entry in METHODS.items() if not entry.classes_only]
each = pytest.mark.parametrize("name", FOR_MASKS)
RAN: set[str] = set()
PERTURBED = ["csl", "unimatch", "unimatch_v2", "augseg"]


def drawn(views: ViewSpec, *, classes: int = 3, labeled: int = 3, ratio: int = 2, step: int = 3) -> Batch:
    maker = BatchMaker(data(classes), views, labeled, ratio, 0, torch.device("cpu"))
    (batch, _), *_ = maker.at(step, 9)
    maker.close()
    return batch


def nets_for(classes: int = 3, *, sure: float = 1.0) -> Nets:
    """sure: how many times larger the logits are than those of a net not yet trained."""
    net = network(classes).train()
    net.classifier.weight.data *= sure
    with torch.no_grad():
        for _ in range(20 if sure > 1 else 0):
            net(torch.randn(4, 3, *CROP))  # the teacher normalizes by what the student has seen
    return Nets(net, Ema(net, 0.9))


@each
def test_three_steps(name: str) -> None:
    result, chosen = run(name)
    losses = [value for record in result.history for key, value in record.items() if key.startswith("train/loss")]
    assert len(losses) >= 3
    assert all(map(math.isfinite, losses))
    assert all(value.isfinite().all() for value in result.model.state_dict().values())
    assert result.val is not None
    assert 0 <= result.val["miou"] <= 1
    if chosen.views.weak:
        assert any("pl/coverage" in record for record in result.history)
    RAN.add(name)


@dataclass
class Seen:
    """Networks that keep what they gave."""

    nets: Nets
    views: list[Views] = field(default_factory=list)

    def weak(self, batch: Batch, spec: ViewSpec) -> Output:
        return self.nets.weak(batch, spec)

    def further(self, x: torch.Tensor, *, statistics: bool = True, dropout: bool = True) -> Output:
        return self.nets.further(x, statistics=statistics, dropout=dropout)

    def average(self, x: torch.Tensor) -> Output:
        return self.nets.average(x)

    def beside(self, net: nn.Module) -> Seen:
        return Seen(self.nets.beside(net), self.views)

    def momentum(self, step: int) -> float:
        return self.nets.momentum(step)

    def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views:
        views = self.nets.forward(batch, spec, weak)
        for out in (views.labeled, views.labeled_strong, views.weak, *views.strong, views.perturbed):
            if out is not None and out.logits.requires_grad:
                out.logits.retain_grad()
        self.views.append(views)
        return views


def where_valid(u: Unlabeled, views: Views, *, pasted: bool) -> list[tuple[Output | None, torch.Tensor]]:
    """The outputs of the unlabeled views, and where the labels that they are charged with are valid."""
    ones = torch.ones_like(u.valid)
    strong = [] if pasted else [warp(Pseudo(ones.long(), ones, u.valid)).valid for warp in u.warps]
    return [*zip(views.strong, strong, strict=False), (views.perturbed, u.valid), (views.weak, u.valid)]


@each
def test_void_and_padding_have_no_gradient(name: str) -> None:
    chosen = method(name, data())
    batch, nets = drawn(chosen.views, step=5), Seen(nets_for(sure=40.0))
    marked, u = batch.labeled, batch.unlabeled
    assert 0.02 < (marked.valid == 0).float().mean() < 0.5
    chosen.loss(nets, batch, Progress(5, 9)).total.backward()
    assert len(nets.views) == 1 + (name == "cps")  # the twin sees all of it too
    for views in nets.views:
        checked = [(views.labeled, marked.valid)]
        if views.labeled_strong is not None:
            ones = torch.ones_like(marked.valid)
            checked.append((views.labeled_strong, marked.warp(Pseudo(marked.y, ones, marked.valid)).valid))
        if u is not None:
            assert (u.valid == 0).any()
            checked += where_valid(u, views, pasted=chosen.views.pasting)
        seen = 0
        for out, valid in checked:
            if out is not None and out.logits.grad is not None:
                gradient = out.logits.grad.movedim(1, -1)
                assert (gradient[valid == 0] == 0).all()
                seen += int((gradient[valid > 0] != 0).any())
        assert seen >= 1 + bool(views.strong and not chosen.views.pasting)


def void(batch: Batch) -> Batch:
    marked, u = batch.labeled, batch.unlabeled
    labeled = replace(marked, y=torch.full_like(marked.y, 255), valid=torch.zeros_like(marked.valid))
    return Batch(labeled, None if u is None else replace(u, valid=torch.zeros_like(u.valid)))


@each
@pytest.mark.parametrize("kind", ["void", "one image", "two classes"])
def test_hard_batches_are_finite(name: str, kind: str) -> None:
    classes = 2 if kind == "two classes" else 3
    chosen, nets = method(name, data(classes)), nets_for(classes)
    size = {"labeled": 1, "ratio": 1} if kind == "one image" else {}
    for step in range(2):
        batch = drawn(chosen.views, classes=classes, step=step, **size)
        losses = chosen.loss(nets, void(batch) if kind == "void" else batch, Progress(4 + step, 9))
        assert losses.total.isfinite()
        if kind == "void" and step == 0:
            assert losses.total == 0
        nets.student.zero_grad()
        losses.total.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in nets.student.parameters())
        assert all(value.isfinite().all() for value in chosen.state_dict().values() if value.is_floating_point())


def test_all_methods_were_walked(request: pytest.FixtureRequest, files_stay_whole: bool) -> None:
    mine = [item for item in request.session.items if item.name.startswith("test_three_steps[")]
    if len(mine) != len(FOR_MASKS) or not files_stay_whole:
        pytest.skip("counts only when this file runs whole, in one process")
    assert set(FOR_MASKS) == RAN


@pytest.mark.parametrize("name", [*PERTURBED, "u2pl"])
def test_stopped_and_continued_is_never_stopped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    settings = {"steps": 5, "eval_every": 4}
    run(name, folder=whole, **settings)

    def terminate(self: object, step: int) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("sfumato.train.Reporter.step", terminate)
    with pytest.raises(Interrupted, match="after step 3 of 5"):
        run(name, folder=again, **settings)
    monkeypatch.undo()
    run(name, folder=again, resume=True, **settings)
    assert_same_run(whole, again)


def test_the_loss_of_fixmatch_is_divided_by_valid_pixels_selected_or_not() -> None:
    chosen = fixmatch(threshold=0.34)
    batch, nets = drawn(chosen.views), Seen(nets_for())
    losses = chosen.loss(nets, batch, Progress(3, 9))
    (views,), u = nets.views, batch.unlabeled
    assert u is not None
    assert views.weak is not None
    p = views.weak.logits.softmax(1)
    warped = u.warps[0](Pseudo(p.argmax(1), (p.amax(1) >= 0.34).float(), u.valid))
    charge = torch.nn.functional.cross_entropy(views.strong[0].logits, warped.target, reduction="none")
    selected = (warped.weight * warped.valid).sum()
    assert 0 < selected < warped.valid.sum()
    want = (charge * warped.weight * warped.valid).sum() / warped.valid.sum()
    torch.testing.assert_close(losses.unsupervised, want)


def test_boxes_and_draws_belong_to_the_sample() -> None:
    """A part of the batch has what it would have in the whole one, and the next step has others."""
    views = ViewSpec(uncut=1, pasting=True)
    whole, cut = (BatchMaker(data(), views, 4, 2, 0, torch.device("cpu"), accumulate=n) for n in (1, 2))
    (one, _), (two, _) = whole.at(3, 9)[0], cut.at(3, 9)[1]
    u, part = one.unlabeled, two.unlabeled
    assert u is not None
    assert part is not None
    assert u.pasting is not None
    assert part.pasting is not None
    assert torch.equal(u.draw("x", 3), draw_for(0, 3, torch.arange(8))("x", 3))
    assert torch.equal(u.draw("x", 3)[4:], part.draw("x", 3))
    for mixing, own in ((u.pasting.labeled, part.pasting.labeled), (u.pasting.others, part.pasting.others)):
        assert torch.equal(mixing.region[4:], own.region)
        assert own.region.shape == (4, *CROP)
    assert u.pasting.labeled.region.any()
    later = whole.at(4, 9)[0][0].unlabeled
    assert later is not None
    assert not torch.isin(later.draw("x", 3), u.draw("x", 3)).any()
    plain = BatchMaker(data(), ViewSpec(), 4, 2, 0, torch.device("cpu")).at(3, 9)[0][0].unlabeled
    assert plain is not None
    assert plain.pasting is None


def test_the_table_has_what_the_tests_are_for() -> None:
    sizes = table().images.sizes(range(20))
    assert (sizes[:, 1] < CROP[0]).any()
    assert (sizes % 2 == 1).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unimatch", "unimatch_v2", "augseg", "u2pl"])
def test_two_ranks_train_the_weights_of_one(name: str, tmp_path: Path) -> None:
    for folder, ranks in (("one", 1), ("two", 2)):
        launch(tmp_path / folder, name, "4", ranks=ranks, module="tests.train.pixels")
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / f / "checkpoints").path) for f in ("one", "two"))  # type: ignore[arg-type]
    for key, value in one.tensors["model"].items():
        torch.testing.assert_close(
            two.tensors["model"][key], value, atol=1e-5, rtol=1e-4, msg=lambda m, k=key: f"{k}: {m}"
        )
