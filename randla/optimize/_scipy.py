"""Methods for `scipy.optimize.minimize(method=...)`: `trust_region` and `cubic`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import dnrm2
from scipy.optimize import HessianUpdateStrategy, OptimizeResult

from .. import _check
from .methods import CubicRegularization, TrustRegion
from .minimize import minimize
from .objective import Hessian, from_callables
from .result import MinimizeStatus

_EPS = float(np.finfo(np.float64).eps)
_DIFFERENCES = ("2-point", "3-point")
_LOOP = ("gtol", "htol", "maxiter", "max_time", "rng")
_HERE = ("tol", "disp", "return_all")
# Where scipy has a number for a status, the number is that.
_CODES = {MinimizeStatus.ITERATION_LIMIT: 1, MinimizeStatus.STOPPED: 99}


def trust_region(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Any = None,
    **options: Any,
) -> OptimizeResult:
    """Trust region that leaves strict saddles, for `scipy.optimize.minimize(fun, x0, method=trust_region, ...)`.

    Success means ||grad|| <= gtol and, but for a probability of 1e-6, no eigenvalue of the Hessian below -htol; `min_eig` of
    the result is the lowest curvature found.

    Parameters
    ----------
    fun, x0, args, jac, hess, hessp, callback
        As for `scipy.optimize.minimize`. hess may be an array, a sparse matrix, a LinearOperator, or a callable that returns
        one; hessp is not used where hess is given. Without a gradient it is taken by central differences, which is all
        that jac="2-point" and the like can ask for, as scipy does not pass them on; without a Hessian its products are
        central differences of the gradient, and curvature is proved to their accuracy, near 1e-10 of its size (1e-7 where the
        gradient is one of differences too). The callback gets x, or `intermediate_result` where that is its only parameter.
    bounds, constraints
        None and empty: refused otherwise.
    options
        gtol (or tol), htol, maxiter, max_time (seconds), radius (the first), max_radius, subproblem ("gltr", "steihaug",
        "block", "exact"), disp, return_all (keeps the iterates as `allvecs`), rng.

    Returns
    -------
    OptimizeResult
        x, fun, jac, success, status, message, nit, nfev, njev, nhev (calls of hess or hessp), min_eig, min_eig_error,
        grad_norm, history, seed. status: 0 success, 1 iteration limit, 99 stopped by the callback, 2 another end, which
        `message` says.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, bounds, constraints and unknown options.

    Warns
    -----
    MinimizeWarning
        Where the run ends without success, but by the callback.
    """
    method, options = _method(TrustRegion, ("radius", "max_radius", "subproblem"), options)
    return _run(method, fun, x0, args, jac, hess, hessp, bounds, constraints, callback, options)


def cubic(
    fun: Callable[..., Any],
    x0: Any,
    args: Any = (),
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Any = None,
    **options: Any,
) -> OptimizeResult:
    """Adaptive cubic regularization, for `scipy.optimize.minimize(fun, x0, method=cubic, ...)`.

    As `trust_region`, with the options sigma (the first weight) and subproblem ("lanczos", "block", "exact", "gradient") in
    place of radius, max_radius and its subproblem.
    """
    method, options = _method(CubicRegularization, ("sigma", "subproblem"), options)
    return _run(method, fun, x0, args, jac, hess, hessp, bounds, constraints, callback, options)


def _method(kind: Callable[..., Any], own: tuple[str, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The configured method and the options of the loop; those that are None are left to their defaults."""
    known = (*_LOOP, *own, *_HERE)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"options must be among {', '.join(known)}; got {', '.join(unknown)}")
    given = {name: value for name, value in options.items() if value is not None}
    return kind(**{name: given.pop(name) for name in own if name in given}), given


def _run(
    method: Any,
    fun: Any,
    x0: Any,
    args: Any,
    jac: Any,
    hess: Any,
    hessp: Any,
    bounds: Any,
    constraints: Any,
    callback: Any,
    options: dict[str, Any],
) -> OptimizeResult:
    if bounds is not None:
        raise ValueError("bounds must be None; randla.optimize.minimize_constrained takes a Box")
    if np.size(constraints):
        raise ValueError("constraints must be empty; randla.optimize.minimize_constrained takes boxes, balls and the simplex")
    x = _check.real_array(x0, "x0")
    if x.ndim > 1 or not x.size:
        raise ValueError(f"x0 must have one dimension and entries; got shape {x.shape}")
    _check.finite(x, "x0")
    x = np.array(x, np.float64, ndmin=1)
    oracle = _Oracle(fun, x.size, args if isinstance(args, tuple) else (args,), jac, hess, hessp)
    tol, disp, return_all = options.pop("tol", None), options.pop("disp", False), options.pop("return_all", False)
    if tol is not None:
        options.setdefault("gtol", tol)
    allvecs = [x.copy()]
    found = minimize(
        from_callables(oracle.value, oracle.gradient, **oracle.curvature, dim=x.size),
        x,
        method,
        callback=_told(callback, allvecs if return_all else None),
        **options,
    )
    result = OptimizeResult(
        x=found.x,
        fun=found.fun,
        jac=found.jac,
        success=found.success,
        status=0 if found.success else _CODES.get(found.status, 2),
        message=found.message,
        nit=found.nit,
        nfev=oracle.nfev,
        njev=oracle.njev,
        nhev=oracle.nhev,
        min_eig=found.min_eig,
        min_eig_error=found.min_eig_error,
        grad_norm=found.grad_norm,
        history=found.history,
        seed=found.seed,
    )
    if return_all:
        result.allvecs = allvecs
    if disp:
        print(
            f"{result.message}\n"
            f"         Current function value: {result.fun:f}\n"
            f"         Gradient norm: {result.grad_norm:.3g}, lowest curvature: {result.min_eig:.3g}\n"
            f"         Iterations: {result.nit}\n"
            f"         Evaluations: {result.nfev} function, {result.njev} gradient, {result.nhev} Hessian"
        )
    return result


def _told(callback: Any, allvecs: list[np.ndarray] | None) -> Callable[[Any], None] | None:
    """What the loop calls for either signature of scipy's callbacks."""
    if callback is None and allvecs is None:
        return None
    named = False
    if callback is not None:
        if not callable(callback):
            raise TypeError(f"callback must be callable; got {type(callback).__name__}")
        try:
            named = set(inspect.signature(callback).parameters) == {"intermediate_result"}
        except (TypeError, ValueError):  # of builtins nothing is known
            named = False

    def told(state: Any) -> None:
        if allvecs is not None:
            allvecs.append(np.array(state.x))
        if named:
            callback(intermediate_result=OptimizeResult(x=np.array(state.x), fun=state.fun))
        elif callback is not None:
            callback(np.array(state.x))

    return told


class _Oracle:
    """Value, gradient and Hessian products from what scipy passes on, the user's calls counted."""

    def __init__(self, fun: Any, dim: int, args: tuple[Any, ...], jac: Any, hess: Any, hessp: Any):
        if not callable(fun):
            raise TypeError(f"fun must be callable; got {type(fun).__name__}")
        if jac is True:
            fun, jac = _shared(fun)
        if not (callable(jac) or jac is None or jac is False or jac in _DIFFERENCES):
            raise ValueError(f"jac must be callable, True, None or one of {', '.join(_DIFFERENCES)}; got {jac!r}")
        if hessp is not None and not callable(hessp):
            raise TypeError(f"hessp must be callable; got {type(hessp).__name__}")
        if isinstance(hess, HessianUpdateStrategy):
            raise TypeError(f"hess must give curvature, which the update {type(hess).__name__} only models")
        self.fun, self.dim, self.args = fun, dim, args
        self.jac = jac if callable(jac) else None
        self.hess, self.matrix, self.hessp = None, None, hessp
        if hess is not None and not (isinstance(hess, str) and hess in _DIFFERENCES):
            # A LinearOperator is callable too.
            if hasattr(hess, "__matmul__") or isinstance(hess, list | tuple):
                self.matrix = self._square(hess)
            elif callable(hess):
                self.hess = hess
            else:
                raise TypeError(f"hess must be a matrix, an operator or callable; got {hess!r}")
        # Relative accuracy of the gradient, and the step of differences that suits it.
        self.step = float(np.cbrt(_EPS if self.jac else _EPS ** (2 / 3)))
        self.nfev = self.njev = self.nhev = 0
        self._at: tuple[np.ndarray, Any] | None = None

    def value(self, x: np.ndarray) -> float:
        self.nfev += 1
        # The user may overwrite what he gets.
        value = np.asarray(self.fun(x.copy(), *self.args))
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise ValueError(f"fun must return a real number; got {value.dtype} of shape {value.shape}")
        return float(value.reshape(()))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        self.njev += 1
        if self.jac is None:
            return self._differences(x)
        g = np.asarray(self.jac(x.copy(), *self.args))
        if g.size != self.dim or g.dtype.kind not in "fiub":
            raise ValueError(f"jac must return {self.dim} real numbers; got {g.dtype} of shape {g.shape}")
        return g.reshape(self.dim).astype(np.float64)

    @property
    def curvature(self) -> dict[str, Any]:
        return {"hessp": self._product} if self.matrix is None and self.hess is None else {"hess": self._hessian}

    def _product(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        if self.hessp is None:
            return self._directional(x, v)
        self.nhev += 1
        Hv = np.asarray(self.hessp(x.copy(), v.copy(), *self.args))
        if Hv.size != self.dim or Hv.dtype.kind not in "fiub":
            raise ValueError(f"hessp must return {self.dim} real numbers; got {Hv.dtype} of shape {Hv.shape}")
        return Hv.reshape(self.dim).astype(np.float64)

    def _hessian(self, x: np.ndarray) -> Any:
        if self.hess is None:
            return self.matrix
        if self._at is None or not np.array_equal(self._at[0], x):
            self.nhev += 1
            self._at = x.copy(), self._square(self.hess(x.copy(), *self.args))
        return self._at[1]

    def _square(self, H: Any) -> Any:
        operator = hasattr(H, "matvec")
        H = H if operator or sp.issparse(H) else np.atleast_2d(np.asarray(H))
        if tuple(H.shape) != (self.dim, self.dim) or np.dtype(H.dtype or float).kind not in "fiub":
            raise ValueError(f"hess must be real of shape {(self.dim, self.dim)}; got {H.dtype} of shape {tuple(H.shape)}")
        # A LinearOperator would give the columns of a block, as matrices, to functions written for vectors.
        return Hessian(self.dim, lambda V: np.stack([H.matvec(v) for v in V])) if operator else H

    def _differences(self, x: np.ndarray) -> np.ndarray:
        g = np.empty(self.dim)
        for i in range(self.dim):
            low, high = x.copy(), x.copy()
            h = float(np.cbrt(_EPS)) * max(1.0, abs(x[i]))
            low[i], high[i] = x[i] - h, x[i] + h
            above, below = self.value(high), self.value(low)
            g[i] = (above - below) / (high[i] - low[i])
        return g

    def _directional(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        size = float(dnrm2(v))
        if size == 0:
            return np.zeros(self.dim)
        h = self.step * max(1.0, float(dnrm2(x))) / size
        above, below = self.gradient(x + h * v), self.gradient(x - h * v)
        with np.errstate(over="ignore", invalid="ignore"):
            return (above - below) / (2 * h)


def _shared(fun: Any) -> tuple[Any, Any]:
    """Value and gradient of a function that returns both, called once for each x."""
    last: list[Any] = [None, None]

    def both(x: np.ndarray, *args: Any) -> Any:
        if last[0] is None or not np.array_equal(x, last[0]):
            last[:] = x.copy(), fun(x, *args)
        return last[1]

    return lambda x, *args: both(x, *args)[0], lambda x, *args: both(x, *args)[1]
