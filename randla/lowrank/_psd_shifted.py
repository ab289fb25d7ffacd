"""U diag(values) U^H + ridge I with orthonormal U: solving with it, and preconditioning by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

from .. import _check
from ._operand import product
from ._range import orthonormalize


class ShiftedInverse:
    """X -> scale U (diag(values) + ridge I)^-1 U^H X + (X - U U^H X), the inverse times `scale` on the range of U and as if all
    other eigenvalues were scale - ridge."""

    def __init__(self, U: np.ndarray, values: np.ndarray, ridge: float, scale: float):
        self.U = U
        self.weights = ((scale - ridge - values) / (values + ridge))[:, None].astype(_check.real_dtype(U.dtype))

    def apply(self, X: np.ndarray) -> np.ndarray:
        inside = product(self.U.T, X, conjugate=True)
        inside *= self.weights
        out = product(self.U, inside)
        out += X
        return out


def preconditioner(U: np.ndarray, values: np.ndarray, ridge: Any, tail: float) -> LinearOperator:
    """The inverse as a symmetric LinearOperator (n, n), scaled to be the identity outside the range of U."""
    mu = _check.real(ridge, "ridge", strict=True)
    inverse = ShiftedInverse(U, values, mu, tail + mu)
    n = U.shape[0]

    def apply(x: np.ndarray) -> np.ndarray:
        X = _check.array(x, "x")
        return inverse.apply(columns(X)).reshape(X.shape)

    return LinearOperator((n, n), matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=U.dtype)


def solve(U: np.ndarray, values: np.ndarray, ridge: Any, b: Any) -> np.ndarray:
    """(U diag(values) U^H + ridge I)^-1 b for b of shape (n,) or (n, k)."""
    mu = _check.real(ridge, "ridge", strict=True)
    B = right_hand_sides(b, U.shape[0])
    dtype = np.result_type(U.dtype, B.dtype if B.dtype.kind == "c" else U.dtype)
    X = ShiftedInverse(U, values, mu, mu).apply(columns(B.astype(dtype, copy=False)))
    X /= _check.real_dtype(X.dtype).type(mu)
    return X.reshape(B.shape)


def columns(B: np.ndarray) -> np.ndarray:
    """(n,) or (n, k) as (n, k)."""
    return B[:, None] if B.ndim == 1 else B


def right_hand_sides(b: Any, n: int) -> np.ndarray:
    """A checked, finite array (n,) or (n, k)."""
    B = _check.array(b, "b")
    if B.ndim not in (1, 2) or B.shape[0] != n:
        raise ValueError(f"b must have shape ({n},) or ({n}, k); got {B.shape}")
    _check.finite(B, "b")
    return B


def eigen_of_factor(F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Descending eigenvalues (k,) and orthonormal eigenvectors (n, k) of F F^H."""
    if not F.size:
        return np.zeros(F.shape[1], _check.real_dtype(F.dtype)), np.zeros(F.shape, F.dtype)
    Q = orthonormalize(F)
    W, s, _ = scipy.linalg.svd(product(Q.T, F, conjugate=True), full_matrices=False, check_finite=False)
    return s**2, product(Q, W)
