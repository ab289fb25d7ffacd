"""Iterative refinement of a sketched solution until its backward error is that of a direct solver.

One cycle: the gradient in preconditioned coordinates c = N'A'r, an inner iteration for M dy = c, x <- x + N dy, and one pass
for the new residual, gradient and certificate. Two or three cycles reach the unit roundoff where the condition number
leaves room for it (Epperly, Meier, Nakatsukasa 2024). The best iterate is kept; a cycle that gains nothing ends the run.
"""

from __future__ import annotations

import numpy as np

from . import _forward
from ._inner import Inner, inner_for, solved
from ._numeric import norms as row_norms
from ._problem import Iterates, Options, Outcome, Problem, Run
from .result import Status

_MAX_CYCLES = 30


def refine(problem: Problem, guess: np.ndarray | None, options: Options) -> Outcome:
    """Solve from the sketched solution, or from the guess where its residual is smaller."""
    run = Iterates(problem, options)
    run.take(problem.settle(problem.start))
    if guess is not None and options.method not in _forward.SKETCH_ONLY:
        guess = problem.internal(guess)
        _, augmented, _ = problem.evaluate(guess, np.arange(len(guess)))
        better = augmented < run.augmented
        if better.any():
            run.take(np.where(better[:, None], guess, run.X))
    solve = _forward.METHODS.get(options.method, _cycles)
    try:
        run.note(run.errors, lambda: run.X)
        return solve(problem, run)
    except Run.Stop:
        return run.outcome(Status.STOPPED)


def _cycles(problem: Problem, run: Iterates) -> Outcome:
    factor, options = problem.factor, run.options
    inner = inner_for(problem.matrix, factor, problem.ridge)
    inner.reduce(run.reduction())
    idle = np.zeros(len(run.X), dtype=int)
    last = np.full(len(run.X), np.inf)
    for _ in range(_MAX_CYCLES):
        rows = np.flatnonzero((run.errors > run.tol) & (idle < 2))
        if len(rows) == 0:
            break
        if run.iterations >= options.maxiter:
            return run.outcome(Status.ITERATION_LIMIT)
        base, before, C = run.X[rows], run.errors[rows], factor.adjoint(run.G[rows])
        size = row_norms(C)
        # A huge first iterate can have a small backward error: while the gradient shrinks, the run is not idle.
        shrinking = size < 0.3 * last[rows]
        if inner.restore_if_stalled(size, last[rows]):
            idle[rows] = 0
        last[rows] = size
        Y, misjudged = _step(problem, run, inner, rows, base, C)
        errors = run.step(problem.settle(base + factor.apply(Y), rows), rows)
        # A cycle that failed for such a reason is no reason to give up.
        idle[rows] = np.where((errors > 0.3 * before) & ~(shrinking | misjudged), idle[rows] + 1, 0)
    return run.outcome(Status.STAGNATED if run.unconverged() else Status.CONVERGED)


def _step(
    problem: Problem, run: Iterates, inner: Inner, rows: np.ndarray, base: np.ndarray, C: np.ndarray
) -> tuple[np.ndarray, bool]:
    """As `solved` for some right-hand sides, whose iterates are `base`, until the certificate has enough."""
    factor, certificate, options = problem.factor, problem.stopping, run.options
    size, trust = row_norms(C), inner.trust
    everything, shown = run.errors.copy(), run.X.copy()

    def progress(live: np.ndarray, S: np.ndarray, Y: np.ndarray, steps: int = 1) -> np.ndarray:
        run.iterations += steps
        X = base[live] + factor.apply(Y)
        estimates = certificate.upper_bounds(X, S)
        if (estimates <= 64 * run.tol).all():
            estimates = certificate.backward_errors(X, run.augmented[rows[live]], factor.gradient(S))
        everything[rows[live]], shown[rows[live]] = estimates, X
        run.note(everything, lambda: shown)
        return (estimates <= 0.5 * run.tol) | (row_norms(S) <= trust * size[live]) | (run.iterations >= options.maxiter)

    limit, tail = options.maxiter - run.iterations, max(trust, float((run.tol / run.errors[rows]).min()))
    return solved(inner, options.method, C, progress, limit, tail)
