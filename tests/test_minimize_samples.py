"""Where runs of `minimize` on samples end: samples that grow arrive at all terms, and trouble is called by name."""

import functools
import itertools
import math

import numpy as np
import pytest
from minimize_problems import Status, quietly
from sampled_runs import SAMPLES, data, glm, modes, run_mode

from randla.optimize import (
    GLM,
    CubicRegularization,
    DecreaseTest,
    GradientChange,
    Loss,
    MinimizeWarning,
    NormTest,
    StepRule,
    minimize,
)
from randla.optimize._samples import RowOrder

GROWING = ("adaptive", "adaptive gradient", "adaptive, fraction", "norm", "inner product", "step", "decrease")


@pytest.mark.parametrize("method", ["trust-region", "cubic", "newton-mr", "newton"])
@modes
def test_samples_that_grow_end_with_success(mode, method):
    """Samples of fixed size stall, which is said; those that grow with the error of the gradient arrive at all terms."""
    problem = glm("logistic", l2=1e-3) if method == "newton" else glm()
    result = run_mode(problem, method, mode)
    whole = SAMPLES[mode][0] is None and mode != "hessian, few"  # singular, so that progress is slow
    if whole or mode in GROWING or (mode == "dynamic" and method != "cubic"):
        assert result.status is Status.CONVERGED
        assert result.history[-1]["gradient_sample"] == 5000
        assert np.linalg.norm(problem.grad(result.x)) <= 1e-7
        assert result.fun == pytest.approx(optimum(method == "newton"), rel=1e-9)
    elif result.success:
        assert np.linalg.norm(problem.grad(result.x)) <= 1e-7
    else:
        assert result.status in (Status.ITERATION_LIMIT, Status.SAMPLED, Status.STAGNATED)
        # Near: the error of a mean of a few hundred terms.
        assert problem.value(result.x) < optimum(method == "newton") + 5e-2


@functools.cache
def optimum(convex):
    result = minimize(glm("logistic", l2=1e-3) if convex else glm(), np.zeros(12), gtol=1e-10, htol=1e-7, rng=0)
    assert result.success
    return result.fun


@pytest.mark.parametrize("sampling", ["row-norm", "leverage"])
@pytest.mark.parametrize("method", ["trust-region", "cubic", "newton-mr"])
@pytest.mark.parametrize("mode", ["hessian", "adaptive", "adaptive, fraction", "norm"])
def test_sampling_by_importance_converges(mode, method, sampling):
    result = run_mode(glm(), method, mode, sampling=sampling)
    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(optimum(False), rel=1e-9)


@pytest.mark.parametrize("function", ["all", "gradient"])
@pytest.mark.parametrize("mode", ["adaptive", "norm", "step", "decrease", "dynamic"])
def test_values_of_all_terms_or_of_the_sample_decide(mode, function):
    result = run_mode(glm(), "trust-region", mode, function_sample=function)
    assert result.status is Status.CONVERGED
    if function == "all":
        funs = [glm().value(np.zeros(12))] + [entry["fun"] for entry in result.history]
        assert all(after <= before + 1e-14 for before, after in itertools.pairwise(funs))


@pytest.mark.parametrize("function", ["all", "gradient"])
def test_samples_too_small_for_gtol_are_called_so(function):
    """From the minimizer of the first sample."""
    problem = glm()
    rows = RowOrder(5000, 4).order[:300]
    x = minimize(GLM(problem.X[rows], problem.y[rows], "squared_sigmoid"), np.zeros(12), gtol=1e-8, rng=0).x
    with pytest.warns(MinimizeWarning, match="the samples asked for are too small"):
        result = minimize(problem, x, gradient_sample=300, function_sample=function, gtol=1e-6, rng=4)
    assert result.status is Status.SAMPLED
    assert result.nit == 0
    # What is reported is of the whole sum.
    assert result.grad_norm == pytest.approx(np.linalg.norm(problem.grad(x)))
    assert result.grad_norm > 1e-3
    assert result.fun == pytest.approx(problem.value(x))


@pytest.mark.parametrize("rule", [40, NormTest(), StepRule()], ids=str)
def test_runs_at_rounding_level_end_on_samples(rule):
    """All terms are the same, so that a sample has the gradient of the sum."""
    X = np.tile(np.array([[1.0, 0.3]]), (400, 1))
    problem = GLM(X, np.full(400, 0.3), "softplus", 0.1)
    for method in ("trust-region", "cubic", "newton-mr"):
        result = quietly(problem, np.ones(2), method, gradient_sample=rule, gtol=0.0, htol=1e-6, rng=0, maxiter=300)
        assert result.status in (Status.STAGNATED, Status.CONVERGED, Status.SAMPLED)
        assert result.nit < 100
        assert np.linalg.norm(problem.grad(result.x)) < 1e-15


def test_a_small_gradient_of_a_growing_sample_leads_to_all_terms():
    problem = glm()
    for rule in (NormTest(), GradientChange(), StepRule(), DecreaseTest()):
        result = quietly(problem, np.zeros(12), gradient_sample=rule, gtol=2e-2, rng=0)
        assert result.status is Status.CONVERGED
        assert np.linalg.norm(problem.grad(result.x)) <= 2e-2


@pytest.mark.parametrize("method", ["trust-region", "cubic", "newton-mr", CubicRegularization(subproblem="exact")], ids=str)
@pytest.mark.parametrize("mode", ["all", "hessian", "adaptive", "norm", "step"])
def test_saddles_are_left_on_samples(mode, method):
    """The sum of cos(a_i'x): at 0 the gradient of every sample is zero, and F has its maximum."""
    loss = Loss(lambda z, y: np.cos(z - y), lambda z, y: -np.sin(z - y), lambda z, y: -np.cos(z - y))
    X = np.random.default_rng(0).standard_normal((2000, 5))
    problem = GLM(X, np.zeros(2000), loss, l2=0.01)
    result = run_mode(problem, method, mode)
    assert result.status is Status.CONVERGED
    assert result.fun < 0.5
    assert np.linalg.eigvalsh(problem.hessian(result.x).to_dense())[0] >= -math.sqrt(1e-7)


def test_terms_that_are_not_finite_beside_a_sample():
    """F is finite on the first sample and where a step leads, but not on the samples that follow."""
    bad = {"on": False}

    def value(z, y):
        return (z - y) ** 2

    def first(z, y):
        return 2 * (z - y) * (math.nan if bad["on"] else 1.0)

    problem = GLM(*data(1500, 6), Loss(value, first, lambda z, y: np.full_like(z, 2.0)))

    def spoil(state):
        bad["on"] = True

    for rule in (100, NormTest(), "adaptive"):
        bad["on"] = False
        with pytest.warns(MinimizeWarning, match="not finite"):
            result = minimize(problem, np.ones(6), gradient_sample=rule, function_sample="all", callback=spoil, rng=0)
        assert result.status is Status.NOT_FINITE
        assert math.isfinite(result.fun)


@pytest.mark.parametrize("sampling", ["row-norm", "leverage"])
def test_nothing_to_draw(sampling):
    """Huber's loss, all terms linear: the Hessian of the data is zero."""
    X = np.random.default_rng(0).standard_normal((400, 3))
    problem = GLM(X, np.full(400, 1e3), "huber", 1e-2)
    result = quietly(problem, np.zeros(3), hessian_sample=50, sampling=sampling, rng=0, maxiter=50)
    assert math.isfinite(result.fun)
    assert result.success


def test_curvature_that_is_not_finite_ends_runs_on_samples():
    """A loss whose second derivative overflows where its value does not."""
    loss = Loss(
        value=lambda z, y: (z - y) ** 2,
        first=lambda z, y: 2 * (z - y),
        second=lambda z, y: np.where(np.abs(z) < 0.5, np.nan, 2.0),
    )
    X, y = data(1500, 6)
    for sampling in ("uniform", "row-norm", "leverage"):
        for method in ("trust-region", "cubic", "newton-mr", "newton", CubicRegularization(subproblem="exact")):
            for sample in (None, 0.2):
                with pytest.warns(MinimizeWarning):
                    result = minimize(GLM(X, y, loss), np.zeros(6), method, hessian_sample=sample, sampling=sampling, rng=0)
                assert result.status is Status.NOT_FINITE
                assert result.nit == 0
