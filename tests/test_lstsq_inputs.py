"""What lstsq accepts, what it refuses and how it says so, and what it leaves alone."""

import itertools
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from ls_oracles import householder_solution
from problems import badly_scaled, least_squares, rank_deficient, sparse_random

import randla

METHODS = ("auto", "direct", "spir", "fossils", "lsqr", "momentum", "cholqr")
ITERATIVE = ("spir", "fossils", "lsqr", "momentum")


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


def small(m=300, n=8, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, n)), rng.standard_normal(m)


# Refused: the message names the argument, and says what came or what is accepted.


def spoiled(value, *, inside):
    A, b = small()
    (A if inside == "A" else b)[17] = value
    return {"A": A, "b": b}


def with_options(**options):
    A, b = small()
    return {"A": A, "b": b, **options}


def replaced(**arguments):
    return with_options(**arguments)


REFUSED = {
    "A with nan": (spoiled(np.nan, inside="A"), ValueError, ("A", "finite")),
    "A with inf": (spoiled(-np.inf, inside="A"), ValueError, ("A", "finite")),
    "b with nan": (spoiled(np.nan, inside="b"), ValueError, ("b", "finite")),
    "b with inf": (spoiled(np.inf, inside="b"), ValueError, ("b", "finite")),
    "sparse A with nan": (replaced(A=sp.csr_array(spoiled(np.nan, inside="A")["A"])), ValueError, ("A", "finite")),
    "A of one dimension": (replaced(A=np.ones(300)), ValueError, ("A", "2 dimensions", "1")),
    "A of three dimensions": (replaced(A=np.ones((300, 2, 2))), ValueError, ("A", "2 dimensions", "3")),
    "A without dimensions": (replaced(A=np.float64(3)), ValueError, ("A", "2 dimensions", "0")),
    "b of three dimensions": (replaced(b=np.ones((300, 2, 2))), ValueError, ("b", "(300, 2, 2)")),
    "b without dimensions": (replaced(b=1.0), ValueError, ("b", "()")),
    "b too short": (replaced(b=np.ones(299)), ValueError, ("b", "300", "299")),
    "b as a row": (replaced(b=np.ones((1, 300))), ValueError, ("b", "300")),
    "A in half precision": (replaced(A=np.ones((300, 8), np.float16)), TypeError, ("A", "float16", "float64")),
    "A in extended precision": (replaced(A=np.ones((300, 8), np.longdouble)), TypeError, ("A", "float64")),
    "A of objects": (replaced(A=np.full((300, 8), None)), TypeError, ("A", "object", "float64")),
    "A of strings": (replaced(A=np.full((300, 8), "1")), TypeError, ("A", "float64")),
    "A of dates": (replaced(A=np.zeros((300, 8), "M8[s]")), TypeError, ("A", "float64")),
    "b in half precision": (replaced(b=np.ones(300, np.float16)), TypeError, ("b", "float16", "float64")),
    "b of objects": (replaced(b=np.full(300, None)), TypeError, ("b", "object", "float64")),
    "A missing": (replaced(A=None), TypeError, ("A",)),
    "ragged A": (replaced(A=[[1.0, 2.0], [3.0]]), (TypeError, ValueError), ("A",)),
    "masked A": (replaced(A=np.ma.masked_less(small()[0], 0)), TypeError, ("A", "Masked")),
    "unknown method": (with_options(method="qr"), ValueError, ("method", "qr", "spir")),
    "method of a wrong type": (with_options(method=3), (TypeError, ValueError), ("method", "3")),
    "negative ridge": (with_options(ridge=-1.0), ValueError, ("ridge", "-1")),
    "nan ridge": (with_options(ridge=np.nan), ValueError, ("ridge", "nan")),
    "infinite ridge": (with_options(ridge=np.inf), ValueError, ("ridge", "inf")),
    "ridge of a wrong type": (with_options(ridge="much"), TypeError, ("ridge",)),
    "negative tol": (with_options(tol=-1e-3), ValueError, ("tol", "-0.001")),
    "nan tol": (with_options(tol=np.nan), ValueError, ("tol", "nan")),
    "tol of a wrong type": (with_options(tol="tight"), TypeError, ("tol",)),
    "negative rcond": (with_options(rcond=-1.0), ValueError, ("rcond", "-1")),
    "negative maxiter": (with_options(maxiter=-1), ValueError, ("maxiter", "-1")),
    "fractional maxiter": (with_options(maxiter=2.5), TypeError, ("maxiter", "2.5")),
    "sketch_size below n": (with_options(method="spir", sketch_size=7), ValueError, ("sketch_size", "7", "8")),
    "negative sketch_size": (with_options(method="spir", sketch_size=-5), ValueError, ("sketch_size", "-5")),
    "fractional sketch_size": (with_options(method="spir", sketch_size=20.5), TypeError, ("sketch_size", "20.5")),
    "sketch of a wrong type": (with_options(method="spir", sketch="gaussian"), TypeError, ("sketch", "gaussian")),
    "x0 of a wrong length": (with_options(x0=np.ones(7)), ValueError, ("x0", "8", "7")),
    "x0 with nan": (with_options(x0=np.full(8, np.nan)), ValueError, ("x0", "finite")),
    "callback that is not callable": (with_options(callback=3), TypeError, ("callback",)),
    "rng of a wrong type": (with_options(method="spir", rng="seed"), (TypeError, ValueError), ("rng",)),
    "negative rng": (with_options(method="spir", rng=-1), ValueError, ("rng", "-1")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_argument_is_refused_with_a_message_that_names_it(case):
    arguments, error, words = REFUSED[case]
    with pytest.raises(error) as raised:
        randla.lstsq(**arguments)
    for word in words:
        assert word in str(raised.value)


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        randla.lstsq(*small(), 0.0)


@pytest.mark.parametrize(("shape", "x_shape"), [((0, 4), (4,)), ((4, 0), (0,)), ((0, 0), (0,))])
def test_empty_problem_has_the_zero_solution_as_in_numpy(shape, x_shape):
    A, b = np.ones(shape), np.ones(shape[0])
    result = randla.lstsq(A, b)
    assert result.x.shape == x_shape
    assert not result.x.any()
    assert result.rank == np.linalg.lstsq(A, b, rcond=None)[2] == 0
    assert result.residual_norm == np.linalg.norm(b)


def test_no_right_hand_sides_give_no_solutions():
    A, _ = small()
    assert randla.lstsq(A, np.empty((300, 0))).x.shape == (8, 0)


# Accepted


def strided(A):
    return np.repeat(A, 3, axis=1)[:, ::3]


def reversed_rows(A):
    return A[::-1].copy()[::-1]


def reversed_columns(A):
    return A[:, ::-1].copy()[:, ::-1]


def every_second_row(A):
    return np.repeat(A, 2, axis=0)[::2]


def read_only(A):
    A = A.copy()
    A.flags.writeable = False
    return A


def misaligned(A):
    raw = np.zeros(A.nbytes + 1, np.uint8)
    out = raw[1:].view(A.dtype).reshape(A.shape)
    out[...] = A
    return out


def long_indices(A):
    A = sp.csr_array(A)
    return sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), shape=A.shape)


FORMS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "reversed rows": reversed_rows,
    "reversed columns": reversed_columns,
    "every second row": every_second_row,
    "read-only": read_only,
    "misaligned": misaligned,
    "big-endian": lambda A: A.astype(">f8"),
    "list": lambda A: A.tolist(),
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "coo_array": sp.coo_array,
    "int64 indices": long_indices,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["auto", "spir", "cholqr"])
def test_every_storage_of_the_same_numbers_gives_the_same_solution(form, method):
    A, b = small(900, 12)
    result = randla.lstsq(FORMS[form](A), b, method=method, rng=1)
    assert relative(result.x, householder_solution(A, b)) < 1e-12


@pytest.mark.parametrize("form", ["strided", "reversed rows", "read-only", "misaligned", "big-endian", "list"])
def test_every_storage_of_the_right_hand_side_gives_the_same_solution(form):
    A, b = small(900, 12)
    B = np.column_stack([b, 2 * b])
    result = randla.lstsq(A, FORMS[form](B), method="spir", rng=1)
    assert relative(result.x[:, 1], householder_solution(A, 2 * b)) < 1e-12


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_integers_and_booleans_are_promoted_to_float64(dtype, form):
    rng = np.random.default_rng(2)
    A, b = rng.integers(0, 2, (900, 12)).astype(dtype), rng.integers(0, 2, 900).astype(dtype)
    result = randla.lstsq(form(A), b, method="spir", rng=1)
    assert result.x.dtype == np.float64
    assert relative(result.x, householder_solution(A.astype(float), b.astype(float))) < 1e-12


@pytest.mark.parametrize(
    ("left", "right", "out"),
    [("f4", "f4", "f4"), ("f4", "f8", "f8"), ("f8", "f4", "f8"), ("f4", "i8", "f8"), ("i8", "f4", "f8")],
)
def test_precision_of_the_solution_follows_numpy_promotion(left, right, out):
    A, b = small(900, 12)
    A, b = (10 * A).astype(left), (10 * b).astype(right)
    result = randla.lstsq(A, b, method="spir", rng=1)
    assert result.x.dtype == out
    assert relative(result.x, householder_solution(A.astype(float), b.astype(float))) < 100 * np.finfo(out).eps


@pytest.mark.parametrize(
    ("form", "method"),
    [(form, method) for form in (np.ascontiguousarray, np.asfortranarray) for method in METHODS]
    + [(form, method) for form in (sp.csr_array, sp.csc_array) for method in METHODS if method != "direct"],
)
def test_inputs_are_never_modified(form, method):
    A, b = small(900, 12)
    A, x0 = form(A), np.ones(12)
    parts = [A.data, A.indices, A.indptr] if sp.issparse(A) else [A]
    before = [part.tobytes() for part in (*parts, b, x0)]
    randla.lstsq(A, b, method=method, x0=x0, ridge=0.1, rng=1)
    assert [part.tobytes() for part in (*parts, b, x0)] == before


def test_sparse_matrix_in_any_internal_order_gives_the_same_solution():
    A, b = sparse_random(2000, 30)
    exact = householder_solution(A.toarray(), b)
    halves = sp.coo_array(
        (np.r_[A.data, A.data] / 2, (np.r_[A.tocoo().row, A.tocoo().row], np.r_[A.tocoo().col, A.tocoo().col])),
        shape=A.shape,
    )
    duplicated = sp.csr_array((2000, 30))
    duplicated.indptr = 2 * A.indptr
    duplicated.indices = np.concatenate([np.tile(A.indices[i:j], 2) for i, j in itertools.pairwise(A.indptr)])
    duplicated.data = np.concatenate([np.tile(A.data[i:j], 2) / 2 for i, j in itertools.pairwise(A.indptr)])
    with_zeros = A.copy()
    with_zeros.data = np.where(np.arange(A.nnz) % 50 == 3, 0.0, A.data)
    assert relative(randla.lstsq(halves, b, method="spir", rng=1).x, exact) < 1e-11
    assert relative(randla.lstsq(duplicated, b, method="spir", rng=1).x, exact) < 1e-11
    assert relative(randla.lstsq(with_zeros, b, method="spir", rng=1).x, householder_solution(with_zeros.toarray(), b)) < 1e-11


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("shape", [(300, 20), (20, 300)])
def test_complex_problem_goes_to_lapack(dtype, shape):
    rng = np.random.default_rng(7)
    A, b = (rng.standard_normal(size) + 1j * rng.standard_normal(size) for size in (shape, shape[0]))
    A, b = A.astype(dtype), b.astype(dtype)
    result = randla.lstsq(A, b)
    assert result.x.dtype == dtype
    assert relative(result.x, np.linalg.lstsq(A.astype(complex), b.astype(complex), rcond=None)[0]) < 100 * np.finfo(dtype).eps
    assert result.backward_error < 10 * np.finfo(dtype).eps


# Degenerate problems with obvious answers


@pytest.mark.parametrize("method", METHODS)
def test_one_by_one(method):
    result = randla.lstsq([[2.0]], [6.0], method=method, rng=1)
    assert result.x == pytest.approx([3.0], rel=1e-15)
    assert result.rank == 1
    assert result.residual_norm <= 1e-15


@pytest.mark.parametrize("method", METHODS)
def test_one_column(method):
    A, b = small(5000, 1)
    assert randla.lstsq(A, b, method=method, rng=1).x == pytest.approx(A.T @ b / (A.T @ A).ravel(), rel=1e-14)


@pytest.mark.parametrize("method", ["auto", "direct", "spir"])
def test_one_row_gets_the_minimum_norm_solution(method):
    a = np.array([[3.0, 0.0, 4.0]])
    assert randla.lstsq(a, [10.0], method=method, rng=1).x == pytest.approx([1.2, 0.0, 1.6], rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("method", METHODS)
def test_zero_right_hand_side_gives_exactly_zero(method):
    A, _ = small(900, 12)
    result = randla.lstsq(A, np.zeros(900), method=method, rng=1)
    assert not result.x.any()
    assert result.residual_norm == 0
    assert result.backward_error == 0
    assert result.success


@pytest.mark.parametrize("method", METHODS)
def test_right_hand_side_in_the_range_is_met(method):
    A, _ = small(900, 12)
    x = np.arange(1.0, 13.0)
    result = randla.lstsq(A, A @ x, method=method, rng=1)
    assert relative(result.x, x) < 1e-13
    assert result.residual_norm < 1e-13 * np.linalg.norm(A @ x)


@pytest.mark.parametrize("method", METHODS)
def test_right_hand_side_orthogonal_to_the_range_gives_a_negligible_solution(method):
    A, b = small(900, 12)
    Q, _ = np.linalg.qr(A)
    b = b - Q @ (Q.T @ b)
    b -= Q @ (Q.T @ b)
    size = np.linalg.norm(randla.lstsq(A, b, method=method, rng=1).x) * np.linalg.norm(A) / np.linalg.norm(b)
    assert size < 1e-13


@pytest.mark.parametrize(
    ("form", "method"), [(np.asarray, method) for method in METHODS] + [(sp.csr_array, "auto"), (sp.csr_array, "cholqr")]
)
def test_zero_matrix_has_rank_zero_and_the_zero_solution(method, form):
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(form(np.zeros((900, 12))), np.ones(900), method=method, rng=1)
    assert result.rank == 0
    assert not result.x.any()
    assert result.residual_norm == pytest.approx(30, rel=1e-15)


@pytest.mark.parametrize(
    ("method", "backward"),
    [("direct", 1e-15), ("spir", 1e-15), ("fossils", 1e-15), ("cholqr", 1e-15), ("lsqr", 1e-11), ("momentum", 1e-11)],
)
@pytest.mark.parametrize("decades", [3, 6, 150])
def test_units_of_the_columns_do_no_harm(method, backward, decades):
    # Householder QR loses nothing at all here: its backward error is small column by column.
    A, b, scale = badly_scaled(2000, 20, decades)
    exact = householder_solution(A / scale, b)
    result = randla.lstsq(A, b, method=method, rng=1)
    assert result.rank == 20
    assert relative(result.x * scale, exact) < 1e-12
    assert 0 <= result.backward_error < backward
    assert 0 < result.error_bound < 1e-10


@pytest.mark.parametrize("method", ["direct", "spir", "cholqr", "lsqr", "momentum"])
@pytest.mark.parametrize("scale", [1e-290, 1e-160, 1e160, 1e290])
def test_uniform_scale_of_the_matrix_does_no_harm(method, scale):
    # Squares of these overflow or underflow.
    A, b = small(900, 12)
    result = randla.lstsq(A * scale, b, method=method, rng=1)
    assert relative(result.x * scale, householder_solution(A, b)) < 1e-12
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ householder_solution(A, b)), rel=1e-10)
    assert 0 <= result.backward_error < 1e-14


@pytest.mark.parametrize("method", ["direct", "spir", "cholqr", "lsqr", "momentum"])
@pytest.mark.parametrize("scale", [1e-290, 1e-160, 1e160, 1e290])
def test_scale_of_the_right_hand_side_does_no_harm(method, scale):
    A, b = small(900, 12)
    result = randla.lstsq(A, b * scale, method=method, rng=1)
    assert relative(result.x / scale, householder_solution(A, b)) < 1e-12
    assert 0 <= result.backward_error < 1e-14
    assert result.success


@pytest.mark.parametrize("method", ["auto", "spir", "cholqr"])
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array])
def test_zero_and_duplicate_columns_share_or_get_nothing(method, form):
    # Integers: the duplicates are exact, and each half of a pair gets half of the coefficient by symmetry.
    A, b = rank_deficient("duplicate", 1500, 20, 15, rng=4)
    A[:, 3] = 0
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(form(A), b, method=method, rng=1)
    pairs = [(i, j) for i in range(20) for j in range(i) if np.array_equal(A[:, i], A[:, j])]
    assert len(pairs) >= 4
    assert abs(result.x[3]) < 1e-14
    for i, j in pairs:
        assert result.x[i] == pytest.approx(result.x[j], rel=1e-8)


# Side effects


def peak_memory(A, b, method):
    tracemalloc.start()
    try:
        randla.lstsq(A, b, method=method, rng=1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum", "cholqr"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_tall_problem_needs_little_memory_beside_the_input(method, order):
    rng = np.random.default_rng(1)
    A = np.asarray(rng.standard_normal((200_000, 40)), order=order)
    b = rng.standard_normal(200_000)
    half, whole = peak_memory(A[:100_000], b[:100_000], method), peak_memory(A, b, method)
    # A few slices of the sketch, 8 MB each, whatever the size of A; then a few vectors.
    assert whole <= 30e6
    assert whole - half <= 0.05 * (A.nbytes / 2) + 2 * (b.nbytes / 2)


INTERRUPTED = """
import signal, sys, numpy as np, randla
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with this signal ignored
rng = np.random.default_rng(1)
A, b = rng.standard_normal((200_000, 60)), rng.standard_normal(200_000)
randla.lstsq(A, b, method="lsqr", rng=1)
print("running", flush=True)
try:
    while True:
        randla.lstsq(A, b, method="lsqr", rng=1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(17)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to a child on Windows")
def test_ctrl_c_ends_a_long_solve_with_keyboard_interrupt():
    # -P: the package that runs here, not a folder of that name in the current directory.
    environment = {**os.environ, "PYTHONPATH": str(Path(randla.__file__).parents[1])}
    command = [sys.executable, "-P", "-W", "ignore", "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            assert child.stdout.readline() == "running\n"
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 17
    assert out.endswith("interrupted\n")


def test_global_random_state_is_untouched_by_every_method():
    A, b = small(900, 12)
    before = np.random.get_state()  # noqa: NPY002
    for method in METHODS:
        randla.lstsq(A, b, method=method)
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_floating_point_error_settings_of_the_caller_do_not_matter():
    problem = least_squares(900, 12, 1e3, 1e-3)
    plain = randla.lstsq(problem.A, problem.b, method="spir", rng=1)
    with np.errstate(all="raise"):
        strict = randla.lstsq(problem.A, problem.b, method="spir", rng=1)
    assert strict.x.tobytes() == plain.x.tobytes()
