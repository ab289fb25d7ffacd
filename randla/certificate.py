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
        # Not so small that there were nothing left to divide by.
        self.weights = np.maximum(weights / weights.max(initial=1e-300), 2.0**-1000) if len(weights) else weights
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
        if not math.isfinite(x_norm + residual_norm):
            return math.inf
        if residual_norm == 0 or self.frobenius == 0:
            return 0.0
        damped = self._damped(residual_norm / x_norm) if x_norm > 0 else None
        if damped is None:
            return float(norms(gradient / self.weights)) / residual_norm / self.frobenius
        return damped(gradient) / x_norm / self.frobenius

    def backward_errors(self, X: np.ndarray, residual_norms: np.ndarray, G: np.ndarray) -> np.ndarray:
        """For every row of X; G holds the gradients D A'r."""
        columns = zip(self.x_norms(X), residual_norms, G, strict=True)
        errors = np.array([self._backward_error(float(x), float(r), g) for x, r, g in columns], dtype=float)
        return np.where(np.isnan(errors), np.inf, errors)

    def _amplification(self, low: float) -> float:
        """Bound of the norm of N with its rows weighted: a small column has a large share in what x makes of an error."""
        most = 1 / low if low > 0 else 0.0
        if not len(self.weights) or self.weights.min() >= 0.25:
            return most
        return min(most, float(norms(self.weights * self.factor.row_norms())))

    def error_bounds(self, X: np.ndarray, residual_norms: np.ndarray, G: np.ndarray, eps: float) -> np.ndarray:
        """Estimated relative forward errors: the correction that the gradient asks for, plus what rounding can hide.

        The second part is the perturbation bound of Wedin (1973) for a relative change eps of the columns of A.
        """
        sizes = self.x_norms(X)
        correction = norms(self.factor.apply(self.factor.adjoint(G)) * self.weights)
        high, low = self.factor.extremes
        cond = self.factor.cond if low > 0 else 1.0
        hidden = eps * (high * norms(X) + cond * residual_norms) * self._amplification(low)
        bounds = (1.2 * correction + hidden) / np.where(sizes > 0, sizes, 1)
        # Of x = 0 every correction is infinitely much.
        bounds = np.where(sizes > 0, bounds, np.where(correction > 0, np.inf, 0.0))
        return np.where(np.isnan(bounds), np.inf, bounds)
