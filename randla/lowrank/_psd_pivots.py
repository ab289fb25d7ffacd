"""Which pivots of pivoted Cholesky can be taken together, from the residual matrix among the candidates alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.linalg import lapack

from .._random import random_words, uniform

_STREAM = 25  # see docs/definitions.md


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Candidates, each once, and in which order they were drawn.

    rows : row numbers; draws, chances : positions in `rows` in the order of the draws, and the random number of each;
    outside : the largest residual of rows that are not candidates.
    """

    rows: np.ndarray
    draws: np.ndarray
    chances: np.ndarray
    outside: float = 0.0


Propose = Callable[[np.ndarray, int, int, int], Proposal]
Choose = Callable[[Proposal, np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def drawn(d: np.ndarray, size: int, step: int, seed: int) -> Proposal:
    """`size` independent draws with probabilities proportional to d."""
    words = random_words(np.arange(size), step, _STREAM, seed)
    sums = np.cumsum(d)
    last = int(np.flatnonzero(d)[-1])
    rows = np.minimum(np.searchsorted(sums, uniform(words[:, 0]) * sums[-1], side="right"), last)
    each, draws = np.unique(rows, return_inverse=True)
    return Proposal(each, draws, uniform(words[:, 1]))


def largest(d: np.ndarray, size: int, step: int, seed: int) -> Proposal:
    """The `size` largest of d; of equal ones the first."""
    if size >= len(d):
        rows = np.flatnonzero(d)
        return Proposal(rows, np.arange(len(rows)), np.zeros(0))
    cut = np.partition(d, len(d) - size - 1)[len(d) - size - 1]  # the largest one left out
    above = np.flatnonzero(d > cut)
    rows = np.sort(np.concatenate([above, np.flatnonzero(d == cut)[: size - len(above)]]))
    rows = rows[d[rows] > 0]
    return Proposal(rows, np.arange(len(rows)), np.zeros(0), float(cut))


class _Elimination:
    """Cholesky elimination of chosen candidates: `left` is the diagonal of what is left of the residual matrix."""

    def __init__(self, core: np.ndarray, most: int):
        self.core = core
        self.left = core.diagonal().real.copy()
        self.columns = np.empty((most, len(core)), core.dtype)
        self.chosen: list[int] = []

    def take(self, s: int) -> None:
        m = len(self.chosen)
        done = self.columns[:m]
        column = self.core[:, s] - done[:, s].conj() @ done
        column /= np.sqrt(self.left[s])
        self.columns[m] = column
        self.left -= (column * column.conj()).real
        self.left[s] = 0.0
        self.chosen.append(s)

    def factor(self) -> tuple[np.ndarray, np.ndarray]:
        """The chosen candidates in order, and L with L L^H their residual matrix."""
        chosen = np.array(self.chosen, np.int64)
        return chosen, np.tril(self.columns[: len(chosen), chosen].T)


def by_rejection(proposal: Proposal, core: np.ndarray, floor: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A draw is taken with the probability that its residual has shrunk to since the draws were made: what is taken has the law
    of pivots drawn one by one (Epperly, Tropp, Webber 2024)."""
    elimination = _Elimination(core, most)
    limit = proposal.chances * elimination.left[proposal.draws]
    for s, bound in zip(proposal.draws.tolist(), limit.tolist(), strict=True):
        left = elimination.left[s]
        if left > bound and left > floor[s]:
            elimination.take(s)
            if len(elimination.chosen) == most:
                break
    return elimination.factor()


def by_size(proposal: Proposal, core: np.ndarray, floor: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest first, as long as none outside can be larger: residuals never grow."""
    elimination = _Elimination(core, most)
    while len(elimination.chosen) < most:
        s = int(elimination.left.argmax())
        if elimination.chosen and not (elimination.left[s] >= proposal.outside and elimination.left[s] > floor[s]):
            break
        elimination.take(s)
    return elimination.factor()


def by_block(proposal: Proposal, core: np.ndarray, floor: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest first, until they explain the candidates but for one part in their number (robust block pivoting; Dong,
    Chen, Martinsson, Pearce 2023): candidates that resemble those taken are left out."""
    (pstrf,) = lapack.get_lapack_funcs(("pstrf",), (core,))
    factored, order, rank, _ = pstrf(core, tol=float(floor.min()), lower=1)
    L = np.tril(factored[:, :rank])
    total = float(core.diagonal().real.sum())
    left = total - np.cumsum(np.square(np.abs(L)).sum(axis=0))
    enough = int(np.argmax(left <= total / len(core))) + 1 if (left <= total / len(core)).any() else rank
    count = max(1, min(enough, most, rank))
    return order[:count].astype(np.int64) - 1, L[:count, :count]


METHODS: dict[str, tuple[Propose, Choose]] = {
    "accelerated": (drawn, by_rejection),
    "block": (drawn, by_block),
    "simple": (drawn, by_rejection),
    "greedy": (largest, by_size),
}
