"""Runs of optimizers as `randla bench optimize` makes them: what is counted, where they end, and what is shown."""

import json

import numpy as np
import pytest

from randla.bench import optimize, report
from randla.cli import main
from randla.optimize import GLM


@pytest.fixture(scope="module")
def classified():
    X, y = optimize.classification(3_000, 8, seed=2)
    return GLM(X, y, "squared_sigmoid")


def test_oracles_count_passes_and_give_what_the_problem_gives(classified):
    n, oracles = classified.n, optimize.Oracles(classified)
    x, z, v = (optimize.start(8, seed) for seed in range(3))
    steps = [
        (lambda: oracles.value(x), n, classified.value(x)),
        (lambda: oracles.value(x), 0, classified.value(x)),
        (lambda: oracles.grad(x), n, classified.grad(x)),
        (lambda: oracles.grad(x), 0, classified.grad(x)),
        (lambda: oracles.hessp(x, v), 2 * n, classified.hessian(x) @ v),
        (lambda: oracles.grad(z), 2 * n, classified.grad(z)),
        (lambda: oracles.value(z), 0, classified.value(z)),
        (lambda: oracles.hessp(x, v), 2 * n, classified.hessian(x) @ v),
        (lambda: oracles.hessp(z, v), 2 * n, classified.hessian(z) @ v),
    ]
    for call, props, value in steps:
        before = oracles.props
        assert np.allclose(call(), value, rtol=1e-12, atol=0)
        assert oracles.props - before == props
    assert oracles.lowest == min(classified.value(x), classified.value(z))


@pytest.mark.parametrize("method", optimize.SCIPY)
def test_runs_of_scipy_end_at_the_level_or_at_a_minimizer(classified, method):
    x0 = optimize.start(8, 0)
    whole = optimize.by_scipy(classified, x0, method, budget=1.0).evaluate(classified)
    assert np.linalg.norm(classified.grad(whole.x[-1])) < 1e-6
    assert whole.props == sorted(whole.props)
    assert whole.time == sorted(whole.time)
    level = whole.fun[-1] * 1.01
    part = optimize.by_scipy(classified, x0, method, level=level).evaluate(classified)
    assert part.fun[-1] <= level < part.fun[0]
    assert part.props[-1] < whole.props[-1]
    assert part.reached(level)[0] == whole.reached(level)[0] > 0
    assert optimize.by_scipy(classified, x0, method, budget=0.0).props[-1] < whole.props[-1]


def test_trace_of_a_sampled_run_holds_losses_of_all_terms(classified):
    x0 = optimize.start(8, 0)
    trace = optimize.by_randla(classified, x0, rng=3, **optimize.ADAPTIVE).evaluate(classified)
    assert trace.success
    assert np.array_equal(trace.x[0], x0)
    assert trace.fun == [classified.value(x) for x in trace.x]
    assert trace.props == sorted(trace.props)
    assert trace.reached(trace.fun[0]) == (0, 0)
    assert trace.reached(trace.fun[-1] * 1.01)[0] < trace.props[-1] / classified.n
    assert trace.reached(0.0) == (np.inf, np.inf)


def test_record_of_the_methods_of_optimization(classified):
    record = optimize.run("p", classified.X, classified.y, rounds=2, budget=5)
    names = [entry["name"] for entry in record["methods"]]
    assert names == [*optimize.OURS, *(f"scipy {name}" for name in optimize.SCIPY)]
    assert record["rounds"] == 2
    assert record["best"] < record["level"] < record["start"]
    for entry in record["methods"]:
        assert entry["props"] > 0
        assert entry["excess"] <= record["level"] - record["best"]
        assert entry["min_eig"] > 0
    table = report.optimize_table(record)
    assert table.strong == [name.startswith("randla") for name in names]
    assert table.rows[0][1] == f"{record['methods'][0]['props']:.1f}"
    late = {**record, "methods": [{**record["methods"][0], "props": None, "seconds": None}]}
    assert report.optimize_table(late).rows[0][1:3] == ["-", "-"]


def test_labels_of_generated_classification_are_not_separable():
    X, y = optimize.classification(2_000, 6, seed=1, dtype="float32", order="F")
    assert X.dtype == np.float32
    assert X.flags.f_contiguous
    assert set(y) == {0.0, 1.0}
    assert np.allclose(X.std(axis=0), np.geomspace(1, 1 / 30, 6), rtol=0.1)
    problem = GLM(X, y, "logistic")
    assert optimize.by_randla(problem, np.zeros(6), method="newton").success
    assert np.linalg.norm(optimize.by_randla(problem, np.zeros(6), method="newton").x[-1]) < 1e3


def test_bench_optimize_writes_a_page_and_its_data(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RANDLA_DATA", raising=False)
    page, data = tmp_path / "report.html", tmp_path / "data.json"
    words = ["bench", "optimize", "--sizes", "2000x5,3000x8", "--rounds", "1", "--order", "F", "--dtype", "float32"]
    assert main([*words, "-o", str(page), "--json", str(data)]) == 0
    records = json.loads(data.read_text())["records"]
    assert [(r["m"], r["n"], r["order"], r["dtype"]) for r in records] == [(2000, 5, "F", "float32"), (3000, 8, "F", "float32")]
    assert page.read_text().count("<table>") == page.read_text().count("<svg") == 2
    assert "scipy trust-krylov" in capsys.readouterr().out


def test_bench_optimize_takes_real_data_where_it_is(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "ijcnn1.npz", X=rng.standard_normal((900, 4)), y=rng.choice([-1, 1], 900))
    monkeypatch.setenv("RANDLA_DATA", str(tmp_path))
    assert main(["bench", "optimize", "--sizes", "2000x5", "--rounds", "1"]) == 0
    assert "ijcnn1: 900 terms, 4 variables" in capsys.readouterr().out
