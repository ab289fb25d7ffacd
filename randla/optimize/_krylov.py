"""Step models: objects made of a Hessian and a gradient that give the step for any radius or weight of the cubic term.

A model keeps what it learned, so that the step for a smaller radius or a larger weight takes no product with the Hessian:
`grow=False` promises that. Models assume finite data; a product that is not finite ends the growth (`failed`), and the step is
that of what was known before.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.linalg.blas import dgemv, dnrm2
from scipy.linalg.lapack import dsyevd

from ._secular import Root, Secular
from .certificate import start_vector

_EPS = float(np.finfo(np.float64).eps)


@dataclasses.dataclass(slots=True)
class Step:
    """A step s of the model m(s) = g's + s'Hs/2 (+ sigma/3 ||s||^3).

    decrease: -m(s). quadratic_decrease: the same without the cubic term. multiplier: lambda. boundary: ||s|| is the radius.
    residual: ||(H + lambda I) s + g|| / max(||g||, lambda ||s||), as far as the model knows H. curvature: the lowest Ritz
    value seen, NaN without one. norm: ||s||. hard_case: s was completed along an eigenvector that g has no part in.
    converged: the model's own test was met.
    """

    s: np.ndarray
    decrease: float
    quadratic_decrease: float
    multiplier: float
    boundary: bool
    residual: float
    curvature: float
    norm: float
    hard_case: bool
    converged: bool


def eigh(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, and eigenvectors of the symmetric matrix whose lower triangle is given."""
    w, V, info = dsyevd(A, lower=1)
    if info:
        raise np.linalg.LinAlgError(f"dsyevd did not converge (info = {info})")
    return w, V


class Model:
    """What every model has: the products it took, and the lowest curvature it has seen."""

    def __init__(self, products: int = 0):
        self._products, self._failed = products, False

    @property
    def products(self) -> int:
        """Vectors multiplied by H so far."""
        return self._products

    @property
    def failed(self) -> bool:
        """Whether a product was not finite."""
        return self._failed

    def lowest(self) -> tuple[float, np.ndarray]:
        """The lowest Ritz value seen and its Ritz vector, of norm one; NaN and zeros before the first product."""
        raise NotImplementedError


class SecularModel(Model):
    """Models that reduce both subproblems to a secular equation."""

    def trust_region(self, radius: float, *, grow: bool = True) -> Step:
        """The step of norm at most radius; without products for grow=False."""
        return self._step(radius, False, grow)

    def cubic(self, sigma: float, *, grow: bool = True) -> Step:
        """The step for the weight sigma of the cubic term; without products for grow=False."""
        return self._step(sigma, True, grow)

    def _step(self, parameter: float, cubic: bool, grow: bool) -> Step:
        raise NotImplementedError


def no_step(dim: int, g_size: float) -> Step:
    """Where nothing is known of H."""
    return Step(np.zeros(dim), 0.0, 0.0, 0.0, False, float(g_size > 0), math.nan, 0.0, False, g_size == 0)


def as_step(root: Root, s: np.ndarray, residual: float, curvature: float, converged: bool) -> Step:
    return Step(
        s,
        root.decrease,
        root.quadratic,
        root.multiplier,
        root.boundary,
        residual,
        curvature,
        root.norm,
        root.hard,
        converged,
    )


class EigenModel(SecularModel):
    """The exact minimizer, hard case included, from one eigendecomposition of a dense H.

    H : ndarray (d, d), symmetric, of which the lower triangle is read. Forming it counts as d products.
    """

    def __init__(self, H: np.ndarray, g: np.ndarray):
        super().__init__(len(g))
        self._w, self._V = eigh(H)
        self._secular = Secular(self._w, dgemv(1.0, self._V, g, trans=1))

    def lowest(self) -> tuple[float, np.ndarray]:
        return float(self._w[0]), self._V[:, 0].copy()

    def _step(self, parameter: float, cubic: bool, grow: bool) -> Step:
        root = self._secular.cubic(parameter) if cubic else self._secular.trust_region(parameter)
        return as_step(root, dgemv(1.0, self._V, root.u), root.residual, float(self._w[0]), True)


class Basis:
    """Block Lanczos with full reorthogonalization: H Q[:, :k] = Q[:, :m] P[:m, :k], Q'Q = I.

    The columns k..m of Q are the next block. Vectors that depend on the others up to rounding are dropped; a vector put in
    late widens the blocks from there on.
    """

    def __init__(self, H: Any, dim: int):
        self._H = H
        self.Q = np.empty((dim, min(dim, 16)), order="F")
        self.P = np.zeros((min(dim, 16), min(dim, 16)), order="F")
        self.k = self.m = self.products = 0
        self.size = 0.0  # the largest column of P: near ||H||
        self.failed = False

    def put(self, v: np.ndarray) -> float:
        """Append what of v is orthogonal to the basis, normalized; its norm, or 0 where v depends on the basis."""
        return self._append(v.copy(), float(dnrm2(v)))[1]

    def _append(self, v: np.ndarray, size: float) -> tuple[np.ndarray, float]:
        """Coefficients of v in the basis and the norm of the rest, which is the next vector unless it is rounding alone."""
        m = self.m
        Q = self.Q[:, :m]
        c = np.zeros(m)
        if m:
            # Twice is enough (Giraud, Langou, Rozloznik, van den Eshof 2005).
            for _ in range(2):
                part = dgemv(1.0, Q, v, trans=1)
                c += part
                v = dgemv(-1.0, Q, part, beta=1.0, y=v, overwrite_y=1)
        rest = float(dnrm2(v))
        if m == len(v) or not rest > 10 * _EPS * math.sqrt(len(v)) * size:
            return c, 0.0
        self._reserve(m + 1)
        np.divide(v, rest, out=self.Q[:, m])
        if m and rest < 1e-3 * size:
            # Normalizing magnified what rounding left of the other directions.
            q = self.Q[:, m]
            q -= dgemv(1.0, self.Q[:, :m], dgemv(1.0, self.Q[:, :m], q, trans=1))
            q /= float(dnrm2(q))
        self.m = m + 1
        return c, rest

    def _reserve(self, count: int) -> None:
        capacity = self.Q.shape[1]
        if count <= capacity:
            return
        wider = min(len(self.Q), max(count, 2 * capacity))
        Q, P = np.empty((len(self.Q), wider), order="F"), np.zeros((wider, wider), order="F")
        Q[:, :capacity], P[:capacity, :capacity] = self.Q, self.P
        self.Q, self.P = Q, P

    def expand(self) -> bool:
        """Multiply the next block by H; False where a product was not finite, and nothing has changed."""
        k, width = self.k, self.m - self.k
        block = self.Q[:, k] if width == 1 else self.Q[:, k : self.m]
        U = np.asarray(self._H @ block, dtype=np.float64).reshape(len(self.Q), width)
        self.products += width
        sizes = [float(dnrm2(U[:, j])) for j in range(width)]
        if not all(map(math.isfinite, sizes)):
            self.failed = True
            return False
        self.size = max(self.size, *sizes)
        for j in range(width):
            c, rest = self._append(U[:, j].copy(), self.size)
            self.P[: len(c), k + j] = c
            if rest > 0:
                self.P[len(c), k + j] = rest
        self.k = k + width
        return True

    def residual(self, h: np.ndarray) -> float:
        """||H Q h - Q Q'H Q h||."""
        if self.m == self.k:
            return 0.0
        return float(dnrm2(self.P[self.k : self.m, : self.k] @ h))


class BlockLanczosModel(SecularModel):
    """The minimizer over a growing Krylov space of H, seeded with g and, if given, a second vector.

    With a random second vector, or the Ritz vector of an earlier model, the same products also give the leftmost eigenpair, and
    the hard case is found, which a space seeded with g alone cannot see.

    Parameters
    ----------
    H : anything with `H @ v` and, for the second vector, `H @ V`, (d, 2)
    g, start : ndarray (d,)
        start may be None.
    tol : float
        Grow until the residual of the step, relative to max(||g||, lambda ||s||), is at most tol. Where `certain`, also until
        the residual of the lowest Ritz pair that the random vector has found is at most tol ||H||.
    maxdim : int
        Largest dimension of the space; default d.
    certain : bool
        Put a random vector in as soon as the step has converged without a second one: then a minimizer over the whole space
        is found with probability one as tol goes to 0. Without it, the minimizer over the Krylov space of the vectors given.
    seed : int
        Of the random vectors.
    """

    def __init__(
        self,
        H: Any,
        g: np.ndarray,
        start: np.ndarray | None = None,
        *,
        tol: float = 1e-8,
        maxdim: int | None = None,
        certain: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.tol, self.certain, self.seed = tol, certain, seed
        self._dim = len(g)
        self._maxdim = self._dim if maxdim is None else min(maxdim, self._dim)
        self._basis = Basis(H, self._dim)
        self._g_size = self._basis.put(g)
        self._drawn = self._turns = 0  # random vectors drawn; blocks multiplied since one came in
        self._random = self._basis.m  # its column
        self._mixed = start is not None and self._basis.put(start) > 0
        self._solved = 0
        self._w, self._Y = np.zeros(0), np.zeros((0, 0))

    @property
    def products(self) -> int:
        return self._basis.products

    @property
    def failed(self) -> bool:
        return self._basis.failed

    @property
    def dim(self) -> int:
        """Dimension of the space."""
        return self._basis.k

    def lowest(self) -> tuple[float, np.ndarray]:
        if self._basis.k == 0:
            return math.nan, np.zeros(self._dim)
        self._decompose()
        return float(self._w[0]), dgemv(1.0, self._basis.Q[:, : self._basis.k], self._Y[:, 0])

    def _decompose(self) -> None:
        k = self._basis.k
        if self._solved == k:
            return
        self._w, self._Y = eigh(self._basis.P[:k, :k])
        c = self._Y[0] * self._g_size
        self._secular = Secular(self._w, c)
        self._solved = k

    def _step(self, parameter: float, cubic: bool, grow: bool) -> Step:
        basis = self._basis
        if grow and basis.k == 0:
            self._expand()
        while True:
            if basis.k == 0:
                return no_step(self._dim, self._g_size)
            self._decompose()
            root = self._secular.cubic(parameter) if cubic else self._secular.trust_region(parameter)
            h = dgemv(1.0, self._Y, root.u)
            rest = basis.residual(h)
            largest = max(self._g_size, root.multiplier * root.norm)
            residual = rest / largest if largest > 0 else float(rest > 0)
            converged = residual <= self.tol
            finished = converged and (not self.certain or self._leftmost_known())
            if finished or not grow or not self._grow(converged):
                s = dgemv(1.0, basis.Q[:, : basis.k], h)
                return as_step(root, s, max(residual, root.residual), float(self._w[0]), finished)

    def _leftmost_known(self) -> bool:
        """Whether the random vector has been asked for long enough.

        The lowest Ritz pair of the whole space proves nothing: it may have converged before the random vector came, to another
        eigenvalue. That of the Krylov space of the random vector itself has to converge.
        """
        basis = self._basis
        k = basis.k
        if k == self._dim or (self._mixed and basis.m == k):
            return True
        if not self._mixed or k <= self._random:
            return False
        inner = Basis(np.tril(basis.P[:k, :k]) + np.tril(basis.P[:k, :k], -1).T, k)
        e = np.zeros(k)
        e[self._random] = 1.0
        inner.put(e)
        while inner.k < inner.m and inner.k < self._turns:
            inner.expand()
        _, Y = eigh(inner.P[: inner.k, : inner.k])
        y = Y[:, 0]
        vector = dgemv(1.0, inner.Q[:, : inner.k], y)
        return math.hypot(inner.residual(y), basis.residual(vector)) <= self.tol * basis.size

    def _grow(self, converged: bool) -> bool:
        """Expand to the next dimension worth a look; False where there is none."""
        basis = self._basis
        if converged and not self._mixed:
            self._mix()
        goal = basis.k + max(1, basis.k // 4)
        grown = False
        while basis.k < goal and self._expand():
            grown = True
        return grown

    def _mix(self) -> None:
        """Put a random vector into the next block."""
        self._drawn += 1
        self._random, self._turns = self._basis.m, 0
        self._mixed = self._basis.put(start_vector(self._dim, self._drawn, self.seed)) > 0

    def _expand(self) -> bool:
        basis = self._basis
        if basis.failed or basis.k >= self._maxdim:
            return False
        if basis.m == basis.k:
            if not self.certain:
                return False
            self._mix()
            if basis.m == basis.k:
                return False
        self._turns += 1
        return basis.expand()


class LanczosModel(BlockLanczosModel):
    """The minimizer over the Krylov space of H and g: GLTR (Gould, Lucidi, Roma, Toint 1999), and its cubic twin.

    As BlockLanczosModel without a second vector.
    """

    def __init__(
        self, H: Any, g: np.ndarray, *, tol: float = 1e-8, maxdim: int | None = None, certain: bool = False, seed: int = 0
    ):
        super().__init__(H, g, None, tol=tol, maxdim=maxdim, certain=certain, seed=seed)
