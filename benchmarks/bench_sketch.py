"""pytest benchmarks/bench_sketch.py: S @ A with the making of S, for each family, and what SciPy has."""

import numpy as np
import pytest
import scipy.linalg

from randla.bench import sketch
from randla.bench.measure import read_by_product, read_by_sum

M, N = 100_000, 200
D = 4 * N


@pytest.fixture(scope="module", params=["C", "F"])
def matrix(request):
    return np.asarray(np.random.default_rng(0).standard_normal((M, N)), order=request.param)


def calls(A):
    yield "read by product", read_by_product(A)
    yield "read by sum", read_by_sum(A)
    for name, distribution in sketch.families([*sketch.FAMILIES, "Gaussian()"]).items():
        yield name, lambda distribution=distribution: distribution.sample(D, M, rng=0) @ A
    yield "scipy csc_array @ A", sketch.scipy_csc(A, D)
    yield "scipy clarkson_woodruff_transform", lambda: scipy.linalg.clarkson_woodruff_transform(A, D, 0)


NAMES = [name for name, _ in calls(np.zeros((M, 1)))]


@pytest.mark.parametrize("name", NAMES)
def test_sketch(benchmark, matrix, name):
    benchmark.group = f"sketch {M} x {N}, d = {D}, {'C' if matrix.flags.c_contiguous else 'F'} order"
    benchmark(dict(calls(matrix))[name])
    benchmark.extra_info["gbytes_per_second"] = matrix.nbytes / benchmark.stats["median"] / 1e9
