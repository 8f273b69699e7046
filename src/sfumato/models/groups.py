"""Groups of parameters for an optimizer: the pretrained part and the new part, each with and without weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from sfumato.errors import UsageError

Named = Iterable[tuple[str, nn.Parameter]]


def parameter_groups(
    *,
    backbone: Named | None,
    head: Named,
    undecayed: frozenset[str] = frozenset(),
    lr: float,
    weight_decay: float,
    backbone_lr_scale: float,
    scales: Mapping[str, float] | None = None,
) -> list[dict[str, object]]:
    """Groups for a torch optimizer: backbone and head, each with and without weight decay.

    scales: of the learning rate of each parameter of the backbone, such as `layer_scales`; then these go by groups of
    one scale.

    Parameters with one axis (norms, biases) and those of the backbone in `undecayed` are not decayed. The learning rate
    of the backbone is `lr * backbone_lr_scale`. A frozen backbone is None and has no group; asking for a learning rate
    of its own is then a UsageError, as is a head or a backbone with nothing to train.
    """
    if backbone_lr_scale <= 0:
        raise UsageError(
            f"backbone_lr_scale={backbone_lr_scale} must be above 0. To keep the backbone as is, use frozen=true."
        )
    if backbone is None and backbone_lr_scale != 1.0:
        raise UsageError(
            f"backbone_lr_scale={backbone_lr_scale} asks for a learning rate of the backbone, but the backbone is "
            "frozen. Use frozen=false to fine-tune it, or leave backbone_lr_scale at 1."
        )
    parts = {"head": part_groups("head", head, lr=lr, weight_decay=weight_decay)}
    if backbone is not None:
        scaled = lr * backbone_lr_scale
        layers = _by_scale(backbone, scales) if scales is not None else {"backbone": (1.0, backbone)}
        found = [
            group
            for part, (scale, named) in layers.items()
            for group in part_groups(part, named, undecayed, lr=scaled * scale, weight_decay=weight_decay)
        ]
        parts = {"backbone": found} | parts
    for part, groups in parts.items():
        if not groups:
            raise UsageError(
                f"The {part} has no parameter that takes a gradient, so there is nothing to train in it. "
                "Build the model with frozen=true, or set requires_grad on the parameters to train."
            )
    return [group for groups in parts.values() for group in groups]


def _by_scale(parameters: Named, scales: Mapping[str, float]) -> dict[str, tuple[float, Named]]:
    """Part -> (scale, its parameters), the smallest scale first."""
    found: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters:
        found.setdefault(scales[name], []).append((name, parameter))
    return {f"backbone, layer {place}": (scale, found[scale]) for place, scale in enumerate(sorted(found))}


def part_groups(
    part: str, parameters: Named, undecayed: frozenset[str] = frozenset(), *, lr: float, weight_decay: float
) -> list[dict[str, object]]:
    """Those of `parameters` that take a gradient: the decayed ones, and the others. No group is empty."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            (plain if parameter.ndim <= 1 or name in undecayed else decayed).append(parameter)
    groups: list[dict[str, object]] = []
    if decayed:
        groups.append({"name": part, "params": decayed, "lr": lr, "weight_decay": weight_decay})
    if plain:
        groups.append({"name": f"{part}, no decay", "params": plain, "lr": lr, "weight_decay": 0.0})
    return groups
