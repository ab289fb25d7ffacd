"""What single methods of lstsq promise: forward stable and sketched ones, wide problems, right-hand sides that stop early."""

import warnings

import numpy as np
import pytest
import scipy.linalg as sla
from ls_oracles import EPS, backward_error, refined_solution
from problems import coherent, haar, least_squares, rank_deficient
from scipy import stats
from scipy.sparse.linalg import LinearOperator
from stats import FALSE_ALARM, normal_gate

import randla
from randla._factor import TriangularFactor

ITERATIVE = ("spir", "fossils", "lsqr", "momentum")
WIDE = ("spir", "fossils", "cholqr")
DENSE = [randla.Gaussian(), randla.Rademacher(), randla.SRTT()]


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


def lapack(A, b):
    return np.linalg.lstsq(A, b, rcond=None)[0]


# Fixed iterations and sketches that are worse than assumed


@pytest.fixture(scope="module")
def bad_sketches():
    """Two or one nonzeros per column on coherent rows: the distortion is often far above sqrt(n / d)."""
    A, b = coherent(2000, 40, rng=3)
    cases = [(randla.SparseSign(nnz=2), 160, s) for s in range(6)] + [(randla.SparseSign(nnz=1), 3200, s) for s in range(4)]
    return A, b, lapack(A, b), cases


@pytest.mark.parametrize("method", ["momentum", "fossils"])
def test_divergence_of_a_fixed_iteration_is_mended_or_reported(method, bad_sketches):
    A, b, exact, cases = bad_sketches
    outcomes = []
    for sketch, size, seed in cases:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = randla.lstsq(A, b, method=method, sketch=sketch, sketch_size=size, rng=seed)
        right = relative(result.x, exact) < 1e-12
        assert result.success == right
        assert (result.status is randla.Status.STAGNATED) == (not right)
        assert len(caught) == (not right)
        outcomes.append(right)
    # Both happen here: most sketches are merely bad, some merge whole directions.
    assert 4 <= sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("method", ["lsqr", "momentum"])
def test_forward_stable_methods_end_with_a_status_that_says_so(method):
    problem = least_squares(3000, 30, 1e8, 1.0, rng=2)
    result = randla.lstsq(problem.A, problem.b, method=method, rng=1)
    assert result.status is randla.Status.SKETCHED_ACCURACY
    assert result.success
    exact = backward_error(problem.A, problem.b, result.x)
    assert exact > EPS
    assert 0.7 * exact <= result.backward_error <= 1.5 * exact


@pytest.mark.parametrize("method", ["lsqr", "momentum"])
def test_a_tolerance_that_forward_stability_cannot_reach_is_no_success(method):
    problem = least_squares(3000, 30, 1e8, 1.0, rng=2)
    with pytest.warns(randla.LstsqWarning, match="stopped before"):
        result = randla.lstsq(problem.A, problem.b, method=method, tol=1e-17, rng=1)
    assert result.status is randla.Status.STAGNATED


# Sketch-and-solve


def test_sketched_solution_has_nearly_the_smallest_residual_after_two_reads():
    problem = least_squares(8000, 40, 1e6, 1.0, rng=4)
    for seed in range(10):
        result = randla.lstsq(problem.A, problem.b, method="sketch", rng=seed)
        # E ||r||^2 is 1 + n / (d - n - 1) times the smallest; d is at least 12 n.
        assert 1 < result.residual_norm < 1.1
        assert result.passes == 2
        assert result.iterations == 0
        assert result.status is randla.Status.SKETCH_AND_SOLVE
        assert result.success
        assert result.linf_bound is None
        exact = backward_error(problem.A, problem.b, result.x)
        assert exact > 1e6 * EPS
        assert 0.7 * exact <= result.backward_error <= 1.5 * exact


def test_size_of_the_sketch_sets_the_accuracy():
    problem = least_squares(8000, 20, 1e3, 1.0, rng=4)

    def excess(size):
        solved = [randla.lstsq(problem.A, problem.b, method="sketch", sketch_size=size, rng=seed) for seed in range(20)]
        return np.mean([result.residual_norm**2 - 1 for result in solved])

    # Exactly n / (d - n - 1) for a Gaussian sketch: 0.34 and 0.026.
    assert 0.2 < excess(80) < 0.6
    assert 0.015 < excess(800) < 0.045


@pytest.mark.parametrize("ridge", [1e-3, 1.0, 100.0])
def test_sketched_ridge_solution_is_near_the_minimum(ridge):
    problem = least_squares(4000, 30, 1e4, 1.0, rng=5)
    objective = lambda x: np.linalg.norm(problem.b - problem.A @ x) ** 2 + ridge * np.linalg.norm(x) ** 2  # noqa: E731
    exact = np.linalg.solve(problem.A.T @ problem.A + ridge * np.eye(30), problem.A.T @ problem.b)
    result = randla.lstsq(problem.A, problem.b, ridge=ridge, method="sketch", rng=1)
    assert objective(exact) < objective(result.x) < 1.15 * objective(exact)


def test_sketched_solution_of_a_rank_deficient_problem_warns():
    A, b = rank_deficient("product", 2000, 30, 23, rng=1)
    for method in ("sketch", "linf"):
        with pytest.warns(randla.LstsqWarning, match="rank"):
            result = randla.lstsq(A, b, method=method, rng=3)
        assert result.rank == 23
    assert result.linf_bound == np.inf


def test_auto_never_takes_a_method_of_low_accuracy():
    for m, n in ((50, 3), (20_000, 20), (3000, 100)):
        for dtype in (np.float64, np.float32):
            problem = least_squares(m, n, 10.0, 1.0, dtype, rng=1)
            assert randla.lstsq(problem.A, problem.b, rng=1).method in ("direct", "spir", "cholqr")


# A bound for every entry


def identity_block(m=1000, n=20):
    """Rows that carry one direction each, and a residual on one other row: the worst case for a sparse sketch."""
    A = np.zeros((m, n))
    A[:n] = np.eye(n)
    x = np.arange(1.0, n + 1) / n
    b = A @ x
    b[n + 7] += 1.0
    return A, b, x


@pytest.mark.parametrize("sketch", DENSE, ids=repr)
def test_dense_sketches_meet_the_entrywise_bound_on_coherent_rows(sketch):
    A, b, x = identity_block()
    ratios = []
    for seed in range(20):
        result = randla.lstsq(A, b, method="linf", sketch=sketch, sketch_size=400, rng=seed)
        error = np.abs(result.x - x).max()
        assert error <= result.linf_bound
        ratios.append(error * 20**0.5)
    # sqrt(n) max |x - x*| / (||r|| ||A^+||), near sqrt(2 log(n) n / d) = 0.55.
    assert 0.3 < np.mean(ratios) < 0.7


def test_count_sketch_misses_the_bound_that_dense_sketches_meet():
    A, b, x = identity_block()
    bound = randla.lstsq(A, b, method="linf", sketch_size=400, rng=0).linf_bound
    assert bound < 0.4
    errors = []
    for seed in range(150):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", randla.LstsqWarning)
            result = randla.lstsq(A, b, method="sketch", sketch=randla.CountSketch(), sketch_size=400, rng=seed)
        if result.rank == 20:
            errors.append(np.abs(result.x - x).max())
    # The row of the residual meets one of the n others with probability n / d = 0.05: then the whole residual goes there.
    assert len(errors) > 50
    assert max(errors) == pytest.approx(1.0)
    assert max(errors) > 2 * bound


def test_errors_of_a_gaussian_sketch_follow_the_law_that_the_bound_is_made_of():
    # One column: (x - x*) / bound times the quantile is standard normal, given the sketch of A.
    rng = np.random.default_rng(5)
    a, e = rng.standard_normal((2, 300))
    e -= a * (a @ e) / (a @ a)
    sample, quantile = [], stats.norm.isf(1e-6 / 2)
    for seed in range(400):
        result = randla.lstsq(a[:, None], 2 * a + e, method="linf", sketch_size=100, rng=seed)
        # The bound knows the norm of the residual at x, not that of the smallest.
        sample.append((result.x[0] - 2) / result.linf_bound * quantile * result.residual_norm / np.linalg.norm(e))
    normal_gate(sample, "errors of the sketched solution")


@pytest.mark.parametrize("cond", [1.0, 1e4])
@pytest.mark.parametrize("scale", [1.0, 1e100])
def test_entrywise_bound_holds_and_is_no_larger_than_that_of_the_theorem(cond, scale):
    n, d = 25, 500
    problem = least_squares(2000, n, cond, 0.1, rng=6)
    units = scale ** np.linspace(-1, 1, n)
    A = problem.A * units
    exact = refined_solution(problem.A, problem.b)
    # (eps / sqrt(n)) ||r|| ||A^+|| with the eps that d rows give at this probability, for columns in common units.
    eps = stats.norm.isf(FALSE_ALARM / (2 * n)) * (n / d) ** 0.5
    pseudoinverse = cond / (1 - (n / d) ** 0.5)
    for seed in range(10):
        result = randla.lstsq(A, problem.b, method="linf", sketch_size=d, rng=seed)
        errors = np.abs(result.x * units - exact)
        assert np.abs(result.x - exact / units).max() <= result.linf_bound
        if scale == 1:
            theorem = eps / n**0.5 * result.residual_norm * pseudoinverse
            assert errors.max() <= result.linf_bound <= 1.01 * theorem


def test_entrywise_bound_covers_rounding_where_there_is_no_residual():
    problem = least_squares(1000, 10, 1e8, 0.0, rng=7)
    x = np.arange(1.0, 11)
    result = randla.lstsq(problem.A, problem.A @ x, method="linf", rng=1)
    assert 0 < np.abs(result.x - refined_solution(problem.A, problem.A @ x)).max() <= result.linf_bound < 1e-3
    single = least_squares(1000, 10, 1e3, 0.0, np.float32, rng=7).A
    b = (single.astype(float) @ x).astype(np.float32)
    result = randla.lstsq(single, b, method="linf", rng=1)
    assert 0 < np.abs(result.x - refined_solution(single, b)).max() <= result.linf_bound < 0.1


def test_each_right_hand_side_has_its_bound():
    problem = least_squares(1000, 10, 10.0, 1.0, rng=7)
    B = np.column_stack([problem.b, 1e3 * problem.b, problem.A[:, 0]])
    bounds = randla.lstsq(problem.A, B, method="linf", rng=1).linf_bound
    assert bounds.shape == (3,)
    assert bounds[1] == pytest.approx(1e3 * bounds[0])
    assert bounds[2] < 1e-12


REFUSED = {
    "linf with a ridge": ({"method": "linf", "ridge": 1.0}, ValueError, ("ridge", "linf", "1")),
    "linf of complex numbers": ({"method": "linf", "b": 1j * np.ones(60)}, TypeError, ("linf", "real", "complex")),
    "linf with a sparse sketch": ({"method": "linf", "sketch": randla.SparseStack()}, ValueError, ("sketch", "SparseStack")),
    "linf of a wide problem": ({"method": "linf", "wide": True}, ValueError, ("method", "linf", "fossils")),
    "sketch of a wide problem": ({"method": "sketch", "wide": True}, ValueError, ("method", "sketch", "fossils")),
    "lsqr of a wide problem": ({"method": "lsqr", "wide": True}, ValueError, ("method", "lsqr", "spir")),
    "momentum of a wide problem": ({"method": "momentum", "wide": True}, ValueError, ("method", "momentum", "spir")),
    "small sketch of a wide problem": (
        {"method": "spir", "wide": True, "sketch_size": 7},
        ValueError,
        ("sketch_size", "8", "7"),
    ),
    "no rows with a ridge": ({"method": "spir", "ridge": 1.0, "sketch_size": 0}, ValueError, ("sketch_size", "1", "0")),
    "cholqr of an operator": ({"method": "cholqr", "operator": True}, TypeError, ("cholqr", "rows", "LinearOperator")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_method_cannot_do_is_refused_by_name(case):
    options, error, words = REFUSED[case]
    options = dict(options)
    A = np.random.default_rng(1).standard_normal((60, 8))
    if options.pop("wide", False):
        A = A.T
    b = options.pop("b", np.ones(len(A)))
    if options.pop("operator", False):
        dense = A
        A = LinearOperator(A.shape, matvec=lambda v: dense @ v, rmatvec=lambda v: dense.T @ v, dtype=float)
    with pytest.raises(error) as raised:
        randla.lstsq(A, b, **options)
    for word in words:
        assert word in str(raised.value)


# Several right-hand sides


class Counted(LinearOperator):
    """A dense matrix that counts the columns it is multiplied by, transposed or not."""

    def __init__(self, A):
        self.dense, self.columns = A, []
        super().__init__(np.float64, A.shape)

    def _matmat(self, X):
        return self.dense @ X

    def _rmatmat(self, Y):
        self.columns.append(Y.shape[1])
        return self.dense.T @ Y

    def _matvec(self, x):
        return self.dense @ x

    def _rmatvec(self, y):
        self.columns.append(1)
        return self.dense.T @ y


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_right_hand_side_that_is_finished_costs_nothing_more(method):
    problem = least_squares(2000, 30, 1e6, 1.0, rng=8)
    rng = np.random.default_rng(9)
    # Nine consistent ones, which the sketch all but solves, and a hard one.
    B = np.column_stack([*(problem.A @ rng.standard_normal((30, 9))).T, problem.b])
    alone, easy, together = (Counted(problem.A) for _ in range(3))
    results = [
        randla.lstsq(A, b, method=method, sketch_size=120, rng=1)
        for A, b in ((alone, B[:, 9:]), (easy, B[:, :9]), (together, B))
    ]
    assert sum(together.columns) <= sum(alone.columns) + sum(easy.columns) + 9 * 3
    assert together.columns.count(1) > 5
    assert relative(results[2].x[:, 9], results[0].x[:, 0]) < 1e-4  # cond^2 eps


@pytest.mark.parametrize("method", ["spir", "fossils"])
def test_finished_right_hand_sides_of_a_wide_problem_cost_nothing_more(method):
    rng = np.random.default_rng(2)
    A = haar(40, 40, rng) * np.logspace(0, -4, 40) @ haar(900, 40, rng).T
    B = np.column_stack([np.zeros((40, 6)), rng.standard_normal(40)])
    counted = Counted(A)
    result = randla.lstsq(counted, B, method=method, rng=1)
    assert relative(result.x[:, 6], lapack(A, B[:, 6])) < 1e-9
    assert not result.x[:, :6].any()
    assert counted.columns.count(1) + len([c for c in counted.columns if c == 7]) > 0
    assert sum(c == 7 for c in counted.columns) < 12


# Fewer rows than columns


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(4)
    A = haar(40, 40, rng) * np.logspace(0, -4, 40) @ haar(900, 40, rng).T
    b = rng.standard_normal(40)
    return A, b, lapack(A, b)


@pytest.mark.parametrize("method", WIDE)
@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray])
def test_wide_problem_is_solved_by_the_method_that_is_named(method, form, wide):
    A, b, exact = wide
    result = randla.lstsq(form(A), b, method=method, rng=1)
    assert result.method == method
    assert result.success
    assert relative(result.x, exact) < 1e-10
    assert result.iterations <= (10 if method == "cholqr" else 150)


@pytest.mark.parametrize("method", WIDE)
@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
def test_tolerance_of_a_wide_problem_is_held(method, tol, wide):
    A, b, _ = wide
    result = randla.lstsq(A, b, method=method, tol=tol, sketch_size=120, rng=1)
    true = np.linalg.norm(b - A @ result.x) / (np.linalg.norm(A) * np.linalg.norm(result.x))
    assert result.status is randla.Status.CONVERGED
    assert true <= 1.5 * tol
    assert 0.6 * true - 1e-16 <= result.backward_error <= 1.5 * true + 1e-16


def test_tolerance_that_a_wide_problem_cannot_reach_is_no_success(wide):
    A, b, exact = wide
    with pytest.warns(randla.LstsqWarning, match="stopped before"):
        result = randla.lstsq(A, b, method="spir", tol=1e-19, rng=1)
    assert relative(result.x, exact) < 1e-10


def test_history_of_a_wide_problem_belongs_to_the_iterates_shown(wide):
    A, b, exact = wide
    seen = []

    def callback(intermediate_result):
        r = intermediate_result
        true = np.linalg.norm(b - A @ r.x)
        assert r.residual_norm == pytest.approx(true, rel=1e-6, abs=1e-8)
        seen.append(relative(r.x, exact))

    result = randla.lstsq(A, b, method="spir", rng=1, sketch_size=120, callback=callback)
    assert [entry["iteration"] for entry in result.history] == list(range(result.iterations + 1))
    assert seen[0] < 2
    assert seen[-1] < 1e-10 * seen[0]


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stopped_wide_problem_returns_what_the_callback_was_shown(stop_at, wide):
    A, b, exact = wide
    shown = []

    def callback(intermediate_result):
        shown.append(intermediate_result.x)
        if len(shown) == stop_at:
            raise StopIteration

    result = randla.lstsq(A, b, method="spir", rng=1, sketch_size=120, callback=callback)
    assert result.status is randla.Status.STOPPED
    assert np.array_equal(result.x, shown[-1])
    assert 1e-8 < relative(result.x, exact) < 2
    assert result.residual_norm == pytest.approx(np.linalg.norm(b - A @ result.x))


def test_auto_names_a_method_that_exists_for_wide_problems():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((40, 30_000))
    result = randla.lstsq(A, np.ones(40), rng=1)
    assert result.method in ("spir", "direct")
    assert result.backward_error < 1e-15
    assert relative(result.x, A.T @ np.linalg.solve(A @ A.T, np.ones(40))) < 1e-10


# The rank decision


@pytest.mark.parametrize("n", [5, 60, 300])
@pytest.mark.parametrize("margin", [0.5, 0.9, 0.98, 1.03, 1.5, 10.0])
def test_rank_is_certain_only_if_the_smallest_singular_value_is_above_the_cut(n, margin):
    rcond = 1e-5
    rng = np.random.default_rng(n)
    A = haar(n, n, rng) * np.logspace(0, np.log10(rcond * margin), n) @ haar(n, n, rng).T
    R = np.asfortranarray(sla.qr(A, mode="r")[0])
    certain = TriangularFactor(R, np.ones(n), np.zeros((0, n))).certainly_above(rcond)
    assert certain <= (margin > 1)
    assert certain >= (margin >= 1.5)


def test_float32_problem_close_to_the_cut_needs_no_singular_values(monkeypatch):
    # Singular values below 4 eps of float32, 4.8e-7, count as zero; a rough estimate would leave 1 / 1.8e6 open.
    problem = least_squares(6000, 200, 1.8e6, 1e-3, np.float32, rng=1)
    monkeypatch.setattr("scipy.linalg.svd", None)
    result = randla.lstsq(problem.A, problem.b, method="spir", rng=1)
    assert result.rank == 200
    assert 1 / 1.2 < result.cond * 4 * np.finfo(np.float32).eps < 1
