"""Sketches of rows that come in chunks, and sketches that grow: whatever the order, the same bits."""

import math

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from conftest import DEFAULTS, FAMILIES
from products import assert_product, matrix, twin

import randla

pytestmark = pytest.mark.usefixtures("one_blas_thread")

CUTS = [13, 64, 65, 200, 4096, 4099]


def chunks_of(A, cuts=CUTS):
    """(offset, rows) of the pieces between the cuts."""
    return [(start, A[start:stop]) for start, stop in zip([0, *cuts], [*cuts, A.shape[0]], strict=True)]


def accumulated(S, chunks, n, dtype=float, make=np.asarray):
    acc = S.accumulator(n, dtype=dtype)
    for offset, rows in chunks:
        acc.add(make(rows), offset=offset)
    return acc.result()


def orders(count, shuffles):
    rng = np.random.default_rng(4)
    return [np.arange(count), np.arange(count)[::-1], *(rng.permutation(count) for _ in range(shuffles))]


@pytest.mark.parametrize(
    "make", [np.ascontiguousarray, np.asfortranarray, sp.csr_array, sp.csc_array], ids=["C", "F", "csr", "csc"]
)
def test_chunks_in_any_order_give_the_same_bits_and_the_product(family, make, dtype):
    d, m, n = 50, 4101, 4
    A = matrix(m, n, dtype)
    S = family.sample(d, m, rng=1)
    chunks = chunks_of(A)
    results = [accumulated(S, [chunks[k] for k in order], n, dtype, make) for order in orders(len(chunks), 2)]
    assert results[0].dtype == dtype
    assert_product(family, results[0], twin(family, d, m), A)
    assert {result.tobytes() for result in results} == {results[0].tobytes()}


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
def test_complex_chunks_in_any_order_give_the_same_bits(family, kind):
    d, m = 30, 700
    A = (matrix(m, 3) + 1j * matrix(m, 3, seed=5)).astype(kind)
    S, chunks = family.sample(d, m, rng=1), chunks_of(A, [1, 100, 101, 480])
    results = [accumulated(S, [chunks[k] for k in order], 3, kind) for order in orders(len(chunks), 3)]
    assert results[0].dtype == kind
    assert_product(family, results[0].real, twin(family, d, m), A.real)
    assert_product(family, results[0].imag, twin(family, d, m), A.imag)
    assert {result.tobytes() for result in results} == {results[0].tobytes()}


@pytest.mark.parametrize("name", ["stack", "sign", "gaussian", "srht16", "less"])
def test_thousands_of_single_rows_in_any_order_give_the_same_bits(name):
    d, m = 24, 3000
    # Sizes from 1e-8 to 1e8, growing on the way: a plain sum depends on the order in its last digits.
    A = matrix(m, 3) * np.logspace(-8, 8, m)[:, None]
    S = FAMILIES[name].sample(d, m, rng=1)
    rows = chunks_of(A, range(1, m))
    results = [accumulated(S, [rows[k] for k in order], 3) for order in orders(m, 1)]
    assert {result.tobytes() for result in results} == {results[0].tobytes()}
    exact = (twin(FAMILIES[name], d, m).astype(np.longdouble) @ A.astype(np.longdouble)).astype(float)
    largest = np.abs(exact).max(axis=0)
    np.testing.assert_array_less(np.abs(results[0] - exact), np.finfo(float).eps * (np.abs(exact) + 20 * largest))


def test_plain_sums_would_depend_on_the_order():
    # Otherwise the tests of order here could not fail.
    rows = matrix(300, 1) * np.logspace(-8, 8, 300)[:, None]
    assert len({float(sum(rows[order, 0].tolist())) for order in orders(300, 3)}) > 1


SCALES = np.array([1e-300, 5e-324, 1e-160, 1.0, 0.0, 1e150, 1e270, 1e300, 1e306])


@pytest.mark.parametrize("name", ["stack", "srht", "rademacher", "rows"])
def test_columns_of_any_size_keep_their_digits_in_any_order(name):
    d, m = 16, 60
    family = FAMILIES[name]
    A = np.random.default_rng(0).integers(-9, 10, (m, SCALES.size)) * SCALES
    S, rows = family.sample(d, m, rng=1), chunks_of(A, range(1, m))
    results = [accumulated(S, [rows[k] for k in order], SCALES.size) for order in orders(m, 5)]
    assert {result.tobytes() for result in results} == {results[0].tobytes()}
    D = twin(family, d, m)
    # Below the normal range every term is rounded to a multiple of the smallest number, in the product as well.
    tiny = np.finfo(float).smallest_subnormal * np.count_nonzero(D, axis=1)[:, None]
    bound = 16 * np.finfo(float).eps * (np.abs(D) @ np.abs(A)) + tiny
    assert np.all(np.abs(results[0] - D @ A) <= bound)
    assert not np.any(results[0][:, SCALES == 0])


@pytest.mark.parametrize("falling", [False, True])
def test_small_entries_survive_beside_large_ones_of_other_rows(falling):
    # One CountSketch row per input row: nothing is added, so nothing may be lost, whichever comes first.
    m = 40
    S = randla.CountSketch().sample(4000, m, rng=0)
    D = S.to_dense()
    assert np.count_nonzero(D, axis=1).max() == 1
    A = 2.0 ** np.linspace(0, 60, m).astype(int)[:, None]
    rows = chunks_of(A, range(1, m))
    np.testing.assert_array_equal(accumulated(S, rows[::-1] if falling else rows, 1), D @ A)


@pytest.mark.parametrize("name", ["stack", "gaussian", "srht", "srtt"])
def test_nan_and_infinity_come_through_in_any_order(name, dtype):
    d, m = 30, 120
    family = FAMILIES[name]
    A = matrix(m, 5, dtype)
    A[7, 0], A[20, 1], A[90, 1], A[33, 2], A[34, 3], A[70, 3] = np.nan, np.inf, np.inf, -np.inf, np.inf, -np.inf
    S, chunks = family.sample(d, m, rng=1), chunks_of(A, [10, 30, 34, 60, 61])
    results = [accumulated(S, [chunks[k] for k in order], 5, dtype) for order in orders(len(chunks), 6)]
    assert {result.tobytes() for result in results} == {results[0].tobytes()}
    SA = S @ A
    np.testing.assert_array_equal(np.isfinite(results[0]), np.isfinite(SA))
    good = np.isfinite(SA)
    assert np.all(np.isnan(results[0][np.isnan(SA)]))
    scale = np.abs(twin(family, d, m)).max() * math.sqrt(m)
    np.testing.assert_allclose(results[0][good], SA[good], atol=100 * np.finfo(dtype).eps * scale)
    assert np.all(np.isfinite(results[0][:, 4]))


def test_sums_that_overflow_are_infinite_and_the_rest_is_not():
    S = randla.CountSketch().sample(1, 4, rng=0)
    signs = np.sign(S.to_dense()[0])
    A = signs[:, None] * np.array([1.7e308, 1e300, 3.0])
    np.testing.assert_allclose(accumulated(S, chunks_of(A, [1, 2, 3]), 3), [[np.inf, 4e300, 12.0]])
    single = signs[:, None] * np.float32([3e38, 1.0])
    result = accumulated(S, chunks_of(single, [1, 2, 3]), 2, np.float32)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.float32([[np.inf, 4.0]]))


def test_huge_terms_that_cancel_leave_what_is_exact():
    S = randla.CountSketch().sample(1, 3, rng=0)
    signs = np.sign(S.to_dense()[0])
    A = (signs * np.array([1.5e308, 1.5e308, -1.5e308]))[:, None]
    for order in orders(3, 4):
        assert accumulated(S, [chunks_of(A, [1, 2])[k] for k in order], 1)[0, 0] == 1.5e308


def test_rows_that_come_twice_count_twice_and_empty_chunks_do_not_count():
    A = matrix(40, 3)
    S = randla.SparseStack().sample(16, 40, rng=1)
    chunks = [(0, A), (40, A[:0]), (7, np.zeros((0, 3))), (0, A)]
    assert_product(None, accumulated(S, chunks, 3), 2 * twin(randla.SparseStack(), 16, 40), A)
    assert accumulated(S, [], 3).tolist() == np.zeros((16, 3)).tolist()
    assert accumulated(S, [(0, np.zeros((40, 0)))], 0).shape == (16, 0)


def test_results_of_several_accumulators_add_up(family):
    A = matrix(300, 3)
    S = family.sample(48, 300, rng=1)
    parts = [accumulated(S, chunks, 3) for chunks in ([(0, A[:100])], [(100, A[100:])])]
    assert_product(family, sum(parts), twin(family, 48, 300), A)


def test_partial_results_do_not_change_what_follows(family):
    A = matrix(300, 3)
    S = family.sample(48, 300, rng=1)
    acc = S.accumulator(3)
    acc.add(A[:100], offset=0)
    partial = acc.result()
    kept = partial.copy()
    partial[:] = np.nan
    acc.add(A[100:], offset=100)
    assert_product(family, acc.result(), twin(family, 48, 300), A)
    assert_product(family, kept, twin(family, 48, 300)[:, :100], A[:100])


FAR = 2**33 + 4000


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in ("srtt", "dct")])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_array], ids=["dense", "csr"])
def test_rows_beyond_32_bits_are_reached(name, make):
    family, m = FAMILIES[name], 2**34
    # Families that pick rows are asked for a chunk in which they picked one.
    picked = {"less": oracles.less_uniform_entries, "rows": oracles.row_sample_entries}.get(name)
    offset = FAR if picked is None else max(c for _, c, _ in picked(48, m, 1)) - 150
    assert offset > 2**32
    rows = matrix(300, 3)
    D = oracles.sketch(family, 48, m, 1, columns=np.arange(offset, offset + 300))
    assert np.any(D)
    assert_product(family, accumulated(family.sample(48, m, rng=1), [(offset, rows)], 3, make=make), D, rows)


def test_chunks_take_the_dtype_of_the_accumulator():
    S, A = randla.SparseStack().sample(16, 40, rng=1), matrix(40, 3)
    single = accumulated(S, [(0, A)], 3, np.float32)
    np.testing.assert_array_equal(single, accumulated(S, [(0, A.astype(np.float32))], 3, np.float32))
    whole = accumulated(S, [(0, np.arange(120).reshape(40, 3))], 3, int)
    assert whole.dtype == np.float64
    assert_product(None, whole, twin(randla.SparseStack(), 16, 40), np.arange(120.0).reshape(40, 3))
    real = accumulated(S, [(0, A)], 3, complex)
    assert real.dtype == np.complex128
    np.testing.assert_array_equal(real, accumulated(S, [(0, A)], 3))


ERRORS = {
    "dtype": (lambda S: S.accumulator(3, np.float16), TypeError, r"dtype.*float32.*float16"),
    "n": (lambda S: S.accumulator(-1), ValueError, r"n must be at least 0.*-1"),
    "n type": (lambda S: S.accumulator(3.0), TypeError, r"n must be an integer.*3\.0"),
    "complex rows": (lambda S: S.accumulator(3).add(np.ones((5, 3), complex), 0), TypeError, r"rows.*real.*complex128"),
    "width": (lambda S: S.accumulator(3).add(np.ones((5, 4)), 0), ValueError, r"rows.*3 columns.*\(5, 4\)"),
    "end": (lambda S: S.accumulator(3).add(np.ones((5, 3)), 36), ValueError, r"rows.*end by row 40.*offset 36"),
    "vector": (lambda S: S.accumulator(1).add(np.ones(5), 0), ValueError, r"rows must have 2 dimensions; got 1"),
    "offset": (lambda S: S.accumulator(3).add(np.ones((5, 3)), -1), ValueError, r"offset must be at least 0.*-1"),
    "offset type": (lambda S: S.accumulator(3).add(np.ones((5, 3)), 1.0), TypeError, r"offset must be an integer"),
    "no matrix": (lambda S: S.accumulator(3).add("rows", 0), TypeError, r"rows.*float32"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_impossible_chunks_are_refused(case):
    call, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        call(randla.SparseStack().sample(16, 40, rng=1))


def test_a_refused_chunk_leaves_the_sum_as_it_was():
    S, A = randla.SparseStack().sample(16, 40, rng=1), matrix(40, 3)
    acc = S.accumulator(3)
    acc.add(A, 0)
    before = acc.result()
    with pytest.raises(ValueError, match="rows"):
        acc.add(A, 1)
    np.testing.assert_array_equal(acc.result(), before)


@pytest.mark.parametrize(("nnz", "height", "more"), [(1, 1, 1), (8, 5, 1), (8, 5, 3), (3, 97, 4), (8, 1, 2), (2, 40, 254)])
def test_an_appended_sketch_begins_with_the_old_one(nnz, height, more):
    S = randla.SparseStack(nnz).sample(nnz * height, 200, rng=7)
    T = S.append(more)
    assert randla.SparseStack(nnz + more).sample((nnz + more) * height, 200, rng=7) == T
    first = math.sqrt((nnz + more) / nnz) * T.to_dense()[: nnz * height]
    np.testing.assert_allclose(first, S.to_dense(), rtol=4 * np.finfo(float).eps)
    np.testing.assert_allclose(T.to_dense(), oracles.sparse_stack(*T.shape, 7, nnz + more), rtol=4 * np.finfo(float).eps)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize(
    "make", [np.ascontiguousarray, np.asfortranarray, sp.csr_array, sp.csc_array], ids=["C", "F", "csr", "csc"]
)
@pytest.mark.parametrize(("nnz", "more"), [(8, 1), (3, 5), (1, 1)])
def test_extended_products_equal_those_of_the_new_sketch(kind, make, nnz, more):
    A = (matrix(300, 9) + (1j * matrix(300, 9, seed=3) if np.dtype(kind).kind == "c" else 0)).astype(kind)
    S = randla.SparseStack(nnz).sample(12 * nnz, 300, rng=7)
    T = S.append(more)
    TA = T.extend(S @ A, make(A))
    assert TA.dtype == kind
    D = twin(T.distribution, *T.shape, 7)
    assert_product(None, TA.real, D, A.real)
    assert_product(None, TA.imag, D, A.imag)
    # The new rows are those that the whole product has, bit for bit.
    np.testing.assert_array_equal(TA[12 * nnz :], (T @ make(A))[12 * nnz :])


def test_sketches_grow_in_several_steps_and_by_vectors():
    A, x = matrix(300, 4), matrix(300, 1)[:, 0]
    S = randla.CountSketch().sample(20, 300, rng=7)
    U = S.append().append(2)
    assert S.append(3) == U
    assert_product(None, U.extend(S @ A, A), twin(U.distribution, *U.shape, 7), A)
    assert_product(None, U.extend(S @ x, x), twin(U.distribution, *U.shape, 7), x)
    step = U.extend(S.append().extend(S @ A, A), A)
    assert_product(None, step, twin(U.distribution, *U.shape, 7), A)
    assert U.extend(np.zeros((20, 0)), np.zeros((300, 0))).shape == (80, 0)


def test_appended_blocks_improve_the_embedding():
    Q = np.linalg.qr(matrix(2000, 20))[0]
    S = randla.SparseStack(4).sample(80, 2000, rng=3)
    found = [np.linalg.cond(S @ Q), np.linalg.cond(S.append(4) @ Q), np.linalg.cond(S.append(12) @ Q)]
    assert found[2] < found[1] < found[0]


GROWTH = {
    "family": (
        lambda S, A: randla.Gaussian().sample(8, 40).append(),
        TypeError,
        r"append needs a SparseStack; got Gaussian\(\)",
    ),
    "sign": (
        lambda S, A: randla.SparseSign(2).sample(8, 40).extend(A, A),
        TypeError,
        r"extend needs a SparseStack.*SparseSign",
    ),
    "unequal": (lambda S, A: randla.SparseStack(8).sample(17, 40).append(), ValueError, r"multiple of nnz = 8; got 17"),
    "fewer rows": (lambda S, A: randla.SparseStack(8).sample(4, 40).append(), ValueError, r"multiple of nnz = 8; got 4"),
    "no blocks": (lambda S, A: S.append(0), ValueError, r"blocks must be at least 1; got 0"),
    "blocks type": (lambda S, A: S.append(1.5), TypeError, r"blocks must be an integer; got 1\.5"),
    "too many": (lambda S, A: S.append(253), ValueError, r"nnz must be between 1 and 256; got 257"),
    "itself": (lambda S, A: S.extend(S @ A, A), ValueError, r"multiple of 4 below 16; got shapes \(16, 3\)"),
    "height": (lambda S, A: S.extend(np.ones((6, 3)), A), ValueError, r"multiple of 4 below 16; got shapes \(6, 3\)"),
    "empty": (lambda S, A: S.extend(np.ones((0, 3)), A), ValueError, r"multiple of 4.*\(0, 3\)"),
    "rows of A": (lambda S, A: S.extend(np.ones((8, 3)), A[1:]), ValueError, r"\(40, n\).*\(39, 3\)"),
    "columns of A": (lambda S, A: S.extend(np.ones((8, 2)), A), ValueError, r"\(8, 2\) and \(40, 3\)"),
    "vector": (lambda S, A: S.extend(np.ones(8), A), ValueError, r"\(8,\) and \(40, 3\)"),
    "scalar": (lambda S, A: S.extend(1.0, A), ValueError, r"\(\) and \(40, 3\)"),
    "three axes": (lambda S, A: S.extend(np.ones((8, 3, 1)), A[..., None]), ValueError, r"\(8, 3, 1\) and \(40, 3, 1\)"),
    "complex A": (lambda S, A: S.extend(np.ones((8, 3)), A * 1j), TypeError, r"A must be real.*float64; got complex128"),
    "no array": (lambda S, A: S.extend("SA", A), TypeError, r"SA must have dtype"),
}


@pytest.mark.parametrize("case", GROWTH)
def test_impossible_growth_is_refused(case):
    call, error, message = GROWTH[case]
    with pytest.raises(error, match=message):
        call(randla.SparseStack(4).sample(16, 40, rng=1), matrix(40, 3))
