"""Descent for A ~ X Y^T on fixed supports, from several starts at once."""

from __future__ import annotations

import dataclasses

import numpy as np

from ._completion import Box
from ._factors import block_factors

_ENTRIES = 1 << 22  # of residuals held at a time
_MASKED_SWEEPS = 5


@dataclasses.dataclass
class Descent:
    """The best of several runs, with (objective, sum of the norms of the rank-one terms) after every sweep."""

    X: np.ndarray
    Y: np.ndarray
    path: np.ndarray
    converged: bool
    fits: bool  # error below tol ||A||


class Rows:
    """Rows of a factor, in batches of equally many rows on equally many columns; rows of one support share a solve."""

    def __init__(self, mask: np.ndarray):
        distinct, which = np.unique(np.packbits(mask, axis=1), axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(which.ravel(), minlength=len(distinct)))[:-1])
        shapes: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
        for rows in groups:
            columns = np.flatnonzero(mask[rows[0]]) if len(rows) else rows
            if len(columns):
                shapes.setdefault((len(rows), len(columns)), []).append((rows, columns))
        self.mask = mask
        self.batches = [tuple(np.stack(part) for part in zip(*same, strict=True)) for same in shapes.values()]

    def newton(self, X: np.ndarray, gradient: np.ndarray, gram: np.ndarray, ridge: float) -> None:
        """X to its minimum, the other factor fixed.

        A correction, not a solution anew: what is cut keeps its value, and rounding is relative to the gradient.
        """
        for rows, columns in self.batches:
            H = gram[:, columns[:, :, None], columns[:, None, :]] + ridge * np.eye(columns.shape[1])
            scale = np.sqrt(np.einsum("sgii->sgi", H).real)
            scale[scale == 0] = 1
            w, V = np.linalg.eigh(H / (scale[..., :, None] * scale[..., None, :]))
            kept = w > columns.shape[1] * np.finfo(float).eps * w[..., -1:]
            inverse = np.divide(1, w, where=kept, out=np.zeros_like(w))
            at = (slice(None), rows[:, :, None], columns[:, None, :])
            step = ((gradient[at] / scale[..., None, :]) @ V * inverse[..., None, :]) @ V.conj().swapaxes(-1, -2)
            X[at] += step / scale[..., None, :]

    def proximal(self, X: np.ndarray, gradient: np.ndarray, gram: np.ndarray, ridge: float) -> None:
        """X one gradient step of length 1 / L further, L the Lipschitz constant."""
        L = np.linalg.norm(gram, 2, axis=(1, 2)) + ridge
        X += np.where(self.mask, gradient, 0) / np.where(L > 0, L, 1)[:, None, None]


def descend(
    A: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    classes: list[Box],
    method: str,
    starts: int,
    options: tuple[int, float, float],
    seed: int,
) -> Descent:
    """Alternate over X and Y ("als": each to its minimum, "palm": a proximal step each), A of size one.

    The first start peels off one block after the other; the others are random.
    """
    sides = Rows(i), Rows(j)
    generator = np.random.Generator(np.random.Philox(key=seed))
    size = max(1, _ENTRIES // max(1, A.size))
    best: Descent | None = None
    for low in range(0, starts, size):
        pairs = [
            _peeled(A, i, j, classes) if s == 0 else _random(A, i, j, generator) for s in range(low, min(low + size, starts))
        ]
        X, Y = (np.stack(part) for part in zip(*pairs, strict=True))
        found = _run(A, X, Y, sides, method, options)
        if best is None or found.path[-1, 0] < best.path[-1, 0]:
            best = found
        if best.fits:
            break
    assert best is not None
    return best


def _run(
    A: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    sides: tuple[Rows, Rows],
    method: str,
    options: tuple[int, float, float],
) -> Descent:
    maxiter, tol, ridge = options
    floor = (tol * float(np.linalg.norm(A))) ** 2
    _balance(X, Y)
    dX, dY = np.zeros_like(X), np.zeros_like(Y)
    value, terms = _size(A - X @ Y.swapaxes(-1, -2), X, Y, ridge)
    paths = [[pair] for pair in zip(value.tolist(), terms.tolist(), strict=True)]
    done, momentum = value <= floor, np.zeros(len(X))
    for _ in range(maxiter):
        run = np.flatnonzero(~done)
        if not len(run) or value.min(initial=np.inf) <= floor:
            break
        # Nesterov's extrapolation with restarts (Mitchell, Ye, De Sterck 2020): a sweep from further on is taken back, and
        # the next one made from where the run stands, where the objective would rise.
        beta = (momentum[run] / (momentum[run] + 3))[:, None, None]
        x, y = X[run] + beta * dX[run], Y[run] + beta * dY[run]
        _sweep(A, x, y, sides, method, ridge)
        new, size = _size(A - x @ y.swapaxes(-1, -2), x, y, ridge)
        fell = new < value[run]
        plain = momentum[run] == 0
        done[run] = np.where(fell, value[run] - new <= tol * new, plain) | (new <= floor)
        momentum[run] = np.where(fell, momentum[run] + 1, 0)
        at = run[fell]
        dX[at], dY[at] = x[fell] - X[at], y[fell] - Y[at]
        X[at], Y[at], value[at], terms[at] = x[fell], y[fell], new[fell], size[fell]
        for s in run:
            paths[s].append((float(value[s]), float(terms[s])))
    best = int(np.argmin(value))
    return Descent(X[best], Y[best], np.array(paths[best]), bool(done[best]), bool(value[best] <= floor))


def _sweep(A: np.ndarray, X: np.ndarray, Y: np.ndarray, sides: tuple[Rows, Rows], method: str, ridge: float) -> None:
    for side, moving, fixed, target in ((sides[0], X, Y, A), (sides[1], Y, X, A.T)):
        other = fixed.conj()
        gradient = (target - moving @ fixed.swapaxes(-1, -2)) @ other - ridge * moving
        step = side.newton if method == "als" else side.proximal
        step(moving, gradient, fixed.swapaxes(-1, -2) @ other, ridge)
    _balance(X, Y)


def _balance(X: np.ndarray, Y: np.ndarray) -> None:
    """Equal norms of x_k and y_k: the product stays, and sum ||x_k||^2 + ||y_k||^2 is smallest."""
    x, y = np.linalg.norm(X, axis=-2, keepdims=True), np.linalg.norm(Y, axis=-2, keepdims=True)
    both = (x > 0) & (y > 0)
    scale = np.sqrt(np.divide(y, x, where=both, out=np.ones_like(x)))
    X *= scale
    Y /= scale


def _size(residual: np.ndarray, X: np.ndarray, Y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.linalg.norm(X, axis=-2), np.linalg.norm(Y, axis=-2)
    fit = np.linalg.norm(residual.reshape(len(X), -1), axis=1) ** 2
    return fit + ridge * (x**2 + y**2).sum(axis=1), (x * y).sum(axis=1)


def _random(A: np.ndarray, i: np.ndarray, j: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    X, Y = (np.where(mask, _normal(generator, mask.shape, A.dtype), 0) for mask in (i, j))
    size = float(np.linalg.norm(X @ Y.T))
    scale = np.sqrt(np.linalg.norm(A) / size) if size else 1.0
    return X * scale, Y * scale


def _normal(generator: np.random.Generator, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    if dtype.kind != "c":
        return generator.standard_normal(shape)
    return generator.standard_normal(shape) + 1j * generator.standard_normal(shape)


def _peeled(A: np.ndarray, i: np.ndarray, j: np.ndarray, classes: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """One block after the other, fitted to the entries that are its own once the earlier ones are gone: elimination, for LU."""
    X, Y = np.zeros(i.shape, A.dtype), np.zeros(j.shape, A.dtype)
    left, count = A.copy(), np.zeros(A.shape, np.int64)
    for box in classes:
        count[np.ix_(box.rows, box.columns)] += 1
    waiting = sorted(classes, key=lambda box: -len(box.rows) * len(box.columns))
    while waiting:
        owns = (k for k, box in enumerate(waiting) if (count[np.ix_(box.rows, box.columns)] == 1).any())
        box = waiting.pop(next(owns, 0))
        at = np.ix_(box.rows, box.columns)
        own = count[at] == 1
        x, y = block_factors(left[at][None], len(box.members))
        keep = box.members[: x.shape[-1]]
        x, y = (x[0], y[0]) if own.all() or not own.any() else _masked(left[at], own, len(keep))
        X[np.ix_(box.rows, keep)], Y[np.ix_(box.columns, keep)] = x, y
        left[at] -= x @ y.T
        count[at] -= 1
    return X, Y


def _masked(B: np.ndarray, mask: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y with x y^T near B on the mask: alternating least squares from the heaviest rows."""
    known = np.where(mask, B, 0)
    heaviest = np.argsort(-np.linalg.norm(known, axis=1), kind="stable")[:rank]
    y = known[heaviest].T.copy()
    x = np.zeros((len(B), rank), B.dtype)
    for _ in range(_MASKED_SWEEPS):
        for moving, fixed, target, seen in ((x, y, B, mask), (y, x, B.T, mask.T)):
            for k, entries in enumerate(seen):
                moving[k] = np.linalg.lstsq(fixed[entries], target[k, entries], rcond=None)[0]
    return x, y
