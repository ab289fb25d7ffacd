"""Minimization over convex sets where F is not convex: saddles are left, also those on faces and behind bounds."""

import math

import numpy as np
import pytest
from constrained_problems import Smooth, quadratic

from randla.optimize.constrained import Box, ConstrainedStatus, L1Ball, L2Ball, Simplex, minimize_constrained
from randla.optimize.result import MinimizeWarning


@pytest.mark.parametrize("seed", range(6))
def test_indefinite_quadratics_end_in_local_minima(seed):
    """No feasible point nearby is lower; on a ball around the origin, without linear term, the minimum is known."""
    rng = np.random.default_rng(seed)
    for _ in range(5):
        d = int(rng.integers(2, 8))
        A = rng.standard_normal((d, d))
        A, b = A + A.T, rng.standard_normal(d)
        for D in (Box(-1.0, 1.0), L2Ball(1.0), L1Ball(1.0), Simplex()):
            problem = quadratic(A, b)
            result = minimize_constrained(problem, rng.standard_normal(d), D, gtol=1e-9, rng=0)
            assert result.status is ConstrainedStatus.CONVERGED
            for _ in range(100):
                y = D.project(result.x + 10.0 ** rng.uniform(-4, -2) * rng.standard_normal(d))
                assert problem.value(y) >= result.fun - 1e-10
        w, V = np.linalg.eigh(A)
        for k in range(d):  # every eigenvector is stationary on the sphere
            result = minimize_constrained(quadratic(A, 0 * b), V[:, k], L2Ball(1.0), gtol=1e-9, rng=0)
            assert result.fun == pytest.approx(min(w[0] / 2, 0), abs=1e-10)


SADDLE = Smooth(
    2,
    lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4,
    lambda x: np.array([2 * x[0], -2 * x[1] + 4 * x[1] ** 3]),
    lambda x: np.diag([2, -2 + 12 * x[1] ** 2]),
)


@pytest.mark.parametrize("start", [(1.0, 0.0), (0.0, 0.0), (1.0, 1e-12)])
@pytest.mark.parametrize("D", [Box(-2.0, 2.0), Box(), L2Ball(2.0), L1Ball(2.0), Box(0.5, [3.0, 0.6])], ids=str)
def test_saddles_are_left(D, start):
    result = minimize_constrained(SADDLE, np.array(start), D, rng=0)
    assert result.success
    low = D.lower == 0.5 if isinstance(D, Box) and D.lower.ndim == 0 else False
    expected = 0.25 + 0.36**2 - 0.36 if low and D.upper.ndim else -0.25
    assert result.fun == pytest.approx(expected, abs=1e-9)


def test_saddle_on_a_face():
    """x1 held at its bound; x2^2 - x3^2 + x3^4 remains."""
    problem = Smooth(
        3,
        lambda x: x[0] + SADDLE.value(x[1:]),
        lambda x: np.r_[1.0, SADDLE.grad(x[1:])],
        lambda x: np.block([[np.zeros((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), SADDLE.hess(x[1:])]]),
    )
    result = minimize_constrained(problem, np.zeros(3), Box(0.0, np.inf), rng=0)
    assert result.x == pytest.approx([0, 0, math.sqrt(0.5)], abs=1e-6)
    assert result.min_eig == pytest.approx(4, abs=1e-5)
    assert np.array_equal(result.active, [True, True, False])


def test_saddle_behind_a_bound_without_multiplier():
    """-x1^2 over x1 >= 0 at 0, where the gradient is zero: the face is a vertex, the point no minimum."""
    problem = Smooth(
        2,
        lambda x: -(x[0] ** 2) + x[0] ** 4 + x[1] ** 2,
        lambda x: np.array([-2 * x[0] + 4 * x[0] ** 3, 2 * x[1]]),
        lambda x: np.diag([-2 + 12 * x[0] ** 2, 2]),
    )
    result = minimize_constrained(problem, np.zeros(2), Box(0.0), rng=0)
    assert result.x == pytest.approx([math.sqrt(0.5), 0], abs=1e-6)


def test_center_of_a_simplex_where_vertices_are_best():
    d = 6
    result = minimize_constrained(quadratic(-np.eye(d), np.zeros(d)), np.ones(d), Simplex(), rng=0)
    assert np.sort(result.x) == pytest.approx(np.r_[np.zeros(d - 1), 1], abs=1e-12)
    assert result.min_eig == math.inf
    assert result.active.sum() == d - 1


def test_saddle_that_cannot_be_left_is_said():
    """A Hessian that is wrong: F does not fall along what it calls negative curvature."""
    problem = Smooth(2, lambda x: x @ x, lambda x: 2 * x, lambda x: -2 * np.eye(2))
    with pytest.warns(MinimizeWarning, match="saddle"):
        result = minimize_constrained(problem, np.zeros(2), Box(), rng=0)
    assert result.status is ConstrainedStatus.SADDLE
    assert not result.success
    assert result.min_eig == pytest.approx(-2)
