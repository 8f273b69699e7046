from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sfumato.errors import DataError, UsageError
from sfumato.models.classifier import Classifier
from sfumato.models.segmenter import Segmenter
from sfumato.models.timm_model import Padded

COUNTER = "num_batches_tracked"  # of a batch norm: some files have it, and no forward with a momentum needs it
ENVELOPES = ("state_dict", "model")  # keys under which training programs store the tensors
ROLES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What `load_weights` did."""

    into: Literal["model", "backbone"]
    by: Literal["name", "position"]
    tensors: int
    unused: tuple[str, ...]  # names in the file that had no place, such as the head for other classes


def load_weights(model: nn.Module, path: str | Path) -> LoadedWeights:
    """Load a safetensors file, or a torch state dict without any other pickled object, in place.

    Tensors are matched by name, for the whole model or for its backbone (of a segmenter: its encoder) alone; a new head
    then stays as it is. Where no name agrees they are matched by position, if every shape agrees in order: the same net
    written down by another library. Behind the last tensor of a backbone the file may go on, with another head; behind
    that of an encoder also with the layers that follow its last map. Weights and statistics with the same shape must
    then also agree in role (`weight`, `running_mean`, ...). Counters of batches are ignored. A safetensors file does
    not keep the order of its tensors: only torch files can be matched by position.

    Raises:
        UsageError: no such file, or tensors that do not fit; the message names the first one.
        DataError: a file that cannot be read as weights.

    """
    path = Path(path)
    given = {name: tensor for name, tensor in read_tensors(path).items() if not name.endswith(COUNTER)}
    if given and all(name.startswith("module.") for name in given):  # written by DistributedDataParallel
        given = {name.removeprefix("module."): tensor for name, tensor in given.items()}
    targets = _targets(model)
    for into, module in targets:
        names = _match_names(module, given, exact=into == "model")
        if names is not None:
            return _load(module, given, names, into, "name")
    strange = not any(_shared(module, given) for _, module in targets)
    for into, module in targets if strange else []:
        names = _match_positions(module, given, exact=into == "model", cut=isinstance(model, Segmenter))
        if names is not None:
            return _load(module, given, names, into, "position")
    raise UsageError(f"The weights in {path} do not fit: {_first_mismatch(targets, given)}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, on the CPU, in the order of the file."""
    if not path.is_file():
        raise UsageError(f"No weights file {path}. Expected a .safetensors file or a torch state dict (.pth, .pt).")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise DataError(
            f"Cannot read weights from {path}: {str(error).strip().partition(chr(10))[0]} "
            "Expected a complete .safetensors file, or a torch file that holds nothing but tensors."
        ) from error
    for key in ENVELOPES:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(
            f"{path} is no state dict: expected names and tensors, found {type(found).__name__}. "
            "Save the model with torch.save(model.state_dict(), file)."
        )
    return {str(name): tensor for name, tensor in found.items()}


def _targets(model: nn.Module) -> list[tuple[Literal["model", "backbone"], nn.Module]]:
    if isinstance(model, Segmenter):
        net = model.encoder.net
        inner = getattr(net, "model", net)  # some encoders are a whole net and the maps to take from it
        return [("model", model), ("backbone", inner)]
    if not isinstance(model, Classifier):
        return [("model", model)]
    backbone = model.backbone.net if isinstance(model.backbone, Padded) else model.backbone
    return [("model", model), ("backbone", backbone)]


def _wanted(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(COUNTER)}


def _shared(module: nn.Module, given: Mapping[str, Tensor]) -> set[str]:
    return _wanted(module).keys() & given.keys()


def _match_names(module: nn.Module, given: Mapping[str, Tensor], *, exact: bool) -> dict[str, str] | None:
    """Name in the module to name in the file. A backbone may leave tensors of the file unused, a whole model none."""
    wanted, plain = _wanted(module), {_plain(name): name for name in given}
    names = {name: name if name in given else plain.get(_plain(name), "") for name in wanted}
    if any(not other or given[other].shape != wanted[name].shape for name, other in names.items()):
        return None
    return None if exact and len(given) != len(wanted) else names


def _plain(name: str) -> str:
    """The name without what timm changes in it when it takes a net apart for its maps: stages.0 becomes stages_0."""
    return name.replace("_", ".")


def _match_positions(
    module: nn.Module, given: Mapping[str, Tensor], *, exact: bool, cut: bool
) -> dict[str, str] | None:
    """As `_match_names`. An encoder is a net cut off at its last map, so that any layers may follow in the file."""
    wanted, names = _wanted(module), list(given)
    spare = [given[name] for name in names[len(wanted) :]]
    head_only = len(spare) <= 2 and all(tensor.ndim <= 2 for tensor in spare)  # weight and bias of another head
    if len(names) < len(wanted) or (spare if exact else not (cut or head_only)):
        return None
    pairs = dict(zip(wanted, names, strict=False))
    fits = all(_fits(name, wanted[name], other, given[other]) for name, other in pairs.items())
    return pairs if fits else None


def _fits(name: str, tensor: Tensor, other: str, candidate: Tensor) -> bool:
    roles = name.rpartition(".")[2], other.rpartition(".")[2]
    return tensor.shape == candidate.shape and (roles[0] == roles[1] or not set(roles) <= set(ROLES))


def _load(
    module: nn.Module,
    given: Mapping[str, Tensor],
    names: Mapping[str, str],
    into: Literal["model", "backbone"],
    by: Literal["name", "position"],
) -> LoadedWeights:
    module.load_state_dict({**module.state_dict(), **{name: given[other] for name, other in names.items()}})
    used = set(names.values())
    return LoadedWeights(into, by, len(names), tuple(name for name in given if name not in used))


def _first_mismatch(targets: list[tuple[Literal["model", "backbone"], nn.Module]], given: Mapping[str, Tensor]) -> str:
    """The first tensor that does not fit, for the part of the model that shares most names with the file."""
    _, module = max(targets, key=lambda target: len(_shared(target[1], given)))
    wanted = _wanted(module)
    if _shared(module, given):
        for name, tensor in wanted.items():
            if name not in given:
                return f"the file has no '{name}', shape {tuple(tensor.shape)}. Build the model that the file is of."
            if given[name].shape != tensor.shape:
                return (
                    f"'{name}' has shape {tuple(given[name].shape)} in the file, {tuple(tensor.shape)} in the model. "
                    "Use the same net, classes, channels and image size."
                )
        extra = next(name for name in given if name not in wanted)
        return f"the model has no '{extra}', shape {tuple(given[extra].shape)}. Build the model that the file is of."
    for place, ((name, tensor), (other, candidate)) in enumerate(zip(wanted.items(), given.items(), strict=False)):
        if not _fits(name, tensor, other, candidate):
            return (
                f"no name agrees, and tensor {place} is '{other}' {tuple(candidate.shape)} in the file, "
                f"'{name}' {tuple(tensor.shape)} in the model. Build the model that the file is of."
            )
    return f"no name agrees; {len(given)} tensors in the file, {len(wanted)} in the model."
