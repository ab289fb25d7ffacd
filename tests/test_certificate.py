"""Bounds of the smallest eigenvalue against LAPACK and against the law of the start vector; second-order certificates."""

import math

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from problems import ijcnn1
from scipy import stats
from scipy.sparse.linalg import aslinearoperator
from stats import binomial_gate, require

from randla.optimize import certificate
from randla.optimize.certificate import (
    EigenBound,
    HessianCondition,
    check_second_order,
    hessian_condition,
    smallest_eigenvalue,
    start_vector,
)
from randla.optimize.objective import from_callables

EPS = np.finfo(float).eps


class Counted:
    """Only products, counted."""

    def __init__(self, product):
        self.product, self.products = product, 0

    def __matmul__(self, v):
        self.products += 1
        return self.product(v)


class Sum:
    """A finite sum of which only the derivatives are given."""

    n = 1

    def __init__(self, grad, hessian, dim):
        self.grad, self.hessian, self.dim = grad, hessian, dim


def rotated(spectrum, rng):
    d = len(spectrum)
    U = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = (U * spectrum) @ U.T
    return (A + A.T) / 2


SPECTRA = {
    "spread": lambda d, rng: rng.uniform(-1, 1, d),
    "positive": lambda d, rng: rng.uniform(0, 1, d) ** 4,
    "zero": lambda d, rng: np.zeros(d),
    "one": lambda d, rng: np.ones(d),
    "two clusters": lambda d, rng: rng.choice([-1e-3, 1], d) + 1e-10 * rng.uniform(size=d),
    "tiny gap": lambda d, rng: np.r_[-0.1, -0.1 + 1e-12, rng.uniform(0, 1, d)][:d],
    "one below": lambda d, rng: np.r_[-1e-2, rng.uniform(0.5, 1, d - 1)],
    "far below": lambda d, rng: np.r_[-1e6, rng.uniform(-1, 1, d - 1)],
    "far above": lambda d, rng: np.r_[1e6, rng.uniform(-1e-3, 1, d - 1)],
    "sixteen decades": lambda d, rng: 10 ** rng.uniform(-16, 0, d) * rng.choice([-1, 1], d),
    "huge": lambda d, rng: 1e250 * rng.uniform(-0.1, 1, d),
    "minute": lambda d, rng: 1e-250 * rng.uniform(-0.1, 1, d),
}


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("share", [0, 1e-3, 0.1, 2])
def test_bounds_hold_and_stop_where_they_should(kind, share):
    rng = np.random.default_rng(5)
    for d in (1, 2, 3, 7, 20, 60, 130, 200):
        A = rotated(SPECTRA[kind](d, rng), rng)
        size = max(np.abs(A).max() * d, 1e-300)
        exact = np.linalg.eigvalsh(A / size)[0] * size
        tol = share * np.linalg.norm(A / size, 2) * size
        H = Counted(lambda v, A=A: A @ v)
        bound = smallest_eigenvalue(H, d, tol=tol, rng=7)
        rounding = 4 * max(d, 10) * EPS * size
        assert exact - rounding <= bound.value
        assert bound.lower <= exact + rounding
        assert bound.products == H.products <= d
        assert np.linalg.norm(bound.vector) == pytest.approx(1, abs=1e-12)
        assert bound.vector / size @ A @ bound.vector == pytest.approx(bound.value / size, abs=d * EPS)
        assert bound.value < -tol or bound.lower >= -tol or bound.error <= 1e-7 * size + 1e-300
        if d in (1, H.products):
            assert bound.failure == 0
            assert bound.error <= rounding + 1e-300
        assert smallest_eigenvalue(Counted(lambda v, A=A: A @ v), d, tol=tol, rng=bound.seed).value == bound.value


def test_arrays_and_dense_operators_go_to_lapack():
    class Formed(Counted):
        dense_is_cheap = True

        def to_dense(self):
            return A

    rng = np.random.default_rng(1)
    A = rotated(rng.uniform(-1, 1, 60), rng)
    values, vectors = np.linalg.eigh(A)
    for H, products in ((A, 0), (np.asfortranarray(A), 0), (Formed(None), 60)):
        bound = smallest_eigenvalue(H, 60, tol=0.1)
        assert bound.value == pytest.approx(values[0], abs=1e-14)
        assert abs(bound.vector @ vectors[:, 0]) == pytest.approx(1, abs=1e-12)
        assert bound.error <= 1e-12
        assert (bound.products, bound.failure) == (products, 0)
    assert smallest_eigenvalue(A.astype(np.float32), 60, tol=0.1).value == pytest.approx(values[0], abs=1e-6)
    assert smallest_eigenvalue(np.array([[-3]]), 1, tol=0).value == -3
    few = smallest_eigenvalue(Formed(lambda v: A @ v), 60, tol=5.0, max_products=1, rng=0)
    assert few.products == 1


@pytest.mark.parametrize("kind", [sp.csr_array, aslinearoperator, np.asarray])
def test_kinds_of_matrices(kind):
    A = sp.diags_array(np.r_[-0.5, np.linspace(0, 1, 599)])
    H = kind(A) if kind is not np.asarray else A.toarray()
    bound = smallest_eigenvalue(H, 600, tol=1, rng=0)
    assert -1 <= bound.lower <= -0.5 <= bound.value
    assert 0 < bound.products < 40


@pytest.mark.parametrize("failure", [0.5, 1e-3, 1e-12])
@pytest.mark.parametrize("d", [5, 100, 3000])
def test_steps_are_those_of_the_chebyshev_bound(d, failure):
    """For a spectrum in [0, 1], sum_j p_j(-tol)^2 is at least the square of the Chebyshev polynomial of degree k on [0, 1]."""
    density = np.exp(math.lgamma(d / 2) - math.lgamma((d - 1) / 2)) / np.sqrt(np.pi)
    nodes = np.cos(np.pi * np.linspace(0, 1, d)) / 2 + 0.5
    for tol in (0.3, 1e-2, 1e-3):
        steps = math.ceil(np.log(4 * density / failure) / (2 * np.arcsinh(np.sqrt(tol))))
        bound = smallest_eigenvalue(Counted(lambda v: nodes * v), d, tol=tol, failure=failure, rng=3)
        assert bound.lower >= -tol
        assert bound.products <= min(steps, d)


@pytest.mark.parametrize("d", [2, 3, 4, 50, 10_000])
@pytest.mark.parametrize("failure", [0.9, 0.1, 1e-9])
def test_share_of_a_coordinate_has_its_law(d, failure):
    """x'v squared has the law Beta(1/2, (d - 1)/2)."""
    share = np.exp(certificate._log_share(d, failure))
    exact = stats.beta.cdf(share**2, 0.5, (d - 1) / 2)
    if d < 4:
        assert exact == pytest.approx(failure, rel=1e-9)
    else:
        assert failure * (0.75 if failure > 0.5 else 0.97) < exact <= failure * (1 + 1e-9)


@pytest.mark.parametrize("warm", [False, True])
def test_bound_fails_as_often_as_stated(warm):
    """After one step on -x x' in three dimensions the bound is wrong exactly where |x'v| < delta."""
    x, start = np.array([2, -1, 2]) / 3, np.array([1, 2, 0.0])
    trials, failure = 3000, 0.2
    wrong = sum(
        smallest_eigenvalue(
            Counted(lambda v: -x * (x @ v)),
            3,
            tol=9.0,
            failure=failure,
            max_products=1,
            start=start if warm else None,
            index=k,
            rng=11,
        ).lower
        > -1
        for k in range(trials)
    )
    binomial_gate(wrong, trials, failure, f"wrong bounds, warm start {warm}")


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 30])
@pytest.mark.parametrize("kind", ["one below", "spread", "guess"])
def test_bound_fails_no_more_often_than_stated(kind, steps):
    rng = np.random.default_rng(2)
    d, trials, failure = 40, 400, 0.3
    w = SPECTRA["one below" if kind == "guess" else kind](d, rng)
    start = np.ones(d) if kind == "guess" else None
    wrong = 0
    for k in range(trials):
        H = Counted(lambda v: w * v)
        bound = smallest_eigenvalue(H, d, tol=5.0, failure=failure, max_products=steps, start=start, index=k, rng=1)
        wrong += bound.lower > w.min()
    require(stats.binomtest(wrong, trials, failure, alternative="greater").pvalue, "wrong bounds")


def test_start_known_to_be_unlucky_proves_nothing():
    """The second Ritz vector is x itself: the angle with the start is seen, and whether it is one that the bound excludes."""
    w, failure, seen = np.r_[-1.0, np.ones(30)], 0.8, 0
    share = failure / 2 * np.sqrt(np.pi) * math.gamma(15) / math.gamma(15.5)
    for k in range(60):
        component = abs(start_vector(31, 2**32 + k, 0)[0])
        bound = smallest_eigenvalue(Counted(lambda v: w * v), 31, tol=0.1, failure=failure, index=k, rng=0)
        if component > share:
            assert bound.lower == pytest.approx(-1, abs=1e-9)
        elif bound.products == 2:
            assert bound.value == pytest.approx(-1, abs=1e-12)
            assert bound.error == math.inf
            seen += 1
    assert seen > 10


def test_guess_saves_products():
    d = 5000
    w = np.r_[-0.02, np.linspace(0, 1, d - 1)]
    guess = np.zeros(d)
    guess[0], guess[1:] = -3, 1e-3 * np.random.default_rng(0).standard_normal(d - 1)
    H = Counted(lambda v: w * v)
    cold = smallest_eigenvalue(H, d, tol=1e-2, rng=0)
    warm = smallest_eigenvalue(H, d, tol=1e-2, start=guess, rng=0)
    assert warm.value < -1e-2
    assert cold.value < -1e-2
    assert warm.products <= cold.products / 3
    for ignored in (np.zeros(d), None):
        assert smallest_eigenvalue(H, d, tol=1e-2, start=ignored, rng=0).value == cold.value


def test_start_vectors_are_as_defined():
    for k, seed, d in ((0, 0, 5), (3, 2**63 + 5, 1), (2**40, 12, 40)):
        word = int(oracles.words64(k, 0, 21, seed)[0])
        row = oracles.gaussian(1, d, word)[0].astype(float)
        np.testing.assert_allclose(start_vector(d, k, seed), row / np.linalg.norm(row), rtol=1e-14)


def test_start_vectors_are_uniform_on_the_sphere():
    coordinates = np.array([start_vector(3, k, 5)[1] for k in range(2000)])
    require(stats.kstest(coordinates, "uniform", (-1, 2)).pvalue, "coordinate of a unit vector in three dimensions")


def test_basis_is_limited(monkeypatch):
    w = np.linspace(0, 1, 400)
    free = smallest_eigenvalue(Counted(lambda v: w * v), 400, tol=1e-4, rng=0)
    monkeypatch.setattr(certificate, "_BASIS", 400 * 25)
    held = smallest_eigenvalue(Counted(lambda v: w * v), 400, tol=1e-4, rng=0)
    assert held.products == 25 < free.products
    assert free.lower >= -1e-4 > held.lower


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_products_that_are_not_finite(bad):
    def late(v):
        return v * np.linspace(1, 2, 100) if H.products < 5 else np.full(100, bad)

    H = Counted(late)
    full = np.eye(100)
    full[2, 3] = full[3, 2] = bad
    for bound in (smallest_eigenvalue(H, 100, tol=0.0), smallest_eigenvalue(full, 100, tol=0.0)):
        assert math.isnan(bound.value)
        assert bound.error == math.inf
        assert not bound.lower >= -1e300
        assert bound.vector.shape == (100,)
    assert H.products == 5
    overflow = smallest_eigenvalue(Counted(lambda v: 1.7e308 * v / np.abs(v).max()), 100, tol=0.0)
    assert math.isnan(overflow.value)


def saddle(dim):
    D = np.r_[2.0, -2.0, np.ones(dim - 2)]
    return Sum(lambda x: D * x, lambda x, idx=None: Counted(lambda v: D * v), dim)


@pytest.mark.parametrize("dim", [2, 100, 3000])
def test_strict_saddle_is_rejected(dim):
    found = check_second_order(saddle(dim), np.zeros(dim), 1e-6, 1e-3, rng=0)
    assert not found.satisfied
    assert found.grad_norm == 0
    assert -2 - 1e-12 <= found.min_eig < -1e-3
    assert found.vector[1] ** 2 > found.vector[0] ** 2
    assert found.products < 40


def test_negative_curvature_orthogonal_to_the_gradient_is_seen():
    x = np.zeros(300)
    x[2] = 1e-9
    found = check_second_order(saddle(300), x, 1e-6, 1e-3, rng=0)
    assert found.grad_norm == 1e-9
    assert not found.satisfied


@pytest.mark.parametrize("dim", [1, 2, 100, 3000])
def test_minimum_is_accepted(dim):
    D = np.linspace(1, 2, dim)
    bowl = Sum(lambda x: D * x, lambda x, idx=None: Counted(lambda v: D * v), dim)
    found = check_second_order(bowl, np.zeros(dim), 1e-6, 1e-3, rng=3)
    assert found.satisfied
    assert found.min_eig >= 1 - 1e-12
    assert found.min_eig - found.min_eig_error >= -1e-3
    assert found.seed == 3
    steep = check_second_order(bowl, np.full(dim, 1e-3), 1e-6, 1e-3, rng=3)
    assert not steep.satisfied
    assert steep.grad_norm == pytest.approx(1e-3 * np.linalg.norm(D))
    assert steep.min_eig == found.min_eig
    flat = Sum(lambda x: 0 * x, lambda x, idx=None: np.zeros((dim, dim)), dim)
    assert check_second_order(flat, np.ones(dim), 0, 1e-12).satisfied
    assert not check_second_order(flat, np.ones(dim), 0, 0).satisfied


def test_finite_sums_of_callables():
    """x^2 - y^2 + y^4."""
    problem = from_callables(
        lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4,
        lambda x: np.array([2 * x[0], 4 * x[1] ** 3 - 2 * x[1]]),
        hess=lambda x: np.diag([2, 12 * x[1] ** 2 - 2]),
    )
    assert check_second_order(problem, [0, np.sqrt(0.5)], 1e-12, 0).satisfied
    found = check_second_order(problem, [0, 0], 1e-12, 1e-3)
    assert not found.satisfied
    assert found.min_eig == -2


def test_too_few_products_satisfy_nothing():
    w = np.linspace(0, 1, 1000)
    bowl = Sum(lambda x: w * x, lambda x, idx=None: Counted(lambda v: w * v), 1000)
    few = check_second_order(bowl, np.zeros(1000), 1e-6, 1e-3, max_products=10, rng=0)
    assert few.products == 10
    assert not few.satisfied
    assert few.min_eig - few.min_eig_error < -1e-3 < few.min_eig
    assert check_second_order(bowl, np.zeros(1000), 1e-6, 1e-3, rng=0).satisfied


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_point_that_is_not_finite_is_not_satisfied(bad):
    eye = Counted(lambda v: v)
    found = check_second_order(Sum(lambda x: np.array([bad, 0]), lambda x: eye, 2), np.zeros(2), 1, 1)
    assert not found.satisfied
    assert found.products == 0
    found = check_second_order(Sum(lambda x: x, lambda x: np.full((2, 2), bad), 2), np.zeros(2), 1, 1)
    assert not found.satisfied
    assert math.isnan(found.min_eig)


def test_ijcnn1():
    """mean (sigmoid(x_i'w) - y_i)^2 at random points, where the Hessian is indefinite, and at a point that is nearly flat."""
    X, y = ijcnn1()
    y, n = (y > 0).astype(float), len(y)

    def derivatives(w):
        a = 1 / (1 + np.exp(-(X @ w)))
        slope = a * (1 - a)
        return (a - y) * slope, (a - y) * slope * (1 - 2 * a) + slope**2

    def grad(w):
        return X.T @ derivatives(w)[0] * 2 / n

    def hessian(w, idx=None):
        D = derivatives(w)[1] * 2 / n
        return Counted(lambda v: X.T @ (D * (X @ v)))

    rng, signs = np.random.default_rng(0), set()
    for size in (0.1, 1, 3, 30):
        w = size * rng.standard_normal(22)
        exact = np.linalg.eigvalsh((X.T * (derivatives(w)[1] * 2 / n)) @ X)[0]
        for htol in (1e-1, 1e-3, 1e-6):
            found = check_second_order(Sum(grad, hessian, 22), w, 1.0, htol, rng=1)
            assert found.grad_norm == pytest.approx(np.linalg.norm(grad(w)))
            assert found.min_eig - found.min_eig_error - 1e-15 <= exact <= found.min_eig + 1e-15
            assert found.satisfied == (exact >= -htol)
            signs.add(found.satisfied)
    assert signs == {False, True}


class Squares:
    """f_i = (a_i'x)^4 / 4 + (a_i'x)^2 / 2."""

    def __init__(self, rows):
        self.A, (self.n, self.dim) = rows, rows.shape

    def grad(self, x):
        z = self.A @ x
        return self.A.T @ (z**3 + z) / self.n

    def hessian(self, x, idx=None):
        A = self.A if idx is None else self.A[idx]
        return (A.T * (3 * (A @ x) ** 2 + 1)) @ A / len(A)


def test_ratios_of_a_sampled_hessian():
    rng = np.random.default_rng(4)
    problem = Squares(rng.standard_normal((200, 6)))
    x, s, idx = rng.standard_normal(6), rng.standard_normal(6), rng.permutation(200)[:20]
    H, sampled = problem.hessian(x), problem.hessian(x, idx)
    error = np.linalg.norm((sampled - H) @ s)
    found = hessian_condition(problem, x, s, idx)
    assert isinstance(found, HessianCondition)
    quadratic, linear, relative = found
    assert quadratic == pytest.approx(error / (s @ s), rel=1e-10)
    assert linear == pytest.approx(error / np.linalg.norm(s), rel=1e-10)
    assert relative == pytest.approx(error / np.linalg.norm(H @ s), rel=1e-10)
    short = hessian_condition(problem, x, 1e-9 * s, idx)
    assert short.linear == pytest.approx(linear, rel=1e-9)
    assert short.quadratic == pytest.approx(1e9 * quadratic, rel=1e-9)
    assert max(hessian_condition(problem, x, s, np.arange(200))) < 1e-12


def test_ratios_at_the_edge():
    def constant(full, sampled):
        return Sum(None, lambda x, idx=None: full if idx is None else sampled, 2)

    eye, zero = np.eye(2), np.zeros((2, 2))
    assert tuple(hessian_condition(constant(zero, zero), [0, 0], [1, 0], [0])) == (0, 0, 0)
    assert tuple(hessian_condition(constant(zero, eye), [0, 0], [2, 0], [0])) == (0.5, 1, math.inf)
    assert np.isnan(list(hessian_condition(constant(eye, eye * np.nan), [0, 0], [1, 0], [0]))).all()


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "dim must be an integer", {"dim": 2.0}),
        (ValueError, "dim must be at least 1", {"dim": 0}),
        (ValueError, r"H must have shape \(3, 3\); got \(2, 2\)", {"dim": 3}),
        (TypeError, "H must be real", {"H": 1j * np.eye(2)}),
        (TypeError, "H must be multiplied by vectors", {"H": [[1.0]]}),
        (ValueError, r"H @ v must have shape \(2,\); got \(3,\)", {"H": Counted(lambda v: np.ones(3))}),
        (ValueError, "tol must be finite and at least 0", {"tol": -1}),
        (ValueError, "failure must be below 1", {"failure": 1}),
        (ValueError, "failure must be finite and greater than 0", {"failure": 0}),
        (ValueError, r"start must have shape \(2,\)", {"start": np.ones(3)}),
        (TypeError, "start must be real", {"start": 1j * np.ones(2)}),
        (ValueError, "start must be finite", {"start": [0, np.nan]}),
        (ValueError, "max_products must be at least 1", {"max_products": 0}),
        (ValueError, "index must be", {"index": -1}),
        (TypeError, "rng must be", {"rng": "0"}),
    ],
)
def test_errors(error, message, options):
    arguments = {"H": np.eye(2), "dim": 2, "tol": 0.1, **options}
    with pytest.raises(error, match=message):
        smallest_eigenvalue(arguments.pop("H"), arguments.pop("dim"), **arguments)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "problem must be a FiniteSum", {"problem": np.eye(3)}),
        (ValueError, r"x must have shape \(3,\)", {"x": np.ones(2)}),
        (ValueError, "x must be finite", {"x": [0, 0, np.nan]}),
        (ValueError, "gtol must be", {"gtol": -1}),
        (ValueError, "htol must be", {"htol": np.nan}),
        (ValueError, "failure must be below 1", {"failure": 2}),
        (ValueError, r"problem.grad\(x\) must have shape \(3,\)", {"problem": Sum(lambda x: 0.0, lambda x: np.eye(3), 3)}),
    ],
)
def test_errors_of_the_certificate(error, message, options):
    arguments = {"problem": saddle(3), "x": np.zeros(3), "gtol": 1e-6, "htol": 1e-3, **options}
    with pytest.raises(error, match=message):
        check_second_order(**arguments)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "problem must be a FiniteSum", {"problem": None}),
        (ValueError, r"x must have shape \(3,\)", {"x": np.ones(2)}),
        (ValueError, r"s must have shape \(3,\)", {"s": np.ones(2)}),
        (ValueError, "s must not be zero", {"s": np.zeros(3)}),
        (ValueError, "s must be finite", {"s": [1, 2, np.inf]}),
    ],
)
def test_errors_of_the_condition(error, message, options):
    arguments = {"problem": saddle(3), "x": np.zeros(3), "s": np.ones(3), "idx": [0], **options}
    with pytest.raises(error, match=message):
        hessian_condition(**arguments)


def test_result_is_a_value():
    bound = smallest_eigenvalue(np.eye(2), 2, tol=0, rng=9)
    assert isinstance(bound, EigenBound)
    assert bound.seed == 9
    assert bound.lower == bound.value - bound.error
    with pytest.raises(AttributeError):
        bound.value = 0
