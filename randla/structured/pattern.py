"""Kronecker-sparse patterns and chains of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import mul
from typing import Any, overload

import numpy as np
import scipy.sparse as sp

from .. import _check
from ._shortest import frontier

_LARGEST = 2**24  # of `Chain.frontier`, whose work grows with the numbers of divisors; below this it takes seconds at most


@dataclass(frozen=True, slots=True, repr=False)
class Pattern:
    """The support I_a (x) 1_{b x c} (x) I_d of a Kronecker-sparse factor, an (a b d) x (a c d) matrix.

    Values v[i, j, k, l] of shape (a, b, c, d) sit at row i b d + j d + l and column i c d + k d + l. Unpacks as `a, b, c, d`;
    equal when all four are.

    `p * q` is the pattern of the products of two factors; it exists for chainable pairs only (`chainable_with`). In a
    chainable pair a_1 divides a_2, d_2 divides d_1, and r = a_1 c_1 / a_2 = b_2 d_2 / d_1 is an integer: every entry of the
    product is then a sum of exactly r terms, and the pair stands for all matrices of pattern
    (a_1, b_1 d_1 / d_2, a_2 c_2 / a_1, d_2) whose b_1 x c_2 blocks have rank r at most (Le, Zheng, Riccietti, Gribonval, 2025).

    Parameters
    ----------
    a, b, c, d : int, >= 1

    Raises
    ------
    TypeError, ValueError
        For anything but positive integers.
    """

    a: int
    b: int
    c: int
    d: int

    def __post_init__(self) -> None:
        for name in ("a", "b", "c", "d"):
            object.__setattr__(self, name, _check.integer(getattr(self, name), name, 1))

    @property
    def shape(self) -> tuple[int, int]:
        return self.a * self.b * self.d, self.a * self.c * self.d

    @property
    def n_params(self) -> int:
        return self.a * self.b * self.c * self.d

    @property
    def density(self) -> float:
        """Parameters over entries of the dense matrix, 1 / (a d)."""
        return 1 / (self.a * self.d)

    @property
    def T(self) -> Pattern:
        return Pattern(self.a, self.c, self.b, self.d)

    def support(self) -> sp.csr_array:
        """The support as a boolean CSR array with sorted indices."""
        a, b, c, d = self
        i, l, k = np.ogrid[:a, :d, :c]
        columns = np.broadcast_to((i * c * d + k * d + l)[:, None], (a, b, d, c)).ravel()
        rows = np.arange(0, len(columns) + 1, c)
        return sp.csr_array((np.ones(len(columns), np.bool_), columns, rows), shape=self.shape)

    def to_dense(self) -> np.ndarray:
        """The support as a boolean ndarray."""
        return self.support().toarray()

    def why_not(self, other: Pattern) -> str | None:
        """Why the pair (self, other) is not chainable; None if it is."""
        p, q = self, _pattern(other, "other")
        if p.shape[1] != q.shape[0]:
            return f"{p.shape[1]} columns against {q.shape[0]} rows"
        if q.a % p.a:
            return f"a = {p.a} of the first does not divide a = {q.a} of the second"
        if p.d % q.d:
            return f"d = {q.d} of the second does not divide d = {p.d} of the first"
        if (p.a * p.c) % q.a:
            return f"a c = {p.a * p.c} of the first is no multiple of a = {q.a} of the second"
        return None

    def chainable_with(self, other: Pattern) -> bool:
        return self.why_not(other) is None

    def rank_with(self, other: Pattern) -> int:
        """The inner rank r of the chainable pair (self, other).

        Raises
        ------
        ValueError
            For a pair that is not chainable; names the pair and the reason.
        """
        self._require_chainable(other)
        return self.a * self.c // other.a

    def redundant_with(self, other: Pattern) -> bool:
        """Whether the pair is chainable and stands for every matrix of pattern self * other: r >= min(b_1, c_2)."""
        return self.chainable_with(other) and self.rank_with(other) >= min(self.b, other.c)

    def __mul__(self, other: Any) -> Pattern:
        if not isinstance(other, Pattern):
            return NotImplemented
        self._require_chainable(other)
        return Pattern(self.a, self.b * self.d // other.d, other.a * other.c // self.a, other.d)

    def _require_chainable(self, other: Pattern) -> None:
        reason = self.why_not(other)
        if reason:
            raise ValueError(f"patterns must be chainable; got {_text(self)} and {_text(other)}: {reason}")

    def __iter__(self) -> Iterator[int]:
        return iter((self.a, self.b, self.c, self.d))

    def __repr__(self) -> str:
        return f"Pattern{_text(self)}"


class Chain(Sequence[Pattern]):
    """Patterns of the factors of a product K_1 K_2 ... K_L; an immutable sequence.

    Neighbours must have matching sizes, and that is all: products that are not `chainable`, such as kaleidoscopes, are chains
    too. Slices are chains; `chain @ other` puts one product after the other.

    Parameters
    ----------
    patterns : iterable of Pattern or (a, b, c, d), at least one

    Raises
    ------
    TypeError
        For what is no pattern.
    ValueError
        For no pattern at all, and for neighbours of different sizes (names the pair).

    References
    ----------
    Q.-T. Le, L. Zheng, E. Riccietti, R. Gribonval, "Butterfly factorization with error guarantees", SIAM J. Matrix Anal. Appl.
    46 (2025).
    """

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Iterable[Pattern | Sequence[int]]):
        if not isinstance(patterns, Iterable):
            raise TypeError(f"patterns must be an iterable of Pattern or (a, b, c, d); got {type(patterns).__name__}")
        self._patterns = tuple(_pattern(p, f"patterns[{s}]") for s, p in enumerate(patterns))
        if not self._patterns:
            raise ValueError("patterns must hold at least 1 pattern; got none")
        for s, (p, q) in enumerate(self._pairs()):
            if p.shape[1] != q.shape[0]:
                raise ValueError(
                    f"patterns[{s}] and patterns[{s + 1}] must have matching sizes; "
                    f"got {_text(p)} with {p.shape[1]} columns and {_text(q)} with {q.shape[0]} rows"
                )

    @classmethod
    def deformable(cls, blocks: Iterable[tuple[int, int]], rank: int | Sequence[int] = 1) -> Chain:
        """The chainable chain for dense matrices that splits m = b_1 ... b_L and n = c_1 ... c_L.

        Factor l has the pattern (c_1 ... c_{l-1}, b_l r_{l-1}, c_l r_l, b_{l+1} ... b_L) with the inner ranks r_l, where
        r_0 = r_L = 1 (Lin, Ran, Chiu, Chesi, Wong, 2021). Every chainable chain whose
        `pattern` is (1, m, n, 1) is of this form.

        Parameters
        ----------
        blocks : iterable of (b_l, c_l), positive integers, at least one
        rank : int or sequence of L - 1 ints, >= 1
            The inner ranks; one number stands for all.

        Raises
        ------
        TypeError, ValueError
            For anything but pairs of positive integers, and ranks of a wrong number.
        """
        if not isinstance(blocks, Iterable):
            raise TypeError(f"blocks must be an iterable of (b, c); got {type(blocks).__name__}")
        pairs = [_block(block, f"blocks[{s}]") for s, block in enumerate(blocks)]
        if not pairs:
            raise ValueError("blocks must hold at least 1 pair; got none")
        ranks = (1, *_ranks(rank, len(pairs) - 1), 1)
        a, d = 1, math.prod(b for b, _ in pairs)
        patterns = []
        for l, (b, c) in enumerate(pairs):
            d //= b
            patterns.append(Pattern(a, b * ranks[l], c * ranks[l + 1], d))
            a *= c
        return cls(patterns)

    @classmethod
    def dyadic(cls, n: int, rank: int = 1) -> Chain:
        """The chain of log2(n) factors (2^{l-1}, 2, 2, n / 2^l) of fast transforms; n a power of two, else ValueError."""
        n = _check.integer(n, "n", 1)
        if n & (n - 1):
            raise ValueError(f"n must be a power of two; got {n}")
        return cls.deformable([(2, 2)] * (n.bit_length() - 1) or [(1, 1)], rank)

    @classmethod
    def monarch(cls, m: int, n: int, p: int, q: int, rank: int = 1) -> Chain:
        """The m x n chain (1, p, q, m/p), (q, m/p, n/q, 1) (Dao et al., 2022); ValueError unless p divides m and q divides n.

        With a rank above 1 the inner dimensions q and m/p are multiplied by it (Qiu et al., 2024).
        """
        m, n, p, q = (_check.integer(x, name, 1) for x, name in ((m, "m"), (n, "n"), (p, "p"), (q, "q")))
        if m % p:
            raise ValueError(f"p must divide m = {m}; got {p}")
        if n % q:
            raise ValueError(f"q must divide n = {n}; got {q}")
        return cls.deformable([(p, q), (m // p, n // q)], rank)

    @classmethod
    def low_rank(cls, m: int, n: int, r: int) -> Chain:
        """The chain (1, m, r, 1), (1, r, n, 1) of m x n matrices of rank at most r."""
        m, n, r = (_check.integer(x, name, 1) for x, name in ((m, "m"), (n, "n"), (r, "r")))
        return cls.deformable([(m, 1), (1, n)], r)

    @classmethod
    def kaleidoscope(cls, n: int, width: int = 1) -> Chain:
        """The chain of (B B*)^width with B dyadic (Dao et al., 2020); not chainable. ValueError unless n is a power of two."""
        width = _check.integer(width, "width", 1)
        B = cls.dyadic(n)
        return cls((B.patterns + B.T.patterns) * width)

    @classmethod
    def frontier(cls, m: int, n: int, rank: int = 1) -> tuple[Chain, ...]:
        """From the dense matrix to the cheapest chain: each the cheapest of its length, and cheaper than all before it.

        The search goes over all `deformable` chains of this rank that have no bottleneck: the sizes between the factors,
        divided by the rank, are at least min(m, n); else the cheapest chain of rank 1 would be `low_rank(m, n, 1)`. The chains
        of monotone sizes of Lin et al. (2021) are among them. No chain of the result is redundant. Where nothing splits, as for
        two primes, there is the dense matrix alone.

        Parameters
        ----------
        m, n : int, 1 to 2^24
        rank : int, >= 1

        Returns
        -------
        tuple of Chain
            With rising numbers of factors and falling `n_params`; the first is ((1, m, n, 1),).

        Raises
        ------
        TypeError, ValueError
            For anything but integers in these ranges.
        """
        m, n = _check.integer(m, "m", 1, _LARGEST), _check.integer(n, "n", 1, _LARGEST)
        rank = _check.integer(rank, "rank", 1)
        return tuple(cls.deformable(blocks, rank) for blocks in frontier(m, n, rank))

    @classmethod
    def shortest(cls, m: int, n: int, rank: int = 1, params: int | None = None) -> Chain:
        """The chain of fewest factors with at most `params` parameters, out of `frontier(m, n, rank)`.

        Parameters
        ----------
        m, n : int, 1 to 2^24
        rank : int, >= 1
            The inner rank between neighbours.
        params : int, optional
            The budget. Without it: the fewest that are possible, and no more factors than that takes.

        Raises
        ------
        TypeError
            For anything but integers.
        ValueError
            For a budget below the cheapest chain (says what is needed), and sizes out of range.
        """
        chains = cls.frontier(m, n, rank)
        if params is None:
            return chains[-1]
        params, least = _check.integer(params, "params", 1), chains[-1].n_params
        if params < least:
            raise ValueError(f"params must be at least {least} for {m} x {n} chains of rank {rank}; got {params}")
        return next(chain for chain in chains if chain.n_params <= params)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return self._patterns

    @property
    def shape(self) -> tuple[int, int]:
        return self[0].shape[0], self[-1].shape[1]

    @property
    def n_params(self) -> int:
        return sum(p.n_params for p in self)

    @property
    def T(self) -> Chain:
        """The chain of the transposed product. Chainability is not kept: a rises along a chainable chain."""
        return Chain([p.T for p in reversed(self)])

    @property
    def why_not(self) -> str | None:
        """The first pair that is not chainable, and the reason; None for a chainable chain."""
        for s, (p, q) in enumerate(self._pairs()):
            reason = p.why_not(q)
            if reason:
                return f"patterns[{s}] = {_text(p)} and patterns[{s + 1}] = {_text(q)}: {reason}"
        return None

    @property
    def chainable(self) -> bool:
        return self.why_not is None

    @property
    def pattern(self) -> Pattern:
        """The pattern of the product; ValueError for a chain that is not chainable."""
        self._require_chainable()
        return reduce(mul, self)

    @property
    def hull(self) -> Pattern:
        """A pattern that holds every product of such factors, chainable or not; `pattern` for a chainable chain.

        It has the greatest common divisors of all a and of all d, those of identities (a, 1, 1, d) aside.
        """
        return _hull(self._patterns)

    @property
    def inner_ranks(self) -> tuple[int, ...]:
        """r of each pair of neighbours, L - 1 numbers; ValueError for a chain that is not chainable."""
        self._require_chainable()
        return tuple(p.rank_with(q) for p, q in self._pairs())

    def with_rank(self, rank: int | Sequence[int]) -> Chain:
        """The chain of the same product pattern and the same splits with these inner ranks.

        rank : int or sequence of L - 1 ints, >= 1

        Raises
        ------
        TypeError, ValueError
            For ranks that are not positive integers, or of a wrong number, and for a chain that is not chainable.
        """
        old = (1, *self.inner_ranks, 1)
        new = (1, *_ranks(rank, len(self) - 1), 1)
        return Chain([Pattern(p.a, p.b // old[s] * new[s], p.c // old[s + 1] * new[s + 1], p.d) for s, p in enumerate(self)])

    @property
    def redundant_pairs(self) -> tuple[int, ...]:
        """All s for which patterns s and s + 1 stand for every matrix of pattern chain[s] * chain[s + 1]."""
        return tuple(s for s, (p, q) in enumerate(self._pairs()) if p.redundant_with(q))

    @property
    def redundant(self) -> bool:
        return any(p.redundant_with(q) for p, q in self._pairs())

    def groups(self) -> tuple[range, ...]:
        """The factors that `simplified` multiplies together: one range of indices for each factor of the result.

        A matrix of the pattern of a group is taken apart into the factors of the group by truncated singular value
        decompositions at the inner ranks, filled up with zeros, without loss and in any order of the splits (Le et al., 2025,
        Lemma 4.23).
        """
        starts = [start for start, _ in self._reduced()]
        return tuple(range(i, j) for i, j in pairwise([*starts, len(self)]))

    def simplified(self) -> Chain:
        """The chain without redundancy: redundant neighbours are multiplied together until none are left.

        It stands for the same matrices with no more parameters (Le et al., 2025, Algorithm 4.1). In a chainable chain the order
        of the steps does not change the result.
        """
        return Chain([p for _, p in self._reduced()])

    def fusions(self, max_growth: float = 1.34) -> tuple[range, ...]:
        """Neighbours to multiply together so that the fewest factors are left, none with many more parameters than its parts.

        Parameters
        ----------
        max_growth : float, >= 0
            The bound for the parameters of a factor (its `hull`) over the sum of those it replaces. Dyadic factors merge into
            radix 4 without growth, into radix 8 with a growth of 4/3 and into radix 16 with one of 2.

        Returns
        -------
        tuple of range
            Of the ways with the fewest factors, the one with the fewest parameters.

        Raises
        ------
        TypeError, ValueError
            For anything but a finite non-negative number.
        """
        max_growth = _check.real(max_growth, "max_growth")
        # best[j]: factors, parameters and the start of the last group of the best way to merge the first j factors.
        best = [(0, 0, 0)]
        for j in range(len(self)):
            ways, parts = [], 0
            for i in range(j, -1, -1):
                parts += self[i].n_params
                size = _hull(self._patterns[i : j + 1]).n_params
                if i == j or size <= max_growth * parts:
                    ways.append((best[i][0] + 1, best[i][1] + size, i))
            best.append(min(ways))
        stop, groups = len(self), []
        while stop:
            groups.append(range(best[stop][2], stop))
            stop = best[stop][2]
        return tuple(reversed(groups))

    def merged(self, max_growth: float = 1.34) -> Chain:
        """The chain with the neighbours of `fusions(max_growth)` multiplied together.

        Its products contain those of this chain: fewer, larger factors for the same matrix, which multiply faster. Where the
        neighbours are not redundant it stands for more matrices than this chain.
        """
        return Chain([_hull(self._patterns[g.start : g.stop]) for g in self.fusions(max_growth)])

    def _reduced(self) -> list[tuple[int, Pattern]]:
        """The patterns of the simplified chain, each with the index of its first factor."""
        reduced: list[tuple[int, Pattern]] = []
        for start, p in enumerate(self):
            while reduced and reduced[-1][1].redundant_with(p):
                start, left = reduced.pop()
                p = left * p
            reduced.append((start, p))
        return reduced

    def _require_chainable(self) -> None:
        reason = self.why_not
        if reason:
            raise ValueError(f"the chain must be chainable; got {reason}")

    def _pairs(self) -> Iterator[tuple[Pattern, Pattern]]:
        return pairwise(self._patterns)

    @overload
    def __getitem__(self, index: int) -> Pattern: ...
    @overload
    def __getitem__(self, index: slice) -> Chain: ...
    def __getitem__(self, index: int | slice) -> Pattern | Chain:
        return Chain(self._patterns[index]) if isinstance(index, slice) else self._patterns[index]

    def __len__(self) -> int:
        return len(self._patterns)

    def __iter__(self) -> Iterator[Pattern]:
        return iter(self._patterns)

    def __matmul__(self, other: Any) -> Chain:
        return Chain(self._patterns + other._patterns) if isinstance(other, Chain) else NotImplemented

    def __eq__(self, other: Any) -> bool:
        return self._patterns == other._patterns if isinstance(other, Chain) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._patterns)

    def __repr__(self) -> str:
        return f"Chain([{', '.join(map(_text, self))}])"


def _hull(patterns: Sequence[Pattern]) -> Pattern:
    # I_n can be written (n, 1, 1, 1), (1, 1, 1, n) and between: how must not matter.
    parts = [p for p in patterns if p.b * p.c > 1] or patterns[:1]
    a, d = math.gcd(*(p.a for p in parts)), math.gcd(*(p.d for p in parts))
    return Pattern(a, patterns[0].shape[0] // (a * d), patterns[-1].shape[1] // (a * d), d)


def _text(p: Pattern) -> str:
    return str(tuple(p))


def _listed(value: Any) -> bool:
    return (isinstance(value, Sequence) and not isinstance(value, str)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _pattern(value: Any, name: str) -> Pattern:
    if isinstance(value, Pattern):
        return value
    if not _listed(value) or len(value) != 4:
        raise TypeError(f"{name} must be a Pattern or (a, b, c, d); got {value!r}")
    return Pattern(*(_check.integer(x, f"{letter} of {name}", 1) for letter, x in zip("abcd", value, strict=True)))


def _block(value: Any, name: str) -> tuple[int, int]:
    if not _listed(value) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (b, c); got {value!r}")
    return _check.integer(value[0], f"b of {name}", 1), _check.integer(value[1], f"c of {name}", 1)


def _ranks(rank: Any, count: int) -> tuple[int, ...]:
    if not _listed(rank):
        return (_check.integer(rank, "rank", 1),) * count
    if len(rank) != count:
        raise ValueError(f"rank must be an integer or {count} of them, one for each pair of neighbours; got {len(rank)}")
    return tuple(_check.integer(r, f"rank[{s}]", 1) for s, r in enumerate(rank))
