"""The lasso by working sets: coordinate descent and Newton steps on a few columns, duality gaps on all of them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from .. import _cpu
from ._columns import Columns, WorkingSet

_FIRST = 128  # columns of the first working set; a quarter where their Gram matrix costs more than a pass:
_TALL = 1 << 13  # of a sparse A, or one of so many rows
_LARGEST = 8192  # columns whose Gram matrix is held: 512 MB
_PIECES = 10  # of the path, at most, for every column
_PROGRESS, _PATIENCE = 1e-5, 5
_ROUNDS = 120  # of coordinate descent, before the path is followed instead


@dataclasses.dataclass
class Outcome:
    """x with r = b - A x, A'r, the factor that makes r feasible, and how it ended."""

    x: np.ndarray
    r: np.ndarray
    shrink: float
    gap: float
    objective: float
    rounds: int
    passes: int
    converged: bool
    exhausted: bool
    history: list[dict[str, Any]]


class LassoProblem:
    """min ||b - A x||^2 / 2 + penalty ||x||_1, over x >= 0 where `positive`; keeps its columns from one penalty to the next."""

    def __init__(self, columns: Columns, b: np.ndarray, centred: bool, positive: bool):
        self.columns, self.b, self.positive, self.centred = columns, b, positive, centred
        self.x = np.zeros(columns.shape[1])
        self.r = b.copy()
        self.g = columns.correlations(b)
        self.working = WorkingSet(columns, centred)
        self.square = float(b @ b)

    def start(self, x: np.ndarray) -> None:
        self.x = x.copy()
        self.r = self._centre(self.b - self.columns.times(x))
        self.g = self.columns.adjoint(self.r[None])[0]

    def level(self) -> float:
        """The mean of A x."""
        return float(self.columns.times(self.x).mean()) if self.x.any() else 0.0

    def steepest(self) -> float:
        """The smallest penalty at which x = 0 is the solution, seen from x = 0."""
        return float(max(self.g.max(initial=0.0), 0.0) if self.positive else np.abs(self.g).max(initial=0.0))

    def solve(self, penalty: float, tol: float, maxiter: int) -> Outcome:
        """Until the duality gap is at most tol ||b||^2."""
        began, reads, rounds, idle, before = time.perf_counter(), self.columns.reads, 0, 0, np.inf
        history: list[dict[str, Any]] = []
        target = tol * self.square
        for iteration in range(maxiter + 1):
            gap, objective, shrink = self._gap(penalty)
            history.append(
                {
                    "iteration": iteration,
                    "time": time.perf_counter() - began,
                    "gap": gap,
                    "objective": objective,
                    "columns": len(self.working),
                    "support": int(np.count_nonzero(self.x)),
                }
            )
            # A step is worth something if it removes a part of what the gap leaves to be gained.
            idle, before = 0 if before - objective > _PROGRESS * gap else idle + 1, objective
            converged = gap <= target
            if converged or idle >= _PATIENCE or iteration == maxiter:
                break
            self._choose(penalty)
            accuracy = max(0.3 * tol, min(0.1 * (1 / shrink - 1), 1e-2), 1e-15)
            rounds += self._descend(penalty, accuracy)
        return Outcome(
            self.x.copy(),
            self.r.copy(),
            shrink,
            gap,
            objective,
            rounds,
            self.columns.reads - reads,
            converged,
            iteration == maxiter,
            history,
        )

    def _gap(self, penalty: float) -> tuple[float, float, float]:
        """Gap, objective, and the factor s for which s r / penalty is dual feasible."""
        steepest = self.steepest()
        s = min(1.0, penalty / steepest) if steepest else 1.0
        size = np.abs(self.x)
        # A sum of terms of one sign, b'r = r'r + x'A'r being put in: nothing cancels however small the gap.
        terms = penalty * size - s * self.x * self.g
        square = float(self.r @ self.r)
        gap = 0.5 * (1 - s) ** 2 * square + float(np.maximum(terms, 0.0).sum())
        return gap, 0.5 * square + penalty * float(size.sum()), s

    def _choose(self, penalty: float) -> None:
        """More columns: those that break the optimality conditions most, and the nearest to it."""
        free = self.columns.shape[1] - len(self.working)
        if not free:
            return
        support = np.flatnonzero(self.x)
        size = self.g if self.positive else np.abs(self.g)
        broken = int(np.count_nonzero(size[~self.working.inside] > penalty))
        dear = self.columns.sparse or self.columns.shape[0] >= _TALL
        batch = min(free, max(_FIRST // 4 if dear else _FIRST, min(broken, len(self.working) // (1 if dear else 2))))
        if len(self.working) + batch > _LARGEST:
            self.working = WorkingSet(self.columns, self.centred)
            batch = min(self.columns.shape[1], _LARGEST)
        score = np.where(self.x != 0, np.abs(self.g - penalty * np.sign(self.x)), size - penalty)
        must = support[~self.working.inside[support]]
        if 0 < len(must) <= batch // 2:
            score[must] = np.inf
        score[self.working.inside] = -np.inf
        if not len(self.working) or score.max() > 0:
            # Sorted, as are the reads of A.
            self.working.add(np.sort(np.argpartition(score, -batch)[-batch:]))

    def _descend(self, penalty: float, accuracy: float) -> int:
        w = self.working
        g, start, weight = self.g[w.index] * w.scale, self.x[w.index] / w.scale, penalty * w.scale
        v, slope = start.copy(), g.copy()
        rounds, violation = _cpu.lasso(w.G, weight, self.positive, accuracy, _ROUNDS, v, slope)
        if violation > accuracy:
            c = g + w.product(start)
            path, sign, u = np.empty_like(v), np.empty_like(v), np.empty_like(v)
            if _cpu.l1_path(w.G, c, w.scale, 0.0, penalty, self.positive, _PIECES * len(w), path, sign, u) >= 0:
                better = path.copy()
                more, closer = _cpu.lasso(w.G, weight, self.positive, accuracy, _ROUNDS, better, c - w.product(path))
                rounds += more
                candidates = [(violation, v), (closer, better), (self._violation(path, c - w.product(path), weight), path)]
                v = min(candidates, key=lambda pair: pair[0])[1]
        self.x[w.index] = v * w.scale
        rest = np.any(self.x[~w.inside])
        self.r = self._centre(self.r - w.combine(v - start) if rest else self.b - w.combine(v))
        self.g = self.columns.adjoint(self.r[None])[0]
        return rounds

    def _violation(self, v: np.ndarray, g: np.ndarray, weight: np.ndarray) -> float:
        """As the kernel measures it."""
        c = g / weight
        inactive = (c if self.positive else np.abs(c)) - 1
        return float(np.where(v != 0, np.abs(c - np.sign(v)), inactive).max(initial=0.0))

    def _centre(self, r: np.ndarray) -> np.ndarray:
        return r - r.mean() if self.centred else r
