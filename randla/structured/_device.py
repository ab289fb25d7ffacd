"""Structured products and transforms of arrays of a device.

Plans are made of the values on the host and uploaded, once for each device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _check
from .._backend import Array, adopted, kernels, like, namespace
from ._places import as_columns

_PLANS = {"f": "ButterflyFloat32", "d": "ButterflyFloat64", "F": "ButterflyComplex64", "D": "ButterflyComplex128"}


def _kept_with(product: Any, what: tuple[Any, ...], x: Array, make: Any) -> Any:
    key = (*what, str(x.device))
    if key not in product._plans:
        product._plans[key] = make()
        # The next to use it may work on another stream.
        namespace(x).cuda.get_current_stream().synchronize()
    return product._plans[key]


def _plan(product: Any, x: Array, dtype: np.dtype, merge: bool = True) -> Any:
    def make() -> Any:
        kind = getattr(kernels(x), _PLANS[dtype.char])
        patterns, values = product._stages(dtype, merge)
        adjoint = None if merge else like(x, kind.packed(patterns, values, adjoint=True))
        return kind(patterns, like(x, kind.packed(patterns, values)), adjoint)

    return _kept_with(product, (dtype, merge), x, make)


def _places(product: Any, name: str, x: Array) -> Array:
    return _kept_with(product, (name,), x, lambda: like(x, getattr(product, name)))


def _taken(x: Array, places: Array) -> Array:
    """x[places] in the order of x."""
    xp = namespace(x)
    along = x.flags.f_contiguous and not x.flags.c_contiguous
    return xp.take(x.T, places, axis=1).T if along else xp.take(x, places, axis=0)


def _scattered(x: Array, places: Array, size: int) -> Array:
    """Rows of x in their places among `size` rows, zeros elsewhere."""
    along = x.flags.f_contiguous and not x.flags.c_contiguous
    zeros = namespace(x).zeros
    out = zeros((x.shape[1], size), x.dtype).T if along else zeros((size, x.shape[1]), x.dtype)
    out[places] = x
    return out


def require_result(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    held = adopted(out)
    if held.dtype != dtype:
        raise TypeError(f"out must be an array of dtype {dtype}; got {held.dtype}")
    if held.shape != shape:
        raise ValueError(f"out must be of shape {shape}; got shape {held.shape}")


def overlap(x: Any, out: Any) -> bool:
    return bool(namespace(x).may_share_memory(adopted(x), adopted(out)))


def apply(product: Any, x: Array, axis: int, dtype: np.dtype, out: Any) -> Array:
    """`Product.apply` for an x and an `out` that have been checked; axis counts from the front."""
    xp = namespace(x)
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    batch_first = axis == x.ndim - 1 and x.ndim > 1
    held = None if out is None else adopted(out)
    if batch_first:
        flat = x.reshape(math.prod(rest), x.shape[axis]).T
    else:
        flat = xp.moveaxis(x, axis, 0).reshape(x.shape[axis], math.prod(rest))
    flat = flat.astype(dtype, copy=False)
    size, n = product.chain.shape
    if product.cols is not None:
        flat = _scattered(flat, _places(product, "cols", x), n)
    if held is not None and held.ndim <= 2 and product.rows is None:
        _plan(product, x, dtype).apply(flat, held.T if batch_first else as_columns(held))
        return out
    y = xp.empty((flat.shape[1], size), dtype).T if batch_first else xp.empty((size, flat.shape[1]), dtype)
    _plan(product, x, dtype).apply(flat, y)
    if product.rows is not None:
        y = _taken(y, _places(product, "rows", x))
    y = y.T.reshape(*rest, len(y)) if batch_first else xp.moveaxis(y.reshape(len(y), *rest), 0, axis)
    if held is None:
        return y
    held[...] = y
    return out


def gradient(product: Any, x: Array, g: Array, dtype: np.dtype) -> tuple[Array, Array]:
    """dF/dX (n, k) and the gradients of all values, those of the factor that is applied first before the others."""
    xp = namespace(x)
    inputs, outputs = as_columns(x).astype(dtype, copy=False), as_columns(g).astype(dtype, copy=False)
    if product.cols is not None:
        inputs = _scattered(inputs, _places(product, "cols", x), product.chain.shape[1])
    if product.rows is not None:
        outputs = _scattered(outputs, _places(product, "rows", x), product.chain.shape[0])
    dX, dw = xp.empty(inputs.shape, dtype), xp.empty(product.n_params, dtype)
    _plan(product, x, dtype, merge=False).gradient(inputs, outputs, dX, dw)
    return dX if product.cols is None else _taken(dX, _places(product, "cols", x)), dw


def fwht(x: Array, axis: int, scale: float, out: Any) -> Array:
    """`transforms.fwht` for an x and an `out` that have been checked."""
    xp = namespace(x)
    held = None if out is None else adopted(out)
    # Transposing both sides makes Fortran order what the kernel calls contiguous.
    flip = x.flags.f_contiguous and not x.flags.c_contiguous
    source, along = (x.T, x.ndim - 1 - axis) if flip else (x, axis)
    source = xp.ascontiguousarray(source)
    work = held.T if flip and held is not None else held
    if work is None or not work.flags.c_contiguous:
        work = xp.empty(source.shape, source.dtype)
    elif xp.may_share_memory(work, source) and _address(work) != _address(source):
        source = source.copy()
    kernels(x).fwht(_as_real(source, along), _as_real(work, along), scale)
    result = work.T if flip else work
    if held is None:
        return result
    if _address(result) != _address(held):
        held[...] = result
    return out


def _address(a: Array) -> int:
    return int(a.__cuda_array_interface__["data"][0])


def _as_real(x: Array, axis: int) -> Array:
    """The contiguous x as (outer, n, inner) real numbers, sharing memory."""
    parts = 2 if x.dtype.kind == "c" else 1
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    real = x.reshape(-1).view(_check.real_dtype(x.dtype)) if x.size else x.real
    return real.reshape(outer, x.shape[axis], inner * parts)
