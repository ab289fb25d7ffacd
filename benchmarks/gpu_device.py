"""Times of work on a CUDA device: by events, in interleaved rounds, of inputs beyond the cache, into outputs of NaN."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from rows import Row

from randla._backend import to_host
from randla.bench.report import error, seconds

Calls = Mapping[str, Callable[[int], Any]]  # what to do with the copy of the inputs of that number
DTYPES = (np.float64, np.float32)
ROUNDS = 20
LEAST = 5  # rounds of calls that are slow
SLOW = 0.05  # seconds
TURN = 0.004  # seconds of work between two events, so that the queue never runs empty
WORKING_SET = 1 << 30  # bytes: many times the L2 of any device


class Bench:
    """What a group measures: records of times, and figures beside their goals."""

    def __init__(self, xp: Any, *, quick: bool = False, budget: float = 60.0):
        self.xp, self.quick, self.rounds = xp, quick, 2 if quick else ROUNDS
        self.end = time.monotonic() + budget
        self.rng = xp.random.default_rng(0)
        self.records: list[dict[str, Any]] = []
        self.figures: list[Row] = []
        self.bandwidth = math.nan
        self.bandwidth = self.copy_bandwidth()

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def normal(self, shape: tuple[int, ...], dtype: Any, order: str = "C") -> Any:
        if order == "F":
            return self.normal(shape[::-1], dtype).T
        return self.rng.standard_normal(shape, dtype=dtype)

    def copies(self, make: Callable[[], Any]) -> Callable[[int], Any]:
        """Inputs that together are far larger than the cache, by number."""
        first = make()
        wanted = WORKING_SET // max(1, first.nbytes) if not self.quick else 2
        kept = [first, *(make() for _ in range(min(max(2, wanted), 64) - 1))]
        return lambda i: kept[i % len(kept)]

    def free(self) -> None:
        self.xp.get_default_memory_pool().free_all_blocks()

    def copy_bandwidth(self) -> float:
        """Bytes read and written in a second by a copy of one array to another."""
        count = self.size(WORKING_SET // 8, 1000)
        source, target = self.normal((count,), np.float64), self.xp.empty(count)
        times = self.times({"copy": lambda i: self.xp.copyto(target, source)})
        return 2 * target.nbytes / statistics.median(times["copy"])

    def times(self, calls: Calls) -> dict[str, list[float]]:
        """Seconds of each call, an entry for every round that it took part in; slow ones take part in the first few."""
        repeats = {}
        for name, call in calls.items():
            call(0)  # compiles, allocates, sorts what is kept
            once = self._turn(call, 1, 1)
            repeats[name] = max(1, min(64, round(TURN / max(once, 1e-6)))) if not self.quick else 1
        times: dict[str, list[float]] = {name: [] for name in calls}
        names = list(calls)
        for k in range(self.rounds):
            if k >= LEAST and time.monotonic() > self.end:
                break
            for name in names[k % len(names) :] + names[: k % len(names)]:
                if k < LEAST or statistics.median(times[name]) < SLOW:
                    times[name].append(self._turn(calls[name], k * repeats[name], repeats[name]))
        return times

    def _turn(self, call: Callable[[int], Any], first: int, count: int) -> float:
        start, stop = self.xp.cuda.Event(), self.xp.cuda.Event()
        start.record()
        for i in range(first, first + count):
            found = call(i)
        stop.record()
        stop.synchronize()
        if isinstance(found, self.xp.ndarray) and found.dtype.kind in "fc":
            found.fill(math.nan)  # memory that a later call would leave unwritten shows
        return float(self.xp.cuda.get_elapsed_time(start, stop)) / 1000 / count

    def record(self, problem: str, times: dict[str, list[float]], **more: Any) -> dict[str, float]:
        """Medians, which are kept."""
        medians = {name: statistics.median(found) for name, found in times.items() if found}
        for name, median in medians.items():
            self.records.append({"problem": problem, "case": name, "seconds": median, "rounds": len(times[name]), **more})
        return medians

    def difference(self, problem: str, found: Any, expected: Any, bound: float) -> None:
        """Raises where a result is not the rival's: times of wrong results say nothing."""
        largest = float(to_host(abs(found - expected).max())) / float(to_host(abs(expected).max()))
        self.records.append({"problem": problem, "case": "largest difference from the rival", "difference": largest})
        if not largest <= bound:
            raise ArithmeticError(f"{problem}: results differ by {largest:.1e}, more than {bound:.1e}")

    def of_bandwidth(self, problem: str, seconds_taken: float, nbytes: int, goal: float) -> None:
        """The share of the copy bandwidth that the least possible traffic in this time is."""
        rate = nbytes / seconds_taken
        against = f"copy {self.bandwidth / 1e12:.2f} TB/s"
        self.figures.append(Row(problem, f"{rate / 1e12:.2f} TB/s", against, rate / self.bandwidth, goal))

    def faster(self, problem: str, ours: float, rival: str, theirs: float, goal: float) -> None:
        """At least so many times as fast as the rival."""
        self.figures.append(Row(problem, seconds(ours), f"{rival} {seconds(theirs)}", theirs / ours, goal))

    def within(self, problem: str, ours: float, rival: str, theirs: float, goal: float) -> None:
        """At most so many times the time of the rival."""
        self.figures.append(Row(problem, seconds(ours), f"{rival} {seconds(theirs)}", ours / theirs, goal, at_least=False))

    def accuracy(self, problem: str, ours: float, rival: str, theirs: float, goal: float, *, at_least: bool = False) -> None:
        against = f"{rival} {error(theirs)}"
        self.figures.append(Row(problem, error(ours), against, ours / max(theirs, 1e-300), goal, at_least=at_least))

    def result(self) -> dict[str, Any]:
        return {"bandwidth": self.bandwidth, "records": self.records, "figures": [asdict(row) for row in self.figures]}


def name_of(what: str, m: int, n: int, dtype: Any, more: str = "") -> str:
    return f"{what}, {m:,} x {n:,} {np.dtype(dtype).name}{more}"


def over(bench: Bench, one: Callable[..., None], shapes: list[tuple[int, int]]) -> None:
    """One measurement for each shape and dtype; a small one of each code path where only the machinery is tried."""
    for shape in shapes[:2] if bench.quick else shapes:
        for dtype in DTYPES:
            one(bench, *shape, dtype)
            bench.free()


def provenance(xp: Any) -> dict[str, Any]:
    """The device, its driver and the libraries."""
    about = xp.cuda.runtime.getDeviceProperties(0)
    name = about["name"]
    return {
        "device": name.decode() if isinstance(name, bytes) else name,
        "compute capability": f"{about['major']}.{about['minor']}",
        "multiprocessors": about["multiProcessorCount"],
        "l2": about["l2CacheSize"],
        "memory": about["totalGlobalMem"],
        "driver": xp.cuda.runtime.driverGetVersion(),
        "cuda runtime": xp.cuda.runtime.runtimeGetVersion(),
        "cupy": xp.__version__,
        "torch": torch_version(),
        "python": sys.version.split()[0],
    }


def torch_version() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)
