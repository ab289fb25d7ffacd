"""`Operand`: the one thing that the algorithms ask of a matrix, products with blocks, whatever holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._backend import namespace
from ..blocks import RowBlocks, as_row_blocks
from ..sketch import SketchOperator
from ._products import add_adjoint_product, adjoint_copy, csr_times, hermitian_product, norm_of, product

# Rows of a dense matrix that are multiplied while the cache holds them: 4 MB.
_CHUNK = 1 << 22
# Rows that are sketched together: the whole windows of a BlockSRHT.
_SKETCHED_ROWS = 4096


class Operand:
    """An (m, n) matrix that is only read, and how often it was.

    Blocks are 2-D arrays; those of the precision of A are not converted, others are. Products have the dtype of A, complex
    where the block is.
    """

    explicit = True  # whether entries can be had
    sparse = False
    xp: Any = np  # where blocks lie: numpy, or cupy for a matrix of a device

    def __init__(self, A: Any, name: str):
        self.A, self.name = A, name
        self.shape: tuple[int, int] = (int(A.shape[0]), int(A.shape[1]))
        self.dtype = _check.dtype_of(np.dtype(getattr(A, "dtype", None)), name)
        self.passes = 0

    def times(self, X: np.ndarray) -> np.ndarray:
        """A X, (m, k) in C order. One pass."""
        raise NotImplementedError

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        """A^H Y, (n, k). One pass."""
        raise NotImplementedError

    def hermitian_times(self, X: np.ndarray) -> np.ndarray:
        """A X for an A that is known to be Hermitian; one of its triangles may be all that is read. One pass."""
        return self.times(X)

    def gram_times(self, X: np.ndarray) -> np.ndarray:
        """A^H (A X), (n, k). One pass for row-major matrices and row blocks, else two."""
        return self.both_times(X)[1]

    def both_times(
        self, X: np.ndarray, shift: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Y = A X, less the row `shift` (1, k) from every row, and A^H Y, in the passes of `gram_times`.

        Y is written to `out`, (m, k) with contiguous rows, where one is given.
        """
        Y = self.times(X)
        if shift is not None:
            Y -= shift
        if out is not None:
            out[:] = Y
        return Y if out is None else out, self.adjoint_times(Y)

    def sketch(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Frobenius norm and S A, in one pass, of A less the row `mean`; raises as `norm` does."""
        raise self._opaque()

    def sketch_adjoint(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Frobenius norm and S A^H, in one pass, of A less the row `mean`."""
        raise self._opaque()

    def means(self) -> np.ndarray:
        """Means of the columns. One pass."""
        with np.errstate(invalid="ignore"):
            return self._finite(self.adjoint_times(np.full((self.shape[0], 1), 1 / self.shape[0], self.dtype))[:, 0].conj())

    def _finite(self, means: np.ndarray) -> np.ndarray:
        if not self.xp.isfinite(means).all():
            raise ValueError(f"{self.name} must be finite; got NaN or infinite entries")
        return means.astype(self.dtype)

    def take_columns(self, index: Any) -> np.ndarray:
        """A[:, index], dense. Explicit matrices only."""
        raise self._opaque()

    def take_rows(self, index: Any) -> np.ndarray:
        """A[index], dense. Explicit matrices only."""
        raise self._opaque()

    def norm(self) -> float:
        """Frobenius norm, without overflow or underflow; ValueError for NaN and infinity. One pass; explicit matrices only."""
        raise self._opaque()

    def diagonal(self) -> np.ndarray:
        """The main diagonal, dense. Explicit matrices only."""
        raise self._opaque()

    def _opaque(self) -> TypeError:
        return TypeError(f"{self.name} must be given by its entries; got {type(self.A).__name__}")

    def _block(self, X: np.ndarray) -> np.ndarray:
        """X in the precision of A."""
        dtype = self.dtype
        if X.dtype.kind == "c" and dtype.kind != "c":
            dtype = np.result_type(dtype, np.complex64)
        return X.astype(dtype, copy=False)


class DenseOperand(Operand):
    def times(self, X: np.ndarray) -> np.ndarray:
        self.passes += 1
        return product(self.A, self._block(X))

    def hermitian_times(self, X: np.ndarray) -> np.ndarray:
        self.passes += 1
        return hermitian_product(self.A, self._block(X))

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        self.passes += 1
        return product(self.A.T, self._block(Y), conjugate=True)

    def both_times(
        self, X: np.ndarray, shift: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        X = self._block(X)
        if (self.A.flags.f_contiguous and not self.A.flags.c_contiguous) or X.dtype != self.dtype:
            return super().both_times(X, shift, out)
        self.passes += 1
        Y = np.empty((self.shape[0], X.shape[1]), X.dtype) if out is None else out
        W = np.zeros((self.shape[1], X.shape[1]), X.dtype, order="F")
        for i, rows in self.row_chunks():
            rows = np.ascontiguousarray(rows)
            some = product(rows, X)
            if shift is not None:
                some -= shift
            Y[i : i + len(rows)] = some
            add_adjoint_product(rows, some.conj(), W)
        return Y, W.conj()

    def means(self) -> np.ndarray:
        self.passes += 1
        total = np.zeros(self.shape[1], np.result_type(self.dtype, np.float64))
        with np.errstate(invalid="ignore"):
            for _, rows in self.row_chunks():
                total += (rows / self.dtype.type(self.shape[0])).sum(axis=0, dtype=total.dtype)
        return self._finite(total)

    def row_chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(offset, rows) that the cache holds; not counted as a pass."""
        step = max(64, _CHUNK // max(1, self.shape[1] * self.dtype.itemsize))
        for i in range(0, self.shape[0], step):
            yield i, self.A[i : i + step]

    def sketch(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        self.passes += 1
        return self._sketch(self.A, S, None if mean is None else mean[None])

    def sketch_adjoint(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        self.passes += 1
        norm, SA = self._sketch(self.A.T, S, None if mean is None else mean[:, None])
        return norm, SA.conj()

    def _sketch(self, A: np.ndarray, S: SketchOperator, mean: np.ndarray | None) -> tuple[float, np.ndarray]:
        out, norms = SketchSum(S, A.shape[1], self.dtype), list[float]()
        for i in range(0, len(A), _SKETCHED_ROWS):
            rows = A[i : i + _SKETCHED_ROWS]
            if mean is not None:
                rows = rows - (mean if len(mean) == 1 else mean[i : i + _SKETCHED_ROWS])
            norms.append(norm_of([rows], self.name))
            out.add(rows, i)
        return math.hypot(*norms), out.total()

    def take_columns(self, index: Any) -> np.ndarray:
        return self.A[:, index]

    def take_rows(self, index: Any) -> np.ndarray:
        return self.A[index]

    def norm(self) -> float:
        self.passes += 1
        return norm_of((rows for _, rows in self.row_chunks()), self.name)

    def diagonal(self) -> np.ndarray:
        return self.A.diagonal().copy()


class SparseOperand(Operand):
    """A CSR matrix, and a CSR copy of A^H made when first needed: both kinds of product gather."""

    sparse = True
    _adjoint: sp.csr_array | None = None

    @property
    def adjoint(self) -> sp.csr_array:
        if self._adjoint is None:
            self._adjoint = adjoint_copy(self.A)
        return self._adjoint

    def times(self, X: np.ndarray) -> np.ndarray:
        self.passes += 1
        return csr_times(self.A, self._block(X))

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        self.passes += 1
        return csr_times(self.adjoint, self._block(Y))

    def both_times(
        self, X: np.ndarray, shift: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        self.passes += 1
        Y = csr_times(self.A, self._block(X), out)
        if shift is not None:
            Y -= shift
        return Y, self.adjoint_times(Y)

    def take_columns(self, index: Any) -> np.ndarray:
        return self.A[:, index].toarray()

    def take_rows(self, index: Any) -> np.ndarray:
        return self.A[index].toarray()

    def norm(self) -> float:
        self.passes += 1
        return self._norm()

    @property
    def _canonical(self) -> sp.csr_array:
        if self.A.has_canonical_format:
            return self.A
        A = self.A.copy()
        A.sum_duplicates()
        return A

    def _norm(self) -> float:
        return norm_of([self._canonical.data], self.name)

    def sketch(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        self.passes += 1
        if mean is None:
            return self._norm(), S @ self.A
        ones = S @ self.xp.ones(self.shape[0], _check.real_dtype(self.dtype))
        return self._centered_norm(mean), (S @ self.A) - self.xp.outer(ones, mean).astype(self.dtype)

    def sketch_adjoint(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        self.passes += 1
        if mean is None:
            return self._norm(), S @ self.adjoint
        return self._centered_norm(mean), (S @ self.adjoint) - (S @ mean.conj())[:, None]

    def _centered_norm(self, mean: np.ndarray) -> float:
        A, m = self._canonical, self.shape[0]
        missing = self.xp.sqrt(m - self.xp.bincount(A.indices, minlength=self.shape[1]))
        return norm_of([A.data - mean[A.indices], (missing * mean).astype(self.dtype)], self.name)

    def means(self) -> np.ndarray:
        self.passes += 1
        shares = sp.csr_array((self.A.data / self.dtype.type(self.shape[0]), self.A.indices, self.A.indptr), shape=self.shape)
        with np.errstate(invalid="ignore"):
            return self._finite(np.asarray(shares.sum(axis=0, dtype=np.result_type(self.dtype, np.float64))).reshape(-1))

    def diagonal(self) -> np.ndarray:
        return self.A.diagonal()


class OperatorOperand(Operand):
    """Anything with shape, matvec and rmatvec; matmat and rmatmat are used where they are."""

    explicit = False

    def times(self, X: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self._apply("matmat", "matvec", self._block(X), self.shape[0])

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self._apply("rmatmat", "rmatvec", self._block(Y), self.shape[1])

    def _apply(self, block: str, single: str, X: np.ndarray, rows: int) -> np.ndarray:
        if X.shape[1] and hasattr(self.A, block):
            out = np.asarray(getattr(self.A, block)(X))
        else:
            apply: Callable[[np.ndarray], Any] = getattr(self.A, single)
            out = np.empty((rows, X.shape[1]), X.dtype)
            for j in range(X.shape[1]):
                out[:, j] = np.asarray(apply(np.ascontiguousarray(X[:, j]))).reshape(-1)
        if out.shape != (rows, X.shape[1]):
            raise ValueError(f"{self.name}.{block} must return shape {(rows, X.shape[1])}; got {out.shape}")
        if out.dtype.kind == "c" and X.dtype.kind != "c":
            raise TypeError(f"{self.name} must have a complex dtype, as its products are complex; got {self.dtype}")
        return np.ascontiguousarray(out, dtype=X.dtype)


class BlocksOperand(Operand):
    """RowBlocks: every product reads all blocks once."""

    def __init__(self, A: RowBlocks, name: str):
        A.require_many_passes()
        super().__init__(A, name)
        self.passes, A.uncounted = A.uncounted, 0

    def _each(self) -> Iterator[tuple[int, Operand]]:
        self.passes += 1
        for offset, block in self.A:
            yield offset, SparseOperand(block, self.name) if sp.issparse(block) else DenseOperand(block, self.name)

    def times(self, X: np.ndarray) -> np.ndarray:
        X = self._block(X)
        out = np.empty((self.shape[0], X.shape[1]), X.dtype)
        for i, block in self._each():
            out[i : i + block.shape[0]] = block.times(X)
        return out

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        Y = self._block(Y)
        out = np.zeros((self.shape[1], Y.shape[1]), Y.dtype)
        for i, block in self._each():
            out += block.adjoint_times(Y[i : i + block.shape[0]])
        return out

    def both_times(
        self, X: np.ndarray, shift: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        X = self._block(X)
        Y = np.empty((self.shape[0], X.shape[1]), X.dtype) if out is None else out
        W = np.zeros((self.shape[1], X.shape[1]), X.dtype)
        for i, block in self._each():
            W += block.both_times(X, shift, Y[i : i + block.shape[0]])[1]
        return Y, W

    def sketch(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        out, norms = SketchSum(S, self.shape[1], self.dtype), list[float]()
        for i, block in self._each():
            rows = block.A if mean is None else (block.A.toarray() if sp.issparse(block.A) else block.A) - mean
            norms.append(norm_of([rows], self.name) if mean is not None else block.norm())
            out.add(rows, i)
        return math.hypot(*norms), out.total()

    def sketch_adjoint(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        out, norms = np.empty((S.shape[0], self.shape[0]), self.dtype), list[float]()
        for i, block in self._each():
            norm, out[:, i : i + block.shape[0]] = block.sketch_adjoint(S, mean)
            norms.append(norm)
        return math.hypot(*norms), out

    def take_columns(self, index: Any) -> np.ndarray:
        return np.concatenate([block.take_columns(index) for _, block in self._each()])

    def take_rows(self, index: Any) -> np.ndarray:
        index = np.arange(self.shape[0])[index]
        out = np.empty((len(index), self.shape[1]), self.dtype)
        for i, block in self._each():
            here = (index >= i) & (index < i + block.shape[0])
            if here.any():
                out[here] = block.take_rows(index[here] - i)
        return out

    def norm(self) -> float:
        return math.hypot(*(block.norm() for _, block in self._each()))

    def diagonal(self) -> np.ndarray:
        out = np.empty(min(self.shape), self.dtype)
        for i, block in self._each():
            part = block.A.diagonal(i) if i < self.shape[1] else block.A[:0].diagonal()
            out[i : i + len(part)] = part
        return out


class AdjointOperand(Operand):
    """A^H of an operand; reads are counted there."""

    def __init__(self, base: Operand):
        self.base, self.name, self.dtype, self.explicit = base, base.name, base.dtype, base.explicit
        self.shape, self.sparse, self.xp = base.shape[::-1], base.sparse, base.xp

    @property
    def passes(self) -> int:  # type: ignore[override]
        return self.base.passes

    def times(self, X: np.ndarray) -> np.ndarray:
        return self.base.adjoint_times(X)

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        return self.base.times(Y)

    def norm(self) -> float:
        return self.base.norm()

    def sketch(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        return self.base.sketch_adjoint(S, mean)

    def sketch_adjoint(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        return self.base.sketch(S, mean)

    def take_columns(self, index: Any) -> np.ndarray:
        return self.base.take_rows(index).conj().T

    def take_rows(self, index: Any) -> np.ndarray:
        return self.base.take_columns(index).conj().T

    def diagonal(self) -> np.ndarray:
        return self.base.diagonal().conj()


def operand(A: Any, name: str = "A") -> Operand:
    """An Operand for a 2-D array (also memory-mapped), CSR/CSC matrix, operator, RowBlocks or a list of blocks of rows.

    Values are not looked at: `norm` finds NaN and infinity. Raises TypeError and ValueError as `_check.matrix` does.
    """
    blocks = as_row_blocks(A)
    if blocks is not None:
        return BlocksOperand(blocks, name)
    a = _check.matrix(A, name, operators=True)
    if isinstance(a, np.ndarray):
        return DenseOperand(a, name)
    return SparseOperand(a, name) if sp.issparse(a) else OperatorOperand(a, name)


class SketchSum:
    """Sum of S[:, chunk] @ rows over chunks in their order; complex rows by parts."""

    def __init__(self, S: SketchOperator, columns: int, dtype: np.dtype, xp: Any = np):
        self.S, self.dtype = S, dtype
        self.parts = [xp.zeros((S.shape[0], columns), _check.real_dtype(dtype)) for _ in range(1 + (dtype.kind == "c"))]

    def add(self, rows: Any, offset: int) -> None:
        for out, part in zip(self.parts, (rows.real, rows.imag) if len(self.parts) == 2 else (rows,), strict=True):
            self.S.distribution._apply(self.S, part, offset, out)

    def total(self) -> np.ndarray:
        if len(self.parts) == 1:
            return self.parts[0]
        out = namespace(self.parts[0]).empty(self.parts[0].shape, self.dtype)
        out.real, out.imag = self.parts
        return out
