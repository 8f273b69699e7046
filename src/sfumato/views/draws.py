"""Random numbers as a function of (seed, step, purpose, slot): nothing is remembered, no generator is touched.

A resumed run, another number of workers or of ranks, or another split of the batch sees the same numbers, because a
number depends on what it is for and not on what was drawn before it.
"""

from __future__ import annotations

from hashlib import blake2b

from torch import Tensor

from sfumato.functional.hashing import GOLDEN, mix, numbers
from sfumato.types import Draw


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
    return numbers(mix(slots.long() * GOLDEN + key), count)


def draw_for(seed: int, step: int, slots: Tensor, part: str = "") -> Draw:
    """The draw of a batch, for what the views do not draw; no purpose of theirs meets one of its.

    part: of the batch, where another one holds the same places.
    """

    def draw(purpose: str, count: int) -> Tensor:
        return uniform(seed, step, f"method {part}{purpose}", slots, count)

    return draw
