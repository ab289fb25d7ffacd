"""CUDA: what was measured on a device as figures beside goals."""

from __future__ import annotations

from typing import Any

from rows import FIGURE, Row, markdown


def figure_rows(data: dict[str, Any]) -> list[Row]:
    return [Row(**figure) for step in data.get("steps", {}).values() for figure in step.get("figures", [])]


def checks(data: dict[str, Any]) -> list[str]:
    """What tests and sanitizer said, a sentence each."""
    steps, told = data.get("steps", {}), []
    if "tests" in steps:
        found = steps["tests"]
        failed = found.get("failures", 0) + found.get("errors", 0)
        told.append(
            f"Tests on the device: {found.get('passed', 0)} passed, {failed} failed, {found.get('skipped', 0)} skipped."
        )
    told += [
        f"{name}: {steps[name].get('summary', steps[name]['status'])}." for name in ("memcheck", "racecheck") if name in steps
    ]
    told += [f"{name}: {step['error']}." for name, step in steps.items() if "error" in step]
    return told


def machine(data: dict[str, Any]) -> str:
    """The device and the libraries of the last measurement."""
    known = [step for step in data.get("steps", {}).values() if "provenance" in step]
    if not known:
        return ""
    last = known[-1]
    about, rate = last["provenance"], last["bandwidth"] / 1e12
    versions = f"driver {about['driver']}, CUDA {about['cuda runtime']}, CuPy {about['cupy']}, torch {about['torch'] or '-'}"
    return f"{about['device']}, copy {rate:.2f} TB/s, {versions}, commit {last['commit']}, {last['date']}"


def goals_table(data: dict[str, Any]) -> str:
    """Nothing where nothing was measured."""
    rows = figure_rows(data)
    parts = [markdown(["CUDA", *FIGURE], [row.cells() for row in rows])] if rows else []
    if rows:
        parts.append(f"{sum(row.met for row in rows)} of {len(rows)} goals met. Measured on: {machine(data)}.")
    return "\n\n".join([*parts, *checks(data)])
