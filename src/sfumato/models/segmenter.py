from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.models.classifier import Normalization
from sfumato.models.feature_dropout import FeatureDropout, perturbed
from sfumato.models.groups import parameter_groups
from sfumato.types import Output

Features = tuple[Tensor, ...]
"""What an encoder gives its decoder: maps (N, channels, h, w), and whatever else the two agreed on."""


class Encoder(nn.Module, ABC):
    """Images (N, channels, H, W) to features."""

    net: nn.Module  # what a file of pretrained weights is for
    channels: tuple[int, ...]  # of the maps at `taps`
    deepest: int  # image pixels to one of the coarsest map
    normalization: Normalization
    taps: tuple[int, ...]  # places in the features of the maps that the decoder takes
    multiple: int = 1  # the height and width of the images must be a multiple of it
    undecayed: frozenset[str] = frozenset()  # names of parameters in `net` that take no weight decay

    @abstractmethod
    def forward(self, x: Tensor) -> Features: ...


class Decoder(nn.Module, ABC):
    """Features to an embedding (N, num_features, h, w)."""

    num_features: int
    stride: float  # image pixels to one of the embedding

    @abstractmethod
    def forward(self, features: Features) -> Tensor: ...


class Segmenter(nn.Module):
    """An encoder, a decoder to one embedding per few pixels, and a classifier of the embedding.

    For images of any size: those of a size that the encoder cannot take are filled with zeros (grey, after
    normalization) to the right and below, and what lies there is cut off the output. A `frozen` encoder has parameters
    without gradient and stays in evaluation mode when the model trains, as in `Classifier`.
    """

    def __init__(
        self, encoder: Encoder, decoder: Decoder, classifier: nn.Conv2d, *, num_classes: int, frozen: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = classifier
        self.num_classes = num_classes
        self.normalization = encoder.normalization
        self.frozen = frozen
        if frozen:
            encoder.requires_grad_(False)
            encoder.eval()

    @property
    def num_features(self) -> int:
        return self.decoder.num_features

    @property
    def output_layer(self) -> nn.Conv2d:
        """The layer of the embedding whose output are the coarse logits."""
        return self.classifier

    @property
    def stride(self) -> float:
        """Image pixels to one of the embedding."""
        return self.decoder.stride

    @property
    def multiple(self) -> int:
        """What the height and width of images are filled up to a multiple of."""
        return self.encoder.multiple

    @property
    def tap_channels(self) -> tuple[int, ...]:
        """Channels of each map that `FeatureDropout` acts on."""
        return self.encoder.channels

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """What is not the encoder, and new however the encoder was pretrained."""
        return (self.decoder, self.classifier)

    def encode(self, x: Tensor) -> Features:
        """Normalized images (N, channels, H, W) to the maps that the decoder takes, of the filled images."""
        height, width = self._filled(x.shape[-2:])
        if (height, width) != tuple(x.shape[-2:]):
            x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        features: Features = self.encoder(x)
        return features

    def decode(self, features: Features) -> Tensor:
        """Features to the embedding (N, D, h, w) of the filled images."""
        embedding: Tensor = self.decoder(features)
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """The embedding to logits (N, C, h, w), as coarse as it is."""
        low: Tensor = self.classifier(embedding)
        return low

    def upsample(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Coarse logits to the height and width of the images, bilinear with corner on corner."""
        full = F.interpolate(low, self._filled(size), mode="bilinear", align_corners=True)
        return full[..., : size[0], : size[1]]

    def forward(self, x: Tensor, perturb: FeatureDropout | None = None) -> Output:
        """Normalized images (N, channels, H, W) to logits (N, C, H, W) and the embedding (N, D, h, w).

        With a `perturb` that decodes K images again, the first axis of both is N + K long.
        """
        size = (x.shape[-2], x.shape[-1])
        features = self.encode(x)
        if perturb is not None:
            features = perturbed(features, self.encoder.taps, perturb)
        embedding = self.decode(features)
        return Output(self.upsample(self.classify(embedding), size), self._inside(embedding, size))

    def check_crop(self, size: int | tuple[int, int]) -> None:
        """Raise UsageError when crops of `size`, height and width, leave the coarsest map with a single row or column.

        Nothing is left to tell one place from another there, and a batch of one has no statistics for a batch norm.
        """
        height, width = (size, size) if isinstance(size, int) else size
        smallest = 2 * self.encoder.deepest
        if min(height, width) < smallest:
            raise UsageError(
                f"The coarsest map of the encoder has one pixel to {self.encoder.deepest} of the image, too few for "
                f"crops of {height}x{width}. Use crops of at least {smallest}x{smallest}, an encoder of smaller stride "
                "(output_stride=16 or 8 where the encoder has it), or the model small_seg."
            )

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def parameter_groups(
        self, *, lr: float, weight_decay: float, backbone_lr_scale: float = 1.0
    ) -> list[dict[str, object]]:
        """Groups for a torch optimizer; see `models.groups`. The backbone is the encoder, the head all the rest."""
        return parameter_groups(
            backbone=None if self.frozen else self.encoder.named_parameters(),
            head=[named for part in self.heads for named in part.named_parameters()],
            undecayed=frozenset(f"net.{name}" for name in self.encoder.undecayed),
            lr=lr,
            weight_decay=weight_decay,
            backbone_lr_scale=backbone_lr_scale,
        )

    def _filled(self, size: tuple[int, ...]) -> tuple[int, int]:
        multiple = self.multiple
        return math.ceil(size[0] / multiple) * multiple, math.ceil(size[1] / multiple) * multiple

    def _inside(self, embedding: Tensor, size: tuple[int, int]) -> Tensor:
        """The part of the embedding of filled images that shows the images themselves."""
        filled = self._filled(size)
        if filled == size:
            return embedding
        height, width = embedding.shape[-2:]
        return embedding[..., : math.ceil(height * size[0] / filled[0]), : math.ceil(width * size[1] / filled[1])]
