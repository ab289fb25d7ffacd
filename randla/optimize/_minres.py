"""MINRES that stops at the first direction of non-positive curvature."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.linalg.blas import ddot, dgemv, dnrm2

_EPS = float(np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True, slots=True)
class MinresResult:
    """A direction p for a Newton step.

    Attributes
    ----------
    direction : ndarray (d,)
        "SOL": the iterate, p'Hp > 0 and g'p <= -p'Hp. "NPC": the residual r = -g - H p of the iterate before, r'Hr <= 0 up to
        rounding and g'r = -||r||^2.
    kind : {"SOL", "NPC"}
    residual : float
        ||g + H p|| / ||g|| for the iterate p, of which an NPC direction is the residual.
    curvature : float
        r'Hr / ||r||^2 of the last residual looked at; nan if none.
    products : int
        Products with H.
    status : {"converged", "iteration-limit", "not-finite"}
        "not-finite": a product was NaN or infinite, the direction is the last good iterate, -g where there is none.
    """

    direction: np.ndarray
    kind: str
    residual: float
    curvature: float
    products: int
    status: str


def minres_npc(H: Any, g: np.ndarray, *, tol: float = 0.1, maxiter: int | None = None, keep: int = 64) -> MinresResult:
    """MINRES (Paige, Saunders 1975) on H p = -g until p is good enough or a residual has non-positive curvature.

    The residual r of every iterate is tested, r'Hr coming for nothing with the next Lanczos vector (Liu, Roosta 2022): if
    r'Hr <= 4 eps ||T|| ||r||^2, r is returned, "NPC". Up to there every iterate is a descent direction, and H is positive
    definite on the Krylov space that was seen. The iterate is good enough, "SOL", when ||H r|| <= tol ||H p|| ||H g|| / ||g||:
    their test, made independent of the unit of H. Near the solution of a consistent system it is ||H r|| <= tol ||H g||, and
    singular inconsistent systems pass it too: p is then a least-squares solution.

    Parameters
    ----------
    H : symmetric, `H @ v` for v (d,)
    g : ndarray of float64, (d,)
    tol : float
        0 asks for all that rounding allows.
    maxiter : int
        Products; default min(5 d, 1000).
    keep : int
        Each Lanczos vector is made orthogonal to so many before it, for 8 d keep bytes: for keep >= d, T is exact up to
        rounding.

    Returns
    -------
    MinresResult
    """
    d = len(g)
    maxiter = min(5 * d, 1000) if maxiter is None else maxiter
    size = float(dnrm2(g)) if d else 0.0
    if size == 0:
        return MinresResult(np.zeros(d), "SOL", 0.0, math.nan, 0, "converged")
    if not math.isfinite(size):
        return MinresResult(np.zeros(d), "SOL", 1.0, math.nan, 0, "not-finite")
    keep = min(keep, d, maxiter)
    basis = np.empty((d, keep), order="F")
    v = g / -size
    r, x, older, w, previous = v, np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d)
    phi, c, s, delta1, epsilon, beta = 1.0, -1.0, 0.0, 0.0, 0.0, 0.0
    square, unit, scale, curvature, products = 0.0, 0.0, 0.0, math.nan, 0  # square: ||H p||^2, unit: ||H g|| / ||g||

    def found(kind: str, direction: np.ndarray, status: str = "converged") -> MinresResult:
        return MinresResult(size * direction, kind, phi, curvature, products, status)

    while products < maxiter:
        q = H @ v
        products += 1
        alpha = float(ddot(v, q))
        if not math.isfinite(alpha):
            return found("SOL", x if products > 1 else v, "not-finite")
        q = q - beta * previous
        q -= alpha * v
        if keep:
            basis[:, (products - 1) % keep] = v
            block = basis[:, : min(products, keep)]
            q = dgemv(-1.0, block, dgemv(1.0, block, q, trans=1), beta=1.0, y=q, overwrite_y=1)
        beta_next = float(dnrm2(q))
        delta2, gamma1 = c * delta1 + s * alpha, s * delta1 - c * alpha
        epsilon_next, delta1 = s * beta_next, -c * beta_next
        scale = max(scale, abs(alpha) + beta + beta_next)
        curvature = -c * gamma1
        if products == 1:
            unit = math.hypot(alpha, beta_next)
        elif phi * math.hypot(gamma1, delta1) <= tol * unit * math.sqrt(square):
            return found("SOL", x)
        if curvature <= 4 * _EPS * scale:
            return found("NPC", r)
        gamma2 = math.hypot(gamma1, beta_next)
        c, s = gamma1 / gamma2, beta_next / gamma2
        tau, phi = c * phi, s * phi
        # v = delta2 w + epsilon older + gamma2 (new w): x advances by tau (new w), H (new w) being of length one.
        older, w = w, (v - delta2 * w - epsilon * older) / gamma2
        x = x + tau * w
        square += tau * tau
        if beta_next <= 8 * _EPS * scale:  # the Krylov space is invariant: p solves the system within it
            return found("SOL", x)
        previous, v = v, q / beta_next
        r = (s * s) * r - (phi * c) * v
        beta, epsilon = beta_next, epsilon_next
    return found("SOL", x if products else v, "iteration-limit")
