"""Entries of a Hermitian matrix, for what reads some of its rows only: from the matrix itself, by index, or from points."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import blas

from .. import _check
from ..landmarks import _kernel_matrix
from ..landmarks._kernel_matrix import Kernel

_STRIP = 1 << 17  # entries of a kernel matrix that are made in cache: 1 MB


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

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """out = A[index], (len(index), n), of self.dtype."""
        self.evaluations += out.size
        self._rows(index, out)

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

    def _rows(self, index: np.ndarray, out: np.ndarray) -> None:
        raise NotImplementedError


class DenseEntries(Entries):
    def __init__(self, A: np.ndarray):
        super().__init__(len(A), A.dtype)
        self.A = A

    def _diagonal(self) -> np.ndarray:
        return self.A.diagonal()

    def _block(self, index: np.ndarray) -> np.ndarray:
        return self.A[np.ix_(index, index)].astype(np.result_type(self.dtype, np.float64))

    def _rows(self, index: np.ndarray, out: np.ndarray) -> None:
        if self.A.strides[1] <= self.A.strides[0]:
            out[:] = self.A[index]
        else:  # columns lie together
            np.conj(self.A.T[index], out=out)


class SparseEntries(Entries):
    def __init__(self, A: sp.csr_array):
        super().__init__(A.shape[0], A.dtype)
        self.A = A

    def _diagonal(self) -> np.ndarray:
        return self.A.diagonal()

    def _block(self, index: np.ndarray) -> np.ndarray:
        return self.A[index][:, index].toarray().astype(np.result_type(self.dtype, np.float64))

    def _rows(self, index: np.ndarray, out: np.ndarray) -> None:
        self.A[index].toarray(out=out) if out.flags.c_contiguous else np.copyto(out, self.A[index].toarray())


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

    def _rows(self, index: np.ndarray, out: np.ndarray) -> None:
        step = max(1, (8 * _STRIP) // max(1, len(index)))
        for c in range(0, self.n, step):
            part = out[:, c : c + step]
            columns = np.arange(c, c + part.shape[1])
            values = self._take(index[:, None], columns[None, :], part.shape)
            if values.dtype.kind == "c" and out.dtype.kind != "c":
                raise TypeError(f"A[rows, columns] must not change from real to complex values; got {values.dtype}")
            part[:] = values


class KernelEntries(Entries):
    """k(x, y) between rows of X."""

    what = "kernel"

    def __init__(self, kernel: Kernel, X: Any):
        kept = X.dtype if isinstance(kernel, _kernel_matrix.Linear | _kernel_matrix.Gaussian) else np.dtype(np.float64)
        super().__init__(X.shape[0], _check.real_dtype(kept) if isinstance(kernel, _kernel_matrix.Gaussian) else kept)
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

    def _rows(self, index: np.ndarray, out: np.ndarray) -> None:
        points = self.X[index]
        step = max(256, _STRIP // max(1, len(index)))
        for c in range(0, self.n, step):
            values = self.kernel.block(points, self.X[c : c + step])
            if values.dtype.kind == "c" and out.dtype.kind != "c":
                raise TypeError(f"kernel must not change from real to complex values; got {values.dtype}")
            out[:, c : c + step] = values

    def cross(self, X: Any, index: np.ndarray) -> np.ndarray:
        points = _kernel_matrix.points(X, "X")
        if points.shape[1] != self.X.shape[1]:
            raise ValueError(f"X must have {self.X.shape[1]} columns like the points; got {points.shape[1]}")
        return self.kernel.block(points, self.X[index])

    def _seen(self, values: np.ndarray) -> None:
        if values.dtype.kind == "c":
            self.dtype = np.result_type(self.dtype, np.complex64)


class GaussianEntries(KernelEntries):
    """exp(-gamma ||x - y||^2) of dense points, prepared so that one product gives the exponents."""

    def __init__(self, kernel: _kernel_matrix.Gaussian, X: np.ndarray):
        super().__init__(kernel, X)
        gamma = 1 / max(1, X.shape[1]) if kernel.gamma is None else kernel.gamma
        real = np.ascontiguousarray(X).view(_check.real_dtype(X.dtype))
        d = real.shape[1]
        # <z, y> - |z|^2/2 - |y|^2/2 as a product of rows (z, -|z|^2/2, 1) and (y, 1, -|y|^2/2).
        self._left, self._right = np.ones((self.n, d + 2)), np.ones((self.n, d + 2))
        Z = self._left[:, :d]
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(real - real.mean(axis=0, dtype=np.float64), np.sqrt(2 * gamma), out=Z)
            self._left[:, d] = self._right[:, d + 1] = np.vecdot(Z, Z) / -2
        self._right[:, :d] = Z

    def _block(self, index: np.ndarray) -> np.ndarray:
        return self._values(self._right[index], self._left[index])

    def _rows(self, index: np.ndarray, out: np.ndarray) -> None:
        right = np.asfortranarray(self._right[index].T)
        step = max(256, _STRIP // max(1, len(index)))
        for c in range(0, self.n, step):
            out[:, c : c + step] = self._values(right.T, self._left[c : c + step])

    def _values(self, right: np.ndarray, left: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            # The transpose of a product in Fortran order, the order of scipy's BLAS.
            exponent = blas.dgemm(1.0, left.T, right.T, trans_a=1).T
            np.minimum(exponent, 0, out=exponent)
            return np.exp(exponent, out=exponent)


def entries(A: Any, kernel: Any, gamma: Any) -> Entries:
    """The entries of A, or those of the kernel matrix of its rows where a kernel is named."""
    if kernel is None or (isinstance(kernel, str) and kernel == "precomputed"):
        return _given(A, gamma)
    made = _kernel_matrix.make(kernel, gamma)
    X = _kernel_matrix.points(A, "A")
    if isinstance(made, _kernel_matrix.Gaussian) and not sp.issparse(X):
        return GaussianEntries(made, X)
    return KernelEntries(made, X)


def _given(A: Any, gamma: Any) -> Entries:
    if gamma is not None:
        raise ValueError(f"gamma must be None for a kernel other than 'rbf'; got {gamma!r}")
    if isinstance(A, np.ndarray | list | tuple) or sp.issparse(A):
        A = _check.matrix(A, "A")
    if len(getattr(A, "shape", ())) != 2 or not hasattr(A, "__getitem__"):
        raise TypeError(f"A must be a matrix or have shape and entries A[rows, columns]; got {type(A).__name__}")
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be square; got shape {tuple(A.shape)}")
    if isinstance(A, np.ndarray):
        return DenseEntries(A)
    return SparseEntries(A) if sp.issparse(A) else IndexedEntries(A)
