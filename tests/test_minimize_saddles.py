"""`minimize` at saddle points: they are left, success is proved, and methods that cannot leave them say so."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from minimize_problems import MONKEY, SADDLE, Status, dense, escaping, every, factorization, network

from randla.optimize import CubicRegularization, MinimizeWarning, TrustRegion, from_callables, minimize


def require_second_order(problem, result, gtol, htol):
    """Success, and the proof done again with LAPACK."""
    assert result.status is Status.CONVERGED, result.status
    assert result.success
    assert np.linalg.norm(problem.grad(result.x)) <= gtol * (1 + 1e-10)
    lowest = np.linalg.eigvalsh(dense(problem, result.x))[0]
    assert lowest >= -htol - 1e-12
    assert result.min_eig - result.min_eig_error <= lowest + 1e-12
    assert result.min_eig >= lowest - 1e-10 * max(1.0, abs(lowest))


NESTEROV = from_callables(
    lambda x: 0.5 * x[0] ** 2 + 0.25 * x[1] ** 4 - 0.5 * x[1] ** 2,
    lambda x: np.array([x[0], x[1] ** 3 - x[1]]),
    lambda x, v: np.array([v[0], (3 * x[1] ** 2 - 1) * v[1]]),
)


def chain(dim=60, coupling=0.3):
    """Double wells coupled to their neighbours: 0 is a saddle with many directions down."""
    L = sp.diags_array([-np.ones(dim - 1), np.full(dim, 2.0), -np.ones(dim - 1)], offsets=[-1, 0, 1], format="csr")
    return from_callables(
        lambda x: 0.25 * np.sum((x * x - 1) ** 2) + 0.5 * coupling * float(x @ (L @ x)),
        lambda x: x**3 - x + coupling * (L @ x),
        hess=lambda x: (coupling * L + sp.diags_array(3 * x * x - 1)).tocsr(),
    )


SADDLES = {
    "saddle seen by no gradient": (SADDLE, [1.0, 0.0], -0.25),
    "at the saddle": (SADDLE, [0.0, 0.0], -0.25),
    "barely beside": (SADDLE, [1.0, 1e-12], -0.25),
    "monkey": (MONKEY, [0.3, 0.0], -27 / 256),
    "monkey, barely beside": (MONKEY, [1e-4, 1e-9], None),
    "nesterov": (NESTEROV, [1.0, 0.0], -0.25),
    "factorization": (factorization(), np.zeros(14), 0.0),
    "chain": (chain(), np.zeros(60), None),
    "network": (network(), np.zeros(16), None),
}


@escaping
@pytest.mark.parametrize("name", SADDLES)
def test_saddles_are_left(name, method):
    problem, x0, expected = SADDLES[name]
    start = problem.value(np.array(x0))
    result = minimize(problem, x0, method, gtol=1e-7, htol=1e-4, rng=3)
    require_second_order(problem, result, 1e-7, 1e-4)
    if expected is None:
        assert result.fun < start or name.startswith("monkey")
    else:
        assert result.fun == pytest.approx(expected, abs=1e-9)


def test_what_is_left_of_the_chain():
    """With this coupling the two wells in which all agree are the lowest, and 0 has F = dim / 4."""
    for seed in range(3):
        result = minimize(chain(), np.zeros(60), rng=seed)
        assert result.fun < 0.9 * 15


@pytest.mark.parametrize("x0", [[1.0, 0.0], [0.0, 0.0]])
@pytest.mark.parametrize("problem", [SADDLE, NESTEROV], ids=["formed", "products"])
def test_newton_says_that_it_cannot(problem, x0):
    with pytest.warns(MinimizeWarning, match="not positive definite"):
        result = minimize(problem, x0, "newton", rng=0)
    assert result.status is Status.INDEFINITE
    assert not result.success
    assert result.nit == len(result.history)
    assert (result.nit == 0) == (problem is SADDLE or not any(x0))  # products may lead to the saddle first
    assert result.min_eig < 0


@every
def test_curvature_is_not_looked_at_for_infinite_htol(method):
    result = minimize(SADDLE, [0.0, 0.0], method, htol=math.inf, rng=0)
    assert result.status is Status.FIRST_ORDER
    assert result.success
    assert result.nhev == 0
    assert math.isnan(result.min_eig)
    assert result.min_eig_error == math.inf


def test_singular_hessian_cannot_be_proved_for_htol_zero():
    problem = from_callables(
        lambda x: x[0] ** 2 + x[1] ** 4,
        lambda x: np.array([2 * x[0], 4 * x[1] ** 3]),
        hess=lambda x: np.diag([2.0, 12 * x[1] ** 2]),
    )
    with pytest.warns(MinimizeWarning, match="could not be proved"):
        result = minimize(problem, [0.0, 0.0], htol=0.0, rng=0)
    assert result.status is Status.UNCERTAIN
    assert result.min_eig == pytest.approx(0, abs=1e-14)


@escaping
def test_first_size_at_a_saddle_is_that_of_the_method(method):
    """A radius of 1e-3 at first: the step that leaves the saddle is no longer, and not much shorter."""
    result = minimize(SADDLE, [0.0, 0.0], method, rng=0, maxiter=100)
    assert result.nit < 40
    if isinstance(method, TrustRegion):
        seen = []
        small = TrustRegion(radius=1e-3, subproblem=method.subproblem)
        minimize(SADDLE, [0.0, 0.0], small, rng=0, callback=lambda state: seen.append(np.linalg.norm(state.x)))
        assert seen[0] == pytest.approx(1e-3)
    if isinstance(method, CubicRegularization):
        seen = []
        stiff = CubicRegularization(sigma=1e3, subproblem=method.subproblem)
        minimize(SADDLE, [0.0, 0.0], stiff, rng=0, callback=lambda state: seen.append(np.linalg.norm(state.x)))
        assert seen[0] == pytest.approx(2e-3)  # -lambda / sigma


@escaping
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_both_directions_of_negative_curvature_are_tried(sign, method):
    """The lower one is taken; where one leads out of the domain, the other."""

    def tilted(c):
        return (
            lambda x: x[0] ** 2 - x[1] ** 2 + c * x[1] ** 3 + x[1] ** 4,
            lambda x: np.array([2 * x[0], -2 * x[1] + 3 * c * x[1] ** 2 + 4 * x[1] ** 3]),
        )

    fun, grad = tilted(sign)
    seen = []
    problem = from_callables(fun, grad, hess=lambda x: np.diag([2.0, -2 + 6 * sign * x[1] + 12 * x[1] ** 2]))
    minimize(problem, [0.0, 0.0], method, rng=0, callback=lambda state: seen.append(state.x))
    first = next(x for x in seen if x.any())
    assert sign * first[1] < 0
    assert fun(first) < fun(-first)
    for side in (1.0, -1.0):
        walled = from_callables(
            lambda x, side=side: SADDLE.value(x) if side * x[1] >= 0 else math.nan, SADDLE.grad, hess=SADDLE.hessian
        )
        result = minimize(walled, [0.0, 0.0], method, rng=0)
        assert result.status is Status.CONVERGED
        assert result.x[1] == pytest.approx(side * 0.5**0.5, abs=1e-5)


@escaping
@pytest.mark.parametrize("x0", [[0.0, 0.0], [1.0, 2.0]])
def test_a_saddle_that_cannot_be_left(x0, method):
    """Negative curvature, and no other point where the value is finite."""
    center = np.array(x0)
    problem = from_callables(
        lambda x: 0.0 if np.array_equal(x, center) else math.nan, lambda x: 0 * x, hess=lambda x: np.diag([1.0, -1.0])
    )
    with pytest.warns(MinimizeWarning, match="Progress stopped"):
        result = minimize(problem, x0, method, rng=0)
    assert result.status is Status.STAGNATED
    assert result.min_eig == pytest.approx(-1)
    np.testing.assert_array_equal(result.x, x0)
    assert result.nit <= 61
