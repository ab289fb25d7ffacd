"""The loop of `minimize`, one trial point at a time: what is sampled, the model, the trial, and what follows from it."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
from scipy.linalg.blas import dnrm2

from ._curvature import AveragedHessian, SampledHessian, look
from ._krylov import Model, Step
from ._samples import RowOrder
from .certificate import EigenBound, smallest_eigenvalue
from .methods import TrustRegion
from .objective import Counts, FiniteSum, Hessian, Ray, Sample, WindowSample
from .result import MinimizeStatus
from .sample_rules import Fixed, RuleState, SampleRule

_SAME_SAMPLE = 3  # rejections before a run on fresh samples draws others
_HOPELESS = 60  # rejections one after the other
_PATIENCE = 10  # iterations on all terms for a tenth of the gradient, before their Hessian is taken whole
_AT_ROUNDING = 5  # steps whose promised decrease is below rounding before a run that gains nothing by them ends

_Outcome = tuple[bool, float] | None  # accepted, and the ratio of decreases; None where no trial point could be made


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run was asked for, checked."""

    method: Any
    gradient_rule: SampleRule
    hessian_rule: SampleRule | None  # None: the average over iterations
    function_on_sample: bool
    nested: bool  # samples only grow
    scheme: str
    patient: bool  # the Hessian is a sample's even of all terms, as long as the run converges with it
    gtol: float
    htol: float
    failure: float
    seed: int


class Run:
    """The state of a run. `advance` makes one trial point; status is None until the run has ended."""

    def __init__(self, problem: FiniteSum, x0: np.ndarray, settings: Settings):
        self.problem, self.settings, self.counts = problem, settings, Counts()
        self.started = time.perf_counter()
        self.order = RowOrder(problem.n, settings.seed)
        rule, dim = settings.hessian_rule, len(x0)
        self.curvature = (
            AveragedHessian(self.order, dim)
            if rule is None
            else SampledHessian(rule, settings.scheme, self.order, settings.seed, dim)
        )
        self.rules = RuleState(n=problem.n, dim=dim)
        self.status: MinimizeStatus | None = None
        self.history: list[dict[str, Any]] = []
        self.iteration = self.rejections = self._draws = self._certificates = self._quiet = 0
        self.size = math.nan  # radius, sigma, or what a line search remembers
        self.model: Model | None = None
        self.bound: EigenBound | None = None  # of the Hessian of the terms of `base` at x
        self._escape: tuple[float, np.ndarray] | None = None
        self._radius = math.nan  # of the steps that leave saddle points, where the method has none
        self._hint: np.ndarray | None = None  # a vector of low curvature
        self._best_norm = math.inf
        self._norms: list[float] = []  # of the gradient, since the samples are all terms
        self._exact = False  # whether the run has lost patience with sampled Hessians
        self.rules.size = self.rules.first_size = self._clipped(settings.gradient_rule.next_size(self.rules))
        self._start(x0)
        self._first_norm = self.grad_norm

    # Where the run stands. `at` has the gradient; `base` the value that decides on steps.

    def _start(self, x: np.ndarray) -> None:
        sample = self._sample(self.rules.size)
        if self.settings.function_on_sample or sample is None:
            self.base = self.at = self.problem.at(x, sample, self.counts)
            self.at.grad  # noqa: B018  value and gradient in one pass
        else:
            self.base = self.problem.at(x, None, self.counts)
            self.base.fun  # noqa: B018  a sample of terms that were read takes no forward pass
            self.at = self.base.restricted(sample)
        self._measure()

    def _clipped(self, size: int) -> int:
        return min(max(size, 1), self.problem.n)

    def _sample(self, size: int) -> Sample | None:
        n = self.problem.n
        if size >= n:
            return None
        if self.settings.nested:
            return WindowSample(self.order, 0, size)
        start = self._draws if self._draws + size <= n else 0
        self._draws = start + size
        return WindowSample(self.order, start, start + size)

    def _measure(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            self.grad_norm = float(dnrm2(self.at.grad))
            finite = math.isfinite(self.grad_norm) and math.isfinite(self.base.fun)
        if not finite:
            self.status = MinimizeStatus.NOT_FINITE

    @property
    def x(self) -> np.ndarray:
        return self.base.x

    @property
    def fun(self) -> float:
        return self.base.fun

    # One trial.

    def advance(self) -> None:
        """Make one trial point."""
        if self.status is not None or not self._ready():
            return
        products = self.counts.nhev
        self.iteration += 1
        if self._escape is not None:
            outcome = self._leave_saddle()
        elif self.settings.method.by_model:
            outcome = self._try_model()
        else:
            outcome = self._search()
        if outcome is None:
            self.iteration -= 1
            return
        accepted, ratio = outcome
        if not accepted:
            self._after_rejection()
        self._record(accepted, ratio, self.counts.nhev - products)

    def settle(self) -> None:
        """End the run if the present point is what was asked for."""
        if self.status is None:
            self._ready()

    def _ready(self) -> bool:
        """Settle what the present point is; False where the run has ended."""
        if self.model is None and self._escape is None and self.grad_norm <= self.settings.gtol:
            if self.at.sample is None:
                return self._second_order()
            self._take_all()
            if self.grad_norm > self.settings.gtol and self._fixed:
                self.status = self.status or MinimizeStatus.SAMPLED
            return self.status is None and self._ready()
        if self._quiet >= _AT_ROUNDING:
            if self.at.sample is None or self._fixed:
                self.status = MinimizeStatus.STAGNATED
            else:
                self._take_all()
            return self.status is None and self._ready()
        return True

    def _take_all(self) -> None:
        """From a sample to all terms, for the rest of the run."""
        if self.settings.function_on_sample:
            self.base = self.at.enlarged(None)
        self.at = self.base
        self.rules.size = self.problem.n
        self._forget()
        self._quiet, self._best_norm = 0, math.inf
        self._measure()

    def _forget(self) -> None:
        """What was learned at another point or on another sample."""
        self.model = self._escape = self.bound = None
        self.rejections = 0

    def _second_order(self) -> bool:
        settings = self.settings
        if settings.htol == math.inf:
            self.status = MinimizeStatus.FIRST_ORDER
        elif self.problem.convex and self.problem.curvature_bound >= -settings.htol:
            self.status = MinimizeStatus.CONVERGED
        else:
            bound = self.certify()
            self._certificates += 1
            if not math.isfinite(bound.value):
                self.status = MinimizeStatus.NOT_FINITE
                return False
            self._hint = bound.vector
            if bound.value < -settings.htol:
                self._escape = bound.value, bound.vector
                if settings.method.convex_only:
                    self.status = MinimizeStatus.INDEFINITE
            elif bound.lower >= -settings.htol:
                self.status = MinimizeStatus.CONVERGED
            else:
                self.status = MinimizeStatus.UNCERTAIN
        return self.status is None

    def certify(self) -> EigenBound:
        """Bound the lowest curvature of the terms of `base` at x; these are all terms where the gradient was found small."""
        settings = self.settings
        tol = settings.htol if math.isfinite(settings.htol) else 0.0
        self.bound = smallest_eigenvalue(
            self.base.hessian(),
            len(self.x),
            tol=tol,
            failure=settings.failure,
            start=self._hint,
            index=self._certificates + 1,  # the hint depends on the vectors before
            rng=settings.seed,
        )
        return self.bound

    def _tell(self, **facts: Any) -> None:
        """Both rules of what they may look at."""
        if self.settings.method.control == "sigma":
            facts["sigma"] = self.size
        for state in (self.rules, self.curvature.state):
            for name, value in facts.items():
                setattr(state, name, value)

    def _hessian(self) -> Any:
        if self.settings.patient and self.at.sample is None and not self._exact:
            norms = self._norms
            norms.append(self.grad_norm)
            self._exact = len(norms) > _PATIENCE and norms[-1] > 0.1 * norms[-1 - _PATIENCE]
            if self._exact:
                self.curvature = SampledHessian(Fixed(1.0), "uniform", self.order, self.settings.seed, len(self.x))
        self._tell(iteration=self.iteration, grad_norm=self.grad_norm, gradient_size=self.at.size)
        H = self.curvature.at(self.at)
        if self._exact and self.settings.method.by_model and isinstance(H, Hessian) and H.dense_is_cheap:
            return H.to_dense()
        return H

    def _tolerance(self) -> float:
        forcing = self.settings.method.forcing
        if self.at.sample is not None or self.curvature.size < self.problem.n:
            return forcing
        return min(forcing, math.sqrt(self.grad_norm / self._first_norm) if self._first_norm else forcing)

    def _new_model(self) -> None:
        method, g = self.settings.method, self.at.grad
        H = self._hessian()
        if math.isnan(self.size):
            self.size = method.first(H, g, self.x)
        self.model = method.model(H, g, self._tolerance(), self._hint, self.settings.seed)

    def _try_model(self) -> _Outcome:
        method, g = self.settings.method, self.at.grad
        fresh = self.model is None
        if self.model is None:
            self._new_model()
        step = self._step(fresh)
        if fresh and step is not None and self.curvature.too_small_for(step.norm):
            self._new_model()
            step = self._step(fresh)
        if step is None:
            self.status = MinimizeStatus.NOT_FINITE
            return None
        if not step.decrease > 0 or self._stays(step.s):
            self._quiet = _AT_ROUNDING
            return False, -math.inf
        ray = self.base.ray(step.s)
        change = ray.change()
        ratio = self._ratio(change, step.decrease, ray)
        accepted = ratio >= method.accept
        self._tell(step_norm=step.norm, accepted=accepted)
        if self.rules.first_step_norm is None:
            self._tell(first_step_norm=step.norm)
        self.size = method.updated(self.size, ratio, step, float(g @ step.s), change)
        if accepted:
            self._move(ray)
        return accepted, ratio

    def _stays(self, s: np.ndarray) -> bool:
        """Whether a step is below rounding, so that a smaller one leads nowhere either."""
        return bool((self.x + s == self.x).all())

    def _step(self, grow: bool) -> Step | None:
        """The step of the model; None where no product of the Hessian was finite."""
        if self.model is None:
            return None
        step = self.settings.method.step(self.model, self.size, grow)
        known = step.decrease > 0 and math.isfinite(step.norm)
        return None if self.model.failed and not known else step

    def _ratio(self, change: float, promised: float, ray: Ray) -> float:
        """Decrease over promised decrease; both are taken as equal as far as rounding hides them."""
        if not math.isfinite(change):
            return -math.inf
        ratio = float(-change / promised)
        if ratio >= self.settings.method.accept and promised > 1e-12 * abs(self.base.fun):
            self._quiet = 0
            return ratio
        noise = float(ray.noise())
        if promised > noise:
            self._quiet = 0
            return (noise - change) / (noise + promised)
        # Only the gradient can tell whether such steps lead anywhere.
        self._quiet = 0 if self.grad_norm < 0.9 * self._best_norm else self._quiet + 1
        self._best_norm = min(self._best_norm, self.grad_norm)
        return (noise - change) / (noise + promised) if change <= 2 * noise else -math.inf

    def _search(self) -> _Outcome:
        method, g = self.settings.method, self.at.grad
        p, negative = method.direction(self._hessian(), g, self._tolerance())
        if p is None:
            self.status = MinimizeStatus.INDEFINITE
            return None
        if not np.isfinite(p).all():
            self.status = MinimizeStatus.NOT_FINITE
            return None
        norm = float(dnrm2(p))
        if negative and norm > 0:
            # Of the length that the last search found, whatever the unit of F.
            p = p / norm
            norm = 1.0
        slope, ray = float(g @ p), self.base.ray(p)
        memory = method.first(self.x) if math.isnan(self.size) else self.size
        # The slope on another sample than that of the values is wrong by more than rounding.
        noise = float(ray.noise()) if self.at is self.base else 0.0
        found = method.search(ray, slope, negative, memory, noise)
        if not found.step or self._stays(found.step * p):
            self._quiet = _AT_ROUNDING if found.step else self._quiet
            self._tell(accepted=False)
            return False, -math.inf
        norm *= found.step
        self.size = norm if math.isnan(found.constant) else found.constant
        ratio = self._ratio(found.change, -slope * found.step, ray)
        self._tell(step_norm=norm, accepted=True)
        if self.rules.first_step_norm is None:
            self._tell(first_step_norm=norm)
        self._move(ray, found.step)
        return True, ratio

    def _leave_saddle(self) -> _Outcome:
        """Step along a direction of negative curvature: the gradient is too small to choose its sign, so both are tried."""
        assert self._escape is not None
        by_model, (curvature, v) = self.settings.method.by_model, self._escape
        method = self.settings.method if by_model else TrustRegion()
        size = self.size if by_model else self._radius
        if math.isnan(size):
            size = method.first(self.base.hessian(), curvature * v, self.x)
        length, promised = method.along_curvature(curvature, size)
        rays = [self.base.ray(sign * length * v) for sign in (1.0, -1.0)]
        changes = [ray.change() for ray in rays]
        best = int(changes[1] < changes[0] or math.isnan(changes[0]))
        ray, change = rays[best], changes[best]
        ratio = self._ratio(change, promised, ray)
        step = Step(ray.p, promised, -0.5 * curvature * length * length, 0.0, True, 0.0, curvature, length, True, True)
        size = method.updated(size, ratio, step, float(self.at.grad @ step.s), change)
        if by_model:
            self.size = size
        else:
            self._radius = size
        accepted = ratio >= method.accept
        if accepted:
            self._tell(step_norm=length, accepted=True)
            self._move(ray)
        elif self._stays(ray.p):
            self._quiet = _AT_ROUNDING
        return accepted, ratio

    # Samples for the point that was reached.

    def _move(self, ray: Ray, t: float = 1.0) -> None:
        """Take the step, and the samples that the next one asks for."""
        there, before, settings = ray.accept(t), self.at, self.settings
        self._forget()
        self._tell(decrease=ray.decrease, decrease_variance=ray.variance)
        known = settings.function_on_sample or before.sample is None
        if known:
            # Before the sample changes: the change of the gradient of the same terms.
            self.curvature.learn(there, t * ray.p, there.grad - before.grad)
        self.base = self.at = there
        if before.sample is None:
            self._measure()
        elif settings.nested:
            size = self._asked()
            if size > there.size:
                self.base = self.at = there.enlarged(self._sample(size))
            self._measure()
        else:
            # A rule that looks at the terms can be asked only where their gradients are known.
            self._draw(self._asked(known) if known or not self._looks else self.rules.size)

    @property
    def _fixed(self) -> bool:
        """Whether the size of the sample was asked for, so that it is not the run's to change."""
        return isinstance(self.settings.gradient_rule, Fixed)

    @property
    def _looks(self) -> bool:
        """Whether the rule measures the terms of a sample."""
        needs = self.settings.gradient_rule.needs
        return "bound" in needs or any("gradient" in need or "product" in need for need in needs)

    def _asked(self, known: bool = True) -> int:
        """The size that the rule of the gradient asks for; `known`: `at` has the gradient of the present sample."""
        rule, state = self.settings.gradient_rule, self.rules
        self._tell(iteration=self.iteration, grad_norm=float(dnrm2(self.at.grad)) if known else self.grad_norm)
        if known:
            look(self.at, rule, state, "gradient")
        if state.previous_grad_norm is None:
            state.previous_grad_norm = state.grad_norm
        size = self._clipped(rule.next_size(state))
        if size != state.size:
            state.previous_grad_norm = state.grad_norm
        state.size = size
        return size

    def _draw(self, size: int) -> None:
        """A fresh sample, and larger ones as long as the rule asks for them having seen the last."""
        self.rules.size = size
        while True:
            sample = self._sample(size)
            if self.settings.function_on_sample:
                self.base = self.at = self.problem.at(self.x, sample, self.counts)
                self.at.grad  # noqa: B018  value and gradient in one pass
            else:
                self.at = self.base if sample is None else self.base.restricted(sample)
            self._measure()
            if self.status is not None or sample is None or not self._looks:
                return
            size = self._asked()
            if size <= sample.size:
                self.rules.size = sample.size
                return

    def _after_rejection(self) -> None:
        self.rejections += 1
        sampled, patient = self.at.sample is not None, self.settings.method.by_model or self._escape is not None
        if sampled and not self.settings.nested and (self.rejections % _SAME_SAMPLE == 0 or not patient):
            size = self._asked()
            if self._looks:
                # What such a rule saw of the terms did not tell that they say little of F.
                size = max(size, 2 * self.at.size)
            self._forget()
            self._draw(self._clipped(size))
        elif self.rejections >= _HOPELESS or not patient:
            if sampled:
                self._take_all()
            else:
                self.status = MinimizeStatus.STAGNATED

    def _record(self, accepted: bool, ratio: float, products: int) -> None:
        self.history.append(
            {
                "iteration": self.iteration,
                "props": self.counts.props,
                "time": time.perf_counter() - self.started,
                "fun": self.fun,
                "grad_norm": self.grad_norm,
                self.settings.method.control: self.size,
                "gradient_sample": self.at.size,
                "hessian_sample": self.curvature.size,
                "ratio": ratio,
                "accepted": accepted,
                "products": products,
            }
        )
