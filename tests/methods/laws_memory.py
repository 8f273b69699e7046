"""Laws of memory: where it is, what moves it, and at which precision."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import torch
from torch import Tensor

from sfumato.methods.base import Method
from sfumato.types import HeldOut
from tests.methods.cases import (
    CLASSES,
    Case,
    assert_same,
    learns_from_held_out,
    makes_images,
    mixes_labels,
    nets_of,
    pseudo_of,
    state,
    steps,
    values,
)
from tests.methods.problems import (
    Echo,
    Tiny,
    on_images,
    rows,
)


def shuffling_samples_shuffles_pseudo_labels(case: Case) -> None:
    plain, shuffled = case.method(), case.method()
    for k, batch in enumerate(case.batches(3, plain)):
        draw = torch.Generator().manual_seed(k)
        marked, rest = (torch.randperm(len(i), generator=draw) for i in (batch.labeled.y, batch.unlabeled.index))
        (want,), (got,) = steps(plain, [batch], start=k), steps(shuffled, [rows(batch, marked, rest)], start=k)
        assert_same(pseudo_of(got), {key: value[rest] for key, value in pseudo_of(want).items()}, 1e-6)
        assert_same(values(got), values(want), 1e-5)
    assert_same(state(shuffled), state(plain), 1e-6)


def stopping_and_resuming_is_not_seen(case: Case) -> None:
    whole, first, resumed = (case.method() for _ in range(3))
    batches = case.batches(6, whole)
    want = steps(whole, batches)
    steps(first, batches[:3])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    got = steps(resumed, batches[3:], start=3)
    for a, b in zip(got, want[3:], strict=True):
        assert_same({**values(a), **pseudo_of(a)}, {**values(b), **pseudo_of(b)})
    assert_same(state(resumed), state(whole))


def a_copy_is_independent(case: Case) -> None:
    method, witness = case.method(), case.method()
    batches = case.batches(4, method)
    steps(method, batches[:2])
    steps(witness, batches[:2])
    twin, before = copy.deepcopy(method), state(method)
    got = steps(twin, batches[2:], start=2)
    assert_same(state(method), before)
    want = steps(witness, batches[2:], start=2)
    assert_same(state(twin), state(witness))
    assert_same(values(got[-1]), values(want[-1]))


def what_a_method_attaches_is_its_own(case: Case) -> None:
    for student in (Echo(), Tiny(CLASSES, dense=case.task.dense)):
        before, modes = state(student), [(one.requires_grad, one.grad) for one in student.parameters()]
        method, again = case.method(beside=student), case.method(beside=student)
        assert_same(state(student), before)
        assert [(one.requires_grad, one.grad) for one in student.parameters()] == modes
        kept = {one.data_ptr() for one in student.parameters()}
        for name, parameter in method.named_parameters():
            assert parameter.data_ptr() not in kept, f"{name} is the student's"
        assert_same(state(method), state(again))
        for own, other in zip(method.parameters(), again.parameters(), strict=True):
            assert own is not other


def half_precision_changes_no_decision(case: Case) -> None:
    """Statistics and decisions are made in float32 from whatever logits the network gives.

    Modules of the method's own are networks too, and images of its own making go through one: what they add to the loss
    is of half precision.
    """
    networks = [*case.method().parameters()] or makes_images(case)
    for dtype in (torch.float16, torch.bfloat16):
        half, full = case.method(beside=Echo(dtype)), case.method()
        kinds = {key: value.dtype for key, value in state(half).items()}
        batches = [on_images(batch, lambda x, d=dtype: x.to(d).float()) for batch in case.batches(3, half)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = steps(half, batches, nets_of(Echo(dtype)))
        want = steps(full, batches)
        assert {key: value.dtype for key, value in state(half).items()} == kinds
        assert_same(state(half), state(full), 1e-6)
        for a, b in zip(got, want, strict=True):
            assert_same(pseudo_of(a), pseudo_of(b), 1e-6)
            assert_same(values(a), values(b), 2e-2 if networks else 1e-4)


def double_precision_reaches_everything(case: Case) -> None:
    method, single = case.method().double(), case.method()
    batches = case.batches(2, method)
    got = steps(method, [on_images(batch, Tensor.double) for batch in batches], nets_of(Echo().double()))[-1]
    assert got.total.dtype == torch.float64
    assert all(value.dtype == torch.float64 for value in state(method).values() if value.is_floating_point())
    assert_same({k: v.float() for k, v in values(got).items()}, values(steps(single, batches)[-1]), 1e-4)


def evaluating_changes_nothing(case: Case) -> None:
    method, nets = case.method(), nets_of()
    batches = case.batches(2, method)
    steps(method, batches[:1], nets)
    before, weights, dice = state(method), state(nets.evaluation), torch.get_rng_state()
    with torch.no_grad():
        out = nets.evaluation(batches[0].labeled.x)
    if not learns_from_held_out(method):
        method.calibrate(HeldOut(out.logits, batches[0].labeled.y, batches[0].labeled.valid))
    assert_same(state(method), before)
    steps(method, batches[1:], nets)
    assert_same(state(nets.evaluation), weights)
    assert torch.equal(torch.get_rng_state(), dice), "a step drew from the global random generator"


def without_unlabeled_images_only_labels_count(case: Case) -> None:
    method = case.method()
    batches = case.batches(2, method)
    if not method.views.weak:  # nor with them
        other = case.method()
        with_them, without = steps(method, batches), steps(other, [replace(batch, unlabeled=None) for batch in batches])
        assert_same(values(without[-1]), values(with_them[-1]))
        assert_same(state(other), state(method))
        return
    steps(method, batches[:1])
    before = _but_for_labels_only(method)
    (warm,) = steps(method, [replace(batches[1], unlabeled=None)])
    assert warm.unsupervised.item() == 0
    for extra in method.extras:
        assert (extra.name in warm.extras) == extra.labels_only, f"{extra.name} in a step with labels only"
    assert len(warm.extras) <= len([*method.extras])
    assert_same(_but_for_labels_only(method), before)
    (full,) = steps(method, batches[1:])
    if method.views.stored:  # one mean over labels and pseudo-labels, of which the labels are a part
        assert 0 < full.supervised < warm.supervised
    elif mixes_labels(case):
        assert full.supervised > 0
    else:
        torch.testing.assert_close(warm.supervised, full.supervised)
    warm.total.backward()


def _but_for_labels_only(method: Method) -> dict[str, Tensor]:
    """The state apart from that of further losses that labels alone move."""
    theirs = tuple(f"extras.{place}." for place, extra in enumerate(method.extras) if extra.labels_only)
    return {key: value for key, value in state(method).items() if not key.startswith(theirs)}
