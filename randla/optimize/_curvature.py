"""Where a run takes its Hessians from: the terms of a sample, all terms, or an average over the samples of many iterations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._backend import to_host
from ._samples import RowOrder, draw_rows
from .objective import Evaluation, Sample, WindowSample
from .sample_rules import DynamicAccuracy, RuleState, SampleRule

_DENSE_SHARE = 4  # averages are kept where this many dim^2 are no more than the terms
_FORGET = 0.9  # weight of what is known, per iteration


def look(point: Any, rule: SampleRule, state: RuleState, kind: str) -> None:
    """Measure what a rule needs of the terms at a point."""
    if any("variance" in need for need in rule.needs):
        state.gradient_variance, state.inner_product_variance = map(
            float, point.variances("inner_product_variance" in rule.needs)
        )
    if "bound" in rule.needs:
        if kind == "hessian":
            state.bound = float(point.importance("row-norm").max())
        else:
            state.bound = math.sqrt(float(point.gradient_squares().max()))


class SampledHessian:
    """The Hessian of a sample whose size a rule says; uniform ones are windows of the random order of the run."""

    def __init__(self, rule: SampleRule, scheme: str, order: RowOrder, seed: int, dim: int):
        self.rule, self.scheme, self.order, self.seed = rule, scheme, order, seed
        self.state = RuleState(n=order.n, dim=dim)
        self.size = 0
        self._place = self._draw = 0

    def at(self, point: Evaluation) -> Any:
        state = self.state
        look(point, self.rule, state, "hessian")
        if state.previous_grad_norm is None:
            state.previous_grad_norm = state.grad_norm
        size = min(max(self.rule.next_size(state), 1), state.n)
        if size != state.size:
            state.previous_grad_norm = state.grad_norm
        state.first_size = state.first_size or size
        state.size, self.size = size, min(size, point.size)
        if self.scheme == "uniform":
            return point.hessian(None if size >= point.size else self._window(point, size))
        # Drawn on the host, so that the rows of a seed are the same everywhere.
        importance = to_host(point.importance(self.scheme))
        if not np.isfinite(importance).all():
            # Its products are not finite, which is for the method to find.
            return point.hessian()
        self._draw += 1
        places, weights = draw_rows(importance, size, self._draw, self.seed)
        return point.hessian(Sample(places if point.sample is None else point.sample.rows[places], weights))

    def too_small_for(self, step_norm: float) -> bool:
        """Whether the step shows that the sample is too small, as dynamic accuracy asks before the step is tried."""
        if not isinstance(self.rule, DynamicAccuracy) or self.state.size >= self.order.n:
            return False
        self.state.step_norm = step_norm
        return self.rule.next_size(self.state) > self.state.size

    def _window(self, point: Evaluation, size: int) -> Sample:
        first = point.sample.start if isinstance(point.sample, WindowSample) else 0
        if self._place < first or self._place + size > first + point.size:
            self._place = first
        self._place += size
        return WindowSample(self.order, self._place - size, self._place)

    def learn(self, point: Evaluation, s: np.ndarray, gradient_change: np.ndarray) -> None:
        """Told of the change of the gradient along every step taken."""


class AveragedHessian:
    """A dense average of the Hessians of small samples, older ones forgotten, corrected to map s to the change of the gradient.

    A sample costs about one value of the gradient's sample. Averages: Na, Derezinski, Mahoney (2022); correction: the
    symmetric one of Powell (1970), on the gradient's own sample, exact along the step taken.
    """

    def __init__(self, order: RowOrder, dim: int):
        self.order, self.state = order, RuleState(n=order.n, dim=dim)
        self.size = 0
        self._place, self._weight = 0, 0.0
        self._average: np.ndarray | None = None

    def at(self, point: Evaluation) -> np.ndarray:
        dim = self.state.dim
        self.size = size = min(max(dim // 2, round(point.size / (2 * dim)), 1), point.size)
        if self._place + size > point.size:
            self._place = 0
        window = WindowSample(self.order, self._place, self._place + size)
        self._place += size
        H = point.hessian(window if size < point.size or point.sample is not None else None).to_dense()
        if self._average is None:
            self._average, self._weight = H, float(size)
        else:
            self._weight = _FORGET * self._weight + size
            self._average += (size / self._weight) * (H - self._average)
        return self._average

    def too_small_for(self, step_norm: float) -> bool:
        return False

    def learn(self, point: Evaluation, s: np.ndarray, gradient_change: np.ndarray) -> None:
        A, ss = self._average, float(s @ s)
        if A is None or not ss > 0:
            return
        r = gradient_change - A @ s
        correction = np.outer(r, s) / ss
        correction += correction.T - (float(r @ s) / ss**2) * np.outer(s, s)
        if np.isfinite(correction).all():
            A += correction


def averages_pay(n: int, dim: int | None) -> bool:
    return dim is not None and _DENSE_SHARE * dim * dim <= n
