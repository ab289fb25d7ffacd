"""One truncated decomposition of a matrix with at least as many rows as columns: start, growth, error estimate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import scipy.linalg

from .. import _check
from .._backend import kernels, like, on_device, to_host
from .._random import random_words
from ..result import HasStatus
from ..sketch import BlockSRHT, Gaussian, SparseStack
from ._adapted import ScaledOperand, dense, exponent_for
from ._krylov import Basis, start_from_sketch
from ._operand import Operand
from ._products import norm_of, product
from ._range import gram, householder, orthonormalize
from .result import LowRankStatus

_STREAM = 22
_PROBES = 10

# Full decompositions: of matrices with at most so many entries, where the rank asked for is not far below the smaller side.
_LAPACK_ENTRIES = 1 << 25
_LAPACK_ALWAYS = 1 << 14
# Stop where what further blocks would gain is this part of the squared error; more than _POOR of it is worth a warning.
_GAIN, _POOR = 5e-5, 0.02
# Times eps: below this part of ||A||_F^2 a difference of squares does not tell the error.
_CANCELLED = 1e3
_SETTLED = 0.95
_TOLERANCE_PROBES, _TOLERANCE_MARGIN = 16, 1.5


@dataclasses.dataclass(repr=False)
class SVDResult(HasStatus):
    """A truncated singular value decomposition A ~ U diag(s) Vh with its evidence; unpacks as U, s, Vh.

    Attributes
    ----------
    U : ndarray (m, k)
        Orthonormal columns; the largest entry of each is real and positive.
    s : ndarray (k,)
        Falling, in the real dtype of A. None is above the singular value of A that it stands for, but for rounding.
    Vh : ndarray (k, n)
        Orthonormal rows.
    error : float
        ||A - U diag(s) Vh||_F: from ||A||_F by Pythagoras where rounding lets it, else an estimate.
    relative_error : float
        error / norm.
    norm : float
        ||A||_F, an estimate for operators.
    s_upper : ndarray (k,)
        sigma_i <= s_upper_i, as far as `error` is exact: sqrt(s_i^2 + distance of A from the basis, squared).
    error_source : str
        "norm" (exact up to rounding), "probes" (random vectors, which the approximation has not seen), "leave-one-out"
        (Epperly, Tropp 2024), or "lapack".
    dim : int
        Dimension of the basis from which the k vectors were taken.
    method : str
        "krylov", "subspace" or "lapack".
    passes : int
        Reads of A.
    mean : ndarray (n,) or None
        With `center`: the means of the columns.
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    U: np.ndarray
    s: np.ndarray
    Vh: np.ndarray
    error: float
    norm: float
    s_upper: np.ndarray
    error_source: str
    dim: int
    method: str
    passes: int
    mean: np.ndarray | None
    seed: int
    status: LowRankStatus
    notes: str = ""

    @property
    def relative_error(self) -> float:
        return self.error / self.norm if self.norm else 0.0

    @property
    def rank(self) -> int:
        return len(self.s)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.U, self.s, self.Vh))

    def __repr__(self) -> str:
        names = ("status", "rank", "error", "relative_error", "error_source", "method", "dim", "passes", "seed")
        rows = [f"{name:>16}: {getattr(self, name)}" for name in names]
        s = np.array2string(to_host(self.s), threshold=8)
        return "\n".join([f"{'message':>16}: {self.message}", *rows, f"{'s':>16}: {s}"])


@dataclasses.dataclass(frozen=True)
class Request:
    k: int
    tol: float | None
    oversamples: int
    n_iter: int | None  # None: as many as the error asks for
    method: str
    block: int
    seed: int


class Run:
    """One decomposition of a matrix with at least as many rows as columns."""

    def __init__(self, op: Operand, request: Request):
        self.op, self.request = op, request
        self.sketch: np.ndarray | None = None
        self.triangle: np.ndarray | None = None  # R of A^H Omega = Q R
        self.exponent = 0  # A is computed with times 2^exponent
        self.norm: float | None = None
        words = random_words(np.arange(3), 0, _STREAM, request.seed)[:, 0]
        self.seeds = [int(word) for word in words]

    def result(self) -> SVDResult:
        op, r = self.op, self.request
        m, n = op.shape
        if n == 0 or r.k == 0:
            return self._empty(0.0)
        small = m * n <= _LAPACK_ALWAYS or (m * n <= _LAPACK_ENTRIES and 3 * (r.k + r.oversamples) >= n and r.tol is None)
        if r.method == "lapack" or (r.method == "auto" and small and op.explicit and r.n_iter is None):
            return self._lapack()
        start = self._start()
        if start is None:
            return self._empty(0.0)
        if r.tol is not None:
            return self._to_tolerance(Basis(self.op, start))
        if r.n_iter is not None:
            return self._finish(self._iterate(start, r.n_iter), LowRankStatus.ITERATIONS_DONE)
        basis = Basis(self.op, start)
        return self._finish(basis, self._grow(basis))

    def _start(self) -> np.ndarray | None:
        """The first block; None for a zero matrix."""
        op, r = self.op, self.request
        if not op.explicit:
            width = max(r.block, 1)
            Omega = gaussian(op.shape[0], width, self.seeds[0], op)
            W = op.adjoint_times(Omega)
            size = norm_of([W], f"the products of {op.name}")
            if size == 0.0:
                return None
            self._rescale(size)
            Q, R = householder(W)
            diagonal = np.abs(R.diagonal())
            if r.n_iter == 0 and diagonal.min() > np.finfo(R.dtype).eps * diagonal.max():
                self.triangle = np.ldexp(1.0, self.exponent) * R
            return Q
        rows = (2 if op.sparse else 4) * (r.block if r.tol is not None else max(r.block, r.k + r.oversamples))
        S = (SparseStack(2) if op.sparse else BlockSRHT()).sample(min(rows, op.shape[0]), op.shape[0], rng=self.seeds[0])
        self.norm, SA = op.sketch(S)
        if self.norm == 0.0:
            return None
        if self._rescale(self.norm):
            factor = np.ldexp(SA.real.dtype.type(1), self.exponent)
            with np.errstate(invalid="ignore"):
                self.norm, SA = float(np.ldexp(self.norm, self.exponent)), SA * factor
            if not (math.isfinite(self.norm) and self.op.xp.isfinite(SA).all()):  # the sums have overflowed
                scaled = dense(op) * factor
                self.norm, SA = norm_of([scaled], op.name), S @ scaled
        self.sketch = SA
        return start_from_sketch(SA, r.block)

    def _rescale(self, size: float) -> bool:
        exponent = exponent_for(size, self.op.dtype)
        if exponent:
            self.exponent, self.op = exponent, ScaledOperand(self.op, exponent)
        return exponent != 0

    def _iterate(self, start: np.ndarray, steps: int) -> Basis:
        if self.request.method == "subspace":
            for _ in range(steps):
                start = orthonormalize(self.op.gram_times(start))
            steps = 0
        basis = Basis(self.op, start)
        for step in range(steps + 1):
            if not basis.full:
                basis.extend(last=step == steps)
        return basis

    def _grow(self, basis: Basis) -> LowRankStatus:
        r = self.request
        k, width = r.k, r.k + r.oversamples
        largest = max(3 * width, 6 * r.block)
        eps = float(np.finfo(self.op.dtype).eps)
        before: np.ndarray | None = None
        gain_before, fall_before = math.inf, 0.0
        while True:
            basis.extend()
            remaining = math.inf
            if basis.dim >= k:
                s = basis.values(k)
                if before is not None:
                    gain = _gain(s[:k], before, eps)
                    fall = gain / gain_before if 0 < gain_before < math.inf else 0.9
                    # One small gain may be chance: it counts up to twice the fall before. Yet convergence is superlinear.
                    ratio = min(max(fall, fall_before / 2), 0.9)
                    remaining, gain_before, fall_before = gain * ratio**1.5 / (1 - ratio), gain, fall
                before = s[:k]
                error = self._error_squared(s, k)
                # Nothing new comes of A^H A times the basis: what is left is orthogonal to it, and only the sketch knows of it.
                invariant = basis.exhausted and (self.sketch is not None or remaining < math.inf)
                if basis.full:
                    return LowRankStatus.CONVERGED
                settled = invariant or remaining <= _GAIN * error
                if settled or basis.dim + r.block > largest:
                    if self._missed(basis, s):
                        largest = max(largest, min(basis.dim + 2 * width, 6 * width))
                        before, gain_before, fall_before, settled = None, math.inf, 0.0, False
                    elif settled:
                        return LowRankStatus.CONVERGED
            if basis.dim + basis.block.shape[1] > largest:
                return LowRankStatus.CONVERGED if remaining <= _POOR * error else LowRankStatus.NOT_CONVERGED

    def _error_squared(self, s: np.ndarray, k: int) -> float:
        """Squared error of rank k, from below where ||A||_F does not tell it."""
        if self.norm is not None:
            error = self.norm**2 - float(np.sum(s[:k] ** 2))
            if error > _CANCELLED * np.finfo(self.op.dtype).eps * self.norm**2:
                return error
        return float(np.sum(s[k:] ** 2))

    def _missed(self, basis: Basis, s: np.ndarray) -> bool:
        """Whether the sketch knows directions that belong among the k but lie outside the basis; they are offered to it.

        Small blocks find no more copies of an equal singular value than they have columns.
        """
        if self.sketch is None or basis.full:
            return False
        k, V = self.request.k, basis.V
        E = self.sketch - product(product(self.sketch, V), V.conj().T)
        rest = max(self.norm**2 - float(np.sum(s**2)), 0.0) if self.norm is not None else 0.0
        eps = float(np.finfo(E.dtype).eps)
        limit = 2 * (float(s[k - 1]) + math.sqrt(rest / len(E))) + 1e3 * eps * float(s[0])
        values = np.sqrt(np.maximum(scipy.linalg.eigvalsh(gram(E.conj().T), check_finite=False), 0.0))
        count = int(np.count_nonzero(values > limit))
        if count:
            basis.offer(start_from_sketch(E, max(min(count, k), self.request.block)))
        return count > 0

    def _finish(self, basis: Basis, status: LowRankStatus) -> SVDResult:
        r = self.request
        U, s, Z, values = basis.decompose(r.k)
        eps = float(np.finfo(self.op.dtype).eps)
        tail = float(np.sum(values[len(s) :] ** 2))
        source, error2 = "norm", -1.0
        if self.triangle is not None:
            rows = scipy.linalg.solve_triangular(self.triangle, np.eye(len(self.triangle)), check_finite=False)
            error2, source = float(np.mean(1 / np.sum(np.abs(rows) ** 2, axis=1))) + tail, "leave-one-out"
        elif self.norm is not None:
            error2 = self.norm**2 - float(np.sum(s.astype(float) ** 2))
        if source == "norm" and (self.norm is None or error2 <= _CANCELLED * eps * self.norm**2):
            # The tail has as few digits as ||A||_F^2, where it comes from a Gram matrix.
            if self.norm is not None:
                U, s, Z, values = basis.decompose(None)
                U, s, Z = U[:, : r.k], s[: r.k], Z[:, : r.k]
                tail = float(np.sum(values[len(s) :].astype(float) ** 2))
            error2, source = self._probe(basis) + tail, "probes"
        outside = max(error2 - tail, 0.0)
        norm = self.norm if self.norm is not None else math.sqrt(float(np.sum(s.astype(float) ** 2)) + error2)
        error = math.hypot(math.sqrt(max(error2, 0.0)), eps * math.sqrt(len(s)) * norm)
        if status is LowRankStatus.CONVERGED and error <= 10 * eps * math.sqrt(len(s)) * norm:
            status = LowRankStatus.EXACT
        return self._packed(basis, U, s, Z, error, norm, outside, source, status)

    def _packed(
        self,
        basis: Basis,
        U: np.ndarray,
        s: np.ndarray,
        Z: np.ndarray,
        error: float,
        norm: float,
        outside: float,
        source: str,
        status: LowRankStatus,
        notes: str = "",
    ) -> SVDResult:
        dtype = self.op.dtype
        Vh = product(basis.V, like(U, Z.astype(dtype))).conj().T
        upper = np.sqrt(s.astype(float) ** 2 + outside)
        unscaled = [np.ldexp(np.asarray(x, float), -self.exponent) for x in (s, upper, error, norm)]
        real = _check.real_dtype(dtype)
        with np.errstate(over="ignore"):
            values, upper = (like(U, x.astype(real)) for x in unscaled[:2])
        method = "subspace" if self.request.method == "subspace" else "krylov"
        found = (float(unscaled[2]), float(unscaled[3]), upper, source, basis.dim, method, 0, None, self.request.seed)
        return SVDResult(U, values, self.op.xp.ascontiguousarray(Vh), *found, status, notes)

    def _probe(self, basis: Basis, count: int = _PROBES) -> float:
        """||A - A V V^H||_F^2 estimated from its images of random vectors. One pass."""
        Omega = gaussian(self.op.shape[1], count, self.seeds[1], self.op)
        for _ in range(2):
            Omega = Omega - product(basis.V, product(basis.V.T, Omega, conjugate=True))
        return norm_of([self.op.times(Omega)], self.op.name) ** 2 / count

    def _to_tolerance(self, basis: Basis) -> SVDResult:
        r, op = self.request, self.op
        assert r.tol is not None
        n, eps = op.shape[1], float(np.finfo(op.dtype).eps)
        Omega = gaussian(n, _TOLERANCE_PROBES, self.seeds[1], op)
        images: np.ndarray | None = None
        known, best, stalled, margin, kept = self.norm, math.inf, 0, 1.0, n**2
        while True:
            block = basis.block
            basis.extend()
            if images is not None:
                images -= product(basis.last, product(block.T, Omega, conjugate=True))
            total = float(np.sum(basis.squares()))
            rest = -1.0 if known is None else known**2 - total
            if known is None or rest <= _CANCELLED * eps * known**2:
                if images is None:
                    images = op.times(Omega - product(basis.V, product(basis.V.T, Omega, conjugate=True)))
                rest = norm_of([images], op.name) ** 2 / _TOLERANCE_PROBES
                margin = _TOLERANCE_MARGIN**2
            norm2 = known**2 if known is not None else total + rest
            if basis.full or basis.dim >= min(n, 4 * r.k + r.block):
                break
            if margin * rest <= r.tol**2 * norm2:
                # The rank that suffices is still falling while the leading vectors settle.
                kept, before = self._sufficient(np.sqrt(basis.squares()), margin * rest, norm2), kept
                if kept > _SETTLED * before:
                    break
            stalled = 0 if rest < 0.25 * best else stalled + 1
            best = min(best, rest)
            if stalled >= 3 and rest <= (100 * eps) ** 2 * n * norm2:
                break
            if r.method == "auto" and op.explicit and 3 * basis.dim >= n and op.shape[0] * n <= _LAPACK_ENTRIES:
                return self._lapack()
        if basis.full:
            rest = 0.0
        if images is None:
            kept = min(self._sufficient(np.sqrt(basis.squares()), rest, norm2), r.k)
            U, s, Z, values = basis.decompose(kept)
        else:
            U, s, Z, values = basis.decompose(None)
            kept = min(self._sufficient(values, margin * rest, norm2), r.k)
        tails = _tails(values) + rest
        reached = bool(tails[kept] + (margin - 1) * rest <= r.tol**2 * norm2)
        status = LowRankStatus.TOLERANCE_REACHED if reached else LowRankStatus.TOLERANCE_NOT_REACHED
        notes = "" if reached else f"Relative error {math.sqrt(tails[kept] / norm2):.2g} at rank {kept}."
        source = "norm" if images is None else "probes"
        error, norm = math.sqrt(float(tails[kept])), math.sqrt(norm2)
        return self._packed(basis, U[:, :kept], s[:kept], Z[:, :kept], error, norm, rest, source, status, notes)

    def _sufficient(self, values: np.ndarray, rest: float, norm2: float) -> int:
        """The smallest rank within the tolerance, or all where none is."""
        assert self.request.tol is not None
        enough = _tails(values) + rest <= self.request.tol**2 * norm2
        return int(np.argmax(enough)) if enough[-1] else len(values)

    def _lapack(self) -> SVDResult:
        r = self.request
        X = dense(self.op.base if isinstance(self.op, ScaledOperand) else self.op)
        norm = norm_of([X], self.op.name)
        limit = 120 if X.dtype.char in "fF" else 1000
        exponent = max(-limit, min(limit, -math.frexp(norm)[1] if math.isfinite(norm) else -limit))
        X = X * np.ldexp(_check.real_dtype(X.dtype).type(1), exponent)
        # Of a matrix of a device LAPACK decomposes the triangle, which is small.
        Q, R = householder(X) if on_device(X) else (None, X)
        try:
            U, s, Vh = scipy.linalg.svd(R, full_matrices=False, check_finite=False, overwrite_a=True)
        except np.linalg.LinAlgError:  # divide and conquer fails on rare matrices
            U, s, Vh = scipy.linalg.svd(R, full_matrices=False, check_finite=False, lapack_driver="gesvd")
        tails = np.sqrt(_tails(s))
        kept, status = r.k, LowRankStatus.LAPACK
        if r.tol is not None:
            kept = min(kept, int(np.argmax(tails <= r.tol * tails[0])))
            reached = tails[kept] <= r.tol * tails[0]
            status = LowRankStatus.TOLERANCE_REACHED if reached else LowRankStatus.TOLERANCE_NOT_REACHED
        size = float(np.ldexp(tails[0], -exponent))
        error, values = float(np.ldexp(tails[kept], -exponent)), np.ldexp(s[:kept], -exponent)
        U, Vh = np.ascontiguousarray(U[:, :kept]), np.ascontiguousarray(Vh[:kept])
        if Q is not None:
            U, Vh, values = product(Q, like(Q, U)), like(Q, Vh), like(Q, values)
        return SVDResult(U, values, Vh, error, size, values, "lapack", len(s), "lapack", 0, None, r.seed, status)

    def _empty(self, norm: float) -> SVDResult:
        """Of a matrix that is empty or zero: unit vectors with singular values of zero."""
        (m, n), dtype = self.op.shape, self.op.dtype
        k = 0 if self.request.tol is not None else self.request.k
        xp = self.op.xp
        s = xp.zeros(k, _check.real_dtype(dtype))
        U, Vh, seed = xp.eye(m, k, dtype=dtype), xp.eye(k, n, dtype=dtype), self.request.seed
        return SVDResult(U, s, Vh, 0.0, norm, s, "norm", 0, "krylov", 0, None, seed, LowRankStatus.EXACT)


def gaussian(rows: int, columns: int, seed: int, op: Operand) -> np.ndarray:
    """Independent standard normal entries, of the precision of op and where it is."""
    S = Gaussian().sample(columns, rows, rng=seed)
    if op.xp is np:
        G = S.to_dense()
    else:
        G = op.xp.empty(S.shape)
        kernels(G).dense_sketch(Gaussian._family, columns, seed, G, 0, 0)
    return op.xp.ascontiguousarray((G * math.sqrt(columns)).T.astype(op.dtype))


def _gain(s: np.ndarray, before: np.ndarray, eps: float) -> float:
    """Growth of the sum of squares, without what rounding may have added."""
    growth = (s - before) * (s + before)
    return float(np.sum(np.where(np.abs(growth) > 32 * eps * s[0] * s, growth, 0.0)))


def _tails(values: np.ndarray) -> np.ndarray:
    """Sums of the squares of values i, i + 1, ..."""
    return np.append(np.cumsum(values[::-1].astype(float) ** 2)[::-1], 0.0)
