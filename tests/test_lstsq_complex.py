"""Complex least squares by every method, against LAPACK's zgelsd and Householder QR."""

import warnings

import numpy as np
import pytest
import scipy.linalg as sla
import scipy.sparse as sp
from problems import haar, unit
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import randla

STABLE = ("spir", "fossils", "cholqr")
METHODS = ("auto", "direct", *STABLE, "lsqr")
EPS = np.finfo(float).eps


def gaussian(*shape, rng):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def complex_haar(m, n, rng):
    Q, R = np.linalg.qr(gaussian(m, n, rng=rng))
    return Q * (np.diag(R) / np.abs(np.diag(R)))


def problem(m=400, n=12, cond=1e4, residual=1e-2, k=None, rng=0, dtype=np.complex128):
    """Singular values spread evenly in the logarithm, and a residual orthogonal to the range."""
    rng = np.random.default_rng(rng)
    U = complex_haar(m, n, rng)
    A = U @ (np.logspace(0, -np.log10(cond), n)[:, None] * complex_haar(n, n, rng))
    B = gaussian(m, k or 1, rng=rng)
    B -= U @ (U.conj().T @ B)
    B = A @ gaussian(n, k or 1, rng=rng) + residual * B / np.linalg.norm(B, axis=0)
    return A.astype(dtype), (B if k else B[:, 0]).astype(dtype)


def gelsd(A, b, ridge=0.0, cond=None):
    A, b = np.asarray(A, complex), np.asarray(b, complex)
    n = A.shape[1]
    if ridge:
        A = np.vstack([A, np.sqrt(ridge) * np.eye(n)])
        b = np.concatenate([b, np.zeros((n, *b.shape[1:]))])
    return sla.lstsq(A, b, cond=cond, lapack_driver="gelsd")[0]


def embedded(A):
    return np.block([[A.real, -A.imag], [A.imag, A.real]])


def backward_error(A, b, x):
    """Exact to about eps: min(phi, smallest singular value of [A, phi (I - r r^H / r^H r)]) / ||A||_F."""
    A, b, x = (np.asarray(v, complex) for v in (A, b, x))
    r = b - A @ x
    phi, size = np.linalg.norm(r) / np.linalg.norm(x), np.linalg.norm(r)
    Q, R = np.linalg.qr(np.column_stack([A, r / size]))
    rho = Q.conj().T @ r / size
    small = np.column_stack([R[:, :-1], phi * (np.eye(len(rho)) - np.outer(rho, rho.conj()))])
    return min(phi, sla.svdvals(small)[-1]) / np.linalg.norm(A)


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


def strided(A):
    return np.repeat(A, 2, axis=1)[:, ::2]


class Products(LinearOperator):
    """Single vectors only."""

    def __init__(self, A):
        super().__init__(A.dtype, A.shape)
        self.A = A

    def _matvec(self, x):
        return self.A @ x

    def _rmatvec(self, y):
        return self.A.conj().T @ y


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "reversed": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "CSR": sp.csr_array,
    "CSC": sp.csc_array,
    "operator": aslinearoperator,
    "products": Products,
    "blocks": lambda A: [A[:60], A[60:61], sp.csr_array(A[61:200]), np.asfortranarray(A[200:])],
}


def runs(layout, method):
    return not (layout not in ("C", "F", "strided", "reversed") and method == "direct") and not (
        layout in ("operator", "products") and method == "cholqr"
    )


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize(("layout", "method"), [(la, me) for la in LAYOUTS for me in METHODS if runs(la, me)])
def test_solution_is_that_of_lapack(layout, method, ridge, k, dtype):
    A, b = problem(k=k, cond=1e2, dtype=dtype)
    result = randla.lstsq(LAYOUTS[layout](A), b, method=method, ridge=ridge, rng=3)
    eps = np.finfo(dtype).eps
    assert result.x.dtype == dtype
    assert relative(result.x, gelsd(A, b, ridge)) < 300 * eps
    assert result.rank == 12
    assert np.max(result.backward_error) < eps
    assert np.shape(result.backward_error) == np.shape(result.residual_norm) == np.shape(b)[1:]
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ result.x.astype(complex), axis=0), rel=1e-3)


@pytest.mark.parametrize("method", ["direct", *STABLE])
@pytest.mark.parametrize("cond", [1.0, 1e6, 1e12])
@pytest.mark.parametrize("residual", [1e-8, 1.0])
def test_certificate_is_right_and_as_small_as_that_of_householder_qr(method, cond, residual):
    A, b = problem(cond=cond, residual=residual, rng=4)
    result = randla.lstsq(A, b, method=method, rng=1)
    Q, R = np.linalg.qr(A)
    qr = backward_error(A, b, sla.solve_triangular(R, Q.conj().T @ b))
    exact = backward_error(A, b, result.x)
    assert exact <= 10 * max(qr, EPS / 4)
    assert 0.5 * exact - EPS <= result.backward_error <= 1.5 * exact + EPS


@pytest.mark.parametrize("method", STABLE)
def test_reported_backward_error_of_a_stopped_run_is_the_exact_one(method):
    # Far above rounding, where a factor sqrt(2) of the Frobenius norm would show.
    A, b = problem(cond=1e3, residual=0.5, rng=5)
    result = randla.lstsq(A, b, method=method, tol=1e-7, sketch_size=36, rng=1)
    exact = backward_error(A, b, result.x)
    assert result.backward_error <= 1e-7
    assert 0.6 * exact <= result.backward_error <= 1.45 * exact + 1e-16


def test_columns_with_units_of_their_own_are_solved_alike():
    A, b = problem(cond=10.0)
    scale = np.logspace(-100, 100, 12)
    result = randla.lstsq(A * scale, b, method="spir", rng=1)
    assert relative(result.x * scale, gelsd(A, b)) < 1e-12


@pytest.mark.parametrize(("layout", "method"), [(la, "spir") for la in LAYOUTS] + [("C", me) for me in METHODS])
def test_rank_is_counted_in_complex_numbers_and_the_solution_has_minimum_norm(layout, method):
    rng = np.random.default_rng(6)
    A, b = gaussian(600, 12, rng=rng), gaussian(600, rng=rng)
    A[:, 9:] = A[:, :3] @ gaussian(3, 3, rng=rng)
    with pytest.warns(randla.LstsqWarning, match="Rank 9 of 12"):
        result = randla.lstsq(LAYOUTS[layout](A), b, method=method, rng=2)
    assert result.rank == 9
    assert result.status is randla.Status.RANK_DEFICIENT
    assert relative(result.x, gelsd(A, b, cond=1e-10)) < 1e-11


@pytest.mark.parametrize("method", ["direct", "cholqr"])
def test_singular_values_are_those_of_the_complex_matrix(method):
    A, b = problem(cond=1e3)
    result = randla.lstsq(A, b, method=method, rng=1)
    assert np.allclose(result.s, sla.svdvals(A), rtol=1e-8)
    assert result.cond == pytest.approx(np.linalg.cond(A / np.linalg.norm(A, axis=0)), rel=1.0)


WIDE = ("auto", "direct", "spir", "fossils", "cholqr")


@pytest.mark.parametrize(
    ("layout", "method"), [(la, me) for la in ("C", "F", "CSR", "operator") for me in WIDE if runs(la, me)]
)
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("k", [None, 3])
def test_wide_problem_gets_the_minimum_norm_solution(layout, method, ridge, k):
    rng = np.random.default_rng(7)
    A, b = gaussian(25, 400, rng=rng), gaussian(25, *([k] if k else []), rng=rng)
    result = randla.lstsq(LAYOUTS[layout](A), b, method=method, ridge=ridge, rng=1)
    assert relative(result.x, gelsd(A, b, ridge)) < 1e-12
    assert ridge or result.rank == 25
    assert np.max(result.backward_error) < 4 * EPS


def test_rank_of_a_wide_problem_is_counted_in_complex_numbers():
    rng = np.random.default_rng(8)
    A = gaussian(20, 300, rng=rng)
    A[15:] = gaussian(5, 15, rng=rng) @ A[:15]
    b = gaussian(20, rng=rng)
    with pytest.warns(randla.LstsqWarning, match="Rank 15 of 20"):
        result = randla.lstsq(A, b, method="spir", rng=1)
    assert result.rank == 15
    assert relative(result.x, gelsd(A, b, cond=1e-10)) < 1e-11


# One side real


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_real_matrix_with_complex_right_hand_sides(method, k):
    A, b = problem(k=k)
    A = np.ascontiguousarray(A.real)
    result = randla.lstsq(A, b, method=method, rng=1)
    assert result.x.dtype == complex
    assert result.x.shape == (12, *b.shape[1:])
    assert relative(result.x, gelsd(A, b)) < 1e-11
    assert result.rank == 12
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ result.x, axis=0), rel=1e-12)
    assert np.shape(result.backward_error) == np.shape(result.error_bound) == b.shape[1:]


def test_certificate_of_complex_right_hand_sides_bounds_the_backward_error():
    A, b = problem(cond=1e3, residual=0.5, rng=5)
    A = np.ascontiguousarray(A.real)
    result = randla.lstsq(A, b, method="spir", tol=1e-7, sketch_size=36, rng=1)
    exact = backward_error(A, b, result.x)
    assert 0.7 * exact <= result.backward_error <= 1e-7


@pytest.mark.parametrize("method", ["direct", "spir"])
def test_wide_real_matrix_with_complex_right_hand_side(method):
    rng = np.random.default_rng(9)
    A, b = rng.standard_normal((20, 300)), gaussian(20, rng=rng)
    assert relative(randla.lstsq(A, b, method=method, rng=1).x, gelsd(A, b)) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_complex_matrix_with_real_right_hand_side(method):
    A, b = problem()
    result = randla.lstsq(A, b.real, method=method, rng=1)
    assert result.x.dtype == complex
    assert relative(result.x, gelsd(A, b.real)) < 1e-10


@pytest.mark.parametrize(
    ("left", "right", "out"),
    [("F", "F", "F"), ("F", "f", "F"), ("f", "F", "F"), ("F", "d", "D"), ("d", "F", "D"), ("i", "D", "D")],
)
@pytest.mark.parametrize("method", ["direct", "spir"])
def test_precision_follows_numpy_promotion(left, right, out, method):
    A, b = problem(cond=10.0)
    A, b = (
        (100 * v).astype(kind) if np.dtype(kind).kind == "c" else (100 * v.real).astype(kind)
        for v, kind in ((A, left), (b, right))
    )
    result = randla.lstsq(A, b, method=method, rng=1)
    assert result.x.dtype == np.dtype(out)
    assert relative(result.x, gelsd(A, b)) < 300 * np.finfo(out).eps


# What stays as it is for real numbers


@pytest.mark.parametrize("layout", ["C", "F", "CSR", "blocks"])
def test_every_iteration_is_one_pass(layout):
    A, b = problem()
    result = randla.lstsq(LAYOUTS[layout](A), b, method="spir", rng=1)
    # The sketch, the start, the refinements; the real matrix of twice the size takes as many.
    assert result.passes <= result.iterations + 6
    twin = randla.lstsq(embedded(A), np.concatenate([b.real, b.imag]), method="spir", rng=1)
    assert twin.passes <= twin.iterations + 6


def test_layouts_agree_as_far_as_the_condition_allows():
    A, b = problem(2000, 15, cond=1e4)
    start = randla.lstsq(A, b, method="spir", sketch=randla.SparseStack(), rng=1)
    for layout in ("F", "strided", "reversed"):
        again = randla.lstsq(LAYOUTS[layout](A), b, method="spir", sketch=randla.SparseStack(), rng=1)
        assert relative(again.x, start.x) < 10 * 1e4 * np.finfo(float).eps


@pytest.mark.parametrize("method", ["spir", "lsqr"])
def test_callback_sees_complex_iterates_and_may_stop(method):
    A, b = problem(k=2, cond=1e3, residual=0.5)
    seen = []

    def watch(intermediate_result):
        seen.append(intermediate_result)
        if len(seen) == 5:
            raise StopIteration

    result = randla.lstsq(A, b, method=method, callback=watch, sketch_size=36, rng=1)
    assert result.status is randla.Status.STOPPED
    assert seen[-1].x.shape == (12, 2)
    assert np.allclose(seen[-1].x, result.x, rtol=1e-12)
    assert [entry["iteration"] for entry in result.history] == list(range(5))


def test_guess_is_used():
    A, b = problem(k=3, cond=1e6, residual=1e-12)
    exact = gelsd(A, b)
    without, with_guess = (randla.lstsq(A, b, method="spir", x0=x0, rng=1) for x0 in (None, exact))
    assert with_guess.iterations < without.iterations
    real = np.ascontiguousarray(A.real)
    exact = gelsd(real, b)
    without, with_guess = (randla.lstsq(real, b, method="spir", x0=x0, rng=1) for x0 in (None, exact))
    assert with_guess.iterations <= without.iterations


def test_complex_guess_for_a_real_problem_is_refused():
    A, b = problem()
    with pytest.raises(TypeError, match=r"x0 must be real, as A and b are; got complex128"):
        randla.lstsq(A.real, b.real, method="spir", x0=np.ones(12) * 1j)


def test_seed_replays_the_same_bits():
    A, b = problem(k=2)
    first = randla.lstsq(A, b, method="spir")
    assert randla.lstsq(A, b, method="spir", rng=first.seed).x.tobytes() == first.x.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, np.nan)])
@pytest.mark.parametrize("layout", ["C", "F", "CSR", "blocks"])
def test_entries_that_are_not_finite_are_refused(value, layout):
    A, b = problem()
    A[17, 3] = value
    with pytest.raises(ValueError, match=r"A must be finite"):
        randla.lstsq(LAYOUTS[layout](A), b, method="spir", rng=1)
    A, b = problem()
    b[17] = value
    with pytest.raises(ValueError, match=r"b must be finite"):
        randla.lstsq(A, b, method="spir", rng=1)


def test_preconditioner_is_for_real_numbers():
    with pytest.raises(TypeError, match=r"A must be real; got complex128"):
        randla.sketch_preconditioner(problem()[0], rng=1)


def test_coordinatewise_bound_is_for_real_numbers():
    A, b = problem()
    with pytest.raises(TypeError, match=r"method 'linf' needs real A and b"):
        randla.lstsq(A, b, method="linf", rng=1)


@pytest.mark.parametrize("method", ["sketch", "momentum"])
def test_other_methods_take_complex_numbers_too(method):
    A, b = problem(cond=10.0, residual=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randla.LstsqWarning)
        result = randla.lstsq(A, b, method=method, rng=1)
    assert relative(result.x, gelsd(A, b)) < (0.5 if method == "sketch" else 1e-12)


def test_auto_takes_an_iterative_method_for_a_large_tall_complex_problem():
    rng = np.random.default_rng(1)
    A = gaussian(20_000, 100, rng=rng).astype(np.complex64)
    b = A @ (unit(100, rng) + 1j * unit(100, rng)).astype(np.complex64)
    result = randla.lstsq(A, b, rng=1)
    assert result.method != "direct"
    assert result.backward_error < np.finfo(np.complex64).eps
    assert randla.lstsq(haar(60, 20, rng) * 1j, rng.standard_normal(60)).method == "direct"
