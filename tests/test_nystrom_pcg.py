"""Regularized systems by preconditioned conjugate gradients against LAPACK, with certificates recomputed."""

import numpy as np
import pytest
import scipy.sparse as sp
from psd_oracles import DTYPES, psd, spectrum, wide
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from randla.lowrank.cholesky import rpcholesky
from randla.lowrank.nystrom import nystrom
from randla.lowrank.pcg import PCGStatus, nystrom_pcg
from randla.lowrank.result import LowRankWarning

pytestmark = pytest.mark.usefixtures("one_blas_thread")

N = 240


class Counted(LinearOperator):
    """Remembers how many columns each product had."""

    def __init__(self, A):
        super().__init__(A.dtype, A.shape)
        self.A, self.widths = A, []

    def _matmat(self, X):
        self.widths.append(X.shape[1])
        return self.A @ X

    def _adjoint(self):
        return self


def right(dtype, k=None, seed=1):
    rng = np.random.default_rng(seed)
    B = rng.standard_normal((N,) if k is None else (N, k))
    if np.dtype(dtype).kind == "c":
        B = B + 1j * rng.standard_normal(B.shape)
    return B.astype(dtype)


def exact(A, B, ridge):
    return np.linalg.solve(wide(A) + ridge * np.eye(len(A)), wide(B))


def check_certificate(found, A, B, ridge):
    """Residuals and errors in float64, per right-hand side."""
    X, B = wide(found.x).reshape(len(B), -1), wide(B).reshape(len(B), -1)
    M, eps = wide(A) + ridge * np.eye(len(A)), float(np.finfo(found.x.dtype).eps)
    R = np.linalg.norm(B - M @ X, axis=0)
    x, b = np.linalg.norm(X, axis=0), np.linalg.norm(B, axis=0)
    rounding = 20 * eps * (np.linalg.norm(M, 2) * x + b)
    assert (np.abs(np.atleast_1d(found.residual_norm) - R) <= rounding).all()
    assert (np.abs(np.atleast_1d(found.relative_residual) - R / b) <= rounding / b).all()
    backward = R / (np.linalg.norm(M, 2) * x + b)
    assert (np.atleast_1d(found.backward_error) >= 0.99 * backward - 20 * eps).all()
    assert (np.atleast_1d(found.backward_error) <= 3 * backward + 20 * eps).all()
    error = np.linalg.norm(X - np.linalg.solve(M, B), axis=0) / x
    assert (error <= np.atleast_1d(found.error_bound) * (1 + 1e-6) + rounding / (ridge * x)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [None, 4])
def test_solutions_are_those_of_lapack(dtype, k):
    A, B, ridge = psd(spectrum("square", N), dtype), right(dtype, k), 1e-3
    found = nystrom_pcg(A, B, ridge, rng=0)
    tol = 1e-8 if np.finfo(dtype).eps < 1e-10 else 1e-4
    assert found.status is PCGStatus.CONVERGED
    assert found.x.dtype == dtype
    assert found.x.shape == B.shape
    assert np.shape(found.relative_residual) == (() if k is None else (k,))
    assert np.max(found.relative_residual) <= tol
    expected = exact(A, B, ridge)
    assert np.linalg.norm(found.x - expected) < 0.2 * tol / ridge * np.linalg.norm(expected)
    check_certificate(found, A, B, ridge)
    assert found.iterations < 50
    assert [entry["iteration"] for entry in found.history] == list(range(1, found.iterations + 1))
    assert found.history[-1]["passes"] <= found.passes


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-12])
def test_tolerance_is_that_of_the_true_residual(tol):
    A, b = psd(spectrum("slow", N)), right(float)
    found = nystrom_pcg(A, b, 0.01, tol=tol, rng=0)
    assert 1e-3 * tol < np.linalg.norm(b - A @ found.x - 0.01 * found.x) / np.linalg.norm(b) <= tol
    check_certificate(found, A, b, 0.01)


def test_iterations_do_not_depend_on_the_condition_number():
    counts, plain = [], []
    for top in (1e1, 1e4, 1e7):
        A = psd(np.concatenate([np.geomspace(top, 1, 20), np.full(N - 20, 1e-3)]))
        found = nystrom_pcg(A, right(float), 1e-2, k=40, tol=1e-6, rng=0)
        assert found.success
        assert found.cond < 2
        counts.append(found.iterations)
        alone = nystrom_pcg(A, right(float), 1e-2, preconditioner=aslinearoperator(np.eye(N)), tol=1e-6)
        plain.append(alone.iterations)
        assert alone.cond > 0.5 * (top + 1e-2) / 1.1e-2
    assert max(counts) <= 8
    assert plain[-1] > 10 * max(counts)


def test_condition_number_is_estimated_from_below():
    A, ridge = psd(spectrum("square", N)), 1e-4
    for k in (5, 30):
        found = nystrom_pcg(A, right(float), ridge, k=k, tol=1e-12, rng=0)
        root = np.linalg.cholesky(A + ridge * np.eye(N))
        values = np.linalg.eigvalsh(root.T @ (found.approximation.preconditioner(ridge) @ root))
        assert 0.9 * values[-1] / values[0] <= found.cond <= values[-1] / values[0] * (1 + 1e-6)


def test_finished_right_hand_sides_leave_the_block():
    A, ridge = psd(np.concatenate([np.ones(5), np.geomspace(1e-1, 1e-4, N - 5)])), 1e-3
    vectors = np.linalg.eigh(A)[1]
    B = right(float, 4)
    B[:, 1] = vectors[:, -1] + vectors[:, -2]  # one eigenvalue
    B[:, 2] = 0
    operator = Counted(A)
    found = nystrom_pcg(operator, B, ridge, preconditioner=aslinearoperator(np.eye(N)), tol=1e-9)
    widths = operator.widths[:-1]
    assert widths[0] == 3
    assert widths[2:] == sorted(widths[2:], reverse=True)
    assert widths[3] == 2
    assert operator.widths[-1] == 4  # the residuals at the end
    assert found.success
    assert not found.x[:, 2].any()
    assert found.relative_residual[2] == 0
    np.testing.assert_allclose(found.x, exact(A, B, ridge), rtol=1e-3, atol=1e-6 * np.abs(found.x).max())
    alone = nystrom_pcg(A, B[:, 0], ridge, preconditioner=aslinearoperator(np.eye(N)), tol=1e-9)
    np.testing.assert_allclose(found.x[:, 0], alone.x, rtol=1e-6, atol=1e-6 * np.abs(alone.x).max())


def test_rank_is_that_which_pays():
    fast = psd(spectrum("square", 600))
    b = np.ones(600)
    found = [nystrom_pcg(fast, b, ridge, rng=0) for ridge in (1e-1, 1e-6, 1e-8)]
    identity = aslinearoperator(np.eye(600))
    plain = [nystrom_pcg(fast, b, ridge, preconditioner=identity, maxiter=5000).iterations for ridge in (1e-1, 1e-6, 1e-8)]
    ranks = [result.rank for result in found]
    assert ranks[0] == 0
    assert ranks == sorted(ranks)
    assert ranks[-1] >= 64
    assert found[0].iterations == plain[0]
    assert found[0].cond > 5
    assert found[2].iterations < plain[2] / 4
    assert found[0].approximation is None
    # Products of an operator cost as much one by one.
    assert nystrom_pcg(aslinearoperator(fast), b, 1e-6, rng=0).rank <= ranks[1]
    # For many right-hand sides a preconditioner is cheap: there are no plain iterations.
    operator = Counted(fast)
    many = nystrom_pcg(operator, np.random.default_rng(2).standard_normal((600, 64)), 1e-6, rng=0)
    assert operator.widths[0] == 32
    assert many.success
    assert many.rank >= 32


def test_preconditioners_that_save_nothing_are_dropped():
    # No small rank helps where eigenvalues are spread evenly, yet plain iterations are many.
    A, b = psd(np.linspace(1e-4, 1, 600)), np.random.default_rng(0).standard_normal(600)
    operator = Counted(A)
    found = nystrom_pcg(operator, b, 1e-6, tol=1e-10, maxiter=5000, rng=0)
    assert max(operator.widths) > 8
    assert found.success
    assert found.rank == 0
    assert found.approximation is None
    assert np.linalg.norm(b - A @ found.x - 1e-6 * found.x) <= 1e-10 * np.linalg.norm(b)
    again = nystrom_pcg(operator, b, 1e-6, tol=1e-10, maxiter=5000, preconditioner=found.approximation, rng=0)
    np.testing.assert_array_equal(again.x, found.x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csr_array, aslinearoperator, Counted])
def test_matrices_that_are_not_hermitian_are_refused_by_plain_iterations_too(dtype, form):
    A = psd(spectrum("slow", N), dtype)
    wrong = A.copy()
    wrong[3, 100] += 0.2
    with pytest.raises(ValueError, match=r"A must be Hermitian; got values x\^H A y"):
        nystrom_pcg(form(wrong), right(float), 0.1, rng=0)
    assert nystrom_pcg(form(A), right(float), 0.1, rng=0).rank == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_hermitian_matrices_are_not_refused_where_directions_see_little_of_them(dtype):
    values = np.concatenate([np.full(3, min(1e9, 0.01 / np.finfo(dtype).eps)), np.geomspace(1, 0.1, N - 3)])
    A = psd(values, dtype)
    vectors = np.linalg.eigh(wide(A))[1]
    b = (vectors[:, :50] @ np.arange(1.0, 51)).astype(dtype)
    found = nystrom_pcg(A, b, 1.0, tol=1e-2, rng=0, maxiter=5000)
    assert found.iterations > 1


def test_forms_of_one_matrix():
    A = np.round(psd(spectrum("slow", N)) * 256)
    b = right(float)
    expected = exact(A, b, 0.5)
    forms = [np.asfortranarray(A), A.astype(np.int64), sp.csr_array(A), sp.csc_matrix(A), aslinearoperator(A), [A[:50], A[50:]]]
    for given in forms:
        np.testing.assert_allclose(nystrom_pcg(given, b, 0.5, tol=1e-11, rng=0).x, expected, rtol=1e-6)
    columns = np.asfortranarray(right(float, 3))
    columns.flags.writeable = False
    np.testing.assert_allclose(nystrom_pcg(A, columns, 0.5, tol=1e-11, rng=0).x, exact(A, columns, 0.5), rtol=1e-5)
    np.testing.assert_allclose(nystrom_pcg(A, np.ones(N, int), 0.5, tol=1e-11, rng=0).x, exact(A, np.ones(N), 0.5), rtol=1e-6)


def test_complex_right_hand_sides_of_a_real_matrix():
    A, B = psd(spectrum("square", N)), right(complex, 2)
    for b in (B, B[:, 0]):
        found = nystrom_pcg(A, b, 1e-3, tol=1e-12, x0=0.1 * b, rng=0)
        assert found.x.dtype == complex
        np.testing.assert_allclose(found.x, exact(A, b, 1e-3), rtol=1e-8)
        check_certificate(found, A, b, 1e-3)
    real = nystrom_pcg(psd(spectrum("square", N), complex), right(float), 1e-3, rng=0)
    assert real.x.dtype == complex


def test_preconditioners_are_used_again():
    A, b = psd(spectrum("square", N)), right(float)
    first = nystrom_pcg(A, b, 1e-3, k=60, rng=0)
    for given in (
        first.approximation,
        nystrom(A, 60, rng=1),
        rpcholesky(A, 60, rng=0),
        nystrom(A, 60, rng=1).preconditioner(1e-4),
    ):
        found = nystrom_pcg(A, 2 * b, 1e-4, preconditioner=given, tol=1e-10)
        assert found.success
        assert found.approximation is given
        assert found.iterations < 40
        assert found.passes == found.iterations + 1
        np.testing.assert_allclose(found.x, exact(A, 2 * b, 1e-4), rtol=1e-6)
    assert found.rank == 0
    assert nystrom_pcg(A, b, 1e-4, preconditioner=first.approximation).rank == 60


def test_start_saves_iterations():
    A, b = psd(spectrum("slow", N)), right(float)
    cold = nystrom_pcg(A, b, 1e-3, rng=0)
    warm = nystrom_pcg(A, b, 1e-3, x0=cold.x * (1 + 1e-5), rng=0)
    assert warm.iterations < cold.iterations
    done = nystrom_pcg(A, b, 1e-3, x0=cold.x, rng=0)
    assert done.iterations == 0
    np.testing.assert_array_equal(done.x, cold.x)


def test_beyond_rounding_the_run_ends_and_says_so():
    A, b = psd(spectrum("exponential", N)), right(float)
    found = nystrom_pcg(A, b, 1e-6, tol=0.0, rng=0)
    assert found.status is PCGStatus.ROUNDING
    assert found.success
    assert found.backward_error < 1e-14
    assert found.iterations < 400


def test_runs_that_are_cut_short():
    A, b = psd(spectrum("slow", N)), right(float)
    with pytest.warns(LowRankWarning, match="The iteration limit"):
        found = nystrom_pcg(A, b, 1e-6, k=5, maxiter=3, rng=0)
    assert (found.status, found.iterations) == (PCGStatus.ITERATION_LIMIT, 3)
    assert 0 < found.relative_residual < 1
    check_certificate(found, A, b, 1e-6)
    with pytest.warns(LowRankWarning, match="The iteration limit"):
        none = nystrom_pcg(A, b, 1e-6, k=5, maxiter=0, rng=0)
    assert not none.x.any()
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result)
        if len(seen) == 4:
            raise StopIteration

    with pytest.warns(LowRankWarning, match="The callback stopped the run"):
        found = nystrom_pcg(A, b, 1e-6, k=5, callback=stop, rng=0)
    assert found.status is PCGStatus.STOPPED
    np.testing.assert_allclose(seen[-1].x, found.x, rtol=1e-12)
    assert seen[-1].relative_residual == pytest.approx(found.relative_residual, rel=1e-6)
    noisy = Counted(A)
    noisy._matmat = lambda X: A @ X * (1 + 1e-3 * np.sin(1e4 * X))
    with pytest.warns(LowRankWarning, match="Progress stopped"):
        stuck = nystrom_pcg(noisy, b, 1e-4, preconditioner=nystrom(A, 40, rng=0), tol=1e-12)
    assert stuck.status is PCGStatus.STAGNATED


def test_indefinite_matrices_are_told_with_evidence():
    b = right(float)
    for low, k in ((-0.1, None), (-0.1, 1), (-1e-4, 1)):
        values = np.concatenate([np.ones(10), np.full(N - 11, 1e-2), [low]])
        with pytest.warns(LowRankWarning, match=r"There is an x with x\^H A x = -"):
            found = nystrom_pcg(psd(values), b, 1e-3, k=k, rng=0)
        assert found.status is PCGStatus.NOT_POSITIVE
        assert np.isnan(found.error_bound)
        assert low * 1.01 <= float(found.message.split("x^H A x = ")[1].split()[0]) < 0
        M = psd(values) + 1e-3 * np.eye(N)
        assert found.residual_norm == pytest.approx(np.linalg.norm(b - M @ found.x))
    # The last one had a definite A + ridge I: it is solved nevertheless.
    assert found.relative_residual < 1e-8


def test_small_and_empty_problems():
    assert nystrom_pcg([[3.0]], [8.0], 1.0).x == pytest.approx([2.0])
    assert nystrom_pcg(np.zeros((0, 0)), np.zeros(0), 1.0).x.shape == (0,)
    assert nystrom_pcg(np.eye(5), np.zeros((5, 0)), 1.0).x.shape == (5, 0)
    assert not nystrom_pcg(psd(spectrum("slow", N)), np.zeros(N), 1.0).x.any()
    np.testing.assert_allclose(nystrom_pcg(np.zeros((N, N)), np.ones(N), 0.25).x, 4.0)


@pytest.mark.parametrize("exponent", [-600, 600])
def test_scale_does_not_matter(exponent):
    A, b, factor = psd(spectrum("square", N)), right(float), 2.0**exponent
    expected = nystrom_pcg(A, b, 1e-3, rng=0)
    found = nystrom_pcg(A * factor, b, 1e-3 * factor, rng=0)
    assert found.iterations == expected.iterations
    np.testing.assert_allclose(found.x * factor, expected.x, rtol=1e-9)
    scaled = nystrom_pcg(A, b * factor, 1e-3, rng=0)
    np.testing.assert_allclose(scaled.x / factor, expected.x, rtol=1e-9)
    assert scaled.relative_residual == pytest.approx(expected.relative_residual, rel=1e-3)


def test_seed_replays_and_results_print():
    A, b = psd(spectrum("slow", N)), right(float)
    found = nystrom_pcg(A, b, 1e-3)
    again = nystrom_pcg(A, b, 1e-3, rng=found.seed)
    np.testing.assert_array_equal(found.x, again.x)
    assert "relative_residual" in repr(found)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "ridge must be finite and greater than 0; got 0", {"ridge": 0}),
        (ValueError, "k must be at least 1; got 0", {"k": 0}),
        (ValueError, "tol must be finite and at least 0; got -1", {"tol": -1}),
        (ValueError, "maxiter must be at least 0; got -1", {"maxiter": -1}),
        (ValueError, r"A must be square; got shape \(4, 3\)", {"A": np.ones((4, 3))}),
        (ValueError, r"b must have shape \(4,\) or \(4, k\); got \(3,\)", {"b": np.ones(3)}),
        (ValueError, "b must be finite; got 4 NaN", {"b": np.full(4, np.nan)}),
        (ValueError, r"x0 must have the shape of b, \(4,\); got \(4, 1\)", {"x0": np.ones((4, 1))}),
        (ValueError, "x0 must be finite", {"x0": np.full(4, np.inf)}),
        (TypeError, "x0 must be real, as A and b are; got complex128", {"x0": 1j * np.ones(4)}),
        (TypeError, "callback must be callable; got 3", {"callback": 3}),
        (
            ValueError,
            "k must be None where a preconditioner is given; got 2",
            {"k": 2, "preconditioner": aslinearoperator(np.eye(4))},
        ),
        (
            TypeError,
            "preconditioner must be a NystromResult, a CholeskyResult or a LinearOperator; got str",
            {"preconditioner": "ilu"},
        ),
        (ValueError, "A must be finite; got NaN", {"A": np.full((4, 4), np.nan)}),
        (
            ValueError,
            "A must be finite; got NaN",
            {"A": np.full((4, 4), np.nan), "preconditioner": aslinearoperator(np.eye(4))},
        ),
        (
            ValueError,
            "A must be finite; got NaN",
            {"A": np.full((4, 4), np.nan), "preconditioner": aslinearoperator(np.eye(4)), "x0": np.ones(4)},
        ),
        (ValueError, "A must be Hermitian", {"A": np.triu(np.ones((4, 4)))}),
    ],
)
def test_arguments_are_checked(error, message, call):
    call = {"A": np.eye(4), "b": np.ones(4), "ridge": 1.0, **call}
    with pytest.raises(error, match=message):
        nystrom_pcg(call.pop("A"), call.pop("b"), call.pop("ridge"), **call)
