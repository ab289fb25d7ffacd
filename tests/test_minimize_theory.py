"""`minimize` on samples against theory: conditions on Hessians, bounds of iterations, and passes that samples spare."""

import itertools
import math

import numpy as np
import problems
import pytest
import scipy.optimize
from minimize_problems import Status, network, quietly
from sampled_runs import glm

from randla.optimize import GLM, from_callables, hessian_condition, minimize


def test_relaxed_hessian_condition_holds_where_the_old_one_fails():
    """Along a run with a sample of fixed size: ||(H_S - H) s|| / ||s|| stays bounded, / ||s||^2 grows as s goes to 0."""
    problem, points = glm(), [np.zeros(12)]
    minimize(
        problem, points[0], hessian_sample=0.05, rng=2, gtol=1e-9, htol=1e-6, callback=lambda state: points.append(state.x)
    )
    idx = np.random.default_rng(0).choice(5000, 250, replace=False)
    steps = [(x, y - x) for x, y in itertools.pairwise(points) if not np.array_equal(x, y)]
    conditions = [hessian_condition(problem, x, s, idx) for x, s in steps]
    lengths = np.array([np.linalg.norm(s) for _, s in steps])
    assert lengths[-1] < 1e-6 * lengths[0]
    linear = np.array([c.linear for c in conditions])
    # Matrix Bernstein, failure 1e-3: sqrt(2 log(2 d / failure) K^2 / |S|), K the largest ||hess f_i||, at most .25 ||a_i||^2.
    K = 0.25 * np.max(np.sum(problem.X**2, axis=1))
    assert linear.max() <= math.sqrt(2 * math.log(24 / 1e-3) / 250) * K
    quadratic = np.array([c.quadratic for c in conditions])
    assert quadratic[-1] > 1e5 * quadratic[0]
    shrinking = np.flatnonzero(lengths[1:] < 0.5 * lengths[:-1])
    assert len(shrinking) >= 8
    grew = quadratic[shrinking + 1] > quadratic[shrinking]
    assert grew.mean() >= 0.75


def rosenbrock():
    so = scipy.optimize
    return from_callables(so.rosen, so.rosen_der, hess=so.rosen_hess), np.array([-1.2, 1.0, -0.5, 0.8])


EPS = np.logspace(-1, -7, 7)


@pytest.mark.parametrize("name", ["rosenbrock", "glm", "network"])
@pytest.mark.parametrize("method", ["trust-region", "cubic"])
def test_iterations_stay_below_the_bound(name, method):
    """T <= C max(eps_g^-2 eps_H^-1, eps_H^-3), or C max(eps_g^-2, eps_H^-3), C fitted at the largest eps; T grows as log."""
    problem, x0 = {
        "rosenbrock": rosenbrock,
        "glm": lambda: (glm(), np.full(12, 0.5)),
        "network": lambda: (network(), np.zeros(16)),
    }[name]()
    counts = []
    for eps in EPS:
        result = minimize(problem, x0, method, gtol=eps, htol=math.sqrt(eps), rng=0)
        assert result.success
        counts.append(result.nit)
    first = np.maximum(EPS**-2.5, EPS**-1.5) if method == "trust-region" else np.maximum(EPS**-2, EPS**-1.5)
    C = max(counts[0], 1) / first[0]
    assert all(count <= C * bound for count, bound in zip(counts, first, strict=True))
    assert counts == sorted(counts)
    assert counts[-1] <= max(counts[1], 5) + 60


@pytest.mark.parametrize("method", ["trust-region", "cubic"])
def test_subsampled_and_exact_iterations_are_within_a_factor_of_three(method):
    exact = minimize(glm(), np.zeros(12), method, rng=0).nit
    for seed in range(3):
        assert minimize(glm(), np.zeros(12), method, hessian_sample=0.1, rng=seed).nit <= 3 * exact
        adaptive = minimize(glm(), np.zeros(12), method, gradient_sample="adaptive", hessian_sample="adaptive", rng=seed)
        assert adaptive.nit <= 3 * exact


@pytest.mark.parametrize("method", ["trust-region", "cubic"])
def test_approximate_everything(method):
    """Samples of 5 % of the Hessian take at most a third of the passes; gradients of 20 % stall where theory says so."""
    problem = glm(n=20_000, d=22)
    x0 = np.zeros(22)
    full = minimize(problem, x0, method, gtol=1e-5, rng=0)
    five = minimize(problem, x0, method, hessian_sample=0.05, gtol=1e-5, rng=0)
    assert full.success
    assert five.success
    passes = [run.history[-1]["props"] for run in (full, five)]
    assert passes[1] < passes[0] / 3
    one = minimize(problem, x0, method, hessian_sample=0.01, gtol=1e-5, rng=0)
    assert one.success
    assert one.nit > five.nit > full.nit
    adaptive = minimize(problem, x0, method, gradient_sample="adaptive", hessian_sample="adaptive", gtol=1e-5, rng=0)
    assert adaptive.success
    assert adaptive.history[-1]["props"] < passes[0] / 4
    stalled = quietly(problem, x0, method, gradient_sample=0.2, hessian_sample=0.05, gtol=1e-5, maxiter=100, rng=0)
    assert not stalled.success
    # sqrt(tr Var / |S|), within a factor of ten
    p = 1 / (1 + np.exp(-(problem.X @ stalled.x)))
    G = (2 * (p - problem.y) * p * (1 - p))[:, None] * problem.X
    error = math.sqrt(np.sum(np.var(G, axis=0)) / 4000)
    assert error / 10 < np.linalg.norm(problem.grad(stalled.x)) < 10 * error


@pytest.mark.parametrize("method", ["trust-region", "cubic"])
@pytest.mark.parametrize("seed", range(3))
def test_ijcnn1(seed, method):
    X, y = problems.ijcnn1()
    problem = GLM(X, (y > 0).astype(float), "squared_sigmoid")
    x0 = np.random.default_rng(seed).standard_normal(22) / math.sqrt(22)
    best, props = 0.0515484, []

    def watch(state):
        if not props and problem.value(state.x) <= 1.0001 * best:
            props.append(state.props)

    result = minimize(
        problem, x0, method, gradient_sample="adaptive", hessian_sample="adaptive", gtol=1e-7, callback=watch, rng=seed
    )
    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(best, abs=1e-6)
    assert np.linalg.eigvalsh(problem.hessian(result.x).to_dense())[0] >= -math.sqrt(1e-7)
    assert props[0] < 60 * problem.n
