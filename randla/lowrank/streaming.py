"""Truncated singular value decomposition of a matrix whose rows are seen once: `StreamingSVD`."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from .. import _check
from ..sketch import Distribution, Gaussian, SketchOperator, SparseStack
from ._probes import sub_seed
from ._products import norm_of, product
from ._range import orthonormalize
from ._sums import add_accumulator
from ._truncated import SVDResult
from .result import LowRankStatus
from .svd import fix_signs

_STREAM = 23  # see docs/definitions.md
_RANGE, _CORANGE, _CORE_LEFT, _CORE_RIGHT, _ERROR = range(5)  # purposes within the stream

# Rows that are sketched together, whatever chunks they came in: at most this many, and this many entries.
_WINDOW, _WINDOW_ENTRIES = 1024, 1 << 22
_OPEN = 8  # windows that may wait for the rest of their rows
_FLOOR = 10.0  # times eps sqrt(range_size) ||A||_F: errors that are rounding


@dataclasses.dataclass(repr=False, kw_only=True)
class StreamingSVDResult(SVDResult):
    """An `SVDResult` from one pass, with what the sketches tell of all ranks.

    Singular values have errors of either sign, |s_i - sigma_i| <= tail_error. `error` is an estimate from the error sketch,
    whose square has the right mean; `norm` is exact.

    Attributes
    ----------
    tails : ndarray (dim + 1,)
        The smallest error of rank j = 0, 1, ... in the Frobenius norm lies in tails[j] +- tail_error: a scree plot.
    tail_error : float
        Estimate of the distance, in the Frobenius norm, of A from the approximation before it was cut to rank k.
    """

    tails: np.ndarray
    tail_error: float


class StreamingSVD:
    """The leading singular triplets of an (m, n) matrix whose rows come once, in chunks and in any order.

    Three sketches hold the range, the co-range and the core of A; a fourth, which the approximation does not use, tells its
    error (Tropp, Yurtsever, Udell, Cevher 2019). Parts of the rows can be added on different machines and merged.

    The result has the same bits for all chunks, orders and mergers of the same rows, as long as in no stream more than 8
    windows of `window` rows (the first of each a multiple of it) are incomplete at a time; otherwise it is the same up to
    rounding.

    Parameters
    ----------
    m, n : int
        Shape of the matrix. Rows that never come are zero.
    k : int
        Rank of the result. Cut at min(m, n).
    dtype : dtype
        Of the rows: float32, float64, complex64 or complex128.
    range_size : int
        Rows of the sketches of range and co-range, at least k. 4 k + 1 by default, cut at min(m, n).
    core_size : int
        Rows and columns of the sketch of the core, at least range_size. 2 range_size + 1 by default.
    error_size : int
        Rows of the error sketch. Relative standard deviation of `error`: at most about 1 / sqrt(2 error_size), less where
        several singular values make the error.
    distribution : Distribution
        Of the sketches but the last, which is Gaussian. By default SparseStack(), or Gaussian() where m or n is below twice
        range_size. With Gaussian() and no cut, range_size = l and core_size = s, for every r < l - 1
        E ||error||_F^2 <= (s - 1) / (s - l - 1) (l + r - 1) / (l - r - 1) sum_{i > r} sigma_i^2.
    rng : as in SPEC 7

    Attributes
    ----------
    shape : (int, int)
    dtype : numpy.dtype
    rows_seen : int
    window : int
    seed : int
        Replays the run. Only streams of the same seed and sizes can be merged.

    Notes
    -----
    Memory: m range_size + 5 n (range_size + error_size) + 5 core_size^2 numbers, and incomplete windows.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments.
    """

    def __init__(
        self,
        m: int,
        n: int,
        k: int,
        *,
        dtype: Any = float,
        range_size: int | None = None,
        core_size: int | None = None,
        error_size: int = 10,
        distribution: Distribution | None = None,
        rng: Any = None,
    ):
        self.shape = m, n = _check.integer(m, "m", 0), _check.integer(n, "n", 0)
        self.dtype = _check.dtype_of(np.dtype(dtype), "dtype")
        self.k = min(_check.integer(k, "k", 1), m, n)
        default = max(1, min(4 * self.k + 1, m, n))
        self.range_size = default if range_size is None else _check.integer(range_size, "range_size", self.k)
        default = 2 * self.range_size + 1
        self.core_size = default if core_size is None else _check.integer(core_size, "core_size", self.range_size)
        self.error_size = _check.integer(error_size, "error_size", 1)
        if distribution is None:
            # A nearly square sketch with few entries a column may be singular.
            distribution = Gaussian() if min(m, n) < 2 * self.range_size else SparseStack()
        elif not isinstance(distribution, Distribution):
            raise TypeError(f"distribution must be a Distribution such as SparseStack(); got {distribution!r}")
        self.distribution = distribution
        self.seed = _check.seed(rng)
        self.window = _WINDOW
        while self.window > 16 and self.window * n > _WINDOW_ENTRIES:
            self.window //= 2

        self._range = self._sketch(_RANGE, self.range_size, n)
        self._core_right = self._sketch(_CORE_RIGHT, self.core_size, n)
        self._core_left = self._sketch(_CORE_LEFT, self.core_size, m)
        self._error = Gaussian().sample(self.error_size, m, rng=sub_seed(_ERROR, _STREAM, self.seed))
        self._sums = [
            self._sketch(_CORANGE, self.range_size, m).accumulator(n, self.dtype),
            self._core_left.accumulator(self.core_size, self.dtype),
            self._error.accumulator(n, self.dtype),
        ]
        self._images = np.zeros((m, self.range_size), self.dtype)  # A times the transposed sketch of the range
        self._seen = np.zeros(m, bool)
        self._norms: dict[int, tuple[int, float]] = {}  # number of rows and norm of what was sketched, by offset
        self._waiting: dict[int, list[tuple[int, Any]]] = {}  # by window: offset and rows
        self._next = 0

    def _sketch(self, purpose: int, rows: int, columns: int) -> SketchOperator:
        return self.distribution.sample(rows, columns, rng=sub_seed(purpose, _STREAM, self.seed))

    @property
    def rows_seen(self) -> int:
        return int(np.count_nonzero(self._seen))

    def add(self, rows: Any, offset: int | None = None) -> None:
        """Add rows [offset, offset + count) of A; without an offset, those behind the last ones that came.

        rows : array or CSR/CSC matrix (count, n); it may be overwritten afterwards.
        Raises TypeError for complex rows of a real stream, ValueError for NaN and infinity, and for rows that do not fit or
        have come before. Nothing is added then.
        """
        m, n = self.shape
        chunk = _check.matrix(rows, "rows")
        start = self._next if offset is None else _check.integer(offset, "offset", 0)
        stop = start + chunk.shape[0]
        if chunk.shape[1] != n or stop > m:
            raise ValueError(f"rows must have {n} columns and end by row {m}; got shape {chunk.shape} at offset {start}")
        if chunk.dtype.kind == "c" and self.dtype.kind != "c":
            raise TypeError(f"rows must be real, as the stream's dtype is {self.dtype}; got {chunk.dtype}")
        if self._seen[start:stop].any():
            first = start + int(np.argmax(self._seen[start:stop]))
            raise ValueError(f"rows must come once each; got row {first} again")
        with np.errstate(over="ignore"):
            chunk = chunk.astype(self.dtype, copy=False)
        if not np.isfinite(chunk.data if sp.issparse(chunk) else chunk).all():
            raise ValueError(f"rows must be finite in {self.dtype}; got NaN or infinite entries")
        self._seen[start:stop] = True
        self._next = max(self._next, stop)
        self._hold(start, chunk)

    def merge(self, other: StreamingSVD) -> None:
        """Add the rows that another stream has seen, which stays as it is.

        Raises TypeError for what is no stream, ValueError where its shape, sizes, dtype, distribution or seed are not the same
        or where it has seen a row of this one.
        """
        if not isinstance(other, StreamingSVD):
            raise TypeError(f"other must be a StreamingSVD; got {type(other).__name__}")
        for name in ("shape", "dtype", "k", "range_size", "core_size", "error_size", "distribution", "seed"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise ValueError(f"other must have the same {name}, {mine}; got {its}")
        if (both := self._seen & other._seen).any():
            raise ValueError(f"other must have seen other rows; got row {int(np.argmax(both))} in both")
        self._seen |= other._seen
        self._next = max(self._next, other._next)
        for mine, its in zip(self._sums, other._sums, strict=True):
            add_accumulator(mine, its)
        for offset, (count, _) in other._norms.items():
            self._images[offset : offset + count] = other._images[offset : offset + count]
        self._norms.update(other._norms)
        for parts in list(other._waiting.values()):
            for offset, rows in parts:
                self._hold(offset, rows)

    def result(self, k: int | None = None) -> StreamingSVDResult:
        """The decomposition of the rows so far, of rank k <= range_size instead of that given first. More may be added later.

        Raises ValueError where sums of entries overflow.
        """
        rank = self.k if k is None else min(_check.integer(k, "k", 1, self.range_size), *self.shape)
        if self._waiting:
            complete = copy.deepcopy(self)
            for w in sorted(self._waiting):
                complete._release(w)
            result = complete._decomposed(rank)
        else:
            result = self._decomposed(rank)
        if missing := self.shape[0] - self.rows_seen:
            result.notes = f"{missing} of {self.shape[0]} rows have not come and count as zero."
        return result

    def _hold(self, start: int, rows: Any) -> None:
        """Sketch the windows that are complete, and keep the rows of others."""
        m, stop = self.shape[0], start + rows.shape[0]
        for w in range(start // self.window, -(-stop // self.window)):
            first, last = w * self.window, min((w + 1) * self.window, m)
            low, high = max(start, first), min(stop, last)
            part = rows[low - start : high - start]
            if (low, high) == (first, last):
                self._take(low, part)
                continue
            self._waiting.setdefault(w, []).append((low, part.copy()))
            if self._seen[first:last].all() and sum(p.shape[0] for _, p in self._waiting[w]) >= self._unsketched(first, last):
                self._release(w)
            elif len(self._waiting) > _OPEN:
                self._release(next(iter(self._waiting)))

    def _unsketched(self, first: int, last: int) -> int:
        return last - first - sum(self._norms[i][0] for i in range(first, last) if i in self._norms)

    def _release(self, w: int) -> None:
        """Sketch what there is of window w, joined as far as it is contiguous."""
        parts = sorted(self._waiting.pop(w), key=lambda part: part[0])
        run = [parts[0]]
        for offset, rows in [*parts[1:], (-1, None)]:
            if offset == run[-1][0] + run[-1][1].shape[0]:
                run.append((offset, rows))
                continue
            self._take(run[0][0], _joined([part for _, part in run]))
            run = [(offset, rows)]

    def _take(self, offset: int, rows: Any) -> None:
        """Sketch these rows."""
        if sp.issparse(rows):
            if not rows.has_canonical_format:
                rows = rows.copy()
                rows.sum_duplicates()
            norm, columns = norm_of([rows.data], "rows"), rows.T.tocsr()
        else:
            rows = np.ascontiguousarray(rows)
            norm, columns = norm_of([rows], "rows"), rows.T
        self._norms[offset] = rows.shape[0], norm
        self._images[offset : offset + rows.shape[0]] = (self._range @ columns).T
        corange, core, error = self._sums
        corange.add(rows, offset)
        core.add((self._core_right @ columns).T, offset)
        error.add(rows, offset)

    def _decomposed(self, k: int) -> StreamingSVDResult:
        norm = math.hypot(*(self._norms[i][1] for i in sorted(self._norms)))
        if norm == 0.0:
            return self._zero(k)
        # Sizes near one, so that no square overflows; what the sketches have lost to underflow or overflow is lost.
        limit = 120 if self.dtype.char in "fF" else 1000
        exponent = -limit if math.isinf(norm) else max(-limit, min(limit, -math.frexp(norm)[1]))
        factor = np.ldexp(_check.real_dtype(self.dtype).type(1), exponent)
        Y, X, Z, W = (part * factor for part in (self._images, *(total.result() for total in self._sums)))
        if not all(np.isfinite(part).all() for part in (Y, X, Z, W)):
            raise ValueError(f"rows must be small enough for sums of their entries; these overflow in {self.dtype}")
        Q, P = orthonormalize(Y), orthonormalize(np.ascontiguousarray(X.conj().T))
        wide = np.result_type(self.dtype, np.float64)
        C = _solution((self._core_left @ Q).astype(wide), Z.astype(wide))
        C = _solution((self._core_right @ P.conj()).astype(wide), C.T).T
        left, s, right = scipy.linalg.svd(C, full_matrices=False, check_finite=False)
        tails = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0))
        scaled = math.ldexp(norm, exponent) if math.isfinite(norm) else float(tails[0])
        sketched = product((self._error @ Q).astype(wide), left) * s
        rotated = product(right, P.conj().T.astype(wide))
        outside = W - product(sketched, rotated)
        cut = product(sketched[:, k:], rotated[k:])
        rounding = float(np.finfo(self.dtype).eps) * math.sqrt(len(s)) * scaled
        tail_error = math.hypot(float(np.linalg.norm(outside)), rounding)
        error = math.hypot(_error_of_cut(outside, cut, float(tails[k])), rounding)
        U = product(Q, left[:, :k].astype(self.dtype))
        Vh = np.ascontiguousarray(rotated[:k].astype(self.dtype))
        fix_signs(U, Vh)
        status = LowRankStatus.EXACT if error <= _FLOOR * rounding else LowRankStatus.RANK_REACHED
        return self._packed(U, s[:k], Vh, exponent, error, norm, status, tails, tail_error)

    def _zero(self, k: int) -> StreamingSVDResult:
        m, n = self.shape
        U, Vh = np.eye(m, k, dtype=self.dtype), np.eye(k, n, dtype=self.dtype)
        tails = np.zeros(min(self.range_size, m, n) + 1)
        return self._packed(U, np.zeros(k), Vh, 0, 0.0, 0.0, LowRankStatus.EXACT, tails, 0.0)

    def _packed(
        self,
        U: np.ndarray,
        s: np.ndarray,
        Vh: np.ndarray,
        exponent: int,
        error: float,
        norm: float,
        status: LowRankStatus,
        tails: np.ndarray,
        tail_error: float,
    ) -> StreamingSVDResult:
        """The result for what was computed with 2^exponent A; `norm` is that of A."""
        real = _check.real_dtype(self.dtype)
        with np.errstate(over="ignore"):
            return StreamingSVDResult(
                U=U,
                s=np.ldexp(s, -exponent).astype(real),
                Vh=Vh,
                error=float(np.ldexp(error, -exponent)),
                norm=norm,
                s_upper=np.ldexp(s + tail_error, -exponent).astype(real),
                error_source="probes",
                dim=len(tails) - 1,
                method="streaming",
                passes=1,
                mean=None,
                seed=self.seed,
                status=status,
                tails=np.ldexp(tails, -exponent),
                tail_error=float(np.ldexp(tail_error, -exponent)),
            )


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if all(sp.issparse(part) for part in parts):
        return sp.csr_array(sp.vstack(parts, format="csr"))
    return np.concatenate([part.toarray() if sp.issparse(part) else part for part in parts])


def _solution(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Least squares, of smallest norm where A is deficient."""
    return scipy.linalg.lstsq(A, B, lapack_driver="gelsy", check_finite=False)[0]


def _error_of_cut(outside: np.ndarray, cut: np.ndarray, tail: float) -> float:
    """||E + D||_F from sketches of E, the error before the cut, and D, what is cut, whose norm is known.

    Where D is the larger part, only the rest of the square is taken from the sketches: both have the right mean.
    """
    direct = float(np.linalg.norm(outside + cut))
    drawn = float(np.linalg.norm(cut))
    if float(np.linalg.norm(outside)) < drawn:
        square = (direct - drawn) * (direct + drawn) + tail**2
        if square > 0:
            return math.sqrt(square)
    return direct
