"""Sketching: distributions (values), operators (distribution, shape and seed), accumulators over row chunks.

docs/definitions.md defines every entry of every operator. An operator holds no matrix: entry (i, j) is a pure function of
the seed, so blocks, threads, chunks and instruction sets cannot change it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from . import _check, _cpu

_GAUSSIAN_TILE = 1 << 20  # entries of S made at a time: 8 MB


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A family of random d x m matrices S with E[S'S] = I; `sample` draws one."""

    def sample(self, d: int, m: int, rng: Any = None) -> SketchOperator:
        """Draw a (d, m) operator. rng: None | int | SeedSequence | BitGenerator | Generator (SPEC 7)."""
        d = _check.integer(d, "d", 1, 2**31 - 1)
        m = _check.integer(m, "m", 0, 2**62)
        return SketchOperator(self, (d, m), _check.seed(rng))

    # What a family provides. A has a real float dtype and is dense or CSR; `out` is C-contiguous.
    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        """out += S[:, j0 : j0 + rows of A] @ A."""
        raise NotImplementedError

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        """out = S[:, j0 : j0 + rows of out]' @ Y."""
        raise NotImplementedError

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        """S[i0:i1, j0:j1] in float64."""
        raise NotImplementedError


class _FixedNnz(Distribution):
    """Families known by the entries of a column: rows (count, z) and values (count, z)."""

    def _columns(self, s: SketchOperator, j0: int, j1: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _csc(self, s: SketchOperator, j0: int, j1: int) -> sp.csc_array:
        rows, values = self._columns(s, j0, j1)
        indptr = np.arange(0, rows.size + 1, rows.shape[1] if rows.size else 1)
        return sp.csc_array((values.ravel(), rows.ravel(), indptr), shape=(s.shape[0], j1 - j0))

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        rows, values = self._columns(s, j0, j1)
        columns = np.broadcast_to(np.arange(j1 - j0)[:, None], rows.shape)
        inside = (rows >= i0) & (rows < i1)
        out = np.zeros((i1 - i0, j1 - j0))
        np.add.at(out, (rows[inside] - i0, columns[inside]), values[inside])
        return out


class _Sparse(_FixedNnz):
    nnz: int
    _family: ClassVar[int]

    def _check_nnz(self) -> None:
        _check.integer(self.nnz, "nnz", 1, 256)

    def _arguments(self, s: SketchOperator) -> tuple[int, int, int, int, int]:
        d, m = s.shape
        return self._family, d, m, min(self.nnz, d), s.seed

    def _columns(self, s: SketchOperator, j0: int, j1: int) -> tuple[np.ndarray, np.ndarray]:
        return _cpu.sparse_columns(*self._arguments(s), j0, j1)

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        if sp.issparse(A):
            _cpu.sparse_sketch_csr(*self._arguments(s), np.ascontiguousarray(A.data), A.indptr, A.indices, A.shape[1], j0, out)
        else:
            _cpu.sparse_sketch(*self._arguments(s), A, j0, out)

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        _cpu.sparse_sketch_adjoint(*self._arguments(s), Y, j0, out)


@dataclasses.dataclass(frozen=True)
class SparseStack(_Sparse):
    """nnz entries +-1/sqrt(nnz) per column, one in each of nnz blocks of rows (Chenakkod, Dereziński, Dong 2025)."""

    nnz: int = 8
    _family: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self._check_nnz()


@dataclasses.dataclass(frozen=True)
class SparseSign(_Sparse):
    """nnz entries +-1/sqrt(nnz) per column in distinct, uniformly random rows (Nelson, Nguyen 2013)."""

    nnz: int = 8
    _family: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._check_nnz()


@dataclasses.dataclass(frozen=True)
class CountSketch(_Sparse):
    """One entry +-1 per column (Clarkson, Woodruff 2013). An embedding only for d of order n^2: not for least squares."""

    nnz: ClassVar[int] = 1  # type: ignore[misc]
    _family: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class BlockSRHT(_FixedNnz):
    """Groups of `block` rows mixed by a randomly signed Hadamard matrix and added to one block of output rows.

    Reads a dense matrix once at about the speed of memory, whatever d is. block: 16, 32, 64 or 128.
    """

    block: int = 64

    def __post_init__(self) -> None:
        if type(self.block) is not int or self.block not in (16, 32, 64, 128):
            raise ValueError(f"block must be 16, 32, 64 or 128; got {self.block!r}")

    def _blocks(self, d: int) -> int:
        return -(-d // self.block)

    def _block_starts(self, d: int) -> np.ndarray:
        """First row of each output block, and d."""
        nb = self._blocks(d)
        k = np.arange(nb + 1)
        return k * (d // nb) + np.minimum(k, d % nb)

    def _columns(self, s: SketchOperator, j0: int, j1: int) -> tuple[np.ndarray, np.ndarray]:
        return _cpu.block_srht_columns(*s.shape, self.block, s.seed, j0, j1)

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        if sp.issparse(A):
            # A group mixes rows of different patterns: as a sparse product it has up to `block` entries per row of A.
            out += (self._csc(s, j0, j0 + A.shape[0]) @ A).toarray()
        else:
            _cpu.block_srht(*s.shape, self.block, s.seed, A, j0, 0, self._blocks(s.shape[0]), out)

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        _cpu.block_srht_adjoint(*s.shape, self.block, s.seed, Y, j0, out)


@dataclasses.dataclass(frozen=True)
class Gaussian(Distribution):
    """Independent N(0, 1/d) entries, made tile by tile and multiplied by BLAS; S is never stored."""

    def _tiles(self, s: SketchOperator, j0: int, j1: int, dtype: np.dtype) -> Any:
        d = s.shape[0]
        width = max(16, _GAUSSIAN_TILE // d)
        buffer = np.empty((d, min(width, j1 - j0)), dtype)
        for j in range(j0, j1, width):
            tile = buffer[:, : min(width, j1 - j)]
            _cpu.dense_sketch(tile, 0, j, d, s.seed)
            yield j - j0, tile

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        for j, tile in self._tiles(s, j0, j0 + A.shape[0], out.dtype):
            out += tile @ A[j : j + tile.shape[1]]

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        for j, tile in self._tiles(s, j0, j0 + out.shape[0], out.dtype):
            np.matmul(tile.T, Y, out=out[j : j + tile.shape[1]])

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        out = np.empty((i1 - i0, j1 - j0))
        _cpu.dense_sketch(out, i0, j0, s.shape[0], s.seed)
        return out


def _by_real_parts(A: Any, apply: Callable[[Any], np.ndarray]) -> np.ndarray:
    """A real linear map of a complex matrix."""
    if A.dtype.kind != "c":
        return apply(A)
    return apply(A.real) + 1j * apply(A.imag)


class _Products:
    """What S and S' share: products with anything, and the methods of a scipy LinearOperator."""

    shape: tuple[int, int]
    dtype = np.dtype(np.float64)
    ndim = 2
    __array_ufunc__ = None  # ndarray @ S asks S

    def _times(self, X: _check.Matrix) -> np.ndarray:
        raise NotImplementedError

    def _transposed(self) -> _Products:
        raise NotImplementedError

    @property
    def T(self) -> Any:
        return self._transposed()

    @property
    def H(self) -> Any:
        return self._transposed()

    def __matmul__(self, X: Any) -> np.ndarray:
        x = _check.csr(X, "X") if sp.issparse(X) else _check.array(X, "X")
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(f"S @ X: X must have {self.shape[1]} rows, as S has shape {self.shape}; got shape {x.shape}")
        if x.ndim == 1:
            return _by_real_parts(x[:, None], self._times)[:, 0]
        return _by_real_parts(x, self._times)

    def __rmatmul__(self, X: Any) -> np.ndarray:
        x = X if sp.issparse(X) else _check.array(X, "X")
        if x.ndim not in (1, 2) or x.shape[-1] != self.shape[0]:
            raise ValueError(f"X @ S: X must have {self.shape[0]} columns, as S has shape {self.shape}; got shape {x.shape}")
        return (self._transposed() @ x.T).T

    def matvec(self, x: np.ndarray) -> np.ndarray:
        return self @ x

    def matmat(self, X: np.ndarray) -> np.ndarray:
        return self @ X

    def rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._transposed() @ x

    def rmatmat(self, X: np.ndarray) -> np.ndarray:
        return self._transposed() @ X

    def to_dense(self, dtype: Any = float) -> np.ndarray:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SketchOperator(_Products):
    """A random (d, m) matrix S with E ||S x||^2 = ||x||^2, given by distribution, shape and seed.

    `S @ A` takes dense arrays of any strides and CSR/CSC matrices, 1-D or 2-D, and keeps the dtype of A.
    `S.distribution.sample(d, m, rng=S.seed)` is S again.
    """

    distribution: Distribution
    shape: tuple[int, int]
    seed: int

    def _times(self, X: _check.Matrix) -> np.ndarray:
        out = np.zeros((self.shape[0], X.shape[1]), X.dtype)
        self.distribution._apply(self, X, 0, out)
        return out

    def _transposed(self) -> _Products:
        return TransposedSketch(self)

    def __getitem__(self, key: Any) -> np.ndarray:
        """S[i0:i1, j0:j1] as a float64 array; the rest of S is not made."""
        i, j = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
        if not isinstance(i, slice) or not isinstance(j, slice):
            raise TypeError(f"S[...] takes slices of rows and columns; got {key!r}")
        (i0, i1, si), (j0, j1, sj) = i.indices(self.shape[0]), j.indices(self.shape[1])
        if si != 1 or sj != 1:
            raise ValueError(f"S[...] takes slices of step 1; got {key!r}")
        return self.distribution._block(self, i0, max(i0, i1), j0, max(j0, j1))

    def to_dense(self, dtype: Any = float) -> np.ndarray:
        """S as a (d, m) array."""
        return self[:, :].astype(dtype, copy=False)

    def accumulator(self, n: int, dtype: Any = float) -> SketchAccumulator:
        """Sketch an (m, n) matrix that comes in chunks of rows, in any order."""
        return SketchAccumulator(self, n, dtype)


@dataclasses.dataclass(frozen=True)
class TransposedSketch(_Products):
    """S' of a SketchOperator."""

    operator: SketchOperator

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.operator.shape[::-1]

    def _times(self, X: _check.Matrix) -> np.ndarray:
        Y = X.toarray() if sp.issparse(X) else X
        out = np.empty((self.shape[0], Y.shape[1]), Y.dtype)
        self.operator.distribution._adjoint(self.operator, Y, 0, out)
        return out

    def _transposed(self) -> _Products:
        return self.operator

    def to_dense(self, dtype: Any = float) -> np.ndarray:
        return self.operator.to_dense(dtype).T


class SketchAccumulator:
    """Sum of S[:, chunk] @ rows over chunks: after every row came once, `result()` is S @ A up to the order of sums."""

    def __init__(self, operator: SketchOperator, n: int, dtype: Any = float):
        self.operator = operator
        self._sum = np.zeros((operator.shape[0], _check.integer(n, "n", 0)), _check.dtype_of(np.dtype(dtype), "dtype"))

    def add(self, rows: Any, offset: int) -> None:
        """Add rows [offset, offset + len(rows)) of the matrix: array or CSR/CSC of shape (count, n)."""
        d, m = self.operator.shape
        offset = _check.integer(offset, "offset", 0)
        chunk = _check.matrix(rows, "rows")
        if chunk.shape[1] != self._sum.shape[1] or offset + chunk.shape[0] > m:
            raise ValueError(
                f"rows must have {self._sum.shape[1]} columns and end by row {m}; got shape {chunk.shape} at offset {offset}"
            )
        if chunk.dtype.kind == "c" and self._sum.dtype.kind != "c":
            raise TypeError(f"rows must be real, as the accumulator's dtype is {self._sum.dtype}; got {chunk.dtype}")

        def apply(part: Any) -> np.ndarray:
            real = part.astype(self._sum.real.dtype, copy=False)
            out = np.zeros((d, part.shape[1]), real.dtype)
            self.operator.distribution._apply(self.operator, real, offset, out)
            return out

        if chunk.dtype.kind != "c" and self._sum.dtype.kind != "c":
            part = chunk.astype(self._sum.dtype, copy=False)
            self.operator.distribution._apply(self.operator, part, offset, self._sum)
        else:
            self._sum += _by_real_parts(chunk, apply)

    def result(self) -> np.ndarray:
        """The (d, n) sum so far, as a copy."""
        return self._sum.copy()


def sketch(A: Any, d: int, distribution: Distribution | None = None, *, rng: Any = None) -> np.ndarray:
    """S @ A of shape (d, n) for a fresh S with d rows drawn from `distribution` (default SparseStack()).

    A is a dense array or CSR/CSC matrix of shape (m, n) or (m,). rng as in SPEC 7.
    Raises TypeError for unsupported dtypes, ValueError for unsuitable shapes.
    """
    chosen = SparseStack() if distribution is None else distribution
    if not isinstance(chosen, Distribution):
        raise TypeError(f"distribution must be a Distribution such as SparseStack(); got {distribution!r}")
    a = A if sp.issparse(A) else _check.array(A, "A")
    if a.ndim not in (1, 2):
        raise ValueError(f"A must have 1 or 2 dimensions; got {a.ndim}")
    return chosen.sample(d, a.shape[0], rng=rng) @ a
