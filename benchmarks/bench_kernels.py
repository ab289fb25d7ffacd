"""pytest benchmarks/bench_kernels.py: the fused residual pass beside a read, the Walsh-Hadamard transform beside a copy."""

import numpy as np
import pytest

from randla import _cpu
from randla.bench.measure import copy_by_threads, read_by_product, read_by_sum
from randla.structured import fwht

M, N = 100_000, 200
LENGTH, BATCH = 1 << 12, 512


@pytest.fixture(scope="module", params=[(t, o) for t in ("float64", "float32") for o in "CF"], ids="-".join)
def matrix(request):
    dtype, order = request.param
    return np.array(np.random.default_rng(0).standard_normal((M, N)), dtype=dtype, order=order)


@pytest.mark.parametrize("name", ["residual", "read by product", "read by sum"])
def test_pass(benchmark, matrix, name):
    x, b, r, g = np.ones((1, N)), np.ones((1, M)), np.empty((1, M)), np.empty((1, N))
    calls = {
        "residual": lambda: _cpu.residual(matrix, x, b, r, g),
        "read by product": read_by_product(matrix),
        "read by sum": read_by_sum(matrix),
    }
    benchmark.group = f"pass {M} x {N}, {matrix.dtype}, {'C' if matrix.flags.c_contiguous else 'F'} order"
    benchmark(calls[name])
    benchmark.extra_info["gbytes_per_second"] = matrix.nbytes / benchmark.stats["median"] / 1e9


@pytest.mark.parametrize("axis", [0, 1], ids=["first axis", "last axis"])
@pytest.mark.parametrize("name", ["fwht", "copy"])
def test_transform(benchmark, name, axis):
    X = np.random.default_rng(0).standard_normal((LENGTH, BATCH) if axis == 0 else (BATCH, LENGTH)).astype(np.float32)
    out = np.empty_like(X)
    calls = {"fwht": lambda: fwht(X, axis=axis, out=out), "copy": copy_by_threads(X, out, 2)}
    benchmark.group = f"{BATCH} vectors of {LENGTH}, float32, {'last' if axis else 'first'} axis"
    benchmark(calls[name])
