"""Products of sparse factors by proximal alternating linearized minimization: `palm4msa`."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from .. import _check
from ..result import HasStatus
from ._als import _normal
from ._constraints import (
    Constraint,
    SparseColumns,
    SparseRows,
    SparseRowsAndColumns,
    SparseRowsOrColumns,
    SparseTotal,
    Support,
)
from .fsmf import _scaled

__all__ = [
    "PalmResult",
    "PalmStatus",
    "PalmWarning",
    "SparseColumns",
    "SparseRows",
    "SparseRowsAndColumns",
    "SparseRowsOrColumns",
    "SparseTotal",
    "Support",
    "palm4msa",
]

_DENSE_NORM = 200  # up to this order spectral norms are computed directly
_MARGIN = 1.01
_HALVINGS = 40


class PalmWarning(UserWarning):
    """A factorization into sparse factors that reached its iteration limit."""


class PalmStatus(enum.Enum):
    """How a factorization into sparse factors ended. The value is the sentence shown to users."""

    CONVERGED = "Converged: the error stopped falling, which need not be at the global minimum."
    ITERATION_LIMIT = "The iteration limit was reached before the requested tolerance; the last iterate is returned."

    @property
    def success(self) -> bool:
        return self is PalmStatus.CONVERGED


@dataclasses.dataclass
class PalmResult(HasStatus):
    """A ~ scale S_1 S_2 ... S_L with sparse factors.

    Attributes
    ----------
    factors : list of ndarray
        In their constraint sets, each of Frobenius norm one, in the dtype of A.
    scale : float
    error : float
        ||A - scale S_1 ... S_L||_F, of factors not yet rounded to their dtype.
    iterations : int
        Sweeps over all factors, in all stages together.
    seed : int
        Replays the run: pass it as `rng`.
    status : PalmStatus
    message : str
    success : bool
    history : list of dict
        One entry per sweep: stage, iteration, and error; of stages that split a residual, which has norm one, that of it.
    """

    factors: list[np.ndarray]
    scale: float
    error: float
    iterations: int
    seed: int
    status: PalmStatus
    history: list[dict[str, Any]] = dataclasses.field(repr=False)

    def to_dense(self) -> np.ndarray:
        """scale S_1 ... S_L."""
        return self.scale * _product(self.factors)


def palm4msa(
    A: Any,
    constraints: Sequence[Constraint],
    *,
    residuals: Sequence[Constraint] | None = None,
    inner: Sequence[int] | None = None,
    starts: int = 1,
    maxiter: int = 500,
    tol: float = 1e-7,
    rng: Any = None,
) -> PalmResult:
    """Approximate A by a product of L sparse factors: minimize ||A - scale S_1 ... S_L||_F, S_l in a set each.

    Proximal alternating linearized minimization (Bolte, Sabach, Teboulle 2014; PALM4MSA of Le Magoarou, Gribonval 2016): each
    factor in turn, the last one first, takes a gradient step of length 1 / Lipschitz constant and is projected onto its set;
    then the scale is set to its best value. The error never rises, but with SparseRowsOrColumns. The problem is not convex:
    this is a heuristic.

    Parameters
    ----------
    A : array or CSR/CSC, (m, n)
        Real or complex; a sparse A is made dense.
    constraints : sequence of Constraint
        One for each factor: SparseRows(k), SparseColumns(k), SparseRowsAndColumns(k), SparseRowsOrColumns(k), SparseTotal(k) or
        Support(mask). At least two.
    residuals : sequence of Constraint
        Hierarchical: peel off the first factor, A ~ S_1 T_1 with T_1 in residuals[0], refine all, then split T_1 ~ S_2 T_2, and
        so on; L - 2 of them. Far better at finding deep factorizations than all factors at once.
    inner : sequence of int
        The L - 1 sizes between the factors. None: those of the masks of `Support`, else min(m, n).
    starts : int
        The first one starts from identities where these are in the sets, further ones at random; the best result counts.
    maxiter : int
        Sweeps in each stage.
    tol : float
        A stage ends when a sweep lowers the squared error by less than this, relatively.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `result.seed` replays the run.

    Returns
    -------
    PalmResult

    Warns
    -----
    PalmWarning
        Iteration limit, in the last stage.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries and for shapes that do not fit.
    """
    a = _check.matrix(A, "A")
    _check.finite(a.data if sp.issparse(a) else a, "A")
    sets = _constraints(constraints, "constraints")
    if len(sets) < 2:
        raise ValueError(f"constraints must be at least 2; got {len(sets)}")
    rest = None if residuals is None else _constraints(residuals, "residuals")
    if rest is not None and len(rest) != len(sets) - 2:
        raise ValueError(f"residuals must be {len(sets) - 2}, two fewer than the factors; got {len(rest)}")
    sizes = _sizes(a.shape, sets, rest or [], inner)
    starts, maxiter = _check.integer(starts, "starts", 1), _check.integer(maxiter, "maxiter", 1)
    tol = _check.real(tol, "tol")
    seed = _check.seed(rng)

    scaled, unit = _scaled(a.toarray() if sp.issparse(a) else a)
    generator = np.random.Generator(np.random.Philox(key=seed))
    best: _State | None = None
    for start in range(starts):
        found = _State(scaled, maxiter, tol)
        make = _Start(generator if start else None, np.random.Generator(np.random.Philox(key=seed)))
        found.solve(sets, rest, sizes, make)
        if best is None or found.error < best.error:
            best = found
    assert best is not None
    status = PalmStatus.CONVERGED if best.converged else PalmStatus.ITERATION_LIMIT
    whole = [{**entry, "error": entry["error"] * unit} if entry.pop("of_A") else entry for entry in best.history]
    factors = [factor.astype(a.dtype) for factor in best.factors]
    result = PalmResult(factors, best.scale * unit, best.error * unit, len(whole), seed, status, whole)
    if not status.success:
        warnings.warn(result.message, PalmWarning, stacklevel=2)
    return result


class _Start:
    """Where factors start: at the identity where it is in the set, else at random."""

    def __init__(self, generator: np.random.Generator | None, spare: np.random.Generator):
        self.generator, self.spare = generator, spare

    def __call__(self, constraint: Constraint, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
        if self.generator is None:
            S = np.eye(*shape, dtype=dtype)
            if np.array_equal(constraint.project(S), S):
                return S / np.linalg.norm(S)
        return _unit(constraint.project(_normal(self.generator or self.spare, shape, dtype)))


class _State:
    def __init__(self, A: np.ndarray, maxiter: int, tol: float):
        self.A, self.maxiter, self.tol = A, maxiter, tol
        self.history: list[dict[str, Any]] = []
        self.factors: list[np.ndarray] = []
        self.scale, self.error, self.converged, self.stage = 0.0, float(np.linalg.norm(A)), True, 0

    def solve(self, sets: list[Constraint], rest: list[Constraint] | None, sizes: list[int], make: _Start) -> None:
        dtype = self.A.dtype
        if rest is None:
            factors = [make(c, shape, dtype) for c, shape in zip(sets, pairwise(sizes), strict=True)]
            self.run(self.A, factors, None, sets)
            return
        done: list[np.ndarray] = []
        left = self.A
        for level, after in enumerate([*rest, sets[-1]]):
            pair = [sets[level], after]
            shapes = [(sizes[level], sizes[level + 1]), (sizes[level + 1], sizes[-1])]
            split = [make(c, shape, dtype) for c, shape in zip(pair, shapes, strict=True)]
            self.run(left, split, None, pair)
            factors = [*done, *self.factors]
            if level:
                self.run(self.A, factors, _best_scale(self.A, _product(factors)), [*sets[:level], *pair])
            *done, left = self.factors

    def run(self, A: np.ndarray, factors: list[np.ndarray], scale: float | None, sets: list[Constraint]) -> None:
        """Sweeps until the error stops falling. scale None: the last factor starts at zero."""
        self.stage += 1
        floor = np.finfo(float).eps ** 2 * A.size * float(np.linalg.norm(A)) ** 2
        monotone = all(constraint.exact for constraint in sets)
        value, least, self.converged = np.inf, np.inf, False
        for iteration in range(1, self.maxiter + 1):
            scale = _sweep(A, factors, scale, sets)
            before, value = value, float(np.linalg.norm(A - scale * _product(factors)) ** 2)
            entry = {"stage": self.stage, "iteration": iteration, "error": float(np.sqrt(value)), "of_A": A is self.A}
            self.history.append(entry)
            if value < least:
                least, self.factors, self.scale, self.error = value, list(factors), scale, float(np.sqrt(value))
            if value <= floor or (before - value if monotone else abs(before - value)) <= self.tol * value:
                self.converged = True
                break


def _sweep(A: np.ndarray, factors: list[np.ndarray], scale: float | None, sets: list[Constraint]) -> float:
    """Every factor once, the last one first; returns the best scale."""
    lefts: list[np.ndarray | None] = [None]
    for S in factors[:-1]:
        lefts.append(S if lefts[-1] is None else lefts[-1] @ S)
    right: np.ndarray | None = None
    for l in reversed(range(len(factors))):
        left = lefts[l]
        if scale is None:
            start = _unit(sets[l].project(_times(None if left is None else left.conj().T, A, _adjoint(right))))
            factors[l] = start if start.any() else factors[l]
            scale = _best_scale(A, _times(left, factors[l], right))
        else:
            factors[l] = _step(A, left, factors[l], right, scale, sets[l])
        right = factors[l] if right is None else factors[l] @ right
    assert scale is not None
    assert right is not None
    return _best_scale(A, right)


def _step(
    A: np.ndarray,
    left: np.ndarray | None,
    S: np.ndarray,
    right: np.ndarray | None,
    scale: float,
    constraint: Constraint,
) -> np.ndarray:
    """A projected gradient step; S itself where none lowers the error."""
    residual = A - scale * _times(left, S, right)
    value = np.linalg.norm(residual)
    gradient = scale * _times(_adjoint(left), residual, _adjoint(right))
    L = _MARGIN * (scale * _spectral_norm(left) * _spectral_norm(right)) ** 2
    if not (np.isfinite(L) and L > 0):
        return S
    for _ in range(_HALVINGS):
        trial = _unit(constraint.project(S + gradient / L))
        if trial.any() and (not constraint.exact or np.linalg.norm(A - scale * _times(left, trial, right)) <= value):
            return trial
        L *= 2
    return S


def _times(left: np.ndarray | None, S: np.ndarray, right: np.ndarray | None) -> np.ndarray:
    S = S if left is None else left @ S
    return S if right is None else S @ right


def _adjoint(S: np.ndarray | None) -> np.ndarray | None:
    return None if S is None else S.conj().T


def _product(factors: list[np.ndarray]) -> np.ndarray:
    return reduce(np.matmul, factors)


def _unit(S: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(S)
    return S / size if size else S


def _best_scale(A: np.ndarray, B: np.ndarray) -> float:
    size = float(np.linalg.norm(B)) ** 2
    return float(np.vdot(B, A).real) / size if size else 0.0


def _spectral_norm(S: np.ndarray | None) -> float:
    """Up to a percent for large matrices: a step by which the error would rise is shortened anyway."""
    if S is None or not S.any():
        return 0.0 if S is not None else 1.0
    if min(S.shape) <= _DENSE_NORM:
        return float(np.linalg.norm(S, 2))
    gram = S @ S.conj().T if S.shape[0] <= S.shape[1] else S.conj().T @ S
    try:
        value = eigsh(gram, k=1, tol=1e-2, v0=np.abs(gram).sum(axis=1), return_eigenvectors=False)[0]
    except ArpackNoConvergence:
        return float(np.linalg.norm(S))
    return float(np.sqrt(value))


def _constraints(values: Any, name: str) -> list[Constraint]:
    if isinstance(values, Constraint) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of constraints; got {type(values).__name__}")
    for value in values:
        if not isinstance(value, Constraint):
            raise TypeError(f"{name} must hold constraints such as SparseRows(2); got {value!r}")
    return list(values)


def _sizes(shape: tuple[int, int], sets: list[Constraint], rest: list[Constraint], inner: Sequence[int] | None) -> list[int]:
    """m, the inner sizes, n; checked against the masks."""
    m, n = shape
    between: list[int | None] = [None] * (len(sets) - 1)
    for l, constraint in enumerate(sets):
        if isinstance(constraint, Support):
            rows, columns = constraint.mask.shape
            if l:
                between[l - 1] = rows
            if l < len(sets) - 1:
                between[l] = columns
    if inner is not None:
        if not isinstance(inner, Sequence | np.ndarray):
            raise TypeError(f"inner must be a sequence of integers; got {type(inner).__name__}")
        if len(inner) != len(between):
            raise ValueError(f"inner must have {len(between)} sizes for {len(sets)} factors; got {len(inner)}")
        between = [_check.integer(size, "inner", 1) for size in inner]
    sizes = [m, *(min(m, n) if size is None else size for size in between), n]
    placed = [(c, f"constraints[{l}]", sizes[l : l + 2]) for l, c in enumerate(sets)]
    placed += [(c, f"residuals[{l}]", [sizes[l + 1], n]) for l, c in enumerate(rest)]
    for constraint, name, needed in placed:
        if isinstance(constraint, Support) and list(constraint.mask.shape) != needed:
            raise ValueError(f"{name} must have a mask of shape {tuple(needed)}; got {constraint.mask.shape}")
    return sizes
