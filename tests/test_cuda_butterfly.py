"""Kronecker-sparse chains of CUDA against products in extended precision, and structured operators on arrays of a device."""

import emulated
import fake_cupy
import numpy as np
import pytest
from emulated import OnDevice
from product_oracles import CHAINS, DTYPES, assert_close, exact, random, random_chain, random_product

from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain
from randla.structured.transforms import fwht

KERNELS = dict(zip(DTYPES, ("ButterflyFloat32", "ButterflyFloat64", "ButterflyComplex64", "ButterflyComplex128"), strict=True))
BATCHES = (1, 3, 16, 37)
# Several runs through memory, runs of neighbours, large blocks of more rows than a tile has.
LARGE = {
    "runs": Chain.dyadic(4096),
    "runs transposed": Chain.dyadic(2048).T,
    "many stages": Chain([p for _ in range(9) for p in Chain.dyadic(8)]),
    "far apart": Chain([(3, 2, 2, 700)]),
    "blocks": Chain([(2, 70, 40, 3), (1, 20, 35, 12)]),
    "blocks down": Chain([(2, 130, 20, 1)]),
    "small between large": Chain([(1, 17, 12, 4), (12, 2, 2, 2), (4, 4, 3, 3), (36, 1, 18, 1)]),
}


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def cupy(monkeypatch):
    return fake_cupy.install(monkeypatch)


def plan(P, merge=False):
    kind = getattr(emulated.module(), KERNELS[P.dtype])
    patterns, values = P._stages(P.dtype, merge)
    numbers = [OnDevice(kind.packed(patterns, values, adjoint=adjoint)) for adjoint in (False, True)]
    return kind(patterns, *numbers)


def empty(shape, dtype, order="C"):
    return np.full(shape, np.nan, dtype, order)


def multiplied(kernel, P, X, order):
    Y = empty((P.shape[0], X.shape[1]), P.dtype, order)
    kernel.apply(OnDevice(X), OnDevice(Y))
    return Y


def assert_close_to_host(Y, P, X):
    wide = np.result_type(P.dtype, np.float64)
    expected = Product([KroneckerSparse(f.values.astype(wide)) for f in P.factors]) @ X.astype(wide)
    size = Product([KroneckerSparse(np.abs(f.values.astype(wide))) for f in P.factors]) @ np.abs(X.astype(wide))
    assert np.all(np.abs(Y - expected) <= 6 * sum(p.c + 4 for p in P.chain) * np.finfo(P.dtype).eps * size)


def assert_products(P, batches=BATCHES, merge=True, assert_close=assert_close):
    kernel, rng = plan(P, merge), np.random.default_rng(1)
    for batch in batches:
        X = random((P.shape[1], batch), P.dtype, rng)
        Y = multiplied(kernel, P, X, "C")
        assert_close(Y, P, X)
        # The bits of a vector depend neither on the layout nor on those beside it.
        assert np.array_equal(multiplied(kernel, P, np.asfortranarray(X), "F"), Y)
        assert np.array_equal(multiplied(kernel, P, X[:, -1:], "C"), Y[:, -1:])
        wide = random((P.shape[1], 2 * batch + 1), P.dtype, rng)
        wide[:, -2::-2] = X
        assert np.array_equal(multiplied(kernel, P, wide[:, -2::-2], "F"), Y)


@pytest.mark.parametrize("name", CHAINS)
def test_products_and_their_bits(name, dtype):
    assert_products(random_product(CHAINS[name], dtype))


@pytest.mark.parametrize("name", ["dyadic odd", "kaleidoscope", "not chainable"])
def test_products_of_stages_that_were_not_merged(name, dtype):
    assert_products(random_product(CHAINS[name], dtype), merge=False)


@pytest.mark.parametrize("name", LARGE)
def test_products_of_several_runs_and_of_large_blocks(name, dtype):
    # Rows of whole packs, and others; the oracle in extended precision would take a minute.
    batches = (8,) if name.startswith("runs") else (1, 8, 21)
    assert_products(random_product(LARGE[name], dtype), batches, assert_close=assert_close_to_host)


def test_batches_of_several_chunks():
    P, batch = random_product(Chain.dyadic(32768), np.dtype(np.float32)), 131
    X = random((32768, batch), np.float32, np.random.default_rng(0))
    Y = multiplied(plan(P, merge=True), P, X, "C")
    np.testing.assert_allclose(Y, P @ X, rtol=0, atol=1e-5 * np.abs(Y).max())


def gradients(P, X, G, order):
    dX, dw = empty(X.shape, P.dtype, order), empty(P.n_params, P.dtype)
    plan(P).gradient(OnDevice(X), OnDevice(G), OnDevice(dX), OnDevice(dw))
    return dX, dw


def assert_gradients(P, batch):
    rng = np.random.default_rng(2)
    X, G = random((P.shape[1], batch), P.dtype, rng), random((P.shape[0], batch), P.dtype, rng)
    dX, dw = gradients(P, X, G, "C")
    wide = np.result_type(P.dtype, np.float64)
    exact_P = Product([KroneckerSparse(f.values.astype(wide)) for f in P.factors])
    values, expected = exact_P.vjp(X.astype(wide), G.astype(wide))
    places = [v.transpose(0, 3, 1, 2).ravel() for v in reversed(values)]
    sizes = [np.abs(v).max() for v in places]
    eps = 1000 * np.finfo(P.dtype).eps
    assert np.abs(dX - expected).max() <= eps * np.abs(expected).max()
    at = 0
    for found, size in zip(places, sizes, strict=True):
        assert np.abs(dw[at : at + len(found)] - found).max() <= eps * size
        at += len(found)
    for part, again in zip((dX, dw), gradients(P, np.asfortranarray(X), np.asfortranarray(G), "F"), strict=True):
        assert np.array_equal(part, again)


@pytest.mark.parametrize("name", CHAINS)
def test_gradients(name, dtype):
    for batch in (1, 5, 32):
        assert_gradients(random_product(CHAINS[name], dtype), batch)


@pytest.mark.parametrize(("name", "batch"), [("many stages", 7), ("blocks", 9), ("small between large", 600)])
def test_gradients_of_long_chains_and_of_several_slices(name, batch, dtype):
    assert_gradients(random_product(LARGE[name], dtype), batch)


def test_gradients_of_several_chunks():
    P = random_product(Chain([(1, 2, 2, 16384), (1, 4, 4, 8192), (2, 2, 2, 8192)]), np.dtype(np.float64))
    assert_gradients(P, 131)


def test_no_vectors(dtype):
    P = random_product(CHAINS["mixed"], dtype)
    kernel = plan(P)
    kernel.apply(OnDevice(empty((P.shape[1], 0), dtype)), OnDevice(empty((P.shape[0], 0), dtype)))
    X, G = empty((P.shape[1], 0), dtype), empty((P.shape[0], 0), dtype)
    assert not gradients(P, X, G, "C")[1].any()


def test_wrong_calls_are_refused():
    P = random_product(CHAINS["mixed"], np.dtype(np.float64))
    kernel, kind = plan(P), emulated.module().ButterflyFloat64
    X, Y = empty((P.shape[1], 3), np.float64), empty((P.shape[0], 3), np.float64)
    fixed = Y.copy()
    fixed.flags.writeable = False
    for x, y in [(X[1:], Y), (X, Y[:, :2]), (X.astype(np.float32), Y), (X[:, 0], Y), (X, fixed)]:
        with pytest.raises(ValueError, match="randla kernel"):
            kernel.apply(OnDevice(x), OnDevice(y))
    with pytest.raises(TypeError, match="X must be a device array"):
        kernel.apply(X, OnDevice(Y))
    for dX, dw in [(X[:, :2], empty(P.n_params, np.float64)), (X, empty(P.n_params - 1, np.float64))]:
        with pytest.raises(ValueError, match="randla kernel"):
            kernel.gradient(OnDevice(X), OnDevice(Y), OnDevice(dX), OnDevice(dw))
    patterns, values = P._stages(P.dtype, False)
    numbers = kind.packed(patterns, values)
    with pytest.raises(ValueError, match="gradients need the numbers of the adjoint"):
        kind(patterns, OnDevice(numbers)).gradient(
            OnDevice(X), OnDevice(Y), OnDevice(X), OnDevice(empty(P.n_params, np.float64))
        )
    for wrong in ([], patterns[1:] + patterns[:1], [(0, 1, 1, 1)]):
        with pytest.raises(ValueError, match="randla kernel"):
            kind(wrong, OnDevice(numbers))
    with pytest.raises(ValueError, match="numbers has the wrong size"):
        kind(patterns, OnDevice(numbers[:-1]))
    with pytest.raises(ValueError, match="randla kernel"):
        kind.packed(patterns, values[1:])


def test_random_chains(dtype):
    rng = np.random.default_rng(3)
    for _ in range(8):
        assert_products(random_product(random_chain(rng), dtype), batches=(5, 24))


# On arrays of a device, through the public calls.


def assert_like_host(found, expected, size):
    found = found.get()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= size)


def test_products_of_arrays_on_the_device(cupy, dtype):
    rng = np.random.default_rng(0)
    P = random_product(CHAINS["rank 2"], dtype)
    X = random((P.shape[1], 6), dtype, rng)
    expected, bound = exact(P, X)
    expected = expected.astype(dtype)
    x = cupy.asarray(X)
    for found in (P @ x, P.apply(x), P.apply(cupy.asarray(X.T.copy()), axis=-1).T, (x.T @ P.T).T):
        assert isinstance(found, cupy.ndarray)
        assert not fake_cupy.TRANSFERS
        assert_like_host(found, expected, 2 * bound)
        fake_cupy.TRANSFERS.clear()
    assert_like_host(P @ x[:, 2], expected[:, 2], 2 * bound[:, 2])
    K = P.factors[0]
    Z = random((2, K.shape[1], 3), dtype, rng)
    assert_like_host(K.apply(cupy.asarray(Z), axis=1), K.apply(Z, axis=1), 1e3 * np.finfo(dtype).eps)
    out = cupy.empty(expected.shape, dtype)
    assert P.apply(x, out=out) is out
    assert_like_host(out, expected, 2 * bound)


def test_dtypes_promote_and_plans_are_made_once(cupy):
    P = random_product(CHAINS["dyadic"], np.dtype(np.float32))
    X = random((64, 5), np.complex128, np.random.default_rng(0))
    assert_like_host(P @ cupy.asarray(X), P @ X, 1e-11)
    plans = dict(P._plans)
    assert_like_host(P @ cupy.asarray(X), P @ X, 1e-11)
    assert P._plans == plans


def test_rows_and_columns_that_are_kept(cupy, dtype):
    rng = np.random.default_rng(4)
    whole = random_product(CHAINS["dyadic"], dtype)
    for rows, cols in [
        (rng.permutation(64), rng.permutation(64)),
        (rng.permutation(64)[:9], rng.permutation(64)[:20]),
        (None, [3]),
    ]:
        P = Product(whole.factors, rows=rows, cols=cols)
        X, G = random((P.shape[1], 7), dtype, rng), random((P.shape[0], 7), dtype, rng)
        size = 1e4 * np.finfo(dtype).eps
        assert_like_host(P @ cupy.asarray(X), P @ X, size)
        assert_like_host(P.apply(cupy.asarray(X.T.copy()), -1), P.apply(X.T, -1), size)
        out = cupy.empty((P.shape[0], 7), dtype)
        P.apply(cupy.asarray(X), out=out)
        assert_like_host(out, P @ X, size)
        found, dX = P.vjp(cupy.asarray(X), cupy.asarray(G))
        expected, dX_expected = P.vjp(X, G)
        assert_like_host(dX, dX_expected, size)
        for value, other in zip(found, expected, strict=True):
            assert_like_host(value, other, size)


def test_gradients_of_arrays_on_the_device(cupy):
    # Of real values and a complex X only the real parts are wanted, and of a vector a vector.
    P, rng = random_product(CHAINS["monarch rank 3"], np.dtype(np.float64)), np.random.default_rng(5)
    for kind, shape in [(np.float64, (4,)), (np.complex128, (3,)), (np.complex128, ())]:
        X, G = random((P.shape[1], *shape), kind, rng), random((P.shape[0], *shape), kind, rng)
        found, dX = P.vjp(cupy.asarray(X), cupy.asarray(G))
        expected, dX_expected = P.vjp(X, G)
        assert_like_host(dX, dX_expected, 1e-10)
        for value, other in zip(found, expected, strict=True):
            assert_like_host(value, other, 1e-10)


def test_host_and_device_do_not_mix(cupy):
    P, X = random_product(CHAINS["dyadic"], np.dtype(np.float64)), np.ones((64, 2))
    x = cupy.asarray(X)
    for out, array in [(np.empty((64, 2)), x), (cupy.empty((64, 2)), X)]:
        for call in (P.apply, fwht):
            with pytest.raises(TypeError, match="X and out must all be on the host or all on the device"):
                call(array, out=out)
    with pytest.raises(TypeError, match="X and G must all be on the host or all on the device"):
        P.vjp(x, X)
    with pytest.raises(TypeError, match="out must be an array of dtype float64; got float32"):
        P.apply(x, out=cupy.empty((64, 2), np.float32))
    with pytest.raises(ValueError, match=r"out must be of shape \(64, 2\); got shape \(64, 3\)"):
        P.apply(x, out=cupy.empty((64, 3)))
    with pytest.raises(ValueError, match="out must not share memory with X"):
        P.apply(x, out=x)
    with pytest.raises(ValueError, match="X must have length 64 along axis 0"):
        P @ cupy.ones((63, 2))
    with pytest.raises(TypeError, match="B must be a numpy array"):
        P.solve(x)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_transforms_of_arrays_on_the_device(cupy, dtype, axis):
    X = random((8, 16, 4), dtype, np.random.default_rng(6))
    for order in "CF":
        x = cupy.asarray(np.array(X, order=order))
        found = fwht(x, axis, normalize=True)
        assert not fake_cupy.TRANSFERS
        assert np.array_equal(found.get(), fwht(X, axis, normalize=True))
        fake_cupy.TRANSFERS.clear()
        for out in (cupy.empty(X.shape, dtype), cupy.asarray(np.empty(X.shape[::-1], dtype)).T, x):
            assert fwht(x, axis, out=out) is out
            assert np.array_equal(out.get(), fwht(X, axis))
            fake_cupy.TRANSFERS.clear()
