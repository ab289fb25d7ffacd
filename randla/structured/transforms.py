"""Fast transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _check, _cpu
from .._backend import on_device, same_device
from . import _device, _host


def fwht(X: Any, axis: int = 0, normalize: bool = False, *, out: Any = None) -> Any:
    """Walsh-Hadamard transform along an axis: H X with H[i, j] = (-1)^popcount(i & j), in natural order.

    Parameters
    ----------
    X : array of any number of dimensions >= 1
        float32, float64, complex64 or complex128 (integers are converted to float64). X.shape[axis] must be a power of two.
    axis : int
    normalize : bool
        Divide by sqrt(X.shape[axis]): the transform is then orthogonal and its own inverse.
    out : array, same shape and dtype as X, optional
        Where to put the result; may be X itself (in place).

    Returns
    -------
    ndarray
        Of the shape and dtype of X, for an X on a CUDA device a CuPy array there; `out` if given. n log2(n) additions per
        vector, the same for every layout: results are equal bit for bit along either axis and for any number of threads.

    Raises
    ------
    TypeError
        Unsupported dtypes; an `out` of another dtype; X and `out` of which one is on the host and one on a device.
    ValueError
        Lengths that are no power of two; axes that do not exist; an `out` of another shape or that cannot be written to.
    """
    x = _check.array(X, "X", device=True)
    if x.ndim == 0:
        raise ValueError("X must have at least 1 dimension; got 0")
    axis = _check.integer(axis, "axis", -x.ndim, x.ndim - 1) % x.ndim
    n = x.shape[axis]
    if n == 0 or n & (n - 1):
        raise ValueError(f"X must have a power of two as its length along axis {axis}; got {n}")
    scale = 1 / math.sqrt(n) if normalize else 1.0
    same_device(X=x, out=out)
    if out is not None:
        (_device if on_device(x) else _host).require_result(out, x.shape, x.dtype)
    if on_device(x):
        return _device.fwht(x, axis, scale, out)
    # Transposing both sides makes Fortran order what the kernel calls contiguous.
    flip = x.flags.f_contiguous and not x.flags.c_contiguous
    source, along = (x.T, x.ndim - 1 - axis) if flip else (x, axis)
    source = np.ascontiguousarray(source)
    target = None if out is None else out.T if flip else out
    direct = target is not None and target.flags.c_contiguous and target.flags.aligned
    if direct and target is not None and np.may_share_memory(target, source) and not _same_memory(target, source):
        source = source.copy()
    work = target if direct else _cpu.empty(source.dtype, source.shape)
    assert work is not None
    _cpu.fwht(_as_real(source, along), _as_real(work, along), scale)
    if out is None:
        return work.T if flip else work
    if not direct:
        out[...] = work.T if flip else work
    return out


def _same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides


def _as_real(x: np.ndarray, axis: int) -> np.ndarray:
    """The contiguous x as (outer, n, inner) real numbers, sharing memory."""
    real = x.view(x.real.dtype) if x.size else np.empty(0, x.real.dtype)
    outer = int(np.prod(x.shape[:axis]))
    parts = 2 if x.dtype.kind == "c" else 1
    return real.reshape(outer, x.shape[axis], int(np.prod(x.shape[axis + 1 :])) * parts)
