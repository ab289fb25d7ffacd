"""Weights of the equations of a wide problem: its rows scaled, which are the columns of the tall matrix that is solved with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._tall import TallMatrix
from .sketch import SketchOperator


class RowScaled(TallMatrix):
    """diag(factors) A for the rows that are kept, of a wide A: only its adjoint is used."""

    def __init__(self, matrix: TallMatrix, kept: np.ndarray, factors: np.ndarray):
        self.matrix, self.kept, self.factors = matrix, kept, factors
        self.A, self.shape, self.dtype = matrix.A, (len(kept), matrix.shape[1]), matrix.dtype
        self.copies = matrix.copies

    def transposed(self) -> TallMatrix:
        return ColumnScaled(self.matrix.transposed(), self.kept, self.factors)


class ColumnScaled(TallMatrix):
    """Columns of a matrix, some left out, the others multiplied by factors."""

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

    def _full(self, X: np.ndarray) -> np.ndarray:
        out = np.zeros((len(X), self.matrix.shape[1]))
        out[:, self.kept] = X * self.factors
        return out

    def residual(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        R, G, squares = self.matrix.residual(self._full(X), B)
        return R, G[:, self.kept] * self.factors, squares

    def times(self, X: np.ndarray) -> np.ndarray:
        return self.matrix.times(self._full(X))

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        return self.matrix.adjoint_times(Y)[:, self.kept] * self.factors

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for SA, SB in self.matrix.sketched(S, B):
            yield SA[:, self.kept] * self.factors, SB

    def row_blocks(self, rows: int) -> Iterator[np.ndarray]:
        for block in self.matrix.row_blocks(rows):
            yield block[:, self.kept] * self.factors

    def is_finite(self) -> bool:
        return self.matrix.is_finite()
