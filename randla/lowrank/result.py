"""How low-rank approximations and stochastic estimates end."""

from __future__ import annotations

import enum


class LowRankWarning(UserWarning):
    """Numerical trouble in a low-rank approximation or an estimate: a tolerance not reached, a property that A lacks."""


class LowRankStatus(enum.Enum):
    """How a computation ended. The value is the sentence shown to users."""

    CONVERGED = "The rank that was asked for was reached; further passes would gain little."
    RANK_REACHED = "The rank that was asked for was reached."
    EXACT = "A has no larger rank: the approximation is exact up to rounding."
    LAPACK = "The full decomposition was computed by LAPACK, being cheaper or asked for."
    ITERATIONS_DONE = "As many iterations were made as were asked for."
    TOLERANCE_REACHED = "The error is within the tolerance."
    TOLERANCE_NOT_REACHED = "The error is above the tolerance: the largest rank allowed, or the floor of rounding, was met."
    NOT_CONVERGED = "The iteration limit was reached while the approximation was still improving."
    COMPUTED = "Computed from all columns of A, by entries or products: exact up to rounding."
    ESTIMATED = "Estimated from as many products as were asked for; the error is that of chance."
    PRODUCTS_EXHAUSTED = "The error is above the tolerance after as many products as were allowed."
    NOT_SYMMETRIC = "A is not Hermitian within rounding: what was computed belongs to no Hermitian matrix."
    NOT_POSITIVE = "A is not positive semidefinite within rounding: what was computed belongs to no such matrix."

    @property
    def success(self) -> bool:
        return self not in (
            LowRankStatus.TOLERANCE_NOT_REACHED,
            LowRankStatus.NOT_CONVERGED,
            LowRankStatus.PRODUCTS_EXHAUSTED,
            LowRankStatus.NOT_SYMMETRIC,
            LowRankStatus.NOT_POSITIVE,
        )
