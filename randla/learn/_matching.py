"""Orthogonal matching pursuit with products A'a_j made for several likely columns in one pass (Rubinstein et al. 2008)."""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import _cpu
from ._columns import Columns, combination

_AHEAD = 8  # columns whose products one pass makes
_HELD = 1 << 25  # numbers of the table of A'a_j: 256 MB
_DEPENDENT = 1e-12  # share of a column outside the others below which it brings nothing new
_TINY = float(np.finfo(np.float64).tiny)
_ZERO = 1e-14  # of ||b||: a residual that is rounding alone


@dataclasses.dataclass
class Match:
    x: np.ndarray
    support: np.ndarray
    residuals: list[float]
    exact: bool


class Matching:
    """Orthogonal matching pursuit over columns of norm one; the table of products serves all right-hand sides."""

    def __init__(self, columns: Columns, k: int):
        self.columns, self.k = columns, k
        self.norms = columns.norms()
        self.inverse = np.divide(1.0, self.norms, out=np.zeros_like(self.norms), where=self.norms >= _TINY)
        n = columns.shape[1]
        # Products with the orthonormal basis replace passes over A as long as they are fewer than its rows.
        self.ahead = _AHEAD if 2 * k <= columns.shape[0] and k * n <= _HELD else 0
        self._table: dict[int, np.ndarray] = {}
        self._unit: dict[int, np.ndarray] = {}

    def _column(self, j: int) -> np.ndarray:
        return np.asarray(self.columns.take(np.array([j]))[0], np.float64) * self.inverse[j]

    def _product(self, j: int) -> np.ndarray:
        if j not in self._table:
            self._table[j] = self.columns.adjoint(self._column(j)[None])[0] * self.inverse
        return self._table[j]

    def _look(self, r: np.ndarray, c: np.ndarray | None) -> np.ndarray:
        """Correlations with r, afresh; on the way the products of the columns that are likely to follow."""
        if c is None or not self.ahead:
            return self.columns.adjoint(r[None])[0] * self.inverse
        size = np.abs(c)
        likely = np.argpartition(size, -min(self.ahead, len(c)))[-min(self.ahead, len(c)) :]
        likely = np.array([j for j in likely if j not in self._table and size[j] > 0], np.intp)
        if (len(self._table) + len(likely)) * len(c) > _HELD:
            self._table.clear()
        units = np.asarray(self.columns.take(likely), np.float64) * self.inverse[likely, None]
        products = self.columns.adjoint(np.vstack([units, r[None]]))
        for i, j in enumerate(likely):
            self._table[int(j)] = products[i] * self.inverse
        return products[-1] * self.inverse

    def match(self, b: np.ndarray, tol: float) -> Match:
        m, n, k = len(b), self.columns.shape[1], self.k
        size = float(np.sqrt(b @ b))
        Q, R, H = np.empty((k, m)), np.zeros((k, k)), np.empty((k if self.ahead else 0, n))
        coefficients, support = np.empty(k), np.empty(k, np.intp)
        r, c, count, exact = b.copy(), self.columns.correlations(b) * self.inverse, 0, False
        free = self.inverse > 0
        residuals = [size]
        while count < k and residuals[-1] > tol * size:
            j = int(np.argmax(np.abs(c) * free))
            if not free[j] or abs(c[j]) <= _ZERO * size:
                exact = True
                break
            if self.ahead and j not in self._table:
                c = self._look(r, c * free)
                j = int(np.argmax(np.abs(c) * free))
            free[j] = False
            q = self._column(j)
            for _ in range(2 if count else 0):
                onto, inside = _project(Q[:count], q)
                q = q - inside
                R[:count, count] += onto
            left = float(np.sqrt(q @ q))
            if left <= _DEPENDENT:
                R[:, count] = 0.0
                continue
            q /= left
            R[count, count], Q[count], support[count] = left, q, j
            coefficients[count] = q @ r
            r = r - coefficients[count] * q
            count += 1
            residuals.append(float(np.sqrt(r @ r)))
            if not self.ahead:
                c = self._look(r, None)
                continue
            h = H[count - 1]
            h[:] = self._product(j)
            if count > 1:
                h -= combination(H[: count - 1], R[: count - 1, count - 1])
            h /= left
            c = c - coefficients[count - 1] * h
        x = np.zeros(n)
        v = coefficients[:count].copy()
        for i in range(count - 1, -1, -1):
            v[i] /= R[i, i]
            v[:i] -= v[i] * R[:i, i]
        x[support[:count]] = v * self.inverse[support[:count]]
        return Match(x, support[:count].copy(), residuals, exact)


def _project(Q: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q z and Q'Q z in one read."""
    onto, inside = np.empty((1, len(Q))), np.empty((1, len(z)))
    _cpu.weighted_product(Q, None, z[None], None, None, onto, inside)
    return onto[0], inside[0]
