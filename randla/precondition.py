"""Right preconditioners from a sketch: N = D R^-1 (or D V / sigma) such that A N has singular values near one.

All products go to scipy's BLAS, none to numpy's: the idle threads of one take the processors from the other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack
from scipy.sparse.linalg import LinearOperator

from . import _check
from ._matrix import TallMatrix, wrap
from ._numeric import (
    MULTIPLY,
    MULTIPLY_TRANSPOSED,
    SOLVE,
    SOLVE_TRANSPOSED,
    norms,
    powers_of_two,
    triangular,
)
from .sketch import Distribution

Powers = Callable[[np.ndarray], np.ndarray]
Slices = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]

# A Cholesky factor of the sketched Gram matrix is as good a preconditioner as R of a QR factorization while eps cond^2 stays
# well below one: at this limit it moves the smallest singular values of A N by a few percent. The limit is checked, always.
GRAM_COND_LIMIT = 1e7

_EPS = float(np.finfo(np.float64).eps)
_CLEARLY = 1.2  # covers the error of the estimated condition number

_BLOCK = 1 << 19  # entries of A N at a time: 4 MB


@dataclasses.dataclass
class Factor:
    """S A D = Q R for a diagonal D of powers of two, with the rank decision made on R.

    Everything here belongs to the scaled matrix A D; whoever holds A multiplies by `scale`. Right-hand sides are rows:
    with N = R^-1 (or V / sigma), `apply` maps (k, rank) to (k, n), `adjoint` (k, n) to (k, rank).
    """

    R: np.ndarray  # (n, n) upper triangular, Fortran order
    scale: np.ndarray  # diagonal of D
    start: np.ndarray  # (k, n): the sketched least-squares solution
    cond_one: float  # estimated condition number of R in the 1-norm
    gram: np.ndarray | None = None  # R'R where it was formed (upper triangle)
    V: np.ndarray | None = None  # right singular vectors of R, (n, n); set when R is too ill-conditioned to be solved with
    sigma: np.ndarray | None = None
    rank: int = 0
    exact: bool = False  # R is A's own factor, not the sketch's

    def apply(self, Z: np.ndarray) -> np.ndarray:
        """Rows of N Z."""
        if self.V is not None and self.sigma is not None:
            return (Z / self.sigma[: self.rank]) @ self.V[:, : self.rank].T
        return triangular(SOLVE, self.R, Z)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        """Rows of N' G."""
        if self.V is not None and self.sigma is not None:
            return G @ self.V[:, : self.rank] / self.sigma[: self.rank]
        return triangular(SOLVE_TRANSPOSED, self.R, G)

    def gradient(self, Z: np.ndarray) -> np.ndarray:
        """Rows G in the row space with N'G = Z."""
        if self.V is not None and self.sigma is not None:
            return (Z * self.sigma[: self.rank]) @ self.V[:, : self.rank].T
        return triangular(MULTIPLY_TRANSPOSED, self.R, Z)

    def project(self, G: np.ndarray) -> np.ndarray:
        """The part of rows G that lies in the kept directions."""
        if self.V is None:
            return G
        V = self.V[:, : self.rank]
        return (G @ V) @ V.T

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """Largest and smallest kept singular value of R, to about ten percent (power and inverse iteration)."""
        n = len(self.R)
        if n == 0:
            return 0.0, 0.0
        if self.sigma is not None:
            return float(self.sigma[0]), float(self.sigma[max(self.rank - 1, 0)])
        rng = np.random.default_rng(n)
        big, small = rng.standard_normal((1, n)), rng.standard_normal((1, n))
        high = low = 0.0
        for _ in range(8):
            big /= np.linalg.norm(big)
            big = triangular(MULTIPLY, self.R, big)
            high = float(np.linalg.norm(big))
            big = triangular(MULTIPLY_TRANSPOSED, self.R, big)
            small /= np.linalg.norm(small)
            small = triangular(SOLVE_TRANSPOSED, self.R, small)
            low = 1 / float(np.linalg.norm(small))
            small = triangular(SOLVE, self.R, small)
        return high, low

    @property
    def cond(self) -> float:
        high, low = self.extremes
        return high / low if low > 0 else 1.0 if high == 0 else np.inf

    def improve(self, matrix: TallMatrix, ridge: float) -> None:
        """Replace the sketched R by the R of A itself: Cholesky of the Gram matrix of A N (Fan, Guo, Lin 2021).

        A N is made in blocks of rows that stay in the cache and is never stored. One pass over A.
        """
        r, n = self.rank, len(self.R)
        if r == 0:
            return
        DN = np.asfortranarray(self.scale[:, None] * self.apply(np.eye(r)).T)
        rows = max(256, _BLOCK // max(1, n))
        gram = np.zeros((r, r), order="F")
        if ridge:
            gram = blas.dsyrk(ridge, DN, trans=1)
        for block in matrix.row_blocks(rows):
            if self.V is None:
                AN = blas.dtrmm(1.0, DN, block.T.copy(order="F"), trans_a=1, overwrite_b=1)
            else:
                AN = blas.dgemm(1.0, DN, block.T, trans_a=1)
            gram = blas.dsyrk(1.0, AN, beta=1.0, c=gram, overwrite_c=1)
        R, info = lapack.dpotrf(gram, lower=0)
        if info != 0:
            return  # A N is far from orthonormal: the sketched factor remains the better one
        if self.V is None:
            self.R, self.gram = blas.dtrmm(1.0, R, self.R), None
        elif self.sigma is not None:
            _, self.sigma[:r], Vh = np.linalg.svd(np.triu(R) @ (self.sigma[:r, None] * self.V[:, :r].T), full_matrices=False)
            self.V[:, :r] = Vh.T
        self.exact = True

    def singular_values(self) -> np.ndarray:
        """Of the sketch of A, without the column scaling."""
        unit = float(self.scale.max(initial=0.0)) or 1.0
        return scipy.linalg.svdvals(self.R / (self.scale / unit)) / unit

    def null_space(self) -> np.ndarray | None:
        """Orthonormal basis (n, n - rank) of the directions of A that were cut off, None at full rank."""
        if self.V is None or self.rank == len(self.R):
            return None
        return scipy.linalg.qr(self.V[:, self.rank :] * (self.scale / self.scale.max())[:, None], mode="economic")[0]

    def regularized(self, shift: np.ndarray) -> np.ndarray:
        """Upper triangular T with T'T = R'R + diag(shift)^2."""
        if self.gram is not None:
            shifted = self.gram.copy(order="F")
            shifted[np.diag_indices_from(shifted)] += shift**2
            T, info = lapack.dpotrf(shifted, lower=0, overwrite_a=1)
            if info == 0:
                return T
        n = len(self.R)
        added = np.asfortranarray(np.diag(shift))
        T = lapack.dtpqrt(n, min(32, n), self.R.copy(order="F"), added, overwrite_a=1, overwrite_b=1)[0]
        return np.asfortranarray(np.triu(T))


def _one_power_of_two(size: np.ndarray) -> np.ndarray:
    return np.full_like(size, powers_of_two(size.max(initial=0.0)))


def rank_cut(eps: float, m: int, d: int) -> float:
    """Relative size below which a singular value of a sketch with d of m rows may be rounding error.

    Measured on rank-deficient matrices: 0.1 to 3 eps, growing with the square root of the number of terms of an entry; in
    float64 the factorization, which is always in float64, adds its own.
    """
    return eps * max(10.0 if eps < 1e-10 else 4.0, 0.2 * math.sqrt(8 * m / max(d, 1)))


def _triangular_condition(R: np.ndarray) -> float:
    if len(R) == 0:
        return 1.0
    rcond, _ = lapack.dtrcon(R)
    return 1 / rcond if rcond > 0 else np.inf


def _by_gram(slices: Slices, n: int, k: int, ridge: float, powers: Powers) -> Factor | None:
    """Cholesky factor of the sketched Gram matrix; None where the condition number makes it unreliable."""
    scale, gram, moments = np.ones(n), np.zeros((n, n), order="F"), np.zeros((n, k), order="F")
    for index, (SA, SB) in enumerate(slices()):
        if index == 0:
            # The first slice stands for the columns' sizes; what it misjudges costs nothing but rounding room.
            scale = powers(np.maximum(SA.max(axis=0, initial=0.0), -SA.min(axis=0, initial=0.0)))
        if (scale != 1).any():
            SA *= scale
        gram = blas.dsyrk(1.0, SA.T, beta=1.0, c=gram, overwrite_c=1)
        if k:
            moments = blas.dgemm(1.0, SA.T, SB.T, trans_b=1, beta=1.0, c=moments, overwrite_c=1)
    if ridge:
        gram[np.diag_indices_from(gram)] += ridge * scale**2
    # Columns of equal norm: what is left of the condition number is what matters.
    diagonal = gram.diagonal()
    if not np.isfinite(diagonal).all() or not (diagonal > 0).all():
        return None
    extra = powers(np.sqrt(diagonal))
    if (extra != 1).any():
        gram *= extra[:, None]
        gram *= extra
        moments *= extra[:, None]
        scale = scale * extra
    R, info = lapack.dpotrf(gram, lower=0)
    if info != 0:
        return None
    cond_one = _triangular_condition(R)
    if not cond_one <= GRAM_COND_LIMIT * np.sqrt(n):
        return None
    factor = Factor(R, scale, np.zeros((k, n)), cond_one, gram=gram, rank=n)
    if factor.cond > GRAM_COND_LIMIT:
        return None
    factor.start = factor.apply(factor.adjoint(moments.T))
    return factor


def _by_qr(slices: Slices, n: int, k: int, ridge: float, powers: Powers) -> Factor:
    """R of a QR factorization of the sketch, slice by slice (Golub, Plemmons, Sameh 1988)."""
    scale = np.ones(n)
    R = np.zeros((0, n + k))
    for index, (SA, SB) in enumerate(slices()):
        if index == 0:
            scale = powers(np.maximum(SA.max(axis=0, initial=0.0), -SA.min(axis=0, initial=0.0)))
            if ridge > 0:
                R = np.hstack([np.diag(np.sqrt(ridge) * scale), np.zeros((n, k))])
        stacked = np.empty((len(R) + len(SA), n + k), order="F")
        stacked[: len(R)] = R
        stacked[len(R) :, :n] = SA
        stacked[len(R) :, :n] *= scale
        stacked[len(R) :, n:] = SB
        factored = lapack.dgeqrf(stacked, lwork=64 * (n + k), overwrite_a=1)[0]
        R = np.triu(factored[: min(n + k, len(factored))])
    whole = np.zeros((n + k, n + k), order="F")
    whole[: len(R)] = R
    R, target = np.asfortranarray(whole[:n, :n]), whole[:n, n:]
    extra = powers(norms(R.T))
    R *= extra
    return Factor(R, scale * extra, target.T.copy(), _triangular_condition(R), rank=n)


def _decide_rank(factor: Factor, rcond: float) -> None:
    """Keep solving with R where it is safely regular; otherwise go to singular values and cut at rcond.

    `factor.start` holds Q'S b on entry and the sketched solution on return.
    """
    n, target = len(factor.R), factor.start
    if n == 0:
        return
    if factor.cond_one < 0.1 / _EPS and factor.cond * _CLEARLY < 1 / rcond:
        factor.start = triangular(SOLVE, factor.R, target)
        return
    U, factor.sigma, Vh = scipy.linalg.svd(factor.R)
    factor.V = np.ascontiguousarray(Vh.T)
    factor.rank = int(np.count_nonzero(factor.sigma > rcond * factor.sigma[0]))
    factor.start = factor.apply(target @ U[:, : factor.rank])


def sketched_factor(
    matrix: TallMatrix,
    B: np.ndarray,
    distribution: Distribution,
    d: int,
    seed: int,
    *,
    ridge: float,
    rcond: float,
    scale_columns: bool = True,
) -> Factor:
    """Factor of the sketch of [A; sqrt(ridge) I], with the (scaled) sketched solution for every row of B.

    Without `scale_columns` all columns get the same power of two.
    """
    n, k = matrix.shape[1], len(B)
    S = distribution.sample(d, matrix.shape[0], rng=seed)

    def slices() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for SA, SB in matrix.sketched(S, B):
            # NaN and infinities of A always reach its sketch, so looking there saves a pass.
            if not (np.isfinite(SA.max(initial=0.0)) and np.isfinite(SA.min(initial=0.0))):
                needed = "small enough to be added up; its sketch overflowed" if matrix.is_finite() else "finite"
                raise ValueError(f"A must be {needed}; got NaN or infinite entries")
            yield SA, SB

    powers = powers_of_two if scale_columns else _one_power_of_two
    factor = _by_gram(slices, n, k, ridge, powers) if d > n else None
    if factor is not None and factor.cond * _CLEARLY >= 1 / rcond:
        factor = None  # the rank is in question
    if factor is None:
        factor = _by_qr(slices, n, k, ridge, powers)
        _decide_rank(factor, rcond)
    return factor


class Preconditioner(LinearOperator):
    """R^-1 (n, n) as a linear operator such that A R^-1 has singular values near one; see `sketch_preconditioner`.

    rank: numerical rank of A (columns beyond it are mapped to zero); cond_estimate: condition number of A with its columns
    scaled to equal norms; seed: replays the sketch.
    """

    def __init__(self, factor: Factor, seed: int):
        n = len(factor.R)
        super().__init__(np.dtype(np.float64), (n, n))
        self._factor = factor
        self.rank, self.cond_estimate, self.seed = factor.rank, factor.cond, seed

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.asarray(X, np.float64).T)
        return (self._factor.apply(rows[:, : self.rank]) * self._factor.scale).T

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.asarray(X, np.float64).T)
        out = np.zeros((self.shape[0], len(rows)))
        out[: self.rank] = self._factor.adjoint(rows * self._factor.scale).T
        return out

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.reshape(x, (-1, 1)))[:, 0]


def sketch_preconditioner(
    A: Any, *, ridge: float = 0.0, sketch: Distribution | None = None, sketch_size: int | None = None, rng: Any = None
) -> Preconditioner:
    """Right preconditioner R^-1 from a sketch of A: cond(A R^-1) is about (1 + e) / (1 - e), e = sqrt(n / sketch_size).

    The piece to embed in other Krylov codes: solve with A R^-1, then multiply the solution by R^-1. With a ridge,
    [A; sqrt(ridge) I] R^-1 is well conditioned.

    Parameters
    ----------
    A : array, CSR/CSC or LinearOperator, (m, n), m >= n
        Real. Read once.
    ridge : float
    sketch : Distribution, default BlockSRHT() for dense and SparseStack() for other A
    sketch_size : int, default 8 n
    rng : as in SPEC 7

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries.
    """
    a = _check.matrix(A, "A", operators=True)
    matrix = wrap(a)
    m, n = matrix.shape
    if matrix.dtype.kind == "c":
        raise TypeError(f"A must be real; got {matrix.dtype}")
    if m < n:
        raise ValueError(f"A must have at least as many rows as columns; got shape {matrix.shape}")
    ridge = _check.real(ridge, "ridge")
    chosen = distribution(sketch, matrix)
    d = 8 * n + 8 if sketch_size is None else _check.integer(sketch_size, "sketch_size", max(n, 1))
    seed = _check.seed(rng)
    rcond = rank_cut(float(np.finfo(matrix.dtype).eps), m, d)
    factor = sketched_factor(matrix, np.zeros((0, m)), chosen, max(d, 1), seed, ridge=ridge, rcond=rcond)
    return Preconditioner(factor, seed)


def distribution(sketch: Any, matrix: TallMatrix) -> Distribution:
    """The distribution asked for, or the default for this kind of matrix."""
    if sketch is None:
        return matrix.default_sketch
    if not isinstance(sketch, Distribution):
        raise TypeError(f"sketch must be a Distribution such as SparseStack(); got {sketch!r}")
    return sketch
