"""Stochastic estimates from products: random test vectors, products that are counted and scaled, and when to stop."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.special import stdtrit

from .. import _check
from .._random import random_words
from ..families import Gaussian, Rademacher
from ._leave_one_out import GrowingBasis
from ._operand import Operand
from .result import LowRankStatus

TRACE, DIAGONAL, ROW_NORMS = range(3)  # purposes within the stream
_STREAM = 30  # see docs/definitions.md
_ROWS = 2**30  # of the sketch that test vectors are rows of: its entries are scaled by 2^-15 exactly
_UNSCALE = 2.0**15
_BLOCK = 32  # columns of the identity that are multiplied at a time
_START = 8  # test vectors before the first look at the tolerance
_GROWTH = 1.5
DEFAULT_MATVECS = 100


def sub_seed(index: int, stream: int, seed: int) -> int:
    return int(random_words(np.array([index], np.uint64), 0, stream, seed)[0, 0])


class Probes:
    """Test vectors of dimension n; number i is a function of seed, purpose and i alone."""

    def __init__(self, n: int, seed: int, purpose: int, *, signs: bool = False, paired: bool = False, stream: int = _STREAM):
        family = Rademacher() if signs else Gaussian()
        self._rows = family.sample(_ROWS, n, rng=sub_seed(purpose, stream, seed))
        self._paired = paired  # complex vectors, from two rows each

    def columns(self, i: int, j: int) -> np.ndarray:
        """Vectors i to j - 1 as columns: standard normal (complex ones with E|x|^2 = 1) or random signs."""
        if not self._paired:
            return self._rows[i:j, :].T * _UNSCALE
        pairs = self._rows[2 * i : 2 * j, :].T * (_UNSCALE / math.sqrt(2))
        return pairs[:, 0::2] + 1j * pairs[:, 1::2]


class Products:
    """Products with a matrix in double precision, divided by one power of two near the size of the first of them, or near
    `beside`, a number to be added to the matrix, if that is larger."""

    def __init__(self, A: Operand, beside: float = 0.0):
        self.A, self.count, self.beside = A, 0, beside
        self.eps = float(np.finfo(A.dtype).eps)
        self._exponent: int | None = None

    def times(self, X: np.ndarray) -> np.ndarray:
        return self._scaled(self.A.times(X))

    def adjoint_times(self, X: np.ndarray) -> np.ndarray:
        return self._scaled(self.A.adjoint_times(X))

    def _scaled(self, Y: np.ndarray) -> np.ndarray:
        self.count += Y.shape[1]
        parts = Y.view(_check.real_dtype(Y.dtype)) if Y.dtype.kind == "c" else Y
        largest = float(np.abs(parts).max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError(f"{self.A.name} must have finite products; got NaN or infinite entries")
        if self._exponent is None and (largest or self.beside):
            self._exponent = math.frexp(max(largest, self.beside))[1]
        Y = Y.astype(np.result_type(Y.dtype, np.float64), copy=False)
        return self._shifted(Y, -(self._exponent or 0))

    def unscaled(self, value: Any, power: int = 1) -> Any:
        """In the units of the caller; infinite where that overflows."""
        return self._shifted(np.asarray(value), power * (self._exponent or 0))

    @property
    def log_unit(self) -> float:
        """The logarithm of the power of two."""
        return (self._exponent or 0) * math.log(2)

    @staticmethod
    def _shifted(Y: np.ndarray, exponent: int) -> np.ndarray:
        # Two factors, as one may be out of range alone.
        half = exponent // 2
        with np.errstate(over="ignore", under="ignore"):
            return Y * math.ldexp(1.0, half) * math.ldexp(1.0, exponent - half)


class Estimate(NamedTuple):
    """A value (a number or an array), its standard error (likewise), and the degrees of freedom of the latter."""

    value: Any
    error: Any
    freedom: int


class RangeOfSamples:
    """Test vectors X, a basis of the range of their images, and the images Z of the basis, each under A or under A*."""

    cost = 2
    first = second = "times"  # methods of Products

    def __init__(self, products: Products, probes: Probes):
        self.products, self.probes = products, probes
        m, n = products.A.shape if self.first == "times" else products.A.shape[::-1]
        self.X, self.basis = np.zeros((n, 0)), GrowingBasis(m)
        self.Z = np.zeros((m if self.first == self.second else n, 0))

    def grow(self, count: int) -> None:
        X = self.probes.columns(self.X.shape[1], count)
        added = self.basis.extend(getattr(self.products, self.first)(X))
        self.X = np.concatenate([self.X, X], axis=1)
        self.Z = np.concatenate([self.Z, getattr(self.products, self.second)(added)], axis=1)


class Sampled:
    """Test vectors X and their images Y = A X, one product for each."""

    cost = 1

    def __init__(self, products: Products, probes: Probes):
        self.products, self.probes = products, probes
        self.X, self.Y = (np.zeros((size, 0)) for size in reversed(products.A.shape))

    def grow(self, count: int) -> None:
        X = self.probes.columns(self.X.shape[1], count)
        self.X = np.concatenate([self.X, X], axis=1)
        self.Y = np.concatenate([self.Y, self.products.times(X)], axis=1)


class Estimator(Protocol):
    cost: int  # products per test vector

    def grow(self, count: int) -> None:
        """To this number of test vectors in all."""

    def estimate(self) -> Estimate: ...


def half_width(error: Any, freedom: int, level: float) -> Any:
    """Of the two-sided confidence interval by Student's t."""
    return float(stdtrit(max(freedom, 1), (1 + level) / 2)) * error


def mean_and_error(samples: np.ndarray, floor: Any) -> Estimate:
    """Of samples along the first axis; the error is not below `floor`, that of rounding."""
    k = len(samples)
    mean = samples.mean(axis=0)
    spread = np.sqrt((np.abs(samples - mean) ** 2).sum(axis=0) / (k * (k - 1)))
    return Estimate(mean, np.hypot(spread, floor), k - 1)


def smallest_budget(cost: int) -> int:
    """Products for two test vectors: fewer give no error."""
    return 2 * cost


def run(
    estimator: Estimator, products: Products, columns: int, matvecs: int | None, tol: float | None
) -> tuple[Estimate | None, LowRankStatus]:
    """Grow until the 95 % interval is within tol times the norm of the value, or by the budget.

    None for the estimate where as many products as columns are allowed and would be needed: they give the exact result.
    """
    cost = estimator.cost
    budget = columns if matvecs is None else matvecs
    if tol is None:
        budget = min(DEFAULT_MATVECS, columns) if matvecs is None else matvecs
        if budget >= columns:
            return None, LowRankStatus.COMPUTED
        estimator.grow(budget // cost)
        return estimator.estimate(), LowRankStatus.ESTIMATED
    count = _START
    while True:
        if cost * count >= columns <= budget:
            return None, LowRankStatus.COMPUTED
        count = min(count, budget // cost)
        estimator.grow(count)
        found = estimator.estimate()
        if np.linalg.norm(half_width(found.error, found.freedom, 0.95)) <= tol * np.linalg.norm(found.value):
            return found, LowRankStatus.TOLERANCE_REACHED
        if count == budget // cost:
            return found, LowRankStatus.PRODUCTS_EXHAUSTED
        count = math.ceil(_GROWTH * count)


def unit_blocks(n: int) -> Any:
    """(offset, columns of the identity)."""
    for j in range(0, n, _BLOCK):
        yield j, np.eye(n, min(_BLOCK, n - j), -j)
