"""The CPU kernels: strided views in, results written into `out`. Arguments have been checked; see csrc/cpu/kernels.h.

Right-hand sides are rows: x and g are (k, n), b and r are (k, m), all float64 and C-contiguous.
`family` is 0 (SparseStack) or 1 (SparseSign); `first` leaves out the first blocks of a SparseStack.
`j0` is the row of the whole matrix at which A begins.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[Any]  # float32 or float64
Doubles: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[Any]  # int32 or int64
Rows: TypeAlias = NDArray[np.int64]

def isa() -> str: ...
def available_isas() -> list[str]: ...
def max_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def has_openmp() -> bool: ...
def philox(counters: NDArray[np.uint32], seed: int) -> NDArray[np.uint32]: ...
def sparse_columns(family: int, d: int, m: int, nnz: int, seed: int, j0: int, j1: int) -> tuple[NDArray[np.int64], Doubles]: ...
def block_srht_columns(d: int, m: int, block: int, seed: int, j0: int, j1: int) -> tuple[NDArray[np.int64], Doubles]: ...
def less_uniform_entries(d: int, m: int, nnz: int, seed: int) -> tuple[NDArray[np.int64], Doubles]: ...
def transform_rows(d: int, n: int, seed: int) -> NDArray[np.int64]: ...
def dense_sketch(family: int, d: int, seed: int, out: Floats, i0: int, j0: int) -> None: ...  # 0 Gaussian, 1 Rademacher
def dense_product(family: int, d: int, seed: int, A: Floats, j0: int, out: Floats) -> None: ...
def dense_product_adjoint(family: int, d: int, seed: int, Y: Floats, j0: int, out: Floats) -> None: ...
def sparse_sketch(family: int, d: int, m: int, nnz: int, first: int, seed: int, A: Floats, j0: int, out: Floats) -> None: ...
def sparse_sketch_csr(
    family: int,
    d: int,
    m: int,
    nnz: int,
    first: int,
    seed: int,
    values: Floats,
    indptr: Indices,
    indices: Indices,
    cols: int,
    j0: int,
    out: Floats,
) -> None: ...
def sparse_sketch_adjoint(
    family: int, d: int, m: int, nnz: int, first: int, seed: int, Y: Floats, j0: int, out: Floats
) -> None: ...

class Entries:  # of a sketch, row by row
    def __init__(self, start: NDArray[np.int64], column: NDArray[np.int64], value: Doubles) -> None: ...

def gather(entries: Entries, A: Floats, out: Floats) -> None: ...
def gather_csr(entries: Entries, values: Floats, indptr: Indices, indices: Indices, cols: int, out: Floats) -> None: ...

# out = A X for a CSR matrix. complex: values are pairs (re, im); X and out have two real columns for every complex one.
def csr_product(values: Floats, indptr: Indices, indices: Indices, X: Floats, out: Floats, complex: bool = False) -> None: ...
def srtt(d: int, m: int, rounds: int, seed: int, A: Floats, j0: int, out: Floats) -> None: ...
def srtt_adjoint(d: int, m: int, rounds: int, seed: int, Y: Floats, j0: int, out: Floats) -> None: ...

# Values k(x_i, y_j) for the rows of X and Y times `scale`: exp(-gamma |x - y|^2) for kind 0, exp(-gamma |x - y|_1) for kind 1.
# With a centre, for kind 0 and many columns, distances come from inner products where these are precise. out is of the dtype of
# X, or float64.
def kernel_columns(
    kind: int, gamma: float, scale: float, centre: Doubles | None, X: Floats, Y: Floats, out: Floats
) -> None: ...

# H[k:] <- L^-1 (H[k:] - B H[:k]) for C = [B L] (m, k + m); adds the squares of the new rows to squares (n,). For complex H
# (k + m, n) C is real, with [re -im; im re] for every entry.
def eliminate(C: Floats, H: NDArray[Any], squares: Doubles) -> None: ...

# out (m, k) = A[:, order] R^-1 for C = R' (k, k), R upper triangular; out may be A where order counts up. For complex A: C as
# above.
def solve_right(C: Floats, order: Rows, A: NDArray[Any], out: NDArray[Any]) -> None: ...
def column_dots(A: Floats, R: Doubles, out: Doubles) -> None: ...
def gram_rows(P: Doubles, first: int, G: Doubles) -> None: ...
def lasso(
    G: Doubles, penalty: Doubles, positive: bool, tol: float, limit: int, x: Doubles, g: Doubles
) -> tuple[int, float]: ...
def l1_path(
    G: Doubles,
    c: Doubles,
    weight: Doubles,
    start: float,
    end: float,
    positive: bool,
    limit: int,
    x: Doubles,
    sign: Doubles,
    u: Doubles,
) -> int: ...
def add_pieces(x: Doubles, round: Doubles, bins: Doubles) -> None: ...
def block_srht(d: int, m: int, block: int, seed: int, A: Floats, j0: int, k0: int, k1: int, out: Floats) -> None: ...
def block_srht_adjoint(d: int, m: int, block: int, seed: int, Y: Floats, j0: int, out: Floats) -> None: ...

# w is (m,). A complex A of n columns is taken as the real matrix of 2 n columns that holds Re, Im of every entry in turn.
def residual(A: Floats, x: Doubles, b: Doubles | None, r: Doubles, g: Doubles, w: Doubles | None = None) -> Doubles: ...
def residual_csr(
    values: Floats,
    indptr: Indices,
    indices: Indices,
    cols: int,
    x: Doubles,
    b: Doubles | None,
    r: Doubles,
    g: Doubles,
    w: Doubles | None = None,
) -> Doubles: ...

# Generalized linear models, see kernels.h. rows: int64 (count,) or None, all of them; y, w: (count,); x, g: (k, n); z, c, d:
# (k, count).
def glm(
    A: Floats,
    rows: Rows | None,
    loss: int,
    parameter: float,
    y: Doubles,
    w: Doubles | None,
    x: Doubles,
    z: Doubles | None,
    c: Doubles | None,
    d: Doubles | None,
    g: Doubles | None,
) -> float: ...
def glm_csr(
    values: Floats,
    indptr: Indices,
    indices: Indices,
    cols: int,
    rows: Rows | None,
    loss: int,
    parameter: float,
    y: Doubles,
    w: Doubles | None,
    x: Doubles,
    z: Doubles | None,
    c: Doubles | None,
    d: Doubles | None,
    g: Doubles | None,
) -> float: ...
def weighted_product(
    A: Floats, rows: Rows | None, x: Doubles | None, c: Doubles | None, d: Doubles | None, u: Doubles | None, g: Doubles | None
) -> None: ...
def weighted_product_csr(
    values: Floats,
    indptr: Indices,
    indices: Indices,
    cols: int,
    rows: Rows | None,
    x: Doubles | None,
    c: Doubles | None,
    d: Doubles | None,
    u: Doubles | None,
    g: Doubles | None,
) -> None: ...
def softmax_product(A: Floats, rows: Rows | None, x: Doubles, p: Doubles, w: Doubles | None, g: Doubles) -> None: ...
def softmax_product_csr(
    values: Floats,
    indptr: Indices,
    indices: Indices,
    cols: int,
    rows: Rows | None,
    x: Doubles,
    p: Doubles,
    w: Doubles | None,
    g: Doubles,
) -> None: ...
def weighted_gram_csr(values: Floats, indptr: Indices, indices: Indices, rows: Rows | None, d: Doubles, G: Doubles) -> None: ...
def loss_terms(
    loss: int, parameter: float, y: Doubles, w: Doubles | None, z: Doubles, c: Doubles, d: Doubles | None
) -> float: ...
def loss_difference(
    loss: int, parameter: float, y: Doubles, w: Doubles | None, z: Doubles, u: Doubles
) -> tuple[float, float]: ...  # sums of w (f(z + u) - f(z)) and of its squares; softmax: z holds the probabilities

# Rows become y = roots a diag(scale) T: out[i] = ||y_i||^2; G += sum y'y. T (n, r), scale (n,), roots (m,).
def row_norms(
    A: Floats, T: Doubles, upper: bool, scale: Doubles | None, roots: Doubles | None, single: bool, out: Doubles
) -> None: ...
def row_norms_csr(
    values: Floats,
    indptr: Indices,
    indices: Indices,
    T: Doubles,
    upper: bool,
    scale: Doubles | None,
    roots: Doubles | None,
    single: bool,
    out: Doubles,
) -> None: ...
def gram(  # of the rows times weights (m,) of any sign
    A: Floats,
    T: Doubles | None,
    upper: bool,
    scale: Doubles | None,
    roots: Doubles | None,
    G: Doubles,
    weights: Doubles | None = None,
) -> None: ...
def gram_csr(
    values: Floats,
    indptr: Indices,
    indices: Indices,
    T: Doubles,
    upper: bool,
    scale: Doubles | None,
    roots: Doubles | None,
    G: Doubles,
) -> None: ...

class _Butterfly:  # stages in the order of their application: patterns (a, b, c, d), values (a, d, b, c)
    def __init__(self, patterns: list[tuple[int, int, int, int]], values: list[NDArray[Any]]) -> None: ...
    def apply(self, X: NDArray[Any], Y: NDArray[Any]) -> None: ...  # (n, batch) of any strides
    # A new array for (n,), (n, batch) or, batch first, (batch, n); None for another shape and for numbers at odd addresses.
    def multiply(self, X: NDArray[Any], batch_first: bool) -> NDArray[Any] | None: ...
    def gradient(self, X: NDArray[Any], G: NDArray[Any], dX: NDArray[Any], dw: NDArray[Any]) -> None: ...

class ButterflyFloat32(_Butterfly): ...
class ButterflyFloat64(_Butterfly): ...
class ButterflyComplex64(_Butterfly): ...
class ButterflyComplex128(_Butterfly): ...

def empty(dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]: ...  # of any contents, in memory that is used again
def kept_memory() -> int: ...  # bytes that wait for the next results
def release_memory() -> None: ...
def rank_one_split(from_: NDArray[Any], widths: list[int], values: list[NDArray[Any]], to: NDArray[Any]) -> list[float]: ...
def fwht(from_: Floats, to: Floats, scale: float) -> None: ...  # (outer, n, inner), contiguous
def triangular(op: int, R: Doubles, Z: Doubles) -> None: ...  # op: 0 R^-1, 1 R^-T, 2 R, 3 R'; rows of Z in place
def cholesky(A: Doubles) -> bool: ...  # upper triangle of A, column-major, in place; False: not positive definite
