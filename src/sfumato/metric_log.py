"""Where the numbers go: metrics.jsonl always, TensorBoard when asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TextIO

from sfumato.errors import UsageError


class MetricLog:
    """One JSON object a line, with its step. Not-a-number is written as null.

    Without a folder the records are kept in `history` only. On a resume the records after the checkpoint are dropped
    first: the run will write them again, the same.
    """

    def __init__(self, folder: Path | None, *, after: int, tensorboard: bool = False) -> None:
        self.history: list[dict[str, Any]] = []
        self._file: TextIO | None = None
        self._board: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        self.history = [record for record in _records(path) if record["step"] <= after]
        replacement = path.with_suffix(".jsonl.new")
        replacement.write_text("".join(json.dumps(record) + "\n" for record in self.history))
        replacement.replace(path)
        self._file = path.open("a")
        self._board = _summary_writer(folder / "tb", after) if tensorboard else None

    def write(self, step: int, values: dict[str, float]) -> None:
        record: dict[str, Any] = {"step": step}
        record |= {key: value if math.isfinite(value) else None for key, value in values.items()}
        self.history.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _records(path: Path) -> list[dict[str, Any]]:
    """The records that are whole: a kill may leave half a line at the end."""
    if not path.exists():
        return []
    whole = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            whole.append(record)
    return whole


def _summary_writer(folder: Path, after: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError('tensorboard=true needs the extra: pip install "sfumato[tensorboard]"') from error
    return SummaryWriter(str(folder), purge_step=after + 1)
