"""How far a point is from second-order optimality: lower bounds of the smallest eigenvalue that can be trusted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg import eigh, eigh_tridiagonal
from scipy.linalg.blas import dgemv, dnrm2
from scipy.linalg.lapack import dpttrf

from .. import _check
from .._backend import kind, like, on_device, parameters
from .._random import random_words
from ..families import Gaussian

_START_VECTORS = 21  # stream, see docs/definitions.md
_EPS, _TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
_DENSE = 64  # columns up to which LAPACK gets a Hessian that is cheap to form
_DENSE_ARRAY = 512  # the same for an array at hand
_BASIS = 2**27  # numbers in a Krylov basis: 1 GiB
_FIRST = 2**32  # its start vectors, so that no other use of a seed can have shaped the H they are tried on
_WARM = 10.0  # size of a warm start beside the random unit vector


@dataclasses.dataclass(frozen=True, eq=False)
class EigenBound:
    """The smallest eigenvalue of a symmetric matrix, from both sides.

    Attributes
    ----------
    value : float
        Curvature along `vector`, the lowest Ritz value: an upper bound. NaN where a product with H was not finite.
    vector : ndarray (dim,)
        Of norm one.
    error : float
        The smallest eigenvalue is at least value - error; inf where nothing is proved.
    products : int
        Products with H; forming H from an operator counts dim.
    failure : float
        Probability, over the start vector, that the lower bound is wrong; 0 where the whole matrix was seen.
    seed : int
        Replays the run: pass it as `rng`.
    """

    value: float
    vector: np.ndarray
    error: float
    products: int
    failure: float
    seed: int

    @property
    def lower(self) -> float:
        """The lower bound value - error."""
        return self.value - self.error


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What is known of a point: `satisfied` proves approximate second-order optimality.

    Attributes
    ----------
    grad_norm : float
        ||grad F(x)||.
    min_eig : float
        The lowest curvature found, that along `vector`: an upper bound of the smallest eigenvalue of the Hessian.
    min_eig_error : float
        The smallest eigenvalue is at least min_eig - min_eig_error; inf where nothing is proved.
    satisfied : bool
        grad_norm <= gtol and min_eig - min_eig_error >= -htol: both are proved, the second but for the probability `failure`.
        False does not prove the contrary: min_eig < -htol does, and grad_norm > gtol.
    vector : ndarray (dim,)
        Of norm one.
    products : int
        Products with the Hessian; forming it counts dim.
    failure : float
        Probability, over the start vector, that the smallest eigenvalue is below min_eig - min_eig_error.
    seed : int
        Replays the run: pass it as `rng`.
    """

    grad_norm: float
    min_eig: float
    min_eig_error: float
    satisfied: bool
    vector: np.ndarray
    products: int
    failure: float
    seed: int


@dataclasses.dataclass(frozen=True)
class HessianCondition:
    """How a sampled Hessian H_S errs along a step s; unpacks as `quadratic, linear, relative`.

    Attributes
    ----------
    quadratic : float
        ||(H_S - H) s|| / ||s||^2. Cartis, Gould, Toint (2011) ask that it stay bounded, which a sample of fixed size cannot
        do as s tends to zero.
    linear : float
        ||(H_S - H) s|| / ||s||. Tends to zero under the condition of Dennis and Moré (1974); at most eps_H is all that Xu,
        Roosta, Mahoney (2020) ask.
    relative : float
        ||(H_S - H) s|| / ||H s||, which has no unit.
    """

    quadratic: float
    linear: float
    relative: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.quadratic, self.linear, self.relative))


def start_vector(dim: int, k: int, seed: int) -> np.ndarray:
    """The k-th random vector of a seed, uniform on the unit sphere, (dim,)."""
    word = int(random_words(np.array([k], np.uint64), 0, _START_VECTORS, seed)[0, 0])
    u = Gaussian().sample(1, dim, rng=word).to_dense()[0]
    return u / dnrm2(u)


def smallest_eigenvalue(
    H: Any,
    dim: int,
    *,
    tol: float,
    failure: float = 1e-6,
    start: Any = None,
    max_products: int | None = None,
    index: int = 0,
    rng: Any = None,
) -> EigenBound:
    """Bound the smallest eigenvalue of a symmetric matrix from both sides, until it is known to be below or above -tol.

    Lanczos with full reorthogonalisation from a random vector v. The orthonormal polynomials of the process, p_j(H) v being
    its basis, satisfy sum_j p_j(w)^2 <= 1 / (x'v)^2 at an eigenvalue w with unit eigenvector x, and the sum grows from the
    lowest Ritz value leftwards: where it exceeds 1 / delta^2 no eigenvalue lies, unless |x'v| < delta (van Dorsselaer,
    Hochstenbach, van der Vorst 1999, who take one of the p_j). delta is such that this has the probability `failure`. The event
    is the same at every step, so that stopping early costs nothing, and no bound of ||H|| is needed. Without eigenvalues below
    zero the steps are at most log(1.6 sqrt(dim) / failure) / (2 arcsinh(sqrt(tol / lambda_max))) and one, about as many as
    the bound of Kuczyński and Woźniakowski (1992) asks for beforehand.

    Parameters
    ----------
    H : anything with H @ v for v (dim,)
        Symmetric, float64. Arrays up to 512 columns, and up to 64 a Hessian whose `dense_is_cheap`, are given to LAPACK whole.
        Products are with vectors of the host, which a Hessian of a GLM of a device takes; no array of a device.
    dim : int
    tol : float
        Not negative. The run ends as soon as a curvature below -tol is found, or value - error >= -tol is proved.
    failure : float
        In (0, 1).
    start : array (dim,)
        A guess of the eigenvector, to be mixed into the random vector. It must not depend on that one: another call's result
        is fine if `index` or the seed was another. A NumPy array.
    max_products : int
        Default: dim, at most 1000 and what a basis of 1 GiB holds. Where it ends the run, `error` is what is proved by then.
    index : int
        Which of the random vectors of the seed; below 2^32.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `seed` of the result replays the run.

    Returns
    -------
    EigenBound
        Errors contain a margin for rounding, 10 eps ||H|| at least; NaN and infinite products end the run.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments.
    """
    dim = _check.integer(dim, "dim", 1)
    if on_device(H):
        raise TypeError(f"H must be a numpy array or an operator with H @ v for vectors of the host; got {kind(H)}")
    if isinstance(H, np.ndarray) and H.dtype.kind not in "fiub":
        raise TypeError(f"H must be real; got {H.dtype}")
    if not hasattr(H, "__matmul__"):
        raise TypeError(f"H must be multiplied by vectors, as H @ v; got {type(H).__name__}")
    shape = getattr(H, "shape", (dim, dim))
    if tuple(shape) != (dim, dim):
        raise ValueError(f"H must have shape ({dim}, {dim}); got {tuple(shape)}")
    tol, failure = _check.real(tol, "tol"), _probability(failure)
    warm = None if start is None else _check.vector(start, "start", dim)
    index = _check.integer(index, "index", 0, _FIRST - 1)
    most = min(dim, 1000, max(_BASIS // dim, 10))
    if max_products is not None:
        most = min(dim, _check.integer(max_products, "max_products", 1))
    seed = _check.seed(rng)
    if isinstance(H, np.ndarray) and dim <= _DENSE_ARRAY:
        return _dense(H, 0, seed)
    if dim <= _DENSE and most == dim and getattr(H, "dense_is_cheap", False):
        return _dense(H.to_dense(), dim, seed)
    v, log_share = start_vector(dim, _FIRST + index, seed), _log_share(dim, failure)
    if warm is not None and dim > 2 and warm.any():
        # |x'(u + c)| < delta is no likelier than |x'u| < delta for a fixed c: x'u has a symmetric law with one mode.
        v = v + (_WARM / dnrm2(warm)) * warm
        norm = float(dnrm2(v))
        v, log_share = v / norm, log_share - math.log(norm)
    return _lanczos(H, v, tol, most, log_share, failure, seed)


def check_second_order(
    problem: Any,
    x: Any,
    gtol: float,
    htol: float,
    *,
    failure: float = 1e-6,
    max_products: int | None = None,
    rng: Any = None,
) -> Certificate:
    """Test whether ||grad F(x)|| <= gtol and the Hessian has no eigenvalue below -htol.

    Parameters
    ----------
    problem : FiniteSum
        Read in full: `grad(x)` and `hessian(x)`.
    x : array (dim,)
        Of the host, or of the device that the problem is on.
    gtol, htol : float
        Not negative. htol = 0 can be proved where the smallest eigenvalue exceeds rounding, not at a singular Hessian.
    failure : float
        Probability, in (0, 1), with which `satisfied` may be wrong.
    max_products : int
        As for `smallest_eigenvalue`, which see for the method.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `seed` of the result replays the run.

    Returns
    -------
    Certificate
        Not satisfied where the gradient or the Hessian is not finite. `vector` is where the problem is.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, NaN and infinite entries of x among them.
    """
    x, home = _point(problem, x), getattr(problem, "home", None)
    gtol, htol, failure = _check.real(gtol, "gtol"), _check.real(htol, "htol"), _probability(failure)
    seed = _check.seed(rng)
    gradient = np.asarray(problem.grad(x), np.float64)
    if gradient.shape != x.shape:
        raise ValueError(f"problem.grad(x) must have shape {x.shape}; got {gradient.shape}")
    norm = float(dnrm2(gradient))
    if not math.isfinite(norm):
        nothing = like(home, np.full(len(x), math.nan))
        return Certificate(norm, math.nan, math.inf, False, nothing, 0, failure, seed)
    bound = smallest_eigenvalue(problem.hessian(x), len(x), tol=htol, failure=failure, max_products=max_products, rng=seed)
    satisfied = norm <= gtol and bound.lower >= -htol
    vector = like(home, bound.vector)
    return Certificate(norm, bound.value, bound.error, satisfied, vector, bound.products, bound.failure, seed)


def hessian_condition(problem: Any, x: Any, s: Any, idx: Any) -> HessianCondition:
    """Measure the error of the Hessian of the terms `idx` along a step s from x, by the three ratios in use.

    Parameters
    ----------
    problem : FiniteSum
        `hessian(x)` and `hessian(x, idx)` are multiplied by s once each.
    x, s : array (dim,)
        s is not zero. Of the host, or of the device that the problem is on.
    idx : array of int
        The sample, as `problem.hessian` takes it.

    Returns
    -------
    HessianCondition
        NaN where a product is not finite.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, NaN and infinite entries of x and s among them.
    """
    x = _point(problem, x)
    s = _check.vector(parameters(s, getattr(problem, "home", None)), "s", len(x))
    length = float(dnrm2(s))
    if length == 0:
        raise ValueError(f"s must not be zero; got {len(s)} zeros")
    unit = s / length
    full = np.asarray(problem.hessian(x) @ unit, np.float64)
    sampled = np.asarray(problem.hessian(x, idx) @ unit, np.float64)
    size = float(dnrm2(full))
    linear = float(dnrm2(sampled - full)) if math.isfinite(size + dnrm2(sampled)) else math.nan
    return HessianCondition(linear / length, linear, linear / size if size else (math.inf if linear else 0.0))


def _probability(value: Any) -> float:
    failure = _check.real(value, "failure", strict=True)
    if failure >= 1:
        raise ValueError(f"failure must be below 1; got {value}")
    return failure


def _point(problem: Any, x: Any) -> np.ndarray:
    if not (hasattr(problem, "hessian") and hasattr(problem, "grad") and hasattr(problem, "dim")):
        raise TypeError(f"problem must be a FiniteSum, with dim, grad and hessian; got {type(problem).__name__}")
    x = parameters(x, getattr(problem, "home", None))
    return _check.vector(x, "x", np.size(x) if problem.dim is None else problem.dim)


def _log_share(dim: int, failure: float) -> float:
    """log delta such that a coordinate of a random unit vector is below delta in size with at most this probability."""
    if dim == 1:
        return 0.0
    if dim == 2:
        return math.log(math.sin(math.pi / 2 * failure))
    # From dim = 3 on the density of the coordinate is largest at zero.
    density = math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2) - math.log(math.pi) / 2
    return math.log(failure) - math.log(2) - density


def _dense(A: Any, products: int, seed: int) -> EigenBound:
    A = np.asarray(A, np.float64)
    dim = len(A)
    if not np.isfinite(A).all():
        return EigenBound(math.nan, np.full(dim, math.nan), math.inf, products, 0.0, seed)
    value, vector = eigh(A, driver="evr", subset_by_index=[0, 0], check_finite=False)
    size = float(np.abs(A).sum(axis=0).max())
    return EigenBound(float(value[0]), vector[:, 0], _rounding(dim, size), products, 0.0, seed)


def _rounding(k: int, size: float) -> float:
    return max(max(k, 10) * _EPS * size, _TINY)


def _lanczos(H: Any, v: np.ndarray, tol: float, most: int, log_share: float, failure: float, seed: int) -> EigenBound:
    dim, needed = len(v), -2 * log_share
    Q = np.empty((dim, min(most, 32)), order="F")
    Q[:, 0] = v
    alpha, beta = np.empty(most), np.empty(most)
    size = previous = 0.0
    for k in range(1, most + 1):
        w = np.array(H @ Q[:, k - 1], dtype=np.float64)
        if w.shape != (dim,):
            raise ValueError(f"H @ v must have shape ({dim},); got {w.shape}")
        basis, finite = Q[:, :k], math.isfinite(dnrm2(w))
        if finite:
            h = dgemv(1.0, basis, w, trans=1)
            w = dgemv(-1.0, basis, h, beta=1.0, y=w, overwrite_y=1)
            w = dgemv(-1.0, basis, dgemv(1.0, basis, w, trans=1), beta=1.0, y=w, overwrite_y=1)
            alpha[k - 1], residual = h[-1], float(dnrm2(w))
            size = max(size, previous + abs(float(h[-1])) + residual)
        if not finite or not math.isfinite(size):
            return EigenBound(math.nan, np.full(dim, math.nan), math.inf, k, failure, seed)
        noise = _rounding(k, size)
        ended = k == most or residual <= noise
        # A residual below rounding is not known to be smaller than that.
        previous = beta[k - 1] = max(residual, noise)
        level = 2 * noise - tol
        growth = _log_growth(alpha[:k], beta[:k], level)
        if ended or math.isnan(growth) or growth >= needed:
            value, ritz = _lowest(alpha[:k], beta[: k - 1])
            proved = growth >= needed
            if ended or proved or value < -tol - noise:
                break
        if k == Q.shape[1]:
            wider = np.empty((dim, min(2 * k, most)), order="F")
            wider[:, :k] = Q
            Q = wider
        Q[:, k] = w / residual
    vector = dgemv(1.0, basis, ritz)
    vector /= dnrm2(vector)
    if k == dim:
        return EigenBound(value, vector, noise, k, 0.0, seed)
    # A Ritz vector with a smaller component along the start shows that |x'v| < delta.
    void = abs(float(ritz[0])) <= math.exp(log_share)
    error = math.inf if void else _error(alpha[:k], beta[:k], value, needed, noise)
    if proved:
        error = min(error, value - level)
    return EigenBound(value, vector, error + noise, k, failure, seed)


def _lowest(alpha: np.ndarray, beta: np.ndarray) -> tuple[float, np.ndarray]:
    """The lowest eigenpair of the tridiagonal matrix."""
    unit = float(max(np.abs(alpha).max(), np.abs(beta).max(initial=0.0))) or 1.0  # LAPACK squares the entries
    values, vectors = eigh_tridiagonal(alpha / unit, beta / unit, select="i", select_range=(0, 0), check_finite=False)
    return float(values[0]) * unit, vectors[:, 0]


def _log_growth(alpha: np.ndarray, beta: np.ndarray, level: float) -> float:
    """log sum_j p_j(level)^2 for j = 0..k; NaN for a level not below all Ritz values.

    |p_j| is the product of d_i / beta_i for the pivots d_1..d_j of T - level I.
    """
    pivots = alpha - level
    if len(pivots) > 1:
        pivots, _, info = dpttrf(pivots, beta[:-1], overwrite_d=1)
    else:
        info = pivots[0] <= 0
    if info:
        return math.nan
    logs = 2 * np.cumsum(np.log(pivots) - np.log(beta))
    top = max(float(logs.max()), 0.0)
    return top + math.log(math.exp(-top) + float(np.exp(logs - top).sum()))


def _error(alpha: np.ndarray, beta: np.ndarray, value: float, needed: float, noise: float) -> float:
    """How far below the lowest Ritz value an eigenvalue can lie, to one percent from above."""
    low = high = noise
    while not _log_growth(alpha, beta, value - high) >= needed:
        low, high = high, 16 * high
        if not math.isfinite(high):
            return math.inf
    while high > 1.01 * low:
        middle = math.sqrt(low) * math.sqrt(high)
        if _log_growth(alpha, beta, value - middle) >= needed:
            high = middle
        else:
            low = middle
    return high
