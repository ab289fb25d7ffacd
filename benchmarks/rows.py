"""Least squares: measurements as figures beside goals, and as tables."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from randla.bench.measure import GEMM_SIZE, Timings
from randla.bench.report import Table, error, facts, seconds

# Columns of a table of rows, after the problem.
FIGURE = ("randla", "against", "ratio", "goal", "met")


@dataclass(frozen=True)
class Row:
    """One figure beside its goal; the goal holds when the ratio is on the right side of it."""

    problem: str
    ours: str
    against: str
    ratio: float
    goal: float
    at_least: bool = True
    headline: bool = False  # whether a short table shows it

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def cells(self) -> list[str]:
        value = f"{self.ratio:.2g}" if self.ratio < 0.1 else f"{self.ratio:.2f}" if self.ratio < 9.95 else f"{self.ratio:.1f}"
        return [
            self.problem,
            self.ours,
            self.against,
            value,
            f"{'>=' if self.at_least else '<='} {self.goal:g}",
            "yes" if self.met else "**no**",
        ]


def markdown(columns: list[str], cells: list[list[str]]) -> str:
    """A table, or nothing where there is nothing to show."""
    return Table("", columns, cells).markdown() if cells else ""


def goals(title: str, rows: list[Row], data: dict[str, Any]) -> str:
    """Every figure with its goal, and the machine."""
    if not rows:
        return ""
    table = markdown([title, *FIGURE], [row.cells() for row in rows])
    return f"{table}\n\n{sum(row.met for row in rows)} of {len(rows)} goals met. Measured on: {machines(data)}."


def headlines(title: str, rows: list[Row]) -> str:
    return markdown([title, *FIGURE], [row.cells() for row in rows if row.headline])


def limits(record: dict[str, Any]) -> Timings:
    """Times with the time that 2 m n^2 operations take at the matrix-product rate of each round."""
    times = Timings(record["times"])
    times["limit"] = [t * 2 * record["m"] * record["n"] ** 2 / (2 * GEMM_SIZE**3) for t in times["gemm"]]
    return times


def tall_rows(record: dict[str, Any], goals: tuple[float, float]) -> list[Row]:
    times, accuracy = limits(record), record["accuracy"]
    name = f"{record['m']:,} x {record['n']:,}"
    ours = seconds(times.median("randla C"))
    rows = [
        Row(name, ours, f"{other} {seconds(times.median(other))}", times.ratio(other, "randla C"), goal)
        for other, goal in zip(("numpy.linalg.lstsq", "scipy gelsd"), goals, strict=True)
    ]
    f, single = seconds(times.median("randla F")), seconds(times.median("randla float32"))
    rows.append(Row(f"{name}, F order", f, f"its C order {ours}", times.ratio("randla F", "randla C"), 1.3, at_least=False))
    rows.append(Row(f"{name}, float32", single, f"its float64 {ours}", times.ratio("randla C", "randla float32"), 1.6))
    if record["n"] >= 500:
        against = f"2 m n² flops at GEMM rate {seconds(times.median('limit'))}"
        rows.append(Row(name, ours, against, times.ratio("randla C", "limit"), 1.0, at_least=False))
    for key, label in (("randla C", ""), ("randla F", ", F order"), ("randla float32", ", float32")):
        a = accuracy[key]
        ratio = a["backward_error"] / a["householder"]
        against = f"Householder QR {error(a['householder'])}"
        rows.append(Row(f"{name}{label}, backward error", error(a["backward_error"]), against, ratio, 10, at_least=False))
    return rows


def best_driver(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], float]:
    """randla's entry, that of the fastest LAPACK driver, and the median ratio of their times."""
    ours = next(s for s in record["solvers"] if s["ours"])
    best = min((s for s in record["solvers"] if not s["ours"] and "seconds" in s), key=lambda s: s["seconds"])
    return ours, best, record["ratios"][f"{ours['name']} / {best['name']}"]


def shape_rows(group: dict[str, Any]) -> list[Row]:
    record = max(group["records"], key=lambda r: best_driver(r)[2])
    ours, best, ratio = best_driver(record)
    worst = max(group["records"], key=backward_ratio)
    count = len(group["records"])
    mine = next(s for s in worst["solvers"] if s["ours"])
    return [
        Row(
            f"{count} shapes, slowest: {record['m']:,} x {record['n']:,}",
            seconds(ours["seconds"]),
            f"best of LAPACK ({best['name']}) {seconds(best['seconds'])}",
            ratio,
            1.1,
            at_least=False,
        ),
        Row(
            f"{count} shapes, backward error, worst: {worst['m']:,} x {worst['n']:,}",
            error(mine["backward_error"]),
            f"Householder QR {error(worst['householder_backward_error'])}",
            backward_ratio(worst),
            10,
            at_least=False,
        ),
    ]


def backward_ratio(record: dict[str, Any]) -> float:
    return next(s for s in record["solvers"] if s["ours"])["backward_error"] / record["householder_backward_error"]


def sketch_rows(record: dict[str, Any]) -> list[Row]:
    times, n = Timings(record["times"]), record["n"]
    shape = f"{record['m']:,} x {n:,}"
    stack, srht = f"SparseStack(8) of {shape}, d = {4 * n:,}", f"BlockSRHT of {shape}, d = {20 * n:,}"
    c, f = seconds(times.median("stack C")), seconds(times.median("stack F"))
    scipy, read = "scipy csc_array @ A", seconds(times.median("read C"))
    rows = [
        Row(stack, c, f"{scipy} {seconds(times.median(scipy))}", times.ratio(scipy, "stack C"), 4),
        Row(stack, c, f"one read of A {read}", times.ratio("stack C", "read C"), 4, at_least=False),
        Row(f"{stack}, F order", f, f"its C order {c}", times.ratio("stack F", "stack C"), 1.5, at_least=False),
    ]
    for order in "CF":
        ours, read = seconds(times.median(f"srht {order}")), seconds(times.median(f"read {order}"))
        ratio = times.ratio(f"srht {order}", f"read {order}")
        rows.append(Row(f"{srht}, {order} order", ours, f"one read of A {read}", ratio, 3, at_least=False))
    return rows


def residual_rows(record: dict[str, Any]) -> list[Row]:
    times = Timings(record["times"])
    names = [name.removeprefix("pass ") for name in times if name.startswith("pass ")]
    return [
        Row(
            f"fused residual pass, {name} order",
            seconds(times.median(f"pass {name}")),
            f"one read of A {seconds(times.median(f'read {name}'))}",
            times.ratio(f"read {name}", f"pass {name}"),
            0.8,
        )
        for name in names
    ]


def memory_rows(record: dict[str, Any]) -> list[Row]:
    return [
        Row(f"{name}: peak extra memory", f"{share:.1%} of A", "A", share, 0.05, at_least=False)
        for name, share in record["peaks"].items()
    ]


GOALS = {"lstsq 200000x500": (7.0, 7.0), "lstsq 1000000x100": (6.0, 8.0), "lstsq 50000x2000": (4.0, 4.5)}


def rows_of(data: dict[str, Any]) -> list[Row]:
    makers = {"shapes": shape_rows, "sketch": sketch_rows, "residual": residual_rows, "memory": memory_rows}
    rows: list[Row] = []
    for name in [*GOALS, *makers]:
        if name in data["groups"]:
            group = data["groups"][name]
            rows += tall_rows(group, GOALS[name]) if name in GOALS else makers[name](group)
    return rows


def machines(data: dict[str, Any]) -> str:
    return facts(*(group["provenance"] for group in data["groups"].values()))


def goals_table(data: dict[str, Any]) -> str:
    """Every figure with its goal, and the machine."""
    rows = rows_of(data)
    if not rows:
        return ""
    table = markdown(["float64, cond 1e6, residual 10 % of b", *FIGURE], [row.cells() for row in rows])
    bounds = []
    for group in (g for name, g in data["groups"].items() if name in GOALS):
        times = Timings(group["times"])
        rate, speed = 2 * GEMM_SIZE**3 / times.median("gemm") / 1e9, group["bytes"] / times.median("read") / 1e9
        bounds.append(f"{rate:.0f} Gflop/s and {speed:.0f} GB/s at {group['m']:,} x {group['n']:,}")
    notes = [f"{sum(row.met for row in rows)} of {len(rows)} goals met. Measured on: {machines(data)}."]
    if bounds:
        notes.append(f"Bounds measured in the same runs (float64 GEMM, read of A): {', '.join(bounds)}.")
    return "\n\n".join([table, *notes])


def shapes_table(data: dict[str, Any]) -> str:
    """Every shape with the choice that `auto` made."""
    cells = []
    for record in data["groups"].get("shapes", {}).get("records", []):
        ours, best, ratio = best_driver(record)
        errors = error(ours["backward_error"]), error(record["householder_backward_error"])
        cells.append(
            [
                f"{record['m']:,} x {record['n']:,}",
                ours["method"],
                seconds(ours["seconds"]),
                best["name"],
                seconds(best["seconds"]),
                f"{ratio:.2f}",
                *errors,
            ]
        )
    columns = [
        "shape",
        "auto takes",
        "randla",
        "best LAPACK driver",
        "its time",
        "ratio",
        "backward error",
        "Householder QR's",
    ]
    return markdown(columns, cells)


def accuracy_table(data: dict[str, Any]) -> str:
    """Errors of every solver of the tall problems."""
    cells = []
    for name in (name for name in GOALS if name in data["groups"]):
        group = data["groups"][name]
        for solver, a in group["accuracy"].items():
            label = f"{solver} ({a['method']})" if "method" in a else solver
            if a.get("rank", group["n"]) < group["n"]:
                label += f", rank {a['rank']}"
            time = seconds(statistics.median(group["times"][solver]))
            passes = f"{a['passes']:.4g}" if a.get("passes") is not None else "-"
            cells.append(
                [
                    f"{group['m']:,} x {group['n']:,}",
                    label,
                    time,
                    passes,
                    error(a["backward_error"]),
                    error(a.get("certificate")),
                    error(a["forward_error"]),
                ]
            )
    return markdown(["problem", "solver", "time", "passes", "backward error", "certificate", "forward error"], cells)
