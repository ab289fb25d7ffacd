"""Binary trees of sums over groups of non-negative numbers, for draws in proportion to the numbers."""

from __future__ import annotations

import numpy as np


class SumTrees:
    """Trees in one array: of a tree with c leaves, node 1 is the root, node q < c the sum of nodes 2q and 2q + 1, and nodes
    c, ..., 2c - 1 are the leaves; node q of tree t lies at 2 start[t] + q.

    Sums are always made from their two terms, never by adding a difference: many changes leave the same bits as a new tree.
    """

    def __init__(self, start: np.ndarray, size: np.ndarray, places: int):
        self.first, self.size = 2 * start, size
        self.nodes = np.zeros(2 * places + 2)  # the root of an empty last tree is looked at as well

    def leaves(self, tree: int) -> np.ndarray:
        c = int(self.size[tree])
        first = int(self.first[tree]) + c
        return self.nodes[first : first + c]

    def set_leaves(self, trees: np.ndarray, values: np.ndarray) -> None:
        """Give the leaves of some trees, tree after tree, and make the sums."""
        self.nodes[positions(self.first[trees] + self.size[trees], self.size[trees])] = values
        self.build(trees)

    def build(self, trees: np.ndarray) -> None:
        """Make the sums of some trees from their leaves, all trees level by level."""
        first, size = self.first[trees], self.size[trees]
        c, count = int(size.max(initial=0)), len(trees)
        if c > 1 and (size == c).all() and (np.diff(first) == 2 * c).all():
            # Side by side and of one shape, those of a dense matrix: an array of them.
            nodes = self.nodes[first[0] : first[0] + 2 * c * count].reshape(count, 2 * c)
            for level in range((c - 1).bit_length() - 1, -1, -1):
                low, high = 1 << level, min(2 << level, c)
                np.add(nodes[:, 2 * low : 2 * high : 2], nodes[:, 2 * low + 1 : 2 * high : 2], out=nodes[:, low:high])
            return
        for level in range(int(size.max(initial=1) - 1).bit_length() - 1, -1, -1):
            deep = size > 1 << level
            f = first[deep]
            sums = np.minimum(size[deep], 2 << level) - (1 << level)
            node = positions(f + (1 << level), sums)
            left = 2 * node - np.repeat(f, sums)
            self.nodes[node] = self.nodes[left] + self.nodes[left + 1]

    def totals(self, trees: np.ndarray | slice = slice(None)) -> np.ndarray:
        return np.where(self.size[trees] > 0, self.nodes[self.first[trees] + 1], 0.0)

    def set_leaf(self, tree: int, place: int, value: float) -> float:
        """Change one leaf and the sums above it; the new total."""
        first, nodes = int(self.first[tree]), self.nodes
        node = int(self.size[tree]) + place
        nodes[first + node] = value
        while node := node >> 1:
            nodes[first + node] = nodes[first + 2 * node] + nodes[first + 2 * node + 1]
        return float(nodes[first + 1])

    def draw(self, trees: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Places of leaves, one for each tree (all with positive totals) and u in [0, 1); never one that is zero."""
        first, size, nodes = self.first[trees], self.size[trees], self.nodes
        node = np.ones(len(first), np.int64)
        rest = u * nodes[first + 1]
        for _ in range(int(size.max(initial=1) - 1).bit_length()):
            inner = node < size
            node = np.where(inner, 2 * node, node)
            left = nodes[first + node]
            right = inner & (rest >= left)
            node += right
            # The difference may round up to the sum of the subtree, which would lead past its last leaf.
            rest = np.where(right, np.minimum(rest - left, np.nextafter(nodes[first + node], 0.0)), rest)
        return node - size


def positions(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The ranges first[t], ..., first[t] + count[t] - 1 behind each other."""
    ends = np.cumsum(count)
    if len(first) and (first[1:] == first[:-1] + count[:-1]).all():
        return np.arange(first[0], first[0] + ends[-1])
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - count), count)
