"""Lewis weights of a matrix, and the bounds of lp sensitivities that follow from them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import blas, lapack

from .. import _check
from .._matrix import RowBlocks, argument, wrap
from .._numeric import norms
from .._row_map import RowMap
from ..result import LeverageWarning, listed
from ._irls import Basis, cholesky

METHODS = ("auto", "chebyshev", "contraction")

# Rounding of log leverage, relative to cond(A), and the power below which squares of weighted rows may overflow.
_NOISE, _SMALLEST_POWER = 1e-14, 0.3

# A residual this many times the best one is a run astray; so many safe steps follow, then twice as many.
_ASTRAY, _CALM = 100.0, 20

_TINY = float(np.finfo(np.float64).tiny)


@dataclasses.dataclass(frozen=True, repr=False)
class LewisResult:
    """Lewis weights with their evidence.

    Attributes
    ----------
    weights : ndarray (m,)
        float64, in [0, 1]; zero for zero rows. They sum to the rank.
    residual : float
        max |log w - log F(w)| over the rows that are not zero, F(w)_i = (a_i (A' W^(1-2/p) A)^-1 a_i')^(p/2); p/2 times
        |log(sum w / rank)| where that is more. NaN, as the weights are, where A is too close to the smallest numbers.
    rank : int
        Numerical rank of A.
    method : str
        "chebyshev" or "contraction".
    iterations, passes : int
        Weighted leverage computations; reads of A.
    seed : int
        Replays the run: pass it as `rng`.
    history : list of dict
        One entry per iteration: iteration, residual.
    """

    weights: np.ndarray
    residual: float
    rank: int
    method: str
    iterations: int
    passes: int
    seed: int
    history: list[dict[str, Any]]

    def __repr__(self) -> str:
        return listed(self, "method", "residual", "rank", "iterations", "passes", "seed", "weights")


def lewis_weights(
    A: Any,
    p: float,
    *,
    method: str = "auto",
    tol: float = 1e-8,
    maxiter: int = 1000,
    rng: Any = None,
    full_output: bool = False,
) -> Any:
    """lp Lewis weights of the rows of A: the solution of w_i = (a_i (A' W^(1-2/p) A)^-1 a_i')^(p/2), W = diag(w).

    Sampling rows with probabilities proportional to them keeps ||A x||_p for all x (Lewis 1978; Cohen, Peng 2015). They sum to
    the rank of A, do not change when A is multiplied by an invertible matrix from the right, and are the leverage scores for
    p = 2. Every iteration computes the leverage of the rows of W^(1/2-1/p) A in the basis found so far and sums up the Gram
    matrix for the next one, in two passes over A (one where A is ill-conditioned); nothing of the size of A is stored.

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix or RowBlocks
        float32, float64, complex64 or complex128 (integers are converted to float64); any strides; never copied.
    p : float
        Positive, finite.
    method : str
        "chebyshev" (also "auto"): Chebyshev's semi-iteration (Golub, Varga 1961) on log w. The linearized map has its spectrum
        in known bounds, between 1 and 2/p: the residual falls by about (|sqrt(p) - sqrt(2)| / (sqrt(p) + sqrt(2))) per step.
        Where steps lead away, as may be far from p = 2, they are taken back and slower ones go before new ones.
        "contraction": w <- F(w), for p < 4, where it contracts max |log w - log w*| by |p/2 - 1| in every step (Cohen, Peng
        2015); up to ten times slower.
    tol : float
        max |log w - log F(w)| to reach.
    maxiter : int
    rng : as in SPEC 7
        For the sketch that gives the first basis; weights agree to rounding for all seeds.
    full_output : bool
        Return a LewisResult.

    Returns
    -------
    ndarray (m,) of float64, or LewisResult

    Warns
    -----
    LeverageWarning
        Where the residual is above tol.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries.
    """
    a = argument(A)
    if not (isinstance(a, np.ndarray | RowBlocks) or sp.issparse(a)):
        raise TypeError(f"A must have rows to read: an array, a sparse matrix or RowBlocks; got {type(A).__name__}")
    p = _check.real(p, "p", strict=True)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    method = "chebyshev" if method == "auto" else method
    if method == "contraction" and p >= 4:
        raise ValueError(f"p must be less than 4 for method 'contraction'; got {p:g}")
    tol = _check.real(tol, "tol", strict=True)
    maxiter = _check.integer(maxiter, "maxiter", 1)
    seed = _check.seed(rng)
    m, n = a.shape
    basis = Basis(a, seed) if m and n else None
    if basis is None or not basis.rank:
        result = LewisResult(np.zeros(m), 0.0, 0, method, 0, 0 if basis is None else basis.passes, seed, [])
    else:
        result = _iterate(basis, p, method, tol, maxiter, seed)
    if not result.residual <= tol:
        warnings.warn(
            f"The Lewis weights have a residual of {result.residual:.1e} after {result.iterations} iterations, above {tol:g}.",
            LeverageWarning,
            stacklevel=2,
        )
    return result if full_output else result.weights


def lp_sensitivities(A: Any, p: float, *, weights: Any = None, rng: Any = None) -> np.ndarray:
    """Upper bounds of the lp sensitivities of the rows of A, max over x of |a_i x|^p / ||A x||_p^p.

    The bound is min(1, r^max(0, p/2 - 1) w_i) with the Lewis weights w and the rank r of A (Cohen, Peng 2015; for p > 2
    Musco, Musco, Woodruff, Yasuda 2022).

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix or RowBlocks
    p : float
        Positive, finite.
    weights : array (m,)
        Lewis weights where they are known; then A is not read.
    rng : as in SPEC 7

    Returns
    -------
    ndarray (m,) of float64

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries.
    """
    p = _check.real(p, "p", strict=True)
    w = lewis_weights(A, p, rng=rng) if weights is None else _check.weights(weights, argument(A).shape[0])
    total = float(w.sum())
    rank = max(round(total), 1) if math.isfinite(total) else 1
    return np.minimum(1.0, rank ** max(0.0, p / 2 - 1) * w)


def _iterate(basis: Basis, p: float, method: str, tol: float, maxiter: int, seed: int) -> LewisResult:
    """Solve log sigma(v) = v for v = log w, sigma being the leverage scores of diag(w)^(1/2 - 1/p) A."""
    iteration = _Iteration(basis, p, tol)
    steps = _chebyshev_steps(p) if method == "chebyshev" else _simple_steps(p / 2)
    history: list[dict[str, Any]] = []
    best, state, since, calm = math.inf, iteration.state, 0, _CALM
    patience = 20 + 4 * math.sqrt(max(p / 2, 2 / p))
    while True:
        at = iteration.state
        momentum, length = next(steps)
        residual = iteration.advance(momentum, length)
        history.append({"iteration": len(history) + 1, "residual": residual})
        if residual < best:
            if best == math.inf:
                kept = iteration.kept.copy()
            best, state, since = residual, at, 0
        since += 1
        if residual <= tol or len(history) == maxiter or not math.isfinite(best):
            break
        if method == "chebyshev" and (not residual <= _ASTRAY * best or since > patience):
            # The bounds are those of the linearized map: far from the solution its steps may lead away.
            iteration.state, since = state, 0
            steps, calm = itertools.chain(itertools.islice(_simple_steps(min(p / 2, 1.0)), calm), _chebyshev_steps(p)), 2 * calm
    rank = basis.rank // basis.matrix.copies
    if math.isfinite(best):
        weights = np.where(kept, np.minimum(np.exp(state[0]), 1.0), 0.0)
        # What rounding made of the basis shows in the sum, which no residual in that basis does.
        best = max(best, p / 2 * abs(math.log(max(float(weights.sum()), _TINY) / rank)))
    else:
        weights, best = np.full(len(iteration.v), math.nan), math.nan
    return LewisResult(weights, best, rank, method, len(history), basis.passes, seed, history)


def _simple_steps(length: float) -> Any:
    while True:
        yield 0.0, length


def _chebyshev_steps(p: float) -> Any:
    """Factors of the last change and of the residual for a spectrum between 1 and 2/p (Golub, Varga 1961).

    With P the projector on the range of W^(1/2-1/p) A, the derivative of v - log sigma(v) is (2/p) I + (1 - 2/p) M,
    M = diag(sigma)^-1 (P o P); M is stochastic and similar to a positive semidefinite matrix.
    """
    centre, radius = (1 + 2 / p) / 2, abs(1 - 2 / p) / 2
    yield 0.0, 1 / centre
    factor = radius / centre
    while True:
        # rho_{k+1} = 1 / (2 centre / radius - rho_k), multiplied out so that radius = 0 needs no exception.
        inverse = 2 * centre - radius * factor
        following = radius / inverse
        yield factor * following, 2 / inverse
        factor = following


class _Iteration:
    """v = log w, and C (r, r) such that the rows of U C, weighted by exp(alpha v - shift), have the Gram matrix I."""

    def __init__(self, basis: Basis, p: float, tol: float):
        self.basis, self.p, self.alpha = basis, p, 1 - 2 / p
        self.native, self.missing = p >= _SMALLEST_POWER and _NOISE * max(p, 1) * basis.factor.cond <= tol, 0.0
        m, r = basis.matrix.shape[0] // basis.matrix.copies, basis.rank
        start = math.log(r / basis.matrix.copies / m)
        self.v, self.change = np.full(m, start), np.zeros(m)
        self.kept = np.zeros(m, bool)
        self.C, self.shift = np.asfortranarray(np.eye(r)), self.alpha * start

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray, float]:
        """What `advance` starts from, but for its momentum; it changes nothing of it in place."""
        return self.v, self.C, self.shift

    @state.setter
    def state(self, value: tuple[np.ndarray, np.ndarray, float]) -> None:
        self.v, self.C, self.shift = value
        self.change[:] = 0

    def advance(self, momentum: float, length: float) -> float:
        """Move v; the residual max |log w - log F(w)| before that. NaN where numbers did not suffice."""
        self.v, self.missing = self.v.copy(), 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            gram = self._by_kernels(momentum, length) if self.native else self._by_blocks(momentum, length)
            self.C = blas.dtrmm(1.0, lapack.dtrtri(cholesky(gram))[0], self.C, side=1)
        # Entries of order one: for small p the weights span more than the exponents of floating-point numbers.
        unit = float(np.abs(self.C).max(initial=0.0)) or 1.0
        self.C /= unit
        self.shift -= 2 * math.log(unit)
        return self.p / 2 * self.missing

    def _by_kernels(self, momentum: float, length: float) -> np.ndarray:
        """Through the rows of A (N C), in two passes over A; where cond(A) is moderate, as they are rounded anew every time."""
        basis = self.basis
        mapping = RowMap(np.ascontiguousarray(blas.dgemm(1.0, basis.map.T, self.C)), basis.map.scale, basis.map.upper)
        roots = self._move(slice(None), np.sqrt(basis.matrix.row_norms(mapping)), momentum, length)
        basis.weighted_passes += 1
        return wrap(basis.a, roots**2).gram(mapping)

    def _by_blocks(self, momentum: float, length: float) -> np.ndarray:
        """Through the rows of (A N) C, whose rounding of A N is always the same; in one pass."""
        copies, gram = self.basis.matrix.copies, np.zeros((self.basis.rank,) * 2, order="F")
        for i0, i1, columns in self.basis.blocks():
            rows = blas.dtrmm(1.0, self.C, columns, trans_a=1, overwrite_b=1).T
            size = norms(rows)
            if copies == 2:
                size = np.hypot(*size.reshape(2, -1)) / math.sqrt(2)
            rows *= np.tile(self._move(slice(i0, i1), size, momentum, length), copies)[:, None]
            gram = blas.dsyrk(1.0, rows.T, beta=1.0, c=gram, overwrite_c=1)
        return gram

    def _move(self, rows: slice, size: np.ndarray, momentum: float, length: float) -> np.ndarray:
        """Move v for these rows of U C, given their norms; the roots of their next weights."""
        v, change, kept, alpha = self.v[rows], self.change[rows], self.kept[rows], self.alpha
        kept[:] = size > 0
        # log leverage = log |row|^2 + alpha v - shift, of which v is the fixed point.
        missing = 2 * np.log(size, where=kept, out=np.zeros_like(size)) - self.shift + (alpha - 1) * v
        missing[~kept] = 0
        largest = float(np.abs(missing).max(initial=0.0))
        self.missing = max(self.missing, largest) if np.isfinite(size).all() and largest < math.inf else math.nan
        change *= momentum
        change += length * missing
        v += change
        return np.exp((alpha * v - self.shift) / 2, where=kept, out=np.zeros_like(v))
