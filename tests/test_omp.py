"""Orthogonal matching pursuit against its definition (least squares anew for every column) and scikit-learn."""

import numpy as np
import pytest
import scipy.sparse as sp

import randla
from randla import _cpu
from randla.learn import _matching
from randla.learn.result import LearnWarning
from randla.learn.sparse_regression import SparseStatus, omp

LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
}


def by_definition(A, b, k):
    """The support in order, the solution, and the norms of all residuals."""
    chosen, r, norms = [], b, [np.linalg.norm(b)]
    sizes = np.linalg.norm(A, axis=0)
    x = np.zeros(A.shape[1])
    for _ in range(k):
        score = np.abs(A.T @ r) / np.where(sizes > 0, sizes, np.inf)
        score[chosen] = -1
        chosen.append(int(np.argmax(score)))
        part = np.linalg.lstsq(A[:, chosen], b)[0]
        r = b - A[:, chosen] @ part
        norms.append(np.linalg.norm(r))
    x[chosen] = part if k else 0
    return chosen, x, np.array(norms)


def problem(m, n, k=6, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((m, n)) * rng.uniform(0.1, 10, n), np.zeros(n)
    x[rng.choice(n, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(1, 2, k)
    return A, A @ x + noise * rng.standard_normal(m), x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "n", "k"), [(60, 200, 12), (60, 200, 50), (100, 30, 25), (20, 20, 20), (1, 8, 1)])
def test_by_definition(layout, m, n, k):
    A, b, _ = problem(m, n)
    if layout in ("csr", "csc") and m > 1:
        A = A * (np.random.default_rng(1).random(A.shape) < 0.5)
    chosen, x, norms = by_definition(A, b, k)
    result = omp(LAYOUTS[layout](A), b, k)
    assert result.success
    taken = len(result.support)
    assert taken == k or result.status is SparseStatus.EXACT
    assert np.array_equal(result.support, chosen[:taken])
    np.testing.assert_allclose(result.x, x, atol=1e-8 * np.abs(x).max())
    np.testing.assert_allclose(result.residuals, norms[: taken + 1], atol=1e-10 * norms[0])
    assert result.residual_norm == result.residuals[-1]
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ result.x), abs=1e-10 * norms[0])


def test_residual_is_orthogonal_to_the_chosen_columns():
    A, b, _ = problem(80, 300)
    result = omp(A, b, 30)
    on = A[:, result.support]
    r = b - A @ result.x
    assert np.abs(on.T @ r / np.linalg.norm(on, axis=0)).max() <= 1e-13 * np.linalg.norm(b)
    assert (np.diff(result.residuals) <= 0).all()


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_planted(layout):
    A, b, x = problem(80, 400, noise=0)
    result = omp(LAYOUTS[layout](A), b, 20)
    assert result.status is SparseStatus.EXACT
    assert sorted(result.support) == list(np.flatnonzero(x))
    np.testing.assert_allclose(result.x, x, atol=1e-12)


def test_against_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    A, b, _ = problem(60, 150)
    A /= np.linalg.norm(A, axis=0)
    np.testing.assert_allclose(omp(A, b, 15).x, linear.orthogonal_mp(A, b, n_nonzero_coefs=15), atol=1e-10)


@pytest.mark.parametrize("held", [1 << 25, 2000])
def test_several_right_hand_sides(held, monkeypatch):
    monkeypatch.setattr(_matching, "_HELD", held)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((50, 100)), rng.standard_normal((50, 4))
    result = omp(A, B, 10)
    assert result.x.shape == (100, 4)
    assert result.residual_norm.shape == (4,)
    for i in range(4):
        single = omp(A, B[:, i], 10)
        assert np.array_equal(result.support[i], single.support)
        np.testing.assert_allclose(result.x[:, i], single.x, atol=1e-12)
        np.testing.assert_allclose(result.residuals[i], single.residuals, rtol=1e-12)
        assert result.residual_norm[i] == result.residuals[i][-1]
    assert omp(A, B[:, :0], 10).x.shape == (100, 0)


def test_fewer_passes_than_columns():
    A, b, _ = problem(200, 500, k=40)
    result = omp(np.asfortranarray(A), b, 40)
    assert result.passes < 40


def test_tolerance():
    A, b, _ = problem(80, 200)
    whole = omp(A, b, 40)
    tol = 1.0001 * whole.residuals[4] / whole.residuals[0]
    result = omp(A, b, 40, tol=tol)
    assert result.status is SparseStatus.TOLERANCE_REACHED
    assert len(result.support) == 4
    assert np.array_equal(result.support, whole.support[:4])
    assert omp(A, b, 3, tol=tol).status is SparseStatus.COMPLETE


def test_equal_and_zero_columns():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((10, 5))
    A = np.hstack([A, A, np.zeros((10, 3))])
    b = rng.standard_normal(10)
    result = omp(A, b, 8)
    assert result.status is SparseStatus.EXACT
    assert len(result.support) == 5
    assert set(result.support % 5) == set(range(5))
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0]))


def test_right_hand_side_outside_the_range_of_all_columns():
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((20, 3)) @ rng.standard_normal((3, 50)), rng.standard_normal(20)
    result = omp(A, b, 10)
    assert result.status is SparseStatus.EXACT
    assert "orthogonal to all columns" in result.message
    assert len(result.support) == 3
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0]), rel=1e-12)


def test_solution_beyond_the_range():
    A, b = problem(20, 50)[:2]
    for B in (b, np.column_stack([b, b])):
        with pytest.warns(LearnWarning, match="beyond the range"):
            assert omp(A * 1e-300, B * 1e300, 5).status is SparseStatus.OVERFLOW
    # The norms of the smallest numbers have no reciprocal.
    assert len(omp(A * 1e-320, b, 5).support) == 0
    assert omp(np.hstack([A * 1e-320, A]), b, 5).support.tolist() == (50 + omp(A, b, 5).support).tolist()


def test_trivial_cases():
    A, b, _ = problem(20, 30)
    none = omp(A, b, 0)
    assert not none.x.any()
    assert none.residual_norm == pytest.approx(np.linalg.norm(b))
    for result in (omp(A, np.zeros(20), 3), omp(np.zeros((20, 30)), b, 3)):
        assert result.success
        assert not result.x.any()
        assert not len(result.support)
    for shape in ((0, 3), (3, 0)):
        assert omp(np.zeros(shape), np.ones(shape[0]), 0).x.shape == (shape[1],)


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_scaling(layout):
    A, b, _ = problem(40, 80)
    first = omp(A, b, 10)
    for t in (1e-200, 1e-150, 1e150, 1e200):
        for result, x in ((omp(LAYOUTS[layout](t * A), b, 10), first.x / t), (omp(LAYOUTS[layout](A), t * b, 10), first.x * t)):
            assert np.array_equal(result.support, first.support)
            np.testing.assert_allclose(result.x, x, rtol=1e-8)


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_float32(layout):
    A, b, _ = problem(40, 80)
    A, b = A.astype(np.float32), b.astype(np.float32)
    result = omp(LAYOUTS[layout](A), b, 10)
    exact = omp(A.astype(np.float64), b.astype(np.float64), 10)
    assert result.x.dtype == np.float32
    assert np.array_equal(result.support, exact.support)
    np.testing.assert_allclose(result.x, exact.x, rtol=1e-6)


def test_integers():
    A = np.random.default_rng(0).integers(-9, 10, (20, 30))
    result = omp(A, A[:, 3] * 2, 5)
    np.testing.assert_allclose(result.x, 2.0 * (np.arange(30) == 3), atol=1e-13)


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
@pytest.mark.parametrize("k", [20, 90])
def test_same_bits_for_any_number_of_threads(layout, k):
    A, b, _ = problem(100, 300)
    before = _cpu.max_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            randla.set_num_threads(threads)
            found.append(omp(LAYOUTS[layout](A), b, k))
    finally:
        randla.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(found[0].x, other.x)
        assert np.array_equal(found[0].residuals, other.residuals)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: omp(np.eye(3), [1, np.inf, 1], 1), ValueError, "b must be finite"),
        (lambda: omp(np.diag([1, np.nan, 1]), np.ones(3), 1), ValueError, "A must be finite"),
        (lambda: omp(np.diag([1, np.inf, 1]), np.zeros(3), 1), ValueError, "A must be finite"),
        (lambda: omp(np.eye(3), np.ones(2), 1), ValueError, r"b must have shape \(3,\) or \(3, q\)"),
        (lambda: omp(np.eye(3), np.ones((3, 1, 1)), 1), ValueError, "b must have shape"),
        (lambda: omp(np.eye(3), np.ones(3), 4), ValueError, "k must be between 0 and 3; got 4"),
        (lambda: omp(np.eye(3), np.ones(3), 1.0), TypeError, "k must be an integer"),
        (lambda: omp(np.eye(3), np.ones(3), 1, tol=-1), ValueError, "tol must be finite and at least 0"),
        (lambda: omp(np.eye(3) * 1j, np.ones(3), 1), TypeError, "A must be real"),
    ],
)
def test_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
