"""The methods: one file a paper, one line a method in the table below."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sfumato.errors import UsageError, nearest
from sfumato.methods.adamatch import adamatch
from sfumato.methods.augseg import augseg
from sfumato.methods.base import Method
from sfumato.methods.building import Facts, checked, options_of
from sfumato.methods.choices import Readings, choices, in_words
from sfumato.methods.comatch import comatch
from sfumato.methods.consistency import Consistency
from sfumato.methods.corrmatch import corrmatch
from sfumato.methods.cps import cps
from sfumato.methods.crmatch import crmatch
from sfumato.methods.csl import csl, csl_robust
from sfumato.methods.dash import dash
from sfumato.methods.defixmatch import defixmatch
from sfumato.methods.farcluss import farcluss
from sfumato.methods.fixmatch import fixmatch
from sfumato.methods.flexmatch import flexmatch
from sfumato.methods.freematch import freematch
from sfumato.methods.marginmatch import marginmatch
from sfumato.methods.mean_teacher import cutmix_seg, mean_teacher
from sfumato.methods.mixmatch import mixmatch
from sfumato.methods.noisy_student import noisy_student
from sfumato.methods.pi_model import pi_model
from sfumato.methods.pseudo_label import pseudo_label
from sfumato.methods.remixmatch import remixmatch
from sfumato.methods.self_training import self_training
from sfumato.methods.simmatch import simmatch
from sfumato.methods.softmatch import softmatch
from sfumato.methods.st import st, st_pp
from sfumato.methods.supervised import supervised, supervised_strong
from sfumato.methods.u2pl import u2pl
from sfumato.methods.uda import uda
from sfumato.methods.uncertainty_weighted import uncertainty_weighted, uncertainty_weighted_flat
from sfumato.methods.unimatch import unimatch
from sfumato.methods.unimatch_v2 import unimatch_v2
from sfumato.methods.vat import vat
from sfumato.types import Generations, Rounds, ViewSpec

__all__ = ["METHODS", "Consistency", "Entry", "Facts", "Method", "build", "describe", "options"]


@dataclass(frozen=True, slots=True)
class Entry(Readings):
    """One line of the table. Options and defaults are the builder's keyword-only parameters."""

    build: Callable[..., Method]
    paper: str
    equations: str
    dense_only: bool = False  # for maps of labels alone; the builder takes `dense` and says why when it is false
    classes_only: bool = False  # for one class per image alone; the builder takes `dense` and says why when it is true

    @property
    def trains(self) -> str:
        """What images, in words."""
        return "masks" if self.dense_only else "classes" if self.classes_only else "classes, masks"


_CSL_PRINTED: Mapping[str, object] = {
    "split": "absV",
    "features": "raw",
    "keep": "and",
    "polarity": "literal_eq13",
    "shares": (0.5, 0.5, 0.0),
}
_CSL_RELEASED: Mapping[str, object] = {
    "split": "absV",
    "features": "raw_winner_slot",
    "keep": "or",
    "polarity": "mask_reliable",
    "shares": (0.25, 0.25, 0.5),
}

METHODS: Mapping[str, Entry] = {
    "adamatch": Entry(
        adamatch,
        "Berthelot et al. 2021, AdaMatch",
        "section 3",
        usb={"interpolate": False, "labeled_strong": False, "ramp": 0.0},
    ),
    "augseg": Entry(augseg, "Zhao et al. 2023, AugSeg", "as released"),
    "comatch": Entry(comatch, "Li et al. 2021, CoMatch", "section 3", classes_only=True),
    "corrmatch": Entry(
        corrmatch, "Sun et al. 2023, CorrMatch", "section 3, as released", dense_only=True, released={"kl": "released"}
    ),
    "cps": Entry(cps, "Chen et al. 2021, CPS", "section 3, with CutMix"),
    "crmatch": Entry(crmatch, "Fan et al. 2021, CR-Match", "sections 3.2-3.3", classes_only=True),
    "csl": Entry(csl, "CSL (seed paper)", "eq. 7-15", printed=_CSL_PRINTED, released=_CSL_RELEASED),
    "csl_robust": Entry(
        csl_robust, "CSL, split by the principal component", "eq. 7-15", printed=_CSL_PRINTED, released=_CSL_RELEASED
    ),
    "cutmix_seg": Entry(cutmix_seg, "French et al. 2020, CutMix-Seg", "as released"),
    "dash": Entry(dash, "Xu et al. 2021, Dash", "section 3.2"),
    "defixmatch": Entry(defixmatch, "Schmutz et al. 2023, DeFixMatch", "section 3"),
    "farcluss": Entry(
        farcluss,
        "FARCLUSS (seed paper)",
        "eq. 2-11",
        printed={"rebalance": "literal", "rebalance_scope": "per_class", "proto_grad": "literal", "projection": 128},
    ),
    "fixmatch": Entry(fixmatch, "Sohn et al. 2020, FixMatch", "eq. 3-4", usb={"temperature": 1.0}),
    "flexmatch": Entry(flexmatch, "Zhang et al. 2021, FlexMatch", "eq. 5-8"),
    "freematch": Entry(freematch, "Wang et al. 2023, FreeMatch", "eq. 5-11"),
    "marginmatch": Entry(marginmatch, "Sosea and Caragea 2023, MarginMatch", "section 3", classes_only=True),
    "mean_teacher": Entry(
        mean_teacher,
        "Tarvainen and Valpola 2017, Mean Teacher",
        "section 2, with a linear ramp",
        printed={"rise": "exponential"},
    ),
    "mixmatch": Entry(mixmatch, "Berthelot et al. 2019, MixMatch", "algorithm 1, eq. 2-11", classes_only=True),
    "noisy_student": Entry(
        noisy_student, "Xie et al. 2020, Noisy Student", "algorithm 1", classes_only=True, printed={"mean": "each"}
    ),
    "pi_model": Entry(
        pi_model, "Laine and Aila 2017, Pi-model", "algorithm 1", printed={"gradient": "both"}, usb={"rise": "linear"}
    ),
    "pseudo_label": Entry(
        pseudo_label, "Lee 2013, Pseudo-Label", "eq. 15-16, with a threshold", printed={"threshold": 0.0}
    ),
    "remixmatch": Entry(
        remixmatch,
        "Berthelot et al. 2020, ReMixMatch",
        "algorithm 1",
        classes_only=True,
        printed={"strong_views": 8},
        usb={"labeled_view": "weak", "window": None},
    ),
    "self_training": Entry(self_training, "Yarowsky 1995", "as in scikit-learn", classes_only=True),
    "simmatch": Entry(simmatch, "Zheng et al. 2022, SimMatch", "section 3", classes_only=True),
    "softmatch": Entry(
        softmatch,
        "Chen et al. 2023, SoftMatch",
        "eq. 5-8",
        printed={"n_sigma": 1.0, "statistics": "raw"},
        released={"n_sigma": 2.0},
        usb={"statistics": "aligned"},
    ),
    "st": Entry(st, "Yang et al. 2022, ST", "algorithm 1", released={"first": "supervised"}),
    "st_pp": Entry(st_pp, "Yang et al. 2022, ST++", "algorithm 2", released={"first": "supervised"}),
    "supervised": Entry(supervised, "labels only, weak views", "cross-entropy"),
    "supervised_strong": Entry(supervised_strong, "labels only, weak and strong views", "cross-entropy"),
    "u2pl": Entry(
        u2pl,
        "Wang et al. 2022, U2PL",
        "section 3, L_u as released",
        printed={"anchors": "paper", "negatives": "paper", "normalize": "selected"},
        released={"anchors": "released", "negatives": "released", "normalize": "boosted"},
    ),
    "uda": Entry(
        uda,
        "Xie et al. 2020, UDA",
        "eq. 1, section 3.3",
        printed={"annealing_form": "paper"},
        usb={"annealing_form": "peer", "temperature": 1.0},
    ),
    "uncertainty_weighted": Entry(uncertainty_weighted, "Uncertainty-weighted SSL (seed paper)", "eq. 1-8"),
    "uncertainty_weighted_flat": Entry(uncertainty_weighted_flat, "Uncertainty-weighted SSL, w = 1", "eq. 1-6, 8"),
    "unimatch": Entry(unimatch, "Yang et al. 2023, UniMatch", "section 3, as released"),
    "unimatch_v2": Entry(unimatch_v2, "Yang et al. 2025, UniMatch V2", "section 3, as released"),
    "vat": Entry(
        vat,
        "Miyato et al. 2018, VAT",
        "eq. 5-12, with the entropy of section 3.6",
        printed={"ramp": 0.0},
        released={"xi": 1e-6},
    ),
}


def entry(name: str) -> Entry:
    """Raises UsageError with the nearest name when there is no such method."""
    if name not in METHODS:
        raise UsageError(f"method '{name}' is unknown.{nearest(name, METHODS)} `sfumato methods` lists them.")
    return METHODS[name]


def options(name: str) -> dict[str, inspect.Parameter]:
    """The keyword options of a method: its constructor's keyword-only parameters, in order."""
    return options_of(entry(name).build)


def build(name: str, facts: Facts, given: Mapping[str, object] | None = None) -> Method:
    """The method `name` for this problem, with the options `given` in place of its defaults.

    Raises:
        UsageError: an unknown method, unknown options or values of the wrong kind, all of them in one message.
    """
    builder = entry(name).build
    right = checked(name, builder, given or {})
    return builder(**facts.named_by(builder), **right)


@dataclass(frozen=True, slots=True)
class Description:
    """What `sfumato methods show` prints and the documentation page holds."""

    name: str
    paper: str
    equations: str
    dense_only: bool
    classes_only: bool
    about: str  # the head of the method's file: the paper, its formulas, what is chosen where they leave room
    summary: str  # of the constructor, with its arguments
    defaults: dict[str, object]
    views: ViewSpec
    rounds: Rounds | Generations | None
    choices: dict[str, str]  # what stands in its slots
    literal: dict[str, dict[str, object]]  # see `Readings`

    @property
    def trainings(self) -> str | None:
        """How many the method takes by default, in words; None for one."""
        if isinstance(self.rounds, Rounds):
            return f"{self.rounds.count} trainings, all but the first on labels that a network before has stored"
        if self.rounds is None:
            return None
        return f"up to {self.rounds.count} trainings, after each of which images join the labeled set"


def describe(name: str) -> Description:
    line = entry(name)
    builder = line.build.func if isinstance(line.build, partial) else line.build
    summary = inspect.getdoc(builder) or ""
    if isinstance(line.build, partial):
        fixed = ", ".join(f"{key}={value}" for key, value in line.build.keywords.items())
        summary = f"{in_words(builder)} with {fixed}; the text speaks of the defaults without these.\n\n{summary}"
    method = build(name, Facts(2, 1, line.dense_only, num_labeled=1, label_counts=(1, 1)))
    return Description(
        name=name,
        paper=line.paper,
        equations=line.equations,
        dense_only=line.dense_only,
        classes_only=line.classes_only,
        about=inspect.cleandoc(getattr(inspect.getmodule(builder), "__doc__", None) or ""),
        summary=summary,
        defaults={key: p.default for key, p in options(name).items()},
        views=method.views,
        rounds=method.rounds,
        choices=choices(method),
        literal=line.literal,
    )
