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

from . import picture, report, ways
from .ways import Progress, peer

__all__ = ["decaying", "drawn", "randla_svd", "run", "svd_peers", "table", "true_error"]

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
    if not 1 <= k < min(m, n):
        raise ValueError(f"the rank must be at least 1 and less than {min(m, n)} for a matrix of {m} x {n}; got {k}")
    A = decaying(m, n, power, dtype, seed)
    calls: dict[str, Callable[[], Any]] = {
        "randla": partial(randla_svd, A, k, seed),
        **svd_peers(A, k),
    }
    times, results = ways.timed(calls, A, rounds, budget, progress)
    progress("computing the errors")
    ours, size = results["randla"], float(np.linalg.norm(A))
    errors = {name: true_error(A, *result) for name, result in results.items()}
    least = min(errors.values())
    return {
        "problem": f"{m:,} x {n:,}, singular values like i^-{power:g}, k = {k}, {np.dtype(dtype)}",
        "order": "C",
        "m": m,
        "n": n,
        "k": k,
        "ways": [
            {**ways.way(times, name), "relative_error": error / size, "excess": error / least - 1}
            for name, error in errors.items()
        ],
        "estimate": ours.relative_error,
        "passes": ours.passes,
        **ways.bounds(times, A),
    }


def table(record: dict[str, Any]) -> report.Table:
    """One row per way to decompose."""
    rows = [[*ways.cells(way, 1), f"{way['relative_error']:.6f}", report.error(way["excess"])] for way in record["ways"]]
    taken = "1 pass" if record["passes"] == 1 else f"{record['passes']} passes"
    ours = f"randla took {taken} and reports a relative error of {record['estimate']:.6f}. "
    read, medians = ways.notes(record, "A")
    columns = ["svd", "time", "time / randla", "reads", "relative error", "above the least"]
    shown = [way["ours"] for way in record["ways"]]
    return report.Table(f"svd of {record['problem']}", columns, rows, shown, [ours + read, medians])


def drawn(records: Sequence[dict[str, Any]]) -> Any:
    """How far the error is above the least one, over time; one panel per matrix."""

    def draw(ax: Any, record: dict[str, Any]) -> None:
        for way in record["ways"]:
            point = way["seconds"], max(way["excess"], 1e-9)
            ax.plot(*point, "o", color=picture.OURS if way["ours"] else picture.PEERS)
            ax.annotate(way["name"], point, xytext=(6, 4), textcoords="offset points", fontsize=8.5)
        ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="error / least error - 1")
        ax.margins(0.25, 0.15)

    return ways.panels(records, draw)
