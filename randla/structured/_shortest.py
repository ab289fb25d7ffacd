"""The cheapest deformable chains of every length, by dynamic programming over divisors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Blocks = tuple[tuple[int, int], ...]


def frontier(m: int, n: int, rank: int) -> list[Blocks]:
    """Blocks of the cheapest m x n chain of 1, 2, ... factors, leaving out lengths that a shorter chain undercuts.

    A state is the pair (B, C) of what the factors so far have taken of m and n. The factor that leads from (B, C) to (B', C')
    has C' m / B parameters, times the inner ranks on its two sides; B' does not enter, so the minimum over (B, C) is two minima
    over divisors, one after the other. States of fewer than min(m, n) inner coordinates are left out.
    """
    found: list[Blocks] = [((m, n),)]
    # The first and the last factor of a longer chain have rank * (m + n) parameters or more, the dense matrix has m n.
    if rank >= min(m, n):
        return found
    rows, columns = divisors(m), divisors(n)
    row_divisors = [np.flatnonzero(b % rows == 0) for b in rows]
    column_divisors = [np.flatnonzero(c % columns == 0) for c in columns]
    rest = (m // rows).astype(np.float64)  # float64: sums that it rounds are far above the minimum
    size = np.outer(rest, columns)  # C m / B: inner coordinates at (B, C), and parameters of a factor that leads from B to C
    allowed = size >= min(m, n)

    cost = np.where(allowed, rank * float(m) * columns, np.inf)
    best = float(m) * n
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(_prime_factors(m) + _prime_factors(n) - 1):
        total = cost + rank * n * rest[:, None]
        last = int(np.argmin(total))
        if total.flat[last] < best:
            best = float(total.flat[last])
            found.append(_blocks(last, steps, rows, columns))
        step = _least(cost, column_divisors, axis=1)
        through = rank**2 * size + np.take_along_axis(cost, step, axis=1)
        back = _least(through, row_divisors, axis=0)
        cost = np.where(allowed, np.take_along_axis(through, back, axis=0), np.inf)
        steps.append((back, step))
    return found


def divisors(n: int) -> np.ndarray:
    """Ascending."""
    small = np.arange(1, int(n**0.5) + 2)
    small = small[(n % small == 0) & (small * small <= n)]
    return np.unique(np.concatenate([small, n // small]))


def _prime_factors(n: int) -> int:
    """Counted with multiplicity."""
    count, p = 0, 2
    while p * p <= n:
        while n % p == 0:
            n //= p
            count += 1
        p += 1
    return count + (n > 1)


def _least(cost: np.ndarray, lists: list[np.ndarray], axis: int) -> np.ndarray:
    """Where, along the axis, the least cost over the divisors of each index sits."""
    picks = [index[np.argmin(np.take(cost, index, axis=axis), axis=axis)] for index in lists]
    return np.stack(picks, axis=axis)


def _blocks(last: int, steps: list[tuple[np.ndarray, np.ndarray]], rows: np.ndarray, columns: np.ndarray) -> Blocks:
    i, j = divmod(last, len(columns))
    path = [(len(rows) - 1, len(columns) - 1), (i, j)]
    for back, step in reversed(steps):
        i = int(back[i, j])
        j = int(step[i, j])
        path.append((i, j))
    path.append((0, 0))
    corners = [(int(rows[i]), int(columns[j])) for i, j in reversed(path)]
    return tuple((b2 // b1, c2 // c1) for (b1, c1), (b2, c2) in pairwise(corners))
