"""lp regression: `lp_regression`."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._matrix import RowBlocks, argument, is_complex
from .._rows import Rows
from ..result import HasStatus, listed, rank_note
from ..sampling.rows import sample_rows
from ._interior import interior
from ._irls import Basis, Outcome, Problem, newton, norm
from .lewis import lewis_weights

_LEWIS_ACCURACY = 0.01  # of the weights that rows are sampled by
_LOOSEST = 1e-6  # the gap asked for float32 data


class LpWarning(UserWarning):
    """Numerical trouble in an lp regression: rank deficiency, stagnation, too few iterations."""


class LpStatus(enum.Enum):
    """How an lp regression ended. The value is the sentence shown to users."""

    CONVERGED = "The duality gap is as small as requested, or as rounding lets it be proved."
    EXACT = "b is in the range of A: the residual is zero up to rounding."
    SAMPLED = "Solved the problem of the sampled rows only, as asked; the gap is that on all rows."
    RANK_DEFICIENT = "A is numerically rank deficient: of the solutions of the truncated problem the shortest is returned."
    STAGNATED = "Progress stopped before the requested duality gap was reached; the best iterate is returned."
    ITERATION_LIMIT = "The iteration limit was reached before the requested duality gap; the best iterate is returned."

    @property
    def success(self) -> bool:
        """Whether the answer is what was asked for."""
        return self not in (LpStatus.STAGNATED, LpStatus.ITERATION_LIMIT)


@dataclasses.dataclass(repr=False)
class LpResult(HasStatus):
    """Solution of min ||A x - b||_p with its certificate.

    Attributes
    ----------
    x : ndarray (n,)
        The solution, in the dtype of the data.
    residual_norm : float
        ||A x - b||_p over all rows, of x before it was rounded to its dtype.
    gap : float
        Certificate: (residual_norm - bound) / residual_norm for a lower bound of ||A x - b||_p over all x: the smallest
        possible norm is at least (1 - gap) residual_norm. Of a residual that is rounding alone it says nothing.
    dual : ndarray (m,)
        The proof, y with A'y = 0 up to rounding and ||y||_q = 1, 1/p + 1/q = 1: ||A x - b||_p >= b'y for every x. What rounding
        leaves of A'y is taken from the bound.
    p : float
    rank : int
        Numerical rank of what was solved, A or its sample.
    iterations, passes : int
        Weighted least-squares problems; reads of A, the sampling included.
    sample_size : int or None
        How many rows were drawn.
    seed : int
        Replays the run: pass it as `rng`.
    status : LpStatus
    message : str
    success : bool
    history : list of dict
        One entry per iteration: iteration, time (seconds), residual_norm, gap, and mu (p < 2) or exponent (p >= 2).
    """

    x: np.ndarray
    residual_norm: float
    gap: float
    dual: np.ndarray
    p: float
    rank: int
    iterations: int
    passes: int
    sample_size: int | None
    seed: int
    status: LpStatus
    history: list[dict[str, Any]]
    notes: str = ""

    def __repr__(self) -> str:
        evidence = ("p", "residual_norm", "gap", "rank", "iterations", "passes", "sample_size", "seed")
        return listed(self, "message", "status", *evidence, "x")


def lp_regression(
    A: Any,
    b: Any,
    p: float,
    *,
    sample_size: int | None = None,
    tol: float | None = None,
    maxiter: int = 200,
    rng: Any = None,
) -> LpResult:
    """Solve min ||A x - b||_p for 1 <= p < inf, with a duality gap as certificate.

    Every iteration solves a weighted least-squares problem: for p >= 2 a Newton step with exact line search while the exponent
    grows to p (homotopy; cf. Adil, Peng, Sachdeva 2019), for p < 2 a step of a primal-dual interior method (Mehrotra 1992;
    Portnoy, Koenker 1997 at p = 1, where a vertex of the linear program follows). The Gram matrices are formed in a basis in
    which A has orthonormal columns, found from a sketch, so that their condition is that of the weights alone.

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix or RowBlocks
        Real: float32 or float64 (integers are converted to float64). Read in blocks, never copied. A list of 2-D arrays, or
        another iterable of blocks of rows that can be read again, is taken as RowBlocks.
    b : array (m,)
        Real.
    p : float
        At least 1, finite. Values in the thousands already find the solution for p = inf to a factor m^(1/p).
    sample_size : int
        Solve on a sample of about so many rows instead: row i is kept with probability proportional to its Lewis weight in
        [A b], at most 1, and weighted by the inverse (Cohen, Peng 2015). Of order n log(n) / eps^2 rows for p <= 2 and
        n^(p/2) log(n) / eps^2 for p > 2 give a norm within 1 + eps of the smallest with high probability. The gap of the result
        is valid for all rows but usually too large by far.
    tol : float
        Duality gap to reach; default 1e-10, for float32 1e-6. A gap of 4 eps cond(A), all that rounding lets be proved, is
        taken for success too.
    maxiter : int
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `result.seed` replays the run.

    Returns
    -------
    LpResult

    Warns
    -----
    LpWarning
        Rank deficiency, stagnation, iteration limit.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, complex ones and operators among them; ValueError for NaN or infinite entries.
    """
    a = argument(A)
    rhs = _check.array(b, "b")
    if not (isinstance(a, np.ndarray | RowBlocks) or sp.issparse(a)):
        raise TypeError(f"A must have rows to read: an array, a sparse matrix or RowBlocks; got {type(A).__name__}")
    for value, name in ((a, "A"), (rhs, "b")):
        if is_complex(value):
            raise TypeError(f"{name} must be real; got {value.dtype}")
    m, n = a.shape
    if rhs.shape != (m,):
        raise ValueError(f"b must have shape ({m},), as A has shape {tuple(a.shape)}; got {rhs.shape}")
    _check.finite(rhs, "b")
    p = _check.real(p, "p", low=1.0)
    dtype = np.result_type(a.dtype, rhs.dtype)
    tol = (1e-10 if dtype == np.float64 else _LOOSEST) if tol is None else _check.real(tol, "tol", strict=True)
    maxiter = _check.integer(maxiter, "maxiter", 1)
    if sample_size is not None:
        sample_size = _check.integer(sample_size, "sample_size", 1)
    seed = _check.seed(rng)

    # b of size one: nothing that is added up can overflow.
    unit = float(2.0 ** np.frexp(np.abs(rhs).max(initial=0.0))[1])
    scaled = rhs.astype(np.float64) / unit
    basis = Basis(a, seed) if n and m else None
    rank, passes, size = (0, 0, None) if basis is None else (basis.rank, basis.passes, None)
    if basis is None or not rank or not scaled.any():
        found = Outcome(np.zeros(n), scaled, _dual_of(scaled, p), norm(scaled, p), converged=True)
        found.bound, found.exact = found.objective, not found.objective
    elif sample_size is None or sample_size >= m:
        found, passes = _solve(basis, scaled, p, tol, maxiter), basis.passes
    else:
        found, size, rank, passes = _solve_sampled(basis, scaled, p, tol, maxiter, sample_size, seed)
    status, notes = _status(found, size is not None, maxiter), ""
    if basis is not None and rank < n:
        if rank < min(m, n):
            status = LpStatus.RANK_DEFICIENT if status.success else status
            notes = rank_note(rank, min(m, n), basis.cut)
        found.x = basis.minimum_norm(found.x)
    with np.errstate(over="ignore", invalid="ignore"):
        x = (found.x * unit).astype(dtype)
    if not np.isfinite(x).all():
        status, notes = LpStatus.STAGNATED, "Entries of the solution, or of what leads to it, are beyond the largest number."
    result = LpResult(
        x,
        found.objective * unit,
        found.gap,
        found.y,
        p,
        rank,
        found.iterations,
        passes,
        size,
        seed,
        status,
        [{**entry, "residual_norm": entry["residual_norm"] * unit} for entry in found.history],
        notes,
    )
    if not status.success or status is LpStatus.RANK_DEFICIENT:
        warnings.warn(result.message, LpWarning, stacklevel=2)
    return result


def _solve(basis: Basis, b: np.ndarray, p: float, tol: float, maxiter: int) -> Outcome:
    problem = Problem(basis, b, p, tol, maxiter)
    (newton if p >= 2 else interior)(problem)
    problem.settle()
    return problem.best


def _solve_sampled(
    basis: Basis, b: np.ndarray, p: float, tol: float, maxiter: int, size: int, seed: int
) -> tuple[Outcome, int, int, int]:
    """The solution on sampled rows with its objective and gap on all; the size and the rank of the sample, passes over A."""
    joined = _with_column(basis.a, b)
    weights = lewis_weights(joined, p, tol=_LEWIS_ACCURACY, rng=seed)
    index, multiplicity = sample_rows(weights, size, scheme="poisson", rng=seed)
    factors = multiplicity ** (1 / p)
    sample, target = Rows(basis.a).take(index) * factors[:, None], b[index] * factors
    found, rank = Outcome(np.zeros(basis.matrix.shape[1]), target, np.zeros(0), 0.0, converged=True), 0
    if len(index):
        inner = Basis(sample, seed)
        found, rank = _solve(inner, target, p, tol, maxiter), inner.rank
    whole = Problem(basis, b, p, tol, maxiter, found.x)
    y = _dual_of(whole.best.r, p)
    whole.project(whole.best.r, y, basis.adjoint(y))
    best = whole.best
    best.iterations, best.history, best.converged = found.iterations, found.history, found.converged or found.exact
    return best, len(index), rank, basis.passes + joined.reads + isinstance(basis.a, RowBlocks)


def _with_column(a: Any, b: np.ndarray) -> RowBlocks:
    """[A b], never held whole."""

    def read() -> Any:
        for i0, piece in Rows(a).pieces():
            column = b[i0 : i0 + piece.shape[0], None]
            yield sp.hstack([piece, column], format="csr") if sp.issparse(piece) else np.hstack([piece, column])

    return RowBlocks(read, shape=(a.shape[0], a.shape[1] + 1), dtype=np.float64)


def _dual_of(r: np.ndarray, p: float) -> np.ndarray:
    """y with y'r = ||r||_p and ||y||_q = 1."""
    y = np.sign(r) * (np.abs(r) / (np.abs(r).max(initial=0.0) or 1.0)) ** (p - 1)
    return y / (norm(y, p / (p - 1) if p > 1 else np.inf) or 1.0)


def _status(found: Outcome, sampled: bool, maxiter: int) -> LpStatus:
    if not (found.converged or found.exact):
        return LpStatus.ITERATION_LIMIT if found.iterations >= maxiter else LpStatus.STAGNATED
    return LpStatus.SAMPLED if sampled else LpStatus.EXACT if found.exact else LpStatus.CONVERGED
