"""The factor of a sketch on the device where the sketch is; the host gets what it decides by, never the n x n matrices.

On an H200, by arithmetic and not measured, for n = 2048 columns and 32 n rows of sketch: Gram matrix 5 ms (d n^2
operations, half of a product, at 55 TF), Cholesky 2 ms, inverse and check 3 ms, and 40 waits of some 25 us. On one core of a
host the Gram matrix of the triangle alone, its Cholesky factor and the inverse took 17, 59 and 476 ms at n = 512, 1024 and
2048, products with the inverse besides, and the triangle had to be moved there. Above a condition number of 1e7 Householder's
QR of the sketch takes the place of Cholesky's: 70 ms or so. Only a sketch of deficient rank goes to the host: one n x n
transfer, for its singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ._backend import Array, gram_matrix, like, namespace, solve_triangular, to_host
from ._device import DeviceMatrix
from ._factor import GRAM_COND_LIMIT, Damped, TriangularFactor
from ._matrix import TallMatrix
from ._numeric import further_powers, norms
from ._row_map import RowMap

_EPS = float(np.finfo(np.float64).eps)

Powers = Callable[[np.ndarray], np.ndarray]


class DeviceFactor(TriangularFactor):
    """R and its inverse on a device; rows that come and go are those of the host.

    A triangular solve with one right-hand side waits for its own results row after row. A product with the inverse, whose
    columns are solved for, has the same error bound in norm, eps cond(R).
    """

    def __init__(self, root: Array, inverse: Array, scale: np.ndarray, start: np.ndarray, sizes: np.ndarray):
        self.root, self.inverse, self.scale, self.start, self._sizes = root, inverse, scale, start, sizes
        self.rank, self.gram = len(scale), None

    @cached_property
    def R(self) -> np.ndarray:  # type: ignore[override]
        """For singular values: n x n numbers come to the host."""
        return np.asfortranarray(to_host(self.root))

    def _through(self, op: int, Z: np.ndarray) -> np.ndarray:
        matrix = (self.inverse.T, self.inverse, self.root.T, self.root)[op]
        return to_host(like(self.root, np.ascontiguousarray(Z, np.float64)) @ matrix)

    def column_norms(self) -> np.ndarray:
        return self._sizes

    def row_norms(self) -> np.ndarray:
        return to_host(namespace(self.inverse).sqrt((self.inverse * self.inverse).sum(axis=1)))

    def row_map(self) -> RowMap:
        return RowMap(self.inverse, self.scale, upper=True)

    def _set(self, root: Array, inverse: Array) -> None:
        self.root, self.inverse = root, inverse
        self._sizes = to_host(namespace(root).sqrt((root * root).sum(axis=0)))
        for known in ("R", "extremes"):
            self.__dict__.pop(known, None)

    def _multiply(self, R: np.ndarray) -> None:
        upper = like(self.root, R)
        self._set(upper @ self.root, self.inverse @ solve_triangular(upper, namespace(upper).eye(len(R))))

    def improve(self, matrix: TallMatrix, ridge: float) -> bool:
        """As for any factor: 2 m n^2 operations for A N and as many for its Gram matrix, which stays on the device."""
        if not isinstance(matrix, DeviceMatrix):
            return super().improve(matrix, ridge)
        N = self.inverse * like(self.inverse, self.scale)[:, None]
        gram = matrix.gram_of(N)
        if ridge:
            gram += ridge * (N.T @ N)
        found = root_of(gram)
        if found is None:
            return False
        R, inverse = found
        self._set(R @ self.root, self.inverse @ inverse)
        self.distortion = 0.02
        return True

    def damped(self, shift: np.ndarray | None) -> Damped:
        inverse = self.inverse if shift is None else self._shifted_inverse(like(self.root, shift))
        return lambda g: float(norms(to_host(like(self.root, g[None, :]) @ inverse))[0])

    def _shifted_inverse(self, shift: Array) -> Array:
        """T^-1 for upper triangular T with T'T = R'R + diag(shift)^2."""
        xp = namespace(shift)
        found = root_of(self.root.T @ self.root + xp.diag(shift * shift))
        if found is not None:
            return found[1]
        T = xp.linalg.qr(xp.concatenate([self.root, xp.diag(shift)]), mode="r")
        return solve_triangular(T, xp.eye(len(shift)))


def root_of(gram: Array) -> tuple[Array, Array] | None:
    """The Cholesky factor of a Gram matrix of the device and its inverse; None where its condition number is too large for it
    to be a factor of the matrix itself. One wait.

    CuPy's Cholesky does not tell when it fails, and leaves anything behind. Whether R'R is the matrix does tell, and whether R
    has an inverse of a moderate size: with both, R is the factor whatever came before.
    """
    xp, n = namespace(gram), len(gram)
    try:
        R = xp.linalg.cholesky(gram).T
    except np.linalg.LinAlgError:  # where the caller's cupyx.errstate has it told
        return None
    inverse = solve_triangular(R, xp.eye(n))
    misfit = abs(R.T @ R - gram).max() / abs(gram).max()
    cond = abs(R).sum(axis=0).max() * abs(inverse).sum(axis=0).max()
    wrong, bound = (float(v) for v in to_host(xp.stack([misfit, cond])))
    # Not so for NaN.
    return (R, inverse) if wrong <= 16 * n * _EPS and bound <= math.sqrt(n) * GRAM_COND_LIMIT else None


def factor_of_sketch(
    SA: Array, SB: Array, ridge: float, rcond: float, powers: Powers, require_finite: Callable[[np.ndarray], None]
) -> TriangularFactor:
    """Factor of [S A; sqrt(ridge) I] for sketches (d, n) and (d, k) in float64 of a device; SA is overwritten.

    A `DeviceFactor` where its rank is beyond doubt. Otherwise a factor on the host whose rank is to be decided, with Q'S b
    for its `start`.
    """
    xp, (d, n), k = namespace(SA), SA.shape, SB.shape[1]
    if n == 0:
        return TriangularFactor(np.zeros((0, 0)), np.ones(0), np.zeros((k, 0)))
    sizes = to_host(xp.maximum(SA.max(axis=0), -SA.min(axis=0)))
    require_finite(sizes)
    scale = powers(sizes)
    SA *= like(SA, scale)
    if d > n:
        found = _by_gram(SA, SB, ridge, scale, powers)
        if found is not None and found.cond <= GRAM_COND_LIMIT and found.certainly_above(rcond):
            return found
    both = xp.zeros((d + n if ridge else d, n + k))
    both[:d, :n], both[:d, n:] = SA, SB
    if ridge:
        both[d:, :n] = xp.diag(like(SA, math.sqrt(ridge) * scale))
    R = xp.linalg.qr(both, mode="r")
    R, target = R[:n, :n], R[:n, n:]
    extra = further_powers(powers(to_host(xp.sqrt((R * R).sum(axis=0)))), scale)
    R = R * like(R, extra)
    found = _regular(R, scale * extra)
    if found is not None and found.certainly_above(rcond):
        found.start = to_host(target.T @ found.inverse.T)
        return found
    return TriangularFactor(np.asfortranarray(to_host(R)), scale * extra, to_host(target).T.copy())


def _by_gram(Y: Array, SB: Array, ridge: float, scale: np.ndarray, powers: Powers) -> DeviceFactor | None:
    """From the Gram matrix of the sketch Y with its columns scaled; `start` is the solution of the sketched problem."""
    xp = namespace(Y)
    gram = gram_matrix(Y)
    if ridge:
        with np.errstate(over="ignore"):
            gram += xp.diag(like(Y, ridge * scale**2))
    diagonal = to_host(xp.diagonal(gram))
    if not np.isfinite(diagonal).all() or not (diagonal > 0).all():
        return None
    # Columns of equal norm: what is left of the condition number is what matters.
    extra = further_powers(powers(np.sqrt(diagonal)), scale)
    on_device = like(Y, extra)
    gram *= on_device[:, None]
    gram *= on_device
    found = root_of(gram)
    if found is None:
        return None
    R, inverse = found
    start = ((SB.T @ Y) * on_device) @ inverse @ inverse.T
    return DeviceFactor(R, inverse, scale * extra, to_host(start), np.sqrt(diagonal) * extra)


def _regular(R: Array, scale: np.ndarray) -> DeviceFactor | None:
    """The factor with this R where it is safely regular."""
    xp = namespace(R)
    inverse = solve_triangular(R, xp.eye(len(R)))
    cond = abs(R).sum(axis=0).max() * abs(inverse).sum(axis=0).max()
    found: Any = to_host(xp.concatenate([cond.reshape(1), xp.sqrt((R * R).sum(axis=0))]))
    if not found[0] < 0.1 / _EPS:
        return None
    return DeviceFactor(R, inverse, scale, np.zeros((0, len(R))), found[1:])
