"""Least squares: `lstsq` and its methods."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _check, plan
from ._backend import is_sparse, like, namespace, on_device, same_device, to_host
from ._direct import solve_directly
from ._matrix import Posed, RowBlocks, TallMatrix, argument, is_complex
from ._minimum_norm import METHODS as WIDE_METHODS
from ._minimum_norm import solve_minimum_norm
from ._numeric import powers_of_two
from ._problem import Options, Problem
from ._refine import refine
from .precondition import distribution, is_dense, rank_cut, sketched_factor
from .result import Evidence, LstsqResult, LstsqWarning, Status, as_solution, overflowed, per_column, rank_note
from .sketch import Distribution, Gaussian

METHODS = ("auto", "direct", "spir", "fossils", "cholqr", "lsqr", "momentum", "sketch", "linf")


def lstsq(
    A: Any,
    b: Any,
    *,
    ridge: float = 0.0,
    weights: Any = None,
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

    With weights the first term is sum_i weights_i |a_i x - b_i|^2.

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix, LinearOperator or RowBlocks
        float32, float64, complex64 or complex128 (integers are converted to float64). Any strides, memory-mapped or not, read
        only, never copied or changed by the iterative methods. A list of 2-D arrays, or any other iterable of blocks of
        rows that can be read again, is taken as RowBlocks. m < n asks for the solution of minimum norm. A (dense, or CuPy's
        CSR) and b of a CUDA device are solved there; x is a CuPy array.
    b : array (m,) or (m, k)
    ridge : float
        Weight of ||x||^2.
    weights : array (m,)
        Real, finite, not negative; one per row. A weight of zero drops the row. The residual norm of the result is the
        weighted one, and the rest of the certificate belongs to A and b with rows multiplied by the roots of the weights.
    method : str
        "auto": the fastest of the backward stable methods by a cost model with measured constants.
        "direct": LAPACK, on a device cuSOLVER; QR with a rank decision by singular values.
        "spir": sketched preconditioner, warm start, conjugate gradients with iterative refinement; backward stable
        (Epperly, Meier, Nakatsukasa 2024).
        "fossils": the same with a fixed damping and momentum instead of conjugate gradients.
        "cholqr": the preconditioner is made exact by one Cholesky QR pass, then refinement; for few columns.
        "lsqr": sketched preconditioner, warm start and LSQR; forward stable only.
        "momentum": sketched preconditioner, warm start and a fixed iteration with damping and momentum (Epperly 2024);
        forward stable only.
        "sketch": the solution of the sketched problem, min ||S (A x - b)||; of low accuracy.
        "linf": the same with a dense sketch, and a bound of the largest error of an entry of x, `result.linf_bound`.
        m < n takes "auto", "direct", "spir", "fossils" and "cholqr".
    sketch : Distribution
        Default BlockSRHT() for dense A, SparseStack() otherwise, Gaussian() for "linf".
    sketch_size : int
        Rows of the sketch; default by the cost model. At least min(m, n), or at least 1 with a ridge, where a few rows per
        effective dimension, sum sigma^2 / (sigma^2 + ridge), are enough and the default follows it.
    tol : float
        Backward error, relative to ||A||_F, to aim at; default the unit roundoff of the data (2.2e-16, 1.2e-7). Not for
        "direct", "sketch" and "linf", which do what they do.
    rcond : float
        Singular values below rcond times the largest, after scaling the columns, count as zero; default 10 eps
        (4 in float32),
        more where sums of very many rows round more.
    x0 : array, (n,) or (n, k)
        A first guess for the iterative methods; used where its residual is smaller than that of the sketched solution.
        Not used for m < n: the iteration there is on y of x = A'y, which x0 does not give.
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
        Rank deficiency, stagnation, iteration limit, entries of x beyond the largest number of its dtype.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries.
    """
    a = argument(A, device=True)
    rhs = _check.array(b, "b", device=True)
    same_device(A=a, b=rhs, weights=weights, x0=x0)
    m, n = a.shape
    if rhs.ndim not in (1, 2) or rhs.shape[0] != m:
        raise ValueError(f"b must have shape ({m},) or ({m}, k), as A has shape {tuple(a.shape)}; got {rhs.shape}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    ridge = _check.real(ridge, "ridge")
    w = None if weights is None else _check.weights(weights, m, device=True)
    if w is not None and not w.all():
        _check.finite(rhs, "b")
        # Nothing of a dropped row may decide units.
        rhs = namespace(rhs).where((w > 0).reshape(-1, *[1] * (rhs.ndim - 1)), rhs, 0)
    tol = None if tol is None else _check.real(tol, "tol", strict=True)
    rcond = None if rcond is None else _check.real(rcond, "rcond")
    maxiter = 500 if maxiter is None else _check.integer(maxiter, "maxiter", 1)
    verbose = _check.integer(verbose, "verbose", 0)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r}")
    guess = None if x0 is None else _guess(x0, n, rhs, is_complex(a) or is_complex(rhs))
    if sketch_size is not None:
        sketch_size = _check.integer(sketch_size, "sketch_size", 1 if ridge else max(min(m, n), 1))
    seed = None if rng is None else _check.seed(rng)

    chosen = plan.choose(a, rhs, method, allow_copy=allow_copy, sketched=sketch is not None or sketch_size is not None)
    if chosen == "direct":
        if not isinstance(a, np.ndarray) and (is_sparse(a) or not on_device(a)):
            raise TypeError(f"method 'direct' needs a dense array; got {type(A).__name__}")
        if not allow_copy:
            raise ValueError("method 'direct' works on a copy of A; got allow_copy=False")
        result = solve_directly(a, rhs, ridge, rcond, seed or 0, w)
    else:
        _check.finite(rhs, "b")
        seed = _check.seed(rng) if seed is None else seed
        _check_method(chosen, a, ridge, sketch)
        posed = Posed(a, rhs, w)
        if chosen == "linf" and posed.complex:
            raise TypeError("method 'linf' needs real A and b; got complex ones")
        options = Options(
            chosen,
            ridge,
            sketch,
            posed.sketch_size(sketch_size),
            posed.tol(tol),
            rcond,
            maxiter,
            seed,
            posed.callback(callback),
            verbose,
        )
        with np.errstate(all="ignore"):
            if m < n:
                result = solve_minimum_norm(posed.matrix, posed.right_hand_sides, posed.dtype, options)
            else:
                result = _solve(posed.matrix, posed.right_hand_sides, posed.dtype, posed.guess(guess), options)
            result = posed.finish(result)
    if verbose:
        print(result)
    if result.status in (Status.RANK_DEFICIENT, Status.STAGNATED, Status.OVERFLOWED, Status.ITERATION_LIMIT):
        warnings.warn(result.message, LstsqWarning, stacklevel=2)
    return result


def _check_method(method: str, a: Any, ridge: float, sketch: Any) -> None:
    """Refuse what the method cannot do."""
    m, n = a.shape
    if m < n and method not in WIDE_METHODS:
        raise ValueError(
            f"method must be one of auto, direct, {', '.join(WIDE_METHODS)} where A has fewer rows than columns; got {method!r}"
        )
    if isinstance(a, RowBlocks) and m < n:
        raise ValueError(f"A must have at least as many rows as columns where it comes in row blocks; got shape {a.shape}")
    if method == "cholqr" and not (isinstance(a, np.ndarray | RowBlocks) or sp.issparse(a) or on_device(a)):
        raise TypeError(f"method 'cholqr' needs rows of A; got {type(a).__name__}")
    if method == "linf":
        if ridge:
            raise ValueError(f"ridge must be 0 for method 'linf', whose bound does not hold otherwise; got {ridge:g}")
        if sketch is not None and not is_dense(sketch):
            raise ValueError(f"sketch must be dense, such as Gaussian(), for method 'linf'; got {sketch!r}")


def _guess(x0: Any, n: int, b: np.ndarray, complex_problem: bool) -> np.ndarray:
    x = _check.array(x0, "x0", device=True)
    wanted = (n, *b.shape[1:])
    if x.shape != wanted:
        raise ValueError(f"x0 must have shape {wanted}, as A has {n} columns and b has shape {b.shape}; got {x.shape}")
    _check.finite(x, "x0")
    if x.dtype.kind == "c" and not complex_problem:
        raise TypeError(f"x0 must be real, as A and b are; got {x.dtype}")
    return x


def _solve(matrix: TallMatrix, b: np.ndarray, dtype: np.dtype, guess: np.ndarray | None, options: Options) -> LstsqResult:
    start_time = time.perf_counter()
    n = matrix.shape[1]
    B = namespace(b).array(b.reshape(len(b), -1).T, dtype=np.float64, order="C")
    unit = powers_of_two(to_host(abs(B).max(axis=1)) if B.size else np.zeros(len(B)))
    B *= like(B, unit[:, None])
    eps = float(np.finfo(dtype).eps)
    method, seed = options.method, options.seed
    d, asked = plan.sketch_size(matrix, method, len(B), eps), options.sketch_size
    cut = rank_cut(eps, len(b), asked or d) if options.rcond is None else max(options.rcond, eps)
    family = Gaussian() if method == "linf" and options.sketch is None else distribution(options.sketch, matrix)
    # Cholesky QR makes an n x n factor in any case.
    small = method != "cholqr"
    factor = sketched_factor(matrix, B, family, d, seed, ridge=options.ridge, rcond=cut, asked=asked, small=small)
    if method == "cholqr":
        factor.improve(matrix, options.ridge)
    problem = Problem(matrix, b, B, options.ridge, factor, dtype, start_time, unit)
    outcome = refine(problem, guess, options)
    status, notes = outcome.status, ""
    if factor.rank < n:
        if status in (Status.CONVERGED, Status.SKETCHED_ACCURACY, Status.SKETCH_AND_SOLVE):
            status = Status.RANK_DEFICIENT
        notes = rank_note(factor.rank // matrix.copies, n // matrix.copies, cut)
    x = as_solution(outcome.X, b, dtype)
    status = overflowed(x, status, outcome.backward_errors, outcome.error_bounds)
    return LstsqResult(
        like(b, x),
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
        linf_bound=None if outcome.linf_bound is None else per_column(outcome.linf_bound, b),
    )
