"""Sketching: `sketch`, and the names of distributions, operators and accumulators."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _check
from ._backend import is_sparse
from ._operator import SketchAccumulator, SketchOperator, TransposedSketch, _complex
from .blocks import RowBlocks, as_row_blocks
from .families import (
    SRTT,
    BlockSRHT,
    CountSketch,
    Distribution,
    Gaussian,
    LessUniform,
    Rademacher,
    RowSample,
    SparseSign,
    SparseStack,
)

__all__ = [
    "SRTT",
    "BlockSRHT",
    "CountSketch",
    "Distribution",
    "Gaussian",
    "LessUniform",
    "Rademacher",
    "RowSample",
    "SketchAccumulator",
    "SketchOperator",
    "SparseSign",
    "SparseStack",
    "TransposedSketch",
    "sketch",
]


def sketch(A: Any, d: int, distribution: Distribution | None = None, *, rng: Any = None) -> np.ndarray:
    """S @ A for a fresh sketch S of d rows.

    Parameters
    ----------
    A : array (m, n) or (m,), CSR/CSC matrix, RowBlocks, or a list of blocks of rows
        Memory-mapped files are read once; so are blocks, which are not kept.
    d : int
        Rows of S.
    distribution : Distribution, default SparseStack()
    rng : as in SPEC 7

    Returns
    -------
    ndarray (d, n) or (d,)
        In the dtype of A; a CuPy array for an array or a sparse matrix of a CUDA device.

    Raises
    ------
    TypeError
        For unsupported dtypes, and for what is no Distribution.
    ValueError
        For unsuitable shapes and d.
    """
    chosen = SparseStack() if distribution is None else distribution
    if not isinstance(chosen, Distribution):
        raise TypeError(f"distribution must be a Distribution such as SparseStack(); got {distribution!r}")
    blocks = as_row_blocks(A)
    if blocks is not None:
        return _sketch_blocks(chosen.sample(d, blocks.shape[0], rng=rng), blocks)
    a = A if is_sparse(A) else _check.array(A, "A", device=True)
    if a.ndim not in (1, 2):
        raise ValueError(f"A must have 1 or 2 dimensions; got {a.ndim}")
    return chosen.sample(d, a.shape[0], rng=rng) @ a


def _sketch_blocks(S: SketchOperator, blocks: RowBlocks) -> np.ndarray:
    parts = [np.zeros((S.shape[0], blocks.shape[1]), _check.real_dtype(blocks.dtype))]
    if blocks.dtype.kind == "c":
        parts.append(np.zeros_like(parts[0]))
    for offset, block in blocks:
        for out, part in zip(parts, (block.real, block.imag) if len(parts) == 2 else (block,), strict=True):
            S.distribution._apply(S, part, offset, out)
    return parts[0] if len(parts) == 1 else _complex(parts[0], parts[1], blocks.dtype)
