"""Positive semidefinite matrices of known spectrum, and dense forms of what approximates them."""

import numpy as np
from scipy.spatial.distance import cdist

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def spectrum(name, n):
    i = np.arange(1, n + 1.0)
    if name == "flat":
        return np.ones(n)
    if name == "square":
        return i**-2
    if name == "slow":
        return i**-0.5
    if name == "exponential":
        return 0.8 ** (i - 1)
    if name == "clustered":
        return np.where(i <= 12, 1.0, np.where(i <= 30, 1e-3, 1e-7))
    assert name == "cliff"
    return np.where(i <= 15, 1.0, 1e-6)


SPECTRA = ["flat", "square", "slow", "exponential", "clustered", "cliff"]


def psd(values, dtype=np.float64, seed=0):
    """Q diag(values) Q^H for a Haar-distributed Q, exactly Hermitian."""
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((len(values), len(values)))
    if np.dtype(dtype).kind == "c":
        G = G + 1j * rng.standard_normal(G.shape)
    Q = np.linalg.qr(G)[0]
    A = (Q * values) @ Q.conj().T
    return ((A + A.conj().T) / 2).astype(dtype)


def wide(A):
    return A.astype(np.result_type(A.dtype, np.float64))


def rbf(X, Y, gamma):
    return np.exp(-gamma * cdist(X, Y, "sqeuclidean"))
