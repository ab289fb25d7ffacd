"""method "direct": LAPACK. QR where the columns are safely independent, else a rank decision by singular values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from . import _check
from ._numeric import norms, powers_of_two
from .certificate import Certificate
from .precondition import Factor
from .result import Evidence, LstsqResult, Status

_ROUTINES: dict[str, tuple[Any, Any]] = {
    "f": (lapack.sgels, lapack.strcon),
    "d": (lapack.dgels, lapack.dtrcon),
    "F": (lapack.cgels, lapack.ctrcon),
    "D": (lapack.zgels, lapack.ztrcon),
}


def solve_directly(a: np.ndarray, b: np.ndarray, ridge: float, rcond: float | None, seed: int) -> LstsqResult:
    """a and b are checked; a may be wide. The certificate is computed when asked for."""
    m, n = a.shape
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if m == 0 or n == 0 or b.size == 0:
        _check.finite(a, "A")
        _check.finite(b, "b")
        return _result(a, b, np.zeros((n, *b.shape[1:]), dtype), ridge, seed, Status.DIRECT, rank=0)
    cut = float(np.finfo(dtype).eps) * (10.0 if rcond is None else 1.0)
    cut = cut if rcond is None else max(rcond, cut)
    copy, rhs = _augmented(a, b, ridge, dtype)
    if len(copy) >= n:
        gels, trcon = _ROUTINES[dtype.char]
        factored, x, info = gels(copy, rhs, lwork=64 * (n + rhs.size // len(rhs)), overwrite_a=1, overwrite_b=1)
        if info == 0 and math.isfinite(math.fsum(x[:n].ravel().real)):
            R = factored[:n]
            # The 1-norm estimate may be off by a factor of n: well clear of the cut, the rank is n without doubt.
            safe = 50 * n * cut
            if trcon(R)[0] > safe or trcon(np.triu(R) * powers_of_two(norms(np.triu(R).T)).astype(R.real.dtype))[0] > safe:
                return _result(a, b, x[:n], ridge, seed, Status.DIRECT, R=R)
    _check.finite(a, "A")
    _check.finite(b, "b")
    return _by_singular_values(a, b, ridge, cut, dtype, seed)


def _augmented(a: np.ndarray, b: np.ndarray, ridge: float, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """[A; sqrt(ridge) I] and [b; 0] as LAPACK wants them, the second with room for x."""
    m, n = a.shape
    copy = np.empty((m + n if ridge else m, n), dtype, order="F")
    rhs = np.zeros((max(len(copy), n), *b.shape[1:]), dtype, order="F")
    copy[:m], rhs[:m] = a, b
    if ridge:
        copy[m:] = 0
        np.fill_diagonal(copy[m:], math.sqrt(ridge))
    return copy, rhs


def _by_singular_values(a: np.ndarray, b: np.ndarray, ridge: float, cut: float, dtype: np.dtype, seed: int) -> LstsqResult:
    n = a.shape[1]
    A, rhs = _augmented(a, b, ridge, dtype)
    rows, k = len(A), rhs.size // len(rhs)
    full = min(rows, n)
    if rows < n:
        x, _, rank, _ = scipy.linalg.lstsq(A, rhs[:rows], cond=cut, lapack_driver="gelsd", check_finite=False)
    else:
        # Columns of equal size, so that units cannot decide the rank; singular values of R, which gelsd blurs by its own
        # reduction to bidiagonal form.
        scale = powers_of_two(norms(A.T)).astype(A.real.dtype)
        R = _r(np.hstack([A * scale, rhs[:rows].reshape(rows, k)]))
        U, sigma, Vh = np.linalg.svd(R[:n, :n])
        rank = int(np.count_nonzero(sigma > cut * sigma[0]))
        y = Vh[:rank].conj().T @ ((U[:, :rank].conj().T @ R[:n, n:]) / sigma[:rank, None])
        x = scale[:, None] * y
        if rank < n:
            # Minimum norm in the variables of the caller, not in the scaled ones.
            relative = scale / scale.max()
            null = np.linalg.qr(relative[:, None] * Vh[rank:].conj().T)[0]
            x = x - null @ (null.conj().T @ x)
        x = x.reshape(n, *b.shape[1:]).astype(dtype, copy=False)
    if rank == full:
        return _result(a, b, x, ridge, seed, Status.DIRECT, rank=int(rank))
    notes = f"Rank {rank} of {full} with singular values cut at {cut:.2g} times the largest."
    return _result(a, b, x, ridge, seed, Status.RANK_DEFICIENT, rank=int(rank), notes=notes)


def _r(A: np.ndarray) -> np.ndarray:
    """R of a QR factorization, (n, n) also where A is wide (zero rows added)."""
    R = scipy.linalg.qr(A, mode="r", check_finite=False)[0][: A.shape[1]]
    return np.vstack([R, np.zeros((A.shape[1] - len(R), A.shape[1]), R.dtype)])


def _result(
    a: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    ridge: float,
    seed: int,
    status: Status,
    *,
    R: np.ndarray | None = None,
    rank: int | None = None,
    notes: str = "",
) -> LstsqResult:
    # The gradient is taken now: the caller may change A and b before asking for the evidence. In double precision where A is
    # small; a large float32 A is not copied for it.
    wide = np.result_type(a.dtype, np.float64) if a.size < 1 << 22 else a.dtype
    A, X, unit = a.astype(wide, copy=False), x.astype(wide, copy=False), _unit(b)
    with np.errstate(over="ignore", invalid="ignore"):
        r = unit * b - A @ (unit * X)
        gradient = A.conj().T @ r - ridge * unit * X
    size, count = norms(r.T) / unit, min(a.shape)
    residual_norms = norms(r.T)
    if R is not None:
        R = np.triu(R)
    elif x.size and a.size:
        R = _r(_augmented(a, b, ridge, x.dtype)[0])
    return LstsqResult(
        x,
        float(size) if b.ndim == 1 else size,
        evidence=lambda: _evidence(x, unit, residual_norms, gradient, ridge, R, rank, count),
        method="direct",
        seed=seed,
        status=status,
        passes=1,
        notes=notes,
    )


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
    X, G = (unit * x.astype(double)).reshape(len(x), -1), gradient.astype(double).reshape(len(x), -1)
    size = np.hypot(np.atleast_1d(residual_norms), math.sqrt(ridge) * norms(X.T))
    factor = _factor(R.astype(double), rank)
    if double.kind == "c":
        # A complex problem as a real one of twice the size: [Re, -Im; Im, Re] has each singular value twice.
        X, G = np.vstack([X.real, X.imag]), np.vstack([G.real, G.imag])
    certificate = Certificate(factor, factor.scale)
    rows, slopes = np.ascontiguousarray(X.T) / factor.scale, np.ascontiguousarray(G.T) * factor.scale
    backward = certificate.backward_errors(rows, size, slopes) * (math.sqrt(2) if double.kind == "c" else 1)
    bounds = certificate.error_bounds(rows, size, slopes, float(np.finfo(x.dtype).eps))
    kept = factor.rank // 2 if double.kind == "c" else factor.rank
    return Evidence(like(backward), like(bounds), kept, factor.cond, lambda: np.linalg.svd(R, compute_uv=False)[:count])


def _factor(upper: np.ndarray, rank: int | None) -> Factor:
    if upper.dtype.kind == "c":
        upper = np.asarray(np.linalg.qr(np.block([[upper.real, -upper.imag], [upper.imag, upper.real]]), mode="r"))
        rank = None if rank is None else 2 * rank
    n = len(upper)
    scale = powers_of_two(norms(upper.T))
    factor = Factor(np.asfortranarray(upper * scale), scale, np.zeros((0, n)), 1.0, rank=n, exact=True)
    if rank is not None and rank < n:
        _, factor.sigma, Vh = np.linalg.svd(factor.R)
        factor.V, factor.rank = np.ascontiguousarray(Vh.T), rank
    return factor
