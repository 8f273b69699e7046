"""Laws of what is learned from held-out labels, and of what is deployed."""

from __future__ import annotations

import io

import torch

from sfumato.types import HeldOut, Progress
from tests.methods.cases import (
    CLASSES,
    STEPS,
    Case,
    assert_finite,
    assert_same,
    learns_from_held_out,
    nets_of,
    pseudo_of,
    state,
    steps,
    values,
)
from tests.methods.problems import Tiny, image_batch


def _held_out(case: Case, *, seed: int = 0, samples: int = 60, classes: int = CLASSES) -> HeldOut:
    """Predictions that know something, with the last class absent and some entries void."""
    draw = torch.Generator().manual_seed(seed)
    shape = (samples, *case.task.space)
    y = torch.randint(classes - 1, shape, generator=draw)
    logits = torch.randn((samples, classes, *case.task.space), generator=draw)
    logits = logits.scatter_add_(1, y.unsqueeze(1), torch.full(y.unsqueeze(1).shape, 1.5))
    valid = (torch.rand(shape, generator=draw) < 0.8).float()
    return HeldOut(logits, y.masked_fill(valid == 0, 255) if case.task.dense else y, valid)


def held_out_labels_are_survived(case: Case) -> str | None:
    method, nets = case.method(), nets_of()
    if not learns_from_held_out(method):
        return "learns nothing from held-out labels"
    batches = case.batches(3, method)
    few, none = _held_out(case, samples=1), _held_out(case, samples=3)
    none = HeldOut(none.logits, none.y, torch.zeros_like(none.valid))
    for k, (held_out, batch) in enumerate(zip((_held_out(case), few, none), batches, strict=True)):
        method.calibrate(held_out)
        assert_finite(method, nets, method.loss(nets, batch, Progress(k, STEPS)))
    return None


def what_held_out_labels_taught_is_resumed(case: Case) -> str | None:
    whole, resumed = case.method(), case.method()
    if not learns_from_held_out(whole):
        return "learns nothing from held-out labels"
    batches = case.batches(4, whole)
    steps(whole, batches[:2])
    before = state(whole)
    whole.calibrate(_held_out(case))
    assert any(not torch.equal(value, before[key]) for key, value in state(whole).items()), "nothing was learned"
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for method in (whole, resumed):
        method.calibrate(_held_out(case, seed=1))
    for a, b in zip(steps(resumed, batches[2:], start=2), steps(whole, batches[2:], start=2), strict=True):
        assert_same({**values(a), **pseudo_of(a)}, {**values(b), **pseudo_of(b)})
    assert_same(state(resumed), state(whole))
    return None


def what_is_deployed_is_a_copy_or_the_network_itself(case: Case) -> None:
    net = Tiny(3, dense=case.task.dense)
    method, nets = case.method(3, beside=net), nets_of(net)
    for k in range(2):
        method.loss(nets, image_batch(case.task, method.views, seed=k), Progress(k, STEPS))
    if learns_from_held_out(method):
        method.calibrate(_held_out(case, classes=3))
    before, memory = state(net), state(method)
    deployed = method.deployed(net)
    assert deployed.state_dict().keys() == before.keys(), "its weights could not be loaded into the network"
    x = image_batch(case.task, method.views).labeled.x
    with torch.no_grad():
        out = deployed(x)
    assert out.logits.isfinite().all()
    assert out.logits.shape == net(x).logits.shape
    if deployed is not net:
        with torch.no_grad():
            for parameter in deployed.parameters():
                parameter.add_(1.0)
    assert_same(state(net), before)
    assert_same(state(method), memory)
