"""Truncated singular value decompositions with an estimate of their error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import _check
from .._backend import namespace
from ._adapted import CenteredOperand
from ._device import DeviceOperand, operand_anywhere
from ._operand import AdjointOperand, DenseOperand, Operand
from ._truncated import Request, Run, SVDResult
from .result import LowRankWarning

__all__ = ["SVDResult", "svd"]

_METHODS = ("auto", "krylov", "subspace", "lapack")
_TOLERANCE_BLOCK = 32
# A product with so many columns of float64 still takes no longer than to read A on a device, and with twice as many of float32.
_DEVICE_BLOCK = 32


def svd(
    A: Any,
    k: int | None = None,
    *,
    tol: float | None = None,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    method: str = "auto",
    center: bool = False,
    block_size: int | None = None,
    rng: Any = None,
) -> SVDResult:
    """The k leading singular triplets of A, or as many as a relative error of `tol` in the Frobenius norm takes.

    A block Krylov space of A^H A, started from a sketch of A, is grown in small blocks until the error has settled (Musco,
    Musco 2015; after Halko, Martinsson, Tropp 2011). A is only read, never copied or deflated.

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix, LinearOperator or RowBlocks
        float32, float64, complex64 or complex128; any strides; memory-mapped ones are read in pieces. A list of 2-D arrays,
        or another iterable of blocks of rows that can be read again, is taken as RowBlocks. For an array or a sparse matrix of
        a CUDA device U, s, s_upper, Vh and the mean are CuPy arrays; only matrices of as many rows and columns as the basis
        or the sketch has vectors come to the host, but for a triangle of min(m, n) columns with "lapack".
    k : int
        Rank; with `tol` the largest one allowed. Cut at min(m, n).
    tol : float
        ||A - U diag(s) Vh||_F <= tol ||A||_F. Blocks are added until that holds; then the smallest sufficient rank is taken.
        Rounding sets a floor of about 10 eps sqrt(rank).
    n_oversamples : int
        Columns beyond k that a block has where `n_iter` is given; with "auto" they enter the size and number of blocks.
    n_iter : int or "auto"
        Number of products with A^H A after the first sketch, in blocks of k + n_oversamples columns: n_iter + 2 passes, or
        2 n_iter + 2 where both products do not fit into one, as on a device.
        "auto" goes on, in smaller blocks where a pass is cheap, until further ones would lower the error by some 1e-5 of it
        only, or the basis holds 3 (k + n_oversamples) vectors, which is the accuracy of seven subspace iterations.
    method : {"auto", "krylov", "subspace", "lapack"}
        "subspace" keeps only the last block: less memory, slower convergence; needs an `n_iter`. "lapack" is the full
        decomposition, which "auto" takes for small matrices and ranks near min(m, n).
    center : bool
        Decompose A less the means of its columns, which is not formed: principal components, also of sparse matrices.
    block_size : int
        Columns of a block, instead of the choice above. Small blocks need fewer products in all, large ones fewer passes, and
        a flat spectrum with a singular value repeated more often than a block has columns needs one of k + n_oversamples.
    rng : as in SPEC 7

    Returns
    -------
    SVDResult

    Warns
    -----
    LowRankWarning
        Where `tol` was not reached, or more than 1 % of the error could still be gained.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries.
    """
    base = operand_anywhere(A)
    m, n = base.shape
    request = _request(base, k, tol, n_oversamples, n_iter, method, block_size, _check.seed(rng))
    if not isinstance(center, bool | np.bool_):
        raise TypeError(f"center must be True or False; got {center!r}")
    mean = None
    op: Operand = base
    if center and m:
        op = CenteredOperand(base)
        mean = op.mean
    if m < n:
        op = AdjointOperand(op)
    result = Run(op, request).result()
    if m < n:
        result.U, result.Vh = (base.xp.ascontiguousarray(part.conj().T) for part in (result.Vh, result.U))
    fix_signs(result.U, result.Vh)
    result.mean, result.passes = mean, base.passes
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=2)
    return result


def _request(op: Operand, k: Any, tol: Any, oversamples: Any, n_iter: Any, method: Any, block: Any, seed: int) -> Request:
    smaller = min(op.shape)
    if k is None and tol is None:
        raise ValueError("k or tol must be given; got neither")
    rank = smaller if k is None else min(_check.integer(k, "k", 1), smaller)
    oversamples = _check.integer(oversamples, "n_oversamples", 0)
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}; got {method!r}")
    if method == "lapack" and not op.explicit:
        raise TypeError(f"method 'lapack' needs a matrix given by its entries; got {type(op.A).__name__}")
    if isinstance(n_iter, str):
        if n_iter != "auto":
            raise ValueError(f"n_iter must be an integer or 'auto'; got {n_iter!r}")
        steps = None
    else:
        steps = _check.integer(n_iter, "n_iter", 0)
    if tol is not None:
        tol = _check.real(tol, "tol", strict=True)
        if steps is not None:
            raise ValueError(f"n_iter must be 'auto' where a tolerance is given; got {n_iter}")
    if method == "subspace" and steps is None:
        raise ValueError("n_iter must be an integer for method 'subspace'; got 'auto'")
    width = rank + oversamples
    cheap = op.sparse or isinstance(op, DeviceOperand) or (isinstance(op, DenseOperand) and not _mapped(op.A))
    if block is not None:
        size = _check.integer(block, "block_size", 1)
    elif steps is not None:
        size = width
    elif tol is not None:
        size = _TOLERANCE_BLOCK
    else:
        least = _DEVICE_BLOCK if isinstance(op, DeviceOperand) else 16
        size = max(least, (2 * width // 5 + 7) // 8 * 8) if cheap else width
    return Request(rank, tol, oversamples, steps, method, max(1, min(size, smaller)), seed)


def _mapped(A: Any) -> bool:
    while A is not None and not isinstance(A, np.memmap):
        A = getattr(A, "base", None)
    return A is not None


def fix_signs(U: np.ndarray, Vh: np.ndarray) -> None:
    """Make the largest entry of every column of U real and positive."""
    if not U.size:
        return
    xp = namespace(U)
    sizes = U if U.dtype.kind != "c" else abs(U)
    high, low, columns = sizes.argmax(axis=0), sizes.argmin(axis=0), xp.arange(U.shape[1])
    largest = xp.where(abs(U[high, columns]) >= abs(U[low, columns]), U[high, columns], U[low, columns])
    phase = largest / abs(largest)
    if (phase != 1).any():
        U *= phase.conj()
        Vh *= phase[:, None]
