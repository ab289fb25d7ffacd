"""Low-rank approximation of positive semidefinite matrices from products alone: `nystrom`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .. import _check
from ..result import HasStatus
from . import _psd_shifted
from ._operand import Operand, operand
from ._psd_nystrom import Approximation, Sketch
from .result import LowRankStatus, LowRankWarning

_FIRST = 32  # test vectors that a tolerance is first tried with


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NystromResult(HasStatus):
    """A ~ U diag(eigenvalues) U^H with 0 <= U diag(eigenvalues) U^H <= A; unpacks as `U, eigenvalues`.

    Attributes
    ----------
    U : ndarray (n, k)
        Orthonormal columns, in the dtype of A.
    eigenvalues : ndarray (k,)
        Descending, not negative; each at most that of A.
    error : float
        Estimate of ||A - U diag(eigenvalues) U^H||_F: the root of the squared leave-one-out error (Epperly, Tropp 2024; of one
        test vector less, so too large rather than too small) and the squares of the eigenvalues cut off. Zero where all of
        A was seen and none was cut off; inf for status NOT_POSITIVE.
    relative_error : float
        error / (estimate of ||A||_F).
    trace_error : float
        Estimate of trace(A - U diag(eigenvalues) U^H), in the same way.
    rank : int
        Eigenvalues that are not rounding errors.
    n_samples : int
        Products A x that were made.
    passes : int
        Reads of A.
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    U: np.ndarray
    eigenvalues: np.ndarray
    error: float
    relative_error: float
    trace_error: float
    rank: int
    n_samples: int
    passes: int
    seed: int
    status: LowRankStatus
    notes: str = ""

    def preconditioner(self, ridge: float) -> LinearOperator:
        """P^-1 = (l_k + ridge) U (diag(eigenvalues) + ridge I)^-1 U^H + (I - U U^H) for A + ridge I, l_k the last eigenvalue
        (Frangella, Tropp, Udell 2023). Raises ValueError unless ridge > 0."""
        tail = float(self.eigenvalues[-1]) if len(self.eigenvalues) else 0.0
        return _psd_shifted.preconditioner(self.U, self.eigenvalues, ridge, tail)

    def solve(self, b: Any, ridge: float) -> np.ndarray:
        """(U diag(eigenvalues) U^H + ridge I)^-1 b for b of shape (n,) or (n, k) and ridge > 0."""
        return _psd_shifted.solve(self.U, self.eigenvalues, ridge, b)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.U, self.eigenvalues))

    def __repr__(self) -> str:
        names = ("message", "rank", "error", "relative_error", "trace_error", "n_samples", "passes", "seed")
        rows = [f"{name:>14}: {getattr(self, name)}" for name in names]
        return "\n".join([*rows, f"{'eigenvalues':>14}: {np.array2string(self.eigenvalues, threshold=8)}"])


def nystrom(
    A: Any, k: int | None = None, *, n_oversamples: int = 10, tol: float | None = None, rng: Any = None
) -> NystromResult:
    """Randomized Nystrom approximation of a positive semidefinite A from one pass of products A X with Gaussian X.

    (A X) (X^H A X)^-1 (A X)^H, computed with a shift against rounding errors (Tropp, Yurtsever, Udell, Cevher 2017) and cut to
    rank k. Never above A in the order of semidefinite matrices; with l = k + n_oversamples products the expected trace of
    the error, before the cut, is at most (1 + r / (l - r - 1)) times that of the best approximation of any rank r < l - 1.

    Parameters
    ----------
    A : array (n, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Hermitian and positive semidefinite, real or complex. Only its products with blocks of vectors are used.
    k : int, optional
        The rank, or n where that is smaller. None, which needs `tol`: the smallest one found to reach it.
    n_oversamples : int
        Products beyond k.
    tol : float, optional
        Double the number of products until `relative_error` <= tol or, with k, until k + n_oversamples were made. The rank
        is then the smallest that suffices.
    rng : None | int | SeedSequence | BitGenerator | Generator (SPEC 7)

    Returns
    -------
    NystromResult
        Where half of n products would be needed, all of A is formed and given to LAPACK: status LAPACK.

    Raises
    ------
    TypeError
        For unsupported types and dtypes.
    ValueError
        For arguments out of range, A that is not square or seen not to be Hermitian, and products that are not finite.

    Warns
    -----
    LowRankWarning
        Where A is seen not to be positive semidefinite (status NOT_POSITIVE, with the curvature x^H A x / x^H x that shows
        it), or `tol` is not reached.
    """
    op = hermitian_operand(A)
    if k is None and tol is None:
        raise ValueError("k must be an integer where tol is not given; got None for both")
    size = op.shape[0] if k is None else min(_check.integer(k, "k", 1), op.shape[0])
    extra = _check.integer(n_oversamples, "n_oversamples", 0)
    goal = None if tol is None else _check.real(tol, "tol")
    sketch = Sketch(op, _check.seed(rng))
    out = _fixed(sketch, size, extra) if goal is None else _adaptive(sketch, size, extra, goal)
    if not out.success:
        warnings.warn(out.message, LowRankWarning, stacklevel=2)
    return out


def hermitian_operand(A: Any) -> Operand:
    op = operand(A)
    if op.shape[0] != op.shape[1]:
        raise ValueError(f"A must be square; got shape {op.shape}")
    return op


def _fixed(sketch: Sketch, k: int, extra: int) -> NystromResult:
    found = sketch.approximation(min(k + extra, sketch.operand.shape[0]))
    status, notes = outcome(found)
    out = cut(found, k, sketch, status, notes)
    if status is LowRankStatus.RANK_REACHED and out.rank < k:
        return dataclasses.replace(out, status=LowRankStatus.EXACT, notes=f"Rank {out.rank} of {k} asked for.")
    return out


def _adaptive(sketch: Sketch, most: int, extra: int, tol: float) -> NystromResult:
    n = sketch.operand.shape[0]
    limit = min(most + extra, n)
    size = min(_FIRST, limit)
    while True:
        found = sketch.approximation(size)
        rank = _sufficient(found, tol, most)
        if rank is not None or size == limit or found.complete or found.negative:
            break
        size = min(2 * size, limit)
    status, notes = outcome(found)
    if not found.negative:
        status = LowRankStatus.TOLERANCE_NOT_REACHED if rank is None else LowRankStatus.TOLERANCE_REACHED
    return cut(found, most if rank is None else rank, sketch, status, notes)


def outcome(found: Approximation) -> tuple[LowRankStatus, str]:
    if found.negative:
        return LowRankStatus.NOT_POSITIVE, f"There is an x with x^H A x = {found.negative:.3g} x^H x."
    return (LowRankStatus.LAPACK if found.complete else LowRankStatus.RANK_REACHED), ""


def _tails(found: Approximation) -> np.ndarray:
    """Norms of the eigenvalues number k, k + 1, ... for every k."""
    values = found.values.astype(np.float64)
    top = float(values.max(initial=0.0)) or 1.0
    return top * np.sqrt(np.concatenate([np.cumsum(np.square(values[::-1] / top))[::-1], [0.0]]))


def _sufficient(found: Approximation, tol: float, most: int) -> int | None:
    """The smallest rank that is within the tolerance."""
    tails = _tails(found)
    enough = np.hypot(found.error, tails[: most + 1]) <= tol * math.hypot(found.error, tails[0])
    return int(np.argmax(enough)) if enough.any() else None


def cut(found: Approximation, k: int, sketch: Sketch, status: LowRankStatus, notes: str) -> NystromResult:
    """The approximation with k eigenvalues."""
    tails, values = _tails(found), found.values
    k = min(k, len(values))
    error, size = math.hypot(found.error, tails[k]), math.hypot(found.error, tails[0])
    noise = len(values) * float(np.finfo(values.dtype).eps) * float(values.max(initial=0.0))
    return NystromResult(
        U=np.ascontiguousarray(found.U[:, :k]),
        eigenvalues=values[:k].copy(),
        error=error,
        relative_error=error / size if 0 < size < math.inf else error and math.inf,
        trace_error=found.trace_error + float(values[k:].sum(dtype=np.float64)),
        rank=int(np.count_nonzero(values[:k] > noise)),
        n_samples=sketch.operand.shape[0] if found.complete else sketch.X.shape[1],
        passes=sketch.operand.passes,
        seed=sketch.seed,
        status=status,
        notes=notes,
    )
