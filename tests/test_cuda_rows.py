"""CUDA passes over rows against sums in long double: every kernel that a shape chooses, layouts, lists of rows, vectors."""

import emulated
import numpy as np
import pytest
import scipy.sparse as sp
from emulated import OnDevice

pytestmark = pytest.mark.usefixtures("kernels")

EPS = np.finfo(float).eps
DTYPES = [np.float32, np.float64]
# At and around the widths at which another kernel takes over, for one vector or several.
WIDTHS = [0, 1, 3, 8, 31, 33, 64, 66, 127, 130, 257, 510, 516, 1023, 1028, 2048, 2049, 2300]
LAYOUTS = {
    "C": np.ascontiguousarray,
    "unaligned": lambda A: np.pad(A, ((0, 0), (1, 2)))[:, 1:-2],
    "F": np.asfortranarray,
    "F gap": lambda A: np.asfortranarray(np.pad(A, ((1, 2), (0, 0))))[1:-2],
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=1), 2, axis=0)[::2, ::2],
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
}


def on_device(value):
    if isinstance(value, tuple):
        return tuple(on_device(part) for part in value)
    return OnDevice(value) if isinstance(value, np.ndarray) else value


def call(name, A, *arguments):
    if sp.issparse(A):
        T = A.T.tocsr()
        arguments = (A.data, A.indptr, A.indices, A.shape[1], (T.data, T.indptr, T.indices), *arguments)
        name += "_csr"
    else:
        arguments = (A, *arguments)
    getattr(emulated.module(), name)(*map(on_device, arguments))


def unset(*shape, dtype=np.float64):
    return np.full(shape, np.nan, dtype)


def exact(A):
    return (A.toarray() if sp.issparse(A) else A).astype(np.longdouble)


def assert_near(found, expected, sizes, terms, eps=EPS):
    """Within the error of a sum of so many terms, whose sizes add up to `sizes`."""
    assert np.all(np.abs(found - expected) <= eps * (terms + 8) * sizes)


def check_residual(A, k, dtype, given=True, weighted=True):
    """With vectors of `dtype`; returns the bits of the results."""
    rng = np.random.default_rng(k)
    (m, n), eps = A.shape, np.finfo(dtype).eps
    x, b, w = (rng.standard_normal(shape).astype(dtype) for shape in ((k, n), (k, m), m))
    r, g, squares = unset(k, m, dtype=dtype), unset(k, n, dtype=dtype), unset(k)
    call("residual", A, x, b if given else None, r, g, w if weighted else None, squares)
    a, b, w = exact(A), b * given, w if weighted else np.ones(m, dtype)
    assert_near(r, b - x.astype(np.longdouble) @ a.T, np.abs(b) + np.abs(x).astype(float) @ np.abs(a.T), n, eps)
    t = r.astype(np.longdouble) * w
    assert_near(g, t @ a, np.abs(t) @ np.abs(a), m, eps)
    assert_near(squares, (t * r).sum(axis=1), np.abs(t * r).sum(axis=1), m, eps)
    return r.tobytes() + g.tobytes() + squares.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", WIDTHS)
def test_residual_of_every_width(n, dtype):
    A = np.random.default_rng(n).standard_normal((75, n)).astype(dtype)
    for k in (1, 3, 8):
        check_residual(A, k, np.float64)
        if dtype == np.float32:
            check_residual(A, k, np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [5, 97, 130, 260, 390, 520, 580, 770, 1153, 1540, 2049])
def test_residual_of_columns(n, dtype):
    A = np.random.default_rng(n).standard_normal((75, n)).astype(dtype)
    for layout in ("F", "F gap"):
        check_residual(LAYOUTS[layout](A), 1, np.float64)
    if dtype == np.float32:
        check_residual(LAYOUTS["F"](A), 2, np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_residual_of_every_layout(layout, k, dtype):
    A = LAYOUTS[layout](np.random.default_rng(k).standard_normal((131, 68)).astype(dtype))
    check_residual(A, k, np.float64)
    check_residual(A, k, np.float64, given=False, weighted=False)


@pytest.mark.parametrize("m", [0, 1, 2, 300, 2113, 20011])
def test_residual_of_every_height(m):
    for n in (3, 40):
        A = np.random.default_rng(m).standard_normal((m, n))
        for k in (1, 4):
            check_residual(A, k, np.float64)
        check_residual(np.asfortranarray(A), 1, np.float64)


def test_bits_of_a_residual_do_not_change():
    A = np.random.default_rng(0).standard_normal((5000, 24))
    assert check_residual(A, 1, np.float64) == check_residual(A, 1, np.float64)


def check_product(A, k, rows, weighted=True):
    rng = np.random.default_rng(k)
    m, n = A.shape
    a = exact(A) if rows is None else exact(A)[rows]
    x, c, d = (rng.standard_normal(shape) for shape in ((k, n), (k, len(a)), len(a)))
    d = d if weighted else None
    u, g, h, s = unset(k, len(a)), unset(k, n), unset(k, n), unset(k, n)
    call("weighted_product", A, rows, x, None, d, u, g)
    call("weighted_product", A, rows, None, c, d, None, h)
    call("weighted_product", A, rows, x, None, d, None, s)
    assert_near(u, x @ a.T, np.abs(x) @ np.abs(a.T), n)
    scale = 1 if d is None else d
    for found, t in ((g, u * scale), (h, c * scale)):
        assert_near(found, t.astype(np.longdouble) @ a, np.abs(t) @ np.abs(a), m)
    assert np.array_equal(s, g)


def listed(m, count):
    return np.sort(np.random.default_rng(m).integers(0, m, count))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [7, 64, 200, 700, 1500, 2100])
def test_weighted_product_of_listed_rows(n, dtype):
    A = np.random.default_rng(n).standard_normal((90, n)).astype(dtype)
    for k in (1, 4, 7):
        check_product(A, k, listed(90, 77), weighted=k < 7)
    check_product(np.asfortranarray(A), 1, listed(90, 200))
    check_product(A, 1, None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weighted_product_of_every_layout(layout):
    A = LAYOUTS[layout](np.random.default_rng(3).standard_normal((61, 37)))
    for rows in (None, np.random.default_rng(1).permutation(61), np.zeros(0, np.int64), np.full(9, 60)):
        for k in (1, 3):
            check_product(A, k, rows)


def test_order_of_listed_rows_does_not_change_margins():
    A = np.random.default_rng(5).standard_normal((400, 30))
    x, rows = np.random.default_rng(6).standard_normal((1, 30)), np.random.default_rng(7).permutation(400)
    u, v = unset(1, 400), unset(1, 400)
    call("weighted_product", A, None, x, None, None, u, None)
    call("weighted_product", A, rows, x, None, None, v, None)
    assert np.array_equal(u[:, rows], v)


def sparse(m, n, mean, index, dtype):
    """Rows of very different length; the first two, the last one and the middle column are full, some are empty."""
    rng = np.random.default_rng(m + n)
    mask = rng.random((m, n)) < mean / n * rng.exponential(1, (m, 1))
    mask[m // 3 : m // 2] = False
    mask[:2], mask[-1] = True, True
    mask[:, n // 2] = True
    A = sp.csr_array((rng.standard_normal((m, n)) * mask).astype(dtype))
    A.indptr, A.indices = A.indptr.astype(index), A.indices.astype(index)
    return A


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("m", "n", "mean"), [(50, 30, 3), (300, 70, 40), (40, 9000, 30), (9500, 5, 2), (1, 1, 1)])
def test_passes_of_sparse_matrices(m, n, mean, index, dtype):
    A = sparse(m, n, mean, index, dtype)
    for k in (1, 2, 6):
        check_residual(A, k, np.float64)
        check_product(A, k, None, weighted=k > 1)
        check_product(A, k, listed(m, m // 2 + 1))


def test_empty_sparse_matrices():
    for shape in ((4, 6), (0, 3), (5, 0)):
        check_residual(sp.csr_array(shape), 2, np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [1, 16, 30, 64, 300])
def test_row_squares(n, layout, dtype):
    rng = np.random.default_rng(n)
    Y, scale, roots = rng.standard_normal((171, n)).astype(dtype), rng.standard_normal(n), rng.standard_normal(171)
    for s, t in ((None, None), (scale, roots)):
        out = unset(171)
        emulated.module().row_squares(*map(on_device, (LAYOUTS[layout](Y), s, t, out)))
        y = Y.astype(np.longdouble) * (1 if s is None else s) * (1 if t is None else t[:, None])
        assert_near(out, (y * y).sum(axis=1), (y * y).sum(axis=1), n)


def test_what_is_refused():
    A, x, y = np.ones((4, 3)), np.ones((1, 3)), np.ones((1, 4))
    refused = [
        ("A must be a device array", TypeError, lambda m: m.residual(A, *map(OnDevice, (x, y, y, x)))),
        ("x must be", ValueError, lambda m: m.residual(*map(OnDevice, (A, y, y, y.copy(), x)))),
        ("b has the wrong size", ValueError, lambda m: m.residual(*map(OnDevice, (A, x, x, y, x)))),
        ("one of x and c", ValueError, lambda m: m.weighted_product(OnDevice(A), None, None, None, None, None, None)),
        ("float32 or float64", ValueError, lambda m: m.residual(*map(OnDevice, (A.astype(int), x, y, y, x)))),
        ("transpose must", ValueError, lambda m: refused_transpose(m, y, x)),
    ]
    for message, error, f in refused:
        with pytest.raises(error, match=message):
            f(emulated.module())


def refused_transpose(module, y, x):
    A = sp.csr_array(np.ones((4, 3)))
    parts = tuple(map(OnDevice, (A.data, A.indptr, A.indices)))
    module.residual_csr(*parts, 3, parts, *map(OnDevice, (x, y, y, x)))
