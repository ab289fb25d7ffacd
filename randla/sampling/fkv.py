"""Low-rank approximation from length-squared samples of rows and columns (Frieze, Kannan, Vempala 2004)."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .. import _check
from .._random import random_words, uniform
from .length_squared import _LENGTH_SQUARED, LengthSquaredTree

__all__ = ["LowRankSample", "fkv"]

# Third counter words, see docs/definitions.md.
_ROWS, _COLUMNS, _RESIDUALS, _PROPOSALS, _ACCEPTANCE, _FROM_ROW, _PRODUCTS = 1, 2, 3, 4, 5, 6, 7

_OVERSAMPLING = 40
_SMALLEST_BATCH, _LARGEST_BATCH = 256, 4096  # proposals at a time
_PIECE = 1 << 20  # entries of A projected at a time


@dataclasses.dataclass(eq=False, repr=False)
class LowRankSample:
    """D = A V V^H, known by sampled rows of A: V = R^H G with R the sampled rows divided by their norms.

    Attributes
    ----------
    tree : LengthSquaredTree
        Of A. Once it is updated, methods that need the entries of A raise RuntimeError.
    row_indices : ndarray (n_rows,)
    column_indices : ndarray (n_columns,)
    coefficients : ndarray (n_rows, rank)
        G.
    singular_values : ndarray (rank,)
        Estimates of the largest singular values of A, from the sampled entries.
    rank : int
        Below the one asked for where the sampled entries have no more.
    orthonormal : bool
        Whether V has orthonormal columns, so that D is the best approximation with rows in their span.
    seed : int
        Replays the run: pass it as `rng`.
    draws : int
        Random numbers that `sample_row_of_approximation` has used.
    """

    tree: LengthSquaredTree
    row_indices: np.ndarray
    column_indices: np.ndarray
    coefficients: np.ndarray
    singular_values: np.ndarray
    orthonormal: bool
    seed: int
    _changes: int
    draws: int = 0

    @property
    def rank(self) -> int:
        """Columns of V; fewer than asked for where the sampled entries have no more."""
        return self.coefficients.shape[1]

    @cached_property
    def V(self) -> np.ndarray:
        """(n, rank); made when first asked for, from all entries of the sampled rows."""
        return np.asarray(_unit_rows(self._current(), self.row_indices).conj().T @ self.coefficients)

    @cached_property
    def _gram(self) -> np.ndarray:
        """V^H V"""
        return np.eye(self.rank) if self.orthonormal else self.V.conj().T @ self.V

    @cached_property
    def _by_columns(self) -> sp.csc_array:
        return sp.csc_array(_unit_rows(self._current(), self.row_indices))

    def _sampled(self, columns: np.ndarray) -> np.ndarray:
        """R[:, columns], dense."""
        if self.tree.is_sparse:
            return self._by_columns[:, columns].toarray()
        return _unit_rows(self.tree, self.row_indices, columns)

    def project(self, X: Any) -> np.ndarray:
        """X V V^H for rows X, (n,) or (count, n). Raises ValueError for another number of columns."""
        x = _check.csr(X, "X") if sp.issparse(X) else _check.array(X, "X")
        if x.ndim not in (1, 2) or x.shape[-1] != self.tree.shape[1]:
            raise ValueError(f"X must have {self.tree.shape[1]} columns, as A has; got shape {x.shape}")
        return np.asarray(x @ self.V) @ self.V.conj().T

    def approx_rows(self, indices: Any) -> np.ndarray:
        """Rows of D, (count, n), in the dtype of A."""
        rows = self._current().rows(indices)
        return self.project(rows).astype(self.tree.dtype, copy=False)

    def to_dense(self) -> np.ndarray:
        """D as an (m, n) array."""
        m, n = self.tree.shape
        out = np.empty((m, n), self.tree.dtype)
        step = max(1, _PIECE // max(1, n))
        for i in range(0, m, step):
            out[i : i + step] = self.approx_rows(np.arange(i, min(i + step, m)))
        return out

    def squared_error(self, k: int = 1000) -> tuple[float, float]:
        """An unbiased estimate of ||A - D||_F^2 from k rows drawn by squared length, and its standard error (inf for k = 1)."""
        tree, k = self._current(), _check.integer(k, "k", 1)
        if not tree.frobenius_norm:
            return 0.0, 0.0
        word = random_words(np.arange(k, dtype=np.uint64), _RESIDUALS, _LENGTH_SQUARED, self.seed)[:, 0]
        shares, drawn = np.empty(k), tree._rows_at(uniform(word))
        step = max(1, _PIECE // tree.shape[1])
        for s in range(0, k, step):
            rows = _unit_rows(tree, drawn[s : s + step])
            rest = (rows.toarray() if sp.issparse(rows) else rows) - self.project(rows)
            shares[s : s + step] = np.square(np.linalg.norm(rest, axis=1))
        square = tree.frobenius_norm**2
        spread = float(np.std(shares, ddof=1)) / k**0.5 if k > 1 else float("inf")
        return float(np.mean(shares)) * square, spread * square

    def sample_row_of_approximation(self, i: int, k: int, *, n_samples: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """k columns of row i of D, (k,) int64, with probabilities p_j = |D_ij|^2 / ||D_i||^2, and their weights 1 / (k p_j).

        By rejection from the trees of the sampled rows (Tang 2019): a proposal costs n_rows + log n operations, whatever n is.
        Where proposals are refused for longer than it takes to make D_i, the rest is drawn from D_i itself.

        n_samples : None for the inner products of row i with the sampled rows, or the number of entries of row i from which to
        estimate them, at a cost that does not depend on n; D_i is then that estimate, which p_j and the weights refer to.
        Raises ValueError where D_i is zero.
        """
        tree = self._current()
        m, n = tree.shape
        i, k = _check.integer(i, "i", 0, m - 1), _check.integer(k, "k", 0)
        y = self._products(i, n_samples) @ self.coefficients
        z = y @ self.coefficients.conj().T  # D_i = y V^H = z R, but for the norm of row i
        square = float((y @ self._gram @ y.conj()).real)
        if not square > 0:
            raise ValueError(f"row {i} of the approximation must have entries that are not zero; got none")
        size = np.abs(z)
        cumulative, last = np.cumsum(size), np.flatnonzero(size)[-1]
        drawn, values = [np.zeros(0, np.int64)], [np.zeros(0)]
        missing, tried, limit = k, 0, 64 * k + n * self.rank // len(z)
        while missing and tried < limit:
            count = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, 2 * missing))
            numbers, tried = self._next(count), tried + count
            words = random_words(numbers, _PROPOSALS, _LENGTH_SQUARED, self.seed)
            picked = np.minimum(np.searchsorted(cumulative, uniform(words[:, 0]) * cumulative[-1], side="right"), last)
            columns = tree._draw_columns(self.row_indices[picked], uniform(words[:, 1]))
            R = self._sampled(columns)
            squares = np.abs(z @ R) ** 2
            # |sum_s z_s R_sj|^2 <= (sum_s |z_s|) (sum_s |z_s| |R_sj|^2), by Cauchy and Schwarz
            u = uniform(random_words(numbers, _ACCEPTANCE, _LENGTH_SQUARED, self.seed)[:, 0])
            taken = np.flatnonzero(u * cumulative[-1] * (size @ np.abs(R) ** 2) < squares)[:missing]
            drawn.append(columns[taken])
            values.append(squares[taken])
            missing -= len(taken)
        if missing:
            u = uniform(random_words(self._next(missing), _FROM_ROW, _LENGTH_SQUARED, self.seed)[:, 0])
            row = np.abs(self.V.conj() @ y) ** 2
            sums = np.cumsum(row)
            drawn.append(np.minimum(np.searchsorted(sums, u * sums[-1], side="right"), np.flatnonzero(row)[-1]))
            values.append(row[drawn[-1]])
        return np.concatenate(drawn), square / (k * np.concatenate(values))

    def _products(self, i: int, n_samples: int | None) -> np.ndarray:
        """a_i R^H for row i divided by its norm, or an unbiased estimate of it."""
        tree, row = self.tree, np.array([i])
        if not tree._trees.totals(row)[0] > 0:
            return np.zeros(len(self.row_indices))
        if n_samples is None:
            a = _unit_rows(tree, row)
            columns, values = (a.indices, a.data) if tree.is_sparse else (np.arange(tree.shape[1]), a[0])
            step = max(1, _PIECE // len(self.row_indices))
            pieces = [slice(j, j + step) for j in range(0, len(columns), step)]
            return sum(self._sampled(columns[piece]).conj() @ values[piece] for piece in pieces)
        count = _check.integer(n_samples, "n_samples", 1)
        u = uniform(random_words(self._next(count), _PRODUCTS, _LENGTH_SQUARED, self.seed)[:, 0])
        columns, where = np.unique(tree._draw_columns(np.full(count, i), u), return_inverse=True)
        shares = np.bincount(where) / count
        return (self._sampled(columns) / _unit_rows(tree, row, columns)[0]).conj() @ shares

    def _next(self, count: int) -> np.ndarray:
        self.draws += count
        return np.arange(self.draws - count, self.draws, dtype=np.uint64)

    def _current(self) -> LengthSquaredTree:
        if self.tree._changes != self._changes:
            raise RuntimeError("the tree must be as it was when its rows were sampled; got one that was updated: run fkv again")
        return self.tree

    def __repr__(self) -> str:
        return f"LowRankSample(shape={self.tree.shape}, rank={self.rank}, n_rows={len(self.row_indices)}, seed={self.seed})"


def fkv(
    A: Any,
    rank: int,
    *,
    n_rows: int | None = None,
    n_columns: int | None = None,
    orthonormal: bool = True,
    rng: Any = None,
) -> LowRankSample:
    """A low-rank approximation D = A V V^H from n_rows rows of A and n_columns of their columns.

    The rows are drawn by squared length and scaled to S with E[S^H S] = A^H A, then columns of S by squared length, scaled to W
    with E[W W^H] = S S^H. Left singular vectors u_t of W give v_t = S^H u_t / sigma_t (Frieze, Kannan, Vempala 2004). With
    n_rows and n_columns of order rank / eps^2, ||A - D||_F^2 <= ||A - A_k||_F^2 + eps ||A||_F^2 with large probability: useful
    where A is near a matrix of low rank and changes, coarse beside a randomized SVD, which reads all of A. With a tree and
    orthonormal=False the work is that of n_rows n_columns entries (of a sparse A, of the sampled rows), whatever its size.

    Parameters
    ----------
    A : LengthSquaredTree, or what one can be made of
    rank : int
        At least 1.
    n_rows, n_columns : int, optional
        At least `rank`; by default 40 rank.
    orthonormal : bool
        Orthonormal columns for V, of the span of the v_t: never a larger error, for one read of the sampled rows. False gives
        the v_t themselves.
    rng : SPEC 7

    Returns
    -------
    LowRankSample
        V held as coefficients of sampled rows; entries and rows of D on demand.

    Raises
    ------
    ValueError, TypeError
        For A without an entry that is not zero, sizes below the rank, unsuitable shapes and dtypes.
    """
    rank = _check.integer(rank, "rank", 1)
    p = _check.integer(_OVERSAMPLING * rank if n_rows is None else n_rows, "n_rows", rank)
    q = _check.integer(_OVERSAMPLING * rank if n_columns is None else n_columns, "n_columns", rank)
    if not isinstance(orthonormal, bool):
        raise TypeError(f"orthonormal must be True or False; got {orthonormal!r}")
    seed = _check.seed(rng)
    tree = A if isinstance(A, LengthSquaredTree) else LengthSquaredTree(A, rng=seed)
    tree._require_nonzero()
    numbers = np.arange(max(p, q), dtype=np.uint64)
    rows = tree._rows_at(uniform(random_words(numbers[:p], _ROWS, _LENGTH_SQUARED, seed)[:, 0]))
    words = random_words(numbers[:q], _COLUMNS, _LENGTH_SQUARED, seed)
    # All rows of S have the same norm: a row of S uniformly, then a column of it.
    through = rows[np.minimum((uniform(words[:, 0]) * p).astype(np.int64), p - 1)]
    columns = tree._draw_columns(through, uniform(words[:, 1]))
    W = _unit_rows(tree, rows, columns)
    W = W / (np.linalg.norm(W, axis=0) * q**0.5)
    U, values, _ = scipy.linalg.svd(W, full_matrices=False)
    kept = _count(values[:rank], W.shape)
    G = U[:, :kept] / (values[:kept] * p**0.5)
    found = values[:kept] * tree.frobenius_norm
    out = LowRankSample(tree, rows, columns, G, found, orthonormal, seed, tree._changes)
    if orthonormal:
        Q, lengths, Zh = scipy.linalg.svd(out.V, full_matrices=False)
        kept = _count(lengths, out.V.shape)
        G = G @ Zh[:kept].conj().T / lengths[:kept]
        out = LowRankSample(tree, rows, columns, G, found[:kept], orthonormal, seed, tree._changes)
        out.V = Q[:, :kept]
    return out


def _count(values: np.ndarray, shape: tuple[int, ...]) -> int:
    """How many singular values stand out from rounding errors."""
    return int(np.count_nonzero(values > max(shape) * np.finfo(float).eps * values[0]))


def _unit_rows(tree: LengthSquaredTree, indices: np.ndarray, columns: np.ndarray | None = None) -> _check.Matrix:
    """Rows of A divided by their norms (zero rows as they are), in float64 or complex128: those columns dense, or all."""
    rows: _check.Matrix = tree.rows(indices) if columns is None else tree.block(indices, columns)
    exponents, norms = -tree._exponents[indices], np.sqrt(tree._trees.totals(indices))
    norms[norms == 0] = 1
    values = (rows.data if sp.issparse(rows) else rows).astype(np.complex128 if tree.dtype.kind == "c" else np.float64)
    if sp.issparse(rows):
        exponents, norms = (np.repeat(a, np.diff(rows.indptr)) for a in (exponents, norms))
    else:
        exponents, norms = exponents[:, None], norms[:, None]
    for part in (values.real, values.imag) if values.dtype.kind == "c" else (values,):
        part[:] = np.ldexp(part, exponents) / norms
    return sp.csr_array((values, rows.indices, rows.indptr), shape=rows.shape) if sp.issparse(rows) else values
