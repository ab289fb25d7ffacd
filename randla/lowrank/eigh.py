"""Some eigenvalues and eigenvectors of Hermitian matrices, with residuals: `eigh`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg

from .. import _check
from ..result import HasStatus
from ._adapted import ScaledOperand, dense, exponent_for
from ._lanczos import BlockLanczos
from ._operand import Operand, operand
from ._probes import Probes
from ._products import norm_of, product
from .result import LowRankStatus, LowRankWarning
from .svd import fix_signs

_STREAM = 24  # see docs/definitions.md
_START, _PROBE = range(2)  # purposes within the stream
_PROBES = 10
_WHICH = ("LM", "LA", "SA")

_LAPACK_ENTRIES = 1 << 25
_LAPACK_ALWAYS = 256  # order
_BLOCKS, _LEAST = 10, 4  # of the basis between restarts; parts of it that are kept
_GROWTH = 1.1  # of the basis between two looks at the Ritz values
# Times eps sqrt(n): asymmetry of A Q relative to ||A Q||_F that is not rounding.
_ASYMMETRY = 10.0
# Times eps sqrt(dimension of the basis): residuals relative to the largest eigenvalue that are rounding.
_ROUNDING = 10.0
# Times eps: below this part of ||A||_F^2 a difference of squares does not tell the error.
_CANCELLED = 1e3


@dataclasses.dataclass(repr=False)
class EighResult(HasStatus):
    """Eigenvalues and eigenvectors of a Hermitian A with their residuals; unpacks as eigenvalues, eigenvectors.

    Attributes
    ----------
    eigenvalues : ndarray (k,)
        In the real dtype of A; those that were asked for first.
    eigenvectors : ndarray (n, k)
        Orthonormal columns; the largest entry of each is real and positive.
    residuals : ndarray (k,)
        ||A v_i - eigenvalues_i v_i||, computed from one more product with A. Within that distance of each of the eigenvalues
        lies one of A.
    error : float
        ||A - V diag(eigenvalues) V^H||_F: by Pythagoras from ||A||_F where rounding lets it, else an estimate from ten random
        vectors.
    norm : float
        ||A||_F, an estimate for operators.
    passes : int
        Reads of A.
    method : str
        "lanczos" or "lapack".
    seed : int
        Replays the run: pass it as `rng`.
    status : LowRankStatus
    message : str
    success : bool
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    residuals: np.ndarray
    error: float
    norm: float
    passes: int
    method: str
    seed: int
    status: LowRankStatus
    notes: str = ""

    @property
    def relative_error(self) -> float:
        return self.error / self.norm if self.norm else 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.eigenvalues, self.eigenvectors))

    def __repr__(self) -> str:
        names = ("message", "error", "relative_error", "method", "passes", "seed")
        rows = [f"{name:>14}: {getattr(self, name)}" for name in names]
        arrays = [f"{name:>14}: {np.array2string(getattr(self, name), threshold=8)}" for name in ("residuals", "eigenvalues")]
        return "\n".join([*rows, *arrays])


def eigh(
    A: Any,
    k: int,
    *,
    which: str = "LM",
    tol: float | None = None,
    maxiter: int = 300,
    block_size: int | None = None,
    rng: Any = None,
) -> EighResult:
    """k eigenvalues of a Hermitian A of largest magnitude, or the largest or smallest ones, with eigenvectors.

    Rayleigh-Ritz on a block Krylov space of A from random vectors (Musco, Musco 2015), restarted with the best Ritz vectors.

    Parameters
    ----------
    A : array (n, n), CSR/CSC matrix, LinearOperator or RowBlocks
        Real symmetric or Hermitian; float32, float64, complex64 or complex128.
    k : int
        Number of eigenvalues. Cut at n.
    which : {"LM", "LA", "SA"}
        Largest magnitude, largest or smallest; the first of the result is the extreme one.
    tol : float
        ||A v - lambda v|| <= tol |lambda_1| ends the iteration, lambda_1 being the largest in magnitude that was seen. By
        default the square root of the machine epsilon of A's dtype; errors of separated eigenvalues are its square.
    maxiter : int
        Largest number of products with blocks, but for the first ones that make up k vectors.
    block_size : int
        Columns of a block, k + 10 by default. Smaller ones need fewer products in all and more passes; an eigenvalue that is
        repeated more often than a block has columns may then be found less often than it should. 1 is Lanczos' method, as
        that of ARPACK: the fastest for a dense matrix in memory, of which only one triangle is read for blocks of at most 4.
    rng : as in SPEC 7

    Returns
    -------
    EighResult

    Warns
    -----
    LowRankWarning
        Where `tol` was not reached, and for an operator that is not Hermitian.

    Raises
    ------
    TypeError, ValueError
        Unsuitable arguments; NaN or infinite entries. ValueError too for a matrix that is not Hermitian: where
        ||Q^H (A - A^H) Q||_F > 10 eps sqrt(n) ||A Q||_F for the first block Q, of b columns. Rounding in the products stays
        below that. Where b >= 10, ||A - A^H||_F > 100 eps n sqrt(b) ||A||_F is missed with a probability below 1e-9.
    """
    op = operand(A)
    if op.shape[0] != op.shape[1]:
        raise ValueError(f"A must be square; got shape {op.shape}")
    rank = min(_check.integer(k, "k", 1), op.shape[0])
    if which not in _WHICH:
        raise ValueError(f"which must be one of {', '.join(_WHICH)}; got {which!r}")
    eps = float(np.finfo(op.dtype).eps)
    limit = math.sqrt(eps) if tol is None else _check.real(tol, "tol", strict=True)
    steps = _check.integer(maxiter, "maxiter", 1)
    block = rank + 10 if block_size is None else _check.integer(block_size, "block_size", 1)
    run = _Run(op, rank, which, limit, steps, min(block, op.shape[0]), _check.seed(rng))
    result = run.result(lapack=block_size is None)
    fix_signs(result.eigenvectors, np.empty((rank, 0), op.dtype))
    if not result.success:
        warnings.warn(result.message, LowRankWarning, stacklevel=2)
    return result


class _Run:
    """One computation for a square matrix."""

    def __init__(self, op: Operand, k: int, which: str, tol: float, maxiter: int, block: int, seed: int):
        self.base, self.op, self.k, self.which, self.tol, self.maxiter = op, op, k, which, tol, maxiter
        self.block, self.seed = block, seed
        self.eps = float(np.finfo(op.dtype).eps)
        self.exponent = 0  # A is computed with times 2^exponent
        self.norm: float | None = None
        self.vectors = Probes(op.shape[0], seed, _START, stream=_STREAM)
        self.drawn = 0

    def result(self, *, lapack: bool) -> EighResult:
        op, n = self.op, self.op.shape[0]
        self.norm = op.norm() if op.explicit else None
        if n == 0 or self.norm == 0.0:
            return self._zero()
        if self.norm is not None and self._rescale(self.norm):
            self.norm = math.ldexp(self.norm, self.exponent) if math.isfinite(self.norm) else norm_of([dense(self.op)], "A")
        if op.explicit and lapack and (n <= _LAPACK_ALWAYS or (n * n <= _LAPACK_ENTRIES and 4 * self.block >= n)):
            return self._lapack()
        space = self._begin()
        if space.size == 0.0:
            return self._zero()
        if not op.explicit and self._rescale(space.size):
            self.drawn = 0
            space = self._begin()
        symmetric = self._symmetric(space.asymmetry, space.size)
        values, Z, converged = self._iterate(space)
        return self._finish(space, values, Z, converged, symmetric)

    def _rescale(self, size: float) -> bool:
        """Put a power of two times A in its place where squares of entries may be lost."""
        exponent = exponent_for(size, self.op.dtype)
        if exponent:
            self.exponent, self.op = exponent, ScaledOperand(self.op, exponent)
        return exponent != 0

    def _symmetric(self, asymmetry: float, size: float) -> bool:
        symmetric = asymmetry <= _ASYMMETRY * self.eps * math.sqrt(self.op.shape[0]) * size
        if self.op.explicit and not symmetric:
            raise ValueError(f"A must be Hermitian; got one that is not, by {asymmetry / size:.1g} of its size")
        return symmetric

    def _draw(self) -> np.ndarray:
        """The next random vectors."""
        first, self.drawn = self.drawn, self.drawn + self.block
        return np.ascontiguousarray(self.vectors.columns(first, self.drawn).astype(self.op.dtype))

    def _begin(self) -> BlockLanczos:
        most = min(self.op.shape[0], max(_BLOCKS * self.block, _LEAST * (self.k + self.block)))
        space = BlockLanczos(self.op, self._draw(), most)
        space.extend()
        return space

    def _leading(self, values: np.ndarray) -> np.ndarray:
        keys = {"LM": -np.abs(values), "LA": -values, "SA": values}[self.which]
        return np.argsort(keys, kind="stable")

    def _iterate(self, space: BlockLanczos) -> tuple[np.ndarray, np.ndarray, bool]:
        """All Ritz values and their coordinates, the wanted ones first, and whether these have converged."""
        steps, due = 1, 0.0
        while True:
            last = space.full or space.exhausted or steps >= self.maxiter or space.room < space.block.shape[1]
            if space.dim < due and not last:
                space.extend()
                steps += 1
                continue
            due = _GROWTH * space.dim
            values, Z = space.ritz()
            leading = self._leading(values)
            values, Z = values[leading], Z[:, leading]
            if space.dim >= self.k:
                # Half the tolerance, as the residuals that are computed in the end have errors of rounding; not below these.
                limit = max(0.5 * self.tol, _ROUNDING * self.eps * math.sqrt(space.dim))
                small = space.residuals(Z[:, : self.k]).max() <= limit * np.abs(values).max()
                if space.full or ((small or space.exhausted) and (not space.exhausted or self.drawn >= self.k)):
                    return values, Z, True
                if steps >= self.maxiter:
                    return values, Z, False
            if space.exhausted:
                space.renew(self._draw())
            if space.room < space.block.shape[1]:
                kept = self.k + self.block
                space.restart(values[:kept], Z[:, :kept])
                due = 0.0
            space.extend()
            steps += 1

    def _finish(self, space: BlockLanczos, values: np.ndarray, Z: np.ndarray, converged: bool, symmetric: bool) -> EighResult:
        k, n, w = self.k, self.op.shape[0], values[: self.k]
        V = space.vectors(Z[:, :k])
        total = float(np.sum(w**2))
        square = -1.0 if self.norm is None else self.norm**2 - total
        probed = self.norm is None or square <= _CANCELLED * self.eps * self.norm**2
        if probed:
            G = Probes(n, self.seed, _PROBE, stream=_STREAM).columns(0, _PROBES).astype(V.dtype)
            images = self.op.times(np.concatenate([V, G], axis=1))
            rest = images[:, k:] - product(V, w[:, None].astype(V.dtype) * product(V.T, G, conjugate=True))
            square = norm_of([rest], "A") ** 2 / _PROBES
        else:
            images = self.op.times(V)
        norm = math.sqrt(total + square) if self.norm is None else self.norm
        residuals = np.linalg.norm(images[:, :k] - V * w.astype(V.real.dtype), axis=0).astype(float)
        error = math.hypot(math.sqrt(square), self.eps * math.sqrt(k) * norm)
        top = float(np.abs(values).max())
        if not symmetric:
            status = LowRankStatus.NOT_SYMMETRIC
        elif not converged:
            status = LowRankStatus.NOT_CONVERGED
        else:
            reached = residuals.max() <= self.tol * top
            status = LowRankStatus.TOLERANCE_REACHED if reached else LowRankStatus.TOLERANCE_NOT_REACHED
        notes = "" if status.success else f"Largest residual {residuals.max() / top:.2g} times the largest eigenvalue."
        return self._packed(w, V, residuals, error, norm, "lanczos", status, notes)

    def _lapack(self) -> EighResult:
        X = dense(self.op)
        assert self.norm is not None
        self._symmetric(norm_of([X - X.conj().T], "A"), self.norm)
        values, Z = scipy.linalg.eigh(X, driver="evd", check_finite=False)
        leading = self._leading(values)
        w, V = values[leading[: self.k]], np.ascontiguousarray(Z[:, leading[: self.k]])
        residuals = np.linalg.norm(product(X, V) - V * w, axis=0).astype(float)
        error = float(np.linalg.norm(values[leading[self.k :]].astype(float)))
        return self._packed(w, V, residuals, error, self.norm, "lapack", LowRankStatus.LAPACK)

    def _zero(self) -> EighResult:
        n, dtype = self.op.shape[0], self.op.dtype
        zeros = np.zeros(self.k)
        return self._packed(zeros, np.eye(n, self.k, dtype=dtype), zeros, 0.0, 0.0, "lanczos", LowRankStatus.EXACT)

    def _packed(
        self,
        values: np.ndarray,
        V: np.ndarray,
        residuals: np.ndarray,
        error: float,
        norm: float,
        method: str,
        status: LowRankStatus,
        notes: str = "",
    ) -> EighResult:
        with np.errstate(over="ignore"):
            unscaled = [np.ldexp(np.asarray(x, float), -self.exponent) for x in (values, residuals, error, norm)]
            w = unscaled[0].astype(_check.real_dtype(self.op.dtype))
        sizes = float(unscaled[2]), float(unscaled[3])
        return EighResult(w, V, unscaled[1], *sizes, self.base.passes, method, self.seed, status, notes)
