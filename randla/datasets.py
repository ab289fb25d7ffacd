"""Problems to try things on: generated, read from a file, or real data by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import scipy.io
import scipy.linalg
import scipy.sparse

__all__ = ["SUFFIXES", "Problem", "data_dir", "least_squares", "load", "names", "read"]

# Entries made at a time: 8 MiB of float64 per thread, small beside any matrix worth generating in pieces.
BLOCK = 1 << 20


class Problem(NamedTuple):
    """A generated problem: matrix, right-hand side, and the minimizer of ||A x - b||."""

    A: np.ndarray
    b: np.ndarray
    x: np.ndarray


def least_squares(
    m: int,
    n: int,
    *,
    cond: float = 1e6,
    residual: float = 0.1,
    rng: Any = None,
    dtype: Any = np.float64,
    order: Literal["C", "F"] = "C",
) -> Problem:
    """A dense tall problem of prescribed condition number and residual.

    A is an orthonormalized Gaussian matrix times diag(s) W' with s spaced evenly in log scale from 1 to 1/cond and W a
    random rotation; its norm is 1. b = A x + r with x on the unit sphere and r orthogonal to the range of A. The x
    returned is refined in extended precision (where the platform has it): rounding alone moves the minimizer by about
    cond^2 * residual * eps.

    Parameters
    ----------
    m, n : int
        Shape, m >= n >= 1.
    cond : float
        Largest over smallest singular value, reached to the accuracy of `dtype`.
    residual : float
        ||b - A x|| / ||b||, in [0, 1).
    rng : None, int, SeedSequence, BitGenerator or Generator
        The result does not depend on the number of threads.
    dtype : float32 or float64
    order : "C" or "F"

    Returns
    -------
    Problem
        (A, b, x); memory in use never exceeds A by more than some blocks of rows and vectors.

    Raises
    ------
    ValueError, TypeError
        For unsuitable arguments.
    """
    m, n, dtype = int(m), int(n), np.dtype(dtype)
    if n < 1 or m < n:
        raise ValueError(f"least_squares needs m >= n >= 1; got m = {m}, n = {n}")
    if not (cond >= 1 and np.isfinite(cond)):
        raise ValueError(f"cond must be finite and at least 1; got {cond}")
    if not 0 <= residual < 1:
        raise ValueError(f"residual must be in [0, 1); got {residual}")
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64; got {dtype}")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F'; got {order!r}")
    rng = np.random.default_rng(rng)
    small = np.random.default_rng(rng.integers(2**63))
    x = small.standard_normal(n)
    x /= np.linalg.norm(x)
    W, _ = np.linalg.qr(small.standard_normal((n, n)))
    s = np.logspace(0, -np.log10(cond), n) if n > 1 else np.ones(1)

    A = np.empty((m, n), dtype, order=order)
    r = _gaussian(A, int(rng.integers(2**63)))
    gram = np.zeros((n, n))
    for rows in row_blocks(m, n):
        block = A[rows].astype(np.float64)
        gram += block.T @ block
    try:
        R = np.linalg.cholesky(gram).T
    except np.linalg.LinAlgError:  # a square Gaussian matrix can be this ill-conditioned
        R = np.asarray(np.linalg.qr(A.astype(np.float64), mode="r"))
    # Twice is enough (Kahan, Parlett): the second projection removes what rounding left in the first.
    for _ in range(2 if m > n else 0):
        c = scipy.linalg.cho_solve((R, False), sum(A[rows].T @ r[rows] for rows in row_blocks(m, n)))
        for rows in row_blocks(m, n):
            r[rows] -= A[rows] @ c
    mix = scipy.linalg.solve_triangular(R, s[:, None] * W.T)
    for rows in row_blocks(m, n):
        A[rows] = A[rows] @ mix
    b = np.concatenate([A[rows] @ x for rows in row_blocks(m, n)])
    if m > n:
        r *= residual / np.sqrt(1 - residual**2) * np.linalg.norm(b) / np.linalg.norm(r)
        b += r
    b = b.astype(dtype)
    if residual > 0:
        x = refine(A, b, x, lambda g: W @ ((W.T @ g) / s**2))
    return Problem(A, b, x)


def row_blocks(m: int, n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cut m rows of n entries into blocks of about `size` entries."""
    step = max(1, size // max(n, 1))
    return (slice(i, min(i + step, m)) for i in range(0, m, step))


def _gaussian(A: np.ndarray, seed: int) -> np.ndarray:
    """Fill A with Gaussians, one stream per block of rows, and return one more Gaussian vector of as many rows."""
    m, n = A.shape
    r = np.empty(m)
    blocks = list(row_blocks(m, n))

    def fill(block: slice, stream: np.random.SeedSequence) -> None:
        rng = np.random.default_rng(stream)
        A[block] = rng.standard_normal((block.stop - block.start, n))
        r[block] = rng.standard_normal(block.stop - block.start)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, blocks, np.random.SeedSequence(seed).spawn(len(blocks))))
    return r


def extended_residual(A: Any, x: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """r = b - A x and g = A'r, in float64 for float32 data and in long double for float64 data."""
    wide = np.float64 if A.dtype == np.float32 else np.longdouble
    m, n = A.shape
    x, b = x.astype(wide), b.astype(wide)
    if scipy.sparse.issparse(A):
        rows, columns = (index for index in A.tocoo().coords)
        values = A.tocoo().data.astype(wide)
        r, g = b.copy(), np.zeros(n, wide)
        np.subtract.at(r, rows, values * x[columns])
        np.add.at(g, columns, values * r[rows])
        return r, g

    def part(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        block = A[rows].astype(wide, order="C")
        r = b[rows] - np.einsum("ij,j->i", block, x)
        return r, np.einsum("ij,i->j", block, r)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        parts = list(pool.map(part, row_blocks(m, n, 1 << 16)))
    return np.concatenate([r for r, _ in parts]), np.sum([g for _, g in parts], axis=0)


def refine(
    A: Any, b: np.ndarray, x: np.ndarray, gram_inverse: Callable[[np.ndarray], np.ndarray], limit: int = 6
) -> np.ndarray:
    """Iterative refinement of a least-squares solution: residuals in extended precision, corrections in float64."""
    x, last = x.astype(np.longdouble), np.inf
    for _ in range(limit):
        _, g = extended_residual(A, x, b)
        dx = gram_inverse(g.astype(np.float64))
        size = float(np.linalg.norm(dx))
        if not size < last / 2:  # no longer contracting: this step is rounding
            break
        x, last = x + dx, size
        if size <= 1e-16 * float(np.linalg.norm(x.astype(np.float64))):
            break
    return x.astype(np.float64)


def _open(path: Path) -> IO[bytes]:
    """Open a possibly compressed file."""
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    file: IO[bytes] = openers.get(path.suffix.lower(), open)(path, "rb")
    return file


def _read_npy(path: Path) -> tuple[Any, Any]:
    with path.open("rb") as file:
        # NumPy takes whatever it does not know for a pickle, and its message tells how to load that all the same.
        if file.read(6) != b"\x93NUMPY":
            raise ValueError(f"{path}: not an .npy file")
        file.seek(0)
        return np.load(file, allow_pickle=False), None


def _read_npz(path: Path) -> tuple[Any, Any]:
    """Dense X or A, or CSR/CSC parts as scipy.sparse.save_npz writes them; right-hand side y or b if there."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an .npz file")
    with np.load(path, allow_pickle=False) as parts:
        target = next((parts[name] for name in ("b", "y") if name in parts), None)
        if {"data", "indices", "indptr", "shape"} <= set(parts.files):
            # np.array(b"csr").item() is what save_npz stores; small index types are legal in a file and not in scipy.
            form = parts["format"].item() if "format" in parts else b"csr"
            kind = scipy.sparse.csc_array if form in (b"csc", "csc") else scipy.sparse.csr_array
            index = np.int64 if len(parts["data"]) > np.iinfo(np.int32).max else np.int32
            triple = (parts["data"], parts["indices"].astype(index), parts["indptr"].astype(index))
            return kind(triple, shape=tuple(int(k) for k in parts["shape"])), target
        name = next((name for name in ("A", "X") if name in parts), parts.files[0] if len(parts.files) == 1 else None)
        if name is None:
            raise ValueError(
                f"{path}: expected an array named A or X, or the parts data, indices, indptr, shape of a sparse "
                f"matrix; found {parts.files}"
            )
        return parts[name], target


def _read_mtx(path: Path) -> tuple[Any, Any]:
    with _open(path) as file:
        A = scipy.io.mmread(file)
    return (scipy.sparse.csr_array(A) if scipy.sparse.issparse(A) else A), None


def _read_csv(path: Path) -> tuple[Any, Any]:
    """Numbers separated by commas, complex ones as 1+2j; at most one line of column names."""
    with _open(path) as file:
        first, second = file.readline().decode(), file.readline().decode()
    names = not _numbers(first)
    line = second if names else first
    if not line.strip():
        raise ValueError(f"{path}: holds no numbers")
    with _open(path) as file:
        return np.loadtxt(file, delimiter=",", dtype=complex if "j" in line else float, skiprows=int(names), ndmin=2), None


def _numbers(line: str) -> bool:
    try:
        [complex(word) for word in line.split(",")]
    except ValueError:
        return False
    return True


def _read_svm(path: Path) -> tuple[Any, Any]:
    """LIBSVM text: a label, then index:value pairs counted from 1 (from 0 if a 0 occurs), comments after #."""
    with _open(path) as file:
        lines = [line.split(b"#")[0].strip() for line in file]
    lines = [line for line in lines if line]
    pairs = np.array([line.count(b":") for line in lines], dtype=np.int64)
    words = b" ".join(lines).replace(b":", b" ").split()
    indptr = np.concatenate([[0], np.cumsum(pairs)])
    if len(words) != len(lines) + 2 * indptr[-1]:
        bad = next(i for i, line in enumerate(lines) if len(line.replace(b":", b" ").split()) != 1 + 2 * pairs[i])
        raise ValueError(
            f"{path}: data line {bad + 1} is not 'label index:value ...': {lines[bad][:60].decode(errors='replace')!r}"
        )
    flat = np.array(words, dtype=np.float64)
    labels = np.arange(len(lines)) + 2 * indptr[:-1]
    rest = np.delete(flat, labels).reshape(-1, 2)
    columns = rest[:, 0].astype(np.int64)
    base = 0 if len(columns) and columns.min() == 0 else 1
    width = int(columns.max()) + 1 - base if len(columns) else 0
    A = scipy.sparse.csr_array((rest[:, 1].copy(), columns - base, indptr), shape=(len(lines), width))
    A.sum_duplicates()
    return A, flat[labels]


READERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mtx": _read_mtx,
    ".svm": _read_svm,
    ".libsvm": _read_svm,
    ".csv": _read_csv,
}
SUFFIXES = tuple(READERS)


def read(path: str | os.PathLike[str]) -> tuple[Any, np.ndarray | None]:
    """Read a matrix, and the right-hand side if the file holds one.

    Parameters
    ----------
    path : path
        .npy; .npz (A or X and optionally b or y, or a sparse matrix as scipy.sparse.save_npz writes it); .mtx (Matrix
        Market); .svm or .libsvm; .csv (at most one line of names). The text formats may be compressed: .gz, .bz2, .xz.

    Returns
    -------
    A : ndarray or csr_array or csc_array
    y : ndarray or None

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For other suffixes, and for files that do not hold what their suffix says.
    """
    path = Path(path)
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz"):
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in READERS:
        raise ValueError(f"{path}: cannot read files that end in {suffix or 'no suffix'}; known are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    try:
        return READERS[suffix](path)
    except (ValueError, OSError, EOFError, KeyError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def data_dir() -> Path | None:
    """The folder of real data that the environment variable RANDLA_DATA names, or None."""
    folder = os.environ.get("RANDLA_DATA")
    return Path(folder) if folder else None


def _float(path: Path) -> tuple[Any, np.ndarray]:
    A, y = _read_npz(path)
    return A.astype(np.float64), np.asarray(y, np.float64)


_KDD99_TEXT = (1, 2, 3)


def _kdd99(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 38 numeric columns; the target is -1 for normal traffic and +1 for an attack."""
    with gzip.open(path, "rt") as file:
        lines = file.readlines()
    A = np.loadtxt(lines, delimiter=",", usecols=[c for c in range(41) if c not in _KDD99_TEXT])
    return A, np.array([-1.0 if line.rstrip().endswith(",normal.") else 1.0 for line in lines])


def _kdd99_onehot(path: Path) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """The numeric columns, then one column of zeros and ones for every value of protocol, service and flag, sorted."""
    A, y = _kdd99(path)
    parts = [scipy.sparse.csr_array(A)]
    with gzip.open(path, "rt") as file:
        text = np.loadtxt(file, delimiter=",", usecols=_KDD99_TEXT, dtype=str)
    for column in text.T:
        values, index = np.unique(column, return_inverse=True)
        triple = (np.ones(len(y)), index.astype(np.int32), np.arange(len(y) + 1, dtype=np.int32))
        parts.append(scipy.sparse.csr_array(triple, shape=(len(y), len(values))))
    return scipy.sparse.csr_array(scipy.sparse.hstack(parts, format="csr")), y


def _housing(path: Path) -> tuple[np.ndarray, np.ndarray]:
    X, y = _float(path)
    complete = np.isfinite(X).all(axis=1)
    return X[complete], y[complete]


def _mnist(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(path) as images, gzip.open(path.with_name("mnist_t10k-labels-idx1-ubyte.gz")) as labels:
        X = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 784)
        return X.astype(np.float64), np.frombuffer(labels.read(), np.uint8, offset=8).astype(np.float64)


def _matrix_market(path: Path) -> tuple[Any, np.ndarray | None]:
    target = path.with_name(path.name.replace(".mtx", "_rhs1.mtx"))
    A, _ = read(path)
    return A.astype(np.float64), read(target)[0].ravel() if target.exists() else None


REAL: dict[str, tuple[str, Callable[[Path], tuple[Any, Any]]]] = {
    "a9a": ("a9a.npz", _float),
    "ash219": ("sparse/ash219.mtx.gz", _matrix_market),
    "casp": ("protein_casp.npz", _float),
    "covtype": ("covtype.npz", _float),
    "housing": ("california_housing.npz", _housing),
    "ijcnn1": ("ijcnn1.npz", _float),
    "illc1033": ("sparse/illc1033.mtx.gz", _matrix_market),
    "kdd99": ("kddcup.data_10_percent.gz", _kdd99),
    "kdd99_onehot": ("kddcup.data_10_percent.gz", _kdd99_onehot),
    "mnist": ("mnist_t10k-images-idx3-ubyte.gz", _mnist),
    "mushrooms": ("mushrooms.npz", _float),
    "w8a": ("w8a.npz", _float),
    "well1033": ("sparse/well1033.mtx.gz", _matrix_market),
    "wine": ("wine_quality.npz", _float),
}


def names() -> list[str]:
    """Names that `load` knows."""
    return sorted(REAL)


def load(name: str, folder: str | os.PathLike[str] | None = None) -> tuple[Any, np.ndarray | None]:
    """Real data by name, float64, dense or CSR.

    Parameters
    ----------
    name : str
        One of `names()`.
    folder : path, optional
        Where the files are; by default the environment variable RANDLA_DATA says it.

    Returns
    -------
    A : ndarray or csr_array
    y : ndarray or None

    Raises
    ------
    FileNotFoundError
        If the folder is not known or does not hold the file; nothing is downloaded.
    """
    if name not in REAL:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(names())}")
    file, reader = REAL[name]
    root = Path(folder) if folder is not None else data_dir()
    if root is None:
        raise FileNotFoundError(f"data set {name!r}: set the environment variable RANDLA_DATA to the folder that holds {file}")
    if not (root / file).is_file():
        raise FileNotFoundError(f"data set {name!r}: {root} holds no {file}; set RANDLA_DATA to the folder that does")
    return reader(root / file)
