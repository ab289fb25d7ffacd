"""What `minimize` on samples counts: every call, and every pass over a term."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
from minimize_problems import quietly
from sampled_runs import SAMPLES, data, glm, modes, run_mode

from randla.optimize import (
    GLM,
    CubicRegularization,
    DecreaseTest,
    InnerProductTest,
    Loss,
    Newton,
    NewtonMR,
    NonConvexRegularizer,
    NormTest,
    StepRule,
    TrustRegion,
    from_callables,
)
from randla.optimize._design import Design

METHODS = {
    "trust-region": TrustRegion(),
    "steihaug": TrustRegion(subproblem="steihaug"),
    "tr block": TrustRegion(subproblem="block"),
    "tr exact": TrustRegion(subproblem="exact"),
    "cubic": CubicRegularization(),
    "cubic block": CubicRegularization(subproblem="block"),
    "cubic exact": CubicRegularization(subproblem="exact"),
    "gradient": CubicRegularization(subproblem="gradient"),
    "newton-mr": NewtonMR(),
    "newton": Newton(),
}


methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Told:
    """A least-squares problem by callables, that counts for itself what it is asked."""

    def __init__(self, n=300, d=5, seed=0):
        rng = np.random.default_rng(seed)
        self.A, self.n, self.d = rng.standard_normal((n, d)), n, d
        self.b = np.sin(self.A @ rng.standard_normal(d)) + 0.1 * rng.standard_normal(n)
        self.nfev = self.njev = self.nhev = self.props = 0
        self.problem = from_callables(self.fun, self.grad, self.hessp, n=n, dim=d)

    def rows(self, idx, passes):
        if idx is None:
            idx = np.arange(self.n)
        assert idx.dtype == np.int64
        assert len(np.unique(idx)) == len(idx) > 0
        self.props += passes * len(idx)
        return self.A[idx], self.b[idx]

    def fun(self, x, idx):
        A, b = self.rows(idx, 1)
        self.nfev += 1
        return float(np.mean((np.sin(A @ x) - b) ** 2)) + 0.05 * float(x @ x)

    def grad(self, x, idx):
        A, b = self.rows(idx, 2)
        self.njev += 1
        z = A @ x
        return A.T @ (2 * (np.sin(z) - b) * np.cos(z)) / len(b) + 0.1 * x

    def hessp(self, x, v, idx):
        A, b = self.rows(idx, 2)
        self.nhev += 1
        z = A @ x
        return A.T @ (2 * (np.cos(z) ** 2 - (np.sin(z) - b) * np.sin(z)) * (A @ v)) / len(b) + 0.1 * v


@methods
@pytest.mark.parametrize("sample", [(None, None), (None, 0.2), (60, 30), (0.5, "adaptive"), (StepRule(), StepRule())], ids=str)
@pytest.mark.parametrize("function", [None, "all", "gradient"])
def test_calls_of_callables_are_counted(sample, function, method):
    told = Told()
    gradient, hessian = sample
    x0 = np.full(5, 0.3)
    result = quietly(
        told.problem, x0, method, gradient_sample=gradient, hessian_sample=hessian, function_sample=function, maxiter=25, rng=1
    )
    assert (result.nfev, result.njev, result.nhev, result.props) == (told.nfev, told.njev, told.nhev, told.props)
    assert told.props >= 3 * told.n if gradient is None else told.props > 0


class Reads:
    """Counts the rows that a GLM reads, one way: forward, backward, or both."""

    def __init__(self, monkeypatch):
        self.count = 0
        evaluate, product, softmax, gram = Design.evaluate, Design._product, Design.softmax_product, Design.gram

        def counted_evaluate(design, loss, y, w, x, gradient, z=None):
            if hasattr(loss, "id") and z is None:  # others are made of products
                self.count += design.count * (2 if gradient else 1)
            return evaluate(design, loss, y, w, x, gradient, z)

        def counted_product(design, V, C, d, U, G):
            ways = (V is not None) + (G is not None)
            self.count += ways * design.count * (len(V) if d is not None else 1)
            product(design, V, C, d, U, G)

        def counted_softmax(design, V, p, w):
            self.count += 2 * design.count * len(V)
            return softmax(design, V, p, w)

        def counted_gram(design, d):
            self.count += 2 * design.count * design.dim
            return gram(design, d)

        monkeypatch.setattr(Design, "evaluate", counted_evaluate)
        monkeypatch.setattr(Design, "_product", counted_product)
        monkeypatch.setattr(Design, "softmax_product", counted_softmax)
        monkeypatch.setattr(Design, "gram", counted_gram)


@methods
@modes
def test_rows_read_are_counted(mode, method, monkeypatch):
    reads = Reads(monkeypatch)
    problem = GLM(*data(1500, 6), "logistic", 1e-3)
    result = run_mode(problem, method, mode, maxiter=30)
    assert result.props == reads.count
    assert result.history[-1]["props"] <= result.props


@pytest.mark.parametrize("function", [None, "all", "gradient"])
@pytest.mark.parametrize("sampling", ["uniform", "row-norm", "leverage"])
@pytest.mark.parametrize("mode", ["hessian", "fixed", "adaptive", "norm", "dynamic", "step"])
def test_rows_read_are_counted_for_every_sampling(mode, sampling, function, monkeypatch):
    reads = Reads(monkeypatch)
    problem = GLM(*data(1500, 6), "squared_sigmoid")
    result = run_mode(problem, TrustRegion(), mode, maxiter=30, sampling=sampling, function_sample=function)
    assert result.props == reads.count


@pytest.mark.parametrize("kind", ["softmax", "user", "csr", "regularizer"])
@pytest.mark.parametrize("mode", ["all", "fixed", "adaptive", "norm"])
def test_rows_read_are_counted_for_every_problem(kind, mode, monkeypatch):
    reads = Reads(monkeypatch)
    X, y = data(1500, 6)
    user = Loss(lambda z, y: (z - y) ** 2, lambda z, y: 2 * (z - y), lambda z, y: np.full_like(z, 2.0))
    problem = {
        "softmax": lambda: GLM(X, y + (X[:, 0] > 0), "softmax", 1e-3),
        "user": lambda: GLM(X, y, user),
        "csr": lambda: GLM(sp.csr_array(np.where(np.abs(X) > 0.3, X, 0)), y, "logistic", 1e-3),
        "regularizer": lambda: GLM(X, y, "logistic", regularizer=NonConvexRegularizer(1e-3)),
    }[kind]()
    result = run_mode(problem, TrustRegion(), mode, maxiter=30)
    assert result.props == reads.count


def test_a_sample_of_terms_that_were_read_takes_no_forward_pass():
    """The start, value of all and gradient of 500: n + 500 props; a step: n for the value, 500 for the gradient."""
    result = quietly(glm(), np.zeros(12), gradient_sample=500, hessian_sample=100, gtol=1e-9, maxiter=1, rng=0, htol=math.inf)
    (entry,) = result.history
    assert entry["accepted"]
    assert entry["props"] == 5000 + 500 + 2 * 100 * entry["products"] + 5000 + 500


@pytest.mark.parametrize("method", [TrustRegion(radius=1e3), CubicRegularization(sigma=1e-9)], ids=["trust-region", "cubic"])
@modes
def test_rejected_steps_take_no_products_on_samples(mode, method):
    """Unless the sample was drawn anew, which is after every third rejection of samples that do not only grow."""
    gradient, hessian = SAMPLES[mode]
    x0 = np.full(12, 1.5)
    result = quietly(glm(), x0, method, gradient_sample=gradient, hessian_sample=hessian, maxiter=60, gtol=1e-7, rng=1)
    redrawn = not isinstance(gradient, DecreaseTest | NormTest | InnerProductTest | str | None)
    row = seen = 0
    for entry, following in itertools.pairwise(result.history):
        row = 0 if entry["accepted"] else row + 1
        if row and not (redrawn and row % 3 == 0):
            assert following["products"] == 0
            seen += 1
    assert seen >= 3
