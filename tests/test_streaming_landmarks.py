"""Landmarks of a stream against dense eigendecompositions, a second implementation, and their own invariances."""

import pickle
import warnings

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
import stats
from test_landmarks import exact_scores, points, rbf

from randla.landmarks import LandmarksWarning
from randla.landmarks import streaming as _streaming_landmarks
from randla.landmarks.streaming import StreamingLandmarks

pytestmark = pytest.mark.usefixtures("one_blas_thread")

STREAM = 20


def stream(X, ridge, chunk=None, kernel="rbf", **options):
    out = StreamingLandmarks(kernel, ridge, rng=options.pop("rng", 3), **options)
    step = chunk or max(1, X.shape[0])
    for start in range(0, X.shape[0], step):
        out.add(X[start : start + step])
    return out


@pytest.mark.parametrize("name", ["spread", "clusters", "outliers", "duplicates"])
@pytest.mark.parametrize("ridge", [10.0, 0.5])
def test_quality_of_the_approximation_and_of_the_scores(name, ridge):
    X = points(name, 1300)
    K = rbf(X, X)
    found = stream(X, ridge, 300, gamma=1.0).result()
    F = found.features(X)
    error = np.linalg.eigvalsh(K - F @ F.T)
    assert error[0] >= -1e-9
    assert error[-1] <= ridge
    exact = exact_scores(K, ridge)
    assert 0.6 < found.effective_dimension / exact.sum() < 1.5
    scores = found.leverage(X)
    assert 0.4 < np.min(scores / exact) <= np.max(scores / exact) < 2.5
    assert found.success
    assert found.scores is None
    assert np.all(np.diff(found.indices) > 0)
    np.testing.assert_array_equal(found.points, X[found.indices])


def test_size_of_the_dictionary_follows_the_effective_dimension():
    # Twelve clusters that come one after the other: every one is new when it comes.
    X = points("clusters", 6000)
    X = X[np.argsort(np.arange(6000) % 12, kind="stable")]
    d = exact_scores(rbf(X[::3], X[::3]), 10.0).sum()  # a third of the points and of the ridge
    found = stream(X, 30.0, 1000, gamma=1.0)
    expected = 1.5 * 2 * np.log(2 * d) * d
    assert len(found.indices) < 1.3 * expected
    assert len(found.indices) < 0.06 * len(X)
    later = stream(np.concatenate([X, X]), 60.0, 1000, gamma=1.0)
    assert len(later.indices) < 1.3 * expected


@pytest.mark.parametrize("budget", [None, 60])
def test_chunks_of_any_size_give_the_same(budget):
    X = points("clusters", 1500)
    out = []
    for chunk in (None, 1, 37, 512, 700):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LandmarksWarning)
            S = stream(X, 4.0, chunk, gamma=1.0, budget=budget)
            out.append(S.result())
        assert S.n_seen == 1500
    assert out[0].success == (budget is None)
    for other in out[1:]:
        np.testing.assert_array_equal(other.indices, out[0].indices)
        np.testing.assert_allclose(other.weights, out[0].weights, rtol=1e-9)
        assert other.kernel_evaluations == out[0].kernel_evaluations


def test_looking_at_a_stream_does_not_change_it():
    X = points("clusters", 1500)
    quiet, watched = stream(X, 4.0, 130, gamma=1.0), StreamingLandmarks("rbf", 4.0, gamma=1.0, rng=3)
    for start in range(0, 1500, 130):
        watched.add(X[start : start + 130])
        assert len(watched.indices) == len(watched.weights) == len(watched.points)
        assert watched.indices[-1] < min(1500, start + 130)
    np.testing.assert_array_equal(watched.indices, quiet.indices)
    np.testing.assert_array_equal(watched.weights, quiet.weights)


def test_results_replay():
    X = points("clusters", 1500)
    first = stream(X, 4.0, gamma=1.0, rng=None)
    again = stream(X, 4.0, gamma=1.0, rng=first.seed)
    np.testing.assert_array_equal(first.indices, again.indices)
    assert first.result().seed == first.seed
    assert not np.array_equal(first.indices, stream(X, 4.0, gamma=1.0, rng=first.seed + 1).indices)


def test_the_first_block_is_the_defined_one():
    # Scores of <x, y> in feature space: on arrival k / (k + ridge), then against all that were kept.
    X = np.random.default_rng(0).standard_normal((400, 20)) * np.where(np.arange(400) % 7, 0.7, 3)[:, None]
    first = 2**33 + 5
    found = stream(X, 20.0, kernel="linear", start=first, epsilon=0.8, rng=11).result()
    u = (oracles.words64(first + np.arange(400), 0, STREAM, 11)[0] >> np.uint64(11)).astype(float) * 2.0**-53

    def q(d):
        return 1.8 * max(1, np.log(2 * max(d, 1)) / (2 * 0.8**2))

    k = np.einsum("ij,ij->i", X, X)
    p = np.minimum(1, q(np.sum(k / (k + 20))) * k / (k + 20))
    for _ in range(2):  # once as the block is longer than what was held, once for the result
        kept = np.flatnonzero(u < p)
        assert len(kept) > 64
        M = (X[kept].T / p[kept]) @ X[kept] + 20 * np.eye(20)
        scores = np.einsum("ij,jk,ik->i", X, np.linalg.inv(M), X)
        p = np.where(u < p, np.minimum(p, q(scores[kept] @ (1 / p[kept])) * scores), 0)
    kept = np.flatnonzero(u < p)
    assert 64 < len(kept) < 300
    np.testing.assert_array_equal(found.indices, first + kept)
    np.testing.assert_allclose(found.weights, 1 / p[kept], rtol=1e-9)


def test_later_blocks_are_judged_on_arrival_by_what_is_held():
    X = np.random.default_rng(0).standard_normal((1024, 3))
    S = StreamingLandmarks("linear", 100.0, rng=11)
    S.add(X[:512])
    held = S._held
    S.add(X[512:])
    new = S._held
    M = (held.points.T / held.probabilities) @ held.points + 100 * np.eye(3)
    alone = np.einsum("ij,jk,ik->i", X[512:], np.linalg.inv(M), X[512:])
    scores = alone / (1 + alone)
    q = 3 * np.log(2 * (held.dimension + scores.sum()))
    u = (oracles.words64(np.arange(512, 1024), 0, STREAM, 11)[0] >> np.uint64(11)).astype(float) * 2.0**-53
    assert new.judged == held.judged  # few came: the old ones were left as they were
    np.testing.assert_array_equal(new.rows[len(held) :], 512 + np.flatnonzero(u < q * scores))
    np.testing.assert_allclose(new.probabilities[len(held) :], (q * scores)[u < q * scores], rtol=1e-9)
    np.testing.assert_array_equal(new.rows[: len(held)], held.rows)
    np.testing.assert_allclose(new.gram, new.points @ new.points.T, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"budget": 6}, {"merged": True}], ids=str)
def test_weights_are_unbiased(options, monkeypatch):
    # E sum w x x' = X'X at the end of 15 blocks; means of 400 seeds, by the central limit theorem. 6 gates.
    monkeypatch.setattr(_streaming_landmarks, "_BLOCK", 40)
    X = points("outliers", 590)
    X[::60] *= 20
    merged = options.pop("merged", False)
    sums, sizes = [], []
    for seed in range(400):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LandmarksWarning)
            S = stream(X[:300] if merged else X, 40.0, kernel="linear", rng=seed, **options)
            if merged:
                S.merge(stream(X[300:], 40.0, kernel="linear", rng=seed, start=300))
            found = S.result()
        sizes.append(len(found.indices))
        sums.append((found.points.T * found.weights) @ found.points)
    sums = np.array(sums)
    assert sums.std(axis=0).min() > 0
    assert not options or max(sizes) == 6
    for i in range(3):
        for j in range(i + 1):
            entry = sums[:, i, j]
            z = (entry.mean() - X[:, i] @ X[:, j]) / (entry.std(ddof=1) / np.sqrt(400))
            stats.z_gate(z, f"entry {i}, {j}")


def test_budget_is_kept_and_said_once():
    X = points("spread", 3000)
    largest = 0

    def kernel(a, b):
        nonlocal largest
        largest = max(largest, len(a), len(b))
        return rbf(a, b)

    S = StreamingLandmarks(kernel, 0.1, budget=50, rng=0)
    sizes = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for start in range(0, 3000, 100):
            S.add(X[start : start + 100])
            sizes.append(len(S.indices))
    assert max(sizes) == 50
    assert [w.category for w in seen] == [LandmarksWarning]
    assert str(seen[0].message) == "The budget of 50 landmarks was reached: they are too few for the ridge 0.1."
    assert seen[0].filename == __file__
    with pytest.warns(LandmarksWarning, match="The budget of 5 landmarks was reached") as seen:
        assert len(stream(X[:100], 0.1, budget=5).indices) == 5
    assert seen[0].filename == __file__
    assert len(S._held) <= 50
    assert largest <= 512 + 50
    found = S.result()
    assert len(found.indices) == 50
    assert not found.success
    assert found.message.startswith("The budget of 50 landmarks was reached")
    F = found.features(X)
    assert np.trace(rbf(X, X)) - np.sum(F**2) < 0.6 * 3000


def test_a_budget_that_is_not_reached_changes_nothing():
    X = points("clusters", 1500)
    free = stream(X, 4.0, gamma=1.0)
    # The dictionary grows by what a block brings before all are judged again.
    bounded = stream(X, 4.0, gamma=1.0, budget=1500)
    np.testing.assert_array_equal(bounded.indices, free.indices)
    assert bounded.result().success


def test_merged_parts_approximate_the_whole():
    X = points("clusters", 1800)
    K = rbf(X, X)
    parts = [stream(X[s : s + 600], 10.0, 90, gamma=1.0, start=s) for s in (1200, 0, 600)]
    total = parts[0]
    for part in parts[1:]:
        total.merge(part)
    assert total.n_seen == 1800
    found = total.result()
    F = found.features(X)
    assert np.linalg.norm(K - F @ F.T, 2) <= 10
    exact = exact_scores(K, 10.0)
    scores = found.leverage(X)
    assert 0.4 < np.min(scores / exact) <= np.max(scores / exact) < 2.5
    np.testing.assert_array_equal(found.points, X[found.indices])
    np.testing.assert_allclose(total._held.gram, K[np.ix_(total._held.rows, total._held.rows)], atol=1e-12)
    assert len(found.indices) < 1.5 * len(stream(X, 10.0, gamma=1.0).indices)
    total.add(X[:10])
    assert total.n_seen == 1810
    assert total._ranges[-1] == (1200, 1810)


def test_merging_with_a_stream_without_rows():
    X = points("clusters", 600)
    full, empty = stream(X, 10.0), StreamingLandmarks("rbf", 10.0, start=600, rng=3)
    before = full.indices
    full.merge(empty)
    np.testing.assert_array_equal(full.indices, before)
    empty.merge(stream(X, 10.0))
    np.testing.assert_array_equal(empty.indices, before)
    empty.add(X)
    assert empty.n_seen == 1200


def test_sparse_rows_are_the_dense_ones():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1300, 8)) * (rng.random((1300, 8)) < 0.3)
    dense, sparse, mixed = (StreamingLandmarks("linear", 20.0, rng=0) for _ in range(3))
    other = StreamingLandmarks("linear", 20.0, rng=0)
    for start in range(0, 1300, 400):
        part = X[start : start + 400]
        dense.add(part)
        sparse.add(sp.csr_array(part))
        mixed.add(part if start else sp.csc_array(part))
        other.add(sp.csr_matrix(part) if start else part)
    for S in (sparse, mixed, other):
        np.testing.assert_array_equal(S.indices, dense.indices)
        np.testing.assert_allclose(S.weights, dense.weights, rtol=1e-9)
    assert sp.issparse(mixed.points)
    assert not sp.issparse(other.points)
    np.testing.assert_allclose(sparse.result().leverage(X), dense.result().leverage(sp.csr_array(X)), rtol=1e-9)


def test_layouts_and_types_of_the_rows():
    X = np.round(points("clusters", 1100) * 64) / 64
    plain = stream(X, 5.0)
    frozen = X.copy()
    frozen.flags.writeable = False
    wide = np.zeros((2200, 6))
    wide[::2, ::2] = X
    for other in (np.asfortranarray(X), frozen, wide[::2, ::2], X.astype(np.float32)):
        S = stream(other, 5.0, 300)
        np.testing.assert_array_equal(S.indices, plain.indices)
        np.testing.assert_allclose(S.weights, plain.weights, rtol=1e-9)
    turned = stream(X * (0.6 + 0.8j), 5.0, 300, kernel="linear")
    straight = stream(X, 5.0, 300, kernel="linear")
    np.testing.assert_array_equal(turned.indices, straight.indices)


def test_rows_handed_over_may_be_overwritten():
    X = points("clusters", 900)
    S, buffer = StreamingLandmarks("rbf", 5.0, rng=3), np.empty((300, 3))
    for start in range(0, 900, 300):
        buffer[:] = X[start : start + 300]
        S.add(buffer)
        buffer[:] = np.nan
    np.testing.assert_array_equal(S.indices, stream(X, 5.0).indices)


def test_a_stream_can_be_saved_and_continued():
    X = points("clusters", 1500)
    whole, part = stream(X, 4.0), stream(X[:777], 4.0)
    part = pickle.loads(pickle.dumps(part))
    part.add(X[777:])
    np.testing.assert_array_equal(part.indices, whole.indices)
    np.testing.assert_array_equal(part.weights, whole.weights)


@pytest.mark.parametrize("exponent", [-340, 340])
def test_scales_by_powers_of_two_change_nothing(exponent):
    X = points("clusters", 1100)
    plain = stream(X, 50.0, kernel="linear")
    scaled = stream(X * 2.0 ** (exponent // 2), 50.0 * 2.0**exponent, kernel="linear")
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.weights, plain.weights, rtol=1e-9)


def test_zero_rows_few_rows_and_no_rows():
    zero = stream(np.zeros((700, 2)), 1.0, kernel="linear").result()
    assert len(zero.indices) == 0
    assert zero.effective_dimension == 0
    assert zero.features(np.ones((3, 2))).shape == (3, 0)
    np.testing.assert_array_equal(zero.leverage([[0.0, 0.0], [3.0, 0.0]]), [0, 0.9])
    one = stream(np.ones((1, 2)), 0.5, kernel="linear").result()
    np.testing.assert_array_equal(one.indices, [0])
    np.testing.assert_array_equal(one.weights, [1])
    none = stream(np.zeros((0, 2)), 1.0)
    with pytest.raises(ValueError, match="add must be called with rows before there is a result"):
        _ = none.indices
    none.add(np.zeros((0, 2)))
    none.add(np.ones((1, 2)))
    np.testing.assert_array_equal(none.indices, [0])


def test_a_ridge_below_rounding_is_said():
    X = np.random.default_rng(0).standard_normal((600, 2))
    found = stream(X, 1e-16, kernel="linear").result()
    assert not found.success
    assert "below the rounding errors of the kernel matrix" in found.message
    assert np.all(found.weights >= 1)


def test_rows_that_are_refused_leave_the_stream_as_it_was():
    X = points("clusters", 900)
    bad = X.copy()
    bad[300] = 99

    def kernel(a, b):
        return np.where((a[:, :1] == 99) & (b[:, 0] == 99), -1.0, rbf(a, b))

    S = stream(X[:100], 4.0, kernel=kernel)
    with pytest.raises(ValueError, match="kernel must be positive semi-definite; got the diagonal value -1"):
        S.add(bad[100:])
    with pytest.raises(ValueError, match="rows must be finite"):
        S.add(np.full((600, 3), np.nan))
    with pytest.raises(ValueError, match="rows must have 3 columns like those before; got 2"):
        S.add(np.ones((600, 2)))
    assert S.n_seen == 100
    S.add(X[100:])
    np.testing.assert_array_equal(S.indices, stream(X, 4.0, kernel=kernel).indices)


def test_an_indefinite_kernel_is_refused():
    X = points("spread", 700)
    with pytest.raises(ValueError, match="kernel must be positive semi-definite; got"):
        stream(X, 1.0, kernel=lambda a, b: np.sum(np.abs(a[:, None] + b[None]) ** 3, axis=2)).result()
    with pytest.raises(ValueError, match="kernel must be finite"):
        stream(X, 1.0, kernel=lambda a, b: np.where(a[:, :1] > 2, np.nan, rbf(a, b)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel": "precomputed"}, ValueError, "'linear', 'rbf', 'laplacian' or a callable for points that arrive"),
        ({"kernel": 3}, ValueError, "kernel must be one of"),
        ({"ridge": 0.0}, ValueError, "ridge must be finite and greater than 0"),
        ({"gamma": 0}, ValueError, "gamma must be finite and greater than 0"),
        ({"epsilon": 0}, ValueError, "epsilon must be finite and greater than 0"),
        ({"epsilon": 1.5}, ValueError, "epsilon must be at most 1; got 1.5"),
        ({"budget": 0}, ValueError, "budget must be at least 1; got 0"),
        ({"start": -1}, ValueError, "start must be between 0 and"),
        ({"rng": "x"}, TypeError, "rng must be None"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        StreamingLandmarks(**{"kernel": "rbf", "ridge": 1.0, **arguments})


def test_arguments_of_merge_are_checked():
    X = points("spread", 100)
    S = stream(X, 1.0)
    for other, error, message in (
        (X, TypeError, "other must be a StreamingLandmarks; got ndarray"),
        (stream(X, 2.0, start=100), ValueError, "other must have the same ridge, 1.0; got 2.0"),
        (stream(X, 1.0, gamma=2.0, start=100), ValueError, r"other must have the same kernel and gamma, \('rbf', None\)"),
        (stream(X, 1.0, epsilon=0.4, start=100), ValueError, "other must have the same epsilon, 0.5; got 0.4"),
        (stream(X, 1.0, rng=4, start=100), ValueError, "other must have the same seed, 3; got 4"),
        (stream(X, 1.0, start=99), ValueError, r"other must have other row numbers than \[\(0, 100\)\]; got \[\(99, 199\)\]"),
        (stream(X[:, :2], 1.0, start=100), ValueError, "other must have 3 columns; got 2"),
    ):
        with pytest.raises(error, match=message):
            S.merge(other)
    np.testing.assert_array_equal(S.indices, stream(X, 1.0).indices)
