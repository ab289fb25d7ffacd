"""Truncated singular value decompositions beside installed peers at their errors: records, their table and their picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse as sp
import scipy.sparse.linalg

import randla

from . import measure, picture, report
from .structured import peer

__all__ = ["decaying", "drawn", "randla_svd", "run", "svd_peers", "table", "true_error"]

Progress = Callable[[str], None]
Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]
_ROWS = 4096  # of a dense matrix that are compared at a time


def decaying(m: int, n: int, power: float, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """A dense matrix with m >> n and singular values about i^-power, whose vectors are spread over rows and columns."""
    A = np.asarray(randla.Gaussian().sample(m, n, rng=seed).to_dense(), dtype)
    A *= np.arange(1, n + 1, dtype=dtype) ** np.dtype(dtype).type(-power)
    return np.ascontiguousarray(scipy.fft.dct(A, axis=1, norm="ortho", overwrite_x=True))


def randla_svd(A: Any, k: int, seed: int = 0, **options: Any) -> randla.lowrank.SVDResult:
    return randla.svd(A, k, rng=seed, **options)


def svd_peers(A: Any, k: int) -> dict[str, Callable[[], Triplets]]:
    """U, s, Vh by those of SciPy, scikit-learn and fbpca that are installed."""

    def svds() -> Triplets:
        U, s, Vh = scipy.sparse.linalg.svds(A, k, rng=np.random.default_rng(0))
        order = np.argsort(-s)
        return U[:, order], s[order], Vh[order]

    calls: dict[str, Callable[[], Triplets]] = {"scipy svds": svds}
    if (module := peer("sklearn.utils.extmath")) is not None:
        calls["sklearn randomized_svd"] = partial(module.randomized_svd, A, k, random_state=0)
    if (module := peer("fbpca")) is not None:
        # NumPy's global generator is the only one that it draws from.
        calls["fbpca"] = partial(module.pca, A, k, raw=True)
        calls["fbpca n_iter=7"] = partial(module.pca, A, k, raw=True, n_iter=7)
    return calls


def true_error(A: Any, U: np.ndarray, s: np.ndarray, Vh: np.ndarray) -> float:
    """||A - U diag(s) Vh||_F for orthonormal U and Vh, in double."""
    left, right = U.astype(np.result_type(U, np.float64)) * s, Vh.astype(np.result_type(Vh, np.float64))
    if sp.issparse(A):
        along = np.vdot(left, A @ right.conj().T).real
        return float(np.sqrt(np.linalg.norm(A.data) ** 2 - 2 * along + np.linalg.norm(s.astype(np.float64)) ** 2))
    parts = [np.linalg.norm(A[i : i + _ROWS] - left[i : i + _ROWS] @ right) for i in range(0, len(A), _ROWS)]
    return float(np.linalg.norm(parts))


def run(
    m: int,
    n: int,
    *,
    k: int = 50,
    power: float = 0.5,
    dtype: str = "float64",
    seed: int = 0,
    rounds: int = 5,
    budget: float = 60.0,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Time decompositions of rank k of a generated matrix and return one record ready for JSON."""
    A, k = decaying(m, n, power, dtype, seed), min(k, min(m, n) - 1)
    calls: dict[str, Callable[[], Any]] = {
        "randla": partial(randla_svd, A, k, seed),
        **svd_peers(A, k),
        "read by sum": measure.read_by_sum(A),
        "read by product": measure.read_by_product(A),
    }
    times, results = measure.interleave(calls, rounds=rounds, budget=budget, pause=0.03, progress=progress)
    times.best_of("read", "read by sum", "read by product")
    progress("computing the errors")
    ours, size = results["randla"], float(np.linalg.norm(A))
    names = [name for name in times if name != "read"]
    errors = {name: true_error(A, *results[name]) for name in names}
    least = min(errors.values())
    read = times.median("read")
    return {
        "problem": f"{m:,} x {n:,}, singular values like i^-{power:g}, k = {k}, {np.dtype(dtype)}",
        "order": "C",
        "m": m,
        "n": n,
        "k": k,
        "ways": [
            {
                "name": name,
                "ours": name == "randla",
                "seconds": times.median(name),
                "speedup": times.ratio(name, "randla"),
                "reads": times.ratio(name, "read"),
                "relative_error": errors[name] / size,
                "excess": errors[name] / least - 1,
            }
            for name in names
        ],
        "estimate": ours.relative_error,
        "passes": ours.passes,
        "bounds": {"read_seconds": read, "read_gbytes_per_second": A.nbytes / read / 1e9},
        "rounds": len(times["randla"]),
    }


def table(record: dict[str, Any]) -> report.Table:
    """One row per way to decompose."""
    rows = [
        [
            way["name"],
            report.seconds(way["seconds"]),
            report.ratio(way["speedup"]),
            report.count(round(way["reads"], 1)),
            f"{way['relative_error']:.6f}",
            report.error(way["excess"]),
        ]
        for way in record["ways"]
    ]
    b = record["bounds"]
    notes = [
        f"randla took {record['passes']} passes and reports a relative error of {record['estimate']:.6f}. "
        f"Reading A once takes {report.seconds(b['read_seconds'])} ({b['read_gbytes_per_second']:.3g} GB/s).",
        "One run of each." if record["rounds"] == 1 else f"Medians of {record['rounds']} interleaved rounds.",
    ]
    columns = ["svd", "time", "time / randla", "reads", "relative error", "above the least"]
    return report.Table(f"svd of {record['problem']}", columns, rows, [way["ours"] for way in record["ways"]], notes)


def drawn(records: Sequence[dict[str, Any]]) -> Any:
    """How far the error is above the least one, over time; one panel per matrix."""
    figure, axes = picture._figure(len(records))
    for ax, record in zip(axes, records, strict=True):
        for way in record["ways"]:
            point = way["seconds"], max(way["excess"], 1e-9)
            ax.plot(*point, "o", color=picture.OURS if way["ours"] else picture.PEERS)
            ax.annotate(way["name"], point, xytext=(6, 4), textcoords="offset points", fontsize=8.5)
        ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="error / least error - 1")
        ax.margins(0.25, 0.15)
        ax.set_title(record["problem"], loc="left", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    return figure
