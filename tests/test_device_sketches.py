"""Sketches of arrays of a device, which a strict stand-in for CuPy plays where there is none, against those of the host."""

import copy
import pickle
import sys
import threading
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from emulated import OnDevice

import randla
from randla import _backend, _operator

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


@pytest.mark.parametrize("transform", ["hadamard", "dct"])
def test_transforms_that_keep_rows_more_than_once(cupy, transform):
    S, Y = randla.SRTT(transform).sample(40, 7, rng=1), entries((40, 5), np.float64)
    np.testing.assert_allclose((S.T @ cupy.asarray(Y)).get(), S.to_dense().T @ Y, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", ["dense", "csr", "vector", "complex"])
def test_sketches_are_extended_where_they_are(cupy, form):
    import cupyx.scipy.sparse

    A = entries((300, 4), complex if form == "complex" else float)
    A = A[:, 0] if form == "vector" else A
    S = randla.SparseStack(4).sample(40, 300, rng=1)
    T = S.append(2)
    given = cupyx.scipy.sparse.csr_matrix(cupy.asarray(A)) if form == "csr" else cupy.asarray(A)
    found = T.extend(S @ given, given)
    np.testing.assert_allclose(found.get(), T @ A, rtol=0, atol=1e-14)
    with pytest.raises(TypeError, match=r"SA and A must all be on the host or all on the device; got numpy\.ndarray, cupy"):
        T.extend(S @ A, given)


def test_vectors_and_products_from_the_left(cupy):
    S, A = randla.SparseStack().sample(40, 300, rng=1), entries((300, 4), np.float64)
    assert np.array_equal((S @ cupy.asarray(A[:, 0])).get(), S @ A[:, 0])
    assert np.array_equal((cupy.asarray(A.T) @ S.T).get(), A.T @ S.T)
    assert np.array_equal(randla.sketch(cupy.asarray(A), 40, rng=1).get(), randla.sketch(A, 40, rng=1))


@pytest.mark.parametrize("distribution", [randla.CountSketch(), randla.SparseStack(), randla.SparseSign(3)], ids=repr)
def test_entries_are_sorted_once(cupy, monkeypatch, distribution):
    sorted_ones, module = [], _backend.kernels(cupy.zeros(0))

    class Counting:
        def __getattr__(self, name):
            if name == "sort_entries":
                sorted_ones.append(name)
            return getattr(module, name)

    monkeypatch.setattr(_backend, "_cuda", Counting)
    S, A = distribution.sample(90, 1500, rng=1), entries((1500, 512), np.float64)
    wide, narrow = cupy.asarray(A), cupy.asarray(A[:, :3])
    for _ in range(3):
        assert np.array_equal((S @ wide).get(), S @ A)
        assert np.array_equal((S @ narrow).get(), S @ A[:, :3])
    # By windows for rows of whole packs, by rows of S for others.
    assert len(sorted_ones) == (1 if distribution == randla.CountSketch() else 2)
    # Another stream has nothing to do with the work of this one.
    streams = iter([7, 7, 2, 2])
    monkeypatch.setattr(_backend, "place", lambda a: (0, next(streams), 0))
    for _ in range(4):
        S @ narrow
    monkeypatch.undo()
    assert len(sorted_ones) == (3 if distribution == randla.CountSketch() else 4)
    for twin in (pickle.loads(pickle.dumps(S)), copy.copy(S), copy.deepcopy(S)):
        assert twin == S
        assert set(vars(twin)) == {"distribution", "shape", "seed"}


def test_the_default_stream_of_a_thread_is_its_own(cupy, monkeypatch):
    a, numbers = cupy.zeros(3), iter([5, 2])
    streams = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=next(numbers)))
    monkeypatch.setattr(_backend, "_cupy", lambda: SimpleNamespace(cuda=streams))
    assert _backend.place(a) == (0, 5, 0)
    assert _backend.place(a) == (0, 2, threading.get_ident())


def test_large_tables_are_not_kept(cupy, monkeypatch):
    monkeypatch.setattr(_operator, "_KEPT", 1000)
    S, A = randla.SparseStack().sample(90, 1500, rng=1), entries((1500, 4), np.float64)
    assert np.array_equal((S @ cupy.asarray(A)).get(), S @ A)
    assert not vars(S)["_on_device"]


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
    accumulator = randla.SparseStack().sample(40, 300, rng=1).accumulator(4)
    with pytest.raises(TypeError, match=r"rows must be a numpy array; got cupy\.ndarray"):
        accumulator.add(A, 0)
