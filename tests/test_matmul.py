"""Sampled and sketched products: unbiased, with the variance that they state, for every form of the factors."""

import pickle

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
import stats

import randla
from randla.sampling._row_norms import row_norms
from randla.sampling.matmul import MatmulResult, coordinated_sketch, sketched_matmul

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SCHEMES = ["coordinated", "squared-norm", "sketch"]
EPS = np.finfo(float).eps


def factors(n=40, m=6, p=5, *, rng=0, dtype=float):
    """Norms of heavy tails, and zero vectors at different places."""
    rng = np.random.default_rng(rng)
    A = rng.standard_normal((m, n)) * (1 + rng.pareto(3, n))
    B = rng.standard_normal((n, p)) * (1 + rng.pareto(3, n))[:, None]
    if np.dtype(dtype).kind == "c":
        A, B = A * np.exp(2j * rng.random(A.shape)), B * np.exp(2j * rng.random(B.shape))
    A[:, 3], B[7:9] = 0, 0
    return A.astype(dtype), B.astype(dtype)


def uniforms(indices, seed):
    """u_i of docs/definitions.md."""
    word, _ = oracles.words64(indices, 0, 17, seed)
    return ((word >> np.uint64(11)).astype(float) + 1) * 2.0**-53


def coordinated_twin(A, B, k, seed):
    """One term after the other, from squared norms and ranks u / norm^2, the k smallest of which are kept."""
    n = A.shape[1]
    u = uniforms(np.arange(n), seed)
    squares = np.sum(np.abs(A) ** 2, axis=0), np.sum(np.abs(B) ** 2, axis=1)
    ranks = [np.divide(u, s, out=np.full(n, np.inf), where=s > 0) for s in squares]
    limits = [np.sort(r)[k] if k < n else np.inf for r in ranks]
    C = np.zeros((A.shape[0], B.shape[1]), np.result_type(A, B))
    for i in range(n):
        if all(r[i] < limit and np.isfinite(r[i]) for r, limit in zip(ranks, limits, strict=True)):
            chance = min(1, *(limit * s[i] for limit, s in zip(limits, squares, strict=True)))
            C += np.outer(A[:, i], B[i]) / chance
    return C


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("k", [1, 2, 9, 36, 38, 200])
def test_coordinated_product_is_the_sum_of_its_definition(k, dtype):
    A, B = factors(dtype=dtype)
    for seed in (0, 1, 2**64 - 5):
        result = sketched_matmul(A, B, k, rng=seed)
        twin = coordinated_twin(A, B, k, seed)
        np.testing.assert_allclose(result.product, twin, rtol=0, atol=1e-13 * np.abs(twin).max())


DISTRIBUTIONS = {
    "stack": randla.SparseStack(),
    "stack3": randla.SparseStack(nnz=3),
    "count": randla.CountSketch(),
    "sign": randla.SparseSign(nnz=4),
    "gaussian": randla.Gaussian(),
    "rademacher": randla.Rademacher(),
    "less": randla.LessUniform(nnz=5),
    "rows": randla.RowSample(),
    "srht": randla.BlockSRHT(block=16),
    "srtt": randla.SRTT(),
}
CASES = [("coordinated", None), ("squared-norm", None), *[("sketch", name) for name in DISTRIBUTIONS]]
# Rows without replacement and whole blocks of rows have less variance than the pairwise formula.
BELOW = ("srht", "srtt")


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(("scheme", "family"), CASES)
def test_products_are_unbiased_and_their_errors_those_stated(scheme, family, dtype):
    # The mean of 1,000 products projected onto a fixed direction, and the mean of squared errors beside the mean of their
    # estimates: two z-gates.
    A, B = factors(dtype=dtype)
    exact, k, runs = A @ B, 10, 1000
    direction = np.random.default_rng(1).standard_normal(exact.shape)
    shifts, gaps, bounds = np.empty(runs), np.empty(runs), np.empty(runs)
    for seed in range(runs):
        result = sketched_matmul(A, B, k, scheme=scheme, sketch=DISTRIBUTIONS.get(family), rng=seed)
        difference = result.product - exact
        shifts[seed] = np.sum(difference.real * direction)
        gaps[seed] = np.linalg.norm(difference) ** 2 - result.error**2
        bounds[seed] = np.nan if result.error_bound is None else np.linalg.norm(difference) ** 2 - result.error_bound**2
    label = f"{scheme} {family}"
    stats.z_gate(np.mean(shifts) / np.std(shifts) * runs**0.5, f"{label}: mean")
    z = np.mean(gaps) / np.std(gaps) * runs**0.5
    stats.z_gate(max(z, 0) if family in BELOW else z, f"{label}: squared error")
    if family in ("less", "rows"):
        assert result.error_bound is None
    else:
        assert np.mean(bounds) < 4 * np.std(bounds) / runs**0.5


def test_one_term_has_no_error_in_columns_of_length_one():
    A, B = np.eye(2, 20, 4), np.ones((20, 3))
    result = sketched_matmul(A, B[:, :1], 3, scheme="sketch", sketch=randla.CountSketch(), rng=0)
    one = sketched_matmul(A[:1], B, 3, scheme="sketch", sketch=randla.CountSketch(), rng=0)
    assert result.error > 0.1
    assert one.error > 0.1
    B[:4], B[5:] = 0, 0
    assert sketched_matmul(A[:1], B, 3, scheme="sketch", sketch=randla.CountSketch(), rng=0).error < 1e-7


@pytest.mark.parametrize(("family", "case"), [("count", "conjugates"), ("gaussian", "conjugates"), ("gaussian", "one term")])
def test_error_estimates_where_their_parts_are_far_apart(family, case):
    # Two rows for B = A^H of one row and random phases, for which ||A B|| is as large as can be and ||A conj(B)|| is small;
    # and for a product of one term.
    if case == "conjugates":
        A = np.exp(2j * np.pi * np.random.default_rng(0).random((1, 20)))
        B = A.conj().T
    else:
        A, B = np.zeros((2, 20)), np.zeros((20, 3))
        A[:, 4], B[4] = 1, 1
    runs, exact = 2000, A @ B
    gaps = np.empty(runs)
    for seed in range(runs):
        result = sketched_matmul(A, B, 2, scheme="sketch", sketch=DISTRIBUTIONS[family], rng=seed)
        gaps[seed] = np.linalg.norm(result - exact) ** 2 - result.error**2
    stats.z_gate(np.mean(gaps) / np.std(gaps) * runs**0.5, f"{family}, {case}: squared error")


def test_error_of_a_sketch_with_blocks_of_unequal_size_counts_them():
    # k = 10 rows in 8 blocks: two of 2 rows, six of 1. Pairs collide more often than in 1 of 10 rows.
    A, B = factors()
    collisions = np.mean([np.mean(np.triu(np.square(s.T @ s), 1)[np.triu_indices(40, 1)]) for s in dense_stacks(10, 40, 400)])
    bound = sketched_matmul(A, B, 10, scheme="sketch", rng=0).error_bound
    np.testing.assert_allclose(bound**2, 2 * collisions * np.sum(A**2) * np.sum(B**2), rtol=0.02)


def dense_stacks(d, m, count):
    return [randla.SparseStack().sample(d, m, rng=seed).to_dense() for seed in range(count)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_enough_samples_give_the_product(scheme):
    A, B = factors()
    result = sketched_matmul(A, B, 40, scheme=scheme, rng=0)
    np.testing.assert_allclose(result.product, A @ B, rtol=1e-12, atol=1e-11)
    assert result.error == result.error_bound == 0


def test_terms_that_are_zero_need_no_sample():
    A, B = factors()
    nonzero = 37
    result = sketched_matmul(A, B, nonzero, scheme="squared-norm", rng=0)
    assert result.error == 0
    np.testing.assert_array_equal(result.indices, np.setdiff1d(np.arange(40), [3, 7, 8]))
    assert sketched_matmul(A, B, nonzero - 1, scheme="squared-norm", rng=0).error > 0
    # 39 columns of A and 38 rows of B are not zero.
    assert sketched_matmul(A, B, 39, rng=0).error == 0
    assert sketched_matmul(A, B, 38, rng=0).error_bound > 0


@pytest.mark.parametrize("scheme", ["coordinated", "squared-norm"])
def test_weights_and_indices_make_the_product(scheme):
    A, B = factors()
    result = sketched_matmul(A, B, 10, scheme=scheme, rng=3)
    terms = sum(w * np.outer(A[:, i], B[i]) for i, w in zip(result.indices, result.weights, strict=True))
    np.testing.assert_allclose(result.product, terms, rtol=1e-12, atol=1e-12)
    assert not set(result.indices) & {3, 7, 8}
    assert sketched_matmul(A, B, 10, scheme="sketch", rng=3).indices is None


@pytest.mark.parametrize("scheme", ["coordinated", "squared-norm"])
def test_weights_count_every_index_once_on_average(scheme):
    A, B = factors(n=12)
    A[:, 3], B[7:9] = 1, 1
    runs = 2000
    totals = np.zeros((runs, 12))
    for seed in range(runs):
        result = sketched_matmul(A, B, 5, scheme=scheme, rng=seed)
        np.add.at(totals[seed], result.indices, result.weights)
    for i in range(12):
        stats.z_gate((np.mean(totals[:, i]) - 1) / np.std(totals[:, i]) * runs**0.5, f"{scheme}: index {i}")


def test_squared_norm_draws_are_those_of_row_sample_with_products_of_norms():
    A, B = factors()
    p = np.linalg.norm(A, axis=0) * np.linalg.norm(B, axis=1)
    result = sketched_matmul(A, B, 10, scheme="squared-norm", rng=5)
    S = randla.RowSample(p).sample(10, 40, rng=5).to_dense()
    np.testing.assert_array_equal(result.indices, np.argmax(S, axis=1))
    np.testing.assert_allclose(result.weights, S.max(axis=1) ** 2, rtol=1e-12)


def test_parallel_terms_have_no_error():
    # a_i b_i' = t_i a b': every draw of the optimal probabilities is the whole product.
    rng = np.random.default_rng(0)
    A, B = np.outer(rng.random(5), rng.random(30)), np.outer(rng.random(30), rng.random(4))
    result = sketched_matmul(A, B, 7, scheme="squared-norm", rng=0)
    np.testing.assert_allclose(result.product, A @ B, rtol=1e-12)
    assert result.error <= 1e-7 * np.linalg.norm(A @ B)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_draw_has_an_error_only_where_its_variance_is_finite(scheme):
    A, B = factors()
    result = sketched_matmul(A, B, 1, scheme=scheme, rng=0)
    if scheme == "sketch":
        assert 0 < result.error < np.inf
    else:
        assert result.error == np.inf
    assert sketched_matmul(A, B, 1, scheme="sketch", sketch=randla.RowSample(), rng=0).error == np.inf
    assert (result.error_bound == np.inf) == (scheme == "coordinated")


FORMS = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
    "coo": sp.coo_array,
    "list": lambda a: a.tolist(),  # of double precision
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_form_of_the_factors_gives_the_same_product(scheme, form, dtype):
    if form == "list":
        dtype = np.result_type(dtype, np.float64)
    A, B = factors(dtype=dtype)
    expected = sketched_matmul(A, B, 10, scheme=scheme, rng=1)
    tol = 50 * np.finfo(dtype).eps * np.linalg.norm(A) * np.linalg.norm(B)
    for left, right in ((FORMS[form](A), B), (A, FORMS[form](B)), (FORMS[form](A), FORMS[form](B))):
        got = sketched_matmul(left, right, 10, scheme=scheme, rng=1)
        assert type(got.product) is np.ndarray
        assert got.dtype == np.dtype(dtype)
        np.testing.assert_allclose(got.product, expected.product, rtol=0, atol=tol)
        np.testing.assert_allclose(got.error, expected.error, rtol=1e-5)


def test_mixed_and_integer_dtypes_are_promoted():
    A, B = factors()
    assert sketched_matmul(A.astype(np.float32), B, 5, rng=0).dtype == np.float64
    assert sketched_matmul(A, B.astype(np.complex64), 5, rng=0).dtype == np.complex128
    whole = np.arange(12).reshape(3, 4)
    result = sketched_matmul(whole, whole.T, 9, rng=0)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result.product, whole @ whole.T)


def test_inputs_may_be_read_only_and_are_left_alone():
    A, B = factors()
    S = sp.csr_array((np.ones(3), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 40))
    for a in (A, B, S.data, S.indices, S.indptr):
        a.flags.writeable = False
    for scheme in SCHEMES:
        sketched_matmul(A, B, 5, scheme=scheme, rng=0)
        # An entry listed twice counts as one of twice the size.
        np.testing.assert_allclose(sketched_matmul(S, B, 40, scheme=scheme, rng=0).product, S.toarray() @ B)
    twice = coordinated_sketch(S, 1, rng=0)
    assert twice.norm == pytest.approx(np.sqrt(5), rel=EPS)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 0), (1, 1, 1)])
def test_empty_and_single_factors(scheme, shape):
    m, n, p = shape
    A, B = np.ones((m, n)), np.ones((n, p))
    for left, right in ((A, B), (sp.csr_array(A), B), (sp.csr_array(A), sp.csc_array(B))):
        result = sketched_matmul(left, right, 2, scheme=scheme, rng=0)
        assert result.shape == (m, p)
        if n <= 2 or not (m and p):
            np.testing.assert_array_equal(result.product, A @ B)
            assert result.error == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize(("up", "down"), [(600, -600), (-700, 600), (400, 400), (-1040, 0)])
def test_huge_and_tiny_factors_scale(scheme, form, up, down):
    A, B = factors()
    A = np.round(4 * A) / 4  # no digits that are lost to underflow
    up, down = 2.0**up, 2.0**down
    expected = sketched_matmul(form(A), B, 10, scheme=scheme, rng=2)
    result = sketched_matmul(form(A * up), form(B * down), 10, scheme=scheme, rng=2)
    largest = np.abs(expected.product).max()
    np.testing.assert_allclose(result.product / (up * down), expected.product, rtol=0, atol=1e-8 * largest)
    assert result.error / (up * down) == pytest.approx(expected.error, rel=1e-8)
    assert result.error_bound / (up * down) == pytest.approx(expected.error_bound, rel=1e-8)


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_norms_of_rows_at_every_scale(form, dtype):
    rng = np.random.default_rng(0)
    scale = np.array([1, 0, 1e-30, 1e30] if dtype == np.float32 else [1, 0, 1e-300, 1e300, 3e-310, 1e-160, 1e160])
    A = (rng.standard_normal((len(scale), 3)) * scale[:, None]).astype(dtype)
    divisor = np.where(scale > 0, scale, 1)
    expected = np.linalg.norm(A.real / divisor[:, None], axis=1) * divisor
    if np.dtype(dtype).kind == "c":
        A.imag = 2 * A.real[:, ::-1]
        expected *= np.sqrt(5)
    np.testing.assert_allclose(row_norms(form(A), "A"), expected, rtol=1e-6 if dtype == np.float32 else 1e-13, atol=1e-323)
    big = np.full((2, 4), 1e308)
    assert np.all(row_norms(form(big), "A") == np.inf)


def test_rows_longer_than_a_piece_and_more_of_them():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 300_000)).astype(np.float32)
    for a in (A, np.asfortranarray(A), A.T, np.asfortranarray(A.T)):
        np.testing.assert_allclose(row_norms(a, "A"), np.linalg.norm(a.astype(float), axis=1), rtol=1e-12)
    A[1] = 0
    wide = A.astype(float)
    np.testing.assert_allclose(row_norms(wide * 1e-160, "A"), np.linalg.norm(wide, axis=1) * 1e-160, rtol=1e-12)


def test_what_the_product_refuses():
    A, B = factors()
    with pytest.raises(ValueError, match=r"B must have as many rows as A has columns, 40; got shapes \(6, 40\) and \(39, 5\)"):
        sketched_matmul(A, B[1:], 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        sketched_matmul(A, B, 0)
    with pytest.raises(TypeError, match="k must be an integer"):
        sketched_matmul(A, B, 2.5)
    with pytest.raises(ValueError, match=r"scheme must be one of 'coordinated'.*got 'best'"):
        sketched_matmul(A, B, 3, scheme="best")
    with pytest.raises(TypeError, match="sketch must be a Distribution, and is for scheme 'sketch'"):
        sketched_matmul(A, B, 3, sketch=randla.CountSketch())
    with pytest.raises(TypeError, match="sketch must be a Distribution"):
        sketched_matmul(A, B, 3, scheme="sketch", sketch="count")
    with pytest.raises(ValueError, match="B must have 2 dimensions"):
        sketched_matmul(A, B[:, 0], 3)
    with pytest.raises(TypeError, match="A must have dtype"):
        sketched_matmul(A.astype(object), B, 3)
    with pytest.raises(TypeError, match="rng must be"):
        sketched_matmul(A, B, 3, rng="seed")


@pytest.mark.parametrize("form", [np.array, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_numbers_that_are_not_finite_are_refused(scheme, value, form):
    A, B = factors()
    for name in ("A", "B"):
        bad = {"A": A.copy(), "B": B.copy()}
        bad[name][2, 4] = value
        with pytest.raises(ValueError, match=f"{name} must be finite; got 1 NaN"):
            sketched_matmul(form(bad["A"]), form(bad["B"]), 3, scheme=scheme, rng=0)


# The result.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_seed_replays_the_run(scheme):
    A, B = factors()
    for rng in (None, 7, np.random.default_rng(1), np.random.SeedSequence(2)):
        result = sketched_matmul(A, B, 10, scheme=scheme, rng=rng)
        again = sketched_matmul(A, B, 10, scheme=scheme, rng=result.seed)
        np.testing.assert_array_equal(result.product, again.product)
        assert (result.error, result.seed) == (again.error, again.seed)
    assert not np.array_equal(result.product, sketched_matmul(A, B, 10, scheme=scheme, rng=7).product)


def test_results_stand_for_arrays():
    A, B = factors()
    result = sketched_matmul(A, B, 10, rng=0)
    assert isinstance(result, MatmulResult)
    C = result.product
    assert np.asarray(result) is C
    assert np.array(result) is not C
    assert np.asarray(result, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(result - A @ B, C - A @ B)
    np.testing.assert_array_equal(A @ B - result, A @ B - C)
    np.testing.assert_array_equal(result + result, 2 * C)
    np.testing.assert_array_equal(result @ np.ones(5), C @ np.ones(5))
    assert np.linalg.norm(result) == np.linalg.norm(C)
    assert result.shape == C.shape == (6, 5)
    assert result.sample_size == 10
    assert repr(result).startswith("MatmulResult(shape=(6, 5), error=")
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.product, C)


def test_sparse_factors_that_share_few_indices_favour_coordination():
    # 4 % of the rows of one table have a partner in the other. Medians over 11 fixed seeds, at the same number of kept rows.
    rng = np.random.default_rng(0)
    n, rows, shared, k = 20_000, 9_000, 360, 900
    order = rng.permutation(n)
    tables = []
    for kept in (order[:rows], np.concatenate([order[:shared], order[rows : 2 * rows - shared]])):
        indptr = np.concatenate([[0], np.cumsum(8 * np.isin(np.arange(n), kept))])
        tables.append(sp.csr_array((rng.random(8 * rows), np.tile(np.arange(8), rows), indptr), shape=(n, 8)))
    X, Y = tables
    exact = (X.T @ Y).toarray()

    def median(**kwargs):
        return np.median([np.linalg.norm(sketched_matmul(X.T, Y, k, rng=s, **kwargs) - exact) for s in range(11)])

    assert 3 * median() < median(scheme="sketch", sketch=randla.CountSketch())


@pytest.mark.parametrize("scheme", ["coordinated", "squared-norm", "sketch"])
def test_product_that_overflows_has_an_infinite_error(scheme):
    rng = np.random.default_rng(16)
    A, B = 1e200 * rng.standard_normal((4, 50)), 1e200 * rng.standard_normal((50, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        C = sketched_matmul(A, B, 20, scheme=scheme, rng=0)
    assert not np.isfinite(C.product).any()
    assert C.error == np.inf
