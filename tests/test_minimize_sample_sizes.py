"""How many terms `minimize` draws, what rules of sample sizes are told, and averages of sampled Hessians."""

import itertools

import numpy as np
import pytest
from minimize_problems import Status, quietly
from sampled_runs import data, glm

from randla.optimize import (
    GLM,
    CubicRegularization,
    DynamicAccuracy,
    FractionOf,
    GradientChange,
    NormTest,
    SampleRule,
    Stepper,
    StepRule,
    TrustRegion,
    minimize,
)
from randla.optimize._curvature import AveragedHessian
from randla.optimize._samples import RowOrder


def test_sizes_of_samples():
    problem = glm()

    def sizes(name, **more):
        entries = quietly(problem, np.zeros(12), rng=0, gtol=1e-6, maxiter=40, **more).history
        return [entry[name] for entry in entries]

    assert set(sizes("gradient_sample", gradient_sample=700)) == {700}
    assert set(sizes("gradient_sample", gradient_sample=0.1)) == {500}
    assert set(sizes("hessian_sample", hessian_sample=700)) == {700}
    assert set(sizes("hessian_sample", hessian_sample=0.1)) == {500}
    assert set(sizes("hessian_sample", hessian_sample=FractionOf(0.3))) == {1500}
    assert set(sizes("hessian_sample", hessian_sample="adaptive")) == {500}
    # Hessians of no more terms than the gradient's.
    assert set(sizes("hessian_sample", hessian_sample=0.5, gradient_sample=500)) == {500}
    growing = sizes("gradient_sample", gradient_sample="adaptive")
    assert growing[0] < 1000
    assert growing == sorted(growing)
    assert growing[-1] == 5000
    # Averages only where 4 dim^2 terms are given.
    few = GLM(*data(500, 12), "squared_sigmoid")
    pairs = [
        (entry["gradient_sample"], entry["hessian_sample"])
        for entry in quietly(few, np.zeros(12), gradient_sample="adaptive", hessian_sample="adaptive", rng=0).history
    ]
    # Then all of them, once a tenth of the gradient takes more than ten iterations.
    last = [size for sample, size in pairs if sample == 500]
    assert last[1:11] == [50] * 10
    assert last[-1] == 500
    many = quietly(problem, np.zeros(12), gradient_sample="adaptive", hessian_sample="adaptive", rng=0).history
    assert (many[-1]["gradient_sample"], many[-1]["hessian_sample"]) == (5000, 208)  # n / (2 dim)
    # The Hessian's rule has a first size of its own, not the gradient's.
    steps = sizes("hessian_sample", hessian_sample=StepRule(first=0.02))
    assert steps[0] == 100
    assert max(steps) == 5000
    changes = sizes("hessian_sample", hessian_sample=GradientChange(first=0.1, high=1000))
    assert changes[0] == 500
    assert max(changes) == 1000


class Recorded(SampleRule):
    """A rule that writes down what it is told; sizes grow with every third question by `growth`."""

    def __init__(self, size, needs=(), growth=0):
        self.size, self.needs, self.growth, self.seen = size, needs, growth, []

    def next_size(self, state):
        self.seen.append({name: getattr(state, name) for name in state.__slots__})
        return self.size + self.growth * (len(self.seen) // 3)


NEEDS = ("gradient_variance", "inner_product_variance", "decrease_variance", "bound")


@pytest.mark.parametrize("function", ["all", "gradient"])
def test_rules_are_told_what_they_need(function):
    """On all terms, where everything can be computed again."""
    X, y = data(5000, 12)
    problem = GLM(X, y)
    gradient, hessian, points = Recorded(4999, NEEDS), Recorded(100, NEEDS), [np.zeros(12)]
    quietly(
        problem,
        points[0],
        CubicRegularization(),
        gradient_sample=gradient,
        hessian_sample=hessian,
        function_sample=function,
        maxiter=6,
        rng=0,
        callback=lambda state: points.append(state.x),
    )
    assert gradient.seen[0]["size"] == hessian.seen[0]["size"] == 0
    assert (gradient.seen[0]["n"], gradient.seen[0]["dim"]) == (5000, 12)
    told = gradient.seen[1:]
    assert all(state["size"] == state["first_size"] == 4999 for state in told)
    assert [state["size"] for state in hessian.seen[1:]] == [100] * (len(hessian.seen) - 1)
    assert [state["gradient_size"] for state in hessian.seen] == [4999] * len(hessian.seen)
    assert all(state["accepted"] for state in hessian.seen[1:])
    assert all(state["sigma"] > 0 for state in told)
    x = points[-1]
    p = 1 / (1 + np.exp(-(X @ x)))
    G = X * (p - y)[:, None]
    g = G.mean(axis=0)
    last = told[-1]
    assert last["grad_norm"] == pytest.approx(np.linalg.norm(g), rel=0.2)
    assert last["gradient_variance"] == pytest.approx(np.sum(np.var(G, axis=0)), rel=1e-2)
    assert last["inner_product_variance"] == pytest.approx(np.var(G @ g), rel=0.2)
    assert last["bound"] == pytest.approx(np.linalg.norm(G, axis=1).max(), rel=1e-6)
    assert last["step_norm"] == pytest.approx(np.linalg.norm(points[-1] - points[-2]), rel=1e-9)
    assert last["first_step_norm"] == pytest.approx(np.linalg.norm(points[1] - points[0]), rel=1e-9)
    before = points[-2]
    z, w = np.where(y > 0, 1, -1) * (X @ x), np.where(y > 0, 1, -1) * (X @ before)
    decrease = np.logaddexp(0, -w) - np.logaddexp(0, -z)
    assert last["decrease"] == pytest.approx(decrease.mean(), rel=0.05)
    assert last["decrease_variance"] == pytest.approx(decrease.var(), rel=0.05)
    # The last Hessian was made one step before.
    q = 1 / (1 + np.exp(-(X @ before)))
    curvature = (q * (1 - q))[:, None] * X
    assert hessian.seen[-1]["bound"] == pytest.approx(
        np.max(np.linalg.norm(curvature, axis=1) * np.linalg.norm(X, axis=1)), rel=1e-6
    )
    assert hessian.seen[-1]["gradient_variance"] == pytest.approx(np.sum(np.var(X * (q - y)[:, None], axis=0)), rel=1e-2)


def test_rules_are_told_of_the_last_change():
    rules = Recorded(1000, growth=100), Recorded(500, growth=100)
    gradient, hessian = rules
    quietly(
        glm(), np.zeros(12), gradient_sample=gradient, hessian_sample=hessian, function_sample="gradient", maxiter=20, rng=0
    )
    for rule, start in ((gradient, 1), (hessian, 0)):
        assert len(rule.seen) > 9
        assert [state["first_size"] for state in rule.seen[1:]] == [rule.size] * (len(rule.seen) - 1)
        previous = rule.seen[start]["grad_norm"]
        for now, following in itertools.pairwise(rule.seen[start:]):
            if following["size"] != now["size"]:
                previous = now["grad_norm"]
            assert following["previous_grad_norm"] == previous
        assert len({state["previous_grad_norm"] for state in rule.seen}) > 3


def test_averaged_hessian_by_hand():
    """Windows of a random order one behind the other, older ones forgotten, each average then made to map s to y."""
    n, d = 110, 2
    X, y = data(n, d)
    problem, order = GLM(X, y, "squared_sigmoid"), RowOrder(n, 3)
    averaged, rng = AveragedHessian(order, d), np.random.default_rng(0)
    place = weight = 0
    expected = np.zeros((d, d))
    for k in range(9):
        point = problem.at(rng.standard_normal(d))
        size = 28  # n / (2 d), 3.9 windows to the order
        place = 0 if place + size > n else place
        rows = order.order[place : place + size]
        place += size
        weight = 0.9 * weight + size if k else size
        expected = expected + (size / weight) * (problem.hessian(point.x, rows).to_dense() - expected)
        np.testing.assert_allclose(averaged.at(point), expected, rtol=1e-12, atol=1e-14)
        assert averaged.size == size
        s, change = rng.standard_normal(d), rng.standard_normal(d)
        averaged.learn(point, s, change)
        # The symmetric matrix that maps s to y and is nearest in the Frobenius norm (Powell 1970).
        r = change - expected @ s
        expected = expected + (np.outer(r, s) + np.outer(s, r)) / (s @ s) - (r @ s) / (s @ s) ** 2 * np.outer(s, s)
        np.testing.assert_allclose(expected @ s, change, rtol=1e-10)
    # What cannot be learned from changes nothing.
    before = averaged.at(problem.at(np.zeros(d))).copy()
    averaged.learn(point, np.zeros(d), change)
    averaged.learn(point, s, np.full(d, np.nan))
    np.testing.assert_array_equal(averaged._average, before)


def test_averages_are_corrected_along_the_run():
    stepper = Stepper(glm(), "trust-region", gradient_sample="adaptive", hessian_sample="adaptive", rng=0)
    state = stepper.init(np.zeros(12))
    checked = 0
    while state.status is None:
        x, size = state.x.copy(), state.at.size
        stepper.step(state)
        if state.at.size == size == 5000 and not np.array_equal(state.x, x):
            s = state.x - x
            change = glm().grad(state.x) - glm().grad(x)
            error = np.linalg.norm(state.curvature._average @ s - change)
            assert error <= 1e-8 * np.linalg.norm(change) + 1e-14
            checked += 1
    assert checked > 3


def test_dynamic_accuracy_draws_more_before_a_short_step_is_tried():
    """The first Hessian, of too few terms, shows that ||s|| < 1: it is made again with as many as its rule then asks for."""
    X, y = data(5000, 12)
    problem = GLM(X / 5, y, l2=1.0)
    rule = DynamicAccuracy("hessian", first=0.01, alpha=0.5)
    result = minimize(problem, np.zeros(12), CubicRegularization(), hessian_sample=rule, rng=0)
    first = result.history[0]
    assert first["hessian_sample"] > 50
    assert first["accepted"]
    # With steps of at least 1 the first size is enough.
    far = minimize(GLM(X / 5, y, "squared_sigmoid", l2=1e-4), np.zeros(12), TrustRegion(radius=1.5), hessian_sample=rule, rng=0)
    assert far.history[0]["hessian_sample"] == 50


def test_rules_grow_after_rejections():
    """A sample on which three steps were rejected is replaced by one of the size that the rule then asks for."""
    problem = glm()
    x = minimize(problem, np.zeros(12), rng=0, gtol=1e-9, htol=1e-6).x
    result = quietly(problem, x, gradient_sample=StepRule(first=0.02, growth=2.0), gtol=1e-12, maxiter=10, rng=0)
    sizes = [entry["gradient_sample"] for entry in result.history]
    assert not any(entry["accepted"] for entry in result.history[:3])
    assert sizes[:3] == [100, 100, 200]
    # Rules that look at the terms saw too few of them.
    result = quietly(problem, x, gradient_sample=NormTest(theta=50.0), function_sample="all", gtol=1e-12, maxiter=10, rng=0)
    assert [entry["gradient_sample"] for entry in result.history][:6] == [50, 50, 100, 100, 100, 200]


def test_search_methods_draw_again_where_a_direction_does_not_descend():
    problem = glm()
    x = minimize(problem, np.zeros(12), rng=0, gtol=1e-9, htol=1e-6).x
    result = quietly(problem, x, "newton-mr", gradient_sample=100, gtol=1e-12, maxiter=20, rng=0)
    assert result.status is Status.ITERATION_LIMIT
    assert sum(not entry["accepted"] for entry in result.history) > 5
    assert result.fun <= problem.value(x) + 1e-12
    # Where samples only grow, all terms are next.
    result = quietly(problem, x, "newton-mr", gradient_sample="adaptive", gtol=1e-7, rng=0)
    assert result.status is Status.CONVERGED
