"""Whether what is kept for every sample fits in the memory of the machine, asked before it is taken."""

from __future__ import annotations

import os

from sfumato.errors import UsageError


def check_fits(what: str, size: int, instead: str) -> None:
    """UsageError where `size` bytes are more than this machine has: "{what} take ..., and this machine has ...".

    instead: what to do, a sentence. Of the memory of the processor, all of it and not what is free: a table that lies
    on a device is refused by the device.
    """
    there = machine_memory()
    if there is not None and size > there:
        raise UsageError(f"{what} take {readable(size)}, and this machine has {readable(there)} of memory. {instead}")


def machine_memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def readable(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
