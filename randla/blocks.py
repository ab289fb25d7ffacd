"""A matrix whose rows come in blocks: from lists, files, generators, anything that can be read again."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _check

# Smaller blocks are joined before the kernels see them: 512 KB, at which a call costs little beside its work.
_SMALLEST = 1 << 19


class RowBlocks:
    """An (m, n) matrix given by blocks of its rows, which are read anew in every pass and never kept.

    Iterating yields (offset, block): the first row and a checked array or CSR array of one dtype; small blocks are joined.

    Parameters
    ----------
    source : iterable or callable
        A list or tuple of 2-D arrays or sparse matrices; an object whose `__iter__` starts anew; or a callable without
        arguments that returns an iterator. It yields the blocks in order: dense, memory-mapped, CSR or CSC. An iterator,
        which can be read once only, is enough where one pass is (`randla.sketch`) and needs `shape`.
    shape : (int, int), optional
    dtype : dtype, optional
        The dtype to compute in. Where shape or dtype is not given, the blocks of a list are asked for it, and any other
        source is read once more when it is first needed; `LstsqResult.passes` counts that pass.

    Attributes
    ----------
    shape : (int, int)
    dtype : numpy.dtype
    reads : int
        How often the source was read from its beginning.

    Raises
    ------
    TypeError, ValueError
        For blocks that do not fit, and where the source does not give the same rows in every pass.
    """

    ndim = 2

    def __init__(self, source: Iterable[Any] | Callable[[], Iterable[Any]], shape: Any = None, dtype: Any = None):
        if not hasattr(source, "__iter__") and not callable(source):
            raise TypeError(f"source must be an iterable of blocks or a callable; got {type(source).__name__}")
        self.source = source
        self.reads = 0
        self.uncounted = 0  # passes that no result has reported yet
        self.sparse = False  # whether some block was seen to be
        self._shape = None if shape is None else _shape(shape)
        self._dtype = None if dtype is None else _check.dtype_of(np.dtype(dtype), "dtype")
        if self.one_shot and (shape is None or dtype is None):
            raise TypeError(
                f"source must be readable more than once where shape and dtype are not given; got {self._described()}"
            )

    @property
    def one_shot(self) -> bool:
        """Whether the source is an iterator: its second pass would find nothing."""
        return hasattr(self.source, "__next__")

    def require_many_passes(self) -> None:
        """TypeError where the rows can be read only once."""
        if self.one_shot:
            raise TypeError(f"A must be readable more than once; got {self._described()}")

    def _described(self) -> str:
        return f"a {type(self.source).__name__}, which is its own iterator: pass a list, or a function that returns a new one"

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n); a pass over the blocks finds it where it was not given."""
        if self._shape is None:
            self._count()
        assert self._shape is not None
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """The one that holds the numbers of all blocks."""
        if self._dtype is None:
            self._count()
        assert self._dtype is not None
        return self._dtype

    def _count(self) -> None:
        rows, columns, found = 0, None, None
        if isinstance(self.source, list | tuple):
            blocks: Iterable[Any] = self.source
        else:
            blocks = self._open()
            self.uncounted += 1
        for index, value in enumerate(blocks):
            block = value if isinstance(value, np.ndarray) or sp.issparse(value) else _check.matrix(value, _name(index))
            if block.ndim != 2:
                raise ValueError(f"{_name(index)} must have 2 dimensions; got {block.ndim}")
            dtype = _check.dtype_of(block.dtype, _name(index))
            self.sparse |= sp.issparse(block)
            rows, found = rows + block.shape[0], dtype if found is None else np.result_type(found, dtype)
            columns = self._columns(block, index, columns)
        if columns is None or found is None:
            raise ValueError("source must give at least one block where shape and dtype are not given; got none")
        self._shape = self._shape or (rows, columns)
        self._dtype = self._dtype or found

    def _columns(self, block: Any, index: int, expected: int | None) -> int:
        if expected is not None and block.shape[1] != expected:
            raise ValueError(f"{_name(index)} must have {expected} columns, as the others; got shape {tuple(block.shape)}")
        return int(block.shape[1])

    def _open(self) -> Iterator[Any]:
        if self.reads:
            self.require_many_passes()
        self.reads += 1
        if hasattr(self.source, "__iter__"):
            return iter(self.source)
        return iter(self.source())

    def _blocks(self) -> Iterator[Any]:
        """The checked blocks as they come."""
        (m, n), dtype, rows = self.shape, self.dtype, 0
        for index, value in enumerate(self._open()):
            block = _check.matrix(value, _name(index))
            self._columns(block, index, n)
            if block.dtype.kind == "c" and dtype.kind != "c":
                raise TypeError(f"{_name(index)} must be real, as A is of dtype {dtype}; got {block.dtype}")
            rows += block.shape[0]
            if rows > m:
                break
            if block.shape[0]:
                yield block.astype(dtype, copy=False)
        if rows != m:
            raise ValueError(f"A must give the same {m} rows in every pass; got {'more' if rows > m else rows}")

    def pieces(self, at_least: int = 0) -> Iterator[tuple[int, Any]]:
        """(offset, block), neighbours joined until they hold `at_least` bytes or what is worth a call."""
        enough = max(at_least, _SMALLEST)
        offset, waiting, size = 0, list[Any](), 0
        for block in self._blocks():
            if waiting and sp.issparse(block) != sp.issparse(waiting[0]):
                yield offset, _joined(waiting)
                offset, waiting, size = offset + sum(part.shape[0] for part in waiting), [], 0
            bytes_ = block.data.nbytes + block.indices.nbytes if sp.issparse(block) else block.nbytes
            if not waiting and bytes_ >= enough:
                yield offset, block
                offset += block.shape[0]
                continue
            # A source may fill the same memory again.
            waiting.append(block.copy())
            size += bytes_
            if size >= enough:
                yield offset, _joined(waiting)
                offset, waiting, size = offset + sum(part.shape[0] for part in waiting), [], 0
        if waiting:
            yield offset, _joined(waiting)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self.pieces()

    def __repr__(self) -> str:
        shape = "unknown" if self._shape is None else self._shape
        return f"RowBlocks({type(self.source).__name__}, shape={shape}, dtype={self._dtype or 'unknown'})"


def _name(index: int) -> str:
    return f"block {index} of A"


def _joined(blocks: list[Any]) -> Any:
    if len(blocks) == 1:
        return blocks[0]
    return sp.csr_array(sp.vstack(blocks, format="csr")) if sp.issparse(blocks[0]) else np.concatenate(blocks)


def _shape(shape: Any) -> tuple[int, int]:
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise TypeError(f"shape must be two integers; got {shape!r}")
    return _check.integer(shape[0], "shape[0]", 0), _check.integer(shape[1], "shape[1]", 0)


def as_row_blocks(value: Any) -> RowBlocks | None:
    """RowBlocks where `value` can mean nothing else: one, a list of matrices, or an iterable that is no array."""
    if isinstance(value, RowBlocks):
        return value
    if isinstance(value, list | tuple):
        matrices = len(value) > 0 and all((isinstance(v, np.ndarray) or sp.issparse(v)) and v.ndim == 2 for v in value)
        return RowBlocks(value) if matrices else None
    if isinstance(value, str | bytes | bytearray | memoryview | array.array | dict | set | frozenset | range):
        return None
    arrays = ("__array__", "__array_interface__", "__dlpack__", "shape", "matvec")
    if hasattr(value, "__iter__") and not any(hasattr(value, name) for name in arrays):
        return RowBlocks(value)
    return None
