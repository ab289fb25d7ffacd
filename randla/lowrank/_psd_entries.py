"""Entries of a Hermitian matrix, for what reads some of its rows only: from the matrix itself, by index, or from points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._backend import on_device
from ..landmarks import _kernel_matrix
from ..landmarks._kernel_matrix import Kernel

_STRIP = 1 << 18  # entries that are made at a time and used in cache: 2 MB


class Entries:
    """A Hermitian (n, n) matrix; `evaluations` counts the entries that were asked for.

    dtype is that of the values, once some were seen; eps says how precise they are.
    """

    what = "A"

    def __init__(self, n: int, dtype: Any):
        self.n, self.dtype = n, np.dtype(dtype)
        self.evaluations = 0

    @property
    def eps(self) -> float:
        return float(np.finfo(self.dtype).eps)

    def diagonal(self) -> np.ndarray:
        """In float64; raises ValueError for values that are not finite."""
        self.evaluations += self.n
        values = self._diagonal()
        if not np.isfinite(values).all():
            raise ValueError(f"{self.what} must be finite; got NaN or infinite values on its diagonal")
        return np.ascontiguousarray(values.real, np.float64)

    def block(self, index: np.ndarray) -> np.ndarray:
        """A[index, index], in float64 or complex128; raises ValueError where it is not Hermitian."""
        self.evaluations += len(index) ** 2
        out = self._block(index)
        if not np.isfinite(out).all():
            raise ValueError(f"{self.what} must be finite; got NaN or infinite values")
        adjoint = out.conj().T
        size, difference = np.abs(out).max(initial=0), np.abs(out - adjoint).max(initial=0)
        if difference > self.eps**0.5 * size:
            raise ValueError(f"{self.what} must be Hermitian; got entries of size {size:g} that differ by {difference:g}")
        return out / 2 + adjoint / 2

    def strips(self, index: np.ndarray, out: np.ndarray) -> Iterator[slice]:
        """out = A[index], (len(index), n), of self.dtype; tells each part of the columns as soon as it is there."""
        self.evaluations += out.size
        chosen = self._chosen(index)
        step = max(256, _STRIP // max(1, len(index)))
        for start in range(0, self.n, step):
            part = slice(start, min(start + step, self.n))
            self._fill(chosen, part, out[:, part])
            yield part

    def cross(self, X: Any, index: np.ndarray) -> np.ndarray:
        """Values of new points with those of the index, (m, len(index)); of a matrix X holds them already."""
        checked = _check.matrix(X, "X")
        if checked.shape[1] != len(index):
            raise ValueError(f"X must have {len(index)} columns, values of {self.what} at the pivots; got {checked.shape[1]}")
        dense = checked.toarray() if sp.issparse(checked) else checked
        _check.finite(dense, "X")
        return dense

    def _diagonal(self) -> np.ndarray:
        raise NotImplementedError

    def _block(self, index: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _chosen(self, index: np.ndarray) -> Any:
        """What is made once of an index, for _fill."""
        return index

    def _fill(self, chosen: Any, part: slice, out: np.ndarray) -> None:
        raise NotImplementedError


class DenseEntries(Entries):
    def __init__(self, A: np.ndarray):
        super().__init__(len(A), A.dtype)
        self.A = A

    def _diagonal(self) -> np.ndarray:
        return self.A.diagonal()

    def _block(self, index: np.ndarray) -> np.ndarray:
        return self.A[np.ix_(index, index)].astype(np.result_type(self.dtype, np.float64))

    def _fill(self, chosen: np.ndarray, part: slice, out: np.ndarray) -> None:
        if self.A.strides[1] <= self.A.strides[0]:
            out[:] = self.A[chosen, part]
        else:  # columns lie together
            np.conj(self.A.T[chosen, part], out=out)


class SparseEntries(Entries):
    def __init__(self, A: sp.csr_array):
        super().__init__(A.shape[0], A.dtype)
        self.A = A

    def _diagonal(self) -> np.ndarray:
        return self.A.diagonal()

    def _block(self, index: np.ndarray) -> np.ndarray:
        return self.A[index][:, index].toarray().astype(np.result_type(self.dtype, np.float64))

    def _chosen(self, index: np.ndarray) -> sp.csc_array:
        return sp.csc_array(self.A[index])

    def _fill(self, chosen: sp.csc_array, part: slice, out: np.ndarray) -> None:
        out[:] = chosen[:, part].toarray()


class IndexedEntries(Entries):
    """Anything square that takes two index arrays."""

    def __init__(self, A: Any):
        super().__init__(int(A.shape[0]), np.float32)
        self.A, self._known = A, False

    def _take(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        values = np.asarray(self.A[rows, columns])
        if values.shape != shape:
            raise ValueError(f"A[rows, columns] must have shape {shape}; got {values.shape}")
        dtype = _check.dtype_of(values.dtype, "A[rows, columns]")
        self.dtype = np.result_type(self.dtype, dtype) if self._known else dtype
        self._known = True
        return values

    def _diagonal(self) -> np.ndarray:
        index = np.arange(self.n)
        return self._take(index, index, (self.n,))

    def _block(self, index: np.ndarray) -> np.ndarray:
        values = self._take(index[:, None], index[None, :], (len(index), len(index)))
        return values.astype(np.result_type(self.dtype, np.float64))

    def _fill(self, chosen: np.ndarray, part: slice, out: np.ndarray) -> None:
        columns = np.arange(part.start, part.stop)
        values = self._take(chosen[:, None], columns[None, :], out.shape)
        if values.dtype.kind == "c" and out.dtype.kind != "c":
            raise TypeError(f"A[rows, columns] must not change from real to complex values; got {values.dtype}")
        out[:] = values


class KernelEntries(Entries):
    """k(x, y) between rows of X."""

    what = "kernel"

    def __init__(self, kernel: Kernel, X: Any):
        real = _check.real_dtype(X.dtype) if isinstance(kernel, _kernel_matrix.OfDistance) else np.dtype(np.float64)
        super().__init__(X.shape[0], X.dtype if isinstance(kernel, _kernel_matrix.Linear) else real)
        self.kernel, self.X = kernel, X

    @property
    def eps(self) -> float:
        return max(float(np.finfo(self.dtype).eps), self.kernel.eps)

    def _diagonal(self) -> np.ndarray:
        return self.kernel.diagonal(self.X)

    def _block(self, index: np.ndarray) -> np.ndarray:
        points = self.X[index]
        out = self.kernel.block(points, points)
        self._seen(out)
        return out

    def _chosen(self, index: np.ndarray) -> Any:
        return self.X[index]

    def _fill(self, chosen: Any, part: slice, out: np.ndarray) -> None:
        if isinstance(self.kernel, _kernel_matrix.OfDistance) and not sp.issparse(chosen):
            self.kernel.into(chosen, self.X[part], out)
        else:
            values = self.kernel.block(chosen, self.X[part])
            if values.dtype.kind == "c" and out.dtype.kind != "c":
                raise TypeError(f"kernel must not change from real to complex values; got {values.dtype}")
            out[:] = values

    def cross(self, X: Any, index: np.ndarray) -> np.ndarray:
        points = _kernel_matrix.points(X, "X")
        if points.shape[1] != self.X.shape[1]:
            raise ValueError(f"X must have {self.X.shape[1]} columns like the points; got {points.shape[1]}")
        return self.kernel.block(points, self.X[index])

    def _seen(self, values: np.ndarray) -> None:
        if values.dtype.kind == "c":
            self.dtype = np.result_type(self.dtype, np.complex64)


def entries(A: Any, kernel: Any, gamma: Any) -> Entries:
    """The entries of A, or those of the kernel matrix of its rows where a kernel is named."""
    if kernel is None or (isinstance(kernel, str) and kernel == "precomputed"):
        return _given(A, gamma)
    made = _kernel_matrix.make(kernel, gamma)
    return KernelEntries(made, _kernel_matrix.points(A, "A"))


def _given(A: Any, gamma: Any) -> Entries:
    if gamma is not None:
        raise ValueError(f"gamma must be None for a kernel other than 'rbf' and 'laplacian'; got {gamma!r}")
    if isinstance(A, np.ndarray | list | tuple) or sp.issparse(A) or on_device(A):
        A = _check.matrix(A, "A")
    if len(getattr(A, "shape", ())) != 2 or not hasattr(A, "__getitem__"):
        raise TypeError(f"A must be a matrix or have shape and entries A[rows, columns]; got {type(A).__name__}")
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be square; got shape {tuple(A.shape)}")
    if isinstance(A, np.ndarray):
        return DenseEntries(A)
    return SparseEntries(A) if sp.issparse(A) else IndexedEntries(A)
