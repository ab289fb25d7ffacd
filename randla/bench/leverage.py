"""Leverage scores: randla's methods and the routes through LAPACK, on one matrix, interleaved with a read of that matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg

import randla
from randla.bench.measure import Progress, interleave, read_by_product, read_by_sum

__all__ = ["qr_route", "run", "svd_route"]


def qr_route(A: np.ndarray) -> np.ndarray:
    """Squared norms of the rows of Q; of A of full rank."""
    Q = np.linalg.qr(A)[0]
    return np.vecdot(Q, Q).real


def svd_route(A: np.ndarray) -> np.ndarray:
    """Squared norms of the rows of U; of A of full rank."""
    U = scipy.linalg.svd(A, full_matrices=False, check_finite=False)[0]
    return np.vecdot(U, U).real


def run(
    A: np.ndarray, *, seed: int = 0, rounds: int = 5, budget: float = 60.0, progress: Progress = lambda text: None
) -> dict[str, Any]:
    """Time the scores of A and return one record ready for JSON; errors are relative to numpy's QR in float64."""
    ours = {f"randla {name}": name for name in ("exact", "sketch")}
    calls: dict[str, Callable[[], Any]] = {"read by product": read_by_product(A), "read by sum": read_by_sum(A)}
    for name, method in ours.items():
        calls[name] = partial(randla.leverage_scores, A, method=method, rng=seed, full_output=True)
    calls["numpy QR"], calls["scipy SVD"] = partial(qr_route, A), partial(svd_route, A)
    times, results = interleave(calls, rounds=rounds, budget=budget, pause=0.03, progress=progress)
    times.best_of("read", "read by product", "read by sum")
    truth = results["numpy QR"] if A.dtype == np.float64 else qr_route(A.astype(np.float64))
    m, n = A.shape

    def route(name: str) -> dict[str, Any]:
        result = results[name]
        scores = result.scores if name in ours else result
        return {
            "name": name,
            "ours": name in ours,
            "seconds": times.median(name),
            "times": times[name],
            "reads": times.ratio(name, "read"),
            "error": float(np.abs(scores / truth - 1).max()),
            "passes": result.passes if name in ours else None,
        }

    return {
        "problem": f"{m:,} x {n:,}",
        "m": m,
        "n": n,
        "cond": results["randla exact"].cond,
        "dtype": str(A.dtype),
        "order": "C" if A.flags.c_contiguous else "F",
        "rounds": max(map(len, times.values())),
        "bounds": {
            "read_seconds": times.median("read"),
            "read_gbytes_per_second": A.nbytes / times.median("read") / 1e9,
        },
        "routes": [route(name) for name in times if name != "read"],
        "ratios": {f"{name} / {other}": times.ratio(name, other) for name in ours for other in ("numpy QR", "scipy SVD")},
    }
