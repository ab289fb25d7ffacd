"""Sparse factors: projections by enumeration, recovery of known factorizations, and an objective that falls."""

import itertools
import pickle
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from randla.structured._constraints import Constraint
from randla.structured.fsmf import fsmf
from randla.structured.palm import (
    PalmStatus,
    PalmWarning,
    SparseColumns,
    SparseRows,
    SparseRowsAndColumns,
    SparseRowsOrColumns,
    SparseTotal,
    Support,
    palm4msa,
)

LINES = (SparseRows, SparseColumns, SparseRowsAndColumns, SparseTotal)


def admits(constraint, support):
    """Whether the set has matrices of this support."""
    rows, columns = support.sum(axis=1).max(initial=0), support.sum(axis=0).max(initial=0)
    limits = {
        SparseRows: rows,
        SparseColumns: columns,
        SparseRowsAndColumns: max(rows, columns),
        SparseTotal: support.sum(),
    }
    return limits[type(constraint)] <= constraint.k


def dyadic(n):
    levels = range(n.bit_length() - 1)
    return [np.kron(np.eye(2**l), np.kron(np.ones((2, 2)), np.eye(n >> (l + 1)))) for l in levels]


def nnz(S):
    return np.count_nonzero(np.abs(S) > 1e-12 * np.abs(S).max(), axis=1).max(), np.count_nonzero(
        np.abs(S) > 1e-12 * np.abs(S).max(), axis=0
    ).max()


@pytest.mark.parametrize("make", LINES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_projection_is_the_nearest(make, k):
    """Against all supports of 3 x 4 matrices."""
    rng = np.random.default_rng(k)
    supports = [np.array(bits).reshape(3, 4) for bits in itertools.product([False, True], repeat=12)]
    constraint = make(k)
    allowed = [s for s in supports if admits(constraint, s)]
    for _ in range(10):
        Z = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4)) * rng.integers(2)
        Z[rng.random((3, 4)) < 0.2] = 0
        found = constraint.project(Z)
        assert admits(constraint, found != 0)
        assert np.array_equal(found[found != 0], Z[found != 0])
        best = max((np.abs(Z[s]) ** 2).sum() for s in allowed)
        assert np.linalg.norm(found) ** 2 == pytest.approx(best, rel=1e-12)


def test_projection_on_rows_and_columns_of_larger_matrices():
    """One entry in every line: the assignment problem."""
    Z = np.random.default_rng(0).standard_normal((30, 30))
    rows, columns = scipy.optimize.linear_sum_assignment(-(Z**2))
    found = SparseRowsAndColumns(1).project(Z)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(Z[rows, columns]), rel=1e-12)


def test_other_projections():
    Z = np.array([[3.0, 1, 1], [1, 2, 0], [5, 4, 3]])
    assert np.array_equal(SparseRowsOrColumns(1).project(Z), [[3, 0, 0], [0, 2, 0], [5, 4, 3]])
    assert np.array_equal(Support(np.eye(3)).project(Z), np.diag([3, 2, 3]))
    assert np.array_equal(Support(sp.csr_array(np.eye(3))).project(Z), np.diag([3, 2, 3]))
    for make in (*LINES, SparseRowsOrColumns):
        assert not make(2).project(np.zeros((3, 3))).any()
        assert np.array_equal(make(9).project(Z), Z)
        assert make(2) == make(np.int64(2)) != make(3)
        assert pickle.loads(pickle.dumps(make(2))) == make(2)


@pytest.mark.parametrize("n", [8, 32, 64])
def test_hadamard_is_recovered_by_peeling(n):
    A, levels = scipy.linalg.hadamard(n), n.bit_length() - 1
    residuals = [SparseRowsOrColumns(n >> l) for l in range(1, levels - 1)]
    result = palm4msa(A, [SparseRowsOrColumns(2)] * levels, residuals=residuals, rng=0)
    assert result.error < 1e-9 * n
    assert len(result.factors) == levels
    assert {nnz(S) for S in result.factors} == {(2, 2)}
    assert np.linalg.norm(A - result.scale * np.linalg.multi_dot(result.factors)) < 1e-9 * n
    assert result.status is PalmStatus.CONVERGED
    assert result.success


@pytest.mark.parametrize("kind", ["d", "D"])
@pytest.mark.parametrize("hierarchical", [False, True])
def test_butterfly_is_recovered_on_its_supports(kind, hierarchical):
    n = 16
    A = scipy.linalg.hadamard(n).astype(kind)
    masks = dyadic(n)
    if kind == "D":
        bits = [int(f"{k:04b}"[::-1], 2) for k in range(n)]
        A = scipy.linalg.dft(n)[:, bits]
    rest = [Support(np.linalg.multi_dot([*masks[l:], np.eye(n)])) for l in (1, 2)] if hierarchical else None
    result = palm4msa(A, [Support(mask) for mask in masks], residuals=rest, rng=0, maxiter=2000, tol=1e-12)
    assert result.error < 1e-5 * n
    for S, mask in zip(result.factors, masks, strict=True):
        assert S.dtype == kind
        assert not S[mask == 0].any()


def test_two_supports_reach_the_closed_form():
    rng = np.random.default_rng(1)
    I, J = np.kron(np.ones((4, 4)), np.eye(4)), np.kron(np.eye(4), np.ones((4, 4)))
    A = rng.standard_normal((16, 16))
    result = palm4msa(A, [Support(I), Support(J)], rng=0, maxiter=5000, tol=1e-12)
    assert result.error == pytest.approx(fsmf(A, I, J.T).error, rel=1e-6)


@pytest.mark.parametrize("make", LINES)
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_error_never_rises_and_sets_are_kept(make, dtype):
    rng = np.random.default_rng(2)
    A = rng.standard_normal((12, 15)).astype(dtype)
    if A.dtype.kind == "c":
        A += 1j * rng.standard_normal((12, 15))
    k = 60 if make is SparseTotal else 5
    for residuals in (None, [make(2 * k)]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PalmWarning)
            sets, sweeps = [make(k)] * 3, 20 if make is SparseRowsAndColumns else 200
            result = palm4msa(A, sets, residuals=residuals, inner=[12, 13], starts=2, rng=0, maxiter=sweeps)
        for stage in {entry["stage"] for entry in result.history}:
            errors = [entry["error"] for entry in result.history if entry["stage"] == stage]
            assert (np.diff(errors) <= 1e-12 * errors[0]).all()
        assert [S.shape for S in result.factors] == [(12, 12), (12, 13), (13, 15)]
        for S in result.factors:
            assert S.dtype == dtype
            assert admits(make(k), S != 0)
            assert np.linalg.norm(S) == pytest.approx(1, rel=1e-6)
        assert result.error == pytest.approx(np.linalg.norm(A - result.to_dense()), rel=1e-5)
        assert result.error < 0.9 * np.linalg.norm(A)


def test_more_starts_are_never_worse():
    A = np.random.default_rng(3).standard_normal((10, 10))
    sets = [SparseRows(3), SparseColumns(3)]
    errors = [palm4msa(A, sets, starts=starts, rng=5).error for starts in (1, 4, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[0]


def test_seed_replays():
    A = np.random.default_rng(4).standard_normal((10, 10))
    first = palm4msa(A, [SparseRows(3), SparseRows(3)], starts=3, tol=1e-3)
    again = palm4msa(A, [SparseRows(3), SparseRows(3)], starts=3, tol=1e-3, rng=first.seed)
    for S, T in zip(first.factors, again.factors, strict=True):
        assert np.array_equal(S, T)


def test_units_layouts_and_zeros():
    A = np.random.default_rng(5).standard_normal((9, 8))
    A[A < 0] = 0
    sets = [SparseRows(3), SparseRows(3)]
    expected = palm4msa(A, sets, rng=0).error
    for given, size in (
        (sp.csc_array(A), 1),
        (np.asfortranarray(A), 1),
        (A * 2.0**700, 2.0**700),
        (A * 2.0**-1000, 2.0**-1000),
    ):
        assert palm4msa(given, sets, rng=0).error / size == pytest.approx(expected, rel=1e-6)
    zero = palm4msa(np.zeros((4, 4)), sets, rng=0)
    assert (zero.error, zero.scale) == (0, 0)


def test_factors_larger_than_direct_norms():
    """Spectral norms by Lanczos."""
    rng = np.random.default_rng(6)
    left, right = (rng.standard_normal((220, 220)) * (rng.random((220, 220)) < 0.02) for _ in range(2))
    with pytest.warns(PalmWarning, match="iteration limit"):
        result = palm4msa(left @ right, [Support(left != 0), Support(right != 0)], rng=0, maxiter=100)
    errors = [entry["error"] for entry in result.history]
    assert (np.diff(errors) <= 0).all()
    assert result.error < 0.5 * np.linalg.norm(left @ right)


def test_iteration_limit_is_said():
    A = np.random.default_rng(7).standard_normal((8, 8))
    with pytest.warns(PalmWarning, match="iteration limit"):
        result = palm4msa(A, [SparseRows(2), SparseRows(2)], maxiter=1, rng=0)
    assert result.status is PalmStatus.ITERATION_LIMIT
    assert not result.success
    assert result.iterations == 1


@pytest.mark.parametrize(
    ("error", "message", "A", "constraints", "options"),
    [
        (TypeError, "constraints must be a sequence", np.eye(3), SparseRows(1), {}),
        (TypeError, "constraints must hold constraints", np.eye(3), [SparseRows(1), 3], {}),
        (ValueError, "constraints must be at least 2; got 1", np.eye(3), [SparseRows(1)], {}),
        (TypeError, "residuals must hold constraints", np.eye(3), [SparseRows(1)] * 3, {"residuals": ["a"]}),
        (ValueError, "residuals must be 1, two fewer", np.eye(3), [SparseRows(1)] * 3, {"residuals": []}),
        (ValueError, "inner must have 1 sizes for 2 factors; got 2", np.eye(3), [SparseRows(1)] * 2, {"inner": [2, 3]}),
        (TypeError, "inner must be a sequence of integers; got int", np.eye(3), [SparseRows(1)] * 2, {"inner": 3}),
        (ValueError, "inner must be at least 1", np.eye(3), [SparseRows(1)] * 2, {"inner": [0]}),
        (
            ValueError,
            r"constraints\[1\] must have a mask of shape \(3, 3\); got \(3, 4\)",
            np.eye(3),
            [Support(np.eye(3)), Support(np.ones((3, 4)))],
            {},
        ),
        (
            ValueError,
            r"residuals\[0\] must have a mask of shape \(3, 3\); got \(2, 3\)",
            np.eye(3),
            [SparseRows(1)] * 3,
            {"residuals": [Support(np.ones((2, 3)))]},
        ),
        (ValueError, "A must be finite", np.array([[np.nan]]), [SparseRows(1)] * 2, {}),
        (ValueError, "starts must be at least 1", np.eye(3), [SparseRows(1)] * 2, {"starts": 0}),
        (ValueError, "maxiter must be at least 1", np.eye(3), [SparseRows(1)] * 2, {"maxiter": 0}),
        (ValueError, "tol must be finite", np.eye(3), [SparseRows(1)] * 2, {"tol": np.nan}),
    ],
)
def test_errors(error, message, A, constraints, options):
    with pytest.raises(error, match=message):
        palm4msa(A, constraints, **options)


def test_errors_of_constraints():
    for make in (*LINES, SparseRowsOrColumns):
        with pytest.raises(ValueError, match="k must be at least 1"):
            make(0)
        with pytest.raises(TypeError, match="k must be an integer"):
            make(1.5)
    with pytest.raises(ValueError, match="mask must have 2 dimensions"):
        Support(np.ones(3))
    with pytest.raises(NotImplementedError):
        Constraint().project(np.eye(2))
