"""Steps for large dimensions without a Krylov basis: conjugate gradients for many shifts at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular
from scipy.linalg.blas import dnrm2

from ._krylov import SecularModel, Step, as_step, eigh, no_step
from ._secular import Root, Secular

_DEPENDENT = 1e-4  # directions closer than this to the span of the others are dropped: HX would lose these digits


class Subspace:
    """The minimizer over the range of X, exact for the products HX = H X that are known."""

    def __init__(self, X: np.ndarray, HX: np.ndarray, g: np.ndarray):
        sizes = np.sqrt(np.einsum("ij,ij->j", X, X))
        sizes[~(sizes > 0)] = 1.0
        Q, R, order = qr(X / sizes, mode="economic", pivoting=True, check_finite=False)
        diagonal = np.abs(np.diag(R))
        rank = int(np.count_nonzero(diagonal > _DEPENDENT * diagonal[0])) if diagonal[0] > 0 else 0
        self.Q = Q[:, :rank]
        columns = (HX / sizes)[:, order[:rank]]
        self.HQ = solve_triangular(R[:rank, :rank], columns.T, trans="T", check_finite=False).T
        self.g = g
        self.rank = rank
        if rank:
            A = self.Q.T @ self.HQ
            self.w, self.Y = eigh(0.5 * (A + A.T))
            self._secular = Secular(self.w, self.Y.T @ (self.Q.T @ g))

    def lowest(self) -> tuple[float, np.ndarray]:
        return float(self.w[0]), self.Q @ self.Y[:, 0]

    def solve(self, parameter: float, cubic: bool) -> tuple[Root, np.ndarray, np.ndarray, float]:
        """Root, step s, H s and ||(H + lambda I) s + g|| / max(||g||, lambda ||s||)."""
        root = self._secular.cubic(parameter) if cubic else self._secular.trust_region(parameter)
        h = self.Y @ root.u
        s, Hs = self.Q @ h, self.HQ @ h
        gradient = Hs + root.multiplier * s + self.g
        largest = max(float(dnrm2(self.g)), root.multiplier * root.norm)
        return root, s, Hs, float(dnrm2(gradient)) / largest if largest > 0 else 0.0


class ShiftedModel(SecularModel):
    """Conjugate gradients for (H + shift I) x = -g and all shifts at once, then the minimizer over the nearest solutions.

    One Lanczos process without a stored basis serves all shifts (Frommer, Maass 1999; Dussault, Migot, Orban 2023): memory is
    2 d vectors per shift instead of one per iteration. The step is the minimizer over the span of g and of the solutions whose
    shifts lie around the multiplier sought; products of H with these are known, so that `decrease` and `residual` are those
    of the step. Its accuracy depends on how densely the shifts lie: with the default ones residuals are typically between 1e-3
    and 1e-6 for positive definite H + lambda I that is well conditioned, and `converged` says only that the solutions used have
    reached tol. A larger sigma or a smaller radius uses
    larger shifts, which have converged before, and takes no products. Near the hard case, where the multiplier lies below the
    shifts for which H + shift I is positive definite, the step can lose much of the decrease; the hard case is not found.

    Parameters
    ----------
    H : anything with `H @ v`
    g : ndarray (d,)
    shifts : ndarray (m,), ascending, not negative
        Default: 0 and 25 shifts from 1e-8 to 1e4 times ||H g|| / ||g||.
    tol : float
        Until the residuals of the solutions used are at most tol ||g||.
    maxiter : int
        Default 2 d.
    """

    def __init__(
        self, H: Any, g: np.ndarray, *, shifts: np.ndarray | None = None, tol: float = 1e-8, maxiter: int | None = None
    ):
        super().__init__()
        self.tol = tol
        self._H, self._g = H, g
        self._maxiter = 2 * len(g) if maxiter is None else maxiter
        self._g_size = float(dnrm2(g))
        self._shifts = None if shifts is None else np.asarray(shifts, dtype=np.float64)
        self._v = g / self._g_size if self._g_size > 0 else g.copy()
        self._previous = np.zeros_like(g)
        self._beta = 0.0
        self._diagonal: list[float] = []
        self._off: list[float] = []
        self._subspace: tuple[int, tuple[int, ...], Subspace] | None = None

    def lowest(self) -> tuple[float, np.ndarray]:
        """Of the span that the last step was taken from."""
        if self._subspace is None:
            return math.nan, np.zeros_like(self._g)
        return self._subspace[2].lowest()

    def refined(self, parameter: float, cubic: bool) -> ShiftedModel:
        """A model whose shifts lie at the multiplier of the minimizer over the Krylov space, known without its basis.

        Running it takes the same products once more; the step is then as accurate as tol says.
        """
        while True:
            w, Y = eigh(np.diag(self._diagonal) + np.diag(self._off[:-1], -1))
            secular = Secular(w, Y[0] * self._g_size)
            root = secular.cubic(parameter) if cubic else secular.trust_region(parameter)
            rest = self._off[-1] * abs(float(Y[-1] @ root.u))
            if rest <= self.tol * max(self._g_size, root.multiplier * root.norm) or not self._grow():
                break
        multiplier = root.multiplier
        shifts = multiplier * np.array([1.0, 1.1, 1.5, 3.0]) if multiplier > 0 else np.zeros(1)
        return ShiftedModel(self._H, self._g, shifts=shifts, tol=self.tol, maxiter=self._maxiter)

    def _begin(self, shifts: np.ndarray) -> None:
        m, d = len(shifts), len(self._g)
        self._shifts = shifts
        # Everything is solved for the right-hand side -v_1 = -g / ||g||.
        self._X, self._P = np.zeros((m, d)), np.broadcast_to(-self._v, (m, d)).copy()
        self._sigma, self._omega, self._gamma = np.full(m, -1.0), np.zeros(m), np.ones(m)
        self._definite = np.ones(m, dtype=bool)

    def _expand(self) -> bool:
        k = len(self._diagonal)
        if self._failed or k >= self._maxiter or (k and self._beta == 0):
            return False
        v = self._v
        Hv = np.asarray(self._H @ v, dtype=np.float64)
        self._products += 1
        size = float(dnrm2(Hv))
        if not math.isfinite(size):
            self._failed = True
            return False
        if k == 0:
            grid = np.r_[0.0, np.logspace(-8, 4, 25)] * (size if size > 0 else 1.0)
            self._Hg = Hv  # of g / ||g||
            self._begin(grid if self._shifts is None else self._shifts)
        delta = float(v @ Hv)
        following = Hv - delta * v - self._beta * self._previous
        beta = float(dnrm2(following))
        if beta <= 4 * np.finfo(np.float64).eps * size:
            beta = 0.0
        else:
            following /= beta
        self._advance(delta, beta, following)
        self._diagonal.append(delta)
        self._off.append(beta)
        self._previous, self._v, self._beta = v, following, beta
        return True

    def _advance(self, delta: float, beta: float, following: np.ndarray) -> None:
        """One iteration of every shift for which H has been positive definite so far."""
        assert self._shifts is not None
        live = self._definite
        pivot = np.where(live, delta + self._shifts - self._omega / self._gamma, 1.0)
        live &= pivot > 0
        gamma = np.where(live, 1 / np.where(live, pivot, 1.0), 1.0)
        rows = slice(int(np.argmax(live)), None) if live.any() else slice(0, 0)
        self._X[rows] += gamma[rows, None] * self._P[rows]
        omega = beta * gamma
        self._sigma = np.where(live, -omega * self._sigma, self._sigma)
        self._omega, self._gamma = omega * omega, gamma
        P = self._P[rows]
        P *= self._omega[rows, None]
        P += self._sigma[rows, None] * following

    def _around(self, parameter: float, cubic: bool) -> tuple[int, ...]:
        """The shifts around the multiplier sought, of those for which H is positive definite as far as known."""
        assert self._shifts is not None
        live = np.flatnonzero(self._definite)
        if len(live) == 0:
            return ()
        norms = self._g_size * np.sqrt(np.einsum("ij,ij->i", self._X[live], self._X[live]))
        enough = self._shifts[live] >= parameter * norms if cubic else norms <= parameter
        first = int(np.argmax(enough)) if enough.any() else len(live) - 1
        low = max(0, min(first - 2, len(live) - 4))
        return tuple(int(i) for i in live[low : low + 4])

    def _step(self, parameter: float, cubic: bool, grow: bool) -> Step:
        if self._g_size == 0:
            return no_step(len(self._g), 0.0)
        if grow and not self._diagonal:
            self._expand()
        if not self._diagonal:
            return no_step(len(self._g), self._g_size)
        while True:
            chosen = self._around(parameter, cubic)
            converged = bool(chosen) and float(np.abs(self._sigma[list(chosen)]).max()) <= self.tol
            if converged or not grow or not self._grow():
                break
        subspace = self._span(chosen)
        root, s, _, residual = subspace.solve(parameter, cubic)
        return as_step(root, s, residual, float(subspace.w[0]), converged)

    def _grow(self) -> bool:
        k = len(self._diagonal)
        grown = False
        while len(self._diagonal) < k + max(1, k // 4) and self._expand():
            grown = True
        return grown

    def _span(self, chosen: tuple[int, ...]) -> Subspace:
        """Of g and the solutions of the shifts chosen."""
        assert self._shifts is not None
        k = len(self._diagonal)
        if self._subspace is None or self._subspace[:2] != (k, chosen):
            index = list(chosen)
            X = self._X[index].T
            first = self._g / self._g_size
            # (H + shift) x = -g / ||g|| - sigma v with the next Lanczos vector v: known, converged or not.
            HX = -self._shifts[index] * X - first[:, None] - np.outer(self._v, self._sigma[index])
            self._subspace = k, chosen, Subspace(np.c_[first, X], np.c_[self._Hg, HX], self._g)
        return self._subspace[2]
