"""`minimize`: sub-sampled second-order methods under one loop, and the loop one step at a time for other optimizers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _check
from .._backend import like, parameters
from ._curvature import averages_pay
from ._run import Run, Settings
from .methods import METHODS, CubicRegularization, Newton, NewtonMR, TrustRegion
from .objective import FiniteSum
from .result import MinimizeResult, MinimizeStatus, MinimizeWarning
from .sample_rules import DecreaseTest, InnerProductTest, NormTest, as_rule

_NESTED = (DecreaseTest, NormTest, InnerProductTest)
_FAILURE = 1e-6


def minimize(
    problem: FiniteSum,
    x0: Any,
    method: Any = "trust-region",
    *,
    gradient_sample: Any = None,
    hessian_sample: Any = None,
    function_sample: str | None = None,
    sampling: str = "uniform",
    gtol: float = 1e-6,
    htol: float | None = None,
    maxiter: int = 1000,
    max_props: float | None = None,
    max_time: float | None = None,
    callback: Callable[[MinimizeResult], None] | None = None,
    verbose: int = 0,
    rng: Any = None,
) -> MinimizeResult:
    """Minimize a finite sum by a second-order method on samples, to a point of small gradient without negative curvature.

    Success means ||grad F|| <= gtol and no eigenvalue of the Hessian of F below -htol, both of the whole sum, the latter but
    for a probability of 1e-6; a strict saddle is left along its negative curvature, both signs tried. For F bounded below with
    Lipschitz Hessian this takes O(max(gtol^-2 htol^-1, htol^-3)) iterations of "trust-region" and O(max(gtol^-2, htol^-3)) of
    "cubic" where samples are as accurate as Yao, Xu, Roosta, Mahoney (2021) ask; with the sizes of practice, which "adaptive"
    uses, convergence is that of the whole sum, at which the samples arrive.

    Parameters
    ----------
    problem : FiniteSum
        GLM, from_callables, or a class of your own. A GLM of a device gives x and jac there; what has an entry for each row
        stays there, except that draws by "row-norm" and "leverage" bring an importance of every term to the host.
    x0 : array, (dim,)
        Of the host, or of the device that the problem is on.
    method : str or a method
        "trust-region", "cubic", "newton" (damped, for convex sums), "newton-mr"; or TrustRegion(...), CubicRegularization(...),
        Newton(...), NewtonMR(...).
    gradient_sample, hessian_sample : None, int, float, "adaptive" or a rule
        None: all terms; so many; a fraction; a rule, such as NormTest(). "adaptive" gradients come from a sample that
        grows until it is all (`DecreaseTest`), which value and ratio then share. "adaptive" Hessians are, for 4 dim^2 <= n and
        adaptive gradients, averages over the small samples of all iterations, corrected by the changes of the gradient; else a
        tenth of the gradient's sample. Where that converges slowly when the gradient's sample is all terms, so becomes the
        Hessian's.
    function_sample : {None, "all", "gradient"}
        What decides on steps: values of all terms, or of the gradient's sample. None: "gradient" where that sample grows.
    sampling : {"uniform", "row-norm", "leverage"}
        How the Hessian's terms are drawn; probabilities proportional to |f_i''| ||a_i||^2, or to |f_i''| times the leverage
        score.
    gtol, htol : float
        Absolute. htol None: sqrt(gtol); inf: curvature is not looked at.
    maxiter : int
        Trial points.
    max_props, max_time : float
        Passes over terms; seconds. The run ends at the first iteration after; where F is not known to be convex, min_eig is
        then still found.
    callback : callable
        Called after every iteration with a MinimizeResult of x, fun, jac, grad_norm, nit, props; may raise StopIteration. Its
        vectors are NumPy arrays.
    verbose : int
        1: the end; 2: a line per iteration.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `seed` of the result replays the run.

    Returns
    -------
    MinimizeResult

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments.

    Warns
    -----
    MinimizeWarning
        Where the run ends without success, but by the callback.
    """
    limit = _check.integer(maxiter, "maxiter", 0)
    most_props = math.inf if max_props is None else _check.real(max_props, "max_props")
    most_time = math.inf if max_time is None else _check.real(max_time, "max_time")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable or None; got {callback!r}")
    verbose = _check.integer(verbose, "verbose", 0, 2)
    stepper = Stepper(
        problem,
        method,
        gradient_sample=gradient_sample,
        hessian_sample=hessian_sample,
        function_sample=function_sample,
        sampling=sampling,
        gtol=gtol,
        htol=htol,
        rng=rng,
    )
    run = stepper.init(x0)
    table = _Table(run) if verbose == 2 else None
    while run.status is None:
        before = run.iteration
        # A point is first asked whether it ends the run: limits are for what comes after.
        if before >= limit:
            run.settle()
            run.status = run.status or MinimizeStatus.ITERATION_LIMIT
            break
        run.advance()
        if run.iteration == before:
            continue
        if table:
            table.line()
        if callback is not None:
            try:
                callback(_state(run))
            except StopIteration:
                run.status = MinimizeStatus.STOPPED
        if run.status is None and run.counts.props > most_props:
            run.status = MinimizeStatus.PROPS_LIMIT
        if run.status is None and time.perf_counter() - run.started > most_time:
            run.status = MinimizeStatus.TIME_LIMIT
    result = stepper.result(run)
    if verbose:
        print(f"{result.message} {result.nit} iterations, {result.props / problem.n:.4g} n props, F = {result.fun:.10g}")
    if not result.success and result.status is not MinimizeStatus.STOPPED:
        warnings.warn(result.message, MinimizeWarning, stacklevel=2)
    return result


class Stepper:
    """The loop of `minimize` one trial point at a time, for authors of other optimizers.

    `state = stepper.init(x0)`, then `stepper.step(state)` until `state.status` is not None; `state.x`, `state.fun`,
    `state.grad_norm`, `state.size` (radius or sigma), `state.counts` and `state.history` say where it stands, and
    `stepper.result(state)` makes the MinimizeResult. Arguments are those of `minimize`. `state.x` is a NumPy array.
    """

    def __init__(
        self,
        problem: FiniteSum,
        method: Any = "trust-region",
        *,
        gradient_sample: Any = None,
        hessian_sample: Any = None,
        function_sample: str | None = None,
        sampling: str = "uniform",
        gtol: float = 1e-6,
        htol: float | None = None,
        rng: Any = None,
    ):
        if not isinstance(problem, FiniteSum):
            raise TypeError(f"problem must be a FiniteSum, such as GLM or from_callables(...); got {type(problem).__name__}")
        if sampling not in ("uniform", "row-norm", "leverage"):
            raise ValueError(f"sampling must be 'uniform', 'row-norm' or 'leverage'; got {sampling!r}")
        if function_sample not in (None, "all", "gradient"):
            raise ValueError(f"function_sample must be None, 'all' or 'gradient'; got {function_sample!r}")
        self.problem, self.method = problem, _method(method)
        gtol = _check.real(gtol, "gtol")
        htol = math.sqrt(gtol) if htol is None else math.inf if htol == math.inf else _check.real(htol, "htol")
        gradient, hessian = (
            as_rule(gradient_sample, problem.n, "gradient_sample"),
            as_rule(hessian_sample, problem.n, "hessian_sample"),
        )
        nested = isinstance(gradient, _NESTED) and function_sample != "all"
        for rule, name in ((gradient, "gradient_sample"), (hessian, "hessian_sample")):
            if not problem.has_variances and any("variance" in need or need == "bound" for need in rule.needs):
                raise ValueError(
                    f"{name} must be a number or None for a {type(problem).__name__}, which does not know its terms; got {rule}"
                )
        if sampling != "uniform" and not problem.has_variances:
            raise ValueError(f"sampling must be 'uniform' for a {type(problem).__name__}; got {sampling!r}")
        averaged = (
            hessian_sample == "adaptive" and nested and sampling == "uniform" and averages_pay(problem.n, problem.dim)
        ) and self.method.by_model
        self.settings = Settings(
            method=self.method,
            gradient_rule=gradient,
            hessian_rule=None if averaged else hessian,
            function_on_sample=nested or function_sample == "gradient",
            nested=nested,
            scheme=sampling,
            patient=hessian_sample == "adaptive" and nested,
            gtol=gtol,
            htol=htol,
            failure=_FAILURE,
            seed=_check.seed(rng),
        )

    def init(self, x0: Any) -> Run:
        """The state at x0."""
        x = _check.real_array(parameters(x0, self.problem.home), "x0")
        if x.ndim != 1 or not len(x) or (self.problem.dim is not None and len(x) != self.problem.dim):
            raise ValueError(f"x0 must have shape ({'dim' if self.problem.dim is None else self.problem.dim},); got {x.shape}")
        _check.finite(x, "x0")
        return Run(self.problem, np.array(x, np.float64), self.settings)

    def step(self, state: Run) -> Run:
        """One trial point; the state itself, changed."""
        state.advance()
        return state

    def result(self, state: Run) -> MinimizeResult:
        """What the run has reached. Where F is not known to be convex, min_eig is found now, by products that count."""
        status = state.status if state.status is not None else MinimizeStatus.ITERATION_LIMIT
        value, error = _curvature(state)
        result = _state(state)
        result.update(
            x=like(state.problem.home, result.x),
            jac=like(state.problem.home, result.jac),
            min_eig=value,
            min_eig_error=error,
            status=status,
            message=status.value,
            success=status.success,
            seed=self.settings.seed,
            history=state.history,
        )
        return result


def _curvature(run: Run) -> tuple[float, float]:
    if run.problem.convex:
        return run.problem.curvature_bound, 0.0
    if run.bound is None and run.status is not MinimizeStatus.NOT_FINITE and math.isfinite(run.settings.htol):
        run.certify()
    return (math.nan, math.inf) if run.bound is None else (run.bound.value, run.bound.error)


def _state(run: Run) -> MinimizeResult:
    counts = run.counts
    return MinimizeResult(
        x=run.x.copy(),
        fun=run.fun,
        jac=run.at.grad.copy(),
        grad_norm=run.grad_norm,
        nit=run.iteration,
        props=counts.props,
        nfev=counts.nfev,
        njev=counts.njev,
        nhev=counts.nhev,
    )


def _method(value: Any) -> Any:
    if isinstance(value, str):
        if value not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)} or a method object; got {value!r}")
        return METHODS[value]
    if not isinstance(value, TrustRegion | CubicRegularization | Newton | NewtonMR):
        raise TypeError(f"method must be one of {', '.join(METHODS)} or a method object; got {value!r}")
    return value


class _Table:
    """A line per iteration."""

    def __init__(self, run: Run):
        self.run = run
        print(
            f"{'iter':>5} {'props/n':>9} {'F':>16} {'||g||':>9} {run.settings.method.control:>9} {'|S_g|':>9} {'|S_H|':>9}"
            " ratio"
        )

    def line(self) -> None:
        entry, run = self.run.history[-1], self.run
        mark = "" if entry["accepted"] else "  rejected"
        print(
            f"{entry['iteration']:>5} {entry['props'] / run.problem.n:>9.3f} {entry['fun']:>16.9g} {entry['grad_norm']:>9.2e} "
            f"{run.size:>9.2e} {entry['gradient_sample']:>9} {entry['hessian_sample']:>9} {entry['ratio']:.3g}{mark}"
        )
