"""A second implementation of docs/definitions.md in plain NumPy, written from that page alone.

Every function returns the dense matrix of a sketch. `columns` picks columns by index, so that sketches far too wide to
hold can be checked where 64-bit indices matter.
"""

import numpy as np

STREAM_GAUSSIAN, STREAM_STACK, STREAM_SIGN = 1, 3, 4
STREAM_SLAB, STREAM_GROUP, STREAM_WINDOW = 5, 6, 7

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
ODD = np.uint64(1)


def philox4x32_10(counters, seed):
    """Philox4x32-10 of (N, 4) uint32 counters under the key (seed mod 2^32, seed >> 32)."""
    c0, c1, c2, c3 = np.asarray(counters, np.uint32).astype(np.uint64).T
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ np.uint64(k0), p1 & LOW, (p0 >> HALF) ^ c3 ^ np.uint64(k1), p0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def words64(index, third, stream, seed):
    """The words U0, U1 of philox(lo(index), hi(index), third, stream), elementwise over broadcast index and third."""
    index, third = np.broadcast_arrays(np.asarray(index, np.uint64), np.asarray(third, np.uint64))
    counters = np.stack([index & LOW, index >> HALF, third, np.full_like(index, stream)], axis=-1)
    w = philox4x32_10(counters.reshape(-1, 4).astype(np.uint32), seed).astype(np.uint64).reshape(*index.shape, 4)
    return w[..., 0] | w[..., 1] << HALF, w[..., 2] | w[..., 3] << HALF


def bounded(word, r):
    """(word * r) >> 64 for r < 2^32, in two halves because NumPy has no 128-bit product."""
    r = np.asarray(r, np.uint64)
    assert r.size == 0 or r.max() <= LOW
    return (((word >> HALF) * r + ((word & LOW) * r >> HALF)) >> HALF).astype(np.int64)


def split(total, parts):
    """Sizes of `parts` consecutive pieces of range(total); the larger ones come first."""
    small, larger = divmod(total, parts)
    return np.array([small + 1] * larger + [small] * (parts - larger), np.int64)


def _nonzero_words(columns, z, stream, seed):
    """The z words of each column, shape (z, number of columns)."""
    u0, u1 = words64(columns, np.arange((z + 1) // 2)[:, None], stream, seed)
    return np.stack([u0, u1], axis=1).reshape(-1, columns.size)[:z]


def _signs(words):
    return np.where(words & ODD, -1.0, 1.0)


def _columns(m, columns):
    return np.arange(m) if columns is None else np.asarray(columns)


def sparse_stack(d, m, seed, nnz=8, columns=None):
    columns = _columns(m, columns)
    z = min(nnz, d)
    sizes = split(d, z)
    starts = np.cumsum(sizes) - sizes
    words = _nonzero_words(columns, z, STREAM_STACK, seed)
    rows = starts[:, None] + bounded(words, sizes[:, None])
    S = np.zeros((d, columns.size))
    S[rows, np.arange(columns.size)] = _signs(words) / np.sqrt(z)
    return S


def count_sketch(d, m, seed, columns=None):
    return sparse_stack(d, m, seed, nnz=1, columns=columns)


def sparse_sign(d, m, seed, nnz=8, columns=None):
    columns = _columns(m, columns)
    z = min(nnz, d)
    words = _nonzero_words(columns, z, STREAM_SIGN, seed)
    drawn = bounded(words, np.arange(d - z + 1, d + 1)[:, None])
    rows = np.empty_like(drawn)
    for t in range(z):
        taken = (rows[:t] == drawn[t]).any(axis=0)
        rows[t] = np.where(taken, d - z + t, drawn[t])
    S = np.zeros((d, columns.size))
    S[rows, np.arange(columns.size)] = _signs(words) / np.sqrt(z)
    return S


def gaussian(d, m, seed, columns=None):
    """Box-Muller in extended precision where the platform has it, rounded to float64 once at the end."""
    columns = _columns(m, columns)
    u0, u1 = words64(columns, np.arange((d + 1) // 2)[:, None], STREAM_GAUSSIAN, seed)
    u = (u0.astype(np.float64) + 1.0) * 2.0**-64
    radius = np.sqrt(-2 * np.log(u.astype(np.longdouble)))
    quadrant = (u1 >> np.uint64(62)).astype(np.int64)
    f = (u1 & np.uint64(2**62 - 1)).astype(np.float64) * 2.0**-62 - 0.5
    # cos and sin of (pi/2)(q + f) by quadrant: forming q + f would drop the low bits of a small f.
    half_pi = 2 * np.arctan(np.longdouble(1))
    c, s = np.cos(half_pi * f), np.sin(half_pi * f)
    cosine = np.choose(quadrant, [c, -s, -c, s])
    sine = np.choose(quadrant, [s, c, -s, -c])
    pairs = np.stack([radius * cosine, radius * sine], axis=1)
    return (pairs.reshape(-1, columns.size)[:d] / np.sqrt(np.longdouble(d))).astype(np.float64)


def block_srht(d, m, seed, block=64, columns=None):
    columns = _columns(m, columns)
    blocks = -(-d // block)
    sizes = split(d, blocks)
    starts = np.cumsum(sizes) - sizes
    window, place = np.divmod(columns, 64 * block)
    height = np.minimum(64 * block, m - 64 * block * window)
    groups = -(-height // block)
    slab, b = np.divmod(place, groups)

    input_signs, rotation = words64(window, slab, STREAM_SLAB, seed)
    sign_in = _signs(input_signs >> b.astype(np.uint64))
    group = (b + bounded(rotation, groups)) % groups
    offset = bounded(words64(window, 0, STREAM_WINDOW, seed)[0], blocks)
    target = (offset + group) % blocks

    i = np.arange(block)[:, None]
    low, high = words64(window, group, STREAM_GROUP, seed)
    sign_out = _signs(np.where(i < 64, low, high) >> (i % 64).astype(np.uint64))
    hadamard = 1.0 - 2.0 * (np.bitwise_count(i & slab) % 2)
    values = sign_out * hadamard * sign_in / np.sqrt(sizes[target])

    S = np.zeros((d, columns.size))
    for k in range(blocks):
        mine = np.flatnonzero(target == k)
        S[starts[k] : starts[k] + sizes[k], mine] = values[: sizes[k], mine]
    return S


def sketch(distribution, d, m, seed, columns=None):
    """Dense S of any distribution, by the name of its class and its public parameters."""
    match type(distribution).__name__:
        case "Gaussian":
            return gaussian(d, m, seed, columns)
        case "SparseStack":
            return sparse_stack(d, m, seed, distribution.nnz, columns)
        case "CountSketch":
            return count_sketch(d, m, seed, columns)
        case "SparseSign":
            return sparse_sign(d, m, seed, distribution.nnz, columns)
        case "BlockSRHT":
            return block_srht(d, m, seed, distribution.block, columns)
        case name:
            raise NotImplementedError(f"no oracle for {name}")
