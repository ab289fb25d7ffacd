"""What the least-squares solvers ask of a matrix: sketched slices, one fused residual pass, blocks of rows, a count of passes.

Right-hand sides are rows here, as in the kernels: X is (k, n), B and R are (k, m), float64. With weights w the matrix stands
for diag(sqrt(w)) A, which is never made: residuals stay unweighted, sums over rows carry the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from . import _check, _cpu
from ._backend import is_sparse, namespace, sparse_matrix
from ._row_map import RowMap
from .blocks import RowBlocks
from .sketch import BlockSRHT, Distribution, SketchOperator, SparseStack

# Entries of a sketch held at a time, where it can be made in slices: one percent of A, at most 8 MB.
_SLICE = 1 << 20
_SMALLEST_SLICE = 1 << 15
_OPERATOR_COLUMNS = 32

# Pieces of A that are scaled on their way into a sketch: whole windows of a BlockSRHT, 16 MB.
_PIECE = 1 << 21
_PIECE_ROWS = 4096

_MAPPED = 1 << 19  # entries of rows that are converted before they are mapped: 4 MB

_JOINED = 1 << 26  # bytes of small row blocks that are joined before they are sketched


class TallMatrix:
    """A matrix that is only read, and how often it was."""

    default_sketch: Distribution = SparseStack()
    copies = 1  # how many singular values stand for one of the caller's A
    by_products = False  # whether A is known by its products with vectors alone

    def __init__(self, A: Any, weights: np.ndarray | None = None):
        self.A = A
        self.shape: tuple[int, int] = (int(A.shape[0]), int(A.shape[1]))
        self.dtype = np.dtype(getattr(A, "dtype", None))
        self.weights = weights
        self.passes = 0
        self._buffer = np.empty((0, self.shape[0]))
        self._dropped = None if weights is None or weights.all() else np.flatnonzero(weights == 0)

    @cached_property
    def roots(self) -> np.ndarray:
        assert self.weights is not None
        return np.sqrt(self.weights)

    @property
    def bytes_per_pass(self) -> int:
        """For the cost model."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def holds_sketch(self) -> bool:
        """Whether the sketch of a dense matrix is held whole, not made in slices."""
        return False

    def residual(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """R = B - A X, A'(w R) and sums of w R^2 over the rows of R, in one pass; B None means zero.

        The first lies in a buffer that the next call overwrites: fresh memory would cost more than writing it. It is zero
        where the weight is.
        """
        (m, n), k = self.shape, len(X)
        if len(self._buffer) < k:
            self._buffer = np.empty((k, m))
        R, G = self._buffer[:k], np.empty((k, n))
        self.passes += 1
        squares = self._residual(np.ascontiguousarray(X), B, R, G)
        if self._dropped is not None:
            R[:, self._dropped] = 0
        return R, G, squares

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def evaluated(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The second and the third of what `residual` gives."""
        return self.residual(X, B)[1:]

    def times(self, X: np.ndarray) -> np.ndarray:
        """A X as rows."""
        return -self.residual(X, None)[0]

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        """A'(w Y) as rows."""
        return self.residual(np.zeros((len(Y), self.shape[1])), np.ascontiguousarray(Y))[1]

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Slices of rows of (S A, S B'), in float64; together they are the whole sketch. One pass over A."""
        self.passes += 1
        yield self._sketch(S).astype(np.float64, copy=False), self._sketched_right_hand_sides(S, B)

    def _sketched_right_hand_sides(self, S: SketchOperator, B: np.ndarray) -> np.ndarray:
        return S @ (B.T if self.weights is None else (B * self.roots).T)

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        raise NotImplementedError

    def row_blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Blocks of rows in float64, row-major, times the roots of the weights. One pass over A."""
        self.passes += 1
        for i in range(0, self.shape[0], rows):
            yield self._rows(i, min(i + rows, self.shape[0]))

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        raise NotImplementedError

    def row_norms(self, mapping: RowMap, single: bool = False) -> np.ndarray:
        """Weighted squares of the norms of the images of the rows, (m,); `single` computes in float32. One pass over A."""
        out, i = np.empty(self.shape[0]), 0
        for block in self.row_blocks(max(256, _MAPPED // max(1, self.shape[1]))):
            mapping.squared_norms(block, None, single, out[i : i + len(block)])
            i += len(block)
        return out

    def gram(self, mapping: RowMap) -> np.ndarray:
        """Gram matrix of the weighted images of the rows. One pass over A."""
        G = np.zeros((mapping.rank, mapping.rank))
        for block in self.row_blocks(max(256, _MAPPED // max(1, self.shape[1]))):
            mapping.add_gram(block, None, G)
        return G

    def row_squares(self) -> np.ndarray:
        """Weighted squares of the norms of the rows themselves, (m,). One pass over A."""
        out, i = np.empty(self.shape[0]), 0
        for block in self.row_blocks(max(1, _MAPPED // max(1, self.shape[1]))):
            out[i : i + len(block)] = np.vecdot(block, block)
            i += len(block)
        return out

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows with these numbers, dense, in float64, times the roots of the weights."""
        rows = self._take(indices)
        return rows if self.weights is None else rows * self.roots[indices, None]

    def _take(self, indices: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def is_finite(self) -> bool:
        raise NotImplementedError

    def transposed(self) -> TallMatrix:
        """The wrapper of A', sharing memory where A is dense; without the weights."""
        raise NotImplementedError


class _InMemory(TallMatrix):
    """Rows that the kernels read where they lie."""

    def row_norms(self, mapping: RowMap, single: bool = False) -> np.ndarray:
        self.passes += 1
        out = np.empty(self.shape[0])
        mapping.squared_norms(self.A, None if self.weights is None else self.roots, single, out)
        return out

    def gram(self, mapping: RowMap) -> np.ndarray:
        self.passes += 1
        G = np.zeros((mapping.rank, mapping.rank))
        mapping.add_gram(self.A, None if self.weights is None else self.roots, G)
        return G


class Dense(_InMemory):
    default_sketch = BlockSRHT()

    @property
    def by_columns(self) -> bool:
        """Whether rows of A are scattered in memory."""
        return self.A.strides[1] != self.A.itemsize

    @property
    def holds_sketch(self) -> bool:
        return self.by_columns or self.weights is not None

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        return _cpu.residual(self.A, X, B, R, G, self.weights)

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # Each row of A enters one output block of a BlockSRHT: the sketch can be made in slices at the cost of one pass.
        # Not so for column-major A, whose columns are read whole.
        if not isinstance(S.distribution, BlockSRHT) or self.holds_sketch:
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

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        return S @ self.A if self.weights is None else self._sketch_by_pieces(S)

    def _sketch_by_pieces(self, S: SketchOperator) -> np.ndarray:
        (m, n), d = self.shape, S.shape[0]
        columns = max(16, _PIECE // max(1, min(_PIECE_ROWS, m)) // 2 * 2)
        buffer = np.empty(min(_PIECE_ROWS, m) * min(columns, n))
        out = np.zeros((d, n))
        for c0 in range(0, n, columns):
            c1 = min(c0 + columns, n)
            part = out if c1 - c0 == n else np.zeros((d, c1 - c0))
            for i0 in range(0, m, _PIECE_ROWS):
                i1 = min(i0 + _PIECE_ROWS, m)
                piece = buffer[: (i1 - i0) * (c1 - c0)].reshape(i1 - i0, c1 - c0)
                self._copy(i0, i1, c0, c1, piece)
                if self.weights is not None:
                    piece *= self.roots[i0:i1, None]
                S.distribution._apply(S, piece, i0, part)
            if part is not out:
                out[:, c0:c1] = part
        return out

    def _copy(self, i0: int, i1: int, c0: int, c1: int, out: np.ndarray) -> None:
        out[:] = self.A[i0:i1, c0:c1]

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        if self.weights is None:
            return np.ascontiguousarray(self.A[i0:i1], dtype=np.float64)
        return self.A[i0:i1] * self.roots[i0:i1, None]

    def _take(self, indices: np.ndarray) -> np.ndarray:
        return self.A[indices].astype(np.float64, copy=False)

    def is_finite(self) -> bool:
        rows = max(1, _SLICE // max(1, self.shape[1]))
        return all(bool(np.isfinite(self.A[i : i + rows]).all()) for i in range(0, self.shape[0], rows))

    def transposed(self) -> TallMatrix:
        return Dense(self.A.T)


class Sparse(_InMemory):
    @property
    def bytes_per_pass(self) -> int:
        # Reads of x and of the gradient are scattered: as if everything were read twice.
        return 2 * self.A.nnz * (self.dtype.itemsize + 4)

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        return _cpu.residual_csr(self.A.data, self.A.indptr, self.A.indices, self.shape[1], X, B, R, G, self.weights)

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        if self.weights is None:
            return S @ self.A
        m, n = self.shape
        out = np.zeros((S.shape[0], n))
        rows = max(1, m * _PIECE // max(1, self.A.nnz))
        for i0 in range(0, m, rows):
            S.distribution._apply(S, scaled_rows(self.A[i0 : i0 + rows], self.roots[i0 : i0 + rows]), i0, out)
        return out

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        block = self.A[i0:i1].toarray().astype(np.float64, copy=False)
        return block if self.weights is None else block * self.roots[i0:i1, None]

    def row_squares(self) -> np.ndarray:
        self.passes += 1
        values = self.A.data.astype(np.float64)
        out = np.asarray(sp.csr_array((values * values, self.A.indices, self.A.indptr), shape=self.shape).sum(axis=1))
        return out if self.weights is None else out * self.weights

    def _take(self, indices: np.ndarray) -> np.ndarray:
        return self.A[indices].toarray().astype(np.float64, copy=False)

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.A.data).all())

    def transposed(self) -> TallMatrix:
        return Sparse(self.A.T.tocsr())


def scaled_rows(A: _check.Matrix, factors: np.ndarray) -> _check.Matrix:
    """diag(factors) A in float64, dense or CSR."""
    if sp.issparse(A):
        return sp.csr_array((A.data * np.repeat(factors, np.diff(A.indptr)), A.indices, A.indptr), shape=A.shape)
    return A * factors[:, None]


class ByProducts(TallMatrix):
    """A matrix of which only products are to be had: all that asks for its rows goes through them."""

    by_products = True

    def row_norms(self, mapping: RowMap, single: bool = False) -> np.ndarray:
        passes, rows = self.passes, self.A.shape[0]
        out = np.zeros(rows)
        for _, Y in self._images(mapping):
            out += np.einsum("ij,ij->j", Y[:, :rows], Y[:, :rows])
        self.passes = passes + 1
        return out if self.weights is None else out * self.weights

    def gram(self, mapping: RowMap) -> np.ndarray:
        # T'(A'(A T)): rounding errors grow with the condition number of A, as they do for (A T)'(A T).
        passes = self.passes
        G = np.empty((mapping.rank, mapping.rank))
        for j, Y in self._images(mapping):
            G[:, j : j + len(Y)] = ((self.adjoint_times(Y) * mapping.scale) @ mapping.T).T
        self.passes = passes + 2
        return (G + G.T) / 2

    def row_squares(self) -> np.ndarray:
        passes, columns = self.passes, self.shape[1] // self.copies
        out = np.zeros(self.A.shape[0])
        for j in range(0, columns, _OPERATOR_COLUMNS):
            Y = self.times(np.eye(min(_OPERATOR_COLUMNS, columns - j), self.shape[1], j))
            Y = Y.reshape(len(Y), self.copies, -1)
            out += np.einsum("ijk,ijk->k", Y, Y)
        self.passes = passes + 1
        return out if self.weights is None else out * self.weights

    def _images(self, mapping: RowMap) -> Iterator[tuple[int, np.ndarray]]:
        for j in range(0, mapping.rank, _OPERATOR_COLUMNS):
            yield j, self.times((mapping.T[:, j : j + _OPERATOR_COLUMNS] * mapping.scale[:, None]).T)

    def take(self, indices: np.ndarray) -> np.ndarray:
        passes, m, rows = self.passes, self.shape[0], self.A.shape[0]
        numbers = np.concatenate([indices + i for i in range(0, m, rows)]) if m else indices
        out = np.empty((len(numbers), self.shape[1]))
        for j in range(0, len(numbers), _OPERATOR_COLUMNS):
            chosen = numbers[j : j + _OPERATOR_COLUMNS]
            units = np.zeros((len(chosen), m))
            roots = 1.0 if self.weights is None else self.roots[chosen % rows]
            units[range(len(chosen)), chosen] = np.divide(1.0, roots, out=np.zeros(len(chosen)), where=np.asarray(roots) > 0)
            out[j : j + len(chosen)] = self.adjoint_times(units)
        self.passes = passes + 1
        return out


class Operator(ByProducts):
    """Anything with matvec and rmatvec. Sketched through blocks of its columns: n products."""

    def __init__(self, A: Any, weights: np.ndarray | None = None):
        super().__init__(A, weights)
        self.dtype = _check.dtype_of(self.dtype, "A")

    def _apply(self, block: str, single: str, X: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(products(self.A, block, single, X), dtype=np.float64)

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        AX = self._apply("matmat", "matvec", X)
        np.subtract(0.0 if B is None else B, AX, out=R)
        weighted = R if self.weights is None else R * self.weights
        G[:] = self._apply("rmatmat", "rmatvec", weighted)
        return np.einsum("ij,ij->i", weighted, R)

    def times(self, X: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self._apply("matmat", "matvec", X)

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self._apply("rmatmat", "rmatvec", Y if self.weights is None else Y * self.weights)

    def _columns(self) -> Iterator[tuple[int, np.ndarray]]:
        """A few columns at a time, as rows, times the roots of the weights."""
        n = self.shape[1]
        for j in range(0, n, _OPERATOR_COLUMNS):
            columns = self._apply("matmat", "matvec", np.eye(min(_OPERATOR_COLUMNS, n - j), n, j))
            yield j, columns if self.weights is None else columns * self.roots

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        out = np.empty((S.shape[0], self.shape[1]))
        for j, columns in self._columns():
            out[:, j : j + len(columns)] = S @ columns.T
        return out

    def is_finite(self) -> bool:
        return True

    def transposed(self) -> TallMatrix:
        return Operator(aslinearoperator(self.A).T)


def products(A: Any, block: str, single: str, X: np.ndarray) -> np.ndarray:
    """Rows of X through A, by its method for blocks where it has one.

    Copies go in and come out: an operator may write into what it is given, and may return the same buffer every time.
    """
    try:
        if hasattr(A, block):
            out = np.array(getattr(A, block)(X.copy().T)).T
            # Of such a buffer scipy's block method would make many equal columns.
            if len(X) == 1 or not (out[0] == out[-1]).all() or not out[0].any() or (X[0] == X[-1]).all():
                return out
        return np.stack([np.array(getattr(A, single)(x)).ravel() for x in X.copy()])
    except (NotImplementedError, TypeError) as error:
        raise TypeError(f"A must have a {single} that takes a vector; got {error!r}") from error


class Blocks(TallMatrix):
    """Row blocks that are read anew in every pass; complex ones as the real matrix that holds Re, Im of every entry in turn."""

    A: RowBlocks

    def __init__(self, A: RowBlocks, weights: np.ndarray | None = None):
        super().__init__(A, weights)
        m, n = A.shape
        self.passes, A.uncounted = A.uncounted, 0
        # Of dense pieces a BlockSRHT updates an eighth of the sketch that a SparseStack does.
        self.default_sketch = SparseStack() if A.sparse else BlockSRHT()
        if self.dtype.kind == "c":
            self.shape, self.dtype = (m, 2 * n), _check.real_dtype(self.dtype)

    @property
    def holds_sketch(self) -> bool:
        return True

    def _pieces(self, at_least: int = 0) -> Iterator[tuple[int, int, Any]]:
        for i0, block in self.A.pieces(at_least):
            yield i0, i0 + block.shape[0], interleaved(block) if block.dtype.kind == "c" else block

    def _residual(self, X: np.ndarray, B: np.ndarray | None, R: np.ndarray, G: np.ndarray) -> np.ndarray:
        G[:] = 0
        squares = np.zeros(len(X))
        for i0, i1, block in self._pieces():
            part = self._part(i0, i1, block)
            b = None if B is None else np.ascontiguousarray(B[:, i0:i1])
            r, g = np.empty((len(X), i1 - i0)), np.empty_like(G)
            squares += part._residual(X, b, r, g)
            R[:, i0:i1] = r
            G += g
        return squares

    def row_norms(self, mapping: RowMap, single: bool = False) -> np.ndarray:
        self.passes += 1
        parts = [self._part(i0, i1, block).row_norms(mapping, single) for i0, i1, block in self._pieces()]
        return np.concatenate(parts) if parts else np.empty(0)

    def gram(self, mapping: RowMap) -> np.ndarray:
        self.passes += 1
        G = np.zeros((mapping.rank, mapping.rank))
        for i0, i1, block in self._pieces():
            G += self._part(i0, i1, block).gram(mapping)
        return G

    def _take(self, indices: np.ndarray) -> np.ndarray:
        self.passes += 1
        out = np.empty((len(indices), self.shape[1]))
        for i0, i1, block in self._pieces():
            here = np.flatnonzero((indices >= i0) & (indices < i1))
            if len(here):
                out[here] = self._part(i0, i1, block)._take(indices[here] - i0)
        return out

    def _part(self, i0: int, i1: int, block: Any) -> TallMatrix:
        weights = None if self.weights is None else self.weights[i0:i1]
        return Sparse(block, weights) if sp.issparse(block) else Dense(block, weights)

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        n = self.shape[1]
        out = np.zeros((S.shape[0], n), self.dtype if self.weights is None else np.float64)
        # The whole sketch is updated for every piece: pieces of its size keep that no dearer than reading them.
        for i0, i1, block in self._pieces(min(out.nbytes, _JOINED)):
            S.distribution._apply(S, block if self.weights is None else scaled_rows(block, self.roots[i0:i1]), i0, out)
        return out

    def row_blocks(self, rows: int) -> Iterator[np.ndarray]:
        self.passes += 1
        for i0, i1, block in self._pieces():
            yield from self._part(i0, i1, block).row_blocks(rows)

    def is_finite(self) -> bool:
        self.passes += 1
        return all(bool(np.isfinite(block.data if sp.issparse(block) else block).all()) for _, _, block in self._pieces())


def interleaved(A: _check.Matrix) -> _check.Matrix:
    """The real matrix of twice as many columns that holds Re, Im of every entry in turn; a view where rows allow."""
    real = _check.real_dtype(A.dtype)
    if not is_sparse(A):
        return (A if A.strides[1] == A.itemsize or A.shape[1] == 1 else namespace(A).ascontiguousarray(A)).view(real)
    wide = np.result_type(A.indices.dtype, np.int64) if 2 * max(A.nnz, A.shape[1]) > 2**31 - 1 else A.indices.dtype
    indices = namespace(A).empty(2 * len(A.indices), wide)
    indices[0::2] = A.indices
    indices *= 2
    indices[1::2] = indices[0::2] + 1
    return sparse_matrix(A.data.view(real), indices, A.indptr.astype(wide) * 2, (A.shape[0], 2 * A.shape[1]))
