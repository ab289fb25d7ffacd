"""Traces: textbook loops over the vector left out, unbiasedness and coverage over seeds, exactness at low rank."""

import numpy as np
import pytest
import scipy.sparse as sp
from oracles import words64
from scipy.sparse.linalg import LinearOperator
from spectra import SPECTRA, N, aslinearoperator, counted, general, hermitian
from stats import z_gate

import randla
from randla.lowrank._probes import TRACE, Probes
from randla.lowrank.result import LowRankStatus, LowRankWarning
from randla.lowrank.trace import trace

METHODS = ("xtrace", "nystrom", "hutch++", "hutchinson")
KINDS = pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])


def vectors(n, k, seed, complex_):
    return Probes(n, seed, TRACE, paired=complex_).columns(0, k)


def remainder(A, basis, x):
    """x's component outside the basis, on the sphere there, and the quadratic form."""
    v = x - basis @ (basis.conj().T @ x)
    v *= np.sqrt(len(x) - basis.shape[1]) / np.linalg.norm(v)
    return v.conj() @ A @ v


def xtrace_without(A, X, out, test):
    """Low-rank part from all vectors but those left out, the rest from one of these."""
    Q = np.linalg.qr(A @ np.delete(X, out, axis=1))[0]
    return np.trace(Q.conj().T @ A @ Q) + remainder(A, Q, X[:, test])


def nystrom_without(A, X, out, test):
    kept = np.delete(X, out, axis=1)
    Y = A @ kept
    low_rank = Y @ np.linalg.solve(kept.conj().T @ Y, Y.conj().T)
    Q = np.linalg.qr(kept)[0]
    return np.trace(low_rank) + remainder(A - low_rank, Q, X[:, test])


@KINDS
@pytest.mark.parametrize("method", ["xtrace", "nystrom"])
def test_loop_over_the_vector_left_out(method, complex_):
    values = np.arange(1, 31) ** -1.0
    A = hermitian(values, complex_) if method == "nystrom" else general(values, complex_)
    without, k = (nystrom_without, 12) if method == "nystrom" else (xtrace_without, 6)
    found = trace(aslinearoperator(A), method=method, matvecs=12, rng=5)
    X = vectors(30, k, 5, complex_)
    samples = np.array([without(A, X, [i], i) for i in range(k)])
    assert found.value == pytest.approx(samples.mean(), rel=1e-9)
    # The error from all pairs left out.
    changes = np.array([[samples[j] - without(A, X, [i, j], j) if i != j else 0 for j in range(k)] for i in range(k)])
    spread = np.sum(np.abs(samples - samples.mean()) ** 2) + max(0, np.sum(changes.conj() * changes.T).real)
    assert found.error == pytest.approx(np.sqrt(spread / (k * (k - 1))), rel=1e-7)


@KINDS
def test_plain_methods_by_their_formulas(complex_):
    A = general(SPECTRA["slow"], complex_)
    X = vectors(N, 24, 3, complex_)
    samples = N * np.einsum("ij,ik,kj->j", X.conj(), A, X) / np.sum(np.abs(X) ** 2, axis=0)
    found = trace(aslinearoperator(A), method="hutchinson", matvecs=24, rng=3)
    assert found.value == pytest.approx(samples.mean(), rel=1e-12)
    assert found.error == pytest.approx(np.std(samples, ddof=1) / np.sqrt(24), rel=1e-12)
    Q = np.linalg.qr(A @ X[:, :8])[0]
    rest = [remainder(A, Q, X[:, j]) for j in range(8, 16)]
    found = trace(aslinearoperator(A), method="hutch++", matvecs=24, rng=3)
    assert found.value == pytest.approx(np.trace(Q.conj().T @ A @ Q) + np.mean(rest), rel=1e-11)
    assert found.error == pytest.approx(np.std(rest, ddof=1) / np.sqrt(8), rel=1e-9)


@KINDS
def test_vectors_are_those_of_the_definition(complex_):
    seed = int(words64(0, 0, 30, 7)[0])
    rows = randla.Gaussian().sample(2**30, 20, rng=seed)[0:12, :] * 2.0**15
    expected = (rows[0::2] + 1j * rows[1::2]) / np.sqrt(2) if complex_ else rows
    assert np.array_equal(vectors(20, len(expected), 7, complex_), expected.T)
    assert np.array_equal(Probes(20, 7, TRACE, paired=complex_).columns(3, 5), expected.T[:, 3:5])


def runs(A, method, count, matvecs=30):
    op = aslinearoperator(A)
    return [trace(op, method=method, matvecs=matvecs, rng=seed) for seed in range(count)]


@KINDS
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPECTRA)
def test_unbiased_with_errors_that_cover(name, method, complex_):
    """False alarm of the z-gate: 1e-6. Nominal coverage is 95 %; 150 runs show 90 to 99.9 %."""
    A = hermitian(SPECTRA[name], complex_)
    exact = SPECTRA[name].sum()
    results = runs(A, method, 150)
    values = np.array([r.value for r in results])
    z_gate((values.real.mean() - exact) / values.real.std(ddof=1) * np.sqrt(len(values)), f"{method} on {name}")
    intervals = [r.interval() for r in results]
    covered = np.mean([np.real(low) <= exact <= np.real(high) for low, high in intervals])
    assert 0.9 <= covered <= 0.999
    # The squared error is an unbiased estimate of the variance, which few others are: Epperly et al. leave out covariances.
    # On the cliff a few seeds have most of the sum.
    variance = np.mean(np.abs(values - exact) ** 2)
    assert name == "cliff" or 0.5 <= np.mean([r.error**2 for r in results]) / variance <= 3.0


@KINDS
@pytest.mark.parametrize("method", ["xtrace", "hutch++", "hutchinson"])
def test_indefinite_and_not_hermitian(method, complex_):
    A = general(SPECTRA["slow"], complex_) - 0.3 * np.eye(N)
    results = runs(A, method, 200)
    values = np.array([r.value for r in results])
    for part in ("real", "imag") if complex_ else ("real",):
        found = getattr(values, part)
        z_gate((found.mean() - getattr(np.trace(A), part)) / found.std(ddof=1) * np.sqrt(len(found)), f"{method} {part}")
    low, high = np.array([r.interval() for r in results]).T
    inside = (low.real <= np.trace(A).real) & (np.trace(A).real <= high.real)
    # The error is that of both parts together, too large for one.
    assert 0.9 <= inside.mean() <= (1.0 if complex_ else 0.999)


@KINDS
@pytest.mark.parametrize(("method", "rank"), [("xtrace", 9), ("nystrom", 19), ("hutch++", 6)])
def test_exact_below_the_rank_that_the_products_reach(method, rank, complex_):
    for reached in (1, rank - 1, rank):
        values = np.r_[np.linspace(1, 2, reached), np.zeros(N - reached)]
        for A in (
            [hermitian(values, complex_)] if method == "nystrom" else [hermitian(values, complex_), general(values, complex_)]
        ):
            found = trace(aslinearoperator(A), method=method, matvecs=20, rng=1)
            assert abs(found.value - np.trace(A)) <= 1e-12 * values.sum()
            assert found.error <= 1e-11 * values.sum()


@pytest.mark.parametrize("method", METHODS)
def test_zero_matrix(method):
    found = trace(aslinearoperator(np.zeros((50, 50))), method=method, matvecs=12)
    assert (found.value, found.error) == (0, 0)
    assert found.interval() == (0, 0)


@KINDS
def test_entries_are_summed_exactly(complex_):
    A = general(SPECTRA["flat"], complex_)
    expected = np.trace(A)
    forms = [A, np.asfortranarray(A), np.repeat(A, 2, axis=0)[::2], sp.csr_array(A), sp.csc_array(A), [A[:40], A[40:]]]
    for form in forms:
        found = trace(form)
        assert found.value == pytest.approx(expected, rel=1e-14)
        assert (found.error, found.matvecs, found.method, found.status) == (0, 0, "exact", LowRankStatus.COMPUTED)
        assert isinstance(found.value, complex if complex_ else float)
    assert trace(np.diag([1e16, 1.0, -1e16])).value == 1.0
    assert trace(np.arange(9).reshape(3, 3)).value == 12.0
    assert trace(np.zeros((0, 0))).value == 0.0
    assert trace(np.diag([1.7e308, 1.7e308])).value == np.inf


def test_as_many_products_as_columns_are_exact():
    A = general(SPECTRA["slow"])
    op, count = counted(A)
    for options in ({"matvecs": N}, {"method": "hutchinson", "matvecs": N + 7}, {"method": "exact"}, {}):
        count[0] = 0
        found = trace(op, **options)
        assert found.value == pytest.approx(np.trace(A), rel=1e-13)
        assert found.matvecs == count[0] == N
        assert found.status is LowRankStatus.COMPUTED
        assert abs(found.value - np.trace(A)) <= found.interval()[1] - found.value


@pytest.mark.parametrize("method", METHODS)
def test_products_are_counted(method):
    op, count = counted(hermitian(SPECTRA["fast"]))
    assert trace(op, method=method, matvecs=31).matvecs == count[0] <= 31


def test_few_products_on_a_decaying_spectrum():
    """The inverse of a discrete Laplacian, to 1e-3: Hutchinson needs many times the products."""
    n = 1000
    values = 1 / (4 * np.sin(np.pi * np.arange(1, n + 1) / (2 * n + 2)) ** 2)

    def apply(X):
        return (values * X.T).T

    op = LinearOperator((n, n), matvec=apply, matmat=apply, rmatvec=apply, dtype=float)
    counts = {}
    for method in ("xtrace", "nystrom"):
        found = trace(op, method=method, tol=1e-3, rng=0)
        assert found.status is LowRankStatus.TOLERANCE_REACHED
        assert found.value == pytest.approx(values.sum(), rel=1e-3)
        counts[method] = found.matvecs
    with pytest.warns(LowRankWarning):
        plain = trace(op, method="hutchinson", matvecs=5 * counts["xtrace"], tol=1e-3, rng=0)
    assert plain.status is LowRankStatus.PRODUCTS_EXHAUSTED
    assert plain.error > 10 * found.error


def test_tolerance():
    A = hermitian(SPECTRA["exponential"])
    op, count = counted(A)
    for tol in (1e-1, 1e-2, 1e-3):
        count[0] = 0
        found = trace(op, tol=tol, rng=2)
        assert found.status is LowRankStatus.TOLERANCE_REACHED
        assert found.interval()[1] - found.value <= tol * found.value
        assert found.value == pytest.approx(SPECTRA["exponential"].sum(), rel=2 * tol)
        assert found.matvecs == count[0] < N
    assert trace(op, tol=1e-13, rng=2).status is LowRankStatus.COMPUTED
    with pytest.warns(LowRankWarning, match="as many products as were allowed"):
        found = trace(op, tol=1e-6, matvecs=20, rng=2)
    assert not found.success
    assert found.matvecs <= 20


def test_nystrom_of_an_indefinite_matrix_says_so():
    values = np.linspace(-1, 2, N)
    A = hermitian(values)
    with pytest.warns(LowRankWarning, match="Hutchinson"):
        found = trace(aslinearoperator(A), method="nystrom", matvecs=40, rng=0)
    assert found.status is LowRankStatus.NOT_POSITIVE
    plain = trace(aslinearoperator(A), method="hutchinson", matvecs=40, rng=0)
    assert found.value == pytest.approx(plain.value, rel=1e-12)


@KINDS
def test_nystrom_of_a_matrix_that_is_not_hermitian_says_so(complex_):
    """Its Hermitian part is positive definite, all that a Cholesky factorization looks at."""
    part = np.random.default_rng(0).standard_normal((N, N))
    A = 3 * np.eye(N) + (0.05j * (part + part.T) if complex_ else 0.05 * (part - part.T))
    with pytest.warns(LowRankWarning, match="Hutchinson"):
        found = trace(aslinearoperator(A), method="nystrom", matvecs=40, rng=0)
    assert found.status is LowRankStatus.NOT_POSITIVE
    assert found.value == pytest.approx(trace(aslinearoperator(A), method="hutchinson", matvecs=40, rng=0).value, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("exponent", [-700, 700])
def test_powers_of_two_change_nothing_but_the_size(method, exponent):
    A = hermitian(SPECTRA["fast"])
    plain = trace(aslinearoperator(A), method=method, matvecs=24, rng=4)
    scaled = trace(aslinearoperator(np.ldexp(A, exponent)), method=method, matvecs=24, rng=4)
    assert scaled.value == np.ldexp(plain.value, exponent)
    assert scaled.error == np.ldexp(plain.error, exponent)


@pytest.mark.parametrize("method", METHODS)
def test_replays_from_its_seed_and_takes_single_precision(method):
    A = hermitian(SPECTRA["fast"]).astype(np.float32)
    first = trace(aslinearoperator(A), method=method, matvecs=24, rng=np.random.default_rng(1))
    again = trace(aslinearoperator(A), method=method, matvecs=24, rng=first.seed)
    assert first == again
    assert abs(first.value - np.trace(A)) <= 6 * first.error
    double = trace(aslinearoperator(A.astype(float)), method=method, matvecs=24, rng=first.seed)
    assert first.value == pytest.approx(double.value, rel=1e-5)


def test_function_of_a_matrix():
    values = np.linspace(0.5, 4, N)
    B = hermitian(values)
    inverse = LinearOperator((N, N), matvec=lambda x: np.linalg.solve(B, x), dtype=float)
    found = trace(inverse, matvecs=60, rng=0)
    assert abs(found.value - np.sum(1 / values)) <= 4 * found.error


def test_refusals():
    op = aslinearoperator(np.eye(50))
    with pytest.raises(ValueError, match=r"A must be square; got shape \(3, 4\)"):
        trace(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"method must be one of .*; got 'girard'"):
        trace(op, method="girard")
    with pytest.raises(ValueError, match="matvecs must be at least 4; got 3"):
        trace(op, matvecs=3)
    with pytest.raises(ValueError, match="matvecs must be at least 6"):
        trace(op, method="hutch++", matvecs=5)
    with pytest.raises(ValueError, match="tol must be finite and greater than 0"):
        trace(op, tol=0.0)
    with pytest.raises(ValueError, match="A must be finite"):
        trace(np.diag([1.0, np.nan]))
    with pytest.raises(ValueError, match="A must have finite products"):
        trace(aslinearoperator(np.diag([1.0] * 49 + [np.inf])), matvecs=20)
    with pytest.raises(TypeError, match="rng must be"):
        trace(op, rng="seed")
    found = trace(op, method="hutchinson", matvecs=20)
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            found.interval(level)
    assert found.interval(0.5)[0] > found.interval(0.99)[0] - 1e-12
