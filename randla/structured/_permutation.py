"""Permutations before a factorization: given, bit reversal, or searched for."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from ._places import as_array
from ._splits import rank_one_splits, squared_norm
from .pattern import Chain

_STARTS = 8  # pairs of rows that a level of the search begins with
_ROUNDS = 20
_EXACT = 1e-24  # of the energy: nothing to improve on


def bit_reversal(n: int) -> np.ndarray:
    """The permutation of 0, ..., n - 1 that reverses the binary digits; n a power of two."""
    out = np.zeros(1, np.int64)
    while len(out) < n:
        out = np.concatenate([2 * out, 2 * out + 1])
    return out


def permutations_of(value: Any, shape: tuple[int, int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Rows and columns that an argument `permutation` stands for, a search excepted."""
    m, n = shape
    if value is None:
        return None, None
    if isinstance(value, str):
        if value == "search":
            raise ValueError("permutation must be given here; got 'search', which `factorize` can do")
        if value != "bit-reversal":
            raise ValueError(f"permutation must be 'bit-reversal', 'search', an array or a pair of arrays; got {value!r}")
        if n & (n - 1):
            raise ValueError(f"permutation 'bit-reversal' needs a power of two as number of columns; got {n}")
        return None, bit_reversal(n)
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], numbers.Integral):
        rows, columns = value
        return _permutation(rows, "permutation[0]", m), _permutation(columns, "permutation[1]", n)
    return None, _permutation(value, "permutation", n)


def _permutation(value: Any, name: str, n: int) -> np.ndarray | None:
    if value is None:
        return None
    p = as_array(value, name)
    if p.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; got {p.dtype}")
    needed = f"{name} must be a permutation of 0, ..., {n - 1}"
    if p.shape != (n,):
        raise ValueError(f"{needed}; got shape {p.shape}")
    if not np.array_equal(np.sort(p), np.arange(n)):
        raise ValueError(f"{needed}; got {len(np.unique(p))} distinct numbers from {p.min()} to {p.max()}")
    return p.astype(np.int64)


def search(a: np.ndarray, chain: Chain, seed: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Rows and columns for which the dyadic chain loses little from left to right; a heuristic.

    Level by level, each row is to find a partner, and each group of columns to fall into halves, so that the blocks of two rows
    are near rank one: rows for given columns by matching, columns for given rows by spectral bisection, in turns. Never worse
    than no permutation and than bit reversal.
    """
    n = a.shape[0]
    if n & (n - 1) or chain != Chain.dyadic(n):
        raise ValueError(f"permutation 'search' needs a dyadic chain of rank 1, Chain.dyadic(n); got {chain!r}")
    rng = np.random.Generator(np.random.Philox(key=seed))
    identity = np.arange(n)
    found = [(identity, identity), (identity, bit_reversal(n))]
    if n > 2:
        found.append(_descend(a.astype(np.result_type(a.dtype, np.float64)), rng))
    levels = len(chain) - 1
    losses = [sum(rank_one_splits(a[rows][:, columns][None], [2] * levels)[2]) for rows, columns in found]
    return found[int(np.argmin(losses))]


def _descend(a: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    T = a[None]
    rows, columns = np.arange(a.shape[0])[None], np.arange(a.shape[1])[None]
    while T.shape[1] > 2:
        order, halves = _level(T, rng)
        count, b, c = T.shape
        T = np.take_along_axis(T[:, order], halves[:, None], axis=2)
        rows = rows[:, order].reshape(-1, b // 2)
        columns = np.take_along_axis(columns, halves, axis=1).reshape(2 * count, c // 2)
        T = rank_one_splits(T, [2])[1]
    return rows.ravel(), columns.ravel()


def _level(T: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The order of the rows (b,), those of first members before their partners, and of the columns of each matrix (a, c)."""
    b, total = T.shape[1], squared_norm(T)
    first = int(rng.integers(b))
    others = np.delete(np.arange(b), first)
    x = np.broadcast_to(T[:, first, None], (len(T), b - 1, T.shape[2]))
    alone = _sphere(x, T[:, others])
    # Every other row as the partner of one row: how near rank one would the two halves be that suit the pair best?
    trials = [_bisect(alone[:, k : k + 1]) for k in range(b - 1)]
    size = (np.abs(T) ** 2).sum(axis=(0, 2))
    unit = np.where(size > 0, size, 1)
    # Relative to what the smaller row has to lose: else small rows would look like partners of all others.
    smaller = np.minimum(unit[first], unit[others])
    losses = [_loss_of_pairs(T[:, np.array([first, k])], h)[0, 1] for k, h in zip(others, trials, strict=True)] / smaller
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for k in np.argsort(losses, kind="stable")[:_STARTS]:
        found = _alternate(T, trials[k], unit)
        if best is None or found[0] < best[0]:
            best = found
        if best[0] <= _EXACT * total:
            break
    assert best is not None
    return best[1], best[2]


def _alternate(T: np.ndarray, halves: np.ndarray, unit: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(_ROUNDS):
        losses = _loss_of_pairs(T, halves)
        p, q = _match(losses, unit)
        now = float(losses[p, q].sum())
        if best is not None and now >= best[0]:
            break
        best = now, np.concatenate([p, q]), halves
        halves = _bisect(_sphere(T[:, p], T[:, q]))
    assert best is not None
    return best


def _sphere(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pairs (x, y) as points of R^3, (a, pairs, c, 3): parallel ones have the same direction, orthogonal ones opposite ones.

    The energy that the best line leaves of a set of pairs is (sum of lengths - length of the sum) / 2.
    """
    cross = 2 * x * y.conj()
    return np.stack([cross.real, cross.imag, np.abs(x) ** 2 - np.abs(y) ** 2], axis=-1)


def _bisect(points: np.ndarray) -> np.ndarray:
    """The columns of each matrix (a, c), those of one half before those of the other, by rank-one similarity.

    Spectral bisection by the similarity of columns, the inner product of their points, then the lines of the halves and the
    halves of these lines in turns. It begins with points of norm one, and with points as they are: columns of all sizes count
    in the first, and small ones that are noise alone do not in the second.
    """
    length = np.linalg.norm(points, axis=-1, keepdims=True)
    found = [_refine(points, _spectral(P)) for P in (points / np.where(length > 0, length, 1), points)]
    kept = np.stack([_kept(points, side).sum(axis=(1, 2)) for side in found])
    return np.stack(found)[np.argmax(kept, axis=0), np.arange(len(points))]


def _spectral(points: np.ndarray) -> np.ndarray:
    a, _, c, _ = points.shape
    P = points.transpose(0, 1, 3, 2).reshape(a, -1, c)
    P = P - P.mean(axis=2, keepdims=True)
    if P.shape[1] > c:
        axis = np.linalg.eigh(P.swapaxes(1, 2) @ P)[1][..., -1]
    else:
        axis = np.einsum("ap,apc->ac", np.linalg.eigh(P @ P.swapaxes(1, 2))[1][..., -1], P)
    return np.argsort(axis, axis=1, kind="stable")


def _refine(points: np.ndarray, side: np.ndarray) -> np.ndarray:
    half = points.shape[2] // 2
    for _ in range(_ROUNDS):
        sums = _sums(points, side)
        lines = sums / np.maximum(np.linalg.norm(sums, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
        pull = np.einsum("apx,apcx->ac", lines[:, 1] - lines[:, 0], points)
        new = np.argsort(pull, axis=1, kind="stable")
        same = np.array_equal(np.sort(new[:, :half]), np.sort(side[:, :half]))
        side = new
        if same:
            break
    return side


def _sums(points: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Sums of the points of both halves, (a, 2, pairs, 3)."""
    c = points.shape[2]
    ordered = np.take_along_axis(points, side[:, None, :, None], axis=2)
    return np.stack([ordered[:, :, : c // 2].sum(axis=2), ordered[:, :, c // 2 :].sum(axis=2)], axis=1)


def _kept(points: np.ndarray, side: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_sums(points, side), axis=-1)


def _loss_of_pairs(T: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """What every pair of rows would lose, (b, b), for these halves of the columns."""
    a, b, c = T.shape
    parts = np.take_along_axis(T, halves[:, None], axis=2).reshape(a, b, 2, c // 2).swapaxes(1, 2)
    G = parts @ parts.conj().swapaxes(2, 3)
    size = np.einsum("ahjj->ahj", G).real
    x, y = size[..., :, None], size[..., None, :]
    kept = (x + y + np.sqrt((x - y) ** 2 + 4 * np.abs(G) ** 2)) / 2
    # lambda_2 = det / lambda_1
    lost = np.maximum(x * y - np.abs(G) ** 2, 0) / np.where(kept > 0, kept, 1)
    return lost.sum(axis=(0, 1))


def _match(losses: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of small total loss: each time the cheapest pair left, relative to the sizes, then exchanges while they gain."""
    b = len(losses)
    work = losses / np.minimum(size[:, None], size) + np.where(np.eye(b, dtype=bool), np.inf, 0)
    p, q = np.empty(b // 2, np.int64), np.empty(b // 2, np.int64)
    for k in range(b // 2):
        p[k], q[k] = np.unravel_index(int(np.argmin(work)), work.shape)
        work[[p[k], q[k]]] = np.inf
        work[:, [p[k], q[k]]] = np.inf
    for _ in range(4 * b):
        now = losses[p, q][:, None] + losses[p, q]
        gains = np.stack([now - losses[np.ix_(p, p)] - losses[np.ix_(q, q)], now - losses[np.ix_(p, q)] - losses[np.ix_(q, p)]])
        gains[:, np.arange(b // 2), np.arange(b // 2)] = 0
        kind, i, j = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if gains[kind, i, j] <= 1e-12 * now.max(initial=0):
            break
        if kind == 0:
            q[i], p[j] = p[j], q[i]
        else:
            q[i], q[j] = q[j], q[i]
    return p, q
