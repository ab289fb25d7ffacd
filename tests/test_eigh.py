"""Eigenvalues of Hermitian matrices: LAPACK as the oracle, residuals that are true, refusals of what is not Hermitian."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import LIBRARIES
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from spectra import hermitian

from randla import RowBlocks
from randla.lowrank.eigh import eigh
from randla.lowrank.result import LowRankStatus, LowRankWarning

pytestmark = pytest.mark.usefixtures("one_blas_thread")

N, K = 400, 8
VALUES = {
    "poly": np.arange(1, N + 1) ** -1.0,
    "both signs": np.arange(1, N + 1) ** -1.0 * np.where(np.arange(N) % 2, -1, 1),
    "exponential": 0.7 ** np.arange(N),
    "cliff": np.r_[np.ones(15), 1e-3 * np.ones(N - 15)],
    "cluster": np.r_[1 + 1e-9 * np.arange(12), -0.9 * np.ones(6), 0.1 * np.ones(N - 18)],
    "low rank": np.r_[3.0, -2.0, 1.0, np.zeros(N - 3)],
    "identity": np.ones(N),
    "negative": -np.arange(1.0, N + 1),
}


def wanted(values, which, k=K):
    keys = {"LM": -np.abs(values), "LA": -values, "SA": values}[which]
    return values[np.argsort(keys, kind="stable")][:k]


def assert_eigen(result, A, values, which, tol, k=K):
    """Against eigenvalues by LAPACK: each error below the residual's bound, residuals and error those of the result."""
    w, V = result
    eps, scale = np.finfo(A.dtype).eps, np.abs(values).max()
    assert V.dtype == A.dtype
    assert w.dtype == A.real.dtype
    assert V.shape == (len(A), k)
    expected = wanted(values, which, k)
    compare = np.abs if which == "LM" else np.asarray  # of equal magnitude, either sign may come first
    assert np.abs(compare(w) - compare(expected)).max() <= (tol + 50 * eps) * scale
    np.testing.assert_allclose(V.conj().T @ V, np.eye(k), atol=50 * eps)
    true = np.linalg.norm(A @ V - V * w, axis=0)
    np.testing.assert_allclose(result.residuals, true, atol=50 * eps * scale)
    assert result.residuals.max() <= tol * scale
    largest = V[np.argmax(np.abs(V), axis=0), range(k)]
    assert np.all(largest.real > 0)
    assert np.abs(largest.imag).max() <= 4 * eps


@pytest.mark.parametrize("which", ["LM", "LA", "SA"])
@pytest.mark.parametrize("name", VALUES)
def test_agrees_with_lapack(name, which):
    A = hermitian(VALUES[name], rng=1)
    if name == "poly" and which == "SA":  # a cluster at zero: residuals of the size that is asked for
        result = eigh(A, K, which=which, tol=1e-5, rng=0)
        assert_eigen(result, A, np.linalg.eigvalsh(A), which, 1e-5)
    else:
        result = eigh(A, K, which=which, rng=0)
        assert_eigen(result, A, np.linalg.eigvalsh(A), which, 1.5e-8)
    assert result.method == "lanczos"
    assert result.status is LowRankStatus.TOLERANCE_REACHED
    assert result.success


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_complex_and_single_precision(dtype):
    exact = hermitian(VALUES["both signs"], np.dtype(dtype).kind == "c", rng=2)
    A = exact.astype(dtype)
    result = eigh(A, K, rng=0)
    assert_eigen(result, A, np.linalg.eigvalsh(exact), "LM", math.sqrt(np.finfo(dtype).eps))
    # Second order: the error of an eigenvalue is at most residual^2 / gap.
    gap = 1 / 8 - 1 / 9
    bound = result.residuals.max() ** 2 / gap + 20 * np.finfo(dtype).eps
    assert np.abs(result.eigenvalues - wanted(VALUES["both signs"], "LM")).max() <= bound


def test_eigenvectors_of_a_complex_matrix_are_not_conjugated():
    A = hermitian(VALUES["exponential"], True, rng=3)
    V = eigh(A, 3, rng=0).eigenvectors
    exact = np.linalg.eigh(A)[1][:, ::-1][:, :3]
    np.testing.assert_allclose(np.abs(np.sum(V.conj() * exact, axis=0)), 1, atol=1e-12)
    purely_imaginary = 1j * np.triu(np.ones((300, 300)), 1)
    purely_imaginary = purely_imaginary + purely_imaginary.conj().T
    result = eigh(purely_imaginary, 4, block_size=14, rng=0)
    expected = wanted(np.linalg.eigvalsh(purely_imaginary), "LM", 4)
    np.testing.assert_allclose(np.abs(result.eigenvalues), np.abs(expected), rtol=1e-10)


FORMS = {
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
    "operator": aslinearoperator,
    "blocks": lambda A: RowBlocks([A[:150], sp.csr_array(A[150:151]), A[151:]]),
    "list": lambda A: [A[:200], A[200:]],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_matrix(form):
    A = hermitian(VALUES["both signs"], form == "csc", rng=4)
    A.flags.writeable = False
    result = eigh(FORMS[form](A), K, rng=0)
    assert_eigen(result, A, np.linalg.eigvalsh(A), "LM", 1.5e-8)
    V = result.eigenvectors
    true = np.linalg.norm(A - (V * result.eigenvalues) @ V.conj().T)
    # Ten probes: 1.8 is five standard deviations for this tail, were it normal; the seed is fixed.
    assert true / 1.8 < result.error < 1.8 * true if form == "operator" else math.isclose(result.error, true, rel_tol=1e-9)
    assert math.isclose(result.norm, np.linalg.norm(A), rel_tol=0.1 if form == "operator" else 1e-12)
    assert result.relative_error == result.error / result.norm


def test_passes_are_counted():
    A = hermitian(VALUES["poly"], rng=5)
    calls = []

    def times(X):
        calls.append(X.shape)
        return A @ X

    op = LinearOperator(A.shape, matvec=times, matmat=times, rmatvec=times, dtype=float)
    result = eigh(op, K, rng=0)
    assert result.passes == len(calls)
    assert calls[0] == (N, K + 10)
    assert calls[-1] == (N, K + 10)
    blocks = RowBlocks([A[:100], A[100:]], shape=A.shape, dtype=float)
    streamed = eigh(blocks, K, rng=0)
    assert streamed.passes == blocks.reads == result.passes + 1  # and one for the norm


def test_error_estimate_of_operators_over_200_seeds():
    A = hermitian(VALUES["poly"][:120], rng=6)
    k = 6
    true = math.sqrt(np.sum(VALUES["poly"][k:120] ** 2))
    op = aslinearoperator(A)
    squares = np.array([eigh(op, k, tol=1e-6, rng=seed).error for seed in range(200)]) ** 2 / true**2
    # E = 1, and Var = 2 / 10 sum sigma^4 / (sum sigma^2)^2 for Gaussian probes; the mean of 200 within five deviations,
    # of which a normal one is outside with probability 6e-7.
    tail = VALUES["poly"][k:120] ** 2
    deviation = math.sqrt(0.2 * np.sum(tail**2)) / np.sum(tail)
    assert abs(squares.mean() - 1) < 5 * deviation / math.sqrt(200)
    assert np.mean(np.abs(np.sqrt(squares) - 1) < 0.2) > 0.9


SIZED = [(make, scale) for make in (np.asarray, sp.csr_array, aslinearoperator) for scale in (1e-200, 1e200, 1e306)]


# Products with subnormal matrices have no digits: only entries can be scaled first.
@pytest.mark.parametrize(("make", "scale"), [*SIZED, (np.asarray, 1e-310)])
def test_sizes_of_any_kind(make, scale):
    A = hermitian(VALUES["both signs"], rng=7)
    expected = eigh(A, K, rng=0)
    result = eigh(make(A * scale), K, rng=0)
    digits = 1e-11 if scale == 1e-310 else 1e-13
    np.testing.assert_allclose(result.eigenvalues / scale, expected.eigenvalues, rtol=0, atol=digits)
    if make is not aslinearoperator:
        assert math.isclose(result.error / scale, expected.error, rel_tol=1e-10)


def test_small_matrices_and_many_eigenvalues_go_to_lapack():
    for n, k in ((1, 1), (30, 4), (300, 100), (300, 500)):
        A = hermitian(np.linspace(-1, 2, n), True, rng=8)
        result = eigh(A, k, rng=0)
        exact = np.linalg.eigvalsh(A)
        k = min(k, n)
        assert result.method == "lapack"
        assert result.status is LowRankStatus.LAPACK
        np.testing.assert_allclose(np.abs(result.eigenvalues), np.abs(wanted(exact, "LM", k)), atol=1e-13)
        assert math.isclose(result.error, math.sqrt(np.sum(wanted(exact, "LM", n)[k:] ** 2)), rel_tol=1e-10, abs_tol=1e-13)
    sizes = eigh(np.diag([3, -4, 2]), 2)
    assert sizes.eigenvalues.dtype == np.float64
    np.testing.assert_allclose(sizes.eigenvalues, [-4, 3])


@pytest.mark.parametrize("block_size", [1, 3, 400])
def test_blocks_of_any_size(block_size):
    A = hermitian(VALUES["exponential"], rng=9)
    result = eigh(A, K, block_size=block_size, maxiter=1000, rng=0)
    assert_eigen(result, A, np.linalg.eigvalsh(A), "LM", 1.5e-8)


def test_repeated_eigenvalues_are_all_found_by_small_blocks_where_the_space_ends():
    # Invariant spaces of one or two blocks: new vectors are drawn until there could be k copies.
    for values in (VALUES["identity"], np.r_[np.ones(30), np.zeros(N - 30)]):
        result = eigh(hermitian(values, rng=10), 20, block_size=4, rng=0)
        np.testing.assert_allclose(result.eigenvalues, np.ones(20), atol=1e-12)


def test_zero_and_empty_matrices():
    result = eigh(np.zeros((500, 500), np.float32), 3)
    assert result.status is LowRankStatus.EXACT
    assert result.error == 0
    assert result.relative_error == 0
    np.testing.assert_array_equal(result.eigenvalues, np.zeros(3, np.float32))
    np.testing.assert_array_equal(result.eigenvectors.T @ result.eigenvectors, np.eye(3))
    assert eigh(aslinearoperator(np.zeros((50, 50))), 2).status is LowRankStatus.EXACT
    empty = eigh(np.zeros((0, 0)), 3)
    assert empty.eigenvalues.shape == (0,)
    assert empty.eigenvectors.shape == (0, 0)


def test_a_seed_replays_and_threads_do_not_matter():
    A = hermitian(VALUES["poly"], rng=11)
    result = eigh(A, K)
    again = eigh(A, K, rng=result.seed)
    np.testing.assert_array_equal(result.eigenvectors, again.eigenvectors)
    assert not np.array_equal(result.eigenvectors, eigh(A, K, rng=result.seed + 1).eigenvectors)
    with LIBRARIES.limit(limits=2, user_api="blas"):
        np.testing.assert_allclose(eigh(A, K, rng=result.seed).eigenvalues, result.eigenvalues, atol=1e-14)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)).eigenvectors, result.eigenvectors)
    assert "TOLERANCE" not in repr(result)
    assert "within the tolerance" in repr(result)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("form", ["dense", "csr", "small"])
def test_matrices_that_are_not_hermitian_are_refused(form, complex_):
    A = hermitian(VALUES["poly"][: 60 if form == "small" else N], complex_, rng=12)
    make = sp.csr_array if form == "csr" else np.asarray
    n, b = len(A), K + 10
    # One pair of entries, at the size that the docstring promises to find.
    limit = 100 * np.finfo(float).eps * n * math.sqrt(b) * np.linalg.norm(A)
    for seed in range(20):
        B = A.copy()
        B[3, 5] += limit / math.sqrt(2)
        with pytest.raises(ValueError, match="A must be Hermitian"):
            eigh(make(B), K, rng=seed)
    if complex_:
        symmetric = A + 1e-6j * np.eye(n)
        with pytest.raises(ValueError, match="A must be Hermitian"):
            eigh(make(symmetric), K, rng=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hermitian_matrices_are_never_refused(dtype):
    rng = np.random.default_rng(13)
    B = rng.standard_normal((500, 30)).astype(dtype)
    # Rounding at its worst: entries of one sign, whose random combinations cancel; large and small rows; a product.
    sizes = np.logspace(-6, 6, 500).astype(dtype)
    for A in (np.ones((500, 500), dtype), np.outer(sizes, sizes), B @ B.T, np.abs(B) @ np.abs(B).T):
        A = np.asarray(A, dtype)
        for seed in range(10):
            eigh(A, 3, rng=seed)


@pytest.mark.parametrize("order", ["C", "F"])
def test_one_triangle_does_not_pass_for_the_whole_matrix(order):
    # One real vector cannot tell that A is not Hermitian: the residuals, from a product with all of A, do.
    A = hermitian(VALUES["poly"], rng=15)
    wrong = np.array(np.tril(A) + 0.5 * np.triu(A, 1), order=order)
    with pytest.warns(LowRankWarning, match="Largest residual"):
        result = eigh(wrong, K, block_size=1, rng=0)
    assert not result.success
    true = np.linalg.norm(wrong @ result.eigenvectors - result.eigenvectors * result.eigenvalues, axis=0)
    np.testing.assert_allclose(result.residuals, true, rtol=1e-10)


def test_operators_that_are_not_hermitian_are_told():
    A = hermitian(VALUES["poly"], rng=14)
    A[0, 1] += 0.5
    with pytest.warns(LowRankWarning, match="not Hermitian"):
        result = eigh(aslinearoperator(A), 3, maxiter=30, rng=0)
    assert result.status is LowRankStatus.NOT_SYMMETRIC
    assert not result.success
    V = result.eigenvectors
    np.testing.assert_allclose(result.residuals, np.linalg.norm(A @ V - V * result.eigenvalues, axis=0), atol=1e-13)


def test_what_was_not_reached_is_told_with_true_residuals():
    A = hermitian(np.linspace(1, 2, N), rng=15)
    with pytest.warns(LowRankWarning, match="Largest residual"):
        result = eigh(A, K, maxiter=3, rng=0)
    assert result.status is LowRankStatus.NOT_CONVERGED
    V, w = result.eigenvectors, result.eigenvalues
    true = np.linalg.norm(A @ V - V * w, axis=0)
    np.testing.assert_allclose(result.residuals, true, rtol=1e-6)
    exact = np.linalg.eigvalsh(A)
    assert np.all(np.abs(exact[:, None] - w).min(axis=0) <= true)
    with pytest.warns(LowRankWarning, match="above the tolerance"):
        result = eigh(hermitian(VALUES["poly"], rng=15), K, tol=1e-18, rng=0)
    assert result.status is LowRankStatus.TOLERANCE_NOT_REACHED
    assert result.residuals.max() < 1e-13
    short = eigh(hermitian(VALUES["identity"], rng=15), K, block_size=2, maxiter=1, rng=0)
    assert short.eigenvalues.shape == (K,)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((np.eye(3), 0), {}, ValueError, "k must be at least 1; got 0"),
        ((np.eye(3), 1.5), {}, TypeError, "k must be an integer"),
        ((np.ones((3, 4)), 1), {}, ValueError, r"A must be square; got shape \(3, 4\)"),
        ((np.ones(3), 1), {}, ValueError, "A must have 2 dimensions"),
        ((np.eye(3), 1), {"which": "BE"}, ValueError, "which must be one of LM, LA, SA; got 'BE'"),
        ((np.eye(3), 1), {"tol": 0.0}, ValueError, "tol must be finite and greater than 0"),
        ((np.eye(3), 1), {"maxiter": 0}, ValueError, "maxiter must be at least 1"),
        ((np.eye(3), 1), {"block_size": 0}, ValueError, "block_size must be at least 1"),
        ((np.eye(3), 1), {"rng": -1}, ValueError, "rng must be"),
        ((np.diag([1.0, np.nan]), 1), {}, ValueError, "A must be finite"),
        ((sp.csr_array(np.diag([1.0, np.inf] * 300)), 1), {}, ValueError, "A must be finite"),
        ((aslinearoperator(np.full((400, 400), np.nan)), 1), {}, ValueError, "products of A must be finite"),
    ],
)
def test_unsuitable_arguments(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        eigh(*arguments, **keywords)
