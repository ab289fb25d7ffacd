"""Convex sets to minimize over: their projections, linear minimizers and faces."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .. import _check
from .._numeric import norms
from ._faces import Face, householder

_EPS = float(np.finfo(np.float64).eps)
_ON_BOUNDARY = 64 * _EPS  # relative distance at which a point belongs to the boundary of a ball


@dataclasses.dataclass(frozen=True, eq=False)
class Constraint:
    """A closed convex set D of R^dim. Values: sets hold no state of a run."""

    def project(self, x: Any) -> np.ndarray:
        """The point of D nearest to x, (dim,) in float64. ValueError for unsuitable shapes, NaN and infinite entries."""
        return self._project(self._point(x, "x"))

    def contains(self, x: Any, tol: float = 1e-12) -> bool:
        """Whether x is within tol max(1, ||x||) of D."""
        point, tol = self._point(x, "x"), _check.real(tol, "tol")
        factor = _room(point)
        away = factor * self._project(point) - factor * point
        return float(norms(away)) <= tol * max(factor, float(norms(factor * point)))

    def lmo(self, g: Any) -> np.ndarray:
        """A minimizer of g'v over v in D (linear minimization oracle). ValueError where there is none."""
        return self._lmo(self._point(g, "g"))

    def require(self, dim: int) -> None:
        """ValueError where D is no set of R^dim."""

    def _point(self, x: Any, name: str) -> np.ndarray:
        point = _check.real_array(x, name)
        if point.ndim != 1:
            raise ValueError(f"{name} must have 1 dimension; got {point.ndim}")
        _check.finite(point, name)
        self.require(len(point))
        return point.astype(np.float64, copy=False)

    def _project(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _lmo(self, g: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _displacement(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """P(x - g) - x for x in D: zero where x satisfies the first-order conditions of a function of gradient g.

        For small g with an error of the size of eps ||g||, not eps ||x||.
        """
        return self._project(x - g) - x

    def _slope(self, x: np.ndarray, g: np.ndarray, d: np.ndarray) -> float:
        """g'd for x and x + d in D. A part of g that is normal to the boundary does not drown the others in rounding error."""
        return float(g @ d)

    def _face(self, x: np.ndarray, g: np.ndarray, weak: float = -1.0, held: bool = False) -> Face:
        """The face that x lies on, for a function of gradient g.

        Constraints with a multiplier of at most `weak` are left; so is the boundary of a ball from which -g leads inwards,
        unless it is to be `held`.
        """
        raise NotImplementedError

    def _multipliers(self, x: np.ndarray, g: np.ndarray) -> dict[str, Any]:
        """Multipliers with which the gradient of the Lagrangian vanishes at a solution x."""
        raise NotImplementedError

    def _active(self, x: np.ndarray) -> np.ndarray:
        """Coordinates held by a constraint, bool (dim,)."""
        return np.zeros(len(x), bool)


@dataclasses.dataclass(frozen=True, eq=False)
class Box(Constraint):
    """lower <= x <= upper, entry by entry.

    Parameters
    ----------
    lower, upper : float or array (dim,)
        -inf and inf stand for no bound; equal bounds fix an entry.

    Raises
    ------
    TypeError, ValueError
        For NaN, shapes that differ, lower > upper, lower = inf and upper = -inf.
    """

    lower: Any = -math.inf
    upper: Any = math.inf

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            value = _check.real_array(getattr(self, name), name)
            if value.ndim > 1:
                raise ValueError(f"{name} must be a number or have 1 dimension; got {value.ndim}")
            if np.isnan(value).any():
                raise ValueError(f"{name} must not be NaN; got {int(np.isnan(value).sum())} NaN entries")
            value = value.astype(np.float64)
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        if self.lower.ndim and self.upper.ndim and self.lower.shape != self.upper.shape:
            raise ValueError(f"lower and upper must have one shape; got {self.lower.shape} and {self.upper.shape}")
        wrong = (self.lower > self.upper) | (self.lower == math.inf) | (self.upper == -math.inf)
        if wrong.any():
            raise ValueError(f"lower must be at most upper and leave finite points; got {int(wrong.sum())} empty intervals")

    def require(self, dim: int) -> None:
        for name in ("lower", "upper"):
            bound = getattr(self, name)
            if bound.ndim and bound.shape != (dim,):
                raise ValueError(f"{name} must be a number or have shape ({dim},); got {bound.shape}")

    def _project(self, x: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(x, self.lower), self.upper)

    def _displacement(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.minimum(np.maximum(-g, self.lower - x), self.upper - x)

    def _lmo(self, g: np.ndarray) -> np.ndarray:
        v = np.where(g > 0, self.lower, np.where(g < 0, self.upper, self._project(np.zeros(len(g)))))
        if not np.isfinite(v).all():
            raise ValueError("lower and upper must be finite where g is not zero: g'v is unbounded on the box")
        return v

    def _face(self, x: np.ndarray, g: np.ndarray, weak: float = -1.0, held: bool = False) -> Face:
        low, high = x <= self.lower, x >= self.upper
        held = (low | high) & ((np.abs(g) > weak) | (self.lower == self.upper))
        free = np.flatnonzero(~held)
        lower, upper = (np.broadcast_to(bound, x.shape)[free] for bound in (self.lower, self.upper))
        return Face(len(x), free, lower=lower, upper=upper)

    def _active(self, x: np.ndarray) -> np.ndarray:
        return (x <= self.lower) | (x >= self.upper)

    def _multipliers(self, x: np.ndarray, g: np.ndarray) -> dict[str, Any]:
        return {"bounds": np.where(self._active(x), g, 0.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class L2Ball(Constraint):
    """||x - center|| <= radius in the Euclidean norm; center (dim,) or None for the origin.

    Raises TypeError, ValueError for unsuitable arguments; radius may be 0.
    """

    radius: float
    center: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _check.real(self.radius, "radius"))
        if self.center is not None:
            center = self._point(self.center, "center").copy()
            center.flags.writeable = False
            object.__setattr__(self, "center", center)

    def require(self, dim: int) -> None:
        if isinstance(self.center, np.ndarray) and self.center.shape != (dim,):
            raise ValueError(f"center must have shape ({dim},); got {self.center.shape}")

    def _from_center(self, x: np.ndarray) -> np.ndarray:
        return x if self.center is None else x - self.center

    def _at(self, v: np.ndarray) -> np.ndarray:
        return v if self.center is None else self.center + v

    def _project(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            v = self._from_center(x)
            size = math.sqrt(v @ v)
        if not 1e-140 < size < 1e140:
            factor = _room(x) / 4
            v = factor * x if self.center is None else factor * x - factor * self.center
            size = float(norms(v))
            return x if size <= factor * self.radius else self._at((v / size) * self.radius)
        return x if size <= self.radius else self._at((v / size) * self.radius)

    def _lmo(self, g: np.ndarray) -> np.ndarray:
        g = _room(g) * g
        size = float(norms(g))
        return self._at(-(g / size) * self.radius if size else np.zeros(len(g)))

    def _displacement(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        if (c := _magnifier(g, self.radius)) != 1:
            return self._displacement(x, c * g) / c
        w = self._from_center(x) - g
        size = float(norms(w))
        if size <= self.radius or float(norms(g)) > self.radius or not self._on_boundary(x):
            return self._project(x - g) - x
        v = self._from_center(x)
        # R / ||w|| - 1 for ||v|| = R, with R^2 - ||w||^2 = 2 v'g - g'g.
        shrinkage = float((v + w) / size @ g) / (self.radius + size)
        return shrinkage * w - g

    def _on_boundary(self, x: np.ndarray) -> bool:
        # The rounding error of x is that of a vector of its size, which may be far from the center.
        return float(norms(self._from_center(x))) >= self.radius - _ON_BOUNDARY * (self.radius + float(norms(x)))

    def _multiplier(self, x: np.ndarray, g: np.ndarray) -> float:
        v = self._from_center(x)
        size = float(norms(v))
        return -float((v / size) @ g) / size if size and self._on_boundary(x) else 0.0

    def _face(self, x: np.ndarray, g: np.ndarray, weak: float = -1.0, held: bool = False) -> Face:
        if self.radius == 0:
            return Face(len(x), np.zeros(0, np.intp))
        multiplier = self._multiplier(x, g)
        if multiplier * self.radius <= max(weak, 0.0) and not (held and self._on_boundary(x)):
            return Face(len(x), np.arange(len(x)), reach=self._reach)
        return Face(
            len(x), np.arange(len(x)), reflector=householder(self._from_center(x)), shift=multiplier, retract=self._project
        )

    def _slope(self, x: np.ndarray, g: np.ndarray, d: np.ndarray) -> float:
        multiplier = self._multiplier(x, g)
        if not multiplier or not self._multiplier(x + d, g):
            return float(g @ d)
        # Both ends on the sphere: v'd = -d'd / 2.
        return float((g + multiplier * self._from_center(x)) @ d) + multiplier * float(d @ d) / 2

    def _reach(self, x: np.ndarray, p: np.ndarray) -> float:
        v = self._from_center(x)
        a, b, room = float(p @ p), float(v @ p), max((self.radius - float(norms(v))) * (self.radius + float(norms(v))), 0.0)
        if a == 0:
            return math.inf
        root = math.sqrt(b * b + a * room)
        return room / (b + root) if b > 0 else (root - b) / a

    def _multipliers(self, x: np.ndarray, g: np.ndarray) -> dict[str, Any]:
        return {"norm": max(self._multiplier(x, g), 0.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class L1Ball(Constraint):
    """||x||_1 <= radius. The radius may be 0. TypeError, ValueError for unsuitable ones."""

    radius: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _check.real(self.radius, "radius"))

    def _project(self, x: np.ndarray) -> np.ndarray:
        size = np.abs(x)
        with np.errstate(over="ignore"):
            inside = float(size.sum()) <= self.radius
        return x if inside else np.copysign(_simplex(size, self.radius), x) + 0.0

    def _lmo(self, g: np.ndarray) -> np.ndarray:
        v = np.zeros(len(g))
        if len(g):
            k = int(np.argmax(np.abs(g)))
            v[k] = -np.sign(g[k]) * self.radius
        return v

    def _displacement(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        if (c := _magnifier(g, self.radius)) != 1:
            return self._displacement(x, c * g) / c
        w = x - g
        p = self._project(w)
        if p is w or np.abs(g).max() > self.radius or not self._on_boundary(x):
            return p - x
        support, d = p != 0, -x
        signs, y = np.sign(p[support]), x[support]
        excess = (signs * y - np.abs(y)).sum() - signs @ g[support] - np.abs(x[~support]).sum()
        d[support] = -g[support] - signs * (excess / len(y))
        return d

    def _on_boundary(self, x: np.ndarray) -> bool:
        return float(np.abs(x).sum()) >= self.radius * (1 - _ON_BOUNDARY)

    def _multiplier(self, x: np.ndarray, g: np.ndarray) -> float:
        if self.radius == 0:
            return float(np.abs(g).max(initial=0.0))
        support = x != 0
        return -float(np.mean(np.sign(x[support]) * g[support])) if support.any() and self._on_boundary(x) else 0.0

    def _face(self, x: np.ndarray, g: np.ndarray, weak: float = -1.0, held: bool = False) -> Face:
        if self.radius == 0:
            return Face(len(x), np.zeros(0, np.intp))
        if self._multiplier(x, g) <= max(weak, 0.0) and not (held and self._on_boundary(x)):
            return Face(len(x), np.arange(len(x)), reach=self._reach)
        free = np.flatnonzero(x)
        signs = np.sign(x[free])
        lower, upper = np.where(signs > 0, 0.0, -np.inf), np.where(signs > 0, np.inf, 0.0)
        return Face(len(x), free, reflector=householder(signs), lower=lower, upper=upper)

    def _slope(self, x: np.ndarray, g: np.ndarray, d: np.ndarray) -> float:
        multiplier = self._multiplier(x, g)
        y = x + d
        if not multiplier or not self._on_boundary(y):
            return float(g @ d)
        # Both norms are equal: their difference adds nothing.
        kept = x * y > 0
        terms = np.where(kept, (g + multiplier * np.sign(x)) * d, g * d + multiplier * (np.abs(y) - np.abs(x)))
        return float(terms.sum())

    def _reach(self, x: np.ndarray, p: np.ndarray) -> float:
        """Largest t with ||x + t p||_1 <= radius: of a convex function, linear between the places where entries change sign."""
        if not p.any():
            return math.inf
        turning = np.flatnonzero(x * p < 0)
        times = -x[turning] / p[turning]
        order = np.argsort(times)
        t = np.r_[0.0, times[order]]
        first = float((np.sign(x) * p).sum() + np.abs(p[x == 0]).sum())
        slopes = first + np.cumsum(np.r_[0.0, 2 * np.abs(p[turning[order]])])
        values = float(np.abs(x).sum()) + np.r_[0.0, np.cumsum(slopes[:-1] * np.diff(t))]
        limit = max(self.radius, float(values[0]))
        k = int(np.flatnonzero(values <= limit)[-1])
        return float(t[k] + (limit - values[k]) / slopes[k]) if slopes[k] > 0 else float(t[k])

    def _active(self, x: np.ndarray) -> np.ndarray:
        return (x == 0) & self._on_boundary(x)

    def _multipliers(self, x: np.ndarray, g: np.ndarray) -> dict[str, Any]:
        return {"norm": max(self._multiplier(x, g), 0.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class Simplex(Constraint):
    """x >= 0 with entries that sum to `total`, which may be 0. TypeError, ValueError for unsuitable totals."""

    total: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", _check.real(self.total, "total"))

    def require(self, dim: int) -> None:
        if dim == 0 and self.total:
            raise ValueError(f"total must be 0 for points without entries; got {self.total:g}")

    def _project(self, x: np.ndarray) -> np.ndarray:
        return _simplex(x, self.total)

    def _lmo(self, g: np.ndarray) -> np.ndarray:
        v = np.zeros(len(g))
        if len(g):
            v[int(np.argmin(g))] = self.total
        return v

    def _displacement(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        if (c := _magnifier(g, self.total)) != 1:
            return self._displacement(x, c * g) / c
        p = self._project(x - g)
        if np.abs(g).max(initial=0.0) >= self.total:
            return p - x
        support, d = p > 0, -x
        d[support] = (g[support].sum() + x[~support].sum()) / np.count_nonzero(support) - g[support]
        return d

    def _multiplier(self, x: np.ndarray, g: np.ndarray) -> float:
        support = x > 0
        return float(np.mean(g[support])) if support.any() else float(g.min(initial=0.0))

    def _face(self, x: np.ndarray, g: np.ndarray, weak: float = -1.0, held: bool = False) -> Face:
        support = (x > 0) | (g - self._multiplier(x, g) <= weak)
        free = np.flatnonzero(support) if self.total else np.zeros(0, np.intp)
        return Face(len(x), free, reflector=householder(np.ones(len(free))), lower=np.zeros(len(free)))

    def _slope(self, x: np.ndarray, g: np.ndarray, d: np.ndarray) -> float:
        return float((g - self._multiplier(x, g)) @ d)

    def _active(self, x: np.ndarray) -> np.ndarray:
        return x == 0

    def _multipliers(self, x: np.ndarray, g: np.ndarray) -> dict[str, Any]:
        total = self._multiplier(x, g)
        return {"total": -total, "bounds": np.where(x == 0, g - total, 0.0)}


def _magnifier(g: np.ndarray, size: float) -> float:
    """A factor for gradients that would be lost beside points of this size: P(x - g) - x is linear in the length of small g."""
    largest = float(np.abs(g).max(initial=0.0))
    return 1e-8 * size / largest if 0 < largest < 1e-12 * size else 1.0


def _room(x: np.ndarray) -> float:
    """A power of two that leaves the norm of its product with x room; one but for the largest numbers."""
    return 2.0**-100 if float(np.abs(x).max(initial=0.0)) > 1e300 else 1.0


def _simplex(x: np.ndarray, total: float) -> np.ndarray:
    """Projection of x on the simplex (Held, Wolfe, Crowder 1974), in terms of the distances to the largest entry.

    Only entries less than `total` below the largest one can stay positive: nothing overflows, and nothing of a small simplex
    is lost beside a large point.
    """
    out = np.zeros(len(x))
    if total == 0 or not len(x):
        return out
    with np.errstate(over="ignore"):
        below = x.max() - x
    near = np.flatnonzero(below < total)
    ascending = np.sort(below[near])
    levels = (total + np.cumsum(ascending)) / np.arange(1, len(near) + 1)
    level = levels[np.flatnonzero(ascending < levels)[-1]]
    out[near] = np.maximum(level - below[near], 0.0)
    return out
