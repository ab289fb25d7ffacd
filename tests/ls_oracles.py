"""Reference quantities for least squares, by routes that share nothing with the solvers under test.

All matrices are dense and real here; float32 input is widened exactly, so that an oracle judges the problem posed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg as sla
from scipy.optimize import brentq

EPS = np.finfo(np.float64).eps


# Double-double arithmetic (Dekker 1971, Knuth 1969); np.longdouble is a plain double on some platforms.


def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _halves(a):
    c = 134217729.0 * a
    hi = c - (c - a)
    return hi, a - hi


def two_product(a, b):
    p = a * b
    a1, a2 = _halves(a)
    b1, b2 = _halves(b)
    return p, a2 * b2 - (((p - a1 * b1) - a2 * b1) - a1 * b2)


def _tree_sum(hi, lo):
    while hi.size > 1:
        if hi.size % 2:
            hi, lo = np.append(hi, 0.0), np.append(lo, 0.0)
        hi, err = two_sum(hi[::2], hi[1::2])
        lo = lo[::2] + lo[1::2] + err
    return two_sum(hi[0], lo[0])


def accurate_residual(A, b, x, x_lo=None):
    """b - A x as an unevaluated sum hi + lo; x may carry a correction x_lo."""
    A, x = np.asarray(A, np.float64), np.asarray(x, np.float64)
    hi, lo = np.array(b, np.float64), np.zeros(len(b))
    for j in range(A.shape[1]):
        p, e = two_product(A[:, j], -x[j])
        hi, t = two_sum(hi, p)
        lo += t + e
        if x_lo is not None:
            lo -= A[:, j] * x_lo[j]
    return two_sum(hi, lo)


def accurate_normal_residual(A, r_hi, r_lo):
    """A'(r_hi + r_lo) as hi + lo, without the rounding errors that would drown a gradient of size eps."""
    A = np.asarray(A, np.float64)
    out = np.empty((2, A.shape[1]))
    for j in range(A.shape[1]):
        p, e = two_product(A[:, j], r_hi)
        out[:, j] = _tree_sum(p, e + A[:, j] * r_lo)
    return out[0], out[1]


class Spectrum(NamedTuple):
    """A thin SVD in float64, kept because many solutions of one problem are judged by it."""

    U: np.ndarray
    s: np.ndarray
    Vt: np.ndarray


def spectrum(A, rank=None):
    U, s, Vt = sla.svd(np.asarray(A, np.float64), full_matrices=False)
    k = len(s) if rank is None else rank
    return Spectrum(U[:, :k], s[:k], Vt[:k])


def backward_error(A, b, x, spec=None):
    """min ||E||_F / ||A||_F such that x minimizes ||(A + E) x - b|| (Walden, Karlson, Sun 1995, theta = inf).

    The definition is min(phi, sigma_min([A, phi (I - r r'/r'r)])) with phi = ||r|| / ||x||. The square of that singular
    value is the eigenvalue below phi^2 of A A' + phi^2 I - phi^2 r r'/r'r, a rank-one downdate of a matrix that U
    diagonalizes. With c = U'r/||r|| and g = V'A'r/||r||, t = (BE / phi)^2 and h = (s / phi)^2, its secular equation is,
    after the cancellation is done by hand,

        t ((1 - c'c) / (1 - t) + sum c_i^2 / (h_i + 1 - t)) = sum (g_i / phi)^2 / (h_i + 1 - t).

    Every term is positive and g comes from a gradient in doubled precision, so that values far below eps keep their
    digits; singular values of the big matrix itself would stop at eps.
    """
    spec = spectrum(A) if spec is None else spec
    norm_A = np.linalg.norm(spec.s)
    hi, lo = accurate_residual(A, b, x)
    norm_r, norm_x = np.linalg.norm(hi), np.linalg.norm(np.asarray(x, np.float64))
    if norm_r == 0:
        return 0.0
    g = spec.Vt @ accurate_normal_residual(A, hi, lo)[0] / norm_r
    if norm_x == 0:
        return np.linalg.norm(g) / norm_A
    phi = norm_r / norm_x
    c = spec.U.T @ hi / norm_r
    outside = np.linalg.norm(hi / norm_r - spec.U @ c) ** 2
    h = (spec.s / phi) ** 2

    def secular(t):
        w = 1 / (h + 1 - t)
        return t * (outside / (1 - t) + c**2 @ w) - (g / phi) ** 2 @ w

    top = 1 - EPS
    if secular(top) <= 0:
        return phi / norm_A
    return phi * np.sqrt(brentq(secular, 0.0, top, xtol=1e-300, rtol=4 * EPS, maxiter=2000)) / norm_A


def backward_error_small_svd(A, b, x):
    """The same by the definition, restricted to the span of [A r]; exact up to about eps, for cross-checks only."""
    A, x = np.asarray(A, np.float64), np.asarray(x, np.float64)
    r = accurate_residual(A, b, x)[0]
    phi = np.linalg.norm(r) / np.linalg.norm(x)
    Q, R = np.linalg.qr(np.column_stack([A, r / np.linalg.norm(r)]))
    rho = Q.T @ r / np.linalg.norm(r)
    small = np.column_stack([R[:, :-1], phi * (np.eye(len(rho)) - np.outer(rho, rho))])
    return min(phi, sla.svdvals(small)[-1]) / np.linalg.norm(A)


def karlson_walden(A, b, x, spec=None):
    """||(A'A + phi^2 I)^(-1/2) A'r|| phi / (||r|| ||A||_F): 1/sqrt(2) to 1 times the backward error.

    Karlson and Walden 1997; the constants are due to Gratton, Jiranek and Titley-Peloquin 2012.
    """
    spec = spectrum(A) if spec is None else spec
    hi, lo = accurate_residual(A, b, x)
    phi = np.linalg.norm(hi) / np.linalg.norm(np.asarray(x, np.float64))
    g = spec.Vt @ accurate_normal_residual(A, hi, lo)[0]
    return phi / np.linalg.norm(hi) * np.linalg.norm(g / np.hypot(spec.s, phi)) / np.linalg.norm(spec.s)


def householder_solution(A, b):
    """The LAPACK-style solution in the precision of A: Householder QR, no refinement."""
    A, b = np.asarray(A), np.asarray(b)
    qtb, R = sla.qr_multiply(A, b.astype(A.dtype), mode="right")
    return sla.solve_triangular(R, qtb)


def refined_solution(A, b, steps=40):
    """The solution to almost full double-double accuracy, rounded: Björck's refinement of the augmented system.

    Each step gains a factor cond(A) * eps, so that it serves up to cond = 1e13 or so; it asserts its own convergence.
    """
    A, b = np.asarray(A, np.float64), np.asarray(b, np.float64)
    n = A.shape[1]
    Q, R = np.linalg.qr(A)
    x, x_lo = np.zeros(n), np.zeros(n)
    r, r_lo = np.zeros(len(b)), np.zeros(len(b))
    last = np.inf
    for _ in range(steps):
        f, f_lo = accurate_residual(A, b, x, x_lo)
        f, t = two_sum(f, -r)
        f = f + (t + f_lo - r_lo)
        grad = -sum(accurate_normal_residual(A, r, r_lo))
        z = sla.solve_triangular(R, grad, trans=1)
        d = Q.T @ f
        dx, dr = sla.solve_triangular(R, d - z), f - Q @ (d - z)
        x, t = two_sum(x, dx)
        x_lo = x_lo + t
        r, t = two_sum(r, dr)
        r_lo = r_lo + t
        size = np.linalg.norm(dx) / np.linalg.norm(x)
        if size < EPS / 100 or (size < EPS and size > last / 2):
            return x + x_lo
        last = size
    raise AssertionError(f"refinement did not converge: last relative step {last:.1e}")


def wedin(cond, norm_A, x, norm_r):
    """Relative forward error caused by a relative perturbation of one unit of A (Wedin 1973), to first order."""
    return cond * (1 + cond * norm_r / (norm_A * np.linalg.norm(x)))


def ridge_solution(A, b, ridge):
    """LAPACK on [A; sqrt(ridge) I]."""
    A = np.asarray(A, np.float64)
    n = A.shape[1]
    pad = np.zeros((n, *np.shape(b)[1:]))
    return np.linalg.lstsq(np.vstack([A, np.sqrt(ridge) * np.eye(n)]), np.concatenate([b, pad]), rcond=None)[0]
