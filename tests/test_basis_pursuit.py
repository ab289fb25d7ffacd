"""Basis pursuit: linear programs by HiGHS, planted solutions, ties, and the dual certificate checked from outside."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

import randla
from randla import _cpu
from randla.learn import _columns, _homotopy, sparse_regression
from randla.learn.result import LearnWarning
from randla.learn.sparse_regression import SparseStatus, basis_pursuit

LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
}


def planted(m, n, k, seed=0, sizes=(1.0, 2.0)):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((m, n)), np.zeros(n)
    x[rng.choice(n, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(*sizes, k)
    return A, A @ x, x


def smallest(A, b):
    n = A.shape[1]
    solved = linprog(np.ones(2 * n), A_eq=np.hstack([A, -A]), b_eq=b, bounds=(0, None), method="highs")
    assert solved.status == 0
    return solved.fun


def require_certificate(result, A, b, tol=1e-9):
    """No x with A x = b has a smaller norm: b'x <= ... <= ||x||_1 by the dual vector, in NumPy."""
    A = np.asarray(A.toarray() if sp.issparse(A) else A, np.float64)
    x, y = np.asarray(result.x, np.float64), result.dual
    assert result.success
    assert np.linalg.norm(A @ x - b) <= tol * np.linalg.norm(b) + 1e-13 * np.linalg.norm(A, 2) * np.linalg.norm(x)
    assert np.linalg.norm(A @ x - b) == pytest.approx(result.residual_norm, abs=1e-12 * np.linalg.norm(b))
    assert np.abs(A.T @ y).max() <= 1 + 1e-10
    assert result.objective == pytest.approx(np.abs(x).sum(), rel=1e-12)
    assert result.objective - b @ y == pytest.approx(result.gap * result.objective, abs=1e-12 * result.objective)
    assert 0 <= result.gap <= tol
    assert np.array_equal(result.support, np.flatnonzero(x))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "n", "k"), [(40, 100, 5), (60, 1000, 6), (20, 20, 3), (30, 12, 4)])
def test_planted(layout, m, n, k):
    A, b, x = planted(m, n, k)
    if layout in ("csr", "csc"):
        A = A * (np.random.default_rng(1).random(A.shape) < 0.5)
        b = A @ x
    result = basis_pursuit(LAYOUTS[layout](A), b)
    assert result.status is SparseStatus.CONVERGED
    require_certificate(result, A, b)
    np.testing.assert_allclose(result.x, x, atol=1e-11)
    assert np.array_equal(result.support, np.flatnonzero(x))


@pytest.mark.parametrize("seed", range(6))
def test_right_hand_sides_without_structure(seed):
    """The solution has as many entries as there are equations."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(1, 40)), int(rng.integers(40, 400))
    A, b = rng.standard_normal((m, n)), rng.standard_normal(m)
    result = basis_pursuit(A, b)
    assert result.status is SparseStatus.CONVERGED
    assert len(result.support) == m
    require_certificate(result, A, b)
    assert result.objective == pytest.approx(smallest(A, b), rel=1e-7)


@pytest.mark.parametrize("correlation", [0.9, 0.99])
def test_correlated_columns(correlation):
    rng = np.random.default_rng(0)
    A = np.sqrt(1 - correlation) * rng.standard_normal((50, 300)) + np.sqrt(correlation) * rng.standard_normal((50, 1))
    for b in (rng.standard_normal(50), A[:, :4] @ np.array([1.0, -2.0, 3.0, -1.0])):
        result = basis_pursuit(A, b)
        require_certificate(result, A, b)
        assert result.objective == pytest.approx(smallest(A, b), rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["signs", "grid", "equal", "identity"])
def test_ties(kind, seed):
    """Whichever way it is solved, the certificate holds."""
    rng = np.random.default_rng(seed)
    A = {
        "signs": rng.choice([-1.0, 1.0], (12, 60)),
        "grid": rng.integers(-1, 2, (12, 60)).astype(float),
        "equal": np.repeat(rng.standard_normal((12, 15)), 4, axis=1),
        "identity": np.hstack([np.eye(12)] * 3 + [np.ones((12, 2))]),
    }[kind]
    b = A @ rng.choice([-1.0, 0.0, 1.0], A.shape[1], p=[0.05, 0.9, 0.05])
    b = b if b.any() else A[:, 0]
    result = basis_pursuit(A, b)
    require_certificate(result, A, b, tol=1e-7)
    assert result.objective == pytest.approx(smallest(A, b), rel=1e-7)


def test_columns_that_join_later(monkeypatch):
    A, b, x = planted(60, 2000, 5)
    monkeypatch.setattr(_homotopy, "_FIRST", 4)
    result = basis_pursuit(A, b)
    require_certificate(result, A, b)
    np.testing.assert_allclose(result.x, x, atol=1e-11)


def test_columns_orthogonal_to_what_they_are_needed_for():
    """The second column alone is of no use, with the first it is."""
    A = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    b = np.array([1.0, -1.0, 0.0])
    result = basis_pursuit(A, b)
    require_certificate(result, A, b)
    np.testing.assert_allclose(result.x, [2, -1, 0], atol=1e-14)


@pytest.mark.parametrize("first", [256, 2])
def test_no_solution(first, monkeypatch):
    monkeypatch.setattr(_homotopy, "_FIRST", first)
    rng = np.random.default_rng(0)
    for A in (rng.standard_normal((30, 12)), rng.standard_normal((30, 5)) @ rng.standard_normal((5, 80)), np.zeros((30, 2))):
        b = rng.standard_normal(30)
        with pytest.warns(LearnWarning, match="not in the range"):
            result = basis_pursuit(A, b)
        assert result.status is SparseStatus.INFEASIBLE
        assert not result.success
        left = np.linalg.norm(b - A @ np.linalg.lstsq(A, b)[0])
        assert result.residual_norm == pytest.approx(left, rel=1e-8)
    # Where b is in the range of so few columns, there is one.
    A = rng.standard_normal((30, 5)) @ rng.standard_normal((5, 80))
    require_certificate(basis_pursuit(A, A[:, 3] - A[:, 9]), A, A[:, 3] - A[:, 9])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("decades", [4, 8, 12])
def test_uneven_rows_change_nothing(decades, sparse):
    """The solution is that with even rows, found before; with 12 decades a Gram matrix does not see the small ones."""
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((15, 30)), rng.standard_normal(15)
    even = basis_pursuit(A, b)
    size = np.ldexp(1.0, np.rint(rng.uniform(-1, 1, 15) * decades / 2 * np.log2(10)).astype(int))
    uneven = A * size[:, None]
    result = basis_pursuit(sp.csr_array(uneven) if sparse else uneven, b * size)
    assert result.success
    assert result.objective == pytest.approx(even.objective, rel=1e-9)
    np.testing.assert_allclose(result.x, even.x, atol=1e-9 * np.abs(even.x).max())
    assert np.abs(uneven.T @ result.dual).max() <= 1 + 1e-9
    assert (b * size) @ result.dual == pytest.approx(result.objective, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_ill_conditioned_equations_have_a_solution(seed):
    """Condition 1e8, which the Gram matrix squares: what the path leaves of b is nothing that no x explains."""
    rng = np.random.default_rng(seed)
    U, _, Vh = np.linalg.svd(rng.standard_normal((15, 30)), full_matrices=False)
    A, b = (U * 10.0 ** -np.linspace(0, 8, 15)) @ Vh, rng.standard_normal(15)
    result = basis_pursuit(A, b)
    assert result.status is SparseStatus.LINEAR_PROGRAM
    assert result.objective == pytest.approx(smallest(A, b), rel=1e-6)


def test_what_rounding_leaves_open_is_not_called_infeasible():
    """Of condition 1e12 rounding of the products A x alone is larger than the tolerance."""
    rng = np.random.default_rng(0)
    U, _, Vh = np.linalg.svd(rng.standard_normal((15, 30)), full_matrices=False)
    A, b = (U * 10.0 ** -np.linspace(0, 12, 15)) @ Vh, rng.standard_normal(15)
    with pytest.warns(LearnWarning, match="Progress stopped"):
        result = basis_pursuit(A, b)
    assert result.status is SparseStatus.STAGNATED
    assert result.residual_norm < 1e-3 * np.linalg.norm(b)


def test_too_large_for_least_squares(monkeypatch):
    """Then the linear program has the last word."""
    monkeypatch.setattr(_homotopy, "_DENSE", 0)
    A, b, _ = planted(10, 20, 2)
    with pytest.warns(LearnWarning, match="not in the range|Progress stopped"):
        assert not basis_pursuit(np.vstack([A, A]), np.r_[b, b + 1e-6]).success


@pytest.mark.parametrize(("size", "dtype"), [(1e-300, np.float64), (1e-320, np.float64), (1e-30, np.float32)])
def test_solution_beyond_the_range(size, dtype):
    A = (np.random.default_rng(0).standard_normal((15, 30)) * size).astype(dtype)
    b = np.random.default_rng(1).standard_normal(15).astype(dtype) * dtype(1e300 if size == 1e-300 else 1e20)
    with pytest.warns(LearnWarning, match="beyond the range"):
        result = basis_pursuit(A, b)
    assert result.status is SparseStatus.OVERFLOW
    assert not result.success


def test_zero_right_hand_side():
    result = basis_pursuit(np.eye(3), np.zeros(3))
    assert result.success
    assert not result.x.any()
    assert result.gap == 0
    assert result.objective == 0


@pytest.mark.parametrize("shape", [(0, 4), (0, 0)])
def test_no_rows(shape):
    result = basis_pursuit(np.zeros(shape), np.zeros(0))
    assert result.success
    assert np.array_equal(result.x, np.zeros(shape[1]))


def test_no_columns():
    with pytest.warns(LearnWarning, match="not in the range"):
        assert not basis_pursuit(np.zeros((3, 0)), np.ones(3)).success
    assert basis_pursuit(np.zeros((3, 0)), np.zeros(3)).success


def test_one_equation():
    result = basis_pursuit(np.array([[1.0, -4.0, 2.0]]), np.array([8.0]))
    np.testing.assert_allclose(result.x, [0, -2, 0])


def test_scaling():
    A, b, x = planted(30, 90, 4)
    assert np.array_equal(basis_pursuit(A, 2.0**90 * b).x, 2.0**90 * basis_pursuit(A, b).x)
    for t in (1e-200, 1e200):
        np.testing.assert_allclose(basis_pursuit(A, t * b).x, t * x, rtol=1e-8, atol=1e-10 * t)
        np.testing.assert_allclose(basis_pursuit(t * A, b).x * t, x, rtol=1e-8, atol=1e-10)


def test_float32():
    A, b, x = planted(40, 200, 5)
    A, b = A.astype(np.float32), (A.astype(np.float32) @ x.astype(np.float32))
    result = basis_pursuit(A, b)
    assert result.success
    assert result.x.dtype == np.float32
    np.testing.assert_allclose(result.x[np.flatnonzero(x)], x[x != 0], atol=1e-4)


def test_integers():
    A = np.random.default_rng(0).integers(-9, 10, (10, 30))
    result = basis_pursuit(A, A[:, 3] * 2)
    np.testing.assert_allclose(result.x, 2.0 * (np.arange(30) == 3), atol=1e-13)


@pytest.mark.parametrize("sparse", [False, True])
def test_by_linear_programming(sparse, monkeypatch):
    """What the path gives up on."""
    A, b, x = planted(20, 50, 3)
    monkeypatch.setattr(_homotopy, "_LARGEST", 5)
    result = basis_pursuit(sp.csr_array(A) if sparse else A, b)
    assert result.status is SparseStatus.LINEAR_PROGRAM
    assert "HiGHS" in result.message
    require_certificate(result, A, b, tol=1e-7)
    np.testing.assert_allclose(result.x, x, atol=1e-7)
    with pytest.warns(LearnWarning, match="not in the range"):
        assert basis_pursuit(np.vstack([A, A[:1]]), np.r_[b, b[:1] + 1]).status is SparseStatus.INFEASIBLE


def test_gaps_that_do_not_close(monkeypatch):
    A, b, _ = planted(20, 50, 3)
    real = sparse_regression.by_linear_program

    def poor(columns, b, tol):
        found = real(columns, b, tol)
        found.y = 0.9 * found.y
        return found

    monkeypatch.setattr(_homotopy, "_LARGEST", 5)
    monkeypatch.setattr(sparse_regression, "by_linear_program", poor)
    with pytest.warns(LearnWarning, match="Progress stopped"):
        result = basis_pursuit(A, b)
    assert result.status is SparseStatus.STAGNATED
    assert result.gap == pytest.approx(0.1)


def test_columns_too_large_to_hold(monkeypatch):
    monkeypatch.setattr(_columns, "_HELD", 0)
    A, b, x = planted(40, 100, 5)
    for layout in ("C", "F"):
        np.testing.assert_allclose(basis_pursuit(LAYOUTS[layout](A), b).x, x, atol=1e-11)


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_same_bits_for_any_number_of_threads(layout):
    A, b, _ = planted(100, 600, 20)
    before = _cpu.max_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            randla.set_num_threads(threads)
            found.append(basis_pursuit(LAYOUTS[layout](A), b))
    finally:
        randla.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(found[0].x, other.x)
        assert np.array_equal(found[0].dual, other.dual)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: basis_pursuit(np.eye(3), [1, np.inf, 1]), ValueError, "b must be finite"),
        (lambda: basis_pursuit(np.diag([1, np.nan, 1]), np.ones(3)), ValueError, "A must be finite"),
        (lambda: basis_pursuit(np.eye(3), np.ones(2)), ValueError, r"b must have shape \(3,\), as A has shape \(3, 3\)"),
        (lambda: basis_pursuit(np.eye(3), np.ones((3, 1))), ValueError, "b must have shape"),
        (lambda: basis_pursuit(np.eye(3) * 1j, np.ones(3)), TypeError, "A must be real"),
        (lambda: basis_pursuit(np.eye(3), np.ones(3), tol=0), ValueError, "tol must be finite and greater than 0"),
        (lambda: basis_pursuit(sp.linalg.aslinearoperator(np.eye(3)), np.ones(3)), TypeError, "A must be an array"),
    ],
)
def test_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
