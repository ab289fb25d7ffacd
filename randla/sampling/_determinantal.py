"""Determinantal sampling of rows through a thin orthonormal factor: nothing of size m x m, and of size m only vectors.

A kernel is held as Q = A N with orthonormal columns; rows of Q are made when they are looked at.
docs/definitions.md says which random words are read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.optimize import brentq
from scipy.special import expit

from .._numeric import powers_of_two
from .._random import random_words, uniform
from .._rows import Rows
from ..blocks import RowBlocks
from ..precondition import rank_cut

_STREAM = 13
_PROPOSALS, _VECTORS, _EXACT = range(3)  # sub-streams

_FAR, _LIFT = 2.0**920, 2.0**90  # sizes of columns whose inverses may overflow; a factor that makes room

_POOL = 128  # proposals looked at together where rows can be fetched one by one
_PATIENCE = 64  # times the expected number of proposals before a step is done exactly


def inverse(cumulative: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The first places whose cumulative sum is above u times the total, which is not reached for u <= 1 - 2^-53."""
    return np.searchsorted(cumulative, u * cumulative[-1], side="right")


class Range:
    """Orthonormal basis Q = A N of the range of A, and C with A = Q C / unit.

    rows, the matrix that gives Q: A or, where it is wide, a square matrix with the same A A'; N (n, rank); C (rank, n).
    Columns are scaled to one size before the rank is decided: it does not depend on their units.
    """

    def __init__(self, a: Any, weights: np.ndarray | None):
        m, n = a.shape
        self.eps = float(np.finfo(a.dtype).eps)
        self.rows = Rows(a, weights) if m >= n else self._squared(a, weights)
        sizes = self.rows.column_sizes()
        smallest = float(sizes[sizes > 0].min(initial=1.0))
        # What makes the smallest columns orthonormal would not be a number.
        lift = _LIFT if smallest < 1 / _FAR and sizes.max() < _FAR else 1.0
        if lift > 1:
            self.rows.roots = lift * (np.ones(m) if self.rows.roots is None else self.rows.roots)
            sizes = lift * sizes
        scale = powers_of_two(sizes)
        R = self.rows.triangle(scale)
        left, sigma, right = np.linalg.svd(R)
        self.cut = rank_cut(self.eps, m, m)
        self.rank = int(np.count_nonzero(sigma > self.cut * sigma.max(initial=0.0)))
        self.unit = float(scale[sizes > 0].min(initial=math.inf)) if self.rank else 1.0
        original = R * (self.unit / scale)
        self.unit *= lift
        if self.rank == len(R):
            inverted = scipy.linalg.solve_triangular(R, np.eye(len(R))) if self.rank else R
            self.N, self.C = scale[:, None] * inverted, original
        else:
            kept = right[: self.rank].conj().T / sigma[: self.rank]
            self.N, self.C = scale[:, None] * kept, left[:, : self.rank].conj().T @ original

    @staticmethod
    def _squared(a: Any, weights: np.ndarray | None) -> Rows:
        """For A with fewer rows than columns: R' (m, m) of A' = Q R, of the weighted rows."""
        if isinstance(a, RowBlocks):
            raise ValueError(f"A must have at least as many rows as columns where it comes in row blocks; got shape {a.shape}")
        transposed = Rows(sp.csr_array(a.T) if sp.issparse(a) else a.T)
        roots = np.ones(a.shape[0]) if weights is None else np.sqrt(weights)
        # The largest entry of a row as its unit: rows are not rescaled, but they may not overflow either.
        scale = powers_of_two(np.full(len(roots), (transposed.column_sizes() * roots).max(initial=0.0)))
        return Rows((transposed.triangle(roots * scale) / scale).T)

    def leverage(self) -> np.ndarray:
        """Squared norms of the rows of Q, (m,). One pass over A."""
        return self.rows.squares(self.N, np.ones((self.rank, 1)))[:, 0]

    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of the eigenvalues of A A', in falling order, and W with eigenvectors Q W; rounding errors left out."""
        W, sigma, _ = np.linalg.svd(self.C, full_matrices=False)
        kept = sigma > self.cut * sigma.max(initial=0.0)
        return 2 * (np.log(sigma[kept]) - math.log(self.unit)), W[:, kept]


def projection_sample(rows: Rows, N: np.ndarray | None, leverage: np.ndarray, rank: int, seed: int) -> np.ndarray:
    """Rows drawn from the projection DPP with kernel Q Q', Q = A N: det |Q_S|^2 is the probability of the set S.

    The chain rule (Hough, Krishnapur, Peres, Virág 2006) by rejection: a row proposed in proportion to its squared norm is
    accepted with the share of it that is orthogonal to the rows before, which takes rank * H(rank) proposals on average. The
    rows come in the order drawn; every order is equally probable.
    """
    cumulative = np.cumsum(leverage)
    dtype = rows.dtype if N is None else np.result_type(rows.dtype, N)
    basis = np.zeros((rank, rank), dtype)  # orthonormal rows that span the rows chosen so far
    chosen = np.empty(rank, np.int64)
    size = max(_POOL, rank // 2) if rows.fetches else int(1.2 * rank * (1 + math.log(max(rank, 1)))) + _POOL
    pool = _Pool(rows, N, cumulative, seed)
    for t in range(rank):
        limit = pool.position + int(_PATIENCE * (1 + rank / (rank - t)))
        direction = None
        while direction is None and pool.position < limit:
            if pool.position >= pool.stop:
                pool.refill(size, basis[:t])
            direction = pool.accept(min(limit, pool.stop), basis[:t], chosen[:t])
        if direction is None:
            direction = _exact_step(rows, N, basis[:t], chosen[:t], seed)
        chosen[t], basis[t] = direction
        pool.deflate(basis[t])
    return chosen


class _Pool:
    """Proposals, numbered from zero through the whole run: their rows of Q and what of these is orthogonal to the basis."""

    def __init__(self, rows: Rows, N: np.ndarray | None, cumulative: np.ndarray, seed: int):
        self.rows, self.N, self.cumulative, self.seed = rows, N, cumulative, seed
        self.start = self.stop = self.position = 0

    def refill(self, size: int, basis: np.ndarray) -> None:
        self.start, self.stop = self.stop, self.stop + size
        words = random_words(np.arange(self.start, self.stop, dtype=np.uint64), _PROPOSALS, _STREAM, self.seed)
        self.index = inverse(self.cumulative, uniform(words[:, 0]))
        rows = self.rows.take(self.index)
        self.Q = rows if self.N is None else rows @ self.N
        self.sizes = np.vecdot(self.Q, self.Q).real
        self.needed = uniform(words[:, 1]) * self.sizes
        projected = self.Q @ basis.conj().T
        self.left = self.sizes - np.vecdot(projected, projected).real

    def accept(self, stop: int, basis: np.ndarray, chosen: np.ndarray) -> tuple[int, np.ndarray] | None:
        """The next accepted row before proposal `stop`, with its new direction."""
        low, high = self.position - self.start, stop - self.start
        # `left` is a difference: what it lets through, rounding allowed for, is decided by the vector itself.
        for j in low + np.flatnonzero(self.needed[low:high] < self.left[low:high] + 1e-10 * self.sizes[low:high]):
            v = _orthogonal(self.Q[j], basis)
            square = np.vdot(v, v).real
            if self.needed[j] < square and self.index[j] not in chosen:
                self.position = self.start + int(j) + 1
                return int(self.index[j]), v / math.sqrt(square)
        self.position = stop
        return None

    def deflate(self, direction: np.ndarray) -> None:
        low = self.position - self.start
        if self.position < self.stop:
            self.left[low:] -= np.abs(self.Q[low:] @ direction.conj()) ** 2


def _orthogonal(v: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The part of v orthogonal to the rows of the basis; twice is enough (Parlett 1980)."""
    for _ in range(2):
        v = v - (basis.conj() @ v) @ basis
    return v


def _exact_step(rows: Rows, N: np.ndarray | None, basis: np.ndarray, chosen: np.ndarray, seed: int) -> tuple[int, np.ndarray]:
    """The same step from the conditional probabilities of all rows. One pass over A."""
    rank, t = basis.shape[1], len(basis)
    complement = np.eye(rank) - basis.conj().T @ basis
    left = rows.squares(complement if N is None else N @ complement, np.ones((rank, 1)))[:, 0]
    left[chosen] = 0
    word = random_words(np.array([t], np.uint64), _EXACT, _STREAM, seed)[:, 0]
    index = inverse(np.cumsum(left), uniform(word))
    row = rows.take(index)[0]
    v = _orthogonal(row if N is None else row @ N, basis)
    return int(index[0]), v / np.linalg.norm(v)


def fixed_size(log_odds: np.ndarray, k: int, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw k >= 1 of r items, a set J with probability proportional to the product of its odds; also the exact P(j in J), (r,).

    These are independent coins conditioned on k heads (Chen, Dempster, Liu 1994). All odds may be multiplied by one number:
    with the one that gives k heads on average, the probabilities of partial counts, which stand for the elementary symmetric
    polynomials of Kulesza and Taskar (2011), neither overflow nor underflow where it matters.
    """
    r = len(log_odds)
    if k == r:
        return np.arange(r), np.ones(r)
    far = math.log(r) + 1
    shift = brentq(lambda x: expit(log_odds + x).sum() - k, -log_odds.max() - far, -log_odds.min() + far)
    heads, tails = expit(log_odds + shift), expit(-log_odds - shift)
    count = np.zeros((r + 1, k + 1))  # count[j, l]: probability of l heads among the first j coins
    count[0, 0] = 1
    for j in range(r):
        count[j + 1] = tails[j] * count[j]
        count[j + 1, 1:] += heads[j] * count[j, :-1]
    taken, probabilities = [], np.empty(r)
    left, reach = k, np.zeros(k + 1)  # reach[l]: probability that l are still to be taken
    reach[k] = 1
    for j in reversed(range(r)):
        share = np.divide(reach, count[j + 1], out=np.zeros(k + 1), where=count[j + 1] > 0)
        included = share[1:] * heads[j] * count[j, :-1]
        probabilities[j] = included.sum()
        reach = share * tails[j] * count[j]
        reach[:-1] += included
        if left and u[j] * count[j + 1, left] < heads[j] * count[j, left - 1]:
            taken.append(j)
            left -= 1
    return np.array(taken[::-1], np.int64), np.minimum(probabilities, 1)


def determinantal_sample(
    rows: Rows, N: np.ndarray | None, log_values: np.ndarray, k: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rows of the (k-)DPP whose kernel has eigenvectors A N and these eigenvalues, and inclusion probabilities (m,)."""
    r = len(log_values)
    u = uniform(random_words(np.arange(r, dtype=np.uint64), _VECTORS, _STREAM, seed)[:, 0])
    if k is None:
        expected = expit(log_values)
        taken = np.flatnonzero(u < expected)
    else:
        taken, expected = fixed_size(log_values, k, u)
    of_taken = np.zeros(r)
    of_taken[taken] = 1
    leverage, inclusion = rows.squares(N, np.column_stack([of_taken, expected])).T
    vectors = np.eye(r)[:, taken] if N is None else N[:, taken]
    index = projection_sample(rows, vectors, leverage, len(taken), seed)
    return np.sort(index), np.minimum(inclusion, 1)


def require_orthonormal(rows: Rows) -> None:
    """Raise where the columns of a factor are not orthonormal."""
    r = rows.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.abs(rows.gram(np.ones(r)) - np.eye(r)).max(initial=0.0))
    if not error <= math.sqrt(float(np.finfo(rows.a.dtype).eps)):
        raise ValueError(f"factor must have orthonormal columns; got F'F off from the identity by {error:.2g}")
