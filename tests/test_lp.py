"""lp regression: linear programs by HiGHS, minimization in extended precision, and the certificate checked from outside."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from problems import LAYOUTS, coherent, least_squares, protein, rank_deficient
from scipy.optimize import linprog
from scipy.sparse.linalg import aslinearoperator

import randla
from randla.lp._irls import cholesky
from randla.lp.regression import LpResult, LpStatus, LpWarning, lp_regression

POWERS = (1, 1.01, 1.1, 1.5, 1.9, 2, 2.1, 3, 4, 6, 10, 20)


def norm(r, p):
    """In extended precision."""
    r = np.abs(np.asarray(r, np.longdouble))
    top = r.max(initial=0)
    return float(top * ((r / top) ** p).sum() ** (1 / np.longdouble(p))) if top else 0.0


def dual_norm(y, p):
    return float(np.abs(y).max(initial=0)) if p == 1 else norm(y, p / (p - 1))


def require_certificate(result, A, b, p):
    """What the result claims, recomputed from x and the dual vector."""
    A = A.toarray() if sp.issparse(A) else np.asarray(A)
    assert result.residual_norm == pytest.approx(norm(b - A @ result.x, p), rel=1e-9, abs=1e-13 * norm(b, p))
    y = result.dual
    assert dual_norm(y, p) == pytest.approx(1, rel=1e-9)
    size = np.linalg.norm(A, 2)
    assert np.linalg.norm(A.T @ y) <= 1e-6 * size * np.linalg.norm(y)
    assert b @ y >= result.residual_norm * (1 - result.gap) - 1e-8 * result.residual_norm - 1e-13 * norm(b, p)
    assert result.gap >= 0


def smallest_l1(A, b):
    m, n = A.shape
    cost = np.r_[np.zeros(n), np.ones(2 * m)]
    rows = sp.hstack([sp.csr_array(A), sp.eye_array(m), -sp.eye_array(m)])
    return linprog(cost, A_eq=rows, b_eq=b, bounds=[(None, None)] * n + [(0, None)] * (2 * m), method="highs").fun


def smallest_linf(A, b):
    m, n = A.shape
    one = np.ones((m, 1))
    bound = np.vstack([np.hstack([A, -one]), np.hstack([-A, -one])])
    return linprog(np.r_[np.zeros(n), 1], A_ub=bound, b_ub=np.r_[b, -b], bounds=[(None, None)] * n + [(0, None)]).fun


def smallest(A, b, p, iterations=400):
    """Damped Newton in extended precision on sum |r|^p, with a bisecting line search; for p > 1 and few columns."""
    A, b = np.asarray(A, np.longdouble), np.asarray(b, np.longdouble)
    Q = np.linalg.qr(np.asarray(A, float))[0].astype(np.longdouble)
    x = Q.T @ b
    for _ in range(iterations):
        r = b - Q @ x
        unit = np.abs(r).max()
        weights = np.maximum(np.abs(r) / unit, 1e-12) ** (p - 2)
        gradient = Q.T @ (np.sign(r) * (np.abs(r) / unit) ** (p - 1)) * unit
        H = np.asarray((Q * weights[:, None]).T @ Q, float)
        step = Q @ np.linalg.solve(H, np.asarray(gradient, float))
        low, high = np.longdouble(0), np.longdouble(2 * max(1, 1 / (p - 1)))
        for _ in range(80):
            t = (low + high) / 2
            s = (r - t * step) / unit
            low, high = (t, high) if (np.sign(s) * np.abs(s) ** (p - 1)) @ step > 0 else (low, t)
        moved = Q.T @ step * low
        x = x + moved
        if np.linalg.norm(moved) < 1e-15 * np.linalg.norm(x):
            break
    return norm(b - Q @ x, p)


def problem(kind, m=600, n=6, rng=0):
    rng = np.random.default_rng(rng)
    A, x = rng.standard_normal((m, n)), rng.standard_normal(n)
    e = rng.standard_normal(m)
    if kind == "coherent":
        A, _ = coherent(m, n, rng=1, noise=1e-2)
    elif kind == "heavy":
        e = rng.standard_t(1, m)
    elif kind == "outliers":
        e[: m // 20] *= 1e10
    elif kind == "gross errors":  # the rest is exact
        e[m // 20 :] = 0
    elif kind == "integers":
        return rng.integers(-3, 4, (m, n)).astype(float), rng.integers(-5, 6, m).astype(float)
    elif kind == "repeated":
        A, e = np.repeat(A[: m // 10], 10, axis=0), np.repeat(e[: m // 10], 10)
    elif kind == "rows of all sizes":
        size = 10 ** rng.uniform(-5, 5, m)
        A, e = A * size[:, None], e * size
    elif kind == "ill-conditioned":
        A = least_squares(m, n, 1e6, 0.0, rng=1).A
    return A, A @ x + e


KINDS = (
    "normal",
    "coherent",
    "heavy",
    "outliers",
    "gross errors",
    "integers",
    "repeated",
    "rows of all sizes",
    "ill-conditioned",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", POWERS)
def test_gap_closes(kind, p):
    A, b = problem(kind)
    result = lp_regression(A, b, p, rng=0)
    assert result.status is LpStatus.CONVERGED
    assert result.success
    assert result.gap <= (1e-10 if kind != "ill-conditioned" else 1e-8)
    assert result.iterations <= (90 if kind == "rows of all sizes" else 40)
    require_certificate(result, A, b, p)


@pytest.mark.parametrize("kind", KINDS)
def test_p_one_is_the_linear_program(kind):
    A, b = problem(kind)
    result = lp_regression(A, b, 1, rng=0)
    unit = np.abs(b).max() if kind == "outliers" else 1.0  # HiGHS wants data of moderate size
    assert result.residual_norm == pytest.approx(unit * smallest_l1(A, b / unit), rel=1e-8)


def test_p_one_is_a_vertex():
    A, b = problem("heavy", m=301, n=7)
    result = lp_regression(A, b, 1, rng=0)
    assert np.count_nonzero(np.abs(b - A @ result.x) < 1e-11) == 7
    assert result.gap < 1e-13


def test_gross_errors_are_found_exactly():
    A, b = problem("gross errors")
    x = np.linalg.lstsq(A[30:], b[30:], rcond=None)[0]
    assert lp_regression(A, b, 1, rng=0).x == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("p", [1.2, 1.5, 3, 4, 7])
@pytest.mark.parametrize("kind", ["normal", "coherent", "heavy"])
def test_norm_is_that_of_another_solver(kind, p):
    A, b = problem(kind, m=120, n=4)
    assert lp_regression(A, b, p, rng=0).residual_norm == pytest.approx(smallest(A, b, p), rel=2e-10)


def test_two_is_least_squares():
    A, b = problem("ill-conditioned")
    result = lp_regression(A, b, 2, rng=0)
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    assert np.linalg.norm(A @ (result.x - x)) < 1e-10 * np.linalg.norm(b)
    assert np.linalg.norm(result.x - x) < 1e-8 * np.linalg.norm(x)


@pytest.mark.parametrize("p", [50, 200, 1000])
@pytest.mark.parametrize("kind", ["normal", "coherent", "heavy", "outliers"])
def test_large_p_approaches_the_largest_residual(kind, p):
    A, b = problem(kind)
    result = lp_regression(A, b, p, rng=0)
    assert result.gap <= 1e-10
    require_certificate(result, A, b, p)
    unit = np.abs(b).max()
    least = unit * smallest_linf(A, b / unit)
    largest = np.abs(b - A @ result.x).max()
    assert least * (1 - 1e-7) <= largest <= least * 600 ** (1 / p) * (1 + 1e-7)


@pytest.mark.parametrize("p", [1, 1.5, 4])
def test_units_do_not_matter(p):
    A, b = problem("normal")
    x = lp_regression(A, b, p, rng=0).x
    for size, scale in ((1e200, 1e250), (1e-200, 1e-250)):
        result = lp_regression(A * size, b * scale, p, rng=0)
        assert result.status is LpStatus.CONVERGED
        assert result.x * (size / scale) == pytest.approx(x, rel=1e-8)
    columns = 10.0 ** np.linspace(-150, 150, 6)
    assert lp_regression(A * columns, b, p, rng=0).x * columns == pytest.approx(x, rel=1e-8)


@pytest.mark.parametrize("layout", [*LAYOUTS, "strided", "read-only", "blocks"])
@pytest.mark.parametrize("p", [1, 1.5, 4])
def test_layouts(layout, p):
    A, b = problem("normal", m=3000)
    A[A < -1] = 0
    x = lp_regression(A, b, p, rng=0).x
    if layout in LAYOUTS:
        given = LAYOUTS[layout](A)
    elif layout == "strided":
        given, b = np.repeat(A, 2, axis=1)[:, ::2], np.repeat(b, 2)[::2]
    elif layout == "read-only":
        given = A.copy()
        given.flags.writeable = b.flags.writeable = False
    else:
        given = randla.RowBlocks([A[:10], sp.csr_array(A[10:700]), A[700:]])
    result = lp_regression(given, b, p, rng=0)
    assert result.status is LpStatus.CONVERGED
    assert result.x == pytest.approx(x, rel=1e-6)
    sampled = lp_regression(given, b, p, sample_size=300, rng=0)
    assert sampled.x == pytest.approx(lp_regression(A, b, p, sample_size=300, rng=0).x, rel=1e-6)


def test_dtypes():
    A, b = problem("integers")
    for p in (1, 1.5, 3):
        exact = lp_regression(A, b, p, rng=0)
        assert lp_regression(A.astype(int), b.astype(int), p, rng=0).x == pytest.approx(exact.x, rel=1e-9)
        single = lp_regression(A.astype(np.float32), b.astype(np.float32), p, rng=0)
        assert single.x.dtype == np.float32
        assert single.gap <= 1e-6
        assert single.residual_norm == pytest.approx(exact.residual_norm, rel=1e-6)
        assert lp_regression(A.astype(np.float32), b, p, rng=0).x.dtype == np.float64


def test_passes_are_counted():
    A, b = problem("normal")
    for p in (1, 4):
        for size in (None, 100):
            blocks = randla.RowBlocks(lambda: iter([A[:200], A[200:]]), shape=A.shape, dtype=float)
            assert lp_regression(blocks, b, p, sample_size=size, rng=0).passes == blocks.reads


@pytest.mark.parametrize("p", [1, 1.5, 2, 5])
def test_b_in_the_range(p):
    rng = np.random.default_rng(2)
    for A in (*(rng.standard_normal(shape) for shape in ((200, 5), (5, 5), (1, 1))), least_squares(200, 5, 1e8, 0).A):
        x = rng.standard_normal(A.shape[1])
        result = lp_regression(A, A @ x, p, rng=0)
        assert result.status is LpStatus.EXACT
        assert result.residual_norm <= 1e-13 * norm(A @ x, p)
        assert result.success


@pytest.mark.parametrize("p", [1, 1.5, 2, 5])
def test_wide_matrix_gives_the_shortest_exact_solution(p):
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((5, 9)), rng.standard_normal(5)
    result = lp_regression(A, b, p, rng=0)
    assert result.status is LpStatus.EXACT
    assert result.x == pytest.approx(np.linalg.pinv(A) @ b, rel=1e-11)


@pytest.mark.parametrize("kind", ["product", "duplicate", "zero"])
@pytest.mark.parametrize("p", [1, 1.5, 2, 5])
def test_rank_deficient(kind, p):
    A, b = rank_deficient(kind, 200, 7, 4, rng=5)
    with pytest.warns(LpWarning, match="Rank 4 of 7"):
        result = lp_regression(A, b, p, rng=0)
    assert result.status is LpStatus.RANK_DEFICIENT
    assert result.rank == 4
    assert result.gap <= 1e-10
    U, _, Vh = np.linalg.svd(A)
    assert result.residual_norm == pytest.approx(lp_regression(U[:, :4], b, p, rng=0).residual_norm, rel=1e-9)
    assert np.linalg.norm(Vh[4:] @ result.x) < 1e-12 * np.linalg.norm(result.x)


def test_zero_rows_and_columns():
    A, b = problem("normal")
    A[::2] = 0
    for p in (1, 1.5, 4):
        half = lp_regression(A[1::2], b[1::2], p, rng=0)
        result = lp_regression(A, b, p, rng=0)
        assert result.residual_norm**p == pytest.approx(half.residual_norm**p + norm(b[::2], p) ** p, rel=1e-9)
    A[:, 3] = 0
    with pytest.warns(LpWarning):
        assert abs(lp_regression(A, b, 1, rng=0).x[3]) < 1e-14


@pytest.mark.parametrize("p", [1, 1.5, 2, 5])
def test_nothing_to_solve(p):
    b = np.random.default_rng(6).standard_normal(30)
    empty = lp_regression(np.zeros((30, 0)), b, p, rng=0)
    assert empty.x.shape == (0,)
    assert empty.gap == 0
    assert b @ empty.dual == pytest.approx(norm(b, p)) == pytest.approx(empty.residual_norm)
    with pytest.warns(LpWarning, match="Rank 0 of 2"):
        zero = lp_regression(np.zeros((30, 2)), b, p, rng=0)
    assert not zero.x.any()
    assert zero.residual_norm == pytest.approx(norm(b, p))
    none = lp_regression(np.zeros((0, 2)), np.zeros(0), p, rng=0)
    assert none.x.shape == (2,)
    assert none.residual_norm == 0
    homogeneous = lp_regression(np.ones((30, 1)), 0 * b, p, rng=0)
    assert homogeneous.status is LpStatus.EXACT
    assert not homogeneous.x.any()


@pytest.mark.parametrize("p", [1, 1.2, 30])
def test_iteration_limit(p):
    A, b = problem("heavy")
    with pytest.warns(LpWarning, match="iteration limit"):
        result = lp_regression(A, b, p, maxiter=2, rng=0)
    assert result.status is LpStatus.ITERATION_LIMIT
    assert not result.success
    assert result.iterations == 2
    best = lp_regression(A, b, p, rng=0)
    assert (1 - result.gap) * result.residual_norm <= best.residual_norm * (1 + 1e-12)


def rows_over_forty_decades(seed):
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-20, 20, 300)
    return rng.standard_normal((300, 5)) * size[:, None], rng.standard_normal(300) * size


@pytest.mark.parametrize("p", [1, 1.01, 1.5, 4, 50])
def test_rows_over_forty_decades(p):
    for seed in range(4):
        A, b = rows_over_forty_decades(seed)
        result = lp_regression(A, b, p, rng=0)
        assert result.status is LpStatus.CONVERGED
        require_certificate(result, A, b, p)


def test_gap_that_rounding_forbids():
    """Within 4 eps cond(A) the end is good whatever was asked for."""
    A, b = problem("heavy")
    result = lp_regression(A, b, 1.5, tol=1e-20, rng=0)
    assert result.status is LpStatus.CONVERGED
    assert result.gap < 1e-14


@pytest.mark.parametrize("p", [1.5, 200])
def test_stagnation_is_said(p, monkeypatch):
    monkeypatch.setattr("randla.lp._irls._PATIENCE", 0)
    A, b = problem("heavy")
    with pytest.warns(LpWarning, match="Progress stopped"):
        result = lp_regression(A, b, p, rng=0)
    assert result.status is LpStatus.STAGNATED
    assert not result.success
    assert result.gap > 1e-10


def test_history_ends_with_the_result():
    A, b = problem("heavy")
    for p, extra in ((1.5, "mu"), (9, "exponent")):
        result = lp_regression(A, b, p, rng=0)
        assert isinstance(result, LpResult)
        last = result.history[-1]
        assert set(last) == {"iteration", "time", "residual_norm", "gap", extra}
        assert last["gap"] == result.gap
        assert last["residual_norm"] == pytest.approx(result.residual_norm)
        gaps = [entry["gap"] for entry in result.history]
        assert gaps == sorted(gaps, reverse=True)


def test_seed_replays():
    A, b = problem("normal")
    result = lp_regression(A, b, 1.5, sample_size=100)
    again = lp_regression(A, b, 1.5, sample_size=100, rng=result.seed)
    assert np.array_equal(again.x, result.x)
    assert again.sample_size == result.sample_size


@pytest.mark.parametrize("p", [1, 1.5, 3, 4])
def test_sampled_solution_is_nearly_as_good(p):
    """Rows that carry a direction each: 400 of 20,000 rows by Lewis weights give the norm within a few percent, uniform ones
    miss the directions. Medians over 7 fixed seeds, at three times what was measured."""
    rng = np.random.default_rng(7)
    A, _ = coherent(20_000, 6, rng=8, noise=0.1 * 20_000 ** (0.5 - 1 / p))
    b = A @ rng.standard_normal(6) + 0.1 * 20_000 ** (-1 / p) * rng.standard_normal(20_000)
    heavy = np.argsort(-np.abs(A).max(axis=1))[:6]
    b[heavy] += 0.5
    best = lp_regression(A, b, p, rng=0).residual_norm
    results = [lp_regression(A, b, p, sample_size=400, rng=seed) for seed in range(7)]
    for result in results:
        assert result.status is LpStatus.SAMPLED
        assert 250 < result.sample_size < 550
        assert result.residual_norm >= best * (1 - 1e-9)
        assert best >= result.residual_norm * (1 - result.gap) * (1 - 1e-9)
        assert result.residual_norm == pytest.approx(norm(b - A @ result.x, p), rel=1e-9)
    assert np.median([result.residual_norm for result in results]) < 1.06 * best
    uniform = []
    for seed in range(7):
        index = np.random.default_rng(seed).choice(20_000, 400, replace=False)
        uniform.append(norm(b - A @ lp_regression(A[index], b[index], p, rng=0).x, p))
    assert np.median(uniform) > 1.3 * best


def test_sample_of_all_rows_is_the_whole_problem():
    A, b = problem("normal")
    whole, sampled = (lp_regression(A, b, 1.5, sample_size=size, rng=0) for size in (None, 600))
    assert np.array_equal(whole.x, sampled.x)
    assert sampled.sample_size is None


def test_sample_too_small_is_said():
    A, b = problem("normal")
    with pytest.warns(LpWarning, match="rank deficient"):
        result = lp_regression(A, b, 1, sample_size=2, rng=0)
    assert result.rank < 6
    sizes = set()
    for seed in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LpWarning)
            sizes.add(lp_regression(A, b, 1, sample_size=1, rng=seed).sample_size)
    assert 0 in sizes


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "A must have rows", (aslinearoperator(np.eye(3)), np.ones(3), 1, {})),
        (TypeError, "A must be real", (1j * np.eye(3), np.ones(3), 1, {})),
        (TypeError, "b must be real", (np.eye(3), 1j * np.ones(3), 1, {})),
        (ValueError, r"b must have shape \(3,\)", (np.eye(3), np.ones((3, 2)), 1, {})),
        (ValueError, r"b must have shape \(3,\)", (np.eye(3), np.ones(2), 1, {})),
        (ValueError, "b must be finite", (np.eye(3), np.array([1, np.nan, 0]), 1, {})),
        (ValueError, "A must be finite", (np.diag([1, np.inf, 1]), np.ones(3), 1, {})),
        (ValueError, "p must be finite and at least 1", (np.eye(3), np.ones(3), 0.5, {})),
        (ValueError, "p must be finite", (np.eye(3), np.ones(3), np.inf, {})),
        (TypeError, "p must be a real number", (np.eye(3), np.ones(3), "2", {})),
        (ValueError, "tol must be", (np.eye(3), np.ones(3), 1, {"tol": 0})),
        (ValueError, "maxiter must be at least 1", (np.eye(3), np.ones(3), 1, {"maxiter": 0})),
        (ValueError, "sample_size must be at least 1", (np.eye(3), np.ones(3), 1, {"sample_size": 0})),
        (TypeError, "rng must be", (np.eye(3), np.ones(3), 1, {"rng": "a"})),
    ],
)
def test_errors(error, message, arguments):
    A, b, p, options = arguments
    with pytest.raises(error, match=message):
        lp_regression(A, b, p, **options)


@pytest.mark.slow
@pytest.mark.parametrize("p", [1, 1.5, 4])
def test_protein(p):
    A, b = protein()
    A = np.column_stack([A, np.ones(len(A))])
    result = lp_regression(A, b, p, rng=0)
    assert result.gap <= 1e-8
    require_certificate(result, A, b, p)
    sampled = lp_regression(A, b, p, sample_size=2000, rng=0)
    assert sampled.residual_norm <= 1.05 * result.residual_norm


def test_factor_of_a_gram_matrix_that_is_not_definite():
    rows = np.random.default_rng(9).standard_normal((3, 5))
    R = cholesky(rows.T @ rows)
    assert np.triu(R).T @ np.triu(R) == pytest.approx(rows.T @ rows, abs=1e-12)
    assert np.isnan(cholesky(np.full((2, 2), np.nan))).all()


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize(("a", "b"), [(1e-312, 1.0), (1e-200, 1e200)])
def test_solution_that_is_no_number_is_said(a, b, p):
    rng = np.random.default_rng(15)
    A, rhs = a * rng.standard_normal((60, 3)), b * rng.standard_normal(60)
    with pytest.warns(LpWarning, match="beyond the largest number"):
        result = lp_regression(A, rhs, p, rng=0)
    assert result.status is LpStatus.STAGNATED
    assert not result.success
