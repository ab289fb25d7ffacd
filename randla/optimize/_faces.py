"""Faces of a convex set: the directions in which a point of it can move both ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


class Face:
    """The tangent space of a face: coordinates `free`, orthogonal to one vector where there is a `reflector`.

    Parameters
    ----------
    n : int
        Dimension of the whole space.
    free : ndarray of int, (k,)
    reflector : ndarray (k,), optional
        The Householder reflection I - 2 u u' that sends that vector to the first coordinate axis.
    lower, upper : ndarray (k,), optional
        Limits of the free coordinates.
    reach : callable, optional
        reach(x, p): largest t with x + t p in the set, where the set limits steps otherwise.
    retract : callable, optional
        The way back to a curved face, whose curvature adds `shift` to the Hessian.
    """

    def __init__(
        self,
        n: int,
        free: np.ndarray,
        *,
        reflector: np.ndarray | None = None,
        lower: np.ndarray | None = None,
        upper: np.ndarray | None = None,
        reach: Callable[[np.ndarray, np.ndarray], float] | None = None,
        retract: Callable[[np.ndarray], np.ndarray] | None = None,
        shift: float = 0.0,
    ):
        self.n, self.free, self.reflector = n, free, reflector
        self.lower, self.upper, self.reach, self.retract, self.shift = lower, upper, reach, retract, shift
        self.dim = max(len(free) - (reflector is not None), 0)

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for two points on one face."""
        return self.reflector is None, self.retract is None, self.free.tobytes()

    def restrict(self, v: np.ndarray) -> np.ndarray:
        """Z'v for an orthonormal basis Z of the tangent space; v is (n,) or (n, k)."""
        v = v[self.free]
        if self.reflector is None or not len(self.free):
            return v
        return (v - np.multiply.outer(2 * self.reflector, self.reflector @ v))[1:]

    def lift(self, z: np.ndarray) -> np.ndarray:
        """Z z."""
        out = np.zeros((self.n, *z.shape[1:]))
        if self.reflector is None or not len(self.free):
            out[self.free] = z
        else:
            u = self.reflector
            w = np.multiply.outer(-2 * u, u[1:] @ z)
            w[1:] += z
            out[self.free] = w
        return out

    def reduced(self, H: np.ndarray) -> np.ndarray:
        """Z'HZ, and the curvature of the face."""
        K = self.restrict(np.ascontiguousarray(self.restrict(H).T))
        if self.shift:
            K[np.diag_indices(self.dim)] += self.shift
        return K

    def advance(self, x: np.ndarray, p: np.ndarray) -> np.ndarray:
        """x + t p for the largest t <= 1 that stays on the closure of the face; coordinates that meet a limit equal it."""
        if self.retract is not None:
            return self.retract(x + p)
        if self.reach is not None:
            t = self.reach(x, p)
            return x + p if t >= 1 else x + t * p
        if self.lower is None and self.upper is None:
            return x + p
        free, out = self.free, x.copy()
        y, step = x[free], p[free]
        room = np.full(len(free), math.inf)
        for bound, moving in ((self.lower, step < 0), (self.upper, step > 0)):
            if bound is not None:
                with np.errstate(over="ignore"):
                    room[moving] = (bound[moving] - y[moving]) / step[moving]
        t = float(room.min(initial=math.inf))
        z = y + min(t, 1.0) * step
        met = room <= min(t, 1.0)
        if self.lower is not None:
            z = np.maximum(np.where(met & (step < 0), self.lower, z), self.lower)
        if self.upper is not None:
            z = np.minimum(np.where(met & (step > 0), self.upper, z), self.upper)
        out[free] = z
        return out


def householder(normal: np.ndarray) -> np.ndarray:
    """Unit u with I - 2 u u' sending `normal` to a multiple of the first coordinate vector."""
    if not len(normal):
        return normal
    size = np.abs(normal).max()
    u = normal / size
    u /= math.sqrt(u @ u)
    u[0] += math.copysign(1.0, u[0])
    return u / math.sqrt(u @ u)
