"""Ridge leverage scores of points against a weighted dictionary of them, in kernel entries alone."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.linalg.blas as blas
import scipy.linalg.lapack as lapack

_CHUNK = 1 << 19  # entries of a block of the kernel matrix: 4 MB, so that it is in cache when it is used


def chunk_rows(size: int) -> int:
    return max(256, _CHUNK // max(1, size))


def oversampling(dimension: float, epsilon: float = 0.5) -> float:
    """Factor from scores to probabilities: log(2 d) / (2 epsilon^2), at least one."""
    return max(1.0, math.log(2 * max(dimension, 1.0)) / (2 * epsilon**2))


def hermitian(gram: np.ndarray, diagonal: np.ndarray, eps: float) -> np.ndarray:
    """The kernel matrix of a dictionary, checked; `diagonal` has its exact diagonal."""
    if not np.isfinite(gram).all():
        raise ValueError("kernel must be finite; got NaN or infinite values")
    adjoint = gram.conj().T
    size = np.abs(gram).max(initial=0)
    difference = np.abs(gram - adjoint).max(initial=0)
    if difference > math.sqrt(eps) * size:
        raise ValueError(f"kernel must be symmetric (Hermitian); got entries of size {size:g} that differ by {difference:g}")
    out = gram / 2 + adjoint / 2
    np.fill_diagonal(out, diagonal)
    return out


def eigenvalues(gram: np.ndarray, eps: float) -> np.ndarray:
    """Of a positive semi-definite matrix, ascending, with negative ones from rounding as zero."""
    values = scipy.linalg.eigvalsh(gram) if gram.size else np.zeros(0)
    _require_semidefinite(values, eps)
    return np.maximum(values, 0)


def _require_semidefinite(values: np.ndarray, eps: float) -> None:
    low, high = values.min(initial=0), np.abs(values).max(initial=0)
    # The last term is what products below the smallest normal number lose.
    if low < -math.sqrt(eps) * high - 8 * len(values) * float(np.finfo(np.float64).smallest_subnormal):
        raise ValueError(f"kernel must be positive semi-definite; got an eigenvalue {low:g} beside one of size {high:g}")


def squared(a: np.ndarray) -> np.ndarray:
    """Squared norms of rows."""
    return np.einsum("ij,ij->i", a, a.conj()).real


class Dictionary:
    """Points with their kernel matrix and weights; with W = diag(weights), what G + ridge I, G = W^1/2 K W^1/2, is good for.

    Scores of phi against the dictionary are phi' (sum_s w_s phi_s phi_s' + ridge I)^-1 phi.
    """

    def __init__(self, gram: np.ndarray, weights: np.ndarray, ridge: float, eps: float):
        self.gram, self.weights, self.ridge, self.eps = gram, weights, ridge, eps
        self.diagonal = np.ascontiguousarray(np.diagonal(gram).real)
        self.trace = float(self.diagonal @ weights)
        # Rounding errors of K are magnified by trace / ridge in the scores; below this they say nothing about K.
        noise = 8 * len(weights) * eps * (1 + self.trace / ridge) if ridge else 0.0
        self.tolerance = max(math.sqrt(eps), noise)

    @property
    def weighted(self) -> np.ndarray:
        """G."""
        roots = np.sqrt(self.weights)
        return self.gram * roots[:, None] * roots

    @cached_property
    def _inverse_root(self) -> tuple[bool, np.ndarray]:
        """True and L with K + ridge W^-1 = L L^H; or False and T with (K + ridge W^-1)^-1 = T T^H where rounding errors of K
        are larger than the ridge."""
        shifted = np.array(self.gram, order="F")
        shifted.ravel("K")[:: len(shifted) + 1] += self.ridge / self.weights
        try:
            return True, scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            values, vectors = scipy.linalg.eigh(self.weighted)
            _require_semidefinite(values, self.eps)
            scale = np.sqrt(self.weights)[:, None] / np.sqrt(np.maximum(values, 0) + self.ridge)
            return False, vectors * scale

    def _explained(self, block: np.ndarray) -> np.ndarray:
        """k_iS (K + ridge W^-1)^-1 k_Si for rows k_iS."""
        if not block.shape[1]:
            return np.zeros(len(block))
        triangular, factor = self._inverse_root
        if not triangular:
            return squared(block @ factor)
        solve = blas.get_blas_funcs("trsm", (factor, block))
        # Rows of a C-ordered block are columns for LAPACK; their conjugates are what stands right of the inverse.
        right = block.conj() if block.dtype.kind == "c" else block
        return squared(solve(1.0, factor, right.T, lower=1, overwrite_b=1).T)

    def scores(self, block: np.ndarray, diagonal: np.ndarray, *, joined: bool = False) -> np.ndarray:
        """Scores in [0, 1] of points with kernel values `block` (overwritten) to the dictionary.

        joined: of points outside the dictionary, as if each alone were added to it with weight one.
        """
        residual = diagonal - self._explained(block)
        if not np.isfinite(residual).all():
            raise ValueError("kernel must be finite; got NaN or infinite values")
        short = residual + self.tolerance * diagonal
        if short.size and short.min() < 0:
            worst = int(short.argmin())
            raise ValueError(
                "kernel must be positive semi-definite; got a point whose kernel value with itself is "
                f"{diagonal[worst]:g} and {residual[worst]:g} after projection"
            )
        residual = np.maximum(residual, 0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            highest = diagonal / (diagonal + self.ridge)
            found = residual / (residual + self.ridge) if joined else residual / self.ridge
            # The largest eigenvalue of G is at most its trace: no score is smaller, whatever is lost to cancellation.
            out = np.minimum(np.maximum(found, diagonal / (self.trace + self.ridge)), highest)
        return np.where(diagonal > 0, out, 0.0)

    def own_scores(self) -> np.ndarray:
        """Scores of the points of the dictionary."""
        if not self.weights.size:
            return np.zeros(0)
        triangular, factor = self._inverse_root
        if triangular:
            inverse, _ = lapack.get_lapack_funcs("trtri", (factor,))(factor, lower=1)
            diagonal = squared(inverse.T)
        else:
            diagonal = squared(factor)
        # G (G + ridge)^-1 = I - ridge (G + ridge)^-1, without the cancellation of residuals.
        left = 1 - self.ridge * diagonal / self.weights
        if left.min() < -self.tolerance:
            _require_semidefinite(scipy.linalg.eigvalsh(self.weighted), self.eps)
        lowest = self.diagonal / (self.trace + self.ridge)
        highest = self.diagonal / (self.weights * self.diagonal + self.ridge)
        return np.clip(left / self.weights, lowest, highest)
