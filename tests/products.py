"""What tests of products share: the dense twin of a sketch, and the rounding errors that a product may have."""

from functools import lru_cache

import numpy as np
import oracles
import scipy.sparse as sp

import randla


@lru_cache(maxsize=64)
def twin(distribution, d, m, seed=1):
    S = oracles.sketch(distribution, d, m, seed)
    S.setflags(write=False)
    return S


def matrix(m, n, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((m, n)).astype(dtype)


def dense(X):
    return X.toarray() if sp.issparse(X) else np.asarray(X)


def assert_product(family, got, S, X, size=None, of_column=0.0):
    """|got - S X| <= 16 eps |S| |X| elementwise, S the twin of a sketch or its transpose; eps is that of the result.

    `size` stands for |X| where entries of X are sums themselves. Beside that, `of_column` times the largest entry of |S| |X| in
    a column is allowed everywhere in it.
    A fast transform mixes all rows before most of it cancels: there the bound is 16 eps |S| |x| in norms, for each column x.
    """
    got, X = dense(got), dense(X).astype(np.float64)
    expected = S @ X
    size, eps = np.abs(X if size is None else size), np.finfo(got.dtype).eps
    assert got.shape == expected.shape
    if isinstance(family, randla.SRTT):
        squares = S * S
        largest = max(squares.sum(axis=0).max(initial=0), squares.sum(axis=1).max(initial=0))
        bound = 16 * eps * np.sqrt(largest) * np.linalg.norm(size, axis=0)
    else:
        bound = 16 * eps * (np.abs(S) @ size)
    bound = bound + of_column * (np.abs(S) @ size).max(axis=0, initial=0)
    error = np.abs(got - expected)
    assert np.all(error <= bound), f"largest error / bound = {np.max(error / np.maximum(bound, 1e-300)):.3g}"
