"""Fixed supports of a product X Y^T: when the nearest product has a closed form, and when there is none at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from ._completion import Box, Plan, bicliques, completion_plan, disjoint
from ._places import as_array


class Witness(NamedTuple):
    """Proof that {X Y^T} is not closed: an LU-type corner of two rows and two columns.

    On rows (i1, i2) and columns (j1, j2) the first of `components` covers all four entries, the others cover (i2, j2) alone,
    and no other component covers any. The matrix with ones at (i1, j2) and (i2, j1) and zeros elsewhere is then a limit of
    products but no product.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    components: tuple[int, ...]


def rank_one_supports(I: Any, J: Any) -> list[Box]:
    """The distinct rank-one supports of X Y^T, each with the components that share it.

    Parameters
    ----------
    I, J : array or sparse matrix, (m, r) and (n, r)
        Where X and Y may be nonzero: boolean, or numbers of which nonzero ones count.

    Returns
    -------
    list of Box
        `rows`, `columns` and `members`: index arrays, ascending. Component k has the support I[:, k] x J[:, k]; components
        without entries are left out. In the order of the first member.

    Raises
    ------
    TypeError, ValueError
        For unsuitable masks.
    """
    return _classes(*masks(I, J))


def supports_tractable(I: Any, J: Any) -> Literal["disjoint-or-identical", "completion", False]:
    """Whether min ||A - X Y^T||_F with supp X in I and supp Y in J has a closed form for every A, and why.

    Parameters
    ----------
    I, J : array or sparse matrix, (m, r) and (n, r)
        Supports, as in `rank_one_supports`.

    Returns
    -------
    str or False
        "disjoint-or-identical": any two rank-one supports are the same set of entries or disjoint; truncated SVDs of the blocks
        are optimal (Le, Riccietti, Gribonval 2023). "completion": overlaps lie where other components can fit any values;
        what remains of each component falls apart into rectangles that are pairwise disjoint or identical. False: neither; the
        general problem is NP-hard.

    Raises
    ------
    TypeError, ValueError
        For unsuitable masks.
    """
    found = plan(*masks(I, J))
    return found.kind if found else False


def supports_closed(I: Any, J: Any) -> tuple[bool | None, Witness | None]:
    """Whether {X Y^T : supp X in I, supp Y in J} is closed, i.e. whether every A has a nearest element.

    True where `supports_tractable` holds: the minimum is attained by construction. False where an LU-type corner is found. Both
    are proofs; in between the known decision procedures are doubly exponential (Le, Riccietti, Gribonval 2023).

    Parameters
    ----------
    I, J : array or sparse matrix, (m, r) and (n, r)
        Supports, as in `rank_one_supports`.

    Returns
    -------
    closed : bool or None
        None: undecided.
    witness : Witness or None
        For False.

    Raises
    ------
    TypeError, ValueError
        For unsuitable masks.
    """
    i, j = masks(I, J)
    if plan(i, j) is not None:
        return True, None
    witness = corner(i, j)
    return (None if witness is None else False), witness


def masks(I: Any, J: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both supports as boolean arrays."""
    i, j = _mask(I, "I"), _mask(J, "J")
    if i.shape[1] != j.shape[1]:
        raise ValueError(f"J must have as many columns as I, {i.shape[1]}; got {j.shape[1]}")
    return i, j


def plan(i: np.ndarray, j: np.ndarray) -> Plan | None:
    """The closed form, or None where these supports have none."""
    classes = _classes(i, j)
    shape = (len(i), len(j))
    if disjoint(classes, shape):
        return Plan("disjoint-or-identical", [], classes)
    return completion_plan(classes, shape)


def corner(i: np.ndarray, j: np.ndarray) -> Witness | None:
    """An LU-type corner, or None.

    An entry covered by one component alone belongs to it. A corner is a path (i2, j1), (i1, j1), (i1, j2) of entries of one
    component whose fourth entry (i2, j2) others cover too: there is one unless the entries of each component, as the edges of a
    bipartite graph, form bicliques.
    """
    counts, owners = cover(i, j)
    rows, columns = np.nonzero(counts == 1)
    owner = owners[rows, columns] - 1
    order = np.argsort(owner, kind="stable")
    rows, columns, owner = rows[order], columns[order], owner[order]
    ends = np.flatnonzero(np.diff(owner, append=-1)) + 1
    for low, high in zip(np.r_[0, ends], ends, strict=False):
        mine_rows, r = np.unique(rows[low:high], return_inverse=True)
        mine_columns, c = np.unique(columns[low:high], return_inverse=True)
        if high - low == len(mine_rows) * len(mine_columns):
            continue
        own = np.zeros((len(mine_rows), len(mine_columns)), bool)
        own[r, c] = True
        for part_rows, part_columns in bicliques(own):
            block = own[np.ix_(part_rows, part_columns)]
            if block.all():
                continue
            i1, i2, j1, j2 = _path(block)
            at = [int(mine_rows[part_rows[p]]) for p in (i1, i2)], [int(mine_columns[part_columns[p]]) for p in (j1, j2)]
            full = int(owner[low])
            others = np.flatnonzero(i[at[0][1]] & j[at[1][1]])
            components = (full, *(int(k) for k in others if k != full))
            return Witness((at[0][0], at[0][1]), (at[1][0], at[1][1]), components)
    return None


def cover(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many components cover each entry, and the sum of their numbers, from one."""
    work = float(np.count_nonzero(i, axis=0) @ np.count_nonzero(j, axis=0).astype(float))
    numbers = np.arange(1, i.shape[1] + 1)
    # The sparse product costs its number of terms, at about fifty times the price of those of a dense one.
    if work < i.shape[0] * j.shape[0] * i.shape[1] / 50:
        left, right, numbered = (sp.csr_array(a, dtype=np.int64) for a in (i, j.T, j.T * numbers[:, None]))
        return (left @ right).toarray(), (left @ numbered).toarray()
    left, right = i.astype(np.float32), j.T.astype(np.float32)
    counts = left @ right
    # Exact wherever it is read: there the sum has one term.
    return counts, (left @ (right * numbers[:, None].astype(np.float32))).astype(np.int64)


def _path(block: np.ndarray) -> tuple[int, int, int, int]:
    """Rows i1, i2 and columns j1, j2 of a connected block that has all but the entry (i2, j2)."""
    edges = block.astype(np.float32)
    shared = edges @ edges.T
    i1, i2 = np.argwhere((shared > 0) & (shared < shared.diagonal()[:, None]))[0]
    j1 = np.flatnonzero(block[i1] & block[i2])[0]
    j2 = np.flatnonzero(block[i1] & ~block[i2])[0]
    return int(i1), int(i2), int(j1), int(j2)


def _mask(value: Any, name: str) -> np.ndarray:
    a = value.toarray() if sp.issparse(value) else as_array(value, name)
    if a.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be a mask of booleans or real numbers; got dtype {a.dtype}")
    if a.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got {a.ndim}")
    if a.dtype.kind == "f" and np.isnan(a).any():
        raise ValueError(f"{name} must not have NaN; got {np.count_nonzero(np.isnan(a))}")
    return a if a.dtype.kind == "b" else a != 0


def _classes(i: np.ndarray, j: np.ndarray) -> list[Box]:
    inside = np.flatnonzero(i.any(axis=0) & j.any(axis=0))
    if not len(inside):
        return []
    bits = np.vstack([np.packbits(i[:, inside], axis=0), np.packbits(j[:, inside], axis=0)])
    groups: dict[bytes, list[int]] = {}
    for k, key in zip(inside, np.ascontiguousarray(bits.T), strict=True):
        groups.setdefault(key.tobytes(), []).append(int(k))
    members: Sequence[list[int]] = list(groups.values())
    return [Box(np.flatnonzero(i[:, g[0]]), np.flatnonzero(j[:, g[0]]), np.array(g)) for g in members]
