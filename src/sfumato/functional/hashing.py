"""Numbers that look random and are functions of integers: no generator is touched, and every device gives the same."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 2**64 - 1


def _int64(value: int) -> int:
    """The 64 bits of `value` read as a signed integer, the only kind torch multiplies."""
    value &= _MASK
    return value - 2**64 if value >= 2**63 else value


GOLDEN = _int64(0x9E3779B97F4A7C15)  # times an integer, it sets neighbours far apart
_FIRST = _int64(0xBF58476D1CE4E5B9)
_SECOND = _int64(0x94D049BB133111EB)


def mix(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), int64: every input bit reaches every output bit."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def numbers(state: Tensor, count: int) -> Tensor:
    """`count` uniform numbers in [0, 1) for each state (N,) int64, (N, count) float32: multiples of 2^-24.

    The first of them do not depend on how many follow. States that differ in few bits belong through `mix` first.
    """
    places = torch.arange(1, count + 1, device=state.device) * GOLDEN
    bits = mix(state[:, None] + places)
    return _shifted(bits, 40).float() * 2.0**-24  # the 24 best bits: all that float32 holds


def _shifted(bits: Tensor, places: int) -> Tensor:
    """A logical shift to the right: torch's own repeats the sign bit."""
    return (bits >> places) & (_MASK >> places)
