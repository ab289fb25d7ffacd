"""Landmarks of a kernel matrix whose points arrive in chunks: one pass, a bounded dictionary."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._random import random_words, uniform
from . import _kernel_matrix
from ._dictionary import Dictionary, hermitian, oversampling
from .recursive import DONE, Landmarks, LandmarksWarning, below_rounding, result

_STREAM = 20  # see docs/definitions.md
_BLOCK = 512  # rows that are judged together, whatever chunks they came in


@dataclasses.dataclass(frozen=True)
class _Held:
    """The dictionary between two blocks: row numbers ascending, points, k(x, x), kernel matrix, probabilities, uniforms."""

    rows: np.ndarray
    points: Any
    diagonal: np.ndarray
    gram: np.ndarray
    probabilities: np.ndarray
    uniforms: np.ndarray
    dimension: float = 0.0  # effective dimension of what was seen, at the last time that all were judged
    judged: int = 0  # points that were left then
    cut: bool = False  # whether the budget has lowered probabilities

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, kept: np.ndarray, probabilities: np.ndarray, **changes: Any) -> _Held:
        return dataclasses.replace(
            self,
            rows=self.rows[kept],
            points=self.points[kept],
            diagonal=self.diagonal[kept],
            gram=self.gram[np.ix_(kept, kept)],
            probabilities=probabilities[kept],
            uniforms=self.uniforms[kept],
            **changes,
        )


class StreamingLandmarks:
    """Landmarks for points that arrive in chunks, in one pass (after SQUEAK: Calandriello, Lazaric, Valko 2017).

    Row i has one random number u_i and stays in the dictionary while u_i < p_i. p_i begins as its score on arrival times
    (1 + epsilon) log(2 d) / (2 epsilon^2), d the effective dimension so far, and falls as later rows take over what the row
    explained. Weights are 1 / p_i: sum_s w_s f(i_s) has the expectation sum_i f(i) at every time. Rows are judged in blocks
    of 512 by their number, so that chunks of any size give the same dictionary.

    Parameters
    ----------
    kernel : "linear", "rbf", "laplacian" or callable
        As for `kernel_landmarks`.
    ridge : float
        Level of the approximation, > 0.
    gamma : float, optional
        For "rbf" and "laplacian"; 1 / d where it is not given.
    epsilon : float
        In (0, 1]: relative accuracy of the scores.
    budget : int, optional
        The most landmarks to keep. Where more are needed, the probabilities of all are lowered until `budget` are left
        (priority sampling: weights stay unbiased) and a LandmarksWarning says so once: the ridge is then no longer met.
        Between blocks at most budget + 512 rows and the current chunk are held.
    start : int
        Number of the first row, for parts of one stream that are to be merged.
    rng : None | int | SeedSequence | BitGenerator | Generator (SPEC 7)

    Attributes
    ----------
    indices, weights, points
        Those of `result()`.
    n_seen : int
        Rows that were added, those of merged streams included.
    seed : int
        Replays the run: pass it as `rng`.

    Raises
    ------
    TypeError, ValueError
        For arguments of wrong type or range; a kernel cannot be "precomputed" here.
    """

    def __init__(
        self,
        kernel: Any,
        ridge: float,
        *,
        gamma: Any = None,
        epsilon: float = 0.5,
        budget: int | None = None,
        start: int = 0,
        rng: Any = None,
    ):
        if isinstance(kernel, str) and kernel == "precomputed":
            known = "'linear', 'rbf', 'laplacian' or a callable"
            raise ValueError(f"kernel must be {known} for points that arrive in chunks; got 'precomputed'")
        self._kernel = _kernel_matrix.make(kernel, gamma)
        self._named = (kernel, gamma)
        self.ridge = _check.real(ridge, "ridge", strict=True)
        self.epsilon = _check.real(epsilon, "epsilon", strict=True)
        if self.epsilon > 1:
            raise ValueError(f"epsilon must be at most 1; got {epsilon}")
        self.budget = None if budget is None else _check.integer(budget, "budget", 1)
        first = _check.integer(start, "start", 0, 2**62)
        self.seed = _check.seed(rng)
        self._ranges = [(first, first)]  # of row numbers, the last one growing
        self._held: _Held | None = None
        self._pending: Any = None  # rows of the block that is not full yet
        self._result: Landmarks | None = None
        self._said = False

    @property
    def n_seen(self) -> int:
        """Points of the stream so far."""
        return sum(stop - start for start, stop in self._ranges)

    def add(self, rows: Any) -> None:
        """Take the next rows, an array or CSR/CSC matrix (c, d); they are not kept but for a copy of the chosen ones.

        Raises TypeError or ValueError for rows that do not fit and for a kernel seen not to be positive semi-definite; the
        stream is then as it was.
        """
        chunk = _kernel_matrix.wide(_kernel_matrix.points(rows, "rows"))
        held, pending = self._held, self._pending
        if pending is not None:
            if chunk.shape[1] != pending.shape[1]:
                raise ValueError(f"rows must have {pending.shape[1]} columns like those before; got {chunk.shape[1]}")
            chunk = _stack(pending, chunk)
        start, stop = self._ranges[-1]
        added = chunk.shape[0] - (0 if pending is None else pending.shape[0])
        first = stop + added - chunk.shape[0]
        whole = chunk.shape[0] // _BLOCK * _BLOCK
        for at in range(0, whole, _BLOCK):
            held = self._block(held, chunk[at : at + _BLOCK], first + at)
        self._held, self._pending, self._result = held, chunk[whole:].copy(), None
        self._ranges[-1] = (start, stop + added)
        self._say(held)

    def merge(self, other: StreamingLandmarks) -> None:
        """Take in the dictionary of another part of the stream, for which no point is needed but those in it.

        The other one has the same kernel, ridge, epsilon and seed, and other row numbers (`start`). Blocks that are not full
        are judged first, as after the last row. Raises TypeError or ValueError where it is not so.
        """
        if not isinstance(other, StreamingLandmarks):
            raise TypeError(f"other must be a StreamingLandmarks; got {type(other).__name__}")
        for name in ("_named", "ridge", "epsilon", "seed"):
            needed, got = getattr(self, name), getattr(other, name)
            if needed != got:
                what = "kernel and gamma" if name == "_named" else name
                raise ValueError(f"other must have the same {what}, {needed!r}; got {got!r}")
        ranges = sorted([*self._ranges, *other._ranges])
        if any(low[1] > high[0] for low, high in itertools.pairwise(ranges)):
            raise ValueError(f"other must have other row numbers than {self._ranges}; got {other._ranges}")
        theirs = other._flushed()
        if theirs is not None:
            mine = self._flushed()
            self._held = theirs if mine is None else self._judge(self._union(mine, theirs))
            self._pending = theirs.points[:0] if mine is None else mine.points[:0]
        self._ranges, self._result = ranges, None
        self._kernel.evaluations += other._kernel.evaluations
        self._kernel.eps = max(self._kernel.eps, other._kernel.eps)
        self._say(self._held)

    def result(self) -> Landmarks:
        """The landmarks of all rows so far, without `scores`; more rows may follow. Raises ValueError before the first row."""
        return self._current()

    def _current(self) -> Landmarks:
        if self._result is None:
            held = self._flushed()
            if held is None:
                raise ValueError("add must be called with rows before there is a result")
            held = self._judge(held)
            dictionary, message = self._dictionary(held), DONE
            if self.ridge < self._kernel.eps * dictionary.trace:
                message = below_rounding(self.ridge, self._kernel.eps * dictionary.trace)
            elif held.cut:
                message = self._over_budget()
            self._result = result(held.rows, dictionary, held.points, None, self.seed, self._kernel, message)
            self._say(held, 4)
        return self._result

    @property
    def indices(self) -> np.ndarray:
        """Places of the landmarks in the stream."""
        return self._current().indices

    @property
    def weights(self) -> np.ndarray:
        """One per landmark, as in `result()`."""
        return self._current().weights

    @property
    def points(self) -> Any:
        """The landmarks themselves, as rows."""
        return self._current().points

    def _say(self, held: _Held | None, stacklevel: int = 3) -> None:
        if held is not None and held.cut and not self._said:
            self._said = True
            warnings.warn(self._over_budget(), LandmarksWarning, stacklevel=stacklevel)

    def _over_budget(self) -> str:
        return f"The budget of {self.budget} landmarks was reached: they are too few for the ridge {self.ridge:g}."

    def _dictionary(self, held: _Held) -> Dictionary:
        return Dictionary(held.gram, 1 / held.probabilities, self.ridge, self._kernel.eps)

    def _oversampling(self, dimension: float) -> float:
        return (1 + self.epsilon) * oversampling(dimension, self.epsilon)

    def _flushed(self) -> _Held | None:
        """What is held once the rows of the last block are judged; the stream itself waits for more."""
        if self._pending is None or not (count := self._pending.shape[0]):
            return self._held
        return self._block(self._held, self._pending, self._ranges[-1][1] - count)

    def _block(self, held: _Held | None, part: Any, first: int) -> _Held:
        """Take in rows first, first + 1, ... given their scores against the dictionary, each as if it alone were added."""
        part = part if sp.issparse(part) else np.ascontiguousarray(part)
        rows = np.arange(first, first + part.shape[0])
        diagonal = self._kernel.diagonal(part)
        if held is None:
            empty = np.zeros(0)
            held = _Held(rows[:0], part[:0], empty, np.zeros((0, 0)), empty, empty)
        block = self._kernel.block(part, held.points)
        scores = self._dictionary(held).scores(block.copy(), diagonal, joined=True)
        p = np.minimum(1, self._oversampling(held.dimension + float(scores.sum())) * scores)
        u = uniform(random_words(rows, 0, _STREAM, self.seed)[:, 0])
        kept = np.flatnonzero(u < p)
        if not len(kept):
            return held
        points = part[kept]
        gram = hermitian(self._kernel.block(points, points), diagonal[kept], self._kernel.eps)
        new = _Held(rows[kept], points, diagonal[kept], gram, p[kept], u[kept])
        held = _joined(held, new, block[kept])
        # Judging all costs a cube of their number, so it waits until they are a quarter more.
        many = len(held) > held.judged * 5 // 4 + 64 or (self.budget is not None and len(held) > self.budget)
        return self._judge(held) if many else held

    def _judge(self, held: _Held) -> _Held:
        """Lower the probabilities to what the present scores ask for, and drop the points that are then out."""
        dictionary = self._dictionary(held)
        scores = dictionary.own_scores()
        dimension = float(scores @ dictionary.weights)
        p = np.minimum(held.probabilities, self._oversampling(dimension) * scores)
        kept = np.flatnonzero(held.uniforms < p)
        held = held.subset(kept, p, dimension=dimension)
        if self.budget is not None and len(held) > self.budget:
            # Given the others, u_i is uniform below p_i and i stays if u_i / p_i is below the budget-th smallest of theirs.
            ratio = held.uniforms / held.probabilities
            limit = np.partition(ratio, self.budget)[self.budget]
            held = held.subset(np.flatnonzero(ratio < limit), held.probabilities * limit, cut=True)
        return dataclasses.replace(held, judged=len(held))

    def _union(self, mine: _Held, theirs: _Held) -> _Held:
        if mine.points.shape[1] != theirs.points.shape[1]:
            raise ValueError(f"other must have {mine.points.shape[1]} columns; got {theirs.points.shape[1]}")
        both = _joined(mine, theirs, self._kernel.block(theirs.points, mine.points))
        order = np.argsort(both.rows)
        return both.subset(order, both.probabilities, cut=mine.cut or theirs.cut)


def _stack(a: Any, b: Any) -> Any:
    """Rows of both, sparse or dense like the first."""
    if sp.issparse(a):
        return sp.csr_array(sp.vstack([a, sp.csr_array(b)]))
    return np.concatenate([a, b.toarray() if sp.issparse(b) else b])


def _joined(a: _Held, b: _Held, cross: np.ndarray) -> _Held:
    """Both dictionaries, with the kernel values `cross` of b's points with a's."""
    return dataclasses.replace(
        a,
        rows=np.concatenate([a.rows, b.rows]),
        points=_stack(a.points, b.points),
        diagonal=np.concatenate([a.diagonal, b.diagonal]),
        gram=np.block([[a.gram, cross.conj().T], [cross, b.gram]]),
        probabilities=np.concatenate([a.probabilities, b.probabilities]),
        uniforms=np.concatenate([a.uniforms, b.uniforms]),
    )
