"""What tests of `minimize` share: methods, saddles, a network, and generalized linear models of few terms."""

import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp

from randla.optimize import (
    GLM,
    CubicRegularization,
    Loss,
    MinimizeStatus,
    MinimizeWarning,
    Newton,
    NewtonMR,
    NonConvexRegularizer,
    TrustRegion,
    from_callables,
    minimize,
)

Status = MinimizeStatus
MODELS = {
    f"trust-region {name}": TrustRegion(subproblem=name) for name in ("gltr", "steihaug", "block", "shifted", "exact")
} | {f"cubic {name}": CubicRegularization(subproblem=name) for name in ("lanczos", "block", "shifted", "exact", "gradient")}
ESCAPING = MODELS | {"newton-mr": NewtonMR()}  # all that need no positive definite Hessian
ALL = ESCAPING | {"newton": Newton(), "root newton": Newton(q=3.5)}

escaping = pytest.mark.parametrize("method", ESCAPING.values(), ids=ESCAPING)
every = pytest.mark.parametrize("method", ALL.values(), ids=ALL)
by_model = pytest.mark.parametrize("method", MODELS.values(), ids=MODELS)


def quietly(*args, **kwargs):
    """A run that may end without success."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinimizeWarning)
        return minimize(*args, **kwargs)


def dense(problem, x):
    H = problem.hessian(x) @ np.eye(len(x))
    return (H + H.T) / 2


SADDLE = from_callables(
    lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4,
    lambda x: np.array([2 * x[0], 4 * x[1] ** 3 - 2 * x[1]]),
    hess=lambda x: np.diag([2.0, 12 * x[1] ** 2 - 2]),
)
# Bounded by a quartic; degenerate at 0, minima at radius 3/4.
MONKEY = from_callables(
    lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2 + (x @ x) ** 2,
    lambda x: np.array([3 * x[0] ** 2 - 3 * x[1] ** 2, -6 * x[0] * x[1]]) + 4 * (x @ x) * x,
    hess=lambda x: np.array([[6 * x[0], -6 * x[1]], [-6 * x[1], -6 * x[0]]]) + 4 * (x @ x) * np.eye(2) + 8 * np.outer(x, x),
)


def factorization(size=7, rank=2):
    """||U U' - M||^2 / 4, M of the given rank: 0 is a strict saddle, all minima are global."""
    B = np.random.default_rng(0).standard_normal((size, rank))
    M = B @ B.T

    def shape(x):
        return x.reshape(size, rank)

    def hessp(x, v):
        U, V = shape(x), shape(v)
        return ((U @ U.T - M) @ V + (U @ V.T + V @ U.T) @ U).ravel()

    return from_callables(
        lambda x: 0.25 * np.sum((shape(x) @ shape(x).T - M) ** 2),
        lambda x: ((shape(x) @ shape(x).T - M) @ shape(x)).ravel(),
        hessp,
        dim=size * rank,
    )


def network(n=200, inputs=3, hidden=4):
    """Least squares of a network with one hidden layer of tanh: at 0 the gradient vanishes, which is a strict saddle."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, inputs))
    y = np.tanh(X @ rng.standard_normal(inputs)) + 0.5 * X[:, 0]

    def parts(x, idx):
        A, b = (X, y) if idx is None else (X[idx], y[idx])
        W, w = x[: inputs * hidden].reshape(hidden, inputs), x[inputs * hidden :]
        T = np.tanh(A @ W.T)
        return A, W, w, T, 1 - T * T, T @ w - b

    def fun(x, idx=None):
        r = parts(x, idx)[-1]
        return 0.5 * np.mean(r * r) + 5e-3 * (x @ x)

    def grad(x, idx=None):
        A, _, w, T, D, r = parts(x, idx)
        G = ((r[:, None] * D) * w).T @ A
        return np.concatenate([G.ravel(), T.T @ r]) / len(A) + 1e-2 * x

    def hessp(x, v, idx=None):
        A, _, w, T, D, r = parts(x, idx)
        V, u = v[: inputs * hidden].reshape(hidden, inputs), v[inputs * hidden :]
        Z = A @ V.T
        dT, dD = D * Z, -2 * T * D * Z
        dr = dT @ w + T @ u
        E = dr[:, None] * D * w + r[:, None] * (dD * w + D * u)
        return np.concatenate([(E.T @ A).ravel(), dT.T @ r + T.T @ dr]) / len(A) + 1e-2 * v

    return from_callables(fun, grad, hessp, n=n, dim=hidden * (inputs + 1))


def rosenbrock(unit=1.0):
    return from_callables(
        lambda x: unit * scipy.optimize.rosen(x),
        lambda x: unit * scipy.optimize.rosen_der(x),
        hess=lambda x: unit * scipy.optimize.rosen_hess(x),
    )


def design(kind):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((150, 6)) * np.linspace(1, 0.3, 6)
    if kind == "csr":
        X[np.abs(X) < 0.2] = 0.0
        return sp.csr_array(X)
    return X.astype(np.float32) if kind == "float32" else np.asfortranarray(X)


def labelled(loss, X):
    rng = np.random.default_rng(6)
    z = np.asarray(X @ np.array([1.0, -2.0, 0.5, 0.0, 1.5, -1.0]), np.float64)
    if loss in ("logistic", "squared_sigmoid", "user"):
        return (rng.random(150) < 1 / (1 + np.exp(-z))).astype(float)
    if loss == "poisson":
        return rng.poisson(np.exp(np.clip(z, -5, 3))).astype(float)
    if loss == "softmax":
        return np.digitize(z + rng.standard_normal(150), [-1, 1]).astype(float)
    y = z + 0.3 * rng.standard_normal(150)
    if loss == "softplus":
        return np.log1p(np.exp(y))
    y[:10] += 20.0
    return y


# Probit-like: smooth, bounded, not convex.
USER = Loss(
    value=lambda z, y: (np.tanh(z) - 2 * y + 1) ** 2,
    first=lambda z, y: 2 * (np.tanh(z) - 2 * y + 1) / np.cosh(z) ** 2,
    second=lambda z, y: 2 / np.cosh(z) ** 4 - 4 * (np.tanh(z) - 2 * y + 1) * np.tanh(z) / np.cosh(z) ** 2,
)


def glm(loss, kind, penalty):
    X = design(kind)
    y = labelled(loss, X)
    l2 = {"l2": 0.05, "nonconvex": 1e-3, "none": 0.0}[penalty]
    return GLM(X, y, USER if loss == "user" else loss, l2, NonConvexRegularizer(0.02) if penalty == "nonconvex" else None)
