"""Calls every CUDA kernel on small arrays, for tools that look for errors such as compute-sanitizer."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np

import randla
from randla._backend import kernels
from randla.optimize import GLM
from randla.structured import Chain, KroneckerSparse, Product, fwht

SKETCHES = (
    randla.Gaussian(),
    randla.Rademacher(),
    randla.SparseStack(),
    randla.SparseSign(),
    randla.CountSketch(),
    randla.LessUniform(),
    randla.RowSample(),
    randla.BlockSRHT(),
    randla.BlockSRHT(block=128),
    randla.SRTT(),
)


def layouts(xp: Any, A: np.ndarray) -> list[Any]:
    """Rows contiguous, columns contiguous, on an odd address."""
    wide = xp.asarray(np.pad(A, ((0, 0), (1, 2))))
    return [xp.asarray(A), xp.asarray(np.asfortranarray(A)), wide[:, 1:-2]]


def csr(xp: Any, A: np.ndarray) -> Any:
    import cupyx.scipy.sparse
    import scipy.sparse

    host = scipy.sparse.csr_array(A * (abs(A) > 1))
    parts = (xp.asarray(host.data), xp.asarray(host.indices), xp.asarray(host.indptr))
    return cupyx.scipy.sparse.csr_matrix(parts, shape=A.shape)


def sketches(xp: Any, rng: np.random.Generator) -> None:
    for distribution, dtype in itertools.product(SKETCHES, (np.float32, np.float64)):
        S = distribution.sample(50, 700, rng=1)
        for A in layouts(xp, rng.standard_normal((700, 37)).astype(dtype)):
            S @ A
        for Y in layouts(xp, rng.standard_normal((50, 5)).astype(dtype)):
            S.T @ Y
        S @ csr(xp, rng.standard_normal((700, 37)).astype(dtype))
    # Whose tables are not kept.
    A, out = xp.asarray(rng.standard_normal((300, 9))), xp.zeros((40, 9))
    kernels(A).sparse_sketch(0, 40, 300, 4, 0, 7, A, 0, out)
    B = csr(xp, rng.standard_normal((300, 9)))
    kernels(A).sparse_sketch_csr(0, 40, 300, 4, 0, 7, B.data, B.indptr, B.indices, 9, 0, out)


def rows(xp: Any, rng: np.random.Generator) -> None:
    A, y = rng.standard_normal((300, 24)), rng.standard_normal(300)
    kinds: list[tuple[str, np.ndarray]] = [("logistic", np.sign(y)), ("softmax", (y > 0) + (y > 1.0))]
    for dtype in (np.float32, np.float64):
        dense, sparse = layouts(xp, A.astype(dtype)), csr(xp, A.astype(dtype))
        for device in (*dense, sparse):
            randla.lstsq(device, xp.asarray(y.astype(dtype)), method="fossils", rng=0)
        for device in (dense[0], sparse):
            randla.lstsq(device, xp.asarray(y.astype(dtype)), weights=xp.asarray(abs(y)), rng=0)
            randla.leverage_scores(device, rng=0)
            randla.svd(device, 4, method="krylov", rng=0)
            for loss, labels in kinds:
                learn(rng, GLM(device, xp.asarray(labels.astype(np.float64)), loss))
    randla.sample_rows(xp.asarray(A), 40, rng=0)
    chosen, v, g = xp.asarray(np.sort(rng.integers(0, 300, 90))), xp.asarray(rng.standard_normal((3, 24))), xp.empty((3, 24))
    for device in layouts(xp, A):
        kernels(device).weighted_product(device, chosen, v, None, None, None, g)


def learn(rng: np.random.Generator, glm: GLM) -> None:
    """Values, gradients, products of the Hessian, and changes of the value."""
    randla.optimize.minimize(glm, rng.standard_normal(glm.dim) / 10, maxiter=2, rng=0)


def structured(xp: Any, rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64, np.complex64, np.complex128):
        for chain in (Chain.dyadic(256), Chain.monarch(24, 30, 6, 5), Chain.dyadic(4096)):
            P = Product([KroneckerSparse(rng.standard_normal(tuple(p)).astype(dtype)) for p in chain])
            for batch in (1, 33):
                X = xp.asarray(rng.standard_normal((P.shape[1], batch)).astype(dtype))
                P @ X
                P.apply(X.T, axis=-1)
                if P.shape[0] < 4096:
                    P.vjp(X, P @ X)
        for shape in ((3, 4096), (2, 1 << 15), (1, 1 << 17)):
            fwht(xp.asarray(rng.standard_normal(shape).astype(dtype)), axis=1)
        fwht(xp.asarray(rng.standard_normal((512, 33)).astype(dtype)), axis=0)


def everything(xp: Any) -> None:
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few iterations and ranks below n
        for part in (sketches, rows, structured):
            part(xp, rng)


if __name__ == "__main__":
    import cupy

    cupy.cuda.set_allocator(None)  # each array in an allocation of its own, so that every step beyond it is seen
    everything(cupy)
    cupy.cuda.runtime.deviceSynchronize()
