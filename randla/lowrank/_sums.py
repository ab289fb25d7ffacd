"""Joining accumulators of sketches: the bits of one that had seen the chunks of both."""

from __future__ import annotations

import numpy as np

from .._operator import SketchAccumulator, _OrderFreeSum


def add_accumulator(total: SketchAccumulator, other: SketchAccumulator) -> None:
    """total += other, for accumulators of the same operator, width and dtype."""
    for mine, its in zip(total._parts, other._parts, strict=True):
        _add_sum(mine, its)


def _add_sum(total: _OrderFreeSum, other: _OrderFreeSum) -> None:
    if other._top is not None:
        own = other._top if total._top is None else total._top
        top = np.maximum(own, other._top)
        # Pieces counted from the same cut are multiples of the same numbers, and add up without rounding.
        total._bins = _counted_from(total._bins, top - own) + _counted_from(other._bins, top - other._top)
        total._top = top
    if other._huge is not None:
        total._huge = total._huge or _OrderFreeSum(*other._bins.shape[1:])
        _add_sum(total._huge, other._huge)
    if other._infinite is not None:
        with np.errstate(invalid="ignore"):
            total._infinite = other._infinite.copy() if total._infinite is None else total._infinite + other._infinite


def _counted_from(bins: np.ndarray, rise: np.ndarray) -> np.ndarray:
    """Pieces of columns whose highest cut has risen by `rise` steps; what falls below the last one is dropped."""
    if not rise.any():
        return bins
    out = np.zeros_like(bins)
    for k in range(len(bins)):
        for q in range(k + 1):
            out[k] += np.where(k - rise == q, bins[q], 0.0)
    return out
