"""Restricted eigenvalues: enumeration against dense sampling and another solver, bounds, and the concentration inequality."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import minimize

from randla.learn.monomials import log_covariance
from randla.learn.restricted import METHODS, RestrictedStatus, restricted_eigenvalue
from randla.learn.result import LearnWarning


def design(m, p, rng=0):
    return np.random.default_rng(rng).standard_normal((m, p))


def excess(V, k):
    a = -np.sort(-np.abs(V), axis=-1)
    return a[..., k:].sum(axis=-1) - a[..., :k].sum(axis=-1)


def quotient(T, V):
    return np.vecdot(V @ T, V) / np.vecdot(V, V)


def require(result, T, k):
    """What the result claims."""
    assert result.lower <= result.upper
    assert result.lower >= result.smallest_eigenvalue - 1e-12
    assert np.linalg.norm(result.witness) == pytest.approx(1)
    assert excess(result.witness, k) <= 1e-13
    assert quotient(T, result.witness) == pytest.approx(result.upper, rel=1e-9, abs=1e-12)
    assert result.smallest_eigenvalue == pytest.approx(np.linalg.eigvalsh(T)[0], abs=1e-12)
    assert result.exact == (result.lower == result.upper) or result.status is RestrictedStatus.CLOSED


def by_search(T, k, starts=2):
    """Minima of the quotient by SLSQP over every choice of the k entries and of the signs: there the cone is polyhedral."""
    p = len(T)
    rng = np.random.default_rng(0)
    best = np.inf
    for S in itertools.combinations(range(p), k):
        weight = np.where(np.isin(np.arange(p), S), 1.0, -1.0)
        for tail in itertools.product([1.0, -1.0], repeat=p - 1):
            signs = np.array([1.0, *tail])
            D = signs[:, None] * T * signs
            for _ in range(starts):
                u = rng.exponential(size=p)
                u[list(S)] += u.sum()
                found = minimize(
                    lambda u, D=D: u @ D @ u / (u @ u),
                    u / np.linalg.norm(u),
                    jac=lambda u, D=D: 2 * (D @ u - (u @ D @ u / (u @ u)) * u) / (u @ u),
                    bounds=[(0, None)] * p,
                    constraints=[{"type": "ineq", "fun": lambda u, w=weight: w @ u, "jac": lambda u, w=weight: w}],
                    method="SLSQP",
                    options={"ftol": 1e-14, "maxiter": 300},
                )
                if found.success and excess(found.x, k) <= 1e-9:
                    best = min(best, found.fun)
    return best


@pytest.mark.parametrize(("p", "k"), [(3, 1), (4, 1), (5, 1), (5, 2), (6, 2), (7, 3)])
def test_enumeration_against_dense_sampling(p, k):
    """Nothing among 200,000 vectors is below, and for few features something comes close."""
    rng = np.random.default_rng(p)
    V = rng.standard_normal((200_000, p))
    V[::3] *= 10.0 ** rng.uniform(-2, 2, V[::3].shape)
    V = V[excess(V, k) <= 0]
    for seed in range(4):
        X = design(p - 1, p, seed)
        T = X.T @ X / len(X)
        result = restricted_eigenvalue(X, k, method="exact")
        assert result.exact
        assert result.status in (RestrictedStatus.ENUMERATED, RestrictedStatus.SMALLEST_EIGENVECTOR)
        require(result, T, k)
        least = quotient(T, V).min()
        assert result.upper <= least + 1e-14
        if p == 3:
            assert result.upper >= least - 1e-3


@pytest.mark.parametrize(("p", "k"), [(4, 1), (5, 1), (5, 2)])
def test_enumeration_against_another_solver(p, k):
    for seed in (10, 11):
        X = design(p - 1, p, seed)
        T = X.T @ X / len(X)
        exact = restricted_eigenvalue(X, k, method="exact").upper
        other = by_search(T, k)
        assert exact <= other + 1e-9
        assert exact == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(("p", "k"), [(5, 1), (8, 2), (10, 1), (10, 3)])
def test_bounds_hold(p, k):
    for seed in range(5):
        for m in (p - 1, 3 * p, 100 * p):
            X = design(m, p, seed)
            T = X.T @ X / m
            exact = restricted_eigenvalue(X, k, method="exact")
            bounds = restricted_eigenvalue(X, k, method="bounds", rng=0)
            require(exact, T, k)
            require(bounds, T, k)
            assert bounds.lower <= exact.lower + 1e-12
            assert bounds.upper >= exact.upper - 1e-12
            assert bounds.upper == pytest.approx(exact.upper, rel=1e-6, abs=1e-12)


def test_lower_bound_is_above_the_smallest_eigenvalue():
    """Fewer samples than features: T is singular, RE(1) is not, and the thresholded matrix proves it."""
    X = design(250, 300)
    result = restricted_eigenvalue(X, 1, rng=0)
    assert result.status is RestrictedStatus.BOUNDS
    assert abs(result.smallest_eigenvalue) < 1e-12
    assert 0.1 < result.lower < result.upper < 1
    require(result, X.T @ X / 250, 1)


@pytest.mark.parametrize("k", [1, 3])
def test_lower_bound_against_worst_vectors(k):
    """Every vector of the cone has a value above it: k-sparse ones with tails of all kinds."""
    X = design(400, 60)
    T = X.T @ X / 400
    result = restricted_eigenvalue(X, k, rng=1)
    rng = np.random.default_rng(0)
    V = np.zeros((20_000, 60))
    for row in V:
        row[rng.permutation(60)[: rng.integers(1, 60)]] = 1
    V *= rng.standard_normal(V.shape)
    inside = excess(V, k) <= 0
    heavy = np.argsort(-np.abs(V), axis=1)[:, :k]
    # Vectors outside come in by larger entries.
    grown = V.copy()
    np.put_along_axis(grown, heavy, np.take_along_axis(V, heavy, 1) * 60, 1)
    V = np.where(inside[:, None], V, grown)
    V = V[excess(V, k) <= 0]
    assert len(V) > 1000
    assert quotient(T, V).min() >= result.lower


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("p", [1, 2, 5, 8])
def test_half_of_the_features_is_everything(method, p):
    X = design(2 * p, p)
    for k in range((p + 1) // 2, p + 1):
        result = restricted_eigenvalue(X, k, method=method)
        assert result.exact
        assert result.upper == pytest.approx(result.smallest_eigenvalue, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_identity(method):
    result = restricted_eigenvalue(np.eye(12), 2, method=method, covariance=True)
    assert result.exact
    assert (result.lower, result.upper) == (1, 1)


def test_zero():
    result = restricted_eigenvalue(np.zeros((5, 20)), 2)
    assert result.exact
    assert result.upper == 0


def test_multiple_eigenvalues_are_no_trap():
    """The zero eigenspace has three dimensions; which basis of it LAPACK returns must not matter."""
    for seed in range(3):
        X = design(2, 5, seed)
        T = X.T @ X / 2
        result = restricted_eigenvalue(T, 1, covariance=True, method="exact")
        Q = np.linalg.qr(design(50, 2, seed + 50))[0] * np.sqrt(50 / 2)
        other = restricted_eigenvalue(Q @ X, 1, method="exact")
        assert other.upper == pytest.approx(result.upper, rel=1e-6, abs=1e-12)
        assert result.upper == pytest.approx(by_search(T, 1), abs=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_concentration(k):
    """|RE(T^) - RE(T)| <= 4 k max |T^ - T|, as ||v||_1^2 <= 4 k ||v||^2 in the cone; T^ of logarithms of Gaussian features."""
    rng = np.random.default_rng(0)
    p = 7
    F = rng.standard_normal((3, p))
    F /= np.linalg.norm(F, axis=0)
    T = log_covariance(F.T @ F)
    exact = restricted_eigenvalue(T, k, covariance=True).upper
    assert exact > 0.01 > np.linalg.eigvalsh(F.T @ F)[0]
    distances = []
    for m in (100, 1000, 10_000, 100_000):
        A = np.log(np.abs(rng.standard_normal((m, 3)) @ F)) + (np.euler_gamma + np.log(2)) / 2
        sampled = A.T @ A / m
        distances.append(np.abs(sampled - T).max())
        found = restricted_eigenvalue(A, k).upper
        assert abs(found - exact) <= 4 * k * distances[-1]
        assert abs(found - exact) <= k * distances[-1]  # as in the talk, on these samples
    # Like m^-1/2, within the scatter of a maximum.
    slope = np.polyfit(np.log([100, 1000, 10_000, 100_000]), np.log(distances), 1)[0]
    assert -0.7 < slope < -0.3


def test_degenerate_correlation_becomes_regular():
    """x3 = (x1 + x2) / sqrt(2): a null vector of three entries lies in the cone of k = 2 before the logarithm, none after."""
    s = np.sqrt(0.5)
    rho = np.array([[1, 0, s, 0], [0, 1, s, 0], [s, s, 1, 0], [0, 0, 0, 1]])
    before = restricted_eigenvalue(rho, 2, covariance=True)
    after = restricted_eigenvalue(log_covariance(rho), 2, covariance=True)
    assert before.upper == pytest.approx(0, abs=1e-14)
    assert after.lower == pytest.approx(0.798, abs=1e-3)


def test_units_and_layouts():
    X = design(6, 8)
    expected = restricted_eigenvalue(X, 1)
    for exponent in (500, -500):
        result = restricted_eigenvalue(np.ldexp(X, exponent), 1)
        assert result.upper == np.ldexp(expected.upper, 2 * exponent)
        assert (result.witness == expected.witness).all()
    assert restricted_eigenvalue(X * 1e300, 1).lower == np.inf
    for given in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        assert restricted_eigenvalue(given, 1).upper == pytest.approx(expected.upper, rel=1e-10)
    assert restricted_eigenvalue(X.astype(np.float32), 1).upper == pytest.approx(expected.upper, rel=1e-4)
    whole = np.rint(3 * X)
    assert restricted_eigenvalue(whole.astype(int), 1).upper == restricted_eigenvalue(whole, 1).upper


def test_replay():
    X = design(30, 40)
    first = restricted_eigenvalue(X, 2)
    again = restricted_eigenvalue(X, 2, rng=first.seed)
    assert (first.witness == again.witness).all()
    assert first.success


def test_indefinite_covariance_is_named():
    T = np.diag([1.0, 2.0, -0.5])
    with pytest.warns(LearnWarning, match=r"smallest eigenvalue is -0\.5"):
        result = restricted_eigenvalue(T, 1, covariance=True)
    assert result.upper == -0.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda X: restricted_eigenvalue(X, 1, method="sdp"), ValueError, "method must be one of"),
        (lambda X: restricted_eigenvalue(X[0], 1), ValueError, "X must have 2 dimensions"),
        (lambda X: restricted_eigenvalue(X[:0], 1), ValueError, "at least one row"),
        (lambda X: restricted_eigenvalue(X, 0), ValueError, "k must be between 1 and 16"),
        (lambda X: restricted_eigenvalue(X, 17), ValueError, "k must be between 1 and 16"),
        (lambda X: restricted_eigenvalue(X, 1, method="exact"), ValueError, "X must have at most 14 columns"),
        (lambda X: restricted_eigenvalue(X, 1, covariance=True), ValueError, "X must be square"),
        (lambda X: restricted_eigenvalue(X[:16], 1, covariance=True), ValueError, "X must be symmetric"),
        (lambda X: restricted_eigenvalue(X, 1, starts=-1), ValueError, "starts must be between 0"),
        (lambda X: restricted_eigenvalue(X, 1, maxiter=-1), ValueError, "maxiter must be at least 0"),
        (lambda X: restricted_eigenvalue(X + 0j, 1), TypeError, "X must be real"),
        (lambda X: restricted_eigenvalue(sp.csr_array(X), 1), TypeError, "X must be a dense array"),
        (lambda X: restricted_eigenvalue(np.where(X > 2, np.inf, X), 1), ValueError, "X must be finite"),
        (lambda X: restricted_eigenvalue(X, 1, rng="a"), TypeError, "rng must be"),
    ],
)
def test_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(design(20, 16))
