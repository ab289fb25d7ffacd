"""Losses, gradients and Hessian products of linear models, and low-rank decompositions, on a device beside plain CuPy code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_device import Bench, name_of, over

import randla
from randla._backend import to_host
from randla.optimize import GLM

CLASSES = 4  # of the softmax loss


def plain_logistic(bench: Bench, X: Any, y: Any, x: Any) -> tuple[Any, Any, Any]:
    """The sum of the losses, its gradient, and the weights of the Hessian: a GEMV for the margins and one for the gradient."""
    xp = bench.xp
    t = y * (X @ x)
    s = 1 / (1 + xp.exp(t))
    return xp.logaddexp(0, -t).sum(), X.T @ (-y * s), s * (1 - s)


def plain_softmax(bench: Bench, X: Any, labels: Any, x: Any) -> tuple[Any, Any, Any]:
    """The same for several classes, whose margins and gradients are two products; labels hold a one in each row."""
    xp = bench.xp
    z = X @ x.T
    z = z - z.max(axis=1)[:, None]
    p = xp.exp(z)
    total = p.sum(axis=1)
    p = p / total[:, None]
    return (xp.log(total) - (z * labels).sum(axis=1)).sum(), (p - labels).T @ X, p


def plain_softmax_product(X: Any, p: Any, V: Any) -> Any:
    u = X @ V.T
    mean = (p * u).sum(axis=1)
    return (p * (u - mean[:, None])).T @ X


def glm_of(bench: Bench, m: int, n: int, dtype: Any, loss: str) -> None:
    """Value, gradient and weights at a point, and a product of the Hessian there."""
    xp, m, n = bench.xp, bench.size(m, 500), bench.size(n, n // 64)
    classes = CLASSES if loss == "softmax" else 1
    Xs = bench.copies(lambda: bench.normal((m, n), dtype))
    y = (bench.normal((m,), np.float64) > 0) * 2.0 - 1.0
    labels = xp.arange(m) % classes if classes > 1 else y
    # Rivals work in the precision of X, and have their vectors on the device already.
    point, V = (bench.normal((classes, n), np.float64) / math.sqrt(n) for _ in range(2))
    near, direction, truths = point.astype(dtype), V.astype(dtype), y.astype(dtype)
    ones = (labels[:, None] == xp.arange(classes)).astype(dtype)
    x, v = to_host(point).ravel(), to_host(V).ravel()
    # Two copies are larger than any cache.
    problems = [GLM(Xs(i), labels, loss) for i in range(2)]

    def theirs(i: int) -> tuple[Any, Any, Any]:
        if classes > 1:
            return plain_softmax(bench, Xs(i % 2), ones, near)
        return plain_logistic(bench, Xs(i % 2), truths, near[0])

    def ours(i: int) -> Any:
        at = problems[i % 2].at(x)
        return at.grad, at.fun

    kept = problems[0].at(x)
    weights, hessians = theirs(0)[2], [problem.at(x).hessian() for problem in problems]

    def their_product(i: int) -> Any:
        if classes > 1:
            return plain_softmax_product(Xs(i % 2), weights, direction)
        return Xs(i % 2).T @ (weights * (Xs(i % 2) @ direction[0]))

    name = name_of(f"GLM {loss}", m, n, dtype)
    value, gradient, _ = theirs(0)
    # Of sums whose terms cancel.
    bound = 1e4 * float(np.finfo(dtype).eps)
    bench.difference(f"{name}, value", xp.asarray([kept.fun * m]), value.reshape(1), bound)
    bench.difference(f"{name}, gradient", xp.asarray(kept.grad * m), gradient.ravel(), bound)
    bench.difference(f"{name}, Hessian product", xp.asarray(hessians[0] @ v) * m, their_product(0).ravel(), bound)
    nbytes = m * n * np.dtype(dtype).itemsize + 8 * m * (3 * classes + 1)
    calls: dict[str, Callable[[int], Any]] = {"randla": ours, "CuPy": theirs}
    times = bench.record(f"{name}, value and gradient", bench.times(calls))
    compare(bench, f"{name}, value and gradient", times, nbytes)
    calls = {"randla": lambda i: hessians[i % 2] @ v, "CuPy": their_product}
    times = bench.record(f"{name}, Hessian product", bench.times(calls))
    compare(bench, f"{name}, Hessian product", times, m * n * np.dtype(dtype).itemsize + 8 * m * classes)


def compare(bench: Bench, name: str, times: dict[str, float], nbytes: int) -> None:
    """Calls of the public functions, whose vectors of parameters come from the host and go there."""
    bench.of_bandwidth(name, times["randla"], nbytes, 0.85)
    bench.faster(name, times["randla"], "CuPy", times["CuPy"], 1.7)


def learning(bench: Bench) -> None:
    for loss in ("logistic", "softmax"):

        def one(bench: Bench, m: int, n: int, dtype: Any, loss: str = loss) -> None:
            glm_of(bench, m, n, dtype, loss)

        over(bench, one, [(1 << 21, 256), (1 << 19, 1024)])


def randomized(bench: Bench, A: Any, k: int, steps: int) -> tuple[Any, Any, Any]:
    """A randomized SVD as it is written by hand: Gaussian start, `steps` subspace iterations by QR, all of it products."""
    xp = bench.xp
    Q = xp.linalg.qr(A @ bench.normal((A.shape[1], k + 10), A.dtype))[0]
    for _ in range(steps):
        Q = xp.linalg.qr(A.T @ Q)[0]
        Q = xp.linalg.qr(A @ Q)[0]
    U, s, Vh = xp.linalg.svd(Q.T @ A, full_matrices=False)
    return Q @ U[:, :k], s[:k], Vh[:k]


def error_of(bench: Bench, A: Any, found: tuple[Any, Any, Any]) -> float:
    """||A - U diag(s) Vh||_F, A itself being the measure."""
    U, s, Vh = found
    total, step = 0.0, max(1, (1 << 26) // A.shape[1])
    for i in range(0, len(A), step):
        rest = A[i : i + step].astype(np.float64) - (U[i : i + step] * s).astype(np.float64) @ Vh.astype(np.float64)
        total += float(to_host((rest * rest).sum()))
    return math.sqrt(total)


def svd_of(bench: Bench, m: int, n: int, dtype: Any) -> None:
    """A matrix whose singular values fall like 1/i; randla, the same by hand with 2 and 4 iterations, and all of cuSOLVER's."""
    k, m, n = bench.size(50, 4), bench.size(m, 400), bench.size(n, n // 32)
    xp = bench.xp
    left, right = (xp.linalg.qr(bench.normal((size, n), np.float64))[0] for size in (m, n))
    A = xp.ascontiguousarray(((left / xp.arange(1, n + 1)) @ right.T).astype(dtype))
    del left, right
    name = name_of(f"svd, k = {k}", m, n, dtype)

    def ours(i: int) -> tuple[Any, Any, Any]:
        found = randla.svd(A, k, rng=i)
        return found.U, found.s, found.Vh

    def whole(i: int) -> tuple[Any, Any, Any]:
        U, s, Vh = xp.linalg.svd(A, full_matrices=False)
        return U[:, :k], s[:k], Vh[:k]

    calls: dict[str, Callable[[int], Any]] = {"randla": ours}
    for steps in (2, 4):
        calls[f"{steps} iterations"] = lambda i, steps=steps: randomized(bench, A, k, steps)
    if n <= 1024:
        calls["cupy.linalg.svd"] = whole
    errors = {case: error_of(bench, A, call(0)) for case, call in calls.items()}
    for case, found in errors.items():
        bench.records.append({"problem": name, "case": case, "error": found})
    best = math.sqrt(sum(1 / i**2 for i in range(k + 1, n + 1)))
    bench.free()
    times = bench.record(name, bench.times(calls))
    bench.accuracy(f"{name}, error", errors["randla"], "least possible", best, 1.01)
    # Those by hand that came as near.
    rivals = [case for case in times if case != "randla" and errors[case] <= 1.0001 * errors["randla"]]
    if rivals:
        fastest = min(rivals, key=lambda case: times[case])
        bench.faster(name, times["randla"], fastest, times[fastest], 1.0)


def decompositions(bench: Bench) -> None:
    over(bench, svd_of, [(1 << 18, 1024), (1 << 17, 4096)])


GROUPS: dict[str, Callable[[Bench], None]] = {"glm": learning, "svd": decompositions}
