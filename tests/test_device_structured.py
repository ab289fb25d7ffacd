"""Structured products and transforms of arrays of a device, which a strict stand-in for CuPy plays where there is none."""

import numpy as np
import pytest

from randla.structured import Chain, KroneckerSparse, Product, dft


def product(chain, dtype, **kept):
    rng = np.random.default_rng(0)
    return Product([KroneckerSparse(rng.standard_normal(tuple(p)).astype(dtype)) for p in chain], **kept)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_products_in_both_layouts(cupy, dtype, batch):
    P = product(Chain.dyadic(64), dtype)
    X = np.random.default_rng(1).standard_normal((64, batch)).astype(dtype)
    close = {"rtol": 0, "atol": 100 * np.finfo(dtype).eps * np.abs(P @ X).max()}
    found = P @ cupy.asarray(X)
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), P @ X, **close)
    np.testing.assert_allclose(P.apply(cupy.asarray(X.T), axis=-1).get(), (P @ X).T, **close)
    np.testing.assert_allclose((P.T @ cupy.asarray(X)).get(), P.T @ X, rtol=0, atol=10 * close["atol"])


def test_rows_and_columns_of_fourier_matrices(cupy):
    x = np.random.default_rng(0).standard_normal((64, 3))
    np.testing.assert_allclose((dft(64) @ cupy.asarray(x)).get(), np.fft.fft(x, axis=0), rtol=0, atol=1e-12)


def test_gradients(cupy):
    P = product(Chain.monarch(24, 30, 6, 5), np.float64)
    X, G = np.random.default_rng(1).standard_normal((30, 9)), np.random.default_rng(2).standard_normal((24, 9))
    values, dX = P.vjp(cupy.asarray(X), cupy.asarray(G))
    expected, dX_expected = P.vjp(X, G)
    np.testing.assert_allclose(dX.get(), dX_expected, rtol=0, atol=1e-12)
    for found, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(found.get(), wanted, rtol=0, atol=1e-12)


def test_mixed_devices_are_refused(cupy):
    P = product(Chain.dyadic(8), np.float64)
    with pytest.raises(TypeError, match="X and out must all be on the host or all on the device"):
        P.apply(cupy.asarray(np.ones((8, 2))), out=np.empty((8, 2)))
