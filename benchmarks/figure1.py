"""Loss over props and over seconds for trust regions, cubic regularization and SciPy on two non-convex problems.

python benchmarks/figure1.py [--data FOLDER] [--seeds 1] [--quick]

The squared sigmoid loss on ijcnn1 and on covertype: the methods of Yao, Xu, Roosta and Mahoney as `preset` runs them, with
randla's defaults and four methods of SciPy beside them. SciPy calls the same value, gradient and Hessian products, which share
forward passes. Losses of all terms are evaluated after the runs, off the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures_optimize import covertype_split, ijcnn1_problem
from pictures import IMAGES, RESULTS, figure1
from threadpoolctl import threadpool_limits

from randla._files import write_text
from randla.bench.measure import provenance
from randla.bench.optimize import ADAPTIVE, SCIPY, Trace, by_randla, by_scipy, start
from randla.cli import Progress, plain
from randla.optimize import GLM
from randla.optimize.presets import preset

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = ("full", "subsampled-hessian", "inexact")


def methods(problem: GLM, x0: np.ndarray, seed: int, budget: float) -> dict[str, Callable[[], Trace]]:
    """Every run by name: "method" or "method variant"."""
    calls: dict[str, Callable[[], Trace]] = {}
    limits: dict[str, Any] = {"gtol": 1e-7, "max_time": budget, "rng": seed, "maxiter": 100_000}
    for name in ("trust-region", "cubic"):
        for variant in VARIANTS:
            options = preset("yao2018", name, variant=variant)
            calls[f"{name} {variant}"] = lambda options=options: by_randla(problem, x0, **options, **limits)
        calls[f"{name} adaptive"] = lambda name=name: by_randla(problem, x0, method=name, **ADAPTIVE, **limits)
    return calls | {name: lambda name=name: by_scipy(problem, x0, name, budget=budget) for name in SCIPY}


def measure(problem: GLM, seeds: range, budget: float, progress: Callable[[str], None]) -> dict[str, Any]:
    traces: dict[str, list[Trace]] = {}
    by_randla(problem, start(problem.dim, 99), max_time=1.0, rng=0)  # threads and caches
    for seed in seeds:
        for name, call in methods(problem, start(problem.dim, seed), seed, budget).items():
            progress(f"{name}, start {seed}")
            # Threads of the BLAS, of no use for vectors this short, would wait busily beside the passes over X.
            with threadpool_limits(1, user_api="blas"):
                trace = call()
            traces.setdefault(name, []).append(trace.evaluate(problem))
    best = min(min(trace.fun) for those in traces.values() for trace in those)
    curves = {name: [curve(trace) for trace in those] for name, those in traces.items()}
    return {"n": problem.n, "d": problem.dim, "best": best, "budget": budget, "curves": curves}


def curve(trace: Trace) -> dict[str, list[float]]:
    """The points at which the loss is lower than before, and the last one."""
    kept, lowest = [], np.inf
    for i, value in enumerate(trace.fun):
        if value < lowest or i == len(trace.fun) - 1:
            kept.append(i)
        lowest = min(lowest, value)
    lows = np.minimum.accumulate(trace.fun)
    return {
        "props": [trace.props[i] / trace.n for i in kept],
        "seconds": [float(f"{trace.time[i]:.4g}") for i in kept],
        "fun": [float(lows[i]) for i in kept],
    }


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of ijcnn1.npz and covtype.npz (default: the variable RANDLA_DATA)")
    parser.add_argument("--seeds", type=int, default=1, help="starts (default %(default)s)")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each run on covertype; ijcnn1 takes a tenth")
    parser.add_argument("--quick", action="store_true", help="few rows, to try the machinery; needs --output")
    parser.add_argument("-o", "--output", help="folder of figure1.json and figure1.png (default: those of the repository)")
    args = parser.parse_args(words)
    if args.quick and not args.output:
        parser.error("--quick figures mean nothing and must not replace others: give another folder with --output")
    if args.data:
        os.environ["RANDLA_DATA"] = args.data
    budget = 0.5 if args.quick else args.budget
    results, images = (Path(args.output), Path(args.output)) if args.output else (RESULTS, IMAGES)
    images.mkdir(parents=True, exist_ok=True)
    problems = {
        "ijcnn1": (lambda: ijcnn1_problem(args.quick), budget / 10),
        "covertype": (lambda: GLM(*covertype_split(args.quick), "squared_sigmoid"), budget),
    }
    record: dict[str, Any] = {"problems": {}, "provenance": provenance(ROOT)}
    with Progress() as progress:
        for name, (make, seconds) in problems.items():
            progress(f"{name}: reading")
            say = lambda text, name=name: progress(f"{name}: {text}")  # noqa: E731
            record["problems"][name] = measure(make(), range(args.seeds), seconds, say)
    write_text(results / "figure1.json", json.dumps(record, default=plain) + "\n")
    figure1(record, images / "figure1.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
