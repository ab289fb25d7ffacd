"""Inverses and determinants of products against LAPACK, gradients against dense products, differences and complex steps."""

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
from product_oracles import CHAINS, DTYPES, dense, hadamard, product, random, random_product
from scipy.linalg import LinAlgWarning

from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain

SQUARE = {
    "dyadic": Chain.dyadic(32),
    "transposed": Chain.dyadic(32).T,
    "kaleidoscope": Chain.kaleidoscope(16),
    "blocks": Chain([(3, 4, 4, 2), (2, 3, 3, 4), (1, 24, 24, 1)]),
    "diagonals": Chain([(1, 1, 1, 24), (4, 3, 3, 2), (24, 1, 1, 1)]),
}
VALUES = np.eye(2)[None, :, :, None] * np.ones((2, 1, 1, 3))  # the identity of size 12
SINGULAR = VALUES.copy()
SINGULAR[1, :, :, 2] = 1


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=SQUARE)
def square(request):
    return SQUARE[request.param]


def well_conditioned(chain, dtype, seed=0):
    """Random orthogonal blocks."""
    rng = np.random.default_rng(seed)
    factors = []
    for a, b, c, d in chain:
        blocks = np.linalg.qr(random((a, d, b, c), np.result_type(dtype, np.float64), rng))[0]
        factors.append(KroneckerSparse(blocks.transpose(0, 2, 3, 1).astype(dtype)))
    return Product(factors)


def arranged(P, seed=1):
    """P, and P with rows and columns in other orders."""
    rng = np.random.default_rng(seed)
    n = P.shape[0]
    yield P
    yield Product(P.factors, rows=rng.permutation(n))
    yield Product(P.factors, rows=rng.permutation(n), cols=rng.permutation(n))


def test_solutions_and_inverses_are_those_of_lapack(square, dtype):
    rng, eps = np.random.default_rng(2), np.finfo(dtype).eps
    for P in arranged(well_conditioned(square, dtype)):
        M, n = product(P).astype(np.result_type(dtype, np.float64)), P.shape[0]
        for shape in ((n,), (n, 1), (n, 7), (n, 0)):
            B = random(shape, dtype, rng)
            X = P.solve(B)
            assert X.dtype == dtype
            np.testing.assert_allclose(X, np.linalg.solve(M, B), rtol=0, atol=100 * eps)
        np.testing.assert_allclose(P.solve(np.asfortranarray(B)), P.solve(B), rtol=0, atol=0)
        inverse = P.inverse()
        assert isinstance(inverse, Product)
        assert inverse.dtype == dtype
        assert inverse.n_params == P.n_params
        np.testing.assert_allclose(inverse.to_dense(), np.linalg.inv(M), rtol=0, atol=100 * eps)
        assert abs(P.logabsdet() - np.linalg.slogdet(M)[1]) < 300 * eps
        assert abs(inverse.logabsdet() + P.logabsdet()) < 300 * eps


def test_determinants_of_other_sizes(square, dtype):
    P = random_product(square, dtype)
    wide = np.result_type(dtype, np.float64)
    expected = sum(np.linalg.slogdet(dense(K).astype(wide))[1] for K in P.factors)
    assert P.logabsdet() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    scaled = Product([KroneckerSparse(factor.values * dtype.type(2.0**-60)) for factor in P.factors])
    # Neither the determinants of blocks of 24 rows nor that of the whole are numbers of single precision.
    expected = P.logabsdet() - 60 * math.log(2) * len(P.factors) * P.shape[0]
    assert scaled.logabsdet() == pytest.approx(expected, rel=1e-12)


def test_blocks_that_need_pivots(dtype):
    flip = np.array([[0, 1], [1, 0]])[None, :, :, None]
    rng = np.random.default_rng(3)
    factors = [
        KroneckerSparse((np.broadcast_to(flip, tuple(p)) * rng.uniform(0.5, 2, tuple(p))).astype(dtype))
        for p in Chain.dyadic(16)
    ]
    P = Product(factors)
    M = product(P).astype(np.result_type(dtype, np.float64))
    assert np.count_nonzero(M) == 16
    B = random((16, 4), dtype, rng)
    np.testing.assert_allclose(P.solve(B), np.linalg.solve(M, B), rtol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(P.inverse().to_dense(), np.linalg.inv(M), rtol=20 * np.finfo(dtype).eps)
    assert P.logabsdet() == pytest.approx(np.linalg.slogdet(M)[1], rel=1e-6)
    tiny = KroneckerSparse(np.array([[1e-20, 1], [1, 1]])[None, :, :, None].astype(dtype))
    np.testing.assert_allclose(Product([tiny]).solve(np.array([1, 2], dtype)), [1, 1], rtol=4 * np.finfo(dtype).eps)


def test_bad_numbers_of_right_hand_sides_stay_in_their_columns():
    P = well_conditioned(SQUARE["blocks"], np.float64)
    B = np.random.default_rng(4).standard_normal((24, 3))
    expected = P.solve(B)
    B[5, 1] = np.nan
    X = P.solve(B)
    np.testing.assert_array_equal(X[:, [0, 2]], expected[:, [0, 2]])
    assert np.isnan(X[:, 1]).any()


def test_integers_and_wider_numbers_on_the_right(dtype):
    P = hadamard(16, dtype)
    wide = np.result_type(dtype, np.float64)
    for B in (np.arange(16), np.arange(16.0), 1j * np.arange(16)):
        X = P.solve(B)
        assert X.dtype == np.result_type(wide, B.dtype)
        np.testing.assert_allclose(X, scipy.linalg.hadamard(16) @ B / 16, rtol=0, atol=1e-15 * 16)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", ["solve", "inverse"])
def test_singular_blocks_are_named(name, place, dtype):
    for bad in (SINGULAR, 0 * VALUES):
        factors = [KroneckerSparse(VALUES.astype(dtype))] * 2
        factors[place] = KroneckerSparse(bad.astype(dtype))
        P = Product(factors)
        with pytest.raises(
            np.linalg.LinAlgError, match=rf"{name} needs regular factors; factors\[{place}\] has a singular block"
        ):
            P.inverse() if name == "inverse" else P.solve(np.ones(12))
        assert P.logabsdet() == -math.inf
        assert P.logabsdet() == np.linalg.slogdet(product(P).astype(np.complex128))[1]


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
@pytest.mark.parametrize("name", ["solve", "inverse"])
def test_zero_pivots_that_only_the_block_as_it_stands_has_are_named(name):
    P = Product([KroneckerSparse(np.arange(1.0, 10.0).reshape(1, 3, 3, 1))])
    with pytest.raises(np.linalg.LinAlgError, match=rf"{name} needs regular factors; factors\[0\] has a singular block"):
        P.inverse() if name == "inverse" else P.solve(np.ones(3))


def test_rows_below_the_smallest_normal_number_are_rows_like_others(dtype):
    # OpenBLAS leaves such pivots out of its divisions.
    rng, info = np.random.default_rng(4), np.finfo(dtype)
    whole = rng.integers(-9, 10, (2, 3, 3, 5)) + 20 * np.eye(3)[:, :, None]
    whole[0, 1, :, 2] *= 2.0**60
    for exponent in (info.minexp - 12, info.minexp, info.minexp + 12):
        P = Product([KroneckerSparse(np.ldexp(whole.astype(info.dtype), exponent).astype(dtype))])
        X = rng.integers(-5, 6, (30, 2)).astype(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(P.solve(P @ X), X, rtol=0, atol=100 * info.eps)
            expected = np.linalg.slogdet(KroneckerSparse(whole).blocks)[1].sum() + 30 * exponent * np.log(2)
            assert P.logabsdet() == pytest.approx(expected, rel=1e-12)
    inverse = Product([KroneckerSparse(np.ldexp(whole.astype(info.dtype), info.minexp + 4).astype(dtype))]).inverse()
    for block, found in zip(
        KroneckerSparse(whole).blocks.reshape(-1, 3, 3), inverse.factors[0].blocks.reshape(-1, 3, 3), strict=True
    ):
        expected = np.linalg.inv(block)
        found = np.ldexp(found.real.astype(np.float64), info.minexp + 4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=100 * info.eps * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-40), (np.float64, 1e-320), (np.complex128, 1e-320)])
def test_solutions_that_overflow_are_told(dtype, size):
    P = Product([KroneckerSparse(np.full((3, 1, 1, 1), size, dtype))])
    with pytest.warns(LinAlgWarning, match=f"solve: X, or what leads to it, is beyond the range of {np.dtype(dtype)}"):
        assert not np.isfinite(P.solve(np.ones(3, dtype))).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(P.solve(np.full(3, np.inf))).all() or np.dtype(dtype).kind == "c"


def nearly_singular(dtype, gap):
    values = VALUES.astype(dtype)
    values[1, :, :, 2] = [[1, 1], [1, 1 + gap]]
    return Product([KroneckerSparse(VALUES.astype(dtype)), KroneckerSparse(values)])


def test_blocks_that_are_nearly_singular_are_told():
    P = nearly_singular(np.float64, 2.0**-52)
    with pytest.warns(
        LinAlgWarning, match=r"factors\[1\] has a block of condition 1.8e\+16: solve may have no correct digit in f"
    ):
        X = P.solve(np.ones(12))
    assert np.isfinite(X).all()
    with pytest.warns(LinAlgWarning, match=r"factors\[1\] has a block of condition .*: inverse may"):
        P.inverse()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nearly_singular(np.float64, 1e-8).solve(np.ones(12))
        # Rows of very different sizes are no trouble.
        scales = np.geomspace(1e-200, 1e200, 12)
        D = Product(
            [KroneckerSparse(scales[None, None, None]), KroneckerSparse(VALUES), KroneckerSparse(scales[None, None, None])]
        )
        np.testing.assert_allclose(D.solve(scales**0.5), scales**-1.5, rtol=1e-14)


def test_inverses_that_overflow_are_refused():
    P = Product([KroneckerSparse(np.full((3, 1, 1, 1), 1e-320))])
    with pytest.raises(np.linalg.LinAlgError, match=r"blocks whose inverses are finite; factors\[0\] has another"):
        P.inverse()
    np.testing.assert_allclose(P.solve(np.full(3, 1e-320)), 1, rtol=1e-15)


@pytest.mark.parametrize("name", ["solve", "inverse", "logabsdet"])
def test_products_without_square_blocks_are_refused(name):
    def call(P):
        return P.solve(np.ones(P.shape[0])) if name == "solve" else getattr(P, name)()

    wide = random_product(Chain([(1, 2, 4, 2), (1, 4, 2, 2)]), np.float64)
    with pytest.raises(ValueError, match=rf"{name} needs factors with square blocks; got Pattern\(1, 2, 4, 2\)"):
        call(wide)
    part = Product(hadamard(8).factors, rows=[1, 2, 3])
    with pytest.raises(ValueError, match=rf"{name} needs all rows and columns; got \(3, 8\) of \(8, 8\)"):
        call(part)


@pytest.mark.parametrize("B", [np.ones(7), np.ones((7, 2)), np.ones((8, 2, 2)), np.float64(1)])
def test_right_hand_sides_of_other_shapes_are_refused(B):
    with pytest.raises(ValueError, match=r"B must have shape \(8,\) or \(8, k\); got"):
        hadamard(8).solve(B)


def dense_gradients(P, X, G):
    """G_l X_l^H on every support, and K^H G, from dense factors in extended precision."""
    factors = [dense(factor) for factor in P.factors]
    M = np.eye(P.chain.shape[0], dtype=np.longdouble)
    inputs = np.zeros((P.chain.shape[1], X.shape[1]), np.result_type(X, np.longdouble))
    inputs[slice(None) if P.cols is None else P.cols] = X
    outputs = np.zeros((len(M), X.shape[1]), np.result_type(G, np.longdouble))
    outputs[slice(None) if P.rows is None else P.rows] = G
    given = [inputs]
    for K in reversed(factors[1:]):
        given.append(K @ given[-1])
    gradients = []
    for factor, K, x in zip(P.factors, factors, reversed(given), strict=True):
        whole = outputs @ x.conj().T
        outputs = K.conj().T @ outputs
        a, b, c, d = factor.pattern
        values = np.empty((a, b, c, d), whole.dtype)
        for i, j, k, l in np.ndindex(values.shape):
            values[i, j, k, l] = whole[i * b * d + j * d + l, i * c * d + k * d + l]
        gradients.append(values)
    return gradients, outputs if P.cols is None else outputs[P.cols]


def assert_near(got, expected, eps):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0) <= 200 * eps * max(np.abs(expected).max(initial=0), 1)


@pytest.mark.parametrize("name", ["dyadic", "kaleidoscope", "monarch", "mixed", "diagonals", "not chainable", "row", "block 5"])
def test_gradients_are_those_of_dense_factors(name, dtype):
    P, rng = random_product(CHAINS[name], dtype), np.random.default_rng(5)
    for batch in (0, 1, 7, 64, 130):
        X, G = random((P.shape[1], batch), dtype, rng), random((P.shape[0], batch), dtype, rng)
        expected, to_input = dense_gradients(P, X, G)
        for x, g in ((X, G), (np.asfortranarray(X), G[::-1].copy()[::-1])):
            gradients, dX = P.vjp(x, g)
            assert [values.shape for values in gradients] == [tuple(p) for p in P.chain]
            for values, truth in zip(gradients, expected, strict=True):
                assert values.dtype == dtype
                assert_near(values, truth, np.finfo(dtype).eps)
            assert dX.dtype == dtype
            assert_near(dX, to_input, np.finfo(dtype).eps)


def test_gradients_of_a_vector_and_of_kept_rows_and_columns(dtype):
    rng = np.random.default_rng(6)
    factors = random_product(Chain.deformable([(3, 4), (5, 4)]), dtype).factors
    for rows, cols in ((None, None), (rng.permutation(15), rng.permutation(16)), ([4, 2, 9], [1, 0, 15, 7])):
        P = Product(factors, rows=rows, cols=cols)
        X, G = random((P.shape[1], 9), dtype, rng), random((P.shape[0], 9), dtype, rng)
        expected, to_input = dense_gradients(P, X, G)
        gradients, dX = P.vjp(X, G)
        for values, truth in zip([*gradients, dX], [*expected, to_input], strict=True):
            assert_near(values, truth, np.finfo(dtype).eps)
        gradients, dx = P.vjp(X[:, 0], G[:, 0])
        alone, column = P.vjp(X[:, :1], G[:, :1])
        assert dx.shape == P.shape[1:]
        for values, truth in zip([*gradients, dx], [*alone, column[:, 0]], strict=True):
            np.testing.assert_array_equal(values, truth)


@pytest.mark.parametrize("name", ["kaleidoscope", "monarch rank 3", "mixed"])
def test_gradients_are_differences_and_complex_steps(name):
    P, rng = random_product(CHAINS[name], np.float64), np.random.default_rng(7)
    X, G = rng.standard_normal((P.shape[1], 5)), rng.standard_normal((P.shape[0], 5))
    gradients, dX = P.vjp(X, G)
    directions = [rng.standard_normal(values.shape) for values in gradients]
    slope = sum(np.vdot(values, way) for values, way in zip(gradients, directions, strict=True))

    def value(step):
        return np.sum(
            G * (Product([KroneckerSparse(K.values + step * w) for K, w in zip(P.factors, directions, strict=True)]) @ X)
        )

    size = np.abs(G).sum() * np.abs(P @ X).max()
    assert abs(value(1e-30j).imag / 1e-30 - slope) < 1e-13 * size
    assert abs((value(1e-5) - value(-1e-5)) / 2e-5 - slope) < 1e-6 * size
    way = rng.standard_normal(X.shape)
    assert abs(np.sum(G * (P @ (X + 1e-30j * way))).imag / 1e-30 - np.vdot(dX, way)) < 1e-13 * size


@pytest.mark.parametrize("parameters", [np.float64, np.complex128])
@pytest.mark.parametrize("inputs", [np.float64, np.complex128])
def test_complex_gradients_point_uphill(parameters, inputs):
    # F = Re <G, P X>: its slope along any change is Re <gradient, change>, in the field of what is changed.
    P, rng = random_product(Chain.dyadic(8), parameters), np.random.default_rng(8)
    X, G = random((8, 5), inputs, rng), random((8, 5), np.complex128, rng)
    gradients, dX = P.vjp(X, G)
    assert {values.dtype for values in gradients} == {np.dtype(parameters)}
    assert dX.dtype == inputs

    def value(factors, x):
        return np.vdot(G, Product(factors) @ x).real

    for s, K in enumerate(P.factors):
        way = random(K.values.shape, parameters, rng)
        factors = [*P.factors[:s], KroneckerSparse(way), *P.factors[s + 1 :]]
        # Linear in every factor: the change is the value itself.
        assert value(factors, X) == pytest.approx(np.vdot(gradients[s], way).real, rel=1e-12, abs=1e-12)
    way = random(X.shape, inputs, rng)
    assert value(P.factors, way) == pytest.approx(np.vdot(dX, way).real, rel=1e-12, abs=1e-12)


def test_gradients_promote_like_products():
    P, rng = random_product(Chain.dyadic(8), np.float32), np.random.default_rng(9)
    X, G = rng.standard_normal((8, 3)), rng.standard_normal((8, 3))
    gradients, dX = P.vjp(X, G)
    expected, to_input = dense_gradients(P, X, G)
    for values, truth in zip([*gradients, dX], [*expected, to_input], strict=True):
        assert values.dtype == np.float64
        assert_near(values, truth, np.finfo(np.float64).eps)


def test_a_step_along_the_gradient_descends():
    target, P = hadamard(16).to_dense() / 4, random_product(Chain.dyadic(16), np.float64)
    X = np.eye(16)
    before = np.linalg.norm(P @ X - target)
    for _ in range(200):
        gradients, _ = P.vjp(X, P @ X - target)
        P = Product([KroneckerSparse(K.values - 5e-3 * g) for K, g in zip(P.factors, gradients, strict=True)])
    assert np.linalg.norm(P @ X - target) < 0.5 * before


@pytest.mark.parametrize(
    ("X", "G", "error", "message"),
    [
        (np.ones(7), np.ones(8), ValueError, r"X must have shape \(8,\) or \(8, k\); got \(7,\)"),
        (np.ones((8, 1, 1)), np.ones(8), ValueError, r"X must have shape \(8,\) or \(8, k\); got \(8, 1, 1\)"),
        (np.float64(1), np.ones(8), ValueError, r"X must have shape \(8,\) or \(8, k\); got \(\)"),
        (np.ones((8, 3)), np.ones((8, 2)), ValueError, r"G must have shape \(8, 3\); got \(8, 2\)"),
        (np.ones(8), np.ones((8, 1)), ValueError, r"G must have shape \(8,\); got \(8, 1\)"),
        (np.ones(8, np.float16), np.ones(8), TypeError, "X must have dtype .*; got float16"),
        (np.ones(8), np.ones(8, np.longdouble), TypeError, "G must have dtype .*; got"),
    ],
)
def test_bad_arguments_of_gradients_are_refused(X, G, error, message):
    with pytest.raises(error, match=message):
        hadamard(8).vjp(X, G)
