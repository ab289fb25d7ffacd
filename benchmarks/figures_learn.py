"""Measurements of sparse and low-rank learning: each function makes one of them and returns what report.py keeps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from figures import Progress
from figures_lowrank import interleaved
from figures_sketch import Calls
from scipy.optimize import linprog

from randla.bench import measure
from randla.bench.ways import peer
from randla.learn import LearnWarning, basis_pursuit, gspectral_init, lasso, learn_monomial

LAYER, RANK = 256, 5
GROWTH, GROWTH_RANK, GROWTH_SEEDS = (8, 16, 32, 64, 128), 2, 5
FEATURES, SAMPLES, FACTORS, TRIALS = 300, 40, 4, 10
COUNTED, TRIED = (100, 300, 1_000, 3_000, 10_000), tuple(range(12, 61, 2))
REGRESSION = (500, 10_000)
PENALTIES, TOLERANCES = (0.5, 0.1, 0.01), (1e-4, 1e-8)
PURSUITS = {"independent": REGRESSION, "correlated": (200, 2_000)}


def layers(quick: bool, progress: Progress) -> dict[str, Any]:
    """Losses of the two initializations of a layer, and their gap over widths, m = n^1.5."""
    n, rng = 32 if quick else LAYER, np.random.default_rng(0)
    W = rng.standard_normal((n, n))
    times, results = interleaved({"gspectral": partial(gspectral_init, W, RANK)}, quick, progress, rounds=7, budget=10)
    info = results["gspectral"][2]
    growth = []
    for width in GROWTH[:2] if quick else GROWTH:
        found = []
        for seed in range(GROWTH_SEEDS):
            progress(f"width {width}, seed {seed}")
            units = round(width**1.5)
            layer = np.random.default_rng(seed).standard_normal((units, width)) / np.sqrt(width)
            found.append(gspectral_init(layer, GROWTH_RANK)[2])
        growth.append(
            {
                "n": width,
                "units": units,
                "gap": float(np.mean([i.spectral_loss - i.loss for i in found])),
                "relative": float(np.mean([i.relative_spectral_loss - i.relative_loss for i in found])),
            }
        )
    return {
        "n": n,
        "rank": RANK,
        "times": times,
        "loss": info.relative_loss,
        "spectral": info.relative_spectral_loss,
        "iterations": info.iterations,
        "growth": growth,
    }


def gaussian_features(kind: str, m: int, p: int, rng: np.random.Generator) -> np.ndarray:
    """Independent; of a covariance of rank 75; or each pair of correlation 0.9."""
    if kind == "rank 75":
        return rng.standard_normal((m, 75)) @ rng.standard_normal((75, p))
    X = rng.standard_normal((m, p))
    return X if kind == "independent" else np.sqrt(0.1) * X + np.sqrt(0.9) * rng.standard_normal((m, 1))


def recovered(kind: str, m: int, p: int, seed: int) -> bool:
    """Whether a random monomial, exponents 1 and 2, is found exactly."""
    rng = np.random.default_rng((seed, m, p))
    X, support = gaussian_features(kind, m, p, rng), np.sort(rng.choice(p, FACTORS, replace=False))
    exponents = rng.integers(1, 3, FACTORS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LearnWarning)
        found = learn_monomial(X, np.prod(X[:, support] ** exponents, axis=1))
    return found.success and np.array_equal(found.support, support) and np.array_equal(found.exponents, exponents)


def monomials(quick: bool, progress: Progress) -> dict[str, Any]:
    """How many of ten monomials are found, and the smallest number of samples from which nine of ten are."""
    trials = 3 if quick else TRIALS
    p, m = (40, 40) if quick else (FEATURES, SAMPLES)
    shares = {}
    for kind in ("rank 75", "correlation 0.9"):
        progress(kind)
        shares[kind] = sum(recovered(kind, m, p, seed) for seed in range(trials))
    needed = {}
    for count in (40, 80) if quick else COUNTED:
        for samples in TRIED:
            progress(f"{count} features, {samples} samples")
            if sum(recovered("independent", samples, count, seed) for seed in range(trials)) >= 0.9 * trials:
                needed[str(count)] = samples
                break
    return {"p": p, "m": m, "factors": FACTORS, "trials": trials, "recovered": shares, "needed": needed}


def design(kind: str, m: int, p: int) -> np.ndarray:
    """Gaussian columns, independent or each of correlation 0.9 with the one before, as scikit-learn wants them in memory."""
    A = np.asfortranarray(np.random.default_rng(1).standard_normal((m, p)))
    if kind == "correlated":
        for j in range(1, p):
            A[:, j] = 0.9 * A[:, j - 1] + np.sqrt(1 - 0.81) * A[:, j]
    return A


def planted(A: np.ndarray, count: int, noise: float = 0.0) -> np.ndarray:
    """A combination of a few columns, and noise relative to it."""
    rng, x = np.random.default_rng(2), np.zeros(A.shape[1])
    x[rng.choice(len(x), count, replace=False)] = rng.standard_normal(count)
    b = A @ x
    return b + noise * np.linalg.norm(b) / np.sqrt(len(b)) * rng.standard_normal(len(b))


def lasso_objective(A: np.ndarray, b: np.ndarray, x: np.ndarray, alpha: float) -> float:
    r = b - A @ x
    return float(r @ r / (2 * len(b)) + alpha * np.abs(x).sum())


def lassos(kind: str, quick: bool, progress: Progress) -> dict[str, Any]:
    """Three penalties at two tolerances; ours ends at the duality gap that scikit-learn has reached."""
    module = peer("sklearn.linear_model")
    if module is None:
        return {"parts": []}
    m, p = (40, 120) if quick else REGRESSION
    A = design(kind, m, p)
    b = planted(A, m // 10, 0.1)
    top, size = float(np.abs(A.T @ b).max()) / m, float(b @ b) / m
    cases: dict[str, dict[str, Any]] = {}
    calls: Calls = {}
    for share in PENALTIES:
        for tol in TOLERANCES:
            progress(f"alpha = {share:g} of the largest, tolerance {tol:.0e}")
            model = module.Lasso(alpha=share * top, fit_intercept=False, tol=tol, max_iter=3_000, copy_X=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of gaps not reached, which are part of what is recorded
                model.fit(A, b)
            gap = max(float(model.dual_gap_), 1e-14 * size)
            name = f"{share:g} {tol:g}"
            calls[f"sklearn {name}"] = silenced(partial(model.fit, A, b))
            calls[f"randla {name}"] = silenced(partial(lasso, A, b, share * top, tol=gap / size))
            cases[name] = {
                "share": share,
                "tol": tol,
                "gap": {"sklearn": float(model.dual_gap_)},
                "objective": {"sklearn": lasso_objective(A, b, model.coef_, share * top)},
                "sweeps": int(model.n_iter_),
            }
    reading = {"read by product": measure.read_by_product(A.T), "read by sum": measure.read_by_sum(A)}
    times, results = interleaved({**calls, **reading}, quick, progress, rounds=5, budget=25)
    times.best_of("read", "read by product", "read by sum")
    for name, case in cases.items():
        ours = results[f"randla {name}"]
        case["gap"]["randla"] = ours.gap
        case["objective"]["randla"] = lasso_objective(A, b, ours.x, case["share"] * top)
        case["support"], case["passes"] = len(ours.support), ours.passes
    return {"m": m, "p": p, "kind": kind, "size": size, "times": times, "cases": cases}


def silenced(call: Callable[[], Any]) -> Callable[[], Any]:
    def quiet() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()

    return quiet


def highs(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    p = A.shape[1]
    solved = linprog(np.ones(2 * p), A_eq=np.hstack([A, -A]), b_eq=b, bounds=(0, None), method="highs")
    return solved.x[:p] - solved.x[p:]


def pursuits(kind: str, quick: bool, progress: Progress) -> dict[str, Any]:
    """A sparse combination of columns is found again, beside a linear program by HiGHS; large ones in one round."""
    m, p = (20, 60) if quick else PURSUITS[kind]
    A = design(kind, m, p)
    b = planted(A, m // 10)
    basis_pursuit(A, b)
    calls: Calls = {"randla": lambda: basis_pursuit(A, b), "highs": lambda: highs(A, b)}
    large = A.size > 10**6
    reading = {"read by product": measure.read_by_product(A.T), "read by sum": measure.read_by_sum(A)}
    times, results = measure.interleave(
        {**calls, **reading},
        rounds=1 if large or quick else 5,
        least=1,
        budget=20,
        warmup=not large,
        pause=0.03,
        progress=progress,
    )
    times.best_of("read", "read by product", "read by sum")
    ours = results["randla"]
    solutions = {"randla": ours.x, "highs": results["highs"]}
    return {
        "m": m,
        "p": p,
        "kind": kind,
        "times": times,
        "gap": ours.gap,
        "passes": ours.passes,
        "status": ours.status.name,
        "norms": {name: float(np.abs(x).sum()) for name, x in solutions.items()},
        "residuals": {name: float(np.linalg.norm(b - A @ x) / np.linalg.norm(b)) for name, x in solutions.items()},
    }


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    "gspectral": layers,
    "monomials": monomials,
    **{f"lasso {kind}": partial(lassos, kind) for kind in PURSUITS},
    **{f"basis-pursuit {kind}": partial(pursuits, kind) for kind in PURSUITS},
}
