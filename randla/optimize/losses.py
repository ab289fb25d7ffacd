"""Losses of generalized linear models: functions of one margin z = a'x and one label y."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _check, _cpu
from .._backend import Array, kernels, kind, namespace, on_device, to_host

Pointwise = Callable[[Array, Array], Any]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss of your own, f(z, y), by callables that take arrays of margins and labels.

    Attributes
    ----------
    value, first, second : callable
        f and its first and second derivative with respect to z: (z, y) -> array, both (count,), in float64. CuPy arrays where
        the data are on a device.
    name : str
    convex : bool
        Whether `second` is never negative: spares the search for negative curvature.
    """

    value: Pointwise
    first: Pointwise
    second: Pointwise
    name: str = "user"
    convex: bool = False

    classes = 1

    def labels(self, y: Array) -> Array:
        return _real_labels(y)

    def terms(self, z: Array, y: Array, w: Array | None) -> tuple[float, Array, Array]:
        """sum w f, w f' and w f'' for margins (1, count)."""
        f, c, d = self._terms(z, y, w)
        return float(f), c, d

    def put_terms(self, z: Array, y: Array, w: Array | None, total: Array) -> tuple[Array, Array]:
        """As `terms`, the sum into total (1,); waits for nothing that the functions do not wait for."""
        f, c, d = self._terms(z, y, w)
        total[:] = f
        return c, d

    def _terms(self, z: Array, y: Array, w: Array | None) -> tuple[Any, Array, Array]:
        f, c, d = (self._called(name, z[0], y) for name in ("value", "first", "second"))
        if w is None:
            return f.sum(), c[None], d[None]
        return w @ f, (w * c)[None], (w * d)[None]

    def _called(self, name: str, z: Array, y: Array) -> Array:
        found = getattr(self, name)(z, y)
        if on_device(z) and not on_device(found):
            raise TypeError(f"{name} of loss {self.name!r} must return an array of the device, as it got; got {kind(found)}")
        found = namespace(z).asarray(found, dtype=np.float64)
        if found.shape != y.shape:
            raise ValueError(f"{name} of loss {self.name!r} must return an array of shape {y.shape}; got {found.shape}")
        return namespace(z).ascontiguousarray(found)

    def difference(self, z: Array, u: Array, y: Array, w: Array | None) -> tuple[float, float]:
        """Sums of w (f(z + u) - f(z)) and of its squares; of two values, so that small changes cancel."""
        change = self._called("value", z[0] + u[0], y) - self._called("value", z[0], y)
        change = change if w is None else w * change
        if on_device(z):
            mean, squares = to_host(namespace(z).stack([change.sum(), change @ change]))
            return float(mean), float(squares)
        return float(change.sum()), float(change @ change)


@dataclasses.dataclass(frozen=True)
class NativeLoss:
    """A loss with kernels of its own; numbers as in csrc/common/loss.h."""

    name: str
    id: int
    convex: bool = False
    parameter: float = 1.0
    kind: str = "real"  # of the labels
    classes: int = 1

    def labels(self, y: Array) -> Array:
        if self.kind in ("sign", "binary"):
            values = to_host(namespace(y).unique(y))
            if not (np.isin(values, (-1, 1)).all() or np.isin(values, (0, 1)).all()):
                raise ValueError(f"y must hold labels -1 and 1, or 0 and 1, for loss {self.name!r}; got {values[:5]}")
            positive = (y == 1).astype(np.float64)
            return 2 * positive - 1 if self.kind == "sign" else positive
        labels = _real_labels(y)
        if self.kind == "count" and labels.size and (least := float(labels.min())) < 0:
            raise ValueError(f"y must not be negative for loss {self.name!r}; got {least:g}")
        return labels

    def terms(self, z: Array, y: Array, w: Array | None) -> tuple[float, Array, Array]:
        """sum w f, w f' and w f'' for margins (1, count); of the softmax loss the probabilities in the place of the last."""
        c, d = np.empty_like(z), np.empty_like(z)
        return _cpu.loss_terms(self.id, self.parameter, y, w, z, c, d), c, d

    def put_terms(self, z: Array, y: Array, w: Array | None, total: Array) -> tuple[Array, Array]:
        """As `terms` on a device, the sum into total (1,)."""
        xp = namespace(z)
        c, d = xp.empty_like(z), xp.empty_like(z)
        kernels(z).loss_terms(self.id, self.parameter, y, w, z, c, d, total)
        return c, d

    def difference(self, z: Array, u: Array, y: Array, w: Array | None) -> tuple[float, float]:
        """Sums of w (f(z + u) - f(z)), without cancellation, and of its squares; z of the softmax loss are probabilities."""
        if on_device(z):
            sums = namespace(z).empty(2)
            kernels(z).loss_difference(self.id, self.parameter, y, w, z, u, sums)
            change, squares = to_host(sums)
            return float(change), float(squares)
        return _cpu.loss_difference(self.id, self.parameter, y, w, z, u)


_NATIVE = {
    loss.name: loss
    for loss in (
        NativeLoss("logistic", 0, convex=True, kind="sign"),
        NativeLoss("squared_sigmoid", 1, kind="binary"),
        NativeLoss("least_squares", 2, convex=True),
        NativeLoss("softplus", 3),
        NativeLoss("poisson", 4, convex=True, kind="count"),
        # Scales at which each is 95 % efficient for normal errors of variance one.
        NativeLoss("tukey", 5, parameter=4.685),
        NativeLoss("huber", 6, convex=True, parameter=1.345),
        NativeLoss("pseudo_huber", 7, convex=True, parameter=1.287),
        NativeLoss("cauchy", 8, parameter=2.385),
        NativeLoss("welsch", 9, parameter=2.985),
        NativeLoss("geman_mcclure", 10, parameter=3.787),
    )
}
_SCALED = ("tukey", "huber", "pseudo_huber", "cauchy", "welsch", "geman_mcclure")
NAMES = (*_NATIVE, "softmax")


def resolve(loss: Any, scale: float | None, y: Array) -> Loss | NativeLoss:
    """The loss that the arguments `loss` and `scale` of GLM stand for."""
    if scale is not None and loss not in _SCALED:
        raise ValueError(f"scale must be None but for the robust losses {', '.join(_SCALED)}; got {scale!r} for {loss!r}")
    if isinstance(loss, Loss):
        return loss
    if loss == "softmax":
        classes = max(int(y.max()), 1) + 1
        return _Softmax("softmax", 11, convex=True, classes=classes)
    if not isinstance(loss, str) or loss not in _NATIVE:
        raise ValueError(f"loss must be one of {', '.join(NAMES)} or a Loss; got {loss!r}")
    native = _NATIVE[loss]
    return native if scale is None else dataclasses.replace(native, parameter=_check.real(scale, "scale", strict=True))


class _Softmax(NativeLoss):
    """Multinomial logistic loss: log(sum exp z) - z[y], labels 0 ... classes - 1."""

    def labels(self, y: Array) -> Array:
        labels = _real_labels(y)
        bad = labels[(labels != namespace(y).rint(labels)) | (labels < 0)]
        if bad.size:
            raise ValueError(f"y must hold classes 0, 1, 2, ... for loss 'softmax'; got {float(bad[0]):g}")
        return labels


def _real_labels(y: Array) -> Array:
    return namespace(y).ascontiguousarray(y, dtype=np.float64)


@dataclasses.dataclass(frozen=True)
class Regularizer:
    """A penalty sum_j r(x_j), by callables (x) -> array (dim,) of values, first and second derivatives.

    They get NumPy arrays, also where the data are on a device.
    """

    value: Callable[[np.ndarray], np.ndarray]
    first: Callable[[np.ndarray], np.ndarray]
    second: Callable[[np.ndarray], np.ndarray]
    convex: bool = False

    def total(self, x: np.ndarray) -> float:
        return float(np.sum(self.value(x)))

    def difference(self, x: np.ndarray, s: np.ndarray) -> float:
        return float(np.sum(np.asarray(self.value(x + s)) - np.asarray(self.value(x))))


class NonConvexRegularizer(Regularizer):
    """weight * sum_j x_j^2 / (1 + x_j^2), which keeps large coefficients.

    Raises
    ------
    TypeError, ValueError
        For a weight that is no finite number >= 0.
    """

    def __init__(self, weight: float):
        weight = _check.real(weight, "weight")
        object.__setattr__(self, "weight", weight)
        super().__init__(
            value=lambda x: weight * x * x / (1 + x * x),
            first=lambda x: weight * 2 * x / (1 + x * x) ** 2,
            second=lambda x: weight * (2 - 6 * x * x) / (1 + x * x) ** 3,
        )

    def difference(self, x: np.ndarray, s: np.ndarray) -> float:
        y = x + s
        return float(self.weight * np.sum(s * (x + y) / ((1 + x * x) * (1 + y * y))))  # type: ignore[attr-defined]
