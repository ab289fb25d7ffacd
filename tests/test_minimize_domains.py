"""`minimize` where values are not finite, functions have no minimizer, or units are extreme."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.optimize
from minimize_problems import ALL, Status, by_model, escaping, every, quietly, rosenbrock

from randla.optimize import MinimizeWarning, Newton, TrustRegion, from_callables, minimize


def barrier(kind):
    """Functions that are defined on a part of the space only, and their minimizers."""

    def guarded(function):
        @functools.wraps(function)
        def run(*args):
            with np.errstate(all="ignore"):
                return function(*args)

        return run

    if kind == "log":
        functions = (lambda x: np.sum(x - np.log(x)), lambda x: 1 - 1 / x, lambda x: np.diag(1 / x**2))
        return from_callables(*map(guarded, functions[:2]), hess=guarded(functions[2])), np.array([1e-3, 40.0]), np.ones(2)
    if kind == "sqrt":
        functions = (
            lambda x: np.sum(-np.sqrt(1 - x * x) + 0.5 * x),
            lambda x: x / np.sqrt(1 - x * x) + 0.5,
            lambda x: np.diag((1 - x * x) ** -1.5),
        )
        return (
            from_callables(*map(guarded, functions[:2]), hess=guarded(functions[2])),
            np.array([0.999, -0.99]),
            np.full(2, -(0.2**0.5)),
        )
    functions = (
        lambda x: np.sum(np.exp(x * x) + np.exp(-30 * x)),
        lambda x: 2 * x * np.exp(x * x) - 30 * np.exp(-30 * x),
        lambda x: np.diag((2 + 4 * x * x) * np.exp(x * x) + 900 * np.exp(-30 * x)),
    )
    root = scipy.optimize.brentq(lambda t: 2 * t * math.exp(t * t) - 30 * math.exp(-30 * t), 0, 1, xtol=1e-15)
    return from_callables(*map(guarded, functions[:2]), hess=guarded(functions[2])), np.array([-1.5, 3.0]), np.full(2, root)


@every
@pytest.mark.parametrize("kind", ["log", "sqrt", "overflow"])
def test_trial_points_outside_the_domain_are_rejected(kind, method):
    problem, x0, expected = barrier(kind)
    result = minimize(problem, x0, method, rng=0)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.x, expected, atol=1e-5)
    assert all(math.isfinite(entry["fun"]) for entry in result.history)


@by_model
def test_a_step_out_of_the_domain_costs_a_value_and_no_product(method):
    """From far inside a ball of radius 1e3 the first steps leave the domain of the logarithm."""
    problem, _, expected = barrier("log")
    first = {"radius": 1e3} if isinstance(method, TrustRegion) else {"sigma": 1e-9}
    result = minimize(problem, [30.0, 40.0], type(method)(subproblem=method.subproblem, **first), rng=0)
    assert result.history[0]["ratio"] == -math.inf
    assert not result.history[0]["accepted"]
    for entry, following in itertools.pairwise(result.history):
        if not entry["accepted"]:
            assert following["products"] == 0
            assert following["props"] == entry["props"] + (3 if following["accepted"] else 1)
    np.testing.assert_allclose(result.x, expected, atol=1e-5)


def broken(part, after):
    """x'x, of which the value, the gradient or the Hessian is not finite within a distance of 0."""

    def spoil(name, value, x):
        if name != part.split()[0] or np.linalg.norm(x) > after:
            return value
        return value * math.nan if part == name else value + np.diag([math.inf, 0.0])

    return from_callables(
        lambda x: spoil("fun", float(x @ x), x),
        lambda x: spoil("grad", 2 * x, x),
        hess=lambda x: spoil("hess", 2 * np.eye(len(x)), x),
    )


@every
@pytest.mark.parametrize("part", ["fun", "grad", "hess", "hess inf"])
@pytest.mark.parametrize("after", [10.0, 3.0])
def test_points_that_are_not_finite_end_the_run(part, after, method):
    """At the start, and at a point that is reached; a value that is not finite is never reached."""
    x0 = np.array([3.0, 4.0])
    with pytest.warns(MinimizeWarning):
        result = minimize(broken(part, after), x0, method, rng=0, maxiter=200)
    assert not result.success
    if part == "fun" and after < 5:
        # Values that end at a wall of NaN: the steps towards it become too small.
        assert result.status in (Status.STAGNATED, Status.ITERATION_LIMIT)
        assert np.linalg.norm(result.x) > after
    else:
        assert result.status is Status.NOT_FINITE
        assert math.isnan(result.min_eig)
    if after > 5:
        assert result.nit == 0
        np.testing.assert_array_equal(result.x, x0)


def test_not_finite_hessian_at_a_point_of_small_gradient():
    for method in ALL.values():
        with pytest.warns(MinimizeWarning, match="not finite"):
            result = minimize(broken("hess", 10.0), [0.0, 0.0], method, rng=0)
        assert result.status is Status.NOT_FINITE


@every
@pytest.mark.parametrize("name", ["downwards", "linear", "cubic"])
def test_unbounded_functions_end(name, method):
    problems = {
        "downwards": (lambda x: -float(x @ x), lambda x: -2 * x, lambda x: -2 * np.eye(2)),
        "linear": (lambda x: float(x.sum()), lambda x: np.ones(2), lambda x: np.zeros((2, 2))),
        "cubic": (lambda x: float(np.sum(x**3)), lambda x: 3 * x * x, lambda x: np.diag(6 * x)),
    }
    fun, grad, hess = problems[name]
    with np.errstate(all="ignore"):
        result = quietly(from_callables(fun, grad, hess=hess), [-1.0, -2.0], method, rng=0, maxiter=1500)
    assert not result.success
    assert math.isfinite(result.fun)
    if isinstance(method, Newton):
        assert result.status is Status.INDEFINITE
    else:
        assert result.status in (Status.ITERATION_LIMIT, Status.STAGNATED)
        assert result.fun < -1e100


@escaping
def test_the_unit_of_the_function_does_not_matter(method):
    x0, runs = np.array([-1.2, 1.0, 1.5]), []
    for unit in (1.0, 2.0**-400, 2.0**400):
        runs.append(minimize(rosenbrock(unit), x0, method, gtol=1e-6 * unit, htol=1e-3 * unit, rng=0))
        require = runs[-1].status is Status.CONVERGED
        assert require, (unit, runs[-1].status)
        np.testing.assert_allclose(runs[-1].x, np.ones(3), atol=1e-5)
    assert max(run.nit for run in runs) <= min(run.nit for run in runs) + 12


@every
def test_extreme_units_neither_crash_nor_hang(method):
    for unit in (1e-305, 1e-200, 1e150, 1e200, 1e304):
        with np.errstate(all="ignore"):
            result = quietly(rosenbrock(unit), [-1.2, 1.0, 1.5], method, gtol=1e-6 * unit, htol=1e-3 * unit, rng=0, maxiter=60)
        assert math.isfinite(result.fun)
        if result.success:
            np.testing.assert_allclose(result.x, np.ones(3), atol=1e-5)
