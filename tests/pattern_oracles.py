"""Dense supports of patterns, counts of rank-one supports, dimensions of tangent spaces, and random chains."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import strategies as st

from randla.structured.pattern import Chain, Pattern

SMALL = [Pattern(*abcd) for abcd in itertools.product(range(1, 5), repeat=4)]
SMALL = [p for p in SMALL if max(p.shape) <= 12]


def dense(p):
    """I_a (x) 1_{b x c} (x) I_d, by Kronecker products."""
    a, b, c, d = p
    return np.kron(np.kron(np.eye(a, dtype=int), np.ones((b, c), int)), np.eye(d, dtype=int))


def rank_one_supports(p, q):
    """How many k share each pair (rows of column k of a p factor, columns of row k of a q factor)."""
    P, Q = dense(p), dense(q)
    supports = [(tuple(np.flatnonzero(x)), tuple(np.flatnonzero(y))) for x, y in zip(P.T, Q, strict=True)]
    return Counter(supports)


def values(p, rng):
    return dense(p) * rng.standard_normal(p.shape)


def product(factors):
    return factors[0] if len(factors) == 1 else np.linalg.multi_dot(factors)


def dimension(chain, rng):
    """Of the set of products: the rank of the derivative of K_1 ... K_L at a random point."""
    factors = [values(p, rng) for p in chain]
    columns = []
    for s, p in enumerate(chain):
        left = product([*factors[:s], np.eye(p.shape[0])])
        right = product([np.eye(p.shape[1]), *factors[s + 1 :]])
        for i, j in np.argwhere(dense(p)):
            columns.append(np.outer(left[:, i], right[j]).ravel())
    return np.linalg.matrix_rank(np.array(columns), tol=1e-9)


def patterns_of(shape):
    m, n = shape
    common = [(a, d) for a in range(1, m + 1) for d in range(1, m + 1) if m % (a * d) == 0 and n % (a * d) == 0]
    return [Pattern(a, m // (a * d), n // (a * d), d) for a, d in common]


@st.composite
def chains(draw, largest=150, ranks=3, length=4):
    """Chainable chains in general position: outer sizes, branchings and inner ranks."""
    side = st.integers(1, 3)
    L = draw(st.integers(1, length))
    blocks = [(draw(side), draw(side)) for _ in range(L)]
    rank = [draw(st.integers(1, ranks)) for _ in range(L - 1)]
    outer, inner = draw(side), draw(side)
    chain = Chain([(outer * a, b, c, d * inner) for a, b, c, d in Chain.deformable(blocks, rank)])
    sizes = [chain.shape[0], *(p.shape[1] for p in chain)]
    while max(sizes) > largest and len(chain) > 1:
        chain, sizes = chain[:-1], sizes[:-1]
    return chain
