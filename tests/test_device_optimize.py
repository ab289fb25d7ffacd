"""Generalized linear models of a device: the numbers and the runs of the host, with vectors that stay where they are."""

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from glm_oracles import LOSSES, labels_of
from minimize_problems import MODELS, quietly
from sampled_runs import SAMPLES, data

import randla.optimize as ro
from randla.optimize import GLM, Loss, minimize
from randla.optimize._samples import RowOrder
from randla.optimize.objective import Sample, WindowSample

NAMES = (*LOSSES, "softmax")
ROWS = 300
LAYOUTS = {
    "C": lambda X: np.ascontiguousarray(X),
    "F": lambda X: np.asfortranarray(X),
    "strided": lambda X: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "float32": lambda X: X.astype(np.float32),
    "csr": lambda X: sp.csr_array(X * (np.abs(X) > 0.4)),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)
losses = pytest.mark.parametrize("loss", NAMES)


def sent(cupy, X):
    if not sp.issparse(X):
        return cupy.asarray(X)
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse.csr_matrix(sp.csr_matrix(X))


def twins(cupy, X, y, *args, weights=None, **options):
    """The same sum on the host and on the device."""
    there = None if weights is None else cupy.asarray(weights)
    return GLM(X, y, *args, weights=weights, **options), GLM(sent(cupy, X), cupy.asarray(y), *args, weights=there, **options)


def problem_of(loss, n=ROWS, d=7, layout="C"):
    """X, y and weights."""
    rng = np.random.default_rng(len(loss))
    X = rng.standard_normal((n, d)) * np.logspace(0, -0.5, d)
    y = rng.choice(np.arange(3) if loss == "softmax" else labels_of(loss), n).astype(float)
    return LAYOUTS[layout](X), y, rng.uniform(0.1, 2, n)


@pytest.fixture
def transfers(cupy):
    """What went to the host; a real device does not tell."""
    if cupy.ndarray is not fake_cupy.ndarray:
        pytest.skip("only the stand-in counts transfers")
    fake_cupy.TRANSFERS.clear()
    return fake_cupy.TRANSFERS


def assert_near(found, expected, tolerance=1e-12):
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * (np.abs(expected).max() + 1e-300))


@losses
@layouts
def test_values_gradients_and_products_are_those_of_the_host(cupy, loss, layout):
    X, y, w = problem_of(loss, layout=layout)
    host, there = twins(cupy, X, y, loss, 0.1, ro.NonConvexRegularizer(0.2), weights=w)
    rng = np.random.default_rng(0)
    x, V = 0.3 * rng.standard_normal(host.dim), rng.standard_normal((host.dim, 3))
    for idx in (None, rng.permutation(ROWS)[:100], np.array([5, 5, -1, 0])):
        assert there.value(x, idx) == pytest.approx(host.value(x, idx), rel=1e-12)
        g = there.grad(cupy.asarray(x), idx)
        assert isinstance(g, cupy.ndarray)
        assert_near(g.get(), host.grad(x, idx))
        assert_near(there.grad(x, idx), host.grad(x, idx))
        H, expected = there.hessian(x, idx), host.hessian(x, idx)
        assert_near(H @ V, expected @ V)
        assert_near((H @ cupy.asarray(V)).get(), expected @ V)
        assert_near((H @ cupy.asarray(V[:, 0])).get(), expected @ V[:, 0])
        D = H.to_dense()
        assert_near(D, expected.to_dense())
        assert np.array_equal(D, D.T)
    assert there.value(x, cupy.asarray(np.array([3, 4]))) == there.value(x, [3, 4])


@pytest.mark.parametrize("name", ["change", "noise", "accept", "variances", "importance", "bound"])
@pytest.mark.parametrize("loss", ["logistic", "tukey", "softmax"])
def test_what_methods_ask_for_is_that_of_the_host(cupy, loss, name):
    X, y, w = problem_of(loss)
    pair, rng = twins(cupy, X, y, loss, 0.01, weights=w), np.random.default_rng(1)
    x, p = 0.2 * rng.standard_normal(pair[0].dim), 1e-6 * rng.standard_normal(pair[0].dim)
    sample = Sample(np.sort(rng.permutation(ROWS)[:100]))

    def asked(problem):
        for at in (problem.at(x), problem.at(x, sample), problem.at(x).restricted(sample)):
            ray = at.ray(p)
            if name == "change":
                yield from (ray.change(), ray.decrease, ray.variance)
            elif name == "noise":
                yield ray.noise()
            elif name == "accept":
                yield from (ray.accept(0.5).fun, *ray.accept().grad)
            elif name == "variances":
                yield from at.variances(True)
            elif name == "importance":
                yield from problem_to_host(at.importance("row-norm"))
            else:
                yield float(at.gradient_squares().max())

    def problem_to_host(a):
        return a if isinstance(a, np.ndarray) else a.get()

    expected, found = (np.array(list(asked(problem))) for problem in pair)
    # Changes of values are sums that all but cancel.
    np.testing.assert_allclose(found, expected, rtol=1e-7 if name == "change" else 1e-10)


METHODS = MODELS | {"newton-mr": ro.NewtonMR(), "newton": ro.Newton()}


@pytest.mark.parametrize(
    ("method", "loss"),
    [*((method, "logistic") for method in METHODS), ("trust-region gltr", "softmax"), ("cubic lanczos", "softmax")],
)
def test_methods_take_the_steps_of_the_host(cupy, method, loss):
    X, y, _ = problem_of(loss)
    host, there = twins(cupy, X, y, loss, 0.1)
    x0 = np.full(host.dim, 0.3)
    # Differences of rounding grow from step to step, most where the Hessian is known by products alone.
    expected, found = (quietly(p, x0, METHODS[method], maxiter=3, rng=3) for p in (host, there))
    assert found.nit == expected.nit
    assert_near(found.x.get(), expected.x, 1e-7)
    expected, found = (quietly(p, x0, METHODS[method], gtol=1e-8, rng=3) for p in (host, there))
    assert found.status is expected.status
    assert_near(found.x.get(), expected.x, 1e-6)


@losses
@pytest.mark.parametrize("method", ["trust-region", "cubic"])
def test_every_loss_is_minimized_as_on_the_host(cupy, loss, method):
    X, y, w = problem_of(loss)
    host, there = twins(cupy, X, y, loss, 0.05, weights=w)
    expected, found = (quietly(p, np.zeros(host.dim), method, gtol=1e-8, rng=0) for p in (host, there))
    assert found.success
    assert expected.success
    assert found.fun == pytest.approx(expected.fun, rel=1e-10)
    assert_near(found.x.get(), expected.x, 1e-6)
    assert found.min_eig == pytest.approx(expected.min_eig, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize(
    ("mode", "layout"),
    [
        *((mode, "C") for mode in SAMPLES),
        *((mode, layout) for mode in ("fixed", "adaptive", "norm") for layout in ("F", "csr")),
    ],
)
def test_samples_are_those_of_the_host(cupy, mode, layout):
    X, y = data(600, 6)
    host, there = twins(cupy, LAYOUTS[layout](X), y, "squared_sigmoid", 1e-3)
    gradient, hessian = SAMPLES[mode]
    options = {"gradient_sample": gradient, "hessian_sample": hessian, "maxiter": 6, "gtol": 1e-7, "rng": 1}
    expected, found = (quietly(p, np.zeros(6), **options) for p in (host, there))
    for name in ("gradient_sample", "hessian_sample", "props", "products", "accepted"):
        assert [entry[name] for entry in found.history] == [entry[name] for entry in expected.history]
    assert_near(found.x.get(), expected.x, 1e-7)


@pytest.mark.parametrize("scheme", ["row-norm", "leverage"])
def test_draws_by_importance_are_those_of_the_host(cupy, scheme):
    X, y, w = problem_of("logistic")
    host, there = twins(cupy, X, y, "logistic", 0.1, weights=w)
    options = {"hessian_sample": 200, "sampling": scheme, "rng": 5, "maxiter": 5}
    expected, found = (quietly(p, np.zeros(7), **options) for p in (host, there))
    assert_near(found.x.get(), expected.x, 1e-8)


def test_seeds_replay(cupy):
    X, y = data(600, 6)
    problem = twins(cupy, X, y, "squared_sigmoid")[1]
    options = {"gradient_sample": "adaptive", "hessian_sample": "adaptive"}
    first = quietly(problem, np.zeros(6), **options)
    again = quietly(problem, np.zeros(6), **options, rng=first.seed)
    assert np.array_equal(first.x.get(), again.x.get())
    assert first.props == again.props


@pytest.mark.parametrize("layout", ["C", "F", "csr"])
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_a_pass_is_waited_for_once(cupy, transfers, loss, layout):
    X, y, _ = problem_of(loss, layout=layout)
    problem = twins(cupy, X, y, loss, 0.1)[1]
    x, entries = np.full(problem.dim, 0.1), problem.dim
    problem.grad(np.zeros(problem.dim))  # the first pass transposes a sparse matrix
    at = problem.at(x)
    transfers.clear()
    _ = at.grad, at.fun
    assert transfers == [(entries + 1,)]
    transfers.clear()
    H = at.hessian()
    assert not transfers
    _ = H @ x
    assert [int(np.prod(shape)) for shape in transfers] == [entries]
    transfers.clear()
    _ = H @ cupy.asarray(x)
    assert not transfers
    ray = at.ray(-0.1 * at.grad)
    assert ray.change() < 0
    assert transfers == [(2,)]
    transfers.clear()
    after = ray.accept()
    _ = after.grad, after.fun
    assert transfers == [(entries + 1,)]


@pytest.mark.parametrize(
    ("mode", "loss"),
    [(mode, "squared_sigmoid") for mode in ("all", "fixed", "adaptive", "inner product", "dynamic")] + [("adaptive", "user")],
)
def test_nothing_as_long_as_the_rows_comes_to_the_host(cupy, transfers, mode, loss):
    X, y = data(600, 6)
    problem = twins(cupy, X, y, squared if loss == "user" else loss)[1]
    gradient, hessian = SAMPLES[mode]
    transfers.clear()
    quietly(problem, np.zeros(6), gradient_sample=gradient, hessian_sample=hessian, rng=1, maxiter=20)
    assert max(int(np.prod(shape)) for shape in transfers) <= 6 * 6


def test_draws_by_importance_bring_one_number_for_each_term(cupy, transfers):
    X, y, _ = problem_of("logistic")
    problem = twins(cupy, X, y, "logistic", 0.1)[1]
    quietly(problem, np.zeros(7), hessian_sample=100, sampling="row-norm", rng=1, maxiter=3)
    assert [shape for shape in transfers if np.prod(shape) > 50] == [(ROWS,)] * 3


def test_rows_that_lie_together_are_never_copied(cupy):
    X, y = data(600, 6)
    order = RowOrder(600, 0)
    samples = [WindowSample(order, 0, 300), WindowSample(order, 100, 500), Sample(np.arange(50))]
    for layout in ("C", "float32"):
        problem = twins(cupy, LAYOUTS[layout](X), y)[1]
        for sample in samples:
            assert problem.design_of(sample).A is problem.X
    for layout in ("F", "csr"):
        problem = twins(cupy, LAYOUTS[layout](X), y)[1]
        for sample in samples:
            design = problem.design_of(sample)
            assert design.A.shape == (sample.size, 6)
            assert problem.design_of(sample) is design
        # The rest of the rows is most of X: it is read where it lies.
        assert problem.design.listing(np.arange(300, 600)).A is problem.X


squared = Loss(lambda z, y: 0.5 * (z - y) ** 2, lambda z, y: z - y, lambda z, y: 0 * z + 1, name="squared", convex=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_functions_of_a_loss_get_arrays_of_the_device(cupy, weighted):
    X, y, w = problem_of("least_squares")
    kinds = set()

    def value(z, labels):
        kinds.update((type(z), type(labels)))
        return squared.value(z, labels)

    own = Loss(value, squared.first, squared.second, convex=True)
    problem = twins(cupy, X, y, own, 0.1, weights=w if weighted else None)[1]
    native = twins(cupy, X, y, "least_squares", 0.1, weights=w if weighted else None)[0]
    expected, found = (minimize(p, np.zeros(7), gtol=1e-7) for p in (native, problem))
    assert kinds == {cupy.ndarray}
    assert_near(found.x.get(), expected.x, 1e-6)


def test_functions_of_a_loss_must_stay_on_the_device(cupy):
    X, y, _ = problem_of("least_squares")
    x = np.zeros(7)
    strays = Loss(lambda z, y: z.get(), squared.first, squared.second, name="strays")
    with pytest.raises(TypeError, match=r"value of loss 'strays' must return an array of the device.*numpy.ndarray"):
        twins(cupy, X, y, strays)[1].value(x)
    short = Loss(squared.value, lambda z, y: z[:3], squared.second, name="short")
    with pytest.raises(ValueError, match=r"first of loss 'short' must return an array of shape \(300,\)"):
        twins(cupy, X, y, short)[1].value(x)


@layouts
def test_squares_of_rows_and_leverage_scores_stay_on_the_device(cupy, layout):
    X, y, _ = problem_of("logistic", layout=layout)
    host, there = twins(cupy, X, y)
    for name in ("row_squares", "leverage"):
        found = getattr(there, name)
        assert isinstance(found, cupy.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found.get(), getattr(host, name), rtol=1e-10)


@layouts
def test_a_sample_may_be_empty(cupy, layout):
    """Where every loss is flat there is nothing to draw, and the Hessian of the data is zero."""
    X, y, _ = problem_of("tukey", layout=layout)
    problem = twins(cupy, X, y + 1e3, "tukey", 0.5)[1]
    at = problem.at(np.zeros(7))
    assert not at.importance("row-norm").get().any()
    H = at.hessian(Sample(np.zeros(0, np.int64), np.zeros(0)))
    assert np.array_equal(H @ np.ones(7), np.full(7, 0.5))
    assert np.array_equal(H.to_dense(), 0.5 * np.eye(7))


def test_functions_of_a_regularizer_get_arrays_of_the_host(cupy):
    X, y, _ = problem_of("logistic")
    kinds = set()

    def value(x):
        kinds.add(type(x))
        return x**4

    own = ro.Regularizer(value, lambda x: 4 * x**3, lambda x: 12 * x * x, convex=True)
    host, there = twins(cupy, X, y, "logistic", 0.1, own)
    expected, found = (minimize(p, np.full(7, 0.5), gtol=1e-8) for p in (host, there))
    assert_near(found.x.get(), expected.x, 1e-6)
    assert there.value(cupy.ones(7)) == pytest.approx(host.value(np.ones(7)), rel=1e-12)
    assert kinds == {np.ndarray}
