"""Ridge regression from a sketch with few rows: as many as the effective dimension asks for, not as there are columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.linalg import blas, lapack

from ._factor import RidgeFactor, ridge_root
from ._numeric import inverse, norms, powers_of_two

SMALLEST_N = 256  # columns from which the search for a smaller sketch is worth its passes
_LARGE_N = 4096  # columns from which an n x n factor is to be avoided at some cost
# Rows of sketch per effective dimension: distortion 0.35, about two nats per iteration.
ROWS_PER_DIMENSION, _EXTRA_ROWS = 8.0, 16

Sketches = Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]


def ridge_factor(slices: Sketches, n: int, ridge: float, rcond: float, asked: int | None) -> RidgeFactor | None:
    """The factor from the first of a growing sequence of sketches with enough rows; None where n / 2 rows are too few.

    The effective dimension of a sketch, sum sigma^2 / (sigma^2 + ridge), is in expectation that of A for a somewhat larger
    ridge: it understates, less so the more rows there are, and with several rows per dimension by a few percent. `asked`
    rows are taken as they are.
    """
    d = max(min(n // 16, 512), 1) if asked is None else asked
    while d <= n // 2 or asked is not None:
        Y, SB = _stacked(slices(d))
        d = len(Y)  # an even number for a complex matrix
        unit = float(powers_of_two(max(Y.max(initial=0.0), -Y.min(initial=0.0))))
        Y *= unit
        scaled_ridge = ridge * unit * unit
        if not 0 < scaled_ridge < math.inf:
            return None
        moments, sizes = blas.dgemm(1.0, Y.T, SB), norms(Y.T)
        reflected, tau = lapack.dgeqrf(Y.T, lwork=64 * d, overwrite_a=1)[:2]
        R = np.triu(reflected[:d])
        T = ridge_root(R, scaled_ridge)
        if math.sqrt(scaled_ridge) <= rcond * float(norms(sizes)):
            return None  # the rank is in question
        dimension = d - scaled_ridge * float(norms(norms(inverse(T))) ** 2)
        enough = ROWS_PER_DIMENSION * dimension + _EXTRA_ROWS
        if asked is not None or d >= enough:
            Q = lapack.dorgqr(reflected, tau, lwork=64 * d, overwrite_a=1)[0]
            factor = RidgeFactor(Q, R, T, sizes, scaled_ridge, np.full(n, unit))
            factor.distortion = min(max(1.15 * math.sqrt(dimension / d), 0.05), 0.95)
            factor.start = factor.apply(factor.adjoint(moments.T))
            return factor
        if dimension > 0.9 * d and n < _LARGE_N:
            return None  # no end in sight
        # `enough` is a lower bound; a little more than it saves a pass.
        ahead = max(math.ceil(1.25 * d), math.ceil(1.15 * enough))
        d = min(ahead, n // 2) if max(d + 1, enough) <= n // 2 else ahead
    return None


def _stacked(slices: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    parts = list(slices)
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0][0]), parts[0][1]
    return np.concatenate([part for part, _ in parts]), np.concatenate([part for _, part in parts])
