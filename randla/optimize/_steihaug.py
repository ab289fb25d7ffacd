"""Conjugate gradients cut off at the boundary of the trust region (Toint 1981; Steihaug 1983)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg.blas import dgemv, dnrm2

from ._krylov import Model, Step, no_step


class SteihaugModel(Model):
    """The first point of the path of conjugate gradients that converges or leaves the trust region.

    The norm grows along the path, so that the step for another radius lies on the same path: a smaller one takes no products.
    The step decreases the model at least as much as the Cauchy point, and for positive definite H at least half as much as
    the minimizer (Yuan 2000). Directions of negative curvature that g has no part in are not seen.

    Parameters
    ----------
    H : anything with `H @ v`
    g : ndarray (d,)
    tol : float
        Inside the trust region: until ||H s + g|| <= tol ||g||.
    maxiter : int
        Default d.
    """

    def __init__(self, H: Any, g: np.ndarray, *, tol: float = 1e-8, maxiter: int | None = None):
        super().__init__()
        self.tol = tol
        self._H, self._g = H, g
        self._maxiter = len(g) if maxiter is None else maxiter
        self._g_size = float(dnrm2(g))
        # The path is that of the gradient g / ||g||, so that its squares stay in range; lengths are in units of ||g||.
        self._r = g / self._g_size if self._g_size > 0 else g.copy()
        self._p = -self._r
        width = min(len(g), self._maxiter, 16)
        self._P, self._HP = np.empty((len(g), width), order="F"), np.empty((len(g), width), order="F")
        self._z = np.zeros_like(g)
        # Of point j: squared residual, ||z||, z'p, ||p||, p'Hp, and the part of p that leads to the next point.
        self._rr, self._norm = [1.0], [0.0]
        self._zp: list[float] = []
        self._pp: list[float] = []
        self._curvature: list[float] = []
        self._alpha: list[float] = []
        self._lowest = math.nan

    def lowest(self) -> tuple[float, np.ndarray]:
        """The lowest curvature p'Hp / p'p of the directions tried, and that direction."""
        if not self._curvature:
            return math.nan, np.zeros_like(self._g)
        values = [c / p for c, p in zip(self._curvature, self._pp, strict=True)]
        j = int(np.argmin(values))
        return values[j], self._P[:, j] / math.sqrt(self._pp[j])

    def trust_region(self, radius: float, *, grow: bool = True) -> Step:
        """The step of norm at most radius; without products for grow=False."""
        if self._g_size == 0:
            return no_step(len(self._g), 0.0)
        limit = radius / self._g_size
        while True:
            crossed = self._crossing(limit)
            if crossed is not None:
                return self._boundary(*crossed, limit, radius)
            j = len(self._alpha)
            converged = math.sqrt(self._rr[j]) <= self.tol
            if converged or not grow or not self._expand():
                return self._interior(j, converged)

    def _expand(self) -> bool:
        """Multiply the next direction by H and, where it has positive curvature, go on to the next point."""
        j = len(self._alpha)
        if j >= self._maxiter or self._failed or len(self._curvature) > j:
            return False
        p = self._p
        Hp = np.asarray(self._H @ p, dtype=np.float64)
        self._products += 1
        curvature = float(p @ Hp)
        if not math.isfinite(float(dnrm2(Hp))):
            self._failed = True
            return False
        self._reserve(j + 1)
        self._P[:, j], self._HP[:, j] = p, Hp
        self._zp.append(float(self._z @ p))
        self._pp.append(float(p @ p))
        self._curvature.append(curvature)
        value = curvature / self._pp[j]
        self._lowest = value if math.isnan(self._lowest) else min(value, self._lowest)
        alpha = self._rr[j] / curvature if curvature > 0 else math.inf
        if not math.isfinite(alpha):
            return True
        self._alpha.append(alpha)
        self._z = self._z + alpha * p
        self._r = self._r + alpha * Hp
        self._rr.append(float(self._r @ self._r))
        self._norm.append(float(dnrm2(self._z)))
        self._p = (self._rr[-1] / self._rr[j]) * p - self._r
        return True

    def _reserve(self, count: int) -> None:
        width = self._P.shape[1]
        if count > width:
            for name in ("_P", "_HP"):
                wider = np.empty((len(self._g), max(count, 2 * width)), order="F")
                wider[:, :width] = getattr(self, name)
                setattr(self, name, wider)

    def _crossing(self, limit: float) -> tuple[int, float] | None:
        """The point after which the path leaves the ball of radius `limit`, and how far along its direction."""
        for j in range(len(self._curvature)):
            if j < len(self._alpha) and self._norm[j + 1] < limit:
                continue
            a, b = self._pp[j], self._zp[j]
            short, long = max(limit - self._norm[j], 0.0), limit + self._norm[j]
            root = math.hypot(b, math.sqrt(a) * math.sqrt(short) * math.sqrt(long))
            # The root of a tau^2 + 2 b tau - short long without cancellation, overflow or underflow.
            return j, short * (long / (b + root)) if b >= 0 else (root - b) / a
        return None

    def _interior(self, j: int, converged: bool) -> Step:
        if j == 0:
            return no_step(len(self._g), self._g_size)
        coefficients = np.array(self._alpha[:j])
        s = dgemv(self._g_size, self._P[:, :j], coefficients)
        decrease = self._decrease(j) * self._g_size * self._g_size
        residual = math.sqrt(self._rr[j])
        return Step(s, decrease, decrease, 0.0, False, residual, self._lowest, self._norm[j] * self._g_size, False, converged)

    def _decrease(self, j: int) -> float:
        return 0.5 * math.fsum(a * r for a, r in zip(self._alpha[:j], self._rr[:j], strict=True))

    def _boundary(self, j: int, tau: float, limit: float, radius: float) -> Step:
        coefficients = np.array([*self._alpha[:j], tau])
        s = dgemv(1.0, self._P[:, : j + 1], coefficients)
        gradient = dgemv(1.0, self._HP[:, : j + 1], coefficients) + self._g / self._g_size
        multiplier = max(0.0, -float(s / limit @ gradient) / limit)
        rest = float(dnrm2(gradient + multiplier * s)) / max(1.0, multiplier * limit)
        length = tau * self._g_size
        along = length * self._rr[j] * self._g_size - 0.5 * length * length * self._curvature[j]
        decrease = self._decrease(j) * self._g_size * self._g_size + along
        s *= self._g_size
        # What the method promises is the path, not a small gradient of the Lagrangian.
        return Step(s, decrease, decrease, multiplier, True, rest, self._lowest, radius, False, True)
