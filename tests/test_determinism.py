"""The same bits on every run: any number of threads, any instruction set, any grouping of columns, and after a fork."""

import hashlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import COSINE, FAMILIES
from problems import run_python
from threadpoolctl import threadpool_limits

import randla
from randla import _cpu
from randla.structured import fwht

pytestmark = pytest.mark.usefixtures("one_blas_thread")

THREADS = [1, 2, 3, 8]


def threads_for(isa):
    """Every number of threads with one instruction set, and an odd one with the others."""
    return THREADS if isa == "baseline" else [3]


openmp = pytest.mark.skipif(not _cpu.has_openmp(), reason="built without OpenMP")


@pytest.fixture(autouse=True)
def _restore_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(X).tobytes() for X in arrays)).hexdigest()


def matrix(m, n, dtype, order="C"):
    return np.asarray(np.random.default_rng(0).standard_normal((m, n)).astype(dtype), order=order)


def sparse(m, n, dtype):
    return sp.random_array((m, n), density=0.03, rng=np.random.default_rng(1), dtype=dtype, format="csr")


def accumulated(S, A):
    acc = S.accumulator(A.shape[1], A.dtype)
    for start in range(0, len(A), 1111):
        acc.add(A[start : start + 1111], offset=start)
    return acc.result()


def residual(A, k=1):
    """The fused pass r = b - A x, g = A' r, ||r||^2, one row per right-hand side."""
    m, n = A.shape
    x, b = matrix(k, n, np.float64), matrix(k, m, np.float64)
    r, g = np.zeros((k, m)), np.zeros((k, n))
    if sp.issparse(A):
        return r, g, _cpu.residual_csr(A.data, A.indptr, A.indices, n, x, b, r, g)
    return r, g, _cpu.residual(A, x, b, r, g)


def distinct_over_threads(function):
    found = set()
    for threads in THREADS:
        randla.set_num_threads(threads)
        found.add(digest(*function()))
    return found


# Tall, wide, a vector, and too small to share.
@pytest.mark.parametrize(("d", "m", "n"), [(200, 20_000, 10), (64, 700, 300), (1000, 3000, 1), (3, 5, 2)])
def test_products_do_not_depend_on_the_number_of_threads(family, dtype, order, d, m, n):
    S = family.sample(d, m, rng=1)
    A, Y = matrix(m, n, dtype, order), matrix(d, n, dtype, order)
    assert len(distinct_over_threads(lambda: [S @ A])) == 1
    assert len(distinct_over_threads(lambda: [S.T @ Y])) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_accumulators_do_not_depend_on_the_number_of_threads(name, dtype):
    S, A = FAMILIES[name].sample(64, 5000, rng=1), matrix(5000, 7, dtype)
    assert len(distinct_over_threads(lambda: [accumulated(S, A)])) == 1


@pytest.mark.parametrize("shape", [(4096, 3), (1, 65536), (64, 1000), (3, 256, 40)])
def test_transforms_do_not_depend_on_the_number_of_threads(shape, dtype):
    X = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    axis = max(k for k, n in enumerate(shape) if n & (n - 1) == 0)
    assert len(distinct_over_threads(lambda: [fwht(X, axis), fwht(X + 1j * X, axis, normalize=True)])) == 1


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csc_array])
def test_sparse_products_do_not_depend_on_the_number_of_threads(family, dtype, kind):
    S, A = family.sample(200, 20_000, rng=1), kind(sparse(20_000, 40, dtype))
    assert len(distinct_over_threads(lambda: [S @ A])) == 1


def test_entries_do_not_depend_on_the_number_of_threads(distribution):
    S = distribution.sample(130, 5000, rng=1)
    assert len(distinct_over_threads(lambda: [S.to_dense()])) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 8])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 40), (3000, 20), (4097, 1), (700, 300), (5, 2)])
@pytest.mark.parametrize("make", [np.ascontiguousarray, np.asfortranarray, sp.csr_array], ids=["C", "F", "csr"])
def test_residual_equals_its_twin(make, m, n, k, dtype):
    A = make(sparse(m, n, dtype).toarray() if make is sp.csr_array else matrix(m, n, dtype))
    r, g, squares = residual(A, k)
    wide = (A.toarray() if sp.issparse(A) else A).astype(np.longdouble)
    x, b = matrix(k, n, np.float64), matrix(k, m, np.float64)
    eps = np.finfo(np.float64).eps
    # Everything is computed in float64, whatever the dtype of A.
    r_error = np.abs(r - (b - x @ wide.T))
    g_error = np.abs(g - r @ wide)
    assert np.all(r_error <= 16 * eps * (np.abs(b) + np.abs(x) @ np.abs(wide.T)))
    assert np.all(g_error <= 16 * eps * (np.abs(r) @ np.abs(wide)))
    np.testing.assert_allclose(squares, np.sum(r * r, axis=1), rtol=1e-14)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("m", "n"), [(30_000, 20), (700, 300), (5, 2)])
def test_residual_does_not_depend_on_the_number_of_threads(m, n, k, dtype, order):
    A = matrix(m, n, dtype, order)
    assert len(distinct_over_threads(lambda: residual(A, k))) == 1


@pytest.mark.parametrize("k", [1, 3])
def test_sparse_residual_does_not_depend_on_the_number_of_threads(k, dtype):
    A = sparse(30_000, 50, dtype)
    assert len(distinct_over_threads(lambda: residual(A, k))) == 1


def test_python_threads_may_share_a_sketch(family):
    S, A = family.sample(100, 9000, rng=1), matrix(9000, 20, np.float64)
    expected = digest(S @ A)
    with ThreadPoolExecutor(4) as pool:
        assert {digest(SA) for SA in pool.map(lambda _: S @ A, range(12))} == {expected}


# Cosine transforms are defined up to rounding.
EXACT = [name for name in FAMILIES if name not in COSINE]


@pytest.mark.parametrize("k", [1, 3, 8, 29])
@pytest.mark.parametrize("name", EXACT)
def test_columns_are_sketched_independently(name, dtype, order, k):
    S, A = FAMILIES[name].sample(100, 9000, rng=1), matrix(9000, 37, dtype, order)
    SA = S @ A
    np.testing.assert_array_equal(S @ A[:, :k], SA[:, :k])
    np.testing.assert_array_equal(S @ A[:, k:], SA[:, k:])
    np.testing.assert_array_equal(S @ A[:, k], SA[:, k])
    np.testing.assert_array_equal(S @ A[:, ::-1], SA[:, ::-1])


@pytest.mark.parametrize("k", [1, 3, 8, 29])
@pytest.mark.parametrize("name", EXACT)
def test_columns_of_the_adjoint_are_independent(name, dtype, order, k):
    S, Y = FAMILIES[name].sample(100, 5000, rng=1), matrix(100, 37, dtype, order)
    SY = S.T @ Y
    np.testing.assert_array_equal(S.T @ Y[:, :k], SY[:, :k])
    np.testing.assert_array_equal(S.T @ Y[:, k], SY[:, k])


@pytest.mark.parametrize("n", [1, 3, 8, 37, 200])
@pytest.mark.parametrize("name", EXACT)
def test_memory_order_does_not_change_a_bit(name, dtype, n):
    S, A, Y = FAMILIES[name].sample(100, 9000, rng=1), matrix(9000, n, dtype), matrix(100, n, dtype)
    wide = np.zeros((18_000, 2 * n), dtype)
    wide[::2, ::2] = A
    SA, SY = S @ A, S.T @ Y
    for presented in (np.asfortranarray(A), wide[::2, ::2], A[::-1].copy()[::-1], np.asfortranarray(A[:, ::-1])[:, ::-1]):
        np.testing.assert_array_equal(S @ presented, SA)
    np.testing.assert_array_equal(S.T @ np.asfortranarray(Y), SY)


def fingerprints(threads):
    randla.set_num_threads(threads)
    found = {}
    for dtype in (np.float32, np.float64):
        for name, distribution in FAMILIES.items():
            S = distribution.sample(97, 5000, rng=1)
            found[f"{name} entries {dtype.__name__}"] = digest(S.to_dense(dtype))
            found[f"{name} csr {dtype.__name__}"] = digest(S @ sparse(5000, 30, dtype))
            for order in "CF":
                A, Y = matrix(5000, 19, dtype, order), matrix(97, 19, dtype, order)
                found[f"{name} {order} {dtype.__name__}"] = digest(S @ A, S.T @ Y)
            found[f"{name} accumulated {dtype.__name__}"] = digest(accumulated(S, A))
        for length in (2, 16, 256, 8192):
            X = matrix(length, 5, dtype)
            found[f"fwht {length} {dtype.__name__}"] = digest(
                fwht(X), fwht(X.T, 1), fwht(X[:, :1] + 1j * X[:, 1:2], normalize=True)
            )
        found[f"fwht past the caches {dtype.__name__}"] = digest(fwht(matrix(256, 8208, dtype)))
        for k in (1, 2, 5):
            found[f"residual csr {k} {dtype.__name__}"] = digest(*residual(sparse(5000, 30, dtype), k))
            for order in "CF":
                found[f"residual {order} {k} {dtype.__name__}"] = digest(*residual(matrix(5000, 19, dtype, order), k))
    return found


def child(code, **environment):
    """Output of a fresh interpreter that imports this module as `t`."""
    return run_python(f"import test_determinism as t; {code}", **environment)


def test_instruction_sets_and_threads_give_the_same_bits():
    isas = _cpu.available_isas()
    assert "baseline" in isas
    found = {}
    for isa in isas:
        counts = threads_for(isa)
        code = f"import json; print(json.dumps([t._cpu.isa(), [t.fingerprints(threads) for threads in {counts}]]))"
        run = child(code, RANDLA_ISA=isa, OPENBLAS_NUM_THREADS="1")
        assert run.returncode == 0, run.stderr
        used, per_threads = json.loads(run.stdout)
        assert used == isa
        found |= {(isa, threads): prints for threads, prints in zip(counts, per_threads, strict=True)}
    expected = found["baseline", 1]
    assert len(expected) > 100
    for key, prints in found.items():
        differing = [name for name, value in expected.items() if prints[name] != value]
        assert not differing, f"{key} differs from one thread on the baseline"


def test_unknown_instruction_set_is_refused_by_name():
    run = child("", RANDLA_ISA="pentium")
    assert run.returncode != 0
    for word in ("RANDLA_ISA", "pentium", "baseline"):
        assert word in run.stderr


@openmp
def test_thread_limits_are_respected():
    randla.set_num_threads(3)
    assert _cpu.max_threads() == 3
    with threadpool_limits(1):
        assert _cpu.max_threads() == 1
    assert _cpu.max_threads() == 3
    run = child("print(t._cpu.max_threads())", OMP_NUM_THREADS="2")
    assert run.stdout.strip() == "2", run.stderr


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_impossible_thread_counts_are_refused(threads):
    with pytest.raises((ValueError, TypeError), match=str(threads)):
        randla.set_num_threads(threads)


def work():
    A = matrix(20_000, 8, np.float64)
    products = [distribution.sample(64, 20_000, rng=1) @ A for distribution in FAMILIES.values()]
    return digest(*products, *residual(A))


def forked_digests():
    """Digests before a fork, in the child, and in the parent afterwards, each computed with two threads allowed."""
    randla.set_num_threads(2)
    before = work()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        # The default action of SIGALRM ends a child that waits for threads it does not have.
        signal.alarm(30)
        os.write(writer, work().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        forked = pipe.read()
    os.waitpid(pid, 0)
    return [before, forked, work()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_fork_after_use_neither_hangs_nor_changes_results():
    run = child("import json; print(json.dumps(t.forked_digests()))", PYTHONWARNINGS="ignore")
    assert run.returncode == 0, run.stderr
    before, forked, after = json.loads(run.stdout)
    assert forked == before
    assert after == before
