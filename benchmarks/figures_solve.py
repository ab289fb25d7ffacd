"""Measurements of least squares beyond dense matrices in memory, and of the choices behind its defaults."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from figures import Progress, scaled
from figures_sketch import alone, sparse_matrix, timed
from scipy.sparse.linalg import lsqr

import randla
from randla import datasets, plan
from randla._matrix import wrap
from randla.bench import measure, sketch
from randla.bench.accuracy import Reference

EPS = float(np.finfo(np.float64).eps)
REAL = ("w8a", "a9a", "kdd99_onehot")
LSQR_SECONDS = 10.0  # what LSQR may take before it counts as not getting there

MAPPED = (2_000_000, 500)
MEMORY_LIMIT = 1 << 30
COPIED_ROWS = 200_000

RATIOS = (3, 4, 6, 8, 12, 20, 50)
DISTRIBUTIONS = ("BlockSRHT()", "SparseStack(8)", "SparseStack(4)", "CountSketch()", "SRTT()", "Gaussian()")
GAUSSIAN_WORK = 4e11
FINALISTS = 8


def unit_columns(A: Any) -> sp.csr_array:
    """A with its columns scaled to norm one, which is what an LSQR without preconditioner needs most."""
    norms = np.sqrt(np.asarray(A.multiply(A).sum(axis=0)).ravel())
    return sp.csr_array(A @ sp.diags_array(1 / np.where(norms > 0, norms, 1)))


def plain_lsqr(A: Any, b: np.ndarray, iterations: int) -> Any:
    return lsqr(A, b, atol=0, btol=0, conlim=0, iter_lim=iterations)


def iterations_to(level: float, A: Any, b: np.ndarray, judge: Reference, cap: float) -> tuple[int, float, bool]:
    """LSQR iterations, to a few percent, that first reach the backward error `level`; what they reach; whether they do.

    Tried up to `cap` seconds per run. Without tolerances LSQR still ends where its own estimates are at the unit roundoff.
    """
    low, high = 0, 16
    while True:
        start = time.thread_time()  # serial code, and so as many iterations on a busy machine
        x, _, done, *_ = plain_lsqr(A, b, high)
        elapsed = time.thread_time() - start
        error = judge.backward_error(x)
        if error <= level:
            break
        if done < high or 2 * elapsed > cap:
            return done, error, False
        low, high = high, 2 * high
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        reached = judge.backward_error(plain_lsqr(A, b, middle)[0])
        if reached <= level:
            high, error = middle, reached
        else:
            low = middle
    return high, error, True


def against_lsqr(A: Any, b: np.ndarray, quick: bool, progress: Progress) -> dict[str, Any]:
    """One sparse problem, by randla and by as many LSQR iterations as reach the same backward error."""
    result = randla.lstsq(A, b, rng=1)
    judge = Reference(A, b)
    error = judge.backward_error(result.x)
    level = max(error, EPS)
    progress("counting iterations of LSQR")
    iterations, lsqr_error, reached = iterations_to(level, A, b, judge, 0.1 if quick else LSQR_SECONDS)
    calls: dict[str, Callable[[], Any]] = {
        "randla": lambda: randla.lstsq(A, b, rng=1),
        "lsqr": lambda: plain_lsqr(A, b, iterations),
    }
    return {
        "m": A.shape[0],
        "n": A.shape[1],
        "nnz": int(A.nnz),
        "rank": judge.rank,
        "cond": judge.cond,
        "method": result.method,
        "passes": result.passes,
        "iterations": result.iterations,
        "backward_error": error,
        "level": level,
        "lsqr_iterations": iterations,
        "lsqr_backward_error": lsqr_error,
        "lsqr_reached": reached,
        "times": timed(calls, quick, progress, rounds=5, budget=30),
    }


def sparse(quick: bool, progress: Progress) -> dict[str, Any]:
    """Real sparse problems; those whose files are missing are named."""
    records, missing = {}, []
    for name in REAL:
        progress(name)
        try:
            A, b = datasets.load(name)
        except FileNotFoundError:
            missing.append(name)
            continue
        assert b is not None
        rows = slice(None, None, 50 if quick else 1)
        scaled_name = f"{name}, columns of norm one"
        problems = {scaled_name: unit_columns(A[rows])}
        if name != "kdd99_onehot":  # of whose columns, of sizes 1 to 1e9, LSQR as it is makes nothing
            problems = {name: A[rows], **problems}
        for label, X in problems.items():
            records[label] = against_lsqr(X, b[rows], quick, partial(labelled, progress, label))
    return {"records": records, "missing": missing}


def labelled(progress: Progress, name: str, text: str) -> None:
    progress(f"{name}: {text}")


def write_problem(folder: Path, m: int, n: int, progress: Progress) -> None:
    """A.bin, row-major, of condition number about 1e6, and b.npy with a residual of 10 %; never more than blocks in memory."""
    small = np.random.default_rng(1)
    W, _ = np.linalg.qr(small.standard_normal((n, n)))
    mix = np.logspace(0, -6, n)[:, None] * W.T / np.sqrt(m)
    x = small.standard_normal(n)
    blocks = randla.Gaussian()
    b = np.empty(m)
    with (folder / "A.bin").open("wb") as file:
        for rows in datasets.row_blocks(m, n, 1 << 24):
            progress(f"writing row {rows.start:,} of {m:,}")
            count = rows.stop - rows.start
            A = np.sqrt(count) * blocks.sample(count, n, rng=rows.start).to_dense() @ mix
            A.tofile(file)
            b[rows] = A @ x + small.standard_normal(count) * 0.1 / np.sqrt(m)
    np.save(folder / "b.npy", b)


def available_memory() -> float:
    """Bytes that Linux would give without swapping; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024.0 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0.0)


def memmap(quick: bool, progress: Progress) -> dict[str, Any]:
    """A matrix on disk, eight times the memory allowed; the same in memory, or as many of its rows as there is room for."""
    m, n = (20_000, 50) if quick else MAPPED
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        wanted, m = m, min(m, int(0.8 * free) // (8 * n))
        write_problem(folder, m, n, progress)
        progress("solving in a process of its own")
        solved = alone("mapped", name, m, n, MEMORY_LIMIT)
        record: dict[str, Any] = {"m": m, "n": n, "wanted_m": wanted, "bytes": 8 * m * n, **solved}
        progress("comparing with a matrix in memory")
        whole = np.memmap(folder / "A.bin", np.float64, "r", shape=(m, n))
        rows = m if available_memory() > 1.5 * 8 * m * n else COPIED_ROWS
        mapped, b = whole[:rows], np.load(folder / "b.npy")[:rows]
        # Iterations depend on d / n, and the cost model chooses that by the size of A.
        options = {"rng": 1, "method": "spir", "sketch_size": plan.sketch_size(wrap(whole), "spir", 1, EPS)}
        on_disk, in_memory = (randla.lstsq(A, b, **options) for A in (mapped, np.array(mapped)))
        record |= {
            "copied_rows": len(mapped),
            "sketch_size": options["sketch_size"],
            "in_memory_passes": in_memory.passes,
            "entries_that_differ": int(np.count_nonzero(on_disk.x != in_memory.x)),
        }
    return record


def tall(m: int, n: int, quick: bool, *, order: str = "C", dtype: Any = np.float64) -> tuple[Any, np.ndarray]:
    problem = datasets.least_squares(*scaled((m, n), quick), rng=1, order=order, dtype=dtype)
    return problem.A, problem.b


def coherent(m: int, n: int, quick: bool) -> tuple[Any, np.ndarray]:
    """Half of the directions are carried by single rows, the others by all rows; condition number about 1e7."""
    m, n = scaled((m, n), quick)
    rng = np.random.default_rng(1)
    G = rng.standard_normal((m, n)) / np.sqrt(m)
    heavy = np.arange(n // 2)
    G[heavy] = 0
    G[heavy, heavy] = 10
    W, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = G @ (np.logspace(0, -6, n)[:, None] * W)
    return A, A @ rng.standard_normal(n) + 0.1 * rng.standard_normal(m) / np.sqrt(m)


def random_sparse(m: int, n: int, quick: bool) -> tuple[Any, np.ndarray]:
    m, n = scaled((m, n), quick)
    A, rng = sparse_matrix(m, n, 0.01), np.random.default_rng(2)
    return A, A @ rng.standard_normal(n) + rng.standard_normal(m)


def real(name: str, quick: bool) -> tuple[Any, np.ndarray]:
    A, b = datasets.load(name)
    assert b is not None
    rows = slice(None, None, 20 if quick else 1)
    return A[rows], b[rows]


PROBLEMS: dict[str, Callable[[bool], tuple[Any, np.ndarray]]] = {
    "200000x500 C": partial(tall, 200_000, 500),
    "200000x500 F": partial(tall, 200_000, 500, order="F"),
    "200000x500 float32": partial(tall, 200_000, 500, dtype=np.float32),
    "1000000x100 C": partial(tall, 1_000_000, 100),
    "50000x2000 C": partial(tall, 50_000, 2_000),
    "200000x200 coherent": partial(coherent, 200_000, 200),
    "1000000x300 CSR": partial(random_sparse, 1_000_000, 300),
    "w8a": partial(real, "w8a"),
}


def sizes(A: Any, distribution: str) -> Iterator[tuple[int, int]]:
    """d/n and d of the sketches to try."""
    m, n = A.shape
    work = 2 * (A.nnz if sp.issparse(A) else m * n) + 100 * m  # a Gaussian costs as much as some tens of operations
    for ratio in RATIOS:
        d = max(n + 8, ratio * n)
        affordable = distribution != "Gaussian()" or (ratio <= 4 and d * work <= GAUSSIAN_WORK)
        if 2 * d <= A.shape[0] and affordable:
            yield ratio, d


def outcome(result: Any, eps: float) -> dict[str, Any]:
    error = float(result.backward_error)
    return {
        "iterations": result.iterations,
        "passes": result.passes,
        "status": result.status.name,
        "backward_error": error,
        "certified": bool(result.success and error <= eps),
    }


def one_call_each(A: Any, solve: Callable[..., Any], progress: Progress, enough: float) -> dict[str, dict[str, Any]]:
    """Every cell once, or for `enough` seconds; the shortest time counts.

    A distribution is left when two larger sketches in a row are clearly slower, or when it is out of the question.
    """
    cells: dict[str, dict[str, Any]] = {}
    best, eps = np.inf, float(np.finfo(A.dtype).eps)
    for distribution, family in sketch.families(DISTRIBUTIONS).items():
        own, slower = np.inf, 0
        for ratio, d in sizes(A, distribution):
            name = f"{distribution}, d = {ratio} n"
            progress(name)
            seconds, total = np.inf, 0.0
            while total == 0 or total < enough:
                start = time.perf_counter()
                result = solve(sketch=family, sketch_size=d)
                last = time.perf_counter() - start
                seconds, total = min(seconds, last), total + last
            cells[name] = {
                "name": name,
                "distribution": distribution,
                "ratio": ratio,
                "d": d,
                "seconds": seconds,
                **outcome(result, eps),
            }
            if cells[name]["certified"]:
                best = min(best, seconds)
            slower = slower + 1 if seconds > 1.4 * own else 0
            if slower == 2 or seconds > 4 * best:
                break
            own = min(own, seconds)
    return cells


def finalists(cells: dict[str, dict[str, Any]]) -> list[str]:
    """The fastest certified cell of each distribution, then the other fast ones."""
    order = sorted((name for name in cells if cells[name]["certified"]), key=lambda name: cells[name]["seconds"])
    firsts = {cells[name]["distribution"]: name for name in reversed(order)}.values()
    chosen = [*sorted(firsts, key=order.index), *(name for name in order if name not in firsts)][:FINALISTS]
    return [name for name in chosen if cells[name]["seconds"] < 3 * cells[order[0]]["seconds"]]


def defaults(name: str, quick: bool, progress: Progress) -> dict[str, Any]:
    """Times to a certified solution over distributions and sizes of the sketch, beside what lstsq does by itself."""
    try:
        A, b = PROBLEMS[name](quick)
    except FileNotFoundError as error:
        return {"problem": name, "missing": str(error)}
    solve = partial(randla.lstsq, A, b, method="spir", rng=1)
    solve()
    cells = one_call_each(A, solve, progress, 0.0 if quick else 0.2)
    known = sketch.families(DISTRIBUTIONS)
    calls: dict[str, Callable[[], Any]] = {
        cell: partial(solve, sketch=known[cells[cell]["distribution"]], sketch_size=cells[cell]["d"])
        for cell in finalists(cells)
    }
    limits: dict[str, Any] = {"rounds": 1, "min_time": 0} if quick else {"rounds": 3, "budget": 15, "pause": 0.03}
    times, results = measure.interleave({"model": solve, **calls}, least=1, warmup=False, progress=progress, **limits)
    for cell in calls:
        cells[cell] |= {"times": times[cell], "seconds": times.median(cell)}
    matrix, eps = wrap(A), float(np.finfo(A.dtype).eps)
    model = {
        "distribution": repr(matrix.default_sketch),
        "d": plan.sketch_size(matrix, "spir", 1, eps),
        "seconds": times.median("model"),
        **outcome(results["model"], eps),
    }
    return {"problem": name, "m": A.shape[0], "n": A.shape[1], "model": model, "cells": list(cells.values()), "times": times}


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    "sparse": sparse,
    "memmap": memmap,
    **{f"defaults {name}": partial(defaults, name) for name in PROBLEMS},
}
