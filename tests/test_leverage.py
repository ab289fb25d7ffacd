"""Exact leverage scores against a factorization in extended precision, their identities, and hard matrices."""

import functools
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from leverage_oracles import EPS, FORMS, by_svd, check, check_deficient, full, generic, oracle
from problems import badly_scaled, coherent, covtype, data_file, haar, kdd99, rank_deficient
from scipy.sparse.linalg import LinearOperator

from randla import _factor, _leverage
from randla._factor import TriangularFactor, TruncatedFactor
from randla._matrix import wrap
from randla._numeric import norms
from randla.leverage import coherence, effective_dimension, leverage_scores
from randla.result import LeverageWarning

pytestmark = pytest.mark.usefixtures("one_blas_thread")
kdd99 = functools.cache(kdd99)


# Many rows per column: a sketch and its correction. Few: QR of A itself.
@pytest.mark.parametrize("m", [400, 60], ids=["tall", "short"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.complex64, np.int32])
@pytest.mark.parametrize("form", FORMS)
def test_exact_scores_of_every_form_and_type(form, dtype, m):
    n = 13
    A = generic(m, n, dtype)
    given, weights = FORMS[form](A), np.random.default_rng(1).random(m) * (np.arange(m) % 5 > 0)
    # Products with an operator are made in its own precision.
    tolerance = 1e-4 if form == "operator" and np.dtype(dtype).char in "fF" else 1e-11
    atol = {"tolerance": tolerance}
    A = A.astype(np.result_type(A, np.float64))
    with warnings.catch_warnings():
        if tolerance > 1e-5:
            warnings.simplefilter("ignore", LeverageWarning)
        if tolerance < 1e-5:
            check(full(given), oracle(A), n, **atol)
            check(full(given, ridge=1e4), oracle(A, 1e4), n, **atol)
            check(full(given, weights=weights), oracle(A, weights=weights), n, **atol)
            check(full(given, rank=4), by_svd(A, rank=4), 4, tolerance=1e-9)
        else:
            for options, truth in (({}, oracle(A)), ({"ridge": 1e4}, oracle(A, 1e4))):
                np.testing.assert_allclose(full(given, **options).scores, truth, rtol=tolerance)
    result = full(given, method="sketch", rtol=0.5)
    assert np.all(np.abs(result.scores / oracle(A) - 1) < 0.5)
    np.testing.assert_array_equal(full(given, weights=weights).scores[weights == 0], 0)


@pytest.mark.parametrize("cond", [1e2, 1e4, 1e8, 1e11, 1e14])
@pytest.mark.parametrize("m", [3000, 200], ids=["tall", "short"])
@pytest.mark.parametrize("form", ["C", "CSR", "list of blocks"])
def test_error_is_that_of_a_qr_factorization(form, m, cond):
    rng = np.random.default_rng(2)
    n = 20
    A = (haar(m, n, rng) * np.logspace(0, -np.log10(cond), n)) @ haar(n, n, rng).T
    truth, result = oracle(A), full(FORMS[form](A))
    error = np.max(np.abs(result.scores / truth - 1))
    householder = np.max(np.abs(norms(np.linalg.qr(A)[0]) ** 2 / truth - 1))
    assert error <= max(20 * cond * EPS, 4 * householder)
    # What is said about the error covers it.
    assert error <= 10 * result.relative_error
    assert result.rank == n
    assert result.scores.sum() == pytest.approx(n, abs=1e-9)
    assert np.all((result.scores >= 0) & (result.scores <= 1))
    # That of A with its columns scaled, from below.
    assert cond / 20 < result.cond <= 2 * cond


@pytest.mark.parametrize("cond", [1e16, 1e20])
@pytest.mark.parametrize("m", [3000, 200], ids=["tall", "short"])
def test_scores_of_a_numerically_singular_matrix_sum_to_its_rank(m, cond):
    rng = np.random.default_rng(3)
    n = 20
    A = (haar(m, n, rng) * np.logspace(0, -np.log10(cond), n)) @ haar(n, n, rng).T
    result = full(A)
    assert 12 < result.rank < n
    assert result.scores.sum() == pytest.approx(result.rank, abs=1e-9)
    assert np.all((result.scores >= 0) & (result.scores <= 1))
    # Wherever the cut is made, these directions are kept.
    assert np.all(result.scores >= by_svd(A, rank=12) * (1 - 1e-2) - 1e-6)


def test_rcond_decides_what_is_cut():
    rng = np.random.default_rng(4)
    A = haar(500, 6, rng) * [1, 1, 1, 1e-6, 1e-6, 1e-6] @ haar(6, 6, rng).T
    assert full(A).rank == 6
    result = full(A, rcond=1e-4)
    # The columns are scaled before the cut, which moves the directions by 1e-6 of an angle.
    check(result, by_svd(A, rank=3), 3, tolerance=1e-4)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (1, 4), (5, 1), (1, 0)])
@pytest.mark.parametrize("method", ["auto", "exact", "sketch"])
def test_smallest_shapes(shape, method):
    A = np.full(shape, 3.0)
    result = full(A, method=method)
    check(result, np.full(shape[0], 1 / max(shape[0], 1) if A.size else 0.0), min(1, A.size))
    assert coherence(A) == pytest.approx(result.scores.max(initial=0.0))
    assert effective_dimension(A, 0.0) == pytest.approx(min(1, A.size))
    assert effective_dimension(A, 9.0 * max(shape[0], 1) * max(shape[1], 1)) == pytest.approx(min(1, A.size) / 2)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1e3])
@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("shape", [(300, 4), (20, 4), (4, 300)])
def test_zero_matrix_has_zero_scores(shape, method, ridge):
    for form in ("C", "CSR"):
        result = full(FORMS[form](np.zeros(shape)), method=method, ridge=ridge)
        assert not result.scores.any()
        assert result.effective_dimension == pytest.approx(0, abs=1e-12)
    assert not ridge or effective_dimension(np.zeros(shape), ridge, method=method) == pytest.approx(0, abs=1e-12)
    if not ridge:
        result = full(np.zeros(shape), method=method, rank=2)
        assert not result.scores.any()
        assert result.rank == 0


# Identities


@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_scores_do_not_change_under_a_multiplication_from_the_right(method, dtype):
    rng = np.random.default_rng(5)
    A = generic(4000, 8, dtype)
    R = haar(8, 8, rng) * np.logspace(0, 4, 8) @ haar(8, 8, rng)
    plain, mapped = full(A, method=method), full(A @ R, method=method)
    # The sketch may compute in float32 where that moves a score by a twentieth of rtol at most.
    np.testing.assert_allclose(mapped.scores, plain.scores, rtol=1e-7 if method == "exact" else 0.25 / 20)
    # Columns may have any sizes that can be represented.
    scaled = full(A * np.logspace(-140, 140, 8), method=method)
    np.testing.assert_allclose(scaled.scores, plain.scores, rtol=1e-10 if method == "exact" else 1e-4)


@pytest.mark.parametrize("shape", [(500, 7), (30, 7), (7, 30)])
def test_rows_that_occur_twice_share_their_score(shape):
    A = generic(*shape)
    twice = full(np.vstack([A, A])).scores
    np.testing.assert_allclose(twice, np.tile(full(A).scores / 2, 2), rtol=1e-11)
    weighted = full(A, weights=np.full(shape[0], 2.0)).scores
    np.testing.assert_allclose(weighted, full(A).scores, rtol=1e-11)


@pytest.mark.parametrize("shape", [(500, 7), (30, 7), (7, 30)])
@pytest.mark.parametrize("form", ["C", "CSR"])
def test_ridge_from_nothing_to_everything(form, shape):
    A = generic(*shape)
    given, plain, squares = FORMS[form](A), full(A).scores, np.sum(A * A, axis=1)
    np.testing.assert_allclose(full(given, ridge=1e-20).scores, plain, rtol=1e-9)
    for ridge in (1e20, 1e100):
        np.testing.assert_allclose(full(given, ridge=ridge).scores * ridge, squares, rtol=1e-9)
    before = plain
    for ridge in np.logspace(-3, 8, 6):
        scores = full(given, ridge=ridge).scores
        np.testing.assert_allclose(scores, by_svd(A, ridge), rtol=1e-10)
        assert np.all(scores < before * (1 + 1e-12))
        before = scores


@pytest.mark.parametrize("shape", [(400, 6), (20, 6), (6, 20)])
def test_weights_are_scaled_rows(shape):
    A, rng = generic(*shape), np.random.default_rng(6)
    w = rng.random(shape[0]) * 10.0 ** rng.integers(-4, 4, shape[0])
    w[1:3] = 0
    scaled = A * np.sqrt(w)[:, None]
    for options in ({}, {"ridge": 10.0}, {"rank": 2}, {"method": "sketch"}, {"method": "sketch", "rank": 2, "rtol": 1e-9}):
        found = full(A, weights=w, **options).scores
        tolerance = 0.5 if options == {"method": "sketch"} and shape[0] == 400 else 1e-7
        np.testing.assert_allclose(found, full(scaled, **options).scores, rtol=tolerance, atol=1e-12)


# Hard matrices


@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("m", [3000, 100], ids=["tall", "short"])
@pytest.mark.parametrize("kind", ["product", "duplicate", "zero"])
def test_rank_deficient(kind, m, method):
    A, _ = rank_deficient(kind, m, 12, 8)
    A[7:11] = 0
    truth = by_svd(A, rank=8)
    for form in ("C", "F", "CSR", "list of blocks"):
        result = full(FORMS[form](A), method=method)
        check_deficient(result, truth, 8, exact=method == "exact" or m == 100)
        assert not result.scores[7:11].any()


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("options", [{}, {"ridge": 3.0}, {"rank": 2}, {"method": "sketch"}])
@pytest.mark.parametrize("shape", [(600, 8), (40, 8), (8, 40)])
def test_zero_rows_and_columns_are_nothing(shape, options, dtype):
    A = generic(*shape, dtype)
    rows, columns = np.arange(shape[0]) % 3 == 1, np.arange(shape[1]) % 4 == 2
    A[rows], A[:, columns] = 0, 0
    for form in ("C", "F", "CSR"):
        scores = full(FORMS[form](A), **options).scores
        assert not scores[rows].any()
        truth = by_svd(A[~rows][:, ~columns], options.get("ridge", 0.0), options.get("rank"))
        np.testing.assert_allclose(scores[~rows], truth, rtol=0.25 if "method" in options and shape[0] > 40 else 1e-9)


@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("form", ["C", "CSR", "operator"])
def test_identity_block_and_single_rows_carry_whole_directions(form, method):
    rng = np.random.default_rng(8)
    block = np.zeros((5000, 10))
    block[rng.permutation(5000)[:10], range(10)] = 1
    spiked = rng.standard_normal((5000, 10))
    spiked[1234] = 1e8 * rng.standard_normal(10)
    for A, carriers in ((block, np.flatnonzero(block.any(axis=1))), (spiked, [1234]), (coherent(5000, 10)[0], None)):
        scores = full(FORMS[form](A), method=method).scores
        truth = by_svd(A)
        if method == "exact":
            np.testing.assert_allclose(scores, truth, rtol=1e-6, atol=1e-14)
        else:
            np.testing.assert_allclose(scores, truth, rtol=0.25, atol=1e-14)
        if carriers is not None:
            assert np.all(scores[carriers] > (1 - 1e-9 if method == "exact" else 0.75))


@pytest.mark.parametrize("method", ["exact", "sketch"])
@pytest.mark.parametrize("decades", [100, 150])
def test_columns_of_any_size(decades, method):
    A, _, scale = badly_scaled(3000, 9, decades)
    truth = by_svd(A / scale)
    tolerance = 1e-11 if method == "exact" else 0.25
    for form in ("C", "F", "CSR", "list of blocks"):
        np.testing.assert_allclose(full(FORMS[form](A), method=method).scores, truth, rtol=tolerance)
    np.testing.assert_allclose(full(A[:60], method=method).scores, by_svd((A / scale)[:60]), rtol=1e-11)


@pytest.mark.parametrize("size", [1e-200, 1e-100, 1e100, 1e200])
@pytest.mark.parametrize("options", [{}, {"rank": 3}, {"method": "sketch"}, {"method": "sketch", "rank": 3, "rtol": 1e-6}])
def test_matrix_of_any_size(options, size):
    A = generic(2000, 8)
    for form in ("C", "CSR"):
        result = full(FORMS[form](A * size), **options)
        tolerance = 0.25 if options == {"method": "sketch"} else 1e-6
        np.testing.assert_allclose(result.scores, by_svd(A, rank=options.get("rank")), rtol=tolerance)
        assert result.rank == options.get("rank", 8)


SIZES = [(1e-200, 1.0), (1.0, 1e290), (1e-100, 1e90), (1e-150, 1e-290), (1e200, 1e-300), (1e150, 1e300)]


@pytest.mark.parametrize(("size", "ridge"), SIZES)
def test_ridge_of_any_size(size, ridge):
    A = generic(2000, 8)
    with np.errstate(over="ignore"):
        truth = by_svd(A, np.float64(ridge) / size / size)
    for method, tolerance in (("exact", 1e-9), ("sketch", 0.25)):
        scores = full(A * size, method=method, ridge=ridge).scores
        # Sketched scores may be computed in float32.
        smallest = 1e-30 if method == "sketch" else 1e-300
        np.testing.assert_allclose(scores, truth, rtol=tolerance, atol=smallest)


# Fewer rows than columns


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("form", ["C", "F", "strided", "CSR", "operator"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 900)])
def test_wide(shape, form, dtype):
    m, n = shape
    A = generic(m, n, dtype)
    B = A.astype(np.result_type(A, np.float64))
    tolerance = 1e-3 if form == "operator" and dtype == np.float32 else 1e-10
    given, w = FORMS[form](A), np.arange(m) % 3.0
    for method in ("auto", "sketch"):
        np.testing.assert_array_equal(full(given, method=method).scores, 1.0)
        np.testing.assert_array_equal(full(given, weights=w, method=method).scores, w > 0)
        np.testing.assert_allclose(full(given, ridge=1e5, method=method).scores, by_svd(B, 1e5), rtol=tolerance)
    np.testing.assert_allclose(
        full(given, ridge=1e5, weights=w).scores, by_svd(B * np.sqrt(w)[:, None], 1e5), rtol=tolerance, atol=1e-14
    )
    if tolerance < 1e-5:
        check(full(given, rank=3), by_svd(B, rank=3), 3, tolerance=1e-8)
    assert effective_dimension(given, 1e5) == pytest.approx(by_svd(B, 1e5).sum(), rel=10 * tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(20, 30), (20, 900)])
def test_wide_and_deficient(shape, weighted):
    rng = np.random.default_rng(9)
    left = rng.standard_normal((shape[0], 11))
    # A row of zeros, and a small one that is alone in its direction.
    left[[4, 7]] = 0
    A = left @ rng.standard_normal((11, shape[1]))
    A[:, 0] = 0
    A[7, 0] = 1e-9
    w = 10.0 ** rng.integers(-8, 8, shape[0]) if weighted else None
    left = np.hstack([left, np.eye(shape[0])[:, 7:8]])
    # The range of A is that of its left factor, which has full rank.
    truth = oracle(left, weights=w)
    for form in ("C", "CSR"):
        # The rows of A differ in size by eleven orders of magnitude, with weights by more.
        check(full(FORMS[form](A), weights=w), truth, 12, tolerance=1e-4)
    assert truth[7] == pytest.approx(1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("form", ["C", "F", "CSR"])
def test_wide_with_columns_of_any_size(form, dtype, weighted):
    """Scores do not change with the units of columns: one that is huge does not hide the rank of the others."""
    A = generic(20, 60, dtype)
    low = (generic(20, 5, dtype) @ generic(5, 60, dtype, seed=3)).astype(dtype)
    units = np.ldexp(1.0, np.random.default_rng(20).integers(-40, 41, 60))
    units[7] = 2.0**60
    w = np.random.default_rng(21).random(20) + 0.5 if weighted else None
    for method in ("exact", "sketch"):
        np.testing.assert_array_equal(full(FORMS[form]((A * units).astype(dtype)), weights=w, method=method).scores, 1.0)
    found = full(FORMS[form]((low * units).astype(dtype)), weights=w)
    assert found.rank == 5
    expected = full(FORMS[form](low), weights=w)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4 if dtype == np.float32 else 1e-10)


# Scores of an approximation of low rank


def stepped(m, n, sigma, dtype=np.float64, seed=11):
    rng = np.random.default_rng(seed)
    U, V = haar(m, n, rng), haar(n, n, rng)
    if np.dtype(dtype).kind == "c":
        U = np.linalg.qr(U + 1j * rng.standard_normal((m, n)))[0]
    return (U * sigma) @ V.T, U


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(2000, 30), (100, 30), (30, 100)])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_rank_k_with_a_gap(k, shape, dtype):
    sigma = np.ones(min(shape)) * np.linspace(1, 0.5, min(shape))
    sigma[k:] *= 0.1
    A, U = stepped(max(shape), min(shape), sigma, dtype)
    if shape[0] < shape[1]:
        A, U = A.conj().T, np.linalg.svd(A.conj().T)[0]
    truth = np.sum(np.abs(U[:, :k]) ** 2, axis=1)
    for form in ("C", "CSR", "operator"):
        result = full(FORMS[form](A), rank=k)
        check(result, truth, k, tolerance=1e-9)
        assert result.gap == pytest.approx(1 - sigma[k] / sigma[k - 1] if k < 30 else np.inf)
        sketched = full(FORMS[form](A), rank=k, method="sketch")
        assert sketched.rank == k
        assert sketched.scores.sum() == pytest.approx(k, rel=1e-9 if dtype == np.float64 else 1e-3)
        assert np.max(np.abs(sketched.scores - truth)) < 0.25 * truth.max()
    tight = full(A, rank=k, method="sketch", rtol=1e-8)
    np.testing.assert_allclose(tight.scores, truth, rtol=1e-6, atol=1e-9)
    if k < 30:
        assert tight.gap == pytest.approx(result.gap, rel=1e-2)


@pytest.mark.parametrize("shape", [(2000, 30), (100, 30), (30, 100)])
def test_scores_without_a_gap_are_not_given_in_silence(shape):
    sigma = np.repeat([1.0, 0.5], [10, 20])
    A, _ = stepped(max(shape), min(shape), sigma)
    A = A if shape[0] > shape[1] else A.T
    for k in (4, 20):
        with pytest.warns(LeverageWarning, match=f"values {k} and {k + 1} differ"):
            result = full(A, rank=k)
        assert result.scores.sum() == pytest.approx(k, abs=1e-9)
        assert result.gap < 1e-12
    check(full(A, rank=10), by_svd(A, rank=10), 10, tolerance=1e-9)


def test_rank_beyond_that_of_the_matrix_gives_all_there_is():
    A, _ = rank_deficient("product", 600, 12, 5)
    for options in ({}, {"method": "sketch"}):
        for given in (A, A[:20], A.T.copy()):
            result = full(given, rank=8, **options)
            assert result.rank == 5
            np.testing.assert_allclose(result.scores, by_svd(given, rank=5), rtol=1e-8, atol=1e-12)


# When a sketch fails


def test_sketch_that_cannot_be_corrected_is_given_up_for_qr(monkeypatch):
    A, calls = generic(3000, 12), []

    def refuse(self, matrix, ridge):
        calls.append(matrix)
        return False

    monkeypatch.setattr(_factor.Factor, "improve", refuse)
    for form in ("C", "F", "CSR"):
        check(full(FORMS[form](A)), oracle(A), 12)
        check(full(FORMS[form](A), ridge=10.0), oracle(A, 10.0), 12)
    assert len(calls) == 6


def test_sketch_of_too_few_rows_is_given_up_for_qr(monkeypatch):
    # Directions that the sketch does not see are cut off: the rank is wrong unless that is noticed.
    monkeypatch.setattr(_leverage, "_ROWS_PER_COLUMN", 1)
    for seed in range(5):
        check(full(generic(3000, 12), rng=seed), oracle(generic(3000, 12)), 12, tolerance=1e-9)


@pytest.mark.parametrize("kind", [TriangularFactor, TruncatedFactor])
@pytest.mark.parametrize("ridge", [0.0, 3.0])
def test_improved_factor_is_that_of_the_matrix(kind, ridge):
    rng = np.random.default_rng(18)
    A = rng.standard_normal((500, 6))
    scale, start = 2.0 ** rng.integers(-3, 4, 6), np.zeros((0, 6))
    # Some factor, off by a factor of ten in places.
    R = np.asfortranarray(np.linalg.qr((A * scale)[:40] * rng.random((40, 1)))[1])
    if kind is TriangularFactor:
        factor = TriangularFactor(R, scale, start)
    else:
        _, sigma, Vh = np.linalg.svd(R)
        factor = TruncatedFactor(R, scale, start, sigma, np.ascontiguousarray(Vh.T), 6)
    assert factor.improve(wrap(A), ridge)
    mapping = factor.row_map()
    images = mapping.images(np.vstack([A, np.sqrt(ridge) * np.eye(6)]))
    np.testing.assert_allclose(images.T @ images, np.eye(6), atol=1e-13)
    np.testing.assert_allclose(factor.row_norms() * factor.scale, norms(mapping.T * scale[:, None]), rtol=1e-12)


def test_factor_that_is_far_off_is_not_improved():
    A = np.random.default_rng(19).standard_normal((500, 6))
    A[:, 5] = 0
    R = np.asfortranarray(np.eye(6))
    factor = TriangularFactor(R.copy(order="F"), np.ones(6), np.zeros((0, 6)))
    assert not factor.improve(wrap(A), 0.0)
    np.testing.assert_array_equal(factor.R, R)


def test_operator_whose_adjoint_is_not_one_is_refused():
    A = generic(300, 5)
    wrong = LinearOperator(A.shape, matvec=lambda x: A @ x, rmatvec=lambda y: -A.T @ y, dtype=A.dtype)
    with pytest.raises(np.linalg.LinAlgError, match="adjoint"):
        leverage_scores(wrong, rng=1)


# Real data


def test_a9a():
    with np.load(data_file("a9a.npz")) as z:
        A = sp.csr_array((z["data"].astype(float), z["indices"].astype(np.int32), z["indptr"]), shape=z["shape"])
    truth = by_svd(A.toarray())
    result = full(A)
    assert result.rank == round(truth.sum())
    np.testing.assert_allclose(result.scores, truth, rtol=1e-8, atol=1e-13)
    sketched = full(A, method="sketch").scores
    assert np.all(np.abs(sketched / truth - 1) <= 0.25)


@pytest.mark.slow
def test_covtype():
    A, _ = covtype(step=5)
    scaled = A / np.maximum(norms(A.T), 1)
    truth = by_svd(scaled, rank=53)
    for form in ("C", "F", "CSR"):
        result = full(FORMS[form](A))
        assert result.rank == 53
        np.testing.assert_allclose(result.scores, truth, rtol=1e-7, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["exact", "sketch"])
def test_kdd99_has_three_rows_with_most_of_a_direction(method):
    A, _ = kdd99()
    scaled = A / np.maximum(norms(A.T), 1e-300)
    truth = by_svd(scaled, rank=36)
    result = full(A, method=method)
    assert result.rank == 36
    assert sorted(np.argsort(result.scores)[-3:]) == sorted(np.flatnonzero(truth > 0.5))
    np.testing.assert_allclose(result.scores, truth, rtol=1e-6 if method == "exact" else 0.25, atol=1e-12)


@pytest.mark.parametrize("rows", [60, 400])
@pytest.mark.parametrize("exponent", [-1060, -1030, 900])
def test_columns_near_the_ends_of_the_range_of_numbers(rows, exponent):
    """Integers times a power of two: no entry is rounded, so that the scores are those of the integers."""
    A = np.random.default_rng(11).integers(-9, 10, (rows, 4)).astype(float)
    Q = np.linalg.qr(A)[0]
    columns = A * np.ldexp(1.0, [0, exponent, 0, 0] if exponent > -1040 else [exponent] * 4)
    for B in (columns, np.ldexp(A, exponent)):
        result = leverage_scores(B, method="exact", full_output=True, rng=0)
        assert result.rank == 4
        np.testing.assert_allclose(result.scores, np.vecdot(Q, Q), rtol=1e-11)


def test_effective_dimension_of_tiny_matrices():
    """sigma^2 and the ridge are below the smallest normal number, their ratio is not."""
    A = np.random.default_rng(12).standard_normal((400, 4))
    s = np.linalg.svd(A, compute_uv=False)
    ridge = 100 * 2.0**-1060
    result = leverage_scores(A * 2.0**-530, ridge=ridge, full_output=True, rng=0)
    assert result.effective_dimension == pytest.approx(np.sum(s**2 / (s**2 + 100)), rel=1e-6)
