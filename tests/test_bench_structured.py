"""Runs of butterfly products as `randla bench structured` makes them, and the groups of figures."""

import json

import numpy as np
import pytest
from product_oracles import random_product
from test_bench import benchmarks, measured  # noqa: F401

from randla.bench import structured, ways
from randla.cli import main
from randla.structured.pattern import Chain

GROUPS = {
    "butterfly-products": 9,
    "butterfly-vectors": 2,
    "butterfly-threads": 1,
    "butterfly-gradients": 2,
    "butterfly-fwht": 0,
    "butterfly-factorize": 3,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_records_hold_every_way_to_multiply(dtype):
    record = structured.run(64, 5, dtype=dtype, rounds=2)
    names = [s["name"] for s in record["products"]]
    assert names[:2] == ["randla", "randla, batch first"]
    assert names[-1] == "numpy, dense"
    assert all(s["error"] < 100 * np.finfo(dtype).eps for s in record["products"])
    assert all(s["seconds"] > 0 and s["reads"] > 0 for s in record["products"])
    table = structured.table(record)
    assert [row[0] for row in table.rows] == names
    assert table.strong[:2] == [True, True]
    assert table.strong[-1] is False
    assert "64 x 64, 6 factors, 5 vectors" in table.text()


def test_large_products_are_measured_without_their_matrices(monkeypatch):
    monkeypatch.setattr(structured, "DENSE_ROWS", 32)
    names = [s["name"] for s in structured.run(64, 1, rounds=1)["products"]]
    assert "numpy, dense" not in names


def test_a_read_counts_input_output_and_values():
    P = random_product(Chain.monarch(2048, 1024, 64, 32), np.float32)
    moved = structured.arrays_read(P, np.ones((1024, 3), np.float32))
    assert moved.nbytes == 4 * (3 * 1024 + 3 * 2048 + P.n_params)


def test_peers_multiply_alike():
    P, X = structured.butterfly(64), structured.tensor((64, 7), np.float32)
    calls = structured.lazylinop_products(P, X) | structured.pyfaust_product(P, X)
    if not calls:
        pytest.skip("neither lazylinop nor pyfaust is installed")
    for call in calls.values():
        np.testing.assert_allclose(call(), P @ X, rtol=0, atol=1e-5)


def test_command_measures_and_reports(tmp_path, capsys):
    html, archive = tmp_path / "report.html", tmp_path / "data.json"
    words = ["bench", "structured", "--sizes", "64x5,128x1", "--rounds", "1", "-o", str(html), "--json", str(archive)]
    assert main(words) == 0
    assert "butterfly 128 x 128, 7 factors, 1 vectors, float64" in capsys.readouterr().out
    assert len(json.loads(archive.read_text())["records"]) == 2
    assert "randla, batch first" in html.read_text()
    assert main(["bench", "structured", "--sizes", "100x5"]) == 1
    assert "power of two; got 100" in capsys.readouterr().err


@pytest.mark.parametrize("name", GROUPS)
def test_groups_run_and_give_figures(name, benchmarks, tmp_path, one_blas_thread, capsys):  # noqa: F811
    data = measured(benchmarks, tmp_path, "structured", [name])
    rows = benchmarks("rows_structured").all_rows(data)
    peers = ways.peer("pyfaust") or ways.peer("lazylinop.butterfly")
    assert len(rows) >= GROUPS[name] if peers else len(rows) == GROUPS[name]
    assert all(np.isfinite(row.ratio) and row.ratio > 0 for row in rows)
    shown = capsys.readouterr().out
    assert all(row.problem in shown for row in rows)


def drawn(benchmarks, path, draw, record):  # noqa: F811
    image = benchmarks("matplotlib.pyplot").imread
    getattr(benchmarks("pictures"), draw)(*([record] if record else []), path)
    pixels = image(path)
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.02
    return pixels


def test_times_over_sizes_are_drawn(benchmarks, tmp_path, one_blas_thread):  # noqa: F811
    record = measured(benchmarks, tmp_path, "structured", ["butterfly-sizes"])["groups"]["butterfly-sizes"]
    assert [part["n"] for part in record["parts"]] == [128, 256]
    drawn(benchmarks, tmp_path / "sizes.png", "sizes", record)


def test_errors_over_parameters_are_bounded_and_drawn(benchmarks, tmp_path, one_blas_thread, data_file, monkeypatch):  # noqa: F811
    monkeypatch.setenv("RANDLA_DATA", str(data_file("mnist_t10k-images-idx3-ubyte.gz").parent))
    record = measured(benchmarks, tmp_path, "structured", ["butterfly-weights"])["groups"]["butterfly-weights"]
    assert len(record["parts"]) == 3
    for part in record["parts"]:
        assert part["curves"]
        for curve in part["curves"].values():
            assert all(0 <= bound <= error * (1 + 1e-9) for bound, error in zip(curve["bound"], curve["error"], strict=True))
    drawn(benchmarks, tmp_path / "weights.png", "weights", record)


def test_supports_of_chains_are_drawn(benchmarks, tmp_path):  # noqa: F811
    drawn(benchmarks, tmp_path / "supports.png", "supports", None)
