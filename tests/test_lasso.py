"""The lasso: duality gaps recomputed from outside, all sign patterns enumerated, scikit-learn, and the kernels below."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from problems import data_file

import randla
from randla import _cpu
from randla.learn import _columns, _coordinate
from randla.learn.result import LearnWarning
from randla.learn.sparse_regression import SparseStatus, lasso, lasso_path

LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
}


def problem(m, n, k=5, noise=0.1, correlation=0.0, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    for j in range(1, n if correlation else 0):
        A[:, j] = correlation * A[:, j - 1] + np.sqrt(1 - correlation**2) * A[:, j]
    x = np.zeros(n)
    x[rng.choice(n, k, replace=False)] = rng.choice([-1, 1], k) * rng.uniform(1, 2, k)
    return A, A @ x + noise * rng.standard_normal(m)


def dense(A):
    return np.asarray(A.toarray() if sp.issparse(A) else A, np.float64)


def largest(A, b):
    return np.abs(dense(A).T @ b).max() / len(b)


def objective(A, b, x, alpha, intercept=0.0):
    r = b - dense(A) @ x - intercept
    return r @ r / (2 * len(b)) + alpha * np.abs(x).sum()


def require_certificate(result, A, b, alpha, tol=1e-10, positive=False, intercept=False):
    """The gap that x and the dual vector prove, in NumPy, and the optimality conditions that follow."""
    A, m = dense(A), len(b)
    x, y = np.asarray(result.x, np.float64), result.dual
    scale = (b - b.mean()) @ (b - b.mean()) / m if intercept else b @ b / m
    assert result.success
    assert result.status is SparseStatus.CONVERGED
    value = objective(A, b, x, alpha, result.intercept)
    assert result.objective == pytest.approx(value, rel=1e-12, abs=1e-14 * scale)
    products = A.T @ y
    assert (products if positive else np.abs(products)).max() <= alpha * (1 + 1e-11)
    if intercept:
        assert abs(y.sum()) <= 1e-12 * np.abs(y).sum()
    bound = b @ y - m * (y @ y) / 2
    assert result.gap == pytest.approx(value - bound, abs=1e-13 * scale)
    assert 0 <= result.gap <= tol * scale
    assert np.array_equal(result.support, np.flatnonzero(result.x))
    if positive:
        assert x.min(initial=0) >= 0


def enumerated(A, b, alpha, positive=False):
    """The smallest objective over all sign patterns whose stationary point has these signs."""
    m, n = A.shape
    G, c = A.T @ A / m, A.T @ b / m
    best = objective(A, b, np.zeros(n), alpha), np.zeros(n)
    for signs in itertools.product((0, 1) if positive else (-1, 0, 1), repeat=n):
        s = np.array(signs)
        on = np.flatnonzero(s)
        if len(on) == 0 or len(on) > m:
            continue
        part = np.linalg.solve(G[np.ix_(on, on)], c[on] - alpha * s[on])
        if (part * s[on] > 0).all():
            x = np.zeros(n)
            x[on] = part
            best = min(best, (objective(A, b, x, alpha), x), key=lambda pair: pair[0])
    return best


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(30, 100), (100, 30), (40, 40)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_certificate(layout, shape, fraction):
    A, b = problem(*shape, correlation=0.5)
    if layout in ("csr", "csc"):
        A = A * (np.random.default_rng(1).random(shape) < 0.3)
    alpha = fraction * largest(A, b)
    result = lasso(LAYOUTS[layout](A), b, alpha)
    require_certificate(result, A, b, alpha)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("shape", [(12, 6), (4, 6), (1, 5)])
@pytest.mark.parametrize("seed", range(5))
def test_all_sign_patterns(shape, positive, seed):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
    for fraction in (0.7, 0.2, 0.02):
        alpha = fraction * largest(A, b)
        value, x = enumerated(A, b, alpha, positive)
        result = lasso(A, b, alpha, positive=positive, tol=1e-14)
        assert result.objective == pytest.approx(value, rel=1e-11)
        # Patterns of as many columns as rows may be no isolated minima, these are.
        np.testing.assert_allclose(result.x, x, atol=1e-6 * np.abs(x).max(initial=1))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_intercept(sparse, positive):
    A, b = problem(50, 6, k=3)
    A, b = (A + 3) * (np.random.default_rng(0).random(A.shape) < 0.6 if sparse else 1), b + 20
    centred, shifted = A - A.mean(axis=0), b - b.mean()
    alpha = 0.1 * largest(centred, shifted)
    result = lasso(sp.csr_array(A) if sparse else A, b, alpha, fit_intercept=True, positive=positive, tol=1e-13)
    require_certificate(result, A, b, alpha, positive=positive, intercept=True)
    value, x = enumerated(centred, shifted, alpha, positive)
    np.testing.assert_allclose(result.x, x, atol=1e-7)
    assert result.objective == pytest.approx(value, rel=1e-10)
    assert result.intercept == pytest.approx(b.mean() - A.mean(axis=0) @ result.x, rel=1e-12)


def test_a_constant_column_and_an_intercept():
    A, b = problem(40, 20)
    A[:, 3] = 0.1
    result = lasso(A, b + 5, 0.05, fit_intercept=True)
    require_certificate(result, A, b + 5, 0.05, intercept=True)
    assert result.x[3] == 0


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("options", [{}, {"fit_intercept": True}, {"positive": True}])
def test_against_scikit_learn(fraction, options):
    linear = pytest.importorskip("sklearn.linear_model")
    A, b = problem(60, 200, correlation=0.7)
    alpha = fraction * largest(A, b)
    other = linear.Lasso(alpha=alpha, tol=1e-12, max_iter=100_000, **{"fit_intercept": False, **options}).fit(A, b)
    result = lasso(A, b, alpha, tol=1e-13, **options)
    np.testing.assert_allclose(result.x, other.coef_, atol=1e-5)
    mine = objective(A, b, result.x, alpha, result.intercept)
    assert mine <= objective(A, b, other.coef_, alpha, other.intercept_) * (1 + 1e-12)


def test_real_data_against_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    with np.load(data_file("w8a.npz")) as z:
        A = sp.csr_array((z["data"].astype(float), z["indices"].astype(np.int32), z["indptr"]), shape=tuple(z["shape"]))[::10]
        b = z["y"][::10].astype(float)
    alpha = 0.02 * np.abs(A.T @ b).max() / len(b)
    result = lasso(A, b, alpha)
    require_certificate(result, A, b, alpha)
    other = linear.Lasso(alpha=alpha, tol=1e-10, fit_intercept=False, max_iter=10_000).fit(A.tocsc(), b)
    assert result.objective <= objective(A, b, other.coef_, alpha) * (1 + 1e-9)


def test_the_largest_alpha():
    A, b = problem(30, 80)
    top = largest(A, b)
    for alpha in (top * (1 + 1e-12), 2 * top, 1e200):
        result = lasso(A, b, alpha)
        assert not result.x.any()
        assert result.gap == 0
        assert not len(result.support)
        assert result.objective == pytest.approx(b @ b / 60)
    assert len(lasso(A, b, 0.999 * top).support) == 1


@pytest.mark.parametrize("copies", [2, 5])
def test_equal_and_zero_columns(copies):
    A, b = problem(30, 20)
    wide = np.hstack([A] * copies + [np.zeros((30, 3)), -A])
    alpha = 0.05 * largest(A, b)
    single, result = lasso(A, b, alpha, tol=1e-14), lasso(wide, b, alpha, tol=1e-14)
    require_certificate(result, wide, b, alpha)
    assert result.objective == pytest.approx(single.objective, rel=1e-10)
    x = result.x[: 20 * copies].reshape(copies, 20).sum(axis=0) - result.x[-20:]
    np.testing.assert_allclose(x, single.x, atol=1e-6)
    assert not result.x[20 * copies : 20 * copies + 3].any()


@pytest.mark.parametrize("fraction", [1e-3, 1e-5])
@pytest.mark.parametrize("positive", [False, True])
def test_almost_no_penalty(fraction, positive):
    """As many columns in the support as there are rows, and more that depend on them."""
    A, b = problem(40, 300, k=40, noise=1.0, correlation=0.9)
    alpha = fraction * largest(A, b)
    result = lasso(A, b, alpha, positive=positive)
    require_certificate(result, A, b, alpha, positive=positive)


def test_warm_start():
    A, b = problem(60, 400)
    alpha = 0.02 * largest(A, b)
    cold = lasso(A, b, alpha)
    again = lasso(A, b, alpha, x0=cold.x)
    require_certificate(again, A, b, alpha)
    assert cold.iterations > 0
    assert again.iterations == 0
    np.testing.assert_allclose(again.x, cold.x, atol=1e-12)
    near = lasso(A, b, 1.05 * alpha, x0=cold.x)
    require_certificate(near, A, b, 1.05 * alpha)
    require_certificate(lasso(A, b, alpha, x0=np.full(400, 1e3)), A, b, alpha)


@pytest.mark.parametrize("options", [{}, {"fit_intercept": True}, {"positive": True}])
def test_path(options):
    A, b = problem(40, 100, correlation=0.6)
    path = lasso_path(A, b, n_alphas=12, eps=1e-2, tol=1e-13, **options)
    assert path.success
    assert path.x.shape == (100, 12)
    np.testing.assert_allclose(path.alphas[1:] / path.alphas[:-1], 10 ** (-2 / 11))
    assert not path.x[:, 0].any()
    assert path.x[:, 1].any()
    for i in (3, 11):
        single = lasso(A, b, path.alphas[i], tol=1e-13, **options)
        np.testing.assert_allclose(path.x[:, i], single.x, atol=1e-6)
        assert path.objective[i] == pytest.approx(single.objective, rel=1e-10)
        assert path.intercept[i] == pytest.approx(single.intercept, rel=1e-8)
    # As alpha falls, the norm grows and the residual shrinks.
    norms = np.abs(path.x).sum(axis=0)
    left = np.linalg.norm(b[:, None] - A @ path.x - path.intercept, axis=0)
    assert (np.diff(norms) >= -1e-9).all()
    assert (np.diff(left) <= 1e-9).all()


def test_path_for_given_alphas():
    A, b = problem(20, 10)
    alphas = np.array([0.1, 0.5, 0.02])
    path = lasso_path(A, b, alphas)
    assert np.array_equal(path.alphas, [0.5, 0.1, 0.02])
    assert [result.alpha for result in path.results] == [0.5, 0.1, 0.02]
    assert lasso_path(A, b, []).x.shape == (10, 0)
    assert not lasso_path(A, np.zeros(20), n_alphas=3).x.any()


def test_orthonormal_columns_have_a_closed_form():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((50, 20)))[0]
    b = rng.standard_normal(50)
    c, alpha = Q.T @ b, 0.004
    expected = np.sign(c) * np.maximum(np.abs(c) - 50 * alpha, 0)
    assert 0 < np.count_nonzero(expected) < 20
    np.testing.assert_allclose(lasso(Q, b, alpha, tol=1e-15).x, expected, atol=1e-12)


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_float32(layout):
    A, b = problem(50, 200)
    A, b = A.astype(np.float32), b.astype(np.float32)
    alpha = 0.05 * largest(A, b)
    result = lasso(LAYOUTS[layout](A), b, alpha)
    assert result.x.dtype == np.float32
    assert result.success
    exact = lasso(A.astype(np.float64), b.astype(np.float64), alpha, tol=1e-13)
    np.testing.assert_allclose(result.x, exact.x, atol=1e-3)
    assert objective(A, b.astype(np.float64), result.x.astype(np.float64), alpha) <= exact.objective * (1 + 2e-5)


def test_integers():
    A = np.random.default_rng(0).integers(-3, 4, (20, 30))
    b = A[:, 4] - 2 * A[:, 7]
    result = lasso(A, b, 0.3)
    assert result.x.dtype == np.float64
    require_certificate(result, A, b.astype(float), 0.3)


def test_scaling():
    A, b = problem(30, 60)
    alpha = 0.1 * largest(A, b)
    x = lasso(A, b, alpha).x
    for t in (2.0**-40, 2.0**300):
        assert np.array_equal(lasso(A, t * b, t * alpha).x, t * x)
    for t in (1e-200, 1e-150, 1e150):
        np.testing.assert_allclose(lasso(A, t * b, t * alpha).x, t * x, rtol=1e-6)
        np.testing.assert_allclose(lasso(t * A, b, t * alpha).x * t, x, rtol=1e-6)
    sizes = 10.0 ** np.arange(-100, 100).reshape(-1)[:60]
    scaled = lasso(A * sizes, b, 1e-120)
    assert scaled.success
    assert np.isfinite(scaled.x).all()
    with pytest.warns(LearnWarning, match="beyond the range"):
        assert lasso(A * 1e-300, b * 1e300, alpha).status is SparseStatus.OVERFLOW


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_same_bits_for_any_number_of_threads(layout):
    A, b = problem(200, 500, k=30, correlation=0.3)
    A = LAYOUTS[layout](A)
    before = _cpu.max_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            randla.set_num_threads(threads)
            found.append(lasso(A, b, 0.02 * largest(A, b)))
    finally:
        randla.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(found[0].x, other.x)
        assert found[0].gap == other.gap
        assert np.array_equal(found[0].dual, other.dual)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_columns_too_large_to_hold(layout, intercept, monkeypatch):
    A, b = problem(100, 300, k=20)
    alpha = 0.02 * largest(A, b)
    expected = lasso(A, b, alpha, tol=1e-13, fit_intercept=intercept)
    monkeypatch.setattr(_columns, "_HELD", 0)
    monkeypatch.setattr(_columns, "_BLOCK", 1000)
    result = lasso(LAYOUTS[layout](A), b, alpha, tol=1e-13, fit_intercept=intercept)
    require_certificate(result, A, b, alpha, intercept=intercept)
    np.testing.assert_allclose(result.x, expected.x, atol=1e-7)


@pytest.mark.parametrize("intercept", [False, True])
def test_supports_larger_than_the_largest_working_set(intercept, monkeypatch):
    A, b = problem(120, 300, k=100)
    alpha = 0.05 * largest(A, b)
    monkeypatch.setattr(_coordinate, "_LARGEST", 60)
    monkeypatch.setattr(_coordinate, "_FIRST", 20)
    result = lasso(A, b, alpha, tol=1e-4, fit_intercept=intercept)
    require_certificate(result, A, b, alpha, tol=1e-4, intercept=intercept)
    assert len(result.support) > 70


def test_iteration_limit():
    A, b = problem(50, 1000, k=30, noise=1)
    with pytest.warns(LearnWarning, match="iteration limit"):
        result = lasso(A, b, 0.01 * largest(A, b), maxiter=1)
    assert result.status is SparseStatus.ITERATION_LIMIT
    assert not result.success
    assert result.gap > 1e-10 * (b @ b) / 50
    with pytest.warns(LearnWarning, match="iteration limit"):
        assert not lasso_path(A, b, n_alphas=3, maxiter=1).success


def test_gaps_that_rounding_hides():
    """The gap asked for is below what the residual of such columns can show."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30, 12)) @ np.diag(10.0 ** -np.arange(12)) @ rng.standard_normal((12, 40))
    b = rng.standard_normal(30)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = lasso(A, b, 1e-13, tol=1e-15)
    assert result.success or [type(w.message) for w in caught] == [LearnWarning]
    assert result.objective <= objective(A, b, np.zeros(40), 1e-13)


def test_columns_that_rounding_cannot_tell_apart():
    A = np.vander(np.linspace(0, 1, 40), 143)
    b = np.random.default_rng(0).standard_normal(40)
    alpha = 1e-6 * largest(A, b)
    with pytest.warns(LearnWarning, match="Progress stopped"):
        result = lasso(A, b, alpha)
    assert result.status is SparseStatus.STAGNATED
    # What is said of the answer holds all the same.
    y = result.dual
    assert np.abs(A.T @ y).max() <= alpha * (1 + 1e-9)
    bound = b @ y - 20 * (y @ y)
    assert objective(A, b, result.x, alpha) - bound == pytest.approx(result.gap, rel=1e-6)


@pytest.mark.parametrize("kind", ["wide", "doubled", "unsorted"])
def test_sparse_formats(kind):
    A, b = problem(60, 40)
    A *= np.random.default_rng(1).random(A.shape) < 0.3
    expected = lasso(A, b, 0.05, tol=1e-13)
    parts = sp.csc_array(A)
    if kind == "wide":
        parts.indices, parts.indptr = parts.indices.astype(np.int64), parts.indptr.astype(np.int64)
    else:
        where, values = parts.tocoo().coords, parts.data
        order = np.lexsort((-where[0], where[1])) if kind == "unsorted" else np.arange(len(values))
        copies = 2 if kind == "doubled" else 1
        indices, data = np.repeat(where[0][order], copies), np.repeat(values[order] / copies, copies)
        parts = sp.csc_array((data, indices, parts.indptr * copies), shape=A.shape)
    before = parts.data.copy()
    for form in (parts, sp.csc_matrix(parts), sp.csr_array(A)):
        result = lasso(form, b, 0.05, tol=1e-13)
        require_certificate(result, A, b, 0.05)
        np.testing.assert_allclose(result.x, expected.x, atol=1e-9)
    assert np.array_equal(parts.data, before)


def test_history():
    A, b = problem(50, 1000, k=30, noise=1)
    result = lasso(A, b, 0.02 * largest(A, b))
    assert [entry["iteration"] for entry in result.history] == list(range(len(result.history)))
    assert result.history[-1]["gap"] == result.gap
    assert result.history[0]["objective"] == pytest.approx(b @ b / 100)
    assert result.passes == len(result.history) - 1
    assert (np.diff([entry["objective"] for entry in result.history]) <= 1e-12).all()


def test_read_only_data_is_left_alone():
    A, b = problem(20, 40)
    x0 = np.ones(40)
    kept = A.copy(), b.copy()
    for array in (A, b, x0):
        array.flags.writeable = False
    lasso(A, b, 0.1, x0=x0)
    assert np.array_equal(A, kept[0])
    assert np.array_equal(b, kept[1])
    assert (x0 == 1).all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty(shape):
    result = lasso(np.zeros(shape), np.ones(shape[0]), 1.0)
    assert result.success
    assert np.array_equal(result.x, np.zeros(shape[1]))
    assert result.gap == 0
    assert lasso_path(np.zeros(shape), np.ones(shape[0]), n_alphas=2).x.shape == (shape[1], 2)


def test_zeros():
    assert not lasso(np.zeros((5, 3)), np.ones(5), 0.1).x.any()
    assert not lasso(np.ones((5, 3)), np.zeros(5), 0.1).x.any()
    assert not lasso(sp.csr_array((5, 3)), np.ones(5), 0.1, fit_intercept=True).x.any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entries_that_are_not_finite(layout, bad):
    A, b = problem(20, 30)
    A[3, 5] = bad
    with pytest.raises(ValueError, match="A must be finite"):
        lasso(LAYOUTS[layout](A), b, 0.1)
    with pytest.raises(ValueError, match="A must be finite"):
        lasso(LAYOUTS[layout](A), np.zeros(20), 0.1)


A3, B3 = np.eye(3), np.ones(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lasso(A3, [1, np.nan, 1], 0.1), ValueError, "b must be finite"),
        (lambda: lasso(A3, np.ones(4), 0.1), ValueError, r"b must have shape \(3,\), as A has shape \(3, 3\); got \(4,\)"),
        (lambda: lasso(A3, np.ones((3, 2)), 0.1), ValueError, "b must have shape"),
        (lambda: lasso(A3 * 1j, B3, 0.1), TypeError, "A must be real; got complex128"),
        (lambda: lasso(A3, B3 * 1j, 0.1), TypeError, "b must be real"),
        (lambda: lasso(np.ones(3), B3, 0.1), ValueError, "A must have 2 dimensions"),
        (lambda: lasso(sp.linalg.aslinearoperator(A3), B3, 0.1), TypeError, "A must be an array or a sparse matrix"),
        (lambda: lasso(A3, B3, 0), ValueError, "alpha must be finite and greater than 0; got 0"),
        (lambda: lasso(A3, B3, -1.0), ValueError, "alpha must be"),
        (lambda: lasso(A3, B3, "a"), TypeError, "alpha must be a real number"),
        (lambda: lasso(A3, B3, 0.1, tol=0), ValueError, "tol must be finite and greater than 0"),
        (lambda: lasso(A3, B3, 0.1, maxiter=0), ValueError, "maxiter must be at least 1; got 0"),
        (lambda: lasso(A3, B3, 0.1, x0=np.ones(2)), ValueError, r"x0 must have shape \(3,\)"),
        (lambda: lasso(A3, B3, 0.1, x0=-B3, positive=True), ValueError, "x0 must not be negative with positive=True; got -1"),
        (lambda: lasso_path(A3, B3, n_alphas=0), ValueError, "n_alphas must be at least 1"),
        (lambda: lasso_path(A3, B3, eps=2), ValueError, "eps must be at most 1; got 2"),
        (lambda: lasso_path(A3, B3, eps=0), ValueError, "eps must be finite and greater than 0"),
        (lambda: lasso_path(A3, B3, [[0.1]]), ValueError, "alphas must have 1 dimension; got 2"),
        (lambda: lasso_path(A3, B3, [0.1, 0.0]), ValueError, "alphas must be greater than 0; got 0"),
        (lambda: lasso_path(A3, B3, [np.nan]), ValueError, "alphas must be finite"),
    ],
)
def test_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 64), (1500, 70), (2049, 130)])
def test_column_dots(shape, k, dtype):
    rng = np.random.default_rng(0)
    A, R = np.asfortranarray(rng.standard_normal(shape).astype(dtype)), rng.standard_normal((k, shape[0]))
    out = np.full((shape[1], k), np.nan)
    _cpu.column_dots(A, R, out)
    np.testing.assert_allclose(out, A.astype(np.float64).T @ R.T, atol=1e-12 * shape[0])


@pytest.mark.parametrize("first", [0, 1, 64, 100, 199])
@pytest.mark.parametrize("m", [1, 20, 2100])
def test_gram_rows(first, m):
    P = np.random.default_rng(0).standard_normal((200, m))
    room = np.full((230, 240), np.nan)
    G = room[:200, :200]
    expected = P @ P.T
    G[:first, :first] = expected[:first, :first]
    _cpu.gram_rows(P, first, G)
    np.testing.assert_allclose(G, expected, atol=1e-12 * m)
    assert np.isnan(room[200:]).all()
    assert np.isnan(room[:, 200:]).all()


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("shape", [(50, 20), (50, 120)])
def test_the_path_meets_coordinate_descent(shape, positive):
    A, b = problem(*shape, noise=1.0, correlation=0.5)
    G, c, weight = A.T @ A, A.T @ b, np.random.default_rng(1).uniform(1, 2, shape[1])
    x, sign, u = (np.empty(shape[1]) for _ in range(3))
    top = np.abs(c / weight).max()
    for fraction in (0.5, 0.1, 0.02):
        assert _cpu.l1_path(G, c, weight, 0.0, fraction * top, positive, 1000, x, sign, u) > 0
        v, g = np.zeros(shape[1]), c.copy()
        _, violation = _cpu.lasso(G, fraction * top * weight, positive, 1e-12, 10_000, v, g)
        assert violation <= 1e-12
        np.testing.assert_allclose(x, v, atol=1e-9)
        assert np.array_equal(np.sign(v[sign != 0]), sign[sign != 0])
        np.testing.assert_allclose(G[np.ix_(sign != 0, sign != 0)] @ u[sign != 0], (weight * sign)[sign != 0], atol=1e-8)
        # On from here, in place of from the beginning.
        on, again = np.empty(shape[1]), sign.copy()
        assert _cpu.l1_path(G, c, weight, fraction * top, 0.3 * fraction * top, positive, 1000, on, again, u) > 0
        _cpu.l1_path(G, c, weight, 0.0, 0.3 * fraction * top, positive, 1000, x, sign, u)
        np.testing.assert_allclose(on, x, atol=1e-9)


def test_kernels_refuse_what_does_not_fit():
    square, three = np.eye(3), np.zeros(3)
    with pytest.raises(ValueError, match="G must be"):
        _cpu.lasso(np.zeros((3, 2)), three, False, 0.1, 1, three, three)
    with pytest.raises(ValueError, match="vectors must be"):
        _cpu.lasso(square, np.zeros(2), False, 0.1, 1, three, three)
    with pytest.raises(ValueError, match="contiguous columns"):
        _cpu.column_dots(np.zeros((4, 3)), np.zeros((1, 4)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="R must be"):
        _cpu.column_dots(np.zeros((4, 3), order="F"), np.zeros((1, 3)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="out must be"):
        _cpu.column_dots(np.zeros((4, 3), order="F"), np.zeros((1, 4)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="P must be"):
        _cpu.gram_rows(np.zeros((4, 3)), 0, square)
    with pytest.raises(ValueError, match="first"):
        _cpu.gram_rows(square, 4, square)
    with pytest.raises(ValueError, match="vectors must be"):
        _cpu.l1_path(square, three, three, 0.0, 0.0, False, 9, three, three, np.zeros(4))
