"""Methods that are forward stable, and those that only solve the sketched problem."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.stats

from . import krylov
from ._inner import inner_for
from ._numeric import norms as row_norms
from ._problem import Iterates, Outcome, Problem
from .result import Status

FALSE_ALARM = 1e-6  # probability with which `linf_bound` may fail for a right-hand side
_PATIENCE = 5  # iterations without a tenth of progress


def lsqr(problem: Problem, run: Iterates) -> Outcome:
    """LSQR on A N from the first iterates."""
    factor, options, base = problem.factor, run.options, run.X.copy()
    inner = inner_for(problem.matrix, factor, problem.ridge)
    best, since = np.full(len(base), np.inf), np.zeros(len(base), dtype=int)
    everything, shown = run.errors.copy(), base.copy()

    def progress(live: np.ndarray, left: np.ndarray, Y: np.ndarray, steps: int = 1) -> np.ndarray:
        run.iterations += steps
        X = base[live] + factor.apply(Y)
        estimates = problem.stopping.upper_bounds(X, left[:, None])
        everything[live], shown[live] = estimates, X
        run.note(everything, lambda: shown)
        since[live] = np.where(left < 0.9 * best[live], 0, since[live] + steps)
        best[live] = np.minimum(best[live], left)
        return (estimates <= 0.25 * run.tol) | (since[live] >= _PATIENCE)

    start = base * factor.scale, problem.B, factor.adjoint(run.G), run.augmented
    Y = inner.lsqr(*start, progress, options.maxiter, factor.distortion, run.reduction())
    run.end_at(base + factor.apply(Y))
    return _forward_outcome(problem, run)


def momentum(problem: Problem, run: Iterates) -> Outcome:
    """Iterative sketching with damping and momentum (Epperly 2024): x <- x + a N N'A'(b - A x) + c (x - last x).

    Residual and gradient are recomputed in every pass, which is what makes it forward stable. The best iterate is that of
    the smallest ||N'A'r||. Where that grows or stalls above the rounding errors, the sketch was worse than assumed: the
    iteration goes on from the best iterate with more damping, as long as that is of use.
    """
    factor, options, distortion = problem.factor, run.options, problem.factor.distortion
    live = np.arange(len(run.X))
    X, C = run.X.copy(), factor.adjoint(run.G)
    previous, best = X, row_norms(C)
    inner = inner_for(problem.matrix, factor, problem.ridge)
    steps = inner.first_steps(run.reduction(), distortion)
    since = np.zeros(len(X), dtype=int)
    everything, shown = run.errors.copy(), X.copy()
    while len(live) and run.iterations < options.maxiter:
        steps = min(steps, options.maxiter - run.iterations)
        X, previous, *evaluated = inner.momentum(X, previous, C, problem.right_hand_sides(live), steps, distortion)
        norms, augmented, G = problem.norms_and_gradients(X, *evaluated)
        run.iterations += steps
        C = factor.adjoint(G)
        size = row_norms(C)
        estimates = problem.stopping.upper_bounds(X, C)
        if (estimates <= 64 * run.tol).all():
            estimates = problem.stopping.backward_errors(X, augmented, factor.project(G))
        better = size < best
        run.keep(live[better], *(v[better] for v in (X, norms, augmented, G, estimates)))
        everything[live], shown[live] = estimates, X
        run.note(everything, lambda: shown)
        since = np.where(size < 0.9 * best, 0, since + steps)
        steps = inner.few
        best = np.where(better, size, best)
        finished = estimates <= run.tol
        if options.tol is None:
            finished |= size <= problem.rounding(X, augmented, 0.04)  # Epperly's rule
        failed = ~finished & (~(size <= 100 * best) | (since >= max(_PATIENCE, 2 / (1 - distortion))))
        if failed.any():
            wrong = failed & ~(best <= 10 * problem.rounding(X, augmented, 1.0))
            if wrong.any() and krylov.widened(distortion) > distortion:
                distortion = krylov.widened(distortion)
                X[wrong] = previous[wrong] = run.best_X[live[wrong]]
                C[wrong] = factor.adjoint(run.best_G[live[wrong]])
                since[wrong] = 0
                failed &= ~wrong
            finished |= failed
        live, X, previous, C, best, since = krylov.keep(~finished, live, X, previous, C, best, since)
    run.end_at(run.best_X)
    return _forward_outcome(problem, run)


def _forward_outcome(problem: Problem, run: Iterates) -> Outcome:
    if (run.errors <= run.tol).all():
        return run.outcome(Status.CONVERGED)
    if run.iterations >= run.options.maxiter:
        return run.outcome(Status.ITERATION_LIMIT)
    left = row_norms(problem.factor.adjoint(run.best_G))
    stable = left <= 10 * problem.rounding(run.best_X, run.augmented, 1.0)
    return run.outcome(Status.SKETCHED_ACCURACY if run.options.tol is None and stable.all() else Status.STAGNATED)


def sketch_and_solve(problem: Problem, run: Iterates) -> Outcome:
    """The first iterates are the answer."""
    return run.outcome(Status.SKETCH_AND_SOLVE)


def linf(problem: Problem, run: Iterates) -> Outcome:
    """Sketch-and-solve with a bound of the error of every entry of x.

    With r = b - A x* of the exact solution, orthogonal to the range of A, the entries of S r for a Gaussian S of d rows are
    N(0, ||r||^2 / d) and independent of S A. Given S A, the error (S A)^+ S r is N(0, ||r||^2 / d N N'), and ||r|| is at most
    the residual that was reached. Rounding errors of the sketch are bounded as relative changes eps of S A.
    """
    factor, X, eps = problem.factor, run.best_X, float(np.finfo(problem.dtype).eps)
    outcome = run.outcome(Status.SKETCH_AND_SOLVE)
    n = len(factor.scale)
    if factor.rank < n:
        outcome.linf_bound = np.full(len(X), np.inf)
        return outcome
    quantile = float(scipy.stats.norm.isf(FALSE_ALARM / (2 * max(n, 1))))
    deviations = (factor.scale * factor.row_norms()).max(initial=0.0)
    sizes = quantile * run.augmented / factor.rows**0.5 + 4 * problem.rounding(X, run.augmented, 1.0)
    outcome.linf_bound = deviations * sizes / problem.unit + eps * np.abs(outcome.X).max(axis=1, initial=0.0)
    return outcome


SKETCH_ONLY = ("sketch", "linf")
METHODS: dict[str, Callable[[Problem, Iterates], Outcome]] = {
    "lsqr": lsqr,
    "momentum": momentum,
    "sketch": sketch_and_solve,
    "linf": linf,
}
