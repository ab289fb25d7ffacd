"""Errors of structured matrices of several sizes for matrices from practice, and the bounds that are proved for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from figures import Progress
from figures_optimize import missing

from randla.datasets import load
from randla.structured.factorize import suggest_chains
from randla.structured.pattern import Chain

BUDGETS = (0.02, 0.03, 0.05, 0.08, 0.13, 0.2, 0.3, 0.45)
HIDDEN = 256
WAVES = 1024


def covariance(quick: bool) -> np.ndarray:
    """Of the pixels of the 10,000 test images of MNIST."""
    X = pixels(quick)
    return np.cov(X.T)


def pixels(quick: bool) -> np.ndarray:
    X = load("mnist")[0] / 255.0
    return X.reshape(-1, 28, 28)[:500, ::7, ::7].reshape(500, -1) if quick else X


def layer(quick: bool) -> np.ndarray:
    """The first layer, hidden units x pixels, of a classifier of these images with one hidden layer, trained by Adam."""
    X, labels = pixels(quick), np.asarray(load("mnist")[1], np.int64)
    rng = np.random.default_rng(0)
    hidden, batch, epochs = (16, 50, 1) if quick else (HIDDEN, 100, 20)
    W = rng.standard_normal((hidden, X.shape[1])) * np.sqrt(2 / X.shape[1])
    V = rng.standard_normal((10, hidden)) * np.sqrt(1 / hidden)
    state = [(w, np.zeros_like(w), np.zeros_like(w)) for w in (W, V)]
    step = 0
    for _ in range(epochs):
        for rows in rng.permutation(len(X)).reshape(-1, batch):
            step += 1
            H = np.maximum(X[rows] @ W.T, 0)
            Z = H @ V.T
            P = np.exp(Z - Z.max(axis=1, keepdims=True))
            P /= P.sum(axis=1, keepdims=True)
            P[np.arange(batch), labels[rows]] -= 1
            D = (P @ V) * (H > 0)
            for (w, first, second), g in zip(state, (D.T @ X[rows] / batch, P.T @ H / batch), strict=True):
                first += 0.1 * (g - first)
                second += 0.001 * (g * g - second)
                w -= 1e-3 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return W


def waves(quick: bool) -> np.ndarray:
    """exp(2 pi i k (x + sin(2 pi x) / 16)), a Fourier integral operator, its rows in bit-reversed order."""
    n = 64 if quick else WAVES
    x, k = np.arange(n) / n, np.arange(n) - n // 2
    A = np.exp(2j * np.pi * np.outer(x + np.sin(2 * np.pi * x) / 16, k))
    return A[bit_reversed(n)]


def bit_reversed(n: int) -> np.ndarray:
    order = np.zeros(1, np.int64)
    while len(order) < n:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


MATRICES: dict[str, Callable[[bool], np.ndarray]] = {
    "covariance of MNIST pixels": covariance,
    "first layer of an MNIST classifier": layer,
    "Fourier integral operator": waves,
}


def family(chain: Chain) -> str:
    if len(chain) == 1:
        return "dense"
    if len(chain) == 2:
        return "low rank" if all(pattern.a == pattern.d == 1 for pattern in chain) else "two factors"
    return "three and more factors"


def weights(quick: bool, progress: Progress) -> dict[str, Any]:
    """The smallest error of every family under each budget, with its lower bound."""
    try:
        matrices = {name: make(quick) for name, make in MATRICES.items()}
    except FileNotFoundError as error:
        return missing(error)
    parts = []
    for name, A in matrices.items():
        size = float(np.linalg.norm(A))
        curves: dict[str, dict[str, list[float]]] = {}
        for fraction in BUDGETS:
            progress(f"{name}: {fraction:.0%}")
            budget = int(fraction * A.size)
            if budget < sum(A.shape):
                continue
            seen = set()
            for s in suggest_chains(A, max_params=budget, limit=100):
                kind = family(s.chain)
                if kind in seen or kind == "dense":
                    continue
                seen.add(kind)
                curve = curves.setdefault(kind, {"fraction": [], "error": [], "bound": []})
                curve["fraction"].append(s.n_params / A.size)
                curve["error"].append(s.relative_error)
                curve["bound"].append(s.lower_bound / size)
        parts.append({"name": name, "shape": list(A.shape), "curves": curves})
    return {"parts": parts}
