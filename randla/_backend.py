"""Which library an array belongs to, and which kernels take it.

Only this file knows CuPy, and only when an array of a device comes.

NumPy in, NumPy out; arrays of a device in, arrays of the device out. Arrays of other libraries that show
`__cuda_array_interface__` (torch, numba) are taken as CuPy arrays of the same memory.
"""

from __future__ import annotations

import functools
import threading
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import scipy.fft
import scipy.sparse

from . import _cpu

Array: TypeAlias = Any  # np.ndarray or cupy.ndarray
_OF_THREAD = 2  # cudaStreamPerThread

DEVICE_BLOCK = 1 << 24  # entries of rows that are worked on at a time on a device: 128 MB of float64
SYRK_COLUMNS = 1024  # from which on half of a Gram matrix has tiles enough for all multiprocessors
DEVICE_FACTORED = 1 << 28  # entries that are factored at a time: cuSOLVER counts them in 32 bits


def on_device(value: Any) -> bool:
    """Whether the memory of an array, or of the entries of a sparse matrix, is that of a CUDA device."""
    if type(value) is np.ndarray:
        return False
    return hasattr(value, "__cuda_array_interface__") or sparse_on_device(value)


def sparse_on_device(value: Any) -> bool:
    """Whether this is a sparse matrix of CuPy."""
    return hasattr(value, "tocsr") and hasattr(getattr(value, "data", None), "__cuda_array_interface__")


def is_sparse(value: Any) -> bool:
    """Whether this is a sparse matrix, of the host or of a device."""
    return scipy.sparse.issparse(value) or sparse_on_device(value)


def namespace(a: Array) -> Any:
    """numpy or cupy."""
    return _cupy() if on_device(a) else np


def kernels(a: Any) -> Any:
    """The module with the kernels for this array: randla._cpu or randla._cuda, the same functions."""
    return _cuda() if on_device(a) else _cpu


def adopted(value: Any) -> Array:
    """An array of a device as a CuPy array, sharing memory."""
    _cuda()
    return _cupy().asarray(value)


def place(a: Array) -> tuple[int, ...]:
    """The device of an array and the current stream there, whose work is done in the order in which it comes."""
    stream = int(_cupy().cuda.get_current_stream().ptr)
    # Every thread has a default stream of its own under that one number.
    own = threading.get_ident() if stream == _OF_THREAD else 0
    return int((a.data if sparse_on_device(a) else a).device.id), stream, own


def like(a: Array, value: np.ndarray) -> Array:
    """A small array of the host where `a` is."""
    return _cupy().asarray(value) if on_device(a) else value


def parameters(value: Any, home: Any) -> Any:
    """A vector of parameters on the host, whose methods decide on it; of a device only where `home` is an array of one."""
    return to_host(adopted(value)) if on_device(home) and on_device(value) else value


def to_host(a: Array) -> np.ndarray:
    """Waits for the device."""
    return _cupy().asnumpy(a) if on_device(a) else a


def rows_of_block(columns: int, least: int = 1) -> int:
    """Rows of so many numbers that are worked on at a time on a device: many, because it does nothing else meanwhile."""
    return max(least, DEVICE_BLOCK // max(1, columns))


def rows_to_factor(columns: int) -> int:
    """Rows of so many numbers that are factored at a time on a device."""
    return max(DEVICE_FACTORED // columns, 2 * columns)


def sparse_matrix(values: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> Any:
    """A CSR matrix where its parts are, sharing their memory."""
    if not on_device(values):
        return scipy.sparse.csr_array((values, indices, indptr), shape=shape)
    import cupyx.scipy.sparse

    return cupyx.scipy.sparse.csr_matrix((values, indices, indptr), shape=shape)


def solve_triangular(R: Array, B: Array, *, transposed: bool = False) -> Array:
    """R^-1 B, or R^-T B, for an upper triangular R of a device."""
    import cupyx.scipy.linalg

    return cupyx.scipy.linalg.solve_triangular(R, B, trans=1 if transposed else 0)


def gram_matrix(Y: Array) -> Array:
    """Y'Y for real Y of a device: of many columns half of it, and the other half copied."""
    n = Y.shape[1]
    if n < SYRK_COLUMNS or not len(Y) or not (Y.flags.c_contiguous or Y.flags.f_contiguous):
        return Y.T @ Y
    from cupy import cublas

    xp = _cupy()
    # In the order of Y, of which it would make a copy else. What lies below the diagonal is not written.
    upper = cublas.syrk("T", Y, out=xp.empty((n, n), Y.dtype, order="C" if Y.flags.c_contiguous else "F"))
    return xp.triu(upper) + xp.triu(upper, 1).T


def cosine_transform(name: str, X: Array) -> Array:
    """The orthonormal "dct" or "idct" of every row; X may be overwritten."""
    if on_device(X):
        import cupyx.scipy.fft

        return getattr(cupyx.scipy.fft, name)(X, type=2, norm="ortho", axis=1, overwrite_x=True)
    return getattr(scipy.fft, name)(X, type=2, norm="ortho", axis=1, overwrite_x=True, workers=_cpu.max_threads())


def kind(value: Any) -> str:
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"


def same_device(**arrays: Any) -> None:
    """Raise TypeError where some arrays are on a device and others are not: nothing is moved in silence."""
    given = {name: value for name, value in arrays.items() if value is not None}
    if len({on_device(value) for value in given.values()}) > 1:
        names = " and ".join(given)
        raise TypeError(f"{names} must all be on the host or all on the device; got {', '.join(map(kind, given.values()))}")


@functools.cache
def _cupy() -> ModuleType:
    try:
        import cupy
    except ImportError:
        raise ImportError("arrays of a CUDA device need CuPy: pip install 'randla[cuda]'") from None
    return cupy


@functools.cache
def _cuda() -> ModuleType:
    try:
        from . import _cuda as module  # type: ignore[attr-defined]
    except ImportError:
        raise ImportError(
            "arrays of a CUDA device need the CUDA kernels, which this installation lacks: install with nvcc and RANDLA_CUDA=1"
        ) from None
    cupy = _cupy()
    module.use(lambda: cupy.cuda.get_current_stream().ptr, cupy.cuda.alloc)
    return module


def cuda_devices() -> int | None:
    """How many devices there are, None without the CUDA kernels."""
    try:
        from . import _cuda as module  # type: ignore[attr-defined]
    except ImportError:
        return None
    return int(module.device_count())
