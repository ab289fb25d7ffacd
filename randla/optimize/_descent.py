"""Gradient descent on the cubic model (Carmon, Duchi 2019)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg.blas import dnrm2

from ._krylov import Model, Step, as_step, no_step
from ._shifted import Subspace
from .certificate import start_vector

_PERTURBATION = 1e-3  # of the start, along a random direction, relative to its norm
_HALVINGS = 30


class GradientModel(Model):
    """Gradient descent on g's + s'Hs/2 + sigma/3 ||s||^3 from the Cauchy point.

    Carmon and Duchi perturb g at random to leave the hard case; here the start is perturbed, and the minimizer stays that of
    g. The step length is 1 / (b + 2 sigma ||s||), b the largest ||H v|| / ||v|| seen, halved where the model would not fall.
    The step is the minimizer over the span of g, the last iterate, the last gradient and the random direction, whose products
    are known: for another sigma it takes none, and it decreases the model at least as much as the Cauchy point.

    Parameters
    ----------
    H : anything with `H @ v`
    g : ndarray (d,)
    tol : float
        Until the gradient of the model is at most tol max(||g||, sigma ||s||^2).
    maxiter : int
        Default 1000.
    seed : int
        Of the random direction.
    """

    def __init__(self, H: Any, g: np.ndarray, *, tol: float = 1e-4, maxiter: int = 1000, seed: int = 0):
        super().__init__()
        self.tol, self.seed = tol, seed
        self._H, self._g, self._maxiter = H, g, maxiter
        self._g_size = float(dnrm2(g))
        self._bound = 0.0
        # Columns: g / ||g||, the random direction, the iterate, the last gradient.
        self._X, self._HX = np.zeros((len(g), 4)), np.zeros((len(g), 4))
        self._subspace: Subspace | None = None

    def lowest(self) -> tuple[float, np.ndarray]:
        if self._products == 0 or self._span().rank == 0:
            return math.nan, np.zeros_like(self._g)
        return self._span().lowest()

    def cubic(self, sigma: float, *, grow: bool = True) -> Step:
        """The step for the weight sigma of the cubic term; without products for grow=False."""
        if grow and self._products == 0:
            self._begin()
        if self._products == 0 or self._span().rank == 0:
            return no_step(len(self._g), self._g_size)
        root, s, Hs, residual = self._span().solve(sigma, True)
        if grow and residual > self.tol:
            self._descend(sigma, s, Hs)
            root, s, Hs, residual = self._span().solve(sigma, True)
        return as_step(root, s, residual, float(self._span().w[0]), residual <= self.tol)

    def _span(self) -> Subspace:
        if self._subspace is None:
            self._subspace = Subspace(self._X, self._HX, self._g)
        return self._subspace

    def _set(self, column: int, v: np.ndarray, Hv: np.ndarray) -> None:
        self._X[:, column], self._HX[:, column] = v, Hv
        self._subspace = None

    def _product(self, v: np.ndarray) -> np.ndarray | None:
        Hv = np.asarray(self._H @ v, dtype=np.float64)
        self._products += 1
        size = float(dnrm2(Hv))
        if not math.isfinite(size):
            self._failed = True
            return None
        self._bound = max(self._bound, size / float(dnrm2(v)))
        return Hv

    def _begin(self) -> None:
        directions = [start_vector(len(self._g), 0, self.seed)]
        if self._g_size > 0:
            directions.insert(0, self._g / self._g_size)
        for v in directions:
            Hv = self._product(v)
            if Hv is None:
                return
            self._set(1 if v is directions[-1] else 0, v, Hv)

    def _descend(self, sigma: float, x: np.ndarray, Hx: np.ndarray) -> None:
        """Until the gradient of the model is small: each iteration is one product."""
        if not self._X[:, 2].any():
            size = _PERTURBATION * float(dnrm2(x))
            x, Hx = x + size * self._X[:, 1], Hx + size * self._HX[:, 1]
        value = self._value(sigma, x, Hx)
        for _ in range(self._maxiter):
            size = float(dnrm2(x))
            gradient = self._g + Hx + (sigma * size) * x
            if not dnrm2(gradient) > self.tol * max(self._g_size, sigma * size * size):
                break
            H_gradient = self._product(gradient)
            if H_gradient is None:
                break
            self._set(3, gradient, H_gradient)
            length = 1 / (self._bound + 2 * sigma * size)
            for _ in range(_HALVINGS):
                new, H_new = x - length * gradient, Hx - length * H_gradient
                new_value = self._value(sigma, new, H_new)
                if new_value < value:
                    break
                length /= 2
            else:
                break
            x, Hx, value = new, H_new, new_value
        self._set(2, x, Hx)

    def _value(self, sigma: float, x: np.ndarray, Hx: np.ndarray) -> float:
        size = float(dnrm2(x))
        return float(self._g @ x + 0.5 * (x @ Hx)) + sigma / 3 * size * size * size
