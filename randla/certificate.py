"""The backward error of a least-squares solution, from a factor of A (Karlson, Walden 1997; Epperly et al. 2024)."""

from __future__ import annotations

import math

import numpy as np

from ._factor import Damped, Factor
from ._numeric import norms

_STEPS_PER_OCTAVE = 8


class Certificate:
    """Evaluates || (A'A + phi^2 I)^(-1/2) A'r || phi / ||r||, phi = ||r|| / ||x||, relative to ||A||_F.

    This is within a factor sqrt(2) of the smallest change of A that makes x a solution; with A'A from a sketch, within the
    sketch's distortion. phi is rounded to an eighth of an octave so that iterates and right-hand sides share factors.

    The arguments belong to the factor's scaled problem: x / D, residual, D A'r. `weights` says for which matrix the error is
    measured: ones for the scaled A D, the diagonal of D for A itself. Being relative, it does not see a common factor of them.
    """

    def __init__(self, factor: Factor, weights: np.ndarray):
        self.factor = factor
        self.weights = weights / weights.max(initial=1e-300) if len(weights) else weights
        self.frobenius = float(norms(factor.column_norms() / self.weights)) if len(weights) else 0.0
        self._cache: dict[int, Damped] = {}

    def _damped(self, phi: float) -> Damped | None:
        """g -> ||(A'A + phi^2 weights^2)^(-1/2) g||, or None where the second term is everything."""
        high, low = self.factor.extremes
        if self.factor.regular and phi * self.weights.max() < 0.05 * low:
            return self.factor.damped(None)
        if phi * self.weights.min() > 20 * high:
            return None
        step = round(math.log2(phi) * _STEPS_PER_OCTAVE)
        if step not in self._cache:
            while len(self._cache) > 1:
                self._cache.pop(next(iter(self._cache)))
            self._cache[step] = self.factor.damped(2.0 ** (step / _STEPS_PER_OCTAVE) * self.weights)
        return self._cache[step]

    def x_norms(self, X: np.ndarray) -> np.ndarray:
        return norms(X * self.weights)

    def upper_bounds(self, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
        """Bounds from N'A'r = Z alone: ||(A'A + phi^2 I)^(-1/2) A'r|| <= ||N'A'r||."""
        sizes = self.x_norms(X)
        return norms(Z) / np.where(sizes > 0, sizes, 1) / (self.frobenius or 1.0)

    def _backward_error(self, x_norm: float, residual_norm: float, gradient: np.ndarray) -> float:
        if residual_norm == 0 or self.frobenius == 0:
            return 0.0
        damped = self._damped(residual_norm / x_norm) if x_norm > 0 else None
        if damped is None:
            return float(norms(gradient / self.weights)) / residual_norm / self.frobenius
        return damped(gradient) / x_norm / self.frobenius

    def backward_errors(self, X: np.ndarray, residual_norms: np.ndarray, G: np.ndarray) -> np.ndarray:
        """For every row of X; G holds the gradients D A'r."""
        columns = zip(self.x_norms(X), residual_norms, G, strict=True)
        return np.array([self._backward_error(float(x), float(r), g) for x, r, g in columns], dtype=float)

    def error_bounds(self, X: np.ndarray, residual_norms: np.ndarray, G: np.ndarray, eps: float) -> np.ndarray:
        """Estimated relative forward errors: the correction that the gradient asks for, plus what rounding can hide.

        The second part is the perturbation bound of Wedin (1973) for a relative change eps of A.
        """
        sizes = self.x_norms(X)
        correction = norms(self.factor.apply(self.factor.adjoint(G)) * self.weights)
        high, low = self.factor.extremes
        cond = high / low if low > 0 else 1.0
        scaled = norms(X)
        lift = residual_norms / np.where(scaled > 0, high * scaled, 1) if high > 0 else np.zeros(len(X))
        return np.where(sizes > 0, 1.2 * correction / np.where(sizes > 0, sizes, 1) + eps * cond * (1 + cond * lift), 0.0)
