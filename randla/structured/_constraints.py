"""Sets of sparse matrices, with the projection onto each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from .. import _check
from .supports import _mask


class Constraint:
    """A set of matrices that is closed under scaling: `project(Z)` is the nearest of its members to Z if `exact`."""

    exact = True

    def project(self, Z: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Sparse(Constraint):
    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", _check.integer(self.k, "k", 1))


@dataclasses.dataclass(frozen=True)
class SparseRows(_Sparse):
    """At most k nonzero entries in every row."""

    def project(self, Z: np.ndarray) -> np.ndarray:
        return np.where(_largest(np.abs(Z), self.k), Z, 0)


@dataclasses.dataclass(frozen=True)
class SparseColumns(_Sparse):
    """At most k nonzero entries in every column."""

    def project(self, Z: np.ndarray) -> np.ndarray:
        return np.where(_largest(np.abs(Z.T), self.k).T, Z, 0)


@dataclasses.dataclass(frozen=True)
class SparseTotal(_Sparse):
    """At most k nonzero entries."""

    def project(self, Z: np.ndarray) -> np.ndarray:
        return np.where(_largest(np.abs(Z).reshape(1, -1), self.k).reshape(Z.shape), Z, 0)


@dataclasses.dataclass(frozen=True)
class SparseRowsAndColumns(_Sparse):
    """At most k nonzero entries in every row and in every column.

    The projection is a transportation problem, whose linear program has integer vertices; it takes some seconds from about
    300 x 300 on.
    """

    def project(self, Z: np.ndarray) -> np.ndarray:
        size = np.abs(Z)
        for kept in (_largest(size, self.k), _largest(size.T, self.k).T):
            if max(kept.sum(axis=0).max(initial=0), kept.sum(axis=1).max(initial=0)) <= self.k:
                return np.where(kept, Z, 0)
        rows, columns = np.nonzero(size)
        if not len(rows):
            return Z.copy()
        gain = (size[rows, columns] / size.max()) ** 2
        number = np.arange(len(rows))
        ones = np.ones(len(rows))
        sums = sp.vstack(
            [
                sp.csr_array((ones, (line, number)), shape=(length, len(rows)))
                for line, length in zip((rows, columns), Z.shape, strict=True)
            ]
        )
        found = linprog(-gain, A_ub=sums, b_ub=np.full(sums.shape[0], self.k), bounds=(0, 1), method="highs-ds")
        chosen = found.x > 0.5
        out = np.zeros_like(Z)
        out[rows[chosen], columns[chosen]] = Z[rows[chosen], columns[chosen]]
        return out


@dataclasses.dataclass(frozen=True)
class SparseRowsOrColumns(_Sparse):
    """Entries among the k largest of their row or of their column, as in FAuST (Le Magoarou, Gribonval 2016).

    `project` keeps that union, which is not the nearest such matrix: the error of `palm4msa` may rise on the way. Rows have k
    entries or more. Among entries of equal size it is the set that finds structure.
    """

    exact = False

    def project(self, Z: np.ndarray) -> np.ndarray:
        size = np.abs(Z)
        return np.where(_largest(size, self.k) | _largest(size.T, self.k).T, Z, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Support(Constraint):
    """Nonzero only where `mask` is: boolean, or numbers of which nonzero ones count."""

    mask: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _mask(self.mask, "mask"))

    def project(self, Z: np.ndarray) -> np.ndarray:
        return np.where(self.mask, Z, 0)


def _largest(size: np.ndarray, k: int) -> np.ndarray:
    """The k largest of every row, the first ones among equals."""
    if k >= size.shape[1]:
        return np.ones(size.shape, bool)
    out = np.zeros(size.shape, bool)
    np.put_along_axis(out, np.argsort(-size, axis=1, kind="stable")[:, :k], True, axis=1)
    return out
