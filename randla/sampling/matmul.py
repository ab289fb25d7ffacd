"""Matrix products from samples or sketches of the inner index, unbiased and with an estimate of their error."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._random import random_words, uniform
from ..blocks import as_row_blocks
from ..families import Distribution, Gaussian, RowSample, SparseStack, _Listed, _Stack
from ._row_norms import canonical, row_norms

__all__ = ["CoordinatedSketch", "MatmulResult", "coordinated_sketch", "sketched_matmul"]

SCHEMES = ("coordinated", "squared-norm", "sketch")

_COORDINATED = 17  # stream, see docs/definitions.md
_LARGEST_NORM = 2.0**990  # a priority is up to 2^27 times the norm


@dataclasses.dataclass(eq=False)
class MatmulResult(np.lib.mixins.NDArrayOperatorsMixin):
    """An approximate product C of A @ B; stands for the array C in NumPy functions and arithmetic.

    Attributes
    ----------
    product : ndarray (m, p)
        E[product] = A @ B.
    error : float
        Estimate of the Frobenius error: root of an estimate of E ||C - A B||_F^2 made from the sample; 0 where every term was
        taken, inf where one draw is all there is and the variance has no bound.
    error_bound : float or None
        Upper bound of the root mean square Frobenius error where theory gives one.
    scheme : str
    sample_size : int
        The k asked for.
    seed : int
        Replays the run: pass it as `rng`.
    indices, weights : ndarray (count,) or None
        C = sum_s weights[s] A[:, indices[s]] B[indices[s], :]; None for scheme "sketch".
    """

    product: np.ndarray
    error: float
    error_bound: float | None
    scheme: str
    sample_size: int
    seed: int
    indices: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.product.shape

    @property
    def dtype(self) -> np.dtype:
        return self.product.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.product, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [value.product if isinstance(value, MatmulResult) else value for value in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __repr__(self) -> str:
        return (
            f"MatmulResult(shape={self.shape}, error={self.error:.3g}, scheme={self.scheme!r}, "
            f"sample_size={self.sample_size}, seed={self.seed})"
        )


def sketched_matmul(
    A: Any, B: Any, k: int, *, scheme: str = "coordinated", sketch: Distribution | None = None, rng: Any = None
) -> MatmulResult:
    """An unbiased approximation of A @ B that uses about k of the inner indices, or k mixtures of them.

    With a_i the columns of A and b_i the rows of B, A @ B = sum_i a_i b_i.

    Parameters
    ----------
    A : array or CSR/CSC matrix (m, n)
    B : array or CSR/CSC matrix (n, p)
        Float32, float64, complex64, complex128; integers are converted to float64. Complex numbers are not conjugated.
    k : int
        At least 1. The product is exact, but for rounding, where k is at least the number of terms that are not zero
        ("coordinated": of vectors of either factor; "sketch": n).
    scheme : str
        "coordinated" : each factor keeps the k indices of largest ||a_i|| / sqrt(u_i), or ||b_i|| / sqrt(u_i), with one u_i for
        both, without looking at the other; terms kept by both are weighted by the inverse of their probability (Daliri, Freire,
        Li, Musco 2025). For sparse factors that share few indices, and for factors at different places: `coordinated_sketch`.
        "squared-norm" : k independent draws with probabilities proportional to ||a_i|| ||b_i||, the squared norms where B = A':
        the smallest variance of all independent draws (Drineas, Kannan, Mahoney 2006).
        "sketch" : (A S') (S B) with k rows of S. `error` is an over-estimate, by up to a half, for BlockSRHT and SRTT.
    sketch : Distribution, optional
        For "sketch"; by default SparseStack().
    rng : SPEC 7

    Returns
    -------
    MatmulResult
        The (m, p) product, dense, in the common dtype of A and B.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not go together, NaN and infinite entries, unknown schemes and dtypes.
    """
    left, right = _inner_rows(A, "A", transpose=True), _inner_rows(B, "B")
    if left.shape[0] != right.shape[0]:
        raise ValueError(
            f"B must have as many rows as A has columns, {left.shape[0]}; got shapes {left.shape[::-1]} and {right.shape}"
        )
    k, seed = _check.integer(k, "k", 1), _check.seed(rng)
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(map(repr, SCHEMES))}; got {scheme!r}")
    if sketch is not None and (scheme != "sketch" or not isinstance(sketch, Distribution)):
        raise TypeError(f"sketch must be a Distribution, and is for scheme 'sketch'; got {sketch!r} for {scheme!r}")
    if scheme == "coordinated":
        result = _keep(left, "A", k, 0, seed).product(_keep(right, "B", k, 0, seed))
        return dataclasses.replace(result, sample_size=k)
    norms = row_norms(left, "A"), row_norms(right, "B")
    if scheme == "squared-norm":
        return _drawn(left, right, *norms, k, seed)
    return _mixed(left, right, *norms, k, SparseStack() if sketch is None else sketch, seed)


def _inner_rows(value: Any, name: str, *, transpose: bool = False) -> _check.Matrix:
    """The factor with the inner index as its rows, checked."""
    if sp.issparse(value):
        return canonical(_check.csr(value.T if transpose else value, name))
    a = _check.matrix(value, name)
    return a.T if transpose else a


def _weighted_product(left: _check.Matrix, right: _check.Matrix, weights: np.ndarray) -> np.ndarray:
    """sum_s weights[s] left[s]' right[s], dense."""
    dtype = np.result_type(left.dtype, right.dtype)
    w = weights.astype(_check.real_dtype(dtype), copy=False)
    if sp.issparse(left):
        scaled = sp.csr_array((left.data * np.repeat(w, np.diff(left.indptr)), left.indices, left.indptr), shape=left.shape)
    else:
        scaled = left * w[:, None]
    out = scaled.T @ right
    return np.asarray(out.toarray() if sp.issparse(out) else out, dtype=dtype)


def _scaled(norms: np.ndarray) -> tuple[np.ndarray, int]:
    """Norms divided by a power of two near the largest, whose squares and products cannot overflow; its exponent."""
    exponent = int(np.frexp(norms.max(initial=0.0))[1])
    return np.ldexp(norms, -exponent), exponent


def _sum_of_squares(a: np.ndarray, exponent: int) -> float:
    """||a / 2^exponent||_F^2"""
    parts = (a.real, a.imag) if a.dtype.kind == "c" else (a,)
    return sum(float(np.sum(np.square(np.ldexp(part.astype(np.float64, copy=False), -exponent)))) for part in parts)


def _root(square: float, exponent: int) -> float:
    """sqrt(square) 2^exponent; what rounding made negative is zero, what overflowed infinite."""
    if not math.isfinite(square):
        return math.inf
    with np.errstate(over="ignore"):
        return float(np.ldexp(math.sqrt(max(square, 0.0)), exponent))


# One sample for each factor, the two coordinated by the numbers u_i that they share.


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CoordinatedSketch:
    """The rows of a matrix X that its owner keeps so that X' Y can be estimated for every Y kept in the same way.

    Made by `coordinated_sketch`; plain data that pickles.

    Attributes
    ----------
    indices : ndarray (count,), int64
        The kept rows in increasing order, count <= k.
    rows : ndarray or csr_array (count, d)
    norms : ndarray (count,)
        Norms of the kept rows.
    threshold : float
        The largest priority ||x_i|| / sqrt(u_i) that was not kept; 0 where every nonzero row was.
    norm : float
        ||X||_F.
    k : int
    seed : int
        What another sketch needs as `rng` to go with this one.
    """

    indices: np.ndarray
    rows: _check.Matrix
    norms: np.ndarray
    threshold: float
    norm: float
    k: int
    seed: int

    def merge(self, other: CoordinatedSketch) -> CoordinatedSketch:
        """The sketch of both sets of rows: of the whole matrix, where each was made of a part of its rows.

        Raises ValueError for another seed, k or number of columns, and for rows that both have.
        """
        self._require_seed(other)
        if other.k != self.k or other.rows.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"other must have k = {self.k} and {self.rows.shape[1]} columns; got k = {other.k} and {other.rows.shape[1]}"
            )
        indices = np.concatenate([self.indices, other.indices])
        if len(np.unique(indices)) < len(indices):
            raise ValueError("other must be of other rows; got some of those that are here")
        both = (self.rows, other.rows)
        if any(sp.issparse(rows) for rows in both):
            rows = sp.csr_array(sp.vstack([sp.csr_array(rows) for rows in both], format="csr"))
        else:
            rows = np.concatenate(both)
        norms, norm = np.concatenate([self.norms, other.norms]), math.hypot(self.norm, other.norm)
        kept, threshold = _largest(_priorities(norms, indices, self.seed), indices, self.k)
        threshold = max(threshold, self.threshold, other.threshold)
        return CoordinatedSketch(indices[kept], rows[kept], norms[kept], threshold, norm, self.k, self.seed)

    def product(self, other: CoordinatedSketch) -> MatmulResult:
        """The estimate of X' Y (d, e) from the sketches of X and of Y; without conjugation.

        Unbiased. error_bound^2 = (1 / (k - 1) + 1 / (other.k - 1)) ||X||_F^2 ||Y||_F^2, without the term of a sketch that kept
        every nonzero row. Raises ValueError where the seeds differ.
        """
        self._require_seed(other)
        indices, i, j = np.intersect1d(self.indices, other.indices, assume_unique=True, return_indices=True)
        with np.errstate(divide="ignore"):
            chance = np.minimum(1.0, np.minimum(self.norms[i] / self.threshold, other.norms[j] / other.threshold) ** 2)
        weights = 1 / chance
        (x, x_exponent), (y, y_exponent) = _scaled(self.norms), _scaled(other.norms)
        exponent = x_exponent + y_exponent
        infinite = any(s.threshold > 0 and s.k == 1 for s in (self, other))  # E[1 / chance] is
        square = float(np.sum((x[i] * y[j]) ** 2 * (1 - chance) * weights**2))
        error = math.inf if infinite else _root(square, exponent)
        parts = sum(1 / (s.k - 1) for s in (self, other) if s.threshold > 0 and s.k > 1)
        bound = math.inf if infinite else math.sqrt(parts) * self.norm * other.norm
        product = _weighted_product(self.rows[i], other.rows[j], weights)
        return MatmulResult(product, error, bound, "coordinated", max(self.k, other.k), self.seed, indices, weights)

    def _require_seed(self, other: CoordinatedSketch) -> None:
        if not isinstance(other, CoordinatedSketch):
            raise TypeError(f"other must be a CoordinatedSketch; got {type(other).__name__}")
        if other.seed != self.seed:
            raise ValueError(f"other must have seed {self.seed}, as two seeds do not share numbers; got {other.seed}")

    def __repr__(self) -> str:
        return f"CoordinatedSketch({len(self.indices)} rows of {self.rows.shape[1]} columns, k={self.k}, seed={self.seed})"


def coordinated_sketch(X: Any, k: int, *, offset: int = 0, rng: Any = None) -> CoordinatedSketch:
    """Keep the k rows of X that matter for products X' Y with any Y sketched under the same seed.

    `coordinated_sketch(X, k, rng=seed).product(coordinated_sketch(Y, k, rng=seed))` estimates X' Y. The two may be made at
    different places and times, and in parts: sketches of disjoint ranges of rows merge (Daliri, Freire, Li, Musco 2025).

    Parameters
    ----------
    X : array, CSR/CSC matrix or RowBlocks (n, d)
        Row i of X meets row i of Y. Blocks of rows are read once and not kept.
    k : int
        Rows to keep, at least 1.
    offset : int
        The index of the first row of X, for a part of a larger matrix.
    rng : SPEC 7

    Returns
    -------
    CoordinatedSketch
        The rows kept, with the seed that the sketch of Y needs.

    Raises
    ------
    ValueError, TypeError
        For NaN and infinite entries, rows of norm 2^990 or more, unsuitable shapes and dtypes.
    """
    k, offset, seed = _check.integer(k, "k", 1), _check.integer(offset, "offset", 0, 2**62), _check.seed(rng)
    blocks = as_row_blocks(X)
    if blocks is None:
        return _keep(_inner_rows(X, "X"), "X", k, offset, seed)
    out = _keep(np.zeros((0, blocks.shape[1]), blocks.dtype), "X", k, offset, seed)
    for first, block in blocks:
        out = out.merge(_keep(canonical(block) if sp.issparse(block) else block, "X", k, offset + first, seed))
    return out


def _priorities(norms: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
    """||x_i|| / sqrt(u_i): the order of Duffield, Lund, Thorup 2007 for squared norms, which themselves could overflow."""
    word = random_words(indices.astype(np.uint64), 0, _COORDINATED, seed)[:, 0]
    return norms / np.sqrt(uniform(word) + 2.0**-53)


def _largest(priorities: np.ndarray, indices: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Places of the k largest priorities, in the order of their indices, and the largest of the others."""
    count = len(priorities)
    if count <= k:
        return np.argsort(indices), 0.0
    threshold = float(np.partition(priorities, count - k - 1)[count - k - 1])
    above, equal = np.flatnonzero(priorities > threshold), np.flatnonzero(priorities == threshold)
    kept = np.concatenate([above, equal[np.argsort(indices[equal])][: k - len(above)]])
    return kept[np.argsort(indices[kept])], threshold


def _keep(X: _check.Matrix, name: str, k: int, offset: int, seed: int) -> CoordinatedSketch:
    norms = row_norms(X, name)
    if not (norms < _LARGEST_NORM).all():
        raise ValueError(f"{name} must have vectors of norm below 2^990 along the inner index; got one of {norms.max():.3g}")
    places = np.flatnonzero(norms)
    nonzero, indices = norms[places], places + offset
    kept, threshold = _largest(_priorities(nonzero, indices, seed), indices, k)
    scaled, exponent = _scaled(nonzero)
    norm = _root(float(scaled @ scaled), exponent)
    return CoordinatedSketch(indices[kept], X[places[kept]], nonzero[kept], threshold, norm, k, seed)


# Independent draws.


def _drawn(
    left: _check.Matrix, right: _check.Matrix, left_norms: np.ndarray, right_norms: np.ndarray, k: int, seed: int
) -> MatmulResult:
    (x, x_exponent), (y, y_exponent) = _scaled(left_norms), _scaled(right_norms)
    importance, exponent = x * y, x_exponent + y_exponent
    total, terms = float(importance.sum()), np.flatnonzero(importance)
    if len(terms) <= k:
        ones = np.ones(len(terms))
        return MatmulResult(_weighted_product(left[terms], right[terms], ones), 0.0, 0.0, "squared-norm", k, seed, terms, ones)
    S = RowSample(importance).sample(k, len(importance), rng=seed)
    columns, roots = S.distribution._entries(S)  # type: ignore[attr-defined]
    indices, weights = columns[:, 0], roots[:, 0] ** 2
    places, first, count = np.unique(indices, return_index=True, return_counts=True)
    product = _weighted_product(left[places], right[places], weights[first] * count)
    # Every draw has the same norm, total: their sample variance needs no more than the norm of the mean.
    square = total**2 - _sum_of_squares(product, exponent)
    error, bound = (_root(square / (k - 1), exponent) if k > 1 else math.inf), _root(total**2 / k, exponent)
    return MatmulResult(product, error, bound, "squared-norm", k, seed, indices, weights)


# Sketches.


def _mixed(
    left: _check.Matrix,
    right: _check.Matrix,
    left_norms: np.ndarray,
    right_norms: np.ndarray,
    k: int,
    family: Distribution,
    seed: int,
) -> MatmulResult:
    n = len(left_norms)
    if k >= n:
        return MatmulResult(_weighted_product(left, right, np.ones(n)), 0.0, 0.0, "sketch", k, seed)
    S = family.sample(k, n, rng=seed)
    SX, SY = S @ left, S @ right
    product = SX.T @ SY
    (x, x_exponent), (y, y_exponent) = _scaled(left_norms), _scaled(right_norms)
    exponent = x_exponent + y_exponent
    if isinstance(family, _Listed):
        # The k rows of S are independent: the sample variance of the terms that they add.
        terms = (row_norms(SX, "A"), row_norms(SY, "B"))
        sum_of_squares = float(np.sum(np.square(np.ldexp(terms[0], -x_exponent) * np.ldexp(terms[1], -y_exponent))))
        error = _root((k * sum_of_squares - _sum_of_squares(product, exponent)) / (k - 1), exponent) if k > 1 else math.inf
        return MatmulResult(product, error, None, "sketch", k, seed)
    # Entries i != j of S'S have mean square 1 / width and are uncorrelated, so that
    # width V = F + ||A conj(B)||^2 - 2 D for V = E ||C - A B||^2, and the like for A conj(B), whose own V this takes.
    width = _pair_width(family, k)
    F, D = float((x @ x) * (y @ y)), 0.0 if isinstance(family, Gaussian) else float(np.sum((x * y) ** 2))
    own = _sum_of_squares(product, exponent)
    other = _sum_of_squares(SX.T @ SY.conj(), exponent) if product.dtype.kind == "c" else own
    known, known_other = F + other - 2 * D, F + own - 2 * D
    if product.dtype.kind == "c" and width > 1:
        # width V + V' = known, V + width V' = known_other
        variance = (width * known - known_other) / (width**2 - 1)
    else:
        variance = known / (width + 1)
    return MatmulResult(product, _root(variance, exponent), _root(2 * F / width, exponent), "sketch", k, seed)


def _pair_width(family: Distribution, k: int) -> float:
    """1 / E[(S'S)_ij^2] for i != j: k, or a little less where the blocks of a SparseStack differ in size."""
    if not isinstance(family, _Stack):
        return float(k)
    blocks = min(family.nnz, k)
    sizes = k // blocks + (np.arange(blocks) < k % blocks)
    return blocks**2 / float(np.sum(1 / sizes))
