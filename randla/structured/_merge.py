"""Neighbours among the factors of a product multiplied where that costs nothing: fewer passes for as many numbers."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .pattern import Pattern

_LARGEST = 4  # block: that of two stages of a fast transform, the largest that the kernel keeps in registers

Stage: TypeAlias = tuple[Pattern, np.ndarray]  # values (a, b, c, d)


def merged(stages: list[Stage], dtype: np.dtype) -> list[Stage]:
    """The same product, of as many stages or fewer, with no more numbers and in no less than double precision."""
    done: list[Stage] = []
    rest = list(stages)
    while rest:
        # From the right: the stages that are applied first are those whose rows lie closest.
        last = rest.pop()
        while rest and (both := _together(rest[-1], last, dtype)) is not None:
            rest.pop()
            last = both
        done.append(last)
    return done[::-1]


def _together(left: Stage, right: Stage, dtype: np.dtype) -> Stage | None:
    (p, u), (q, v) = left, right
    if p.chainable_with(q):
        pattern, flipped = p * q, False
    elif q.T.chainable_with(p.T):
        pattern, flipped = (q.T * p.T).T, True
    else:
        return None
    costs = pattern.n_params > p.n_params + q.n_params
    if costs or max(pattern.b, pattern.c) > _LARGEST or not _in_range(u, v, dtype):
        return None
    if flipped:
        return pattern, _product(q.T, v.swapaxes(1, 2), p.T, u.swapaxes(1, 2)).swapaxes(1, 2)
    return pattern, _product(p, u, q, v)


def _in_range(u: np.ndarray, v: np.ndarray, dtype: np.dtype) -> bool:
    """Whether all products of an entry of u and one of v are normal numbers of this dtype, zeros aside."""
    info = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        sizes = [np.abs(w.astype(np.result_type(w, np.float64))) for w in (u, v)]
        if not all(np.isfinite(w).all() for w in sizes):
            return False
        logs = [np.log2(w[w > 0]) for w in sizes]
    if not all(len(w) for w in logs):
        return True
    terms = max(u.shape[2], v.shape[1])
    high, low = (sum(float(f(w)) for w in logs) for f in (np.max, np.min))
    return high + np.log2(2.0 * terms) < np.log2(float(info.max)) and low > np.log2(float(info.smallest_normal))


def _product(p: Pattern, u: np.ndarray, q: Pattern, v: np.ndarray) -> np.ndarray:
    """Values of the product of a chainable pair on its own pattern."""
    pattern, r = p * q, p.rank_with(q)
    # Rows of the product's blocks: j of the left one, t among the d of the left one that the right one resolves.
    bits, cols = p.d // q.d, q.a // p.a
    wide = np.result_type(u, v, np.float64)
    left = u.reshape(p.a, p.b, cols, r, bits, q.d).transpose(3, 0, 1, 4, 2, 5)[:, :, :, :, :, None].astype(wide)
    right = v.reshape(p.a, cols, r, bits, q.c, q.d).transpose(2, 0, 3, 1, 4, 5)[:, :, None]
    total = left[0] * right[0]
    for k in range(1, r):
        total += left[k] * right[k]
    return total.reshape(tuple(pattern))
