"""Orthonormal bases grown by blocks of A^H A, and what they tell of the singular values of A.

V holds the basis, Y = A V its images, T = V^H A^H A V. The basis lies on the side of the columns of A; callers give A^H where
that is the longer one. V and Y lie where A does; T, and what is made of it alone, on the host.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular, svd

from .._backend import like, on_device, to_host
from ._operand import Operand
from ._products import norm_of, product
from ._range import gram, householder, orthonormalize

_OUTSIDE = 1e-3  # of a unit vector in a span: so little that taking it away once leaves rounding
_PAGE = 128  # columns of Y that lie together
_ROWS = 4096  # rows of Y that are used together
# Ritz values below this fraction of the largest one come from Gram matrices with few digits: a QR of Y gives them all.
_GRAM_LIMIT, _GRAM_LIMIT_SINGLE = 1e-10, 1e-3


class Basis:
    """V grows by `extend`; the candidates of the next block are A^H A times the last one, less their projections."""

    def __init__(self, op: Operand, start: np.ndarray):
        n = op.shape[1]
        self.op = op
        self.xp = op.xp
        # Memory of the host that is not touched costs nothing.
        self._V = self.xp.empty((n, min(n, (8 if self.xp is np else 2) * start.shape[1])), start.dtype, order="F")
        self.dim = 0
        self._pages: list[np.ndarray] = []
        self._filled = 0  # columns of the last page
        self._T = np.zeros((0, 0))
        self.block = start
        self.exhausted = False  # whether the last block led nowhere new

    @property
    def V(self) -> np.ndarray:
        return self._V[:, : self.dim]

    def extend(self, *, last: bool = False) -> None:
        """Take the waiting block into V, in one pass; `last` leaves out A^H, and with it the next block."""
        X = self.block
        Y, W = self._room(X.shape[1]), None
        if last:
            Y[:] = self.op.times(X)
        else:
            _, W = self.op.both_times(X, out=Y)
        self._append(X)
        self.last = Y
        D, b = self.dim, X.shape[1]
        T = np.zeros((D, D), np.result_type(X.dtype, np.float64))
        T[: D - b, : D - b] = self._T
        if W is None:
            column = self.xp.concatenate([product(page.T, Y, conjugate=True) for page in self.Y])
        else:
            column = product(self.V.T, W, conjugate=True)
        held = to_host(column)
        T[:, D - b :], T[D - b :, : D - b] = held, held[: D - b].conj().T
        T[D - b :, D - b :] = (T[D - b :, D - b :] + T[D - b :, D - b :].conj().T) / 2
        self._T = T
        if W is not None:
            W = W - product(self.V, column)
            scale = float(np.sqrt(np.abs(T.diagonal()).max()))
            self.exhausted = norm_of([W], "A") <= 8 * math.sqrt(D) * float(np.finfo(W.dtype).eps) * scale**2
            self.offer(W)

    def offer(self, W: np.ndarray) -> None:
        """Make the span of W, without what lies in V, the waiting block; less of it where V is nearly everything."""
        W = W[:, : self.op.shape[1] - self.dim]
        W = orthonormalize(W)
        for _ in range(3 if self.dim else 0):
            inside = product(self.V.T, W, conjugate=True)
            W = W - product(self.V, inside)
            size = float(abs(inside).max()) if inside.size else 0.0
            # Orthonormal columns stay so where less than the root of the unit roundoff is taken away.
            if size * math.sqrt(inside.size) < 0.1 * math.sqrt(float(np.finfo(W.dtype).eps)):
                break
            W = orthonormalize(W)
            if size < _OUTSIDE:
                break
        self.block = W

    @property
    def full(self) -> bool:
        return self.block.shape[1] == 0

    @property
    def Y(self) -> list[np.ndarray]:
        """The columns of A V, page by page."""
        return [page if page is not self._pages[-1] else page[:, : self._filled] for page in self._pages]

    def _room(self, columns: int) -> np.ndarray:
        """Columns of a page, in C order, for the images of the next block."""
        if not self._pages or self._filled + columns > self._pages[-1].shape[1]:
            if self._pages:
                self._pages[-1] = self._pages[-1][:, : self._filled]
            # CuPy would copy parts of a page for every product: a page of a device is one block.
            blocks = 1 if self.xp is not np else max(_PAGE // columns, 1)
            self._pages.append(self.xp.empty((self.op.shape[0], blocks * columns), self.block.dtype))
            self._filled = 0
        self._filled += columns
        return self._pages[-1][:, self._filled - columns : self._filled]

    def _append(self, X: np.ndarray) -> None:
        D = self.dim + X.shape[1]
        if self._V.shape[1] < D:
            wider = self.xp.empty((len(X), min(len(X), max(D, 2 * self._V.shape[1]))), X.dtype, order="F")
            wider[:, : self.dim] = self.V
            self._V = wider
        self._V[:, self.dim : D] = X
        self.dim = D

    def squares(self) -> np.ndarray:
        """Squares of the Ritz values, falling; right up to eps times the largest one."""
        return np.maximum(eigh(self._T, eigvals_only=True, check_finite=False)[::-1], 0.0)

    def values(self, k: int) -> np.ndarray:
        """Ritz values, falling; the leading k have absolute errors of eps times the largest one."""
        squares = self.squares()
        if k <= self.dim and squares[k - 1] > self._limit * squares[0]:
            return np.sqrt(squares)
        return svd(householder(self.xp.concatenate(self.Y, axis=1))[1], compute_uv=False, check_finite=False).astype(float)

    def _images(self, rotation: np.ndarray) -> np.ndarray:
        """A V rotation, of some rows at a time, which the cache holds while the pages are added up."""
        m, pages, step = self.op.shape[0], self.Y, self._rows_together
        C = self.xp.empty((m, rotation.shape[1]), rotation.dtype)
        for i in range(0, m, step):
            rows, column = C[i : i + step], 0
            for page in pages:
                term = product(page[i : i + step], rotation[column : column + page.shape[1]])
                if column:
                    rows += term
                else:
                    rows[:] = term
                column += page.shape[1]
        return C

    @property
    def _rows_together(self) -> int:
        return _ROWS if self.xp is np else self.op.shape[0]

    @property
    def _limit(self) -> float:
        return _GRAM_LIMIT if self.block.real.dtype == np.float64 else _GRAM_LIMIT_SINGLE

    def decompose(self, k: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """U, s, Z and all Ritz values: A V Z = U diag(s) for the leading k of them, or all; s, Z on the host."""
        squares, Z = eigh(self._T, driver="evd", check_finite=False)  # others are less orthogonal in clusters
        squares, Z = np.maximum(squares[::-1], 0.0), Z[:, ::-1]
        kept, dtype = self.dim if k is None else min(k, self.dim), self.block.dtype
        if not kept:
            return self.xp.zeros((self.op.shape[0], 0), dtype), np.zeros(0), Z[:, :0], np.zeros(0)
        if k is None or squares[kept - 1] <= self._limit * squares[0]:
            Q, R = householder(self.xp.concatenate(self.Y, axis=1))
            W, s, Zh = svd(R, full_matrices=False, check_finite=False)
            return product(Q, like(Q, W[:, :kept])), s[:kept], Zh[:kept].conj().T, s
        Z = Z[:, :kept]
        scale = np.sqrt(squares[:kept])
        rotated = like(self.block, (Z / scale).astype(dtype))
        C = self._images(rotated)
        # C diag(scale) is nearly U diag(s): what it lacks is rounding of T, which the Gram matrix of C makes good.
        R = cholesky(gram(C))
        W, s, Zh = svd(R * scale, full_matrices=False, check_finite=False)
        values = np.sqrt(squares)
        values[:kept] = s
        turned = like(C, solve_triangular(R, W).astype(dtype))
        step = self._rows_together
        for i in range(0, len(C), step):
            C[i : i + step] = product(C[i : i + step], turned)
        return C, s, product(Z, Zh.conj().T.astype(Z.dtype)), values


def start_from_sketch(SA: np.ndarray, b: int) -> np.ndarray:
    """The span of the b leading right singular vectors of SA."""
    G = gram(SA.conj().T.copy())
    w, E = eigh(G, check_finite=False)
    if w[-1] > 0 and w[-min(b, len(w))] > _GRAM_LIMIT * w[-1]:
        return orthonormalize(product(SA.conj().T, like(SA, E[:, -b:].astype(SA.dtype))))
    if on_device(SA):
        Q, R = householder(SA.conj().T)
        return product(Q, like(Q, svd(R, full_matrices=False, check_finite=False)[0][:, :b]))
    return np.ascontiguousarray(svd(SA, full_matrices=False, check_finite=False)[2][:b].conj().T)
