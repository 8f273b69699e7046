"""The one source of chance in this room: a permutation that is a function of its key."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def permutation(count: int, *key: int | str) -> NDArray[np.int64]:
    """A random order of `range(count)`, the same for the same key on every machine and NumPy version.

    Only the raw bit stream of Philox is used, which NumPy promises never to change; its `permutation` may change.
    """
    text = "/".join(str(part) for part in key)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    bits = np.random.Philox(key=seed).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int64)
