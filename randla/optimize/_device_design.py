"""Rows of a design matrix on a CUDA device, with what `Design` offers.

Vectors with an entry for every row stay on the device. Vectors of parameters are those of the optimizers, on the host: a pass
sends them there and waits once for what comes back, a number and a gradient together. With 2048 columns that is 16 KB each way,
while the pass reads 16 KB for every row.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from .. import _csr
from .._backend import Array, is_sparse, kernels, namespace, on_device, rows_of_block, to_host
from .._matrix import wrap


class DeviceDesign:
    """The rows of A; `listed` says which rows of the problem they are, None all of them.

    Where the numbers of a row lie next to each other, passes read listed rows where they are. Else a copy is read, because rows
    out of columns take whole sectors of memory for single numbers, and the transpose of a sparse matrix is read whole.
    """

    def __init__(self, A: Any, listed: Any = None, in_place: bool = False):
        self.xp = namespace(A)
        self.sparse = is_sparse(A)
        copied = listed is not None and not in_place and (self.sparse or A.strides[1] != A.itemsize)
        self.A = A[listed] if copied else A
        self.listed, self.rows = listed, None if copied else listed
        self.count, self.dim = int(A.shape[0] if listed is None else len(listed)), int(A.shape[1])
        self._kernels = kernels(A)

    @cached_property
    def _parts(self) -> tuple[Any, ...]:
        if not self.sparse:
            return (self.A,)
        # Sums over rows are products with the transpose, see csrc/cuda/csr_pass.cu.
        return *_csr.parts(self.A), self.dim, _csr.parts(_csr.transposed(self.A))

    def _run(self, name: str, *arguments: Any) -> None:
        getattr(self._kernels, f"{name}_csr" if self.sparse else name)(*self._parts, self.rows, *arguments)

    def listing(self, rows: np.ndarray) -> DeviceDesign:
        """Those rows, ascending, of all that these are, read where they lie."""
        part = DeviceDesign(self.A, self.xp.asarray(rows), in_place=True)
        part._parts = self._parts
        return part

    def evaluate(
        self, loss: Any, y: Array, w: Array | None, x: np.ndarray, gradient: bool, z: Array | None = None
    ) -> tuple[float, Array, Array, Array, np.ndarray | None]:
        """As `Design.evaluate`; waits once."""
        k, size = loss.classes, loss.classes * self.dim if gradient else 0
        out = self.xp.empty(size + 1)
        g, total = out[:size].reshape(k, self.dim) if gradient else None, out[size:]
        if z is None and hasattr(loss, "id"):
            z, c, d = (self.xp.empty((k, self.count)) for _ in range(3))
            self._run("glm", loss.id, loss.parameter, y, w, self.xp.asarray(x.reshape(k, -1)), z, c, d, g, total)
        else:
            z = self.forward(x.reshape(k, -1)) if z is None else z
            c, d = loss.put_terms(z, y, w, total)
            if gradient:
                self._run("weighted_product", None, c, None, None, g)
        found = to_host(out)
        return float(found[-1]), z, c, d, found[:-1].reshape(k, self.dim) if gradient else None

    def forward(self, V: Array) -> Array:
        """A V' for V (k, dim) of either side, (k, count)."""
        U = self.xp.empty((len(V), self.count))
        self._run("weighted_product", self.xp.asarray(V), None, None, U, None)
        return U

    def adjoint(self, C: Array) -> np.ndarray:
        """C A for C (k, count), (k, dim) on the host."""
        G = self.xp.empty((len(C), self.dim))
        self._run("weighted_product", None, C, None, None, G)
        return to_host(G)

    def product(self, V: Array, d: Array) -> Array:
        """V A' diag(d) A for V (k, dim), in one pass; where V is."""
        G = self.xp.empty((len(V), self.dim))
        self._run("weighted_product", self.xp.asarray(V), None, d, None, G)
        return G if on_device(V) else to_host(G)

    def softmax_product(self, V: Array, p: Array, w: Array | None) -> Array:
        """The Hessian of the softmax loss with probabilities p (classes, count) times V (k, classes dim); where V is."""
        there = self.xp.asarray(V).reshape(len(V), len(p), self.dim)
        G = self.xp.empty(there.shape)
        for v, g in zip(there, G, strict=True):
            self._run("softmax_product", v, p, w, g)
        G = G.reshape(V.shape)
        return G if on_device(V) else to_host(G)

    def gram(self, d: Array) -> np.ndarray:
        """A' diag(d) A, (dim, dim) on the host; by matrix products of blocks of rows, which for sparse rows are filled up."""
        G = self.xp.zeros((self.dim, self.dim))
        step = rows_of_block(self.dim, 256)
        for i in range(0, self.count, step):
            block = self._dense_rows(i, min(i + step, self.count)).astype(np.float64, copy=False)
            G += block.T @ (block * d[i : i + step, None])
        return to_host((G + G.T) / 2)

    def _dense_rows(self, i: int, end: int) -> Array:
        if self.rows is None and not self.sparse:
            return self.A[i:end]
        rows = self.xp.arange(i, end) if self.rows is None else self.rows[i:end]
        return _csr.dense_rows(self.A, rows) if self.sparse else self.A[rows]

    def row_squares(self) -> Array:
        """||a_i||^2 in float64, of all rows."""
        if self.sparse:
            return wrap(self.A).row_squares()
        out = self.xp.empty(self.count)
        self._kernels.row_squares(self.A, None, None, out)
        return out
