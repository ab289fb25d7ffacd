"""The Nystrom approximation of a positive semidefinite matrix from one block of products, with leave-one-out errors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack

from .. import _check, _cpu
from .._numeric import norms, powers_of_two
from .._random import random_words
from ._operand import Operand, product
from ._range import orthonormalize

_STREAM = 26  # see docs/definitions.md
_HEIGHT = 30  # test vectors are the rows of a Gaussian sketch of 2^30 rows: its scale is a power of two
_POWER_STEPS = 10


def test_vectors(n: int, first: int, last: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """Standard normal vectors number first to last - 1 as the columns of an (n, last - first) array."""
    out = np.empty((last - first, n), _check.real_dtype(dtype))
    if out.size:
        word = random_words(np.zeros(1, np.int64), 0, _STREAM, seed)[0, 0]
        _cpu.dense_sketch(0, 1 << _HEIGHT, int(word), out, first, 0)
        out *= 2.0 ** (_HEIGHT // 2)
    return out.T


@dataclasses.dataclass(frozen=True)
class Approximation:
    """U diag(values) U^H from l products: values descend; `error`, `trace_error` and `spectral_error` are leave-one-out
    estimates of the Frobenius norm, the trace (Epperly, Tropp 2024) and the spectral norm of what is left.

    negative : the curvature x^H A x / x^H x that shows A to be indefinite, else 0.
    """

    U: np.ndarray
    values: np.ndarray
    error: float
    trace_error: float
    negative: float = 0.0
    spectral_error: float = 0.0
    complete: bool = False


class Sketch:
    """A X for test vectors X that grow in number; the products made are kept."""

    def __init__(self, operand: Operand, seed: int):
        self.operand, self.seed = operand, seed
        self.X = np.zeros((operand.shape[0], 0))
        self.Y = np.zeros((operand.shape[0], 0), operand.dtype)

    def approximation(self, size: int) -> Approximation:
        """From `size` test vectors, or from all of A where half as many would be no less work."""
        n = self.operand.shape[0]
        if 2 * size >= n:
            return _complete(finite(self.operand.times(np.eye(n, dtype=self.operand.dtype))))
        return _nystrom(*self.first(size))

    def first(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """X and A X for that many test vectors at least."""
        have = self.X.shape[1]
        if size > have:
            X = test_vectors(self.operand.shape[0], have, size, self.operand.dtype, self.seed)
            Y = finite(self.operand.times(X))
            self.X, self.Y = (X, Y) if not have else (np.hstack([self.X, X]), np.hstack([self.Y, Y]))
        return self.X, self.Y


def finite(Y: np.ndarray) -> np.ndarray:
    if not np.isfinite(Y).all():
        raise ValueError("A must be finite; got NaN or infinite values in its products")
    return Y


def _complete(A: np.ndarray) -> Approximation:
    """Eigenvalues of A itself."""
    _require_hermitian(A, "entries", _eps(A))
    scale = powers_of_two(np.abs(A).max(initial=0.0)).astype(_check.real_dtype(A.dtype))
    A = A * scale
    values, U = scipy.linalg.eigh((A + A.conj().T) / 2, check_finite=False) if A.size else (np.zeros(0, A.real.dtype), A)
    noise = len(A) * _eps(A) * np.abs(values).max(initial=0.0)
    negative = float(values[0] / scale) if len(values) and values[0] < -noise else 0.0
    return Approximation(U[:, ::-1], np.maximum(values[::-1], 0) / scale, 0.0, 0.0, negative, complete=True)


def _nystrom(X: np.ndarray, Y: np.ndarray) -> Approximation:
    """Y (X^H Y)^-1 Y^H, shifted against rounding (Tropp, Yurtsever, Udell, Cevher 2017, algorithm 3)."""
    n, l = Y.shape
    real = _check.real_dtype(Y.dtype)
    top = np.abs(Y).max(initial=0.0).astype(np.float64)
    scale = float(powers_of_two(top))
    Y = Y * real.type(scale)
    H = product(Y.T, X, conjugate=True).conj().T.astype(np.result_type(Y.dtype, np.float64))  # X^H Y
    _require_hermitian(H, "values x^H A y", _eps(Y))
    H = (H + H.conj().T) / 2
    gram = product(X.T, X).astype(H.dtype)
    shift = _eps(Y) * float(norms(norms(Y).astype(np.float64))) / math.sqrt(n) if top else 1.0
    R = _cholesky(H + shift * gram)
    if R is None:
        curvatures = scipy.linalg.eigh(H, gram, eigvals_only=True, check_finite=False)
        if curvatures[0] < -n * _eps(Y) * abs(curvatures[-1]) or not curvatures[-1] > 0:
            return _indefinite(X, Y, H, gram, scale)
        shift = 2 * max(shift, -float(curvatures[0])) + n * float(np.finfo(np.float64).eps) * float(curvatures[-1])
        R = _cholesky(H + shift * gram)
        if R is None:
            return _indefinite(X, Y, H, gram, scale)
    shifted = np.asfortranarray(Y + real.type(shift) * X.astype(Y.dtype))
    E = blas.get_blas_funcs("trsm", dtype=Y.dtype)(1.0, R.astype(Y.dtype), shifted, side=1, overwrite_b=1)
    U, s, Vh = svd_of(E)
    values = np.maximum(s.astype(np.float64) ** 2 - shift, 0.0) if top else np.zeros(l)
    # (X^H A X)^-1 = R^-1 R^-H: its diagonal, and the products of Y with its columns in the basis U.
    inverse = lapack.get_lapack_funcs("trtri", dtype=R.dtype)(R)[0]
    diagonal = np.square(norms(inverse))
    left = (s[:, None] * (Vh @ inverse.conj().T)) / diagonal
    error = float(norms(norms(left.T))) / math.sqrt(l) if top else 0.0
    trace = float(np.mean(1 / diagonal)) if top else 0.0
    errors = error / scale, trace / scale
    return Approximation(U, (values / scale).astype(real), *errors, spectral_error=_spectral(left) / scale if top else 0.0)


def _spectral(residuals: np.ndarray) -> float:
    """Estimate of ||E||_2 from l residuals E x of Gaussian x: as a matrix they have a norm of about
    sqrt(l ||E||_2^2 + ||E||_F^2)."""
    squares = np.square(norms(residuals.T).astype(np.float64))
    v, size = residuals[:, int(np.argmax(squares)), None], 0.0
    for _ in range(_POWER_STEPS):
        v = product(residuals.T, v, conjugate=True)
        size = float(norms(v.T)[0])
        if size == 0.0:
            return 0.0
        v = product(residuals, v / size)
    return math.sqrt(max(size - float(np.mean(squares)), 0.0) / len(squares))


def svd_of(E: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thin SVD of a tall matrix."""
    Q = orthonormalize(E)
    W, s, Vh = scipy.linalg.svd(product(Q.T, E, conjugate=True), check_finite=False)
    return product(Q, W), s, Vh


def _indefinite(X: np.ndarray, Y: np.ndarray, H: np.ndarray, gram: np.ndarray, scale: float) -> Approximation:
    """What the positive curvatures in the span of X give, and the most negative one as evidence."""
    values, V = scipy.linalg.eigh(H, gram, check_finite=False)
    kept = values > len(Y) * _eps(Y) * abs(values).max()
    E = product(Y, (V[:, kept] / np.sqrt(values[kept])).astype(Y.dtype))
    U, s, _ = svd_of(E) if kept.any() else (E, np.zeros(0), E)
    missing = X.shape[1] - len(s)
    U, s = np.hstack([U, np.zeros((len(U), missing), U.dtype)]), np.concatenate([s, np.zeros(missing)])
    return Approximation(U, (s**2 / scale).astype(_check.real_dtype(Y.dtype)), math.inf, math.inf, float(values[0]) / scale)


def _cholesky(H: np.ndarray) -> np.ndarray | None:
    """Upper triangular R with R^H R = H, None where that is not positive definite."""
    R, info = lapack.get_lapack_funcs("potrf", dtype=H.dtype)(H, lower=0, clean=1)
    return R if info == 0 and np.isfinite(R.diagonal()).all() else None


def _require_hermitian(H: np.ndarray, what: str, eps: float) -> None:
    size, difference = np.abs(H).max(initial=0.0), np.abs(H - H.conj().T).max(initial=0.0)
    if difference > math.sqrt(eps) * size:
        raise ValueError(f"A must be Hermitian; got {what} of size {size:g} that differ from their mirror by {difference:g}")


def require_adjoint(X: np.ndarray, Y: np.ndarray, P: np.ndarray, Q: np.ndarray) -> None:
    """Raise ValueError unless X^H Q = Y^H P to half the digits, for Y = A X with few Gaussian X, and Q = A P."""
    here, there = product(X.T, Q, conjugate=True), product(Y.T, P, conjugate=True)
    limit = math.sqrt(_eps(Q)) * np.outer(norms(Y.T), norms(P.T))
    with np.errstate(invalid="ignore"):
        excess = np.abs(here - there) > limit
    if excess.any():
        i, j = np.argwhere(excess)[0]
        raise ValueError(f"A must be Hermitian; got values x^H A y = {here[i, j]:g} and (A x)^H y = {there[i, j]:g}")


def _eps(Y: np.ndarray) -> float:
    return float(np.finfo(Y.dtype).eps)
