"""method "direct" for m < n on a device: the solution of minimum norm by QR of A', all of it in the type of the data.

With A' = Q R the solution is x = Q R^-H b; with a ridge it is the upper part of that for [A, sqrt(ridge) I], whose lower part
holds what is left of the equations. Q is kept, in pieces that cuSOLVER can count the entries of: memory for two copies of A.
On the host is what has m^2 numbers at most, where the rank is in doubt and for the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from . import _check
from ._backend import Array, like, namespace, rows_to_factor, solve_triangular, to_host
from ._numeric import norms
from .result import Evidence, LstsqResult, Status, per_column, rank_note


class Equations(NamedTuple):
    """A x = b without the equations of weight zero, the others to be multiplied by the roots of their weights."""

    A: Array
    B: Array  # (m, k), multiplied already
    ridge: float
    roots: Array | None

    def column_blocks(self) -> Iterator[tuple[slice, Array]]:
        m, n = self.A.shape
        rows = rows_to_factor(m)
        for i in range(0, n, rows):
            part = slice(i, min(i + rows, n))
            block = self.A[:, part]
            yield part, block if self.roots is None else block * self.roots

    def residual(self, X: Array) -> Array:
        """B - A X in double precision."""
        double = np.result_type(X.dtype, np.float64)
        R = self.B.astype(double)
        for part, block in self.column_blocks():
            R -= block.astype(double, copy=False) @ X[part].astype(double, copy=False)
        return R


def equations(A: Array, b: Array, ridge: float, weights: Array | None) -> tuple[Equations, int]:
    """The equations, and the largest rank that their matrix can have, rows of weight zero being no rows."""
    B = b.reshape(len(b), -1)
    if weights is None:
        return Equations(A, B, ridge, None), len(b)
    held = to_host(weights)
    count = int(np.count_nonzero(held))
    kept = np.flatnonzero(held) if count else np.arange(1)
    roots = like(A, np.sqrt(held[kept])[:, None].astype(_check.real_dtype(A.dtype)))
    rows = like(A, kept)
    given = A if count == len(held) else A[rows]
    return Equations(given, B[rows] * roots.astype(_check.real_dtype(B.dtype)), ridge, roots), len(kept) if ridge else count


class _Factored:
    """[A'; sqrt(ridge) I] = Q R, from one block of rows to the next."""

    def __init__(self, problem: Equations, dtype: np.dtype):
        m, xp = len(problem.A), namespace(problem.A)
        self.R = xp.zeros((m if problem.ridge else 0, m), dtype)
        if problem.ridge:
            self.R[:] = math.sqrt(problem.ridge) * xp.eye(m, dtype=dtype)
        self.pieces: list[tuple[int, Array]] = []  # how many rows were those of the R before, and Q
        for _, block in problem.column_blocks():
            before = len(self.R)
            Q, self.R = xp.linalg.qr(xp.concatenate([self.R, block.conj().T.astype(dtype, copy=False)]))
            self.pieces.append((before, Q))

    def image(self, Z: Array) -> tuple[Array, Array]:
        """Q Z: the rows that belong to A', and those below them."""
        parts = []
        for before, Q in reversed(self.pieces):
            Z = Q @ Z
            parts.append(Z[before:])
            Z = Z[:before]
        return namespace(Z).concatenate(parts[::-1]), Z


def solve_wide(
    A: Array,
    b: Array,
    ridge: float,
    weights: Array | None,
    cut: float,
    dtype: np.dtype,
    seed: int,
) -> LstsqResult:
    """A and b are checked and not empty. One wait, and more where the rank is in doubt."""
    problem, full = equations(A, b, ridge, weights)
    m, xp = len(problem.A), namespace(A)
    factored = _Factored(problem, dtype)
    R, rank, notes = factored.R, full, ""
    Z = solve_triangular(R, problem.B.astype(dtype).conj(), transposed=True).conj()
    inverse = solve_triangular(R, xp.eye(m, dtype=dtype))
    bound = abs(R).sum(axis=0).max() * abs(inverse).sum(axis=0).max()
    size, cond = to_host(xp.stack([abs(Z).max(), bound]))
    if not (np.isfinite(size) and cond * 50 * m * cut < 1):
        _check.finite(A, "A")
        _check.finite(b, "b")
        # Scaled equations would be weights, which matter when they contradict each other: units decide here.
        left, right = to_host(R).conj().T, to_host(problem.B).astype(dtype)
        z, _, rank, _ = scipy.linalg.lstsq(left, right, cond=cut, lapack_driver="gelsd", check_finite=False)
        Z = like(A, z.astype(dtype, copy=False))
        notes = "" if rank == full else rank_note(int(rank), full, cut)
    X, below = factored.image(Z)
    residual = problem.residual(X)
    misfit = residual - math.sqrt(ridge) * below if ridge else residual
    evidence, residual_norms = _evidence(X, R, misfit, residual, int(rank), b)
    x = X[:, 0] if b.ndim == 1 else xp.ascontiguousarray(X)
    status = Status.RANK_DEFICIENT if notes else Status.DIRECT
    return LstsqResult(x, residual_norms, evidence=evidence, method="direct", seed=seed, status=status, passes=1, notes=notes)


def _evidence(
    X: Array, R: Array, misfit: Array, residual: Array, rank: int, b: Array
) -> tuple[Callable[[], Evidence], Callable[[], Any]]:
    """Functions for what comes to the host when it is asked for."""
    xp, eps = namespace(X), float(np.finfo(X.dtype).eps)
    largest = abs(X).max(axis=0)
    unit = xp.where(largest > 0, largest, 1)
    sizes = xp.sqrt((abs(X / unit) ** 2).sum(axis=0)) * unit

    def evidence() -> Evidence:
        _, sigma, Vh = scipy.linalg.svd(to_host(R).astype(np.result_type(R.dtype, np.float64)))
        frobenius, x_norms = float(norms(sigma)), to_host(sizes)
        scale = np.where(x_norms > 0, np.maximum(frobenius * x_norms, np.finfo(float).tiny), 1)
        # Only the part of the residual that the kept directions can remove counts.
        backward = norms((Vh[:rank] @ to_host(misfit)).T) / scale
        high, low = (float(sigma[0]), float(sigma[rank - 1])) if rank else (0.0, 0.0)
        cond = high / low if low > 0 else 1.0
        bounds = cond * (backward * frobenius / (high or 1.0) + eps)
        return Evidence(per_column(backward, b), per_column(bounds, b), rank, cond, lambda: sigma)

    return evidence, lambda: per_column(norms(to_host(residual).T), b)
