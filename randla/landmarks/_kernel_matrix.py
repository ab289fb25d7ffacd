"""Blocks of kernel matrices: from points by name or by a callable, or from a matrix that is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg.blas as blas
import scipy.sparse as sp

from .. import _check

NAMES = ("linear", "rbf", "precomputed")
_DIAGONAL = 32  # points at a time where a callable gives the diagonal only within blocks


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


class Gaussian(Kernel):
    """exp(-gamma ||x - y||^2); gamma None stands for 1 / number of columns."""

    def __init__(self, gamma: float | None):
        super().__init__()
        self.gamma = gamma

    def _block(self, a: Any, b: Any) -> np.ndarray:
        a, b = wide(a), wide(b)
        gamma = 1 / max(1, a.shape[1]) if self.gamma is None else self.gamma
        if not (sp.issparse(a) or sp.issparse(b)):
            # Distances do not know the origin, but their rounding errors do.
            centre = b.mean(axis=0)
            a, b = a - centre, b - centre
        scale = np.sqrt(2 * gamma)
        a, b = a * scale, b * scale
        out = np.ascontiguousarray(inner(a, b).real)
        out -= _square_norms(a)[:, None] / 2
        out -= _square_norms(b) / 2
        np.minimum(out, 0, out=out)
        return np.exp(out, out=out)

    def _diagonal(self, a: Any) -> np.ndarray:
        return np.ones(len_of(a))


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
        gamma = _only_rbf(kernel, gamma)
    if isinstance(kernel, str) and kernel in ("linear", "rbf"):
        return Linear() if kernel == "linear" else Gaussian(gamma)
    if not callable(kernel):
        raise ValueError(f"kernel must be one of {', '.join(map(repr, NAMES))}, or a callable; got {kernel!r}")
    return Called(kernel)


def _only_rbf(kernel: Any, gamma: Any) -> float:
    if not (isinstance(kernel, str) and kernel == "rbf"):
        raise ValueError(f"gamma must be None for a kernel other than 'rbf'; got {gamma!r}")
    return _check.real(gamma, "gamma", strict=True)


def points(X: Any, name: str) -> Any:
    """Rows of X as points: a checked, finite 2-D array or CSR array."""
    checked = _check.matrix(X, name)
    _check.finite(checked.data if sp.issparse(checked) else checked, name)
    return checked


def precomputed(X: Any, gamma: Any) -> Any:
    """A square array or CSR array, or anything square that takes two index arrays and gives entries."""
    if gamma is not None:
        _only_rbf("precomputed", gamma)
    if isinstance(X, np.ndarray | list | tuple) or sp.issparse(X):
        X = _check.matrix(X, "X")
    if len(getattr(X, "shape", ())) != 2 or not hasattr(X, "__getitem__"):
        raise TypeError(f"X must be a matrix or have shape and entries X[rows, columns]; got {type(X).__name__}")
    if X.shape[0] != X.shape[1]:
        raise ValueError(f"X must be square where kernel is 'precomputed'; got shape {X.shape}")
    return X
