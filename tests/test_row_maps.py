"""Kernels that map the rows of a matrix, and what the wrappers make of them, against their definition in extended precision."""

import itertools
import resource

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator
from test_determinism import child, digest, distinct_over_threads, openmp

import randla
from randla import _cpu
from randla._matrix import argument, wrap
from randla._row_map import RowMap

pytestmark = pytest.mark.usefixtures("one_blas_thread")

EPS = np.finfo(np.float64).eps

# (m, n, r): no rows, one row, less than a tile, columns that leave panels unfilled, several panels, several pieces of rows.
SHAPES = [(0, 4, 3), (1, 1, 1), (7, 5, 3), (33, 24, 24), (70, 50, 47), (40, 130, 130), (1500, 9, 4), (9000, 6, 6)]


@pytest.fixture(autouse=True)
def _restore_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


def strided(A):
    wide = np.full((2 * A.shape[0], 3 * A.shape[1]), np.nan, A.dtype)
    wide[::2, ::3] = A
    return wide[::2, ::3]


def wide_indices(A):
    C = sp.csr_array(A)
    return sp.csr_array((C.data, C.indices.astype(np.int64), C.indptr.astype(np.int64)), shape=C.shape)


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "CSR": sp.csr_array,
    "CSR64": wide_indices,
}


def problem(m, n, r, *, dtype=np.float64, upper=False, scaled=True, seed=0):
    """Rows, a third of them without entries in every other column, a map, powers of two and roots of weights."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n)).astype(dtype)
    A[::3, ::2] = 0
    T = np.ascontiguousarray(np.triu(rng.standard_normal((n, n))) if upper else rng.standard_normal((n, r)))
    scale, roots = 2.0 ** rng.integers(-3, 4, n), rng.random(m) * (rng.random(m) > 0.1)
    return A, T, *((scale, roots) if scaled else (None, None))


def row_norms(A, T, scale, roots, upper=False, single=False):
    out = np.full(A.shape[0], np.nan)
    if sp.issparse(A):
        _cpu.row_norms_csr(A.data, A.indptr, A.indices, T, upper, scale, roots, single, out)
    else:
        _cpu.row_norms(A, T, upper, scale, roots, single, out)
    return out


def gram(A, T, scale, roots, upper=False, onto=0.0):
    G = np.full((T.shape[1], T.shape[1]), onto)
    if sp.issparse(A):
        _cpu.gram_csr(A.data, A.indptr, A.indices, T, upper, scale, roots, G)
    else:
        _cpu.gram(A, T, upper, scale, roots, G)
    return G


def images(A, T, scale, roots, number=np.longdouble):
    wide = A.astype(number) * (1 if scale is None else scale)
    return (wide @ T.astype(number)) * (1 if roots is None else roots[:, None])


@pytest.mark.parametrize("upper", [False, True], ids=["full", "upper"])
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_equal_their_definition(layout, scaled, upper, dtype):
    for m, n, r in SHAPES:
        A, T, scale, roots = problem(m, n, r, dtype=dtype, upper=upper, scaled=scaled)
        given, r = LAYOUTS[layout](A), T.shape[1]
        Y = images(A, T, scale, roots)
        # Rounding errors of y are below (n + 4) eps times this, whatever the order of the sums.
        sizes = images(np.abs(A), np.abs(T), scale, roots).astype(float)
        squares = np.sum(sizes**2, axis=1)
        for single, eps in ((False, EPS), (True, np.finfo(np.float32).eps)):
            error = np.abs(row_norms(given, T, scale, roots, upper, single) - np.sum(Y * Y, axis=1))
            assert np.all(error <= 2 * (n + r + 8) * eps * squares), (m, n, r, single)
        G = gram(given, T, scale, roots, upper, onto=1.0)
        assert np.array_equal(G, G.T)
        assert np.all(np.abs(G - 1 - Y.T @ Y) <= 2 * EPS * ((n + m + 8) * (sizes.T @ sizes) + 1)), (m, n, r)


@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_memory_order_does_not_change_a_bit(single, dtype):
    for m, n, r in [(7, 5, 3), (1500, 9, 4), (40, 130, 130)]:
        A, T, scale, roots = problem(m, n, r, dtype=dtype)
        norms, G = row_norms(A, T, scale, roots, single=single), gram(A, T, scale, roots)
        for layout in ("F", "strided", "reversed"):
            given = LAYOUTS[layout](A)
            assert np.array_equal(row_norms(given, T, scale, roots, single=single), norms)
            assert np.array_equal(gram(given, T, scale, roots), G)
        assert np.array_equal(row_norms(wide_indices(A), T, scale, roots), row_norms(sp.csr_array(A), T, scale, roots))


def test_a_triangular_map_skips_its_zeros_only(dtype):
    A, T, scale, roots = problem(300, 130, 130, dtype=dtype, upper=True)
    for given in (A, sp.csr_array(A)):
        assert np.array_equal(row_norms(given, T, scale, roots, True), row_norms(given, T, scale, roots, False))
        assert np.array_equal(gram(given, T, scale, roots, True), gram(given, T, scale, roots, False))


def prints():
    """What the kernels give for every path, by name."""
    found = {}
    for (m, n, r), dtype, upper in itertools.product(SHAPES[1:], (np.float32, np.float64), (False, True)):
        A, T, scale, roots = problem(m, n, r, dtype=dtype, upper=upper)
        for layout in ("C", "F", "CSR"):
            given, key = LAYOUTS[layout](A), f"{m} {n} {np.dtype(dtype).name} {upper} {layout}"
            found["norms " + key] = row_norms(given, T, scale, roots, upper)
            found["single " + key] = row_norms(given, T, scale, roots, upper, True)
            found["gram " + key] = gram(given, T, scale, roots, upper)
    return found


def test_results_do_not_depend_on_the_number_of_threads():
    assert len(distinct_over_threads(lambda: prints().values())) == 1


@openmp
def test_instruction_sets_agree_bit_for_bit(tmp_path):
    isas = _cpu.available_isas()
    assert "baseline" in isas
    found = {}
    for isa in isas:
        path = tmp_path / f"{isa}.npz"
        run = child(f"import test_row_maps as r, numpy as np; np.savez({str(path)!r}, **r.prints())", RANDLA_ISA=isa)
        assert run.returncode == 0, run.stderr
        with np.load(path) as z:
            found[isa] = {name: z[name] for name in z.files}
    expected = found.pop("baseline")
    assert len(expected) > 100
    for name, value in expected.items():
        assert len({digest(prints[name]) for prints in found.values()} | {digest(value)}) == 1, name


@pytest.mark.parametrize("power", [0, 20, 100, 300, 900])
@pytest.mark.parametrize("layout", ["C", "F", "CSR"])
def test_scales_of_any_size_are_taken_into_account(layout, power):
    # A with columns of size 2^-power, which the scale takes back.
    rng = np.random.default_rng(0)
    powers = 2.0 ** rng.integers(-power, power + 1, 12)
    A, T = rng.standard_normal((50, 12)), rng.standard_normal((12, 5))
    mapping, plain, Y = RowMap(T, powers), RowMap(T, np.ones(12)), A @ T
    given = LAYOUTS[layout](A / powers)
    out, G = np.empty(50), np.zeros((5, 5))
    for single, tolerance in ((False, 1e-13), (True, 1e-4)):
        mapping.squared_norms(given, None, single, out)
        np.testing.assert_allclose(out, np.sum(Y * Y, axis=1), rtol=tolerance)
    mapping.add_gram(given, None, G)
    np.testing.assert_allclose(G, Y.T @ Y, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(mapping.images(A / powers), plain.images(A), rtol=1e-14)
    assert mapping.rank == 5


def test_gram_of_the_map_itself():
    rng = np.random.default_rng(1)
    T, scale = rng.standard_normal((6, 4)), 2.0 ** rng.integers(-3, 4, 6)
    want = 0.7 * np.einsum("ki,kj,k->ij", T, T, scale**2)
    np.testing.assert_allclose(RowMap(T, scale).gram_of_map(0.7), want, rtol=1e-13, atol=1e-13)


def cut(A, *edges):
    return [A[i:j] for i, j in itertools.pairwise([0, *edges, A.shape[0]])]


WRAPPED = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "CSR": sp.csr_array,
    "blocks": lambda A: cut(A, 100, 101),
    "F blocks": lambda A: [np.asfortranarray(block) for block in cut(A, 1, 900)],
    "sparse and dense blocks": lambda A: [sp.csr_array(A[:500]), A[500:]],
    "operator": aslinearoperator,
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("number", [np.float64, np.float32, np.complex128, np.complex64])
@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_map_the_rows_of_their_matrix(kind, number, weighted):
    rng = np.random.default_rng(2)
    m, n, r = 1200, 5, 3
    is_complex = np.dtype(number).kind == "c"
    A = (rng.standard_normal((m, n)) + (1j * rng.standard_normal((m, n)) if is_complex else 0)).astype(number)
    weights = rng.random(m) * (rng.random(m) > 0.1) if weighted else None
    weighted_rows = A.astype(np.complex128) * (1 if weights is None else np.sqrt(weights)[:, None])
    T, scale = rng.standard_normal((n, r)), 2.0 ** rng.integers(-2, 3, n)
    dense = weighted_rows.real
    if is_complex:
        # The real matrix of twice the size, and a map with its structure.
        dense = np.block([[weighted_rows.real, -weighted_rows.imag], [weighted_rows.imag, weighted_rows.real]])
        Z = rng.standard_normal((n, r))
        T, scale = np.block([[T, -Z], [Z, T]]), np.tile(scale, 2)
    mapping, Y = RowMap(np.ascontiguousarray(T), scale), (dense * scale) @ T
    chosen = np.array([3, 0, 1199, 500, 3])

    matrix = wrap(argument(WRAPPED[kind](A)), weights)
    close = {"rtol": 1e-5 if number in (np.float32, np.complex64) and kind == "operator" else 1e-12, "atol": 1e-9}
    np.testing.assert_allclose(matrix.row_norms(mapping), np.sum(Y[:m] ** 2, axis=1), **close)
    assert matrix.passes == 1
    np.testing.assert_allclose(matrix.row_norms(mapping, True), np.sum(Y[:m] ** 2, axis=1), rtol=1e-4)
    np.testing.assert_allclose(matrix.gram(mapping), Y.T @ Y, **close)
    assert matrix.passes <= 4
    both = np.concatenate([chosen, chosen + m]) if is_complex else chosen
    np.testing.assert_allclose(matrix.take(chosen), dense[both], **close)
    np.testing.assert_allclose(matrix.row_squares(), np.sum(dense[:m] ** 2, axis=1), **close)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_parts_that_do_not_fit_are_refused(kind):
    A, T, scale, roots = problem(6, 4, 3)
    given = sp.csr_array(A) if kind == "csr" else A
    wrong = [
        ("T must be", {"T": np.ones(4)}),
        ("square", {"upper": True}),
        ("scale must be", {"scale": np.ones(3)}),
        ("scale must be", {"scale": np.ones(4, np.float32)}),
        ("scale must be", {"scale": np.ones(8)[::2]}),
        ("roots must be", {"roots": np.ones(5)}),
        ("roots must be", {"roots": np.ones((6, 1))}),
    ]
    for message, changed in wrong:
        arguments = {"T": T, "scale": scale, "roots": roots, "upper": False} | changed
        with pytest.raises(ValueError, match=message):
            row_norms(given, **arguments)
        if arguments["T"].ndim == 2:
            with pytest.raises(ValueError, match=message):
                gram(given, **arguments)


def test_outputs_and_shapes_that_do_not_fit_are_refused():
    A, T, scale, roots = problem(6, 4, 3)
    C = sp.csr_array(A)
    with pytest.raises(ValueError, match=r"T must be \(n, r\)"):
        _cpu.row_norms(A, np.ones((5, 3)), False, None, None, False, np.empty(6))
    with pytest.raises(ValueError, match="out must be"):
        _cpu.row_norms(A, T, False, scale, roots, False, np.empty(5))
    with pytest.raises(ValueError, match="out must be"):
        _cpu.row_norms_csr(C.data, C.indptr, C.indices, T, False, scale, roots, False, np.empty((6, 1)))
    with pytest.raises(ValueError, match="G must be"):
        _cpu.gram(A, T, False, scale, roots, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="G must be"):
        _cpu.gram_csr(C.data, C.indptr, C.indices, T, False, scale, roots, np.zeros(9))
    with pytest.raises(ValueError, match="int32 or both int64"):
        _cpu.row_norms_csr(C.data, C.indptr.astype(np.int64), C.indices, T, False, scale, roots, False, np.empty(6))
    for out in (np.empty(6, np.float32), np.empty(12)[::2]):
        with pytest.raises(TypeError):
            _cpu.row_norms(A, T, False, scale, roots, False, out)


def growth():
    """Kilobytes by which this process grows over 60,000 rows whose images would take 144 MB."""
    rng = np.random.default_rng(3)
    A, T = rng.standard_normal((60_000, 4)), rng.standard_normal((4, 300))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    norms, G = row_norms(A, T, None, None), gram(A, T, None, None)
    assert np.isclose(norms.sum(), np.trace(G))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def test_images_are_not_stored():
    run = child("import test_row_maps as r; print(r.growth())")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 60_000


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (4, 0)])
def test_nothing_to_map(shape):
    m, n = shape
    A = np.ones(shape)
    for r in (0, n):
        T = np.ones((n, r))
        assert gram(A, T, None, None).shape == (r, r)
        assert np.array_equal(row_norms(A, T, None, None), np.full(m, float(r * n**2)))
    G = np.zeros((n, n))
    _cpu.gram(A, None, False, None, None, G)
    assert not G.any()
