"""Low-rank approximations from sampled rows and columns: their error, their estimate of it, and draws from their rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import stats
from test_length_squared import in_proportion, matrix

from randla.sampling.fkv import LowRankSample, fkv
from randla.sampling.length_squared import LengthSquaredTree

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def decaying(m=400, n=250, *, rng=0, factor=0.6, noise=0.01, dtype=float):
    rng = np.random.default_rng(rng)
    k = 20
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    if np.dtype(dtype).kind == "c":
        U, V = U * np.exp(2j * rng.random((m, 1))), V * np.exp(2j * rng.random((n, 1)))
    A = (U * factor ** np.arange(k)) @ V.conj().T
    return (A + noise * rng.standard_normal((m, n)) / np.sqrt(m * n)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("form", [np.array, sp.csr_array])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_additive_error_of_low_rank_samples(form, dtype, orthonormal):
    # ||A - D||^2 <= ||A - A_k||^2 + eps ||A||^2 over 10 fixed seeds: eps = 0.05 of the span, 0.15 of the vectors of FKV.
    A = decaying(dtype=dtype)
    tree = LengthSquaredTree(form(A), rng=0)
    total = np.linalg.norm(A) ** 2
    for k in (1, 3, 6):
        best = np.sum(np.linalg.svd(A, compute_uv=False)[k:] ** 2)
        for seed in range(10):
            sample = fkv(tree, k, n_rows=80 * k, n_columns=80 * k, orthonormal=orthonormal, rng=seed)
            D = sample.to_dense()
            error = np.linalg.norm(A - D) ** 2
            assert best * (1 - 1e-9) <= error <= best + (0.05 if orthonormal else 0.15) * total
            assert sample.rank == k
    np.testing.assert_allclose(D, A @ sample.V @ sample.V.conj().T, atol=1e-14)
    np.testing.assert_allclose(sample.project(A[3]), D[3], atol=1e-14)
    np.testing.assert_allclose(sample.project(sp.csr_array(A[:2])), D[:2], atol=1e-14)
    if orthonormal:
        np.testing.assert_allclose(sample.V.conj().T @ sample.V, np.eye(k), atol=1e-13)
    rows = A[sample.row_indices] / np.linalg.norm(A[sample.row_indices], axis=1)[:, None]
    np.testing.assert_allclose(rows.conj().T @ sample.coefficients, sample.V, atol=1e-12)


def test_more_samples_make_smaller_errors():
    A = decaying(factor=0.8)
    best = np.sum(np.linalg.svd(A, compute_uv=False)[5:] ** 2)

    def excess(p):
        samples = [fkv(A, 5, n_rows=p, n_columns=p, rng=seed) for seed in range(8)]
        return np.mean([np.linalg.norm(A - sample.to_dense()) ** 2 for sample in samples]) - best

    assert excess(20) > 2.5 * excess(80) > 6 * excess(320)


def test_vectors_are_those_of_the_formula():
    A = matrix(40, 30)
    sample = fkv(A, 3, n_rows=25, n_columns=35, orthonormal=False, rng=4)
    squares = A**2
    p = squares.sum(axis=1) / squares.sum()
    S = A[sample.row_indices] / np.sqrt(25 * p[sample.row_indices])[:, None]
    q = np.sum(S**2, axis=0) / np.sum(S**2)
    W = S[:, sample.column_indices] / np.sqrt(35 * q[sample.column_indices])
    U, values, _ = np.linalg.svd(W)
    V = S.T @ U[:, :3] / values[:3]
    np.testing.assert_allclose(sample.V @ sample.V.T, V @ V.T, atol=1e-10)
    np.testing.assert_allclose(sample.singular_values, values[:3], rtol=1e-10)
    span = np.linalg.qr(V)[0]
    better = fkv(A, 3, n_rows=25, n_columns=35, rng=4)
    np.testing.assert_allclose(better.V @ better.V.T, span @ span.T, atol=1e-10)


def test_rows_and_columns_are_drawn_by_squared_length():
    A = matrix(9, 7)
    tree = LengthSquaredTree(A, rng=0)
    k = 30_000
    sample = fkv(tree, 1, n_rows=4, n_columns=k, orthonormal=False, rng=3)
    R = A[sample.row_indices] / np.linalg.norm(A[sample.row_indices], axis=1)[:, None]
    in_proportion(np.bincount(sample.column_indices, minlength=7), np.sum(R**2, axis=0), "columns of sampled rows")
    sample = fkv(tree, 1, n_rows=k, n_columns=4, orthonormal=False, rng=3)
    in_proportion(np.bincount(sample.row_indices, minlength=9), np.sum(A**2, axis=1), "rows")


def test_rank_of_the_matrix_is_found():
    A = decaying(noise=0, factor=0.9)[:, :60]
    A = A[:, :3] @ np.ones((3, 60))
    sample = fkv(A, 5, rng=0)
    assert sample.rank == 1
    np.testing.assert_allclose(sample.to_dense(), A, atol=1e-13)
    assert fkv(A, 5, orthonormal=False, rng=0).rank == 1
    assert sample.singular_values[0] == pytest.approx(np.linalg.norm(A))
    assert sample.squared_error(10)[0] < 1e-20


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_error_estimate_is_unbiased_with_its_standard_error(form):
    A = decaying(factor=0.9)
    sample = fkv(form(A), 4, rng=0)
    true = np.linalg.norm(A - sample.to_dense()) ** 2
    value, spread = sample.squared_error(4000)
    assert spread < 0.02 * true
    stats.z_gate((value - true) / spread, "squared error")
    assert sample.squared_error(1)[1] == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_single_precision_and_scales(dtype, scale):
    A = decaying(dtype=dtype) * dtype(scale)
    sample = fkv(A, 3, rng=0)
    D = sample.to_dense()
    assert D.dtype == dtype
    best = np.sum(np.linalg.svd(A.astype(complex), compute_uv=False)[3:] ** 2)
    assert np.linalg.norm((A - D) / scale) ** 2 <= best / scale**2 + 0.05 * np.linalg.norm(A / scale) ** 2


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_low_rank_samples_do_not_depend_on_the_scale(scale):
    A = decaying()
    one, other = fkv(A, 3, rng=0), fkv(A * scale, 3, rng=0)
    np.testing.assert_array_equal(one.row_indices, other.row_indices)
    np.testing.assert_allclose(other.V @ other.V.T, one.V @ one.V.T, atol=1e-12)
    np.testing.assert_allclose(other.singular_values / scale, one.singular_values, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("form", [np.array, sp.csr_array])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_columns_of_rows_of_the_approximation(form, dtype, orthonormal):
    A = decaying(60, 30, dtype=dtype)
    sample = fkv(form(A), 3, orthonormal=orthonormal, rng=0)
    k = 20_000
    for i in (0, 17):
        p = np.abs(sample.approx_rows(i)[0]) ** 2
        columns, weights = sample.sample_row_of_approximation(i, k)
        in_proportion(np.bincount(columns, minlength=30), p, f"row {i} of the approximation")
        np.testing.assert_allclose(weights, p.sum() / (k * p[columns]), rtol=1e-8)
    assert sample.draws > 2 * k
    # The seed replays the run.
    again = fkv(form(A), 3, orthonormal=orthonormal, rng=sample.seed)
    again.sample_row_of_approximation(0, k)
    np.testing.assert_array_equal(again.sample_row_of_approximation(17, k)[0], columns)


@pytest.mark.parametrize("phase", [0, 1])
def test_rows_that_proposals_hardly_hit_are_drawn_from_themselves(phase):
    # Two directions nearly the same in all rows but one, which is their small difference.
    rng = np.random.default_rng(0)
    turn = np.exp(2j * np.pi * phase * rng.random((50, 2)))
    u, v = np.linalg.qr(rng.standard_normal((50, 2)) * (turn if phase else 1))[0].T
    A = np.concatenate([u + 1e-4 * np.outer(rng.choice([-1, 1], 40), v), 1e-3 * v[None]])
    sample = fkv(A, 2, n_rows=30, n_columns=40, rng=1)
    k = 4000
    columns, weights = sample.sample_row_of_approximation(40, k)
    p = np.abs(sample.approx_rows(40)[0]) ** 2
    in_proportion(np.bincount(columns, minlength=50), p, "difference")
    np.testing.assert_allclose(weights, p.sum() / (k * p[columns]), rtol=1e-6)
    assert 64 * k < sample.draws < 70 * k


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_inner_products_may_be_estimated(form):
    # Unbiased, and the draws then follow the row that the estimate stands for.
    A = decaying(60, 30)
    sample = fkv(form(A), 2, n_rows=20, n_columns=20, rng=0)
    R = A[sample.row_indices] / np.linalg.norm(A[sample.row_indices], axis=1)[:, None]
    exact = R @ A[5] / np.linalg.norm(A[5])
    runs = np.array([sample._products(5, 20) for _ in range(2000)])
    for s in range(20):
        stats.z_gate((runs[:, s].mean() - exact[s]) / runs[:, s].std() * 2000**0.5, f"inner product {s}")
    columns, weights = sample.sample_row_of_approximation(5, 20_000, n_samples=5000)
    # E sum_s w_s = number of columns with entries.
    assert abs(weights.sum() - 30) < 3
    counts = np.bincount(columns, minlength=30) / 20_000
    p = sample.approx_rows(5)[0] ** 2
    assert np.abs(counts - p / p.sum()).max() < 0.03


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_what_low_rank_samples_refuse(form):
    A = matrix(20, 15)
    tree = LengthSquaredTree(form(A), rng=0)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        fkv(tree, 0)
    with pytest.raises(ValueError, match="n_rows must be at least 3"):
        fkv(tree, 3, n_rows=2)
    with pytest.raises(ValueError, match="n_columns must be at least 3"):
        fkv(tree, 3, n_columns=2)
    with pytest.raises(TypeError, match="orthonormal must be True or False; got 1"):
        fkv(tree, 3, orthonormal=1)
    sample = fkv(tree, 3, rng=0)
    assert isinstance(sample, LowRankSample)
    assert repr(sample) == "LowRankSample(shape=(20, 15), rank=3, n_rows=120, seed=0)"
    for n_samples in (None, 10):
        with pytest.raises(ValueError, match="row 3 of the approximation must have entries"):
            sample.sample_row_of_approximation(3, 1, n_samples=n_samples)
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        sample.sample_row_of_approximation(0, 1, n_samples=0)
    with pytest.raises(ValueError, match="i must be between 0 and 19"):
        sample.sample_row_of_approximation(20, 1)
    with pytest.raises(ValueError, match=r"X must have 15 columns, as A has; got shape \(14,\)"):
        sample.project(np.ones(14))
    assert len(sample.sample_row_of_approximation(0, 0)[0]) == 0
    tree.update(0, 0, 1.0)
    for call in (sample.to_dense, sample.squared_error, lambda: sample.sample_row_of_approximation(0, 1)):
        with pytest.raises(RuntimeError, match="the tree must be as it was"):
            call()
    assert sample.project(np.ones(15)).shape == (15,)
