"""Finite sums from functions and from classes, and Hessians as operators of other codes."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import rosen, rosen_der, rosen_hess, rosen_hess_prod
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh

from randla.optimize import Counts, FiniteSum, Hessian, from_callables, minimize
from randla.optimize.objective import Sample, as_hessian

X0 = np.array([-1.2, 1.0, 0.3])


def symmetric(dim, rng=0):
    A = np.random.default_rng(rng).standard_normal((dim, dim))
    return A + A.T


class Quadratics(FiniteSum):
    """f_i(x) = (a_i'x)^2 / 2 - i sum x."""

    def __init__(self, n, dim):
        self.n, self.dim = n, dim
        self.A = np.random.default_rng(1).standard_normal((n, dim))

    def terms(self, idx):
        return np.arange(self.n) if idx is None else np.asarray(idx)

    def value(self, x, idx=None):
        rows = self.terms(idx)
        return float(np.mean((self.A[rows] @ x) ** 2 / 2 - rows * x.sum()))

    def grad(self, x, idx=None):
        rows = self.terms(idx)
        return self.A[rows].T @ (self.A[rows] @ x) / len(rows) - rows.mean()

    def hessian(self, x, idx=None):
        rows = self.terms(idx)
        return self.A[rows].T @ self.A[rows] / len(rows)


class TestHessian:
    @pytest.fixture(params=[True, False], ids=["dense", "products"])
    def H(self, request):
        A = symmetric(12)
        return Hessian(12, lambda V: V @ A, 5, dense=(lambda: A.copy()) if request.param else None)

    def test_products_are_counted(self, H):
        A = symmetric(12)
        v, V = np.arange(12.0), np.arange(36.0).reshape(12, 3)
        np.testing.assert_allclose(H @ v, A @ v)
        np.testing.assert_allclose(H @ V, A @ V)
        np.testing.assert_allclose(H @ V[:, ::2], A @ V[:, ::2])
        assert (H.counts.nhev, H.counts.props) == (6, 60)
        assert np.array_equal(H @ v.astype(int), H @ v)
        assert (H @ np.empty((12, 0))).shape == (12, 0)
        assert H.counts.nhev == 8
        np.testing.assert_allclose(H.to_dense(), A, atol=1e-14)
        assert (H.counts.nhev, H.counts.props) == (20, 200)
        assert H.counts.nfev == H.counts.njev == 0

    def test_rounding_does_not_make_it_unsymmetric(self):
        A = symmetric(5)
        H = Hessian(5, lambda V: V @ (A + np.triu(np.full((5, 5), 1e-15))))
        assert np.array_equal(H.to_dense(), H.to_dense().T)

    def test_it_is_an_operator_of_scipy(self, H):
        A, v = symmetric(12), np.arange(12.0)
        assert isinstance(H, LinearOperator)
        assert aslinearoperator(H) is H
        assert (H.shape, H.dtype, H.dense_is_cheap) == ((12, 12), np.float64, H._dense is not None)
        for got in (H.matvec(v), H.rmatvec(v), H.dot(v), H.T @ v, H.H @ v, H(v), H * v):
            np.testing.assert_allclose(got, A @ v)
        assert H.matvec(v[:, None]).shape == (12, 1)
        np.testing.assert_allclose(H.rmatmat(np.eye(12)), A)

    def test_algebra_of_operators(self, H):
        A, v = symmetric(12), np.arange(12.0)
        B = aslinearoperator(np.diag(np.arange(12.0)))
        D = np.diag(np.arange(12.0))
        for operator, expected in (
            (H @ B, A @ D),
            (B @ H, D @ A),
            (H @ H, A @ A),
            (H + B, A + D),
            (-H, -A),
            (H * 3, 3 * A),
            (3 * H, 3 * A),
        ):
            np.testing.assert_allclose(operator @ v, expected @ v)

    def test_krylov_codes_take_it(self, H):
        A = symmetric(12)
        found = eigsh(H, k=2, which="SA", v0=np.ones(12), return_eigenvectors=False)
        np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(A)[:2])
        definite = Hessian(12, lambda V: V @ (A @ A + np.eye(12)))
        x, stop = cg(definite, np.ones(12), rtol=1e-13, maxiter=500)
        assert stop == 0
        np.testing.assert_allclose(x, np.linalg.solve(A @ A + np.eye(12), np.ones(12)), rtol=1e-8)

    @pytest.mark.parametrize("shape", [(11,), (3, 12), (12, 2, 2), ()])
    def test_shapes(self, H, shape):
        with pytest.raises(ValueError, match=r"operand of a Hessian product must have shape \(12,\) or \(12, k\); got"):
            H @ np.ones(shape)

    def test_complex_vectors(self, H):
        with pytest.raises(TypeError, match="operand of a Hessian product must be real; got complex128"):
            H @ np.ones(12, complex)


class TestAsHessian:
    @pytest.mark.parametrize(
        "kind", [np.asarray, sp.csr_array, sp.csc_matrix, aslinearoperator, lambda A: Hessian(6, lambda V: V @ A)]
    )
    def test_forms(self, kind):
        A, counts = symmetric(6), Counts()
        H = as_hessian(kind(A), 6, 7, counts)
        np.testing.assert_allclose(H @ np.arange(6.0), A @ np.arange(6.0))
        np.testing.assert_allclose(H @ np.eye(6)[:, :2], A[:, :2])
        assert (counts.nhev, counts.props) == (3, 42)
        np.testing.assert_allclose(H.to_dense(), A)
        assert H.dense_is_cheap == (kind(A).__class__.__name__ in ("ndarray", "csr_array", "csc_matrix"))

    def test_an_array_is_not_kept(self):
        A = symmetric(4)
        as_hessian(A, 4, 1, Counts()).to_dense()[:] = 0
        assert A.any()

    @pytest.mark.parametrize("bad", [np.eye(3), np.ones(4), None, 2.0])
    def test_shapes(self, bad):
        with pytest.raises(ValueError, match=r"the Hessian must have shape \(4, 4\); got"):
            as_hessian(bad, 4, 1, Counts())


class TestEvaluation:
    def test_of_all_terms(self):
        problem, counts, x = Quadratics(9, 4), Counts(), np.arange(4.0)
        at = problem.at(x, None, counts)
        assert (counts.props, counts.nfev) == (0, 0)
        assert (at.fun, at.fun) == (problem.value(x), problem.value(x))
        assert (counts.props, counts.nfev) == (9, 1)
        np.testing.assert_allclose(at.grad, problem.grad(x))
        assert at.grad is at.grad
        assert (counts.props, counts.njev) == (27, 1)
        np.testing.assert_allclose(at.hessian() @ x, problem.hessian(x) @ x)
        assert (counts.props, counts.nhev) == (45, 1)

    def test_of_samples(self):
        problem, counts, x = Quadratics(9, 4), Counts(), np.arange(4.0)
        rows, few = np.array([2, 5, 7]), np.array([5])
        at = problem.at(x).restricted(Sample(rows))
        assert at.size == 3
        at = problem.at(x, Sample(rows), counts)
        assert at.fun == problem.value(x, rows)
        np.testing.assert_allclose(at.grad, problem.grad(x, rows))
        np.testing.assert_allclose(at.hessian().to_dense(), problem.hessian(x, rows))
        assert counts.props == 3 + 6 + 2 * 3 * 4
        np.testing.assert_allclose(at.hessian(Sample(few)) @ x, problem.hessian(x, few) @ x)
        assert counts.props == 33 + 2
        assert at.enlarged(None).fun == problem.value(x)
        assert all(math.isnan(v) for v in at.variances(True))

    def test_rays(self):
        problem, counts, x, p = Quadratics(9, 4), Counts(), np.arange(4.0), np.ones(4)
        at = problem.at(x, None, counts)
        ray = at.ray(p)
        for t in (1.0, 0.25):
            assert ray.change(t) == pytest.approx(problem.value(x + t * p) - problem.value(x), rel=1e-13)
        assert counts.nfev == 3
        there = ray.accept(0.25)
        assert np.array_equal(there.x, x + 0.25 * p)
        assert there.fun == problem.value(there.x)
        assert ray.accept(0.5).fun == problem.value(x + 0.5 * p)
        assert counts.nfev == 4
        assert ray.noise() >= np.finfo(float).eps * abs(at.fun)

    def test_values_that_are_no_numbers(self):
        problem = from_callables(lambda x: math.inf if x[0] > 1 else x[0], lambda x: np.ones(1))
        ray = problem.at(np.zeros(1)).ray(np.ones(1))
        assert ray.change(2.0) == math.inf
        assert math.isnan(problem.at(np.full(1, 2.0)).ray(np.ones(1)).change())

    def test_importance_needs_a_problem_that_knows_it(self):
        with pytest.raises(ValueError, match="sampling must be 'uniform' for a Quadratics; got 'row-norm'"):
            Quadratics(3, 2).at(np.ones(2)).importance("row-norm")

    def test_the_protocol_has_no_defaults(self):
        for call in (FiniteSum().value, FiniteSum().grad, FiniteSum().hessian):
            with pytest.raises(NotImplementedError):
                call(np.ones(2))


class TestFromCallables:
    @pytest.mark.parametrize(
        "curvature", [{"hess": rosen_hess}, {"hessp": rosen_hess_prod}, {}], ids=["hess", "hessp", "differences"]
    )
    def test_one_function(self, curvature):
        problem = from_callables(rosen, rosen_der, **curvature)
        assert (problem.n, problem.dim) == (1, None)
        assert problem.value(X0) == rosen(X0)
        assert np.array_equal(problem.grad(X0), rosen_der(X0))
        H = as_hessian(problem.hessian(X0), 3, 1, Counts())
        rel = 1e-14 if curvature else 1e-8
        np.testing.assert_allclose(H.to_dense(), rosen_hess(X0), rtol=rel, atol=rel * 1000)
        np.testing.assert_allclose(H @ X0, rosen_hess(X0) @ X0, rtol=max(rel, 1e-13))

    def test_hessp_comes_second(self):
        assert np.array_equal(from_callables(rosen, rosen_der, rosen_hess_prod).hessian(X0) @ X0, rosen_hess_prod(X0, X0))

    @pytest.mark.parametrize("form", [lambda A: A, sp.csr_array, aslinearoperator])
    def test_forms_of_hess(self, form):
        problem = from_callables(rosen, rosen_der, hess=lambda x: form(rosen_hess(x)))
        np.testing.assert_allclose(problem.at(X0).hessian().to_dense(), rosen_hess(X0))

    @pytest.mark.parametrize("size", [1e-200, 1e-8, 1.0, 1e150])
    def test_differences_fit_the_size_of_the_vector(self, size):
        problem = from_callables(rosen, rosen_der)
        v = np.array([1.0, -2.0, 0.5])
        np.testing.assert_allclose(problem.hessian(X0) @ (size * v) / size, rosen_hess(X0) @ v, rtol=1e-7)
        assert np.array_equal(problem.hessian(X0) @ np.zeros(3), np.zeros(3))

    @pytest.mark.parametrize("curvature", ["hess", "hessp", None])
    def test_sums(self, curvature):
        sums = Quadratics(8, 4)
        more = {
            "hess": {"hess": sums.hessian},
            "hessp": {"hessp": lambda x, v, idx: sums.hessian(x, idx) @ v},
            None: {},
        }[curvature]
        problem = from_callables(sums.value, sums.grad, n=8, dim=4, **more)
        assert (problem.n, problem.dim) == (8, 4)
        x = np.arange(4.0)
        for rows in (None, np.array([1, 3, 6])):
            assert problem.value(x, rows) == sums.value(x, rows)
            assert np.array_equal(problem.grad(x, rows), sums.grad(x, rows))
            np.testing.assert_allclose(problem.hessian(x, rows) @ x, sums.hessian(x, rows) @ x, rtol=1e-8)

    def test_functions_may_write_to_what_they_get(self):
        def fun(x):
            x[:] = 7
            return np.array([[3.0]])

        def grad(x):
            x *= 2
            return x

        x = X0.copy()
        problem = from_callables(fun, grad, lambda x, v: grad(x))
        assert problem.value(x) == 3.0
        problem.grad(x)
        problem.hessian(x) @ x
        assert np.array_equal(x, X0)

    def test_columns_are_taken_for_vectors(self):
        problem = from_callables(rosen, lambda x: rosen_der(x)[:, None], lambda x, v: rosen_hess_prod(x, v)[:, None])
        assert np.array_equal(problem.grad(X0), rosen_der(X0))
        assert np.array_equal(problem.hessian(X0) @ X0, rosen_hess_prod(X0, X0))

    @pytest.mark.parametrize("name", ["fun", "grad", "hessp", "hess"])
    def test_what_cannot_be_called(self, name):
        functions = {"fun": rosen, "grad": rosen_der} | {name: 3.0}
        with pytest.raises(TypeError, match=f"{name} must be callable.*got 3.0"):
            from_callables(**functions)

    def test_one_form_of_the_hessian(self):
        with pytest.raises(ValueError, match="hess must be None where hessp is given; got both"):
            from_callables(rosen, rosen_der, rosen_hess_prod, hess=rosen_hess)

    @pytest.mark.parametrize("name", ["n", "dim"])
    @pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError)])
    def test_sizes(self, name, bad, error):
        with pytest.raises(error, match=f"{name} must be"):
            from_callables(rosen, rosen_der, **{name: bad})

    def test_results_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match=r"fun must return one number; got an array of shape \(3,\)"):
            from_callables(rosen_der, rosen_der).value(X0)
        with pytest.raises(ValueError, match=r"grad must return an array of shape \(3,\); got \(2,\)"):
            from_callables(rosen, lambda x: x[:2]).grad(X0)
        with pytest.raises(ValueError, match=r"hessp must return an array of shape \(3,\); got \(\)"):
            from_callables(rosen, rosen_der, lambda x, v: 1.0).hessian(X0) @ X0


@pytest.mark.parametrize(
    ("name", "message", "value"),
    [
        ("fun", "fun must return real numbers; got None", None),
        ("fun", "fun must return real numbers; got 1j", 1j),
        ("grad", "grad must return real numbers; got an array of complex128", np.ones(2, complex)),
        ("hessp", "hessp must return real numbers; got an array of complex128", np.ones(2, complex)),
    ],
)
def test_functions_that_do_not_return_real_numbers(name, message, value):
    functions = {"fun": lambda x: float(x @ x), "grad": lambda x: 2 * x, "hessp": lambda x, v: 2 * v}
    problem = from_callables(**{**functions, name: lambda *_: value})
    with pytest.raises(TypeError, match=message):
        minimize(problem, np.ones(2), rng=0)
