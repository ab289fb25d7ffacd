"""Least squares at the ends of the range of floating point numbers, against exact rational arithmetic, and with operators that
write where they should not."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

import randla
from randla import Status

ITERATIVE = ["spir", "fossils", "cholqr", "lsqr", "momentum"]
EVERY = ["direct", *ITERATIVE]
FORMS = [np.ascontiguousarray, np.asfortranarray, sp.csr_array]
TOLD = (Status.STAGNATED, Status.OVERFLOWED, Status.ITERATION_LIMIT)


def exact_solution(A, b):
    """Exact x of the normal equations as Fractions."""
    rows = [[Fraction(float(v)) for v in row] for row in A]
    right = [Fraction(float(v)) for v in b]
    n = len(rows[0])
    table = [[sum(r[i] * r[j] for r in rows) for j in range(n)] for i in range(n)]
    for i in range(n):
        table[i].append(sum(r[i] * v for r, v in zip(rows, right, strict=True)))
    for i in range(n):
        for j in range(i + 1, n):
            factor = table[j][i] / table[i][i]
            table[j] = [p - factor * q for p, q in zip(table[j], table[i], strict=True)]
    x = [Fraction(0)] * n
    for i in reversed(range(n)):
        x[i] = (table[i][n] - sum(table[i][j] * x[j] for j in range(i + 1, n))) / table[i][i]
    return x


def relative_error(x, exact):
    """||x - x*|| / ||x||, inf for x = 0."""
    largest = max(abs(Fraction(float(v))) for v in x)
    if largest == 0:
        return math.inf
    errors = [float((Fraction(float(v)) - e) / largest) for v, e in zip(x, exact, strict=True)]
    return float(np.linalg.norm(errors) / np.linalg.norm([float(Fraction(float(v)) / largest) for v in x]))


def solve_silently(A, b, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randla.LstsqWarning)
        return randla.lstsq(A, b, **options)


def problem():
    random = np.random.default_rng(5)
    return random.standard_normal((30, 4)), random.standard_normal(30)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("scale", [1e-322, 1e-318, 1e-312, 1e-308, 1e-300, 1e300, 1e306])
@pytest.mark.parametrize("consistent", [False, True])
def test_tiny_and_huge_matrices_are_solved_or_the_result_says_that_they_are_not(method, scale, consistent):
    A, b = problem()
    A = A * scale
    b = A @ np.ones(4) if consistent else b * min(1.0, 1e6 * scale)
    result = solve_silently(A, b, method=method, rng=3)
    assert np.isfinite(result.x).all()
    error = relative_error(result.x, exact_solution(A, b))
    assert error <= 2 * result.error_bound
    if result.success:
        assert result.backward_error < 1e-14
        assert error < 1e-13


@pytest.mark.parametrize("scale", [1e-322, 1e-318, 1e-312, 1e-308])
def test_direct_solution_of_a_subnormal_matrix_is_as_good_as_that_of_a_normal_one(scale):
    A, b = problem()
    A, b = A * scale, b * scale
    result = randla.lstsq(A, b, method="direct", rng=0)
    assert result.status is Status.DIRECT
    assert relative_error(result.x, exact_solution(A, b)) < 1e-14
    assert result.backward_error < 1e-15
    largest = np.linalg.svd(A * 2.0**1000, compute_uv=False)[0] * 2.0**-1000
    assert math.isclose(result.s[0], largest, rel_tol=1e-10, abs_tol=1e-323)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_direct_solution_of_a_subnormal_matrix_in_every_dtype(dtype):
    A, b = problem()
    limits = np.finfo(dtype)
    A = (A * (1 + 1j) if np.dtype(dtype).kind == "c" else A).astype(dtype) * limits.tiny
    b = (A @ np.ones(4, dtype)).astype(dtype)
    result = randla.lstsq(A, b, method="direct", rng=0)
    assert result.x.dtype == dtype
    assert np.linalg.norm(result.x - 1) < 100 * limits.eps
    assert result.error_bound < 100 * limits.eps


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("form", FORMS)
def test_solution_that_no_number_can_hold_has_a_status_and_a_warning(method, form):
    if method == "direct" and form is sp.csr_array:
        pytest.skip("direct takes dense arrays")
    A, b = problem()
    with pytest.warns(randla.LstsqWarning, match="beyond the largest number"):
        result = randla.lstsq(form(A * 1e-312), b, method=method, rng=3)
    assert result.status is Status.OVERFLOWED
    assert not result.success
    assert result.backward_error == result.error_bound == np.inf
    assert not np.isfinite(result.x).all()


@pytest.mark.parametrize("method", EVERY)
def test_float32_solution_that_no_float32_can_hold(method):
    A, b = problem()
    with pytest.warns(randla.LstsqWarning, match="beyond the largest number"):
        result = randla.lstsq(
            A.astype(np.float32) * np.float32(1e-20), b.astype(np.float32) * np.float32(1e20), method=method, rng=3
        )
    assert result.status is Status.OVERFLOWED


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("scale", [5e-324, 1e-320, 1e-314])
def test_solution_that_is_rounded_below_the_normal_numbers_says_how_much(method, scale):
    A, b = problem()
    b = b * scale
    result = solve_silently(A, b, method=method, rng=3)
    assert relative_error(result.x, exact_solution(A, b)) <= 2 * result.error_bound
    assert result.backward_error > 1e-12
    assert method == "direct" or result.status in TOLD


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("scales", [(1e-310, 1e307), (1.0, 1e307), (1e-300, 1e300), (1.0, 1e-300)])
def test_columns_of_extreme_sizes_beside_each_other(method, scales):
    A, b = problem()
    A[:, 1] *= scales[0]
    A[:, 2] *= scales[1]
    result = solve_silently(A, b, method=method, rng=3)
    if scales[0] == 1e-310:
        assert result.status is Status.OVERFLOWED
    else:
        assert relative_error(result.x, exact_solution(A, b)) <= 2 * result.error_bound < 1e-11


@pytest.mark.parametrize("method", ["direct", "auto"])
def test_evidence_exists_where_a_factor_of_the_unscaled_matrix_would_overflow(method):
    A, b = problem()
    A[0, 0], A[1, 1], A[2:, 1] = 1e308, 1e-310, 0
    result = solve_silently(A, b, method=method, rng=3)
    assert result.rank == 3
    assert result.backward_error < 1e-14


@pytest.mark.parametrize("method", ITERATIVE)
def test_sums_that_would_overflow_in_the_sketch_of_b(method):
    A, b = problem()
    b = b * 2e307
    result = solve_silently(A, b, method=method, rng=3)
    assert result.success
    assert relative_error(result.x, exact_solution(A, b)) < 1e-13


@pytest.mark.parametrize("method", EVERY)
def test_ridge_beside_a_tiny_matrix(method):
    A, b = problem()
    result = randla.lstsq(A * 1e-310, b * 1e10, ridge=1.0, method=method, rng=3)
    # A'A is nothing beside the ridge, and A' so little beside b that rounding errors are all that is left.
    exact = [sum(Fraction(float(v)) * Fraction(float(w)) for v, w in zip(a, b * 1e10, strict=True)) for a in (A * 1e-310).T]
    assert relative_error(result.x, exact) <= result.error_bound


@pytest.mark.parametrize("method", EVERY)
def test_right_hand_sides_over_the_whole_range_do_not_disturb_each_other(method):
    A, _ = problem()
    random = np.random.default_rng(2)
    sizes = np.array([1e-300, 1.0, 0.0, 1e300, 1e-200, 1e150])
    B = random.standard_normal((30, 6)) * sizes
    result = randla.lstsq(A, B, method=method, rng=3)
    assert result.success
    assert not result.x[:, 2].any()
    for j in np.flatnonzero(sizes):
        assert relative_error(result.x[:, j], exact_solution(A, B[:, j])) <= 2 * result.error_bound[j] < 1e-12
        expected = np.linalg.norm((B[:, j] - A @ result.x[:, j]) / sizes[j]) * sizes[j]
        assert math.isclose(result.residual_norm[j], expected, rel_tol=1e-10)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("sizes", [(1, 1e-4, 1e-8, 1e-12), (1, 1, 1, 1e-8), (1e8, 1, 1, 1)])
def test_error_bound_holds_for_columns_of_different_sizes(method, noise, sizes):
    for seed in range(4):
        random = np.random.default_rng(seed)
        A = random.standard_normal((60, 4)) * sizes
        b = A @ np.ones(4) + noise * random.standard_normal(60)
        result = randla.lstsq(A, b, method=method, rng=seed)
        assert relative_error(result.x, exact_solution(A, b)) <= result.error_bound


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_operators_may_write_into_their_input_and_return_one_buffer(method, dtype):
    random = np.random.default_rng(4)
    A = random.standard_normal((400, 10)).astype(dtype)
    A += 1j * random.standard_normal(A.shape) if dtype is np.complex128 else 0
    b = random.standard_normal(400)
    buffers = np.zeros(400, dtype), np.zeros(10, dtype)

    def product(matrix, buffer):
        def apply(v):
            np.dot(matrix, v.ravel(), out=buffer)
            v[:] = np.nan
            return buffer

        return apply

    adjoint = np.ascontiguousarray(A.conj().T)
    operator = LinearOperator(A.shape, matvec=product(A, buffers[0]), rmatvec=product(adjoint, buffers[1]), dtype=dtype)
    result = randla.lstsq(operator, b, method=method, rng=1)
    assert result.success
    assert np.linalg.norm(result.x - np.linalg.lstsq(A, b, rcond=None)[0]) < 1e-13


def test_operator_without_an_adjoint_is_refused_by_name():
    A, b = problem()
    operator = LinearOperator(A.shape, matvec=lambda v: A @ v, dtype=float)
    with pytest.raises(TypeError, match="A must have a rmatvec"):
        randla.lstsq(operator, b, method="spir", rng=0)


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum"])
def test_adjoint_that_gives_nan_is_never_a_success(method):
    A, b = problem()
    operator = LinearOperator(A.shape, matvec=lambda v: A @ v, rmatvec=lambda v: np.nan * (A.T @ v), dtype=float)
    result = solve_silently(operator, b, method=method, rng=0)
    assert not result.success
    assert result.backward_error == result.error_bound == np.inf


def test_no_other_warning_than_that_of_the_status():
    A, b = problem()
    for method in EVERY:
        for scale in (1e-315, 1e306):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = randla.lstsq(A * scale, b, method=method, rng=1)
                assert result.residual_norm is not None
                assert result.error_bound is not None
            assert all(issubclass(w.category, randla.LstsqWarning) for w in caught)


@pytest.mark.parametrize("method", ["direct", "spir", "fossils", "cholqr"])
@pytest.mark.parametrize("scale", [1e-318, 1e-310, 1e-290, 1e290, 1e305])
def test_wide_problem_in_every_unit(method, scale):
    random = np.random.default_rng(6)
    A, x = random.standard_normal((5, 40)), random.standard_normal(5)
    expected = A.T @ x
    A = A * scale
    b = A @ expected if scale > 1 else np.ldexp(A, 1000) @ expected * 2.0**-1000
    result = solve_silently(A, b, method=method, rng=2)
    error = np.linalg.norm(result.x - expected) / np.linalg.norm(expected)
    # b was rounded: to 2^-1074 at the least.
    rounding = 1e-14 + 10 * 2.0**-1074 / scale
    assert error <= 10 * result.error_bound + rounding
    if result.success:
        assert error < 1e-12 + rounding


@pytest.mark.parametrize("method", ["direct", "spir", "fossils", "cholqr"])
def test_wide_solution_that_no_number_can_hold(method):
    random = np.random.default_rng(6)
    A, b = 1e-310 * random.standard_normal((5, 40)), random.standard_normal(5)
    with pytest.warns(randla.LstsqWarning):
        result = randla.lstsq(A, b, method=method, rng=2)
    assert result.status in TOLD
    assert result.backward_error == result.error_bound == np.inf
