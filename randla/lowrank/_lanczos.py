"""Block Lanczos with full reorthogonalization and thick restarts (Golub, Underwood 1977; Wu, Simon 2000)."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from ._operand import Operand
from ._products import norm_of, product
from ._range import orthonormalize


class BlockLanczos:
    """A V = V T + Q B for Hermitian A, with orthonormal V (n, dim) and Q, the waiting block, orthogonal to it."""

    def __init__(self, op: Operand, start: np.ndarray, most: int):
        n, b = start.shape
        self.op, self.block = op, orthonormalize(start)
        self._V = np.empty((n, most), start.dtype, order="F")
        self.dim = 0
        self.T = np.zeros((0, 0), np.result_type(start.dtype, np.float64))
        self.B = np.zeros((b, 0), self.T.dtype)
        self.asymmetry, self.size = 0.0, 0.0  # ||Q^H (A - A^H) Q||_F and ||A Q||_F for the first block
        self.exhausted = False  # whether V is invariant under A

    @property
    def V(self) -> np.ndarray:
        return self._V[:, : self.dim]

    @property
    def full(self) -> bool:
        return self.block.shape[1] == 0

    @property
    def room(self) -> int:
        return self._V.shape[1] - self.dim

    def extend(self) -> None:
        """Take the waiting block into V, in one pass."""
        Q = self.block
        # The first product reads all of A, which shows whether it is Hermitian.
        W = self.op.hermitian_times(Q) if self.dim else self.op.times(Q)
        old, self.dim = self.dim, self.dim + Q.shape[1]
        self._V[:, old : self.dim] = Q
        column = product(self.V.T, W, conjugate=True)
        corner = column[old:].astype(self.T.dtype)
        if not old:
            self.size = norm_of([W], f"the products of {self.op.name}")
            self.asymmetry = norm_of([corner - corner.conj().T], self.op.name)
        T = np.zeros((self.dim, self.dim), self.T.dtype)
        T[:old, :old] = self.T
        T[:old, old:], T[old:, :old] = column[:old], column[:old].conj().T
        T[old:, old:] = (corner + corner.conj().T) / 2
        self.T = T
        W = W - product(self.V, column)
        eps = float(np.finfo(W.dtype).eps)
        self.exhausted = norm_of([W], "A") <= 8 * math.sqrt(self.dim) * eps * float(np.abs(T).sum(axis=0).max())
        self.offer(W, 2 if self.exhausted else 1)
        self.B = np.zeros((self.block.shape[1], self.dim), T.dtype)
        self.B[:, old:] = product(self.block.T, W, conjugate=True)

    def offer(self, W: np.ndarray, rounds: int = 2) -> None:
        """Make the span of W, without what lies in V, the waiting block; less of it where V is nearly everything."""
        W = W[:, : len(W) - self.dim]
        for _ in range(rounds):
            W = orthonormalize(W)
            W -= product(self.V, product(self.V.T, W, conjugate=True))
        self.block = orthonormalize(W)

    def renew(self, W: np.ndarray) -> None:
        """Go on from other vectors, V being invariant."""
        self.offer(W)
        self.B = np.zeros((self.block.shape[1], self.dim), self.T.dtype)

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Rising Ritz values and their coordinates in V."""
        # Of LAPACK's drivers, the default one loses two digits of orthogonality.
        return scipy.linalg.eigh(self.T, driver="evd", check_finite=False)

    def residuals(self, Z: np.ndarray) -> np.ndarray:
        """||A v - theta v|| of Ritz vectors v = V z, but for rounding."""
        return np.linalg.norm(self.B @ Z, axis=0)

    def vectors(self, Z: np.ndarray) -> np.ndarray:
        return product(self.V, Z.astype(self._V.dtype))

    def restart(self, values: np.ndarray, Z: np.ndarray) -> None:
        """Keep these Ritz vectors alone."""
        kept = self.vectors(Z)
        self.B = self.B @ Z
        self.T = np.diag(values).astype(self.T.dtype)
        self.dim = Z.shape[1]
        self._V[:, : self.dim] = kept
