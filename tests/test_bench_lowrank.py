"""Runs of decompositions as `randla bench lowrank` makes them, the groups of figures, and their pictures."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from test_bench import benchmarks, measured  # noqa: F401

from randla.bench import lowrank
from randla.bench.ways import peer
from randla.cli import main

# Rows that do not depend on what else is installed.
GROUPS = {
    "svd-dense fast": 2,
    "svd-dense slow": 2,
    "svd-sparse uniform": 2,
    "svd-sparse weighted": 2,
    "trace": 12,
    "pivoted-qr": 5,
    "interpolative": 6,
    "gspectral": 3,
    "monomials": 3,
    "basis-pursuit independent": 1,
    "basis-pursuit correlated": 1,
}
ON_DATA = {"pca-mnist": 2, "rpcholesky": 6, "nystrom-pcg": 4}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_records_hold_every_way_to_decompose(dtype):
    record = lowrank.run(600, 80, k=10, dtype=dtype, rounds=2)
    names = [way["name"] for way in record["ways"]]
    assert names[:2] == ["randla", "scipy svds"]
    assert all(way["seconds"] > 0 and way["reads"] > 0 for way in record["ways"])
    excess = {way["name"]: way["excess"] for way in record["ways"]}
    assert min(excess.values()) == 0
    assert excess["randla"] < 1e-3
    assert record["estimate"] == pytest.approx(record["ways"][0]["relative_error"], rel=1e-3)
    table = lowrank.table(record)
    assert [row[0] for row in table.rows] == names
    assert table.strong[:2] == [True, False]
    assert "600 x 80, singular values like i^-0.5, k = 10" in table.text()


def test_matrices_have_the_spectrum_they_are_made_with():
    A = lowrank.decaying(20_000, 50, 0.5, seed=3)
    s = np.linalg.svd(A, compute_uv=False)
    assert np.allclose(s * np.sqrt(np.arange(1, 51)), 1, atol=0.06)  # 1 +- sqrt(n / m)


@pytest.mark.parametrize("sparse", [False, True])
def test_errors_are_those_of_the_difference(sparse):
    A = sp.random_array((90, 60), density=0.2, format="csr", rng=np.random.default_rng(0))
    U, s, Vh = np.linalg.svd(A.toarray(), full_matrices=False)
    for k in (1, 7, 59):
        parts = U[:, :k], s[:k], Vh[:k]
        assert lowrank.true_error(A if sparse else A.toarray(), *parts) == pytest.approx(np.linalg.norm(s[k:]), rel=1e-6)
    wrong = 1.5 * s[:2]
    expected = np.linalg.norm(A.toarray() - (U[:, :2] * wrong) @ Vh[:2])
    assert lowrank.true_error(A if sparse else A.toarray(), U[:, :2], wrong, Vh[:2]) == pytest.approx(expected)


def test_peers_decompose_alike():
    A = lowrank.decaying(300, 40, 2.0)
    for name, call in lowrank.svd_peers(A, 5).items():
        U, s, Vh = call()
        assert (U.shape, s.shape, Vh.shape) == ((300, 5), (5,), (5, 40)), name
        assert np.all(np.diff(s) <= 0), name
        assert np.allclose(s, np.linalg.svd(A, compute_uv=False)[:5], rtol=1e-2), name


def test_command_measures_and_reports(tmp_path, capsys):
    html, archive = tmp_path / "report.html", tmp_path / "data.json"
    words = ["bench", "lowrank", "--sizes", "500x60,400x50", "--rank", "7", "--rounds", "1", "-o", str(html)]
    assert main([*words, "--json", str(archive)]) == 0
    assert "svd of 400 x 50, singular values like i^-0.5, k = 7, float64" in capsys.readouterr().out
    assert len(json.loads(archive.read_text())["records"]) == 2
    assert "scipy svds" in html.read_text()
    assert main(["bench", "lowrank", "--sizes", "500x60", "--rank", "60"]) == 1
    assert "the rank must be at least 1 and less than 60 for a matrix of 500 x 60; got 60" in capsys.readouterr().err


def test_default_rank_of_the_command_fits_the_matrix(capsys):
    assert main(["bench", "lowrank", "--sizes", "100x8", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "100 x 8, singular values like i^-0.5, k = 7" in shown


def figures_of(benchmarks, tmp_path, name, capsys):  # noqa: F811
    data = measured(benchmarks, tmp_path, "lowrank", [name])
    rows = benchmarks("rows_lowrank").all_rows(data)
    # A ratio of zero: the peer was more accurate.
    assert all(np.isfinite(row.ratio) and row.ratio >= 0 for row in rows)
    shown = capsys.readouterr().out
    assert all(row.problem in shown for row in rows)
    assert bool(benchmarks("rows_lowrank").headline_table(data)) == any(row.headline for row in rows)
    return data["groups"][name], rows


@pytest.mark.parametrize("name", GROUPS)
def test_groups_run_and_give_figures(name, benchmarks, tmp_path, one_blas_thread, capsys):  # noqa: F811
    _, rows = figures_of(benchmarks, tmp_path, name, capsys)
    peers = sum(peer(module) is not None for module in ("sklearn", "fbpca", "fbpca")) if name.startswith("svd") else 0
    assert len(rows) == GROUPS[name] + peers


@pytest.mark.parametrize("name", ON_DATA)
def test_groups_on_real_data(name, benchmarks, tmp_path, monkeypatch, data_file, one_blas_thread, capsys):  # noqa: F811
    file = "mnist_t10k-images-idx3-ubyte.gz" if name == "pca-mnist" else "covtype.npz"
    monkeypatch.setenv("RANDLA_DATA", str(data_file(file).parent))
    _, rows = figures_of(benchmarks, tmp_path, name, capsys)
    assert len(rows) == ON_DATA[name] + (name == "pca-mnist" and peer("sklearn") is not None)


@pytest.mark.parametrize("kind", ["independent", "correlated"])
def test_lassos_end_at_equal_gaps(kind, benchmarks, tmp_path, one_blas_thread, capsys):  # noqa: F811
    pytest.importorskip("sklearn")
    record, rows = figures_of(benchmarks, tmp_path, f"lasso {kind}", capsys)
    assert len(rows) == len(record["cases"]) == 6
    for case in record["cases"].values():
        assert case["gap"]["randla"] <= max(case["gap"]["sklearn"], 1e-14 * record["size"])
        # Either gap bounds how far its objective is above the smallest.
        assert abs(np.subtract(*case["objective"].values())) <= max(case["gap"].values()) + 1e-14 * record["size"]


def test_groups_without_data_are_left_out(benchmarks, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.delenv("RANDLA_DATA", raising=False)
    data = measured(benchmarks, tmp_path, "lowrank", [*ON_DATA, "scree"])
    assert all("RANDLA_DATA" in group["missing"] for group in data["groups"].values())
    assert benchmarks("rows_lowrank").all_rows(data) == []


def test_a_faster_run_of_larger_error_does_not_count(benchmarks):  # noqa: F811
    at_equal_error = benchmarks("rows_lowrank").at_equal_error
    times = benchmarks("rows_lowrank").Timings({"ours": [1.0], "peer": [3.0]})
    assert at_equal_error(times, {"ours": 1.0009, "peer": 1.0}, "ours", "peer") == 3
    assert at_equal_error(times, {"ours": 1.0011, "peer": 1.0}, "ours", "peer") == 0
    assert at_equal_error(times, {"ours": 0.5, "peer": 1.0}, "ours", "peer") == 3


def test_products_of_hutchinson_follow_from_its_variance(benchmarks):  # noqa: F811
    figures = benchmarks("figures_lowrank")
    values = 1.0 / np.arange(1, 31)
    X = np.random.default_rng(0).standard_normal((20_000, 30))
    X *= np.sqrt(30) / np.linalg.norm(X, axis=1, keepdims=True)
    samples = X**2 @ values
    # The standard deviation of a standard deviation of 20,000 samples is below 1.5 %: six of them.
    expected = (0.6745 * samples.std() / (figures.LEVEL * values.sum())) ** 2
    assert figures.hutchinson_products(values) == pytest.approx(expected, rel=0.18)


@pytest.mark.parametrize("kind", ["independent", "correlated"])
def test_designs_have_their_correlations(kind, benchmarks):  # noqa: F811
    A = benchmarks("figures_learn").design(kind, 20_000, 3)
    expected = {"independent": [0, 0], "correlated": [0.9, 0.81]}[kind]
    # Standard deviations are at most 1 / sqrt(20,000) = 0.007.
    assert np.corrcoef(A.T)[0, 1:] == pytest.approx(expected, abs=0.04)


def drawn(benchmarks, path, draw, *arguments):  # noqa: F811
    getattr(benchmarks("pictures"), draw)(*arguments, path)
    pixels = benchmarks("matplotlib.pyplot").imread(path)
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.02


def test_scree_and_compressed_images_are_drawn(benchmarks, tmp_path, monkeypatch, data_file, one_blas_thread):  # noqa: F811
    monkeypatch.setenv("RANDLA_DATA", str(data_file("mnist_t10k-images-idx3-ubyte.gz").parent))
    record = measured(benchmarks, tmp_path, "lowrank", ["scree"])["groups"]["scree"]
    assert record["source"] == "leave-one-out"
    s = np.array(record["singular_values"])
    for k, errors in record["truth"].items():
        best = np.linalg.norm(s[int(k) :])
        assert min(errors) >= best * (1 - 1e-9)
        assert np.mean(record["estimate"][k]) == pytest.approx(np.mean(errors), rel=0.3)
    low, high = np.array(record["s"]), np.array(record["s_upper"])
    assert np.all(low <= s[: len(low)] * (1 + 1e-9))
    assert np.all(high >= s[: len(low)] * (1 - 1e-9))
    drawn(benchmarks, tmp_path / "scree.png", "scree", record)
    images = benchmarks("figures_lowrank").pixels(True)
    drawn(benchmarks, tmp_path / "compression.png", "compression", images)
