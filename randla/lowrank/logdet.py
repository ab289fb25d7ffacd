"""Log-determinants of positive definite matrices: by Cholesky, or by stochastic Lanczos quadrature from products."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from .. import _check
from .._numeric import norms
from ..result import HasStatus
from ._leave_one_out import PositivePart
from ._operand import DenseOperand, Operand, SparseOperand, operand
from ._probes import Probes, Products, half_width, mean_and_error
from .result import LowRankStatus, LowRankWarning
from .trace import checked_level, square

METHODS = ("auto", "cholesky", "lanczos")

_STREAM = 31  # see docs/definitions.md
_PROBES, _PRECONDITIONER = range(2)
_LARGEST_CHOLESKY = 5000  # order up to which "auto" factors a dense matrix
_BATCH = 1 << 25  # entries of Lanczos vectors that are held at a time: 256 MB
_DEFAULT, _FEWEST, _MOST = 30, 10, 10_000  # test vectors
_LONG = 64  # Lanczos steps that memory is planned for
_LOOK = 4  # Lanczos steps before the first look at the quadrature
_SHARE = 0.1  # of the error that chance makes, allowed to the quadrature
_HERMITIAN = 100  # times eps and the largest entry: what is still rounding


@dataclasses.dataclass(frozen=True)
class LogdetResult(HasStatus):
    """A log-determinant with its errors.

    Attributes
    ----------
    value : float
        NaN where the matrix is not positive definite.
    error : float
        Standard error of the value; for "cholesky" an estimate of the rounding error.
    bracket : (float, float)
        What the value would be between with exact quadrature: the errors of Lanczos, without those of chance. The upper end
        always holds, the lower one where `ridge` or `smallest` bound the eigenvalues from below; else it rests on half the
        smallest Ritz value.
    matvecs, probes, steps : int
        Products with vectors, test vectors, and Lanczos steps at most per vector.
    method : str
        "cholesky" or "lanczos".
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    value: float
    error: float
    bracket: tuple[float, float]
    matvecs: int
    probes: int
    steps: int
    method: str
    seed: int
    status: LowRankStatus
    notes: str = dataclasses.field(default="", repr=False)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval by Student's t around the bracket. Raises ValueError for a level outside (0, 1)."""
        width = half_width(self.error, self.probes - 1, checked_level(level))
        return self.bracket[0] - width, self.bracket[1] + width


def logdet(
    A: Any,
    *,
    ridge: float = 0.0,
    method: str = "auto",
    probes: int | None = None,
    tol: float | None = None,
    maxiter: int = 300,
    smallest: float | None = None,
    rank: int = 0,
    rng: Any = None,
) -> LogdetResult:
    """log det(A + ridge I) of a Hermitian positive definite matrix that may be known by its products alone.

    "lanczos" is the mean of x* log(A) x over x uniform on the sphere; every x gives a Gauss and a Gauss-Radau quadrature of
    its spectral measure, an upper and a lower bound (Golub, Meurant 1994; Ubaru, Chen, Saad 2017). With `rank`, a Nystrom
    approximation takes the large eigenvalues out first, exactly, so that less is left to chance.

    Parameters
    ----------
    A : array (n, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Hermitian, real or complex. Of an operator this is taken on trust.
    ridge : float
        Added to the eigenvalues; A itself need only be semidefinite then.
    method : {"auto", "cholesky", "lanczos"}
        "cholesky": by LAPACK, for dense arrays. "auto": that up to n = 5,000, else "lanczos".
    probes : int
        Test vectors, with `tol` the most of them; default 30.
    tol : float
        Add test vectors until the half-width of the 95 % confidence interval is at most tol: an absolute error, as a change
        of units adds to a log-determinant.
    maxiter : int
        Lanczos steps at most for each test vector.
    smallest : float
        A lower bound of the eigenvalues of A, default 0: makes the lower end of `bracket` a proof.
    rank : int
        Of the Nystrom approximation; it takes about as many products.
    rng : as in SPEC 7

    Returns
    -------
    LogdetResult

    Warns
    -----
    LowRankWarning
        Where the matrix is not positive definite within rounding, the tolerance was not reached, or `maxiter` was.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments, an explicit A that is not Hermitian among them; NaN or infinite entries or products.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = square(operand(A))
    n = a.shape[0]
    ridge = _check.real(ridge, "ridge")
    most = None if probes is None else _check.integer(probes, "probes", 2)
    tol = None if tol is None else _check.real(tol, "tol", strict=True)
    maxiter = _check.integer(maxiter, "maxiter", 1)
    smallest = 0.0 if smallest is None else _check.real(smallest, "smallest")
    rank = min(_check.integer(rank, "rank", 0), n)
    seed = _check.seed(rng)
    _require_hermitian(a)
    if method == "auto":
        method = "cholesky" if isinstance(a, DenseOperand) and n <= _LARGEST_CHOLESKY else "lanczos"
    if method == "cholesky":
        if not isinstance(a, DenseOperand):
            raise TypeError(f"A must be a dense array for method 'cholesky'; got {type(A).__name__}")
        result = _by_cholesky(a.A, ridge, seed)
    elif n == 0:
        result = LogdetResult(0.0, 0.0, (0.0, 0.0), 0, 0, 0, method, seed, LowRankStatus.COMPUTED)
    else:
        result = _by_lanczos(a, ridge, most, tol, maxiter, smallest, rank, seed)
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=2)
    return result


def _require_hermitian(A: Operand) -> None:
    if isinstance(A, DenseOperand):
        largest, difference = np.abs(A.A).max(initial=0.0), 0.0
        for i, rows in A.row_chunks():
            difference = max(difference, float(np.abs(rows - A.A[:, i : i + len(rows)].conj().T).max(initial=0.0)))
    elif isinstance(A, SparseOperand):
        largest, difference = np.abs(A.A.data).max(initial=0.0), float(abs(A.A - A.A.conj().T).max()) if A.A.nnz else 0.0
    else:
        return
    if not math.isfinite(largest):
        raise ValueError(f"{A.name} must be finite; got NaN or infinite entries")
    if difference > _HERMITIAN * np.finfo(A.dtype).eps * largest:
        raise ValueError(f"{A.name} must be Hermitian; got entries that differ by {difference:.2g} from those of its adjoint")


def _by_cholesky(A: np.ndarray, ridge: float, seed: int) -> LogdetResult:
    n, eps = len(A), float(np.finfo(A.dtype).eps)
    M = np.array(A, np.result_type(A.dtype, np.float64), order="F")
    M[np.diag_indices(n)] += ridge
    norm = float(np.abs(M).sum(axis=0).max(initial=0.0))
    potrf, pocon = lapack.get_lapack_funcs(("potrf", "pocon"), (M,))
    R, info = potrf(M, lower=0, overwrite_a=1)
    if info:
        note = f"The leading minor of order {info} is not positive."
        return LogdetResult(
            math.nan, math.nan, (math.nan, math.nan), 0, 0, 0, "cholesky", seed, LowRankStatus.NOT_POSITIVE, note
        )
    value = 2 * math.fsum(np.log(R.diagonal().real))
    rcond = float(pocon(R, norm)[0]) if n else 1.0
    error = eps * math.sqrt(n) / max(rcond, float(np.finfo(np.float64).tiny))
    return LogdetResult(value, error, (value, value), 0, 0, 0, "cholesky", seed, LowRankStatus.COMPUTED)


@dataclasses.dataclass(frozen=True)
class _Definite:
    """M with log det(A + ridge I) = offset + log det(M), and a lower bound of its eigenvalues, 0 where none is known."""

    times: Callable[[np.ndarray], np.ndarray]
    offset: float
    smallest: float


def _definite(products: Products, ridge: float, smallest: float, rank: int, seed: int) -> _Definite | None:
    """A + ridge I in the units of the products, or P^-1/2 (A + ridge I) P^-1/2 with P = U (L + ridge) U* + c (I - U U*) for a
    Nystrom approximation U L U* <= A. None where that shows A not to be semidefinite."""
    A = products.A
    n = A.shape[0]

    def shifted(X: np.ndarray) -> np.ndarray:
        return products.times(X) + float(products.unscaled(ridge, -1)) * X

    X = Probes(n, seed, _PRECONDITIONER, paired=A.dtype.kind == "c", stream=_STREAM).columns(0, max(rank, 1))
    Y = products.times(X)  # also decides the units
    ridge_here, smallest = float(products.unscaled(ridge, -1)), float(products.unscaled(smallest, -1))
    part = PositivePart.of(X, Y, products.eps) if rank else None
    if not rank or not Y.any():
        return _Definite(shifted, 0.0, smallest + ridge_here)
    if part is None:
        return None
    U, sigma, _ = scipy.linalg.svd(part.F, full_matrices=False, check_finite=False)
    values = np.maximum(sigma**2 - part.shift, 0.0)
    least = n * products.eps * values[0]
    kept = values > least
    c = max(float(values[-1]) + ridge_here, least)  # about what the rest of A + ridge I has for eigenvalues
    U, values = U[:, kept], values[kept] + ridge_here
    factors = 1 / np.sqrt(values) - 1 / math.sqrt(c)

    def root(X: np.ndarray) -> np.ndarray:
        return X / math.sqrt(c) + U @ (factors[:, None] * (U.conj().T @ X))

    # Both U L U* and smallest I are below A: the mean of the two is.
    share = 0.5 if smallest else 1.0
    bounds = (share * (values - ridge_here) + (1 - share) * smallest + ridge_here) / values
    bound = min(float(bounds.min()), ((1 - share) * smallest + ridge_here) / c)
    offset = float(np.log(values).sum()) + (n - len(values)) * math.log(c)
    return _Definite(lambda X: root(shifted(root(X))), offset, bound)


def _by_lanczos(
    A: Operand, ridge: float, most: int | None, tol: float | None, maxiter: int, smallest: float, rank: int, seed: int
) -> LogdetResult:
    n, products = A.shape[0], Products(A, ridge)

    def not_positive(made: int, steps: int, note: str) -> LogdetResult:
        nan, status = math.nan, LowRankStatus.NOT_POSITIVE
        return LogdetResult(nan, nan, (nan, nan), products.count, made, steps, "lanczos", seed, status, note)

    M = _definite(products, ridge, smallest, rank, seed)
    if M is None:
        return not_positive(0, 0, "")
    vectors = Probes(n, seed, _PROBES, paired=A.dtype.kind == "c", stream=_STREAM)
    most = most or (_DEFAULT if tol is None else _MOST)
    planned = most if tol is None else min(_FEWEST, most)
    batch = max(1, _BATCH // (n * min(maxiter, n, _LONG)))
    low, high, steps, capped = np.zeros(0), np.zeros(0), 0, False
    while True:
        run = _Quadratures(M, vectors.columns(len(low), min(len(low) + batch, planned)), low + high, products.eps)
        run.run(maxiter, planned, tol)
        steps, capped = max(steps, run.steps), capped or run.capped
        if run.indefinite:
            return not_positive(len(low), steps, f"A Ritz value is {run.lowest:.2g} times the largest.")
        if smallest and run.lowest < M.smallest - _HERMITIAN * products.eps * run.largest:
            bound = f"the Ritz value {run.lowest:.3g} of the scaled matrix is below its bound {M.smallest:.3g}"
            raise ValueError(f"smallest must be a lower bound of the eigenvalues; got {smallest:g}, but {bound}")
        low, high = np.concatenate([low, run.low]), np.concatenate([high, run.high])
        if len(low) < planned:
            continue
        found = mean_and_error((low + high) / 2, 0.0)
        width = half_width(found.error, found.freedom, 0.95) + float((high - low).mean()) / 2
        if tol is None or width <= tol or len(low) == most:
            break
        planned = min(most, math.ceil(1.5 * planned))
    offset = M.offset + n * products.log_unit
    bracket = (offset + float(low.mean()), offset + float(high.mean()))
    value = (bracket[0] + bracket[1]) / 2
    error = math.hypot(float(found.error), products.eps * math.sqrt(n) * abs(value - n * products.log_unit))
    status = LowRankStatus.ESTIMATED
    if capped:
        status = LowRankStatus.NOT_CONVERGED
    elif tol is not None:
        status = LowRankStatus.TOLERANCE_REACHED if width <= tol else LowRankStatus.PRODUCTS_EXHAUSTED
    return LogdetResult(value, error, bracket, products.count, len(low), steps, "lanczos", seed, status)


class _Quadratures:
    """Lanczos with full reorthogonalization from the columns of X, and the bounds of n x* log(M) x / x*x that it gives."""

    def __init__(self, M: _Definite, X: np.ndarray, known: np.ndarray, eps: float):
        self.M, self.known, self.eps = M, known / 2, eps
        self.n, self.count = X.shape
        self.steps, self.capped, self.indefinite = 0, False, False
        self.lowest, self.largest = math.inf, 0.0
        self.V = np.empty((self.count, 8, self.n), X.dtype)
        self.V[:, 0] = X.T / norms(X.T)[:, None]
        self.alpha, self.beta = np.zeros((self.count, 8)), np.zeros((self.count, 8))
        self.length = np.zeros(self.count, int)  # steps made from each vector
        self.ended = np.zeros(self.count, bool)  # in an invariant subspace: quadrature is exact
        self.low = self.high = np.zeros(self.count)

    def run(self, maxiter: int, planned: int, tol: float | None) -> None:
        most, look = min(maxiter, self.n), _LOOK
        while True:
            self._step()
            last = self.ended.all() or self.steps == most
            if last or self.steps == look:
                look += max(_LOOK, look // 4)
                self._bound()
                if self.indefinite or self._is_close(planned, tol):
                    return
                if last:
                    self.capped = True
                    return

    def _step(self) -> None:
        j, live = self.steps, np.flatnonzero(~self.ended)
        if j + 1 >= self.V.shape[1]:
            self.V = np.concatenate([self.V, np.empty_like(self.V)], axis=1)
            self.alpha, self.beta = (np.concatenate([t, np.zeros_like(t)], axis=1) for t in (self.alpha, self.beta))
        W = self.M.times(np.ascontiguousarray(self.V[live, j].T)).T
        for p, w in zip(live, W, strict=True):
            basis = self.V[p, : j + 1]
            self.alpha[p, j] = np.vdot(basis[j], w).real
            for _ in range(2):
                w = w - (basis.conj() @ w) @ basis
            beta = float(np.linalg.norm(w))
            size = np.abs(self.alpha[p, : j + 1]).max() + self.beta[p, :j].max(initial=0.0)
            self.length[p] = j + 1
            if beta <= 10 * self.eps * size or j + 1 == self.n:
                self.ended[p] = True
            else:
                self.beta[p, j] = beta
                self.V[p, j + 1] = w / beta
        self.steps += 1

    def _bound(self) -> None:
        pairs = [self._gauss(self.alpha[p, : self.length[p]], self.beta[p, : self.length[p] - 1]) for p in range(self.count)]
        self.lowest = min(float(nodes.min()) for nodes, _ in pairs)
        self.largest = max(float(nodes.max()) for nodes, _ in pairs)
        self.indefinite = self.lowest <= 10 * self.eps * self.largest
        if self.indefinite:
            self.lowest /= self.largest or 1.0
            return
        self.high = np.array([self.n * float(weights @ np.log(nodes)) for nodes, weights in pairs])
        self.low = self.high.copy()
        bound = self.M.smallest
        if not 0 < bound <= self.lowest:
            bound = self.lowest / 2
        for p in np.flatnonzero(~self.ended):
            nodes, weights = self._radau(p, bound)
            self.low[p] = self.n * float(weights @ np.log(np.maximum(nodes, bound)))
        self.low = np.minimum(self.low, self.high)

    @staticmethod
    def _gauss(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nodes, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside, check_finite=False)
        return nodes, vectors[0] ** 2

    def _radau(self, p: Any, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """With a node at the bound (Golub 1973)."""
        j = self.length[p]
        alpha, beta = self.alpha[p, :j], self.beta[p, :j]
        pivot = alpha[0] - bound
        for i in range(1, j):
            pivot = alpha[i] - bound - beta[i - 1] ** 2 / pivot
        return self._gauss(np.append(alpha, bound + beta[j - 1] ** 2 / pivot), beta)

    def _is_close(self, planned: int, tol: float | None) -> bool:
        values = np.concatenate([self.known, (self.low + self.high) / 2])
        rounding = 64 * self.eps * self.n * math.log(2 + self.largest / self.lowest)
        if tol is not None:
            target = _SHARE * tol
        else:
            target = _SHARE * float(values.std(ddof=1)) / math.sqrt(planned) if len(values) > 1 else 1e-3 * abs(values[0])
        return float((self.high - self.low).mean()) <= max(target, rounding)
