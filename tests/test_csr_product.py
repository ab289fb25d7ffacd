"""CSR times a dense block by the native kernel, against a dense product and against scipy."""

import numpy as np
import pytest
import scipy.sparse as sp
from problems import run_python

import randla
from randla import _cpu
from randla.lowrank._products import adjoint_copy, csr_times

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
COLUMNS = [1, 2, 7, 8, 16, 31, 64, 65, 100, 200]


@pytest.fixture(autouse=True)
def _restore_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


def problem(m, n, k, dtype, density=0.05, rng=0):
    rng = np.random.default_rng(rng)
    A = sp.random_array((m, n), density=density, rng=rng, format="csr", data_sampler=rng.standard_normal)
    X = rng.standard_normal((n, k))
    if np.dtype(dtype).kind == "c":
        A.data = A.data + 1j * rng.standard_normal(A.nnz)
        X = X + 1j * rng.standard_normal((n, k))
    return sp.csr_array(A.astype(dtype)), X.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", COLUMNS)
@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_product(dtype, k, wide):
    A, X = problem(211, 97, k, dtype)
    if wide:
        A = sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), shape=A.shape)
    dense = A.toarray().astype(np.complex128) @ X
    got = csr_times(A, X)
    assert got.dtype == dtype
    assert np.abs(got - dense).max() <= 50 * np.finfo(dtype).eps * np.abs(dense).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 60])
def test_sums_run_in_the_order_of_the_entries(dtype, k):
    # As scipy's do: the same bits, but for complex numbers, whose parts it adds in another order.
    A, X = problem(300, 90, k, dtype, density=0.2)
    if A.dtype.kind == "c":
        A, X = sp.csr_array((A.data.real.copy(), A.indices, A.indptr), shape=A.shape), X.real.copy()
    assert np.array_equal(csr_times(A, X), A @ X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_of_the_block_and_of_the_result(dtype):
    A, X = problem(50, 40, 12, dtype)
    expected = csr_times(A, X)
    strided = np.zeros((80, 36), dtype)
    strided[::2, ::3] = X
    for Z in (np.asfortranarray(X), strided[::2, ::3], X[::-1][::-1]):
        assert np.array_equal(csr_times(A, Z), expected)
    out = np.full((50, 40), 7, dtype)
    csr_times(A, X, out[:, 5:17])
    assert np.array_equal(out[:, 5:17], expected)
    assert (out[:, :5] == 7).all()
    assert (out[:, 17:] == 7).all()


def test_mixed_dtypes():
    A, X = problem(50, 40, 12, np.float32)
    C = X + 1j * X[:, ::-1]
    for M, Z in ((A, X.astype(float)), (A, C), (A.astype(complex), X), (A.astype(np.complex64), C)):
        got = csr_times(sp.csr_array(M), Z)
        assert got.dtype == np.result_type(M.dtype, Z.dtype)
        assert np.allclose(got, M.toarray() @ Z, atol=1e-4)


def test_odd_matrices():
    X = np.arange(8.0).reshape(4, 2)
    empty_rows = sp.csr_array(([2.0, 3.0], [1, 3], [0, 0, 2, 2, 2]), shape=(4, 4))
    assert np.array_equal(csr_times(empty_rows, X), empty_rows.toarray() @ X)
    duplicates = sp.csr_array(([1.0, 2.0, 4.0], [2, 2, 0], [0, 3]), shape=(1, 4))
    assert np.array_equal(csr_times(duplicates, X), duplicates.toarray() @ X)
    for shape, k in (((0, 4), 2), ((3, 0), 2), ((3, 4), 0), ((3, 4), 2)):
        Z = np.ones((shape[1], k))
        assert np.array_equal(csr_times(sp.csr_array(shape), Z), np.zeros((shape[0], k)))
    unused = sp.csr_array((np.ones(9), np.full(9, 3), [0, 1, 2]), shape=(2, 4))  # more entries than rows say
    assert np.array_equal(csr_times(unused, X), X[[3, 3]])


def test_infinite_entries_stay_where_they_are():
    A = sp.csr_array(([np.inf, np.nan, 1.0], [0, 1, 2], [0, 1, 2, 3]), shape=(3, 3))
    assert np.array_equal(csr_times(A, np.ones((3, 1)))[:, 0], [np.inf, np.nan, 1.0], equal_nan=True)


def test_a_row_that_holds_most_entries():
    rng = np.random.default_rng(0)
    dense = np.zeros((400, 900))
    dense[17] = rng.standard_normal(900)
    dense[:, 3] = 1
    X = rng.standard_normal((900, 20))
    assert np.allclose(csr_times(sp.csr_array(dense), X), dense @ X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(dtype):
    A, X = problem(3000, 500, 37, dtype)
    found = set()
    for threads in (1, 2, 3, 8):
        randla.set_num_threads(threads)
        found.add(csr_times(A, X).tobytes())
    assert len(found) == 1


FINGERPRINT = """
import hashlib
from test_csr_product import DTYPES, csr_times, problem
products = [csr_times(*problem(200, 80, k, dtype)).tobytes() for k in (5, 70) for dtype in DTYPES]
print(hashlib.sha256(b"".join(products)).hexdigest())
"""


def test_instruction_sets_give_the_same_bits():
    found = set()
    for isa in _cpu.available_isas():
        run = run_python(FINGERPRINT, RANDLA_ISA=isa)
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_adjoint_copy(dtype):
    A, _ = problem(60, 35, 1, dtype)
    assert np.array_equal(adjoint_copy(A).toarray(), A.toarray().conj().T)
    assert adjoint_copy(A).format == "csr"


def test_blocks_that_the_cache_cannot_hold():
    A, X = problem(40, 90_000, 64, np.float64, density=1e-3)
    assert X.nbytes > 1 << 24
    assert np.array_equal(csr_times(A, X), A @ X)


def test_wrong_calls_touch_no_memory():
    A, X = problem(5, 4, 3, np.float64)
    parts = (A.data, A.indptr, A.indices)
    with pytest.raises(ValueError, match="output has the wrong shape"):
        _cpu.csr_product(*parts, X, np.empty((4, 3)))
    with pytest.raises(ValueError, match="output needs contiguous rows"):
        _cpu.csr_product(*parts, X, np.empty((5, 6))[:, ::2])
    with pytest.raises(ValueError, match="values must be one for every index"):
        _cpu.csr_product(A.data[:-1], A.indptr, A.indices, X, np.empty((5, 3)))
    with pytest.raises(ValueError, match="complex columns are pairs"):
        _cpu.csr_product(np.repeat(A.data, 2), A.indptr, A.indices, X, np.empty((5, 3)), True)
