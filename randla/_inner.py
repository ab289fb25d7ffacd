"""Iterations for M = N'(A'A + ridge) N, where A is.

On the host they are those of `krylov`, seen after every step; for a device see `_device_inner`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias

import numpy as np

from . import krylov
from ._device import DeviceMatrix
from ._device_inner import DeviceInner
from ._factor import Factor
from ._numeric import norms
from ._tall import TallMatrix
from .krylov import Progress


class HostInner:
    """M on the host, in float64. What `DeviceInner` is told of the steps that are likely to be needed makes no difference."""

    few = 1  # iterations between two looks

    def __init__(self, matrix: TallMatrix, factor: Factor, ridge: float):
        self.matrix, self.factor, self.ridge = matrix, factor, ridge

    @cached_property
    def trust(self) -> float:
        """Relative residual below which progress is imaginary."""
        return krylov.attainable(self.factor.cond)

    def reduce(self, tail: float) -> None:
        """There is no lower precision."""

    def restore(self) -> bool:
        return False

    def restore_if_stalled(self, sizes: np.ndarray, before: np.ndarray) -> bool:
        return False

    def first_steps(self, reduction: float, distortion: float) -> int:
        return 1

    def normal(self, Z: np.ndarray) -> np.ndarray:
        """M applied to every row. One pass."""
        V = self.factor.apply(Z) * self.factor.scale
        _, G, _ = self.matrix.residual(V, None)
        if self.ridge:
            G -= self.ridge * V
        return -self.factor.adjoint(G * self.factor.scale)

    def heavy_ball(
        self, C: np.ndarray, progress: Progress, maxiter: int, distortion: float, reduction: float
    ) -> tuple[np.ndarray, bool]:
        return krylov.heavy_ball(self.normal, C, progress, maxiter, distortion)

    def conjugate_gradients(
        self, C: np.ndarray, progress: Progress, maxiter: int, distortion: float, reduction: float
    ) -> np.ndarray:
        return krylov.conjugate_gradients(self.normal, C, progress, maxiter)

    def momentum(
        self, X: np.ndarray, previous: np.ndarray, C: np.ndarray, B: np.ndarray, steps: int, distortion: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The step of `_forward.momentum`: the last two iterates, and what `evaluated` gives for the last one."""
        damping, weight = krylov.damping_and_momentum(distortion)
        previous, X = X, X + damping * self.factor.apply(C) + weight * (X - previous)
        return X, previous, *self.matrix.evaluated(X * self.factor.scale, B)

    def lsqr(
        self,
        X: np.ndarray,
        B: np.ndarray,
        C: np.ndarray,
        sizes: np.ndarray,
        progress: Progress,
        maxiter: int,
        distortion: float,
        reduction: float,
    ) -> np.ndarray:
        """As `krylov.lsqr`, for what is left of B at X; C = N'A'r and `sizes` belong to that residual, of the ridge too."""
        factor, m, root = self.factor, self.matrix.shape[0], self.ridge**0.5

        def residual(R: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            V = factor.apply(Y) * factor.scale
            upper, G, squares = self.matrix.residual(V, np.ascontiguousarray(R[:, :m]))
            if root:
                lower = R[:, m:] - root * V
                G += root * lower
                upper, squares = np.hstack([upper, lower]), squares + norms(lower) ** 2
            return upper, factor.adjoint(G * factor.scale), squares

        R, _, _ = self.matrix.residual(X, B)
        R = np.hstack([R, -root * X]) if root else R.copy()
        return krylov.lsqr(residual, R, C, sizes, progress, maxiter)


Inner: TypeAlias = HostInner | DeviceInner


def inner_for(matrix: TallMatrix, factor: Factor, ridge: float) -> Inner:
    return DeviceInner(matrix, factor, ridge) if isinstance(matrix, DeviceMatrix) else HostInner(matrix, factor, ridge)


def solved(
    inner: Inner, method: str, C: np.ndarray, progress: Progress, maxiter: int, reduction: float
) -> tuple[np.ndarray, bool]:
    """Y with M Y = C, as far as `progress` asks for; whether the iteration only found that sketch or precision are worse than
    assumed. The factor and M then assume less."""
    factor = inner.factor
    if method != "fossils":
        return inner.conjugate_gradients(C, progress, maxiter, factor.distortion, reduction), False
    Y, diverged = inner.heavy_ball(C, progress, maxiter, factor.distortion, reduction)
    if not diverged or inner.restore():
        return Y, diverged
    assumed, factor.distortion = factor.distortion, krylov.widened(factor.distortion)
    return Y, factor.distortion > assumed
