"""Minimization over convex sets: solutions by scipy and by enumeration of faces, convergence, and units."""

import itertools
import math
import warnings

import numpy as np
import pytest
from constrained_problems import LOSSES, SETS, Smooth, Sum, classification, quadratic, require_kkt, smallest_over_faces
from problems import data_file
from scipy.optimize import Bounds, NonlinearConstraint, lsq_linear, minimize, nnls

from randla.optimize.constrained import Box, ConstrainedStatus, L1Ball, L2Ball, Simplex, minimize_constrained
from randla.optimize.result import MinimizeResult

# Solutions


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("D", SETS.values(), ids=SETS)
def test_first_order_conditions_to_the_last_digits(D, loss):
    problem = classification(loss=loss)
    for seed in range(3):
        x0 = np.random.default_rng(seed).standard_normal(12)  # outside of most sets
        result = minimize_constrained(problem, x0, D, gtol=1e-10, rng=0)
        assert result.status is ConstrainedStatus.CONVERGED
        assert result.kkt <= 1e-10
        assert np.array_equal(result.jac, problem.grad(result.x))
        require_kkt(D, result, 2e-10)
        assert isinstance(result, MinimizeResult)
        assert result.grad_norm == pytest.approx(np.linalg.norm(result.jac))
        assert result.fun == problem.value(result.x)
        assert result.min_eig > -1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_against_scipy_on_a_box(loss):
    problem = classification(loss=loss)
    for bounds in ((-0.1, 0.3), (0.0, np.inf)):
        result = minimize_constrained(problem, np.zeros(12), Box(*bounds), gtol=1e-10, rng=0)
        options = {"ftol": 1e-15, "gtol": 1e-11, "maxiter": 2000}
        other = minimize(
            problem.value, np.zeros(12), jac=problem.grad, bounds=Bounds(*bounds), method="L-BFGS-B", options=options
        )
        assert result.fun <= other.fun + 1e-13
        if loss != "squared_sigmoid":  # one minimizer
            assert result.x == pytest.approx(other.x, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES[::2])
@pytest.mark.parametrize(
    ("D", "constraint"),
    [
        (L2Ball(0.5), lambda x: 0.25 - x @ x),
        (L1Ball(0.7), lambda x: 0.7 - np.sqrt(x**2 + 1e-18).sum()),
        (Simplex(), None),
    ],
    ids=["ball", "l1", "simplex"],
)
def test_against_scipy_on_other_sets(D, constraint, loss):
    problem = classification(loss=loss)
    result = minimize_constrained(problem, np.zeros(12), D, gtol=1e-10, rng=0)
    if constraint is None:
        conditions, bounds = [{"type": "eq", "fun": lambda x: x.sum() - 1}], Bounds(0, np.inf)
    else:
        conditions, bounds = [{"type": "ineq", "fun": constraint}], None
    start = D.project(np.full(12, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = minimize(
            problem.value, start, jac=problem.grad, bounds=bounds, constraints=conditions, method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )  # fmt: skip
    assert result.fun == pytest.approx(problem.value(D.project(other.x)), abs=1e-6)
    assert result.fun <= problem.value(D.project(other.x)) + 1e-12


def test_against_trust_constr():
    problem = classification(loss="squared_sigmoid")
    ball = NonlinearConstraint(
        lambda x: x @ x, -np.inf, 0.25, jac=lambda x: 2 * x[None], hess=lambda x, v: 2 * v[0] * np.eye(12)
    )
    other = minimize(
        problem.value, np.zeros(12), jac=problem.grad, hess=lambda x: problem.hessian(x).toarray(), constraints=[ball],
        method="trust-constr", options={"gtol": 1e-10, "xtol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    result = minimize_constrained(problem, np.zeros(12), L2Ball(0.5), gtol=1e-10, rng=0)
    assert result.fun == pytest.approx(other.fun, abs=1e-7)
    assert result.x == pytest.approx(other.x, abs=1e-3)


@pytest.mark.parametrize(("m", "d"), [(60, 20), (20, 60), (900, 400)])
def test_least_squares_with_bounds(m, d):
    """By active sets (nnls) and by BVLS; 400 unknowns: the Hessian is not formed."""
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((m, d)), rng.standard_normal(m)
    problem = Sum(A, b, "least_squares")
    result = minimize_constrained(problem, np.ones(d), Box(0.0), gtol=1e-10, rng=0)
    x, norm = nnls(A, b)
    assert math.sqrt(2 * m * result.fun) == pytest.approx(norm, rel=1e-9, abs=1e-9)
    if m > d:
        assert result.x == pytest.approx(x, abs=1e-8)
        assert np.array_equal(result.x == 0, x == 0)
        if d < 100:
            bounded = minimize_constrained(problem, np.ones(d), Box(-0.05, 0.02), gtol=1e-10, rng=0)
            assert bounded.x == pytest.approx(lsq_linear(A, b, (-0.05, 0.02), method="bvls", tol=1e-14).x, abs=1e-8)


@pytest.mark.parametrize("d", [2, 4, 6])
def test_simplex_and_l1_ball_by_enumeration_of_faces(d):
    rng = np.random.default_rng(d)
    for _ in range(10):
        B, b = rng.standard_normal((d + 2, d)), 3 * rng.standard_normal(d)
        A = B.T @ B
        total = rng.uniform(0.2, 2)
        best, x = smallest_over_faces(A, b, np.ones(d), total)
        result = minimize_constrained(quadratic(A, b), rng.standard_normal(d), Simplex(total), gtol=1e-11, rng=0)
        assert result.fun == pytest.approx(best, abs=1e-12 * max(1, abs(best)))
        assert result.x == pytest.approx(x, abs=1e-8)
        faces = [smallest_over_faces(A, b, np.array(s), total) for s in itertools.product((1.0, -1.0), repeat=d)]
        inside = np.linalg.solve(A, b)
        if np.abs(inside).sum() <= total:
            faces.append((-b @ inside / 2, inside))
        best, x = min(faces, key=lambda pair: pair[0])
        result = minimize_constrained(quadratic(A, b), rng.standard_normal(d), L1Ball(total), gtol=1e-11, rng=0)
        assert result.fun == pytest.approx(best, abs=1e-12 * max(1, abs(best)))
        assert result.x == pytest.approx(x, abs=1e-8)


@pytest.mark.parametrize(
    ("D", "x"),
    [
        (Box(0.3, 0.3), np.full(12, 0.3)),
        (L2Ball(0.0), np.zeros(12)),
        (L2Ball(0.0, np.ones(12)), np.ones(12)),
        (L1Ball(0.0), np.zeros(12)),
        (Simplex(0.0), np.zeros(12)),
    ],
)
def test_sets_of_one_point(D, x):
    result = minimize_constrained(classification(), np.ones(12), D, rng=0)
    assert result.success
    assert np.array_equal(result.x, x)
    assert result.kkt == 0
    assert result.nit == 0
    assert result.min_eig == math.inf
    assert result.gap == pytest.approx(0)


def test_fixed_entries_and_a_vertex():
    problem = classification()
    lower, upper = np.full(12, -1.0), np.full(12, 1.0)
    lower[:4] = upper[:4] = 0.25
    result = minimize_constrained(problem, np.zeros(12), Box(lower, upper), gtol=1e-10, rng=0)
    assert np.array_equal(result.x[:4], np.full(4, 0.25))
    assert result.active[:4].all()
    c = np.linspace(1, 2, 12)
    linear = Smooth(12, lambda x: c @ x, lambda x: c, lambda x: np.zeros((12, 12)))
    for D in (Box(-1.0, 1.0), L1Ball(1.0), Simplex()):
        result = minimize_constrained(linear, np.ones(12), D, rng=0)
        assert result.x == pytest.approx(D.lmo(c), abs=1e-12)
        assert result.gap == pytest.approx(0, abs=1e-12)
        assert result.min_eig == math.inf


def test_ill_conditioned_quadratics():
    """Condition numbers up to 1e12: gradient steps alone would take forever, and faces are left as soon as entered. The KKT
    points by enumeration of faces."""
    rng = np.random.default_rng(6)
    for _ in range(40):
        B = rng.standard_normal((5, 5)) * 10.0 ** rng.uniform(-3, 3, 5)
        A, b = B @ B.T, rng.standard_normal(5)
        scale = np.abs(A).max()
        result = minimize_constrained(quadratic(A, b), rng.standard_normal(5), Simplex(3.0), gtol=1e-12 * scale, rng=0)
        assert result.success
        assert result.nit <= 30
        best, _ = smallest_over_faces(A, b, np.ones(5), 3.0)
        assert result.fun <= best + 1e-10 * max(1, scale * 1e-4)


@pytest.mark.parametrize("curvature", [1e-20, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("radius", [1e-7, 1.0, 1e7])
def test_units_of_x(curvature, radius):
    """x -> radius x with second derivatives of that size: the same solution, though the gradient may be tiny beside x."""
    base, scale = classification(), curvature * radius**2
    for D in (Box(-0.1 * radius, 0.3 * radius), L2Ball(0.5 * radius), L1Ball(0.7 * radius), Simplex(radius)):
        problem = Smooth(
            12,
            lambda x: scale * base.value(x / radius),
            lambda x: scale / radius * base.grad(x / radius),
            lambda x: scale / radius**2 * base.hessian(x / radius).toarray(),
        )
        tol = 1e-9 * min(scale / radius, radius)
        result = minimize_constrained(problem, np.full(12, radius), D, gtol=tol, htol=1e-6 * scale / radius**2, rng=0)
        assert result.success
        assert result.kkt <= tol
        unit = type(D)(-0.1, 0.3) if isinstance(D, Box) else type(D)({L2Ball: 0.5, L1Ball: 0.7, Simplex: 1.0}[type(D)])
        expected = minimize_constrained(base, np.ones(12), unit, gtol=1e-11, rng=0)
        assert result.x / radius == pytest.approx(expected.x, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES[:2])
def test_ijcnn1(loss):
    with np.load(data_file("ijcnn1.npz")) as z:
        X, y = z["X"].astype(float), (z["y"] > 0) * 1.0
    problem = Sum(X, y, loss)
    for D in (Box(0.0), L2Ball(1.0), L1Ball(1.0), Simplex()):
        result = minimize_constrained(problem, np.zeros(22), D, hessian_sample=0.05, gtol=1e-8, rng=0)
        assert result.success
        require_kkt(D, result, 1e-8)


# Convergence


def test_newtons_method_where_nothing_is_constrained():
    problem = classification()
    iterates = []
    result = minimize_constrained(
        problem,
        np.zeros(12),
        Box(),
        radius=math.inf,
        gtol=1e-12,
        callback=lambda intermediate_result: iterates.append(intermediate_result.x),
        rng=0,
    )
    assert result.nit >= 4
    for x, y in itertools.pairwise(iterates):
        newton = x - np.linalg.solve(problem.hessian(x).toarray(), problem.grad(x))
        assert y == pytest.approx(newton, abs=1e-7 * np.linalg.norm(y - x))


@pytest.mark.parametrize("D", [Box(-0.1, 0.3), L2Ball(0.5), L1Ball(0.7), Simplex()], ids=["box", "ball", "l1", "simplex"])
def test_face_is_found_soon_and_convergence_is_superlinear(D):
    problem = classification(2000, 12)
    active = []
    result = minimize_constrained(
        problem,
        np.random.default_rng(0).standard_normal(12),
        D,
        gtol=1e-13,
        callback=lambda intermediate_result: active.append(D._active(intermediate_result.x)),
        rng=0,
    )
    found = next(k for k, a in enumerate(active) if np.array_equal(a, result.active))
    assert found <= 5
    assert result.nit <= 8
    kkt = [entry["kkt"] for entry in result.history]
    assert kkt[-1] <= 1e-13
    assert kkt[-2] / kkt[-3] < 0.02


@pytest.mark.parametrize("D", [Box(-0.1, 0.3), L2Ball(0.5), L1Ball(0.7), Simplex()], ids=["box", "ball", "l1", "simplex"])
@pytest.mark.parametrize("samples", [{"hessian_sample": 0.2}, {"hessian_sample": 0.2, "gradient_sample": 100}])
def test_samples_lead_to_the_same_point(D, samples):
    problem = classification(2000, 12)
    whole = minimize_constrained(problem, np.zeros(12), D, gtol=1e-11, rng=0)
    sampled = minimize_constrained(problem, np.zeros(12), D, gtol=1e-9, rng=1, **samples)
    assert sampled.success
    assert sampled.x == pytest.approx(whole.x, abs=1e-7)
    assert np.array_equal(sampled.active, whole.active)
    assert {entry["hessian_sample"] for entry in sampled.history} == {400}
    sizes = [entry["gradient_sample"] for entry in sampled.history]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 2000
    assert sizes[0] == samples.get("gradient_sample", 2000)
    again = minimize_constrained(problem, np.zeros(12), D, gtol=1e-9, rng=sampled.seed, **samples)
    assert np.array_equal(again.x, sampled.x)


def test_shorter_steps_lead_to_the_same_point():
    problem = classification()
    whole = minimize_constrained(problem, np.zeros(12), Box(0.0), gtol=1e-11, rng=0)
    short = minimize_constrained(problem, np.zeros(12), Box(0.0), alpha=0.5, gtol=1e-9, rng=0)
    assert short.x == pytest.approx(whole.x, abs=1e-7)
    assert short.nit > whole.nit
