"""CSR matrices of a device in pieces: rows as dense blocks, rows as matrices of their own, the transpose.

By the kernels of sketches and CuPy's conversions; its slices of rows would wait for the device once for every piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ._backend import kernels, namespace, rows_of_block, sparse_matrix, to_host


def parts(A: Any) -> tuple[Any, Any, Any]:
    """Values, row starts and columns, as kernels take them; of the host, too."""
    return namespace(A).ascontiguousarray(A.data), A.indptr, A.indices


def transposed(A: Any) -> Any:
    """A' by rows, with ascending columns: the order that makes sums the same in every run."""
    out = A.T.tocsr()
    if not out.has_canonical_format:
        out.sum_duplicates()
    return out


def dense_rows(A: Any, rows: Any) -> Any:
    """The rows of A with these numbers, which the device has, in the dtype of A: a product with units."""
    xp = namespace(A)
    out = xp.zeros((len(rows), A.shape[1]), A.dtype)
    units = kernels(A).Entries(xp.arange(len(rows) + 1), rows.astype(np.int64), xp.ones(len(rows)))
    kernels(A).gather_csr(units, *parts(A), A.shape[1], out)
    return out


def dense_blocks(A: Any, multiple: int = 1) -> Iterator[tuple[int, Any]]:
    """All rows as dense blocks of at most 128 MB, with the number of the first one; multiples of some rows if these fit."""
    xp, m = namespace(A), A.shape[0]
    fit = rows_of_block(A.shape[1])
    step = fit // multiple * multiple or fit
    for i in range(0, m, step):
        yield i, dense_rows(A, xp.arange(i, min(i + step, m)))


def row_slices(A: Any, step: int) -> Iterator[tuple[int, Any]]:
    """Matrices of `step` rows each, with the number of the first one. Fetches where they begin, one number for each."""
    m = A.shape[0]
    first = [*range(0, m, step), m]
    starts = to_host(A.indptr[namespace(A).asarray(np.array(first))]).tolist()
    for i, end, p, q in zip(first[:-1], first[1:], starts[:-1], starts[1:], strict=True):
        yield i, sparse_matrix(A.data[p:q], A.indices[p:q], A.indptr[i : end + 1] - p, (end - i, A.shape[1]))


def row_numbers(A: Any) -> Any:
    """The row of every entry."""
    xp = namespace(A)
    return xp.searchsorted(A.indptr[1:], xp.arange(A.nnz, dtype=A.indptr.dtype), side="right")
