"""How many terms of a finite sum to sample: a bound for a given error, and rules by which samples grow during a run."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, ClassVar

from .. import _check

# P(error >= delta) <= D exp(-s delta^2 / (quadratic bound^2 + linear bound delta)) for s terms, D = 2 dim or dim + 1.
_CONSTANTS = {
    ("bernstein", "uniform"): (2.0, 4 / 3),
    ("bernstein", "row-norm"): (2.0, 4 / 3),
    ("sarc2020", "uniform"): (8.0, 4 / 3),
    ("xu2017", "uniform"): (16.0, 0.0),
    ("xu2017", "row-norm"): (4.0, 0.0),
}


def sample_size(
    delta: float,
    bound: float,
    dim: int,
    failure: float = 0.01,
    *,
    n: int | None = None,
    kind: str = "hessian",
    scheme: str = "uniform",
    constants: str = "bernstein",
) -> int:
    """Terms to sample so that the mean of a sample is within delta of the mean of all.

    With probability at least 1 - failure, ||H_S - H||_2 <= delta for Hessians and ||g_S - g||_2 <= delta for gradients, if
    s >= (2 bound^2 / delta^2 + 4 bound / (3 delta)) log(D / failure): the matrix Bernstein inequality (Tropp 2015, Corollary
    6.2.1), D = 2 dim for Hessians and dim + 1 for gradients. Proved, and pessimistic: `NormTest` measures instead.

    Parameters
    ----------
    delta : float
        Error allowed, > 0, in the unit of `bound`.
    bound : float
        "uniform": the largest ||hess f_i|| or ||grad f_i||; "row-norm": their mean.
    dim : int
    failure : float
        In (0, 1).
    n : int
        Number of terms. The result is then at most n, and for "uniform" it is the size of a sample without replacement, for
        which the inequality holds too (Gross, Nesme 2010). It also holds for the n - s terms left out, whose mean errs by
        s / (n - s) times as much; that saves terms as s nears n.
    kind : {"hessian", "gradient"}
    scheme : {"uniform", "row-norm"}
        "row-norm": with replacement, p_i proportional to ||hess f_i|| or ||grad f_i||, weights 1 / (s n p_i).
    constants : {"bernstein", "sarc2020", "xu2017"}
        Published forms for comparison, all larger. Bellavia, Gurioli (2020, eq. 4.56): (8, 4/3) in place of (2, 4/3), only
        "uniform". Xu, Roosta, Mahoney (2017, Lemmas 16 and 17): 16 bound^2 / delta^2 for "uniform" and, for delta <= bound,
        4 bound^2 / delta^2 for "row-norm".

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError where the size overflows and n is not given.
    """
    delta, bound = _check.real(delta, "delta", strict=True), _check.real(bound, "bound")
    dim = _check.integer(dim, "dim", 1)
    failure = _check.real(failure, "failure", strict=True)
    if failure >= 1:
        raise ValueError(f"failure must be less than 1; got {failure:g}")
    n = None if n is None else _check.integer(n, "n", 1)
    if kind not in ("hessian", "gradient"):
        raise ValueError(f"kind must be 'hessian' or 'gradient'; got {kind!r}")
    if (constants, scheme) not in _CONSTANTS:
        known = ", ".join(f"{c} with {s}" for c, s in _CONSTANTS)
        raise ValueError(f"constants and scheme must be one of {known}; got {constants!r} with {scheme!r}")
    quadratic, linear = _CONSTANTS[constants, scheme]
    ratio, log = bound / delta, math.log(2 * dim if kind == "hessian" else dim + 1) - math.log(failure)
    a, b = quadratic * log * ratio * ratio, linear * log * ratio
    size = a + b
    if n is not None and scheme == "uniform" and size < math.inf:
        # The terms left out suffice if s^2 + (a - b) s - a n >= 0.
        half = (a - b) / 2
        root = math.hypot(half, math.sqrt(a) * math.sqrt(n))
        size = min(size, a / (half + root) * n if half > 0 else root - half)
    if n is None and not math.isfinite(size):
        raise ValueError(f"delta must not be so small against bound that the size overflows; got {delta:g} and {bound:g}")
    return _whole(size, n)


@dataclasses.dataclass(slots=True, kw_only=True)
class RuleState:
    """What a rule may look at. Everything but n and dim has a value that means "not known".

    Attributes
    ----------
    n, dim : int
        Terms of the sum; unknowns.
    size : int
        Present size of this sample; 0 asks for the first.
    first_size : int
        Size of the first sample.
    gradient_size : int
        Present size of the gradient sample, the new one where it was just chosen.
    iteration : int
    grad_norm : float
        ||g|| at x, on the gradient sample.
    previous_grad_norm : float or None
        ||g|| when this size was last changed; at first, that of the first iteration.
    step_norm, first_step_norm : float or None
        ||s|| of the last trial step and of the first one; None before there was one.
    accepted : bool or None
        Whether the last trial step was accepted.
    gradient_variance : float
        (1/|S|) sum_i ||grad f_i||^2 - ||g||^2 at x, the trace of their covariance; nan if unknown.
    decrease, decrease_variance : float
        Mean of the decreases of the f_i by the last step taken, and their variance.
    inner_product_variance : float
        Variance of <grad f_i, g>; nan if unknown.
    sigma : float
        Weight of the cubic term.
    bound : float
        Largest ||hess f_i|| or ||grad f_i|| at x, as the rule's kind asks.
    """

    n: int
    dim: int
    size: int = 0
    first_size: int = 0
    gradient_size: int = 0
    iteration: int = 0
    grad_norm: float = math.nan
    previous_grad_norm: float | None = None
    step_norm: float | None = None
    first_step_norm: float | None = None
    accepted: bool | None = None
    gradient_variance: float = math.nan
    inner_product_variance: float = math.nan
    decrease: float = math.nan
    decrease_variance: float = math.nan
    sigma: float = math.nan
    bound: float = math.nan

    def __post_init__(self) -> None:
        # A numpy scalar would warn where a float overflows to infinity, which the rules expect.
        for name in _MEASURED:
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, float(value))


_MEASURED = tuple(f.name for f in dataclasses.fields(RuleState) if "float" in str(f.type))


class SampleRule:
    """Base of the rules: a frozen value with `next_size(state) -> int`, between 1 and state.n.

    `needs` names the fields of the state that the rule cannot do without: a problem that does not know them is not suited.
    Where one of them is NaN or infinite all the same, there is no evidence that a sample suffices, and the size is n.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def next_size(self, state: RuleState) -> int:
        """Size of the sample for the next step; for state.size = 0, of the first sample."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Fixed(SampleRule):
    """Always `size` terms, or this fraction of them; at most n.

    size : int, at least 1, or float in (0, 1]
    """

    size: int | float

    def __post_init__(self) -> None:
        _check_share(self.size, "size")

    def next_size(self, state: RuleState) -> int:
        return _rows(self.size, state.n)


@dataclasses.dataclass(frozen=True)
class FractionOf(SampleRule):
    """A fraction of the gradient sample, at least `least` terms: for the Hessian (Byrd, Chin, Neveitt, Nocedal 2011).

    fraction : float in (0, 1]
    least : int
    """

    fraction: float = 0.2
    least: int = 1

    def __post_init__(self) -> None:
        _check_fraction(self.fraction, "fraction")
        _check.integer(self.least, "least", 1)

    def next_size(self, state: RuleState) -> int:
        return _whole(max(self.fraction * (state.gradient_size or state.n), self.least), state.n)


@dataclasses.dataclass(frozen=True)
class NormTest(SampleRule):
    """Grow while the sampling error of the gradient exceeds theta ||g|| (Byrd, Chin, Nocedal, Wu 2012).

    The sample of size s is kept while V / s <= theta^2 ||g||^2, V the variance of the gradients of its terms. Else the next
    size is ceil(V / (theta ||g||)^2), at most growth_limit s: a step that minimizes on the sample makes ||g|| as small as one
    likes, so that the test alone would ask for all terms at once.

    theta : float, > 0
    first : int, at least 1, or float in (0, 1]
    growth_limit : float, > 1
    """

    theta: float = 0.5
    first: int | float = 0.01
    growth_limit: float = 4.0
    needs: ClassVar[tuple[str, ...]] = ("gradient_variance",)

    def __post_init__(self) -> None:
        _check.real(self.theta, "theta", strict=True)
        _check_share(self.first, "first")
        _check_factor(self.growth_limit, "growth_limit")

    def next_size(self, state: RuleState) -> int:
        if not state.size:
            return _rows(self.first, state.n)
        if not _finite(state.gradient_variance, state.grad_norm):
            return state.n
        error = self.theta * state.grad_norm
        return _grown(_ratio(state.gradient_variance, error, error), self.growth_limit, state)


@dataclasses.dataclass(frozen=True)
class DecreaseTest(SampleRule):
    """Grow by a factor, and faster where the decrease that a step brought is not certain to be one of the whole sum.

    The decreases D_i of the terms by the step taken on a sample of size s have mean D and variance V; over all n terms the mean
    is D up to an error of variance (1/s - 1/n) V. Since the step was fitted to the sample in dim directions, D^2 shall be at
    least dim times that, which takes 1 / (D^2 / (dim V) + 1/n) terms. The next size is the larger of this, at most
    growth_limit s, and growth s; all terms where it exceeds 0.7 n.

    growth : float, > 1
    first : int, at least 1, or float in (0, 1]
        And at least 10 dim terms.
    growth_limit : float, > 1
    """

    growth: float = 1.5
    first: int | float = 0.01
    growth_limit: float = 4.0
    needs: ClassVar[tuple[str, ...]] = ("decrease_variance",)

    def __post_init__(self) -> None:
        _check_factor(self.growth, "growth")
        _check_share(self.first, "first")
        _check_factor(self.growth_limit, "growth_limit")

    def next_size(self, state: RuleState) -> int:
        n, size = state.n, state.size
        if not size:
            return min(max(_rows(self.first, n), 10 * state.dim), n)
        wanted = self.growth * size
        if not _finite(state.decrease, state.decrease_variance):
            wanted = n
        elif state.decrease_variance > 0:
            share = max(state.decrease, 0.0) ** 2 / (state.dim * state.decrease_variance)
            wanted = max(wanted, min(1 / (share + 1 / n), self.growth_limit * size))
        return n if wanted > 0.7 * n else math.ceil(wanted)


@dataclasses.dataclass(frozen=True)
class InnerProductTest(SampleRule):
    """Grow while the sampling error spoils -g as a descent direction (Bollapragada, Byrd, Nocedal 2018).

    The sample of size s is kept while var <grad f_i, g> / s <= theta^2 ||g||^4 and, for the part of grad f_i orthogonal to g,
    of variance W = V - var <grad f_i, g> / ||g||^2, W / s <= nu^2 ||g||^2. Else the next size is the smallest that meets both,
    at most growth_limit s. Weaker than `NormTest`: nu is large.

    theta, nu : float, > 0
    first : int, at least 1, or float in (0, 1]
    growth_limit : float, > 1
    """

    theta: float = 0.9
    nu: float = 5.84
    first: int | float = 0.01
    growth_limit: float = 4.0
    needs: ClassVar[tuple[str, ...]] = ("gradient_variance", "inner_product_variance")

    def __post_init__(self) -> None:
        _check.real(self.theta, "theta", strict=True)
        _check.real(self.nu, "nu", strict=True)
        _check_share(self.first, "first")
        _check_factor(self.growth_limit, "growth_limit")

    def next_size(self, state: RuleState) -> int:
        if not state.size:
            return _rows(self.first, state.n)
        g = state.grad_norm
        if not _finite(state.gradient_variance, state.inner_product_variance, g):
            return state.n
        along = _ratio(state.inner_product_variance, g, g)
        across = state.gradient_variance - along
        wanted = _ratio(along, self.theta * g, self.theta * g)
        if across > 0:  # else zero, up to rounding
            wanted = max(wanted, _ratio(across, self.nu * g, self.nu * g))
        return _grown(wanted, self.growth_limit, state)


@dataclasses.dataclass(frozen=True)
class GradientChange(SampleRule):
    """Grow by a factor when ||g|| has fallen by it since the last change, shrink when it has risen (Yao et al. 2018).

    Sizes stay between `low` and `high`. The rule of their experiments as described in the paper: there the code grows twice,
    past the upper limit, and in one version grows where it should shrink.

    factor : float, > 1
    low, high : int, at least 1, or float in (0, 1]; None
        By default a fifth of the first size, and n.
    first : int, at least 1, or float in (0, 1]
    """

    factor: float = 1.2
    low: int | float | None = None
    high: int | float | None = None
    first: int | float = 0.05
    needs: ClassVar[tuple[str, ...]] = ("grad_norm",)

    def __post_init__(self) -> None:
        _check_factor(self.factor, "factor")
        _check_share(self.first, "first")
        for value, name in ((self.low, "low"), (self.high, "high")):
            if value is not None:
                _check_share(value, name)

    def next_size(self, state: RuleState) -> int:
        n = state.n
        if not state.size:
            return _rows(self.first, n)
        now, before = state.grad_norm, state.previous_grad_norm
        if not math.isfinite(now):
            return n
        size = state.size
        if before is not None and now < before / self.factor:
            size = math.ceil(size * self.factor)
        elif before is not None and now > before * self.factor:
            size = math.floor(size / self.factor)
        low = max(1, state.first_size // 5) if self.low is None else _rows(self.low, n)
        return max(low, min(size, n if self.high is None else _rows(self.high, n)))


@dataclasses.dataclass(frozen=True)
class StepRule(SampleRule):
    """Sizes that grow as the steps shrink, first size times (||s_first|| / ||s||)^power (Kohler, Lucchi 2017).

    At least the first size; `growth` times the present size after a rejected step. The theory asks for c log(d) / ||s||^power,
    with power 2 for Hessians and 4 for gradients; as in the authors' code the first step sets the constant c.

    first : int, at least 1, or float in (0, 1]
    growth : float, > 1
    power : {2, 4}
    """

    first: int | float = 0.05
    growth: float = 1.25
    power: int = 2
    needs: ClassVar[tuple[str, ...]] = ("step_norm", "first_step_norm")

    def __post_init__(self) -> None:
        _check_share(self.first, "first")
        _check_factor(self.growth, "growth")
        if self.power not in (2, 4):
            raise ValueError(f"power must be 2 or 4; got {self.power!r}")

    def next_size(self, state: RuleState) -> int:
        first = state.first_size or _rows(self.first, state.n)
        if not state.size:
            return first
        if state.accepted is False:
            return _whole(self.growth * state.size, state.n)
        if state.step_norm is None or state.first_step_norm is None:
            return state.size
        if not _finite(state.step_norm, state.first_step_norm):
            return state.n
        square = _ratio(state.first_step_norm * state.first_step_norm, state.step_norm, state.step_norm)
        return max(first, _whole(first * square * (square if self.power == 4 else 1), state.n))


@dataclasses.dataclass(frozen=True)
class DynamicAccuracy(SampleRule):
    """Sizes for the accuracies that adaptive cubic regularization needs (Bellavia, Gurioli 2020).

    kind "hessian": first after no step or one with ||s|| >= 1, `first` terms; else as many as give the Hessian to alpha (1 -
    beta) ||g||. Where ||s|| < 1 and the size asked for exceeds that used, the method rejects the step and samples anew. kind
    "gradient": as many as give the gradient to kappa (1 - beta)^2 (||g|| / sigma)^2, at least `first`; since ||g|| is that of
    the sample, ask again until the size no longer grows.

    Both by eq. (4.56) there, `sample_size(..., constants="sarc2020")`, whose pessimism this rule inherits.

    kind : {"hessian", "gradient"}
    alpha, kappa : float, > 0
    beta, failure : float in (0, 1)
    first : int, at least 1, or float in (0, 1]; None
        By default 0.1 for Hessians and 0.4 for gradients.
    """

    kind: str = "hessian"
    alpha: float = 0.1
    beta: float = 0.5
    kappa: float = 1.0
    failure: float = 0.2
    first: int | float | None = None
    needs: ClassVar[tuple[str, ...]] = ("grad_norm", "bound")

    def __post_init__(self) -> None:
        if self.kind not in ("hessian", "gradient"):
            raise ValueError(f"kind must be 'hessian' or 'gradient'; got {self.kind!r}")
        _check.real(self.alpha, "alpha", strict=True)
        _check.real(self.kappa, "kappa", strict=True)
        for value, name in ((self.beta, "beta"), (self.failure, "failure")):
            if _check.real(value, name, strict=True) >= 1:
                raise ValueError(f"{name} must be less than 1; got {value:g}")
        if self.first is not None:
            _check_share(self.first, "first")

    def next_size(self, state: RuleState) -> int:
        hessian = self.kind == "hessian"
        default = 0.1 if hessian else 0.4
        first = state.first_size or _rows(default if self.first is None else self.first, state.n)
        if not state.size or (hessian and (state.step_norm is None or state.step_norm >= 1)):
            return first
        if hessian:
            delta = self.alpha * (1 - self.beta) * state.grad_norm
        else:
            if state.sigma == 0 and state.grad_norm > 0:  # without a cubic term nothing is asked of the gradient
                return first
            ratio = (1 - self.beta) * _ratio(state.grad_norm, state.sigma)
            delta = self.kappa * ratio * ratio
        if not (0 < delta < math.inf and math.isfinite(state.bound)):
            return state.n
        size = sample_size(delta, state.bound, state.dim, self.failure, n=state.n, kind=self.kind, constants="sarc2020")
        return size if hessian else max(size, first)


def as_rule(value: Any, n: int, name: str) -> SampleRule:
    """The rule that an argument `gradient_sample` or `hessian_sample` stands for.

    value : None, int, float, "adaptive" or SampleRule
        All terms; so many; this fraction of them; `DecreaseTest()` for "gradient_sample" and `FractionOf(0.1)` for
        "hessian_sample"; a rule itself.

    Raises
    ------
    TypeError, ValueError
        For anything else; they name the argument.
    """
    if value is None:
        return Fixed(1.0)
    if isinstance(value, SampleRule):
        return value
    if isinstance(value, str):
        if value != "adaptive":
            raise ValueError(f"{name} must be 'adaptive' where it is a string; got {value!r}")
        return FractionOf(0.1) if name == "hessian_sample" else DecreaseTest()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be None, an integer, a fraction, 'adaptive' or a SampleRule; got {value!r}")
    if isinstance(value, numbers.Integral):
        return Fixed(_check.integer(value, name, 1, n))
    _check_fraction(value, name)
    return Fixed(float(value))


def _check_fraction(value: Any, name: str) -> None:
    if _check.real(value, name, strict=True) > 1:
        raise ValueError(f"{name} must be a fraction, at most 1; got {value:g}")


def _check_share(value: Any, name: str) -> None:
    """A number of terms or a fraction of them: 1 is one term, 1.0 all of them."""
    if isinstance(value, numbers.Integral):
        _check.integer(value, name, 1)
    else:
        _check_fraction(value, name)


def _check_factor(value: Any, name: str) -> None:
    _check.real(value, name, low=1.0, strict=True)


def _rows(share: int | float, n: int) -> int:
    return min(int(share), n) if isinstance(share, numbers.Integral) else _whole(share * n, n)


def _whole(size: float, n: int | None) -> int:
    """The size rounded up to an integer between 1 and n; NaN and infinity give n."""
    if n is not None and not size < n:
        return n
    # 1e-12: 0.07 * 100 is 7, not 8.
    return max(1, math.ceil(size * (1 - 1e-12)))


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


def _ratio(value: float, *divisors: float) -> float:
    """Divided by one divisor after the other, so that no product of them underflows; 0 / 0 = 0."""
    for d in divisors:
        value = value / d if d else (math.inf if value else 0.0)
    return value


def _grown(wanted: float, limit: float, state: RuleState) -> int:
    """The size wanted, not below the present one and at most `limit` times it."""
    if wanted <= state.size:
        return min(state.size, state.n)
    return _whole(min(wanted, limit * state.size), state.n)
