"""Builds every rule from its signature, in its default form and with each of its choices taken once."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

import sfumato.rules
from sfumato.functional.probability import probability
from sfumato.rules import (
    Bell,
    Charge,
    ClassOffset,
    DistributionAlignment,
    Extra,
    LossThreshold,
    NoRefinement,
    Prior,
    Refiner,
    Rule,
    SelfAdaptiveThreshold,
    Weigher,
)
from sfumato.running.curriculum import Curriculum, OffsetSearch, ThresholdSearch
from sfumato.types import Context, Progress

SAMPLES = 40
INSTANCES: dict[type, Callable[[int], Rule | Prior | Curriculum]] = {
    Prior: lambda num_classes: Prior(num_classes, source="predicted", momentum=0.9),
    Refiner: DistributionAlignment,
    Weigher: SelfAdaptiveThreshold,
    LossThreshold: lambda num_classes: LossThreshold(),
    Curriculum: lambda num_classes: Curriculum(num_classes, OffsetSearch(), ThresholdSearch()),
    ClassOffset: lambda num_classes: ClassOffset(Curriculum(num_classes, OffsetSearch(), ThresholdSearch())),
}
FACTS = {"num_unlabeled": SAMPLES, "prior": None}


def rules() -> list[type[Rule]]:
    """Every concrete rule that a module of `sfumato.rules` defines, but charges and extras: p is not all they ask."""
    found = []
    for module in pkgutil.iter_modules(sfumato.rules.__path__, "sfumato.rules."):
        for value in vars(importlib.import_module(module.name)).values():
            own = inspect.isclass(value) and issubclass(value, Rule) and value.__module__ == module.name
            if own and not (value is Rule or issubclass(value, Charge | Extra) or inspect.isabstract(value)):
                found.append(value)
    return sorted(found, key=lambda rule: rule.__name__)


def _choices(hint: Any, default: Any) -> list[Any]:
    """Values other than the default that the annotation lets one guess."""
    if hint is bool:
        return [not default]
    if get_origin(hint) is Literal:
        return [value for value in get_args(hint) if value != default]
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint) and default is None:
        (kind, *_) = (value for value in get_args(hint) if value is not NoneType)
        return {float: [0.8], int: [3]}.get(kind, [])
    return []


@dataclass(frozen=True)
class Variant:
    """One way to build one rule; `build(num_classes, space)` is a new one each time."""

    name: str
    rule: type[Rule]
    build: Callable[[int, tuple[int, ...]], Rule]


def _build(rule: type[Rule], given: dict[str, Any], num_classes: int, space: tuple[int, ...]) -> Rule:
    arguments = dict(given)
    hints = get_type_hints(rule.__init__)
    for name, parameter in inspect.signature(rule).parameters.items():
        if name == "num_classes":
            arguments[name] = num_classes
        elif name == "dense":
            arguments[name] = bool(space)
        elif parameter.default is inspect.Parameter.empty and name not in ("args", "kwargs"):
            kinds = [hints[name], *get_args(hints[name])]  # of several the first that there is one of
            known = next((kind for kind in kinds if kind in INSTANCES), None)
            if known is not None:
                arguments[name] = INSTANCES[known](num_classes)
            elif name in FACTS:
                arguments[name] = FACTS[name]
            else:
                raise AssertionError(f"{rule.__name__}({name}: {hints[name]}): tell tests/rules/factory.py how")
    # two rules in one are two different ones
    if {"first", "second"} <= arguments.keys():
        arguments["second"] = NoRefinement() if issubclass(rule, Refiner) else Bell()
    return rule(**arguments)


def variants() -> Iterator[Variant]:
    for rule in rules():
        yield Variant(rule.__name__, rule, partial(_build, rule, {}))
        if rule.__init__ is Rule.__init__:  # no parameters
            continue
        hints = get_type_hints(rule.__init__)
        for name, parameter in inspect.signature(rule).parameters.items():
            if name in ("dense", *FACTS) or parameter.default is inspect.Parameter.empty:
                continue
            for value in _choices(hints[name], parameter.default):
                yield Variant(f"{rule.__name__}({name}={value})", rule, partial(_build, rule, {name: value}))


@dataclass(frozen=True)
class Step:
    """What a rule is shown in one step."""

    p: Tensor
    valid: Tensor
    context: Context

    def part(self, k: int, of: int) -> Step:
        n, m = len(self.p) // of, len(self.context.labeled_y) // of
        rows, marked, c = slice(k * n, (k + 1) * n), slice(k * m, (k + 1) * m), self.context
        return Step(
            self.p[rows],
            self.valid[rows],
            Context(c.progress, c.index[rows], c.labeled_logits[marked], c.labeled_y[marked], c.labeled_valid[marked]),
        )


def steps(
    count: int, *, classes: int = 5, space: tuple[int, ...] = (), size: int = 12, void: float = 0.2, seed: int = 0
) -> list[Step]:
    """Steps in which some entries are ignored, labelled ones too: their label is then 255."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for k in range(count):
        p = probability(torch.randn((size, classes, *space), generator=draw) * 4)
        labeled = torch.randn((6, classes, *space), generator=draw) * 2
        valid, labeled_valid = ((torch.rand((n, *space), generator=draw) >= void).float() for n in (size, 6))
        y = torch.randint(classes, (6, *space), generator=draw)
        y[labeled_valid == 0] = 255
        index = torch.randperm(SAMPLES, generator=draw)[:size]
        out.append(Step(p, valid, Context(Progress(k, count), index, labeled, y, labeled_valid)))
    return out


def observe(rule: Rule, seen: list[Step]) -> Rule:
    for step in seen:
        rule.observe(step.p, step.valid, step.context)
    return rule
