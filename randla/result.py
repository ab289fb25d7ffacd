"""What a solver returns: the answer with its evidence, and a Status whose member is a sentence."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ._backend import namespace, to_host


class LstsqWarning(UserWarning):
    """Numerical trouble in a least-squares solve: rank deficiency, stagnation, too few iterations."""


class LeverageWarning(UserWarning):
    """Leverage scores that the data does not determine."""


class Status(enum.Enum):
    """How a solve ended. The value is the sentence shown to users."""

    CONVERGED = "The backward error is as small as requested, by default that of a direct solver."
    DIRECT = "Solved by LAPACK, or on a device by cuSOLVER."
    SKETCHED_ACCURACY = (
        "Solved to forward stability, the error of x being that of a direct solver; the backward error is as stated."
    )
    SKETCH_AND_SOLVE = (
        "Solved the sketched problem only, as asked: an answer of low accuracy, with a residual near the smallest."
    )
    RANK_DEFICIENT = "A is numerically rank deficient: the minimum-norm solution of the truncated problem is returned."
    STAGNATED = "Progress stopped before the requested backward error was reached; the best iterate is returned."
    OVERFLOWED = "The solution has entries beyond the largest number of its dtype, which are returned as infinite or NaN."
    ITERATION_LIMIT = "The iteration limit was reached before the requested backward error; the best iterate is returned."
    STOPPED = "The callback stopped the run; the best iterate is returned."

    @property
    def success(self) -> bool:
        """Whether the answer is what was asked for."""
        return self in (
            Status.CONVERGED,
            Status.DIRECT,
            Status.SKETCHED_ACCURACY,
            Status.SKETCH_AND_SOLVE,
            Status.RANK_DEFICIENT,
        )


class HasStatus:
    """A result whose status is an enumeration of sentences with a property `success`."""

    status: Any
    notes = ""

    @property
    def message(self) -> str:
        return f"{self.status.value} {self.notes}".rstrip()

    @property
    def success(self) -> bool:
        return bool(self.status.success)


def as_solution(X: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Solutions held as rows in the shape that goes with b: (n,) or (n, k)."""
    with np.errstate(over="ignore"):
        return (X[0] if b.ndim == 1 else namespace(X).ascontiguousarray(X.T)).astype(dtype, copy=False)


def overflowed(x: np.ndarray, status: Status, *evidence: np.ndarray) -> Status:
    """The status with x, (n,) or (n, k), taken into account; evidence of solutions that are not finite becomes infinite."""
    finite = to_host(namespace(x).isfinite(x if x.ndim == 2 else x[:, None]).all(axis=0))
    if finite.all():
        return status
    for values in evidence:
        values[~finite] = np.inf
    return status if status is Status.STOPPED else Status.OVERFLOWED


def per_column(values: np.ndarray, b: np.ndarray) -> Any:
    """One value per right-hand side, a plain float where b is a vector."""
    return float(values[0]) if b.ndim == 1 else values


def rank_note(rank: int, full: int, cut: float) -> str:
    return f"Rank {rank} of {full} with singular values cut at {cut:.2g} times the largest."


def listed(result: Any, *names: str) -> str:
    """A repr: one attribute per line, of long arrays the ends."""
    width = max(map(len, names))

    def shown(value: Any) -> str:
        if not getattr(value, "ndim", 0):
            return str(value)
        return np.array2string(to_host(value), threshold=8, prefix=" " * (width + 2))

    return "\n".join(f"{name:>{width}}: {shown(getattr(result, name))}" for name in names)


@dataclasses.dataclass(repr=False)
class Evidence:
    """The certificate of a least-squares solution, computed when first asked for."""

    backward_error: Any
    error_bound: Any
    rank: int
    cond: float
    singular_values: Callable[[], np.ndarray] | None


class LstsqResult(HasStatus):
    """Solution of a least-squares problem; also unpacks as `x, residuals, rank, s` like scipy.linalg.lstsq.

    Attributes
    ----------
    x : ndarray, (n,) or (n, k)
        The solution, in the dtype of the data.
    residual_norm : float or ndarray (k,)
        ||b - A x||, without the ridge term.
    backward_error : float or ndarray (k,)
        Certificate: size, relative to ||A||_F, of the smallest change of A that makes x an exact solution (Karlson and
        Walden 1997, as estimated from the sketch; with ridge, of the augmented problem).
    error_bound : float or ndarray (k,)
        Estimate of the relative forward error ||x - x*|| / ||x||.
    linf_bound : float, ndarray (k,) or None
        For method "linf": max |x - x*| over the entries is at most this, but for a probability of 1e-6 per right-hand side;
        inf at deficient rank.
    rank : int
        Numerical rank; below n the solution is the minimum-norm one of the truncated problem.
    cond : float
        Estimated condition number of A (of its truncation to `rank`), after scaling its columns to equal norms, which is
        what the accuracy depends on.
    iterations, passes : int
        Inner iterations; reads of A, sketching included.
    method : str
        The method that ran ("auto" is resolved).
    seed : int
        Replays the run: pass it as `rng`.
    status : Status
    message : str
    success : bool
    history : list of dict
        One entry per iteration: iteration, passes, time (seconds), backward_error (estimate), residual_norm.
    s : ndarray
        Singular values of A: exact for "direct" and "cholqr", else of the sketch, within a factor 1 +- sqrt(n / d) of A's.
    """

    def __init__(
        self,
        x: np.ndarray,
        residual_norm: Any,
        *,
        evidence: Callable[[], Evidence],
        method: str,
        seed: int,
        status: Status,
        iterations: int = 0,
        passes: int = 0,
        history: list[dict[str, Any]] | None = None,
        notes: str = "",
        linf_bound: Any = None,
    ):
        self.x, self._residual_norm = x, residual_norm
        self.method, self.seed, self.status = method, seed, status
        self.iterations, self.passes = iterations, passes
        self.history = [] if history is None else history
        self.notes, self.linf_bound = notes, linf_bound
        self._make_evidence = evidence

    @cached_property
    def residual_norm(self) -> Any:
        with np.errstate(all="ignore"):
            return self._residual_norm() if callable(self._residual_norm) else self._residual_norm

    @cached_property
    def _evidence(self) -> Evidence:
        with np.errstate(all="ignore"):
            return self._make_evidence()

    @property
    def backward_error(self) -> Any:
        return self._evidence.backward_error

    @property
    def error_bound(self) -> Any:
        return self._evidence.error_bound

    @property
    def rank(self) -> int:
        return self._evidence.rank

    @property
    def cond(self) -> float:
        return self._evidence.cond

    @cached_property
    def s(self) -> np.ndarray:
        values = self._evidence.singular_values
        return np.zeros(0) if values is None else values()

    def __getstate__(self) -> dict[str, Any]:
        # Evidence that was not asked for yet is a function of data that a pickle should not carry.
        evidence = dataclasses.replace(self._evidence, singular_values=None)
        state = dict(self.__dict__, _evidence=evidence, s=self.s, residual_norm=self.residual_norm)
        state.update(_make_evidence=None, _residual_norm=None)
        return state

    def __iter__(self) -> Iterator[Any]:
        return iter((self.x, np.square(self.residual_norm), self.rank, self.s))

    def __repr__(self) -> str:
        evidence = ("residual_norm", "backward_error", "error_bound", "rank", "cond", "iterations", "passes", "seed")
        return listed(self, "message", "status", "method", *evidence, "x")
