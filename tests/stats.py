"""Statistical gates. Each one draws nothing: the caller passes a sample of fixed size from a fixed seed.

A gate rejects when the p-value of an exact or asymptotically exact law is below FALSE_ALARM. That is the probability
that a correct generator fails under a seed never tried before; with the seed fixed every run has the same outcome.
"""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6
Z_LIMIT = stats.norm.isf(FALSE_ALARM / 2)


def require(p_value, what):
    assert p_value >= FALSE_ALARM, f"{what}: p = {p_value:.2e} is below {FALSE_ALARM:g}"


def z_gate(z, what):
    """Two-sided gate on a statistic that is standard normal for a correct generator."""
    require(2 * stats.norm.sf(abs(z)), f"{what} (z = {z:.2f})")


def normal_gate(sample, what):
    """Kolmogorov-Smirnov against N(0, 1)."""
    require(stats.kstest(np.ravel(sample), "norm").pvalue, what)


def normal_moments_gate(sample, what):
    """First four moments of N(0, 1); the variance of x^k is E x^2k - (E x^k)^2."""
    x = np.ravel(sample)
    for k, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        z_gate((np.mean(x**k) - mean) * np.sqrt(x.size / variance), f"{what}, moment {k}")


def chi_square_gate(counts, probabilities, what, *, scale=1.0):
    """Pearson's statistic against chi-square; `scale` corrects for cells filled without replacement.

    Cells with fewer than 20 expected counts would make the asymptotic law wrong in the far tail that is used here.
    """
    counts = np.asarray(counts, float)
    expected = counts.sum() * np.broadcast_to(probabilities, counts.shape)
    assert expected.min() >= 20
    statistic = scale * np.sum((counts - expected) ** 2 / expected)
    require(stats.chi2.sf(statistic, counts.size - 1), f"{what} (chi2 = {statistic:.1f} on {counts.size - 1})")


def binomial_gate(successes, trials, probability, what):
    """Exact two-sided gate on a number of independent events."""
    require(stats.binomtest(int(successes), int(trials), probability).pvalue, what)


def correlation_gate(x, y, what):
    """For independent samples of mean zero and variance one, sum(x y) / sqrt(N) is standard normal for large N."""
    x, y = np.ravel(x), np.ravel(y)
    assert x.size >= 1000
    z_gate(x @ y / np.sqrt(x.size), what)
