"""One least-squares problem in the variables of its factor, and the state of a run: iterates, evidence, history."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ._backend import like
from ._factor import Factor
from ._matrix import TallMatrix
from ._numeric import norms as row_norms
from ._numeric import powers_of_two
from .certificate import Certificate
from .result import Status, as_solution


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
    linf_bound: np.ndarray | None = None


class Problem:
    """min ||B' - A X'||^2 + ridge ||X||^2 in the factor's scaled variables, X / D, with right-hand sides of size one.

    Units of columns and of right-hand sides are taken out by powers of two: they neither decide when the solution is good
    enough nor overflow. Takes B over, whose rows are the columns of the caller's b times `unit`, and that.
    """

    def __init__(
        self,
        matrix: TallMatrix,
        b: np.ndarray,
        B: np.ndarray,
        ridge: float,
        factor: Factor,
        dtype: np.dtype,
        start_time: float,
        unit: np.ndarray,
    ):
        self.matrix, self.ridge, self.factor, self.b = matrix, ridge, factor, b
        self.dtype, self.start_time = dtype, start_time
        self.B, self.unit, self.start = B, unit, factor.start
        scale = factor.scale
        root = math.sqrt(len(b))
        if scale.min(initial=1.0) < 2.0**-1000 * root:
            # Sums of a gradient could overflow; more room than that would be lost below.
            self._rescale(np.full(len(unit), powers_of_two(np.array(8 * root))))
        small_columns = scale.max(initial=0.0) > 2.0**900
        if small_columns:
            # x could overflow in these units, though not in the caller's.
            sizes = (np.log2(np.maximum(abs(self.start), 1e-300)) + np.log2(scale)).max(axis=1)
            self._rescale(np.exp2(np.minimum(990 - np.ceil(sizes), 0)))
        # Columns that differ little in size are left to the certificate of A itself, which is then needed only once.
        alike = len(scale) == 0 or scale.max() <= 4 * scale.min()
        self.reported = Certificate(factor, scale)
        self.stopping = self.reported if alike else Certificate(factor, np.ones_like(scale))
        self.null_space = factor.null_space()
        limits = np.finfo(dtype)
        # Whether entries of x may be too small to be held to full precision.
        self.coarse = len(scale) > 0 and float(scale.min() / unit.max(initial=0.0)) < limits.tiny / limits.eps**2
        # What underflow may have taken of a gradient.
        smallest = float(np.finfo(np.float64).smallest_subnormal)
        self.lost = 0.5 * root * scale * smallest if small_columns else None

    def _rescale(self, factors: np.ndarray) -> None:
        self.B *= like(self.B, factors[:, None])
        self.unit, self.start = self.unit * factors, self.start * factors[:, None]

    def external(self, X: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Solutions in the caller's units, for some right-hand sides."""
        return X * self.factor.scale / self.unit[rows, None]

    def internal(self, X: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        return X / self.factor.scale * self.unit[rows, None]

    def settle(self, X: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """X as it can be returned, for some right-hand sides: of minimum norm, rounded to the dtype of the data."""
        if self.null_space is not None:
            relative = self.factor.scale / self.factor.scale.max()
            outer = X * relative
            X = (outer - (outer @ self.null_space) @ self.null_space.T) / relative
        if self.coarse:
            return self.internal(self.external(X, rows).astype(self.dtype), rows)
        return X if self.dtype == np.float64 else X.astype(self.dtype).astype(np.float64)

    def evaluate(self, X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Norms of b - A x, norms of the residual of the augmented problem, gradients. One pass."""
        return self.norms_and_gradients(X, *self.matrix.evaluated(X * self.factor.scale, self.right_hand_sides(rows)))

    def right_hand_sides(self, rows: np.ndarray) -> np.ndarray:
        return self.B if len(rows) == len(self.B) else self.B[like(self.B, rows)]

    def norms_and_gradients(
        self, X: np.ndarray, G: np.ndarray, squares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `evaluate` gives, from a pass over A with X in the units of A."""
        if self.ridge == 0:
            return np.sqrt(squares), np.sqrt(squares), G * self.factor.scale
        outer = X * self.factor.scale
        G -= self.ridge * outer
        return np.sqrt(squares), np.sqrt(squares + self.ridge * row_norms(outer) ** 2), G * self.factor.scale

    def rounding(self, X: np.ndarray, residual_norms: np.ndarray, weight: float) -> np.ndarray:
        """Size of ||A dx|| for errors dx that a relative change eps of A causes, to first order (Wedin 1973): what a forward
        stable method is left with; `weight` goes to the part of the residual."""
        high = self.factor.extremes[0]
        return float(np.finfo(self.dtype).eps) * (high * row_norms(X) + weight * self.factor.cond * residual_norms)


class Run:
    """Counts, history, verbose lines and callbacks of one solve."""

    class Stop(Exception):
        """The callback asked to stop."""

    def __init__(self, options: Options, eps: float, matrix: TallMatrix, start_time: float):
        self.options, self.matrix, self.start_time = options, matrix, start_time
        self.tol = eps / 4 if options.tol is None else options.tol
        self.slack = 16 if options.tol is None else 1
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


class Iterates(Run):
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
        self.keep(rows[better], *(v[better] for v in (X, norms, augmented, G, errors)))
        return errors

    def keep(
        self, rows: np.ndarray, X: np.ndarray, norms: np.ndarray, augmented: np.ndarray, G: np.ndarray, errors: np.ndarray
    ) -> None:
        """Make X the best iterates of some right-hand sides."""
        self.best_X[rows], self.best_G[rows] = X, G
        self.norms[rows], self.augmented[rows], self.errors[rows] = norms, augmented, errors

    def end_at(self, X: np.ndarray) -> None:
        """Make X, as it can be returned, the best iterates of all right-hand sides."""
        settled = self.problem.settle(X)
        if settled is self.best_X:
            gradients = self.problem.factor.project(self.best_G)
            self.errors = self.problem.stopping.backward_errors(self.best_X, self.augmented, gradients)
        else:
            self.errors = np.full_like(self.errors, np.inf)
            self.step(settled, np.arange(len(X)))

    def reduction(self) -> float:
        """What is still missing of the backward errors, as a factor."""
        return float((self.tol / np.maximum(self.errors, self.tol)).min(initial=1.0))

    def note(self, errors: np.ndarray, X: Callable[[], np.ndarray]) -> None:
        try:
            problem = self.problem
            self.record(errors, self.norms / problem.unit, lambda: as_solution(problem.external(X()), problem.b, problem.dtype))
        except Run.Stop:
            # What the callback was shown is what it gets.
            self.end_at(X())
            raise

    def outcome(self, status: Status) -> Outcome:
        problem = self.problem
        # Residuals are in double precision whatever A is stored in; rounding x to the dtype of A comes on top.
        double, rounding = float(np.finfo(np.float64).eps), float(np.finfo(problem.dtype).eps)
        X, G, norms = self.best_X, self.best_G, self.norms / problem.unit
        errors = problem.reported.backward_errors(X, self.augmented, G)
        bounds = problem.reported.error_bounds(X, self.augmented, G, double) + rounding * (problem.reported.x_norms(X) > 0)
        if problem.lost is not None:
            lost = np.minimum(problem.lost, self.augmented[:, None] * problem.factor.column_norms())
            errors += problem.reported.backward_errors(X, self.augmented, lost)
            bounds += problem.reported.error_bounds(X, self.augmented, lost, 0.0)
            if status is Status.CONVERGED and not (errors <= self.slack * self.tol).all():
                status = Status.STAGNATED
        if self.history:
            # The last entry held estimates from inside the iteration.
            self.history[-1].update(
                passes=self.matrix.passes, backward_error=float(errors.max(initial=0.0)), residual_norm=float(row_norms(norms))
            )
        return Outcome(problem.external(X), norms, errors, bounds, status, self.iterations, self.history)

    def unconverged(self) -> bool:
        """Whether some backward error is worse than asked for, or, where nothing was asked for, than a direct solver's."""
        return not (self.errors <= self.slack * self.tol).all()
