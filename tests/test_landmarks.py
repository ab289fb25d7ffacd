"""Landmarks of kernel matrices against dense eigendecompositions, feature-space formulas and a second implementation."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from kernel_oracles import EPS, exact_scores, nystrom, points, rbf
from scipy.spatial.distance import cdist

from randla.landmarks import Landmarks, LandmarksWarning, kernel_landmarks
from randla.landmarks import _dictionary as _kernel_leverage
from randla.landmarks import recursive as landmarks

pytestmark = pytest.mark.usefixtures("one_blas_thread")

SETS = ["spread", "clusters", "outliers", "duplicates"]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("how", [{"ridge": 10}, {"ridge": 0.5}, {"k": 20}, {"k": 100}, {"k": 300}], ids=str)
def test_quality_of_the_approximation_and_of_the_scores(name, how):
    # One fixed seed: factors leave room beside those of the theorem, (1 +- epsilon) for epsilon = 1/2.
    X = points(name)
    K = rbf(X, X)
    found = kernel_landmarks(X, kernel="rbf", gamma=1.0, rng=3, **how)
    F = found.features(X)
    error = np.linalg.eigvalsh(K - F @ F.T)
    assert error[0] >= -1e-9
    assert error[-1] <= found.ridge + 1e-9
    exact = exact_scores(K, found.ridge)
    assert found.success
    assert 0.6 < found.effective_dimension / exact.sum() < 1.5
    better = found.leverage(X)
    if found.ridge > 1e-6:  # below it the exact scores are themselves rounding errors
        assert 0.5 < np.min(better / exact) <= np.max(better / exact) < 2
        assert 0.8 < np.min(found.scores / exact) <= np.max(found.scores / exact) < 5
    for scores in (better, found.scores):
        assert scores.min() >= 0
        assert scores.max() <= 1
    assert np.all(np.diff(found.indices) > 0)
    assert np.all(found.weights >= 1)


@pytest.mark.parametrize("name", ["spread", "clusters", "outliers"])
def test_ridge_of_a_fixed_size_is_the_mean_tail_of_the_spectrum(name):
    X = points(name)
    found = kernel_landmarks(X, 100, kernel="rbf", gamma=1.0, rng=0)
    r = max(r for r in range(1, 100) if 4 * r * np.log(4 * r) <= 100)
    tail = np.linalg.eigvalsh(rbf(X, X))[:-r].sum() / r
    assert 0.5 * tail < found.ridge < 1.5 * tail
    assert len(found.indices) == 100


def test_size_follows_the_effective_dimension():
    X = points("clusters", 2500)
    found = kernel_landmarks(X, kernel="rbf", gamma=1.0, ridge=40.0, rng=0)
    d = exact_scores(rbf(X, X), 40.0).sum()
    assert d < 30
    assert len(found.indices) < 2 * (2 * d * np.log(2 * d)) + 6 * np.sqrt(len(found.indices))
    assert len(found.indices) < 0.1 * len(X)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_leverage_is_that_of_the_weighted_features(dtype):
    # For <x, y> the scores are x' (X_S' W X_S + ridge I)^-1 x: no kernel entry is needed.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((700, 6)).astype(dtype)
    new = rng.standard_normal((50, 6)).astype(dtype)
    if X.dtype.kind == "c":
        X, new = X + 1j * rng.standard_normal(X.shape), new + 1j * rng.standard_normal(new.shape)
    for how in ({"ridge": 30.0}, {"k": 40}, {"k": 3, "ridge": 1000.0}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LandmarksWarning)
            found = kernel_landmarks(X, kernel="linear", rng=1, **how)
        S = X[found.indices]
        M = (S.T * found.weights) @ S.conj()
        twin = np.einsum("ij,jk,ik->i", new.conj(), np.linalg.inv(M + found.ridge * np.eye(6)), new).real
        own = np.sum(np.abs(new) ** 2, axis=1)
        # Scores against a sample that misses directions are cut at what a point alone gives.
        np.testing.assert_allclose(found.leverage(new), np.minimum(twin, own / (own + found.ridge)), rtol=1e-7)
        assert found.effective_dimension == pytest.approx(np.trace(M @ np.linalg.inv(M + found.ridge * np.eye(6))).real)


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "linear"])
def test_features_are_a_root_of_the_nystrom_approximation(kernel):
    X = points("spread", 500)
    found = kernel_landmarks(X, 40, kernel=kernel, rng=0)
    K = {"rbf": rbf(X, X, 1 / 3), "laplacian": np.exp(-cdist(X, X, "cityblock") / 3), "linear": X @ X.T}[kernel]
    F = found.features(X)
    assert F.shape == (500, 3 if kernel == "linear" else 40)
    np.testing.assert_allclose(F @ F.T, nystrom(K, found.indices), atol=1e-9)
    np.testing.assert_allclose((F @ F.T)[found.indices], K[found.indices], atol=1e-9)
    new = np.random.default_rng(5).standard_normal((30, 3))
    np.testing.assert_allclose(found.features(np.asfortranarray(new)), found.features(new), atol=1e-12)
    assert found.features(new[:0]).shape == (0, F.shape[1])


def test_features_of_complex_points():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 4)) + 1j * rng.standard_normal((400, 4))
    found = kernel_landmarks(X, 30, kernel="linear", rng=0)
    F = found.features(X)
    np.testing.assert_allclose(F @ F.conj().T, X @ X.conj().T, atol=1e-10)
    real = kernel_landmarks(np.concatenate([X.real, X.imag], axis=1), 30, kernel="rbf", gamma=0.1, rng=0)
    both = kernel_landmarks(X, 30, kernel="rbf", gamma=0.1, rng=0)
    np.testing.assert_array_equal(both.indices, real.indices)
    np.testing.assert_allclose(both.leverage(X), real.leverage(np.concatenate([X.real, X.imag], axis=1)), rtol=1e-9)


class Entries:
    """A matrix that is only asked for entries, and remembers for how many at once."""

    def __init__(self, K):
        self.K, self.shape, self.largest = K, K.shape, 0

    def __getitem__(self, key):
        out = self.K[key]
        self.largest = max(self.largest, out.size)
        return out


class Function:
    def __init__(self, with_diagonal):
        self.evaluations = self.largest = 0
        if with_diagonal:
            self.diag = lambda X: self.count(np.ones(len(X)))

    def count(self, values):
        self.evaluations += values.size
        self.largest = max(self.largest, values.size)
        return values

    def __call__(self, X, Y):
        return self.count(rbf(X, Y))


@pytest.mark.parametrize("how", [{"k": 50}, {"ridge": 40.0}], ids=str)
def test_the_same_landmarks_however_the_kernel_is_given(how):
    X = points("clusters")
    K = rbf(X, X)
    named = kernel_landmarks(X, kernel="rbf", gamma=1.0, rng=2, **how)
    entries = Entries(K)
    functions = Function(True), Function(False)
    others = [
        kernel_landmarks(K, kernel="precomputed", rng=2, **how),
        kernel_landmarks(np.asfortranarray(K), kernel="precomputed", rng=2, **how),
        kernel_landmarks(sp.csr_array(K), kernel="precomputed", rng=2, **how),
        kernel_landmarks(entries, kernel="precomputed", rng=2, **how),
        kernel_landmarks(sp.csr_matrix(X), kernel="rbf", gamma=1.0, rng=2, **how),
        kernel_landmarks(sp.csc_array(X), kernel="rbf", gamma=1.0, rng=2, **how),
        *(kernel_landmarks(X, kernel=f, rng=2, **how) for f in functions),
    ]
    for other in others:
        np.testing.assert_array_equal(other.indices, named.indices)
        np.testing.assert_allclose(other.weights, named.weights, rtol=1e-6)
        np.testing.assert_allclose(other.scores, named.scores, rtol=1e-6)
        assert other.ridge == pytest.approx(named.ridge, rel=1e-6)
    scores, F = named.leverage(X), named.features(X)
    for other, given in zip(others, [K, K, sp.csr_array(K), K, X, sp.csr_array(X), X, X], strict=True):
        diagonal = np.ones(len(X)) if given.shape == K.shape else None
        np.testing.assert_allclose(other.leverage(given, diagonal=diagonal), scores, rtol=1e-5)
        G = other.features(given)
        np.testing.assert_allclose(G @ G.T, F @ F.T, atol=1e-6)
    np.testing.assert_array_equal(named.points, X[named.indices])
    np.testing.assert_array_equal(others[0].points, named.indices)
    # The whole matrix is never asked for, and every evaluation is counted.
    assert entries.largest < K.size / 2
    for function in functions:
        assert function.largest < K.size / 2
    fresh = Function(False)
    assert kernel_landmarks(X, kernel=fresh, rng=2, **how).kernel_evaluations == fresh.evaluations


@pytest.mark.parametrize("exponent", [-500, -340, 340, 500])
@pytest.mark.parametrize("how", [{"k": 30}, {"ridge": 2.0}], ids=str)
def test_scales_of_a_kernel_by_powers_of_two_change_nothing(exponent, how):
    K = rbf(points("clusters", 600), points("clusters", 600))
    plain = kernel_landmarks(K, kernel="precomputed", rng=0, **how)
    scale = 2.0**exponent
    scaled = kernel_landmarks(
        K * scale, kernel="precomputed", rng=0, **{name: v * scale if name == "ridge" else v for name, v in how.items()}
    )
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.weights, plain.weights, rtol=1e-9)
    assert scaled.ridge == pytest.approx(plain.ridge * scale)
    scores = scaled.leverage(K * scale, diagonal=np.full(600, scale))
    np.testing.assert_allclose(scores, plain.leverage(K, diagonal=np.ones(600)), rtol=1e-9)


def test_points_of_very_different_size():
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-50, 50, 600)
    C = rbf(points("clusters", 600), points("clusters", 600))
    found = kernel_landmarks(size[:, None] * C * size, 40, kernel="precomputed", rng=0)
    assert np.argmax(size) in found.indices
    assert np.isfinite(found.weights).all()
    F = found.features(size[:, None] * C * size) / size[:, None]
    np.testing.assert_allclose(F @ F.T, nystrom(C, found.indices), atol=1e-6)
    scores = found.leverage(size[:, None] * C * size, diagonal=size**2)
    assert np.all((scores >= 0) & (scores <= 1))


def test_a_constant_kernel_has_rank_one():
    for n in (5, 100, 3000):
        found = kernel_landmarks(np.ones((n, 1)), 20, kernel="linear", rng=0)
        assert len(found.indices) == min(n, 20)
        assert found.effective_dimension == pytest.approx(1, abs=0.1)
        F = found.features(np.ones((n, 1)))
        assert F.shape == (n, 1)
        np.testing.assert_allclose(F @ F.T, 1)
    np.testing.assert_allclose(kernel_landmarks(np.ones((100, 1)), 20, kernel="linear", rng=0).scores, 0.01, rtol=0.03)
    few = kernel_landmarks(np.ones((3000, 1)), kernel="linear", ridge=1.0, rng=0)
    assert len(few.indices) < 20


@pytest.mark.parametrize("how", [{"k": 5}, {"ridge": 1.0}, {"k": 5, "ridge": 1.0}], ids=str)
@pytest.mark.parametrize("n", [0, 1, 700])
def test_a_zero_kernel_has_no_landmarks(n, how):
    X = np.zeros((n, 3))
    found = kernel_landmarks(X, kernel="linear", rng=0, **how)
    assert found.indices.shape == found.weights.shape == (0,)
    assert found.effective_dimension == 0
    np.testing.assert_array_equal(found.scores, np.zeros(n))
    np.testing.assert_array_equal(found.leverage(X), np.zeros(n))
    assert found.features(X).shape == (n, 0)
    assert found.ridge == how.get("ridge", 0)
    # A point in a direction that no landmark has is worth what it is worth alone.
    np.testing.assert_allclose(found.leverage([[3.0, 0, 0]]), 9 / (9 + found.ridge))


@pytest.mark.parametrize("n", [1, 2, 19])
def test_fewer_points_than_landmarks_are_all_taken(n):
    X = points("spread", 30)[:n]
    found = kernel_landmarks(X, 20, kernel="rbf", rng=0)
    np.testing.assert_array_equal(found.indices, np.arange(n))
    np.testing.assert_array_equal(found.weights, 1)
    F = found.features(X)
    np.testing.assert_allclose(F @ F.T, rbf(X, X, 1 / 3), atol=1e-12)
    np.testing.assert_allclose(found.scores, exact_scores(rbf(X, X, 1 / 3), found.ridge), rtol=1e-6)


def test_zero_rows_are_never_taken():
    X = points("spread")
    X[::2] = 0
    for how in ({"k": 1000}, {"k": 20}, {"ridge": 1e-3}):
        found = kernel_landmarks(X, kernel="linear", rng=0, **how)
        assert np.all(found.indices % 2 == 1)
        np.testing.assert_array_equal(found.scores[::2], 0)
    assert len(kernel_landmarks(X, 1000, kernel="linear", rng=0).indices) == 600


@pytest.mark.parametrize("how", [{"k": 60}, {"ridge": 5.0}], ids=str)
def test_layouts_and_types_of_the_points(how):
    X = np.round(points("spread") * 64) / 64
    plain = kernel_landmarks(X, kernel="rbf", rng=0, **how)
    frozen = X.copy()
    frozen.flags.writeable = False
    wide = np.zeros((2400, 6))
    wide[::2, ::2] = X
    for other in (np.asfortranarray(X), frozen, wide[::2, ::2], X.astype(np.float32), X[:, ::-1][:, ::-1], X.tolist()):
        found = kernel_landmarks(other, kernel="rbf", rng=0, **how)
        np.testing.assert_array_equal(found.indices, plain.indices)
        np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-7)
    integers = kernel_landmarks((X * 64).astype(np.int32), kernel="rbf", gamma=1 / 3 / 64**2, rng=0, **how)
    np.testing.assert_array_equal(integers.indices, plain.indices)


def test_a_single_precision_kernel_is_judged_by_its_own_rounding():
    X = points("clusters")
    K = rbf(X, X).astype(np.float32)
    found = kernel_landmarks(K, 200, kernel="precomputed", rng=0)
    F = found.features(K)
    assert np.linalg.norm(rbf(X, X) - F @ F.T, 2) <= 2 * found.ridge
    assert found.ridge > np.finfo(np.float32).eps


def test_results_replay_and_do_not_depend_on_blocks(monkeypatch):
    X = points("clusters")
    first = kernel_landmarks(X, 60, kernel="rbf", gamma=1.0)
    again = kernel_landmarks(X, 60, kernel="rbf", gamma=1.0, rng=first.seed)
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert not np.array_equal(first.indices, kernel_landmarks(X, 60, kernel="rbf", gamma=1.0, rng=first.seed + 1).indices)
    monkeypatch.setattr(landmarks, "chunk_rows", lambda size: 7)
    blocks = kernel_landmarks(X, 60, kernel="rbf", gamma=1.0, rng=first.seed)
    np.testing.assert_array_equal(blocks.indices, first.indices)
    np.testing.assert_allclose(blocks.weights, first.weights, rtol=1e-10)
    np.testing.assert_allclose(blocks.leverage(X), first.leverage(X), rtol=1e-10)


def test_landmarks_can_be_pickled_and_shown():
    X = points("spread", 300)
    found = kernel_landmarks(X, 20, kernel="rbf", rng=0)
    copy = pickle.loads(pickle.dumps(found))
    assert isinstance(copy, Landmarks)
    np.testing.assert_array_equal(copy.leverage(X), found.leverage(X))
    assert "effective_dimension" in repr(found)


# What is said about input that does not fit.


def test_too_few_landmarks_for_a_ridge_are_said():
    X = points("spread")
    with pytest.warns(LandmarksWarning, match=r"20 landmarks are fewer than the effective dimension for the ridge, about \d"):
        found = kernel_landmarks(X, 20, kernel="rbf", gamma=1.0, ridge=1.0, rng=0)
    assert not found.success
    assert found.message.startswith("20 landmarks are fewer")
    assert len(found.indices) == 20


def test_a_ridge_below_rounding_is_said():
    X = points("duplicates", 400)
    with pytest.warns(LandmarksWarning, match="below the rounding errors of the kernel matrix"):
        found = kernel_landmarks(X, 300, kernel="rbf", ridge=1e-18, rng=0)
    assert not found.success
    scores = found.leverage(X)
    assert np.all((scores >= 0) & (scores <= 1))
    F = found.features(X)
    assert F.shape == (400, 15)
    np.testing.assert_allclose(F @ F.T, rbf(X, X, 1 / 3), atol=1e-10)


def indefinite(n):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * np.where(np.arange(n) < 3, -10.0, 1.0)) @ Q.T


@pytest.mark.parametrize("n", [100, 900])
@pytest.mark.parametrize("how", [{"k": 50}, {"k": 50, "ridge": 0.1}, {"ridge": 0.1}], ids=str)
def test_an_indefinite_kernel_is_refused(n, how):
    with pytest.raises(ValueError, match="kernel must be positive semi-definite; got"):
        kernel_landmarks(indefinite(n), kernel="precomputed", rng=0, **how)


def test_what_was_found_in_an_indefinite_kernel_is_told():
    K = np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="an eigenvalue -1 beside one of size 3"):
        kernel_landmarks(K, kernel="precomputed", ridge=0.1)
    with pytest.raises(ValueError, match="diagonal value -4"):
        kernel_landmarks(np.diag([1.0, -4.0]), kernel="precomputed", ridge=0.1)
    found = kernel_landmarks([[1.0, 0.0]], kernel=lambda X, Y: 1 + 3 * np.abs(X @ Y.T - 1), ridge=0.1, rng=0, k=1)
    with pytest.raises(ValueError, match=r"itself is 4 and -10\.5455 after projection"):  # 4 - 4 (1 + 0.1)^-1 4
        found.leverage([[0.0, 0.0]])


def test_rounding_below_zero_is_no_reason_to_refuse():
    # Rank 5 among 800 points: eigenvalues of both signs at the level of rounding.
    X = np.random.default_rng(0).standard_normal((800, 5)).astype(np.float32)
    K = X @ X.T
    assert np.linalg.eigvalsh(K.astype(float))[0] < 0
    for how in ({"k": 300}, {"ridge": 1e-3}):
        found = kernel_landmarks(K, kernel="precomputed", rng=0, **how)
        assert found.scores.min() >= 0
        assert found.effective_dimension == pytest.approx(5, rel=0.1)


def test_a_ridge_that_cholesky_cannot_take_uses_eigenvalues():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    gram = X @ X.T
    weights = rng.uniform(1, 3, 60)
    values, vectors = np.linalg.eigh(gram)
    bad = gram - 1e-9 * values[-1] * np.outer(vectors[:, 0], vectors[:, 0])
    ridge = 1e-10 * values[-1]
    dictionary = _kernel_leverage.Dictionary((bad + bad.T) / 2, weights, ridge, EPS)
    assert not dictionary._inverse_root[0]
    M = (X.T * weights) @ X
    twin = np.einsum("ij,jk,ik->i", X, np.linalg.inv(M), X)
    np.testing.assert_allclose(dictionary.own_scores(), twin, rtol=1e-3)
    own = np.einsum("ij,ij->i", X, X)
    scores = dictionary.scores(gram.copy(), own)
    np.testing.assert_allclose(dictionary._explained(gram.copy()), own, rtol=2e-8)  # all but what the change took away
    assert np.all((scores >= 0) & (scores <= 1))


def test_not_finite_and_not_symmetric_kernels_are_refused():
    X = points("spread", 400)
    with pytest.raises(ValueError, match="kernel must be finite"):
        kernel_landmarks(X, 20, kernel=lambda X, Y: np.full((len(X), len(Y)), np.nan))
    K = rbf(X, X)
    K[:, 7] = K[7] = np.inf
    K[7, 7] = 1
    with pytest.raises(ValueError, match="kernel must be finite"):
        kernel_landmarks(K, 300, kernel="precomputed", rng=0)
    # One row outside the dictionary, whose values are only seen in the scores.
    function = kernel_landmarks(X, 20, kernel=lambda X, Y: np.where(np.abs(X[:, :1]) > 50, np.nan, rbf(X, Y)), rng=0)
    with pytest.raises(ValueError, match="kernel must be finite"):
        function.leverage(np.array([[100.0, 0, 0]]))
    with pytest.raises(ValueError, match=r"kernel must be symmetric \(Hermitian\); got entries of size 1 that differ by"):
        kernel_landmarks(np.triu(rbf(X, X)), 20, kernel="precomputed")
    with pytest.raises(ValueError, match="kernel must be finite"):
        kernel_landmarks(np.full((4, 2), 1e200), 2, kernel="linear")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1; got 0"),
        ({"k": 2.5}, TypeError, "k must be an integer; got 2.5"),
        ({"k": None}, ValueError, "k must be an integer where ridge is not given"),
        ({"ridge": 0}, ValueError, "ridge must be finite and greater than 0; got 0"),
        ({"ridge": "x"}, TypeError, "ridge must be a real number"),
        ({"kernel": "cosine"}, ValueError, "'linear', 'rbf', 'laplacian', 'precomputed', or a callable; got 'cosine'"),
        ({"kernel": None}, ValueError, "kernel must be one of"),
        ({"gamma": -1}, ValueError, "gamma must be finite and greater than 0; got -1"),
        ({"gamma": 1.0, "kernel": "linear"}, ValueError, "gamma must be None for a kernel other than 'rbf' and"),
        ({"gamma": 1.0, "kernel": np.dot}, ValueError, "gamma must be None"),
        ({"gamma": 1.0, "kernel": "precomputed"}, ValueError, "gamma must be None"),
        ({"rng": -1}, ValueError, "rng must be a non-negative integer"),
        ({"X": np.ones(3)}, ValueError, "X must have 2 dimensions; got 1"),
        ({"X": np.full((3, 2), np.nan)}, ValueError, "X must be finite; got 6 NaN"),
        ({"X": sp.csr_array([[np.inf, 0.0]])}, ValueError, "X must be finite"),
        ({"X": [["a"]]}, TypeError, "X must have dtype"),
        ({"kernel": "precomputed"}, ValueError, r"X must be square where kernel is 'precomputed'; got shape \(5, 2\)"),
        ({"X": object(), "kernel": "precomputed"}, TypeError, "X must be a matrix or have shape and entries"),
        ({"kernel": lambda X, Y: np.ones(3)}, ValueError, r"kernel\(X1, X2\) must have shape \(5, 5\); got \(3,\)"),
        ({"kernel": lambda X, Y: np.full((5, 5), "a")}, TypeError, r"kernel\(X1, X2\) must have dtype"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        kernel_landmarks(**{"X": np.ones((5, 2)), "k": 3, "kernel": "rbf", **arguments})


def test_arguments_of_leverage_and_features_are_checked():
    X = points("spread", 50)
    K = rbf(X, X)
    found, known = kernel_landmarks(X, 10, kernel="rbf"), kernel_landmarks(K, 10, kernel="precomputed")
    with pytest.raises(ValueError, match="X must have 3 columns, like the landmarks; got 2"):
        found.features(X[:, :2])
    with pytest.raises(ValueError, match="X must have 50 columns, kernel values with all points; got 3"):
        known.features(X)
    with pytest.raises(ValueError, match="diagonal must be an array, as the kernel is precomputed; got NoneType"):
        known.leverage(K)
    with pytest.raises(ValueError, match="diagonal must be None, as the kernel gives it; got ndarray"):
        found.leverage(X, diagonal=np.ones(50))
    with pytest.raises(ValueError, match=r"diagonal must have shape \(50,\), one value per row of X; got \(3,\)"):
        known.leverage(K, diagonal=np.ones(3))
    with pytest.raises(ValueError, match="diagonal must not be negative; got -1"):
        known.leverage(K, diagonal=-np.ones(50))
    with pytest.raises(ValueError, match="diagonal must be finite"):
        known.leverage(K, diagonal=np.full(50, np.nan))
    with pytest.raises(ValueError, match="X must be finite"):
        found.leverage(np.full((2, 3), np.inf))


def test_kernel_below_the_smallest_normal_number():
    """Its rounding is no longer relative, and no sign of an indefinite kernel."""
    X = 1e-160 * np.random.default_rng(25).standard_normal((200, 3))
    found = kernel_landmarks(X, 2, kernel="linear", rng=0)
    assert len(found.indices) == 2
    assert found.ridge > 0
