"""Square matrices of given eigenvalues, for the tests of stochastic estimates."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

N = 100

SPECTRA = {
    "flat": np.linspace(1.0, 3.0, N),
    "slow": np.arange(1, N + 1) ** -0.5,
    "fast": np.arange(1, N + 1) ** -2.0,
    "exponential": 0.8 ** np.arange(N),
    "cliff": np.r_[np.ones(12), 1e-3 * np.ones(N - 12)],
}


def orthogonal(n, rng, complex_=False):
    entries = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    return np.linalg.qr(entries)[0]


def hermitian(values, complex_=False, rng=0):
    Q = orthogonal(len(values), np.random.default_rng(rng), complex_)
    A = (Q * values) @ Q.conj().T
    return (A + A.conj().T) / 2


def general(values, complex_=False, rng=0):
    """With these singular values."""
    rng = np.random.default_rng(rng)
    return (orthogonal(len(values), rng, complex_) * values) @ orthogonal(len(values), rng, complex_)


def counted(A):
    """An operator, and a list whose only entry is how many vectors it was applied to."""
    count = [0]

    def times(M):
        def apply(X):
            count[0] += 1 if X.ndim == 1 else X.shape[1]
            return M @ X

        return apply

    adjoint = times(A.conj().T)
    op = LinearOperator(A.shape, matvec=times(A), matmat=times(A), rmatvec=adjoint, rmatmat=adjoint, dtype=A.dtype)
    return op, count


__all__ = ["SPECTRA", "N", "aslinearoperator", "counted", "general", "hermitian", "orthogonal"]
