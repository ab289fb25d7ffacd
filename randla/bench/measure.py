"""Interleaved timing, the bounds of the machine, and where the numbers come from."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import randla

__all__ = [
    "GEMM_SIZE",
    "Timings",
    "copy_by_threads",
    "gemm",
    "interleave",
    "provenance",
    "read_by_product",
    "read_by_sum",
]

Progress = Callable[[str], None]
GEMM_SIZE = 2048


class Timings(dict[str, list[float]]):
    """Seconds per call for each case, one entry per round; entry i of every case was measured in round i."""

    def median(self, name: str) -> float:
        return statistics.median(self[name])

    def ratio(self, numerator: str, denominator: str) -> float:
        """Median over the rounds of the ratio within a round, which a drift of the machine's speed leaves alone."""
        return statistics.median(a / b for a, b in zip(self[numerator], self[denominator], strict=True))

    def best_of(self, name: str, *parts: str) -> None:
        """Replace several ways to do the same thing by the faster one of each round."""
        self[name] = [min(times) for times in zip(*(self.pop(part) for part in parts), strict=True)]


def interleave(
    cases: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    least: int = 3,
    budget: float = 60.0,
    min_time: float = 0.02,
    pause: float = 0.0,
    warmup: bool = True,
    progress: Progress = lambda text: None,
) -> tuple[Timings, dict[str, Any]]:
    """Time several callables in rounds, each round calling every one of them.

    Parameters
    ----------
    cases : mapping of name to callable
    rounds : int
        At most this many rounds.
    least : int
        So many rounds (or `rounds`, if that is less) run whatever the budget.
    budget : float
        Seconds after which no new round starts.
    min_time : float
        A call shorter than this is repeated within its turn until the turn is about this long.
    pause : float
        Seconds of rest before each turn: threads of a BLAS wait busily for some milliseconds after a call, and would take a
        core from the next case.
    warmup : bool
        Call everything once untimed first, so that threads, caches and page tables are ready.

    Returns
    -------
    times : Timings
    results : dict
        What each case returned in its last call.
    """
    results: dict[str, Any] = {}
    repeats = dict.fromkeys(cases, 1)
    if warmup:
        for name, call in cases.items():
            progress(f"{name}: warming up")
            start = time.perf_counter()
            results[name] = call()
            once = time.perf_counter() - start
            if once < min_time:  # the first call pays for things that later ones do not
                start = time.perf_counter()
                results[name] = call()
                once = time.perf_counter() - start
            repeats[name] = max(1, min(10_000, round(min_time / max(once, 1e-7))))
    times = Timings({name: [] for name in cases})
    names = list(cases)
    begin = time.perf_counter()
    for k in range(rounds):
        if k >= least and time.perf_counter() - begin > budget:
            break
        # Rotated, so that no case always runs in the cache and the heat that one other case leaves behind.
        for name in names[k % len(names) :] + names[: k % len(names)]:
            progress(f"{name}: round {k + 1} of {rounds}")
            call = cases[name]
            results.pop(name, None)
            gc.collect()
            time.sleep(pause)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                result = call()
            times[name].append((time.perf_counter() - start) / repeats[name])
            results[name] = result
    return times, results


def read_by_product(A: np.ndarray) -> Callable[[], Any]:
    """Read A once, as the product with a vector by the BLAS."""
    x, y = np.ones(A.shape[1], A.dtype), np.empty(A.shape[0], A.dtype)
    return lambda: np.matmul(A, x, out=y)


def read_by_sum(A: np.ndarray, threads: int | None = None) -> Callable[[], Any]:
    """Read A once, as a sum on all cores or on so many threads."""
    threads = threads or os.cpu_count() or 1
    parts = np.array_split(A.ravel(order="K"), threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: sum(pool.map(np.sum, parts))


def copy_by_threads(source: np.ndarray, out: np.ndarray, threads: int) -> Callable[[], Any]:
    """Copy one contiguous array to another of the same layout, a part on each thread."""
    parts = [np.array_split(array.ravel(order="K"), threads) for array in (out, source)]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(np.copyto, *parts))


def gemm(dtype: Any = np.float64) -> Callable[[], Any]:
    """A square matrix product of 2 * GEMM_SIZE**3 operations."""
    X = np.random.default_rng(0).standard_normal((GEMM_SIZE, GEMM_SIZE)).astype(dtype)
    Y = np.empty_like(X)
    return lambda: np.matmul(X, X, out=Y)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    try:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return platform.processor() or platform.machine()


def _commit(folder: Path) -> str | None:
    """The commit of a source tree, with a mark if the tree has changes; None if it is not under version control."""
    if not (folder / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _threads(k: int) -> str:
    return "1 thread" if k == 1 else f"{k} threads"


def _blas() -> str:
    try:
        import threadpoolctl

        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    except ImportError:
        pools = []
    if pools:
        return ", ".join(sorted({f"{p['internal_api']} {p['version']} ({_threads(p['num_threads'])})" for p in pools}))
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[call-overload, index, unused-ignore]
    return f"{blas['name']} {blas['version']}"


def provenance(source: Path | None = None) -> dict[str, Any]:
    """Machine, versions, commit and date of a measurement; `source` is the tree that was built (default: where this is)."""
    config: dict[str, Any] = randla.show_config(mode="dicts") or {}
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": _blas(),
        "randla": randla.__version__,
        "commit": _commit(source or Path(__file__).resolve().parents[2]),
        "config": {key: value for key, value in config.items() if isinstance(value, str | int | float | bool)},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
