"""Arguments of generalized linear models: forms of data and of terms, and those that are refused."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from glm_twins import D, N, any_loss, data, problem_of_any_loss  # noqa: F401
from scipy.sparse.linalg import aslinearoperator

from randla.optimize import GLM


class TestTerms:
    FORMS = (
        [0, 3, 7],
        np.array([7, 3, 0], np.int32),
        np.array([3, 3, 9], np.uint64),
        [-1, 0, -N],
        slice(2, 30, 5),
        np.arange(N) % 3 == 1,
        range(4),
        (5,),
    )

    @pytest.mark.parametrize("idx", FORMS, ids=str)
    def test_forms(self, problem, idx):
        rows = np.arange(N)[np.asarray(idx) if not isinstance(idx, slice) else idx]
        x = np.full(problem.dim, 0.1)
        assert problem.value(x, idx) == pytest.approx(np.mean([problem.value(x, [i]) for i in rows]), rel=1e-12)
        np.testing.assert_allclose(
            problem.grad(x, idx), np.mean([problem.grad(x, [i]) for i in rows], axis=0), rtol=1e-10, atol=1e-14
        )
        expected = np.mean([problem.hessian(x, [i]) @ x for i in rows], axis=0)
        np.testing.assert_allclose(problem.hessian(x, idx) @ x, expected, rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("idx", [[], np.zeros(N, bool), slice(5, 5), np.array([], np.int64)], ids=str)
    def test_no_terms(self, problem, idx):
        with pytest.raises(ValueError, match="idx must name at least one term; got none"):
            problem.value(np.zeros(problem.dim), idx)

    @pytest.mark.parametrize("idx", [[0.5], [[1, 2]], "all", 3, np.ones(N + 1, bool), [None]], ids=str)
    def test_what_names_no_terms(self, problem, idx):
        with pytest.raises(
            TypeError, match=rf"idx must be a vector of integers, a mask of shape \({N},\), a slice or None; got"
        ):
            problem.grad(np.zeros(problem.dim), idx)

    @pytest.mark.parametrize("idx", [[N], [0, -N - 1]])
    def test_terms_out_of_range(self, problem, idx):
        with pytest.raises(ValueError, match=rf"idx must be between -{N} and {N - 1}; got"):
            problem.hessian(np.zeros(problem.dim), idx)


class TestArguments:
    X, y = np.arange(12.0).reshape(4, 3), np.array([0.0, 1, 1, 0])

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"X": np.ones((4, 3)) * 1j}, TypeError, "X must be real; got complex128"),
            ({"X": np.ones(4)}, ValueError, "X must have 2 dimensions; got 1"),
            ({"X": np.ones((0, 3))}, ValueError, r"X must have rows and columns; got shape \(0, 3\)"),
            ({"X": np.ones((4, 0))}, ValueError, r"X must have rows and columns; got shape \(4, 0\)"),
            ({"X": sp.csr_array((4, 0))}, ValueError, r"X must have rows and columns; got shape \(4, 0\)"),
            ({"X": np.where(np.eye(4, 3), np.nan, 1)}, ValueError, "X must be finite; got 3 NaN or infinite of 12"),
            ({"X": sp.csr_array(np.diag([1.0, np.inf, 1, 2]))}, ValueError, "X must be finite; got 1 NaN or infinite of 4"),
            ({"X": [["a"]]}, TypeError, "X must have dtype"),
            ({"X": aslinearoperator(np.eye(4))}, TypeError, "X must be an array or a sparse matrix"),
            ({"y": np.ones(4) * 1j}, TypeError, "y must be real; got complex128"),
            ({"y": np.ones(3)}, ValueError, r"y must have shape \(4,\), one label per row of X; got \(3,\)"),
            ({"y": np.ones((4, 1))}, ValueError, r"y must have shape \(4,\), one label per row of X; got \(4, 1\)"),
            ({"y": np.array([0, 1, np.nan, 0])}, ValueError, "y must be finite; got 1 NaN or infinite of 4"),
            ({"y": np.array([0, 1, 2, 0])}, ValueError, "y must hold labels -1 and 1, or 0 and 1, for loss 'logistic'"),
            ({"y": np.array([0, 1, 2, -1]), "loss": "softmax"}, ValueError, "y must hold classes 0, 1, 2"),
            ({"y": -np.ones(4), "loss": "poisson"}, ValueError, "y must not be negative for loss 'poisson'; got -1"),
            ({"loss": "hinge"}, ValueError, "loss must be one of logistic, "),
            ({"scale": 2.0}, ValueError, "scale must be None but for the robust losses"),
            ({"loss": "tukey", "scale": -1.0}, ValueError, "scale must be finite and greater than 0"),
            ({"l2": -1e-3}, ValueError, "l2 must be finite and at least 0; got -0.001"),
            ({"l2": np.nan}, ValueError, "l2 must be finite"),
            ({"l2": "1"}, TypeError, "l2 must be a real number"),
            ({"regularizer": np.abs}, TypeError, "regularizer must be a Regularizer or None; got"),
            ({"weights": -np.ones(4)}, ValueError, "weights must not be negative"),
            ({"weights": np.ones(3)}, ValueError, r"weights must have shape \(4,\)"),
            ({"weights": np.full(4, np.inf)}, ValueError, "weights must be finite"),
            ({"weights": np.ones(4) * 1j}, TypeError, "weights must be real"),
        ],
    )
    def test_errors(self, change, error, words):
        with pytest.raises(error, match=words):
            GLM(**({"X": self.X, "y": self.y} | change))

    @pytest.mark.parametrize("call", ["value", "grad", "hessian"])
    def test_points(self, call):
        call = getattr(GLM(self.X, self.y), call)
        for bad in (np.ones(4), np.ones((3, 1)), 1.0):
            with pytest.raises(ValueError, match=r"x must have shape \(3,\); got"):
                call(bad)
        with pytest.raises(TypeError, match="x must be real; got complex128"):
            call(np.ones(3, complex))

    def test_forms_of_data(self):
        expected = GLM(self.X, self.y).grad([0.1, 0.2, 0.3])
        for X in (self.X.tolist(), self.X.astype(int), self.X.astype(">f8"), sp.coo_matrix(self.X)):
            for y in (self.y.tolist(), self.y.astype(bool), 2 * self.y - 1, self.y.astype(np.int8)):
                np.testing.assert_allclose(GLM(X, y).grad((0.1, 0.2, 0.3)), expected, rtol=1e-14)

    def test_one_class_is_enough(self):
        for y in (np.zeros(4), np.ones(4), -np.ones(4)):
            assert math.isfinite(GLM(self.X, y).value(np.ones(3)))

    def test_arguments_are_not_changed(self):
        X, y, w, x = data("logistic")
        before = [a.copy() for a in (X, y, w, x)]
        problem = GLM(X, y, weights=w)
        problem.grad(x)[:] = 0
        assert np.linalg.norm(problem.grad(x)) > 0
        problem.hessian(x).to_dense()
        assert all(np.array_equal(a, b) for a, b in zip((X, y, w, x), before, strict=True))

    def test_a_point_that_is_changed_in_place_is_another(self):
        X, y, _, x = data("logistic")
        problem = GLM(X, y)
        first = problem.value(x)
        x[0] += 1
        assert problem.value(x) == GLM(X, y).value(x) != first

    def test_softmax_has_a_row_of_numbers_for_every_class(self):
        X, y, _, x = data("softmax")
        problem = GLM(X, y, "softmax")
        assert problem.dim == 3 * D
        z = X @ x.reshape(3, D).T
        assert problem.value(x) == pytest.approx(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(N), y.astype(int)]))

    def test_two_classes_of_softmax_are_logistic(self):
        X, y, w, x = data("logistic")
        two = GLM(X, np.maximum(y, 0), "softmax", weights=w)
        assert two.value(np.concatenate([0 * x, x])) == pytest.approx(GLM(X, y, weights=w).value(x), rel=1e-14)
