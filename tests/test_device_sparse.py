"""Sparse matrices of a device, which a strict stand-in for CuPy plays where there is none, against those of the host."""

from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
import scipy.sparse as sp
from test_device_sketches import EXACT, FAMILIES

import randla
from randla import _check, _csr
from randla._matrix import wrap
from randla._row_map import RowMap


def sparse(m, n, density, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    A = sp.random_array((m, n), density=density, format="csr", rng=rng, data_sampler=rng.standard_normal)
    if np.dtype(dtype).kind == "c":
        A.data = A.data + 1j * rng.standard_normal(A.nnz)
    return A.astype(dtype)


def there(A, kind="csr"):
    import cupyx.scipy.sparse

    return getattr(cupyx.scipy.sparse, f"{kind}_matrix")(A)


def tall(m=1500, n=20, dtype=np.float64):
    A = sparse(m, n, 0.2, dtype)
    return sp.csr_array(sp.vstack([A, sp.eye_array(n, format="csr", dtype=dtype)]))


@pytest.mark.parametrize("distribution", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_sketches(cupy, distribution, dtype):
    A = sparse(900, 70, 0.05, dtype)
    S, given = distribution.sample(60, 900, rng=1), there(A)
    fake_cupy.TRANSFERS.clear()
    found = S @ given
    assert isinstance(found, cupy.ndarray)
    assert found.dtype == dtype
    # Whether the matrix is as it should be, and where its blocks of rows begin.
    assert all(len(shape) < 2 and sum(shape) < 20 for shape in fake_cupy.TRANSFERS)
    expected = S @ A
    if isinstance(distribution, EXACT) and np.dtype(dtype).kind == "f":
        assert np.array_equal(found.get(), expected)
    np.testing.assert_allclose(found.get(), expected, rtol=0, atol=100 * np.finfo(dtype).eps * abs(expected).max())


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_layouts_transposes_and_sketch(cupy, kind):
    A, Y = sparse(500, 30, 0.1), sparse(40, 12, 0.2)
    S, given = randla.SparseStack().sample(40, 500, rng=1), there(A, kind)
    assert np.array_equal((S @ given).get(), S @ A)
    assert np.array_equal((given.T @ S.T).get(), A.T @ S.T)
    np.testing.assert_allclose((S.T @ there(Y, kind)).get(), S.T @ Y, rtol=0, atol=1e-15)
    assert np.array_equal(randla.sketch(given, 40, rng=1).get(), randla.sketch(A, 40, rng=1))


@pytest.mark.parametrize("shape", [(300, 7), (0, 7), (300, 0)])
@pytest.mark.parametrize("distribution", FAMILIES, ids=repr)
def test_nothing_but_zeros(cupy, distribution, shape):
    found = distribution.sample(40, shape[0], rng=1) @ there(sp.csr_array(shape))
    assert np.array_equal(found.get(), np.zeros((40, shape[1])))


def test_blocks_of_rows(cupy, monkeypatch):
    A = there(sparse(100, 30, 0.2))
    for entries, multiple, lengths in [(3000, 16, [96, 4]), (300, 16, [10] * 10), (1, 1, [1] * 100)]:
        monkeypatch.setattr("randla._backend.DEVICE_BLOCK", entries)
        blocks = list(_csr.dense_blocks(A, multiple))
        assert [len(block) for _, block in blocks] == lengths
        assert np.array_equal(np.concatenate([block.get() for _, block in blocks]), A.toarray().get())


def test_duplicates_are_added_up_in_a_copy(cupy):
    import cupyx.scipy.sparse

    data, rows, indptr = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3, 1, 3, 0], np.int32), np.array([0, 3, 4], np.int32)
    given = cupyx.scipy.sparse.csr_matrix(tuple(map(cupy.asarray, (data, rows, indptr))), shape=(2, 5))
    S = randla.CountSketch().sample(6, 2, rng=1)
    expected = S @ sp.csr_array((data, rows, indptr), shape=(2, 5))
    np.testing.assert_allclose((S @ given).get(), expected, rtol=0, atol=1e-15)
    assert given.nnz == 4


def test_unsuitable_matrices(cupy):
    import cupyx.scipy.sparse

    def made(data, indices, indptr, shape):
        parts = np.asarray(data), np.array(indices, np.int32), np.array(indptr, np.int32)
        return cupyx.scipy.sparse.csr_matrix(tuple(map(cupy.asarray, parts)), shape=shape)

    S = randla.CountSketch().sample(6, 2, rng=1)
    for indices, message in [([0, 5], "shape \\(2, 5\\); got some out of range"), ([0, -1], "got some out of range")]:
        good = made([1.0, 2.0], [0, 1], [0, 1, 2], (2, 5))
        good.indices[:] = cupy.asarray(np.array(indices, np.int32))
        with pytest.raises(ValueError, match="X must have valid CSR indices .*" + message):
            S @ good
        by_columns = cupyx.scipy.sparse.csc_matrix((good.data, good.indices, good.indptr), shape=(5, 2))
        with pytest.raises(ValueError, match=r"A must have valid CSC indices for its shape \(5, 2\); got some out of range"):
            randla.lstsq(by_columns, cupy.ones(5))
    with pytest.raises(ValueError, match=r"X must have 2 rows, as S has shape \(6, 2\); got shape \(3, 5\)"):
        S @ made([1.0, 2.0], [0, 1], [0, 1, 2, 2], (3, 5))
    with pytest.raises(ValueError, match="A must have 2 dimensions; got 1"):
        _check.device_csr(SimpleNamespace(ndim=1), "A")
    A = there(sparse(300, 4, 0.5))
    with pytest.raises(TypeError, match=r"A must be a numpy array; got cupyx\.scipy\.sparse\S*csr_matrix"):
        _check.matrix(A, "A")
    with pytest.raises(TypeError, match=r"A and b must all be on the host or all on the device; got cupyx\.csr_matrix, numpy"):
        randla.lstsq(A, np.ones(300))
    truths = _check.device_csr(made(np.array([True, True, True]), [1, 1, 4], [0, 2, 3], (2, 5)), "A")
    assert truths.dtype == np.float64
    assert truths.data.get().tolist() == [2, 1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_solvers_ask_of_a_matrix(cupy, dtype, weighted):
    A, rng = tall(700, 20, dtype), np.random.default_rng(0)
    m, n = A.shape
    w = rng.uniform(0, 2, m) * (rng.uniform(size=m) > 0.1) if weighted else None
    here, device = wrap(A, w), wrap(_check.matrix(there(A), "A", device=True), None if w is None else cupy.asarray(w))
    X, B = rng.standard_normal((3, n)), rng.standard_normal((3, m))
    S = randla.SparseStack().sample(90, m, rng=1)
    mapping = RowMap(rng.standard_normal((n, 7)), 2.0 ** rng.integers(-3, 3, n))
    chosen = np.array([3, 0, 3, m - 1])
    close = {"rtol": 0, "atol": 1e-11 if dtype == np.float64 or weighted else 1e-4}

    for found, expected in zip(device.residual(X, cupy.asarray(B)), here.residual(X, B), strict=True):
        np.testing.assert_allclose(_host(found), expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(device.times(X).get(), here.times(X), rtol=0, atol=1e-12)
    (SA, SB), (SA2, SB2) = next(here.sketched(S, B)), device.stacked(S, cupy.asarray(B))
    np.testing.assert_allclose(SA2.get(), SA, **close)
    np.testing.assert_allclose(SB2.get(), SB, **close)
    np.testing.assert_allclose(device.gram(mapping), here.gram(mapping), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(device.row_norms(mapping).get(), here.row_norms(mapping), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(device.row_squares().get(), here.row_squares(), rtol=1e-14, atol=0)
    np.testing.assert_allclose(device.take(cupy.asarray(chosen)).get(), here.take(chosen), rtol=1e-15, atol=0)
    both = zip(device.row_blocks(300), here.row_blocks(300), strict=True)
    assert all(np.allclose(found.get(), expected, rtol=1e-15, atol=0) for found, expected in both)
    turned, expected = device.transposed(), here.transposed()
    Z = rng.standard_normal((2, m))
    np.testing.assert_allclose(turned.times(Z).get(), expected.times(Z), rtol=0, atol=1e-11)
    assert device.is_finite()
    device.A.data[3] = np.inf
    assert not device.is_finite()


def _host(a):
    return a if isinstance(a, np.ndarray) else a.get()


@pytest.mark.parametrize("method", ["auto", "spir", "fossils", "cholqr", "momentum"])
def test_least_squares(cupy, method):
    A, rng = tall(), np.random.default_rng(0)
    b = rng.standard_normal((A.shape[0], 2))
    found = randla.lstsq(there(A), cupy.asarray(b), method=method, rng=1)
    assert isinstance(found.x, cupy.ndarray)
    assert found.success
    assert np.all(np.asarray(found.backward_error) < 1e-13)
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(A.toarray(), b)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_least_squares_of_other_dtypes(cupy, dtype):
    A, rng = tall(1200, 12, dtype), np.random.default_rng(0)
    b = rng.standard_normal(A.shape[0]).astype(dtype)
    fake_cupy.TRANSFERS.clear()
    given = there(A), cupy.asarray(b)
    found = randla.lstsq(*given, rng=1)
    assert found.x.dtype == dtype
    assert found.success
    assert not [shape for shape in fake_cupy.TRANSFERS if max(shape, default=0) >= A.shape[0]]
    expected = np.linalg.lstsq(A.toarray(), b)[0]
    np.testing.assert_allclose(found.x.get(), expected, rtol=0, atol=300 * np.finfo(dtype).eps * abs(expected).max())


def test_ridge_weights_and_deficient_rank(cupy):
    A, rng = tall(), np.random.default_rng(0)
    m, n = A.shape
    b, w = rng.standard_normal(m), rng.uniform(0, 1, m)
    w[: m // 3] = 0
    dense = A.toarray()
    found = randla.lstsq(there(A), cupy.asarray(b), ridge=2.0, weights=cupy.asarray(w), rng=1)
    expected = np.linalg.solve((dense.T * w) @ dense + 2 * np.eye(n), dense.T @ (w * b))
    np.testing.assert_allclose(found.x.get(), expected, rtol=0, atol=1e-13)
    dense[:, 4] = dense[:, 2]
    with pytest.warns(randla.LstsqWarning, match=f"Rank {n - 1} of {n}"):
        found = randla.lstsq(there(sp.csr_array(dense)), cupy.asarray(b), rng=1)
    np.testing.assert_allclose(found.x.get(), np.linalg.lstsq(dense, b)[0], rtol=0, atol=1e-12)


def test_what_least_squares_refuses(cupy):
    A = tall()
    b = cupy.asarray(np.ones(A.shape[0]))
    with pytest.raises(TypeError, match="b must be a dense array; got a sparse csr_matrix"):
        randla.lstsq(there(A), there(A))
    with pytest.raises(TypeError, match="method 'direct' needs a dense array"):
        randla.lstsq(there(A), b, method="direct")
    A.data[7] = np.nan
    with pytest.raises(ValueError, match="A must be finite"):
        randla.lstsq(there(A), b)
