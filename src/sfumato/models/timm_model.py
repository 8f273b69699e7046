"""Everything that knows timm. The import is inside the functions: it takes seconds, and most commands need no net."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.models.classifier import Normalization, halves


@dataclass(frozen=True, slots=True)
class Backbone:
    net: nn.Module  # (N, channels, H, W) to (N, num_features)
    num_features: int
    normalization: Normalization
    undecayed: frozenset[str]  # names of parameters in `net` that take no weight decay


class Padded(nn.Module):
    """Fills images with zeros (grey, after normalisation) to the right and below, up to the size that `net` takes."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net = net
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = self.net(F.pad(x, (0, self.size - x.shape[-1], 0, self.size - x.shape[-2])))
        return padded


def timm_names() -> list[str]:
    import timm

    return list(timm.list_models())


def is_timm_name(name: str) -> bool:
    """True for an architecture of timm, with or without the tag of its weights (`resnet18`, `resnet18.a1_in1k`)."""
    import timm

    return bool(timm.is_model(name))


def close_names(name: str, others: tuple[str, ...]) -> list[str]:
    """Up to three names of timm or of `others` that look like `name`."""
    return difflib.get_close_matches(name, [*others, *timm_names()], n=3, cutoff=0.6)


def timm_backbone(
    name: str, *, in_channels: int, image_size: int, pretrained: bool, options: dict[str, Any]
) -> Backbone:
    """A timm model without its head, for square images of `image_size` pixels.

    Models whose input size is fixed when they are built (ViT, Swin and their kin) are built for that size; when it is
    no multiple of the patch, for the next one, and images are padded. A net that cannot take the size is a UsageError,
    and so are weights that cannot be fetched.
    """
    from timm.models import get_pretrained_cfg

    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UsageError(f"Model '{name}': {error} Leave out what follows the dot to take the default.") from error
    fixed = bool(cfg is not None and cfg.fixed_input_size)
    size = image_size
    net = create(name, in_channels, pretrained, options, size=size if fixed else None)
    patch = _patch(net)
    if fixed and size % patch:
        size += patch - size % patch
        net = Padded(create(name, in_channels, pretrained, options, size=size), size)
    num_features = _probe(name, net, in_channels, image_size)
    return Backbone(net, num_features, timm_normalization(name, in_channels, pretrained), _undecayed(net))


def timm_normalization(name: str, in_channels: int, pretrained: bool) -> Normalization:
    """That of the pretrained weights, if they are taken."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name) if pretrained else None
    if cfg is None:
        return halves(in_channels)
    return fit(tuple(cfg.mean), in_channels), fit(tuple(cfg.std), in_channels)


def create(
    name: str, in_channels: int, pretrained: bool, options: dict[str, Any], *, size: int | None = None
) -> nn.Module:
    """`timm.create_model` without a head. What it refuses, and weights that cannot be fetched, are a UsageError."""
    import timm

    given = dict(options) if size is None else {**options, "img_size": size}
    try:
        # Without weights first: what fails here is the name, the size or an option, what fails after is the download.
        net: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, in_chans=in_channels, **given)
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as error:
        at = "" if size is None else f" at {size} px"
        told = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"
        raise UsageError(
            f"timm cannot build '{name}'{at} (options given: {told}): {error}. "
            "Correct or remove the option, or choose an image_size that the net was made for."
        ) from error
    if not pretrained:
        return net
    try:
        loaded: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, in_chans=in_channels, **given)
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise UsageError(
            f"The pretrained weights of '{name}' could not be fetched ({type(error).__name__}: {first_line(error)}). "
            "They are downloaded from the Hugging Face hub: check the connection, or fetch the file elsewhere and give "
            "its path as weights=FILE, or use pretrained=false."
        ) from error
    return loaded


def _probe(name: str, net: nn.Module, in_channels: int, image_size: int) -> int:
    """The number of features, found by one image: it also shows whether the net can take images of this size at all."""
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            features: Tensor = net(torch.zeros(1, in_channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"Model '{name}' cannot take images of {image_size} px: {first_line(error)}. "
            "Use a larger image_size or a net made for small images."
        ) from error
    finally:
        net.train(training)
    if features.ndim != 2:
        raise UsageError(
            f"Model '{name}' gives features of shape {tuple(features.shape)}, expected (N, D) after pooling. "
            "Choose another pooling or another net."
        )
    return features.shape[1]


def _patch(net: nn.Module) -> int:
    size: Any = getattr(getattr(net, "patch_embed", None), "patch_size", 1)
    return int(max(size)) if isinstance(size, tuple | list) else int(size)


def _undecayed(net: nn.Module) -> frozenset[str]:
    inner = net.net if isinstance(net, Padded) else net
    listed: Any = getattr(inner, "no_weight_decay", None)
    names = frozenset(listed()) if callable(listed) else frozenset()
    return frozenset(f"net.{name}" for name in names) if isinstance(net, Padded) else names


def layer_scales(net: nn.Module, decay: float) -> dict[str, float]:
    """Parameter of a timm model -> decay^(layers above it, the head among them), as BEiT and USB scale rates.

    Raises UsageError for a net that does not say what its layers are.
    """
    from timm.models import group_parameters

    inner, prefix = (net.net, "net.") if isinstance(net, Padded) else (net, "")
    matcher: Any = getattr(inner, "group_matcher", None)
    if not callable(matcher):
        raise UsageError(
            f"layer_decay={decay} needs the layers of the net, and this one does not tell them. Use a model of timm, "
            "or layer_decay=1."
        )
    layers: dict[str, int] = group_parameters(inner, matcher(coarse=False), reverse=True)
    head = max(layers.values()) + 1
    return {f"{prefix}{name}": decay ** (head - layer) for name, layer in layers.items()}


def fit(values: tuple[float, ...], in_channels: int) -> tuple[float, ...]:
    """Values of red, green and blue for any number of channels: their mean for one, in turn for more than three."""
    if in_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_channels))


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
