"""Least squares with a dense A on a CUDA device.

What is as long as the rows of A stays on the device. What is as long as its columns is decided upon on the host, once a cycle;
the iterations of a cycle run on the device, and the host looks at them after several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from . import krylov
from ._backend import kernels, namespace, solve_triangular, to_host
from ._row_map import RowMap
from ._tall import TallMatrix
from .families import BlockSRHT, Distribution
from .krylov import Progress
from .sketch import SketchOperator

if TYPE_CHECKING:
    from ._factor import Factor

_BLOCK = 1 << 24  # entries of rows that are mapped at a time: 128 MB
_GRAM_COND = 1e7  # above it a Cholesky factor of a Gram matrix is no longer one of the sketch; as in precondition.py
_STEPS = 4  # iterations between two looks of the host, after the first ones


class DeviceDense(TallMatrix):
    """A dense matrix of a device. Right-hand sides and weights are there too; X, G and sketches are exchanged with the host."""

    default_sketch: Distribution = BlockSRHT()
    reduces_sketch = True

    def __init__(self, A: Any, weights: Any = None):
        self.A, self.weights = A, weights
        self.shape: tuple[int, int] = (int(A.shape[0]), int(A.shape[1]))
        self.dtype, self.passes = np.dtype(A.dtype), 0
        self.xp = namespace(A)

    @cached_property
    def roots(self) -> Any:
        return self.xp.sqrt(self.weights)

    def pass_over(self, X: Any, B: Any, R: Any = None) -> tuple[Any, Any]:
        """A'(w (B - A X)) and the weighted sums of squares of its rows; X, B and the results on the device. One pass."""
        G = self.xp.empty((len(X), self.shape[1]))
        squares = self.xp.empty(len(X))
        self.passes += 1
        kernels(self.A).residual(self.A, X, B, R, G, self.weights, squares)
        return G, squares

    def residual(self, X: np.ndarray, B: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        R = self.xp.empty((len(X), self.shape[0]))
        G, squares = self.pass_over(self.xp.asarray(X), B, R)
        return R, to_host(G), to_host(squares)

    def times(self, X: np.ndarray) -> Any:
        return -self.residual(X, None)[0]

    def sketched(self, S: SketchOperator, B: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A triangle with the Gram matrix of (S A, S B'), which is all that the host needs."""
        self.passes += 1
        n, k = self.shape[1], len(B)
        both = self.xp.empty((S.shape[0], n + k))
        both[:, :n] = self._sketch(S)
        both[:, n:] = S @ (B.T if self.weights is None else (B * self.roots).T)
        R = to_host(self._triangle(both, n))
        yield np.ascontiguousarray(R[:, :n]), np.ascontiguousarray(R[:, n:])

    def _sketch(self, S: SketchOperator) -> Any:
        return S @ (self.A if self.weights is None else self.A * self.roots[:, None])

    def _triangle(self, both: Any, n: int) -> Any:
        """R of a QR factorization: its panels wait for each other, so Cholesky's where that is as good."""
        if len(both) < both.shape[1]:
            return both
        scale = self.xp.sqrt((both * both).sum(axis=0))
        scale[scale == 0] = 1
        scaled = both / scale
        gram = scaled.T @ scaled
        if not math.isfinite(float(gram.sum())):
            return self.xp.full((both.shape[1], both.shape[1]), math.nan)
        try:
            # The right-hand sides may lie in the range of A: what belongs to A alone is factored alone.
            R = self.xp.linalg.cholesky(gram[:n, :n]).T
            inverse = solve_triangular(R, self.xp.eye(n))
            cond = math.sqrt(n) * float(abs(R).sum(axis=0).max() * abs(inverse).sum(axis=0).max())
        except np.linalg.LinAlgError:
            cond = math.inf
        if not cond <= _GRAM_COND:
            return self.xp.linalg.qr(both, mode="r")
        out = self.xp.zeros((both.shape[1], both.shape[1]))
        out[:n, :n] = R
        out[:n, n:] = inverse.T @ gram[:n, n:]
        return out * scale

    def row_blocks(self, rows: int) -> Iterator[Any]:
        self.passes += 1
        for i in range(0, self.shape[0], rows):
            block = self.A[i : i + rows].astype(np.float64, copy=False)
            yield block if self.weights is None else block * self.roots[i : i + rows, None]

    def _images(self, mapping: RowMap) -> Iterator[Any]:
        T = self.xp.asarray(mapping.T * mapping.scale[:, None])
        for block in self.row_blocks(max(256, _BLOCK // max(1, self.shape[1]))):
            yield block @ T

    def gram(self, mapping: RowMap) -> np.ndarray:
        G = self.xp.zeros((mapping.rank, mapping.rank))
        for image in self._images(mapping):
            G += image.T @ image
        return to_host(G)

    def row_norms(self, mapping: RowMap, single: bool = False) -> Any:
        parts = [(image * image).sum(axis=1) for image in self._images(mapping)]
        return self.xp.concatenate(parts) if parts else self.xp.empty(0)

    def row_squares(self) -> Any:
        rows = max(1, _BLOCK // max(1, self.shape[1]))
        parts = [(block * block).sum(axis=1) for block in self.row_blocks(rows)]
        return self.xp.concatenate(parts) if parts else self.xp.empty(0)

    def _take(self, indices: Any) -> Any:
        return self.A[indices].astype(np.float64, copy=False)

    def is_finite(self) -> bool:
        return bool(self.xp.isfinite(self.A).all())

    def transposed(self) -> TallMatrix:
        return DeviceDense(self.A.T)


class Inner:
    """The inner iterations for M = N'(A'A + ridge) N with everything on the device; see `krylov` for those of the host."""

    def __init__(self, matrix: DeviceDense, factor: Factor, ridge: float):
        self.matrix, self.ridge = matrix, ridge
        self.xp = matrix.xp
        # One product with an inverse is faster than a triangular solve, which waits for its own results.
        self.N = self.xp.asarray(np.ascontiguousarray(factor.apply(np.eye(factor.rank)) * factor.scale))

    def normal(self, Z: Any) -> Any:
        V = Z @ self.N
        G, _ = self.matrix.pass_over(V, None)
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
        steps = math.ceil(math.log(max(reduction, 1e-16)) / math.log(distortion))
        while watch.live.any() and watch.iterations < maxiter:
            for _ in range(min(max(steps, 1), maxiter - watch.iterations)):
                S = start - self.normal(Y)
                last, previous, Y = Y, Y, Y + damping * S + momentum * (Y - previous)
                watch.iterations += 1
            watch.look(S, last)
            steps = _STEPS
        return watch.best, watch.diverged

    def conjugate_gradients(
        self, C: np.ndarray, progress: Progress, maxiter: int, distortion: float, reduction: float
    ) -> np.ndarray:
        """As `krylov.conjugate_gradients`."""
        S = self.xp.asarray(C)
        Y, P, rho = self.xp.zeros_like(S), S.copy(), _dots(S, S)
        watch = _Watch(C, progress)
        # Half of what the fixed iteration takes, and then fewer at a time: they stop nearer to where they can.
        steps = math.ceil(0.5 * math.log(max(reduction, 1e-16)) / math.log(distortion))
        while watch.live.any() and watch.iterations < maxiter:
            for _ in range(min(max(steps, 1), maxiter - watch.iterations)):
                MP = self.normal(P)
                curvature = _dots(P, MP)
                able = curvature > 0  # also false for NaN
                alpha = self.xp.where(able, rho / self.xp.where(able, curvature, 1), 0)[:, None]
                Y, S = Y + alpha * P, S - alpha * MP
                new = _dots(S, S)
                P = S + self.xp.where(rho > 0, new / self.xp.where(rho > 0, rho, 1), 0)[:, None] * P
                rho = new
                watch.iterations += 1
            watch.look(S, Y)
            steps = _STEPS
        return watch.best


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


def _dots(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=1)
