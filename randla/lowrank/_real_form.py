"""Complex matrices as real ones, for kernels that know real numbers only."""

from __future__ import annotations

import numpy as np

from .. import _check, _cpu


def real_form(C: np.ndarray) -> np.ndarray:
    """[re -im; im re] for every entry of a complex C; a real one as it is. In C order."""
    if C.dtype.kind != "c":
        return np.ascontiguousarray(C)
    out = np.empty((len(C), 2, C.shape[1], 2), _check.real_dtype(C.dtype))
    out[:, 0, :, 0] = out[:, 1, :, 1] = C.real
    out[:, 1, :, 0] = C.imag
    np.negative(C.imag, out=out[:, 0, :, 1])
    return out.reshape(2 * len(C), 2 * C.shape[1])


def parts(X: np.ndarray) -> np.ndarray:
    """A real matrix with two columns for every one of a complex X; a real one as it is."""
    return np.ascontiguousarray(X).view(_check.real_dtype(X.dtype)) if X.dtype.kind == "c" else X


def complex_gram(G: np.ndarray) -> np.ndarray:
    """X^H X from the Gram matrix of parts(X)."""
    return G[::2, ::2] + G[1::2, 1::2] + 1j * (G[::2, 1::2] - G[1::2, ::2])


def small_gram(X: np.ndarray) -> np.ndarray:
    """X^H X in float64 or complex128, of as few rows as a kernel of inner products takes at once."""
    P = np.ascontiguousarray(parts(X).T, np.float64)
    G = np.empty((len(P), len(P)))
    _cpu.gram_rows(P, 0, G)
    return complex_gram(G) if X.dtype.kind == "c" else G
