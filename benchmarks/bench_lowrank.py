"""pytest benchmarks/bench_lowrank.py: low rank approximation, traces and sparse regression, beside SciPy where it has them."""

import numpy as np
import pytest
import scipy.linalg
from figures_learn import design, planted
from figures_lowrank import diagonal_operator, kernel_matrix, sources, sparse_matrix, spectra

import randla
from randla.bench.lowrank import decaying, randla_svd, svd_peers
from randla.learn import basis_pursuit, gspectral_init, lasso
from randla.lowrank import qr

M, N, K = 20_000, 1_000, 50


@pytest.fixture(scope="module")
def dense():
    return decaying(M, N, 0.5, seed=1)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).standard_normal((10_000, 20))


@pytest.fixture(scope="module")
def regression():
    A = design("correlated", 300, 3_000)
    return A, planted(A, 30, 0.1)


@pytest.mark.parametrize("name", ["randla", *svd_peers(np.eye(2), 1)])
def test_svd(benchmark, dense, name):
    benchmark.group = f"svd {M} x {N}, k = {K}"
    benchmark.pedantic({"randla": lambda: randla_svd(dense, K), **svd_peers(dense, K)}[name], rounds=2, warmup_rounds=1)


def test_sparse_svd(benchmark):
    benchmark.group = f"svd, sparse, k = {K}"
    A = sparse_matrix("weighted", False)
    benchmark.pedantic(randla_svd, (A, K), rounds=2, warmup_rounds=1)


@pytest.mark.parametrize("method", ["block", "accelerated", "greedy"])
def test_rpcholesky(benchmark, points, method):
    benchmark.group = "rpcholesky, 10000 points, k = 200"
    benchmark(lambda: randla.rpcholesky(points, 200, kernel="rbf", method=method, rng=0))


def test_nystrom_pcg(benchmark, points):
    benchmark.group = "nystrom_pcg, 3000 points"
    A = kernel_matrix(points[:3000])
    benchmark(lambda: randla.nystrom_pcg(A, np.ones(3000), 0.1, rng=0))


@pytest.mark.parametrize("name", ["randla", "scipy"])
def test_pivoted_qr(benchmark, dense, name):
    benchmark.group = f"pivoted QR {M} x 200"
    A = np.ascontiguousarray(dense[:, :200])
    calls = {"randla": lambda: qr(A, rng=0), "scipy": lambda: scipy.linalg.qr(A, mode="economic", pivoting=True)}
    benchmark(calls[name])


def test_interpolative(benchmark):
    benchmark.group = "interpolative 2000 x 2000, k = 50"
    A = sources(2_000)
    benchmark(lambda: randla.interpolative(A, 50, rng=0))


@pytest.mark.parametrize("method", ["xtrace", "nystrom", "hutch++", "hutchinson"])
def test_trace(benchmark, method):
    benchmark.group = "trace of 2000 x 2000, 96 products"
    A = diagonal_operator(next(iter(spectra(2_000).values())))
    benchmark(lambda: randla.trace(A, method=method, matvecs=96, rng=0))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_lasso(benchmark, regression, share):
    benchmark.group = "lasso 300 x 3000"
    A, b = regression
    benchmark(lambda: lasso(A, b, share * np.abs(A.T @ b).max() / len(b)))


def test_basis_pursuit(benchmark, regression):
    benchmark.group = "basis pursuit 300 x 3000"
    A, _ = regression
    b = planted(A, 30)
    benchmark(lambda: basis_pursuit(A, b))


def test_gspectral_init(benchmark):
    benchmark.group = "gspectral_init 256 x 256, r = 5"
    W = np.random.default_rng(0).standard_normal((256, 256))
    benchmark(lambda: gspectral_init(W, 5))
