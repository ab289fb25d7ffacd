"""Random rows of a matrix, with the weights that make sums over them unbiased."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _check
from .._backend import Array, is_sparse, kind, namespace, on_device, same_device, sparse_matrix
from .._csr import row_numbers
from .._device_draws import Law, running_sums, uniform_numbers
from .._matrix import argument
from .._numeric import powers_of_two
from .._random import random_words
from ..blocks import RowBlocks, as_row_blocks
from ..families import _ROW_SAMPLE, RowSample
from ..leverage import leverage_scores
from ._determinantal import (
    Range,
    Rows,
    determinantal_sample,
    projection_sample,
    require_orthonormal,
    uniform,
)
from ._row_norms import canonical, relative_squares, row_norms

_BY_IMPORTANCE = ("uniform", "leverage", "ridge", "squared-norm", "poisson", "priority")
SCHEMES = (*_BY_IMPORTANCE, "volume", "dpp")

_ROWS, _ORDER = 12, 14  # streams, see docs/definitions.md


class SampledRows:
    """Sampled rows and their weights; unpacks as `indices, weights`. Arrays of the device where the matrix sampled is on one.

    Attributes
    ----------
    indices : ndarray of int64, (k,)
        Rows, in the order drawn where they are drawn with replacement, else ascending.
    weights : ndarray, (k,)
        E sum_s weights[s] f(indices[s]) = sum_i w_i f(i) for every f, with the row weights w of the call (1 without):
        `lstsq(A[indices], b[indices], weights=weights)` is the sampled problem.
    probabilities : ndarray, (m,)
        With replacement: of each row in each draw; for "volume" on average over the draws. "poisson" and "dpp": that a row is
        in the sample. "priority": the same, given the random numbers of the other rows.
    scheme : str
    seed : int
        Replays the run: pass it as `rng`.
    """

    def __init__(self, indices: Array, weights: Array, probabilities: Array, scheme: str, seed: int):
        self.indices, self.weights, self.probabilities = indices, weights, probabilities
        self.scheme, self.seed = scheme, seed

    def take(self, A: Any) -> Any:
        """diag(sqrt(weights)) A[indices]: rows whose Gram matrix estimates that of A without bias.

        A : array, (m,) or (m, n), CSR/CSC (gives CSR) or RowBlocks (read once). The dtype of A is kept. On the device for a
        sample of a matrix there.

        Raises
        ------
        TypeError, ValueError
            For unsuitable A, and where its number of rows is not that of the matrix sampled.
        """
        blocks = as_row_blocks(A)
        vector = blocks is None and not is_sparse(A) and np.ndim(A) == 1
        a: Any = blocks or (_check.array if vector else _check.matrix)(A, "A", device=True)
        same_device(A=a, indices=self.indices)
        m = len(self.probabilities)
        if a.shape[0] != m:
            raise ValueError(f"A must have {m} rows, as the matrix sampled; got shape {tuple(a.shape)}")
        roots = np.sqrt(self.weights).astype(_check.real_dtype(a.dtype))
        if vector:
            return a[self.indices] * roots
        if is_sparse(a):
            rows = a[self.indices]
            data = rows.data * (roots[row_numbers(rows)] if on_device(a) else np.repeat(roots, np.diff(rows.indptr)))
            return sparse_matrix(data, rows.indices, rows.indptr, rows.shape)
        rows = Rows(a).take(self.indices).astype(a.dtype) if isinstance(a, RowBlocks) else a[self.indices]
        return rows * roots[:, None]

    def __iter__(self) -> Iterator[Array]:
        return iter((self.indices, self.weights))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, item: Any) -> Any:
        return (self.indices, self.weights)[item]

    def __repr__(self) -> str:
        m = len(self.probabilities)
        return f"SampledRows({len(self.indices)} of {m} rows, scheme={self.scheme!r}, seed={self.seed})"


def sample_rows(
    A_or_scores: Any,
    k: int | None,
    *,
    scheme: str = "leverage",
    ridge: float = 0.0,
    weights: Any = None,
    defensive: float = 0.0,
    rng: Any = None,
) -> SampledRows:
    """Draw rows of A by importance, with weights that make sums over the sample unbiased.

    Parameters
    ----------
    A_or_scores : array, CSR/CSC or RowBlocks, (m, n), or vector (m,)
        A matrix, or the importance of each row: not negative, in any unit. "volume" and "dpp" need the matrix, on the host;
        for the others it may be an array of a CUDA device, where the sample is then made, without vectors of m numbers crossing
        to the host or from there. "uniform" draws the rows that it draws on the host; the others differ from the host's
        draws by the same probabilities where a random number falls within rounding of the border between two rows.
    k : int
        Rows to draw, at least 1; "poisson": on average; "volume": at least rank(A); "dpp": at most rank(A), or None.
    scheme : str
        k draws with replacement, p_i proportional to
        "uniform": 1;
        "leverage": the leverage score (Drineas, Mahoney, Muthukrishnan 2006), for least squares: k of order n log n + n / eps
        give a residual within 1 + eps of the smallest;
        "ridge": the ridge leverage score;
        "squared-norm": ||a_i||^2 (Frieze, Kannan, Vempala 2004).
        Without replacement, the importance of a matrix being its (ridge) leverage:
        "poisson": each row by itself with probability min(1, c s_i); the size is random, E size = min(k, rows of s_i > 0);
        "priority": the k largest s_i / u_i of uniform u_i; min(k, rows of s_i > 0) rows (Duffield, Lund, Thorup 2007).
        Repelling each other:
        "volume": leveraged volume sampling, rank(A) rows of a projection DPP and k - rank(A) draws by leverage, mixed: the
        solution of the sampled least-squares problem is unbiased, E x_S = x, as is its Gram matrix (Dereziński, Warmuth,
        Hsu 2018). A row may come more than once;
        "dpp": for k = None the L-ensemble of A A', of random size; else the k-DPP of A A', for k = rank(A) the projection DPP
        on the range of A (Kulesza, Taskar 2012). Exact. Eigenvalues below (10 eps)^2 times the largest count as zero.
    ridge : float
        For "ridge", where it must be positive, "poisson" and "priority".
    weights : array, (m,)
        Row weights w >= 0 of a least-squares problem: rows are drawn as those of diag(sqrt(w)) A, and the weights returned
        contain w. An importance given as a vector is taken as it is.
    defensive : float
        Share g in [0, 1] of uniform sampling: p <- (1 - g) p + g / m bounds the weights. Not for "volume" and "dpp".
    rng : as in SPEC 7

    Returns
    -------
    SampledRows

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries, and where no row has a positive importance.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}; got {scheme!r}")
    a, scores = _matrix_or_scores(A_or_scores)
    given = a if scores is None else scores
    if on_device(given) and scheme not in _BY_IMPORTANCE:
        raise TypeError(f"A must be on the host for scheme {scheme!r}; got {kind(given)}, for {', '.join(_BY_IMPORTANCE)} only")
    m = len(scores) if scores is not None else a.shape[0]
    if m == 0:
        raise ValueError(f"A must have rows to draw from; got shape {(0,) if a is None else tuple(a.shape)}")
    size = 0 if k is None and scheme == "dpp" else _check.integer(k, "k", 1, 2**31 - 1)
    ridge, g = _check.real(ridge, "ridge", strict=scheme == "ridge"), _check.real(defensive, "defensive")
    if ridge and scheme not in ("ridge", "poisson", "priority"):
        raise ValueError(f"ridge must be 0 for scheme {scheme!r}; got {ridge:g}")
    limit = 0 if scheme in ("volume", "dpp") else 1
    if g > limit:
        raise ValueError(f"defensive must be at most {limit} for scheme {scheme!r}; got {g:g}")
    w = None
    if weights is not None:
        same_device(A=given, weights=weights)
        w = _check.weights(weights, m, device=True)
    seed = _check.seed(rng)
    if scheme in ("volume", "dpp"):
        if a is None:
            raise ValueError(f"scheme {scheme!r} must have the matrix itself; got a vector of {m} scores")
        return _volume(a, size, w, seed) if scheme == "volume" else _determinantal(a, size or None, w, seed)
    if scheme == "uniform":
        return _uniform(given, m, size, w, seed)
    importance = _importance(a, scheme, ridge, w, seed) if scores is None else scores
    p = _probabilities(importance)
    p = (1 - g) * p + g / m if g else p
    if scheme == "poisson":
        inclusion = inclusion_probabilities(p, size)
        index = namespace(p).flatnonzero(_row_numbers(p, seed) < inclusion)
        return SampledRows(index, _times(w, index, 1 / inclusion[index]), inclusion, scheme, seed)
    if scheme == "priority":
        return _priority(p, size, w, seed)
    return _independent(p, size, w, scheme, seed)


def sample_dpp(
    factor: Any, k: int | None = None, *, eigenvalues: Any = None, projection: bool = False, rng: Any = None
) -> SampledRows:
    """Draw rows from the determinantal point process whose kernel is given by a factor F, (m, r).

    Exact, in O(m r^2) and O(r^3 log r) operations. As `sample_rows(F, k, scheme="dpp")`, and for a kernel whose
    eigenvectors are at hand.

    Parameters
    ----------
    factor : array, CSR/CSC or RowBlocks, (m, r)
    k : int
        None: the L-ensemble of L = F F', P(S) = det(L_S) / det(I + L). Else the k-DPP, P(S) proportional to det(L_S) for
        |S| = k.
    eigenvalues : array, (r,)
        Those of L, not negative; the columns of F are then its orthonormal eigenvectors, L = F diag(eigenvalues) F'.
    projection : bool
        The columns of F are orthonormal: the DPP with marginal kernel F F' of r rows, or for k < r its k-DPP.
    rng : as in SPEC 7

    Returns
    -------
    SampledRows
        With indices ascending and exact inclusion probabilities.

    Raises
    ------
    TypeError, ValueError
        For unsuitable arguments; ValueError for NaN or infinite entries, for k above the rank, and for columns that are not
        orthonormal, to the root of the rounding unit, where they should be.
    """
    if projection and eigenvalues is not None:
        raise ValueError("eigenvalues must be None for projection=True, where all of them are one or zero")
    a = _rows_argument(factor)
    if k is not None:
        k = _check.integer(k, "k", 1)
    seed = _check.seed(rng)
    if eigenvalues is None and not projection:
        return _determinantal(a, k, None, seed)
    rows, r = Rows(a), a.shape[1]
    require_orthonormal(rows)
    if eigenvalues is not None:
        values = _eigenvalues(eigenvalues, r)
        positive = np.flatnonzero(values)
        N = None if len(positive) == r else np.eye(r)[:, positive]
        if k is not None:
            _check_size(k, len(positive))
        index, inclusion = determinantal_sample(rows, N, np.log(values[positive]), k, seed)
    elif k is None or k == r:
        leverage = rows.squares(None, np.ones((r, 1)))[:, 0]
        index = np.sort(projection_sample(rows, None, leverage, r, seed))
        inclusion = np.minimum(leverage, 1)
    else:
        _check_size(k, r)
        index, inclusion = determinantal_sample(rows, None, np.zeros(r), k, seed)
    return SampledRows(index, 1 / inclusion[index], inclusion, "dpp", seed)


def _eigenvalues(value: Any, r: int) -> np.ndarray:
    values = _check.real_array(value, "eigenvalues")
    if values.shape != (r,):
        raise ValueError(f"eigenvalues must have shape ({r},), one for each column of the factor; got {values.shape}")
    _check.finite(values, "eigenvalues")
    if r and values.min() < 0:
        raise ValueError(f"eigenvalues must not be negative; got {values.min():g}")
    return values.astype(np.float64)


def inclusion_probabilities(scores: Array, k: int) -> Array:
    """min(1, c scores) with the c for which they sum to k; 1 for all positive scores where these are k or fewer."""
    xp = namespace(scores)
    if int(xp.count_nonzero(scores)) <= k:
        return (scores > 0).astype(np.float64)
    rising = xp.sort(scores)
    falling = rising[::-1]
    # With the t largest at one, c is (k - t) / (sum of the others): right for the first t at which no other one exceeds one.
    tails = (np.cumsum(rising) if xp is np else running_sums(rising) * rising[-1])[::-1]
    t = int(xp.argmax((k - xp.arange(k)) * falling[:k] <= tails[:k]))
    return xp.minimum(scores * ((k - t) / tails[t]), 1)


def _matrix_or_scores(value: Any) -> tuple[Any, Array | None]:
    sparse_or_operator = sp.issparse(value) or hasattr(value, "matvec")
    if as_row_blocks(value) is None and not sparse_or_operator and np.ndim(value) == 1:
        scores = _check.real_array(value, "scores", device=True)
        _check.finite(scores, "scores")
        if len(scores) and scores.min() < 0:
            raise ValueError(f"scores must not be negative; got {float(scores.min()):g}")
        if len(scores) and not scores.any():
            raise ValueError(f"scores must not all be zero; got {len(scores)} zeros")
        return None, scores
    return _rows_argument(value, device=True), None


def _rows_argument(value: Any, *, device: bool = False) -> Any:
    a = argument(value, device=device)
    if not (isinstance(a, np.ndarray | RowBlocks) or sp.issparse(a) or on_device(a)):
        raise TypeError(f"A must be an array, a sparse matrix or row blocks; got {type(value).__name__}")
    return a


def _importance(a: Any, scheme: str, ridge: float, w: Array | None, seed: int) -> Array:
    """What the rows of diag(sqrt(w)) A are drawn in proportion to."""
    scores = _squared_norms(a, w) if scheme == "squared-norm" else leverage_scores(a, ridge=ridge, weights=w, rng=seed)
    if not scores.any():
        raise ValueError(f"A must have a row that is not zero, for scheme {scheme!r}; got only zeros")
    return scores


def _squared_norms(a: Any, w: Array | None) -> Array:
    """Squared norms of the rows, relative to the largest."""
    if on_device(a):
        return relative_squares(a, w)
    out = np.empty(a.shape[0])
    for i0, piece in Rows(a).pieces():
        out[i0 : i0 + piece.shape[0]] = row_norms(canonical(piece) if sp.issparse(piece) else piece, "A")
    if w is not None:
        roots = np.sqrt(w)
        out = out * powers_of_two(out.max()) * (roots * powers_of_two(roots.max()))
    return (out * powers_of_two(out.max())) ** 2


def _probabilities(importance: Array) -> Array:
    law = Law(importance.astype(np.float64)) if on_device(importance) else RowSample(importance)
    return law.probabilities


def _row_words(m: int, seed: int) -> np.ndarray:
    """One random word for each row."""
    out = np.empty(m, np.uint64)
    step = 1 << 20
    for i in range(0, m, step):
        index = np.arange(i, min(i + step, m), dtype=np.uint64)
        out[i : i + step] = random_words(index, 0, _ROWS, seed)[:, 0]
    return out


def _row_numbers(p: Array, seed: int) -> Array:
    """One uniform number for each row, where p is."""
    return uniform_numbers(p, len(p), _ROWS, seed) if on_device(p) else uniform(_row_words(len(p), seed))


def _times(w: Array | None, index: Array, weights: Array) -> Array:
    return weights if w is None else w[index] * weights


def _uniform(a: Any, m: int, k: int, w: Array | None, seed: int) -> SampledRows:
    xp = namespace(a)
    p = xp.full(m, 1 / m)
    if xp is np:
        index, weights = _entries(RowSample(), m, k, seed)
    else:
        index = xp.minimum((uniform_numbers(a, k, _ROW_SAMPLE, seed) * m).astype(np.int64), m - 1)
        weights = xp.full(k, m / k)
    return SampledRows(index, _times(w, index, weights), p, "uniform", seed)


def _independent(p: Array, k: int, w: Array | None, scheme: str, seed: int) -> SampledRows:
    if on_device(p):
        law = Law(p)
        index = law.draw(uniform_numbers(p, k, _ROW_SAMPLE, seed))
        p = law.probabilities
        weights = 1 / (k * p[index])
    else:
        sample = RowSample(p)
        index, weights = _entries(sample, len(p), k, seed)
        p = sample.probabilities
    return SampledRows(index, _times(w, index, weights), p, scheme, seed)


def _entries(law: RowSample, m: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k rows, and their weights in a sum."""
    columns, values = law._entries(law.sample(k, m, rng=seed))
    return columns[:, 0], values[:, 0] ** 2


def _priority(p: Array, k: int, w: Array | None, seed: int) -> SampledRows:
    xp = namespace(p)
    u = 2.0**-53 + _row_numbers(p, seed)
    if int(xp.count_nonzero(p)) <= k:
        threshold, index = 0.0, xp.flatnonzero(p)
    else:
        ranks = p / u
        threshold = float(xp.partition(ranks, len(p) - k - 1)[len(p) - k - 1])
        above, ties = xp.flatnonzero(ranks > threshold), xp.flatnonzero(ranks == threshold)
        index = xp.sort(xp.concatenate([above, ties[: k - len(above)]]))
    inclusion = xp.minimum(1, p / threshold) if threshold else (p > 0).astype(np.float64)
    return SampledRows(index, _times(w, index, 1 / inclusion[index]), inclusion, "priority", seed)


def _check_size(k: int, rank: int, at_least: bool = False) -> None:
    if k < rank if at_least else k > rank:
        raise ValueError(f"k must be at {'least' if at_least else 'most'} the rank, {rank}; got {k}")


def _volume(a: Any, k: int, w: np.ndarray | None, seed: int) -> SampledRows:
    basis = Range(a, w)
    if basis.rank == 0:
        raise ValueError("A must have a row that is not zero, for scheme 'volume'; got only zeros")
    _check_size(k, basis.rank, at_least=True)
    leverage = basis.leverage()
    index = projection_sample(basis.rows, basis.N, leverage, basis.rank, seed)
    law = RowSample(leverage)
    if k > basis.rank:
        more, _ = law._entries(law.sample(k - basis.rank, len(leverage), rng=seed))
        index = np.concatenate([index, more[:, 0]])
    order = random_words(np.arange(k, dtype=np.uint64), 0, _ORDER, seed)[:, 0]
    index = index[np.argsort(order, kind="stable")]
    return SampledRows(index, _times(w, index, 1 / (k * law.probabilities[index])), law.probabilities, "volume", seed)


def _determinantal(a: Any, k: int | None, w: np.ndarray | None, seed: int) -> SampledRows:
    basis = Range(a, w)
    if k is not None and k == basis.rank:
        leverage = basis.leverage()
        index, inclusion = np.sort(projection_sample(basis.rows, basis.N, leverage, k, seed)), np.minimum(leverage, 1)
    else:
        log_values, W = basis.spectrum()
        if k is not None:
            _check_size(k, len(log_values))
        index, inclusion = determinantal_sample(basis.rows, basis.N @ W, log_values, k, seed)
    return SampledRows(index, _times(w, index, 1 / inclusion[index]), inclusion, "dpp", seed)
