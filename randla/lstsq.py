"""Least squares: `lstsq` and its methods."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _check, plan
from ._direct import solve_directly
from ._matrix import TallMatrix, wrap
from ._minimum_norm import solve_minimum_norm
from ._refine import Options, Problem, refine
from .precondition import distribution, rank_cut, sketched_factor
from .result import Evidence, LstsqResult, LstsqWarning, Status, as_solution, per_column, rank_note
from .sketch import Distribution

METHODS = ("auto", "direct", "spir", "fossils", "lsqr", "cholqr")


def lstsq(
    A: Any,
    b: Any,
    *,
    ridge: float = 0.0,
    method: str = "auto",
    sketch: Distribution | None = None,
    sketch_size: int | None = None,
    tol: float | None = None,
    rcond: float | None = None,
    x0: Any = None,
    maxiter: int | None = None,
    allow_copy: bool = True,
    rng: Any = None,
    callback: Callable[[Any], None] | None = None,
    verbose: int = 0,
) -> LstsqResult:
    """Solve min ||A x - b||^2 + ridge ||x||^2, to LAPACK's accuracy and with a certificate.

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix or LinearOperator
        float32 or float64 (integers are converted to float64; complex dense matrices go to LAPACK). Any strides, read only,
        never copied or changed by the iterative methods. m < n asks for the solution of minimum norm.
    b : array (m,) or (m, k)
    ridge : float
        Weight of ||x||^2.
    method : str
        "auto": the fastest of the backward stable methods by a cost model with measured constants.
        "direct": LAPACK, QR with a rank decision by singular values.
        "spir": sketched preconditioner, warm start, conjugate gradients with iterative refinement; backward stable
        (Epperly, Meier, Nakatsukasa 2024).
        "fossils": the same with a fixed damping and momentum instead of conjugate gradients.
        "cholqr": the preconditioner is made exact by one Cholesky QR pass, then refinement; for few columns.
        "lsqr": sketched preconditioner, warm start and LSQR; forward stable only.
    sketch : Distribution
        Default BlockSRHT() for dense A, SparseStack() otherwise.
    sketch_size : int
        Rows of the sketch; default by the cost model.
    tol : float
        Backward error, relative to ||A||_F, to aim at; default the unit roundoff of the data (2.2e-16, 1.2e-7).
    rcond : float
        Singular values below rcond times the largest, after scaling the columns, count as zero; default 10 eps
        (4 in float32),
        more where sums of very many rows round more.
    x0 : array, (n,) or (n, k)
        A first guess; used where its residual is smaller than that of the sketched solution.
    maxiter : int
        Limit of inner iterations, default 500.
    allow_copy : bool
        Whether a working copy of A may be made: LAPACK needs one ("direct"). With False, "auto" does not choose "direct".
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `result.seed` replays the run.
    callback : callable
        Called as callback(intermediate_result) after every iteration, with fields iteration, passes, time, backward_error,
        residual_norm and x; raising StopIteration ends the run.
    verbose : int
        1 prints a summary, 2 a line per iteration.

    Returns
    -------
    LstsqResult

    Warns
    -----
    LstsqWarning
        Rank deficiency, stagnation, iteration limit.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries.
    """
    a = _check.matrix(A, "A", operators=True)
    rhs = _check.array(b, "b")
    m, n = a.shape
    if rhs.ndim not in (1, 2) or rhs.shape[0] != m:
        raise ValueError(f"b must have shape ({m},) or ({m}, k), as A has shape {tuple(a.shape)}; got {rhs.shape}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    ridge = _check.real(ridge, "ridge")
    tol = None if tol is None else _check.real(tol, "tol", strict=True)
    rcond = None if rcond is None else _check.real(rcond, "rcond")
    maxiter = 500 if maxiter is None else _check.integer(maxiter, "maxiter", 1)
    verbose = _check.integer(verbose, "verbose", 0)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r}")
    guess = None if x0 is None else _guess(x0, n, rhs)
    if sketch_size is not None:
        sketch_size = _check.integer(sketch_size, "sketch_size", max(n, 1))
    seed = None if rng is None else _check.seed(rng)

    chosen = plan.choose(a, rhs, method, allow_copy=allow_copy, sketched=sketch is not None or sketch_size is not None)
    if chosen == "direct":
        if not isinstance(a, np.ndarray):
            raise TypeError(f"method 'direct' needs a dense array; got {type(A).__name__}")
        if not allow_copy:
            raise ValueError("method 'direct' works on a copy of A; got allow_copy=False")
        result = solve_directly(a, rhs, ridge, rcond, seed or 0)
    else:
        dtype = np.result_type(a.dtype if hasattr(a, "dtype") and a.dtype is not None else np.float64, rhs.dtype)
        if dtype.kind == "c":
            raise TypeError(f"method {chosen!r} needs real A and b; got {dtype}: use method='direct'")
        _check.finite(rhs, "b")
        seed = _check.seed(rng) if seed is None else seed
        options = Options(chosen, ridge, sketch, sketch_size, tol, rcond, maxiter, seed, callback, verbose)
        result = solve_minimum_norm(wrap(a), rhs, dtype, options) if m < n else _solve(wrap(a), rhs, dtype, guess, options)
    if verbose:
        print(result)
    if result.status in (Status.RANK_DEFICIENT, Status.STAGNATED, Status.ITERATION_LIMIT):
        warnings.warn(result.message, LstsqWarning, stacklevel=2)
    return result


def _guess(x0: Any, n: int, b: np.ndarray) -> np.ndarray:
    x = _check.array(x0, "x0")
    wanted = (n, *b.shape[1:])
    if x.shape != wanted:
        raise ValueError(f"x0 must have shape {wanted}, as A has {n} columns and b has shape {b.shape}; got {x.shape}")
    _check.finite(x, "x0")
    return np.ascontiguousarray(x.reshape(n, -1).T, dtype=np.float64)


def _solve(matrix: TallMatrix, b: np.ndarray, dtype: np.dtype, guess: np.ndarray | None, options: Options) -> LstsqResult:
    start_time = time.perf_counter()
    n = matrix.shape[1]
    B = np.array(b.reshape(len(b), -1).T, dtype=np.float64, order="C")
    eps = float(np.finfo(dtype).eps)
    method, seed = options.method, options.seed
    d = options.sketch_size or plan.sketch_size(matrix, method, len(B), eps)
    cut = rank_cut(eps, len(b), d) if options.rcond is None else max(options.rcond, eps)
    family = distribution(options.sketch, matrix)
    factor = sketched_factor(matrix, B, family, d, seed, ridge=options.ridge, rcond=cut)
    if method == "cholqr":
        factor.improve(matrix, options.ridge)
    problem = Problem(matrix, B, options.ridge, factor, d, dtype, start_time)
    outcome = refine(problem, guess, options)
    status, notes = outcome.status, ""
    if factor.rank < n:
        if status in (Status.CONVERGED, Status.SKETCHED_ACCURACY):
            status = Status.RANK_DEFICIENT
        notes = rank_note(factor.rank, n, cut)
    return LstsqResult(
        as_solution(outcome.X, b, dtype),
        per_column(outcome.residual_norms, b),
        evidence=lambda: Evidence(
            per_column(outcome.backward_errors, b),
            per_column(outcome.error_bounds, b),
            factor.rank,
            factor.cond,
            factor.singular_values,
        ),
        method=method,
        seed=seed,
        status=status,
        iterations=outcome.iterations,
        passes=matrix.passes,
        history=outcome.history,
        notes=notes,
    )
