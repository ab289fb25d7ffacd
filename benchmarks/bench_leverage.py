"""pytest benchmarks/bench_leverage.py: leverage scores by each method, beside the routes through LAPACK."""

import numpy as np
import pytest

import randla
from randla.bench.leverage import qr_route, svd_route

M, N = 100_000, 200


@pytest.fixture(scope="module", params=["C", "F"])
def matrix(request):
    return np.asarray(np.random.default_rng(0).standard_normal((M, N)), order=request.param)


CALLS = {
    "exact": lambda A: randla.leverage_scores(A, method="exact", rng=0),
    "sketch": lambda A: randla.leverage_scores(A, method="sketch", rng=0),
    "ridge": lambda A: randla.leverage_scores(A, ridge=float(M), rng=0),
    "numpy QR": qr_route,
    "scipy SVD": svd_route,
}


@pytest.mark.parametrize("name", CALLS)
def test_leverage(benchmark, matrix, name):
    benchmark.group = f"leverage scores {M} x {N}, {'C' if matrix.flags.c_contiguous else 'F'} order"
    benchmark(CALLS[name], matrix)
