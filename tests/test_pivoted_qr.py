"""QR with pivoting by a sketch: residual, orthogonality and pivots against LAPACK's geqp3."""

import importlib

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from randla import CountSketch
from randla.lowrank.qr import qr
from randla.lowrank.result import LowRankStatus

module = importlib.import_module("randla.lowrank.qr")  # the package has a function of that name
M, N = 2000, 40
DTYPES = (np.float64, np.float32, np.complex128, np.complex64)
SPECTRA = {
    "flat": np.ones(N),
    "slow": np.arange(1, N + 1) ** -1.0,
    "steep": np.geomspace(1, 1e-12, N),
    "beyond rounding": np.geomspace(1, 1e-25, N),
    "cliff": np.r_[np.ones(20), 1e-10 * np.ones(20)],
    "deficient": np.r_[np.linspace(1, 2, 20), np.zeros(20)],
}


def entries(m, n, rng, dtype):
    A = rng.standard_normal((m, n))
    return (A + 1j * rng.standard_normal((m, n)) if np.dtype(dtype).kind == "c" else A).astype(dtype)


def matrix(name, dtype=np.float64, rng=0):
    rng = np.random.default_rng(rng)
    if name == "coherent":
        A = 1e-9 * entries(M, N, rng, np.float64)
        A[:N] += np.eye(N)
        return A.astype(dtype)
    if name == "columns of all sizes":
        return (entries(M, N, rng, np.float64) * 10.0 ** rng.uniform(-6, 6, N)).astype(dtype)
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    U, V = np.linalg.qr(entries(M, N, rng, wide))[0], np.linalg.qr(entries(N, N, rng, wide))[0]
    return ((U * SPECTRA[name]) @ V).astype(dtype)


def quality(A, Q, R, P):
    """Residual relative to A and loss of orthogonality, in units of eps."""
    eps = np.finfo(Q.dtype).eps
    wide = np.complex128 if A.dtype.kind == "c" else np.float64
    scale = np.abs(A).max() or 1.0
    difference = (A[:, P] / scale).astype(wide) - Q.astype(wide) @ (R / scale).astype(wide)
    size = np.linalg.norm((A / scale).astype(wide)) or 1.0
    gram = Q.conj().T.astype(wide) @ Q.astype(wide)
    return np.linalg.norm(difference) / size / eps, np.linalg.norm(gram - np.eye(len(gram)), 2) / eps if len(gram) else 0.0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*SPECTRA, "coherent", "columns of all sizes"])
def test_as_good_as_geqp3(name, dtype, order):
    A = np.array(matrix(name, dtype), order=order)
    found = qr(A, rng=1)
    Q, R, P = found
    assert found.method == "sketched"
    assert found.success
    assert (Q.dtype, R.dtype) == (A.dtype, A.dtype)
    assert Q.flags[f"{order}_CONTIGUOUS"]
    assert sorted(P) == list(range(N))
    assert np.array_equal(R, np.triu(R))
    reference = scipy.linalg.qr(A, mode="economic", pivoting=True)
    residual, loss = quality(A, Q, R, P)
    best_residual, best_loss = quality(A, *reference)
    # What is cut off below full rank is 10 eps of the first pivot at most.
    assert residual <= max(2 * best_residual, 3 if found.rank == N else 20)
    assert loss <= max(3 * best_loss, 20)
    pivots, best = np.abs(np.diag(R)), np.abs(np.diag(reference[1]))[: found.rank]
    assert (pivots >= best / 4).all()
    assert (pivots <= best * 4).all()
    if found.rank < N:
        assert np.abs(np.diag(reference[1]))[found.rank] <= 40 * np.finfo(dtype).eps * best[0]


@pytest.mark.parametrize("name", [*SPECTRA, "coherent"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_triangle_alone(name, dtype, order):
    A = np.array(matrix(name, dtype), order=order)
    whole, found = qr(A, rng=1), qr(A, mode="r", rng=1)
    assert found.Q is None
    assert "Q" not in repr(found).removeprefix("PivotedQRResult")
    np.testing.assert_array_equal(found.R, whole.R)
    np.testing.assert_array_equal(found.P, whole.P)
    assert (found.rank, found.method) == (whole.rank, whole.method)
    short = qr(A[:60], mode="r", rng=1)
    assert short.method == "lapack"
    np.testing.assert_array_equal(short.R, qr(A[:60], rng=1).R)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rank(dtype):
    found = qr(matrix("deficient", dtype), rng=0)
    assert found.rank == 20
    assert found.status is LowRankStatus.EXACT
    assert (found.Q.shape, found.R.shape) == ((M, 20), (20, N))
    assert qr(matrix("cliff"), rcond=1e-6, rng=0).rank == 20
    assert qr(np.zeros((M, N), dtype)).rank == 0
    # The first columns are a basis: no other is out of their span.
    A = matrix("deficient", dtype)
    left = A - found.Q @ (found.Q.conj().T @ A)
    assert np.linalg.norm(left) < 100 * np.finfo(dtype).eps * np.linalg.norm(A)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_without_pivoting(dtype, order):
    for name in ("flat", "slow"):
        A = np.array(matrix(name, dtype), order=order)
        found = qr(A, pivoting=False, rng=0)
        assert found.method == "sketched"
        assert np.array_equal(found.P, np.arange(N))
        residual, loss = quality(A, *found)
        assert residual <= 5
        assert loss <= 20
        # R is unique up to the units of its rows.
        np.testing.assert_allclose(np.abs(found.R), np.abs(np.linalg.qr(A, mode="r")), atol=1e3 * np.finfo(dtype).eps)
    found = qr(matrix("deficient", dtype), pivoting=False, rng=0)
    assert (found.method, found.rank) == ("lapack", N)
    assert "depend" in found.message


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_scale(scale):
    for name in ("steep", "deficient"):
        plain, found = qr(matrix(name), rng=0), qr(matrix(name) * scale, rng=0)
        rank = found.rank
        assert plain.rank == rank
        assert np.array_equal(plain.P[:rank], found.P[:rank])
        np.testing.assert_allclose(found.R[:, :rank] / scale, plain.R[:, :rank], rtol=1e-3, atol=1e-14)
        assert max(quality(matrix(name) * scale, *found)) < 25


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (1, 9), (9, 1), (30, 30), (30, 60), (100, 20), (700, 200)])
def test_left_to_lapack(shape, dtype):
    A = entries(*shape, np.random.default_rng(0), dtype)
    found = qr(A)
    assert (found.method, found.status, found.rank) == ("lapack", LowRankStatus.LAPACK, min(shape))
    if A.size:
        reference = scipy.linalg.qr(A, mode="economic", pivoting=True)
        assert np.array_equal(found.P, reference[2])
        residual, loss = quality(A, *found)
        best_residual, best_loss = quality(A, *reference)
        assert residual <= 2 * best_residual + 1
        assert loss <= 2 * best_loss + 1


def test_inputs():
    A = matrix("slow")
    expected = qr(A, rng=0)
    for form in (np.repeat(A, 2, axis=0)[::2], np.repeat(A, 2, axis=1)[:, ::2], A[::-1][::-1]):
        form.flags.writeable = False
        found = qr(form, rng=0)
        assert np.array_equal(found.P, expected.P)
        np.testing.assert_allclose(found.R, expected.R, rtol=1e-9, atol=1e-13)
    integers = np.random.default_rng(0).integers(-5, 6, (M, N))
    assert qr(integers).Q.dtype == np.float64
    first = qr(A, rng=np.random.default_rng(5))
    assert np.array_equal(first.Q, qr(A, rng=first.seed).Q)
    assert "rank=40" in repr(first)


def test_second_correction_and_retreat(monkeypatch):
    """A sketch that is too bad costs time, not accuracy."""
    # Distortion of about 1e3 in a few directions.
    squeezed = np.diag(np.r_[np.full(3, 1e-3), np.ones(2 * N - 3)])
    monkeypatch.setattr(module, "SparseStack", lambda: _Distorted(squeezed))
    found = qr(matrix("slow"), rng=0)
    assert (found.method, found.corrections) == ("sketched", 2)
    residual, loss = quality(matrix("slow"), *found)
    assert residual <= 5
    assert loss <= 20
    # CountSketch of an identity block: columns collide, and a direction of A is lost.
    monkeypatch.setattr(module, "SparseStack", CountSketch)
    A = matrix("coherent")
    A[N:] = 0
    found = qr(A, pivoting=False, rng=0)
    assert found.method == "lapack"
    assert max(quality(A, *found)) < 5


class _Distorted:
    """A sketch that nearly loses directions of the matrix."""

    def __init__(self, factors):
        self.factors = factors

    def sample(self, d, m, rng):
        return self

    def __matmul__(self, A):
        return self.factors @ np.vstack([np.linalg.qr(A, mode="r"), np.zeros((A.shape[1], A.shape[1]))])


def test_triangle_alone_of_a_poor_sketch(monkeypatch):
    A = matrix("slow")
    monkeypatch.setattr(module, "_COND", 1.0)
    found = qr(A, mode="r", rng=1)
    assert found.notes == "The sketch lost a direction of A."
    monkeypatch.undo()
    ratios = iter([100.0])
    monkeypatch.setattr(module, "_pivot_ratio", lambda C: next(ratios, 1.0))
    found = qr(A, mode="r", rng=1)
    assert (found.corrections, found.passes, found.Q) == (2, 3, None)
    exact = np.linalg.qr(A[:, found.P], mode="r")
    np.testing.assert_allclose(np.abs(found.R), np.abs(exact), atol=1e-13)


def test_refusals():
    with pytest.raises(ValueError, match="A must have 2 dimensions; got 1"):
        qr(np.ones(5))
    with pytest.raises(TypeError, match="A must be a dense array"):
        qr(sp.csr_array((5, 5)))
    with pytest.raises(ValueError, match="rcond must be finite and at least 0"):
        qr(np.eye(3), rcond=-1.0)
    with pytest.raises(ValueError, match="mode must be 'economic' or 'r'; got 'full'"):
        qr(np.eye(3), mode="full")
    for shape in ((6, 5), (M, N)):
        for bad in (np.nan, np.inf):
            A = np.ones(shape)
            A[1, 1] = bad
            with pytest.raises(ValueError, match="A must be finite"):
                qr(A)
