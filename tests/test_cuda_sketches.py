"""Sketch kernels of CUDA, compiled for the processor, against those of randla._cpu: the same bits unless a test says else."""

import emulated
import numpy as np
import pytest
import scipy.sparse as sp
from emulated import OnDevice

from randla import _cpu

pytestmark = pytest.mark.usefixtures("kernels")

DTYPES = [np.float32, np.float64]
STACK, SIGN = 0, 1


def device(*arrays):
    return [OnDevice(a) for a in arrays]


def laid_out(A, layout):
    """A with its rows contiguous, on addresses of whole packs or not, its columns contiguous, or neither."""
    m, n = A.shape
    if layout == "C":
        return np.ascontiguousarray(A)
    if layout == "F":
        return np.asfortranarray(A)
    if layout == "off":
        return np.concatenate([A[:, :1], A], axis=1)[:, 1:]
    wide = np.full((2 * m, 3 * n), np.nan, A.dtype)
    wide[::2, ::3] = A
    return wide[::2, ::3]


LAYOUTS = ["C", "F", "off", "strided"]


def matrix(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def both(name, before, A, after, start, extra=()):
    """What the function of that name adds to `start`, by the processor's kernel and by the device's."""
    expected, found = start.copy(), start.copy()
    getattr(_cpu, name)(*before, A, *after, expected)
    getattr(emulated.module(), name)(*before, *extra, *device(A), *after, *device(found))
    return expected, found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize(
    ("d", "i0", "rows", "j0", "cols"),
    [(50, 3, 40, 7, 33), (300, 0, 300, 2**40, 5), (7, 6, 1, 0, 1), (400, 31, 200, 0, 257), (5, 0, 0, 0, 3), (5, 0, 3, 0, 0)],
)
def test_dense_entries(dtype, family, d, i0, rows, j0, cols):
    expected, found = np.empty((rows, cols), dtype), np.full((cols, rows), np.nan, dtype).T
    _cpu.dense_sketch(family, d, 5, expected, i0, j0)
    emulated.module().dense_sketch(family, d, 5, OnDevice(found), i0, j0)
    assert np.array_equal(found, expected)
    found = np.full((rows, cols), np.nan, dtype)
    emulated.module().dense_sketch(family, d, 5, OnDevice(found), i0, j0)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("family", "d", "m", "nnz", "first", "n", "j0", "rows"),
    [
        (STACK, 50, 1000, 1, 0, 128, 0, 1000),
        (STACK, 50, 1000, 1, 0, 9, 0, 1000),
        (STACK, 50, 2**60, 8, 0, 20, 2**59, 700),
        (STACK, 60, 300, 5, 2, 33, 10, 290),
        (SIGN, 60, 300, 7, 0, 260, 10, 290),
        (SIGN, 9, 300, 9, 0, 1, 0, 1),
        (STACK, 1, 40, 1, 0, 3, 0, 40),
        (STACK, 3000, 40, 2, 0, 4, 0, 40),
    ],
)
def test_sparse_sketch(dtype, layout, family, d, m, nnz, first, n, j0, rows):
    A = laid_out(matrix((rows, n), dtype), layout)
    left = d - (first * (d // nnz) + min(first, d % nnz))
    start = matrix((left, n), dtype, 1)
    arguments = family, d, m, nnz, first, 9
    expected, found = both("sparse_sketch", arguments, A, (j0,), start)
    assert np.array_equal(found, expected)
    # Kept for several products.
    starts, entries = np.empty(left + 1, np.int64), np.empty(rows * (nnz - first), np.uint32)
    emulated.module().sort_entries(*arguments, j0, rows, 0, *device(starts, entries))
    found = start.copy()
    emulated.module().sorted_sketch(*arguments[:-1], 0, *device(starts, entries, A, found))
    assert np.array_equal(found, expected)
    S, signs = _cpu.sparse_columns(family, d, m, nnz, 9, j0, j0 + rows)
    listed = sorted((row, j, sign < 0) for j in range(rows) for row, sign in zip(S[j, first:], signs[j, first:], strict=True))
    assert [2 * j + minus for _, j, minus in listed] == entries.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "F", "aligned"])
@pytest.mark.parametrize(
    ("family", "d", "nnz", "first", "n", "j0", "rows", "window"),
    [
        (STACK, 50, 8, 0, 20, 2**59, 700, 64),
        (STACK, 61, 5, 2, 36, 10, 290, 8),
        (SIGN, 60, 7, 0, 8, 0, 100, 1024),
        (SIGN, 3000, 8, 0, 20, 10, 2100, 1024),
        (STACK, 300, 256, 0, 4, 0, 50, 32),
        (SIGN, 2, 2, 0, 4, 5, 1, 16),
        (STACK, 9000, 2, 0, 12, 0, 600, 256),
    ],
)
def test_sparse_sketch_by_windows(dtype, layout, family, d, nnz, first, n, j0, rows, window):
    A = laid_out(matrix((rows, n), dtype), "F" if layout == "F" else "C")
    if layout == "aligned":
        A = np.concatenate([A, A], axis=1)[:, :n]
    left = d - (first * (d // nnz) + min(first, d % nnz))
    start, arguments = matrix((left, n), dtype, 1), (family, d, 2**60, nnz, first, 9)
    each, windows = nnz - first, -(-rows // window)
    starts, entries = np.zeros((windows, (left + 8) // 8 * 8), np.uint16), np.zeros((windows, window * each), np.uint16)
    emulated.module().sort_entries(*arguments, j0, rows, window, *device(starts, entries))
    S, signs = _cpu.sparse_columns(family, d, 2**60, nnz, 9, j0, j0 + rows)
    for w, (begin, listed) in enumerate(zip(starts, entries, strict=True)):
        inside = range(w * window, min((w + 1) * window, rows))
        wanted = sorted((S[j, t] - (d - left), j - inside[0], signs[j, t] < 0) for j in inside for t in range(first, nnz))
        assert [2 * j + minus for _, j, minus in wanted] == listed[: len(wanted)].tolist()
        assert begin[: left + 1].tolist() == np.searchsorted([row for row, _, _ in wanted], range(left + 1)).tolist()
    expected, found = start.copy(), start.copy()
    _cpu.sparse_sketch(*arguments, A, j0, expected)
    emulated.module().sorted_sketch(*arguments[:-1], window, *device(starts, entries, A, found))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "nnz"), [(1024, 200, 8), (512, 700, 3)])
def test_wide_matrices_are_taken_by_windows(dtype, n, d, nnz):
    A, start = matrix((1100, n), dtype), matrix((d, n), dtype, 1)
    window = emulated.module().window_rows(STACK, d, 1100, nnz, 0, *device(A))
    assert window == 1024
    expected, found = both("sparse_sketch", (STACK, d, 1100, nnz, 0, 9), A, (0,), start)
    assert np.array_equal(found, expected)


def test_what_does_not_suit_windows():
    rows_of = emulated.module().window_rows
    A = matrix((300, 1024), np.float64)
    assert rows_of(STACK, 100, 300, 1, 0, *device(A)) == 0
    for taken in (A[:, 1:], A[:, :1], A[:0], A[:, :512:2]):
        assert rows_of(STACK, 100, 300, 8, 0, *device(taken)) == 0
    assert rows_of(SIGN, 100_000, 300, 8, 0, *device(A)) == 0
    assert rows_of(SIGN, 300, 300, 256, 0, *device(A)) == 32
    sort = emulated.module().sort_entries
    starts, entries = np.zeros((30, 104), np.uint16), np.zeros((30, 80), np.uint16)
    for window in (-8, 10, 2048):
        with pytest.raises(ValueError, match="windows must be of whole packs and few entries"):
            sort(STACK, 100, 300, 8, 0, 1, 0, 300, window, *device(starts, entries))
    with pytest.raises(ValueError, match="windows do not suit the matrix"):
        emulated.module().sorted_sketch(STACK, 100, 300, 8, 0, 8, *device(starts, entries, A[:, 1:], np.zeros((100, 1023))))


def test_sparse_sketch_of_nothing():
    for rows, n in [(0, 3), (3, 0), (0, 0)]:
        start = matrix((10, n), np.float64)
        expected, found = both("sparse_sketch", (STACK, 10, 20, 2, 0, 1), np.zeros((rows, n)), (0,), start)
        assert np.array_equal(found, expected)


def csr(rows, n, per_row, dtype, index):
    rng = np.random.default_rng(3)
    A = sp.random_array((rows, n), density=per_row / max(n, 1), format="csr", rng=rng, dtype=dtype)
    return A.data, A.indptr.astype(index), A.indices.astype(index)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("d", "rows", "n", "per_row"), [(30, 500, 40, 4), (7, 60, 900, 200), (50, 100, 9000, 20), (5, 3, 1, 1)]
)
def test_csr(dtype, index, d, rows, n, per_row):
    A = csr(rows, n, per_row, dtype, index)
    start = matrix((d, n), dtype)
    expected, found = start.copy(), start.copy()
    for family, nnz in [(STACK, 1), (STACK, 3), (SIGN, 4)]:
        arguments = family, d, rows + 5, nnz, 0, 2
        _cpu.sparse_sketch_csr(*arguments, *A, n, 3, expected)
        emulated.module().sparse_sketch_csr(*arguments, *device(*A), n, 3, OnDevice(found))
        assert np.array_equal(found, expected)
        starts, entries = np.empty(d + 1, np.int64), np.empty(rows * nnz, np.uint32)
        emulated.module().sort_entries(*arguments, 3, rows, 0, *device(starts, entries))
        _cpu.sparse_sketch_csr(*arguments, *A, n, 3, expected)
        emulated.module().sorted_sketch_csr(*arguments[:-1], *device(starts, entries, *A), n, OnDevice(found))
        assert np.array_equal(found, expected)
    listed = sp.random_array((d, rows), density=0.3, format="csr", rng=np.random.default_rng(4))
    parts = listed.indptr.astype(np.int64), listed.indices.astype(np.int64), listed.data
    _cpu.gather_csr(_cpu.Entries(*parts), *A, n, expected)
    emulated.module().gather_csr(emulated.module().Entries(*device(*parts)), *device(*A), n, OnDevice(found))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("d", "rows", "n"), [(40, 300, 64), (3, 5, 1), (150, 20, 37), (1, 900, 500)])
def test_gather(dtype, layout, d, rows, n):
    A, start = laid_out(matrix((rows, n), dtype), layout), matrix((d, n), dtype, 1)
    listed = sp.random_array((d, rows), density=0.2, format="csr", rng=np.random.default_rng(4))
    parts = listed.indptr.astype(np.int64), listed.indices.astype(np.int64), listed.data
    expected, found = start.copy(), start.copy()
    _cpu.gather(_cpu.Entries(*parts), A, expected)
    emulated.module().gather(emulated.module().Entries(*device(*parts)), *device(A, found))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("family", "d", "nnz", "n", "j0", "rows"),
    [
        (STACK, 50, 8, 20, 10, 100),
        (STACK, 7, 1, 33, 0, 40),
        (SIGN, 40, 5, 3, 5, 17),
        (SIGN, 300, 256, 2, 0, 3),
        (STACK, 5, 5, 4, 0, 0),
    ],
)
def test_sparse_sketch_adjoint(dtype, layout, family, d, nnz, n, j0, rows):
    Y = laid_out(matrix((d, n), dtype), layout)
    expected, found = both("sparse_sketch_adjoint", (family, d, 200, nnz, 0, 4), Y, (j0,), np.full((rows, n), np.nan, dtype))
    assert np.array_equal(found, expected)


SRHT_SHAPES = [
    (100, 5000, 7, 0, 5000),
    (64, 9000, 3, 1000, 7000),
    (300, 4096, 130, 0, 4096),
    (1, 100, 2, 0, 100),
    (500, 70, 5, 0, 70),
    (1700, 12000, 2, 3000, 8500),
    (9000, 6000, 2, 0, 6000),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize(("d", "m", "n", "j0", "rows"), SRHT_SHAPES)
def test_block_srht(dtype, block, d, m, n, j0, rows):
    A, start = matrix((rows, n), dtype), matrix((d, n), dtype, 1)
    blocks = -(-d // block)
    for layout in LAYOUTS:
        expected, found = start.copy(), start.copy()
        _cpu.block_srht(d, m, block, 9, A, j0, 0, blocks, expected)
        emulated.module().block_srht(d, m, block, 9, OnDevice(laid_out(A, layout)), j0, 0, blocks, OnDevice(found))
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("block", "d", "n"), [(16, 90, 5), (64, 64, 3)])
def test_block_srht_in_pieces(dtype, block, d, n):
    """Of many windows several sums are made and added up, in an order that the shapes alone decide."""
    rows = 64 * block * 37 + 100
    A, start, blocks = matrix((rows, n), dtype), matrix((d, n), dtype, 1), -(-d // block)
    expected, found, exact = start.copy(), start.copy(), start.astype(np.float64)
    _cpu.block_srht(d, rows, block, 9, A, 0, 0, blocks, expected)
    _cpu.block_srht(d, rows, block, 9, A.astype(np.float64), 0, 0, blocks, exact)
    emulated.module().block_srht(d, rows, block, 9, OnDevice(A), 0, 0, blocks, OnDevice(found))
    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert error <= 2 * np.finfo(dtype).eps * np.log2(rows)
    assert not np.array_equal(found, expected)
    again = start.copy()
    emulated.module().block_srht(d, rows, block, 9, OnDevice(np.asfortranarray(A)), 0, 0, blocks, OnDevice(again))
    assert np.array_equal(again, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize(("d", "m", "n", "j0", "rows"), SRHT_SHAPES)
def test_block_srht_adjoint(dtype, block, d, m, n, j0, rows):
    Y = matrix((d, n), dtype)
    expected = np.zeros((rows, n), dtype)
    _cpu.block_srht_adjoint(d, m, block, 9, Y, j0, expected)
    for layout in LAYOUTS:
        found = np.full((rows, n), np.nan, dtype)
        emulated.module().block_srht_adjoint(d, m, block, 9, OnDevice(laid_out(Y, layout)), j0, OnDevice(found))
        assert np.array_equal(found, expected)


SRTT_SHAPES = [
    (20, 1000, 2, 70, 0, 1000),
    (300, 5000, 1, 5, 100, 4000),
    (5, 64, 3, 33, 0, 64),
    (9, 1, 1, 3, 0, 1),
    (70, 30, 2, 4, 3, 20),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("d", "m", "rounds", "n", "j0", "rows"), SRTT_SHAPES)
def test_srtt(dtype, layout, d, m, rounds, n, j0, rows):
    A = laid_out(matrix((rows, n), dtype), layout)
    kept = _cpu.transform_rows(d, 1 << max(m - 1, 0).bit_length(), 6)
    expected, found = both("srtt", (d, m, rounds, 6), A, (j0,), matrix((d, n), dtype, 1), device(kept))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("d", "m", "rounds", "n", "j0", "rows"), SRTT_SHAPES)
def test_srtt_adjoint(dtype, layout, d, m, rounds, n, j0, rows):
    Y = laid_out(matrix((d, n), dtype), layout)
    kept = _cpu.transform_rows(d, 1 << max(m - 1, 0).bit_length(), 6)
    expected, found = both("srtt_adjoint", (d, m, rounds, 6), Y, (j0,), np.full((rows, n), np.nan, dtype), device(kept))
    assert np.array_equal(found, expected)
