"""Least squares: randla's methods and the peers that SciPy and NumPy users have, on one problem, interleaved."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

import randla
from randla.bench.accuracy import Reference
from randla.bench.measure import GEMM_SIZE, Progress, gemm, interleave, read_by_product, read_by_sum

__all__ = ["LAPACK", "METHODS", "Case", "Solver", "peers", "randla_solvers", "run"]

METHODS = ("auto", "spir", "fossils", "cholqr", "lsqr")
LAPACK = ("numpy.linalg.lstsq", "scipy gelsd", "scipy gelsy")


@dataclass(frozen=True)
class Solver:
    """A named way to solve min ||A x - b||: `solve` is timed, `read` takes x and facts from its result."""

    name: str
    solve: Callable[[Any, np.ndarray], Any]
    read: Callable[[Any], tuple[np.ndarray, dict[str, Any]]]
    ours: bool = False


@dataclass
class Case:
    """A problem to solve: its arrays, and what to call it."""

    name: str
    A: Any
    b: np.ndarray
    x: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def randla_solvers(methods: Iterable[str] = METHODS, seed: int = 0) -> list[Solver]:
    """randla.lstsq with each of the methods."""

    def read(result: Any) -> tuple[np.ndarray, dict[str, Any]]:
        names = ("passes", "rank", "iterations", "method", "message", "success")
        facts = {name: getattr(result, name) for name in names} | {"status": result.status.name}
        facts["certificate"] = float(np.max(result.backward_error))
        path = [(step.get("time"), step.get("backward_error")) for step in result.history]
        facts["history"] = [(float(t), float(np.max(e))) for t, e in path if t and e is not None]
        return result.x, facts

    def solver(method: str) -> Solver:
        name = "randla.lstsq" if method == "auto" else f"randla.lstsq {method}"
        return Solver(name, lambda A, b: randla.lstsq(A, b, method=method, rng=seed), read, ours=True)

    return [solver(method) for method in methods]


def peers(names: Sequence[str] | None = None, lsqr_iterations: int = 200) -> list[Solver]:
    """The solvers of NumPy and SciPy with default settings; lsqr runs to full accuracy or its limit of iterations."""

    def direct(result: Any) -> tuple[np.ndarray, dict[str, Any]]:
        x, _, rank, _ = result
        return x, {"rank": int(rank)}

    def driver(name: str) -> Solver:
        return Solver(f"scipy {name}", lambda A, b: scipy.linalg.lstsq(A, b, lapack_driver=name), direct)

    def lsqr(A: Any, b: np.ndarray) -> Any:
        eps = float(np.finfo(A.dtype).eps)
        return scipy.sparse.linalg.lsqr(A, b, atol=eps, btol=eps, conlim=0, iter_lim=lsqr_iterations)

    def iterative(result: Any) -> tuple[np.ndarray, dict[str, Any]]:
        x, stop, iterations, *_ = result
        status = "ITERATION_LIMIT" if stop == 7 else "CONVERGED"
        return x, {"iterations": int(iterations), "passes": 2 * int(iterations) + 1, "status": status}

    known = [
        Solver("numpy.linalg.lstsq", lambda A, b: np.linalg.lstsq(A, b, rcond=None), direct),
        driver("gelsd"),
        driver("gelsy"),
        Solver("scipy lsqr", lsqr, iterative),
    ]
    return [solver for solver in known if names is None or solver.name in names]


def run(
    case: Case,
    solvers: Sequence[Solver],
    *,
    rounds: int = 5,
    least: int = 3,
    budget: float = 120.0,
    warmup: bool = True,
    bounds: bool = True,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Time the solvers in turns, judge their solutions, and return one record ready for JSON.

    A solver that fails is reported with its error and left out of the timing.
    """
    A, b = case.A, case.b
    dense = isinstance(A, np.ndarray)
    failures: dict[str, str] = {}
    calls: dict[str, Callable[[], Any]] = {}
    if bounds and dense:
        calls |= {"read by product": read_by_product(A), "read by sum": read_by_sum(A), "gemm": gemm(A.dtype)}
    for solver in solvers:
        if dense or solver.ours or solver.name == "scipy lsqr":
            calls[solver.name] = guard(solver, A, b, failures)
    # Solvers announce rank deficiency and the like by warnings; here the record carries these facts.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times, results = interleave(calls, rounds=rounds, least=least, budget=budget, warmup=warmup, progress=progress)
    if bounds and dense:
        times.best_of("read", "read by product", "read by sum")
    progress(f"{case.name}: checking the solutions")
    reference = Reference(A, b, case.x)
    record: dict[str, Any] = {
        "problem": case.name,
        "m": A.shape[0],
        "n": A.shape[1],
        "dtype": str(A.dtype),
        "order": ("C" if A.flags.c_contiguous else "F") if dense else A.format.upper(),
        **case.facts,
        "rank": reference.rank,
        "cond_measured": reference.cond,
        "rounds": max(map(len, times.values())),
        "householder_backward_error": None if reference.x_qr is None else reference.backward_error(reference.x_qr),
        "bounds": {},
        "solvers": [],
    }
    if bounds and dense:
        flops = 2 * A.shape[0] * A.shape[1] ** 2
        record["bounds"] = {
            "read_seconds": times.median("read"),
            "read_gbytes_per_second": A.nbytes / times.median("read") / 1e9,
            "gemm_gflops": 2 * GEMM_SIZE**3 / times.median("gemm") / 1e9,
            "qr_limit_seconds": times.median("gemm") * flops / (2 * GEMM_SIZE**3),
        }
        times["qr limit"] = [t * flops / (2 * GEMM_SIZE**3) for t in times["gemm"]]
    for solver in solvers:
        if solver.name in failures:
            record["solvers"].append({"name": solver.name, "ours": solver.ours, "error": failures[solver.name]})
        elif solver.name in times:
            x, facts = solver.read(results[solver.name])
            record["solvers"].append(
                {
                    "name": solver.name,
                    "ours": solver.ours,
                    "seconds": times.median(solver.name),
                    "times": times[solver.name],
                    "backward_error": reference.backward_error(x),
                    "forward_error": reference.forward_error(x),
                    "residual_norm": float(np.linalg.norm(b - A @ x)),
                    **facts,
                }
            )
    record["ratios"] = {
        f"{name} / {other}": times.ratio(name, other)
        for name in (s.name for s in solvers if s.ours and s.name in times and s.name not in failures)
        for other in times
        if other not in failures and other not in ("gemm", name)
    }
    return record


def guard(solver: Solver, A: Any, b: np.ndarray, failures: dict[str, str]) -> Callable[[], Any]:
    """A call that notes the error of a solver instead of ending the benchmark."""

    def call() -> Any:
        if solver.name in failures:
            return None
        try:
            return solver.solve(A, b)
        except (ArithmeticError, ValueError, TypeError, RuntimeError, MemoryError, np.linalg.LinAlgError) as error:
            failures[solver.name] = f"{type(error).__name__}: {error}".splitlines()[0]
            return None

    return call
