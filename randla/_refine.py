"""Iterative refinement of a sketched solution until its backward error is that of a direct solver.

One cycle: the gradient in preconditioned coordinates c = N'A'r, an inner iteration for M dy = c, x <- x + N dy, and one pass
for the new residual, gradient and certificate. Two or three cycles reach the unit roundoff where the condition number
leaves room for it (Epperly, Meier, Nakatsukasa 2024). The best iterate is kept; a cycle that gains nothing ends the run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import krylov
from ._matrix import TallMatrix
from ._numeric import norms as row_norms
from ._numeric import powers_of_two
from .certificate import Certificate
from .precondition import Factor
from .result import Status

_MAX_CYCLES = 30


@dataclasses.dataclass
class Options:
    """The checked arguments of a solve, besides A and b."""

    method: str
    ridge: float
    sketch: Any
    sketch_size: int | None
    tol: float | None
    rcond: float | None
    maxiter: int
    seed: int
    callback: Callable[[Any], None] | None
    verbose: int


@dataclasses.dataclass
class Outcome:
    X: np.ndarray
    residual_norms: np.ndarray
    backward_errors: np.ndarray
    error_bounds: np.ndarray
    status: Status
    iterations: int
    history: list[dict[str, Any]]


class Problem:
    """min ||B' - A X'||^2 + ridge ||X||^2 in the factor's scaled variables, X / D, with right-hand sides of size one.

    Units of columns and of right-hand sides are taken out by powers of two: they neither decide when the solution is good
    enough nor overflow. Takes B over.
    """

    def __init__(
        self,
        matrix: TallMatrix,
        B: np.ndarray,
        ridge: float,
        factor: Factor,
        d: int,
        dtype: np.dtype,
        start_time: float,
    ):
        self.matrix, self.ridge, self.factor, self.d = matrix, ridge, factor, d
        self.dtype, self.start_time = dtype, start_time
        self.unit = powers_of_two(np.abs(B).max(axis=1, initial=0.0))
        B *= self.unit[:, None]
        self.B = B
        self.start = factor.start * self.unit[:, None]
        scale = factor.scale
        # Columns that differ little in size are left to the certificate of A itself, which is then needed only once.
        alike = len(scale) == 0 or scale.max() <= 4 * scale.min()
        self.reported = Certificate(factor, scale)
        self.stopping = self.reported if alike else Certificate(factor, np.ones_like(scale))
        self.null_space = factor.null_space()

    def external(self, X: np.ndarray) -> np.ndarray:
        """Solutions in the caller's units."""
        return X * self.factor.scale / self.unit[:, None]

    def internal(self, X: np.ndarray) -> np.ndarray:
        return X / self.factor.scale * self.unit[:, None]

    def settle(self, X: np.ndarray) -> np.ndarray:
        """X as it can be returned: of minimum norm, rounded to the dtype of the data."""
        if self.null_space is not None:
            relative = self.factor.scale / self.factor.scale.max()
            outer = X * relative
            X = (outer - (outer @ self.null_space) @ self.null_space.T) / relative
        return X if self.dtype == np.float64 else X.astype(self.dtype).astype(np.float64)

    def evaluate(self, X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Norms of b - A x, norms of the residual of the augmented problem, gradients. One pass."""
        outer = X * self.factor.scale
        _, G, squares = self.matrix.residual(outer, np.ascontiguousarray(self.B[rows]))
        if self.ridge == 0:
            return np.sqrt(squares), np.sqrt(squares), G * self.factor.scale
        G -= self.ridge * outer
        return np.sqrt(squares), np.sqrt(squares + self.ridge * row_norms(outer) ** 2), G * self.factor.scale

    def normal(self, Z: np.ndarray) -> np.ndarray:
        """N'(A'A + ridge) N applied to every row. One pass."""
        V = self.factor.apply(Z) * self.factor.scale
        _, G, _ = self.matrix.residual(V, None)
        if self.ridge:
            G -= self.ridge * V
        return -self.factor.adjoint(G * self.factor.scale)


class Run:
    """Counts, history, verbose lines and callbacks of one solve."""

    class Stop(Exception):
        """The callback asked to stop."""

    def __init__(self, options: Options, eps: float, matrix: TallMatrix, start_time: float):
        self.options, self.matrix, self.start_time = options, matrix, start_time
        self.tol = eps / 4 if options.tol is None else options.tol
        self.iterations = 0
        self.history: list[dict[str, Any]] = []

    def record(self, errors: np.ndarray, norms: np.ndarray, x: Callable[[], np.ndarray]) -> None:
        entry = {
            "iteration": self.iterations,
            "passes": self.matrix.passes,
            "time": time.perf_counter() - self.start_time,
            "backward_error": float(errors.max(initial=0.0)),
            "residual_norm": float(row_norms(norms)),
        }
        self.history.append(entry)
        if self.options.verbose > 1:
            if len(self.history) == 1:
                print(f"{'iteration':>9} {'passes':>6} {'time':>8} {'backward error':>14} {'residual norm':>14}")
            print(
                f"{entry['iteration']:9d} {entry['passes']:6d} {entry['time']:8.3f} "
                f"{entry['backward_error']:14.3e} {entry['residual_norm']:14.7e}"
            )
        if self.options.callback is not None:
            try:
                self.options.callback(intermediate_result=SimpleNamespace(**entry, x=x()))  # type: ignore[call-arg]
            except StopIteration:
                raise Run.Stop from None


class _Iterates(Run):
    """For every right-hand side the current iterate, its gradient, and the best iterate with its evidence."""

    def __init__(self, problem: Problem, options: Options):
        super().__init__(options, float(np.finfo(problem.dtype).eps), problem.matrix, problem.start_time)
        self.problem = problem
        self.X = self.G = self.best_X = self.best_G = np.zeros((0, 0))
        self.norms = self.augmented = self.errors = np.zeros(0)

    def take(self, X: np.ndarray) -> None:
        """Make X the first iterates of all right-hand sides."""
        problem, certificate = self.problem, self.problem.stopping
        self.X = X
        self.norms, self.augmented, self.G = problem.evaluate(X, np.arange(len(X)))
        # Far from the goal a bound will do; the exact estimate needs a factorization.
        self.errors = certificate.upper_bounds(X, problem.factor.adjoint(self.G))
        if not (self.errors > 1e4 * self.tol).all():
            self.errors = certificate.backward_errors(X, self.augmented, problem.factor.project(self.G))
        self.best_X, self.best_G = X.copy(), self.G.copy()

    def step(self, X: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Make X the current iterates of some right-hand sides; returns their backward errors."""
        problem = self.problem
        norms, augmented, G = problem.evaluate(X, rows)
        # Only the kept directions count: what was cut off as zero is not asked for.
        errors = problem.stopping.backward_errors(X, augmented, problem.factor.project(G))
        self.X[rows], self.G[rows] = X, G
        better = errors < self.errors[rows]
        kept = rows[better]
        self.best_X[kept], self.best_G[kept] = X[better], G[better]
        self.norms[kept], self.augmented[kept], self.errors[kept] = norms[better], augmented[better], errors[better]
        return errors

    def note(self, errors: np.ndarray, X: Callable[[], np.ndarray]) -> None:
        try:
            self.record(errors, self.norms / self.problem.unit, lambda: self.problem.external(X()))
        except Run.Stop:
            # What the callback was shown is what it gets.
            self.errors = np.full_like(self.errors, np.inf)
            self.step(self.problem.settle(X()), np.arange(len(self.X)))
            raise

    def outcome(self, status: Status) -> Outcome:
        problem = self.problem
        # Residuals are in double precision whatever A is stored in; rounding x to the dtype of A comes on top.
        double, rounding = float(np.finfo(np.float64).eps), float(np.finfo(problem.dtype).eps)
        X, G, norms = self.best_X, self.best_G, self.norms / problem.unit
        errors = problem.reported.backward_errors(X, self.augmented, G)
        bounds = problem.reported.error_bounds(X, self.augmented, G, double) + rounding * (problem.reported.x_norms(X) > 0)
        if self.history:
            # The last entry held estimates from inside the iteration.
            self.history[-1].update(
                passes=self.matrix.passes, backward_error=float(errors.max(initial=0.0)), residual_norm=float(row_norms(norms))
            )
        return Outcome(problem.external(X), norms, errors, bounds, status, self.iterations, self.history)

    def unconverged(self) -> bool:
        """Whether some backward error is worse than asked for, or, where nothing was asked for, than a direct solver's."""
        slack = 16 if self.options.tol is None else 1
        return bool((self.errors > slack * self.tol).any())


def refine(problem: Problem, guess: np.ndarray | None, options: Options) -> Outcome:
    """Solve from the sketched solution, or from the guess where its residual is smaller."""
    run = _Iterates(problem, options)
    run.take(problem.settle(problem.start))
    if guess is not None:
        guess = problem.internal(guess)
        _, augmented, _ = problem.evaluate(guess, np.arange(len(guess)))
        better = augmented < run.augmented
        if better.any():
            run.take(np.where(better[:, None], guess, run.X))
    try:
        run.note(run.errors, lambda: run.X)
        return _krylov_lsqr(problem, run) if options.method == "lsqr" else _cycles(problem, run)
    except Run.Stop:
        return run.outcome(Status.STOPPED)


def _cycles(problem: Problem, run: _Iterates) -> Outcome:
    factor, certificate, options = problem.factor, problem.stopping, run.options
    # The operator M is applied with a relative error of about cond * eps: further inner progress would be imaginary.
    trust = min(max(4 * factor.cond * np.finfo(np.float64).eps, 1e-13), 0.05)
    idle = np.zeros(len(run.X), dtype=int)
    last = np.full(len(run.X), np.inf)
    for _ in range(_MAX_CYCLES):
        rows = np.flatnonzero((run.errors > run.tol) & (idle < 2))
        if len(rows) == 0:
            break
        if run.iterations >= options.maxiter:
            return run.outcome(Status.ITERATION_LIMIT)
        base, C = run.X[rows], factor.adjoint(run.G[rows])
        size, before = row_norms(C), run.errors[rows].copy()
        # A huge first iterate can have a small backward error: while the gradient shrinks, the run is not idle.
        shrinking = size < 0.3 * last[rows]
        last[rows] = size

        def progress(
            S: np.ndarray, Y: np.ndarray, base: np.ndarray = base, size: np.ndarray = size, rows: np.ndarray = rows
        ) -> np.ndarray:
            run.iterations += 1
            X = base + factor.apply(Y)
            estimates = certificate.upper_bounds(X, S)
            if (estimates <= 64 * run.tol).all():
                estimates = certificate.backward_errors(X, run.augmented[rows], factor.gradient(S))
            everything = run.errors.copy()
            everything[rows] = estimates
            run.note(everything, lambda: _with_rows(run.X, rows, X))
            return (estimates <= 0.5 * run.tol) | (row_norms(S) <= trust * size) | (run.iterations >= options.maxiter)

        limit = options.maxiter - run.iterations
        if options.method == "fossils":
            Y, _ = krylov.heavy_ball(problem.normal, C, progress, limit, _distortion(problem))
        else:
            Y, _ = krylov.conjugate_gradients(problem.normal, C, progress, limit)
        errors = run.step(problem.settle(base + factor.apply(Y)), rows)
        idle[rows] = np.where((errors > 0.3 * before) & ~shrinking, idle[rows] + 1, 0)
    return run.outcome(Status.STAGNATED if run.unconverged() else Status.CONVERGED)


def _with_rows(X: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    out = X.copy()
    out[rows] = new
    return out


def _distortion(problem: Problem) -> float:
    """Assumed distortion of the sketch, a little above sqrt(n / d): a fixed iteration must not be told too small a one."""
    if problem.factor.exact:
        return 0.02
    return min(1.15 * (problem.factor.rank / max(problem.d, 1)) ** 0.5, 0.95)


def _krylov_lsqr(problem: Problem, run: _Iterates) -> Outcome:
    factor, matrix, options = problem.factor, problem.matrix, run.options
    m, root = matrix.shape[0], problem.ridge**0.5

    def residual(B: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        X = factor.apply(Y) * factor.scale
        R, G, squares = matrix.residual(X, np.ascontiguousarray(B[:, :m]))
        if root:
            lower = B[:, m:] - root * X
            G += root * lower
            R, squares = np.hstack([R, lower]), squares + row_norms(lower) ** 2
        return R, factor.adjoint(G * factor.scale), squares

    base = run.X.copy()
    R, _, _ = matrix.residual(base * factor.scale, problem.B)
    R = np.hstack([R, -root * base * factor.scale]) if root else R.copy()
    best = np.full(len(base), np.inf)
    since = np.zeros(len(base), dtype=int)

    def progress(left: np.ndarray, Y: np.ndarray) -> np.ndarray:
        run.iterations += 1
        X = base + factor.apply(Y)
        estimates = problem.stopping.upper_bounds(X, left[:, None])
        run.note(estimates, lambda: X)
        since[:] = np.where(left < 0.9 * best, 0, since + 1)
        np.minimum(best, left, out=best)
        return (estimates <= 0.25 * run.tol) | (since >= 5)

    Y, iterations = krylov.lsqr(residual, R, factor.adjoint(run.G), progress, options.maxiter)
    run.step(problem.settle(base + factor.apply(Y)), np.arange(len(base)))
    if (run.errors <= run.tol).all():
        return run.outcome(Status.CONVERGED)
    if iterations >= options.maxiter:
        return run.outcome(Status.ITERATION_LIMIT)
    return run.outcome(Status.SKETCHED_ACCURACY if options.tol is None else Status.STAGNATED)
