"""A linear map of the rows of a matrix, y = a diag(scale) T, of which only norms, inner products or chosen rows are wanted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.sparse as sp

from . import _check, _cpu
from ._backend import Array, like

# Scales within these powers of two are multiplied into T: the kernels then read A where it lies.
_FOLDED, _FOLDED_SINGLE = 2.0**200, 2.0**30


@dataclasses.dataclass(frozen=True)
class RowMap:
    """T (n, r) in float64, contiguous; scale (n,), powers of two; upper: T is zero below its diagonal, and square.

    For rows of a device T may lie there; scale does not.
    """

    T: Array
    scale: np.ndarray
    upper: bool = False

    @property
    def rank(self) -> int:
        return int(self.T.shape[1])

    def _folded(self, limit: float) -> tuple[Array, np.ndarray | None]:
        if (self.scale == 1).all():
            return self.T, None
        if self.scale.max() <= limit and self.scale.min() >= 1 / limit:
            return self.T * like(self.T, self.scale)[:, None], None
        return self.T, self.scale

    def squared_norms(self, A: _check.Matrix, roots: np.ndarray | None, single: bool, out: np.ndarray) -> None:
        """out[i] = roots[i]^2 ||y_i||^2 for an array or CSR array; `single` computes in float32."""
        T, scale = self._folded(_FOLDED_SINGLE if single else _FOLDED)
        if sp.issparse(A):
            _cpu.row_norms_csr(A.data, A.indptr, A.indices, T, self.upper, scale, roots, single, out)
        else:
            _cpu.row_norms(A, T, self.upper, scale, roots, single, out)

    def add_gram(self, A: _check.Matrix, roots: np.ndarray | None, G: np.ndarray) -> None:
        """G += sum roots[i]^2 y_i' y_i; G (r, r) symmetric, contiguous."""
        T, scale = self._folded(_FOLDED)
        if sp.issparse(A):
            _cpu.gram_csr(A.data, A.indptr, A.indices, T, self.upper, scale, roots, G)
        else:
            _cpu.gram(A, T, self.upper, scale, roots, G)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """The y of dense rows, (count, r)."""
        return (rows * self.scale) @ self.T

    def on_device(self, A: Array, single: bool = False) -> DeviceMap:
        """For rows where the array A of a device is; `single` maps float32 ones in float32, where that does no harm."""
        T, scale = self._folded(_FOLDED_SINGLE if single else _FOLDED)
        dtype = np.float32 if single and scale is None else np.float64
        return DeviceMap(like(A, T.astype(dtype, copy=False)), None if scale is None else like(A, scale))

    def gram_of_map(self, ridge: float) -> np.ndarray:
        """ridge (diag(scale) T)' diag(scale) T, of which either factor alone may be beyond all numbers."""
        DT = self.T * (math.sqrt(ridge) * self.scale)[:, None]
        return DT.T @ DT


@dataclasses.dataclass(frozen=True)
class DeviceMap:
    """A `RowMap` on a device: T (n, r), and scale (n,) where that is not part of it."""

    T: Array
    scale: Array | None

    def images(self, rows: Array) -> Array:
        """The y of dense rows, (count, r), in the type of T: one matrix product."""
        # Of other rows the product would make a copy of its own, row by row even where columns are contiguous.
        contiguous = rows.flags.c_contiguous or rows.flags.f_contiguous
        block = rows.astype(self.T.dtype, order="K", copy=not contiguous)
        return (block if self.scale is None else block * self.scale) @ self.T
