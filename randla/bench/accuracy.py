"""How accurate a least-squares solution is, computed from A by Householder QR and independently of how x was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse

from randla.datasets import extended_residual, refine, row_blocks

__all__ = ["Reference", "householder"]


def householder(A: np.ndarray, b: np.ndarray, dtype: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """R and Q'b of A = Q R by LAPACK's geqrf, in the precision asked for (default: that of A)."""
    m, n = A.shape
    dtype = np.dtype(dtype or A.dtype)
    work = np.empty((max(m, n), n + 1), dtype, order="F")
    for rows in row_blocks(m, n):  # in blocks: numpy copies between the two orders slowly otherwise
        work[rows, :n] = A[rows]
    work[:m, n] = b
    work[m:] = 0
    # Factoring [A b] gives Q'b as the last column of the triangle, without Q.
    (geqrf, geqrf_lwork) = scipy.linalg.get_lapack_funcs(("geqrf", "geqrf_lwork"), dtype=dtype)
    lwork = int(geqrf_lwork(*work.shape)[0].real)
    qr, _, _, info = geqrf(work, lwork=lwork, overwrite_a=True)
    if info != 0:
        raise RuntimeError(f"geqrf returned {info}")
    triangle = np.triu(qr[: n + 1])
    return np.ascontiguousarray(triangle[:n, :n]), triangle[:n, n].copy()


class Reference:
    """Judge of solutions of min ||A x - b||: errors against the thin factor of A, residuals in extended precision.

    Parameters
    ----------
    A : ndarray or sparse array, (m, n), m >= n, float32 or float64
    b : ndarray, (m,)
    x : ndarray, (n,), optional
        The solution, if known; otherwise it is computed when first needed (minimum norm where A is rank deficient).
    """

    def __init__(self, A: Any, b: np.ndarray, x: np.ndarray | None = None) -> None:
        self.A, self.b = A, b
        dense = A.toarray() if scipy.sparse.issparse(A) else A
        R, c = householder(dense, b, np.float64)
        _, self.s, Vh = np.linalg.svd(R)
        self.V = Vh.T
        self.norm = float(np.linalg.norm(self.s))
        eps = np.finfo(np.float64).eps
        self.rank = int(np.sum(self.s > eps * max(A.shape) * self.s[0])) if len(self.s) else 0
        self.x_qr: np.ndarray | None = None
        if self.rank == A.shape[1]:
            if A.dtype != np.float64:
                R, c = householder(dense, b)
            self.x_qr = scipy.linalg.solve_triangular(R, c)
        self._x = x

    @property
    def cond(self) -> float:
        return float(self.s[0] / self.s[self.rank - 1]) if self.rank else 1.0

    @property
    def x(self) -> np.ndarray:
        """The solution, refined in extended precision."""
        if self._x is None:
            V, s = self.V[:, : self.rank], self.s[: self.rank]
            self._x = refine(self.A, self.b, np.zeros(self.A.shape[1]), lambda g: V @ ((V.T @ g) / s**2))
        return self._x

    def forward_error(self, x: np.ndarray) -> float:
        """||x - x*|| / ||x*||."""
        scale = float(np.linalg.norm(self.x))
        return float(np.linalg.norm(np.asarray(x, np.float64) - self.x)) / (scale or 1.0)

    def backward_error(self, x: np.ndarray) -> float:
        """Size of the smallest change of A, relative to ||A||_F, for which x is a minimizer (after Karlson and Walden).

        The estimate is ||(A'A + phi^2 I)^(-1/2) A'r|| phi / ||r|| with phi = ||r|| / ||x||; it is at most the exact
        value and at least about 0.7 of it.
        """
        r, g = extended_residual(self.A, np.asarray(x, np.float64), self.b)
        r_norm, x_norm = float(np.sqrt(np.sum(r * r))), float(np.linalg.norm(x))
        if r_norm == 0 or self.norm == 0:
            return 0.0
        g = self.V.T @ g.astype(np.float64)
        if x_norm == 0:  # the limit phi -> infinity
            return float(np.linalg.norm(g)) / r_norm / self.norm
        phi = r_norm / x_norm
        return float(np.linalg.norm(g / np.hypot(self.s, phi))) / x_norm / self.norm
