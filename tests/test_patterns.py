"""Patterns against dense supports: boolean products, counts of rank-one supports, dimensions of tangent spaces."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
from pattern_oracles import SMALL, dense, dimension, rank_one_supports

from randla.structured.pattern import Chain, Pattern


def test_supports_are_kronecker_products():
    for p in SMALL:
        support = p.support()
        assert support.dtype == bool
        assert support.format == "csr"
        assert support.has_sorted_indices
        np.testing.assert_array_equal(support.toarray(), dense(p))
        np.testing.assert_array_equal(p.to_dense(), dense(p))
        np.testing.assert_array_equal(p.T.to_dense(), dense(p).T)
        assert p.shape == dense(p).shape
        assert p.n_params == dense(p).sum() == support.nnz
        assert p.density == pytest.approx(dense(p).mean())


def test_values_sit_at_the_documented_entries():
    p = Pattern(2, 3, 4, 5)
    placed = np.zeros(p.shape, int)
    for i, j, k, l in np.ndindex(2, 3, 4, 5):
        placed[i * 3 * 5 + j * 5 + l, i * 4 * 5 + k * 5 + l] += 1
    np.testing.assert_array_equal(placed, p.to_dense())


def test_patterns_are_values():
    p = Pattern(np.int64(2), 3, 4, np.uint8(5))
    assert p == Pattern(2, 3, 4, 5) != Pattern(2, 3, 5, 4)
    assert {p: 1}[Pattern(2, 3, 4, 5)] == 1
    assert all(type(x) is int for x in p)
    assert eval(repr(p)) == p == pickle.loads(pickle.dumps(p))
    assert tuple(p) == (2, 3, 4, 5)
    assert p == p.T.T
    with pytest.raises(AttributeError):
        p.a = 3


def test_every_entry_of_a_product_is_a_sum_of_rank_terms():
    """All pairs up to size 12: chainability by its definition, the product by counting, rank-one supports by listing."""
    chainable = 0
    for p, q in itertools.product(SMALL, SMALL):
        sizes = p.shape[1] == q.shape[0]
        expected = sizes and q.a % p.a == 0 and p.d % q.d == 0 and p.a * p.c % q.a == 0 and q.b * q.d % p.d == 0
        assert p.chainable_with(q) == expected
        assert (p.why_not(q) is None) == expected
        if not expected:
            continue
        chainable += 1
        r = p.rank_with(q)
        assert r == p.a * p.c // q.a == q.b * q.d // p.d
        np.testing.assert_array_equal(dense(p) @ dense(q), r * dense(p * q))
        supports = rank_one_supports(p, q)
        assert set(supports.values()) == {r}
        assert sum(len(rows) * len(columns) for rows, columns in supports) == (p * q).n_params
        assert {(len(rows), len(columns)) for rows, columns in supports} == {(p.b, q.c)}
        complete = all(count >= min(len(rows), len(columns)) for (rows, columns), count in supports.items())
        assert p.redundant_with(q) == complete
        assert not complete or (p * q).n_params < p.n_params + q.n_params
    assert chainable > 500


def test_redundant_pairs_are_those_that_fill_their_pattern():
    rng = np.random.default_rng(0)
    pairs = [(p, q) for p, q in itertools.product(SMALL, SMALL) if p.chainable_with(q) and (p * q).n_params <= 40]
    outcomes = Counter()
    for i in rng.permutation(len(pairs))[:150]:
        p, q = pairs[i]
        full = dimension([p, q], rng) == (p * q).n_params
        assert p.redundant_with(q) == full, (p, q)
        outcomes[full] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize(
    ("p", "q", "reason"),
    [
        ((1, 2, 2, 1), (1, 3, 2, 1), "2 columns against 3 rows"),
        ((2, 2, 2, 1), (1, 4, 2, 1), "a = 2 of the first does not divide a = 1 of the second"),
        ((1, 2, 4, 1), (1, 2, 2, 2), "d = 2 of the second does not divide d = 1 of the first"),
        ((1, 1, 2, 6), (4, 1, 1, 3), "a c = 2 of the first is no multiple of a = 4 of the second"),
    ],
)
def test_pairs_that_are_not_chainable_say_why(p, q, reason):
    first, second = Pattern(*p), Pattern(*q)
    assert first.why_not(second) == reason
    assert not first.chainable_with(second)
    assert not first.redundant_with(second)
    pattern = f"patterns must be chainable; got {p} and {q}: {reason}"
    for call in (lambda: first * second, lambda: first.rank_with(second)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call()
        assert str(caught.value) == pattern
    if first.shape[1] != second.shape[0]:
        return
    chain = Chain([(1, 1, 1, first.shape[0]), first, second])
    chain = Chain([first, second]) if chain[0].why_not(first) else chain
    s = len(chain) - 2
    assert chain.why_not == f"patterns[{s}] = {p} and patterns[{s + 1}] = {q}: {reason}"
    assert not chain.chainable
    for call in (lambda: chain.pattern, lambda: chain.inner_ranks, lambda: chain.with_rank(2)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call()
        assert str(caught.value) == f"the chain must be chainable; got {chain.why_not}"


def test_supports_of_large_patterns_stay_sparse():
    support = Chain.dyadic(2**16)[7].support()
    assert support.nnz == 2 * 2**16
    assert sp.issparse(support)
    np.testing.assert_array_equal(support.sum(axis=0), np.full(2**16, 2))
