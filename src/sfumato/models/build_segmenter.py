from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from sfumato.errors import UsageError, nearest
from sfumato.models.deeplab import DeepLab
from sfumato.models.segmenter import Decoder, Encoder, Segmenter
from sfumato.models.smp import KINDS, smp_parts
from sfumato.models.timm_encoder import timm_encoder
from sfumato.models.timm_model import close_names, is_timm_name
from sfumato.models.top_down import SmallDecoder, SmallEncoder, TopDown
from sfumato.models.weights import load_weights

ENCODERS = {"deeplabv3plus": "resnet50", "fpn": "tf_efficientnet_lite0"}  # where none is chosen
DECODERS: dict[str, Callable[..., Decoder]] = {"deeplabv3plus": DeepLab, "fpn": TopDown}


def segmenter_names() -> list[str]:
    """Every name `build_segmenter` takes."""
    return ["small_seg", *DECODERS, *KINDS]


def check_segmenter_name(name: str) -> None:
    """Raise UsageError, with the nearest name, unless `build_segmenter` knows the name."""
    if name in segmenter_names():
        return
    hint = nearest(name, segmenter_names())
    if is_timm_name(name):
        hint = f" A model of timm is an encoder: use deeplabv3plus with encoder={name}."
    raise UsageError(f"Unknown segmentation model '{name}'.{hint}")


def build_segmenter(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    pretrained: bool = False,
    frozen: bool = False,
    weights: str | Path | None = None,
    encoder: str | None = None,
    **options: Any,
) -> Segmenter:
    """The segmentation net of that name, in float32 on the CPU.

    "small_seg"
        268,000 parameters, from scratch, for images of 64 to 96 pixels on a processor. Option: `norm`.
    "deeplabv3plus"
        The reference decoder on any timm encoder that gives its maps; "resnet50" where none is chosen. Options:
        `output_stride` (16; 8, or the encoder's own), `width` (256), `skip_width` (48), `rates`.
    "fpn"
        A light decoder on any such encoder; "tf_efficientnet_lite0" where none is chosen. Option: `width` (48).
    "smp_deeplabv3plus", "smp_unet", "smp_fpn", "smp_segformer", "smp_upernet", "smp_dpt"
        Models of segmentation-models-pytorch, with its names of encoders or those of timm; see `models.smp`.

    Args:
        name: one of the above.
        num_classes: C, at least 2.
        in_channels: of the images; 1 for grey.
        pretrained: fetch the encoder's default weights.
        frozen: train all but the encoder.
        weights: a file for `load_weights`, of the whole net or of its encoder, instead of `pretrained`.
        encoder: its name.
        options: as above; all others go to the encoder, or to the model of segmentation-models-pytorch.

    Raises:
        UsageError: unknown name or option, a value out of range, a missing package, weights that do not fit or cannot
            be fetched.

    """
    check_segmenter_name(name)
    _check(name, num_classes, in_channels, pretrained, encoder, weights)
    made: Encoder
    decoder: Decoder
    classifier: nn.Conv2d | None = None
    if name == "small_seg":
        made, decoder = _small(in_channels, options)
    elif name in DECODERS:
        made, decoder = _own(name, in_channels, pretrained, encoder or ENCODERS[name], options)
    else:
        parts = smp_parts(
            name,
            num_classes=num_classes,
            in_channels=in_channels,
            pretrained=pretrained,
            encoder=encoder,
            options=options,
        )
        made, decoder, classifier = parts.encoder, parts.decoder, parts.classifier
    if classifier is None:
        classifier = nn.Conv2d(decoder.num_features, num_classes, 1)
    model = Segmenter(made, decoder, classifier, num_classes=num_classes, frozen=frozen)
    if weights is not None:
        load_weights(model, weights)
    return model


def _small(in_channels: int, options: dict[str, Any]) -> tuple[Encoder, Decoder]:
    for key in options:
        if key != "norm":
            raise UsageError(f"Model 'small_seg' has no option '{key}'." + nearest(key, ["norm"]))
    return SmallEncoder(in_channels, **options), SmallDecoder(**options)


def _own(
    name: str, in_channels: int, pretrained: bool, encoder: str, options: dict[str, Any]
) -> tuple[Encoder, Decoder]:
    if not is_timm_name(encoder):
        close = close_names(encoder, ())
        told = f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""
        raise UsageError(f"Unknown encoder '{encoder}' of model '{name}'.{told} Expected a name of timm.list_models().")
    deeplab = name == "deeplabv3plus"
    kind = DECODERS[name]
    own = [key for key in signature(kind).parameters if key != "encoder"]
    chosen = {key: options.pop(key) for key in own if key in options}
    for key, value in chosen.items():
        if "width" in key and value < 1:
            raise UsageError(f"Model '{name}': {key}={value}, expected a number of channels, 1 or more.")
    made = timm_encoder(
        encoder,
        in_channels=in_channels,
        pretrained=pretrained,
        skips=1 if deeplab else None,
        output_stride=options.pop("output_stride", 16) if deeplab else None,
        options=options,
    )
    return made, kind(made, **chosen)


def _check(
    name: str, num_classes: int, in_channels: int, pretrained: bool, encoder: str | None, weights: str | Path | None
) -> None:
    if num_classes < 2:
        raise UsageError(f"num_classes={num_classes}: a segmenter needs at least 2 classes.")
    if in_channels < 1:
        raise UsageError(f"in_channels={in_channels}: images have at least 1 channel (1 = grey, 3 = color).")
    if pretrained and weights is not None:
        raise UsageError(f"Both pretrained=true and weights={weights} are given. Keep one of them.")
    if name == "small_seg" and (pretrained or encoder is not None):
        wrong = "has no pretrained weights" if pretrained else f"has its own encoder, encoder={encoder} is given"
        raise UsageError(f"Model 'small_seg' {wrong}. Remove the option, or use fpn, which takes any encoder of timm.")
