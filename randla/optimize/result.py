"""What an optimizer returns: the point with its evidence, and a MinimizeStatus whose member is a sentence."""

from __future__ import annotations

import enum

from scipy.optimize import OptimizeResult


class MinimizeWarning(UserWarning):
    """A run that ended without what was asked of it."""


class MinimizeStatus(enum.Enum):
    """How a run ended. The value is the sentence shown to users."""

    CONVERGED = "The gradient is below gtol, and no eigenvalue of the Hessian is below -htol."
    FIRST_ORDER = "The gradient is below gtol; curvature was not looked at, as asked."
    UNCERTAIN = "The gradient is below gtol; that no eigenvalue of the Hessian is below -htol could not be proved."
    SAMPLED = "The gradient of the sample is below gtol, that of the whole sum is not: the samples asked for are too small."
    ITERATION_LIMIT = "The iteration limit was reached."
    PROPS_LIMIT = "The limit on props was reached."
    TIME_LIMIT = "The time limit was reached."
    STAGNATED = "Progress stopped above the tolerances: rounding hides further decrease."
    INDEFINITE = "The Hessian is not positive definite, which damped Newton needs: use 'trust-region', 'cubic' or 'newton-mr'."
    NOT_FINITE = "Value, gradient or Hessian is not finite where the run stands."
    STOPPED = "The callback stopped the run."

    @property
    def success(self) -> bool:
        return self in (MinimizeStatus.CONVERGED, MinimizeStatus.FIRST_ORDER)


class MinimizeResult(OptimizeResult):
    """Where a run ended, a dict with attributes as those of scipy.

    Attributes
    ----------
    x : ndarray, (dim,)
    fun, jac, grad_norm : float, ndarray (dim,), float
        Value, gradient and its norm at x, of the whole sum, unless the run was ended by a limit while it worked on samples.
    min_eig, min_eig_error : float
        Lowest curvature found at x; no eigenvalue of the Hessian is below min_eig - min_eig_error, but for a probability of
        1e-6. For problems known to be convex the bound that is known without search, and error 0. Of the terms of the sample
        where a limit ended the run on one.
    nit, nfev, njev, nhev : int
        Iterations (trial points), values, gradients, Hessian products.
    props : int
        Forward or backward passes over one term each: |S| for a value, 2 |S| for a gradient (|S| where the value is known),
        2 |S| for a Hessian product.
    status : MinimizeStatus
    message : str
    success : bool
    seed : int
        Replays the run: pass it as `rng`.
    history : list of dict
        One entry per iteration: iteration, props, time (seconds), fun and grad_norm (of the sample), radius or sigma or step,
        gradient_sample and hessian_sample (their sizes), ratio, accepted, products.
    """


class ConstrainedStatus(enum.Enum):
    """How a minimization over a convex set ended. The value is the sentence shown to users."""

    CONVERGED = "First-order conditions hold to gtol, and the Hessian on the face has no eigenvalue below -htol."
    FIRST_ORDER = "First-order conditions hold to gtol; curvature was not looked at, as asked."
    UNCERTAIN = "First-order conditions hold to gtol; that no eigenvalue on the face is below -htol could not be proved."
    SADDLE = "First-order conditions hold to gtol at a saddle that could not be left: F did not fall along negative curvature."
    STAGNATED = "Progress stopped at the rounding error of F before gtol was reached; the best iterate is returned."
    NOT_FINITE = "Products with the Hessian are not finite where the run stands."
    ITERATION_LIMIT = "The iteration limit was reached before gtol; the best iterate is returned."
    STOPPED = "The callback stopped the run; the current iterate is returned."

    @property
    def success(self) -> bool:
        return self in (ConstrainedStatus.CONVERGED, ConstrainedStatus.FIRST_ORDER)


class ConstrainedResult(MinimizeResult):
    """A point of D with what is known of it; what is not listed is as in `MinimizeResult`.

    Attributes
    ----------
    x : ndarray (dim,)
        In D, to rounding.
    jac : ndarray (dim,)
        The gradient at x, of all n terms; grad_norm is its norm, which need not be small.
    kkt : float
        ||P(x - jac) - x||, zero exactly where the first-order conditions hold; ||jac|| where D is the whole space.
    multipliers : dict
        With which the gradient of the Lagrangian vanishes at a solution. Box: "bounds" (dim,), jac at the bounds that hold;
        balls: "norm", jac + norm * (x - center) = 0, or norm * sign(x) on the support; simplex: "total" and "bounds",
        jac + total - bounds = 0.
    active : ndarray of bool (dim,)
        Entries held by a bound, of balls in the 1-norm those held at zero.
    min_eig : float
        Smallest eigenvalue, estimated from above, of the Hessian of the Lagrangian on the tangent space of the face of x; inf
        where the face is a vertex. NaN where the run ended before it was needed.
    min_eig_error : float
        The eigenvalue is at least min_eig - min_eig_error, but for a probability of 1e-6.
    gap : float
        max jac'(x - v) over v in D: F(x) - min F is at most this where F is convex. inf for unbounded boxes.
    status : ConstrainedStatus
    history : list of dict
        One entry per iteration: iteration, props, time (seconds), fun, kkt, radius, gradient_sample, hessian_sample.
    """
