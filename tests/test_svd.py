"""Truncated SVD: LAPACK as the oracle, the published bounds of expected errors, the error estimate over many seeds."""

import gzip
import os
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import LIBRARIES
from problems import haar
from scipy import stats
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import randla
from randla import _cpu
from randla.lowrank.result import LowRankStatus, LowRankWarning
from randla.lowrank.svd import SVDResult, svd

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def spectrum(name, n):
    i = np.arange(1.0, n + 1)
    return {
        "polynomial": 1 / i,
        "noise": np.sqrt(i**-2 + 1e-4),
        "slow": i**-0.25,
        "exponential": 10 ** (-i / 20),
        "steep": 10 ** (-i / 5),
        "cliff": np.where(i <= 20, 1.0, 1e-3),
        "cluster": np.where(i <= 20, 1 + 1e-9 * i[::-1], 0.5 / i),
        "flat": np.ones(n),
        "nearly flat": 1 + i[::-1] / (2 * n),
    }[name]


SPECTRA = ["polynomial", "noise", "slow", "exponential", "steep", "cliff", "cluster", "flat", "nearly flat"]


def matrix(m, n, s, dtype=np.float64, rng=0):
    rng = np.random.default_rng(rng)
    U, V = haar(m, len(s), rng), haar(n, len(s), rng)
    A = (U * s) @ V.T
    if np.dtype(dtype).kind == "c":
        A = A * np.exp(1j * rng.uniform(0, 6, (m, 1))) * np.exp(1j * rng.uniform(0, 6, (1, n)))
    return A.astype(dtype)


def tail(s, k):
    return float(np.linalg.norm(np.asarray(s, float)[k:]))


def misfit(A, result):
    A = A.toarray() if sp.issparse(A) else A
    wide = np.complex128 if A.dtype.kind == "c" else np.float64
    return float(np.linalg.norm(A.astype(wide) - (result.U.astype(wide) * result.s) @ result.Vh))


def require_form(result, A, k, dtype):
    """Shapes, dtypes, orthonormality, order, signs: what holds whatever the spectrum."""
    (m, n), eps = A.shape, np.finfo(dtype).eps
    assert isinstance(result, SVDResult)
    U, s, Vh = result
    assert U.shape == (m, k)
    assert s.shape == (k,)
    assert Vh.shape == (k, n)
    assert U.dtype == Vh.dtype == dtype
    assert s.dtype == np.empty(0, dtype).real.dtype
    assert np.abs(U.conj().T @ U - np.eye(k)).max(initial=0) < 100 * eps
    assert np.abs(Vh @ Vh.conj().T - np.eye(k)).max(initial=0) < 100 * eps
    assert (np.diff(s) <= 0).all()
    assert (s >= 0).all()
    largest = U[np.argmax(np.abs(U), axis=0), range(k)]
    assert np.abs(largest - np.abs(largest)).max(initial=0) < 10 * eps


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dtype", DTYPES)
def test_near_the_best_approximation(name, dtype):
    s = spectrum(name, 250)
    A = matrix(400, 250, s, dtype)
    require_near_the_best(svd(A, 20, rng=1), A, s, 20, 1.01 if "flat" in name else 1.001)


def require_decomposed(result, A, s, k, dtype, name):
    """Near the best approximation, with an error and singular values that say so."""
    require_form(result, A, k, dtype)
    error = misfit(A, result)
    assert error <= 1.02 * tail(s, k), name
    assert result.error == pytest.approx(error, rel=0.3 if result.error_source != "norm" else 0.02), name
    exact = np.linalg.svd(A.astype(complex), compute_uv=False)[:k]
    assert np.abs(result.s - exact).max() < 0.02 * exact[-1], name


def require_near_the_best(result, A, s, k, factor):
    """Eckart-Young: no error is below the tail of the singular values, nor is any Ritz value above its singular value."""
    require_form(result, A, k, A.dtype)
    eps, error, best, norm = float(np.finfo(A.dtype).eps), misfit(A, result), tail(s, k), np.linalg.norm(s)
    floor = 30 * eps * norm
    assert error >= best * (1 - 1e-6) - floor
    assert error <= best * factor + floor
    assert (result.s <= s[:k] * (1 + 50 * eps) + floor).all()
    assert (result.s_upper >= s[:k] * (1 - 50 * eps) - floor).all()
    assert result.norm == pytest.approx(norm, rel=10 * np.sqrt(eps) if eps > 1e-10 else 1e-12)
    assert result.error == pytest.approx(error, rel=0.2 if result.error_source == "probes" else 1e-2, abs=floor)
    assert result.relative_error == pytest.approx(result.error / result.norm)
    assert result.success


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"n_iter": 0}, {"n_iter": 2}, {"n_iter": 2, "method": "subspace"}, {"method": "lapack"}]
)
def test_every_kind_of_matrix_tall_and_wide(dtype, options, tmp_path):
    k, s = 6, 2.0 ** -np.arange(130.0)
    A = matrix(300, 130, s, dtype)
    np.save(tmp_path / "a.npy", A)
    big = np.zeros((600, 390), A.dtype)
    big[::2, ::3] = A
    kinds = {
        "C": A,
        "F": np.asfortranarray(A),
        "strided": big[::2, ::3],
        "memmap": np.load(tmp_path / "a.npy", mmap_mode="r"),
        "csr": sp.csr_array(A),
        "csc": sp.csc_matrix(A),
        "operator": aslinearoperator(A),
        "blocks": [A[:111], A[111:]],
        "wide": A.conj().T,
        "wide csr": sp.csr_array(A.conj().T),
        "wide operator": aslinearoperator(A).H,
        "wide blocks": [A.conj().T[:60], A.conj().T[60:]],
    }
    for name, value in kinds.items():
        if options.get("method") == "lapack" and "operator" in name:
            continue
        dense = A.conj().T if "wide" in name else A
        result = svd(value, k, rng=3, **options)
        require_decomposed(result, dense, s, k, np.dtype(dtype), name)


def test_complex_products_take_the_adjoint():
    """A^T in the place of A^H would leave the approximation far from A."""
    rng = np.random.default_rng(0)
    A = (rng.standard_normal((200, 3)) + 1j * rng.standard_normal((200, 3))) @ (
        rng.standard_normal((3, 150)) + 1j * rng.standard_normal((3, 150))
    )
    for value in (A, sp.csr_array(A), aslinearoperator(A), [A[:50], A[50:]]):
        for options in ({}, {"n_iter": 1}, {"method": "subspace", "n_iter": 1}):
            result = svd(value, 3, rng=0, **options)
            assert misfit(A, result) < 1e-12 * np.linalg.norm(A)


def test_integers_are_converted():
    A = np.random.default_rng(0).integers(0, 255, (300, 200)).astype(np.uint8)
    result = svd(A, 5, rng=0)
    assert result.U.dtype == np.float64
    assert misfit(A.astype(float), result) <= 1.01 * tail(np.linalg.svd(A.astype(float), compute_uv=False), 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_rank_below_k(dtype, shape):
    A, eps = matrix(*shape, np.arange(7.0, 0, -1), dtype), float(np.finfo(dtype).eps)
    for value in (A, sp.csr_array(A), aslinearoperator(A)):
        for options in ({}, {"n_iter": 1}):
            result = svd(value, 12, rng=0, **options)
            require_form(result, A, 12, np.dtype(dtype))
            assert np.abs(result.s[:7] - np.arange(7.0, 0, -1)).max() < 100 * eps
            assert result.s[7:].max() < 100 * eps
            assert max(misfit(A, result), result.error) < 300 * eps
            if not options:
                assert result.status is LowRankStatus.EXACT
    found = svd(A, tol=1e-3, rng=0)
    assert found.rank == 7
    assert found.status is LowRankStatus.TOLERANCE_REACHED


@pytest.mark.parametrize("value", [np.zeros((200, 130)), sp.csr_array((200, 130)), aslinearoperator(np.zeros((130, 200)))])
@pytest.mark.parametrize("options", [{}, {"n_iter": 1}, {"center": True}])
def test_zero(value, options):
    result = svd(value, 4, rng=0, **options)
    require_form(result, np.empty(value.shape), 4, np.dtype(float))
    assert not result.s.any()
    assert result.error == result.relative_error == 0
    assert result.status is LowRankStatus.EXACT
    assert svd(value, tol=0.1, rng=0).rank == 0


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("center", [False, True])
def test_empty(shape, center):
    result = svd(np.zeros(shape), 3, rng=0, center=center)
    assert [part.shape for part in result] == [(shape[0], 0), (0,), (0, shape[1])]
    assert result.error == 0


@pytest.mark.parametrize("shape", [(300, 60), (60, 300), (1, 300), (300, 1), (1, 1), (9, 7)])
@pytest.mark.parametrize("k", [59, 60, 1000])
def test_full_rank_is_lapacks(shape, k):
    A = np.random.default_rng(0).standard_normal(shape)
    s = np.linalg.svd(A, compute_uv=False)
    k_found = min(k, *shape)
    for value in (A, aslinearoperator(A)):
        result = svd(value, k, rng=0)
        require_form(result, A, k_found, np.dtype(float))
        assert np.abs(result.s - s[:k_found]).max() < 1e-12 * s[0]
        assert result.error == pytest.approx(tail(s, k_found), abs=1e-12 * s[0])
    if k_found == min(shape):
        assert result.error < 1e-12 * s[0]
    assert svd(A, k, rng=0).status is LowRankStatus.LAPACK


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1, 1])
def test_badly_scaled(dtype, exponent):
    scale = np.empty(0, dtype).real.dtype.type(10.0 ** (exponent * (200 if np.finfo(dtype).eps < 1e-10 else 30)))
    s = spectrum("polynomial", 150)
    A = matrix(220, 150, s, dtype)
    scaled = A * scale
    for value, plain in (
        (scaled, A),
        (sp.csr_array(scaled), sp.csr_array(A)),
        (aslinearoperator(scaled), A),
        ([scaled[:99], scaled[99:]], A),
    ):
        for options in ({"k": 6}, {"k": 6, "n_iter": 1}, {"tol": 0.2}, {"k": 6, "center": True}, {"k": 6, "method": "lapack"}):
            if isinstance(value, LinearOperator) and "method" in options:
                continue
            result = svd(value, rng=0, **options)
            twin = svd(aslinearoperator(A) if isinstance(value, LinearOperator) else plain, rng=0, **options)
            assert np.allclose(result.s / scale, twin.s, rtol=1e-4)
            assert result.error / float(scale) == pytest.approx(twin.error, rel=2e-2)
            assert result.norm / float(scale) == pytest.approx(twin.norm, rel=2e-2)


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e-320), (np.float32, 1e-42)])
def test_subnormal_entries(dtype, size):
    """By LAPACK, as a matrix of this size is; three digits are all that the entries have."""
    A = np.random.default_rng(0).standard_normal((50, 40)) / np.arange(1, 41) ** 2
    found = svd((A * size).astype(dtype), 3, rng=0)
    assert found.status is LowRankStatus.LAPACK
    assert found.s.astype(float) / size == pytest.approx(np.linalg.svd(A, compute_uv=False)[:3], rel=5e-3)
    assert found.error / size == pytest.approx(np.linalg.norm(np.linalg.svd(A, compute_uv=False)[3:]), rel=5e-3)


def test_columns_of_all_sizes():
    A = np.random.default_rng(0).standard_normal((300, 200)) * np.logspace(200, -200, 200)
    result = svd(A, 5, rng=0)
    exact = np.linalg.svd(A / 1e200, compute_uv=False)[:5]
    assert np.abs(result.s / 1e200 - exact).max() < 1e-12 * exact[0]


@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2, 1e-6, 1e-10])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_tolerance_is_reached_with_nearly_the_smallest_rank(tol, dtype):
    s = 10 ** (-np.arange(400.0) / 9.7)
    A = matrix(600, 400, s, dtype)
    least = int(np.argmax([tail(s, k) <= tol * np.linalg.norm(s) for k in range(401)]))
    for value in (A, A.conj().T, sp.csr_array(A), aslinearoperator(A), [A[:300], A[300:]]):
        result = svd(value, tol=tol, rng=0)
        dense = A.conj().T if getattr(value, "shape", None) == (400, 600) else A
        error = misfit(dense, result)
        assert error <= tol * np.linalg.norm(s) * (1 + 1e-9)
        assert result.error == pytest.approx(error, rel=0.35)
        assert least <= result.rank <= 1.05 * least + 4
        assert result.status is LowRankStatus.TOLERANCE_REACHED


def test_tolerance_on_slow_spectra_and_in_single_precision():
    s = spectrum("polynomial", 500)
    for dtype, tol in ((np.float64, 0.2), (np.float32, 0.2), (np.float32, 1e-3)):
        A = matrix(700, 500, s, dtype)
        result = svd(A, tol=tol, rng=0)
        assert misfit(A, result) <= tol * np.linalg.norm(s) * (1 + 1e-3)


def test_tolerances_that_cannot_be_reached():
    s = 10 ** (-np.arange(400.0) / 10)
    A = matrix(600, 400, s)
    for value in (A, aslinearoperator(A)):
        with pytest.warns(LowRankWarning, match="The error is above the tolerance.* Relative error 0.01"):
            result = svd(value, 20, tol=1e-4, rng=0)
        assert result.rank == 20
        assert not result.success
        assert misfit(A, result) <= 1.01 * tail(s, 20)
    with pytest.warns(LowRankWarning, match="floor of rounding"):
        result = svd(aslinearoperator(A), tol=1e-17, rng=0)
    assert misfit(A, result) < 1e-13
    with pytest.warns(LowRankWarning, match="above the tolerance"):
        svd(A[:100, :60], 3, tol=1e-9, rng=0)


def test_copies_of_a_singular_value_beyond_the_block():
    """A block Krylov space holds no more of them than its block has columns: the sketch must notice."""
    s = np.r_[np.ones(50), 0.5 / np.arange(1, 551)]
    A = matrix(900, 600, s)
    result = svd(A, 50, rng=0)
    assert misfit(A, result) <= 1.0001 * tail(s, 50)
    assert np.abs(result.s - 1).max() < 1e-6


@pytest.mark.parametrize("block", [1, 3, 40])
def test_block_size(block):
    s = spectrum("exponential", 300)
    A = matrix(400, 300, s)
    result = svd(A, 10, block_size=block, rng=0)
    assert misfit(A, result) <= 1.001 * tail(s, 10)
    assert result.dim % block == 0


def test_principal_components():
    rng = np.random.default_rng(0)
    A = matrix(400, 200, spectrum("polynomial", 200)) + 10 * rng.standard_normal(200)
    S = sp.random_array((500, 300), density=0.05, rng=1, format="csr") * np.arange(300)
    for value, dense in (
        (A, A),
        (A.T, A.T),
        (S, S.toarray()),
        (aslinearoperator(A), A),
        ([A[:99], A[99:]], A),
        (A * (1 + 2j), A * (1 + 2j)),
    ):
        centred = dense - dense.mean(axis=0)
        s = np.linalg.svd(centred, compute_uv=False)
        result = svd(value, 8, center=True, rng=0)
        assert np.allclose(result.mean, dense.mean(axis=0))
        assert np.abs(result.s - s[:8]).max() < 1e-3 * s[7]
        assert misfit(centred, result) <= 1.001 * tail(s, 8)
        assert result.error == pytest.approx(tail(s, 8), rel=0.05)
    assert svd(A, 8, rng=0).mean is None


def test_centring_that_cancels():
    """Means a million times the spread: what is left has the digits of the data, not of its squares."""
    D = matrix(500, 200, spectrum("polynomial", 200))
    for value in (D + 1e6, sp.csr_array(D + 1e6), [D + 1e6]):
        result = svd(value, 5, center=True, rng=0)
        s = np.linalg.svd((D + 1e6) - (D + 1e6).mean(axis=0), compute_uv=False)
        assert np.abs(result.s - s[:5]).max() < 1e-6


def operator_errors(dtype, runs, width):
    """Errors of the range finder of HMT (2011) with `width` Gaussian vectors, and estimates of them, over seeds."""
    s = spectrum("slow", 40)
    A = matrix(60, 40, s, dtype)
    op = aslinearoperator(A)
    results = [svd(op, width, n_oversamples=0, n_iter=0, rng=seed) for seed in range(runs)]
    return s, np.array([misfit(A, r) for r in results]), np.array([r.error for r in results]), results


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_published_bound_of_the_expected_error(dtype):
    """Theorem 10.5 of Halko, Martinsson, Tropp: E ||A - QQ'A||_F <= sqrt(1 + k / (p - 1)) times the tail, for k + p columns.

    The mean of 200 errors of a correct method exceeds the bound by 5 standard errors with a probability below 3e-7.
    """
    s, errors, _, _ = operator_errors(dtype, 200, 12)
    k = np.arange(1, 11)
    bounds = np.sqrt(1 + k / (12 - k - 1)) * [tail(s, i) for i in k]
    assert errors.mean() - 5 * errors.std() / np.sqrt(200) <= bounds.min()
    assert errors.min() >= tail(s, 12)
    # A constant start, which a broken generator might give, has no spread.
    assert errors.std() > 1e-3 * errors.mean()


def test_leave_one_out_estimate_over_seeds():
    """Each seed within a band; their mean square within 5 standard errors of the truth (false alarm: 6e-7).

    A leave-one-out error of 12 columns is that of 11: larger by what one column explains, which is bounded by sigma_1.
    """
    _s, errors, estimates, results = operator_errors(np.float64, 200, 12)
    assert {r.error_source for r in results} == {"leave-one-out"}
    assert all(r.passes == 2 for r in results)
    ratio = estimates / errors
    assert 0.75 < ratio.min() < ratio.max() < 1.35
    _, fewer, _, _ = operator_errors(np.float64, 200, 11)
    difference = estimates**2 - fewer**2
    assert abs(difference.mean()) <= 5 * difference.std() / np.sqrt(200)


@pytest.mark.parametrize("name", ["slow", "steep"])
def test_estimate_from_probes_over_seeds(name):
    """err^2 has the mean of the truth, and lies above what ten squared normal variables at most fall short of.

    For each of the 200 seeds the law of the ratio lies between that of chi-square with 10 degrees of freedom over 10, where
    one direction is left, and 1: the band has a probability of 1 - 1e-8 there, all seeds of 1 - 4e-6.
    """
    s = spectrum(name, 40)
    op = aslinearoperator(matrix(60, 40, s))
    results = [svd(op, 6, n_iter=1, rng=seed) for seed in range(200)]
    assert {r.error_source for r in results} == {"probes"}
    A = matrix(60, 40, s)
    ratio = np.array([(r.error / misfit(A, r)) ** 2 for r in results])
    assert ratio.min() > stats.chi2.ppf(1e-8, 10) / 10
    assert ratio.max() < stats.chi2.isf(1e-8, 10) / 10
    assert abs(ratio.mean() - 1) <= 5 * ratio.std() / np.sqrt(200)


def test_estimate_from_the_norm_over_seeds():
    A = matrix(250, 200, spectrum("slow", 200))
    for seed in range(200):
        result = svd(A, 3, n_iter=0, rng=seed)
        assert result.error_source == "norm"
        assert result.error == pytest.approx(misfit(A, result), rel=1e-9)


def test_mnist(data_file):
    """Principal components of real pixels: the reported error within a percent of the true one."""
    with gzip.open(data_file("mnist_t10k-images-idx3-ubyte.gz")) as file:
        A = np.frombuffer(file.read()[16:], np.uint8).reshape(10_000, 784)[:2500]
    result = svd(A, 20, center=True, rng=0)
    centred = A - A.mean(axis=0)
    s = np.linalg.svd(centred, compute_uv=False)
    assert misfit(centred, result) <= 1.0001 * tail(s, 20)
    assert result.error == pytest.approx(misfit(centred, result), rel=1e-2)


def test_passes_are_reads_of_the_source():
    A = matrix(500, 150, spectrum("polynomial", 150))
    for options in ({"k": 8}, {"k": 8, "n_iter": 0}, {"k": 8, "n_iter": 3}, {"tol": 0.1}, {"k": 8, "center": True}, {"k": 140}):
        blocks = randla.RowBlocks(lambda: iter([A[:200], A[200:]]), shape=A.shape, dtype=A.dtype)
        assert svd(blocks, rng=0, **options).passes == blocks.reads
    for q in (0, 1, 3):
        assert svd(A, 8, n_iter=q, rng=0).passes == q + 2
        assert svd(A, 8, n_iter=q, method="subspace", rng=0).passes == q + 2
        blocks = randla.RowBlocks([A[:200], A[200:]])
        assert svd(blocks, 8, n_iter=q, rng=0).passes == blocks.reads == q + 2


def test_passes_of_operators_are_calls():
    A = matrix(300, 150, spectrum("polynomial", 150))
    for options in ({"k": 8}, {"k": 8, "n_iter": 0}, {"k": 8, "n_iter": 2}, {"tol": 0.1}, {"k": 8, "center": True}):
        calls = []

        class Counting:
            shape, dtype = A.shape, A.dtype

            def matmat(self, X, calls=calls):
                calls.append(X.shape[1])
                return A @ X

            def rmatmat(self, Y, calls=calls):
                calls.append(Y.shape[1])
                return A.T @ Y

            matvec, rmatvec = matmat, rmatmat

        result = svd(Counting(), rng=0, **options)
        assert result.passes == len(calls)
    assert svd(aslinearoperator(A), 8, n_iter=2, rng=0).passes == 1 + 2 * 2 + 1 + 1  # the last one: probes


def test_fewer_passes_than_seven_subspace_iterations():
    """What the default of scikit-learn reaches in 16 passes."""
    for name in ("polynomial", "noise", "slow", "exponential", "nearly flat"):
        A = matrix(700, 300, spectrum(name, 300))
        reference = svd(A, 20, n_iter=7, method="subspace", rng=0)
        result = svd(A, 20, rng=0)
        assert result.passes <= 10
        assert result.error <= reference.error * (1 + 2e-5)


def test_replay():
    A = matrix(300, 200, spectrum("slow", 200))
    for value in (A, sp.csr_array(A), aslinearoperator(A), [A]):
        for options in ({"k": 5}, {"tol": 0.7}, {"k": 5, "n_iter": 0}):
            first = svd(value, **options)
            again = svd(value, rng=first.seed, **options)
            assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
            assert first.error == again.error
            other = svd(value, rng=first.seed + 1, **options)
            assert not np.array_equal(first.U, other.U) or first.method == "lapack"


@pytest.mark.skipif(not _cpu.has_openmp(), reason="built without OpenMP")
def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(0)
    A = matrix(3000, 150, spectrum("slow", 150))
    S = sp.random_array((4000, 600), density=0.01, rng=rng, format="csr")
    before = _cpu.max_threads()
    try:
        with LIBRARIES.limit(limits=1, user_api="blas"):
            for value in (A, S, [A[:999], A[999:]]):
                found = set()
                for threads in (1, 2, 3, 8):
                    randla.set_num_threads(threads)
                    result = svd(value, 6, rng=0)
                    found.add(b"".join(part.tobytes() for part in result))
                assert len(found) == 1
    finally:
        randla.set_num_threads(before)


def test_the_matrix_is_not_changed():
    A = matrix(300, 200, spectrum("slow", 200))
    A.flags.writeable = False
    S = sp.csr_array(A)
    for part in (S.data, S.indices, S.indptr):
        part.flags.writeable = False
    for value in (A, A.T, S):
        for options in ({"k": 5}, {"k": 5, "method": "lapack"}, {"k": 5, "center": True}, {"tol": 0.8}):
            svd(value, rng=0, **options)


def test_result_prints_and_pickles():
    result = svd(np.random.default_rng(0).standard_normal((200, 150)), 4, rng=0)
    text = repr(result)
    for word in ("message", "rank: 4", "relative_error", "passes", "seed: 0", "s: ["):
        assert word in text
    again = pickle.loads(pickle.dumps(result))
    assert np.array_equal(again.U, result.U)
    assert again.status is result.status


def test_flat_spectra_stop_at_a_limit(monkeypatch):
    A = np.random.default_rng(0).standard_normal((700, 600))
    result = svd(A, 30, rng=0)
    assert result.dim <= 120
    assert misfit(A, result) <= 1.005 * tail(np.linalg.svd(A, compute_uv=False), 30)
    monkeypatch.setattr("randla.lowrank._truncated._POOR", 1e-4)
    with pytest.warns(LowRankWarning, match="still improving"):
        result = svd(A, 30, rng=0)
    assert result.status is LowRankStatus.NOT_CONVERGED
    assert not result.success


def test_a_small_gain_by_chance_does_not_end_the_run():
    s = np.r_[np.linspace(1, 0.9, 400), np.zeros(200)]
    A = matrix(700, 600, s)
    result = svd(A, 100, block_size=10, n_oversamples=0, rng=0)
    assert misfit(A, result) <= 1.002 * tail(s, 100)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_raises(bad):
    A = np.ones((200, 150))
    A[3, 4] = bad
    for value in (A, A.T, np.asfortranarray(A), sp.csr_array(A), [A[:99], A[99:]], A[:20, :20]):
        for options in ({}, {"n_iter": 0}, {"center": True}, {"method": "lapack"}):
            with pytest.raises(ValueError, match="A must be finite; got NaN or infinite entries"):
                svd(value, 3, rng=0, **options)
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="the products of A must be finite"):
        svd(aslinearoperator(A), 3, rng=0)


def test_refusals():
    A = np.ones((20, 10))
    for error, message, arguments in (
        (ValueError, "k or tol must be given; got neither", {}),
        (ValueError, "k must be at least 1; got 0", {"k": 0}),
        (TypeError, "k must be an integer; got 2.5", {"k": 2.5}),
        (ValueError, "tol must be finite and greater than 0; got 0", {"tol": 0.0}),
        (ValueError, "n_oversamples must be at least 0; got -1", {"k": 2, "n_oversamples": -1}),
        (ValueError, "n_iter must be an integer or 'auto'; got 'many'", {"k": 2, "n_iter": "many"}),
        (ValueError, "n_iter must be at least 0; got -1", {"k": 2, "n_iter": -1}),
        (ValueError, "n_iter must be 'auto' where a tolerance is given; got 2", {"tol": 0.1, "n_iter": 2}),
        (ValueError, "n_iter must be an integer for method 'subspace'; got 'auto'", {"k": 2, "method": "subspace"}),
        (ValueError, "method must be one of auto, krylov, subspace, lapack; got 'power'", {"k": 2, "method": "power"}),
        (TypeError, "center must be True or False; got 1", {"k": 2, "center": 1}),
        (ValueError, "block_size must be at least 1; got 0", {"k": 2, "block_size": 0}),
        (TypeError, "rng must be", {"k": 2, "rng": "seed"}),
    ):
        with pytest.raises(error, match=message):
            svd(A, **arguments)
    with pytest.raises(TypeError, match="method 'lapack' needs a matrix given by its entries; got MatrixLinearOperator"):
        svd(aslinearoperator(A), 2, method="lapack")
    with pytest.raises(ValueError, match="A must have 2 dimensions; got 1"):
        svd(np.ones(3), 1)
    with pytest.raises(TypeError, match="A must have dtype"):
        svd(np.array([["a"]]), 1)


@pytest.mark.slow
@pytest.mark.skipif("CI_SMALL" in os.environ, reason="needs 1 GB")
def test_large():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40_000, 1500)) * (np.arange(1.0, 1501) ** -0.7)
    result = svd(A, 40, rng=0)
    assert result.error <= 1.001 * tail(np.sqrt(np.linalg.eigvalsh(A.T @ A)[::-1]), 40)
