"""Sparse solutions by a beam search: many supports grow at once, each by the columns that reduce its residual the most."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._numeric import norms
from ..lowrank._products import product

_DEPENDENT = 1e-10  # square of the part of a column outside a support, below which it brings nothing new


def beam(A: np.ndarray, b: np.ndarray, width: int, depth: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Supports (count, k), count <= width, for k = 1, ..., depth, with the norms of their residuals, ascending.

    The columns of A have norm one. Orthogonal least squares, but of all children of all supports the best are kept, not one
    (cf. Karahanoglu, Erdogan 2012): what one wrong choice hides, another support finds.
    """
    supports = np.zeros((1, 0), np.intp)
    Q, R = np.zeros((1, 0, len(b))), b[None].copy()  # orthonormal bases of the supports' columns, and residuals
    C, outside = product(R, A), np.ones((1, A.shape[1]))  # inner products with R, squares of what Q leaves of the columns
    depth = min(depth, *A.shape)
    for k in range(1, depth + 1):
        gain = np.divide(C * C, outside, out=np.zeros_like(C), where=outside > _DEPENDENT)
        left = np.vecdot(R, R)[:, None] - gain
        # A support has at most k parents among those before.
        near = np.argpartition(left, min(k * width, left.size) - 1, axis=None)[: k * width]
        near = near[gain.flat[near] > 0]
        near = near[np.lexsort((near, left.flat[near]))]
        parent, column = np.unravel_index(near, left.shape)
        children = np.sort(np.column_stack([supports[parent], column]), axis=1)
        first = np.sort(np.unique(children, axis=0, return_index=True)[1])[:width]
        if not len(first):
            return
        parent, column, supports = parent[first], column[first], children[first]
        Q, R = Q[parent], R[parent]
        q = A.T[column]
        for _ in range(2):
            q = q - ((Q @ q[:, :, None]).transpose(0, 2, 1) @ Q)[:, 0]
        q /= norms(q)[:, None]
        along = np.vecdot(q, R)
        R = R - along[:, None] * q
        Q = np.concatenate([Q, q[:, None]], axis=1)
        yield supports, norms(R)
        if k == depth:
            return
        images = product(q, A)
        C = C[parent] - along[:, None] * images
        outside = outside[parent] - images * images
        np.put_along_axis(outside, supports, 0.0, axis=1)
