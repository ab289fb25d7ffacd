"""Cutting a dense block of a chain into two, with the best error: the step of every hierarchical factorization.

A twiddle (a, d, b, c) holds the a d dense blocks of a matrix of pattern (a, b, c, d). After the cut of its pattern into two
its rows are j1 b2 + j2 and its columns k1 c2 + k2, and every (b1, c2) matrix over (j1, k2) is to have rank r.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from .. import _cpu
from .pattern import Pattern

_EPS = float(np.finfo(np.float64).eps)
_POWER_STEPS = 8
_STRIP = 1 << 17  # numbers that are converted to float64 at a time
_RUN = 4096  # numbers added up by one dot product: those of 10,000 and more OpenBLAS divides among its threads
_PIECE = 1 << 17  # numbers in the blocks whose singular values are taken together: they stay in the cache
_SMALL = 1e-3  # of the energy of a block: below this a difference of energies has lost too many digits


class Cut(NamedTuple):
    """Sizes of a cut: a twiddle (a, d, b1 b2, c1 c2) into (a, b2 d, b1, c1 r) and (a c1, d, r b2, c2)."""

    a: int
    d: int
    b1: int
    b2: int
    c1: int
    c2: int
    r: int

    @classmethod
    def between(cls, left: Pattern, right: Pattern) -> Cut:
        r = left.rank_with(right)
        return cls(left.a, right.d, left.b, left.d // right.d, right.a // left.a, right.c, r)

    @property
    def lossless(self) -> bool:
        return self.r >= min(self.b1, self.c2)

    # Blocks of all three are stacked over (a, c1, d, b2).
    def blocks(self, T: np.ndarray) -> np.ndarray:
        a, d, b1, b2, c1, c2, _ = self
        return T.reshape(a, d, b1, b2, c1, c2).transpose(0, 4, 1, 3, 2, 5)

    def left_blocks(self, X: np.ndarray) -> np.ndarray:
        a, d, b1, b2, c1, _, r = self
        return X.reshape(a, b2, d, b1, c1, r).transpose(0, 4, 2, 1, 3, 5)

    def right_blocks(self, Y: np.ndarray) -> np.ndarray:
        a, d, _, b2, c1, c2, r = self
        return Y.reshape(a, c1, d, r, b2, c2).transpose(0, 1, 2, 4, 3, 5)

    def left(self, blocks: np.ndarray) -> np.ndarray:
        a, d, b1, b2, c1, _, r = self
        return blocks.reshape(a, c1, d, b2, b1, r).transpose(0, 3, 2, 4, 1, 5).reshape(a, b2 * d, b1, c1 * r)

    def right(self, blocks: np.ndarray) -> np.ndarray:
        a, d, _, b2, c1, c2, r = self
        return blocks.reshape(a, c1, d, b2, r, c2).transpose(0, 1, 2, 4, 3, 5).reshape(a * c1, d, r * b2, c2)

    def join(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """The twiddle that two factors multiply to."""
        a, d, b1, b2, c1, c2, _ = self
        product = self.left_blocks(X) @ self.right_blocks(Y)
        return product.transpose(0, 2, 4, 3, 1, 5).reshape(a, d, b1 * b2, c1 * c2)


def twiddle(A: np.ndarray, p: Pattern) -> np.ndarray:
    """The entries of A on a pattern as (a, d, b, c), a view."""
    return np.einsum("ijlikl->iljk", A.reshape(p.a, p.b, p.d, p.a, p.c, p.d))


def off_pattern(A: np.ndarray, p: Pattern) -> float:
    """||.||^2 of the entries of A outside a pattern."""
    if p.a * p.d == 1:
        return 0.0
    rest = A.copy()
    twiddle(rest, p)[...] = 0
    return squared_norm(rest)


def squared_norm(A: np.ndarray) -> float:
    """||A||_F^2 added up in float64, for a contiguous A; the same bits for any number of threads."""
    flat, total = A.reshape(-1), 0.0
    flat = flat.view(flat.real.dtype)
    for start in range(0, flat.size, _STRIP):
        x = flat[start : start + _STRIP].astype(np.float64, copy=False)
        whole = len(x) - len(x) % _RUN
        runs = x[:whole].reshape(-1, _RUN)
        total += float((runs[:, None] @ runs[:, :, None]).sum()) + float(np.dot(x[whole:], x[whole:]))
    return total


def split(T: np.ndarray, cut: Cut, centre: str) -> tuple[np.ndarray, np.ndarray, float]:
    """The best two factors of a twiddle (Eckart, Young 1936, block by block), and the energy ||.||^2 that is lost.

    The columns of the left one are orthonormal where `centre` is "right", else the rows of the right one; on lossless cuts only
    of the factor that is an identity.
    """
    M = np.ascontiguousarray(cut.blocks(T)).reshape(-1, cut.b1, cut.c2)
    n, r, lost = len(M), cut.r, 0.0
    if r >= cut.b1:
        X, Y = np.broadcast_to(np.eye(cut.b1, r, dtype=M.dtype), (n, cut.b1, r)), _padded(M, r, cut.c2)
    elif r >= cut.c2:
        X, Y = _padded(M, cut.b1, r), np.broadcast_to(np.eye(r, cut.c2, dtype=M.dtype), (n, r, cut.c2))
    else:
        # The short side gives the vectors, the side that is to be orthonormal the projection: the losses of cuts in a row are
        # orthogonal then even where vectors are not exact to the last digit.
        short, long = (M, _adjoint(M)) if cut.b1 <= cut.c2 else (_adjoint(M), M)
        U = _leading(short, r)
        if (cut.b1 <= cut.c2) == (centre == "right"):
            side = short
        else:
            side, U = long, np.linalg.qr(long @ U)[0]
        X, Y, lost = _project(side, U)
        if centre == "left":
            X, Y = _adjoint(Y), _adjoint(X)
    return cut.left(X), cut.right(Y), lost


def move_right(X: np.ndarray, Y: np.ndarray, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Two neighbouring factors with the same product, the columns of the left one orthonormal."""
    Q, R = np.linalg.qr(cut.left_blocks(X))
    return cut.left(Q), cut.right(R @ cut.right_blocks(Y))


def move_left(X: np.ndarray, Y: np.ndarray, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Two neighbouring factors with the same product, the rows of the right one orthonormal."""
    Q, R = np.linalg.qr(_adjoint(cut.right_blocks(Y)))
    return cut.left(cut.left_blocks(X) @ _adjoint(R)), cut.right(_adjoint(Q))


def tail(T: np.ndarray, cut: Cut) -> float:
    """The energy that the best two factors of a twiddle lose."""
    return 0.0 if cut.lossless else sum(_lost(M, cut.r) for M in pieces(T, cut))


def pieces(T: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
    """All blocks of a twiddle, some at a time, (n, p, q) in double precision, those with p > q as their adjoints."""
    blocks = cut.blocks(T)
    *counts, b1, c2 = blocks.shape
    left, steps = max(1, _PIECE // (b1 * c2)), [1] * len(counts)
    # Blocks that are close in memory share lines of the cache.
    for axis in sorted(range(len(counts)), key=lambda k: blocks.strides[k]):
        steps[axis] = min(counts[axis], left)
        left //= steps[axis]
    dtype = np.result_type(T.dtype, np.float64)
    for starts in product(*(range(0, count, step) for count, step in zip(counts, steps, strict=True))):
        some = blocks[tuple(slice(start, start + step) for start, step in zip(starts, steps, strict=True))]
        M = np.ascontiguousarray(some, dtype).reshape(-1, b1, c2)
        yield M if b1 <= c2 else _adjoint(M)


def rank_one_splits(T: np.ndarray, widths: list[int]) -> tuple[list[np.ndarray], np.ndarray, list[float]]:
    """Left-to-right cuts of (a, b, c) into factors of two-row blocks with c1 = widths[0], widths[1], ...

    Returns the values (a c1 ..., 2, c1, d) of the factors, their columns orthonormal, the remaining (a c1 ..., b2, c2), and the
    energy that each cut loses.
    """
    a, b, c = T.shape
    values, heads = [], a
    for t, c1 in enumerate(widths):
        values.append(np.empty((heads, 2, c1, b >> (t + 1)), T.dtype))
        heads *= c1
    rest = np.empty((heads, b >> len(widths), c * a // heads), T.dtype)
    lost = _cpu.rank_one_split(np.ascontiguousarray(T), widths, values, rest)
    return values, rest, lost


def _first_vectors(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First eigenvectors of [[xx, xy], [conj(xy), yy]], of norm one; no difference of like numbers is formed."""
    top = np.maximum(xx, yy)
    unit = np.where(top > 0, top, 1)
    df, xy = (xx - yy) / unit, xy / unit
    c = (np.sqrt(df * df + 4 * (xy * xy.conj()).real) + np.abs(df)) / 2
    c = np.where(c > 0, c, 1)
    first = df >= 0
    u0, u1 = np.where(first, c, xy), np.where(first, xy.conj(), c)
    size = np.hypot(np.abs(u0), np.abs(u1))
    return u0 / size, u1 / size


def _adjoint(M: np.ndarray) -> np.ndarray:
    return M.conj().swapaxes(-1, -2)


def _padded(M: np.ndarray, rows: int, cols: int) -> np.ndarray:
    out = np.zeros((len(M), rows, cols), M.dtype)
    out[:, : M.shape[1], : M.shape[2]] = M
    return out


def _project(M: np.ndarray, U: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """U, U^H M and ||M - U U^H M||^2.

    The energy is that of the difference: as a difference of energies it would be all rounding where little is lost.
    """
    W = _adjoint(U) @ M
    rest = U @ W
    np.subtract(M, rest, out=rest)
    return U, W, squared_norm(rest)


def _lost(M: np.ndarray, r: int) -> float:
    """The squares of all singular values of the (p, q) matrices but the first r of each, r < p <= q."""
    G = M @ _adjoint(M)
    total = np.einsum("nii->n", G).real
    if r == 1:
        _, kept, found = _power(G)
        if not found.all():
            kept[~found] = np.linalg.eigvalsh(G[~found])[:, -1]
    else:
        kept = np.linalg.eigvalsh(G)[:, -r:].sum(axis=1)
    lost = total - kept
    small = lost < _SMALL * total
    rest = _project(M[small], _leading(M[small], r, G[small]))[2] if small.any() else 0.0
    return float(lost[~small].sum()) + rest


def _leading(M: np.ndarray, r: int, G: np.ndarray | None = None) -> np.ndarray:
    """The first r left singular vectors of each (p, q) matrix, r < p <= q; G = M M^H."""
    p = M.shape[1]
    G = M @ _adjoint(M) if G is None else G
    if r == 1 and p == 2:
        u0, u1 = _first_vectors(G[:, 0, 0].real, G[:, 1, 1].real, G[:, 0, 1])
        return np.stack([u0, u1], axis=1)[..., None].astype(M.dtype)
    if r == 1:
        x, _, found = _power(G)
        if not found.all():
            x[~found] = np.linalg.eigh(G[~found])[1][..., -1]
        return x[..., None]
    values, vectors = np.linalg.eigh(G)
    U = vectors[..., -r:]
    # What the eigenvectors of the Gram matrix lose beyond the optimum is about (eps lambda_1)^2 / lambda_r.
    first, last, lost = values[:, -1], values[:, -r], np.maximum(values[:, :-r], 0).sum(axis=1)
    shaky = (last < 1e-4 * first) & ((p * _EPS * first) ** 2 > 1e-8 * lost * np.maximum(last, 0))
    if shaky.any():
        U = U.copy()
        U[shaky] = np.linalg.svd(M[shaky], full_matrices=False)[0][..., :r]
    return U


def _power(G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First eigenvectors and eigenvalues where power steps converge fast, and where that is."""
    n, p = G.shape[:2]
    trace, square = np.einsum("nii->n", G).real, np.einsum("nij,nij->n", G, G.conj()).real
    largest = np.argmax(np.einsum("nii->ni", G).real, axis=1)
    x, value, found = G[np.arange(n), :, largest], np.zeros(n), np.zeros(n, bool)
    active = np.arange(n)
    for _ in range(_POWER_STEPS):
        size = np.linalg.norm(x[active], axis=1)
        x[active] = np.where(size[:, None] > 0, x[active] / np.where(size, size, 1)[:, None], np.eye(1, p))
        H = G if len(active) == n else G[active]
        z = (H @ x[active, :, None])[..., 0]
        rho = np.einsum("ni,ni->n", x[active].conj(), z).real
        h = np.linalg.norm(z - rho[:, None] * x[active], axis=1)
        # In a basis that begins with x, G is [[rho, h'], [h, R]]: where rho exceeds ||R||, x is near the first eigenvector
        # and no other one, and the first eigenvalue is at most rho + ||h||^2 / (rho - ||R||).
        tau = trace[active] - rho
        gap = rho - np.minimum(tau, np.sqrt(np.maximum(square[active] - rho * rho - 2 * h * h, 0)))
        fine = (h <= 4 * p * _EPS * rho) | ((h * h <= _EPS * tau * gap) & (tau > 1e-6 * rho))
        value[active], found[active] = rho, fine & (gap >= 0)
        active, z = active[~found[active]], z[~found[active]]
        if not len(active):
            break
        x[active] = z
    return x, value, found
