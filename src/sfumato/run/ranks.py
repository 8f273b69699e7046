"""One process or several: who writes, and what all agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sfumato import distributed
from sfumato.errors import DataError, SfumatoError

if TYPE_CHECKING:
    import torch


def is_first() -> bool:
    """Whether this process writes and prints; known before the ranks have met."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def together() -> Iterator[None]:
    """Inside, the ranks that torchrun started can talk to each other; of one process nothing is asked."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    try:
        yield
    finally:
        state.destroy_process_group()


def decided_by_first(decide: Callable[[], str]) -> str:
    """What the first rank makes of it, on every rank; if it raises, all raise."""
    answer, mistake = "", ""
    if is_first():
        try:
            answer = decide()
        except SfumatoError as error:
            if not distributed.active():
                raise
            mistake = str(error)
    answer, mistake = distributed.from_first((answer, mistake))
    if mistake:
        raise DataError(mistake)
    return answer


def own_device() -> torch.device:
    """Where this rank computes, outside of training."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
