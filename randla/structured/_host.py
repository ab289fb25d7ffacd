"""Structured products of arrays of the host; `_device` has the same functions for those of a device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _check, _cpu
from ._places import as_columns, scattered, taken


def require_result(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"out must be an array of dtype {dtype}; got {getattr(out, 'dtype', type(out).__name__)}")
    if out.shape != shape or not out.flags.writeable:
        what = "" if out.flags.writeable else ", read-only"
        raise ValueError(f"out must be writeable and of shape {shape}; got shape {out.shape}{what}")


def overlap(x: Any, out: np.ndarray) -> bool:
    # Exact up to an effort, beyond which they count as overlapping; NumPy's types know of no effort between none and any.
    return isinstance(x, np.ndarray) and np.may_share_memory(x, out, max_work=1000)  # type: ignore[arg-type]


def apply(product: Any, x: np.ndarray, axis: int, dtype: np.dtype, out: np.ndarray | None) -> np.ndarray:
    """`Product.apply` for an x and an `out` that have been checked; axis counts from the front."""
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    batch_first = axis == x.ndim - 1 and x.ndim > 1
    if batch_first:
        flat = x.reshape(math.prod(rest), x.shape[axis]).T
    else:
        flat = np.moveaxis(x, axis, 0).reshape(x.shape[axis], math.prod(rest))
    flat = flat.astype(dtype, order="K", copy=False)
    size, n = product.chain.shape
    if product.cols is not None:
        flat = scattered(flat, product.cols, n)
    plan = product._plan(dtype)
    if out is not None and out.ndim <= 2 and product.rows is None and _check.array(out, "out") is out:
        plan.apply(flat, out.T if batch_first else as_columns(out))
        return out
    count = flat.shape[1]
    y = _cpu.empty(dtype, (count, size)).T if batch_first else _cpu.empty(dtype, (size, count))
    plan.apply(flat, y)
    y = y if product.rows is None else taken(y, product.rows)
    y = y.T.reshape(*rest, len(y)) if batch_first else np.moveaxis(y.reshape(len(y), *rest), 0, axis)
    if out is None:
        return y
    out[...] = y
    return out


def gradient(product: Any, x: np.ndarray, g: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """dF/dX (n, k) and the gradients of all values, those of the factor that is applied first before the others."""
    inputs, outputs = as_columns(x).astype(dtype, copy=False), as_columns(g).astype(dtype, copy=False)
    inputs = inputs if product.cols is None else scattered(inputs, product.cols, product.chain.shape[1])
    outputs = outputs if product.rows is None else scattered(outputs, product.rows, product.chain.shape[0])
    dX, dw = _cpu.empty(dtype, inputs.shape), np.empty(product.n_params, dtype)
    product._plan(dtype, merge=False).gradient(inputs, outputs, dX, dw)
    return dX if product.cols is None else taken(dX, product.cols), dw
