"""Chains under a budget of parameters: what was planted is found, and nothing among the candidates is better."""

import numpy as np
import pytest
import scipy.linalg

from randla.structured._suggest import candidates
from randla.structured.factorize import butterfly_error, factorize, suggest_chains


def test_suggestions_respect_the_budget_and_find_what_was_planted():
    rng = np.random.default_rng(0)
    n = 64
    H = scipy.linalg.hadamard(n) + 0.01 * rng.standard_normal((n, n))
    found = suggest_chains(H, max_params=2 * n * 6)
    assert found[0].relative_error <= 0.01
    assert found == sorted(found, key=lambda s: s.error)
    for s in found:
        assert s.n_params == s.chain.n_params <= 2 * n * 6
        assert s.lower_bound <= s.error == pytest.approx(factorize(H, s.chain).error)
        assert s.lower_bound == pytest.approx(butterfly_error(H, s.chain), rel=1e-6)
        assert s.relative_error == pytest.approx(s.error / np.linalg.norm(H))
    low = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 50))
    best = suggest_chains(low, max_params=300)[0]
    assert best.relative_error <= 1e-13
    assert best.n_params <= 270


def test_suggestions_are_the_best_of_all_candidates():
    A = np.random.default_rng(0).standard_normal((24, 36)) + 3
    for budget in (70, 200, 500, 900):
        chains = candidates(24, 36, budget)
        assert all(c.shape == (24, 36) and c.n_params <= budget and not c.redundant for c in chains)
        errors = sorted(factorize(A, c).error for c in chains)
        found = suggest_chains(A, max_params=budget, limit=3)
        np.testing.assert_allclose([s.error for s in found], errors[:3], atol=1e-12)
    assert suggest_chains(A, max_params=24 * 36)[0].error == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_exact_chains_are_no_wider_than_they_must_be(dtype):
    reversed_bits = [int(f"{i:05b}"[::-1], 2) for i in range(32)]
    F = scipy.linalg.dft(32)[:, reversed_bits].astype(dtype if np.dtype(dtype).kind == "c" else np.complex128)
    waves = F if np.dtype(dtype).kind == "c" else scipy.linalg.hadamard(32).astype(dtype)
    best = suggest_chains(waves, max_params=900)[0]
    assert best.relative_error <= 100 * np.finfo(dtype).eps
    assert best.n_params == 32 * (4 + 4 + 2)
    low = (np.outer(np.arange(1, 9), np.arange(1, 7)) + np.outer(np.ones(8), np.arange(6) ** 2)).astype(dtype)
    best = suggest_chains(low, max_params=47)[0]
    assert (best.n_params, best.chain.inner_ranks) == (28, (2,))
    assert suggest_chains(np.zeros((8, 6), dtype), max_params=48)[0].n_params == 14


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A: suggest_chains(A[0], max_params=9), ValueError, "A must have 2 dimensions"),
        (lambda A: suggest_chains(A[:0], max_params=9), ValueError, r"A must have entries; got shape \(0, 8\)"),
        (lambda A: suggest_chains(A, max_params=15), ValueError, r"max_params must be at least 16 for shape \(8, 8\); got 15"),
        (lambda A: suggest_chains(A, max_params=2.5), TypeError, "max_params must be an integer"),
        (lambda A: suggest_chains(A, max_params=99, limit=0), ValueError, "limit must be at least 1"),
        (lambda A: suggest_chains(A * np.nan, max_params=99), ValueError, "A must be finite"),
    ],
)
def test_errors_name_the_argument_and_the_reason(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((8, 8)))
