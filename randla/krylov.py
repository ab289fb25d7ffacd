"""Inner iterations on a well-conditioned operator M = N'A'A N, several right-hand sides at once.

Arrays are (k, n): one row per right-hand side. `normal(Z)` returns M applied to every row. `progress(S, Y)` is told the
residuals C - M Y after each iteration and answers which rows are finished; one iteration is one pass over A.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Normal = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


def conjugate_gradients(normal: Normal, C: np.ndarray, progress: Progress, maxiter: int) -> tuple[np.ndarray, int]:
    """Solve M Y = C from Y = 0 (Hestenes, Stiefel 1952). Rows that are finished or cannot improve are frozen."""
    Y, S, P = np.zeros_like(C), C.copy(), C.copy()
    rho = _dots(S, S)
    active = rho > 0
    iterations = 0
    while active.any() and iterations < maxiter:
        MP = normal(P)
        curvature = _dots(P, MP)
        active &= curvature > 0  # also false for NaN
        alpha = np.where(active, rho / np.where(curvature > 0, curvature, 1), 0)[:, None]
        Y += alpha * P
        S -= alpha * MP
        iterations += 1
        active &= ~progress(S, Y)
        new = _dots(S, S)
        beta = np.where(active, new / np.where(rho > 0, rho, 1), 0)[:, None]
        P = np.where(active[:, None], S + beta * P, 0)
        rho = new
        active &= rho > 0
    return Y, iterations


def heavy_ball(normal: Normal, C: np.ndarray, progress: Progress, maxiter: int, distortion: float) -> tuple[np.ndarray, int]:
    """Solve M Y = C by iteration with fixed damping and momentum from the sketch's distortion sqrt(n / d).

    Optimal when the spectrum of M fills [(1 + distortion)^-2, (1 - distortion)^-2] (Epperly, Meier, Nakatsukasa 2024).
    A row whose residual grows, as happens when the sketch was worse than assumed, is frozen at its best iterate.
    """
    momentum = distortion**2
    damping = (1 - momentum) ** 2
    previous, Y = C * 0, C.copy()
    S = C - normal(Y)
    best, best_Y = _dots(S, S), Y.copy()
    active = (best > 0) & ~progress(S, Y)
    iterations = 1
    while active.any() and iterations < maxiter:
        step = np.where(active[:, None], damping * S + momentum * (Y - previous), 0)
        previous, Y = Y, Y + step
        S = C - normal(Y)
        iterations += 1
        size = _dots(S, S)
        better = size < best
        best, best_Y = np.where(better, size, best), np.where(better[:, None], Y, best_Y)
        active &= (size <= 100 * best) & ~progress(S, Y)
    return best_Y, iterations


def lsqr(
    residual: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
    R0: np.ndarray,
    G0: np.ndarray,
    progress: Callable[[np.ndarray, np.ndarray], np.ndarray],
    maxiter: int,
) -> tuple[np.ndarray, int]:
    """LSQR (Paige, Saunders 1982) for min ||A N y - r||, one pass over A per iteration.

    `residual(B, Y)` returns (B - A N Y, N'A'(B - A N Y), squared norms of the rows); R0 = r is
    overwritten, G0 = N'A'r.
    `progress(estimate of ||N'A'(r - A N y)||, y)` answers which rows are finished.
    The step u <- A v - alpha u followed by A'u is one fused pass with right-hand side alpha u.
    """
    beta = np.sqrt(_dots(R0, R0))
    safe = np.where(beta > 0, beta, 1)
    R0 /= safe[:, None]
    U, V = R0, G0 / safe[:, None]
    alpha = np.sqrt(_dots(V, V))
    V /= np.where(alpha > 0, alpha, 1)[:, None]
    W, Y = V.copy(), np.zeros_like(V)
    phi_bar, rho_bar = beta.copy(), alpha.copy()
    active = (alpha > 0) & (beta > 0)
    iterations = 0
    while active.any() and iterations < maxiter:
        U *= alpha[:, None]
        negative_u, negative_g, square = residual(U, V)
        beta = np.sqrt(square)
        scale = np.where(beta > 0, beta, 1)
        np.divide(negative_u, -scale[:, None], out=U)
        V_new = -negative_g / scale[:, None] - beta[:, None] * V
        alpha = np.sqrt(_dots(V_new, V_new))
        V = V_new / np.where(alpha > 0, alpha, 1)[:, None]
        rho = np.hypot(rho_bar, beta)
        rho = np.where(rho > 0, rho, 1)
        c, s = rho_bar / rho, beta / rho
        theta, rho_bar = s * alpha, -c * alpha
        phi, phi_bar = c * phi_bar, s * phi_bar
        Y += np.where(active, phi / rho, 0)[:, None] * W
        W = V - (theta / rho)[:, None] * W
        iterations += 1
        active &= ~progress(np.abs(phi_bar * alpha * c), Y)
        active &= (alpha > 0) & (beta > 0)
    return Y, iterations
