"""Products with a sketch equal products with its dense twin, for every way to present the other factor."""

from functools import lru_cache

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator, lsqr

import randla

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SHAPES = [
    (1, 1, 1),
    (5, 1, 3),
    (40, 7, 3),
    (1, 100, 4),
    (30, 63, 5),
    (96, 64, 1),
    (97, 65, 17),
    (128, 1025, 33),
    (64, 4095, 2),
    (65, 4096, 3),
    (130, 4097, 8),
    (50, 9000, 4),
    # More than one strip of columns, range of output blocks, batch of rows.
    (40, 300, 1100),
    (1500, 700, 5),
    (30, 40_000, 3),
]


@lru_cache(maxsize=64)
def twin(distribution, d, m, seed=1):
    S = oracles.sketch(distribution, d, m, seed)
    S.setflags(write=False)
    return S


def matrix(m, n, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((m, n)).astype(dtype)


def dense(X):
    return X.toarray() if sp.issparse(X) else X


def assert_product(got, left, right, eps=None):
    """|got - left right| <= 16 eps |left| |right| elementwise; eps is that of the result."""
    got, left, right = dense(got), dense(left).astype(np.float64), dense(right).astype(np.float64)
    expected = left @ right
    eps = np.finfo(got.dtype).eps if eps is None else eps
    assert got.shape == expected.shape
    error = np.abs(got - expected)
    bound = 16 * eps * (np.abs(left) @ np.abs(right))
    assert np.all(error <= bound), f"largest error / bound = {np.max(error / np.maximum(bound, 1e-300)):.3g}"


@pytest.mark.parametrize(("d", "m", "n"), SHAPES)
def test_dense_product_equals_twin(distribution, d, m, n, dtype, order):
    A = np.asarray(matrix(m, n, dtype), order=order)
    before = A.copy()
    SA = distribution.sample(d, m, rng=1) @ A
    assert isinstance(SA, np.ndarray)
    assert SA.dtype == dtype
    assert_product(SA, twin(distribution, d, m), A)
    np.testing.assert_array_equal(A, before)


@pytest.mark.parametrize(("d", "m", "n"), SHAPES)
def test_adjoint_product_equals_twin(distribution, d, m, n, dtype, order):
    Y = np.asarray(matrix(d, n, dtype), order=order)
    SY = distribution.sample(d, m, rng=1).T @ Y
    assert SY.dtype == dtype
    assert_product(SY, twin(distribution, d, m).T, Y)


def read_only(A):
    A = A.copy()
    A.setflags(write=False)
    return A


def every_other(A):
    wide = np.full((2 * A.shape[0], 3 * A.shape[1]), np.nan, A.dtype)
    wide[::2, 1::3] = A
    return wide[::2, 1::3]


def padded_rows(A):
    wide = np.full((A.shape[0], A.shape[1] + 3), np.nan, A.dtype)
    wide[:, 2:-1] = A
    return wide[:, 2:-1]


def unaligned(A):
    raw = np.zeros(A.nbytes + 1, np.uint8)[1:]
    view = raw.view(A.dtype).reshape(A.shape)
    view[...] = A
    return view


def shuffled_csr(A):
    """CSR whose rows list their columns in descending order."""
    S = sp.csr_array(A)
    for i in range(S.shape[0]):
        part = slice(S.indptr[i], S.indptr[i + 1])
        S.indices[part], S.data[part] = S.indices[part][::-1].copy(), S.data[part][::-1].copy()
    S.has_sorted_indices = False
    return S


def duplicated_csr(A):
    """CSR in which every entry appears as two halves."""
    S = sp.csr_array(A)
    return sp.csr_array((np.repeat(S.data / 2, 2), np.repeat(S.indices, 2), 2 * S.indptr), shape=S.shape)


def wide_index(A):
    S = sp.csr_array(A)
    S.indices, S.indptr = S.indices.astype(np.int64), S.indptr.astype(np.int64)
    return S


# Ways to present the same matrix.
VIEWS = {
    "every other": every_other,
    "padded rows": padded_rows,
    "padded columns": lambda A: padded_rows(A.T).T,
    "rows reversed": lambda A: A[::-1].copy()[::-1],
    "columns reversed": lambda A: np.asfortranarray(A[:, ::-1])[:, ::-1],
    "read-only": read_only,
    "big-endian": lambda A: A.astype(A.dtype.newbyteorder(">")),
    "unaligned": unaligned,
}
SPARSE = {
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "descending csr": shuffled_csr,
    "duplicated csr": duplicated_csr,
    "64-bit csr": wide_index,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("d", "m", "n"), [(40, 333, 6), (65, 4100, 3)])
def test_memory_layout_does_not_change_the_product(family, view, d, m, n, dtype):
    A = VIEWS[view](matrix(m, n, dtype))
    SA = family.sample(d, m, rng=1) @ A
    assert SA.dtype == dtype
    assert SA.dtype.isnative
    assert_product(SA, twin(family, d, m), A)


@pytest.mark.parametrize("view", VIEWS)
def test_memory_layout_does_not_change_the_adjoint_product(family, view, dtype):
    Y = VIEWS[view](matrix(40, 6, dtype))
    assert_product(family.sample(40, 333, rng=1).T @ Y, twin(family, 40, 333).T, Y)


@pytest.mark.parametrize("make", SPARSE)
@pytest.mark.parametrize(("d", "m", "n"), [(40, 333, 50), (65, 4100, 30)])
def test_sparse_product_equals_twin(family, make, d, m, n, dtype):
    pattern = np.random.default_rng(2).random((m, n)) < 0.05
    # Empty rows and columns among the others.
    pattern[m // 2 : m // 2 + 20] = False
    pattern[:, 3] = False
    A = matrix(m, n, dtype) * pattern
    SA = family.sample(d, m, rng=1) @ SPARSE[make](A)
    assert SA.dtype == dtype
    assert_product(SA, twin(family, d, m), A)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array, sp.csc_array], ids=["dense", "csr", "csc"])
def test_right_product_equals_twin(family, make, dtype):
    A = make(matrix(9, 333, dtype))
    S = family.sample(40, 333, rng=1)
    AS = A @ S.T
    assert AS.dtype == dtype
    assert_product(AS, A, twin(family, 40, 333).T)


def test_ndarray_times_sketch(family, dtype):
    B = matrix(7, 40, dtype)
    assert_product(B @ family.sample(40, 333, rng=1), B, twin(family, 40, 333))


def test_vectors_stay_vectors(family, dtype):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    x, y = matrix(333, 1, dtype)[:, 0], matrix(40, 1, dtype)[:, 0]
    assert_product(S @ x, D, x)
    assert_product(S.T @ y, D.T, y)
    assert_product(S.H @ y, D.T, y)
    assert_product(x @ S.T, x, D.T)
    assert_product(y @ S, y, D)


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
def test_complex_factors_are_sketched_by_parts(family, kind):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    A = (matrix(333, 4) + 1j * matrix(333, 4, seed=5)).astype(kind)
    Y = (matrix(40, 4) + 1j * matrix(40, 4, seed=6)).astype(kind)
    acc = S.accumulator(4, dtype=kind)
    acc.add(A[100:], offset=100)
    acc.add(A[:100], offset=0)
    for got, left, right in ((S @ A, D, A), (S @ sp.csr_array(A), D, A), (acc.result(), D, A), (S.H @ Y, D.T, Y)):
        assert got.dtype == kind
        assert_product(got.real, left, right.real)
        assert_product(got.imag, left, right.imag)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, np.bool_])
def test_integers_are_promoted_to_float64(family, kind):
    A = np.random.default_rng(3).integers(0, 2 if kind is np.bool_ else 100, (333, 4)).astype(kind)
    for presented in (A, np.asfortranarray(A), sp.csr_array(A)):
        SA = family.sample(40, 333, rng=1) @ presented
        assert SA.dtype == np.float64
        assert_product(SA, twin(family, 40, 333), A.astype(float))


def test_empty_and_zero_factors(family, dtype, order):
    S = family.sample(40, 333, rng=1)
    empty = np.zeros((333, 0), dtype, order=order)
    assert (S @ empty).shape == (40, 0)
    assert (S.T @ np.zeros((40, 0), dtype, order=order)).shape == (333, 0)
    assert (S @ empty).dtype == dtype
    np.testing.assert_array_equal(S @ np.zeros((333, 3), dtype, order=order), np.zeros((40, 3)))
    np.testing.assert_array_equal(S @ sp.csr_array((333, 3), dtype=dtype), np.zeros((40, 3)))


def test_matvec_names_of_scipy(family):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    A, Y = matrix(333, 3), matrix(40, 3)
    assert_product(S.matvec(A[:, 0]), D, A[:, 0])
    assert_product(S.rmatvec(Y[:, 0]), D.T, Y[:, 0])
    assert_product(S.matmat(A), D, A)
    assert_product(S.rmatmat(Y), D.T, Y)


def test_scipy_takes_a_sketch_as_linear_operator(family):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    A, Y = matrix(333, 3), matrix(40, 3)
    operator = aslinearoperator(S)
    assert isinstance(operator, LinearOperator)
    assert operator.shape == (40, 333)
    assert_product(operator @ A, D, A)
    assert_product(operator.H @ Y, D.T, Y)
    assert_product(operator.rmatvec(Y[:, 0]), D.T, Y[:, 0])
    solution = lsqr(operator, Y[:, 0], atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(D @ solution, Y[:, 0], atol=1e-8)


@pytest.mark.parametrize(("d", "m"), [(1, 1), (40, 7), (65, 4100), (300, 1000)])
def test_adjoint_passes_the_dot_test(distribution, d, m, dtype):
    S = distribution.sample(d, m, rng=1)
    x, y = matrix(m, 1, dtype)[:, 0], matrix(d, 1, dtype)[:, 0]
    Sx, Sy = (S @ x).astype(float), (S.T @ y).astype(float)
    scale = np.linalg.norm(Sx) * np.linalg.norm(y) + np.linalg.norm(Sy) * np.linalg.norm(x)
    assert abs(Sx @ y - x @ Sy) <= 100 * np.finfo(dtype).eps * scale


CUTS = [13, 64, 65, 200, 4096, 4099, 7000]


@pytest.mark.parametrize("arrival", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("make", [np.ascontiguousarray, np.asfortranarray, sp.csr_array], ids=["C", "F", "csr"])
def test_accumulated_row_chunks_equal_the_product(family, arrival, make, dtype):
    d, m, n = 50, 9000, 4
    A = matrix(m, n, dtype)
    S = family.sample(d, m, rng=1)
    chunks = list(zip([0, *CUTS], np.split(A, CUTS), strict=True))
    chunks = {
        "ascending": chunks,
        "descending": chunks[::-1],
        "shuffled": [chunks[k] for k in np.random.default_rng(4).permutation(len(chunks))],
    }[arrival]
    acc = S.accumulator(n, dtype=dtype)
    for offset, rows in chunks:
        acc.add(make(rows), offset=offset)
    SA = acc.result()
    assert SA.dtype == dtype
    assert_product(SA, twin(family, d, m), A)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array], ids=["dense", "csr"])
def test_accumulator_reaches_rows_beyond_32_bits(family, make):
    offset, rows = 2**33 + 4000, matrix(300, 3)
    acc = family.sample(48, 2**34, rng=1).accumulator(3)
    acc.add(make(rows), offset=offset)
    columns = np.arange(offset, offset + 300)
    assert_product(acc.result(), oracles.sketch(family, 48, 2**34, 1, columns=columns), rows)


def test_partial_results_do_not_change_what_follows(family):
    A = matrix(300, 3)
    S = family.sample(48, 300, rng=1)
    acc = S.accumulator(3)
    acc.add(A[:100], offset=0)
    partial = acc.result()
    kept = partial.copy()
    acc.add(A[100:], offset=100)
    np.testing.assert_array_equal(partial, kept)
    assert_product(acc.result(), twin(family, 48, 300), A)


def test_sketch_in_one_call(family):
    A = matrix(333, 4)
    SA = randla.sketch(A, 40, family, rng=1)
    assert_product(SA, twin(family, 40, 333), A)


def test_nan_and_infinity_reach_every_entry_they_touch(family):
    A = np.zeros((333, 2))
    A[7, 0], A[9, 1] = np.nan, np.inf
    D = twin(family, 40, 333)
    SA = family.sample(40, 333, rng=1) @ A
    assert np.all(np.isnan(SA[D[:, 7] != 0, 0]))
    assert not np.any(np.isfinite(SA[D[:, 9] != 0, 1]))


def test_complex_chunks_do_not_lose_their_imaginary_part():
    acc = randla.SparseStack().sample(40, 333, rng=1).accumulator(2)
    with pytest.raises(TypeError, match=r"real.*complex128"):
        acc.add(np.ones((5, 2), complex), offset=0)


WRONG_SHAPES = {
    "too few rows": (lambda S: S @ np.ones((332, 2)), ["333", "332"]),
    "short vector": (lambda S: S @ np.ones(7), ["333", "7"]),
    "three axes": (lambda S: S @ np.ones((333, 2, 2)), ["3"]),
    "scalar": (lambda S: S @ 3.0, []),
    "transposed": (lambda S: S.T @ np.ones((333, 2)), ["40", "333"]),
    "from the right": (lambda S: np.ones((2, 40)) @ S.T, ["333", "40"]),
    "sparse": (lambda S: S @ sp.csr_array((332, 2)), ["333", "332"]),
    "chunk width": (lambda S: S.accumulator(4).add(np.ones((5, 3)), offset=0), ["4", "3"]),
    "chunk past the end": (lambda S: S.accumulator(4).add(np.ones((5, 4)), offset=330), ["333"]),
    "negative offset": (lambda S: S.accumulator(4).add(np.ones((5, 4)), offset=-1), ["offset", "-1"]),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_wrong_shapes_are_refused_with_both_sizes(family, case):
    product, words = WRONG_SHAPES[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        product(family.sample(40, 333, rng=1))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "A", [np.ma.ones((333, 2)), "A", None, [[1.0], [2.0, 3.0]], LinearOperator((333, 2), matvec=abs, dtype=float)]
)
def test_what_is_no_array_is_refused(A):
    with pytest.raises((TypeError, ValueError), match=r"\bX\b"):
        randla.SparseStack().sample(40, 333, rng=1) @ A


def test_distribution_must_be_one():
    with pytest.raises(TypeError, match=r"distribution.*SparseStack.*'stack'"):
        randla.sketch(np.ones((9, 2)), 4, "stack")


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, object, "U3"])
def test_unsupported_types_are_refused_with_the_supported_ones(family, kind):
    A = np.ones((333, 2)).astype(kind)
    for product in (lambda S: S @ A, lambda S: A.T @ S.T, lambda S: S.accumulator(2).add(A, offset=0)):
        with pytest.raises(TypeError, match=r"float32.*float64"):
            product(family.sample(40, 333, rng=1))
