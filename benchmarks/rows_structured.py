"""Structured matrices: measurements as figures beside goals, and as tables."""

from __future__ import annotations

from typing import Any

from rows import Row, goals, headlines
from rows_sketch import at_most

from randla.bench.measure import Timings
from randla.bench.report import error, seconds

Group = dict[str, Any]
# Milliseconds.
PRODUCT_GOALS = (0.04, 2.5, 16.0)
VECTOR_GOALS = (0.005, 0.12)
FACTORIZE_GOALS = (5.0, 5.0, 100.0)
STEP_GOAL = 4.0
LAZYLINOP, PYFAUST = ("lazylinop xp", "lazylinop scipy"), ("pyfaust",)


def in_reads(times: Timings, name: str) -> str:
    return f"{seconds(times.median(name))} ({times.ratio(name, 'read'):.1f} reads)"


def beside(times: Timings, ours: str, label: str, faster: tuple[float, float] = (1.0, 1.0)) -> list[Row]:
    """How many times as fast as the faster backend of each peer that was there."""
    rows = []
    for names, goal in zip((LAZYLINOP, PYFAUST), faster, strict=True):
        there = [name for name in names if name in times]
        if there:
            best = min(there, key=times.median)
            against = f"{best} {seconds(times.median(best))}"
            ratio = times.ratio(best, ours)
            rows.append(
                Row(f"{label}, against {best.split()[0]}", in_reads(times, ours), against, ratio, goal, headline=goal > 1)
            )
    return rows


def products_rows(record: Group) -> list[Row]:
    rows = []
    for part, goal in zip(record["parts"], PRODUCT_GOALS, strict=True):
        times, label = Timings(part["times"]), f"butterfly {part['n']:,} x {part['batch']}, float32, one core"
        dense = f"dense {seconds(times.median('dense'))}; " if "dense" in times else ""
        against = f"{dense}read of input, output and values {seconds(times.median('read'))}"
        last = times.median("batch last")
        rows.append(at_most(f"{label}: ms", in_reads(times, "batch last"), against, 1e3 * last, goal, headline=True))
        for other, limit in (("batch first", 1.2), ("transposed", 1.2)):
            against = f"batch last {seconds(last)}"
            rows.append(at_most(f"{label}: {other}", in_reads(times, other), against, times.ratio(other, "batch last"), limit))
        rows += beside(times, "batch last", label, (8.0, 30.0))
    return rows


def vectors_rows(record: Group) -> list[Row]:
    rows = []
    for part, goal in zip(record["parts"], VECTOR_GOALS, strict=True):
        times, label = Timings(part["times"]), f"butterfly {part['n']:,}, one vector, float32, one core"
        against = f"read of input, output and values {seconds(times.median('read'))}"
        rows.append(
            at_most(f"{label}: ms", in_reads(times, "vector"), against, 1e3 * times.median("vector"), goal, headline=True)
        )
        rows += beside(times, "vector", label)
    return rows


def threads_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    return [
        Row(
            f"butterfly {name}, float32: two threads",
            seconds(times.median(f"{name} on 2")),
            f"one thread {seconds(times.median(f'{name} on 1'))}",
            times.ratio(f"{name} on 1", f"{name} on 2"),
            1.8,
        )
        for name in record["names"]
    ]


def gradients_rows(record: Group) -> list[Row]:
    times, rows = Timings(record["times"]), []
    for name, what in (("both", "forward and gradients"), ("new values", "with new factors")):
        label = f"butterfly {record['n']:,} x {record['batch']}, float32, one core, {what}: ms"
        against = f"dense {seconds(times.median('dense'))}"
        rows.append(
            at_most(label, in_reads(times, name), against, 1e3 * times.median(name), STEP_GOAL, headline=name == "both")
        )
    return rows


def fwht_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    label = f"fwht of {record['batch']} vectors of {record['n']:,}, float32, one core"
    return beside(times, "fwht", label, (10.0, 10.0))


def factorize_rows(record: Group) -> list[Row]:
    rows = []
    for part, goal in zip(record["parts"], FACTORIZE_GOALS, strict=True):
        times, errors = Timings(part["times"]), part["errors"]
        peers = [name for name in times if name != "randla"]
        against = ", ".join(f"{name} {seconds(times.median(name))}, error {error(errors[name])}" for name in peers) or "-"
        label = f"factorize {part['name']} {part['n']:,}, one core"
        ours = f"{seconds(times.median('randla'))}, error {error(errors['randla'])}"
        rows.append(at_most(f"{label}: ms", ours, against, 1e3 * times.median("randla"), goal, headline=True))
        if peers:
            least = min(errors[name] for name in peers)
            shown = error(errors["randla"])
            # Of exact products all that is left is rounding.
            floor = max(least, 1e-14)
            rows.append(
                at_most(f"{label}: error", shown, f"least of the others {error(least)}", errors["randla"] / floor, 1.0001)
            )
    return rows


ROWS = {
    "butterfly-products": products_rows,
    "butterfly-vectors": vectors_rows,
    "butterfly-threads": threads_rows,
    "butterfly-gradients": gradients_rows,
    "butterfly-fwht": fwht_rows,
    "butterfly-factorize": factorize_rows,
}


def all_rows(data: Group) -> list[Row]:
    return [row for name in ROWS if name in data["groups"] for row in ROWS[name](data["groups"][name])]


def goals_table(data: Group) -> str:
    return goals("structured matrices", all_rows(data), data)


def headline_table(data: Group) -> str:
    return headlines("structured matrices", all_rows(data))
