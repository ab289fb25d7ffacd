"""Sparse regression: `lasso`, `lasso_path`, `basis_pursuit` and `omp`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from ._columns import Columns
from ._coordinate import LassoProblem, Outcome
from ._homotopy import Pursuit, by_least_squares, by_linear_program, pursue, with_even_rows
from ._matching import Matching
from ._sparse_result import BasisPursuitResult, LassoPath, LassoResult, OmpResult, SparseStatus
from .result import LearnWarning

_HUGE = 1e300
_GAP_OF_LP = 1e-7  # that the tolerances of HiGHS allow
_FLOOR = 1e-15  # share of ||b||^2 below which a gap is rounding alone


def lasso(
    A: Any,
    b: Any,
    alpha: float,
    *,
    fit_intercept: bool = False,
    positive: bool = False,
    tol: float | None = None,
    maxiter: int = 1000,
    x0: Any = None,
) -> LassoResult:
    """Minimize ||b - A x||^2 / (2 m) + alpha ||x||_1, with a duality gap as certificate.

    Working sets (Massias, Gramfort, Salmon 2018): on a few columns, given by their Gram matrix, coordinate descent alternates
    with Newton steps on the face of the signs it has found; the duality gap on all columns costs one read of A, and the columns
    that break the optimality conditions most join the set. Where coordinate descent is slow, the path of the lasso is followed
    instead (Osborne, Presnell, Turlach 2000). The same bits for any number of threads.

    Parameters
    ----------
    A : array (m, n) or CSR/CSC matrix
        Real: float32 or float64 (integers are converted to float64).
    b : array (m,)
        Real.
    alpha : float
        Greater than 0. From max |A'b| / m on, x is zero.
    fit_intercept : bool
        Add a constant without penalty. A sparse A stays sparse.
    positive : bool
        Over x >= 0 only.
    tol : float
        Duality gap to reach, relative to ||b||^2 / m (of centred b with an intercept); default 1e-10, for float32 1e-6.
    maxiter : int
        Looks at all columns.
    x0 : array (n,)
        Start, such as the solution for a near alpha.

    Returns
    -------
    LassoResult

    Warns
    -----
    LearnWarning
        Stagnation, iteration limit, a solution beyond the range of its dtype.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, complex ones and operators among them; ValueError for NaN or infinite entries.
    """
    task = _LassoTask(A, b, fit_intercept, positive, tol, maxiter)
    alpha = _check.real(alpha, "alpha", strict=True)
    if x0 is not None:
        start = _check.vector(x0, "x0", task.shape[1])
        if positive and start.min(initial=0.0) < 0:
            raise ValueError(f"x0 must not be negative with positive=True; got {start.min():g}")
        task.start(start)
    return _warned(task.solve(alpha))


def lasso_path(
    A: Any,
    b: Any,
    alphas: Any = None,
    *,
    n_alphas: int = 100,
    eps: float = 1e-3,
    fit_intercept: bool = False,
    positive: bool = False,
    tol: float | None = None,
    maxiter: int = 1000,
) -> LassoPath:
    """Solve the lasso for several alphas, each from the solution before.

    Parameters
    ----------
    A, b, fit_intercept, positive, tol, maxiter : as for `lasso`
    alphas : array (k,)
        In any order; greater than 0. By default n_alphas of them, from the smallest that leaves x zero down to eps times that,
        evenly on a logarithmic scale.
    n_alphas : int
    eps : float
        Between 0 and 1.

    Returns
    -------
    LassoPath

    Warns
    -----
    LearnWarning
        As `lasso`, for the first alpha that has trouble.

    Raises
    ------
    TypeError, ValueError
    """
    task = _LassoTask(A, b, fit_intercept, positive, tol, maxiter)
    if alphas is None:
        n_alphas = _check.integer(n_alphas, "n_alphas", 1)
        eps = _check.real(eps, "eps", strict=True)
        if eps > 1:
            raise ValueError(f"eps must be at most 1; got {eps:g}")
        chosen = task.largest_alpha() * np.geomspace(1.0, eps, n_alphas)
        chosen = chosen if chosen[-1] > 0 else np.ones(n_alphas)  # x is zero for any
    else:
        chosen = _check.real_array(alphas, "alphas").astype(np.float64)
        if chosen.ndim != 1:
            raise ValueError(f"alphas must have 1 dimension; got {chosen.ndim}")
        _check.finite(chosen, "alphas")
        if chosen.size and chosen.min() <= 0:
            raise ValueError(f"alphas must be greater than 0; got {chosen.min():g}")
        chosen = np.sort(chosen)[::-1].copy()
    results = [task.solve(float(alpha)) for alpha in chosen]
    for result in results:
        if not result.success:
            _warned(result)
            break
    x = np.zeros((task.shape[1], len(results)), task.dtype)
    for i, result in enumerate(results):
        x[:, i] = result.x
    intercept, objective, gap = np.array([(r.intercept, r.objective, r.gap) for r in results]).reshape(-1, 3).T
    return LassoPath(chosen, x, intercept, objective, gap, results)


def basis_pursuit(A: Any, b: Any, *, tol: float | None = None) -> BasisPursuitResult:
    """Minimize ||x||_1 subject to A x = b, with a dual point as certificate.

    The path of the lasso (Osborne, Presnell, Turlach 2000; Efron, Hastie, Johnstone, Tibshirani 2004) is followed to its end on
    a few columns. It ends in a solution on these and in a dual point, which all columns then have to confirm: those that do not
    join, and the path is followed again. Both are refined with residuals of A itself. What defeats this is tried again with
    rows of one size, where they are uneven, which changes no solution; then (ties, nearly dependent columns, more than 8192 of
    them) it goes to HiGHS, and the status says so.

    Parameters
    ----------
    A : array (m, n) or CSR/CSC matrix
        Real: float32 or float64 (integers are converted to float64).
    b : array (m,)
        Real.
    tol : float
        Bound of ||A x - b|| / ||b||, or what rounding leaves of it, and of the relative duality gap; default 1e-9, for float32
        1e-5.

    Returns
    -------
    BasisPursuitResult

    Warns
    -----
    LearnWarning
        b is not in the range of A; the gap is larger than tol; the solution is beyond the range of its dtype.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, complex ones and operators among them; ValueError for NaN or infinite entries.
    """
    a, rhs, dtype = _arguments(A, b)
    tol = (1e-9 if dtype == np.float64 else 1e-5) if tol is None else _check.real(tol, "tol", strict=True)
    columns, scaled, unit = _scaled(a, rhs)
    found = _pursued(columns, scaled, tol)
    gap = _relative_gap(found, scaled)
    if not found.feasible:
        status = SparseStatus.STAGNATED if found.undecided else SparseStatus.INFEASIBLE
    elif found.by_linear_program and gap <= max(tol, _GAP_OF_LP) + found.rounding:
        status = SparseStatus.LINEAR_PROGRAM
    elif gap <= tol:
        status = SparseStatus.CONVERGED
    else:
        status = SparseStatus.ROUNDING if gap <= tol + found.rounding else SparseStatus.STAGNATED
    with np.errstate(over="ignore", under="ignore"):
        result = BasisPursuitResult(
            (found.x * unit).astype(dtype),
            np.flatnonzero(found.x),
            float(np.abs(found.x).sum() * unit),
            gap,
            found.y,
            float(found.residual * np.sqrt(scaled @ scaled) * unit),
            found.iterations,
            columns.reads,
            status,
        )
    return _warned(_in_range(result))


def omp(A: Any, b: Any, k: int, *, tol: float | None = None) -> OmpResult:
    """Choose k columns of A one by one by orthogonal matching pursuit, and solve least squares on them.

    Each time the column is taken whose correlation with the residual, |a_j'r| / ||a_j||, is the largest (Pati, Rezaiifar,
    Krishnaprasad 1993; for columns of norm one the usual rule), and the residual is made orthogonal to it. One read of A brings
    the products of several columns that are likely to follow (cf. Rubinstein, Zibulevsky, Elad 2008), which later choices and
    the other right-hand sides use.

    Parameters
    ----------
    A : array (m, n) or CSR/CSC matrix
        Real: float32 or float64 (integers are converted to float64). Columns with norms below 2.2e-308 count as zero.
    b : array (m,) or (m, q)
        Real.
    k : int
        The most columns to choose, at most min(m, n).
    tol : float
        Stop as soon as ||b - A x|| <= tol ||b||.

    Returns
    -------
    OmpResult

    Warns
    -----
    LearnWarning
        A solution beyond the range of its dtype.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, complex ones and operators among them; ValueError for NaN or infinite entries.
    """
    a, rhs, dtype = _arguments(A, b, several=True)
    k = _check.integer(k, "k", 0, min(a.shape))
    tol = 0.0 if tol is None else _check.real(tol, "tol")
    columns, scaled, unit = _scaled(a, rhs)
    matching = Matching(columns, k)
    found = [matching.match(np.ascontiguousarray(column), tol) for column in (scaled.T if rhs.ndim > 1 else scaled[None])]
    sizes = [np.array(match.residuals) * unit for match in found]
    longest = max(found, key=lambda match: len(match.support), default=None)
    if longest is not None and longest.exact:
        status = SparseStatus.EXACT
    elif longest is not None and len(longest.support) < k:
        status = SparseStatus.TOLERANCE_REACHED
    else:
        status = SparseStatus.COMPLETE
    if rhs.ndim == 1:
        match = found[0]
        with np.errstate(over="ignore", under="ignore"):
            x = (match.x * unit).astype(dtype)
        return _warned(_in_range(OmpResult(x, match.support, float(sizes[0][-1]), sizes[0], columns.reads, status)))
    X = np.zeros((a.shape[1], len(found)), dtype)
    with np.errstate(over="ignore", under="ignore"):
        for i, match in enumerate(found):
            X[:, i] = match.x * unit
    last = np.array([size[-1] for size in sizes])
    return _warned(_in_range(OmpResult(X, [match.support for match in found], last, sizes, columns.reads, status)))


class _LassoTask:
    """Checked arguments of a lasso, and the solver that goes from one alpha to the next."""

    def __init__(self, A: Any, b: Any, fit_intercept: bool, positive: bool, tol: float | None, maxiter: int):
        a, rhs, self.dtype = _arguments(A, b)
        self.shape: tuple[int, int] = a.shape
        self.tol = (1e-10 if self.dtype == np.float64 else 1e-6) if tol is None else _check.real(tol, "tol", strict=True)
        self.maxiter = _check.integer(maxiter, "maxiter", 1)
        self.columns, scaled, self.unit = _scaled(a, rhs)
        self.level = float(scaled.mean()) if fit_intercept and len(scaled) else 0.0
        self.fit_intercept = bool(fit_intercept)
        self.problem = LassoProblem(self.columns, scaled - self.level, self.fit_intercept, bool(positive))

    def start(self, x: np.ndarray) -> None:
        with np.errstate(over="ignore", under="ignore"):
            start = x / self.unit
        if np.isfinite(start).all():
            self.problem.start(start)

    def largest_alpha(self) -> float:
        return self.problem.steepest() * self.unit / max(1, self.shape[0])

    def solve(self, alpha: float) -> LassoResult:
        m = max(1, self.shape[0])
        found = self.problem.solve(min(alpha / self.unit * m, _HUGE), max(self.tol, _FLOOR), self.maxiter)
        intercept = self.level - self.problem.level() if self.fit_intercept else 0.0
        with np.errstate(over="ignore", under="ignore"):
            for entry in found.history:
                for name in ("gap", "objective"):
                    entry[name] = entry[name] / m * self.unit * self.unit
            result = LassoResult(
                (found.x * self.unit).astype(self.dtype),
                intercept * self.unit,
                found.objective / m * self.unit * self.unit,
                found.gap / m * self.unit * self.unit,
                found.r * (found.shrink * self.unit / m),
                np.flatnonzero(found.x),
                alpha,
                found.rounds,
                found.passes,
                _lasso_status(found),
                found.history,
            )
        return _in_range(result)


def _arguments(A: Any, b: Any, several: bool = False) -> tuple[Any, np.ndarray, np.dtype]:
    by_columns = sp.issparse(A) and A.format == "csc" and A.ndim == 2
    a = _check.csr(A.T, "A").T if by_columns else _check.matrix(A, "A")
    rhs = _check.real_array(b, "b")
    if a.dtype.kind == "c":
        raise TypeError(f"A must be real; got {a.dtype}")
    if rhs.shape[:1] != a.shape[:1] or rhs.ndim > 1 + several:
        need = f"({a.shape[0]},)" + (f" or ({a.shape[0]}, q)" if several else "")
        raise ValueError(f"b must have shape {need}, as A has shape {tuple(a.shape)}; got {rhs.shape}")
    _check.finite(rhs, "b")
    return a, rhs, np.result_type(a.dtype, rhs.dtype)


def _scaled(a: Any, b: np.ndarray) -> tuple[Columns, np.ndarray, float]:
    """A as columns, b brought to size one so that nothing overflows, and what it was divided by."""
    unit = float(2.0 ** (np.frexp(np.abs(b).max(initial=0.0))[1] - 1)) if b.any() else 1.0
    return Columns(a), b.astype(np.float64) / unit, unit


def _pursued(columns: Columns, b: np.ndarray, tol: float) -> Pursuit:
    """By the path; where rounding, ties or sizes get in its way, with even rows, then by a linear program."""
    found = pursue(columns, b, tol)
    if found is not None and found.feasible and _is_proved(found, b, tol):
        return found
    tries = [found]
    even = with_even_rows(columns, b)
    if even is not None:
        again = pursue(even.columns, even.b, tol)
        tries.append(None if again is None else even.restated(again, columns, b, tol))
    last = tries[-1]
    infeasible = last is not None and not last.feasible and not last.undecided
    if not infeasible and not (last is not None and last.feasible and _is_proved(last, b, tol)):
        if even is None:
            tries.append(by_linear_program(columns, b, tol))
        else:
            tries.append(even.restated(by_linear_program(even.columns, even.b, tol), columns, b, tol))
    if even is not None:
        columns.reads += even.columns.reads
    known = [one for one in tries if one is not None]
    best = min(known, key=lambda one: (not one.feasible, _relative_gap(one, b) if one.feasible else one.residual))
    if best.feasible or infeasible:
        return best
    return by_least_squares(columns, b, tol) or best


def _is_proved(found: Pursuit, b: np.ndarray, tol: float) -> bool:
    return _relative_gap(found, b) <= tol + found.rounding


def _in_range(result: Any) -> Any:
    if not np.isfinite(result.x).all():
        result.status = SparseStatus.OVERFLOW
    return result


def _relative_gap(found: Pursuit, b: np.ndarray) -> float:
    size = float(np.abs(found.x).sum())
    return max(0.0, (size - float(b @ found.y)) / size) if size else 0.0


def _lasso_status(found: Outcome) -> SparseStatus:
    if found.converged:
        return SparseStatus.CONVERGED
    return SparseStatus.ITERATION_LIMIT if found.exhausted else SparseStatus.STAGNATED


def _warned(result: Any) -> Any:
    if not result.success:
        warnings.warn(result.message, LearnWarning, stacklevel=3)
    return result
