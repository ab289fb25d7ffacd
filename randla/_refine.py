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
from .certificate import Certificate
from .precondition import Factor
from .result import Status

_MAX_CYCLES = 30


@dataclasses.dataclass
class Options:
    tol: float | None
    maxiter: int
    callback: Callable[[Any], None] | None
    verbose: int


@dataclasses.dataclass
class Outcome:
    X: np.ndarray
    residual_norms: np.ndarray
    G: np.ndarray
    backward_errors: np.ndarray
    status: Status
    iterations: int
    history: list[dict[str, Any]]


class Problem:
    """min ||B' - A X'||^2 + ridge ||X||^2, with the factor that preconditions and certifies it."""

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
        self.matrix, self.B, self.ridge, self.factor, self.d = matrix, B, ridge, factor, d
        self.dtype, self.start_time = dtype, start_time
        self.certificate = Certificate(factor)
        self.null_space = factor.null_space()

    def settle(self, X: np.ndarray) -> np.ndarray:
        """X as it can be returned: of minimum norm, rounded to the dtype of the data."""
        if self.null_space is not None:
            X = X - (X @ self.null_space) @ self.null_space.T
        return X if self.dtype == np.float64 else X.astype(self.dtype).astype(np.float64)

    def evaluate(self, X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Norms of b - A x, norms of the residual of the augmented problem, gradients. One pass."""
        _, G, squares = self.matrix.residual(X, np.ascontiguousarray(self.B[rows]))
        if self.ridge == 0:
            return np.sqrt(squares), np.sqrt(squares), G
        G -= self.ridge * X
        return np.sqrt(squares), np.sqrt(squares + self.ridge * np.einsum("ij,ij->i", X, X)), G

    def normal(self, Z: np.ndarray) -> np.ndarray:
        """N'(A'A + ridge) N applied to every row. One pass."""
        V = self.factor.apply(Z)
        _, G, _ = self.matrix.residual(V, None)
        if self.ridge:
            G -= self.ridge * V
        return -self.factor.adjoint(G)


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
            "residual_norm": float(np.linalg.norm(norms)),
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
    """The best iterate of every right-hand side, with its evidence."""

    def __init__(self, problem: Problem, options: Options):
        super().__init__(options, float(np.finfo(problem.dtype).eps), problem.matrix, problem.start_time)
        self.problem = problem
        self.X = np.zeros((0, 0))
        self.norms = self.augmented = self.errors = np.zeros(0)
        self.G = np.zeros((0, 0))

    def take(self, X: np.ndarray) -> None:
        """Make X the first iterates of all right-hand sides."""
        self.X = X
        self.norms, self.augmented, self.G = self.problem.evaluate(X, np.arange(len(X)))
        # Far from the goal a bound will do; the exact estimate needs a factorization.
        self.errors = self.problem.certificate.upper_bounds(X, self.problem.factor.adjoint(self.G))
        if not (self.errors > 1e4 * self.tol).all():
            self.errors = self.problem.certificate.backward_errors(X, self.augmented, self.G)

    def offer(self, X: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Evaluate new iterates for some right-hand sides, keep those that are better; returns their backward errors."""
        norms, augmented, G = self.problem.evaluate(X, rows)
        errors = self.problem.certificate.backward_errors(X, augmented, G)
        better = errors < self.errors[rows]
        kept = rows[better]
        self.X[kept], self.G[kept] = X[better], G[better]
        self.norms[kept], self.augmented[kept], self.errors[kept] = norms[better], augmented[better], errors[better]
        return errors

    def outcome(self, status: Status) -> Outcome:
        return Outcome(self.X, self.norms, self.G, self.errors, status, self.iterations, self.history)


def refine(problem: Problem, method: str, guess: np.ndarray | None, options: Options) -> Outcome:
    """Solve from the sketched solution, or from the guess where its residual is smaller."""
    run = _Iterates(problem, options)
    run.take(problem.settle(problem.factor.start))
    if guess is not None:
        norms, augmented, _ = problem.evaluate(guess, np.arange(len(guess)))
        better = augmented < run.augmented
        if better.any():
            run.take(np.where(better[:, None], guess, run.X))
    try:
        run.record(run.errors, run.norms, lambda: run.X)
        if method == "lsqr":
            return _krylov_lsqr(problem, run)
        return _cycles(problem, run, method)
    except Run.Stop:
        return run.outcome(Status.STOPPED)


def _cycles(problem: Problem, run: _Iterates, method: str) -> Outcome:
    factor, certificate, options = problem.factor, problem.certificate, run.options
    # The operator M is applied with a relative error of about cond * eps: further inner progress would be imaginary.
    trust = min(max(4 * factor.cond * np.finfo(np.float64).eps, 1e-13), 0.05)
    idle = np.zeros(len(run.X), dtype=int)
    status = Status.CONVERGED
    for _ in range(_MAX_CYCLES):
        rows = np.flatnonzero((run.errors > run.tol) & (idle < 2))
        if len(rows) == 0:
            break
        if run.iterations >= options.maxiter:
            status = Status.ITERATION_LIMIT
            break
        base, C = run.X[rows], factor.adjoint(run.G[rows])
        size = np.linalg.norm(C, axis=1)
        before = run.errors[rows].copy()

        def progress(
            S: np.ndarray,
            Y: np.ndarray,
            base: np.ndarray = base,
            size: np.ndarray = size,
            rows: np.ndarray = rows,
        ) -> np.ndarray:
            run.iterations += 1
            left = np.linalg.norm(S, axis=1)
            X = base + factor.apply(Y)
            estimates = certificate.upper_bounds(X, S)
            if (estimates <= 64 * run.tol).all():
                estimates = certificate.backward_errors(X, run.augmented[rows], factor.gradient(S))
            everything = run.errors.copy()
            everything[rows] = estimates
            run.record(everything, run.norms, lambda: _with_rows(run.X, rows, X))
            return (estimates <= 0.5 * run.tol) | (left <= trust * size) | (run.iterations >= options.maxiter)

        limit = options.maxiter - run.iterations
        if method == "fossils":
            Y, _ = krylov.heavy_ball(problem.normal, C, progress, limit, _distortion(problem))
        else:
            Y, _ = krylov.conjugate_gradients(problem.normal, C, progress, limit)
        errors = run.offer(problem.settle(base + factor.apply(Y)), rows)
        idle[rows] = np.where(errors > 0.3 * before, idle[rows] + 1, 0)
    unfinished = run.errors > run.tol
    if status is Status.CONVERGED and (run.errors[unfinished] > 16 * run.tol).any():
        status = Status.STAGNATED
    return run.outcome(status)


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
        X = factor.apply(Y)
        R, G, squares = matrix.residual(X, np.ascontiguousarray(B[:, :m]))
        if not root:
            return R, factor.adjoint(G), squares
        lower = B[:, m:] - root * X
        G += root * lower
        return np.hstack([R, lower]), factor.adjoint(G), squares + np.einsum("ij,ij->i", lower, lower)

    base = run.X.copy()
    R, G, _ = matrix.residual(base, problem.B)
    R = R.copy() if not root else np.hstack([R, -root * base])
    G0 = factor.adjoint(G - problem.ridge * base)
    fro, x_norms = factor.frobenius, np.linalg.norm(base, axis=1)
    best = np.full(len(base), np.inf)
    since = np.zeros(len(base), dtype=int)

    def progress(left: np.ndarray, Y: np.ndarray) -> np.ndarray:
        run.iterations += 1
        estimates = left / np.where(x_norms > 0, x_norms * fro, 1)
        run.record(estimates, run.norms, lambda: base + factor.apply(Y))
        since[:] = np.where(left < 0.9 * best, 0, since + 1)
        np.minimum(best, left, out=best)
        return (estimates <= 0.25 * run.tol) | (since >= 5)

    Y, iterations = krylov.lsqr(residual, R, G0, progress, options.maxiter)
    rows = np.arange(len(base))
    run.offer(problem.settle(base + factor.apply(Y)), rows)
    if iterations >= options.maxiter and (run.errors > run.tol).any():
        return run.outcome(Status.ITERATION_LIMIT)
    return run.outcome(Status.CONVERGED if (run.errors <= run.tol).all() else Status.SKETCHED_ACCURACY)
