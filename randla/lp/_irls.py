"""lp regression as a sequence of weighted least-squares problems: what every method needs, and Newton's method for p >= 2."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from .. import _numeric
from .._matrix import RowBlocks, wrap
from .._numeric import norms
from .._rows import Rows
from ..precondition import rank_cut, sketched_factor

_BLOCK = 1 << 19  # entries of A at a time: 4 MB
_ROWS_PER_COLUMN = 8  # of the sketch
_EPS = float(np.finfo(np.float64).eps)
_GROWTH, _EARLY = 3.0, 0.1  # of the exponent between the stages of Newton's method, and the gap at which a stage ends
_PATIENCE = 8  # iterations without a smaller gap


class Basis:
    """N (n, r) such that U = A N has orthonormal columns up to cond(A) eps. U is made in blocks and never stored."""

    def __init__(self, a: Any, seed: int):
        self.a, self.matrix, self.weighted_passes = a, wrap(a), 0
        (m, n), eps = self.matrix.shape, float(np.finfo(self.matrix.dtype).eps)
        d = _ROWS_PER_COLUMN * n + 8
        self.cut = rank_cut(eps, m, d)
        sketch = self.matrix.default_sketch
        factor = sketched_factor(self.matrix, np.zeros((0, m)), sketch, d, seed, ridge=0.0, rcond=self.cut)
        factor.improve(self.matrix, 0.0)
        self.factor, self.rank = factor, factor.rank
        self.map = factor.row_map()
        with np.errstate(over="ignore", invalid="ignore"):  # columns below the smallest normal number: a status says so
            self.N = np.asfortranarray(factor.scale[:, None] * self.map.T)

    @property
    def passes(self) -> int:
        """Reads of A."""
        return self.matrix.passes + self.weighted_passes

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(i0, i1, columns i0:i1 of U' in Fortran order); for complex A the two real rows of each follow in two halves."""
        n, i0 = self.matrix.shape[1], 0
        for block in self.matrix.row_blocks(max(256, _BLOCK // max(1, n))):
            i1 = i0 + len(block) // self.matrix.copies
            yield i0, i1, blas.dgemm(1.0, self.N, block.T, trans_a=1)
            i0 = i1

    def gram(self, weights: np.ndarray) -> np.ndarray:
        """U' diag(weights) U, for real A."""
        self.weighted_passes += 1
        return wrap(self.a, weights).gram(self.map)

    def step(self, z: np.ndarray) -> np.ndarray:
        return blas.dgemv(1.0, self.N, z)

    def times(self, x: np.ndarray) -> np.ndarray:
        """A x."""
        return self.matrix.times(x[None, :])[0]

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """U'y."""
        return blas.dgemv(1.0, self.N, self.matrix.adjoint_times(y[None, :])[0], trans=1)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows of U."""
        self.weighted_passes += isinstance(self.a, RowBlocks)
        return blas.dgemm(1.0, Rows(self.a).take(index).T, self.N, trans_a=1)

    def minimum_norm(self, x: np.ndarray) -> np.ndarray:
        null = self.factor.null_space()
        return x if null is None else x - null @ (null.T @ x)


def cholesky(gram: np.ndarray) -> np.ndarray:
    """Upper triangular R with R'R near the positive semidefinite matrix, shifted by as little as makes it definite.

    NaN where there is nothing to factor.
    """
    shift = 0.0
    unit = max(float(gram.diagonal().max(initial=0.0)), float(np.finfo(np.float64).tiny))
    while shift < 1:
        shifted = gram / unit
        shifted[np.diag_indices_from(shifted)] += shift
        R = _numeric.cholesky(shifted)
        if R is not None:
            return R * math.sqrt(unit)
        shift = max(100 * shift, 4 * _EPS * len(gram))
    return np.full_like(gram, np.nan)


def norm(r: np.ndarray, p: float) -> float:
    """p-norm, without overflow."""
    largest = float(np.abs(r).max(initial=0.0))
    if largest == 0 or p == math.inf:
        return largest
    return largest * float(((np.abs(r) / largest) ** p).sum()) ** (1 / p)


@dataclasses.dataclass
class Outcome:
    """The best x with its residual r = b - A x, and the best dual vector: A'y = 0 and ||y||_q = 1."""

    x: np.ndarray
    r: np.ndarray
    y: np.ndarray
    objective: float
    bound: float = 0.0
    exact: bool = False
    converged: bool = False
    iterations: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def gap(self) -> float:
        return max(self.objective - self.bound, 0.0) / self.objective if self.objective > 0 else 0.0


class Problem:
    """min ||A x - b||_p through a basis, and the lower bounds that dual vectors give."""

    def __init__(self, basis: Basis, b: np.ndarray, p: float, tol: float, maxiter: int, x: np.ndarray | None = None):
        self.basis, self.b, self.p, self.tol, self.maxiter = basis, b, p, tol, maxiter
        self.q = p / (p - 1) if p > 1 else math.inf
        self.start_time = time.perf_counter()
        steps = 4 if x is None else 0  # N is an explicit inverse: the first solution is refined
        x = np.zeros(basis.matrix.shape[1]) if x is None else x
        r = b - basis.times(x)
        for _ in range(steps):
            correction = basis.step(basis.adjoint(r))
            x = x + correction
            new = b - basis.times(x)
            done = not norms(new - r) > 1e-13 * norms(r)
            r = new
            if done:
                break
        self.best = Outcome(x, r, np.zeros(len(b)), norm(r, p))
        self.best.exact = self._is_exact(self.best.objective)
        self._stalled, self._smallest = 0, math.inf

    def _is_exact(self, objective: float) -> bool:
        return objective <= 32 * _EPS * math.sqrt(max(self.basis.rank, 1)) * norm(self.b, self.p)

    def offer(self, x: np.ndarray, r: np.ndarray, y: np.ndarray, progress: float | None, **entry: float) -> np.ndarray:
        """Note an iterate and a dual vector y, feasible or nearly so; returns U'y. `progress` falls where it is given."""
        best, objective = self.best, norm(r, self.p)
        if objective < best.objective:
            best.x, best.r, best.objective = x, r, objective
        best.exact |= self._is_exact(objective)
        left = self.basis.adjoint(y)
        if self._bound(r, y, left) and not best.converged:
            self.project(r, y, left)
        spent = time.perf_counter() - self.start_time
        best.history.append({"iteration": best.iterations, "time": spent, "residual_norm": objective, "gap": best.gap, **entry})
        if progress is not None:
            self._stalled = 0 if progress < 0.9 * self._smallest else self._stalled + 1
            self._smallest = min(self._smallest, progress)
        return left

    @property
    def finished(self) -> bool:
        return self.best.exact or self.best.converged or self._stalled >= _PATIENCE

    def settle(self) -> None:
        """Judge the end: rounding keeps A'y from zero by eps cond(A), and gaps of that size are as good as none."""
        self.best.converged |= self.best.gap <= max(self.tol, 4 * _EPS * self.basis.factor.cond)

    def _bound(self, r: np.ndarray, y: np.ndarray, left: np.ndarray) -> bool:
        """Take the lower bound b'y / ||y||_q, less what U'y = left costs; whether without that it would be good enough.

        b'y - x*'A'y = r'y - (z* - z)'U'y for the minimizer x*, and ||U (z* - z)|| <= ||r|| + ||r*||.
        """
        size, best = norm(y, self.q), self.best
        if size == 0:
            return False
        wide = len(r) ** max(0.0, 0.5 - 1 / self.p)
        distance = (float(norms(r)) + wide * best.objective) / (1 - self.basis.factor.distortion)
        bound, loss = float(blas.ddot(y, r)) / size, float(norms(left)) / size * distance
        if bound - loss > best.bound:
            best.bound, best.y = bound - loss, y / size
        best.converged |= best.gap <= self.tol
        return best.objective - bound <= self.tol * best.objective

    def project(self, r: np.ndarray, y: np.ndarray, left: np.ndarray) -> None:
        """The bound of y made feasible. What rounding still takes from it, further steps would not win."""
        for _ in range(2):
            y = y - self.basis.times(self.basis.step(left))
            left = self.basis.adjoint(y)
        good = self._bound(r, y, left)
        small = float(norms(left)) <= 64 * _EPS * self.basis.factor.cond * float(norms(y))
        self.best.converged |= good and small


def newton(problem: Problem) -> None:
    """p >= 2: Newton steps with exact line search while the exponent grows to p.

    The direction is that of iteratively reweighted least squares with weights |r|^(p - 2); raising the exponent by stages keeps
    them from being those of a few rows too early (Adil, Peng, Sachdeva 2019 do so too).
    """
    basis, b, p, best = problem.basis, problem.b, problem.p, problem.best
    exponent, x, r = min(p, 2 * _GROWTH), best.x, best.r
    while not problem.finished and best.iterations < problem.maxiter:
        best.iterations += 1
        weights = (np.abs(r) / np.abs(r).max()) ** (exponent - 2)
        R = cholesky(basis.gram(weights))
        dx = basis.step(lapack.dpotrs(R, basis.adjoint(weights * r))[0])
        v = basis.times(dx)
        y = weights * (r - v)
        size = norm(y, exponent / (exponent - 1)) * norm(r, exponent)
        gap = 1 - float(blas.ddot(y, r)) / size if size > 0 else 1.0
        if exponent < p and gap <= _EARLY:
            exponent = min(p, exponent * _GROWTH)
            continue
        problem.offer(x, r, y, gap if exponent == p else None, exponent=exponent)
        if not problem.finished:
            x = x + minimizer(r, v, exponent) * dx
            r = b - basis.times(x)


def minimizer(r: np.ndarray, v: np.ndarray, p: float) -> float:
    """t > 0 that minimizes ||r - t v||_p, up to 0.1 percent of the slope, for a direction v of descent."""
    unit = float(np.abs(v).max(initial=0.0))
    if unit == 0:
        return 0.0
    v = v / unit

    def slopes(t: float) -> tuple[float, float]:
        s = r - t * v
        f = norm(s, p)
        if f == 0:
            return 0.0, 0.0
        s /= f
        weights = np.abs(s) ** (p - 2)
        first = -float(blas.ddot(weights * s, v))
        return first, (p - 1) / f * (float(blas.ddot(weights * v, v)) - first**2)

    low, high = 0.0, 2 * norm(r, p) / norm(v, p)  # beyond that the norm exceeds its value at zero
    first, moved = abs(slopes(0.0)[0]), high
    t = min(unit / (p - 1), high / 2)
    for _ in range(100):
        slope, curvature = slopes(t)
        if abs(slope) <= 1e-3 * first or high - low <= 1e-3 * high:
            break
        low, high = (t, high) if slope < 0 else (low, t)
        new = t - slope / curvature if curvature > 0 else math.nan
        if not low < new < high or abs(new - t) > moved / 2:
            new = (low + high) / 2
        moved, t = abs(new - t), new
    return t / unit
