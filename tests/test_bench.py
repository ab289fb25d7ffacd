"""The measuring behind `randla bench`: its judge against exact oracles, its timing, its tables."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from ls_oracles import backward_error, karlson_walden, refined_solution

import randla
from randla import datasets
from randla.bench import accuracy, leverage, lstsq, measure, optimize, report, sketch
from randla.optimize import GLM


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


@pytest.fixture
def origin():
    """Where a measurement comes from, with changes."""
    fixed = {"cpu": "C", "cores": 2, "system": "S", "python": "3", "numpy": "2", "scipy": "1", "blas": "B"}
    return lambda **changes: {**fixed, "randla": "0.1", "commit": "abc", "date": "2026-01-01"} | changes


def test_facts_name_a_machine_once(origin):
    machine = "C, 2 cores, S; Python 3, NumPy 2, SciPy 1, B"
    assert report.facts(origin()) == f"{machine}; randla 0.1 at abc; 2026-01-01"
    assert report.facts(origin(commit=None)) == f"{machine}; randla 0.1; 2026-01-01"
    same = [origin(), origin(commit="def"), origin(date="2026-01-02"), origin(commit="def")]
    assert report.facts(*same) == f"{machine}; randla 0.1 at abc, def; 2026-01-01; randla 0.1 at abc; 2026-01-02"
    other = machine.replace("C, 2 cores", "C, 3 cores")
    assert report.facts(*same[:2], origin(cores=3)) == (
        f"{machine}; randla 0.1 at abc, def; 2026-01-01; {other}; randla 0.1 at abc; 2026-01-01"
    )


# The measurements behind the tables


BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SKETCH_GROUPS = ("families", "csr", "dense", "fill", "fwht", "threads")


@pytest.fixture
def benchmarks(monkeypatch):
    """A module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def measured(benchmarks, folder, file, names):
    """What the groups with these names leave in the only file that they write."""
    assert benchmarks("report").main(["run", "--quick", "-o", str(folder), "--only", *names]) == 0
    data = json.loads((folder / f"{file}.json").read_text())
    assert list(folder.iterdir()) == [folder / f"{file}.json"]
    assert all(group["provenance"]["numpy"] == np.__version__ for group in data["groups"].values())
    return data


@pytest.fixture
def quick(benchmarks, tmp_path, one_blas_thread):
    """Run groups on tiny problems and return what was kept, with the figures of its rows."""

    def run(*names):
        data = measured(benchmarks, tmp_path, "sketch", names)
        return data, benchmarks("rows_sketch").rows_of(data)

    return run


@pytest.mark.parametrize("name", SKETCH_GROUPS)
def test_groups_of_the_sketch_engine_run_and_give_figures(name, quick, benchmarks, capsys):
    data, rows = quick(name)
    assert list(data["groups"]) == [name]
    assert len(rows) == {"families": 12, "csr": 1, "dense": 4, "fill": 1, "fwht": 9, "threads": 5}[name]
    assert all(np.isfinite(row.ratio) and (row.ratio > 0 or "memory" in row.problem) for row in rows)
    shown = capsys.readouterr().out
    tables = benchmarks("rows_sketch").TABLES
    assert all(row.problem in shown for row in rows)
    assert tables["sketch-goals"](data) in shown
    assert [mark for mark, table in tables.items() if mark != "sketch-goals" and table(data)] == [
        mark for mark in tables if mark == name
    ]


def test_product_alone_is_the_product(benchmarks):
    figures = benchmarks("figures_sketch")
    rng = np.random.default_rng(0)
    A, d = rng.standard_normal((53_000, 3)), 40
    block = randla.Gaussian().sample(d, figures.BLOCK // d, rng=0).to_dense()
    S = np.hstack([block, block, block])[:, : len(A)]
    assert len(A) % block.shape[1]
    call = figures.product_alone(A, d)
    for _ in range(2):
        assert np.allclose(call(), S @ A)


def test_memory_is_that_beside_the_result(benchmarks):
    grown = {"Gaussian()": 8, "Rademacher()": 40}
    record = {
        "times": {name: [1.0] for name in (*grown, "gemm")},
        "memory": {k: {"before": 2**20, "peak": (1 + 4 + v) * 2**20, "result": 2**22} for k, v in grown.items()},
    }
    rows = benchmarks("rows_sketch").dense_rows({"m": 1, "n": 1, "d": 1, **record})
    assert [row.ratio for row in rows] == [1, 8, 1, 40]
    assert [row.met for row in rows] == [True, True, True, False]


def test_anonymous_memory_is_what_arrays_take(benchmarks):
    own = benchmarks("own_memory")
    with own.Peak() as peak:
        assert np.ones(1 << 23).all()
    assert 60e6 < peak.most - peak.before < 100e6


def test_lsqr_iterations_are_the_fewest_that_reach_the_level(benchmarks):
    figures = benchmarks("figures_solve")
    A, b, _ = datasets.least_squares(600, 30, cond=30, residual=0.5, rng=3)
    judge = accuracy.Reference(A, b)
    level = 1e-9
    count, error, reached = figures.iterations_to(level, A, b, judge, 10.0)
    errors = [judge.backward_error(figures.plain_lsqr(A, b, k)[0]) for k in range(1, count + 1)]
    first = 1 + next(i for i, e in enumerate(errors) if e <= level)
    assert reached
    assert error == errors[count - 1] <= level
    assert first <= count <= first + 1 + first // 20
    assert figures.iterations_to(0.0, A, b, judge, 10.0)[2] is False


def test_sparse_problems_without_data_are_named(quick, benchmarks, monkeypatch):
    monkeypatch.delenv("RANDLA_DATA", raising=False)
    data, rows = quick("sparse", "defaults w8a")
    assert rows == []
    assert data["groups"]["sparse"]["missing"] == list(benchmarks("figures_solve").REAL)
    assert "RANDLA_DATA" in data["groups"]["defaults w8a"]["missing"]
    tables = benchmarks("rows_sketch").TABLES
    assert tables["defaults"](data) == tables["sizes"](data) == ""
    assert tables["sparse"](data).strip() == "Not measured, as the data were not there: w8a, a9a, kdd99_onehot."


def test_sparse_problem_against_lsqr(quick, benchmarks, monkeypatch, data_file):
    monkeypatch.setenv("RANDLA_DATA", str(data_file("a9a.npz").parent))
    monkeypatch.setattr(benchmarks("figures_solve"), "REAL", ("a9a",))
    data, rows = quick("sparse")
    record = data["groups"]["sparse"]["records"]["a9a"]
    assert record["lsqr_reached"]
    assert record["lsqr_backward_error"] <= record["level"] == pytest.approx(2.2e-16, rel=0.01)
    assert record["backward_error"] <= record["level"]
    assert [row.problem for row in rows] == ["a9a, 652 x 123 CSR", "a9a, columns of norm one, 652 x 123 CSR"]
    assert "| a9a | " in benchmarks("rows_sketch").TABLES["sparse"](data)


def test_columns_of_unit_norm(benchmarks):
    A = sp.csr_array(np.array([[3.0, 0.0, 0.0], [4.0, 0.0, -2.0]]))
    assert np.allclose(benchmarks("figures_solve").unit_columns(A).toarray(), [[0.6, 0, 0], [0.8, 0, -1]])


def test_problem_on_disk_is_solved_in_little_memory_to_the_same_bits(quick, benchmarks):
    data, rows = quick("memmap")
    record = data["groups"]["memmap"]
    assert record["status"] == "CONVERGED"
    assert record["certificate"] < 2.3e-16
    assert 0 < record["anonymous_before"] <= record["anonymous_peak"] < record["limit"] == 2**30
    assert record["entries_that_differ"] == 0
    assert record["passes"] == record["in_memory_passes"]
    assert all(row.met for row in rows)
    assert f"| passes | {record['passes']} |" in benchmarks("rows_sketch").TABLES["memmap"](data)


def test_problem_on_disk_is_of_condition_1e6_with_a_residual_of_a_tenth(benchmarks, tmp_path):
    benchmarks("figures_solve").write_problem(tmp_path, 3_000, 20, lambda text: None)
    A, b = np.fromfile(tmp_path / "A.bin").reshape(3_000, 20), np.load(tmp_path / "b.npy")
    assert 5e5 < np.linalg.cond(A) < 2e6
    x = np.linalg.lstsq(A, b, rcond=None)[0]
    assert 0.01 < np.linalg.norm(b - A @ x) / np.linalg.norm(b) < 0.5


def test_defaults_are_measured_over_families_and_sizes(quick, benchmarks):
    data, rows = quick("defaults 200000x200 coherent")
    group = data["groups"]["defaults 200000x200 coherent"]
    assert rows == []
    cells = group["cells"]
    assert {cell["distribution"] for cell in cells} == set(benchmarks("figures_solve").DISTRIBUTIONS)
    assert all(cell["d"] == cell["ratio"] * group["n"] for cell in cells)
    timed = [cell for cell in cells if "times" in cell]
    assert all(cell["certified"] and cell["backward_error"] <= 2.3e-16 for cell in timed)
    assert 0 < len(timed) <= benchmarks("figures_solve").FINALISTS
    tables = benchmarks("rows_sketch").TABLES
    assert tables["sizes"](data).count("**") == 2
    assert f"| {group['model']['distribution']}, " in tables["defaults"](data)


def test_coherent_problem_has_rows_that_carry_directions(benchmarks):
    A, _ = benchmarks("figures_solve").coherent(200_000, 200, True)
    Q, _ = np.linalg.qr(A)
    leverage = np.linalg.norm(Q, axis=1) ** 2
    assert np.count_nonzero(leverage > 0.9) == A.shape[1] // 2
    assert np.linalg.cond(A) > 1e5


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["fill"], ["fill"]),
        (["lstsq"], ["lstsq 200000x500", "lstsq 1000000x100", "lstsq 50000x2000"]),
        (["defaults w8a", "shapes"], ["shapes", "defaults w8a"]),
    ],
)
def test_groups_are_chosen_by_words(words, names, benchmarks):
    chosen = benchmarks("report").groups(words)
    assert [name for members in chosen.values() for name in members] == names


def test_unknown_group_is_named(benchmarks):
    with pytest.raises(ValueError, match=r"--only must name groups of .*families.*; got 'famil'"):
        benchmarks("report").groups(["famil"])


def test_quick_figures_do_not_replace_real_ones(benchmarks, capsys):
    with pytest.raises(SystemExit):
        benchmarks("report").main(["run", "--quick", "--only", "fill"])
    assert "must not replace" in capsys.readouterr().err


def test_groups_are_kept_until_they_are_measured_again(quick):
    first, _ = quick("fill")
    both, _ = quick("csr")
    assert list(both["groups"]) == ["fill", "csr"]
    assert both["groups"]["fill"] == first["groups"]["fill"]


def test_copy_by_threads_copies_all():
    source = np.arange(1001.0).reshape(7, 143, order="F")
    for threads in (1, 2, 3):
        out = np.zeros_like(source)
        measure.copy_by_threads(source, out, threads)()
        assert np.array_equal(out, source)


def test_pause_comes_before_each_turn(monkeypatch):
    seen = []
    monkeypatch.setattr(measure.time, "sleep", seen.append)
    measure.interleave({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=1, pause=0.25, warmup=False)
    assert seen == [0.25, "a", 0.25, "b"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scores", "products", "regression", "landmarks"])
def test_groups_of_leverage_and_sampling_run_and_give_figures(name, benchmarks, tmp_path, one_blas_thread, capsys):
    data = measured(benchmarks, tmp_path, "leverage", [name])
    rows = benchmarks("rows_leverage").all_rows(data)
    assert len(rows) == {"scores": 6, "products": 2, "regression": 3, "landmarks": 1}[name]
    assert all(np.isfinite(row.ratio) and row.ratio > 0 for row in rows)
    shown = capsys.readouterr().out
    assert all(row.problem in shown for row in rows)


def test_errors_of_the_routes_to_leverage_scores_are_told():
    A = datasets.least_squares(2_000, 10, cond=1e3, rng=1).A
    record = leverage.run(A, rounds=1)
    errors = {route["name"]: route["error"] for route in record["routes"]}
    assert errors["numpy QR"] == 0
    assert errors["scipy SVD"] < 1e-11
    assert errors["randla exact"] < 1e-11
    assert 1e-3 < errors["randla sketch"] < 0.25
    table = report.leverage_table(record)
    assert [row[0] for row in table.rows] == list(errors)
    assert table.strong == [name.startswith("randla") for name in errors]
    assert table.rows[0][4] == "3"


@pytest.mark.parametrize(("name", "count"), [("rejected", 2), ("glm-kernels", 11)])
def test_groups_of_optimization_run_and_give_figures(name, count, benchmarks, tmp_path, capsys):
    data = measured(benchmarks, tmp_path, "optimize", [name])
    rows = benchmarks("rows_optimize").all_rows(data)
    assert len(rows) == count
    assert all(np.isfinite(row.ratio) for row in rows)
    shown = capsys.readouterr().out
    assert all(row.problem in shown for row in rows)
    if name == "rejected":
        assert all(row.met for row in rows)


@pytest.mark.parametrize(("name", "count"), [("ijcnn1", 8), ("covertype", 8), ("logistic", 4)])
def test_groups_of_optimization_on_real_data(name, count, benchmarks, tmp_path, monkeypatch, data_file):
    if name == "logistic":
        pytest.importorskip("sklearn")
    monkeypatch.setenv("RANDLA_DATA", str(data_file("w8a.npz").parent))
    data = measured(benchmarks, tmp_path, "optimize", [name])
    rows = benchmarks("rows_optimize").all_rows(data)
    assert len(rows) == count
    assert "| " in benchmarks("rows_optimize").headline_table(data)
    if name == "logistic":
        sizes = [part["grad_norms"] for part in data["groups"][name]["records"].values()]
        assert all(part[method] <= 1e-8 for part in sizes for method in ("newton", "trust-region"))
        values = [part["values"] for part in data["groups"][name]["records"].values()]
        assert all(np.ptp(list(part.values())) < 1e-7 for part in values)


def test_groups_of_optimization_without_data_are_left_out(benchmarks, tmp_path, monkeypatch):
    monkeypatch.delenv("RANDLA_DATA", raising=False)
    data = measured(benchmarks, tmp_path, "optimize", ["ijcnn1", "covertype", "logistic"])
    assert benchmarks("rows_optimize").all_rows(data) == []
    assert benchmarks("rows_optimize").goals_table(data) == ""


def test_passes_of_numpy_are_those_of_the_problem(benchmarks):
    figures = benchmarks("figures_optimize")
    X, y, x = figures.matrix((200, 5)), figures.labels(200), optimize.start(5, 0)
    for loss in ("squared_sigmoid", "logistic"):
        problem = GLM(X, y, loss)
        value, gradient, weights = figures.numpy_pass(X, y, x, loss)()
        g, f, d = figures.own_pass(problem, x)()
        assert value == pytest.approx(f, rel=1e-12)
        assert np.allclose(gradient, g, rtol=1e-10)
        assert np.allclose(weights / 200, d, rtol=1e-10)


def test_first_figure_is_measured_and_drawn(benchmarks, tmp_path, monkeypatch, data_file, capsys):
    figure = benchmarks("figure1")
    words = ["--quick", "-o", str(tmp_path), "--data", str(data_file("ijcnn1.npz").parent)]
    monkeypatch.setenv("RANDLA_DATA", "")
    assert figure.main(words) == 0
    record = json.loads((tmp_path / "figure1.json").read_text())
    assert list(record["problems"]) == ["ijcnn1", "covertype"]
    for part in record["problems"].values():
        assert len(part["curves"]) == 12
        for (curve,) in part["curves"].values():
            assert curve["props"] == sorted(curve["props"])
            assert curve["fun"] == sorted(curve["fun"], reverse=True)
    assert (tmp_path / "figure1.png").stat().st_size > 50_000
    with pytest.raises(SystemExit):
        figure.main(["--quick"])
    assert "must not replace" in capsys.readouterr().err
