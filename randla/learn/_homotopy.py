"""Basis pursuit as the end of the lasso's path on a few columns, with a dual certificate on all of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.optimize import linprog

from .. import _cpu
from .._numeric import SOLVE, SOLVE_TRANSPOSED, norms, powers_of_two, triangular
from ._columns import Columns, WorkingSet, combination, products

__all__ = ["Pursuit", "by_least_squares", "by_linear_program", "pursue", "with_even_rows"]

_FIRST = 256  # columns of the first working set, and the most that join at a time
_LARGEST = 8192  # columns whose Gram matrix is held: 512 MB
_PIECES = 10  # of the path, at most, for every column
_REFINEMENTS = 4
_TIES = 1e-10  # by which equal penalties are told apart
_GOLDEN = 0.6180339887498949
_ZERO = 1e-11  # of the largest entry: what a refined solution has where it is zero
_ORTHOGONAL = 1e-11  # cosine
_EPSILONS = 16 * float(np.finfo(np.float64).eps)
_CONFIRMED = 1e-8  # by which a correlation may be above the penalty
_UNEVEN = 16  # ratio of the sizes of rows
_DENSE = 1 << 24  # numbers of A for a least-squares solution by LAPACK
_DEEPEST = 1e-7  # share of the first penalty at which the next to confirm is the limit


@dataclasses.dataclass
class Pursuit:
    """x with ||A x - b|| = residual ||b||, a dual point y with |A'y| <= 1, and what it took."""

    x: np.ndarray
    y: np.ndarray
    residual: float
    feasible: bool  # where it is not: b - A x is orthogonal to all columns, or `undecided`
    iterations: int
    rounding: float = 0.0  # what of |A'y| <= 1 cannot be told from it
    by_linear_program: bool = False
    undecided: bool = False


@dataclasses.dataclass
class _Face:
    """The limit of the path on a working set: of the scaled columns `rows`, b = rows' v and y = rows' u."""

    chosen: np.ndarray
    rows: np.ndarray
    v: np.ndarray
    u: np.ndarray


class _Path:
    """The path of the lasso on a working set, from one penalty that all columns have confirmed to the next."""

    def __init__(self, columns: Columns, b: np.ndarray, g: np.ndarray):
        self.columns, self.b, self.g = columns, b, g
        self.working = WorkingSet(columns)
        self.pieces = 0
        self.penalty, self.sign = 0.0, np.zeros(0)  # confirmed
        self.x, self.reached, self.u = np.zeros(0), np.zeros(0), np.zeros(0)  # of the last piece, and its signs

    def join(self, score: np.ndarray, batch: int) -> bool:
        """The columns with the highest scores join; False where there would be too many."""
        batch = min(batch, self.columns.shape[1] - len(self.working))
        if len(self.working) + batch > _LARGEST:
            return False
        if batch:
            score = np.where(self.working.inside, -1.0, score)
            self.working.add(np.sort(np.argpartition(score, -batch)[-batch:]))
            self.sign = np.concatenate([self.sign, np.zeros(batch)])
        return True

    def follow(self, end: float) -> int:
        """From the confirmed penalty down to this one; the number of pieces, -1 for failure."""
        w = self.working
        self.x, self.u, self.reached = np.empty(len(w)), np.empty(len(w)), self.sign.copy()
        ties = 1 + _TIES * ((w.index * _GOLDEN) % 1.0)
        c, weight = self.g[w.index] * w.scale, w.scale * ties
        pieces = _cpu.l1_path(w.G, c, weight, self.penalty, end, False, _PIECES * len(w), self.x, self.reached, self.u)
        self.pieces += max(pieces, 0)
        return pieces

    def correlations(self) -> np.ndarray:
        """|A'(b - A x)|."""
        return np.abs(self.columns.adjoint((self.b - self.working.combine(self.x))[None])[0])

    def limit(self) -> _Face | None:
        """Refined with residuals that the Gram matrix has no part in: its condition is the square of that of the columns."""
        w = self.working
        chosen = np.flatnonzero(self.reached)
        rows, target = w.rows(chosen), w.scale[chosen] * self.reached[chosen]
        R = np.array(w.G[np.ix_(chosen, chosen)], order="F")
        if not _cpu.cholesky(R):
            return None
        v, u = self.x[chosen], self.u[chosen]
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_REFINEMENTS):
                change = np.stack(
                    [products(rows, self.b - combination(rows, v)), target - products(rows, combination(rows, u))]
                )
                change = triangular(SOLVE, R, triangular(SOLVE_TRANSPOSED, R, change))
                v, u = v + change[0], u + change[1]
        return _Face(chosen, rows, v, u) if np.isfinite(v).all() and np.isfinite(u).all() else None


def pursue(columns: Columns, b: np.ndarray, tol: float) -> Pursuit | None:
    """min ||x||_1 subject to A x = b; None where rounding, ties or sizes get in the way."""
    n, size = columns.shape[1], float(np.sqrt(b @ b))
    g = columns.correlations(b)
    if not g.any():  # zero is the solution, or as near to b as A gets
        return Pursuit(np.zeros(n), np.zeros(len(b)), float(size > 0), not size, 0)
    path = _Path(columns, b, g)
    working, largest = path.working, float(np.abs(g).max())
    if not path.join(np.abs(g), _FIRST):
        return None
    end = largest / 2
    while True:
        pieces = path.follow(end)
        if pieces < 0:
            return None
        if end > 0:
            score = path.correlations()
            broken = int(np.count_nonzero((score > end * (1 + _CONFIRMED)) & ~working.inside))
            if broken:
                if not path.join(score, min(_FIRST, max(_FIRST // 4, 2 * broken))):
                    return None
                continue
            path.penalty, path.sign = end, path.reached
            # Where nothing changes any more, nothing may change to the end.
            end = end / 2 if pieces > 1 and end > _DEEPEST * largest else 0.0
            continue
        face = path.limit()
        if face is None:
            return None
        r, y = b - combination(face.rows, face.v), combination(face.rows, face.u)
        left, dual = columns.adjoint(np.stack([r, y]))
        residual, reach = float(np.sqrt(r @ r)) / size, max(1.0, float(np.abs(dual).max()))
        x = np.zeros(n)
        kept = np.abs(face.v) > _ZERO * np.abs(face.v).max(initial=0.0)
        x[working.index[face.chosen]] = np.where(kept, face.v, 0.0) * working.scale[face.chosen]
        rounding = _rounding(columns, y, int(np.abs(dual).argmax()))
        found = Pursuit(x, y / reach, residual, residual <= tol, path.pieces, rounding)
        if residual > tol:
            score = np.where(working.inside, 0.0, np.abs(left))
            if not _orthogonal(columns, score, residual * size):
                broken = _FIRST
            else:
                # Columns of the working set that are not orthogonal show that the face is not the right one.
                found.undecided = not _orthogonal(columns, np.abs(left), residual * size)
                return found
        else:
            score = np.abs(dual)
            broken = int(np.count_nonzero((score > 1 + tol + rounding) & ~working.inside))
            if not broken:
                return found
        if not path.join(score, min(_FIRST, max(_FIRST // 4, 2 * broken))):
            return None


def _rounding(columns: Columns, y: np.ndarray, j: int) -> float:
    """Of a_j'y."""
    column = np.asarray(columns.take(np.array([j]))[0], np.float64)
    return _EPSILONS * float(norms(column) * norms(y))


def _orthogonal(columns: Columns, score: np.ndarray, size: float) -> bool:
    """Whether none of the columns with a score |a'r| is anything but orthogonal to the residual, ||r|| = size."""
    return not score.any() or bool((score <= _ORTHOGONAL * columns.norms() * size).all())


@dataclasses.dataclass
class EvenRows:
    """Equations times powers of two that bring the largest coefficient of each to [1, 2), and all of b to size one.

    The solution is that of A x = b times `unit`. A Gram matrix shows nothing of rows below 1e-8 of others.
    """

    columns: Columns
    b: np.ndarray
    scale: np.ndarray
    unit: float

    def restated(self, found: Pursuit, columns: Columns, b: np.ndarray, tol: float) -> Pursuit:
        """What was found, for A and b themselves."""
        x = found.x / self.unit
        residual, rounding = _residual(columns, x, b)
        feasible = found.feasible and residual <= max(tol, rounding, 1e-8 if found.by_linear_program else 0.0)
        return dataclasses.replace(found, x=x, y=found.y * self.scale, residual=residual, feasible=feasible)


def _residual(columns: Columns, x: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """||b - A x|| / ||b||, and what rounding makes of it where A x = b."""
    size = float(norms(b))
    with np.errstate(over="ignore", invalid="ignore"):
        return float(norms(b - columns.times(x))) / size, _EPSILONS * float(columns.norms() @ np.abs(x)) / size


def with_even_rows(columns: Columns, b: np.ndarray) -> EvenRows | None:
    """None where the rows have about one size."""
    if not min(columns.shape):
        return None
    size = abs(columns.a).max(axis=1)
    size = np.asarray(size.toarray() if sp.issparse(size) else size, np.float64)
    if not size.any() or size.max() <= _UNEVEN * size[size > 0].min():
        return None
    scale = powers_of_two(size)
    with np.errstate(over="ignore"):
        even = b * scale
    if not np.isfinite(even).all():
        return None
    unit = float(powers_of_two(np.abs(even).max()))
    a = columns.a.astype(np.float64)
    scaled = sp.csr_array(sp.diags_array(scale) @ a) if columns.sparse else a * scale[:, None]
    return EvenRows(Columns(scaled), even * unit, scale, unit)


def by_least_squares(columns: Columns, b: np.ndarray, tol: float) -> Pursuit | None:
    """The shortest x that is as near to a solution as any, by a rank-revealing QR factorization; None for large A."""
    m, n = columns.shape
    if m * n > _DENSE:
        return None
    a = columns.a.toarray() if columns.sparse else columns.a
    scale = powers_of_two(columns.largest())
    v = scipy.linalg.lstsq(a * scale, b, cond=_EPSILONS, lapack_driver="gelsy", check_finite=False)[0]
    with np.errstate(over="ignore"):
        x = v * scale
    residual, rounding = _residual(columns, x, b)
    return Pursuit(x, np.zeros(m), residual, residual <= tol, 0, undecided=not residual > rounding)


def by_linear_program(columns: Columns, b: np.ndarray, tol: float) -> Pursuit:
    """The same by HiGHS, as min sum(p + q), A (p - q) = b, p and q not negative."""
    n, size = columns.shape[1], float(np.sqrt(b @ b))
    scale = powers_of_two(columns.largest())
    a = columns.a.astype(np.float64)
    if columns.sparse:
        scaled = sp.csr_array(a @ sp.diags_array(scale))
        both = sp.hstack([scaled, -scaled], format="csc")
    else:
        scaled = a * scale
        both = np.hstack([scaled, -scaled])
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    solved = linprog(np.r_[scale, scale], A_eq=both, b_eq=b, bounds=(0, None), method="highs", options=options)
    if solved.x is None:
        zero = np.zeros(n)
        return Pursuit(zero, np.zeros(len(b)), 1.0, False, int(solved.nit), by_linear_program=True, undecided=True)
    x = (solved.x[:n] - solved.x[n:]) * scale
    y = np.asarray(solved.eqlin.marginals)
    r = b - columns.times(x)
    residual = float(np.sqrt(r @ r)) / size
    dual = np.abs(columns.adjoint(y[None])[0])
    reach, rounding = max(1.0, float(dual.max())), _rounding(columns, y, int(dual.argmax()))
    return Pursuit(x, y / reach, residual, residual <= max(tol, 1e-8), int(solved.nit), rounding, by_linear_program=True)
