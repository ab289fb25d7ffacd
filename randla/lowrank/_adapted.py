"""Operands made of others: with centred columns, and times a power of two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..sketch import SketchOperator
from ._operand import AdjointOperand, BlocksOperand, Operand
from ._products import product


class CenteredOperand(Operand):
    """A less the means of its columns, 1 mean': a correction of rank one to every product. One pass for the means."""

    def __init__(self, base: Operand):
        self.base, self.name, self.shape, self.dtype, self.explicit = base, base.name, base.shape, base.dtype, base.explicit
        self.A, self.sparse, self.xp = base.A, base.sparse, base.xp
        self.mean = base.means()

    @property
    def passes(self) -> int:  # type: ignore[override]
        return self.base.passes

    def times(self, X: np.ndarray) -> np.ndarray:
        return self.base.times(X) - product(self.mean[None], X)

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        return self.base.adjoint_times(Y) - product(self.mean.conj()[:, None], Y.sum(axis=0, keepdims=True))

    def both_times(
        self, X: np.ndarray, shift: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        row = product(self.mean[None], X)
        Y, W = self.base.both_times(X, row if shift is None else row + shift, out)
        return Y, W - product(self.mean.conj()[:, None], Y.sum(axis=0, keepdims=True))

    def sketch(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        return self.base.sketch(S, self.mean)

    def sketch_adjoint(self, S: SketchOperator, mean: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        return self.base.sketch_adjoint(S, self.mean)


def exponent_for(size: float, dtype: np.dtype) -> int:
    """Of a power of two that takes entries of this size to where their squares are not lost; 0 where they are not anyway."""
    single = dtype.char in "fF"
    low, high = (1e-12, 1e12) if single else (1e-100, 1e100)
    if low < size < high:
        return 0
    limit = 120 if single else 1000
    return -limit if math.isinf(size) else max(-limit, min(limit, -math.frexp(size)[1]))


class ScaledOperand(Operand):
    """2^exponent A."""

    def __init__(self, base: Operand, exponent: int):
        self.base, self.name, self.shape, self.dtype, self.explicit = base, base.name, base.shape, base.dtype, base.explicit
        self.A, self.sparse, self.xp = base.A, base.sparse, base.xp
        self.exponent = exponent
        self.factor = np.ldexp(np.empty(0, base.dtype).real.dtype.type(1), exponent)

    @property
    def passes(self) -> int:  # type: ignore[override]
        return self.base.passes

    def times(self, X: np.ndarray) -> np.ndarray:
        return self.base.times(self._block(X) * self.factor)

    def adjoint_times(self, Y: np.ndarray) -> np.ndarray:
        return self.base.adjoint_times(self._block(Y) * self.factor)

    def both_times(
        self, X: np.ndarray, shift: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        Y, W = self.base.both_times(self._block(X) * self.factor, shift, out)
        return Y, W * self.factor


def dense(op: Operand) -> np.ndarray:
    """A new array of the entries of an explicit operand. One pass."""
    if isinstance(op, AdjointOperand):
        return dense(op.base).conj().T.copy()
    if isinstance(op, ScaledOperand):
        return dense(op.base) * op.factor
    if isinstance(op, CenteredOperand):
        return dense(op.base) - op.mean
    if isinstance(op, BlocksOperand):
        op.passes += 1
        return np.concatenate([_array(block) for _, block in op.A]).astype(op.dtype, copy=False)
    op.passes += 1
    return _array(op.A)


def _array(A: Any) -> np.ndarray:
    return A.toarray() if hasattr(A, "toarray") else A.copy()
