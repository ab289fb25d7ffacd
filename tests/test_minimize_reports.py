"""Limits of `minimize`, what a run reports, and arguments that it refuses."""

import itertools

import numpy as np
import pytest
from minimize_problems import MONKEY, SADDLE, Status, dense, every, glm, network, quietly, rosenbrock

from randla.optimize import (
    CubicRegularization,
    DynamicAccuracy,
    MinimizeResult,
    MinimizeWarning,
    Newton,
    NewtonMR,
    NormTest,
    StepRule,
    TrustRegion,
    from_callables,
    minimize,
)


@every
def test_no_iterations(method):
    problem = glm("logistic", "dense", "l2")
    with pytest.warns(MinimizeWarning, match="iteration limit"):
        result = minimize(problem, np.zeros(6), method, maxiter=0)
    assert result.status is Status.ITERATION_LIMIT
    assert (result.nit, result.history) == (0, [])
    assert result.props == 2 * problem.n
    # At a minimizer the run is a success all the same.
    x = minimize(problem, np.zeros(6), method, gtol=1e-9).x
    assert minimize(problem, x, method, maxiter=0, gtol=1e-8).status is Status.CONVERGED


@every
def test_limits(method):
    problem = glm("logistic", "dense", "l2")
    with pytest.warns(MinimizeWarning):
        result = minimize(problem, np.zeros(6), method, maxiter=2, gtol=1e-12, rng=0)
    assert (result.status, result.nit, len(result.history)) == (Status.ITERATION_LIMIT, 2, 2)
    limit = result.history[0]["props"]
    with pytest.warns(MinimizeWarning, match="props"):
        result = minimize(problem, np.zeros(6), method, max_props=limit, gtol=1e-12, rng=0)
    assert result.status is Status.PROPS_LIMIT
    assert result.history[-1]["props"] > limit >= result.history[-2]["props"]
    with pytest.warns(MinimizeWarning, match="time"):
        result = minimize(problem, np.zeros(6), method, max_time=0, gtol=1e-12, rng=0)
    assert (result.status, result.nit) == (Status.TIME_LIMIT, 1)


def test_the_last_point_is_asked_before_the_limits():
    """A quadratic is minimized by the first step, at which the iterations, and the props, are used up."""
    problem = from_callables(lambda x: float(x @ x), lambda x: 2 * x, hess=lambda x: 2 * np.eye(2), dim=2)
    result = minimize(problem, [1.0, 0.0], TrustRegion(radius=10), maxiter=1)
    assert (result.status, result.nit) == (Status.CONVERGED, 1)


def test_min_eig_is_found_at_the_end_of_every_run():
    problem, x0 = MONKEY, np.array([0.3, 0.0])
    for limit in ({"maxiter": 0}, {"maxiter": 3}, {"max_props": 10}):
        result = quietly(problem, x0, rng=0, **limit)
        lowest = np.linalg.eigvalsh(dense(problem, result.x))[0]
        assert result.min_eig == pytest.approx(lowest)
        assert 0 <= result.min_eig_error < 1e-12


def test_callback():
    problem = glm("squared_sigmoid", "dense", "none")
    seen = []
    result = minimize(problem, np.zeros(6), callback=seen.append, rng=0)
    assert len(seen) == result.nit == len(result.history)
    for k, state in enumerate(seen, 1):
        assert isinstance(state, MinimizeResult)
        assert state.nit == k
        assert state.fun == pytest.approx(problem.value(state.x), rel=1e-13)
        np.testing.assert_allclose(state.jac, problem.grad(state.x), rtol=1e-9, atol=1e-15)
        assert state.grad_norm == pytest.approx(np.linalg.norm(state.jac), rel=1e-14)
        assert state.props == result.history[k - 1]["props"]
    # What the callback does to the arrays is its own business.
    spoilt = minimize(problem, np.zeros(6), callback=lambda state: (state.x.fill(9.0), state.jac.fill(9.0)), rng=0)
    np.testing.assert_array_equal(spoilt.x, result.x)

    def stop(state):
        if state.nit == 3:
            raise StopIteration

    stopped = minimize(problem, np.zeros(6), callback=stop, rng=0)  # and no warning
    assert (stopped.status, stopped.nit, stopped.success) == (Status.STOPPED, 3, False)

    def fail(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        minimize(problem, np.zeros(6), callback=fail)


def test_errors_of_functions_are_not_swallowed():
    def fail(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize(from_callables(fail, lambda x: x, lambda x, v: v), [1.0])


@every
def test_history(method):
    problem = glm("logistic", "dense", "l2")
    result = minimize(problem, np.ones(6), method, rng=0)
    size = {"TrustRegion": "radius", "CubicRegularization": "sigma"}.get(type(method).__name__, "step")
    keys = {
        "iteration",
        "props",
        "time",
        "fun",
        "grad_norm",
        "gradient_sample",
        "hessian_sample",
        "ratio",
        "accepted",
        "products",
    }
    assert all(set(entry) == keys | {size} for entry in result.history)
    assert [entry["iteration"] for entry in result.history] == list(range(1, result.nit + 1))
    for name in ("props", "time"):
        values = [entry[name] for entry in result.history]
        assert values == sorted(values)
        assert values[0] > 0
    assert result.history[-1]["fun"] == result.fun
    assert result.history[-1]["grad_norm"] == result.grad_norm
    assert {entry["gradient_sample"] for entry in result.history} == {problem.n}
    assert {entry["hessian_sample"] for entry in result.history} == {problem.n}
    assert sum(entry["products"] for entry in result.history) == result.nhev
    funs = [problem.value(np.ones(6))] + [entry["fun"] for entry in result.history]
    assert all(after <= before + 1e-15 for before, after in itertools.pairwise(funs))
    assert result.message == result.status.value
    assert result["x"] is result.x


def test_verbose(capsys):
    problem = glm("logistic", "dense", "l2")
    silent = minimize(problem, np.zeros(6), rng=0)
    assert capsys.readouterr().out == ""
    minimize(problem, np.zeros(6), verbose=1, rng=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    for word in (silent.message, f"{silent.nit} iterations", "props", "F = "):
        assert word in lines[0]
    minimize(rosenbrock(), [-1.2, 1.0], "cubic", verbose=2, rng=0)
    head, *table, end = capsys.readouterr().out.splitlines()
    assert "sigma" in head
    assert f"{len(table)} iterations" in end
    assert any("rejected" in line for line in table)
    assert [int(line.split()[0]) for line in table] == list(range(1, len(table) + 1))
    assert all(len(line) <= 110 for line in (head, *table))


def test_success_is_a_property_of_the_status():
    assert {status for status in Status if status.success} == {Status.CONVERGED, Status.FIRST_ORDER}


def test_start_is_not_changed_and_may_be_of_integers():
    x0 = np.array([-1, 1, 2])
    result = minimize(rosenbrock(), x0, rng=0)
    assert x0.tolist() == [-1, 1, 2]
    assert result.x.dtype == np.float64
    np.testing.assert_array_equal(minimize(rosenbrock(), [-1.0, 1.0, 2.0], rng=0).x, result.x)


LOGISTIC = glm("logistic", "dense", "l2")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"problem": lambda x: 0.0}, TypeError, "problem must be a FiniteSum"),
        ({"x0": np.zeros(5)}, ValueError, r"x0 must have shape \(6,\); got \(5,\)"),
        ({"x0": np.zeros((6, 1))}, ValueError, r"got \(6, 1\)"),
        ({"x0": np.zeros(6, complex)}, TypeError, "x0 must be real"),
        ({"x0": np.full(6, np.nan)}, ValueError, "x0"),
        ({"method": "adam"}, ValueError, "method must be one of trust-region, cubic, newton, newton-mr.*'adam'"),
        ({"method": 3}, TypeError, "method must be one of.*3"),
        ({"method": TrustRegion}, TypeError, "method must be one of"),
        ({"sampling": "random"}, ValueError, "sampling must be 'uniform', 'row-norm' or 'leverage'; got 'random'"),
        ({"function_sample": "some"}, ValueError, "function_sample must be None, 'all' or 'gradient'; got 'some'"),
        ({"gradient_sample": "all"}, ValueError, "gradient_sample must be 'adaptive'"),
        ({"hessian_sample": 1.5}, ValueError, "hessian_sample must be a fraction"),
        ({"hessian_sample": 0}, ValueError, "hessian_sample"),
        ({"gradient_sample": 151}, ValueError, "gradient_sample"),
        ({"gradient_sample": [1, 2]}, TypeError, "gradient_sample must be None, an integer, a fraction"),
        ({"gtol": -1}, ValueError, "gtol"),
        ({"gtol": np.nan}, ValueError, "gtol"),
        ({"htol": -1e-3}, ValueError, "htol"),
        ({"htol": "small"}, TypeError, "htol"),
        ({"maxiter": -1}, ValueError, "maxiter"),
        ({"maxiter": 2.5}, TypeError, "maxiter"),
        ({"max_props": -1}, ValueError, "max_props"),
        ({"max_time": "long"}, TypeError, "max_time"),
        ({"callback": 3}, TypeError, "callback must be callable or None; got 3"),
        ({"verbose": 3}, ValueError, "verbose"),
        ({"rng": "seed"}, (TypeError, ValueError), "rng"),
    ],
)
def test_unsuitable_arguments(change, error, match):
    arguments = {"problem": LOGISTIC, "x0": np.zeros(6)} | change
    with pytest.raises(error, match=match):
        minimize(**arguments)


def test_start_of_a_problem_of_unknown_dimension():
    with pytest.raises(ValueError, match=r"x0 must have shape \(dim,\); got \(0,\)"):
        minimize(SADDLE, [])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("gradient_sample", "adaptive"),
        ("gradient_sample", NormTest()),
        ("hessian_sample", NormTest()),
        ("hessian_sample", DynamicAccuracy()),
        ("sampling", "row-norm"),
        ("sampling", "leverage"),
    ],
)
def test_rules_that_look_at_terms_need_a_problem_that_knows_them(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .*_Callables"):
        minimize(network(), np.zeros(16), **{argument: value})
    minimize(network(), np.zeros(16), hessian_sample=StepRule(), rng=0)


@pytest.mark.parametrize(
    ("make", "arguments", "match"),
    [
        (TrustRegion, {"radius": 0.0}, "radius"),
        (TrustRegion, {"max_radius": 0.0}, "max_radius"),
        (TrustRegion, {"max_radius": np.nan}, "max_radius"),
        (
            TrustRegion,
            {"subproblem": "lanczos"},
            "subproblem must be one of gltr, steihaug, block, shifted, exact; got 'lanczos'",
        ),
        (TrustRegion, {"grow": 0.5}, "grow"),
        (TrustRegion, {"accept": 0.0}, "accept"),
        (TrustRegion, {"good": 1.0}, "good must be less than 1"),
        (TrustRegion, {"accept": 0.9}, "good must be greater than accept; got 0.8 and 0.9"),
        (TrustRegion, {"forcing": 2.0}, "forcing must be less than 1; got 2"),
        (CubicRegularization, {"sigma": -1.0}, "sigma"),
        (CubicRegularization, {"subproblem": "gltr"}, "subproblem must be one of lanczos, block, shifted, exact, gradient"),
        (CubicRegularization, {"increase": 1.0}, "increase must be greater than 1; got 1.0"),
        (CubicRegularization, {"decrease": 1.0}, "decrease must be less than 1; got 1.0"),
        (CubicRegularization, {"least": -1.0}, "least"),
        (Newton, {"q": 5}, "q must be between 2 and 4 or None; got 5"),
        (Newton, {"constant": -1.0}, "constant"),
        (Newton, {"forcing": 1.0}, "forcing must be less than 1"),
        (NewtonMR, {"forcing": 1.0}, "forcing must be less than 1"),
    ],
)
def test_unsuitable_methods(make, arguments, match):
    with pytest.raises(ValueError, match=match):
        make(**arguments)


def test_methods_are_values():
    assert TrustRegion() == TrustRegion(subproblem="gltr")
    assert "cubic" not in repr(TrustRegion(radius=2.0))
    with pytest.raises(AttributeError):
        TrustRegion().radius = 3.0
