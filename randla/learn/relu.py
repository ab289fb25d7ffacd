"""Regression with a rectified linear unit: `relu_regression`, and a layer of them: `recover_network`."""

from __future__ import annotations

import dataclasses
import enum
import time
import warnings
from typing import Any

import numpy as np
import scipy.linalg

from .. import _check
from .._numeric import powers_of_two
from .._random import random_words
from ..families import Gaussian
from ..lowrank._products import product
from ..result import HasStatus
from ._kinks import settle
from .result import LearnWarning

_STREAM = 28  # see docs/definitions.md
_INNER = 100  # passes of conjugate gradients before what is left goes to LAPACK
_STEPS = 20  # of all outputs together; what is then left is settled one by one
_SHORT = 0.01  # a step shorter than this has met a kink
_EPS = float(np.finfo(float).eps)


class ReluStatus(enum.Enum):
    """How a regression ended. The value is the sentence shown to users."""

    REALIZABLE = "The units explain the data up to the tolerance, and the samples determine them."
    STATIONARY = "No units that explain the data were found: those returned are a local minimum, perhaps not the global one."
    UNDETERMINED = "The units explain the data, but others would do as well: too few samples with a positive output."
    ITERATION_LIMIT = "The iteration limit was reached; the best units are returned."
    OVERFLOW = "Units have entries beyond the range of their dtype, which are infinite: scale X or y."

    @property
    def success(self) -> bool:
        return self in (ReluStatus.REALIZABLE, ReluStatus.STATIONARY)


@dataclasses.dataclass(frozen=True)
class ReluResult(HasStatus):
    """Units with their evidence; of several outputs, arrays with one entry for each.

    Attributes
    ----------
    w : ndarray (n,) or (n, k)
        The units, in the dtype of the data.
    loss : float or ndarray (k,)
        (1 / 2m) sum_i (max(x_i.w, 0) - y_i)^2.
    relative_residual : float or ndarray (k,)
        ||max(X w, 0) - y|| / ||y||.
    gradient_norm : float or ndarray (k,)
        ||Q'r|| / ||y||, r the residuals where X w is positive, Q an orthonormal basis of the columns of X; where the loss has
        kinks, that of its smallest subgradient.
    determined : bool or ndarray (k,)
        Whether the samples with positive X w have full rank, found with a random vector.
    rank : int
        Numerical rank of X. Below n the shortest units are returned.
    iterations, passes : int
        Newton steps, at most of one output; products with X or X', of all outputs at once.
    seed : int
        Replays the run: pass it as `rng`.
    status : ReluStatus
        The worst one of the outputs.
    message : str
    success : bool
    history : list of dict
        One entry per step of all outputs: iteration, time (seconds), relative_residual (the largest), active (outputs not yet
        done).
    """

    w: np.ndarray
    loss: Any
    relative_residual: Any
    gradient_norm: Any
    determined: Any
    rank: int
    iterations: int
    passes: int
    seed: int
    status: ReluStatus
    history: list[dict[str, Any]] = dataclasses.field(repr=False)
    notes: str = dataclasses.field(default="", repr=False)

    @property
    def W(self) -> np.ndarray:
        """The units as rows, (k, n): the weight matrix of the layer max(W x, 0)."""
        return np.atleast_2d(self.w.T)


def relu_regression(X: Any, y: Any, *, tol: float | None = None, maxiter: int = 100, rng: Any = None) -> ReluResult:
    """Fit y = max(X w, 0): minimizes (1 / 2m) ||max(X w, 0) - y||^2, in particular where some w makes it zero.

    Gradient descent finds that w from O(n) Gaussian samples (Soltanolkotabi 2017). Here each step is one of Newton: the least
    squares problem of the samples whose unit is on, by conjugate gradients in an orthonormal basis of the columns of X, one
    product with X and one with X' for all outputs at once. The first step takes the samples with y > 0, on which
    realizable data are linear, and so is the last one where these determine w. For other data the problem is not convex and in
    general intractable: the answer is a local minimum, found by an active set where it lies on kinks of the loss.

    Parameters
    ----------
    X : array (m, n)
        Real: float32 or float64; integers are converted to float64.
    y : array (m,) or (m, k)
        k outputs are fitted separately.
    tol : float
        Relative residual that counts as zero; default 1e-10, for float32 1e-5.
    maxiter : int
        Newton steps.
    rng : as in SPEC 7
        Decides the vector that `determined` is found with.

    Returns
    -------
    ReluResult

    Warns
    -----
    LearnWarning
        Data that leave the units undetermined, or that no units explain where no stationary point was reached; units beyond the
        range of their dtype.

    Raises
    ------
    TypeError, ValueError
    """
    x, outputs = _check.real_array(X, "X"), _check.real_array(y, "y")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"X must have 2 dimensions and at least one row and one column; got shape {x.shape}")
    if outputs.ndim not in (1, 2) or outputs.shape[0] != x.shape[0] or 0 in outputs.shape:
        raise ValueError(f"y must have shape ({x.shape[0]},) or ({x.shape[0]}, k), a row for each of X; got {outputs.shape}")
    _check.finite(x, "X")
    _check.finite(outputs, "y")
    dtype = np.result_type(x, outputs)
    tol = (1e-10 if dtype == np.float64 else 1e-5) if tol is None else _check.real(tol, "tol")
    maxiter = _check.integer(maxiter, "maxiter", 1)
    seed = _check.seed(rng)
    targets = outputs.astype(np.float64).reshape(len(outputs), -1)
    units = powers_of_two(np.abs(targets).max(axis=0))  # so that nothing overflows
    basis = _Basis(x)
    fit = _Fit(basis.Q, targets * units, tol, seed)
    fit.run(maxiter)
    return _result(fit, basis, units, outputs.ndim == 1, dtype, seed)


def recover_network(X: Any, Y: Any, *, tol: float | None = None, maxiter: int = 100, rng: Any = None) -> ReluResult:
    """Recover W from samples of the layer Y = max(X W', 0): one realizable regression for each unit, all at once.

    The result's `W` goes into `gspectral_init` as it is.

    Parameters
    ----------
    X : array (m, n)
    Y : array (m, k)
        Outputs of the k units.
    tol, maxiter, rng : as for `relu_regression`

    Returns
    -------
    ReluResult
        With W of shape (k, n).

    Raises
    ------
    TypeError, ValueError
    """
    if np.ndim(Y) != 2:
        raise ValueError(f"Y must have 2 dimensions, a column for each unit; got {np.ndim(Y)}")
    return relu_regression(X, Y, tol=tol, maxiter=maxiter, rng=rng)


class _Basis:
    """Orthonormal basis Q of the columns of X, and the way back."""

    def __init__(self, x: np.ndarray):
        self.units = powers_of_two(np.abs(x).max(axis=0))
        scaled = x.astype(np.float64) * self.units
        Q, R = scipy.linalg.qr(scaled, mode="economic", check_finite=False)
        U, s, Vh = scipy.linalg.svd(R, full_matrices=False, check_finite=False)
        self.rank = int(np.count_nonzero(s > max(x.shape) * _EPS * s[0]))
        full = self.rank == x.shape[1]
        self.Q = np.ascontiguousarray(Q) if full else product(Q, U[:, : self.rank])
        self._triangle = R if full else None
        self._pseudo = (Vh[: self.rank].T, s[: self.rank])

    def coefficients(self, Z: np.ndarray) -> np.ndarray:
        """W with X W = Q Z, the shortest in the scaled columns."""
        if self._triangle is not None:
            found = scipy.linalg.solve_triangular(self._triangle, Z, check_finite=False)
        else:
            found = self._pseudo[0] @ (Z / self._pseudo[1][:, None])
        return found * self.units[:, None]


class _Fit:
    """min over z of ||max(Q z, 0) - y||^2 for each column y, with z and what belongs to it in `Z`, `values` = Q Z."""

    def __init__(self, Q: np.ndarray, Y: np.ndarray, tol: float, seed: int):
        self.Q, self.Y, self.tol, self.seed = Q, Y, tol, seed
        self.passes, self.iterations = 0, 0
        count = Y.shape[1]
        self.size = np.linalg.norm(Y, axis=0)
        self.size[self.size == 0] = 1.0
        self.Z, self.values = np.zeros((Q.shape[1], count)), np.zeros(Y.shape)
        self.determined = np.zeros(count, bool)
        self.status = np.full(count, ReluStatus.ITERATION_LIMIT, object)
        self.gradient = np.zeros(count)
        self.history: list[dict[str, Any]] = []

    def run(self, maxiter: int) -> None:
        began = time.perf_counter()
        on, active, poor = self.Y > 0, np.arange(self.Y.shape[1]), np.zeros(0, int)
        for self.iterations in range(1, maxiter + 1):
            mask = on[:, active]
            Z = self._solve(mask, self.Y[:, active], self.Z[:, active])
            length = self._step(active, Z, first=self.iterations == 1)
            residual, gradient = self._residual(active)
            self.gradient[active] = gradient
            on[:, active] = self.values[:, active] > 0
            same = (on[:, active] == mask).all(axis=0)
            explained = residual <= self.tol
            # Newton's step on the same samples is the minimum of the piece.
            stationary = ~explained & same & (length == 1)
            self.status[active[explained]] = ReluStatus.REALIZABLE
            self.status[active[stationary]] = ReluStatus.STATIONARY
            poor = np.append(poor, active[~explained & ~stationary & (length < _SHORT)])
            active = active[~explained & ~stationary & (length >= _SHORT)]
            entry = {"iteration": self.iterations, "time": time.perf_counter() - began}
            self.history.append({**entry, "relative_residual": float(residual.max()), "active": len(active)})
            if not len(active) or self.iterations == _STEPS:
                break
        for j in np.append(poor, active):
            self._settle(int(j), on, maxiter - len(self.history))
        self._find_determined(on)

    def _settle(self, j: int, on: np.ndarray, limit: int) -> None:
        """One output alone, by steps that also hold samples at the kinks of the loss."""
        if limit < 1:
            return
        z, gradient, steps, found = settle(self.Q, self.Y[:, j], self.Z[:, j], limit)
        self.Z[:, j], self.values[:, j] = z, product(self.Q, z[:, None])[:, 0]
        on[:, j] = self.values[:, j] > 0
        residual = np.linalg.norm(np.maximum(self.values[:, j], 0) - self.Y[:, j])
        if np.isfinite(gradient):
            self.gradient[j] = gradient / self.size[j]
        if residual <= self.tol * self.size[j]:
            self.status[j] = ReluStatus.REALIZABLE
        elif found:
            self.status[j] = ReluStatus.STATIONARY
        self.passes += 2 * steps
        self.iterations = max(self.iterations, len(self.history) + steps)

    def _step(self, active: np.ndarray, Z: np.ndarray, first: bool) -> np.ndarray:
        """As far towards Z as the loss falls: which part of the way, zero where it does not."""
        old, new = self.values[:, active], product(self.Q, Z)
        self.passes += 1
        y = self.Y[:, active]
        before = np.linalg.norm(np.maximum(old, 0) - y, axis=0)
        length = np.ones(len(active))
        after = np.linalg.norm(np.maximum(new, 0) - y, axis=0)
        poor = after > before
        if not first:
            while poor.any() and length[poor].max() >= _SHORT:
                length[poor] /= 2
                some = np.flatnonzero(poor)
                between = old[:, some] + length[some] * (new[:, some] - old[:, some])
                poor[some] = np.linalg.norm(np.maximum(between, 0) - y[:, some], axis=0) > before[some]
            length[poor] = 0.0
        self.Z[:, active] += length * (Z - self.Z[:, active])
        self.values[:, active] = np.where(length == 1, new, old + length * (new - old))
        return length

    def _residual(self, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Relative norms of the residuals, and of the gradients in the basis."""
        values = self.values[:, active]
        r = np.maximum(values, 0) - self.Y[:, active]
        gradient = product(self.Q.T, np.where(values > 0, r, 0.0))
        self.passes += 1
        return np.linalg.norm(r, axis=0) / self.size[active], np.linalg.norm(gradient, axis=0) / self.size[active]

    def _solve(self, mask: np.ndarray, targets: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Columns z of min ||(Q z - targets) in the mask|| by conjugate gradients on the normal equations, else LAPACK."""
        Z, done = self._conjugate_gradients(mask, targets, start, 4 * _EPS, _INNER)
        for j in np.flatnonzero(~done):
            rows = mask[:, j]
            shift = scipy.linalg.lstsq(self.Q[rows], targets[rows, j] - self.Q[rows] @ start[:, j], check_finite=False)[0]
            Z[:, j] = start[:, j] + shift
        return Z

    def _conjugate_gradients(
        self, mask: np.ndarray, targets: np.ndarray, start: np.ndarray, tol: float, limit: int
    ) -> tuple[np.ndarray, np.ndarray]:
        Q, Z = self.Q, start.copy()
        r = np.where(mask, targets - product(Q, Z), 0.0)
        scale = np.linalg.norm(np.where(mask, targets, 0.0), axis=0)
        s = product(Q.T, r)
        self.passes += 2
        P, gamma = s.copy(), _squares(s)
        done = np.sqrt(gamma) <= tol * scale
        for _ in range(limit):
            if done.all():
                break
            T = np.where(mask, product(Q, P), 0.0)
            delta = _squares(T)
            alpha = np.divide(gamma, delta, out=np.zeros_like(gamma), where=~done & (delta > 0))
            Z += alpha * P
            r -= alpha * T
            s = product(Q.T, r)
            self.passes += 2
            new = _squares(s)
            # The residual of a fit that is not exact leaves rounding of its own size in the gradient.
            done |= np.sqrt(new) <= tol * (scale + np.linalg.norm(r, axis=0) * len(Z) ** 0.5)
            P = s + np.divide(new, gamma, out=np.zeros_like(new), where=gamma > 0) * P
            gamma = new
        return Z, done

    def _find_determined(self, on: np.ndarray) -> None:
        """A random vector is found again from its values on the samples, if these have full rank."""
        rank = len(self.Z)
        enough = np.flatnonzero(on.sum(axis=0) >= rank)
        if len(enough):
            word = random_words(np.zeros(1, np.uint64), 0, _STREAM, self.seed)[0, 0]
            g = Gaussian().sample(1, rank, rng=int(word)).to_dense().T
            g = np.repeat(g / np.linalg.norm(g), len(enough), axis=1)
            mask, values = on[:, enough], np.repeat(product(self.Q, g[:, :1]), len(enough), axis=1)
            found, done = self._conjugate_gradients(mask, values, np.zeros_like(g), 1e-4, _INNER)
            for j in np.flatnonzero(~done):
                found[:, j] = scipy.linalg.lstsq(self.Q[mask[:, j]], values[mask[:, j], j], check_finite=False)[0]
            self.determined[enough] = np.linalg.norm(found - g, axis=0) <= 0.01
        for j in np.flatnonzero((self.status == ReluStatus.REALIZABLE) & ~self.determined):
            self.status[j] = ReluStatus.UNDETERMINED


def _squares(columns: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", columns, columns)


def _result(fit: _Fit, basis: _Basis, units: np.ndarray, single: bool, dtype: np.dtype, seed: int) -> ReluResult:
    with np.errstate(over="ignore", under="ignore"):
        w = (basis.coefficients(fit.Z) / units).astype(dtype)
    fit.status[~np.isfinite(w).all(axis=0)] = ReluStatus.OVERFLOW
    r = np.linalg.norm(np.maximum(fit.values, 0) - fit.Y, axis=0)
    with np.errstate(over="ignore", under="ignore"):
        loss = 0.5 * (r / units) ** 2 / len(fit.Y)
    worst = max(fit.status, key=list(ReluStatus).index)
    counts = np.count_nonzero(fit.status == worst)
    notes = "" if fit.status.size == 1 or counts == fit.status.size else f"({counts} of {fit.status.size} outputs.)"
    if not worst.success:
        message = f"{worst.value} {notes}".rstrip()
        warnings.warn(f"{message} Gradient norm {fit.gradient.max():.1e}.", LearnWarning, stacklevel=3)
    numbers = (loss, r / fit.size, fit.gradient, fit.determined)
    if single:
        w = w[:, 0]
        numbers = tuple(values[0].item() for values in numbers)
    return ReluResult(w, *numbers, basis.rank, fit.iterations, fit.passes, seed, worst, fit.history, notes)
