"""Nystrom approximations against their formula, published expected errors, and the semidefinite order."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from psd_oracles import DTYPES, SPECTRA, psd, spectrum, wide
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg
from stats import Z_LIMIT, z_gate

import randla
from randla._random import random_words
from randla.lowrank.nystrom import nystrom
from randla.lowrank.result import LowRankStatus, LowRankWarning

pytestmark = pytest.mark.usefixtures("one_blas_thread")


def dense(found):
    return (wide(found.U) * found.eigenvalues) @ wide(found.U).conj().T


def test_vectors(n, size, seed):
    """By docs/definitions.md, from the public sketch."""
    word = int(random_words(np.zeros(1, np.int64), 0, 26, seed)[0, 0])
    return randla.Gaussian().sample(2**30, n, rng=word)[:size, :].T * 2.0**15


test_vectors.__test__ = False


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECTRA)
def test_never_above_the_matrix_and_within_what_is_reported(name, dtype):
    values = spectrum(name, 150)
    A = psd(values, dtype)
    found = nystrom(A, 20, rng=1)
    eps = float(np.finfo(dtype).eps)
    assert found.U.dtype == dtype
    assert found.eigenvalues.dtype == np.finfo(dtype).dtype
    assert found.U.shape == (150, 20)
    assert np.abs(found.U.conj().T @ found.U - np.eye(20)).max() < 40 * eps
    assert (np.diff(found.eigenvalues) <= 0).all()
    R = wide(A) - dense(found)
    assert np.linalg.eigvalsh(R)[0] > -100 * eps
    assert (found.eigenvalues <= values[:20] + 100 * eps).all()
    assert found.passes == 1
    assert found.n_samples == 30
    # 1e-6 is rounding error of 30 products in single precision.
    single = name == "cliff" and eps > 1e-10
    assert found.status is (LowRankStatus.EXACT if single else LowRankStatus.RANK_REACHED)
    assert found.rank == (15 if single else 20)
    assert 0.5 < found.error / np.linalg.norm(R) < 2.5
    assert 0.5 < found.trace_error / np.trace(R).real < 3
    assert found.relative_error == pytest.approx(np.linalg.norm(R) / np.linalg.norm(values), rel=1.5, abs=100 * eps)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_formula_with_the_documented_test_vectors(dtype):
    A = psd(spectrum("slow", 100), dtype)
    X = test_vectors(100, 12, 5)
    Y = A @ X
    expected = Y @ np.linalg.solve(X.T @ Y, Y.conj().T)
    found = nystrom(A, 12, n_oversamples=0, rng=5)
    np.testing.assert_allclose(dense(found), expected, atol=1e-12)
    values, vectors = np.linalg.eigh(expected)
    cut = nystrom(A, 4, n_oversamples=8, rng=5)
    np.testing.assert_allclose(dense(cut), (vectors[:, -4:] * values[-4:]) @ vectors[:, -4:].conj().T, atol=1e-12)
    U, eigenvalues = cut
    assert U is cut.U
    assert eigenvalues is cut.eigenvalues


@pytest.mark.parametrize("name", ["square", "exponential", "slow"])
def test_expected_trace_is_within_the_published_bound(name):
    # (1 + r / (l - r - 1)) sum_{i > r} lambda_i for every r < l - 1; one-sided gate of false alarm below 1e-6.
    values, l = spectrum(name, 80), 16
    A = psd(values)
    traces = []
    for seed in range(60):
        found = nystrom(A, l, n_oversamples=0, rng=seed)
        traces.append(values.sum() - found.eigenvalues.sum())
    low = np.mean(traces) - Z_LIMIT * np.std(traces) / np.sqrt(len(traces))
    assert low <= min((1 + r / (l - r - 1)) * values[r:].sum() for r in range(1, l - 1))


@pytest.mark.parametrize("name", ["slow", "square", "flat", "exponential"])
def test_leave_one_out_errors_over_200_seeds(name):
    values, l = spectrum(name, 60), 14
    A = psd(values)
    squares, traces, ratios = [], [], []
    for seed in range(200):
        found = nystrom(A, l, n_oversamples=0, rng=seed)
        fewer = nystrom(A, l - 1, n_oversamples=0, rng=seed + 10_000)
        R = A - dense(fewer)
        squares.append(found.error**2 - np.linalg.norm(R) ** 2)
        traces.append(found.trace_error - np.trace(R))
        ratios.append(found.error / np.linalg.norm(A - dense(found)))
    # Unbiased for one test vector less; the runs compared are independent.
    for difference in (squares, traces):
        z_gate(np.mean(difference) / (np.std(difference) / np.sqrt(200)), name)
    ratios = np.array(ratios)
    low, high = {"exponential": (0.65, 2.5), "square": (0.7, 2.0)}.get(name, (0.8, 1.25))
    assert np.mean((ratios > low) & (ratios < high)) >= 0.95
    assert np.mean(ratios) > 0.98


@pytest.mark.parametrize("name", SPECTRA)
def test_error_of_a_cut_approximation_over_200_seeds(name):
    values = spectrum(name, 70)
    A = psd(values, seed=2)
    ratios = []
    for seed in range(200):
        found = nystrom(A, 12, n_oversamples=8, rng=seed)
        ratios.append(found.error / np.linalg.norm(A - dense(found)))
    low, high = (0.65, 2.5) if name == "clustered" else (0.7, 1.6)
    assert np.mean((np.array(ratios) > low) & (np.array(ratios) < high)) >= 0.95


def test_forms_of_one_matrix(tmp_path):
    A = np.round(psd(spectrum("slow", 90)) * 1024)
    expected = nystrom(A, 10, rng=0)
    np.save(tmp_path / "A.npy", A)
    strided = np.repeat(A, 2, axis=1)[:, ::2]
    strided.flags.writeable = False
    calls = []

    def matvec(x):
        calls.append(1)
        return A @ x

    forms = {
        "F": np.asfortranarray(A),
        "strided": strided,
        "integers": A.astype(np.int32),
        "csr": sp.csr_array(A),
        "csc": sp.csc_matrix(A),
        "memory-mapped": np.load(tmp_path / "A.npy", mmap_mode="r"),
        "operator": LinearOperator(A.shape, matvec=matvec, rmatvec=matvec, dtype=float),
        "rows": [A[:30], A[30:]],
    }
    for form, given in forms.items():
        found = nystrom(given, 10, rng=0)
        np.testing.assert_allclose(dense(found), dense(expected), atol=1e-9, err_msg=form)
        assert found.error == pytest.approx(expected.error, rel=1e-9)
        assert found.passes == 1
    assert len(calls) == 20


def test_tolerance_is_reached_with_the_rank_that_suffices():
    values = spectrum("square", 1000)
    A = psd(values)
    for tol in (0.1, 1e-2, 1e-3):
        found = nystrom(A, tol=tol, rng=0)
        assert found.status is LowRankStatus.TOLERANCE_REACHED
        true = np.linalg.norm(A - dense(found)) / np.linalg.norm(A)
        assert true < 1.2 * tol
        assert found.relative_error <= tol
        best = int(np.argmax(np.sqrt(np.cumsum(values[::-1] ** 2)[::-1]) <= tol * np.linalg.norm(values)))
        assert 0.9 * best <= len(found.eigenvalues) < 1.3 * best + 3
        assert found.n_samples in (32, 64, 128, 256)
    # The products already made are kept: the test vectors are those of a fixed size.
    again = nystrom(A, len(found.eigenvalues), n_oversamples=found.n_samples - len(found.eigenvalues), rng=0)
    np.testing.assert_allclose(again.eigenvalues, found.eigenvalues, rtol=1e-9)
    assert found.passes == np.log2(found.n_samples / 32) + 1
    with pytest.warns(LowRankWarning, match="above the tolerance"):
        short = nystrom(A, 30, tol=1e-3, rng=0)
    assert short.status is LowRankStatus.TOLERANCE_NOT_REACHED
    assert short.U.shape == (1000, 30)
    assert nystrom(np.eye(100), tol=1e-3, rng=0).error == 0
    assert nystrom(A, tol=1.0, rng=0).U.shape == (1000, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_small_or_full_problems_go_to_lapack(dtype):
    values = spectrum("square", 40)
    A = psd(values, dtype)
    eps = float(np.finfo(dtype).eps)
    for k in (10, 40, 99):
        found = nystrom(A, k, rng=0)
        assert found.status is LowRankStatus.LAPACK
        np.testing.assert_allclose(found.eigenvalues, values[:k], atol=20 * eps)
        assert found.error == pytest.approx(np.linalg.norm(values[k:]), abs=100 * eps)
        assert found.error == pytest.approx(np.linalg.norm(wide(A) - dense(found)), abs=100 * eps)
    assert nystrom(np.zeros((0, 0)), 3, rng=0).U.shape == (0, 0)
    assert nystrom([[4.0]], 1, rng=0).eigenvalues.tolist() == [4.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_below_what_was_asked_for(dtype):
    A = psd(np.concatenate([np.ones(6), np.zeros(94)]), dtype)
    found = nystrom(A, 15, rng=0)
    eps = float(np.finfo(dtype).eps)
    assert found.rank == 6
    assert found.status is LowRankStatus.EXACT
    assert "Rank 6 of 15 asked for." in found.message
    assert np.linalg.norm(wide(A) - dense(found)) < 200 * eps
    assert found.error < 200 * eps
    zero = nystrom(np.zeros((50, 50), dtype), 5, rng=0)
    assert (zero.rank, zero.error, zero.relative_error, zero.trace_error) == (0, 0, 0, 0)
    assert not zero.eigenvalues.any()
    assert zero.status is LowRankStatus.EXACT


def test_indefinite_matrices_are_told_with_evidence():
    lowest = -0.3
    A = psd(np.concatenate([np.ones(20), np.full(180, lowest)]))
    with pytest.warns(LowRankWarning, match=r"There is an x with x\^H A x = -0\.\d+ x\^H x"):
        found = nystrom(A, 20, rng=0)
    assert found.status is LowRankStatus.NOT_POSITIVE
    assert not found.success
    assert found.error == found.relative_error == np.inf
    value = float(found.message.split("x^H A x = ")[1].split()[0])
    assert lowest * 1.01 <= value < 0
    for k in (3, 150):
        with pytest.warns(LowRankWarning, match="There is an x"):
            assert not nystrom(-np.eye(200), k, rng=0).success
    with pytest.warns(LowRankWarning, match=r"x\^H A x = -0.3 x"):
        nystrom(A, 200, rng=0)
    with pytest.warns(LowRankWarning, match="There is an x"):
        nystrom(A, tol=1e-3, rng=0)


@pytest.mark.parametrize("exponent", [-600, 600])
def test_scale_does_not_matter(exponent):
    A = psd(spectrum("square", 100))
    expected, found = nystrom(A, 10, rng=0), nystrom(A * 2.0**exponent, 10, rng=0)
    np.testing.assert_allclose(found.eigenvalues * 2.0**-exponent, expected.eigenvalues, rtol=1e-14)
    assert found.error * 2.0**-exponent == pytest.approx(expected.error)
    assert found.relative_error == pytest.approx(expected.relative_error)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_preconditioner_and_solve(dtype):
    A = psd(spectrum("exponential", 120), dtype)
    found = nystrom(A, 15, rng=0)
    ridge = 1e-3
    U, values = found
    inside = (U * (1 / (values + ridge))) @ U.conj().T
    P = (values[-1] + ridge) * inside + np.eye(120) - U @ U.conj().T
    apply = found.preconditioner(ridge)
    assert apply.dtype == dtype
    B = np.random.default_rng(0).standard_normal((120, 3)).astype(dtype)
    np.testing.assert_allclose(apply @ B, P @ B, atol=1e-12)
    np.testing.assert_allclose(apply @ B[:, 0], P @ B[:, 0], atol=1e-12)
    np.testing.assert_allclose(found.solve(B, ridge), np.linalg.solve(dense(found) + ridge * np.eye(120), B), rtol=1e-8)
    b = B[:, 0]
    counts = []
    for M in (None, apply):
        steps = []
        x, _ = cg(A + ridge * np.eye(120), b, rtol=1e-10, M=M, callback=steps.append)
        counts.append(len(steps))
    assert counts[1] < 0.6 * counts[0]
    np.testing.assert_allclose(x, np.linalg.solve(A + ridge * np.eye(120), b), rtol=1e-7)
    with pytest.raises(ValueError, match="ridge must be finite and greater than 0; got 0"):
        found.preconditioner(0)
    with pytest.raises(ValueError, match="b must be finite"):
        found.solve(np.full(120, np.nan), 1.0)


def test_expected_condition_number_at_the_published_rank():
    # Frangella, Tropp, Udell 2023, theorem 5.1: E kappa < 28 at 2 ceil(1.5 d) + 1; gate of false alarm below 1e-6.
    values, ridge = spectrum("square", 200), 1e-3
    d = (values / (values + ridge)).sum()
    A = psd(values)
    root = np.linalg.cholesky(A + ridge * np.eye(200))
    kappas = []
    for seed in range(20):
        found = nystrom(A, 2 * int(np.ceil(1.5 * d)) + 1, n_oversamples=0, rng=seed)
        preconditioned = np.linalg.eigvalsh(root.T @ (found.preconditioner(ridge) @ root))
        kappas.append(preconditioned[-1] / preconditioned[0])
    assert np.mean(kappas) + Z_LIMIT * np.std(kappas) / np.sqrt(20) < 28


def test_seed_replays_and_results_print():
    A = psd(spectrum("slow", 60))
    for rng in (None, np.random.default_rng(5), 7):
        found = nystrom(aslinearoperator(A), 10, rng=rng)
        np.testing.assert_array_equal(nystrom(A, 10, rng=found.seed).eigenvalues, found.eigenvalues)
    assert "trace_error" in repr(found)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).U, found.U)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "k must be an integer where tol is not given; got None for both", {"k": None}),
        (ValueError, "k must be at least 1; got 0", {"k": 0}),
        (ValueError, "n_oversamples must be at least 0; got -1", {"n_oversamples": -1}),
        (ValueError, "tol must be finite and at least 0; got nan", {"tol": np.nan}),
        (ValueError, r"A must be square; got shape \(4, 3\)", {"A": np.ones((4, 3))}),
        (ValueError, "A must have 2 dimensions; got 1", {"A": np.ones(4)}),
        (TypeError, "A must have dtype", {"A": np.full((2, 2), "x")}),
        (ValueError, "A must be finite; got NaN or infinite values in its products", {"A": np.full((50, 50), np.nan)}),
        (ValueError, "A must be finite; got NaN or infinite values in its products", {"A": np.full((4, 4), np.inf)}),
        (ValueError, "A must be Hermitian; got entries of size 1 ", {"A": np.triu(np.ones((5, 5)))}),
        (ValueError, "A must be Hermitian; got values x", {"A": np.triu(np.ones((50, 50)))}),
        (ValueError, "A must be Hermitian", {"A": 1j * np.eye(50)}),
        (TypeError, "rng must be", {"rng": "seed"}),
    ],
)
def test_arguments_are_checked(error, message, call):
    call = {"A": np.eye(4), "k": 2, "rng": 0, **call}
    with pytest.raises(error, match=message):
        nystrom(call.pop("A"), call.pop("k"), **call)
