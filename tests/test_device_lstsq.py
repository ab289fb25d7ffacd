"""Least squares with A on a device, which a strict stand-in for CuPy plays where there is none."""

import fake_cupy
import numpy as np
import pytest
from problems import least_squares

import randla


def solved(cupy, A, b, **options):
    result = randla.lstsq(cupy.asarray(A), cupy.asarray(b), rng=1, **options)
    assert isinstance(result.x, cupy.ndarray)
    return result


@pytest.mark.parametrize("method", ["spir", "fossils", "cholqr", "momentum"])
@pytest.mark.parametrize("cond", [1e2, 1e8])
def test_answers_are_as_good_as_those_of_the_host(cupy, method, cond):
    problem = least_squares(2000, 30, cond, 1e-3)
    found = solved(cupy, problem.A, problem.b, method=method)
    expected = randla.lstsq(problem.A, problem.b, rng=1, method=method)
    assert found.success
    assert found.backward_error <= max(4 * expected.backward_error, 2e-16)
    assert found.rank == 30


def test_several_right_hand_sides_and_weights(cupy):
    rng = np.random.default_rng(0)
    A, b, w = rng.standard_normal((1500, 20)), rng.standard_normal((1500, 3)), rng.uniform(0, 1, 1500)
    found = randla.lstsq(cupy.asarray(A), cupy.asarray(b), weights=cupy.asarray(w), method="fossils", rng=1)
    root = np.sqrt(w)[:, None]
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A * root, b * root)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_every_dtype_and_order(cupy, dtype, order):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((900, 12)) + 1j * rng.standard_normal((900, 12))
    A = np.asarray(A if np.dtype(dtype).kind == "c" else A.real, dtype, order=order)
    b = A @ np.arange(12).astype(dtype) + rng.standard_normal(900).astype(dtype)
    found = solved(cupy, A, b)
    assert found.x.dtype == dtype
    assert found.success
    expected = np.linalg.lstsq(A, b)[0]
    np.testing.assert_allclose(found.x.get(), expected, rtol=0, atol=200 * np.finfo(dtype).eps * abs(expected).max())


def test_ridge_and_deficient_rank(cupy):
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((800, 10)), rng.standard_normal(800)
    found = solved(cupy, A, b, ridge=3.0)
    np.testing.assert_allclose(found.x.get(), np.linalg.solve(A.T @ A + 3 * np.eye(10), A.T @ b), rtol=0, atol=1e-13)
    A[:, 4] = A[:, 2] - A[:, 7]
    with pytest.warns(randla.LstsqWarning, match="Rank 9 of 10"):
        found = solved(cupy, A, b)
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A, b)[0], rtol=0, atol=1e-12)


def test_nothing_as_long_as_the_rows_comes_to_the_host(cupy):
    problem = least_squares(2000, 30, 1e6, 1e-3)
    fake_cupy.TRANSFERS.clear()
    result = solved(cupy, problem.A, problem.b, method="fossils")
    assert result.iterations >= 15
    assert not [shape for shape in fake_cupy.TRANSFERS if 2000 in shape]


@pytest.mark.parametrize("method", ["sketch", "linf"])
def test_solutions_of_the_sketched_problem(cupy, method):
    problem = least_squares(3000, 10, 10.0, 1e-1)
    result = solved(cupy, problem.A, problem.b, method=method, sketch_size=400)
    best = np.linalg.norm(problem.b - problem.A @ np.linalg.lstsq(problem.A, problem.b)[0])
    assert best <= result.residual_norm <= 1.1 * best


def test_unsuitable_arguments(cupy):
    A, b = np.ones((30, 3)), np.ones(30)
    with pytest.raises(
        TypeError, match=r"A and b must all be on the host or all on the device; got cupy\.ndarray, numpy\.ndarray"
    ):
        randla.lstsq(cupy.asarray(A), b)
    A[3, 1] = np.nan
    with pytest.raises(ValueError, match="A must be finite"):
        randla.lstsq(cupy.asarray(A), cupy.asarray(b))


def test_results_print_and_replay(cupy):
    problem = least_squares(500, 8, 10.0, 1e-1)
    first = randla.lstsq(cupy.asarray(problem.A), cupy.asarray(problem.b))
    again = randla.lstsq(cupy.asarray(problem.A), cupy.asarray(problem.b), rng=first.seed)
    assert np.array_equal(first.x.get(), again.x.get())
    assert "backward_error" in repr(first)
