"""Draws the pictures of the documents from the measurements in benchmarks/results.

python benchmarks/pictures.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
COLORS = {"leverage": "#1b6ca8", "uniform": "#c8553d"}
LABELS = {"leverage": "rows drawn by leverage", "uniform": "rows drawn uniformly"}


def leverage(record: dict[str, Any], path: Path) -> None:
    """Histogram of scores, and residuals of sampled least squares."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    edges, counts = record["histogram"]["edges"], record["histogram"]["counts"]
    left.stairs(counts, edges, fill=True, color=COLORS["leverage"])
    lowest = next(edge for edge, count in zip(edges, counts, strict=False) if count)
    above = [score for score in record["highest"] if score > 0.5]
    left.plot(above, [1] * len(above), "v", color=COLORS["uniform"], label=f"{len(above)} rows above 0.5")
    left.axvline(record["n"] / record["m"], color="0.4", linewidth=1, linestyle="--", label="n / m")
    left.set(
        xscale="log",
        yscale="log",
        xlim=(lowest / 2, 2),
        xlabel="leverage score",
        ylabel="rows",
        title=f"{record['m']:,} x {record['n']}",
    )
    left.legend(frameon=False, loc="upper right")
    for name, by_size in record["ratios"].items():
        sizes = [int(k) for k in by_size]
        quarters = [statistics.quantiles(values, n=4) for values in by_size.values()]
        right.plot(sizes, [q[1] for q in quarters], "o-", color=COLORS[name], label=LABELS[name])
        right.fill_between(
            sizes, [q[0] for q in quarters], [q[2] for q in quarters], color=COLORS[name], alpha=0.2, linewidth=0
        )
    right.axhline(1, color="0.4", linewidth=1, linestyle="--")
    right.set(
        xscale="log", yscale="log", xlabel="sampled rows", ylabel="residual / smallest residual", title="sampled least squares"
    )
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


# Colour by method, line by what is sampled; randla's defaults are thick.
METHODS = {"trust-region": ("trust region", "#1b6ca8"), "cubic": ("cubic", "#c8553d")}
VARIANTS = {
    "adaptive": ("adaptive samples (randla)", "-", 2.4),
    "inexact": ("inexact", "-", 1.0),
    "subsampled-hessian": ("sub-sampled Hessian", "--", 1.0),
    "full": ("all terms", ":", 1.3),
}
PEERS = {
    "L-BFGS-B": ("#2f2f2f", "-"),
    "Newton-CG": ("#6f6f6f", "--"),
    "trust-ncg": ("#6f6f6f", "-."),
    "trust-krylov": ("#9a9a9a", ":"),
}


def figure1(record: dict[str, Any], path: Path) -> None:
    """How far the loss is above the lowest one found, over props and over seconds; a row for each problem."""
    problems = record["problems"]
    figure, grid = plt.subplots(len(problems), 2, figsize=(11, 4.1 * len(problems)), layout="constrained", squeeze=False)
    for (name, part), row in zip(problems.items(), grid, strict=True):
        for axes, key, label in zip(row, ("props", "seconds"), ("props per term", "seconds"), strict=True):
            left = 0.01 if key == "props" else first_seconds(part["curves"])
            for style, curve in styled(part["curves"]):
                points = [(max(x, left), fun - part["best"]) for x, fun in zip(curve[key], curve["fun"], strict=True)]
                # What is not above the lowest loss has no place on the axis; a loss holds until the next point.
                axes.plot(*zip(*(p for p in points if p[1] > 0), strict=True), drawstyle="steps-post", **style)
            axes.axhline(1e-4 * part["best"], color="0.6", linewidth=0.8, linestyle=(0, (1, 3)), zorder=0)
            axes.set(xscale="log", yscale="log", ylim=(1e-7 * part["best"], None), xlabel=label)
            axes.set_xlim(left=left)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].text(0.0105, 1.2e-4 * part["best"], "1.0001 x lowest", color="0.4", fontsize=8)
        row[0].set_ylabel("loss - lowest loss found")
        row[0].set_title(f"{name}, {part['n']:,} x {part['d']}, lowest loss {part['best']:.6f}", loc="left", fontsize=11)
    handles, labels = grid[0][0].get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    names = [f"{text}, {kind}" for text, _ in METHODS.values() for kind, _, _ in VARIANTS.values()]
    shown = {name: known[name] for name in [*names, *(f"scipy {name}" for name in PEERS)] if name in known}
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def styled(curves: dict[str, list[dict[str, list[float]]]]) -> list[tuple[dict[str, Any], dict[str, list[float]]]]:
    """Every curve with the way it is drawn; those of SciPy first, under the others."""
    found = []
    for name in sorted(curves, key=lambda name: (name not in PEERS, "adaptive" in name)):
        if name in PEERS:
            color, line = PEERS[name]
            style = {"label": f"scipy {name}", "color": color, "linestyle": line, "linewidth": 1.2}
        else:
            method, variant = name.split()
            (text, color), (kind, line, width) = METHODS[method], VARIANTS[variant]
            style = {"label": f"{text}, {kind}", "color": color, "linestyle": line, "linewidth": width}
        found += [({**style, "alpha": 1.0 if len(curves[name]) == 1 else 0.5}, curve) for curve in curves[name]]
    return found


def first_seconds(curves: dict[str, list[dict[str, list[float]]]]) -> float:
    return 0.7 * min(curve["seconds"][1] for those in curves.values() for curve in those if len(curve["seconds"]) > 1)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    leverage(json.loads((RESULTS / "leverage.json").read_text())["groups"]["sampled"], IMAGES / "leverage.png")
    if (RESULTS / "figure1.json").exists():
        figure1(json.loads((RESULTS / "figure1.json").read_text()), IMAGES / "figure1.png")


if __name__ == "__main__":
    main()
