"""Small numerical helpers that neither overflow nor underflow."""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, lapack

from . import _cpu

# Up to this order own kernels take less time on one core than the threads of a BLAS, woken once, take from what follows.
_SMALL = 256

_LARGEST_POWER = 2.0**1020  # room for a few more factors of two

SOLVE, SOLVE_TRANSPOSED, MULTIPLY, MULTIPLY_TRANSPOSED = range(4)


def triangular(op: int, R: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """Rows of Z through R^-1, R^-T, R or R' for upper triangular R in Fortran order."""
    out = np.array(Z, np.float64, order="C")
    _cpu.triangular(op, R, out)
    return out


def cholesky(gram: np.ndarray) -> np.ndarray | None:
    """Upper triangular R in Fortran order with R'R = gram, None where that is not positive definite."""
    if len(gram) > _SMALL:
        R, info = lapack.dpotrf(gram, lower=0)
        return R if info == 0 and np.isfinite(R.diagonal()).all() else None  # some LAPACKs let NaN pass
    R = np.array(np.triu(gram), order="F")
    return R if _cpu.cholesky(R) else None


def inverse(R: np.ndarray) -> np.ndarray:
    """Of an upper triangular R in Fortran order; in C order."""
    if len(R) > _SMALL:
        return np.ascontiguousarray(np.triu(lapack.dtrtri(R)[0]))
    return np.ascontiguousarray(triangular(SOLVE, R, np.eye(len(R))).T)


def product(upper: np.ndarray, R: np.ndarray) -> np.ndarray:
    """upper @ R of two upper triangular matrices, in Fortran order."""
    return blas.dtrmm(1.0, upper, R) if len(R) > _SMALL else triangular(MULTIPLY, upper, R.T).T


def norms(X: np.ndarray) -> np.ndarray:
    """Euclidean norms of the rows of X (or of its only dimension), with squares taken near one where they must be."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.vecdot(X, X).real
    limit = float(np.finfo(squares.dtype).tiny) / float(np.finfo(squares.dtype).eps)
    if squares.size and float(squares.min()) > limit and float(squares.max()) < 1 / limit:
        return np.sqrt(squares)
    X = np.abs(X)
    largest = X.max(axis=-1, initial=0.0)
    exponent = np.frexp(largest)[1]
    # Two factors, as one of 2^1000 times the smallest numbers would itself overflow.
    half = exponent // 2
    scaled = np.ldexp(np.ldexp(X, -half[..., None]), (half - exponent)[..., None])
    return np.ldexp(np.sqrt(np.einsum("...i,...i->...", scaled, scaled)), exponent)


def powers_of_two(size: np.ndarray) -> np.ndarray:
    """Powers of two with powers * size in [1, 2); one where size is zero."""
    exponent = np.frexp(size)[1]
    return np.where(size > 0, np.ldexp(1.0, np.clip(1 - exponent, -1020, 1020)), 1.0)


def further_powers(powers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Powers of two to follow those of `scale`: no larger than leaves their product finite."""
    return np.minimum(powers, _LARGEST_POWER / np.maximum(scale, 1.0))
