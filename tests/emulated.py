"""The CUDA kernels compiled for the processor: the same sources, one thread after another, on arrays that look like a device's.

RANDLA_SANITIZE=address,undefined compiles them with sanitizers; see CONTRIBUTING.md for what has to be preloaded then.
"""

import functools
import hashlib
import importlib.util
import os
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
FLAGS = ["-DRANDLA_EMULATED", "-O1", "-g1", "-std=c++17", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"]
FLAGS += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


class OnDevice:
    """An array of the host that shows itself as one of a device."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        a = self.array
        about = {"shape": a.shape, "strides": a.strides, "typestr": a.dtype.str, "version": 3}
        return about | {"data": (a.ctypes.data, not a.flags.writeable)}


class Memory:
    """What a pool of memory hands out: exactly as many bytes as were asked for, full of rubbish."""

    def __init__(self, size):
        self._bytes = np.full(size, 0xA5, np.uint8)
        self.ptr = self._bytes.ctypes.data


@functools.cache
def module():
    """The emulated randla._cuda, compiled at the first call; skips the calling test without a compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is needed to compile the CUDA kernels for the processor")
    import pybind11

    sanitize = os.environ.get("RANDLA_SANITIZE", "")
    extra = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"] if sanitize else []
    include = [f"-I{CSRC}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    sources = sorted([*CSRC.glob("cuda/*.cu"), *CSRC.glob("cuda/*.cpp")])
    seen = hashlib.sha256(repr((FLAGS, extra, include, sys.version)).encode())
    for path in sorted([*sources, *CSRC.glob("cuda/*.h"), *CSRC.glob("common/*.h")]):
        seen.update(path.read_bytes())
    folder = Path(tempfile.gettempdir(), f"randla-emulated-{os.getuid()}-{seen.hexdigest()[:16]}")
    library = folder / f"_cuda_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not library.exists():
        with tempfile.TemporaryDirectory() as scratch:

            def compiled(source):
                made = Path(scratch, f"{source.name}.o")
                subprocess.run([compiler, *FLAGS, *extra, *include, "-x", "c++", "-c", source, "-o", made], check=True)
                return made

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(compiled, sources))
            made = Path(scratch, library.name)
            subprocess.run([compiler, *extra, "-shared", *objects, "-o", made], check=True)
            folder.mkdir(exist_ok=True)
            # At once, so that another process never loads half a file.
            shutil.move(made, f"{library}.{os.getpid()}")
            os.replace(f"{library}.{os.getpid()}", library)
    spec = importlib.util.spec_from_file_location("_cuda_emulated", library)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    found.use(lambda: 0, Memory)
    return found
