"""Whether a Nystrom preconditioner pays, and of which rank: a model of costs in products with one vector."""

from __future__ import annotations

import math

import numpy as np

from ._operand import Operand
from ._psd_nystrom import Approximation, Sketch, require_adjoint

_FIRST, _FIRST_OF_OPERATOR = 64, 32  # test vectors that an adaptive rank begins with
_COLUMN = 1 / 4  # of the cost of a product with one vector, where A is explicit: that of one of many vectors
_FLOPS = 8.0  # in the time of a product with one vector, for every entry of A
_GATHERED = 4.0  # entries of a dense matrix that cost as much as one of a sparse matrix
_COMPARED = 4  # plain iterations that show whether A is Hermitian
_CAUTION = 4.0  # times the cost of a preconditioner: what it should save


class Costs:
    """Of one problem with `width` right-hand sides."""

    def __init__(self, op: Operand, width: int):
        self.n, self.width = op.shape[0], max(1, width)
        self.column = _COLUMN if op.explicit else 1.0
        self.first = min(_FIRST if op.explicit else _FIRST_OF_OPERATOR, self.n)
        self.entries = max(1.0, _GATHERED * op.A.nnz if op.sparse else float(self.n) ** 2)

    def products(self, count: int) -> float:
        return max(1.0, count * self.column)

    def iteration(self, rank: int) -> float:
        """A product, and two with the columns of the preconditioner."""
        return self.products(self.width) * (1 + 4 * self.n * rank / self.entries)

    def preconditioner(self, size: int, have: int = 0) -> float:
        """From `have` test vectors whose products are known to `size`."""
        if self.complete(size):
            return self.products(self.n) + 25 * self.n**3 / (_FLOPS * self.entries)
        return self.products(size - have) + (10 * self.n + 30 * size) * size**2 / (_FLOPS * self.entries)

    def complete(self, size: int) -> bool:
        return 2 * size >= self.n


class Trial:
    """Plain conjugate gradients, watched: `distances` are logarithms of residual / goal of the slowest right-hand side."""

    def __init__(self, costs: Costs, sketch: Sketch):
        self.costs, self.sketch = costs, sketch
        self.distances: list[float] = []
        self.compared = 0

    def times(self, P: np.ndarray) -> np.ndarray:
        """A P; the first ones are compared with the product with a test vector. Directions alone cannot tell whether A is
        Hermitian: they may lie where it is small."""
        Q = self.sketch.operand.hermitian_times(P)
        if self.compared < _COMPARED:
            require_adjoint(*self.sketch.first(1), P, Q)
            self.compared += 1
        return Q

    def see(self, distance: float) -> None:
        self.distances.append(min([distance, *self.distances[-1:]]))

    @property
    def remaining(self) -> float:
        """Iterations still to come if residuals fall on as they did in the last half."""
        last = len(self.distances) - 1
        half = last // 2
        fall = self.distances[half] - self.distances[last]
        return self.distances[last] * (last - half) / fall if fall > 0 else math.inf

    @property
    def ends(self) -> bool:
        """Whether as much was spent as a first preconditioner costs, and that promises to be the shorter way from here."""
        costs = self.costs
        price, plain = costs.preconditioner(costs.first), costs.iteration(0)
        if price > plain and (len(self.distances) - 1) * plain < price:
            return False
        best = _bound(0.0, self.distances[-1]) * costs.iteration(costs.first)
        return self.remaining * plain > _CAUTION * price + best


def adaptive(sketch: Sketch, ridge: float, costs: Costs, distance: float, remaining: float) -> Approximation | None:
    """Test vectors doubled until a better preconditioner costs more than it can save; None where plain iterations are cheaper.

    distance, remaining : logarithm of residual / goal; plain iterations that are still to come.
    """
    size, before = costs.first, math.inf
    while True:
        found = sketch.approximation(size)
        if found.complete or found.negative:
            return found
        whole, left = float(found.values[0]) / ridge, (float(found.values[-1]) + found.spectral_error) / ridge
        plain = min(remaining, _bound(whole, distance))
        # Plain iterations gain from a few large eigenvalues: by a factor of two against their bound.
        iterations = min(_bound(left, distance), plain * min(1.0, 2 * math.sqrt((1 + left) / (1 + whole))))
        # What the next doubling does: as much as the last one, or what the fall of the eigenvalues promises.
        ratio = left / before if before < math.inf else _fall(found.values)
        fewer = iterations * math.sqrt(min(1.0, ratio))
        now, then = iterations * costs.iteration(size), fewer * costs.iteration(2 * size)
        if costs.complete(2 * size) or now - then <= costs.preconditioner(2 * size, size):
            return found if now < plain * costs.iteration(0) else None
        size, before = 2 * size, left


def _bound(left: float, distance: float) -> float:
    """Iterations for a condition number 1 + left."""
    return math.sqrt(1 + left) / 2 * (distance + math.log(2))


def _fall(values: np.ndarray) -> float:
    """Of the eigenvalues when their number doubles; the last quarter of those found is too small."""
    return float(values[len(values) // 2] / values[len(values) // 4]) if values[len(values) // 4] > 0 else 0.0
