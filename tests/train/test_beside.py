"""Modules that a method trains beside the student: one optimizer, one clipping, one checkpoint, one set of weights."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from sfumato import checkpoint, distributed
from sfumato.functional.divergence import cross_entropy
from sfumato.interrupt import Interrupted
from sfumato.methods import Method
from sfumato.optim import make_optimizer
from sfumato.teacher import Ema
from sfumato.train import train
from sfumato.types import Losses, ViewSpec
from tests.train.test_resume import assert_same_run
from tests.train.tiny import CONFIG, data, network


class Beside(Method):
    """A twin of the student, a head of its own on the student's features, and an average that nothing trains."""

    views = ViewSpec(strong=0, weak=False)

    def attach(self, net):
        self.twin = deepcopy(net)
        self.twin.head.reset_parameters()
        self.own = nn.Sequential(nn.Linear(net.num_features, 10), nn.BatchNorm1d(10))
        self.old = Ema(net)

    def loss(self, nets, batch, progress):
        student, twin = nets.forward(batch, self.views).labeled, nets.beside(self.twin).forward(batch, self.views)
        logits = (student.logits, twin.labeled.logits, self.own(student.features))
        charges = [cross_entropy(z, batch.labeled.y).mean() for z in logits]
        return Losses(sum(charges), charges[0] * 0)


def run(folder: Path | None = None, *, model: nn.Module | None = None, **changes: object) -> tuple[Beside, nn.Module]:
    method, model = Beside(), model or network(dropout=0.2)
    train(method, model, data(), replace(CONFIG, **changes), folder=folder, resume=True, quiet=True)
    return method, model


def test_each_part_has_its_group_and_rate() -> None:
    model, method = network(), Beside()
    method.attach(model)
    groups = make_optimizer(model, replace(CONFIG, lr=0.2, backbone_lr_scale=0.5), method).param_groups
    assert {g["name"]: (g["peak"], g["weight_decay"]) for g in groups} == {
        "backbone": (0.1, 5e-4), "backbone, no decay": (0.1, 0), "head": (0.2, 5e-4), "head, no decay": (0.2, 0),
        "method, backbone": (0.1, 5e-4), "method, backbone, no decay": (0.1, 0),
        "method, head": (0.2, 5e-4), "method, head, no decay": (0.2, 0),
        "method": (0.2, 5e-4), "method, no decay": (0.2, 0),
    }  # fmt: skip
    theirs = {id(one) for group in groups if group["name"] in ("method", "method, no decay") for one in group["params"]}
    assert theirs == {id(one) for one in method.own.parameters()}


def test_a_step_trains_them_and_nothing_else() -> None:
    torch.manual_seed(0)
    student = network(dropout=0.2)
    before = deepcopy(student.state_dict())
    method, _ = run(model=student, steps=2)
    again, _ = run(steps=2)
    for key, value in method.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    for key, value in method.old.module.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not torch.equal(method.twin.state_dict()["head.weight"], before["head.weight"])
    for key, value in method.twin.named_parameters():
        assert not torch.equal(value, before[key]), key
    assert (method.own[1].running_mean != 0).all()


def test_another_seed_makes_others() -> None:
    heads = []
    for seed in (0, 1):
        method = Beside()
        train(method, network(), data(), replace(CONFIG, steps=1, lr=0.0), seed=seed, quiet=True)
        heads.append(method.own[0].weight)
    assert not torch.equal(*heads)


def test_gradients_are_clipped_together() -> None:
    """The norm is that of all: with plain SGD a step of rate 1 is as long as the clip."""
    student = network()
    method, before = Beside(), deepcopy(student)
    changes = {"steps": 1, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0, "clip": 1e-2}
    start = {}
    attach = method.attach

    def remember(net):
        attach(net)
        start.update({key: value.detach().clone() for key, value in method.named_parameters()})

    method.attach = remember  # type: ignore[method-assign]
    train(method, student, data(), replace(CONFIG, **changes), quiet=True)
    moves = [a - b for a, b in zip(student.parameters(), before.parameters(), strict=True)]
    moves += [value - start[key] for key, value in method.named_parameters()]
    norm = torch.cat([move.flatten() for move in moves]).norm()
    torch.testing.assert_close(norm, torch.tensor(1e-2), rtol=1e-3, atol=0)


def test_stopped_and_continued_they_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    run(tmp_path / "whole", clip=0.5)

    def terminate(self: object, step: int) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("sfumato.train.Reporter.step", terminate)
    with pytest.raises(Interrupted):
        run(tmp_path / "again", clip=0.5)
    monkeypatch.undo()
    run(tmp_path / "again", clip=0.5)
    assert_same_run(tmp_path / "whole", tmp_path / "again")
    kept = checkpoint.load(checkpoint.latest(tmp_path / "again" / "checkpoints").path).tensors  # type: ignore[arg-type]
    assert kept["method"].keys() == run(steps=1)[0].state_dict().keys()
    assert kept["model"].keys() == kept["best"].keys() == network().state_dict().keys()


def on_a_rank() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Each rank begins with weights of its own, which those of the first replace."""
    rank = str(distributed.rank())
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in known.items():
            patch.setenv(key, value)
        AcceleratorState._reset_state(reset_partial_state=True)
        student = network(seed=distributed.rank())
        method, _ = run(model=student, steps=3)
        AcceleratorState._reset_state(reset_partial_state=True)
    return method.state_dict(), student.state_dict()


def test_ranks_agree_on_weights_and_batch_statistics(two_ranks) -> None:
    (one, student), (two, other) = two_ranks.call(on_a_rank)
    for mine, theirs in ((one, two), (student, other)):
        for key, value in mine.items():
            assert torch.equal(value, theirs[key]), key
