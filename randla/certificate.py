"""The backward error of a least-squares solution, estimated from a factor of A (Karlson, Walden 1997; Epperly et al. 2024)."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import blas

from .precondition import Factor

_STEPS_PER_OCTAVE = 8


class Certificate:
    """Evaluates || (A'A + phi^2 I)^(-1/2) A'r || phi / ||r||, phi = ||r|| / ||x||, relative to ||A||_F.

    This is within a factor sqrt(2) of the smallest change of A that makes x a solution; with A'A from a sketch, within the
    sketch's distortion. phi is rounded to an eighth of an octave so that iterates and right-hand sides share factors.
    """

    def __init__(self, factor: Factor):
        self.factor = factor
        self._cache: dict[int, np.ndarray] = {}

    def _root(self, phi: float) -> np.ndarray | None:
        """Triangular T with T'T = D (A'A + phi^2 I) D, or None for phi D."""
        factor = self.factor
        high, low = factor.extremes
        if factor.V is None and phi * factor.scale.max() < 0.05 * low:
            return factor.R
        if phi * factor.scale.min() > 20 * high:
            return None
        step = round(math.log2(phi) * _STEPS_PER_OCTAVE)
        if step not in self._cache:
            while len(self._cache) > 1:
                self._cache.pop(next(iter(self._cache)))
            self._cache[step] = factor.regularized(2.0 ** (step / _STEPS_PER_OCTAVE))
        return self._cache[step]

    def upper_bounds(self, X: np.ndarray, Z: np.ndarray) -> np.ndarray:
        """Bounds from N'A'r = Z alone: ||(A'A + phi^2 I)^(-1/2) A'r|| <= ||N'A'r||."""
        scale = np.linalg.norm(X, axis=1) * self.factor.frobenius
        return np.linalg.norm(Z, axis=1) / np.where(scale > 0, scale, 1)

    def backward_error(self, x: np.ndarray, residual_norm: float, gradient: np.ndarray) -> float:
        """For one solution; `gradient` is A'r."""
        x_norm, fro = float(np.linalg.norm(x)), self.factor.frobenius
        if residual_norm == 0 or fro == 0:
            return 0.0
        if x_norm == 0:
            return float(np.linalg.norm(gradient)) / residual_norm / fro
        root = self._root(residual_norm / x_norm)
        if root is None:
            return float(np.linalg.norm(gradient)) / residual_norm / fro
        scaled = blas.dtrsv(root, gradient * self.factor.scale, trans=1)
        return float(np.linalg.norm(scaled)) / x_norm / fro

    def backward_errors(self, X: np.ndarray, residual_norms: np.ndarray, G: np.ndarray) -> np.ndarray:
        """For every row."""
        return np.array(
            [self.backward_error(x, float(r), g) for x, r, g in zip(X, residual_norms, G, strict=True)], dtype=float
        )

    def error_bounds(self, X: np.ndarray, residual_norms: np.ndarray, G: np.ndarray, eps: float) -> np.ndarray:
        """Estimated relative forward errors: the correction that the gradient asks for, plus what rounding can hide.

        The second part is the perturbation bound of Wedin (1973) for a relative change eps of A.
        """
        factor = self.factor
        norms = np.linalg.norm(X, axis=1)
        safe = np.where(norms > 0, norms, 1)
        correction = np.linalg.norm(factor.apply(factor.adjoint(G)), axis=1)
        high, low = factor.extremes
        cond = high / low if low > 0 else 1.0
        # In the scaled variables, where D^-1 x is the solution and `high` the norm of the matrix.
        scaled = np.linalg.norm(X / factor.scale, axis=1)
        lift = residual_norms / np.where(scaled > 0, high * scaled, 1) if high > 0 else np.zeros(len(X))
        return np.where(norms > 0, 1.2 * correction / safe + eps * cond * (1 + cond * lift), 0.0)
