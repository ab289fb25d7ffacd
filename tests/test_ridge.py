"""Ridge regression whose sketch follows the effective dimension, against LAPACK and singular values."""

import functools
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from ls_oracles import EPS, backward_error, ridge_solution
from problems import haar, least_squares, rank_deficient
from scipy.sparse.linalg import aslinearoperator

import randla
from randla._factor import RidgeFactor

M, N = 1500, 400
SPECTRA = {
    "algebraic": 1 / np.arange(1, N + 1),
    "exponential": 10.0 ** (-8 * np.arange(N) / N),
    "flat": np.linspace(1, 0.5, N),
    "gap": np.where(np.arange(N) < 20, 1.0, 1e-7),
}
# From far below the smallest squared singular value to far above the largest.
RIDGES = (1e-20, 1e-12, 1e-8, 1e-4, 1e-2, 1.0, 100.0, 1e8)
METHODS = ("spir", "fossils", "lsqr", "momentum", "cholqr")


@functools.cache
def problem(spectrum):
    rng = np.random.default_rng(1)
    U, V, s = haar(M, N, rng), haar(N, N, rng), SPECTRA[spectrum]
    A = (U * s) @ V.T
    b = A @ rng.standard_normal(N) + 0.1 * rng.standard_normal(M) / M**0.5
    return A, b, U, s, V


def exact_solution(spectrum, ridge):
    _, b, U, s, V = problem(spectrum)
    return V @ (s / (s**2 + ridge) * (U.T @ b))


def augmented(A, b, ridge):
    n = A.shape[1]
    return np.vstack([A, ridge**0.5 * np.eye(n)]), np.concatenate([b, np.zeros(n)])


def effective_dimension(s, ridge):
    return np.sum(s**2 / (s**2 + ridge))


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_ridge_solution_is_right_for_every_size_of_the_ridge(spectrum, ridge, form):
    A, b, _, s, _ = problem(spectrum)
    result = randla.lstsq(form(A), b, ridge=ridge, method="spir", rng=2)
    cond = ((s[0] ** 2 + ridge) / (s[-1] ** 2 + ridge)) ** 0.5
    assert result.status is randla.Status.CONVERGED
    assert result.rank == N
    # Wedin's bound with the residual of size 0.1 of this problem; U, s and V are exact to a few eps only.
    assert relative(result.x, exact_solution(spectrum, ridge)) < 100 * EPS * cond * (1 + 0.1 * cond)
    assert result.passes < 60


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("spectrum", "ridge"), [("algebraic", 1e-2), ("exponential", 1.0), ("gap", 1e-8), ("flat", 100.0)])
def test_every_method_solves_it_and_says_how_well(method, spectrum, ridge):
    A, b, *_ = problem(spectrum)
    result = randla.lstsq(A, b, ridge=ridge, method=method, rng=3)
    stacked, target = augmented(A, b, ridge)
    exact = backward_error(stacked, target, result.x)
    assert exact < (100 * EPS if method in ("lsqr", "momentum") else EPS)
    assert 0.7 * exact - 1e-17 <= result.backward_error <= 1.5 * exact + 1e-17
    assert relative(result.x, ridge_solution(A, b, ridge)) < 1e-8
    true = relative(result.x, exact_solution(spectrum, ridge))
    assert result.error_bound < 1e-3
    assert result.error_bound > 0.1 * true


@pytest.mark.parametrize("ridge", [1e-2, 1.0])
def test_certificate_of_an_inaccurate_solution_brackets_the_exact_backward_error(ridge):
    A, b, *_ = problem("algebraic")
    result = randla.lstsq(A, b, ridge=ridge, method="sketch", rng=3)
    exact = backward_error(*augmented(A, b, ridge), result.x)
    assert exact > 1e-4
    assert 0.6 * exact <= result.backward_error <= 1.5 * exact


@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize(("spectrum", "ridge"), [("algebraic", 1e-2), ("exponential", 1.0), ("gap", 1e-6), ("flat", 100.0)])
def test_preconditioner_has_few_rows_and_conditions_the_augmented_matrix(spectrum, ridge, form):
    A, b, _, s, _ = problem(spectrum)
    for seed in range(3):
        P = randla.sketch_preconditioner(form(A), ridge=ridge, rng=seed)
        assert isinstance(P._factor, RidgeFactor)
        assert 8 * effective_dimension(s, ridge) * 0.8 < P._factor.rows <= N // 2
        assert P.rank == N
        dense = P @ np.eye(N)
        # (1 + e) / (1 - e) for e = sqrt(1 / 8) is 2.1.
        assert np.linalg.cond(augmented(A, b, ridge)[0] @ dense) < 2.8
        assert np.allclose(P.H @ np.eye(N), dense.T, rtol=1e-9, atol=1e-9 * np.abs(dense).max())
        true = ((s[0] ** 2 + ridge) / (s[-1] ** 2 + ridge)) ** 0.5
        assert true / 2 < P.cond_estimate < 2 * true


def test_a_ridge_that_leaves_many_dimensions_takes_the_full_factor():
    A, b, *_ = problem("flat")
    assert not isinstance(randla.sketch_preconditioner(A, ridge=1e-3, rng=1)._factor, RidgeFactor)
    # With a ridge of rounding size the rank is in question: for singular values to decide, as without a ridge.
    A, b = rank_deficient("product", 900, 300, 20, rng=1)
    with pytest.warns(randla.LstsqWarning, match="rank"):
        assert randla.lstsq(A, b, ridge=1e-31, method="spir", rng=1).rank == 20


@pytest.mark.parametrize("method", ["spir", "momentum"])
@pytest.mark.parametrize("rows", [1, 30, 399])
def test_a_sketch_smaller_than_the_columns_may_be_asked_for(method, rows):
    A, b, *_ = problem("exponential")
    result = randla.lstsq(A, b, ridge=10.0, method=method, sketch_size=rows, rng=1)
    assert relative(result.x, exact_solution("exponential", 10.0)) < 1e-12
    assert randla.sketch_preconditioner(A, ridge=10.0, sketch_size=rows, rng=1)._factor.rows == rows


def test_every_distribution_serves():
    A, b, *_ = problem("exponential")
    exact = exact_solution("exponential", 1.0)
    for sketch in (randla.Gaussian(), randla.SparseSign(), randla.SparseStack(), randla.BlockSRHT()):
        result = randla.lstsq(A, b, ridge=1.0, sketch=sketch, rng=1)
        assert result.iterations < 30
        assert relative(result.x, exact) < 1e-12


def test_singular_values_and_condition_number_are_those_of_the_augmented_matrix():
    A, b, _, s, _ = problem("exponential")
    result = randla.lstsq(A, b, ridge=0.1, method="spir", rng=1)
    true = np.sqrt(s**2 + 0.1)
    assert result.s.shape == (N,)
    assert np.all(np.abs(np.log(result.s / true)) < 0.4)
    assert true[0] / true[-1] / 1.5 < result.cond < true[0] / true[-1] * 1.5


@pytest.mark.parametrize("scale", [1e-120, 1e-8, 1e8, 1e120])
def test_units_of_the_matrix_do_no_harm(scale):
    A, b, *_ = problem("algebraic")
    result = randla.lstsq(scale * A, b, ridge=1e-2 * scale**2, method="spir", rng=1)
    assert relative(scale * result.x, exact_solution("algebraic", 1e-2)) < 1e-12
    assert result.backward_error < EPS


def test_float32_matrix_gets_a_float32_solution():
    A, b, *_ = problem("algebraic")
    result = randla.lstsq(A.astype(np.float32), b.astype(np.float32), ridge=1e-2, method="spir", rng=1)
    assert result.x.dtype == np.float32
    assert result.status is randla.Status.CONVERGED
    assert relative(result.x, exact_solution("algebraic", 1e-2)) < 1e-5


def test_right_hand_sides_share_the_factor():
    A, b, *_ = problem("exponential")
    B = np.column_stack([b, np.zeros(M), 1e6 * b, A[:, 0]])
    result = randla.lstsq(A, B, ridge=1.0, method="spir", rng=1)
    assert relative(result.x, ridge_solution(A, B, 1.0)) < 1e-12
    assert np.all(result.backward_error < EPS)


@pytest.mark.parametrize("method", ["spir", "fossils", "cholqr"])
@pytest.mark.parametrize("ridge", [1e-6, 0.1, 100.0])
def test_wide_ridge_problem(method, ridge):
    rng = np.random.default_rng(2)
    s = 1 / np.arange(1.0, 301)
    U, V = haar(300, 300, rng), haar(2000, 300, rng)
    A, b = (U * s) @ V.T, rng.standard_normal(300)
    result = randla.lstsq(A, b, ridge=ridge, method=method, rng=1)
    assert result.success
    assert relative(result.x, V @ (s / (s**2 + ridge) * (U.T @ b))) < 1e-10


def test_operator_is_solved_with_a_ridge():
    A, b, *_ = problem("exponential")
    result = randla.lstsq(aslinearoperator(A), b, ridge=1.0, rng=1)
    assert relative(result.x, exact_solution("exponential", 1.0)) < 1e-12


def test_larger_dense_problem_takes_few_passes():
    made = least_squares(4000, 1500, 1e8, 1e-2, rng=3)
    result = randla.lstsq(made.A, made.b, ridge=1e-2, method="spir", rng=1)
    gradient = made.A.T @ (made.b - made.A @ result.x) - 1e-2 * result.x
    assert np.linalg.norm(gradient) < 1e-14 * np.linalg.norm(made.A.T @ made.b)
    assert result.passes < 45


def test_sparse_matrix_with_more_columns_than_a_square_factor_could_have():
    # 20,000 columns: R alone would take 3.2 GB.
    m, n, ridge = 30_000, 20_000, 10.0
    rng = np.random.default_rng(4)
    W = sp.random_array((m, n), density=1e-3, format="csr", rng=rng, data_sampler=lambda size: rng.standard_normal(size=size))
    A = sp.csr_array(W @ sp.diags_array(np.arange(1.0, n + 1) ** -0.7))
    b = A @ rng.standard_normal(n) + 0.1 * rng.standard_normal(m)
    tracemalloc.start()
    try:
        result = randla.lstsq(A, b, ridge=ridge, rng=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    gradient = A.T @ (b - A @ result.x) - ridge * result.x
    assert result.success
    assert np.linalg.norm(gradient) < 1e-13 * np.linalg.norm(A.T @ b)
    assert result.passes < 30
    assert result.backward_error < EPS
    assert peak < 8 * n * n / 4
