"""Kronecker-sparse chains of CUDA against products in extended precision."""

import emulated
import numpy as np
import pytest
from emulated import OnDevice
from product_oracles import CHAINS, DTYPES, assert_close, random, random_chain, random_product

from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain

pytestmark = pytest.mark.usefixtures("kernels")

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
    P = random_product(Chain([(1, 2, 2, 4096), (1, 4, 4, 2048), (2, 2, 2, 2048), (4, 2, 2, 1024)]), np.dtype(np.float64))
    assert_gradients(P, 131)


LAYOUTS = {
    "C": np.ascontiguousarray,
    "C at an odd place": lambda X: np.pad(X, ((0, 0), (1, 0)))[:, 1:],
    "C with a gap": lambda X: np.pad(X, ((0, 0), (4, 4)))[:, 4:-4],
    "F": np.asfortranarray,
    "F at an odd place": lambda X: np.asfortranarray(np.pad(X, ((1, 0), (0, 0))))[1:],
    "F with a gap": lambda X: np.asfortranarray(np.pad(X, ((4, 4), (0, 0))))[4:-4],
    "reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "F reversed": lambda X: np.asfortranarray(X[::-1, ::-1])[::-1, ::-1],
    "strided": lambda X: X.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
    "all the same": lambda X: np.broadcast_to(X[:, :1], X.shape),
}


@pytest.mark.parametrize("name", ["dyadic", "mixed", "wide blocks", "block 33"])
def test_bits_do_not_depend_on_layouts(name, dtype):
    """Of the input, of the result and of gradients, each against the others; on addresses of whole packs and between them."""
    P, rng = random_product(CHAINS[name], dtype), np.random.default_rng(7)
    kernel = plan(P, merge=True)
    X = random((P.shape[1], 12), dtype, rng)
    Y = multiplied(kernel, P, X, "C")
    G = random((P.shape[0], 12), dtype, rng)
    dX, dw = gradients(P, X, G, "C")
    for layout, lay in LAYOUTS.items():
        if layout == "all the same":
            assert np.array_equal(multiplied(kernel, P, lay(X), "C"), np.broadcast_to(Y[:, :1], Y.shape))
            continue
        assert np.array_equal(multiplied(kernel, P, lay(X), "C"), Y)
        out = lay(empty(Y.shape, dtype))
        kernel.apply(OnDevice(X), OnDevice(out))
        assert np.array_equal(out, Y)
        back, values = lay(empty(X.shape, dtype)), empty(P.n_params, dtype)
        plan(P).gradient(*map(OnDevice, (lay(X), lay(G), back, values)))
        assert np.array_equal(back, dX)
        assert np.array_equal(values, dw)


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
