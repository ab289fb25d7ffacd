"""Measurements of second-order optimization: each function makes one of them and returns what report.py keeps."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from figures import Progress, scaled
from figures_sketch import Calls, timed

import randla
from randla import _cpu, datasets
from randla.bench import measure, optimize
from randla.bench.optimize import ADAPTIVE, CLOSE, Trace, by_randla, by_scipy, start
from randla.optimize import GLM, CubicRegularization, MinimizeWarning, TrustRegion, minimize
from randla.optimize._samples import RowOrder
from randla.optimize.objective import WindowSample
from randla.optimize.presets import preset

COVERTYPE, IJCNN1 = (464_810, 54), (49_990, 22)
LEVELS = (0.06, 0.0516, 0.05155)
SHARES = (0.01, 0.05)
GRADIENT = 1e-8  # that logistic regressions are solved to
TOLERANCES = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12)
SLOW = 20.0  # seconds after which a solver that is not there gets no smaller tolerance
OURS = ("trust-region", "cubic")


def unit_columns(X: np.ndarray) -> np.ndarray:
    """Columns scaled to [0, 1]."""
    low, size = X.min(axis=0), np.ptp(X, axis=0)
    return np.ascontiguousarray((X - low) / np.where(size > 0, size, 1))


def ijcnn1_problem(quick: bool = False) -> GLM:
    X, y = datasets.load("ijcnn1")
    assert y is not None
    rows = slice(0, 2_000 if quick else None)
    return GLM(np.ascontiguousarray(X[rows]), y[rows] > 0, "squared_sigmoid")


def covertype_data(quick: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Columns in [0, 1]; whether the cover type is 2."""
    X, y = datasets.load("covtype")
    assert y is not None
    rows = slice(0, 5_000 if quick else None)
    return unit_columns(X[rows]), (y[rows] == 2).astype(np.float64)


def covertype_split(quick: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The training part of a random split, 80 %."""
    X, y = covertype_data(quick)
    rows = np.random.default_rng(0).permutation(len(X))[: len(X) - len(X) // 5]
    return np.ascontiguousarray(X[rows]), y[rows]


def missing(error: FileNotFoundError) -> dict[str, Any]:
    return {"missing": str(error)}


def ijcnn1(quick: bool, progress: Progress) -> dict[str, Any]:
    """Props to three levels of the loss from ten starts: both methods, the published inexact trust region, and two of SciPy."""
    try:
        problem = ijcnn1_problem(quick)
    except FileNotFoundError as error:
        return missing(error)
    seeds = range(2 if quick else 10)
    traces: dict[str, list[Trace]] = {}
    for seed in seeds:
        x0 = start(problem.dim, seed)
        calls: dict[str, Callable[[], Trace]] = {
            **{
                name: lambda name=name, x0=x0, seed=seed: by_randla(problem, x0, method=name, gtol=1e-7, rng=seed, **ADAPTIVE)
                for name in OURS
            },
            "yao2018": lambda x0=x0, seed=seed: by_randla(problem, x0, maxiter=400, rng=seed, **preset("yao2018")),
            **{
                name: lambda name=name, x0=x0: by_scipy(problem, x0, name, level=LEVELS[-1], budget=20)
                for name in ("L-BFGS-B", "trust-ncg")
            },
        }
        for name, call in calls.items():
            progress(f"{name}, start {seed}")
            traces.setdefault(name, []).append(call().evaluate(problem))
    best = min(min(trace.fun) for those in traces.values() for trace in those)
    return {
        "n": problem.n,
        "d": problem.dim,
        "best": best,
        "props": {name: [[t.reached(level)[0] for level in LEVELS] for t in those] for name, those in traces.items()},
        "excess": {name: [trace.fun[-1] - best for trace in traces[name]] for name in OURS},
        "success": {name: [trace.success for trace in traces[name]] for name in OURS},
    }


def covertype(quick: bool, progress: Progress) -> dict[str, Any]:
    """Props and seconds to 1.0001 times the lowest loss found, from three starts: both methods and those of SciPy."""
    try:
        X, y = covertype_split(quick)
    except FileNotFoundError as error:
        return missing(error)
    budget = 1.0 if quick else 20.0
    records = {}
    for loss in ("squared_sigmoid", "logistic"):
        problem = GLM(X, y, loss)
        traces: dict[str, list[Trace]] = {}
        starts = [start(problem.dim, seed) for seed in range(1 if quick else 3)]
        # Threads, caches, and the level at which runs of SciPy end.
        best = np.inf
        for seed, x0 in enumerate(starts):
            progress(f"{loss}: lowest value, start {seed}")
            for options in (ADAPTIVE, {}):
                best = min(best, *by_randla(problem, x0, rng=seed, max_time=budget, **options).evaluate(problem).fun[-1:])
        for seed, x0 in enumerate(starts):
            for name in OURS:
                progress(f"{loss}: {name}, start {seed}")
                run = by_randla(problem, x0, method=name, rng=seed, max_time=budget, **ADAPTIVE)
                traces.setdefault(name, []).append(run.evaluate(problem))
            for name in optimize.SCIPY:
                progress(f"{loss}: {name}, start {seed}")
                run = by_scipy(problem, x0, name, level=best * (1 + 0.9 * CLOSE), budget=budget)
                traces.setdefault(name, []).append(run.evaluate(problem))
        best = min(best, min(min(trace.fun) for those in traces.values() for trace in those))
        reached = {name: [trace.reached(best * (1 + CLOSE)) for trace in those] for name, those in traces.items()}
        records[loss] = {"best": best, "reached": reached}
    return {"n": len(X), "d": X.shape[1], "losses": records}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """One thread for randla and for the BLAS of numpy."""
    from threadpoolctl import threadpool_limits

    before = _cpu.max_threads()
    randla.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        randla.set_num_threads(before)


def matrix(shape: tuple[int, int], dtype: str = "float64", order: str = "C") -> np.ndarray:
    return np.asarray(
        np.random.default_rng(1).standard_normal(shape), dtype=np.dtype(dtype), order="F" if order == "F" else "C"
    )


def labels(rows: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 2, rows).astype(np.float64)


def numpy_product(X: np.ndarray, v: np.ndarray) -> Callable[[], np.ndarray]:
    """X' D X v by two products of the BLAS, in the precision of X."""
    D, v = np.random.default_rng(3).standard_normal(len(X)).astype(X.dtype), v.astype(X.dtype)
    return lambda: X.T @ (D * (X @ v))


def numpy_pass(X: np.ndarray, y: np.ndarray, x: np.ndarray, loss: str) -> Callable[[], tuple[Any, ...]]:
    """Value, gradient and curvature weights, as one would write them with numpy."""

    def squared_sigmoid() -> tuple[Any, ...]:
        a = 1 / (1 + np.exp(-(X @ x)))
        r, s = a - y, a * (1 - a)
        return r @ r / len(X), X.T @ (2 * r * s) / len(X), 2 * (s * s + r * s * (1 - 2 * a))

    sign = 2 * y - 1

    def logistic() -> tuple[Any, ...]:
        m = -sign * (X @ x)
        p = 1 / (1 + np.exp(-m))
        return np.logaddexp(0, m).mean(), X.T @ (-sign * p) / len(X), p * (1 - p)

    return {"squared_sigmoid": squared_sigmoid, "logistic": logistic}[loss]


def own_pass(problem: GLM, x: np.ndarray) -> Callable[[], tuple[Any, ...]]:
    def run() -> tuple[Any, ...]:
        point = problem.at(x)
        return point.grad, point.fun, point.weights

    return run


def kernels(quick: bool, progress: Progress) -> dict[str, Any]:
    """Hessian products and passes on one core beside numpy's and beside reads of X on that core."""
    with one_core():
        return {
            "large": large_kernels(quick, progress),
            "small": small_kernels(quick, progress),
            "sampled": sampled_kernels(quick, progress),
        }


def large_kernels(quick: bool, progress: Progress) -> dict[str, Any]:
    shape = scaled(COVERTYPE, quick)
    x, y = start(shape[1], 0), labels(shape[0])
    v, V = start(shape[1], 1), np.random.default_rng(4).standard_normal((shape[1], 8))
    calls: Calls = {}
    for dtype in ("float64", "float32"):
        X = matrix(shape, dtype)
        H = GLM(X, y, "squared_sigmoid").hessian(x)
        calls[f"product {dtype}"] = lambda H=H: H @ v
        calls[f"8 products {dtype}"] = lambda H=H: H @ V
        calls[f"numpy product {dtype}"] = numpy_product(X, v)
        calls[f"read {dtype} by product"], calls[f"read {dtype} by sum"] = (
            measure.read_by_product(X),
            measure.read_by_sum(X, 1),
        )
        for loss in ("squared_sigmoid", "logistic") if dtype == "float64" else ():
            calls[f"pass {loss}"] = own_pass(GLM(X, y, loss), x)
            calls[f"numpy pass {loss}"] = numpy_pass(X, y, x, loss)
    times = timed(calls, quick, progress, rounds=11, budget=60, pause=0.0)
    for dtype in ("float64", "float32"):
        times.best_of(f"read {dtype}", f"read {dtype} by product", f"read {dtype} by sum")
    return {"m": shape[0], "n": shape[1], "times": times}


def small_kernels(quick: bool, progress: Progress) -> dict[str, Any]:
    """A matrix that stays in cache, in both orders and precisions."""
    shape = scaled(IJCNN1, quick)
    x, y, v = start(shape[1], 0), labels(shape[0]), start(shape[1], 1)
    calls: Calls = {}
    for dtype in ("float64", "float32"):
        for order in "CF":
            X = matrix(shape, dtype, order)
            H = GLM(X, y, "squared_sigmoid").hessian(x)
            calls[f"product {dtype} {order}"] = lambda H=H: H @ v
            calls[f"numpy {dtype} {order}"] = numpy_product(X, v)
    return {"m": shape[0], "n": shape[1], "times": timed(calls, quick, progress, rounds=21, budget=30, pause=0.0)}


def sampled_kernels(quick: bool, progress: Progress) -> dict[str, Any]:
    """Products of Hessians of samples, and what it takes to gather a sample and multiply once."""
    shape = scaled(COVERTYPE, quick)
    X, x, v = matrix(shape), start(shape[1], 0), start(shape[1], 1)
    problem = GLM(X, labels(shape[0]), "squared_sigmoid")
    point, order = problem.at(x), RowOrder(problem.n, 0)
    whole = point.hessian()
    calls: Calls = {"all": lambda: whole @ v}
    sizes = {}
    for share in SHARES:
        size = round(share * problem.n)
        rows = order.window(problem.n // 2, size)
        sample = WindowSample(order, 0, size)
        H = point.hessian(sample)
        sizes[str(share)] = size
        calls[f"product {share}"] = lambda H=H: H @ v
        calls[f"gathered {share}"] = lambda rows=rows: problem.hessian(x, rows) @ v
    return {"n": problem.n, "sizes": sizes, "times": timed(calls, quick, progress, rounds=15, budget=30, pause=0.0)}


def rejected(quick: bool, progress: Progress) -> dict[str, Any]:
    """Hessian products of the trial points that follow a rejected one, from first radii that are far too large."""
    X, y = optimize.classification(2_000 if quick else 20_000, 20, seed=5)
    problem = GLM(X, y, "squared_sigmoid")
    methods = {
        "trust-region": [TrustRegion(radius=1e4, subproblem=s) for s in ("gltr", "steihaug", "block", "exact")],
        "cubic": [CubicRegularization(sigma=1e-8, subproblem=s) for s in ("lanczos", "block", "exact")],
    }
    counts = {}
    for name, members in methods.items():
        progress(name)
        after = products = 0
        for method in members:
            for seed in range(3):
                for samples in (ADAPTIVE, {}):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", MinimizeWarning)
                        result = minimize(problem, 3 * start(20, seed), method, rng=seed, maxiter=200, **samples)
                    for before, entry in zip(result.history, result.history[1:], strict=False):
                        if not before["accepted"]:
                            after, products = after + 1, products + entry["products"]
        counts[name] = {"after": after, "products": products}
    return {"counts": counts}


def logistic(quick: bool, progress: Progress) -> dict[str, Any]:
    """Logistic regression to a gradient of norm 1e-8 beside scikit-learn, whose tolerances are the loosest that reach it."""
    records, absent = {}, []
    for name in ("covtype", "w8a"):
        progress(f"{name}: reading")
        try:
            X, y = covertype_data(quick) if name == "covtype" else datasets.load(name)
        except FileNotFoundError as error:
            absent.append(str(error))
            continue
        assert y is not None
        rows = slice(0, 2_000 if quick else None)
        records[name] = logistic_record(X[rows], (y[rows] > 0).astype(np.float64), quick, progress)
    return {"records": records, "missing": absent}


def logistic_record(X: Any, y: np.ndarray, quick: bool, progress: Progress) -> dict[str, Any]:
    problem = GLM(X, y, "logistic", l2=1 / X.shape[0])
    calls: Calls = {
        "newton": lambda: minimize(problem, np.zeros(problem.dim), "newton", gtol=GRADIENT).x,
        "trust-region": lambda: minimize(problem, np.zeros(problem.dim), "trust-region", gtol=GRADIENT, rng=0, **ADAPTIVE).x,
    }
    tolerances, short = {}, {}
    for solver in ("newton-cholesky", "newton-cg", "lbfgs"):
        for tol in TOLERANCES:
            progress(f"{solver}: tolerance {tol:.0e}")
            call = sklearn_call(X, y, solver, tol)
            begin = time.perf_counter()
            size = float(np.linalg.norm(problem.grad(call())))
            elapsed = time.perf_counter() - begin
            if size <= GRADIENT:
                tolerances[solver], calls[solver] = tol, call
                break
            stuck = solver in short and tol < GRADIENT and size >= short[solver]["grad_norm"]
            short[solver] = {"seconds": elapsed, "grad_norm": size}
            if stuck or elapsed > SLOW:
                break
    times, results = measure.interleave(
        calls, rounds=1 if quick else 5, least=1 if quick else 3, budget=60, pause=0.03, warmup=not quick, progress=progress
    )
    return {
        "m": X.shape[0],
        "n": X.shape[1],
        "times": times,
        "tolerances": tolerances,
        "short": {solver: where for solver, where in short.items() if solver not in tolerances},
        "grad_norms": {name: float(np.linalg.norm(problem.grad(x))) for name, x in results.items()},
        "values": {name: problem.value(x) for name, x in results.items()},
    }


def sklearn_call(X: Any, y: np.ndarray, solver: str, tol: float) -> Callable[[], np.ndarray]:
    """The coefficients that scikit-learn finds for the same objective, times n."""
    from sklearn.linear_model import LogisticRegression

    def call() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of line searches at the limit of rounding
            model = LogisticRegression(C=1.0, fit_intercept=False, solver=solver, tol=tol, max_iter=20_000)
            return np.asarray(model.fit(X, y).coef_, np.float64).ravel()

    return call


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    "ijcnn1": ijcnn1,
    "covertype": covertype,
    "glm-kernels": kernels,
    "rejected": rejected,
    "logistic": logistic,
}
