"""Which terms of a finite sum are sampled: windows of a random order, and draws by importance."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .. import _check
from .._random import random_words, uniform

_ORDER, _DRAWS = 15, 16  # streams, see docs/definitions.md
_SMALLEST = 2.0**-960  # sums below are taken in another unit: products with a random number would not be exact enough


class RowOrder:
    """A uniformly random order of n rows, made when it is first needed; `window` is a sample without replacement.

    Every window is uniform over the subsets of its size, whatever its start, and disjoint windows have no row in common:
    prefixes that grow are nested samples, windows one behind the other an epoch.

    n, seed : int
    """

    def __init__(self, n: int, seed: int):
        self.n, self.seed = n, seed

    @cached_property
    def order(self) -> np.ndarray:
        """The rows in their random order, (n,)."""
        return np.argsort(random_words(np.arange(self.n, dtype=np.uint64), 0, _ORDER, self.seed)[:, 0])

    def window(self, start: int, size: int) -> np.ndarray:
        """Rows in places start, ..., start + size - 1 of the order, modulo n; ascending, as gathering them is fastest then.

        Raises
        ------
        TypeError, ValueError
            For a size not between 0 and n or a negative start.
        """
        size = _check.integer(size, "size", 0, self.n)
        if size == self.n:
            return np.arange(self.n)
        start = _check.integer(start, "start", 0) % self.n
        rows = self.order[start : start + size]
        if start + size > self.n:
            rows = np.concatenate([rows, self.order[: start + size - self.n]])
        return np.sort(rows)

    def prefix(self, size: int) -> np.ndarray:
        """The first rows of the order, ascending."""
        return self.window(0, size)


def draw_rows(importance: np.ndarray, size: int, draw_number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows with replacement, with weights that make the weighted sum an unbiased estimate of a mean.

    E sum_j weights[j] h[rows[j]] = (1/n) sum_i h[i] for every h that vanishes where the importance does: for the Hessian of a
    GLM, importance |f_i''| ||a_i||^2 (Xu, Roosta, Mahoney 2017, Lemma 17).

    Parameters
    ----------
    importance : ndarray of float64, (n,)
        Not negative, finite, in any unit; overwritten nowhere. All zero: there is nothing to draw, and the sample is empty.
    size : int
        Draws, at least 1.
    draw_number : int
        Below 2^32: every draw of a run has its own.
    seed : int

    Returns
    -------
    rows : ndarray of int64, (k,)
        Ascending and distinct, k <= size: the weights of rows that were drawn again are added.
    weights : ndarray, (k,)

    Raises
    ------
    TypeError, ValueError
        For a size below 1; ValueError for importances negative, NaN or infinite.
    """
    size = _check.integer(size, "size", 1)
    n = len(importance)
    with np.errstate(over="ignore"):
        total, unit = np.cumsum(importance), 1.0
    if n and not _SMALLEST < total[-1] < np.inf:
        _check.finite(importance, "importance")
        unit = float(importance.max()) or 1.0
        total = np.cumsum(importance / unit)
    if n and importance.min() < 0:
        raise ValueError(f"importance must not be negative; got {importance.min():g}")
    if not n or not total[-1]:
        return np.zeros(0, np.int64), np.zeros(0)
    u = np.sort(uniform(random_words(np.arange(size, dtype=np.uint64), draw_number, _DRAWS, seed)[:, 0]))
    # u <= 1 - 2^-53, so that u * total[-1] rounds below total[-1]: a row without importance is never found.
    drawn = np.searchsorted(total, u * total[-1], side="right")
    first = np.flatnonzero(np.diff(drawn, prepend=-1))
    rows, count = drawn[first], np.diff(first, append=size)
    return rows, count * (total[-1] / (importance[rows] / unit)) / (float(size) * n)
