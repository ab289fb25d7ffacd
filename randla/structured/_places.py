"""Chosen rows of a product: checked, gathered and put back in their places."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_columns(x: Any) -> Any:
    """A vector as one column."""
    return x[:, None] if x.ndim == 1 else x


def as_array(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be convertible to an array; got a {type(value).__name__}: {error}") from None


def kept(value: Any, size: int, name: str) -> np.ndarray:
    places = as_array(value, name)
    if places.ndim != 1 or places.dtype.kind not in "iu":
        raise TypeError(f"{name} must be a vector of integers; got {places.dtype} of shape {places.shape}")
    if not len(places):
        raise ValueError(f"{name} must hold at least 1 number; got none")
    if places.min() < 0 or places.max() >= size:
        raise ValueError(f"{name} must be between 0 and {size - 1}; got {places.min()} to {places.max()}")
    places = places.astype(np.int64)
    if len(np.unique(places)) != len(places):
        raise ValueError(f"{name} must be distinct; got {len(places) - len(np.unique(places))} repeated")
    places.flags.writeable = False
    return places


def taken(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x[rows] in the order of x: gathering along the wrong axis takes several times as long."""
    return np.take(x.T, rows, axis=1).T if _by_columns(x) else np.take(x, rows, axis=0)


def _by_columns(x: np.ndarray) -> bool:
    return x.flags.f_contiguous and not x.flags.c_contiguous


def scattered(x: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Rows of x in their places among `size` rows, zeros elsewhere."""
    if len(places) == size:
        order = np.empty(size, np.int64)
        order[places] = np.arange(size)
        return taken(x, order)
    out = np.zeros((x.shape[1], size), x.dtype).T if _by_columns(x) else np.zeros((size, x.shape[1]), x.dtype)
    out[places] = x
    return out
