"""Inner iterations on a well-conditioned operator M = N'A'A N, several right-hand sides at once.

Arrays are (k, n): one row per right-hand side. A right-hand side that is finished leaves the arrays that M is applied to, so
that it costs nothing more. `normal(Z)` returns M applied to every row; `progress(live, S, Y)` is told after each iteration
the residuals C - M Y of the right-hand sides numbered `live` and answers which of them are finished. One iteration is one
pass over A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._backend import Array, on_device

MOST_DISTORTED = 0.9  # a fixed iteration for more takes hundreds of passes

Normal = Callable[[np.ndarray], np.ndarray]
Progress = Callable[..., np.ndarray]


def dots(a: Array, b: Array) -> Array:
    # CuPy's einsum thinks longer than this takes.
    return (a * b).sum(axis=1) if on_device(a) else np.einsum("ij,ij->i", a, b)


def keep(mask: np.ndarray, *arrays: Any) -> tuple[Any, ...]:
    """The rows of every array where the mask is true; the arrays themselves where it is true everywhere."""
    return arrays if mask.all() else tuple(a[mask] for a in arrays)


def conjugate_gradients(normal: Normal, C: np.ndarray, progress: Progress, maxiter: int) -> np.ndarray:
    """Solve M Y = C from Y = 0 (Hestenes, Stiefel 1952). A row that cannot improve is finished too."""
    solution = np.zeros_like(C)
    rho = dots(C, C)
    live, S, rho = keep(rho > 0, np.arange(len(C)), C.copy(), rho)
    Y, P = np.zeros_like(S), S.copy()
    iterations = 0
    while len(live) and iterations < maxiter:
        MP = normal(P)
        curvature = dots(P, MP)
        able = curvature > 0  # also false for NaN
        solution[live[~able]] = Y[~able]
        live, S, Y, P, MP, rho, curvature = keep(able, live, S, Y, P, MP, rho, curvature)
        alpha = (rho / curvature)[:, None]
        Y = Y + alpha * P
        S = S - alpha * MP
        iterations += 1
        finished = progress(live, S, Y) if len(live) else np.zeros(0, dtype=bool)
        new = dots(S, S)
        finished |= ~(new > 0)
        solution[live] = Y
        beta = (new / rho)[:, None]
        P = S + beta * P
        live, S, Y, P, rho = keep(~finished, live, S, Y, P, new)
    return solution


def heavy_ball(normal: Normal, C: np.ndarray, progress: Progress, maxiter: int, distortion: float) -> tuple[np.ndarray, bool]:
    """Solve M Y = C by iteration with fixed damping and momentum from the sketch's distortion sqrt(n / d).

    Optimal when the spectrum of M fills [(1 + distortion)^-2, (1 - distortion)^-2] (Epperly, Meier, Nakatsukasa 2024).
    A row whose residual grows, as happens when the sketch was worse than assumed, ends at its best iterate, which may be
    zero. Also returns whether one did.
    """
    damping, momentum = damping_and_momentum(distortion)
    solution, live = np.zeros_like(C), np.arange(len(C))
    previous, Y, best = np.zeros_like(C), damping * C, dots(C, C)
    iterations, diverged = 0, False
    while len(live) and iterations < maxiter:
        S = C - normal(Y)
        iterations += 1
        size = dots(S, S)
        better = size < best
        best = np.where(better, size, best)
        solution[live[better]] = Y[better]
        growing = ~(size <= 100 * best)
        diverged |= bool(growing.any())
        finished = progress(live, S, Y) | growing | (best == 0)
        previous, Y = Y, Y + damping * S + momentum * (Y - previous)
        live, C, previous, Y, best = keep(~finished, live, C, previous, Y, best)
    return solution, diverged


def attainable(cond: float) -> float:
    """Relative residual below which inner progress is imaginary: M is applied with a relative error of about cond * eps."""
    return min(max(4 * cond * float(np.finfo(np.float64).eps), 1e-13), 0.05)


def damping_and_momentum(distortion: float) -> tuple[float, float]:
    return (1 - distortion**2) ** 2, distortion**2


def widened(distortion: float) -> float:
    """The distortion to assume after a fixed iteration grew; the same where no larger one is of use."""
    return distortion if distortion > MOST_DISTORTED else (1 + distortion) / 2


def lsqr(
    residual: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
    R0: np.ndarray,
    G0: np.ndarray,
    sizes: np.ndarray,
    progress: Progress,
    maxiter: int,
) -> np.ndarray:
    """LSQR (Paige, Saunders 1982) for min ||A N y - r||, one pass over A per iteration.

    `residual(B, Y)` returns (B - A N Y, N'A'(B - A N Y), squared norms of the rows); R0 = r, of norms `sizes`, is
    overwritten, G0 = N'A'r.
    `progress(live, estimate of ||N'A'(r - A N y)||, y)` answers which rows are finished.
    The step u <- A v - alpha u followed by A'u is one fused pass with right-hand side alpha u.
    """
    solution = np.zeros_like(G0)
    live, U, V, beta = keep(sizes > 0, np.arange(len(G0)), R0, G0, sizes)
    U /= beta[:, None]
    V = V / beta[:, None]
    alpha = np.sqrt(dots(V, V))
    live, U, V, alpha, beta = keep(alpha > 0, live, U, V, alpha, beta)
    V = V / alpha[:, None]
    W, Y = V.copy(), np.zeros_like(V)
    phi_bar, rho_bar = beta, alpha
    iterations = 0
    while len(live) and iterations < maxiter:
        U *= alpha[:, None]
        negative_u, negative_g, square = residual(U, V)
        beta = np.sqrt(square)
        scale = np.where(beta > 0, beta, 1)
        np.divide(negative_u, -scale[:, None], out=U)
        V = -negative_g / scale[:, None] - beta[:, None] * V
        alpha = np.sqrt(dots(V, V))
        V /= np.where(alpha > 0, alpha, 1)[:, None]
        rho = np.hypot(rho_bar, beta)
        rho = np.where(rho > 0, rho, 1)
        c, s = rho_bar / rho, beta / rho
        theta, rho_bar = s * alpha, -c * alpha
        phi, phi_bar = c * phi_bar, s * phi_bar
        Y = Y + (phi / rho)[:, None] * W
        W = V - (theta / rho)[:, None] * W
        iterations += 1
        solution[live] = Y
        going = ~progress(live, np.abs(phi_bar * alpha * c), Y) & (alpha > 0) & (beta > 0)
        live, U, V, W, Y, alpha, rho_bar, phi_bar = keep(going, live, U, V, W, Y, alpha, rho_bar, phi_bar)
    return solution
