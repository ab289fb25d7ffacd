"""Fixed-support matrix factorization: `fsmf`."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from ..result import HasStatus
from ._als import Descent, descend
from ._factors import closed_form
from .supports import Witness, corner, masks, plan, rank_one_supports

METHODS = ("auto", "exact", "als", "palm")

_MAXITER = {"als": 1000, "palm": 5000}
# Signs of divergence: rank-one terms that cancel, and go on growing over the second half of the sweeps or are so large that
# rounding hides it.
_CANCELLATION, _GROWTH, _LARGEST = 4.0, 1.05, 1e3
_HEAVIEST = 1e150  # ridge, relative to A: the minimum has long been at zero


class FSMFWarning(UserWarning):
    """Numerical trouble in a fixed-support factorization: diverging factors, too few iterations."""


class FSMFStatus(enum.Enum):
    """How a fixed-support factorization ended. The value is the sentence shown to users."""

    EXACT = "Globally optimal: these supports have a closed form."
    HEURISTIC = "Converged: the best of several starts, which need not be the global minimum."
    DIVERGED = "The factors grow while the error creeps: the infimum may not be attained; with ridge > 0 it is."
    ITERATION_LIMIT = "The iteration limit was reached before the requested tolerance; the best of several starts is returned."

    @property
    def success(self) -> bool:
        return self in (FSMFStatus.EXACT, FSMFStatus.HEURISTIC)


@dataclasses.dataclass
class FSMFResult(HasStatus):
    """A ~ X Y^T on fixed supports, with what is known about its optimality.

    Attributes
    ----------
    X, Y : ndarray, (m, r) and (n, r)
        Zero outside the supports; in the dtype of A. The product is X Y^T, without conjugation.
    error : float
        ||A - X Y^T||_F, of factors not yet rounded to their dtype.
    exact : bool
        Proved to be a global minimum, up to rounding.
    closed : bool or None
        Whether every A has a nearest product on these supports, as `supports_closed`.
    witness : Witness or None
        The proof, where closed is False.
    method : str
        The method that ran ("auto" is resolved).
    iterations : int
        Sweeps over X and Y of the start returned; 0 for "exact".
    seed : int
        Replays the run: pass it as `rng`.
    status : FSMFStatus
    message : str
    success : bool
    history : list of dict
        Of the start returned, one entry per sweep: iteration, objective (with the ridge), and terms, the sum of
        ||x_k|| ||y_k||, which grows without bound where factors diverge.
    """

    X: np.ndarray
    Y: np.ndarray
    error: float
    exact: bool
    closed: bool | None
    witness: Witness | None
    method: str
    iterations: int
    seed: int
    status: FSMFStatus
    history: list[dict[str, Any]] = dataclasses.field(repr=False)


def fsmf(
    A: Any,
    I: Any,
    J: Any,
    *,
    method: str = "auto",
    starts: int = 8,
    maxiter: int | None = None,
    tol: float = 1e-10,
    ridge: float = 0.0,
    rng: Any = None,
) -> FSMFResult:
    """Minimize ||A - X Y^T||_F^2 + ridge (||X||_F^2 + ||Y||_F^2) with supp X in I and supp Y in J.

    Low-rank approximation, LU, and a step of the butterfly algorithm are cases of it. Where `supports_tractable` holds, the
    global minimum comes from truncated SVDs of blocks (Le, Riccietti, Gribonval 2023). In general the problem is NP-hard.

    Parameters
    ----------
    A : array or CSR/CSC, (m, n)
        Real or complex. A sparse A is made dense, except for closed forms on disjoint or identical supports.
    I, J : array or sparse matrix, (m, r) and (n, r)
        Supports: boolean, or numbers of which nonzero ones count.
    method : str
        "exact": the closed form, an error where there is none;
        "als": alternating least squares, each row to its minimum, rows of equal support together;
        "palm": proximal alternating linearized minimization (Bolte, Sabach, Teboulle 2014), cheap sweeps but many more;
        "auto": "exact" where it applies, else "als".
        With a ridge the closed form (soft-thresholded singular values) is that of disjoint or identical supports only.
    starts : int
        For "als" and "palm": how many, the first one deterministic.
    maxiter : int
        Sweeps over both factors; default 1000 for "als", 5000 for "palm".
    tol : float
        "als" and "palm" end when a sweep lowers the objective by less than this, relatively, or the error is below tol ||A||_F.
    ridge : float
        With a positive one the minimum is always attained.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7; `result.seed` replays the run.

    Returns
    -------
    FSMFResult

    Warns
    -----
    FSMFWarning
        Diverging factors, iteration limit.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries, and for method="exact" without a closed form.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = _check.matrix(A, "A")
    _check.finite(a.data if sp.issparse(a) else a, "A")
    i, j = masks(I, J)
    for mask, name, size, axis in ((i, "I", a.shape[0], "rows"), (j, "J", a.shape[1], "columns")):
        if len(mask) != size:
            raise ValueError(f"{name} must have {size} rows, the {axis} of A; got {len(mask)}")
    starts = _check.integer(starts, "starts", 1)
    if maxiter is not None:
        maxiter = _check.integer(maxiter, "maxiter", 1)
    tol, ridge = _check.real(tol, "tol"), _check.real(ridge, "ridge")
    seed = _check.seed(rng)

    found = plan(i, j)
    reason = _no_closed_form(found is not None, found is not None and found.kind == "completion", ridge)
    if method == "exact" and reason:
        raise ValueError(f"method must be 'als', 'palm' or 'auto' for these supports: {reason}")
    closed, witness = True if found else None, None
    if found is None:
        witness = corner(i, j)
        closed = None if witness is None else False

    scaled, unit = _scaled(a)
    dtype, root = a.dtype, float(np.sqrt(unit))
    weight = min(ridge / unit, _HEAVIEST)
    if method == "exact" or (method == "auto" and not reason):
        assert found is not None
        dense = scaled if found.kind == "disjoint-or-identical" or not sp.issparse(scaled) else scaled.toarray()
        X, Y, error = closed_form(dense, found, i.shape[1], weight)
        status, path, used = FSMFStatus.EXACT, np.zeros((0, 2)), "exact"
    else:
        used = "als" if method == "auto" else method
        dense = scaled.toarray() if sp.issparse(scaled) else scaled
        options = (_MAXITER[used] if maxiter is None else maxiter, tol, weight)
        run = descend(dense, i, j, rank_one_supports(i, j), used, starts, options, seed)
        X, Y, path = run.X, run.Y, run.path[1:]
        error = float(np.linalg.norm(dense - X @ Y.T))
        status = _status(run, float(np.linalg.norm(dense)), closed is not True and not ridge)
    history = [
        {"iteration": t + 1, "objective": float(value) * unit * unit, "terms": float(terms) * unit}
        for t, (value, terms) in enumerate(path)
    ]
    result = FSMFResult(
        (X * root).astype(dtype),
        (Y * root).astype(dtype),
        float(error) * unit,
        used == "exact",
        closed,
        witness,
        used,
        len(path),
        seed,
        status,
        history,
    )
    if not status.success:
        warnings.warn(result.message, FSMFWarning, stacklevel=2)
    return result


def _no_closed_form(tractable: bool, overlapping: bool, ridge: float) -> str:
    if not tractable:
        return "rank-one supports overlap, and what the overlaps leave is not a set of disjoint or identical rectangles"
    return "rank-one supports overlap, and ridge is positive" if overlapping and ridge else ""


def _scaled(a: Any) -> tuple[Any, float]:
    """A in double precision and of size one, so that squares neither overflow nor vanish, and what it was divided by."""
    dtype = np.result_type(a.dtype, np.float64)
    data = a.data if sp.issparse(a) else a
    parts = (data.real, data.imag) if dtype.kind == "c" else (data,)
    top = max((float(np.abs(part).max(initial=0)) for part in parts), default=0.0)
    # An even power of two, whose root is one too.
    unit = 4.0 ** (int(np.frexp(top)[1]) // 2) if top else 1.0
    return a.astype(dtype) / unit, unit


def _status(run: Descent, size: float, may_diverge: bool) -> FSMFStatus:
    values, terms = run.path.T
    half, limit = len(terms) // 2, np.sqrt(run.X.shape[1]) * size
    if may_diverge and not run.fits and values[-1] < values[half]:
        grows = terms[-1] > _CANCELLATION * limit and terms[-1] > _GROWTH * terms[half]
        if grows or (terms[-1] > _LARGEST * limit and not run.converged):
            return FSMFStatus.DIVERGED
    return FSMFStatus.HEURISTIC if run.converged or run.fits else FSMFStatus.ITERATION_LIMIT
