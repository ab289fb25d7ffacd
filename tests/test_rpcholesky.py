"""Randomly pivoted Cholesky against its definition: the exact law of the pivots, Schur complements, published bounds."""

import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from problems import ijcnn1
from psd_oracles import DTYPES, psd, rbf, spectrum, wide
from scipy.spatial.distance import cdist
from stats import Z_LIMIT, chi_square_gate, z_gate

from randla.lowrank.cholesky import rpcholesky
from randla.lowrank.result import LowRankStatus, LowRankWarning

pytestmark = pytest.mark.usefixtures("one_blas_thread")

METHODS = ["accelerated", "block", "simple", "greedy"]
RANDOM = ["accelerated", "block", "simple"]


def residual(A, pivots):
    """A - A[:, pivots] A[pivots, pivots]^-1 A[pivots], in float64."""
    A = wide(A)
    if len(pivots) == 0:
        return A
    return A - A[:, pivots] @ np.linalg.solve(A[np.ix_(pivots, pivots)], A[pivots])


def law(A, k):
    """Probability of every sequence of k pivots, one drawn after the other by the diagonal of the residual."""
    out = {}
    for pivots in itertools.permutations(range(len(A)), k):
        p = 1.0
        for j, i in enumerate(pivots):
            d = np.diagonal(residual(A, list(pivots[:j]))).clip(0)
            p *= d[i] / d.sum()
        out[pivots] = p
    return out


class Entries:
    """A matrix that is only asked for entries, and counts them."""

    def __init__(self, A):
        self.A, self.shape, self.count = A, A.shape, 0

    def __getitem__(self, key):
        out = self.A[key]
        self.count += out.size
        return out


CORRELATED = psd([4.0, 1.0, 0.3, 0.1, 0.02], seed=3)


@pytest.mark.parametrize(("method", "block"), [("accelerated", 2), ("accelerated", 12), ("simple", "auto")])
def test_pivots_have_the_law_of_drawing_one_by_one(method, block):
    # 2 tests per case, false alarm 1e-6 each, seeds 0..3999.
    exact = law(CORRELATED, 2)
    runs = [tuple(rpcholesky(CORRELATED, 2, method=method, block=block, rng=s).pivots.tolist()) for s in range(4000)]
    likely = [pair for pair in exact if exact[pair] > 0.006]
    counts = [runs.count(pair) for pair in likely]
    rest = 1 - sum(exact[pair] for pair in likely)
    assert rest > 0.01
    chi_square_gate([*counts, len(runs) - sum(counts)], [*(exact[p] for p in likely), rest], "ordered pairs")

    exact = law(CORRELATED, 3)
    sets = {}
    for pivots, p in exact.items():
        key = frozenset(pivots)
        sets[key] = sets.get(key, 0.0) + p
    runs = [frozenset(rpcholesky(CORRELATED, 3, method=method, block=block, rng=s).pivots.tolist()) for s in range(4000)]
    likely = [key for key in sets if sets[key] > 0.006]
    counts = [runs.count(key) for key in likely]
    rest = 1 - sum(sets[key] for key in likely)
    chi_square_gate([*counts, len(runs) - sum(counts)], [*(sets[key] for key in likely), rest], "sets of three")


def test_the_gate_on_the_law_sees_that_blocks_have_another_one():
    exact = law(CORRELATED, 2)
    runs = [tuple(rpcholesky(CORRELATED, 2, method="block", block=12, rng=s).pivots.tolist()) for s in range(1000)]
    likely = [pair for pair in exact if exact[pair] > 0.03]
    counts = [runs.count(pair) for pair in likely]
    p = [exact[pair] for pair in likely]
    with pytest.raises(AssertionError, match="chi2"):
        chi_square_gate([*counts, len(runs) - sum(counts)], [*p, 1 - sum(p)], "block")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_factor_is_the_schur_complement_of_its_pivots(method, dtype):
    A = psd(spectrum("square", 120), dtype)
    found = rpcholesky(A, 25, method=method, rng=4)
    eps = float(np.finfo(dtype).eps)
    F, rows = wide(found.F), found.pivots
    R = wide(A) - F @ F.conj().T
    assert found.F.dtype == dtype
    assert found.F.shape == (120, 25)
    assert len(set(rows.tolist())) == 25
    assert found.status is LowRankStatus.RANK_REACHED
    # A[pivots] is interpolated, what is left is positive semidefinite and its diagonal known.
    assert np.abs(R[rows]).max() < 50 * eps
    np.testing.assert_allclose(R, residual(A, rows), atol=3e4 * eps)
    assert np.linalg.eigvalsh(R)[0] > -50 * eps
    assert np.abs(np.triu(F[rows], 1)).max() < 50 * eps
    np.testing.assert_allclose(found.residual_diagonal, np.diagonal(R).real, atol=50 * eps)
    assert found.residual_diagonal.min() >= 0
    assert found.error == pytest.approx(np.trace(R).real, abs=1e3 * eps)
    assert found.error == found.residual_diagonal.sum()
    assert found.trace == pytest.approx(np.trace(wide(A)).real, rel=10 * eps)
    assert found.relative_error == found.error / found.trace


def test_diagonal_of_the_residual_is_not_spoilt_by_the_updates():
    # Down to 1e-8 of the trace: exact sums of the squares of the computed F in extended precision.
    A = psd(0.9 ** np.arange(300.0))
    found = rpcholesky(A, 200, rng=0)
    exact = np.diagonal(A).astype(np.longdouble) - np.square(found.F.astype(np.longdouble)).sum(axis=1)
    assert found.relative_error < 1e-7
    assert np.abs(found.residual_diagonal - exact).max() < 16 * np.finfo(float).eps * np.diagonal(A).max()
    assert found.error == pytest.approx(float(exact.sum()), abs=300 * np.finfo(float).eps)


@pytest.mark.parametrize(("r", "eps"), [(4, 0.5), (8, 1.0), (12, 0.25)])
def test_expected_trace_is_within_the_published_bound(r, eps):
    # Chen, Epperly, Tropp, Webber 2023, theorem 5.1; one-sided gate of false alarm below 1e-6 per method.
    values = spectrum("exponential", 100)
    A, tail = psd(values), values[r:].sum()
    k = int(np.ceil(r / eps + r * np.log(values.sum() / (eps * tail))))
    assert k < 100
    for method in ("accelerated", "simple"):
        errors = np.array([rpcholesky(A, k, method=method, rng=s).error for s in range(30)])
        assert errors.mean() - Z_LIMIT * errors.std() / np.sqrt(len(errors)) <= (1 + eps) * tail


def test_methods_are_of_equal_quality():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((200, 2)), 0.05 * rng.standard_normal((300, 2)) + 3])
    K = rbf(X, X, 1.0)
    errors = {m: np.array([rpcholesky(K, 20, method=m, rng=s).error for s in range(150)]) for m in RANDOM}
    simple = errors["simple"]
    spread = np.sqrt((simple.var() + errors["accelerated"].var()) / 150)
    z_gate((simple.mean() - errors["accelerated"].mean()) / spread, "accelerated and simple have one law")
    assert errors["block"].mean() < 1.15 * simple.mean()
    assert simple.mean() < 6 * np.linalg.eigvalsh(K)[:-20].sum()


def test_candidates_in_a_crowd_do_not_fill_a_block():
    # 20 points far from the others carry half of the trace when they are found; a block of look-alikes would miss them.
    rng = np.random.default_rng(1)
    X = np.concatenate([1e-3 * rng.standard_normal((980, 2)), 20 * rng.standard_normal((20, 2))])
    for method in METHODS:
        assert rpcholesky(X, 21, method=method, kernel="rbf", gamma=1.0, rng=0).relative_error < 1e-4


@pytest.mark.parametrize("block", [1, 7, 64, "auto"])
def test_greedy_takes_the_largest_each_time(block):
    A = psd(spectrum("slow", 90), seed=5) + np.diag(np.random.default_rng(5).random(90))
    found = rpcholesky(A, 40, method="greedy", block=block)
    chosen = []
    for _ in range(40):
        chosen.append(int(np.diagonal(residual(A, chosen)).argmax()))
    assert found.pivots.tolist() == chosen
    assert rpcholesky(np.eye(9), 5, method="greedy", block=block).pivots.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", METHODS)
def test_only_the_entries_that_are_needed_are_asked_for(method):
    X = np.random.default_rng(0).standard_normal((700, 4))
    K = rbf(X, X, 0.5)
    asked = Entries(K)
    found = rpcholesky(asked, 50, method=method, rng=0)
    assert found.evaluations == asked.count
    among_candidates = asked.count - 51 * 700
    assert 0 < among_candidates <= found.rounds * 160**2
    if method in ("accelerated", "block"):
        assert asked.count < 1.5 * 51 * 700
        assert found.rounds < 12
    dense = rpcholesky(K, 50, method=method, rng=0)
    np.testing.assert_array_equal(found.F, dense.F)
    np.testing.assert_array_equal(found.pivots, dense.pivots)


def test_kernels_of_points_are_their_matrices():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 5)) + 100
    Z = X + 1j * rng.standard_normal(X.shape)
    cases = [
        (X, {"kernel": "rbf", "gamma": 0.3}, rbf(X, X, 0.3)),
        (X, {"kernel": "rbf"}, rbf(X, X, 1 / 5)),
        (X, {"kernel": "laplacian", "gamma": 0.3}, np.exp(-0.3 * cdist(X, X, "cityblock"))),
        (X, {"kernel": "laplacian"}, np.exp(-cdist(X, X, "cityblock") / 5)),
        (sp.csr_array(X - 100), {"kernel": "rbf", "gamma": 0.3}, rbf(X, X, 0.3)),
        (X, {"kernel": lambda a, b: (a @ b.T + 1) ** 2 / 1e8}, (X @ X.T + 1) ** 2 / 1e8),
        (X, {"kernel": "linear"}, X @ X.T),
        (Z, {"kernel": "linear"}, Z @ Z.conj().T),
        (X, {"kernel": lambda a, b: rbf(a, b, 0.3) * np.exp(1j * (a[:, :1] - b[:, 0]))}, None),
    ]
    for points, how, K in cases:
        if K is None:
            K = how["kernel"](X, X)
        found, given = rpcholesky(points, 15, rng=3, **how), rpcholesky(K, 15, rng=3)
        np.testing.assert_array_equal(found.pivots, given.pivots)
        assert found.F.dtype == K.dtype
        np.testing.assert_allclose(found.F, given.F, atol=1e-6 * np.abs(K).max() ** 0.5)
        assert found.error == pytest.approx(given.error, abs=1e-9 * found.trace)
    for kernel in ("rbf", "laplacian"):
        far = rpcholesky(np.array([[1e200], [0.0]]), 2, kernel=kernel, rng=0)
        np.testing.assert_array_equal(far.F @ far.F.T, np.eye(2))
    single = rpcholesky(X.astype(np.float32), 15, kernel="rbf", gamma=0.3, rng=3)
    assert single.F.dtype == np.float32
    assert single.error == pytest.approx(rpcholesky(X, 15, kernel="rbf", gamma=0.3, rng=3).error, rel=1e-3)


def test_features_extend_the_factor_to_new_points():
    rng = np.random.default_rng(0)
    X, new = rng.standard_normal((200, 3)), rng.standard_normal((40, 3))
    found = rpcholesky(X, 30, kernel="rbf", gamma=0.5, rng=0)
    np.testing.assert_allclose(found.features(X), found.F, atol=1e-10)
    F = found.features(new)
    assert F.shape == (40, 30)
    np.testing.assert_allclose(F @ found.F[found.pivots].T, rbf(new, X[found.pivots], 0.5), atol=1e-12)
    assert found.features(new[:0]).shape == (0, 30)
    C = psd(spectrum("square", 80), np.complex128)
    given = rpcholesky(C, 20, rng=0)
    np.testing.assert_allclose(given.features(C[:, given.pivots]), given.F, atol=1e-11)
    np.testing.assert_allclose(given.features(sp.csr_array(C[:, given.pivots])), given.F, atol=1e-11)
    with pytest.raises(ValueError, match="X must have 20 columns, values of A at the pivots; got 80"):
        given.features(C)
    with pytest.raises(ValueError, match="X must have 3 columns like the points; got 2"):
        found.features(new[:, :2])
    with pytest.raises(ValueError, match="features must be asked of a result that was not pickled"):
        pickle.loads(pickle.dumps(found)).features(new)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_what_ridge_regression_needs(dtype):
    A = psd(spectrum("square", 100), dtype)
    found = rpcholesky(A, 30, rng=0)
    low = found.F @ found.F.conj().T
    values, U = found.eigh()
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(U.conj().T @ U, np.eye(30), atol=1e-13)
    np.testing.assert_allclose((U * values) @ U.conj().T, low, atol=1e-14)
    B = np.random.default_rng(0).standard_normal((100, 3)).astype(dtype)
    exact = np.linalg.solve(low + 0.01 * np.eye(100), B)
    np.testing.assert_allclose(found.solve(B, 0.01), exact, rtol=1e-9)
    np.testing.assert_allclose(found.solve(B[:, 0], 0.01), exact[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.preconditioner(0.01) @ B, 0.01 * exact, rtol=1e-9)
    np.testing.assert_allclose(found.preconditioner(0.01).H @ B[:, 0], 0.01 * exact[:, 0], rtol=1e-9)
    with pytest.raises(ValueError, match="ridge must be finite and greater than 0; got 0"):
        found.solve(B, 0)
    with pytest.raises(ValueError, match=r"b must have shape \(100,\) or \(100, k\); got \(99, 3\)"):
        found.solve(B[1:], 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_exhausted_residual_ends_the_run(method):
    F = np.random.default_rng(0).standard_normal((80, 7))
    found = rpcholesky(F @ F.T, 30, method=method, rng=0)
    assert found.rank == 7
    assert found.status is LowRankStatus.EXACT
    assert found.success
    assert "Rank 7 of 80." in found.message
    assert found.error < 1e-12 * found.trace
    duplicates = rpcholesky(np.repeat(np.arange(5.0), 30)[:, None], 20, method=method, kernel="rbf", rng=0)
    assert duplicates.rank == 5
    everything = rpcholesky(np.eye(6), 6, method=method, rng=0)
    assert sorted(everything.pivots.tolist()) == list(range(6))
    assert everything.error == 0
    assert rpcholesky(2 * np.eye(6), 99, method=method, rng=0).rank == 6
    zero = rpcholesky(np.zeros((4, 4)), 2, method=method, rng=0)
    assert (zero.rank, zero.error, zero.relative_error, zero.status) == (0, 0, 0, LowRankStatus.EXACT)
    assert zero.solve(np.ones(4), 2.0).tolist() == [0.5] * 4
    empty = rpcholesky(np.zeros((0, 0)), 2, method=method, rng=0)
    assert empty.F.shape == (0, 0)
    one = rpcholesky([[4]], 1, method=method, rng=0)
    assert one.F.tolist() == [[2.0]]


@pytest.mark.parametrize("method", METHODS)
def test_tolerance_ends_with_as_few_columns_as_the_pivots_allow(method):
    A = psd(spectrum("square", 200))
    found = rpcholesky(A, tol=0.01, method=method, rng=0)
    assert found.status is LowRankStatus.TOLERANCE_REACHED
    assert found.relative_error <= 0.01
    assert np.trace(residual(A, found.pivots[:-1])) > 0.01 * found.trace
    assert found.error == pytest.approx(np.trace(residual(A, found.pivots)))
    assert found.rank > 50  # more than fit in the memory that is taken first
    with pytest.warns(LowRankWarning, match="of trace\\(A\\) after 5 columns"):
        short = rpcholesky(A, 5, tol=0.01, method=method, rng=0)
    assert (short.rank, short.status) == (5, LowRankStatus.TOLERANCE_NOT_REACHED)
    assert rpcholesky(A, tol=1.0, method=method, rng=0).rank == 0
    assert rpcholesky(A, tol=0, method=method, rng=0).status is LowRankStatus.EXACT


@pytest.mark.parametrize("method", METHODS)
def test_indefinite_matrices_are_told_with_evidence(method):
    A = psd(np.concatenate([np.ones(30), [-0.5]]))
    with pytest.warns(LowRankWarning, match="after projection"):
        found = rpcholesky(A, 31, method=method, rng=0)
    assert found.status is LowRankStatus.NOT_POSITIVE
    assert not found.success
    assert found.error == np.inf
    assert found.rank < 31
    with pytest.warns(LowRankWarning, match=r"A\[2, 2\] = -1\."):
        assert rpcholesky(np.diag([1.0, 2.0, -1.0]), 2, method=method, rng=0).rank == 0


@pytest.mark.parametrize("form", ["F", "strided", "readonly", "csr", "csc", "integers", "list", "entries"])
def test_forms_of_one_matrix(form):
    base = np.random.default_rng(0).integers(-3, 4, (40, 60))
    A = base @ base.T
    expected = rpcholesky(A.astype(float), 12, rng=0)
    given = {
        "F": lambda: np.asfortranarray(A, float),
        "strided": lambda: np.repeat(np.repeat(A.astype(float), 2, axis=0), 3, axis=1)[::2, ::3],
        "readonly": lambda: A.astype(float),
        "csr": lambda: sp.csr_matrix(A.astype(float)),
        "csc": lambda: sp.csc_array(A.astype(float)),
        "integers": lambda: A,
        "list": lambda: A.tolist(),
        "entries": lambda: Entries(A),
    }[form]()
    if isinstance(given, np.ndarray):
        given.flags.writeable = False
    found = rpcholesky(given, 12, rng=0)
    np.testing.assert_array_equal(found.F, expected.F)
    np.testing.assert_array_equal(found.pivots, expected.pivots)


def test_columns_lie_together_in_complex_matrices_too():
    A = psd(spectrum("slow", 50), np.complex64)
    np.testing.assert_array_equal(rpcholesky(np.asfortranarray(A), 9, rng=0).F, rpcholesky(A, 9, rng=0).F)


@pytest.mark.parametrize("exponent", [-660, 660])
def test_scale_does_not_matter(exponent):
    A = psd(spectrum("square", 60))
    expected, found = rpcholesky(A, 20, rng=0), rpcholesky(A * 2.0**exponent, 20, rng=0)
    np.testing.assert_array_equal(found.pivots, expected.pivots)
    np.testing.assert_array_equal(found.F, expected.F * 2.0 ** (exponent // 2))
    graded = np.diag(10.0 ** np.arange(-200, 200, 20))
    exact = rpcholesky(graded, 20, method="greedy")
    assert exact.rank == 20
    np.testing.assert_allclose(exact.F @ exact.F.T, graded, rtol=1e-15)


def test_seed_replays_and_results_print():
    A = psd(spectrum("slow", 60))
    for rng in (None, np.random.default_rng(5), 7):
        found = rpcholesky(A, 10, rng=rng)
        again = rpcholesky(A, 10, rng=found.seed)
        np.testing.assert_array_equal(found.F, again.F)
    assert "relative_error" in repr(found)
    copy = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(copy.F, found.F)


def test_real_data():
    X = ijcnn1()[0][::50]
    X = X[:, X.std(axis=0) > 0]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    K = rbf(X, X, 1 / X.shape[1])
    best = np.linalg.eigvalsh(K)[:-100].sum()
    for method in RANDOM:
        found = rpcholesky(X, 100, kernel="rbf", method=method, rng=0)
        assert best < found.error < 2.2 * best
        assert found.error == pytest.approx(np.trace(K - found.F @ found.F.T), rel=1e-9)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "method must be one of accelerated, block, simple, greedy; got 'fast'", {"method": "fast"}),
        (ValueError, "k must be an integer where tol is not given; got None for both", {"k": None}),
        (ValueError, "k must be at least 1; got 0", {"k": 0}),
        (TypeError, "k must be an integer; got 2.0", {"k": 2.0}),
        (ValueError, "tol must be finite and at least 0; got -1", {"tol": -1}),
        (ValueError, "block must be at least 1; got 0", {"block": 0}),
        (TypeError, "block must be an integer; got 'all'", {"block": "all"}),
        (ValueError, r"A must be square; got shape \(4, 3\)", {"A": np.ones((4, 3))}),
        (TypeError, "A must be a matrix or have shape and entries", {"A": object()}),
        (ValueError, "gamma must be None for a kernel other than 'rbf' and 'laplacian'; got 1.0", {"gamma": 1.0}),
        (ValueError, "kernel must be one of 'linear', 'rbf', 'laplacian'", {"kernel": "cubic"}),
        (ValueError, "A must be finite; got NaN or infinite values on its diagonal", {"A": np.diag([1, np.nan])}),
        (ValueError, "A must be finite", {"A": np.array([[1, 0, np.inf], [0, 1, 0], [np.inf, 0, 1]]), "block": 1, "k": 3}),
        (ValueError, "A must be Hermitian; got entries of size 1 that differ by 1", {"A": np.triu(np.ones((20, 20)))}),
        (ValueError, "kernel must be Hermitian", {"kernel": lambda a, b: np.exp(a[:, :1] - b[:, 0])}),
        (ValueError, "kernel must be finite", {"kernel": lambda a, b: np.full((len(a), len(b)), np.nan)}),
        (ValueError, "kernel must be positive semi-definite", {"kernel": lambda a, b: -(a @ b.T)}),
        (TypeError, "rng must be", {"rng": "seed"}),
    ],
)
def test_arguments_are_checked(error, message, call):
    call = {"A": np.eye(4), "k": 2, "rng": 0, **call}
    with pytest.raises(error, match=message):
        rpcholesky(call.pop("A"), call.pop("k"), **call)


def test_entries_are_checked():
    class Shortened(Entries):
        def __getitem__(self, key):
            out = super().__getitem__(key)
            return out[:1] if self.count > 8 else out

    with pytest.raises(ValueError, match=r"A\[rows, columns\] must have shape \(\d, \d\); got \(1, \d\)"):
        rpcholesky(Shortened(np.eye(8)), 3, rng=0)

    class Turning(Entries):
        def __getitem__(self, key):
            out = super().__getitem__(key)
            return out + 0j if out.shape == (1, 8) else out

    with pytest.raises(TypeError, match=r"A\[rows, columns\] must not change from real to complex values"):
        rpcholesky(Turning(np.eye(8)), 3, method="simple", rng=0)

    def turning(a, b):
        return a @ b.T + (1j if len(a) != len(b) else 0)

    with pytest.raises(TypeError, match="kernel must not change from real to complex values"):
        rpcholesky(np.eye(5), 2, kernel=turning, method="simple", rng=0)
