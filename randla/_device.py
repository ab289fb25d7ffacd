"""Matrices of a CUDA device for least squares.

What is as long as the rows of A stays on the device, and so do n x n matrices. What is as long as the columns of A is decided
upon on the host, once a cycle; the iterations of a cycle run on the device (`_device_inner`), and the host looks at them after
several.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ._backend import gram_matrix, kernels, namespace, rows_of_block, to_host
from ._row_map import RowMap
from ._tall import TallMatrix
from .families import BlockSRHT, Distribution
from .sketch import SketchOperator

_WINDOW = 4096  # rows: pieces of whole windows of a BlockSRHT


class DeviceMatrix(TallMatrix):
    """A matrix of a device. Right-hand sides and weights are there too; X and G are exchanged with the host."""

    default_sketch: Distribution = BlockSRHT()
    xp: Any

    def pass_over(self, X: Any, B: Any, R: Any = None) -> tuple[Any, Any]:
        """A'(w (B - A X)) and the weighted sums of squares of its rows; X, B and the results on the device. One pass."""
        raise NotImplementedError

    def stacked(self, S: SketchOperator, B: Any) -> tuple[Any, Any]:
        """(S A, S B') on the device, in float64. One pass."""
        raise NotImplementedError

    def gram_of(self, N: Any) -> Any:
        """(A N)'(A N) on the device for N there, with the weights. One pass."""
        raise NotImplementedError

    def single(self, scale: np.ndarray) -> DeviceMatrix | None:
        """A copy of A diag(scale) in float32 that passes can be made over, and takes and gives vectors of A itself; None where
        there is no room or no kernel for it. One pass."""
        return None

    def residual(self, X: np.ndarray, B: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        R, G, squares = self.residual_there(X, B)
        return R, to_host(G), to_host(squares)

    def residual_there(self, X: Any, B: Any) -> tuple[Any, Any, Any]:
        """As `residual`, for X of either side, with results on the device."""
        R = self.xp.empty((len(X), self.shape[0]))
        G, squares = self.pass_over(self.xp.asarray(X), B, R)
        if self.weights is not None:
            R = self.xp.where(self._each_row(self.weights) > 0, R, 0)
        return R, G, squares

    def rows_at_a_time(self, least: int = 256) -> int:
        """Of blocks that are worked on."""
        return rows_of_block(self.shape[1], least)

    def _each_row(self, values: Any) -> Any:
        """One value for each row of A as one for each row of this matrix."""
        return values

    def times(self, X: np.ndarray) -> Any:
        return -self.residual_there(X, None)[0]

    def adjoint_times(self, Y: Any) -> np.ndarray:
        return to_host(self.pass_over(self.xp.zeros((len(Y), self.shape[1])), Y)[0])

    def evaluated(self, X: np.ndarray, B: Any) -> tuple[np.ndarray, np.ndarray]:
        """What `residual` gives the host, without the residual itself."""
        G, squares = self.pass_over(self.xp.asarray(X), B)
        return to_host(G), to_host(squares)

    def sketched(self, S: SketchOperator, B: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The whole sketch comes to the host: for sketches with fewer rows than columns, as ridges allow them."""
        SA, SB = self.stacked(S, B)
        yield to_host(SA), to_host(SB)


class DeviceDense(DeviceMatrix):
    """A dense matrix of any strides."""

    def __init__(self, A: Any, weights: Any = None):
        self.A, self.weights = A, weights
        self.shape: tuple[int, int] = (int(A.shape[0]), int(A.shape[1]))
        self.dtype, self.passes = np.dtype(A.dtype), 0
        self.xp = namespace(A)

    @cached_property
    def roots(self) -> Any:
        return self.xp.sqrt(self.weights)

    def pass_over(self, X: Any, B: Any, R: Any = None) -> tuple[Any, Any]:
        G = self.xp.empty((len(X), self.shape[1]))
        squares = self.xp.empty(len(X))
        self.passes += 1
        kernels(self.A).residual(self.A, X, B, R, G, self.weights, squares)
        return G, squares

    def stacked(self, S: SketchOperator, B: Any) -> tuple[Any, Any]:
        self.passes += 1
        SB = S @ (B.T if self.weights is None else (B * self.roots).T)
        return self._sketch(S).astype(np.float64, copy=False), SB

    def _sketch(self, S: SketchOperator) -> Any:
        if self.weights is None:
            return S @ self.A
        m, n = self.shape
        out = self.xp.zeros((S.shape[0], n))
        rows = max(1, rows_of_block(n) // _WINDOW) * _WINDOW
        for i in range(0, m, rows):
            S.distribution._apply(S, self._stored_rows(i, min(i + rows, m)), i, out)
        return out

    def gram_of(self, N: Any) -> Any:
        self.passes += 1
        m = self.shape[0]
        gram = self.xp.zeros((N.shape[1], N.shape[1]))
        step = self.rows_at_a_time()
        for i in range(0, m, step):
            image = self._rows(i, min(i + step, m)) @ N
            gram += gram_matrix(image)
        return gram

    def single(self, scale: np.ndarray) -> DeviceMatrix | None:
        single = self.dtype == np.float32
        return None if single or not _has_room(self.xp, 4 * self.shape[0] * self.shape[1]) else DeviceSingle(self, scale)

    def _rows(self, i0: int, i1: int) -> Any:
        return self._stored_rows(i0, i1).astype(np.float64, copy=False)

    def _stored_rows(self, i0: int, i1: int) -> Any:
        """In the type of A where there are no weights."""
        rows = self.A[i0:i1]
        return rows if self.weights is None else rows * self.roots[i0:i1, None]

    def _images(self, mapping: RowMap, single: bool = False) -> Iterator[tuple[slice, Any]]:
        """Images of the rows, block by block: 2 m n r operations; read are A and, with r numbers for n, each image twice."""
        self.passes += 1
        mapped = mapping.on_device(self.A, single and self.dtype == np.float32 and self.weights is None)
        step = rows_of_block(max(self.shape[1], mapping.rank), 256)
        for i in range(0, self.shape[0], step):
            rows = slice(i, min(i + step, self.shape[0]))
            yield rows, mapped.images(self._stored_rows(rows.start, rows.stop))

    def gram(self, mapping: RowMap) -> np.ndarray:
        G = self.xp.zeros((mapping.rank, mapping.rank))
        for _, image in self._images(mapping):
            G += gram_matrix(image)
        return to_host(G)

    def row_norms(self, mapping: RowMap, single: bool = False) -> Any:
        out = self.xp.empty(self.shape[0])
        for rows, image in self._images(mapping, single):
            kernels(self.A).row_squares(image, None, None, out[rows])
        return out

    def row_squares(self) -> Any:
        self.passes += 1
        out = self.xp.empty(self.shape[0])
        kernels(self.A).row_squares(self.A, None, None if self.weights is None else self.roots, out)
        return out

    def _take(self, indices: Any) -> Any:
        return self.A[indices].astype(np.float64, copy=False)

    def is_finite(self) -> bool:
        return bool(self.xp.isfinite(self.A).all())

    def transposed(self) -> TallMatrix:
        return DeviceDense(self.A.T)


class DeviceSingle(DeviceMatrix):
    """diag(roots) A diag(scale) in float32 and row after row; columns are of size one, so that nothing over- or underflows."""

    def __init__(self, matrix: DeviceDense, scale: np.ndarray):
        (m, n), xp = matrix.shape, matrix.xp
        self.xp, self.shape, self.weights = xp, matrix.shape, None
        self.dtype: np.dtype = np.dtype(np.float32)
        self.source, self.scale = matrix, xp.asarray(scale)
        self.A = xp.empty((m, n), np.float32)
        step = matrix.rows_at_a_time()
        for i in range(0, m, step):
            rows = matrix._stored_rows(i, min(i + step, m))
            xp.multiply(rows, self.scale, out=self.A[i : i + step], casting="same_kind")
        matrix.passes += 1

    def pass_over(self, X: Any, B: Any, R: Any = None) -> tuple[Any, Any]:
        """Without right-hand sides, and without residuals."""
        assert B is R is None
        V = X / self.scale
        size = abs(V).max(axis=1)
        size = self.xp.where(size > 0, size, 1)[:, None]
        G = self.xp.empty(X.shape, np.float32)
        squares = self.xp.empty(len(X))
        self.source.passes += 1
        kernels(self.A).residual(self.A, (V / size).astype(np.float32), None, None, G, None, squares)
        return G * (size / self.scale), squares * (size * size)[:, 0]


def _has_room(xp: Any, size: int) -> bool:
    """Whether the device has memory for so many bytes and a quarter more."""
    return 1.25 * size <= xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
