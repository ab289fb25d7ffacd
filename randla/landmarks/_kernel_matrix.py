"""Blocks of kernel matrices: from points by name or by a callable, or from a matrix that is there already."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg.blas as blas
import scipy.sparse as sp

from .. import _check, _cpu

NAMES = ("linear", "rbf", "laplacian", "precomputed")
_DIAGONAL = 32  # points at a time where a callable gives the diagonal only within blocks
_DIFFERENCES = 64  # coordinates up to which squares of differences are summed: with more, products take half the time
_DENSE = 1 << 20  # coordinates of sparse points that are made dense at a time


class Kernel:
    """k(x, y) = conj(k(y, x)) between rows of two sets of points; counts its evaluations.

    eps is the unit roundoff of the values seen so far, which says what counts as zero.
    """

    def __init__(self) -> None:
        self.evaluations = 0
        self.eps = float(np.finfo(float).eps)

    def block(self, a: Any, b: Any) -> np.ndarray:
        """(len(a), len(b)), float64 or complex128, C-contiguous."""
        if not (len_of(a) and len_of(b)):
            return np.zeros((len_of(a), len_of(b)))
        self.evaluations += len_of(a) * len_of(b)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._block(a, b)

    def diagonal(self, a: Any) -> np.ndarray:
        """k(x, x) in float64; raises ValueError for values that no positive semi-definite kernel has."""
        self.evaluations += len_of(a)
        values = self._diagonal(a)
        if not np.isfinite(values).all():
            raise ValueError("kernel must be finite; got NaN or infinite values of kernel(x, x)")
        if values.size and values.min() < 0:
            raise ValueError(f"kernel must be positive semi-definite; got the diagonal value {values.min():g}")
        return values

    def _block(self, a: Any, b: Any) -> np.ndarray:
        raise NotImplementedError

    def _diagonal(self, a: Any) -> np.ndarray:
        raise NotImplementedError

    def _seen(self, values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
        """Values that came from outside in float64 or complex128."""
        dense = values.toarray() if sp.issparse(values) else np.asarray(values)
        if dense.shape != shape:
            raise ValueError(f"{what} must have shape {shape}; got {dense.shape}")
        dtype = _check.dtype_of(dense.dtype, what)
        self.eps = max(self.eps, float(np.finfo(dtype).eps))
        return np.ascontiguousarray(dense, np.result_type(dtype, np.float64))


def len_of(points: Any) -> int:
    return points.shape[0]


def _square_norms(a: Any) -> np.ndarray:
    if sp.issparse(a):
        return np.asarray(abs(a).power(2).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", a, a.conj()).real


def inner(a: Any, b: Any) -> np.ndarray:
    """a b^H."""
    if sp.issparse(a) or sp.issparse(b):
        product = a @ b.conj().T
        return np.ascontiguousarray(product.toarray() if sp.issparse(product) else product)
    if not a.size:
        return np.zeros((len(a), len(b)), np.result_type(a, b))
    # Of scipy's BLAS like the triangular solves that follow: threads of two libraries would wait for each other.
    product = blas.get_blas_funcs("gemm", (a, b))
    return product(1.0, b.T, a.T, trans_a=2).T


def wide(a: Any) -> Any:
    """The rows in float64 or complex128."""
    return a.astype(np.result_type(a.dtype, np.float64), copy=False)


class Linear(Kernel):
    """<x, y>."""

    def _block(self, a: Any, b: Any) -> np.ndarray:
        return inner(wide(a), wide(b))

    def _diagonal(self, a: Any) -> np.ndarray:
        return _square_norms(wide(a))


class OfDistance(Kernel):
    """A function of distances with diagonal one; gamma None stands for 1 / number of columns.

    Coordinates of complex points count as two real ones. Values of dense points have relative errors of about eps plus
    (d + 4) eps gamma r^p for a distance r in d coordinates, r^2 or r, however near the points are; for squared distances in
    more than _DIFFERENCES coordinates the second term is up to 32 times that.
    """

    kind: int  # of _cpu.kernel_columns
    power: int  # of the distance in the exponent

    def __init__(self, gamma: float | None):
        super().__init__()
        self.gamma = gamma

    def into(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """The block of dense points in an array of their dtype or in float64, with unit stride along its rows."""
        self.evaluations += out.size
        self._into(a, b, out)

    def _into(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        gamma = self._rate(a)
        a, b = _real(a), _real(b)
        if a.dtype != b.dtype:
            a, b = wide(a), wide(b)
        centre = b.mean(axis=0, dtype=np.float64) if self.power == 2 and a.shape[1] > _DIFFERENCES else None
        # Powers of two in the points, exact there, keep the squares of all distances that matter in range.
        exponent = max(-1000, min(1000, round(math.log2(gamma) / self.power)))
        _cpu.kernel_columns(self.kind, math.ldexp(gamma, -self.power * exponent), 2.0**exponent, centre, a, b, out)

    def _rate(self, a: Any) -> float:
        return 1 / max(1, a.shape[1]) if self.gamma is None else self.gamma

    def _block(self, a: Any, b: Any) -> np.ndarray:
        if sp.issparse(a) or sp.issparse(b):
            return self._sparse(a, b)
        out = np.empty((len(a), len(b)))
        self._into(a, b, out)
        return out

    def _sparse(self, a: Any, b: Any) -> np.ndarray:
        raise NotImplementedError

    def _diagonal(self, a: Any) -> np.ndarray:
        return np.ones(len_of(a))


class Gaussian(OfDistance):
    """exp(-gamma ||x - y||^2)."""

    kind, power = 0, 2

    def _sparse(self, a: Any, b: Any) -> np.ndarray:
        a, b = wide(a) * (scale := math.sqrt(2 * self._rate(a))), wide(b) * scale
        out = np.ascontiguousarray(inner(a, b).real)
        out -= _square_norms(a)[:, None] / 2
        out -= _square_norms(b) / 2
        np.minimum(out, 0, out=out)
        return np.exp(out, out=out)


class Laplacian(OfDistance):
    """exp(-gamma ||x - y||_1)."""

    kind, power = 1, 1

    def _sparse(self, a: Any, b: Any) -> np.ndarray:
        """Of some points at a time, as dense ones."""
        out = np.empty((len_of(a), len_of(b)))
        step = max(1, _DENSE // max(1, a.shape[1]))
        for i in range(0, len(out), step):
            left = _dense(a[i : i + step])
            for j in range(0, out.shape[1], step):
                self._into(left, _dense(b[j : j + step]), out[i : i + step, j : j + step])
        return out


def _dense(a: Any) -> np.ndarray:
    return a.toarray() if sp.issparse(a) else a


def _real(a: np.ndarray) -> np.ndarray:
    """Complex coordinates as pairs of real ones."""
    return np.ascontiguousarray(a).view(_check.real_dtype(a.dtype)) if a.dtype.kind == "c" else a


class Called(Kernel):
    """A callable (X1, X2) -> block; its method `diag`, where it has one, gives the diagonal."""

    def __init__(self, function: Callable[[Any, Any], Any]):
        super().__init__()
        self.function = function

    def _block(self, a: Any, b: Any) -> np.ndarray:
        return self._seen(self.function(a, b), (len_of(a), len_of(b)), "kernel(X1, X2)")

    def _diagonal(self, a: Any) -> np.ndarray:
        n = len_of(a)
        if hasattr(self.function, "diag"):
            return self._real(self._seen(self.function.diag(a), (n,), "kernel.diag(X)"))
        out = np.zeros(n)
        for i in range(0, n, _DIAGONAL):
            part = a[i : i + _DIAGONAL]
            self.evaluations += len_of(part) * (len_of(part) - 1)
            out[i : i + _DIAGONAL] = self._real(np.diagonal(self._block(part, part)))
        return out

    def _real(self, values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values.real)


class Precomputed(Kernel):
    """Entries of a matrix; its points are row numbers."""

    def __init__(self, matrix: Any):
        super().__init__()
        self.matrix = matrix

    def _block(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        values = self.matrix[a][:, b] if sp.issparse(self.matrix) else self.matrix[a[:, None], b[None, :]]
        return self._seen(values, (len(a), len(b)), "X[rows, columns]")

    def _diagonal(self, a: np.ndarray) -> np.ndarray:
        values = self.matrix.diagonal()[a] if sp.issparse(self.matrix) else self.matrix[a, a]
        return np.ascontiguousarray(self._seen(values, (len(a),), "X[rows, rows]").real)


def make(kernel: Any, gamma: Any) -> Kernel:
    """The kernel for checked arguments, all but "precomputed"."""
    if gamma is not None:
        gamma = _rate_of(kernel, gamma)
    if isinstance(kernel, str) and kernel in NAMES[:3]:
        return Linear() if kernel == "linear" else Gaussian(gamma) if kernel == "rbf" else Laplacian(gamma)
    if not callable(kernel):
        raise ValueError(f"kernel must be one of {', '.join(map(repr, NAMES))}, or a callable; got {kernel!r}")
    return Called(kernel)


def _rate_of(kernel: Any, gamma: Any) -> float:
    if not (isinstance(kernel, str) and kernel in ("rbf", "laplacian")):
        raise ValueError(f"gamma must be None for a kernel other than 'rbf' and 'laplacian'; got {gamma!r}")
    return _check.real(gamma, "gamma", strict=True)


def points(X: Any, name: str) -> Any:
    """Rows of X as points: a checked, finite 2-D array or CSR array."""
    checked = _check.matrix(X, name)
    _check.finite(checked.data if sp.issparse(checked) else checked, name)
    return checked


def precomputed(X: Any, gamma: Any) -> Any:
    """A square array or CSR array, or anything square that takes two index arrays and gives entries."""
    if gamma is not None:
        _rate_of("precomputed", gamma)
    if isinstance(X, np.ndarray | list | tuple) or sp.issparse(X):
        X = _check.matrix(X, "X")
    if len(getattr(X, "shape", ())) != 2 or not hasattr(X, "__getitem__"):
        raise TypeError(f"X must be a matrix or have shape and entries X[rows, columns]; got {type(X).__name__}")
    if X.shape[0] != X.shape[1]:
        raise ValueError(f"X must be square where kernel is 'precomputed'; got shape {X.shape}")
    return X
