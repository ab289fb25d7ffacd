"""Components of X Y^T that can fit any values, and what they leave for the others to approximate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching


class Box(NamedTuple):
    """Rows x columns, and the components of X Y^T that share this support there."""

    rows: np.ndarray
    columns: np.ndarray
    members: np.ndarray


class Completed(NamedTuple):
    """A box whose components fit any values on `mask`, what earlier ones left of it."""

    box: Box
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """Closed form of the nearest X Y^T: truncated SVDs of `boxes`, then the `completed` ones fitted last to first."""

    kind: Literal["disjoint-or-identical", "completion"]
    completed: list[Completed]
    boxes: list[Box]


@dataclasses.dataclass
class _Live:
    """A box with the number of its entries that are free."""

    rows: np.ndarray
    columns: np.ndarray
    members: set[int]
    classes: set[int]
    free: int

    @property
    def shorter(self) -> int:
        return min(len(self.rows), len(self.columns))


def disjoint(boxes: Iterable[Box], shape: tuple[int, int]) -> bool:
    """No entry is in two boxes."""
    boxes = list(boxes)
    if sum(len(box.rows) * len(box.columns) for box in boxes) > shape[0] * shape[1]:
        return False
    covered = np.zeros(shape, bool)
    for box in boxes:
        at = np.ix_(box.rows, box.columns)
        if covered[at].any():
            return False
        covered[at] = True
    return True


def bicliques(edges: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of the connected components of a bipartite graph; vertices without edges are left out."""
    a, b = edges.shape
    graph = sp.csr_array(edges)
    joined = sp.block_array([[None, graph], [graph.T, sp.csr_array((b, b), dtype=bool)]], format="csr")
    _, label = connected_components(joined, directed=False)
    rows, columns = np.flatnonzero(edges.any(axis=1)), a + np.flatnonzero(edges.any(axis=0))
    rows, columns = rows[np.argsort(label[rows], kind="stable")], columns[np.argsort(label[columns], kind="stable")]
    cuts = [np.flatnonzero(np.diff(label[side])) + 1 for side in (rows, columns)]
    return list(zip(np.split(rows, cuts[0]), np.split(columns - a, cuts[1]), strict=True)) if len(rows) else []


def completion_plan(classes: list[Box], shape: tuple[int, int]) -> Plan | None:
    """Free entries grow until nothing changes; then the boxes that are left must be full, and pairwise disjoint.

    A set of entries is free once the components that have it, and so far nothing else connected to it, are at least as many as
    its term rank: they fit any values there. What else they add lies on entries that were free before. Whether a box is
    complete stays true as free entries grow, so the order does not matter.
    """
    return _Growth(classes, shape).run()


class _Growth:
    def __init__(self, classes: list[Box], shape: tuple[int, int]):
        self.free = np.zeros(shape, bool)
        # Which classes meet a row, and which a column.
        self.at_row = np.zeros((shape[0], len(classes)), bool)
        self.at_column = np.zeros((shape[1], len(classes)), bool)
        self.live: dict[bytes, _Live] = {}
        self.of_class: list[dict[bytes, None]] = [{} for _ in classes]  # ordered, as a set of bytes is not
        self.pending: dict[bytes, None] = {}
        self.completed: list[Completed] = []
        for c, box in enumerate(classes):
            self.at_row[box.rows, c] = self.at_column[box.columns, c] = True
            self.insert(_Live(box.rows, box.columns, set(box.members.tolist()), {c}, 0))

    def run(self) -> Plan | None:
        while self.pending:
            key = next(iter(self.pending))
            del self.pending[key]
            box = self.live.get(key)
            if box is not None:
                self.visit(key, box)
        if any(box.free for box in self.live.values()):
            return None
        left = [Box(box.rows, box.columns, np.array(sorted(box.members))) for box in self.live.values()]
        return Plan("completion", self.completed, left) if disjoint(left, self.free.shape) else None

    def insert(self, box: _Live) -> None:
        key = box.rows.astype(np.int32).tobytes() + b"|" + box.columns.astype(np.int32).tobytes()
        known = self.live.setdefault(key, box)
        known.members |= box.members
        known.classes |= box.classes
        for c in box.classes:
            self.of_class[c][key] = None
        self.pending[key] = None

    def remove(self, key: bytes, box: _Live) -> None:
        del self.live[key]
        for c in box.classes:
            self.of_class[c].pop(key)

    def visit(self, key: bytes, box: _Live) -> None:
        # With fewer free entries than that the rest is connected, and has the term rank of the whole box.
        rank = box.shorter
        if box.free >= rank:
            left = ~self.free[np.ix_(box.rows, box.columns)]
            parts = bicliques(left)
            if len(parts) != 1 or any(
                len(part) < len(side) for part, side in zip(parts[0], (box.rows, box.columns), strict=True)
            ):
                self.remove(key, box)
                for r, c in parts:
                    rows, columns = box.rows[r], box.columns[c]
                    free = len(r) * len(c) - int(np.count_nonzero(left[np.ix_(r, c)]))
                    self.insert(_Live(rows, columns, set(box.members), set(box.classes), free))
                return
            if len(box.members) < rank:
                rank = int(np.count_nonzero(maximum_bipartite_matching(sp.csr_array(left)) >= 0))
        if len(box.members) >= rank:
            self.complete(key, box)

    def complete(self, key: bytes, box: _Live) -> None:
        self.remove(key, box)
        at = np.ix_(box.rows, box.columns)
        mask = ~self.free[at]
        self.free[at] = True
        self.completed.append(Completed(Box(box.rows, box.columns, np.array(sorted(box.members))), mask))
        row_of, column_of = np.full(self.free.shape[0], -1), np.full(self.free.shape[1], -1)
        row_of[box.rows], column_of[box.columns] = np.arange(len(box.rows)), np.arange(len(box.columns))
        whole = bool(mask.all())
        hit = self.at_row[box.rows].any(axis=0) & self.at_column[box.columns].any(axis=0)
        for other in dict.fromkeys(k for c in np.flatnonzero(hit) for k in self.of_class[c]):
            live = self.live[other]
            rows, columns = row_of[live.rows], column_of[live.columns]
            rows, columns = rows[rows >= 0], columns[columns >= 0]
            new = len(rows) * len(columns) if whole else int(np.count_nonzero(mask[np.ix_(rows, columns)]))
            if new:
                live.free += new
                self.pending[other] = None
