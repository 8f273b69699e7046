"""Files of a run folder, each whole or not there; and the folder itself, never one that is in use."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.errors import DataError

CONFIG, SPLITS, METRICS = "config.yaml", "splits.json", "metrics.json"
CARD, WEIGHTS, BEST_WEIGHTS = "card.json", "weights.safetensors", "weights-best.safetensors"
VERDICT, ENVIRONMENT = "verdict.json", "environment.json"


def write_bytes(path: Path, content: bytes) -> None:
    """Written beside, flushed to the disk and renamed. OSError when it cannot be, with the old file as it was."""
    if path.is_dir():
        raise DataError(f"{path} is a folder. Give the name of a file.")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # the user knows nothing of the file beside
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Not-a-number becomes null: JSON has no word for it."""
    write_text(path, json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """An .npz that needs no pickle to be read."""
    from io import BytesIO

    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Raises DataError ending with `mend` when the file is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. {mend}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). {mend}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}. {mend}")
    return content


def metrics_of(folder: Path) -> dict[str, Any] | None:
    """The final metrics of a run, None if it has not ended: metrics.json is the last file it writes."""
    path = folder / METRICS
    return read_json(path, "Delete it and resume the run to write it anew.") if path.exists() else None


def claim(out: Path | None, name: str) -> Path:
    """A folder for a new run: `out`, or else runs/NAME, or NAME-2 and so on where that is taken."""
    if out is None:
        return _first_free(Path("runs") / name)
    refuse_taken(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def refuse_taken(out: Path) -> None:
    """Raises DataError when `out` holds something: nothing is overwritten."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        again = f"Continue it with: sfumato train --resume {shlex.quote(str(out))}, or give" if is_run(out) else "Give"
        raise DataError(f"{out} exists already, and nothing is overwritten. {again} another folder with -o.")


def refuse_written(out: Path) -> None:
    """Raises DataError when the file `out` is there: nothing is overwritten unless asked for."""
    if out.is_file():
        raise DataError(
            f"{out} exists already, and nothing is overwritten. Give another file with -o, or --force to write it anew."
        )


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).exists()


def _first_free(base: Path) -> Path:
    base.parent.mkdir(parents=True, exist_ok=True)
    number, path = 1, base
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = base.with_name(f"{base.name}-{number}")
        else:
            return path


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside, no other process writes to the run. The system frees the lock of a process that dies.

    Raises DataError when another one does. Where folders cannot be locked nothing is checked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise DataError(f"{folder} is in use by another process. Wait until it has ended, or stop it.") from error
    except OSError:
        pass  # some network disks have no locks
    try:
        yield
    finally:
        os.close(handle)


def seed_folders(folder: Path) -> list[Path]:
    """seed-0, seed-1, ... of a run of several seeds, in order; empty for a run of one."""
    found = [path for path in folder.glob("seed-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def one_run(folder: Path, needed: Sequence[str] = (METRICS,)) -> Path:
    """`folder`, once it is sure to be one finished run. Raises DataError that says what to give instead."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Give the folder of a run, as `sfumato train ... -o FOLDER` makes it."
        )
    seeds = seed_folders(folder)
    if seeds and not (folder / METRICS).exists():
        raise DataError(f"{folder} holds several seeds; give one of them, such as {seeds[0]}.")
    for name in needed:
        if not (folder / name).is_file():
            told = f"sfumato train --resume {shlex.quote(str(folder))} ends it"
            known = is_run(folder)
            raise DataError(
                f"{folder}: {name} is missing. "
                + (f"The run has not ended: {told}." if known else "It is no folder of a run.")
            )
    return folder
