"""The methods for scipy.optimize.minimize: its own trust-region cases, asserted for second-order optimality by LAPACK."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from scipy.optimize import BFGS, OptimizeResult, rosen, rosen_der, rosen_hess, rosen_hess_prod
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from randla.optimize._scipy import cubic, trust_region
from randla.optimize.result import MinimizeWarning

METHODS = [trust_region, cubic]
EASY, HARD, BEST = [2.0, 2.0], [-1.2, 1.0], [1.0, 1.0]


def minimize(fun, x0, args=(), options=None, **others):
    return scipy.optimize.minimize(fun, x0, args, options={"rng": 0, **(options or {})}, **others)


def require_minimum(result, grad, hess, gtol, htol):
    assert result.success
    assert result.status == 0
    assert np.linalg.norm(grad(result.x)) <= gtol
    lowest = np.linalg.eigvalsh(hess(result.x))[0]
    assert lowest >= -htol
    assert result.grad_norm == pytest.approx(np.linalg.norm(result.jac), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x0", [EASY, HARD, BEST])
@pytest.mark.parametrize("curvature", [{"hess": rosen_hess}, {"hessp": rosen_hess_prod}, {}])
def test_rosenbrock(method, x0, curvature):
    result = minimize(rosen, x0, jac=rosen_der, method=method, tol=1e-8, **curvature)
    require_minimum(result, rosen_der, rosen_hess, 1e-8, 0)
    assert result.x == pytest.approx(BEST, abs=1e-7)
    assert result.fun == rosen(result.x)
    assert result.min_eig == pytest.approx(np.linalg.eigvalsh(rosen_hess(result.x))[0], rel=1e-3)
    np.testing.assert_allclose(result.jac, rosen_der(result.x), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("method", METHODS)
def test_rosenbrock_in_many_dimensions(method):
    x0 = np.random.default_rng(0).uniform(-2, 2, 40)
    result = minimize(rosen, x0, jac=rosen_der, hessp=rosen_hess_prod, method=method, options={"maxiter": 2000})
    require_minimum(result, rosen_der, rosen_hess, 1e-6, 1e-3)


class Polynomial:
    def __init__(self, fun, grad, hess):
        self.fun, self.grad, self.hess = fun, lambda x: np.array(grad(*x)), lambda x: np.array(hess(*x))


SADDLES = {
    "x^2 - y^2 + y^4": (
        Polynomial(
            lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4,
            lambda x, y: [2 * x, 4 * y**3 - 2 * y],
            lambda x, y: [[2, 0], [0, 12 * y**2 - 2]],
        ),
        [[1.0, 0.0], [0.0, 0.0], [1.0, 1e-12]],
        -0.25,
    ),
    # (x^3 - 3 x y^2) + (x^2 + y^2)^2 = r^3 cos(3t) + r^4: least at cos(3t) = -1, r = 3/4.
    "monkey": (
        Polynomial(
            lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2 + (x[0] ** 2 + x[1] ** 2) ** 2,
            lambda x, y: [3 * x**2 - 3 * y**2 + 4 * x * (x * x + y * y), -6 * x * y + 4 * y * (x * x + y * y)],
            lambda x, y: [
                [6 * x + 12 * x * x + 4 * y * y, -6 * y + 8 * x * y],
                [-6 * y + 8 * x * y, -6 * x + 4 * x * x + 12 * y * y],
            ],
        ),
        [[0.5, 0.1], [1e-3, -1e-3], [1.0, 0.3]],
        -27 / 256,
    ),
    "Nesterov": (
        Polynomial(
            lambda x: x[0] ** 2 / 2 + x[1] ** 4 / 4 - x[1] ** 2 / 2,
            lambda x, y: [x, y**3 - y],
            lambda x, y: [[1, 0], [0, 3 * y**2 - 1]],
        ),
        [[1.0, 0.0], [0.0, 0.0], [-3.0, 0.0]],
        -0.25,
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", SADDLES)
@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("products", [False, True])
def test_saddles_are_left(method, kind, start, products):
    problem, starts, least = SADDLES[kind]
    given = {"hessp": lambda x, p: problem.hess(x) @ p} if products else {"hess": problem.hess}
    result = minimize(problem.fun, starts[start], jac=problem.grad, method=method, **given)
    require_minimum(result, problem.grad, problem.hess, 1e-6, 1e-3)
    assert result.fun == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_saddle_is_second_order_optimal(method):
    """The monkey saddle itself has a zero Hessian: no second-order method can tell it from a minimum, and none says more."""
    problem = SADDLES["monkey"][0]
    result = minimize(problem.fun, [0.0, 0.0], jac=problem.grad, hess=problem.hess, method=method)
    require_minimum(result, problem.grad, problem.hess, 1e-6, 1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_success_never_at_a_saddle(method):
    """From points on the stable manifold of the saddles of a sum of double wells, and from the saddles."""
    rng = np.random.default_rng(1)
    for d in (2, 5, 12):
        U = np.linalg.qr(rng.standard_normal((d, d)))[0]
        wells = rng.random(d) < 0.5
        wells[0] = True

        def fun(x, U=U, wells=wells):
            y = U.T @ x
            return float(np.sum(np.where(wells, y**4 / 4 - y**2 / 2, y**2)))

        def grad(x, U=U, wells=wells):
            y = U.T @ x
            return U @ np.where(wells, y**3 - y, 2 * y)

        def hess(x, U=U, wells=wells):
            y = U.T @ x
            return (U * np.where(wells, 3 * y**2 - 1, 2)) @ U.T

        for _ in range(5):
            y = np.where(wells & (rng.random(d) < 0.7), 0, rng.choice([0.0, 0.5, 1.0], d))
            result = minimize(fun, U @ y, jac=grad, hess=hess, method=method)
            require_minimum(result, grad, hess, 1e-6, 1e-3)
            assert result.fun == pytest.approx(-wells.sum() / 4, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_iteration_limit_is_no_success(method):
    with pytest.warns(MinimizeWarning, match="iteration limit"):
        result = minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=method, options={"maxiter": 3})
    assert not result.success
    assert result.status == 1
    assert result.nit == 3
    assert "iteration limit" in result.message


@pytest.mark.parametrize("method", METHODS)
def test_callback_and_all_iterates(method):
    seen = []
    with pytest.warns(MinimizeWarning, match="iteration limit"):
        result = minimize(
            rosen,
            HARD,
            jac=rosen_der,
            hess=rosen_hess,
            method=method,
            callback=seen.append,
            options={"return_all": True, "maxiter": 5},
        )
    assert len(seen) == 5
    assert len(result.allvecs) == 6
    np.testing.assert_array_equal(result.allvecs[0], HARD)
    np.testing.assert_array_equal(result.allvecs[-1], result.x)
    np.testing.assert_array_equal(result.allvecs[1:], seen)


@pytest.mark.parametrize("method", METHODS)
def test_callback_with_intermediate_result(method):
    seen = []

    def callback(intermediate_result):
        assert isinstance(intermediate_result, OptimizeResult)
        assert intermediate_result.fun == rosen(intermediate_result.x)
        intermediate_result.x[:] = np.nan  # its own copy
        seen.append(intermediate_result.fun)

    result = minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=method, callback=callback)
    assert result.success
    assert len(seen) == result.nit
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("method", METHODS)
def test_callback_stops_the_run(method):
    def callback(x):
        calls.append(x)
        if len(calls) == 4:
            raise StopIteration

    calls = []
    result = minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=method, callback=callback)
    assert len(calls) == 4
    assert result.status == 99
    assert not result.success
    np.testing.assert_array_equal(result.x, calls[-1])


def test_callback_that_has_no_signature():
    result = minimize(rosen, EASY, jac=rosen_der, hess=rosen_hess, method=trust_region, callback=np.sum)
    assert result.success


@pytest.mark.parametrize(
    "hess",
    [
        rosen_hess,
        lambda x: rosen_hess(x).tolist(),
        lambda x: sp.csr_array(rosen_hess(x)),
        lambda x: sp.coo_matrix(rosen_hess(x)),
        lambda x: aslinearoperator(rosen_hess(x)),
        lambda x: LinearOperator((3, 3), lambda v: rosen_hess_prod(x, v)),
        "2-point",
        "3-point",
        None,
    ],
)
def test_kinds_of_hessian(hess):
    result = minimize(rosen, [1.3, 0.7, 0.8], jac=rosen_der, hess=hess, method=trust_region)
    require_minimum(result, rosen_der, rosen_hess, 1e-6, 0)


@pytest.mark.parametrize("kind", [np.asarray, list, sp.csr_array, sp.csc_matrix, aslinearoperator])
def test_constant_hessian(kind):
    A, b = np.diag([1.0, 2.0, 5.0]) + 0.5, np.array([1.0, -2, 3])
    result = minimize(lambda x: x @ A @ x / 2 - b @ x, np.zeros(3), jac=lambda x: A @ x - b, hess=kind(A), method=trust_region)
    assert result.success
    assert result.x == pytest.approx(np.linalg.solve(A, b), abs=1e-6)
    assert result.nhev == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jac", [None, False, "2-point"])
def test_no_derivatives(method, jac):
    result = minimize(rosen, HARD, jac=jac, method=method)
    assert result.success
    assert result.x == pytest.approx(BEST, abs=1e-5)
    assert method(rosen, HARD, jac=jac).x == pytest.approx(BEST, abs=1e-5)
    problem, starts, least = SADDLES["x^2 - y^2 + y^4"]
    for start in starts:
        assert minimize(problem.fun, start, jac=jac, method=method).fun == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("through_scipy", [False, True])
def test_value_and_gradient_in_one_function(through_scipy):
    points = []

    def both(x):
        points.append(tuple(x))
        return rosen(x), rosen_der(x)

    if through_scipy:
        result = minimize(both, HARD, jac=True, hess=rosen_hess, method=trust_region)
    else:
        result = trust_region(both, HARD, jac=True, hess=rosen_hess)
    require_minimum(result, rosen_der, rosen_hess, 1e-6, 0)
    assert len(points) < result.nfev + result.njev
    assert all(a != b for a, b in itertools.pairwise(points))


def test_arguments_reach_every_callable():
    def fun(x, a, b):
        return a * (x @ x) + b @ x

    A, b = 2.0, np.array([1.0, 2.0])
    for curvature in ({"hess": lambda x, a, b: 2 * a * np.eye(2)}, {"hessp": lambda x, p, a, b: 2 * a * p}, {}):
        result = minimize(fun, [3, 4], (A, b), jac=lambda x, a, b: 2 * a * x + b, method=trust_region, **curvature)
        assert result.x == pytest.approx(-b / 4, abs=1e-6)
    one = trust_region(lambda x, a: a * (x @ x), 3, 2.0, jac=lambda x, a: 2 * a * x, hess=lambda x, a: [[2 * a]])
    assert one.x == pytest.approx([0], abs=1e-6)


def test_calls_are_counted():
    calls = dict.fromkeys(("fun", "jac", "hess", "hessp"), 0)

    def counted(name, function):
        def call(x, *args):
            calls[name] += 1
            result = function(x, *args)
            x[:] = np.nan  # x is the function's own
            return result

        return call

    fun, jac = counted("fun", rosen), counted("jac", rosen_der)
    for curvature in ({"hess": counted("hess", rosen_hess)}, {"hessp": counted("hessp", rosen_hess_prod)}, {}):
        calls.update(dict.fromkeys(calls, 0))
        result = minimize(fun, HARD, jac=jac, method=trust_region, **curvature)
        assert result.success
        assert (result.nfev, result.njev, result.nhev) == (calls["fun"], calls["jac"], calls["hess"] + calls["hessp"])
        if "hess" in curvature:
            assert result.nhev <= result.nit + 1
    calls["fun"] = 0
    assert minimize(fun, HARD, method=trust_region).nfev == calls["fun"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_trial_that_is_not_finite_is_rejected(method, bad):
    def fun(x):
        return x[0] - np.log(x[0]) if x[0] > 0 else bad

    result = minimize(
        fun, [10.0], jac=lambda x: 1 - 1 / x, hess=lambda x: [[1 / x[0] ** 2]], method=method, options={"htol": 0.1}
    )
    assert result.success
    assert result.x == pytest.approx([1], abs=1e-5)


def test_options_reach_the_method():
    first = []
    minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=trust_region, callback=first.append, options={"radius": 1e-3})
    assert np.linalg.norm(first[0] - HARD) == pytest.approx(1e-3)
    loose = minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=trust_region, tol=1e-1)
    tight = minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=trust_region, tol=1e-1, options={"gtol": 1e-9})
    assert tight.grad_norm <= 1e-9 < loose.grad_norm <= 1e-1
    capped = []
    minimize(
        rosen,
        [-3.0, 9],
        jac=rosen_der,
        hess=rosen_hess,
        method=trust_region,
        callback=capped.append,
        options={"max_radius": 0.1},
    )
    steps = np.diff([[-3.0, 9], *capped], axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= 0.1 + 1e-12
    heavy = []
    minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=cubic, callback=heavy.append, options={"sigma": 1e12})
    assert np.linalg.norm(heavy[0] - HARD) < 1e-4


def test_other_ends_have_status_two():
    with pytest.warns(MinimizeWarning, match="time limit"):
        result = minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=trust_region, options={"max_time": 0})
    assert (result.success, result.status, result.nit) == (False, 2, 1)
    assert math.isfinite(result.min_eig)


def test_no_curvature_test_on_request():
    problem = SADDLES["Nesterov"][0]
    result = minimize(
        problem.fun, [1.0, 0.0], jac=problem.grad, hess=problem.hess, method=trust_region, options={"htol": math.inf}
    )
    assert result.success
    assert "not looked at" in result.message
    assert result.x == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_seed_replays(method):
    problem = SADDLES["Nesterov"][0]

    def run(rng):
        given = {"jac": problem.grad, "hessp": lambda x, p: problem.hess(x) @ p, "options": {"rng": rng, "return_all": True}}
        return minimize(problem.fun, [0.0, 0.0], method=method, **given)

    first = run(np.random.default_rng(3))
    np.testing.assert_array_equal(run(first.seed).allvecs, first.allvecs)
    assert len({run(seed).x[1] > 0 for seed in range(20)}) == 2


def test_display(capsys):
    minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=trust_region, options={"disp": True})
    out = capsys.readouterr().out
    assert "Current function value: 0.000000" in out
    assert "Evaluations:" in out
    minimize(rosen, HARD, jac=rosen_der, hess=rosen_hess, method=trust_region, options={"disp": False})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "bounds must be None; randla.optimize.minimize_constrained", {"bounds": [(0, 1), (0, 1)]}),
        (ValueError, "constraints must be empty", {"constraints": {"type": "eq", "fun": rosen}}),
        (TypeError, "options must be among .*subproblem.*; got xtol, eps", {"options": {"xtol": 1, "eps": 1}}),
        (TypeError, "update BFGS only models", {"hess": BFGS()}),
        (TypeError, "hess must be a matrix, an operator or callable; got 'cs'", {"hess": "cs"}),
        (ValueError, r"hess must be real of shape \(2, 2\)", {"hess": np.eye(3)}),
        (ValueError, r"hess must be real of shape \(2, 2\)", {"hess": lambda x: np.eye(3)}),
        (ValueError, r"hess must be real of shape \(2, 2\)", {"hess": 1j * np.eye(2)}),
        (TypeError, "hessp must be callable", {"hessp": np.eye(2)}),
        (ValueError, "hessp must return 2 real numbers", {"hessp": lambda x, p: np.ones(3)}),
        (ValueError, "jac must return 2 real numbers", {"jac": lambda x: np.ones(3)}),
        (ValueError, "fun must return a real number", {"fun": lambda x: x}),
        (ValueError, "fun must return a real number", {"fun": lambda x: 1j}),
        (TypeError, "callback must be callable", {"callback": 3}),
        (TypeError, "x0 must be real", {"x0": [1j, 0]}),
        (ValueError, "x0 must be finite", {"x0": [np.nan, 0]}),
        (ValueError, "x0 must have one dimension and entries", {"x0": []}),
    ],
)
def test_errors(method, error, message, options):
    arguments = {"fun": rosen, "x0": HARD, "jac": rosen_der, **options}
    with pytest.raises(error, match=message):
        minimize(arguments.pop("fun"), arguments.pop("x0"), method=method, **arguments)


def test_errors_that_scipy_catches_or_makes_itself():
    with pytest.raises(TypeError, match="fun must be callable"):
        trust_region(3, HARD)
    with pytest.raises(ValueError, match="jac must be callable, True, None"):
        trust_region(rosen, HARD, jac="cs")
    with pytest.raises(ValueError, match="x0 must have one dimension"):
        trust_region(rosen, [HARD])
