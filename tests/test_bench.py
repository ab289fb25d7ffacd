"""The measuring behind `randla bench`: its judge against exact oracles, its timing, its tables."""

import numpy as np
import pytest
import scipy.sparse as sp
from ls_oracles import backward_error, karlson_walden, refined_solution

from randla import datasets
from randla.bench import accuracy, lstsq, measure, report, sketch


def test_judge_agrees_with_the_exact_backward_error():
    A, b, x = datasets.least_squares(500, 15, cond=1e5, residual=0.3, rng=2)
    judge = accuracy.Reference(A, b)
    assert judge.rank == 15
    assert judge.cond == pytest.approx(1e5, rel=1e-6)
    assert judge.forward_error(x) < 1e-10
    rng = np.random.default_rng(0)
    for size in (1e-15, 1e-8, 1e-2):
        y = x + size * rng.standard_normal(15)
        assert judge.backward_error(y) == pytest.approx(karlson_walden(A, b, y), rel=1e-3)
        assert 0.7 < judge.backward_error(y) / backward_error(A, b, y) < 1.001
    assert judge.backward_error(judge.x_qr) < 1e-15
    assert np.linalg.norm(judge.x - refined_solution(A, b)) < 1e-9


def test_judge_of_limiting_cases():
    A, b, x = datasets.least_squares(300, 10, cond=10, rng=2)
    judge = accuracy.Reference(A, A @ x)
    assert judge.backward_error(x) < 1e-16
    r = np.linalg.norm(A.T @ b) / np.linalg.norm(b) / np.linalg.norm(A)
    assert accuracy.Reference(A, b).backward_error(np.zeros(10)) == pytest.approx(r)
    deficient = accuracy.Reference(np.hstack([A, A[:, :1]]), b)
    assert deficient.rank == 10
    assert deficient.x_qr is None
    expected = np.linalg.lstsq(deficient.A, b, rcond=None)[0]
    assert np.linalg.norm(deficient.x - expected) < 1e-12


def test_judge_of_sparse_and_single_precision():
    A, b, x = datasets.least_squares(300, 10, cond=10, rng=2)
    assert accuracy.Reference(sp.csr_array(A), b).backward_error(x) < 1e-17
    single = accuracy.Reference(A.astype(np.float32), b.astype(np.float32))
    assert 1e-10 < single.backward_error(single.x_qr) < 1e-6


def test_interleaving_runs_each_case_in_each_round_and_rotates():
    order = []

    def case(name):
        return lambda: order.append(name) or name

    times, results = measure.interleave({n: case(n) for n in "abc"}, rounds=3, min_time=0, warmup=False)
    assert "".join(order) == "abcbcacab"
    assert results == {"a": "a", "b": "b", "c": "c"}
    assert {len(t) for t in times.values()} == {3}


def test_ratio_is_the_median_of_ratios_and_best_of_takes_the_faster():
    times = measure.Timings({"a": [1.0, 10.0, 3.0], "b": [1.0, 5.0, 1.0]})
    assert times.ratio("a", "b") == 2
    times.best_of("c", "a", "b")
    assert times == {"c": [1.0, 5.0, 1.0]}


def test_no_round_starts_after_the_budget():
    times, _ = measure.interleave({"a": lambda: measure.time.sleep(0.01)}, rounds=50, budget=0)
    assert len(times["a"]) == 3


def test_failing_solver_is_reported_and_the_others_are_measured():
    def fail(A, b):
        raise MemoryError("too large")

    solvers = [lstsq.Solver("broken", fail, lambda result: result), *lstsq.peers(["numpy.linalg.lstsq"])]
    record = lstsq.run(lstsq.Case("p", *datasets.least_squares(400, 12, cond=1e3, rng=1)), solvers, rounds=2)
    assert record["solvers"][0]["error"] == "MemoryError: too large"
    assert record["solvers"][1]["backward_error"] < 1e-14
    assert "failed" in report.lstsq_table(record).text()


def test_sketch_of_the_peer_is_a_sparse_stack():
    S = sketch.stack_as_csc(24, 100, nnz=8).toarray()
    assert np.all(np.count_nonzero(S.reshape(8, 3, 100), axis=1) == 1)
    assert np.allclose(np.linalg.norm(S, axis=0), 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0000123, "12.3 us"),
        (0.00045, "450 us"),
        (0.0123, "12.3 ms"),
        (1.0, "1 s"),
        (12.34, "12.3 s"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds(value, text):
    assert report.seconds(value) == text


def test_table_as_text_markdown_and_html():
    table = report.Table("T", ["name", "value"], [["a<b", "1"], ["c", "22"]], strong=[True, False], notes=["n & m"])
    assert table.text().splitlines() == ["T", "name  value", "----  -----", "a<b       1", "c        22", "n & m"]
    assert table.markdown() == "| name | value |\n|---|---:|\n| a<b | 1 |\n| c | 22 |"
    assert "<tr class=ours><td>a&lt;b</td>" in table.html()
    assert "n &amp; m" in table.html()
