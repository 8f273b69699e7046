from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from sfumato.errors import UsageError, nearest
from sfumato.models.classifier import Classifier, halves
from sfumato.models.small import Small
from sfumato.models.timm_model import close_names, is_timm_name, timm_backbone, timm_names
from sfumato.models.weights import load_weights
from sfumato.models.wide_resnet import WideResNet, wide_head


def wrn_28_2(in_channels: int = 3, *, norm_momentum: float = 0.999) -> WideResNet:
    return WideResNet(in_channels, depth=28, width=2, norm_momentum=norm_momentum)


def wrn_28_8(in_channels: int = 3, *, norm_momentum: float = 0.999) -> WideResNet:
    return WideResNet(in_channels, depth=28, width=8, norm_momentum=norm_momentum)


def wrn_37_2(in_channels: int = 3, *, norm_momentum: float = 0.999) -> WideResNet:
    """The one that papers call 37-2: as 28-2 with a fourth stage and a stride in the first, for STL-10."""
    return WideResNet(in_channels, depth=28, width=2, stages=4, first_stride=2, norm_momentum=norm_momentum)


OWN: dict[str, tuple[Callable[..., Small | WideResNet], Callable[[int, int], nn.Linear]]] = {
    "small": (Small, nn.Linear),
    "wrn_28_2": (wrn_28_2, wide_head),
    "wrn_28_8": (wrn_28_8, wide_head),
    "wrn_37_2": (wrn_37_2, wide_head),
}


def model_names() -> list[str]:
    """Every name `build_model` takes: the nets of this package, then those of timm in alphabetical order."""
    return [*OWN, *timm_names()]


def check_model_name(name: str) -> None:
    """Raise UsageError, with the nearest names, unless `build_model` knows the name."""
    if name in OWN or is_timm_name(name):
        return
    close = close_names(name, tuple(OWN))
    told = f"Did you mean {' or '.join(repr(one) for one in close)}?" if close else f"Known: {', '.join(OWN)}"
    raise UsageError(
        f"Unknown model '{name}'. {told}" + ("" if close else ", and every name that timm.list_models() gives.")
    )


def build_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int,
    pretrained: bool = False,
    frozen: bool = False,
    dropout: float = 0.0,
    weights: str | Path | None = None,
    **options: Any,
) -> Classifier:
    """The net of that name with a new linear head, in float32 on the CPU.

    Args:
        name: "small", "wrn_28_2", "wrn_28_8", "wrn_37_2", or any model of timm.
        num_classes: C, at least 2.
        in_channels: of the images; 1 for grey. Pretrained weights for colour are summed over colours.
        image_size: side of the square images, in pixels.
        pretrained: fetch timm's default weights.
        frozen: train the head alone.
        dropout: share of features dropped before the head.
        weights: a file for `load_weights`, instead of `pretrained`.
        options: for the net itself: `norm` of "small", `norm_momentum` of wide ones, any argument of the timm model.

    Raises:
        UsageError: unknown name or option, a value out of range, a size the net cannot take, weights that do not fit
            or cannot be fetched.

    """
    _check(num_classes=num_classes, in_channels=in_channels, image_size=image_size, dropout=dropout)
    check_model_name(name)
    if pretrained and weights is not None:
        raise UsageError(f"Both pretrained=true and weights={weights} are given. Keep one of them.")
    if name in OWN:
        model = _own(name, num_classes, in_channels, image_size, pretrained, frozen, dropout, options)
    else:
        made = timm_backbone(
            name, in_channels=in_channels, image_size=image_size, pretrained=pretrained, options=options
        )
        model = Classifier(
            made.net,
            nn.Linear(made.num_features, num_classes),
            normalization=made.normalization,
            frozen=frozen,
            dropout=dropout,
            undecayed=made.undecayed,
        )
    if weights is not None:
        load_weights(model, weights)
    return model


def _own(
    name: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    pretrained: bool,
    frozen: bool,
    dropout: float,
    options: dict[str, Any],
) -> Classifier:
    make, make_head = OWN[name]
    if pretrained:
        raise UsageError(
            f"Model '{name}' has no pretrained weights. Use pretrained=false, weights=FILE, or a model of timm."
        )
    known = [key for key in signature(make).parameters if key not in ("in_channels", "self")]
    for key in options:
        if key not in known:
            raise UsageError(f"Model '{name}' has no option '{key}'." + nearest(key, known))
    backbone = make(in_channels, **options)
    if image_size < backbone.smallest:
        raise UsageError(
            f"Model '{name}' needs images of at least {backbone.smallest} px, image_size={image_size}. Enlarge them."
        )
    return Classifier(
        backbone,
        make_head(backbone.num_features, num_classes),
        normalization=halves(in_channels),
        frozen=frozen,
        dropout=dropout,
    )


def _check(*, num_classes: int, in_channels: int, image_size: int, dropout: float) -> None:
    if num_classes < 2:
        raise UsageError(f"num_classes={num_classes}: a classifier needs at least 2 classes.")
    if in_channels < 1:
        raise UsageError(f"in_channels={in_channels}: images have at least 1 channel (1 = grey, 3 = colour).")
    if image_size < 1:
        raise UsageError(f"image_size={image_size}: expected the side of the images in pixels, above 0.")
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout={dropout}: expected a share of the features, 0 <= dropout < 1.")
