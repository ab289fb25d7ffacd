"""Products with a sketch equal products with its dense twin, for every way to present the other factor."""

import mmap
import sys

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from conftest import COSINE, DENSE, FAMILIES
from products import assert_product, matrix, twin
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


# The cosine twin is a dense matrix of order m.
PRODUCTS = [
    (name, *shape) for name in FAMILIES for shape in SHAPES if name not in COSINE or shape[1] < 1100 or shape[1] == 4097
]


# What varies fastest comes first, so that a twin is made once.
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "d", "m", "n"), PRODUCTS)
def test_products_equal_the_twin(name, d, m, n, dtype, order):
    family = FAMILIES[name]
    S, D = family.sample(d, m, rng=1), twin(family, d, m)
    A, Y = np.asarray(matrix(m, n, dtype), order=order), np.asarray(matrix(d, n, dtype), order=order)
    before, SA = A.copy(), S @ A
    assert isinstance(SA, np.ndarray)
    assert SA.dtype == (S.T @ Y).dtype == dtype
    assert_product(family, SA, D, A)
    assert_product(family, S.T @ Y, D.T, Y)
    np.testing.assert_array_equal(A, before)


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
    assert_product(family, SA, twin(family, d, m), A)


@pytest.mark.parametrize("view", VIEWS)
def test_memory_layout_does_not_change_the_adjoint_product(family, view, dtype):
    Y = VIEWS[view](matrix(40, 6, dtype))
    assert_product(family, family.sample(40, 333, rng=1).T @ Y, twin(family, 40, 333).T, Y)


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
    assert_product(family, SA, twin(family, d, m), A)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array, sp.csc_array], ids=["dense", "csr", "csc"])
def test_right_product_equals_twin(family, make, dtype):
    A = make(matrix(9, 333, dtype))
    S = family.sample(40, 333, rng=1)
    AS = A @ S.T
    assert AS.dtype == dtype
    assert_product(family, AS.T, twin(family, 40, 333), A.T)


def test_ndarray_times_sketch(family, dtype):
    B = matrix(7, 40, dtype)
    assert_product(family, (B @ family.sample(40, 333, rng=1)).T, twin(family, 40, 333).T, B.T)


def test_vectors_stay_vectors(family, dtype):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    x, y = matrix(333, 1, dtype)[:, 0], matrix(40, 1, dtype)[:, 0]
    for product in (S @ x, x @ S.T):
        assert_product(family, product, D, x)
    for product in (S.T @ y, S.H @ y, y @ S):
        assert_product(family, product, D.T, y)


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
        assert_product(family, got.real, left, right.real)
        assert_product(family, got.imag, left, right.imag)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, np.bool_])
def test_integers_are_promoted_to_float64(family, kind):
    A = np.random.default_rng(3).integers(0, 2 if kind is np.bool_ else 100, (333, 4)).astype(kind)
    for presented in (A, np.asfortranarray(A), sp.csr_array(A)):
        SA = family.sample(40, 333, rng=1) @ presented
        assert SA.dtype == np.float64
        assert_product(family, SA, twin(family, 40, 333), A.astype(float))


def test_empty_and_zero_factors(family, dtype, order):
    S = family.sample(40, 333, rng=1)
    empty = np.zeros((333, 0), dtype, order=order)
    assert (S @ empty).shape == (40, 0)
    assert (S.T @ np.zeros((40, 0), dtype, order=order)).shape == (333, 0)
    assert (S @ empty).dtype == dtype
    np.testing.assert_array_equal(S @ np.zeros((333, 3), dtype, order=order), np.zeros((40, 3)))
    np.testing.assert_array_equal(S @ sp.csr_array((333, 3), dtype=dtype), np.zeros((40, 3)))


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("m", [0, 1, 7])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_products_of_every_small_size(distribution, d, m, n, dtype):
    S, D = distribution.sample(d, m, rng=1), twin(distribution, d, m)
    assert S.to_dense().shape == (d, m)
    assert (S[d:].shape, S[:, m:].shape, S[d:, m:].shape) == ((0, m), (d, 0), (0, 0))
    A, Y = matrix(m, n, dtype), matrix(d, n, dtype)
    acc = S.accumulator(n, dtype)
    acc.add(A[: m // 2], offset=0)
    acc.add(A[m // 2 :], offset=m // 2)
    for product in (S @ A, S @ np.asfortranarray(A), S @ sp.csr_array(A), S @ sp.csc_array(A), (A.T @ S.T).T, acc.result()):
        assert product.dtype == dtype
        assert_product(distribution, product, D, A)
    for product in (S.T @ Y, S.T @ np.asfortranarray(Y), S.T @ sp.csr_array(Y), (Y.T @ S).T):
        assert product.dtype == dtype
        assert_product(distribution, product, D.T, Y)
    assert_product(distribution, S @ np.ones(m, dtype), D, np.ones(m))
    assert_product(distribution, S.T @ np.ones(d, dtype), D.T, np.ones(d))


def test_matvec_names_of_scipy(family):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    A, Y = matrix(333, 3), matrix(40, 3)
    assert_product(family, S.matvec(A[:, 0]), D, A[:, 0])
    assert_product(family, S.rmatvec(Y[:, 0]), D.T, Y[:, 0])
    assert_product(family, S.matmat(A), D, A)
    assert_product(family, S.rmatmat(Y), D.T, Y)


def test_scipy_takes_a_sketch_as_linear_operator(family):
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    A, Y = matrix(333, 3), matrix(40, 3)
    operator = aslinearoperator(S)
    assert isinstance(operator, LinearOperator)
    assert operator.shape == (40, 333)
    assert_product(family, operator @ A, D, A)
    assert_product(family, operator.H @ Y, D.T, Y)
    assert_product(family, operator.rmatvec(Y[:, 0]), D.T, Y[:, 0])
    # Rows may repeat: only what S makes of something can be reached.
    target = D @ A[:, 0]
    for system in (operator, S):
        solution = lsqr(system, target, atol=1e-12, btol=1e-12)[0]
        np.testing.assert_allclose(D @ solution, target, atol=1e-8)


@pytest.mark.parametrize(("d", "m"), [(1, 1), (40, 7), (65, 4100), (300, 1000)])
def test_adjoint_passes_the_dot_test(distribution, d, m, dtype):
    S = distribution.sample(d, m, rng=1)
    x, y = matrix(m, 1, dtype)[:, 0], matrix(d, 1, dtype)[:, 0]
    Sx, Sy = (S @ x).astype(float), (S.T @ y).astype(float)
    scale = np.linalg.norm(Sx) * np.linalg.norm(y) + np.linalg.norm(Sy) * np.linalg.norm(x)
    assert abs(Sx @ y - x @ Sy) <= 100 * np.finfo(dtype).eps * scale


def test_sketch_in_one_call(family):
    A = matrix(333, 4)
    SA = randla.sketch(A, 40, family, rng=1)
    assert_product(family, SA, twin(family, 40, 333), A)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["C", "F", "csr"])
def test_nan_and_infinity_reach_exactly_the_entries_they_touch(name, kind, dtype):
    family = FAMILIES[name]
    make = sp.csr_array if kind == "csr" else lambda A: np.asarray(A, order=kind)
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    # What a dense family or a transform makes of a column, it makes of all of it.
    mixing = isinstance(family, randla.SRTT) or name in DENSE
    touched = np.ones_like(D, bool) if mixing else D != 0
    A = matrix(333, 5, dtype) * (np.random.default_rng(2).random((333, 5)) < 0.3)
    column = int(np.flatnonzero(D.any(axis=0))[0])
    bad = A.copy()
    bad[column, 1], bad[column, 3] = np.nan, -np.inf
    clean, spoiled = S @ make(A), S @ make(bad)
    for c in range(5):
        hit = touched[:, column] if c in (1, 3) else np.zeros(40, bool)
        np.testing.assert_array_equal(np.isfinite(spoiled[:, c]), ~hit)
        np.testing.assert_array_equal(spoiled[~hit, c], clean[~hit, c])
    assert np.all(np.isnan(spoiled[touched[:, column], 1]))


@pytest.mark.parametrize("name", FAMILIES)
def test_nan_and_infinity_reach_exactly_the_rows_of_the_adjoint(name, dtype, order):
    family = FAMILIES[name]
    S, D = family.sample(40, 333, rng=1), twin(family, 40, 333)
    mixing = isinstance(family, randla.SRTT) or name in DENSE
    touched = np.ones(333, bool) if mixing else D[17] != 0
    Y = np.asarray(matrix(40, 3, dtype), order=order)
    bad = Y.copy(order="K")
    bad[17, 0], bad[17, 2] = np.nan, np.inf
    clean, spoiled = S.T @ Y, S.T @ bad
    for c in range(3):
        hit = touched if c in (0, 2) else np.zeros(333, bool)
        np.testing.assert_array_equal(np.isfinite(spoiled[:, c]), ~hit)
        np.testing.assert_array_equal(spoiled[~hit, c], clean[~hit, c])


@pytest.mark.parametrize("part", ["real", "imag"])
def test_an_infinite_part_of_a_complex_entry_leaves_the_other_part(family, part):
    A = (matrix(333, 3) + 1j * matrix(333, 3, seed=5)).astype(np.complex128)
    S = family.sample(40, 333, rng=1)
    getattr(A, part)[:] = np.inf
    SA, other = S @ A, {"real": "imag", "imag": "real"}[part]
    np.testing.assert_array_equal(getattr(SA, other), S @ np.ascontiguousarray(getattr(A, other)))
    acc = S.accumulator(3, complex)
    acc.add(A, offset=0)
    assert np.all(np.isfinite(getattr(acc.result(), other)))


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


@pytest.mark.parametrize("shape", [(), (9, 2, 2)])
def test_one_call_takes_vectors_and_matrices(shape):
    with pytest.raises(ValueError, match=f"A must have 1 or 2 dimensions; got {len(shape)}"):
        randla.sketch(np.ones(shape), 4)
    assert randla.sketch(np.ones(9), 4, rng=0).shape == (4,)
    assert randla.sketch(sp.csc_array(np.eye(9)), 4, rng=0).shape == (4, 9)


@pytest.mark.parametrize("use", [lambda S: S @ np.ones(3), lambda S: S.T @ np.ones(2), lambda S: S[:1, :1]])
def test_a_family_must_say_how_it_is_applied(use):
    with pytest.raises(NotImplementedError):
        use(randla.Distribution().sample(2, 3, rng=0))


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, object, "U3"])
def test_unsupported_types_are_refused_with_the_supported_ones(family, kind):
    A = np.ones((333, 2)).astype(kind)
    for product in (lambda S: S @ A, lambda S: A.T @ S.T, lambda S: S.accumulator(2).add(A, offset=0)):
        with pytest.raises(TypeError, match=r"float32.*float64"):
            product(family.sample(40, 333, rng=1))


def reserved(m, n):
    """Zeros that take memory only where they are written to."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    return np.frombuffer(mmap.mmap(-1, 4 * m * n, flags=flags), np.float32).reshape(m, n)


MANY = 2**20, 2050  # more than 2^31 entries


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stack", "srht", "gaussian", "less", "rows"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_matrices_of_more_than_2_31_entries_in_one_repeated_vector(name, order):
    m, n = MANY
    family = FAMILIES[name]
    S = family.sample(16, m, rng=1)
    vector = matrix(1, n if order == "C" else m, np.float32)[0]
    A = np.broadcast_to(vector if order == "C" else vector[:, None], (m, n))
    SA = S @ A
    some = np.r_[0, 1, 17, n // 2, n - 1]
    few = S @ np.ascontiguousarray(A[:, some])
    np.testing.assert_array_equal(SA[:, some], few)
    assert np.all(np.isfinite(SA))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reserves memory as Linux does")
@pytest.mark.parametrize("name", ["stack", "srht", "gaussian", "less", "rows"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_matrices_of_more_than_2_31_entries_with_data_at_their_end(name, order):
    m, n = MANY
    family = FAMILIES[name]
    S = family.sample(16, m, rng=1)
    A = reserved(m, n) if order == "C" else reserved(n, m).T
    picked = {"less": oracles.less_uniform_entries, "rows": oracles.row_sample_entries}.get(name)
    rows = np.r_[3, m // 2, m - 2, m - 1] if picked is None else np.unique([c for _, c, _ in picked(16, m, 1)])[-4:]
    columns = np.r_[0, 1, 1024, n - 2, n - 1]
    A[np.ix_(rows, columns)] = matrix(4, 5, np.float32)
    SA = S @ A
    D = oracles.sketch(family, 16, m, 1, columns=rows)
    assert np.any(D)
    assert_product(family, SA[:, columns], D, A[np.ix_(rows, columns)])
    assert np.count_nonzero(SA) == np.count_nonzero(SA[:, columns])
