"""Draws in proportion to numbers of a CUDA device, where they stay: nothing is as long as they are on its way to the host.

Cumulative sums of floating-point numbers would depend on the order in which a device adds, which changes from run to run, and
would not even increase everywhere. Those here are sums of integers, exact in any order.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from ._backend import Array, kernels, namespace


def uniform_numbers(a: Array, count: int, stream: int, seed: int) -> Array:
    """The numbers of random words 0, ..., count - 1 in [0, 1), where `a` is: the bits of those of the host."""
    out = namespace(a).empty(count)
    kernels(a).uniform(0, 0, stream, seed, out)
    return out


def running_sums(x: Array) -> Array:
    """Cumulative sums of x >= 0, not all zero, in units of the largest; they never decrease.

    x is cut into two integers of 62 - log2(m) bits, 2^-82 of the largest number for a million of them, whose sums are exact;
    the two are rounded to float64 together.
    """
    xp = namespace(x)
    bits = 62 - len(x).bit_length()
    scaled = x / x.max() * 2.0**bits
    high = xp.floor(scaled)
    low = xp.cumsum(xp.rint((scaled - high) * 2.0**bits).astype(np.int64))
    carried = xp.cumsum(high.astype(np.int64)) + (low >> bits)
    return carried.astype(np.float64) * 2.0**-bits + (low & ((1 << bits) - 1)).astype(np.float64) * 2.0 ** (-2 * bits)


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """Independent draws of row i in proportion to importance[i], which is not negative and not zero everywhere."""

    importance: Array

    @cached_property
    def _sums(self) -> Array:
        return running_sums(self.importance)

    @cached_property
    def probabilities(self) -> Array:
        return self.importance / self.importance.max() / self._sums[-1]

    def draw(self, u: Array) -> Array:
        """For each u the first row whose sum is above u times the total: never one of importance zero."""
        xp, sums = namespace(u), self._sums
        # The product may round up to the total, above which there is no row.
        target = xp.minimum(u * sums[-1], xp.nextafter(sums[-1:], 0.0))
        return xp.searchsorted(sums, target, side="right").astype(np.int64, copy=False)
