"""Passes over the rows of A and least squares on a device, beside two products, QR, Cholesky, and what others offer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_device import DTYPES, Bench, name_of, over, torch_version

import randla
from randla._backend import kernels, to_host

BLOCK = 1 << 26  # entries of A that are made or read at a time in more than its own precision


def pass_of(bench: Bench, m: int, n: int, dtype: Any) -> None:
    """A'(D(A v)) for one vector and for eight, beside the two products of CuPy."""
    m, n = bench.size(m, 400), bench.size(n, n // 64)
    A, D = bench.copies(lambda: bench.normal((m, n), dtype)), abs(bench.normal((m,), np.float64))
    weights = D.astype(dtype)
    for k in (1, 8):
        V, G = bench.normal((k, n), np.float64), bench.xp.empty((k, n))
        ours, two = one_pass(A, V, D, G), two_products(A, V.astype(dtype), weights)
        problem = name_of("A'(D(A v))", m, n, dtype, f", {k} vector{'s' * (k > 1)}")
        # Of sums whose terms cancel.
        bench.difference(problem, ours(0).copy(), two(0), 1e4 * float(np.finfo(dtype).eps))
        times = bench.record(problem, bench.times({"one pass": ours, "two products": two}))
        nbytes = m * n * np.dtype(dtype).itemsize + 8 * m
        bench.of_bandwidth(problem, times["one pass"], nbytes, 0.85 if k == 1 else 0.75)
        if k == 1:
            bench.faster(problem, times["one pass"], "CuPy", times["two products"], 1.7)


def one_pass(A: Callable[[int], Any], V: Any, D: Any, G: Any) -> Callable[[int], Any]:
    def call(i: int) -> Any:
        kernels(A(i)).weighted_product(A(i), None, V, None, D, None, G)
        return G

    return call


def two_products(A: Callable[[int], Any], V: Any, D: Any) -> Callable[[int], Any]:
    return lambda i: ((V @ A(i).T) * D) @ A(i)


def passes(bench: Bench) -> None:
    over(bench, pass_of, [(1 << 21, 256), (1 << 20, 512), (1 << 19, 1024), (1 << 19, 2048)])


def scores_of(bench: Bench, m: int, n: int, dtype: Any) -> None:
    """Leverage scores from a sketch; two passes over A are the least."""
    m, n = bench.size(m, 500), bench.size(n, 8)
    A = bench.copies(lambda: bench.normal((m, n), dtype))
    problem = name_of("leverage_scores", m, n, dtype)
    times = bench.record(problem, bench.times({"sketch": lambda i: randla.leverage_scores(A(i), method="sketch", rng=0)}))
    bench.of_bandwidth(problem, times["sketch"], 2 * A(0).nbytes, 0.6)


def scores(bench: Bench) -> None:
    over(bench, scores_of, [(1 << 20, 256), (1 << 19, 1024)])


@dataclass
class Problem:
    """A = G diag(s) V' with Gaussian G, so that its singular values and right vectors are known as well as it is itself."""

    A: Any
    b: Any
    singular: np.ndarray
    right: Any  # a vector in each row

    def backward_error(self, xp: Any, x: Any) -> float:
        """The estimate of Karlson and Walden relative to ||A||_F, residuals in float64; at most that of the zero vector."""
        x = xp.asarray(x).ravel().astype(np.float64)
        m, n = self.A.shape
        gradient, squares, step = xp.zeros(n), 0.0, max(1, BLOCK // n)
        for at in range(0, m, step):
            rows = self.A[at : at + step].astype(np.float64)
            r = self.b[at : at + step].astype(np.float64) - rows @ x
            gradient += rows.T @ r
            squares += float(to_host((r * r).sum()))
        size = float(to_host(xp.sqrt((x * x).sum())))
        if not math.isfinite(size) or size == 0:
            return 1.0
        z = to_host(self.right @ gradient)
        damped = np.linalg.norm(z / np.sqrt(self.singular**2 + squares / size**2))
        return min(1.0, float(damped / size / np.linalg.norm(self.singular)))


def problem_of(bench: Bench, m: int, n: int, dtype: Any, cond: float) -> Problem:
    xp = bench.xp
    V = xp.linalg.qr(bench.normal((n, n), np.float64))[0]
    scale = xp.asarray(np.logspace(0, -math.log10(cond), n) / math.sqrt(m))
    A, b, gram = xp.empty((m, n), dtype), xp.empty(m, dtype), xp.zeros((n, n))
    x, step = V @ xp.ones(n) / math.sqrt(n), max(1, BLOCK // n)
    for at in range(0, m, step):
        G = bench.normal((min(m - at, step), n), np.float64)
        gram += G.T @ G
        A[at : at + step] = (G * scale) @ V.T
        noise = 1e-3 / math.sqrt(m) * bench.normal((len(G),), np.float64)
        b[at : at + step] = A[at : at + step].astype(np.float64) @ x + noise
    # G is well conditioned: a triangle of it by Cholesky is as good as by QR, and times a diagonal it keeps that.
    R = np.linalg.cholesky(to_host(gram)).T * to_host(scale)
    _, singular, right = np.linalg.svd(R)
    return Problem(A, b, singular, xp.asarray(right) @ V.T)


def half_of_gram(bench: Bench, A: Any) -> Any:
    """A'A by cuBLAS's SYRK, half of the operations of a product; `out` in the order of A spares a copy of it."""
    from cupy import cublas

    n = A.shape[1]
    upper = cublas.syrk("T", A, out=bench.xp.empty((n, n), A.dtype))
    return bench.xp.triu(upper) + bench.xp.triu(upper, 1).T


def normal_equations(bench: Bench, A: Any, b: Any, half: bool = False) -> Any:
    from cupyx.scipy.linalg import solve_triangular

    L = bench.xp.linalg.cholesky(half_of_gram(bench, A) if half else A.T @ A)
    return solve_triangular(L, solve_triangular(L, A.T @ b, lower=True), trans=1, lower=True)


def cholesky_qr2(bench: Bench, A: Any, b: Any) -> Any:
    from cupyx.scipy.linalg import solve_triangular

    L = bench.xp.linalg.cholesky(A.T @ A)
    Q = A @ solve_triangular(L, bench.xp.eye(A.shape[1], dtype=A.dtype), lower=True).T
    M = bench.xp.linalg.cholesky(Q.T @ Q)
    y = solve_triangular(M, solve_triangular(M, Q.T @ b, lower=True), trans=1, lower=True)
    return solve_triangular(L, y, trans=1, lower=True)


def by_qr(bench: Bench, A: Any, b: Any) -> Any:
    from cupyx.scipy.linalg import solve_triangular

    Q, R = bench.xp.linalg.qr(A)
    return solve_triangular(R, Q.T @ b)


def by_torch(A: Any, b: Any) -> Any:
    import torch

    return torch.linalg.lstsq(torch.from_dlpack(A), torch.from_dlpack(b)[:, None], driver="gels").solution


QR = ("QR", "gels", "torch")  # those that factor A by reflections
NORMAL = ("normal equations", "normal equations by SYRK")


def solvers(bench: Bench) -> dict[str, Callable[[Any, Any], Any]]:
    found: dict[str, Callable[[Any, Any], Any]] = {
        "randla": lambda A, b: randla.lstsq(A, b, rng=0).x,
        "normal equations": functools.partial(normal_equations, bench),
        "normal equations by SYRK": functools.partial(normal_equations, bench, half=True),
        "CholeskyQR2": functools.partial(cholesky_qr2, bench),
        "QR": functools.partial(by_qr, bench),
    }
    try:
        from cupyx.cusolver import gels
    except ImportError:
        pass
    else:
        found["gels"] = gels
    if torch_version() is not None:
        found["torch"] = by_torch
    return found


def solved(bench: Bench, name: str, problem: Problem) -> tuple[dict[str, float], dict[str, Callable[[int], Any]]]:
    """Backward errors of all solvers, 1 of those that give no solution, and calls of the others."""
    errors, calls = {}, {}
    for solver, solve in solvers(bench).items():
        call = functools.partial(solve, problem.A, problem.b)
        told = {}
        try:
            errors[solver] = problem.backward_error(bench.xp, call())
            calls[solver] = lambda i, call=call: call()
        except Exception as error:  # a rival may fail in any way: singular, out of memory, not supported
            if solver == "randla":
                raise
            errors[solver], told = 1.0, {"failed": f"{type(error).__name__}: {error}"[:200]}
        bench.records.append({"problem": name, "case": solver, "backward error": errors[solver], **told})
        bench.free()
    return errors, calls


def solve_of(bench: Bench, m: int, n: int, dtype: Any, cond: float) -> None:
    """randla.lstsq beside what factors A by reflections, and beside the normal equations, which fail beyond 1e7."""
    name = name_of("lstsq", m, n, dtype, f", cond {cond:.0e}")
    errors, calls = solved(bench, name, problem_of(bench, m, n, dtype, cond))
    times = bench.record(name, bench.times(calls))
    single = dtype == np.float32
    rivals = [solver for solver in QR if solver in times]
    if rivals:
        best, fastest = min(errors[solver] for solver in rivals), min(rivals, key=lambda solver: times[solver])
        bench.accuracy(f"{name}, backward error", errors["randla"], "QR", best, 10)
        bench.faster(name, times["randla"], fastest, times[fastest], 8 if single else 5)
        if cond > 1e7:
            wrong = min(errors[solver] for solver in NORMAL)
            bench.accuracy(f"{name}, failure of the normal equations", wrong, "QR", best, 1e3, at_least=True)
    rivals = [solver for solver in NORMAL if solver in times]
    if rivals:
        even, fastest = n >= (1024 if single else 2048), min(rivals, key=lambda solver: times[solver])
        bench.within(name, times["randla"], fastest, times[fastest], 1.0 if even else 2.5)


def solve(bench: Bench, n: int, dtype: Any) -> None:
    # More than 1e4 float32 can hardly tell apart.
    for cond in (1.0, 1e10 if dtype == np.float64 else 1e4):
        solve_of(bench, bench.size(1_000_000, 600), bench.size(n, n // 64), dtype, cond)
        bench.free()


GROUPS: dict[str, Callable[[Bench], None]] = {
    "passes": passes,
    "leverage": scores,
    **{
        f"lstsq {n} {np.dtype(dtype).name}": functools.partial(solve, n=n, dtype=dtype)
        for n in (512, 1024, 2048)
        for dtype in DTYPES
    },
}
