"""Hierarchical butterfly factorization with a certificate: `factorize`, `butterfly_error`, `suggest_chains`."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .. import _check
from . import _suggest
from ._permutation import permutations_of, search
from ._splits import Cut, move_left, move_right, off_pattern, rank_one_splits, split, squared_norm, tail, twiddle
from .operators import KroneckerSparse, Product
from .pattern import Chain

ORDERS = ("left-to-right", "balanced")

_ROUNDING = 16  # times eps and the number of factors: an error that is no more than rounding


class FactorizeStatus(enum.Enum):
    """How a factorization ended. The value is the sentence shown to users."""

    EXACT = "The product equals A up to rounding."
    APPROXIMATE = "The product is within `ratio` of the best that any product of this chain can be, as `lower_bound` proves."
    SEARCHED = (
        "The permutations were found by a heuristic search: other ones may allow a smaller error. For these, the product is "
        "within `ratio` of the best."
    )


class FactorizeResult:
    """A product of Kronecker-sparse factors near a matrix A, with its certificate.

    Attributes
    ----------
    product : Product
        Near A. Where there are permutations they are its `rows` and `cols`: its factors are near A[rows][:, columns].
    error : float
        ||A - product||_F, in the arithmetic of the factors before they were rounded to the dtype of A.
    relative_error : float
        error / ||A||_F; 0 for A = 0.
    split_errors : ndarray (L - 1,)
        E_s, the distance of A to the nearest product of two factors with the patterns K_1 ... K_s and K_{s+1} ... K_L. No
        product of the chain is nearer than any of them, and error <= sum_s E_s, for "left-to-right" error^2 <= sum_s E_s^2.
        Computed when first asked for, from A, which must not have changed; so are the next two.
    lower_bound : float
        max_s E_s: a lower bound for the error of every product of the chain (of one factor: what lies outside its pattern).
    ratio : float
        error / lower_bound, 1 where the error is rounding alone: the product is at most so many times worse than the best one.
    discarded : dict of int to float
        For each cut made, in order, the norm of what it lost. "left-to-right": error^2 = outside^2 + the sum of their squares.
    outside : float
        Norm of the entries of A outside the pattern of the chain.
    chain : Chain
    rows, columns : ndarray or None
        The permutations; None where there is none.
    seed : int
        Replays the run: pass it as `rng`.
    status : FactorizeStatus
    message : str
    success : bool
    """

    def __init__(
        self,
        product: Product,
        error: float,
        norm: float,
        *,
        evidence: Callable[[], np.ndarray],
        discarded: dict[int, float],
        outside: float,
        chain: Chain,
        rows: np.ndarray | None,
        columns: np.ndarray | None,
        seed: int,
        status: FactorizeStatus,
    ):
        self.product, self.error = product, error
        self.relative_error = error / norm if norm else 0.0
        self.discarded, self.outside, self.chain = discarded, outside, chain
        self.rows, self.columns, self.seed, self.status = rows, columns, seed, status
        self._make_evidence: Callable[[], np.ndarray] | None = evidence

    @cached_property
    def split_errors(self) -> np.ndarray:
        assert self._make_evidence is not None
        return self._make_evidence()

    @property
    def lower_bound(self) -> float:
        # Rounding may put equal numbers in the wrong order.
        return min(max(self.split_errors, default=self.outside), self.error)

    @property
    def ratio(self) -> float:
        if self.status is FactorizeStatus.EXACT or self.error == 0:
            return 1.0
        bound = self.lower_bound
        return float(self.error / bound) if bound else math.inf

    @property
    def message(self) -> str:
        return self.status.value

    @property
    def success(self) -> bool:
        return True

    def to_dense(self) -> np.ndarray:
        """The matrix near A."""
        return self.product.to_dense()

    def __getstate__(self) -> dict[str, Any]:
        # A pickle should not carry A.
        return dict(self.__dict__, split_errors=self.split_errors, _make_evidence=None)

    def __repr__(self) -> str:
        names = ("message", "error", "relative_error", "outside", "chain", "seed")
        return "\n".join(f"{name:>15}: {getattr(self, name)}" for name in names)


def factorize(
    A: Any,
    chain: Chain,
    *,
    rank: int | Sequence[int] | None = None,
    order: str | Sequence[int] = "left-to-right",
    permutation: Any = None,
    rng: Any = None,
) -> FactorizeResult:
    """Approximate A by a product of factors with the patterns of a chainable chain.

    The matrix is cut into two factors, these again, and so on, every cut the best one, by truncated singular value
    decompositions of blocks, while all factors to its left have orthonormal columns and all to its right orthonormal rows
    (Le, Zheng, Riccietti, Gribonval 2025, Algorithm 6.2). Then error <= sum_s E_s <= (L - 1) times the smallest possible
    error; from left to right the losses are orthogonal to each other, and error <= sqrt(L - 1) times the smallest. Products
    of the chain are recovered to rounding.

    Parameters
    ----------
    A : array (m, n)
        float32, float64, complex64 or complex128 (integers are converted to float64).
    chain : Chain
        Of shape (m, n) and chainable. Redundant neighbours are treated as one factor, which is taken apart without loss at
        the end.
    rank : int or sequence of L - 1 ints
        Use `chain.with_rank(rank)`.
    order : str or permutation of 1, ..., L - 1
        The cuts in the order they are made; s separates the first s factors from the others. "left-to-right": 1, 2, ...; the
        fastest, with the best bound. O(m n) operations for dyadic chains. "balanced": the middle one first, then those of the
        halves.
    permutation : None, "bit-reversal", "search", array (n,), or pair of arrays (m,) and (n,)
        Factorize A[:, columns] or A[rows][:, columns] instead; either of a pair may be None. The DFT matrix is a dyadic
        product after the bit reversal of its columns. "search" looks for rows and columns by alternating clustering
        (Zheng, Puy, Riccietti, Perez, Gribonval 2023): a heuristic, for chains of inner ranks one and moderate sizes.
    rng : None, int, SeedSequence, BitGenerator or Generator
        For the search, as in SPEC 7; `result.seed` replays the run.

    Returns
    -------
    FactorizeResult

    Raises
    ------
    TypeError
        For unsuitable arguments.
    ValueError
        For a chain that is not chainable (names the pair and the reason) or has another shape than A, NaN or infinite
        entries, and unsuitable ranks, orders and permutations.
    """
    a, chain = _arguments(A, chain, rank)
    short = chain.simplified()
    cuts = _cuts(order, chain)
    seed = _check.seed(rng)
    a, unit, size = _scaled(a)
    searched = isinstance(permutation, str) and permutation == "search"
    rows, columns = search(a, chain, seed) if searched else permutations_of(permutation, a.shape)
    a = _permuted(a, rows, columns)

    outside = off_pattern(a, chain.pattern)
    T = twiddle(a, chain.pattern)
    straight = cuts == list(range(1, len(short)))
    parts, lost = _left_to_right(T, short) if straight else _by_centre(T, short, cuts)
    squared = sum(lost.values()) if straight else _distance(T, short, cuts, parts)
    norm = math.sqrt(size)
    error = math.sqrt(outside + squared)

    groups = chain.groups()
    pieces = [x for g, part in zip(groups, parts, strict=True) for x in _lifted(part, chain[g.start : g.stop])]
    last = [g.stop for g in groups]
    rounding = _ROUNDING * len(chain) * float(np.finfo(a.dtype).eps)
    status = FactorizeStatus.SEARCHED if searched else FactorizeStatus.APPROXIMATE
    return FactorizeResult(
        Product(_factors(pieces, chain, a.dtype, unit), rows=_undone(rows), cols=_undone(columns)),
        error * unit,
        norm * unit,
        evidence=lambda: _split_errors(a, chain) * unit,
        discarded={last[s - 1]: math.sqrt(energy) * unit for s, energy in lost.items()},
        outside=math.sqrt(outside) * unit,
        chain=chain,
        rows=rows,
        columns=columns,
        seed=seed,
        status=FactorizeStatus.EXACT if error <= rounding * norm else status,
    )


def butterfly_error(A: Any, chain: Chain, *, rank: int | Sequence[int] | None = None, permutation: Any = None) -> float:
    """A lower bound for ||A - P||_F over all products P of a chainable chain, without factorizing: max_s E_s.

    E_s is the distance of A to the nearest product of two factors with the patterns of the first s and of the other factors,
    in closed form by truncated singular value decompositions of blocks. The smallest error is at most sqrt(L - 1) times this.

    Parameters
    ----------
    A : array (m, n)
    chain : Chain
    rank : int or sequence of L - 1 ints
        Use `chain.with_rank(rank)`.
    permutation : None, "bit-reversal", array (n,), or pair of arrays
        As in `factorize`.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        As `factorize`; ValueError for a permutation to be searched for.
    """
    a, chain = _arguments(A, chain, rank)
    a, unit, _ = _scaled(a)
    a = _permuted(a, *permutations_of(permutation, a.shape))
    return float(max(_split_errors(a, chain), default=math.sqrt(off_pattern(a, chain.pattern)))) * unit


def suggest_chains(A: Any, *, max_params: int, limit: int = 5) -> list[_suggest.ChainSuggestion]:
    """Chains of at most `max_params` parameters for a matrix, the one with the smallest error first.

    Candidates: the dense matrix; low rank; two factors (Monarch) with blocks of several sizes; the cheapest chains of each
    length (`Chain.frontier`); each with the largest rank that the budget allows, or with the smallest one that is exact. All
    are ranked by bounds of the error that need no factorization, max_s E_s and sqrt(sum_s E_s^2), and those that can be among
    the first are factorized.

    Parameters
    ----------
    A : array (m, n)
        m, n >= 1.
    max_params : int
        At least min(m + n, m n).
    limit : int
        How many to return, at most.

    Returns
    -------
    list of ChainSuggestion
        `chain`, `n_params`, `error` of `factorize(A, chain)` and `lower_bound` for the error of every product of the chain;
        the relative ones divided by ||A||_F.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, NaN or infinite entries; ValueError for a budget below every chain (says what is needed).
    """
    a = _dense(A)
    m, n = a.shape
    if not m * n:
        raise ValueError(f"A must have entries; got shape {a.shape}")
    least = min(m + n, m * n)
    max_params = _check.integer(max_params, "max_params", 1)
    if max_params < least:
        raise ValueError(f"max_params must be at least {least} for shape {a.shape}; got {max_params}")
    limit = _check.integer(limit, "limit", 1)
    a, unit, _ = _scaled(a)
    return _suggest.ranked(a, unit, max_params, limit, lambda chain: factorize(a, chain).error)


def _dense(A: Any) -> np.ndarray:
    a: np.ndarray = _check.array(A, "A")
    if a.ndim != 2:
        raise ValueError(f"A must have 2 dimensions; got {a.ndim}")
    return np.ascontiguousarray(a)


def _arguments(A: Any, chain: Any, rank: Any) -> tuple[np.ndarray, Chain]:
    a = _dense(A)
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a Chain; got {type(chain).__name__}")
    if not chain.chainable:
        raise ValueError(f"chain must be chainable; got {chain.why_not}")
    if chain.shape != a.shape:
        raise ValueError(f"chain must have the shape {a.shape} of A; got {chain.shape}")
    return a, chain if rank is None else chain.with_rank(rank)


def _scaled(a: np.ndarray) -> tuple[np.ndarray, float, float]:
    """b = a / unit, the unit, a power of two, and ||b||^2: squares of entries of b neither overflow nor vanish."""
    single = a.dtype.char in "fF"
    with np.errstate(over="ignore", invalid="ignore"):
        size = squared_norm(a)
    if (1e-20 < size < 1e20) if single else (1e-200 < size < 1e200):
        return a, 1.0, size
    _check.finite(a, "A")
    largest = max(np.abs(a.real).max(initial=0), np.abs(a.imag).max(initial=0))
    if not largest:
        return a, 1.0, 0.0
    exponent = int(np.frexp(largest)[1])
    # In two steps: neither 2^-exponent nor an entry times it may leave the range of numbers.
    half, real = -exponent // 2, a.real.dtype.type
    b = a * real(2.0**half) * real(2.0 ** (-exponent - half))
    return b, 2.0**exponent, squared_norm(b)


def _undone(permutation: np.ndarray | None) -> np.ndarray | None:
    return None if permutation is None else np.argsort(permutation)


def _permuted(a: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> np.ndarray:
    a = a if rows is None else a[rows]
    return a if columns is None else np.take(a, columns, axis=1, mode="clip")


def _cuts(order: Any, chain: Chain) -> list[int]:
    """The cuts of the simplified chain, in order."""
    L, stops = len(chain), [g.stop for g in chain.groups()]
    if isinstance(order, str):
        if order not in ORDERS:
            raise ValueError(f"order must be {', '.join(map(repr, ORDERS))} or a permutation of the splits; got {order!r}")
        return list(range(1, len(stops))) if order == "left-to-right" else _halves(0, len(stops))
    if not isinstance(order, Sequence | np.ndarray):
        raise TypeError(f"order must be a string or a sequence of integers; got {type(order).__name__}")
    given = [_check.integer(s, f"order[{i}]", 1) for i, s in enumerate(order)]
    if sorted(given) != list(range(1, L)):
        raise ValueError(f"order must be a permutation of 1, ..., {L - 1}, the splits of a chain of {L}; got {given}")
    return [stops.index(s) + 1 for s in given if s in stops]


def _halves(start: int, stop: int) -> list[int]:
    middle = (start + stop) // 2
    return [middle, *_halves(start, middle), *_halves(middle, stop)] if stop - start > 1 else []


def _left_to_right(T: np.ndarray, chain: Chain) -> tuple[list[np.ndarray], dict[int, float]]:
    """The factors of T as twiddles, and the energy that each cut loses."""
    parts: list[np.ndarray] = []
    energies: list[float] = []
    ranks, s, last = chain.inner_ranks, 0, len(chain) - 1
    while s < last:
        stop = s
        while stop < last and chain[stop].b == 2 and ranks[stop] == 1 and T.shape[1] == 1:
            stop += 1
        if stop > s:
            widths = [chain[k + 1].a // chain[k].a for k in range(s, stop)]
            values, rest, lost = rank_one_splits(np.ascontiguousarray(T[:, 0]), widths)
            parts += [v.transpose(0, 3, 1, 2) for v in values]
            T = rest[:, None]
            energies += lost
            s = stop
        else:
            X, T, lost_here = split(_wide(T), Cut.between(chain[s], chain[s + 1 :].pattern), "right")
            parts.append(X)
            energies.append(lost_here)
            s += 1
    return [*parts, T], dict(enumerate(energies, 1))


def _wide(T: np.ndarray) -> np.ndarray:
    return T.astype(np.result_type(T.dtype, np.float64), copy=False)


def _by_centre(T: np.ndarray, chain: Chain, cuts: list[int]) -> tuple[list[np.ndarray], dict[int, float]]:
    """As `_left_to_right` for cuts in any order: all factors are orthonormal but one, the centre, which is cut."""
    spans, parts, centre, lost = [(0, len(chain))], [_wide(T)], 0, {}
    for step, s in enumerate(cuts):
        at = next(i for i, (start, stop) in enumerate(spans) if start < s < stop)
        while centre != at:
            left = centre if centre < at else centre - 1
            move = move_right if centre < at else move_left
            parts[left : left + 2] = move(parts[left], parts[left + 1], _between(chain, spans[left], spans[left + 1]))
            centre += 1 if centre < at else -1
        start, stop = spans[at]
        spans[at : at + 1] = [(start, s), (s, stop)]
        goal = "left" if step + 1 < len(cuts) and cuts[step + 1] < s else "right"
        X, Y, lost[s] = split(parts[at], _between(chain, *spans[at : at + 2]), goal)
        parts[at : at + 1] = [X, Y]
        centre = at + (goal == "right")
    return parts, lost


def _between(chain: Chain, left: tuple[int, int], right: tuple[int, int]) -> Cut:
    return Cut.between(chain[slice(*left)].pattern, chain[slice(*right)].pattern)


def _distance(T: np.ndarray, chain: Chain, cuts: list[int], parts: list[np.ndarray]) -> float:
    """||T - the product of the parts||^2, multiplied out in the reverse order of the cuts."""
    spans, parts = [(s, s + 1) for s in range(len(chain))], list(parts)
    for s in reversed(cuts):
        at = next(i for i, (_, stop) in enumerate(spans) if stop == s)
        parts[at : at + 2] = [_between(chain, *spans[at : at + 2]).join(parts[at], parts[at + 1])]
        spans[at : at + 2] = [(spans[at][0], spans[at + 1][1])]
    return squared_norm(np.ascontiguousarray(T - parts[0]))


def _lifted(part: np.ndarray, chain: Chain) -> list[np.ndarray]:
    """The factors of a matrix that simplifying the chain had merged; every cut has a rank that loses nothing."""
    parts = []
    for s in range(1, len(chain)):
        X, part, _ = split(part, Cut.between(chain[s - 1], chain[s:].pattern), "right")
        parts.append(X)
    return [*parts, part]


def _factors(parts: list[np.ndarray], chain: Chain, dtype: np.dtype, unit: float) -> list[KroneckerSparse]:
    # The unit goes to all factors alike: one alone might overflow where the product does not.
    exponent, count, out = int(np.frexp(unit)[1]) - 1, len(parts), []
    for l, (part, pattern) in enumerate(zip(parts, chain, strict=True)):
        share = exponent * (l + 1) // count - exponent * l // count
        values = part.transpose(0, 2, 3, 1)
        values = (values * 2.0**share if share else values).astype(dtype, order="C")
        out.append(KroneckerSparse(values, pattern))
    return out


def _split_errors(a: np.ndarray, chain: Chain) -> np.ndarray:
    """E_s for every split of the chain."""
    outside, T = off_pattern(a, chain.pattern), twiddle(a, chain.pattern)
    cuts = (Cut.between(chain[:s].pattern, chain[s:].pattern) for s in range(1, len(chain)))
    return np.sqrt(np.array([outside + tail(T, cut) for cut in cuts]))
