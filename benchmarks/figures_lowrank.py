"""Measurements of low rank approximation and traces: each function makes one of them and returns what report.py keeps."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import scipy.linalg.interpolative as scipy_interpolative
import scipy.sparse as sp
from figures import Progress, reads, scaled
from figures_optimize import missing
from figures_sketch import Calls
from scipy.sparse.linalg import LinearOperator, cg

import randla
from randla import datasets
from randla.bench import measure
from randla.bench.lowrank import decaying, randla_svd, svd_peers, true_error
from randla.bench.ways import peer
from randla.lowrank import interpolative, nystrom_pcg, qr, rpcholesky, svd, trace

K = 50
DENSE, SPARSE, DENSITY = (50_000, 2_000), (100_000, 20_000), 1e-3
POWERS = {"fast": 1.0, "slow": 0.3}
PIXELS, COMPONENTS = 10_000, 20
TRACED, LEVEL = 2_000, 1e-3
# Products that estimates of traces are tried with, and with how many seeds.
PRODUCTS, SEEDS = (12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1_024, 1_536), 11
POINTS, PIVOTS = 50_000, 500
FACTORED = (100_000, 300)
SOURCES, CHOSEN = 3_000, (50, 150)
SOLVED, RIDGES, RESIDUAL = 4_000, (1.0, 1e-2), 1e-8
SCREE, SCREE_SEEDS = (5, 10, 20, 40, 80, 160), 20


def interleaved(
    calls: Calls, quick: bool, progress: Progress, *, rounds: int = 5, budget: float = 30.0
) -> tuple[measure.Timings, dict[str, Any]]:
    """Times, with what each case returned last."""
    if quick:
        return measure.interleave(calls, rounds=1, least=1, min_time=0, progress=progress)
    return measure.interleave(calls, rounds=rounds, budget=budget, pause=0.03, progress=progress)


def decompositions(A: Any, quick: bool, progress: Progress, budget: float) -> dict[str, Any]:
    """svd beside its peers on one matrix, with the true errors of all."""
    k = min(K, min(A.shape) // 4)
    calls: Calls = {
        "randla": partial(randla_svd, A, k),
        "randla n_iter=1": partial(randla_svd, A, k, n_iter=1),
        **svd_peers(A, k),
        "gemm": measure.gemm(),
    }
    # Of a sparse matrix its values and the indices of their columns.
    stored = A if isinstance(A, np.ndarray) else np.ones((-(-12 * A.nnz // 8192), 1024))
    reads(calls, "read", stored)
    # Some of the peers take ten seconds: threads and libraries are woken by a part of A instead.
    for warm in svd_peers(A[: 20 * k], k).values():
        warm()
    randla_svd(A[: 20 * k], k)
    rounds = {"rounds": 1, "least": 1} if quick else {"rounds": 5, "least": 3}
    times, results = measure.interleave(calls, budget=budget, warmup=False, min_time=0, pause=0.03, progress=progress, **rounds)
    times.best_of("read", "read by product", "read by sum")
    progress("computing the errors")
    names = [name for name in results if not name.startswith(("gemm", "read"))]
    ours = results["randla"]
    return {
        "m": A.shape[0],
        "n": A.shape[1],
        "k": k,
        "nnz": A.size if isinstance(A, np.ndarray) else int(A.nnz),
        "times": times,
        "errors": {name: true_error(A, *results[name]) for name in names},
        "estimate": ours.error,
        "passes": ours.passes,
        "dim": ours.dim,
        "method": ours.method,
    }


def svd_dense(kind: str, quick: bool, progress: Progress) -> dict[str, Any]:
    """A dense matrix with singular values that fall fast or slowly."""
    progress("making the matrix")
    A = decaying(*scaled(DENSE, quick), POWERS[kind], seed=1)
    return {"power": POWERS[kind], **decompositions(A, quick, progress, 20)}


def sparse_matrix(kind: str, quick: bool) -> sp.csr_array:
    """Entries in (0, 1) at places drawn uniformly, or by weights of rows and columns that fall like powers."""
    (m, n), rng = scaled(SPARSE, quick), np.random.default_rng(1)
    density = 0.02 if quick else DENSITY
    if kind == "uniform":
        return sp.csr_array(sp.random_array((m, n), density=density, format="csr", rng=rng))
    rows, columns = rng.random(m) ** -0.4, np.arange(1, n + 1) ** -0.7
    count = round(m * n * density)
    places = rng.choice(m, count, p=rows / rows.sum()), rng.choice(n, count, p=columns / columns.sum())
    return sp.csr_array(sp.coo_array((rng.random(count), places), shape=(m, n)))


def svd_sparse(kind: str, quick: bool, progress: Progress) -> dict[str, Any]:
    progress("making the matrix")
    return {"kind": kind, **decompositions(sparse_matrix(kind, quick), quick, progress, 20)}


def pixels(quick: bool) -> np.ndarray:
    A, _ = datasets.load("mnist")
    return np.ascontiguousarray(A[: 600 if quick else PIXELS])


def pca(quick: bool, progress: Progress) -> dict[str, Any]:
    """Principal components of images beside scikit-learn's, with the true and the reported error."""
    try:
        A = pixels(quick)
    except FileNotFoundError as error:
        return missing(error)
    centred = A - A.mean(axis=0)
    calls: Calls = {"randla": lambda: svd(A, COMPONENTS, center=True, rng=1), "gemm": measure.gemm()}
    if (module := peer("sklearn.decomposition")) is not None:

        def components() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            model = module.PCA(COMPONENTS, svd_solver="randomized", random_state=0)
            return model.fit_transform(A) / model.singular_values_, model.singular_values_, model.components_

        calls["sklearn PCA"] = components
    reads(calls, "read", A)
    times, results = interleaved(calls, quick, progress, rounds=15, budget=20)
    times.best_of("read", "read by product", "read by sum")
    s, ours = np.linalg.svd(centred, compute_uv=False), results["randla"]
    return {
        "m": A.shape[0],
        "n": A.shape[1],
        "k": COMPONENTS,
        "times": times,
        "errors": {name: true_error(centred, *results[name]) for name in ("randla", "sklearn PCA") if name in results},
        "best": float(np.linalg.norm(s[COMPONENTS:])),
        "estimate": ours.error,
        "passes": ours.passes,
        "dim": ours.dim,
    }


def spectra(n: int) -> dict[str, np.ndarray]:
    """Eigenvalues of inverses: of the second difference in one and in two dimensions, and 1, ..., n inverted."""
    i, side = np.arange(1, n + 1), int(np.ceil(np.sqrt(n)))
    line = 4 * np.sin(np.pi * np.arange(1, side + 1) / (2 * side + 2)) ** 2
    plane = np.sort((line[:, None] + line).ravel())[:n]
    return {
        "Laplacian^-1 on a line": 1 / (4 * np.sin(np.pi * i / (2 * n + 2)) ** 2),
        "Laplacian^-1 on a square": 1 / plane,
        "eigenvalues 1 / i": 1.0 / i,
    }


def diagonal_operator(values: np.ndarray) -> LinearOperator:
    """Test vectors have no preferred direction, so that a diagonal matrix stands for all with these eigenvalues."""

    def times(X: np.ndarray) -> np.ndarray:
        return (values * X.T).T

    n = len(values)
    return LinearOperator((n, n), matvec=times, matmat=times, rmatvec=times, rmatmat=times, dtype=np.float64)


def hutchinson_products(values: np.ndarray) -> float:
    """Products after which half of Hutchinson's estimates are within LEVEL, from their variance for vectors on the sphere."""
    n, total = len(values), values.sum()
    variance = 2 * n / (n + 2) * ((values**2).sum() - total**2 / n)
    return float(variance * (statistics.NormalDist().inv_cdf(0.75) / (LEVEL * total)) ** 2)


def typical_error(values: np.ndarray, method: str, products: int, seeds: range) -> float:
    A, total = diagonal_operator(values), values.sum()
    found = [trace(A, method=method, matvecs=products, rng=seed).value for seed in seeds]
    return float(np.median(np.abs(np.array(found) / total - 1)))


def traces(quick: bool, progress: Progress) -> dict[str, Any]:
    """Products until the median relative error is 1e-3, and errors at equal products."""
    n, seeds = (200, range(5)) if quick else (TRACED, range(SEEDS))
    # n products give the exact trace.
    grid = [*(count for count in PRODUCTS if count < n), n]
    parts = []
    for name, values in spectra(n).items():

        def needs(method: str, name: str = name, values: np.ndarray = values) -> int:
            """By bisection of the grid."""
            low, high = 0, len(grid) - 1
            while low < high:
                middle = (low + high) // 2
                progress(f"{name}: {method}, {grid[middle]} products")
                if typical_error(values, method, grid[middle], seeds) <= LEVEL:
                    high = middle
                else:
                    low = middle + 1
            return grid[low]

        needed = {method: needs(method) for method in ("xtrace", "nystrom", "hutch++")}
        last = min(needed["xtrace"], grid[-2])
        at = {m: typical_error(values, m, last, seeds) for m in ("xtrace", "nystrom", "hutch++", "hutchinson")}
        parts.append({"name": name, "needed": needed, "hutchinson": hutchinson_products(values), "at": last, "errors": at})
    return {"n": n, "level": LEVEL, "seeds": len(seeds), "parts": parts}


def standardised(name: str, points: int) -> np.ndarray:
    """Evenly spaced rows of real data, columns with mean zero and variance one."""
    X, _ = datasets.load(name)
    X = np.asarray(X[:: max(1, len(X) // points)][:points], np.float64)
    X = X[:, X.std(axis=0) > 0]
    return np.ascontiguousarray((X - X.mean(axis=0)) / X.std(axis=0))


def cholesky(quick: bool, progress: Progress) -> dict[str, Any]:
    """Partial Cholesky factorizations of a kernel matrix beside the rate of matrix products."""
    n, k = (400, 20) if quick else (POINTS, PIVOTS)
    try:
        X = standardised("covtype", n)
    except FileNotFoundError as error:
        return missing(error)
    methods = ("block", "accelerated", "simple")
    calls: Calls = {name: partial(rpcholesky, X, k, kernel="rbf", method=name, rng=1) for name in methods}
    calls["gemm"] = measure.gemm()
    times, results = interleaved(calls, quick, progress, rounds=7, budget=25)
    return {
        "n": len(X),
        "d": X.shape[1],
        "k": k,
        "times": times,
        "errors": {name: results[name].relative_error for name in methods},
        "rounds": {name: results[name].rounds for name in methods},
    }


def pivoted_qr(quick: bool, progress: Progress) -> dict[str, Any]:
    """QR with pivoting of a badly scaled tall matrix beside LAPACK's, with and without pivoting."""
    m, n = scaled(FACTORED, quick)
    rng = np.random.default_rng(1)
    A = randla.Gaussian().sample(m, n, rng=1).to_dense() * rng.permutation(np.geomspace(1, 1e-6, n))
    calls: Calls = {
        "randla": lambda: qr(A, rng=1),
        "scipy pivoted": lambda: scipy.linalg.qr(A, mode="economic", pivoting=True, check_finite=False),
        "scipy": lambda: scipy.linalg.qr(A, mode="economic", check_finite=False),
        "gemm": measure.gemm(),
    }
    times, results = interleaved(calls, quick, progress, rounds=3, budget=25)
    quality, diagonals = {}, []
    for name in ("randla", "scipy pivoted"):
        Q, R, P = results[name]
        diagonals.append(np.abs(R.diagonal()))
        quality[name] = {
            "residual": float(np.linalg.norm(A[:, P] - Q @ R) / np.linalg.norm(A)),
            "orthogonality": float(np.linalg.norm(Q.T @ Q - np.eye(Q.shape[1]), 2)),
        }
    spread = float(np.abs(np.log2(diagonals[0] / diagonals[1])).max())
    return {"m": m, "n": n, "times": times, "quality": quality, "diagonal": 2**spread}


def sources(count: int) -> np.ndarray:
    """Potentials of sources near their targets, in space."""
    rng = np.random.default_rng(1)
    X, Y = rng.random((count, 3)), rng.random((count, 3)) + 0.5
    squares = (X**2).sum(axis=1)[:, None] - 2 * X @ Y.T + (Y**2).sum(axis=1)
    return 1 / np.sqrt(np.maximum(squares, 0) + 1e-3)


def columns(quick: bool, progress: Progress) -> dict[str, Any]:
    """Interpolative decompositions beside SciPy's, and the best error of that rank."""
    A = sources(200 if quick else SOURCES)
    s = np.linalg.svd(A, compute_uv=False)
    parts = []
    for k in (10, 20) if quick else CHOSEN:
        calls: Calls = {
            "randla": lambda k=k: interpolative(A, k, rng=1),
            "randla refined": lambda k=k: interpolative(A, k, refine=True, rng=1),
            "scipy": lambda k=k: scipy_interpolative.interp_decomp(A, k, rng=np.random.default_rng(1)),
        }
        times, results = interleaved(calls, quick, lambda text, k=k: progress(f"{k}: {text}"), rounds=7, budget=12)
        errors = {}
        for name in ("randla", "randla refined"):
            J, Z = results[name]
            errors[name] = float(np.linalg.norm(A - A[:, J] @ Z))
        J, Z = results["scipy"]
        errors["scipy"] = float(np.linalg.norm(A - scipy_interpolative.reconstruct_matrix_from_id(A[:, J[:k]], J, Z)))
        parts.append(
            {
                "k": k,
                "times": times,
                "errors": errors,
                "estimate": results["randla"].error,
                "best": float(np.linalg.norm(s[k:])),
            }
        )
    return {"n": len(A), "parts": parts}


def kernel_matrix(X: np.ndarray) -> np.ndarray:
    squares = (X * X).sum(axis=1) / X.shape[1]
    return np.exp(np.minimum(2 / X.shape[1] * X @ X.T - squares[:, None] - squares, 0))


def preconditioned(quick: bool, progress: Progress) -> dict[str, Any]:
    """Kernel ridge regression by conjugate gradients, with the Nystrom preconditioner and without."""
    try:
        X = standardised("covtype", 300 if quick else SOLVED)
        y = datasets.load("covtype")[1]
    except FileNotFoundError as error:
        return missing(error)
    assert y is not None
    A = kernel_matrix(X)
    b = np.where(y[:: max(1, len(y) // len(X))][: len(X)] == 2, 1.0, -1.0)
    parts = []
    for ridge in RIDGES:
        # SciPy gets the sum once, as a matrix.
        shifted, count = A + ridge * np.eye(len(A)), [0]

        def plain(shifted: np.ndarray = shifted, count: list[int] = count) -> np.ndarray:
            count[0] = 0

            def step(x: np.ndarray) -> None:
                count[0] += 1

            return cg(shifted, b, rtol=RESIDUAL, maxiter=20_000, callback=step)[0]

        calls: Calls = {"randla": lambda ridge=ridge: nystrom_pcg(A, b, ridge, tol=RESIDUAL, rng=1), "scipy cg": plain}
        times, results = interleaved(calls, quick, lambda text, r=ridge: progress(f"ridge {r}: {text}"), rounds=3, budget=12)
        ours = results["randla"]
        solutions = {"randla": ours.x, "scipy cg": results["scipy cg"]}
        residuals = {name: float(np.linalg.norm(b - shifted @ x) / np.linalg.norm(b)) for name, x in solutions.items()}
        parts.append(
            {
                "ridge": ridge,
                "times": times,
                "iterations": {"randla": ours.iterations, "scipy cg": count[0]},
                "residuals": residuals,
                "rank": ours.rank,
                "passes": ours.passes,
                "error_bound": float(ours.error_bound),
            }
        )
    return {"n": len(A), "tol": RESIDUAL, "parts": parts}


def scree(quick: bool, progress: Progress) -> dict[str, Any]:
    """Singular values of images and their bounds; leave-one-out errors of one-pass decompositions beside the truth."""
    try:
        A = pixels(quick)
    except FileNotFoundError as error:
        return missing(error)
    s = np.linalg.svd(A, compute_uv=False)
    found = svd(A, SCREE[3], rng=1)
    operator = LinearOperator(
        A.shape, matvec=A.__matmul__, rmatvec=A.T.__matmul__, matmat=A.__matmul__, rmatmat=A.T.__matmul__, dtype=A.dtype
    )
    truth: dict[str, list[float]] = {}
    estimate: dict[str, list[float]] = {}
    for k in SCREE:
        for seed in range(3 if quick else SCREE_SEEDS):
            progress(f"k = {k}, seed {seed}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", randla.LowRankWarning)  # one pass is not all that could be had
                result = svd(operator, k, n_iter=0, n_oversamples=0, rng=seed)
            truth.setdefault(str(k), []).append(true_error(A, *result))
            estimate.setdefault(str(k), []).append(result.error)
    return {
        "m": A.shape[0],
        "n": A.shape[1],
        "singular_values": s,
        "s": found.s,
        "s_upper": found.s_upper,
        "truth": truth,
        "estimate": estimate,
        "source": result.error_source,
    }


GROUPS: dict[str, Callable[[bool, Progress], dict[str, Any]]] = {
    **{f"svd-dense {kind}": partial(svd_dense, kind) for kind in POWERS},
    **{f"svd-sparse {kind}": partial(svd_sparse, kind) for kind in ("uniform", "weighted")},
    "pca-mnist": pca,
    "trace": traces,
    "rpcholesky": cholesky,
    "pivoted-qr": pivoted_qr,
    "interpolative": columns,
    "nystrom-pcg": preconditioned,
    "scree": scree,
}
