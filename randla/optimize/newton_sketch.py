"""Newton's method with sketched Hessians for generalized linear models: `newton_sketch`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.linalg

from .. import _check
from .._backend import like, namespace, parameters, to_host
from .._device import DeviceMatrix
from .._matrix import wrap
from .._numeric import SOLVE, SOLVE_TRANSPOSED, cholesky, inverse, triangular
from ..precondition import distribution
from ._line_search import backtracking
from .objective import Counts
from .result import MinimizeResult, MinimizeStatus, MinimizeWarning

_EPS = float(np.finfo(np.float64).eps)
_ROWS_PER_COLUMN = 8
_SLOW = 0.25  # ratio of successive squared decrements at which the sketch is doubled
_MANY = 12  # products in one step at which the sketch is doubled
_LOOSEST = 0.1  # relative error of an inner solution, in the norm of the preconditioner
_INNER = 200
_ARMIJO = 0.2  # share of the predicted decrease: a step of a sketch can go far astray where the loss is flat
_PATIENCE = 5
_TRIALS = 200  # step lengths: where the Hessian nearly vanishes, steps are too long by any power of ten


class _Inverse:
    """The inverse of Y'Y + diag(penalty) for Y (k, dim), of a Hessian that was formed where Y is None.

    effective: its effective dimension, the trace of Y'Y (Y'Y + diag(penalty))^-1.
    """

    def __init__(self, Y: np.ndarray | None, penalty: np.ndarray, H: np.ndarray | None = None):
        self.vectors: np.ndarray | None = None
        self.Y: np.ndarray | None = None
        dim = len(penalty)
        if Y is not None and len(Y) < dim and bool((penalty > 0).all()):
            # Woodbury: the small matrix is the better conditioned one.
            self.scale = 1 / np.sqrt(penalty)
            self.Y = Y * self.scale
            K = self.Y @ self.Y.T
            K[np.diag_indices(len(K))] += 1
        else:
            if H is None:
                assert Y is not None
                H = Y.T @ Y + np.diag(penalty)
            K = H
            diagonal = K.diagonal()
            self.scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
            K = K * self.scale * self.scale[:, None]
        self.R = cholesky(K)
        if self.R is not None and self.Y is None:
            # Where rounding decides on the smallest pivots, so do eigenvalues that are cut off below.
            pivots = np.abs(self.R.diagonal())
            if float(pivots.min(initial=1.0)) ** 2 < 10 * dim * _EPS * float(pivots.max(initial=1.0)) ** 2:
                self.R = None
        if self.R is None:
            values, vectors = scipy.linalg.eigh(K, driver="evd", check_finite=False)
            kept = values > 10 * dim * _EPS * max(float(values[-1]), 0.0)
            self.vectors = vectors[:, kept] / np.sqrt(values[kept])
            inverses = np.sum(self.vectors**2, axis=1)
        else:
            inverses = np.sum(inverse(self.R) ** 2, axis=1)
        if self.Y is not None:
            self.effective = len(K) - float(inverses.sum())
        else:
            held = float(np.sum(inverses * self.scale**2 * penalty))
            self.effective = (dim if self.vectors is None else self.vectors.shape[1]) - held

    def __call__(self, v: np.ndarray) -> np.ndarray:
        if self.Y is not None:
            v = v * self.scale
            return (v - self.Y.T @ self._solve(self.Y @ v)) * self.scale
        return self._solve(v * self.scale) * self.scale

    def _solve(self, v: np.ndarray) -> np.ndarray:
        if self.vectors is not None:
            return self.vectors @ (self.vectors.T @ v)
        assert self.R is not None
        return triangular(SOLVE, self.R, triangular(SOLVE_TRANSPOSED, self.R, v[None]))[0]


def newton_sketch(
    problem: Any,
    x0: Any,
    *,
    sketch: Any = None,
    sketch_size: int | None = None,
    adaptive: bool = True,
    exact: bool = True,
    gtol: float = 1e-8,
    maxiter: int = 100,
    callback: Callable[[Any], None] | None = None,
    verbose: int = 0,
    rng: Any = None,
) -> MinimizeResult:
    """Minimize a convex GLM by Newton steps whose Hessian X' D X + P is sketched anew in every iteration.

    D^(1/2) X, with the second derivatives D >= 0 of the loss, is replaced by its sketch S D^(1/2) X; the diagonal P of the
    regularizer is kept as it is, so that the sketch needs rows of the order of the effective dimension
    tr(X'DX (X'DX + P)^-1) only, which an l2 term makes small (partial sketching; Pilanci, Wainwright 2017; Lacotte, Wang,
    Pilanci 2021).

    Parameters
    ----------
    problem : GLM
        With one coefficient per column of X (n, dim), dense or CSR, a loss whose second derivatives are not negative and a
        regularizer with a diagonal Hessian.
    x0 : array (dim,)
        Of the host, or of the device that the problem is on, where x and jac of the result are.
    sketch : Distribution, default BlockSRHT() for dense and SparseStack() for sparse X
    sketch_size : int
        Rows of the first sketch; default 8 dim. From n on the Hessian is formed instead.
    adaptive : bool
        Double the sketch whenever it shows itself too small: with `exact`, when a step took more than 12 products; without,
        when the squared Newton decrement did not fall by a factor of 4 over a step of full length.
    exact : bool
        True: steps solve with the true Hessian by conjugate gradients that the sketch preconditions, a few products each, with
        forcing terms that make the convergence quadratic. False: the Newton sketch itself, whose steps
        -(1 - d / k) H_S^-1 g cost one sketch and converge linearly, by about sqrt(d / k) for a sketch of k rows and effective
        dimension d; the factor takes away the bias of the inverse (Derezinski, Bartan, Pilanci, Mahoney 2020).
    gtol : float
        Goal for the norm of the gradient.
    maxiter : int
    callback : callable
        Called as callback(intermediate_result=...) after every iteration with the fields of a history entry and x;
        StopIteration ends the run. x is a NumPy array.
    verbose : int
        1 prints the outcome, 2 a line per iteration.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `seed` of the result replays the run.

    Returns
    -------
    MinimizeResult
        nhev counts products with the true Hessian, `sketches` the sketches; a sketch counts n props; min_eig is the smallest
        entry of P, below which no eigenvalue is. History entries:
        iteration, props, time, fun, grad_norm, decrement (g'M^-1 g)^(1/2) of the step before, step, sketch_size, products.

    Warns
    -----
    MinimizeWarning
        Stagnation, iteration limit, no curvature along the gradient.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError where a second derivative is negative (use `minimize`), and where F or its gradient
        is not finite at x0.
    """
    for name in ("X", "at", "penalty_diagonal"):
        if not hasattr(problem, name):
            raise TypeError(f"problem must be a GLM, with {name}; got {type(problem).__name__}: minimize() takes any FiniteSum")
    if problem.dim != problem.X.shape[1]:
        raise ValueError(
            f"problem must have one coefficient per column of X; got {problem.dim} for {problem.X.shape[1]}: use minimize()"
        )
    x = _check.vector(parameters(x0, problem.X), "x0", problem.dim)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r}")
    family = distribution(sketch, wrap(problem.X))
    size = _ROWS_PER_COLUMN * problem.dim if sketch_size is None else _check.integer(sketch_size, "sketch_size", 1)
    gtol, maxiter = _check.real(gtol, "gtol"), _check.integer(maxiter, "maxiter", 0)
    verbose = _check.integer(verbose, "verbose", 0)
    run = _Run(problem, family, max(size, 1), bool(adaptive), bool(exact), callback, verbose, _check.seed(rng))
    result = run.minimize(x.astype(np.float64), gtol, maxiter)
    if verbose:
        print(result.message)
    if not result.success and result.status is not MinimizeStatus.STOPPED:
        warnings.warn(result.message, MinimizeWarning, stacklevel=2)
    return result


class _Run:
    def __init__(
        self, problem: Any, family: Any, size: int, adaptive: bool, exact: bool, callback: Any, verbose: int, seed: int
    ):
        self.problem, self.family, self.size, self.seed = problem, family, size, seed
        self.adaptive, self.exact, self.callback, self.verbose = adaptive, exact, callback, verbose
        self.n, self.counts, self.sketches = int(problem.n), Counts(), 0
        self.history: list[dict[str, Any]] = []
        self.began = time.perf_counter()

    def minimize(self, x: np.ndarray, gtol: float, maxiter: int) -> MinimizeResult:
        at = self.problem.at(x, None, self.counts)
        with np.errstate(all="ignore"):
            finite = math.isfinite(at.fun) and bool(np.isfinite(at.grad).all())
        if not finite:
            raise ValueError(f"problem must be finite at x0; got F = {at.fun:g}")
        best, last, stalled, iteration = at, math.inf, 0, 0
        first = self.norm(at.grad)
        made: dict[str, Any] = {"decrement": math.nan, "step": math.nan, "sketch_size": 0, "products": 0}
        while True:
            size = self.norm(at.grad)
            if size < self.norm(best.grad):
                best = at
            try:
                self.record(at, iteration, size, made)
            except StopIteration:
                return self.result(at, iteration, MinimizeStatus.STOPPED)
            if size <= gtol:
                return self.result(at, iteration, MinimizeStatus.CONVERGED)
            if iteration >= maxiter:
                return self.result(best, iteration, MinimizeStatus.ITERATION_LIMIT)
            if stalled >= _PATIENCE:
                return self.result(best, iteration, MinimizeStatus.STAGNATED)
            M, rows = self.preconditioner(at, iteration)
            iteration += 1
            p = M(at.grad)
            decrement, products = float(at.grad @ p), self.counts.nhev
            if rows < self.n:
                p = self.solve(at, M, size / first) if self.exact else (1 - M.effective / rows) * p
            products = self.counts.nhev - products
            slope = -float(at.grad @ p)
            if not slope:
                # No curvature where the gradient points, as far out on a loss with straight branches.
                return self.result(best, iteration, MinimizeStatus.INDEFINITE)
            ray = at.ray(-p)
            with np.errstate(all="ignore"):
                noise = ray.noise()
                found = backtracking(ray.change, slope, rho=_ARMIJO, slack=noise, maxiter=_TRIALS)
                after = ray.accept(found.step) if found.step else at
                if not (found.step and np.isfinite(after.grad).all()):
                    return self.result(best, iteration, MinimizeStatus.STAGNATED)
            at = after
            if -slope <= noise:
                stalled = 0 if self.norm(at.grad) < 0.9 * self.norm(best.grad) else stalled + 1
            made = {"decrement": math.sqrt(max(decrement, 0.0)), "step": found.step, "sketch_size": rows, "products": products}
            slow = products > _MANY if self.exact else found.step == 1 and decrement > _SLOW * last
            last = decrement if found.step == 1 else math.inf
            if self.adaptive and slow and rows < self.n:
                self.size, last = 2 * self.size, math.inf

    @staticmethod
    def norm(g: np.ndarray) -> float:
        return math.sqrt(g @ g)

    def preconditioner(self, at: Any, k: int) -> tuple[_Inverse, int]:
        """From the k-th sketch, and its rows; n where the Hessian was formed."""
        xp = namespace(at.weights)
        weights, penalty = xp.asarray(at.weights, np.float64), np.asarray(self.problem.penalty_diagonal(at.x), np.float64)
        least = min(float(weights.min()), float(penalty.min()), 0.0)
        if least < 0:
            raise ValueError(
                f"problem must have a loss and a regularizer without negative second derivatives; got {least:.3g}: use "
                f"minimize(), which takes non-convex ones"
            )
        if self.size >= self.n:
            return _Inverse(None, penalty, at.hessian().to_dense()), self.n
        seed = int(np.random.SeedSequence(self.seed, spawn_key=(k,)).generate_state(1, np.uint64)[0])
        S = self.family.sample(self.size, self.n, rng=seed)
        self.sketches, self.counts.props = self.sketches + 1, self.counts.props + self.n
        matrix, none = wrap(self.problem.X, weights), xp.zeros((0, self.n))
        if isinstance(matrix, DeviceMatrix) and self.size >= len(penalty):
            # Less comes to the host than the sketch, and it is what would be made of it there.
            Y, _ = matrix.stacked(S, none)
            return _Inverse(None, penalty, to_host(Y.T @ Y) + np.diag(penalty)), self.size
        Y = np.concatenate([part for part, _ in matrix.sketched(S, none)])
        return _Inverse(Y, penalty), self.size

    def solve(self, at: Any, M: _Inverse, progress: float) -> np.ndarray:
        """H^-1 g by preconditioned conjugate gradients, to a relative error that goes to zero with the gradient."""
        H, g = at.hessian(), at.grad
        p, r = np.zeros(len(g)), g
        z = M(r)
        d, rho = z, float(r @ z)
        goal = rho * min(_LOOSEST, math.sqrt(progress)) ** 2
        for _ in range(_INNER):
            Hd = H @ d
            curvature = float(d @ Hd)
            if not curvature > 0:
                break
            alpha = rho / curvature
            p, r = p + alpha * d, r - alpha * Hd
            z = M(r)
            new = float(r @ z)
            if not new > goal:
                break
            d, rho = z + new / rho * d, new
        return p if p.any() else M(g)

    def record(self, at: Any, iteration: int, size: float, made: dict[str, Any]) -> None:
        spent, props = time.perf_counter() - self.began, self.counts.props
        entry = {"iteration": iteration, "props": props, "time": spent, "fun": at.fun, "grad_norm": size, **made}
        self.history.append(entry)
        if self.verbose > 1:
            if len(self.history) == 1:
                print(
                    f"{'iteration':>9} {'props / n':>10} {'time':>8} {'fun':>14} {'gradient':>10} {'sketch':>7} {'products':>8}"
                )
            print(
                f"{iteration:9d} {props / self.n:10.1f} {spent:8.3f} {at.fun:14.7e} {size:10.3e} "
                f"{made['sketch_size']:7d} {made['products']:8d}"
            )
        if self.callback is not None:
            self.callback(intermediate_result=SimpleNamespace(**entry, x=at.x.copy()))

    def result(self, at: Any, nit: int, status: MinimizeStatus) -> MinimizeResult:
        return MinimizeResult(
            x=like(self.problem.X, at.x.copy()),
            fun=at.fun,
            jac=like(self.problem.X, at.grad),
            grad_norm=self.norm(at.grad),
            min_eig=float(np.min(self.problem.penalty_diagonal(at.x), initial=math.inf)),
            min_eig_error=0.0,
            nit=nit,
            nfev=self.counts.nfev,
            njev=self.counts.njev,
            nhev=self.counts.nhev,
            props=self.counts.props,
            sketches=self.sketches,
            sketch_size=self.size,
            status=status,
            message=status.value,
            success=status.success,
            seed=self.seed,
            history=self.history,
        )
