"""method "direct": LAPACK. QR where the columns are safely independent, else a rank decision by singular values."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from . import _check
from ._backend import like, namespace, on_device, rows_to_factor, solve_triangular, to_host
from ._device_wide import solve_wide
from ._factor import Factor, own_factor
from ._matrix import wrap
from ._numeric import norms, powers_of_two
from .certificate import Certificate
from .result import Evidence, LstsqResult, Status, rank_note

_COPY_LIMIT = 1 << 15
_EPS = {c: float(np.finfo(c).eps) for c in "fdFD"}
_ORDINARY = {c: (float(np.finfo(c).tiny) / eps, float(np.finfo(c).max) * eps) for c, eps in _EPS.items()}

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
    xp = namespace(a)
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if m == 0 or n == 0 or b.size == 0:
        _check.finite(a, "A")
        _check.finite(b, "b")
        return _result(problem, xp.zeros((n, *b.shape[1:]), dtype), seed, Status.DIRECT, rank=0)
    eps = _EPS[dtype.char]
    # Rounding errors of R, measured on rank-deficient matrices, reach 3 eps and grow slowly with m.
    cut = eps * max(10.0 if eps < 1e-10 else 4.0, 0.02 * math.sqrt(m)) if rcond is None else max(rcond, eps)
    if on_device(a):
        if m < n:
            return solve_wide(a, b, ridge, weights, cut, dtype, seed)
        return _solve_on_device(problem, cut, dtype, seed)
    if m >= n or ridge:
        geqrf, trtrs, trcon = _ROUTINES[dtype.char]
        both = problem.augmented(dtype)
        # b rides along as further columns: cheaper than applying Q to it, and the same arithmetic.
        factored = geqrf(both, lwork=64 * both.shape[1], overwrite_a=1)[0]
        R = factored[:n, :n].copy(order="F")
        x, info = trtrs(R, factored[:n, n:])
        if info == 0 and np.isfinite(x).all() and not _extreme(R.diagonal()):
            # The 1-norm estimate may be off by a factor of n: well clear of the cut, the rank is n without doubt.
            safe = 50 * n * cut
            if trcon(R)[0] > safe or trcon(np.triu(R) * powers_of_two(norms(np.triu(R).T)).astype(R.real.dtype))[0] > safe:
                return _result(problem, x[:, 0] if b.ndim == 1 else x, seed, Status.DIRECT, R=R)
    _check.finite(a, "A")
    _check.finite(b, "b")
    scaled = _InUnits(problem)
    if scaled.needed:
        return scaled.result(_by_singular_values(scaled.problem, cut, dtype, seed), dtype)
    return _by_singular_values(problem, cut, dtype, seed)


def _extreme(sizes: np.ndarray) -> bool:
    """Whether numbers of these sizes are so small or so large that products with them suffer."""
    low, high = _ORDINARY[sizes.dtype.char]
    plain = [abs(v) for v in sizes.tolist()]  # of few numbers quicker than arrays
    return not (min(plain) > low and max(plain) < high)


class _InUnits:
    """A problem with A, and each column of b, multiplied by powers of two that make them of size one, and the way back."""

    def __init__(self, problem: _Problem):
        a, b, ridge, weights = problem
        roots = 1.0 if weights is None else np.sqrt(weights)
        size = np.abs(a)
        rows = (size.max(axis=1).astype(np.float64) * roots).max()
        sizes = abs(_columns(b)).max(axis=0).astype(np.float64)
        largest = np.array([max(rows, math.sqrt(ridge))])
        limits = np.finfo(size.dtype)
        self.needed = any(_extreme(v[v > 0].astype(size.dtype)) for v in (largest, sizes) if v.any())
        if self.needed:
            self.of_a, self.of_b = float(powers_of_two(largest)[0]), powers_of_two(sizes)
            columns = size.max(axis=0)
            if self.of_a < 1 and (columns[columns > 0] * self.of_a < limits.tiny / limits.eps).any():
                # This would lose small columns: no more than sums of the largest entries need.
                self.of_a = 2.0**-12
            unit = self.of_b if b.ndim == 2 else self.of_b[0]
            double = np.result_type(a.dtype, np.float64), np.result_type(b.dtype, np.float64)
            ridge = (math.sqrt(ridge) * self.of_a) ** 2
            self.problem = _Problem(a.astype(double[0]) * self.of_a, b.astype(double[1]) * unit, ridge, weights)

    def result(self, solved: LstsqResult, dtype: np.dtype) -> LstsqResult:
        inner = _columns(solved.x).astype(np.result_type(dtype, np.float64))
        exponents = np.log2(self.of_a) - np.log2(self.of_b)
        # In two steps, as the quotient may overflow.
        half = exponents // 2
        with np.errstate(all="ignore"):
            x = (inner * np.exp2(half) * np.exp2(exponents - half)).astype(dtype)
            sizes, finite = norms(inner.T), np.isfinite(x).all(axis=0)
            back = np.where(finite, x, 0).astype(inner.dtype) * np.exp2(-half) * np.exp2(half - exponents)
            rounding = norms((back - inner).T) / np.where(sizes > 0, sizes, 1)
        x = x.reshape(solved.x.shape)

        def evidence() -> Evidence:
            known = solved._evidence
            reached = [np.where(finite, v + rounding, np.inf) for v in (known.backward_error, known.error_bound)]
            backward, bounds = (float(v[0]) for v in reached) if x.ndim == 1 else reached
            return Evidence(backward, bounds, known.rank, known.cond, lambda: solved.s / self.of_a)

        return LstsqResult(
            x,
            lambda: solved.residual_norm / (self.of_b if x.ndim == 2 else float(self.of_b[0])),
            evidence=evidence,
            method="direct",
            seed=solved.seed,
            status=solved.status if finite.all() else Status.OVERFLOWED,
            passes=solved.passes,
            notes=solved.notes,
        )


def _solve_on_device(problem: _Problem, cut: float, dtype: np.dtype, seed: int) -> LstsqResult:
    """QR there, m >= n. What the host waits for decides the rank; R comes to it where that is in doubt, or for the evidence."""
    n, xp = problem.a.shape[1], namespace(problem.a)
    R, target = _r_on_device(problem, dtype)
    x = solve_triangular(R, target)
    # Columns of equal size, so that units cannot decide.
    scaled = R / abs(R).max(axis=0)
    inverse = solve_triangular(scaled, xp.eye(n, dtype=R.dtype))
    bound = abs(scaled).sum(axis=0).max() * abs(inverse).sum(axis=0).max()
    size, cond = to_host(xp.stack([abs(x).max(), bound]))
    if np.isfinite(size) and cond * 50 * n * cut < 1:
        solution = x[:, 0] if problem.b.ndim == 1 else xp.ascontiguousarray(x)
        return _result(problem, solution, seed, Status.DIRECT, R=R)
    _check.finite(problem.a, "A")
    _check.finite(problem.b, "b")
    right = to_host(target)
    reduced = _Problem(to_host(R), right[:, 0] if problem.b.ndim == 1 else right, 0.0, None)
    x, rank = _truncated(reduced, cut, dtype)
    return _ranked(problem, like(problem.a, x), rank, problem.full_rank, cut, seed)


def _r_on_device(problem: _Problem, dtype: np.dtype) -> tuple[Any, Any]:
    """R and Q'b of [A; sqrt(ridge) I], block by block: cuSOLVER counts entries in 32 bits, and CuPy copies what it factors."""
    a, b, xp = problem.a, _columns(problem.b), namespace(problem.a)
    (m, n), k = a.shape, b.shape[1]
    R = xp.zeros((n if problem.ridge else 0, n + k), dtype)
    if problem.ridge:
        R[:, :n] = math.sqrt(problem.ridge) * xp.eye(n, dtype=dtype)
    roots = None if problem.weights is None else xp.sqrt(problem.weights)[:, None].astype(_check.real_dtype(dtype))
    rows = rows_to_factor(n + k)
    for i in range(0, m, rows):
        block = xp.concatenate([a[i : i + rows], b[i : i + rows]], axis=1)
        if roots is not None:
            block = block * roots[i : i + rows]
        R = xp.linalg.qr(xp.concatenate([R, block]), mode="r")
    return R[:n, :n], R[:n, n:]


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
            m = int(namespace(self.weights).count_nonzero(self.weights))
        return min(m + n if self.ridge else m, n)


def _by_singular_values(problem: _Problem, cut: float, dtype: np.dtype, seed: int) -> LstsqResult:
    with np.errstate(over="ignore", invalid="ignore"):
        x, rank = _truncated(problem, cut, dtype)
    return _ranked(problem, x, rank, problem.full_rank, cut, seed)


def _truncated(problem: _Problem, cut: float, dtype: np.dtype) -> tuple[np.ndarray, int]:
    """The solution of minimum norm with the singular values that are not zero, and how many these are."""
    n = problem.a.shape[1]
    both = problem.augmented(dtype)
    A, rhs, rows = both[:, :n], both[:, n:], len(both)
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
    return x.reshape(n, *problem.b.shape[1:]).astype(dtype, copy=False), int(rank)


def _ranked(problem: _Problem, x: np.ndarray, rank: int, full: int, cut: float, seed: int) -> LstsqResult:
    if not namespace(x).isfinite(x).all():
        return _result(problem, x, seed, Status.OVERFLOWED, rank=rank)
    if rank == full:
        return _result(problem, x, seed, Status.DIRECT, rank=rank)
    return _result(problem, x, seed, Status.RANK_DEFICIENT, rank=rank, notes=rank_note(rank, full, cut))


def _r(A: np.ndarray) -> np.ndarray:
    """R of a QR factorization, with as many rows as columns at most."""
    return scipy.linalg.qr(A, mode="r", check_finite=False)[0][: A.shape[1]]


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
        self.measured: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads A and b for the last time."""
        if self.problem is not None:
            self.measured = _measure(self.problem, self.x)
            if self.R is None and self.x.size and self.problem.a.size:
                self.R = _own_r(self.problem, self.x.dtype)
            self.problem = None
        assert self.measured is not None
        return self.measured

    def residual_norm(self) -> Any:
        unit, residual_norms, _ = self.measure()
        return float(residual_norms / unit[0]) if self.single else residual_norms / unit

    def evidence(self) -> Evidence:
        measured = self.measure()
        R = None if self.R is None else to_host(self.R)
        return _evidence(to_host(self.x), *measured, self.ridge, R, self.rank, self.count)


def _measure(problem: _Problem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Powers of two that bring the columns of b to size one; in these units residual norms and gradients A'(w r) - ridge x."""
    unit, matrix, is_complex = _unit(problem.b), wrap(problem.a, problem.weights), x.dtype.kind == "c"

    def rows(v: np.ndarray) -> np.ndarray:
        v, xp = _columns(v).T, namespace(v)
        v = v.astype(xp.complex128 if v.dtype.kind == "c" else np.float64) * like(v, unit)[:, None]
        if is_complex:
            # A complex matrix takes real and imaginary part as one row, a real one as two.
            v = xp.concatenate([v.real, v.imag], axis=1 if matrix.copies == 2 else 0)
        return xp.ascontiguousarray(v)

    x = to_host(x)
    X = rows(x)
    G, squares = matrix.evaluated(X, rows(problem.b))
    G -= problem.ridge * X
    if matrix.copies == 2:
        n = G.shape[1] // 2
        G = G[:, :n] + 1j * G[:, n:]
    elif is_complex:
        k = len(G) // 2
        G, squares = G[:k] + 1j * G[k:], squares[:k] + squares[k:]
    size = np.sqrt(squares)
    return unit, size[0] if x.ndim == 1 else size, G.T.reshape(x.shape)


def _own_r(problem: _Problem, dtype: np.dtype) -> Any:
    if on_device(problem.a):
        return _r_on_device(problem, dtype)[0]
    return _r(problem.augmented(dtype, with_b=False))


def _columns(v: np.ndarray) -> np.ndarray:
    return v[:, None] if v.ndim == 1 else v


def _unit(b: np.ndarray) -> np.ndarray:
    """Powers of two that bring the columns of b to size one."""
    return powers_of_two(to_host(abs(_columns(b)).max(axis=0)) if len(b) else np.zeros(_columns(b).shape[1]))


def _evidence(
    x: np.ndarray,
    unit: np.ndarray,
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
