"""A stand-in for CuPy on the processor, as strict as the original: nothing crosses between host and device in silence.

`install(monkeypatch)` puts it, and the CUDA kernels compiled for the processor, where randla looks for them. What happens on
streams, and all timing, it cannot show.
"""

import contextlib
import functools
import json
import sys
import types

import cupy_api
import emulated
import fake_cupy_sparse
import numpy as np
import scipy.fft
import scipy.linalg
import scipy.special

from randla import _backend

TRANSFERS = []  # every array that went to the host, () where it is a number or a count waited for, so that tests can count them
_COUNTED = ("nonzero", "flatnonzero", "argwhere", "unique", "extract", "compress")  # how long they are, the device says


def _inside(value):
    """The NumPy array within; arrays of the host are refused, as CuPy does."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, list | tuple):
        return type(value)(_inside(v) for v in value)
    if isinstance(value, dict):
        return {k: _inside(v) for k, v in value.items()}
    return value


def _outside(value):
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple):
        parts = [_outside(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


API = json.loads(cupy_api.LIST.read_text())


def _missing(module, name):
    return AttributeError(f"{module!r} has no attribute {name!r}")


def _lifted(function, module, name):
    """A function of NumPy for arrays of the device, with the parameters that CuPy's has."""
    if name not in API[module]:
        raise _missing(module, name)
    taken = API[module][name]

    @functools.wraps(function)
    def call(*args, **kwargs):
        if taken is not None and "**" not in taken and (wrong := kwargs.keys() - set(taken)):
            raise TypeError(f"{module}.{name} got unexpected keyword arguments: {', '.join(sorted(wrong))}")
        if taken is not None and "*" not in taken and len(args) > len(taken):
            raise TypeError(f"{module}.{name} takes {len(taken)} arguments; got {len(args)}")
        if name in _COUNTED:
            TRANSFERS.append(())
        with np.errstate(all="ignore"):  # a device does not tell
            return _outside(function(*_inside(args), **_inside(kwargs)))

    return call


class ndarray:
    __module__ = "cupy"
    __array_priority__ = 100

    def __init__(self, a):
        self._a = a

    @property
    def __cuda_array_interface__(self):
        return emulated.interface(self._a)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if out is not None:
            kwargs["out"] = tuple(_inside(o) for o in out)
        if ufunc.__name__ not in API["cupy"]:
            return NotImplemented
        with np.errstate(all="ignore"):
            found = getattr(ufunc, method)(*_inside(inputs), **kwargs)
        return out[0] if out is not None else _outside(found)

    def __array_function__(self, function, types, args, kwargs):
        return _lifted(function, "cu" + function.__module__.replace("num", ""), function.__name__)(*args, **kwargs)

    @property
    def device(self):
        return types.SimpleNamespace(id=0)

    def get(self):
        TRANSFERS.append(self._a.shape)
        return self._a.copy()

    def item(self):
        TRANSFERS.append(())
        return self._a.item()

    def __bool__(self):
        TRANSFERS.append(())
        return bool(self._a)

    def __float__(self):
        TRANSFERS.append(())
        return float(self._a)

    def __int__(self):
        TRANSFERS.append(())
        return int(self._a)

    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        if any(isinstance(part, ndarray) and part._a.dtype == bool for part in (key if isinstance(key, tuple) else (key,))):
            TRANSFERS.append(())
        return _outside(self._a[_inside(key)])

    def __setitem__(self, key, value):
        self._a[_inside(key)] = _inside(value)

    def __setattr__(self, name, value):
        if name == "_a":
            object.__setattr__(self, name, value)
        else:
            setattr(self._a, name, _inside(value))

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in API["cupy.ndarray"]:
            raise _missing("cupy.ndarray", name)
        found = getattr(self._a, name)
        if callable(found):
            return _lifted(found, "cupy.ndarray", name)
        return _outside(found) if isinstance(found, np.ndarray) else found

    def __repr__(self):
        return f"fake{self._a!r}"


def _operator(name):
    def call(self, *others):
        if any(isinstance(o, np.ndarray) and o.ndim for o in others) or not all(
            isinstance(o, ndarray | np.generic | np.ndarray | int | float | complex | bool) for o in others
        ):
            return NotImplemented
        with np.errstate(all="ignore"):
            found = getattr(self._a, name)(*(_inside(o) for o in others))
        return found if found is NotImplemented else _outside(found)

    return call


_BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"]
for _name in [f"__{r}{op}__" for op in _BINARY for r in ("", "r")]:
    setattr(ndarray, _name, _operator(_name))
for _name in ["lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"]:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _in_place(name):
    def call(self, other):
        getattr(self._a, name)(_inside(other))
        return self

    return call


for _name in _BINARY:
    if _name != "matmul":
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
ndarray.__hash__ = None


def _asarray(a, dtype=None, order=None, copy=None):
    if isinstance(a, ndarray):
        return a if dtype is None and order is None else ndarray(np.asarray(a._a, dtype, order=order))
    if hasattr(a, "__cuda_array_interface__"):
        return ndarray(np.asarray(a.array, dtype, order=order))
    return ndarray(np.array(a, dtype, order=order))


class _Module(types.ModuleType):
    """Functions of a module of NumPy or SciPy for arrays of the device."""

    def __init__(self, name, original):
        super().__init__(name)
        self.__dict__["_original"] = original

    def __getattr__(self, name):
        if name not in API[self.__name__]:
            raise _missing(self.__name__, name)
        found = getattr(self._original, name)
        if not callable(found) or isinstance(found, type):
            return found
        return _lifted(found, self.__name__, name)


_linalg = ["ignore"]


@contextlib.contextmanager
def _errstate(*, linalg):
    before, _linalg[:] = _linalg[:], [linalg]
    try:
        yield
    finally:
        _linalg[:] = before


def _cholesky(a):
    """As CuPy's, which says that it failed only where it was asked to: else what the routine had done by then comes back."""
    if not a._a.size:
        return ndarray(a._a.copy())
    (potrf,) = scipy.linalg.get_lapack_funcs(("potrf",), (a._a,))
    R, info = potrf(a._a, lower=0, clean=1)
    if _linalg == ["raise"]:
        TRANSFERS.append(())
        if info:
            raise np.linalg.LinAlgError("not positive definite")
    return ndarray(R.conj().T)


def _solve_triangular(a, b, trans=0, lower=False, unit_diagonal=False, overwrite_b=False, check_finite=False):
    """As CuPy's, which divides by zero where there is one on the diagonal, and takes the dtype of a for that of b too."""
    R = a._a.T if trans else a._a
    lower = lower != bool(trans)
    x = np.array(b._a, a._a.dtype)
    rows = range(len(R)) if lower else range(len(R) - 1, -1, -1)
    if not len(R) or (R.diagonal() != 0).all():
        return ndarray(scipy.linalg.solve_triangular(R, x, lower=lower, check_finite=False))
    with np.errstate(all="ignore"):
        for i in rows:
            others = slice(0, i) if lower else slice(i + 1, None)
            x[i] = (x[i] - R[i, others] @ x[others]) / R[i, i]
    return ndarray(x)


def _syrk(trans, a, out=None, alpha=1.0, beta=0.0, lower=False):
    """As CuPy's, for what is read without a copy: out has the order of a, and only one triangle of it is written."""
    assert trans == "T"
    assert not lower
    assert (alpha, beta) == (1.0, 0.0)
    assert a._a.dtype == out._a.dtype
    assert out._a.shape == (a._a.shape[1],) * 2
    assert a._a.size
    assert (a._a.flags.c_contiguous and out._a.flags.c_contiguous) or (a._a.flags.f_contiguous and out._a.flags.f_contiguous)
    upper = np.triu_indices(len(out._a))
    out._a[upper] = (a._a.T @ a._a)[upper]
    return out


def module():
    """The stand-in for CuPy, and the modules by name that `import` should find."""
    cupy = _Module("cupy", np)
    cupy.ndarray, cupy.asarray = ndarray, _asarray
    cupy.array = lambda a, *args, **kwargs: ndarray(np.array(_inside_any(a), *args, **kwargs))
    cupy.asnumpy = lambda a: a.get()
    cupy.linalg = _Module("cupy.linalg", np.linalg)
    cupy.linalg.cholesky = _cholesky
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)
    cupy.cuda = types.SimpleNamespace(
        alloc=emulated.Memory,
        get_current_stream=lambda: types.SimpleNamespace(ptr=0, synchronize=lambda: None),
        is_available=lambda: True,
        runtime=types.SimpleNamespace(memGetInfo=lambda: (1 << 40, 1 << 40)),
    )
    found = {"cupy": cupy, "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy")}
    for name, original in {"fft": scipy.fft, "linalg": scipy.linalg, "special": scipy.special}.items():
        found[f"cupyx.scipy.{name}"] = _Module(f"cupyx.scipy.{name}", original)
        setattr(found["cupyx.scipy"], name, found[f"cupyx.scipy.{name}"])
    found["cupyx.scipy"].linalg.solve_triangular = _solve_triangular
    found["cupyx.scipy.sparse"] = found["cupyx.scipy"].sparse = fake_cupy_sparse.module(ndarray, TRANSFERS)
    found["cupyx"].scipy = found["cupyx.scipy"]
    found["cupy.cublas"] = types.ModuleType("cupy.cublas")
    found["cupy.cublas"].syrk = _syrk
    found["cupyx"].errstate = _errstate
    for package in ("cupy", "cupyx", "cupyx.scipy"):
        found[package].__path__ = []
    return cupy, found


def _inside_any(a):
    return a._a if isinstance(a, ndarray) else a


def install(monkeypatch):
    """Make randla take arrays of this module for arrays of a device; returns the module that stands for CuPy."""
    cupy, modules = module()
    kernels = emulated.compiled()
    for name, value in modules.items():
        monkeypatch.setitem(sys.modules, name, value)
    monkeypatch.setattr(_backend, "_cupy", lambda: cupy)
    monkeypatch.setattr(_backend, "_cuda", lambda: kernels)
    TRANSFERS.clear()
    return cupy


def watched(monkeypatch):
    """CuPy itself, whose transfers are counted like those of the stand-in."""
    import cupy

    def counted(name, method):
        def call(self, *args, **kwargs):
            TRANSFERS.append(self.shape if name == "get" else ())
            return method(self, *args, **kwargs)

        return call

    for name in ("get", "item", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(cupy.ndarray, name, counted(name, getattr(cupy.ndarray, name)))
    TRANSFERS.clear()
    return cupy
