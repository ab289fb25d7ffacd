"""The native functions below the public ones: small oracles, and refusal of what would touch foreign memory."""

import numpy as np
import pytest
import scipy.sparse as sp

import randla
from randla import _cpu
from randla._numeric import cholesky, inverse, norms, powers_of_two, product, triangular

OPERATIONS = {
    0: np.linalg.solve,
    1: lambda R, Z: np.linalg.solve(R.T, Z),
    2: np.matmul,
    3: lambda R, Z: R.T @ Z,
}


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("n", [0, 1, 7, 16, 33, 130])
@pytest.mark.parametrize("k", [1, 3])
def test_triangular_agrees_with_dense_algebra(op, n, k):
    rng = np.random.default_rng(n)
    R = np.asfortranarray(np.triu(rng.standard_normal((n, n))) + 10 * np.eye(n))
    Z = rng.standard_normal((k, n))
    before = Z.copy()
    assert np.allclose(triangular(op, R, Z), OPERATIONS[op](R, Z.T).T, rtol=1e-12, atol=1e-14)
    assert np.array_equal(Z, before)


def test_triangular_solve_is_backward_stable():
    rng = np.random.default_rng(1)
    R = np.asfortranarray(np.linalg.qr(rng.standard_normal((90, 60)) * np.logspace(0, -12, 60), mode="r"))
    z = rng.standard_normal((1, 60))
    x = triangular(0, R, z)
    residual = np.abs(R.astype(np.longdouble) @ x[0] - z[0])
    assert np.all(residual <= 60 * np.finfo(float).eps * (np.abs(R) @ np.abs(x[0])))


@pytest.mark.parametrize("scale", [0.0, 1e-310, 1e-200, 1.0, 1e200, 1e307])
def test_norms_neither_overflow_nor_underflow(scale):
    X = np.array([[3.0, 4.0], [0.0, 0.0]]) * scale
    assert norms(X) == pytest.approx([5 * scale, 0.0], rel=1e-14)
    assert float(norms(X[0])) == pytest.approx(5 * scale, rel=1e-14)


def test_powers_of_two_bring_sizes_to_one():
    size = np.array([0.0, 1.0, 0.3, 1e300, 1e-300, 2.0])
    powers = powers_of_two(size)
    assert powers[0] == 1.0
    assert np.all((size * powers)[1:] >= 1)
    assert np.all((size * powers)[1:] < 2)
    assert np.all(np.frexp(powers)[0] == 0.5)


STORED = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "csr": sp.csr_array,
}


def fused(A, x, b, w=None):
    r, g = np.empty((len(x), A.shape[0])), np.empty_like(x)
    if sp.issparse(A):
        return r, g, _cpu.residual_csr(A.data, A.indptr, A.indices, A.shape[1], x, b, r, g, w)
    return r, g, _cpu.residual(A, x, b, r, g, w)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(("m", "n"), [(0, 3), (1, 1), (70, 5), (3000, 20), (515, 300)])
def test_weighted_residual_agrees_with_dense_algebra(stored, m, n, dtype):
    rng = np.random.default_rng(m + n)
    A = (rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.7)).astype(dtype)
    x, b = rng.standard_normal((3, n)), rng.standard_normal((3, m))
    w = rng.standard_normal(m) * 10.0 ** rng.integers(-3, 4, m)  # Hessian products have negative ones
    r, g, squares = fused(STORED[stored](A), x, b, w)
    wide = A.astype(np.longdouble)
    assert np.all(np.abs(r - (b - x @ wide.T)) <= 1e-14 * (np.abs(b) + np.abs(x) @ np.abs(wide.T)))
    assert np.all(np.abs(g - (w * r) @ wide) <= 1e-14 * (np.abs(w * r) @ np.abs(wide)) + 1e-300)
    assert np.all(np.abs(squares - np.sum(w * r * r, axis=1)) <= 1e-14 * np.sum(np.abs(w) * r * r, axis=1))


@pytest.mark.parametrize("stored", STORED)
def test_residual_of_every_width_and_number_of_right_hand_sides(stored, dtype):
    rng = np.random.default_rng(4)
    for n in (*range(1, 25), 63, 64, 65, 72, 73):
        m = int(rng.integers(1, 90))
        A = (rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.7)).astype(dtype)
        x, b, w = rng.standard_normal((9, n)), rng.standard_normal((9, m)), rng.standard_normal(m)
        together = r, g, squares = fused(STORED[stored](A), x, b, w)
        wide = A.astype(np.longdouble)
        assert np.all(np.abs(r - (b - x @ wide.T)) <= 1e-14 * (np.abs(b) + np.abs(x) @ np.abs(wide.T)))
        assert np.all(np.abs(g - (w * r) @ wide) <= 1e-14 * (np.abs(w * r) @ np.abs(wide)) + 1e-300)
        assert np.all(np.abs(squares - np.sum(w * r * r, axis=1)) <= 1e-14 * np.sum(np.abs(w) * r * r, axis=1))
        for k in range(1, 9):
            for one, all_ in zip(fused(STORED[stored](A), x[:k].copy(), b[:k].copy(), w), together, strict=True):
                assert one.tobytes() == all_[:k].tobytes(), (n, k)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("weighted", [False, True])
def test_residual_of_a_right_hand_side_has_the_same_bits_alone_and_among_others(stored, weighted, dtype):
    rng = np.random.default_rng(5)
    A = STORED[stored]((rng.standard_normal((999, 37)) * (rng.random((999, 37)) < 0.7)).astype(dtype))
    x, b, w = rng.standard_normal((5, 37)), rng.standard_normal((5, 999)), rng.random(999) if weighted else None
    together = fused(A, x, b, w)
    for c in range(5):
        for one, all_ in zip(fused(A, x[c : c + 1], b[c : c + 1], w), together, strict=True):
            assert one.tobytes() == all_[c : c + 1].tobytes()


def test_weights_of_one_change_no_bit(dtype, order):
    rng = np.random.default_rng(6)
    A = np.asarray(rng.standard_normal((700, 33)).astype(dtype), order=order)
    x, b = rng.standard_normal((1, 33)), rng.standard_normal((1, 700))
    for one, other in zip(fused(A, x, b), fused(A, x, b, np.ones(700)), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("stored", [name for name in STORED if name != "csr"])
@pytest.mark.parametrize("weighted", [False, True])
def test_complex_residual_is_that_of_the_interleaved_real_matrix(stored, weighted, dtype):
    rng = np.random.default_rng(7)
    A = (rng.standard_normal((600, 23)) + 1j * rng.standard_normal((600, 23))).astype(np.result_type(dtype, np.complex64))
    x, b, w = rng.standard_normal((3, 46)), rng.standard_normal((3, 600)), rng.random(600) if weighted else None
    for one, other in zip(fused(STORED[stored](A), x, b, w), fused(A.view(dtype), x, b, w), strict=True):
        assert one.tobytes() == other.tobytes()


def doubles(*shape):
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _cpu.triangular(4, doubles(2, 2), doubles(1, 2)), "unknown operation"),
        (lambda: _cpu.triangular(0, doubles(2, 2), doubles(1, 2)), "column-major"),
        (lambda: _cpu.triangular(0, np.asfortranarray(doubles(2, 2)), doubles(1, 3)), r"\(k, n\)"),
        (lambda: _cpu.dense_sketch(0, 2, 1, doubles(3, 2), 0, 0), "rows out of range"),
        (lambda: _cpu.sparse_sketch(2, 4, 5, 1, 0, 0, doubles(5, 2), 0, doubles(4, 2)), "out of range"),
        (lambda: _cpu.sparse_sketch(0, 4, 5, 1, 0, 0, doubles(5, 2), 1, doubles(4, 2)), "rows of A out of range"),
        (lambda: _cpu.sparse_sketch(0, 4, 5, 1, 0, 0, doubles(5, 2), 0, doubles(3, 2)), "wrong shape"),
        (lambda: _cpu.sparse_sketch(0, 4, 5, 1, 0, 0, doubles(5, 2), 0, np.asfortranarray(doubles(4, 2))), "contiguous rows"),
        (lambda: _cpu.sparse_sketch(0, 4, 5, 1, 0, 0, doubles(5), 0, doubles(4, 2)), "two dimensions"),
        (lambda: _cpu.sparse_sketch_adjoint(0, 4, 5, 1, 0, 0, doubles(4, 2), 0, doubles(6, 2)), "do not match"),
        (lambda: _cpu.block_srht(4, 5, 48, 0, doubles(5, 2), 0, 0, 1, doubles(4, 2)), "BlockSRHT out of range"),
        (lambda: _cpu.block_srht(4, 5, 64, 0, doubles(5, 2), 0, 0, 2, doubles(4, 2)), "blocks out of range"),
        (lambda: _cpu.block_srht(4, 5, 64, 0, doubles(5, 2), 2, 0, 1, doubles(4, 2)), "rows of A out of range"),
        (lambda: _cpu.block_srht_adjoint(4, 5, 64, 0, doubles(3, 2), 0, doubles(5, 2)), "do not match"),
        (lambda: _cpu.residual(doubles(5, 2), doubles(1, 3), None, doubles(1, 5), doubles(1, 2)), "x and g"),
        (lambda: _cpu.residual(doubles(5, 2), doubles(1, 2), doubles(1, 4), doubles(1, 5), doubles(1, 2)), "b must be"),
        (lambda: _cpu.residual(doubles(5, 2), doubles(1, 2), [1.0], doubles(1, 5), doubles(1, 2)), "float64 array"),
        (lambda: _cpu.residual(doubles(5, 2), doubles(1, 2), None, doubles(1, 5), doubles(1, 2), doubles(4)), "w must be"),
        (lambda: _cpu.residual(doubles(5, 2), doubles(1, 2), None, doubles(1, 5), doubles(1, 2), [1.0] * 5), "float64 array"),
        (lambda: _cpu.residual(doubles(5, 2) * 1j, doubles(1, 2), None, doubles(1, 5), doubles(1, 2)), "x and g"),
        (lambda: _cpu.sparse_columns(0, 4, 5, 1, 0, 3, 6), "columns out of range"),
        (lambda: _cpu.block_srht_columns(4, 5, 64, 0, 3, 6), "columns out of range"),
        (lambda: _cpu.philox(np.zeros((2, 3), np.uint32), 0), r"\(count, 4\)"),
    ],
)
def test_kernels_refuse_what_does_not_fit(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_csr_kernels_refuse_mixed_and_strided_parts():
    values, r, x, g = np.ones(2), doubles(1, 2), doubles(1, 3), doubles(1, 3)
    pointers = np.array([0, 1, 2], np.int32)
    with pytest.raises(ValueError, match="both be int32 or both int64"):
        _cpu.residual_csr(values, pointers, np.array([0, 1], np.int64), 3, x, None, r, g)
    with pytest.raises(ValueError, match="contiguous"):
        _cpu.residual_csr(np.ones(4)[::2], pointers, np.array([0, 1], np.int32), 3, x, None, r, g)
    with pytest.raises(ValueError, match="matching length"):
        _cpu.residual_csr(values, pointers, np.array([0], np.int32), 3, x, None, r, g)


@pytest.mark.parametrize(("indices", "indptr"), [([0, 7], [0, 1, 2]), ([0, -1], [0, 1, 2]), ([0, 1], [0, 2, 1])])
def test_corrupt_sparse_indices_are_an_error_and_not_a_crash(indices, indptr):
    A = sp.csr_array((2, 3))
    A.data, A.indices, A.indptr = np.ones(2), np.array(indices, np.int32), np.array(indptr, np.int32)
    with pytest.raises(ValueError, match=r"valid CSR indices for its shape \(2, 3\)"):
        randla.sketch(A, 2, rng=0)


@pytest.mark.parametrize("n", [0, 1, 5, 64, 130, 256, 257])
def test_cholesky_inverse_and_product_of_small_and_large_triangles(n):
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n + 3, n))
    gram = A.T @ A
    R = cholesky(gram)
    assert np.array_equal(R, np.triu(R))
    np.testing.assert_allclose(R.T @ R, gram, atol=1e-12 * n * n)
    assert np.abs(inverse(R) @ R - np.eye(n)).max(initial=0.0) < 1e-10
    np.testing.assert_allclose(product(R, 2 * R), R @ (2 * R), atol=1e-12 * n * n)
    assert inverse(R).flags.c_contiguous


@pytest.mark.parametrize("n", [1, 40, 300])
def test_cholesky_of_what_is_not_positive_definite_is_none(n):
    for last in (-1e-3, 0.0, np.nan):
        gram = np.eye(n)
        gram[-1, -1] = last
        assert cholesky(gram) is None
