"""lp regression for 1 <= p < 2: a primal-dual interior method, every step of which is a weighted least-squares problem.

With r = b - A x split into r+ - r-, both positive, the conditions of optimality are A'y = 0 and

    r+^(p-1) - y = s+,   r-^(p-1) + y = s-,   r+ s+ = r- s- = mu,   mu -> 0.

Newton's method on them with Mehrotra's predictor and corrector (1992); at p = 1 it is that of Portnoy and Koenker (1997).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from ._irls import Problem, cholesky

_BOUNDARY = 0.995  # how far a step goes towards the boundary
_BISECTIONS = 64
_SHORT, _SHORTEST = 1e-4, 1e-8  # steps that are tried again with more centring, and that end the iteration
_ZERO = 1e-12  # residuals that may be rounding, relative to what they are the difference of
_SIGNS = np.array([[1.0], [-1.0]])


@dataclasses.dataclass
class _Point:
    """The positive parts (2, m) of r, their multipliers, and y; or a change of them."""

    r: np.ndarray
    s: np.ndarray
    y: np.ndarray


class _System:
    """Newton's equations at a point, for right-hand sides of the products r s."""

    def __init__(self, problem: Problem, r: np.ndarray, point: _Point, infeasible: np.ndarray):
        p, self.basis, self.point, self.infeasible = problem.p, problem.basis, point, infeasible
        self.curvature = (p - 1) * point.r ** (p - 2)
        self.dual = point.r ** (p - 1) - _SIGNS * point.y - point.s
        self.primal = r - (point.r[0] - point.r[1])
        self.scale = point.s + point.r * self.curvature
        self.weights = 1 / (point.r / self.scale).sum(axis=0)
        # The largest weight is one while they are summed up: neither overflow nor the shift of `cholesky` depends on units.
        self.largest = float(self.weights.max())
        self.R = cholesky(self.basis.gram(self.weights / self.largest))

    def change(self, target: np.ndarray) -> tuple[np.ndarray, _Point]:
        """The step after which r s has changed by `target`, to first order."""
        shift = (target - self.point.r * self.dual) / self.scale
        left = self.primal - shift[0] + shift[1]
        rhs = (self.basis.adjoint(self.weights * left) + self.infeasible) / self.largest
        dx = self.basis.step(lapack.dpotrs(self.R, rhs)[0])
        dy = self.weights * (left - self.basis.times(dx))
        dr = _SIGNS * (self.point.r / self.scale) * dy + shift
        return dx, _Point(dr, self.curvature * dr - _SIGNS * dy + self.dual, dy)


def interior(problem: Problem) -> None:
    """Solve for 1 <= p < 2; at p = 1, go to a vertex where that is better."""
    b, p, best = problem.b, problem.p, problem.best
    if best.exact:
        return
    # Residuals of mean one: the multipliers are then of order one too.
    unit = float(np.abs(best.r).mean())
    x, r = best.x, best.r / unit
    point = _centred(r, p)
    system, infeasible = None, 1.0
    while best.iterations < problem.maxiter:
        mu = float((point.r * point.s).mean())
        # While y is far from A'y = 0, mu may have to grow.
        left = problem.offer(x, r * unit, point.y, mu if infeasible < 1e-6 else None, mu=mu)
        if problem.finished:
            break
        best.iterations += 1
        system = _System(problem, r, point, left)
        products = point.r * point.s
        _, forward = system.change(-products)
        length = _length(point, forward, 1.0)
        reached = float(((point.r + length * forward.r) * (point.s + length * forward.s)).mean())
        dx, forward = system.change((reached / mu) ** 3 * mu - products - forward.r * forward.s)
        length = _length(point, forward, _BOUNDARY)
        if length < _SHORT:
            # The correction of second order leads astray far from the central path.
            dx, forward = system.change(0.5 * mu - products)
            length = _length(point, forward, _BOUNDARY)
        if not length > _SHORTEST:
            break
        x = x + length * unit * dx
        r = (b - problem.basis.times(x)) / unit
        infeasible *= 1 - length
        point = _Point(point.r + length * forward.r, point.s + length * forward.s, point.y + length * forward.y)
    if p == 1 and system is not None and not best.exact:
        _to_vertex(problem, x, r * unit, point.y, system.weights)


def _length(point: _Point, change: _Point, boundary: float) -> float:
    """Of the step, at most one. Lengths of their own for the primal and the dual step, at p = 1, fail more often."""
    length = 1.0
    for value, moved in ((point.r, change.r), (point.s, change.s)):
        falling = moved < 0
        length = min(length, boundary * float((value[falling] / -moved[falling]).min(initial=math.inf)))
    return length


def _centred(r: np.ndarray, p: float) -> _Point:
    """The point with these residuals, and r+ s+ = r- s- = mu for one mu near the median of |r|^p."""
    mu = 0.5 * float(np.median(np.abs(r))) ** p + 1e-3
    size = np.abs(r)
    # log of the smaller part t: (t + |r|)^(p-1) - mu / (t + |r|) + t^(p-1) - mu / t increases with t.
    low = np.full_like(r, math.log(mu) / p - 50)
    high = np.full_like(r, math.log(mu) / p + 1)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        t = np.exp(middle)
        above = (t + size) ** (p - 1) - mu / (t + size) + t ** (p - 1) - mu / t > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    small = np.exp((low + high) / 2)
    large = small + size
    parts = np.where(r >= 0, [large, small], [small, large])
    return _Point(parts, mu / parts, np.where(r >= 0, 1.0, -1.0) * (large ** (p - 1) - mu / large))


def _to_vertex(problem: Problem, x: np.ndarray, r: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    """Interpolate the rows that carry most weight, as a solution of the linear program does; kept where it is better."""
    basis, rank = problem.basis, problem.basis.rank
    count = min(len(r), 2 * rank + 32)
    candidates = np.argpartition(-weights, count - 1)[:count]
    U = basis.rows(candidates)
    pivots = scipy.linalg.qr((np.sqrt(weights[candidates])[:, None] * U).T, mode="r", pivoting=True)[1][:rank]
    chosen = candidates[pivots]
    lu, exchanges, singular = lapack.dgetrf(U[pivots])
    if singular:
        return
    for _ in range(2):
        x = x + basis.step(lapack.dgetrs(lu, exchanges, r[chosen])[0])
        r = problem.b - basis.times(x)
    certain = np.abs(r) > _ZERO * (np.abs(problem.b) + np.abs(problem.b - r))
    y = np.where(certain, np.sign(r), y)
    y[chosen] = 0
    y[chosen] = -lapack.dgetrs(lu, exchanges, basis.adjoint(y), trans=1)[0]
    if float(np.abs(y).max()) < 2:
        problem.offer(x, r, y, 0.0, mu=0.0)
