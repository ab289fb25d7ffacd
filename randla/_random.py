"""Counter-based random words and numbers: the k-th is a function of seed, stream and k alone."""

from __future__ import annotations

import numpy as np

from . import _cpu

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def random_words(index: np.ndarray, sub: int, stream: int, seed: int) -> np.ndarray:
    """The words U0, U1 of philox(lo(index), hi(index), sub, stream), (count, 2)."""
    index = index.astype(np.uint64, copy=False)
    counters = np.stack([index & _LOW, index >> _HALF, np.full_like(index, sub), np.full_like(index, stream)], axis=1)
    return _cpu.philox(counters.astype(np.uint32), seed).view("<u8").astype(np.uint64, copy=False)


def uniform(word: np.ndarray) -> np.ndarray:
    """Multiples of 2^-53 in [0, 1) from random words."""
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53
