"""Every argument check and its message: the argument, what was needed, what came."""

import math
import numbers
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from . import _backend

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
COMPLEX = (np.dtype(np.complex64), np.dtype(np.complex128))
ACCEPTED = "float32, float64, complex64 or complex128 (integers and booleans are converted to float64)"

Matrix: TypeAlias = Any  # np.ndarray or scipy.sparse.csr_array


def dtype_of(dtype: np.dtype, name: str) -> np.dtype:
    """The native dtype to compute in: floats and complex as they are, integers and booleans as float64."""
    native = dtype.newbyteorder("=")
    if native in FLOATS or native in COMPLEX:
        return native
    if dtype.kind in "iub":
        return np.dtype(np.float64)
    raise TypeError(f"{name} must have dtype {ACCEPTED}; got {dtype}")


def real_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of the real part of numbers of this dtype."""
    return np.empty(0, dtype).real.dtype


def array(value: Any, name: str, *, device: bool = False) -> np.ndarray:
    """An aligned array of a supported native dtype; no copy unless the dtype or the alignment asks for one.

    With `device`, arrays of a CUDA device are taken too, as CuPy arrays.
    """
    if type(value) is np.ndarray and value.dtype.char in "dfDF" and value.flags.aligned and value.dtype.isnative:
        if all(s % value.itemsize == 0 for s in value.strides):
            return value
        return value.copy()
    if sp.issparse(value) or (device and _backend.sparse_on_device(value)):
        raise TypeError(f"{name} must be a dense array; got a sparse {type(value).__name__}")
    if device and _backend.on_device(value):
        held = _backend.adopted(value)
        return held.astype(dtype_of(held.dtype, name), copy=False)
    module = type(value).__module__.partition(".")[0]
    held = _backend.on_device(value) or module in ("cupy", "cupyx", "torch", "jax", "jaxlib")
    if held or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a numpy array; got {type(value).__module__}.{type(value).__name__}")
    try:
        a = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be convertible to an array; got a {type(value).__name__}: {error}") from None
    dtype = dtype_of(a.dtype, name)
    if a.dtype != dtype:
        a = a.astype(dtype)
    if not a.flags.aligned or any(s % a.itemsize for s in a.strides):
        a = a.copy()
    return a


def real_array(value: Any, name: str, *, device: bool = False) -> np.ndarray:
    """As `array`, complex numbers refused."""
    a = array(value, name, device=device)
    if a.dtype.kind == "c":
        raise TypeError(f"{name} must be real; got {a.dtype}")
    return a


def vector(value: Any, name: str, dim: int) -> np.ndarray:
    """A real, finite vector (dim,) in float64."""
    a = real_array(value, name)
    if a.shape != (dim,):
        raise ValueError(f"{name} must have shape ({dim},); got {a.shape}")
    finite(a, name)
    return a.astype(np.float64, copy=False)


def csr(value: Any, name: str) -> sp.csr_array:
    """A canonical-index CSR array of a supported dtype, sharing memory where the input is one already."""
    if value.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got {value.ndim}")
    dtype = dtype_of(value.dtype, name)
    a = sp.csr_array(value) if value.format == "csr" else value.tocsr()
    if a.indptr.dtype != a.indices.dtype:
        wide = np.promote_types(a.indptr.dtype, a.indices.dtype)
        a = sp.csr_array((a.data, a.indices.astype(wide), a.indptr.astype(wide)), shape=a.shape)
    # The kernels follow the indices without looking: scipy itself checks them only on request.
    rows_ok = a.indptr[0] == 0 and a.indptr[-1] <= len(a.indices) and bool((np.diff(a.indptr) >= 0).all())
    if not rows_ok or (a.nnz and (a.indices.min() < 0 or a.indices.max() >= a.shape[1])):
        raise ValueError(f"{name} must have valid CSR indices for its shape {a.shape}; got some out of range")
    data = np.ascontiguousarray(a.data, dtype=dtype)
    return sp.csr_array((data, np.ascontiguousarray(a.indices), np.ascontiguousarray(a.indptr)), shape=a.shape)


def device_csr(value: Any, name: str) -> Any:
    """A sparse matrix of a device as CuPy's CSR with distinct, ascending columns in every row. Waits for the device twice."""
    if value.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions; got {value.ndim}")
    dtype = dtype_of(np.dtype(value.dtype), name)
    if value.format in ("csr", "csc"):
        _require_indices(value, name)
    a = value.tocsr()
    # Of booleans CuPy would add up no two.
    a = a if a.dtype == dtype else a.astype(dtype)
    if not a.has_canonical_format:
        a = a.copy() if a is value else a
        a.sum_duplicates()
    return a


def _require_indices(a: Any, name: str) -> None:
    """Of a CSR or CSC matrix of a device: the kernels follow them without looking, and so do CuPy's conversions, where what
    lies outside would end the process."""
    starts, xp = a.indptr, _backend.namespace(a.data)
    starts_ok = (starts[0] == 0) & (starts[-1] == a.indices.size) & (xp.diff(starts) >= 0).all()
    if not bool(starts_ok & ((a.indices >= 0) & (a.indices < a.shape[a.format == "csr"])).all()):
        kind = a.format.upper()
        raise ValueError(f"{name} must have valid {kind} indices for its shape {tuple(a.shape)}; got some out of range")


def matrix(value: Any, name: str, *, operators: bool = False, device: bool = False) -> Matrix | LinearOperator:
    """A dense 2-D array or a CSR array (CSC is converted); with `operators`, also anything with matvec and rmatvec.

    With `device`, dense arrays and sparse matrices of a CUDA device too.
    """
    if device and _backend.sparse_on_device(value):
        return device_csr(value, name)
    if type(value) is np.ndarray or not (sp.issparse(value) or hasattr(value, "matvec")):
        a = array(value, name, device=device)
        if a.ndim != 2:
            raise ValueError(f"{name} must have 2 dimensions; got {a.ndim}")
        return a
    if sp.issparse(value):
        return csr(value, name)
    if not operators:
        raise TypeError(f"{name} must be an array or a sparse matrix; got {type(value).__name__}")
    if not hasattr(value, "rmatvec") or len(getattr(value, "shape", ())) != 2:
        raise TypeError(f"{name} must have shape, matvec and rmatvec; got {type(value).__name__}")
    return value


def finite(a: np.ndarray, name: str) -> None:
    if not np.isfinite(a).all():
        bad = int(a.size - np.count_nonzero(np.isfinite(a)))
        raise ValueError(f"{name} must be finite; got {bad} NaN or infinite of {a.size} entries")


def weights(value: Any, m: int, *, device: bool = False) -> np.ndarray:
    """One real, finite, non-negative weight per row, in float64."""
    w = real_array(value, "weights", device=device)
    if w.shape != (m,):
        raise ValueError(f"weights must have shape ({m},), one per row of A; got {w.shape}")
    finite(w, "weights")
    if w.size and w.min() < 0:
        raise ValueError(f"weights must not be negative; got {float(w.min()):g}")
    return _backend.namespace(w).ascontiguousarray(w, dtype=np.float64)


def integer(value: Any, name: str, low: int, high: int | None = None) -> int:
    if type(value) is int and value >= low and high is None:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    value = int(value)
    if value < low or (high is not None and value > high):
        limit = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {limit}; got {value}")
    return value


def real(value: Any, name: str, *, low: float = 0.0, strict: bool = False) -> float:
    if type(value) is float and value >= low and not strict and value < math.inf:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number; got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < low or (strict and number == low):
        raise ValueError(f"{name} must be finite and {'greater than' if strict else 'at least'} {low:g}; got {value}")
    return number


def seed(rng: Any) -> int:
    """The 64-bit seed that a SPEC 7 `rng` stands for; an integer below 2^64 stands for itself, so that seeds replay."""
    if type(rng) is int and 0 <= rng < 2**64:
        return rng
    if isinstance(rng, numbers.Integral) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"rng must be a non-negative integer; got {rng}")
        if rng < 2**64:
            return int(rng)
        return int(np.random.SeedSequence(int(rng)).generate_state(1, np.uint64)[0])
    if rng is None or isinstance(rng, np.random.SeedSequence | np.random.BitGenerator | np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**63))
    raise TypeError(f"rng must be None, an integer, a SeedSequence, a BitGenerator or a Generator; got {rng!r}")
