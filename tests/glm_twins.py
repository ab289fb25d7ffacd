"""Twins of generalized linear models in NumPy that take complex arguments, their data, and fixtures over all losses."""

import numpy as np
import pytest
import scipy.sparse as sp
from glm_oracles import LOSSES, labels_of, parameter_of

from randla.optimize import GLM, NonConvexRegularizer

N, D = 37, 5

# Analytic in z, except across the scale of the first two.
TWINS = {
    "logistic": lambda z, y, p: np.log1p(np.exp(-y * z)),
    "squared_sigmoid": lambda z, y, p: (1 / (1 + np.exp(-z)) - y) ** 2,
    "least_squares": lambda z, y, p: (z - y) ** 2 / 2,
    "softplus": lambda z, y, p: (np.log1p(np.exp(z)) - y) ** 2 / 2,
    "poisson": lambda z, y, p: np.exp(z) - y * z,
    "tukey": lambda z, y, p: np.where(abs(z - y) < p, p**2 / 6 * (1 - (1 - (z - y) ** 2 / p**2) ** 3), p**2 / 6),
    "huber": lambda z, y, p: np.where(abs(z - y) <= p, (z - y) ** 2 / 2, p * np.sign((z - y).real) * (z - y) - p**2 / 2),
    "pseudo_huber": lambda z, y, p: p**2 * (np.sqrt(1 + (z - y) ** 2 / p**2) - 1),
    "cauchy": lambda z, y, p: p**2 / 2 * np.log1p((z - y) ** 2 / p**2),
    "welsch": lambda z, y, p: p**2 / 2 * (1 - np.exp(-((z - y) ** 2) / p**2)),
    "geman_mcclure": lambda z, y, p: (z - y) ** 2 / 2 / (1 + (z - y) ** 2 / p**2),
}
STORED = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
}


def data(name, n=N, d=D, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.8)
    y = rng.integers(0, 3, n).astype(float) if name == "softmax" else rng.choice(labels_of(name), n)
    return X, y, rng.random(n) + 0.1, rng.standard_normal(d * (3 if name == "softmax" else 1)) / 2


def twin(name, X, y, x, w=None, l2=0.0, regularizer=None, rows=slice(None)):
    """F at a real or complex x."""
    w = np.ones(len(y)) if w is None else w
    if name == "softmax":
        z = X @ x.reshape(3, -1).T
        losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y.astype(int)]
    else:
        losses = TWINS[name](X @ x, y, parameter_of(name))
    penalty = l2 / 2 * (x @ x) + (0 if regularizer is None else np.sum(regularizer.value(x)))
    return np.mean((w * losses)[rows]) + penalty


def differences(function, x, h=1e-5):
    return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))])


@pytest.fixture(name="name", params=[*LOSSES, "softmax"])
def any_loss(request):
    return request.param


@pytest.fixture(name="problem")
def problem_of_any_loss(name):
    X, y, w, _ = data(name)
    return GLM(X, y, name, 0.2, NonConvexRegularizer(0.3), weights=w)
