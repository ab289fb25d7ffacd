"""The Walsh-Hadamard transform of CUDA, compiled for the processor, against that of randla._cpu: the same bits."""

import emulated
import numpy as np
import pytest
from emulated import OnDevice

from randla import _cpu

pytestmark = pytest.mark.usefixtures("kernels")

DTYPES = [np.float32, np.float64]
# Vectors up to 2^14 float64 and 2^15 float32, and columns up to 2^10 rows, are transformed in one pass.
SHAPES = [
    *[(3, 1 << k, 1) for k in range(0, 14)],
    (1, 1 << 14, 1),
    (1, 1 << 15, 1),
    (1, 1 << 16, 1),
    (2, 1 << 17, 1),
    (1, 1 << 12, 2),
    (5, 8, 4),
    (2, 4, 16),
    (1, 1 << 13, 8),
    (3, 16, 3),
    (2, 512, 5),
    (2, 1, 40),
    (3, 256, 32),
    (2, 64, 100),
    (1, 1024, 33),
    (3, 512, 17),
    (2, 1024, 16),
    (1, 2048, 7),
    (2, 2048, 32),
    (2, 4096, 36),
    (1, 1 << 14, 3),
    (1, 1 << 21, 1),  # three passes of float64
]
# Too much for the emulation: three passes of float32; more vectors, matrices and columns than stay in L2 between passes.
LARGE = [(1, 1 << 22, 1), (150, 1 << 16, 1), (1, 1 << 18, 3), (5, 1 << 12, 640), (1, 1 << 14, 500)]


def transformed(x, to, scale):
    emulated.module().fwht(OnDevice(x), OnDevice(to), scale)
    return to


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_of_the_processor(dtype, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    expected = np.empty_like(x)
    _cpu.fwht(x, expected, 0.7)
    assert np.array_equal(transformed(x, np.full_like(x, np.nan), 0.7), expected)
    assert np.array_equal(transformed(x, x, 0.7), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 1, 1), (7, 64, 1), (3, 16, 5), (2, 32, 64), (1, 1 << 16, 1), (1, 2048, 9)])
@pytest.mark.parametrize("first", [1, 2])
def test_addresses_of_no_whole_packs(dtype, shape, first):
    """Elements around the array, for which whole packs would reach, stay as they are."""
    count = int(np.prod(shape))
    memory = np.random.default_rng(0).standard_normal(count + 40).astype(dtype)
    before = memory.copy()
    x = memory[first : first + count].reshape(shape)
    _cpu.fwht(x.copy(), before[first : first + count].reshape(shape), 1.0)
    transformed(x, x, 1.0)
    assert np.array_equal(memory, before)


@pytest.mark.parametrize("shape", [(0, 4, 1), (3, 4, 0)])
def test_of_nothing(shape):
    transformed(np.zeros(shape), np.zeros(shape), 1.0)


def test_is_its_own_inverse_and_keeps_lengths():
    x = np.random.default_rng(1).standard_normal((1, 256, 3))
    y = transformed(x, np.empty_like(x), 1 / 16)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-14)
    np.testing.assert_allclose(transformed(y, y, 1 / 16), x, atol=1e-14)


def test_refuses_what_is_not_contiguous():
    x = np.zeros((2, 4, 6))
    for bad in (x[:, :, ::2], x[:, :3], x[0]):
        with pytest.raises(ValueError, match=r"contiguous|power of two"):
            transformed(bad, bad, 1.0)


@pytest.mark.parametrize("kernels", [pytest.param("device", marks=pytest.mark.gpu)], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_bits_of_large_transforms(dtype, shape):
    test_bits_of_the_processor(dtype, shape)
