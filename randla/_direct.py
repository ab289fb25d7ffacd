"""method "direct": LAPACK. QR where the columns are safely independent, else a rank decision by singular values."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from . import _check
from ._factor import Factor, own_factor
from ._matrix import wrap
from ._numeric import norms, powers_of_two
from .certificate import Certificate
from .result import Evidence, LstsqResult, Status, rank_note

_COPY_LIMIT = 1 << 15
_EPS = {c: float(np.finfo(c).eps) for c in "fdFD"}

_ROUTINES: dict[str, tuple[Any, Any, Any]] = {
    "f": (lapack.sgeqrf, lapack.strtrs, lapack.strcon),
    "d": (lapack.dgeqrf, lapack.dtrtrs, lapack.dtrcon),
    "F": (lapack.cgeqrf, lapack.ctrtrs, lapack.ctrcon),
    "D": (lapack.zgeqrf, lapack.ztrtrs, lapack.ztrcon),
}


def solve_directly(
    a: np.ndarray, b: np.ndarray, ridge: float, rcond: float | None, seed: int, weights: np.ndarray | None = None
) -> LstsqResult:
    """a and b are checked; a may be wide. The certificate is computed when asked for."""
    problem = _Problem(a, b, ridge, weights)
    m, n = a.shape
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if m == 0 or n == 0 or b.size == 0:
        _check.finite(a, "A")
        _check.finite(b, "b")
        return _result(problem, np.zeros((n, *b.shape[1:]), dtype), seed, Status.DIRECT, rank=0)
    eps = _EPS[dtype.char]
    # Rounding errors of R, measured on rank-deficient matrices, reach 3 eps and grow slowly with m.
    cut = eps * max(10.0 if eps < 1e-10 else 4.0, 0.02 * math.sqrt(m)) if rcond is None else max(rcond, eps)
    if m >= n or ridge:
        geqrf, trtrs, trcon = _ROUTINES[dtype.char]
        both = problem.augmented(dtype)
        # b rides along as further columns: cheaper than applying Q to it, and the same arithmetic.
        factored = geqrf(both, lwork=64 * both.shape[1], overwrite_a=1)[0]
        R = factored[:n, :n].copy(order="F")
        x, info = trtrs(R, factored[:n, n:])
        if info == 0 and np.isfinite(x.sum()):
            # The 1-norm estimate may be off by a factor of n: well clear of the cut, the rank is n without doubt.
            safe = 50 * n * cut
            if trcon(R)[0] > safe or trcon(np.triu(R) * powers_of_two(norms(np.triu(R).T)).astype(R.real.dtype))[0] > safe:
                return _result(problem, x[:, 0] if b.ndim == 1 else x, seed, Status.DIRECT, R=R)
    _check.finite(a, "A")
    _check.finite(b, "b")
    return _by_singular_values(problem, cut, dtype, seed)


class _Problem(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    ridge: float
    weights: np.ndarray | None

    def copy(self) -> _Problem:
        return _Problem(self.a.copy(), self.b.copy(), self.ridge, None if self.weights is None else self.weights.copy())

    def augmented(self, dtype: np.dtype, *, with_b: bool = True) -> np.ndarray:
        """[A, b; sqrt(ridge) I, 0] in Fortran order, its upper rows times the roots of the weights."""
        m, n = self.a.shape
        k = _columns(self.b).shape[1] if with_b else 0
        both = np.empty((m + n if self.ridge else m, n + k), dtype, order="F")
        both[:m, :n] = self.a
        both[:m, n:] = _columns(self.b)[:, :k]
        if self.weights is not None:
            both[:m] *= np.sqrt(self.weights)[:, None].astype(both.real.dtype)
        if self.ridge:
            both[m:] = 0
            np.fill_diagonal(both[m:, :n], math.sqrt(self.ridge))
        return both

    @property
    def full_rank(self) -> int:
        """The largest rank that the matrix can have, rows of weight zero being no rows."""
        m, n = self.a.shape
        if self.weights is not None:
            m = int(np.count_nonzero(self.weights))
        return min(m + n if self.ridge else m, n)


def _by_singular_values(problem: _Problem, cut: float, dtype: np.dtype, seed: int) -> LstsqResult:
    n = problem.a.shape[1]
    both = problem.augmented(dtype)
    A, rhs, rows = both[:, :n], both[:, n:], len(both)
    full = problem.full_rank
    if rows < n:
        x, _, rank, _ = scipy.linalg.lstsq(A, rhs, cond=cut, lapack_driver="gelsd", check_finite=False)
    else:
        # Columns of equal size, so that units cannot decide the rank; singular values of R, which gelsd blurs by its own
        # reduction to bidiagonal form.
        scale = powers_of_two(norms(A.T)).astype(A.real.dtype)
        A *= scale
        R = _r(both)
        U, sigma, Vh = scipy.linalg.svd(R[:n, :n], check_finite=False)
        rank = int(np.count_nonzero(sigma > cut * sigma[0]))
        y = Vh[:rank].conj().T @ ((U[:, :rank].conj().T @ R[:n, n:]) / sigma[:rank, None])
        x = scale[:, None] * y
        if rank < n:
            # Minimum norm in the variables of the caller, not in the scaled ones.
            relative = scale / scale.max()
            null = scipy.linalg.qr(relative[:, None] * Vh[rank:].conj().T, mode="economic")[0]
            x = x - null @ (null.conj().T @ x)
    x = x.reshape(n, *problem.b.shape[1:]).astype(dtype, copy=False)
    if rank == full:
        return _result(problem, x, seed, Status.DIRECT, rank=int(rank))
    notes = rank_note(int(rank), full, cut)
    return _result(problem, x, seed, Status.RANK_DEFICIENT, rank=int(rank), notes=notes)


def _r(A: np.ndarray) -> np.ndarray:
    """R of a QR factorization, (n, n) also where A is wide (zero rows added)."""
    R = scipy.linalg.qr(A, mode="r", check_finite=False)[0][: A.shape[1]]
    return np.vstack([R, np.zeros((A.shape[1] - len(R), A.shape[1]), R.dtype)])


def _result(
    problem: _Problem,
    x: np.ndarray,
    seed: int,
    status: Status,
    *,
    R: np.ndarray | None = None,
    rank: int | None = None,
    notes: str = "",
) -> LstsqResult:
    if problem.a.size <= _COPY_LIMIT:
        # The caller may change A and b before asking for the evidence: copies are cheaper than computing it unasked.
        solved = _Solved(problem.copy(), x, R, rank)
    else:
        solved = _Solved(problem, x, R, rank)
        solved.measure()
    return LstsqResult(
        x, solved.residual_norm, evidence=solved.evidence, method="direct", seed=seed, status=status, passes=1, notes=notes
    )


class _Solved:
    """A solved problem that gives its residual norm and its evidence when asked."""

    __slots__ = ("R", "count", "measured", "problem", "rank", "ridge", "single", "x")

    def __init__(self, problem: _Problem, x: np.ndarray, R: np.ndarray | None, rank: int | None):
        self.problem: _Problem | None = problem
        self.x, self.ridge, self.R, self.rank = x, problem.ridge, R, rank
        self.count, self.single = min(problem.a.shape), problem.b.ndim == 1
        self.measured: tuple[float, np.ndarray, np.ndarray] | None = None

    def measure(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Reads A and b for the last time."""
        if self.problem is not None:
            self.measured = _measure(self.problem, self.x)
            if self.R is None and self.x.size and self.problem.a.size:
                self.R = _r(self.problem.augmented(self.x.dtype, with_b=False))
            self.problem = None
        assert self.measured is not None
        return self.measured

    def residual_norm(self) -> Any:
        unit, residual_norms, _ = self.measure()
        return float(residual_norms / unit) if self.single else residual_norms / unit

    def evidence(self) -> Evidence:
        return _evidence(self.x, *self.measure(), self.ridge, self.R, self.rank, self.count)


def _measure(problem: _Problem, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """A power of two that brings b to size one; in that unit the residual norms and the gradient A'(w r) - ridge x."""
    unit, matrix, is_complex = _unit(problem.b), wrap(problem.a, problem.weights), x.dtype.kind == "c"
    # A complex matrix takes real and imaginary part as one row, a real one as two.
    join = np.hstack if matrix.copies == 2 else np.vstack

    def rows(v: np.ndarray) -> np.ndarray:
        v = _columns(v).T
        return np.array(join([v.real, v.imag]) if is_complex else v, np.float64, order="C") * unit

    X = rows(x)
    _, G, squares = matrix.residual(X, rows(problem.b))
    G -= problem.ridge * X
    if matrix.copies == 2:
        n = G.shape[1] // 2
        G = G[:, :n] + 1j * G[:, n:]
    elif is_complex:
        k = len(G) // 2
        G, squares = G[:k] + 1j * G[k:], squares[:k] + squares[k:]
    size = np.sqrt(squares)
    return unit, size[0] if x.ndim == 1 else size, G.T.reshape(x.shape)


def _columns(v: np.ndarray) -> np.ndarray:
    return v[:, None] if v.ndim == 1 else v


def _unit(b: np.ndarray) -> float:
    """A power of two that brings b to size one."""
    largest = float(np.abs(b).max(initial=0.0))
    return float(powers_of_two(np.array([largest]))[0]) if math.isfinite(largest) else 1.0


def _evidence(
    x: np.ndarray,
    unit: float,
    residual_norms: np.ndarray,
    gradient: np.ndarray,
    ridge: float,
    R: np.ndarray | None,
    rank: int | None,
    count: int,
) -> Evidence:
    """The Karlson-Walden estimate with A's own triangular factor, in double precision."""
    single = x.ndim == 1

    def like(values: np.ndarray) -> Any:
        return float(values[0]) if single else values

    if R is None:
        zero = np.zeros(1 if single else x.shape[1])
        return Evidence(like(zero), like(zero), 0, 1.0, lambda: np.zeros(0))
    double = np.result_type(x.dtype, np.float64)
    X, G = _columns(unit * x.astype(double)), _columns(gradient.astype(double))
    size = np.hypot(np.atleast_1d(residual_norms), math.sqrt(ridge) * norms(X.T))
    factor = _factor(np.triu(R).astype(double), rank)
    if double.kind == "c":
        # A complex problem as a real one of twice the size: [Re, -Im; Im, Re] has each singular value twice.
        X, G = np.vstack([X.real, X.imag]), np.vstack([G.real, G.imag])
    certificate = Certificate(factor, factor.scale)
    rows, slopes = np.ascontiguousarray(X.T) / factor.scale, np.ascontiguousarray(G.T) * factor.scale
    backward = certificate.backward_errors(rows, size, slopes) * (math.sqrt(2) if double.kind == "c" else 1)
    bounds = certificate.error_bounds(rows, size, slopes, float(np.finfo(x.dtype).eps))
    kept = factor.rank // 2 if double.kind == "c" else factor.rank
    return Evidence(like(backward), like(bounds), kept, factor.cond, lambda: scipy.linalg.svdvals(np.triu(R))[:count])


def _factor(upper: np.ndarray, rank: int | None) -> Factor:
    if upper.dtype.kind == "c":
        upper = _r(np.block([[upper.real, -upper.imag], [upper.imag, upper.real]]))
        rank = None if rank is None else 2 * rank
    return own_factor(upper, rank)
