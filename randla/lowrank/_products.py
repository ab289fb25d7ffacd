"""Products with dense blocks, by scipy's BLAS or by gathering the rows of CSR matrices, and Frobenius norms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import blas

from .. import _check, _cpu
from .._backend import kernels, namespace, on_device, rows_of_block

# Below these, for other dtypes and for single precision, squares of entries may have been lost.
_SAFE, _SAFE_SINGLE = 1e-270, 1e-28
_COPIED = 1 << 16  # entries that are made contiguous at a time
_PIECE = 4096  # entries whose squares are added in the precision of the matrix
_SINGLY = 4  # columns up to which products with one triangle of a Hermitian matrix, one by one, are faster than with a block


def csr_times(A: sp.csr_array, X: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A X for CSR A and a 2-D X of its precision, with contiguous rows; mixed and complex F-ordered blocks are copied."""
    dtype = np.result_type(A.dtype, X.dtype)
    if out is None:
        out = np.empty((A.shape[0], X.shape[1]), dtype)
    if dtype.kind != "c":
        _cpu.csr_product(A.data.astype(dtype, copy=False), A.indptr, A.indices, X.astype(dtype, copy=False), out)
        return out
    # A complex column is a pair of real ones.
    real = _check.real_dtype(dtype)
    pairs = np.ascontiguousarray(X, dtype).view(real)
    values = A.data.astype(dtype if A.dtype.kind == "c" else real, copy=False).view(real)
    _cpu.csr_product(values, A.indptr, A.indices, pairs, out.view(real), A.dtype.kind == "c")
    return out


def adjoint_copy(A: sp.csr_array) -> sp.csr_array:
    """A^H as a CSR array of its own."""
    out = A.T.tocsr()
    return out.conj() if A.dtype.kind == "c" else out


def product(A: np.ndarray, X: np.ndarray, *, conjugate: bool = False) -> np.ndarray:
    """A X, or conj(A) X, by scipy's BLAS, in C order; arrays that BLAS cannot read in place are copied.

    With both on a device, by CuPy's.
    """
    if on_device(A):
        return _device_product(A, X, conjugate)
    dtype = np.result_type(A.dtype, X.dtype)
    (m, n), k = A.shape, X.shape[1]
    if not (m and n and k):
        return np.zeros((m, k), dtype)
    if dtype.kind == "c" and A.dtype.kind != "c":
        # A pair of real numbers for every complex one: no complex copy of A.
        pairs = np.ascontiguousarray(X).view(_check.real_dtype(dtype))
        return product(A, pairs).view(dtype)
    if conjugate and A.dtype.kind == "c":
        return np.conj(product(A, X.conj()))  # BLAS transposes and conjugates, but does not conjugate alone
    gemm = blas.get_blas_funcs("gemm", dtype=dtype)
    X = X.astype(dtype, copy=False)
    # X^T A^T in Fortran order is A X in C order.
    if not (A.flags.c_contiguous or A.flags.f_contiguous):
        out, step = np.empty((m, k), dtype), max(64, _COPIED // n)
        for i in range(0, m, step):
            out[i : i + step] = product(np.ascontiguousarray(A[i : i + step]), X)
        return out
    if k == 1:
        # Of one column a matrix product takes twice the time.
        gemv = blas.get_blas_funcs("gemv", dtype=dtype)
        stored, trans = (A.T, 1) if A.flags.c_contiguous else (A, 0)
        return gemv(1.0, stored, X[:, 0], trans=trans)[:, None]
    left, trans_a = (X.T, 0) if X.flags.c_contiguous else (np.asfortranarray(X), 1)
    right, trans_b = (A.T, 0) if A.flags.c_contiguous else (A, 1)
    return gemm(1.0, left, right, trans_a=trans_a, trans_b=trans_b).T


def hermitian_product(A: np.ndarray, X: np.ndarray) -> np.ndarray:
    """A X for Hermitian A: where X has few columns, from one of its triangles, which takes half the memory traffic."""
    contiguous = A.flags.c_contiguous or A.flags.f_contiguous
    if on_device(A) or not (contiguous and A.size and X.shape[1] <= _SINGLY and X.dtype == A.dtype):
        return product(A, X)
    hemv = blas.get_blas_funcs("hemv" if A.dtype.kind == "c" else "symv", dtype=A.dtype)
    out = np.empty(X.shape, X.dtype)
    for j in range(X.shape[1]):
        # In Fortran order a Hermitian A in C order is its conjugate.
        if A.flags.c_contiguous:
            out[:, j] = hemv(1.0, A.T, X[:, j].conj()).conj()
        else:
            out[:, j] = hemv(1.0, A, X[:, j])
    return out


def _device_product(A: Any, X: Any, conjugate: bool) -> Any:
    if conjugate and A.dtype.kind == "c":
        return _device_product(A, X.conj(), False).conj()
    if A.flags.c_contiguous or A.flags.f_contiguous:
        return A @ X
    # A product would copy all of A.
    xp, (m, n) = namespace(A), A.shape
    out, step = xp.empty((m, X.shape[1]), np.result_type(A.dtype, X.dtype)), rows_of_block(n, 64)
    for i in range(0, m, step):
        out[i : i + step] = xp.ascontiguousarray(A[i : i + step]) @ X
    return out


def add_adjoint_product(A: np.ndarray, Y: np.ndarray, out: np.ndarray) -> None:
    """out += A^T Y in place, by scipy's BLAS; A in C order, out in Fortran order, all of one dtype."""
    if out.size and len(A):
        gemm = blas.get_blas_funcs("gemm", dtype=out.dtype)
        gemm(1.0, A.T, np.ascontiguousarray(Y).T, beta=1.0, c=out, trans_b=1, overwrite_c=1)


def norm_of(parts: Iterable[np.ndarray], name: str) -> float:
    """Frobenius norm of arrays together, by plain squares where these neither overflow nor underflow."""
    total, tops = 0.0, list[float]()
    for part in parts:
        xp = namespace(part)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            square = float(squares(part).sum())
        if math.isfinite(square) and (
            square > (_SAFE_SINGLE if part.dtype.char in "fF" else _SAFE) or (square == 0.0 and not part.any())
        ):
            total += square
        elif not xp.isfinite(part).all():
            raise ValueError(f"{name} must be finite; got NaN or infinite entries")
        else:
            # Complex numbers as pairs: the size of one may overflow.
            real = xp.stack([part.real, part.imag]) if part.dtype.kind == "c" else part
            exponent = math.frexp(float(abs(real).max()))[1]
            scaled = xp.ldexp(real.astype(np.float64), -exponent)
            with np.errstate(over="ignore", under="ignore"):
                tops.append(float(np.ldexp(math.sqrt(float(squares(scaled.reshape(-1, scaled.shape[-1])).sum())), exponent)))
    return math.hypot(math.sqrt(total), *tops)


def squares(A: np.ndarray) -> np.ndarray:
    """Sums of squares of pieces of A, in float64; short ones in the precision of A, so that its rounding does not add up."""
    if on_device(A):
        return _device_squares(A)
    A = np.atleast_2d(A)
    if not A.size:
        return np.zeros(1)
    if abs(A.strides[0]) < abs(A.strides[1]):
        A = A.T
    out = np.zeros(len(A))
    for j in range(0, A.shape[1], _PIECE):
        piece = A[:, j : j + _PIECE]
        out += np.vecdot(piece, piece).real
    return out


def _device_squares(A: Any) -> Any:
    """Sums of squares of pieces of A in float64, each the work of a few threads."""
    if A.ndim == 2 and abs(A.strides[0]) < abs(A.strides[1]):
        A = A.T
    if A.dtype.kind == "c" and not A.flags.c_contiguous:
        return _device_squares(A.real) + _device_squares(A.imag)
    xp = namespace(A)
    if A.flags.c_contiguous:
        A = A.reshape(-1).view(_check.real_dtype(A.dtype))
        whole = A.size // _PIECE * _PIECE
        parts = [A[:whole].reshape(-1, _PIECE), A[whole:].reshape(1, -1)]
    else:
        parts = [A]
    sums = [xp.empty(len(part)) for part in parts]
    for part, out in zip(parts, sums, strict=True):
        kernels(part).row_squares(part, None, None, out)
    return xp.concatenate(sums)
