"""Newton sketch: solutions by Newton's method with dense Hessians, and the law of the sketched Hessian."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import FAMILIES
from problems import data_file
from stats import z_gate

from randla.optimize.glm import GLM
from randla.optimize.newton_sketch import _Inverse, newton_sketch
from randla.optimize.result import MinimizeStatus, MinimizeWarning


def classification(m=3000, n=20, rng=0, sparse=False):
    rng = np.random.default_rng(rng)
    X = sp.random_array((m, n), density=0.2, rng=rng, format="csr") if sparse else rng.standard_normal((m, n))
    y = np.where(X @ rng.standard_normal(n) + 0.5 * rng.standard_normal(m) > 0, 1.0, -1.0)
    return X, y


def newton(X, y, l2, iterations=50):
    """Damped Newton with dense Hessians for logistic regression with labels -1, 1."""
    X = X if sp.issparse(X) else np.asarray(X, float)
    w = np.zeros(X.shape[1])

    def value(w):
        return np.logaddexp(0, -y * (X @ w)).mean() + l2 / 2 * (w @ w)

    for _ in range(iterations):
        p = 1 / (1 + np.exp(-y * (X @ w)))
        g = -X.T @ (y * (1 - p)) / len(y) + l2 * w
        H = X.T @ (sp.diags_array(p * (1 - p)) @ X) / len(y)
        H = (H.toarray() if sp.issparse(H) else H) + l2 * np.eye(len(w))
        step = np.linalg.solve(H, g)
        t = 1.0
        while value(w - t * step) > value(w) and t > 1e-9:
            t /= 2
        w = w - t * step
        if np.linalg.norm(g) < 1e-13:
            break
    return w


def gradient(X, y, l2, w):
    return -X.T @ (y / (1 + np.exp(y * (X @ w)))) / len(y) + l2 * w


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-6])
def test_solution_is_that_of_newtons_method(sparse, l2, exact):
    X, y = classification(sparse=sparse)
    result = newton_sketch(GLM(X, y, loss="logistic", l2=l2), np.zeros(20), exact=exact, rng=0)
    assert result.status is MinimizeStatus.CONVERGED
    assert result.grad_norm <= 1e-8
    assert np.linalg.norm(gradient(X, y, l2, result.x)) <= 1.01e-8
    assert result.x == pytest.approx(newton(X, y, l2), abs=1e-5 if l2 < 1e-4 else 1e-6)


def test_gradient_norm_of_1e_10():
    X, y = classification()
    problem = GLM(X, y, loss="logistic", l2=1e-4)
    result = newton_sketch(problem, np.zeros(20), gtol=1e-10, rng=0)
    assert np.linalg.norm(gradient(X, y, 1e-4, result.x)) <= 1e-10
    norms = [entry["grad_norm"] for entry in result.history]
    assert norms[-1] / norms[-2] < 0.01  # superlinear
    assert all(entry["products"] <= 30 for entry in result.history)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"count", "rows", "less", "less5"}))
def test_every_family_of_sketches(name):
    X, y = classification(1024)
    result = newton_sketch(GLM(X, y, loss="logistic", l2=1e-3), np.zeros(20), sketch=FAMILIES[name], rng=1)
    assert result.success
    assert result.x == pytest.approx(newton(X, y, 1e-3), abs=1e-6)


def test_least_squares():
    X, y = classification()
    problem = GLM(X, y, loss="least_squares", l2=1e-2)
    result = newton_sketch(problem, np.zeros(20), rng=0)
    assert result.success
    solution = np.linalg.solve(X.T @ X / 3000 + 1e-2 * np.eye(20), X.T @ y / 3000)
    assert result.x == pytest.approx(solution, abs=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "stack", "srht"])
def test_sketched_hessian_is_unbiased(name):
    """The mean of v'H_S v over 400 sketches against v'Hv, in units of its standard error: normal by the central limit theorem,
    as each is a mean over 64 rows; the false alarm is that of stats.z_gate for each of 3 vectors."""
    X, y = classification(500, 8)
    problem = GLM(X, y, loss="logistic", l2=0.0)
    x = np.ones(8) / 4
    B = np.sqrt(problem.at(x).weights)[:, None] * X
    H = problem.hessian(x).to_dense()
    assert pytest.approx(H, abs=1e-12) == B.T @ B
    sketches = [FAMILIES[name].sample(64, 500, rng=seed) @ B for seed in range(400)]
    for v in np.random.default_rng(0).standard_normal((3, 8)):
        sample = np.array([v @ (Y.T @ (Y @ v)) for Y in sketches])
        z_gate((sample.mean() - v @ H @ v) / (sample.std(ddof=1) / 20), f"{name}: v'H_S v")


def test_seed_replays_and_sketches_differ():
    X, y = classification()
    problem = GLM(X, y, loss="logistic", l2=1e-3)
    for exact in (True, False):
        result = newton_sketch(problem, np.zeros(20), exact=exact)
        again = newton_sketch(problem, np.zeros(20), exact=exact, rng=result.seed)
        assert np.array_equal(again.x, result.x)
        other = newton_sketch(problem, np.zeros(20), exact=exact, rng=result.seed + 1)
        assert not np.array_equal(other.x, result.x)
    # A sketch that was used twice would stop the run at its own error.
    fresh = newton_sketch(problem, np.zeros(20), exact=False, adaptive=False, gtol=1e-9, rng=3)
    assert fresh.success
    ratios = [b["grad_norm"] / a["grad_norm"] for a, b in zip(fresh.history[3:], fresh.history[4:], strict=False)]
    assert np.median(ratios) < 0.7


@pytest.mark.parametrize("exact", [True, False])
def test_sketch_grows_where_it_is_too_small(exact):
    X, y = classification(4000, 30)
    problem = GLM(X, y, loss="logistic", l2=1e-5)
    grown = newton_sketch(problem, np.zeros(30), sketch_size=4, exact=exact, rng=0)
    assert grown.success
    assert grown.sketch_size > 4
    sizes = [entry["sketch_size"] for entry in grown.history[1:]]
    assert sizes == sorted(sizes)
    with pytest.warns(MinimizeWarning, match="limit"):
        fixed = newton_sketch(problem, np.zeros(30), sketch_size=4, adaptive=False, exact=exact, maxiter=3, rng=0)
    assert {entry["sketch_size"] for entry in fixed.history[1:]} == {4}
    assert fixed.status is MinimizeStatus.ITERATION_LIMIT


def test_few_rows_are_enough_for_few_effective_dimensions():
    """l2 leaves 3 of 200 columns: sketches never need 200 rows."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((4000, 200)) * np.r_[np.ones(3), np.full(197, 1e-3)]
    y = np.where(X[:, 0] + 0.1 * rng.standard_normal(4000) > 0, 1.0, -1.0)
    problem = GLM(X, y, loss="logistic", l2=1e-2)
    result = newton_sketch(problem, np.zeros(200), sketch_size=60, exact=False, rng=0)
    assert result.success
    assert result.sketch_size <= 120
    assert result.nit < 40
    assert result.x == pytest.approx(newton(X, y, 1e-2), abs=1e-6)


def test_sketch_as_large_as_the_data_is_newtons_method():
    X, y = classification(300)
    problem = GLM(X, y, loss="logistic", l2=1e-2)
    result = newton_sketch(problem, np.zeros(20), sketch_size=300, rng=0)
    assert result.success
    assert result.sketches == 0
    assert result.nhev == 20 * result.nit
    H, g = problem.hessian(np.zeros(20)).to_dense(), problem.grad(np.zeros(20))
    first = newton_sketch(problem, np.zeros(20), sketch_size=300, gtol=result.history[1]["grad_norm"] * 1.001, rng=0)
    assert first.x == pytest.approx(-np.linalg.solve(H, g), rel=1e-9)


def test_inverses():
    """Cholesky, Woodbury and the truncated one against dense algebra, and their effective dimensions."""
    rng = np.random.default_rng(2)
    for rows, penalty in ((40, np.zeros(10)), (40, rng.random(10)), (4, 0.1 + rng.random(10)), (4, np.zeros(10))):
        Y = rng.standard_normal((rows, 10)) * 10.0 ** rng.uniform(-4, 4, 10)
        M = _Inverse(Y, penalty)
        K = Y.T @ Y + np.diag(penalty)
        s = 1 / np.sqrt(K.diagonal())
        expected = s[:, None] * np.linalg.pinv(K * s * s[:, None], rcond=1e-12, hermitian=True) * s
        for v in rng.standard_normal((3, 10)):
            assert M(v) / s == pytest.approx(expected @ v / s, rel=1e-6, abs=1e-7 * np.abs(expected @ v / s).max())
        assert M.effective == pytest.approx(np.trace(Y.T @ Y @ expected), rel=1e-6)
    assert not _Inverse(np.zeros((5, 3)), np.zeros(3))(np.ones(3)).any()


@pytest.mark.parametrize("exact", [True, False])
def test_columns_that_depend_on_each_other(exact):
    X, y = classification(2000, 10)
    X = np.column_stack([X, X[:, 0] + X[:, 1], np.zeros(2000)])
    result = newton_sketch(GLM(X, y, loss="logistic"), np.zeros(12), exact=exact, rng=0)
    assert result.success
    w = newton(X[:, :10], y, 0.0)
    assert X @ result.x == pytest.approx(X[:, :10] @ w, abs=1e-4)


def test_float32_and_column_major_data():
    X, y = classification()
    w = newton(X.astype(np.float32), y, 1e-3)
    for A in (X.astype(np.float32), np.asfortranarray(X)):
        result = newton_sketch(GLM(A, y, loss="logistic", l2=1e-3), np.zeros(20), gtol=1e-7, rng=0)
        assert result.success
        assert result.x == pytest.approx(w, abs=1e-4)


def test_costs_history_callback_and_verbose(capsys):
    X, y = classification()
    problem = GLM(X, y, loss="logistic", l2=1e-3)
    seen = []
    result = newton_sketch(problem, np.zeros(20), verbose=2, rng=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == result.nit + 3
    assert lines[-1] == result.message
    assert result.props == 3000 * (2 * result.nfev + 2 * result.nhev + result.sketches)
    assert result.nhev == sum(entry["products"] for entry in result.history)
    assert result.sketches == result.nit
    keys = {"iteration", "props", "time", "fun", "grad_norm", "decrement", "step", "sketch_size", "products"}
    assert all(set(entry) == keys for entry in result.history)

    def stop(intermediate_result):
        seen.append(intermediate_result)
        if intermediate_result.iteration == 2:
            raise StopIteration

    stopped = newton_sketch(problem, np.zeros(20), callback=stop, rng=0)
    assert stopped.status is MinimizeStatus.STOPPED
    assert stopped.nit == 2
    assert np.array_equal(stopped.x, seen[-1].x)


def test_goal_that_rounding_forbids_is_said():
    X, y = classification()
    problem = GLM(X, y, loss="logistic", l2=1e-3)
    with pytest.warns(MinimizeWarning):
        result = newton_sketch(problem, np.zeros(20), gtol=0.0, rng=0)
    assert result.status is MinimizeStatus.STAGNATED
    assert result.grad_norm <= 1e-14
    assert result.grad_norm == min(entry["grad_norm"] for entry in result.history)


@pytest.mark.parametrize("exact", [True, False])
def test_start_far_away(exact):
    X, y = classification()
    problem = GLM(X, y, loss="logistic", l2=1e-4)
    for scale in (10.0, 1e3):
        result = newton_sketch(problem, scale * np.random.default_rng(3).standard_normal(20), exact=exact, maxiter=200, rng=0)
        assert result.success
        assert result.x == pytest.approx(newton(X, y, 1e-4), abs=1e-4)


def test_negative_curvature_is_refused():
    X, y = classification()
    with pytest.raises(ValueError, match=r"negative second derivatives; got -.*use minimize\(\)"):
        newton_sketch(GLM(X, (y > 0) * 1.0, loss="squared_sigmoid"), np.ones(20), rng=0)


def test_problem_that_is_no_glm():
    class Other:
        n = dim = 3

    with pytest.raises(TypeError, match="problem must be a GLM, with X; got Other"):
        newton_sketch(Other(), np.zeros(3))


def test_problem_with_more_coefficients_than_columns():
    class Many:
        n, dim, X = 4, 6, np.ones((4, 2))
        at = penalty_diagonal = None

    with pytest.raises(ValueError, match="one coefficient per column of X; got 6 for 2"):
        newton_sketch(Many(), np.zeros(6))


def test_start_where_the_function_is_not_finite():
    X, y = classification(100)
    with pytest.raises(ValueError, match="problem must be finite at x0"):
        newton_sketch(GLM(1e200 * X, y, loss="least_squares"), np.full(20, 1e200), rng=0)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, r"x0 must have shape \(20,\)", {"x0": np.zeros(3)}),
        (ValueError, "x0 must be finite", {"x0": np.full(20, np.nan)}),
        (TypeError, "x0 must be real", {"x0": 1j * np.ones(20)}),
        (TypeError, "sketch must be a Distribution", {"sketch": "gaussian"}),
        (ValueError, "sketch_size must be at least 1", {"sketch_size": 0}),
        (ValueError, "gtol must be", {"gtol": -1.0}),
        (ValueError, "maxiter must be", {"maxiter": -1}),
        (ValueError, "verbose must be", {"verbose": -1}),
        (TypeError, "callback must be callable", {"callback": 1}),
        (TypeError, "rng must be", {"rng": "a"}),
    ],
)
def test_errors(error, message, arguments):
    X, y = classification(100)
    full = {"x0": np.zeros(20), **arguments}
    with pytest.raises(error, match=message):
        newton_sketch(GLM(X, y, loss="logistic"), full.pop("x0"), **full)


def dataset(name):
    with np.load(data_file(f"{name}.npz")) as z:
        X = sp.csr_array((z["data"].astype(float), z["indices"], z["indptr"]), shape=tuple(z["shape"]))
        return X, np.where(z["y"] > 0, 1.0, -1.0)


@pytest.mark.parametrize("name", ["a9a", "w8a"])
@pytest.mark.parametrize("l2", [1e-3, 1e-5])
def test_real_data(name, l2):
    X, y = dataset(name)
    problem = GLM(X, y, loss="logistic", l2=l2)
    w = newton(X, y, l2)
    assert np.linalg.norm(gradient(X, y, l2, w)) < 1e-12
    for options in ({}, {"exact": False}):
        result = newton_sketch(problem, np.zeros(X.shape[1]), rng=0, **options)
        assert np.linalg.norm(gradient(X, y, l2, result.x)) <= 1.01e-8
        assert result.fun == pytest.approx(problem.value(w), abs=1e-12)
        assert result.nit <= 40
    accurate = newton_sketch(problem, np.zeros(X.shape[1]), gtol=1e-10, rng=0)
    assert np.linalg.norm(gradient(X, y, l2, accurate.x)) <= 1.01e-10
    assert accurate.x == pytest.approx(w, abs=1e-4)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("far", [1e2, 1e3, 1e4])
def test_function_never_rises(far, exact):
    """From where the curvature of nearly all terms is below the smallest number: steps are too long by forty decades."""
    rng = np.random.default_rng(18)
    X = rng.standard_normal((400, 5))
    problem = GLM(X, np.sign(X[:, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinimizeWarning)
        result = newton_sketch(problem, np.full(5, -far), exact=exact, rng=0)
    values = np.array([entry["fun"] for entry in result.history])
    assert (np.diff(values) <= 1e-12 * values[:-1]).all()
    assert result.fun <= values[0]


@pytest.mark.parametrize("exact", [True, False])
def test_gradient_without_curvature_is_said(exact):
    rng = np.random.default_rng(19)
    X = rng.standard_normal((400, 5))
    problem = GLM(X, 1e6 * np.sign(X[:, 0]), loss="huber")
    with pytest.warns(MinimizeWarning, match="not positive definite"):
        result = newton_sketch(problem, np.zeros(5), exact=exact, rng=0)
    assert result.status is MinimizeStatus.INDEFINITE
    np.testing.assert_array_equal(result.x, np.zeros(5))
