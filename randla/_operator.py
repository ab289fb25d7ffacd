"""What a distribution draws: operators without a matrix, their transposes, and sums over chunks of rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _backend, _check, _cpu

if TYPE_CHECKING:
    from .families import Distribution

_KEPT = 1 << 28  # bytes on a device that an operator may keep for each stream


def _by_real_parts(A: Any, apply: Callable[[Any], np.ndarray]) -> np.ndarray:
    """A real linear map of a complex matrix."""
    if A.dtype.kind != "c":
        return apply(A)
    if _backend.sparse_on_device(A):
        real, imag = (_backend.sparse_matrix(part, A.indices, A.indptr, A.shape) for part in (A.data.real, A.data.imag))
        return _complex(apply(real), apply(imag), A.dtype)
    return _complex(apply(A.real), apply(A.imag), A.dtype)


def _complex(real: np.ndarray, imag: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """real + 1j imag, except that an infinite part does not make the other one NaN."""
    out = _backend.namespace(real).empty(real.shape, dtype)
    out.real, out.imag = real, imag
    return out


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
        x = _check.matrix(X, "X", device=True) if _backend.is_sparse(X) else _check.array(X, "X", device=True)
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(f"S @ X: X must have {self.shape[1]} rows, as S has shape {self.shape}; got shape {x.shape}")
        if x.ndim == 1:
            return _by_real_parts(x[:, None], self._times)[:, 0]
        return _by_real_parts(x, self._times)

    def __rmatmul__(self, X: Any) -> np.ndarray:
        x = X if _backend.is_sparse(X) else _check.array(X, "X", device=True)
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

    `S @ A` takes dense arrays of any strides and CSR/CSC matrices, 1-D or 2-D, and keeps the dtype of A. Arrays of
    a CUDA device (CuPy, torch) and CuPy's sparse matrices give CuPy arrays.
    `S.distribution.sample(d, m, rng=S.seed)` is S again.
    """

    distribution: Distribution
    shape: tuple[int, int]
    seed: int

    def _times(self, X: _check.Matrix) -> np.ndarray:
        out = _backend.namespace(X).zeros((self.shape[0], X.shape[1]), X.dtype)
        self.distribution._apply(self, X, 0, out)
        return out

    def _transposed(self) -> _Products:
        return TransposedSketch(self)

    def _once_on_device(self, A: Any, kind: Any, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """What a product with A needs of S there, made once and kept with S where it is not too large.

        Other streams make their own: nothing orders their work after this, nor the end of this memory after theirs.
        """
        kept = self.__dict__.setdefault("_on_device", {})
        key = (*_backend.place(A), kind)
        if key in kept:
            return kept[key]
        made = make()
        if sum(part.nbytes for part in made) <= _KEPT:
            kept[key] = made
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_on_device"}

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

    def append(self, blocks: int = 1) -> SketchOperator:
        """A SparseStack with `blocks` further blocks of rows, of which S, rescaled, is the first part.

        S has nnz blocks of d / nnz rows, and d must be a multiple of nnz (ValueError). `extend` updates sketches made with S.
        """
        nnz = self._blocks("append")
        more = nnz + _check.integer(blocks, "blocks", 1)
        from .families import SparseStack

        return SparseStack(more).sample(self.shape[0] // nnz * more, self.shape[1], rng=self.seed)

    def extend(self, SA: Any, A: Any) -> np.ndarray:
        """T @ A for this T, given SA = S @ A for an S from which T came by `append`; only the new rows are made.

        SA : (d_S, n) or (d_S,); A : (m, n) or (m,), dense or CSR/CSC, of the dtype of SA. Both of the host or of one device.
        """
        nnz = self._blocks("extend")
        height = self.shape[0] // nnz
        have = _check.array(SA, "SA", device=True)
        a = (_check.matrix if _backend.is_sparse(A) else _check.array)(A, "A", device=True)
        _backend.same_device(SA=have, A=a)
        before, left_over = divmod(have.shape[0] if have.ndim else 0, height)
        if left_over or not 0 < before < nnz or a.shape != (self.shape[1], *have.shape[1:]) or a.ndim > 2:
            raise ValueError(
                f"SA and A must be (d, n) and ({self.shape[1]}, n) with d a multiple of {height} below {self.shape[0]}; "
                f"got shapes {have.shape} and {a.shape}"
            )
        if a.dtype.kind == "c" and have.dtype.kind != "c":
            raise TypeError(f"A must be real, as SA has dtype {have.dtype}; got {a.dtype}")
        first = self.distribution._rows_from_block(self, before)  # type: ignore[attr-defined]
        new = _by_real_parts(a[:, None] if a.ndim == 1 else a, first)
        new = (new[:, 0] if a.ndim == 1 else new).astype(have.dtype, copy=False)
        return _backend.namespace(a).concatenate([have * have.dtype.type(math.sqrt(before / nnz)), new])

    def _blocks(self, what: str) -> int:
        nnz = getattr(self.distribution, "nnz", 0)
        if not hasattr(self.distribution, "_rows_from_block"):
            raise TypeError(f"{what} needs a SparseStack; got {self.distribution!r}")
        if self.shape[0] % nnz:
            raise ValueError(f"{what} needs blocks of equal size: d must be a multiple of nnz = {nnz}; got {self.shape[0]}")
        return nnz


@dataclasses.dataclass(frozen=True)
class TransposedSketch(_Products):
    """S' of a SketchOperator."""

    operator: SketchOperator

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.operator.shape[::-1]

    def _times(self, X: _check.Matrix) -> np.ndarray:
        Y = X.toarray() if _backend.is_sparse(X) else X
        out = _backend.namespace(Y).empty((self.shape[0], Y.shape[1]), Y.dtype)
        self.operator.distribution._adjoint(self.operator, Y, 0, out)
        return out

    def _transposed(self) -> _Products:
        return self.operator

    def to_dense(self, dtype: Any = float) -> np.ndarray:
        return self.operator.to_dense(dtype).T


class _OrderFreeSum:
    """Sum of real matrices whose bits do not depend on the order in which they come.

    Every term is cut at fixed multiples of 24 bits, counted from the largest entry that its column has had; the pieces add up
    without rounding (for up to 2^28 terms), and four of them reach 2^-72 below that entry (after Demmel, Nguyen 2015).
    """

    _WIDTH, _PIECES = 24, 4
    _LARGEST = 2.0**900  # what is not below it is added up apart
    _DOWN = 256  # binary exponents by which finite ones of those are made smaller

    def __init__(self, rows: int, columns: int):
        self._bins = np.zeros((self._PIECES, rows, columns))
        self._top: np.ndarray | None = None
        self._huge: _OrderFreeSum | None = None
        self._infinite: np.ndarray | None = None  # and NaN

    def add(self, term: np.ndarray) -> None:
        x = np.ascontiguousarray(term, dtype=np.float64)
        size = np.maximum(x.max(axis=0, initial=0.0), -x.min(axis=0, initial=0.0))
        if not (size < self._LARGEST).all():
            x = self._add_apart(x)
            size = np.abs(x).max(axis=0, initial=0.0)
        # One bit to spare: rounded at the next higher cut, every entry of the column is zero.
        top = np.where(size > 0, -((-np.frexp(size)[1] - 1) // self._WIDTH), -1000)
        top = top if self._top is None else np.maximum(top, self._top)
        if self._top is not None and (rise := top - self._top).any():
            for k in range(self._PIECES - 1, -1, -1):
                source = k - rise
                moved = [np.where(source == q, self._bins[q], 0.0) for q in range(k + 1)]
                self._bins[k] = np.sum(moved, axis=0)
        self._top = top
        cuts = (top[None, :] - 1 - np.arange(self._PIECES)[:, None]) * self._WIDTH
        _cpu.add_pieces(x, np.ldexp(1.5, np.clip(52 + cuts, -1022, 1000)), self._bins)

    def _add_apart(self, x: np.ndarray) -> np.ndarray:
        """Add the huge and the infinite entries of x, and return the others."""
        below, finite = np.abs(x) < self._LARGEST, np.isfinite(x)
        if (huge := finite & ~below).any():
            self._huge = self._huge or _OrderFreeSum(*x.shape)
            self._huge.add(np.ldexp(np.where(huge, x, 0.0), -self._DOWN))
        if not finite.all():
            self._infinite = np.zeros_like(x) if self._infinite is None else self._infinite
            with np.errstate(invalid="ignore"):
                self._infinite += np.where(finite, 0.0, x)
        return np.where(below, x, 0.0)

    def total(self) -> np.ndarray:
        out = ((self._bins[3] + self._bins[2]) + self._bins[1]) + self._bins[0]
        with np.errstate(over="ignore"):
            if self._huge is not None:
                out += np.ldexp(self._huge.total(), self._DOWN)
        if self._infinite is not None:
            out += self._infinite
            out[np.isnan(out)] = np.nan  # the sign of a NaN depends on the order
        return out


class SketchAccumulator:
    """Sum of S[:, chunk] @ rows over chunks: after every row came once, `result()` is S @ A.

    The same chunks in any order give the same bits; other chunks the same sums up to rounding. Terms are cut 72 bits below the
    largest entry of their column. Holds five (d, n) arrays.
    """

    def __init__(self, operator: SketchOperator, n: int, dtype: Any = float):
        self.operator = operator
        self.dtype = _check.dtype_of(np.dtype(dtype), "dtype")
        self._columns = _check.integer(n, "n", 0)
        self._parts = [_OrderFreeSum(operator.shape[0], self._columns) for _ in range(1 + (self.dtype.kind == "c"))]

    def add(self, rows: Any, offset: int) -> None:
        """Add rows [offset, offset + len(rows)) of the matrix: array or CSR/CSC of shape (count, n)."""
        d, m = self.operator.shape
        offset = _check.integer(offset, "offset", 0)
        chunk = _check.matrix(rows, "rows")
        if chunk.shape[1] != self._columns or offset + chunk.shape[0] > m:
            raise ValueError(
                f"rows must have {self._columns} columns and end by row {m}; got shape {chunk.shape} at offset {offset}"
            )
        if chunk.dtype.kind == "c" and self.dtype.kind != "c":
            raise TypeError(f"rows must be real, as the accumulator's dtype is {self.dtype}; got {chunk.dtype}")
        real = _check.real_dtype(self.dtype)
        for total, part in zip(self._parts, (chunk.real, chunk.imag) if chunk.dtype.kind == "c" else (chunk,), strict=False):
            term = np.zeros((d, self._columns), real)
            self.operator.distribution._apply(self.operator, part.astype(real, copy=False), offset, term)
            total.add(term)

    def __repr__(self) -> str:
        return f"SketchAccumulator({self.operator}, n={self._columns}, dtype={self.dtype})"

    def result(self) -> np.ndarray:
        """The (d, n) sum so far, as a new array."""
        real = _check.real_dtype(self.dtype)
        with np.errstate(over="ignore"):
            parts = [total.total().astype(real, copy=False) for total in self._parts]
        return parts[0] if len(parts) == 1 else _complex(parts[0], parts[1], self.dtype)
