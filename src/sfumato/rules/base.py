"""What a rule is: `observe` learns from a batch and returns nothing, calling it reads and never changes anything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.types import Batch, Context, HeldOut, Networks, Output, Pseudo, Target, Unlabeled, Views

Made = TypeVar("Made", bound=nn.Module)


class Rule(nn.Module, ABC):
    """All memory is in buffers, so `state_dict` saves it and `.to` moves it."""

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        """Learn from the teacher's probabilities p (N, C, *S) where valid (N, *S). A rule without memory does nothing.

        Called once a step, before the rule is read.
        """

    def attach(self, net: nn.Module) -> None:
        """Make the modules that are trained beside the student `net`, once; see `Method.attach`. Most have none."""

    def calibrate(self, held_out: HeldOut) -> None:
        """Learn from validation predictions, those of the network that `deployed` gives. Most learn nothing."""

    def deployed(self, net: nn.Module) -> nn.Module:
        """What is evaluated and kept in the place of `net`: by default `net` itself, and otherwise a changed copy.

        `net` is the average of the weights where there is one.
        """
        return net

    def deployed_student(self, net: nn.Module) -> nn.Module:
        """The same for the weights themselves, `net`, beside an average of them: differs where the rule has both."""
        return self.deployed(net)


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


class Charge(Rule):
    """A divergence with a memory or with weights: what predictions are charged for missing their targets."""

    @abstractmethod
    def forward(self, logits: Tensor, target: Target) -> Tensor:
        """(N, C, *S) logits -> (N, *S), unreduced, with gradient to the logits only."""


class Extra(Rule):
    """A further loss beside the divergence, under a name of its own; the log counts it with the unlabelled loss."""

    name: str
    labels_only: ClassVar[bool] = False  # it takes part in steps without unlabeled images too, the warm start's

    @abstractmethod
    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        """The loss, a scalar with gradient, already weighted.

        `pseudo` is before the warp; there is none, nor are there unlabeled views, where the method uses labels only
        and, for an extra with `labels_only`, in the warm start.
        """


def pseudo_labeled(batch: Batch, pseudo: Pseudo | None, owner: str) -> tuple[Unlabeled, Pseudo]:
    """The unlabeled images of a step and their pseudo-labels, for a loss `owner` that cannot do without.

    Raises:
        UsageError: there are none.
    """
    if batch.unlabeled is None or pseudo is None:
        raise UsageError(f"{owner} needs pseudo-labels, and the method makes none: it uses labels only.")
    return batch.unlabeled, pseudo


def shifted(net: nn.Module, offset: Tensor) -> nn.Module:
    """A copy of `net` whose logits are moved by `offset` (C,): the bias of its last layer is.

    Raises:
        UsageError: a network that does not give its last layer, `output_layer`, or one without a bias.
    """
    layer = _output_layer(net)
    if layer.bias is None:
        raise UsageError(f"The last layer of {type(net).__name__} has no bias, and its logits are to be moved by one.")
    copy = deepcopy(net)
    moved = _output_layer(copy)
    moved.bias = nn.Parameter(layer.bias.detach() + offset.to(layer.bias))
    return copy


def with_output(net: nn.Module, layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """A copy of `net` with the weights and the bias of `layer`, one of the same shape, in its last layer.

    Raises:
        UsageError: a network that does not give its last layer, `output_layer`.
    """
    copy = deepcopy(net)
    _output_layer(copy).load_state_dict(layer.state_dict())
    return copy


def _output_layer(net: nn.Module) -> nn.Linear | nn.Conv2d:
    layer = getattr(net, "output_layer", None)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise UsageError(
            f"The method changes the last layer of the network that is kept, which {type(net).__name__} does not name. "
            "Use a network of build_model or build_segmenter, or give yours a property `output_layer`: the linear "
            "layer or 1x1 convolution whose output are the logits."
        )
    return layer


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
