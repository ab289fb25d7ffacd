"""Second-order optimization: measurements as figures beside goals, and as tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from figures_optimize import GRADIENT, LEVELS, OURS
from rows import Row, goals, headlines
from rows_sketch import at_most

from randla.bench.measure import Timings
from randla.bench.report import error, seconds

Group = dict[str, Any]
# Props per term of the published inexact trust region, by another implementation that shares no passes.
PUBLISHED = ("10.5", "never", "never")
PROPS_GOALS = (1.5, 30.0, 60.0)
LABELS = {"squared_sigmoid": "squared sigmoid loss", "logistic": "logistic loss"}


def number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "never"


def ijcnn1_rows(record: Group) -> list[Row]:
    middle = {name: [statistics.median(at) for at in zip(*by_start, strict=True)] for name, by_start in record["props"].items()}
    rows = []
    for k, (level, goal) in enumerate(zip(LEVELS, PROPS_GOALS, strict=True)):
        others = ", ".join(f"{name} {number(middle[name][k])}" for name in ("L-BFGS-B", "trust-ncg"))
        paper = f"inexact trust region with its published settings {number(middle['yao2018'][k])} ({PUBLISHED[k]} reported)"
        ours = middle["trust-region"][k]
        label = f"ijcnn1, props / n to a loss of {level:g}: trust region"
        rows.append(at_most(label, number(ours), f"scipy {others}; {paper}", ours, goal, headline=True))
        cubic = middle["cubic"][k]
        label = f"ijcnn1, props / n to a loss of {level:g}: cubic"
        rows.append(at_most(label, number(cubic), f"trust region {number(ours)}", cubic / ours, 1.5))
    for name in OURS:
        worst = max(record["excess"][name])
        label = f"ijcnn1, {len(record['excess'][name])} starts: largest F - F* of {name}"
        proved = f"F* = {record['best']:.7f}; {sum(record['success'][name])} certified"
        rows.append(at_most(label, error(worst), proved, max(worst, 0.0), 1e-6))
    return rows


def covertype_rows(record: Group) -> list[Row]:
    rows = []
    for loss, part in record["losses"].items():
        reached = part["reached"]
        peers = [name for name in reached if name not in OURS]
        for place, what, text in (
            (0, "props / n", number),
            (1, "seconds", lambda t: seconds(t) if math.isfinite(t) else "never"),
        ):
            best = [min((reached[name][k][place], name) for name in peers) for k in range(len(reached[OURS[0]]))]
            against = f"scipy {statistics.mode(name for _, name in best)} {text(statistics.median(value for value, _ in best))}"
            for name in OURS:
                mine = [at[place] for at in reached[name]]
                ratio = statistics.median(value / own for (value, _), own in zip(best, mine, strict=True))
                label = f"covertype {record['n']:,} x {record['d']}, {LABELS[loss]}, {what} to 1.0001 F*: {name}"
                rows.append(Row(label, text(statistics.median(mine)), against, ratio, 1, headline=name == OURS[0]))
    return rows


def kernels_rows(record: Group) -> list[Row]:
    return [*large_rows(record["large"]), *small_rows(record["small"]), *sampled_rows(record["sampled"])]


def large_rows(record: Group) -> list[Row]:
    times, shape = Timings(record["times"]), f"{record['m']:,} x {record['n']}"

    def shown(name: str, read: str = "float64") -> str:
        return f"{seconds(times.median(name))} ({times.ratio(name, f'read {read}'):.2f} reads of X)"

    name = f"X' D X v, {shape}, one core"
    numpy = f"numpy {seconds(times.median('numpy product float64'))}"
    each = times.ratio("numpy product float64", "8 products float64") * 8
    rows = [
        Row(name, shown("product float64"), numpy, times.ratio("numpy product float64", "product float64"), 3, headline=True),
        Row(
            f"{name}, float32",
            shown("product float32", "float32"),
            f"its float64 {seconds(times.median('product float64'))}",
            times.ratio("product float64", "product float32"),
            1.7,
        ),
        Row(f"{name}, 8 vectors, per vector", seconds(times.median("8 products float64") / 8), numpy, each, 5, headline=True),
    ]
    for loss, label in LABELS.items():
        against = f"numpy {seconds(times.median(f'numpy pass {loss}'))}"
        ratio = times.ratio(f"numpy pass {loss}", f"pass {loss}")
        name = f"value, gradient and weights, {label}, {shape}, one core"
        rows.append(Row(name, shown(f"pass {loss}"), against, ratio, 3, headline=loss == "squared_sigmoid"))
    return rows


def small_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    rows = []
    for name in (name.removeprefix("numpy ") for name in times if name.startswith("numpy ")):
        label = f"X' D X v, {record['m']:,} x {record['n']}, one core, {name} order"
        ours, theirs = f"product {name}", f"numpy {name}"
        against = f"numpy {seconds(times.median(theirs))}"
        rows.append(Row(label, seconds(times.median(ours)), against, times.ratio(theirs, ours), 1))
    return rows


def sampled_rows(record: Group) -> list[Row]:
    times = Timings(record["times"])
    rows = []
    for share, size in record["sizes"].items():
        gathered = f"{seconds(times.median(f'gathered {share}'))} with a pass and gathering"
        ours = f"{seconds(times.median(f'product {share}'))} ({gathered})"
        part = size / record["n"]
        against = f"{part:.2g} of the full product {seconds(part * times.median('all'))}"
        label = f"X' D X v on {float(share):.0%} of {record['n']:,} rows"
        rows.append(at_most(label, ours, against, times.ratio(f"product {share}", "all") / part, 1.3))
    return rows


def rejected_rows(record: Group) -> list[Row]:
    return [
        at_most(
            f"{name}: Hessian products of {counts['after']:,} trial points after a rejected one",
            str(counts["products"]),
            "",
            counts["products"] if counts["after"] else math.nan,
            0,
        )
        for name, counts in record["counts"].items()
    ]


def logistic_rows(record: Group) -> list[Row]:
    rows = []
    for name, part in record["records"].items():
        times, sizes = Timings(part["times"]), part["grad_norms"]
        best = min(part["tolerances"], key=times.median, default=None)
        others = [f"{solver} {seconds(times.median(solver))}" for solver in part["tolerances"] if solver != best]
        others += [f"{name} {seconds(w['seconds'])} to {error(w['grad_norm'])}" for name, w in part["short"].items()]
        first = f"{best} {seconds(times.median(best))}" if best else "none"
        against = f"scikit-learn {first} ({', '.join(others)})"
        for ours in ("newton", "trust-region"):
            label = f"logistic regression, {name} {part['m']:,} x {part['n']}, to a gradient of {GRADIENT:g}: {ours}"
            shown = f"{seconds(times.median(ours))}, gradient {error(sizes[ours])}"
            # One method is held to the goal.
            goal, headline = (1.5, True) if ours == "newton" else (1.0, False)
            ratio = 0.0 if sizes[ours] > GRADIENT else times.ratio(best, ours) if best else math.inf
            rows.append(Row(label, shown, against, ratio, goal, headline=headline))
    return rows


ROWS: dict[str, Callable[[Group], list[Row]]] = {
    "ijcnn1": ijcnn1_rows,
    "covertype": covertype_rows,
    "glm-kernels": kernels_rows,
    "rejected": rejected_rows,
    "logistic": logistic_rows,
}


def all_rows(data: Group) -> list[Row]:
    groups = data["groups"]
    known = (name for name in ROWS if name in groups and not isinstance(groups[name].get("missing"), str))
    return [row for name in known for row in ROWS[name](groups[name])]


def goals_table(data: Group) -> str:
    return goals("second-order optimization, float64 unless said", all_rows(data), data)


def headline_table(data: Group) -> str:
    return headlines("second-order optimization", all_rows(data))
