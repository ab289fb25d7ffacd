"""Measurements of leverage scores and of what samples by them: each function makes one and returns what report.py keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from figures import Progress, reads, scaled

import randla
from randla import datasets
from randla.bench import measure
from randla.bench.leverage import qr_route, svd_route

SHAPE = (200_000, 500)
REAL = ("kdd99", "covtype")
SAMPLES = (100, 200, 500, 1_000, 2_000, 5_000)
ALWAYS = 0.5  # leverage above which a row is said to carry a direction


def conditioned(m: int, n: int, cond: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    A = rng.standard_normal((m, n))
    A *= np.geomspace(1, 1 / cond, n)
    return A @ scipy.linalg.qr(rng.standard_normal((n, n)))[0]


def dense(quick: bool, progress: Progress) -> dict[str, Any]:
    """Exact and sketched scores of one large matrix, beside the two routes through LAPACK."""
    m, n = scaled(SHAPE, quick)
    A = conditioned(m, n, 1e4)
    calls: dict[str, Callable[[], Any]] = {
        "exact": lambda: randla.leverage_scores(A, method="exact", rng=1, full_output=True),
        "sketch": lambda: randla.leverage_scores(A, method="sketch", rng=1, full_output=True),
        "numpy QR": lambda: qr_route(A),
        "scipy SVD": lambda: svd_route(A),
        "gemm": measure.gemm(),
    }
    reads(calls, "read", A)
    times, results = measure.interleave(calls, rounds=5, budget=120, pause=0.03, progress=progress)
    times.best_of("read", "read by product", "read by sum")
    exact, sketched, qr = results["exact"], results["sketch"], results["numpy QR"]
    ratio = sketched.scores / exact.scores
    return {
        "m": m,
        "n": n,
        "times": times,
        "cond": exact.cond,
        "error": float(np.abs(exact.scores / qr - 1).max()),
        "passes": {"exact": exact.passes, "sketch": sketched.passes},
        "ratios": [float(ratio.min()), float(ratio.max())],
    }


def real(quick: bool, progress: Progress) -> dict[str, Any]:
    """Exact scores of real tables, beside row norms of numpy's Q; the truth is an SVD after scaling columns."""
    records = {}
    for name in REAL:
        progress(f"{name}: reading")
        A = np.ascontiguousarray(datasets.load(name)[0][: 5_000 if quick else None])
        calls = {
            "exact": lambda A=A: randla.leverage_scores(A, method="exact", rng=1, full_output=True),
            "sketch": lambda A=A: randla.leverage_scores(A, method="sketch", rng=1, full_output=True),
            "numpy QR": lambda A=A: qr_route(A),
        }
        times, results = measure.interleave(calls, rounds=7, budget=60, pause=0.03, progress=progress)
        exact, sketched = results["exact"], results["sketch"]
        sizes = np.linalg.norm(A, axis=0)
        U = scipy.linalg.svd(A / np.where(sizes > 0, sizes, 1), full_matrices=False, overwrite_a=True)[0][:, : exact.rank]
        ratio = sketched.scores[exact.scores > 0] / exact.scores[exact.scores > 0]
        records[name] = {
            "m": A.shape[0],
            "n": A.shape[1],
            "times": times,
            "rank": exact.rank,
            "error": float(np.abs(exact.scores - np.vecdot(U, U)).max()),
            "numpy_error": float(np.abs(results["numpy QR"] - np.vecdot(U, U)).max()),
            "above": [int(np.count_nonzero(scores > ALWAYS)) for scores in (exact.scores, np.vecdot(U, U))],
            "ratios": [float(ratio.min()), float(ratio.max())],
        }
    return {"records": records}


def residual_ratios(A: np.ndarray, b: np.ndarray, probabilities: Any, k: int, seeds: range) -> list[float]:
    """||A x - b|| over its minimum, x from k rows drawn by these probabilities, None for uniform ones."""
    best = randla.lstsq(A, b, rng=0).residual_norm
    sketch = randla.RowSample(probabilities)
    found = (randla.lstsq(A, b, method="sketch", sketch=sketch, sketch_size=k, rng=seed) for seed in seeds)
    return [float(np.linalg.norm(b - A @ result.x) / best) for result in found]


def sampled(quick: bool, progress: Progress) -> dict[str, Any]:
    """Least squares from sampled rows of KDD99 (attack or not on 38 numbers), by leverage and uniformly."""
    A, b = datasets.load("kdd99")
    assert b is not None
    scores = randla.leverage_scores(A, rng=1)
    seeds = range(3 if quick else 51)
    ratios: dict[str, dict[str, list[float]]] = {}
    for k in SAMPLES:
        for name, p in (("leverage", scores), ("uniform", None)):
            progress(f"{k} rows, {name}")
            ratios.setdefault(name, {})[str(k)] = residual_ratios(A, b, p, k, seeds)
    highest = np.sort(scores)[::-1]
    return {
        "m": A.shape[0],
        "n": A.shape[1],
        "ratios": ratios,
        "highest": highest[:1000].tolist(),
        "histogram": histogram(scores),
    }


def histogram(scores: np.ndarray) -> dict[str, list[float]]:
    edges = np.geomspace(1e-9, 1, 55)
    counts, _ = np.histogram(np.maximum(scores, edges[0]), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {"scores": dense, "real": real, "sampled": sampled}
