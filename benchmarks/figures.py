"""The measurements behind the README's table: each function makes one of them and returns what report.py keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import randla
from randla import _cpu
from randla.bench import lstsq, measure, sketch
from randla.bench.accuracy import Reference
from randla.datasets import least_squares

TALL = ((200_000, 500), (1_000_000, 100), (50_000, 2_000))
SKETCHED = (200_000, 500)
# Small to large and nearly square to very tall, so that `auto` has to change its mind in between.
SHAPES = (
    (50, 5), (100, 10), (100, 100), (200, 50), (500, 5), (500, 50), (500, 250), (1_000, 10),
    (1_000, 100), (1_000, 500), (2_000, 200), (2_000, 1_000), (5_000, 20), (5_000, 100), (5_000, 500), (10_000, 50),
    (10_000, 1_000), (20_000, 10), (20_000, 200), (50_000, 20), (50_000, 500), (100_000, 100), (200_000, 50),
    (200_000, 500),
)  # fmt: skip
Progress = Callable[[str], None]


def scaled(shape: tuple[int, int], quick: bool) -> tuple[int, int]:
    """With `quick` a shape small enough to try the machinery; its figures mean nothing."""
    return (max(shape[0] // 100, 400), max(shape[1] // 10, 5)) if quick else shape


def reads(calls: dict[str, Callable[[], Any]], name: str, A: np.ndarray) -> None:
    calls[f"{name} by product"], calls[f"{name} by sum"] = measure.read_by_product(A), measure.read_by_sum(A)


def tall(shape: tuple[int, int], quick: bool, progress: Progress) -> dict[str, Any]:
    """One shape in both orders and precisions, with numpy and gelsd on the C-order float64 one."""
    m, n = scaled(shape, quick)
    problem = least_squares(m, n, rng=1)
    A, b = problem.A, problem.b
    variants = {
        "randla C": (A, b),
        "randla F": (np.asfortranarray(A), b),
        "randla float32": (A.astype(np.float32), b.astype(np.float32)),
    }
    calls: dict[str, Callable[[], Any]] = {
        name: lambda data=data: randla.lstsq(*data, rng=1) for name, data in variants.items()
    }
    for solver in lstsq.peers(["numpy.linalg.lstsq", "scipy gelsd"]):
        calls[solver.name] = lambda solver=solver: solver.solve(A, b)
    calls["gemm"] = measure.gemm()
    reads(calls, "read", A)
    times, results = measure.interleave(calls, rounds=5, budget=90, progress=progress)
    times.best_of("read", "read by product", "read by sum")
    progress("checking the solutions")
    reference = Reference(A, b, problem.x)
    reference32 = Reference(*variants["randla float32"])
    accuracy = {}
    for name in variants:
        judge = reference32 if name == "randla float32" else reference
        accuracy[name] = {
            "backward_error": judge.backward_error(results[name].x),
            "householder": judge.backward_error(judge.x_qr),
            "certificate": float(np.max(results[name].backward_error)),
            "forward_error": judge.forward_error(results[name].x),
            "method": results[name].method,
            "rank": results[name].rank,
            "passes": results[name].passes,
        }
    for name in ("numpy.linalg.lstsq", "scipy gelsd"):
        accuracy[name] = {
            "backward_error": reference.backward_error(results[name][0]),
            "forward_error": reference.forward_error(results[name][0]),
        }
    return {"m": m, "n": n, "times": times, "accuracy": accuracy, "bytes": A.nbytes}


def shapes(quick: bool, progress: Progress) -> dict[str, Any]:
    """`auto` and the LAPACK drivers over a fixed list of shapes."""
    table = []
    for m, n in SHAPES[:6] if quick else SHAPES:
        progress(f"{m} x {n}")
        problem = least_squares(m, n, rng=m + n)
        solvers = [*lstsq.randla_solvers(["auto"], seed=1), *lstsq.peers(lstsq.LAPACK)]
        case = lstsq.Case(f"{m} x {n}", *problem)
        # Long enough for the medians of small problems: their LAPACK calls last microseconds.
        table.append(lstsq.run(case, solvers, rounds=15, budget=20, bounds=False, progress=progress))
    return {"records": table}


def sketches(quick: bool, progress: Progress) -> dict[str, Any]:
    """Sparse and block-Hadamard sketches of a matrix in both orders, their making included; SciPy in C order."""
    m, n = scaled(SKETCHED, quick)
    A = {"C": least_squares(m, n, rng=1).A}
    A["F"] = np.asfortranarray(A["C"])
    seeds = iter(range(10**9))
    calls: dict[str, Callable[[], Any]] = {}
    for order, matrix in A.items():
        sparse, blocked = randla.SparseStack(nnz=8), randla.BlockSRHT()
        calls[f"stack {order}"] = lambda X=matrix, D=sparse: D.sample(4 * n, m, rng=next(seeds)) @ X
        calls[f"srht {order}"] = lambda X=matrix, D=blocked: D.sample(20 * n, m, rng=next(seeds)) @ X
        reads(calls, f"read {order}", matrix)
    calls["scipy csc_array @ A"] = sketch.scipy_csc(A["C"], 4 * n)
    times, _ = measure.interleave(calls, rounds=15, budget=120, progress=progress)
    for order in A:
        times.best_of(f"read {order}", f"read {order} by product", f"read {order} by sum")
    return {"m": m, "n": n, "times": times, "bytes": A["C"].nbytes}


def residual(quick: bool, progress: Progress) -> dict[str, Any]:
    """The fused pass r = b - A x, g = A'r in both orders and precisions."""
    m, n = scaled(SKETCHED, quick)
    rng = np.random.default_rng(1)
    x, b = rng.standard_normal((1, n)), rng.standard_normal((1, m))
    r, g = np.empty_like(b), np.empty_like(x)
    base = rng.standard_normal((m, n))
    calls: dict[str, Callable[[], Any]] = {}
    names = []
    for dtype in ("float64", "float32"):
        for order in ("C", "F"):
            A = np.array(base, dtype=dtype, order=order)
            names.append(f"{dtype} {order}")
            calls[f"pass {names[-1]}"] = lambda A=A: _cpu.residual(A, x, b, r, g)
            reads(calls, f"read {names[-1]}", A)
    times, _ = measure.interleave(calls, rounds=25, budget=60, progress=progress)
    for name in names:
        times.best_of(f"read {name}", f"read {name} by product", f"read {name} by sum")
    return {"m": m, "n": n, "times": times}


def memory(quick: bool, progress: Progress) -> dict[str, Any]:
    """Peak of the arrays that lstsq allocates beside its inputs, as a share of A."""
    peaks = {}
    for shape in TALL[:2]:
        m, n = scaled(shape, quick)
        problem = least_squares(m, n, rng=1)
        for name, options in (("no copy", {"allow_copy": False}), ("default", {})):
            progress(f"memory of {m} x {n}, {name}")
            randla.lstsq(problem.A, problem.b, rng=1, **options)
            tracemalloc.start()
            randla.lstsq(problem.A, problem.b, rng=1, **options)
            peaks[f"{shape[0]:,} x {shape[1]:,}, {name}"] = tracemalloc.get_traced_memory()[1] / problem.A.nbytes
            tracemalloc.stop()
    return {"peaks": peaks}


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    **{f"lstsq {m}x{n}": (lambda quick, progress, shape=(m, n): tall(shape, quick, progress)) for m, n in TALL},
    "shapes": shapes,
    "sketch": sketches,
    "residual": residual,
    "memory": memory,
}
