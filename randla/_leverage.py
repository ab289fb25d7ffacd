"""The routes to leverage scores: factor of A, exact or from a sketch, then norms of mapped rows.

On a device what has m rows stays there, and no block of rows is waited for; only where A is wide do the m x m factor and the m
scores come from the host. For a dense (m, n) of s bytes a number, r the columns of the map, by arithmetic for an H200
(4.3 TB/s, 55 Tflop/s in float64) and not measured:

- "exact" reads A three times: 3 m n s bytes, and 2 m n numbers of images written and read twice; 6 m n^2 operations, which take
  longer from n = 150 on: 29 ms for m = 1e6, n = 512, where reading takes 3 ms.
- "sketch" reads A twice: 2 m n s bytes, and m r numbers of images written and read; 2 m n r operations. r is n, or what `rtol`
  needs where that is less than half of it: 106 columns for 1e6 rows at rtol = 3, so that n = 512 takes 4 ms, of which
  the two passes are 2 ms. float32 matrices are mapped in float32 where that is enough.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.stats

from ._backend import Array, gram_matrix, like, namespace, on_device, to_host
from ._device import DeviceMatrix
from ._factor import Factor, RidgeFactor, TriangularFactor, TruncatedFactor, ridge_root
from ._matrix import Dense, RowBlocks, TallMatrix, wrap
from ._numeric import cholesky, inverse, norms, powers_of_two
from ._row_map import RowMap
from .precondition import factor_by_qr, rank_cut, sketched_factor
from .sketch import BlockSRHT, Gaussian, Rademacher

LARGE_N = 5000  # columns beyond which n x n factors are not made unless they are asked for

_FAILURE = 0.01  # probability with which a sketch may miss rtol for some row
_ROWS_PER_COLUMN = 6  # of the sketch that an exact factor starts from
_DIRECT = 12  # fewer rows per column: QR of A itself
_ROUNDED = 1e-5  # relative error from which the images of rows are orthonormalised once more
_SINGLE_EPS = float(np.finfo(np.float32).eps)
_EPS = float(np.finfo(np.float64).eps)
_FIXED_POINT = 30  # steps to the ridge that removes the bias of a sketch
_MOST_STEPS, _EXTRA = 40, 16  # of subspace iteration; columns beyond those asked for
_UNEVEN = 2.0**10  # ratio of sizes of columns from which those of a wide A are made equal, where its rank is in doubt
_UNITS = (1.0, 2.0**-900, 2.0**900)  # of X, until A'A X neither overflows nor vanishes


@dataclasses.dataclass(frozen=True)
class Request:
    matrix: TallMatrix
    exact: bool
    ridge: float
    rank: int | None
    rtol: float
    rcond: float | None
    seed: int

    @property
    def cut(self) -> float:
        matrix = self.matrix
        eps = float(np.finfo(matrix.dtype).eps)
        cut = rank_cut(eps, matrix.shape[0], matrix.shape[0] if self.exact else _ROWS_PER_COLUMN * matrix.shape[1])
        return cut if self.rcond is None else max(self.rcond, eps)


@dataclasses.dataclass
class Found:
    scores: Array
    rank: int
    dimension: float
    cond: float
    relative_error: float
    gap: float = math.nan
    passes: int = 0


def scores_of(request: Request) -> Found:
    found = _scores(request)
    found.scores = like(request.matrix.A, found.scores)
    found.passes += request.matrix.passes
    return found


def _scores(request: Request) -> Found:
    m, n = request.matrix.shape
    rows = m // request.matrix.copies
    if m == 0 or n == 0:
        return Found(np.zeros(rows), 0, 0.0, 1.0, 0.0)
    if request.rank is not None:
        return _of_rank(request, request.rank)
    if _by_left_factor(request):
        return _wide(request)
    return _exact(request) if request.exact else _sketched(request)


def _by_left_factor(request: Request) -> bool:
    """Whether a wide A is taken by an m x m factor of its transpose."""
    m, n = request.matrix.shape
    return m < n and (request.exact or (n if request.ridge else m) <= LARGE_N)


def exact_factor(request: Request, *, only_if_deficient: bool = False) -> Factor:
    """R of A itself (of [A; sqrt(ridge) I]), m >= n: from a sketch and one correction, or by QR.

    `only_if_deficient` leaves the correction out where the sketch has full rank.
    """
    matrix, ridge = request.matrix, request.ridge
    m, n = matrix.shape
    by_blocks = isinstance(matrix.A, RowBlocks) or _is_mapped(matrix.A)
    if matrix.by_products or not (by_blocks or m <= _DIRECT * n):
        d = _ROWS_PER_COLUMN * n + 8
        factor = _sketch(request, d, small=False)
        if (only_if_deficient and factor.rank == n) or factor.improve(matrix, ridge):
            return factor
        if matrix.by_products:
            for more in (4, 16):
                factor = _sketch(request, more * d, small=False)
                if factor.improve(matrix, ridge):
                    return factor
            raise np.linalg.LinAlgError("A must have products that agree with those of its adjoint; got an A'A that is not")
    return factor_by_qr(matrix, ridge, request.cut)


def _is_mapped(A: Any) -> bool:
    """Whether an array lies in a file: of a view, the bases tell."""
    while isinstance(A, np.ndarray):
        if isinstance(A, np.memmap):
            return True
        A = A.base
    return False


def _sketch(request: Request, d: int, *, small: bool, asked: int | None = None) -> Factor:
    matrix = request.matrix
    nothing = namespace(matrix.A).zeros((0, matrix.shape[0]))
    family, cut = matrix.default_sketch, request.cut
    return sketched_factor(matrix, nothing, family, d, request.seed, ridge=request.ridge, rcond=cut, asked=asked, small=small)


def _exact(request: Request) -> Found:
    factor = exact_factor(request)
    matrix, error = request.matrix, 10 * _EPS * factor.cond
    scores = None
    if error > _ROUNDED and not request.ridge and not matrix.by_products:
        scores = _norms_of_rounded(matrix, factor.row_map())
    if scores is None:
        scores = matrix.row_norms(factor.row_map())
    return Found(scores, factor.rank, factor.effective_dimension(request.ridge), factor.cond, error)


def _norms_of_rounded(matrix: TallMatrix, mapping: RowMap) -> np.ndarray | None:
    """Squared norms of the rows of an orthonormal basis of the images as they are computed, for A so ill-conditioned that these
    are orthonormal to a few digits only: like those of Householder's Q they sum to the rank. None where that fails."""
    if isinstance(matrix, DeviceMatrix):
        return _norms_of_rounded_on_device(matrix, mapping)
    rows = max(1024, 4 * mapping.rank)
    gram = np.zeros((mapping.rank, mapping.rank), order="F")
    for block in matrix.row_blocks(rows):
        gram = scipy.linalg.blas.dsyrk(1.0, mapping.images(block).T, beta=1.0, c=gram, overwrite_c=1)
    R = cholesky(gram)
    if R is None:
        return None
    scores = []
    for block in matrix.row_blocks(rows):
        Z = scipy.linalg.blas.dtrsm(1.0, R, mapping.images(block).T, trans_a=1)
        scores.append(np.einsum("ij,ij->j", Z, Z)[: len(block) // matrix.copies])
    return np.concatenate(scores)


def _norms_of_rounded_on_device(matrix: DeviceMatrix, mapping: RowMap) -> Array | None:
    xp, mapped, rank, rows = matrix.xp, mapping.on_device(matrix.A), mapping.rank, matrix.rows_at_a_time()
    gram = xp.zeros((rank, rank))
    for block in matrix.row_blocks(rows):
        gram += gram_matrix(mapped.images(block))
    R = cholesky(to_host(gram).T)
    if R is None:
        return None
    # The images are orthonormal to a few digits: with them R has an inverse that is as good as solving with it.
    inverted = xp.asarray(inverse(R))
    scores = []
    for block in matrix.row_blocks(rows):
        Z = mapped.images(block) @ inverted
        scores.append((Z * Z).sum(axis=1)[: len(block) // matrix.copies])
    return xp.concatenate(scores)


def effective_dimension_of(request: Request) -> float:
    m, n = request.matrix.shape
    if m == 0 or n == 0:
        return 0.0
    if _by_left_factor(request):
        return _wide(request).dimension
    if request.exact:
        return exact_factor(request).effective_dimension(request.ridge)
    if n > LARGE_N and request.ridge:
        few, _, dimension = _few_rows(request)
        if few is not None:
            return dimension
    d = max(_rows_for(n, 1, request.rtol, m), 4 * n)
    if d < m:
        return _unbiased(request, d)[2]
    return _wide(request).dimension if m < n else exact_factor(request).effective_dimension(request.ridge)


def _wide(request: Request) -> Found:
    """m < n: R of A' = Q R has the left singular vectors of A as its right ones, and R' its ridge leverage scores."""
    matrix, ridge = request.matrix, request.ridge
    factor, passes = _factor_of_transposed(request, only_if_deficient=not ridge)
    if not ridge and factor.rank < matrix.shape[0] and (balanced := _balanced(matrix)) is not None:
        # Of deficient rank perhaps only because some columns are lost beside others.
        found = _wide(dataclasses.replace(request, matrix=balanced, rcond=request.cut))
        found.passes += passes
        return found
    sizes = _row_sizes(matrix, factor)
    if ridge and factor.rank:
        small = np.ascontiguousarray((_matrix_of(factor) * sizes).T)
        found = _exact(dataclasses.replace(request, matrix=Dense(small)))
        scores, dimension = found.scores, found.dimension
    elif factor.rank == len(sizes) and sizes.all():
        scores, dimension = np.ones(len(sizes)), float(factor.rank)
    else:
        # The range of A is that of diag(sizes) times the kept directions, whatever the sizes of the rows.
        basis = factor.V[:, : factor.rank] if isinstance(factor, TruncatedFactor) else np.eye(factor.rank)
        Q, R = scipy.linalg.qr(basis * sizes[:, None], mode="economic", pivoting=True)[:2]
        kept = int(np.count_nonzero(np.abs(R.diagonal()) > _EPS * len(sizes) * np.abs(R[0, 0]))) if R.size else 0
        scores, dimension = norms(Q[:, :kept]) ** 2, float(kept)
    scores[sizes == 0] = 0.0
    rows = matrix.shape[0] // matrix.copies
    rank = factor.rank if ridge else round(dimension)
    return Found(scores[:rows], rank, dimension, factor.cond, 10 * _EPS * factor.cond, passes=passes)


def _balanced(matrix: TallMatrix) -> TallMatrix | None:
    """Wide A of the host with its columns multiplied by powers of two that make their sizes equal, which changes no score
    without a ridge; None where they differ little. The only copy that is made of A."""
    A = matrix.A
    if not (isinstance(A, np.ndarray) or sp.issparse(A)):
        return None
    sizes = abs(A).max(axis=0)
    sizes = (sizes.toarray().ravel() if sp.issparse(sizes) else sizes).astype(np.float64)
    if not sizes.any() or sizes.max() < _UNEVEN * sizes[sizes > 0].min():
        return None
    scale = powers_of_two(sizes)
    if sp.issparse(A):
        # Of rows: A is CSR.
        data = A.data.astype(np.result_type(A.dtype, np.float64)) * scale[A.indices]
        return wrap(sp.csr_array((data, A.indices, A.indptr), shape=A.shape), matrix.weights)
    return wrap(A * scale, matrix.weights)


def _factor_of_transposed(request: Request, *, only_if_deficient: bool = False) -> tuple[Factor, int]:
    """The exact factor of A', and how often that read A."""
    shape = request.matrix.A.shape
    if isinstance(request.matrix.A, RowBlocks):
        raise ValueError(f"A must have at least as many rows as columns where it comes in row blocks; got shape {shape}")
    transposed = request.matrix.transposed()
    tall = dataclasses.replace(request, matrix=transposed, exact=True, ridge=0.0, rank=None)
    return exact_factor(tall, only_if_deficient=only_if_deficient), transposed.passes


def _row_sizes(matrix: TallMatrix, factor: Factor) -> np.ndarray:
    """What a factor of the transposed matrix, without its weights, is multiplied by for the matrix itself; 0 for zero rows."""
    sizes = (factor.column_norms() > 0) / factor.scale
    return sizes if matrix.weights is None else sizes * np.tile(to_host(matrix.roots), matrix.copies)


def _matrix_of(factor: Factor) -> np.ndarray:
    """(rank, n) with the same Gram matrix as A D."""
    if isinstance(factor, TruncatedFactor):
        return factor.sigma[: factor.rank, None] * factor.V[:, : factor.rank].T
    assert isinstance(factor, TriangularFactor)
    return factor.R


def _svd(factor: Factor, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and right vectors of the factored matrix with its columns multiplied by sizes."""
    unit = float(sizes.max(initial=0.0)) or 1.0
    _, sigma, Vh = scipy.linalg.svd(_matrix_of(factor) * (sizes / unit), full_matrices=False)
    return sigma * unit, Vh


def _of_rank(request: Request, k: int) -> Found:
    matrix = request.matrix
    (m, n), k = matrix.shape, k * matrix.copies
    if not request.exact:
        return _of_rank_by_iteration(request, k)
    if m < n:
        factor, passes = _factor_of_transposed(request)
        sizes = _row_sizes(matrix, factor)
        sigma, Vh = _svd(factor, sizes)
        found = _of_values(matrix, sigma, min(k, factor.rank), np.where(sizes > 0, norms(Vh[:k].T) ** 2, 0.0))
        found.passes = passes
        return found
    factor = exact_factor(request)
    sigma, Vh = _svd(factor, 1 / factor.scale)
    k = min(k, factor.rank)
    mapping = RowMap(np.ascontiguousarray((Vh[:k] / sigma[:k, None]).T), np.ones(n))
    return _of_values(matrix, sigma, k, matrix.row_norms(mapping))


def _of_values(matrix: TallMatrix, sigma: np.ndarray, k: int, scores: np.ndarray) -> Found:
    """sigma: those of A as far as they are known, at least k, of which all k are positive."""
    gap = 1.0 - float(sigma[k] / sigma[k - 1]) if 0 < k < len(sigma) else math.inf
    cond = float(sigma[0] / sigma[k - 1]) if k else 1.0
    return Found(scores[: matrix.shape[0] // matrix.copies], k, float(k), cond, 10 * _EPS * cond, gap)


def _of_rank_by_iteration(request: Request, k: int) -> Found:
    """Subspace iteration from a random block until its slowest wanted direction is right to rtol, then Rayleigh-Ritz."""
    matrix = request.matrix
    n = matrix.shape[1]
    width = min(k + max(_EXTRA, k // 2), n)
    X = np.ascontiguousarray(Gaussian().sample(width, n, rng=request.seed).to_dense())
    images, unit = _first_images(matrix, X)
    error, steps = 1.0, 0
    while error > request.rtol / 4 and steps < _MOST_STEPS:
        if steps:
            images = matrix.evaluated(unit * X, None)[0]
        Q, R = scipy.linalg.qr(images.T, mode="economic")
        X, steps = np.ascontiguousarray(Q.T), steps + 1
        sizes = np.sort(np.abs(R.diagonal()))[::-1]
        error = float(sizes[-1] / sizes[k - 1]) ** steps if k < width < n and sizes[k - 1] > 0 else 0.0
    # Images near one in size.
    size = powers_of_two(np.sqrt(sizes[:1]) / math.sqrt(unit)) if sizes[0] > 0 else np.ones(1)
    basis = RowMap(np.ascontiguousarray(X.T), np.repeat(size, n))
    values, W = scipy.linalg.eigh(matrix.gram(basis))
    sigma, W = np.sqrt(np.maximum(values[::-1], 0)), W[:, ::-1]
    k = min(k, int(np.count_nonzero(values > _EPS * width * values[-1])))
    mapping = RowMap(np.ascontiguousarray(basis.T @ (W[:, :k] / sigma[:k])), basis.scale)
    found = _of_values(matrix, sigma, k, matrix.row_norms(mapping))
    found.relative_error = max(error, found.relative_error)
    return found


def _first_images(matrix: TallMatrix, X: np.ndarray) -> tuple[np.ndarray, float]:
    """A'A X as rows for X times a factor with which it can be represented, and that factor."""
    for unit in _UNITS:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            images = matrix.evaluated(unit * X, None)[0]
        largest = float(np.abs(images).max(initial=0.0))
        if 2.0**-700 < largest < math.inf:
            return images, unit
    if not math.isfinite(largest):
        raise ValueError("A must be finite; got NaN or infinite entries")
    return images, unit


def _sketched(request: Request) -> Found:
    """Squared norms of rows of A N for N from a sketch of d rows, without its bias.

    With D effective dimensions, E (A'S'SA + r I)^-1 is about (A'A + ridge I)^-1 / (1 - D / d) for r = (1 - D / d) ridge
    (Derezinski, Liang, Liao, Mahoney 2020).
    """
    matrix = request.matrix
    m, n = matrix.shape
    if m < n and not request.ridge:
        raise ValueError(
            f"ridge or rank must be given where A has fewer rows than columns and more than {LARGE_N} rows; got shape {(m, n)}"
        )
    if n > LARGE_N and request.ridge and (found := _of_few_dimensions(request)) is not None:
        return found
    rough, fine = request.rtol / 3, (1 + request.rtol) / (1 + request.rtol / 3) - 1
    columns = _columns_for(m, fine, n)
    projected = 2 * columns < n
    d = max(_rows_for(n, m, rough if projected else request.rtol, m), 4 * n)
    if d >= m:
        return _wide(request) if m < n else _exact(request)
    factor, shrinkage, dimension = _unbiased(request, d)
    mapping = factor.row_map()
    if projected:
        signs = Rademacher().sample(columns, mapping.rank, rng=request.seed).to_dense()
        if on_device(mapping.T):
            T = mapping.T @ like(mapping.T, signs).T
        else:
            T = np.ascontiguousarray(scipy.linalg.blas.dgemm(1.0, mapping.T.T, signs.T, trans_a=1))
        mapping = RowMap(T, mapping.scale)
    single = factor.cond * _SINGLE_EPS < 0.05 * request.rtol  # several times what rounding does
    scores = matrix.row_norms(mapping, single)
    scores *= shrinkage
    return Found(scores, factor.rank, dimension, factor.cond, request.rtol)


def _unbiased(request: Request, d: int) -> tuple[Factor, float, float]:
    """Factor of a sketch for the ridge that removes its bias, 1 - D / d, and D."""
    ridge = request.ridge
    factor = _sketch(request, d, small=False)
    dimension = factor.effective_dimension(ridge)
    shrinkage = _shrinkage(request.matrix, factor.rows, dimension)
    if ridge:
        reduced = shrinkage * ridge
        factor = _sketch(dataclasses.replace(request, ridge=reduced), d, small=False)
        dimension = factor.effective_dimension(reduced)
    return factor, shrinkage, dimension


def _shrinkage(matrix: TallMatrix, d: int, dimension: float) -> float:
    """The factor by which a Gram matrix is larger than the inverse of the mean of inverses from sketches of d rows."""
    free = 1 - dimension / d
    if isinstance(matrix.default_sketch, BlockSRHT):
        # Orthogonal rows, as if drawn without replacement: the inverse of a beta instead of a Wishart matrix.
        return free / max(1 - dimension / matrix.shape[0], free)
    return free


def _of_few_dimensions(request: Request) -> Found | None:
    """||a N||^2 = ||a Q T^-1||^2 + (||a||^2 - ||a Q||^2) / ridge from a sketch with fewer rows than A has columns; None where
    that is not enough for rtol."""
    matrix = request.matrix
    factor, shrinkage, dimension = _few_rows(request)
    if factor is None:
        return None
    inside = RowMap(np.ascontiguousarray(scipy.linalg.blas.dtrsm(1.0, factor.T, factor.Q, side=1)), factor.scale)
    Q = RowMap(np.ascontiguousarray(factor.Q), factor.scale)
    outside = matrix.row_squares() * factor.scale[0] ** 2 - matrix.row_norms(Q)
    scores = matrix.row_norms(inside) + np.maximum(outside, 0) / factor.ridge
    scores *= shrinkage
    return Found(scores, factor.rank, dimension, factor.cond, request.rtol)


def _few_rows(request: Request) -> tuple[RidgeFactor | None, float, float]:
    """The same as `_unbiased`, from as many rows as rtol asks for."""
    matrix = request.matrix
    m, n = matrix.shape
    d = _rows_for(0, m, request.rtol, n)
    while d < n:
        factor = _sketch(request, d, small=True, asked=d)
        if not isinstance(factor, RidgeFactor):
            break
        d, ridge = factor.rows, factor.ridge
        squares, shrinkage = np.maximum(scipy.linalg.eigvalsh(factor.R @ factor.R.T), 0), 1.0
        for _ in range(_FIXED_POINT):
            dimension = float((squares / (squares + shrinkage * ridge)).sum())
            shrinkage = _shrinkage(matrix, d, dimension)
        enough = _rows_for(1.02 * dimension, m, request.rtol, n)
        if d >= enough:
            T = ridge_root(factor.R, shrinkage * ridge)
            return RidgeFactor(factor.Q, factor.R, T, factor.sizes, shrinkage * ridge, factor.scale), shrinkage, dimension
        d = math.ceil(1.05 * enough)
    return None, 0.0, 0.0


def _rows_for(n: float, m: int, rtol: float, limit: int) -> int:
    """Rows of a Gaussian sketch for which a (R'R)^-1 a', which is (A'A)'s times d over chi-square with d - n + 1 degrees of
    freedom, is within a factor 1 +- rtol for all of m rows; `_FAILURE` is the probability of a miss. Beyond `limit` any
    number."""
    tail = _FAILURE / (2 * max(m, 1))

    def good(freedom: float) -> bool:
        low, high = scipy.stats.chi2.ppf(tail, freedom) / freedom, scipy.stats.chi2.isf(tail, freedom) / freedom
        return bool(low >= 1 / (1 + rtol) and (rtol >= 1 or high <= 1 / (1 - rtol)))

    return math.ceil(n) + _smallest(good, limit)


def _columns_for(m: int, rtol: float, limit: int) -> int:
    """Columns of random signs for which squared norms of m rows are kept within a factor 1 +- rtol: their tails are below those
    of a Gaussian matrix (Achlioptas 2003)."""
    tail = _FAILURE / (2 * max(m, 1))

    def good(freedom: float) -> bool:
        return bool(
            scipy.stats.chi2.isf(tail, freedom) <= (1 + rtol) * freedom
            and scipy.stats.chi2.ppf(tail, freedom) >= (1 - rtol) * freedom
        )

    return _smallest(good, limit)


def _smallest(good: Callable[[float], bool], limit: int) -> int:
    """A number near the smallest for which `good` holds, which it does from there on; beyond `limit` any number."""
    high = 8
    while not good(high):
        if high > limit:
            return high
        high *= 2
    low = high // 2
    while high - low > max(1, high // 64):
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high
