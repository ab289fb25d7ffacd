"""Sketches of arrays of a device, which a strict stand-in for CuPy plays where there is none, against those of the host."""

import sys

import fake_cupy
import numpy as np
import pytest
from emulated import OnDevice

import randla
from randla import _backend

FAMILIES = [
    randla.BlockSRHT(),
    randla.CountSketch(),
    randla.Gaussian(),
    randla.LessUniform(nnz=64),
    randla.Rademacher(),
    randla.RowSample(),
    randla.SRTT(),
    randla.SRTT("dct"),
    randla.SparseSign(),
    randla.SparseStack(),
]
EXACT = (randla.CountSketch, randla.SparseSign, randla.SparseStack, randla.LessUniform, randla.RowSample)


def entries(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (A if np.dtype(dtype).kind == "c" else A.real).astype(dtype)


@pytest.mark.parametrize("distribution", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_products_stay_on_the_device(cupy, distribution, dtype):
    A, Y = entries((700, 6), dtype), entries((90, 5), dtype, 1)
    S = distribution.sample(90, 700, rng=1)
    for operator, X in ((S, A), (S.T, Y)):
        given = cupy.asarray(X)
        fake_cupy.TRANSFERS.clear()
        found = operator @ given
        assert isinstance(found, cupy.ndarray)
        assert found.dtype == dtype
        assert not fake_cupy.TRANSFERS
        expected = operator @ X
        if isinstance(distribution, EXACT) and np.dtype(dtype).kind == "f":
            assert np.array_equal(found.get(), expected)
        np.testing.assert_allclose(found.get(), expected, rtol=0, atol=100 * np.finfo(dtype).eps * abs(expected).max())


def test_vectors_and_products_from_the_left(cupy):
    S, A = randla.SparseStack().sample(40, 300, rng=1), entries((300, 4), np.float64)
    assert np.array_equal((S @ cupy.asarray(A[:, 0])).get(), S @ A[:, 0])
    assert np.array_equal((cupy.asarray(A.T) @ S.T).get(), A.T @ S.T)
    assert np.array_equal(randla.sketch(cupy.asarray(A), 40, rng=1).get(), randla.sketch(A, 40, rng=1))


def test_arrays_of_other_libraries_are_taken_where_they_are(monkeypatch):
    cupy = fake_cupy.install(monkeypatch)
    S, A = randla.CountSketch().sample(40, 300, rng=1), entries((300, 4), np.float64)
    found = S @ OnDevice(A)
    assert isinstance(found, cupy.ndarray)
    assert np.array_equal(found.get(), S @ A)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(_backend, "_cuda", _backend._cuda.__wrapped__)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "randla._cuda", None)
    monkeypatch.delattr(randla, "_cuda", raising=False)
    S = randla.CountSketch().sample(40, 300, rng=1)
    with pytest.raises(ImportError, match="lacks: install with nvcc and RANDLA_CUDA=1"):
        S @ OnDevice(np.ones((300, 4)))
    with pytest.raises(ImportError, match=r"need CuPy: pip install 'randla\[cuda\]'"):
        _backend._cupy.__wrapped__()
    assert _backend.cuda_devices() is None


def test_functions_of_the_host_refuse_arrays_of_a_device(cupy):
    A = cupy.asarray(entries((300, 4), np.float64))
    with pytest.raises(TypeError, match=r"A must be a numpy array; got cupy\.ndarray"):
        randla.leverage_scores(A)
