"""Everything that knows segmentation-models-pytorch. An extra of the package; imported when a model of it is built.

Its models differ from what they are named after, or refuse what our crops are, in these points, mended here:

- DeepLabV3+ has separable convolutions in its pyramid, dropout 0.5 and rates 12, 24, 36: here full ones, none and
  6, 12, 18, as in the reference. The two convolutions behind it stay separable; those of "deeplabv3plus" are not.
- Images must be a multiple of the stride. `Segmenter` fills them and cuts the logits.
- Heads enlarge by a fixed factor. Only their last convolution is the classifier, and what comes before it, in DPT a
  convolution and a batch norm, is of the decoder, so that the embedding is what the logits are a linear map of.
  `Segmenter` resizes to the image.
- Batch norms behind a mean over the whole image fail on a batch of one; see `LenientBatchNorm`.
- DPT puts together maps of the wrong sizes when the patch is no power of two, 14 in DINOv2; see `_dpt_decoder`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.models.classifier import Normalization, halves
from sfumato.models.segmenter import Decoder, Encoder, Features
from sfumato.models.timm_model import close_names, first_line, fit, is_timm_name

EXTRA = "smp"
DPT_WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {  # of UniMatch V2, by the size of the transformer
    "_small_": ((48, 96, 192, 384), 64),
    "_base_": ((96, 192, 384, 768), 128),
}


@dataclass(frozen=True, slots=True)
class Kind:
    title: str  # the class in the package
    encoder: str  # where none is chosen
    first: int  # the first of the encoder's maps that the decoder takes
    options: dict[str, Any]  # where the package's own default is not wanted


KINDS = {
    "smp_deeplabv3plus": Kind(
        "DeepLabV3Plus",
        "resnet50",
        2,
        {"decoder_atrous_rates": (6, 12, 18), "decoder_aspp_separable": False, "decoder_aspp_dropout": 0.0},
    ),
    "smp_unet": Kind("Unet", "resnet50", 1, {}),
    "smp_fpn": Kind("FPN", "resnet50", 2, {"decoder_dropout": 0.0}),
    "smp_segformer": Kind("Segformer", "mit_b2", 1, {}),
    "smp_upernet": Kind("UPerNet", "resnet50", 2, {}),
    "smp_dpt": Kind("DPT", "vit_small_patch14_dinov2", 0, {"decoder_readout": "ignore", "dynamic_img_size": True}),
}


@dataclass(frozen=True, slots=True)
class SmpParts:
    encoder: Encoder
    decoder: Decoder
    classifier: nn.Conv2d  # the embedding to logits, as coarse


class SmpEncoder(Encoder):
    """Maps, and after them the tokens beside the image (N, tokens, D) of each map where the decoder reads them."""

    def __init__(
        self,
        net: nn.Module,
        taps: tuple[int, ...],
        *,
        channels: tuple[int, ...],
        multiple: int,
        deepest: int,
        normalization: Normalization,
        tokens: bool,
    ) -> None:
        super().__init__()
        self.net = net
        self.taps = taps
        self.channels = channels
        self.multiple = multiple
        self.deepest = deepest
        self.normalization = normalization
        self.tokens = tokens
        inner: Any = getattr(net, "model", None)
        listed = getattr(inner, "no_weight_decay", None)
        self.undecayed = frozenset(f"model.{name}" for name in listed()) if callable(listed) else frozenset()

    def forward(self, x: Tensor) -> Features:
        found = self.net(x)
        if isinstance(found, tuple):  # a transformer: maps and tokens
            maps, tokens = found
            return (*maps, *tokens) if self.tokens else tuple(maps)
        return tuple(found)


class SmpDecoder(Decoder):
    def __init__(
        self, net: nn.Module, last: nn.Module, *, num_features: int, stride: float, levels: int | None
    ) -> None:
        super().__init__()
        self.net = net
        self.last = last  # what the head does before its last convolution
        self.num_features = num_features
        self.stride = stride
        self.levels = levels  # of a transformer: how many of the features are maps, tokens following

    def forward(self, features: Features) -> Tensor:
        embedding: Tensor
        if self.levels is not None:
            maps, tokens = list(features[: self.levels]), list(features[self.levels :])
            embedding = self.net(maps, tokens or [None] * self.levels)
        else:
            embedding = self.net(list(features))  # a list of its own: the package writes into it
        embedding = self.last(embedding)
        return embedding


class LenientBatchNorm(nn.BatchNorm2d):
    """A batch norm that uses its running statistics where a channel has a single value and so none of its own.

    That is the mean over an image in a batch of one; torch raises an error there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def smp_parts(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    pretrained: bool,
    encoder: str | None,
    options: dict[str, Any],
) -> SmpParts:
    """The parts of a model of segmentation-models-pytorch, without the head's enlargement.

    Args:
        name: of `KINDS`.
        num_classes: C.
        in_channels: of the images.
        pretrained: fetch the package's default weights of the encoder.
        encoder: a name of the package ("resnet50", "mit_b2"), or one of timm, with or without its "tu-".
        options: further arguments of the model: `encoder_output_stride`, `decoder_channels`, ...

    Raises:
        UsageError: the package is missing, the encoder is unknown, an option does not fit, or weights cannot be
            fetched.

    """
    smp = _package(name)
    kind = KINDS[name]
    chosen = _encoder_name(smp, name, encoder or kind.encoder)
    given = {**kind.options, **options}
    if name == "smp_dpt":
        given = {**_dpt_widths(chosen), **given}
    model = _create(smp, kind, chosen, num_classes, in_channels, pretrained, given)
    net: Any = model.encoder
    deepest = int(net.output_stride)
    multiple = deepest
    if name == "smp_dpt":
        multiple = _dpt_decoder(model, given)
    taps = tuple(place for place, width in enumerate(net.out_channels) if place >= kind.first and width > 0)
    if name == "smp_deeplabv3plus":
        taps = (taps[0], taps[-1])
    made = SmpEncoder(
        net,
        taps,
        channels=tuple(int(net.out_channels[place]) for place in taps),
        multiple=multiple,
        deepest=deepest,
        normalization=_normalization(smp, chosen, in_channels, pretrained),
        tokens=name == "smp_dpt" and given["decoder_readout"] != "ignore",
    )
    _make_lenient(model.decoder)
    levels = len(taps) if name == "smp_dpt" else None
    last, classifier = _parted(model.segmentation_head)
    num_features, stride = _measure(made, model.decoder, last, in_channels, levels)
    decoder = SmpDecoder(model.decoder, last, num_features=num_features, stride=stride, levels=levels)
    return SmpParts(made, decoder, classifier)


def _package(name: str) -> Any:
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise UsageError(
            f"Model '{name}' needs the package segmentation-models-pytorch, which is not installed "
            f"({first_line(error)}). Run pip install 'sfumato[{EXTRA}]', or use deeplabv3plus or fpn, which need none."
        ) from error


def _encoder_name(smp: Any, name: str, encoder: str) -> str:
    """The package's name of the encoder: its own, or that of timm after "tu-"."""
    bare = encoder.removeprefix("tu-")
    own = tuple(smp.encoders.get_encoder_names())
    if encoder in own and name != "smp_dpt":
        return encoder
    if is_timm_name(bare):
        return f"tu-{bare}"
    close = close_names(bare, own)
    told = f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""
    raise UsageError(
        f"Unknown encoder '{encoder}' of model '{name}'.{told} Expected a name of segmentation-models-pytorch or timm."
    )


def _create(
    smp: Any, kind: Kind, encoder: str, num_classes: int, in_channels: int, pretrained: bool, options: dict[str, Any]
) -> Any:
    make: Callable[..., Any] = getattr(smp, kind.title)
    arguments = {"encoder_name": encoder, "in_channels": in_channels, "classes": num_classes, **options}
    try:
        # Without weights first: what fails here is an option, what fails after is the download.
        model = make(encoder_weights=None, **arguments)
    except (TypeError, ValueError, KeyError, AssertionError, AttributeError, RuntimeError) as error:
        told = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"
        raise UsageError(
            f"segmentation-models-pytorch cannot build {kind.title} with the encoder '{encoder}' (options: {told}): "
            f"{first_line(error)}. Correct or remove the option, or choose another encoder."
        ) from error
    if not pretrained:
        return model
    try:
        return make(encoder_weights=True if encoder.startswith("tu-") else "imagenet", **arguments)
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise UsageError(
            f"The pretrained weights of the encoder '{encoder}' could not be fetched ({type(error).__name__}: "
            f"{first_line(error)}). Check the connection and that the encoder has any, or give weights=FILE, or use "
            "pretrained=false."
        ) from error


def _dpt_widths(encoder: str) -> dict[str, Any]:
    for size, (widths, fused) in DPT_WIDTHS.items():
        if size in encoder:
            return {"decoder_intermediate_channels": widths, "decoder_fusion_channels": fused}
    return {}


def _dpt_decoder(model: Any, options: dict[str, Any]) -> int:
    """Mend the decoder of a DPT, and give the multiple that images must have.

    Its levels are the tokens enlarged 4, 2, 1 and 1/2 times, the factors found by dividing the patch by 4, 8, 16 and
    32 and dropping the fraction: patches of 14 would give 3, 1, 1 and 1/2. They are treated like patches of 16 here.
    The number of tokens must be even along each side, for the last level to be half of it.
    """
    encoder = model.encoder
    # What lies behind the last map would have no gradient, which training on several ranks does not allow.
    encoder.model.prune_intermediate_layers(list(encoder._output_indices), prune_norm=True, prune_head=True)
    patch = int(encoder.output_stride)
    nominal = 1 << round(math.log2(patch))
    if nominal != patch:
        decoder = importlib.import_module("segmentation_models_pytorch.decoders.dpt.decoder").DPTDecoder
        model.decoder = decoder(
            encoder_out_channels=encoder.out_channels,
            encoder_output_strides=[nominal] * len(encoder.out_channels),
            encoder_has_prefix_tokens=encoder.has_prefix_tokens,
            readout=options["decoder_readout"],
            intermediate_channels=options.get("decoder_intermediate_channels", (256, 512, 1024, 1024)),
            fusion_channels=options.get("decoder_fusion_channels", 256),
        )
        model.initialize()
    coarsest = 1 << (len(encoder.out_channels) + 1)
    return patch * max(1, coarsest // nominal)


def _make_lenient(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            lenient = LenientBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            lenient.load_state_dict(child.state_dict())
            setattr(module, name, lenient)
        else:
            _make_lenient(child)


def _parted(head: Any) -> tuple[nn.Module, nn.Conv2d]:
    """What a head does before its last convolution, without dropout, and that; what enlarges is left out."""
    *before, classifier = head.head if hasattr(head, "head") else (head[0],)
    return nn.Sequential(*(module for module in before if not isinstance(module, nn.Dropout))), classifier


def _measure(
    encoder: Encoder, decoder: nn.Module, last: nn.Module, in_channels: int, levels: int | None
) -> tuple[int, float]:
    """Width and stride of the embedding, by one small image."""
    side = encoder.multiple * max(1, 64 // encoder.multiple)
    probe = SmpDecoder(decoder, last, num_features=0, stride=1.0, levels=levels)
    modes = encoder.training, probe.training
    encoder.eval()
    probe.eval()
    with torch.no_grad():
        embedding = probe(encoder(torch.zeros(1, in_channels, side, side)))
    encoder.train(modes[0])
    probe.train(modes[1])
    return embedding.shape[1], side / embedding.shape[2]


def _normalization(smp: Any, encoder: str, in_channels: int, pretrained: bool) -> Normalization:
    if not pretrained:
        return halves(in_channels)
    found = smp.encoders.get_preprocessing_params(encoder, pretrained="imagenet")
    return fit(tuple(found["mean"]), in_channels), fit(tuple(found["std"]), in_channels)
