"""A method on a task, and what the laws of methods are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.forward import Layout, Nets
from sfumato.methods import METHODS, Entry, Facts, Method, build
from sfumato.rules import Rule
from sfumato.teacher import Ema
from sfumato.types import Batch, Losses, Output, Progress, Sparse, Views, ViewSpec
from tests.methods.problems import LABELED, SAMPLES, Echo, Task, logits_batch

CLASSES = 5


STEPS = 8


@dataclass(frozen=True)
class Case:
    """A method, and the task to try it on."""

    name: str
    make: Callable[[Facts, Mapping[str, object]], Method]
    task: Task
    builder: Callable[..., Method] | None = None  # whose keyword-only parameters are the options

    def method(
        self, classes: int = CLASSES, *, beside: nn.Module | None = None, even: bool = False, **options: object
    ) -> Method:
        """Ready to train a student such as `beside`, with modules of its own that are the same at each call."""
        method = self.make(facts_of(self.task, classes, even=even), options)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            method.attach(beside or Echo(classes=classes))
        return method

    def batches(self, count: int, method: Method, **about: Any) -> list[Batch]:
        return [logits_batch(self.task, method.views, seed=seed, **about) for seed in range(count)]


def facts_of(task: Task, classes: int = CLASSES, *, even: bool = False) -> Facts:
    """A long tail of labels, of which the first class has most, or as many of each."""
    counts = tuple(40 if even else max(1, 40 // (1 + c)) for c in range(classes))
    return Facts(classes, SAMPLES, task.dense, num_labeled=LABELED, label_counts=counts)


def allowed(entry: Entry, task: Task) -> bool:
    return not (entry.classes_only if task.dense else entry.dense_only)


def registered(name: str, task: Task) -> Case:
    """An entry of the table of methods."""
    return Case(name, lambda facts, options: build(name, facts, options), task, METHODS[name].build)


def learns_from_held_out(method: Method) -> bool:
    rules = [module for module in method.modules() if isinstance(module, Rule)]
    return type(method).calibrate is not Method.calibrate or any(
        type(rule).calibrate is not Rule.calibrate for rule in rules
    )


def nets_of(student: nn.Module | None = None, *, layout: Layout = "split") -> Nets:
    student = student or Echo()
    return Nets(student, Ema(student, momentum=0.5), layout)


def makes_images(case: Case) -> bool:
    """Whether a step sends images of its own making through the student."""
    method, sent = case.method(), []

    class Watched(Nets):
        def further(self, x: Tensor, *, statistics: bool = True, dropout: bool = True) -> Output:
            sent.append(len(x))
            return super().further(x, statistics=statistics, dropout=dropout)

    steps(method, case.batches(3, method), Watched(Echo(), Ema(Echo(), momentum=0.5)))
    return bool(sent)


def rounding(case: Case) -> float:
    """How far the gradients of two ranks may be from those of one.

    VAT's direction is a difference over a small step: rounding, which hangs on the size of a batch, is seen in it.
    """
    return 1e-4 if makes_images(case) else 1e-5


def mixes_labels(case: Case) -> bool:
    """Whether the labeled loss is of mixed images: the labeled ones do not go through the student as they are."""
    method = case.method()
    (batch,), sent = case.batches(1, method), []

    class Watched(Nets):
        def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views:
            sent.append(batch.labeled.x)
            return super().forward(batch, spec, weak)

    steps(method, [batch], Watched(Echo(), Ema(Echo(), momentum=0.5)))
    return all(x is not batch.labeled.x for x in sent)


def steps(method: Method, batches: list[Batch], nets: Nets | None = None, *, start: int = 0) -> list[Losses]:
    """Steps of the middle of a training, one for each batch."""
    nets = nets or nets_of()
    return [method.loss(nets, batch, Progress(start + k, STEPS)) for k, batch in enumerate(batches, 1)]


def state(method: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in method.state_dict().items()}


def assert_same(got: Mapping[str, Tensor], want: Mapping[str, Tensor], tolerance: float = 0.0) -> None:
    assert got.keys() == want.keys(), f"{sorted(got)} is not {sorted(want)}"
    for key, value in got.items():
        torch.testing.assert_close(
            value, want[key], rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, k=key: f"{k}: {m}"
        )


def values(losses: Losses) -> dict[str, Tensor]:
    """All that a step returned, without its graph; pseudo-labels apart."""
    parts = {"supervised": losses.supervised, "unsupervised": losses.unsupervised, **losses.extras}
    return {key: value.detach().clone() for key, value in parts.items()}


def pseudo_of(losses: Losses) -> dict[str, Tensor]:
    if losses.pseudo is None:
        return {}
    target = losses.pseudo.target
    parts = {"labels": target.labels, "share": target.share} if isinstance(target, Sparse) else {"target": target}
    return {**parts, "weight": losses.pseudo.weight, "valid": losses.pseudo.valid}


def trained(method: nn.Module, nets: Nets) -> dict[str, nn.Parameter]:
    """All that one optimizer trains: the student, and what the method has beside it."""
    own = {f"method.{name}": one for name, one in method.named_parameters() if one.requires_grad}
    return {**dict(nets.student.named_parameters()), **own}


def assert_finite(method: Method, nets: Nets, losses: Losses) -> None:
    for key, value in {**values(losses), **pseudo_of(losses), **state(method)}.items():
        assert value.isfinite().all(), f"{key} is not finite: {value}"
    parameters = trained(method, nets)
    for parameter in parameters.values():
        parameter.grad = None
    losses.total.backward()
    for name, parameter in parameters.items():
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
