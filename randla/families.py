"""Distributions of sketches: values that say how the entries of S are made and how S is applied.

docs/definitions.md defines every entry of every operator. Entry (i, j) is a pure function of the seed, so blocks, threads,
chunks and instruction sets cannot change it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from . import _check, _cpu, _csr
from ._backend import cosine_transform, is_sparse, kernels, like, namespace, on_device, same_device, sparse_on_device, to_host
from ._device_draws import Law, uniform_numbers
from ._operator import SketchOperator
from ._random import random_words, uniform

_TILE = 1 << 20  # entries of a dense S made at a time: 8 MB
_PANEL = 1 << 21  # the same on a device, where a product with few columns of S wastes its units
_TRANSFORM_COLUMNS = 16  # columns of A in one call of a cosine transform
_ROW_SAMPLE = 11  # stream, see docs/definitions.md
_TRANSFORM_SIGNS = 8


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A family of random d x m matrices S with E[S'S] = I; `sample` draws one."""

    def sample(self, d: int, m: int, rng: Any = None) -> SketchOperator:
        """Draw a (d, m) operator. rng: None | int | SeedSequence | BitGenerator | Generator (SPEC 7)."""
        d = _check.integer(d, "d", 1, 2**31 - 1)
        m = _check.integer(m, "m", 0, 2**62)
        self._check_width(m)
        return SketchOperator(self, (d, m), _check.seed(rng))

    def _check_width(self, m: int) -> None:
        """Raise where m does not suit."""

    # What a family provides. A has a real float dtype and is dense or CSR, of the host or of a device; `out` is
    # C-contiguous.
    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        """out += S[:, j0 : j0 + rows of A] @ A."""
        raise NotImplementedError

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        """out = S[:, j0 : j0 + rows of out]' @ Y."""
        raise NotImplementedError

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        """S[i0:i1, j0:j1] in float64."""
        raise NotImplementedError


def _add_listed(S: Any, A: _check.Matrix, out: np.ndarray) -> None:
    """out += S @ A for a sketch whose entries are listed, as CSR of the host or where A is."""
    listed = S.indptr.astype(np.int64), S.indices.astype(np.int64), S.data.astype(np.float64)
    entries = kernels(A).Entries(*(like(A, part) for part in listed))
    if is_sparse(A):
        kernels(A).gather_csr(entries, *_csr.parts(A), A.shape[1], out)
    else:
        kernels(A).gather(entries, A, out)


class _ByColumns(Distribution):
    """Families known by the entries of a column: rows (count, z) and values (count, z)."""

    def _columns(self, s: SketchOperator, j0: int, j1: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _csc(self, s: SketchOperator, j0: int, j1: int) -> sp.csc_array:
        rows, values = self._columns(s, j0, j1)
        indptr = np.arange(0, rows.size + 1, rows.shape[1] if rows.size else 1)
        return sp.csc_array((values.ravel(), rows.ravel(), indptr), shape=(s.shape[0], j1 - j0))

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        rows, values = self._columns(s, j0, j1)
        columns = np.broadcast_to(np.arange(j1 - j0)[:, None], rows.shape)
        inside = (rows >= i0) & (rows < i1)
        out = np.zeros((i1 - i0, j1 - j0))
        np.add.at(out, (rows[inside] - i0, columns[inside]), values[inside])
        return out


class _Sparse(_ByColumns):
    nnz: int
    _family: ClassVar[int]

    def __post_init__(self) -> None:
        _check.integer(self.nnz, "nnz", 1, 256)

    def _arguments(self, s: SketchOperator) -> tuple[int, int, int, int]:
        d, m = s.shape
        return self._family, d, m, min(self.nnz, d)

    def _columns(self, s: SketchOperator, j0: int, j1: int) -> tuple[np.ndarray, np.ndarray]:
        return _cpu.sparse_columns(*self._arguments(s), s.seed, j0, j1)

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray, first: int = 0) -> None:
        arguments, sparse = (*self._arguments(s), first), is_sparse(A)
        given = (*_csr.parts(A), A.shape[1]) if sparse else (A,)
        if on_device(A) and j0 == first == 0 and A.shape[0] == s.shape[1]:
            # All columns of S: their entries are sorted once for all products.
            window = 0 if sparse else kernels(A).window_rows(*arguments, A)
            entries = s._once_on_device(A, window, lambda: self._sorted_entries(s, A, window))
            if sparse:
                kernels(A).sorted_sketch_csr(*arguments, *entries, *given, out)
            else:
                kernels(A).sorted_sketch(*arguments, window, *entries, *given, out)
        elif sparse:
            kernels(A).sparse_sketch_csr(*arguments, s.seed, *given, j0, out)
        else:
            kernels(A).sparse_sketch(*arguments, s.seed, *given, j0, out)

    def _sorted_entries(self, s: SketchOperator, like: Any, window: int) -> tuple[Any, Any]:
        """The entries of S on the device of an array, sorted by rows of S, for all columns or for windows of them."""
        xp, (d, m), nnz = namespace(like), s.shape, min(self.nnz, s.shape[0])
        if window:
            windows = -(-m // window)
            out = xp.empty((windows, (d + 8) // 8 * 8), np.uint16), xp.empty((windows, window * nnz), np.uint16)
        else:
            out = xp.empty(d + 1, np.int64), xp.empty(m * nnz, np.uint32)
        kernels(like).sort_entries(*self._arguments(s), 0, s.seed, 0, m, window, *out)
        return out

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        kernels(Y).sparse_sketch_adjoint(*self._arguments(s), 0, s.seed, Y, j0, out)


class _Stack(_Sparse):
    _family: ClassVar[int] = 0

    def _rows_from_block(self, s: SketchOperator, first: int) -> Any:
        """The map A -> the rows of S @ A from block `first` on, where all blocks have one size."""

        def rows(A: _check.Matrix) -> np.ndarray:
            out = namespace(A).zeros((s.shape[0] // self.nnz * (self.nnz - first), A.shape[1]), A.dtype)
            self._apply(s, A, 0, out, first)
            return out

        return rows


@dataclasses.dataclass(frozen=True)
class SparseStack(_Stack):
    """nnz entries +-1/sqrt(nnz) per column, one in each of nnz blocks of rows (Chenakkod, Dereziński, Dong 2025)."""

    nnz: int = 8


@dataclasses.dataclass(frozen=True)
class SparseSign(_Sparse):
    """nnz entries +-1/sqrt(nnz) per column in distinct, uniformly random rows (Nelson, Nguyen 2013)."""

    nnz: int = 8
    _family: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class CountSketch(_Stack):
    """One entry +-1 per column (Clarkson, Woodruff 2013). An embedding only for d of order n^2: not for least squares."""

    # Not a field: there is nothing to choose.
    nnz: ClassVar[int] = 1  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class BlockSRHT(_ByColumns):
    """Groups of `block` rows mixed by a randomly signed Hadamard matrix and added to one block of output rows.

    Reads a dense matrix once at about the speed of memory, whatever d is. block: 16, 32, 64 or 128.
    """

    block: int = 64

    def __post_init__(self) -> None:
        if type(self.block) is not int or self.block not in (16, 32, 64, 128):
            raise ValueError(f"block must be 16, 32, 64 or 128; got {self.block!r}")

    def _blocks(self, d: int) -> int:
        return -(-d // self.block)

    def _block_starts(self, d: int) -> np.ndarray:
        """First row of each output block, and d."""
        nb = self._blocks(d)
        k = np.arange(nb + 1)
        return k * (d // nb) + np.minimum(k, d % nb)

    def _columns(self, s: SketchOperator, j0: int, j1: int) -> tuple[np.ndarray, np.ndarray]:
        return _cpu.block_srht_columns(*s.shape, self.block, s.seed, j0, j1)

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        blocks = self._blocks(s.shape[0])
        if not is_sparse(A):
            kernels(A).block_srht(*s.shape, self.block, s.seed, A, j0, 0, blocks, out)
            return
        if on_device(A):
            for i, rows in _csr.dense_blocks(A, 64 * self.block):
                kernels(A).block_srht(*s.shape, self.block, s.seed, rows, j0 + i, 0, blocks, out)
            return
        # A group mixes rows of different patterns: every entry of A counts `block` times. Listed window by window.
        window = 64 * self.block
        for start in range(j0 // window * window, j0 + A.shape[0], window):
            low, high = max(start, j0), min(start + window, j0 + A.shape[0])
            _add_listed(self._csc(s, low, high).tocsr(), A[low - j0 : high - j0], out)

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        kernels(Y).block_srht_adjoint(*s.shape, self.block, s.seed, Y, j0, out)


class _Dense(Distribution):
    """S is made panel by panel inside its products and never stored."""

    _family: ClassVar[int]

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        d = s.shape[0]
        if sparse_on_device(A):
            self._apply_to_csr(s, A, j0, out)
            return
        if on_device(A):
            for j, panel in self._panels(s, A, j0, A.shape[0]):
                out += panel @ A[j : j + panel.shape[1]]
            return
        if not sp.issparse(A):
            _cpu.dense_product(self._family, d, s.seed, A, j0, out)
            return
        # The other way round: A lists the entries of a product with tiles of S'.
        total = np.zeros((A.shape[1], d), out.dtype)
        width = max(16, _TILE // d)
        for j in range(0, A.shape[0], width):
            rows = A[j : j + width]
            tile = np.empty((d, rows.shape[0]), out.dtype)
            _cpu.dense_sketch(self._family, d, s.seed, tile, 0, j0 + j)
            _add_listed(sp.csr_array(rows.T), np.ascontiguousarray(tile.T), total)
        out += total.T

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        if on_device(Y):
            for j, panel in self._panels(s, Y, j0, out.shape[0]):
                out[j : j + panel.shape[1]] = panel.T @ Y
            return
        out[:] = 0
        _cpu.dense_product_adjoint(self._family, s.shape[0], s.seed, Y, j0, out)

    def _apply_to_csr(self, s: SketchOperator, A: Any, j0: int, out: Any) -> None:
        # As on the host: A' lists the entries of a product with panels of S', which is a read of a row of S' for every entry.
        xp = namespace(A)
        total = xp.zeros((A.shape[1], s.shape[0]), out.dtype)
        for j, rows in _csr.row_slices(A, max(16, 16 * _PANEL // s.shape[0])):
            panel = self._panel(s, A, j0 + j, rows.shape[0])
            _add_listed(_csr.transposed(rows), xp.ascontiguousarray(panel.T), total)
        out += total.T

    def _panels(self, s: SketchOperator, like: Any, j0: int, count: int) -> Iterator[tuple[int, Any]]:
        """Columns j0 .. j0 + count - 1 of S on the device of an array, as many at a time as stay in its cache."""
        width = max(16, _PANEL // s.shape[0])
        for j in range(0, count, width):
            yield j, self._panel(s, like, j0 + j, min(width, count - j))

    def _panel(self, s: SketchOperator, like: Any, j0: int, count: int) -> Any:
        panel = namespace(like).empty((s.shape[0], count), like.dtype)
        kernels(like).dense_sketch(self._family, s.shape[0], s.seed, panel, 0, j0)
        return panel

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        out = np.empty((i1 - i0, j1 - j0))
        _cpu.dense_sketch(self._family, s.shape[0], s.seed, out, i0, j0)
        return out


@dataclasses.dataclass(frozen=True)
class Gaussian(_Dense):
    """Independent N(0, 1/d) entries: the best constants, and the theory."""

    _family: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class Rademacher(_Dense):
    """Independent signs +-1/sqrt(d) (Achlioptas 2003): as good as Gaussian and cheaper to make."""

    _family: ClassVar[int] = 1


class _Listed(Distribution):
    """Families with few entries per row of S, all of which can be listed."""

    def _entries(self, s: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        """Columns (d, z) and values (d, z)."""
        raise NotImplementedError

    def _csr(self, s: SketchOperator, j0: int, j1: int) -> sp.csr_array:
        columns, values = self._entries(s)
        inside = (columns >= j0) & (columns < j1)
        indptr = np.concatenate([[0], np.cumsum(inside.sum(axis=1))])
        return sp.csr_array((values[inside], columns[inside] - j0, indptr), shape=(s.shape[0], j1 - j0))

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        _add_listed(self._csr(s, j0, j0 + A.shape[0]), A, out)

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        out[:] = 0
        _add_listed(sp.csr_array(self._csr(s, j0, j0 + out.shape[0]).T), Y, out)

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        return self._csr(s, j0, j1)[i0:i1].toarray()


@dataclasses.dataclass(frozen=True)
class LessUniform(_Listed):
    """nnz entries +-sqrt(m / (nnz d)) per row of S in distinct, uniformly random columns (Dereziński et al. 2021).

    Reads nnz d rows of A, not all of them: an embedding where leverage is spread evenly, or where nnz d is several m.
    """

    nnz: int = 64

    def __post_init__(self) -> None:
        _check.integer(self.nnz, "nnz", 1, 256)

    def _entries(self, s: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        d, m = s.shape
        return _cpu.less_uniform_entries(d, m, min(self.nnz, m), s.seed)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RowSample(_Listed):
    """d rows of A drawn with replacement, row j with probability p_j and weight 1/sqrt(d p_j).

    probabilities : array (m,), None for uniform ones
        Not negative, not all zero; scaled to sum one. A copy is kept. From an array of a CUDA device rows are drawn there, as
        `sample_rows` does, and the d of them come to the host once; A must be on the device then.
    """

    probabilities: Any = None

    def __post_init__(self) -> None:
        if self.probabilities is None:
            return
        given = _check.real_array(self.probabilities, "probabilities", device=True)
        if given.ndim != 1 or not given.size:
            raise ValueError(f"probabilities must be a vector with an entry for each row; got shape {given.shape}")
        p = namespace(given).array(given, np.float64)
        least, most = map(float, to_host(namespace(p).stack([p.min(), p.max()])))
        if not (least >= 0 and 0 < most < np.inf):
            raise ValueError(
                f"probabilities must be finite, not negative and not all zero; got values from {least:g} to {most:g}"
            )
        if on_device(p):
            object.__setattr__(self, "probabilities", Law(p).probabilities)
            return
        p /= most
        p /= p.sum()
        p.flags.writeable = False
        object.__setattr__(self, "probabilities", p)

    def _check_width(self, m: int) -> None:
        if self.probabilities is not None and len(self.probabilities) != m:
            raise ValueError(f"probabilities must have one entry for each of the {m} rows; got {len(self.probabilities)}")

    def _entries(self, s: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        d, m = s.shape
        if m == 0:
            return np.zeros((d, 0), np.int64), np.zeros((d, 0))
        if on_device(self.probabilities):
            columns, values = s._once_on_device(self.probabilities, "rows", lambda: self._drawn_there(s))
            return columns[:, None], values[:, None]
        word = random_words(np.arange(d, dtype=np.uint64), 0, _ROW_SAMPLE, s.seed)[:, 0]
        u = uniform(word)
        if self.probabilities is None:
            columns = np.minimum((u * m).astype(np.int64), m - 1)
            return columns[:, None], np.full((d, 1), np.sqrt(m / d))
        total = np.cumsum(self.probabilities)
        columns = np.searchsorted(total, u * total[-1], side="right")
        columns = np.minimum(columns, np.flatnonzero(self.probabilities)[-1])
        return columns[:, None], 1 / np.sqrt(d * self.probabilities[columns])[:, None]

    def _drawn_there(self, s: SketchOperator) -> tuple[np.ndarray, np.ndarray]:
        p, d = self.probabilities, s.shape[0]
        rows = Law(p).draw(uniform_numbers(p, d, _ROW_SAMPLE, s.seed))
        # Row numbers of what fits into a device are exact in float64: one wait for both.
        found = to_host(namespace(p).stack([rows.astype(np.float64), 1 / namespace(p).sqrt(d * p[rows])]))
        return found[0].astype(np.int64), found[1]

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        self._require_beside(A)
        super()._apply(s, A, j0, out)

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        self._require_beside(Y)
        super()._adjoint(s, Y, j0, out)

    def _require_beside(self, A: Any) -> None:
        if on_device(self.probabilities):
            same_device(probabilities=self.probabilities, A=A)

    def __eq__(self, other: object) -> bool:
        if type(other) is not RowSample or on_device(self.probabilities) != on_device(other.probabilities):
            return False
        return bool(namespace(self._key()).array_equal(self._key(), other._key()))

    def __hash__(self) -> int:
        # Numbers of a device stay there.
        return hash(("RowSample", len(self._key()) if on_device(self.probabilities) else self._key().tobytes()))

    def _key(self) -> Any:
        return np.zeros(0) if self.probabilities is None else self.probabilities

    def __repr__(self) -> str:
        p = self.probabilities
        return "RowSample()" if p is None else f"RowSample(<{len(p)} probabilities>)"


@dataclasses.dataclass(frozen=True)
class SRTT(Distribution):
    """d rows of an orthogonal transform, after `rounds` rounds of random signs and transform (Ailon, Chazelle 2009).

    transform : "hadamard" (rows padded with zeros to a power of two) or "dct" (cosine transform of any length)
    rounds : 1 to 8; one round fails for matrices aligned with the transform
    """

    transform: str = "hadamard"
    rounds: int = 2

    def __post_init__(self) -> None:
        if self.transform not in ("hadamard", "dct"):
            raise ValueError(f"transform must be 'hadamard' or 'dct'; got {self.transform!r}")
        _check.integer(self.rounds, "rounds", 1, 8)

    def _check_width(self, m: int) -> None:
        if m > 2**40:
            raise ValueError(f"m must be at most 2^40 for a transform of all rows; got {m}")

    def _apply(self, s: SketchOperator, A: _check.Matrix, j0: int, out: np.ndarray) -> None:
        if is_sparse(A):
            for c, strip in self._dense_columns(A):
                part = namespace(A).zeros((len(out), strip.shape[1]), out.dtype)
                self._apply(s, strip, j0, part)
                out[:, c : c + strip.shape[1]] += part
        elif self.transform == "hadamard":
            kernels(A).srtt(*s.shape, self.rounds, s.seed, *self._kept_on_device(s, A), A, j0, out)
        else:
            self._cosines(s, A, j0, out)

    @staticmethod
    def _dense_columns(A: _check.Matrix) -> Iterator[tuple[int, np.ndarray]]:
        """A few columns of a sparse matrix at a time."""
        width, n = 4 * _TRANSFORM_COLUMNS, A.shape[1]
        columns = _csr.transposed(A) if on_device(A) else sp.csc_array(A)
        for c in range(0, n, width):
            if on_device(A):
                yield c, _csr.dense_rows(columns, namespace(A).arange(c, min(c + width, n))).T
            else:
                yield c, columns[:, c : c + width].toarray()

    def _adjoint(self, s: SketchOperator, Y: np.ndarray, j0: int, out: np.ndarray) -> None:
        if self.transform == "hadamard":
            kernels(Y).srtt_adjoint(*s.shape, self.rounds, s.seed, *self._kept_on_device(s, Y), Y, j0, out)
            return
        (d, m), xp = s.shape, namespace(Y)
        kept = like(Y, _cpu.transform_rows(d, max(m, 1), s.seed))
        for c in range(0, out.shape[1] if m else 0, _TRANSFORM_COLUMNS):
            y = Y[:, c : c + _TRANSFORM_COLUMNS]
            X = xp.zeros((y.shape[1], m), out.dtype)
            for i in range(0, d, m):
                # Rows are kept twice where d exceeds m, but never among m of them: sums in one order, also on a device.
                X[:, kept[i : i + m]] += y[i : i + m].T
            for k in reversed(range(self.rounds)):
                X = cosine_transform("idct", X) * like(Y, self._signs(s, k).astype(out.dtype))
            out[:, c : c + y.shape[1]] = X[:, j0 : j0 + len(out)].T * out.dtype.type(np.sqrt(m / d))

    def _kept_on_device(self, s: SketchOperator, a: Any) -> tuple[Any, ...]:
        """The rows that S keeps, which are drawn one after another: the kernels of a device are given them."""
        if not on_device(a):
            return ()
        d, m = s.shape
        return (like(a, _cpu.transform_rows(d, 1 << max(m - 1, 0).bit_length(), s.seed)),)

    def _cosines(self, s: SketchOperator, A: np.ndarray, j0: int, out: np.ndarray) -> None:
        d, m = s.shape
        kept = like(A, _cpu.transform_rows(d, max(m, 1), s.seed))
        for c in range(0, A.shape[1] if len(A) else 0, _TRANSFORM_COLUMNS):
            columns = A[:, c : c + _TRANSFORM_COLUMNS]
            X = namespace(A).zeros((columns.shape[1], m), out.dtype)
            X[:, j0 : j0 + len(A)] = columns.T
            for k in range(self.rounds):
                X *= like(A, self._signs(s, k).astype(out.dtype))
                X = cosine_transform("dct", X)
            out[:, c : c + columns.shape[1]] += X[:, kept].T * out.dtype.type(np.sqrt(m / d))

    def _signs(self, s: SketchOperator, k: int) -> np.ndarray:
        m = s.shape[1]
        words = random_words(np.arange(-(-m // 128), dtype=np.uint64), k, _TRANSFORM_SIGNS, s.seed)
        return 1.0 - 2.0 * np.unpackbits(words.astype("<u8").view(np.uint8).ravel(), bitorder="little")[:m]

    def _block(self, s: SketchOperator, i0: int, i1: int, j0: int, j1: int) -> np.ndarray:
        # Transforms of unit vectors, from the side that has fewer of them.
        rows, columns = i1 - i0, j1 - j0
        if columns <= rows:
            out = np.zeros((s.shape[0], columns))
            self._apply(s, np.eye(columns), j0, out)
            return out[i0:i1]
        out = np.empty((columns, rows))
        self._adjoint(s, np.eye(s.shape[0], rows, -i0), j0, out)
        return out.T
