"""Products of Kronecker-sparse factors beside the dense product and installed peers: records, their table and their picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import matmul
from typing import Any

import numpy as np

from ..structured.operators import KroneckerSparse, Product
from ..structured.pattern import Chain
from . import picture, report, ways
from .ways import Progress, peer

__all__ = ["arrays_read", "butterfly", "drawn", "lazylinop_products", "pyfaust_product", "run", "table", "tensor"]

DENSE_ROWS = 8192  # above which the dense matrix is left out: it would take seconds a product


def tensor(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def butterfly(n: int, dtype: Any = np.float32, seed: int = 0) -> Product:
    """A random product of log2(n) factors, of entries about as large as those of its input."""
    scale = np.dtype(dtype).type(math.sqrt(0.5))
    return Product([KroneckerSparse(scale * tensor(tuple(p), dtype, seed + s)) for s, p in enumerate(Chain.dyadic(n))])


def lazylinop_products(P: Product, X: np.ndarray) -> dict[str, Callable[[], Any]]:
    """P @ X by the backends of lazylinop that run on the processor."""
    module = peer("lazylinop.butterfly")
    if module is None:
        return {}
    values = [factor.values for factor in P.factors]
    operators = {name: module.ksm(values, {"backend": name, "params": None}) for name in ("xp", "scipy")}
    return {f"lazylinop {name}": partial(matmul, L, X) for name, L in operators.items()}


def pyfaust_product(P: Product, X: np.ndarray) -> dict[str, Callable[[], Any]]:
    """P @ X by pyfaust, which wants columns contiguous."""
    module = peer("pyfaust")
    if module is None:
        return {}
    import scipy.sparse as sp

    factors = []
    for factor in P.factors:
        support = factor.pattern.support()
        numbers = np.ascontiguousarray(factor.values.transpose(0, 1, 3, 2)).ravel()
        factors.append(sp.csr_matrix((numbers, support.indices, support.indptr), shape=support.shape))
    F, X = module.Faust(factors), np.asfortranarray(X)
    return {"pyfaust": lambda: F @ X}


def arrays_read(P: Product, X: np.ndarray) -> np.ndarray:
    """A matrix of as many bytes as a product must move: its input, its output and its values."""
    count = X.size + P.shape[0] * (X.size // P.shape[1]) + P.n_params
    return np.ones((-(-count // 1024), 1024), X.dtype)


def run(
    n: int,
    batch: int,
    *,
    dtype: str = "float32",
    seed: int = 0,
    rounds: int = 5,
    budget: float = 60.0,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Time one product in both layouts beside peers and return one record ready for JSON.

    n must be a power of two.
    """
    P, X = butterfly(n, dtype, seed), tensor((n, batch), dtype, seed)
    first = np.ascontiguousarray(X.T)
    calls: dict[str, Callable[[], Any]] = {
        "randla": lambda: P @ X,
        "randla, batch first": lambda: P.apply(first, axis=-1).T,
        **lazylinop_products(P, X),
        **pyfaust_product(P, X),
    }
    if n <= DENSE_ROWS:
        M = P.to_dense()
        calls["numpy, dense"] = lambda: M @ X
    moved = arrays_read(P, X)
    times, results = ways.timed(calls, moved, rounds, budget, progress)
    twin = butterfly_in_double(P) @ X
    size = float(np.abs(twin).max()) or 1.0
    return {
        "problem": f"{n:,} x {n:,}, {len(P.factors)} factors, {batch:,} vectors, {dtype}",
        "order": "C",
        "n": n,
        "batch": batch,
        "dtype": dtype,
        "products": [
            {**ways.way(times, name), "error": float(np.abs(result - twin).max()) / size} for name, result in results.items()
        ],
        **ways.bounds(times, moved),
    }


def butterfly_in_double(P: Product) -> Product:
    return Product([KroneckerSparse(factor.values.astype(np.result_type(factor.dtype, np.float64))) for factor in P.factors])


def table(record: dict[str, Any]) -> report.Table:
    """One row per way to multiply."""
    rows = [[*ways.cells(s, 2), report.error(s["error"])] for s in record["products"]]
    read, medians = ways.notes(record, "input, output and values")
    notes = [f"{read} Errors are relative to the largest entry of the same product in double.", medians]
    columns = ["product", "time", "time / randla", "reads", "error"]
    return report.Table(f"butterfly {record['problem']}", columns, rows, [s["ours"] for s in record["products"]], notes)


def drawn(records: Sequence[dict[str, Any]]) -> Any:
    """Time of every way to multiply in reads of input, output and values, one panel per size."""

    def draw(ax: Any, record: dict[str, Any]) -> None:
        items = sorted(record["products"], key=lambda s: -s["reads"])
        colors = [picture.OURS if s["ours"] else picture.PEERS for s in items]
        bars = ax.barh([s["name"] for s in items], [s["reads"] for s in items], color=colors)
        ax.bar_label(bars, [f"{s['reads']:.1f}" for s in items], padding=3, fontsize=8.5)
        ax.set_xscale("log")
        ax.set_xlabel("time in reads of input, output and values")

    return ways.panels(records, draw)
