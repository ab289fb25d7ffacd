"""Leverage scores and sampling: measurements as figures beside goals, and as tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rows import Row, goals, headlines
from rows_sketch import at_most

from randla.bench.measure import Timings
from randla.bench.report import error, seconds

Group = dict[str, Any]
SAMPLED_ROWS = "500"


def scores_rows(record: Group) -> list[Row]:
    times, passes, ratios = Timings(record["times"]), record["passes"], record["ratios"]
    name, ours = f"exact scores, {record['m']:,} x {record['n']:,}", seconds(times.median("exact"))
    rows = [
        Row(name, ours, f"{label} {seconds(times.median(other))}", times.ratio(other, "exact"), goal, headline=True)
        for other, label, goal in (
            ("numpy QR", "numpy QR, norms of rows of Q", 6),
            ("scipy SVD", "scipy SVD, norms of rows of U", 10),
        )
    ]
    limit, eps = record["cond"] * 2.0**-52, record["error"]
    rows.append(at_most(f"{name}: relative difference from QR", error(eps), f"cond eps {error(limit)}", eps / limit, 10))
    sketched = seconds(times.median("sketch"))
    label = f"sketched scores, {record['m']:,} x {record['n']:,}"
    rows.append(Row(label, sketched, f"exact {ours}", times.ratio("exact", "sketch"), 3, headline=True))
    rows.append(at_most(f"{label}: passes", str(passes["sketch"]), "", passes["sketch"], 4))
    between = f"{ratios[0]:.3f} to {ratios[1]:.3f} of the exact"
    rows.append(at_most(f"{label}: largest relative error", between, "", max(1 - ratios[0], ratios[1] - 1), 0.25))
    return rows


def real_rows(group: Group) -> list[Row]:
    rows = []
    for name, record in group["records"].items():
        times = Timings(record["times"])
        label = f"exact scores, {name} {record['m']:,} x {record['n']:,}"
        against = f"numpy QR {seconds(times.median('numpy QR'))}, off by {error(record['numpy_error'])}"
        ours = f"{seconds(times.median('exact'))}, off by {error(record['error'])}"
        rows.append(Row(label, ours, against, times.ratio("numpy QR", "exact"), 4, headline=True))
        if record["above"][1]:
            found, there = record["above"]
            rows.append(Row(f"{label}: rows of leverage > 0.5", str(found), str(there), found / there, 1))
    return rows


def sampled_rows(record: Group) -> list[Row]:
    middle = {name: statistics.median(by_size[SAMPLED_ROWS]) for name, by_size in record["ratios"].items()}
    name = f"least squares from {SAMPLED_ROWS} rows of KDD99, residual over the smallest"
    uniform = f"uniform {middle['uniform']:.3g}"
    return [
        at_most(name, f"{middle['leverage']:.3f}", uniform, middle["leverage"], 1.3, headline=True),
        Row("the same from uniformly drawn rows", f"{middle['uniform']:.3g}", "", middle["uniform"], 2),
    ]


def products_rows(record: Group) -> list[Row]:
    middle = {name: statistics.median(values) for name, values in record["errors"].items()}
    name = (
        f"X'Y of two tables of {record['held']:,} x {record['columns']} with {record['shared']:.0%} of their keys in common, "
        f"{record['k']:,} rows: relative error"
    )
    return [
        Row(
            name,
            f"{middle['coordinated']:.3f}",
            f"{other} {middle[other]:.3f}",
            middle[other] / middle["coordinated"],
            5,
            headline=True,
        )
        for other in ("CountSketch", "independent")
    ]


def determinantal_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    rows = []
    for kind in ("projection", "L-ensemble", "k-DPP"):
        ours, theirs = f"randla {kind}", f"dppy {kind}"
        label = f"{kind} sample, {record['m']:,} x {record['r']} factor" + (f", k = {record['k']}" if kind == "k-DPP" else "")
        against = f"DPPy {seconds(times.median(theirs))}"
        rows.append(Row(label, seconds(times.median(ours)), against, times.ratio(theirs, ours), 5, headline=True))
    p = record["p_values"]
    against = f"DPPy p = {p['dppy']:.2f}; each other p = {p['both']:.2f}"
    rows.append(
        Row("projection samples: inclusion of rows, chi-square", f"p = {p['randla']:.2f}", against, min(p.values()), 1e-3)
    )
    return rows


def regression_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    name, ours = f"p = 1 regression, {record['m']:,} x {record['n']}", seconds(times.median("randla"))
    against = f"HiGHS {seconds(times.median('HiGHS'))}"
    gap = error(max(record["gap"], 0.0))
    from_rows = f"{name}, {record['sample_size']:,} sampled rows: ||A x - b||_1 over the smallest"
    return [
        Row(name, ours, against, times.ratio("HiGHS", "randla"), 1, headline=True),
        at_most(
            f"{name}: relative difference from HiGHS", error(record["difference"]), f"gap {gap}", record["difference"], 1e-8
        ),
        at_most(from_rows, f"{record['sampled_ratio']:.4f}", "", record["sampled_ratio"], 1.1),
    ]


def landmarks_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    name = f"{record['k']} landmarks of {record['n']:,} points, Gaussian kernel"
    ours = f"{seconds(times.median('randla'))}, {record['evaluations']:,.0f} kernel values a point"
    return [
        at_most(name, ours, f"2 n k² flops at GEMM rate {seconds(times.median('limit'))}", times.ratio("randla", "limit"), 4)
    ]


ROWS: dict[str, Callable[[Group], list[Row]]] = {
    "scores": scores_rows,
    "real": real_rows,
    "sampled": sampled_rows,
    "products": products_rows,
    "determinantal": determinantal_rows,
    "regression": regression_rows,
    "landmarks": landmarks_rows,
}


def all_rows(data: Group) -> list[Row]:
    return [row for name, rows in ROWS.items() if name in data["groups"] for row in rows(data["groups"][name])]


def goals_table(data: Group) -> str:
    return goals("leverage scores and sampling, float64", all_rows(data), data)


def headline_table(data: Group) -> str:
    return headlines("leverage scores and sampling", all_rows(data))
