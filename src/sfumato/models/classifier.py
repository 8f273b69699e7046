from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.models.feature_dropout import FeatureDropout, perturbed
from sfumato.models.groups import parameter_groups
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
    def output_layer(self) -> nn.Linear:
        """The layer whose output are the logits."""
        return self.head

    @property
    def num_classes(self) -> int:
        return self.head.out_features

    @property
    def tap_channels(self) -> tuple[int, ...]:
        """Channels of the features that `FeatureDropout` acts on: those of the head."""
        return (self.num_features,)

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """What is not the backbone, and new however the backbone was pretrained."""
        return (self.head,)

    def forward(self, x: Tensor, perturb: FeatureDropout | None = None) -> Output:
        """Images (N, channels, H, W), normalised, to logits (N, C) and features (N, D), the latter before dropout.

        With a `perturb` that takes K images again, the first axis of both is N + K long.
        """
        features: Tensor = self.backbone(x)
        if perturb is not None:
            (features,) = perturbed((features,), (0,), perturb)
        return Output(self.head(self.dropout(features)), features)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def parameter_groups(
        self, *, lr: float, weight_decay: float, backbone_lr_scale: float = 1.0, layer_decay: float = 1.0
    ) -> list[dict[str, object]]:
        """Groups for a torch optimizer; see `models.groups`.

        layer_decay: each layer of the backbone learns at that share of the rate of the layer above. UsageError unless
        the net is one of timm, which says what its layers are, and not frozen.
        """
        scales = None
        if layer_decay != 1.0:
            if self.frozen:
                raise UsageError(f"layer_decay={layer_decay} is for the layers of the backbone, but it is frozen.")
            from sfumato.models.timm_model import layer_scales  # which imports this file

            scales = layer_scales(self.backbone, layer_decay)
        return parameter_groups(
            backbone=None if self.frozen else self.backbone.named_parameters(),
            head=self.head.named_parameters(),
            undecayed=self.undecayed,
            lr=lr,
            weight_decay=weight_decay,
            backbone_lr_scale=backbone_lr_scale,
            scales=scales,
        )
