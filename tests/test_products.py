"""Products of Kronecker-sparse matrices against their dense matrices in extended precision."""

import pickle
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
from product_oracles import CHAINS, DTYPES, assert_close, dense, hadamard, product, random, random_chain, random_product
from scipy.sparse.linalg import LinearOperator, aslinearoperator, lsqr, svds

from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain, Pattern

BATCHES = (0, 1, 2, 4, 5, 16, 63, 64, 65, 300)
DYADIC = random_product(Chain.dyadic(8), np.float64)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=CHAINS)
def chain(request):
    return CHAINS[request.param]


def test_matrix_of_a_factor_follows_the_map_of_indices(dtype):
    rng = np.random.default_rng(0)
    for shape in ((2, 3, 4, 5), (1, 3, 2, 1), (4, 1, 1, 3), (1, 1, 1, 1)):
        K = KroneckerSparse(random(shape, dtype, rng))
        assert K.dtype == dtype
        assert K.shape == K.pattern.shape == (shape[0] * shape[1] * shape[3], shape[0] * shape[2] * shape[3])
        np.testing.assert_array_equal(K.to_dense(), dense(K))
        np.testing.assert_array_equal(K.T.to_dense(), dense(K).T)
        np.testing.assert_array_equal(K.H.to_dense(), dense(K).T.conj())
        np.testing.assert_array_equal(K.conj().to_dense(), dense(K).conj())
        np.testing.assert_array_equal(K.blocks[-1, 0], K.values[-1, :, :, 0])


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_products_and_adjoints_of_every_kind_of_chain(chain, dtype, batch):
    P, rng = random_product(chain, dtype), np.random.default_rng(1)
    X, Y = random((P.shape[1], batch), dtype, rng), random((P.shape[0], batch), dtype, rng)
    assert P.shape == chain.shape
    assert P.n_params == chain.n_params
    assert_close(P @ X, P, X)
    for Q, x in ((P.T, Y), (P.H, Y), (P.conj(), X), (P.T.T, X), (P.H.H, X), (P.conj().T, Y)):
        assert_close(Q @ x, Q, x)
    M = product(P)
    for Q, N in ((P.T, M.T), (P.H, M.T.conj()), (P.conj(), M.conj())):
        np.testing.assert_allclose(product(Q), N, rtol=0, atol=1e-15 * np.abs(M).max())
    np.testing.assert_array_equal(P.H @ Y, (P.conj().T) @ Y)


@pytest.mark.parametrize("seed", range(60))
def test_products_of_random_chains(seed):
    rng = np.random.default_rng(seed)
    chain, dtype = random_chain(rng), DTYPES[seed % 4]
    P = random_product(chain, dtype, seed)
    for batch in rng.choice(BATCHES, 3, replace=False):
        X, Y = random((P.shape[1], batch), dtype, rng), random((batch, P.shape[0]), dtype, rng)
        assert_close(P @ X, P, X)
        np.testing.assert_array_equal(P.apply(np.ascontiguousarray(X.T), axis=-1), (P @ X).T)
        assert_close((Y @ P).T, P.T, Y.T)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["dyadic", "monarch", "diagonals", "not chainable"])
def test_every_size_of_batch(name, batch, dtype):
    P = random_product(CHAINS[name], dtype)
    X = random((P.shape[1], batch), dtype, np.random.default_rng(2))
    assert_close(P @ X, P, X)
    first = P.apply(np.ascontiguousarray(X.T), axis=-1)
    np.testing.assert_array_equal(first, (P @ X).T)
    assert first.flags.c_contiguous


def test_layouts_of_the_input_do_not_change_a_bit(chain, dtype):
    P, rng = random_product(chain, dtype), np.random.default_rng(3)
    n = P.shape[1]
    for batch in (1, 4, 7, 70):
        X = random((n, batch), dtype, rng)
        expected = P @ X
        wide = np.zeros((3 * n, 2 * batch), dtype)
        wide[::3, ::2] = X
        read_only = X.copy()
        read_only.flags.writeable = False
        presented = [
            np.asfortranarray(X),
            wide[::3, ::2],
            X[::-1].copy()[::-1],
            X[:, ::-1].copy()[:, ::-1],
            np.asfortranarray(X[:, ::-1])[:, ::-1],
            read_only,
            X.astype(dtype.newbyteorder()),
        ]
        for x in presented:
            np.testing.assert_array_equal(P @ x, expected)
            np.testing.assert_array_equal(P.apply(np.asarray(x).T, -1), expected.T)
        for j in (0, batch - 1):
            np.testing.assert_array_equal(P @ X[:, j], expected[:, j])
            np.testing.assert_array_equal(X.T[j] @ P.T, expected[:, j])
    same = np.broadcast_to(X[:, :1], (n, 9))
    np.testing.assert_array_equal(P @ same, np.broadcast_to(expected[:, :1], (len(expected), 9)))


def test_unaligned_numbers_and_those_at_odd_addresses():
    for dtype in DTYPES:
        P = random_product(CHAINS["dyadic"], dtype)
        X = random((64, 24), dtype, np.random.default_rng(4))
        for offset in (1, 4):
            for order in "CF":
                memory = np.zeros(X.nbytes + 8, np.uint8)
                x = np.ndarray(X.shape, dtype, memory, offset, order=order)
                x[...] = X
                np.testing.assert_array_equal(P @ x, P @ X)
                np.testing.assert_array_equal(P @ x[:, 3], P @ X[:, 3])


@pytest.mark.parametrize("shape", [(6, 64, 5), (64, 3, 4), (2, 3, 64), (64, 0, 3), (2, 64, 1, 3), (0, 2, 64)])
def test_any_axis_of_arrays_of_many_dimensions(shape, dtype):
    P = random_product(Chain.deformable([(3, 4), (5, 16)]), dtype)
    X = random(shape, dtype, np.random.default_rng(5))
    axis = shape.index(64)
    expected = np.moveaxis(np.tensordot(P.to_dense(), X, (1, axis)), 0, axis)
    for x in (X, np.asfortranarray(X), X[..., ::-1].copy()[..., ::-1]):
        for k in (axis, axis - X.ndim):
            Y = P.apply(x, axis=k)
            assert Y.shape == (*shape[:axis], 15, *shape[axis + 1 :])
            assert Y.dtype == dtype
            np.testing.assert_allclose(Y, expected, rtol=0, atol=300 * np.finfo(dtype).eps)
    if axis == X.ndim - 1:
        np.testing.assert_allclose(X @ P.T, expected, rtol=0, atol=300 * np.finfo(dtype).eps)


def outputs(shape, dtype):
    """Places for a result, in every layout."""
    wide = np.zeros([2 * length + 1 for length in shape], dtype)
    memory = np.zeros(int(np.prod(shape)) * dtype.itemsize + 1, np.uint8)
    yield from (np.empty(shape, dtype), np.empty(shape, dtype, order="F"), wide[tuple(slice(1, None, 2) for _ in shape)])
    yield np.empty(shape, dtype)[::-1]
    yield np.ndarray(shape, dtype, memory, 1)


@pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 70), (70, 64), (3, 64, 5), (2, 3, 64), (0, 64)])
def test_results_go_where_they_are_wanted(shape, dtype):
    rng = np.random.default_rng(15)
    factors = random_product(Chain.deformable([(3, 4), (5, 16)]), dtype).factors
    axis = shape.index(64)
    for P in (Product(factors), Product(factors, rows=rng.permutation(15)[:9]), Product(factors, cols=rng.permutation(64))):
        X = random(shape, dtype, rng)
        for x in (X, np.asfortranarray(X), X.real.astype(np.float32)):
            expected = P.apply(x, axis)
            for out in outputs(expected.shape, expected.dtype):
                assert P.apply(x, axis, out=out) is out
                np.testing.assert_array_equal(out, expected)
    K = factors[-1]
    out = np.empty((*shape[:axis], K.shape[0], *shape[axis + 1 :]), dtype)
    assert K.apply(X, axis, out=out) is out
    np.testing.assert_array_equal(out, K.apply(X, axis))


def test_results_beside_the_input_in_one_array():
    P, both = random_product(Chain.dyadic(8), np.float64), np.random.default_rng(16).standard_normal((8, 10))
    expected = P @ both[:, ::2]
    P.apply(both[:, ::2], out=both[:, 1::2])
    np.testing.assert_array_equal(both[:, 1::2], expected)


READ_ONLY = np.ones((8, 3))
READ_ONLY.flags.writeable = False
SHARED = np.ones((8, 4))


@pytest.mark.parametrize(
    ("X", "out", "error", "message"),
    [
        (np.ones((8, 3)), [[0.0]], TypeError, "out must be an array of dtype float64; got list"),
        (np.ones((8, 3)), np.ones((8, 3), np.float32), TypeError, "out must be an array of dtype float64; got float32"),
        (np.ones((8, 3), np.complex64), np.ones((8, 3)), TypeError, "out must be an array of dtype complex128; got float64"),
        (np.ones((8, 3)), np.ones((3, 8)), ValueError, r"writeable and of shape \(8, 3\); got shape \(3, 8\)"),
        (np.ones((8, 3)), READ_ONLY, ValueError, r"writeable and of shape \(8, 3\); got shape \(8, 3\), read-only"),
        (SHARED[:, :3], SHARED[:, 1:], ValueError, "out must not share memory with X"),
        (SHARED, SHARED, ValueError, "out must not share memory with X"),
    ],
)
def test_bad_places_for_results_are_refused(X, out, error, message):
    for operator in (DYADIC, DYADIC.factors[0]):
        with pytest.raises(error, match=message):
            operator.apply(X, out=out)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, np.bool_])
def test_integers_count_as_float64(kind):
    X = np.random.default_rng(6).integers(0, 2, (8, 5)).astype(kind)
    for dtype in DTYPES:
        P = random_product(Chain.dyadic(8), dtype)
        np.testing.assert_array_equal(P @ X, P @ X.astype(np.float64))
        assert (P @ X).dtype == np.result_type(dtype, np.float64)


def test_dtypes_promote_and_the_values_keep_their_digits():
    rng = np.random.default_rng(7)
    for own in DTYPES:
        P = random_product(Chain.kaleidoscope(16), own)
        for other in DTYPES:
            for X in (random((16, 1), other, rng), random((16, 20), other, rng)):
                # Factors merged in single precision would leave seven digits of a double product.
                assert_close(P @ X, P, X)


def test_factors_of_several_dtypes():
    rng = np.random.default_rng(8)
    P = Product([KroneckerSparse(random(tuple(p), dtype, rng)) for p, dtype in zip(Chain.dyadic(16), DTYPES, strict=True)])
    assert P.dtype == np.complex128
    for X in (random((16, 6), np.float32, rng), random((16,), np.float64, rng)[:, None]):
        assert_close(P @ X, P, X)
    real = Product([P.factors[0], P.factors[1]])
    assert real.dtype == np.float64


def test_rows_and_columns_that_are_kept(dtype):
    rng = np.random.default_rng(9)
    factors = random_product(Chain.deformable([(3, 4), (5, 4)]), dtype).factors
    picks = [
        (None, rng.permutation(16)),
        (rng.permutation(15), None),
        (rng.permutation(15), rng.permutation(16)),
        ([7, 0, 3], None),
        (None, np.array([5], np.uint8)),
        (rng.permutation(15)[:6], rng.permutation(16)[:9]),
    ]
    for rows, cols in picks:
        P = Product(factors, rows=rows, cols=cols)
        M = product(Product(factors))
        M = M if rows is None else M[rows]
        M = M if cols is None else M[:, cols]
        assert P.shape == M.shape
        close = {"rtol": 0, "atol": 300 * np.finfo(dtype).eps}
        for Q, N in ((P, M), (P.T, M.T), (P.H, M.T.conj()), (P.conj(), M.conj())):
            np.testing.assert_allclose(Q.to_dense(), N, **close)
            X = random((Q.shape[1], 7), dtype, rng)
            for x in (X, np.asfortranarray(X), X[:, 0]):
                np.testing.assert_allclose(Q @ x, N @ x, **close)
            np.testing.assert_array_equal(Q.apply(X.T.copy(), -1), (Q @ X).T)
            assert Q.apply(X.T.copy(), -1).flags.c_contiguous
            np.testing.assert_array_equal(Q @ X[:, 3], (Q @ X)[:, 3])


def test_products_of_products_stay_products():
    rng = np.random.default_rng(10)
    P, Q = random_product(Chain.monarch(12, 16, 3, 4), np.float64), random_product(Chain.dyadic(16), np.complex64)
    X = rng.standard_normal((16, 3))
    K = Q.factors[0]
    for both, M in ((P @ Q, product(P) @ product(Q)), (P @ K, product(P) @ dense(K)), (K @ Q, dense(K) @ product(Q))):
        assert isinstance(both, Product)
        np.testing.assert_allclose(both @ X, M @ X, rtol=0, atol=1e-4)
    assert (P @ Q).chain == P.chain @ Q.chain
    assert (P * Q).chain == P.dot(Q).chain == (P @ Q).chain
    np.testing.assert_array_equal((K @ K) @ X, Product([K, K]) @ X)
    with pytest.raises(ValueError, match=r"match in size; got \(12, 16\) and \(12, 16\)"):
        P @ P


def test_kept_columns_meet_kept_rows():
    rng = np.random.default_rng(11)
    factors = random_product(Chain.dyadic(8), np.float64).factors
    order = rng.permutation(8)
    P, Q = Product(factors, cols=order), Product(factors, rows=order, cols=order[:3])
    assert isinstance(P @ Q, Product)
    assert isinstance(P.T.T @ P.T, Product)
    others = (Product(factors, rows=rng.permutation(8)), Product(factors))
    X = rng.standard_normal((8, 4))
    for left, right in ((P, Q), (P, P.T), *((P, R) for R in others), (others[1], Q), (Q, Q.T)):
        both = left @ right
        x = X[: both.shape[1]]
        assert isinstance(both, LinearOperator)
        np.testing.assert_allclose(both @ x, product(left) @ (product(right) @ x), rtol=0, atol=1e-12)
    # A part of the columns does not stand for the identity between them.
    part = Product(factors, cols=order[:3])
    assert not isinstance(part @ part.T, Product)
    np.testing.assert_allclose((part @ part.T) @ X, product(part) @ (product(part).T @ X), rtol=0, atol=1e-12)


def test_factors_are_operators_too(dtype):
    rng = np.random.default_rng(12)
    K = KroneckerSparse(random((2, 3, 2, 4), dtype, rng))
    X, Y = random((16, 5), dtype, rng), random((5, 24), dtype, rng)
    close = {"rtol": 0, "atol": 50 * np.finfo(dtype).eps}
    np.testing.assert_allclose(K @ X, dense(K) @ X, **close)
    np.testing.assert_allclose(K.apply(X.T, axis=1), (dense(K) @ X).T, **close)
    np.testing.assert_allclose(Y @ K, Y @ dense(K), **close)
    np.testing.assert_allclose(K.rmatvec(Y[0]), dense(K).T.conj() @ Y[0], **close)
    assert isinstance(K, LinearOperator)
    assert K.n_params == 48


def test_scipy_takes_products_as_linear_operators(dtype):
    rng = np.random.default_rng(13)
    P = random_product(Chain.deformable([(4, 3), (5, 4)]), dtype)
    M, eps = product(P).astype(dtype), np.finfo(dtype).eps
    close = {"rtol": 0, "atol": 500 * eps}
    assert aslinearoperator(P) is P
    x, y, X = random(12, dtype, rng), random(20, dtype, rng), random((12, 3), dtype, rng)
    for operator, matrix in (
        (2 * P, 2 * M),
        (P * 2, 2 * M),
        (-P, -M),
        (P + P, 2 * M),
        (P.H @ aslinearoperator(M), M.T.conj() @ M),
        (aslinearoperator(M.T.conj()) @ P, M.T.conj() @ M),
    ):
        assert isinstance(operator, LinearOperator)
        np.testing.assert_allclose(operator @ X, matrix @ X, rtol=0, atol=5000 * eps)
    np.testing.assert_allclose(P.matvec(x), M @ x, **close)
    np.testing.assert_allclose(P.matvec(x[:, None]), (M @ x)[:, None], **close)
    np.testing.assert_allclose(P.rmatvec(y), M.T.conj() @ y, **close)
    np.testing.assert_allclose(P.matmat(X), M @ X, **close)
    np.testing.assert_allclose(P.rmatmat(np.outer(y, [1, 2])), M.T.conj() @ np.outer(y, [1, 2]), **close)
    np.testing.assert_allclose(P.dot(x), M @ x, **close)
    np.testing.assert_allclose(P * x, M @ x, **close)
    np.testing.assert_allclose(y @ P, y @ M, **close)
    if dtype.kind == "f":
        solution = lsqr(P, y, atol=1e-12, btol=1e-12)[0]
        np.testing.assert_allclose(solution, np.linalg.lstsq(M.astype(float), y)[0], rtol=0, atol=3e4 * eps)
    values = svds(P, k=3, return_singular_vectors=False, v0=np.ones(12, dtype))
    np.testing.assert_allclose(np.sort(values)[::-1], np.linalg.svd(M)[1][:3], rtol=1000 * eps)


def test_hadamard_product_is_that_of_the_kronecker_powers():
    H = np.array([[1, 1], [1, -1]])
    for k in range(1, 8):
        np.testing.assert_array_equal(hadamard(2**k).to_dense(), H)
        H = np.kron(H, [[1, 1], [1, -1]])


def test_values_are_the_products_own():
    values = np.ones((1, 2, 2, 4))
    K = KroneckerSparse(values)
    P = Product([K])
    before = P @ np.ones(8)
    values[...] = 7
    np.testing.assert_array_equal(P @ np.ones(8), before)
    np.testing.assert_array_equal(P @ np.ones((8, 1), np.complex128), before[:, None])
    order = np.arange(8)[::-1].copy()
    Q = Product([K], rows=order)
    order[...] = 0
    np.testing.assert_array_equal(Q.rows, np.arange(8)[::-1])
    for array in (K.values, K.T.values, Q.rows):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def some_products():
    order = np.random.default_rng(14).permutation(16)
    for dtype in DTYPES:
        yield random_product(Chain.dyadic(16), dtype)
        yield Product(random_product(Chain.monarch(12, 16, 3, 4), dtype).factors, rows=[3, 1], cols=order)
    yield Product([random_product([(1, 4, 4, 1)], dtype).factors[0] for dtype in DTYPES] * 3)


def test_files_and_pickles_give_the_same_product(tmp_path):
    for P in some_products():
        P @ np.ones(P.shape[1], P.dtype)
        for name in ("product.npz", "no suffix"):
            P.save(tmp_path / name)
            copies = [Product.load(tmp_path / name), Product.load(str(tmp_path / name)), pickle.loads(pickle.dumps(P))]
            for Q in copies:
                assert Q.chain == P.chain
                assert Q.shape == P.shape
                assert [K.dtype for K in Q.factors] == [K.dtype for K in P.factors]
                np.testing.assert_array_equal(Q.to_dense(), P.to_dense())
                assert not Q.factors[0].values.flags.writeable
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no suffix", "product.npz"]
    K = pickle.loads(pickle.dumps(P.factors[0]))
    np.testing.assert_array_equal(K.values, P.factors[0].values)
    assert not K.values.flags.writeable


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "array", np.ones(3))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("factor0")
    np.savez(tmp_path / "others", x=np.ones(3))
    np.savez(tmp_path / "gap", factor1=np.ones((1, 2, 2, 1)))
    np.savez(tmp_path / "objects", factor0=np.array([None]))
    np.savez(tmp_path / "vector", factor0=np.ones(3))
    np.savez(tmp_path / "more", factor0=np.ones((1, 2, 2, 1)), Rows=np.array([1, 0]))
    np.savez_compressed(tmp_path / "damaged", factor0=np.ones((1, 64, 64, 1)))
    held = bytearray((tmp_path / "damaged.npz").read_bytes())
    held[60:70] = b"\xff" * 10
    (tmp_path / "damaged.npz").write_bytes(held)
    # The method of compression, where the archive lists its files.
    DYADIC.save(tmp_path / "unknown")
    held = bytearray((tmp_path / "unknown").read_bytes())
    held[held.index(b"PK\1\2") + 10] = 77
    (tmp_path / "unknown").write_bytes(held)
    with zipfile.ZipFile(tmp_path / "nothing", "w"):
        pass
    names = ("array.npy", "empty", "text", "others.npz", "gap.npz", "objects.npz", "vector.npz", "more.npz", "damaged.npz")
    for name in (*names, "unknown", "nothing"):
        with pytest.raises(ValueError, match=r"file must|values must"):
            Product.load(tmp_path / name)
    for call in (Product.load, DYADIC.save):
        with pytest.raises(TypeError, match="file must be a path; got int"):
            call(0)
    with pytest.raises(FileNotFoundError):
        Product.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (np.ones((2, 2, 2)), {}, ValueError, r"values must have shape \(a, b, c, d\) with entries; got \(2, 2, 2\)"),
        (np.ones((2, 0, 2, 1)), {}, ValueError, r"with entries; got \(2, 0, 2, 1\)"),
        (np.ones((1, 2, 2, 3)), {"pattern": Pattern(1, 2, 2, 4)}, ValueError, r"shape \(1, 2, 2, 4\) of the pattern; got"),
        (np.ones((1, 2, 2, 3)), {"pattern": 5}, TypeError, r"pattern must be a Pattern or \(a, b, c, d\); got 5"),
        (np.full((1, 1, 1, 1), np.nan), {}, ValueError, "values must be finite; got 1 NaN"),
        (np.full((1, 1, 2, 1), np.inf), {}, ValueError, "values must be finite; got 2 NaN or infinite of 2"),
        (np.ones((1, 1, 1, 1), np.float16), {}, TypeError, "values must have dtype float32, .*; got float16"),
        (sp.eye_array(3), {}, TypeError, "values must be a dense array; got a sparse"),
    ],
)
def test_bad_factors_are_refused(values, options, error, message):
    with pytest.raises(error, match=message):
        KroneckerSparse(values, **options)


@pytest.mark.parametrize(
    ("factors", "options", "error", "message"),
    [
        ([], {}, ValueError, "factors must hold at least 1 KroneckerSparse; got none"),
        (DYADIC.factors[0], {}, TypeError, "factors must be an iterable of KroneckerSparse; got KroneckerSparse"),
        ([DYADIC.factors[0], np.ones((8, 8))], {}, TypeError, r"factors\[1\] must be a KroneckerSparse; got ndarray"),
        (
            [DYADIC.factors[0], KroneckerSparse(np.ones((1, 3, 2, 2)))],
            {},
            ValueError,
            r"patterns\[0\] and patterns\[1\] must have matching sizes; got \(1, 2, 2, 4\) with 8 columns .* with 6 rows",
        ),
        (DYADIC.factors, {"rows": [0.0, 1.0]}, TypeError, "rows must be a vector of integers; got float64"),
        (DYADIC.factors, {"cols": [[0, 1]]}, TypeError, r"cols must be a vector of integers; got int64 of shape \(1, 2\)"),
        (DYADIC.factors, {"cols": np.ones(8, bool)}, TypeError, "cols must be a vector of integers; got bool"),
        (DYADIC.factors, {"rows": np.empty(0, int)}, ValueError, "rows must hold at least 1 number; got none"),
        (DYADIC.factors, {"rows": [0, 8]}, ValueError, "rows must be between 0 and 7; got 0 to 8"),
        (DYADIC.factors, {"rows": [-1, 2]}, ValueError, "rows must be between 0 and 7; got -1 to 2"),
        (DYADIC.factors, {"rows": np.array([2**64 - 1], np.uint64)}, ValueError, "got 18446744073709551615 to"),
        (DYADIC.factors, {"cols": [2, 5, 2, 5]}, ValueError, "cols must be distinct; got 2 repeated"),
    ],
)
def test_bad_products_are_refused(factors, options, error, message):
    with pytest.raises(error, match=message):
        Product(factors, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda P: P @ np.ones(7), ValueError, r"X must have length 8 along axis 0; got shape \(7,\)"),
        (lambda P: P @ np.ones((3, 8)), ValueError, r"length 8 along axis 0; got shape \(3, 8\)"),
        (lambda P: np.ones((8, 3)) @ P, ValueError, r"length 8 along axis 1; got shape \(8, 3\)"),
        (lambda P: P @ np.ones((8, 2, 2)), ValueError, "X must have 1 or 2 dimensions; got 3"),
        (lambda P: P @ 3.0, ValueError, "X must have 1 or 2 dimensions; got 0"),
        (lambda P: 3.0 @ P, ValueError, "X must have at least 1 dimension; got 0"),
        (lambda P: P.apply(3.0), ValueError, "X must have at least 1 dimension; got 0"),
        (lambda P: P.apply(np.ones((8, 8)), 2), ValueError, "axis must be between -2 and 1; got 2"),
        (lambda P: P.apply(np.ones((8, 8)), 0.5), TypeError, "axis must be an integer; got 0.5"),
        (lambda P: P @ sp.eye_array(8), TypeError, "X must be a dense array; got a sparse"),
        (lambda P: P @ np.ones(8, np.longdouble), TypeError, "X must have dtype .*; got"),
        (lambda P: P @ np.array(["a"] * 8), TypeError, "X must have dtype .*; got <U1"),
        (lambda P: P.dot("a"), TypeError, "X must have dtype .*; got <U1"),
        (lambda P: P @ aslinearoperator(np.ones((7, 7))), ValueError, "cannot multiply"),
    ],
)
def test_bad_operands_are_refused(call, error, message):
    for operator in (DYADIC, DYADIC.factors[0]):
        with pytest.raises(error, match=message):
            call(operator)


def test_names_of_operators():
    assert repr(DYADIC) == "Product((1, 2, 2, 4), (2, 2, 2, 2), (4, 2, 2, 1); 8 x 8, float64)"
    assert repr(DYADIC.factors[1].H) == "KroneckerSparse((2, 2, 2, 2), float64)"
    assert Product(DYADIC.factors, rows=[1, 2]).is_plain is False
    assert DYADIC.is_plain is True
