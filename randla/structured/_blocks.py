"""Stacks of square blocks (..., b, b): solutions, inverses, determinants and condition numbers by LU with partial pivoting."""

from __future__ import annotations

import numpy as np


def solved(blocks: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """blocks^-1 rhs for (..., b, k). LinAlgError for a pivot of zero; what overflows is infinite or NaN."""
    scaled, exponents = _large_rows(blocks)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.linalg.solve(scaled, rhs if exponents is None else _times_power(rhs, exponents[..., None]))


def inverted(blocks: np.ndarray) -> np.ndarray:
    """blocks^-1. As `solved`."""
    scaled, exponents = _large_rows(blocks)
    with np.errstate(over="ignore", invalid="ignore"):
        inverses = np.linalg.inv(scaled)
        return inverses if exponents is None else _times_power(inverses, exponents[..., None, :])


def log_abs_det(blocks: np.ndarray) -> np.ndarray:
    """log |det| of every block, -inf for a pivot of zero."""
    scaled, exponents = _large_rows(blocks.astype(_wide(blocks.dtype), copy=False))
    logs: np.ndarray = np.linalg.slogdet(scaled)[1]
    return logs if exponents is None else logs - np.log(2) * exponents.sum(axis=-1)


def reciprocal_condition(blocks: np.ndarray) -> float:
    """The smallest one of all blocks in the infinity norm, rows scaled to one; 0 where one is singular."""
    wide = blocks.astype(_wide(blocks.dtype))
    size = np.abs(wide).max(axis=-1, keepdims=True)
    if not size.all():
        return 0.0
    # Dividing complex numbers by complex ones would overflow for the smallest rows.
    for part in _parts(wide):
        part /= size
    try:
        with np.errstate(all="ignore"):
            inverses = np.abs(np.linalg.inv(wide)).sum(axis=-1).max(axis=-1)
            return float(np.nan_to_num(1 / (np.abs(wide).sum(axis=-1).max(axis=-1) * inverses)).min())
    except np.linalg.LinAlgError:
        return 0.0


def _large_rows(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Blocks of which small rows are multiplied by powers of two, and the exponents (..., b); None where all are zero.

    OpenBLAS does not divide by pivots below the smallest normal number: its factors of such blocks are wrong.
    """
    info = np.finfo(blocks.dtype)
    size = np.max([np.abs(part).max(axis=-1, initial=0) for part in _parts(blocks)], axis=0)
    small = (size > 0) & (size < info.smallest_normal / info.eps)
    if not small.any():
        return blocks, None
    exponents = np.where(small, -np.frexp(size)[1], 0)
    return _times_power(blocks, exponents[..., None]), exponents


def _times_power(x: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """x 2^exponents."""
    out = np.empty(np.broadcast_shapes(x.shape, exponents.shape), x.dtype)
    for part, given in zip(_parts(out), _parts(x), strict=True):
        np.ldexp(given, exponents, out=part)
    return out


def _parts(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (x.real, x.imag) if x.dtype.kind == "c" else (x,)


def _wide(dtype: np.dtype) -> np.dtype:
    return np.result_type(dtype, np.float64)
