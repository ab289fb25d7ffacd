"""Random chains and their values, products stage by stage in extended precision, and the rounding errors they may have."""

import numpy as np

from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain

DTYPES = [np.dtype(name) for name in ("float32", "float64", "complex64", "complex128")]
SIDES = (1, 2, 3, 4, 5, 8, 33)

CHAINS = {
    "dyadic": Chain.dyadic(64),
    "dyadic odd": Chain.dyadic(32),
    "transposed": Chain.dyadic(64).T,
    "kaleidoscope": Chain.kaleidoscope(32),
    "rank 2": Chain.dyadic(16, rank=2),
    "monarch": Chain.monarch(165, 132, 33, 4),
    "monarch rank 3": Chain.monarch(36, 48, 6, 8, rank=3),
    "low rank": Chain.low_rank(40, 70, 3),
    "mixed": Chain.deformable([(3, 2), (2, 5), (4, 3)]),
    "diagonals": Chain([(1, 1, 1, 24), (24, 1, 1, 1), (2, 2, 2, 6), (6, 2, 2, 2), (4, 1, 1, 6)]),
    "not chainable": Chain([(4, 2, 3, 1), (1, 3, 2, 4), (2, 4, 1, 1)]),
    "one": Chain([(1, 1, 1, 1)]),
    "row": Chain([(1, 1, 30, 1)]),
    "column": Chain([(1, 30, 1, 1)]),
    "wide lanes": Chain([(3, 2, 2, 20), (2, 3, 3, 20), (2, 2, 2, 30)]),
    "wide blocks": Chain([(40, 2, 2, 1), (20, 4, 4, 1), (40, 2, 2, 1)]),
    **{f"block {b}": Chain([(2, b, b, 3), (3, b, b, 2)]) for b in SIDES},
}


def random(shape, dtype, rng):
    dtype = np.dtype(dtype)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.kind == "c" else x).astype(dtype)


def random_product(chain, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return Product([KroneckerSparse(random(tuple(p), dtype, rng)) for p in chain])


def divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


def random_chain(rng, largest=250):
    """Up to six patterns whose sizes match, most of them not chainable."""
    while True:
        a, b, c, d = (int(x) for x in (rng.choice((1, 2, 3, 4, 16)), *rng.choice(SIDES, 2), rng.choice((1, 2, 3, 4, 16))))
        if max(a * b * d, a * c * d) <= largest:
            break
    patterns = [(a, b, c, d)]
    for _ in range(rng.integers(0, 6)):
        n = a * c * d
        b = int(rng.choice([s for s in SIDES if n % s == 0]))
        a = int(rng.choice(divisors(n // b)))
        d = n // b // a
        c = int(rng.choice([s for s in SIDES if a * s * d <= largest] + [b] * 4))
        patterns.append((a, b, c, d))
    return Chain(patterns)


def dense(factor):
    """By the map of indices, one entry at a time, in extended precision."""
    a, b, c, d = factor.pattern
    out = np.zeros((a * b * d, a * c * d), np.result_type(factor.dtype, np.longdouble))
    for (i, j, k, l), value in np.ndenumerate(factor.values):
        out[i * b * d + j * d + l, i * c * d + k * d + l] = value
    return out


def product(P):
    """The whole product as a matrix in extended precision, rows and columns picked."""
    out = np.eye(P.chain.shape[1], dtype=np.longdouble)
    for factor in reversed(P.factors):
        out = dense(factor) @ out
    out = out if P.rows is None else out[P.rows]
    return out if P.cols is None else out[:, P.cols]


def exact(P, X):
    """P X, and the bound on the rounding errors of a product in the precision of X and P."""
    factors = [dense(factor) for factor in reversed(P.factors)]
    Y, size = X.astype(np.result_type(X.dtype, np.longdouble)), np.abs(X).astype(np.longdouble)
    for K in factors:
        Y, size = K @ Y, np.abs(K) @ size
    eps = np.finfo(np.result_type(P.dtype, X.dtype)).eps
    return Y, 3 * sum(p.c + 4 for p in P.chain) * eps * size


def assert_close(got, P, X):
    expected, bound = exact(P, X)
    assert got.dtype == np.result_type(P.dtype, X.dtype)
    assert got.shape == expected.shape
    assert np.all(np.abs(got - expected) <= bound)


def hadamard(n, dtype=np.float64):
    return Product([KroneckerSparse(np.broadcast_to(_SIGNS, tuple(p)).astype(dtype)) for p in Chain.dyadic(n)])


_SIGNS = np.array([[1, 1], [1, -1]])[None, :, :, None]
