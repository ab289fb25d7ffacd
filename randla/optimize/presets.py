"""Settings of published experiments with sub-sampled trust regions and cubic regularization, as arguments of `minimize`."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import _check
from ._krylov import Model, Step
from .methods import CubicRegularization, TrustRegion
from .sample_rules import DynamicAccuracy, GradientChange, StepRule

_LARGEST_RADIUS = 1e20  # unlimited in the codes, where it may overflow


@dataclasses.dataclass(frozen=True)
class FixedFactorTrustRegion(TrustRegion):
    """A trust region whose radius is multiplied by fixed factors, whatever the length of the step.

    Attributes
    ----------
    shrink, success : float
        Factors after a rejected step and after an accepted one of a ratio below `good`; above it `grow`.
    min_radius : float
        With samples of fixed size the radius falls without end once their error is all that steps follow.
    """

    _: dataclasses.KW_ONLY
    shrink: float = 0.5
    success: float = 1.2
    min_radius: float = 1e-16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < _check.real(self.shrink, "shrink", strict=True) < 1:
            raise ValueError(f"shrink must be less than 1; got {self.shrink!r}")
        _check.real(self.success, "success", low=1.0)
        _check.real(self.min_radius, "min_radius")

    def updated(self, size: float, ratio: float, step: Step, slope: float, change: float) -> float:
        """The radius after a trial step."""
        if ratio < self.accept:
            return max(self.shrink * size, self.min_radius)
        return min((self.grow if ratio >= self.good else self.success) * size, self.max_radius)


@dataclasses.dataclass(frozen=True)
class FixedFactorCubic(CubicRegularization):
    """Cubic regularization whose weight is multiplied by fixed factors.

    Attributes
    ----------
    success : float
        Factor after an accepted step of a ratio below `good`; above it `decrease`, after a rejected one `increase`.
    quadratic_ratio : bool
        Whether the ratio is over the decrease of the model without its cubic term.
    """

    _: dataclasses.KW_ONLY
    success: float = 1 / 1.2
    quadratic_ratio: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < _check.real(self.success, "success", strict=True) <= 1:
            raise ValueError(f"success must be at most 1; got {self.success!r}")

    def step(self, model: Model, size: float, grow: bool) -> Step:
        step = super().step(model, size, grow)
        return dataclasses.replace(step, decrease=step.quadratic_decrease) if self.quadratic_ratio else step

    def updated(self, size: float, ratio: float, step: Step, slope: float, change: float) -> float:
        """sigma after a trial step."""
        factor = self.increase if ratio < self.accept else self.decrease if ratio >= self.good else self.success
        return max(factor * size, self.least)


_YAO_SAMPLES: dict[str, dict[str, Any]] = {
    "full": {"gradient_sample": None, "hessian_sample": None},
    "subsampled-hessian": {"gradient_sample": None, "hessian_sample": 0.01},
    # In their code 5, 2 and 50 % of ijcnn1, as numbers of terms.
    "inexact": {"gradient_sample": GradientChange(factor=1.2, first=0.05, low=0.02, high=0.5), "hessian_sample": 0.01},
}
_NAMES = ("yao2018", "xu2017", "scr2017", "sarc2020")


def preset(name: str, method: str | None = None, *, variant: str | None = None, sampling: str | None = None) -> dict[str, Any]:
    """Arguments of `minimize` with the settings of a published experiment: `minimize(problem, x0, **preset("yao2018"))`.

    "yao2018" (Yao, Xu, Roosta, Mahoney, Inexact non-convex Newton-type methods): first radius or weight 10; after a rejected
    step half the radius or twice the weight, after a ratio of 0.8 the reverse, else 1.2; subproblems solved to the end.
    "xu2017" (Xu, Roosta, Mahoney, Second-order optimization for non-convex machine learning): the same rules, first weight
    1e-4, exact gradients, 5 % of the terms for Hessians. "scr2017" (Kohler, Lucchi, Sub-sampled cubic regularization): first
    weight 1, ratios 0.1 and 0.9, samples of 5 % that grow as steps shrink. "sarc2020" (Bellavia, Gurioli, Stochastic analysis
    of an adaptive cubic regularization method under inexact gradient evaluations and dynamic Hessian accuracy): first weight
    0.1, ratio 0.8 over the quadratic decrease, accuracies set by the gradient.

    What differs from the authors' programs. Conjugate gradients start at 0, where the programs of "yao2018" and "xu2017" first
    try a random point near the boundary, from which steps can raise the model. A rejected step takes no Hessian products. Value
    and gradient at a point share the pass over its margins. The terms of a Hessian are among those of the gradient. The sample
    of "yao2018" grows once per test and within its limits, see `GradientChange`. A run ends by `gtol` and `htol` of all terms.
    In "scr2017" subproblems are solved to 0.1 ||g||, without the further factor ||s||.

    Parameters
    ----------
    name : {"yao2018", "xu2017", "scr2017", "sarc2020"}
    method : {"trust-region", "cubic"}
        By default the first, and the second for "scr2017" and "sarc2020", which have no other.
    variant : {"inexact", "subsampled-hessian", "full"}
        Of "yao2018": gradients of 5 % of the terms and more, Hessians of 1 %; exact gradients; both exact. Default the first.
    sampling : {"uniform", "row-norm"}
        Of "xu2017". Default the first.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For names that are not among these, and combinations without meaning.
    """
    if name not in _NAMES:
        raise ValueError(f"name must be one of {', '.join(_NAMES)}; got {name!r}")
    only_cubic = name in ("scr2017", "sarc2020")
    method = ("cubic" if only_cubic else "trust-region") if method is None else method
    if method not in (("cubic",) if only_cubic else ("trust-region", "cubic")):
        raise ValueError(
            f"method must be 'cubic'{'' if only_cubic else ' or ' + repr('trust-region')} for {name!r}; got {method!r}"
        )
    _only(variant, "variant", name, "yao2018", tuple(_YAO_SAMPLES))
    _only(sampling, "sampling", name, "xu2017", ("uniform", "row-norm"))
    common = {"function_sample": "all"}
    if name == "yao2018":
        return {"method": _papers_method(method, 10.0, 1e-6, 1e-15, 1e-12), **common, **_YAO_SAMPLES[variant or "inexact"]}
    if name == "xu2017":
        samples = {"gradient_sample": None, "hessian_sample": 0.05, "sampling": sampling or "uniform"}
        return {"method": _papers_method(method, 1e-4, 1e-16, 1e-9, 1e-12), **common, **samples}
    if name == "scr2017":
        scr = FixedFactorCubic(sigma=1.0, accept=0.1, good=0.9, forcing=0.1, success=1.0)
        gradients, hessians = StepRule(first=0.05, power=4), StepRule(first=0.05, power=2)
        return {"method": scr, **common, "gradient_sample": gradients, "hessian_sample": hessians}
    sarc = FixedFactorCubic(
        sigma=0.1, least=1e-5, accept=0.8, good=0.9, forcing=0.1, success=0.5, decrease=0.5, quadratic_ratio=True
    )
    return {
        "method": sarc,
        **common,
        "gradient_sample": DynamicAccuracy(kind="gradient", first=0.4),
        "hessian_sample": DynamicAccuracy(kind="hessian", first=0.1),
    }


def _papers_method(
    method: str, sigma: float, least: float, steihaug: float, lanczos: float
) -> TrustRegion | CubicRegularization:
    """Both methods with the factors 2 and 1.2; models are minimized to these relative residuals."""
    if method == "trust-region":
        return FixedFactorTrustRegion(radius=10.0, max_radius=_LARGEST_RADIUS, subproblem="steihaug", forcing=steihaug)
    return FixedFactorCubic(sigma=sigma, least=least, forcing=lanczos)


def _only(value: str | None, argument: str, name: str, owner: str, known: tuple[str, ...]) -> None:
    if value is not None and name != owner:
        raise ValueError(f"{argument} must be None for {name!r}; got {value!r}")
    if value is not None and value not in known:
        raise ValueError(f"{argument} must be one of {', '.join(known)}; got {value!r}")
