"""Length-squared sampling: rows, columns of rows and entries of a matrix in proportion to squares, from trees of sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._random import random_words, uniform
from ..blocks import as_row_blocks
from ._row_norms import canonical
from ._sum_trees import SumTrees, positions

__all__ = ["LengthSquaredTree"]

_LENGTH_SQUARED = 18  # stream, see docs/definitions.md
_DRAWS = 0  # third counter word

_PIECE = 1 << 20  # leaves of trees built at a time
_STEP = 256  # binary exponents by which rows are scaled: none of usual size is
_FAR = 2.0**400  # a total this far from one has its row scaled anew


class LengthSquaredTree:
    """Draws rows and entries of a changing matrix with probabilities proportional to squared lengths, in O(log) each.

    Row i has probability ||a_i||^2 / ||A||_F^2, and column j within it |a_ij|^2 / ||a_i||^2: the sampling and query access of
    Frieze, Kannan, Vempala 2004 and Tang 2019, in the trees of Kerenidis, Prakash 2017. One pass over A makes a copy of it
    (of the stored entries, where A is sparse) and sums of twice as many float64.

    Draw number t is a function of the seed and t alone: methods go on where the last draw ended, or begin at `first`.
    Weights are those of unbiased sums: E sum_s w_s f(i_s) = sum_i f(i) for every f that is zero where A is.

    Parameters
    ----------
    A : array, CSR/CSC matrix or RowBlocks (m, n)
    rng : SPEC 7

    Attributes
    ----------
    shape : (int, int)
    dtype : numpy.dtype
    seed : int
    draws : int
        The number of the next draw.

    Raises
    ------
    ValueError, TypeError
        For NaN and infinite entries, unsuitable shapes and dtypes; by draws, where A or the row is zero.
    """

    def __init__(self, A: Any, *, rng: Any = None):
        self.seed, self.draws, self._changes = _check.seed(rng), 0, 0
        a = _held(A)
        self.shape: tuple[int, int] = (int(a.shape[0]), int(a.shape[1]))
        self.dtype: np.dtype = a.dtype
        m, n = self.shape
        self._columns: np.ndarray | None = None
        if sp.issparse(a):
            start, size = a.indptr[:-1].astype(np.int64), np.diff(a.indptr).astype(np.int64)
            self._columns, self._values = a.indices.astype(np.int64), a.data.copy()
        else:
            start, size = np.arange(m) * n, np.full(m, n)
            self._values = np.array(a, order="C").ravel()
        _check.finite(self._values, "A")
        # Leaf s of row i belongs to value start + s. The first `sorted` columns of a sparse row increase, those up to `used`
        # came later and are also in `inserted`; further leaves are zero, and there is room for `room` of them.
        self._start, self._room, self._used, self._sorted = start, size.copy(), size.copy(), size.copy()
        self._inserted: dict[int, dict[int, int]] = {}
        self._end = len(self._values)
        self._trees = SumTrees(start, size, len(self._values))
        self._exponents = np.zeros(m, np.int32)
        ends = np.cumsum(size)
        cuts = np.unique(np.searchsorted(ends, np.arange(_PIECE, int(ends[-1]) if m else 0, _PIECE)))
        for rows in np.split(np.arange(m), cuts):
            self._build_rows(rows)
        self._top = SumTrees(np.zeros(1, np.int64), np.array([m]), m)
        self._build_top()

    # What A is.

    @property
    def row_norms(self) -> np.ndarray:
        """||a_i||, (m,) float64."""
        with np.errstate(over="ignore"):
            return np.ldexp(np.sqrt(self._trees.totals()), self._exponents)

    @property
    def frobenius_norm(self) -> float:
        """||A||_F; infinite where no float64 holds it."""
        with np.errstate(over="ignore"):
            return float(np.ldexp(np.sqrt(self._top.totals()[0]), self._top_exponent))

    @property
    def is_sparse(self) -> bool:
        """Whether stored entries alone are held."""
        return self._columns is not None

    @property
    def depth(self) -> int:
        """Most sums between an entry and ||A||_F^2: what an update changes and a draw looks at."""
        return sum(int(size.max(initial=1) - 1).bit_length() for size in (self._top.size, self._trees.size))

    def rows(self, indices: Any) -> _check.Matrix:
        """Rows of A as it is now, (count, n): dense, or a CSR array where A was sparse."""
        i = _indices(indices, "indices", self.shape[0])
        if self._columns is None:
            return self._values.reshape(self.shape)[i]
        count = self._used[i]
        at = positions(self._start[i], count)
        out = sp.csr_array(
            (self._values[at], self._columns[at], np.concatenate([[0], np.cumsum(count)])), shape=(len(i), self.shape[1])
        )
        out.sort_indices()
        return out

    def block(self, rows: Any, columns: Any) -> np.ndarray:
        """The entries of A as it is now in some rows and columns, (count, count), dense."""
        i, j = _indices(rows, "rows", self.shape[0]), _indices(columns, "columns", self.shape[1])
        if self._columns is None:
            return self._values.reshape(self.shape)[np.ix_(i, j)]
        return self.rows(i)[:, j].toarray()

    # Draws.

    def sample_rows(self, k: int, *, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """k rows, (k,) int64, and their weights ||A||_F^2 / (k ||a_i||^2)."""
        k, words = self._draw(k, first)
        rows = self._rows_at(uniform(words[:, 0]))
        return rows, self._row_weights(rows)

    def sample_columns_of_row(self, i: int, k: int, *, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """k columns of row i, (k,) int64, and their weights ||a_i||^2 / (k |a_ij|^2)."""
        i = _check.integer(i, "i", 0, self.shape[0] - 1)
        k, words = self._draw(k, first, i)
        rows = np.full(k, i)
        places = self._trees.draw(rows, uniform(words[:, 1]))
        return self._columns_at(rows, places), 1 / (k * self._shares(rows, places))

    def sample_entries(self, k: int, *, first: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and columns of k entries, (k,) int64 each, and their weights ||A||_F^2 / (k |a_ij|^2)."""
        k, words = self._draw(k, first)
        rows = self._rows_at(uniform(words[:, 0]))
        places = self._trees.draw(rows, uniform(words[:, 1]))
        return rows, self._columns_at(rows, places), self._row_weights(rows) / self._shares(rows, places)

    def _draw(self, k: Any, first: Any, row: int | None = None) -> tuple[int, np.ndarray]:
        k = _check.integer(k, "k", 0)
        begin = self.draws if first is None else _check.integer(first, "first", 0, 2**62)
        if k:
            self._require_nonzero(row)
        self.draws = begin + k
        return k, random_words(np.arange(begin, begin + k, dtype=np.uint64), _DRAWS, _LENGTH_SQUARED, self.seed)

    def _require_nonzero(self, row: int | None = None) -> None:
        if not (self._top.totals()[0] if row is None else self._trees.totals(np.array([row]))[0]) > 0:
            what = f"A of shape {self.shape}" if row is None else f"row {row}"
            raise ValueError(f"A must have entries that are not zero where it is drawn from; got none in {what}")

    def _rows_at(self, u: np.ndarray) -> np.ndarray:
        return self._top.draw(np.zeros(len(u), np.int64), u)

    def _row_weights(self, rows: np.ndarray) -> np.ndarray:
        return 1 / (len(rows) * (self._top.leaves(0)[rows] / self._top.totals()[0]))

    def _columns_at(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        return places if self._columns is None else self._columns[self._start[rows] + places]

    def _draw_columns(self, rows: np.ndarray, u: np.ndarray) -> np.ndarray:
        """A column of each of some rows, none of which is zero."""
        return self._columns_at(rows, self._trees.draw(rows, u))

    def _shares(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """|a_ij|^2 / ||a_i||^2"""
        trees = self._trees
        return trees.nodes[trees.first[rows] + trees.size[rows] + places] / trees.totals(rows)

    # Changes.

    def update(self, i: int, j: int, value: Any) -> None:
        """Set A[i, j], in O(log m + log n).

        A new entry of a sparse row costs as much on average, as the row's tree doubles when it is full; a change of the row's
        norm by a factor of 2^200 or more costs a pass over the row.
        """
        i = _check.integer(i, "i", 0, self.shape[0] - 1)
        j = _check.integer(j, "j", 0, self.shape[1] - 1)
        new = self._checked_values(value, "value")
        if new.ndim:
            raise ValueError(f"value must be a number; got shape {new.shape}")
        place = self._place(i, j)
        if place is None:
            if new == 0:
                return
            place = self._insert(i, j)
        self._values[self._start[i] + place] = new
        self._changes += 1
        total = self._trees.set_leaf(i, place, float(_squares(new[None], self._exponents[i : i + 1])[0]))
        if not 1 / _FAR <= total <= _FAR:
            self._build_rows(np.array([i]))
        self._update_top(i)

    def update_row(self, i: int, row: Any) -> None:
        """Replace row i, in O(its entries + log m). row : array (n,) or sparse (1, n), of a dtype that A's can hold."""
        i, n = _check.integer(i, "i", 0, self.shape[0] - 1), self.shape[1]
        if sp.issparse(row):
            given = canonical(_check.csr(row, "row"))
            columns, values, shape = given.indices.astype(np.int64), self._checked_values(given.data, "row"), given.shape[1:]
            fits = given.shape[0] == 1
        else:
            values = self._checked_values(row, "row")
            columns, shape, fits = np.arange(values.size), values.shape, values.ndim == 1
        if not fits or shape != (n,):
            raise ValueError(f"row must have {n} entries, as A has shape {self.shape}; got shape {np.shape(row)}")
        if self._columns is None:
            start = int(self._start[i])
            self._values[start : start + n] = 0
            self._values[start + columns] = values
        else:
            kept = np.flatnonzero(values)
            count = len(kept)
            if count > self._room[i]:
                self._move(i, max(count, 2 * int(self._room[i])))
            self._trees.size[i] = self._used[i] = self._sorted[i] = count
            self._inserted.pop(i, None)
            at = slice(int(self._start[i]), int(self._start[i]) + count)
            self._columns[at], self._values[at] = columns[kept], values[kept]
        self._changes += 1
        self._build_rows(np.array([i]))
        self._update_top(i)

    def _place(self, i: int, j: int) -> int | None:
        """The leaf of column j in row i."""
        if self._columns is None:
            return j
        start, count = int(self._start[i]), int(self._sorted[i])
        place = int(np.searchsorted(self._columns[start : start + count], j))
        if place < count and self._columns[start + place] == j:
            return place
        return self._inserted.get(i, {}).get(j)

    def _insert(self, i: int, j: int) -> int:
        """A leaf for a new column of a sparse row."""
        assert self._columns is not None
        place = int(self._used[i])
        if place == self._trees.size[i]:
            size = max(4, 2 * place)
            if size > self._room[i]:
                self._move(i, size)
            start = int(self._start[i])
            self._values[start + place : start + size] = 0
            self._trees.size[i] = size
            self._build_rows(np.array([i]))
        self._columns[self._start[i] + place] = j
        self._used[i] = place + 1
        self._inserted.setdefault(i, {})[j] = place
        return place

    def _move(self, i: int, room: int) -> None:
        """Row i to the end of the arrays, with room for more leaves; what is left behind is less than what rows have."""
        assert self._columns is not None
        old, new, used = int(self._start[i]), self._end, int(self._used[i])
        if new + room > len(self._values):
            places = max(new + room, len(self._values) * 3 // 2)
            self._values, self._columns = (_longer(a, places) for a in (self._values, self._columns))
            self._trees.nodes = _longer(self._trees.nodes, 2 * places + 2)
        self._values[new : new + used] = self._values[old : old + used]
        self._columns[new : new + used] = self._columns[old : old + used]
        self._start[i], self._room[i], self._trees.first[i] = new, room, 2 * new
        self._end = new + room

    def _update_top(self, i: int) -> None:
        total = self._trees.totals(np.array([i]))[0]
        with np.errstate(over="ignore", under="ignore"):
            leaf = np.ldexp(total, 2 * (self._exponents[i] - self._top_exponent))
        if not 1 / _FAR <= self._top.set_leaf(0, i, float(leaf)) <= _FAR:
            self._build_top()

    # Trees.

    def _build_rows(self, rows: np.ndarray) -> None:
        """Choose the scales of some rows and make their trees."""
        trees = self._trees
        count = trees.size[rows]
        values = self._values[positions(self._start[rows], count)]
        largest = np.zeros(len(rows))
        if (some := count > 0).any():
            ends = np.cumsum(count[some])
            largest[some] = np.maximum.reduceat(_largest_parts(values), ends - count[some])
        self._exponents[rows] = np.where(largest > 0, _coarse(np.frexp(largest)[1]), 0)
        trees.set_leaves(rows, _squares(values, np.repeat(self._exponents[rows], count)))

    def _build_top(self) -> None:
        totals = self._trees.totals()
        some = totals > 0
        highest = np.max(np.frexp(totals[some])[1] // 2 + self._exponents[some]) if some.any() else np.int32(0)
        self._top_exponent = _coarse(highest)
        with np.errstate(under="ignore"):
            leaves = np.ldexp(totals, 2 * (self._exponents - self._top_exponent))
        self._top.set_leaves(np.zeros(1, np.int64), leaves)

    def _checked_values(self, value: Any, name: str) -> np.ndarray:
        new = _check.array(value, name)
        if new.dtype.kind == "c" and self.dtype.kind != "c":
            raise TypeError(f"{name} must be real, as A is of dtype {self.dtype}; got {new.dtype}")
        with np.errstate(over="ignore"):
            new = new.astype(self.dtype)
        _check.finite(new, name)
        return new

    def __repr__(self) -> str:
        return f"LengthSquaredTree(shape={self.shape}, dtype={self.dtype}, seed={self.seed})"


def _held(A: Any) -> _check.Matrix:
    """A checked, in memory, without entries listed twice."""
    blocks = as_row_blocks(A)
    if blocks is None:
        a = _check.matrix(A, "A")
    else:
        pieces = [block.copy() for _, block in blocks]  # a source may fill the same memory again
        if any(sp.issparse(piece) for piece in pieces):
            a = sp.csr_array(sp.vstack([sp.csr_array(piece) for piece in pieces], format="csr"))
        else:
            a = np.concatenate(pieces) if pieces else np.zeros(blocks.shape, blocks.dtype)
    return canonical(a) if sp.issparse(a) else a


def _indices(value: Any, name: str, size: int) -> np.ndarray:
    i = np.atleast_1d(np.asarray(value))
    if i.ndim != 1 or (i.dtype.kind not in "iu" and i.size):
        raise TypeError(f"{name} must be one or more integers; got shape {i.shape} of dtype {i.dtype}")
    if i.size and (i.min() < 0 or i.max() >= size):
        raise ValueError(f"{name} must be between 0 and {size - 1}; got {i.min()} to {i.max()}")
    return i.astype(np.int64)


def _largest_parts(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "c":
        return np.maximum(np.abs(values.real), np.abs(values.imag)).astype(np.float64)
    return np.abs(values).astype(np.float64, copy=False)


def _squares(values: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """|values / 2^exponents|^2 in float64."""
    parts = (values.real, values.imag) if values.dtype.kind == "c" else (values,)
    with np.errstate(over="ignore", under="ignore"):
        squares = [np.square(np.ldexp(part.astype(np.float64), -exponents)) for part in parts]
    return squares[0] if len(squares) == 1 else squares[0] + squares[1]


def _coarse(exponents: Any) -> Any:
    """The multiples of _STEP next to binary exponents."""
    return (exponents + _STEP // 2) // _STEP * _STEP


def _longer(a: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size, a.dtype)
    out[: len(a)] = a
    return out
