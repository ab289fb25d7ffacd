"""Sums and smooth functions in plain NumPy that count their calls, sets, first-order conditions, and minima over all faces."""

import itertools
import math

import numpy as np

from randla.optimize.constrained import Box, L1Ball, L2Ball, Simplex


class Sum:
    """Mean of losses of margins plus l2 / 2 ||x||^2, in plain NumPy; counts what is asked for."""

    def __init__(self, X, y, loss, l2=0.0):
        self.X, self.y, self.loss, self.l2 = X, y, loss, l2
        self.n, self.dim = X.shape
        self.calls = []

    def terms(self, z, y):
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-z))
        if self.loss == "logistic":
            return np.logaddexp(0, z) - y * z, p - y, p * (1 - p)
        if self.loss == "squared_sigmoid":
            q = p * (1 - p)
            return (p - y) ** 2, 2 * (p - y) * q, 2 * (q**2 + (p - y) * q * (1 - 2 * p))
        return (z - y) ** 2 / 2, z - y, np.ones(len(z))

    def part(self, x, idx):
        X, y = (self.X, self.y) if idx is None else (self.X[idx], self.y[idx])
        return X, *self.terms(X @ x, y)

    def value(self, x, idx=None):
        self.calls.append(("value", self.n if idx is None else len(idx)))
        return self.part(x, idx)[1].mean() + self.l2 / 2 * (x @ x)

    def grad(self, x, idx=None):
        self.calls.append(("grad", self.n if idx is None else len(idx)))
        X, _, c, _ = self.part(x, idx)
        return X.T @ c / len(c) + self.l2 * x

    def hessian(self, x, idx=None):
        X, _, _, d = self.part(x, idx)
        return Hessian(X, d / len(d), self.l2, self.calls)


class Hessian:
    def __init__(self, X, d, l2, calls):
        self.X, self.d, self.l2, self.calls, self.shape = X, d, l2, calls, (X.shape[1],) * 2

    def __matmul__(self, V):
        self.calls += [("product", len(self.d))] * V.shape[1]
        return self.X.T @ (self.d[:, None] * (self.X @ V)) + self.l2 * V

    def toarray(self):
        self.calls.append(("dense", len(self.d)))
        return (self.X.T * self.d) @ self.X + self.l2 * np.eye(self.X.shape[1])


class Smooth:
    """A function of few variables, as a sum of one term."""

    n = 1

    def __init__(self, dim, value, grad, hess):
        self.dim, self.value, self.grad, self.hess = dim, value, grad, hess

    def hessian(self, x, idx=None):
        return np.asarray(self.hess(x), float)


def quadratic(A, b):
    return Smooth(len(b), lambda x: x @ A @ x / 2 - b @ x, lambda x: A @ x - b, lambda x: A)


def classification(n=400, d=12, loss="logistic", l2=1e-3, rng=0):
    rng = np.random.default_rng(rng)
    X = rng.standard_normal((n, d)) * 10 ** rng.uniform(-0.5, 0.5, d)
    z = X @ rng.standard_normal(d) + rng.standard_normal(n)
    return Sum(X, z if loss == "least_squares" else (z > 0) * 1.0, loss, l2)


LOSSES = ("logistic", "squared_sigmoid", "least_squares")
SETS = {
    "box": Box(-0.1, 0.3),
    "orthant": Box(0.0),
    "some bounds": Box(np.r_[np.full(6, -np.inf), np.full(6, 0.2)], np.r_[np.full(4, 0.1), np.full(8, np.inf)]),
    "space": Box(),
    "ball": L2Ball(0.5),
    "ball elsewhere": L2Ball(0.4, np.linspace(-1, 1, 12)),
    "large ball": L2Ball(1e3),
    "l1": L1Ball(0.7),
    "large l1": L1Ball(1e3),
    "simplex": Simplex(),
    "large simplex": Simplex(20.0),
}


def require_kkt(D, result, tol):
    """First-order conditions from their definition, by the multipliers reported."""
    x, g, m = result.x, result.jac, result.multipliers
    assert D.contains(x, 1e-13)
    if isinstance(D, Box):
        low, high = x <= D.lower, x >= D.upper
        assert np.abs(g[~low & ~high]).max(initial=0) <= tol
        assert g[low & ~high].min(initial=0) >= -tol
        assert g[high & ~low].max(initial=0) <= tol
        assert np.array_equal(m["bounds"] != 0, (low | high) & (g != 0))
    elif isinstance(D, L2Ball):
        v = x if D.center is None else x - D.center
        assert m["norm"] >= 0
        assert m["norm"] * (D.radius - np.linalg.norm(v)) <= tol
        assert np.linalg.norm(g + m["norm"] * v) <= tol
    elif isinstance(D, L1Ball):
        assert m["norm"] >= 0
        assert m["norm"] * (D.radius - np.abs(x).sum()) <= tol
        assert np.abs(g).max() <= m["norm"] + tol
        assert np.abs(g + m["norm"] * np.sign(x))[x != 0].max(initial=0) <= tol
    else:
        assert np.abs(g + m["total"] - m["bounds"]).max() <= tol
        assert m["bounds"].min() >= -tol
        assert np.all(m["bounds"] * x == 0)


def smallest_over_faces(A, b, signs, total):
    """min x'Ax/2 - b'x over sum signs x = total, signs x >= 0: all supports, by the KKT system of each."""
    best, where = math.inf, None
    d = len(b)
    for size in range(1, d + 1):
        for support in itertools.combinations(range(d), size):
            S = list(support)
            K = np.block([[A[np.ix_(S, S)], signs[S][:, None]], [signs[S][None], np.zeros((1, 1))]])
            z = np.linalg.solve(K, np.r_[b[S], total])[:-1]
            if (signs[S] * z).min() >= -1e-12:
                x = np.zeros(d)
                x[S] = z
                if x @ A @ x / 2 - b @ x < best:
                    best, where = x @ A @ x / 2 - b @ x, x
    return best, where
