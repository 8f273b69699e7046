"""What a rule is: `observe` learns from a batch and returns nothing, calling it reads and never changes anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.types import Context, Output, Pseudo, Target, Unlabeled, Views

Made = TypeVar("Made", bound=nn.Module)


class Rule(nn.Module, ABC):
    """All memory is in buffers, so `state_dict` saves it and `.to` moves it."""

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        """Learn from the teacher's probabilities p (N, C, *S) where valid (N, *S). A rule without memory does nothing.

        Called once a step, before the rule is read.
        """


class Refiner(Rule):
    """Corrects probabilities."""

    @abstractmethod
    def forward(self, p: Tensor) -> Tensor:
        """(N, C, *S) -> (N, C, *S), still distributions over axis 1."""


class Weigher(Rule):
    """Says how much each pseudo-label counts; selecting is weighing with 0 and 1. Weighers multiply with `*`."""

    @abstractmethod
    def forward(self, p: Tensor) -> Tensor:
        """(N, C, *S) -> (N, *S), non-negative."""

    def __mul__(self, other: Weigher) -> Weigher:
        return Product(self, other)


class Product(Weigher):
    """Both weights multiplied; both rules observe."""

    def __init__(self, first: Weigher, second: Weigher) -> None:
        super().__init__()
        self.first, self.second = first, second

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.first.observe(p, valid, context)
        self.second.observe(p, valid, context)

    def forward(self, p: Tensor) -> Tensor:
        weight: Tensor = self.first(p) * self.second(p)
        return weight


class Targeter(Rule):
    """Turns probabilities into what the student is to predict."""

    @abstractmethod
    def forward(self, p: Tensor) -> Target:
        """(N, C, *S) -> labels (N, *S) int64, distributions (N, C, *S), or distributions over few classes."""


class Extra(Rule):
    """A further loss beside the divergence, under a name of its own; the log counts it with the unlabelled loss."""

    name: str

    def attach(self, net: nn.Module) -> None:
        """Make the modules that the loss trains beside the student `net`, once; see `Method.attach`. Most have none."""

    @abstractmethod
    def forward(self, views: Views, batch: Unlabeled, pseudo: Pseudo) -> Tensor:
        """The loss, a scalar with gradient, already weighted. `pseudo` is before the warp."""


def attached(module: Made | None, owner: str) -> Made:
    """What a rule's or method's `attach` has made; `owner` is its name for the error.

    Raises:
        UsageError: `attach` was not called.
    """
    if module is None:
        raise UsageError(
            f"{owner} has not made yet what it trains beside the student: call method.attach(net) before training, as "
            "`sfumato.train.train` does."
        )
    return module


def features_of(out: Output, like: Tensor, owner: str) -> Tensor:
    """The features (N, D, *S) of an output whose labels are such as `like`, (N, *S) of finer maps or (N,).

    Raises:
        UsageError: a network that gives none, or one row an image where labels are maps; in the name of `owner`.
    """
    if out.features is None:
        raise UsageError(f"{owner} needs a network that gives features beside its logits; this one has none.")
    if out.features.dim() != like.dim() + 1:
        raise UsageError(
            f"{owner} needs features (N, D, *S) with as many axes of space as the labels (N, *S): got "
            f"{tuple(out.features.shape)} for labels of shape {tuple(like.shape)}."
        )
    return out.features
