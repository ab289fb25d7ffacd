"""Records as tables: plain text, Markdown, rich, and one HTML file that holds everything it shows."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Table",
    "error",
    "facts",
    "html_page",
    "leverage_table",
    "lstsq_table",
    "optimize_table",
    "ratio",
    "seconds",
    "sketch_table",
]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { padding: 0.25rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { background: #eef5fb; }
svg { max-width: 100%; height: auto; }
p.note { color: #555; }
"""


def seconds(value: float | None) -> str:
    """Three digits with a unit."""
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= 0.9995 * scale or unit == "us":
            return f"{value / scale:.3g} {unit}" if value / scale < 999.5 else f"{value / scale:.0f} {unit}"
    raise AssertionError


def error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}" if value else "0"


def ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}x" if value >= 99.5 else f"{value:.3g}x" if value >= 9.95 else f"{value:.2g}x"


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column is a name, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[bool] = ()  # rows to set off
    notes: Sequence[str] = ()

    def text(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            first, *rest = (
                cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join([first, *rest]).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, line(self.columns), rule, *map(line, self.rows), *self.notes])

    def markdown(self) -> str:
        head = [f"| {' | '.join(self.columns)} |", "|" + "|".join(["---"] + ["---:"] * (len(self.columns) - 1)) + "|"]
        return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in self.rows)])

    def html(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

        strong = self.strong or [False] * len(self.rows)
        body = (
            f"<tr{' class=ours' if mark else ''}>{row(cells, 'td')}</tr>" for cells, mark in zip(self.rows, strong, strict=True)
        )
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        head = f"<caption>{html.escape(self.title)}</caption><thead><tr>{row(self.columns, 'th')}</tr></thead>"
        return f"<table>{head}<tbody>{''.join(body)}</tbody></table>{notes}"

    def rich(self) -> Any:
        """The text with styles. Lines of the table stay whole: cut to the width of a terminal they would say nothing."""
        from rich.console import Group
        from rich.text import Text

        title, head, rule, *lines = self.text().splitlines()[: 3 + len(self.rows)]
        strong = self.strong or [False] * len(self.rows)
        styled = [
            (head, "bold"),
            (rule.replace("-", "─"), ""),
            *((line, "bold cyan" if mark else "") for line, mark in zip(lines, strong, strict=True)),
        ]
        return Group(
            Text(title, style="bold"),
            *(Text(line, style=style, no_wrap=True, overflow="ignore") for line, style in styled),
            *(Text(note, style="dim") for note in self.notes),
            "",
        )


def facts(*provenances: dict[str, Any]) -> str:
    """Machines and versions in one line; what was measured on the same ones is listed after them by commit and date."""
    measured: dict[str, dict[tuple[str, str], list[str]]] = {}
    for p in provenances:
        machine = (
            f"{p['cpu']}, {p['cores']} cores, {p['system']}; Python {p['python']}, NumPy {p['numpy']}, SciPy {p['scipy']}, "
            f"{p['blas']}"
        )
        commits = measured.setdefault(machine, {}).setdefault((p["randla"], p["date"]), [])
        if p.get("commit") and p["commit"] not in commits:
            commits.append(p["commit"])
    parts = []
    for machine, builds in measured.items():
        parts.append(machine)
        parts += [f"randla {version}{' at ' if at else ''}{', '.join(at)}; {date}" for (version, date), at in builds.items()]
    return "; ".join(parts)


def lstsq_table(record: dict[str, Any], baseline: str = "numpy.linalg.lstsq") -> Table:
    """One row per solver; speed-ups are against the baseline."""
    times = {s["name"]: s["times"] for s in record["solvers"] if "times" in s}
    rows, strong, notes = [], [], []
    for solver in record["solvers"]:
        strong.append(solver["ours"])
        if "error" in solver:
            rows.append([solver["name"], "failed", *["-"] * 4])
            notes.append(f"{solver['name']}: {solver['error']}")
            continue
        gain = None
        if baseline in times:
            ratios = sorted(a / b for a, b in zip(times[baseline], solver["times"], strict=True))
            gain = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
        used = solver.get("method")
        name = f"{solver['name']} ({used})" if solver["name"] == "randla.lstsq" and used else solver["name"]
        columns = (
            seconds(solver["seconds"]),
            ratio(gain),
            error(solver["backward_error"]),
            error(solver["forward_error"]),
        )
        rows.append([name, *columns, count(solver.get("passes"))])
        if solver.get("status") == "ITERATION_LIMIT":
            notes.append(f"{solver['name']} stopped at its limit of {solver['iterations']} iterations.")
    shape = f"{record['m']:,} x {record['n']:,}, {record['dtype']}, {record['order']} order, rank {record['rank']}"
    title = f"{record['problem']}: {shape}"
    notes.append("One run of each." if record["rounds"] == 1 else f"Medians of {record['rounds']} interleaved rounds.")
    if record.get("bounds"):
        b = record["bounds"]
        notes.append(
            f"One read of A takes {seconds(b['read_seconds'])} ({b['read_gbytes_per_second']:.3g} GB/s); "
            f"2 m n^2 operations at the matrix-product rate take {seconds(b['qr_limit_seconds'])} "
            f"({b['gemm_gflops']:.3g} Gflop/s)."
        )
    if record.get("householder_backward_error") is not None:
        notes.append(f"Backward error of Householder QR: {error(record['householder_backward_error'])}.")
    return Table(title, ["solver", "time", "speed-up", "backward error", "forward error", "passes"], rows, strong, notes)


def sketch_table(record: dict[str, Any]) -> Table:
    """One row per sketch; time also in units of one read of A."""
    rows = [[s["name"], seconds(s["seconds"]), count(round(s["reads"], 2)), count(s["distortion"])] for s in record["sketches"]]
    b = record["bounds"]
    notes = [f"One read of A takes {seconds(b['read_seconds'])} ({b['read_gbytes_per_second']:.3g} GB/s)."]
    if record.get("gaussian_distortion"):
        notes.append(f"Distortion is cond(S Q); a Gaussian sketch of this size has about {record['gaussian_distortion']:.3g}.")
    title = f"{record['problem']}, {record['dtype']}, {record['order']} order"
    strong = [s["ours"] for s in record["sketches"]]
    return Table(title, ["sketch", "time", "reads of A", "distortion"], rows, strong, notes)


def leverage_table(record: dict[str, Any], baseline: str = "numpy QR") -> Table:
    """One row per route to the scores; speed-ups are against the baseline."""
    ratios = {s["name"]: record["ratios"].get(f"{s['name']} / {baseline}") for s in record["routes"]}
    rows = [
        [
            s["name"],
            seconds(s["seconds"]),
            ratio(1 / r if (r := ratios[s["name"]]) else None),
            error(s["error"]),
            count(s["passes"]),
        ]
        for s in record["routes"]
    ]
    b = record["bounds"]
    rounding = error(record["cond"] * 2**-52)
    notes = [
        f"Errors are the largest relative ones, against {baseline}; cond times the unit roundoff is {rounding}.",
        f"One read of A takes {seconds(b['read_seconds'])} ({b['read_gbytes_per_second']:.3g} GB/s).",
    ]
    title = f"leverage scores of {record['problem']}, {record['dtype']}, {record['order']} order"
    strong = [s["ours"] for s in record["routes"]]
    return Table(title, ["route", "time", "speed-up", "relative error", "passes"], rows, strong, notes)


def optimize_table(record: dict[str, Any]) -> Table:
    """One row per method: what it took to come close to the lowest loss, and the point at which it ended."""
    rows = [
        [
            s["name"],
            "-" if s["props"] is None else f"{s['props']:.1f}",
            seconds(s["seconds"]),
            error(max(s["excess"], 0.0)),
            error(s["grad_norm"]),
            error(s["min_eig"]),
            seconds(s["end_seconds"]),
        ]
        for s in record["methods"]
    ]
    notes = [
        f"F falls from {record['start']:.5g} to {record['best']:.9g}, the lowest found; reached: within a factor of "
        f"{record['level'] / record['best'] - 1:.0e} of it. A prop is a pass over one term, forward or backward.",
        "Methods of SciPy share forward passes too, and end once they are there; '-' was not reached in time.",
        "One run of each." if record["rounds"] == 1 else f"Medians of {record['rounds']} interleaved rounds.",
    ]
    title = f"{record['problem']}: {record['m']:,} terms, {record['n']} variables, {record['loss']}, {record['dtype']}"
    strong = [s["ours"] for s in record["methods"]]
    columns = [
        "method",
        "props / n",
        "seconds to reach it",
        "F - lowest at the end",
        "||g||",
        "lowest curvature",
        "time in all",
    ]
    return Table(title, columns, rows, strong, notes)


def html_page(title: str, provenance: dict[str, Any], sections: Sequence[tuple[Table, str]]) -> str:
    """One file: each section is a table and a picture as SVG text (or nothing)."""
    body = "\n".join(f"<section>{picture}{table.html()}</section>" for table, picture in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1><p>{html.escape(facts(provenance))}</p>\n{body}\n</body></html>\n"
    )
