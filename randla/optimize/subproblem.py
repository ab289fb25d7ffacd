"""The subproblems of second-order methods: `trust_region_subproblem`, `cubic_subproblem`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import dnrm2

from .. import _check
from .._backend import kind, on_device
from ._descent import GradientModel
from ._krylov import BlockLanczosModel, EigenModel, LanczosModel, Step
from ._shifted import ShiftedModel
from ._steihaug import SteihaugModel
from .certificate import start_vector

TRUST_REGION_METHODS = ("exact", "gltr", "block", "steihaug", "shifted")
CUBIC_METHODS = ("exact", "lanczos", "block", "shifted", "gradient")

_PANEL = 64  # columns of H formed at a time
_ASYMMETRY = 1e-8  # |H - H'| relative to |H| taken for rounding


@dataclasses.dataclass(frozen=True)
class SubproblemInfo:
    """What is known of a step s of the model m(s) = g's + s'Hs/2 (+ sigma/3 ||s||^3).

    Attributes
    ----------
    decrease : float
        -m(s), at least 0.
    multiplier : float
        lambda: (H + lambda I) s = -g up to the residual. sigma ||s|| for a minimizer of the cubic model.
    boundary : bool
        Whether ||s|| is the radius.
    hard_case : bool
        Whether s was completed along an eigenvector of the lowest eigenvalue that g has no part in. Its
        part in s may then have either sign.
    residual : float
        ||(H + lambda I) s + g|| / max(||g||, lambda ||s||).
    products : int
        Vectors multiplied by H; forming H from an operator counts d, an array that is at hand 0.
    curvature : float
        The lowest Ritz value seen: an upper bound of the lowest eigenvalue; NaN without products.
    converged : bool
        Whether the method did what it promises within the limits given.
    seed : int
        Replays the run: pass it as `rng`.
    """

    decrease: float
    multiplier: float
    boundary: bool
    hard_case: bool
    residual: float
    products: int
    curvature: float
    converged: bool
    seed: int


class _Operator:
    """Products with H whose result is looked at: shape, dtype, NaN."""

    def __init__(self, H: Any, dim: int):
        self._H, self._dim = H, dim

    def __matmul__(self, V: np.ndarray) -> np.ndarray:
        U = np.asarray(self._H @ V)
        if U.dtype.kind not in "fiub":
            raise TypeError(f"H must be real; got products of dtype {U.dtype}")
        if U.shape != V.shape:
            raise ValueError(f"H @ V must have the shape of V, {V.shape}; got {U.shape}")
        _check.finite(U, "H @ V")
        return U.astype(np.float64, copy=False)


def trust_region_subproblem(
    H: Any,
    g: Any,
    radius: float,
    *,
    method: str = "exact",
    tol: float = 1e-8,
    maxiter: int | None = None,
    rng: Any = None,
) -> tuple[np.ndarray, SubproblemInfo]:
    """Solve min g's + s'Hs/2 over ||s|| <= radius, H symmetric and possibly indefinite.

    Parameters
    ----------
    H : array (d, d), sparse matrix, LinearOperator, or anything with `H @ v` and `H @ V`
        Symmetric, real. Arrays and sparse matrices are checked for that, operators are not.
    g : array (d,)
        Real.
    radius : float
        Positive.
    method : str
        "exact": one eigendecomposition and the secular equation (More, Sorensen 1983). The global minimizer to rounding, in the
        hard case too. Forms H.
        "gltr": the minimizer over the Krylov space of g, grown until the residual is at most tol (Gould, Lucidi, Roma, Toint
        1999); then a random vector joins the space, until the lowest Ritz pair found from it has a residual of at most tol
        ||H||. The global minimizer with probability one as tol goes to 0, in the hard case too. Without a random vector, as
        this method is usually run, only the minimizer over the Krylov space of g is found.
        "block": the same with the random vector from the start: products come in pairs. Same guarantee.
        "steihaug": conjugate gradients cut off at the boundary (Steihaug 1983). At least the decrease of the Cauchy point, for
        positive definite H half of the best (Yuan 2000); far from the minimizer where H is indefinite.
        "shifted": conjugate gradients for many shifts at once, then once more near the multiplier: no basis is stored. The
        minimizer over the Krylov space of g up to tol; the hard case is not found.
    tol : float
        Of the residual, see SubproblemInfo; not for "exact", and inside the trust region only for "steihaug".
    maxiter : int
        Largest dimension of the Krylov space, or iterations; default d, for "shifted" 2 d.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7, for "gltr" and "block"; `info.seed` replays the run.

    Returns
    -------
    s : ndarray (d,)
    info : SubproblemInfo

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, also an H that is not symmetric; ValueError for NaN or infinite entries and products.
    """
    return _solve(H, g, _check.real(radius, "radius", strict=True), False, method, TRUST_REGION_METHODS, tol, maxiter, rng)


def cubic_subproblem(
    H: Any,
    g: Any,
    sigma: float,
    *,
    method: str = "exact",
    tol: float = 1e-8,
    maxiter: int | None = None,
    rng: Any = None,
) -> tuple[np.ndarray, SubproblemInfo]:
    """Solve min g's + s'Hs/2 + sigma/3 ||s||^3, H symmetric and possibly indefinite.

    Parameters
    ----------
    H : array (d, d), sparse matrix, LinearOperator, or anything with `H @ v` and `H @ V`
        Symmetric, real. Arrays and sparse matrices are checked for that, operators are not.
    g : array (d,)
        Real.
    sigma : float
        Positive.
    method : str
        "exact": one eigendecomposition and the secular equation (Cartis, Gould, Toint 2011). The global minimizer to rounding,
        in the hard case too. Forms H.
        "lanczos": the minimizer over the Krylov space of g, grown until the residual is at most tol (Cartis, Gould, Toint
        2011); then a random vector joins the space, until the lowest Ritz pair found from it has a residual of at most tol
        ||H||. The global minimizer with probability one as tol goes to 0, in the hard case too.
        "block": the same with the random vector from the start: products come in pairs. Same guarantee.
        "shifted": conjugate gradients for many shifts at once (Dussault, Migot, Orban 2023), then once more near the
        multiplier: no basis is stored. The minimizer over the Krylov space of g up to tol; the hard case is not found.
        "gradient": gradient descent from a perturbed Cauchy point (Carmon, Duchi 2019). The global minimizer with probability
        one as the iterations grow; many are needed near the hard case, and for a small tol.
    tol : float
        Of the residual, see SubproblemInfo; not for "exact".
    maxiter : int
        Largest dimension of the Krylov space, or iterations; default d, for "shifted" 2 d, for "gradient" 1000.
    rng : None, int, SeedSequence, BitGenerator or Generator
        As in SPEC 7, for "lanczos", "block" and "gradient"; `info.seed` replays the run.

    Returns
    -------
    s : ndarray (d,)
    info : SubproblemInfo

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments, also an H that is not symmetric; ValueError for NaN or infinite entries and products.
    """
    return _solve(H, g, _check.real(sigma, "sigma", strict=True), True, method, CUBIC_METHODS, tol, maxiter, rng)


def _solve(
    H: Any, g: Any, parameter: float, cubic: bool, method: str, methods: tuple[str, ...], tol: float, maxiter: Any, rng: Any
) -> tuple[np.ndarray, SubproblemInfo]:
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}; got {method!r}")
    gradient = _vector(g)
    hessian, operator = _hessian(H, len(gradient))
    tol = _check.real(tol, "tol", strict=True)
    limit = None if maxiter is None else _check.integer(maxiter, "maxiter", 1)
    seed = _check.seed(rng)
    dim = len(gradient)
    if method == "exact":
        dense = _dense(hessian, dim)
        step = _of(EigenModel(dense, gradient), parameter, cubic)
        step.residual = _residual(dense, gradient, step)
        return step.s, _info(step, dim if operator else 0, seed)
    model: Any
    if method in ("gltr", "lanczos"):
        model = LanczosModel(hessian, gradient, tol=tol, maxdim=limit, certain=True, seed=seed)
    elif method == "block":
        start = start_vector(dim, 0, seed)
        model = BlockLanczosModel(hessian, gradient, start, tol=tol, maxdim=limit, certain=True, seed=seed)
    elif method == "steihaug":
        model = SteihaugModel(hessian, gradient, tol=tol, maxiter=limit)
    elif method == "gradient":
        model = GradientModel(hessian, gradient, tol=tol, maxiter=1000 if limit is None else limit, seed=seed)
    else:
        return _shifted(ShiftedModel(hessian, gradient, tol=tol, maxiter=limit), parameter, cubic, seed)
    step = _of(model, parameter, cubic)
    return step.s, _info(step, model.products, seed)


def _shifted(model: ShiftedModel, parameter: float, cubic: bool, seed: int) -> tuple[np.ndarray, SubproblemInfo]:
    step = _of(model, parameter, cubic)
    products = model.products
    if step.residual > model.tol:
        again = model.refined(parameter, cubic)
        refined = _of(again, parameter, cubic)
        products = model.products + again.products
        if refined.decrease >= step.decrease:
            step = refined
    step.converged = step.residual <= model.tol
    return step.s, _info(step, products, seed)


def _of(model: Any, parameter: float, cubic: bool) -> Step:
    return model.cubic(parameter) if cubic else model.trust_region(parameter)


def _info(step: Step, products: int, seed: int) -> SubproblemInfo:
    return SubproblemInfo(
        step.decrease,
        step.multiplier,
        step.boundary,
        step.hard_case,
        step.residual,
        products,
        step.curvature,
        step.converged,
        seed,
    )


def _residual(H: np.ndarray, g: np.ndarray, step: Step) -> float:
    largest = max(float(dnrm2(g)), step.multiplier * step.norm)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(dnrm2(H @ step.s + step.multiplier * step.s + g)) / largest if largest > 0 else 0.0


def _vector(value: Any) -> np.ndarray:
    g = _check.real_array(value, "g")
    if g.ndim != 1 or g.size == 0:
        raise ValueError(f"g must have shape (d,), d at least 1; got {g.shape}")
    _check.finite(g, "g")
    return np.ascontiguousarray(g, dtype=np.float64)


def _hessian(H: Any, dim: int) -> tuple[Any, bool]:
    """H as an array, a CSR matrix or checked products, and whether it is known by its products alone."""
    if on_device(H):
        raise TypeError(f"H must be a numpy array or an operator with H @ V for arrays of the host; got {kind(H)}")
    operator = not sp.issparse(H) and not isinstance(H, np.ndarray | list | tuple)
    if operator and not hasattr(H, "__matmul__"):
        raise TypeError(f"H must be an array, a sparse matrix or have products H @ V; got {type(H).__name__}")
    a = H if operator else _check.matrix(H, "H")
    shape = tuple(getattr(a, "shape", (dim, dim)))
    if shape != (dim, dim):
        raise ValueError(f"H must have shape {(dim, dim)} for g of {dim} entries; got {shape}")
    if operator:
        return _Operator(a, dim), True
    if a.dtype.kind == "c":
        raise TypeError(f"H must be real; got {a.dtype}")
    _check.finite(a.data if sp.issparse(a) else a, "H")
    largest = float(abs(a).max())
    asymmetry = float(abs(a - a.T).max())
    if asymmetry > _ASYMMETRY * largest:
        raise ValueError(f"H must be symmetric; got max |H - H'| = {asymmetry:.2g} with max |H| = {largest:.2g}")
    return a.astype(np.float64, copy=False), False


def _dense(H: Any, dim: int) -> np.ndarray:
    if isinstance(H, np.ndarray):
        return 0.5 * H + 0.5 * H.T
    if sp.issparse(H):
        return _dense(H.toarray(), dim)
    columns = np.empty((dim, dim), order="F")
    for j in range(0, dim, _PANEL):
        width = min(_PANEL, dim - j)
        E = np.zeros((dim, width), order="F")
        E[range(j, j + width), range(width)] = 1.0
        columns[:, j : j + width] = H @ E
    return _dense(columns, dim)
