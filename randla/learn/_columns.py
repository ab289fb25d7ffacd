"""A matrix as its columns: products with A', and chosen columns with their Gram matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check, _cpu
from .._numeric import powers_of_two

_HELD = 1 << 25  # numbers of a working set that are held as a copy: 256 MB
_SMALL = 1e-280  # squares below may have lost digits
_BLOCK = 1 << 19  # numbers of A converted at a time


def combination(rows: np.ndarray, v: np.ndarray) -> np.ndarray:
    """rows' v."""
    out = np.empty((1, rows.shape[1]))
    _cpu.weighted_product(rows, None, None, np.ascontiguousarray(v)[None], None, None, out)
    return out[0]


def products(rows: np.ndarray, r: np.ndarray) -> np.ndarray:
    """rows r."""
    out = np.empty((1, len(rows)))
    _cpu.weighted_product(rows, None, np.ascontiguousarray(r)[None], None, None, out, None)
    return out[0]


def _largest(rows: sp.csr_array) -> np.ndarray:
    """The largest magnitude in every row."""
    out = np.zeros(rows.shape[0])
    filled = np.diff(rows.indptr) > 0
    if filled.any():
        out[filled] = np.maximum.reduceat(np.abs(rows.data), rows.indptr[:-1][filled])
    return out


class Columns:
    """A checked real A, an array, CSR or CSC; `reads` counts the passes."""

    def __init__(self, a: Any):
        self.a = a
        self.shape: tuple[int, int] = (int(a.shape[0]), int(a.shape[1]))
        self.sparse = sp.issparse(a)
        self.by_columns = not self.sparse and a.flags.f_contiguous and not a.flags.c_contiguous
        self.reads = 0
        if self.sparse:
            self.t = a.T if a.format == "csc" else a.tocsc().T  # the columns as rows
            if not self.t.has_canonical_format:
                self.t = self.t.copy()
                self.t.sum_duplicates()

    def adjoint(self, R: np.ndarray) -> np.ndarray:
        """A' r for the rows r of R, (k, m) to (k, n)."""
        self.reads += 1
        if not min(self.shape):
            return np.zeros((len(R), self.shape[1]))
        R = np.ascontiguousarray(R)
        if self.by_columns:
            out = np.empty((self.shape[1], len(R)))
            _cpu.column_dots(self.a, R, out)
            return out.T
        out = np.empty((len(R), self.shape[1]))
        if self.sparse:
            _cpu.weighted_product_csr(self.t.data, self.t.indptr, self.t.indices, self.shape[0], None, R, None, None, out, None)
        else:
            _cpu.weighted_product(self.a, None, None, R, None, None, out)
        return out

    def correlations(self, b: np.ndarray) -> np.ndarray:
        """A'b; ValueError where A has entries that are not finite, which show in it whatever they are multiplied with."""
        g = self.adjoint(b[None])[0]
        if not np.isfinite(g).all():
            _check.finite(self.a.data if self.sparse else self.a, "A")
        return g

    def times(self, x: np.ndarray) -> np.ndarray:
        """A x, (n,) to (m,)."""
        self.reads += 1
        if not min(self.shape):
            return np.zeros(self.shape[0])
        if self.sparse:
            return np.asarray(self.t.T @ x)
        return products(self.a, x)

    def take(self, index: np.ndarray) -> np.ndarray:
        """Columns as rows, (k, m)."""
        if self.sparse:
            return self.t[index].toarray()
        return self.a.T[index] if self.by_columns else np.take(self.a, index, axis=1).T

    def largest(self, index: np.ndarray | None = None) -> np.ndarray:
        """The largest magnitude in every column, or in the chosen ones."""
        if self.sparse:
            return _largest(self.t if index is None else self.t[index])
        out = np.zeros(self.shape[1] if index is None else len(index))
        for piece in self._pieces(index):
            np.maximum(out, np.abs(piece).max(axis=0, initial=0.0), out=out)
        return out

    def norms(self) -> np.ndarray:
        """Euclidean norms of the columns, safe from overflow."""
        with np.errstate(over="ignore", under="ignore"):
            squares = self._squares(None)
        if not squares.size or (squares.min() > _SMALL and squares.max() < 1 / _SMALL):
            return np.sqrt(squares)
        scale = powers_of_two(self.largest())
        return np.sqrt(self._squares(scale)) / scale

    def _squares(self, scale: np.ndarray | None) -> np.ndarray:
        self.reads += 1
        squares = np.zeros(self.shape[1])
        if self.sparse:
            values = self.t.data.astype(np.float64)
            if scale is not None:
                values *= np.repeat(scale, np.diff(self.t.indptr))
            filled = np.diff(self.t.indptr) > 0
            if filled.any():
                squares[filled] = np.add.reduceat(values * values, self.t.indptr[:-1][filled])
            return squares
        for piece in self._pieces():
            scaled = piece if scale is None else piece * scale
            squares += np.einsum("ij,ij->j", scaled, scaled, dtype=np.float64)
        return squares

    def _pieces(self, index: np.ndarray | None = None) -> Iterator[np.ndarray]:
        step = max(1, _BLOCK // max(1, self.shape[1] if index is None else len(index)))
        for i in range(0, self.shape[0], step):
            rows = self.a[i : i + step]
            yield rows if index is None else np.take(rows, index, axis=1)

    def gram(self, index: np.ndarray, scale: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
        """Of dense columns too many to be held, scaled and centred."""
        self.reads += 1
        G = np.zeros((len(index), len(index)))
        part = np.empty_like(G)
        for piece in self._pieces(index):
            rows = (piece * scale).T
            _cpu.gram_rows(np.ascontiguousarray(rows if mean is None else rows - mean[:, None]), 0, part)
            G += part
        return G


class WorkingSet:
    """Chosen columns times powers of two that bring their largest entry to [1, 2), and their Gram matrix G.

    `centred` takes the mean off every column. Columns are only ever added.
    """

    def __init__(self, columns: Columns, centred: bool = False):
        self.columns, self.centred = columns, centred
        self.index = np.zeros(0, np.intp)
        self.scale, self.mean = np.zeros(0), np.zeros(0)  # means of the scaled columns
        self.inside = np.zeros(columns.shape[1], bool)
        self._gram = np.zeros((0, 0))
        # The columns themselves: sparse, as contiguous rows with room for more, or not held at all.
        self._chosen: Any = None
        self._rows: np.ndarray | None = None if columns.sparse else np.zeros((0, columns.shape[0]))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def G(self) -> np.ndarray:
        return self._gram[: len(self), : len(self)]

    def add(self, new: np.ndarray) -> None:
        m = self.columns.shape[0]
        self.index = np.concatenate([self.index, new])
        self.inside[new] = True
        if self._rows is not None and len(self) * m > _HELD:
            self._rows = None
        if self._rows is not None:
            self._add_rows(new, self._rows)
            return
        if self.columns.sparse:
            self._add_sparse(self.columns.t[new])
            return
        self.scale = np.concatenate([self.scale, powers_of_two(self.columns.largest(new))])
        if self.centred:
            sums = np.sum([piece.sum(axis=0, dtype=np.float64) for piece in self.columns._pieces(new)], axis=0)
            self.mean = np.concatenate([self.mean, sums * self.scale[-len(new) :] / m])
        self._gram = self.columns.gram(self.index, self.scale, self.mean if self.centred else None)

    def _add_rows(self, new: np.ndarray, rows: np.ndarray) -> None:
        held, count = len(self._gram), len(self)
        if count > held:
            room = min(2 * count, self.columns.shape[1])
            more, gram = np.empty((room, rows.shape[1])), np.empty((room, room))
            more[:held], gram[:held, :held] = rows[:held], self._gram
            self._rows, self._gram, rows = more, gram, more
        old = count - len(new)
        added = rows[old:count]
        added[:] = self.columns.take(new)
        scale = powers_of_two(np.abs(added).max(axis=1, initial=0.0))
        added *= scale[:, None]
        if self.centred:
            mean = added.mean(axis=1)
            added -= mean[:, None]
            self.mean = np.concatenate([self.mean, mean])
        self.scale = np.concatenate([self.scale, scale])
        _cpu.gram_rows(rows[:count], old, self.G)

    def _add_sparse(self, added: sp.csr_array) -> None:
        m, scale = self.columns.shape[0], powers_of_two(_largest(added))
        self.scale = np.concatenate([self.scale, scale])
        values = added.data * np.repeat(scale, np.diff(added.indptr))
        added = sp.csr_array((values, added.indices, added.indptr), shape=added.shape)
        self._chosen = added if self._chosen is None else sp.vstack([self._chosen, added], format="csr")
        by_rows = self._chosen.T.tocsr()
        self._gram = np.zeros((len(self), len(self)))
        _cpu.weighted_gram_csr(by_rows.data, by_rows.indptr, by_rows.indices, None, np.ones(m), self._gram)
        if self.centred:
            self.mean = np.asarray(self._chosen @ np.full(m, 1 / m))
            self._gram -= m * np.outer(self.mean, self.mean)

    def combine(self, v: np.ndarray) -> np.ndarray:
        """The sum of the scaled columns times v."""
        if self._rows is not None:
            return combination(self._rows[: len(self)], v)
        if self.columns.sparse:
            image = np.asarray(self._chosen.T @ v)
        else:
            x = np.zeros(self.columns.shape[1])
            x[self.index] = v * self.scale
            image = self.columns.times(x)
        return image - self.mean @ v if self.centred else image

    def product(self, v: np.ndarray) -> np.ndarray:
        """G v."""
        return products(self.G, v)

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Chosen ones of the scaled columns as contiguous rows."""
        if self._rows is not None:
            return self._rows[chosen]
        return np.ascontiguousarray(self.columns.take(self.index[chosen]) * self.scale[chosen, None], dtype=np.float64)
