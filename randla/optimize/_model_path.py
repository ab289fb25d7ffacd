"""The quadratic model on a convex set: a path of feasible points along which it falls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import blas

from .._numeric import cholesky
from ._faces import Face
from ._projections import Constraint

_GRADIENT_STEPS = 4  # at most, between two steps on a face
_LONG = 4.0  # trust radii that a direction of negative curvature is followed for

Product = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass
class _Piece:
    """From s to s + d: the model is value + t slope + t^2 curvature / 2 on it, and falls."""

    s: np.ndarray
    d: np.ndarray
    value: float
    slope: float
    curvature: float
    size: float  # ||s + d||


class ModelPath:
    """Decreases m(s) = g's + s'Hs/2 over x + s in D, from s = 0, until ||P(y - m'(y)) - y|| <= tol or ||s|| >= radius.

    Gradient projection, with steps whose length is that of Barzilai and Borwein (1988) and whose minimizer on the segment is
    exact, finds the face; conjugate gradients on the face, or Cholesky where H is dense, find the minimizer on it (More,
    Toraldo 1991). Negative curvature is followed to the end of the face or of the trust region. The path is kept: with a
    smaller radius it is cut earlier, which needs no product with H.
    """

    def __init__(self, D: Constraint, x: np.ndarray, g: np.ndarray, H: np.ndarray | Product, length: float):
        self.D, self.x, self.H = D, x, H
        self.dense = H if isinstance(H, np.ndarray) else None
        self.y, self.r, self.value = x, g, 0.0
        self.length = length  # of the next gradient step, in units of the gradient
        self.pieces: list[_Piece] = []
        self.converged = self.failed = False

    def _product(self, v: np.ndarray) -> np.ndarray:
        return self.dense @ v if self.dense is not None else self.H(v)  # type: ignore[operator]

    def run(self, radius: float, tol: float, maxiter: int) -> None:
        last: Any = None
        for _ in range(maxiter):
            for _ in range(_GRADIENT_STEPS):
                if self._residual() <= tol:
                    self.converged = True
                    return
                moved = self._move(self.D._displacement(self.y, self.length * self.r), gradient=True)
                if not moved or self._outside(radius):
                    return
                face = self.D._face(self.y, self.r)
                if face.key == last:
                    break
                last = face.key
            if self._residual() <= tol:
                self.converged = True
                return
            # A face that ended the step is stayed on until its own minimizer is found: gradient steps, which are short where H
            # is ill-conditioned, would leave it at once.
            face, held = self.D._face(self.y, self.r), False
            while face.dim and self._on_face(face, radius, tol):
                if self._outside(radius):
                    return
                held |= face.reach is not None
                before, face = face, self.D._face(self.y, self.r, held=held)
                if face.dim >= before.dim:
                    break
            last = face.key

    def _residual(self) -> float:
        v = self.D._displacement(self.y, self.r)
        return math.sqrt(v @ v)

    def _outside(self, radius: float) -> bool:
        return self.pieces[-1].size >= radius

    def _move(self, d: np.ndarray, Hd: np.ndarray | None = None, gradient: bool = False) -> bool:
        """To the minimizer of the model on the segment from y to y + d; False where it does not fall along it."""
        slope = self.D._slope(self.y, self.r, d)
        if not slope < 0:
            return False
        Hd = self._product(d) if Hd is None else Hd
        curvature = float(d @ Hd)
        if not math.isfinite(curvature):
            self.failed = True
            return False
        if gradient:
            square = float(d @ d)
            longest = 10 * self.length if curvature * 10 * self.length <= square else square / curvature
            self.length = min(max(longest, 1e-3 * self.length), 1e300)
        t = 1.0 if -slope >= curvature else -slope / curvature
        if t < 1:
            d, Hd, slope, curvature = t * d, t * Hd, t * slope, t * t * curvature
        s = self.y - self.x
        self.y = self.y + d
        end = self.y - self.x
        self.pieces.append(_Piece(s, d, self.value, slope, curvature, math.sqrt(end @ end)))
        self.r = self.r + Hd
        self.value += slope + curvature / 2
        return True

    def _on_face(self, face: Face, radius: float, tol: float) -> bool:
        """A Newton step on the face; the better of its end where the face ends, and of its projection."""
        b = face.restrict(self.r)
        size = math.sqrt(b @ b)
        if not size > 0.1 * tol:
            return False
        z = self._newton(face, b, _LONG * radius, min(0.1 * size, 0.3 * tol))
        p = face.lift(z)
        if not np.isfinite(p).all():
            return False
        blocked = face.advance(self.y, p) - self.y
        projected = self.D._project(self.y + p) - self.y
        best, gain = None, 0.0
        for d in (projected, blocked):
            if best is not None and np.array_equal(best[0], d):
                continue
            slope = self.D._slope(self.y, self.r, d)
            if not slope < 0:
                continue
            Hd = self._product(d)
            curvature = float(d @ Hd)
            fall = slope + curvature / 2 if -slope >= curvature else -slope * slope / (2 * curvature)
            if fall < gain:
                best, gain = (d, Hd), fall
        return best is not None and self._move(*best)

    def _newton(self, face: Face, b: np.ndarray, longest: float, tol: float) -> np.ndarray:
        """Minimizer of the model on the tangent space, or a point with negative curvature on the way to it."""
        if self.dense is not None:
            K = face.reduced(self.dense)
            R = cholesky(K)
            if R is not None:
                z = -_solve(R, b)
                residual = K @ z + b
                z -= _solve(R, residual)
                if np.isfinite(z).all():
                    return z
            return _conjugate_gradients(K.__matmul__, b, longest, tol)

        def product(z: np.ndarray) -> np.ndarray:
            return face.restrict(self._product(face.lift(z))) + face.shift * z

        return _conjugate_gradients(product, b, longest, tol)

    def cut(self, radius: float) -> tuple[np.ndarray, float, bool]:
        """s, the model there, and whether the trust region ended the path."""
        for piece in self.pieces:
            if piece.size >= radius:
                a, b = float(piece.d @ piece.d), float(piece.s @ piece.d)
                room = max(radius * radius - float(piece.s @ piece.s), 0.0)
                root = math.sqrt(b * b + a * room)
                t = min(room / (b + root) if b > 0 else (root - b) / a, 1.0) if a else 1.0
                return piece.s + t * piece.d, piece.value + t * (piece.slope + t * piece.curvature / 2), True
        return self.y - self.x, self.value, False


def _solve(R: np.ndarray, b: np.ndarray) -> np.ndarray:
    return blas.dtrsv(R, blas.dtrsv(R, b, trans=1))


def _conjugate_gradients(product: Product, b: np.ndarray, longest: float, tol: float) -> np.ndarray:
    """min b'z + z'Kz/2 (Steihaug 1983), from 0; along negative curvature until ||z|| = longest."""
    z, r, p = np.zeros(len(b)), b, -b
    rho = float(r @ r)
    for _ in range(2 * len(b) + 10):
        Kp = product(p)
        curvature, square = float(p @ Kp), float(p @ p)
        if not math.isfinite(curvature):
            break
        if curvature <= 0:
            p = p / math.sqrt(square)
            along = float(z @ p)
            room = max(longest * longest - float(z @ z), 0.0)
            return z + (math.sqrt(along * along + room) - along) * p
        alpha = rho / curvature
        z = z + alpha * p
        if float(z @ z) > longest * longest:
            break
        r = r + alpha * Kp
        new = float(r @ r)
        if new <= tol * tol or new == 0:
            break
        p, rho = new / rho * p - r, new
    return z
