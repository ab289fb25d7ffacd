"""Optimization of finite sums: randla's methods and SciPy's with the same oracles, by props, seconds and where they end."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize

from randla.bench.measure import Progress
from randla.optimize import GLM, FiniteSum, MinimizeWarning, minimize

__all__ = ["OURS", "SCIPY", "Oracles", "Trace", "by_randla", "by_scipy", "classification", "run", "start"]

ADAPTIVE = {"gradient_sample": "adaptive", "hessian_sample": "adaptive"}
OURS: dict[str, dict[str, Any]] = {
    "randla trust-region": {"method": "trust-region", **ADAPTIVE},
    "randla cubic": {"method": "cubic", **ADAPTIVE},
    "randla trust-region, all terms": {"method": "trust-region"},
}
# Tolerances as small as each method takes: a run ends by the loss it reaches.
SCIPY: dict[str, dict[str, Any]] = {
    "L-BFGS-B": {"ftol": 0.0, "gtol": 1e-10, "maxiter": 10**6, "maxfun": 10**7},
    "Newton-CG": {"xtol": 1e-14, "maxiter": 10**6},
    "trust-ncg": {"gtol": 1e-10, "maxiter": 10**6},
    "trust-krylov": {"gtol": 1e-10, "maxiter": 10**6},
}
CLOSE = 1e-4  # a loss this near to the lowest, relative to that, counts as reached


class Oracles:
    """Value, gradient and Hessian products of a finite sum as SciPy asks for them, counted in props.

    A value takes n props, a gradient n where the value at that point is known and 2 n elsewhere, a Hessian product 2 n. The
    problem itself shares the forward pass of a point between value, gradient and Hessian.
    """

    def __init__(self, problem: FiniteSum):
        self.problem, self.props, self.lowest = problem, 0, math.inf
        self._known: tuple[bytes, bool] = (b"", False)  # the last point, and whether its gradient is known
        self._hessian: tuple[bytes, Any] = (b"", None)

    def value(self, x: np.ndarray) -> float:
        key = x.tobytes()
        if self._known[0] != key:
            self.props += self.problem.n
            self._known = key, False
        value = self.problem.value(x)
        self.lowest = min(self.lowest, value)
        return value

    def grad(self, x: np.ndarray) -> np.ndarray:
        key = x.tobytes()
        if self._known != (key, True):
            self.props += self.problem.n if self._known[0] == key else 2 * self.problem.n
            self._known = key, True
        return self.problem.grad(x)

    def hessp(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        key = x.tobytes()
        if self._hessian[0] != key:
            self._hessian = key, self.problem.hessian(x)
        self.props += 2 * self.problem.n
        product: np.ndarray = self._hessian[1] @ v
        return product


@dataclass
class Trace:
    """The points of one run, with the props and seconds at which each was reached."""

    n: int
    props: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    x: list[np.ndarray] = field(default_factory=list)
    fun: list[float] = field(default_factory=list)
    success: bool = False

    def add(self, x: np.ndarray, props: int, seconds: float) -> None:
        self.x.append(x)
        self.props.append(props)
        self.time.append(seconds)

    def evaluate(self, problem: FiniteSum) -> Trace:
        """Fill in the loss of all terms, which a run on samples does not know."""
        self.fun = []
        for i, x in enumerate(self.x):
            same = i > 0 and np.array_equal(x, self.x[i - 1])
            self.fun.append(self.fun[-1] if same else problem.value(x))
        return self

    def reached(self, level: float) -> tuple[float, float]:
        """Props per term and seconds to the first point with a loss of at most `level`; inf where there is none."""
        for fun, props, seconds in zip(self.fun, self.props, self.time, strict=True):
            if fun <= level:
                return props / self.n, seconds
        return math.inf, math.inf


def by_scipy(problem: FiniteSum, x0: np.ndarray, method: str, *, level: float = -math.inf, budget: float = math.inf) -> Trace:
    """One run of a method of scipy.optimize.minimize, until its loss is at most `level` or `budget` seconds have passed."""
    oracles, trace = Oracles(problem), Trace(problem.n)
    trace.add(x0, 0, 0.0)
    begin = time.perf_counter()

    def callback(xk: np.ndarray) -> None:
        seconds = time.perf_counter() - begin
        trace.add(np.array(xk), oracles.props, seconds)
        if oracles.lowest <= level or seconds > budget:
            raise StopIteration

    hessp = {} if method == "L-BFGS-B" else {"hessp": oracles.hessp}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of precision loss, at tolerances that are out of reach
        result = scipy.optimize.minimize(
            oracles.value, x0, jac=oracles.grad, method=method, callback=callback, options=SCIPY[method], **hessp
        )
    trace.add(np.array(result.x), oracles.props, time.perf_counter() - begin)
    trace.success = bool(result.success)
    return trace


def by_randla(problem: FiniteSum, x0: np.ndarray, **options: Any) -> Trace:
    """One run of randla.optimize.minimize."""
    trace, points = Trace(problem.n), []
    trace.add(x0, 0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MinimizeWarning)
        begin = time.perf_counter()
        result = minimize(problem, x0, callback=lambda state: points.append(state.x), **options)
        seconds = time.perf_counter() - begin
    for x, entry in zip(points, result.history, strict=True):
        trace.add(x, entry["props"], entry["time"])
    trace.add(result.x, result.props, seconds)
    trace.success = result.success
    return trace


def start(dim: int, seed: int) -> np.ndarray:
    """Normal with variance 1 / dim, as in the papers."""
    return np.random.default_rng(seed).standard_normal(dim) / math.sqrt(dim)


def classification(m: int, n: int, seed: int = 0, dtype: str = "float64", order: str = "C") -> tuple[np.ndarray, np.ndarray]:
    """Normal columns of sizes from 1 to 1/30, and labels drawn from a logistic model in which all of them matter."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, n))
    X *= np.geomspace(1, 1 / 30, n)
    z = X @ (rng.standard_normal(n) * np.geomspace(2, 60, n) / math.sqrt(n))
    y = rng.random(m) < 1 / (1 + np.exp(-z))
    return np.asarray(X, dtype=np.dtype(dtype), order="F" if order == "F" else "C"), y.astype(np.float64)


def run(
    name: str,
    X: np.ndarray,
    y: np.ndarray,
    *,
    loss: str = "squared_sigmoid",
    seed: int = 0,
    rounds: int = 3,
    budget: float = 60.0,
    gtol: float = 1e-8,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Run every method from one start and return one record ready for JSON.

    Props and seconds are those to a loss within 1e-4 of the lowest; runs of SciPy end there or after their share of the budget.
    """
    problem = GLM(X, y, loss)
    x0 = start(X.shape[1], seed)
    share = budget / (len(SCIPY) + len(OURS))
    # Known before SciPy is run, so that each of its runs can end there; and threads and caches are ready.
    progress("warming up")
    first = [
        by_randla(problem, x0, gtol=gtol, max_time=share, rng=seed, **options).evaluate(problem) for options in OURS.values()
    ]
    calls = _calls(problem, x0, seed, gtol, share, min(trace.fun[-1] for trace in first))
    traces: dict[str, list[Trace]] = {label: [] for label in calls}
    begin = time.perf_counter()
    for k in range(rounds):
        if k and time.perf_counter() - begin > budget:
            break
        for label, call in calls.items():
            progress(f"{label}: round {k + 1} of {rounds}")
            traces[label].append(call().evaluate(problem))
    best = min(min(trace.fun) for those in traces.values() for trace in those)
    level = best + CLOSE * abs(best)
    return {
        "problem": name,
        "m": problem.n,
        "n": problem.dim,
        "dtype": str(problem.X.dtype),
        "order": "C" if X.flags.c_contiguous else "F",
        "loss": loss,
        "start": problem.value(x0),
        "best": best,
        "level": level,
        "rounds": max(map(len, traces.values())),
        "methods": [_entry(label, those, problem, level, best) for label, those in traces.items()],
    }


def _calls(
    problem: FiniteSum, x0: np.ndarray, seed: int, gtol: float, share: float, best: float
) -> Mapping[str, Callable[[], Trace]]:
    level = best + 0.9 * CLOSE * abs(best)

    def ours(options: dict[str, Any]) -> Callable[[], Trace]:
        return lambda: by_randla(problem, x0, gtol=gtol, max_time=share, rng=seed, **options)

    def theirs(method: str) -> Callable[[], Trace]:
        return lambda: by_scipy(problem, x0, method, level=level, budget=share)

    return {name: ours(options) for name, options in OURS.items()} | {f"scipy {name}": theirs(name) for name in SCIPY}


def _entry(name: str, traces: list[Trace], problem: FiniteSum, level: float, best: float) -> dict[str, Any]:
    reached = [trace.reached(level) for trace in traces]
    props, seconds = statistics.median(p for p, _ in reached), statistics.median(t for _, t in reached)
    last = traces[-1]
    x, H = last.x[-1], problem.hessian(last.x[-1]).to_dense()
    return {
        "name": name,
        "ours": name in OURS,
        "props": props if math.isfinite(props) else None,
        "seconds": seconds if math.isfinite(seconds) else None,
        "excess": last.fun[-1] - best,
        "grad_norm": float(np.linalg.norm(problem.grad(x))),
        "min_eig": float(np.linalg.eigvalsh(H)[0]),
        "success": last.success,
        "end_seconds": statistics.median(trace.time[-1] for trace in traces),
        "path": [[p / last.n, t, max(f - best, 0.0)] for p, t, f in zip(last.props, last.time, last.fun, strict=True)],
    }
