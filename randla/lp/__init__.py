"""p-norms: Lewis weights and regression."""

from .lewis import LewisResult, lewis_weights, lp_sensitivities
from .regression import LpResult, LpStatus, LpWarning, lp_regression

__all__ = ["LewisResult", "LpResult", "LpStatus", "LpWarning", "lewis_weights", "lp_regression", "lp_sensitivities"]
