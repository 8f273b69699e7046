"""Checkpoints that are whole or not there.

`<folder>/step-00000123/` holds one safetensors file per group of tensors, `state.json`, `optimizer.pt` and
`manifest.json` with the size and sha256 of each. It is written under a hidden name, flushed to the disk and renamed, so
that a crash, a kill or a full disk leaves the checkpoints before it as they were.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sfumato.errors import DataError, UsageError

FORMAT = 1
COPIES = "copies"  # the folder of a run that `save_copy` writes to
MANIFEST, STATE, OPTIMIZER = "manifest.json", "state.json", "optimizer.pt"
NAME = re.compile(r"step-(\d{8,})")
UNFINISHED = re.compile(r"\.step-\d+\.(new|gone)")
REPLACED = re.compile(r"\.(step-\d+)\.old")
FULL = (errno.ENOSPC, errno.EDQUOT)
Content = bytes | dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Loaded:
    step: int
    tensors: dict[str, dict[str, Tensor]]  # on the CPU, contiguous
    state: dict[str, Any]
    optimizer: dict[str, Any]


class Latest(NamedTuple):
    path: Path | None  # the newest checkpoint that is whole
    skipped: list[str]  # one sentence for each newer one that is not


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    optimizer: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of `step` and return its path. A checkpoint of the same step is replaced.

    Args:
        folder: of all checkpoints of a run; made if missing. One process writes to it.
        step: number of finished steps.
        tensors: groups such as "model", "teacher" and "method", each a flat state dict. Tensors may be on any device,
            in any memory format, and share storage; each is stored whole and contiguous, with exactly its values.
        state: anything JSON holds.
        optimizer: a state dict of plain values and tensors.

    Raises:
        DataError: the disk is full or the folder cannot be written. Checkpoints already there stay whole.
        UsageError: a value that could not be read back without running code of the file.

    """
    files = _contents(tensors, state, optimizer)
    target = folder / f"step-{step:08d}"
    new = folder / f".{target.name}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        new.mkdir()
        for name, content in files.items():
            _write(new / name, content)
        sums = {name: {"bytes": (new / name).stat().st_size, "sha256": _sha256(new / name)} for name in files}
        manifest = {"format": FORMAT, "step": step, "tensors": list(tensors), "files": sums}
        _write(new / MANIFEST, json.dumps(manifest, indent=1).encode())
        _flush(new)
        _swap(new, target)
    except OSError as error:
        raise _write_error(folder, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def latest(folder: Path) -> Latest:
    """The newest whole checkpoint of `folder`, passing over broken ones; None when there is none."""
    skipped: list[str] = []
    if folder.is_dir():
        _restore_replaced(folder)
    for path in reversed(_checkpoints(folder)):
        fault = _fault(path, contents=True)
        if fault is None:
            return Latest(path, skipped)
        skipped.append(f"Passed over checkpoint {path}: {fault}.")
    return Latest(None, skipped)


def load(path: Path) -> Loaded:
    """Read a checkpoint. DataError when it is not whole, or was written by a later version of the package."""
    fault = _fault(path, contents=True)
    if fault is not None:
        raise DataError(f"Cannot use checkpoint {path}: {fault}. Use an earlier one from {path.parent}.")
    manifest = json.loads((path / MANIFEST).read_text())
    try:
        tensors = {name: safetensors.torch.load_file(path / f"{name}.safetensors") for name in manifest["tensors"]}
        optimizer = torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        raise DataError(f"Cannot read checkpoint {path}: {error}. Use an earlier one from {path.parent}.") from error
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    return Loaded(int(manifest["step"]), tensors, state, optimizer)


def prune(folder: Path, keep: int) -> list[Path]:
    """Delete all but the newest `keep` whole checkpoints; return the deleted.

    Broken checkpoints and what interrupted saves left behind go too.
    """
    if keep < 1:
        raise UsageError(f"keep={keep}: at least 1 checkpoint must be kept, or there is nothing to continue from.")
    if folder.is_dir():
        _clean(folder)
    whole = [path for path in _checkpoints(folder) if _fault(path, contents=False) is None]
    deleted = [path for path in _checkpoints(folder) if path not in whole[-keep:]]
    for path in deleted:
        _remove(path)
    return deleted


def save_copy(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> Path:
    """Write weights alone, in one file that is whole or not there; one of the same step is replaced.

    Raises DataError when the disk is full or the folder cannot be written.
    """
    path = folder / f"step-{step:08d}.safetensors"
    new = path.with_name(f".{path.name}.new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(new, _standalone(tensors))
        os.replace(new, path)
        _flush(folder)
    except OSError as error:
        raise _write_error(folder, error) from error
    finally:
        new.unlink(missing_ok=True)
    return path


def copies(folder: Path) -> list[Path]:
    """What `save_copy` wrote, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    """Folders named as checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_step)


# Writing


def _contents(
    tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], optimizer: Mapping[str, Any]
) -> dict[str, Content]:
    """File name to contents, all but the manifest. Whatever is wrong with them is found before a file is written."""
    files: dict[str, Content] = {}
    for name, group in tensors.items():
        if not re.fullmatch(r"\w+", name):
            raise UsageError(f"Checkpoint: '{name}' is no name for a group of tensors. Use letters, digits and '_'.")
        files[f"{name}.safetensors"] = _standalone(group)
    for where in _not_plain(optimizer, "optimizer"):
        raise UsageError(f"Checkpoint: {where}. Use plain numbers, strings, lists, dicts and tensors.")
    buffer = io.BytesIO()
    torch.save(dict(optimizer), buffer)
    files[OPTIMIZER] = buffer.getvalue()
    try:
        files[STATE] = json.dumps(dict(state), indent=1).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"Checkpoint: the state is not JSON: {error}. Use numbers, strings, lists and dicts."
        ) from error
    return files


def _standalone(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies where safetensors needs them: it refuses other memory formats and shared storage."""
    seen: set[int] = set()
    ready: dict[str, Tensor] = {}
    for name, tensor in group.items():
        tensor = tensor.detach().cpu()
        storage = tensor.untyped_storage()
        if not tensor.is_contiguous() or storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        if tensor.numel():
            seen.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    return ready


def _not_plain(value: object, where: str) -> Iterator[str]:
    """What a file read with `weights_only` could not give back: found now, not when the run is resumed."""
    if type(value) in (bool, int, float, str, type(None)) or isinstance(value, Tensor):
        return
    if type(value) in (list, tuple):
        for place, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
            yield from _not_plain(item, f"{where}[{place}]")
    elif type(value) in (dict, OrderedDict):
        for key, item in value.items():  # type: ignore[attr-defined]
            yield from _not_plain(key, f"key {key!r} of {where}")
            yield from _not_plain(item, f"{where}[{key!r}]")
    else:
        yield f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be read back safely"


def _write(path: Path, content: Content) -> None:
    """Tensors are written from where they lie: of one that is mapped from a file a copy may not fit into memory."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        try:
            safetensors.torch.save_file(content, path)
        except safetensors.SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))  # of the system, when that is what failed
            raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(new: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        os.replace(target, old)  # a folder cannot be renamed over another; `_restore_replaced` undoes a crash here
    os.replace(new, target)
    _flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write_error(folder: Path, error: OSError) -> DataError:
    if error.errno in FULL:
        at = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        free = shutil.disk_usage(at).free / 2**20
        return DataError(
            f"Disk full while saving a checkpoint in {folder}: {free:,.1f} MiB free. The checkpoints already there are "
            "whole. Free some space, or move the run, and resume it."
        )
    return DataError(f"Cannot write a checkpoint in {folder}: {error}. Check that the folder exists and is writable.")


# Reading and deleting


def _fault(path: Path, *, contents: bool) -> str | None:
    """What is wrong with a checkpoint; the sums are compared only with `contents`."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        known, files = manifest["format"], dict(manifest["files"])
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} cannot be read"
    if known != FORMAT:
        return f"its format is {known}, this version of sfumato reads {FORMAT}"
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{name} has {size} bytes, expected {entry['bytes']}"
        if contents and _sha256(file) != entry["sha256"]:
            return f"{name} was changed after it was written (sha256 differs)"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clean(folder: Path) -> None:
    """Remove what interrupted saves and deletions left behind."""
    _restore_replaced(folder)
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) or REPLACED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _restore_replaced(folder: Path) -> None:
    """Give back its name to a checkpoint that was being replaced when the process died."""
    for path in folder.iterdir():
        match = REPLACED.fullmatch(path.name)
        if match and not (target := folder / match[1]).exists():
            os.replace(path, target)


def _remove(path: Path) -> None:
    gone = path.with_name(f".{path.name}.gone")  # renamed first: never half a checkpoint under its own name
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(path, gone)
    shutil.rmtree(gone, ignore_errors=True)
