"""Named transforms: equal to those of scipy, on the chains they promise, in every dtype, and refusing what they are not."""

import pickle

import mpmath
import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from randla.structured._stages import radices, roots
from randla.structured.named import circulant, dct, dft, dst, hadamard, idft, kaleidoscope, toeplitz
from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain

# Every small order, primes, products of different primes, and orders whose odd part is large.
ORDERS = [*range(1, 65), 97, 120, 128, 210, 251, 360]
LARGE = [1024, 1536, 4096]
NORMS = [None, "ortho"]
TYPES = [2, 3, 4]
TOLERANCE = {"f": 1e-6, "d": 1e-14, "F": 1e-6, "D": 1e-14}


def noise(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def assert_equal(product, expected, dtype):
    """Column by column, within the tolerance of the dtype of the largest norm of a column."""
    got = product.to_dense()
    assert isinstance(product, Product)
    assert product.dtype == got.dtype == dtype
    assert got.shape == product.shape == expected.shape
    error = np.linalg.norm(got - expected, axis=0)
    assert (error <= TOLERANCE[np.dtype(dtype).char] * np.linalg.norm(expected, axis=0).max()).all()


def assert_applies(product, function, dtype):
    """On a real and a complex batch, in both layouts, and by the conjugate of the adjoint's transpose."""
    for kind in (np.float64, np.complex128):
        X = noise((product.shape[1], 3), kind)
        expected = function(X)
        bound = TOLERANCE[np.dtype(dtype).char] * np.linalg.norm(expected)
        assert np.linalg.norm(product @ X - expected) <= bound
        assert np.linalg.norm(product.apply(X.T, axis=-1) - expected.T) <= bound
        assert np.linalg.norm(product.H.T.conj() @ X - expected) <= bound


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12, 97, 4096 * 8])
def test_roots_of_unity_are_those_of_mpmath(n):
    k = np.unique(np.concatenate([np.arange(-min(n, 60), 2 * min(n, 60)), np.array([n // 8, n // 4, n - 1, n * 10**9 + 1])]))
    with mpmath.workdps(40):
        exact = np.array([complex(mpmath.expjpi(mpmath.mpf(-2 * int(j)) / n)) for j in k])
    assert np.abs(roots(k, n) - exact).max() <= 2.3e-16


def test_quarter_turns_are_exact():
    np.testing.assert_array_equal(roots(np.arange(-8, 8), 4), [1, -1j, -1, 1j] * 4)
    np.testing.assert_array_equal(dft(4).to_dense(), [[1, 1, 1, 1], [1, -1j, -1, 1j], [1, -1, 1, -1], [1, 1j, -1, -1j]])


@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize("real", [False, True])
def test_radices_multiply_to_n_and_leave_no_two_at_the_ends_of_real_chains(n, real):
    p = radices(n, real=real)
    assert np.prod(p) == n
    if real:
        assert not Chain.deformable([(q, q) for q in p], 2).redundant


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hadamard_equals_scipy(n, dtype):
    H = scipy.linalg.hadamard(n)
    np.testing.assert_array_equal(hadamard(n, dtype=dtype).to_dense(), H.astype(dtype))
    assert_equal(hadamard(n, normalize=True, dtype=dtype), H / np.sqrt(n), dtype)
    assert hadamard(n).chain == Chain.dyadic(n)


@pytest.mark.parametrize("n", ORDERS)
def test_fourier_transforms_equal_scipy(n):
    eye = np.eye(n)
    assert_equal(dft(n), scipy.fft.fft(eye, axis=0), np.complex128)
    assert_equal(idft(n), scipy.fft.ifft(eye, axis=0), np.complex128)
    assert_equal(dft(n, normalize=True), scipy.fft.fft(eye, axis=0, norm="ortho"), np.complex128)
    assert_equal(idft(n, normalize=True), scipy.fft.ifft(eye, axis=0, norm="ortho"), np.complex128)


@pytest.mark.parametrize("n", LARGE)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_long_fourier_transforms_equal_scipy(n, dtype):
    assert_applies(dft(n, dtype=dtype), lambda X: scipy.fft.fft(X, axis=0), dtype)
    assert_applies(idft(n, dtype=dtype), lambda X: scipy.fft.ifft(X, axis=0), dtype)
    assert_applies(dft(n, normalize=True, dtype=dtype), lambda X: scipy.fft.fft(X, axis=0, norm="ortho"), dtype)


@pytest.mark.parametrize("n", [2, 16, 1024])
def test_powers_of_two_are_dyadic_with_bit_reversed_columns(n):
    bits = n.bit_length() - 1
    F = dft(n)
    assert F.chain == Chain.dyadic(n)
    assert F.n_params == hadamard(n).n_params == 2 * n * bits
    assert F.rows is None
    np.testing.assert_array_equal(F.cols, [int(f"{j:0{bits}b}"[::-1], 2) for j in range(n)])


def test_other_orders_have_a_factor_for_each_prime():
    assert dft(60).chain == Chain.deformable([(2, 2), (2, 2), (3, 3), (5, 5)])
    assert dft(13).chain == Chain([(1, 13, 13, 1)])
    np.testing.assert_array_equal(dft(6).cols, [0, 3, 1, 4, 2, 5])


@pytest.mark.parametrize("n", [1, 7, 12, 30, 64])
def test_inverse_pairs_are_one_product(n):
    for both in (idft(n) @ dft(n), dft(n) @ idft(n)):
        assert len(both.factors) == 2 * len(dft(n).factors)
        assert_equal(both, np.eye(n), np.complex128)
    assert_equal(dft(n).inverse(), idft(n).to_dense(), np.complex128)
    assert_equal(dft(n, normalize=True).H, idft(n, normalize=True).to_dense(), np.complex128)
    for factor in dft(n, normalize=True).factors:
        assert_equal(Product([factor.H, factor]), np.eye(n), np.complex128)


@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_cosine_and_sine_transforms_equal_scipy(n, type, norm):
    assert_equal(dct(n, type, norm), scipy.fft.dct(np.eye(n), type, axis=0, norm=norm), np.float64)
    assert_equal(dst(n, type, norm), scipy.fft.dst(np.eye(n), type, axis=0, norm=norm), np.float64)


@pytest.mark.parametrize("n", LARGE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("type", "norm"), [(2, None), (2, "ortho"), (3, None), (4, "ortho")])
def test_long_cosine_and_sine_transforms_equal_scipy(n, dtype, type, norm):
    for transform, name in ((dct, "dct"), (dst, "dst")):
        reference = getattr(scipy.fft, name)
        assert_applies(transform(n, type, norm, dtype=dtype), lambda X, f=reference: f(X, type, axis=0, norm=norm), dtype)


@pytest.mark.parametrize("n", [1, 6, 13, 64])
@pytest.mark.parametrize("transform", [dct, dst])
def test_orthonormal_types_are_inverse_to_their_transposes(n, transform):
    for type in TYPES:
        C = transform(n, type, "ortho")
        inverse = transform(n, {2: 3, 3: 2, 4: 4}[type], "ortho")
        assert_equal(C.T, inverse.to_dense(), np.float64)
        assert np.allclose(C.T @ (C @ np.eye(n)), np.eye(n), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [8, 16, 32, 128, 1024, 4096])
def test_cosine_transforms_have_real_chains_of_inner_rank_two(n):
    C = dct(n)
    assert C.chain.chainable
    assert not C.chain.redundant
    assert set(C.chain.inner_ranks) <= {2}
    assert C.n_params == 8 * n * (n.bit_length() - 3) < 8 * n * (n.bit_length() - 1)
    assert all(factor.dtype == np.float64 for factor in C.factors)
    assert dst(n, 4).chain == dct(n, 2).chain == dct(n, 3).chain.T


@pytest.mark.parametrize("n", [*ORDERS, 499])
def test_circulant_and_toeplitz_matrices_equal_scipy(n):
    for dtype in (np.float64, np.complex128):
        c, r = noise(n, dtype), noise(n // 2 + 1, dtype, seed=1)
        assert_equal(circulant(c), scipy.linalg.circulant(c), dtype)
        assert_equal(toeplitz(c), scipy.linalg.toeplitz(c), dtype)
        assert_equal(toeplitz(c, r), scipy.linalg.toeplitz(c, r), dtype)
        assert_equal(toeplitz(r, c), scipy.linalg.toeplitz(r, c), dtype)


@pytest.mark.parametrize("n", [*LARGE, 1021])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_long_circulant_matrices_convolve(n, dtype):
    c = noise(n, dtype)
    wide = c.astype(np.complex128)[:, None]
    C = circulant(c)
    assert C.dtype == dtype
    assert_applies(C, lambda X: scipy.fft.ifft(scipy.fft.fft(wide, axis=0) * scipy.fft.fft(X, axis=0), axis=0), dtype)
    assert C.n_params < n * n / 2


@pytest.mark.parametrize(("m", "n"), [(1000, 700), (3, 2000), (2000, 1)])
def test_rectangular_toeplitz_matrices_equal_scipy(m, n):
    c, r = noise(m), noise(n, seed=1)
    T = scipy.linalg.toeplitz(c, r)
    assert_applies(toeplitz(c, r), lambda X: T @ X, np.float64)
    assert_applies(toeplitz(c, r).T, lambda X: T.T @ X, np.float64)


def test_dtypes_of_circulant_and_toeplitz_matrices_are_those_of_their_entries():
    assert circulant([1, 2, 3]).dtype == np.float64
    assert toeplitz(np.ones(3, np.float32), np.ones(2, np.complex64)).dtype == np.complex64
    assert toeplitz(np.ones(300, np.float32), np.ones(200)).dtype == np.float64
    X = noise((300, 2), np.float32)
    assert (circulant(noise(300, np.float32)) @ X).dtype == np.float32


def test_real_circulant_matrices_keep_real_vectors_real_and_complex_ones_have_no_permutation():
    real, plain = circulant(noise(1024)), circulant(noise(1024, np.complex128))
    assert (real @ noise(1024)).dtype == np.float64
    assert all(factor.dtype == np.float64 for factor in real.factors)
    assert plain.is_plain
    assert real.is_plain
    assert plain.n_params == 4 * 1024 * 9
    assert 4 * plain.n_params > real.n_params


@pytest.mark.parametrize("n", [5, 96, 256])
def test_complex_circulant_matrices_are_solved(n):
    c = noise(n, np.complex128)
    c[0] += 3 * np.sqrt(n)
    b = noise(n)
    expected = scipy.linalg.solve_circulant(c, b)
    assert np.linalg.norm(circulant(c).solve(b) - expected) <= 1e-13 * np.linalg.norm(expected)


def test_entries_near_the_largest_number_are_kept_or_refused():
    c = np.zeros(1024)
    c[3] = 1e307
    x = np.zeros(1024)
    x[1000] = 1
    assert np.allclose(circulant(c) @ x, np.roll(c, 1000), rtol=0, atol=1e293)
    big = np.full(1024, np.finfo(np.float32).max, np.float32)
    assert np.allclose(circulant(big) @ np.eye(1, 1024, 5, np.float32)[0], big, rtol=1e-6)
    # Moduli are sqrt(2) times the largest number; every fourth phase is that of one column of the transform up to 22.5 degrees.
    phases = np.tile(np.repeat([1 + 1j, -1 + 1j, -1 - 1j, 1 - 1j], 8), 32)
    for dtype in (np.complex64, np.complex128):
        huge = (phases * np.finfo(dtype).max).astype(dtype)
        with pytest.raises(ValueError, match="the Fourier transform of c / n must be finite"):
            circulant(huge)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize(("n", "width"), [(1, 1), (2, 1), (16, 2), (64, 1)])
def test_kaleidoscopes_are_orthogonal_and_replay(n, width, dtype):
    K = kaleidoscope(n, width, dtype, rng=np.random.default_rng(3))
    assert K.chain == Chain.kaleidoscope(n, width)
    assert K.dtype == dtype
    tolerance = 1e-6 if np.dtype(dtype).char in "fF" else 2e-15
    for factor in K.factors:
        Q = factor.blocks
        assert np.abs(Q.conj().swapaxes(-1, -2) @ Q - np.eye(Q.shape[-1])).max() <= tolerance
    assert np.abs(K.to_dense().conj().T @ K.to_dense() - np.eye(n)).max() <= 10 * tolerance
    again = kaleidoscope(n, width, dtype, rng=K.seed)
    assert again.seed == K.seed
    np.testing.assert_array_equal(again.to_dense(), K.to_dense())
    assert pickle.loads(pickle.dumps(K)).seed == K.seed


def test_kaleidoscopes_of_other_seeds_and_dtypes():
    K = kaleidoscope(16, rng=0)
    assert np.abs(K.to_dense() - kaleidoscope(16, rng=1).to_dense()).max() > 0.1
    np.testing.assert_array_equal(
        kaleidoscope(16, dtype=np.float32, rng=0).factors[0].values, K.factors[0].values.astype(np.float32)
    )


def test_blocks_of_kaleidoscopes_are_uniform():
    # Entries of a Haar matrix of order 2 have mean 0; x is a cosine of a uniform angle, E x^4 = 3/8; |z|^2 is uniform.
    real = kaleidoscope(4096, rng=5).factors[0].values.ravel()
    assert abs(real.mean()) < 0.05
    assert abs((real**4).mean() - 3 / 8) < 0.02
    complex_ = kaleidoscope(4096, dtype=np.complex128, rng=5).factors[0].values[:, 0, 0].ravel()
    assert abs(complex_.mean()) < 0.08
    assert abs((np.abs(complex_) ** 4).mean() - 1 / 3) < 0.03
    signs = np.sign(np.linalg.det(kaleidoscope(4096, rng=5).factors[0].blocks))
    assert abs(signs.mean()) < 0.1


def test_given_factors_make_a_kaleidoscope():
    B = hadamard(16, normalize=True)
    K = B @ B.H
    assert K.chain == Chain.kaleidoscope(16)
    assert_equal(K, np.eye(16), np.float64)
    values = [noise(tuple(p), seed=i) for i, p in enumerate(Chain.kaleidoscope(8))]
    expected = np.linalg.multi_dot([KroneckerSparse(v).to_dense() for v in values])
    assert_equal(Product([KroneckerSparse(v) for v in values]), expected, np.float64)


@pytest.mark.parametrize("transform", [hadamard, dft, idft, dct, dst, kaleidoscope])
def test_orders_that_are_none_are_refused(transform):
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        transform(0)
    with pytest.raises(TypeError, match=r"n must be an integer; got 4\.0"):
        transform(4.0)
    with pytest.raises(TypeError, match="n must be an integer; got True"):
        transform(True)


@pytest.mark.parametrize("transform", [hadamard, kaleidoscope])
def test_orders_that_are_no_powers_of_two_are_refused(transform):
    with pytest.raises(ValueError, match="n must be a power of two; got 12"):
        transform(12)


@pytest.mark.parametrize(
    ("transform", "dtype", "needed"),
    [
        (hadamard, np.complex128, "float32 or float64"),
        (dct, np.int64, "float32 or float64"),
        (dst, None, "float32 or float64"),
        (dft, np.float64, "complex64 or complex128"),
        (idft, "no dtype", "complex64 or complex128"),
        (kaleidoscope, np.float16, "float32 or float64 or complex64 or complex128"),
    ],
)
def test_dtypes_that_are_not_supported_are_refused(transform, dtype, needed):
    with pytest.raises(TypeError, match=f"dtype must be {needed}; got "):
        transform(4, dtype=dtype)


@pytest.mark.parametrize("transform", [dct, dst])
def test_types_and_norms_that_do_not_exist_are_refused(transform):
    with pytest.raises(ValueError, match="type must be between 2 and 4; got 1"):
        transform(4, 1)
    with pytest.raises(ValueError, match="norm must be None or \"ortho\"; got 'forward'"):
        transform(4, norm="forward")


@pytest.mark.parametrize(
    ("call", "name"), [(circulant, "c"), (toeplitz, "c"), (lambda r: toeplitz(np.ones(3), r), "r")], ids=["circulant", "c", "r"]
)
def test_vectors_that_are_none_are_refused(call, name):
    with pytest.raises(ValueError, match=rf"{name} must be a vector with entries; got shape \(0,\)"):
        call([])
    with pytest.raises(ValueError, match=rf"{name} must be a vector with entries; got shape \(2, 2\)"):
        call(np.ones((2, 2)))
    with pytest.raises(ValueError, match=f"{name} must be finite; got 2 NaN or infinite of 3 entries"):
        call([1, np.nan, np.inf])
    with pytest.raises(TypeError, match=f"{name} must have dtype"):
        call(["a"])


def test_kaleidoscopes_refuse_widths_and_seeds():
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        kaleidoscope(4, 0)
    with pytest.raises(TypeError, match="rng must be"):
        kaleidoscope(4, rng="seed")
