"""The maps of a timm model at several strides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.models.classifier import Normalization
from sfumato.models.segmenter import Encoder, Features
from sfumato.models.timm_model import create, first_line, timm_normalization


class TimmEncoder(Encoder):
    """The chosen maps of a timm model, the finest first, in (N, channels, h, w)."""

    def __init__(
        self,
        net: nn.Module,
        places: tuple[int, ...],
        *,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        channels_last: bool,
        normalization: Normalization,
        undecayed: frozenset[str],
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.net = net
        self.places = places
        self.channels = channels
        self.finest, self.deepest = strides[0], max(strides)
        self.channels_last = channels_last
        self.normalization = normalization
        self.undecayed = undecayed
        self.multiple = multiple
        self.taps = tuple(range(len(places)))

    def forward(self, x: Tensor) -> Features:
        maps = self.net(x)
        chosen = [maps[place] for place in self.places]
        return tuple(one.permute(0, 3, 1, 2) if self.channels_last else one for one in chosen)


def timm_encoder(
    name: str,
    *,
    in_channels: int,
    pretrained: bool,
    skips: int | None,
    output_stride: int | None = None,
    options: dict[str, Any],
) -> TimmEncoder:
    """A timm model as encoder, of its maps from stride 4 on: the deepest and the `skips` finest, all where None.

    Args:
        name: any timm model that gives its maps (`features_only`).
        in_channels: of the images.
        pretrained: fetch timm's default weights.
        skips: how many maps beside the deepest.
        output_stride: of the deepest map, by dilation where the net has another; None leaves it as it is.
        options: further arguments of the timm model.

    Raises:
        UsageError: a net that gives no maps, takes images of one size only or cannot have that stride.

    """
    net = _create(name, in_channels, pretrained, output_stride, options)
    info: Any = net.feature_info
    strides, widths = list(info.reduction()), list(info.channels())
    multiple = _probe(name, net, in_channels)
    usable = [place for place, stride in enumerate(strides[:-1]) if stride >= 4]
    if not usable:
        raise UsageError(f"Encoder '{name}' has one map of stride 4 or more, and a decoder needs two. Use another net.")
    places = (*(usable if skips is None else usable[:skips]), len(strides) - 1)
    inner = getattr(net, "model", net)
    listed: Any = getattr(inner, "no_weight_decay", None)
    prefix = "" if inner is net else "model."
    return TimmEncoder(
        net,
        places,
        channels=tuple(widths[place] for place in places),
        strides=tuple(strides[place] for place in places),
        channels_last=str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC"),
        normalization=timm_normalization(name, in_channels, pretrained),
        undecayed=frozenset(f"{prefix}{one}" for one in listed()) if callable(listed) else frozenset(),
        multiple=multiple,
    )


def _create(
    name: str, in_channels: int, pretrained: bool, output_stride: int | None, options: dict[str, Any]
) -> nn.Module:
    given = {"features_only": True, **options}
    net = create(name, in_channels, False, given)
    if output_stride is not None and _stride(net) != output_stride:
        given["output_stride"] = output_stride
        try:
            net = create(name, in_channels, False, given)
        except UsageError as error:
            raise _no_stride(name, output_stride, _stride(net)) from error
        if _stride(net) != output_stride:
            raise _no_stride(name, output_stride, _stride(net))
    return create(name, in_channels, True, given) if pretrained else net


def _stride(net: nn.Module) -> int:
    info: Any = net.feature_info
    return int(max(info.reduction()))


def _no_stride(name: str, output_stride: int, own: int) -> UsageError:
    return UsageError(
        f"Encoder '{name}' cannot have output_stride={output_stride}. Use output_stride={own} for the net as it is, or "
        "a net that timm can dilate, a ResNet for example."
    )


def _probe(name: str, net: nn.Module, in_channels: int) -> int:
    """What height and width of the images must be a multiple of: 1, or the stride of the deepest map."""
    stride = _stride(net)
    training = net.training
    net.eval()
    try:
        for multiple, size in ((1, (2 * stride - 1, 3 * stride + 1)), (stride, (2 * stride, 3 * stride))):
            try:
                with torch.no_grad():
                    net(torch.zeros(1, in_channels, *size))
            except (RuntimeError, AssertionError, ValueError) as error:
                failure = error
            else:
                return multiple
    finally:
        net.train(training)
    raise UsageError(
        f"Encoder '{name}' cannot take images of {size[0]}x{size[1]} px: {first_line(failure)}. A decoder needs an "
        "encoder for images of any size: a convolutional one, or a transformer with dynamic_img_size=true."
    ) from failure
