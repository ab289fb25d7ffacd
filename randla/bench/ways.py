"""Ways to do one thing, randla's and those of installed peers: what their records, tables and pictures have in common."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from . import measure, picture, report

__all__ = ["Progress", "bounds", "cells", "notes", "panels", "peer", "timed", "way"]

Progress = Callable[[str], None]


def peer(name: str) -> ModuleType | None:
    """A module of another library, None where it is missing; what it says while it is imported is not shown."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError, AttributeError):
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
    return None


def timed(
    calls: Mapping[str, Callable[[], Any]], moved: np.ndarray, rounds: int, budget: float, progress: Progress
) -> tuple[measure.Timings, dict[str, Any]]:
    """Times of all, and of "read": the faster of two ways to read an array of as many bytes as must be moved."""
    reads = {"read by sum": measure.read_by_sum(moved), "read by product": measure.read_by_product(moved)}
    times, results = measure.interleave({**calls, **reads}, rounds=rounds, budget=budget, pause=0.03, progress=progress)
    times.best_of("read", *reads)
    return times, {name: results[name] for name in calls}


def way(times: measure.Timings, name: str) -> dict[str, Any]:
    """The part of a record that every way has."""
    return {
        "name": name,
        "ours": name.startswith("randla"),
        "seconds": times.median(name),
        "speedup": times.ratio(name, "randla"),
        "reads": times.ratio(name, "read"),
    }


def bounds(times: measure.Timings, moved: np.ndarray) -> dict[str, Any]:
    """What a record says of the memory and of the measurement."""
    read = times.median("read")
    return {
        "bounds": {"read_seconds": read, "read_gbytes_per_second": moved.nbytes / read / 1e9},
        "rounds": len(times["randla"]),
    }


def cells(part: dict[str, Any], digits: int) -> list[str]:
    """Name, time, its ratio to randla's, and reads with so many digits."""
    return [
        part["name"],
        report.seconds(part["seconds"]),
        report.ratio(part["speedup"]),
        report.count(round(part["reads"], digits)),
    ]


def notes(record: dict[str, Any], what: str) -> list[str]:
    """How fast `what` was read, and what the times are."""
    b = record["bounds"]
    return [
        f"Reading {what} once takes {report.seconds(b['read_seconds'])} ({b['read_gbytes_per_second']:.3g} GB/s).",
        "One run of each." if record["rounds"] == 1 else f"Medians of {record['rounds']} interleaved rounds.",
    ]


def panels(records: Sequence[dict[str, Any]], draw: Callable[[Any, dict[str, Any]], None]) -> Any:
    """A figure with one panel for each record, under the name of its problem."""
    figure, axes = picture._figure(len(records))
    for ax, record in zip(axes, records, strict=True):
        draw(ax, record)
        ax.set_title(record["problem"], loc="left", fontsize=10.5)
        ax.spines[["top", "right"]].set_visible(False)
    return figure
