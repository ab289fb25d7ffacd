"""Diagonals and norms of rows, from entries or estimated from products: `diag`, `row_norms`."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._numeric import norms
from ..result import HasStatus
from ..sampling._row_norms import canonical
from ..sampling._row_norms import row_norms as norms_of_entries
from ._leave_one_out import PositivePart, pairs
from ._operand import BlocksOperand, Operand, operand
from ._probes import DIAGONAL, ROW_NORMS, Estimate, Probes, Products, RangeOfSamples, Sampled, mean_and_error, run, unit_blocks
from .result import LowRankStatus, LowRankWarning
from .trace import checked_budget, square

METHODS = ("auto", "exact", "xdiag", "nystrom", "hutchinson")

_SHIFTS = 16  # pairs of test vectors per vector that the common part of errors is measured with


@dataclasses.dataclass(frozen=True, eq=False)
class DiagResult(HasStatus):
    """Numbers per row of a matrix, with their errors.

    Attributes
    ----------
    value : ndarray (m,)
    error : ndarray (m,)
        Standard error of every value, rounding included; 0 where they come from entries.
    matvecs : int
        Products with vectors, those with the adjoint included.
    method : str
        The method that ran ("auto" is resolved).
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    value: np.ndarray
    error: np.ndarray
    matvecs: int
    method: str
    seed: int
    status: LowRankStatus
    notes: str = dataclasses.field(default="", repr=False)


def diag(A: Any, *, method: str = "auto", matvecs: int | None = None, tol: float | None = None, rng: Any = None) -> DiagResult:
    """Diagonal of a square matrix that may be known by its products alone, with the standard error of every entry.

    Estimates are unbiased for a given number of products.

    Parameters
    ----------
    A : array (n, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Real or complex. For the diagonal of a function of a matrix pass the operator x -> f(B) x.
    method : {"auto", "exact", "xdiag", "nystrom", "hutchinson"}
        "exact": the diagonal entries, from n products with unit vectors where only products are to be had.
        "xdiag": the diagonal of a low-rank part, and a stochastic estimate of the rest, averaged over which test vector is
        left out of the former and used for the latter (XDiag of Epperly, Tropp, Webber 2024). Half of the products are with
        the adjoint. Exact for rank below matvecs / 2.
        "nystrom": the same for a positive semidefinite A with a Nystrom approximation, at half the products (XNysDiag).
        "hutchinson": the mean of x * (A x) over vectors of random signs (Bekas, Kokiopoulou, Saad 2007).
        "auto": "exact" for matrices given by entries, "xdiag" for others.
    matvecs : int
        Products to spend, with `tol` the most of them; default 100, with `tol` as many as it takes. From n on the result is
        that of "exact".
    tol : float
        Add test vectors until the half-widths of the 95 % confidence intervals together have at most tol times the
        Euclidean norm of the diagonal.
    rng : as in SPEC 7

    Returns
    -------
    DiagResult

    Warns
    -----
    LowRankWarning
        Where the tolerance was not reached, or "nystrom" met a matrix that is not positive semidefinite: then the values are
        those of "hutchinson" from the same products.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite diagonal entries or products.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    a = square(operand(A))
    n, seed = a.shape[0], _check.seed(rng)
    budget, tol = checked_budget(matvecs, tol, ESTIMATORS.get(method, XDiag).cost, n)
    if method == "auto":
        method = "exact" if a.explicit else "xdiag"
    products, found, status = Products(a), None, LowRankStatus.COMPUTED
    if method != "exact":
        estimator = ESTIMATORS[method](products, Probes(n, seed, DIAGONAL, signs=True))
        found, status = run(estimator, products, n, budget, tol)
        if found is not None and isinstance(estimator, NystromDiag) and estimator.indefinite:
            status = LowRankStatus.NOT_POSITIVE
    if found is None:
        method, (value, error) = "exact", _exact_diagonal(a, products)
    else:
        value, error = products.unscaled(found.value), products.unscaled(found.error)
    note = "The values are Hutchinson's estimates, which need no sign." if status is LowRankStatus.NOT_POSITIVE else ""
    return _finished(value.astype(a.dtype), error, products, method, seed, status, note)


def row_norms(
    A: Any, *, method: str = "auto", matvecs: int | None = None, tol: float | None = None, rng: Any = None
) -> DiagResult:
    """Euclidean norms of the rows of a matrix that may be known by its products alone, with the standard error of each.

    Their squares, the diagonal of A A*, are what is estimated without bias; negative estimates of squares become norms of 0.

    Parameters
    ----------
    A : array (m, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Real or complex. Norms of columns are those of the rows of A* .
    method : {"auto", "exact", "xrownorm", "hutchinson"}
        "exact": from entries, or from min(m, n) products with unit vectors.
        "xrownorm": norms of the rows of A Q, for an orthonormal basis Q of the range of A*X, and a stochastic estimate of
        the rest, averaged over which test vector is left out of the former and used for the latter (cf. Epperly, Tropp,
        Webber 2024). Half of the products are with the adjoint. Exact for rank below matvecs / 2.
        "hutchinson": means of |A x|^2 over vectors of random signs.
        "auto": "exact" for matrices given by entries, "xrownorm" for others.
    matvecs, tol, rng
        As for `diag`; the tolerance is that of the squares.

    Returns
    -------
    DiagResult

    Warns
    -----
    LowRankWarning
        Where the tolerance was not reached.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries or products.
    """
    if method not in ("auto", "exact", *ROW_ESTIMATORS):
        raise ValueError(f"method must be one of auto, exact, {', '.join(ROW_ESTIMATORS)}; got {method!r}")
    a = operand(A)
    (m, n), seed = a.shape, _check.seed(rng)
    budget, tol = checked_budget(matvecs, tol, ROW_ESTIMATORS.get(method, XRowNorm).cost, min(m, n))
    if method == "auto":
        method = "exact" if a.explicit else "xrownorm"
    products, found, status = Products(a), None, LowRankStatus.COMPUTED
    if method != "exact":
        dimension = m if method == "xrownorm" else n
        estimator = ROW_ESTIMATORS[method](products, Probes(dimension, seed, ROW_NORMS, signs=True))
        found, status = run(estimator, products, min(m, n), budget, tol)
    if found is None:
        method, (value, error) = "exact", _exact_norms(a, products)
    else:
        value = products.unscaled(np.sqrt(np.maximum(found.value, 0.0)))
        # Of a root: the derivative where it is small, the root of the error where the value is not above it.
        error = found.error / np.maximum(2 * np.sqrt(np.maximum(found.value, 0.0)), np.sqrt(found.error) + TINY)
        error = products.unscaled(error)
    return _finished(value.astype(_check.real_dtype(a.dtype)), error, products, method, seed, status, "")


TINY = float(np.finfo(np.float64).tiny)


def _finished(
    value: np.ndarray, error: np.ndarray, products: Products, method: str, seed: int, status: LowRankStatus, note: str
) -> DiagResult:
    result = DiagResult(value, error, products.count, method, seed, status, note)
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=3)
    return result


def _exact_diagonal(A: Operand, products: Products) -> tuple[np.ndarray, np.ndarray]:
    n = A.shape[0]
    if A.explicit:
        entries = A.diagonal()
        _check.finite(entries, A.name)
        return entries, np.zeros(n)
    out = np.zeros(n, np.result_type(A.dtype, np.float64))
    for j, units in unit_blocks(n):
        out[j : j + units.shape[1]] = products.times(units)[j : j + units.shape[1]].diagonal()
    out = products.unscaled(out)
    return out, products.eps * np.abs(out)


def _exact_norms(A: Operand, products: Products) -> tuple[np.ndarray, np.ndarray]:
    m, n = A.shape
    if A.explicit:
        blocks = [block for _, block in A.A] if isinstance(A, BlocksOperand) else [A.A]
        parts = [norms_of_entries(canonical(block) if sp.issparse(block) else block, A.name) for block in blocks]
        return np.concatenate([np.zeros(0), *parts]), np.zeros(m)
    out = np.zeros(m)
    if m <= n:
        for i, units in unit_blocks(m):
            out[i : i + units.shape[1]] = norms(products.adjoint_times(units).T)
    else:
        for _, units in unit_blocks(n):
            out = np.hypot(out, norms(products.times(units)))
    out = products.unscaled(out)
    return out, products.eps * out


def _leave_one_out(
    whole: np.ndarray, U: np.ndarray, V: np.ndarray, X: np.ndarray, gram: np.ndarray, rho: np.ndarray, floor: Any, real: bool
) -> Estimate:
    """Of the numbers whole = diag(M), M a low-rank part that loses u_j v_j* without vector j and then leaves rho_j u_j of it.

    gram (unit diagonal) has the inner products of the directions that are lost; real: the numbers are. Errors as in
    `standard_error`, from pairs of vectors at most _SHIFTS apart.
    """
    k = len(rho)
    E = V - rho * X

    def part(Z: np.ndarray) -> np.ndarray:
        return Z.real if real else Z

    samples = whole[:, None] - part(U * E.conj())
    mean = samples.mean(axis=1)
    variance = (np.abs(samples - mean[:, None]) ** 2).sum(axis=1) / (k * (k - 1))
    g, det, known = pairs(gram)
    j = np.arange(k)
    common, count = np.zeros(len(whole)), 0.0
    for shift in range(1, min(_SHIFTS, k // 2) + 1):
        i = (j + shift) % k
        with_i = part((U[:, i] - g[j, i] * U) * (V[:, i] - g[j, i] * E).conj()) / det[j, i]
        with_j = part((U - g[i, j] * U[:, i]) * (V - g[i, j] * E[:, i]).conj()) / det[j, i]
        weight = 1 if 2 * shift < k else 0.5  # half the circle has every pair twice
        common += weight * np.vecdot(with_i, with_j * known[j, i]).real
        count += weight * k
    variance += np.maximum(common / count, 0.0)
    return Estimate(mean, np.hypot(np.sqrt(variance), floor), k - 1)


class XDiag(RangeOfSamples):
    """Epperly, Tropp, Webber 2024: Q Q* A for a basis Q of the range of A X."""

    second = "adjoint_times"

    def estimate(self) -> Estimate:
        S, rho = self.basis.directions(self.products.eps)
        Q, Z = self.basis.Q, self.Z
        floor = self.products.eps * np.sqrt(np.vecdot(Q, Q).real * np.vecdot(Z, Z).real)
        return _leave_one_out(np.vecdot(Z, Q), Q @ S, Z @ S, self.X, S.conj().T @ S, rho, floor, real=False)


class XRowNorm(RangeOfSamples):
    """diag(A A*) with A Q Q* A*, for a basis Q of the range of A* X."""

    first = "adjoint_times"

    def estimate(self) -> Estimate:
        S, rho = self.basis.directions(self.products.eps)
        U = self.Z @ S
        whole = np.vecdot(self.Z, self.Z).real
        return _leave_one_out(whole, U, U, self.X, S.conj().T @ S, rho, 4 * self.products.eps * whole, real=True)


class NystromDiag(Sampled):
    """Epperly, Tropp, Webber 2024, for positive semidefinite A."""

    indefinite = False

    def estimate(self) -> Estimate:
        X, Y, eps = self.X, self.Y, self.products.eps
        part = PositivePart.of(X, Y, eps)
        if part is None:
            self.indefinite = True
            return _hadamard_mean(X, Y, eps)
        whole = np.vecdot(part.F, part.F).real
        floor = eps * whole + part.shift
        return _leave_one_out(whole - part.shift, part.U, part.U, X, part.gram, 1 / part.size, floor, real=True)


class HutchinsonDiag(Sampled):
    """Bekas, Kokiopoulou, Saad 2007, with random signs."""

    def estimate(self) -> Estimate:
        return _hadamard_mean(self.X, self.Y, self.products.eps)


class HutchinsonRowNorm(HutchinsonDiag):
    def estimate(self) -> Estimate:
        squares = np.abs(self.Y.T) ** 2
        return mean_and_error(squares, self.products.eps * squares.mean(axis=0))


def _hadamard_mean(X: np.ndarray, Y: np.ndarray, eps: float) -> Estimate:
    samples = (X.conj() * Y).T
    return mean_and_error(samples, eps * np.abs(samples).mean(axis=0))


ESTIMATORS: dict[str, Any] = {"xdiag": XDiag, "nystrom": NystromDiag, "hutchinson": HutchinsonDiag}
ROW_ESTIMATORS: dict[str, Any] = {"xrownorm": XRowNorm, "hutchinson": HutchinsonRowNorm}
