"""Line searches along a direction, and step lengths for damped Newton methods."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

Change = Callable[[float], float]  # t -> F(x + t p) - F(x); NaN and infinite values are rejected


@dataclasses.dataclass(frozen=True, slots=True)
class LineSearch:
    """What a search found.

    Attributes
    ----------
    step : float
        0: none was found.
    change : float
        F(x + step p) - F(x).
    evaluations : int
    constant : float
        Of `damped_newton`: the one to begin the next search with; else nan.
    """

    step: float
    change: float
    evaluations: int
    constant: float = math.nan


def backtracking(
    evaluate: Change,
    slope: float,
    *,
    rho: float = 1e-4,
    start: float = 1.0,
    slack: float = 0.0,
    maxiter: int = 60,
) -> LineSearch:
    """The first step t from `start` downwards with F(x + t p) - F(x) <= rho t slope + slack (Armijo 1966).

    t becomes the minimizer of the parabola through value, slope and trial value, kept within [0.1 t, 0.5 t]; half of t where
    the trial is not finite. At most `maxiter` evaluations; none where slope = g'p is not negative.

    slack : float
        The rounding error of `evaluate`, without which no step is accepted near a minimizer: that at t = 1. Of shorter steps it
        is t times as large, as a direction that is far too long would hide every increase otherwise.
    """
    t = start
    if not (slope < 0 and 0 < t < math.inf):
        return LineSearch(0.0, 0.0, 0)
    for evaluations in range(1, maxiter + 1):
        change = evaluate(t)
        if math.isfinite(change) and change <= rho * t * slope + min(t, 1.0) * slack:
            return LineSearch(t, change, evaluations)
        t *= _shorter(change, t * slope)
        if t == 0:
            return LineSearch(0.0, 0.0, evaluations)
    return LineSearch(0.0, 0.0, maxiter)


def forward_backward(
    evaluate: Change,
    slope: float,
    *,
    rho: float = 0.25,
    start: float = 1.0,
    factor: float = 2.0,
    slack: float = 0.0,
    maxiter: int = 60,
) -> LineSearch:
    """As `backtracking`, but from a `start` that meets the condition t grows by `factor` (Gould, Lucidi, Roma, Toint 2000).

    It grows while the condition is met and F falls. For directions of non-positive curvature, that have no natural length:
    `start` is the step found last. At most `maxiter` evaluations.
    """
    best = backtracking(evaluate, slope, rho=rho, start=start, slack=slack, maxiter=1)
    if not best.step:
        if not best.evaluations:
            return best
        found = backtracking(evaluate, slope, rho=rho, start=start / factor, slack=slack, maxiter=maxiter - 1)
        return dataclasses.replace(found, evaluations=found.evaluations + 1)
    evaluations = 1
    while evaluations < maxiter and factor * best.step < math.inf:
        t = factor * best.step
        change = evaluate(t)
        evaluations += 1
        if not (-math.inf < change < best.change and change <= rho * t * slope + slack):
            break
        best = LineSearch(t, change, evaluations)
    return dataclasses.replace(best, evaluations=evaluations)


def aicn_step(decrement_sq: float, constant: float) -> float:
    """Step (-1 + sqrt(1 + 2 G)) / G, G = L sqrt(g'H^-1 g), of affine-invariant cubic Newton (Hanzely et al. 2022).

    It minimizes the bound F(x + a p) - F(x) <= -a m^2 + a^2 m^2 / 2 + L a^3 m^3 / 6, m^2 = g'H^-1 g and p = -H^-1 g, that holds
    for semi-strongly self-concordant F with constant L: |p'(H(y) - H(x)) p| <= L ||y - x||_x ||p||_x^2, in the norm of H(x). F
    then falls by at least a m^2 / 2; for convex F the method converges as k^-2, and quadratically near a minimizer.

    decrement_sq : float
        g'H^-1 g, not negative.
    constant : float
        L, not negative.
    """
    G = constant * math.sqrt(decrement_sq)
    return 2 / (1 + math.sqrt(1 + 2 * G))


def root_newton_step(decrement_sq: float, q: float, constant: float) -> float:
    """Step 1 / (1 + theta), theta = (9 M (g'H^-1 g)^((q - 2) / 2))^(1 / (q - 1)) (Hanzely, Abdukhakimov, Takac 2024).

    For q in [2, 3], F with Hoelder continuous Hessian, whose gradient at y is within M ||y - x||_x^(q - 1) of its linear model
    in the dual norm of H(x), falls by at least step g'H^-1 g / 2. For convex F the paper shows k^-(q - 1), for q in (3, 4]
    under Hoelder continuous third derivatives, where that bound on the decrease is not shown.

    decrement_sq : float
        g'H^-1 g, not negative.
    q : float in [2, 4]
    constant : float
        M, not negative. (q = 3: half of the L of `aicn_step`.)
    """
    return 1 / (1 + _theta(decrement_sq, q, constant))


def damped_newton(
    evaluate: Change,
    decrement_sq: float,
    constant: float,
    *,
    q: float | None = None,
    rho: float = 0.25,
    slack: float = 0.0,
    maxiter: int = 60,
) -> LineSearch:
    """The step of `root_newton_step`, or for q = None of `aicn_step`, with a constant that adapts itself.

    A step a is taken if F falls by at least rho a g'H^-1 g - slack. Else the constant is doubled, or raised to where the step
    is half of the last one if that is more; after a step taken at once the next search begins at half of it. Since a constant
    that is true gives a decrease of a g'H^-1 g / 2, it is taken for rho <= 1/2, and the step found is at least half of the one
    of the true constant, unless the first constant was larger. At most `maxiter` evaluations; none where g'H^-1 g is not
    positive and finite.

    evaluate : t -> F(x - t H^-1 g) - F(x)
    """
    if not 0 < decrement_sq < math.inf:
        return LineSearch(0.0, 0.0, 0, constant)
    for evaluations in range(1, maxiter + 1):
        a = aicn_step(decrement_sq, constant) if q is None else root_newton_step(decrement_sq, q, constant)
        change = evaluate(a)
        if math.isfinite(change) and change <= -rho * a * decrement_sq + slack:
            return LineSearch(a, change, evaluations, constant / 2 if evaluations == 1 else constant)
        if a == 0:
            return LineSearch(0.0, 0.0, evaluations, constant)
        needed = _aicn_constant(decrement_sq, a / 2) if q is None else _root_newton_constant(decrement_sq, q, a / 2)
        if not needed < math.inf:
            break
        constant = max(2 * constant, needed)
    return LineSearch(0.0, 0.0, evaluations, constant)


def _shorter(change: float, linear: float) -> float:
    """Factor to the minimizer of the parabola through 0 of slope `linear` at 0 and `change` at 1, within [0.1, 0.5]."""
    if not math.isfinite(change) or not change > linear:
        return 0.5
    return min(max(-linear / (2 * (change - linear)), 0.1), 0.5)


def _theta(decrement_sq: float, q: float, constant: float) -> float:
    if constant == 0 or (decrement_sq == 0 and q > 2):
        return 0.0
    log = math.log(9) + math.log(constant)
    if q > 2:
        log += 0.5 * (q - 2) * math.log(decrement_sq)
    return math.exp(min(log / (q - 1), 700.0))


def _aicn_constant(decrement_sq: float, step: float) -> float:
    """The constant for which `aicn_step` is `step`, inf where that overflows."""
    return 2 * (1 - step) / step / step / math.sqrt(decrement_sq)


def _root_newton_constant(decrement_sq: float, q: float, step: float) -> float:
    theta = (1 - step) / step
    log = (q - 1) * math.log(theta) - math.log(9) - 0.5 * (q - 2) * math.log(decrement_sq)
    return math.exp(log) if log < 700 else math.inf
