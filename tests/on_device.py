"""The kernels of randla._cuda for tests whose arrays lie on the host: they are sent before a call and fetched after it."""

import numpy as np
from emulated import OnDevice


class View:
    """An array of a device; what CuPy cannot say of its own arrays, that they are read-only, this can."""

    def __init__(self, array, memory, offset):
        self.memory = memory
        self.about = {"shape": array.shape, "strides": array.strides, "typestr": array.dtype.str, "version": 3}
        self.about["data"] = (memory.ptr + offset, not array.flags.writeable)

    @property
    def __cuda_array_interface__(self):
        return self.about


class Copies:
    """Memory of the host on the device, whole: views have their strides and neighbours there, and what overlaps still does."""

    def __init__(self, alloc):
        self.alloc, self.owners = alloc, {}

    def put(self, value):
        if isinstance(value, tuple | list):
            return type(value)(map(self.put, value))
        if isinstance(value, Kernels):
            return value.inner
        if not isinstance(value, OnDevice):
            return value
        owner = value.array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        start, end = np.lib.array_utils.byte_bounds(owner)
        if id(owner) not in self.owners:
            memory = self.alloc(max(end - start, 1))
            memory.copy_from_host(start, end - start)
            self.owners[id(owner)] = owner, memory
        return View(value.array, self.owners[id(owner)][1], value.array.ctypes.data - start)

    def get(self):
        for owner, memory in self.owners.values():
            if owner.flags.writeable:
                start, end = np.lib.array_utils.byte_bounds(owner)
                memory.copy_to_host(start, end - start)


class Kernels:
    """A module, a class of it or one of its objects, whose calls find on the device what they are given as OnDevice."""

    def __init__(self, inner, alloc):
        self.inner, self.alloc = inner, alloc

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        return Kernels(found, self.alloc) if callable(found) else found

    def __call__(self, *args, **options):
        copies = Copies(self.alloc)
        found = self.inner(*copies.put(args), **{name: copies.put(value) for name, value in options.items()})
        copies.get()
        of_the_host = found is None or isinstance(found, np.ndarray | int | float | str | tuple | list)
        return found if of_the_host else Kernels(found, self.alloc)
