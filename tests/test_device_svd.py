"""Singular value decompositions of matrices of a device: LAPACK as the oracle, and what may cross to the host."""

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from emulated import OnDevice
from test_svd import DTYPES, SPECTRA, matrix, misfit, require_decomposed, require_form, require_near_the_best, spectrum, tail

import randla
from randla import _backend, lowrank
from randla.lowrank import _device, _products
from randla.lowrank._krylov import start_from_sketch
from randla.lowrank._range import householder, orthonormalize
from randla.lowrank.result import LowRankStatus, LowRankWarning

CSR = pytest.param(True, id="csr")


@pytest.fixture(autouse=True)
def _one_thread(one_blas_thread):
    """The matrices are small."""


def sent(cupy, A):
    if not sp.issparse(A):
        return cupy.asarray(A)
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse.csr_matrix(A)


def decomposed(cupy, A, k=None, **options):
    """The result on the host, after a look at where it was."""
    result = randla.svd(sent(cupy, A), k, **options)
    for name in ("U", "s", "Vh", "s_upper"):
        assert isinstance(getattr(result, name), cupy.ndarray)
        setattr(result, name, getattr(result, name).get())
    for name in ("error", "norm", "relative_error"):
        assert isinstance(getattr(result, name), float)
    return result


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dtype", DTYPES)
def test_near_the_best_approximation(cupy, name, dtype):
    s = spectrum(name, 250)
    A = matrix(400, 250, s, dtype)
    require_near_the_best(decomposed(cupy, A, 20, rng=1), A, s, 20, 1.01 if "flat" in name else 1.001)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"n_iter": 0}, {"n_iter": 2}, {"n_iter": 2, "method": "subspace"}, {"method": "lapack"}]
)
def test_every_kind_of_matrix_tall_and_wide(cupy, monkeypatch, dtype, options):
    """Strides that no product takes as they are are copied in pieces; many of them here."""
    monkeypatch.setattr("randla._backend.DEVICE_BLOCK", 1 << 13)
    k, s = 6, 2.0 ** -np.arange(90.0)
    A = matrix(220, 90, s, dtype)
    big = cupy.zeros((440, 270), A.dtype)
    big[::2, ::3] = cupy.asarray(A)
    kinds = {
        "C": cupy.asarray(A),
        "F": cupy.asarray(np.asfortranarray(A)),
        "strided": big[::2, ::3],
        "csr": sent(cupy, sp.csr_array(A)),
        "csc": sent(cupy, sp.csr_array(A)).tocsc(),
        "wide": cupy.asarray(A).conj().T,
        "wide strided": big[::2, ::3].T.conj(),
        "wide csr": sent(cupy, sp.csr_array(A.conj().T)),
    }
    for name, value in kinds.items():
        if "cs" in name and dtype in (np.float32, np.complex64):
            continue
        dense = A.conj().T if "wide" in name else A
        result = randla.svd(value, k, rng=3, **options)
        for part in ("U", "s", "Vh"):
            setattr(result, part, getattr(result, part).get())
        require_decomposed(result, dense, s, k, np.dtype(dtype), name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparse", [False, CSR])
def test_the_same_request_finds_what_the_host_finds(cupy, dtype, sparse):
    A = matrix(260, 140, spectrum("noise", 140), dtype)
    A = sp.csr_array(A) if sparse else A
    for options in ({"n_iter": 1}, {"block_size": 24}, {"tol": 0.5}, {"center": True, "n_iter": 0}):
        options = {"k": 8} | options
        found, expected = decomposed(cupy, A, rng=2, **options), randla.svd(A, rng=2, **options)
        eps = float(np.finfo(dtype).eps)
        assert np.abs(found.s - expected.s).max() < 1e3 * eps * expected.s[0]
        assert found.error == pytest.approx(expected.error, rel=1e4 * eps)
        assert (found.dim, found.rank, found.status) == (expected.dim, expected.rank, expected.status)
        assert found.error_source == expected.error_source


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "sparse"), [((300, 200), False), ((120, 180), True)])
def test_rank_below_k(cupy, dtype, shape, sparse):
    A, eps = matrix(*shape, np.arange(7.0, 0, -1), dtype), float(np.finfo(dtype).eps)
    value = sp.csr_array(A) if sparse else A
    for options in ({}, {"n_iter": 1}):
        result = decomposed(cupy, value, 12, rng=0, **options)
        require_form(result, A, 12, np.dtype(dtype))
        assert np.abs(result.s[:7] - np.arange(7.0, 0, -1)).max() < 100 * eps
        assert result.s[7:].max() < 100 * eps
        assert max(misfit(A, result), result.error) < 300 * eps
        if not options:
            assert result.status is LowRankStatus.EXACT
    found = decomposed(cupy, value, tol=1e-3, rng=0)
    assert found.rank == 7
    assert found.status is LowRankStatus.TOLERANCE_REACHED


@pytest.mark.parametrize("value", [np.zeros((200, 130)), sp.csr_array((130, 200))])
@pytest.mark.parametrize("options", [{}, {"n_iter": 1}, {"center": True}])
def test_zero(cupy, value, options):
    result = decomposed(cupy, value, 4, rng=0, **options)
    require_form(result, np.empty(value.shape), 4, np.dtype(float))
    assert not result.s.any()
    assert result.error == result.relative_error == 0
    assert result.status is LowRankStatus.EXACT


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 1), (1, 4), (40, 30), (30, 40), (400, 100)])
@pytest.mark.parametrize("k", [1, 30, 500])
def test_all_shapes_up_to_the_full_rank(cupy, shape, k):
    A = np.random.default_rng(0).standard_normal(shape)
    found, expected = decomposed(cupy, A, k, rng=0), randla.svd(A, k, rng=0)
    assert found.status is expected.status
    assert found.rank == min(k, *shape)
    if A.size:
        require_form(found, A, found.rank, np.dtype(float))
    exact = np.linalg.svd(A, compute_uv=False)
    assert np.abs(found.s - exact[: found.rank]).max(initial=0) < 1e-12 * max(exact[:1], default=1)
    if k >= min(shape) > 0:
        assert misfit(A, found) < 1e-13 * np.linalg.norm(A)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1, 1])
def test_badly_scaled(cupy, dtype, exponent):
    scale = np.empty(0, dtype).real.dtype.type(10.0 ** (exponent * (200 if np.finfo(dtype).eps < 1e-10 else 30)))
    A = matrix(180, 100, spectrum("polynomial", 100), dtype)
    every = ({"k": 6}, {"k": 6, "n_iter": 1}, {"tol": 0.2}, {"k": 6, "center": True}, {"k": 6, "method": "lapack"})
    for value, plain, some in ((A * scale, A, every), (sp.csr_array(A * scale), sp.csr_array(A), every[3:])):
        for options in some:
            result, twin = decomposed(cupy, value, rng=0, **options), decomposed(cupy, plain, rng=0, **options)
            assert np.allclose(result.s / scale, twin.s, rtol=1e-4)
            assert result.error / float(scale) == pytest.approx(twin.error, rel=2e-2)
            assert result.norm / float(scale) == pytest.approx(twin.norm, rel=2e-2)


def test_columns_of_all_sizes(cupy):
    A = np.random.default_rng(0).standard_normal((300, 200)) * np.logspace(200, -200, 200)
    result = decomposed(cupy, A, 5, rng=0)
    exact = np.linalg.svd(A / 1e200, compute_uv=False)[:5]
    assert np.abs(result.s / 1e200 - exact).max() < 1e-12 * exact[0]


@pytest.mark.parametrize("tol", [0.5, 1e-3, 1e-10])
@pytest.mark.parametrize(("dtype", "sparse"), [(np.float64, False), (np.complex128, False), (np.float64, True)])
def test_tolerance_is_reached_with_nearly_the_smallest_rank(cupy, tol, dtype, sparse):
    s = 10 ** (-np.arange(300.0) / 9.7)
    A = matrix(310, 300, s, dtype)
    least = int(np.argmax([tail(s, k) <= tol * np.linalg.norm(s) for k in range(301)]))
    for value in [sp.csr_array(A)] if sparse else [A, A.conj().T]:
        result = decomposed(cupy, value, tol=tol, rng=0)
        error = misfit(value, result)
        assert error <= tol * np.linalg.norm(s) * (1 + 1e-9)
        assert result.error == pytest.approx(error, rel=0.35)
        assert least <= result.rank <= 1.05 * least + 4
        assert result.status is LowRankStatus.TOLERANCE_REACHED


def test_tolerances_that_cannot_be_reached(cupy):
    A = matrix(600, 400, 10 ** (-np.arange(400.0) / 10))
    with pytest.warns(LowRankWarning, match="The error is above the tolerance"):
        result = randla.svd(cupy.asarray(A), 20, tol=1e-4, rng=0)
    assert result.rank == 20
    assert not result.success


def test_copies_of_a_singular_value_beyond_the_block(cupy):
    """A block Krylov space holds no more of them than its block has columns: the sketch must notice."""
    s = np.r_[np.ones(50), 0.5 / np.arange(1, 551)]
    result = decomposed(cupy, matrix(900, 600, s), 50, block_size=16, rng=0)
    assert np.abs(result.s - 1).max() < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_principal_components(cupy, monkeypatch, dtype):
    """Centred in blocks of rows, of which there are several here."""
    monkeypatch.setattr("randla._backend.DEVICE_BLOCK", 1 << 16)
    monkeypatch.setattr(_device, "_WINDOW", 4096)
    rng = np.random.default_rng(0)
    A = (rng.standard_normal((9000, 40)) / np.arange(1, 41) + rng.standard_normal(40)).astype(dtype)
    S = sp.random_array((700, 300), density=0.05, rng=1, format="csr") * np.arange(300)
    for value in (A, A.T, sp.csr_array(S.astype(dtype)), sp.csr_array(S.astype(dtype).T)):
        dense = (value.toarray() if sp.issparse(value) else value).astype(np.complex128)
        result = randla.svd(sent(cupy, value), 8, center=True, rng=0)
        assert isinstance(result.mean, cupy.ndarray)
        assert np.allclose(result.mean.get(), dense.mean(axis=0), atol=1e-5)
        s = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)
        assert np.abs(result.s.get() - s[:8]).max() < 1e-3 * s[7]
        assert result.error == pytest.approx(tail(s, 8), rel=0.01)


def test_centring_that_cancels(cupy):
    D = matrix(500, 200, spectrum("polynomial", 200)) + 1e6
    s = np.linalg.svd(D - D.mean(axis=0), compute_uv=False)
    for value in (D, sp.csr_array(D)):
        assert np.abs(decomposed(cupy, value, 5, center=True, rng=0).s - s[:5]).max() < 1e-6


@pytest.mark.parametrize("sparse", [False, CSR])
def test_nothing_long_goes_to_the_host(cupy, monkeypatch, sparse):
    """Neither there nor back: what has as many entries as A has rows or columns stays; waits are counted by the block."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((1200, 500)) * (rng.uniform(size=(1200, 500)) < 0.04) / np.arange(1, 501)
    value = sent(cupy, sp.csr_array(A) if sparse else A)
    arrived = []
    put = cupy.asarray

    def asarray(a, *args, **kwargs):
        if isinstance(a, np.ndarray):
            arrived.append(a.shape)
        return put(a, *args, **kwargs)

    monkeypatch.setattr(cupy, "asarray", asarray)
    for options in ({}, {"n_iter": 1}, {"n_iter": 1, "method": "subspace"}, {"k": None, "tol": 0.7}, {"center": True}):
        fake_cupy.TRANSFERS.clear()
        result = randla.svd(value, rng=0, **{"k": 10} | options)
        largest = max(max(shape, default=0) for shape in fake_cupy.TRANSFERS + arrived)
        assert largest <= 4 * 32
        block = 20 if "n_iter" in options else 16 if sparse and "tol" not in options else 32
        assert len(fake_cupy.TRANSFERS) <= 6 * (result.dim // block) + 12


def test_the_same_bits_again(cupy):
    A = cupy.asarray(matrix(400, 250, spectrum("noise", 250)))
    first = randla.svd(A, 9)
    again = randla.svd(A, 9, rng=first.seed)
    for name in ("U", "s", "Vh"):
        assert np.array_equal(getattr(first, name).get(), getattr(again, name).get())
    assert "relative_error" in repr(first)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("options", [{}, {"n_iter": 0}, {"center": True}, {"method": "lapack"}, {"tol": 0.1}])
def test_infinite_entries(cupy, bad, dtype, options):
    A = np.ones((300, 150), dtype)
    A[7, 11] = bad
    for value in (A, A.T, sp.csr_array(A)):
        with pytest.raises(ValueError, match="A must be finite; got NaN or infinite entries"):
            randla.svd(sent(cupy, value), 3, rng=0, **options)


def test_matrices_of_another_shape_or_type(cupy):
    with pytest.raises(ValueError, match="A must have 2 dimensions; got 1"):
        randla.svd(cupy.zeros(3), 1)
    with pytest.raises(TypeError, match="A must have dtype float32"):
        randla.svd(cupy.zeros((3, 3), np.float16), 1)
    assert randla.svd(cupy.asarray(np.eye(3, dtype=np.int32)), 1).U.dtype == np.float64


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cond", [1.0, 1e3, 1e5, 1e9, np.inf])
def test_orthonormal_bases(cupy, dtype, cond):
    """Cholesky factors lose what a condition number above 1e8 hides: nothing may fail in silence."""
    rng, eps = np.random.default_rng(0), float(np.finfo(dtype).eps)
    scale = np.ones(12) if cond == 1 else np.logspace(0, -np.log10(cond), 12) if cond < np.inf else np.arange(12) < 5
    Y = matrix(200, 12, np.asarray(scale, float), dtype, rng=1) @ rng.standard_normal((12, 12)).astype(dtype)
    Q = orthonormalize(cupy.asarray(Y)).get()
    assert Q.dtype == dtype
    assert np.abs(Q.conj().T @ Q - np.eye(12)).max() < 50 * eps
    left = Y - Q @ (Q.conj().T @ Y)
    assert np.linalg.norm(left) < 50 * eps * np.linalg.norm(Y)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (5, 5), (4, 0)])
def test_householder_leaves_the_triangle_on_the_host(cupy, shape):
    Y = np.random.default_rng(0).standard_normal(shape) * 10.0 ** np.linspace(-290, 290, shape[1])
    Q, R = householder(cupy.asarray(Y))
    assert isinstance(R, np.ndarray)
    assert np.allclose(Q.get() @ R, Y, rtol=1e-12, atol=1e-12 * np.abs(Y).max(axis=0))
    assert (np.tril(R, -1) == 0).all()


def test_start_from_a_sketch_of_low_rank(cupy):
    """Where the Gram matrix has lost the small directions they come from a QR factorization."""
    for rank in (3, 12):
        SA = matrix(40, 90, 10.0 ** -np.arange(rank))
        V = start_from_sketch(cupy.asarray(SA), 12).get()
        assert V.shape == (90, 12)
        assert np.abs(V.T @ V - np.eye(12)).max() < 1e-13
        left = SA - SA @ V @ V.T
        assert np.linalg.norm(left) < 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("long", [8, 2048])
def test_sparse_products(cupy, monkeypatch, dtype, long):
    """Real ones with the bits of the processor where no row is cut."""
    monkeypatch.setattr(_device, "_LONG", long)
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((230, 70)) * (rng.uniform(size=(230, 70)) < 0.2)
    dense[[3, 100, 229]] = rng.standard_normal((3, 70))
    dense[50:60] = 0
    if np.dtype(dtype).kind == "c":
        dense = dense * np.exp(1j * rng.uniform(0, 6, dense.shape))
    A = sp.csr_array(dense.astype(dtype))
    for columns in (1, 5, 16, 40):
        X = rng.standard_normal((70, columns)).astype(dtype)
        for order in "CF":
            found = _device.CsrProduct(sent(cupy, A)).times(cupy.asarray(np.asarray(X, order=order))).get()
            expected = _products.csr_times(A, X)
            assert found.dtype == dtype
            assert np.abs(found - expected).max() < 50 * np.finfo(dtype).eps * np.abs(expected).max()
            if long > 70 and np.dtype(dtype).kind != "c":
                assert np.array_equal(found, expected)


def test_sparse_products_with_blocks_larger_than_the_cache(cupy):
    """Of which all rows take the same few columns at a time."""
    n, rng = 70_000, np.random.default_rng(0)
    A = sp.random_array((9, n), density=3e-4, format="csr", rng=rng)
    X = rng.standard_normal((n, 64))
    found = _device.CsrProduct(sent(cupy, A)).times(cupy.asarray(X)).get()
    assert np.array_equal(found, _products.csr_times(sp.csr_array(A), X))


def test_kernel_refuses_what_does_not_fit(cupy):
    A = sent(cupy, sp.csr_array(np.eye(4)))
    product = _backend.kernels(A.data).csr_product
    parts, X, out = (A.data, A.indptr, A.indices), cupy.zeros((4, 3)), cupy.zeros((4, 3))
    product(*parts, X, out)
    with pytest.raises(ValueError, match="must both be int32 or both int64"):
        product(A.data, A.indptr.astype(np.int64), A.indices, X, out)
    with pytest.raises(ValueError, match="CSR parts must be contiguous vectors"):
        product(A.data, A.indptr, cupy.zeros((4, 2), np.int32)[:, 0], X, out)
    with pytest.raises(ValueError, match="values has the wrong size"):
        product(A.data[:3], A.indptr, A.indices, X, out)
    with pytest.raises(ValueError, match="values must be given"):
        product(None, A.indptr, A.indices, X, out)
    with pytest.raises(ValueError, match="output has the wrong shape"):
        product(*parts, X, cupy.zeros((3, 3)))
    with pytest.raises(ValueError, match="must be float32 or float64"):
        product(*parts, X.astype(np.int32), out)


REFUSED = {
    "rpcholesky": lambda A: lowrank.rpcholesky(A, 2),
    "diag": lowrank.diag,
    "row_norms": lowrank.row_norms,
    "eigh": lambda A: lowrank.eigh(A, 2),
    "interpolative": lambda A: lowrank.interpolative(A, 2),
    "cur": lambda A: lowrank.cur(A, 2),
    "logdet": lowrank.logdet,
    "nystrom": lambda A: lowrank.nystrom(A, 2),
    "nystrom_pcg": lambda A: lowrank.nystrom_pcg(A, np.ones(6), 1.0),
    "qr": lowrank.qr,
    "trace": lowrank.trace,
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_wants_arrays_of_the_host(cupy, name):
    for value, kind in ((np.eye(6), r"cupy.*\.ndarray"), (sp.csr_array(np.eye(6)), r".*csr_matrix")):
        with pytest.raises(TypeError, match=f"A must be a numpy array; got {kind}"):
            REFUSED[name](sent(cupy, value))


def test_memory_of_a_device_by_another_library_is_not_copied_in_silence():
    with pytest.raises(TypeError, match=r"A must be a numpy array; got emulated\.OnDevice"):
        lowrank.diag(OnDevice(np.eye(3)))


def test_streams_and_right_hand_sides_want_arrays_of_the_host(cupy):
    with pytest.raises(TypeError, match=r"rows must be a numpy array; got cupy.*\.ndarray"):
        lowrank.StreamingSVD(6, 6, 2).add(cupy.asarray(np.eye(6)))
    with pytest.raises(TypeError, match=r"b must be a numpy array; got cupy.*\.ndarray"):
        lowrank.nystrom_pcg(np.eye(6), cupy.asarray(np.ones(6)), 1.0)
