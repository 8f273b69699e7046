"""Add-ons: what changes a choice of a method, whichever method it is. One file a paper, and this table.

An add-on is a function that puts rules into the slots of a method that is built: `seval(method, num_classes, ...)`.
Its keyword-only parameters are its options, the positional ones after the method are facts of the problem. The rules
bring their memory, what they learn from held-out labels and what is deployed along with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

from sfumato.addons.abc import abc
from sfumato.addons.acr import acr
from sfumato.addons.adsh import adsh
from sfumato.addons.calibratemix import calibratemix
from sfumato.addons.cossl import cossl
from sfumato.addons.crest import crest, crest_plus
from sfumato.addons.darp import darp
from sfumato.addons.daso import daso
from sfumato.addons.debiaspl import debiaspl
from sfumato.addons.distribution_alignment import distribution_alignment
from sfumato.addons.label_smoothing import label_smoothing
from sfumato.addons.logit_adjustment import logit_adjustment
from sfumato.addons.random_mixup import random_mixup
from sfumato.addons.saw import saw
from sfumato.addons.seval import seval
from sfumato.errors import UsageError, nearest
from sfumato.methods import METHODS, Facts, Method, build
from sfumato.methods.base import Slot
from sfumato.methods.building import checked, options_of
from sfumato.methods.choices import Readings

__all__ = [
    "ADDONS",
    "Description",
    "Entry",
    "addons_for",
    "describe",
    "entry",
    "fits",
    "join",
    "methods_for",
    "options",
]

CHANGES: Mapping[Slot, str] = {
    "charge": "the loss of labels",
    "extras": "further losses",
    "refine": "the correction of predictions",
    "weigh": "the weight of pseudo-labels",
    "target": "the target of pseudo-labels",
    "divergence": "the loss of pseudo-labels",
}


@dataclass(frozen=True, slots=True)
class Entry(Readings):
    """One line of the table. Options and defaults are the function's keyword-only parameters."""

    build: Callable[..., None]
    paper: str
    equations: str
    fills: frozenset[Slot]  # which choices of a method it changes
    generations: bool = False  # it also has the method trained again and again, on a labeled set that grows

    @property
    def changes(self) -> str:
        """The same in words."""
        changes = [CHANGES[slot] for slot in get_args(Slot) if slot in self.fills]
        return ", ".join([*changes, *(["the labeled set"] if self.generations else [])])


ADDONS: Mapping[str, Entry] = {
    "abc": Entry(abc, "Lee et al. 2021, ABC", "section 3, soft targets", frozenset({"extras"}), usb={"target": "hard"}),
    "acr": Entry(acr, "Wei and Gan 2023, ACR", "as released", frozenset({"extras", "target", "weigh"})),
    "adsh": Entry(adsh, "Guo and Li 2022, Adsh", "on-line", frozenset({"weigh"})),
    "calibratemix": Entry(
        calibratemix,
        "CalibrateMix (seed paper)",
        "eq. 4-5, guided mixing",
        frozenset({"extras"}),
        printed={"apm_decay": "eq5"},
        released={
            "share": "beta_group",
            "similarity": "pixel",
            "count": 15,
            "mix_loss": "bce_released",
            "apm_decay": "eq5",
            "apm_in_warmup": False,
            "double_base_released": True,
        },
    ),
    "cossl": Entry(cossl, "Fan et al. 2022, CoSSL", "section 3, on-line", frozenset({"extras", "refine"})),
    "crest": Entry(
        crest, "Wei et al. 2021, CReST", "section 3.2", frozenset(), generations=True, released={"rates": "official"}
    ),
    "crest_plus": Entry(
        crest_plus,
        "Wei et al. 2021, CReST+",
        "section 3.3",
        frozenset({"refine"}),
        generations=True,
        released={"rates": "official"},
    ),
    "darp": Entry(darp, "Kim et al. 2020, DARP", "algorithm 1, solved exactly", frozenset({"target"})),
    "daso": Entry(daso, "Oh et al. 2022, DASO", "section 3", frozenset({"extras", "target"})),
    "debiaspl": Entry(debiaspl, "Wang et al. 2022, DebiasPL", "without CLD", frozenset({"divergence", "refine"})),
    "distribution_alignment": Entry(
        distribution_alignment,
        "Berthelot et al. 2020, ReMixMatch",
        "section 3.1",
        frozenset({"refine"}),
        printed={"window": 128},
    ),
    "label_smoothing": Entry(label_smoothing, "Szegedy et al. 2016", "section 7, s / (C - 1)", frozenset({"charge"})),
    "logit_adjustment": Entry(logit_adjustment, "Menon et al. 2021", "eq. 9-10", frozenset({"charge"})),
    "random_mixup": Entry(
        random_mixup,
        "Zhang et al. 2018, mixup",
        "eq. 1, on pseudo-labels",
        frozenset({"extras"}),
        released={"share": "beta_group", "mix_loss": "bce_released"},
    ),
    "saw": Entry(saw, "Lai et al. 2022, SAW", "on-line", frozenset({"charge", "divergence"})),
    "seval": Entry(
        seval,
        "Li et al. 2024, SEVAL",
        "refinement and thresholds",
        frozenset({"refine", "weigh"}),
        printed={"val": "split_estimate", "ridge": 0.0, "tau_rule": "argmin_gap"},
        released={
            "decay": 0.999,
            "tau_rule": "official_nm",
            "pi_solver": "nelder_mead_official",
            "ema_space": "arithmetic_official",
            "rare_rule": "official_min",
        },
    ),
}


def entry(name: str) -> Entry:
    """Raises UsageError with the nearest name when there is no such add-on."""
    if name not in ADDONS:
        raise UsageError(f"add-on '{name}' is unknown.{nearest(name, ADDONS)} `sfumato methods` lists them.")
    return ADDONS[name]


def options(name: str) -> dict[str, inspect.Parameter]:
    """The keyword options of an add-on, in order."""
    return options_of(entry(name).build)


def join(
    name: str, method: Method, facts: Facts, given: Mapping[str, object] | None = None, *, method_name: str = ""
) -> None:
    """Put the add-on `name` into `method`, with the options `given` in place of its defaults.

    method_name: what the method is called in an error.

    Raises:
        UsageError: an unknown add-on, unknown options or values of the wrong kind, a method that it does not fit.
    """
    line = entry(name)
    right = checked(name, line.build, given or {})
    missing = line.fills - method.slots
    if missing:
        what, owner = CHANGES[min(missing, key=get_args(Slot).index)], method_name or type(method).__name__
        if method.closed is not None:
            raise UsageError(
                f"addon={name} does not fit method={owner} as it is set: it changes {what}. {method.closed}"
            )
        fitting = f" It fits {', '.join(methods_for(name, dense=facts.dense))}." if method_name else ""
        why = f"it changes {what}, and {owner} has none of its own to change"
        if what == CHANGES["extras"]:  # which a method need not have: the add-on brings one
            why = f"it adds a loss, and {owner} takes none"
        raise UsageError(f"addon={name} does not fit method={owner}: {why}.{fitting}")
    line.build(method, **facts.named_by(line.build), **right)


def fits(name: str, method_name: str, *, dense: bool = False) -> str | None:
    """Why the add-on cannot be joined to the method by their defaults; None if it can."""
    facts = Facts(num_classes=2, num_unlabeled=2, dense=dense, num_labeled=2, label_counts=(1, 1))
    try:
        join(name, build(method_name, facts), facts)
    except UsageError as error:
        return str(error)
    return None


def addons_for(method_name: str, *, dense: bool = False) -> list[str]:
    """The add-ons that fit the method."""
    return [name for name in ADDONS if fits(name, method_name, dense=dense) is None]


def methods_for(name: str, *, dense: bool = False) -> list[str]:
    """The methods that the add-on can be joined to."""
    return [method for method in METHODS if fits(name, method, dense=dense) is None]


@dataclass(frozen=True, slots=True)
class Description:
    """What `sfumato methods show` prints and the documentation page holds."""

    name: str
    paper: str
    equations: str
    changes: str
    about: str  # the head of the add-on's file
    summary: str  # of the function, with its arguments
    defaults: dict[str, object]
    literal: dict[str, dict[str, object]]  # see `Readings`


def describe(name: str) -> Description:
    line = entry(name)
    builder = line.build.func if isinstance(line.build, partial) else line.build
    return Description(
        name=name,
        paper=line.paper,
        equations=line.equations,
        changes=line.changes,
        about=inspect.cleandoc(getattr(inspect.getmodule(builder), "__doc__", None) or ""),
        summary=inspect.getdoc(builder) or "",
        defaults={key: p.default for key, p in options(name).items()},
        literal=line.literal,
    )
