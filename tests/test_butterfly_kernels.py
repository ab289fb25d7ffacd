"""Butterfly kernels: the same bits however they are called, merged stages, large sizes, and wrong calls refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from product_oracles import CHAINS, DTYPES, assert_close, hadamard, random, random_chain, random_product
from test_determinism import child, digest

import randla
from randla import _cpu
from randla.structured._merge import merged
from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain
from randla.structured.transforms import fwht

THREADS = [1, 2, 3]
BATCHES = (1, 2, 4, 5, 16, 63, 64, 65, 300)
KERNELS = {
    np.dtype(np.float32): _cpu.ButterflyFloat32,
    np.dtype(np.float64): _cpu.ButterflyFloat64,
    np.dtype(np.complex64): _cpu.ButterflyComplex64,
    np.dtype(np.complex128): _cpu.ButterflyComplex128,
}
ZOO = {
    **{name: CHAINS[name] for name in ("kaleidoscope", "monarch", "diagonals", "not chainable", "wide lanes", "block 33")},
    "large": Chain.dyadic(2048),
    "large transposed": Chain.dyadic(1024).T,
    "large blocks": Chain.monarch(1024, 512, 64, 32),
    "flat": Chain([(1, 15, 70, 1), (1, 70, 12, 1)]),
}


@pytest.fixture(autouse=True)
def _restore_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture(params=ZOO)
def chain(request):
    return ZOO[request.param]


def everything(chain, dtype, batches=BATCHES):
    """Products of both sides and gradients, in both layouts."""
    P, rng = random_product(chain, dtype), np.random.default_rng(1)
    for batch in batches:
        X, G = random((P.shape[1], batch), dtype, rng), random((P.shape[0], batch), dtype, rng)
        gradients, dX = P.vjp(X, G)
        yield from (P @ X, P.apply(X.T.copy(), -1), P.H @ G, P @ X[:, 0], dX, *gradients)


def test_threads_do_not_change_a_bit(chain, dtype):
    found = set()
    for threads in THREADS:
        randla.set_num_threads(threads)
        found.add(digest(*everything(chain, dtype)))
    assert len(found) == 1


def fingerprints(threads):
    randla.set_num_threads(threads)
    found = {}
    for name, chain in ZOO.items():
        for dtype in DTYPES:
            for i, array in enumerate(everything(chain, dtype, (1, 5, 40))):
                found[f"{name} {dtype} {i}"] = digest(array)
    for seed in range(20):
        chain = random_chain(np.random.default_rng(seed))
        for dtype in DTYPES:
            found[f"random {seed} {dtype}"] = digest(*everything(chain, dtype, (3, 17)))
    return found


def test_instruction_sets_and_threads_give_the_same_bits():
    found = {}
    for isa in _cpu.available_isas():
        counts = THREADS if isa == "baseline" else THREADS[-1:]
        code = f"print(json.dumps([k._cpu.isa(), [k.fingerprints(n) for n in {counts}]]))"
        run = child(f"import json, test_butterfly_kernels as k; {code}", RANDLA_ISA=isa, OPENBLAS_NUM_THREADS="1")
        assert run.returncode == 0, run.stderr
        used, prints = json.loads(run.stdout)
        assert used == isa
        found |= {(isa, threads): of for threads, of in zip(counts, prints, strict=True)}
    expected = found["baseline", 1]
    assert len(expected) > 500
    for key, prints in found.items():
        differing = [name for name, value in expected.items() if prints[name] != value]
        assert not differing, f"{key} differs from one thread on the baseline"


def test_columns_are_multiplied_independently(chain, dtype):
    P, rng = random_product(chain, dtype), np.random.default_rng(2)
    X = random((P.shape[1], 70), dtype, rng)
    Y = P @ X
    for k in (1, 2, 4, 5, 33, 64, 69):
        np.testing.assert_array_equal(P @ X[:, :k], Y[:, :k])
        np.testing.assert_array_equal(P @ X[:, k:], Y[:, k:])
        np.testing.assert_array_equal(P.apply(X[:, :k].T.copy(), -1), Y[:, :k].T)
    for j in (0, 17, 69):
        np.testing.assert_array_equal(P @ X[:, j], Y[:, j])
    order = rng.permutation(70)
    np.testing.assert_array_equal(P @ X[:, order], Y[:, order])


def test_bad_numbers_stay_in_their_columns(chain, dtype):
    P = random_product(chain, dtype)
    X = random((P.shape[1], 70), dtype, np.random.default_rng(3))
    expected = P @ X
    X[0, 7], X[-1, 69] = np.nan, np.inf
    Y, others = P @ X, np.delete(np.arange(70), [7, 69])
    np.testing.assert_array_equal(Y[:, others], expected[:, others])
    touched = P.to_dense()[:, 0] != 0
    assert np.isnan(Y[touched, 7]).all()
    assert not np.isfinite(Y[P.to_dense()[:, -1] != 0, 69]).any()
    gradients, dX = P.vjp(X, np.ones_like(Y))
    assert np.isfinite(dX).all()
    assert not np.isfinite(gradients[-1]).all()


@pytest.mark.parametrize("batch", [1, 3, 4, 9, 70])
@pytest.mark.parametrize("n", [2**11, 2**14, 2**16])
def test_large_hadamard_products_are_walsh_hadamard_transforms(n, batch):
    H, rng = hadamard(n, np.float32), np.random.default_rng(4)
    X = rng.integers(-8, 8, (n, batch)).astype(np.float32)
    # Sums of integers below 2^24 are exact.
    np.testing.assert_array_equal(H @ X, fwht(X))
    np.testing.assert_array_equal(H.T.apply(X.T.copy(), -1), fwht(X).T)
    if n < 2**16:
        X = random((n, batch), np.complex128, rng)
        size = np.linalg.norm(X)
        assert np.abs(H @ X - fwht(X)).max() < 1e-13 * size
        assert np.abs(H.H @ (H @ X) / n - X).max() < 1e-15 * size


def test_layouts_give_the_same_bits_past_the_caches(dtype):
    P = random_product(Chain.dyadic(2048), dtype)
    X = random((2048, 1030), dtype, np.random.default_rng(6))
    Y = P @ X
    assert Y.nbytes >= 8 << 20
    np.testing.assert_array_equal(P.apply(X.T.copy(), -1).T, Y)
    np.testing.assert_array_equal(P @ X[:, :100], Y[:, :100])


def test_rows_that_no_cache_holds():
    # A single block of many rows, and a chain whose widest part lies inside.
    for chain in (Chain([(1, 300, 5000, 1)]), Chain.low_rank(20, 30, 9000), Chain([(3000, 3, 5, 3), (1, 1, 1, 45000)])):
        P, rng = random_product(chain, np.float32), np.random.default_rng(5)
        X = random((P.shape[1], 7), np.float32, rng)
        Y, size = X.astype(np.longdouble), np.abs(X).astype(np.longdouble)
        for K in reversed(P.factors):
            a, _, c, d = K.pattern
            wide = K.blocks.astype(np.longdouble)
            Y, size = (
                (w @ x.reshape(a, c, d, 7).transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3).reshape(-1, 7)
                for w, x in ((wide, Y), (np.abs(wide), size))
            )
        bound = 3 * sum(p.c + 4 for p in chain) * np.finfo(np.float32).eps * size
        assert np.all(np.abs(P @ X - Y) <= bound)
        np.testing.assert_array_equal(P @ X[:, 2], (P @ X)[:, 2])


def stages(P):
    return [(factor.pattern, factor.values) for factor in P.factors]


@pytest.mark.parametrize(
    ("chain", "patterns"),
    [
        (Chain.dyadic(64), [(1, 4, 4, 16), (4, 4, 4, 4), (16, 4, 4, 1)]),
        (Chain.dyadic(32), [(1, 2, 2, 16), (2, 4, 4, 4), (8, 4, 4, 1)]),
        (Chain.dyadic(16).T, [(4, 4, 4, 1), (1, 4, 4, 4)]),
        (Chain.kaleidoscope(16), [(1, 4, 4, 4), (4, 4, 4, 1), (1, 4, 4, 4)]),
        (Chain.monarch(16, 16, 4, 4), [(1, 4, 4, 4), (4, 4, 4, 1)]),
        (Chain.low_rank(4, 4, 1), [(1, 4, 1, 1), (1, 1, 4, 1)]),
        (Chain([(4, 1, 1, 2), (4, 2, 2, 1)]), [(4, 2, 2, 1)]),
        (Chain([(1, 1, 1, 8), (1, 2, 2, 4), (2, 1, 1, 4), (2, 2, 2, 2), (1, 1, 1, 8)]), [(1, 4, 4, 2), (1, 1, 1, 8)]),
        (Chain([(1, 2, 4, 2), (1, 4, 2, 2)]), [(1, 2, 2, 2)]),
        (Chain.dyadic(4, rank=2), [(1, 4, 4, 1)]),
        (Chain([(1, 3, 3, 1), (1, 3, 3, 1)]), [(1, 3, 3, 1)]),
        (Chain([(1, 8, 8, 1), (1, 8, 8, 1)]), [(1, 8, 8, 1), (1, 8, 8, 1)]),
    ],
)
def test_neighbours_are_merged_where_it_costs_no_numbers(chain, patterns, dtype):
    P = random_product(chain, dtype)
    together = merged(stages(P), dtype)
    assert [tuple(p) for p, _ in together] == patterns
    assert sum(p.n_params for p, _ in together) <= P.n_params
    Q = Product([KroneckerSparse(values.astype(dtype)) for _, values in together])
    X = random((P.shape[1], 5), dtype, np.random.default_rng(6))
    assert_close(Q @ X, P, X)


def test_merged_stages_equal_the_others_within_rounding(dtype):
    rng = np.random.default_rng(7)
    kernel = KERNELS[dtype]
    for seed in range(40):
        P = random_product(random_chain(rng) if seed % 2 else CHAINS["kaleidoscope"], dtype, seed)
        X = random((P.shape[1], 6), dtype, rng)
        apart = np.empty((P.shape[0], 6), dtype)
        values = [np.ascontiguousarray(factor.blocks) for factor in reversed(P.factors)]
        kernel([tuple(p) for p in reversed(P.chain)], values).apply(X, apart)
        assert_close(apart, P, X)
        assert_close(P @ X, P, X)


@pytest.mark.parametrize(("dtype", "power"), [(np.float32, 100), (np.float64, 900), (np.complex64, 100), (np.complex128, 900)])
def test_factors_are_not_merged_where_numbers_would_leave_the_range(dtype, power):
    dtype, rng = np.dtype(dtype), np.random.default_rng(8)
    P = random_product(Chain.dyadic(16), dtype)
    for signs in ((1, 1, -1, -1), (-1, -1, 1, 1)):
        factors = [KroneckerSparse(K.values * dtype.type(2.0 ** (s * power))) for K, s in zip(P.factors, signs, strict=True)]
        # Large ones are applied to small numbers, small ones to large numbers.
        unit = dtype.type(2.0 ** (signs[0] * power))
        Q = Product(factors)
        assert len(merged(stages(Q), dtype)) == 3
        for x in (random((16, 1), dtype, rng), random((16, 20), dtype, rng)):
            np.testing.assert_allclose((Q @ (x * unit)) / unit, P @ x, rtol=0, atol=1e3 * np.finfo(dtype).eps)


def test_zeros_do_not_hinder_merging():
    values = [np.zeros((1, 2, 2, 2)), np.ones((2, 2, 2, 1))]
    values[1][0, 1] = 0
    P = Product([KroneckerSparse(v) for v in values])
    assert len(merged(stages(P), P.dtype)) == 1
    np.testing.assert_array_equal(P @ np.ones(4), np.zeros(4))


def test_python_threads_may_share_a_product(dtype):
    X = random((1024, 3), dtype, np.random.default_rng(9))
    expected = digest(random_product(Chain.dyadic(1024), dtype) @ X)
    for _ in range(5):
        P = random_product(Chain.dyadic(1024), dtype)
        with ThreadPoolExecutor(4) as pool:
            assert {digest(Y) for Y in pool.map(lambda _: P @ X, range(8))} == {expected}  # noqa: B023


@pytest.fixture
def no_kept_memory():
    _cpu.release_memory()
    yield
    _cpu.release_memory()


MEGABYTE = 1 << 20


def test_memory_of_dead_results_is_used_again(no_kept_memory):
    P, X = random_product(Chain.dyadic(1024), np.float32), np.ones((1024, 512), np.float32)
    Y = P @ X
    expected, address, kept = Y.copy(), Y.ctypes.data, _cpu.kept_memory()
    part = Y[3:, ::2]
    del Y
    assert _cpu.kept_memory() == kept, "a view lives"
    held = [P @ X for _ in range(3)]
    np.testing.assert_array_equal(part, expected[3:, ::2])
    assert all(Z.flags.writeable and Z.flags.c_contiguous and Z.flags.aligned for Z in held)
    assert len({address, *(Z.ctypes.data for Z in held)}) == 4
    del part
    assert _cpu.kept_memory() >= kept + 2 * MEGABYTE
    again = P @ X
    assert again.ctypes.data == address
    np.testing.assert_array_equal(again, expected)
    for Z in held:
        np.testing.assert_array_equal(Z, expected)


def test_kept_memory_is_limited(no_kept_memory):
    arrays = [_cpu.empty(np.dtype(np.uint8), (k * MEGABYTE,)) for k in (1, 30, 20, 40, 65, 3)]
    assert _cpu.kept_memory() == 0
    while arrays:
        arrays.pop(0)
        assert _cpu.kept_memory() <= 64 * MEGABYTE
    assert _cpu.kept_memory() == 63 * MEGABYTE, "the oldest go first, larger ones are never kept"
    small = [_cpu.empty(np.dtype(np.uint8), (40_000 + 4096 * k,)) for k in range(200)]
    small.clear()
    assert 0 < _cpu.kept_memory() < 16 * MEGABYTE, "few pieces are kept"
    _cpu.release_memory()
    assert _cpu.kept_memory() == 0


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (100, 100), (1 << 19,), (2, 3 << 20)])
def test_new_arrays_have_their_shape_and_are_writeable(shape, dtype):
    A = _cpu.empty(dtype, shape)
    assert A.shape == shape
    assert A.dtype == dtype
    assert A.flags.c_contiguous
    A[...] = 1
    assert (A == 1).all()


def test_impossible_arrays_are_refused():
    with pytest.raises(ValueError, match="shapes must be those of arrays"):
        _cpu.empty(np.dtype(np.float64), (3, -1))
    with pytest.raises(ValueError, match="shapes must be those of arrays"):
        _cpu.empty(np.dtype(np.float64), (1 << 40, 1 << 40))
    with pytest.raises(MemoryError):
        _cpu.empty(np.dtype(np.float64), (1 << 58,))


def test_results_of_python_threads_stay_apart(no_kept_memory):
    P, X = random_product(Chain.dyadic(256), np.float64), random((256, 80), np.float64, np.random.default_rng(10))
    inputs = [X * 2.0**k for k in range(8)]
    expected = P @ X

    def products(k):
        found = []
        for _ in range(40):
            found = [*found[-2:], P @ inputs[k]]
            if any(not np.array_equal(Y, expected * 2.0**k) for Y in found):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(products, range(8)))


def test_forked_children_multiply(no_kept_memory):
    code = """
import os, numpy as np
from product_oracles import random_product
from randla.structured.pattern import Chain
import randla
randla.set_num_threads(2)
P, X = random_product(Chain.dyadic(256), np.float32), np.ones((256, 300), np.float32)
Y = P @ X
expected = Y.copy()
for _ in range(5):
    child = os.fork()
    if not child:
        same = all(np.array_equal(P @ X, expected) for _ in range(5)) and np.array_equal(Y, expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(P @ X, expected)
"""
    run = child(code)
    assert run.returncode == 0, run.stderr


def test_results_that_leave_the_caches_have_the_same_bits(dtype):
    # Rows of whole lines at aligned places are written past the caches, others are not.
    P, rng = random_product(Chain.dyadic(1024), dtype), np.random.default_rng(11)
    batch = (9 << 20) // (1024 * dtype.itemsize) // 64 * 64
    X = random((1024, batch), dtype, rng)
    expected = np.concatenate([P @ X[:, j : j + 65] for j in range(0, batch, 65)], axis=1)
    odd = np.empty(expected.size + 5, dtype)[5:].reshape(expected.shape)
    for threads in THREADS:
        randla.set_num_threads(threads)
        np.testing.assert_array_equal(P @ X, expected)
        np.testing.assert_array_equal(P.apply(X, out=odd), expected)
        np.testing.assert_array_equal(P.apply(X.T.copy(), -1), expected.T)


FIVE = np.ones((5, 3))
PATTERNS, VALUES = [(1, 5, 2, 1), (1, 2, 4, 1)], [np.ones((1, 1, 5, 2)), np.ones((1, 1, 2, 4))]


def plan():
    return _cpu.ButterflyFloat64(PATTERNS[::-1], VALUES[::-1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _cpu.ButterflyFloat64([], []), "at least one pattern"),
        (lambda: _cpu.ButterflyFloat64(PATTERNS[::-1], VALUES[:1]), "as many values as patterns"),
        (lambda: _cpu.ButterflyFloat64([(0, 5, 2, 1)], [np.ones((0, 1, 5, 2))]), "patterns must be positive"),
        (lambda: _cpu.ButterflyFloat64([(1, -5, 2, 1)], VALUES[:1]), "patterns must be positive"),
        (lambda: _cpu.ButterflyFloat64(PATTERNS[:1], [np.ones((1, 5, 1, 2))]), r"values must be \(a, d, b, c\)"),
        (lambda: _cpu.ButterflyFloat64(PATTERNS[:1], [np.ones((5, 2))]), r"values must be \(a, d, b, c\)"),
        (lambda: _cpu.ButterflyFloat64(PATTERNS, VALUES), "stages must match"),
        (lambda: plan().apply(FIVE, FIVE.copy()), "X and Y must fit the stages"),
        (lambda: plan().apply(np.ones((4, 3)), np.ones((4, 3))), "X and Y must fit the stages"),
        (lambda: plan().apply(np.ones((4, 3)), np.ones((5, 2))), "X and Y must fit the stages"),
        (lambda: plan().apply(np.ones(4), np.ones(5)), "a matrix needs two dimensions"),
        (lambda: plan().gradient(FIVE, FIVE, np.ones((4, 3)), np.ones(18)), "X and G must fit the stages"),
        (
            lambda: plan().gradient(np.ones((4, 3)), np.ones((4, 3)), np.ones((4, 3)), np.ones(18)),
            "X and G must fit the stages",
        ),
        (lambda: plan().gradient(np.ones((4, 2)), FIVE, np.ones((4, 2)), np.ones(18)), "X and G must fit the stages"),
        (lambda: plan().gradient(np.ones((4, 3)), FIVE, FIVE.copy(), np.ones(18)), "dX must have the shape of X"),
        (lambda: plan().gradient(np.ones((4, 3)), FIVE, np.ones((4, 2)), np.ones(18)), "dX must have the shape of X"),
        (lambda: plan().gradient(np.ones((4, 3)), FIVE, np.ones((4, 3)), np.ones(17)), "dw must be a vector of all values"),
        (lambda: plan().gradient(np.ones((4, 3)), FIVE, np.ones((4, 3)), np.ones((2, 9))), "dw must be a vector of all values"),
    ],
)
def test_calls_that_would_touch_other_memory_are_refused(call, message):
    with pytest.raises(ValueError, match=f"randla kernel: {message}"):
        call()


def test_plans_leave_what_they_do_not_take_as_it_is_to_python():
    odd = np.ndarray((4, 3), np.float64, np.zeros(97, np.uint8), 1)
    between = np.zeros(4, [("x", np.float64), ("y", np.int32)])["x"]
    for X, first in ((np.ones((3, 4)), False), (np.ones((4, 3)), True), (np.ones(4), True), (odd, False), (between, False)):
        assert plan().multiply(X, first) is None
    for X in (np.ones(()), np.ones((4, 1, 1))):
        assert plan().multiply(X, False) is None


def test_arrays_that_cannot_be_written_to_are_refused():
    X, Y = np.ones((4, 3)), np.ones((5, 3))
    Y.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        plan().apply(X, Y)
    for wrong in (np.ones((5, 3), np.float32), Y.tolist()):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            plan().apply(X, wrong)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        plan().multiply(X.astype(np.float32), False)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        plan().gradient(X, FIVE, X.copy(), np.ones(36)[::2])
