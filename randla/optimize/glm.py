"""Generalized linear models as finite sums: f_i(x) = w_i loss(a_i'x, y_i), with penalties on x."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from .. import _check
from .._backend import Array, kind, like, namespace, on_device, parameters, same_device
from ..leverage import leverage_scores
from ._design import Design, GrowingDesign, finite_rows
from ._device_design import DeviceDesign
from .losses import Loss, Regularizer, resolve
from .objective import Counts, Evaluation, FiniteSum, Hessian, Ray, Sample, WindowSample

_CHEAP_GRAM = 512  # columns up to which A' D A is made at the speed of a few products


class GLM(FiniteSum):
    """F(x) = (1/n) sum_i w_i loss(a_i'x, y_i) + l2/2 ||x||^2 + regularizer, for the rows a_i of X.

    Parameters
    ----------
    X : array or sparse, (n, d)
        float32 or float64 (others are converted), C or F order, any strides; CSR, others are converted. Read where it lies;
        arithmetic is float64. CuPy arrays and sparse matrices of a device are read there; y and weights then are there too.
    y : array, (n,)
        Labels: -1 and 1 or 0 and 1 ("logistic", "squared_sigmoid"); numbers >= 0 ("poisson"); classes 0, 1, ... ("softmax");
        real numbers.
    loss : str or Loss
        With z = a'x, r = z - y and p the scale: "logistic" log(1 + exp(-y z)); "squared_sigmoid" (1 / (1 + exp(-z)) - y)^2;
        "least_squares" r^2 / 2; "softplus" (log(1 + exp z) - y)^2 / 2; "poisson" exp(z) - y z; "softmax"
        log(sum exp z_k) - z_y, where x holds one row of d numbers for every class; robust: "tukey" p^2/6 (1 - (1 - r^2/p^2)^3)
        within p, "huber", "pseudo_huber" p^2 (sqrt(1 + r^2/p^2) - 1), "cauchy" p^2/2 log(1 + r^2/p^2), "welsch"
        p^2/2 (1 - exp(-r^2/p^2)), "geman_mcclure" r^2/2 / (1 + r^2/p^2).
    l2 : float
        Weight of half the squared norm, >= 0.
    regularizer : Regularizer
        Another penalty, separable, such as NonConvexRegularizer(weight).
    weights : array, (n,)
        w_i >= 0.
    scale : float
        p of the robust losses, in the unit of y; by default that of 95 % efficiency at normal errors of variance 1.

    Attributes
    ----------
    n, dim : int
        Terms; variables (d, or classes times d).
    convex : bool

    Raises
    ------
    TypeError, ValueError
        For shapes that do not match, complex or non-finite data, labels that the loss does not know, l2 < 0; TypeError for data
        of which some are on a device and some are not.

    Notes
    -----
    Of a device everything with an entry for each row stays there, and the functions of a `Loss` of your own get CuPy arrays.
    Vectors of dim numbers are the host's: the functions of a `Regularizer` get NumPy arrays. `value`, `grad`, `hessian` and
    products take vectors of either side, and give those back where they were given; only vectors of the device make products
    that wait for nothing. `to_dense` of a Hessian is a NumPy array. Of a sparse X the transpose is kept beside it.
    """

    has_variances = True

    def __init__(
        self,
        X: Any,
        y: Any,
        loss: str | Loss = "logistic",
        l2: float = 0.0,
        regularizer: Regularizer | None = None,
        *,
        weights: Any = None,
        scale: float | None = None,
    ):
        same_device(X=X, y=y, weights=weights)
        X = _check.matrix(X, "X", device=True)
        if X.dtype.kind == "c":
            raise TypeError(f"X must be real; got {X.dtype}")
        if not all(X.shape):
            raise ValueError(f"X must have rows and columns; got shape {X.shape}")
        finite_rows(X, "X")
        y = _check.real_array(y, "y", device=True)
        if y.shape != (X.shape[0],):
            raise ValueError(f"y must have shape ({X.shape[0]},), one label per row of X; got {y.shape}")
        _check.finite(y, "y")
        if regularizer is not None and not isinstance(regularizer, Regularizer):
            raise TypeError(f"regularizer must be a Regularizer or None; got {regularizer!r}")
        self.X, self.l2, self.regularizer = X, _check.real(l2, "l2"), regularizer
        self.loss = resolve(loss, scale, y)
        self.weights = None if weights is None else _check.weights(weights, X.shape[0], device=True)
        self.y = self.loss.labels(y)
        self.n, self.dim = X.shape[0], X.shape[1] * self.loss.classes
        self.convex = self.loss.convex and (regularizer is None or regularizer.convex)
        self.curvature_bound = self.l2
        self.home = X
        self._grown: tuple[Any, GrowingDesign] | None = None
        self._sent: tuple[Any, Array] | None = None
        self._last: GLMEvaluation | None = None

    @cached_property
    def design(self) -> Design | DeviceDesign:
        return DeviceDesign(self.X) if on_device(self.X) else Design(self.X)

    @cached_property
    def row_squares(self) -> Array:
        """||a_i||^2, (n,)."""
        return self.design.row_squares()

    @cached_property
    def leverage(self) -> Array:
        """Leverage scores of the rows of X, (n,)."""
        return leverage_scores(self.X, rng=0)  # a seed of its own: the seed of a run must replay its draws

    def value(self, x: np.ndarray, idx: Any = None) -> float:
        """F(x), or the mean over the terms idx."""
        return self._public(x, idx).fun

    def grad(self, x: Array, idx: Any = None) -> Array:
        """The gradient, (dim,)."""
        return like(x, self._public(x, idx).grad.copy())

    def hessian(self, x: np.ndarray, idx: Any = None) -> Hessian:
        """The Hessian, an operator: H @ v, H @ V, H.to_dense()."""
        return self._public(x, idx).hessian()

    def _public(self, x: Any, idx: Any) -> GLMEvaluation:
        x = _check.real_array(parameters(x, self.home), "x")
        x = np.array(x, np.float64)
        if x.shape != (self.dim,):
            raise ValueError(f"x must have shape ({self.dim},); got {x.shape}")
        if idx is not None:
            return self.at(x, Sample(_rows(parameters(idx, self.home), self.n)))
        # A caller that asks for value, gradient and Hessian one after the other pays for one forward pass.
        last = self._last
        if last is None or last.x.tobytes() != x.tobytes():
            last = self._last = self.at(x)
        return last

    def at(self, x: np.ndarray, sample: Sample | None = None, counts: Counts | None = None) -> GLMEvaluation:
        return GLMEvaluation(self, x, sample, Counts() if counts is None else counts)

    def design_of(self, sample: Sample | None) -> Design | DeviceDesign:
        if sample is None:
            return self.design
        if on_device(self.X):
            return self._there(sample)
        if isinstance(sample, WindowSample):
            if self._grown is None or self._grown[0] is not sample.order:
                self._grown = sample.order, GrowingDesign(self.X, sample.order.order)
            return self._grown[1].window(sample.start, sample.stop)
        return Design(self.X, sample.rows)

    def rows_of(self, sample: Sample | None) -> Any:
        """What picks the terms of a sample out of vectors of all."""
        if sample is None:
            return slice(None)
        return self._there(sample).listed if on_device(self.X) else sample.rows

    def _there(self, sample: Sample) -> DeviceDesign:
        if self not in sample.held:
            sample.held[self] = DeviceDesign(self.X, self._sent_rows(sample))
        return sample.held[self]

    def _sent_rows(self, sample: Sample) -> Array:
        """An order is sent to the device once, and its windows are cut out there."""
        if not isinstance(sample, WindowSample):
            return like(self.X, sample.rows)
        if self._sent is None or self._sent[0] is not sample.order:
            self._sent = sample.order, like(self.X, sample.order.order)
        return self._sent[1][sample.start : sample.stop]

    def penalty(self, x: np.ndarray) -> float:
        other = 0.0 if self.regularizer is None else self.regularizer.total(x)
        return 0.5 * self.l2 * float(x @ x) + other

    def penalty_change(self, x: np.ndarray, s: np.ndarray) -> float:
        other = 0.0 if self.regularizer is None else self.regularizer.difference(x, s)
        return self.l2 * float(s @ (x + 0.5 * s)) + other

    def penalty_gradient(self, x: np.ndarray) -> np.ndarray:
        return self.l2 * x if self.regularizer is None else self.l2 * x + self.regularizer.first(x)

    def penalty_diagonal(self, x: np.ndarray) -> np.ndarray:
        """The diagonal of the Hessian of the penalties, (dim,)."""
        other = 0.0 if self.regularizer is None else self.regularizer.second(x)
        return np.full(self.X.shape[1] * self.loss.classes, self.l2) + other


class GLMEvaluation(Evaluation):
    """A GLM over a sample at one point. Margins are kept, so that value, gradient and Hessian share the forward pass."""

    problem: GLM

    def __init__(
        self,
        problem: GLM,
        x: np.ndarray,
        sample: Sample | None,
        counts: Counts,
        margins: Array | None = None,
        seen: tuple[int, np.ndarray] | None = None,
    ):
        super().__init__(problem, x, sample, counts)
        rows = problem.rows_of(sample)
        self.y = problem.y if sample is None else problem.y[rows]
        self.w = problem.weights if sample is None or problem.weights is None else problem.weights[rows]
        self.design = problem.design_of(sample)
        self.xp = namespace(problem.X)
        self._margins = margins
        self._sum_of_gradients: np.ndarray | None = None
        self._seen = seen  # the sum of gradients over that many of the first terms
        self._terms: tuple[float, Array, Array] | None = None

    def _evaluate(self, gradient: bool) -> None:
        loss, c = self.problem.loss, self.counts
        if self._margins is None:
            f, z, first, second, g = self.design.evaluate(loss, self.y, self.w, self.x, gradient)
            self._margins, self._terms, self._sum_of_gradients = z, (f, first, second), g
            c.props += self.size * (2 if gradient else 1)
            c.nfev += 1
            c.njev += int(gradient)
        elif self._terms is None:
            # Their sum is made with them where it is wanted whole.
            both = gradient and self._seen is None
            f, _, first, second, g = self.design.evaluate(loss, self.y, self.w, self.x, both, self._margins)
            self._terms, self._sum_of_gradients = (f, first, second), g if both else self._sum_of_gradients
            c.props += self.size if both else 0
            c.njev += int(both)
        if gradient and self._sum_of_gradients is None:
            self._add_gradients()

    def _add_gradients(self) -> None:
        _, first, _ = self.terms
        if self._seen is None:
            self._sum_of_gradients = self.design.adjoint(first)
            self.counts.props += self.size
        else:
            known, total = self._seen
            new = self.problem.design_of(_tail(self.sample, known))
            self._sum_of_gradients = total + new.adjoint(self.xp.ascontiguousarray(first[:, known:]))
            self.counts.props += self.size - known
        self.counts.njev += 1

    @property
    def terms(self) -> tuple[float, Array, Array]:
        """sum w f, and w f', w f'' of every term, (classes, size); of the softmax loss probabilities in the place of w f''."""
        if self._terms is None:
            self._evaluate(gradient=False)
        assert self._terms is not None
        return self._terms

    @property
    def margins(self) -> Array:
        if self._margins is None:
            self._evaluate(gradient=False)
        assert self._margins is not None
        return self._margins

    @property
    def fun(self) -> float:
        if self._fun is None:
            self._fun = self.terms[0] / self.size + self.problem.penalty(self.x)
        return self._fun

    @property
    def data_gradient(self) -> np.ndarray:
        """The gradient without that of the penalties."""
        if self._sum_of_gradients is None:
            self._evaluate(gradient=True)
        assert self._sum_of_gradients is not None
        return self._sum_of_gradients.ravel() / self.size

    @property
    def grad(self) -> np.ndarray:
        if self._grad is None:
            self._grad = self.data_gradient + self.problem.penalty_gradient(self.x)
        return self._grad

    @property
    def weights(self) -> Array:
        """d with X' diag(d) X the Hessian of the data, (size,); not of the softmax loss."""
        return self.terms[2][0] / self.size

    def hessian(self, sample: Sample | None = None) -> Hessian:
        problem, design = self.problem, self.design
        second, size, scale = self.terms[2], self.size, 1.0 / self.size
        if sample is None or sample is self.sample:
            w = self.w
        else:
            places, design = self._part(sample)
            second, size, scale = self.xp.ascontiguousarray(second[:, places]), sample.size, 1.0 / max(sample.size, 1)
            w = None if self.w is None else self.w[places]
        diagonal = None if self.problem.regularizer is None and not self.problem.l2 else problem.penalty_diagonal(self.x)
        weights = None if sample is None or sample.weights is None else like(problem.X, sample.weights)
        if problem.loss.classes > 1:
            if weights is not None:
                w, scale = weights if w is None else w * weights, 1.0
            return _softmax_hessian(design, second, w, scale, diagonal, size, self.counts)
        d = second[0] * scale if weights is None else second[0] * weights
        return glm_hessian(design, d, diagonal, size, self.counts)

    def _part(self, sample: Sample) -> tuple[Any, Design | DeviceDesign]:
        """Where the terms of a smaller sample lie among these, and their rows."""
        if self.sample is None:
            if isinstance(self.design, DeviceDesign):
                return self.problem.rows_of(sample), self.problem.design_of(sample)
            return sample.rows, self.design.gathered(sample.rows)
        if isinstance(sample, WindowSample) and isinstance(self.sample, WindowSample) and sample.order is self.sample.order:
            first = self.sample.start
            if first <= sample.start and sample.stop <= self.sample.stop:
                return slice(sample.start - first, sample.stop - first), self.problem.design_of(sample)
        order = np.argsort(self.sample.rows)
        found = np.searchsorted(self.sample.rows, sample.rows, sorter=order)
        places = order[np.minimum(found, self.size - 1)]
        if not np.array_equal(self.sample.rows[places], sample.rows):
            raise ValueError("the terms of a Hessian must be among those of the evaluation; got others")
        if isinstance(self.design, DeviceDesign):
            return like(self.problem.X, places), self.problem.design_of(sample)
        return places, self.design.gathered(places) if self.design.rows is None else Design(self.problem.X, sample.rows)

    def importance(self, scheme: str) -> Array:
        """|f_i''| ||a_i||^2 ("row-norm"; Xu, Roosta, Mahoney 2017) or |f_i''| times the leverage score of a_i ("leverage")."""
        scores = self.problem.row_squares if scheme == "row-norm" else self.problem.leverage
        second = self.terms[2]
        if self.problem.loss.classes > 1:
            second = second * (1 - second)
            second = second if self.w is None else second * self.w
        return abs(second).sum(axis=0) * scores[self.problem.rows_of(self.sample)]

    def gradient_squares(self) -> Array:
        """||f_i'||^2 ||a_i||^2 of every term."""
        _, first, _ = self.terms
        return self.xp.einsum("ki,ki->i", first, first) * self.problem.row_squares[self.problem.rows_of(self.sample)]

    def restricted(self, sample: Sample) -> GLMEvaluation:
        if self.sample is not None or self._margins is None:
            return self.problem.at(self.x, sample, self.counts)
        return GLMEvaluation(self.problem, self.x, sample, self.counts, self._margins_of(sample))

    def _margins_of(self, sample: Sample) -> Array:
        return self.xp.ascontiguousarray(self.margins[:, self.problem.rows_of(sample)])

    def variances(self, inner_product: bool = False) -> tuple[float, float]:
        _, first, _ = self.terms
        g = self.data_gradient
        squares = self.xp.einsum("ki,ki->i", first, first) @ self.problem.row_squares[self.problem.rows_of(self.sample)]
        trace = max(float(squares) / self.size - float(g @ g), 0.0)
        if not inner_product:
            return trace, math.nan
        u = self.design.forward(self.grad.reshape(self.problem.loss.classes, -1))
        self.counts.props += self.size
        products = self.xp.einsum("ki,ki->i", first, u)
        return trace, float(products.var())

    def ray(self, p: np.ndarray) -> GLMRay:
        return GLMRay(self, p)

    def enlarged(self, sample: Sample | None) -> Evaluation:
        """The same point on a sample that holds this one: only the new rows are read."""
        mine = self.sample
        if not isinstance(mine, WindowSample) or mine.start != 0:
            return super().enlarged(sample)
        order, stop = mine.order, self.problem.n
        if sample is not None:
            if not isinstance(sample, WindowSample) or sample.order is not order or sample.start != 0:
                return super().enlarged(sample)
            stop = sample.stop
        x = self.x.reshape(self.problem.loss.classes, -1)
        self.counts.props += stop - self.size
        self.counts.nfev += 1
        if sample is not None:
            new = self.problem.design_of(WindowSample(order, self.size, stop))
            z = self.xp.concatenate([self.margins, new.forward(x)], axis=1)
            seen = None if self._sum_of_gradients is None else (self.size, self._sum_of_gradients)
            return GLMEvaluation(self.problem, self.x, WindowSample(order, 0, stop), self.counts, z, seen)
        # All terms are read where they lie, and in that order.
        new = self.problem.design.listing(np.sort(order.order[self.size :]))
        others: Any = new.rows
        z = self.xp.empty((len(x), stop))
        z[:, self.problem.rows_of(mine)], z[:, others] = self.margins, new.forward(x)
        there = GLMEvaluation(self.problem, self.x, None, self.counts, z)
        if self._sum_of_gradients is not None:
            there._sum_of_gradients = self._sum_of_gradients + new.adjoint(self.xp.ascontiguousarray(there.terms[1][:, others]))
            self.counts.props += stop - self.size
            self.counts.njev += 1
        return there


class GLMRay(Ray):
    """The points x + t p: one forward pass for all t."""

    start: GLMEvaluation

    def __init__(self, start: GLMEvaluation, p: np.ndarray):
        super().__init__(start, p)
        self._u: Array | None = None

    @property
    def slopes(self) -> Array:
        """The change of the margins per unit of t."""
        if self._u is None:
            self._u = self.start.design.forward(self.p.reshape(self.start.problem.loss.classes, -1))
            self.start.counts.props += self.start.size
        return self._u

    def change(self, t: float = 1.0) -> float:
        start, loss = self.start, self.start.problem.loss
        u = self.slopes if t == 1 else self.slopes * t
        z = start.terms[2] if loss.classes > 1 else start.margins
        start.counts.nfev += 1
        with np.errstate(all="ignore"):
            change, squares = loss.difference(z, u, start.y, start.w)
            mean = change / start.size
            self.decrease, self.variance = -mean, max(squares / start.size - mean * mean, 0.0)
            return mean + start.problem.penalty_change(start.x, t * self.p)

    def noise(self) -> float:
        """Changes of terms are exact to rounding; only their sum cancels."""
        size = float(abs(self.start.terms[1] * self.slopes).sum()) / self.start.size
        penalty = float(np.abs(self.start.problem.penalty_gradient(self.start.x)) @ np.abs(self.p))
        return 8 * np.finfo(float).eps * (size + penalty)

    def accept(self, t: float = 1.0) -> GLMEvaluation:
        start = self.start
        z = start.margins + (self.slopes if t == 1 else t * self.slopes)
        return GLMEvaluation(start.problem, start.x + t * self.p, start.sample, start.counts, z)


def glm_hessian(design: Any, d: Array, diagonal: np.ndarray | None, size: int, counts: Counts | None = None) -> Hessian:
    """X' diag(d) X + diag(diagonal)."""

    def product(V: np.ndarray) -> np.ndarray:
        G = design.product(V, d)
        return G if diagonal is None else G + V * like(V, diagonal)

    def dense() -> np.ndarray:
        G = design.gram(d)
        if diagonal is not None:
            G[np.diag_indices(design.dim)] += diagonal
        return G

    return Hessian(design.dim, product, size, counts, dense if design.dim <= _CHEAP_GRAM else None, home=d)


def _softmax_hessian(
    design: Any,
    p: Array,
    w: Array | None,
    scale: float,
    diagonal: np.ndarray | None,
    size: int,
    counts: Counts,
) -> Hessian:
    def product(V: np.ndarray) -> np.ndarray:
        G = design.softmax_product(V, p, w) * scale
        return G if diagonal is None else G + V * like(V, diagonal)

    return Hessian(len(p) * design.dim, product, size, counts, home=p)


def _tail(sample: Sample | None, known: int) -> Sample:
    assert isinstance(sample, WindowSample)
    return WindowSample(sample.order, sample.start + known, sample.stop)


def _rows(idx: Any, n: int) -> np.ndarray:
    """The rows that a caller's idx names, checked: an array of integers, a boolean mask, or a slice."""
    if on_device(idx):
        raise TypeError(f"idx must be an array of the host, as X is; got {kind(idx)}")
    if isinstance(idx, slice):
        rows = np.arange(n)[idx]
    else:
        rows = np.asarray(idx)
        if rows.dtype == bool and rows.shape == (n,):
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise TypeError(f"idx must be a vector of integers, a mask of shape ({n},), a slice or None; got {idx!r}")
    if not len(rows):
        raise ValueError("idx must name at least one term; got none")
    if rows.min() < -n or rows.max() >= n:
        raise ValueError(f"idx must be between {-n} and {n - 1}; got {rows.min()} to {rows.max()}")
    return np.ascontiguousarray(np.where(rows < 0, rows + n, rows), dtype=np.int64)
