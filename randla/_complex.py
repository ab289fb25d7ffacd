"""Complex problems as real ones: A x = b with x = y + i z is [Re A, -Im A; Im A, Re A] [y; z] = [Re b; Im b].

That matrix is never made. Two real right-hand sides for the matrix V that holds Re, Im of every entry of A in turn, which is A
itself in memory, give its products: one pass over A.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from . import _check, _csr
from ._backend import Array, is_sparse, like, namespace
from ._device import DeviceMatrix
from ._device_sparse import in_memory
from ._row_map import RowMap
from ._tall import Blocks, ByProducts, Dense, Sparse, TallMatrix, interleaved, products
from .blocks import RowBlocks
from .sketch import SketchOperator


class ComplexDense(Dense):
    """V of an array whose rows are not contiguous."""

    def __init__(self, A: np.ndarray, weights: np.ndarray | None = None):
        super().__init__(A, weights)
        self.shape, self.dtype = (A.shape[0], 2 * A.shape[1]), _check.real_dtype(A.dtype)

    def _sketch(self, S: SketchOperator) -> np.ndarray:
        return self._sketch_by_pieces(S)

    @property
    def by_columns(self) -> bool:
        return True

    def _copy(self, i0: int, i1: int, c0: int, c1: int, out: np.ndarray) -> None:
        out.view(np.complex128)[:] = self.A[i0:i1, c0 // 2 : c1 // 2]

    def _rows(self, i0: int, i1: int) -> np.ndarray:
        out = np.empty((i1 - i0, self.shape[1]))
        self._copy(i0, i1, 0, self.shape[1], out)
        return out if self.weights is None else out * self.roots[i0:i1, None]

    def row_norms(self, mapping: RowMap, single: bool = False) -> np.ndarray:
        return TallMatrix.row_norms(self, mapping, single)

    def gram(self, mapping: RowMap) -> np.ndarray:
        return TallMatrix.gram(self, mapping)

    def _take(self, indices: np.ndarray) -> np.ndarray:
        return interleaved(self.A[indices]).astype(np.float64, copy=False)


class _Embedded(TallMatrix):
    """[Re A, -Im A; Im A, Re A] of shape (2m, 2n), of A or of its conjugate."""

    copies = 2

    def _sample(self, S: SketchOperator) -> SketchOperator:
        """The same rows of A are mixed in the upper and in the lower half."""
        return S.distribution.sample(-(-S.shape[0] // 2), S.shape[1] // 2, rng=S.seed)


class Complex(_Embedded):
    """Through V, (m, 2n)."""

    def __init__(self, A: Any, weights: np.ndarray | None = None, conjugate: bool = False):
        self.A, self.weights = A, weights
        self.V = self._interleaved(A, weights)
        self.sign = -1.0 if conjugate else 1.0
        self.shape, self.dtype = (2 * A.shape[0], 2 * A.shape[1]), self.V.dtype
        self.default_sketch = self.V.default_sketch

    def _interleaved(self, A: Any, weights: np.ndarray | None) -> TallMatrix:
        if isinstance(A, RowBlocks):
            return Blocks(A, weights)
        if sp.issparse(A):
            return Sparse(interleaved(A), weights)
        by_rows = A.strides[1] == A.itemsize or A.shape[1] == 1
        return Dense(interleaved(A), weights) if by_rows and A.shape[1] else ComplexDense(A, weights)

    @property
    def passes(self) -> int:  # type: ignore[override]
        return self.V.passes

    @property
    def bytes_per_pass(self) -> int:
        return self.V.bytes_per_pass

    @property
    def holds_sketch(self) -> bool:
        return self.V.holds_sketch

    def residual(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        R, H, squares = self.V.residual(self._pairs(X), self._halves_of(B))
        return R.reshape(len(X), self.shape[0]), self._gradients(H), squares[0::2] + squares[1::2]

    def _pairs(self, X: Array) -> Array:
        """Two right-hand sides for V for every row of X: they give the upper and the lower half."""
        n = self.shape[1] // 2
        y, z = X[:, :n], X[:, n:]
        Z = namespace(X).empty((2 * len(X), 2 * n))
        Z[0::2, 0::2], Z[0::2, 1::2] = y, -self.sign * z
        Z[1::2, 0::2], Z[1::2, 1::2] = z, self.sign * y
        return Z

    def _halves_of(self, B: Array | None) -> Array:
        return None if B is None else namespace(B).ascontiguousarray(B).reshape(2 * len(B), self.shape[0] // 2)

    def _gradients(self, H: Array) -> Array:
        n = self.shape[1] // 2
        G = namespace(H).empty((len(H) // 2, 2 * n))
        G[:, :n] = H[0::2, 0::2] + self.sign * H[1::2, 1::2]
        G[:, n:] = H[1::2, 0::2] - self.sign * H[0::2, 1::2]
        return G

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for SV, SB in self.V.sketched(self._sample(S), self._halves_of(B)):
            yield self._embedded(SV), np.vstack([SB[:, 0::2], SB[:, 1::2]])

    def _embedded(self, V: np.ndarray) -> np.ndarray:
        re, im = V[:, 0::2], self.sign * V[:, 1::2]
        xp = namespace(V)
        return xp.concatenate([xp.concatenate([re, -im], axis=1), xp.concatenate([im, re], axis=1)])

    def row_blocks(self, rows: int) -> Iterator[np.ndarray]:
        for block in self.V.row_blocks(max(1, rows // 2)):
            yield self._embedded(block)

    def row_norms(self, mapping: RowMap, single: bool = False) -> np.ndarray:
        """Of the upper half; those of the lower one are the same for the maps that factors of such matrices give."""
        return self.V.row_norms(self._halves(mapping)[0], single)

    def gram(self, mapping: RowMap) -> np.ndarray:
        return sum(self.V.gram(half) for half in self._halves(mapping))  # type: ignore[return-value]

    def _halves(self, mapping: RowMap) -> tuple[RowMap, RowMap]:
        """The maps of rows of V that give the images of rows of the upper and of the lower half."""
        n = self.shape[1] // 2
        upper, lower = namespace(mapping.T).empty_like(mapping.T), namespace(mapping.T).empty_like(mapping.T)
        signs, scales = self.sign * mapping.T[n:], (mapping.scale[:n], mapping.scale[n:])
        common = np.maximum(*scales)  # powers of two
        scale = np.repeat(common, 2)
        first, second = (like(mapping.T, part / common)[:, None] for part in scales)
        upper[0::2], upper[1::2] = first * mapping.T[:n], -second * signs
        lower[0::2], lower[1::2] = second * mapping.T[n:], first * (self.sign * mapping.T[:n])
        return RowMap(upper, scale), RowMap(lower, scale)

    def row_squares(self) -> np.ndarray:
        return self.V.row_squares()

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Of the upper half, then of the lower one."""
        return self._embedded(self.V.take(indices))

    def is_finite(self) -> bool:
        return self.V.is_finite()

    def transposed(self) -> TallMatrix:
        # The adjoint of A is the conjugate of its transpose.
        return Complex(self.A.T.tocsr() if sp.issparse(self.A) else self.A.T, conjugate=self.sign > 0)


class DeviceComplex(Complex, DeviceMatrix):
    """The same on a device. V is read once for both halves: a pass over complex numbers of its own would read no less."""

    V: DeviceMatrix

    def __init__(self, A: Array, weights: Array | None = None, conjugate: bool = False):
        super().__init__(A, weights, conjugate)
        self.xp = namespace(A)

    def _interleaved(self, A: Array, weights: Array | None) -> DeviceMatrix:
        return in_memory(interleaved(A if is_sparse(A) else namespace(A).ascontiguousarray(A)), weights)

    def _over(self, V: Any) -> DeviceComplex:
        """The same with another V."""
        other = copy.copy(self)
        other.V = V
        return other

    def pass_over(self, X: Array, B: Array | None, R: Array | None = None) -> tuple[Array, Array]:
        halves = None if R is None else R.reshape(2 * len(X), self.shape[0] // 2)
        H, squares = self.V.pass_over(self._pairs(X), self._halves_of(B), halves)
        return self._gradients(H), squares[0::2] + squares[1::2]

    residual = DeviceMatrix.residual

    def _each_row(self, values: Array) -> Array:
        return self.xp.tile(values, 2)

    def stacked(self, S: SketchOperator, B: Array) -> tuple[Array, Array]:
        SV, SB = self.V.stacked(self._sample(S), self._halves_of(B))
        return self._embedded(SV), self.xp.concatenate([SB[:, 0::2], SB[:, 1::2]])

    sketched = DeviceMatrix.sketched

    def gram_of(self, N: Array) -> Array:
        upper, lower = self._halves(RowMap(N, np.ones(self.shape[1])))
        return self.V.gram_of(upper.T) + self.V.gram_of(lower.T)

    def single(self, scale: np.ndarray) -> DeviceMatrix | None:
        both = np.repeat(np.maximum(*np.split(scale, 2)), 2)
        V = self.V.single(both)
        return None if V is None else self._over(V)

    def transposed(self) -> TallMatrix:
        return DeviceComplex(_csr.transposed(self.A) if is_sparse(self.A) else self.A.T, conjugate=self.sign > 0)


class ComplexOperator(ByProducts, _Embedded):
    """Through matvec and rmatvec with complex vectors."""

    def __init__(self, A: Any, weights: np.ndarray | None = None):
        m, n = A.shape
        self.A, self.shape = A, (2 * int(m), 2 * int(n))
        self.dtype = _check.real_dtype(_check.dtype_of(np.dtype(A.dtype), "A"))
        self.weights, self.passes = weights, 0

    def _complex(self, X: np.ndarray) -> np.ndarray:
        half = X.shape[1] // 2
        return X[:, :half] + 1j * X[:, half:]

    def _real(self, X: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.hstack([X.real, X.imag]), dtype=np.float64)

    def _weighted(self, R: np.ndarray) -> np.ndarray:
        return R if self.weights is None else R * np.tile(self.weights, 2)

    def residual(self, X: np.ndarray, B: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        R = (0.0 if B is None else B) - self._real(products(self.A, "matmat", "matvec", self._complex(X)))
        weighted = self._weighted(R)
        self.passes += 1
        if self.weights is not None:
            R[:, np.tile(self.weights == 0, 2)] = 0
        G = self._real(products(self.A, "rmatmat", "rmatvec", self._complex(weighted)))
        return R, G, np.einsum("ij,ij->i", weighted, R)

    def times(self, X: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self._real(products(self.A, "matmat", "matvec", self._complex(X)))

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self._real(products(self.A, "rmatmat", "rmatvec", self._complex(self._weighted(Y))))

    def sketched(self, S: SketchOperator, B: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.passes += 1
        T, n, m = self._sample(S), self.shape[1] // 2, self.shape[0] // 2
        roots = None if self.weights is None else np.sqrt(self.weights)
        SA = np.empty((T.shape[0], n), complex)
        for j in range(0, n, 32):
            columns = products(self.A, "matmat", "matvec", np.eye(min(32, n - j), n, j, dtype=complex))
            SA[:, j : j + len(columns)] = T @ (columns if roots is None else columns * roots).T
        halves = np.ascontiguousarray(B).reshape(2 * len(B), m)
        SB = T @ (halves if roots is None else halves * roots).T
        yield np.block([[SA.real, -SA.imag], [SA.imag, SA.real]]), np.vstack([SB[:, 0::2], SB[:, 1::2]])

    def is_finite(self) -> bool:
        return True

    def transposed(self) -> TallMatrix:
        return ComplexOperator(aslinearoperator(self.A).H)
