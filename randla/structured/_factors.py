"""Closed forms of X Y^T on fixed supports: truncated SVDs of blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from ._completion import Box, Plan

_ENTRIES = 1 << 22  # of blocks held at a time


def block_factors(blocks: np.ndarray, rank: int, ridge: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """x, y of min ||B - x y^T||^2 + ridge (||x||^2 + ||y||^2) for a stack of blocks (g, a, b); rank columns or fewer.

    Truncated SVD (Eckart, Young 1936); with a ridge, the penalty is 2 ridge times the nuclear norm at its best x and y, which
    takes `ridge` from every singular value.
    """
    U, s, Vh = _svd(blocks)
    rank = min(rank, s.shape[-1])
    root = np.sqrt(np.maximum(s[:, None, :rank] - ridge, 0))
    return U[:, :, :rank] * root, Vh[:, :rank].swapaxes(1, 2) * root


def _svd(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        return np.linalg.svd(blocks, full_matrices=False)
    except np.linalg.LinAlgError:
        # Divide and conquer can fail to converge where plain QR iteration does not.
        parts = [scipy.linalg.svd(block, full_matrices=False, lapack_driver="gesvd") for block in blocks]
        return tuple(np.stack(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


def closed_form(A: Any, plan: Plan, r: int, ridge: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Optimal X and Y, and ||A - X Y^T||_F. A: double precision, dense, or CSR for disjoint or identical supports."""
    (m, n), dtype = A.shape, A.dtype
    X, Y = np.zeros((m, r), dtype), np.zeros((n, r), dtype)
    squares = 0.0
    for boxes in _alike(plan.boxes):
        blocks = np.stack([_block(A, box) for box in boxes])
        x, y = block_factors(blocks, len(boxes[0].members), ridge)
        for box, x_, y_ in zip(boxes, x, y, strict=True):
            keep = box.members[: x.shape[2]]
            X[np.ix_(box.rows, keep)], Y[np.ix_(box.columns, keep)] = x_, y_
        squares += float(np.linalg.norm(blocks - x @ y.swapaxes(1, 2)) ** 2)
    if not plan.completed:
        return X, Y, np.sqrt(squares + _outside(A, plan.boxes))
    for box, mask in reversed(plan.completed):
        left = np.where(mask, _block(A, box) - X[box.rows] @ Y[box.columns].T, 0)
        x, y = block_factors(left[None], len(box.members))
        keep = box.members[: x.shape[2]]
        X[np.ix_(box.rows, keep)], Y[np.ix_(box.columns, keep)] = x[0], y[0]
    return X, Y, float(np.linalg.norm(A - X @ Y.T))


def _alike(boxes: list[Box]) -> list[list[Box]]:
    """Boxes of equal shape and rank, not too many together."""
    shapes: dict[tuple[int, int, int], list[Box]] = {}
    for box in boxes:
        shapes.setdefault((len(box.rows), len(box.columns), len(box.members)), []).append(box)
    out = []
    for (a, b, _), same in shapes.items():
        size = max(1, _ENTRIES // (a * b))
        out += [same[low : low + size] for low in range(0, len(same), size)]
    return out


def _block(A: Any, box: Box) -> np.ndarray:
    if sp.issparse(A):
        return A[box.rows][:, box.columns].toarray()
    return A[np.ix_(box.rows, box.columns)]


def _outside(A: Any, boxes: list[Box]) -> float:
    """Squares of the entries outside all boxes."""
    outside = np.ones(A.shape, bool)
    for box in boxes:
        outside[np.ix_(box.rows, box.columns)] = False
    if sp.issparse(A):
        rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
        return float(np.linalg.norm(A.data[outside[rows, A.indices]]) ** 2)
    return float(np.linalg.norm(A[outside]) ** 2)
