"""m < n: the solution of minimum norm, x = A'y with (A A' + ridge) y = b, preconditioned by a sketch of A'.

A round of inner iterations on M z = N'b with M = N'(A A' + ridge) N; then x is corrected by A'N z, whose rounding errors
shrink with it, and the residual is computed again. The backward error is that of the equations,
||b - A x - ridge y|| / (||A||_F ||x||).
"""

from __future__ import annotations

import time

import numpy as np

from . import krylov, plan
from ._matrix import TallMatrix
from ._numeric import norms as row_norms
from ._numeric import powers_of_two
from ._problem import Options, Run
from .precondition import distribution, rank_cut, sketched_factor
from .result import Evidence, LstsqResult, Status, as_solution, per_column, rank_note

METHODS = ("spir", "fossils", "cholqr")
_MAX_CYCLES = 10


class _Equations(Run):
    """(A A' + ridge) y = b in units that make A and b of size one: the iterates, and the best x."""

    def __init__(self, tall: TallMatrix, b: np.ndarray, dtype: np.dtype, options: Options, start_time: float):
        B = np.ascontiguousarray(b.reshape(len(b), -1).T, dtype=np.float64)
        (n, m), k, eps = tall.shape, len(B), float(np.finfo(dtype).eps)
        super().__init__(options, eps, tall, start_time)
        d, asked = plan.sketch_size(tall, options.method, k, eps), options.sketch_size
        self.cut = rank_cut(eps, n, asked or d) if options.rcond is None else max(options.rcond, eps)
        self.factor = sketched_factor(
            tall,
            np.zeros((0, n)),
            distribution(options.sketch, tall),
            d,
            options.seed,
            ridge=options.ridge,
            rcond=self.cut,
            asked=asked,
            scale_columns=False,  # scaled equations would be weights, which matter when they contradict each other
            small=options.method != "cholqr",
        )
        if options.method == "cholqr":
            self.factor.improve(tall, options.ridge)
        self.tall, self.b, self.dtype = tall, b, dtype
        self.unit = float(self.factor.scale[0]) if m else 1.0
        self.ridge = options.ridge * self.unit**2 if options.ridge else 0.0
        self.frobenius = float(row_norms(self.factor.column_norms()))
        self.size_b = powers_of_two(np.abs(B).max(axis=1, initial=0.0))[:, None]
        self.B = B * self.size_b
        self.X, self.Y, self.rho = np.zeros((k, n)), np.zeros((k, m)), self.B.copy()
        self.best_X, self.best = self.X.copy(), np.full(k, np.inf)
        self.widened = False  # whether the last cycle only found that the sketch is worse than assumed

    def normal(self, Z: np.ndarray) -> np.ndarray:
        V = self.factor.apply(Z)
        return -self.factor.adjoint(self.tall.residual(V * self.unit, None)[1] * self.unit - self.ridge * V)

    def external(self, X: np.ndarray) -> np.ndarray:
        """Solutions in the caller's units."""
        return X * self.unit / self.size_b

    def shown(self, step: np.ndarray) -> np.ndarray:
        """The x of y + step as the caller sees it. One pass."""
        return as_solution(self.external(self.X + self.tall.times(step * self.unit)), self.b, self.dtype)

    def errors(self, rho: np.ndarray, x_norms: np.ndarray) -> np.ndarray:
        # Only the part of the residual that the kept directions can remove counts.
        size = row_norms(self.factor.project(rho))
        return size / np.where(size > 0, np.maximum(self.frobenius * x_norms, np.finfo(float).tiny), 1)

    def add(self, step: np.ndarray) -> np.ndarray:
        """y += step, x += A'step; the backward errors that this leaves. Two passes."""
        self.X, self.Y = self.X + self.tall.times(step * self.unit), self.Y + step
        if self.dtype != np.float64:
            self.X = self.X.astype(self.dtype).astype(np.float64)
        self.rho = self.B - self.tall.adjoint_times(self.X) * self.unit - self.ridge * self.Y
        errors = self.errors(self.rho, row_norms(self.X))
        better = errors < self.best
        self.best_X[better], self.best[better] = self.X[better], errors[better]
        return errors

    def note(self, errors: np.ndarray, rho: np.ndarray, step: np.ndarray) -> None:
        """Record the iterate y + step, with the residual rho of the equations there."""
        misfit = row_norms((rho + self.ridge * (self.Y + step)) / self.size_b)
        try:
            self.record(errors, misfit, lambda: self.shown(step))
        except Run.Stop:
            # What the callback was shown is what it gets.
            self.best[:] = np.inf
            self.add(step)
            raise

    def cycle(self) -> None:
        """One round of inner iterations from the current y."""
        factor, options = self.factor, self.options
        C = factor.adjoint(self.rho)
        size, x_norms = row_norms(C), row_norms(self.X)
        trust = krylov.attainable(factor.cond)
        errors, rho, step = self.best.copy(), self.rho.copy(), np.zeros_like(self.Y)

        def progress(live: np.ndarray, S: np.ndarray, Z: np.ndarray) -> np.ndarray:
            self.iterations += 1
            rho[live], step[live] = factor.gradient(S), factor.apply(Z)
            errors[live] = self.errors(rho[live], x_norms[live])
            self.note(errors, rho, step)
            return (row_norms(S) <= trust * size[live]) | (errors[live] <= 0.5 * self.tol)

        limit = options.maxiter - self.iterations
        if options.method == "fossils":
            Z, diverged = krylov.heavy_ball(self.normal, C, progress, limit, factor.distortion)
            self.widened = diverged and krylov.widened(factor.distortion) > factor.distortion
            factor.distortion = krylov.widened(factor.distortion) if diverged else factor.distortion
        else:
            Z = krylov.conjugate_gradients(self.normal, C, progress, limit)
        self.add(factor.apply(Z))

    def solve(self) -> Status:
        slack = 16 if self.options.tol is None else 1
        try:
            errors = self.add(self.factor.apply(self.factor.adjoint(self.B)))  # the solution of the sketched equations
            self.note(errors, self.rho, np.zeros_like(self.Y))
            for _ in range(_MAX_CYCLES):
                if (self.best <= self.tol).all():
                    return Status.CONVERGED
                if self.iterations >= self.options.maxiter:
                    return Status.ITERATION_LIMIT
                before = self.best.copy()
                self.cycle()
                if not (self.best < 0.3 * before).any() and not self.widened:
                    break
        except Run.Stop:
            return Status.STOPPED
        return Status.CONVERGED if (self.best <= slack * self.tol).all() else Status.STAGNATED


def solve_minimum_norm(matrix: TallMatrix, b: np.ndarray, dtype: np.dtype, options: Options) -> LstsqResult:
    start_time = time.perf_counter()
    m = len(b)
    tall = matrix.transposed()
    run = _Equations(tall, b, dtype, options, start_time)
    status, factor, notes = run.solve(), run.factor, ""
    if factor.rank < m:
        notes = rank_note(factor.rank // matrix.copies, m // matrix.copies, run.cut)
        status = Status.RANK_DEFICIENT if status is Status.CONVERGED else status
    best = np.where(np.isfinite(run.best), run.best, 0.0)
    residuals = row_norms(run.B - tall.adjoint_times(run.best_X) * run.unit) / run.size_b[:, 0]
    bounds = factor.cond * (best * run.frobenius / max(factor.extremes[0], np.finfo(float).tiny) + float(np.finfo(dtype).eps))

    return LstsqResult(
        as_solution(run.external(run.best_X), b, dtype),
        per_column(residuals, b),
        evidence=lambda: Evidence(per_column(best, b), per_column(bounds, b), factor.rank, factor.cond, factor.singular_values),
        method=options.method,
        seed=options.seed,
        status=status,
        iterations=run.iterations,
        passes=tall.passes,
        history=run.history,
        notes=notes,
    )
