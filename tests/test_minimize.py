"""`minimize` on all terms: every method converges on every loss, to rounding, and sizes of steps follow the ratio."""

import functools
import math

import numpy as np
import pytest
import scipy.optimize
from minimize_problems import ALL, MONKEY, SADDLE, Status, by_model, dense, factorization, glm, quietly, rosenbrock

from randla.optimize import CubicRegularization, Newton, NewtonMR, TrustRegion, from_callables, minimize
from randla.optimize._krylov import Step

LOSSES = ("logistic", "squared_sigmoid", "least_squares", "softplus", "tukey", "huber", "poisson", "softmax", "user")
CONVEX = ("logistic", "least_squares", "huber", "poisson", "softmax")


# Convergence.


@functools.cache
def scipy_minimum(loss, kind):
    problem = glm(loss, kind, "l2")
    found = scipy.optimize.minimize(
        problem.value,
        np.zeros(problem.dim),
        jac=problem.grad,
        hess=lambda x: dense(problem, x),
        method="trust-exact",
        options={"gtol": 1e-6, "maxiter": 500},
    )
    x = found.x
    for _ in range(3):  # to rounding, where scipy's ratio of decreases fails
        x = x - np.linalg.solve(dense(problem, x), problem.grad(x))
    assert np.linalg.norm(problem.grad(x)) < 1e-11
    return x


@pytest.mark.parametrize("kind", ["dense", "csr", "float32"])
@pytest.mark.parametrize("penalty", ["l2", "nonconvex"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_method_converges_on_every_loss(loss, penalty, kind):
    problem = glm(loss, kind, penalty)
    values = []
    for name, method in ALL.items():
        if isinstance(method, Newton) and not (loss in CONVEX and penalty == "l2"):
            continue
        result = minimize(problem, np.zeros(problem.dim), method, gtol=1e-8, htol=1e-5, rng=0, maxiter=3000)
        assert result.status is Status.CONVERGED, name
        assert np.linalg.norm(problem.grad(result.x)) <= 1e-8
        assert result.fun == pytest.approx(problem.value(result.x), rel=1e-12)
        assert np.linalg.eigvalsh(dense(problem, result.x))[0] >= -1e-5
        values.append(result.fun)
        if loss in CONVEX and penalty == "l2":
            np.testing.assert_allclose(result.x, scipy_minimum(loss, kind), atol=2e-6)
    assert len(values) >= 9


def test_known_convexity_spares_the_search_for_negative_curvature():
    problem = glm("logistic", "dense", "l2")
    result = minimize(problem, np.zeros(6), rng=0)
    assert problem.convex
    assert result.min_eig == 0.05
    assert result.min_eig_error == 0.0
    assert result.nhev == sum(entry["products"] for entry in result.history)


@pytest.mark.parametrize("method", [TrustRegion(), CubicRegularization(), NewtonMR(), Newton()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("loss", ["logistic", "least_squares", "poisson"])
@pytest.mark.parametrize("gtol", [1e-11, 1e-15, 0.0])
def test_runs_at_rounding_level_end(loss, gtol, method):
    problem = glm(loss, "dense", "l2")
    result = quietly(problem, np.zeros(6), method, gtol=gtol, htol=1e-6, rng=0)
    assert result.status in (Status.CONVERGED, Status.STAGNATED)
    if gtol == 1e-11:
        assert result.status is Status.CONVERGED
    assert result.nit < 100
    assert result.grad_norm < 1e-12 if gtol == 0 else result.grad_norm < max(gtol, 1e-12) * (1 + 1e-9)


@by_model
def test_callables_at_rounding_level_end(method):
    """Differences of two values round to zero long before the gradient does."""
    for gtol in (1e-11, 0.0):
        result = quietly(rosenbrock(), [-1.2, 1.0, 1.5], method, gtol=gtol, htol=1e-3, rng=0)
        assert result.status in (Status.CONVERGED, Status.STAGNATED)
        np.testing.assert_allclose(result.x, np.ones(3), atol=1e-7)
        assert result.nit < 300


def test_a_minimizer_reached_by_steps_below_rounding_is_a_success():
    """Stagnation is looked for after the tolerances: a run whose last step meets them has not stagnated."""
    problem = glm("logistic", "dense", "l2")
    floor = quietly(problem, np.zeros(6), gtol=0.0, htol=1e-6, rng=0).grad_norm
    for factor in (1.0, 1.5, 3.0, 10.0):
        result = minimize(problem, np.zeros(6), gtol=factor * floor, htol=1e-6, rng=0)
        assert result.status is Status.CONVERGED


# How the sizes follow the ratio.


def test_radius_follows_the_ratio():
    result = minimize(rosenbrock(), [-1.2, 1.0, 1.5], TrustRegion(radius=0.25, max_radius=0.5), rng=0)
    radii = [0.25] + [entry["radius"] for entry in result.history]
    assert max(radii) == 0.5
    for before, after, entry in zip(radii, radii[1:], result.history, strict=False):
        assert entry["accepted"] == (entry["ratio"] >= 1e-4)
        if not entry["accepted"]:
            assert 0.1 * before * (1 - 1e-12) <= after <= 0.5 * before
        elif entry["ratio"] < 0.25:
            assert after <= 0.5 * before
        else:
            assert after in (before, min(2 * before, 0.5))
    assert any(not entry["accepted"] for entry in result.history)


def test_sigma_that_changes_no_step_stays():
    step = Step(np.zeros(2), 1.0, 1.0, 0.0, False, 0.0, 1.0, 1e-2, False, True)
    cubic = CubicRegularization()
    for sigma in (1e-9, 1e-5):
        assert cubic.updated(sigma, 1.0, step, -1.0, -1.0) == sigma
    assert cubic.updated(1.0, 1.0, step, -1.0, -1.0) == 0.2


def test_first_lengths():
    """Of a step along the gradient where F is flat: that of x, at least 1."""
    flat = from_callables(lambda x: 1e-3 * x.sum(), lambda x: np.full(2, 1e-3), hess=lambda x: np.zeros((2, 2)))
    for x0, length in (([3.0, 4.0], 5.0), ([0.1, 0.0], 1.0)):
        for method in ("trust-region", "cubic", "newton-mr"):
            seen = []
            quietly(flat, x0, method, maxiter=1, rng=0, callback=lambda state, seen=seen: seen.append(state.x))
            moved = np.linalg.norm(seen[0] - x0)
            # Line searches go on where F falls.
            assert (
                moved == pytest.approx(length)
                if method != "newton-mr"
                else math.log2(moved / length) % 1 == pytest.approx(0, abs=1e-9)
            )


def test_sigma_follows_the_ratio():
    result = minimize(rosenbrock(), [-1.2, 1.0, 1.5], CubicRegularization(sigma=1e-3, increase=3.0), rng=0)
    sigmas = [1e-3] + [entry["sigma"] for entry in result.history]
    for before, after, entry in zip(sigmas, sigmas[1:], result.history, strict=False):
        if not entry["accepted"]:
            assert after >= 3 * before
        elif entry["ratio"] < 0.25:
            assert before <= after <= 3 * before
        elif entry["ratio"] >= 0.8:
            assert 0.2 * before <= after <= max(before, 0.5 * before)
        else:
            assert after == before
    assert any(not entry["accepted"] for entry in result.history)
    least = minimize(rosenbrock(), [-1.2, 1.0, 1.5], CubicRegularization(sigma=1.0, least=0.5), rng=0)
    assert min(entry["sigma"] for entry in least.history) == 0.5


@by_model
def test_rejected_steps_take_no_products(method):
    """Also from starts with a radius far too large, or a weight far too small."""
    first = {"radius": 1e6} if isinstance(method, TrustRegion) else {"sigma": 1e-8}
    for problem, x0 in (
        (rosenbrock(), [-1.2, 1.0, 1.5]),
        (MONKEY, [0.3, 0.2]),
        (SADDLE, [0.0, 0.0]),
        (factorization(), np.ones(14)),
    ):
        result = minimize(problem, x0, type(method)(subproblem=method.subproblem, **first), rng=0)
        rejected = [k for k, entry in enumerate(result.history) if not entry["accepted"]]
        assert rejected
        for k in rejected:
            assert result.history[k + 1]["products"] == 0
