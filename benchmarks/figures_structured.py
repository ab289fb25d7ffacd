"""Measurements of structured matrices: each function makes one of them and returns what report.py keeps."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import Progress
from figures_optimize import one_core
from figures_sketch import Calls, timed
from figures_weights import bit_reversed, weights
from scipy.linalg import hadamard

import randla
from randla import _cpu
from randla.bench import measure
from randla.bench.structured import arrays_read, butterfly, lazylinop_products, pyfaust_product, tensor
from randla.bench.ways import peer
from randla.structured import fwht
from randla.structured.factorize import factorize
from randla.structured.operators import KroneckerSparse, Product
from randla.structured.pattern import Chain

BATCHES = ((1024, 64), (4096, 512), (16384, 512))
VECTORS = (1024, 16384)
GRADIENT = (1024, 512)
TRANSFORM = (4096, 512)
FACTORIZED = {"Hadamard": 1024, "DFT": 1024, "Hadamard + 10 % noise": 4096}
DENSE_ROWS = 4096  # above which the dense matrix is not made
SIZES, SIZES_BATCH = tuple(2**k for k in range(7, 17)), 64


def smaller(n: int, quick: bool) -> int:
    return min(n, 64) if quick else n


def reads(A: np.ndarray) -> Calls:
    return {"read by sum": measure.read_by_sum(A, 1), "read by product": measure.read_by_product(A)}


def with_reads(calls: Calls, quick: bool, progress: Progress, budget: float) -> measure.Timings:
    times = timed(calls, quick, progress, rounds=15, budget=budget)
    times.best_of("read", "read by sum", "read by product")
    return times


def products(quick: bool, progress: Progress) -> dict[str, Any]:
    """Batches on one core, in both layouts, beside a read of input, output and values, the dense product, and peers."""
    parts = []
    with one_core():
        for n, batch in BATCHES:
            n, batch = smaller(n, quick), min(batch, 9) if quick else batch
            P, X = butterfly(n), tensor((n, batch), np.float32)
            first, moved = np.ascontiguousarray(X.T), arrays_read(P, X)
            calls: Calls = {
                "batch last": lambda P=P, X=X: P @ X,
                "batch first": lambda P=P, first=first: P.apply(first, axis=-1),
                "transposed": lambda P=P, X=X: P.T @ X,
                **reads(moved),
                **lazylinop_products(P, X),
                **pyfaust_product(P, X),
            }
            if n <= DENSE_ROWS:
                M = P.to_dense()
                calls["dense"] = lambda M=M, X=X: M @ X
            times = with_reads(calls, quick, lambda text, n=n: progress(f"{n}: {text}"), 60)
            parts.append({"n": n, "batch": batch, "bytes": moved.nbytes, "times": times})
    return {"parts": parts}


def sizes(quick: bool, progress: Progress) -> dict[str, Any]:
    """One batch on one core for growing n, beside the dense product and lazylinop."""
    parts = []
    with one_core():
        for n in SIZES[:2] if quick else SIZES:
            P, X = butterfly(n), tensor((n, SIZES_BATCH), np.float32)
            calls: Calls = {"butterfly": lambda P=P, X=X: P @ X, **reads(arrays_read(P, X)), **lazylinop_products(P, X)}
            if n <= DENSE_ROWS:
                M = P.to_dense()
                calls["dense"] = lambda M=M, X=X: M @ X
            times = with_reads(calls, quick, lambda text, n=n: progress(f"{n}: {text}"), 12)
            parts.append({"n": n, "times": times})
    return {"batch": SIZES_BATCH, "parts": parts}


def vectors(quick: bool, progress: Progress) -> dict[str, Any]:
    """Single vectors on one core."""
    parts = []
    with one_core():
        for n in VECTORS:
            n = smaller(n, quick)
            P, x = butterfly(n), tensor((n,), np.float32)
            calls: Calls = {
                "vector": lambda P=P, x=x: P @ x,
                **reads(arrays_read(P, x)),
                **lazylinop_products(P, x),
                **pyfaust_product(P, x),
            }
            times = with_reads(calls, quick, lambda text, n=n: progress(f"{n}: {text}"), 30)
            parts.append({"n": n, "batch": 1, "times": times})
    return {"parts": parts}


def threads(quick: bool, progress: Progress) -> dict[str, Any]:
    """The same products on one and on two threads."""
    before, calls = _cpu.max_threads(), {}

    def on(count: int, P: Product, X: np.ndarray) -> Callable[[], Any]:
        def call() -> Any:
            randla.set_num_threads(count)
            return P @ X

        return call

    for n, batch in BATCHES:
        n, batch = smaller(n, quick), min(batch, 9) if quick else batch
        P, X = butterfly(n), tensor((n, batch), np.float32)
        calls |= {f"{n} x {batch} on {count}": on(count, P, X) for count in (1, 2)}
    try:
        times = timed(calls, quick, progress, rounds=15, budget=60)
    finally:
        randla.set_num_threads(before)
    return {"names": list(dict.fromkeys(name.removesuffix(" on 1").removesuffix(" on 2") for name in calls)), "times": times}


def gradients(quick: bool, progress: Progress) -> dict[str, Any]:
    """A product and the gradients through it on one core, alone and with factors that are new in every step."""
    n, batch = (smaller(GRADIENT[0], quick), 9) if quick else GRADIENT
    P, X, G = butterfly(n), tensor((n, batch), np.float32, 1), tensor((n, batch), np.float32, 2)
    W = P.to_dense()

    def step(P: Product) -> Any:
        return P @ X, P.vjp(X, G)

    calls: Calls = {
        "forward": lambda: P @ X,
        "both": lambda: step(P),
        "new values": lambda: step(Product([KroneckerSparse(factor.values) for factor in P.factors])),
        "dense": lambda: (W @ X, G @ X.T, W.T @ G),
        **reads(arrays_read(P, X)),
    }
    with one_core():
        return {"n": n, "batch": batch, "times": with_reads(calls, quick, progress, 30)}


def transforms(quick: bool, progress: Progress) -> dict[str, Any]:
    """Batched Walsh-Hadamard transforms on one core beside the peers'."""
    n, batch = (64, 9) if quick else TRANSFORM
    X = tensor((n, batch), np.float32)
    calls: Calls = {"fwht": lambda: fwht(X), **reads(np.concatenate([X, X]))}
    if (module := peer("lazylinop.butterfly")) is not None:
        for backend in ("xp", "scipy"):
            L = module.fwht(n, dtype="float32", ksm_args={"backend": backend, "params": None})
            calls[f"lazylinop {backend}"] = lambda L=L: L @ X
    if (module := peer("pyfaust")) is not None:
        F, columns = module.wht(n, normed=False, dtype="float32"), np.asfortranarray(X)
        calls["pyfaust"] = lambda: F @ columns
    with one_core():
        return {"n": n, "batch": batch, "times": with_reads(calls, quick, progress, 60)}


def target(name: str, n: int) -> np.ndarray:
    if name == "DFT":
        k = np.arange(n)
        return np.exp(-2j * np.pi / n * (np.outer(k, bit_reversed(n)) % n))
    H = hadamard(n).astype(np.float64)
    if "noise" in name:
        noise = tensor((n, n), np.float64)
        H += 0.1 * np.linalg.norm(H) / np.linalg.norm(noise) * noise
    return H


def silenced(call: Callable[[], Any]) -> Callable[[], Any]:
    def quiet() -> Any:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return call()

    return quiet


def factorizations(quick: bool, progress: Progress) -> dict[str, Any]:
    """Time and relative error of factorizations on one core beside the peers'."""
    parts = []
    with one_core():
        for name, n in FACTORIZED.items():
            n = smaller(n, quick)
            A, chain = target(name, n), Chain.dyadic(n)
            calls: Calls = {"randla": lambda A=A, chain=chain: factorize(A, chain)}
            if (module := peer("lazylinop.butterfly")) is not None:
                theirs = module.Chain.square_dyadic((n, n))
                calls["lazylinop"] = silenced(lambda module=module, A=A, theirs=theirs: module.ksd(A, theirs))
            if (module := peer("pyfaust.fact")) is not None:
                calls["pyfaust"] = silenced(lambda module=module, A=A: module.butterfly(A, type="bbtree"))
            rounds = {"rounds": 1, "least": 1, "min_time": 0} if quick else {"rounds": 7, "budget": 60.0, "pause": 0.03}
            progress(f"{name}: factorizing")
            times, results = measure.interleave(calls, progress=progress, **rounds)
            size = np.linalg.norm(A)
            errors = {"randla": float(np.linalg.norm(results.pop("randla").product.to_dense() - A) / size)}
            for peer_name, result in results.items():
                dense = result.toarray() if hasattr(result, "toarray") else result @ np.eye(n)
                errors[peer_name] = float(np.linalg.norm(dense - A) / size)
            parts.append({"name": name, "n": n, "bytes": A.nbytes, "times": times, "errors": errors})
    return {"parts": parts}


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    "butterfly-products": products,
    "butterfly-vectors": vectors,
    "butterfly-threads": threads,
    "butterfly-gradients": gradients,
    "butterfly-fwht": transforms,
    "butterfly-factorize": factorizations,
    "butterfly-sizes": sizes,
    "butterfly-weights": weights,
}
