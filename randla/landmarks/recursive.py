"""Landmarks of a kernel matrix by recursive ridge leverage sampling, and the Nystrom approximation they give."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .. import _check
from .._random import random_words, uniform
from ..result import listed
from . import _kernel_matrix
from ._dictionary import Dictionary, chunk_rows, eigenvalues, hermitian, oversampling
from ._kernel_matrix import Kernel

_STREAM = 19  # see docs/definitions.md
_BASE = 256  # points that are few enough to be all in the first dictionary
DONE = "The landmarks suffice for the ridge."


class LandmarksWarning(UserWarning):
    """Landmarks that are too few for their ridge, or a ridge below the rounding errors of the kernel."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Landmarks:
    """Chosen points of a kernel matrix K, (n, n), and what can be computed from their kernel values alone.

    Attributes
    ----------
    indices : ndarray (s,), int64
        The chosen rows, ascending, each once.
    weights : ndarray (s,)
        1 / probability of each: sum_s w_s f(i_s) has the expectation sum_i f(i) for every f.
    ridge : float
        The level of the approximation: ||K - F F'||_2 is at most a small multiple of it, F = features(X).
    effective_dimension : float
        Estimate of trace(K (K + ridge I)^-1) from the landmarks.
    points : ndarray or CSR array, (s, d)
        The chosen rows of X; their numbers where the kernel was precomputed.
    scores : ndarray (n,) or None
        Ridge leverage scores l_i = (K (K + ridge I)^-1)_ii that the sampling used, too large by a constant factor rather than
        too small; None for a stream. `leverage` gives better ones.
    seed : int
        Replays the run: pass it as `rng`.
    kernel_evaluations : int
        Entries of K that were computed.
    success : bool
        False where the landmarks are too few for the ridge.
    message : str
    """

    indices: np.ndarray
    weights: np.ndarray
    ridge: float
    effective_dimension: float
    points: Any
    scores: np.ndarray | None
    seed: int
    kernel_evaluations: int
    success: bool
    message: str
    _kernel: Kernel
    _gram: np.ndarray

    @cached_property
    def _dictionary(self) -> Dictionary:
        return Dictionary(self._gram, self.weights, self.ridge, self._kernel.eps)

    def leverage(self, X: Any, *, diagonal: Any = None) -> np.ndarray:
        """Ridge leverage scores (1/ridge)(k_ii - k_iS (K_SS + ridge W^-1)^-1 k_Si) of points, in [0, 1] (Musco, Musco 2017).

        Parameters
        ----------
        X : array or CSR/CSC matrix (m, d)
            Any points of the kind that was given. For a precomputed kernel: (m, n), their kernel values with all n points.
        diagonal : array (m,), optional
            Kernel values of the points with themselves: needed for a precomputed kernel, None for others.

        Returns
        -------
        ndarray (m,), float64

        Raises
        ------
        TypeError, ValueError
            For X or diagonal that do not fit, and where the kernel turns out not to be positive semi-definite.
        """
        checked = self._checked(X)
        if self._precomputed != (diagonal is not None):
            needed = "an array, as the kernel is precomputed" if self._precomputed else "None, as the kernel gives it"
            raise ValueError(f"diagonal must be {needed}; got {type(diagonal).__name__}")
        given = None if diagonal is None else _own_values(diagonal, checked.shape[0])
        out = np.zeros(checked.shape[0])
        for rows, part, block in self._blocks(checked):
            out[rows] = self._dictionary.scores(block, self._kernel.diagonal(part) if given is None else given[rows])
        return out

    def features(self, X: Any) -> np.ndarray:
        """F of shape (m, r) with F F' = K_XS K_SS^+ K_SX, the Nystrom approximation; r <= s is the numerical rank of K_SS.

        Parameters
        ----------
        X : array or CSR/CSC matrix (m, d)
            As in `leverage`.

        Returns
        -------
        ndarray (m, r), float64 or complex128
            Columns in the order of falling eigenvalues of K_SS scaled to unit diagonal.

        Raises
        ------
        TypeError, ValueError
            For X that does not fit.
        """
        checked = self._checked(X)
        root = self._feature_root
        out = np.zeros((checked.shape[0], root.shape[1]), root.dtype)
        if root.size:
            for rows, _, block in self._blocks(checked):
                out[rows] = _kernel_matrix.inner(block, root.conj().T)
        return out

    @property
    def _precomputed(self) -> bool:
        return isinstance(self._kernel, _kernel_matrix.Precomputed)

    def _checked(self, X: Any) -> Any:
        checked = _kernel_matrix.points(X, "X")
        if isinstance(self._kernel, _kernel_matrix.Precomputed):
            width, what = self._kernel.matrix.shape[0], "kernel values with all points"
        else:
            width, what = self.points.shape[1], "like the landmarks"
        if checked.shape[1] != width:
            raise ValueError(f"X must have {width} columns, {what}; got {checked.shape[1]}")
        return checked

    def _blocks(self, X: Any) -> Iterator[tuple[slice, Any, np.ndarray]]:
        """Slices of rows, these rows, and their kernel values with the landmarks in new memory."""
        step = chunk_rows(len(self.weights))
        for start in range(0, X.shape[0], step):
            rows = slice(start, min(start + step, X.shape[0]))
            part = X[rows]
            yield rows, part, _entries(part, self.indices) if self._precomputed else self._kernel.block(part, self.points)

    @cached_property
    def _feature_root(self) -> np.ndarray:
        """T with T T^H = K_SS^+."""
        # Landmarks of very different size would hide each other's directions: the eigenvalues are those of correlations.
        size = 1 / np.sqrt(np.diagonal(self._gram).real)
        if not size.size:
            return np.zeros((0, 0), self._gram.dtype)
        values, vectors = scipy.linalg.eigh(self._gram * size[:, None] * size)
        kept = np.flatnonzero(values > len(size) * self._kernel.eps * values[-1])[::-1]
        return np.ascontiguousarray(size[:, None] * vectors[:, kept] / np.sqrt(values[kept]))

    def __repr__(self) -> str:
        return listed(self, "message", "ridge", "effective_dimension", "kernel_evaluations", "seed", "indices")


def _entries(K: Any, columns: np.ndarray) -> np.ndarray:
    part = K[:, columns]
    dense = part.toarray() if sp.issparse(part) else part
    return np.array(dense, np.result_type(dense, np.float64), order="C")


def _own_values(diagonal: Any, rows: int) -> np.ndarray:
    values = _check.array(diagonal, "diagonal")
    if values.shape != (rows,):
        raise ValueError(f"diagonal must have shape ({rows},), one value per row of X; got {values.shape}")
    _check.finite(values, "diagonal")
    out = np.ascontiguousarray(values.real, np.float64)
    if out.size and out.min() < 0:
        raise ValueError(f"diagonal must not be negative; got {out.min():g}")
    return out


def kernel_landmarks(
    X: Any, k: int | None = None, *, kernel: Any, gamma: Any = None, ridge: Any = None, rng: Any = None
) -> Landmarks:
    """Choose rows of a positive semi-definite kernel matrix K by recursive ridge leverage sampling (Musco, Musco 2017).

    Halves the points at random until few are left, and then goes back up: the points chosen of one half give the scores
    (1/ridge)(k_ii - k_iS (K_SS + ridge W^-1)^-1 k_Si) of all, which are sampled again. With s landmarks this takes 2 n s kernel
    values and 2 n s^2 operations; K is never formed.

    Parameters
    ----------
    X : array or CSR/CSC matrix (n, d)
        Points: real or complex, also memory-mapped. For kernel "precomputed" the matrix K (n, n) itself, or any object with
        `shape` for which X[rows, columns] gives the entries at two broadcast index arrays.
    k : int, optional
        Number of landmarks, or all points with k_ii > 0 where these are fewer: a sample of fixed size, point i being in it
        with probability min(1, c l_i). None, which needs `ridge`: each point is taken with probability
        p_i = min(1, 2 log(2 sum l) l_i), about 2 d log(2 d) points or twice that for an effective dimension d.
    kernel : "linear", "rbf", "laplacian", "precomputed" or callable
        <x, y>; exp(-gamma ||x - y||^2); exp(-gamma ||x - y||_1), where complex coordinates count as two real ones; or a
        function of two matrices of points that gives the (n1, n2) block of their values. An attribute `diag` of it is asked for
        the diagonal.
    gamma : float, optional
        For "rbf" and "laplacian"; 1 / d where it is not given.
    ridge : float, optional
        Level of the approximation, > 0. Where it is not given: the mean (1/r) sum_{i > r} lambda_i of the eigenvalues that a
        rank r leaves, as estimated from the sample; r is the largest for which k landmarks suffice, 4 r log(4 r) <= k.
    rng : None | int | SeedSequence | BitGenerator | Generator (SPEC 7)

    Returns
    -------
    Landmarks

    Raises
    ------
    TypeError
        For unsupported types and dtypes.
    ValueError
        For arguments out of range, kernel values that are NaN or infinite, and kernels seen not to be symmetric and positive
        semi-definite (with the negative value that was found).

    Warns
    -----
    LandmarksWarning
        Where k is too small for the ridge, or the ridge is below the rounding errors of K.
    """
    if isinstance(kernel, str) and kernel == "precomputed":
        matrix = _kernel_matrix.precomputed(X, gamma)
        source: Kernel = _kernel_matrix.Precomputed(matrix)
        X = np.arange(matrix.shape[0])
    else:
        source = _kernel_matrix.make(kernel, gamma)
        X = _kernel_matrix.points(X, "X")
    if k is None and ridge is None:
        raise ValueError("k must be an integer where ridge is not given; got None for both")
    size = None if k is None else _check.integer(k, "k", 1)
    level = None if ridge is None else _check.real(ridge, "ridge", strict=True)
    out = _Recursion(source, X, size, level, _check.seed(rng)).run()
    if not out.success:
        warnings.warn(out.message, LandmarksWarning, stacklevel=2)
    return out


class _Recursion:
    def __init__(self, kernel: Kernel, X: Any, k: int | None, ridge: float | None, seed: int):
        self.kernel, self.X, self.k, self.given, self.seed = kernel, X, k, ridge, seed
        self.diagonal = kernel.diagonal(X)
        self.rank = 1 if k is None else _rank(k)

    def run(self) -> Landmarks:
        levels = self._levels()
        rows = levels[-1][self.diagonal[levels[-1]] > 0]
        weights = np.ones(len(rows))
        for depth in reversed(range(len(levels))):
            level, first = levels[depth], depth == len(levels) - 1
            # Below the first, the dictionary stands for half of the points: its scores are too large, not too small.
            dictionary = self._dictionary(rows, weights, level, 1 if first else 2)
            scores = np.zeros(len(level))
            if first:
                scores[self.diagonal[level] > 0] = dictionary.own_scores()
            else:
                self._score(dictionary, rows, level, scores)
            chosen, weights = self._choose(scores, level, depth)
            rows = level[chosen]
        return self._result(rows, weights, dictionary.ridge, scores)

    def _levels(self) -> list[np.ndarray]:
        """All points, a random half of them, a half of that, and so on."""
        u = uniform(random_words(np.arange(len(self.diagonal)), 0, _STREAM, self.seed)[:, 0])
        levels = [np.arange(len(u))]
        while len(levels[-1]) > max(_BASE, self.k or 0):
            levels.append(np.flatnonzero(u < 2.0 ** -len(levels)))
        return levels

    def _gram(self, rows: np.ndarray) -> np.ndarray:
        points = self.X[rows]
        return hermitian(self.kernel.block(points, points), self.diagonal[rows], self.kernel.eps)

    def _dictionary(self, rows: np.ndarray, weights: np.ndarray, level: np.ndarray, scale: int) -> Dictionary:
        gram = self._gram(rows)
        if self.given is not None:
            return Dictionary(gram, weights, self.given, self.kernel.eps)
        roots = np.sqrt(weights)
        values = eigenvalues(gram * roots[:, None] * roots, self.kernel.eps)
        # A level below the rounding errors of the largest eigenvalue would only find these.
        lowest = self.kernel.eps * max(1, len(rows)) * float(self.diagonal[level].sum())
        tail = float(values[: -self.rank].sum())
        return Dictionary(gram, weights, max(scale * tail / self.rank, lowest), self.kernel.eps)

    def _score(self, dictionary: Dictionary, rows: np.ndarray, level: np.ndarray, out: np.ndarray) -> None:
        landmarks = self.X[rows]
        step = chunk_rows(len(rows))
        for start in range(0, len(level), step):
            part = level[start : start + step]
            block = self.kernel.block(self.X[part], landmarks)
            out[start : start + step] = dictionary.scores(block, self.diagonal[part])

    def _choose(self, scores: np.ndarray, level: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the level, ascending, and 1 / probability of each."""
        word = random_words(level, 1 + depth, _STREAM, self.seed)
        if self.k is None:
            p = np.minimum(1, oversampling(float(scores.sum())) * scores)
            chosen = np.flatnonzero(uniform(word[:, 0]) < p)
        else:
            p = _inclusion(scores, self.k)
            start = uniform(random_words(np.zeros(1, np.int64), 1 + depth, _STREAM, self.seed)[:, 1])[0]
            chosen = _systematic(p, word[:, 0], start)
        return chosen, 1 / p[chosen]

    def _result(self, rows: np.ndarray, weights: np.ndarray, ridge: float, scores: np.ndarray) -> Landmarks:
        dictionary = Dictionary(self._gram(rows), weights, ridge, self.kernel.eps)
        needed = float(scores.sum())
        noise = self.kernel.eps * float(self.diagonal.sum())
        message = DONE
        if self.given is not None and ridge < noise:
            message = below_rounding(ridge, noise)
        elif self.k is not None and self.k < needed:
            message = f"{self.k} landmarks are fewer than the effective dimension for the ridge, about {needed:.3g}."
        return result(rows, dictionary, self.X[rows], scores, self.seed, self.kernel, message)


def below_rounding(ridge: float, noise: float) -> str:
    return f"The ridge {ridge:g} is below the rounding errors of the kernel matrix, {noise:.2g}: scores are too large."


def result(
    rows: np.ndarray, dictionary: Dictionary, points: Any, scores: np.ndarray | None, seed: int, kernel: Kernel, message: str
) -> Landmarks:
    """Landmarks of a finished selection; raises ValueError where their kernel matrix is indefinite."""
    values = eigenvalues(dictionary.weighted, kernel.eps)
    ridge = dictionary.ridge
    return Landmarks(
        indices=rows,
        weights=dictionary.weights,
        ridge=ridge,
        effective_dimension=float(np.sum(values / (values + ridge))) if ridge else 0.0,
        points=points,
        scores=scores,
        seed=seed,
        kernel_evaluations=kernel.evaluations,
        success=message == DONE,
        message=message,
        _kernel=kernel,
        _gram=dictionary.gram,
    )


def _rank(k: int) -> int:
    """Largest r >= 1 with 4 r log(4 r) <= k: k is then 2 d log(2 d) for the effective dimension d = 2 r of the mean tail."""
    r = np.arange(1, k + 1)
    return max(1, int(np.count_nonzero(4 * r * np.log(4 * r) <= k)))


def _inclusion(scores: np.ndarray, k: int) -> np.ndarray:
    """min(1, c scores) with c such that they sum to k, or ones where not more than k scores are positive."""
    if np.count_nonzero(scores) <= k:
        return (scores > 0).astype(np.float64)
    falling = np.sort(scores)[::-1]
    rest = np.cumsum(falling[::-1])[::-1]  # sums of what is left when the first t have probability one
    c = (k - np.arange(k)) / rest[:k]
    certain = int(np.argmax(c * falling[:k] <= 1)) if (c * falling[:k] <= 1).any() else k
    if certain == k:
        return (scores >= falling[k - 1]).astype(np.float64)
    return np.minimum(1, c[certain] * scores)


def _systematic(p: np.ndarray, order: np.ndarray, start: float) -> np.ndarray:
    """Positions, ascending, of a sample whose size is the sum of p, an integer, and which has position i with probability p_i
    (Hartley, Rao 1962: equal steps through the sums of p in random order)."""
    certain = np.flatnonzero(p == 1)
    open_ = np.flatnonzero((p > 0) & (p < 1))
    open_ = open_[np.argsort(order[open_], kind="stable")]
    total = np.cumsum(p[open_])
    count = round(float(total[-1])) if len(open_) else 0
    if not count:
        return certain
    at = np.searchsorted(total * (count / total[-1]), start + np.arange(count), side="right")
    # Steps of one pass every p < 1 at most once, but for rounding.
    step = np.arange(count)
    at = np.minimum(np.maximum.accumulate(at - step) + step, len(open_) - count + step)
    return np.sort(np.concatenate([certain, open_[at]]))
