"""Rectified regression: recovery of planted units, the certificate checked from outside, and data that no unit explains."""

import numpy as np
import pytest
import scipy.sparse as sp
from problems import badly_scaled
from scipy.optimize import lsq_linear

from randla.learn.initialization import activation_loss, gspectral_init
from randla.learn.relu import ReluStatus, recover_network, relu_regression
from randla.learn.result import LearnWarning


def planted(m, n, k=None, rng=0):
    rng = np.random.default_rng(rng)
    X, w = rng.standard_normal((m, n)), rng.standard_normal(n if k is None else (n, k))
    return X, w, np.maximum(X @ w, 0)


def loss_of(X, w, y):
    return 0.5 * np.sum((np.maximum(X @ w, 0) - y) ** 2, axis=0) / len(X)


def slope(X, w, y):
    """The smallest subgradient of the loss, and what it is measured by; kinks have any share in [0, -y] of their row."""
    t = X @ w
    size = np.linalg.norm(X, axis=1) * np.linalg.norm(w)
    kinks = (np.abs(t) <= 1e-12 * size) & (y < 0)
    gradient = X.T @ np.where((t > 0) & ~kinks, t - y, 0)
    if kinks.any():
        gradient = lsq_linear(X[kinks].T, -gradient, (0, -y[kinks]), tol=1e-14).fun
    return np.linalg.norm(gradient), np.linalg.norm(X) * np.linalg.norm(y)


@pytest.mark.parametrize("n", [1, 5, 50, 200])
@pytest.mark.parametrize("seed", range(3))
def test_planted_unit_from_a_few_n_samples(n, seed):
    X, w, y = planted(3 * n + 20, n, rng=seed)
    result = relu_regression(X, y)
    assert np.linalg.norm(result.w - w) < 1e-10 * np.linalg.norm(w)
    assert result.status is ReluStatus.REALIZABLE
    assert result.success
    assert result.determined is True
    assert result.iterations == 1
    assert result.loss == pytest.approx(loss_of(X, result.w, y), abs=1e-24)


def test_covariance_does_not_matter():
    X, w, _ = planted(400, 30)
    X = X * np.logspace(0, 5, 30) + X[:, :1] @ np.ones((1, 30))
    result = relu_regression(X, np.maximum(X @ w, 0))
    assert result.status is ReluStatus.REALIZABLE
    assert np.linalg.norm(result.w - w) < 1e-6 * np.linalg.norm(w)


def test_network_is_recovered_and_then_compressed():
    """The two steps of the talk: realizable regressions for the rows of W, then the initialization of low rank."""
    X, w, Y = planted(300, 40, 25)
    result = recover_network(X, Y)
    assert result.W.shape == (25, 40)
    assert np.abs(result.W - w.T).max() < 1e-11
    assert result.status is ReluStatus.REALIZABLE
    assert result.determined.all()
    U, V, info = gspectral_init(result.W, 5)
    assert activation_loss(w.T, U @ V.T) == pytest.approx(info.loss, rel=1e-9)
    assert info.loss < info.spectral_loss


def test_outputs_are_separate():
    X, _, Y = planted(120, 10, 6)
    Y[:, 2] += 0.1 * np.random.default_rng(1).standard_normal(120)
    together = relu_regression(X, Y, rng=0)
    for j in range(6):
        alone = relu_regression(X, Y[:, j], rng=0)
        assert np.abs(alone.w - together.w[:, j]).max() < 1e-12
        assert alone.loss == pytest.approx(together.loss[j], rel=1e-9, abs=1e-25)
    assert together.status is ReluStatus.STATIONARY
    assert "1 of 6" in together.message


def test_unit_that_is_never_on():
    X, _, y = planted(60, 5)
    with pytest.warns(LearnWarning, match="others would do as well"):
        result = relu_regression(X, np.zeros_like(y))
    assert result.loss == 0
    assert not result.w.any()
    assert result.status is ReluStatus.UNDETERMINED
    assert result.determined is False


@pytest.mark.parametrize("kind", ["few", "repeated"])
def test_undetermined_units_are_named(kind):
    X, w, y = planted(60, 20)
    if kind == "few":
        rows = np.concatenate([np.flatnonzero(y)[:12], np.flatnonzero(y == 0)])
    else:
        rows = np.concatenate([np.repeat(np.flatnonzero(y)[:12], 4), np.flatnonzero(y == 0)])
    with pytest.warns(LearnWarning):
        result = relu_regression(X[rows], y[rows])
    assert not result.success
    assert not result.determined
    if result.status is ReluStatus.UNDETERMINED:
        assert loss_of(X[rows], result.w, y[rows]) < 1e-20
    assert np.linalg.norm(result.w - w) > 0.01


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_noise_ends_where_the_gradient_vanishes(seed, noise):
    X, w, y = planted(200, 8, rng=seed)
    y = y + noise * np.random.default_rng(seed + 50).standard_normal(200)
    result = relu_regression(X, y)
    assert result.status is ReluStatus.STATIONARY
    assert result.success
    gradient, unit = slope(X, result.w, y)
    assert gradient <= 1e-9 * unit
    assert result.gradient_norm <= 1e-12
    assert result.loss == pytest.approx(loss_of(X, result.w, y), rel=1e-12)
    assert result.loss <= loss_of(X, w, y)
    # A local minimum: no small change of w helps.
    near = result.w[:, None] + 1e-4 * np.random.default_rng(0).standard_normal((8, 200))
    assert (loss_of(X, near, y[:, None]) >= result.loss).all()


def test_pure_noise_ends_in_local_minima():
    kinks = 0
    for seed in range(30):
        X, _, _ = planted(50, 6, rng=seed)
        y = np.random.default_rng(seed).standard_normal(50)
        result = relu_regression(X, y)
        residuals = [entry["relative_residual"] for entry in result.history]
        assert (np.diff(residuals[1:]) <= 1e-14).all()
        assert result.status is ReluStatus.STATIONARY
        gradient, unit = slope(X, result.w, y)
        assert gradient <= 1e-9 * unit
        kinks += np.count_nonzero(np.abs(X @ result.w) < 1e-12)
        near = result.w[:, None] + 1e-5 * np.random.default_rng(0).standard_normal((6, 200))
        assert (loss_of(X, near, y[:, None]) >= result.loss * (1 - 1e-14)).all()
    assert kinks > 10


def test_iteration_limit_is_said():
    X, _, y = planted(100, 8)
    with pytest.warns(LearnWarning, match="iteration limit"):
        result = relu_regression(X, y + np.random.default_rng(1).standard_normal(100), maxiter=1)
    assert result.status is ReluStatus.ITERATION_LIMIT
    assert not result.success


def test_dependent_features_give_the_shortest():
    X, w, _ = planted(80, 6)
    X = np.hstack([X, X[:, :2]])
    y = np.maximum(X @ np.concatenate([w, [1.0, -1.0]]), 0)
    result = relu_regression(X, y)
    assert result.rank == 6
    assert result.status is ReluStatus.REALIZABLE
    assert result.w[:2] == pytest.approx(result.w[6:], rel=1e-9)
    assert loss_of(X, result.w, y) < 1e-24


def test_wide_data_are_explained_but_not_determined():
    X, _, y = planted(10, 30)
    with pytest.warns(LearnWarning):
        result = relu_regression(X, y)
    assert result.rank == 10
    assert result.determined is False


@pytest.mark.parametrize(("size", "height"), [(1e200, 1e-200), (1e-200, 1e100), (1e150, 1e150)])
def test_units_do_not_matter(size, height):
    X, w, y = planted(60, 7)
    result = relu_regression(X * size, y * height)
    assert result.status is ReluStatus.REALIZABLE
    if 1e-300 < height / size < 1e300:
        assert result.w * (size / height) == pytest.approx(w, rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_beyond_the_range(dtype):
    X, _, y = (np.asarray(part, dtype) for part in planted(60, 7))
    small, large = (dtype(10.0**exponent) for exponent in ((-30, 30) if dtype is np.float32 else (-300, 300)))
    with pytest.warns(LearnWarning, match="beyond the range"):
        result = relu_regression(X * small, np.column_stack([y * large, y * small]))
    assert result.status is ReluStatus.OVERFLOW
    assert not result.success
    assert np.isfinite(result.w).all(axis=0).tolist() == [False, True]


def test_columns_of_all_sizes():
    X, _, scale = badly_scaled(80, 6, decades=100)
    w = np.arange(1.0, 7)
    result = relu_regression(X, np.maximum((X / scale) @ w, 0))
    assert result.w * scale == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize("layout", ["F", "strided", "read-only", "float32", "integers"])
def test_layouts(layout):
    X, w, _ = planted(60, 5)
    X = np.rint(4 * X)
    w = np.rint(3 * w) + 0.5
    y = np.maximum(X @ w, 0)
    given = {
        "F": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "read-only": X.copy(),
        "float32": X.astype(np.float32),
        "integers": X.astype(np.int16),
    }[layout]
    given.flags.writeable = layout != "read-only"
    result = relu_regression(given, y.astype(np.float32) if layout == "float32" else y)
    assert result.w.dtype == (np.float32 if layout == "float32" else np.float64)
    assert result.w == pytest.approx(w, rel=1e-6 if layout == "float32" else 1e-12)


def test_replay():
    X, _, y = planted(60, 5)
    first = relu_regression(X, y)
    assert (relu_regression(X, y, rng=first.seed).w == first.w).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda X, y: relu_regression(X[0], y), ValueError, "X must have 2 dimensions"),
        (lambda X, y: relu_regression(X[:0], y[:0]), ValueError, "at least one row"),
        (lambda X, y: relu_regression(X, y[1:]), ValueError, "y must have shape"),
        (lambda X, y: relu_regression(X, y[:, None, None]), ValueError, "y must have shape"),
        (lambda X, y: relu_regression(X, np.zeros((len(y), 0))), ValueError, "y must have shape"),
        (lambda X, y: relu_regression(X + 0j, y), TypeError, "X must be real"),
        (lambda X, y: relu_regression(X, y + 0j), TypeError, "y must be real"),
        (lambda X, y: relu_regression(sp.csr_array(X), y), TypeError, "X must be a dense array"),
        (lambda X, y: relu_regression(X / (X - X), y), ValueError, "X must be finite"),
        (lambda X, y: relu_regression(X, np.where(y > 0, np.inf, y)), ValueError, "y must be finite"),
        (lambda X, y: relu_regression(X, y, tol=-1), ValueError, "tol must be finite"),
        (lambda X, y: relu_regression(X, y, maxiter=0), ValueError, "maxiter must be at least 1"),
        (lambda X, y: relu_regression(X, y, rng=-1), ValueError, "rng must be"),
        (lambda X, y: recover_network(X, y), ValueError, "Y must have 2 dimensions"),
    ],
)
def test_arguments(call, error, message):
    X, _, y = planted(10, 3)
    with np.errstate(all="ignore"), pytest.raises(error, match=message):
        call(X, y)
