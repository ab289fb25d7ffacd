"""Results as they are shown: short whatever the size, every figure under its name."""

import numpy as np
import pytest

import randla


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((400, 6)), rng.standard_normal((400, 2))


def lines_of(result):
    return dict(line.strip().split(": ", 1) for line in repr(result).splitlines() if ": " in line)


def test_least_squares(problem):
    A, B = problem
    result = randla.lstsq(A, B, method="spir", rng=3)
    shown = lines_of(result)
    assert shown["message"] == result.message
    assert shown["backward_error"] == str(result.backward_error)
    assert shown["seed"] == "3"
    rows = repr(result).splitlines()
    start = next(i for i, row in enumerate(rows) if row.strip().startswith("x: "))
    assert {row.index("[") for row in rows[start + 1 :]} == {rows[start].index("[[") + 1}


def test_leverage_scores(problem):
    found = randla.leverage_scores(problem[0], full_output=True, rng=3)
    shown = lines_of(found)
    assert shown["rank"] == "6"
    assert shown["cond"] == str(found.cond)
    assert shown["scores"].startswith(f"[{found.scores[0]:.8f}")
    assert len(repr(found)) < 500


def test_lewis_weights(problem):
    found = randla.lewis_weights(problem[0], 1, full_output=True, rng=3)
    shown = lines_of(found)
    assert shown["residual"] == str(found.residual)
    assert shown["method"] == found.method
    assert len(repr(found)) < 500


def test_lp_regression(problem):
    A, B = problem
    found = randla.lp_regression(A, B[:, 0], 1, rng=3)
    shown = lines_of(found)
    assert (shown["p"], shown["gap"], shown["status"]) == ("1.0", str(found.gap), str(found.status))
    assert len(repr(found)) < 700  # without the dual and the history


def test_accumulator():
    accumulator = randla.SparseStack().sample(10, 400, rng=3).accumulator(6)
    operator = "SketchOperator(distribution=SparseStack(nnz=8), shape=(10, 400), seed=3)"
    assert repr(accumulator) == f"SketchAccumulator({operator}, n=6, dtype=float64)"
