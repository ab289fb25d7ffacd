"""Measurements of the sketch engine: each function makes one of them and returns what report.py keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from figures import Progress, reads, scaled
from scipy.linalg import blas

import randla
from randla import _cpu
from randla.bench import measure, sketch
from randla.structured import fwht

DENSE = (200_000, 500)
SPARSE = (1_000_000, 1_000)
# What the goals are about, and what only the table shows: some of these are so slow that they get rounds of their own.
COMPARED = ("CountSketch()", "BlockSRHT()", "SparseStack(8)")
SHOWN = ("SparseSign(8)", "LessUniform(64)", "RowSample()", "SRTT()", 'SRTT("dct")')
# Entries of a dense S made at a time, as in the library: 8 MB.
BLOCK = 1 << 20
LOGS = (10, 12, 14)
BATCH = 512
LEVEL_2 = 512 << 10  # bytes, half of a second-level cache
SEEDS = iter(range(10**9))

Calls = dict[str, Callable[[], Any]]


def timed(calls: Calls, quick: bool, progress: Progress, *, rounds: int, budget: float, pause: float = 0.03) -> measure.Timings:
    """Interleaved times. The threads of numpy's BLAS wait busily for 20 ms after a call, hence the pause."""
    if quick:
        return measure.interleave(calls, rounds=1, least=1, min_time=0, progress=progress)[0]
    return measure.interleave(calls, rounds=rounds, budget=budget, pause=pause, progress=progress)[0]


def drawn(name: str, d: int, A: Any) -> Callable[[], Any]:
    """S @ A with a new S in every call, its making included."""
    family = sketch.families([name])[name]
    return lambda: family.sample(d, A.shape[0], rng=next(SEEDS)) @ A


def gaussian_matrix(m: int, n: int) -> np.ndarray:
    return randla.Gaussian().sample(m, n, rng=1).to_dense()


def alone(*words: Any) -> dict[str, Any]:
    """What own_memory.py prints."""
    command = [sys.executable, str(Path(__file__).with_name("own_memory.py")), *map(str, words)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def families(quick: bool, progress: Progress) -> dict[str, Any]:
    """Every family on a matrix in both orders, beside reads of it and a stored sketch in SciPy."""
    m, n = scaled(DENSE, quick)
    d = 8 * n
    A = {"C": gaussian_matrix(m, n)}
    A["F"] = np.asfortranarray(A["C"])
    record: dict[str, Any] = {"m": m, "n": n, "d": d, "bytes": A["C"].nbytes}
    for part, names, rounds, budget in (("times", COMPARED, 11, 90), ("shown", SHOWN, 3, 60)):
        calls: Calls = {}
        for order, X in A.items():
            reads(calls, f"read {order}", X)
            calls |= {f"{name} {order}": drawn(name, d, X) for name in names}
            if part == "times":
                calls[f"scipy {order}"] = sketch.scipy_csc(X, d)
        times = timed(calls, quick, progress, rounds=rounds, budget=budget)
        for order in A:
            times.best_of(f"read {order}", f"read {order} by product", f"read {order} by sum")
        record[part] = times
    return record


def sparse_matrix(m: int, n: int, density: float) -> sp.csr_array:
    return sp.csr_array(sp.random_array((m, n), density=density, format="csr", rng=np.random.default_rng(1)))


def csr(quick: bool, progress: Progress) -> dict[str, Any]:
    """A sparse sketch of a sparse matrix, beside the product of two SciPy matrices."""
    m, n = scaled(SPARSE, quick)
    d = 4 * n
    progress("making the matrix")
    A = sparse_matrix(m, n, 0.01)
    S = sketch.stack_as_csc(d, m)
    calls: Calls = {"randla": drawn("SparseStack(8)", d, A), "scipy csc": lambda: S @ A}
    times = timed(calls, quick, progress, rounds=7, budget=60)
    return {"m": m, "n": n, "d": d, "nnz": int(A.nnz), "times": times}


def product_alone(A: np.ndarray, d: int) -> Callable[[], np.ndarray]:
    """The products that a dense sketch of A makes, with one block of S for all of them."""
    m, n = A.shape
    width = max(16, BLOCK // d)
    block = randla.Gaussian().sample(d, width, rng=0).to_dense()
    last = np.ascontiguousarray(block[:, : m % width or width])
    out = np.empty((d, n))

    def call() -> np.ndarray:
        out[:] = 0
        for j in range(0, m, width):
            rows = A[j : j + width]
            tile = block if len(rows) == width else last
            blas.dgemm(1.0, rows.T, tile.T, beta=1.0, c=out.T, overwrite_c=1)
        return out

    return call


def dense(quick: bool, progress: Progress) -> dict[str, Any]:
    """Dense sketches beside their matrix products alone, and the memory they take."""
    m, n = scaled(DENSE, quick)
    d = 2 * n
    A = gaussian_matrix(m, n)
    calls = {name: drawn(name, d, A) for name in ("Gaussian()", "Rademacher()")}
    times = timed({**calls, "gemm": product_alone(A, d)}, quick, progress, rounds=7, budget=100)
    memory = {}
    for name in calls:
        progress(f"{name}: memory")
        memory[name] = alone("dense", name, m, n, d)
    return {"m": m, "n": n, "d": d, "times": times, "memory": memory}


def fill(quick: bool, progress: Progress) -> dict[str, Any]:
    """Gaussians into an array that is there already, beside numpy's; and S[:, :], which makes the array."""
    d, m = scaled((1_000, 20_000), quick)
    out = np.empty((d, m))
    rng = np.random.default_rng(1)
    calls: Calls = {
        "Gaussian() into an array": lambda: _cpu.dense_sketch(0, d, next(SEEDS), out, 0, 0),
        "Rademacher() into an array": lambda: _cpu.dense_sketch(1, d, next(SEEDS), out, 0, 0),
        "Gaussian() S[:, :]": lambda: randla.Gaussian().sample(d, m, rng=next(SEEDS))[:, :],
        "numpy standard_normal": lambda: rng.standard_normal(out=out),
        "numpy standard_normal float32": lambda: rng.standard_normal(d * m, dtype=np.float32),
    }
    times = timed(calls, quick, progress, rounds=15, budget=40)
    return {"count": d * m, "threads": _cpu.max_threads(), "times": times}


def on_threads(k: int, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        before = _cpu.max_threads()
        randla.set_num_threads(k)
        try:
            return call()
        finally:
            randla.set_num_threads(before)

    return run


def transforms(batch: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Walsh-Hadamard transforms in float32: one vector, what a cache holds, and batches beside copies."""
    rng = np.random.default_rng(1)
    for log in LOGS:
        n = 1 << log
        one, cached = (rng.standard_normal((count, n)).astype(np.float32) for count in (1, LEVEL_2 // (4 * n)))
        # In place, as the published figures are; normalized, so that repetition does not overflow.
        yield f"one {n}", on_threads(1, partial(fwht, one[0], normalize=True, out=one[0]))
        yield f"cached {n}", on_threads(1, partial(fwht, cached, axis=-1, normalize=True, out=cached))
        for axis, shape in (("first", (n, batch)), ("last", (batch, n))):
            X = rng.standard_normal(shape).astype(np.float32)
            out = np.empty_like(X)
            yield f"batch {n} {axis}", partial(fwht, X, axis=0 if axis == "first" else -1, out=out)
            for threads in (1, 2):
                yield f"copy {n} {axis} {threads}", measure.copy_by_threads(X, out, threads)


def hadamard(quick: bool, progress: Progress) -> dict[str, Any]:
    batch = 8 if quick else BATCH
    times = timed(dict(transforms(batch)), quick, progress, rounds=25, budget=60, pause=0.0)
    for log in LOGS:
        n = 1 << log
        times[f"cached {n}"] = [t / (LEVEL_2 // (4 * n)) for t in times[f"cached {n}"]]
        for axis in ("first", "last"):
            times.best_of(f"copy {n} {axis}", f"copy {n} {axis} 1", f"copy {n} {axis} 2")
    return {"batch": batch, "times": times}


def threads(quick: bool, progress: Progress) -> dict[str, Any]:
    """Kernels on one and on two threads, and a read of A for what the memory allows."""
    m, n = scaled(DENSE, quick)
    A, W = gaussian_matrix(m, n), sparse_matrix(*scaled((500_000, 500), quick), 0.01)
    out = np.empty(scaled((1_000, 20_000), quick))
    cases: Calls = {
        "Gaussian fill": lambda: _cpu.dense_sketch(0, len(out), next(SEEDS), out, 0, 0),
        "SRTT()": drawn("SRTT()", 8 * n, np.ascontiguousarray(A[:, : n // 5])),
        "SparseStack(8)": drawn("SparseStack(8)", 8 * n, A),
        "SparseStack(8), CSR": drawn("SparseStack(8)", 4 * W.shape[1], W),
        "LessUniform(64)": drawn("LessUniform(64)", 8 * n, A),
        "BlockSRHT()": drawn("BlockSRHT()", 8 * n, A),
    }
    calls: Calls = {f"{name} {k}": on_threads(k, call) for name, call in cases.items() for k in (1, 2)}
    calls |= {f"read {k}": measure.read_by_sum(A, k) for k in (1, 2)}
    times = timed(calls, quick, progress, rounds=7, budget=90)
    return {"m": m, "n": n, "names": list(cases), "times": times}


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    "families": families,
    "csr": csr,
    "dense": dense,
    "fill": fill,
    "fwht": hadamard,
    "threads": threads,
}
