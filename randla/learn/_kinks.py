"""Local minima of ||max(Q z, 0) - y|| where they lie on kinks, by an active set.

Where y_i < 0 the loss has a convex kink at q_i.z = 0 that a minimum can lie on, as with a 1-norm; where y_i > 0 the kink is
concave and none can. Rows that are held at their kink have a multiplier between 0 and -y_i at a minimum.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ..lowrank._products import product

_EPS = float(np.finfo(float).eps)


def settle(Q: np.ndarray, y: np.ndarray, z: np.ndarray, limit: int) -> tuple[np.ndarray, float, int, bool]:
    """From z downhill to a local minimum: it, the norm of its smallest subgradient, steps, and whether it was reached.

    Every step minimizes over a line exactly, so that the loss never rises.
    """
    t = product(Q, z[:, None])[:, 0]
    on, held = t > 0, np.zeros(len(y), bool)
    tol = 64 * _EPS * np.linalg.norm(y)
    gradient = np.inf
    for step in range(1, limit + 1):
        d = _minimum(Q, y, on, held) - z
        moved = product(Q, d[:, None])[:, 0]
        moved[held] = 0.0
        length, kink, crossed = _line(t, moved, y, on, held)
        z = z + length * d
        t = t + length * moved
        on[crossed] = ~on[crossed]
        if kink >= 0:
            on[kink], held[kink], t[kink] = False, True, 0.0
            continue
        if len(crossed):
            continue
        slope = Q[on].T @ (t[on] - y[on])
        rows = np.flatnonzero(held)
        multipliers = scipy.linalg.lstsq(Q[rows].T, -slope, check_finite=False)[0] if len(rows) else np.zeros(0)
        above = np.maximum(multipliers + y[rows], -multipliers)
        allowed = np.clip(multipliers, 0.0, -y[rows])
        gradient = float(np.linalg.norm(slope + Q[rows].T @ allowed))
        if not len(rows) or above.max() <= tol:
            return z, gradient, step, True
        worst = rows[above.argmax()]
        held[worst], on[worst] = False, multipliers[above.argmax()] > 0
    return z, gradient, limit, False


def _minimum(Q: np.ndarray, y: np.ndarray, on: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The least-squares solution of the rows that are on among the z with q_i.z = 0 for those held."""
    A, b = Q[on], y[on]
    if not held.any():
        return scipy.linalg.lstsq(A, b, check_finite=False)[0] if len(b) else np.zeros(Q.shape[1])
    space = scipy.linalg.null_space(Q[held])
    if not space.shape[1] or not len(b):
        return np.zeros(Q.shape[1])
    return space @ scipy.linalg.lstsq(A @ space, b, check_finite=False)[0]


def _line(t: np.ndarray, moved: np.ndarray, y: np.ndarray, on: np.ndarray, held: np.ndarray) -> tuple[float, int, np.ndarray]:
    """The first local minimum of the loss at t + a moved, a in [0, 1]: a, the row whose kink it lies on or -1, rows crossed."""
    slope = float(moved[on] @ (t[on] - y[on]))
    curvature = float(moved[on] @ moved[on])
    with np.errstate(divide="ignore", invalid="ignore"):
        where = -t / moved
    # Rows that head for zero: from above where they are on, from below (or from zero itself) where they are off.
    heading = ~held & np.where(on, moved < 0, moved > 0)
    rows = np.flatnonzero(heading & (where <= 1))
    rows = rows[np.argsort(where[rows], kind="stable")]
    at, crossed = 0.0, list[int]()
    for i in rows:
        a = max(float(where[i]), at)
        if slope + curvature * (a - at) >= 0:
            break
        slope += curvature * (a - at)
        at = a
        # What the row adds to slope and curvature just beyond zero, or no longer adds.
        side = -1.0 if on[i] else 1.0
        change = side * float(moved[i]) * -float(y[i])
        if slope + change >= 0 and y[i] < 0:
            return at, int(i), np.array(crossed, int)
        slope += change
        curvature += side * float(moved[i]) ** 2
        crossed.append(int(i))
    rest = min(max(-slope / curvature, 0.0), 1.0 - at) if curvature > 0 else 0.0
    return at + rest, -1, np.array(crossed, int)
