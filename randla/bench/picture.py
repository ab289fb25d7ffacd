"""Pictures of benchmark records. matplotlib is imported here only, and only when a picture is asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from randla.bench.report import seconds

__all__ = ["available", "descents", "scores", "sketches", "time_accuracy", "to_svg"]

OURS, PEERS = "#0b62a4", "#c2571a"
OURS_SHADES, PEER_SHADES = ("#0b62a4", "#2a9d8f", "#7a5195"), ("#c2571a", "#e09f3e", "#9a031e", "#7f7f7f")
FLOOR = 1e-19  # an exact zero has no place on a log axis


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def _figure(panels: int) -> tuple[Any, list[Any]]:
    # A bare Figure, not pyplot: no window system, and no state of the caller's is touched.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6 * panels, 4.8), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _points(record: dict[str, Any]) -> list[tuple[float, float, str, bool]]:
    """Time, error, name and side of every solver that ran."""
    solvers = (s for s in record["solvers"] if "seconds" in s)
    return [(s["seconds"], max(s["backward_error"], FLOOR), s["name"], s["ours"]) for s in solvers]


def time_accuracy(records: Sequence[dict[str, Any]]) -> Any:
    """Backward error over time, one panel per problem: left is faster, down is more accurate."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axes = _figure(len(records))
    for ax, record in zip(axes, records, strict=True):
        solvers = [s for s in record["solvers"] if "seconds" in s]
        points = _points(record)
        if not points:
            ax.set_title(f"{record['problem']}: no solver ran", loc="left", fontsize=11)
            continue
        low, high = min(p[0] for p in points), max(p[0] for p in points)
        label: str | None = "randla's own estimate on the way"
        for solver in solvers:
            path = [(t, max(e, FLOOR)) for t, e in solver.get("history", []) if 0 < t <= solver["seconds"]]
            if path:
                path.append((solver["seconds"], max(solver["backward_error"], FLOOR)))
                ax.plot(*zip(*path, strict=True), color=OURS, lw=0.9, alpha=0.35, zorder=2, label=label)
                low, label = max(min(low, path[0][0]), min(p[0] for p in points) / 4), None
        for ours, color, marker, label in ((True, OURS, "o", "randla"), (False, PEERS, "s", "NumPy and SciPy")):
            chosen = [p for p in points if p[3] == ours]
            if chosen:
                ax.scatter([p[0] for p in chosen], [p[1] for p in chosen], s=48, c=color, marker=marker, label=label, zorder=3)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda t, _: seconds(t)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlim(low / 1.6, high * 1.6 * (high / low) ** 0.25)  # room for the labels at the right
        bottom, top = min(p[1] for p in points), max(p[1] for p in points)
        ax.set_ylim(bottom / 8, max(top * 8, bottom * 1e3))
        level = record.get("householder_backward_error")
        if level:
            ax.axhline(level, color="#888", lw=1, ls="--", zorder=1, label="Householder QR")
        limit = record.get("bounds", {}).get("qr_limit_seconds")
        if limit and low / 1.6 < limit < high:
            ax.axvline(limit, color="#888", lw=1, ls=":", zorder=1, label="2 m n² operations at the GEMM rate")
        ax.grid(True, which="major", color="#e4e4e4", lw=0.7)
        ax.set_xlabel("time")
        ax.set_ylabel("backward error relative to the norm of A")
        ax.set_title(f"{record['problem']}: {record['m']:,} x {record['n']:,}", loc="left", fontsize=11)
    # Outside, where no point can be; before the names, which are placed by what they would cover.
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=2 if len(axes) == 1 else 5, fontsize=8.5)
    for ax, record in zip(axes, records, strict=True):
        _label(figure, ax, _points(record))
    return figure


def _label(figure: Any, ax: Any, points: Sequence[tuple[float, float, str, bool]]) -> None:
    """Write a name beside each point, moved up or down until it covers neither another name nor a point."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    taken: list[tuple[float, float, float, float]] = []
    for x, y, _, _ in points:
        px, py = ax.transData.transform((x, y))
        taken.append((px - 6, py - 6, px + 6, py + 6))
    for x, y, name, ours in sorted(points, key=lambda p: -p[1]):
        color, text = OURS if ours else PEERS, name.replace("randla.lstsq", "randla")
        note = ax.annotate(
            text, (x, y), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8.5, color=color, zorder=4
        )
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5})
        box = note.get_window_extent(renderer)
        px, py = ax.transData.transform((x, y))
        height = box.height + 1
        shift = 0.0
        for step in range(40):
            shift = height * ((step + 1) // 2) * (-1 if step % 2 else 1)
            spot = (box.x0, box.y0 + shift, box.x1, box.y1 + shift)
            inside = ax.bbox.y0 < spot[1] and spot[3] < ax.bbox.y1
            if inside and not any(spot[0] < t[2] and t[0] < spot[2] and spot[1] < t[3] and t[1] < spot[3] for t in taken):
                break
        taken.append((box.x0, box.y0 + shift, box.x1, box.y1 + shift))
        note.set_position((9, shift * 72 / figure.dpi))
        if shift:
            end = ax.transData.inverted().transform((box.x0 - 1, py + shift))
            ax.plot([x, end[0]], [y, end[1]], color=color, lw=0.6, zorder=2)


def sketches(records: Sequence[dict[str, Any]]) -> Any:
    """Time of each sketch in reads of A, one panel per matrix."""
    return _in_reads(records, "sketches")


def scores(records: Sequence[dict[str, Any]]) -> Any:
    """Time of each route to the leverage scores in reads of A, one panel per matrix."""
    return _in_reads(records, "routes")


def _in_reads(records: Sequence[dict[str, Any]], what: str) -> Any:
    figure, axes = _figure(len(records))
    for ax, record in zip(axes, records, strict=True):
        items = sorted(record[what], key=lambda s: -s["reads"])
        bars = ax.barh(
            [s["name"] for s in items], [s["reads"] for s in items], color=[OURS if s["ours"] else PEERS for s in items]
        )
        ax.bar_label(bars, [f"{s['reads']:.1f}" for s in items], padding=3, fontsize=8.5)
        ax.axvline(1, color="#888", lw=1, ls="--")
        ax.set_xlim(0, 1.12 * items[0]["reads"])
        ax.set_xlabel("time in reads of A (dashed: one read)")
        ax.set_title(f"{record['problem']}, {record['order']} order", loc="left", fontsize=11)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def descents(records: Sequence[dict[str, Any]]) -> Any:
    """How far each method is above the lowest loss, over props and over seconds; one problem."""
    (record,) = records
    figure, axes = _figure(2)
    floor = 1e-10 * abs(record["best"])
    for ax, place, label in zip(axes, (0, 1), ("props per term", "seconds"), strict=True):
        for ours, shades in ((True, OURS_SHADES), (False, PEER_SHADES)):
            for method, color in zip((m for m in record["methods"] if m["ours"] == ours), shades, strict=True):
                points = [(p[place], max(p[2], floor)) for p in method["path"] if p[place] > 0]
                ax.plot(*zip(*points, strict=True), color=color, lw=2.0 if ours else 1.1, label=method["name"])
        ax.axhline(record["level"] - record["best"], color="#888", lw=1, ls="--")
        ax.set(xscale="log", yscale="log", xlabel=label, ylim=(floor, None))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("F - lowest F found")
    axes[0].set_title(f"{record['problem']}: {record['m']:,} terms, {record['n']} variables", loc="left", fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8.5)
    return figure


def to_svg(figure: Any) -> str:
    """The <svg> element alone, to stand inside HTML."""
    out = io.StringIO()
    figure.savefig(out, format="svg")
    text = out.getvalue()
    return text[text.index("<svg") :]
