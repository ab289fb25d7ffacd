"""Structured operators on arrays of a device against products in extended precision and those of the host."""

import fake_cupy
import numpy as np
import pytest
from product_oracles import CHAINS, DTYPES, exact, random, random_product

from randla.structured.operators import Product
from randla.structured.transforms import fwht


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


def assert_like_host(found, expected, size):
    found = found.get()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= size)


def test_products_of_arrays_on_the_device(cupy, dtype):
    rng = np.random.default_rng(0)
    P = random_product(CHAINS["rank 2"], dtype)
    X = random((P.shape[1], 6), dtype, rng)
    expected, bound = exact(P, X)
    expected = expected.astype(dtype)
    x = cupy.asarray(X)
    for found in (P @ x, P.apply(x), P.apply(cupy.asarray(X.T.copy()), axis=-1).T, (x.T @ P.T).T):
        assert isinstance(found, cupy.ndarray)
        assert not fake_cupy.TRANSFERS
        assert_like_host(found, expected, 2 * bound)
        fake_cupy.TRANSFERS.clear()
    assert_like_host(P @ x[:, 2], expected[:, 2], 2 * bound[:, 2])
    K = P.factors[0]
    Z = random((2, K.shape[1], 3), dtype, rng)
    assert_like_host(K.apply(cupy.asarray(Z), axis=1), K.apply(Z, axis=1), 1e3 * np.finfo(dtype).eps)
    out = cupy.empty(expected.shape, dtype)
    assert P.apply(x, out=out) is out
    assert_like_host(out, expected, 2 * bound)


def test_dtypes_promote_and_plans_are_made_once(cupy):
    P = random_product(CHAINS["dyadic"], np.dtype(np.float32))
    X = random((64, 5), np.complex128, np.random.default_rng(0))
    assert_like_host(P @ cupy.asarray(X), P @ X, 1e-11)
    plans = dict(P._plans)
    assert_like_host(P @ cupy.asarray(X), P @ X, 1e-11)
    assert P._plans == plans


def test_rows_and_columns_that_are_kept(cupy, dtype):
    rng = np.random.default_rng(4)
    whole = random_product(CHAINS["dyadic"], dtype)
    for rows, cols in [
        (rng.permutation(64), rng.permutation(64)),
        (rng.permutation(64)[:9], rng.permutation(64)[:20]),
        (None, [3]),
    ]:
        P = Product(whole.factors, rows=rows, cols=cols)
        X, G = random((P.shape[1], 7), dtype, rng), random((P.shape[0], 7), dtype, rng)
        size = 1e4 * np.finfo(dtype).eps
        assert_like_host(P @ cupy.asarray(X), P @ X, size)
        assert_like_host(P.apply(cupy.asarray(X.T.copy()), -1), P.apply(X.T, -1), size)
        out = cupy.empty((P.shape[0], 7), dtype)
        P.apply(cupy.asarray(X), out=out)
        assert_like_host(out, P @ X, size)
        found, dX = P.vjp(cupy.asarray(X), cupy.asarray(G))
        expected, dX_expected = P.vjp(X, G)
        assert_like_host(dX, dX_expected, size)
        for value, other in zip(found, expected, strict=True):
            assert_like_host(value, other, size)


def test_gradients_of_arrays_on_the_device(cupy):
    # Of real values and a complex X only the real parts are wanted, and of a vector a vector.
    P, rng = random_product(CHAINS["monarch rank 3"], np.dtype(np.float64)), np.random.default_rng(5)
    for kind, shape in [(np.float64, (4,)), (np.complex128, (3,)), (np.complex128, ())]:
        X, G = random((P.shape[1], *shape), kind, rng), random((P.shape[0], *shape), kind, rng)
        found, dX = P.vjp(cupy.asarray(X), cupy.asarray(G))
        expected, dX_expected = P.vjp(X, G)
        assert_like_host(dX, dX_expected, 1e-10)
        for value, other in zip(found, expected, strict=True):
            assert_like_host(value, other, 1e-10)


def test_host_and_device_do_not_mix(cupy):
    P, X = random_product(CHAINS["dyadic"], np.dtype(np.float64)), np.ones((64, 2))
    x = cupy.asarray(X)
    for out, array in [(np.empty((64, 2)), x), (cupy.empty((64, 2)), X)]:
        for call in (P.apply, fwht):
            with pytest.raises(TypeError, match="X and out must all be on the host or all on the device"):
                call(array, out=out)
    with pytest.raises(TypeError, match="X and G must all be on the host or all on the device"):
        P.vjp(x, X)
    with pytest.raises(TypeError, match="out must be an array of dtype float64; got float32"):
        P.apply(x, out=cupy.empty((64, 2), np.float32))
    with pytest.raises(ValueError, match=r"out must be of shape \(64, 2\); got shape \(64, 3\)"):
        P.apply(x, out=cupy.empty((64, 3)))
    with pytest.raises(ValueError, match="out must not share memory with X"):
        P.apply(x, out=x)
    with pytest.raises(ValueError, match="X must have length 64 along axis 0"):
        P @ cupy.ones((63, 2))
    with pytest.raises(TypeError, match="B must be a numpy array"):
        P.solve(x)
