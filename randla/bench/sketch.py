"""Sketches: randla's families and what SciPy users have, on one matrix, interleaved with a read of that matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse

import randla
from randla.bench.accuracy import householder
from randla.bench.measure import Progress, interleave, read_by_product, read_by_sum

__all__ = ["FAMILIES", "families", "run", "scipy_csc", "stack_as_csc"]

FAMILIES = ("SparseStack(8)", "SparseSign(8)", "CountSketch()", "BlockSRHT()", "SRTT()", "LessUniform(64)")


def families(names: Sequence[str] = FAMILIES) -> dict[str, Any]:
    """Distributions by the text that makes them."""
    known = {
        "SparseStack(8)": randla.SparseStack(nnz=8),
        "SparseStack(4)": randla.SparseStack(nnz=4),
        "SparseSign(8)": randla.SparseSign(nnz=8),
        "CountSketch()": randla.CountSketch(),
        "BlockSRHT()": randla.BlockSRHT(),
        "SRTT()": randla.SRTT(),
        'SRTT("dct")': randla.SRTT("dct"),
        "LessUniform(64)": randla.LessUniform(nnz=64),
        "RowSample()": randla.RowSample(),
        "Gaussian()": randla.Gaussian(),
        "Rademacher()": randla.Rademacher(),
    }
    return {name: known[name] for name in names}


def stack_as_csc(d: int, m: int, nnz: int = 8, seed: int = 0, dtype: Any = np.float64) -> scipy.sparse.csc_array:
    """A sparse sketch as a SciPy user would store it: one +-1/sqrt(nnz) per column in each of nnz blocks of rows."""
    rng = np.random.default_rng(seed)
    nnz = min(nnz, d)
    starts = np.linspace(0, d, nnz + 1).astype(np.int64)
    rows = rng.integers(starts[:-1], starts[1:], (m, nnz)).astype(np.int32).ravel()
    values = (rng.choice([-1.0, 1.0], m * nnz) / np.sqrt(nnz)).astype(dtype)
    return scipy.sparse.csc_array((values, rows, np.arange(0, m * nnz + 1, nnz, dtype=np.int32)), shape=(d, m))


def scipy_csc(A: np.ndarray, d: int) -> Callable[[], Any]:
    """The product of a stored sparse sketch with A; making the sketch is not counted, which favours SciPy."""
    S = stack_as_csc(d, A.shape[0], dtype=A.dtype)
    return lambda: S @ A


def distortion(SA: np.ndarray, R: np.ndarray) -> float:
    """Condition number of S on the range of A = Q R; a Gaussian S has (1 + sqrt(n/d)) / (1 - sqrt(n/d))."""
    s = np.linalg.svd(scipy.linalg.solve_triangular(R.T, SA.T.astype(np.float64), lower=True), compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] > 0 else np.inf


def run(
    A: np.ndarray,
    d: int,
    *,
    names: Sequence[str] = FAMILIES,
    rounds: int = 7,
    budget: float = 60.0,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Time S @ A, the making of S included for randla, and return one record ready for JSON."""
    ours = families(names)
    seeds = iter(range(10**9))
    calls: dict[str, Callable[[], Any]] = {"read by product": read_by_product(A), "read by sum": read_by_sum(A)}
    for name, distribution in ours.items():
        # A new seed for each call, so that nothing can be kept from the last one.
        calls[name] = partial(lambda family: family.sample(d, A.shape[0], rng=next(seeds)) @ A, distribution)
    calls["scipy csc_array @ A"] = scipy_csc(A, d)
    calls["scipy clarkson_woodruff_transform"] = lambda: scipy.linalg.clarkson_woodruff_transform(A, d, next(seeds))
    times, results = interleave(calls, rounds=rounds, budget=budget, progress=progress)
    times.best_of("read", "read by product", "read by sum")
    R, _ = householder(A, np.zeros(A.shape[0]), np.float64)
    m, n = A.shape
    return {
        "problem": f"{m:,} x {n:,}, d = {d:,}",
        "m": m,
        "n": n,
        "d": d,
        "dtype": str(A.dtype),
        "order": "C" if A.flags.c_contiguous else "F",
        "rounds": max(map(len, times.values())),
        "bounds": {
            "read_seconds": times.median("read"),
            "read_gbytes_per_second": A.nbytes / times.median("read") / 1e9,
        },
        "gaussian_distortion": (1 + (n / d) ** 0.5) / (1 - (n / d) ** 0.5) if d > n else None,
        "sketches": [
            {
                "name": name,
                "ours": name in ours,
                "seconds": times.median(name),
                "times": times[name],
                "reads": times.ratio(name, "read"),
                "distortion": distortion(np.asarray(results[name]), R) if d >= n else None,
            }
            for name in times
            if name != "read"
        ],
        "ratios": {f"{name} / {other}": times.ratio(name, other) for name in ours for other in times if other not in ours},
    }
