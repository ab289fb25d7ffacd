"""Approximation of a matrix by its own columns and rows: `interpolative`, `cur`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.linalg import lapack

from .. import _check
from .._random import random_words
from .._rows import Rows
from ..families import BlockSRHT, Gaussian, SparseStack
from ..result import HasStatus
from ..sampling._determinantal import projection_sample
from ._leave_one_out import solve_triangular
from ._operand import AdjointOperand, BlocksOperand, DenseOperand, Operand, SparseOperand, norm_of, operand, product
from .result import LowRankStatus, LowRankWarning

METHODS = ("qr", "arp")

_STREAM = 32  # see docs/definitions.md
_SKETCH, _ERROR, _, _PIVOTS = range(4)  # 2 is that of qr
_ROWS, _OPERATOR_ROWS = 4, 2  # rows of the sketch for every column: its least squares err by 15 %, 40 % more than the best
_ERROR_ROWS = 10  # of the Gaussian sketch that errors are estimated from
_FIRST = 32  # columns that a tolerance is first tried with
_CHUNK = 1 << 20  # entries of a sparse matrix that are made dense at a time


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InterpolativeResult(HasStatus):
    """A ~ A[:, indices] coefficients, or for rows A ~ coefficients A[indices]; unpacks as `indices, coefficients`.

    Attributes
    ----------
    indices : ndarray (k,)
        Columns (or rows) of A, those that matter most first.
    coefficients : ndarray (k, n) or (m, k)
        The identity in the chosen columns (or rows).
    error : float
        Estimate of the Frobenius norm of the difference, from a sketch that nothing else was made from; the exact norm where
        that was asked for.
    relative_error : float
        error / ||A||_F, the latter estimated in the same way where A is an operator.
    rank : int
        k, or less where A has no larger numerical rank.
    method : str
    passes : int
        Reads of A.
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    indices: np.ndarray
    coefficients: np.ndarray
    error: float
    relative_error: float
    rank: int
    method: str
    passes: int
    seed: int
    status: LowRankStatus

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.indices, self.coefficients))

    def __repr__(self) -> str:
        rest = f"relative_error={self.relative_error:.3g}, seed={self.seed}, {self.status.name}"
        return f"InterpolativeResult(rank={self.rank}, coefficients {self.coefficients.shape}, {rest})"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CURResult(HasStatus):
    """A ~ C U R with C = A[:, columns] and R = A[rows]; unpacks as `C, U, R`.

    Attributes
    ----------
    C, R : ndarray or CSR array, (m, k) and (k, n)
        Sparse where A is.
    U : ndarray (k, k)
        C^+ A R^+, the best for these columns and rows.
    columns, rows : ndarray (k,)
    error, relative_error, rank, passes, seed, status, message, success
        As for `InterpolativeResult`.
    """

    C: Any
    U: np.ndarray
    R: Any
    columns: np.ndarray
    rows: np.ndarray
    error: float
    relative_error: float
    rank: int
    passes: int
    seed: int
    status: LowRankStatus

    def __iter__(self) -> Iterator[Any]:
        return iter((self.C, self.U, self.R))

    def __repr__(self) -> str:
        rest = f"relative_error={self.relative_error:.3g}, seed={self.seed}, {self.status.name}"
        return f"CURResult(C {self.C.shape}, R {self.R.shape}, {rest})"


def interpolative(
    A: Any,
    k: int | None = None,
    *,
    tol: float | None = None,
    axis: str = "columns",
    method: str = "qr",
    refine: bool = False,
    exact_error: bool = False,
    rng: Any = None,
) -> InterpolativeResult:
    """Interpolative decomposition: k columns (or rows) of A, and the combinations of them that approximate all others.

    The columns are chosen on a sketch S A with few rows (Voronin, Martinsson 2017).

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Real or complex.
    k : int
        How many; with `tol` the most.
    tol : float
        As few as give relative_error <= tol, by the estimate. At least one of k and tol is needed.
    axis : {"columns", "rows"}
    method : {"qr", "arp"}
        "qr": QR with column pivoting of the sketch. "arp": adaptive randomized pivoting, a projection determinantal sample of
        the columns of a basis, for which E ||A - A[:, J] Z||_F^2 <= (k + 1) ||A - A V V*||_F^2 (Cortinovis, Kressner 2024);
        only with k.
    refine : bool
        Coefficients by least squares on A itself, one more pass, rather than on a sketch of 4 k rows (2 k products
        with an operator), whose error is larger by 15 % (40 %).
    exact_error : bool
        Compute the error; explicit matrices only. One more pass, which forms the approximation.
    rng : as in SPEC 7

    Returns
    -------
    InterpolativeResult

    Warns
    -----
    LowRankWarning
        Where the tolerance was not reached with k columns, or before rounding.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries.
    """
    if axis not in ("columns", "rows"):
        raise ValueError(f"axis must be columns or rows; got {axis!r}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = operand(A)
    k, tol = _checked(k, tol, a)
    if method == "arp" and tol is not None:
        raise ValueError("tol must be None with method 'arp', whose columns are not nested")
    if exact_error and not a.explicit:
        raise TypeError(f"A must be given by its entries for exact_error; got {type(A).__name__}")
    seed = _check.seed(rng)
    turned, conjugated = (a, False) if axis == "columns" else _turned(a)
    found = _columns(turned, k, tol, method, seed)
    if refine and len(found.indices):
        Q, T = scipy.linalg.qr(_taken(turned, found.indices), mode="economic", check_finite=False)
        found.coefficients = solve_triangular(T, turned.adjoint_times(Q).conj().T)
        found.coefficients[:, found.indices] = np.eye(len(found.indices))
    error = _exact(turned, found) if exact_error else found.error()
    coefficients = found.coefficients.astype(a.dtype, copy=False)
    if axis == "rows":
        coefficients = coefficients.conj().T if conjugated else coefficients.T
    relative, status = found.judged(error, tol)
    passes = turned.passes if turned is not a else a.passes
    result = InterpolativeResult(found.indices, coefficients, error, relative, len(found.indices), method, passes, seed, status)
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=2)
    return result


def cur(A: Any, k: int | None = None, *, tol: float | None = None, method: str = "qr", rng: Any = None) -> CURResult:
    """CUR decomposition: A by k of its columns and k of its rows, with the best matrix between them.

    Columns as for `interpolative`; rows by QR with pivoting of a basis of these columns (Sorensen, Embree 2016).

    Parameters
    ----------
    A, k, tol, method, rng
        As for `interpolative`; `tol` is that of the columns alone, from which the error differs by a small factor.

    Returns
    -------
    CURResult

    Warns
    -----
    LowRankWarning
        Where the tolerance was not reached.

    Raises
    ------
    TypeError, ValueError
        As for `interpolative`.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = operand(A)
    k, tol = _checked(k, tol, a)
    if method == "arp" and tol is not None:
        raise ValueError("tol must be None with method 'arp', whose columns are not nested")
    seed = _check.seed(rng)
    found = _columns(a, k, tol, method, seed)
    J = found.indices
    C = _taken(a, J)
    Q, T = scipy.linalg.qr(C, mode="economic", check_finite=False)
    _, rows = _pivoted(Q.conj().T)
    rows = rows[: len(J)]
    R = _taken_rows(a, rows)
    P, V = scipy.linalg.qr(R.conj().T, mode="economic", check_finite=False)
    U = solve_triangular(T, Q.conj().T @ a.times(P))
    U = solve_triangular(V, U.conj().T).conj().T.astype(a.dtype, copy=False)
    found.coefficients = U @ R
    error = found.error()
    relative, status = found.judged(error, None)
    if tol is not None and found.relative > tol:
        status = LowRankStatus.TOLERANCE_NOT_REACHED
    if isinstance(a, SparseOperand):
        C, R = a.A[:, J], a.A[rows]
    result = CURResult(C, U, R, J, rows, error, relative, len(J), a.passes, seed, status)
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=2)
    return result


def _checked(k: Any, tol: Any, a: Operand) -> tuple[int | None, float | None]:
    if k is None and tol is None:
        raise ValueError("k or tol must be given")
    return (
        None if k is None else min(_check.integer(k, "k", 1), *a.shape),
        None if tol is None else _check.real(tol, "tol", strict=True),
    )


def _turned(a: Operand) -> tuple[Operand, bool]:
    """An operand for A' or A*, and whether it is the latter."""
    if isinstance(a, DenseOperand):
        return DenseOperand(a.A.T, a.name), False
    return (SparseOperand(sp.csr_array(a.A.T), a.name), False) if isinstance(a, SparseOperand) else (AdjointOperand(a), True)


def _taken(a: Operand, index: np.ndarray) -> np.ndarray:
    if a.explicit:
        return a.take_columns(index)
    units = np.zeros((a.shape[1], len(index)), a.dtype)
    units[index, np.arange(len(index))] = 1
    return a.times(units)


def _taken_rows(a: Operand, index: np.ndarray) -> np.ndarray:
    return a.take_rows(index) if a.explicit else _taken(AdjointOperand(a), index).conj().T


class _Found:
    """Chosen columns, their coefficients, and G A for a Gaussian G of which they do not depend; in units of `unit`."""

    def __init__(self, probe: np.ndarray, size: float, unit: float, eps: float):
        self.probe, self.size, self.unit, self.eps = probe, size, unit, eps
        self.indices = np.zeros(0, np.int64)
        self.coefficients = np.zeros((0, probe.shape[1]), probe.dtype)
        self.exhausted, self.relative = False, 0.0

    def error(self) -> float:
        left = self.probe - self.probe[:, self.indices] @ self.coefficients
        # What rounding leaves of exact columns is not known to be less.
        floor = self.eps * self.size
        return math.hypot(float(np.linalg.norm(left)) / math.sqrt(len(left)), floor) / self.unit if self.size else 0.0

    def judged(self, error: float, tol: float | None) -> tuple[float, LowRankStatus]:
        relative = error * self.unit / self.size if self.size else 0.0
        if tol is not None and relative > tol:
            return relative, LowRankStatus.TOLERANCE_NOT_REACHED
        if self.exhausted:
            return relative, LowRankStatus.EXACT
        return relative, LowRankStatus.CONVERGED if tol is None else LowRankStatus.TOLERANCE_REACHED


def _columns(a: Operand, k: int | None, tol: float | None, method: str, seed: int) -> _Found:
    eps = float(np.finfo(a.dtype).eps)
    most = min(a.shape) if k is None else k
    count = most if tol is None else min(_FIRST, most)
    size = a.norm() if a.explicit else math.nan
    while True:
        Y, Y1, probe = _sketches(a, count, seed)
        largest = float(np.abs(Y).max(initial=0.0))
        limit = 120 if a.dtype.char in "fF" else 1000
        unit = math.ldexp(1.0, max(-limit, min(limit, -math.frexp(largest)[1])))
        Y, Y1, probe = Y * unit, Y1 * unit, probe * unit
        norm = size * unit if a.explicit else float(np.linalg.norm(probe)) / math.sqrt(_ERROR_ROWS)
        found = _Found(probe, norm, unit, eps)
        if not largest:
            found.exhausted = True
            return found
        if method == "arp":
            _by_sampling(found, Y, count, seed)
            return found
        R, order = _pivoted(Y1)
        pivots = np.abs(R.diagonal())
        rank = int(np.count_nonzero(pivots > 10 * eps * pivots[0]))
        take = min(count, rank)
        if tol is not None:
            take = max(1, min(take, _enough(R, tol * norm)))
        while True:
            found.exhausted = take == rank < most
            found.indices, found.coefficients = order[:take], _combinations(Y, order[:take])
            found.relative = found.error() * unit / norm
            if tol is None or found.relative <= tol or take == min(count, rank):
                break
            take = min(count, rank, math.ceil(1.05 * take))
        if tol is None or found.relative <= tol or count == most or rank < count:
            return found
        count = min(most, 2 * count)


def _combinations(Y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Z of the least ||Y - Y[:, chosen] Z||, which is the identity in the chosen columns."""
    Q, T = scipy.linalg.qr(Y[:, chosen], mode="economic", check_finite=False)
    Z = solve_triangular(T, product(Q.T, Y, conjugate=True))
    Z[:, chosen] = np.eye(len(chosen))
    return Z


def _sketches(a: Operand, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S A with rows enough for least squares, T S A with fewer, enough to pivot on, and G A for an independent G.

    S A is A where that has no more rows.
    """
    m, few = a.shape[0], count + max(10, count // 4)
    explicit = isinstance(a, DenseOperand | SparseOperand)
    rows = (_ROWS if explicit else _OPERATOR_ROWS) * count + 10
    words = random_words(np.array([_SKETCH, _ERROR, _PIVOTS], np.uint64), count, _STREAM, seed)[:, 0]
    G = Gaussian().sample(_ERROR_ROWS, m, rng=int(words[1]))
    if m <= rows:
        given: Any = a.A if explicit else a.adjoint_times(np.eye(m, dtype=a.dtype)).conj().T
        Y = given.toarray() if sp.issparse(given) else np.asarray(given)
        probe = (G @ Y) * math.sqrt(_ERROR_ROWS)
    elif explicit:
        family = BlockSRHT() if isinstance(a, DenseOperand) else SparseStack()
        a.passes += 2
        Y, probe = family.sample(rows, m, rng=int(words[0])) @ a.A, (G @ a.A) * math.sqrt(_ERROR_ROWS)
    else:
        S = Gaussian().sample(rows, m, rng=int(words[0]))
        both = np.concatenate([S.to_dense(), G.to_dense() * math.sqrt(_ERROR_ROWS)])
        images = a.adjoint_times(np.ascontiguousarray(both.T)).conj().T
        Y, probe = images[:rows], images[rows:]
    if not (np.isfinite(Y).all() and np.isfinite(probe).all()):
        raise ValueError(f"{a.name} must be finite; got NaN or infinite products")
    few = min(few, len(Y))
    return Y, Gaussian().sample(few, len(Y), rng=int(words[2])) @ Y if few < len(Y) else Y, probe


def _pivoted(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R and the pivots of QR with column pivoting of a wide Y."""
    if not Y.size:
        return np.zeros((0, Y.shape[1]), Y.dtype), np.arange(Y.shape[1])
    (geqp3,) = lapack.get_lapack_funcs(("geqp3",), (Y,))
    n = Y.shape[1]
    factored, pivots, *_ = geqp3(np.array(Y, order="F"), lwork=2 * n + 64 * (n + 1), overwrite_a=1)
    return np.triu(factored[: min(Y.shape)]), np.asarray(pivots, np.int64) - 1


def _enough(R: np.ndarray, limit: float) -> int:
    """The fewest columns with no more than this left in the others."""
    squares = np.cumsum(np.vecdot(R, R).real[::-1])[::-1]
    return int(np.count_nonzero(squares > limit**2))


def _by_sampling(found: _Found, Y: np.ndarray, count: int, seed: int) -> None:
    Q, T = scipy.linalg.qr(Y.conj().T.astype(np.result_type(Y.dtype, np.float64)), mode="economic", check_finite=False)
    U, sigma, _ = scipy.linalg.svd(T, check_finite=False)
    rank = int(np.count_nonzero(sigma > 10 * found.eps * sigma[0]))
    found.exhausted = rank < count
    V = np.ascontiguousarray(Q @ U[:, : min(count, rank)])
    found.indices = projection_sample(Rows(V), None, np.vecdot(V, V).real, V.shape[1], seed)
    found.coefficients = _combinations(Y, found.indices)
    found.relative = found.error() * found.unit / found.size


def _exact(a: Operand, found: _Found) -> float:
    """Norm of the difference. One or two passes."""
    C = a.take_columns(found.indices)
    if not isinstance(a, AdjointOperand):  # which counts in its base
        a.passes += 1

    def left() -> Iterator[np.ndarray]:
        for i, block in _blocks(a):
            yield block - product(np.ascontiguousarray(C[i : i + len(block)]), found.coefficients)

    return norm_of(left(), a.name)


def _blocks(a: Operand) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _CHUNK // max(1, a.shape[1]))
    if isinstance(a, AdjointOperand):
        for j in range(0, a.shape[0], step):
            yield j, a.take_rows(np.arange(j, min(j + step, a.shape[0])))
        return
    for start, block in a.A if isinstance(a, BlocksOperand) else [(0, a.A)]:
        for i in range(0, block.shape[0], step):
            part = block[i : i + step]
            yield start + i, part.toarray() if sp.issparse(part) else np.asarray(part)
