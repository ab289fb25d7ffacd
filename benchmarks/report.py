"""Runs the measurements of figures.py and writes the tables of README.md and docs/benchmarks.md from them.

python benchmarks/report.py run -o benchmarks/results/lstsq.json [--only sketch residual]
python benchmarks/report.py readme
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randla import LstsqWarning
from randla.bench.measure import GEMM_SIZE, Timings, provenance
from randla.bench.report import Table, error, facts, seconds
from randla.cli import Progress, plain, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "lstsq.json"


@dataclass(frozen=True)
class Row:
    """One figure beside its goal; the goal holds when the ratio is on the right side of it."""

    problem: str
    ours: str
    against: str
    ratio: float
    goal: float
    at_least: bool = True

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


def readme_table(data: dict[str, Any]) -> str:
    rows = rows_of(data)
    columns = ["float64, cond 1e6, residual 10 % of b", "randla", "against", "ratio", "goal", "met"]
    table = Table("", columns, [row.cells() for row in rows]).markdown()
    machines = dict.fromkeys(facts(group["provenance"]) for group in data["groups"].values())
    bounds = []
    for group in (g for name, g in data["groups"].items() if name in GOALS):
        times = Timings(group["times"])
        rate, speed = 2 * GEMM_SIZE**3 / times.median("gemm") / 1e9, group["bytes"] / times.median("read") / 1e9
        bounds.append(f"{rate:.0f} Gflop/s and {speed:.0f} GB/s at {group['m']:,} x {group['n']:,}")
    notes = [f"{sum(row.met for row in rows)} of {len(rows)} goals met. Measured on: {'; '.join(machines)}."]
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
    return Table("", columns, cells).markdown()


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
    return Table(
        "", ["problem", "solver", "time", "passes", "backward error", "certificate", "forward error"], cells
    ).markdown()


def between(text: str, mark: str, content: str) -> str:
    """The text with what stands between <!-- mark:start --> and <!-- mark:end --> replaced."""
    start, end = f"<!-- {mark}:start -->", f"<!-- {mark}:end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"expected one {start} and one {end}")
    head, rest = text.split(start)
    return f"{head}{start}\n{content}\n{end}{rest.split(end)[1]}"


def rendered(data: dict[str, Any]) -> dict[Path, str]:
    """The files that hold generated tables, as they should be."""
    readme, page = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
    text = between(page.read_text(), "shapes", shapes_table(data))
    return {
        readme: between(readme.read_text(), "bench", readme_table(data)),
        page: between(text, "accuracy", accuracy_table(data)),
    }


def run(args: argparse.Namespace) -> None:
    from figures import GROUPS

    output = Path(args.output)
    data: dict[str, Any] = json.loads(output.read_text()) if args.only and output.exists() else {"groups": {}}
    with Progress() as progress, warnings.catch_warnings():
        # Ranks below n are part of what is recorded.
        warnings.simplefilter("ignore", LstsqWarning)
        for name in args.only or GROUPS:
            group = GROUPS[name](args.quick, lambda text, name=name: progress(f"{name}: {text}"))
            data["groups"][name] = {**group, "provenance": provenance(ROOT)}
            # After each group: an hour of measuring should survive an interruption.
            write_text(output, json.dumps(data, indent=1, default=plain) + "\n")
    print(readme_table(data))


def readme(args: argparse.Namespace) -> None:
    for path, text in rendered(json.loads(Path(args.input).read_text())).items():
        write_text(path, text)


def main() -> int:
    from figures import GROUPS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("run", help="measure")
    p.add_argument("-o", "--output", default=RESULTS)
    p.add_argument("--only", nargs="+", choices=GROUPS, help="measure these again and keep the others")
    p.add_argument("--quick", action="store_true", help="tiny problems, to try the machinery")
    p.set_defaults(run=run)
    p = commands.add_parser("readme", help="write the tables from the measurements")
    p.add_argument("input", nargs="?", default=RESULTS)
    p.set_defaults(run=readme)
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
