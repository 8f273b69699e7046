from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.types import Output

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, on the scale 0..1 of the image."""


def halves(in_channels: int) -> Normalization:
    """The normalisation of every net without pretrained weights: 0..1 becomes -1..1."""
    return (0.5,) * in_channels, (0.5,) * in_channels


class Classifier(nn.Module):
    """A backbone, dropout and a linear head.

    `backbone` maps images (N, channels, H, W) to features (N, num_features). `normalization` holds the mean and
    standard deviation that the views must apply. A `frozen` backbone has parameters without gradient *and* stays in
    evaluation mode when the model trains: otherwise its batch norm would forget the statistics it was pretrained with.
    `undecayed` names parameters of the backbone that weight decay must leave alone although they have several axes (the
    position table of a transformer).
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Linear,
        *,
        normalization: Normalization,
        frozen: bool = False,
        dropout: float = 0.0,
        undecayed: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone  # before the head: the order of the state follows the order of use
        self.dropout = nn.Dropout(dropout)
        self.head = head
        self.normalization = normalization
        self.frozen = frozen
        self.undecayed = frozenset(undecayed)
        if frozen:
            backbone.requires_grad_(False)
            backbone.eval()

    @property
    def num_features(self) -> int:
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        return self.head.out_features

    def forward(self, x: Tensor) -> Output:
        """Images (N, channels, H, W), normalised, to logits (N, C) and features (N, D), the latter before dropout."""
        features = self.backbone(x)
        return Output(self.head(self.dropout(features)), features)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def parameter_groups(
        self, *, lr: float, weight_decay: float, backbone_lr_scale: float = 1.0
    ) -> list[dict[str, object]]:
        """Groups for a torch optimizer: backbone and head, each with and without weight decay.

        Parameters with one axis (norms, biases) are not decayed. The learning rate of the backbone is
        `lr * backbone_lr_scale`. A frozen backbone has no group; asking for a learning rate of its own is then a
        UsageError, as is a head or an unfrozen backbone with nothing to train.
        """
        if backbone_lr_scale <= 0:
            raise UsageError(
                f"backbone_lr_scale={backbone_lr_scale} must be above 0. To keep the backbone as is, use frozen=true."
            )
        if self.frozen and backbone_lr_scale != 1.0:
            raise UsageError(
                f"backbone_lr_scale={backbone_lr_scale} asks for a learning rate of the backbone, but the backbone is "
                "frozen. Use frozen=false to fine-tune it, or leave backbone_lr_scale at 1."
            )
        groups: list[dict[str, object]] = []
        parts: list[tuple[str, nn.Module, float]] = [("head", self.head, lr)]
        if not self.frozen:
            parts.insert(0, ("backbone", self.backbone, lr * backbone_lr_scale))
        for part, module, rate in parts:
            decayed, plain = _by_decay(module, self.undecayed if part == "backbone" else frozenset())
            if not decayed and not plain:
                raise UsageError(
                    f"The {part} has no parameter that takes a gradient, so there is nothing to train in it. "
                    "Build the model with frozen=true, or set requires_grad on the parameters to train."
                )
            if decayed:
                groups.append({"name": part, "params": decayed, "lr": rate, "weight_decay": weight_decay})
            if plain:
                groups.append({"name": f"{part}, no decay", "params": plain, "lr": rate, "weight_decay": 0.0})
        return groups


def _by_decay(module: nn.Module, undecayed: frozenset[str]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    plain = [parameter for name, parameter in trained if parameter.ndim <= 1 or name in undecayed]
    decayed = [parameter for name, parameter in trained if parameter.ndim > 1 and name not in undecayed]
    return decayed, plain
