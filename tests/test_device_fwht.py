"""Walsh-Hadamard transforms of arrays on the device: the bits of those of the host, in all layouts."""

import fake_cupy
import numpy as np
import pytest

from randla.structured import fwht

# Arrays of a shape, full of rubbish, that lie in memory in all ways there are.
LAYOUTS = {
    "C": lambda xp, shape, dtype: xp.full(shape, 7, dtype),
    "F": lambda xp, shape, dtype: xp.full(shape[::-1], 7, dtype).T,
    "mixed": lambda xp, shape, dtype: xp.full((shape[1], shape[0], shape[2]), 7, dtype).transpose(1, 0, 2),
    "strided": lambda xp, shape, dtype: xp.full((shape[0], shape[1], 2 * shape[2]), 7, dtype)[:, :, ::2],
    "columns": lambda xp, shape, dtype: xp.full((shape[0], shape[1], shape[2] + 3), 7, dtype)[:, :, 3:],
    "reversed": lambda xp, shape, dtype: xp.full(shape, 7, dtype)[:, ::-1],
    "offset": lambda xp, shape, dtype: xp.full(1 + int(np.prod(shape)), 7, dtype)[1:].reshape(shape),
    "offset F": lambda xp, shape, dtype: xp.full(1 + int(np.prod(shape)), 7, dtype)[1:].reshape(shape[::-1]).T,
}


def random(shape, dtype):
    rng = np.random.default_rng(2)
    X = rng.standard_normal(shape).astype(dtype)
    return X + dtype(1j) * rng.standard_normal(shape).astype(dtype) if np.dtype(dtype).kind == "c" else X


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_arrays_in_all_layouts(cupy, axis, layout, dtype):
    """The bits of the host and nothing copied there, whatever the layouts of X and `out` are."""
    X = random((4, 16, 8), dtype)
    x = LAYOUTS[layout](cupy, X.shape, dtype)
    x[...] = cupy.asarray(X)
    expected = fwht(X, axis, normalize=True)
    outs = [make(cupy, X.shape, dtype) for make in LAYOUTS.values()]
    fake_cupy.TRANSFERS.clear()
    found = [fwht(x, axis, normalize=True), *(fwht(x, axis, normalize=True, out=out) for out in outs)]
    assert not fake_cupy.TRANSFERS
    assert all(one is out for one, out in zip(found[1:], outs, strict=True))
    assert isinstance(found[0], cupy.ndarray)
    assert found[0].dtype == dtype
    assert all(np.array_equal(one.get(), expected) for one in found)
    assert np.array_equal(x.get(), X)
    assert fwht(x, axis, normalize=True, out=x) is x
    assert np.array_equal(x.get(), expected)


def test_out_may_overlap(cupy):
    X = random((16, 16), np.float64)
    for place in (lambda m: m[16:-16], lambda m: m[1:257], lambda m: m[255::-1], lambda m: m[:256].reshape(16, 16).T):
        memory = cupy.zeros(288)
        x, out = memory[:256].reshape(16, 16), place(memory).reshape(16, 16)
        x[...] = cupy.asarray(X)
        fwht(x, 1, out=out)
        assert np.array_equal(out.get(), fwht(X, 1))
