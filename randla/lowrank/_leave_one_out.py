"""Low-rank parts of a matrix from products with test vectors, and what is left without each of these vectors in turn.

Leaving out vector i of k is a change of rank one, known in closed form: all k leave-one-out estimates cost little more than
one (Epperly, Tropp, Webber 2024). Vectors are columns; * is the conjugate transpose.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from .._numeric import norms

_PARALLEL = 1e-7  # squared sine of the angle between directions that count as one


class GrowingBasis:
    """Q R = Y with orthonormal Q for a Y that grows by columns, of any rank."""

    def __init__(self, n: int):
        self.Q, self.R = np.zeros((n, 0)), np.zeros((0, 0))

    def extend(self, Y: np.ndarray) -> np.ndarray:
        """Add columns; returns those that Q grows by. The columns it has stay the same."""
        k, both = self.R.shape[0], np.concatenate([self.Q, Y], axis=1)
        # Householder QR of [Q, Y] gives Q again but for units, and an orthonormal complement even where Y adds no rank.
        basis, R = scipy.linalg.qr(both, mode="economic", check_finite=False, overwrite_a=True)
        units = R.diagonal()[:k].conj()
        R[:k] *= (units / np.where(units == 0, 1, np.abs(units)))[:, None]
        R[:k, :k] = self.R
        self.Q, self.R = np.concatenate([self.Q, basis[:, k:]], axis=1), R
        return basis[:, k:]

    def directions(self, eps: float) -> tuple[np.ndarray, np.ndarray]:
        """S with unit columns: Q (I - s_i s_i*) Q* is the projector onto the other columns of Y; and the s_i* R e_i."""
        if not self.R.any():
            return np.eye(len(self.R)), np.zeros(len(self.R))
        R = self.R.copy()
        # A pivot that is rounding may be any number of that size, but not zero.
        least = eps * float(norms(R.T).max())
        pivots = R.diagonal()
        np.fill_diagonal(R, np.where(np.abs(pivots) < least, least, pivots))
        S = solve_triangular(R, np.eye(len(R), dtype=R.dtype), adjoint=True)
        size = norms(S.T)
        return S / size, 1 / size


class PositivePart:
    """F F*, the Nystrom approximation of a positive semidefinite A + shift I from Y = A X; None where A is not semidefinite.

    Without vector i it is F F* - u_i u_i*, with u_i* x_i = 1 / size_i; U has the columns u_i.
    """

    def __init__(self, F: np.ndarray, U: np.ndarray, gram: np.ndarray, size: np.ndarray, shift: float):
        self.F, self.U, self.gram, self.size, self.shift = F, U, gram, size, shift

    @classmethod
    def of(cls, X: np.ndarray, Y: np.ndarray, eps: float) -> PositivePart | None:
        if not Y.any():
            return cls(Y, Y, np.eye(X.shape[1]), np.full(X.shape[1], math.inf), 0.0)
        gram = X.conj().T @ X
        H = X.conj().T @ Y
        if np.abs(H - H.conj().T).max() > math.sqrt(eps) * np.abs(H).max():
            return None
        H = (H + H.conj().T) / 2
        # Rounding makes H indefinite where A has less rank than X; a multiple of the identity added to A is taken off again.
        shift = eps * float(scipy.linalg.norm(Y)) / math.sqrt(len(Y))
        for _ in range(8):
            R = cholesky(H + shift * gram)
            if R is not None:
                break
            shift *= 8
        else:
            return None
        G = solve_triangular(R, np.eye(len(H), dtype=H.dtype), adjoint=True)
        F = solve_triangular(R, (Y + shift * X).T, transposed=True).T
        size = norms(G.T)
        G /= size
        return cls(F, F @ G, G.conj().T @ G, size, shift)


def cholesky(A: np.ndarray) -> np.ndarray | None:
    """Upper triangular R with R* R = A; None where that is not positive definite."""
    (potrf,) = lapack.get_lapack_funcs(("potrf",), (A,))
    R, info = potrf(A, lower=0, clean=1)
    return R if info == 0 else None


def solve_triangular(R: np.ndarray, B: np.ndarray, *, adjoint: bool = False, transposed: bool = False) -> np.ndarray:
    """R^-1 B, R^-* B or R^-T B for upper triangular R without zero pivots."""
    if not B.size:
        return B
    (trtrs,) = lapack.get_lapack_funcs(("trtrs",), (R, B))
    X, _ = trtrs(R, B, lower=0, trans=2 if adjoint else 1 if transposed else 0)
    return X


def pairs(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For a Gram matrix with unit diagonal: its other entries g_ij, the determinants 1 - |g_ij|^2 of its 2 x 2 parts, and which
    of these are far enough from zero to be divided by."""
    g = gram - np.diag(gram.diagonal())
    determinant = 1 - np.abs(g) ** 2
    # Of two directions that are nearly one nothing is left but rounding errors: Y without one vector has no smaller range.
    known = determinant > _PARALLEL
    return g, np.where(known, determinant, 1.0), known & ~np.eye(len(g), dtype=bool)


def standard_error(samples: np.ndarray, changes: np.ndarray) -> float:
    """Of the mean of k leave-one-out estimates; changes[i, j]: sample j minus what it is with vector i left out too.

    The square estimates the variance of the mean without bias, but for what keeps it from falling below that of independent
    samples. With e_j = sample_j - truth, E[e_j | other vectors] = 0: what e_j is without vector i is therefore uncorrelated
    with e_i, so that E[e_i* e_j] = E[changes_ji* changes_ij], and the variance of the mean is that of independent samples,
    estimated as always, plus the mean of this.
    """
    k = len(samples)
    spread = float((np.abs(samples - samples.mean()) ** 2).sum())
    common = float((changes.conj() * changes.T).real.sum())
    return math.sqrt((spread + max(common, 0.0)) / (k * (k - 1)))
