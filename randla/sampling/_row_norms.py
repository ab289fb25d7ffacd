"""Euclidean norms of rows in float64, of dense and sparse matrices of any scale."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._backend import Array, namespace, rows_of_block
from .._complex import Complex
from .._matrix import TallMatrix, wrap

_PIECE = 1 << 18  # entries squared at a time: 2 MB
_SAFE = (1e-280, 1e300)  # sums of squares that neither overflowed nor lost digits to underflow
_USUAL = (2.0**-500, 2.0**1000)  # largest sums of squares beside which nothing matters that underflowed


def canonical(A: sp.csr_array) -> sp.csr_array:
    """A itself where no entry is listed twice, else a copy with those added up."""
    if A.has_canonical_format:
        return A
    out = A.copy()
    out.sum_duplicates()
    return out


def row_norms(A: _check.Matrix, name: str) -> np.ndarray:
    """||a_i|| for the rows of a checked array or canonical CSR array; ValueError for NaN and infinite entries.

    inf stands for a norm above the largest float64.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = _squares_of_sparse(A) if sp.issparse(A) else _squares_of_dense(A)
    out = np.sqrt(squares)
    doubtful = np.flatnonzero(~((squares > _SAFE[0]) & (squares < _SAFE[1])))
    if sp.issparse(A):
        rows = A[doubtful[np.diff(A.indptr)[doubtful] > 0]]
        _check.finite(rows.data, name)
        out[doubtful[np.diff(A.indptr)[doubtful] > 0]] = _scaled_norms(rows.data, rows.indptr)
        return out
    n = A.shape[1]
    for i in range(0, len(doubtful) if n else 0, step := max(1, _PIECE // max(1, n))):
        rows = A[doubtful[i : i + step]]
        _check.finite(rows, name)
        out[doubtful[i : i + step]] = _scaled_norms(rows.ravel(), np.arange(len(rows) + 1) * n)
    return out


def _squares_of_sparse(A: sp.csr_array) -> np.ndarray:
    parts = (A.data.real, A.data.imag) if A.dtype.kind == "c" else (A.data,)
    squares = np.zeros(len(A.data) + 1)
    for part in parts:
        squares[:-1] += np.square(part, dtype=np.float64)
    # A row without entries would be given the one that follows.
    return np.where(np.diff(A.indptr) > 0, np.add.reduceat(squares, A.indptr[:-1]), 0.0) if A.shape[0] else np.zeros(0)


def _squares_of_dense(A: np.ndarray) -> np.ndarray:
    m, n = A.shape
    out = np.zeros(m)
    by_columns = abs(A.strides[0]) < abs(A.strides[1])
    step = max(1, _PIECE // max(1, m if by_columns else n))
    for k in range(0, n if by_columns else m, step):
        block, rows = (A[:, k : k + step], slice(None)) if by_columns else (A[k : k + step], slice(k, k + step))
        for part in (block.real, block.imag) if A.dtype.kind == "c" else (block,):
            x = part.astype(np.float64, copy=False)
            out[rows] += np.einsum("ij,ij->i", x, x)
    return out


def _scaled_norms(values: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Norms of rows that all have entries, each divided by a power of two near its largest one."""
    if len(indptr) == 1:
        return np.zeros(0)
    parts = [part.astype(np.float64) for part in ((values.real, values.imag) if values.dtype.kind == "c" else (values,))]
    largest = [np.maximum.reduceat(np.abs(part), indptr[:-1]) for part in parts]
    exponent = np.frexp(np.max(largest, axis=0))[1]
    down = np.repeat(-exponent, np.diff(indptr))
    squares = sum(np.add.reduceat(np.square(np.ldexp(part, down)), indptr[:-1]) for part in parts)
    with np.errstate(over="ignore"):
        return np.ldexp(np.sqrt(squares), exponent)


def relative_squares(A: Array, weights: Array | None) -> Array:
    """Squared norms of the rows of diag(sqrt(weights)) A over the largest, for A of a device; below 2^-500 they may be zero.

    One pass over A and one wait; four more of each where squares are out of range.
    """
    matrix = wrap(A, weights)
    squares = matrix.row_squares()
    top = float(squares.max())
    if _USUAL[0] < top < _USUAL[1]:
        return squares / top
    if not matrix.is_finite():
        raise ValueError("A must be finite; got NaN or infinite entries")
    return _relative_squares_of_any_size(A, weights) if A.shape[1] else squares


def _relative_squares_of_any_size(A: Array, weights: Array | None) -> Array:
    xp, matrix = namespace(A), wrap(A)
    rows: TallMatrix = matrix.V if isinstance(matrix, Complex) else matrix
    parts = []
    for block in rows.row_blocks(rows_of_block(rows.shape[1])):
        exponent = xp.frexp(abs(block).max(axis=1))[1]
        scaled = xp.ldexp(block, -exponent[:, None])
        parts.append((xp.sqrt((scaled * scaled).sum(axis=1)), exponent))
    sizes, exponents = (xp.concatenate(part) for part in zip(*parts, strict=True))
    if weights is not None:
        roots, more = xp.frexp(xp.sqrt(weights))
        sizes, exponents = sizes * roots, exponents + more
    largest = int(xp.where(sizes > 0, exponents, -4000).max())
    out = xp.ldexp(sizes, exponents - largest)
    top = float(out.max())
    return (out / top) ** 2 if top else out
