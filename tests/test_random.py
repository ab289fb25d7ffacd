"""The generator against known answers and its twin, and the distributions against their laws.

Every statistical test has a fixed seed and size and a false-alarm probability of stats.FALSE_ALARM per gate.
"""

import math

import mpmath
import numpy as np
import oracles
import pytest
import stats
from scipy.stats import norm

import randla
from randla import _cpu

ALL_ONES = 0xFFFFFFFF
# Random123 distribution, tests/kat_vectors, "philox4x32 10".
KNOWN_ANSWERS = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ALL_ONES] * 4, [ALL_ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize("philox", [_cpu.philox, oracles.philox4x32_10], ids=["kernel", "twin"])
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(philox, counter, key, answer):
    words = philox(np.array([counter], np.uint32), key[0] | key[1] << 32)
    np.testing.assert_array_equal(words, [answer])


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 + 12345, 2**64 - 1])
@pytest.mark.parametrize("count", [0, 1, 3, 7, 1000])
def test_philox_equals_its_twin_on_random_counters(seed, count):
    counters = np.random.default_rng(seed).integers(0, 2**32, (count, 4), dtype=np.uint32)
    words = _cpu.philox(counters, seed)
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, oracles.philox4x32_10(counters, seed))


def gaussian_entry(d, seed, i, j):
    """One Gaussian entry in 40 digits."""
    (u0,), (u1,) = oracles.words64([j], [i // 2], oracles.STREAM_GAUSSIAN, seed)
    with mpmath.workdps(40):
        u = mpmath.ldexp(float(u0) + 1.0, -64)
        turn = int(u1) >> 62
        f = float(int(u1) % 2**62) * 2.0**-62 - 0.5
        angle = mpmath.pi / 2 * (turn + mpmath.mpf(f))
        trig = mpmath.sin(angle) if i % 2 else mpmath.cos(angle)
        return mpmath.sqrt(-2 * mpmath.log(u)) * trig / mpmath.sqrt(d)


def test_gaussian_entries_are_within_eight_ulp_of_the_exact_function():
    d, m, seed = 7, 40, 11
    S = randla.Gaussian().sample(d, m, rng=seed).to_dense()
    exact = np.array([[gaussian_entry(d, seed, i, j) for j in range(m)] for i in range(d)])
    ulps = np.abs(np.array((S - exact) / exact, float)) / np.finfo(float).eps
    assert ulps.max() <= 8


@pytest.mark.parametrize(("d", "m"), [(1, 1), (1, 300), (2, 33), (301, 1), (64, 1000)])
def test_gaussian_fill_is_within_eight_ulp_of_its_twin(d, m):
    S = randla.Gaussian().sample(d, m, rng=2**40 + 3)
    twin = oracles.gaussian(d, m, S.seed)
    np.testing.assert_allclose(S.to_dense(), twin, rtol=8 * np.finfo(float).eps)
    # Rounding to float32 may go either way when the float64 entries differ in the last bits.
    np.testing.assert_allclose(S.to_dense(np.float32), twin.astype(np.float32), rtol=np.finfo(np.float32).eps)


def standard_normals(d, m, seed):
    return randla.Gaussian().sample(d, m, rng=seed).to_dense() * math.sqrt(d)


def test_gaussian_entries_are_normal():
    X = standard_normals(100, 2000, seed=1)
    stats.normal_gate(X, "all entries")
    stats.normal_moments_gate(X, "all entries")
    # Even and odd rows are the cosine and the sine of one angle.
    stats.normal_gate(X[::2], "cosine rows")
    stats.normal_gate(X[1::2], "sine rows")


def test_gaussian_tails_have_the_right_weight():
    X = standard_normals(200, 10_000, seed=2)
    assert np.all(np.isfinite(X))
    for threshold in (3.0, 4.0, 4.5):
        beyond = np.count_nonzero(np.abs(X) > threshold)
        stats.binomial_gate(beyond, X.size, 2 * norm.sf(threshold), f"entries beyond {threshold}")


def test_gaussian_entries_are_uncorrelated_across_rows_and_columns():
    X = standard_normals(100, 2000, seed=3)
    for lag in (1, 2, 3, 4, 8, 50):
        stats.correlation_gate(X[lag:], X[:-lag], f"rows at lag {lag}")
    for lag in (1, 2, 4, 8, 16, 64, 1000):
        stats.correlation_gate(X[:, lag:], X[:, :-lag], f"columns at lag {lag}")
    # The two halves of a Box-Muller pair share the radius: only the right law makes their squares independent.
    squares = (X**2 - 1) / math.sqrt(2)
    stats.correlation_gate(squares[::2], squares[1::2], "squares within a pair")


@pytest.mark.parametrize("step", [1, 2**32])
def test_neighbouring_seeds_give_unrelated_gaussians(step):
    a, b = standard_normals(50, 2000, seed=7), standard_normals(50, 2000, seed=7 + step)
    stats.correlation_gate(a, b, f"seeds {step} apart")


def test_sparse_stack_rows_are_uniform_in_each_block():
    d, m, z = 97, 20_000, 8
    S = randla.SparseStack(nnz=z).sample(d, m, rng=4).to_dense()
    hits = np.count_nonzero(S, axis=1)
    sizes = oracles.split(d, z)
    for t, start in enumerate(np.cumsum(sizes) - sizes):
        stats.chi_square_gate(hits[start : start + sizes[t]], 1 / sizes[t], f"block {t}")


def test_sparse_stack_blocks_are_filled_independently():
    d, m = 26, 20_000
    S = randla.SparseStack(nnz=2).sample(d, m, rng=5).to_dense()
    first, second = np.argmax(S[:13] != 0, axis=0), np.argmax(S[13:] != 0, axis=0)
    stats.chi_square_gate(np.bincount(13 * first + second, minlength=169), 1 / 169, "pairs of rows")
    stats.chi_square_gate(np.bincount(13 * first[1:] + first[:-1], minlength=169), 1 / 169, "neighbouring columns")


def test_count_sketch_rows_are_uniform():
    d = 1000
    S = randla.CountSketch().sample(d, 60_000, rng=6)
    hits = sum(np.count_nonzero(S[:, j : j + 10_000], axis=1) for j in range(0, 60_000, 10_000))
    stats.chi_square_gate(hits, 1 / d, "rows")


def test_sparse_sign_rows_are_uniform():
    d, m, z = 97, 20_000, 8
    S = randla.SparseSign(nnz=z).sample(d, m, rng=8).to_dense()
    # z rows of a column are drawn without replacement, which shrinks the covariance by (d - z) / (d - 1).
    stats.chi_square_gate(np.count_nonzero(S, axis=1), 1 / d, "rows", scale=(d - 1) / (d - z))


def test_sparse_sign_draws_every_subset_of_rows_equally_often():
    d, z = 7, 3
    S = randla.SparseSign(nnz=z).sample(d, 20_000, rng=9).to_dense()
    _, counts = np.unique((S != 0).T @ 2 ** np.arange(d), return_counts=True)
    assert counts.size == math.comb(d, z)
    stats.chi_square_gate(counts, 1 / counts.size, "subsets")


def test_less_uniform_columns_are_uniform():
    d, m, z = 4000, 97, 8
    S = randla.LessUniform(z).sample(d, m, rng=15).to_dense()
    # Drawn without replacement, as for SparseSign.
    stats.chi_square_gate(np.count_nonzero(S, axis=0), 1 / m, "columns", scale=(m - 1) / (m - z))
    columns = [np.flatnonzero(row) for row in S]
    lowest = np.bincount([c[0] for c in columns], minlength=m)
    # The smallest of z of m numbers is c with probability C(m - 1 - c, z - 1) / C(m, z).
    law = np.array([math.comb(m - 1 - c, z - 1) for c in range(m)]) / math.comb(m, z)
    pooled = np.r_[lowest[:20], lowest[20:].sum()], np.r_[law[:20], law[20:].sum()]
    stats.chi_square_gate(*pooled, "smallest column of a row")


def test_less_uniform_draws_every_subset_of_columns_equally_often():
    m, z = 7, 3
    S = randla.LessUniform(z).sample(20_000, m, rng=16).to_dense()
    _, counts = np.unique((S != 0) @ 2 ** np.arange(m), return_counts=True)
    assert counts.size == math.comb(m, z)
    stats.chi_square_gate(counts, 1 / counts.size, "subsets")


def drawn_rows(distribution, d, m, seed):
    return np.argmax(distribution.sample(d, m, rng=seed).to_dense() != 0, axis=1)


def test_row_samples_are_uniform_and_independent():
    rows = drawn_rows(randla.RowSample(), 60_000, 97, seed=17)
    stats.chi_square_gate(np.bincount(rows, minlength=97), 1 / 97, "rows")
    small = drawn_rows(randla.RowSample(), 60_000, 13, seed=18)
    stats.chi_square_gate(np.bincount(13 * small[1:] + small[:-1], minlength=169), 1 / 169, "neighbouring draws")


def test_row_samples_follow_their_probabilities():
    p = np.r_[0, np.arange(1, 50), 0, np.full(10, 2.5)]
    rows = drawn_rows(randla.RowSample(p), 60_000, len(p), seed=19)
    counts = np.bincount(rows, minlength=len(p))
    assert not np.any(counts[p == 0])
    stats.chi_square_gate(counts[p > 0], p[p > 0] / p.sum(), "rows")


@pytest.mark.parametrize(("d", "n"), [(10, 97), (97, 97), (64, 100)])
def test_kept_rows_of_a_transform_are_uniform(d, n):
    draws = 3000 if d < 50 else 400
    kept = np.stack([_cpu.transform_rows(d, n, seed) for seed in range(draws)])
    # d of n without replacement: the law of one draw shrunk as for SparseSign.
    if d < n:
        stats.chi_square_gate(np.bincount(kept.ravel(), minlength=n), 1 / n, "kept rows", scale=(n - 1) / (n - d))
    # The first, a middle and the last place each see every row equally often, and as often above their neighbour as below.
    places = np.stack([kept[:, 0], kept[:, d // 2], kept[:, -1]], axis=1) * 10 // n
    for k, name in enumerate(("first", "middle", "last")):
        size = np.bincount(np.arange(n) * 10 // n, minlength=10)
        stats.chi_square_gate(np.bincount(places[:, k], minlength=10), size / n, f"{name} place")
    stats.binomial_gate(np.count_nonzero(kept[:, 0] < kept[:, -1]), draws, 0.5, "order of two places")


def test_shuffles_are_uniform_over_all_permutations():
    kept = np.stack([_cpu.transform_rows(4, 4, seed) for seed in range(6000)])
    _, counts = np.unique(kept @ 4 ** np.arange(4), return_counts=True)
    assert counts.size == 24
    stats.chi_square_gate(counts, 1 / 24, "permutations of four")
    again = np.stack([_cpu.transform_rows(8, 4, seed)[4:] for seed in range(6000)])
    _, both = np.unique(24 * (kept[:, 0] * 4 + kept[:, 1]) + again[:, 0] * 4 + again[:, 1], return_counts=True)
    assert both.size == 144
    stats.chi_square_gate(both, 1 / 144, "two shuffles one after the other")


@pytest.mark.parametrize("make", [randla.Rademacher(), randla.SRTT(rounds=1)], ids=["rademacher", "srtt"])
def test_dense_signs_are_balanced_and_uncorrelated(make):
    d, m = 256, 1024
    X = make.sample(d, m, rng=20).to_dense() * math.sqrt(d)
    np.testing.assert_allclose(np.abs(X), 1, rtol=1e-15)
    first = X[0]
    stats.binomial_gate(np.count_nonzero(first > 0), m, 0.5, "signs of a row")
    stats.correlation_gate(first[1:], first[:-1], "neighbouring columns")


def test_rademacher_signs_are_independent_between_rows_and_columns():
    X = randla.Rademacher().sample(300, 2000, rng=21).to_dense() * math.sqrt(300)
    stats.binomial_gate(np.count_nonzero(X > 0), X.size, 0.5, "all signs")
    # Rows 64, 128 and 256 apart come from other halves and other words of the generator.
    for lag in (1, 2, 63, 64, 65, 128, 256):
        stats.correlation_gate(X[lag:], X[:-lag], f"rows at lag {lag}")
    for lag in (1, 2, 8, 16, 1000):
        stats.correlation_gate(X[:, lag:], X[:, :-lag], f"columns at lag {lag}")


SPARSE = [randla.SparseStack(), randla.SparseSign(), randla.CountSketch()]


@pytest.mark.parametrize("distribution", SPARSE, ids=["stack", "sign", "count"])
def test_signs_of_sparse_families_are_balanced_and_uncorrelated(distribution):
    m = 4096
    S = distribution.sample(96, m, rng=0).to_dense()
    stats.binomial_gate(np.count_nonzero(S > 0), np.count_nonzero(S), 0.5, "all signs")
    top = np.sign(S[np.argmax(S != 0, axis=0), np.arange(m)])
    stats.correlation_gate(top[1:], top[:-1], "signs of neighbouring columns")
    # A sign that leaked from the bits that choose the row would favour the upper or the lower rows.
    stats.binomial_gate(np.count_nonzero(S[:48] > 0), np.count_nonzero(S[:48]), 0.5, "signs in the upper half")


def test_signs_of_block_srht_are_balanced_and_uncorrelated():
    block, m = 32, 8 * 64 * 32
    S = randla.BlockSRHT(block).sample(96, m, rng=10).to_dense()
    top = np.sign(S[np.argmax(S != 0, axis=0), np.arange(m)])
    stats.binomial_gate(np.count_nonzero(top > 0), m, 0.5, "one sign per column")
    stats.correlation_gate(top[1:], top[:-1], "signs of neighbouring columns")
    # The first 64 columns of a window lie in 64 groups: all their signs are independent.
    for w in range(0, m, 64 * block):
        lane = S[:, w : w + 64]
        stats.binomial_gate(np.count_nonzero(lane > 0), np.count_nonzero(lane), 0.5, f"lane 0 of the window at {w}")


def test_block_srht_spreads_windows_evenly_over_blocks():
    block, blocks, windows = 16, 5, 400
    width = 64 * block
    S = randla.BlockSRHT(block).sample(block * blocks, width * windows, rng=12)
    first = np.hstack([S[:, width * w : width * w + 1] for w in range(windows)])
    target = np.argmax(first != 0, axis=0) // block
    stats.chi_square_gate(np.bincount(target, minlength=blocks), 1 / blocks, "blocks of the first row of a window")


def test_families_use_separate_streams():
    d, m, seed = 64, 5000, 13
    stack = randla.SparseStack(nnz=1).sample(d, m, rng=seed).to_dense()
    sign = randla.SparseSign(nnz=1).sample(d, m, rng=seed).to_dense()
    # Two independent uniform rows agree with probability 1 / d.
    agree = np.count_nonzero((stack != 0) & (sign != 0))
    stats.z_gate((agree - m / d) / math.sqrt(m / d * (1 - 1 / d)), "rows shared by two families")
    # One entry per row: the column of LessUniform and that of RowSample.
    less, rows = (drawn_rows(distribution, m, d, seed) for distribution in (randla.LessUniform(1), randla.RowSample()))
    stats.z_gate((np.count_nonzero(less == rows) - m / d) / math.sqrt(m / d * (1 - 1 / d)), "columns shared by two families")
    gaussian, signs = (
        distribution.sample(d, m, rng=seed).to_dense() for distribution in (randla.Gaussian(), randla.Rademacher())
    )
    stats.correlation_gate(math.sqrt(d) * gaussian, math.sqrt(d) * signs, "entries of two dense families")


def test_gates_reject_small_defects():
    rng = np.random.default_rng(14)
    x = rng.standard_normal(200_000)
    wrong = [
        lambda: stats.normal_gate(1.03 * x, "scale off by 3 percent"),
        lambda: stats.normal_moments_gate(x + 0.02, "shifted"),
        lambda: stats.correlation_gate(x, 0.02 * x + rng.standard_normal(x.size), "2 percent shared"),
        lambda: stats.binomial_gate(2250, 4096, 0.5, "55 percent positive"),
        lambda: stats.chi_square_gate([1400] + [1000] * 19, 1 / 20, "one heavy cell"),
    ]
    for gate in wrong:
        with pytest.raises(AssertionError, match="is below"):
            gate()
