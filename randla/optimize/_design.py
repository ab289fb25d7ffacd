"""Rows of a design matrix, dense or sparse, under the kernels for generalized linear models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check, _cpu
from .._backend import is_sparse, namespace

Maybe = np.ndarray | None

_DENSE = {"glm": _cpu.glm, "product": _cpu.weighted_product, "softmax": _cpu.softmax_product}
_SPARSE = {"glm": _cpu.glm_csr, "product": _cpu.weighted_product_csr, "softmax": _cpu.softmax_product_csr}


class Design:
    """The rows of A, all of them or those that `rows` lists; vectors are rows of (k, dim) and (k, count) arrays."""

    def __init__(self, A: _check.Matrix, rows: np.ndarray | None = None):
        self.A, self.rows = A, rows
        self.sparse = sp.issparse(A)
        self.count, self.dim = (A.shape[0] if rows is None else len(rows)), A.shape[1]
        self._parts: tuple[Any, ...] = (A.data, A.indptr, A.indices, A.shape[1]) if self.sparse else (A,)
        self._kernels: dict[str, Any] = _SPARSE if self.sparse else _DENSE

    def listing(self, rows: np.ndarray) -> Design:
        """Those rows, ascending, of all that these are, read where they lie."""
        return Design(self.A, rows)

    def gathered(self, rows: np.ndarray) -> Design:
        """Those rows, copied next to each other."""
        return Design(_rows_of(self.A, rows))

    def evaluate(
        self, loss: Any, y: np.ndarray, w: Maybe, x: np.ndarray, gradient: bool, z: Maybe = None
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, Maybe]:
        """sum w f, margins z, their w f' and w f'', and the sum of gradients, in one pass where the loss has a kernel.

        Margins that are known are not made again.
        """
        k = loss.classes
        if z is not None or not hasattr(loss, "id"):
            z = self.forward(x.reshape(k, -1)) if z is None else z
            f, c, d = loss.terms(z, y, w)
            return f, z, c, d, self.adjoint(c) if gradient else None
        z, g = np.empty((k, self.count)), np.empty((k, self.dim)) if gradient else None
        c, d = np.empty((k, self.count)), np.empty((k, self.count))
        f = self._kernels["glm"](*self._parts, self.rows, loss.id, loss.parameter, y, w, x.reshape(k, -1), z, c, d, g)
        return f, z, c, d, g

    def forward(self, V: np.ndarray) -> np.ndarray:
        """A V' for V (k, dim), (k, count)."""
        U = np.empty((len(V), self.count))
        self._product(V, None, None, U, None)
        return U

    def adjoint(self, C: np.ndarray) -> np.ndarray:
        """C A for C (k, count), (k, dim)."""
        G = np.empty((len(C), self.dim))
        self._product(None, C, None, None, G)
        return G

    def product(self, V: np.ndarray, d: np.ndarray) -> np.ndarray:
        """V A' diag(d) A for V (k, dim), in one pass."""
        G = np.empty((len(V), self.dim))
        self._product(V, None, d, None, G)
        return G

    def _product(self, V: Maybe, C: Maybe, d: Maybe, U: Maybe, G: Maybe) -> None:
        self._kernels["product"](*self._parts, self.rows, V, C, d, U, G)

    def softmax_product(self, V: np.ndarray, p: np.ndarray, w: Maybe) -> np.ndarray:
        """The Hessian of the softmax loss with probabilities p (classes, count) times V (k, classes dim)."""
        G = np.empty((len(V), len(p), self.dim))
        for v, g in zip(V, G, strict=True):
            self._kernels["softmax"](*self._parts, self.rows, v.reshape(g.shape), p, w, g)
        return G.reshape(V.shape)

    def gram(self, d: np.ndarray) -> np.ndarray:
        """A' diag(d) A, (dim, dim)."""
        G = np.zeros((self.dim, self.dim))
        if self.sparse:
            _cpu.weighted_gram_csr(self.A.data, self.A.indptr, self.A.indices, self.rows, d, G)
        else:
            A = self.A if self.rows is None else _rows_of(self.A, self.rows)
            _cpu.gram(A, None, False, None, None, G, d)
        return G

    def row_squares(self) -> np.ndarray:
        """||a_i||^2 in float64."""
        A = self.A if self.rows is None else _rows_of(self.A, self.rows)
        if self.sparse:
            return np.asarray(A.astype(np.float64).power(2).sum(axis=1)).ravel()
        return np.einsum("ij,ij->i", A, A, dtype=np.float64)


class GrowingDesign:
    """The first rows of an order, next to each other in memory, gathered as they are asked for."""

    def __init__(self, A: _check.Matrix, order: np.ndarray):
        self.A, self.order, self.filled = A, order, 0
        self._buffer = A[:0] if sp.issparse(A) else np.empty((0, A.shape[1]), A.dtype)

    def window(self, start: int, stop: int) -> Design:
        if stop > self.filled:
            self._gather(stop)
        return Design(self._buffer[start:stop])

    def _gather(self, stop: int) -> None:
        new = self.order[self.filled : stop]
        if sp.issparse(self.A):
            self._buffer = sp.vstack([self._buffer, self.A[new]], format="csr")
        else:
            if stop > len(self._buffer):
                buffer = np.empty((min(max(stop, 2 * len(self._buffer)), len(self.order)), self.A.shape[1]), self.A.dtype)
                buffer[: self.filled] = self._buffer[: self.filled]
                self._buffer = buffer
            # Any other mode than the default writes into `out` without a copy between.
            np.take(self.A, new, axis=0, out=self._buffer[self.filled : stop], mode="clip")
        self.filled = stop


def _rows_of(A: _check.Matrix, rows: np.ndarray) -> _check.Matrix:
    return A[rows] if sp.issparse(A) else np.take(A, rows, axis=0)


def finite_rows(A: _check.Matrix, name: str) -> None:
    """Refuse NaN and inf; the sum of finite numbers may overflow, so that entries are looked at only where it is not finite."""
    data = A.data if is_sparse(A) else A
    with np.errstate(over="ignore", invalid="ignore"):
        if not math.isfinite(float(namespace(data).sum(data, dtype=np.float64))):
            _check.finite(data, name)
