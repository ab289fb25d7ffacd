"""From a sketch of A to its factor, the rank decision included, and the preconditioner that other codes can use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack
from scipy.sparse.linalg import LinearOperator

from . import _check, _cpu
from ._backend import to_host
from ._device import DeviceMatrix
from ._device_factor import DeviceFactor, factor_of_sketch
from ._factor import GRAM_COND_LIMIT, Factor, TriangularFactor, TruncatedFactor
from ._matrix import TallMatrix, argument, is_complex, wrap
from ._numeric import SOLVE, cholesky, further_powers, norms, powers_of_two, triangular
from ._ridge import SMALLEST_N, ridge_factor
from .sketch import SRTT, Distribution, Gaussian, Rademacher

Powers = Callable[[np.ndarray], np.ndarray]
Slices = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]

_EPS = float(np.finfo(np.float64).eps)
_QR_ROWS = 2048
_HELD = 1 << 21  # entries of a sketch that may be kept: 16 MB


def _one_power_of_two(size: np.ndarray) -> np.ndarray:
    return np.full_like(size, powers_of_two(size.max(initial=0.0)))


def rank_cut(eps: float, m: int, d: int) -> float:
    """Relative size below which a singular value of a sketch with d of m rows may be rounding error.

    Measured on rank-deficient matrices: 0.1 to 3 eps, growing with the square root of the number of terms of an entry; in
    float64 the factorization, which is always in float64, adds its own.
    """
    return eps * max(10.0 if eps < 1e-10 else 4.0, 0.2 * math.sqrt(8 * m / max(d, 1)))


def _sizes(SA: np.ndarray, ridge: float) -> np.ndarray:
    """Of the columns; not so small beside the ridge that this would overflow in their units."""
    sizes = np.maximum(SA.max(axis=0, initial=0.0), -SA.min(axis=0, initial=0.0))
    return np.maximum(sizes, math.sqrt(ridge) * 2.0**-900) if ridge else sizes


def _triangular_condition(R: np.ndarray) -> float:
    if len(R) == 0:
        return 1.0
    rcond, _ = lapack.dtrcon(R)
    return 1 / rcond if rcond > 0 else np.inf


def _by_gram(slices: Slices, n: int, k: int, ridge: float, powers: Powers) -> TriangularFactor | None:
    """Cholesky factor of the sketched Gram matrix; None where the condition number makes it unreliable."""
    scale, gram, moments = np.ones(n), np.zeros((n, n)), np.zeros((k, n))
    for index, (SA, SB) in enumerate(slices()):
        if index == 0:
            # The first slice stands for the columns' sizes; what it misjudges costs nothing but rounding room.
            scale = powers(_sizes(SA, ridge))
        if (scale != 1).any():
            SA = np.multiply(SA, scale, out=SA if SA.flags.writeable else None)
        _cpu.gram(SA, None, False, None, None, gram)
        if k:
            part = np.empty_like(moments)
            _cpu.residual(SA, np.zeros_like(moments), np.ascontiguousarray(SB.T), np.empty(SB.T.shape), part)
            moments += part
    gram = gram.T
    if ridge:
        with np.errstate(over="ignore"):
            gram[np.diag_indices_from(gram)] += ridge * scale**2
    # Columns of equal norm: what is left of the condition number is what matters.
    diagonal = gram.diagonal()
    if not np.isfinite(diagonal).all() or not (diagonal > 0).all():
        return None
    extra = further_powers(powers(np.sqrt(diagonal)), scale)
    if (extra != 1).any():
        gram *= extra[:, None]
        gram *= extra
        moments *= extra
        scale = scale * extra
    R = cholesky(gram)
    if R is None or not _triangular_condition(R) <= GRAM_COND_LIMIT * np.sqrt(n):
        return None
    factor = TriangularFactor(R, scale, np.zeros((k, n)), gram)
    if factor.cond > GRAM_COND_LIMIT:
        return None
    factor.start = factor.apply(factor.adjoint(moments))
    return factor


def _by_qr(slices: Slices, n: int, k: int, ridge: float, powers: Powers, unit: np.ndarray | float = 1.0) -> TriangularFactor:
    """R of a QR factorization of the sketch, slice by slice (Golub, Plemmons, Sameh 1988); `start` holds Q'S b.

    The columns of the slices have been multiplied by `unit`, powers of two.
    """
    scale = np.ones(n)
    R = np.zeros((0, n + k))
    for index, (SA, SB) in enumerate(slices()):
        if index == 0:
            scale = powers(_sizes(SA, ridge))
            if ridge > 0:
                R = np.hstack([np.diag(np.sqrt(ridge) * (scale * unit)), np.zeros((n, k))])
        stacked = np.empty((len(R) + len(SA), n + k), order="F")
        stacked[: len(R)] = R
        stacked[len(R) :, :n] = SA
        stacked[len(R) :, :n] *= scale
        stacked[len(R) :, n:] = SB
        factored = lapack.dgeqrf(stacked, lwork=64 * (n + k), overwrite_a=1)[0]
        R = np.triu(factored[: min(n + k, len(factored))])
    whole = np.zeros((n + k, n + k), order="F")
    whole[: len(R)] = R
    R, target = np.asfortranarray(whole[:n, :n]), whole[:n, n:]
    extra = further_powers(powers(norms(R.T)), scale)
    R *= extra
    return TriangularFactor(R, scale * extra * unit, target.T.copy())


def _decide_rank(factor: TriangularFactor, rcond: float) -> TriangularFactor:
    """The factor itself where it is safely regular; otherwise one with the singular values below rcond cut off.

    `start` holds Q'S b on entry and the sketched solution on return.
    """
    target = factor.start
    if len(factor.R) == 0:
        return factor
    if _triangular_condition(factor.R) < 0.1 / _EPS and factor.certainly_above(rcond):
        factor.start = triangular(SOLVE, factor.R, target)
        return factor
    U, sigma, Vh = scipy.linalg.svd(factor.R)
    rank = int(np.count_nonzero(sigma > rcond * sigma[0]))
    cut = TruncatedFactor(factor.R, factor.scale, target, sigma, np.ascontiguousarray(Vh.T), rank)
    cut.start = cut.apply(target @ U[:, :rank])
    return cut


def factor_by_qr(matrix: TallMatrix, ridge: float, rcond: float) -> Factor:
    """Factor of [A; sqrt(ridge) I] itself, by QR of its blocks of rows. One pass over A."""
    n = matrix.shape[1]

    unit, triangle = _triangle_of(matrix) if isinstance(matrix, DeviceMatrix) else (1.0, None)

    def slices() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for block in matrix.row_blocks(max(4 * n, _QR_ROWS)) if triangle is None else [triangle]:
            if not (np.isfinite(block.max(initial=0.0)) and np.isfinite(block.min(initial=0.0))):
                raise ValueError("A must be finite; got NaN or infinite entries")
            yield block, np.zeros((len(block), 0))

    return _decide_rank(_by_qr(slices, n, 0, ridge, powers_of_two, unit), rcond)


def _triangle_of(matrix: DeviceMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Powers of two D and R of a QR factorization of A D for A of a device, made there block by block. Two passes over A."""
    xp, n = matrix.xp, matrix.shape[1]
    rows = matrix.rows_at_a_time(4 * n)
    sizes = xp.zeros(n)
    for block in matrix.row_blocks(rows):
        sizes = xp.maximum(sizes, xp.maximum(block.max(axis=0), -block.min(axis=0)))  # carries NaN along
    unit = powers_of_two(to_host(sizes))
    scale, R = xp.asarray(unit), xp.zeros((0, n))
    for block in matrix.row_blocks(rows):
        R = xp.linalg.qr(xp.concatenate([R, block * scale]), mode="r")
    return unit, to_host(R)


def sketched_factor(
    matrix: TallMatrix,
    B: np.ndarray,
    distribution: Distribution,
    d: int,
    seed: int,
    *,
    ridge: float,
    rcond: float,
    asked: int | None = None,
    scale_columns: bool = True,
    small: bool = True,
) -> Factor:
    """Factor of the sketch of [A; sqrt(ridge) I], with the (scaled) sketched solution for every row of B.

    `asked` is the number of rows that the caller wants, d what is taken otherwise. With a ridge and `small`, far fewer rows
    than columns are tried first. Without `scale_columns` all columns get the same power of two.
    """
    (m, n), k = matrix.shape, len(B)
    held = matrix if isinstance(matrix, DeviceMatrix) else None

    def require_finite(sketch: np.ndarray) -> None:
        # NaN and infinities of A always reach its sketch, so looking there saves a pass.
        if not (np.isfinite(sketch.max(initial=0.0)) and np.isfinite(sketch.min(initial=0.0))):
            needed = "small enough to be added up; its sketch overflowed" if matrix.is_finite() else "finite"
            raise ValueError(f"A must be {needed}; got NaN or infinite entries")

    def slices(d: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for SA, SB in matrix.sketched(distribution.sample(d, m, rng=seed), B):
            require_finite(SA)
            yield SA, SB

    # The sketch of an operator takes n products however few its rows are.
    # On a device the n x n matrices that fewer rows save are no trouble.
    tried = small and n >= SMALLEST_N and not matrix.by_products and held is None if asked is None else asked < n
    if ridge > 0 and tried and (found := ridge_factor(slices, n, ridge, rcond, asked)) is not None:
        return found
    d = d if asked is None or asked < n else asked
    powers = powers_of_two if scale_columns else _one_power_of_two
    if held is not None:
        SA, SB = held.stacked(distribution.sample(d, m, rng=seed), B)
        made = factor_of_sketch(SA, SB, ridge, rcond, powers, require_finite)
        return _expected(made if isinstance(made, DeviceFactor) else _decide_rank(made, rcond), d, ridge)
    again: Slices = partial(slices, d)
    if not isinstance(matrix.A, np.ndarray) and d * n <= _HELD:
        # Of a dense matrix a sketch is made anew as fast as read; of others it is kept for a second factorization.
        kept = list(slices(d))
        for SA, _ in kept:
            SA.flags.writeable = False
        again = partial(iter, kept)
    factor = _by_gram(again, n, k, ridge, powers) if d > n else None
    if factor is None or not factor.certainly_above(rcond):
        factor = _decide_rank(_by_qr(again, n, k, ridge, powers), rcond)
    return _expected(factor, d, ridge)


def _expected(factor: Factor, d: int, ridge: float) -> Factor:
    """With the distortion that is to be expected of a sketch with d rows."""
    dimension = factor.effective_dimension(ridge)
    factor.rows, factor.distortion = d, min(max(1.15 * (dimension / max(d, 1)) ** 0.5, 0.05), 0.95)
    return factor


class Preconditioner(LinearOperator):
    """R^-1 (n, n) as a linear operator such that A R^-1 has singular values near one; see `sketch_preconditioner`.

    rank: numerical rank of A (columns beyond it are mapped to zero); cond_estimate: condition number of A with its columns
    scaled to equal norms; seed: replays the sketch.
    """

    def __init__(self, factor: Factor, seed: int):
        n = len(factor.scale)
        super().__init__(np.dtype(np.float64), (n, n))
        self._factor = factor
        self.rank, self.cond_estimate, self.seed = factor.rank, factor.cond, seed

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.asarray(X, np.float64).T)
        return (self._factor.apply(rows[:, : self.rank]) * self._factor.scale).T

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.asarray(X, np.float64).T)
        out = np.zeros((self.shape[0], len(rows)))
        out[: self.rank] = self._factor.adjoint(rows * self._factor.scale).T
        return out

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.reshape(x, (-1, 1)))[:, 0]

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._rmatmat(np.reshape(x, (-1, 1)))[:, 0]


def sketch_preconditioner(
    A: Any, *, ridge: float = 0.0, sketch: Distribution | None = None, sketch_size: int | None = None, rng: Any = None
) -> Preconditioner:
    """Right preconditioner R^-1 from a sketch of A: cond(A R^-1) is about (1 + e) / (1 - e), e = sqrt(n / sketch_size).

    The piece to embed in other Krylov codes: solve with A R^-1, then multiply the solution by R^-1. With a ridge,
    [A; sqrt(ridge) I] R^-1 is well conditioned; where the ridge leaves few effective dimensions, R^-1 is symmetric and held
    in far fewer than n^2 numbers.

    Parameters
    ----------
    A : array, CSR/CSC, LinearOperator or RowBlocks, (m, n), m >= n
        Real. Read once; with a ridge, once for each size of sketch that was tried.
    ridge : float
    sketch : Distribution, default BlockSRHT() for dense and SparseStack() for other A
    sketch_size : int
        Rows of the sketch, at least n, or at least 1 with a ridge; default 8 n, and with a ridge 8 rows or more per effective
        dimension where those are less than n / 2.
    rng : as in SPEC 7

    Returns
    -------
    Preconditioner
        The LinearOperator R^-1 (n, n), with `rank`, `cond_estimate` and the `seed` that replays it.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries.
    """
    a = argument(A)
    m, n = a.shape
    if is_complex(a):
        raise TypeError(f"A must be real; got {a.dtype}")
    if m < n:
        raise ValueError(f"A must have at least as many rows as columns; got shape {(m, n)}")
    matrix = wrap(a)
    ridge = _check.real(ridge, "ridge")
    chosen = distribution(sketch, matrix)
    asked = None if sketch_size is None else _check.integer(sketch_size, "sketch_size", 1 if ridge else max(n, 1))
    seed = _check.seed(rng)
    rcond = rank_cut(float(np.finfo(matrix.dtype).eps), m, asked or 8 * n + 8)
    factor = sketched_factor(matrix, np.zeros((0, m)), chosen, 8 * n + 8, seed, ridge=ridge, rcond=rcond, asked=asked)
    return Preconditioner(factor, seed)


def distribution(sketch: Any, matrix: TallMatrix) -> Distribution:
    """The distribution asked for, or the default for this kind of matrix."""
    if sketch is None:
        return matrix.default_sketch
    if not isinstance(sketch, Distribution):
        raise TypeError(f"sketch must be a Distribution such as SparseStack(); got {sketch!r}")
    return sketch


def is_dense(sketch: Any) -> bool:
    """Whether every entry of the sketch is random: a bound of single entries of x needs that."""
    return isinstance(sketch, Gaussian | Rademacher | SRTT)
