"""Low-rank initialization of a layer: `spectral_init`, `gspectral_init`, and the loss that both are judged by."""

from __future__ import annotations

import dataclasses
import enum
import time
import warnings
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import blas

from .. import _check
from .._numeric import norms
from .._random import random_words
from ..families import Gaussian
from ..lowrank._products import product
from ..lowrank.svd import svd
from ..result import HasStatus
from ._activations import MOST_NODES, Activation, Quadrature, activation_of
from .result import LearnWarning

_STREAM = 27  # see docs/definitions.md
_SPREAD = 1e-4  # singular values below this, relatively, need more than the eigenvalues of W'W
_LARGE = 2000  # smaller sides beyond this: randomized
_PRODUCTS = 16  # which bring the loss within 1e-6 of the smallest even for a Gaussian matrix
_RESOLVED = 0.01  # change of the relative loss with twice the nodes that a kink or a step may cause
_EPS = float(np.finfo(float).eps)


class InitializationStatus(enum.Enum):
    """How an initialization ended. The value is the sentence shown to users."""

    EXACT = "The rank suffices for W itself."
    SPECTRAL = "The truncated singular value decomposition, which is the best of its rank for a linear activation."
    CONVERGED = "The gradient on the manifold of subspaces is as small as requested."
    ROUNDING = "Further steps change the loss by rounding only."
    ITERATION_LIMIT = "The iteration limit was reached; the loss never rose, and more steps would lower it somewhat."
    UNRESOLVED = "The quadrature does not resolve the activation at the norms of the rows: neither loss is to be trusted."

    @property
    def success(self) -> bool:
        return self not in (InitializationStatus.ITERATION_LIMIT, InitializationStatus.UNRESOLVED)


@dataclasses.dataclass(frozen=True)
class InitializationInfo(HasStatus):
    """Evidence of a low-rank initialization.

    Attributes
    ----------
    loss, spectral_loss : float
        E ||s(W x) - s(U V' x)||^2 over x ~ N(0, I) of the factors returned, and of those of the truncated SVD.
    energy : float
        E ||s(W x)||^2.
    relative_loss, relative_spectral_loss : float
        Over the energy; right even where that leaves the range of float64.
    stationarity : float
        ||(I - P) G||_F / ||G||_F for the gradient G of the loss by an orthonormal basis of the rows, P the projection on them.
    quadrature_error : float
        For a function given as activation: change of the relative loss when the nodes are doubled; else zero.
    activation : str
    rank : int
    iterations : int
        Evaluations of the loss in the run that won.
    start : int
        Zero where that began from the truncated SVD, otherwise the number of the random start.
    seed : int
        Replays the run: pass it as `rng`.
    status : InitializationStatus
    message : str
    success : bool
    history : list of dict
        One entry per step that was taken: iteration, time (seconds), relative_loss, stationarity.
    """

    relative_loss: float
    relative_spectral_loss: float
    energy: float
    stationarity: float
    quadrature_error: float
    activation: str
    rank: int
    iterations: int
    start: int
    seed: int
    status: InitializationStatus
    history: list[dict[str, Any]] = dataclasses.field(repr=False)

    @property
    def loss(self) -> float:
        return self.relative_loss * self.energy if self.relative_loss else 0.0

    @property
    def spectral_loss(self) -> float:
        return self.relative_spectral_loss * self.energy if self.relative_spectral_loss else 0.0


def spectral_init(W: Any, rank: int, *, rng: Any = None) -> tuple[np.ndarray, np.ndarray, InitializationInfo]:
    """Factors of the best approximation U V' of W of a rank: from W = P S Q', U = P sqrt(S) and V = Q sqrt(S).

    Parameters
    ----------
    W : array (m, n)
        Real: float32 or float64; integers are converted to float64.
    rank : int
        At most min(m, n).
    rng : as in SPEC 7
        Matters only beyond 2,000 rows and columns, where the decomposition is randomized (block Krylov, 18 passes).

    Returns
    -------
    U : ndarray (m, rank)
    V : ndarray (n, rank)
    info : InitializationInfo
        For the linear activation, whose loss is ||W - U V'||_F^2.

    Raises
    ------
    TypeError, ValueError
    """
    return gspectral_init(W, rank, "linear", rng=rng)


def gspectral_init(
    W: Any,
    rank: int,
    activation: Any = "relu",
    *,
    slope: float = 0.01,
    maxiter: int = 500,
    tol: float = 1e-4,
    starts: int = 0,
    rng: Any = None,
) -> tuple[np.ndarray, np.ndarray, InitializationInfo]:
    """Factors U V' of a rank whose layer s(U V' x) is close to s(W x): minimizes E ||s(W x) - s(U V' x)||^2, x ~ N(0, I).

    For a subspace of rows the best row in it has a closed form (h(p) = (sqrt(1 - p^2) + p (pi - arccos p)) / pi for ReLU, p the
    cosine between row and subspace), and what remains to maximize is convex in an orthonormal basis of the subspace. So the
    generalized power method (Journée, Nesterov, Richtárik, Sepulchre 2010) never lowers it; steps are extrapolated, and taken
    back where that lowers it. It begins at the truncated SVD: the loss is never above that of `spectral_init`. That it is the
    smallest of all is not proved; random `starts` rarely find a better one.

    Parameters
    ----------
    W : array (m, n)
        Real: float32 or float64; integers are converted to float64. Rows are units.
    rank : int
        At most min(m, n).
    activation : {"relu", "leaky_relu", "erf", "linear"} or callable
        A function maps an array to one of its shape. For it the expectation is found by Gauss-Hermite quadrature with 128
        nodes, or 256 where these change the loss by more than a hundredth of the energy; rows of the factors may point against
        those of W, and convexity is not known: steps are shortened until they do not lower what is maximized.
    slope : float
        Of "leaky_relu" for negative numbers.
    maxiter : int
        Evaluations of the loss for each start.
    tol : float
        The stationarity to reach; the relative loss is then off by about its square.
    starts : int
        Random subspaces to begin from, besides that of the truncated SVD.
    rng : as in SPEC 7

    Returns
    -------
    U : ndarray (m, rank)
    V : ndarray (n, rank)
        With W close to U V' and U'U = V'V diagonal, in the dtype of W.
    info : InitializationInfo

    Warns
    -----
    LearnWarning
        Where the iteration limit was reached, or 256 nodes do not resolve the activation.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, and for an activation that gives NaN or infinity.
    """
    w = _matrix(W, "W")
    rank = _check.integer(rank, "rank", 1, min(w.shape))
    act = activation_of(activation, slope)
    maxiter = _check.integer(maxiter, "maxiter", 1)
    tol = _check.real(tol, "tol")
    starts = _check.integer(starts, "starts", 0, 1000)
    seed = _check.seed(rng)
    while True:
        U, V, info = _initialized(w, rank, act, maxiter, tol, starts, seed)
        if info.quadrature_error <= _RESOLVED or not isinstance(act, Quadrature):
            break
        if act.nodes >= MOST_NODES:
            info = dataclasses.replace(info, status=InitializationStatus.UNRESOLVED)
            break
        act = Quadrature(act.function, 2 * act.nodes)
    if not info.success:
        limit = info.status is InitializationStatus.ITERATION_LIMIT
        number = f"Stationarity {info.stationarity:.1e}." if limit else f"Quadrature error {info.quadrature_error:.1e}."
        warnings.warn(f"{info.message} {number}", LearnWarning, stacklevel=2)
    return U, V, info


def activation_loss(W: Any, Y: Any, activation: Any = "relu", *, slope: float = 0.01) -> float:
    """E ||s(W x) - s(Y x)||^2 over x ~ N(0, I), by closed form or quadrature.

    Parameters
    ----------
    W, Y : array (m, n)
        Real, of one shape.
    activation, slope : as for `gspectral_init`

    Warns
    -----
    LearnWarning
        Where quadrature does not resolve a function given as activation.

    Raises
    ------
    TypeError, ValueError
    """
    w, y = _matrix(W, "W"), _matrix(Y, "Y")
    if w.shape != y.shape:
        raise ValueError(f"Y must have the shape of W, {w.shape}; got {y.shape}")
    act = activation_of(activation, slope)
    exponent = int(np.frexp(max(np.abs(w).max(), np.abs(y).max()))[1]) // 2 * 2 if act.homogeneous else 0
    scaled, other = (np.ldexp(part.astype(np.float64), -exponent) for part in (w, y))
    layer = _Layer(scaled, exponent, act)
    total = layer.losses(other).sum()
    while isinstance(act, Quadrature):
        act = Quadrature(act.function, 2 * act.nodes)
        layer = _Layer(scaled, exponent, act)
        finer = layer.losses(other).sum()
        change = abs(finer - total) / (layer.energy or 1.0)
        if change <= _RESOLVED:
            break
        total = finer
        if act.nodes > MOST_NODES:
            warning = f"{InitializationStatus.UNRESOLVED.value} Quadrature error {change:.1e} of the energy."
            warnings.warn(warning, LearnWarning, stacklevel=2)
            break
    with np.errstate(over="ignore"):
        return float(np.ldexp(total, 2 * exponent))


class _Layer:
    """The rows of W, which is `scaled` times 2^exponent, and the gain of a subspace."""

    def __init__(self, scaled: np.ndarray, exponent: int, act: Activation):
        self.scaled, self.act, self.exponent = scaled, act, exponent
        lengths = norms(scaled)
        self.unit = _unit(scaled, lengths)
        with np.errstate(over="ignore"):
            self.norms = lengths if act.homogeneous else np.ldexp(lengths, exponent)
        if not np.isfinite(self.norms).all():
            raise ValueError("W must have rows whose norms are finite; got overflow")
        self.energy = float(act.energy(self.norms).sum())

    def evaluate(self, V: np.ndarray, near: np.ndarray | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """The gain of the subspace, its gradient by V, and the norms of its best rows."""
        Z = product(self.unit, V)
        p = np.minimum(norms(Z), 1.0)
        best = self.act.best(self.norms, p, near)
        # Where p is zero the kink of the gain has the subgradient zero.
        weight = np.divide(best.slope, p, out=np.zeros_like(p), where=p > 0)
        return float(best.gain.sum()), product(self.unit.T, weight[:, None] * Z), best.norm

    def factors(self, V: np.ndarray, near: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Balanced factors of the best rows in the subspace, in the units of `scaled`."""
        Z = product(self.unit, V)
        p = np.minimum(norms(Z), 1.0)
        norm = self.act.best(self.norms, p, near).norm
        if not self.act.homogeneous:
            norm = np.ldexp(norm, -self.exponent)
        direction = np.divide(Z, p[:, None], out=np.zeros_like(Z), where=p[:, None] > 0)
        direction[p == 0, 0] = 1.0  # any direction is as good as another
        return _balanced(norm[:, None] * direction, V, dtype)

    def losses(self, Y: np.ndarray) -> np.ndarray:
        """Of every unit, for Y in the units of `scaled`."""
        lengths = norms(Y)
        unit = _unit(Y, lengths)
        # arccos would lose half the digits of small angles (Kahan 2006).
        angle = 2 * np.arctan2(norms(self.unit - unit), norms(self.unit + unit))
        angle = np.where((lengths == 0) | (self.norms == 0), 0.0, angle)
        with np.errstate(over="ignore"):
            return self.act.loss(self.norms, lengths if self.act.homogeneous else np.ldexp(lengths, self.exponent), angle)

    def relative_loss(self, U: np.ndarray, V: np.ndarray) -> float:
        return float(self.losses(product(U.astype(np.float64), V.T.astype(np.float64))).sum()) / (self.energy or 1.0)


@dataclasses.dataclass(frozen=True)
class _Run:
    basis: np.ndarray
    norms: np.ndarray
    gain: float
    history: list[dict[str, Any]]
    iterations: int
    status: InitializationStatus


def _initialized(
    w: np.ndarray, rank: int, act: Activation, maxiter: int, tol: float, starts: int, seed: int
) -> tuple[np.ndarray, np.ndarray, InitializationInfo]:
    # Powers of two, so that nothing is rounded: at order one nothing overflows.
    exponent = int(np.frexp(np.abs(w).max())[1]) // 2 * 2
    layer = _Layer(np.ldexp(w.astype(np.float64), -exponent), exponent, act)
    basis = _leading(layer.scaled, rank, seed)
    spectral = _balanced(product(layer.scaled, basis), basis, w.dtype)
    reference = layer.relative_loss(*spectral)
    if rank == min(w.shape) or act.name == "linear":
        status = InitializationStatus.EXACT if rank == min(w.shape) else InitializationStatus.SPECTRAL
        run = _Run(basis, layer.norms, 0.0, [], 0, status)
        return _result(layer, spectral, reference, reference, run, rank, 0, seed)
    runs = [_ascend(layer, basis, maxiter, tol)]
    words = random_words(np.arange(1, starts + 1), 0, _STREAM, seed)[:, 0]
    for word in words:
        draw = Gaussian().sample(rank, w.shape[1], rng=int(word)).to_dense().T
        runs.append(_ascend(layer, scipy.linalg.qr(draw, mode="economic")[0], maxiter, tol))
    start = int(np.argmax([run.gain for run in runs]))
    run = runs[start]
    factors = layer.factors(run.basis, run.norms, w.dtype)
    reached = layer.relative_loss(*factors)
    if not reached <= reference:
        factors, reached = spectral, reference
    return _result(layer, factors, reached, reference, run, rank, start, seed)


def _ascend(layer: _Layer, V: np.ndarray, maxiter: int, tol: float) -> _Run:
    """Generalized power method with extrapolation: the gain of the points taken never falls."""
    began = time.perf_counter()
    gain, gradient, lengths = layer.evaluate(V)
    previous, momentum, shift, taken = V, 0, 0.0, True
    history: list[dict[str, Any]] = []
    status = InitializationStatus.ITERATION_LIMIT
    for iteration in range(1, maxiter + 1):
        if taken:
            size = float(np.linalg.norm(gradient))
            stationarity = float(np.linalg.norm(gradient - product(V, product(V.T, gradient)))) / (size or 1.0)
            elapsed = time.perf_counter() - began
            relative_loss = 1 - gain / (layer.energy or 1.0)
            history.append(
                {"iteration": iteration, "time": elapsed, "relative_loss": relative_loss, "stationarity": stationarity}
            )
        if stationarity <= tol:
            status = InitializationStatus.CONVERGED
            break
        target = _polar(gradient + shift * V)
        tried = _polar(target + momentum / (momentum + 3) * (target - previous)) if momentum else target
        new_gain, new_gradient, new_lengths = layer.evaluate(tried, lengths)
        taken = new_gain > gain
        if taken:
            V, gain, gradient, lengths, previous = tried, new_gain, new_gradient, new_lengths, target
            momentum += 1
        elif momentum:
            previous, momentum = target, 0
        elif not layer.act.convex and shift < size / _EPS**0.5:
            # Gain + shift ||V||^2 / 2 is convex once the shift is large enough, and has the same maximizers.
            shift = max(2 * shift, 0.01 * size)
        else:
            status = InitializationStatus.ROUNDING
            break
    return _Run(V, lengths, gain, history, iteration, status)


def _polar(M: np.ndarray) -> np.ndarray:
    """The matrix with orthonormal columns that is nearest to M."""
    P, _, Q = scipy.linalg.svd(M, full_matrices=False, check_finite=False)
    return product(P, Q)


def _leading(w: np.ndarray, rank: int, seed: int) -> np.ndarray:
    """Orthonormal basis of the leading right singular vectors."""
    m, n = w.shape
    small = min(m, n)
    if small > _LARGE and rank < small // 10:
        return np.ascontiguousarray(svd(w, rank, n_iter=_PRODUCTS, rng=seed).Vh.T)
    if rank < small // 4:
        # A tenth of the time of an SVD, and as good for singular values of one order of magnitude.
        wide = m < n
        gram = blas.dsyrk(1.0, w if wide else w.T, lower=0)
        values, vectors = scipy.linalg.eigh(gram, lower=False, subset_by_index=(small - rank, small - 1), check_finite=False)
        if values[0] > _SPREAD**2 * values[-1]:
            return scipy.linalg.qr(product(w.T, vectors), mode="economic", check_finite=False)[0] if wide else vectors
    return np.ascontiguousarray(scipy.linalg.svd(w, full_matrices=False, check_finite=False)[2][:rank].T)


def _balanced(C: np.ndarray, V: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Factors of C V', V orthonormal, with equal Gram matrices, which are diagonal."""
    P, s, Q = scipy.linalg.svd(C, full_matrices=False, check_finite=False)
    signs = np.where(P[np.abs(P).argmax(axis=0), np.arange(len(s))] < 0, -1.0, 1.0)
    root = np.sqrt(s) * signs
    return (P * root).astype(dtype), (product(V, Q.T) * root).astype(dtype)


def _unit(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    out = np.zeros_like(rows)
    np.divide(rows, lengths[:, None], out=out, where=lengths[:, None] > 0)
    # Norms of the smallest numbers are rounded coarsely, and rows over them are not of unit length.
    again = norms(out)
    return np.divide(out, again[:, None], out=out, where=again[:, None] > 0)


def _matrix(value: Any, name: str) -> np.ndarray:
    a = _check.real_array(value, name)
    if a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"{name} must have 2 dimensions and at least one row and one column; got shape {a.shape}")
    _check.finite(a, name)
    return a


def _result(
    layer: _Layer,
    factors: tuple[np.ndarray, np.ndarray],
    reached: float,
    reference: float,
    run: _Run,
    rank: int,
    start: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, InitializationInfo]:
    U, V = (np.ldexp(factor, layer.exponent // 2) for factor in factors)
    error = 0.0
    if isinstance(layer.act, Quadrature):
        finer = _Layer(layer.scaled, layer.exponent, Quadrature(layer.act.function, 2 * layer.act.nodes))
        error = abs(finer.relative_loss(*factors) - reached)
    with np.errstate(over="ignore"):
        energy = float(np.ldexp(layer.energy, 2 * layer.exponent)) if layer.act.homogeneous else layer.energy
    stationarity = run.history[-1]["stationarity"] if run.history else 0.0
    info = InitializationInfo(
        reached,
        reference,
        energy,
        stationarity,
        error,
        layer.act.name,
        rank,
        run.iterations,
        start,
        seed,
        run.status,
        run.history,
    )
    return U, V, info
