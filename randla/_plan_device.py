"""Which method on a device, and how many rows of sketch: the model of `plan` with constants of an H200, none of them measured.

They are what the device can do at best (4.3 TB/s copied, 55 TF of float64 in products) times what is usual. For m = 1e6, in
ms, with the Gram matrix of the normal equations, of which half is computed, at that rate:

    columns, type   cholqr  spir  direct  normal equations
      128 float64        8     8      22       0.3
      256 float64       15    13      50       1.2
      512 float64       37    23     125       4.8
     1024 float64       90    42     353      19.1
     2048 float64      293    90    1125      76.3
      128 float32        7     5      12       0.3
      256 float32       14     7      27       1.3
      512 float32       34    10      66       5.2
     1024 float32       84    19     182      21.0
     2048 float32      281    40     573      83.9

Cholesky QR by products that know nothing of triangles, nor of symmetry below 1024 columns, is ahead up to some 128 columns;
iterations are beyond. The normal equations, where they hold, below a condition number of 1e7, are ahead of both in float64
up to 2048 columns and in float32 up to 512. "direct" is for A that is small or nearly square.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ._backend import SYRK_COLUMNS
from ._tall import TallMatrix

READ = 0.85 * 4.3e12  # bytes per second of a pass
GEMM = 55e12  # float64 flops per second
QR, QR_HALF = 10e12, 600  # flops per second of geqrf, twice as many in float32; columns at which half of it is reached
DIRECT_CALL, QR_COLUMN = 1e-3, 1e-5  # seconds of its waits, and per column that depends on the one before
CALL, STEP = 3e-3, 5e-5  # seconds of waits and launches in a solve, of launches in an iteration
PANEL = 1e-6  # seconds per column that factorizations of n x n matrices wait
SKETCH_PASSES = 1.3
VECTORS = 8  # that a pass takes at once
NATS = {8: 29.0, 4: 11.0}  # as in `plan`


def seconds(m: int, n: int, k: int, dtype: np.dtype, *, wide: bool = False) -> dict[str, float]:
    """Of the methods that are backward stable, for A of this type; `wide` for the transpose of this shape."""
    is_complex, k = dtype.kind == "c", max(1, k)
    real = dtype.itemsize // 2 if is_complex else dtype.itemsize
    one_pass = m * n * dtype.itemsize / READ
    rate = QR * n / (n + QR_HALF) * 8 / real
    direct = DIRECT_CALL + (8 if is_complex else 2) * m * n * (n + 2 * k) / rate + 4 * one_pass + QR_COLUMN * n
    # Iterative methods solve a real problem of twice the size, and read A once for both halves.
    parts = 2 if is_complex else 1
    m, n, k = parts * m, parts * n, parts * k
    d = best_rows(m, n, one_pass, k, real)
    spir = _spir(n, d, one_pass, k, real)
    cholqr = CALL + _factor(n, 6 * n + 64) + (2 + _gram(n)) * m * n * n / GEMM + 2 * PANEL * n
    cholqr += (SKETCH_PASSES + 4 * _reads(k)) * one_pass + 6 * m * n * 8 / READ  # images are written, and read twice
    if wide:
        direct *= 2  # Q is made, too
        spir *= 1.2  # residuals of a cycle take two passes
    return {"spir": spir, "cholqr": cholqr, "direct": direct}


def _reads(k: int) -> int:
    return -(-k // VECTORS)


def _gram(n: int) -> int:
    """Operations of a Gram matrix of n columns, over rows n^2: half of a product's where that is what `gram_matrix` takes."""
    return 1 if n >= SYRK_COLUMNS else 2


def _factor(n: int, d: float) -> float:
    """Sketch in hand: Gram matrix, Cholesky, inverse and checks."""
    return _gram(n) * d * n * n / GEMM + 5 * d * n * 8 / READ + 6 * n**3 / GEMM + 2 * PANEL * n


def _spir(n: int, d: float, one_pass: float, k: int, real: int) -> float:
    steps = NATS[real] / (0.5 * math.log(d / n) - 0.14)
    # With a copy in float32 an iteration reads half, and the copy is a pass and a half; see `_device_inner`.
    passes = 1.5 + steps / 2 + 5 if real == 8 else steps + 3
    return CALL + _factor(n, d) + SKETCH_PASSES * one_pass + passes * _reads(k) * one_pass + steps * STEP


def best_rows(m: int, n: int, one_pass: float, k: int, real: int) -> int:
    """Rows of sketch that minimise the total."""
    return cheapest(lambda d: _spir(n, d, one_pass, k, real), 4.0 * n, min(m / 8, 64 * n))


def cheapest(cost: Callable[[float], float], first: float, last: float) -> int:
    """Rows, of `first` and what is 1.15 times as many each, up to `last`, that cost least."""
    sizes = [first]
    while (larger := 1.15 * sizes[-1]) <= last:
        sizes.append(larger)
    return math.ceil(min(sizes, key=cost))


def sketch_size(matrix: TallMatrix, method: str, k: int, eps: float) -> int:
    m, n = matrix.shape
    if n == 0:
        return 1
    if method == "cholqr":
        d = 6 * n + 64
    elif method in ("sketch", "linf"):
        d = 12 * n
    else:
        real = 8 if eps < 1e-10 else 4
        d = best_rows(m, n, matrix.bytes_per_pass / READ, matrix.copies * k, real)
    return max(n + 8, min(d, max(m, n + 8)))
