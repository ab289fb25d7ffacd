"""Determinantal sampling: the probability of every set against determinants of the kernel."""

import itertools
import math

import mpmath
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from problems import haar
from scipy import stats
from stats import chi_square_gate, require

import randla
from randla._rows import Rows
from randla.sampling import _determinantal, sample_dpp, sample_rows
from randla.sampling._determinantal import fixed_size, inverse, projection_sample

pytestmark = pytest.mark.usefixtures("one_blas_thread")

DRAWS = 5000


def factor(m=7, n=3, dtype=float, rng=0):
    rng = np.random.default_rng(rng)
    A = rng.standard_normal((m, n)) * np.linspace(0.4, 1.5, n)
    return A + 1j * rng.standard_normal((m, n)) * 0.5 if np.dtype(dtype).kind == "c" else A


def determinant(L, S):
    return np.linalg.det(L[np.ix_(S, S)]).real if S else 1.0


def law(L, sizes):
    """Sets and their probabilities, proportional to det(L_S)."""
    sets = [S for k in sizes for S in itertools.combinations(range(len(L)), k)]
    p = np.array([max(determinant(L, S), 0.0) for S in sets])
    return sets, p / p.sum()


def gate(draws, sets, p, what):
    """Chi-square of whole sets; those expected fewer than 20 times are counted together."""
    place = {S: i for i, S in enumerate(sets)}
    counts = np.bincount([place[tuple(map(int, S))] for S in draws], minlength=len(sets))
    rare = len(draws) * p < 40
    if rare.any():
        counts, p = np.append(counts[~rare], counts[rare].sum()), np.append(p[~rare], p[rare].sum())
    if p[-1] * len(draws) < 20:
        assert counts[-1] <= stats.binom.isf(1e-6, len(draws), p[-1])
        counts, p = counts[:-1], p[:-1] / p[:-1].sum()
    chi_square_gate(counts, p, what)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("k", [None, 1, 2, 3])
def test_sets_have_the_probabilities_of_the_determinants(k, dtype):
    A = factor(dtype=dtype)
    sets, p = law(A @ A.conj().T, range(4) if k is None else [k])
    gate([sample_dpp(A, k, rng=seed).indices for seed in range(DRAWS)], sets, p, f"k = {k}")


@pytest.mark.parametrize("k", [None, 2, 3])
def test_inclusion_probabilities_are_exact(k):
    A = factor(dtype=complex)
    sets, p = law(A @ A.conj().T, range(4) if k is None else [k])
    exact = [sum(q for S, q in zip(sets, p, strict=True) if i in S) for i in range(7)]
    got = sample_dpp(A, k, rng=0)
    np.testing.assert_allclose(got.probabilities, exact, rtol=1e-13)
    np.testing.assert_allclose(got.weights, 1 / np.take(exact, got.indices), rtol=1e-13)


def test_projection_has_the_probabilities_of_its_minors():
    U = haar(8, 3, np.random.default_rng(1))
    sets, p = law(U @ U.T, [3])
    np.testing.assert_allclose(np.linalg.det(U[list(sets[5])]) ** 2, p[5], rtol=1e-12)
    gate([sample_dpp(U, projection=True, rng=seed).indices for seed in range(DRAWS)], sets, p, "projection")


def test_part_of_a_projection_is_the_fixed_size_process_of_its_kernel():
    U = haar(6, 4, np.random.default_rng(1))
    sets, p = law(U @ U.T, [2])
    draws = [sample_dpp(U, 2, projection=True, rng=seed) for seed in range(DRAWS)]
    gate([d.indices for d in draws], sets, p, "2 of a projection of rank 4")
    np.testing.assert_allclose(draws[0].probabilities, np.sum(U**2, axis=1) / 2, rtol=1e-13)


@pytest.mark.parametrize("k", [None, 2])
def test_eigenvalues_and_eigenvectors_give_the_kernel(k):
    U, values = haar(6, 4, np.random.default_rng(3)), np.array([0.3, 2.0, 0.0, 0.8])
    sets, p = law((U * values) @ U.T, range(4) if k is None else [k])
    draws = [sample_dpp(U, k, eigenvalues=values, rng=seed).indices for seed in range(DRAWS)]
    gate(draws, sets, p, f"eigenvalues, k = {k}")


def test_marginals_and_pairs_of_a_larger_process_are_minors_of_its_kernel():
    # Counts of rows have covariance K_ii [i = j] - |K_ij|^2; those of different runs are independent.
    U = haar(40, 6, np.random.default_rng(2))
    K, draws, N = U @ U.T, np.zeros((4000, 40)), 4000
    for seed in range(N):
        draws[seed, sample_dpp(U, projection=True, rng=seed).indices] = 1
    deviation = draws.sum(axis=0) - N * np.diag(K)
    covariance = N * (np.diag(np.diag(K)) - K**2)
    rank = np.linalg.matrix_rank(covariance)
    statistic = deviation @ np.linalg.pinv(covariance, rcond=1e-10) @ deviation
    require(stats.chi2.sf(statistic, rank), f"marginals (chi2 = {statistic:.1f} on {rank})")
    i, j = np.triu_indices(40, 1)
    pairs = (draws.T @ draws)[i, j]
    exact = K[i, i] * K[j, j] - K[i, j] ** 2
    # 780 binomial counts, each at a false-alarm probability of 1e-6 / 780.
    p_values = [stats.binomtest(int(c), N, q).pvalue for c, q in zip(pairs, exact, strict=True)]
    require(min(p_values) * len(p_values), "pairs")


def twin(Q, seed):
    """The projection DPP of docs/definitions.md, proposal by proposal, with the complement formed by QR."""
    r = Q.shape[1]
    total, sizes = np.cumsum(np.sum(np.abs(Q) ** 2, axis=1)), np.sum(np.abs(Q) ** 2, axis=1)
    chosen, j = [], 0
    while len(chosen) < r:
        u0, u1 = (int(w[0]) >> 11 for w in oracles.words64(np.array([j]), 0, 13, seed))
        i = int(np.argmax(total > u0 * 2.0**-53 * total[-1]))
        basis = np.linalg.qr(Q[chosen].T)[0] if chosen else np.zeros((r, 0))
        left = Q[i] - basis @ (basis.conj().T @ Q[i])
        if i not in chosen and u1 * 2.0**-53 * sizes[i] < np.vdot(left, left).real:
            chosen.append(i)
        j += 1
    return chosen


@pytest.mark.parametrize("pool", [7, 1000])
@pytest.mark.parametrize("dtype", [float, complex])
def test_projection_follows_the_definition(dtype, pool, monkeypatch):
    monkeypatch.setattr(_determinantal, "_POOL", pool)
    Q = np.linalg.qr(factor(60, 20, dtype))[0]
    leverage = np.sum(np.abs(Q) ** 2, axis=1)
    for seed in range(20):
        assert projection_sample(Rows(Q), None, leverage, 20, seed).tolist() == twin(Q, seed)


@pytest.mark.parametrize("steps", ["exact", "few proposals"])
def test_steps_without_patience_have_the_same_law(steps, monkeypatch):
    monkeypatch.setattr(_determinantal, "_PATIENCE", 0 if steps == "exact" else 0.5)
    U = np.linalg.qr(factor(7, 3, complex, rng=1))[0]
    sets, p = law(U @ U.conj().T, [3])
    gate([sample_dpp(U, projection=True, rng=seed).indices for seed in range(DRAWS)], sets, p, steps)


def test_pools_of_any_size_give_the_same_rows(monkeypatch):
    U = haar(300, 40, np.random.default_rng(0))
    rows = [sample_dpp(U, projection=True, rng=seed).indices for seed in range(5)]
    for size in (1, 7, 1000):
        monkeypatch.setattr(_determinantal, "_POOL", size)
        for seed in range(5):
            np.testing.assert_array_equal(sample_dpp(U, projection=True, rng=seed).indices, rows[seed])


def layouts(A):
    frozen = A.copy()
    frozen.flags.writeable = False
    return {
        "F": np.asfortranarray(A),
        "strided": np.repeat(np.repeat(A, 2, axis=1), 3, axis=0)[::3, ::2],
        "read-only": frozen,
        "CSR": sp.csr_array(A),
        "CSC": sp.csc_matrix(A),
        "blocks": [A[:100], sp.csr_array(A[100:101]), A[101:]],
        "RowBlocks": randla.RowBlocks(lambda: iter([A[:7], A[7:]])),
    }


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("layout", ["F", "strided", "read-only", "CSR", "CSC", "blocks", "RowBlocks"])
@pytest.mark.parametrize("k", [None, 5, 12])
def test_every_layout_gives_the_same_sample(layout, k, dtype):
    A = factor(400, 12, dtype)
    A[np.random.default_rng(0).random(A.shape) < 0.5] = 0
    given = layouts(A)[layout]
    for seed in range(3):
        want, got = sample_rows(A, k, scheme="dpp", rng=seed), sample_rows(given, k, scheme="dpp", rng=seed)
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_allclose(got.weights, want.weights, rtol=1e-10)


def test_float32_and_integers_are_computed_with_in_double_precision():
    A = np.random.default_rng(0).integers(-9, 10, (200, 8))
    for seed in range(3):
        want = sample_dpp(A.astype(float), 5, rng=seed)
        for given in (A, A.astype(np.float32), A.astype(np.complex64)):
            got = sample_dpp(given, 5, rng=seed)
            np.testing.assert_array_equal(got.indices, want.indices)
            np.testing.assert_allclose(got.probabilities, want.probabilities, rtol=1e-10)


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("k", [None, 2, 4])
def test_wide_matrices_have_their_kernel(layout, k):
    A = factor(5, 30, complex, rng=4) / 4
    sets, p = law(A @ A.conj().T, range(6) if k is None else [k])
    gate([sample_dpp(layout(A), k, rng=seed).indices for seed in range(2000)], sets, p, f"wide, k = {k}")


def test_row_weights_scale_the_rows():
    A, w = factor(30, 4), np.random.default_rng(0).uniform(0, 3, 30)
    w[3] = 0
    for k in (None, 2, 4):
        for seed in range(5):
            got = sample_rows(A, k, scheme="dpp", weights=w, rng=seed)
            want = sample_rows(A * np.sqrt(w)[:, None], k, scheme="dpp", rng=seed)
            np.testing.assert_array_equal(got.indices, want.indices)
            np.testing.assert_allclose(got.probabilities, want.probabilities, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(got.weights, w[got.indices] * want.weights, rtol=1e-12)
            assert 3 not in got.indices
    wide = A.T.copy()
    got = sample_rows(wide, 2, scheme="dpp", weights=[4, 1, 0, 9], rng=1)
    want = sample_rows(wide * np.array([2, 1, 0, 3])[:, None], 2, scheme="dpp", rng=1)
    np.testing.assert_array_equal(got.indices, want.indices)


def test_ill_conditioned_factor_has_the_marginals_of_its_singular_vectors():
    U, V = haar(500, 8, np.random.default_rng(0)), haar(8, 8, np.random.default_rng(1))
    A = U * np.logspace(0, -10, 8) @ V.T
    got = sample_rows(A, 8, scheme="dpp", rng=0)
    np.testing.assert_allclose(got.probabilities, np.sum(U**2, axis=1), rtol=1e-4)
    # Eigenvalues of 1e10^2 to 1: the L-ensemble takes half of the last vector.
    got = sample_rows(A * 1e10, None, scheme="dpp", rng=0)
    np.testing.assert_allclose(got.probabilities, np.sum(U**2, axis=1) - U[:, 7] ** 2 / 2, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_fixed_size_does_not_depend_on_units(scale):
    A = factor(50, 6)
    for k in (3, 6):
        want, got = sample_dpp(A, k, rng=2), sample_dpp(A * scale, k, rng=2)
        np.testing.assert_array_equal(got.indices, want.indices)
        np.testing.assert_allclose(got.probabilities, want.probabilities, rtol=1e-10)
    assert len(sample_dpp(A * scale, rng=2).indices) == (0 if scale < 1 else 6)


def test_projection_does_not_depend_on_units_of_columns():
    A = factor(50, 6)
    want = sample_dpp(A, 6, rng=2)
    got = sample_dpp(A * 10.0 ** np.array([-150, -100, 0, 50, 100, 150]), 6, rng=2)
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_allclose(got.probabilities, want.probabilities, rtol=1e-10)


def test_rank_deficient_matrix_is_sampled_in_its_range():
    A = np.random.default_rng(0).integers(-9, 10, (40, 6)).astype(float)
    A[:, 3:] = A[:, :3] @ np.array([[1, 2, 0], [0, 1, 1], [1, 0, 1.0]])
    A[:, 5] = 0
    got = sample_rows(A, 3, scheme="dpp", rng=0)
    U = np.linalg.svd(A)[0][:, :3]
    np.testing.assert_allclose(got.probabilities, np.sum(U**2, axis=1), rtol=1e-10)
    assert np.linalg.matrix_rank(A[got.indices]) == 3
    with pytest.raises(ValueError, match="k must be at most the rank, 3; got 4"):
        sample_rows(A, 4, scheme="dpp")
    with pytest.raises(ValueError, match="k must be at most the rank, 3; got 5"):
        sample_dpp(np.eye(6)[:, :4], 5, eigenvalues=[1, 0, 1, 2])
    with pytest.raises(ValueError, match="k must be at most the rank, 4; got 5"):
        sample_dpp(np.eye(6)[:, :4], 5, projection=True)


def test_duplicates_and_zero_rows_never_come_together():
    A = np.concatenate([np.repeat(np.eye(4), 5, axis=0), np.zeros((10, 4))])
    for seed in range(50):
        for k in (None, 3, 4):
            rows = sample_dpp(A, k, rng=seed).indices
            assert rows.max(initial=0) < 20
            assert len(set(rows // 5)) == len(rows)


def test_coherent_rows_are_always_taken():
    A = np.concatenate([1e6 * np.eye(5), np.random.default_rng(0).standard_normal((100, 5))])
    for seed in range(20):
        assert sample_dpp(A, 5, rng=seed).indices.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (1, 4), (5, 0)])
def test_small_and_empty_shapes(shape):
    A = np.ones(shape) + np.eye(*shape)
    r = min(shape)
    got = sample_dpp(A, rng=0)
    assert len(got.indices) <= r
    if r:
        assert sample_dpp(A, r, rng=0).indices.tolist() == list(range(r))
    else:
        np.testing.assert_array_equal(got.probabilities, np.zeros(5))


def test_zero_matrix_gives_no_row():
    got = sample_dpp(np.zeros((5, 3)), rng=0)
    assert len(got.indices) == len(got.weights) == 0
    with pytest.raises(ValueError, match="k must be at most the rank, 0; got 1"):
        sample_dpp(np.zeros((5, 3)), 1)


def elementary(values, k):
    """e_k to 50 digits: sums of positive numbers."""
    e = [mpmath.mpf(1)] + [mpmath.mpf(0)] * k
    for v in values:
        for j in range(k, 0, -1):
            e[j] += v * e[j - 1]
    return e[k]


FIXED = [(0, 30, 7), (3, 40, 20), (250, 60, 1), (250, 60, 59), (300, 200, 100), (1, 200, 3)]


@pytest.mark.parametrize(("decades", "r", "k"), FIXED)
def test_fixed_size_probabilities_equal_exact_symmetric_polynomials(decades, r, k, monkeypatch):
    monkeypatch.setattr(mpmath.mp, "dps", 50)
    odds = 10.0 ** np.random.default_rng(r).uniform(-decades, decades, r)
    exact_odds = [mpmath.mpf(float(v)) for v in odds]
    taken, got = fixed_size(np.log(odds), k, np.full(r, 0.5))
    assert len(taken) == len(set(taken)) == k
    assert math.isclose(got.sum(), k, rel_tol=1e-12)
    whole = elementary(exact_odds, k)
    for j in range(0, r, max(1, r // 8)):
        exact = exact_odds[j] * elementary(exact_odds[:j] + exact_odds[j + 1 :], k - 1) / whole
        # Logarithms of 1e300 are rounded by 1e-13.
        np.testing.assert_allclose(got[j], float(exact), rtol=1e-11)


def test_fixed_size_draws_follow_the_definition():
    odds, r, k = [mpmath.mpf(v) for v in (7, 3, 3, 1, 0.5)], 5, 2
    for seed in range(200):
        u, left, want = np.random.default_rng(seed).random(r), k, []
        for j in reversed(range(r)):
            if left and u[j] < odds[j] * elementary(odds[:j], left - 1) / elementary(odds[: j + 1], left):
                want, left = [j, *want], left - 1
        assert fixed_size(np.log([float(v) for v in odds]), k, u)[0].tolist() == want


def test_cumulative_sums_are_inverted_without_rows_that_add_nothing():
    cumulative = np.cumsum([0.0, 1.0, 0.0, 3.0, 0.0])
    assert inverse(cumulative, np.array([0.0, 0.2, 0.25, 0.9, 1 - 2.0**-53])).tolist() == [1, 1, 3, 3, 3]


def test_seed_replays():
    A = factor(50, 5)
    first = sample_dpp(A, rng=np.random.default_rng(3))
    again = sample_dpp(A, rng=first.seed)
    np.testing.assert_array_equal(first.indices, again.indices)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[np.nan]],), {}, ValueError, "A must be finite"),
        ((np.ones((3, 2)) * np.inf,), {}, ValueError, "A must be finite"),
        ((np.array([[1, np.inf, 2.0]]),), {}, ValueError, "A must be finite"),
        ((sp.csr_array([[np.nan], [1]]),), {}, ValueError, "A must be finite"),
        ((np.ones((3, 2)),), {"projection": True}, ValueError, "factor must have orthonormal columns; got F'F off"),
        ((np.full((3, 2), np.nan),), {"projection": True}, ValueError, "factor must have orthonormal columns"),
        ((np.full((3, 2), 1e200),), {"eigenvalues": [1, 1]}, ValueError, "factor must have orthonormal columns"),
        ((np.eye(3), 0), {}, ValueError, "k must be at least 1; got 0"),
        ((np.eye(3), 1.5), {}, TypeError, "k must be an integer"),
        ((np.eye(3),), {"eigenvalues": [1, 1]}, ValueError, r"eigenvalues must have shape \(3,\), one for each column"),
        ((np.eye(3),), {"eigenvalues": [1, -1, 0]}, ValueError, "eigenvalues must not be negative; got -1"),
        ((np.eye(3),), {"eigenvalues": [1, np.inf, 0]}, ValueError, "eigenvalues must be finite"),
        ((np.eye(3),), {"eigenvalues": [1j, 1, 1]}, TypeError, "eigenvalues must be real; got complex128"),
        ((np.eye(3),), {"eigenvalues": [1, 1, 1], "projection": True}, ValueError, "eigenvalues must be None"),
        ((np.ones(3),), {}, ValueError, "A must have 2 dimensions; got 1"),
        (([np.ones((2, 5)), np.ones((1, 5))],), {}, ValueError, "as many rows as columns where it comes in row"),
        ((sp.linalg.aslinearoperator(np.eye(3)),), {}, TypeError, "A must be an array, a sparse matrix or row blocks"),
    ],
)
def test_unsuitable_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        sample_dpp(*arguments, **options)


@pytest.mark.parametrize("scheme", ["volume", "dpp"])
def test_rows_below_the_smallest_normal_number(scheme):
    """Integers times 2^-1040, whose inverses are no numbers: the draws are those of the integers."""
    A = np.random.default_rng(13).integers(-9, 10, (30, 3)).astype(float)
    for B in (A, A.T.copy()):
        for weights in (None, np.arange(1.0, len(B) + 1)):
            tiny = randla.sample_rows(np.ldexp(B, -1040), 3, scheme=scheme, weights=weights, rng=0)
            plain = randla.sample_rows(B, 3, scheme=scheme, weights=weights, rng=0)
            np.testing.assert_array_equal(tiny.indices, plain.indices)
            np.testing.assert_allclose(tiny.weights, plain.weights, rtol=1e-9)


def test_expected_size_of_an_ensemble_is_that_of_its_unit():
    """Eigenvalues of A A' are far below one: the sample is empty."""
    A = np.random.default_rng(14).integers(-9, 10, (30, 3)).astype(float)
    assert len(randla.sample_rows(np.ldexp(A, -1040), None, scheme="dpp", rng=0).indices) == 0
