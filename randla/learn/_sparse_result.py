"""What sparse regression returns: solutions with their certificates."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np

from ..result import HasStatus

__all__ = ["BasisPursuitResult", "LassoPath", "LassoResult", "OmpResult", "SparseStatus"]


class SparseStatus(enum.Enum):
    """How a sparse regression ended. The value is the sentence shown to users."""

    CONVERGED = "The duality gap is as small as requested."
    COMPLETE = "As many columns were chosen as were asked for."
    TOLERANCE_REACHED = "The residual is as small as requested."
    EXACT = "What is left of b is zero, or orthogonal to all columns, up to rounding: more columns would bring nothing."
    ROUNDING = "The duality gap is as small as rounding lets be proved."
    LINEAR_PROGRAM = "Solved as a linear program by HiGHS: ties, nearly dependent columns or the size broke the path off."
    INFEASIBLE = "b is not in the range of A within the tolerance: no x satisfies A x = b."
    STAGNATED = "Progress stopped before the requested duality gap was reached; the last iterate is returned."
    ITERATION_LIMIT = "The iteration limit was reached before the requested duality gap; the last iterate is returned."
    OVERFLOW = "The solution has entries beyond the range of its dtype, which are infinite: scale A or b."

    @property
    def success(self) -> bool:
        return self not in (
            SparseStatus.INFEASIBLE,
            SparseStatus.STAGNATED,
            SparseStatus.ITERATION_LIMIT,
            SparseStatus.OVERFLOW,
        )


@dataclasses.dataclass
class LassoResult(HasStatus):
    """Solution of the lasso with its certificate.

    Attributes
    ----------
    x : ndarray (n,)
        The solution, in the dtype of the data.
    intercept : float
        Zero unless asked for.
    objective : float
        ||b - A x - intercept||^2 / (2 m) + alpha ||x||_1, of x before it was rounded to its dtype.
    gap : float
        Certificate: the objective is above the smallest one by at most this much.
    dual : ndarray (m,)
        The proof, y with |a_j'y| <= alpha for every column (a_j'y <= alpha with positive=True), sum(y) = 0 with an
        intercept: no objective is below b'y - m ||y||^2 / 2.
    support : ndarray of int
        Where x is not zero.
    alpha : float
    iterations, passes : int
        Rounds of coordinate descent; reads of A.
    status : SparseStatus
    message : str
    success : bool
    history : list of dict
        One entry per look at all columns: iteration, time (seconds), gap, objective, columns (of the working set), support.
    """

    x: np.ndarray
    intercept: float
    objective: float
    gap: float
    dual: np.ndarray = dataclasses.field(repr=False)
    support: np.ndarray
    alpha: float
    iterations: int
    passes: int
    status: SparseStatus
    history: list[dict[str, Any]] = dataclasses.field(repr=False)


@dataclasses.dataclass
class LassoPath:
    """Solutions of the lasso for several alphas, the largest first.

    Attributes
    ----------
    alphas : ndarray (k,)
    x : ndarray (n, k)
        One column per alpha.
    intercept, objective, gap : ndarray (k,)
    results : list of LassoResult
    """

    alphas: np.ndarray
    x: np.ndarray
    intercept: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    results: list[LassoResult] = dataclasses.field(repr=False)

    @property
    def success(self) -> bool:
        return all(result.success for result in self.results)


@dataclasses.dataclass
class BasisPursuitResult(HasStatus):
    """Solution of min ||x||_1 subject to A x = b with its certificate.

    Attributes
    ----------
    x : ndarray (n,)
        The solution, in the dtype of the data; where there is none, one that makes ||b - A x|| as small as was found.
    support : ndarray of int
        Where x is not zero.
    objective : float
        ||x||_1.
    gap : float
        Certificate: (objective - b'dual) / objective. Of all x with A x = b none has a norm below (1 - gap) objective.
    dual : ndarray (m,)
        The proof, y with |a_j'y| <= 1 for every column: ||x||_1 >= b'y whenever A x = b.
    residual_norm : float
        ||b - A x||.
    iterations, passes : int
        Pieces of the path, or iterations of HiGHS; reads of A.
    status : SparseStatus
    message : str
    success : bool
    """

    x: np.ndarray
    support: np.ndarray
    objective: float
    gap: float
    dual: np.ndarray = dataclasses.field(repr=False)
    residual_norm: float
    iterations: int
    passes: int
    status: SparseStatus


@dataclasses.dataclass
class OmpResult(HasStatus):
    """Solution by orthogonal matching pursuit.

    Attributes
    ----------
    x : ndarray (n,) or (n, q)
        Least-squares solution on the chosen columns, in the dtype of the data.
    support : ndarray of int, or list of them
        The chosen columns in the order of their choice, one array per right-hand side.
    residual_norm : float or ndarray (q,)
        ||b - A x||.
    residuals : ndarray, or list of them
        ||b - A x|| after 0, 1, ... columns.
    passes : int
        Reads of A.
    status : SparseStatus
        Of the right-hand side that took the most columns.
    message : str
    success : bool
    """

    x: np.ndarray
    support: Any
    residual_norm: Any
    residuals: Any = dataclasses.field(repr=False)
    passes: int
    status: SparseStatus
