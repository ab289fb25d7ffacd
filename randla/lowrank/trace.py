"""Traces from entries, or estimated from products: `trace`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from .. import _check
from ..result import HasStatus
from ._leave_one_out import GrowingBasis, PositivePart, pairs, solve_triangular, standard_error
from ._operand import Operand, operand
from ._probes import (
    TRACE,
    Estimate,
    Probes,
    Products,
    RangeOfSamples,
    Sampled,
    half_width,
    mean_and_error,
    run,
    smallest_budget,
    unit_blocks,
)
from .result import LowRankStatus, LowRankWarning

METHODS = ("auto", "exact", "xtrace", "nystrom", "hutch++", "hutchinson")


@dataclasses.dataclass(frozen=True)
class TraceResult(HasStatus):
    """A trace with its error.

    Attributes
    ----------
    value : float or complex
        Complex for a matrix of complex dtype.
    error : float
        Standard error of the value, rounding included; 0 where it comes from entries.
    matvecs : int
        Products with vectors.
    method : str
        The method that ran ("auto" is resolved).
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    value: Any
    error: float
    matvecs: int
    method: str
    seed: int
    status: LowRankStatus
    freedom: int = dataclasses.field(repr=False)
    notes: str = dataclasses.field(default="", repr=False)

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Confidence interval by Student's t; for complex values that of real and imaginary part together, as corners.

        Raises ValueError for a level outside (0, 1).
        """
        width = half_width(self.error, self.freedom, checked_level(level)) if self.error else 0.0
        corner = complex(width, width) if isinstance(self.value, complex) else width
        return self.value - corner, self.value + corner


def trace(
    A: Any, *, method: str = "auto", matvecs: int | None = None, tol: float | None = None, rng: Any = None
) -> TraceResult:
    """Trace of a square matrix that may be known by its products alone, with the standard error of the estimate.

    Estimates are unbiased for a given number of products.

    Parameters
    ----------
    A : array (n, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Real or complex. For the trace of a function of a matrix pass the operator x -> f(B) x.
    method : {"auto", "exact", "xtrace", "nystrom", "hutch++", "hutchinson"}
        "exact": the sum of the diagonal entries, from n products with unit vectors where only products are to be had.
        "xtrace": the trace of a low-rank part, and a stochastic estimate of the rest, averaged over which test vector is left
        out of the former and used for the latter (XTrace of Epperly, Tropp, Webber 2024, with test vectors resampled on the
        sphere). Exact for rank below matvecs / 2.
        "nystrom": the same for a positive semidefinite A with a Nystrom approximation, at half the products (XNysTrace).
        Exact for rank below matvecs.
        "hutch++": three groups of matvecs / 3 (Meyer, Musco, Musco, Woodruff 2021).
        "hutchinson": the mean of x'A x (Girard 1989, Hutchinson 1990), x uniform on the sphere.
        "auto": "exact" for matrices given by entries, "xtrace" for others.
    matvecs : int
        Products to spend, with `tol` the most of them; default 100, with `tol` as many as it takes. From n on the result is
        that of "exact".
    tol : float
        Add test vectors until the half-width of the 95 % confidence interval is at most tol |value|.
    rng : as in SPEC 7

    Returns
    -------
    TraceResult

    Warns
    -----
    LowRankWarning
        Where the tolerance was not reached, or "nystrom" met a matrix that is not positive semidefinite: then the value is
        that of "hutchinson" from the same products.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite diagonal entries or products.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = square(operand(A))
    seed = _check.seed(rng)
    cost = ESTIMATORS[method].cost if method in ESTIMATORS else XTrace.cost
    budget, tol = checked_budget(matvecs, tol, cost, a.shape[0])
    if method == "auto":
        method = "exact" if a.explicit else "xtrace"
    found, status = None, LowRankStatus.COMPUTED
    products = Products(a)
    if method != "exact":
        estimator = ESTIMATORS[method](products, Probes(a.shape[0], seed, TRACE, paired=a.dtype.kind == "c"))
        found, status = run(estimator, products, a.shape[0], budget, tol)
        if isinstance(estimator, NystromTrace) and estimator.indefinite and found is not None:
            status = LowRankStatus.NOT_POSITIVE
    if found is None:
        method = "exact"
        value, error = _exact(a, products)
        freedom = 1
    else:
        value, error, freedom = products.unscaled(found.value)[()], float(products.unscaled(found.error)), found.freedom
    value = complex(value) if a.dtype.kind == "c" else float(value)
    result = TraceResult(value, error, products.count, method, seed, status, freedom, _note(status))
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=2)
    return result


def _note(status: LowRankStatus) -> str:
    return "The value is Hutchinson's estimate, which needs no sign." if status is LowRankStatus.NOT_POSITIVE else ""


def square(A: Operand) -> Operand:
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"{A.name} must be square; got shape {A.shape}")
    return A


def checked_level(level: float) -> float:
    if not 0 < _check.real(level, "level") < 1:
        raise ValueError(f"level must be between 0 and 1; got {level}")
    return float(level)


def checked_budget(matvecs: Any, tol: Any, cost: int, columns: int) -> tuple[int | None, float | None]:
    if tol is not None:
        tol = _check.real(tol, "tol", strict=True)
    if matvecs is None:
        return None, tol
    return _check.integer(matvecs, "matvecs", min(smallest_budget(cost), max(columns, 1))), tol


def _exact(A: Operand, products: Products) -> tuple[Any, float]:
    if A.explicit:
        diagonal = A.diagonal()
        _check.finite(diagonal, A.name)
        return _sum(diagonal), 0.0
    total, size = 0.0, 0.0
    for j, units in unit_blocks(A.shape[0]):
        entries = products.times(units)[j : j + units.shape[1]].diagonal()
        total, size = total + entries.sum(), size + np.abs(entries).sum()
    return products.unscaled(total), float(products.unscaled(products.eps * size))


def _sum(values: np.ndarray) -> Any:
    """Correctly rounded in each part; inf where it overflows."""
    try:
        if values.dtype.kind == "c":
            return complex(math.fsum(values.real), math.fsum(values.imag))
        return math.fsum(values)
    except OverflowError:
        with np.errstate(over="ignore"):
            return values.sum()


class XTrace(RangeOfSamples):
    """Epperly, Tropp, Webber 2024. The range of A X gives the low-rank part."""

    def estimate(self) -> Estimate:
        X, Q, R, Z = self.X, self.basis.Q, self.basis.R, self.Z
        n, k = X.shape
        S, _ = self.basis.directions(self.products.eps)
        H, W, T = Q.conj().T @ Z, Q.conj().T @ X, Z.conj().T @ X
        along = dots(S, W)  # s_i* w_i
        rest = W - S * along  # coordinates of the projection of x_i onto the range without it
        quadratic = along.conj() * dots(S, R) - dots(T, rest) + dots(rest, H @ rest)
        # The component of x_i outside the range, resampled on the sphere of radius sqrt(n - k + 1) there.
        outside = squares(X) - squares(rest)
        samples = np.trace(H) - dots(S, H @ S) + (n - k + 1) / outside * quadratic
        # Without vector i too: another direction, s_i - s_j g_ji divided by its norm, leaves the range.
        g, det, known = pairs(S.conj().T @ S)
        inner, left, right = S.conj().T @ W, (T - H.conj().T @ rest).conj().T @ S, S.conj().T @ (R - H @ rest)
        SHS = S.conj().T @ H @ S
        own = SHS.diagonal()
        part = (own[:, None] - g.T * SHS - g * SHS.T + np.abs(g) ** 2 * own) / det
        c = (inner - g * along) / np.sqrt(det)
        cross = c * (left.T - g.T * left.diagonal()) + c.conj() * (right - g * right.diagonal())
        larger = quadratic + cross / np.sqrt(det) + np.abs(c) ** 2 * part
        changes = (n - k + 1) / outside * quadratic + part - (n - k + 2) / (outside + np.abs(c) ** 2) * larger
        floor = self.products.eps * (np.abs(H.diagonal()).sum() + math.sqrt(squares(R).mean()))
        return Estimate(samples.mean(), math.hypot(standard_error(samples, changes * known), floor), k - 1)


class HutchPlusPlus:
    """Meyer, Musco, Musco, Woodruff 2021: the range of A X gives the low-rank part, other vectors G estimate the rest."""

    cost = 3

    def __init__(self, products: Products, probes: Probes):
        self.products, self.probes = products, probes
        n = products.A.shape[0]
        self.Z, self.G, self.AG, self.basis = np.zeros((n, 0)), np.zeros((n, 0)), np.zeros((n, 0)), GrowingBasis(n)

    def grow(self, count: int) -> None:
        k = self.Z.shape[1]
        added = self.basis.extend(self.products.times(self.probes.columns(2 * k, k + count)))
        G = self.probes.columns(k + count, 2 * count)
        self.Z = np.concatenate([self.Z, self.products.times(added)], axis=1)
        self.G = np.concatenate([self.G, G], axis=1)
        self.AG = np.concatenate([self.AG, self.products.times(G)], axis=1)

    def estimate(self) -> Estimate:
        Q, Z, G, AG = self.basis.Q, self.Z, self.G, self.AG
        n, k = Q.shape
        H, W = Q.conj().T @ Z, Q.conj().T @ G
        outside = G - Q @ W
        # A (G - Q W) from the products that are known, so that none is lost when Q grows.
        quadratic = dots(outside, AG - Z @ W)
        samples = np.trace(H) + (n - k) / squares(outside) * quadratic
        return mean_and_error(samples, self.products.eps * (np.abs(H.diagonal()).sum() + np.sqrt(squares(AG).mean())))


class Hutchinson:
    """x uniform on the sphere of radius sqrt(n)."""

    cost = 1

    def __init__(self, products: Products, probes: Probes):
        self.products, self.probes = products, probes
        self.samples = np.zeros(0)
        self.size = 0.0

    def grow(self, count: int) -> None:
        X = self.probes.columns(len(self.samples), count)
        Y = self.products.times(X)
        self.size = max(self.size, math.sqrt(squares(Y).max()))
        self.samples = np.concatenate([self.samples, on_sphere(X, Y)])

    def estimate(self) -> Estimate:
        return mean_and_error(self.samples, self.products.eps * self.size)


class NystromTrace(Sampled):
    """Epperly, Tropp, Webber 2024, for positive semidefinite A."""

    indefinite = False

    def estimate(self) -> Estimate:
        X, Y, eps = self.X, self.Y, self.products.eps
        n, k = X.shape
        part = PositivePart.of(X, Y, eps)
        if part is None:
            self.indefinite = True
            return mean_and_error(on_sphere(X, Y), eps * math.sqrt(squares(Y).max()))
        # What the approximation leaves is zero on the other vectors: only the component of x_i outside their span counts.
        roots = solve_triangular(np.asarray(np.linalg.qr(X, mode="r")), np.eye(k, dtype=X.dtype), adjoint=True)
        outside = squares(roots)  # 1 / the square of that component
        quadratic = outside / part.size**2
        whole = float(squares(part.F).sum())
        samples = whole - squares(part.U) + (n - k + 1) * quadratic - n * part.shift
        # Without vector i too.
        roots /= np.sqrt(outside)
        g, det, known = pairs(part.gram)
        _, spanned, _ = pairs(roots.conj().T @ roots)
        inner = part.U.conj().T @ part.U
        own = inner.diagonal().real
        more = (own[:, None] - 2 * (g.T * inner).real + np.abs(g) ** 2 * own) / det
        changes = ((n - k + 1) - (n - k + 2) * spanned / det) * quadratic + more
        floor = eps * whole + n * part.shift
        return Estimate(samples.mean(), math.hypot(standard_error(samples, changes * known), floor), k - 1)


ESTIMATORS: dict[str, Any] = {
    "xtrace": XTrace,
    "nystrom": NystromTrace,
    "hutch++": HutchPlusPlus,
    "hutchinson": Hutchinson,
}


def squares(X: np.ndarray) -> np.ndarray:
    """Squared norms of columns."""
    return dots(X, X).real


def dots(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """x* y for pairs of columns."""
    return np.einsum("ij,ij->j", X.conj(), Y)


def on_sphere(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """n x*y / x*x for pairs of columns."""
    return len(X) / squares(X) * dots(X, Y)
