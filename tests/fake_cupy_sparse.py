"""The part of cupyx.scipy.sparse that randla meets: CSR, CSC and COO matrices of the device, a part of `fake_cupy`."""

import types

import numpy as np
import scipy.sparse as sp


def module(ndarray, transfers):
    """The stand-in for cupyx.scipy.sparse; `ndarray` is the array of the device, `transfers` lists what went to the host."""

    class Matrix:
        ndim = 2

        def __init__(self, arg, shape=None, dtype=None, copy=False):
            if isinstance(arg, tuple):
                if not all(isinstance(part, ndarray) for part in _flat(arg)):
                    raise TypeError("Unsupported type <class 'numpy.ndarray'>")
                if len(arg) == 3:  # CuPy looks at both ends of the row starts
                    transfers.append(())
                held = _layout(self.format)(_map(lambda part: part._a, arg), shape=shape, copy=copy)
            elif isinstance(arg, Matrix):
                held = _layout(self.format)(arg._scipy())
            elif isinstance(arg, ndarray):
                held = _layout(self.format)(arg._a)
            elif sp.issparse(arg):
                held = _layout(self.format)(arg, copy=True)
            else:
                raise ValueError("Unsupported initializer format")
            self._hold(held if dtype is None else held.astype(dtype))

        def _hold(self, held):
            if held.dtype.char not in "?fdFD":
                raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
            self.shape, self.data = held.shape, ndarray(held.data)
            for name in self._numbers:
                # As many bytes as the shape and the entries need.
                setattr(self, name, ndarray(getattr(held, name).astype(np.int32, copy=False)))

        def _scipy(self):
            parts = [getattr(self, name)._a for name in self._numbers]
            wanted = (self.data._a, tuple(parts)) if self.format == "coo" else (self.data._a, *parts)
            return _layout(self.format)(wanted, shape=self.shape)

        @classmethod
        def _of(cls, held):
            out = cls.__new__(cls)
            out._hold(held)
            return out

        def __array__(self, *args, **kwargs):
            raise TypeError("Implicit conversion to a host NumPy array via __array__ is not allowed")

        @property
        def dtype(self):
            return self.data.dtype

        @property
        def nnz(self):
            return self.data.size

        def __len__(self):
            raise TypeError("sparse matrix length is ambiguous; use getnnz()")

        def get(self):
            transfers.append(self.shape)
            return self._scipy().copy()

        def tocsr(self, copy=False):
            return self if self.format == "csr" and not copy else csr_matrix._of(self._scipy().tocsr())

        def tocsc(self, copy=False):
            return self if self.format == "csc" and not copy else csc_matrix._of(self._scipy().tocsc())

        def tocoo(self, copy=False):
            return coo_matrix._of(self._scipy().tocoo())

        def toarray(self, order=None, out=None):
            return ndarray(np.array(self._scipy().toarray(), order=order or "C"))

        def copy(self):
            return type(self)._of(self._scipy().copy())

        def astype(self, dtype, copy=True):
            return self if self.dtype == dtype and not copy else type(self)._of(self._scipy().astype(dtype))

        @property
        def T(self):
            turned = {"csr": csc_matrix, "csc": csr_matrix, "coo": coo_matrix}[self.format]
            return turned._of(self._scipy().T)

        def _with_data(self, data):
            out = self.copy()
            out.data = data
            return out

        @property
        def real(self):
            return self._with_data(self.data.real)

        @property
        def imag(self):
            return self._with_data(self.data.imag)

        def __matmul__(self, other):
            if isinstance(other, Matrix):
                return csr_matrix._of(sp.csr_array(self._scipy() @ other._scipy()))
            # cuSPARSE gives matrices back by columns.
            return ndarray(np.asfortranarray(self._scipy() @ other._a)) if isinstance(other, ndarray) else NotImplemented

        def __rmatmul__(self, other):
            return ndarray(np.ascontiguousarray(other._a @ self._scipy())) if isinstance(other, ndarray) else NotImplemented

    class csr_matrix(Matrix):
        format, _numbers = "csr", ("indices", "indptr")

        @property
        def has_canonical_format(self):
            transfers.append(())
            return bool(self._scipy().has_canonical_format)

        def sum_duplicates(self):
            transfers.append(())
            held = self._scipy().copy()
            held.sum_duplicates()
            self._hold(held)

        def __getitem__(self, key):
            rows = key._a if isinstance(key, ndarray) else key
            return csr_matrix._of(sp.csr_array(self._scipy()[rows]))

    class csc_matrix(Matrix):
        format, _numbers = "csc", ("indices", "indptr")

    class coo_matrix(Matrix):
        format, _numbers = "coo", ("row", "col")

    found = types.ModuleType("cupyx.scipy.sparse")
    for kind in (csr_matrix, csc_matrix, coo_matrix):
        kind.__module__, kind.__qualname__ = found.__name__, kind.__name__
        setattr(found, kind.__name__, kind)
    found.issparse = lambda x: isinstance(x, Matrix)
    return found


def _layout(name):
    return {"csr": sp.csr_array, "csc": sp.csc_array, "coo": sp.coo_array}[name]


def _flat(parts):
    return [leaf for part in parts for leaf in (_flat(part) if isinstance(part, tuple) else [part])]


def _map(function, parts):
    return tuple(_map(function, part) if isinstance(part, tuple) else function(part) for part in parts)
