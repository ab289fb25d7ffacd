"""Methods of `minimize` as values: which model gives a step, and how its size is governed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from scipy.linalg.blas import dnrm2
from scipy.linalg.lapack import dpotrf, dpotrs

from .. import _check
from ._descent import GradientModel
from ._krylov import BlockLanczosModel, EigenModel, LanczosModel, Model, Step
from ._line_search import LineSearch, backtracking, damped_newton, forward_backward
from ._minres import MinresResult, minres_npc
from ._shifted import ShiftedModel
from ._steihaug import SteihaugModel
from .objective import Hessian, Ray

_ACCEPT = 1e-4
_NEGLIGIBLE = 1e-10
_SMALLEST, _LARGEST = 1e-300, 1e300  # limits of sigma: the secular equation works with its inverse


def _along_gradient(H: Any, g: np.ndarray, x: np.ndarray) -> tuple[float, float, float]:
    """||g||, the curvature along g, and the length of the minimizing step along -g, at most that of x or 1."""
    size, cap = float(dnrm2(g)), max(1.0, float(dnrm2(x)))
    unit = g / size
    curvature = float(unit @ (H @ unit))
    if not (math.isfinite(curvature) and curvature * cap > size):
        return size, curvature, cap
    return size, curvature, max(size / curvature, _SMALLEST)


def _one_of(value: Any, name: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")


@dataclasses.dataclass(frozen=True)
class _ModelMethod:
    """Steps from a quadratic or cubic model, whose size follows how well the model foretold the change of F."""

    accept: float = dataclasses.field(default=_ACCEPT, kw_only=True)
    good: float = dataclasses.field(default=0.8, kw_only=True)
    forcing: float = dataclasses.field(default=0.3, kw_only=True)

    control: ClassVar[str]
    by_model: ClassVar[bool] = True
    convex_only: ClassVar[bool] = False
    subproblem: str

    def _check_shared(self) -> None:
        for name in ("accept", "good", "forcing"):
            value = _check.real(getattr(self, name), name, strict=True)
            if value >= 1:
                raise ValueError(f"{name} must be less than 1; got {value:g}")
        if self.good <= self.accept:
            raise ValueError(f"good must be greater than accept; got {self.good:g} and {self.accept:g}")

    def model(self, H: Hessian | np.ndarray, g: np.ndarray, tol: float, start: np.ndarray | None, seed: int) -> Model | None:
        """The model at a point; None where the Hessian is formed and not finite."""
        if self.subproblem == "exact":
            A = H if isinstance(H, np.ndarray) else H.to_dense()
            return EigenModel(A, g) if np.isfinite(A).all() else None
        if self.subproblem == "steihaug":
            return SteihaugModel(H, g, tol=tol)
        if self.subproblem == "gradient":
            return GradientModel(H, g, tol=min(tol, 1e-2), seed=seed)
        if self.subproblem == "block":
            return BlockLanczosModel(H, g, start, tol=tol, seed=seed)
        if self.subproblem == "shifted":
            return ShiftedModel(H, g, tol=tol)
        return LanczosModel(H, g, tol=tol, seed=seed)


@dataclasses.dataclass(frozen=True)
class TrustRegion(_ModelMethod):
    """Trust-region method: steps minimize the quadratic model within a radius (Conn, Gould, Toint 2000; Yao et al. 2021).

    Attributes
    ----------
    radius : float
        The first one. None: the length of the minimizing step along the gradient, at most max(1, ||x0||).
    max_radius : float
    subproblem : {"gltr", "steihaug", "block", "shifted", "exact"}
        "gltr": Lanczos, whose basis serves every radius; "steihaug": truncated conjugate gradients; "block": a block Krylov
        space of the gradient and a random vector, which finds negative curvature that the gradient does not see; "shifted":
        conjugate gradients for many shifts at once, whose memory does not grow with the products; "exact": the
        Hessian is formed, counted as dim products.
    accept, good : float
        Steps of a ratio, decrease over decrease of the model, above `accept` are taken; above `good` and at the boundary the
        radius grows.
    grow : float
        Factor of the radius.
    forcing : float
        The model is minimized until its gradient is min(forcing, sqrt(||g|| / ||g_0||)) ||g||, g_0 the first gradient; on
        samples forcing ||g||.
    """

    radius: float | None = None
    max_radius: float = math.inf
    subproblem: str = "gltr"
    _: dataclasses.KW_ONLY
    grow: float = 2.0

    control: ClassVar[str] = "radius"

    def __post_init__(self) -> None:
        self._check_shared()
        _one_of(self.subproblem, "subproblem", ("gltr", "steihaug", "block", "shifted", "exact"))
        if self.radius is not None:
            _check.real(self.radius, "radius", strict=True)
        if self.max_radius != math.inf:
            _check.real(self.max_radius, "max_radius", strict=True)
        _check.real(self.grow, "grow", low=1.0)

    def first(self, H: Any, g: np.ndarray, x: np.ndarray) -> float:
        """The first radius; at a saddle point, g is a direction of negative curvature."""
        return min(_along_gradient(H, g, x)[2] if self.radius is None else self.radius, self.max_radius)

    def step(self, model: Any, size: float, grow: bool) -> Step:
        return model.trust_region(size, grow=grow)

    def along_curvature(self, curvature: float, size: float) -> tuple[float, float]:
        """Length of a step along a direction of negative curvature, and the decrease it promises."""
        return size, -0.5 * curvature * size * size

    def updated(self, size: float, ratio: float, step: Step, slope: float, change: float) -> float:
        """The radius after a trial step."""
        if ratio < self.accept:
            # To the minimizer of the parabola through value, slope and trial value.
            bend = 2 * (change - slope)
            return step.norm * (min(max(-slope / bend, 0.1), 0.5) if 0 < bend < math.inf else 0.25)
        if ratio < 0.25:
            return min(size, 0.5 * step.norm) if step.norm < size else 0.5 * size
        return min(self.grow * size, self.max_radius) if ratio >= self.good and step.boundary else size


@dataclasses.dataclass(frozen=True)
class CubicRegularization(_ModelMethod):
    """Adaptive cubic regularization: steps minimize the quadratic model plus sigma/3 ||s||^3 (Cartis, Gould, Toint 2011).

    Attributes
    ----------
    sigma : float
        The first weight. None: that which gives a step along the gradient the length of TrustRegion's first radius.
    subproblem : {"lanczos", "block", "shifted", "exact", "gradient"}
    accept, good : float
        As in TrustRegion; sigma falls above `good`.
    decrease, increase : float
        Factors of sigma.
    forcing : float
    least : float
        Lower limit of sigma.
    """

    sigma: float | None = None
    subproblem: str = "lanczos"
    _: dataclasses.KW_ONLY
    increase: float = 2.0
    decrease: float = 0.5
    least: float = 0.0

    control: ClassVar[str] = "sigma"

    def __post_init__(self) -> None:
        self._check_shared()
        _one_of(self.subproblem, "subproblem", ("lanczos", "block", "shifted", "exact", "gradient"))
        if self.sigma is not None:
            _check.real(self.sigma, "sigma", strict=True)
        if not _check.real(self.increase, "increase", low=1.0) > 1:
            raise ValueError(f"increase must be greater than 1; got {self.increase!r}")
        if not 0 < _check.real(self.decrease, "decrease", strict=True) < 1:
            raise ValueError(f"decrease must be less than 1; got {self.decrease!r}")
        _check.real(self.least, "least")

    def first(self, H: Any, g: np.ndarray, x: np.ndarray) -> float:
        """The first sigma; at a saddle point, g is a direction of negative curvature."""
        if self.sigma is not None:
            return self.sigma
        # The first step along -g gets the length of the first radius of a trust region.
        size, curvature, length = _along_gradient(H, g, x)
        weight = max(size / length - curvature, 1e-2 * abs(curvature)) / length
        return max(weight, self.least, _SMALLEST) if weight < math.inf else 1.0

    def step(self, model: Any, size: float, grow: bool) -> Step:
        return model.cubic(size, grow=grow)

    def along_curvature(self, curvature: float, size: float) -> tuple[float, float]:
        """Length of a step along a direction of negative curvature, and the decrease it promises."""
        length = -curvature / size
        return length, -curvature * length * length / 6

    def updated(self, size: float, ratio: float, step: Step, slope: float, change: float) -> float:
        """sigma after a trial step; `explains` is the weight with which the model would have foretold the change."""
        explains = 3 * (change + step.quadratic_decrease) / step.norm / step.norm / step.norm if step.norm else math.nan
        if not math.isfinite(explains):
            explains = 5 * size
        if ratio < self.accept:
            size = max(self.increase * explains, self.increase * size)
        elif ratio < 0.25:
            size = min(max(explains, size), self.increase * size)
        elif ratio >= self.good and size * step.norm * step.norm * step.norm > _NEGLIGIBLE * step.quadratic_decrease:
            # Where the cubic term is lost beside the quadratic ones, a smaller weight would change no step.
            size = max(min(explains, self.decrease * size), 0.2 * size)
        return min(max(size, self.least, _SMALLEST), _LARGEST)


@dataclasses.dataclass(frozen=True)
class Newton:
    """Damped Newton for convex sums: step lengths from an adaptive constant, with the global rate k^-(q-1).

    Attributes
    ----------
    q : float or None
        None: affine-invariant cubic Newton (Hanzely et al. 2022), k^-2; between 2 and 4: root Newton (Hanzely, Abdukhakimov,
        Takac 2024), k^-(q-1).
    constant : float
        First guess of the constant of self-concordance; it adapts.
    forcing : float
        Where the Hessian is not formed: relative residual of conjugate gradients, at most this.
    """

    q: float | None = None
    constant: float = 0.25
    _: dataclasses.KW_ONLY
    forcing: float = 1e-2

    control: ClassVar[str] = "step"
    by_model: ClassVar[bool] = False
    convex_only: ClassVar[bool] = True
    accept: ClassVar[float] = _ACCEPT

    def __post_init__(self) -> None:
        if self.q is not None and not 2 <= _check.real(self.q, "q") <= 4:
            raise ValueError(f"q must be between 2 and 4 or None; got {self.q!r}")
        _check.real(self.constant, "constant")
        if not 0 < _check.real(self.forcing, "forcing", strict=True) < 1:
            raise ValueError(f"forcing must be less than 1; got {self.forcing!r}")

    def direction(self, H: Hessian, g: np.ndarray, tol: float) -> tuple[np.ndarray | None, bool]:
        """-H^-1 g, None where H is not positive definite, NaN where it is not finite; whether of negative curvature."""
        if H.dense_is_cheap:
            A = H.to_dense()
            if not np.isfinite(A).all():
                return np.full_like(g, math.nan), False
            factor, info = dpotrf(A, overwrite_a=1, clean=0)
            return (None, False) if info else (-dpotrs(factor, g)[0], False)
        found = minres_npc(H, g, tol=min(tol, self.forcing))
        return (_finite_direction(found) if found.kind == "SOL" else None), False

    def search(self, ray: Ray, slope: float, negative: bool, memory: float, noise: float) -> LineSearch:
        return damped_newton(ray.change, -slope, memory, q=self.q, slack=noise)

    def first(self, x: np.ndarray) -> float:
        """The first constant."""
        return self.constant


@dataclasses.dataclass(frozen=True)
class NewtonMR:
    """Newton-MR with negative curvature (Liu, Roosta 2022): MINRES directions, line searches, no ratio of decreases.

    Attributes
    ----------
    forcing : float
        MINRES ends at ||H r|| <= forcing ||H p|| ||H g|| / ||g||, or at a direction of non-positive curvature.
    """

    forcing: float = 1e-2

    control: ClassVar[str] = "step"
    by_model: ClassVar[bool] = False
    convex_only: ClassVar[bool] = False
    accept: ClassVar[float] = _ACCEPT

    def __post_init__(self) -> None:
        if not 0 < _check.real(self.forcing, "forcing", strict=True) < 1:
            raise ValueError(f"forcing must be less than 1; got {self.forcing!r}")

    def direction(self, H: Hessian, g: np.ndarray, tol: float) -> tuple[np.ndarray | None, bool]:
        """The MINRES direction, NaN where H is not finite; whether it is one of non-positive curvature."""
        found = minres_npc(H, g, tol=min(tol, self.forcing))
        return _finite_direction(found), found.kind == "NPC"

    def first(self, x: np.ndarray) -> float:
        """The first length of a step along non-positive curvature; later ones begin with that of the step before."""
        return max(1.0, float(dnrm2(x)))

    def search(self, ray: Ray, slope: float, negative: bool, memory: float, noise: float) -> LineSearch:
        if negative:
            return forward_backward(ray.change, slope, start=memory, slack=noise)
        return backtracking(ray.change, slope, slack=noise)


def _finite_direction(found: MinresResult) -> np.ndarray:
    """The direction, NaN where no product was finite."""
    nothing = found.status == "not-finite" and found.products <= 1
    return np.full_like(found.direction, math.nan) if nothing else found.direction


METHODS: dict[str, Any] = {
    "trust-region": TrustRegion(),
    "cubic": CubicRegularization(),
    "newton": Newton(),
    "newton-mr": NewtonMR(),
}
