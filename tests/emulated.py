"""The CUDA kernels compiled for the processor: the same sources, one thread after another, on arrays that look like a device's.

RANDLA_SANITIZE=address,undefined compiles them with sanitizers; see CONTRIBUTING.md for what has to be preloaded then.
"""

import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
FLAGS = ["-DRANDLA_EMULATED", "-g1", "-std=c++17", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"]
FLAGS += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


def interface(a):
    """What an array of the host says of itself to pass for one of a device."""
    about = {"shape": a.shape, "strides": a.strides, "typestr": a.dtype.str, "version": 3}
    return about | {"data": (a.ctypes.data, not a.flags.writeable)}


class OnDevice:
    """An array of the host that shows itself as one of a device."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return interface(self.array)


class Memory:
    """What a pool of memory hands out: exactly as many bytes as were asked for, full of rubbish."""

    def __init__(self, size):
        self._bytes = np.full(size, 0xA5, np.uint8)
        self.ptr = self._bytes.ctypes.data

    def copy_from_host(self, address, size):
        ctypes.memmove(self.ptr, address, size)

    def copy_to_host(self, address, size):
        ctypes.memmove(address, self.ptr, size)


REAL = None  # where a test runs on a device: the kernels there, set by the fixture `kernels`


def module():
    """The kernels that the running test is about: compiled for the processor, or those of a device."""
    return REAL or compiled()


def _with_headers(source):
    """A source file with everything of csrc that it includes."""
    found, left = [], [source]
    while left:
        found.append(left.pop())
        names = re.findall(r'#include "(.+)"', found[-1].read_text())
        left += [path for path in dict.fromkeys(CSRC / name for name in names) if path not in found + left]
    return found


def _key(words, paths):
    seen = hashlib.sha256("\0".join(map(str, words)).encode())
    for path in paths:
        seen.update(path.read_bytes())
    return seen.hexdigest()[:16]


def _once(made, command):
    """Runs the command that makes a file, unless it is there; nobody ever sees half of it."""
    if not made.exists():
        part = made.with_name(f"{os.getpid()}-{made.name}")
        subprocess.run(command(part), check=True)
        os.replace(part, made)


@functools.cache
def compiled():
    """The emulated randla._cuda, compiled at the first call; skips the calling test without a compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is needed to compile the CUDA kernels for the processor")
    import pybind11

    sanitize = os.environ.get("RANDLA_SANITIZE", "")
    # Sanitized code takes twice as long to compile with optimization, and the tests for it are few.
    extra = ["-O0", f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"] if sanitize else ["-O1"]
    # The compiler then reports accesses to memory to csrc/emulated/watch.cpp, which stands in for its library.
    watched = [] if sanitize else ["-fsanitize=thread"]
    include = [f"-I{CSRC}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    sources = sorted(path for folder in ("cuda", "emulated") for path in CSRC.glob(f"{folder}/*.c*"))
    kept = Path(tempfile.gettempdir(), f"randla-emulated-{os.getuid()}")
    kept.mkdir(exist_ok=True)
    # Whoever comes while another process compiles waits for what that makes.
    with open(kept / f"lock-{sanitize}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def built(source):
            command = [compiler, *FLAGS, *extra, *(watched if source.suffix == ".cu" else []), *include, "-x", "c++", "-c"]
            made = kept / f"{source.stem}-{_key([*command, sys.version], _with_headers(source))}.o"
            _once(made, lambda part: [*command, source, "-o", part])
            return made

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(built, sources))
        folder = kept / _key(map(str, objects), [])
        folder.mkdir(exist_ok=True)
        library = folder / f"_cuda_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
        _once(library, lambda part: [compiler, *extra, "-shared", *objects, "-o", part])
    spec = importlib.util.spec_from_file_location("_cuda_emulated", library)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    found.use(lambda: 0, Memory)
    return found
