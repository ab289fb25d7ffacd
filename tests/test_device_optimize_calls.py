"""What functions of `randla.optimize` take and give where the data are on a device, and what they refuse."""

import copy
import pickle

import numpy as np
import pytest
import scipy.optimize
from emulated import OnDevice
from glm_oracles import LOSSES, labels_of
from minimize_problems import quietly
from test_device_optimize import ROWS, assert_near, problem_of, sent, transfers, twins  # noqa: F401

import randla.optimize as ro
from randla.optimize import GLM, minimize


@pytest.fixture
def pair(cupy):
    X, y, w = problem_of("logistic")
    return twins(cupy, X, y, "logistic", 0.1, weights=w)


def test_results_are_where_the_data_are(cupy, pair):
    host, there = pair
    expected = minimize(host, np.zeros(7), rng=0)
    for x0 in (np.zeros(7), cupy.zeros(7), [0] * 7):
        found = minimize(there, x0, rng=0)
        assert isinstance(found.x, cupy.ndarray)
        assert isinstance(found.jac, cupy.ndarray)
        assert_near(found.x.get(), expected.x, 1e-9)
        assert type(found.fun) is float
        assert type(found.grad_norm) is float


@pytest.mark.usefixtures("transfers")
def test_arrays_of_other_libraries_are_taken_where_they_are(cupy, pair):
    X, y, w = problem_of("logistic")
    problem = GLM(OnDevice(X), OnDevice(y), "logistic", 0.1, weights=OnDevice(w))
    found = minimize(problem, OnDevice(np.zeros(7)), rng=0)
    assert isinstance(found.x, cupy.ndarray)
    assert np.array_equal(found.x.get(), minimize(pair[1], np.zeros(7), rng=0).x.get())
    v = np.linspace(-1, 1, 7)
    assert isinstance(problem.grad(OnDevice(v)), cupy.ndarray)
    product = problem.hessian(v) @ OnDevice(v)
    assert isinstance(product, cupy.ndarray)
    assert_near(product.get(), pair[0].hessian(v) @ v)


def test_callbacks_and_steppers_get_vectors_of_the_host(cupy, pair):
    seen = []
    minimize(pair[1], cupy.zeros(7), callback=seen.append)
    assert seen
    assert {type(vector) for state in seen for vector in (state.x, state.jac)} == {np.ndarray}
    stepper = ro.Stepper(pair[1], "cubic", rng=2)
    state = stepper.init(cupy.zeros(7))
    while state.status is None:
        stepper.step(state)
    assert isinstance(state.x, np.ndarray)
    result = stepper.result(state)
    assert isinstance(result.x, cupy.ndarray)
    assert_near(result.x.get(), state.x, 0)


@pytest.mark.parametrize("name", ["yao2018", "xu2017", "scr2017", "sarc2020"])
def test_presets(cupy, pair, name):
    expected, found = (quietly(p, np.zeros(7), **ro.preset(name), rng=1, maxiter=8) for p in pair)
    assert_near(found.x.get(), expected.x, 1e-6)


def test_certificates(cupy, pair):
    host, there = pair
    x = minimize(host, np.zeros(7), gtol=1e-10, rng=0).x
    expected = ro.check_second_order(host, x, 1e-8, 1e-6, rng=0)
    for point in (x, cupy.asarray(x)):
        found = ro.check_second_order(there, point, 1e-8, 1e-6, rng=0)
        assert found.satisfied
        assert isinstance(found.vector, cupy.ndarray)
        assert found.min_eig == pytest.approx(expected.min_eig, rel=1e-10)
    broken = ro.check_second_order(GLM(there.X, there.y + 1, "poisson"), np.full(7, 1e6), 1e-8, 1e-6)
    assert not broken.satisfied
    assert isinstance(broken.vector, cupy.ndarray)
    bound = ro.smallest_eigenvalue(there.hessian(x), 7, tol=1e-6, rng=0)
    assert bound.value == pytest.approx(expected.min_eig, rel=1e-10)
    s, idx = np.linspace(1, 2, 7), np.arange(100)
    wanted = ro.hessian_condition(host, x, s, idx)
    for arguments in ((x, s, idx), map(cupy.asarray, (x, s, idx))):
        assert tuple(ro.hessian_condition(there, *arguments)) == pytest.approx(tuple(wanted), rel=1e-10)


@pytest.mark.parametrize("layout", ["C", "F", "float32", "csr"])
@pytest.mark.parametrize("options", [{}, {"sketch_size": 60}, {"sketch_size": 4}, {"exact": False}, {"sketch_size": ROWS}])
def test_newton_sketch(cupy, layout, options):
    X, y, w = problem_of("logistic", layout=layout)
    host, there = twins(cupy, X, y, "logistic", 0.1, weights=w)
    expected = ro.newton_sketch(host, np.zeros(7), rng=0, **options)
    found = ro.newton_sketch(there, cupy.zeros(7), rng=0, **options)
    assert found.success
    assert isinstance(found.x, cupy.ndarray)
    assert isinstance(found.jac, cupy.ndarray)
    assert_near(found.x.get(), expected.x, 1e-6)
    with pytest.raises(ValueError, match="without negative second derivatives"):
        ro.newton_sketch(twins(cupy, X, y, "tukey", scale=0.1)[1], np.ones(7))


@pytest.mark.parametrize("name", ["box", "simplex", "ball", "l1"])
@pytest.mark.parametrize("samples", [{}, {"gradient_sample": 0.2, "hessian_sample": 0.1}])
def test_minimize_constrained(cupy, pair, name, samples):
    shapes = {"box": ro.Box(-0.1, 0.2), "simplex": ro.Simplex(), "ball": ro.L2Ball(0.3), "l1": ro.L1Ball(0.5)}
    expected, found = (
        ro.minimize_constrained(p, x0, shapes[name], rng=0, **samples)
        for p, x0 in zip(pair, (np.zeros(7), cupy.zeros(7)), strict=True)
    )
    assert found.success
    assert_near(found.x.get(), expected.x, 1e-5)
    assert isinstance(found.jac, cupy.ndarray)
    assert isinstance(found.active, cupy.ndarray)
    assert np.array_equal(found.active.get(), expected.active)
    for key, value in found.multipliers.items():
        assert isinstance(value, cupy.ndarray) == isinstance(expected.multipliers[key], np.ndarray)


def test_optimizers_of_scipy(pair):
    host, there = pair
    expected = minimize(host, np.zeros(7), gtol=1e-9).x
    product = {"hessp": lambda x, v: there.hessian(x) @ v}
    for method, curvature in (
        (ro.trust_region, {"hess": there.hessian}),
        (ro.cubic, product),
        ("Newton-CG", product),
        ("L-BFGS-B", {}),
    ):
        options = {"L-BFGS-B": {"ftol": 1e-15, "gtol": 1e-9}, "Newton-CG": {"xtol": 1e-9}}.get(method, {"gtol": 1e-9})
        found = scipy.optimize.minimize(there.value, np.zeros(7), jac=there.grad, method=method, options=options, **curvature)
        assert_near(found.x, expected, 1e-5)


def test_sums_of_a_device_can_be_copied(pair):
    host, there = pair
    quietly(there, np.zeros(7), gradient_sample="adaptive", maxiter=2)
    assert copy.copy(there).value(np.ones(7)) == there.value(np.ones(7))
    assert pickle.loads(pickle.dumps(host)).value(np.ones(7)) == host.value(np.ones(7))


def test_data_of_both_sides_are_refused(cupy):
    X, y, w = problem_of("logistic")
    A, b, v = map(cupy.asarray, (X, y, w))
    for arguments, options, names in (
        ((A, y), {}, "X and y"),
        ((X, b), {}, "X and y"),
        ((A, b), {"weights": w}, "X and y and weights"),
        ((X, y), {"weights": v}, "X and y and weights"),
    ):
        with pytest.raises(TypeError, match=f"{names} must all be on the host or all on the device"):
            GLM(*arguments, **options)


def test_vectors_of_a_device_need_data_there(cupy, pair):
    host, there = pair
    x = cupy.zeros(7)
    H = host.hessian(np.zeros(7))
    for call, name in (
        (lambda: host.value(x), "x"),
        (lambda: host.grad(x), "x"),
        (lambda: host.value(np.zeros(7), cupy.arange(3)), "idx"),
        (lambda: minimize(host, x), "x0"),
        (lambda: minimize(ro.from_callables(np.sum, np.ones_like), x), "x0"),
        (lambda: ro.newton_sketch(host, x), "x0"),
        (lambda: ro.minimize_constrained(host, x, ro.Box(0, 1)), "x0"),
        (lambda: ro.check_second_order(host, x, 0.1, 0.1), "x"),
        (lambda: ro.hessian_condition(host, np.zeros(7), x, [0]), "s"),
        (lambda: H @ x, "the operand of a Hessian product"),
        # These have no data of which the device could be told.
        (lambda: ro.smallest_eigenvalue(there.hessian(x), 7, tol=0.1, start=x), "start"),
        (lambda: ro.smallest_eigenvalue(cupy.eye(7), 7, tol=0.1), "H"),
        (lambda: ro.trust_region_subproblem(np.eye(7), x, 1.0), "g"),
        (lambda: ro.trust_region_subproblem(cupy.eye(7), np.ones(7), 1.0), "H"),
        (lambda: ro.cubic_subproblem(np.eye(7), x, 1.0), "g"),
        (lambda: ro.cubic_subproblem(cupy.eye(7), np.ones(7), 1.0), "H"),
        (lambda: ro.Box(x, 1), "lower"),
        (lambda: ro.cubic(there.value, x), "x0"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be .*cupy"):
            call()
    with pytest.raises(TypeError, match="the operand of a Hessian product must be real; got complex128"):
        there.hessian(np.zeros(7)) @ cupy.zeros(7, dtype=complex)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "float32", "csr"])
def test_numbers_that_are_not_finite(cupy, bad, layout):
    X, y, w = problem_of("least_squares", layout=layout)
    for name, wrong in (("X", X.copy()), ("y", y.copy()), ("weights", w.copy())):
        (wrong.data if name == "X" and layout == "csr" else wrong.reshape(-1) if wrong.flags.forc else wrong.T[0])[3] = bad
        with pytest.raises(ValueError, match=f"{name} must be finite; got 1 NaN or infinite of"):
            GLM(
                sent(cupy, wrong if name == "X" else X),
                cupy.asarray(wrong if name == "y" else y),
                "least_squares",
                weights=cupy.asarray(wrong if name == "weights" else w),
            )


@pytest.mark.parametrize("loss", [*LOSSES, "softmax"])
def test_labels_are_checked(cupy, loss):
    X, _, _ = problem_of(loss)
    wrong = {"logistic": 3.0, "squared_sigmoid": 0.5, "poisson": -1.0, "softmax": 1.5}
    y = np.full(ROWS, wrong.get(loss, 0.0))
    if loss in wrong:
        with pytest.raises(ValueError, match=f"y must (hold|not be negative).*loss '{loss}'; got .*{wrong[loss]:g}"):
            twins(cupy, X, y, loss)
        with pytest.raises(ValueError, match="y must"):
            GLM(cupy.asarray(X), cupy.asarray(y), loss)
    # Labels of every kind, as they come: integers become float64.
    known = np.resize([0, 1, 2] if loss == "softmax" else labels_of(loss), ROWS)
    there = GLM(cupy.asarray(X), cupy.asarray(known.astype(np.int32 if loss == "softmax" else float)), loss)
    assert there.y.dtype == np.float64


def test_shapes_are_checked(cupy):
    X, y, w = map(cupy.asarray, problem_of("logistic"))
    for arguments, weights, error, message in (
        ((X[0], y), None, ValueError, "X must have 2 dimensions"),
        ((X[:0], y[:0]), None, ValueError, "X must have rows and columns"),
        ((X, y[1:]), None, ValueError, r"y must have shape \(300,\)"),
        ((X, y), w[1:], ValueError, r"weights must have shape \(300,\)"),
        ((X, y), -w, ValueError, "weights must not be negative"),
        ((X * 1j, y), None, TypeError, "X must be real"),
    ):
        with pytest.raises(error, match=message):
            GLM(*arguments, weights=weights)


def test_networks_of_own_functions_are_as_before(cupy):
    """A sum of own functions may work on the device within; its vectors are the host's."""
    B = cupy.asarray(np.diag(np.arange(1.0, 6)))
    problem = ro.from_callables(
        lambda x: 0.5 * float(cupy.asarray(x) @ (B @ cupy.asarray(x))) - x.sum(), lambda x: (B @ cupy.asarray(x)).get() - 1
    )
    found = minimize(problem, np.zeros(5), gtol=1e-9)
    assert isinstance(found.x, np.ndarray)
    assert_near(found.x, 1 / np.arange(1.0, 6), 1e-9)
