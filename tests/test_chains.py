"""Chains against dense supports: hulls, simplified and merged chains, and the shortest ones by enumeration."""

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pattern_oracles import SMALL, chains, dense, dimension, patterns_of, product, rank_one_supports, values

from randla.structured.pattern import Chain, Pattern


def test_hull_is_the_smallest_pattern_that_holds_a_product():
    for p, q in itertools.product(SMALL, SMALL):
        if p.shape[1] == q.shape[0]:
            hull = Chain([p, q]).hull
            support = dense(p) @ dense(q) > 0
            holding = [x.n_params for x in patterns_of(support.shape) if dense(x)[support].all()]
            assert dense(hull)[support].all()
            assert hull.n_params == min(holding)
            assert not p.chainable_with(q) or hull == p * q


def test_hull_of_identities():
    assert Chain([(2, 1, 1, 1), (1, 1, 1, 2)]).hull == Pattern(2, 1, 1, 1)
    assert Chain([(1, 1, 1, 4), (2, 2, 2, 1), (1, 1, 1, 4)]).hull == Pattern(2, 2, 2, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(chains())
def test_chain_algebra(chain):
    assert chain.chainable
    assert chain.why_not is None
    counts = product([dense(p) for p in chain])
    np.testing.assert_array_equal(counts, math.prod(chain.inner_ranks) * dense(chain.pattern))
    assert chain.shape == counts.shape
    assert chain.n_params == sum(dense(p).sum() for p in chain)
    assert chain.hull == chain.pattern
    for s in range(1, len(chain)):
        assert chain[:s].pattern * chain[s:].pattern == chain.pattern
        assert chain[:s].pattern.rank_with(chain[s:].pattern) == chain.inner_ranks[s - 1]
    np.testing.assert_array_equal(product([dense(p) for p in chain.T]), counts.T)
    assert chain == chain.T.T


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chains(largest=16, length=3))
def test_simplified_chain_stands_for_the_same_matrices(chain):
    simple = chain.simplified()
    assert simple.pattern == chain.pattern
    assert not simple.redundant
    assert simple.redundant_pairs == ()
    assert simple.n_params <= chain.n_params
    assert (simple == chain) == (not chain.redundant)
    assert chain.redundant == bool(chain.redundant_pairs)
    rng = np.random.default_rng(0)
    assert dimension(simple, rng) == dimension(chain, rng)


def ends(chain):
    """What is left after multiplying redundant neighbours together, in every order."""
    pairs = [s for s, (p, q) in enumerate(itertools.pairwise(chain)) if redundant(p, q)]
    if not pairs:
        return {tuple(chain)}
    return set().union(*(ends([*chain[:s], chain[s] * chain[s + 1], *chain[s + 2 :]]) for s in pairs))


def redundant(p, q):
    return all(k >= min(len(rows), len(columns)) for (rows, columns), k in rank_one_supports(p, q).items())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(chains(largest=60, ranks=4, length=5))
def test_simplified_chain_does_not_depend_on_the_order(chain):
    simple = chain.simplified()
    assert ends(list(chain)) == {tuple(simple)}
    groups = chain.groups()
    assert [s for g in groups for s in g] == list(range(len(chain)))
    assert [chain[g.start : g.stop].pattern for g in groups] == list(simple)


def test_deep_redundancy_collapses():
    chain = Chain.dyadic(64, rank=7)
    assert chain.simplified() == Chain([(1, 8, 56, 8), (8, 56, 8, 1)])
    assert chain.groups() == (range(0, 3), range(3, 6))
    assert Chain.dyadic(64, rank=8).simplified() == Chain([(1, 64, 64, 1)])


def lift(T, chain, order):
    """Factors of T by truncated SVDs over the classes of rank-one supports, splitting in this order."""
    if len(chain) == 1:
        return [T]
    s, rest = order[0], order[1:]
    left, right = product([dense(p) for p in chain[:s]]) > 0, product([dense(p) for p in chain[s:]]) > 0
    X, Y = np.zeros(left.shape), np.zeros(right.shape)
    classes = {}
    for k in range(left.shape[1]):
        classes.setdefault((tuple(np.flatnonzero(left[:, k])), tuple(np.flatnonzero(right[k]))), []).append(k)
    for (rows, columns), members in classes.items():
        U, S, Vt = np.linalg.svd(T[np.ix_(rows, columns)], full_matrices=False)
        r = min(len(members), len(S))
        X[np.ix_(rows, members[:r])] = U[:, :r] * S[:r]
        Y[np.ix_(members[:r], columns)] = Vt[:r]
    lower, upper = [t for t in rest if t < s], [t - s for t in rest if t > s]
    return lift(X, chain[:s], lower) + lift(Y, chain[s:], upper)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(chains(largest=60, ranks=6, length=4))
def test_groups_are_taken_apart_without_loss_in_any_order(chain):
    rng = np.random.default_rng(0)
    for g in chain.groups():
        part = chain[g.start : g.stop]
        T = values(part.pattern, rng)
        for order in itertools.permutations(range(1, len(part))):
            factors = lift(T, part, order)
            for K, p in zip(factors, part, strict=True):
                assert not K[dense(p) == 0].any()
            np.testing.assert_allclose(product(factors), T, atol=1e-12 * np.abs(T).max())


@settings(max_examples=80, deadline=None, derandomize=True)
@given(chains(length=6), st.sampled_from([0, 0.5, 1, 1.34, 2, 4]), st.booleans())
def test_merged_factors_hold_the_products_within_the_growth(chain, growth, flip):
    chain = chain.T if flip else chain
    groups, merged = chain.fusions(growth), chain.merged(growth)
    assert [s for g in groups for s in g] == list(range(len(chain)))
    for g, p in zip(groups, merged, strict=True):
        parts = chain[g.start : g.stop]
        support = product([dense(q) for q in parts]) > 0
        assert dense(p)[support].all()
        assert len(g) == 1 or p.n_params <= growth * parts.n_params

    def cost(cuts):
        sizes = []
        for i, j in itertools.pairwise((0, *cuts, len(chain))):
            sizes.append(chain[i:j].hull.n_params)
            if j - i > 1 and sizes[-1] > growth * chain[i:j].n_params:
                return (math.inf, math.inf)
        return len(sizes), sum(sizes)

    inner = range(1, len(chain))
    ways = (cost(cuts) for k in range(len(chain)) for cuts in itertools.combinations(inner, k))
    assert (len(merged), merged.n_params) == min(ways)


def test_dyadic_factors_merge_to_radix_4_and_8():
    assert Chain.dyadic(64).merged(1) == Chain([(1, 4, 4, 16), (4, 4, 4, 4), (16, 4, 4, 1)])
    assert Chain.dyadic(64).merged() == Chain([(1, 8, 8, 8), (8, 8, 8, 1)])
    assert Chain.dyadic(64).T.merged(1) == Chain.dyadic(64).merged(1).T
    assert Chain.dyadic(1024).merged().n_params == 24 * 1024
    assert [len(g) for g in Chain.kaleidoscope(64).fusions(1)] == [2, 8, 2]


def test_with_rank_replaces_the_inner_ranks():
    chain = Chain.deformable([(2, 3), (3, 2), (2, 2)])
    for rank in (1, 2, (3, 1), np.array([2, 5])):
        thick = chain.with_rank(rank)
        assert thick.inner_ranks == tuple(np.broadcast_to(rank, 2))
        assert thick.pattern == chain.pattern
        assert [(p.a, p.d) for p in thick] == [(p.a, p.d) for p in chain]
        assert thick == Chain.deformable([(2, 3), (3, 2), (2, 2)], rank)
        assert thick.with_rank(1) == chain
    assert Chain([(3, 2, 2, 1)]).with_rank(7) == Chain([(3, 2, 2, 1)])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(chains(), st.integers(1, 4))
def test_with_rank_keeps_pattern_and_splits(chain, rank):
    thick = chain.with_rank(rank)
    assert set(thick.inner_ranks) <= {rank}
    assert thick.pattern == chain.pattern
    for s in range(1, len(chain)):
        assert thick[:s].pattern.d == chain[:s].pattern.d
        assert thick[s:].pattern.a == chain[s:].pattern.a
    assert thick.with_rank(chain.inner_ranks) == chain


def test_named_chains():
    assert Chain.dyadic(16) == Chain([(2**l, 2, 2, 8 // 2**l) for l in range(4)])
    assert Chain.dyadic(1) == Chain([(1, 1, 1, 1)])
    assert Chain.dyadic(8, rank=2) == Chain([(1, 2, 4, 4), (2, 4, 4, 2), (4, 4, 2, 1)])
    assert Chain.monarch(6, 20, 3, 4) == Chain([(1, 3, 4, 2), (4, 2, 5, 1)])
    assert Chain.monarch(16, 16, 4, 4, rank=2) == Chain([(1, 4, 8, 4), (4, 8, 4, 1)])
    assert Chain.low_rank(5, 7, 3) == Chain([(1, 5, 3, 1), (1, 3, 7, 1)])
    assert not Chain.low_rank(5, 7, 3).redundant
    assert Chain.low_rank(5, 7, 5).redundant
    assert Chain.deformable([(2, 3), (5, 4)], [6]) == Chain([(1, 2, 18, 5), (3, 30, 4, 1)])
    assert Chain.deformable(np.array([[2, 3], [5, 4]])).shape == (10, 12)
    K = Chain.kaleidoscope(8)
    assert Chain.dyadic(8) @ Chain.dyadic(8).T == K
    assert not K.chainable
    assert len(Chain.kaleidoscope(8, width=2)) == 12
    assert K.simplified() == Chain([*K[:2], (4, 2, 2, 1), *K[4:]])
    for chain in (Chain.dyadic(16), Chain.monarch(6, 20, 3, 4), Chain.deformable([(2, 3), (5, 4)], [6])):
        assert chain.chainable
        assert chain.pattern == Pattern(1, chain.shape[0], chain.shape[1], 1)


def test_chains_are_sequences():
    chain = Chain.dyadic(16)
    assert len(chain) == 4
    assert chain[1] == chain[-3] == Pattern(2, 2, 2, 4)
    assert chain[1:3] == Chain([(2, 2, 2, 4), (4, 2, 2, 2)])
    assert list(chain) == list(chain.patterns) == [chain[s] for s in range(4)]
    assert Pattern(2, 2, 2, 4) in chain
    assert chain.index(Pattern(8, 2, 2, 1)) == 3
    assert eval(repr(chain)) == chain == pickle.loads(pickle.dumps(chain))
    assert Chain(np.array([tuple(p) for p in chain])) == chain
    assert hash(Chain(chain)) == hash(chain)
    assert chain != Chain.dyadic(8)
    assert chain != list(chain)
    assert chain @ chain.T == Chain.kaleidoscope(16)


def enumerated(m, n, rank):
    """The fewest parameters for each number of factors, over all chains without bottleneck, by enumeration."""

    def splits(size, length):
        if length == 1:
            yield (size,)
            return
        for f in range(1, size + 1):
            if size % f == 0:
                yield from ((f, *rest) for rest in splits(size // f, length - 1))

    least = {}
    for length in range(1, 5):
        for b, c in itertools.product(splits(m, length), splits(n, length)):
            a, d, r, total, inner = 1, m, 1, 0, []
            for s in range(length):
                d //= b[s]
                after = rank if s < length - 1 else 1
                total += a * b[s] * r * c[s] * after * d
                a, r = a * c[s], after
                inner.append(a * d)
            if min(inner) >= min(m, n):
                least[length] = min(least.get(length, math.inf), total)
    return least


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("m", "n"), [(12, 12), (8, 12), (24, 18), (16, 16), (36, 16), (7, 24), (30, 9), (1, 12), (11, 13)])
def test_frontier_is_optimal(m, n, rank):
    least = enumerated(m, n, rank)
    chains = Chain.frontier(m, n, rank)
    for chain in chains:
        if len(chain) <= 4:
            assert chain.n_params == least[len(chain)]
    lengths = [k for k in least if least[k] < min((least[j] for j in least if j < k), default=math.inf)]
    assert [len(chain) for chain in chains if len(chain) <= 4] == lengths


@pytest.mark.parametrize("rank", [1, 2])
def test_shortest_chains_of_all_shapes(rank):
    for m, n in itertools.product(range(2, 61), repeat=2):
        chains = Chain.frontier(m, n, rank)
        assert chains[0] == Chain([(1, m, n, 1)])
        assert Chain.shortest(m, n, rank) == chains[-1]
        for shorter, chain in itertools.pairwise(chains):
            assert len(chain) > len(shorter)
            assert chain.n_params < shorter.n_params
        for chain in chains:
            assert chain.shape == (m, n)
            assert chain.pattern == Pattern(1, m, n, 1)
            assert not chain.redundant
            assert set(chain.inner_ranks) <= {rank}
            assert min((p.shape[1] for p in chain.patterns[:-1]), default=math.inf) >= rank * min(m, n)


def test_shortest_keeps_the_budget():
    chains = Chain.frontier(1024, 1024)
    assert [(len(c), c.n_params) for c in chains] == [(1, 2**20), (2, 2**16), (3, 2**15), (4, 24576), (5, 20480)]
    for chain in chains:
        assert Chain.shortest(1024, 1024, params=chain.n_params) == chain
    assert Chain.shortest(1024, 1024, params=10**30) == chains[0]
    assert Chain.shortest(1024, 1024, params=40000) == chains[2]
    assert Chain.shortest(1024, 1024, params=32768) == chains[2]
    assert Chain.shortest(1024, 1024) == Chain([(4**l, 4, 4, 4 ** (4 - l)) for l in range(5)])
    with pytest.raises(ValueError, match="params must be at least 20480 for 1024 x 1024 chains of rank 1; got 20479"):
        Chain.shortest(1024, 1024, params=20479)


def test_prime_sizes_and_huge_ranks_leave_the_dense_matrix():
    assert Chain.frontier(13, 13) == Chain.frontier(13, 13, 5) == (Chain([(1, 13, 13, 1)]),)
    assert Chain.frontier(7, 13) == (Chain([(1, 7, 13, 1)]),)
    assert Chain.frontier(64, 64, rank=10**400) == (Chain([(1, 64, 64, 1)]),)
    assert Chain.frontier(2**24, 2**24, rank=2**20) == (Chain([(1, 2**24, 2**24, 1)]),)
    assert Chain.shortest(7, 64) == Chain([(1, 7, 8, 1), (8, 1, 8, 1)])
    assert Chain.shortest(2**24, 2**24).n_params == 48 * 2**24


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Pattern(0, 1, 1, 1), ValueError, "a must be at least 1; got 0"),
        (lambda: Pattern(1, 2.0, 1, 1), TypeError, r"b must be an integer; got 2\.0"),
        (lambda: Pattern(1, 2, True, 1), TypeError, "c must be an integer; got True"),
        (lambda: Pattern(1, 2, 2, float("nan")), TypeError, "d must be an integer; got nan"),
        (lambda: Chain([]), ValueError, "at least 1 pattern; got none"),
        (lambda: Chain(3), TypeError, "patterns must be an iterable of Pattern or .*; got int"),
        (lambda: Chain([(1, 2, 2)]), TypeError, r"patterns\[0\] must be a Pattern or \(a, b, c, d\); got \(1, 2, 2\)"),
        (lambda: Chain(["1221"]), TypeError, r"patterns\[0\] must be a Pattern or \(a, b, c, d\); got '1221'"),
        (lambda: Chain([(1, 2, 2, 1), (1, 2, -2, 1)]), ValueError, r"c of patterns\[1\] must be at least 1; got -2"),
        (
            lambda: Chain([(1, 2, 2, 1), (1, 2, 3, 1), (1, 2, 2, 1)]),
            ValueError,
            r"patterns\[1\] and patterns\[2\] must have matching sizes; "
            r"got \(1, 2, 3, 1\) with 3 columns and \(1, 2, 2, 1\) with 2 rows",
        ),
        (lambda: Chain.dyadic(12), ValueError, "n must be a power of two; got 12"),
        (lambda: Chain.dyadic(0), ValueError, "n must be at least 1; got 0"),
        (lambda: Chain.monarch(6, 6, 4, 3), ValueError, "p must divide m = 6; got 4"),
        (lambda: Chain.monarch(6, 6, 3, 4), ValueError, "q must divide n = 6; got 4"),
        (lambda: Chain.low_rank(6, 6, 0), ValueError, "r must be at least 1; got 0"),
        (lambda: Chain.kaleidoscope(8, 0), ValueError, "width must be at least 1; got 0"),
        (lambda: Chain.deformable([]), ValueError, "blocks must hold at least 1 pair; got none"),
        (lambda: Chain.deformable(3), TypeError, r"blocks must be an iterable of \(b, c\); got int"),
        (lambda: Chain.deformable([(2, 2), 3]), TypeError, r"blocks\[1\] must be a pair \(b, c\); got 3"),
        (lambda: Chain.deformable([(2, 0)]), ValueError, r"c of blocks\[0\] must be at least 1; got 0"),
        (lambda: Chain.deformable([(2, 2)] * 3, [1, 2, 3]), ValueError, "rank must be an integer or 2 of them, .*; got 3"),
        (lambda: Chain.deformable([(2, 2)] * 3, [1, 0]), ValueError, r"rank\[1\] must be at least 1; got 0"),
        (lambda: Chain.dyadic(8).with_rank(0.5), TypeError, r"rank must be an integer; got 0\.5"),
        (lambda: Chain.dyadic(8).with_rank("22"), TypeError, "rank must be an integer; got '22'"),
        (lambda: Chain.dyadic(8).with_rank(np.array(2.5)), TypeError, r"rank must be an integer; got array\(2\.5\)"),
        (lambda: Chain.frontier(0, 4), ValueError, "m must be between 1 and 16777216; got 0"),
        (lambda: Chain.frontier(4, 2**24 + 1), ValueError, "n must be between 1 and 16777216; got 16777217"),
        (lambda: Chain.shortest(4, 4, rank=0), ValueError, "rank must be at least 1; got 0"),
        (lambda: Chain.shortest(4, 4, params=1.5), TypeError, r"params must be an integer; got 1\.5"),
        (lambda: Chain.dyadic(8).merged(-1), ValueError, "max_growth must be finite and at least 0; got -1"),
        (lambda: Chain.dyadic(8).fusions(math.nan), ValueError, "max_growth must be finite and at least 0; got nan"),
        (lambda: Chain.dyadic(8)[2:2], ValueError, "at least 1 pattern; got none"),
        (lambda: Chain.dyadic(8)[3], IndexError, "out of range"),
        (lambda: Chain.dyadic(8) @ Chain.dyadic(4), ValueError, r"patterns\[2\] and patterns\[3\] must have matching sizes"),
        (lambda: Chain.dyadic(8) @ Pattern(1, 8, 8, 1), TypeError, "unsupported operand"),
        (lambda: Pattern(1, 8, 8, 1) * 2, TypeError, "unsupported operand"),
        (lambda: Pattern(1, 8, 8, 1).chainable_with(2), TypeError, "other must be a Pattern or .*; got 2"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
