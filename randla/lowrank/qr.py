"""QR with column pivoting of tall matrices, by a sketch and Cholesky: `qr`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from .. import _check, _cpu
from ..families import SparseStack
from ..result import HasStatus
from ._probes import sub_seed
from ._real_form import complex_gram, parts, real_form
from .result import LowRankStatus

_STREAM, _QR = 32, 2  # see docs/definitions.md
_OVERSAMPLED = 2  # rows of the sketch for every column: condition number 6 after the first step
_TALL = 4  # rows for every column from which on it pays
_SMALLEST = 1 << 16  # entries
_ROWS = 2048  # that triangular solves and Gram products share in the cache
_COND = 20  # above which one more Cholesky factorization is spent on orthogonality


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PivotedQRResult(HasStatus):
    """A[:, P] ~ Q R; unpacks as `Q, R, P`.

    Attributes
    ----------
    Q : ndarray (m, rank) or None
        Orthonormal columns, in the dtype and memory order of A; None for mode "r".
    R : ndarray (rank, n)
        Upper triangular, upper trapezoidal below full rank.
    P : ndarray (n,)
        The columns of A in the order of R: the first `rank` are a well-conditioned basis of the range.
    rank : int
        Numerical rank.
    method : str
        "sketched", or "lapack" where A is small or not tall, and where the sketch failed.
    corrections : int
        Cholesky factorizations: one, or two where one left the columns of Q less orthogonal.
    passes : int
        Reads of A.
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    Q: np.ndarray | None
    R: np.ndarray
    P: np.ndarray
    rank: int
    method: str
    corrections: int
    passes: int
    seed: int
    status: LowRankStatus
    notes: str = ""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.Q, self.R, self.P))

    def __repr__(self) -> str:
        shapes = f"R {self.R.shape}" if self.Q is None else f"Q {self.Q.shape}, R {self.R.shape}"
        return f"PivotedQRResult({shapes}, rank={self.rank}, method={self.method!r}, seed={self.seed}, {self.status.name})"


def qr(
    A: Any, *, pivoting: bool = True, mode: str = "economic", rcond: float | None = None, rng: Any = None
) -> PivotedQRResult:
    """Economic QR factorization with column pivoting, A[:, P] = Q R, up to the numerical rank.

    For tall A: pivots and a first R by LAPACK's pivoted QR of a sketch; then Cholesky QR of A[:, P] R^-1, whose condition
    number is about 6 whatever that of A is (CQRRPT of Melnichenko, Balabanov, Murray, Demmel, Mahoney, Luszczek 2023). All of
    the work on A is in products of blocks, 3 m n^2 operations. Q is orthonormal and Q R close to A[:, P] as those of LAPACK
    are; the diagonal of R falls like theirs up to the distortion of the sketch.

    Parameters
    ----------
    A : array (m, n)
        float32, float64, complex64 or complex128; any strides. Not changed.
    pivoting : bool
        False keeps the order of the columns: P is 0, ..., n - 1. Deficient rank is then left to LAPACK, not cut.
    mode : {"economic", "r"}
        "r" leaves out Q: two thirds of the operations, and no array of the size of A.
    rcond : float
        The rank ends before the first pivot of the sketch that is at most rcond times the largest; default
        max(10, sqrt(m) / 50) eps.
    rng : as in SPEC 7

    Returns
    -------
    PivotedQRResult

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments, sparse matrices among them; NaN or infinite entries.
    """
    a = _check.array(A, "A")
    if a.ndim != 2:
        raise ValueError(f"A must have 2 dimensions; got {a.ndim}")
    if mode not in ("economic", "r"):
        raise ValueError(f"mode must be 'economic' or 'r'; got {mode!r}")
    m, n = a.shape
    eps, keep = float(np.finfo(a.dtype).eps), mode == "economic"
    cut = max(10.0, math.sqrt(m) / 50) * eps if rcond is None else max(_check.real(rcond, "rcond"), eps)
    seed = _check.seed(rng)
    if m < _TALL * n or a.size < _SMALLEST:
        return _by_lapack(a, pivoting, keep, cut, seed, "")
    sketched = SparseStack().sample(_OVERSAMPLED * n, m, rng=sub_seed(_QR, _STREAM, seed)) @ a
    _require_finite(sketched, a)
    R, P = _triangle(sketched, pivoting)
    rank = _rank(R, cut)
    if rank < n and not pivoting:
        return _by_lapack(a, pivoting, keep, cut, seed, "Columns depend on each other.")
    Q, G = _divided(a, P[:rank], R, keep=keep)
    C, R, corrections, passes = _cholesky(G), R[:rank], 1, 2
    if C is not None and _pivot_ratio(C) > _COND:
        if Q is None:
            Q, passes = _divided(a, P[:rank], R)[0], 3
        assert Q is not None
        R = _times(C, R)
        Q, G = _divided(Q, np.arange(rank), C, Q)
        C, corrections = _cholesky(G), 2
    if C is None or _pivot_ratio(C) > _COND:
        return _by_lapack(a, pivoting, keep, cut, seed, "The sketch lost a direction of A.")
    if keep and Q is not None:
        _solve(Q, np.arange(rank), C, Q)
    found = _times(C, R), P, rank, "sketched", corrections, passes, seed, LowRankStatus.EXACT
    return PivotedQRResult(Q if keep else None, *found)


def _require_finite(probe: np.ndarray, a: np.ndarray) -> None:
    """A sum of NaN or infinite numbers is not finite: a sketch or a factor shows whether A is."""
    if not np.isfinite(probe).all():
        _check.finite(a, "A")


def _triangle(S: np.ndarray, pivoting: bool) -> tuple[np.ndarray, np.ndarray]:
    """R (n, n) and the pivots of a QR factorization of a tall S, in Fortran order; pivoting on the R of a plain one, which has
    the same pivots and half the rows."""
    n = S.shape[1]
    geqrf, geqp3 = lapack.get_lapack_funcs(("geqrf", "geqp3"), (S,))
    R = np.asfortranarray(np.triu(geqrf(np.asfortranarray(S), lwork=64 * max(n, 1), overwrite_a=1)[0][:n]))
    if not pivoting:
        return R, np.arange(n)
    factored, pivots = _geqp3(geqp3, R)
    return np.asfortranarray(np.triu(factored)), pivots


def _geqp3(geqp3: Any, M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    factored, pivots, *_ = geqp3(M, lwork=_workspace(M.shape[1]), overwrite_a=1)
    return factored, np.asarray(pivots, np.int64) - 1


def _workspace(n: int) -> int:
    return 2 * n + 64 * (n + 1)


def _rank(R: np.ndarray, cut: float) -> int:
    pivots = np.abs(R.diagonal())
    small = np.flatnonzero(~(pivots > cut * pivots.max(initial=0.0)))
    return int(small[0]) if len(small) else len(pivots)


def _divided(
    a: np.ndarray, columns: np.ndarray, R: np.ndarray, out: np.ndarray | None = None, *, keep: bool = True
) -> tuple[np.ndarray | None, np.ndarray]:
    """Q = A[:, columns] R^-1, in Fortran order where A is, and Q^H Q in float64 or complex128. out may be A.

    Without `keep`, None for Q, of which only some rows at a time exist.
    """
    m, k = a.shape[0], len(columns)
    order: Any = "F" if abs(a.strides[0]) < abs(a.strides[1]) else "C"
    Q = np.empty((m if keep else min(m, _ROWS), k), a.dtype, order=order) if out is None else out
    width = 2 * k if a.dtype.kind == "c" else k
    G = np.zeros((width, width))
    for i in range(0, m, _ROWS):
        rows = a[i : i + _ROWS]
        block = Q[i : i + _ROWS] if keep else Q[: len(rows)]
        _solve(rows, columns, R, block)
        if k:
            _cpu.gram(parts(block), None, False, None, None, G)
    return Q if keep else None, complex_gram(G) if a.dtype.kind == "c" else G


def _solve(a: np.ndarray, columns: np.ndarray, R: np.ndarray, out: np.ndarray) -> None:
    """out = A[:, columns] R^-1. A kernel of our own, as threads of a BLAS would wait busily while columns are gathered."""
    if out.size:
        k = len(columns)
        _cpu.solve_right(real_form(R[:k, :k].T.astype(a.dtype, copy=False)), columns, a, out)


def _cholesky(G: np.ndarray) -> np.ndarray | None:
    """Upper triangular, in Fortran order; None where G is not positive definite within rounding."""
    (potrf,) = lapack.get_lapack_funcs(("potrf",), (G,))
    C, info = potrf(G, lower=0, clean=1)
    if info or not np.isfinite(C.diagonal()).all():
        return None
    return C


def _pivot_ratio(C: np.ndarray) -> float:
    """Of the largest to the smallest pivot of a triangle: about its condition number where that is moderate."""
    pivots = np.abs(C.diagonal())
    return float(pivots.max(initial=0.0) / pivots.min()) if len(pivots) else 1.0


def _times(C: np.ndarray, R: np.ndarray) -> np.ndarray:
    """C R of an upper triangle and an upper trapezoid."""
    if not R.size:
        return R.copy()
    trmm = blas.get_blas_funcs("trmm", (R,))
    return np.triu(trmm(1.0, C.astype(R.dtype), R))


def _by_lapack(a: np.ndarray, pivoting: bool, keep: bool, cut: float, seed: int, notes: str) -> PivotedQRResult:
    m, n = a.shape
    k = min(m, n)
    geqrf, geqp3, orgqr = lapack.get_lapack_funcs(("geqrf", "geqp3", "ungqr" if a.dtype.kind == "c" else "orgqr"), (a,))
    factored, P = np.array(a, order="F"), np.arange(n)
    tau = np.zeros(0, a.dtype)
    if k and pivoting:
        factored, pivots, tau, *_ = geqp3(factored, lwork=_workspace(n), overwrite_a=1)
        P = np.asarray(pivots, np.int64) - 1
    elif k:
        factored, tau, *_ = geqrf(factored, lwork=64 * n, overwrite_a=1)
    _require_finite(factored, a)
    R = np.triu(factored[:k])
    rank = _rank(R, cut) if pivoting else k
    if not keep:
        return PivotedQRResult(None, R[:rank], P, rank, "lapack", 0, 1, seed, LowRankStatus.LAPACK, notes)
    Q = factored[:, :k].copy(order="F")
    if k:
        Q = orgqr(Q, tau[:k], lwork=64 * k, overwrite_a=1)[0]
    if not abs(a.strides[0]) < abs(a.strides[1]):
        Q = np.ascontiguousarray(Q[:, :rank])
    return PivotedQRResult(Q[:, :rank], R[:rank], P, rank, "lapack", 0, 1, seed, LowRankStatus.LAPACK, notes)
