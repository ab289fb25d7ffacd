"""Weighted rows: LAPACK on the row-scaled problem is the oracle."""

import warnings

import numpy as np
import pytest
import scipy.linalg as sla
import scipy.sparse as sp
from ls_oracles import EPS, refined_solution, spectrum, wedin
from problems import coherent
from scipy.sparse.linalg import aslinearoperator

import randla

METHODS = ("auto", "direct", "spir", "fossils", "cholqr", "lsqr", "momentum")
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "CSR": sp.csr_array,
    "operator": aslinearoperator,
    "blocks": lambda A: [A[:300], sp.csr_array(A[300:700]), A[700:]],
}


def runs(layout, method):
    dense = layout in ("C", "F", "strided")
    return not (method == "direct" and not dense) and not (method == "cholqr" and layout == "operator")


EVERY = [(layout, method) for layout in LAYOUTS for method in METHODS if runs(layout, method)]


def problem(m=1500, n=15, decades=2.0, k=None, rng=0):
    rng = np.random.default_rng(rng)
    A, b = rng.standard_normal((m, n)), rng.standard_normal((m, k) if k else m)
    return A, b, 10 ** rng.uniform(-decades, decades, m)


def scaled(A, b, w, ridge=0.0):
    """The row-scaled problem, the ridge as further rows."""
    A, b, roots = np.asarray(A), np.asarray(b), np.sqrt(w)
    n = A.shape[1]
    SA, Sb = roots[:, None] * A, (roots * b.T).T
    if ridge:
        SA, Sb = np.vstack([SA, np.sqrt(ridge) * np.eye(n)]), np.concatenate([Sb, np.zeros((n, *b.shape[1:]))])
    return SA, Sb


def oracle(A, b, w, ridge=0.0, cond=None):
    return sla.lstsq(*scaled(A, b, w, ridge), cond=cond)[0]


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(("layout", "method"), EVERY)
@pytest.mark.parametrize("ridge", [0.0, 10.0])
@pytest.mark.parametrize("k", [None, 3])
def test_solution_is_that_of_the_row_scaled_problem(layout, method, ridge, k):
    A, b, w = problem(k=k)
    result = randla.lstsq(LAYOUTS[layout](A), b, weights=w, ridge=ridge, method=method, rng=1)
    assert relative(result.x, oracle(A, b, w, ridge)) < 1e-12
    assert result.residual_norm == pytest.approx(np.sqrt(w @ (b - A @ result.x) ** 2), rel=1e-12)
    assert result.rank == 15


@pytest.mark.parametrize(("layout", "method"), EVERY)
def test_weights_over_twenty_four_decades_cost_no_accuracy(layout, method):
    A, b, w = problem(decades=12.0, rng=1)
    SA, Sb = scaled(A, b, w)
    exact = refined_solution(SA, Sb)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = randla.lstsq(LAYOUTS[layout](A), b, weights=w, method=method, rng=1)
    bound = wedin(np.linalg.cond(SA), np.linalg.norm(SA), exact, np.linalg.norm(Sb - SA @ exact))
    assert relative(result.x, exact) <= 10 * EPS * np.linalg.norm(spectrum(SA).s) / spectrum(SA).s[0] * bound


@pytest.mark.parametrize("method", ["direct", "spir", "fossils", "cholqr"])
def test_certificate_belongs_to_the_row_scaled_problem(method):
    A, b, w = problem()
    SA, Sb = scaled(A, b, w)
    result = randla.lstsq(A, b, weights=w, method=method, rng=1)
    plain = randla.lstsq(SA, Sb, method=method, rng=1)
    assert result.backward_error < EPS
    assert result.error_bound == pytest.approx(plain.error_bound, rel=1.0)
    assert result.cond == pytest.approx(plain.cond, rel=0.7)


@pytest.mark.parametrize(("layout", "method"), EVERY)
def test_weight_of_zero_drops_the_row(layout, method):
    A, b, w = problem()
    w[::3] = 0
    # What is dropped is not seen, whatever its size.
    A[::3], b[::3] = 1e10 * A[::3], 1e200
    kept = w > 0
    result = randla.lstsq(LAYOUTS[layout](A), b, weights=w, method=method, rng=1)
    assert relative(result.x, oracle(A[kept], b[kept], w[kept])) < 1e-12
    assert result.residual_norm == pytest.approx(np.sqrt(w[kept] @ (b - A @ result.x)[kept] ** 2), rel=1e-12)


@pytest.mark.parametrize("method", ["direct", "spir", "lsqr"])
def test_too_few_rows_with_weight_give_the_minimum_norm_solution(method):
    A, b, w = problem()
    w[10:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randla.LstsqWarning)
        result = randla.lstsq(A, b, weights=w, method=method, rng=1)
    assert result.rank == 10
    assert relative(result.x, oracle(A[:10], b[:10], w[:10])) < 1e-11


@pytest.mark.parametrize("method", ["direct", "spir", "cholqr"])
@pytest.mark.parametrize("shape", [(300, 5), (5, 300)])
def test_no_weight_at_all_gives_zero(method, shape):
    A, b = np.ones(shape), np.ones(shape[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randla.LstsqWarning)
        result = randla.lstsq(A, b, weights=np.zeros(shape[0]), method=method, rng=1)
    assert not result.x.any()
    assert result.residual_norm == 0
    assert result.rank == 0


@pytest.mark.parametrize("method", METHODS)
def test_equal_weights_change_nothing(method):
    A, b, _ = problem()
    plain = randla.lstsq(A, b, method=method, rng=1)
    result = randla.lstsq(A, b, weights=np.full(1500, 4.0), method=method, rng=1)
    assert relative(result.x, plain.x) < 1e-13
    assert result.residual_norm == pytest.approx(2 * plain.residual_norm, rel=1e-13)


def test_integer_weights_repeat_rows():
    A, b, _ = problem(400, 8)
    counts = np.random.default_rng(3).integers(0, 4, 400)
    twin = randla.lstsq(np.repeat(A, counts, axis=0), np.repeat(b, counts), method="spir", rng=1)
    result = randla.lstsq(A, b, weights=counts, method="spir", rng=1)
    assert relative(result.x, twin.x) < 1e-13
    assert result.residual_norm == pytest.approx(twin.residual_norm, rel=1e-13)


def test_rank_deficient_problem_gets_the_minimum_norm_solution():
    A, b, w = problem()
    A[:, 12:] = A[:, :3]
    with pytest.warns(randla.LstsqWarning, match="Rank 12 of 15"):
        result = randla.lstsq(A, b, weights=w, method="spir", rng=1)
    assert relative(result.x, oracle(A, b, w, cond=1e-10)) < 1e-12


def test_one_row_that_weighs_more_than_all_others_is_met():
    A, b = coherent(2000, 10, rng=2)
    w = np.ones(2000)
    w[7] = 1e20
    x = randla.lstsq(A, b, weights=w, method="spir", rng=1).x
    assert abs(A[7] @ x - b[7]) < 1e-9 * abs(b[7])


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
@pytest.mark.parametrize("layout", ["C", "F", "CSR", "blocks"])
@pytest.mark.parametrize("method", ["auto", "spir"])
def test_every_dtype_takes_weights(dtype, layout, method):
    A, b, w = problem()
    if np.dtype(dtype).kind == "c":
        A, b = A + 1j * A[::-1] ** 2, b * (1 + 2j)
    A, b = A.astype(dtype), b.astype(dtype)
    result = randla.lstsq(LAYOUTS[layout](A), b, weights=w, method=method, rng=1)
    roots = np.sqrt(w)
    exact = np.linalg.lstsq(roots[:, None] * A, roots * b, rcond=None)[0]
    assert result.x.dtype == dtype
    assert relative(result.x, exact) < 100 * np.finfo(dtype).eps
    size = np.sqrt(w @ np.abs(b - A @ result.x.astype(exact.dtype)) ** 2)
    assert result.residual_norm == pytest.approx(size, rel=1e-4)


@pytest.mark.parametrize("method", ["direct", "spir"])
def test_complex_right_hand_sides_of_a_real_matrix_share_the_weights(method):
    A, b, w = problem()
    b = b * (1 - 3j)
    result = randla.lstsq(A, b, weights=w, method=method, rng=1)
    assert relative(result.x, oracle(A, b, w)) < 1e-12


# m < n


@pytest.mark.parametrize("layout", ["C", "F", "CSR", "operator"])
@pytest.mark.parametrize("method", ["auto", "direct", "spir"])
@pytest.mark.parametrize("ridge", [0.0, 3.0])
@pytest.mark.parametrize("imaginary", [0, 1j])
def test_wide_problem_is_that_of_the_scaled_equations(layout, method, ridge, imaginary):
    if not runs(layout, method):
        method = "fossils"
    rng = np.random.default_rng(4)
    A, b, w = rng.standard_normal((30, 200)), rng.standard_normal(30), 10 ** rng.uniform(-2, 2, 30)
    A, b = A + imaginary * rng.standard_normal(A.shape), b + imaginary * rng.standard_normal(30)
    w[:4], b[:4] = 0, 1e5
    result = randla.lstsq(LAYOUTS[layout](A), b, weights=w, ridge=ridge, method=method, rng=1)
    assert relative(result.x, oracle(A[4:], b[4:], w[4:], ridge)) < 1e-11
    assert result.residual_norm == pytest.approx(np.sqrt(w[4:] @ np.abs(b - A @ result.x)[4:] ** 2), rel=1e-3, abs=1e-10)


@pytest.mark.parametrize("method", ["direct", "spir", "cholqr"])
def test_equations_that_contradict_each_other_are_weighed(method):
    rng = np.random.default_rng(5)
    A, b, w = rng.standard_normal((20, 200)), rng.standard_normal(20), rng.uniform(0.1, 10, 20)
    A[10:] = A[:10]
    with pytest.warns(randla.LstsqWarning, match="Rank 10"):
        result = randla.lstsq(A, b, weights=w, method=method, rng=1)
    exact = oracle(A, b, w, cond=1e-10)
    assert relative(result.x, exact) < 1e-11
    assert relative(oracle(A, b, np.ones(20), cond=1e-10), exact) > 0.01


# Refused


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (np.ones(1499), ValueError, r"weights must have shape \(1500,\).*\(1499,\)"),
        (np.ones((1500, 1)), ValueError, r"weights must have shape"),
        (2.0, ValueError, r"weights must have shape"),
        (np.full(1500, -1e-300), ValueError, r"weights must not be negative; got -1e-300"),
        (np.full(1500, np.nan), ValueError, r"weights must be finite"),
        (np.full(1500, np.inf), ValueError, r"weights must be finite"),
        (np.ones(1500) * 1j, TypeError, r"weights must be real; got complex128"),
        (["heavy"] * 1500, TypeError, r"weights must have dtype"),
    ],
)
@pytest.mark.parametrize("method", ["direct", "spir"])
def test_unsuitable_weights_are_refused(weights, error, words, method):
    A, b, _ = problem()
    with pytest.raises(error, match=words):
        randla.lstsq(A, b, weights=weights, method=method)


def test_weights_are_not_changed_and_may_have_any_stride():
    A, b, w = problem()
    wide = np.repeat(w, 2).astype(np.float32)
    before = wide.tobytes()
    result = randla.lstsq(A, b, weights=wide[::2], method="spir", rng=1)
    assert wide.tobytes() == before
    assert relative(result.x, oracle(A, b, wide[::2].astype(float))) < 1e-12
