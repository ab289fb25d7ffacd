"""The loop one step at a time, in loops of others, and on problem classes of one's own."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from randla.optimize import (
    GLM,
    CubicRegularization,
    FiniteSum,
    MinimizeStatus,
    MinimizeWarning,
    NormTest,
    Stepper,
    TrustRegion,
    minimize,
)

Status = MinimizeStatus


def data(n=3000, d=8):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) * np.logspace(0, -1, d)
    return X, (rng.random(n) < 1 / (1 + np.exp(-2 * X @ rng.standard_normal(d)))).astype(float)


def glm():
    return GLM(*data(), "squared_sigmoid")


class Regression(FiniteSum):
    """(1/n) sum (sin(a_i'x) - b_i)^2 / 2, with value, gradient and Hessian only; `kind` says as what the Hessian comes."""

    def __init__(self, kind="array", n=400, dim=4):
        rng = np.random.default_rng(3)
        self.A, self.n, self.dim, self.kind = rng.standard_normal((n, dim)), n, dim, kind
        self.b = np.sin(self.A @ rng.standard_normal(dim)) + 0.1 * rng.standard_normal(n)

    def rows(self, idx):
        return (self.A, self.b) if idx is None else (self.A[idx], self.b[idx])

    def value(self, x, idx=None):
        A, b = self.rows(idx)
        return 0.5 * np.mean((np.sin(A @ x) - b) ** 2)

    def grad(self, x, idx=None):
        A, b = self.rows(idx)
        return A.T @ ((np.sin(A @ x) - b) * np.cos(A @ x)) / len(b)

    def hessian(self, x, idx=None):
        A, b = self.rows(idx)
        z = A @ x
        d = (np.cos(z) ** 2 - (np.sin(z) - b) * np.sin(z)) / len(b)
        if self.kind == "operator":
            return aslinearoperator(A.T) @ aslinearoperator(sp.diags_array(d)) @ aslinearoperator(A)
        H = A.T @ (d[:, None] * A)
        return {
            "array": lambda: H,
            "csr": lambda: sp.csr_array(H),
            "csc matrix": lambda: sp.csc_matrix(H),
            "float32": lambda: H.astype("f"),
        }[self.kind]()


MODES = [
    {},
    {"method": "cubic", "hessian_sample": 0.1},
    {"method": "newton-mr"},
    {"gradient_sample": "adaptive", "hessian_sample": "adaptive"},
    {"gradient_sample": 500, "hessian_sample": 50, "sampling": "row-norm"},
    {"gradient_sample": NormTest(), "function_sample": "all", "gtol": 1e-4, "htol": 0.1},
]


@pytest.mark.parametrize("arguments", MODES, ids=str)
def test_steps_are_those_of_minimize(arguments):
    problem, x0 = glm(), np.full(8, 0.1)
    stepper = Stepper(problem, **arguments, rng=3)
    state = stepper.init(x0)
    seen = []
    expected = []
    while state.status is None and state.iteration < 12:
        before = state.iteration
        assert stepper.step(state) is state
        if state.iteration > before:
            seen.append(state.x.copy())
    result = stepper.result(state)
    with pytest.warns(MinimizeWarning) if not result.success else pytest.MonkeyPatch.context():
        whole = minimize(problem, x0, **arguments, rng=3, maxiter=12, callback=lambda s: expected.append(s.x))
    np.testing.assert_array_equal(np.array(seen), np.array(expected))
    np.testing.assert_array_equal(result.x, whole.x)
    assert result.success == whole.success
    assert result.props == whole.props
    assert result.seed == whole.seed == 3
    assert len(result.history) == len(whole.history) == result.nit
    for entry, other in zip(result.history, whole.history, strict=True):
        assert {k: v for k, v in entry.items() if k != "time"} == {k: v for k, v in other.items() if k != "time"}


def test_what_a_state_says():
    problem = glm()
    stepper = Stepper(problem, TrustRegion(radius=0.5), rng=0)
    state = stepper.init(np.zeros(8))
    assert state.status is None
    assert math.isnan(state.size)
    assert state.fun == pytest.approx(0.25)
    assert state.grad_norm == pytest.approx(np.linalg.norm(problem.grad(np.zeros(8))))
    assert state.counts.props == 2 * problem.n
    stepper.step(state)
    assert state.size in (0.5, 1.0)
    assert state.iteration == len(state.history) == 1
    early = stepper.result(state)
    assert not early.success
    np.testing.assert_array_equal(early.x, state.x)
    while state.status is None:
        stepper.step(state)
    assert state.status is Status.CONVERGED
    # A run that has ended makes no more steps.
    x, props = state.x.copy(), state.counts.props
    stepper.step(state)
    np.testing.assert_array_equal(state.x, x)
    assert state.counts.props == props


def test_results_on_the_way_change_nothing_but_the_counts():
    runs = []
    for asked in (False, True):
        stepper = Stepper(glm(), TrustRegion(subproblem="block"), hessian_sample=0.1, rng=4)
        state = stepper.init(np.zeros(8))
        while state.status is None:
            stepper.step(state)
            if asked:
                stepper.result(state)
        runs.append((state.x, state.status, state.iteration))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]


def test_runs_are_independent():
    """One stepper, two runs taken in turns."""
    problem, starts = glm(), (np.zeros(8), np.full(8, 0.5))
    stepper = Stepper(problem, "cubic", gradient_sample="adaptive", hessian_sample=0.2, rng=1)
    alone = []
    for x0 in starts:
        state = stepper.init(x0)
        for _ in range(6):
            stepper.step(state)
        alone.append(state.x.copy())
    states = [stepper.init(x0) for x0 in starts]
    for _ in range(6):
        for state in states:
            stepper.step(state)
    for state, x in zip(states, alone, strict=True):
        np.testing.assert_array_equal(state.x, x)


def test_in_the_loop_of_another_optimizer():
    """Gradient descent far from a minimizer, the stepper near one: what it reaches it also proves."""
    problem = Regression()
    x = np.zeros(4)
    while np.linalg.norm(problem.grad(x)) > 1e-2:
        x = x - 0.5 * problem.grad(x)
    stepper = Stepper(problem, CubicRegularization(), gtol=1e-10, htol=1e-5, rng=0)
    state = stepper.init(x)
    lengths = []
    while state.status is None:
        before = state.x.copy()
        stepper.step(state)
        lengths.append(np.linalg.norm(state.x - before))
    assert state.status is Status.CONVERGED
    assert np.linalg.norm(problem.grad(state.x)) <= 1e-10
    assert np.linalg.eigvalsh(problem.hessian(state.x))[0] > 0
    assert len(lengths) < 12


def test_moving_the_weights_between_runs():
    """A penalty method: the runs of ever larger weights start where the last one ended."""
    X, y = data(500, 8)
    x, norms = np.zeros(8), []
    for l2 in (1e-3, 1e-2, 1e-1, 1.0):
        stepper = Stepper(GLM(X, y, "logistic", l2), "newton", gtol=1e-9, rng=0)
        state = stepper.init(x)
        while state.status is None:
            stepper.step(state)
        assert stepper.result(state).success
        x = state.x
        norms.append(np.linalg.norm(x))
    assert norms == sorted(norms, reverse=True)


@pytest.mark.parametrize("method", ["trust-region", "cubic", "newton-mr", TrustRegion(subproblem="exact")], ids=str)
@pytest.mark.parametrize("kind", ["array", "csr", "csc matrix", "operator", "float32"])
def test_problem_classes_of_ones_own(kind, method):
    problem = Regression(kind)
    gtol = 1e-5 if kind == "float32" else 1e-8
    for sample in (None, 0.5):
        result = minimize(problem, np.zeros(4), method, hessian_sample=sample, gtol=gtol, htol=1e-4, rng=0)
        assert result.status is Status.CONVERGED
        np.testing.assert_allclose(result.x, minimize(Regression(), np.zeros(4), gtol=1e-10, rng=0).x, atol=1e-4)
        assert result.props == result.nfev * 400 + result.njev * 800 + sum(
            2 * entry["products"] * entry["hessian_sample"] for entry in result.history
        ) + 2 * 400 * (result.nhev - sum(entry["products"] for entry in result.history))


def test_problem_classes_of_ones_own_on_samples():
    problem = Regression("operator")
    with pytest.warns(MinimizeWarning):
        result = minimize(problem, np.zeros(4), gradient_sample=0.5, hessian_sample=0.2, rng=0, maxiter=30)
    assert np.linalg.norm(problem.grad(result.x)) < 0.05


@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 5)])
def test_hessians_of_wrong_shape(shape):
    class Wrong(Regression):
        def hessian(self, x, idx=None):
            return np.zeros(shape)

    with pytest.raises(ValueError, match=r"the Hessian must have shape \(4, 4\)"):
        minimize(Wrong(), np.zeros(4))


def test_functions_that_are_missing():
    class Half(FiniteSum):
        n, dim = 3, 2

        def value(self, x, idx=None):
            return float(x @ x)

    with pytest.raises(NotImplementedError):
        minimize(Half(), np.zeros(2))


def test_arguments_are_checked_by_the_stepper():
    with pytest.raises(TypeError, match="problem must be a FiniteSum"):
        Stepper(lambda x: x)
    with pytest.raises(ValueError, match="sampling"):
        Stepper(glm(), sampling="all")
    with pytest.raises(ValueError, match="x0 must have shape"):
        Stepper(glm()).init(np.zeros(3))
    with pytest.raises(TypeError):
        Stepper(glm(), maxiter=3)


def test_results_can_be_stored():
    result = minimize(glm(), np.zeros(8), rng=0)
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.x, result.x)
    assert again.status is Status.CONVERGED
    assert again.history == result.history
