"""Which method, and how many rows of sketch: a cost model in seconds with measured constants.

The constants are those of a two-core Zen 5 machine (benchmarks/report.py prints what it measured); only their ratios matter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _plan_device
from ._backend import is_sparse, on_device
from ._device import DeviceMatrix
from ._matrix import TallMatrix
from ._tall import Sparse

READ = 29e9  # bytes per second, all cores
GEMM = 100e9  # float64 flops per second
GRAM, GRAM_HALF = 200e9, 110  # of A R^-1 and its Gram matrix; columns at which half of it is reached
QR_SMALL, QR_LARGE, QR_HALF = 6e9, 60e9, 600
SYRK, SYRK_HALF = 170e9, 200  # useful flops of A'A of a sketch; columns at which half of it is reached
CALL, STEP = 2e-3, 2e-4  # seconds of Python and of small LAPACK calls: in an iterative solve, in an iteration
SOLVE = 8e9  # bytes per second of a triangular solve
SKETCH_PASSES, SKETCH_BYTE = 2.5, 1e-9  # reads of A that a sketch takes, and seconds for a byte of it
NATS = {"float64": 29.0, "float32": 11.0}  # from the sketched solution to the unit roundoff


def choose(a: Any, b: Any, method: str, *, allow_copy: bool, sketched: bool) -> str:
    """The method that runs for `method`."""
    if method != "auto":
        return method
    there = on_device(a)
    if not isinstance(a, np.ndarray) and (is_sparse(a) or not there):
        return "spir"
    m, n = a.shape
    if m == 0 or n == 0:
        return "direct"
    if sketched or not allow_copy:
        return "spir"
    wide = m < n
    if wide:
        m, n = n, m
    if m < 4 * n or (not there and m * n * n < 4e6):
        return "direct"
    k = b.size // len(b)
    costs = _plan_device.seconds(m, n, k, a.dtype, wide=wide) if there else _seconds(m, n, k, a.dtype, b.dtype)
    if wide:
        del costs["cholqr"]  # its constants are those of tall problems
    return min(costs, key=lambda name: costs[name])


def _seconds(m: int, n: int, k: int, a: np.dtype, b: np.dtype) -> dict[str, float]:
    """Of the methods that are backward stable, for A and b of these types."""
    if a.kind == "c":
        # LAPACK does four times the operations; the iterative methods solve a real problem of twice the size.
        return {"direct": 4 * direct_seconds(m, n, k, a.itemsize // 2), **iterative_seconds(m, n, k, a.itemsize // 2, 2)}
    if b.kind == "c":
        return {"direct": 4 * direct_seconds(m, n, k, a.itemsize), **iterative_seconds(m, n, 2 * k, a.itemsize)}
    return {"direct": direct_seconds(m, n, k, a.itemsize), **iterative_seconds(m, n, k, a.itemsize)}


def direct_seconds(m: int, n: int, k: int, itemsize: int) -> float:
    rate = qr_rate(n)
    return (2 * m * n * n + 4 * m * n * k) / (rate * 8 / itemsize) + 3 * m * n * itemsize / READ + 2e-5


def iterative_seconds(m: int, n: int, k: int, itemsize: int, parts: int = 1) -> dict[str, float]:
    """parts: real numbers in an entry of A."""
    one_pass = pass_seconds(parts * m * n * itemsize, parts * n, parts * k)
    m, n = parts * m, parts * n
    dtype = "float32" if itemsize == 4 else "float64"
    d = best_rows(m, n, one_pass, NATS[dtype])
    spir = _spir_seconds(n, d, one_pass, NATS[dtype])
    sketch = 6 * n * n * (n + SYRK_HALF) / SYRK + 8 * n**3 / GEMM
    gram = sketch + 2 * m * n * n * (n + GRAM_HALF) / n / GRAM + (SKETCH_PASSES + 6) * one_pass
    return {"spir": spir, "cholqr": CALL + gram}


def pass_seconds(size: float, n: int, k: int) -> float:
    """One fused pass with k right-hand sides and the two triangular solves that go with it."""
    return size / READ * max(1.0, 0.35 * k + 0.65) + 8 * n * n * k / SOLVE + STEP


def qr_rate(n: int) -> float:
    return QR_SMALL + (QR_LARGE - QR_SMALL) * n / (n + QR_HALF)


def _spir_seconds(n: int, d: float, one_pass: float, nats: float, *, by_qr: bool = False) -> float:
    iterations = nats / (0.5 * math.log(d / n)) + 3
    factorization = d * n * ((n + SYRK_HALF) / SYRK + 8 * SKETCH_BYTE) + (d * n * n / qr_rate(n) if by_qr else 0)
    return CALL + SKETCH_PASSES * one_pass + factorization + n**3 / GEMM + iterations * one_pass


def best_rows(m: int, n: int, one_pass: float, nats: float, *, by_qr: bool = False) -> int:
    """Rows of sketch that minimise the total: more rows cost a larger factorization and save iterations.

    by_qr: count half a QR factorization beside that of the Gram matrix: singular sketches need a whole one.
    """
    return _plan_device.cheapest(lambda d: _spir_seconds(n, d, one_pass, nats, by_qr=by_qr), 3.0 * n, min(m / 3, 4000 * n))


def sketch_size(matrix: TallMatrix, method: str, k: int, eps: float) -> int:
    if isinstance(matrix, DeviceMatrix):
        return _plan_device.sketch_size(matrix, method, k, eps)
    m, n = matrix.shape
    if n == 0:
        return 1
    if method == "cholqr":
        d = 6 * n + 64
    elif method == "linf":
        d = 12 * n  # a dense sketch costs 2 d m n operations
    else:
        nats = NATS["float64" if eps < 1e-10 else "float32"]
        if matrix.by_products:
            d = 12 * n
        else:
            one_pass = pass_seconds(matrix.bytes_per_pass, n, matrix.copies * k)
            # Columns of sparse data are dependent as often as not.
            d = best_rows(m, n, one_pass, nats, by_qr=isinstance(matrix, Sparse))
            if method == "sketch":
                # What the sketch alone is to solve is worth as much time again as making it.
                d = max(12 * n, round(SKETCH_PASSES * one_pass * SYRK / (n * (n + SYRK_HALF))))
        if matrix.holds_sketch:
            # At most 4 % of A and 512 MB, where that is a good number of rows.
            limit = min(m // (26 * matrix.copies), (1 << 26) // n)
            d = min(d, max(limit, (12 if method == "sketch" else 6) * n))
    return max(n + 8, min(d, max(m, n + 8)))
