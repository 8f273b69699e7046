"""Random numbers as a function of (seed, step, purpose, slot): nothing is remembered, no generator is touched.

A resumed run, another number of workers or of ranks, or another split of the batch sees the same numbers, because a
number depends on what it is for and not on what was drawn before it.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

from sfumato.types import Draw

_MASK = 2**64 - 1


def _int64(value: int) -> int:
    """The 64 bits of `value` read as a signed integer, the only kind torch multiplies."""
    value &= _MASK
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _int64(0x9E3779B97F4A7C15)
_FIRST = _int64(0xBF58476D1CE4E5B9)
_SECOND = _int64(0x94D049BB133111EB)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """A logical shift to the right: torch's own repeats the sign bit."""
    return (bits >> places) & (_MASK >> places)


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def uniform(seed: int, step: int, purpose: str, slots: Tensor, count: int) -> Tensor:
    """`count` independent numbers in [0, 1) for each slot.

    Args:
        seed: of the run. Any change of seed, step or purpose gives unrelated numbers.
        step: of the training.
        purpose: what the numbers are for, in a word or two.
        slots: (N,) int64, the place of each sample in the global batch.
        count: numbers per sample. The first of them do not depend on how many follow.

    Returns:
        (N, count) float32 on the device of `slots`, multiples of 2^-24, the same bits on every device.
    """
    name = f"{seed}/{step}/{purpose}".encode()
    key = int.from_bytes(blake2b(name, digest_size=8).digest(), "little", signed=True)
    state = _mix(slots.long() * _GOLDEN + key)  # (N,)
    places = torch.arange(1, count + 1, device=slots.device) * _GOLDEN
    bits = _mix(state[:, None] + places)
    return _shifted(bits, 40).float() * 2.0**-24  # the 24 best bits: all that float32 holds


def draw_for(seed: int, step: int, slots: Tensor) -> Draw:
    """The draw of a batch, for what the views do not draw; no purpose of theirs meets one of its."""

    def draw(purpose: str, count: int) -> Tensor:
        return uniform(seed, step, f"method {purpose}", slots, count)

    return draw
