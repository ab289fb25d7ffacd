"""Minimization over convex sets: what runs cost and report, how trouble ends them, and arguments that are refused."""

import itertools
import math
import warnings

import numpy as np
import pytest
from constrained_problems import Smooth, classification

from randla.optimize.constrained import Box, ConstrainedStatus, L1Ball, L2Ball, Simplex, minimize_constrained
from randla.optimize.objective import from_callables
from randla.optimize.result import MinimizeWarning


@pytest.mark.parametrize("dim", [12, 300])
def test_costs_are_those_of_the_calls(dim):
    """Counted outside; 300 unknowns: by products. A rejected trial costs a value only."""
    problem = classification(400, dim, loss="squared_sigmoid")
    x0 = 3 * np.random.default_rng(5).standard_normal(dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinimizeWarning)
        result = minimize_constrained(problem, x0, Box(0.0), hessian_sample=100, radius=1e4, maxiter=20, rng=0)
    names = [name for name, _ in problem.calls]
    assert result.nfev == names.count("value")
    assert result.njev == names.count("grad")
    assert result.nhev == names.count("product") + dim * names.count("dense")
    cost = {"value": lambda s: s, "grad": lambda s: 2 * s, "product": lambda s: 2 * s, "dense": lambda s: 2 * s * dim}
    assert result.props == sum(cost[name](size) for name, size in problem.calls)
    between = [i for i, (a, b) in enumerate(itertools.pairwise(names)) if a == b == "value"]
    assert between  # something was rejected
    assert result.nfev > result.njev
    for i, name in enumerate(names[:-1]):
        if name == "value":
            assert names[i + 1] in ("value", "grad")


def test_trials_that_are_not_finite_are_rejected():
    """-log(x) sums beyond the domain are NaN; the gradient alone may be infinite, too."""
    c = np.array([1.0, 2.0, 4.0])

    def value(x):
        return c @ x - np.log(x).sum() if x.min() > 0 else math.nan

    problem = Smooth(3, value, lambda x: c - 1 / x, lambda x: np.diag(1 / x**2))
    for D in (Box(-1.0, 0.6), L2Ball(5.0), Box()):
        result = minimize_constrained(problem, np.full(3, 0.05), D, radius=100.0, gtol=1e-10, rng=0)
        assert result.success
        assert result.x == pytest.approx(D.project(1 / c), abs=1e-8)
    edge = Smooth(1, lambda x: (x @ x) / 2, lambda x: x if x[0] != 0 else np.array([math.inf]), lambda x: np.eye(1))
    with pytest.warns(MinimizeWarning):
        assert np.isfinite(minimize_constrained(edge, [1.0], Box(), gtol=0.0, rng=0).jac).all()


def test_gap_bounds_the_distance_to_the_minimum():
    problem = classification()
    for D in (Box(-0.1, 0.3), L2Ball(0.5), L1Ball(0.7), Simplex()):
        best = minimize_constrained(problem, np.zeros(12), D, gtol=1e-11, rng=0)
        with pytest.warns(MinimizeWarning, match="iteration limit"):
            early = minimize_constrained(problem, np.zeros(12), D, gtol=1e-11, maxiter=1, rng=0)
        assert early.status is ConstrainedStatus.ITERATION_LIMIT
        assert early.nit == 1
        assert 0 < early.fun - best.fun <= early.gap
    assert minimize_constrained(problem, np.zeros(12), Box(0.0), rng=0).gap == math.inf


def test_goal_that_rounding_forbids_is_said():
    problem = classification()
    for D in (Box(-0.1, 0.3), L2Ball(0.5), L1Ball(0.7), Simplex(), Box()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MinimizeWarning)
            result = minimize_constrained(problem, np.zeros(12), D, gtol=0.0, rng=0)
        assert result.status in (ConstrainedStatus.STAGNATED, ConstrainedStatus.CONVERGED)
        assert result.kkt <= 1e-14
        assert result.kkt == min(entry["kkt"] for entry in result.history)


def test_gradient_that_is_never_zero_ends_in_stagnation():
    problem = Smooth(1, lambda x: 1e9 + x[0] ** 2, lambda x: 2 * x + (1e-3 if x[0] > 0 else -1e-3), lambda x: 2 * np.eye(1))
    with pytest.warns(MinimizeWarning, match="rounding"):
        result = minimize_constrained(problem, [1.0], Box(), rng=0)
    assert result.status is ConstrainedStatus.STAGNATED
    assert result.x == pytest.approx([0], abs=1e-2)


def test_eigenvalue_that_is_not_proved_is_said():
    """A Hessian with NaN in the end, and no test at all for htol = inf."""
    problem = Smooth(2, lambda x: x @ x, lambda x: 2 * x, lambda x: np.diag([2, 2 if x.any() else math.nan]))
    with pytest.warns(MinimizeWarning, match="could not be proved"):
        result = minimize_constrained(problem, np.zeros(2), Box(), rng=0)
    assert result.status is ConstrainedStatus.UNCERTAIN
    assert not result.success
    result = minimize_constrained(problem, np.zeros(2), Box(), htol=math.inf, rng=0)
    assert result.status is ConstrainedStatus.FIRST_ORDER
    assert result.success
    assert math.isnan(result.min_eig)
    assert result.nhev == 0


def test_callback_verbose_and_history(capsys):
    problem = classification()
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result)
        if len(seen) == 3:
            raise StopIteration

    result = minimize_constrained(problem, np.zeros(12), Simplex(), callback=stop, verbose=2, rng=0)
    assert result.status is ConstrainedStatus.STOPPED
    assert np.array_equal(result.x, seen[-1].x)
    assert [entry["iteration"] for entry in result.history] == [0, 1, 2]
    keys = {"iteration", "props", "time", "fun", "kkt", "radius", "gradient_sample", "hessian_sample"}
    assert set(result.history[0]) == keys
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1] == result.message == ConstrainedStatus.STOPPED.value


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "constraint must be a Box", {"constraint": (0, 1)}),
        (ValueError, r"x0 must have shape \(12,\)", {"x0": np.ones(3)}),
        (ValueError, "x0 must be finite", {"x0": np.full(12, math.nan)}),
        (TypeError, "x0 must be real", {"x0": 1j * np.ones(12)}),
        (ValueError, r"lower must be a number or have shape \(12,\)", {"constraint": Box(np.zeros(3))}),
        (ValueError, "gtol must be", {"gtol": -1.0}),
        (ValueError, "htol must be", {"htol": -1.0}),
        (ValueError, "alpha must be", {"alpha": 0.0}),
        (ValueError, "radius must be", {"radius": 0.0}),
        (ValueError, "maxiter must be", {"maxiter": -1}),
        (TypeError, "verbose must be", {"verbose": "a"}),
        (ValueError, "hessian_sample must be at least 1", {"hessian_sample": 0}),
        (ValueError, "hessian_sample must be a number of terms or a share", {"hessian_sample": 1.5}),
        (ValueError, "gradient_sample must be finite and greater than 0", {"gradient_sample": 0.0}),
        (TypeError, "gradient_sample must be an integer", {"gradient_sample": "all"}),
        (TypeError, "callback must be callable", {"callback": 3}),
        (TypeError, "rng must be", {"rng": "a"}),
    ],
)
def test_errors(error, message, arguments):
    full = {"x0": np.zeros(12), "constraint": Box(0.0), **arguments}
    with pytest.raises(error, match=message):
        minimize_constrained(classification(), full.pop("x0"), full.pop("constraint"), **full)


def test_start_where_the_function_is_not_finite():
    problem = Smooth(1, lambda x: math.nan, lambda x: x, lambda x: np.eye(1))
    with pytest.raises(ValueError, match="problem must be finite"):
        minimize_constrained(problem, [1.0], Box(), rng=0)


@pytest.mark.parametrize("dense", [True, False])
def test_hessian_that_is_not_finite_is_said(dense):
    spoiled = np.full((3, 3), math.nan)
    how = {"hess": lambda x: spoiled} if dense else {"hessp": lambda x, v: spoiled @ v}
    problem = from_callables(lambda x: x @ x, lambda x: 2 * x, **how)
    with pytest.warns(MinimizeWarning, match="not finite"):
        result = minimize_constrained(problem, np.ones(3), Box(0.5), rng=0)
    assert result.status is ConstrainedStatus.NOT_FINITE
    np.testing.assert_array_equal(result.x, np.ones(3))


@pytest.mark.parametrize("curved", [True, False])
def test_function_without_a_minimum_ends_where_it_is_lowest(curved):
    with np.errstate(over="ignore"):
        problem = from_callables(
            lambda x: -float(x @ x) if curved else -float(x.sum()),
            lambda x: -2 * x if curved else -np.ones(3),
            lambda x, v: -2 * v if curved else 0 * v,
        )
        with pytest.warns(MinimizeWarning):
            result = minimize_constrained(problem, np.ones(3), Box(0.0), rng=0, maxiter=20)
    assert not result.success
    assert result.fun == min(entry["fun"] for entry in result.history) < -1e6


def test_bounds_at_the_ends_of_the_range_of_numbers():
    """Far bounds do not count, and an indefinite model on a huge simplex does not overflow."""
    rng = np.random.default_rng(17)
    M, c = rng.standard_normal((6, 6)), 5 * rng.standard_normal(6)
    H = M @ M.T + 0.1 * np.eye(6)
    problem = from_callables(lambda x: 0.5 * x @ H @ x + c @ x, lambda x: H @ x + c, hess=lambda x: H)
    result = minimize_constrained(problem, 1e6 * rng.standard_normal(6), Box(-1e300, 1e300), gtol=1e-9, rng=0)
    assert result.success
    np.testing.assert_allclose(result.x, -np.linalg.solve(H, c), rtol=1e-7)
    W = M + M.T
    problem = from_callables(lambda x: 0.5 * x @ W @ x, lambda x: W @ x, hess=lambda x: W)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinimizeWarning)
        result = minimize_constrained(problem, rng.standard_normal(6), Simplex(1e100), rng=0)
    assert Simplex(1e100).contains(result.x)
    assert result.fun < 0
