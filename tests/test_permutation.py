"""Permutations for the butterfly factorization: shuffled products are put in order again, and nothing gets worse."""

import itertools

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from randla.structured._permutation import bit_reversal
from randla.structured.factorize import FactorizeStatus, butterfly_error, factorize
from randla.structured.pattern import Chain


def planted(n, seed, complex_=False):
    """A product of dyadic factors with entries of all sizes."""
    rng = np.random.default_rng(seed)
    P = np.eye(n)
    for a, b, c, d in Chain.dyadic(n):
        K = np.zeros((a * b * d, a * c * d), np.complex128 if complex_ else np.float64)
        for i, j, k, l in itertools.product(range(a), range(b), range(c), range(d)):
            x = rng.standard_normal()
            K[i * b * d + j * d + l, i * c * d + k * d + l] = x + 1j * rng.standard_normal() if complex_ else x
        P = P @ K
    return P / np.linalg.norm(P)


def matrix(kind, n, seed):
    if kind == "hadamard":
        return scipy.linalg.hadamard(n) / n
    if kind == "dft":
        return scipy.fft.fft(np.eye(n), axis=0) / n
    return planted(n, seed, kind == "complex")


def shuffled(A, seed):
    rng = np.random.default_rng(seed)
    return A[rng.permutation(len(A))][:, rng.permutation(len(A))]


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 1024])
def test_bit_reversal(n):
    width = n.bit_length() - 1
    expected = [int(format(i, "b").zfill(width)[::-1], 2) if width else 0 for i in range(n)]
    np.testing.assert_array_equal(bit_reversal(n), expected)


@pytest.mark.parametrize("kind", ["hadamard", "dft", "real", "complex"])
@pytest.mark.parametrize("n", [4, 8, 16, 32, 64])
def test_shuffled_products_are_recovered(kind, n):
    A = shuffled(matrix(kind, n, 1), 2)
    result = factorize(A, Chain.dyadic(n), permutation="search", rng=0)
    assert result.status is FactorizeStatus.EXACT
    assert np.linalg.norm(result.to_dense() - A) <= 1e-13
    for p in (result.rows, result.columns):
        np.testing.assert_array_equal(np.sort(p), np.arange(n))
    if n > 4:
        assert factorize(A, Chain.dyadic(n)).relative_error > 0.1


@pytest.mark.parametrize("kind", ["hadamard", "dft", "complex"])
def test_shuffled_products_with_noise(kind):
    n, rng = 64, np.random.default_rng(3)
    E = rng.standard_normal((n, n))
    A = shuffled(matrix(kind, n, 4) + 0.01 * E / np.linalg.norm(E), 5)
    result = factorize(A, Chain.dyadic(n), permutation="search", rng=1)
    assert result.status is FactorizeStatus.SEARCHED
    assert "heuristic" in result.message
    assert result.relative_error <= 0.01
    assert result.error >= result.lower_bound >= 0.8 * result.error


@pytest.mark.slow
def test_large_shuffled_fourier_matrix():
    A = shuffled(matrix("dft", 256, 0), 1)
    assert factorize(A, Chain.dyadic(256), permutation="search", rng=0).relative_error <= 1e-14


def test_search_is_never_worse_than_no_permutation_and_bit_reversal():
    for seed in range(5):
        A = np.random.default_rng(seed).standard_normal((16, 16))
        chain = Chain.dyadic(16)
        found = factorize(A, chain, permutation="search", rng=seed).error
        assert found <= factorize(A, chain).error * (1 + 1e-14)
        assert found <= factorize(A, chain, permutation="bit-reversal").error * (1 + 1e-14)
    assert factorize(np.zeros((16, 16)), chain, permutation="search").error == 0


def test_seed_replays_the_search():
    A = shuffled(matrix("real", 16, 0), 1) + 0.2 * np.random.default_rng(2).standard_normal((16, 16)) / 16
    first = factorize(A, Chain.dyadic(16), permutation="search", rng=np.random.default_rng(7))
    again = factorize(A, Chain.dyadic(16), permutation="search", rng=first.seed)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.columns, again.columns)
    assert first.error == again.error


@pytest.mark.parametrize(
    ("permutation", "chain", "error", "message"),
    [
        ("random", Chain.dyadic(8), ValueError, "permutation must be 'bit-reversal', 'search', an array or a pair"),
        (np.arange(7), Chain.dyadic(8), ValueError, r"permutation must be a permutation of 0, ..., 7; got shape \(7,\)"),
        (np.zeros(8, int), Chain.dyadic(8), ValueError, "of 0, ..., 7; got 1 distinct numbers from 0 to 0"),
        (np.arange(1, 9), Chain.dyadic(8), ValueError, "of 0, ..., 7; got 8 distinct numbers from 1 to 8"),
        ([[0], [1, 2]], Chain.dyadic(8), ValueError, "permutation must be convertible to an array; got a list"),
        (np.arange(8.0), Chain.dyadic(8), TypeError, "permutation must hold integers; got float64"),
        ((np.arange(9), None), Chain.dyadic(8), ValueError, r"permutation\[0\] must be a permutation of 0, ..., 7"),
        ((None, [0, 1]), Chain.dyadic(8), ValueError, r"permutation\[1\] must be a permutation"),
        ("search", Chain.dyadic(8, 2), ValueError, r"permutation 'search' needs a dyadic chain of rank 1"),
        ("search", Chain.monarch(8, 8, 2, 4), ValueError, r"permutation 'search' needs a dyadic chain"),
    ],
)
def test_errors_name_the_argument_and_the_reason(permutation, chain, error, message):
    with pytest.raises(error, match=message):
        factorize(np.ones((8, 8)), chain, permutation=permutation)


def test_lengths_and_functions_that_bit_reversal_and_search_do_not_suit():
    with pytest.raises(ValueError, match="needs a power of two as number of columns; got 6"):
        factorize(np.ones((6, 6)), Chain.monarch(6, 6, 2, 3), permutation="bit-reversal")
    with pytest.raises(ValueError, match="needs a dyadic chain"):
        factorize(np.ones((6, 6)), Chain.monarch(6, 6, 2, 3), permutation="search")
    with pytest.raises(ValueError, match="got 'search', which `factorize` can do"):
        butterfly_error(np.ones((8, 8)), Chain.dyadic(8), permutation="search")
