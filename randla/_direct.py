"""method "direct": LAPACK. QR where the columns are safely independent, else a rank decision by singular values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from . import _check
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
        _check.finite(b, "b")
        x = np.zeros((n, *b.shape[1:]), dtype)
        return _result(a, b, x, ridge, seed, Status.DIRECT, None, "", np.zeros(0))
    copy = np.empty((m + n if ridge else m, n), dtype, order="F")
    rhs = np.zeros((max(len(copy), n), *b.shape[1:]), dtype, order="F")
    copy[:m], rhs[:m] = a, b
    if ridge:
        copy[m:] = 0
        np.fill_diagonal(copy[m:], math.sqrt(ridge))
    eps = float(np.finfo(dtype).eps)
    cut = max(m, n) * eps if rcond is None else max(rcond, eps)
    if len(copy) >= n:
        gels, trcon = _ROUTINES[dtype.char]
        factored, x, info = gels(copy, rhs, lwork=64 * (n + rhs.size // len(rhs)), overwrite_a=1, overwrite_b=1)
        if info == 0:
            R = factored[:n]
            rcond_one = trcon(R)[0]
            # The 1-norm estimate may be off by a factor of n: well clear of the cut, the rank is n without doubt.
            if rcond_one > 50 * n * cut and math.isfinite(math.fsum(x[:n].ravel().real)):
                return _result(a, b, x[:n], ridge, seed, Status.DIRECT, R, "", None)
    _check.finite(a, "A")
    _check.finite(b, "b")
    return _by_singular_values(a, b, ridge, cut, dtype, seed)


def _by_singular_values(a: np.ndarray, b: np.ndarray, ridge: float, cut: float, dtype: np.dtype, seed: int) -> LstsqResult:
    m, n = a.shape
    A, rhs = a.astype(dtype), b.astype(dtype)
    if ridge:
        A = np.vstack([A, math.sqrt(ridge) * np.eye(n, dtype=dtype)])
        rhs = np.concatenate([rhs, np.zeros((n, *b.shape[1:]), dtype)])
    # Columns of equal size, so that units cannot decide the rank.
    size = np.abs(A).max(axis=0, initial=0.0)
    scale = np.where(size > 0, np.ldexp(1.0, np.clip(1 - np.frexp(size)[1], -1000, 1000)), 1.0).astype(A.real.dtype)
    if m < n:
        scale = np.ones_like(scale)  # the solution of minimum norm depends on the units of x
    A *= scale
    y, _, rank, s = scipy.linalg.lstsq(A, rhs, cond=cut, lapack_driver="gelsd", check_finite=False)
    x = (scale * y.T).T
    if rank < min(len(A), n):
        # Minimum norm in the variables of the caller, not in the scaled ones.
        null = scipy.linalg.qr(scale[:, None] * scipy.linalg.svd(A if len(A) < 2 * n else _r(A))[2][rank:].conj().T)[0]
        null = null[:, : n - rank]
        x = x - null @ (null.conj().T @ x)
        notes = f"Rank {rank} of {min(len(A), n)} with singular values cut at {cut:.2g} times the largest."
        return _result(a, b, x, ridge, seed, Status.RANK_DEFICIENT, None, notes, None, int(rank), cut)
    return _result(a, b, x, ridge, seed, Status.DIRECT, None, "", None, int(rank), cut)


def _r(A: np.ndarray) -> np.ndarray:
    return scipy.linalg.qr(A, mode="r", check_finite=False)[0][: A.shape[1]]


def _result(
    a: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    ridge: float,
    seed: int,
    status: Status,
    R: np.ndarray | None,
    notes: str,
    s: np.ndarray | None,
    rank: int | None = None,
    cut: float = 0.0,
) -> LstsqResult:
    r = b - a @ x
    residual_norm = np.linalg.norm(r, axis=0) if r.ndim == 2 else math.sqrt(np.vdot(r, r).real)
    return LstsqResult(
        x,
        residual_norm,
        evidence=_evidence(a, b, x, ridge, R, s, rank, cut),
        method="direct",
        seed=seed,
        status=status,
        passes=1,
        notes=notes,
    )


def _evidence(
    a: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    ridge: float,
    R: np.ndarray | None,
    s: np.ndarray | None,
    rank: int | None,
    cut: float,
) -> Callable[[], Evidence]:
    """The Karlson-Walden estimate with the singular values of A itself, in double precision."""

    def make() -> Evidence:
        double = np.result_type(a.dtype, np.float64)
        A, X = a.astype(double, copy=False), x.astype(double, copy=False).reshape(len(x), -1)
        if A.size == 0 or X.size == 0:
            zero = np.zeros(X.shape[1])
            return Evidence(_like(zero, b), _like(zero, b), 0, 1.0, lambda: np.zeros(0))
        residual = b.reshape(len(b), -1) - A @ X
        gradient = A.conj().T @ residual - ridge * X
        if R is not None:
            upper = np.triu(R).astype(double)
        else:
            augmented = np.vstack([A, math.sqrt(ridge) * np.eye(A.shape[1])]) if ridge else A
            upper = _r(augmented)
        sigma, Vh = np.linalg.svd(upper)[1:]
        sigma = np.concatenate([sigma, np.zeros(len(Vh) - len(sigma))])
        kept = len(sigma) if rank is None else rank
        components = np.abs(Vh @ gradient)
        norms = np.sqrt(np.linalg.norm(residual, axis=0) ** 2 + ridge * np.linalg.norm(X, axis=0) ** 2)
        x_norms = np.linalg.norm(X, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            phi = norms / x_norms
            weighted = np.linalg.norm(components / np.sqrt(sigma[:, None] ** 2 + phi**2), axis=0) / x_norms
            backward = np.where(x_norms > 0, weighted, np.linalg.norm(gradient, axis=0) / norms)
            backward = np.where(norms > 0, backward, 0.0) / np.linalg.norm(sigma)
        backward = np.nan_to_num(backward)
        column = np.linalg.norm(upper, axis=0)
        equal = np.linalg.svd(upper / np.where(column > 0, column, 1), compute_uv=False)
        eps = float(np.finfo(x.dtype).eps)
        cond = float(equal[0] / equal[kept - 1]) if kept > 0 and equal[kept - 1] > 0 else 1.0
        safe = np.where(x_norms > 0, x_norms, 1)
        lift = norms / np.where(x_norms > 0, sigma[0] * x_norms, 1) if sigma[0] > 0 else norms * 0
        correction = np.linalg.norm((components[:kept].T / sigma[:kept] ** 2).T, axis=0) / safe
        bounds = np.where(x_norms > 0, 1.2 * correction + eps * cond * (1 + cond * lift), 0.0)
        return Evidence(_like(backward, b), _like(bounds, b), kept, cond, lambda: sigma[: min(A.shape)].astype(x.real.dtype))

    return make


def _like(values: np.ndarray, b: np.ndarray) -> Any:
    return float(values[0]) if b.ndim == 1 else values
