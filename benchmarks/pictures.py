"""Draws the pictures of the documents from the measurements in benchmarks/results.

python benchmarks/pictures.py
"""

from __future__ import annotations

import contextlib
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from randla import datasets, svd
from randla.bench.measure import Timings
from randla.structured.pattern import Chain

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
    save(figure, path)


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
    save(figure, path)


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


SUPPORT_COLORS = ListedColormap(["#f2f2f2", "#9cc3de", "#1b6ca8"])
CHAINS = {
    "dyadic": Chain.dyadic(16),
    "Monarch": Chain.monarch(16, 16, 4, 4),
    "deformable": Chain.deformable([(3, 4), (4, 2), (2, 2)]),
    "low rank": Chain.low_rank(16, 16, 3),
}


def supports(path: Path) -> None:
    """The places of the factors' numbers, a row for each chain, with the dense block of one of them filled."""
    width = max(len(chain) for chain in CHAINS.values())
    figure, grid = plt.subplots(len(CHAINS), width + 1, figsize=(2.1 * width + 2.1, 2.2 * len(CHAINS)), layout="constrained")
    for (name, chain), row in zip(CHAINS.items(), grid, strict=True):
        for axes, pattern in zip(row[1:], chain, strict=False):
            image = pattern.to_dense().astype(float)
            first = image.copy()
            first[:, :] = 0
            a, b, c, d = pattern
            first[0 : b * d : d, 0 : c * d : d] = 1
            axes.imshow(image + first, cmap=SUPPORT_COLORS, vmin=0, vmax=2)
            axes.set_title(f"({a}, {b}, {c}, {d})", fontsize=10)
            axes.set(xticks=[], yticks=[], xlabel=f"{image.shape[0]} x {image.shape[1]}")
        for axes in row[1 + len(chain) :]:
            axes.axis("off")
        row[0].axis("off")
        m, n = chain.shape
        text = f"{name}\n{m} x {n}\n{chain.n_params} parameters\nfor {m * n} entries"
        row[0].text(0.5, 0.5, text, ha="center", va="center", fontsize=11, transform=row[0].transAxes)
    save(figure, path)


FAMILIES = {"low rank": "#c8553d", "two factors": "#1b6ca8", "three and more factors": "#3a8f5c"}


def weights(record: dict[str, Any], path: Path) -> None:
    """Relative error over parameters, and under it the bound that no product of that family can beat."""
    figure, row = plt.subplots(1, len(record["parts"]), figsize=(4.4 * len(record["parts"]), 4), layout="constrained")
    for axes, part in zip(row, record["parts"], strict=True):
        for name, color in FAMILIES.items():
            if name in part["curves"]:
                curve = part["curves"][name]
                axes.plot(curve["fraction"], curve["error"], "o-", color=color, markersize=4, label=name)
                axes.fill_between(curve["fraction"], curve["bound"], curve["error"], color=color, alpha=0.25, linewidth=0)
        m, n = part["shape"]
        axes.set(xscale="log", yscale="log", xlabel="parameters / entries")
        axes.set_title(f"{part['name']}, {m:,} x {n:,}", fontsize=10)
        axes.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["2 %", "5 %", "10 %", "20 %", "50 %"])
        axes.xaxis.set_minor_locator(NullLocator())
        low = max(1e-6, min(min(curve["bound"]) for curve in part["curves"].values()))
        axes.set_ylim(low / 1.2, 1.1)
        ticks = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1) if low < 0.001 else (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1)
        ticks = tuple(t for t in ticks if t > low / 1.2)
        axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel("relative error (Frobenius)")
    row[0].legend(frameon=False)
    save(figure, path)


WAYS = {
    "dense": ("dense matrix (BLAS)", "#2f2f2f", "--"),
    "lazylinop": ("lazylinop", "#c8553d", "-"),
    "butterfly": ("randla", "#1b6ca8", "-"),
    "read": ("one read of input, output and values", "#9a9a9a", ":"),
}


def sizes(record: dict[str, Any], path: Path) -> None:
    """Time of one product over n."""
    figure, axes = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
    for name, (label, color, line) in WAYS.items():
        points = [
            (part["n"], 1e3 * min(times.median(key) for key in keys))
            for part in record["parts"]
            if (times := Timings(part["times"])) and (keys := [key for key in times if key.split()[0] == name])
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=color, linestyle=line, markersize=4, label=label)
    axes.set(xscale="log", yscale="log", xlabel="n", ylabel="milliseconds")
    axes.set_xscale("log", base=2)
    axes.set_title(f"dyadic butterfly of n x n times n x {record['batch']}, float32, one core", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def scree(record: dict[str, Any], path: Path) -> None:
    """Singular values between their bounds, and one-pass errors: what leave-one-out says beside the truth."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    low, high = record["s"], record["s_upper"]
    ranks = range(1, len(low) + 1)
    left.fill_between(ranks, low, high, color=COLORS["leverage"], alpha=0.3, linewidth=0, label="bounds of randla.svd")
    left.plot(ranks, low, color=COLORS["leverage"], linewidth=1, label="values of randla.svd")
    left.plot(ranks, record["singular_values"][: len(low)], ".", color="0.15", markersize=4, label="LAPACK")
    left.set(yscale="log", xlabel="i", ylabel="singular value", title=f"{record['m']:,} x {record['n']}, k = {len(low)}")
    counts = [int(k) for k in record["truth"]]
    best = [sum(s * s for s in record["singular_values"][k:]) ** 0.5 for k in counts]
    for name, label, color, shift in (
        ("truth", "true error", "0.15", 0.97),
        ("estimate", "leave-one-out estimate", COLORS["uniform"], 1.03),
    ):
        middle = [statistics.median(values) for values in record[name].values()]
        below = [m - min(values) for m, values in zip(middle, record[name].values(), strict=True)]
        over = [max(values) - m for m, values in zip(middle, record[name].values(), strict=True)]
        at = [k * shift for k in counts]
        right.errorbar(at, middle, yerr=[below, over], fmt="o", markersize=4, capsize=3, color=color, label=label)
    right.plot(counts, best, color="0.5", linewidth=1, linestyle="--", label="best of that rank")
    right.set(xscale="log", yscale="log", xlabel="rank k", ylabel="error (Frobenius)")
    right.set_title(f"one pass: median and range of {len(record['truth'][str(counts[0])])} seeds")
    right.set_xticks(counts, [str(k) for k in counts])
    right.xaxis.set_minor_locator(NullLocator())
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


TILES, TILE, RANKS = (20, 30), 28, (5, 20, 80)


def compression(images: np.ndarray, path: Path) -> None:
    """One picture made of 20 x 30 images, whole and at three ranks."""
    rows, columns = TILES
    tiles = images[: rows * columns].reshape(rows, columns, TILE, TILE)
    whole = np.ascontiguousarray(tiles.transpose(0, 2, 1, 3).reshape(rows * TILE, columns * TILE))
    m, n = whole.shape
    figure, grid = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    grid[0][0].imshow(255 - whole, cmap="gray", vmin=0, vmax=255)
    grid[0][0].set_title(f"{m} x {n}, {m * n:,} numbers", fontsize=11)
    for axes, k in zip(grid.flat[1:], RANKS, strict=True):
        found = svd(whole, k, rng=0)
        share = 100 * k * (m + n + 1) / (m * n)
        axes.imshow(255 - (found.U * found.s) @ found.Vh, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"rank {k}, {share:.0f} % of the numbers, relative error {found.relative_error:.2f}", fontsize=11)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    save(figure, path)
    with Image.open(path) as picture:
        gray = picture.convert("L").quantize(16)
    gray.save(path, optimize=True)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    supports(IMAGES / "supports.png")
    structured = json.loads((RESULTS / "structured.json").read_text())["groups"]
    for name, draw in {"weights": weights, "sizes": sizes}.items():
        if "parts" in structured.get(f"butterfly-{name}", {}):
            draw(structured[f"butterfly-{name}"], IMAGES / f"butterfly-{name}.png")
    lowrank = json.loads((RESULTS / "lowrank.json").read_text())["groups"]
    if "singular_values" in lowrank.get("scree", {}):
        scree(lowrank["scree"], IMAGES / "scree.png")
    with contextlib.suppress(FileNotFoundError):  # where there is no real data
        compression(datasets.load("mnist")[0], IMAGES / "image-compression.png")
    leverage(json.loads((RESULTS / "leverage.json").read_text())["groups"]["sampled"], IMAGES / "leverage.png")
    if (RESULTS / "figure1.json").exists():
        figure1(json.loads((RESULTS / "figure1.json").read_text()), IMAGES / "figure1.png")


if __name__ == "__main__":
    main()
