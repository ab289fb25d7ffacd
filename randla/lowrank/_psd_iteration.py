"""Preconditioned conjugate gradients on several right-hand sides at once; those that are finished leave the block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh_tridiagonal

Apply = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[np.ndarray, np.ndarray, np.ndarray], bool]


def dots(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Re <x, y> of columns, in float64."""
    if X.dtype.kind == "c":
        return dots(X.real, Y.real) + dots(X.imag, Y.imag)
    return np.einsum("ij,ij->j", X, Y, dtype=np.float64)


class ConjugateGradients:
    """(A + ridge I) X = B from X = 0, columns of B of norm about one (Hestenes, Stiefel 1952; Concus, Golub, O'Leary 1976).

    `lowest` and `largest` are the extremes of the curvatures p^H A p / p^H p that were met; the run ends, and is `broken`,
    where that of A + ridge I is not positive.
    """

    def __init__(self, times: Apply, precondition: Apply, ridge: float):
        self.times, self.precondition, self.ridge = times, precondition, ridge
        self.iterations = 0
        self.lowest, self.largest = np.inf, 0.0
        self.broken = False
        self.steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # columns, alpha, beta of every iteration

    def solve(self, B: np.ndarray, tol: np.ndarray, maxiter: int, progress: Progress) -> np.ndarray:
        """Until ||residual|| <= tol of every column, by the recursion; progress(columns, residual norms, X) true stops."""
        X, live = np.zeros_like(B), np.arange(B.shape[1])
        R, tol, real = B.copy(), np.asarray(tol), B.real.dtype
        size = np.sqrt(dots(R, R))
        Z = self.precondition(R)
        P, rho = Z.copy(), dots(R, Z)
        going = (rho > 0) & (size > tol)
        while True:
            if not going.all():
                live, tol, rho = live[going], tol[going], rho[going]
                R, P = R[:, going], P[:, going]
            if not len(live) or self.iterations >= maxiter:
                return X
            Q = self.times(P)
            square = dots(P, P)
            with np.errstate(divide="ignore", invalid="ignore"):
                curvature = dots(P, Q)
                quotients = curvature / square
            self.lowest, self.largest = min(self.lowest, float(quotients.min())), max(self.largest, float(quotients.max()))
            curvature += self.ridge * square
            if not (curvature > 0).all():
                if not np.isfinite(curvature).all():
                    raise ValueError("A must be finite; got NaN or infinite values in its products")
                self.broken = True
                return X
            alpha = rho / curvature
            step = alpha.astype(real)
            if len(live) == X.shape[1]:
                X += P * step
            else:
                X[:, live] += P * step
            Q += P * real.type(self.ridge)
            Q *= step
            R -= Q
            self.iterations += 1
            square = dots(R, R)
            Z = self.precondition(R)
            new = square if Z is R else dots(R, Z)
            beta, size = new / rho, np.sqrt(square)
            self.steps.append((live, alpha, beta))
            if progress(live, size, X):
                return X
            P *= beta.astype(real)
            P += Z
            rho, going = new, (size > tol) & (new > 0)

    def renew(self, precondition: Apply) -> None:
        """Use another preconditioner, and forget what is known of the condition number with the last one."""
        self.precondition = precondition
        self.steps.clear()

    def extremes(self) -> tuple[float, float]:
        """The extreme Ritz values of the column that took longest, of the preconditioned matrix: between its eigenvalues."""
        if not self.steps:
            return 1.0, 1.0
        column = self.steps[-1][0][0]
        at = [(c == column).nonzero()[0] for c, _, _ in self.steps]
        alpha = np.array([a[i[0]] for i, (_, a, _) in zip(at, self.steps, strict=True) if len(i)])
        beta = np.array([b[i[0]] for i, (_, _, b) in zip(at, self.steps, strict=True) if len(i)])
        diagonal = 1 / alpha
        diagonal[1:] += beta[:-1] / alpha[:-1]
        size = float(diagonal.max())
        beside = np.sqrt(beta[:-1]) / alpha[:-1] / size
        ends = (0, 0), (len(diagonal) - 1,) * 2
        low, high = (float(eigh_tridiagonal(diagonal / size, beside, True, "i", at)[0]) for at in ends)
        return low * size, high * size

    def condition(self) -> float:
        """Of the preconditioned matrix, from below."""
        low, high = self.extremes()
        return high / low if low > 0 else np.inf
