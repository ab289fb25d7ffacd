"""Named transforms as products of Kronecker-sparse factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg

from .. import _check
from ._stages import inverse, paired, primes, radices, reversed_digits, stages
from .operators import KroneckerSparse, Product
from .pattern import Chain


class RandomProduct(Product):
    """A product of random factors.

    Attributes
    ----------
    seed : int
        Replays it: pass it as `rng`.
    """

    def __init__(self, factors: Sequence[KroneckerSparse], seed: int):
        super().__init__(factors)
        self.seed = seed

    def __reduce__(self) -> Any:
        return RandomProduct, (self.factors, self.seed)


def hadamard(n: int, normalize: bool = False, dtype: Any = np.float64) -> Product:
    """The Walsh-Hadamard matrix H[i, j] = (-1)^popcount(i & j), in natural order, on the dyadic chain.

    `fwht` applies it faster; this is the start of what is to be trained or multiplied further.

    Parameters
    ----------
    n : int
        A power of two.
    normalize : bool
        Divide by sqrt(n); every factor is then orthogonal.
    dtype : float32 or float64

    Returns
    -------
    Product
        n x n, 2 n log2(n) parameters.

    Raises
    ------
    TypeError, ValueError
        For other n and dtypes.
    """
    kind = _dtype(dtype, _check.FLOATS)
    signs = np.array([[1.0, 1.0], [1.0, -1.0]])
    factors = []
    for a, b, c, d in Chain.dyadic(n):
        block = signs[:b, :c] * (b**-0.5 if normalize else 1.0)
        factors.append(_factor(np.broadcast_to(block[..., None], (a, b, c, d)), kind))
    return Product(factors)


def dft(n: int, normalize: bool = False, dtype: Any = np.complex128) -> Product:
    """The discrete Fourier transform F[k, t] = exp(-2 pi i k t / n), as `scipy.fft.fft` (Cooley, Tukey, 1965).

    One factor (p_1 ... p_{l-1}, p_l, p_l, p_{l+1} ... p_L) for each prime of n = p_1 ... p_L, in ascending order: the dyadic
    chain for a power of two, one dense block for a prime. The columns are in digit-reversed order (`cols`).

    Parameters
    ----------
    n : int, >= 1
    normalize : bool
        Divide by sqrt(n), as norm="ortho" of scipy; every factor is then unitary.
    dtype : complex64 or complex128

    Returns
    -------
    Product
        n x n, n (p_1 + ... + p_L) parameters.

    Raises
    ------
    TypeError, ValueError
        For other n and dtypes.
    """
    n, kind = _check.integer(n, "n", 1), _dtype(dtype, _check.COMPLEX)
    p = primes(n)
    return Product(_scaled(stages(p), [q**-0.5 if normalize else 1.0 for q in p], kind), cols=inverse(reversed_digits(p)))


def idft(n: int, normalize: bool = False, dtype: Any = np.complex128) -> Product:
    """The inverse discrete Fourier transform, as `scipy.fft.ifft`.

    The factors are those of `dft`, conjugated and in reverse. It is the rows that are in digit-reversed order, so that
    idft(n) @ K @ dft(n) is one product for any product K with all rows and columns in their order.

    Parameters
    ----------
    n : int, >= 1
    normalize : bool
        Divide by sqrt(n) instead of n, as norm="ortho" of scipy; every factor is then unitary.
    dtype : complex64 or complex128

    Returns
    -------
    Product
        n x n, n (p_1 + ... + p_L) parameters for the primes p_l of n.

    Raises
    ------
    TypeError, ValueError
        For other n and dtypes.
    """
    n, kind = _check.integer(n, "n", 1), _dtype(dtype, _check.COMPLEX)
    p = primes(n)
    scales = [q**-0.5 if normalize else 1 / q for q in p]
    values = [v.conj().swapaxes(1, 2) for v in stages(p)]
    return Product(_scaled(values, scales, kind)[::-1], rows=inverse(reversed_digits(p)))


def dct(n: int, type: int = 2, norm: str | None = None, dtype: Any = np.float64) -> Product:
    """The discrete cosine transform of type 2, 3 or 4, as `scipy.fft.dct`, on a real chain of inner rank 2.

    With the even entries first and the odd ones after them in reverse (Makhoul, 1980), type 2 is the real part of
    2 exp(-2 pi i k (t + 1/4) / n), type 4 the same at k + 1/2 with the odd entries negated, and type 3 the transpose of type 2
    up to scaling. The factors are those of a Fourier transform at other angles, complex numbers written as 2 x 2 blocks; at
    both ends of the chain real parts are enough.

    Parameters
    ----------
    n : int, >= 1
    type : 2, 3 or 4
    norm : None or "ortho"
        "ortho": the orthogonal matrix.
    dtype : float32 or float64

    Returns
    -------
    Product
        n x n, the columns (rows for type 3) permuted. `Chain.deformable` with rank 2, pairs of the prime 2 in one factor:
        8 n (log2(n) - 2) parameters for powers of two from 8 on, one dense block for a prime.

    Raises
    ------
    TypeError, ValueError
        For other arguments.
    """
    return _trigonometric(n, type, norm, dtype, sine=False)


def dst(n: int, type: int = 2, norm: str | None = None, dtype: Any = np.float64) -> Product:
    """The discrete sine transform of type 2, 3 or 4, as `scipy.fft.dst`, on a real chain of inner rank 2.

    As `dct`, from imaginary parts at k + 1 instead of real ones at k.

    Parameters
    ----------
    n : int, >= 1
    type : 2, 3 or 4
    norm : None or "ortho"
        "ortho": the orthogonal matrix.
    dtype : float32 or float64

    Returns
    -------
    Product
        n x n, of the size and permutation of `dct`.

    Raises
    ------
    TypeError, ValueError
        For other arguments.
    """
    return _trigonometric(n, type, norm, dtype, sine=True)


def circulant(c: Any) -> Product:
    """The circulant matrix C[i, j] = c[(i - j) mod n], as `scipy.linalg.circulant`.

    With the Fourier transform F = K P, P its permutation, C = conj(K) D K^T: D has the eigenvalues in the order of P, no
    permutation is left, and the three factors in the middle make one. For real c the factors are real, complex numbers written
    as 2 x 2 blocks. Where it takes fewer parameters, as for large primes, C is a part of a larger circulant matrix.

    Parameters
    ----------
    c : array (n,)
        The first column, n >= 1; the product has its dtype. For `solve`, whose blocks must be square, make it complex, and n a
        product of small primes or a small prime.

    Returns
    -------
    Product
        n x n, for powers of two with about 4 n log2(n) complex or 16 n log2(n) real parameters.

    Raises
    ------
    TypeError, ValueError
        For anything but a finite vector, and entries so near the largest number that eigenvalues / n overflow.
    """
    c = _vector(c, "c")
    n, real = len(c), c.dtype.kind == "f"
    size, params = _smooth(2 * n - 1, real)
    if _circulant_radices(n, real)[1] <= params:
        return Product(_circulant(c))
    return _embedded(c, c[:0:-1], size)


def toeplitz(c: Any, r: Any = None) -> Product:
    """The Toeplitz matrix T[i, j] = c[i - j] for i >= j, else r[j - i], as `scipy.linalg.toeplitz`; also rectangular.

    The first rows and columns of a circulant matrix whose order, at least m + n - 1, is 2^k, 3 2^k or 5 2^k; one dense block
    where that takes no more parameters.

    Parameters
    ----------
    c : array (m,)
        The first column, m >= 1.
    r : array (n,), optional
        The first row, n >= 1; r[0] is not used. None: conj(c).

    Returns
    -------
    Product
        m x n, in the dtype that c and r promote to; real for real c and r.

    Raises
    ------
    TypeError, ValueError
        For anything but finite vectors, and entries as in `circulant`.
    """
    c = _vector(c, "c")
    r = c.conj() if r is None else _vector(r, "r")
    kind = np.result_type(c, r)
    size, params = _smooth(len(c) + len(r) - 1, kind.kind == "f")
    if len(c) * len(r) <= params:
        return Product([_factor(scipy.linalg.toeplitz(c, r)[None, :, :, None], kind)])
    return _embedded(c.astype(kind), r[1:].astype(kind), size)


def kaleidoscope(n: int, width: int = 1, dtype: Any = np.float64, rng: Any = None) -> RandomProduct:
    """A random orthogonal or unitary matrix on `Chain.kaleidoscope`, (B B*)^width with dyadic B (Dao et al., 2020).

    Every 2 x 2 block is drawn on its own from the Haar measure, so that B and B* are not adjoint to each other: the start
    of training, which keeps norms.

    Parameters
    ----------
    n : int
        A power of two.
    width : int, >= 1
    dtype : float32, float64, complex64 or complex128
    rng : None, int, SeedSequence, BitGenerator or Generator

    Returns
    -------
    RandomProduct
        n x n, 4 n log2(n) width parameters; `seed` replays it.

    Raises
    ------
    TypeError, ValueError
        For other arguments.
    """
    kind = _dtype(dtype, _check.FLOATS + _check.COMPLEX)
    chain = Chain.kaleidoscope(n, width)
    seed = _check.seed(rng)
    random = np.random.Generator(np.random.Philox(key=seed))
    factors = []
    for a, b, c, d in chain:
        blocks = random.standard_normal((a, d, b, c))
        if kind.kind == "c":
            blocks = blocks + 1j * random.standard_normal((a, d, b, c))
        q, r = np.linalg.qr(blocks)
        # Q alone is not uniform: LAPACK fixes the phases of R.
        phase = np.einsum("...ii->...i", r)
        q *= (phase / np.abs(phase))[..., None, :]
        factors.append(_factor(q.transpose(0, 2, 3, 1), kind))
    return RandomProduct(factors, seed)


def _trigonometric(n: int, type: int, norm: str | None, dtype: Any, *, sine: bool) -> Product:
    n, type = _check.integer(n, "n", 1), _check.integer(type, "type", 2, 4)
    if norm not in (None, "ortho"):
        raise ValueError(f'norm must be None or "ortho"; got {norm!r}')
    kind = _dtype(dtype, _check.FLOATS)
    p = radices(n, real=True)
    order = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])[reversed_digits(p)]
    values = stages(p, kappa2=1 if type == 4 else 2 * sine, shift4=1)
    if sine != (type == 4):
        values[-1] = values[-1] * np.where(order % 2, -1, 1).reshape(-1, 1, p[-1], 1)
    # i makes minus the imaginary part the real one.
    values[0] = values[0] * (1j if sine else 1)
    if type != 4 and (type == 3 or norm == "ortho"):
        # The rows of the first factor are those of the transform.
        end = -1 if sine else 0
        values[0][0, end, :, end] *= 0.5 if norm is None else np.sqrt(0.5)
    real = [paired(v) for v in values]
    real[0] = real[0][:, : p[0]]
    real[-1] = real[-1][:, :, ::2]
    scales = [1.0 if norm is None else q**-0.5 for q in p]
    scales[0] *= 2 if norm is None else np.sqrt(2)
    product = Product(_scaled(real, scales, kind), cols=inverse(order))
    return product.T if type == 3 else product


def _circulant(c: np.ndarray) -> list[KroneckerSparse]:
    n, real = len(c), c.dtype.kind == "f"
    p, _ = _circulant_radices(n, real)
    if len(p) == 1:
        return [KroneckerSparse(scipy.linalg.circulant(c)[None, :, :, None])]
    *left, last = (v.conj() for v in stages(p))
    last = last[..., 0]
    # Divided by n the eigenvalues, and with them the factor in the middle, are no larger than |c|.
    with np.errstate(over="ignore", invalid="ignore"):
        eigenvalues = scipy.fft.fft(c.astype(np.float64 if real else np.complex128) / n)[reversed_digits(p)]
        middle = ((last * eigenvalues.reshape(-1, 1, p[-1])) @ last.conj().swapaxes(1, 2))[..., None]
        if real:
            left = [paired(v) for v in left]
            left[0] = left[0][:, : p[0]]
            # Its columns as its rows: all real parts before all imaginary ones.
            middle = paired(middle)
            a, b, _, _ = middle.shape
            middle = middle.reshape(a, b, b // 2, 2).swapaxes(2, 3).reshape(a, b, b, 1)
        middle = middle.astype(c.dtype)
    _check.finite(middle, "the Fourier transform of c / n")
    right = [v.conj().swapaxes(1, 2) for v in reversed(left)]
    return [_factor(v, c.dtype) for v in (*left, middle, *right)]


def _embedded(column: np.ndarray, row: np.ndarray, size: int) -> Product:
    """The Toeplitz matrix of a first column and of a first row without its first entry."""
    m, n = len(column), len(row) + 1
    c = np.zeros(size, column.dtype)
    c[:m] = column
    c[size - n + 1 :] = row[::-1]
    return Product(_circulant(c), rows=None if m == size else np.arange(m), cols=None if n == size else np.arange(n))


def _circulant_radices(n: int, real: bool) -> tuple[list[int], int]:
    """The radices of a circulant matrix, only n where one dense block takes no more, and the parameters."""
    p = radices(n, real=real)
    numbers = 2 * sum(p) - p[-1]
    params = n * (4 * (numbers - p[0]) if real else numbers)
    return (p, params) if len(p) > 1 and params < n * n else ([n], n * n)


def _smooth(least: int, real: bool) -> tuple[int, int]:
    """The order q 2^k >= least, q = 1, 3 or 5, of the circulant matrix of fewest parameters, and these."""
    orders = [q << ((least - 1) // q).bit_length() for q in (1, 3, 5)]
    params, n = min((_circulant_radices(n, real)[1], n) for n in orders)
    return n, params


def _scaled(values: list[np.ndarray], scales: list[float], dtype: np.dtype) -> list[KroneckerSparse]:
    return [_factor(v if scale == 1 else v * scale, dtype) for v, scale in zip(values, scales, strict=True)]


def _factor(values: np.ndarray, dtype: np.dtype) -> KroneckerSparse:
    return KroneckerSparse(values.astype(dtype, copy=False))


def _vector(value: Any, name: str) -> np.ndarray:
    v = _check.array(value, name)
    if v.ndim != 1 or not v.size:
        raise ValueError(f"{name} must be a vector with entries; got shape {v.shape}")
    _check.finite(v, name)
    return v


def _dtype(value: Any, allowed: tuple[np.dtype, ...]) -> np.dtype:
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    # numpy reads None as float64.
    if value is None or dtype not in allowed:
        raise TypeError(f"dtype must be {' or '.join(str(kind) for kind in allowed)}; got {value!r}")
    return dtype
