"""Points, kernels, and dense forms of what landmarks approximate."""

import numpy as np
from scipy.spatial.distance import cdist

EPS = np.finfo(float).eps


def points(name, n=1200):
    rng = np.random.default_rng(1)
    if name == "spread":
        return rng.standard_normal((n, 3))
    if name == "clusters":
        return 5 * rng.standard_normal((12, 3))[np.arange(n) % 12] + 0.1 * rng.standard_normal((n, 3))
    if name == "outliers":
        return np.concatenate([0.05 * rng.standard_normal((n - 10, 3)), 10 * rng.standard_normal((10, 3))])
    assert name == "duplicates"
    return rng.standard_normal((15, 3))[rng.integers(0, 15, n)]


def rbf(X, Y, gamma=1.0):
    return np.exp(-gamma * cdist(X, Y, "sqeuclidean"))


def exact_scores(K, ridge):
    values, vectors = np.linalg.eigh(K)
    values = np.maximum(values, 0)
    return np.abs(vectors) ** 2 @ (values / (values + ridge))


def nystrom(K, rows):
    return K[:, rows] @ np.linalg.pinv(K[np.ix_(rows, rows)], rcond=1e-12, hermitian=True) @ K[rows]
