"""Sampled rows: probabilities against enumeration, weights against what they promise, sampled least squares."""

import itertools
import warnings

import numpy as np
import oracles
import pytest
import scipy.integrate
import scipy.sparse as sp
from problems import coherent, kdd99
from scipy import stats
from stats import Z_LIMIT, chi_square_gate, require, z_gate

import randla
from randla.leverage import leverage_scores
from randla.sampling.rows import SCHEMES, SampledRows, inclusion_probabilities, sample_rows

pytestmark = pytest.mark.usefixtures("one_blas_thread")

INDEPENDENT = ("uniform", "leverage", "ridge", "squared-norm")


def options(scheme):
    return {"ridge": 2.0} if scheme == "ridge" else {}


def matrix(m=60, n=4, dtype=float, rng=0):
    """Rows of very different size, one of them zero."""
    rng = np.random.default_rng(rng)
    A = rng.standard_normal((m, n)) + (1j * rng.standard_normal((m, n)) if np.dtype(dtype).kind == "c" else 0)
    A *= 10.0 ** rng.uniform(-1, 0.5, m)[:, None]
    A[m // 2] = 0
    return A


def leverage(A, ridge=0.0):
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    return (np.abs(U) ** 2) @ (s**2 / (s**2 + ridge))


def importance(A, scheme):
    if scheme == "uniform":
        return np.ones(len(A))
    return np.sum(np.abs(A) ** 2, axis=1) if scheme == "squared-norm" else leverage(A, options(scheme).get("ridge", 0.0))


def row_uniforms(m, seed):
    return (oracles.words64(np.arange(m), 0, 12, seed)[0] >> np.uint64(11)).astype(float) * 2.0**-53


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("scheme", INDEPENDENT)
def test_rows_are_those_of_row_sample(scheme, dtype):
    A = matrix(dtype=dtype)
    p = importance(A, scheme)
    p = p / p.sum()
    for seed in (0, 2**64 - 1):
        got = sample_rows(A, 500, scheme=scheme, rng=seed, **options(scheme))
        entries = oracles.row_sample_entries(500, 60, seed, None if scheme == "uniform" else p)
        assert got.indices.tolist() == [column for _, column, _ in entries]
        np.testing.assert_allclose(got.weights, 1 / (500 * p[got.indices]), rtol=1e-11)
        np.testing.assert_allclose(got.probabilities, p, rtol=1e-11, atol=1e-15)
        S = randla.RowSample(got.probabilities).sample(500, 60, rng=seed)
        np.testing.assert_allclose(got.take(A), S @ A, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scheme", [*INDEPENDENT, "poisson", "priority"])
def test_defensive_share_is_uniform(scheme):
    A = matrix()
    p = importance(A, scheme)
    p = 0.75 * p / p.sum() + 0.25 / 60
    got = sample_rows(A, 20, scheme=scheme, defensive=0.25, rng=1, **options(scheme))
    if scheme in INDEPENDENT:
        np.testing.assert_allclose(got.probabilities, p, rtol=1e-11)
        assert got.weights.max() <= 60 / (0.25 * 20)
    else:
        assert got.probabilities.min() > 0
        assert np.array_equal(got.indices, sample_rows(p, 20, scheme=scheme, rng=1).indices)
    if scheme != "priority":
        flat = sample_rows(A, 20, scheme=scheme, defensive=1, rng=1, **options(scheme))
        np.testing.assert_allclose(flat.probabilities, 20 / 60 if scheme == "poisson" else 1 / 60, rtol=1e-13)


@pytest.mark.parametrize("k", [1, 3, 17, 58, 59, 60, 1000])
@pytest.mark.parametrize("kind", ["mixed", "equal", "geometric", "one large"])
def test_inclusion_probabilities_solve_their_equation(kind, k):
    s = {
        "mixed": np.random.default_rng(0).lognormal(0, 3, 60),
        "equal": np.ones(60),
        "geometric": 2.0 ** -np.arange(60),
        "one large": np.append(np.full(59, 1e-12), 1.0),
    }[kind]
    s = np.append(s[:59], 0.0)[np.random.default_rng(1).permutation(60)]
    got, nonzero = inclusion_probabilities(s, k), s > 0
    assert ((got >= 0) & (got <= 1)).all()
    np.testing.assert_allclose(got.sum(), min(k, 59), rtol=1e-13)
    assert (got[~nonzero] == 0).all()
    if k < 59:
        below = nonzero & (got < 1 - 1e-12)
        c = got[below] / s[below]
        np.testing.assert_allclose(c, c[0], rtol=1e-13)
        assert (c[0] * s[nonzero & ~below] >= 1 - 1e-11).all()
    else:
        assert (got[nonzero] == 1).all()


def test_poisson_and_priority_follow_the_definition():
    s = np.append(np.random.default_rng(0).lognormal(0, 2, 80), 0)
    p = s / s.max()
    p /= p.sum()
    for seed in range(30):
        u = row_uniforms(81, seed)
        inclusion = inclusion_probabilities(p, 12)
        got = sample_rows(s, 12, scheme="poisson", rng=seed)
        np.testing.assert_array_equal(got.indices, np.flatnonzero(u < inclusion))
        np.testing.assert_allclose(got.weights, 1 / inclusion[got.indices], rtol=1e-14)
        order = np.argsort(-p / (u + 2.0**-53), kind="stable")
        t = p[order[12]] / (u[order[12]] + 2.0**-53)
        got = sample_rows(s, 12, scheme="priority", rng=seed)
        np.testing.assert_array_equal(got.indices, np.sort(order[:12]))
        np.testing.assert_allclose(got.weights, np.maximum(p, t)[got.indices] / p[got.indices], rtol=1e-14)
        np.testing.assert_allclose(got.probabilities, np.minimum(1, p / t), rtol=1e-14)
    for scheme in ("poisson", "priority"):
        got = sample_rows(s, 80, scheme=scheme, rng=0)
        assert got.indices.tolist() == list(range(80))
        assert (got.weights == 1).all()
        assert got.probabilities[80] == 0
        assert len(sample_rows(s[:80], 80, scheme=scheme, rng=0).indices) == 80


def test_equal_priorities_are_taken_from_the_first_row_on(monkeypatch):
    monkeypatch.setattr("randla.sampling.rows._row_words", lambda m, seed: np.full(m, 1 << 63, np.uint64))
    got = sample_rows([1, 1, 3, 1, 1], 3, scheme="priority", rng=0)
    assert got.indices.tolist() == [0, 1, 2]


def test_poisson_keeps_rows_independently_with_its_probabilities():
    s, N = np.random.default_rng(0).lognormal(0, 1.5, 30), 4000
    inclusion, kept = sample_rows(s, 8, scheme="poisson", rng=0).probabilities, np.zeros((N, 30))
    for seed in range(N):
        kept[seed, sample_rows(s, 8, scheme="poisson", rng=seed).indices] = 1
    free = inclusion < 1
    assert (kept[:, ~free] == 1).all()
    assert 20 < free.sum() < 30
    Z = (kept[:, free] - inclusion[free]) / np.sqrt(inclusion[free] * (1 - inclusion[free]))
    squares = (Z.sum(axis=0) / np.sqrt(N)) ** 2
    require(stats.chi2.sf(squares.sum(), free.sum()), "inclusion")
    pairs = (Z.T @ Z / np.sqrt(N))[np.triu_indices(free.sum(), 1)]
    require(stats.chi2.sf((pairs**2).sum(), len(pairs)), "pairs")


def priority_law(s, k):
    """Probability of every set of k: the smallest of its priorities lies above the largest of the others, at 1 / v."""
    sets = list(itertools.combinations(range(len(s)), k))
    p = []
    for S in sets:
        others = np.delete(s, S)

        def density(v, others=others, S=S):
            # P(s / u < 1 / v) = 1 - s v; its product over the others falls as v grows.
            slopes = [s_l * np.prod(np.maximum(0, 1 - np.delete(others, l) * v)) for l, s_l in enumerate(others)]
            return sum(slopes) * np.prod(np.minimum(1, s[list(S)] * v))

        kinks = np.sort(np.append(1 / s[list(S)], 1 / others.max()))
        p.append(scipy.integrate.quad(density, 0, 1 / others.max(), points=kinks[kinks <= 1 / others.max()], epsabs=1e-12)[0])
    return sets, np.array(p)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_priority_sets_have_their_probabilities(k):
    s, N = np.array([0.5, 1.0, 2.0, 3.0, 1.5]), 8000
    sets, p = priority_law(s, k)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-8)
    place = {S: i for i, S in enumerate(sets)}
    draws = [place[tuple(sample_rows(s, k, scheme="priority", rng=seed).indices.tolist())] for seed in range(N)]
    chi_square_gate(np.bincount(draws, minlength=len(sets)), p / p.sum(), f"priority, k = {k}")


def volume_law(A, k):
    """Probability of every multiset of rows under volume sampling, from determinants of the rescaled sample."""
    m, n = A.shape
    q = leverage(A) / n
    law = {}
    for S in itertools.product(range(m), repeat=k):
        rows = A[list(S)] / np.sqrt(q[list(S)])[:, None]
        law[tuple(sorted(S))] = law.get(tuple(sorted(S)), 0) + abs(np.linalg.det(rows.conj().T @ rows)) * np.prod(q[list(S)])
    total = sum(law.values())
    return q, {S: p / total for S, p in law.items()}


def solve_sample(A, b, idx, w):
    return np.linalg.lstsq(A[idx] * np.sqrt(w)[:, None], b[idx] * np.sqrt(w))[0]


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("dtype", [float, complex])
def test_volume_weights_make_solution_and_gram_matrix_unbiased_by_enumeration(k, dtype):
    A = matrix(6, 2, dtype, rng=3)[[0, 1, 2, 4, 5]]
    b = np.random.default_rng(5).standard_normal(5)
    q, law = volume_law(A, k)
    solution, gram = 0, 0
    for S, p in law.items():
        idx = list(S)
        w = 1 / (k * q[idx])
        gram = gram + p * (A[idx].conj().T * w) @ A[idx]
        if p > 1e-14:  # else the sample is singular
            solution = solution + p * solve_sample(A, b, idx, w)
    np.testing.assert_allclose(solution, np.linalg.lstsq(A, b)[0], rtol=1e-9)
    np.testing.assert_allclose(gram, A.conj().T @ A, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [float, complex])
def test_volume_samples_have_the_law_of_the_enumeration(dtype):
    A, k, N = matrix(5, 2, dtype, rng=3)[[0, 1, 3, 4]], 3, 6000
    q, law = volume_law(A, k)
    sets = sorted(law, key=law.get)
    p, place = np.array([law[S] for S in sets]), {S: i for i, S in enumerate(sets)}
    counts = np.zeros(len(sets))
    for seed in range(N):
        got = sample_rows(A, k, scheme="volume", rng=seed)
        counts[place[tuple(sorted(got.indices.tolist()))]] += 1
    np.testing.assert_allclose(got.weights, 1 / (k * q[got.indices]), rtol=1e-12)
    np.testing.assert_allclose(got.probabilities, q, rtol=1e-12)
    cut = int(np.argmax(np.cumsum(p) * N >= 40)) + 1
    chi_square_gate(np.append(counts[:cut].sum(), counts[cut:]), np.append(p[:cut].sum(), p[cut:]), "volume")


def test_volume_samples_follow_the_definition():
    A, k = matrix(), 9
    for seed in range(20):
        first = sample_rows(A, 4, scheme="dpp", rng=seed).indices
        more = [column for _, column, _ in oracles.row_sample_entries(5, 60, seed, leverage(A))]
        got = sample_rows(A, k, scheme="volume", rng=seed).indices
        assert sorted(got) == sorted([*first, *more])
        place = np.argsort(np.argsort(oracles.words64(np.arange(k), 0, 14, seed)[0]))
        assert got[place[4:]].tolist() == more


def test_volume_solution_is_unbiased_and_that_of_leverage_sampling_is_not():
    rng = np.random.default_rng(0)
    A = np.column_stack([rng.lognormal(0, 1, 100), np.ones(100)])
    b, w = A[:, 0] ** 2, rng.uniform(0.5, 2, 100)
    x = np.linalg.lstsq(A * np.sqrt(w)[:, None], b * np.sqrt(w))[0]

    def statistic(given, scheme, draws):
        rows = (sample_rows(given, 5, scheme=scheme, weights=w, rng=seed) for seed in range(draws))
        X = np.array([solve_sample(A, b, *r) for r in rows])
        return (X.mean(axis=0) - x) / (X.std(axis=0, ddof=1) / np.sqrt(draws))

    for z in statistic(A, "volume", 4000):
        z_gate(z, "volume")
    scores = leverage(A * np.sqrt(w)[:, None])
    assert np.abs(statistic(scores, "leverage", 15_000)).max() > 2 * Z_LIMIT


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_make_sums_unbiased(scheme, dtype):
    A, f = matrix(30, 3, dtype), np.random.default_rng(8).standard_normal((30, 2))
    w = np.random.default_rng(9).uniform(0.5, 2, 30)
    sums = []
    for seed in range(2000):
        idx, weights = sample_rows(A, None if scheme == "dpp" else 6, scheme=scheme, weights=w, rng=seed, **options(scheme))
        gram = (A[idx].conj().T * weights) @ A[idx]
        sums.append(np.concatenate([weights @ f[idx], gram.real.ravel(), gram.imag.ravel()[1:2]]))
    f = np.where(np.arange(30)[:, None] == 15, 0, f) if scheme != "uniform" else f  # row 15 is zero: never drawn
    gram = (A.conj().T * w) @ A
    exact = np.concatenate([w @ f, gram.real.ravel(), gram.imag.ravel()[1:2]])
    deviation = np.std(sums, axis=0, ddof=1)
    for z in (np.mean(sums, axis=0) - exact) / np.where(deviation > 0, deviation, 1) * np.sqrt(2000):
        z_gate(z, scheme)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "uniform"])
def test_zero_rows_are_never_drawn(scheme):
    A = np.concatenate([np.zeros((50, 3)), np.eye(3), np.zeros((50, 3))])
    for seed in range(20):
        idx, weights = sample_rows(A, 3, scheme=scheme, rng=seed, **options(scheme))
        assert set(idx.tolist()) <= {50, 51, 52}
        assert np.isfinite(weights).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_row_weights_are_those_of_the_scaled_matrix(scheme):
    A, w = matrix(), np.random.default_rng(1).uniform(0, 4, 60)
    w[7] = 0
    for seed in range(3):
        got = sample_rows(A, 30 if scheme != "dpp" else 3, scheme=scheme, weights=w, rng=seed, **options(scheme))
        want = sample_rows(A * np.sqrt(w)[:, None], 30 if scheme != "dpp" else 3, scheme=scheme, rng=seed, **options(scheme))
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_allclose(got.weights, w[got.indices] * want.weights, rtol=1e-9)
    s = importance(A, "squared-norm")
    got, want = (sample_rows(s, 30, weights=v, rng=3) for v in (w, None))
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_allclose(got.weights, w[got.indices] * want.weights, rtol=1e-14)


LAYOUTS = {
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=1), 3, axis=0)[::3, ::2],
    "CSR": sp.csr_array,
    "CSC": sp.csc_matrix,
    "duplicates": lambda A: doubled(sp.csr_array(A)),
    "blocks": lambda A: [A[:100], sp.csr_array(A[100:101]), A[101:]],
    "RowBlocks": lambda A: randla.RowBlocks(lambda: iter([A[:7], A[7:]])),
}


def doubled(A):
    """Every entry listed twice, in two parts."""
    part = np.random.default_rng(0).random(A.nnz)
    data, indices = np.column_stack([A.data * part, A.data * (1 - part)]).ravel(), np.repeat(A.indices, 2)
    return sp.csr_array((data, indices, 2 * A.indptr), shape=A.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_layout_gives_the_same_rows(scheme, layout):
    A = matrix(300, 6, complex)
    A[np.random.default_rng(0).random(A.shape) < 0.4] = 0
    A.flags.writeable = False
    given, k = LAYOUTS[layout](A), 6 if scheme == "dpp" else 40
    want, got = (sample_rows(B, k, scheme=scheme, rng=11, **options(scheme)) for B in (A, given))
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_allclose(got.weights, want.weights, rtol=1e-9)
    taken = got.take(given)
    assert sp.issparse(taken) == (layout in ("CSR", "CSC", "duplicates"))
    dense = taken.toarray() if sp.issparse(taken) else taken
    np.testing.assert_allclose(dense, A[want.indices] * np.sqrt(want.weights)[:, None], rtol=1e-8)


def test_take_keeps_the_dtype_and_takes_vectors():
    A, b = matrix().astype(np.float32), np.arange(60)
    rows = sample_rows(A, 10, rng=0)
    for given in (A, sp.csr_array(A), [A[:20], A[20:]]):
        assert rows.take(given).dtype == np.float32
    assert rows.take(A.astype(np.complex64)).dtype == np.complex64
    np.testing.assert_allclose(rows.take(b), b[rows.indices] * np.sqrt(rows.weights))
    for wrong in (A[:59], b[:3], [A[:20]]):
        with pytest.raises(ValueError, match="A must have 60 rows, as the matrix sampled; got shape"):
            rows.take(wrong)


def test_result_unpacks_and_replays():
    rows = sample_rows(matrix(), 10, rng=np.random.default_rng(5))
    idx, weights = rows
    assert idx is rows.indices is rows[0]
    assert weights is rows.weights is rows[-1]
    assert len(rows) == 2
    assert isinstance(rows, SampledRows)
    assert repr(rows) == f"SampledRows(10 of 60 rows, scheme='leverage', seed={rows.seed})"
    assert rows.indices.dtype == np.int64
    np.testing.assert_array_equal(sample_rows(matrix(), 10, rng=rows.seed).indices, idx)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e150, 1e300])
@pytest.mark.parametrize("scheme", ["leverage", "squared-norm", "priority", "poisson", "volume"])
def test_units_do_not_matter(scheme, scale):
    A = matrix()
    want, got = (sample_rows(B, 20, scheme=scheme, rng=4) for B in (A, A * scale))
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_allclose(got.weights, want.weights, rtol=1e-9)
    s = importance(A, "leverage")
    for scores in (s * 1e300, s * 1e-290, (s * 2**40).astype(np.float32)):
        np.testing.assert_array_equal(
            sample_rows(scores, 20, scheme="priority", rng=4).indices, sample_rows(s, 20, scheme="priority", rng=4).indices
        )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_row_and_more_draws_than_rows(scheme):
    k = 1 if scheme == "dpp" else 5
    idx, weights = sample_rows([[3.0, 4.0]], k, scheme=scheme, rng=0, **options(scheme))
    assert set(idx.tolist()) == {0}
    np.testing.assert_allclose(weights.sum(), 1)


@pytest.mark.parametrize("scheme", ["leverage", "volume", "squared-norm", "poisson"])
def test_wide_and_rank_deficient_matrices(scheme):
    wide = matrix(6, 20) + 1
    idx, weights = sample_rows(wide, 40, scheme=scheme, rng=0)
    assert set(idx.tolist()) == set(range(6))
    A = matrix(40, 6)
    A[:, 3:] = A[:, :3]
    b = A @ np.ones(6)
    idx, weights = sample_rows(A, 12, scheme=scheme, rng=1)
    np.testing.assert_allclose(A @ solve_sample(A, b, idx, weights), b, atol=1e-10)


@pytest.mark.parametrize("k", [50, 400])
@pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray, sp.csr_array])
def test_sketched_least_squares_is_the_sampled_problem(layout, k):
    A, b = coherent(3000, 20, noise=0.5)
    p = leverage(A)
    for seed in range(3):
        res = randla.lstsq(layout(A), b, method="sketch", sketch=randla.RowSample(p), sketch_size=k, rng=seed)
        idx, weights = sample_rows(p, k, rng=seed)
        want = randla.lstsq(A[idx], b[idx], weights=weights, method="direct").x
        assert np.linalg.norm(res.x - want) <= 1e-10 * np.linalg.norm(want)


def residual_ratios(A, b, p, k, seeds):
    best = np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0])
    sketch = randla.RowSample(p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randla.LstsqWarning)
        found = [randla.lstsq(A, b, method="sketch", sketch=sketch, sketch_size=k, rng=seed).x for seed in seeds]
    return np.array([np.linalg.norm(b - A @ x) for x in found]) / best


@pytest.mark.parametrize("k", [200, 800])
def test_leverage_gives_a_residual_near_the_smallest_where_uniform_does_not(k):
    # About 1 + n / k for the square; ten rows of leverage near one that uniform sampling of 20000 seldom draws.
    A, b = coherent(20_000, 10)
    b[np.argsort(leverage(A))[-10:]] += 5
    ratios = residual_ratios(A, b, leverage(A), k, range(21))
    assert np.median(ratios) <= np.sqrt(1 + 2 * 10 / k)
    assert ratios.max() <= np.sqrt(1 + 6 * 10 / k)
    assert np.median(residual_ratios(A, b, None, k, range(21))) >= 2


def test_schemes_solve_least_squares_within_their_guarantee():
    A, b = coherent(5000, 10)
    best = np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0])
    for scheme in ("leverage", "poisson", "priority", "volume"):
        ratios = []
        for seed in range(21):
            idx, weights = sample_rows(A, 300, scheme=scheme, rng=seed)
            ratios.append(np.linalg.norm(b - A @ randla.lstsq(A[idx], b[idx], weights=weights).x) / best)
        assert np.median(ratios) <= np.sqrt(1 + 2 * 10 / 300), scheme
        assert max(ratios) <= np.sqrt(1 + 6 * 10 / 300), scheme


@pytest.mark.slow
def test_kdd99_needs_leverage_sampling():
    A, b = kdd99()
    b, p = 1 - 2 * b, leverage_scores(A, method="exact", rng=0)
    assert np.median(residual_ratios(A, b, p, 500, range(51))) <= 1.1
    assert np.median(residual_ratios(A, b, None, 500, range(51))) >= 2


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.eye(3), 2), {"scheme": "best"}, ValueError, "scheme must be one of uniform, leverage, .*; got 'best'"),
        ((np.eye(3), 0), {}, ValueError, "k must be between 1 and"),
        ((np.eye(3), None), {}, TypeError, "k must be an integer; got None"),
        ((np.eye(3), 2), {"ridge": 1}, ValueError, "ridge must be 0 for scheme 'leverage'; got 1"),
        ((np.eye(3), 2), {"ridge": -1}, ValueError, "ridge must be finite and at least 0"),
        ((np.eye(3), 2), {"scheme": "ridge"}, ValueError, "ridge must be finite and greater than 0; got 0"),
        ((np.eye(3), 2), {"defensive": 1.5}, ValueError, "defensive must be at most 1 for scheme 'leverage'; got 1.5"),
        ((np.eye(3), 3), {"scheme": "volume", "defensive": 0.1}, ValueError, "defensive must be at most 0 for scheme 'volume'"),
        ((np.eye(3), 3), {"scheme": "dpp", "defensive": 0.1}, ValueError, "defensive must be at most 0 for scheme 'dpp'"),
        ((np.eye(3), 2), {"scheme": "volume"}, ValueError, "k must be at least the rank, 3; got 2"),
        ((np.eye(3), 4), {"scheme": "dpp"}, ValueError, "k must be at most the rank, 3; got 4"),
        ((np.ones(3), 3), {"scheme": "dpp"}, ValueError, "scheme 'dpp' must have the matrix itself; got a vector of 3 scores"),
        ((np.ones(3), 3), {"scheme": "volume"}, ValueError, "scheme 'volume' must have the matrix itself"),
        ((np.zeros((0, 3)), 3), {}, ValueError, r"A must have rows to draw from; got shape \(0, 3\)"),
        (([], 3), {}, ValueError, r"A must have rows to draw from; got shape \(0,\)"),
        (([1, -2, 3], 3), {}, ValueError, "scores must not be negative; got -2"),
        (([1, np.nan], 3), {}, ValueError, "scores must be finite"),
        (([1j, 1], 3), {}, TypeError, "scores must be real; got complex128"),
        (([0, 0], 3), {}, ValueError, "scores must not all be zero; got 2 zeros"),
        ((np.zeros((4, 2)), 3), {}, ValueError, "A must have a row that is not zero, for scheme 'leverage'"),
        ((np.zeros((4, 2)), 3), {"scheme": "squared-norm"}, ValueError, "A must have a row that is not zero"),
        ((np.zeros((4, 2)), 3), {"scheme": "volume"}, ValueError, "A must have a row that is not zero, for scheme 'volume'"),
        ((np.full((4, 2), np.nan), 3), {}, ValueError, "A must be finite"),
        ((np.full((4, 2), np.nan), 3), {"scheme": "squared-norm"}, ValueError, "A must be finite"),
        ((np.full((4, 2), np.inf), 3), {"scheme": "volume"}, ValueError, "A must be finite"),
        ((np.eye(3), 2), {"weights": [1, 2]}, ValueError, r"weights must have shape \(3,\)"),
        ((np.ones((2, 2, 2)), 2), {}, ValueError, "A must have 2 dimensions; got 3"),
        ((sp.linalg.aslinearoperator(np.eye(3)), 2), {}, TypeError, "A must be an array, a sparse matrix or row blocks"),
        ((iter([np.eye(3)]), 2), {}, TypeError, "source must be readable more than once"),
        ((np.eye(3), 2), {"rng": "x"}, TypeError, "rng must be None, an integer"),
    ],
)
def test_unsuitable_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        sample_rows(*arguments, **options)
