"""Finite sums F(x) = (1/n) sum f_i(x): the protocol that the methods are written for, and adapters to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg.blas import dnrm2
from scipy.sparse.linalg import LinearOperator

from .. import _check
from .._backend import Array, kind, namespace, on_device


@dataclasses.dataclass
class Counts:
    """What a run has asked for. A prop is one pass over one term: value |S|, gradient 2 |S|, Hessian product 2 |S|."""

    props: int = 0
    nfev: int = 0
    njev: int = 0
    nhev: int = 0  # Hessian products


class Hessian(LinearOperator):
    """A symmetric matrix that is known by its products: H @ v, H @ V for blocks, H.to_dense().

    Parameters
    ----------
    dim : int
    product : callable
        V (k, dim) -> (k, dim), one vector per row.
    size : int
        Terms of the sum that a product reads.
    counts : Counts
        Told of every product.
    dense : callable
        () -> (dim, dim), where there is something cheaper than dim products.
    home : array
        Of a device: products then take vectors of either side, and are made where these are.
    """

    def __init__(
        self,
        dim: int,
        product: Callable[[np.ndarray], np.ndarray],
        size: int = 1,
        counts: Counts | None = None,
        dense: Callable[[], np.ndarray] | None = None,
        home: Any = None,
    ):
        super().__init__(np.dtype(np.float64), (dim, dim))
        self.home = home
        self.dim, self.size, self.counts = dim, size, Counts() if counts is None else counts
        self._product, self._dense = product, dense

    @property
    def dense_is_cheap(self) -> bool:
        return self._dense is not None

    def _rows(self, V: np.ndarray) -> np.ndarray:
        if not len(V):
            return np.zeros_like(V)
        self.counts.nhev += len(V)
        self.counts.props += 2 * self.size * len(V)
        return self._product(V)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            return LinearOperator.dot(self, other)
        v = self._operand(other)
        xp = namespace(v)
        if v.ndim == 1 and len(v) == self.dim:
            return self._rows(xp.ascontiguousarray(v)[None])[0]
        if v.ndim == 2 and len(v) == self.dim:
            return self._rows(xp.ascontiguousarray(v.T)).T
        raise ValueError(f"the operand of a Hessian product must have shape ({self.dim},) or ({self.dim}, k); got {v.shape}")

    def _operand(self, other: Any) -> Array:
        if on_device(other):
            if not on_device(self.home):
                raise TypeError(f"the operand of a Hessian product must be a numpy array, as the Hessian is; got {kind(other)}")
            return _check.real_array(other, "the operand of a Hessian product", device=True).astype(np.float64, copy=False)
        if np.iscomplexobj(other):
            raise TypeError(f"the operand of a Hessian product must be real; got {np.asarray(other).dtype}")
        return np.asarray(other, np.float64)

    def dot(self, other: Any) -> Any:
        return LinearOperator.dot(self, other) if np.isscalar(other) else self @ other

    matvec = __matmul__
    matmat = __matmul__

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self @ v.ravel()

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self @ V

    def _adjoint(self) -> Hessian:
        return self

    def _transpose(self) -> Hessian:
        return self

    def to_dense(self) -> np.ndarray:
        """The matrix, symmetric; counted as dim products."""
        if self._dense is None:
            H = self._rows(np.eye(self.dim))
            return 0.5 * (H + H.T)
        self.counts.nhev += self.dim
        self.counts.props += 2 * self.size * self.dim
        return self._dense()


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Terms of a sum: rows (size,), ascending or not, and the weights of a weighted mean, or None for the plain mean."""

    rows: np.ndarray
    weights: np.ndarray | None = None

    @cached_property
    def held(self) -> dict[Any, Any]:
        """What problems keep for as long as there is the sample, such as its rows on a device."""
        return {}

    @property
    def size(self) -> int:
        return len(self.rows)


class WindowSample(Sample):
    """Terms in places start ... stop - 1 of a random order: nested where windows are, and then rows seen are not read again."""

    order: Any
    start: int
    stop: int

    def __init__(self, order: Any, start: int, stop: int):
        super().__init__(order.order[start:stop])
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)


class FiniteSum:
    """F(x) = (1/n) sum f_i(x). Subclasses have `n`, `dim` and the three functions; `idx` are the terms of a sample, None all.

    `value`, `grad` and `hessian` are of the mean over those terms. A penalty that is no sum over terms belongs whole to every
    mean. `at` may be overridden to share work between the three at one point, as `GLM` does.
    """

    n: int
    dim: int | None

    def value(self, x: np.ndarray, idx: np.ndarray | None = None) -> float:
        raise NotImplementedError

    def grad(self, x: np.ndarray, idx: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError

    def hessian(self, x: np.ndarray, idx: np.ndarray | None = None) -> Any:
        raise NotImplementedError

    convex = False  # whether every f_i is known to be
    curvature_bound = 0.0  # a number that no eigenvalue of the Hessian is below, where `convex`
    has_variances = False  # whether evaluations know those of gradients and changes over their terms
    home: Any = None  # an array of the device that results belong on

    def at(self, x: np.ndarray, sample: Sample | None = None, counts: Counts | None = None) -> Evaluation:
        """The sum, or the mean over a sample, at one point."""
        return Evaluation(self, x, sample, Counts() if counts is None else counts)


class Evaluation:
    """A sum over a sample at one point, what is known of it, and the way to others.

    fun and grad are made when first asked for.
    """

    def __init__(self, problem: FiniteSum, x: np.ndarray, sample: Sample | None, counts: Counts, fun: float | None = None):
        self.problem, self.x, self.sample, self.counts = problem, x, sample, counts
        self.size = problem.n if sample is None else sample.size
        self._fun = fun
        self._grad: np.ndarray | None = None

    @property
    def fun(self) -> float:
        if self._fun is None:
            self.counts.nfev += 1
            self.counts.props += self.size
            self._fun = float(self.problem.value(self.x, *self._which))
        return self._fun

    @property
    def _which(self) -> tuple[np.ndarray, ...]:
        return () if self.sample is None else (self.sample.rows,)

    @property
    def grad(self) -> np.ndarray:
        if self._grad is None:
            self.counts.njev += 1
            self.counts.props += 2 * self.size
            self._grad = np.array(self.problem.grad(self.x, *self._which), np.float64).ravel()
        return self._grad

    def hessian(self, sample: Sample | None = None) -> Hessian:
        """The Hessian of the same terms, or of those of another sample."""
        which, size = (self._which, self.size) if sample is None else ((sample.rows,), sample.size)
        H = self.problem.hessian(self.x, *which)
        return as_hessian(H, len(self.x), size, self.counts)

    def importance(self, scheme: str) -> np.ndarray:
        """||hess f_i|| of every term, or another measure by which to draw."""
        raise ValueError(f"sampling must be 'uniform' for a {type(self.problem).__name__}; got {scheme!r}")

    def variances(self, inner_product: bool = False) -> tuple[float, float]:
        """Trace of the covariance of the terms' gradients, and the variance of their products with the mean; nan: unknown."""
        return math.nan, math.nan

    def ray(self, p: np.ndarray) -> Ray:
        return Ray(self, p)

    def restricted(self, sample: Sample) -> Evaluation:
        """The same point on a sample of the terms."""
        return self.problem.at(self.x, sample, self.counts)

    def enlarged(self, sample: Sample | None) -> Evaluation:
        """The same point on a sample that holds this one."""
        return self.problem.at(self.x, sample, self.counts)


class Ray:
    """The points x + t p. decrease, variance: of the changes of the terms at the last t, their mean and variance."""

    decrease = variance = math.nan

    def __init__(self, start: Evaluation, p: np.ndarray):
        self.start, self.p = start, p
        self._seen: dict[float, Evaluation] = {}

    def change(self, t: float = 1.0) -> float:
        """F(x + t p) - F(x); NaN or inf where F is."""
        start = self.start
        there = Evaluation(start.problem, start.x + t * self.p, start.sample, start.counts)
        self._seen[t] = there
        with np.errstate(all="ignore"):
            return there.fun - start.fun

    def noise(self) -> float:
        """The rounding error of a change."""
        return 8 * np.finfo(float).eps * abs(self.start.fun)

    def accept(self, t: float = 1.0) -> Evaluation:
        if t not in self._seen:
            self.change(t)
        return self._seen[t]


def as_hessian(H: Any, dim: int, size: int, counts: Counts) -> Hessian:
    """What a problem returns as its Hessian, counted: a Hessian, an array, a sparse matrix, or anything that has @."""
    if isinstance(H, Hessian):
        return Hessian(dim, H._product, size, counts, H._dense, H.home)
    shape = getattr(H, "shape", None)
    if shape != (dim, dim):
        raise ValueError(f"the Hessian must have shape ({dim}, {dim}); got {shape}")
    return Hessian(dim, lambda V: np.asarray((H @ V.T).T, np.float64), size, counts, _dense_of(H))


def _dense_of(H: Any) -> Callable[[], np.ndarray] | None:
    if isinstance(H, np.ndarray):
        return lambda: np.array(H, np.float64)
    return (lambda: np.asarray(H.toarray(), np.float64)) if hasattr(H, "toarray") else None


class _Callables(FiniteSum):
    def __init__(self, fun: Any, grad: Any, hessp: Any, hess: Any, n: int, dim: int | None, step: float):
        self._functions = fun, grad, hessp, hess
        self.n, self.dim, self._step = n, dim, step

    def _arguments(self, x: np.ndarray, idx: np.ndarray | None) -> tuple[Any, ...]:
        # A user's function may keep what it was given, or write to it.
        return (x.copy(),) if self.n == 1 else (x.copy(), idx)

    def value(self, x: np.ndarray, idx: np.ndarray | None = None) -> float:
        value = _real(self._functions[0](*self._arguments(x, idx)), "fun")
        if value.size != 1:
            raise ValueError(f"fun must return one number; got an array of shape {value.shape}")
        return float(value.reshape(()))

    def grad(self, x: np.ndarray, idx: np.ndarray | None = None) -> np.ndarray:
        g = _real(self._functions[1](*self._arguments(x, idx)), "grad")
        if g.size != len(x):
            raise ValueError(f"grad must return an array of shape ({len(x)},); got {g.shape}")
        return g.reshape(len(x))

    def hessian(self, x: np.ndarray, idx: np.ndarray | None = None) -> Any:
        _, _, hessp, hess = self._functions
        if hess is not None:
            return hess(*self._arguments(x, idx))
        more = () if self.n == 1 else (idx,)
        product = self._differences(x, idx) if hessp is None else lambda v: hessp(x.copy(), v, *more)
        return Hessian(len(x), lambda V: np.stack([_vector(product(v), len(x)) for v in V]))

    def _differences(self, x: np.ndarray, idx: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
        def product(v: np.ndarray) -> np.ndarray:
            size = float(dnrm2(v))
            if size == 0:
                return np.zeros(len(x))
            h, unit = self._step * (1 + float(dnrm2(x))), v / size
            return (self.grad(x + h * unit, idx) - self.grad(x - h * unit, idx)) / (2 * h) * size

        return product


def _real(value: Any, name: str) -> np.ndarray:
    a = np.asarray(value)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name} must return real numbers; got {'an array of ' + str(a.dtype) if a.ndim else repr(value)}")
    return a.astype(np.float64, copy=False)


def _vector(value: Any, dim: int) -> np.ndarray:
    v = _real(value, "hessp")
    if v.size != dim:
        raise ValueError(f"hessp must return an array of shape ({dim},); got {v.shape}")
    return v.reshape(dim)


def from_callables(
    fun: Callable[..., float],
    grad: Callable[..., np.ndarray],
    hessp: Callable[..., np.ndarray] | None = None,
    *,
    hess: Callable[..., Any] | None = None,
    n: int = 1,
    dim: int | None = None,
) -> FiniteSum:
    """A finite sum from functions.

    Parameters
    ----------
    fun, grad : callable
        F and its gradient, x -> float and x -> (dim,); with n > 1 they are called (x, idx), and return those of the mean over
        the terms idx (int64 array), or over all where idx is None.
    hessp : callable
        (x, v) or (x, v, idx) -> the Hessian at x times v. None: central differences of the gradient, with an error near 1e-10
        of the Hessian's size.
    hess : callable
        x or (x, idx) -> the Hessian: array, sparse, or anything with shape and @. Takes the place of hessp.
    n : int
        Number of terms.
    dim : int
        Number of variables; None: that of the x that comes.

    Returns
    -------
    FiniteSum

    Raises
    ------
    TypeError, ValueError
        For arguments that are no functions, and for n or dim below 1.
    """
    for function, name, needed in ((fun, "fun", True), (grad, "grad", True), (hessp, "hessp", False), (hess, "hess", False)):
        if not callable(function) and (needed or function is not None):
            raise TypeError(f"{name} must be callable{'' if needed else ' or None'}; got {function!r}")
    if hess is not None and hessp is not None:
        raise ValueError("hess must be None where hessp is given; got both")
    dim = None if dim is None else _check.integer(dim, "dim", 1)
    return _Callables(fun, grad, hessp, hess, _check.integer(n, "n", 1), dim, float(np.finfo(float).eps) ** (1 / 3))
