"""Values of kernels, eliminated rows and triangular solves by native kernels: against extended precision, and bit for bit."""

import hashlib
import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from problems import run_python

import randla
from randla import _cpu
from randla.landmarks import _kernel_matrix
from randla.lowrank._real_form import complex_gram, parts, real_form, small_gram
from randla.lowrank.cholesky import rpcholesky

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
EPS = float(np.finfo(float).eps)
SHAPES = [(1, 1, 1), (3, 50, 2), (9, 23, 5), (8, 24, 64), (17, 99, 65), (160, 100, 130), (2, 300, 600), (4, 7, 0)]
KERNELS = {"rbf": (_kernel_matrix.Gaussian, 2), "laplacian": (_kernel_matrix.Laplacian, 1)}


@pytest.fixture(autouse=True)
def _restore_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


def exact(X, Y, gamma, power):
    """Values and their exponents; x86's long double where there is one, else the bounds below still hold within a few eps."""
    exponent = np.zeros((len(X), len(Y)), np.longdouble)
    for x, y in zip(X.T.astype(np.longdouble), Y.T.astype(np.longdouble), strict=True):
        exponent += np.abs(x[:, None] - y) ** power
    return np.exp(-gamma * exponent), gamma * exponent


def entries(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(shape)
    return (out + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else out).astype(dtype)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_within_their_bound(name, dtype, shape):
    m, n, d = shape
    make, power = KERNELS[name]
    X, Y = entries((m, d), dtype), entries((n, d), dtype, 1)
    Y[: min(m, n) // 2] = X[: min(m, n) // 2]
    Y += dtype(3)
    X += dtype(3)
    for gamma in (None, 0.37, 1e-3):
        values, exponents = exact(X, Y, 1 / max(1, d) if gamma is None else gamma, power)
        kernel = make(gamma)
        found = kernel.block(X, Y)
        assert found.dtype == np.float64
        # 2 ulp of exp, and the bound of the docstring.
        bound = (4 * EPS + (32 if power == 2 and d > 64 else 1) * (d + 4) * EPS * exponents) * values
        assert np.all(np.abs(found - values) <= bound)
        assert kernel.evaluations == m * n
        narrow = np.full((m, n), np.nan, dtype)
        kernel.into(X, Y, narrow)
        np.testing.assert_array_equal(narrow, found.astype(dtype))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("d", [3, 100])
def test_points_near_each_other_and_far_from_the_origin(name, d):
    # |x|^2 is 1e12 d, |x - y|^2 about 1e-12 d: inner products alone would say nothing.
    make, power = KERNELS[name]
    X = 1e6 + entries((6, d), np.float64)
    Y = X[:5] + 1e-6 * entries((5, d), np.float64, 1)
    gamma = 1e12 / d if power == 2 else 1e6 / d
    values, _ = exact(X, Y, gamma, power)
    found = make(gamma).block(X, Y)
    assert values.diagonal().min() > 0.05
    # Of many coordinates a centre is taken away first, with an error of eps times 1.
    tolerance = 100 * EPS if d < 64 or power == 1 else 1e-9
    np.testing.assert_allclose(found.diagonal(), values.diagonal().astype(float), rtol=tolerance)
    assert np.all(np.diagonal(make(gamma).block(X, X)) == 1)
    mpmath.mp.dps, before = 50, mpmath.mp.dps
    size = sum(abs(mpmath.mpf(float(x)) - mpmath.mpf(float(y))) ** power for x, y in zip(X[2], Y[2], strict=True))
    assert found[2, 2] == pytest.approx(float(mpmath.exp(-mpmath.mpf(gamma) * size)), rel=tolerance)
    mpmath.mp.dps = before


def test_products_give_way_to_differences_where_points_are_near():
    X = entries((40, 90), np.float64)
    Y = X[::-1] * (1 + 1e-3 * np.arange(40)[:, None])
    direct, product = np.empty((40, 40)), np.empty((40, 40))
    _cpu.kernel_columns(0, 0.5, 1.0, None, X, Y, direct)
    _cpu.kernel_columns(0, 0.5, 1.0, np.zeros(90), X, Y, product)
    sizes = np.square(X).sum(axis=1)[:, None] + np.square(Y).sum(axis=1)
    near = -2 * np.log(direct) < 0.06 * sizes
    assert near.sum() == 40
    np.testing.assert_array_equal(product[near], direct[near])
    assert (product != direct)[~near].any()  # else the products were not tried
    np.testing.assert_allclose(product, direct, rtol=1e-11)


@pytest.mark.parametrize("name", KERNELS)
def test_blocks_are_symmetric_and_do_not_depend_on_their_cut(name):
    make, _ = KERNELS[name]
    for d in (5, 80):
        X = entries((130, d), np.float64)
        kernel = make(0.1)
        K = kernel.block(X, X)
        np.testing.assert_array_equal(K, K.T)
        assert np.all(K.diagonal() == 1)
        if d == 5:
            np.testing.assert_array_equal(kernel.block(X[3:50], X[7:61]), K[3:50, 7:61])


def test_layouts_and_kinds_of_points():
    X, Y = entries((30, 6), np.float64), entries((41, 6), np.float64, 1)
    Z = entries((30, 3), np.complex128)
    for make, power in KERNELS.values():
        kernel = make(0.2)
        K = kernel.block(X, Y)
        for form in (np.asfortranarray, lambda A: np.repeat(A, 2, axis=0)[::2], lambda A: np.repeat(A, 3, axis=1)[:, ::3]):
            np.testing.assert_array_equal(kernel.block(form(X), form(Y)), K)
        np.testing.assert_array_equal(kernel.block(X[::-1], Y), K[::-1])
        np.testing.assert_allclose(kernel.block(X.astype(np.float32), Y), K, rtol=1e-5)
        np.testing.assert_allclose(kernel.block(sp.csr_array(X), sp.csr_array(Y)), K, rtol=1e-12)
        np.testing.assert_allclose(kernel.block(sp.csr_array(X), Y) if power == 1 else K, K, rtol=1e-12)
        np.testing.assert_allclose(kernel.block(Z, Z), kernel.block(np.c_[Z.real, Z.imag], np.c_[Z.real, Z.imag]), rtol=1e-13)
        assert kernel.block(X[:0], Y).shape == (0, 41)


def test_sparse_points_become_dense_a_few_at_a_time(monkeypatch):
    X = sp.random_array((50, 40), density=0.2, format="csr", rng=np.random.default_rng(0))
    kernel = _kernel_matrix.Laplacian(0.5)
    expected = kernel.block(X.toarray(), X.toarray())
    monkeypatch.setattr(_kernel_matrix, "_DENSE", 7 * 40)
    before = kernel.evaluations
    np.testing.assert_array_equal(kernel.block(X, X), expected)
    assert kernel.evaluations - before == 2500


def test_sizes_of_any_magnitude():
    points = np.array([[1.0], [2.0], [-1.0]])
    for make, power in KERNELS.values():
        expected = make(1.0).block(points, points)
        for exponent in (-300, -1, 300):
            scaled = points * 2.0**exponent
            found = make(2.0 ** (-power * exponent)).block(scaled, scaled)
            np.testing.assert_array_equal(found, expected)
        apart = make(1.0).block(np.array([[1e200], [-1e200]]), np.array([[1e200], [0.0]]))
        np.testing.assert_array_equal(apart, [[1, 0], [0, 0]])
        assert make(math.ulp(0)).block(points, points).min() == 1
        assert make(1.7e308).block(points, points).tolist() == np.eye(3).tolist()


def eliminated(B, L, H):
    """In extended precision for real numbers; in double for complex ones."""
    wide = np.longdouble if H.dtype.kind == "f" else np.complex128
    B, L, H = B.astype(wide), L.astype(wide), H.astype(wide)
    k = B.shape[1]
    out = H[k:] - np.einsum("ik,kj->ij", B, H[:k])
    for i in range(len(L)):
        out[i] = (out[i] - np.einsum("k,kj->j", L[i, :i], out[:i])) / L[i, i]
    return out


def triangle(m, dtype, seed=0):
    L = np.tril(entries((m, m), dtype, seed) / 4, -1)
    L[np.arange(m), np.arange(m)] = 1 + np.arange(m) % 3
    return L


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 1, 7), (5, 1, 5000), (0, 8, 24), (40, 13, 97), (7, 33, 49), (3, 2, 1), (700, 20, 130)])
def test_eliminated_rows(dtype, shape):
    k, m, n = shape
    B, L = entries((m, k), dtype) / 8, triangle(m, dtype)
    whole = entries((k + m, n + 10), dtype, 2)
    H = whole[:, 3 : 3 + n]
    expected, kept = eliminated(B, L, H), whole.copy()
    C, squares = real_form(np.hstack([B, L])), np.ones(n + 10)
    _cpu.eliminate(C, H, squares[3 : 3 + n])
    size = np.abs(expected).max()
    assert np.abs(H[k:] - expected).max() <= 8 * (1 + k + m) ** 0.5 * np.finfo(dtype).eps * max(size, np.abs(kept).max())
    np.testing.assert_allclose(squares[3 : 3 + n], 1 + np.square(np.abs(H[k:].astype(np.complex128))).sum(axis=0), rtol=1e-13)
    whole[k:, 3 : 3 + n] = kept[k:, 3 : 3 + n]
    np.testing.assert_array_equal(whole, kept)
    assert np.all(squares[:3] == 1)
    # Columns know nothing of each other.
    for part in (slice(3, 3 + n // 2), slice(3 + n // 2, 3 + n)):
        _cpu.eliminate(C, kept[:, part], np.zeros(part.stop - part.start))
    _cpu.eliminate(C, H, np.zeros(n))
    np.testing.assert_array_equal(whole, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (23, 4, 9), (200, 31, 31), (97, 64, 70)])
def test_solves_from_the_right(dtype, order, shape):
    m, k, n = shape
    A, R = entries((m, n), dtype), np.ascontiguousarray(triangle(k, dtype, 1).T)
    columns = np.random.default_rng(0).permutation(n)[:k]
    C, wide = real_form(R.T), np.result_type(dtype, np.float64)
    expected = scipy.linalg.solve_triangular(R.astype(wide), A[:, columns].T.astype(wide), trans="T").T
    close = {"rtol": 0, "atol": 20 * k * np.finfo(dtype).eps * np.abs(expected).max()}
    out = np.full((m, k), np.nan, dtype, order=order)
    for form in (np.ascontiguousarray, np.asfortranarray, lambda A: np.repeat(np.repeat(A, 2, axis=0), 2, axis=1)[::2, ::2]):
        _cpu.solve_right(C, columns, form(A), out)
        np.testing.assert_allclose(out, expected, **close)
    taken = np.array(A[:, columns], order=order)
    _cpu.solve_right(C, np.arange(k), taken, taken)
    np.testing.assert_array_equal(taken, out)
    strided = np.zeros((m, 2 * k), dtype, order=order)[:, ::2]
    _cpu.solve_right(C, columns, A, strided)
    np.testing.assert_array_equal(strided, out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_forms(dtype):
    A, B = entries((5, 4), dtype), entries((4, 3), dtype, 1)
    atol = 10 * np.finfo(dtype).eps
    # A product of real forms is the real form of the product, whose even columns are the parts of its transpose.
    np.testing.assert_allclose(real_form(A) @ real_form(B), real_form(A @ B), atol=atol)
    gram = parts(A).T @ parts(A)
    np.testing.assert_allclose(complex_gram(gram) if A.dtype.kind == "c" else gram, A.conj().T @ A, atol=10 * atol)
    np.testing.assert_allclose(small_gram(np.asfortranarray(A)), A.conj().T @ A, atol=10 * atol)
    assert small_gram(A[:0]).tolist() == np.zeros((4, 4)).tolist()


def fingerprints():
    """Of every kernel, by number of threads; called in processes with other instruction sets."""
    found = {}
    for threads in (1, 2, 3, 8):
        randla.set_num_threads(threads)
        arrays = []
        for dtype in DTYPES:
            H, squares, L = entries((90, 333), dtype), np.zeros(333), triangle(37, dtype)
            _cpu.eliminate(real_form(np.hstack([entries((37, 53), dtype), L])), H, squares)
            Q = np.empty((333, 37), dtype)
            _cpu.solve_right(real_form(L), np.arange(53)[::-1][:37].copy(), np.ascontiguousarray(H[:53].T), Q)
            arrays += [H, squares, Q]
            row = entries((90, 4500), dtype)
            _cpu.eliminate(real_form(entries((1, 90), dtype).real.astype(dtype) + 2), row, np.zeros(4500))
            arrays.append(row)
            for make, _ in KERNELS.values():
                arrays += [make(0.2).block(entries((21, d), dtype), entries((400, d), dtype, 1)) for d in (4, 70)]
        points = entries((3000, 5), np.float64)
        arrays.append(rpcholesky(points, 40, kernel="rbf", block=1, rng=0).F)
        found[threads] = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
    return found


def test_bits_do_not_depend_on_threads_or_instructions():
    expected = fingerprints()
    assert len(set(expected.values())) == 1
    for isa in _cpu.available_isas():
        run = run_python("import test_kernel_columns as t; print(t._cpu.isa(), t.fingerprints())", RANDLA_ISA=isa)
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == f"{isa} {expected}"


def doubles(*shape):
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("unknown kernel", lambda: _cpu.kernel_columns(2, 1.0, 1.0, None, doubles(3, 2), doubles(4, 2), doubles(3, 4))),
        ("unknown kernel", lambda: _cpu.kernel_columns(1, 1.0, 1.0, doubles(2), doubles(3, 2), doubles(4, 2), doubles(3, 4))),
        ("the same columns", lambda: _cpu.kernel_columns(0, 1.0, 1.0, None, doubles(3, 2), doubles(4, 3), doubles(3, 4))),
        ("centre must be", lambda: _cpu.kernel_columns(0, 1.0, 1.0, doubles(3), doubles(3, 2), doubles(4, 2), doubles(3, 4))),
        ("wrong shape", lambda: _cpu.kernel_columns(0, 1.0, 1.0, None, doubles(3, 2), doubles(4, 2), doubles(4, 3))),
        ("contiguous rows", lambda: _cpu.kernel_columns(0, 1.0, 1.0, None, doubles(3, 2), doubles(4, 2), doubles(4, 3).T)),
        ("C must be", lambda: _cpu.eliminate(doubles(2, 4), doubles(5, 6), doubles(6))),
        ("C must be", lambda: _cpu.eliminate(doubles(3, 2), doubles(2, 6), doubles(6))),
        ("C must be", lambda: _cpu.eliminate(doubles(2, 5), doubles(5, 6) + 0j, doubles(6))),
        ("contiguous rows", lambda: _cpu.eliminate(doubles(2, 5), doubles(6, 5).T, doubles(6))),
        ("squares must be", lambda: _cpu.eliminate(doubles(2, 5), doubles(5, 6), doubles(5))),
        ("squares must be", lambda: _cpu.eliminate(doubles(2, 5), doubles(5, 6), doubles(12)[::2])),
        ("out must be", lambda: _cpu.solve_right(doubles(2, 2), np.arange(2), doubles(5, 4), doubles(4, 2))),
        ("out must be", lambda: _cpu.solve_right(doubles(2, 2), np.arange(3), doubles(5, 4), doubles(5, 2))),
        ("C must be", lambda: _cpu.solve_right(doubles(3, 3), np.arange(2), doubles(5, 4), doubles(5, 2))),
        ("order must list", lambda: _cpu.solve_right(doubles(2, 2), np.array([0, 4]), doubles(5, 4), doubles(5, 2))),
        ("order must list", lambda: _cpu.solve_right(doubles(2, 2), np.array([-1, 1]), doubles(5, 4), doubles(5, 2))),
    ],
)
def test_shapes_are_checked(words, call):
    with pytest.raises(ValueError, match=words):
        call()
