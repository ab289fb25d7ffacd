"""What the least-squares solvers ask of a matrix: sketched slices, one fused residual pass, blocks of rows, a count of passes.

Right-hand sides are rows here, as in the kernels: X is (k, n), B and R are (k, m), float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _check, _cpu
from .sketch import BlockSRHT, Distribution, SketchOperator, SparseStack

# Entries of a sketch held at a time, where it can be made in slices: one percent of A, at most 8 MB.
_SLICE = 1 << 20
_SMALLEST_SLICE = 1 << 15
_OPERATOR_COLUMNS = 32


class TallMatrix:
    """A matrix that is only read, and how often it was."""

    default_sketch: Distribution = SparseStack()

    def __init__(self, A: Any):
        self.A = A
        self.shape: tuple[int, int] = tuple(A.shape)
        self.dtype = np.dtype(A.dtype)
        self.passes = 0
        self._buffer = np.empty((0, self.shape[0]))

    def residual(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """B - A X, A'(B - A X) and the squared norms of the rows of the first, in one pass; B None means zero.

        The first lies in a buffer that the next call overwrites: fresh memory would cost more than writing it.
        """
        (m, n), k = self.shape, len(X)
        if len(self._buffer) < k:
            self._buffer = np.empty((k, m))
        R, G = self._buffer[:k], np.empty((k, n))
        self.passes += 1
        return R, G, self._residual(np.ascontiguousarray(X), B, R, G)

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def times(self, X: np.ndarray) -> np.ndarray:
        """A X as rows."""
        return -self.residual(X, None)[0]

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        """A'Y as rows."""
        self.passes += 1
        A = self.A.T if isinstance(self, Operator) or self.dtype == np.float64 else self.A.T.astype(np.float64)
        return np.ascontiguousarray((A @ Y.T).T, dtype=np.float64)

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Slices of rows of (S A, S B'), in float64; together they are the whole sketch. One pass over A."""
        self.passes += 1
        yield self._sketch(S).astype(np.float64, copy=False), S @ B.T

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        return S @ self.A

    def row_blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Blocks of rows in float64, row-major. One pass over A."""
        self.passes += 1
        for i in range(0, self.shape[0], rows):
            yield self._rows(i, min(i + rows, self.shape[0]))

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        raise NotImplementedError

    def column_norms(self) -> np.ndarray:
        """Euclidean norms of the columns, safe from overflow. One pass over A."""
        norms = np.zeros(self.shape[1])
        for block in self.row_blocks(max(1, _SLICE // max(1, self.shape[1]))):
            norms = np.hypot(norms, np.linalg.norm(block, axis=0))
        return norms

    def is_finite(self) -> bool:
        raise NotImplementedError


class Dense(TallMatrix):
    default_sketch = BlockSRHT()

    @property
    def by_columns(self) -> bool:
        """Whether rows of A are scattered in memory."""
        return self.A.strides[1] != self.A.itemsize

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        return _cpu.residual(self.A, X, B, R, G)

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # Each row of A enters one output block of a BlockSRHT: the sketch can be made in slices at the cost of one pass.
        # Not so for column-major A, whose columns are read whole.
        if not isinstance(S.distribution, BlockSRHT) or self.by_columns:
            yield from super().sketched(S, B)
            return
        self.passes += 1
        (d, m), n = S.shape, self.shape[1]
        SB = S @ B.T
        starts = S.distribution._block_starts(d)
        entries = max(_SMALLEST_SLICE, min(_SLICE, m * n // 100))
        step = max(1, entries // (S.distribution.block * max(1, n)))
        for k0 in range(0, len(starts) - 1, step):
            k1 = min(k0 + step, len(starts) - 1)
            out = np.zeros((starts[k1] - starts[k0], n), self.dtype)
            _cpu.block_srht(d, m, S.distribution.block, S.seed, self.A, 0, k0, k1, out)
            yield out.astype(np.float64, copy=False), SB[starts[k0] : starts[k1]]

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        return np.ascontiguousarray(self.A[i0:i1], dtype=np.float64)

    def is_finite(self) -> bool:
        rows = max(1, _SLICE // max(1, self.shape[1]))
        return all(bool(np.isfinite(self.A[i : i + rows]).all()) for i in range(0, self.shape[0], rows))


class Sparse(TallMatrix):
    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        return _cpu.residual_csr(self.A.data, self.A.indptr, self.A.indices, self.shape[1], X, B, R, G)

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        return self.A[i0:i1].toarray().astype(np.float64, copy=False)

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.A.data).all())


class Operator(TallMatrix):
    """Anything with matvec and rmatvec. Sketched through blocks of its columns: n products."""

    def __init__(self, A: Any):
        self.A = A
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self.dtype = np.dtype(np.float64) if getattr(A, "dtype", None) is None else _check.dtype_of(A.dtype, "A")
        self.passes = 0
        self._buffer = np.empty((0, self.shape[0]))

    def _apply(self, block: str, single: str, X: np.ndarray) -> np.ndarray:
        if hasattr(self.A, block):
            Y = np.asarray(getattr(self.A, block)(X.T)).T
        else:
            Y = np.stack([np.asarray(getattr(self.A, single)(x)).ravel() for x in X])
        return np.ascontiguousarray(Y, dtype=np.float64)

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        AX = self._apply("matmat", "matvec", X)
        np.subtract(0.0 if B is None else B, AX, out=R)
        G[:] = self._apply("rmatmat", "rmatvec", R)
        return np.einsum("ij,ij->i", R, R)

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        n = self.shape[1]
        out = np.empty((S.shape[0], n))
        for j in range(0, n, _OPERATOR_COLUMNS):
            count = min(_OPERATOR_COLUMNS, n - j)
            out[:, j : j + count] = S @ self._apply("matmat", "matvec", np.eye(count, n, j)).T
        return out

    def column_norms(self) -> np.ndarray:
        n = self.shape[1]
        return np.concatenate(
            [
                np.linalg.norm(self._apply("matmat", "matvec", np.eye(min(_OPERATOR_COLUMNS, n - j), n, j)), axis=1)
                for j in range(0, n, _OPERATOR_COLUMNS)
            ]
        )

    def is_finite(self) -> bool:
        return True


def wrap(A: Any) -> TallMatrix:
    """The wrapper for a checked matrix."""
    if isinstance(A, np.ndarray):
        return Dense(A)
    return Sparse(A) if sp.issparse(A) else Operator(A)
