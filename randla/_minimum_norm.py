"""m < n: the solution of minimum norm, x = A'y with (A A' + ridge) y = b, preconditioned by a sketch of A'."""

from __future__ import annotations

import time

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

from . import krylov, plan
from ._matrix import TallMatrix, wrap
from ._numeric import norms as row_norms
from ._numeric import powers_of_two
from ._refine import Options, Run
from .precondition import distribution, rank_cut, sketched_factor
from .result import Evidence, LstsqResult, Status, as_solution, per_column, rank_note

_MAX_CYCLES = 10


def transposed(matrix: TallMatrix) -> TallMatrix:
    """The wrapper of A', sharing memory where A is dense."""
    if isinstance(matrix.A, np.ndarray):
        return wrap(matrix.A.T)
    return wrap(matrix.A.T.tocsr() if sp.issparse(matrix.A) else aslinearoperator(matrix.A).T)


def solve_minimum_norm(matrix: TallMatrix, b: np.ndarray, dtype: np.dtype, options: Options) -> LstsqResult:
    """Conjugate gradients on M z = N'b with M = N'(A A' + ridge) N; x is accumulated from corrections A'N dz, whose
    rounding errors shrink with them. The backward error is that of the equations, ||b - A x - ridge y|| / (||A||_F ||x||)."""
    if options.method not in ("spir", "cholqr"):
        raise ValueError(
            f"method must be 'auto', 'direct' or 'spir' when A has fewer rows than columns; got {options.method!r}"
        )
    start_time = time.perf_counter()
    ridge, seed = options.ridge, options.seed
    tall = transposed(matrix)
    n, m = tall.shape
    B = np.ascontiguousarray(b.reshape(m, -1).T, dtype=np.float64)
    k, eps = len(B), float(np.finfo(dtype).eps)
    d = options.sketch_size or plan.sketch_size(tall, "spir", k, eps)
    cut = rank_cut(eps, n, d) if options.rcond is None else max(options.rcond, eps)
    factor = sketched_factor(
        tall,
        np.zeros((0, n)),
        distribution(options.sketch, tall),
        max(d, m),
        seed,
        ridge=ridge,
        rcond=cut,
        scale_columns=False,  # scaled equations would be weights, which matter when they contradict each other
    )
    unit = float(factor.scale.max(initial=1.0))
    run = Run(options, eps, tall, start_time)
    fro = float(row_norms(factor.R.ravel()))  # of the scaled matrix, as `errors` are
    size_b = powers_of_two(np.abs(B).max(axis=1, initial=0.0))[:, None]
    B = B * size_b
    ridge *= unit**2 if ridge else 1.0

    def normal(Z: np.ndarray) -> np.ndarray:
        V = factor.apply(Z)
        return -factor.adjoint(tall.residual(V * unit, None)[1] * unit - ridge * V)

    X, Y, rho = np.zeros((k, n)), np.zeros((k, m)), B.copy()
    best_X, best = X.copy(), np.full(k, np.inf)
    trust = min(max(4 * factor.cond * float(np.finfo(np.float64).eps), 1e-13), 0.05)
    status = Status.STAGNATED
    try:
        for _ in range(_MAX_CYCLES):
            C = factor.adjoint(rho)
            size = row_norms(C)

            shown, misfit = (X * unit / size_b).T, row_norms(rho / size_b)

            def progress(
                S: np.ndarray,
                Z: np.ndarray,
                size: np.ndarray = size,
                shown: np.ndarray = shown,
                misfit: np.ndarray = misfit,
            ) -> np.ndarray:
                run.iterations += 1
                ratio = row_norms(S) / np.where(size > 0, size, 1)
                run.record(ratio * np.where(np.isfinite(best), best, 1.0), misfit, lambda: shown)
                return ratio <= trust

            Z, _ = krylov.conjugate_gradients(normal, C, progress, options.maxiter - run.iterations)
            step = factor.apply(Z)
            X, Y = X + tall.times(step * unit), Y + step
            if dtype != np.float64:
                X = X.astype(dtype).astype(np.float64)
            rho = B - tall.adjoint_times(X) * unit - ridge * Y
            # Only the part of the residual that the kept directions can remove counts.
            errors = np.linalg.norm(factor.project(rho), axis=1)
            errors /= np.maximum(fro * np.linalg.norm(X, axis=1), np.finfo(float).tiny)
            better = errors < best
            gained = errors < 0.3 * best
            best_X[better], best[better] = X[better], errors[better]
            if (best <= run.tol).all():
                status = Status.CONVERGED
                break
            if run.iterations >= options.maxiter:
                status = Status.ITERATION_LIMIT
                break
            if not gained.any():
                break
    except run.Stop:
        status = Status.STOPPED
    if status is Status.STAGNATED and (best <= 16 * run.tol).all():
        status = Status.CONVERGED
    notes = ""
    if factor.rank < m:
        notes = rank_note(factor.rank, m, cut)
        status = Status.RANK_DEFICIENT if status is Status.CONVERGED else status
    best = np.where(np.isfinite(best), best, 0.0)
    residuals = row_norms(B - tall.adjoint_times(best_X) * unit) / size_b[:, 0]
    best_X = best_X * unit / size_b
    bounds = factor.cond * (best * fro / max(factor.extremes[0], np.finfo(float).tiny) + eps)

    return LstsqResult(
        as_solution(best_X, b, dtype),
        per_column(residuals, b),
        evidence=lambda: Evidence(per_column(best, b), per_column(bounds, b), factor.rank, factor.cond, factor.singular_values),
        method=options.method,
        seed=seed,
        status=status,
        iterations=run.iterations,
        passes=tall.passes,
        history=run.history,
        notes=notes,
    )
