"""The restricted eigenvalue of a design: `restricted_eigenvalue`."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import blas

from .. import _check
from .._random import random_words
from ..families import Gaussian
from ..lowrank._products import product
from ..result import HasStatus
from .result import LearnWarning

METHODS = ("auto", "exact", "bounds")
_STREAM = 29  # see docs/definitions.md
_EXACT = 10  # features up to which "auto" enumerates: (3^p + 1) / 2 eigenproblems at most
_MOST = 14  # features up to which "exact" does
_BATCH = 4096
_THRESHOLDS = 24
_EPS = float(np.finfo(float).eps)


class RestrictedStatus(enum.Enum):
    """What the numbers are. The value is the sentence shown to users."""

    SMALLEST_EIGENVECTOR = "Exact: the eigenvector of the smallest eigenvalue lies in the cone."
    ENUMERATED = "Exact: the smallest value over all faces of the cone."
    CLOSED = "Exact: the proved lower bound is the value of a vector of the cone."
    BOUNDS = "A proved lower bound, and the value of a vector of the cone."

    @property
    def success(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class RestrictedResult(HasStatus):
    """Bounds of a restricted eigenvalue with what proves them.

    Attributes
    ----------
    lower, upper : float
        RE(k) lies between; up to the rounding of eigenvalues, p eps ||T||.
    exact : bool
        They are equal.
    witness : ndarray (p,)
        A unit vector of the cone whose value is `upper`.
    smallest_eigenvalue : float
        Of T. RE(k) is never below it.
    k : int
    seed : int
        Replays the run: pass it as `rng`.
    status : RestrictedStatus
    message : str
    success : bool
    """

    lower: float
    upper: float
    exact: bool
    witness: np.ndarray
    smallest_eigenvalue: float
    k: int
    seed: int
    status: RestrictedStatus


def restricted_eigenvalue(
    X: Any,
    k: int,
    *,
    method: str = "auto",
    covariance: bool = False,
    starts: int = 64,
    maxiter: int = 200,
    rng: Any = None,
) -> RestrictedResult:
    """RE(k): smallest v'Tv / v'v, T = X'X / m, over v != 0 of which some k entries outweigh the others in 1-norm.

    It decides whether k-sparse coefficients can be found from m samples (Bickel, Ritov, Tsybakov 2009). The cone is that of
    all v with ||v||_1 <= 2 sum of the k largest |v_j|; the problem is NP-hard.

    Parameters
    ----------
    X : array (m, p)
        Real. No column is centred or scaled.
    k : int
        Between 1 and p.
    method : {"auto", "exact", "bounds"}
        The smallest eigenvector settles the matter where it lies in the cone, as always for k >= p / 2. Otherwise "exact"
        (up to 14 features; "auto" up to 10) enumerates: the minimum is the smallest eigenvector of T restricted to
        the support alone, or to the support and a hyperplane with normal in {-1, 1}^support where the constraint is tight.
        "bounds" takes the largest of the smallest eigenvalue and lambda_min(S) - 4 k ||T - S||_max over thresholded S, as
        ||v||_1^2 <= 4 k ||v||^2 in the cone, from below; and a search by projected gradients from above.
    covariance : bool
        X is T itself, symmetric and positive semi-definite.
    starts, maxiter : int
        Vectors and steps of the search.
    rng : as in SPEC 7

    Returns
    -------
    RestrictedResult

    Warns
    -----
    LearnWarning
        Where X given as a covariance has a negative eigenvalue.

    Raises
    ------
    TypeError, ValueError
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = _check.real_array(X, "X")
    if a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"X must have 2 dimensions and at least one row and one column; got shape {a.shape}")
    _check.finite(a, "X")
    p = a.shape[1]
    k = _check.integer(k, "k", 1, p)
    if method == "exact" and p > _MOST:
        raise ValueError(f"X must have at most {_MOST} columns for method 'exact'; got {p}")
    starts, maxiter = _check.integer(starts, "starts", 0, 10**6), _check.integer(maxiter, "maxiter", 0)
    seed = _check.seed(rng)
    T, exponent = _gram(a, covariance)
    values, vectors = scipy.linalg.eigh(T, check_finite=False)
    least = float(values[0])
    if covariance and least < -p * _EPS * values[-1] * 8:
        warnings.warn(
            f"X is not positive semi-definite: its smallest eigenvalue is {np.ldexp(least, exponent):.3g}.",
            LearnWarning,
            stacklevel=2,
        )
    found = _from_eigenspace(values, vectors, k)
    if found is not None:
        status, witness, lower = RestrictedStatus.SMALLEST_EIGENVECTOR, found, least
    elif method == "exact" or (method == "auto" and p <= _EXACT):
        witness = _enumerate(T, k)
        status, lower = RestrictedStatus.ENUMERATED, _value(T, witness)
    else:
        witness = _search(T, vectors, k, starts, maxiter, seed)
        status, lower = RestrictedStatus.BOUNDS, _lower(T, least if covariance else max(least, 0.0), k)
    upper = max(_value(T, witness), lower)
    exact = status is not RestrictedStatus.BOUNDS or upper - lower <= p * _EPS * values[-1]
    if exact and status is RestrictedStatus.BOUNDS:
        status = RestrictedStatus.CLOSED
    with np.errstate(over="ignore"):
        lower, upper, least = (float(np.ldexp(number, exponent)) for number in (upper if exact else lower, upper, least))
    return RestrictedResult(lower, upper, exact, witness, least, k, seed, status)


def _gram(a: np.ndarray, covariance: bool) -> tuple[np.ndarray, int]:
    """T over 2^exponent, which is of order one."""
    shift = int(np.frexp(np.abs(a).max())[1])
    scaled = np.ldexp(a.astype(np.float64), -shift)
    if not covariance:
        T = blas.dsyrk(1.0 / len(a), scaled, trans=1, lower=0)
        return np.triu(T) + np.triu(T, 1).T, 2 * shift
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"X must be square where it is a covariance; got shape {a.shape}")
    if np.abs(scaled - scaled.T).max() > (1e-5 if a.dtype == np.float32 else 1e-12):
        raise ValueError("X must be symmetric where it is a covariance; got entries that differ from their mirror images")
    return (scaled + scaled.T) / 2, shift


def _value(T: np.ndarray, v: np.ndarray) -> float:
    return float(v @ (T @ v)) / float(v @ v)


def _excess(V: np.ndarray, k: int) -> np.ndarray:
    """Of rows: 1-norm outside the k largest entries minus that of these; not positive in the cone."""
    absolute = -np.sort(-np.abs(V), axis=-1)
    return absolute[..., k:].sum(axis=-1) - absolute[..., :k].sum(axis=-1)


def _in_cone(V: np.ndarray, k: int) -> np.ndarray:
    return _excess(V, k) <= 64 * _EPS * np.abs(V).sum(axis=-1)


def _from_eigenspace(values: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray | None:
    """An eigenvector of the smallest eigenvalue that lies in the cone."""
    close = values <= values[0] + 4 * len(values) * _EPS * np.abs(values).max()
    fits = np.flatnonzero(_in_cone(vectors[:, close].T, k))
    return vectors[:, fits[0]] if len(fits) else None


def _enumerate(T: np.ndarray, k: int) -> np.ndarray:
    """The best vector of the cone, over its faces.

    In the inside of a face (a support, with the constraint slack, or tight with given signs) the minimum is a local one on
    the sphere of a linear space, hence the smallest eigenvector there. Where that eigenvalue is multiple the minimum is reached
    on a smaller face too. A support whose own smallest eigenvalue is above the best value needs no look at its signs (Cauchy).
    """
    p = len(T)
    best = np.zeros(p)
    best[np.argmin(T.diagonal())] = 1.0
    least = float(T.diagonal().min())
    for size in range(2, p + 1):
        supports = _subsets(p, size)
        blocks = T[supports[:, :, None], supports[:, None, :]]
        values, vectors = np.linalg.eigh(blocks)
        inside = _in_cone(vectors[:, :, 0], k)
        for i in np.flatnonzero(inside & (values[:, 0] < least)):
            if values[i, 0] < least:
                least, best = float(values[i, 0]), _spread(vectors[i, :, 0], supports[i], p)
        signs = 1.0 - 2.0 * (np.arange(2 ** (size - 1))[:, None] >> np.arange(size) & 1)
        # Bases of the hyperplanes, common to all supports: the last size - 1 columns of a reflection.
        bases = _complements(signs)
        for i in np.flatnonzero(~inside & (values[:, 0] < least)):
            for start in range(0, len(bases), _BATCH):
                Q = bases[start : start + _BATCH]
                inner, found = np.linalg.eigh(Q.transpose(0, 2, 1) @ blocks[i] @ Q)
                vectors_of = np.einsum("sij,sj->si", Q, found[:, :, 0])
                fits = np.flatnonzero(_in_cone(vectors_of, k) & (inner[:, 0] < least))
                if len(fits):
                    j = fits[inner[fits, 0].argmin()]
                    least, best = float(inner[j, 0]), _spread(vectors_of[j], supports[i], p)
    return best / np.linalg.norm(best)


def _subsets(p: int, size: int) -> np.ndarray:
    bits = np.arange(2**p)[:, None] >> np.arange(p) & 1
    return np.nonzero(bits[bits.sum(axis=1) == size])[1].reshape(-1, size)


def _complements(normals: np.ndarray) -> np.ndarray:
    """Orthonormal bases (count, n, n - 1) of the complements of rows of signs."""
    n = normals.shape[1]
    u = normals / np.sqrt(n)
    u[:, 0] += np.sign(u[:, 0])
    reflections = np.eye(n) - 2 * u[:, :, None] * u[:, None, :] / (u * u).sum(axis=1)[:, None, None]
    return reflections[:, :, 1:]


def _spread(values: np.ndarray, support: np.ndarray, p: int) -> np.ndarray:
    out = np.zeros(p)
    out[support] = values
    return out


def _lower(T: np.ndarray, best: float, k: int) -> float:
    """The best of lambda_min(S) - 4 k d, S being T with entries moved by d at most: towards zero, on the diagonal upwards."""
    p = len(T)
    outside = np.abs(T[~np.eye(p, dtype=bool)])
    top = float(outside.max(initial=0.0))
    # No S has an eigenvalue above min T_jj + d, so that larger ones cannot help.
    limit = min(top, float(T.diagonal().min()) / max(4 * k - 1, 1))
    for d in np.linspace(0.0, limit, _THRESHOLDS)[1:] if limit > 0 else ():
        S = np.sign(T) * np.maximum(np.abs(T) - d, 0.0)
        np.fill_diagonal(S, T.diagonal() + d)
        value = scipy.linalg.eigh(S, eigvals_only=True, subset_by_index=(0, 0), check_finite=False)[0]
        rounding = 4 * p * _EPS * float(np.abs(S).sum(axis=1).max())
        best = max(best, float(value) - 4 * k * d - rounding)
    return best


def _search(T: np.ndarray, vectors: np.ndarray, k: int, starts: int, maxiter: int, seed: int) -> np.ndarray:
    """Projected gradients on the sphere from many vectors at once; the best is then polished on its support."""
    p = len(T)
    word = random_words(np.zeros(1, np.uint64), 0, _STREAM, seed)[0, 0]
    drawn = Gaussian().sample(starts, p, rng=int(word)).to_dense() if starts else np.zeros((0, p))
    # Random combinations of the lower half of the eigenvectors, these themselves, and single features.
    low = vectors[:, : max(p // 2, 1)]
    mixed = product(product(drawn, low), low.T)
    V = _project(np.vstack([vectors[:, : min(p, 32)].T, mixed, np.eye(p)[np.argsort(T.diagonal())[:32]]]), k)
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    largest = scipy.linalg.eigh(T, eigvals_only=True, subset_by_index=(p - 1, p - 1), check_finite=False)[0]
    image = product(V, T)
    value = np.vecdot(V, image)
    step = np.full(len(V), 1.0 / max(float(largest), np.finfo(float).tiny))
    for _ in range(maxiter):
        trial = _project(V - step[:, None] * (image - value[:, None] * V), k)
        size = np.linalg.norm(trial, axis=1)
        trial /= np.where(size > 0, size, 1.0)[:, None]
        moved = product(trial, T)
        new = np.vecdot(trial, moved)
        better = (new < value) & (size > 0)
        step = np.where(better, 1.5 * step, 0.5 * step)
        falling = better & (new < value - 1e-10 * np.abs(value))
        V[better], image[better], value[better] = trial[better], moved[better], new[better]
        if not falling.any() and step.max() * largest < 1e-3:
            break
    return _polish(T, V[value.argmin()], k)


def _polish(T: np.ndarray, v: np.ndarray, k: int) -> np.ndarray:
    """The smallest eigenvector of the face that v lies in, if that is in the cone and better."""
    support = np.flatnonzero(v)
    block = T[np.ix_(support, support)]
    u = v[support]
    normal = np.sign(u)
    normal[np.argsort(-np.abs(u), kind="stable")[:k]] *= -1
    trials = [scipy.linalg.eigh(block, subset_by_index=(0, 0), check_finite=False)[1][:, 0]]
    if len(support) > 1:
        Q = _complements(normal[None])[0]
        trials.append(Q @ scipy.linalg.eigh(Q.T @ block @ Q, subset_by_index=(0, 0), check_finite=False)[1][:, 0])
    for trial in trials:
        if _in_cone(trial, k) and _value(block, trial) < _value(T, v):
            v = _spread(trial, support, len(T))
    return v / np.linalg.norm(v)


def _project(V: np.ndarray, k: int) -> np.ndarray:
    """The nearest vectors of the cone: the k largest entries grow by t in modulus, the others shrink by t."""
    absolute = np.abs(V)
    order = np.argsort(-absolute, axis=1, kind="stable")
    ranked = np.take_along_axis(absolute, order, axis=1)
    head, tail = ranked[:, :k], ranked[:, k:]
    if not tail.shape[1]:
        return V
    # sum_j max(tail_j - t, 0) = sum head + k t, where the j largest of the tail remain: t = (C_j - sum head) / (j + k).
    t = (np.cumsum(tail, axis=1) - head.sum(axis=1, keepdims=True)) / (np.arange(1, tail.shape[1] + 1) + k)
    shift = np.maximum(t.max(axis=1, keepdims=True), 0.0)
    # Rounding must leave the vector inside.
    shift *= 1 + 8 * _EPS * V.shape[1]
    ranked = np.concatenate([head + shift, np.maximum(tail - shift, 0.0)], axis=1)
    out = np.empty_like(ranked)
    np.put_along_axis(out, order, ranked, axis=1)
    return np.where(V < 0, -out, out)
