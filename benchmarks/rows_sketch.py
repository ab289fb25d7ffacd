"""Sketches, sparse and mapped problems, defaults: measurements as figures beside goals, and as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from figures_sketch import COMPARED, LOGS, SHOWN
from figures_solve import DISTRIBUTIONS, RATIOS
from rows import Row, goals, headlines, markdown

from randla.bench.measure import Timings
from randla.bench.report import error, seconds

# Not run here: times of others' code on a machine of the same kind, in reads of A and in seconds.
LIBRARY_READS = {"C": 0.46 / 0.04, "F": 0.85 / 0.04}
TRANSFORM_SECONDS = {10: 0.33e-6, 12: 1.4e-6, 14: 6.8e-6}

Group = dict[str, Any]


def at_most(problem: str, ours: str, against: str, ratio: float, goal: float, headline: bool = False) -> Row:
    return Row(problem, ours, against, ratio, goal, at_least=False, headline=headline)


def size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 0.5e9 else f"{count / 1e6:.1f} MB"


def reads_of(times: Timings, name: str, order: str) -> float:
    return times.ratio(f"{name} {order}", f"read {order}")


def families_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    rows = []
    for name in COMPARED:
        label = f"{name.removesuffix('()')} of {record['m']:,} x {record['n']:,}, d = {record['d']:,}"
        ours = {order: seconds(times.median(f"{name} {order}")) for order in "CF"}
        for order in "CF":
            problem, sparse = f"{label}, {order} order", name == "SparseStack(8)"
            if sparse:
                stored = f"scipy csc_array @ A {seconds(times.median(f'scipy {order}'))}"
                rows.append(
                    Row(problem, ours[order], stored, times.ratio(f"scipy {order}", f"{name} {order}"), 4, headline=True)
                )
            reads = reads_of(times, name, order)
            one = f"one read of A {seconds(times.median(f'read {order}'))}"
            rows.append(at_most(problem, ours[order], one, reads, 4 if sparse else 2, headline=name == "BlockSRHT()"))
            if sparse:
                other = f"best public C++ library, {LIBRARY_READS[order]:.1f} reads (not run here)"
                rows.append(Row(problem, f"{reads:.1f} reads", other, LIBRARY_READS[order] / reads, 4))
        if not sparse:
            ratio = times.ratio(f"{name} F", f"{name} C")
            rows.append(at_most(f"{label}, F order", ours["F"], f"its C order {ours['C']}", ratio, 1.5))
    return rows


def csr_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    problem = f"SparseStack(8) of {record['m']:,} x {record['n']:,} CSR, {record['nnz']:.2g} nonzeros, d = {record['d']:,}"
    against = f"scipy csc_array @ csr_array {seconds(times.median('scipy csc'))}"
    return [Row(problem, seconds(times.median("randla")), against, times.ratio("scipy csc", "randla"), 3, headline=True)]


def dense_rows(record: Group) -> list[Row]:
    times, rows = Timings(record["times"]), []
    product = f"its matrix product alone {seconds(times.median('gemm'))}"
    for name, goal in (("Gaussian()", 1.3), ("Rademacher()", 1.1)):
        label = f"{name.removesuffix('()')} of {record['m']:,} x {record['n']:,}, d = {record['d']:,}"
        rows.append(at_most(label, seconds(times.median(name)), product, times.ratio(name, "gemm"), goal, headline=True))
        memory = record["memory"][name]
        beside = max(0, memory["peak"] - memory["before"] - memory["result"]) / 2**20
        result = f"result of {memory['result'] / 2**20:.1f}"
        rows.append(at_most(f"{label}: MB of memory beside the result", f"{beside:.1f}", result, beside, 32))
    return rows


def fill_rows(record: Group) -> list[Row]:
    times, ours, numpy = Timings(record["times"]), "Gaussian() into an array", "numpy standard_normal"
    problem = f"{record['count']:.2g} Gaussians, {record['threads']} threads"
    against = f"numpy standard_normal (serial) {seconds(times.median(numpy))}"
    return [Row(problem, seconds(times.median(ours)), against, times.ratio(numpy, ours), 3, headline=True)]


def fwht_rows(record: Group) -> list[Row]:
    times, rows = Timings(record["times"]), []
    for log in LOGS:
        once, published = times.median(f"cached {1 << log}"), TRANSFORM_SECONDS[log]
        against = f"best public code {published * 1e6:.2g} us (not run here)"
        problem = f"fwht of 2^{log}, float32, one thread, in cache"
        rows.append(at_most(problem, f"{once * 1e6:.2g} us", against, once / published, 1.2))
    for log in LOGS:
        for axis in ("last", "first"):
            ours, copy = f"batch {1 << log} {axis}", f"copy {1 << log} {axis}"
            problem = f"fwht of {record['batch']} vectors of 2^{log}, float32, {axis} axis"
            against = f"copy {seconds(times.median(copy))}"
            rows.append(at_most(problem, seconds(times.median(ours)), against, times.ratio(ours, copy), 2))
    return rows


def threads_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    return [
        Row(f"{name}: two threads", seconds(times.median(f"{name} 2")), f"one thread {one}", ratio, 1.8)
        for name in record["names"]
        if name != "BlockSRHT()"
        for one, ratio in [(seconds(times.median(f"{name} 1")), times.ratio(f"{name} 1", f"{name} 2"))]
    ]


def sparse_rows(group: Group) -> list[Row]:
    rows = []
    for name, record in group["records"].items():
        times = Timings(record["times"])
        problem = f"{name}, {record['m']:,} x {record['n']:,} CSR"
        reached = "" if record["lsqr_reached"] else f", still at backward error {error(record['lsqr_backward_error'])}"
        against = f"scipy lsqr {seconds(times.median('lsqr'))}, {record['lsqr_iterations']:,} iterations{reached}"
        rows.append(Row(problem, seconds(times.median("randla")), against, times.ratio("lsqr", "randla"), 3, headline=True))
    return rows


def memmap_rows(record: Group) -> list[Row]:
    problem = f"{record['m']:,} x {record['n']:,} on disk, {size(record['bytes'])}"
    peak, limit, passes = record["anonymous_peak"], record["limit"], record["passes"]
    inside = f"{record['in_memory_passes']} for {record['copied_rows']:,} rows in memory, same d"
    differ = record["entries_that_differ"]
    return [
        at_most(f"{problem}: own memory", size(peak), f"limit {size(limit)}", peak / limit, 1, headline=True),
        at_most(f"{problem}: passes", str(passes), inside, passes / record["in_memory_passes"], 1),
        at_most(
            f"{record['copied_rows']:,} rows of it: entries of x that differ from those in memory", str(differ), "0", differ, 0
        ),
    ]


ROWS: dict[str, Callable[[Group], list[Row]]] = {
    "families": families_rows,
    "csr": csr_rows,
    "dense": dense_rows,
    "fill": fill_rows,
    "fwht": fwht_rows,
    "threads": threads_rows,
    "sparse": sparse_rows,
    "memmap": memmap_rows,
}


def rows_of(data: dict[str, Any]) -> list[Row]:
    return [row for name, make in ROWS.items() if name in data["groups"] for row in make(data["groups"][name])]


def goals_table(data: dict[str, Any]) -> str:
    return goals("float64 unless said", rows_of(data), data)


def headline_table(data: dict[str, Any]) -> str:
    return headlines("sketches, sparse and mapped problems", rows_of(data))


def families_table(data: dict[str, Any]) -> str:
    """Every family in both orders, in seconds and in reads of A."""
    if "families" not in data["groups"]:
        return ""
    group, cells = data["groups"]["families"], []
    for part, names in (("times", [*COMPARED, "scipy"]), ("shown", SHOWN)):
        times = Timings(group[part])
        for name in names:
            row = [name if name != "scipy" else "scipy csc_array @ A, S stored"]
            for order in "CF":
                row += [seconds(times.median(f"{name} {order}")), f"{reads_of(times, name, order):.1f}"]
            cells.append([*row, f"{times.ratio(f'{name} F', f'{name} C'):.2f}"])
    title = f"{group['m']:,} x {group['n']:,}, d = {group['d']:,}"
    return markdown([title, "C order", "reads of A", "F order", "reads of A", "F / C"], cells)


def fwht_table(data: dict[str, Any]) -> str:
    if "fwht" not in data["groups"]:
        return ""
    group = data["groups"]["fwht"]
    times, cells = Timings(group["times"]), []
    for log in LOGS:
        n = 1 << log
        once = [f"{times.median(f'{kind} {n}') * 1e6:.3g} us" for kind in ("one", "cached")]
        batches = [seconds(times.median(f"{kind} {n} {axis}")) for axis in ("last", "first") for kind in ("batch", "copy")]
        cells.append([f"2^{log}", *once, *batches])
    columns = ["length", "one call", "per vector in cache", f"{group['batch']}, last axis", "copy", "first axis", "copy"]
    return markdown(columns, cells)


def threads_table(data: dict[str, Any]) -> str:
    if "threads" not in data["groups"]:
        return ""
    group = data["groups"]["threads"]
    times = Timings(group["times"])
    cells = [
        [
            "read of A" if name == "read" else name,
            *(seconds(times.median(f"{name} {k}")) for k in (1, 2)),
            f"{times.ratio(f'{name} 1', f'{name} 2'):.2f}",
        ]
        for name in [*group["names"], "read"]
    ]
    return markdown(["kernel", "one thread", "two threads", "ratio"], cells)


def sparse_table(data: dict[str, Any]) -> str:
    cells = []
    group = data["groups"].get("sparse", {"records": {}, "missing": []})
    for name, r in group["records"].items():
        times = Timings(r["times"])
        ours = [seconds(times.median("randla")), r["method"], str(r["passes"]), error(r["backward_error"])]
        other = [seconds(times.median("lsqr")), f"{r['lsqr_iterations']:,}", error(r["lsqr_backward_error"])]
        cells.append([name, f"{r['nnz']:,}", f"{r['rank']} of {r['n']}", f"{r['cond']:.2g}", *ours, *other])
    columns = ["problem", "nonzeros", "rank", "cond", "randla", "method", "passes", "backward error"]
    table = markdown([*columns, "lsqr", "iterations", "backward error"], cells)
    missing = f"\n\nNot measured, as the data were not there: {', '.join(group['missing'])}." if group["missing"] else ""
    return table + missing


def memmap_table(data: dict[str, Any]) -> str:
    if "memmap" not in data["groups"]:
        return ""
    r = data["groups"]["memmap"]
    first, again = r["seconds"]
    rate = r["bytes"] * r["passes"] / again / 1e9
    cells = [
        ["matrix", f"{r['m']:,} x {r['n']:,}, {size(r['bytes'])}"],
        ["time, first call", seconds(first)],
        ["time, second call", seconds(again)],
        ["passes", str(r["passes"])],
        ["all passes, second call", f"{rate:.1f} GB/s"],
        ["one read after it", f"{r['bytes'] / r['read_seconds'] / 1e9:.1f} GB/s"],
        ["certificate", error(r["certificate"])],
        ["own memory before the call", size(r["anonymous_before"])],
        ["own memory, peak", size(r["anonymous_peak"])],
    ]
    table = markdown([f"{r['method']}, at most {size(r['limit'])} of own memory", "measured"], cells)
    smaller = f"\n\nNot {r['wanted_m']:,} rows, for lack of disk space." if r["m"] < r["wanted_m"] else ""
    return table + smaller


def decided(data: dict[str, Any]) -> list[Group]:
    found = [group for name, group in data["groups"].items() if name.startswith("defaults ")]
    return [group for group in found if len(group.get("times", {})) > 1]


def fastest(group: Group) -> Group:
    """Of the cells that were timed in rounds."""
    return min((cell for cell in group["cells"] if "times" in cell), key=lambda cell: cell["seconds"])


def defaults_table(data: dict[str, Any]) -> str:
    """The fastest sketch of each problem beside what lstsq takes."""
    cells = []
    for group in decided(data):
        best, model = fastest(group), group["model"]
        cells.append(
            [
                group["problem"],
                f"{best['distribution']}, {best['ratio']} n",
                *(seconds(best["seconds"]), str(best["iterations"]), str(best["passes"])),
                f"{model['distribution']}, {model['d'] / group['n']:.1f} n",
                *(seconds(model["seconds"]), str(model["iterations"]), str(model["passes"])),
                f"{Timings(group['times']).ratio('model', best['name']):.2f}",
            ]
        )
    columns = ["problem", "fastest", "time", "iterations", "passes", "default", "time", "iterations", "passes", "ratio"]
    return markdown(columns, cells)


def sizes_table(data: dict[str, Any]) -> str:
    """All that was tried: time, iterations and passes of every distribution and size."""
    cells = []
    for group in decided(data):
        best = fastest(group)
        for distribution in DISTRIBUTIONS:
            tried = {cell["ratio"]: cell for cell in group["cells"] if cell["distribution"] == distribution}
            if not tried:
                continue
            row = [f"{group['problem']}, {distribution}"]
            for ratio in RATIOS:
                cell = tried.get(ratio)
                if cell is None:
                    row.append("-")
                elif not cell["certified"]:
                    row.append(f"{cell['status']} {error(cell['backward_error'])}")
                else:
                    text = f"{seconds(cell['seconds'])} / {cell['iterations']} / {cell['passes']}"
                    row.append(f"**{text}**" if cell is best else text)
            cells.append(row)
    return markdown(["problem and sketch", *(f"d = {ratio} n" for ratio in RATIOS)], cells)


# Marks of docs/benchmarks.md and what stands between them.
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "sketch-goals": goals_table,
    "families": families_table,
    "fwht": fwht_table,
    "threads": threads_table,
    "sparse": sparse_table,
    "memmap": memmap_table,
    "defaults": defaults_table,
    "sizes": sizes_table,
}
