"""What lstsq promises about its result, field by field, and about its options."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.linalg as sla
import scipy.sparse as sp
from ls_oracles import (
    EPS,
    accurate_residual,
    backward_error,
    householder_solution,
    refined_solution,
    ridge_solution,
    spectrum,
    wedin,
)
from problems import coherent, haar, least_squares, rank_deficient, sparse_random
from scipy.sparse.linalg import LinearOperator, aslinearoperator, lsqr

import randla

RANDOMIZED = ("spir", "fossils", "lsqr", "momentum", "cholqr")
ACCURATE = ("direct", *RANDOMIZED)
DISTRIBUTIONS = [randla.Gaussian(), randla.SparseSign(), randla.SparseStack(), randla.BlockSRHT()]


def relative(x, exact):
    return np.linalg.norm(x - exact) / np.linalg.norm(exact)


def lapack(A, b, **options):
    return np.linalg.lstsq(A, b, **{"rcond": None, **options})[0]


@pytest.fixture(scope="module")
def problem():
    return least_squares(3000, 40, 1e3, 1.0, rng=21)


@pytest.fixture(scope="module", params=ACCURATE)
def solved(request, problem):
    return problem, randla.lstsq(problem.A, problem.b, method=request.param, rng=11)


# The result


def test_x_is_the_lapack_solution(solved):
    problem, result = solved
    assert result.x.shape == (40,)
    assert result.x.dtype == np.float64
    assert relative(result.x, householder_solution(problem.A, problem.b)) < 1e-10


def test_residual_norm_belongs_to_x(solved):
    problem, result = solved
    hi, _ = accurate_residual(problem.A, problem.b, result.x)
    assert result.residual_norm == pytest.approx(np.linalg.norm(hi), rel=1e-12)


def test_rank_and_condition_number_are_those_of_the_matrix(solved):
    problem, result = solved
    scaled = problem.A / np.linalg.norm(problem.A, axis=0)
    assert result.rank == 40
    # A sketch of 4 n rows or more moves singular values by a factor 3 at most.
    assert np.linalg.cond(scaled) / 3 < result.cond < 3 * np.linalg.cond(scaled)


def test_error_bound_covers_the_true_error_without_being_silly(solved):
    problem, result = solved
    true = relative(result.x, refined_solution(problem.A, problem.b))
    worst = wedin(np.linalg.cond(problem.A), np.linalg.norm(problem.A), problem.x, 1.0)
    assert 0.1 * true <= result.error_bound <= 100 * max(result.backward_error, EPS) * worst


@pytest.mark.parametrize("cond", [1e2, 1e6, 1e10])
@pytest.mark.parametrize("residual", [1e-10, 1e-2])
def test_error_bound_follows_the_condition_of_the_problem(cond, residual):
    problem = least_squares(2000, 30, cond, residual, rng=8)
    result = randla.lstsq(problem.A, problem.b, method="spir", rng=1)
    true = relative(result.x, refined_solution(problem.A, problem.b))
    worst = wedin(cond, np.linalg.norm(problem.A), problem.x, residual)
    assert 0.1 * true <= result.error_bound <= 100 * max(result.backward_error, EPS) * worst


def test_success_is_reported_consistently(solved):
    _, result = solved
    assert result.success is True
    assert isinstance(result.status, randla.Status)
    assert isinstance(result.message, str)
    assert result.message.strip()


def test_method_names_what_ran(solved, request):
    assert solved[1].method == request.node.callspec.params["solved"]


def test_counts_and_history_agree(solved):
    _, result = solved
    assert isinstance(result.iterations, int)
    assert isinstance(result.passes, int)
    # Iteration 0 is the starting point; "direct" has none.
    points = 0 if result.method == "direct" else result.iterations + 1
    assert [entry["iteration"] for entry in result.history] == list(range(points))
    passes = [entry["passes"] for entry in result.history]
    assert passes == sorted(passes)
    assert result.iterations <= max(passes, default=1) <= result.passes <= 2 * result.iterations + 10


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum"])
def test_iterations_reflect_the_contraction_rate_of_the_sketch(method):
    # Contraction per step is sqrt(n / d): 0.5 at d = 4 n, 0.22 at d = 20 n, hence at least a third fewer steps.
    problem = least_squares(6000, 40, 1e6, 1e-3, rng=3)
    small, large = (randla.lstsq(problem.A, problem.b, method=method, sketch_size=size, rng=1) for size in (160, 800))
    assert 0 < large.iterations <= 0.75 * small.iterations
    assert small.iterations <= 120


def test_unpacks_like_scipy_lstsq(problem):
    x, residuals, rank, s = randla.lstsq(problem.A, problem.b, rng=1)
    x0, residuals0, rank0, s0 = sla.lstsq(problem.A, problem.b)
    assert relative(x, x0) < 1e-10
    assert residuals == pytest.approx(residuals0, rel=1e-10)
    assert np.shape(residuals) == np.shape(residuals0)
    assert rank == rank0
    assert np.all(np.diff(s) <= 0)
    assert np.allclose(np.log(s), np.log(s0), atol=np.log(3))


def test_evidence_belongs_to_the_solve_and_not_to_later_contents_of_the_arrays(solved):
    problem, result = solved
    A, b = problem.A.copy(), problem.b.copy()
    later = randla.lstsq(A, b, method=result.method, rng=result.seed)
    A[:] = 0
    b[:] = 1
    names = ("residual_norm", "backward_error", "error_bound", "rank", "cond")
    assert [getattr(later, name) for name in names] == [getattr(result, name) for name in names]


def test_result_survives_pickling(solved):
    _, result = solved
    copy = pickle.loads(pickle.dumps(result))
    assert copy.x.tobytes() == result.x.tobytes()
    assert (copy.backward_error, copy.rank, copy.status) == (result.backward_error, result.rank, result.status)


# Randomness


@pytest.mark.parametrize("method", RANDOMIZED)
def test_seed_replays_the_same_bits(problem, method):
    first = randla.lstsq(problem.A, problem.b, method=method)
    again = randla.lstsq(problem.A, problem.b, method=method, rng=first.seed)
    assert isinstance(first.seed, int)
    assert first.x.tobytes() == again.x.tobytes()
    assert (first.backward_error, first.iterations) == (again.backward_error, again.iterations)


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: 5,
        lambda: np.random.SeedSequence(5),
        lambda: np.random.PCG64(5),
        lambda: np.random.default_rng(5),
    ],
)
def test_every_kind_of_rng_is_accepted(problem, make):
    assert (
        relative(randla.lstsq(problem.A, problem.b, method="spir", rng=make()).x, refined_solution(problem.A, problem.b))
        < 1e-10
    )


def test_equal_generators_give_equal_results_and_advance(problem):
    shared = np.random.default_rng(5)
    first, second = (randla.lstsq(problem.A, problem.b, method="lsqr", rng=shared).seed for _ in range(2))
    assert first == randla.lstsq(problem.A, problem.b, method="lsqr", rng=np.random.default_rng(5)).seed
    assert first != second


def test_unseeded_calls_differ_and_leave_the_global_generator_alone(problem):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    seeds = {randla.lstsq(problem.A, problem.b, method="spir").seed for _ in range(4)}
    assert len(seeds) == 4
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# Watching and stopping


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum"])
def test_callback_sees_intermediate_results_that_improve(problem, method):
    errors = []
    exact = refined_solution(problem.A, problem.b)

    def callback(intermediate_result):
        assert intermediate_result.x.shape == (40,)
        errors.append(relative(intermediate_result.x, exact))

    randla.lstsq(problem.A, problem.b, method=method, rng=1, callback=callback)
    assert len(errors) >= 2
    assert errors[-1] < 1e-3 * errors[0]


def test_stop_iteration_ends_the_run_with_its_best_answer(problem):
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result.x.copy())
        if len(seen) == 3:
            raise StopIteration

    result = randla.lstsq(problem.A, problem.b, method="spir", rng=1, callback=callback)
    assert len(seen) == 3
    assert result.success is False
    assert "callback" in result.message
    assert result.status is randla.Status.STOPPED
    # Between sketch-and-solve (error near sqrt(n / d)) and convergence.
    assert 1e-10 < relative(result.x, refined_solution(problem.A, problem.b)) < 1


def test_other_exceptions_of_a_callback_reach_the_caller(problem):
    class Odd(Exception):
        pass

    def callback(intermediate_result):
        raise Odd

    with pytest.raises(Odd):
        randla.lstsq(problem.A, problem.b, method="spir", rng=1, callback=callback)


def test_verbose_prints_a_table_and_silence_is_the_default(problem, capsys):
    result = randla.lstsq(problem.A, problem.b, method="spir", rng=1)
    assert capsys.readouterr() == ("", "")
    randla.lstsq(problem.A, problem.b, method="spir", rng=1, verbose=1)
    summary = capsys.readouterr().out
    assert "backward_error" in summary
    assert result.message in summary
    randla.lstsq(problem.A, problem.b, method="spir", rng=1, verbose=2)
    assert len(capsys.readouterr().out.splitlines()) >= len(summary.splitlines()) + len(result.history)


# Options


def test_method_direct_is_lapack(problem):
    result = randla.lstsq(problem.A, problem.b, method="direct")
    assert relative(result.x, refined_solution(problem.A, problem.b)) < 1e-12
    assert result.backward_error < 10 * EPS


@pytest.mark.parametrize("shape", [(3, 2), (10, 10), (60, 5)])
def test_auto_takes_lapack_for_tiny_problems(shape):
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal(shape), rng.standard_normal(shape[0])
    result = randla.lstsq(A, b)
    assert result.method == "direct"
    assert relative(result.x, lapack(A, b)) < 1e-12


def test_auto_randomizes_tall_problems_and_stays_backward_stable():
    problem = least_squares(40000, 60, 1e8, 1e-3, rng=2)
    result = randla.lstsq(problem.A, problem.b, rng=1)
    assert result.method in RANDOMIZED
    assert backward_error(problem.A, problem.b, result.x) < 4 * EPS


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
@pytest.mark.parametrize("method", ["spir", "cholqr"])
def test_every_good_distribution_gives_a_backward_stable_answer(problem, distribution, method):
    result = randla.lstsq(problem.A, problem.b, method=method, sketch=distribution, rng=4)
    assert backward_error(problem.A, problem.b, result.x) < 4 * EPS


def test_default_sketch_survives_coherent_rows():
    A, b = coherent(20000, 50, rng=3)
    for seed in range(5):
        result = randla.lstsq(A, b, method="spir", rng=seed)
        assert result.rank == 50
        assert relative(result.x, lapack(A, b)) < 1e-12


def test_tol_trades_iterations_for_accuracy(problem):
    loose, tight = (randla.lstsq(problem.A, problem.b, method="lsqr", tol=tol, rng=1) for tol in (1e-3, 1e-12))
    exact = refined_solution(problem.A, problem.b)
    assert loose.iterations < tight.iterations
    assert loose.success
    assert relative(tight.x, exact) < 1e-6 < relative(loose.x, exact)


@pytest.mark.parametrize("method", ["spir", "fossils", "cholqr"])
@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
def test_success_means_that_the_tolerance_was_met(problem, method, tol):
    result = randla.lstsq(problem.A, problem.b, method=method, tol=tol, rng=1)
    assert result.status is randla.Status.CONVERGED
    assert backward_error(problem.A, problem.b, result.x) <= 1.5 * tol


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum"])
def test_maxiter_too_small_warns_and_is_no_success(problem, method):
    with pytest.warns(randla.LstsqWarning, match="maxiter|iteration"):
        result = randla.lstsq(problem.A, problem.b, method=method, maxiter=2, rng=1)
    assert result.success is False
    assert result.iterations <= 2
    assert result.backward_error > 100 * EPS
    exact = backward_error(problem.A, problem.b, result.x)
    assert 0.7 * exact <= result.backward_error <= 1.5 * exact


@pytest.mark.parametrize("method", ["spir", "fossils", "lsqr", "momentum"])
def test_start_at_the_solution_saves_iterations_and_a_bad_start_does_no_harm(problem, method):
    exact = refined_solution(problem.A, problem.b)
    plain = randla.lstsq(problem.A, problem.b, method=method, rng=1)
    good = randla.lstsq(problem.A, problem.b, method=method, x0=exact, rng=1)
    bad = randla.lstsq(problem.A, problem.b, method=method, x0=1e6 * np.ones(40), rng=1)
    assert good.iterations < plain.iterations
    assert relative(good.x, exact) < 1e-10
    assert relative(bad.x, exact) < 1e-9


# Ridge


@pytest.mark.parametrize("method", ["auto", *ACCURATE])
@pytest.mark.parametrize("ridge", [1e-12, 1e-4, 1.0, 1e6])
def test_ridge_solves_the_augmented_problem(method, ridge):
    # 1e-12 is below the smallest squared singular value (1e-8), 1e6 dominates all of them.
    problem = least_squares(2500, 30, 1e4, 1e-2, rng=9)
    result = randla.lstsq(problem.A, problem.b, ridge=ridge, method=method, rng=1)
    assert relative(result.x, ridge_solution(problem.A, problem.b, ridge)) < 1e-9
    assert result.rank == 30
    assert result.residual_norm == pytest.approx(np.linalg.norm(problem.b - problem.A @ result.x), rel=1e-10)


@pytest.mark.parametrize("method", ["auto", *ACCURATE])
@pytest.mark.parametrize("kind", ["duplicate", "zero", "product"])
def test_ridge_makes_a_rank_deficient_problem_regular(method, kind):
    A, b = rank_deficient(kind, 1500, 30, 24, rng=2)
    assert relative(randla.lstsq(A, b, ridge=0.5, method=method, rng=1).x, ridge_solution(A, b, 0.5)) < 1e-9


def test_ridge_of_a_wide_problem():
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((40, 600)), rng.standard_normal(40)
    assert relative(randla.lstsq(A, b, ridge=2.0, rng=1).x, ridge_solution(A, b, 2.0)) < 1e-10


# Several right-hand sides


@pytest.mark.parametrize("method", ["auto", *ACCURATE])
@pytest.mark.parametrize("k", [1, 5])
def test_each_column_of_b_gets_its_own_solution_and_certificate(method, k):
    problem = least_squares(2000, 30, 1e4, 1e-2, rng=14)
    rng = np.random.default_rng(15)
    # The columns converge at different times: consistent, noisy, zero, huge, tiny.
    B = np.column_stack(
        [
            problem.A @ rng.standard_normal(30),
            problem.b,
            np.zeros(2000),
            1e9 * rng.standard_normal(2000),
            1e-9 * problem.b,
        ]
    )[:, :k]
    result = randla.lstsq(problem.A, B, method=method, rng=1)
    exact = lapack(problem.A, B)
    assert result.x.shape == (30, k)
    assert np.shape(result.residual_norm) == np.shape(result.backward_error) == (k,)
    assert np.all(np.linalg.norm(result.x - exact, axis=0) <= 1e-6 * np.linalg.norm(exact, axis=0))
    assert np.allclose(result.residual_norm, np.linalg.norm(B - problem.A @ result.x, axis=0), rtol=1e-9, atol=1e-14)


def test_columns_of_b_do_not_disturb_each_other(problem):
    spec = spectrum(problem.A)
    B = np.column_stack([problem.b, 1e12 * np.roll(problem.b, 7), problem.A[:, 0]])
    result = randla.lstsq(problem.A, B, method="spir", rng=1)
    for j in range(3):
        assert backward_error(problem.A, B[:, j], result.x[:, j], spec) < 4 * EPS


# Rank deficiency and shape


@pytest.mark.parametrize("method", ["auto", *ACCURATE])
@pytest.mark.parametrize("kind", ["duplicate", "zero", "product"])
def test_rank_deficient_problem_gets_the_minimum_norm_solution_and_a_warning(method, kind):
    A, b = rank_deficient(kind, 2000, 30, 23, rng=1)
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(A, b, method=method, rng=3)
    assert result.rank == 23
    assert relative(result.x, lapack(A, b)) < 1e-10
    assert "23" in result.message


def test_rank_deficient_sparse_matrix_gets_the_minimum_norm_solution():
    A, b = sparse_random(2000, 40, rng=5)
    A = sp.csr_array(sp.hstack([A, A[:, :5], sp.csr_array((2000, 3))]))
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(A, b, method="spir", rng=3)
    assert result.rank == 40
    assert relative(result.x, lapack(A.toarray(), b)) < 1e-10


@pytest.mark.parametrize("method", ["direct", "spir", "cholqr"])
def test_rcond_decides_what_counts_as_zero(method):
    rng = np.random.default_rng(6)
    A = haar(2000, 20, rng) * np.where(np.arange(20) < 15, 1.0, 1e-6) @ haar(20, 20, rng).T
    b = rng.standard_normal(2000)
    assert randla.lstsq(A, b, method=method, rng=1).rank == 20
    with pytest.warns(randla.LstsqWarning, match=r"rank deficient.*Rank 15 of 20"):
        result = randla.lstsq(A, b, method=method, rcond=1e-3, rng=1)
    assert result.rank == 15
    assert result.status is randla.Status.RANK_DEFICIENT
    assert result.success
    # The truncation is done on columns of equal norm; the sketch and A differ by the size of what is cut, 1e-6.
    scale = np.linalg.norm(A, axis=0)
    U, s, Vt = np.linalg.svd(A / scale, full_matrices=False)
    assert relative(result.x, lapack((U[:, :15] * s[:15]) @ Vt[:15] * scale, b, rcond=1e-10)) < 1e-4


@pytest.mark.parametrize("method", ["auto", "direct", "spir"])
def test_square_system_is_solved(method):
    rng = np.random.default_rng(3)
    A, x = haar(120, 120, rng) * np.logspace(0, -4, 120), rng.standard_normal(120)
    assert relative(randla.lstsq(A, A @ x, method=method, rng=1).x, x) < 1e-10


@pytest.mark.parametrize(
    ("form", "method"),
    [(form, method) for form in (np.asarray, np.asfortranarray) for method in ("auto", "direct", "spir")]
    + [(form, method) for form in (sp.csr_array, sp.csc_array, aslinearoperator) for method in ("auto", "spir")],
)
@pytest.mark.parametrize("shape", [(20, 2000), (50, 60)])
def test_wide_problem_gets_the_minimum_norm_solution_without_a_warning(method, shape, form):
    rng = np.random.default_rng(4)
    A = haar(shape[0], shape[0], rng) * np.logspace(0, -3, shape[0]) @ haar(shape[1], shape[0], rng).T
    b = rng.standard_normal(shape[0])
    result = randla.lstsq(form(A), b, method=method, rng=1)
    assert relative(result.x, lapack(A, b)) < 1e-9
    assert result.rank == shape[0]
    assert result.residual_norm <= 1e-10 * np.linalg.norm(b)


def test_wide_rank_deficient_problem_gets_the_minimum_norm_solution():
    A = rank_deficient("product", 60, 40, 12, rng=2)[0].T
    b = np.random.default_rng(3).standard_normal(40)
    with pytest.warns(randla.LstsqWarning, match="rank"):
        result = randla.lstsq(A, b, rng=1)
    assert result.rank == 12
    assert relative(result.x, lapack(A, b)) < 1e-9


# Operators


def test_linear_operator_is_solved_with_no_more_products_than_it_says():
    problem = least_squares(3000, 30, 1e5, 1e-3, rng=2)
    columns = 0

    def count(product):
        def counted(v):
            nonlocal columns
            columns += 1 if v.ndim == 1 else v.shape[1]
            return product(v)

        return counted

    A = problem.A
    operator = LinearOperator(
        A.shape,
        matvec=count(A.__matmul__),
        rmatvec=count(A.T.__matmul__),
        matmat=count(A.__matmul__),
        rmatmat=count(A.T.__matmul__),
        dtype=A.dtype,
    )
    result = randla.lstsq(operator, problem.b, rng=1)
    assert backward_error(A, problem.b, result.x) < 10 * EPS
    # The sketch takes all 30 columns of A, every later pass one product with A and one with its transpose.
    assert 2 * result.iterations < columns <= 30 + 2 * result.passes


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sp.csr_array, sp.csc_array, aslinearoperator])
@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_preconditioner_makes_any_krylov_solver_fast(form, ridge):
    problem = least_squares(3000, 40, 1e8, 1e-6, rng=5)
    P = randla.sketch_preconditioner(form(problem.A), ridge=ridge, rng=1)
    assert isinstance(P, LinearOperator)
    assert P.shape == (40, 40)
    assert P.rank == 40
    augmented = np.vstack([problem.A, np.sqrt(ridge) * np.eye(40)])
    assert np.linalg.cond(augmented @ (P @ np.eye(40))) < 6
    # lsqr without it needs thousands of steps here.
    target = np.concatenate([problem.b, np.zeros(40)])
    z, _, steps, *_ = lsqr(aslinearoperator(augmented) @ P, target, atol=1e-14, btol=1e-14, iter_lim=200)
    assert steps < 100
    assert relative(P @ z, lapack(augmented, target)) < 1e-4


def test_preconditioner_knows_condition_number_and_adjoint():
    problem = least_squares(3000, 40, 1e6, 1e-6, rng=5)
    P = randla.sketch_preconditioner(problem.A, rng=1)
    dense = P @ np.eye(40)
    assert np.allclose(P.rmatmat(np.eye(40)), dense.T, rtol=1e-9, atol=1e-9 * np.abs(dense).max())
    scaled = problem.A / np.linalg.norm(problem.A, axis=0)
    assert np.linalg.cond(scaled) / 3 < P.cond_estimate < 3 * np.linalg.cond(scaled)


def test_preconditioner_of_a_rank_deficient_matrix_reports_its_rank():
    A, _ = rank_deficient("product", 2000, 30, 23, rng=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randla.LstsqWarning)
        P = randla.sketch_preconditioner(A, rng=1)
    assert P.rank == 23
    s = sla.svdvals(A @ (P @ np.eye(30)))
    assert s[0] / s[22] < 6
    assert s[23] < 1e-10 * s[0]


def test_allow_copy_false_keeps_lapack_and_its_copy_away(problem):
    plain = randla.lstsq(problem.A, problem.b, method="spir", rng=1)
    assert randla.lstsq(problem.A, problem.b, method="spir", rng=1, allow_copy=False).x.tobytes() == plain.x.tobytes()
    small = problem.A[:60, :5]
    assert randla.lstsq(small, problem.b[:60]).method == "direct"
    assert randla.lstsq(small, problem.b[:60], allow_copy=False).method != "direct"
    with pytest.raises(ValueError, match="allow_copy"):
        randla.lstsq(small, problem.b[:60], method="direct", allow_copy=False)
