"""Rows of a matrix in double precision, complex where it is: chosen ones, all in blocks, and sums over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from . import _cpu
from ._row_map import RowMap
from .blocks import RowBlocks

_BLOCK = 1 << 19  # entries of A at a time: 4 MB
_GRAM_COND = 400  # limit for Cholesky of the Gram matrix, whose rounding then moves probabilities by 1e-11 at most


class Rows:
    """Rows of diag(sqrt(weights)) A in double precision: A is a checked array, CSR array or RowBlocks."""

    def __init__(self, a: Any, weights: np.ndarray | None = None):
        self.a = a
        self.shape: tuple[int, int] = (int(a.shape[0]), int(a.shape[1]))
        self.dtype = np.result_type(a.dtype, np.float64)
        self.roots = None if weights is None else np.sqrt(weights)

    @property
    def fetches(self) -> bool:
        """Whether a few rows can be had without reading all."""
        return not isinstance(self.a, RowBlocks)

    def pieces(self) -> Iterator[tuple[int, Any]]:
        """Pieces of A as it is stored."""
        step = max(8 * self.shape[1], _BLOCK // max(1, self.shape[1]), 1)
        for start, block in self.a.pieces() if isinstance(self.a, RowBlocks) else [(0, self.a)]:
            for i in range(0, block.shape[0], step):
                yield start + i, block[i : i + step]

    def _scaled(self, block: np.ndarray, rows: Any) -> np.ndarray:
        return block if self.roots is None else block * self.roots[rows, None]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, dense rows). One pass over A."""
        for i0, piece in self.pieces():
            dense = piece.toarray() if sp.issparse(piece) else piece
            yield i0, self._scaled(dense.astype(self.dtype, copy=False), slice(i0, i0 + len(dense)))

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows at these places; from row blocks in one pass."""
        if self.fetches:
            rows = self.a[index]
            dense = rows.toarray() if sp.issparse(rows) else rows
            return self._scaled(dense.astype(self.dtype, copy=False), index)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        for i0, piece in self.pieces():
            low, high = np.searchsorted(ordered, (i0, i0 + piece.shape[0]))
            if low < high:
                rows = piece[ordered[low:high] - i0]
                out[order[low:high]] = rows.toarray() if sp.issparse(rows) else rows
        return self._scaled(out, index)

    def squares(self, N: np.ndarray | None, M: np.ndarray) -> np.ndarray:
        """|A N|^2 M, with squares of entries, M not negative; N None stands for I. One pass over A."""
        out = np.empty((self.shape[0], M.shape[1]))
        if N is not None and self.fetches and self.dtype.kind != "c":
            column = np.empty(self.shape[0])
            for c, root in enumerate(np.sqrt(M.T)):
                RowMap(np.ascontiguousarray(N * root), np.ones(len(N))).squared_norms(self.a, self.roots, False, column)
                out[:, c] = column
            return out
        for i0, piece in self.pieces():
            dense = piece.toarray() if sp.issparse(piece) and N is None else piece
            product = self._scaled(np.asarray(dense if N is None else dense @ N), slice(i0, i0 + piece.shape[0]))
            np.matmul(
                product.real**2 + product.imag**2 if product.dtype.kind == "c" else product**2,
                M,
                out=out[i0 : i0 + len(product)],
            )
        return out

    def column_sizes(self) -> np.ndarray:
        """Largest absolute value of a part of an entry in every column; raises where one is not finite."""
        sizes = np.zeros(self.shape[1])
        for _, block in self.blocks():
            for part in (block.real, block.imag) if block.dtype.kind == "c" else (block,):
                np.maximum(sizes, np.abs(part).max(axis=0, initial=0.0), out=sizes)  # carries NaN along
        if not np.isfinite(sizes).all():
            raise ValueError("A must be finite; got NaN or infinite entries")
        return sizes

    def gram(self, scale: np.ndarray) -> np.ndarray:
        """(A diag(scale))^H A diag(scale). One pass over A."""
        out = np.zeros((self.shape[1], self.shape[1]), self.dtype)
        if isinstance(self.a, np.ndarray) and self.dtype.kind != "c":
            _cpu.gram(self.a, None, False, scale, self.roots, out)
            return out
        for _, block in self.blocks():
            block = block * scale
            out += block.conj().T @ block if block.dtype.kind == "c" else block.T @ block
        return out

    def triangle(self, scale: np.ndarray) -> np.ndarray:
        """R (n, n) of a QR factorization of A diag(scale), columns of which have entries of size one.

        From the Gram matrix where that is as good, else block by block (Golub, Plemmons, Sameh 1988). One or two passes over A.
        """
        n = self.shape[1]
        try:
            R = np.linalg.cholesky(self.gram(scale)).conj().T
            if n == 0 or _condition(R) <= _GRAM_COND:
                return R
        except np.linalg.LinAlgError:
            pass
        R = np.zeros((0, n), self.dtype)
        for _, block in self.blocks():
            R = np.asarray(np.linalg.qr(np.concatenate([R, block * scale]), mode="r"))
        return np.concatenate([R, np.zeros((n - len(R), n), self.dtype)])


def _condition(R: np.ndarray) -> float:
    """Of an upper triangle in the 1-norm, estimated."""
    (trcon,) = lapack.get_lapack_funcs(("trcon",), (R,))
    rcond, _ = trcon(R)
    return 1 / rcond if rcond > 0 else np.inf
