"""Runs the measurements of figures*.py and writes the tables of README.md and docs/benchmarks.md from them.

python benchmarks/report.py run [--only families memmap defaults]
python benchmarks/report.py readme
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import figures
import figures_learn
import figures_leverage
import figures_lowrank
import figures_optimize
import figures_sampling
import figures_sketch
import figures_solve
import figures_structured
import rows
import rows_gpu
import rows_leverage
import rows_lowrank
import rows_optimize
import rows_sketch
import rows_structured

from randla import LstsqWarning
from randla._files import write_text
from randla.bench.measure import provenance
from randla.cli import Progress, plain

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Which file keeps which groups.
FILES = {
    "lstsq": figures.GROUPS,
    "sketch": {**figures_sketch.GROUPS, **figures_solve.GROUPS},
    "leverage": {**figures_leverage.GROUPS, **figures_sampling.GROUPS},
    "optimize": figures_optimize.GROUPS,
    "structured": figures_structured.GROUPS,
    "lowrank": {**figures_lowrank.GROUPS, **figures_learn.GROUPS},
}
GOALS = {
    "lstsq": rows.goals_table,
    "sketch": rows_sketch.goals_table,
    "leverage": rows_leverage.goals_table,
    "optimize": rows_optimize.goals_table,
    "structured": rows_structured.goals_table,
    "lowrank": rows_lowrank.goals_table,
}


def kept(folder: Path, file: str) -> dict[str, Any]:
    """What was measured so far; nothing where there is no such file."""
    path = folder / f"{file}.json"
    return json.loads(path.read_text()) if path.exists() else {"groups": {}}


def between(text: str, mark: str, content: str) -> str:
    """The text with what stands between <!-- mark:start --> and <!-- mark:end --> replaced."""
    start, end = f"<!-- {mark}:start -->", f"<!-- {mark}:end -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"expected one {start} and one {end}")
    head, rest = text.split(start)
    return f"{head}{start}\n{content}\n{end}{rest.split(end)[1]}"


def rendered(folder: Path) -> dict[Path, str]:
    """The files that hold generated tables, as they should be."""
    lstsq, sketch, leverage, optimize, structured, lowrank = (kept(folder, file) for file in FILES)
    readme, page, cuda = ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "cuda.md"
    texts = {path: path.read_text() for path in (readme, page, cuda)}
    for path, mark, content in (
        (readme, "bench", rows.goals_table(lstsq)),
        (readme, "sketch", rows_sketch.headline_table(sketch)),
        (readme, "leverage", rows_leverage.headline_table(leverage)),
        (readme, "optimize", rows_optimize.headline_table(optimize)),
        (page, "leverage-goals", rows_leverage.goals_table(leverage)),
        (readme, "structured", rows_structured.headline_table(structured)),
        (page, "optimize-goals", rows_optimize.goals_table(optimize)),
        (page, "structured-goals", rows_structured.goals_table(structured)),
        (readme, "lowrank", rows_lowrank.headline_table(lowrank)),
        (page, "lowrank-goals", rows_lowrank.goals_table(lowrank)),
        (cuda, "gpu", rows_gpu.goals_table(kept(folder, "gpu"))),
        (page, "shapes", rows.shapes_table(lstsq)),
        (page, "accuracy", rows.accuracy_table(lstsq)),
        *((page, mark, table(sketch)) for mark, table in rows_sketch.TABLES.items()),
    ):
        texts[path] = between(texts[path], mark, content)
    return texts


def groups(words: list[str] | None) -> dict[str, list[str]]:
    """File to groups: all of them, or those that are a word or begin with a word and a space."""
    known = {file: list(members) for file, members in FILES.items()}
    if words is None:
        return known
    chosen = {
        file: [name for name in names if any(f"{name} ".startswith(f"{word} ") for word in words)]
        for file, names in known.items()
    }
    everything = [name for names in known.values() for name in names]
    for word in words:
        if not any(f"{name} ".startswith(f"{word} ") for name in everything):
            raise ValueError(f"--only must name groups of {', '.join(everything)}; got {word!r}")
    return chosen


def run(args: argparse.Namespace) -> None:
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    with Progress() as progress, warnings.catch_warnings():
        # Ranks below n are part of what is recorded.
        warnings.simplefilter("ignore", LstsqWarning)
        for file, names in groups(args.only).items():
            for name in names:
                group = FILES[file][name](args.quick, lambda text, name=name: progress(f"{name}: {text}"))
                data = kept(folder, file)
                data["groups"][name] = {**group, "provenance": provenance(ROOT)}
                # After each group: an hour of measuring should survive an interruption.
                write_text(folder / f"{file}.json", json.dumps(data, indent=1, default=plain) + "\n")
    for file, names in groups(args.only).items():
        if names:
            print(GOALS[file](kept(folder, file)))


def readme(args: argparse.Namespace) -> None:
    for path, text in rendered(Path(args.folder)).items():
        write_text(path, text)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("run", help="measure")
    p.add_argument("-o", "--output", default=RESULTS, help="folder of the results (default %(default)s)")
    p.add_argument("--only", nargs="+", help="measure these again and keep the others; 'defaults' means all that begin so")
    p.add_argument("--quick", action="store_true", help="tiny problems, to try the machinery; needs another --output")
    p.set_defaults(run=run)
    p = commands.add_parser("readme", help="write the tables from the measurements")
    p.add_argument("folder", nargs="?", default=RESULTS)
    p.set_defaults(run=readme)
    args = parser.parse_args(words)
    if args.run is run and args.quick and Path(args.output).resolve() == RESULTS:
        parser.error("--quick figures mean nothing and must not replace others: give another folder with --output")
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
