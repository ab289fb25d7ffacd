"""Iterations for M = N'(A'A + ridge) N with everything on the device; see `krylov` for those of the host.

They wait for the device only where the host looks at them, after as many steps as they are likely to take, and then after
few.

In float32: with a copy of A in float32, A'A v for float64 A costs half of the bytes. Such a pass belongs to a slightly
different matrix A + E, |E| at most 6e-8 of A whose columns have size one, and E N is small only as far as the smallest
singular value of that A is large: a cycle reduces the error to about 4 * 6e-8 / sigma_min of what it was. The next one
corrects the rest, from a residual in float64. So the accuracy is that of float64, and bytes are saved while sigma_min is
above 1e-5: for condition numbers up to 1e5 or 1e6. A N itself in float32 would do for all of them, but takes 2 m n^2
operations to make.

In passes over A in float64, to the unit roundoff, with 32 n rows of sketch (19 steps): 1.3 for the sketch, 19 steps and 4
residuals, 24 in all; with the copy 1.3, 1.5 for the copy, 19 / 2 for the steps and 5 residuals, 17 in all. With 12 n rows
(30 steps) 35 and 23.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import krylov
from ._backend import namespace, to_host
from ._device import DeviceMatrix
from ._device_factor import DeviceFactor
from ._factor import Factor
from .krylov import Progress

# A smaller matrix stays in the cache of 60 MB, and waits take longer than passes.
SINGLE_BYTES = 1 << 26
_SINGLE_EPS = 2.0**-24
_SINGLE_FLOOR = 1e-5  # what a cycle in float32 reduces the error to, at best
_WORST_FLOOR = 0.02
_COPY = 1.5  # passes over A that the copy takes


class DeviceInner:
    """M on the device, and iterations with it."""

    few = 4  # iterations between two looks of the host, after the first ones

    def __init__(self, matrix: DeviceMatrix, factor: Factor, ridge: float):
        self.matrix, self.factor, self.ridge, self.xp = matrix, factor, ridge, matrix.xp
        self.reduced: DeviceMatrix | None = None
        self.trust = krylov.attainable(factor.cond)  # relative residual below which progress is imaginary
        self.allowed = math.inf  # a gradient that shrinks by less in a cycle says that float32 is not enough
        # One product with an inverse is faster than a triangular solve, which waits for its own results.
        if isinstance(factor, DeviceFactor):
            self.N = factor.inverse.T * self.xp.asarray(factor.scale)
        else:
            self.N = self.xp.asarray(np.ascontiguousarray(factor.apply(np.eye(factor.rank)) * factor.scale))

    def reduce(self, tail: float) -> None:
        """Iterate in float32 if that takes fewer bytes until the error is `tail` of what it is."""
        factor = self.factor
        low = factor.extremes[1]
        floor = max(_SINGLE_FLOOR, 4 * _SINGLE_EPS / low) if low > 0 else 1.0
        if floor > _WORST_FLOOR or self.matrix.bytes_per_pass < SINGLE_BYTES:
            return
        tail = min(max(tail, 1e-15), 0.5)
        steps = math.log(tail) / math.log(factor.distortion)
        more_cycles = max(math.log(tail) / math.log(floor) - 2, 0) + 1
        if _COPY + steps / 2 + more_cycles < 0.95 * steps:
            self.reduced = self.matrix.single(factor.scale)
            if self.reduced is not None:
                self.trust, self.allowed = floor, min(10 * floor, 0.25)

    def restore(self) -> bool:
        """Iterate in float64 from now on; whether that is a change."""
        changed, self.reduced = self.reduced is not None, None
        self.trust, self.allowed = krylov.attainable(self.factor.cond), math.inf
        return changed

    def restore_if_stalled(self, sizes: np.ndarray, before: np.ndarray) -> bool:
        """`restore` where a gradient, of one of these sizes, shrank by less than float32 should make it shrink."""
        return self.reduced is not None and bool((sizes > self.allowed * before).any()) and self.restore()

    def first_steps(self, reduction: float, distortion: float) -> int:
        """Steps before the host looks for the first time, where residuals have to come to `reduction` of what they are."""
        return likely(reduction, distortion)

    def normal(self, Z: Any) -> Any:
        V = Z @ self.N
        G, _ = (self.reduced or self.matrix).pass_over(V, None)
        if self.ridge:
            G -= self.ridge * V
        return -(G @ self.N.T)

    def heavy_ball(
        self, C: np.ndarray, progress: Progress, maxiter: int, distortion: float, reduction: float
    ) -> tuple[np.ndarray, bool]:
        """As `krylov.heavy_ball`; `reduction` is what the residuals are likely to have to come to, relative to C."""
        damping, momentum = krylov.damping_and_momentum(distortion)
        start = self.xp.asarray(C)
        previous, Y = self.xp.zeros_like(start), damping * start
        watch = _Watch(C, progress)
        steps = likely(reduction, distortion)
        limit = self._most(steps, maxiter)
        while watch.live.any() and watch.iterations < limit:
            for _ in range(min(steps, limit - watch.iterations)):
                S = start - self.normal(Y)
                last, previous, Y = Y, Y, Y + damping * S + momentum * (Y - previous)
                watch.iterations += 1
            watch.look(S, last)
            steps = self.few
        return watch.best, watch.diverged

    def conjugate_gradients(
        self, C: np.ndarray, progress: Progress, maxiter: int, distortion: float, reduction: float
    ) -> np.ndarray:
        """As `krylov.conjugate_gradients`."""
        S = self.xp.asarray(C)
        Y, P, rho = self.xp.zeros_like(S), S.copy(), krylov.dots(S, S)
        watch = _Watch(C, progress)
        steps = self._krylov_steps(reduction, distortion)
        limit = self._most(2 * steps, maxiter)
        while watch.live.any() and watch.iterations < limit:
            for _ in range(min(steps, limit - watch.iterations)):
                MP = self.normal(P)
                curvature = krylov.dots(P, MP)
                able = curvature > 0  # also false for NaN
                alpha = self.xp.where(able, rho / self.xp.where(able, curvature, 1), 0)[:, None]
                Y, S = Y + alpha * P, S - alpha * MP
                new = krylov.dots(S, S)
                P = S + self.xp.where(rho > 0, new / self.xp.where(rho > 0, rho, 1), 0)[:, None] * P
                rho = new
                watch.iterations += 1
            watch.look(S, Y)
            steps = self.few
        return watch.best

    def _krylov_steps(self, reduction: float, distortion: float) -> int:
        """Half of what the fixed iteration takes, to stop nearer to where it can; more than there are unknowns is no use."""
        return min(likely(reduction, distortion, 0.5), self.factor.rank)

    def _most(self, steps: int, maxiter: int) -> int:
        """What float32 may take where so many steps are likely: it is given up then, if it was of no use."""
        return maxiter if self.reduced is None else min(2 * steps + self.few, maxiter)

    def momentum(
        self, X: np.ndarray, previous: np.ndarray, C: np.ndarray, B: Any, steps: int, distortion: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Steps of `_forward.momentum`: the last two iterates, and what `evaluated` gives for the last one. One look."""
        damping, weight = krylov.damping_and_momentum(distortion)
        scale = self.factor.scale
        X, previous, C = (self.xp.asarray(v) for v in (X * scale, previous * scale, C))
        for _ in range(steps):
            previous, X = X, X + damping * (C @ self.N) + weight * (X - previous)
            G, squares = self.matrix.pass_over(X, B)
            C = (G - self.ridge * X) @ self.N.T
        return to_host(X) / scale, to_host(previous) / scale, to_host(G), to_host(squares)

    def lsqr(
        self,
        X: np.ndarray,
        B: Any,
        C: np.ndarray,
        sizes: np.ndarray,
        progress: Progress,
        maxiter: int,
        distortion: float,
        reduction: float,
    ) -> np.ndarray:
        """As `HostInner.lsqr`. What a finished right-hand side still takes part in changes nothing of its solution."""
        xp, root = self.xp, math.sqrt(self.ridge)
        solution, iterations, seen = np.zeros_like(C), 0, 0
        live = np.flatnonzero((sizes > 0) & (krylov.dots(C, C) > 0))
        U, _, _ = self.matrix.residual_there(X, B)
        lower = -root * xp.asarray(X) if root else None
        unit = xp.asarray(np.where(sizes > 0, sizes, 1))
        V = xp.asarray(C) / unit[:, None]
        alpha = _sizes(V)
        V = V / _divisor(alpha)[:, None]
        W, Y, phi_bar, rho_bar = V, xp.zeros_like(V), xp.asarray(sizes), alpha
        factor = (alpha / unit)[:, None]  # U times it is alpha u
        steps = self._krylov_steps(reduction, distortion)
        while len(live) and iterations < maxiter:
            for _ in range(min(steps, maxiter - iterations)):
                image = V @ self.N
                U *= factor
                U, G, squares = self.matrix.residual_there(image, U)
                if lower is not None:
                    lower = factor * lower - root * image
                    G, squares = G + root * lower, squares + krylov.dots(lower, lower)
                beta = xp.sqrt(squares)
                size = _divisor(beta)
                V = -(G @ self.N.T) / size[:, None] - beta[:, None] * V
                alpha = _sizes(V)
                V = V / _divisor(alpha)[:, None]
                factor = (-alpha / size)[:, None]
                rho = _divisor(xp.hypot(rho_bar, beta))
                c, s = rho_bar / rho, beta / rho
                phi, theta = c * phi_bar, s * alpha
                rho_bar, phi_bar = -c * alpha, s * phi_bar
                Y = Y + (phi / rho)[:, None] * W
                W = V - (theta / rho)[:, None] * W
                iterations += 1
            told = xp.concatenate([Y, xp.stack([abs(phi_bar * alpha * c), alpha, beta], axis=1)], axis=1)
            found = to_host(told)[live]
            solution[live] = found[:, :-3]
            finished = progress(live, found[:, -3], found[:, :-3], iterations - seen)
            seen, steps = iterations, self.few
            live = live[~finished & (found[:, -2] > 0) & (found[:, -1] > 0)]
        return solution


def _sizes(V: Any) -> Any:
    """Norms of the rows."""
    return namespace(V).sqrt(krylov.dots(V, V))


def _divisor(values: Any) -> Any:
    """One in place of zero and NaN."""
    return namespace(values).where(values > 0, values, 1)


def likely(reduction: float, distortion: float, share: float = 1.0) -> int:
    """Steps at a rate of the distortion."""
    return max(math.ceil(share * math.log(max(reduction, 1e-16)) / math.log(distortion)), 1)


class _Watch:
    """What the host knows of an iteration: which right-hand sides are finished, and the best iterates that it saw."""

    def __init__(self, C: np.ndarray, progress: Progress):
        self.progress, self.iterations, self._seen = progress, 0, 0
        self.best, self.sizes = np.zeros_like(C), krylov.dots(C, C)
        self.live = self.sizes > 0
        self.diverged = False

    def look(self, S: Any, Y: Any) -> None:
        """Waits for the device."""
        rows = np.flatnonzero(self.live)
        residuals, iterates = to_host(S)[rows], to_host(Y)[rows]
        sizes = krylov.dots(residuals, residuals)
        better = sizes < self.sizes[rows]
        self.best[rows[better]] = iterates[better]
        self.sizes[rows[better]] = sizes[better]
        growing = ~(sizes <= 100 * self.sizes[rows])
        self.diverged |= bool(growing.any())
        finished = self.progress(rows, residuals, iterates, self.iterations - self._seen)
        self._seen = self.iterations
        self.live[rows[finished | growing | ~(sizes > 0)]] = False
