"""pytest benchmarks/bench_lstsq.py: randla.lstsq and LAPACK, accuracy recorded beside time."""

import pytest

from randla.bench import lstsq
from randla.bench.accuracy import Reference
from randla.datasets import least_squares

SIZES = ((20_000, 100), (100_000, 200))
SOLVERS = [*lstsq.randla_solvers(), *lstsq.peers(lstsq.LAPACK)]


@pytest.fixture(scope="module", params=SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def problem(request):
    generated = least_squares(*request.param, rng=1)
    return generated, Reference(*generated)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
def test_lstsq(benchmark, problem, solver):
    (A, b, _), reference = problem
    benchmark.group = f"lstsq {A.shape[0]} x {A.shape[1]}"
    x, facts = solver.read(benchmark(solver.solve, A, b))
    error = reference.backward_error(x)
    benchmark.extra_info |= {"backward_error": error, "forward_error": reference.forward_error(x), **facts}
    assert error < 1e-10  # LSQR is forward stable only
