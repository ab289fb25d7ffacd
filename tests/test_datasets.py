"""Generated problems have the properties asked for; files come back as they were written; errors say what to do."""

import bz2
import gzip
import itertools
import lzma
import tracemalloc

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from ls_oracles import refined_solution

from randla import datasets

# Generated problems


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "n", "cond"), [(50, 5, 1e4), (3000, 40, 1e6), (700, 600, 1e3), (30_000, 60, 1.0)])
def test_generated_problem_is_as_asked_for(m, n, cond, dtype, order):
    A, b, x = datasets.least_squares(m, n, cond=cond, residual=0.2, rng=3, dtype=dtype, order=order)
    assert A.shape == (m, n)
    assert b.shape == (m,)
    assert x.shape == (n,)
    assert (A.dtype, b.dtype, x.dtype) == (dtype, dtype, np.float64)
    assert A.flags[f"{order}_CONTIGUOUS"]
    s = np.linalg.svd(A.astype(np.float64), compute_uv=False)
    assert s[0] / s[-1] == pytest.approx(cond, rel=0.02)
    assert s[0] == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(b - A @ x) / np.linalg.norm(b) == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_solution_is_that_of_the_rounded_data(dtype):
    # In float32 the rounding of A and b moves the solution by 1e-2; x has to follow. 1e-8 is far below that and above
    # what float64 residuals alone would allow at this condition number (1e-7).
    A, b, x = datasets.least_squares(2000, 30, cond=1e5, residual=0.5, rng=1, dtype=dtype)
    exact = refined_solution(A, b)
    assert np.linalg.norm(x - exact) <= 1e-8 * np.linalg.norm(exact)


def test_consistent_and_square_problems():
    A, b, x = datasets.least_squares(40, 40, cond=10, rng=0)
    assert np.allclose(A @ x, b)
    A, b, x = datasets.least_squares(400, 40, cond=10, residual=0, rng=0)
    assert np.linalg.norm(A @ x - b) < 1e-14
    assert datasets.least_squares(5, 1, rng=0).A.shape == (5, 1)


def test_problem_depends_on_the_seed_and_not_on_the_threads(monkeypatch):
    first = datasets.least_squares(60_000, 40, rng=5)
    monkeypatch.setattr(datasets.os, "cpu_count", lambda: 7)
    again = datasets.least_squares(60_000, 40, rng=np.random.default_rng(5))
    assert np.array_equal(first.A, again.A)
    assert np.array_equal(first.b, again.b)
    assert not np.array_equal(first.A, datasets.least_squares(60_000, 40, rng=6).A)


def test_making_a_problem_needs_little_more_memory_than_the_problem():
    tracemalloc.start()
    A, _, _ = datasets.least_squares(400_000, 40, rng=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Vectors of 1/40 of A each, blocks of at most 16 threads.
    assert peak < 1.5 * A.nbytes + 16 * 2 * 8 * datasets.BLOCK


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"m": 3, "n": 4}, "m >= n"),
        ({"m": 3, "n": 0}, "n >= 1"),
        ({"cond": 0.5}, "cond"),
        ({"cond": np.inf}, "cond"),
        ({"residual": 1.0}, "residual"),
        ({"order": "A"}, "order"),
    ],
)
def test_impossible_problem_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.least_squares(**{"m": 10, "n": 2, **arguments})


def test_integer_problem_is_refused():
    with pytest.raises(TypeError, match="dtype"):
        datasets.least_squares(10, 2, dtype=int)


# Files


@pytest.fixture
def dense():
    return np.random.default_rng(0).standard_normal((7, 3))


@pytest.fixture
def sparse():
    A = sp.random_array((9, 5), density=0.4, format="csr", rng=np.random.default_rng(0))
    A[8, 4] = 1.5  # the last column must not be empty: LIBSVM files do not say how many there are
    return A


def test_npy(tmp_path, dense):
    np.save(tmp_path / "a.npy", dense)
    A, y = datasets.read(tmp_path / "a.npy")
    assert np.array_equal(A, dense)
    assert y is None


@pytest.mark.parametrize(("matrix", "target"), [("X", "y"), ("A", "b"), ("A", None), ("anything", None)])
def test_dense_npz(tmp_path, dense, matrix, target):
    np.savez(tmp_path / "a.npz", **{matrix: dense}, **({target: np.arange(7)} if target else {}))
    A, y = datasets.read(str(tmp_path / "a.npz"))
    assert np.array_equal(A, dense)
    assert (y is None) if target is None else np.array_equal(y, np.arange(7))


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_npz(tmp_path, sparse, form):
    sp.save_npz(tmp_path / "a.npz", sparse.asformat(form))
    A, _ = datasets.read(tmp_path / "a.npz")
    assert A.format == form
    assert np.array_equal(A.toarray(), sparse.toarray())


def test_sparse_npz_with_small_indices_and_labels(tmp_path, sparse):
    parts = {"data": sparse.data, "indices": sparse.indices.astype(np.uint8), "indptr": sparse.indptr}
    np.savez(tmp_path / "a.npz", **parts, shape=sparse.shape, y=np.arange(9, dtype=np.int8))
    A, y = datasets.read(tmp_path / "a.npz")
    assert np.array_equal(A.toarray(), sparse.toarray())
    assert np.array_equal(y, np.arange(9))


@pytest.mark.parametrize("opener", [None, gzip.open, bz2.open, lzma.open])
def test_matrix_market(tmp_path, sparse, dense, opener):
    suffix = {None: "", gzip.open: ".gz", bz2.open: ".bz2", lzma.open: ".xz"}[opener]
    for matrix in (sparse, dense):
        scipy.io.mmwrite(tmp_path / "plain.mtx", matrix)
        data = (tmp_path / "plain.mtx").read_bytes()
        path = tmp_path / f"a.mtx{suffix}"
        with (opener or open)(path, "wb") as file:
            file.write(data)
        A, _ = datasets.read(path)
        assert sp.issparse(A) == sp.issparse(matrix)
        A, matrix = (M.toarray() if sp.issparse(M) else M for M in (A, matrix))
        assert np.allclose(A, matrix, rtol=1e-14)


@pytest.mark.parametrize("names", [False, True])
def test_csv(tmp_path, dense, names):
    header = "alpha,beta,gamma\n" if names else ""
    text = header + "\n".join(",".join(repr(float(v)) for v in row) for row in dense)
    (tmp_path / "a.csv").write_text(text)
    assert np.array_equal(datasets.read(tmp_path / "a.csv")[0], dense)


def test_csv_of_one_column_stays_a_matrix(tmp_path):
    (tmp_path / "a.csv").write_text("1\n2\n3\n")
    assert datasets.read(tmp_path / "a.csv")[0].shape == (3, 1)


def test_csv_of_complex_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("alpha,beta\n1+2j,3\n-1e-3j,nan+1j\n")
    A, _ = datasets.read(tmp_path / "a.csv")
    assert np.array_equal(A, [[1 + 2j, 3], [-1e-3j, complex(np.nan, 1)]], equal_nan=True)


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("suffix", [".svm", ".libsvm"])
def test_libsvm(tmp_path, sparse, base, suffix):
    sparse[0, 0] = 0.25  # so that counting from 0 can be seen
    lines = ["# a comment"]
    for i, row in enumerate(sparse.toarray()):
        entries = " ".join(f"{j + base}:{float(v)!r}" for j, v in enumerate(row) if v)
        lines.append(f"{(-1) ** i} {entries}{' # odd' if i % 2 else ''}")
    (tmp_path / f"a{suffix}").write_text("\n".join([*lines, "", ""]))
    A, y = datasets.read(tmp_path / f"a{suffix}")
    assert np.array_equal(A.toarray(), sparse.toarray())
    assert np.array_equal(y, (-1.0) ** np.arange(9))


def test_libsvm_row_without_entries(tmp_path):
    (tmp_path / "a.svm").write_text("1 2:3\n-1\n")
    A, y = datasets.read(tmp_path / "a.svm")
    assert np.array_equal(A.toarray(), [[0, 3], [0, 0]])
    assert np.array_equal(y, [1, -1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.svm", "1 1:2\n1 3 4:5\n", "data line 2 is not 'label index:value"),
        ("a.svm", "1 qid:2\n", "a.svm"),
        ("a.csv", "1,2\n3\n", "a.csv"),
        ("a.csv", "1,2\n3,x\n", "a.csv"),
        ("a.csv", "", "a.csv: holds no numbers"),
        ("a.csv", "alpha,beta\n", "a.csv: holds no numbers"),
        ("a.npy", "no array", "a.npy: not an .npy file"),
        ("a.npy", "", "a.npy: not an .npy file"),
        ("a.npz", "no archive", "a.npz"),
        ("a.mtx", "no matrix", "a.mtx"),
        ("a.mtx.gz", "not compressed", "a.mtx.gz"),
        ("a.txt", "1 2", "cannot read files that end in .txt; known are .npy"),
        ("a", "1 2", "no suffix"),
    ],
)
def test_unreadable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        datasets.read(tmp_path / name)


def test_archive_without_a_matrix_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.eye(2), second=np.eye(2))
    with pytest.raises(ValueError, match=r"named A or X.*found \['first', 'second'\]"):
        datasets.read(tmp_path / "a.npz")


def test_pickled_objects_are_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        datasets.read(tmp_path / "a.npy")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy: no such file"):
        datasets.read(tmp_path / "nothing.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder\.npy: not a regular file"):
        datasets.read(tmp_path / "folder.npy")


# Real data

SHAPES = {
    "a9a": (32_561, 123),
    "ash219": (219, 85),
    "casp": (45_730, 9),
    "covtype": (581_012, 54),
    "housing": (20_433, 8),
    "ijcnn1": (49_990, 22),
    "illc1033": (1_033, 320),
    "kdd99": (494_021, 38),
    "kdd99_onehot": (494_021, 118),
    "mnist": (10_000, 784),
    "mushrooms": (8_124, 112),
    "w8a": (49_749, 300),
    "well1033": (1_033, 320),
    "wine": (6_497, 11),
}


def test_every_data_set_has_a_known_shape():
    assert datasets.names() == sorted(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_real_data(name, data_file):
    file = data_file(datasets.REAL[name][0])
    folder = file.parents[1] if file.parent.name == "sparse" else file.parent
    A, y = datasets.load(name, folder)
    assert A.shape == SHAPES[name]
    assert A.dtype == np.float64
    assert np.isfinite(A.data if sp.issparse(A) else A).all()
    if name != "ash219":
        assert y.shape == (len(y),) == A.shape[:1]
        assert np.isfinite(y).all()


def test_one_hot_columns_are_those_of_the_file(data_file):
    path = data_file(datasets.REAL["kdd99_onehot"][0])
    A, y = datasets.load("kdd99_onehot", path.parent)
    assert A.indices.dtype == A.indptr.dtype == np.int32
    counts = A[:, 38:].sum(axis=0)
    assert counts[:3].tolist() == [283_602, 190_065, 20_354]  # icmp, tcp, udp, as published
    assert counts.sum() == 3 * len(y)
    with gzip.open(path, "rt") as file:
        rows = [line.rstrip().split(",") for line in itertools.islice(file, 0, None, 5_000)]
    dense = A[::5_000].toarray()
    for row, found, label in zip(rows, dense, y[::5_000], strict=True):
        assert found[:38].tolist() == [float(row[c]) for c in range(41) if c not in (1, 2, 3)]
        assert found[38:41].tolist() == [row[1] == name for name in ("icmp", "tcp", "udp")]
        assert label == (-1 if row[41] == "normal." else 1)
    for columns, place in ((slice(41, 107), 2), (slice(107, 118), 3)):
        pairs = set(zip(dense[:, columns].argmax(axis=1).tolist(), (row[place] for row in rows), strict=True))
        assert len(pairs) == len({column for column, _ in pairs}) == len({value for _, value in pairs}) > 3


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown data set 'iris'; known are a9a, "):
        datasets.load("iris")


def test_without_a_folder_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("RANDLA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"RANDLA_DATA.*covtype\.npz"):
        datasets.load("covtype")


def test_folder_without_the_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("RANDLA_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no covtype\.npz"):
        datasets.load("covtype")
