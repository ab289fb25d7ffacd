"""Properties that hold for every sketch of every matrix, on examples that hypothesis chooses (the same ones on every run)."""

import pickle

import numpy as np
import oracles
import pytest
import scipy.linalg
import scipy.sparse as sp
from conftest import COSINE, FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from products import assert_product

import randla
from randla.structured import fwht

pytestmark = pytest.mark.usefixtures("one_blas_thread")

examples = settings(derandomize=True, deadline=None, database=None, max_examples=150)

FLOATS = [np.float32, np.float64]
DTYPES = [*FLOATS, np.complex64, np.complex128, np.int8, np.int64, np.bool_]
EXACT = [name for name in FAMILIES if name not in COSINE]
seeds = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 2**32 - 1)


@st.composite
def distributions(draw, m, names=tuple(FAMILIES)):
    name = draw(st.sampled_from([*names, "probabilities"]))
    if name != "probabilities" or m == 0:
        return FAMILIES[names[0] if name == "probabilities" else name]
    p = np.random.default_rng(draw(numbers)).random(m) * (np.arange(m) % draw(st.integers(1, 4)) == 0)
    return randla.RowSample(p)


@st.composite
def sketches(draw, names=tuple(FAMILIES), rows=200):
    m = draw(st.integers(0, rows))
    return draw(distributions(m, names)).sample(draw(st.integers(1, 70)), m, rng=draw(seeds))


def entries(draw, shape, dtype):
    """Entries of mixed sizes, zeros of both signs among them."""
    rng = np.random.default_rng(draw(numbers))
    kind = np.dtype(dtype).kind
    if kind in "ib":
        return rng.integers(0, 2 if kind == "b" else 100, shape).astype(dtype)
    X = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 7, shape) * rng.choice([0.0, -0.0, 1.0, 1.0], shape)
    return (X + 1j * rng.standard_normal(shape) if kind == "c" else X).astype(dtype)


def rearranged(draw, X):
    """X in other memory: transposed, with gaps, reversed, read-only."""
    axes = draw(st.permutations(range(X.ndim)))
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in range(X.ndim)]
    wide = np.full([X.shape[a] * abs(steps[a]) + 1 for a in axes], 7, X.dtype)
    inside = wide.transpose(np.argsort(axes))
    where = []
    for n, step in zip(X.shape, steps, strict=True):
        ends = slice(0, n * step, step) if step > 0 else slice(n * -step, 0, step)
        where.append(ends)
    view = inside[tuple(where)]
    view[...] = X
    if draw(st.booleans()):
        view.setflags(write=False)
    return view


@st.composite
def views(draw, rows, dtype=None):
    """A dense factor with a given number of rows: one or two dimensions, any strides, also strides of zero."""
    dtype = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    if draw(st.integers(0, 4)) == 0:
        return rearranged(draw, entries(draw, (rows,), dtype))
    n = draw(st.integers(0, 20))
    spread = draw(st.sampled_from(["none", "none", "rows", "columns", "both"]))
    if spread == "none":
        return rearranged(draw, entries(draw, (rows, n), dtype))
    small = entries(draw, (1 if spread != "columns" else rows, 1 if spread != "rows" else n), dtype)
    return np.broadcast_to(small, (rows, n))


@st.composite
def sparse_matrices(draw, rows):
    """CSR or CSC with empty rows, explicit zeros, duplicates and columns out of order, in either width of index."""
    dtype = draw(st.sampled_from([*FLOATS, np.complex128, np.int64]))
    n = draw(st.integers(1, 20))
    count = draw(st.integers(0, 3 * rows)) if rows else 0
    rng = np.random.default_rng(draw(numbers))
    i, j = np.sort(rng.integers(0, max(rows, 1), count)), rng.integers(0, n, count)
    data = entries(draw, (count,), dtype)
    indptr = np.searchsorted(i, np.arange(rows + 1))
    index = draw(st.sampled_from([np.int32, np.int64]))
    A = sp.csr_array((data, j.astype(index), indptr.astype(index)), shape=(rows, n))
    make = draw(st.sampled_from([lambda X: X, sp.csc_array, sp.csr_matrix, sp.csc_matrix]))
    return make(A)


def absolute(X):
    """Sums of the magnitudes of the entries in each place."""
    if not sp.issparse(X):
        return np.abs(X)
    X = X.copy()
    X.data = np.abs(X.data)
    return X.toarray()


def assert_complex_product(S, got, D, X, of_column=0.0):
    assert got.dtype == (np.float64 if X.dtype.kind in "ib" else X.dtype)
    assert got.shape == (D.shape[0], *X.shape[1:])
    for part, x in ((got.real, X.real), (got.imag, X.imag)):
        assert_product(S.distribution, part, D, x, absolute(x), of_column)


@examples
@given(st.data(), sketches())
def test_products_with_any_dense_factor_equal_the_twin(data, S):
    D = oracles.sketch(S.distribution, *S.shape, S.seed)
    A, Y = data.draw(views(S.shape[1])), data.draw(views(S.shape[0]))
    before = A.copy()
    assert_complex_product(S, S @ A, D, A)
    assert_complex_product(S, S.T @ Y, D.T, Y)
    np.testing.assert_array_equal(A, before)
    np.testing.assert_array_equal((A.T @ S.T).T, S @ A)
    np.testing.assert_array_equal((Y.T @ S).T, S.T @ Y)


@examples
@given(st.data(), sketches())
def test_products_with_any_sparse_factor_equal_the_twin(data, S):
    D = oracles.sketch(S.distribution, *S.shape, S.seed)
    A = data.draw(sparse_matrices(S.shape[1]))
    before = A.copy()
    assert_complex_product(S, S @ A, D, A)
    np.testing.assert_array_equal((A.T @ S.T).T, S @ A)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(A, part), getattr(before, part))
    Y = data.draw(sparse_matrices(S.shape[0]))
    assert_complex_product(S, S.T @ Y, D.T, Y)


@examples
@given(st.data(), sketches(EXACT))
def test_the_layout_of_a_dense_factor_does_not_change_a_bit(data, S):
    A = data.draw(views(S.shape[1], data.draw(st.sampled_from(FLOATS))))
    expected = S @ np.ascontiguousarray(A)
    np.testing.assert_array_equal(S @ A, expected)
    np.testing.assert_array_equal(S @ np.asfortranarray(A), expected)
    if A.ndim == 2 and A.shape[1]:
        c = data.draw(st.integers(0, A.shape[1] - 1))
        np.testing.assert_array_equal(S @ A[:, c], expected[:, c])


@examples
@given(st.data(), sketches(EXACT), st.integers(-40, 40))
def test_powers_of_two_pass_through_a_sketch(data, S, power):
    A = data.draw(views(S.shape[1], np.float64))
    np.testing.assert_array_equal(S @ (A * 2.0**power), (S @ A) * 2.0**power)


@examples
@given(st.data(), sketches())
def test_chunks_in_any_order_equal_the_product(data, S):
    m = S.shape[1]
    dtype = data.draw(st.sampled_from([*FLOATS, np.complex128]))
    A = entries(data.draw, (m, data.draw(st.integers(0, 6))), dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, m), max_size=6)))
    chunks = [(start, A[start:stop]) for start, stop in zip([0, *cuts], [*cuts, m], strict=True)]
    results = []
    for order in (chunks, data.draw(st.permutations(chunks))):
        acc = S.accumulator(A.shape[1], dtype)
        for offset, rows in order:
            make = data.draw(st.sampled_from([np.asarray, np.asfortranarray]))
            acc.add(make(rows), offset=offset)
        results.append(acc.result())
    # Each of at most seven terms is cut 72 bits below the largest entry of its column.
    D = oracles.sketch(S.distribution, *S.shape, S.seed)
    assert_complex_product(S, results[0], D, A, of_column=7 * 2.0**-72)
    assert results[0].tobytes() == results[1].tobytes()


@examples
@given(st.data(), sketches())
def test_any_block_is_a_slice_of_the_twin(data, S):
    (d, m), D = S.shape, oracles.sketch(S.distribution, *S.shape, S.seed)
    i0, j0 = data.draw(st.integers(-d - 2, d + 2)), data.draw(st.integers(-m - 2, m + 2))
    i1, j1 = data.draw(st.integers(-d - 2, d + 2)), data.draw(st.integers(-m - 2, m + 2))
    atol = 16 * np.finfo(float).eps * max(1, np.abs(D).max(initial=0)) if S.distribution in map(FAMILIES.get, COSINE) else 0
    np.testing.assert_allclose(S[i0:i1, j0:j1], D[i0:i1, j0:j1], rtol=8 * np.finfo(float).eps, atol=atol)


@examples
@given(sketches())
def test_pickles_and_seeds_replay_a_sketch(S):
    for again in (pickle.loads(pickle.dumps(S)), S.distribution.sample(*S.shape, rng=S.seed)):
        assert again == S
        assert hash(again) == hash(S)
        np.testing.assert_array_equal(again.to_dense(), S.to_dense())


@examples
@given(st.data(), st.integers(1, 12), st.integers(1, 12), st.integers(0, 150), seeds)
def test_extended_products_equal_the_twin(data, nnz, height, m, seed):
    S = randla.SparseStack(nnz).sample(nnz * height, m, rng=seed)
    T = S.append(data.draw(st.integers(1, 5)))
    A = data.draw(views(m))
    assert_complex_product(T, T.extend(S @ A, A), oracles.sketch(T.distribution, *T.shape, seed), A)


@examples
@given(st.data())
def test_transforms_of_any_array_are_exact_on_whole_numbers(data):
    n = 2 ** data.draw(st.integers(0, 9))
    others = data.draw(st.lists(st.integers(0, 7), max_size=2))
    axis = data.draw(st.integers(0, len(others)))
    shape = (*others[:axis], n, *others[axis:])
    rng = np.random.default_rng(data.draw(numbers))
    dtype = data.draw(st.sampled_from([*FLOATS, np.complex64, np.complex128]))
    X = rearranged(data.draw, rng.integers(-9, 10, shape).astype(dtype))
    expected = np.moveaxis(np.tensordot(scipy.linalg.hadamard(n), np.asarray(X), (1, axis)), 0, axis)
    np.testing.assert_array_equal(fwht(X, axis), expected)
    out = rearranged(data.draw, np.full(shape, np.nan, dtype))
    out = X if data.draw(st.booleans()) else out
    if out.flags.writeable:
        assert fwht(X, axis, out=out) is out
        np.testing.assert_array_equal(out, expected)
    else:
        with pytest.raises(ValueError, match="out must be writeable"):
            fwht(X, axis, out=out)
