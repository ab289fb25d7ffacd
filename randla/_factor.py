"""Factors of a (sketched) matrix and the right preconditioners N they give: A N has singular values near one.

All products go to scipy's BLAS, none to numpy's: the idle threads of one take the processors from the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack

from ._matrix import TallMatrix
from ._numeric import (
    MULTIPLY,
    MULTIPLY_TRANSPOSED,
    SOLVE,
    SOLVE_TRANSPOSED,
    cholesky,
    inverse,
    norms,
    powers_of_two,
    product,
    triangular,
)
from ._row_map import RowMap

# A Cholesky factor of the sketched Gram matrix is as good a preconditioner as R of a QR factorization while eps cond^2 stays
# well below one: at this limit it moves the smallest singular values of A N by a few percent. The limit is checked, always.
GRAM_COND_LIMIT = 1e7

_STEPS, _MORE_STEPS = 8, (16, 40)
_FALSE_ALARM = 1e-6

Damped = Callable[[np.ndarray], float]


class Factor:
    """A factor F (n columns) of the sketch of [A; sqrt(ridge) I] D, for a diagonal D of powers of two.

    Everything here belongs to the scaled matrix A D; whoever holds A multiplies by `scale`. Right-hand sides are rows:
    `apply` maps (k, rank) to (k, n), `adjoint` (k, n) to (k, rank).

    Attributes: scale, the diagonal of D; start (k, n), the sketched least-squares solutions; rank, what the rank decision
    left; rows, those of the sketch; distortion, how far from one the singular values of A N are expected to be.
    """

    scale: np.ndarray
    start: np.ndarray
    rank: int
    rows: int = 0
    distortion: float = 0.95

    def apply(self, Z: np.ndarray) -> np.ndarray:
        """Rows of N Z."""
        raise NotImplementedError

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        """Rows of N' G."""
        raise NotImplementedError

    def gradient(self, Z: np.ndarray) -> np.ndarray:
        """Rows G in the row space with N'G = Z."""
        raise NotImplementedError

    def project(self, G: np.ndarray) -> np.ndarray:
        """The part of rows G that lies in the kept directions."""
        return G

    @property
    def extremes(self) -> tuple[float, float]:
        """Largest and smallest kept singular value of F."""
        raise NotImplementedError

    @property
    def cond(self) -> float:
        high, low = self.extremes
        return high / low if low > 0 else 1.0 if high == 0 else np.inf

    def column_norms(self) -> np.ndarray:
        raise NotImplementedError

    def row_norms(self) -> np.ndarray:
        """Euclidean norms of the rows of N."""
        raise NotImplementedError

    def effective_dimension(self, ridge: float) -> float:
        """Sum of sigma^2 / (sigma^2 + ridge) for the factor of [A; sqrt(ridge) I]: ridge N N' is what the ridge takes of I."""
        if not ridge:
            return float(self.rank)
        return max(self.rank - (math.sqrt(ridge) * float(norms(self.scale * self.row_norms()))) ** 2, 0.0)

    def damped(self, shift: np.ndarray | None) -> Damped:
        """The function g -> ||(F'F + diag(shift)^2)^(-1/2) g||; None stands for zero, where `regular`."""
        raise NotImplementedError

    regular = True  # whether F can be solved with as it is

    def singular_values(self) -> np.ndarray:
        """Of F, without the column scaling."""
        raise NotImplementedError

    def null_space(self) -> np.ndarray | None:
        """Orthonormal basis (n, n - rank) of the directions of A that were cut off, None at full rank."""
        return None

    def row_map(self) -> RowMap:
        """The map of rows of A to rows of A D N."""
        return RowMap(np.ascontiguousarray(self.apply(np.eye(self.rank)).T), self.scale)

    def improve(self, matrix: TallMatrix, ridge: float) -> bool:
        """Replace the sketched factor by that of A itself: Cholesky of the Gram matrix of A N (Fan, Guo, Lin 2021).

        A N is made in blocks of rows that stay in the cache and is never stored. One pass over A. False where A N is so far
        from orthonormal that the sketched factor remains the better one.
        """
        if self.rank == 0:
            return True
        mapping = self.row_map()
        gram = matrix.gram(mapping)
        if ridge:
            gram += mapping.gram_of_map(ridge)
        R = cholesky(gram.T)
        if R is None:
            return False
        self._multiply(R)
        self.distortion = 0.02
        return True

    def _multiply(self, R: np.ndarray) -> None:
        """Make R F, up to an orthogonal factor from the left, the new F; R is upper triangular, (rank, rank)."""
        raise NotImplementedError


class TriangularFactor(Factor):
    """S A D = Q R; N = R^-1. R is (n, n), upper triangular, in Fortran order."""

    def __init__(self, R: np.ndarray, scale: np.ndarray, start: np.ndarray, gram: np.ndarray | None = None):
        self.R, self.scale, self.start = R, scale, start
        self.gram = gram  # R'R where it was formed (upper triangle)
        self.rank = len(R)

    def _through(self, op: int, Z: np.ndarray) -> np.ndarray:
        return triangular(op, self.R, Z)

    def apply(self, Z: np.ndarray) -> np.ndarray:
        return self._through(SOLVE, Z)

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self._through(SOLVE_TRANSPOSED, G)

    def gradient(self, Z: np.ndarray) -> np.ndarray:
        return self._through(MULTIPLY_TRANSPOSED, Z)

    @cached_property
    def extremes(self) -> tuple[float, float]:
        return self._largest(_STEPS), self._smallest(_STEPS)

    def _largest(self, steps: int) -> float:
        return lanczos(lambda z: self._through(MULTIPLY_TRANSPOSED, self._through(MULTIPLY, z)), len(self.scale), steps)

    def _smallest(self, steps: int) -> float:
        inverse = lanczos(lambda z: self._through(SOLVE, self._through(SOLVE_TRANSPOSED, z)), len(self.scale), steps)
        return 1 / inverse if inverse > 0 else 0.0

    def certainly_above(self, rcond: float) -> bool:
        """Whether the smallest singular value of R is above rcond times the largest beyond reasonable doubt.

        Lanczos never overstates the condition number; how far it can understate it is known in probability. More steps are
        made while that leaves the answer open: they are far cheaper than singular values.
        """
        n = len(self.scale)
        if not self.cond * 1.2 >= 1 / rcond:
            return True
        for steps in _MORE_STEPS:
            cond = self._largest(steps) / self._smallest(steps)
            if not cond < 1 / rcond:
                return False
            if cond * lanczos_slack(n, steps) < 1 / rcond:
                return True
        return False

    def column_norms(self) -> np.ndarray:
        return norms(self.R.T)

    def row_norms(self) -> np.ndarray:
        return norms(inverse(self.R))

    def row_map(self) -> RowMap:
        return RowMap(inverse(self.R), self.scale, upper=True)

    def _multiply(self, R: np.ndarray) -> None:
        self.R, self.gram = product(R, self.R), None
        self.__dict__.pop("extremes", None)

    def singular_values(self) -> np.ndarray:
        unit = float(self.scale.max(initial=0.0)) or 1.0
        return scipy.linalg.svdvals(self.R / (self.scale / unit)) / unit

    def damped(self, shift: np.ndarray | None) -> Damped:
        T = self.R if shift is None else self._shifted(shift)
        return lambda g: float(norms(triangular(SOLVE_TRANSPOSED, T, g[None, :]))[0])

    def _shifted(self, shift: np.ndarray) -> np.ndarray:
        """Upper triangular T with T'T = R'R + diag(shift)^2."""
        if self.gram is not None:
            shifted = self.gram.copy(order="F")
            shifted[np.diag_indices_from(shifted)] += shift**2
            T = cholesky(shifted)
            if T is not None:
                return T
        n = len(self.R)
        added = np.asfortranarray(np.diag(shift))
        T = lapack.dtpqrt(n, min(32, n), self.R.copy(order="F"), added, overwrite_a=1, overwrite_b=1)[0]
        return np.asfortranarray(np.triu(T))


class TruncatedFactor(TriangularFactor):
    """The same R, too ill-conditioned to be solved with: R = U diag(sigma) V', and N = V / sigma for the kept directions."""

    regular = False

    def __init__(self, R: np.ndarray, scale: np.ndarray, start: np.ndarray, sigma: np.ndarray, V: np.ndarray, rank: int):
        super().__init__(R, scale, start)
        self.sigma, self.V, self.rank = sigma, V, rank  # all n of them, and how many count

    def apply(self, Z: np.ndarray) -> np.ndarray:
        return (Z / self.sigma[: self.rank]) @ self.V[:, : self.rank].T

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return G @ self.V[:, : self.rank] / self.sigma[: self.rank]

    def gradient(self, Z: np.ndarray) -> np.ndarray:
        return (Z * self.sigma[: self.rank]) @ self.V[:, : self.rank].T

    def project(self, G: np.ndarray) -> np.ndarray:
        V = self.V[:, : self.rank]
        return (G @ V) @ V.T

    @property
    def extremes(self) -> tuple[float, float]:
        if len(self.sigma) == 0:
            return 0.0, 0.0
        return float(self.sigma[0]), float(self.sigma[max(self.rank - 1, 0)])

    def row_norms(self) -> np.ndarray:
        return norms(self.V[:, : self.rank] / self.sigma[: self.rank])

    def row_map(self) -> RowMap:
        return Factor.row_map(self)

    def _multiply(self, R: np.ndarray) -> None:
        r = self.rank
        _, self.sigma[:r], Vh = np.linalg.svd(np.triu(R) @ (self.sigma[:r, None] * self.V[:, :r].T), full_matrices=False)
        self.V[:, :r] = Vh.T

    def null_space(self) -> np.ndarray | None:
        if self.rank == len(self.R):
            return None
        return scipy.linalg.qr(self.V[:, self.rank :] * (self.scale / self.scale.max())[:, None], mode="economic")[0]


class WideFactor(TruncatedFactor):
    """R of wide A itself, (m, n): what its certificate asks for lies in the range of A', of which m vectors are enough.

    All columns have the same power of two as scale, so that a shift is the same for all directions.
    """

    def __init__(self, R: np.ndarray, rank: int):
        scale = np.full(R.shape[1], powers_of_two(np.array([abs(R).max(initial=0.0)]))[0])
        R = R * scale
        _, sigma, Vh = scipy.linalg.svd(R, full_matrices=False)
        super().__init__(R, scale, np.zeros((0, len(scale))), sigma, np.ascontiguousarray(Vh.T), rank)

    def damped(self, shift: np.ndarray | None) -> Damped:
        assert shift is not None  # not regular
        sizes = np.hypot(self.sigma, shift[0])
        return lambda g: float(norms((g @ self.V / sizes)[None, :])[0])


class RidgeFactor(Factor):
    """F = [S A; sqrt(ridge) I] for a sketch of d < n rows: (S A)' = Q R, T'T = R R' + ridge I, and

        N = Q T^-1 Q' + ridge^(-1/2) (I - Q Q'),

    which takes d n numbers instead of n^2. All columns have the same power of two as scale; ridge is that of A D.
    """

    def __init__(self, Q: np.ndarray, R: np.ndarray, T: np.ndarray, sizes: np.ndarray, ridge: float, scale: np.ndarray):
        self.Q, self.R, self.T, self.ridge, self.scale = Q, R, T, ridge, scale  # matrices in Fortran order
        self.rank, self.rows = Q.shape
        self.start = np.zeros((0, self.rank))
        self.sizes = sizes  # of the columns of S A

    def _function(self, op: int, T: np.ndarray, Z: np.ndarray, elsewhere: float) -> np.ndarray:
        """Rows of (Q op(T) Q' + elsewhere (I - Q Q')) Z."""
        inner = blas.dgemm(1.0, self.Q, Z.T, trans_a=1)
        on_range = triangular(op, T, inner.T).T - elsewhere * inner
        return (elsewhere * Z.T + blas.dgemm(1.0, self.Q, on_range)).T

    def apply(self, Z: np.ndarray) -> np.ndarray:
        return self._function(SOLVE, self.T, Z, 1 / math.sqrt(self.ridge))

    def adjoint(self, G: np.ndarray) -> np.ndarray:
        return self._function(SOLVE_TRANSPOSED, self.T, G, 1 / math.sqrt(self.ridge))

    def gradient(self, Z: np.ndarray) -> np.ndarray:
        return self._function(MULTIPLY_TRANSPOSED, self.T, Z, math.sqrt(self.ridge))

    @cached_property
    def extremes(self) -> tuple[float, float]:
        return TriangularFactor(self.T, self.scale[: self.rows], self.start).extremes[0], math.sqrt(self.ridge)

    def column_norms(self) -> np.ndarray:
        return np.hypot(self.sizes, math.sqrt(self.ridge))

    def row_norms(self) -> np.ndarray:
        inside = blas.dtrsm(1.0, self.T, self.Q, side=1)
        return np.sqrt(np.maximum(1 - norms(self.Q) ** 2, 0) / self.ridge + norms(inside) ** 2)

    def damped(self, shift: np.ndarray | None) -> Damped:
        # The columns have one scale, hence one shift.
        ridge = self.ridge + (0.0 if shift is None else float(shift[0]) ** 2)
        T = self.T if shift is None else ridge_root(self.R, ridge)
        return lambda g: float(norms(self._function(SOLVE_TRANSPOSED, T, g[None, :], 1 / math.sqrt(ridge)))[0])

    def singular_values(self) -> np.ndarray:
        padding = np.full(self.rank - self.rows, math.sqrt(self.ridge))
        return np.concatenate([scipy.linalg.svdvals(self.T), padding]) / float(self.scale[0])


def ridge_root(R: np.ndarray, ridge: float) -> np.ndarray:
    """Upper triangular T with T'T = R R' + ridge I, by QR: a small ridge is not lost."""
    d = len(R)
    both = np.zeros((2 * d, d), order="F")
    both[:d] = R.T
    both[range(d, 2 * d), range(d)] = math.sqrt(ridge)
    return np.asfortranarray(np.triu(lapack.dgeqrf(both, lwork=64 * d, overwrite_a=1)[0][:d]))


def own_factor(upper: np.ndarray, rank: int | None) -> Factor:
    """The factor that an upper triangular R of A itself gives, cut at `rank`, which a wide one needs."""
    if len(upper) < upper.shape[1]:
        assert rank is not None
        return WideFactor(upper, rank)
    scale = powers_of_two(norms(upper.T))
    R, start = np.asfortranarray(upper * scale), np.zeros((0, len(upper)))
    if rank is None or rank == len(upper):
        return TriangularFactor(R, scale, start)
    _, sigma, Vh = scipy.linalg.svd(R)
    return TruncatedFactor(R, scale, start, sigma, np.ascontiguousarray(Vh.T), rank)


def lanczos(product: Callable[[np.ndarray], np.ndarray], n: int, steps: int) -> float:
    """Square root of the largest eigenvalue of a symmetric positive semidefinite operator on (1, n) rows, from below."""
    if n == 0:
        return 0.0
    steps = min(steps, n)
    basis = np.zeros((n, steps), order="F")
    q = np.random.default_rng(n).standard_normal((1, n))
    q /= norms(q)
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    for j in range(steps):
        basis[:, j] = q[0]
        w = product(q)[0]
        diagonal[j] = blas.ddot(w, q[0])
        if not math.isfinite(diagonal[j]):
            return math.inf
        for _ in range(2):  # twice is enough (Parlett 1980)
            w = blas.dgemv(-1.0, basis[:, : j + 1], blas.dgemv(1.0, basis[:, : j + 1], w, trans=1), 1.0, w, overwrite_y=1)
        beside[j] = norms(w)
        if not beside[j] > 1e-14 * diagonal[: j + 1].max():
            steps = j + 1
            break
        q = (w / beside[j])[None, :]
    largest = scipy.linalg.eigvalsh_tridiagonal(diagonal[:steps], beside[: steps - 1])[-1]
    return math.sqrt(max(float(largest), 0.0))


def lanczos_slack(n: int, steps: int) -> float:
    """A factor by which `lanczos` with a random start understates with probability 1e-6 at most, inf where none is known.

    Kuczynski, Wozniakowski 1992: a relative gap e of the eigenvalue has probability 1.648 sqrt(n) exp(-sqrt(e) (2 steps - 1)).
    """
    if steps >= n:
        return 1.01
    gap = (math.log(1.648 * math.sqrt(n) / _FALSE_ALARM) / (2 * steps - 1)) ** 2
    return math.inf if gap >= 1 else 1 / math.sqrt(1 - gap)
