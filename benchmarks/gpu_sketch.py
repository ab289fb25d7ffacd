"""Sketches and transforms on a device beside the bandwidth of its memory, cuSPARSE, and products with stored Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_device import Bench, name_of, over, torch_version

import randla
from randla import _cpu
from randla.structured import Chain, KroneckerSparse, Product, fwht

STACK = 0  # its number in the kernels


def stored(bench: Bench, S: Any, nnz: int, dtype: Any) -> Any:
    """A sparse sketch as a CSR matrix of the device."""
    import cupyx.scipy.sparse
    import scipy.sparse

    d, m = S.shape
    rows, values = _cpu.sparse_columns(STACK, d, m, nnz, S.seed, 0, m)
    columns = np.repeat(np.arange(m), nnz)
    host = scipy.sparse.csr_array((values.ravel(), (rows.ravel(), columns)), shape=(d, m)).astype(dtype)
    parts = (bench.xp.asarray(host.data), bench.xp.asarray(host.indices), bench.xp.asarray(host.indptr))
    return cupyx.scipy.sparse.csr_matrix(parts, shape=(d, m))


def least_bytes(m: int, n: int, d: int, dtype: Any) -> int:
    """Each input read once, each output written once."""
    return (m * n + d * n) * np.dtype(dtype).itemsize


def sparse_of(bench: Bench, m: int, n: int, dtype: Any) -> None:
    """CountSketch and SparseStack(8) with their tables made, and CountSketch with a new table in each call."""
    m, n = bench.size(m, 500), bench.size(n, n // 16)
    A, d = bench.copies(lambda: bench.normal((m, n), dtype)), 4 * n
    count, stack = randla.CountSketch().sample(d, m, rng=0), randla.SparseStack(nnz=8).sample(d, m, rng=0)
    one, eight = stored(bench, count, 1, dtype), stored(bench, stack, 8, dtype)
    bound = 100 * float(np.finfo(dtype).eps)
    counting, stacking = name_of("CountSketch", m, n, dtype), name_of("SparseStack(8)", m, n, dtype)
    bench.difference(counting, count @ A(0), one @ A(0), bound)
    bench.difference(stacking, stack @ A(0), eight @ A(0), bound)
    calls = {
        "CountSketch": lambda i: count @ A(i),
        "CountSketch, new": lambda i: randla.CountSketch().sample(d, m, rng=i) @ A(i),
        "SparseStack(8)": lambda i: stack @ A(i),
        "cuSPARSE, 1": lambda i: one @ A(i),
        "cuSPARSE, 8": lambda i: eight @ A(i),
    }
    times = bench.record(name_of("sparse sketches", m, n, dtype), bench.times(calls))
    bench.of_bandwidth(counting, times["CountSketch"], least_bytes(m, n, d, dtype), 0.85 if n >= 256 else 0.7)
    bench.faster(counting, times["CountSketch"], "cuSPARSE", times["cuSPARSE, 1"], 2)
    bench.within(stacking, times["SparseStack(8)"], "CountSketch", times["CountSketch"], 2.5)
    bench.faster(stacking, times["SparseStack(8)"], "cuSPARSE", times["cuSPARSE, 8"], 3)


def sparse(bench: Bench) -> None:
    over(bench, sparse_of, [(1 << 22, 64), (1 << 20, 256), (1 << 19, 1024)])


def srht_of(bench: Bench, m: int, n: int, dtype: Any) -> None:
    """Of rows that are contiguous, which the goal is about, and of columns that are."""
    m, n = bench.size(m, 600), bench.size(n, 8)
    S = randla.BlockSRHT().sample(12 * n, m, rng=0)
    rows = bench.copies(lambda: bench.normal((m, n), dtype))
    columns = bench.copies(lambda: bench.normal((m, n), dtype, "F"))
    problem = name_of("BlockSRHT", m, n, dtype)
    times = bench.record(problem, bench.times({"by rows": lambda i: S @ rows(i), "by columns": lambda i: S @ columns(i)}))
    bench.of_bandwidth(problem, times["by rows"], least_bytes(m, n, 12 * n, dtype), 0.8 if dtype == np.float64 else 0.7)


def srht(bench: Bench) -> None:
    over(bench, srht_of, [(1 << 21, 128), (1 << 19, 1024)])


def dense_of(bench: Bench, m: int, n: int, dtype: Any) -> None:
    """Sketches whose entries are made as they are needed, beside the product with a Gaussian that is in memory."""
    m, n = bench.size(m, 300), bench.size(n, 8)
    A, d = bench.copies(lambda: bench.normal((m, n), dtype)), 4 * n
    S, signs, G = randla.Gaussian().sample(d, m, rng=0), randla.Rademacher().sample(d, m, rng=0), bench.normal((d, m), dtype)
    calls = {"Gaussian": lambda i: S @ A(i), "Rademacher": lambda i: signs @ A(i), "GEMM": lambda i: G @ A(i)}
    times = bench.record(name_of("dense sketches", m, n, dtype), bench.times(calls))
    for family in ("Gaussian", "Rademacher"):
        bench.within(name_of(family, m, n, dtype), times[family], "GEMM", times["GEMM"], 1.15)


def dense(bench: Bench) -> None:
    over(bench, dense_of, [(200_000, 512)])


def copied(bench: Bench, source: Any, target: Any) -> Any:
    bench.xp.copyto(target, source)
    return target


def transform_of(bench: Bench, total: int, n: int, dtype: Any) -> None:
    """Walsh-Hadamard transforms along contiguous rows, beside a copy of the same numbers."""
    batch, n = bench.size(total // n, 3), bench.size(n, 32)
    X, out = bench.copies(lambda: bench.normal((batch, n), dtype)), bench.xp.empty((batch, n), dtype)
    calls = {"fwht": lambda i: fwht(X(i), axis=1, out=out), "copy": lambda i: copied(bench, X(i), out)}
    problem = name_of("fwht", batch, n, dtype)
    times = bench.record(problem, bench.times(calls))
    bench.within(problem, times["fwht"], "copy", times["copy"], 1.10 if n <= 1 << 13 else 1.25 if n <= 1 << 15 else 1.6)


def transforms(bench: Bench) -> None:
    over(bench, transform_of, [(1 << 28, 1 << k) for k in (8, 10, 12, 13, 14, 15, 20)])


def butterfly_of(bench: Bench, total: int, n: int, dtype: Any) -> None:
    """All factors at once, vectors beside each other, and a copy of the same numbers."""
    batch, n = bench.size(total // n, 9), bench.size(n, 16)
    rng = np.random.default_rng(0)
    P = Product([KroneckerSparse(rng.standard_normal(tuple(p)).astype(dtype)) for p in Chain.dyadic(n)])
    X, out = bench.copies(lambda: bench.normal((n, batch), dtype)), bench.xp.empty((n, batch), dtype)
    calls = {"butterfly": lambda i: P.apply(X(i), out=out), "copy": lambda i: copied(bench, X(i), out)}
    problem = name_of("butterfly", n, batch, dtype)
    times = bench.record(problem, bench.times(calls))
    bench.within(problem, times["butterfly"], "copy", times["copy"], 1.3)


def butterflies(bench: Bench) -> None:
    over(bench, butterfly_of, [(1 << 28, n) for n in (256, 1024, 2048, 4096)])


# a, b, c, d of one factor: blocks of the sizes that layers of transformers have, few and many of them.
PATTERNS = [(a, b, c, d) for a in (1, 4, 16) for b, c in ((48, 48), (48, 192), (192, 48), (128, 128)) for d in (1, 4, 16)]


def factor_of(bench: Bench, pattern: tuple[int, int, int, int]) -> tuple[float, float]:
    """Times of one factor on a batch, ours and that of batched products of its blocks with the permutations around them."""
    a, b, c, d = pattern
    batch = bench.size(25_088, 6)
    values = np.random.default_rng(0).standard_normal(pattern).astype(np.float32)
    K, blocks = KroneckerSparse(values), bench.xp.asarray(values.transpose(0, 3, 1, 2).reshape(a * d, b, c).copy())
    rival, multiply = batched_product(bench.xp, pattern)
    X = bench.copies(lambda: bench.normal((a * c * d, batch), np.float32))
    out = bench.xp.empty((a * b * d, batch), np.float32)
    problem = f"Kronecker-sparse {pattern}, batch {batch:,} float32"
    bench.difference(problem, K.apply(X(0)), bench.xp.asarray(multiply(blocks, X(0))), 1e-5)
    calls = {"KroneckerSparse": lambda i: K.apply(X(i), out=out), rival: lambda i: multiply(blocks, X(i))}
    times = bench.record(problem, bench.times(calls))
    return times["KroneckerSparse"], times[rival]


def kronecker(bench: Bench) -> None:
    times = []
    for pattern in [(2, 3, 4, 2), (1, 2, 2, 3)] if bench.quick else PATTERNS:
        times.append(factor_of(bench, pattern))
        bench.free()
    times.sort(key=lambda pair: pair[1] / pair[0])
    rival = batched_product(bench.xp, (1, 1, 1, 1))[0]
    for which, place, goal in (("median", len(times) // 2, 1.4), ("worst", 0, 0.9)):
        ours, theirs = times[place]
        bench.faster(f"Kronecker-sparse, {len(times)} patterns, {which}", ours, rival, theirs, goal)


def batched_product(xp: Any, pattern: tuple[int, int, int, int]) -> tuple[str, Callable[[Any, Any], Any]]:
    """Of torch where it is there, else of CuPy."""
    a, b, c, d = pattern
    if torch_version() is None:

        def multiply(blocks: Any, X: Any) -> Any:
            turned = X.reshape(a, c, d, -1).transpose(0, 2, 1, 3).reshape(a * d, c, -1)
            return xp.matmul(blocks, turned).reshape(a, d, b, -1).transpose(0, 2, 1, 3).reshape(a * b * d, -1)

        return "cupy.matmul", multiply
    import torch

    def multiply_by_torch(blocks: Any, X: Any) -> Any:
        turned = torch.from_dlpack(X).reshape(a, c, d, -1).permute(0, 2, 1, 3).reshape(a * d, c, -1)
        return torch.bmm(torch.from_dlpack(blocks), turned).reshape(a, d, b, -1).permute(0, 2, 1, 3).reshape(a * b * d, -1)

    return "torch.bmm", multiply_by_torch


GROUPS = {"sparse": sparse, "srht": srht, "dense": dense, "fwht": transforms, "butterfly": butterflies, "kronecker": kronecker}
