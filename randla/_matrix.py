"""The matrix of a least-squares problem as its solvers see it: real, in one of the forms of `_tall`."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _check
from ._backend import like, namespace, on_device, to_host
from ._complex import Complex, ComplexOperator, DeviceComplex
from ._device_sparse import in_memory
from ._scaled import RowScaled
from ._tall import Blocks, Dense, Operator, Sparse, TallMatrix
from .blocks import RowBlocks, as_row_blocks
from .result import Evidence, LstsqResult

__all__ = ["Blocks", "Dense", "Operator", "Posed", "RowBlocks", "Sparse", "TallMatrix", "argument", "is_complex", "wrap"]


def argument(A: Any, *, device: bool = False) -> Any:
    """A checked: array, CSR, operator or RowBlocks that can be read more than once."""
    blocks = as_row_blocks(A)
    if blocks is None:
        return _check.matrix(A, "A", operators=True, device=device)
    blocks.require_many_passes()
    return blocks


def is_complex(A: Any) -> bool:
    """Of a checked matrix or array; an operator without dtype is real."""
    return np.dtype(getattr(A, "dtype", None)).kind == "c"


def wrap(A: Any, weights: np.ndarray | None = None) -> TallMatrix:
    """The wrapper for a checked matrix, with weights for its rows."""
    if on_device(A):
        return DeviceComplex(A, weights) if is_complex(A) else in_memory(A, weights)
    if not (isinstance(A, np.ndarray | RowBlocks) or sp.issparse(A)):
        return ComplexOperator(A, weights) if is_complex(A) else Operator(A, weights)
    if is_complex(A):
        return Complex(A, weights)
    if isinstance(A, RowBlocks):
        return Blocks(A, weights)
    return Sparse(A, weights) if sp.issparse(A) else Dense(A, weights)


class Posed:
    """A least-squares problem in real numbers, and the way back: with complex A twice as large, with complex b alone with
    two right-hand sides for one."""

    def __init__(self, a: Any, b: np.ndarray, weights: np.ndarray | None):
        m, n = a.shape
        self.complex = is_complex(a) or is_complex(b)
        self.size, self.b = n, b
        self.dtype = _check.real_dtype(np.result_type(_check.dtype_of(np.dtype(getattr(a, "dtype", None)), "A"), b.dtype))
        wide = m < n
        self.matrix = wrap(a, None if wide else weights)
        if weights is not None and wide:
            # Weights of equations matter only when these contradict each other; a weight of zero always drops one.
            weights = to_host(weights)
            kept, roots = np.flatnonzero(weights) if weights.any() else np.arange(min(m, 1)), np.sqrt(weights)
            b = b[like(b, kept)] * like(b, roots[kept].reshape(-1, *[1] * (b.ndim - 1)))
            both = np.concatenate([kept, kept + m]) if self.matrix.copies == 2 else kept
            self.matrix = RowScaled(self.matrix, both, np.tile(roots[kept], self.matrix.copies))
        self.right_hand_sides = self._real(b, axis=0)

    def _real(self, v: np.ndarray, axis: int) -> np.ndarray:
        """Real and imaginary parts below each other for complex A, side by side for real A."""
        if not self.complex:
            return v
        if self.matrix.copies == 2:
            return namespace(v).concatenate([v.real, v.imag], axis=axis)
        v = v.reshape(len(v), -1)
        return namespace(v).concatenate([v.real, v.imag], axis=1)

    def guess(self, x0: np.ndarray | None) -> np.ndarray | None:
        """Rows of the real problem."""
        if x0 is None:
            return None
        x = to_host(self._real(x0, axis=0))
        return np.ascontiguousarray(x.reshape(len(x), -1).T, dtype=np.float64)

    def callback(self, callback: Callable[[Any], None] | None) -> Callable[[Any], None] | None:
        if callback is None or not self.complex:
            return callback

        def translated(intermediate_result: SimpleNamespace) -> None:
            entry = SimpleNamespace(**vars(intermediate_result))
            entry.x, entry.backward_error = self._solution(entry.x), math.sqrt(2) * entry.backward_error
            callback(intermediate_result=entry)  # type: ignore[call-arg]

        return translated

    def tol(self, tol: float | None) -> float | None:
        # Relative to the Frobenius norm, which is sqrt(2) times A's; for complex b alone, as two errors add up.
        return tol / math.sqrt(2) if tol is not None and self.complex else tol

    def sketch_size(self, size: int | None) -> int | None:
        return size if size is None else size * self.matrix.copies

    def finish(self, result: LstsqResult) -> LstsqResult:
        """The result in terms of the caller's problem."""
        if not self.complex:
            return result
        # Not by copy.copy, which asks for singular values.
        out, copies = object.__new__(LstsqResult), self.matrix.copies
        out.__dict__.update(result.__dict__)
        for name in ("residual_norm", "_evidence", "s"):
            out.__dict__.pop(name, None)
        out.x = self._solution(result.x)

        def evidence() -> Evidence:
            if copies == 2:
                backward, bound = math.sqrt(2) * np.asarray(result.backward_error), np.asarray(result.error_bound)
            else:
                sizes = to_host(namespace(result.x).linalg.norm(result.x, axis=0))
                both = self._pairs(sizes)
                backward = self._pairs(np.asarray(result.backward_error))
                bound = self._pairs(np.asarray(result.error_bound) * sizes) / np.where(both > 0, both, 1)
            rank = -(-result.rank // copies)
            return Evidence(self._each(backward), self._each(bound), rank, result.cond, lambda: result.s[::copies])

        norms = np.asarray(result.residual_norm)
        out._residual_norm = self._each(norms if copies == 2 else self._pairs(norms))
        out._make_evidence = evidence
        out.history = [dict(entry, backward_error=math.sqrt(2) * entry["backward_error"]) for entry in result.history]
        return out

    def _each(self, values: np.ndarray) -> Any:
        return float(values.ravel()[0]) if self.b.ndim == 1 else values

    @staticmethod
    def _pairs(values: np.ndarray) -> np.ndarray:
        half = len(values) // 2
        return np.hypot(values[:half], values[half:])

    def _solution(self, x: np.ndarray) -> np.ndarray:
        """A complex solution from a real one, whose variables run down; in the shape that goes with b."""
        n = self.size
        if self.matrix.copies == 2:
            out = x[:n] + 1j * x[n:]
        else:
            half = x.shape[1] // 2
            out = x[:, :half] + 1j * x[:, half:]
        shape = (n, *self.b.shape[1:])
        return out.reshape(shape).astype(np.result_type(self.dtype, np.complex64), copy=False)
