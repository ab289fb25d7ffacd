"""Generalized linear models at a point, on samples and along rays: the numbers of the direct paths, and what they cost."""

import math

import numpy as np
import pytest
from glm_oracles import EPS
from glm_twins import STORED, N, any_loss, data, problem_of_any_loss, twin  # noqa: F401

import randla
from randla.optimize import GLM, Counts, Regularizer
from randla.optimize._samples import RowOrder
from randla.optimize.objective import Sample, WindowSample


def window_samples(order):
    return [WindowSample(order, 0, 9), WindowSample(order, 0, 20), WindowSample(order, 12, 20), WindowSample(order, 0, N)]


class TestEvaluation:
    """Every path to a point gives the numbers of the direct one."""

    def same(self, at, problem, x, rows):
        idx = None if rows is None else rows
        assert at.fun == pytest.approx(problem.value(x, idx), rel=1e-13)
        np.testing.assert_allclose(at.grad, problem.grad(x, idx), rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(at.hessian() @ x, problem.hessian(x, idx) @ x, rtol=1e-11, atol=1e-14)

    @pytest.mark.parametrize("first", ["fun", "grad", "hessian"])
    def test_order_of_questions(self, problem, first):
        x = np.full(problem.dim, 0.2)
        at = problem.at(x)
        at.hessian() if first == "hessian" else getattr(at, first)
        self.same(at, problem, x, None)

    @pytest.mark.parametrize("stored", ["C", "F", "csr"])
    def test_windows(self, name, stored):
        X, y, w, x = data(name)
        problem = GLM(STORED[stored](X), y, name, 0.1, weights=w)
        order = RowOrder(N, 3)
        for sample in window_samples(order):
            self.same(problem.at(x, sample), problem, x, sample.rows)
        # Another order takes the place of the first.
        other = WindowSample(RowOrder(N, 4), 3, 11)
        self.same(problem.at(x, other), problem, x, other.rows)

    @pytest.mark.parametrize("asked", ["fun", "grad"])
    @pytest.mark.parametrize("stored", ["C", "csr"])
    def test_enlarged_windows(self, name, asked, stored):
        X, y, w, x = data(name)
        problem = GLM(STORED[stored](X), y, name, 0.1, weights=w)
        order, counts = RowOrder(N, 3), Counts()
        small, large = WindowSample(order, 0, 9), WindowSample(order, 0, 20)
        at = problem.at(x, small, counts)
        getattr(at, asked)
        per_row = 2 if asked == "grad" else 1
        assert counts.props == 9 * per_row
        more = at.enlarged(large)
        getattr(more, asked)
        assert (more.size, counts.props) == (20, 20 * per_row)  # rows seen are not read again
        self.same(more, problem, x, large.rows)
        counts.props = 20 * per_row
        everything = more.enlarged(None)
        assert everything.grad is not None
        assert everything.size == N
        self.same(everything, problem, x, None)

    def test_enlarged_to_all_terms_counts_new_rows_only(self, problem):
        x, counts = np.full(problem.dim, 0.2), Counts()
        at = problem.at(x, WindowSample(RowOrder(N, 3), 0, 10), counts)
        assert np.isfinite(at.grad).all()
        assert np.isfinite(at.enlarged(None).grad).all()
        assert counts.props == 2 * N

    def test_enlarged_samples_that_are_no_windows(self, problem):
        x, order = np.full(problem.dim, 0.2), RowOrder(N, 3)
        for small, large in (
            (Sample(np.array([1, 2])), Sample(np.array([1, 2, 3]))),
            (WindowSample(order, 4, 9), WindowSample(order, 4, 20)),
            (WindowSample(order, 0, 9), WindowSample(RowOrder(N, 5), 0, 20)),
            (WindowSample(order, 0, 9), Sample(np.arange(12))),
            (WindowSample(order, 4, 9), None),
            (None, None),
        ):
            more = problem.at(x, small).enlarged(large)
            self.same(more, problem, x, None if large is None else large.rows)

    def test_restricted(self, problem):
        x, rows = np.full(problem.dim, 0.2), np.array([4, 30, 2, 2])
        counts = Counts()
        at = problem.at(x, None, counts)
        self.same(at.restricted(Sample(rows)), problem, x, rows)
        counts.props = 0
        assert math.isfinite(at.fun)
        part = at.restricted(Sample(rows))
        assert math.isfinite(part.fun)
        assert counts.props == N  # margins are shared
        self.same(part, problem, x, rows)
        self.same(problem.at(x, Sample(rows)).restricted(Sample(rows[:2])), problem, x, rows[:2])

    def test_hessian_of_part_of_a_sample(self, problem):
        x, order = np.full(problem.dim, 0.2), RowOrder(N, 3)
        rows = np.array([9, 4, 30, 2, 17])
        window = WindowSample(order, 3, 25)
        for outer, inner in (
            (None, Sample(rows)),
            (Sample(rows), Sample(rows[[3, 0]])),
            (window, WindowSample(order, 5, 15)),
            (window, Sample(window.rows[[2, 7, 7]])),
            (None, WindowSample(order, 2, 8)),
        ):
            at = problem.at(x, outer)
            np.testing.assert_allclose(at.hessian(inner) @ x, problem.hessian(x, inner.rows) @ x, rtol=1e-11, atol=1e-14)
            if inner.size == 5:
                weighted = at.hessian(Sample(inner.rows, np.arange(5.0)))
                one_by_one = sum(k * (problem.hessian(x, [i]) @ x) for k, i in enumerate(inner.rows))
                one_by_one -= 9 * (problem.penalty_diagonal(x) * x)
                np.testing.assert_allclose(weighted @ x, one_by_one, rtol=1e-10, atol=1e-13)

    def test_hessian_of_terms_that_are_not_known(self, problem):
        at = problem.at(np.zeros(problem.dim), Sample(np.array([1, 2])))
        with pytest.raises(ValueError, match="terms of a Hessian must be among those of the evaluation; got others"):
            at.hessian(Sample(np.array([3])))

    def test_props(self, problem):
        x, counts = np.full(problem.dim, 0.2), Counts()
        at = problem.at(x, None, counts)
        assert np.isfinite(at.grad).all()
        assert (counts.props, counts.nfev, counts.njev, counts.nhev) == (2 * N, 1, 1, 0)
        assert math.isfinite(at.fun)
        H = at.hessian()
        assert counts.props == 2 * N
        assert np.isfinite(H @ np.ones((problem.dim, 3))).all()
        assert (counts.props, counts.nhev) == (8 * N, 3)
        assert np.isfinite(at.hessian(Sample(np.arange(5))) @ x).all()
        assert (counts.props, counts.nhev) == (8 * N + 10, 4)
        assert np.isfinite(at.hessian(Sample(np.arange(5))).to_dense()).all()
        assert counts.props == 8 * N + 10 + 10 * problem.dim

    def test_a_value_then_a_gradient_share_the_forward_pass(self, problem):
        x, counts = np.full(problem.dim, 0.2), Counts()
        at = problem.at(x, None, counts)
        assert math.isfinite(at.fun)
        assert (counts.props, counts.nfev, counts.njev) == (N, 1, 0)
        assert np.isfinite(at.grad).all()
        assert (counts.props, counts.nfev, counts.njev) == (2 * N, 1, 1)

    @pytest.mark.parametrize("rows", [None, np.array([3, 8, 20, 21, 22])])
    def test_variances(self, problem, rows):
        x = np.full(problem.dim, 0.2)
        at = problem.at(x, None if rows is None else Sample(rows))
        which = range(N) if rows is None else rows
        terms = np.array([problem.grad(x, [i]) - problem.penalty_gradient(x) for i in which])
        trace, along = at.variances(inner_product=True)
        assert trace == pytest.approx(terms.var(axis=0).sum(), rel=1e-10)
        assert along == pytest.approx((terms @ at.grad).var(), rel=1e-10)
        trace, along = at.variances()
        assert math.isnan(along)

    def test_importance(self, problem):
        """Bounds of the traces of the Hessians of terms; for one margin they are the traces."""
        x = np.full(problem.dim, 0.2)
        free = GLM(problem.X, problem.y, problem.loss.name, weights=problem.weights)
        for rows in (None, np.array([3, 8, 20])):
            at = free.at(x, None if rows is None else Sample(rows))
            which = range(N) if rows is None else rows
            traces = np.array([abs(np.trace(free.hessian(x, [i]).to_dense())) for i in which])
            np.testing.assert_allclose(at.importance("row-norm"), traces, rtol=1e-10, atol=1e-14)
            squares = np.sum(problem.X[list(which)] ** 2, axis=1)
            scores = randla.leverage_scores(problem.X, rng=0)[list(which)]
            positive = squares > 0
            got = at.importance("leverage")[positive]
            np.testing.assert_allclose(got, (traces * scores)[positive] / squares[positive], rtol=1e-9, atol=1e-14)

    def test_leverage_replays(self):
        X, y, _, _ = data("logistic", 3000, 20)
        assert GLM(X, y).leverage.tobytes() == GLM(X, y).leverage.tobytes()


class TestRays:
    def test_changes(self, problem):
        x, p = np.full(problem.dim, 0.2), np.random.default_rng(2).standard_normal(problem.dim)
        for rows in (None, np.array([3, 8, 20, 21, 22])):
            at = problem.at(x, None if rows is None else Sample(rows))
            ray, before = at.ray(p), at.fun
            idx = np.arange(N) if rows is None else rows
            for t in (1.0, 0.3, -2.0, 1e-3):
                assert ray.change(t) == pytest.approx(problem.value(x + t * p, idx) - before, rel=1e-9)
                bare = lambda x, i: problem.value(x, [i]) - problem.penalty(x)  # noqa: E731
                terms = np.array([bare(x + t * p, i) - bare(x, i) for i in idx])
                assert ray.decrease == pytest.approx(-terms.mean(), rel=1e-9)
                assert ray.variance == pytest.approx(terms.var(), rel=1e-8)

    @pytest.mark.parametrize("t", [1e-13, 1e-9, 1e-4, 0.1, 1.0])
    def test_changes_do_not_cancel(self, problem, t):
        """Eleven more bits show what is lost."""
        x, p = np.full(problem.dim, 0.2), np.random.default_rng(2).standard_normal(problem.dim)
        at = problem.at(x)
        ray = at.ray(p)
        change, noise = ray.change(t), ray.noise()
        loss = problem.loss.name
        y = problem.y.astype(np.longdouble)
        X, xl, pl = problem.X.astype(np.longdouble), x.astype(np.longdouble), p.astype(np.longdouble)
        penalties = {"w": problem.weights, "l2": np.longdouble(0.2)}
        r = np.longdouble(0.3)
        regularizer = Regularizer(lambda x: r * x * x / (1 + x * x), np.sin, np.cos)
        exact = twin(loss, X, y, xl + np.longdouble(t) * pl, regularizer=regularizer, **penalties) - twin(
            loss, X, y, xl, regularizer=regularizer, **penalties
        )
        assert abs(change - exact) <= noise * t + 16 * EPS * abs(exact) + 2.0**-11 * EPS * 64 * (1 + abs(at.fun))
        assert noise <= 1e-13

    def test_one_forward_pass_serves_all(self, problem):
        x, p, counts = np.full(problem.dim, 0.2), np.ones(problem.dim), Counts()
        at = problem.at(x, None, counts)
        assert np.isfinite(at.grad).all()
        ray = at.ray(p)
        for t in (1.0, 0.5, 0.1):
            ray.change(t)
        assert (counts.props, counts.nfev) == (3 * N, 4)
        there = ray.accept(0.5)
        assert np.array_equal(there.x, x + 0.5 * p)
        assert there.fun == pytest.approx(problem.value(there.x), rel=1e-13)
        assert counts.props == 3 * N
        np.testing.assert_allclose(there.grad, problem.grad(there.x), rtol=1e-11, atol=1e-14)
        assert (counts.props, counts.njev) == (4 * N, 2)
        assert ray.accept().fun == pytest.approx(problem.value(x + p), rel=1e-13)
