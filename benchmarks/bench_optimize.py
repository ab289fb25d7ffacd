"""pytest benchmarks/bench_optimize.py: passes and Hessian products of a GLM, and whole runs, beside numpy and SciPy.

Runs of randla end at a gradient of 1e-6, those of SciPy within 1e-7 of that loss or after 5 s.
"""

import numpy as np
import pytest

from randla.bench.optimize import OURS, SCIPY, by_randla, by_scipy, classification, start
from randla.optimize import GLM

N, DIM = 200_000, 54


@pytest.fixture(scope="module", params=["float64 C", "float64 F", "float32 C"])
def problem(request):
    dtype, order = request.param.split()
    problem = GLM(*classification(N, DIM, 0, dtype, order), "squared_sigmoid")
    problem.label = request.param
    return problem


def product(problem, x, V):
    H = problem.hessian(x)
    return lambda: H @ V


def by_numpy(problem, x, v):
    X, d = problem.X, problem.at(x).weights.astype(problem.X.dtype)
    v = v.astype(X.dtype)
    return lambda: X.T @ (d * (X @ v))


CALLS = {
    "value, gradient and weights": lambda problem, x, v: lambda: problem.at(x).grad,
    "Hessian product": product,
    "8 Hessian products": lambda problem, x, v: product(problem, x, np.tile(v[:, None], 8)),
    "dense Hessian": lambda problem, x, v: problem.hessian(x).to_dense,
    "numpy Hessian product": by_numpy,
}


@pytest.mark.parametrize("name", CALLS)
def test_kernel(benchmark, problem, name):
    benchmark.group = f"GLM {N} x {DIM}, {problem.label}"
    benchmark(CALLS[name](problem, start(DIM, 0), start(DIM, 1)))


@pytest.mark.parametrize("name", [*OURS, *SCIPY])
def test_run(benchmark, problem, name):
    if problem.label != "float64 C":
        pytest.skip("runs are measured on one layout")
    benchmark.group = f"squared sigmoid loss, {N} x {DIM}, to the end"
    x0 = start(DIM, 0)
    if name in OURS:
        call = lambda: by_randla(problem, x0, rng=0, **OURS[name])  # noqa: E731
    else:
        best = by_randla(problem, x0, rng=0).evaluate(problem).fun[-1]
        call = lambda: by_scipy(problem, x0, name, level=best * (1 + 1e-7), budget=5.0)  # noqa: E731
    benchmark.pedantic(call, rounds=2, warmup_rounds=1)
