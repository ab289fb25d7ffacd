"""Weights of the equations of a wide problem: its rows scaled, which are the columns of the tall matrix that is solved with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._backend import Array, like, namespace
from ._device import DeviceMatrix
from ._row_map import RowMap
from ._tall import TallMatrix
from .sketch import SketchOperator


class RowScaled(TallMatrix):
    """diag(factors) A for the rows that are kept, of a wide A: only its adjoint is used."""

    def __init__(self, matrix: TallMatrix, kept: np.ndarray, factors: np.ndarray):
        self.matrix, self.kept, self.factors = matrix, kept, factors
        self.A, self.shape, self.dtype = matrix.A, (len(kept), matrix.shape[1]), matrix.dtype
        self.copies = matrix.copies

    def transposed(self) -> TallMatrix:
        tall = self.matrix.transposed()
        if isinstance(tall, DeviceMatrix):
            return DeviceColumnScaled(tall, self.kept, self.factors)
        return ColumnScaled(tall, self.kept, self.factors)


class ColumnScaled(TallMatrix):
    """Columns of a matrix, some left out, the others multiplied by factors; which ones and by what, the host knows."""

    def __init__(self, matrix: TallMatrix, kept: np.ndarray, factors: np.ndarray):
        self.matrix, self.kept, self.factors = matrix, kept, factors
        self.A, self.shape, self.dtype = matrix.A, (matrix.shape[0], len(kept)), matrix.dtype
        self.copies, self.default_sketch, self.by_products = matrix.copies, matrix.default_sketch, matrix.by_products

    @property
    def passes(self) -> int:  # type: ignore[override]
        return self.matrix.passes

    @property
    def bytes_per_pass(self) -> int:
        return self.matrix.bytes_per_pass

    @property
    def holds_sketch(self) -> bool:
        return self.matrix.holds_sketch

    def _full(self, X: Array) -> Array:
        """Rows for all columns of the matrix from rows for those kept."""
        out = namespace(X).zeros((len(X), self.matrix.shape[1]))
        out[:, like(X, self.kept)] = X * like(X, self.factors)
        return out

    def _kept(self, G: Array) -> Array:
        return G[:, like(G, self.kept)] * like(G, self.factors)

    def residual(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        R, G, squares = self.matrix.residual(self._full(X), B)
        return R, self._kept(G), squares

    def times(self, X: np.ndarray) -> np.ndarray:
        return self.matrix.times(self._full(X))

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        return self._kept(self.matrix.adjoint_times(Y))

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for SA, SB in self.matrix.sketched(S, B):
            yield self._kept(SA), SB

    def row_blocks(self, rows: int) -> Iterator[np.ndarray]:
        for block in self.matrix.row_blocks(rows):
            yield self._kept(block)

    def is_finite(self) -> bool:
        return self.matrix.is_finite()


class DeviceColumnScaled(DeviceMatrix, ColumnScaled):
    """The same of a matrix of a device."""

    matrix: DeviceMatrix

    def __init__(self, matrix: DeviceMatrix, kept: np.ndarray, factors: np.ndarray):
        super().__init__(matrix, kept, factors)
        self.xp, self.weights = matrix.xp, None

    def pass_over(self, X: Array, B: Array, R: Array = None) -> tuple[Array, Array]:
        G, squares = self.matrix.pass_over(self._full(X), B, R)
        return self._kept(G), squares

    def stacked(self, S: SketchOperator, B: Array) -> tuple[Array, Array]:
        SA, SB = self.matrix.stacked(S, B)
        return self._kept(SA), SB

    def gram_of(self, N: Array) -> Array:
        return self.matrix.gram_of(self._full(N.T).T)

    def gram(self, mapping: RowMap) -> np.ndarray:
        scale = np.ones(self.matrix.shape[1])
        scale[self.kept] = mapping.scale
        return self.matrix.gram(RowMap(namespace(mapping.T).ascontiguousarray(self._full(mapping.T.T).T), scale))

    def single(self, scale: np.ndarray) -> DeviceMatrix | None:
        # Columns that are left out come to nothing in float32.
        full = np.full(self.matrix.shape[1], 2.0**-1000)
        full[self.kept] = self.factors * scale
        matrix = self.matrix.single(full)
        return None if matrix is None else DeviceColumnScaled(matrix, self.kept, self.factors)
