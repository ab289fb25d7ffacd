"""Monomials: exact recovery of planted ones, refusals, and the covariance of logarithms by quadrature and Monte Carlo."""

import itertools

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
from stats import z_gate

from randla.learn._beam import beam
from randla.learn.monomials import METHODS, MonomialStatus, learn_monomial, log_covariance
from randla.learn.result import LearnWarning


def features(kind, m, p, rng):
    if kind == "rank 75":
        return rng.standard_normal((m, 75)) @ rng.standard_normal((75, p))
    if kind == "equicorrelated":
        return np.sqrt(0.9) * rng.standard_normal((m, 1)) + np.sqrt(0.1) * rng.standard_normal((m, p))
    if kind == "lognormal":
        return np.exp(rng.standard_normal((m, p)))
    return rng.standard_normal((m, p))


def planted(kind, m, p, k, seed, factor=1.0, exponents=(1, 2)):
    rng = np.random.default_rng(seed)
    X = features(kind, m, p, rng)
    support = np.sort(rng.choice(p, k, replace=False))
    powers = rng.choice(exponents, k)
    return X, factor * np.prod(X[:, support] ** powers.astype(float), axis=1), support, powers


def require(found, support, powers, factor=1.0):
    assert found.status is MonomialStatus.VERIFIED
    assert found.support.tolist() == list(support)
    assert found.exponents.tolist() == list(powers)
    assert found.sign == np.sign(factor)
    assert found.constant == pytest.approx(abs(factor), rel=1e-11)


@pytest.mark.parametrize("kind", ["rank 75", "equicorrelated", "independent"])
@pytest.mark.parametrize("method", METHODS)
def test_forty_samples_of_three_hundred_features(kind, method):
    """The covariance is singular or nearly so; k = 4. All of ten, by each method where its own condition holds."""
    m = 40 if method == "basis-pursuit" else 80
    for seed in range(10):
        X, y, support, powers = planted(kind, m, 300, 4, seed)
        found = learn_monomial(X, y, method=method)
        require(found, support, powers)
        assert found.constant == 1.0
        assert found.method == method
        assert found.residual < 1e-12


def test_samples_grow_like_the_logarithm_of_the_features():
    """k = 4: from p = 100 to 10,000 features, the logarithm doubles, and 16 to 32 samples go all the way (3 of 3 each)."""
    for p, m in ((100, 16), (1000, 24), (10_000, 32)):
        for seed in range(3):
            X, y, support, powers = planted("independent", m, p, 4, seed)
            require(learn_monomial(X, y), support, powers)


@pytest.mark.parametrize("method", METHODS)
def test_search_finds_what_the_methods_do_not(method):
    """20 samples of 100 features are too few for each method alone; nine of ten in sum."""
    count = 0
    for seed in range(10):
        X, y, support, powers = planted("independent", 20, 100, 4, seed)
        found = learn_monomial(X, y, method=method)
        require(found, support, powers)
        count += found.method == "beam"
    assert count > 0


def unit_columns(m, p, seed):
    A = np.random.default_rng(seed).standard_normal((m, p))
    return A / np.linalg.norm(A, axis=0)


def residual(A, b, support):
    return np.linalg.norm(b - A[:, support] @ np.linalg.lstsq(A[:, support], b)[0])


def test_beam_of_width_one_is_orthogonal_least_squares():
    A, b = unit_columns(20, 40, 0), np.random.default_rng(1).standard_normal(20)
    chosen = []
    for supports, residuals in beam(A, b, 1, 8):
        chosen.append(min(set(range(40)) - set(chosen), key=lambda j: residual(A, b, [*chosen, j])))
        assert supports.tolist() == [sorted(chosen)]
        assert residuals == pytest.approx([residual(A, b, chosen)], rel=1e-12)
    assert len(chosen) == 8


def test_wide_beam_tries_every_support():
    A, b = unit_columns(8, 9, 0), np.random.default_rng(1).standard_normal(8)
    for k, (supports, residuals) in enumerate(beam(A, b, 1000, 3), start=1):
        every = [list(support) for support in itertools.combinations(range(9), k)]
        assert sorted(supports.tolist()) == every
        assert residuals == pytest.approx(sorted(residual(A, b, support) for support in every), rel=1e-12)
        assert residuals == pytest.approx([residual(A, b, support) for support in supports], rel=1e-12)


def test_beam_ends_where_no_column_brings_anything():
    A = unit_columns(12, 3, 0)
    A = np.hstack([A, A])
    b = np.random.default_rng(1).standard_normal(12)
    levels = list(beam(A, b, 4, 6))
    assert len(levels) == 3
    assert levels[-1][1][0] == pytest.approx(residual(A, b, [0, 1, 2]), rel=1e-12)
    assert list(beam(A, np.zeros(12), 4, 6)) == []


def test_too_few_samples_are_not_explained_away():
    """Whatever comes out is verified, or not called so: no wrong monomial passes for a right one."""
    failures = 0
    for seed in range(20):
        X, y, support, powers = planted("independent", 12, 300, 4, seed)
        try:
            found = learn_monomial(X, y)
        except LearnWarning:
            failures += 1
        else:
            require(found, support, powers)
    assert failures > 10


@pytest.mark.parametrize("factor", [1.0, -1.0, 2.5, -1e-7, 1e40])
@pytest.mark.parametrize("exponents", [(1, 2), (-1, -2), (-3, 1, 5)])
def test_sign_constant_and_exponents(factor, exponents):
    X, y, support, powers = planted("independent", 60, 100, 3, 1, factor, exponents)
    found = learn_monomial(X, y)
    require(found, support, powers, factor)
    fresh = np.random.default_rng(9).standard_normal((50, 100))
    expected = factor * np.prod(fresh[:, support] ** powers.astype(float), axis=1)
    assert found(fresh) == pytest.approx(expected, rel=1e-9)
    assert found(fresh[0]) == pytest.approx(expected[0], rel=1e-9)
    assert found.degree == np.abs(powers).sum()


def test_written_out():
    X = features("independent", 30, 20, np.random.default_rng(0))
    assert str(learn_monomial(X, -2.5 * X[:, 3] * X[:, 17] ** 2)) == "-2.5 x3 x17^2"
    assert str(learn_monomial(X, X[:, 3] / X[:, 17])) == "x3 x17^-1"
    assert str(learn_monomial(X, np.full(30, 4.0))) == "4"


def test_constant_is_a_monomial():
    X = features("independent", 30, 20, np.random.default_rng(0))
    found = learn_monomial(X, np.full(30, -3.0))
    assert len(found.support) == 0
    assert (found.sign, found.constant) == (-1, pytest.approx(3.0, rel=1e-14))
    assert (found(X) == found(X)[0]).all()


@pytest.mark.parametrize("m", [50, 400])
def test_real_exponents_of_positive_features(m):
    X = features("lognormal", m, 200, np.random.default_rng(0))
    found = learn_monomial(X, 3 * X[:, 3] ** -0.5 * X[:, 5] ** 1.3, integer=False)
    assert found.success
    assert found.support.tolist() == [3, 5]
    assert found.exponents == pytest.approx([-0.5, 1.3], rel=1e-10)
    assert found.constant == pytest.approx(3, rel=1e-10)
    assert found(X) == pytest.approx(3 * X[:, 3] ** -0.5 * X[:, 5] ** 1.3, rel=1e-10)
    assert np.isnan(found(-X)).all()


@pytest.mark.parametrize(("m", "method"), [(60, "basis-pursuit"), (60, "lasso"), (60, "omp"), (300, "basis-pursuit")])
def test_noise_that_rounding_bears(m, method):
    """Two per cent of noise in y; of more samples than features no fit is exact, and least squares takes over."""
    for seed in range(5):
        X, y, support, powers = planted("independent", m, 200, 3, seed)
        noisy = y * (1 + 0.02 * np.random.default_rng(seed).uniform(-1, 1, m))
        found = learn_monomial(X, noisy, method=method, tol=0.05)
        assert found.success
        assert found.support.tolist() == support.tolist()
        assert found.exponents.tolist() == powers.tolist()
        with pytest.warns(LearnWarning, match="No monomial was found"):
            assert not learn_monomial(X, noisy, method=method).success


def test_repeated_features_with_noise_leave_the_lasso():
    """More samples than features, two of them equal: least squares does not determine the exponents, and no fit is exact."""
    X, y, _, _ = planted("independent", 120, 30, 2, 3)
    X = np.hstack([X, X[:, :1]])
    found = learn_monomial(X, y * (1 + 1e-3 * np.random.default_rng(0).uniform(-1, 1, 120)), tol=0.01)
    assert found.success
    assert found.method == "lasso"


def test_largest_degree():
    X, y, support, powers = planted("independent", 60, 100, 3, 1)
    require(learn_monomial(X, y, int(powers.sum())), support, powers)
    with pytest.warns(LearnWarning, match="larger degree"):
        found = learn_monomial(X, y, int(powers.sum()) - 1)
    assert found.status is MonomialStatus.DEGREE_EXCEEDED
    assert not found.success


def test_data_of_no_monomial():
    X = features("independent", 80, 50, np.random.default_rng(0))
    with pytest.warns(LearnWarning, match="No monomial was found"):
        found = learn_monomial(X, X[:, 0] + X[:, 1])
    assert found.status is MonomialStatus.NOT_VERIFIED
    assert found.residual > 0.1
    y = X[:, 0] * X[:, 1] ** 2
    with pytest.warns(LearnWarning, match="not in sign"):
        found = learn_monomial(X, np.abs(y))
    assert found.status is MonomialStatus.WRONG_SIGNS
    assert found.support.tolist() == [0, 1]
    # What fits the signs better, but not the modulus, says less.
    with pytest.warns(LearnWarning, match="not in sign"):
        found = learn_monomial(X, y * np.random.default_rng(1).choice([-1, 1], 80))
    assert found.support.tolist() == [0, 1]


def test_signs_as_features_are_refused():
    rng = np.random.default_rng(0)
    X = rng.choice([-1.0, 1.0], (40, 10))
    with pytest.raises(
        ValueError, match=r"constant \|x\| in columns 0, 1, 2, 3, 4, \.\.\.\. Monomials of features \+-1 are parities"
    ):
        learn_monomial(X, X[:, 0] * X[:, 1])
    X = rng.standard_normal((40, 10))
    X[:, 7] = -3
    with pytest.raises(ValueError, match="in column 7"):
        learn_monomial(X, X[:, 0])


def test_units_do_not_matter():
    X, y, support, powers = planted("independent", 60, 100, 2, 1)
    size = 10.0 ** np.random.default_rng(0).uniform(-100, 100, 100)
    found = learn_monomial(X * size, y)
    assert found.success
    assert found.support.tolist() == support.tolist()
    assert found.exponents.tolist() == powers.tolist()
    assert np.log(found.constant) == pytest.approx(-(np.log(size[support]) * powers).sum(), rel=1e-9)
    # The constant itself leaves the range of float64, though no sample does.
    X, y = X * 1e200, X[:, 3] * X[:, 5]
    with pytest.warns(LearnWarning):
        assert not learn_monomial(X, y).success


@pytest.mark.parametrize("layout", ["F", "strided", "read-only", "float32", "integers"])
def test_layouts(layout):
    rng = np.random.default_rng(0)
    X = rng.integers(1, 20, (60, 80)).astype(float) * rng.choice([-1, 1], (60, 80))
    y = X[:, 3] * X[:, 70] ** 2
    given = {
        "F": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "read-only": X.copy(),
        "float32": X.astype(np.float32),
        "integers": X.astype(np.int8),
    }[layout]
    given.flags.writeable = layout != "read-only"
    require(learn_monomial(given, y.astype(np.float32) if layout == "float32" else y), [3, 70], [1, 2])


def test_zeros_evaluate():
    X = features("independent", 40, 6, np.random.default_rng(0))
    found = learn_monomial(X, X[:, 0] * X[:, 1] ** -1)
    assert found([0.0, 2, 1, 1, 1, 1]) == 0
    assert found([3.0, 0, 1, 1, 1, 1]) == np.inf
    # Powers beyond the range of float64, a product within it.
    found = learn_monomial(X, X[:, 0] ** 2 * X[:, 1] ** -2)
    assert found([3e200, 1e200, 1, 1, 1, 1]) == pytest.approx(9, rel=1e-14)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda X, y: learn_monomial(X, y, method="ridge"), ValueError, "method must be one of"),
        (lambda X, y: learn_monomial(X[0], y), ValueError, "X must have 2 dimensions"),
        (lambda X, y: learn_monomial(X[:2], y[:2]), ValueError, "at least 3 rows"),
        (lambda X, y: learn_monomial(X[:, :0], y), ValueError, "1 column"),
        (lambda X, y: learn_monomial(X, y[1:]), ValueError, "y must have shape"),
        (lambda X, y: learn_monomial(X + 0j, y), TypeError, "X must be real"),
        (lambda X, y: learn_monomial(sp.csr_array(X), y), TypeError, "X must be a dense array"),
        (lambda X, y: learn_monomial(np.where(X > 2, np.nan, X), y), ValueError, "X must be finite"),
        (lambda X, y: learn_monomial(X, np.where(y > 0, np.inf, y)), ValueError, "y must be finite"),
        (lambda X, y: learn_monomial(np.where(X > 1, 0, X), y), ValueError, r"X must have no zeros.*in columns 0, 1, 2, 3, 4"),
        (lambda X, y: learn_monomial(X, np.where(y > 0, 0, y)), ValueError, "y must have no zeros.*the first in row"),
        (lambda X, y: learn_monomial(X, y, -1), ValueError, "max_degree must be at least 0"),
        (lambda X, y: learn_monomial(X, y, 2.5), TypeError, "max_degree must be an integer"),
        (lambda X, y: learn_monomial(X, y, tol=0), ValueError, "tol must be finite and greater than"),
        (lambda X, y: learn_monomial(X, y)(X[:, 1:]), ValueError, "X must have 12 features"),
        (lambda X, y: learn_monomial(X, y)(X[None]), ValueError, "X must have 12 features"),
        (lambda X, y: log_covariance([0.5, 1.1]), ValueError, "rho must be correlations"),
        (lambda X, y: log_covariance([0.5, np.nan]), ValueError, "rho must be finite"),
        (lambda X, y: log_covariance(0.5j), TypeError, "rho must be real"),
    ],
)
def test_arguments(call, error, message):
    X = np.random.default_rng(0).standard_normal((30, 12))
    with pytest.raises(error, match=message):
        call(X, X[:, 0] * X[:, 1])


def by_quadrature(rho):
    """cov(log|x|, log|y|) = E log|cos t| log|cos(t - a)| - (E log|cos t|)^2 + var(log r) for polar coordinates, a = arccos rho.

    r^2 / 2 is exponential, so that log r = (log 2 + log e) / 2 has a quarter of the variance pi^2 / 6 of log e.
    """
    a = mpmath.acos(rho)
    kinks = sorted({mpmath.mpf(0), mpmath.pi / 2, mpmath.fmod(a + mpmath.pi / 2, mpmath.pi), mpmath.pi})
    product = mpmath.quad(lambda t: mpmath.log(abs(mpmath.cos(t))) * mpmath.log(abs(mpmath.cos(t - a))), kinks) / mpmath.pi
    return float(product - mpmath.log(2) ** 2 + mpmath.pi**2 / 24)


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.3, 0.7, 0.99])
def test_log_covariance_by_quadrature(rho):
    assert log_covariance(rho) == pytest.approx(by_quadrature(rho), abs=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.3, -0.7, 0.99])
def test_log_covariance_by_monte_carlo(rho):
    """A z-test with a false-alarm probability of 1e-6, at 400,000 pairs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(400_000)
    y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(400_000)
    mean = -(np.euler_gamma + np.log(2)) / 2
    products = (np.log(np.abs(x)) - mean) * (np.log(np.abs(y)) - mean)
    z_gate((products.mean() - log_covariance(rho)) * np.sqrt(len(x)) / products.std(), f"covariance at {rho}")


def test_log_covariance_of_a_degenerate_correlation():
    """x3 = (x1 + x2) / sqrt(2): eigenvalues 0, 1, 2 become .798 to 1.670."""
    s = np.sqrt(0.5)
    rho = np.array([[1, 0, 0, s], [0, 1, 0, s], [0, 0, 1, 0], [s, s, 0, 1]])
    assert np.linalg.eigvalsh(rho) == pytest.approx([0, 1, 1, 2], abs=1e-15)
    T = log_covariance(rho)
    assert T.diagonal() == pytest.approx(np.pi**2 / 8, rel=1e-15)
    assert np.linalg.eigvalsh(T) == pytest.approx([0.798, 1.234, 1.234, 1.670], abs=1e-3)
    assert log_covariance(np.float32(0.5)).dtype == np.float32
    assert log_covariance(1 + 1e-16) == np.pi**2 / 8
