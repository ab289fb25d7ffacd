"""E s(w.x) s(y.x) for Gaussian x and an activation s, as a function of norms and angle, and the best multiple of a direction.

Of a row w of norm a a subspace keeps the share p = |P w| / |w|. The best row of the subspace is y = b P w / |P w|, and

    E s(w.x)^2 - min_b E (s(w.x) - s(y.x))^2 = gain(a, p).

Where E s(w.x) s(y.x) is convex and increasing in the cosine for every b, the gain is so in p, being a largest value over b.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.linalg

from .. import _check
from ..lowrank._products import product

NAMES = ("relu", "leaky_relu", "erf", "linear")
_NODES, MOST_NODES = 128, 256
_GRID = 97  # norms that are tried for each row, geometrically spaced
_SMALLEST, _LARGEST = 1e-3, 4.0  # of those, in units of the smallest and of the largest norm of a row
_DECADES = 8
_STEP = 1.05


@dataclass(frozen=True)
class Best:
    """Of every row: the norm to take (negative: against the direction), the gain, and its derivative by p."""

    norm: np.ndarray
    gain: np.ndarray
    slope: np.ndarray


class Activation(Protocol):
    homogeneous: bool  # s(t x) = t s(x) for t > 0
    convex: bool  # the gain is convex and increasing in p

    @property
    def name(self) -> str: ...

    def energy(self, a: np.ndarray) -> np.ndarray:
        """E s(w.x)^2."""

    def best(self, a: np.ndarray, p: np.ndarray, near: np.ndarray | None = None) -> Best:
        """`near` holds norms to begin from, which the answer is at least as good as."""

    def loss(self, a: np.ndarray, b: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """E (s(w.x) - s(y.x))^2."""


@dataclass(frozen=True)
class LeakyRelu:
    """s(t) = max(t, 0) + slope min(t, 0): ReLU at 0, the absolute value at -1, the identity at 1."""

    name: str
    slope: float
    homogeneous = convex = True

    @property
    def _even(self) -> float:
        """The share of the even part |t| (1 - slope) / 2 in E s^2."""
        return (1 - self.slope) ** 2 / ((1 + self.slope) ** 2 + (1 - self.slope) ** 2)

    def energy(self, a: np.ndarray) -> np.ndarray:
        return (1 + self.slope**2) / 2 * a * a

    def best(self, a: np.ndarray, p: np.ndarray, near: np.ndarray | None = None) -> Best:
        even, arc = self._even, np.arcsin(p)
        h = (1 - even) * p + even * (2 / np.pi) * (np.sqrt((1 - p) * (1 + p)) + p * arc)
        slope = (1 - even) + even * (2 / np.pi) * arc
        energy = self.energy(a)
        return Best(a * h, energy * h * h, 2 * energy * h * slope)

    def loss(self, a: np.ndarray, b: np.ndarray, angle: np.ndarray) -> np.ndarray:
        # 1 - h, in a form that keeps its digits at small angles.
        defect = 2 * np.sin(angle / 2) ** 2 - self._even * (2 / np.pi) * (np.sin(angle) - angle * np.cos(angle))
        return (1 + self.slope**2) / 2 * ((a - b) ** 2 + 2 * a * b * np.maximum(defect, 0.0))


@dataclass(frozen=True)
class Erf:
    """s(t) = erf(t), for which E s(w.x) s(y.x) = (2/pi) arcsin(2 w.y / sqrt((1 + 2|w|^2)(1 + 2|y|^2))) (Williams 1998).

    With sin alpha = sqrt(2) a / sqrt(1 + 2 a^2), and likewise for b, the derivative by b vanishes where
    sin beta = p sin alpha; the gain there is (2/pi) arcsin(p^2 sin^2 alpha).
    """

    name = "erf"
    homogeneous = False
    convex = True

    @staticmethod
    def _sine(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """sin alpha, cos alpha."""
        length = np.hypot(1.0, np.sqrt(2) * a)
        return np.sqrt(2) * a / length, 1 / length

    def energy(self, a: np.ndarray) -> np.ndarray:
        return 2 / np.pi * np.arcsin(np.minimum(self._sine(a)[0] ** 2, 1.0))

    def best(self, a: np.ndarray, p: np.ndarray, near: np.ndarray | None = None) -> Best:
        sine, cosine = self._sine(a)
        below = cosine**2 + sine**2 * (1 - p) * (1 + p)  # 1 - (p sin alpha)^2
        share = np.minimum((p * sine) ** 2, 1.0)
        norm = np.minimum(p * sine / np.sqrt(2 * np.maximum(below, np.finfo(float).tiny)), a)
        root = np.sqrt(np.maximum(below * (1 + share), np.finfo(float).eps ** 2))
        return Best(norm, 2 / np.pi * np.arcsin(share), 4 / np.pi * p * sine**2 / root)

    def loss(self, a: np.ndarray, b: np.ndarray, angle: np.ndarray) -> np.ndarray:
        (sine, _), (other, _) = self._sine(a), self._sine(b)
        squares = np.arcsin(np.minimum(sine**2, 1.0)) + np.arcsin(np.minimum(other**2, 1.0))
        return np.maximum(2 / np.pi * (squares - 2 * np.arcsin(np.clip(sine * other * np.cos(angle), -1.0, 1.0))), 0.0)


@dataclass
class Quadrature:
    """Any function, by its Hermite coefficients c_k(a) = E s(a g) h_k(g): E s(w.x) s(y.x) = sum c_k(a) c_k(b) cos^k.

    The coefficients come from Gauss-Hermite quadrature with as many nodes as coefficients, in which their squares sum to the
    quadrature of s^2: the loss is never negative, and zero at y = w.
    """

    function: Callable[[np.ndarray], Any]
    nodes: int = _NODES
    name = "callable"
    homogeneous = convex = False
    _last: _Known | None = None

    def coefficients(self, a: np.ndarray) -> np.ndarray:
        points, table = hermite(self.nodes)
        arguments = a[:, None] * points
        with np.errstate(all="ignore"):
            values = np.asarray(self.function(arguments))
        if values.shape != arguments.shape or values.dtype.kind not in "fiub":
            raise ValueError(
                f"activation must map a real array to one of its shape; got shape {values.shape}, dtype {values.dtype}, "
                f"from shape {arguments.shape}"
            )
        if not np.isfinite(values).all():
            raise ValueError(
                f"activation must be finite; got NaN or infinity between {arguments.min():g} and {arguments.max():g}"
            )
        return product(values.astype(np.float64, copy=False), table)

    def energy(self, a: np.ndarray) -> np.ndarray:
        return np.square(self.coefficients(a)).sum(axis=1)

    def loss(self, a: np.ndarray, b: np.ndarray, angle: np.ndarray) -> np.ndarray:
        first, second = self.coefficients(a), self.coefficients(b)
        cosines = _powers(np.cos(angle), self.nodes)
        return np.maximum(((first - second) ** 2 + 2 * first * second * (1 - cosines)).sum(axis=1), 0.0)

    def best(self, a: np.ndarray, p: np.ndarray, near: np.ndarray | None = None) -> Best:
        if self._last is None or self._last.rows is not a:
            self._last = self._known(a)
        known = self._last
        powers = _powers(p, self.nodes)
        weighted = 2 * known.coefficients * powers
        norm = np.abs(near) if near is not None and np.all(near) else self._from_grid(weighted, known)
        # A parabola through three values of the gain; no trial is taken that is not above the norm that was given.
        middle, left, right = (self._gain(weighted, norm * factor)[0] for factor in (1.0, 1 / _STEP, _STEP))
        bend = left - 2 * middle + right
        shift = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), np.sign(right - left))
        trial = norm * _STEP ** np.clip(shift, -2.0, 2.0)
        norm = np.where(self._gain(weighted, trial)[0] > middle, trial, norm)
        gain, sign, c = self._gain(weighted, norm)
        order = np.arange(1, self.nodes)
        signs = np.where(order % 2, sign[:, None], 1.0)
        slope = 2 * np.einsum("ij,ij,ij,ij,j->i", known.coefficients[:, 1:], signs, c[:, 1:], powers[:, :-1], order)
        return Best(sign * norm, gain, slope)

    def _from_grid(self, weighted: np.ndarray, known: _Known) -> np.ndarray:
        odd = product(weighted[:, 1::2], known.table[:, 1::2].T)
        even = product(weighted[:, ::2], known.table[:, ::2].T)
        gains = even + np.abs(odd) - np.square(known.table).sum(axis=1)
        return known.norms[gains.argmax(axis=1)]

    def _gain(self, weighted: np.ndarray, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of rows with these norms, along or against the direction, whichever is better; the sign, and the coefficients."""
        c = self.coefficients(norm)
        odd = np.vecdot(weighted[:, 1::2], c[:, 1::2])
        gain = np.vecdot(weighted[:, ::2], c[:, ::2]) + np.abs(odd) - np.square(c).sum(axis=1)
        return gain, np.where(odd < 0, -1.0, 1.0), c

    def _known(self, a: np.ndarray) -> _Known:
        largest = a.max(initial=0.0) or 1.0
        lowest = max(a[a > 0].min(initial=largest) * _SMALLEST, largest * 10.0**-_DECADES)
        grid = np.geomspace(lowest, largest * _LARGEST, _GRID)
        tried = np.concatenate([[0.0], grid])
        return _Known(a, self.coefficients(a), tried, self.coefficients(tried))


@dataclass(frozen=True)
class _Known:
    """What does not change with the subspace: coefficients of the rows, norms to try and the coefficients of these."""

    rows: np.ndarray
    coefficients: np.ndarray
    norms: np.ndarray
    table: np.ndarray


@functools.lru_cache(maxsize=4)
def hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of Gauss-Hermite quadrature for N(0, 1), and w_j h_k(x_j) for the orthonormal polynomials (Golub, Welsch 1969)."""
    points = scipy.linalg.eigvalsh_tridiagonal(np.zeros(count), np.sqrt(np.arange(1.0, count)))
    points = (points - points[::-1]) / 2
    # By the recurrence: the first entries of eigenvectors have lost the weights of outer nodes, where functions may be large.
    values = np.empty((count, count))  # exp(-x_j^2 / 4) h_k(x_j)
    values[:, 0] = np.exp(-points * points / 4)
    if count > 1:
        values[:, 1] = points * values[:, 0]
    for k in range(2, count):
        values[:, k] = (points * values[:, k - 1] - np.sqrt(k - 1) * values[:, k - 2]) / np.sqrt(k)
    return points, values * (values[:, :1] / np.square(values).sum(axis=1, keepdims=True))


def _powers(p: np.ndarray, count: int) -> np.ndarray:
    """p^0 .. p^(count-1), a row for each p."""
    powers = np.ones((len(p), count))
    np.cumprod(np.broadcast_to(p[:, None], (len(p), count - 1)), axis=1, out=powers[:, 1:])
    return powers


def activation_of(value: Any, slope: float) -> Activation:
    """The activation that a user names or gives."""
    slope = _check.real(slope, "slope", low=-np.inf)
    if callable(value):
        return Quadrature(value)
    if value == "relu":
        return LeakyRelu("relu", 0.0)
    if value == "leaky_relu":
        return LeakyRelu("leaky_relu", slope)
    if value == "linear":
        return LeakyRelu("linear", 1.0)
    if value == "erf":
        return Erf()
    raise ValueError(f"activation must be a function or one of {', '.join(NAMES)}; got {value!r}")
