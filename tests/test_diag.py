"""Diagonals and norms of rows: textbook loops over the vector left out, unbiasedness and coverage over seeds."""

import numpy as np
import pytest
import scipy.sparse as sp
from spectra import SPECTRA, N, aslinearoperator, counted, general, hermitian
from stats import Z_LIMIT

from randla.lowrank._probes import DIAGONAL, ROW_NORMS, Probes
from randla.lowrank.diagonal import diag, row_norms
from randla.lowrank.result import LowRankStatus, LowRankWarning

KINDS = pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
# function, method, products per vector
ESTIMATES = {
    "xdiag": (diag, "xdiag"),
    "nystrom": (diag, "nystrom"),
    "hutchinson": (diag, "hutchinson"),
    "xrownorm": (row_norms, "xrownorm"),
    "plain norms": (row_norms, "hutchinson"),
}


def matrix(name, spectrum, complex_):
    return hermitian(SPECTRA[spectrum], complex_) if name == "nystrom" else general(SPECTRA[spectrum], complex_)


def target(name, A):
    return np.diag(A) if ESTIMATES[name][0] is diag else np.linalg.norm(A, axis=1)


def xdiag_without(A, X, out, test):
    Q = np.linalg.qr(A @ np.delete(X, out, axis=1))[0]
    rest = A - Q @ (Q.conj().T @ A)
    return np.diag(A - rest) + X[:, test] * (rest @ X[:, test])


def nystrom_without(A, X, out, test):
    kept = np.delete(X, out, axis=1)
    Y = A @ kept
    rest = A - Y @ np.linalg.solve(kept.T @ Y, Y.conj().T)
    return (np.diag(A - rest) + X[:, test] * (rest @ X[:, test])).real


def xrownorm_without(A, X, out, test):
    Q = np.linalg.qr(A.conj().T @ np.delete(X, out, axis=1))[0]
    low_rank = A @ Q
    rest = A @ A.conj().T - low_rank @ low_rank.conj().T
    return np.sum(np.abs(low_rank) ** 2, axis=1) + (X[:, test] * (rest @ X[:, test])).real


LOOPS = {"xdiag": (xdiag_without, 6), "nystrom": (nystrom_without, 12), "xrownorm": (xrownorm_without, 6)}


@KINDS
@pytest.mark.parametrize("name", LOOPS)
def test_loop_over_the_vector_left_out(name, complex_):
    values = np.arange(1, 31) ** -1.0
    A = hermitian(values, complex_) if name == "nystrom" else general(values, complex_)
    without, k = LOOPS[name]
    estimate, method = ESTIMATES[name]
    found = estimate(aslinearoperator(A), method=method, matvecs=12, rng=5)
    X = Probes(30, 5, DIAGONAL if estimate is diag else ROW_NORMS, signs=True).columns(0, k)
    assert np.array_equal(np.abs(X), np.ones((30, k)))
    samples = np.array([without(A, X, [i], i) for i in range(k)])
    mean = samples.mean(axis=0)
    changes = np.array([[samples[j] - without(A, X, [i, j], j) if i != j else 0 * mean for j in range(k)] for i in range(k)])
    common = np.einsum("ijn,jin->n", changes.conj(), changes).real
    error = np.sqrt(((np.abs(samples - mean) ** 2).sum(axis=0) + np.maximum(common, 0)) / (k * (k - 1)))
    if estimate is diag:
        np.testing.assert_allclose(found.value, mean, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(found.error, error, rtol=1e-6, atol=1e-12)
    else:
        np.testing.assert_allclose(found.value**2, mean, rtol=1e-8)
        np.testing.assert_allclose(found.error, error / np.maximum(2 * np.sqrt(mean), np.sqrt(error)), rtol=1e-6)


@KINDS
def test_plain_methods_by_their_formulas(complex_):
    A = general(SPECTRA["slow"], complex_)
    X = Probes(N, 3, DIAGONAL, signs=True).columns(0, 24)
    found = diag(aslinearoperator(A), method="hutchinson", matvecs=24, rng=3)
    np.testing.assert_allclose(found.value, np.mean(X * (A @ X), axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.error, np.std(X * (A @ X), axis=1, ddof=1) / np.sqrt(24), rtol=1e-12)
    X = Probes(N, 3, ROW_NORMS, signs=True).columns(0, 24)
    found = row_norms(aslinearoperator(A), method="hutchinson", matvecs=24, rng=3)
    np.testing.assert_allclose(found.value**2, np.mean(np.abs(A @ X) ** 2, axis=1), rtol=1e-12)


@KINDS
@pytest.mark.parametrize("spectrum", ["flat", "slow", "fast", "exponential"])
@pytest.mark.parametrize("name", ESTIMATES)
def test_unbiased_with_errors_that_cover(name, spectrum, complex_):
    """False alarm: 1e-6 for each of the 100 entries, by a z-test over 60 seeds."""
    A = matrix(name, spectrum, complex_)
    exact = target(name, A)
    estimate, method = ESTIMATES[name]
    op = aslinearoperator(A)
    results = [estimate(op, method=method, matvecs=30, rng=seed) for seed in range(60)]
    values, errors = np.array([r.value for r in results]), np.array([r.error for r in results])
    samples, truth = (values, exact) if estimate is diag else (values**2, exact**2)
    z = (samples.mean(axis=0) - truth).real / samples.real.std(axis=0, ddof=1) * np.sqrt(len(results))
    assert np.abs(z).max() < Z_LIMIT + 1.5  # Student's t with 59 degrees of freedom has heavier tails
    assert 0.9 <= np.mean(np.abs(values - exact) <= 2.1 * errors) <= 0.999
    if estimate is diag:
        assert 0.6 <= np.mean(errors**2) / np.mean(np.abs(values - exact) ** 2) <= 2.5


@KINDS
@pytest.mark.parametrize("name", LOOPS)
def test_exact_below_the_rank_that_the_products_reach(name, complex_):
    estimate, method = ESTIMATES[name]
    for rank in (1, 8, 9):
        values = np.r_[np.linspace(1, 2, rank), np.zeros(N - rank)]
        A = hermitian(values, complex_) if name == "nystrom" else general(values, complex_)
        found = estimate(aslinearoperator(A), method=method, matvecs=20, rng=1)
        np.testing.assert_allclose(found.value, target(name, A), atol=1e-13)
        assert found.error.max() < 1e-10


@pytest.mark.parametrize("name", ESTIMATES)
def test_zero_matrix(name):
    estimate, method = ESTIMATES[name]
    found = estimate(aslinearoperator(np.zeros((50, 50))), method=method, matvecs=12)
    assert not found.value.any()
    assert not found.error.any()


@KINDS
def test_entries(complex_):
    A = general(SPECTRA["flat"], complex_)
    for form in (A, np.asfortranarray(A), np.repeat(A, 2, axis=0)[::2], sp.csr_array(A), sp.csc_array(A), [A[:40], A[40:]]):
        found = diag(form)
        assert np.array_equal(found.value, np.diag(A))
        assert (found.matvecs, found.method, found.status) == (0, "exact", LowRankStatus.COMPUTED)
        assert not found.error.any()
        np.testing.assert_allclose(row_norms(form).value, np.linalg.norm(A, axis=1), rtol=1e-14)
    assert np.array_equal(diag(np.arange(9).reshape(3, 3)).value, [0.0, 4.0, 8.0])
    assert diag(np.zeros((0, 0))).value.shape == (0,)
    assert row_norms(np.zeros((0, 3))).value.shape == (0,)
    sizes = row_norms(np.array([[3e200, 4e200], [3e-200, 4e-200]])).value
    np.testing.assert_allclose(sizes, [5e200, 5e-200], rtol=1e-15)
    assert diag(A.astype(np.complex64 if complex_ else np.float32)).value.dtype.itemsize == (8 if complex_ else 4)


def test_as_many_products_as_columns_are_exact():
    A = general(SPECTRA["slow"])
    op, count = counted(A)
    for options in ({"matvecs": N}, {"method": "hutchinson", "matvecs": N + 7}, {"method": "exact"}, {}):
        count[0] = 0
        found = diag(op, **options)
        np.testing.assert_allclose(found.value, np.diag(A), rtol=1e-14, atol=1e-15)
        assert found.matvecs == count[0] == N
        assert found.status is LowRankStatus.COMPUTED


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_norms_of_rows_of_rectangles(shape):
    A = np.random.default_rng(0).standard_normal(shape) * np.geomspace(1, 1e-3, shape[1])
    op, count = counted(A)
    exact = row_norms(op, method="exact")
    assert exact.matvecs == count[0] == 40
    np.testing.assert_allclose(exact.value, np.linalg.norm(A, axis=1), rtol=1e-13)
    count[0] = 0
    for method in ("xrownorm", "hutchinson"):
        found = row_norms(op, method=method, matvecs=30, rng=0)
        assert np.mean(np.abs(found.value - exact.value) <= 3 * found.error) > 0.9
    assert count[0] == 60


@pytest.mark.parametrize("name", ESTIMATES)
def test_products_are_counted_and_runs_replay(name):
    estimate, method = ESTIMATES[name]
    op, count = counted(hermitian(SPECTRA["fast"]))
    found = estimate(op, method=method, matvecs=31, rng=np.random.default_rng(0))
    assert found.matvecs == count[0] <= 31
    again = estimate(op, method=method, matvecs=31, rng=found.seed)
    assert np.array_equal(found.value, again.value)
    assert np.array_equal(found.error, again.error)
    other = estimate(op, method=method, matvecs=31, rng=found.seed + 1)
    assert not np.array_equal(found.value, other.value)


@pytest.mark.parametrize("exponent", [-700, 700])
@pytest.mark.parametrize("name", ESTIMATES)
def test_powers_of_two_change_nothing_but_the_size(name, exponent):
    estimate, method = ESTIMATES[name]
    A = hermitian(SPECTRA["fast"])
    plain = estimate(aslinearoperator(A), method=method, matvecs=24, rng=4)
    scaled = estimate(aslinearoperator(np.ldexp(A, exponent)), method=method, matvecs=24, rng=4)
    assert np.array_equal(scaled.value, np.ldexp(plain.value, exponent))
    assert np.array_equal(scaled.error, np.ldexp(plain.error, exponent))


def test_tolerance():
    A = general(SPECTRA["exponential"])
    for estimate, exact in ((diag, np.diag(A)), (row_norms, np.linalg.norm(A, axis=1))):
        op, count = counted(A)
        found = estimate(op, tol=1e-2, rng=2)
        assert found.status is LowRankStatus.TOLERANCE_REACHED
        assert np.linalg.norm(found.value - exact) <= 2e-2 * np.linalg.norm(exact)
        assert found.matvecs == count[0] < N
        with pytest.warns(LowRankWarning, match="as many products as were allowed"):
            found = estimate(op, tol=1e-5, matvecs=20, rng=2)
        assert found.status is LowRankStatus.PRODUCTS_EXHAUSTED


def test_nystrom_of_an_indefinite_matrix_says_so():
    A = hermitian(np.linspace(-1, 2, N))
    with pytest.warns(LowRankWarning, match="Hutchinson"):
        found = diag(aslinearoperator(A), method="nystrom", matvecs=40, rng=0)
    assert found.status is LowRankStatus.NOT_POSITIVE
    plain = diag(aslinearoperator(A), method="hutchinson", matvecs=40, rng=0)
    np.testing.assert_allclose(found.value, plain.value, rtol=1e-12)


def test_refusals():
    op = aslinearoperator(np.eye(50))
    with pytest.raises(ValueError, match=r"A must be square; got shape \(3, 4\)"):
        diag(np.zeros((3, 4)))
    for estimate in (diag, row_norms):
        with pytest.raises(ValueError, match=r"method must be one of .*; got 'bekas'"):
            estimate(op, method="bekas")
        with pytest.raises(ValueError, match="matvecs must be at least 4; got 3"):
            estimate(op, matvecs=3)
        with pytest.raises(ValueError, match="tol must be finite and greater than 0"):
            estimate(op, tol=0.0)
        with pytest.raises(ValueError, match="A must be finite"):
            estimate(np.diag([1.0, np.inf]))
        with pytest.raises(ValueError, match="A must have finite products"):
            estimate(aslinearoperator(np.diag([1.0] * 49 + [np.nan])), matvecs=20)
