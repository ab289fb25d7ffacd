"""Measurements that need a process of their own, because peaks and limits of memory belong to processes; they print JSON.

python benchmarks/own_memory.py mapped FOLDER M N LIMIT: solve FOLDER/A.bin x = FOLDER/b.npy in LIMIT bytes of own memory
python benchmarks/own_memory.py dense FAMILY M N D: sketch an (M, N) matrix and see what that takes
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import randla
from randla.bench import sketch
from randla.bench.measure import read_by_sum


def anonymous_memory() -> int:
    """Bytes of this process that no file backs, of whatever allocator."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


class Peak:
    """The largest anonymous memory while the block runs, sampled."""

    def __enter__(self) -> Peak:
        self.before = self.most = anonymous_memory()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, anonymous_memory())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self.most = max(self.most, anonymous_memory())


def mapped(folder: str, m: str, n: str, limit: str) -> dict[str, Any]:
    A = np.memmap(Path(folder) / "A.bin", np.float64, "r", shape=(int(m), int(n)))
    b = np.load(Path(folder) / "b.npy")
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    seconds = []
    with Peak() as peak:
        for _ in range(2):
            start = time.perf_counter()
            result = randla.lstsq(A, b, rng=1, allow_copy=False)
            seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    read_by_sum(A)()
    return {
        "seconds": seconds,
        "read_seconds": time.perf_counter() - start,
        "method": result.method,
        "status": result.status.name,
        "passes": result.passes,
        "iterations": result.iterations,
        "certificate": float(result.backward_error),
        "anonymous_before": peak.before,
        "anonymous_peak": peak.most,
        "limit": int(limit),
    }


def dense(family: str, m: str, n: str, d: str) -> dict[str, Any]:
    A = randla.Gaussian().sample(int(m), int(n), rng=1).to_dense()
    S = sketch.families([family])[family].sample(int(d), int(m), rng=1)
    with Peak() as peak:
        SA = S @ A
    return {"before": peak.before, "peak": peak.most, "result": SA.nbytes}


if __name__ == "__main__":
    print(json.dumps({"mapped": mapped, "dense": dense}[sys.argv[1]](*sys.argv[2:])))
