"""Convex sets: projections by bisection in extended precision, linear minimizers, faces, and errors."""

import math

import numpy as np
import pytest
from constrained_problems import SETS
from scipy.optimize import linprog

from randla.optimize._faces import Face, householder
from randla.optimize.constrained import Box, Constraint, L1Ball, L2Ball, Simplex


def bisected(x, total):
    """Projection on the simplex: the level at which the clipped entries add up to the total."""
    x = np.asarray(x, np.longdouble)
    low, high = x.min() - total - 1, x.max()
    for _ in range(120):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(x - level, 0).sum() > total else (low, level)
    return np.maximum(x - low, 0).astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_projections_against_bisection(seed):
    rng = np.random.default_rng(seed)
    for _ in range(300):
        d = rng.integers(1, 15)
        x, radius = rng.standard_normal(d) * 10 ** rng.uniform(-3, 3), 10 ** rng.uniform(-3, 3)
        if rng.random() < 0.3:
            x = np.round(x)  # ties and zeros
        tol = 1e-14 * max(np.abs(x).max(), radius)
        assert Simplex(radius).project(x) == pytest.approx(bisected(x, radius), abs=tol)
        inside = np.abs(x).sum() <= radius
        expected = x if inside else np.sign(x) * bisected(np.abs(x), radius)
        assert L1Ball(radius).project(x) == pytest.approx(expected, abs=tol)
        center = rng.standard_normal(d)
        away = np.linalg.norm(x - center)
        expected = x if away <= radius else center + (x - center) * radius / away
        assert L2Ball(radius, center).project(x) == pytest.approx(expected, abs=tol)


@pytest.mark.parametrize("D", SETS.values(), ids=SETS)
def test_projection_is_the_nearest_point(D):
    """(x - P x)'(v - P x) <= 0 for all v of the set."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        x = rng.standard_normal(12) * 3
        p = D.project(x)
        assert D.contains(p, 1e-14)
        assert D.project(p) == pytest.approx(p, abs=1e-15 * max(1, np.abs(p).max()))
        others = [D.project(rng.standard_normal(12) * scale) for scale in (0.1, 1, 10, 100)]
        if np.isfinite(np.r_[getattr(D, "lower", 0.0), getattr(D, "upper", 0.0)]).all():
            others += [D.lmo(rng.standard_normal(12)) for _ in range(5)]
        for v in others:
            assert (x - p) @ (v - p) <= 1e-13 * np.linalg.norm(x - p) * max(1, np.linalg.norm(v - p))


@pytest.mark.parametrize(
    ("D", "x", "expected"),
    [
        (Simplex(), [1e308, -1e308, 1e308], [0.5, 0, 0.5]),
        (Simplex(1e-300), [1e300, 1e300 * (1 - 1e-15)], [1e-300, 0]),
        (Simplex(1e300), [1.0, 2.0], [5e299, 5e299]),
        (Simplex(), [5e-324, 0.0], [0.5, 0.5]),
        (L1Ball(1.0), [1e308, 1e308], [0.5, 0.5]),
        (L1Ball(1.0), [1e300, 1.0], [1, 0]),
        (L1Ball(1e-320), [-1.0, 0.5], [-1e-320, 0]),
        (L2Ball(1e-200), [3e-180, 4e-180], [6e-201, 8e-201]),
        (L2Ball(1.0), [3e200, 4e200], [0.6, 0.8]),
        (L2Ball(1.0, [1e308, 0.0]), [-1e308, 0.0], [1e308, 0]),
        (L2Ball(0.0, [1.0, 2.0]), [5.0, 5.0], [1, 2]),
        (Box(-1e308, 1e308), [1.5e308, 0.0], [1e308, 0]),
    ],
)
def test_projection_of_extreme_points(D, x, expected):
    assert D.project(np.array(x)) == pytest.approx(np.array(expected), rel=1e-14)


def test_linear_minimizers():
    """Against all vertices, by linear programming for the box, and Cauchy-Schwarz."""
    rng = np.random.default_rng(2)
    for _ in range(30):
        g = rng.standard_normal(5)
        lower, upper = -rng.random(5), rng.random(5)
        least = linprog(g, bounds=np.stack([lower, upper], axis=1)).fun
        assert g @ Box(lower, upper).lmo(g) == pytest.approx(least)
        assert g @ L1Ball(2.0).lmo(g) == pytest.approx(-2 * np.abs(g).max())
        assert g @ Simplex(3.0).lmo(g) == pytest.approx(3 * g.min())
        assert g @ L2Ball(2.0, np.ones(5)).lmo(g) == pytest.approx(g.sum() - 2 * np.linalg.norm(g))
    assert np.array_equal(L2Ball(1.0).lmo(np.zeros(3)), np.zeros(3))
    assert np.array_equal(Box(0.0).lmo(np.array([1.0, 0.0])), [0, 0])


def test_contains():
    assert L2Ball(1.0).contains([0.6, 0.8])
    assert not L2Ball(1.0).contains([0.6, 0.8 + 1e-6])
    assert L2Ball(1.0).contains([0.6, 0.8 + 1e-6], tol=1e-5)
    assert not Simplex().contains([0.5, 0.6])
    assert not L1Ball(1.0).contains([1.0, 0.1])
    assert not Box(0.0, 1.0).contains([2.0])


@pytest.mark.parametrize("D", SETS.values(), ids=SETS)
def test_slope_and_faces(D):
    """The tangent space has an orthonormal basis; steps along it stay on the face, and slopes are those of the gradient."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        x, g = D.project(rng.standard_normal(12) * rng.choice([0.1, 1, 30])), rng.standard_normal(12)
        face = D._face(x, g)
        Z = face.lift(np.eye(face.dim))
        assert pytest.approx(np.eye(face.dim), abs=1e-14) == Z.T @ Z
        assert face.restrict(g) == pytest.approx(Z.T @ g, abs=1e-14)
        H = rng.standard_normal((12, 12))
        H += H.T
        assert face.reduced(H) == pytest.approx(Z.T @ H @ Z + face.shift * np.eye(face.dim), abs=1e-13)
        y = face.advance(x, Z @ rng.standard_normal(face.dim) * rng.choice([1e-3, 1, 100]))
        assert D.contains(y, 1e-12)
        assert D._slope(x, g, y - x) == pytest.approx(g @ (y - x), abs=1e-12 * max(1, np.linalg.norm(y)))


def test_face_without_a_coordinate():
    face = Face(3, np.zeros(0, np.intp), reflector=householder(np.zeros(0)))
    assert face.dim == 0
    assert face.restrict(np.ones(3)).shape == (0,)
    assert np.array_equal(face.lift(np.zeros(0)), np.zeros(3))


@pytest.mark.parametrize(
    ("error", "message", "make"),
    [
        (ValueError, "lower must be at most upper", lambda: Box(1.0, 0.0)),
        (ValueError, "lower must be at most upper", lambda: Box(math.inf, math.inf)),
        (ValueError, "lower must not be NaN", lambda: Box(math.nan)),
        (ValueError, "lower must be a number or have 1", lambda: Box(np.zeros((2, 2)))),
        (TypeError, "upper must be real", lambda: Box(0.0, 1j)),
        (ValueError, "lower and upper must have one shape", lambda: Box(np.zeros(2), np.ones(3))),
        (ValueError, r"lower must be a number or have shape \(2,\)", lambda: Box(np.zeros(3)).project(np.ones(2))),
        (ValueError, "lower and upper must be finite where", lambda: Box(0.0).lmo(np.array([-1.0]))),
        (ValueError, "radius must be", lambda: L2Ball(-1.0)),
        (TypeError, "radius must be a real number", lambda: L1Ball("1")),
        (ValueError, "center must be finite", lambda: L2Ball(1.0, [math.nan])),
        (ValueError, r"center must have shape \(3,\)", lambda: L2Ball(1.0, [0.0]).project(np.ones(3))),
        (ValueError, "total must be finite", lambda: Simplex(math.inf)),
        (ValueError, "total must be 0", lambda: Simplex().project(np.zeros(0))),
        (ValueError, "x must be finite", lambda: Simplex().project([math.nan, 1.0])),
        (ValueError, "x must have 1 dimension", lambda: Simplex().project(np.ones((2, 2)))),
        (TypeError, "x must be real", lambda: Simplex().contains([1j])),
        (ValueError, "tol must be", lambda: Simplex().contains([1.0], tol=-1.0)),
    ],
)
def test_errors_of_sets(error, message, make):
    with pytest.raises(error, match=message):
        make()


def test_base_class_is_not_a_set():
    D = Constraint()
    for call in (D.project, D.lmo):
        with pytest.raises(NotImplementedError):
            call(np.ones(2))
    for call in (lambda: D._face(np.ones(2), np.ones(2)), lambda: D._multipliers(np.ones(2), np.ones(2))):
        with pytest.raises(NotImplementedError):
            call()


@pytest.mark.parametrize("x", [1e308 * np.ones(6), np.array([1e308, -1e308, 0, 0, 1, 1.0])])
def test_points_whose_norm_is_no_number(x):
    direction = x / 1e308 / np.linalg.norm(x / 1e308)
    for radius in (1e-200, 1.0, 1e200):
        ball = L2Ball(radius)
        np.testing.assert_allclose(ball.project(x), radius * direction, rtol=1e-14)
        np.testing.assert_allclose(ball.lmo(x), -radius * direction, rtol=1e-14)
        assert not ball.contains(x)
        assert ball.contains(ball.project(x))
    assert Box(0.0).contains(np.abs(x))
    assert not Box(-1.0, 1.0).contains(x)
    off = L2Ball(1.0, -1e308 * np.ones(6))
    assert off.contains(off.project(x))
