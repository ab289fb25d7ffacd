"""Low rank approximation, traces and learning: measurements as figures beside goals, and as tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from rows import Row, goals, headlines
from rows_sketch import at_most

from randla.bench.measure import GEMM_SIZE, Timings
from randla.bench.report import error, seconds

Group = dict[str, Any]
# A peer counts as equally accurate where its error is at most this much below ours, relatively.
EQUAL = 1e-3
TRACE_GOAL, RATE_GOAL, LOSS_GOAL = 5.0, 0.7, 0.787
# Gaps of the talk at n = 8, ..., 128, of one layer each.
GAPS = {8: 0.087, 16: 0.72, 32: 3.26, 64: 13.1, 128: 46.3}


def at_equal_error(times: Timings, errors: dict[str, float], ours: str, other: str) -> float:
    """How many times as fast as another, 0 where its error is smaller by more than a part EQUAL."""
    return times.ratio(other, ours) if errors[ours] <= (1 + EQUAL) * errors[other] else 0.0


def products_bound(times: Timings, flops: float) -> Timings:
    """Times with that of so many operations at the rate of matrix products in the same round."""
    out = Timings(times)
    out["products"] = [t * flops / (2 * GEMM_SIZE**3) for t in times["gemm"]]
    return out


def above(errors: dict[str, float], name: str) -> str:
    return f"error {error(errors[name] / min(errors.values()) - 1)} above the least"


def compared(record: Group, label: str, pairs: list[tuple[str, str, float, bool]]) -> list[Row]:
    """Decompositions beside peers: which of ours, against whom, goal, headline."""
    errors = record["errors"]
    times = products_bound(Timings(record["times"]), 4 * record.get("nnz", record["m"] * record["n"]) * record["dim"])
    rows = []
    for ours, other, goal, headline in pairs:
        if other not in errors:
            continue
        mine = f"{seconds(times.median(ours))}, {above(errors, ours)}"
        if ours == "randla" and "kind" not in record:
            mine += f" ({times.ratio(ours, 'products'):.1f} times its products at GEMM rate)"
        elif ours == "randla":
            mine += f" ({times.ratio(ours, 'read'):.0f} reads, {record['passes']} passes)"
        against = f"{other} {seconds(times.median(other))}, {above(errors, other)}"
        ratio = at_equal_error(times, errors, ours, other)
        rows.append(Row(f"{label}, against {other.split()[0]}", mine, against, ratio, goal, headline=headline))
    return rows


def svd_rows(goal: float, record: Group) -> list[Row]:
    what = f"values like i^-{record['power']:g}" if "power" in record else f"sparse, {record['kind']} places"
    label = f"svd of {record['m']:,} x {record['n']:,}, {what}, k = {record['k']}"
    pairs = [("randla", "sklearn randomized_svd", goal, True), ("randla", "scipy svds", goal, True)]
    pairs += [("randla", "fbpca n_iter=7", goal, True), ("randla n_iter=1", "fbpca", goal, False)]
    truth = record["errors"]["randla"]
    return [*compared(record, label, pairs), estimate_row(label, record["estimate"], truth, 0.01)]


def estimate_row(label: str, estimate: float, truth: float, goal: float) -> Row:
    off = abs(estimate / truth - 1)
    return at_most(f"{label}: reported error, off by", f"{estimate:.6g}", f"true error {truth:.6g}", off, goal)


def pca_rows(record: Group) -> list[Row]:
    if "missing" in record:
        return []
    label = f"principal components of MNIST {record['m']:,} x {record['n']}, k = {record['k']}"
    rows = compared(record, label, [("randla", "sklearn PCA", 2.0, True)])
    errors, best = record["errors"]["randla"], record["best"]
    rows.append(at_most(f"{label}: error", f"{errors:.6g}", f"best {best:.6g}", errors / best, 1.001))
    return [*rows, estimate_row(label, record["estimate"], errors, 0.2)]


def trace_rows(record: Group) -> list[Row]:
    rows, n = [], record["n"]
    for part in record["parts"]:
        label, hutchinson = f"trace, {part['name']}, n = {n:,}", min(part["hutchinson"], n)
        full = f" (all {n:,}, which are exact; by its variance {part['hutchinson']:,.0f})" if part["hutchinson"] > n else ""
        for method in ("xtrace", "nystrom"):
            count = part["needed"][method]
            mine, theirs = f"{method} {count:,}", f"Hutchinson {hutchinson:,.0f}{full}"
            problem = f"{label}: products to a median error of {record['level']:g}"
            rows.append(Row(problem, mine, theirs, hutchinson / count, TRACE_GOAL, headline=True))
        errors = part["errors"]
        for method in ("xtrace", "nystrom"):
            mine, theirs = f"{method} {error(errors[method])}", f"hutch++ {error(errors['hutch++'])}"
            problem = f"{label}: median error of {part['at']} products"
            rows.append(Row(problem, mine, theirs, errors["hutch++"] / max(errors[method], 1e-16), 1.0))
    return rows


def cholesky_rows(record: Group) -> list[Row]:
    if "missing" in record:
        return []
    n, k, errors = record["n"], record["k"], record["errors"]
    times = products_bound(Timings(record["times"]), 2 * n * k**2)
    label = f"rpcholesky, RBF kernel of covertype, n = {n:,}, k = {k}"
    bound = f"2 n k^2 at GEMM rate {seconds(times.median('products'))}"
    rows = []
    for method in ("block", "accelerated"):
        mine = f"{seconds(times.median(method))}, relative trace error {errors[method]:.4f}"
        rate = times.ratio("products", method)
        rows.append(Row(f"{label}: rate of {method}", mine, bound, rate, RATE_GOAL, headline=method == "block"))
    for method in ("block", "accelerated"):
        theirs = f"simple {seconds(times.median('simple'))}, {errors['simple']:.4f}"
        mine = f"{seconds(times.median(method))}, {errors[method]:.4f}"
        rows.append(Row(f"{label}: {method}", mine, theirs, times.ratio("simple", method), 1.0))
        rows.append(
            at_most(
                f"{label}: error of {method}",
                f"{errors[method]:.4f}",
                f"simple {errors['simple']:.4f}",
                errors[method] / errors["simple"],
                1.05,
            )
        )
    return rows


def qr_rows(record: Group) -> list[Row]:
    m, n, quality = record["m"], record["n"], record["quality"]
    times = products_bound(Timings(record["times"]), 3 * m * n**2)
    label = f"pivoted QR of {m:,} x {n}"
    mine = f"{seconds(times.median('randla'))} ({times.ratio('randla', 'products'):.1f} times 3 m n^2 at GEMM rate)"
    rows = [
        Row(
            f"{label}, against {what}",
            mine,
            f"{name} {seconds(times.median(name))}",
            times.ratio(name, "randla"),
            goal,
            True,
            head,
        )
        for what, name, goal, head in (("scipy's", "scipy pivoted", 10.0, True), ("scipy's unpivoted", "scipy", 2.0, False))
    ]
    for what in ("residual", "orthogonality"):
        ours, theirs = (quality[name][what] for name in ("randla", "scipy pivoted"))
        rows.append(at_most(f"{label}: {what}", error(ours), f"LAPACK {error(theirs)}", ours / theirs, 10.0))
    spread = record["diagonal"]
    rows.append(at_most(f"{label}: diagonal of R", f"within a factor {spread:.2f}", "LAPACK's", spread, 4.0))
    return rows


def interpolative_rows(record: Group) -> list[Row]:
    rows = []
    for part in record["parts"]:
        times, errors, best = Timings(part["times"]), part["errors"], part["best"]
        label = f"interpolative, {record['n']:,} x {record['n']:,}, k = {part['k']}"

        def shown(name: str, times: Timings = times, errors: dict[str, float] = errors, best: float = best) -> str:
            return f"{name} {seconds(times.median(name))}, error {errors[name] / best:.2f} times the best"

        for name in ("randla", "randla refined"):
            ratio, headline = at_equal_error(times, errors, name, "scipy"), name == "randla refined"
            rows.append(Row(f"{label}: {name}", shown(name), shown("scipy"), ratio, 2.0, headline=headline))
        rows.append(estimate_row(label, part["estimate"], errors["randla"], 0.5))
    return rows


def pcg_rows(record: Group) -> list[Row]:
    if "missing" in record:
        return []
    rows = []
    for part in record["parts"]:
        times, steps = Timings(part["times"]), part["iterations"]
        label = f"nystrom_pcg, kernel ridge regression, n = {record['n']:,}, ridge {part['ridge']:g}"
        mine, theirs = f"{steps['randla']} (rank {part['rank']})", f"scipy cg {steps['scipy cg']:,}"
        rows.append(Row(f"{label}: iterations", mine, theirs, steps["scipy cg"] / max(steps["randla"], 1), 5.0, headline=True))
        ours, other = seconds(times.median("randla")), f"scipy cg {seconds(times.median('scipy cg'))}"
        mine = f"{ours}, residual {error(part['residuals']['randla'])}"
        theirs = f"{other}, residual {error(part['residuals']['scipy cg'])}"
        rows.append(Row(f"{label}: seconds", mine, theirs, times.ratio("scipy cg", "randla"), 1.0, headline=True))
    return rows


def gspectral_rows(record: Group) -> list[Row]:
    n = record["n"]
    label, times = f"gspectral_init {n} x {n}, r = {record['rank']}", Timings(record["times"])
    mine = f"{record['loss']:.4f}, {seconds(times.median('gspectral'))}"
    rows = [
        at_most(
            f"{label}: relative loss", mine, f"spectral {record['spectral']:.4f}", record["loss"], LOSS_GOAL, headline=n == 256
        )
    ]
    for entry in record["growth"]:
        known, problem = GAPS[entry["n"]], f"gap to spectral, {entry['units']:,} units of {entry['n']} inputs, r = 2"
        shown = f"{entry['gap']:.3g} ({100 * entry['relative']:.1f} % of the energy)"
        # Of one layer each: at n = 8 the scatter between layers is 20 %.
        rows.append(Row(problem, shown, f"reported {known:g}", entry["gap"] / known, 0.8))
    return rows


def monomials_rows(record: Group) -> list[Row]:
    rows, trials = [], record["trials"]
    for kind, count in record["recovered"].items():
        problem = f"monomials of {record['factors']} of {record['p']} features, {kind}, {record['m']} samples: recovered"
        rows.append(Row(problem, f"{count} of {trials}", "-", count, trials, headline=True))
    needed = {int(p): m for p, m in record["needed"].items()}
    few, many = min(needed), max(needed)
    shown = ", ".join(f"p = {p:,}: {m}" for p, m in needed.items())
    problem = f"samples for 9 of {trials} monomials, p = {few:,} to {many:,}: growth"
    growth = math.log(many) / math.log(few)
    rows.append(at_most(problem, shown, "that of log p", needed[many] / needed[few], round(growth, 2), headline=True))
    return rows


def lasso_rows(record: Group) -> list[Row]:
    rows = []
    for name, case in record.get("cases", {}).items():
        times, gap, passes = Timings(record["times"]), case["gap"], case["passes"]
        label = f"lasso {record['m']} x {record['p']:,}, {record['kind']}, alpha {case['share']:g} of the largest"
        reads = times.ratio(f"randla {name}", "read")
        mine = f"{seconds(times.median(f'randla {name}'))}, gap {error(gap['randla'])} ({reads:.1f} reads, {passes} passes)"
        theirs = f"scikit-learn {seconds(times.median(f'sklearn {name}'))}, gap {error(gap['sklearn'])}"
        equal = gap["randla"] <= max(gap["sklearn"], 1e-14 * record["size"]) * (1 + EQUAL)
        ratio = times.ratio(f"sklearn {name}", f"randla {name}") if equal else 0.0
        headline = case["tol"] < 1e-6 and case["share"] in (0.1, 0.01)
        rows.append(Row(f"{label}, tol {case['tol']:.0e}", mine, theirs, ratio, 2.0, headline=headline))
    return rows


def pursuit_rows(record: Group) -> list[Row]:
    times, norms = Timings(record["times"]), record["norms"]
    mine = f"{seconds(times.median('randla'))}, gap {error(record['gap'])} ({times.ratio('randla', 'read'):.0f} reads)"
    theirs = f"HiGHS {seconds(times.median('highs'))}, its norm {error(abs(norms['highs'] / norms['randla'] - 1))} off"
    label = f"basis pursuit {record['m']} x {record['p']:,}, {record['kind']}"
    equal = record["gap"] <= 1e-7 and norms["randla"] <= norms["highs"] * (1 + 1e-7)
    return [Row(label, mine, theirs, times.ratio("highs", "randla") if equal else 0.0, 2.0, headline=True)]


ROWS: dict[str, Callable[[Group], list[Row]]] = {
    "svd-dense fast": partial(svd_rows, 2.0),
    "svd-dense slow": partial(svd_rows, 2.0),
    "svd-sparse uniform": partial(svd_rows, 1.5),
    "svd-sparse weighted": partial(svd_rows, 1.5),
    "pca-mnist": pca_rows,
    "trace": trace_rows,
    "rpcholesky": cholesky_rows,
    "pivoted-qr": qr_rows,
    "interpolative": interpolative_rows,
    "nystrom-pcg": pcg_rows,
    "gspectral": gspectral_rows,
    "monomials": monomials_rows,
    "lasso independent": lasso_rows,
    "lasso correlated": lasso_rows,
    "basis-pursuit independent": pursuit_rows,
    "basis-pursuit correlated": pursuit_rows,
}


def all_rows(data: Group) -> list[Row]:
    return [row for name in ROWS if name in data["groups"] for row in ROWS[name](data["groups"][name])]


def goals_table(data: Group) -> str:
    return goals("low rank and learning", all_rows(data), data)


def headline_table(data: Group) -> str:
    return headlines("low rank and learning", all_rows(data))
