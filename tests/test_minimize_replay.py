"""`minimize` on samples takes the same steps, to the bit, for the same seed."""

import hashlib
import json
import math

import numpy as np
import pytest
from minimize_problems import quietly
from oracles import words64
from problems import run_python
from sampled_runs import data, glm

import randla
from randla import _cpu
from randla.optimize import GLM, CubicRegularization, TrustRegion


def trajectory(**arguments):
    X, y = data(40_000, 10)
    seen = []
    problem = GLM(X, y, "squared_sigmoid")
    result = quietly(problem, np.full(10, 0.1), callback=lambda state: seen.append(state.x), gtol=1e-6, maxiter=15, **arguments)
    return hashlib.sha256(np.array([*seen, result.x]).tobytes()).hexdigest() + f" {result.props} {result.min_eig}"


RUNS = {
    "all": {"method": "trust-region"},
    "adaptive": {"method": "trust-region", "gradient_sample": "adaptive", "hessian_sample": "adaptive"},
    "cubic": {"method": "cubic", "gradient_sample": "adaptive", "hessian_sample": 0.05},
    "newton-mr": {"method": "newton-mr", "hessian_sample": 0.05},
    "row-norm": {"method": CubicRegularization(subproblem="block"), "hessian_sample": 0.02, "sampling": "row-norm"},
    "fixed": {"method": TrustRegion(subproblem="block"), "gradient_sample": 0.2, "hessian_sample": 0.05},
}


def fingerprints(names=RUNS):
    return {name: trajectory(rng=7, **RUNS[name]) for name in names}


@pytest.fixture
def _restored_threads():
    before = _cpu.max_threads()
    yield
    randla.set_num_threads(before)


@pytest.mark.usefixtures("_restored_threads", "one_blas_thread")
@pytest.mark.skipif(not _cpu.has_openmp(), reason="built without OpenMP")
def test_threads_do_not_change_a_bit():
    found = []
    for threads in (1, 2, 3):
        randla.set_num_threads(threads)
        found.append(fingerprints())
    assert found[0] == found[1] == found[2]
    assert len(set(found[0].values())) == len(RUNS)


def test_instruction_sets_do_not_change_a_bit():
    names = ("adaptive", "row-norm")
    code = f"import json, test_minimize_replay as t; print(json.dumps(t.fingerprints({names})))"
    found = {}
    for isa in _cpu.available_isas():
        run = run_python(code, RANDLA_ISA=isa, OPENBLAS_NUM_THREADS="1")
        assert run.returncode == 0, run.stderr
        found[isa] = json.loads(run.stdout)
    assert all(prints == found["baseline"] for prints in found.values())


@pytest.mark.parametrize("name", RUNS)
def test_seeds_replay(name):
    arguments = dict(RUNS[name])
    problem = glm()

    def run(rng):
        return quietly(problem, np.full(12, 0.1), rng=rng, maxiter=12, **arguments)

    first = run(np.random.default_rng(11))
    again = run(first.seed)
    assert first.seed == again.seed
    np.testing.assert_array_equal(first.x, again.x)
    assert first.props == again.props
    others = [run(seed).x for seed in range(3)]
    differ = any(not np.array_equal(x, first.x) for x in others)
    assert differ == (name != "all")  # without samples, nothing is drawn but for the certificate
    assert run(None).seed != run(None).seed


def test_the_random_order_is_that_of_the_seed():
    """The first gradient sample is the rows that definitions.md says."""
    problem = GLM(*data(1500, 6), "squared_sigmoid")
    keys = [int(words64(np.array([i]), np.array([0]), 15, 5)[0].item()) for i in range(1500)]
    rows = np.argsort(keys)[:400]
    x0 = np.full(6, 0.2)
    result = quietly(problem, x0, gradient_sample=400, function_sample="gradient", maxiter=0, htol=math.inf, gtol=1e-9, rng=5)
    assert result.fun == pytest.approx(problem.value(x0, rows), rel=1e-13)
    np.testing.assert_allclose(result.jac, problem.grad(x0, rows), rtol=1e-11, atol=1e-15)
