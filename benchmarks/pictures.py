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


def main() -> None:
    data = json.loads((ROOT / "benchmarks" / "results" / "leverage.json").read_text())
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    leverage(data["groups"]["sampled"], folder / "leverage.png")


if __name__ == "__main__":
    main()
