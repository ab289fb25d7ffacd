"""Operands for matrices of a CUDA device.

Products of dense ones are CuPy's, that is cuBLAS's, whose sums have the same order on every run of one device and library.
Blocks, which are as long as the rows or the columns of A, stay on the device. To the host come matrices as small as blocks have
columns: Gram matrices, the projected matrix, triangles, where LAPACK decides what is independent; a few waits for each block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from .. import _check
from .._backend import kernels, namespace, on_device, rows_of_block, sparse_matrix, sparse_on_device
from .._csr import transposed
from ..sketch import SketchOperator
from ._operand import Operand, SketchSum, SparseOperand, operand
from ._products import norm_of, product

_WINDOW = 8192  # rows that every BlockSRHT keeps together
_LONG = 2048  # entries of a row that one team of threads adds up while others wait


class DeviceOperand(Operand):
    """A dense matrix of a device, of any strides. To read it twice in `both_times` takes two passes."""

    def __init__(self, A: Any, name: str):
        super().__init__(A, name)
        self.xp = namespace(A)

    def times(self, X: Any) -> Any:
        self.passes += 1
        return product(self.A, self._block(X))

    def adjoint_times(self, Y: Any) -> Any:
        self.passes += 1
        return product(self.A.T, self._block(Y), conjugate=True)

    def _rows(self) -> Iterator[tuple[int, Any]]:
        step = max(_WINDOW, rows_of_block(self.shape[1]) // _WINDOW * _WINDOW)
        for i in range(0, self.shape[0], step):
            yield i, self.A[i : i + step]

    def means(self) -> Any:
        self.passes += 1
        total = self.xp.zeros(self.shape[1], np.result_type(self.dtype, np.float64))
        with np.errstate(invalid="ignore"):
            for _, rows in self._rows():
                total += (rows / self.dtype.type(self.shape[0])).sum(axis=0, dtype=total.dtype)
        return self._finite(total)

    def sketch(self, S: SketchOperator, mean: Any = None) -> tuple[float, Any]:
        self.passes += 1
        if mean is None:
            return norm_of([self.A], self.name), S @ self.A
        out, norms = SketchSum(S, self.shape[1], self.dtype, self.xp), list[float]()
        for i, rows in self._rows():
            rows = rows - mean
            norms.append(norm_of([rows], self.name))
            out.add(rows, i)
        return math.hypot(*norms), out.total()

    def sketch_adjoint(self, S: SketchOperator, mean: Any = None) -> tuple[float, Any]:
        self.passes += 1
        if mean is None:
            return norm_of([self.A], self.name), (S @ self.A.T).conj()
        norms, parts = list[float](), list[Any]()
        for _, rows in self._rows():
            rows = rows - mean
            norms.append(norm_of([rows], self.name))
            parts.append((S @ rows.T).conj())
        return math.hypot(*norms), self.xp.concatenate(parts, axis=1)

    def norm(self) -> float:
        self.passes += 1
        return norm_of([self.A], self.name)


class CsrProduct:
    """Products with a CSR matrix of a device by own kernels: every sum has an order of its own.

    Long rows are cut, and the sums of their pieces added in order.
    """

    def __init__(self, A: Any):
        self.A, self.xp = A, namespace(A)
        complex_parts = (self.xp.ascontiguousarray(part) for part in (A.data.real, A.data.imag))
        self.values = list(complex_parts) if A.dtype.kind == "c" else [A.data]
        self.indptr = A.indptr
        self.pieces: tuple[Any, Any, Any] | None = None
        lengths = self.xp.diff(A.indptr)
        if lengths.size and int(lengths.max()) > _LONG:
            self._cut((lengths + (_LONG - 1)) // _LONG)

    def _cut(self, counts: Any) -> None:
        xp, A = self.xp, self.A
        begin = xp.zeros(len(counts) + 1, A.indptr.dtype)
        begin[1:] = xp.cumsum(counts)
        piece = xp.arange(int(begin[-1]), dtype=A.indptr.dtype)
        row = xp.searchsorted(begin[1:], piece, side="right")
        starts = A.indptr[row] + (piece - begin[row]) * _LONG
        self.indptr = xp.concatenate([starts, A.indptr[-1:]]).astype(A.indptr.dtype, copy=False)
        self.pieces = begin, piece, xp.ones(len(piece), self.values[0].dtype)

    def times(self, X: Any) -> Any:
        """A X in C order; X has the precision of A."""
        if X.dtype.kind == "c":
            pairs = self._times_real(self.xp.ascontiguousarray(X).view(_check.real_dtype(X.dtype)))
            parts = [part.view(X.dtype) for part in pairs]
        else:
            parts = self._times_real(self.xp.ascontiguousarray(X))
        return parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]

    def _times_real(self, X: Any) -> list[Any]:
        out = []
        for values in self.values:
            sums = self._gathered(values, self.indptr, self.A.indices, X)
            if self.pieces is not None:
                begin, piece, ones = self.pieces
                sums = self._gathered(ones, begin, piece, sums)
            out.append(sums)
        return out

    def _gathered(self, values: Any, indptr: Any, indices: Any, X: Any) -> Any:
        out = self.xp.empty((len(indptr) - 1, X.shape[1]), X.dtype)
        kernels(X).csr_product(values, indptr, indices, X, out)
        return out


class DeviceSparseOperand(SparseOperand):
    """A CSR matrix of a device, and a copy of A^H made when first needed."""

    def __init__(self, A: Any, name: str):
        super().__init__(A, name)
        self.xp = namespace(A)

    @cached_property
    def adjoint(self) -> Any:
        out = transposed(self.A)
        return sparse_matrix(out.data.conj(), out.indices, out.indptr, out.shape) if self.dtype.kind == "c" else out

    @cached_property
    def _forward(self) -> CsrProduct:
        return CsrProduct(self.A)

    @cached_property
    def _backward(self) -> CsrProduct:
        return CsrProduct(self.adjoint)

    def times(self, X: Any) -> Any:
        self.passes += 1
        return self._forward.times(self._block(X))

    def adjoint_times(self, Y: Any) -> Any:
        self.passes += 1
        return self._backward.times(self._block(Y))

    def both_times(self, X: Any, shift: Any = None, out: Any = None) -> tuple[Any, Any]:
        return Operand.both_times(self, X, shift, out)

    @property
    def _canonical(self) -> Any:
        return self.A

    def means(self) -> Any:
        self.passes += 1
        m, wide = self.shape[0], np.result_type(self.dtype, np.float64)
        sums = CsrProduct(self.adjoint.astype(wide)).times(self.xp.full((m, 1), 1 / m, wide))
        return self._finite(sums[:, 0].conj())


def operand_anywhere(A: Any, name: str = "A") -> Operand:
    """As `operand`, also for a matrix of a device."""
    if not on_device(A):
        return operand(A, name)
    a = _check.matrix(A, name, device=True)
    return DeviceSparseOperand(a, name) if sparse_on_device(a) else DeviceOperand(a, name)
