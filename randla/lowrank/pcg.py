"""Regularized positive semidefinite systems by conjugate gradients with a Nystrom preconditioner: `nystrom_pcg`."""

from __future__ import annotations

import dataclasses
import enum
import math
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .. import _check
from .._numeric import norms, powers_of_two
from ..result import HasStatus, per_column
from ._operand import Operand
from ._psd_iteration import Apply, ConjugateGradients
from ._psd_nystrom import Approximation, Sketch
from ._psd_rank import Costs, Trial, adaptive
from ._psd_shifted import ShiftedInverse, columns, right_hand_sides
from .nystrom import NystromResult, cut, hermitian_operand, outcome
from .result import LowRankWarning

_RESTARTS = 6
_ROUNDING = 8.0  # backward errors below this many eps are those of rounding


class PCGStatus(enum.Enum):
    """How a solve ended. The value is the sentence shown to users."""

    CONVERGED = "The relative residual is as small as requested."
    ROUNDING = "The residual is as small as rounding lets it be, that of a backward stable solver, though above the tolerance."
    STAGNATED = "Progress stopped before the requested residual was reached; the best iterate is returned."
    ITERATION_LIMIT = "The iteration limit was reached before the requested residual; the last iterate is returned."
    STOPPED = "The callback stopped the run; the last iterate is returned."
    NOT_POSITIVE = "A is not positive semidefinite: the residual of x is as stated, but its error is not bounded."

    @property
    def success(self) -> bool:
        return self in (PCGStatus.CONVERGED, PCGStatus.ROUNDING)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PCGResult(HasStatus):
    """Solution of (A + ridge I) x = b with its certificate.

    Attributes
    ----------
    x : ndarray (n,) or (n, k)
        The solution, in the dtype of A and b.
    residual_norm : float or ndarray (k,)
        ||b - (A + ridge I) x||, from a product with x.
    relative_residual : float or ndarray (k,)
        residual_norm / ||b||.
    backward_error : float or ndarray (k,)
        residual_norm / ((||A|| + ridge) ||x|| + ||b||), ||A|| being estimated from below.
    error_bound : float or ndarray (k,)
        ||x - x*|| / ||x|| is at most this, residual_norm / (ridge ||x||), as A is positive semidefinite; nan for status
        NOT_POSITIVE.
    cond : float
        Estimate of the condition number of the preconditioned matrix, from below.
    rank : int
        Columns of the preconditioner; 0 for plain conjugate gradients.
    iterations, passes : int
        Of the slowest right-hand side, plain ones included; reads of A, those for the preconditioner included.
    approximation : NystromResult, what was given as `preconditioner`, or None where plain conjugate gradients were enough
        For further solves: pass it as `preconditioner`, with any ridge.
    seed : int
        Replays the run: pass it as `rng`.
    status : PCGStatus
    message : str
    success : bool
    history : list of dict
        One entry per iteration: iteration, passes, time (seconds), relative_residual (the largest, by the recursion).
    """

    x: np.ndarray
    residual_norm: Any
    relative_residual: Any
    backward_error: Any
    error_bound: Any
    cond: float
    rank: int
    iterations: int
    passes: int
    approximation: Any
    seed: int
    status: PCGStatus
    history: list[dict[str, Any]]
    notes: str = ""

    def __repr__(self) -> str:
        names = ("relative_residual", "backward_error", "error_bound", "cond", "rank", "iterations", "passes", "seed")
        rows = [f"{name:>17}: {getattr(self, name)}" for name in ("message", *names)]
        return "\n".join([*rows, f"{'x':>17}: {np.array2string(self.x, threshold=8)}"])


def nystrom_pcg(
    A: Any,
    b: Any,
    ridge: float,
    *,
    k: int | None = None,
    tol: float | None = None,
    maxiter: int = 1000,
    x0: Any = None,
    preconditioner: Any = None,
    callback: Callable[[Any], None] | None = None,
    rng: Any = None,
) -> PCGResult:
    """Solve (A + ridge I) x = b for positive semidefinite A by conjugate gradients with a Nystrom preconditioner.

    The preconditioner is only made where it pays; with a large ridge plain conjugate gradients may be all. Iterations do not
    depend on the condition number of A once its rank exceeds about 1.5 to 3 times the effective dimension
    trace(A (A + ridge I)^-1): with 2 ceil(1.5 d) + 1 columns the preconditioned condition number has an expectation below 28
    (Frangella, Tropp, Udell 2023).

    Parameters
    ----------
    A : array (n, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Hermitian and positive semidefinite, real or complex. Only its products are used.
    b : array (n,) or (n, k)
        One right-hand side or several, which stop one by one.
    ridge : float
        Greater than 0.
    k : int, optional
        Test vectors of the preconditioner, its rank. None: plain iterations first, of which a product with one triangle of A is
        all; where their rate promises more than four times the work of a preconditioner, one is made from the iterate
        reached. Its rank is doubled until the iterations that a further doubling can save cost less than itself, going by
        leave-one-out errors, and it is dropped where it saves nothing. All of that is counted in products by a fixed model,
        never timed: a seed replays it.
    tol : float
        For ||b - (A + ridge I) x|| / ||b||; default 1e-8, 1e-4 for float32 and complex64.
    maxiter : int
        Largest number of iterations.
    x0 : array like b, optional
        Where to start.
    preconditioner : NystromResult, CholeskyResult or LinearOperator, optional
        To be used instead of a new one: anything with a method `preconditioner(ridge)`, or an approximate inverse of
        A + ridge I itself. Not with k.
    callback : callable
        Called as callback(intermediate_result=...) after every iteration, with the fields of `history` and x, of all right-hand
        sides. A StopIteration ends the run.
    rng : None | int | SeedSequence | BitGenerator | Generator (SPEC 7)

    Returns
    -------
    PCGResult

    Raises
    ------
    TypeError
        For unsupported types and dtypes.
    ValueError
        For arguments out of range, NaN and infinity, and A that is not square or seen not to be Hermitian: by the test vectors
        of the preconditioner, or by one of them and the first plain iterations.

    Warns
    -----
    LowRankWarning
        Where the tolerance is not reached, or a vector with x^H A x < 0 was met (status NOT_POSITIVE).
    """
    op = hermitian_operand(A)
    n = op.shape[0]
    B = right_hand_sides(b, n)
    mu = _check.real(ridge, "ridge", strict=True)
    size = None if k is None else min(_check.integer(k, "k", 1), n)
    limit = _check.integer(maxiter, "maxiter", 0)
    goal = (1e-8 if np.finfo(op.dtype).eps < 1e-10 else 1e-4) if tol is None else _check.real(tol, "tol")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable; got {callback!r}")
    if preconditioner is not None and size is not None:
        raise ValueError(f"k must be None where a preconditioner is given; got {k}")
    start = None if x0 is None else _check.array(x0, "x0")
    if start is not None:
        if start.shape != B.shape:
            raise ValueError(f"x0 must have the shape of b, {B.shape}; got {start.shape}")
        _check.finite(start, "x0")
        if start.dtype.kind == "c" and "c" not in (op.dtype.kind, B.dtype.kind):
            raise TypeError(f"x0 must be real, as A and b are; got {start.dtype}")
    width = B[:1].size * (2 if B.dtype.kind == "c" and op.dtype.kind != "c" else 1)
    inverse = _Preconditioner(op, mu, size, preconditioner, width, _check.seed(rng))
    out = _Solve(op, B, mu, goal, limit, inverse, callback).run(start)
    if not out.success:
        warnings.warn(out.message, LowRankWarning, stacklevel=2)
    return out


class _Preconditioner:
    """`apply`, and what is known of A from making it: its norm from below, a negative curvature.

    `costs` are given where it is a matter of them whether and of which rank one is made; until then `apply` does nothing.
    """

    def __init__(self, op: Operand, ridge: float, k: int | None, given: Any, width: int, seed: int):
        self.ridge, self.seed, self.negative, self.norm, self.rank = ridge, seed, 0.0, 0.0, 0
        self.apply: Apply = lambda X: X
        self.approximation: Any = None
        self.sketch = Sketch(op, seed)
        self.costs = Costs(op, width) if given is None and k is None else None
        if given is not None:
            self._take(given)
        elif k is not None:
            self._found(self.sketch.approximation(k), k)

    def adapt(self, distance: float, remaining: float) -> None:
        """Make one of the rank that costs least, if any; arguments as in `adaptive`."""
        assert self.costs is not None
        found = adaptive(self.sketch, self.ridge, self.costs, distance, remaining)
        if found is not None:
            self._found(found, len(found.values))

    def _found(self, found: Approximation, k: int) -> None:
        self.negative = found.negative
        self._take(cut(found, k, self.sketch, *outcome(found)))

    def _take(self, made: Any) -> None:
        self.approximation = made
        if isinstance(made, NystromResult):
            tail = float(made.eigenvalues[-1]) if len(made.eigenvalues) else 0.0
            self.apply = ShiftedInverse(made.U, made.eigenvalues, self.ridge, tail + self.ridge).apply
            self.rank, self.norm = len(made.eigenvalues), float(made.eigenvalues.max(initial=0.0))
        elif isinstance(made, LinearOperator) or hasattr(made, "preconditioner"):
            operator = made if isinstance(made, LinearOperator) else made.preconditioner(self.ridge)
            self.apply = lambda X: operator.matmat(X).astype(X.dtype, copy=False)
            self.rank = int(getattr(made, "rank", 0))
        else:
            kinds = "a NystromResult, a CholeskyResult or a LinearOperator"
            raise TypeError(f"preconditioner must be {kinds}; got {type(made).__name__}")


class _Solve:
    """Runs of conjugate gradients, each followed by the true residual, from which the next one starts."""

    def __init__(
        self, op: Operand, B: np.ndarray, ridge: float, tol: float, maxiter: int, inverse: _Preconditioner, callback: Any
    ):
        self.op, self.ridge, self.tol, self.maxiter, self.inverse, self.callback = op, ridge, tol, maxiter, inverse, callback
        self.b = B
        # Complex right-hand sides of a real A are two real ones each.
        self.paired = B.dtype.kind == "c" and op.dtype.kind != "c"
        blocks = columns(B)
        given = np.hstack([blocks.real, blocks.imag]) if self.paired else blocks
        self.scale = powers_of_two(norms(given.T).astype(np.float64))
        self.B = (given * self.scale).astype(op.dtype)
        self.size = norms(self.B.T).astype(np.float64)
        self.units = np.where(self.size > 0, 1 / np.where(self.size > 0, self.size, 1.0), 0.0)
        # Somewhat less than asked for, as the recursion drifts from the true residual; but not below rounding.
        self.below = max(0.7 * tol, 0.5 * float(np.finfo(op.dtype).eps))
        self.history: list[dict[str, Any]] = []
        self.begun = time.perf_counter()
        self.stopped = False
        self.X = np.zeros_like(self.B)

    def run(self, x0: np.ndarray | None) -> PCGResult:
        R = self.B.copy()
        if x0 is not None:
            start = columns(x0)
            if self.paired:
                start = np.hstack([start.real, start.imag])
            self.X = (start * self.scale).astype(self.op.dtype)
            R = self._residual()
        solver = ConjugateGradients(self.op.hermitian_times, self.inverse.apply, self.ridge)
        sizes, improved = norms(R.T).astype(np.float64), True
        cond: float | None = None
        if self.inverse.costs is not None and self._judge(sizes, solver) is None:
            cond, sizes, R = self._trial(self.inverse.costs, solver, sizes, R)
        attempt = 0
        while (status := self._judge(sizes, solver)) is None and improved and attempt < _RESTARTS:
            left, R = self._cycle(solver, sizes, R)
            cond = solver.condition() if cond is None else cond
            improved = bool((left < 0.5 * sizes).any())
            sizes, attempt = left, attempt + 1
        return self._result(sizes, 1.0 if cond is None else cond, status or PCGStatus.STAGNATED, solver)

    def _trial(
        self, costs: Costs, solver: ConjugateGradients, sizes: np.ndarray, R: np.ndarray
    ) -> tuple[float | None, np.ndarray, np.ndarray]:
        """Plain iterations until a preconditioner pays, which is made then, with their condition number where none was."""
        trial, cond = Trial(costs, self.inverse.sketch), None
        trial.see(self._distance(sizes))
        if not trial.ends:
            solver.times = trial.times
            sizes, R = self._cycle(solver, sizes, R, trial)
            solver.times, cond = self.op.hermitian_times, solver.condition()
            self.inverse.norm = solver.extremes()[1] - self.ridge if solver.iterations else 0.0
        if trial.ends and self._judge(sizes, solver) is None:
            self.inverse.adapt(trial.distances[-1], trial.remaining)
            if self.inverse.rank:
                solver.renew(self.inverse.apply)
                cond = None
        return cond, sizes, R

    def _distance(self, sizes: np.ndarray) -> float:
        """Logarithm of the largest ratio of a residual to its goal."""
        return math.log(max(1.0, float((sizes * self.units / self.below).max(initial=0.0))))

    def _cycle(
        self, solver: ConjugateGradients, sizes: np.ndarray, R: np.ndarray, trial: Trial | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """From the residuals R of the given norms to new ones, of the columns that are not finished; none grows."""
        open_ = np.flatnonzero(sizes > self.tol * self.size)
        units = powers_of_two(sizes[open_])
        before, now = self.X[:, open_], sizes.copy()

        def seen(which: np.ndarray, left: np.ndarray, step: np.ndarray) -> bool:
            now[open_[which]] = left / units[which]
            if trial is not None:
                trial.see(self._distance(now))
            return self._report(solver, now, open_, before, step, units) or (trial is not None and trial.ends)

        goals = self.below * self.size[open_] * units
        step = solver.solve((R[:, open_] * units).astype(R.dtype), goals, self.maxiter, seen)
        self.X[:, open_] = before + step / units
        found = self._residual()
        left = norms(found.T).astype(np.float64)
        grown = open_[left[open_] > sizes[open_]]
        self.X[:, grown] = before[:, np.isin(open_, grown)]
        found[:, grown], left[grown] = R[:, grown], sizes[grown]
        return left, found

    def _residual(self) -> np.ndarray:
        out = self.op.times(self.X)
        out += self.X * self.X.real.dtype.type(self.ridge)
        np.subtract(self.B, out, out=out)
        if not np.isfinite(out).all():
            raise ValueError("A must be finite; got NaN or infinite values in its products")
        return out

    def _norm(self, solver: ConjugateGradients) -> float:
        """||A + ridge I|| from below."""
        return max(self.inverse.norm, solver.largest) + self.ridge

    def _judge(self, sizes: np.ndarray, solver: ConjugateGradients) -> PCGStatus | None:
        if solver.broken:
            return PCGStatus.NOT_POSITIVE
        goals = self.tol * self.size
        if (sizes <= goals).all():
            return PCGStatus.CONVERGED
        rounding = _ROUNDING * float(np.finfo(self.op.dtype).eps) * (self._norm(solver) * norms(self.X.T) + self.size)
        if (sizes <= np.maximum(goals, rounding)).all() and solver.iterations:
            return PCGStatus.ROUNDING
        if self.stopped:
            return PCGStatus.STOPPED
        return PCGStatus.ITERATION_LIMIT if solver.iterations >= self.maxiter else None

    def _report(
        self,
        solver: ConjugateGradients,
        sizes: np.ndarray,
        which: np.ndarray,
        before: np.ndarray,
        step: np.ndarray,
        units: np.ndarray,
    ) -> bool:
        entry = {
            "iteration": solver.iterations,
            "passes": self.op.passes,
            "time": time.perf_counter() - self.begun,
            "relative_residual": float((sizes * self.units).max()),
        }
        self.history.append(entry)
        if self.callback is not None:
            now = self.X.copy()
            now[:, which] = before + step / units
            try:
                self.callback(intermediate_result=SimpleNamespace(**entry, x=self._shaped(now)))
            except StopIteration:
                self.stopped = True
        return self.stopped

    def _shaped(self, X: np.ndarray) -> np.ndarray:
        X = (X / self.scale).astype(self.op.dtype)
        if self.paired:
            half = X.shape[1] // 2
            X = X[:, :half] + 1j * X[:, half:]
        return np.ascontiguousarray(X.reshape(self.b.shape))

    def _folded(self, sizes: np.ndarray) -> Any:
        """Norms per right-hand side."""
        sizes = sizes / self.scale
        if self.paired:
            sizes = np.hypot(*np.split(sizes, 2))
        return sizes

    def _result(self, sizes: np.ndarray, cond: float, status: PCGStatus, solver: ConjugateGradients) -> PCGResult:
        x = norms(self.X.T).astype(np.float64)
        residual, x, b = self._folded(sizes), self._folded(x), self._folded(self.size)
        norm = self._norm(solver)
        negative = min(self.inverse.negative, solver.lowest)
        notes = ""
        if negative < -len(self.B) * float(np.finfo(self.op.dtype).eps) * norm:
            status, notes = PCGStatus.NOT_POSITIVE, f"There is an x with x^H A x = {negative:.3g} x^H x."
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            relative = np.where(residual > 0, residual / b, 0.0)
            backward = np.where(residual > 0, residual / (norm * x + b), 0.0)
            bound = np.where(residual > 0, residual / (self.ridge * x), 0.0)
        if status is PCGStatus.NOT_POSITIVE:
            bound = np.full_like(bound, np.nan)
        return PCGResult(
            x=self._shaped(self.X),
            residual_norm=per_column(residual, self.b),
            relative_residual=per_column(relative, self.b),
            backward_error=per_column(backward, self.b),
            error_bound=per_column(bound, self.b),
            cond=cond,
            rank=self.inverse.rank,
            iterations=solver.iterations,
            passes=self.op.passes,
            approximation=self.inverse.approximation,
            seed=self.inverse.seed,
            status=status,
            history=self.history,
            notes=notes,
        )
