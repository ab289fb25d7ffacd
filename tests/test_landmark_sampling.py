"""Which landmarks are drawn, against the definition and with what probabilities."""

import numpy as np
import oracles
import pytest
import stats
from kernel_oracles import exact_scores, points, rbf

from randla.landmarks import kernel_landmarks
from randla.landmarks import recursive as landmarks

pytestmark = pytest.mark.usefixtures("one_blas_thread")

STREAM = 19


def uniform(index, third):
    return (oracles.words64(index, third, STREAM, 7)[0] >> np.uint64(11)).astype(float) * 2.0**-53


def test_poisson_sample_is_the_defined_one():
    X = points("spread", 250)
    found = kernel_landmarks(X, kernel="rbf", gamma=1.0, ridge=5.0, rng=7)
    scores = exact_scores(rbf(X, X), 5.0)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-9)
    p = np.minimum(1, 2 * np.log(2 * scores.sum()) * scores)
    np.testing.assert_array_equal(found.indices, np.flatnonzero(uniform(np.arange(250), 1) < p))
    np.testing.assert_allclose(found.weights, 1 / p[found.indices], rtol=1e-9)


def test_sample_of_fixed_size_is_the_defined_one():
    X = points("outliers", 250)
    found = kernel_landmarks(X, 40, kernel="rbf", gamma=1.0, ridge=0.5, rng=7)
    scores = exact_scores(rbf(X, X), 0.5)
    low, high = 1.0, 1e6
    for _ in range(200):
        c = (low + high) / 2
        low, high = (low, c) if np.minimum(1, c * scores).sum() > 40 else (c, high)
    p = np.minimum(1, c * scores)
    order, start = oracles.words64(np.arange(250), 1, STREAM, 7)
    at = (start[0] >> np.uint64(11)) * 2.0**-53
    expected, total = [], 0.0
    for i in np.argsort(order):
        if p[i] > 1 - 1e-9:
            expected.append(i)
            continue
        total += p[i]
        if total > at:
            expected.append(i)
            at += 1
    assert (p > 1 - 1e-9).any()
    np.testing.assert_array_equal(found.indices, np.sort(expected))
    np.testing.assert_allclose(found.weights, 1 / p[found.indices], rtol=1e-9)


def test_levels_are_nested_random_halves():
    run = landmarks._Recursion(landmarks._kernel_matrix.Linear(), np.ones((20_000, 1)), 5, None, 7)
    levels = run._levels()
    u = uniform(np.arange(20_000), 0)
    for t, level in enumerate(levels):
        np.testing.assert_array_equal(level, np.flatnonzero(u < 2.0**-t))
    assert len(levels[-1]) <= 256 < len(levels[-2])


@pytest.mark.parametrize("k", [1, 4, 11, 12])
def test_inclusion_probabilities_are_cut_proportions(k):
    scores = np.array([0.0, 1e-3, 5, 1e-3, 0.2, 0.2, 0.3, 1e-9, 40, 7, 0.5, 0.1, 0.9])
    p = landmarks._inclusion(scores, k)
    assert p.sum() == pytest.approx(k)
    assert p[0] == 0
    open_ = (p > 0) & (p < 1)
    if open_.any():
        c = p[open_] / scores[open_]
        np.testing.assert_allclose(c, c[0])
        assert np.all(c[0] * scores[p == 1] >= 1 - 1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ties_of_certain_points(k):
    p = landmarks._inclusion(np.array([1.0, 1.0, 1.0, 1e-300]), k)
    assert p.sum() == pytest.approx(k)
    assert p[:3] == pytest.approx(k / 3)


def test_systematic_samples_have_their_probabilities():
    # 6,000 independent samples: the count of each position is binomial. 20 gates.
    rng = np.random.default_rng(0)
    p = landmarks._inclusion(rng.exponential(size=20) ** 2, 8)
    counts = np.zeros(20, int)
    for _ in range(6000):
        chosen = landmarks._systematic(p, rng.integers(0, 2**64, 20, dtype=np.uint64), rng.random())
        assert len(np.unique(chosen)) == 8
        counts[chosen] += 1
    assert (p == 1).any()
    for i in range(20):
        stats.binomial_gate(counts[i], 6000, p[i], f"position {i}")


def test_systematic_samples_survive_rounding():
    p = np.full(3_000_000, 1e-6)
    order = np.random.default_rng(0).permutation(len(p)).astype(np.uint64)
    for start in (0.0, 1 - 2.0**-53):
        assert len(np.unique(landmarks._systematic(p, order, start))) == 3
    near_one = np.full(10, 1 - 2.0**-53)
    for start in (0.0, 0.5, 1 - 2.0**-53):
        assert len(np.unique(landmarks._systematic(near_one, order[:10], start))) == 10


@pytest.mark.parametrize("how", [{"k": 25}, {"ridge": 30.0}], ids=str)
def test_weights_are_unbiased(how, monkeypatch):
    # E sum w x x' = X'X through five levels; means of 300 seeds, by the central limit theorem. 6 gates.
    monkeypatch.setattr(landmarks, "_BASE", 40)
    X = points("outliers", 700)
    X[:10] *= 20
    sums = []
    for seed in range(300):
        found = kernel_landmarks(X, kernel="linear", rng=seed, **how)
        sums.append((X[found.indices].T * found.weights) @ X[found.indices])
    sums = np.array(sums)
    for i in range(3):
        for j in range(i + 1):
            entry = sums[:, i, j]
            z = (entry.mean() - X[:, i] @ X[:, j]) / (entry.std(ddof=1) / np.sqrt(300))
            stats.z_gate(z, f"entry {i}, {j}")
