"""What leverage scores should be, and the forms in which a matrix may come."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator

import randla
from randla.leverage import leverage_scores

EPS = np.finfo(np.float64).eps


def full(A, **options):
    return leverage_scores(A, full_output=True, **{"rng": 1, **options})


def basis(A, ridge=0.0):
    """Orthonormal columns that span those of [A; sqrt(ridge) I], by Gram and Schmidt, twice, in extended precision."""
    wide = A.astype(np.clongdouble if A.dtype.kind == "c" else np.longdouble)
    m, n = A.shape
    if ridge:
        wide = np.vstack([wide, np.sqrt(np.longdouble(ridge)) * np.eye(n)])
    Q = np.zeros_like(wide)
    for j in range(n):
        q = wide[:, j]
        for _ in range(2):
            q = q - Q[:, :j] @ (Q[:, :j].conj().T @ q)
            # Squares of numbers up to 1e155 need the range of extended precision.
            q = q / np.sqrt(np.sum(np.abs(q) ** 2))
        Q[:, j] = q
    return Q[:m]


def oracle(A, ridge=0.0, weights=None):
    """Scores of a dense matrix of full column rank."""
    rows = A if weights is None else A * np.sqrt(weights.astype(np.longdouble))[:, None]
    return np.sum(np.abs(basis(rows, ridge)) ** 2, axis=1).astype(float)


def by_svd(A, ridge=0.0, rank=None):
    """Scores from LAPACK's singular vectors, the numerical rank where none is given."""
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    rank = int(np.count_nonzero(s > 1e-13 * s[0])) if rank is None and not ridge else rank
    return (np.abs(U[:, :rank]) ** 2) @ (s[:rank] ** 2 / (s[:rank] ** 2 + ridge))


def strided(A):
    wide = np.full((2 * A.shape[0], 3 * A.shape[1]), 77, A.dtype)
    wide[::2, ::3] = A
    return wide[::2, ::3]


def read_only(A):
    out = A.copy()
    out.flags.writeable = False
    return out


def cut(A, *edges):
    return [A[i:j] for i, j in itertools.pairwise([0, *edges, A.shape[0]])]


FORMS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "CSR": sp.csr_array,
    "CSC": sp.csc_matrix,
    "list of blocks": lambda A: cut(A, 1, A.shape[0] // 2),
    "sparse blocks": lambda A: randla.RowBlocks(lambda: map(sp.csr_array, cut(A, 30))),
    "operator": aslinearoperator,
}


def generic(m, n, dtype=np.float64, seed=0):
    """Coherent rows, columns of different sizes."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    A = rng.standard_normal((m, n)) * np.logspace(0, 2, n)
    A[:2] *= 30
    if dtype.kind == "c":
        A = A + 1j * rng.standard_normal((m, n))
    return np.rint(A).astype(dtype) if dtype.kind in "iu" else A.astype(dtype)


def check(result, truth, rank=None, tolerance=1e-12):
    """Every promise of an exact LeverageResult."""
    scores = result.scores
    assert scores.dtype == np.float64
    assert scores.shape == truth.shape
    assert scores.min(initial=0.0) >= 0
    assert scores.max(initial=0.0) <= 1
    np.testing.assert_allclose(scores, truth, rtol=tolerance, atol=1e-14)
    assert scores.sum() == pytest.approx(truth.sum(), rel=1e-12)
    assert result.effective_dimension == pytest.approx(truth.sum(), rel=1e-11, abs=1e-12)
    assert rank is None or result.rank == rank


def check_deficient(result, truth, rank, exact):
    """Of a matrix of known rank; a sketch is within its default rtol."""
    if exact:
        check(result, truth, rank, tolerance=1e-10)
    else:
        assert result.rank == rank
        np.testing.assert_allclose(result.scores, truth, rtol=0.25, atol=1e-15)


def decaying(m, n, *, number=np.float64, noise=0.01, seed=0):
    """Sixty directions of decreasing size above noise."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, 60)) @ (rng.standard_normal((60, n)) * 0.9 ** np.arange(60)[:, None])
    A += noise * rng.standard_normal((m, n))
    return A + 1j * A[::-1] if np.dtype(number).kind == "c" else A
