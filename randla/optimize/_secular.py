"""Trust-region and cubic subproblems with a diagonal Hessian, solved exactly: the secular equation.

min c'u + u'diag(w)u/2 over ||u|| <= radius, or of the same + sigma/3 ||u||^3. A minimizer has (w_i + lambda) u_i = -c_i with
lambda >= max(0, -w_1), and lambda (radius - ||u||) = 0 or lambda = sigma ||u|| (More, Sorensen 1983; Cartis, Gould, Toint
2011). Where w_1 <= 0 the unknown is x = lambda + w_1, so that nothing cancels near the pole.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dnrm2

_EPS = float(np.finfo(np.float64).eps)
_ITERATIONS = 200  # bisection alone, of a bracket as wide as the exponents of float64, needs fewer


class Root(NamedTuple):
    """A minimizer u with its multiplier lambda.

    quadratic = -(c'u + u'diag(w)u/2) and decrease = quadratic - sigma/3 ||u||^3 are sums of terms that are not negative.
    residual: norm of the gradient of the model over max(||c||, lambda ||u||).
    """

    u: np.ndarray
    multiplier: float
    norm: float
    quadratic: float
    decrease: float
    boundary: bool
    hard: bool
    residual: float


def _positive_root(a: float, b: float) -> float:
    """The positive root of x^2 + a x - b for b >= 0."""
    size = math.hypot(a, 2 * math.sqrt(b))
    if a < 0:
        return (size - a) / 2
    return 2 * b / (a + size) if b > 0 else 0.0


class Secular:
    """The problems of one (w, c), w ascending, for any radius and any sigma.

    Everything is scaled to a step of norm at most 1 and data of norm at most 1 before it is squared.
    """

    __slots__ = ("_cluster", "_edge", "_flat", "_lowest", "_mean", "c", "c_cluster", "c_size", "gaps", "w", "w_size")

    def __init__(self, w: np.ndarray, c: np.ndarray):
        k = len(w)
        self.w_size = max(abs(float(w[0])), abs(float(w[-1])))
        self.c_size = float(dnrm2(c))
        self.w = w / self.w_size if self.w_size > 0 else w
        self.c = c / self.c_size if self.c_size > 0 else c
        self._lowest = float(self.w[0])
        self.gaps = self.w - self._lowest
        # Eigenvalues this close to the first are not told apart from it in rounding.
        self._edge = 4 * _EPS * k
        self._cluster = int(self.gaps.searchsorted(self._edge, "right"))
        self.gaps[: self._cluster] = 0.0
        self.c_cluster = float(dnrm2(self.c[: self._cluster]))
        self._mean = float((self.c * self.c) @ self.gaps)  # w_1 + this: the Rayleigh quotient of c
        self._flat = abs(self._lowest) <= self._edge and self.c_cluster <= 10 * _EPS

    def trust_region(self, radius: float) -> Root:
        """min c'u + u'diag(w)u/2 over ||u|| <= radius, radius > 0."""
        interior = self._newton_step(radius)
        if interior is not None:
            return interior
        slope = self.c_size / radius
        unit = max(self.w_size, slope)
        if unit == 0:
            return self._zero()
        # The slope is infinite where the multiplier is above all numbers: the step is still -c, shortened.
        return self._solve(radius, unit, self.w_size / unit, 1.0 if slope == unit else slope / unit, None)

    def cubic(self, sigma: float) -> Root:
        """min c'u + u'diag(w)u/2 + sigma/3 ||u||^3, sigma > 0."""
        lowest = self.w_size * self._lowest
        if self.c_size == 0 and lowest >= 0:
            return self._zero()
        size = math.hypot(lowest, 2 * math.sqrt(sigma) * math.sqrt(self.c_size))
        length = 2 * self.c_size / (lowest + size) if lowest > 0 else (size - lowest) / (2 * sigma)
        if length == 0:
            return self._zero()
        unit = max(self.w_size, self.c_size / length, sigma * length)
        return self._solve(length, unit, self.w_size / unit, self.c_size / length / unit, sigma * length / unit)

    def _zero(self) -> Root:
        return Root(np.zeros_like(self.c), 0.0, 0.0, 0.0, 0.0, False, False, 0.0)

    def _newton_step(self, radius: float) -> Root | None:
        """-c / w where that is the minimizer, w >= 0 up to rounding, and no longer than the radius.

        Directions of no curvature and no slope are left alone: the shortest of the minimizers.
        """
        if self.c_size == 0 and self._lowest >= -self._edge:
            return self._zero()
        if self._flat:
            u = np.zeros_like(self.c)
            tail = slice(self._cluster, None)
            np.divide(self.c[tail], self.w[tail], out=u[tail])
        elif self._lowest > 0:
            u = self.c / self.w
        else:
            return None
        ratio = self.c_size / self.w_size if self.w_size > 0 else math.inf
        size = float(dnrm2(u))
        norm = ratio * size
        if not norm <= radius:
            return None
        quadratic = 0.5 * self.c_size * ratio * float(self.c @ u)
        residual = self.c_cluster if self._flat else 0.0
        return Root(u * -ratio, 0.0, norm, quadratic, quadratic, False, False, residual)

    def _solve(self, length: float, unit: float, alpha: float, beta: float, sigma: float | None) -> Root:
        """Of the scaled problem: eigenvalues alpha w, gradient beta c, radius 1 or weight sigma."""
        convex = self._lowest > 0
        depth = 0.0 if convex else -alpha * self._lowest  # lambda = x + depth
        found = None if convex else self._hard_case(alpha, beta, depth, sigma)
        hard = found is not None
        if found is not None:
            u, x, size, excess = found
        else:
            skip = self._cluster if not convex and self.c_cluster <= 10 * _EPS else 0
            base = alpha * (self.w if convex else self.gaps)[skip:]
            part, x, size, excess = self._newton(base, beta * self.c[skip:], alpha, beta, depth, sigma, convex)
            u = part
            if skip:
                u = np.zeros_like(self.c)
                u[skip:] = part
        multiplier = x + depth
        if sigma is None:
            u /= float(dnrm2(u))
            size = 1.0
        slope = -beta * float(self.c @ u)
        quadratic = 0.5 * (slope + multiplier * size * size)
        decrease = quadratic if sigma is None else 0.5 * slope + multiplier * size * size / 6
        u *= length
        largest = max(beta, multiplier * size)
        residual = (beta * self.c_cluster * hard + excess * size) / largest if largest > 0 else 0.0
        quadratic, decrease = quadratic * unit * length * length, decrease * unit * length * length
        return Root(u, multiplier * unit, size * length, quadratic, decrease, sigma is None, hard, residual)

    def _hard_case(
        self, alpha: float, beta: float, depth: float, sigma: float | None
    ) -> tuple[np.ndarray, float, float, float] | None:
        """lambda = -w_1 and a step completed along the eigenvectors of w_1, where c has no part in these."""
        if self.c_cluster > 10 * _EPS and beta * self.c_cluster > _EPS * alpha:
            return None
        target = 1.0 if sigma is None else depth / sigma
        first = self._cluster
        u = np.zeros_like(self.c)
        rest = 0.0
        if first < len(u):
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                np.divide(-beta * self.c[first:], alpha * self.gaps[first:], out=u[first:])
            rest = float(dnrm2(u))
        if not rest <= target:
            return None
        tau = math.sqrt((target - rest) * (target + rest))
        if self.c_cluster > 10 * _EPS and beta * self.c_cluster > _EPS * alpha * tau:
            return None
        if self.c_cluster > 0:
            u[:first] = (-tau / self.c_cluster) * self.c[:first]
        else:
            u[0] = tau
        return u, 0.0, target, 0.0

    def _newton(
        self, base: np.ndarray, c: np.ndarray, alpha: float, beta: float, depth: float, sigma: float | None, convex: bool
    ) -> tuple[np.ndarray, float, float, float]:
        """The root x of ||c / (base + x)|| = 1 or = (x + depth) / sigma: u, x, ||u|| and the error of the equation.

        Newton's method on 1/||u|| - 1 or lambda/||u|| - sigma from the best of three lower bounds, inside a bracket.
        """
        lead = beta * self.c_cluster if not convex and len(c) == len(self.c) else 0.0
        mean = alpha * (self._mean + (self._lowest if convex else 0.0))
        floor = alpha * self._lowest if convex else 0.0
        if sigma is None:
            low, high = max(lead, beta - mean, 0.0), beta - floor
        elif convex:
            low, high = _positive_root(mean, sigma * beta), _positive_root(floor, sigma * beta)
        else:
            rest = max(sigma * beta - depth * mean, 0.0)
            low = max(_positive_root(depth, sigma * lead), _positive_root(depth + mean, rest))
            high = _positive_root(depth, sigma * beta)
        high = max(high, low) * (1 + 4 * _EPS)
        x = low
        low *= 1 - 4 * _EPS
        for _ in range(_ITERATIONS):
            shifted = base + x
            u = c / shifted
            size = math.sqrt(u @ u)
            bend = float(u @ (u / shifted)) / (size * size)  # -(d||u||/dx) / ||u||
            if sigma is None:
                excess = size - 1
                done = abs(excess) <= 4 * _EPS
                change = excess / bend
            else:
                value = x + depth
                excess = sigma * size - value
                done = abs(excess) <= 4 * _EPS * value
                change = excess / (1 + value * bend)
            if done:
                break
            low, high = (x, high) if excess > 0 else (low, x)
            new = x + change
            if not low < new < high:
                new = math.sqrt(low) * math.sqrt(high) if low > 0 else high / 16
            if new in (x, low, high) or not low < new < high:
                break
            x = new
        return -u, x, size, abs(excess)
