"""CSR matrices of a CUDA device for least squares.

Besides A its transpose is held, in CSR form too: A'r is a product with it, because to add rows of A up would need atomic
additions, whose order changes from run to run. It takes the memory of A again and is made once. A pass reads both: 2 nnz values
and columns.

What asks for rows gets them made dense, 128 MB at a time. The Gram matrix of the images of all rows takes 2 m n r operations
for these and 2 m r^2 for their products, on the units for matrix products. To leave the zeros of A out would save of the first
part alone, and something only where fewer than one entry in ten or so is not zero, because those units do not take sparse
matrices.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from . import _csr
from ._backend import Array, kernels, sparse_matrix, sparse_on_device
from ._device import DeviceDense, DeviceMatrix
from ._tall import TallMatrix
from .families import SparseStack
from .sketch import SketchOperator


def in_memory(A: Any, weights: Array | None = None) -> DeviceDense:
    """The wrapper for a matrix of real numbers on a device."""
    return DeviceSparse(A, weights) if sparse_on_device(A) else DeviceDense(A, weights)


class DeviceSparse(DeviceDense):
    """A CSR matrix of CuPy with its transpose."""

    default_sketch = SparseStack()

    def __init__(self, A: Any, weights: Array | None = None, transpose: Any = None):
        super().__init__(A, weights)
        if transpose is not None:
            self.transpose = transpose

    @cached_property
    def transpose(self) -> Any:
        """Made when a pass first needs it: a sketch does not."""
        return _csr.transposed(self.A)

    @property
    def bytes_per_pass(self) -> int:
        return 2 * self.A.nnz * (self.dtype.itemsize + self.A.indices.dtype.itemsize)

    def pass_over(self, X: Array, B: Array | None, R: Array | None = None) -> tuple[Array, Array]:
        G = self.xp.empty((len(X), self.shape[1]))
        squares = self.xp.empty(len(X))
        self.passes += 1
        both = *_csr.parts(self.A), self.shape[1], _csr.parts(self.transpose)
        kernels(self.A).residual_csr(*both, X, B, R, G, self.weights, squares)
        return G, squares

    def _sketch(self, S: SketchOperator) -> Array:
        if self.weights is None:
            return S._times(self.A)
        values = self.A.data * self.roots[_csr.row_numbers(self.A)]
        return S._times(sparse_matrix(values, self.A.indices, self.A.indptr, self.shape))

    def single(self, scale: np.ndarray) -> DeviceMatrix | None:
        # A copy of both matrices to read two thirds of their bytes.
        return None

    def _stored_rows(self, i0: int, i1: int) -> Array:
        rows = _csr.dense_rows(self.A, self.xp.arange(i0, i1))
        return rows if self.weights is None else rows * self.roots[i0:i1, None]

    def row_squares(self) -> Array:
        self.passes += 1
        values = self.A.data.astype(np.float64)
        values *= values
        out = self.xp.empty((1, self.shape[0]))
        # Products with ones; the transpose has no part in them.
        both = values, self.A.indptr, self.A.indices, self.shape[1], (values, *_csr.parts(self.transpose)[1:])
        kernels(self.A).weighted_product_csr(*both, None, self.xp.ones((1, self.shape[1])), None, None, out, None)
        return out[0] if self.weights is None else out[0] * self.weights

    def _take(self, indices: Array) -> Array:
        return _csr.dense_rows(self.A, indices).astype(np.float64, copy=False)

    def is_finite(self) -> bool:
        return bool(self.xp.isfinite(self.A.data).all())

    def transposed(self) -> TallMatrix:
        return DeviceSparse(self.transpose, transpose=self.A)
