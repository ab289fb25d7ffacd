"""The fast Walsh-Hadamard transform: exact on whole numbers, the same bits for every layout, and careful with `out`."""

import itertools
import math

import numpy as np
import oracles
import pytest
import scipy.linalg
import scipy.sparse as sp

import randla
from randla import _cpu
from randla.structured import fwht

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
# Vectors and matrices on both sides of the sizes of registers, of caches, and of the passes of long transforms.
LENGTHS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 8192, 65536]


@pytest.fixture(params=DTYPES, ids=lambda kind: np.dtype(kind).name)
def kind(request):
    return np.dtype(request.param)


def whole(shape, kind, seed=0):
    """Whole numbers small enough for every sum to be exact in float32."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-9, 10, shape) + (1j * rng.integers(-9, 10, shape) if kind.kind == "c" else 0)
    return X.astype(kind)


def noise(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if kind.kind == "c" else 0)).astype(kind)


def exact(X):
    """The transform of the columns of whole numbers, in whole numbers."""
    if X.dtype.kind == "c":
        return exact(X.real) + 1j * exact(X.imag)
    X = X.astype(np.int64)
    return scipy.linalg.hadamard(len(X), dtype=np.int64) @ X if len(X) <= 1024 else oracles.hadamard(X)


@pytest.mark.parametrize("n", [2**k for k in range(1, 11)])
def test_the_twin_for_long_vectors_equals_scipy(n):
    X = whole((n, 3), np.dtype(np.int64))
    np.testing.assert_array_equal(oracles.hadamard(X), scipy.linalg.hadamard(n, dtype=np.int64) @ X)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("columns", [1, 2, 3, 8, 17])
def test_whole_numbers_are_transformed_exactly(n, columns, kind):
    X = whole((n, columns), kind)
    before, expected = X.copy(), exact(X)
    for Y in (fwht(X), fwht(np.asfortranarray(X)), fwht(np.ascontiguousarray(X.T), axis=1).T, fwht(X.T, axis=-1).T):
        assert Y.dtype == kind
        np.testing.assert_array_equal(Y, expected)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("n", LENGTHS)
def test_vectors_are_transformed_exactly(n, kind):
    x = whole(n, kind)
    np.testing.assert_array_equal(fwht(x), exact(x[:, None])[:, 0])


@pytest.mark.parametrize("source", [np.int8, np.int64, np.uint16, np.bool_])
def test_integers_become_float64(source):
    X = np.random.default_rng(1).integers(0, 2 if source is np.bool_ else 100, (64, 3)).astype(source)
    Y = fwht(X)
    assert Y.dtype == np.float64
    np.testing.assert_array_equal(Y, scipy.linalg.hadamard(64) @ X.astype(int))
    np.testing.assert_array_equal(fwht([1, 2, 3, 4]), [10.0, -2.0, -4.0, 0.0])


@pytest.mark.parametrize("n", [2, 64, 1024, 65536])
@pytest.mark.parametrize("columns", [1, 5])
def test_rounding_errors_grow_with_the_number_of_stages_only(n, columns, kind):
    X = noise((n, columns), kind)
    wide = X.astype(np.clongdouble if kind.kind == "c" else np.longdouble)
    h = 1
    while h < n:
        pairs = wide.reshape(n // (2 * h), 2, h, columns)
        wide = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(n, columns)
        h *= 2
    error = np.abs(fwht(X) - wide).max(axis=0)
    # Every stage rounds once; the sums of a random vector are as large as its norm.
    assert np.all(error <= 2 * math.log2(n) * np.finfo(kind).eps * np.linalg.norm(X, axis=0))


SHAPES = [(8,), (1,), (16, 5), (5, 16), (4, 3, 8), (3, 32, 2), (2, 2, 2), (64, 1, 7), (1, 64, 1), (3, 4, 1)]
AXES = [(shape, axis) for shape in SHAPES for axis in range(len(shape)) if shape[axis] & (shape[axis] - 1) == 0]


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_every_axis_of_every_shape(shape, axis, kind):
    X = whole(shape, kind)
    expected = np.apply_along_axis(lambda x: exact(x[:, None])[:, 0], axis, X)
    for given in (axis, axis - len(shape), np.int64(axis)):
        Y = fwht(X, given)
        assert Y.shape == shape
        np.testing.assert_array_equal(Y, expected)


def presented(X):
    """The same array in other memory: orders of the axes, gaps, and reversed or shared steps."""
    yield from (X.transpose(p).copy().transpose(np.argsort(p)) for p in itertools.permutations(range(X.ndim)))
    wide = np.full([2 * n + 1 for n in X.shape], np.nan, X.dtype)
    inside = wide[tuple(slice(1, None, 2) for _ in X.shape)]
    inside[...] = X
    yield inside
    every = tuple(slice(None, None, -1) for _ in X.shape)
    yield X[every].copy()[every]
    yield np.asfortranarray(X[::-1])[::-1]


@pytest.mark.parametrize(("shape", "axis"), [((256, 6), 0), ((6, 256), 1), ((3, 64, 5), 1), ((32, 3, 5), 0), ((3, 5, 128), 2)])
@pytest.mark.parametrize("normalize", [False, True])
def test_memory_layout_does_not_change_a_bit(shape, axis, normalize, kind):
    X = noise(shape, kind)
    expected = fwht(X, axis, normalize)
    for Y in presented(X):
        before = Y.copy()
        np.testing.assert_array_equal(fwht(Y, axis, normalize), expected)
        np.testing.assert_array_equal(Y, before)


@pytest.mark.parametrize("n", [2, 8, 16, 128, 512, 8192])
@pytest.mark.parametrize("normalize", [False, True])
def test_axis_and_company_do_not_change_a_bit(n, normalize, kind):
    X = noise((n, 37), kind)
    expected = fwht(X, 0, normalize)
    np.testing.assert_array_equal(fwht(np.ascontiguousarray(X.T), 1, normalize).T, expected)
    for columns in (slice(0, 1), slice(3, 5), slice(36, 37), slice(0, 16)):
        np.testing.assert_array_equal(fwht(np.ascontiguousarray(X[:, columns]), 0, normalize), expected[:, columns])
    np.testing.assert_array_equal(fwht(X[:, 11], normalize=normalize), expected[:, 11])
    np.testing.assert_array_equal(fwht(np.ascontiguousarray(X.real), 0, normalize), expected.real)


@pytest.mark.parametrize("n", LENGTHS)
def test_the_normalized_transform_is_its_own_inverse(n, kind):
    X = noise((n, 3), kind)
    Y = fwht(X, normalize=True)
    eps = np.finfo(kind).eps
    stages = max(math.log2(n), 1)
    np.testing.assert_allclose(np.linalg.norm(Y, axis=0), np.linalg.norm(X, axis=0), rtol=8 * stages * eps)
    np.testing.assert_allclose(fwht(Y, normalize=True), X, rtol=0, atol=4 * stages * eps * np.abs(X).max() * 2)
    np.testing.assert_allclose(Y, fwht(X) / np.sqrt(n), rtol=4 * eps)


@pytest.mark.parametrize("n", [1, 4, 64, 65536])
def test_even_powers_of_two_are_normalized_exactly(n, kind):
    X = whole((n, 2), kind)
    np.testing.assert_array_equal(fwht(fwht(X, normalize=True), normalize=True), X)


@pytest.mark.parametrize(("shape", "axis"), [((256,), 0), ((64, 7), 0), ((7, 64), 1), ((3, 32, 5), 1), ((16, 3, 4), 2)])
def test_in_place_equals_out_of_place(shape, axis, kind):
    X = noise(shape, kind)
    expected = fwht(X, axis)
    for Y in presented(X):
        assert fwht(Y, axis, out=Y) is Y
        np.testing.assert_array_equal(Y, expected)


@pytest.mark.parametrize(("shape", "axis"), [((64, 7), 0), ((7, 64), 1), ((3, 32, 5), 1)])
def test_out_of_any_layout_is_filled_and_returned(shape, axis, kind):
    X = noise(shape, kind)
    expected = fwht(X, axis)
    for Y, out in itertools.product(presented(X), presented(np.full(shape, np.nan, kind))):
        assert fwht(Y, axis, out=out) is out
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(Y, X)


def test_out_with_gaps_keeps_what_lies_between():
    wide = np.full((64, 9), 7.0)
    X = noise((64, 3), np.dtype(float))
    fwht(X, out=wide[:, ::3])
    np.testing.assert_array_equal(wide[:, ::3], fwht(X))
    assert np.all(wide[:, [1, 2, 4, 5, 7, 8]] == 7)


@pytest.mark.parametrize("shift", [-8, -1, 1, 4, 8])
@pytest.mark.parametrize("n", [64, 4096])
def test_out_that_overlaps_the_input_gives_the_same(shift, n, kind):
    memory = noise(n + 16, kind)
    X, out = memory[8 : 8 + n], memory[8 + shift : 8 + shift + n]
    expected = fwht(X.copy())
    fwht(X, out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("columns", [2, 3, 16])
def test_out_that_is_the_transposed_or_reversed_input(columns, kind):
    X = noise((64, 64), kind)
    expected = fwht(X)
    memory = X.copy()
    fwht(memory, out=memory.T)
    np.testing.assert_array_equal(memory.T, expected)
    memory = X[:, :columns].copy()
    fwht(memory, out=memory[::-1])
    np.testing.assert_array_equal(memory[::-1], expected[:, :columns])
    memory = X[:, :columns].copy()
    fwht(memory[::-1], out=memory)
    np.testing.assert_array_equal(memory, fwht(X[::-1, :columns].copy()))


def shifted(X, by):
    """A copy that begins `by` numbers behind a cache line."""
    memory = np.empty(X.size + 64, X.dtype)
    start = (-memory.ctypes.data // X.itemsize) % (64 // X.itemsize) + by
    copy = memory[start : start + X.size].reshape(X.shape)
    copy[...] = X
    return copy


@pytest.mark.parametrize("by", [0, 1, 3])
@pytest.mark.parametrize(
    "shape", [(128, 16400), (256, 8208), (512, 4100), (4096, 544), (16384, 144), (9, 16384, 16), (2, 256, 4112), (32768, 64)]
)
def test_results_written_past_the_caches_are_the_same(shape, by):
    X, axis, before = noise(shape, np.dtype(np.float32)), len(shape) - 2, _cpu.max_threads()
    assert X.nbytes >= 8 << 20
    expected = np.moveaxis(fwht(np.ascontiguousarray(np.moveaxis(X, axis, -1)), -1, normalize=True), -1, axis)
    try:
        for threads in (1, 3):
            randla.set_num_threads(threads)
            out = shifted(np.full_like(X, np.nan), by)
            np.testing.assert_array_equal(fwht(X, axis, normalize=True, out=out), expected)
            place = shifted(X, by)
            np.testing.assert_array_equal(fwht(place, axis, normalize=True, out=place), expected)
    finally:
        randla.set_num_threads(before)


@pytest.mark.parametrize("columns", [1040, 1041])
def test_large_transforms_of_every_kind_are_the_same(columns, kind):
    X = noise((2048, columns), kind)
    np.testing.assert_array_equal(fwht(X), fwht(np.ascontiguousarray(X.T), 1).T)


def test_what_lies_around_a_large_result_is_kept():
    memory = np.full(4096 * 544 + 100, 7, np.float32)
    X, out = noise((4096, 544), memory.dtype), memory[50:-50].reshape(4096, 544)
    np.testing.assert_array_equal(fwht(X, out=out), fwht(X))
    assert (memory[:50] == 7).all()
    assert (memory[-50:] == 7).all()


def test_inputs_that_cannot_be_written_to(kind):
    X = noise((64, 3), kind)
    expected = fwht(X)
    X.setflags(write=False)
    np.testing.assert_array_equal(fwht(X), expected)
    row = noise((1, 5), kind)
    shared = np.broadcast_to(row, (32, 5))
    Y = fwht(shared)
    np.testing.assert_array_equal(Y[1:], 0)
    np.testing.assert_array_equal(Y[0], (32 * row)[0])
    np.testing.assert_array_equal(fwht(np.broadcast_to(row.reshape(5, 1)[:1], (4, 8)), axis=1)[:, 0], np.full(4, 8 * row[0, 0]))


@pytest.mark.parametrize("view", ["big-endian", "unaligned", "list", "matrix"])
def test_other_presentations_of_an_array(view):
    X = noise((16, 3), np.dtype(float))
    raw = np.zeros(X.nbytes + 1, np.uint8)[1:].view(float).reshape(X.shape)
    raw[...] = X
    given = {"big-endian": X.astype(">f8"), "unaligned": raw, "list": X.tolist(), "matrix": sp.csr_matrix(X).todense()}[view]
    Y = fwht(given)
    assert type(Y) is np.ndarray
    assert Y.dtype.isnative
    np.testing.assert_array_equal(Y, fwht(X))


def test_out_that_is_not_aligned():
    X = noise((16, 3), np.dtype(float))
    out = np.zeros(X.nbytes + 1, np.uint8)[1:].view(float).reshape(X.shape)
    assert fwht(X, out=out) is out
    np.testing.assert_array_equal(out, fwht(X))


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (0, 8, 3), (3, 8, 0), (2, 0, 1)])
def test_arrays_without_entries_stay_empty(shape, kind):
    axis = next(k for k, n in enumerate(shape) if n in (1, 2, 4, 8))
    X = np.zeros(shape, kind)
    assert fwht(X, axis).shape == shape
    assert fwht(X, axis).dtype == kind
    assert fwht(X, axis, normalize=True, out=X) is X


def test_nan_and_infinity_stay_in_their_vectors(kind):
    X = noise((64, 5), kind)
    clean = fwht(X)
    X[3, 1], X[5, 3] = np.nan, np.inf
    for Y in (fwht(X), fwht(X.T.copy(), 1).T):
        assert not np.any(np.isfinite(Y[:, [1, 3]]))
        np.testing.assert_array_equal(Y[:, [0, 2, 4]], clean[:, [0, 2, 4]])


def test_zeros_have_no_sign():
    # a - b of equal numbers is +0 for every order of the operands; -0 would be the trace of another arithmetic.
    for X in (np.ones(64), np.ones((64, 5)), np.ones((5, 64)).T):
        Y = fwht(X)
        assert not np.any(np.signbit(Y))


def test_a_huge_batch_of_short_vectors():
    X = whole((300_000, 4), np.dtype(np.float32))
    Y = fwht(X, axis=1)
    np.testing.assert_array_equal(Y, X @ scipy.linalg.hadamard(4).astype(np.float32))
    np.testing.assert_array_equal(fwht(np.ascontiguousarray(X.T), axis=0), Y.T)
    np.testing.assert_array_equal(fwht(X.reshape(3, 100_000, 4), axis=2).reshape(X.shape), Y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_transform_of_the_sketch_is_this_one(dtype):
    n = 64
    S = randla.SRTT(rounds=1).sample(n, n, rng=3)
    X, kept = whole((n, 3), np.dtype(dtype)), oracles.kept_rows(n, n, 3)
    signs = np.sign(S.to_dense()[kept.index(0)])
    np.testing.assert_array_equal(S @ X, fwht(signs.astype(dtype)[:, None] * X, normalize=True)[kept])


ERRORS = {
    "scalar": ({"X": 3.0}, ValueError, r"X must have at least 1 dimension; got 0"),
    "length": ({"X": np.ones((4, 3)), "axis": 1}, ValueError, r"X must have a power of two as its length along axis 1; got 3"),
    "no length": ({"X": np.ones((0, 4))}, ValueError, r"power of two as its length along axis 0; got 0"),
    "axis": ({"X": np.ones((4, 4)), "axis": 2}, ValueError, r"axis must be between -2 and 1; got 2"),
    "negative axis": ({"X": np.ones((4, 4)), "axis": -3}, ValueError, r"axis must be between -2 and 1; got -3"),
    "axis type": ({"X": np.ones(4), "axis": 0.0}, TypeError, r"axis must be an integer; got 0\.0"),
    "dtype": ({"X": np.ones(4, np.float16)}, TypeError, r"X must have dtype float32.*float16"),
    "object": ({"X": np.array([1, None])}, TypeError, r"X must have dtype float32.*object"),
    "sparse": ({"X": sp.csr_array(np.eye(4))}, TypeError, r"X must be a dense array; got a sparse csr_array"),
    "ragged": ({"X": [[1.0], [2.0, 3.0]]}, ValueError, r"X must be convertible to an array; got a list"),
    "masked": ({"X": np.ma.ones(4)}, TypeError, r"X must be a numpy array"),
    "out dtype": (
        {"X": np.ones(4), "out": np.ones(4, np.float32)},
        TypeError,
        r"out must be an array of dtype float64; got float32",
    ),
    "integer out": (
        {"X": np.ones(4, int), "out": np.ones(4, int)},
        TypeError,
        r"out must be an array of dtype float64; got int64",
    ),
    "out type": ({"X": np.ones(4), "out": [0.0] * 4}, TypeError, r"out must be an array of dtype float64; got list"),
    "out shape": (
        {"X": np.ones(4), "out": np.ones((4, 1))},
        ValueError,
        r"out must be writeable and of shape \(4,\); got shape \(4, 1\)$",
    ),
    "out const": ({"X": np.ones(4), "out": np.broadcast_to(1.0, 4)}, ValueError, r"out must be writeable.*\(4,\), read-only$"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_impossible_arguments_are_refused(case):
    arguments, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        fwht(**arguments)


def test_a_refused_call_leaves_out_as_it_was():
    out = np.full(4, 7.0)
    with pytest.raises(ValueError, match="axis"):
        fwht(np.ones(4), axis=1, out=out)
    assert np.all(out == 7)
