"""Generalized linear models against twins by complex steps and differences: derivatives, Hessians, and extreme data."""

import itertools
import math

import numpy as np
import pytest
from glm_twins import STORED, D, any_loss, data, differences, problem_of_any_loss, twin  # noqa: F401
from scipy.sparse.linalg import aslinearoperator, cg, eigsh

from randla.optimize import GLM, Loss, NonConvexRegularizer, Regularizer
from randla.optimize.objective import Sample

SMOOTH = Regularizer(np.cosh, np.sinh, np.cosh, convex=True)
PENALTIES = {"none": (0.0, None), "l2": (0.3, None), "nonconvex": (0.1, NonConvexRegularizer(0.4)), "own": (0.0, SMOOTH)}


def complex_step(function, x, h=1e-30):
    return np.array([function(x + h * 1j * e).imag / h for e in np.eye(len(x))])


class TestDerivatives:
    @pytest.mark.parametrize("penalty", PENALTIES)
    @pytest.mark.parametrize("weighted", [False, True])
    def test_against_complex_steps(self, name, penalty, weighted):
        X, y, w, x = data(name)
        (l2, regularizer), w = PENALTIES[penalty], w if weighted else None
        problem = GLM(X, y, name, l2, regularizer, weights=w)
        for idx in (None, np.arange(3, 20), np.array([5, 5, 30, 2])):
            rows = slice(None) if idx is None else idx

            def F(x, rows=rows):
                return twin(name, X, y, x, w, l2, regularizer, rows)

            def gradient(x, F=F):
                return complex_step(F, x)

            def value(x, idx=idx):
                return problem.value(x, idx)

            assert value(x) == pytest.approx(F(x), rel=1e-13)
            g, H = problem.grad(x, idx), problem.hessian(x, idx)
            np.testing.assert_allclose(g, gradient(x), rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(g, differences(value, x), rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(H.to_dense(), differences(gradient, x), rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(H @ np.eye(len(x)), H.to_dense(), rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("stored", STORED)
    def test_layouts_and_dtypes(self, name, stored, dtype):
        X, y, w, x = data(name)
        X = X.astype(dtype)
        problem = GLM(STORED[stored](X), y.astype(dtype), name, 0.1, weights=w.astype(dtype).astype(float))
        expected = GLM(X.astype(float), y, name, 0.1, weights=w.astype(dtype).astype(float))
        for idx in (None, [3, -1, 8]):
            assert problem.value(x, idx) == pytest.approx(expected.value(x, idx), rel=1e-14)
            # Arithmetic is in float64 whatever X is stored in.
            np.testing.assert_allclose(problem.grad(x, idx), expected.grad(x, idx), rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(problem.hessian(x, idx) @ x, expected.hessian(x, idx) @ x, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(
                problem.hessian(x, idx).to_dense(), expected.hessian(x, idx).to_dense(), rtol=1e-12, atol=1e-14
            )

    def test_many_columns(self, name):
        """Where the Hessian is made by products."""
        X, y, _, x = data(name, 9, 520 if name != "softmax" else 180)
        problem = GLM(X, y, name)
        H = problem.hessian(x)
        v = np.random.default_rng(1).standard_normal(len(x))
        assert not H.dense_is_cheap
        np.testing.assert_allclose(
            H @ v, (problem.grad(x + 1e-5 * v) - problem.grad(x - 1e-5 * v)) / 2e-5, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(H.to_dense() @ v, H @ v, rtol=1e-9, atol=1e-9)

    def test_losses_are_convex_where_they_say_so(self, problem):
        assert problem.loss.convex == (
            problem.loss.name in ("logistic", "least_squares", "poisson", "huber", "pseudo_huber", "softmax")
        )
        assert not problem.convex
        X, y, _, _ = data(problem.loss.name)
        for regularizer in (None, SMOOTH):
            assert GLM(X, y, problem.loss.name, 0.2, regularizer).convex == problem.loss.convex


class TestHessian:
    def test_operator(self, problem):
        x = np.full(problem.dim, 0.1)
        H = problem.hessian(x)
        A, v = H.to_dense(), np.arange(float(problem.dim))
        assert H.shape == A.shape == (problem.dim,) * 2
        assert np.array_equal(A, A.T)
        for operator in (H, H.T, H.H, aslinearoperator(H)):
            np.testing.assert_allclose(operator @ v, A @ v, rtol=1e-12, atol=1e-14)
        assert np.array_equal((H @ np.stack([v, v[::-1]], axis=1))[:, 0], H @ v)
        assert (H @ np.empty((problem.dim, 0))).shape == (problem.dim, 0)
        lowest = eigsh(H, k=1, which="SA", v0=np.ones(problem.dim), return_eigenvectors=False)
        assert lowest[0] == pytest.approx(np.linalg.eigvalsh(A)[0], abs=1e-10)

    def test_newton_step_by_conjugate_gradients(self):
        X, y, w, x = data("logistic")
        problem = GLM(X, y, l2=0.1, weights=w)
        H, g = problem.hessian(x), problem.grad(x)
        s, stop = cg(H, -g, rtol=1e-12)
        assert stop == 0
        np.testing.assert_allclose(H.to_dense() @ s, -g, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_weighted_samples_are_unbiased(self, name, weighted):
        """All outcomes of one draw with probabilities p, and of two of them."""
        X, y, w, x = data(name, n=4)
        problem = GLM(X, y, name, 0.3, weights=w if weighted else None)
        at = problem.at(x)
        H, p = at.hessian().to_dense(), np.array([0.1, 0.4, 0.2, 0.3])
        one = sum(p[i] * at.hessian(Sample(np.array([i]), 1 / (4 * p[[i]]))).to_dense() for i in range(4))
        np.testing.assert_allclose(one, H, rtol=1e-12, atol=1e-14)
        two = np.zeros_like(H)
        for i, j in itertools.product(range(4), repeat=2):
            rows, place = np.unique([i, j], return_inverse=True)
            weights = np.bincount(place, weights=1 / (8 * p[[i, j]]))
            two += p[i] * p[j] * at.hessian(Sample(rows, weights)).to_dense()
        np.testing.assert_allclose(two, H, rtol=1e-12, atol=1e-14)

    def test_uniform_samples_are_unbiased(self, name):
        X, y, w, x = data(name, n=5)
        problem = GLM(X, y, name, 0.3, weights=w)
        for size in (1, 3):
            subsets = [np.array(rows) for rows in itertools.combinations(range(5), size)]
            H = np.mean([problem.at(x).hessian(Sample(rows)).to_dense() for rows in subsets], axis=0)
            np.testing.assert_allclose(H, problem.hessian(x).to_dense(), rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(
                np.mean([problem.grad(x, rows) for rows in subsets], axis=0), problem.grad(x), rtol=1e-12
            )
            assert np.mean([problem.value(x, rows) for rows in subsets]) == pytest.approx(problem.value(x))


class TestLossOfYourOwn:
    mine = Loss(
        lambda z, y: np.logaddexp(0, -y * z),
        lambda z, y: -y / (1 + np.exp(y * z)),
        lambda z, y: 1 / (2 + np.exp(z) + np.exp(-z)),
        convex=True,
    )

    @pytest.mark.parametrize("stored", STORED)
    def test_agrees_with_the_native_one(self, stored):
        X, y, w, x = data("logistic")
        native, mine = (GLM(STORED[stored](X), y, loss, 0.1, weights=w) for loss in ("logistic", self.mine))
        assert mine.convex
        for idx in (None, [0, 5, 5, -3]):
            assert mine.value(x, idx) == pytest.approx(native.value(x, idx), rel=1e-14)
            np.testing.assert_allclose(mine.grad(x, idx), native.grad(x, idx), rtol=1e-12)
            np.testing.assert_allclose(mine.hessian(x, idx) @ x, native.hessian(x, idx) @ x, rtol=1e-12)
            np.testing.assert_allclose(mine.hessian(x, idx).to_dense(), native.hessian(x, idx).to_dense(), rtol=1e-12)
        p = np.full(D, 0.3)
        assert mine.at(x).ray(p).change() == pytest.approx(native.at(x).ray(p).change(), rel=1e-12)


class TestExtremes:
    @pytest.mark.parametrize("size", [1e150, 1e200, 1e307])
    def test_huge_data_overflow_without_warnings(self, problem, size):
        """Warnings are errors here."""
        big = GLM(problem.X * size, problem.y, problem.loss.name)
        x = np.ones(problem.dim)
        at = big.at(x)
        fun, grad = at.fun, at.grad
        assert grad.shape == x.shape
        assert not fun < 0
        assert isinstance(at.ray(x).change(), float)

    def test_tiny_data(self, problem):
        small = GLM(problem.X * 1e-200, problem.y, problem.loss.name)
        zero = GLM(problem.X * 0.0, problem.y, problem.loss.name)
        x = np.ones(problem.dim)
        assert small.value(x) == pytest.approx(zero.value(x), rel=1e-14)
        assert np.abs(small.grad(x)).max() < 1e-198

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_points_that_are_no_numbers(self, problem, bad):
        x = np.ones(problem.dim)
        x[0] = bad
        with np.errstate(invalid="ignore"):
            assert not math.isfinite(problem.value(x))

    def test_steps_that_are_no_numbers(self, problem):
        x, p = np.zeros(problem.dim), np.ones(problem.dim)
        p[0] = np.nan
        assert math.isnan(problem.at(x).ray(p).change())

    def test_one_row_and_one_column(self, name):
        _, y, _, _ = data(name)
        problem = GLM(np.ones((1, 1)), y[:1] if name != "softmax" else np.array([2.0]), name)
        x = np.full(problem.dim, 0.3)
        np.testing.assert_allclose(problem.grad(x), differences(problem.value, x), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(problem.hessian(x).to_dense(), differences(problem.grad, x), rtol=1e-7, atol=1e-9)
