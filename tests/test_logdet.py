"""Log-determinants: against the eigenvalues, with brackets, coverage over seeds, and what is not positive definite."""

import numpy as np
import pytest
import scipy.sparse as sp
from spectra import N, aslinearoperator, counted, hermitian, orthogonal
from stats import z_gate

from randla.lowrank.logdet import logdet
from randla.lowrank.result import LowRankStatus, LowRankWarning

KINDS = pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
SPECTRA = {
    "flat": np.linspace(1.0, 3.0, N),
    "fast": np.arange(1, N + 1) ** -2.0,
    "two levels": np.r_[np.ones(12), 1e-3 * np.ones(N - 12)],
    "wide": np.geomspace(1e-3, 1e1, N),
    "bounded below": 1e-2 + 0.8 ** np.arange(N),
}


@KINDS
@pytest.mark.parametrize("name", SPECTRA)
def test_cholesky(name, complex_):
    A = hermitian(SPECTRA[name], complex_)
    exact = np.log(SPECTRA[name]).sum()
    for form in (A, np.asfortranarray(A), np.repeat(A, 2, axis=1)[:, ::2]):
        found = logdet(form)
        assert (found.method, found.status) == ("cholesky", LowRankStatus.COMPUTED)
        assert abs(found.value - exact) <= 10 * found.error + 1e-12 * abs(exact)
        assert found.error < 1e-6
    shifted = logdet(A, ridge=0.5)
    assert shifted.value == pytest.approx(np.log(SPECTRA[name] + 0.5).sum(), rel=1e-11)


@KINDS
@pytest.mark.parametrize("rank", [0, 20])
@pytest.mark.parametrize("name", SPECTRA)
def test_unbiased_and_covered(name, rank, complex_):
    """False alarm of the z-gate: 1e-6. 24 runs of nominal 95 % intervals hold the truth in 20 or more."""
    values = SPECTRA[name]
    op = aslinearoperator(hermitian(values, complex_))
    exact = np.log(values).sum()
    results = [logdet(op, probes=12, smallest=0.99 * values.min(), rank=rank, rng=seed) for seed in range(24)]
    found = np.array([r.value for r in results])
    gap = np.mean([r.bracket[1] - r.bracket[0] for r in results])
    assert all(r.bracket[0] <= r.value <= r.bracket[1] for r in results)
    assert gap <= 0.5 * np.mean([r.error for r in results]) + 1e-9 * abs(exact)
    bias = max(0.0, abs(found.mean() - exact) - gap / 2)
    z_gate(bias / found.std(ddof=1) * np.sqrt(len(found)), name)
    intervals = [r.interval() for r in results]
    assert sum(low <= exact <= high for low, high in intervals) >= 20


@KINDS
def test_bracket_holds_the_exact_quadratic_forms(complex_):
    """With the spectrum of the start vectors known, what the quadratures bound is known too."""
    from randla.lowrank._probes import Probes

    rng = np.random.default_rng(0)
    values = np.geomspace(1e-3, 10, N)
    Q = orthogonal(N, rng, complex_)
    A = (Q * values) @ Q.conj().T
    X = Probes(N, 9, 0, paired=complex_, stream=31).columns(0, 6)
    forms = N * (np.log(values) @ np.abs(Q.conj().T @ X) ** 2) / np.sum(np.abs(X) ** 2, axis=0)
    exact = forms.mean()
    previous = np.inf
    for maxiter in (2, 4, 8, 16, 32, 64):
        options = {"method": "lanczos", "probes": 6, "smallest": 1e-3, "tol": 1e-9, "maxiter": maxiter, "rng": 9}
        with pytest.warns(LowRankWarning):
            found = logdet(aslinearoperator(A), **options)
        low, high = found.bracket
        slack = 1e-10 * abs(exact)
        assert low - slack <= exact <= high + slack
        assert high - low <= previous + slack
        previous = high - low
    assert previous < 1e-4 * abs(exact)


def test_lower_end_without_a_bound():
    values = SPECTRA["bounded below"]
    op = aslinearoperator(hermitian(values))
    for options in ({}, {"ridge": 1e-3}):
        found = logdet(op, probes=20, rng=1, **options)
        exact = np.log(values + options.get("ridge", 0.0)).sum()
        assert found.interval()[0] <= exact <= found.interval()[1]
        assert found.interval(0.5)[1] < found.interval(0.99)[1]


def test_nystrom_part_takes_chance_away():
    values = np.r_[np.geomspace(1e4, 1, 15), np.zeros(N - 15)]
    op = aslinearoperator(hermitian(values))
    exact = np.log(values + 1e-2).sum()
    plain = logdet(op, ridge=1e-2, probes=10, rng=0)
    better = logdet(op, ridge=1e-2, probes=10, rank=20, rng=0)
    assert abs(better.value - exact) <= 1e-6 * abs(exact)
    assert better.error < 1e-3 * plain.error


def test_sparse_and_row_blocks():
    n = 300
    A = sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(n, n), format="csr")
    exact = np.linalg.slogdet(A.toarray())[1]
    for form in (A, A.tocsc(), [A[:100], A[100:]], A.toarray()):
        found = logdet(form, method="lanczos", smallest=0.5, rng=3)
        assert abs(found.value - exact) <= 4 * found.error + (found.bracket[1] - found.bracket[0])
    assert logdet(A).method == "lanczos"


def test_products_are_counted_and_runs_replay():
    op, count = counted(hermitian(SPECTRA["fast"]))
    found = logdet(op, rng=np.random.default_rng(0))
    assert found.matvecs == count[0]
    assert found == logdet(op, rng=found.seed)
    assert found.value != logdet(op, rng=found.seed + 1).value


def test_tolerance():
    op = aslinearoperator(hermitian(SPECTRA["flat"]))
    exact = np.log(SPECTRA["flat"]).sum()
    found = logdet(op, tol=1.0, rng=0)
    assert found.status is LowRankStatus.TOLERANCE_REACHED
    assert abs(found.value - exact) <= 2.0
    assert found.probes > 10
    with pytest.warns(LowRankWarning, match="as many products as were allowed"):
        few = logdet(op, tol=0.1, probes=12, rng=0)
    assert few.status is LowRankStatus.PRODUCTS_EXHAUSTED
    with pytest.warns(LowRankWarning, match="iteration limit"):
        short = logdet(aslinearoperator(hermitian(SPECTRA["wide"])), maxiter=5, rng=0)
    assert short.status is LowRankStatus.NOT_CONVERGED
    assert short.steps == 5


@pytest.mark.parametrize("exponent", [-600, 600])
def test_units(exponent):
    A = hermitian(SPECTRA["fast"])
    for method in ("lanczos", "cholesky"):
        plain = logdet(A, method=method, rng=1).value
        scaled = logdet(np.ldexp(A, exponent), method=method, rng=1).value
        assert scaled - N * exponent * np.log(2) == pytest.approx(plain, rel=1e-9)


def test_ridge_beyond_all_eigenvalues():
    A = hermitian(np.linspace(1, 2, N))
    for ridge in (1e30, 1e300):
        result = logdet(aslinearoperator(A), ridge=ridge, probes=5, rng=0)
        assert result.success
        assert result.value == pytest.approx(N * np.log(ridge), rel=1e-12)
    assert logdet(aslinearoperator(np.zeros((N, N))), ridge=1e300, probes=5, rng=0).value == pytest.approx(N * np.log(1e300))


def test_single_precision_and_small_ones():
    A = hermitian(SPECTRA["flat"]).astype(np.float32)
    exact = np.log(SPECTRA["flat"]).sum()
    assert logdet(A).value == pytest.approx(exact, rel=1e-5)
    assert abs(logdet(A, method="lanczos", rng=0).value - exact) < 6
    assert logdet(np.zeros((0, 0))).value == 0
    assert logdet(sp.csr_array((0, 0))).value == 0
    assert logdet(np.array([[4]])).value == pytest.approx(np.log(4))
    assert logdet(np.array([[4.0]]), method="lanczos").value == pytest.approx(np.log(4), rel=1e-12)
    assert logdet(np.eye(3) * 2, method="lanczos").value == pytest.approx(3 * np.log(2), rel=1e-12)


@pytest.mark.parametrize("method", ["cholesky", "lanczos"])
def test_not_positive_definite(method):
    for values in (np.linspace(-1, 2, N), np.r_[0.0, np.ones(N - 1)], np.zeros(N)):
        with pytest.warns(LowRankWarning, match="not positive semidefinite"):
            found = logdet(hermitian(values), method=method, rng=0) if values.any() else logdet(np.zeros((N, N)), method=method)
        assert found.status is LowRankStatus.NOT_POSITIVE
        assert np.isnan(found.value)
    with pytest.warns(LowRankWarning, match="not positive semidefinite"):
        assert np.isnan(logdet(hermitian(np.linspace(-1, 2, N)), method="lanczos", rank=10, rng=0).value)


def test_refusals():
    A = hermitian(SPECTRA["flat"])
    with pytest.raises(ValueError, match="A must be square"):
        logdet(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"method must be one of .*; got 'lu'"):
        logdet(A, method="lu")
    with pytest.raises(ValueError, match="A must be Hermitian; got entries that differ by"):
        logdet(A + np.eye(N, k=1))
    with pytest.raises(ValueError, match="A must be Hermitian"):
        logdet(sp.csr_array(A + np.eye(N, k=1)))
    with pytest.raises(ValueError, match="A must be finite"):
        logdet(np.diag([1.0, np.nan]))
    with pytest.raises(ValueError, match="A must be finite"):
        logdet(sp.csr_array(np.diag([1.0, np.inf])))
    with pytest.raises(ValueError, match="A must have finite products"):
        logdet(aslinearoperator(np.diag([1.0, np.nan])))
    with pytest.raises(TypeError, match="A must be a dense array for method"):
        logdet(sp.csr_array(A), method="cholesky")
    with pytest.raises(ValueError, match="smallest must be a lower bound of the eigenvalues"):
        logdet(aslinearoperator(A), smallest=1.5, rng=0)
    for name, value in (("ridge", -1.0), ("probes", 1), ("tol", 0.0), ("maxiter", 0), ("smallest", -1.0), ("rank", -1)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            logdet(A, **{name: value})
    with pytest.raises(ValueError, match="level must be"):
        logdet(A, method="lanczos", rng=0).interval(1.0)
