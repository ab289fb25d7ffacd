"""What a sketch is: its entries, its structure, its identity as a value, and its quality as an embedding."""

import math
import pickle
from functools import cache

import numpy as np
import oracles
import pytest
import stats
from conftest import COSINE, DEFAULTS, FAMILIES

import randla
from randla import _check, _cpu

pytestmark = pytest.mark.usefixtures("one_blas_thread")

EPS = np.finfo(float).eps
SHAPES = [(1, 1), (1, 90), (2, 3), (7, 5), (40, 7), (97, 63), (97, 64), (97, 65), (130, 1023), (300, 1300)]
# Around one window of BlockSRHT and of the blocked kernels.
SHAPES += [(64, 4095), (65, 4096), (33, 4097), (20, 9000)]


# The cosine twin is a dense matrix of order m.
ENTRIES = [(name, d, m) for name in FAMILIES for d, m in SHAPES if name not in COSINE or m <= 1300]


def assert_entries(name, got, twin, m, d):
    """Equal up to the last places of an entry; for cosine transforms, of the largest one."""
    if name not in COSINE:
        np.testing.assert_array_equal(np.sign(got), np.sign(twin))
    np.testing.assert_allclose(got, twin, rtol=8 * EPS, atol=16 * EPS * math.sqrt(m / d) if name in COSINE else 0)


@pytest.mark.parametrize(("name", "d", "m"), ENTRIES)
@pytest.mark.parametrize("seed", [3, 2**64 - 5])
def test_entries_equal_the_definition(name, d, m, seed):
    S = FAMILIES[name].sample(d, m, rng=seed)
    dense = S.to_dense()
    assert dense.shape == S.shape == (d, m)
    assert dense.dtype == np.float64
    assert_entries(name, dense, oracles.sketch(FAMILIES[name], d, m, seed), m, d)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in COSINE])
def test_values_are_rounded_once(name):
    # Everything but a Gaussian is a sign times one constant, and the twin rounds that constant once as well.
    S, twin = FAMILIES[name].sample(97, 700, rng=3), oracles.sketch(FAMILIES[name], 97, 700, 3)
    assert np.max(np.abs(S.to_dense() - twin) / np.where(twin == 0, 1, np.abs(twin))) <= (8 if name == "gaussian" else 1) * EPS


def test_float32_entries_are_the_float64_ones_rounded(distribution):
    S = distribution.sample(50, 300, rng=1)
    single = S.to_dense(dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, S.to_dense().astype(np.float32))


BY_COLUMNS = ["gaussian", "rademacher", "stack", "stack3", "sign", "sign5", "count", "srht", "srht16", "srht32", "srht128"]


@pytest.mark.parametrize("name", BY_COLUMNS)
@pytest.mark.parametrize("first", [2**31 - 3, 2**32 - 4, 2**33 + 4090])
def test_columns_beyond_32_bits_equal_the_definition(name, first):
    m = 2**34 + 1
    S = FAMILIES[name].sample(48, m, rng=2)
    twin = oracles.sketch(FAMILIES[name], 48, m, 2, columns=np.arange(first, first + 9))
    np.testing.assert_allclose(S[:, first : first + 9], twin, rtol=8 * EPS)


def listed(distribution, d, m, seed):
    """(row, column, value) of every entry of a family that lists its entries row by row."""
    if isinstance(distribution, randla.RowSample):
        return oracles.row_sample_entries(d, m, seed, distribution.probabilities)
    return oracles.less_uniform_entries(d, m, seed, distribution.nnz)


@pytest.mark.parametrize("name", ["less", "less5", "rows"])
@pytest.mark.parametrize("m", [2**33 + 7, 2**61 + 1])
def test_entries_far_to_the_right_lie_where_the_definition_says(name, m):
    S = FAMILIES[name].sample(40, m, rng=2)
    entries = listed(FAMILIES[name], 40, m, 2)
    assert max(c for _, c, _ in entries) > m // 2
    for i, c, value in entries[:60]:
        around = S[:, c - 1 : c + 2]
        assert np.count_nonzero(around) == 1
        np.testing.assert_allclose(around[i, 1], value, rtol=4 * EPS)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(None), slice(None)),
        (slice(0, 1), slice(0, 1)),
        (slice(3, 50), slice(60, 70)),
        (slice(7, 8), slice(None)),
        (slice(63, 66), slice(1000, 1100)),
        (slice(None), slice(1029, 1030)),
        (slice(-5, None), slice(-9, -1)),
        (slice(5, 5), slice(2, 9)),
        (slice(90, 1000), slice(1020, 9999)),
    ],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_are_slices_of_the_whole(name, rows, columns):
    S = FAMILIES[name].sample(97, 1030, rng=4)
    part = S[rows, columns]
    atol = 16 * EPS * math.sqrt(1030 / 97) if name in COSINE else 0
    assert part.dtype == np.float64
    np.testing.assert_allclose(part, S.to_dense()[rows, columns], rtol=0, atol=atol)


@pytest.mark.parametrize(("d", "m"), [(3, 40), (97, 2000), (640, 5000)])
@pytest.mark.parametrize("name", ["stack", "stack3", "sign", "sign5", "count"])
def test_sparse_columns_have_exactly_nnz_entries_of_equal_size(name, d, m):
    distribution = FAMILIES[name]
    z = min(getattr(distribution, "nnz", 1), d)
    S = distribution.sample(d, m, rng=5).to_dense()
    # Rows that collided would leave fewer entries, or larger ones.
    assert np.all(np.count_nonzero(S, axis=0) == z)
    np.testing.assert_allclose(np.abs(S[S != 0]), 1 / math.sqrt(z), rtol=EPS)


@pytest.mark.parametrize(("d", "z"), [(96, 8), (97, 8), (8, 8), (5, 8), (10, 3)])
def test_sparse_stack_has_one_entry_per_block_of_rows(d, z):
    S = randla.SparseStack(nnz=z).sample(d, 500, rng=6).to_dense()
    ends = np.cumsum(oracles.split(d, min(z, d)))
    for block in np.split(S, ends[:-1]):
        assert np.all(np.count_nonzero(block, axis=0) == 1)


@pytest.mark.parametrize("name", [name for name in BY_COLUMNS if name != "gaussian"])
@pytest.mark.parametrize(("d", "m"), [(1, 9), (97, 4097), (256, 9000), (500, 40)])
def test_columns_have_norm_one(name, d, m):
    S = FAMILIES[name].sample(d, m, rng=7).to_dense()
    np.testing.assert_allclose(np.linalg.norm(S, axis=0), 1, rtol=20 * EPS)


@pytest.mark.parametrize("nnz", [1, 5, 64, 256])
@pytest.mark.parametrize(("d", "m"), [(3, 40), (97, 2000), (640, 5000)])
def test_less_uniform_rows_have_exactly_nnz_entries_of_equal_size(nnz, d, m):
    S = randla.LessUniform(nnz).sample(d, m, rng=5).to_dense()
    z = min(nnz, m)
    assert np.all(np.count_nonzero(S, axis=1) == z)
    np.testing.assert_allclose(np.abs(S[S != 0]), math.sqrt(m / (z * d)), rtol=EPS)


def test_rows_of_a_sample_are_weighted_unit_vectors():
    S = randla.RowSample().sample(50, 300, rng=5).to_dense()
    assert np.all(np.count_nonzero(S, axis=1) == 1)
    np.testing.assert_allclose(S.max(axis=1), math.sqrt(300 / 50), rtol=EPS)


@pytest.mark.parametrize(("transform", "m", "n"), [("hadamard", 64, 64), ("hadamard", 50, 64), ("dct", 50, 50), ("dct", 1, 1)])
@pytest.mark.parametrize("rounds", [1, 2, 8])
def test_all_rows_of_a_transform_are_orthogonal(transform, m, n, rounds):
    S = randla.SRTT(transform, rounds).sample(n, m, rng=5).to_dense()
    np.testing.assert_allclose(S.T @ S, np.eye(m), atol=32 * EPS)


@pytest.mark.parametrize(("d", "n"), [(1, 1), (5, 1), (64, 64), (97, 97), (10, 1000), (200, 64), (300, 97)])
def test_a_transform_keeps_distinct_rows_until_all_are_kept(d, n):
    kept = _cpu.transform_rows(d, n, 6)
    np.testing.assert_array_equal(kept, oracles.kept_rows(d, n, 6))
    shuffles = [kept[k : k + n] for k in range(0, d, n)]
    for shuffle in shuffles:
        assert len(set(shuffle.tolist())) == len(shuffle)
        assert shuffle.min() >= 0
        assert shuffle.max() < n
    # One shuffle that repeated another would lose the independence of its rows.
    assert len({shuffle[:20].tobytes() for shuffle in shuffles}) == (len(shuffles) if n > 1 else 1)


@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_block_srht_maps_each_group_by_orthogonal_columns(block):
    S = randla.BlockSRHT(block).sample(block, 64 * block, rng=8).to_dense()
    inner = (S[:, :64].T @ S).reshape(64, block, 64)
    b = np.arange(64)
    for a in range(1, block):
        # The groups pair slab 0 with slab a by some rotation, which is not known here but shows in zero inner products.
        by_rotation = np.array([np.abs(inner[b, a, (b + k) % 64]).max() for k in range(64)])
        assert np.count_nonzero(by_rotation < 1e-14) == 1


@pytest.mark.parametrize("x", [np.ones(300), np.linspace(-1, 2, 300), np.eye(300)[17]], ids=["ones", "ramp", "unit"])
def test_squared_norms_are_kept_on_average(family, x):
    d, draws = 24, 1000
    ratios = np.array([np.sum((family.sample(d, 300, rng=seed) @ x) ** 2) for seed in range(draws)]) / (x @ x)
    spread = ratios.std(ddof=1)
    # Families whose columns have norm one keep a unit vector exactly; otherwise the mean is as good as normal.
    assert abs(ratios.mean() - 1) <= 1e-14 + stats.Z_LIMIT * spread / math.sqrt(draws)


@pytest.mark.parametrize("d", [5, 40])
def test_the_expectation_of_the_gram_matrix_is_the_identity(family, d):
    m, draws = 13, 1000
    grams = np.array([S.T @ S for S in (family.sample(d, m, rng=seed).to_dense() for seed in range(draws))])
    spread = grams.std(axis=0, ddof=1)
    assert np.all(np.abs(grams.mean(axis=0) - np.eye(m)) <= 1e-13 + stats.Z_LIMIT * spread / math.sqrt(draws))


def embedding_inputs(m, n):
    """Orthonormal bases: spread out, and concentrated or aligned in ways that strain a structured sketch."""
    rng = np.random.default_rng(9)
    gaussian = rng.standard_normal((m, n))
    contiguous, strided, mixed = np.zeros((m, n)), np.zeros((m, n)), gaussian.copy()
    contiguous[m // 8 + np.arange(n), np.arange(n)] = 1
    strided[m // n * np.arange(n), np.arange(n)] = 1
    mixed[:, n // 2 :] = strided[:, n // 2 :]
    heavy = gaussian.copy()
    heavy[m // 3] *= 1e6
    side = math.isqrt(n)
    product = np.zeros((m, n))
    product[: m // 32 * 32] = np.kron(rng.standard_normal((32, side)), rng.standard_normal((m // 32, side)))
    bases = {
        "haar": gaussian,
        "contiguous": contiguous,
        "strided": strided,
        "heavy row": heavy,
        "mixed": mixed,
        "product": product,
    }
    return {name: np.linalg.qr(Q)[0] for name, Q in bases.items()}


def conditions(distribution, A, count, d, seed):
    """cond(S Q) for each of the `count` bases Q side by side in A."""
    blocks = (distribution.sample(d, len(A), rng=seed) @ A).reshape(d, count, -1)
    eigenvalues = np.linalg.eigvalsh(np.stack([blocks[:, k].T @ blocks[:, k] for k in range(count)]))
    return np.sqrt(eigenvalues[:, -1] / np.maximum(eigenvalues[:, 0], 1e-30))


@cache
def embedding_conditions(distribution, m, n, ratio, seeds=20):
    """cond(S Q) of every seed, for each input."""
    inputs = embedding_inputs(m, n)
    A = np.hstack(list(inputs.values()))
    found = [conditions(distribution, A, len(inputs), ratio * n, seed) for seed in range(seeds)]
    return dict(zip(inputs, np.transpose(found), strict=True))


def worst_conditions(distribution, m, n, ratio, seeds=20):
    return {name: found.max() for name, found in embedding_conditions(distribution, m, n, ratio, seeds).items()}


def marchenko_pastur(ratio):
    edge = math.sqrt(1 / ratio)
    return (1 + edge) / (1 - edge)


# cond(S Q) over its Marchenko-Pastur value, which Gaussian sketches attain: bounds for d / n = 4, 8, 20 on the worst of 20
# seeds and on their geometric mean. From 60 other seeds: Gumbel and normal laws fitted to the logarithms put the probability
# that a right sketch fails one of these gates below 1e-6.
SPREAD, CONCENTRATED = ("haar", "heavy row", "product"), ("contiguous", "strided", "mixed")
BOUNDS = {4: (1.6, 1.01), 8: (1.35, 1.01), 20: (1.2, 1.01)}
EIGHT = {4: (1.9, 1.045), 8: (1.65, 1.055), 20: (1.65, 1.08)}
# Family, m, bounds for the concentrated bases.
GATES = {
    "gaussian": (randla.Gaussian(), 1024, BOUNDS),
    "rademacher": (randla.Rademacher(), 1024, BOUNDS),
    "stack": (randla.SparseStack(), 8192, EIGHT),
    "stack4": (randla.SparseStack(4), 8192, {4: (3.4, 1.2), 8: (2.8, 1.2), 20: (2.9, 1.25)}),
    "sign": (randla.SparseSign(), 8192, EIGHT),
    # Strided rows land in the blocks like balls in boxes.
    "srht": (randla.BlockSRHT(), 8192, {4: (3.7, 1.15), 8: (2.85, 1.16), 20: (2.85, 1.19)}),
    "srht128": (randla.BlockSRHT(128), 20_000, {4: (2.0, 1.05), 8: (2.1, 1.1), 20: (2.55, 1.15)}),
    "srtt": (randla.SRTT(), 5000, BOUNDS),
    "dct": (randla.SRTT("dct"), 5000, BOUNDS),
}


@pytest.mark.parametrize("ratio", [4, 8, 20])
@pytest.mark.parametrize("name", GATES)
def test_subspaces_keep_their_geometry(name, ratio):
    distribution, m, concentrated = GATES[name]
    found = embedding_conditions(distribution, m, 64, ratio)
    for inputs, (worst, mean) in ((SPREAD, BOUNDS[ratio]), (CONCENTRATED, concentrated[ratio])):
        for key in inputs:
            relative = found[key] / marchenko_pastur(ratio)
            assert relative.max() <= worst, key
            assert np.exp(np.log(relative).mean()) <= mean, key


@pytest.mark.parametrize("ratio", [4, 20])
def test_count_sketch_is_seen_to_fail_on_coordinate_subspaces(ratio):
    # 64 columns in 20 * 64 rows collide with probability 0.8 per seed; if this passed, the gate above could not fail.
    worst = worst_conditions(randla.CountSketch(), 8192, 64, ratio)
    assert worst["contiguous"] > 1e6
    assert worst["strided"] > 1e6
    assert worst["haar"] <= 1.6 * marchenko_pastur(ratio)


def test_one_round_of_a_transform_is_seen_to_fail_where_two_do_not():
    # 64 strided coordinates see only 64 different rows of a Hadamard matrix, some of which 256 draws miss.
    one, two = (worst_conditions(randla.SRTT(rounds=rounds), 8192, 64, 4) for rounds in (1, 2))
    for name in ("contiguous", "strided"):
        assert one[name] > 1e6
        assert two[name] <= 1.6 * marchenko_pastur(4)
    assert one["mixed"] > 1.4 * two["mixed"]
    assert one["haar"] <= 1.6 * marchenko_pastur(4)
    cosine = worst_conditions(randla.SRTT("dct", rounds=1), 8192, 64, 4)
    assert cosine["contiguous"] > 1.6 * marchenko_pastur(4)


def test_sampling_rows_uniformly_is_seen_to_fail_on_coherent_matrices():
    for distribution in (randla.RowSample(), randla.LessUniform(4)):
        worst = worst_conditions(distribution, 8192, 64, 20, seeds=5)
        for name in CONCENTRATED:
            assert worst[name] > 1e6
        assert worst["product"] <= 2 * marchenko_pastur(20)


def leverage(Q):
    return np.sum(Q * Q, axis=1)


@pytest.mark.parametrize("name", ["haar", *CONCENTRATED, "heavy row"])
def test_sampling_rows_by_leverage_keeps_every_subspace(name):
    Q = embedding_inputs(8192, 64)[name]
    distribution = randla.RowSample(leverage(Q))
    found = np.array([conditions(distribution, Q, 1, 20 * 64, seed)[0] for seed in range(20)]) / marchenko_pastur(20)
    # One of 64 equal coordinates is missed with probability 64 exp(-20) per seed; hit once, it costs a factor below 4.5.
    assert found.max() <= 4.5
    assert np.exp(np.log(found).mean()) <= 1.3


def test_weights_of_sampled_rows_make_products_unbiased():
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((60, 2)) * np.linspace(0, 3, 60)[:, None], rng.standard_normal((60, 3))
    distribution = randla.RowSample(np.linalg.norm(A, axis=1) * np.linalg.norm(B, axis=1))
    draws = []
    for seed in range(1000):
        S = distribution.sample(10, 60, rng=seed)
        draws.append((S @ A).T @ (S @ B))
    z = (np.mean(draws, axis=0) - A.T @ B) / (np.std(draws, axis=0, ddof=1) / math.sqrt(len(draws)))
    for value in z.ravel():
        stats.z_gate(value, "entry of A'B")


@pytest.mark.parametrize("make", [np.random.SeedSequence, np.random.PCG64, np.random.default_rng, int, np.uint32])
def test_equal_sources_of_randomness_give_equal_sketches(family, make):
    S, again, other = (family.sample(20, 30, rng=make(seed)) for seed in (11, 11, 12))
    assert again == S
    np.testing.assert_array_equal(S.to_dense(), again.to_dense())
    assert np.any(S.to_dense() != other.to_dense())


@pytest.mark.parametrize("rng", [lambda: None, lambda: 0, lambda: 2**64 - 1, lambda: np.random.default_rng(3)])
def test_seed_replays_a_sketch(family, rng):
    S = family.sample(20, 30, rng=rng())
    assert type(S.seed) is int
    assert 0 <= S.seed < 2**64
    again = family.sample(20, 30, rng=S.seed)
    assert again == S
    assert again.seed == S.seed
    np.testing.assert_array_equal(S.to_dense(), again.to_dense())


def test_a_generator_advances_and_none_is_fresh():
    rng = np.random.default_rng(4)
    assert len({randla.SparseStack().sample(9, 9, rng=rng).seed for _ in range(20)}) == 20
    assert len({_check.seed.__wrapped__(None) for _ in range(20)}) == 20


def test_integers_beyond_64_bits_are_hashed_to_seeds():
    seeds = {randla.SparseStack().sample(9, 9, rng=seed).seed for seed in (0, 2**64, 2**65, 2**64, 2**200)}
    assert len(seeds) == 4
    assert max(seeds) < 2**64


def test_sketches_are_values(distribution):
    S = distribution.sample(2000, 10**12, rng=5)
    assert S.distribution == distribution
    others = [distribution.sample(2000, 10**12, rng=6), distribution.sample(1999, 10**12, rng=5), "S"]
    assert all(other != S for other in others)
    assert len({S, distribution.sample(2000, 10**12, rng=5)}) == 1
    for word in (type(distribution).__name__, "2000", "1000000000000", "5"):
        assert word in repr(S)
    with pytest.raises(AttributeError):
        S.seed = 7


def test_pickles_are_small_and_equal(distribution):
    S = distribution.sample(30, 10**12, rng=5)
    data = pickle.dumps(S)
    again = pickle.loads(data)
    assert len(data) < 1000
    assert again == S
    assert hash(again) == hash(S)
    assert pickle.loads(pickle.dumps(distribution)) == distribution
    assert pickle.loads(pickle.dumps(S.T)) == S.T
    small = distribution.sample(30, 200, rng=5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(small)).to_dense(), small.to_dense())


def test_distributions_compare_by_their_parameters():
    assert len(set(FAMILIES.values())) == len(FAMILIES)
    assert randla.SparseStack(nnz=8) == randla.SparseStack()
    assert randla.SparseSign(nnz=8) != randla.SparseStack(nnz=8)
    with pytest.raises(AttributeError):
        randla.SparseStack().nnz = 3


def test_transposes_are_views_of_one_sketch(family):
    S = family.sample(12, 40, rng=6)
    assert S.T.shape == S.H.shape == (40, 12)
    assert S.T.T == S
    assert S.H.H == S
    np.testing.assert_array_equal(S.T.to_dense(), S.to_dense().T)


@pytest.mark.parametrize(
    ("key", "error"),
    [(3, TypeError), ((3, 4), TypeError), ((slice(3), 4), TypeError), ((slice(None, None, 2), slice(9)), ValueError)],
)
def test_only_contiguous_blocks_can_be_taken(key, error):
    with pytest.raises(error, match="slices"):
        randla.SparseStack().sample(9, 9, rng=0)[key]


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize(
    ("d", "m", "error", "words"),
    [
        (0, 5, ValueError, ["d", "0"]),
        (-1, 5, ValueError, ["d", "-1"]),
        (5, -2, ValueError, ["m", "-2"]),
        (2.5, 5, TypeError, ["d", "2.5"]),
        (5, "9", TypeError, ["m", "9"]),
    ],
)
def test_impossible_shapes_are_refused(name, d, m, error, words):
    with pytest.raises(error, match=".*".join(words)):
        FAMILIES[name].sample(d, m, rng=0)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: randla.SparseStack(nnz=0), ValueError, ["nnz", "0"]),
        (lambda: randla.SparseSign(nnz=-3), ValueError, ["nnz", "-3"]),
        (lambda: randla.SparseStack(nnz=1.5), TypeError, ["nnz", "1.5"]),
        (lambda: randla.SparseStack(nnz=257), ValueError, ["nnz", "256", "257"]),
        (lambda: randla.LessUniform(nnz=257), ValueError, ["nnz", "256", "257"]),
        (lambda: randla.LessUniform(nnz="8"), TypeError, ["nnz", "8"]),
        (lambda: randla.BlockSRHT(block=64.0), ValueError, ["block", "64.0"]),
        (lambda: randla.BlockSRHT(block=48), ValueError, ["block", "16", "48"]),
        (lambda: randla.BlockSRHT(block=0), ValueError, ["block", "16", "0"]),
        (lambda: randla.BlockSRHT(block="64"), ValueError, ["block", "64"]),
        (lambda: randla.SRTT("fourier"), ValueError, ["transform", "hadamard", "fourier"]),
        (lambda: randla.SRTT(rounds=0), ValueError, ["rounds", "0"]),
        (lambda: randla.SRTT(rounds=9), ValueError, ["rounds", "8", "9"]),
        (lambda: randla.SRTT(rounds=2.0), TypeError, ["rounds", "2.0"]),
        (lambda: randla.SRTT().sample(5, 2**40 + 1), ValueError, ["m", r"2\^40", str(2**40 + 1)]),
        (lambda: randla.RowSample([1, -2]), ValueError, ["probabilities", "not negative", "-2"]),
        (lambda: randla.RowSample([1, np.nan]), ValueError, ["probabilities", "finite", "nan"]),
        (lambda: randla.RowSample([1, np.inf]), ValueError, ["probabilities", "finite", "inf"]),
        (lambda: randla.RowSample([0, 0]), ValueError, ["probabilities", "not all zero"]),
        (lambda: randla.RowSample([]), ValueError, ["probabilities", "vector", r"\(0,\)"]),
        (lambda: randla.RowSample([[1, 2]]), ValueError, ["probabilities", "vector", r"\(1, 2\)"]),
        (lambda: randla.RowSample([1j, 2]), TypeError, ["probabilities", "real", "complex128"]),
        (lambda: randla.RowSample("ab"), TypeError, ["probabilities", "float64"]),
        (lambda: randla.RowSample([1, 2]).sample(5, 3), ValueError, ["probabilities", "3", "2"]),
    ],
)
def test_impossible_parameters_are_refused(make, error, words):
    with pytest.raises(error, match=".*".join(words)):
        make()


@pytest.mark.parametrize(("rng", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("seed", TypeError)])
def test_impossible_seeds_are_refused(rng, error):
    with pytest.raises(error, match="rng"):
        randla.SparseStack().sample(5, 5, rng=rng)


PROBABILITIES = {
    "one": np.ones(1),
    "decreasing": 1 / np.arange(1.0, 301),
    "with zeros": np.where(np.arange(300) % 3 == 1, np.arange(300), 0),
    "zero at both ends": np.r_[np.zeros(5), np.ones(3), np.zeros(5)],
    "one of many": np.eye(300)[77],
    "over- and underflowing": np.array([1e308, 1e308, 1e-308, 1.5e308]),
    "denormal": np.full(7, 5e-324),
    "integers": np.arange(12),
    "float32": np.linspace(0, 1, 40, dtype=np.float32),
}


@pytest.mark.parametrize("case", PROBABILITIES)
@pytest.mark.parametrize("d", [1, 97, 2000])
def test_row_samples_with_probabilities_equal_the_definition(case, d):
    p = PROBABILITIES[case]
    S = randla.RowSample(p).sample(d, len(p), rng=2**63 + 1)
    np.testing.assert_allclose(S.to_dense(), oracles.row_sample(d, len(p), S.seed, p), rtol=8 * EPS)
    assert not np.any(S.to_dense()[:, p == 0])


def test_row_samples_are_values_by_their_probabilities():
    p = np.arange(1.0, 6)
    distribution = randla.RowSample(p)
    p[:] = 0
    assert distribution.probabilities.sum() == pytest.approx(1)
    assert distribution == randla.RowSample(2 * np.arange(1, 6)) == pickle.loads(pickle.dumps(distribution))
    assert len({distribution, randla.RowSample([1, 2, 3, 4, 5]), randla.RowSample(), randla.RowSample([1, 1, 1, 1, 1])}) == 3
    assert distribution != randla.RowSample([1, 2, 3, 4])
    assert distribution != "RowSample"
    S, again = distribution.sample(9, 5, rng=1), randla.RowSample([1, 2, 3, 4, 5]).sample(9, 5, rng=1)
    assert again == S
    assert hash(again) == hash(S) == hash(pickle.loads(pickle.dumps(S)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(S)).to_dense(), S.to_dense())
    assert repr(distribution) == "RowSample(<5 probabilities>)"
    assert repr(randla.RowSample()) == "RowSample()"
    with pytest.raises(ValueError, match="read-only"):
        distribution.probabilities[0] = 1
    with pytest.raises(AttributeError):
        distribution.probabilities = None


def test_equal_probabilities_need_not_be_the_uniform_sample():
    # Floating-point sums of 1/m decide otherwise than floor(u m) where they round: equality would promise the same rows.
    assert randla.RowSample([1.0, 1.0]) != randla.RowSample()
