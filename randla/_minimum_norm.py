"""m < n: the solution of minimum norm, x = A'y with (A A' + ridge) y = b, preconditioned by a sketch of A'.

A round of inner iterations on M z = N'b with M = N'(A A' + ridge) N; then x is corrected by A'N z, whose rounding errors
shrink with it, and the residual is computed again. The backward error is that of the equations,
||b - A x - ridge y|| / (||A||_F ||x||).

What is as long as x is where A is; what is as long as b, a residual or y, is on the host, and so are all decisions.
"""

from __future__ import annotations

import time

import numpy as np

from . import plan
from ._backend import Array, like, namespace, to_host
from ._inner import inner_for, solved
from ._matrix import TallMatrix
from ._numeric import norms as row_norms
from ._numeric import powers_of_two
from ._problem import Options, Run
from .precondition import distribution, rank_cut, sketched_factor
from .result import Evidence, LstsqResult, Status, as_solution, overflowed, per_column, rank_note

METHODS = ("spir", "fossils", "cholqr")
_MAX_CYCLES = 10


class _Equations(Run):
    """(A A' + ridge) y = b in units that make A and b of size one: the iterates, and the best x."""

    def __init__(self, tall: TallMatrix, b: Array, dtype: np.dtype, options: Options, start_time: float):
        B, xp = np.ascontiguousarray(to_host(b).reshape(len(b), -1).T, dtype=np.float64), namespace(tall.A)
        (n, m), k, eps = tall.shape, len(B), float(np.finfo(dtype).eps)
        super().__init__(options, eps, tall, start_time)
        d, asked = plan.sketch_size(tall, options.method, k, eps), options.sketch_size
        self.cut = rank_cut(eps, n, asked or d) if options.rcond is None else max(options.rcond, eps)
        self.factor = sketched_factor(
            tall,
            xp.zeros((0, n)),
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
        self.xp, self.X, self.Y, self.rho = xp, xp.zeros((k, n)), np.zeros((k, m)), self.B.copy()
        self.best_X, self.best = self.X.copy(), np.full(k, np.inf)
        self.inner = inner_for(tall, self.factor, options.ridge)
        self.last = np.full(k, np.inf)  # sizes of the preconditioned residuals at the start of the last cycle
        self.misjudged = False  # whether the last cycle only found that sketch or precision are worse than assumed

    def external(self, X: Array) -> Array:
        """Solutions in the caller's units."""
        return X * self.unit / like(X, self.size_b)

    def x_norms(self) -> np.ndarray:
        if self.xp is np:
            return row_norms(self.X)
        largest = abs(self.X).max(axis=1)
        unit = self.xp.where(largest > 0, largest, 1)[:, None]
        return to_host(self.xp.sqrt(((self.X / unit) ** 2).sum(axis=1)) * unit[:, 0])

    def shown(self, step: np.ndarray) -> Array:
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
        errors = self.errors(self.rho, self.x_norms())
        better = errors < self.best
        if better.any():
            self.best_X = self.xp.where(like(self.X, better[:, None]), self.X, self.best_X)
        self.best[better] = errors[better]
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
        factor, options, inner = self.factor, self.options, self.inner
        C = factor.adjoint(self.rho)
        size, x_norms = row_norms(C), self.x_norms()
        inner.restore_if_stalled(size, self.last)
        trust, self.last = inner.trust, size
        errors, rho, step = self.best.copy(), self.rho.copy(), np.zeros_like(self.Y)

        def progress(live: np.ndarray, S: np.ndarray, Z: np.ndarray, steps: int = 1) -> np.ndarray:
            self.iterations += steps
            rho[live], step[live] = factor.gradient(S), factor.apply(Z)
            errors[live] = self.errors(rho[live], x_norms[live])
            self.note(errors, rho, step)
            return (row_norms(S) <= trust * size[live]) | (errors[live] <= 0.5 * self.tol)

        limit, tail = options.maxiter - self.iterations, max(trust, self.reduction())
        Z, self.misjudged = solved(inner, options.method, C, progress, limit, tail)
        self.add(factor.apply(Z))

    def reduction(self) -> float:
        """What is still missing of the backward errors, as a factor."""
        return float((self.tol / np.maximum(self.best, self.tol)).min(initial=1.0))

    def solve(self) -> Status:
        try:
            errors = self.add(self.factor.apply(self.factor.adjoint(self.B)))  # the solution of the sketched equations
            self.note(errors, self.rho, np.zeros_like(self.Y))
            self.inner.reduce(self.reduction())
            for _ in range(_MAX_CYCLES):
                if (self.best <= self.tol).all():
                    return Status.CONVERGED
                if self.iterations >= self.options.maxiter:
                    return Status.ITERATION_LIMIT
                before = self.best.copy()
                self.cycle()
                if (self.best < 0.3 * before).any() or self.misjudged:
                    continue
                if not self.inner.restore():
                    break
        except Run.Stop:
            return Status.STOPPED
        return Status.CONVERGED if (self.best <= self.slack * self.tol).all() else Status.STAGNATED


def solve_minimum_norm(matrix: TallMatrix, b: Array, dtype: np.dtype, options: Options) -> LstsqResult:
    start_time = time.perf_counter()
    m = len(b)
    tall = matrix.transposed()
    run = _Equations(tall, b, dtype, options, start_time)
    status, factor, notes = run.solve(), run.factor, ""
    if factor.rank < m:
        notes = rank_note(factor.rank // matrix.copies, m // matrix.copies, run.cut)
        status = Status.RANK_DEFICIENT if status is Status.CONVERGED else status
    best = np.where(np.isnan(run.best), np.inf, run.best)
    residuals = row_norms(run.B - tall.adjoint_times(run.best_X) * run.unit) / run.size_b[:, 0]
    bounds = factor.cond * (best * run.frobenius / max(factor.extremes[0], np.finfo(float).tiny) + float(np.finfo(dtype).eps))
    x = as_solution(run.external(run.best_X), b, dtype)
    status = overflowed(x, status, best, bounds)
    return LstsqResult(
        x,
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
