"""Measurements of sampled products, determinantal samples, p-norm regression and landmarks, beside what others offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from figures import Progress, scaled
from scipy.optimize import linprog
from scipy.stats import chi2

import randla
from randla.bench import measure

# Keys of two tables that are joined: how many there are, how many each table has, the share that both have.
KEYS, HELD, SHARED, COLUMNS, SAMPLE = 200_000, 100_000, 0.04, 16, 2_000
POINTS = (50_000, 10)


def joined(keys: int, held: int, rng: np.random.Generator) -> tuple[sp.csr_array, sp.csr_array]:
    """Sparse X, Y (keys, columns) with few nonzero rows in common; lognormal row norms, the same where both have the key."""
    order, shared = rng.permutation(keys), int(held * SHARED)
    size = rng.lognormal(0, 0.5, keys)

    def table(kept: np.ndarray) -> sp.csr_array:
        values = np.zeros((keys, COLUMNS))
        values[kept] = rng.random((len(kept), COLUMNS)) * size[kept, None]
        return sp.csr_array(values)

    return table(order[:held]), table(np.concatenate([order[:shared], order[held : 2 * held - shared]]))


def independent(X: sp.csr_array, Y: sp.csr_array, k: int, seed: int) -> np.ndarray:
    """The product from priority samples that know nothing of each other: common rows over the product of their chances."""
    a, b = randla.coordinated_sketch(X, k, rng=2 * seed), randla.coordinated_sketch(Y, k, rng=2 * seed + 1)
    _, i, j = np.intersect1d(a.indices, b.indices, assume_unique=True, return_indices=True)
    with np.errstate(divide="ignore"):
        chance = np.minimum(1, a.norms[i] / a.threshold) ** 2 * np.minimum(1, b.norms[j] / b.threshold) ** 2
    return np.asarray(((sp.diags_array(1 / chance) @ a.rows[i]).T @ b.rows[j]).todense())


def products(quick: bool, progress: Progress) -> dict[str, Any]:
    """Errors of X'Y from sketches that take equal storage: one index and all columns a sampled row, all entries of a sketch."""
    keys, held, k = (KEYS // 20, HELD // 20, SAMPLE // 10) if quick else (KEYS, HELD, SAMPLE)
    X, Y = joined(keys, held, np.random.default_rng(0))
    exact = (X.T @ Y).toarray()
    errors: dict[str, list[float]] = {"coordinated": [], "independent": [], "CountSketch": []}
    rows = k * (COLUMNS + 1) // COLUMNS  # of a CountSketch, whose rows need no index
    for seed in range(3 if quick else 21):
        progress(f"seed {seed}")
        S = randla.CountSketch().sample(rows, keys, rng=seed)
        a, b = (randla.coordinated_sketch(matrix, k, rng=seed) for matrix in (X, Y))
        for name, product in (
            ("coordinated", a.product(b).product),
            ("independent", independent(X, Y, k, seed)),
            ("CountSketch", (S @ X).T @ (S @ Y)),
        ):
            errors[name].append(float(np.linalg.norm(product - exact) / np.linalg.norm(exact)))
    return {"keys": keys, "held": held, "shared": SHARED, "columns": COLUMNS, "k": k, "errors": errors}


def determinantal(quick: bool, progress: Progress) -> dict[str, Any]:
    """Samples of determinantal processes beside DPPy's, from the same factors."""
    from dppy.finite_dpps import FiniteDPP

    (m, r), k = scaled((100_000, 50), False) if not quick else (2_000, 10), 8 if quick else 30
    rng = np.random.default_rng(0)
    F = rng.standard_normal((m, r)) * 10.0 ** rng.uniform(-3, 0, m)[:, None] * np.logspace(0, -2, r) / 10
    U = np.linalg.svd(F, full_matrices=False)[0]
    wide = np.ascontiguousarray(F.T)
    seeds = iter(range(10**9))
    ours: dict[str, Callable[[], Any]] = {
        "projection": lambda: randla.sample_dpp(U, projection=True, rng=next(seeds)),
        "L-ensemble": lambda: randla.sample_dpp(F, rng=next(seeds)),
        "k-DPP": lambda: randla.sample_dpp(F, k, rng=next(seeds)),
    }

    def projection(mode: str) -> Any:
        return FiniteDPP("correlation", projection=True, K_eig_dec=(np.ones(r), U)).sample_exact(mode, random_state=next(seeds))

    theirs = {
        "projection": lambda: projection("GS_bis"),
        "projection, its default": lambda: projection("GS"),
        "L-ensemble": lambda: FiniteDPP("likelihood", L_gram_factor=wide).sample_exact("GS", random_state=next(seeds)),
        "k-DPP": lambda: FiniteDPP("likelihood", L_gram_factor=wide).sample_exact_k_dpp(k, "GS", random_state=next(seeds)),
    }
    calls = {f"randla {name}": call for name, call in ours.items()} | {f"dppy {name}": call for name, call in theirs.items()}
    times, _ = measure.interleave(calls, rounds=7, budget=60, pause=0.03, progress=progress)
    progress("inclusion of rows")
    return {"m": m, "r": r, "k": k, "times": times, "p_values": inclusion(2_000 if quick else 20_000)}


def inclusion(draws: int) -> dict[str, float]:
    """Chi-square probabilities of the counts of rows in projection samples, for randla's and for DPPy's, each against the
    exact covariance K * (I - K) of the indicators, and against each other."""
    from dppy.finite_dpps import FiniteDPP

    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 4)))[0]
    K, state = Q @ Q.T, np.random.RandomState(0)
    covariance = -(K**2)
    np.fill_diagonal(covariance, K.diagonal() * (1 - K.diagonal()))
    process = FiniteDPP("correlation", projection=True, K_eig_dec=(np.ones(4), Q))
    counts = {"randla": np.zeros(12), "dppy": np.zeros(12)}
    for seed in range(draws):
        counts["randla"][randla.sample_dpp(Q, projection=True, rng=seed).indices] += 1
        counts["dppy"][process.sample_exact("GS", random_state=state)] += 1
    inverse, freedom = np.linalg.pinv(draws * covariance, rcond=1e-10), int(np.linalg.matrix_rank(covariance))
    off = {name: count - draws * K.diagonal() for name, count in counts.items()}
    both = off["randla"] - off["dppy"]
    return {name: float(chi2.sf(x @ inverse @ x, freedom)) for name, x in off.items()} | {
        "both": float(chi2.sf(both @ inverse @ both / 2, freedom))
    }


def regression(quick: bool, progress: Progress) -> dict[str, Any]:
    """p = 1 beside the linear program, and from sampled rows."""
    m, n = (2_000, 10) if quick else (20_000, 20)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((m, n))
    b = A @ np.ones(n) + rng.standard_t(2, m)
    cost = np.concatenate([np.zeros(n), np.ones(2 * m)])
    equations = sp.hstack([sp.csr_array(A), sp.eye_array(m), -sp.eye_array(m)], format="csc")
    bounds = [(None, None)] * n + [(0, None)] * (2 * m)
    calls: dict[str, Callable[[], Any]] = {
        "randla": lambda: randla.lp_regression(A, b, 1, rng=0),
        "sampled": lambda: randla.lp_regression(A, b, 1, sample_size=m // 10, rng=0),
        "HiGHS": lambda: linprog(cost, A_eq=equations, b_eq=b, bounds=bounds, method="highs"),
    }
    times, results = measure.interleave(calls, rounds=5, budget=60, pause=0.03, progress=progress)
    best = results["randla"].residual_norm
    return {
        "m": m,
        "n": n,
        "times": times,
        "gap": results["randla"].gap,
        "difference": abs(results["HiGHS"].fun - best) / best,
        "sampled_ratio": results["sampled"].residual_norm / best,
        "sample_size": m // 10,
    }


def landmarks(quick: bool, progress: Progress) -> dict[str, Any]:
    """Recursive selection of landmarks of a Gaussian kernel beside the operations of one n x k factor, 2 n k^2."""
    n, columns = (2_000, 10) if quick else POINTS
    k = 50 if quick else 500
    X = np.random.default_rng(0).standard_normal((n, columns))
    calls: dict[str, Callable[[], Any]] = {
        "randla": lambda: randla.kernel_landmarks(X, k, kernel="rbf", rng=0),
        "gemm": measure.gemm(),
    }
    times, results = measure.interleave(calls, rounds=5, budget=40, pause=0.03, progress=progress)
    times["limit"] = [t * 2 * n * k**2 / (2 * measure.GEMM_SIZE**3) for t in times["gemm"]]
    return {"n": n, "k": k, "times": times, "evaluations": results["randla"].kernel_evaluations / n}


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    "products": products,
    "determinantal": determinantal,
    "regression": regression,
    "landmarks": landmarks,
}
