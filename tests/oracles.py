"""A second implementation of docs/definitions.md in plain NumPy, written from that page alone.

Every function returns the dense matrix of a sketch. `columns` picks columns by index, so that sketches far too wide to
hold can be checked where 64-bit indices matter.
"""

import numpy as np

STREAM_GAUSSIAN, STREAM_RADEMACHER, STREAM_STACK, STREAM_SIGN = 1, 2, 3, 4
STREAM_SLAB, STREAM_GROUP, STREAM_WINDOW = 5, 6, 7
STREAM_TRANSFORM_SIGNS, STREAM_TRANSFORM_ROWS, STREAM_LESS, STREAM_ROWS = 8, 9, 10, 11

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


def rademacher(d, m, seed, columns=None):
    columns = _columns(m, columns)
    i = np.arange(d)[:, None]
    low, high = words64(columns, i // 128, STREAM_RADEMACHER, seed)
    bit = (np.where(i % 128 < 64, low, high) >> (i % 64).astype(np.uint64)) & ODD
    return np.where(bit, -1.0, 1.0) / np.sqrt(d)


def less_uniform_entries(d, m, seed, nnz=64):
    """(row, column, value) of every entry, row by row with a set, as the definition says it."""
    z = min(nnz, m)
    entries = []
    for i in range(d):
        words = _nonzero_words(np.array([i]), z, STREAM_LESS, seed)[:, 0]
        taken = set()
        for t, word in enumerate(words):
            c = (int(word) * (m - z + t + 1)) >> 64
            c = m - z + t if c in taken else c
            taken.add(c)
            entries.append((i, c, (-1.0 if int(word) & 1 else 1.0) * np.sqrt(m / (z * d))))
    return entries


def row_sample_entries(d, m, seed, probabilities=None):
    word, _ = words64(np.arange(d), 0, STREAM_ROWS, seed)
    uniform = (word >> np.uint64(11)).astype(float) * 2.0**-53
    if probabilities is None:
        return [(i, min(int(np.floor(u * m)), m - 1), np.sqrt(m / d)) for i, u in enumerate(uniform) if m]
    p = np.asarray(probabilities, float) / np.max(probabilities)
    p = p / p.sum()
    sums = np.cumsum(p)
    drawn = [int(np.flatnonzero(sums > u * sums[-1])[0]) for u in uniform]
    return [(i, j, 1 / np.sqrt(d * p[j])) for i, j in enumerate(drawn)]


def _listed(entries, d, m, columns):
    columns = _columns(m, columns)
    place = {int(c): k for k, c in enumerate(columns)}
    S = np.zeros((d, columns.size))
    for i, c, value in entries:
        if c in place:
            S[i, place[c]] = value
    return S


def less_uniform(d, m, seed, nnz=64, columns=None):
    return _listed(less_uniform_entries(d, m, seed, nnz), d, m, columns)


def row_sample(d, m, seed, probabilities=None, columns=None):
    return _listed(row_sample_entries(d, m, seed, probabilities), d, m, columns)


def hadamard(X):
    """The Walsh-Hadamard transform of the columns of X, by factors of at most 64 x 64; exact for whole numbers."""
    n = len(X)
    factor = min(n, 64)
    i = np.arange(factor)
    H = 1 - 2 * (np.bitwise_count(i[:, None] & i).astype(int) % 2)
    # The low bits of the index are mixed among neighbours, the others among what is left.
    Y = H.astype(X.dtype) @ X.reshape(n // factor, factor, -1)
    return (Y if n == factor else hadamard(Y.reshape(n // factor, -1))).reshape(X.shape)


def cosine(X):
    """The transposed orthonormal DCT-II of the columns of X from its definition, some rows at a time."""
    n = len(X)
    weight = np.full(n, np.sqrt(2 / n))
    weight[0] = 1 / np.sqrt(n)
    i = np.arange(n)
    parts = np.array_split(i, -(-n // 1024))
    # All arguments are multiples of pi / 2n: reduced to one period in whole numbers they lose no digits.
    period = np.cos(np.pi / (2 * n) * np.arange(4 * n))
    return np.vstack([period[np.outer(2 * j + 1, i) % (4 * n)] @ (weight[:, None] * X) for j in parts])


def kept_rows(d, n, seed):
    """The rows that an SRTT keeps, by shuffles of whole lists."""
    kept, shuffled = [], []
    for i in range(d):
        at = i % n
        if at == 0:
            shuffled = list(range(n))
        other = at + ((int(words64(np.array([i]), 0, STREAM_TRANSFORM_ROWS, seed)[0][0]) * (n - at)) >> 64)
        shuffled[at], shuffled[other] = shuffled[other], shuffled[at]
        kept.append(shuffled[at])
    return kept


def srtt(d, m, seed, transform="hadamard", rounds=2, columns=None):
    """Row by row: the transposed rounds of d unit vectors. Hadamard's are whole numbers until the last step, and exact."""
    n = max(m, 1) if transform == "dct" else 1 << max(m - 1, 0).bit_length()
    X = np.zeros((n, d))
    X[kept_rows(d, n, seed), np.arange(d)] = 1
    j = np.arange(n)
    for k in reversed(range(rounds)):
        low, high = words64(j // 128, k, STREAM_TRANSFORM_SIGNS, seed)
        signs = _signs(np.where(j % 128 < 64, low, high) >> (j % 64).astype(np.uint64))
        X = signs[:, None] * (cosine(X) if transform == "dct" else hadamard(X))
    scale = n / d if transform == "dct" else float(n) ** (1 - rounds) / d
    return np.sqrt(scale) * X[_columns(m, columns)].T


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
    if _columns(m, columns).size == 0:
        return np.zeros((d, 0))
    match type(distribution).__name__:
        case "Gaussian":
            return gaussian(d, m, seed, columns)
        case "Rademacher":
            return rademacher(d, m, seed, columns)
        case "LessUniform":
            return less_uniform(d, m, seed, distribution.nnz, columns)
        case "RowSample":
            return row_sample(d, m, seed, distribution.probabilities, columns)
        case "SRTT":
            return srtt(d, m, seed, distribution.transform, distribution.rounds, columns)
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
