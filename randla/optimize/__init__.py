"""Second-order optimization of finite sums, convex or not: sub-sampled trust region, cubic regularization, Newton methods."""

from ._scipy import cubic, trust_region
from .certificate import Certificate, EigenBound, HessianCondition, check_second_order, hessian_condition, smallest_eigenvalue
from .constrained import Box, ConstrainedResult, ConstrainedStatus, L1Ball, L2Ball, Simplex, minimize_constrained
from .glm import GLM
from .losses import Loss, NonConvexRegularizer, Regularizer
from .methods import CubicRegularization, Newton, NewtonMR, TrustRegion
from .minimize import Stepper, minimize
from .newton_sketch import newton_sketch
from .objective import Counts, FiniteSum, Hessian, from_callables
from .presets import preset
from .result import MinimizeResult, MinimizeStatus, MinimizeWarning
from .sample_rules import (
    DecreaseTest,
    DynamicAccuracy,
    Fixed,
    FractionOf,
    GradientChange,
    InnerProductTest,
    NormTest,
    SampleRule,
    StepRule,
    sample_size,
)
from .subproblem import SubproblemInfo, cubic_subproblem, trust_region_subproblem

__all__ = [
    "GLM",
    "Box",
    "Certificate",
    "ConstrainedResult",
    "ConstrainedStatus",
    "Counts",
    "CubicRegularization",
    "DecreaseTest",
    "DynamicAccuracy",
    "EigenBound",
    "FiniteSum",
    "Fixed",
    "FractionOf",
    "GradientChange",
    "Hessian",
    "HessianCondition",
    "InnerProductTest",
    "L1Ball",
    "L2Ball",
    "Loss",
    "MinimizeResult",
    "MinimizeStatus",
    "MinimizeWarning",
    "Newton",
    "NewtonMR",
    "NonConvexRegularizer",
    "NormTest",
    "Regularizer",
    "SampleRule",
    "Simplex",
    "StepRule",
    "Stepper",
    "SubproblemInfo",
    "TrustRegion",
    "check_second_order",
    "cubic",
    "cubic_subproblem",
    "from_callables",
    "hessian_condition",
    "minimize",
    "minimize_constrained",
    "newton_sketch",
    "preset",
    "sample_size",
    "smallest_eigenvalue",
    "trust_region",
    "trust_region_subproblem",
]
