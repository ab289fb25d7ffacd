"""Matrices that come in blocks of rows, and matrices in files: the same answers, bounded memory, honest counts of passes."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from problems import least_squares, rank_deficient

import randla
from randla import RowBlocks, _cpu

METHODS = ("spir", "fossils", "cholqr", "lsqr", "momentum")


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


def lapack(A, b):
    return np.linalg.lstsq(A, b, rcond=None)[0]


def cut(A, *sizes):
    """Blocks of the given numbers of rows, the last one with the rest."""
    edges = [0, *np.cumsum(sizes), len(A)]
    return [A[i:j] for i, j in itertools.pairwise(edges)]


@pytest.fixture(scope="module")
def problem():
    p = least_squares(5000, 20, 1e3, 1e-2, rng=3)
    return p.A, p.b


class Readings:
    """A source that starts anew, and counts."""

    def __init__(self, blocks):
        self.blocks, self.count = blocks, 0

    def __iter__(self):
        self.count += 1
        yield from self.blocks


class OneBuffer:
    """A source that fills the same memory again and again."""

    def __init__(self, A, rows):
        self.A, self.rows = A, rows

    def __iter__(self):
        buffer = np.empty((self.rows, self.A.shape[1]))
        for i in range(0, len(self.A), self.rows):
            part = self.A[i : i + self.rows]
            buffer[: len(part)] = part
            yield buffer[: len(part)]


SOURCES = {
    "list": lambda A: cut(A, 1000, 1, 2999),
    "tuple": lambda A: tuple(cut(A, 4999)),
    "one block": lambda A: [A],
    "single rows": lambda A: RowBlocks(lambda: (A[i : i + 1] for i in range(len(A)))),
    "empty blocks": lambda A: cut(A, 0, 100, 0, 0),
    "iterable": lambda A: Readings(cut(A, 2500)),
    "callable": lambda A: RowBlocks(lambda: iter(cut(A, 700, 700))),
    "reused buffer": lambda A: OneBuffer(A, 33),
    "large reused buffer": lambda A: OneBuffer(A, 4000),
    "Fortran order": lambda A: [np.asfortranarray(B) for B in cut(A, 1234)],
    "csr": lambda A: [sp.csr_array(B) for B in cut(A, 1234)],
    "csc": lambda A: [sp.csc_matrix(B) for B in cut(A, 1234)],
    "mixed": lambda A: [sp.csr_array(A[:10]), A[10:20], A[20:3000], sp.csr_array(A[3000:])],
    "known shape": lambda A: RowBlocks(Readings(cut(A, 2500)), shape=A.shape, dtype=A.dtype),
    "three dimensions": lambda A: RowBlocks(A.reshape(50, 100, 20)),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("method", ["auto", "cholqr"])
def test_every_source_gives_the_solution(problem, source, method):
    A, b = problem
    result = randla.lstsq(SOURCES[source](A), b, method=method, rng=1)
    assert relative(result.x, lapack(A, b)) < 1e-11
    assert result.backward_error < 1e-16
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ result.x), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_blocks_are_as_good_as_the_whole(problem, method, ridge, weighted, k):
    A, b = problem
    rng = np.random.default_rng(4)
    B = np.column_stack([b, *rng.standard_normal((k - 1, len(b)))])
    options = {"ridge": ridge, "weights": rng.uniform(0, 2, len(b)) if weighted else None, "method": method, "rng": 1}
    result = randla.lstsq(cut(A, 1000, 2000), B, **options)
    whole = randla.lstsq(A, B, **options)
    assert relative(result.x, whole.x) < 1e-11
    assert np.allclose(result.residual_norm, whole.residual_norm, rtol=1e-12)
    assert result.rank == whole.rank


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128, np.int32])
@pytest.mark.parametrize("make", [np.ascontiguousarray, np.asfortranarray, sp.csr_array])
def test_dtypes_are_those_of_the_blocks(dtype, make):
    rng = np.random.default_rng(5)
    A = (10 * rng.standard_normal((3000, 12)) + (1j if np.dtype(dtype).kind == "c" else 0)).astype(dtype)
    b = rng.standard_normal(3000).astype(np.float32)
    result = randla.lstsq([make(B) for B in cut(A, 1000)], b, rng=1)
    expected = np.result_type(np.float64 if dtype is np.int32 else dtype, np.float32)
    assert result.x.dtype == expected
    assert relative(result.x, lapack(A.astype(np.result_type(dtype, float)), b)) < 300 * np.finfo(expected).eps


def test_dtypes_of_blocks_are_promoted_and_may_be_given():
    rng = np.random.default_rng(6)
    A = rng.standard_normal((2000, 9))
    mixed = [A[:900].astype(np.float32), A[900:]]
    assert RowBlocks(mixed).dtype == np.float64
    assert randla.lstsq(mixed, A[:, 0], rng=1).x.dtype == np.float64
    narrow = RowBlocks([A[:900], A[900:]], dtype=np.float32)
    assert all(block.dtype == np.float32 for _, block in narrow)


def test_rank_deficiency_is_seen_and_the_solution_of_minimum_norm_returned():
    A, b = rank_deficient("duplicate", 3000, 20, 15, rng=7)
    with pytest.warns(randla.LstsqWarning, match="Rank 15 of 20"):
        result = randla.lstsq(cut(A, 1000), b, rng=1)
    assert relative(result.x, lapack(A, b)) < 1e-10


def test_the_same_blocks_give_the_same_bits_for_any_number_of_threads(problem):
    A, b = problem
    before, found = _cpu.max_threads(), set()
    try:
        for threads in (1, 2, 3):
            randla.set_num_threads(threads)
            found.add(randla.lstsq(cut(A, 1000, 2222), b, method="spir", rng=1).x.tobytes())
    finally:
        randla.set_num_threads(before)
    assert len(found) == 1


# Passes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("known", [False, True])
def test_passes_are_readings_of_the_source(problem, method, known):
    A, b = problem
    source = Readings(cut(A, 2500))
    blocks = RowBlocks(source, shape=A.shape, dtype=A.dtype) if known else RowBlocks(source)
    result = randla.lstsq(blocks, b, method=method, rng=1)
    assert result.passes == source.count == blocks.reads
    # The shape is looked for once only.
    again = randla.lstsq(blocks, b, method=method, rng=1)
    assert again.passes == result.passes - (not known)


def test_blocks_of_a_list_are_not_read_for_their_shape(problem):
    A, _ = problem
    blocks = RowBlocks(cut(A, 100))
    assert blocks.shape == (5000, 20)
    assert blocks.reads == 0


def test_iteration_gives_checked_blocks_with_their_first_rows(problem):
    A, _ = problem
    blocks = RowBlocks([A[:4500], A[4500:4501].tolist(), sp.csc_array(A[4501:])], shape=A.shape, dtype=float)
    rows = 0
    for offset, block in blocks:
        assert offset == rows
        assert np.array_equal(block.toarray() if sp.issparse(block) else block, A[rows : rows + block.shape[0]])
        rows += block.shape[0]
    assert rows == 5000
    assert blocks.reads == 1
    assert "(5000, 20)" in repr(blocks)


def test_small_blocks_are_joined_and_large_ones_passed_on(problem):
    A, _ = problem
    sizes = [block.shape[0] for _, block in RowBlocks(lambda: (A[i : i + 1] for i in range(5000)))]
    assert sum(sizes) == 5000
    assert len(sizes) <= 3
    large = np.zeros((40_000, 20))
    ((_, block),) = RowBlocks([large])
    assert np.shares_memory(block, large)


def test_columns_are_sketched_block_by_block():
    # More columns than fit one block's worth of sketch: the pieces grow with the sketch, the answer stays.
    rng = np.random.default_rng(8)
    A, b = rng.standard_normal((6000, 150)), rng.standard_normal(6000)
    for sketch in (randla.SparseStack(), randla.BlockSRHT(), randla.Gaussian()):
        result = randla.lstsq(cut(A, *[100] * 30), b, sketch=sketch, sketch_size=600, rng=1)
        assert relative(result.x, lapack(A, b)) < 1e-12


def test_preconditioner_takes_blocks(problem):
    A, _ = problem
    N = randla.sketch_preconditioner(cut(A, 1000), rng=1)
    assert np.linalg.cond(A @ N.matmat(np.eye(20))) < 3


# Refused


def test_an_iterator_is_refused_with_the_way_out(problem):
    A, b = problem
    for source in (iter(cut(A, 1000)), (B for B in cut(A, 1000)), map(np.asarray, cut(A, 1000))):
        with pytest.raises(TypeError, match=r"source must be readable more than once.*its own iterator"):
            randla.lstsq(source, b)
    with pytest.raises(TypeError, match=r"A must be readable more than once.*its own iterator"):
        randla.lstsq(RowBlocks(iter(cut(A, 1000)), shape=A.shape, dtype=A.dtype), b)


def test_an_iterator_with_a_known_shape_is_enough_for_one_pass(problem):
    A, _ = problem
    blocks = RowBlocks(iter(cut(A, 1000)), shape=A.shape, dtype=A.dtype)
    assert sum(block.shape[0] for _, block in blocks) == 5000
    with pytest.raises(TypeError, match="A must be readable more than once"):
        list(blocks)


def test_a_callable_that_returns_the_same_iterator_is_found_out(problem):
    A, b = problem
    iterator = iter(cut(A, 1000))
    with pytest.raises(ValueError, match=r"A must give the same 5000 rows in every pass; got 0"):
        randla.lstsq(RowBlocks(lambda: iterator), b)


@pytest.mark.parametrize(("later", "words"), [(slice(0, 4000), "got 4000"), (slice(0, 6000), "got more")])
def test_a_source_that_changes_its_rows_is_found_out(problem, later, words):
    A, b = problem
    longer = np.vstack([A, A])
    count = []

    def source():
        count.append(1)
        yield from cut(A if len(count) < 4 else longer[later], 1000)

    with pytest.raises(ValueError, match=f"A must give the same 5000 rows in every pass; {words}"):
        randla.lstsq(RowBlocks(source), b, rng=1)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ([np.ones((4, 2)), np.ones((4, 3))], ValueError, r"block 1 of A must have 2 columns.*\(4, 3\)"),
        (Readings([np.ones((4, 2)), np.ones(4)]), ValueError, r"block 1 of A must have 2 dimensions; got 1"),
        (Readings([np.ones((4, 2)), 3.0]), ValueError, r"block 1 of A must have 2 dimensions; got 0"),
        ([np.ones((4, 2)), np.ones((4, 2), "S1")], TypeError, r"block 1 of A must have dtype"),
        (Readings([]), ValueError, r"source must give at least one block.*got none"),
        (3, TypeError, r"source must be an iterable of blocks or a callable; got int"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(source, error, words):
    with pytest.raises(error, match=words):
        randla.lstsq(RowBlocks(source), np.ones(8))


def test_a_complex_block_in_a_real_matrix_is_refused(problem):
    A, b = problem
    blocks = RowBlocks([A[:10], A[10:] * 1j], dtype=float)
    with pytest.raises(TypeError, match=r"block 1 of A must be real.*got complex128"):
        randla.lstsq(blocks, b)


@pytest.mark.parametrize(("shape", "error"), [((3,), TypeError), (5, TypeError), ((2.5, 2), TypeError), ((-1, 2), ValueError)])
def test_unsuitable_shapes_are_refused(shape, error):
    with pytest.raises(error, match="shape"):
        RowBlocks([np.ones((3, 2))], shape=shape)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_not_finite_are_refused(problem, value):
    A, b = problem
    bad = A.copy()
    bad[4321, 3] = value
    with pytest.raises(ValueError, match="A must be finite"):
        randla.lstsq(cut(bad, 1000), b, rng=1)


def test_lapack_and_wide_matrices_are_refused(problem):
    A, b = problem
    with pytest.raises(TypeError, match="method 'direct' needs a dense array"):
        randla.lstsq(cut(A, 1000), b, method="direct")
    with pytest.raises(ValueError, match=r"A must have at least as many rows as columns.*\(6, 20\)"):
        randla.lstsq([A[:3], A[3:6]], b[:6])
    with pytest.raises(ValueError, match=r"b must have shape \(5000,\)"):
        randla.lstsq(cut(A, 1000), b[:-1])


@pytest.mark.parametrize(
    ("value", "shape"), [([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], (2,)), ((np.ones(2), np.array([1.0, 2.0]), np.zeros(2)), (2,))]
)
def test_nested_sequences_of_rows_stay_arrays(value, shape):
    assert randla.lstsq(value, np.ones(3)).x.shape == shape


# Files


def on_disk(path, A, order="C"):
    file = np.memmap(path, dtype=A.dtype, mode="w+", shape=A.shape, order=order)
    file[:] = A
    file.flush()
    return np.memmap(path, dtype=A.dtype, mode="r", shape=A.shape, order=order)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("method", ["spir", "cholqr", "lsqr"])
def test_memory_mapped_matrix_gives_the_same_bits_and_passes(tmp_path, dtype, order, method):
    rng = np.random.default_rng(9)
    A = np.asarray(rng.standard_normal((20_000, 20)).astype(dtype), order=order)
    b = rng.standard_normal(20_000)
    mapped = on_disk(tmp_path / "A", A, order)
    result, inside = (randla.lstsq(M, b, method=method, rng=1) for M in (mapped, A))
    assert result.x.tobytes() == inside.x.tobytes()
    assert (result.passes, result.residual_norm) == (inside.passes, inside.residual_norm)


def test_npy_files_are_used_in_place(tmp_path):
    rng = np.random.default_rng(10)
    A, b = rng.standard_normal((3000, 10)), rng.standard_normal(3000)
    np.save(tmp_path / "A.npy", A)
    mapped = np.load(tmp_path / "A.npy", mmap_mode="r")
    assert relative(randla.lstsq(mapped, b, method="spir", rng=1).x, lapack(A, b)) < 1e-12
    assert relative(randla.lstsq([mapped[:1000], mapped[1000:]], b, rng=1).x, lapack(A, b)) < 1e-12


LIMITED = """
import resource, sys
import numpy as np
import randla

path, m, n, form = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
A = np.memmap(path, dtype=np.float64, mode="r", shape=(m, n), order="F" if form == "F" else "C")
b = np.ones(m)
b[::2] = -1.0
if form == "blocks":
    A = [A[i : i + 20_000] for i in range(0, m, 20_000)]
randla.lstsq(np.eye(2000, 100), b[:2000], method="spir", rng=1)  # BLAS takes its buffers
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + (250 << 20), used + (250 << 20)))
try:
    np.ones(300 << 17)
except MemoryError:
    print("limited")
result = randla.lstsq(A, b, rng=1, allow_copy=False)
print(result.success, result.backward_error < 1e-16, result.passes < 60)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and relies on RLIMIT_DATA for mapped memory")
@pytest.mark.parametrize("form", ["C", "F", "blocks"])
def test_matrix_larger_than_the_memory_allowed_is_solved(tmp_path, form):
    m, n, rng = 600_000, 125, np.random.default_rng(11)
    file = np.memmap(tmp_path / "A", dtype=np.float64, mode="w+", shape=(n, m) if form == "F" else (m, n))
    rows = len(file) // 25
    for i in range(0, len(file), rows):
        file[i : i + rows] = rng.standard_normal((rows, file.shape[1]))
    file.flush()
    assert os.path.getsize(tmp_path / "A") == 600_000_000
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "A"), str(m), str(n), form],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,  # the package under test, not the source folder
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["limited", "True", "True", "True"]
