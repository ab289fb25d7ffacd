"""Orthonormal bases of blocks: Cholesky QR twice where it is stable, Householder's QR elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from .. import _check, _cpu
from .._backend import gram_matrix, like, namespace, on_device, rows_of_block, solve_triangular, to_host
from ._real_form import complex_gram, parts

# Condition number of the scaled columns, estimated in the 1-norm, up to which a first Cholesky QR leaves nearly orthonormal
# ones; that of such columns; and its inverse, from which on one Cholesky QR is enough.
_CONDITION, _NEARLY, _ONCE = 1e6, 100.0, 0.2
# Up to this many columns own kernels make Gram matrices in float64 faster than BLAS adds them up.
_OWN_COLUMNS = 512


def gram(Y: np.ndarray) -> np.ndarray:
    """Y^H Y in float64 or complex128, whatever the precision of Y; on the host, also for a Y of a device."""
    if on_device(Y):
        return to_host(_device_gram(Y))
    Y = np.ascontiguousarray(Y)
    if Y.dtype.kind != "c":
        G = np.zeros((Y.shape[1], Y.shape[1]))
        if Y.shape[1] > _OWN_COLUMNS and Y.dtype == np.float64:
            upper = blas.dsyrk(1.0, Y.T)
            return np.triu(upper) + np.triu(upper, 1).T
        _cpu.gram(Y, None, False, None, None, G)
        return G
    return complex_gram(gram(parts(Y)))


def _device_gram(Y: Any) -> Any:
    wide = np.result_type(Y.dtype, np.float64)
    G = namespace(Y).zeros((Y.shape[1], Y.shape[1]), wide)
    step = len(Y) if Y.dtype == wide else rows_of_block(Y.shape[1], 64)
    for i in range(0, len(Y), max(step, 1)):
        rows = Y[i : i + step].astype(wide, copy=False)
        G += rows.conj().T @ rows if wide.kind == "c" else gram_matrix(rows)
    return G


def orthonormalize(Y: np.ndarray) -> np.ndarray:
    """Orthonormal columns whose span holds that of Y, (m, min(m, k)) in C order and the dtype of Y.

    Columns beyond the numerical rank of Y are arbitrary but orthonormal as well. Y is finite.
    """
    m, k = Y.shape
    if k < m:
        Q, rcond = _cholesky_qr(Y, _CONDITION)
        if Q is not None and rcond < _ONCE:
            Q, _ = _cholesky_qr(Q, _NEARLY)
        if Q is not None:
            return Q
    return householder(Y)[0]


def householder(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q (m, r) in C order and upper triangular R (r, k), r = min(m, k), by LAPACK; R on the host, also for a Y of a device."""
    m, k = Y.shape
    r = min(m, k)
    if r == 0:
        return namespace(Y).zeros((m, 0), Y.dtype), np.zeros((0, k), Y.dtype)
    if on_device(Y):
        sizes = column_sizes(Y)
        Q, R = namespace(Y).linalg.qr(Y / sizes)
        return namespace(Y).ascontiguousarray(Q), to_host(R * sizes)
    geqrf, ungqr = lapack.get_lapack_funcs(("geqrf", "ungqr" if Y.dtype.kind == "c" else "orgqr"), dtype=Y.dtype)
    # Columns of one size: tiny ones do not underflow, large ones do not overflow.
    sizes = column_sizes(Y)
    factors = np.array(Y / sizes, order="F")
    factors, tau, _, _ = geqrf(factors, overwrite_a=1)
    R = np.triu(factors[:r]) * sizes
    Q = ungqr(np.asfortranarray(factors[:, :r]), tau, overwrite_a=1)[0]
    return np.ascontiguousarray(Q), R


def column_sizes(Y: np.ndarray) -> np.ndarray:
    """Powers of two of the size of the largest entry of each column, one for zero columns."""
    xp = namespace(Y)
    largest = abs(Y.real).max(axis=0)
    if Y.dtype.kind == "c":
        largest = xp.maximum(largest, abs(Y.imag).max(axis=0))
    limit = 1000 if largest.dtype == np.float64 else 120
    return xp.ldexp(xp.ones_like(largest), xp.where(largest > 0, xp.clip(xp.frexp(largest)[1], -limit, limit), 0))


def _cholesky_qr(Y: np.ndarray, limit: float) -> tuple[np.ndarray | None, float]:
    """Y R^-1 for the Cholesky factor R of Y^H Y, None where its condition number is near the limit, and 1 / that number."""
    with np.errstate(over="ignore", invalid="ignore"):
        G = gram(Y)
    squares = G.diagonal().real
    tiny = float(np.finfo(_check.real_dtype(Y.dtype)).tiny)
    if not (squares.size and np.isfinite(squares).all() and squares.min() > tiny / np.finfo(float).eps):
        return None, 0.0
    scale = np.sqrt(squares)
    potrf, trcon = lapack.get_lapack_funcs(("potrf", "trcon"), dtype=G.dtype)
    R, info = potrf(G / np.outer(scale, scale), lower=0)
    rcond = 0.0 if info else float(trcon(R)[0])
    if not rcond * limit > 1:
        return None, rcond
    # Q R = Y in C order is R' Q' = Y' in Fortran's.
    factor = np.asarray(R * scale, Y.dtype, order="F")
    if on_device(Y):
        return solve_triangular(like(Y, factor), Y.T, transposed=True).T, rcond
    trsm = blas.get_blas_funcs("trsm", dtype=Y.dtype)
    return trsm(1.0, factor, np.array(Y.T, order="F"), side=0, lower=0, trans_a=1, overwrite_b=1).T, rcond
