"""Leverage scores, and what follows from them: coherence, effective dimension, cross-leverage."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from . import _check
from ._backend import Array, namespace, same_device
from ._leverage import LARGE_N, Request, effective_dimension_of, exact_factor, scores_of
from ._matrix import argument, is_complex, wrap
from .result import LeverageWarning, listed

METHODS = ("auto", "exact", "sketch")


@dataclasses.dataclass(frozen=True, repr=False)
class LeverageResult:
    """Leverage scores with their evidence.

    Attributes
    ----------
    scores : ndarray (m,)
        float64, in [0, 1]; where A is.
    rank : int
        Numerical rank of A, or of the approximation that was asked for, or n with a ridge. Without a ridge the scores sum to
        it, otherwise to `effective_dimension`.
    effective_dimension : float
        sum sigma^2 / (sigma^2 + ridge).
    cond : float
        Condition number, after scaling columns, of what the scores come from.
    relative_error : float
        Of every score: an estimate, 10 eps cond, for "exact"; for "sketch" what was asked for, which a Gaussian sketch
        exceeds somewhere with a probability of 1 % at most, and with a rank an estimate relative to the largest scores.
    gap : float
        With `rank`: (sigma_k - sigma_{k+1}) / sigma_k; the scores change by about the relative change of A over it.
    method : str
        "exact" or "sketch".
    passes : int
        Reads of A.
    seed : int
        Replays the run: pass it as `rng`.
    """

    scores: Array
    rank: int
    effective_dimension: float
    cond: float
    relative_error: float
    gap: float
    method: str
    passes: int
    seed: int

    def __repr__(self) -> str:
        evidence = ("rank", "effective_dimension", "cond", "relative_error", "gap", "passes", "seed")
        return listed(self, "method", *evidence, "scores")


def leverage_scores(
    A: Any,
    *,
    method: str = "auto",
    ridge: float = 0.0,
    rank: int | None = None,
    weights: Any = None,
    rtol: float = 0.25,
    rcond: float | None = None,
    rng: Any = None,
    full_output: bool = False,
) -> Any:
    """Leverage scores of the rows of A: l_i = a_i (A'A + ridge I)^+ a_i', squared row norms of an orthonormal basis of A.

    They lie in [0, 1], sum to the rank of A (with a ridge, to its effective dimension) and do not change when A is
    multiplied by an invertible matrix from the right (without a ridge).

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix, LinearOperator or RowBlocks
        float32, float64, complex64 or complex128; any strides; never copied, unless m < n, the rank is below m and columns
        differ in size a thousandfold. A list of 2-D arrays, or another iterable of blocks of rows that can be read again, is
        taken as RowBlocks. Arrays of a CUDA device give scores there.
    method : {"auto", "exact", "sketch"}
        "exact": R from a sketch, corrected by one Cholesky QR, then squared row norms of A R^-1 (Fan, Guo, Lin 2021); right
        up to about eps times the condition number, as those of LAPACK's QR. Three passes, four for complex A or deficient
        rank, and one more from a condition number of 1e9 on; two, by QR of blocks, where A comes in row blocks or is
        memory-mapped.
        "sketch": R from a sketch alone, without the bias of its inverse, and A R^-1 multiplied by a random matrix where A
        has very many columns (Drineas, Magdon-Ismail, Mahoney, Woodruff 2012). Two passes, three with a ridge or at
        deficient rank.
        "auto": "exact", but "sketch" beyond 5,000 columns.
    ridge : float
        Added to the eigenvalues of A'A. With few effective dimensions, "sketch" holds far fewer than n^2 numbers: for wide
        sparse A.
    rank : int
        Scores of the best approximation of A of this rank: squared row norms of the leading left singular vectors. Not with
        a ridge.
    weights : array (m,)
        Scores of diag(sqrt(weights)) A; finite, not negative.
    rtol : float
        Relative error to aim at with "sketch": decides the rows of the sketch and the columns of the random matrix.
    rcond : float
        Singular values below rcond times the largest, after scaling the columns, count as zero; default 10 eps.
    rng : as in SPEC 7
    full_output : bool
        Return a LeverageResult.

    Returns
    -------
    ndarray (m,) in float64, or LeverageResult

    Warns
    -----
    LeverageWarning
        Where singular values `rank` and `rank` + 1 cannot be told apart.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a, w = _arguments(A, weights)
    m, n = a.shape
    ridge = _check.real(ridge, "ridge")
    rtol = _check.real(rtol, "rtol", strict=True)
    if rank is not None:
        rank = _check.integer(rank, "rank", 1, max(min(m, n), 1))
        if ridge:
            raise ValueError(f"ridge must be 0 where a rank is given; got {ridge:g}")
    seed = _check.seed(rng)
    matrix = wrap(a, w)
    if method == "auto":
        method = "exact" if (n if ridge else min(m, n)) <= LARGE_N else "sketch"
    request = Request(matrix, method == "exact", ridge, rank, rtol, _cut(rcond), seed)
    found = scores_of(request)
    result = LeverageResult(
        namespace(found.scores).clip(found.scores, 0.0, 1.0, out=found.scores),
        found.rank // matrix.copies,
        found.dimension / matrix.copies,
        found.cond,
        found.relative_error,
        found.gap,
        method,
        found.passes,
        seed,
    )
    if rank is not None and found.gap <= 4 * found.relative_error:
        if method == "exact":
            message = f"Singular values {rank} and {rank + 1} differ by {found.gap:.1e} only: the scores depend on rounding."
            warnings.warn(message, LeverageWarning, stacklevel=2)
        elif found.relative_error > rtol:
            message = (
                f"Singular values {rank} and {rank + 1} were not told apart: the scores may be wrong by "
                f"{found.relative_error:.1g} of the largest; method 'exact' is not bothered."
            )
            warnings.warn(message, LeverageWarning, stacklevel=2)
    return result if full_output else result.scores


def coherence(A: Any, **options: Any) -> float:
    """The largest leverage score of A, between rank / m (flat) and 1 (one row carries a direction alone).

    Parameters
    ----------
    A, **options : as for `leverage_scores`

    Returns
    -------
    float
        Zero where A has no rows or no columns.

    Raises
    ------
    TypeError, ValueError
        As `leverage_scores`.
    """
    scores = leverage_scores(A, **{**options, "full_output": False})
    return float(scores.max()) if len(scores) else 0.0


def effective_dimension(A: Any, ridge: float, *, method: str = "auto", rtol: float = 0.05, rng: Any = None) -> float:
    """sum sigma^2 / (sigma^2 + ridge) over the singular values of A: the sum of the ridge leverage scores.

    Parameters
    ----------
    A : as for `leverage_scores`
    ridge : float
        Zero gives the rank.
    method : {"auto", "exact", "sketch"}
        "exact" reads A twice, "sketch" once; "auto" is "exact" up to 5,000 columns.
    rtol : float
        Relative error to aim at with "sketch".
    rng : as in SPEC 7

    Returns
    -------
    float
        Between 0 and the rank of A.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a, _ = _arguments(A, None)
    ridge, rtol = _check.real(ridge, "ridge"), _check.real(rtol, "rtol", strict=True)
    exact = method == "exact" or (method == "auto" and (a.shape[1] if ridge else min(a.shape)) <= LARGE_N)
    matrix = wrap(a)
    return effective_dimension_of(Request(matrix, exact, ridge, None, rtol, None, _check.seed(rng))) / matrix.copies


def cross_leverage(A: Any, pairs: Any, *, ridge: float = 0.0, weights: Any = None, rng: Any = None) -> Array:
    """a_i (A'A + ridge I)^+ a_j^H for pairs (i, j) of rows of A: entries of the projection onto its range (exact).

    Parameters
    ----------
    A, ridge, weights : as for `leverage_scores`; m >= n
    pairs : integer array (k, 2), where A is
    rng : as in SPEC 7

    Returns
    -------
    ndarray (k,) in float64 or complex128

    Raises
    ------
    TypeError, ValueError
    """
    a, w = _arguments(A, weights)
    m, n = a.shape
    if m < n:
        raise ValueError(f"A must have at least as many rows as columns; got shape {(m, n)}")
    same_device(A=a, pairs=pairs)
    xp = namespace(a)
    index = xp.asarray(pairs)
    if index.dtype.kind not in "iu" and index.size:
        raise TypeError(f"pairs must be integers; got dtype {index.dtype}")
    if index.ndim != 2 or index.shape[1] != 2:
        raise ValueError(f"pairs must have shape (k, 2); got {index.shape}")
    if index.size and (index.min() < 0 or index.max() >= m):
        raise ValueError(f"pairs must be rows of A, from 0 to {m - 1}; got {int(index.min())} to {int(index.max())}")
    matrix = wrap(a, w)
    ridge = _check.real(ridge, "ridge")
    if n == 0:
        return xp.zeros(len(index), complex if is_complex(a) else float)
    rows, where = xp.unique(index.astype(np.int64), return_inverse=True)
    factor = exact_factor(Request(matrix, True, ridge, None, 0.25, None, _check.seed(rng)))
    mapping = factor.row_map()
    images = (mapping if xp is np else mapping.on_device(a)).images(matrix.take(rows))
    first, second = where.reshape(index.shape).T
    dots = np.vecdot if xp is np else _dots
    if not is_complex(a):
        return dots(images[first], images[second])
    upper, lower = images[: len(rows)], images[len(rows) :]
    return dots(upper[first], upper[second]) + 1j * dots(lower[first], upper[second])


def _dots(X: Array, Y: Array) -> Array:
    return (X * Y).sum(axis=1)


def _arguments(A: Any, weights: Any) -> tuple[Any, Array | None]:
    a = argument(A, device=True)
    if weights is None:
        return a, None
    same_device(A=a, weights=weights)
    return a, _check.weights(weights, a.shape[0], device=True)


def _cut(rcond: float | None) -> float | None:
    return None if rcond is None else _check.real(rcond, "rcond")
