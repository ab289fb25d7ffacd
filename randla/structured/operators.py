"""Kronecker-sparse matrices and their products as linear operators."""

from __future__ import annotations

import math
import numbers
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import LinAlgWarning
from scipy.sparse.linalg import LinearOperator

from .. import _check, _cpu
from .._backend import Array, namespace, on_device, same_device
from . import _device, _host
from ._blocks import inverted, log_abs_det, reciprocal_condition, solved
from ._merge import merged
from ._places import as_columns, kept, scattered
from .pattern import Chain, Pattern, _pattern

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)

_PLANS = {
    np.dtype(np.float32): _cpu.ButterflyFloat32,
    np.dtype(np.float64): _cpu.ButterflyFloat64,
    np.dtype(np.complex64): _cpu.ButterflyComplex64,
    np.dtype(np.complex128): _cpu.ButterflyComplex128,
}


class _Structured(LinearOperator):
    """What a factor and a product share: `apply`, `_product`, `_transposed` and `conj` are theirs."""

    __array_ufunc__ = None
    __array_priority__ = 100

    def apply(self, X: Any, axis: int = 0, *, out: Array | None = None) -> Array:
        raise NotImplementedError

    @property
    def _product(self) -> Product:
        raise NotImplementedError

    @cached_property
    def _multiply(self) -> Callable[[np.ndarray, bool], np.ndarray | None]:
        """The kernel's product with an array of the own dtype; None for arrays that it does not take as they are."""
        product = self._product
        return product._plan(product.dtype).multiply if product.is_plain else lambda X, batch_first: None

    @property
    def _transposed(self) -> Any:
        raise NotImplementedError

    def conj(self) -> Any:
        raise NotImplementedError

    def __matmul__(self, other: Any) -> Any:
        # What follows would take longer than a thousand rows do.
        if type(other) is np.ndarray and other.dtype is self.dtype and (Y := self._multiply(other, False)) is not None:
            return Y
        if isinstance(other, _Structured):
            return self._product._times(other._product)
        if isinstance(other, LinearOperator):
            return super().__matmul__(other)
        x = _check.array(other, "X", device=True)
        if x.ndim not in (1, 2):
            raise ValueError(f"X must have 1 or 2 dimensions; got {x.ndim}")
        return self.apply(x)

    def __rmatmul__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, LinearOperator) else self.T.apply(other, axis=-1)

    def dot(self, x: Any) -> Any:
        generic = isinstance(x, numbers.Number) or (isinstance(x, LinearOperator) and not isinstance(x, _Structured))
        return super().dot(x) if generic else self @ x

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self.apply(x.ravel())

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return self.apply(X)

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self.H.apply(x.ravel())

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        return self.H.apply(X)

    def _transpose(self) -> Any:
        return self._transposed

    @cached_property
    def _adjointed(self) -> Any:
        return self._transposed if self.dtype.kind == "f" else self._transposed.conj()

    def _adjoint(self) -> Any:
        return self._adjointed


class KroneckerSparse(_Structured):
    """A matrix on the pattern I_a (x) 1_{b x c} (x) I_d: a d dense blocks of size b x c, interleaved. A scipy LinearOperator.

    Parameters
    ----------
    values : array, (a, b, c, d)
        float32, float64, complex64 or complex128; values[i, j, k, l] is the entry at row i b d + j d + l and column
        i c d + k d + l. Copied; read-only afterwards.
    pattern : Pattern, optional
        Must fit the shape of values, which says the same.

    Attributes
    ----------
    values, pattern, shape, dtype, n_params

    Raises
    ------
    TypeError, ValueError
        For other dtypes, a shape that is no pattern's, NaN or infinite values.
    """

    def __init__(self, values: Any, pattern: Pattern | tuple[int, int, int, int] | None = None):
        v = _check.array(values, "values")
        if v.ndim != 4 or not v.size:
            raise ValueError(f"values must have shape (a, b, c, d) with entries; got {v.shape}")
        if pattern is not None and tuple(_pattern(pattern, "pattern")) != v.shape:
            raise ValueError(f"values must have the shape {tuple(pattern)} of the pattern; got {v.shape}")
        _check.finite(v, "values")
        # Plans keep the values too: what the caller does to its array later must not make the two differ.
        self.values = v.copy(order="C")
        self.values.flags.writeable = False
        self.pattern = Pattern(*v.shape)
        super().__init__(v.dtype, self.pattern.shape)

    @property
    def n_params(self) -> int:
        return self.pattern.n_params

    @property
    def blocks(self) -> np.ndarray:
        """The dense blocks, (a, d, b, c), a view."""
        return self.values.transpose(0, 3, 1, 2)

    @cached_property
    def _product(self) -> Product:
        return Product([self])

    @cached_property
    def _transposed(self) -> KroneckerSparse:
        return KroneckerSparse(self.values.swapaxes(1, 2))

    def conj(self) -> KroneckerSparse:
        """The elementwise conjugate."""
        return KroneckerSparse(self.values.conj())

    def apply(self, X: Any, axis: int = 0, *, out: Array | None = None) -> Array:
        """Multiply along one axis; see `Product.apply`."""
        return self._product.apply(X, axis, out=out)

    def to_dense(self) -> np.ndarray:
        """The matrix as an ndarray."""
        a, b, c, d = self.pattern
        out = np.zeros((a, b, d, a, c, d), self.dtype)
        i, l = np.ogrid[:a, :d]
        out[i, :, l, i, :, l] = self.blocks
        return out.reshape(self.shape)

    def __reduce__(self) -> Any:
        return KroneckerSparse, (self.values,)

    def __repr__(self) -> str:
        return f"KroneckerSparse({tuple(self.pattern)}, {self.dtype})"


class Product(_Structured):
    """The product K_1 K_2 ... K_L of Kronecker-sparse matrices, multiplied in one pass through the cache.

    A scipy LinearOperator.

    Parameters
    ----------
    factors : iterable of KroneckerSparse
        At least one; neighbours must match in size. Real and complex, single and double may be mixed.
    rows, cols : array of int, optional
        Distinct rows and columns of the product that are kept, in this order: permutations (a DFT takes its columns in
        bit-reversed order) or fewer (a Toeplitz matrix is a part of a circulant one). None: all.

    Attributes
    ----------
    shape, dtype, chain, n_params, factors, rows, cols

    Raises
    ------
    TypeError
        For factors of another type, and rows and columns that are no integers.
    ValueError
        For no factor, sizes that do not match (names the pair), rows and columns out of range or repeated.
    """

    def __init__(self, factors: Iterable[KroneckerSparse], *, rows: Any = None, cols: Any = None):
        if not isinstance(factors, Iterable):
            raise TypeError(f"factors must be an iterable of KroneckerSparse; got {type(factors).__name__}")
        self.factors = tuple(factors)
        if not self.factors:
            raise ValueError("factors must hold at least 1 KroneckerSparse; got none")
        for s, factor in enumerate(self.factors):
            if not isinstance(factor, KroneckerSparse):
                raise TypeError(f"factors[{s}] must be a KroneckerSparse; got {type(factor).__name__}")
        self.chain = Chain([factor.pattern for factor in self.factors])
        m, n = self.chain.shape
        self.rows = None if rows is None else kept(rows, m, "rows")
        self.cols = None if cols is None else kept(cols, n, "cols")
        shape = (m if self.rows is None else len(self.rows), n if self.cols is None else len(self.cols))
        super().__init__(np.result_type(*(factor.dtype for factor in self.factors)), shape)
        self._plans: dict[tuple[Any, ...], Any] = {}  # and what the device has of this product

    @property
    def n_params(self) -> int:
        return self.chain.n_params

    @property
    def is_plain(self) -> bool:
        """Whether all rows and columns are there in their order."""
        return self.rows is None and self.cols is None

    @property
    def _product(self) -> Product:
        return self

    def _plan(self, dtype: np.dtype, merge: bool = True) -> Any:
        """The kernel's own copy of the factors, in the order of application."""
        plan = self._plans.get((dtype, merge))
        if plan is None:
            plan = self._plans[dtype, merge] = _PLANS[dtype](*self._stages(dtype, merge))
        return plan

    def _stages(self, dtype: np.dtype, merge: bool) -> tuple[list[tuple[int, int, int, int]], list[np.ndarray]]:
        """Patterns and values (a, d, b, c), that of the stage applied first before the others."""
        stages = [(factor.pattern, factor.values) for factor in self.factors]
        stages = merged(stages, dtype) if merge else stages
        values = [np.ascontiguousarray(v.transpose(0, 3, 1, 2), dtype=dtype) for _, v in reversed(stages)]
        return [(p.a, p.b, p.c, p.d) for p, _ in reversed(stages)], values

    def apply(self, X: Any, axis: int = 0, *, out: Array | None = None) -> Array:
        """Multiply along one axis of an array of any number of dimensions; for axis = -1 the batch comes first.

        Parameters
        ----------
        X : array
            X.shape[axis] must be self.shape[1].
        axis : int
        out : array, optional
            Where to put the result: of its shape and dtype, in any layout, apart from X.

        Returns
        -------
        ndarray
            X with self.shape[0] in the place of self.shape[1], in the dtype that both promote to; `out` if given. For an X on a
            CUDA device a CuPy array there. The bits of a vector do not depend on those beside it, on the layout, or on the
            number of threads; those of a device are others than those of the host.

        Raises
        ------
        TypeError
            For unsuitable dtypes, an `out` of another dtype, X and `out` of which one is on the host and one on a device.
        ValueError
            For unsuitable shapes, and an `out` of another shape, that is read-only or that shares memory with X.

        Notes
        -----
        Of the memory of results that are no longer in use up to 64 MB is kept for the next ones.
        """
        if out is None and type(X) is np.ndarray and X.dtype is self.dtype and type(axis) is int and -1 <= axis < X.ndim <= 2:
            Y = self._multiply(X, X.ndim == 2 and axis != 0)
            if Y is not None:
                return Y
        x = _check.array(X, "X", device=True)
        if x.ndim == 0:
            raise ValueError("X must have at least 1 dimension; got 0")
        axis = _check.integer(axis, "axis", -x.ndim, x.ndim - 1) % x.ndim
        if x.shape[axis] != self.shape[1]:
            raise ValueError(f"X must have length {self.shape[1]} along axis {axis}; got shape {x.shape}")
        dtype = np.result_type(self.dtype, x.dtype)
        same_device(X=x, out=out)
        where = _device if on_device(x) else _host
        if out is not None:
            where.require_result(out, (*x.shape[:axis], self.shape[0], *x.shape[axis + 1 :]), dtype)
            if any(where.overlap(given, out) for given in (X, x)):
                raise ValueError("out must not share memory with X")
        return where.apply(self, x, axis, dtype, out)

    def _times(self, other: Product) -> Any:
        if self.shape[1] != other.shape[0]:
            raise ValueError(f"products must match in size; got {self.shape} and {other.shape}")
        if self._ends_where_starts(other):
            return Product([*self.factors, *other.factors], rows=self.rows, cols=other.cols)
        return LinearOperator.dot(self, other)

    def _ends_where_starts(self, other: Product) -> bool:
        """Whether the columns of the last factor here are, all and in their order, the rows of the first one there."""
        if self.cols is None or other.rows is None:
            return self.cols is None and other.rows is None
        return len(self.cols) == self.chain.shape[1] and np.array_equal(self.cols, other.rows)

    @cached_property
    def _transposed(self) -> Product:
        return Product([factor.T for factor in reversed(self.factors)], rows=self.cols, cols=self.rows)

    def conj(self) -> Product:
        """The elementwise conjugate."""
        return Product([factor.conj() for factor in self.factors], rows=self.rows, cols=self.cols)

    def to_dense(self) -> np.ndarray:
        """The matrix as an ndarray."""
        return self.apply(np.eye(self.shape[1], dtype=self.dtype))

    # Square products with square blocks.

    def _require_square(self, what: str) -> None:
        bad = next((factor.pattern for factor in self.factors if factor.pattern.b != factor.pattern.c), None)
        if bad is not None:
            raise ValueError(f"{what} needs factors with square blocks; got {bad}")
        if self.shape != self.chain.shape:
            raise ValueError(f"{what} needs all rows and columns; got {self.shape} of {self.chain.shape}")

    @cached_property
    def _worst(self) -> tuple[float, int]:
        """The smallest reciprocal condition number of a block, rows scaled to one, and the factor it is in; 0 for singular."""
        return min((reciprocal_condition(factor.blocks), s) for s, factor in enumerate(self.factors))

    def _require_regular(self, what: str, dtype: np.dtype) -> None:
        rcond, s = self._worst
        if rcond == 0:
            raise _singular(what, s)
        if rcond < np.finfo(dtype).eps:
            text = f"factors[{s}] has a block of condition {1 / rcond:.1e}: {what} may have no correct digit in {dtype}"
            warnings.warn(text, LinAlgWarning, stacklevel=3)

    def solve(self, B: Any) -> np.ndarray:
        """X with self @ X = B, by LU with partial pivoting of every block.

        Parameters
        ----------
        B : array, (n,) or (n, k)

        Raises
        ------
        TypeError, ValueError
            For unsuitable dtypes and shapes, and factors whose blocks are not square.
        numpy.linalg.LinAlgError
            For a singular block.

        Warns
        -----
        scipy.linalg.LinAlgWarning
            For a block that is singular to working precision, and for numbers that overflow on the way to X.
        """
        self._require_square("solve")
        b = _check.array(B, "B")
        n = self.shape[0]
        if b.ndim not in (1, 2) or b.shape[0] != n:
            raise ValueError(f"B must have shape ({n},) or ({n}, k); got {b.shape}")
        dtype = np.result_type(self.dtype, b.dtype)
        self._require_regular("solve", dtype)
        x = as_columns(b).astype(dtype, copy=False)
        x = x if self.rows is None else scattered(x, self.rows, n)
        for s, factor in enumerate(self.factors):
            a, size, _, d = factor.pattern
            blocks = x.reshape(a, size, d, x.shape[1]).transpose(0, 2, 1, 3)
            with _naming_the_singular("solve", s):
                blocks = solved(factor.blocks.astype(dtype, copy=False), blocks)
            x = blocks.transpose(0, 2, 1, 3).reshape(x.shape)
        if not np.isfinite(x).all() and np.isfinite(b).all():
            warnings.warn(f"solve: X, or what leads to it, is beyond the range of {dtype}", LinAlgWarning, stacklevel=2)
        return (x if self.cols is None else x[self.cols]).reshape(b.shape)

    def inverse(self) -> Product:
        """The inverse, a product of as many factors; where B is at hand `solve` is the more accurate.

        Raises
        ------
        ValueError
            For factors whose blocks are not square.
        numpy.linalg.LinAlgError
            For a singular block, and one whose inverse overflows.

        Warns
        -----
        scipy.linalg.LinAlgWarning
            For a block that is singular to working precision.
        """
        self._require_square("inverse")
        self._require_regular("inverse", self.dtype)
        factors = []
        for s in reversed(range(len(self.factors))):
            with _naming_the_singular("inverse", s):
                inverse = inverted(self.factors[s].blocks)
            if not np.isfinite(inverse).all():
                raise np.linalg.LinAlgError(f"inverse needs blocks whose inverses are finite; factors[{s}] has another")
            factors.append(KroneckerSparse(inverse.transpose(0, 2, 3, 1)))
        return Product(factors, rows=self.cols, cols=self.rows)

    def logabsdet(self) -> float:
        """The logarithm of |det|, -inf for a singular matrix.

        Raises
        ------
        ValueError
            For factors whose blocks are not square.
        """
        self._require_square("logabsdet")
        return math.fsum(float(log_abs_det(factor.blocks).sum()) for factor in self.factors)

    # Gradients and files.

    def vjp(self, X: Any, G: Any) -> tuple[list[Array], Array]:
        """Gradients of F through Y = self @ X for G = dF/dY: those of the values of every factor, and dF/dX.

        dF/dX = self.H @ G and dF/dK_l = G_l X_l^H on the pattern of K_l: for complex values the convention of PyTorch, whose
        gradient is the direction of steepest ascent. Gradients of real values and of real X are the real parts of these. The
        same bits for any number of threads.

        Parameters
        ----------
        X, G : array, (n,) or (n, k), and (m,) or (m, k)

        Returns
        -------
        gradients : list of ndarray
            One (a, b, c, d) for every factor, where X is.
        dX : ndarray
            Of the shape of X.

        Raises
        ------
        TypeError, ValueError
            For unsuitable dtypes and shapes, X and G of which one is on the host and one on a device.
        """
        x, g = _check.array(X, "X", device=True), _check.array(G, "G", device=True)
        same_device(X=x, G=g)
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ValueError(f"X must have shape ({self.shape[1]},) or ({self.shape[1]}, k); got {x.shape}")
        if g.shape != (self.shape[0], *x.shape[1:]):
            raise ValueError(f"G must have shape {(self.shape[0], *x.shape[1:])}; got {g.shape}")
        dtype = np.result_type(self.dtype, x.dtype, g.dtype)
        dX, dw = (_device if on_device(x) else _host).gradient(self, x, g, dtype)
        gradients, at = [], 0
        for factor in reversed(self.factors):
            a, b, c, d = factor.pattern
            values = dw[at : at + factor.n_params].reshape(a, d, b, c).transpose(0, 2, 3, 1)
            gradients.append(namespace(x).ascontiguousarray(_in_field(values, factor.dtype)))
            at += factor.n_params
        return gradients[::-1], _in_field(dX, x.dtype).reshape(x.shape)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write factors, rows and columns to a file in the .npz format, under this very name. TypeError for what is no path."""
        path = _path(file)
        arrays: dict[str, Any] = {f"factor{i}": factor.values for i, factor in enumerate(self.factors)}
        arrays |= {name: places for name, places in (("rows", self.rows), ("cols", self.cols)) if places is not None}
        with open(path, "wb") as stream:
            np.savez(stream, **arrays)

    @staticmethod
    def load(file: str | os.PathLike[str]) -> Product:
        """Read what `save` wrote.

        Raises
        ------
        TypeError
            For what is no path.
        OSError
            For a file that cannot be read.
        ValueError
            For another file.
        """
        path = _path(file)
        try:
            with open(path, "rb") as stream, zipfile.ZipFile(stream), np.load(stream) as data:
                arrays = dict(data)
        except _UNREADABLE as error:
            raise ValueError(f"file must be one that Product.save wrote; got {path!r}: {error}") from None
        places = {name: arrays.pop(name, None) for name in ("rows", "cols")}
        names = [f"factor{i}" for i in range(len(arrays))]
        if not names or arrays.keys() != set(names):
            got = ", ".join(arrays) or "none"
            raise ValueError(f"file must hold factor0, factor1, ... and nothing else than rows and cols; got {got}")
        return Product([KroneckerSparse(arrays[name]) for name in names], **places)

    def __reduce__(self) -> Any:
        return _product_of, (self.factors, self.rows, self.cols)

    def __repr__(self) -> str:
        patterns = ", ".join(str(tuple(p)) for p in self.chain)
        return f"Product({patterns}; {self.shape[0]} x {self.shape[1]}, {self.dtype})"


def _product_of(factors: tuple[KroneckerSparse, ...], rows: np.ndarray | None, cols: np.ndarray | None) -> Product:
    return Product(factors, rows=rows, cols=cols)


def _path(file: Any) -> str:
    # An integer would be an open file of the process to `open`.
    if not isinstance(file, str | os.PathLike):
        raise TypeError(f"file must be a path; got {type(file).__name__}")
    return os.fspath(file)


@contextmanager
def _naming_the_singular(what: str, s: int) -> Iterator[None]:
    """LAPACK may meet a zero pivot where the rows scaled to one gave none."""
    try:
        yield
    except np.linalg.LinAlgError:
        raise _singular(what, s) from None


def _singular(what: str, s: int) -> np.linalg.LinAlgError:
    return np.linalg.LinAlgError(f"{what} needs regular factors; factors[{s}] has a singular block")


def _in_field(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return x.real if dtype.kind == "f" and x.dtype.kind == "c" else x
