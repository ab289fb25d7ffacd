"""Butterfly factorization: dense products, LAPACK's singular values of blocks cut out one by one, bounds that always hold."""

import itertools
import math
import pickle

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from randla.structured import _splits
from randla.structured._splits import Cut, rank_one_splits, split, squared_norm, tail
from randla.structured.factorize import FactorizeStatus, butterfly_error, factorize
from randla.structured.pattern import Chain

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]

CHAINS = {
    "dyadic": Chain.dyadic(32),
    "dyadic of rank 2": Chain.dyadic(32, 2),
    "mixed radix": Chain.deformable([(3, 2), (2, 3), (2, 2), (4, 1)]),
    "tall": Chain.deformable([(4, 1), (3, 2), (3, 3)], 2),
    "wide, two rows": Chain.deformable([(2, 3), (2, 2), (2, 4), (2, 2)]),
    "monarch": Chain.monarch(24, 30, 4, 5, 3),
    "low rank": Chain.low_rank(20, 30, 4),
    "blocks": Chain([(2, 4, 2, 8), (4, 4, 3, 2)]),
    "blocks of two rows": Chain([(3, 2, 2, 12), (6, 2, 2, 6), (12, 2, 3, 3)]),
    "one factor": Chain([(2, 3, 5, 4)]),
    "redundant": Chain([(1, 2, 3, 6), (1, 18, 4, 1), (2, 2, 5, 1)]),
    "all redundant": Chain.dyadic(16, 8),
}


def noise(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0)).astype(dtype)


def dense(values):
    """The matrix of values (a, b, c, d), entry by entry from the definition."""
    a, b, c, d = values.shape
    out = np.zeros((a * b * d, a * c * d), values.dtype)
    for i, j, k, l in itertools.product(range(a), range(b), range(c), range(d)):
        out[i * b * d + j * d + l, i * c * d + k * d + l] = values[i, j, k, l]
    return out


def planted(chain, seed=0, dtype=np.float64):
    P = np.eye(chain.shape[0], dtype=dtype)
    for s, p in enumerate(chain):
        P = P @ dense(noise(tuple(p), dtype, seed + s))
    return P / np.linalg.norm(P)


def multiplied(result):
    """The product of the factors, from their values."""
    P = None
    for factor in result.product.factors:
        K = dense(np.asarray(factor.values).astype(np.result_type(factor.values.dtype, np.float64)))
        P = K if P is None else P @ K
    return P


def split_error(A, chain, s):
    """E_s by LAPACK, each block cut out with the supports of the columns of the two halves."""
    p, q = chain[:s].pattern, chain[s:].pattern
    left, right = p.to_dense(), q.to_dense()
    groups = {}
    for k in range(left.shape[1]):
        groups.setdefault((left[:, k].tobytes(), right[k].tobytes()), []).append(k)
    rest, energy = np.array(A), 0.0
    for members in groups.values():
        block = np.ix_(left[:, members[0]], right[members[0]])
        energy += (np.linalg.svd(A[block], compute_uv=False)[len(members) :] ** 2).sum()
        rest[block] = 0
    return np.sqrt(energy + np.linalg.norm(rest) ** 2)


def orders(chain):
    L = len(chain)
    shuffled = np.random.default_rng(L).permutation(np.arange(1, L))
    return ["left-to-right", "balanced", list(range(L - 1, 0, -1)), shuffled, shuffled[::-1].tolist()]


def check(A, chain, result, rounding=1e-12):
    """Everything that a result promises."""
    A = np.asarray(A).astype(np.result_type(A.dtype, np.float64))
    norm = np.linalg.norm(A)
    assert [tuple(f.values.shape) for f in result.product.factors] == [tuple(p) for p in chain]
    assert abs(np.linalg.norm(A - multiplied(result)) - result.error) <= rounding * norm
    assert result.relative_error == pytest.approx(result.error / norm)
    expected = [split_error(A, chain, s) for s in range(1, len(chain))]
    np.testing.assert_allclose(result.split_errors, expected, rtol=1e-9, atol=1e-13 * norm)
    assert result.lower_bound <= result.error
    assert result.lower_bound == pytest.approx(min(max(expected, default=result.outside), result.error), abs=1e-12 * norm)
    needed = {g.stop for g in chain.groups()} & set(range(1, len(chain)))
    assert set(result.discarded) == needed
    bounds = [expected[s - 1] for s in needed]
    assert all(lost <= e + 1e-13 * norm for lost, e in zip((result.discarded[s] for s in needed), bounds, strict=True))
    assert result.error <= max(sum(bounds), result.outside) + 1e-13 * norm
    if list(result.discarded) in (sorted(needed), sorted(needed, reverse=True)):
        energies = sum(x * x for x in result.discarded.values()) + result.outside**2
        assert abs(result.error**2 - energies) <= 1e-12 * norm**2
        assert result.error <= max(np.linalg.norm(bounds), result.outside) + 1e-13 * norm


@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_norms_of_all_lengths(dtype):
    for count in (0, 1, 4095, 4096, 4097, (1 << 17) - 1, (1 << 17) + 4100, 3 << 17):
        x = noise((count,), dtype)
        exact = math.fsum(value * value for value in x.view(x.real.dtype).astype(np.float64).tolist())
        assert squared_norm(x) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
def test_certificate_on_random_matrices(name, dtype):
    chain = CHAINS[name]
    A = noise(chain.shape, dtype)
    single = np.dtype(dtype).char in "fF"
    for order in orders(chain):
        result = factorize(A, chain, order=order)
        assert result.product.dtype == dtype
        check(A, chain, result, 1e-6 if single else 1e-12)
        if single:
            twin = factorize(A.astype(np.result_type(dtype, np.float64)), chain, order=order)
            assert result.error == pytest.approx(twin.error, rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
def test_split_errors_do_not_depend_on_how_many_blocks_are_taken_at_a_time(name, dtype, monkeypatch):
    chain = CHAINS[name]
    for A in (noise(chain.shape, dtype), planted(chain, 3, dtype), planted(chain, 3, dtype) + 1e-5 * noise(chain.shape, dtype)):
        expected = [split_error(A.astype(np.result_type(dtype, np.float64)), chain, s) for s in range(1, len(chain))]
        for numbers in (1, 50, 333, 1 << 17):
            monkeypatch.setattr(_splits, "_PIECE", numbers)
            for matrix in (A, A[::-1, ::-1].copy()[::-1, ::-1]):
                found = factorize(matrix, chain).split_errors
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14 * np.linalg.norm(A))


def test_lower_bound_is_not_above_the_nearest_product():
    # Where power steps end early the eigenvalues are too small by what the bound must not gain.
    for chain in (Chain.monarch(12, 20, 3, 4), Chain.monarch(64, 64, 8, 8), Chain.deformable([(3, 4), (4, 4), (3, 3)])):
        for seed in range(20):
            A = noise(chain.shape, seed=seed) + (0, 1, 3)[seed % 3]
            expected = np.array([split_error(A, chain, s) for s in range(1, len(chain))])
            assert (factorize(A, chain).split_errors <= expected * (1 + 2e-14)).all()


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", CHAINS)
def test_planted_products_are_recovered(name, dtype):
    chain = CHAINS[name]
    A = planted(chain, 3, dtype)
    for order in orders(chain):
        result = factorize(A, chain, order=order)
        assert result.status is FactorizeStatus.EXACT
        assert result.ratio == 1
        assert np.linalg.norm(A - multiplied(result)) <= 1e-13
        assert butterfly_error(A, chain) <= 1e-13


@pytest.mark.parametrize("order", ["left-to-right", "balanced"])
def test_hadamard_and_fourier_matrices(order):
    for n in (2, 8, 256):
        H = scipy.linalg.hadamard(n) if n > 1 else np.ones((1, 1))
        result = factorize(H, Chain.dyadic(n), order=order)
        assert np.abs(result.product.to_dense() - H).max() <= 1e-14 * n
        F = scipy.fft.fft(np.eye(n), axis=0)
        result = factorize(F, Chain.dyadic(n), order=order, permutation="bit-reversal")
        assert np.linalg.norm(result.to_dense() - F) <= 1e-14 * np.linalg.norm(F)
    # Without the permutation the DFT is no butterfly.
    assert factorize(F, Chain.dyadic(n), order=order).relative_error > 0.9


def test_mixed_radix_fourier_matrix():
    F = scipy.fft.fft(np.eye(60), axis=0)
    for radices in itertools.permutations([3, 4, 5]):
        # The digits of the column in reversed order.
        columns = np.arange(60).reshape(radices[::-1]).transpose().ravel()
        result = factorize(F, Chain.deformable([(p, p) for p in radices]), permutation=columns)
        assert np.linalg.norm(result.to_dense() - F) <= 1e-14 * np.linalg.norm(F)


LARGE = [pytest.param(n, marks=pytest.mark.slow) for n in (2048, 4096)]


@pytest.mark.parametrize("n", [128, 512, *LARGE])
def test_errors_stay_below_the_noise(n):
    rng = np.random.default_rng(n)
    H = scipy.linalg.hadamard(n).astype(np.float64)
    H /= n
    E = rng.standard_normal((n, n))
    E /= np.linalg.norm(E)
    for level in (0.01, 0.03, 0.1, 0.3) if n < 2048 else (0.1,):
        for order in ("left-to-right", "balanced"):
            result = factorize(H + level * E, Chain.dyadic(n), order=order)
            assert 0.8 * level <= result.error <= level
    if n <= 512:
        for rank in (2, 4):
            A = planted(Chain.dyadic(n, rank)) if n < 512 else H
            assert factorize(A + 0.03 * E, Chain.dyadic(n), rank=rank).error <= 0.03


@pytest.mark.parametrize("n", [1024, pytest.param(4096, marks=pytest.mark.slow)])
def test_large_planted_products(n):
    rng = np.random.default_rng(n)
    A = np.eye(n)
    for p in reversed(Chain.dyadic(n)):
        # Rotations: a product that neither grows nor vanishes.
        angle = rng.uniform(0, 2 * np.pi, (p.a, p.d, 1))
        x, y = A.reshape(p.a, 2, p.d, n).swapaxes(0, 1)
        x[...], y[...] = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    for order in ("left-to-right", "balanced"):
        result = factorize(A, Chain.dyadic(n), order=order)
        assert result.relative_error <= 1e-14
        x = rng.standard_normal(n)
        assert np.linalg.norm(result.product @ x - A @ x) <= 1e-13 * np.linalg.norm(x)


def badly_scaled(n, seed):
    """A dyadic product with a hidden change of scale between its factors, and one percent of noise."""
    rng = np.random.default_rng(seed)
    A = np.eye(n)
    for p in Chain.dyadic(n):
        A = A @ (dense(rng.standard_normal(tuple(p))) * 10 ** rng.uniform(-1.5, 1.5, n))
    E = rng.standard_normal((n, n))
    return A / np.linalg.norm(A) + 0.01 * E / np.linalg.norm(E)


def without_orthonormal_factors(A, chain):
    """From left to right with the singular values shared between both factors, as is usual."""
    T, parts = A[None, None], []
    for s in range(len(chain) - 1):
        cut = Cut.between(chain[s], chain[s + 1 :].pattern)
        U, sigma, V = np.linalg.svd(cut.blocks(T), full_matrices=False)
        root = np.sqrt(sigma[..., :1])
        parts.append(cut.left(U[..., :1] * root[..., None, :]))
        T = cut.right(root[..., None] * V[..., :1, :])
    P = np.eye(len(A))
    for part in [*parts, T]:
        P = P @ dense(part.transpose(0, 2, 3, 1))
    return np.linalg.norm(A - P)


@pytest.mark.parametrize("seed", range(3))
def test_badly_scaled_products(seed):
    chain = Chain.dyadic(64)
    A = badly_scaled(64, seed)
    for order in orders(chain):
        assert 0.009 <= factorize(A, chain, order=order).relative_error <= 0.0096
    assert without_orthonormal_factors(A, chain) >= 0.02


@pytest.mark.parametrize("n", [16, 64])
@pytest.mark.parametrize("level", [0, 1e-6, 1e-3, 1e-1])
def test_adversarial_matrices_stay_below_the_bounds(n, level):
    rng = np.random.default_rng(n)
    H = scipy.linalg.hadamard(n).astype(np.float64)
    chain, L = Chain.dyadic(n), n.bit_length() - 1
    for rows in (slice(1, None, 2), slice(0, n // 2), slice(3, None)):
        A = H.copy()
        A[rows] = 0
        A += level * rng.standard_normal((n, n))
        for order in orders(chain):
            result = factorize(A, chain, order=order)
            check(A, chain, result)
            assert result.error <= (2 ** (L - 1) - 1) * level * n + 1e-12 * n


def test_closest_product_is_found_where_it_is_known():
    # One split: Eckart and Young, block by block.
    A = noise((24, 30))
    for chain in (Chain.low_rank(24, 30, 3), Chain.monarch(24, 30, 4, 5, 2)):
        result = factorize(A, chain)
        assert result.ratio == pytest.approx(1)
        assert result.error == pytest.approx(split_error(A, chain, 1))
    s = np.linalg.svd(A, compute_uv=False)
    assert factorize(A, Chain.low_rank(24, 30, 3)).error == pytest.approx(np.linalg.norm(s[3:]))


def test_entries_outside_the_pattern_are_counted():
    chain = Chain([(2, 3, 5, 4)])
    A = noise(chain.shape)
    result = factorize(A, chain)
    mask = chain.pattern.to_dense()
    assert result.error == pytest.approx(np.linalg.norm(A[~mask]))
    assert result.lower_bound == result.error == result.outside
    np.testing.assert_array_equal(result.product.to_dense(), A * mask)
    assert factorize(A * mask, chain).status is FactorizeStatus.EXACT


def test_rank_is_that_of_the_chain():
    A = noise((32, 32))
    errors = [factorize(A, Chain.dyadic(32), rank=r).error for r in (1, 2, 3, 8, [2, 4, 4, 2])]
    assert errors[0] > errors[1] > errors[2] > errors[3] == pytest.approx(0, abs=1e-13)
    assert errors[4] == pytest.approx(factorize(A, Chain.dyadic(32, [2, 4, 4, 2])).error)
    assert butterfly_error(A, Chain.dyadic(32), rank=2) == pytest.approx(factorize(A, Chain.dyadic(32, 2)).lower_bound)


def test_small_singular_values_of_exact_blocks_are_kept():
    # The Gram matrix alone would lose what is below the root of the rounding unit.
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((24, 3)))[0] for _ in range(2))
    A = U @ np.diag([1, 1e-5, 1e-10]) @ V.T
    for order in ("left-to-right", "balanced"):
        assert factorize(A, Chain.low_rank(24, 24, 3), order=order).relative_error <= 1e-14
    assert factorize(A, Chain.low_rank(24, 24, 2)).relative_error == pytest.approx(1e-10, rel=1e-4)


def test_first_singular_vector_is_not_taken_for_another():
    # The largest diagonal entry of the Gram matrix belongs to the second singular value.
    A = np.zeros((8, 8))
    A[0, 0] = 1
    A[1:3, 1:4] = 0.55
    result = factorize(A, Chain.low_rank(8, 8, 1))
    assert result.error == pytest.approx(np.linalg.svd(A, compute_uv=False)[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_near_the_limits_of_the_dtype(dtype):
    chain = Chain.dyadic(16)
    A = noise((16, 16), dtype)
    expected = factorize(A, chain)
    real = np.finfo(dtype)
    for power in (real.maxexp - 6, real.minexp + 10, 40):
        unit = 2.0**power
        B = A * real.dtype.type(unit)
        result = factorize(B, chain)
        assert result.error / unit == pytest.approx(expected.error, rel=1e-6 if real.bits == 32 else 1e-12)
        parts = [np.asarray(f.values).astype(np.complex128) for f in result.product.factors]
        parts[0] = parts[0] / unit
        P = np.linalg.multi_dot([dense(x) for x in parts])
        assert np.linalg.norm(A - P) == pytest.approx(expected.error, rel=1e-5)
        assert butterfly_error(B, chain) / unit == pytest.approx(expected.lower_bound, rel=1e-5)


@pytest.mark.parametrize("name", ["dyadic", "tall", "blocks"])
def test_zero_matrix_and_zero_blocks(name):
    chain = CHAINS[name]
    result = factorize(np.zeros(chain.shape), chain)
    assert (result.error, result.relative_error, result.lower_bound, result.ratio) == (0, 0, 0, 1)
    assert result.status is FactorizeStatus.EXACT
    A = noise(chain.shape)
    A[::2] = 0
    for order in orders(chain):
        check(A, chain, factorize(A, chain, order=order))


def test_memory_layout_and_integers_do_not_matter():
    A = np.random.default_rng(0).integers(-9, 9, (32, 32))
    chain = Chain.dyadic(32)
    expected = factorize(A.astype(np.float64), chain)
    for B in (A, np.asfortranarray(A), A[::-1][::-1], A.tolist()):
        result = factorize(B, chain)
        assert result.error == expected.error
        for f, g in zip(result.product.factors, expected.product.factors, strict=True):
            np.testing.assert_array_equal(f.values, g.values)


def test_given_permutations():
    A = noise((16, 16))
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(16), rng.permutation(16)
    chain = Chain.dyadic(16)
    for permutation, B in (
        (columns, A[:, columns]),
        ((rows, columns), A[rows][:, columns]),
        ((rows, None), A[rows]),
        ((None, columns.tolist()), A[:, columns]),
    ):
        result = factorize(A, chain, permutation=permutation)
        assert result.error == factorize(B, chain).error
        assert np.linalg.norm(A - result.to_dense()) == pytest.approx(result.error)
        assert butterfly_error(A, chain, permutation=permutation) == pytest.approx(result.lower_bound)


def test_lossless_cuts_of_redundant_groups():
    for chain in (Chain.dyadic(16, 8), Chain([(1, 2, 3, 6), (1, 18, 4, 1), (2, 2, 5, 1)]), Chain.dyadic(32, [2, 4, 4, 2])):
        for g in chain.groups():
            part, sub = noise((chain[g.start : g.stop].pattern.a, 1, 1, 1)), chain[g.start : g.stop]
            p = sub.pattern
            part = noise((p.a, p.d, p.b, p.c))
            for s in range(1, len(sub)):
                cut = Cut.between(sub[s - 1], sub[s:].pattern)
                assert cut.lossless
                assert tail(part, cut) == 0
                X, Y, lost = split(part, cut, "right")
                assert lost == 0
                np.testing.assert_array_equal(cut.join(X, Y), part)
                part = Y


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_closed_form_for_two_rows_is_the_singular_value_decomposition(dtype):
    T = noise((3, 8, 12), dtype)
    T[0, 0] = 0
    T[1, 0] *= 1e-9
    (values,), rest, (energy,) = rank_one_splits(T, [3])
    assert values.shape == (3, 2, 3, 4)
    assert rest.shape == (9, 4, 4)
    blocks = T.reshape(3, 2, 4, 3, 4).transpose(0, 3, 2, 1, 4)
    U, sigma, _ = np.linalg.svd(blocks)
    assert energy == pytest.approx((sigma[..., 1] ** 2).sum())
    u = values.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(np.abs(np.einsum("ikjx,ikjx->ikj", u.conj(), U[..., 0])), 1, rtol=1e-13)
    np.testing.assert_allclose(rest.reshape(3, 3, 4, 4), np.einsum("ikjx,ikjxq->ikjq", u.conj(), blocks), atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "widths"),
    [((1, 64, 64), [2] * 5), ((3, 16, 24), [2, 3, 2]), ((1, 8, 35), [5]), ((2, 32, 72), [1, 2, 4]), ((1, 256, 1024), [2] * 7)],
)
def test_levels_of_two_rows_multiply_to_what_their_energies_say(shape, widths, dtype):
    T = noise(shape, dtype)
    eps = 1e-6 if np.dtype(dtype).char in "fF" else 1e-14
    values, rest, energies = rank_one_splits(T, widths)
    step, a = T, shape[0]
    for v, c1, energy in zip(values, widths, energies, strict=True):
        assert v.shape == (a, 2, c1, step.shape[1] // 2)
        np.testing.assert_allclose((np.abs(v) ** 2).sum(axis=1), 1, rtol=10 * eps)
        # One level at a time gives the same.
        (alone,), step, (lost,) = rank_one_splits(step, [c1])
        np.testing.assert_allclose(v, alone, atol=0 if eps < 1e-6 else 1e-3)
        assert energy == pytest.approx(lost, rel=100 * eps)
        a *= c1
    assert rest.shape == (a, shape[1] >> len(widths), shape[2] * shape[0] // a)
    P = rest
    for v, c1 in zip(reversed(values), reversed(widths), strict=True):
        count, b, c = P.shape
        P = np.einsum("ijkd,ikdx->ijdkx", v, P.reshape(count // c1, c1, b, c)).reshape(count // c1, 2 * b, c1 * c)
    assert abs(np.linalg.norm(T - P) ** 2 - sum(energies)) <= 10 * eps * np.linalg.norm(T) ** 2


def test_pickles_carry_the_certificate_and_not_the_matrix():
    A = noise((256, 256))
    result = factorize(A, Chain.dyadic(256))
    data = pickle.dumps(result)
    assert len(data) < A.nbytes / 2
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy.split_errors, result.split_errors)
    assert copy.ratio == result.ratio
    assert copy.success
    assert "error" in repr(copy)
    assert copy.message == FactorizeStatus.APPROXIMATE.value


BAD = Chain([(2, 2, 2, 2), (1, 8, 8, 1)])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A: factorize(A[0], Chain.dyadic(8)), ValueError, "A must have 2 dimensions; got 1"),
        (lambda A: factorize(A, "dyadic"), TypeError, "chain must be a Chain; got str"),
        (lambda A: factorize(A, Chain.dyadic(16)), ValueError, r"chain must have the shape \(8, 8\) of A; got \(16, 16\)"),
        (lambda A: factorize(A, BAD), ValueError, r"chain must be chainable; got .*\(2, 2, 2, 2\) and .*\(1, 8, 8, 1\): a = 2"),
        (lambda A: butterfly_error(A, BAD), ValueError, "chain must be chainable"),
        (lambda A: factorize(A, Chain.kaleidoscope(8)), ValueError, "chain must be chainable"),
        (lambda A: factorize(A, Chain.dyadic(8), rank=0), ValueError, "rank must be at least 1"),
        (lambda A: factorize(A, Chain.dyadic(8), order="right"), ValueError, "order must be 'left-to-right', 'balanced' or"),
        (lambda A: factorize(A, Chain.dyadic(8), order=3), TypeError, "order must be a string or a sequence of integers; got"),
        (lambda A: factorize(A, Chain.dyadic(8), order=[1, 1]), ValueError, r"order must be a permutation of 1, ..., 2"),
        (lambda A: factorize(A, Chain.dyadic(8), order=[1.5, 2]), TypeError, r"order\[0\] must be an integer"),
        (lambda A: factorize(A / np.eye(8), Chain.dyadic(8)), ValueError, "A must be finite; got 56 NaN"),
        (lambda A: butterfly_error(A * np.inf, Chain.dyadic(8)), ValueError, "A must be finite; got 64 NaN"),
        (lambda A: factorize(A.astype("U"), Chain.dyadic(8)), TypeError, "A must have dtype"),
        (lambda A: factorize(A, Chain.dyadic(8), rng="x"), TypeError, "rng must be"),
    ],
)
def test_errors_name_the_argument_and_the_reason(call, error, message):
    with np.errstate(all="ignore"), pytest.raises(error, match=message):
        call(noise((8, 8)))
