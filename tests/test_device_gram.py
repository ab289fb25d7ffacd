"""Gram matrices of a device, of which half is computed where they are large, beside NumPy's."""

import inspect

import numpy as np
import pytest

import randla
from randla import _backend


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gram_matrices(cupy, monkeypatch, dtype):
    """Of half of the entries from 8 columns on, where rows or columns lie together."""
    monkeypatch.setattr("randla._backend.SYRK_COLUMNS", 8)
    rng = np.random.default_rng(0)
    for m, n in ((50, 7), (50, 8), (3, 20), (1, 9), (0, 9)):
        Y = rng.standard_normal((m, n)).astype(dtype)
        for given in (cupy.asarray(Y), cupy.asarray(Y.T.copy()).T, cupy.asarray(np.repeat(Y, 2, axis=1))[:, ::2]):
            found = _backend.gram_matrix(given)
            assert found.dtype == dtype
            np.testing.assert_allclose(found.get(), Y.T @ Y, rtol=0, atol=200 * np.finfo(dtype).eps)
            assert m == 0 or n < 8 or np.array_equal(found.get(), found.get().T)


def test_solvers_by_half_of_their_gram_matrices(cupy, monkeypatch):
    monkeypatch.setattr("randla._backend.SYRK_COLUMNS", 8)
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((900, 12)), rng.standard_normal(900)
    exact = np.linalg.lstsq(A, b)[0]
    for method in ("spir", "cholqr"):
        found = randla.lstsq(cupy.asarray(A), cupy.asarray(b), method=method, rng=1)
        assert found.success
        np.testing.assert_allclose(found.x.get(), exact, rtol=0, atol=1e-14)
    scores = randla.leverage_scores(cupy.asarray(A), method="exact")
    np.testing.assert_allclose(scores.get(), (np.linalg.qr(A)[0] ** 2).sum(axis=1), rtol=1e-12)
    values = randla.svd(cupy.asarray(A * 0.5 ** np.arange(12)), 3, rng=1).s
    np.testing.assert_allclose(values.get(), np.linalg.svd(A * 0.5 ** np.arange(12))[1][:3], rtol=1e-12)


def test_the_product_takes_what_it_is_given():
    """The stand-in has it too, which the list of CuPy's names does not tell of: they are NumPy's."""
    cublas = pytest.importorskip("cupy.cublas", reason="CuPy is needed to compare with")
    assert list(inspect.signature(cublas.syrk).parameters) == ["trans", "a", "out", "alpha", "beta", "lower"]
