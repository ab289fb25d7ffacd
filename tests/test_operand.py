"""What low-rank algorithms ask of a matrix, against dense NumPy in double precision; orthonormal bases."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import randla
from randla.lowrank._adapted import CenteredOperand, ScaledOperand, dense
from randla.lowrank._operand import AdjointOperand, operand
from randla.lowrank._products import norm_of, product
from randla.lowrank._range import gram, householder, orthonormalize

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def matrix(m, n, dtype, rng=0):
    rng = np.random.default_rng(rng)
    A = rng.standard_normal((m, n))
    if np.dtype(dtype).kind == "c":
        A = A + 1j * rng.standard_normal((m, n))
    return A.astype(dtype)


def kinds(A, tmp_path):
    S = np.where(np.abs(A.real) > 0.7, A, 0)
    np.save(tmp_path / "a.npy", A)
    half = len(A) // 2
    big = np.zeros((2 * A.shape[0], 3 * A.shape[1]), A.dtype)
    big[::2, 2::3] = A
    read_only = A.copy()
    read_only.flags.writeable = False
    return {
        "C": (A, A),
        "F": (np.asfortranarray(A), A),
        "strided": (big[::2, 2::3], A),
        "reversed": (A[::-1, ::-1], A[::-1, ::-1]),
        "read-only": (read_only, A),
        "memmap": (np.load(tmp_path / "a.npy", mmap_mode="r"), A),
        "csr": (sp.csr_array(S), S),
        "csc": (sp.csc_matrix(S), S),
        "operator": (aslinearoperator(A), A),
        "blocks": ([A[:half], A[half:]], A),
        "sparse blocks": ([sp.csr_array(S[:half]), sp.csr_array(S[half:])], S),
    }


NAMES = ["C", "F", "strided", "reversed", "read-only", "memmap", "csr", "csc", "operator", "blocks", "sparse blocks"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_hermitian_products(name, dtype, tmp_path):
    A = matrix(60, 60, dtype)
    value, A = kinds(A + A.conj().T, tmp_path)[name]
    op = operand(value)
    for k in (0, 1, 3, 4, 5, 20):
        for X in (matrix(60, k, dtype), np.asfortranarray(matrix(60, k, dtype)), matrix(60, k, np.complex128)):
            exact = A.astype(np.complex128) @ X.astype(np.result_type(X, np.complex64))
            found = op.hermitian_times(X)
            np.testing.assert_allclose(found, exact, atol=60 * np.finfo(dtype).eps * np.abs(exact).max(initial=0.0))
    assert op.passes == 18


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(71, 40), (40, 71), (9, 1)])
def test_products(name, dtype, shape, tmp_path):
    value, A = kinds(matrix(*shape, dtype), tmp_path)[name]
    op, wide = operand(value), A.astype(np.complex128)
    assert op.shape == A.shape
    assert op.dtype == A.dtype
    tol = 200 * np.finfo(dtype).eps
    for k in (1, 7):
        for factor in (1, 1j):
            X = factor * matrix(A.shape[1], k, np.float64, 1)
            Y = factor * matrix(A.shape[0], k, np.float64, 2)
            expected = np.result_type(A.dtype, np.complex64) if factor == 1j else A.dtype
            pairs = [
                (op.times(X), wide @ X),
                (op.adjoint_times(Y), wide.conj().T @ Y),
                (op.gram_times(X), wide.conj().T @ (wide @ X)),
                (op.both_times(X)[0], wide @ X),
                (op.both_times(X, shift=X[:1])[1], wide.conj().T @ (wide @ X - X[:1])),
            ]
            for got, want in pairs:
                assert got.dtype == expected
                assert np.abs(got - want).max() <= tol * max(1, np.abs(want).max()) * 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "operator"])
def test_entries_and_norms(name, dtype, tmp_path):
    value, A = kinds(matrix(50, 31, dtype), tmp_path)[name]
    op = operand(value)
    assert np.array_equal(op.take_columns([4, 1]), A[:, [4, 1]])
    assert np.array_equal(op.take_rows([40, 1, 7]), A[[40, 1, 7]])
    assert np.array_equal(op.diagonal(), A.diagonal())
    assert np.array_equal(dense(op), A)
    assert op.norm() == pytest.approx(
        np.linalg.norm(A.astype(np.complex128)), rel=1e-6 if dtype in (np.float32, np.complex64) else 1e-14
    )
    assert np.allclose(op.means(), A.mean(axis=0), atol=1e-6)
    S, R = randla.SparseStack().sample(12, 50, rng=1), randla.BlockSRHT().sample(12, 31, rng=1)
    for mean in (None, op.means()):
        D = A if mean is None else A - mean
        norm, SA = op.sketch(S, mean)
        assert norm == pytest.approx(np.linalg.norm(D), rel=1e-5)
        assert SA.dtype == A.dtype
        assert np.allclose(SA, S @ D, atol=1e-4)
        norm, RA = op.sketch_adjoint(R, mean)
        assert norm == pytest.approx(np.linalg.norm(D), rel=1e-5)
        assert np.allclose(RA, R @ D.conj().T, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", NAMES)
def test_adjoint_centred_and_scaled(name, dtype, tmp_path):
    value, A = kinds(matrix(30, 20, dtype) + 3, tmp_path)[name]
    X, Y = matrix(20, 4, dtype, 1), matrix(30, 4, dtype, 2)
    for make, D in (
        (lambda op: op, A),
        (CenteredOperand, A - A.mean(axis=0)),
        (lambda op: ScaledOperand(op, -3), A / 8),
        (lambda op: ScaledOperand(CenteredOperand(op), 2), 4 * (A - A.mean(axis=0))),
    ):
        op = make(operand(value))
        for o, M, U, V in ((op, D, X, Y), (AdjointOperand(op), D.conj().T, Y, X)):
            before = o.passes
            assert np.allclose(o.times(U), M @ U)
            assert np.allclose(o.adjoint_times(V), M.conj().T @ V)
            assert np.allclose(o.gram_times(U), M.conj().T @ (M @ U))
            assert o.passes > before
            if o.explicit:
                assert np.allclose(dense(o), M)


def test_passes(tmp_path):
    A = matrix(300, 20, np.float64)
    reads = []
    blocks = randla.RowBlocks(lambda: (reads.append(1), iter([A[:100], A[100:]]))[1], shape=A.shape, dtype=float)
    X, Y = np.ones((20, 2)), np.ones((300, 2))
    for value, gram_passes in ((A, 1), (blocks, 1), (np.asfortranarray(A), 2), (sp.csr_array(A), 2), (aslinearoperator(A), 2)):
        op = operand(value)
        op.times(X)
        op.adjoint_times(Y)
        assert op.passes == 2
        op.gram_times(X)
        assert op.passes == 2 + gram_passes
    assert len(reads) == 3


def test_row_blocks_that_had_to_be_counted():
    A = matrix(300, 20, np.float64)
    blocks = randla.RowBlocks(lambda: iter([A]))
    op = operand(blocks)
    op.times(np.ones((20, 1)))
    assert op.passes == blocks.reads == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_neither_overflow_nor_underflow(dtype):
    tiny, huge = (1e-200, 1e200) if dtype in (np.float64, np.complex128) else (1e-30, 1e30)
    A = matrix(40, 30, dtype)
    exact = np.linalg.norm(A.astype(np.complex128))
    for scale in (tiny, huge):
        scaled = A * A.real.dtype.type(scale)
        for value in (scaled, np.asfortranarray(scaled), sp.csr_array(scaled), [scaled[:10], scaled[10:]]):
            assert operand(value).norm() / scale == pytest.approx(exact, rel=1e-5)
    assert norm_of([np.zeros((3, 0)), np.zeros((2, 2))], "A") == 0
    assert norm_of([np.full((30, 30), 1.7e308)], "A") == np.inf


def test_norm_of_duplicate_entries():
    A = sp.csr_array((np.ones(4), [0, 0, 1, 1], [0, 2, 4]), shape=(2, 3))
    assert not A.has_canonical_format
    assert operand(A).norm() == pytest.approx(np.sqrt(8))
    assert A.nnz == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_norms_find_what_is_not_finite(bad):
    A = np.ones((30, 20))
    A[3, 4] = bad
    for value in (A, np.asfortranarray(A), sp.csr_array(A), [A[:10], A[10:]]):
        with pytest.raises(ValueError, match="A must be finite; got NaN or infinite entries"):
            operand(value).norm()


def test_operators_without_blocks():
    class Plain:
        shape, dtype = (6, 4), np.dtype(float)
        A = matrix(6, 4, np.float64)

        def matvec(self, x):
            return self.A @ x

        def rmatvec(self, y):
            return self.A.T @ y

    op, X, Y = operand(Plain()), matrix(4, 3, np.float64, 1), matrix(6, 3, np.float64, 2)
    assert np.allclose(op.times(X), Plain.A @ X)
    assert np.allclose(op.adjoint_times(Y), Plain.A.T @ Y)
    assert op.times(X[:, :0]).shape == (6, 0)


def test_refusals():
    op = operand(aslinearoperator(np.ones((3, 3))), "M")
    S = randla.SparseStack().sample(2, 3, rng=0)
    for call in (op.norm, op.diagonal, lambda: op.take_rows([0]), lambda: op.take_columns([0])):
        with pytest.raises(TypeError, match="M must be given by its entries; got MatrixLinearOperator"):
            call()
    for call in (op.sketch, op.sketch_adjoint):
        with pytest.raises(TypeError, match="M must be given by its entries"):
            call(S)
    wrong = LinearOperator((3, 3), matvec=lambda x: x, matmat=lambda X: X, rmatvec=lambda x: x, dtype=float)
    wrong.matmat = lambda X: X[:2]
    with pytest.raises(ValueError, match=r"M.matmat must return shape \(3, 1\); got \(2, 1\)"):
        operand(wrong, "M").times(np.ones((3, 1)))
    lying = LinearOperator((3, 3), matvec=lambda x: 1j * x, rmatvec=lambda x: x, dtype=float)
    with pytest.raises(TypeError, match="M must have a complex dtype, as its products are complex; got float64"):
        operand(lying, "M").times(np.ones((3, 1)))
    with pytest.raises(TypeError, match="M must have dtype"):
        operand(np.array([["a"]]), "M")
    with pytest.raises(ValueError, match="M must have 2 dimensions; got 1"):
        operand(np.ones(3), "M")
    with pytest.raises(TypeError, match="readable more than once"):
        operand(iter([np.ones((2, 2))]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_blas_products_of_any_layout(dtype):
    A, X = matrix(60, 33, dtype), matrix(33, 5, dtype, 1)
    big = np.zeros((120, 66), dtype)
    big[::2, ::2] = A
    for B in (A, np.asfortranarray(A), big[::2, ::2], np.ascontiguousarray(A[::-1])[::-1]):
        for Z in (X, np.asfortranarray(X), X[:, ::-1][:, ::-1]):
            assert np.allclose(product(B, Z), A @ X, atol=1e-4)
            assert np.allclose(product(B, Z, conjugate=True), A.conj() @ X, atol=1e-4)
    assert product(A[:0], X).shape == (0, 5)
    assert product(A[:, :0], X[:0]).shape == (60, 5)


def test_a_product_does_not_copy_the_matrix():
    A, X = np.ones((3000, 400)), np.ones((400, 3))
    for B in (A, np.asfortranarray(A)):
        op = operand(B)
        tracemalloc.start()
        op.gram_times(X)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < A.nbytes / 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(300, 20), (20, 20), (20, 30), (5, 1), (5, 0), (1, 1)])
def test_orthonormal_bases(dtype, shape):
    m, k = shape
    Y = matrix(m, k, dtype)
    eps, double = np.finfo(dtype).eps, dtype in (np.float64, np.complex128)
    scale = Y.real.dtype.type(1e200 if double else 1e30)
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((k, k)) * np.logspace(0, -12, k)
    blocks = [Y, Y * scale, Y / scale, np.zeros_like(Y), np.repeat(Y[:, :1], k, axis=1), (Y @ mixing).astype(dtype)]
    blocks.append(Y * np.logspace(0, -30, k).astype(Y.real.dtype))
    for Z in blocks:
        for Q in (orthonormalize(Z), householder(Z)[0]):
            assert Q.dtype == Y.dtype
            assert Q.shape == (m, min(m, k))
            assert np.abs(Q.conj().T @ Q - np.eye(Q.shape[1])).max(initial=0) < 200 * eps
            unit = Z / np.maximum(np.abs(Z).max(axis=0, initial=0), np.finfo(dtype).tiny)
            assert np.abs(unit - Q @ (Q.conj().T @ unit)).max(initial=0) < 500 * eps
        Q, R = householder(Z)
        assert np.array_equal(R, np.triu(R))
        assert np.abs(Q @ R - Z).max(initial=0) <= 100 * eps * np.abs(Z).max(initial=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gram_matrices_are_summed_in_double_precision(dtype):
    Y = matrix(20_000, 3, dtype)
    wide = Y.astype(np.complex128)
    assert np.abs(gram(Y) - wide.conj().T @ wide).max() < 1e-9
