"""Minimization over a convex set: `minimize_constrained`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import _check
from .._backend import like, parameters
from ._faces import Face
from ._model_path import ModelPath
from ._projections import Box, Constraint, L1Ball, L2Ball, Simplex
from ._samples import RowOrder
from .certificate import EigenBound, smallest_eigenvalue
from .objective import Counts, Evaluation, Hessian, Sample
from .result import ConstrainedResult, ConstrainedStatus, MinimizeWarning

__all__ = ["Box", "ConstrainedResult", "ConstrainedStatus", "Constraint", "L1Ball", "L2Ball", "Simplex", "minimize_constrained"]

_EPS = float(np.finfo(np.float64).eps)
_DENSE, _DENSE_BY_PRODUCTS = 256, 32  # up to these dimensions H is formed: its products with vectors would cost more
_ACCEPTED, _GOOD, _POOR = 1e-4, 0.75, 0.25  # shares of the predicted decrease
_GROWTH, _SHRINKAGE = 3.0, 0.25
_ROUNDING = 20 * _EPS  # of F, relative: differences that say nothing
_PATIENCE = 5
_REJECTIONS = 60  # in a row: the radius is 4^-60 of what it was
_INNER = 100


class _OnFace:
    """Z'HZ for the tangent space of a face."""

    def __init__(self, H: Hessian, face: Face):
        self.H, self.face, self.shape = H, face, (face.dim, face.dim)

    def __matmul__(self, z: np.ndarray) -> np.ndarray:
        return self.face.restrict(self.H @ self.face.lift(z)) + self.face.shift * z


def minimize_constrained(
    problem: Any,
    x0: Any,
    constraint: Constraint,
    *,
    gradient_sample: int | float | None = None,
    hessian_sample: int | float | None = None,
    alpha: float = 1.0,
    radius: float | None = None,
    gtol: float = 1e-6,
    htol: float | None = None,
    maxiter: int = 100,
    callback: Callable[[Any], None] | None = None,
    verbose: int = 0,
    rng: Any = None,
) -> ConstrainedResult:
    """Minimize a finite sum F over a closed convex set D by inexact projected Newton steps in a trust region.

    Every step decreases the model m(s) = g's + s'Hs / (2 alpha) over x + s in D and ||s|| <= radius, with g and H from samples
    of the terms where asked (Yao, Xu, Roosta, Mahoney 2018, section on constraints). The model is decreased along one path by
    projected gradient steps and Newton steps on faces (More, Toraldo 1991), so that the face of the solution is found in few
    iterations and a full Newton step on it follows; over the whole space it is Newton's method. The path is cut at the
    radius, so that a rejected step costs one value of F and no product with H. F may be non-convex: steps along negative
    curvature end at a bound or at the radius, and a point where the first-order conditions hold is left along the
    eigenvector of the face if the Hessian has an eigenvalue below -htol there. Bounds whose multiplier is at most gtol are
    tested as well: F is looked for below along the eigenvector without them; that is no proof of a minimum, which at such
    points is NP-hard to decide.

    Parameters
    ----------
    problem : FiniteSum
        n, dim, value(x), grad(x, idx), hessian(x, idx).
    x0 : array (dim,)
        Projected on D first. Of the host, or of the device that the problem is on, where the arrays of the result then are.
    constraint : Box, L2Ball, L1Ball or Simplex
    gradient_sample, hessian_sample : int or float
        Terms in the gradient and in the Hessian of a step: a number, or a share in (0, 1]; None takes all. F itself is always
        that of all terms. The gradient's sample doubles whenever F falls by less than a quarter of what was predicted, or its
        own first-order conditions hold, as far as all terms, with which the run ends.
    alpha : float
        Positive; below one for steps shorter than Newton's.
    radius : float
        The first trust radius; default max(1, ||x0||). May be inf.
    gtol : float
        Goal for ||P(x - grad) - x||.
    htol : float
        Default sqrt(gtol). inf for convex F: no products are spent on the smallest eigenvalue.
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
    ConstrainedResult

    Warns
    -----
    MinimizeWarning
        Stagnation, iteration limit, a saddle that could not be left, an eigenvalue that could not be bounded.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, and where F or its gradient is not finite at the projection of x0.
    """
    if not isinstance(constraint, Constraint):
        raise TypeError(f"constraint must be a Box, L2Ball, L1Ball or Simplex; got {constraint!r}")
    start = constraint._point(parameters(x0, getattr(problem, "home", None)), "x0")
    if problem.dim not in (None, len(start)):
        raise ValueError(f"x0 must have shape ({problem.dim},); got {start.shape}")
    gtol = _check.real(gtol, "gtol")
    options = SimpleNamespace(
        gtol=gtol,
        htol=math.sqrt(gtol) if htol is None else htol if htol == math.inf else _check.real(htol, "htol"),
        alpha=_check.real(alpha, "alpha", strict=True),
        maxiter=_check.integer(maxiter, "maxiter", 0),
        gradient_size=_sample(gradient_sample, "gradient_sample", problem.n),
        hessian_size=_sample(hessian_sample, "hessian_sample", problem.n),
        verbose=_check.integer(verbose, "verbose", 0),
        callback=callback,
    )
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r}")
    x = constraint._project(start)
    if radius is None:
        radius = max(1.0, math.sqrt(x @ x))
    elif radius != math.inf:
        radius = _check.real(radius, "radius", strict=True)
    run = _Run(problem, constraint, options, _check.seed(rng))
    run.start(x, radius)
    status = run.minimize()
    result = run.result(status)
    if options.verbose:
        print(result.message)
    if not status.success and status is not ConstrainedStatus.STOPPED:
        warnings.warn(result.message, MinimizeWarning, stacklevel=2)
    return result


def _sample(value: Any, name: str, n: int) -> int:
    if value is None:
        return n
    if isinstance(value, float):
        share = _check.real(value, name, strict=True)
        if share > 1:
            raise ValueError(f"{name} must be a number of terms or a share of at most 1; got {value:g}")
        return max(1, round(share * n))
    return min(_check.integer(value, name, 1), n)


class _Run:
    """The iterate with its gradient, the radius, and the samples."""

    def __init__(self, problem: Any, constraint: Constraint, options: SimpleNamespace, seed: int):
        self.problem, self.D, self.options, self.seed = problem, constraint, options, seed
        self.n, self.counts = int(problem.n), Counts()
        self.gradient_size, self.hessian_size = options.gradient_size, options.hessian_size
        self.order = RowOrder(self.n, seed)
        self.drawn = self.nit = self.stalled = 0
        self.length, self.best, self.largest = 0.0, math.inf, 0.0
        self.history: list[dict[str, Any]] = []
        self.began = time.perf_counter()
        self.min_eig, self.min_eig_error = math.nan, math.inf

    def start(self, x: np.ndarray, radius: float) -> None:
        self.radius = radius
        self.at = self.evaluate(x)
        fun = self.value(self.at)
        self.g = self.gradient(self.at)
        if not (math.isfinite(fun) and np.isfinite(self.g).all()):
            raise ValueError(f"problem must be finite at the projection of x0; got F = {fun:g}")
        self.kept = self.at

    @property
    def x(self) -> np.ndarray:
        return self.at.x

    @property
    def fun(self) -> float:
        return self.at.fun

    def evaluate(self, x: np.ndarray, sample: Sample | None = None) -> Evaluation:
        if hasattr(self.problem, "at"):
            return self.problem.at(x, sample, self.counts)
        return Evaluation(self.problem, x, sample, self.counts)

    def sample(self, size: int) -> Sample | None:
        """Terms drawn anew, None for all of them."""
        if size >= self.n:
            return None
        start, self.drawn = self.drawn, (self.drawn + size) % self.n
        return Sample(self.order.window(start, size))

    def gradient(self, at: Evaluation) -> np.ndarray:
        sample = self.sample(self.gradient_size)
        with np.errstate(all="ignore"):
            return at.grad if sample is None else self.evaluate(at.x, sample).grad

    def value(self, at: Evaluation) -> float:
        with np.errstate(all="ignore"):
            return at.fun

    def grow(self) -> None:
        """Twice as many terms in the gradient."""
        self.gradient_size = min(2 * self.gradient_size, self.n)
        self.g = self.gradient(self.at)

    def dense(self, H: Hessian) -> np.ndarray | None:
        """H where it is cheaper to form it than to multiply by it."""
        return H.to_dense() if H.dim <= (_DENSE if H.dense_is_cheap else _DENSE_BY_PRODUCTS) else None

    def kkt(self, x: np.ndarray, g: np.ndarray) -> float:
        v = self.D._displacement(x, g)
        return math.sqrt(v @ v)

    def minimize(self) -> ConstrainedStatus:
        while True:
            residual = self.kkt(self.x, self.g)
            while self.gradient_size < self.n and residual <= self.options.gtol:
                self.grow()
                residual = self.kkt(self.x, self.g)
            if self.gradient_size < self.n:
                self.kept = self.at
            elif residual < self.best:
                self.best, self.kept = residual, self.at
            elif self.fun < self.kept.fun - self.noise(self.x):
                self.kept = self.at
            self.largest = max(self.largest, residual)
            try:
                self.record(residual)
            except StopIteration:
                self.kept = self.at
                return ConstrainedStatus.STOPPED
            if residual <= self.options.gtol:
                status = self.second_order()
                if status is not None:
                    self.kept = self.at
                    return status
                continue
            if self.nit >= self.options.maxiter:
                return ConstrainedStatus.ITERATION_LIMIT
            self.nit += 1
            status = self.step(residual)
            if status is not None:
                return status

    def step(self, residual: float) -> ConstrainedStatus | None:
        """One accepted step; how the run ends where there is none to be had."""
        H = self.at.hessian(self.sample(self.hessian_size))
        dense = self.dense(H)
        if dense is not None:
            dense = dense / self.options.alpha
        if not self.length:
            self.length = self._first_length(H if dense is None else dense)

        def product(v: np.ndarray) -> np.ndarray:
            return (H @ v) / self.options.alpha

        tol = residual * min(0.1, math.sqrt(residual / self.largest)) * (1.0 if dense is None else 1e-3)
        path = None
        for _ in range(_REJECTIONS):
            if path is None:
                path = ModelPath(self.D, self.x, self.g, product if dense is None else dense, self.length)
                path.run(min(self.radius, 1e150), tol, _INNER)
                self.length = path.length
            s, model, cut = path.cut(self.radius)
            y = self.D._project(self.x + s) if cut else path.y
            size = math.sqrt(s @ s)
            if not model < 0 or size <= _EPS * math.sqrt(self.x @ self.x):
                if self.gradient_size == self.n:
                    return ConstrainedStatus.NOT_FINITE if path.failed and not path.pieces else ConstrainedStatus.STAGNATED
                self.grow()
                path = None
                continue
            if self.accept(y, -model, size, cut, residual):
                return None if self.stalled < _PATIENCE else ConstrainedStatus.STAGNATED
            if self.gradient_size < self.n:
                self.grow()
                path = None
        return ConstrainedStatus.STAGNATED

    def _first_length(self, H: Any) -> float:
        curvature = float(self.g @ (H @ self.g)) / float(self.g @ self.g)
        return 1 / abs(curvature) if 1e-100 < abs(curvature) < 1e100 else 1.0

    def accept(self, y: np.ndarray, predicted: float, size: float, cut: bool, residual: float) -> bool:
        trial = self.evaluate(y)
        fun, noise = self.value(trial), self.noise(y)
        rounding = predicted <= noise
        ratio = (self.fun - fun) / predicted
        if not (math.isfinite(fun) and (self.fun - fun >= -noise if rounding else ratio >= _ACCEPTED)):
            self.radius = _SHRINKAGE * size
            return False
        whole, poor = self.gradient_size == self.n, not rounding and ratio < _POOR
        if poor and not whole:
            self.gradient_size = min(2 * self.gradient_size, self.n)
        g = self.gradient(trial)
        if not np.isfinite(g).all():
            self.radius = _SHRINKAGE * size
            return False
        self.at, self.g = trial, g
        if rounding and whole:
            self.stalled = 0 if self.kkt(y, g) < 0.9 * self.best else self.stalled + 1
        elif poor and whole:
            self.radius = size / 2
        elif not rounding and ratio >= _GOOD and cut:
            self.radius *= _GROWTH
        return True

    def second_order(self) -> ConstrainedStatus | None:
        """How the run ends here; None where the point was left."""
        htol = self.options.htol
        if htol == math.inf:
            return ConstrainedStatus.FIRST_ORDER
        H = self.at.hessian()
        dense = self.dense(H)
        strict = self.D._face(self.x, self.g)
        bound = self.curvature(strict, H, dense)
        self.min_eig, self.min_eig_error = (math.inf, 0.0) if bound is None else (bound.value, bound.error)
        if bound is not None and bound.value < -htol:
            left = self.nit < self.options.maxiter and self.leave(strict, bound)
            return None if left else ConstrainedStatus.SADDLE
        if bound is not None and not bound.lower >= -htol:
            return ConstrainedStatus.UNCERTAIN
        wide = self.D._face(self.x, self.g, self.options.gtol)
        if wide.key != strict.key and self.nit < self.options.maxiter:
            bound = self.curvature(wide, H, dense)
            if bound is not None and bound.value < -htol and self.leave(wide, bound):
                return None
        return ConstrainedStatus.CONVERGED

    def curvature(self, face: Face, H: Hessian, dense: np.ndarray | None) -> EigenBound | None:
        """Smallest eigenvalue on a face; None on a vertex."""
        if not face.dim:
            return None
        reduced: Any = _OnFace(H, face) if dense is None else face.reduced(dense)
        return smallest_eigenvalue(reduced, face.dim, tol=self.options.htol, index=self.nit, rng=self.seed)

    def leave(self, face: Face, bound: EigenBound) -> bool:
        """Move along a direction of negative curvature, as far as F falls enough or, failing that, to the end of the face."""
        self.nit += 1
        v, t = face.lift(bound.vector), max(1.0, math.sqrt(self.x @ self.x))
        noise, held = self.noise(self.x), self.D._active(self.x).sum()
        end: Evaluation | None = None
        for _ in range(_REJECTIONS // 2):
            best, lowest = None, self.fun
            for step in (t * v, -t * v):
                for y in (self.D._project(self.x + step), face.advance(self.x, step)):
                    trial, moved = self.evaluate(y), float((y - self.x) @ (y - self.x))
                    fun = self.value(trial)
                    if fun < lowest and self.fun - fun >= max(-0.05 * bound.value * moved, noise):
                        best, lowest = trial, fun
                    elif moved and fun <= self.fun + noise and self.D._active(y).sum() > held:
                        end = trial
            if best is not None and self.take(best):
                self.radius = max(self.radius, t)
                return True
            t *= _SHRINKAGE
        return end is not None and self.take(end)

    def take(self, trial: Evaluation) -> bool:
        g = self.gradient(trial)
        if not np.isfinite(g).all():
            return False
        self.at, self.g = trial, g
        self.stalled, self.best = 0, math.inf
        return True

    def noise(self, y: np.ndarray) -> float:
        """Rounding error of a difference of values, of which some is that of y itself."""
        return _ROUNDING * max(abs(self.fun), math.sqrt(float(self.g @ self.g) * float(y @ y)))

    def record(self, residual: float) -> None:
        entry = {
            "iteration": self.nit,
            "props": self.counts.props,
            "time": time.perf_counter() - self.began,
            "fun": self.fun,
            "kkt": residual,
            "radius": self.radius,
            "gradient_sample": self.gradient_size,
            "hessian_sample": self.hessian_size,
        }
        self.history.append(entry)
        if self.options.verbose > 1:
            if len(self.history) == 1:
                print(f"{'iteration':>9} {'props / n':>10} {'time':>8} {'fun':>14} {'kkt':>10} {'radius':>10}")
            print(
                f"{self.nit:9d} {self.counts.props / self.n:10.1f} {entry['time']:8.3f} "
                f"{self.fun:14.7e} {residual:10.3e} {self.radius:10.3e}"
            )
        if self.options.callback is not None:
            self.options.callback(intermediate_result=SimpleNamespace(**entry, x=self.x.copy()))

    def result(self, status: ConstrainedStatus) -> ConstrainedResult:
        x, fun, g = self.kept.x, self.kept.fun, self.kept.grad
        try:
            gap = -self.D._slope(x, g, self.D.lmo(g) - x)
        except ValueError:
            gap = math.inf
        home = getattr(self.problem, "home", None)
        multipliers = self.D._multipliers(x, g).items()
        return ConstrainedResult(
            x=like(home, x.copy()),
            fun=fun,
            jac=like(home, g),
            grad_norm=math.sqrt(g @ g),
            kkt=self.kkt(x, g),
            multipliers={name: like(home, value) if isinstance(value, np.ndarray) else value for name, value in multipliers},
            active=like(home, self.D._active(x)),
            min_eig=self.min_eig,
            min_eig_error=self.min_eig_error,
            gap=gap,
            nit=self.nit,
            nfev=self.counts.nfev,
            njev=self.counts.njev,
            nhev=self.counts.nhev,
            props=self.counts.props,
            status=status,
            message=status.value,
            success=status.success,
            seed=self.seed,
            history=self.history,
        )
