"""Lewis weights: the fixed point by LAPACK's QR, invariances, rates, and p-norms kept by sampling."""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.linalg as sla
import scipy.sparse as sp
from problems import LAYOUTS, coherent, kdd99, rank_deficient
from scipy.optimize import linprog

from randla import RowBlocks
from randla.lp.lewis import LewisResult, lewis_weights, lp_sensitivities
from randla.result import LeverageWarning

POWERS = (0.5, 1, 1.5, 2, 3, 3.9, 4, 6, 10)
EPS = np.finfo(float).eps


def leverage(A):
    """Row norms of A R^-1: of small rows they are as accurate as of large ones, which those of Householder's Q are not."""
    rows = sla.solve_triangular(np.linalg.qr(A, mode="r"), A.T, trans="T").T
    return np.sum(np.abs(rows) ** 2, axis=1)


def fixed_point_residual(A, w, p):
    """max |log w - log F(w)|, as log F(w) - log w = p/2 (log leverage of W^(1/2-1/p) A - log w)."""
    kept = w > 0
    scores = leverage(w[kept, None] ** (0.5 - 1 / p) * A[kept])
    return p / 2 * np.abs(np.log(scores) - np.log(w[kept])).max()


def oracle(A, p, iterations=3000):
    """The iteration w <- w^(1-h) leverage^h with h = min(p/2, 1), which converges for every p, run to the end."""
    w = np.full(len(A), A.shape[1] / len(A))
    for _ in range(iterations):
        scores = leverage(w[:, None] ** (0.5 - 1 / p) * A)
        new = w * (scores / w) ** min(p / 2, 1)
        done = np.abs(np.log(new / w)).max() < 1e-14
        w = new
        if done:
            break
    return w


def matrices(rng=0):
    rng = np.random.default_rng(rng)
    return {
        "normal": rng.standard_normal((500, 8)),
        "coherent": coherent(500, 8, rng=1)[0],
        "heavy": rng.standard_t(1, (500, 8)),
        "rows of all sizes": rng.standard_normal((500, 8)) * 10 ** rng.uniform(-6, 6, (500, 1)),
        "few rows": rng.standard_normal((11, 8)),
    }


@pytest.mark.parametrize("name", matrices())
@pytest.mark.parametrize("p", POWERS)
def test_fixed_point(name, p):
    A = matrices()[name]
    result = lewis_weights(A, p, rng=0, full_output=True)
    w = result.weights
    assert result.residual <= 1e-8
    assert fixed_point_residual(A, w, p) <= 1.1e-8 + 1e-12
    assert result.rank == 8
    assert w.sum() == pytest.approx(8, rel=1e-7)
    assert w.min() > 0
    assert w.max() <= 1
    assert w.dtype == np.float64


@pytest.mark.parametrize("p", POWERS)
def test_weights_are_those_of_another_iteration(p):
    A = np.random.default_rng(1).standard_t(2, (60, 4))
    assert lewis_weights(A, p, rng=0, tol=1e-12) == pytest.approx(oracle(A, p), rel=1e-9)


def test_two_is_leverage():
    A = matrices()["heavy"]
    result = lewis_weights(A, 2, rng=0, full_output=True)
    assert result.weights == pytest.approx(leverage(A), rel=1e-11)
    assert result.iterations <= 2


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 3, 3.5])
@pytest.mark.parametrize("name", ["heavy", "rows of all sizes"])
def test_contraction_by_half_of_p_minus_one(p, name):
    """Cohen and Peng 2015: the residual shrinks by |p/2 - 1| or more in every step; on such rows that rate is met."""
    result = lewis_weights(matrices()[name], p, rng=0, method="contraction", full_output=True)
    residuals = np.array([entry["residual"] for entry in result.history])
    ratios = residuals[1:] / residuals[:-1]
    # The first residual is measured in a basis that is orthonormal to a few percent only.
    assert ratios[1:].max() <= abs(p / 2 - 1) * (1 + 1e-3)
    assert ratios.max() >= 0.6 * abs(p / 2 - 1)


@pytest.mark.parametrize("p", [0.5, 1, 3, 4, 6, 10, 50])
def test_chebyshev_is_as_fast_as_its_spectrum_says(p):
    """2 rho^k with rho = |sqrt(p) - sqrt(2)| / (sqrt(p) + sqrt(2)), and a factor of 1e4 for the nonlinearity."""
    rho = abs(math.sqrt(p) - math.sqrt(2)) / (math.sqrt(p) + math.sqrt(2))
    for A in matrices().values():
        result = lewis_weights(A, p, rng=0, full_output=True)
        first = result.history[0]["residual"]
        assert result.iterations <= 2 + math.log(2e4 * max(first, 1) / 1e-8) / -math.log(rho)


def test_methods_agree():
    A = matrices()["coherent"]
    for p in (0.5, 1, 3):
        w = lewis_weights(A, p, rng=0, tol=1e-11)
        assert lewis_weights(A, p, rng=5, tol=1e-11, method="contraction") == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize("p", [0.5, 1, 4, 10])
def test_invariant_under_invertible_matrices(p):
    rng = np.random.default_rng(2)
    A = rng.standard_t(2, (300, 6))
    Q, R = np.linalg.qr(rng.standard_normal((6, 6)))
    w = lewis_weights(A, p, rng=0, tol=1e-11)
    for cond in (10, 1e6, 1e12):
        M = (Q * np.logspace(0, -np.log10(cond), 6)) @ R
        assert lewis_weights(A @ M, p, rng=0, tol=1e-11) == pytest.approx(w, rel=1e-9 + 100 * EPS * cond * max(1, p))
    assert lewis_weights(A * [1e-150, 1e150, 1, 1, 1, 1], p, rng=0, tol=1e-11) == pytest.approx(w, rel=1e-9)


@pytest.mark.parametrize("p", [0.5, 1, 3, 6])
def test_row_split_in_two(p):
    """A row and k copies of it, each divided by k^(1/p), are one to every p-norm: the weights of the copies add up."""
    A = np.random.default_rng(3).standard_normal((100, 5))
    w = lewis_weights(A, p, rng=0, tol=1e-11)
    split = np.vstack([A, np.tile(A[7], (2, 1))])
    split[[7, 100, 101]] /= 3 ** (1 / p)
    v = lewis_weights(split, p, rng=0, tol=1e-11)
    assert v[[7, 100, 101]] == pytest.approx(w[7] / 3, rel=1e-8)
    assert np.delete(v[:100], 7) == pytest.approx(np.delete(w, 7), rel=1e-8)


@pytest.mark.parametrize("kind", ["product", "duplicate", "zero"])
@pytest.mark.parametrize("p", [1, 4])
def test_rank_deficient(kind, p):
    A, _ = rank_deficient(kind, 400, 9, 6, rng=4)
    result = lewis_weights(A, p, rng=0, full_output=True)
    assert result.rank == 6
    assert result.weights.sum() == pytest.approx(6, rel=1e-7)
    U, _, _ = np.linalg.svd(A, full_matrices=False)
    assert fixed_point_residual(U[:, :6], result.weights, p) < 2e-8


@pytest.mark.parametrize("p", [0.5, 1, 2, 5])
def test_zero_rows_have_no_weight(p):
    A = np.random.default_rng(5).standard_normal((90, 4))
    A[::3] = 0
    w = lewis_weights(A, p, rng=0)
    assert not w[::3].any()
    assert w.sum() == pytest.approx(4, rel=1e-7)
    kept = np.arange(90) % 3 > 0
    assert w[kept] == pytest.approx(lewis_weights(A[kept], p, rng=0), rel=1e-6)


@pytest.mark.parametrize("p", [1, 4])
def test_wide_square_and_single_rows_weigh_one(p):
    rng = np.random.default_rng(6)
    for shape in ((5, 9), (6, 6), (1, 1), (1, 4)):
        assert lewis_weights(rng.standard_normal(shape), p, rng=0) == pytest.approx(np.ones(shape[0]), rel=1e-10)


def test_nothing_to_weigh():
    assert lewis_weights(np.zeros((0, 3)), 1).shape == (0,)
    assert not lewis_weights(np.zeros((4, 0)), 1).any()
    result = lewis_weights(np.zeros((4, 3)), 1, rng=0, full_output=True)
    assert result.rank == 0
    assert not result.weights.any()


@pytest.mark.parametrize("layout", [*LAYOUTS, "strided", "read-only", "blocks"])
@pytest.mark.parametrize("p", [1, 6])
def test_layouts(layout, p):
    A = np.random.default_rng(7).standard_normal((3000, 6))
    A[A < -0.5] = 0
    w = lewis_weights(A, p, rng=0, tol=1e-11)
    if layout in LAYOUTS:
        given = LAYOUTS[layout](A)
    elif layout == "strided":
        given = np.repeat(A, 2, axis=1)[:, ::2]
    elif layout == "read-only":
        given = A.copy()
        given.flags.writeable = False
    else:
        given = RowBlocks([A[:10], sp.csr_array(A[10:700]), A[700:]])
    assert lewis_weights(given, p, rng=0, tol=1e-11) == pytest.approx(w, rel=1e-9)


def test_passes_are_counted():
    A = np.random.default_rng(8).standard_normal((500, 5))
    blocks = RowBlocks(lambda: iter([A[:200], A[200:]]), shape=A.shape, dtype=float)
    result = lewis_weights(blocks, 1, rng=0, full_output=True)
    assert result.passes == blocks.reads
    assert result.passes <= 2 * result.iterations + 3


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128, int])
def test_dtypes(dtype):
    rng = np.random.default_rng(9)
    A = 10 * rng.standard_normal((200, 5))
    A = (A + 1j * rng.standard_normal((200, 5)) if np.dtype(dtype).kind == "c" else A).astype(dtype)
    exact = A.astype(complex if np.dtype(dtype).kind == "c" else float)
    for p in (1, 5):
        w = lewis_weights(A, p, rng=0)
        assert fixed_point_residual(exact, w, p) < 1.1e-8
        assert w.sum() == pytest.approx(5, rel=1e-7)


def test_column_major_complex():
    rng = np.random.default_rng(10)
    A = rng.standard_normal((100, 3)) + 1j * rng.standard_normal((100, 3))
    w = lewis_weights(A, 1, rng=0)
    for given in (np.asfortranarray(A), sp.csr_array(A), [A[:30], A[30:]]):
        assert lewis_weights(given, 1, rng=0) == pytest.approx(w, rel=1e-10)


@pytest.mark.parametrize("p", [0.05, 0.1, 100, 300])
def test_extreme_powers_neither_overflow_nor_lose_the_sum(p):
    A = matrices()["rows of all sizes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = lewis_weights(A, p, rng=0, full_output=True)
    assert result.weights.sum() == pytest.approx(8, rel=1e-5)


def test_too_few_iterations_are_said():
    with pytest.warns(LeverageWarning, match="residual of .* after 3 iterations"):
        result = lewis_weights(matrices()["heavy"], 1, rng=0, maxiter=3, full_output=True)
    assert len(result.history) == result.iterations == 3
    assert result.residual == result.history[-1]["residual"] > 1e-8


def test_seed_replays():
    A = matrices()["normal"]
    result = lewis_weights(A, 1, full_output=True)
    assert isinstance(result, LewisResult)
    assert np.array_equal(lewis_weights(A, 1, rng=result.seed), result.weights)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "A must have rows", (sp.linalg.aslinearoperator(np.eye(3)), 1, {})),
        (ValueError, "p must be finite and greater than 0", (np.eye(3), 0, {})),
        (ValueError, "p must be finite", (np.eye(3), np.inf, {})),
        (TypeError, "p must be a real number", (np.eye(3), "1", {})),
        (ValueError, "method must be one of", (np.eye(3), 1, {"method": "newton"})),
        (ValueError, "p must be less than 4", (np.eye(3), 4, {"method": "contraction"})),
        (ValueError, "tol must be", (np.eye(3), 1, {"tol": 0})),
        (ValueError, "maxiter must be at least 1", (np.eye(3), 1, {"maxiter": 0})),
        (ValueError, "A must be finite", (np.array([[1.0], [np.nan]]), 1, {})),
        (ValueError, "A must have 2 dimensions", (np.ones(3), 1, {})),
        (TypeError, "rng must be", (np.eye(3), 1, {"rng": "a"})),
    ],
)
def test_errors(error, message, arguments):
    A, p, options = arguments
    with pytest.raises(error, match=message):
        lewis_weights(A, p, **options)


def exact_l1_sensitivities(A):
    """max a_i x subject to ||A x||_1 <= 1, a linear program for every row."""
    m, n = A.shape
    bound = np.block([[A, -np.eye(m)], [-A, -np.eye(m)], [np.zeros((1, n)), np.ones((1, m))]])
    limit = np.r_[np.zeros(2 * m), 1]
    free = [(None, None)] * n + [(0, None)] * m
    return np.array([-linprog(np.r_[-a, np.zeros(m)], A_ub=bound, b_ub=limit, bounds=free).fun for a in A])


def test_l1_sensitivities_are_bounded():
    rng = np.random.default_rng(11)
    heavy = np.vstack([np.eye(3), 0.01 * rng.standard_normal((15, 3))])
    for A in (rng.standard_normal((25, 3)), rng.standard_t(1, (20, 4)), heavy):
        bound = lp_sensitivities(A, 1, rng=0)
        exact = exact_l1_sensitivities(A)
        assert (exact <= bound * (1 + 1e-7)).all()
        assert bound.sum() <= A.shape[1] * (1 + 1e-6)
        assert bound.max() <= 1


@pytest.mark.parametrize("p", [3, 4, 6])
def test_sensitivities_are_bounded_for_large_p(p):
    """Against the best of many directions and of a power iteration from each row's own: a lower bound of the sensitivity."""
    rng = np.random.default_rng(12)
    A = rng.standard_t(3, (200, 4))
    bound = lp_sensitivities(A, p, rng=0)
    w = lewis_weights(A, p, rng=0)
    assert bound == pytest.approx(np.minimum(1, 4 ** (p / 2 - 1) * w))
    assert lp_sensitivities(A, p, weights=w) == pytest.approx(bound)
    X = np.linalg.solve((w[:, None] ** (1 - 2 / p) * A).T @ A, A.T)
    for Y in (X, np.linalg.pinv(A) @ np.eye(200), rng.standard_normal((4, 20_000))):
        images = np.abs(A @ Y) ** p
        assert ((images / images.sum(axis=0)).max(axis=1) <= bound * (1 + 1e-6)).all()


@pytest.mark.parametrize(("weights", "message"), [(np.ones(3), "shape"), (-np.ones(4), "negative")])
def test_unsuitable_weights_of_sensitivities(weights, message):
    with pytest.raises(ValueError, match=message):
        lp_sensitivities(np.ones((4, 1)), 1, weights=weights)


@pytest.mark.parametrize(("p", "sizes"), [(1, (150, 1500)), (1.5, (150, 1500)), (3, (300, 3000)), (4, (400, 4000))])
def test_sampling_by_lewis_weights_keeps_p_norms(p, sizes):
    """Largest distortion over directions that matter: random ones, the rows' own, and the coordinate axes.

    The error falls with the square root of the size; fixed seeds, twice what was measured.
    """
    A = coherent(20_000, 8, rng=13, noise=0.3 * 20_000 ** (0.5 - 1 / p))[0]  # noise of norm 0.3 beside rows of norm one
    w = lewis_weights(A, p, rng=0, tol=1e-4)
    rng = np.random.default_rng(14)
    X = np.hstack([np.eye(8), rng.standard_normal((8, 200)), np.linalg.pinv(A)[:, np.argsort(-w)[:50]]])
    norms = (np.abs(A @ X) ** p).sum(axis=0)

    def distortion(probabilities):
        kept = rng.random(len(A)) < probabilities
        sampled = ((np.abs(A[kept] @ X) ** p) / probabilities[kept, None]).sum(axis=0)
        return np.abs(sampled / norms - 1).max()

    errors = [np.median([distortion(np.minimum(1, k * w / 8)) for _ in range(9)]) for k in sizes]
    assert errors[0] < 0.6
    assert errors[1] < 0.2
    assert errors[1] < 0.6 * errors[0]
    uniform = np.median([distortion(np.full(len(A), sizes[0] / len(A))) for _ in range(9)])
    assert uniform > 0.6


@pytest.mark.slow
def test_kdd99():
    A, _ = kdd99()
    results = [lewis_weights(A, p, rng=0, full_output=True) for p in (1, 4)]
    for result, other in itertools.pairwise([*results, results[0]]):
        assert result.residual <= 1e-8
        assert result.weights.sum() == pytest.approx(result.rank, rel=1e-6)
        assert result.rank == other.rank


def repeated_rows():
    A = np.random.default_rng(22).standard_normal((9, 4))
    return np.vstack([np.repeat(A[:3], 20, axis=0), A[3:]])


@pytest.mark.parametrize("p", [1e-3, 0.01, 0.1, 10, 1e3, 1e4])
@pytest.mark.parametrize("kind", ["repeated", "heavy", "generic"])
def test_a_residual_is_never_small_for_wrong_weights(kind, p):
    """Far from p = 2 the steps of the semi-iteration may lead away from the solution: that ends in it, or is said."""
    rng = np.random.default_rng(23)
    A = rng.standard_normal((60, 4))
    A = {"repeated": repeated_rows(), "heavy": np.vstack([1e8 * A[:1], A]), "generic": A}[kind]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", LeverageWarning)
        result = lewis_weights(A, p, rng=0, full_output=True)
    assert (result.residual > 1e-8) == bool(caught)
    assert result.weights.any()
    if not caught:
        assert abs(np.log(result.weights.sum() / 4)) <= 1.01 * 2 / p * 1e-8 + 1e-9


def test_steps_that_lead_away_are_taken_back():
    result = lewis_weights(repeated_rows(), 1e3, rng=0, full_output=True)
    assert result.residual <= 1e-8
    assert max(entry["residual"] for entry in result.history) > result.history[0]["residual"]
    np.testing.assert_allclose(result.weights[0:20], result.weights[0], rtol=1e-9)
    assert result.weights.sum() == pytest.approx(4, rel=1e-9)


def test_numbers_that_do_not_suffice_are_said():
    A = np.ldexp(np.random.default_rng(24).standard_normal((60, 3)), -1040)
    with pytest.warns(LeverageWarning, match="residual of nan"):
        result = lewis_weights(A, 0.1, rng=0, full_output=True)
    assert np.isnan(result.residual)
    assert np.isnan(result.weights).all()
    with pytest.warns(LeverageWarning, match="residual of nan"):
        assert np.isnan(lp_sensitivities(A, 0.1, rng=0)).all()
