import functools
import gc
import os
import random

import numpy as np
import problems
import pytest
from threadpoolctl import ThreadpoolController

import randla
from randla import _backend, _check, _device, _device_inner

FAMILIES = {
    "gaussian": randla.Gaussian(),
    "rademacher": randla.Rademacher(),
    "stack": randla.SparseStack(),
    "stack3": randla.SparseStack(nnz=3),
    "sign": randla.SparseSign(),
    "sign5": randla.SparseSign(nnz=5),
    "count": randla.CountSketch(),
    "srht": randla.BlockSRHT(),
    "srht16": randla.BlockSRHT(block=16),
    "srht32": randla.BlockSRHT(block=32),
    "srht128": randla.BlockSRHT(block=128),
    "less": randla.LessUniform(),
    "less5": randla.LessUniform(nnz=5),
    "rows": randla.RowSample(),
    "srtt": randla.SRTT(),
    "srtt1": randla.SRTT(rounds=1),
    "dct": randla.SRTT("dct"),
    "dct3": randla.SRTT("dct", rounds=3),
}
# One configuration of each kernel, for the tests that vary everything else.
DEFAULTS = ("gaussian", "rademacher", "stack", "sign", "count", "srht", "less", "rows", "srtt", "dct")
# No entry of S is zero.
DENSE = ("gaussian", "rademacher")
# Defined up to rounding.
COSINE = ("dct", "dct3")


_FRESH = random.Random()


@functools.wraps(_check.seed)
def _seed(rng):
    return _FRESH.getrandbits(63) if rng is None else _seed.__wrapped__(rng)


_check.seed = _seed


def pytest_runtest_protocol(item):
    """Where no seed is given, those of a test follow from its name: what fails once fails again."""
    _FRESH.seed(os.environ.get("RANDLA_TEST_SEEDS", "") + item.nodeid)


def pytest_collection_finish():
    """Measuring collects garbage before every turn: the tests themselves, of which there are many, need not be searched."""
    gc.freeze()


# Looking for the libraries takes longer than many a test.
LIBRARIES = ThreadpoolController()


@pytest.fixture(params=FAMILIES)
def distribution(request):
    return FAMILIES[request.param]


@pytest.fixture(params=DEFAULTS)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=["C", "F"])
def order(request):
    return request.param


@pytest.fixture
def one_blas_thread():
    """Threads of BLAS only contend for processors in the small products of the twins."""
    with LIBRARIES.limit(limits=1, user_api="blas"):
        yield


@pytest.fixture
def data_file():
    return problems.data_file


@pytest.fixture(params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def cupy(request, monkeypatch):
    """CuPy: a strict stand-in for it with the kernels compiled for the processor, and itself where there is a device."""
    import fake_cupy

    if request.param == "device":
        return fake_cupy.watched(monkeypatch)
    return fake_cupy.install(monkeypatch)


@pytest.fixture
def in_single(monkeypatch):
    """Takes matrices of any size for large ones; lists the copies in float32."""
    made = []

    class Noted(_device.DeviceSingle):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(_device, "DeviceSingle", Noted)
    monkeypatch.setattr(_device_inner, "SINGLE_BYTES", 0)
    return made


@pytest.fixture(params=["emulated", pytest.param("device", marks=pytest.mark.gpu)])
def kernels(request, monkeypatch):
    """Runs a test of the kernels with those compiled for the processor, and where there is a device with those."""
    if request.param == "device":
        import cupy
        import emulated
        import on_device

        monkeypatch.setattr(emulated, "REAL", on_device.Kernels(_backend._cuda(), cupy.cuda.alloc))


@functools.cache
def cuda_problem():
    """Why GPU tests cannot run here, or None."""
    try:
        import cupy
        import randla._cuda  # noqa: F401
    except ImportError as error:
        return str(error)
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and (problem := cuda_problem()):
        if os.environ.get("RANDLA_REQUIRE_CUDA") == "1":
            pytest.fail(f"RANDLA_REQUIRE_CUDA=1, but {problem}", pytrace=False)
        pytest.skip(f"needs a GPU: {problem}")
