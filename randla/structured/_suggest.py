"""Chains for a matrix under a budget of parameters, sifted by the singular values of blocks before any is factorized."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._splits import Cut, pieces, squared_norm
from .pattern import Chain

_SIZES = 12  # of blocks tried for two factors
_ROUNDING = 100  # times eps: a relative error that is no more than rounding


@dataclass(frozen=True)
class ChainSuggestion:
    """A chain with the error that `factorize` reaches on it and the proved lower bound for every product of it."""

    chain: Chain
    n_params: int
    error: float
    relative_error: float
    lower_bound: float


def ranked(
    a: np.ndarray, unit: float, max_params: int, limit: int, error_of: Callable[[Chain], float]
) -> list[ChainSuggestion]:
    spectra, rounding = Spectra(a), _ROUNDING * float(np.finfo(a.dtype).eps)
    norm = math.sqrt(spectra.size)
    bounds = {chain: spectra.bounds(chain) for chain in candidates(a.shape[0], a.shape[1], max_params)}
    # The limit-th smallest upper bound: chains that cannot be better are left out.
    enough = sorted(upper for _, upper in bounds.values())[:limit][-1]
    errors = {chain: error_of(chain) for chain, (lower, _) in bounds.items() if lower <= enough}
    for chain in [chain for chain, error in errors.items() if error <= rounding * norm]:
        narrow = spectra.narrowed(chain)
        if narrow != chain and (error := error_of(narrow)) <= rounding * norm:
            del errors[chain]
            errors[narrow] = error
    out = []
    for chain, error in errors.items():
        relative, lower = error / norm if norm else 0.0, min(spectra.bounds(chain)[0], error)
        out.append(ChainSuggestion(chain, chain.n_params, error * unit, relative, lower * unit))
    # Errors that are rounding alone are equal.
    out.sort(key=lambda s: (s.relative_error if s.relative_error > rounding else 0.0, s.n_params))
    return out[:limit]


def candidates(m: int, n: int, max_params: int) -> list[Chain]:
    """Chains within the budget, none redundant, each of the largest rank that fits."""
    bases = [Chain([(1, m, n, 1)]), Chain.low_rank(m, n, 1)]
    rows, columns = _divisors(m), _divisors(n)
    for p in _spread(rows, _SIZES):
        for goal in {p, max(1, round(p * n / m))}:
            q = min(columns, key=lambda x: abs(math.log(x / goal)))
            bases.append(Chain.monarch(m, n, p, q))
    bases += Chain.frontier(m, n)
    out: dict[Chain, None] = {}
    for base in bases:
        chain = _widest(base, max_params)
        if chain is not None:
            out[chain] = None
    return list(out)


def _widest(base: Chain, max_params: int) -> Chain | None:
    def fits(rank: int) -> bool:
        chain = base.with_rank(rank)
        return chain.n_params <= max_params and not chain.redundant

    if len(base) == 1:
        return base if base.n_params <= max_params else None
    if not fits(1):
        return None
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return base.with_rank(low)


def _divisors(n: int) -> list[int]:
    small = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return sorted({*small, *(n // k for k in small)})


def _spread(values: list[int], count: int) -> list[int]:
    picks = np.linspace(0, len(values) - 1, min(count, len(values)))
    return [values[round(float(i))] for i in picks]


class Spectra:
    """Bounds of the error of chains of pattern (1, m, n, 1); the singular values of a cut serve all ranks."""

    def __init__(self, a: np.ndarray):
        self.a, self.size = a, squared_norm(a)
        self.slack = float(np.finfo(np.float64).eps) * max(a.shape) * self.size
        self._tails: dict[Cut, np.ndarray] = {}

    def bounds(self, chain: Chain) -> tuple[float, float]:
        """max_s E_s and sqrt(sum_s E_s^2), widened by what rounding may have done."""
        cuts = [Cut.between(chain[:s].pattern, chain[s:].pattern) for s in range(1, len(chain))]
        energies = [float(self._tail(cut)[min(cut.r, cut.b1, cut.c2)]) for cut in cuts]
        return math.sqrt(max(max(energies, default=0.0) - self.slack, 0.0)), math.sqrt(sum(energies) + len(cuts) * self.slack)

    def narrowed(self, chain: Chain) -> Chain:
        """The chain with the smallest inner rank whose bounds are rounding alone, that of `chain` at most."""
        low, high = 0, max(chain.inner_ranks, default=1)
        while high - low > 1:
            rank = (low + high) // 2
            low, high = (low, rank) if self.bounds(chain.with_rank(rank))[0] == 0 else (rank, high)
        return chain.with_rank(high)

    def _tail(self, cut: Cut) -> np.ndarray:
        """For r = 0, 1, ...: the sum of the squares of all singular values after the r-th, over all blocks."""
        key = cut._replace(r=1)
        if key not in self._tails:
            grams = (M @ M.conj().swapaxes(1, 2) for M in pieces(self.a[None, None], cut))
            values = np.sum([np.maximum(np.linalg.eigvalsh(G), 0).sum(axis=0) for G in grams], axis=0)
            self._tails[key] = np.append(np.cumsum(values)[::-1], 0.0)
        return self._tails[key]
