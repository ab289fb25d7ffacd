"""Randomly pivoted partial Cholesky factorization of positive semidefinite matrices: `rpcholesky`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
from scipy.linalg import blas
from scipy.sparse.linalg import LinearOperator

from .. import _check, _cpu
from ..result import HasStatus
from . import _psd_shifted
from ._psd_entries import Entries, entries
from ._psd_pivots import METHODS
from ._real_form import real_form, small_gram
from .result import LowRankStatus, LowRankWarning

_LEAST, _MOST = 16, 160  # candidates at a time where the block is "auto"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CholeskyResult(HasStatus):
    """Partial Cholesky factorization A ~ F F^H of rank k; 0 <= F F^H <= A, and the columns of A at the pivots are exact.

    Attributes
    ----------
    F : ndarray (n, k)
        In Fortran order, in the dtype of A. F[pivots] is lower triangular.
    pivots : ndarray (k,), int64
        The chosen rows in the order of their choice.
    residual_diagonal : ndarray (n,)
        Diagonal of A - F F^H in float64, not negative.
    error : float
        trace(A - F F^H), not an estimate, and a bound of its spectral and Frobenius norms; inf for status
        NOT_POSITIVE.
    relative_error : float
        error / trace(A).
    trace : float
        trace(A).
    rank : int
        k.
    method : str
    rounds, proposals : int
        Updates of the residual, and candidates that were looked at for them.
    evaluations : int
        Entries of A that were asked for: (k + 1) n and those among candidates.
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    F: np.ndarray
    pivots: np.ndarray
    residual_diagonal: np.ndarray
    error: float
    trace: float
    method: str
    rounds: int
    proposals: int
    evaluations: int
    seed: int
    status: LowRankStatus
    notes: str = ""
    _entries: Entries | None = None

    @property
    def rank(self) -> int:
        return self.F.shape[1]

    @property
    def relative_error(self) -> float:
        return self.error / self.trace if self.trace else 0.0

    def features(self, X: Any) -> np.ndarray:
        """Rows that extend F to new points: F_new F^H has their values with the pivots exactly (Nystrom extension).

        Parameters
        ----------
        X : array or CSR/CSC matrix (m, d)
            Points, where A was given by points and a kernel. Else (m, k): the values of the new points with the pivots.

        Returns
        -------
        ndarray (m, k)

        Raises
        ------
        TypeError, ValueError
            For X that does not fit.
        """
        if self._entries is None:
            raise ValueError("features must be asked of a result that was not pickled")
        cross = self._entries.cross(X, self.pivots)
        dtype = np.result_type(self.F.dtype, cross.dtype if cross.dtype.kind == "c" else self.F.dtype)
        if not cross.size:
            return np.zeros(cross.shape, dtype)
        out = np.array(cross, dtype, order="C")
        L = np.asfortranarray(self.F[self.pivots], dtype=dtype)
        # Rows f with f L^H = values, that is conj(L) f' = values' for columns.
        return blas.get_blas_funcs("trsm", dtype=dtype)(1.0, L.conj(), out.T, lower=1, overwrite_b=1).T

    def eigh(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (k,), descending, and orthonormal eigenvectors (n, k) of F F^H."""
        return _psd_shifted.eigen_of_factor(self.F)

    def solve(self, b: Any, ridge: float) -> np.ndarray:
        """(F F^H + ridge I)^-1 b for b of shape (n,) or (n, k) and ridge > 0."""
        values, U = self.eigh()
        return _psd_shifted.solve(U, values, ridge, b)

    def preconditioner(self, ridge: float) -> LinearOperator:
        """ridge (F F^H + ridge I)^-1 as a LinearOperator, a preconditioner for A + ridge I (Diaz, Epperly, Frangella, Tropp,
        Webber 2023)."""
        values, U = self.eigh()
        return _psd_shifted.preconditioner(U, values, ridge, 0.0)

    def __repr__(self) -> str:
        names = ("message", "rank", "error", "relative_error", "method", "rounds", "proposals", "evaluations", "seed", "pivots")
        return "\n".join(f"{name:>14}: {_shown(getattr(self, name))}" for name in names)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _entries=None)  # which would carry A


def rpcholesky(
    A: Any,
    k: int | None = None,
    *,
    tol: float | None = None,
    method: str = "accelerated",
    block: int | str = "auto",
    kernel: Any = None,
    gamma: float | None = None,
    rng: Any = None,
) -> CholeskyResult:
    """Randomly pivoted partial Cholesky factorization A ~ F F^H of a positive semidefinite matrix, from k of its rows.

    Pivots are drawn with probabilities proportional to the diagonal of the residual A - F F^H. With k >= r / eps +
    r log(1 / (eps eta)) of them the expected trace of the residual is at most 1 + eps times that of the best approximation of
    rank r, eta being the latter relative to trace(A) (Chen, Epperly, Tropp, Webber 2023). (k + 1) n entries of A and n k^2
    operations.

    Parameters
    ----------
    A : array or CSR/CSC matrix (n, n), or any object with `shape` and entries A[rows, columns] at two broadcast index arrays
        Hermitian and positive semidefinite, real or complex. With `kernel`, an array or CSR/CSC matrix (n, d) of points.
    k : int, optional
        Columns of F: at most n, and fewer where the residual is zero before. None, which needs `tol`: as many as it takes.
    tol : float, optional
        Stop when trace(A - F F^H) <= tol trace(A).
    method : {"accelerated", "block", "simple", "greedy"}
        "accelerated" draws candidates by the block and takes or rejects each, which gives the same law as drawing pivots one
        by one, with matrix products (Epperly, Tropp, Webber 2024). "block" takes all candidates of a block but those that
        resemble others (robust block pivoting; Dong, Chen, Martinsson, Pearce 2023): the fastest, at about equal quality.
        "simple" draws one by one. "greedy" takes the largest diagonal entry of the residual each time (complete pivoting), by
        the block where that cannot change the choice; not random, and misled by outliers.
    block : int or "auto"
        Candidates at a time.
    kernel : "linear", "rbf", "laplacian" or callable, optional
        <x, y>; exp(-gamma ||x - y||^2); exp(-gamma ||x - y||_1), where complex coordinates count as two real ones; or a
        function of two matrices of points that gives the (n1, n2) block of their values. An attribute `diag` of it is asked for
        the diagonal.
    gamma : float, optional
        For "rbf" and "laplacian"; 1 / d where it is not given.
    rng : None | int | SeedSequence | BitGenerator | Generator (SPEC 7)

    Returns
    -------
    CholeskyResult

    Raises
    ------
    TypeError
        For unsupported types and dtypes.
    ValueError
        For arguments out of range, entries that are NaN or infinite, and A seen not to be Hermitian.

    Warns
    -----
    LowRankWarning
        Where A is seen not to be positive semidefinite (status NOT_POSITIVE, with the entry that shows it; the columns so far
        are returned), or `tol` is not reached.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if k is None and tol is None:
        raise ValueError("k must be an integer where tol is not given; got None for both")
    size = None if k is None else _check.integer(k, "k", 1)
    goal = None if tol is None else _check.real(tol, "tol")
    if not (isinstance(block, str) and block == "auto"):
        block = _check.integer(block, "block", 1)
    source = entries(A, kernel, gamma)
    run = _Run(source, size, goal, method, None if isinstance(block, str) else block, _check.seed(rng))
    out = run.result(method)
    if not out.success:
        warnings.warn(out.message, LowRankWarning, stacklevel=2)
    return out


def _shown(value: Any) -> str:
    return np.array2string(value, threshold=8) if isinstance(value, np.ndarray) else str(value)


class _Run:
    """H = F^H grows by rows, so that each block of columns of F is one product and one triangular solve in place."""

    def __init__(self, source: Entries, k: int | None, tol: float | None, method: str, block: int | None, seed: int):
        self.source, self.tol, self.seed = source, tol, seed
        self.propose, self.choose = METHODS[method]
        self.asked = k
        self.most = source.n if k is None else min(k, source.n)
        self.block = 1 if method == "simple" else block
        self.first = source.diagonal()
        self.trace = float(self.first.sum())
        self.d = self.first.copy()
        self.H = np.empty((self.most if k is not None else min(self.most, 64), source.n), source.dtype)
        self.pivots = np.zeros(0, np.int64)
        self.rounds = self.proposals = 0
        self.negative = ""
        self._clean(np.abs(self.first))

    def result(self, method: str) -> CholeskyResult:
        size = self.block or min(_MOST, max(_LEAST, self.most // 4))
        while not self.negative and len(self.pivots) < self.most and not self._reached() and self.open.any():
            taken = self._round(size)
            if self.block is None:
                # Where most candidates are rejected, the matrix among them is wasted.
                size = min(2 * size, _MOST) if 2 * taken >= size else max(size // 2, _LEAST) if 8 * taken < size else size
        k = len(self.pivots)
        H = self.H[:k] if k == len(self.H) else self.H[:k].copy()
        if H.dtype.kind == "c":
            np.conj(H, out=H)
        status, notes = self._status()
        return CholeskyResult(
            H.T,
            self.pivots,
            self.d,
            math.inf if self.negative else float(self.d.sum()),
            self.trace,
            method,
            self.rounds,
            self.proposals,
            self.source.evaluations,
            self.seed,
            status,
            notes,
            self.source,
        )

    def _reached(self) -> bool:
        return self.tol is not None and float(self.d.sum()) <= self.tol * self.trace

    def _status(self) -> tuple[LowRankStatus, str]:
        k, n = len(self.pivots), self.source.n
        if self.negative:
            return LowRankStatus.NOT_POSITIVE, self.negative
        if not self.open.any():
            return LowRankStatus.EXACT, f"Rank {k} of {n}."
        if self._reached():
            return LowRankStatus.TOLERANCE_REACHED, ""
        if self.tol is not None:
            left = f"trace(A - F F^H) is {float(self.d.sum()) / self.trace:.2g} of trace(A) after {k} columns."
            return LowRankStatus.TOLERANCE_NOT_REACHED, left
        return LowRankStatus.RANK_REACHED, ""

    def _round(self, size: int) -> int:
        """Candidates, a choice among them, and their columns; returns how many."""
        source, k = self.source, len(self.pivots)
        proposal = self.propose(self.open, size, self.rounds, self.seed)
        rows = proposal.rows
        core = source.block(rows)
        if source.dtype.kind == "c" and self.H.dtype.kind != "c":
            self.H = self.H.astype(source.dtype)
        images = self.H[:k, rows].astype(core.dtype)
        core = core - small_gram(images)
        np.fill_diagonal(core, self.open[rows])
        chosen, L = self.choose(proposal, core, self._floor()[rows], self.most - k)
        self._append(rows[chosen], images[:, chosen], L)
        self.rounds += 1
        self.proposals += len(proposal.draws)
        return len(chosen)

    def _append(self, rows: np.ndarray, images: np.ndarray, L: np.ndarray) -> None:
        """H gets L^-1 (A[rows] - F[rows] H) as new rows."""
        k, m = len(self.pivots), len(rows)
        if k + m > len(self.H):
            grown = np.empty((min(self.most, max(2 * len(self.H), k + m)), self.source.n), self.H.dtype)
            grown[:k] = self.H[:k]
            self.H = grown
        # A kernel of our own: threads of a BLAS would wait busily while the entries are made.
        factor = real_form(np.hstack([images.conj().T, L]).astype(self.H.dtype))
        gone = np.zeros(self.source.n)
        for part in self.source.strips(rows, self.H[k : k + m]):
            _cpu.eliminate(factor, self.H[: k + m, part], gone[part])
        if self.tol is not None and float((self.d - gone).sum()) <= self.tol * self.trace:
            gone, m = np.zeros(self.source.n), 0
            while m < len(rows) and not float((self.d - gone).sum()) <= self.tol * self.trace:
                gone += np.square(np.abs(self.H[k + m]), dtype=np.float64)
                m += 1
        self.pivots = np.concatenate([self.pivots, rows[:m]])
        self.d -= gone
        self.d[self.pivots] = 0.0
        if not np.isfinite(self.d).all():
            raise ValueError(f"{self.source.what} must be finite; got NaN or infinite values")
        self._clean(self.first)

    def _floor(self) -> np.ndarray:
        """What rounding may leave of a diagonal entry that is zero: subtracting squares adds up to about eps of its first size,
        and the entries of F have errors of that kind themselves."""
        return 2 * self.source.eps * max(16, len(self.pivots)) * self.first

    def _clean(self, size: np.ndarray) -> None:
        """Zero for negative values; those that rounding errors cannot explain are noted as evidence."""
        worst = int(np.argmin(self.d + self.source.eps**0.5 * size)) if len(size) else 0
        if len(size) and self.d[worst] < -(self.source.eps**0.5) * size[worst]:
            what = f"A[{worst}, {worst}] = {self.first[worst]:.3g}"
            self.negative = f"{what} is {self.d[worst]:.3g} after projection." if len(self.pivots) else f"{what}."
        np.maximum(self.d, 0.0, out=self.d)
        self.open = np.where(self.d > self._floor(), self.d, 0.0)  # rows that pivots may be drawn from
