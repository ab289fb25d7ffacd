"""Fixed-support factorization: Eckart-Young, elimination, plain alternating least squares and BFGS as oracles."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import minimize
from test_supports import completion_to_fsmf, patterns, random_supports

from randla.structured._als import Rows
from randla.structured.fsmf import FSMFStatus, FSMFWarning, fsmf
from randla.structured.supports import supports_closed, supports_tractable

ANTIDIAGONAL = np.array([[0.0, 1], [1, 0]])
LOWER = np.tril(np.ones((2, 2)))


def matrix(shape, rng, dtype=np.float64):
    a = rng.standard_normal(shape)
    return (a + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else a).astype(dtype)


def require_factors(result, A, I, J, rel=1e-12):
    A = A.toarray() if sp.issparse(A) else np.asarray(A)
    assert not result.X[~np.asarray(I, bool)].any()
    assert not result.Y[~np.asarray(J, bool)].any()
    error = np.linalg.norm(A - result.X @ result.Y.T)
    assert result.error == pytest.approx(error, rel=1e-6, abs=rel * float(np.linalg.norm(A)))


def plain_als(A, I, J, rng, sweeps):
    """Row by row with lstsq."""
    X, Y = rng.standard_normal(I.shape) * I, rng.standard_normal(J.shape) * J
    last = np.inf
    for _ in range(sweeps):
        for moving, fixed, mask, target in ((X, Y, I, A), (Y, X, J, A.T)):
            for row, support, values in zip(moving, mask, target, strict=True):
                row[support] = np.linalg.lstsq(fixed[:, support], values, rcond=None)[0]
        error = np.linalg.norm(A - X @ Y.T)
        if last - error < 1e-9 * error:
            break
        last = error
    return np.linalg.norm(A - X @ Y.T)


def never_beaten(count, seed, starts, sweeps):
    rng = np.random.default_rng(seed)
    tractable = reached = 0
    kinds = set()
    for _ in range(count):
        I, J = random_supports(rng)
        A = matrix((len(I), len(J)), rng)
        kind = supports_tractable(I, J)
        if not kind:
            continue
        result = fsmf(A, I, J)
        assert (result.exact, result.closed, result.status) == (True, True, FSMFStatus.EXACT)
        require_factors(result, A, I, J)
        size = np.linalg.norm(A)
        rival = min(plain_als(A, I, J, rng, sweeps) for _ in range(starts))
        assert result.error <= rival + 1e-12 * size
        tractable += 1
        reached += rival <= result.error + 1e-5 * size
        kinds.add(kind)
    assert kinds == {"disjoint-or-identical", "completion"}
    assert tractable > count / 2
    return reached / tractable


def test_closed_form_is_never_beaten():
    assert never_beaten(200, 0, 2, 40) > 0.93


@pytest.mark.slow
def test_closed_form_is_never_beaten_by_many():
    assert never_beaten(1500, 1, 3, 60) > 0.95


def test_descent_is_never_better_than_the_closed_form():
    """On 400 supports, by the package's own multi-start; and it always arrives."""
    rng = np.random.default_rng(2)
    for seed in range(400):
        I, J = random_supports(rng)
        if not supports_tractable(I, J):
            continue
        A = matrix((len(I), len(J)), rng)
        exact, als = fsmf(A, I, J), fsmf(A, I, J, method="als", starts=3, rng=seed)
        assert als.error == pytest.approx(exact.error, abs=1e-7 * np.linalg.norm(A))
        assert (als.exact, als.closed, als.status) == (False, True, FSMFStatus.HEURISTIC)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_unconstrained_is_eckart_young(dtype):
    A = matrix((30, 20), np.random.default_rng(3), dtype)
    tail = np.linalg.norm(np.linalg.svd(A.astype(np.complex128))[1][4:])
    for method in ("auto", "als", "palm"):
        result = fsmf(A, np.ones((30, 4)), np.ones((20, 4)), method=method, rng=0)
        assert result.X.dtype == result.Y.dtype == dtype
        assert result.error == pytest.approx(tail, rel=1e-6)
        require_factors(result, A, np.ones((30, 4)), np.ones((20, 4)), rel=1e-6)


@pytest.mark.parametrize("name", ["dyadic", "monarch", "full"])
@pytest.mark.parametrize("kind", ["d", "D"])
def test_planted_products_are_found(name, kind):
    rng = np.random.default_rng(4)
    I, J = patterns(32)[name]
    A = (matrix(I.shape, rng, kind) * I) @ (matrix(J.shape, rng, kind) * J).T
    result = fsmf(A, I, J)
    assert result.exact
    assert result.error < 1e-14 * np.linalg.norm(A)
    require_factors(result, A, I, J)
    noisy = A + 0.1 * matrix(A.shape, rng, kind)
    assert fsmf(noisy, I, J).error < np.linalg.norm(noisy - A)


def test_lu_is_elimination():
    rng = np.random.default_rng(5)
    lower = np.tril(np.ones((12, 12)))
    for A in (matrix((12, 12), rng), matrix((12, 12), rng, complex)):
        result = fsmf(A, lower, lower, rng=0)
        assert result.error < 1e-10 * np.linalg.norm(A)
        assert (result.exact, result.closed, result.status) == (False, False, FSMFStatus.HEURISTIC)
        pivots = np.diag(result.X) * np.diag(result.Y)
        minors = [np.linalg.det(A[:k, :k]) for k in range(13)]
        assert pivots == pytest.approx(np.array(minors[1:]) / minors[:-1], rel=1e-7)


@pytest.mark.parametrize("method", ["als", "palm"])
def test_infimum_that_is_not_attained(method):
    """The antidiagonal has no LU factorization, but X = [[e, 0], [1, 1]], Y' = [[1, 1/e], [0, -1/e]] miss it by e."""
    errors = []
    for maxiter in (100, 1000):
        with pytest.warns(FSMFWarning, match="infimum may not be attained"):
            result = fsmf(ANTIDIAGONAL, LOWER, LOWER, method=method, maxiter=maxiter, rng=0)
        assert result.status is FSMFStatus.DIVERGED
        assert not result.success
        assert result.closed is False
        assert result.witness.rows == result.witness.columns == (0, 1)
        assert result.iterations == maxiter
        errors.append((result.error, result.history[-1]["terms"]))
    (first, small), (second, large) = errors
    assert 0 < second < 0.7 * first
    assert large > 1.4 * small
    # Cauchy-Schwarz at the entry (1, 0): x00 y10 = 1 and x10 y00 = 1 while x00 y00 = e.
    assert large * second > 0.5


def test_ridge_makes_the_infimum_attained():
    norms = []
    for ridge in (1e-2, 1e-4):
        result = fsmf(ANTIDIAGONAL, LOWER, LOWER, ridge=ridge, rng=0)
        assert result.status is FSMFStatus.HEURISTIC
        norms.append(np.linalg.norm(result.X))
    assert norms[0] < norms[1] < 20


@pytest.mark.parametrize("kind", ["d", "D"])
@pytest.mark.parametrize("method", ["exact", "als", "palm"])
def test_ridge_is_soft_thresholding(method, kind):
    rng = np.random.default_rng(6)
    I, J = patterns(16)["monarch"]
    A, ridge = matrix((16, 16), rng, kind), 0.8
    result = fsmf(A, I, J, method=method, ridge=ridge, rng=0, starts=2)
    objective = result.error**2 + ridge * (np.linalg.norm(result.X) ** 2 + np.linalg.norm(result.Y) ** 2)
    # The nuclear norm of each 4 x 4 block is the penalty of its one component.
    best = 0.0
    for k in range(16):
        rows, columns = np.flatnonzero(I[:, k]), np.flatnonzero(J[:, k])
        s = np.linalg.svd(A[np.ix_(rows, columns)])[1]
        shrunk = max(s[0] - ridge, 0)
        best += (s[0] - shrunk) ** 2 + 2 * ridge * shrunk + (s[1:] ** 2).sum()
    assert objective == pytest.approx(best, rel=1e-8)


def test_ridge_on_overlapping_supports_has_no_closed_form():
    I, J = completion_to_fsmf(np.eye(3) > 0)
    assert supports_tractable(I, J) == "completion"
    A = np.arange(9.0).reshape(3, 3)
    assert fsmf(A, I, J).exact
    result = fsmf(A, I, J, ridge=0.1, rng=0)
    assert (result.exact, result.method, result.closed) == (False, "als", True)
    with pytest.raises(ValueError, match="overlap, and ridge is positive"):
        fsmf(A, I, J, method="exact", ridge=0.1)


def test_rank_one_completion():
    """Off the known entries nothing counts: with bicliques known, the blocks' own tails are all that is left."""
    rng = np.random.default_rng(7)
    mask = np.zeros((5, 6), bool)
    mask[:2, :3] = mask[2:4, 3:5] = True
    A = matrix((5, 6), rng)
    result = fsmf(A, *completion_to_fsmf(mask))
    tails = [np.linalg.svd(block)[1][1:] for block in (A[:2, :3], A[2:4, 3:5])]
    assert result.exact
    assert result.error == pytest.approx(np.linalg.norm(np.concatenate(tails)), rel=1e-12)


@pytest.mark.parametrize("known", range(4, 9))
def test_completion_instances_by_brute_force(known):
    """The optimum of the supports is that of the completion, found by BFGS from 20 starts."""
    rng = np.random.default_rng(known)
    mask = np.zeros(9, bool)
    mask[rng.permutation(9)[:known]] = True
    mask = mask.reshape(3, 3)
    A = matrix((3, 3), rng)

    def loss(z):
        r = (np.outer(z[:3], z[3:]) - A) * mask
        return (r**2).sum(), 2 * np.r_[r @ z[3:], r.T @ z[:3]]

    best = min(minimize(loss, 2 * rng.standard_normal(6), jac=True).fun for _ in range(20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FSMFWarning)
        result = fsmf(A, *completion_to_fsmf(mask), rng=0)
    assert result.error**2 == pytest.approx(best, abs=1e-4)


def gradient_descent(A, I, J, starts, rng, steps):
    """Plain, from many starts side by side; the losses and the largest entries of the last gradients."""
    X, Y = rng.standard_normal((starts, *I.shape)) * I, rng.standard_normal((starts, *J.shape)) * J
    for _ in range(steps):
        R = X @ Y.swapaxes(1, 2) - A
        gx, gy = (R @ Y) * I, (R.swapaxes(1, 2) @ X) * J
        # The largest singular values bound the curvature.
        rate = 0.8 / (np.linalg.norm(X, axis=(1, 2)) ** 2 + np.linalg.norm(Y, axis=(1, 2)) ** 2)[:, None, None]
        X, Y = X - rate * gx, Y - rate * gy
    return (R**2).sum(axis=(1, 2)), np.maximum(np.abs(gx).max(axis=(1, 2)), np.abs(gy).max(axis=(1, 2))), X, Y


@pytest.mark.parametrize("seed", range(3))
def test_no_spurious_minima_on_disjoint_or_identical_supports(seed):
    """Gradient descent reaches the closed form from each of 100 starts (Le, Riccietti, Gribonval 2023)."""
    rng = np.random.default_rng(seed)
    I = np.repeat(np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 1]], bool), [2, 1, 1], axis=1)
    J = np.repeat(np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], bool), [2, 1, 1], axis=1)
    assert supports_tractable(I, J) == "disjoint-or-identical"
    A = matrix((5, 6), rng)
    losses, _, _, _ = gradient_descent(A, I, J, 100, rng, 30000)
    assert losses == pytest.approx(np.full(100, fsmf(A, I, J).error ** 2), rel=1e-6)


def test_a_spurious_minimum_of_overlapping_supports():
    """Descent ends above the best value, where the gradient vanishes and no curvature is negative."""
    rng = np.random.default_rng(1)
    I, J = completion_to_fsmf(~np.eye(4, dtype=bool))
    A = matrix((4, 4), rng)
    losses, gradients, X, Y = gradient_descent(A, I, J, 60, rng, 20000)
    settled = np.flatnonzero(gradients < 1e-6)
    worst = settled[np.argmax(losses[settled])]
    assert losses[worst] > 1.1 * losses.min()
    cut = I.sum()

    def gradient(z):
        X, Y = np.zeros(I.shape), np.zeros(J.shape)
        X[I], Y[J] = z[:cut], z[cut:]
        R = X @ Y.T - A
        return np.r_[(R @ Y)[I], (R.T @ X)[J]]

    at = np.r_[X[worst][I], Y[worst][J]]
    hessian = np.array([(gradient(at + h) - gradient(at - h)) / 2e-5 for h in 1e-5 * np.eye(len(at))])
    assert np.linalg.eigvalsh((hessian + hessian.T) / 2)[0] > -1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FSMFWarning)
        assert fsmf(A, I, J, rng=0).error ** 2 <= losses.min() * (1 + 1e-4)


@pytest.mark.parametrize("method", ["als", "palm"])
def test_objective_never_rises(method):
    rng = np.random.default_rng(9)
    for seed in range(20):
        I, J = random_supports(rng)
        A = matrix((len(I), len(J)), rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FSMFWarning)
            result = fsmf(A, I, J, method=method, ridge=0.1 * (seed % 2), maxiter=100, rng=seed)
        values = [entry["objective"] for entry in result.history]
        assert (np.diff(values) <= 0).all()
        require_factors(result, A, I, J)


def test_row_step_is_least_squares():
    rng = np.random.default_rng(10)
    mask = rng.random((9, 5)) < 0.5
    mask[4:] = mask[:5]
    A, Y = matrix((9, 12), rng, complex), matrix((12, 5), rng, complex)
    X = np.where(mask, matrix((9, 5), rng, complex), 0)[None]
    Rows(mask).newton(X, (A - X @ Y.T) @ Y.conj(), (Y.T @ Y.conj())[None], 0.0)
    for row, support, values in zip(X[0], mask, A, strict=True):
        assert row[support] == pytest.approx(np.linalg.lstsq(Y[:, support], values, rcond=None)[0], rel=1e-10)
        assert not row[~support].any()


def test_seed_replays():
    rng = np.random.default_rng(11)
    I, J = patterns(8)["lu"]
    A = matrix((8, 8), rng)
    A[0, 0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FSMFWarning)
        first = fsmf(A, I, J, maxiter=30)
        again = fsmf(A, I, J, maxiter=30, rng=first.seed)
    assert np.array_equal(first.X, again.X)
    assert np.array_equal(first.Y, again.Y)


@pytest.mark.parametrize("size", [1e200, 1e-200, 2.0**-1060, 1e300])
@pytest.mark.parametrize("method", ["auto", "als", "palm"])
def test_units_do_not_matter(size, method):
    A = matrix((6, 5), np.random.default_rng(12))
    expected = fsmf(A, np.ones((6, 2)), np.ones((5, 2))).error
    result = fsmf(A * size, np.ones((6, 2)), np.ones((5, 2)), method=method, rng=0)
    assert result.error / size == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(result.X).all()


@pytest.mark.parametrize("name", ["monarch", "lu", "full"])
def test_sparse_is_dense(name):
    rng = np.random.default_rng(13)
    I, J = patterns(16)[name]
    A = matrix((16, 16), rng) * (rng.random((16, 16)) < 0.3) + np.eye(16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FSMFWarning)
        dense = fsmf(A, I, J, rng=0, maxiter=20)
        for given in (sp.csr_array(A), sp.csc_matrix(A)):
            result = fsmf(given, sp.csr_array(I), sp.csr_array(J), rng=0, maxiter=20)
            assert result.error == pytest.approx(dense.error, rel=1e-12, abs=1e-13)
            require_factors(result, given, I, J)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 3, 0)])
@pytest.mark.parametrize("method", ["auto", "als", "palm"])
def test_empty(shape, method):
    m, n, r = shape
    result = fsmf(np.ones((m, n)), np.ones((m, r)), np.ones((n, r)), method=method, rng=0)
    assert (result.X.shape, result.Y.shape) == ((m, r), (n, r))
    assert result.error == np.sqrt(m * n)


def test_zero_and_unsupported():
    I = np.array([[1, 0], [0, 0], [1, 0]])
    assert fsmf(np.zeros((3, 2)), I, np.ones((2, 2))).error == 0
    result = fsmf(np.ones((3, 2)), I, np.ones((2, 2)))
    assert result.error == pytest.approx(np.sqrt(2), rel=1e-14)
    result = fsmf(np.zeros((2, 2)), LOWER, LOWER, rng=0)
    assert (result.error, result.status) == (0, FSMFStatus.HEURISTIC)


def test_iteration_limit_is_said():
    A = matrix((6, 6), np.random.default_rng(14))
    with pytest.warns(FSMFWarning, match="iteration limit"):
        result = fsmf(A, np.ones((6, 2)), np.ones((6, 2)), method="palm", starts=1, maxiter=1, ridge=1.0, rng=0)
    assert result.status is FSMFStatus.ITERATION_LIMIT
    assert not result.success
    assert result.iterations == 1


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ValueError, "method must be one of", (np.eye(2), LOWER, LOWER), {"method": "svd"}),
        (
            ValueError,
            "method must be 'als', 'palm' or 'auto' for these supports",
            (np.eye(2), LOWER, LOWER),
            {"method": "exact"},
        ),
        (ValueError, "A must be finite", (np.array([[np.nan, 1], [1, np.inf]]), LOWER, LOWER), {}),
        (ValueError, "A must be finite", (sp.csr_array([[np.nan]]), np.eye(1), np.eye(1)), {}),
        (ValueError, "A must have 2 dimensions", (np.ones(2), LOWER, LOWER), {}),
        (ValueError, "I must have 2 rows, the rows of A; got 3", (np.eye(2), np.ones((3, 1)), np.ones((2, 1))), {}),
        (ValueError, "J must have 2 rows, the columns of A; got 3", (np.eye(2), np.ones((2, 1)), np.ones((3, 1))), {}),
        (ValueError, "J must have as many columns as I", (np.eye(2), np.ones((2, 1)), np.ones((2, 2))), {}),
        (ValueError, "starts must be at least 1", (np.eye(2), LOWER, LOWER), {"starts": 0}),
        (ValueError, "maxiter must be at least 1", (np.eye(2), LOWER, LOWER), {"maxiter": 0}),
        (ValueError, "tol must be finite", (np.eye(2), LOWER, LOWER), {"tol": -1}),
        (ValueError, "ridge must be finite", (np.eye(2), LOWER, LOWER), {"ridge": -1}),
        (TypeError, "rng must be", (np.eye(2), LOWER, LOWER), {"rng": "a"}),
    ],
)
def test_errors(error, message, arguments, options):
    with pytest.raises(error, match=message):
        fsmf(*arguments, **options)


def test_target_of_the_witness_is_not_attained():
    """The witness's target has no nearest product: descent on it diverges, towards error zero."""
    rng = np.random.default_rng(15)
    seen = set()
    for seed in range(60):
        I, J = random_supports(rng, 5)
        closed, witness = supports_closed(I, J)
        seen.add(closed)
        if closed is not False:
            continue
        A = np.zeros((len(I), len(J)))
        (i1, i2), (j1, j2) = witness.rows, witness.columns
        A[i1, j2] = A[i2, j1] = 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FSMFWarning)
            results = [fsmf(A, I, J, maxiter=k, rng=seed, starts=4) for k in (100, 1000)]
        assert results[1].status is FSMFStatus.DIVERGED
        assert 0 < results[1].error < results[0].error < 0.1
    assert seen == {True, False, None}
