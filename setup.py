"""Builds randla._cpu with any C++17 compiler. OpenMP, where the compiler has it, tells the number of threads."""

import os
import platform
import tempfile
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

X86 = platform.machine().lower() in ("x86_64", "amd64")
SANITIZE = os.environ.get("RANDLA_SANITIZE", "")

sources = [
    "bind.cpp",
    "bind_butterfly.cpp",
    "bind_factorize.cpp",
    "bind_glm.cpp",
    "bind_learn.cpp",
    "bind_row_maps.cpp",
    "bind_sketch.cpp",
]
sources += ["dispatch.cpp", "memory.cpp", "parallel.cpp", "isa_baseline.cpp"]
if X86:
    sources += ["isa_avx2.cpp", "isa_avx512.cpp"]

# Contraction into fused multiply-add would make results depend on the instruction set.
# Without -fno-math-errno square roots are not vectorised.
COMPILE = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "-pthread"]


class BuildExt(build_ext):
    def build_extensions(self) -> None:
        openmp = self.has_openmp()
        for ext in self.extensions:
            if openmp:
                ext.extra_compile_args += ["-fopenmp"]
                ext.extra_link_args += ["-fopenmp"]
            else:
                print("randla: this compiler has no OpenMP; OMP_NUM_THREADS and threadpoolctl will not be heard")
        super().build_extensions()

    def has_openmp(self) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=["-fopenmp"])
                self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=["-fopenmp"])
            except Exception:
                return False
        return True


cpu = Pybind11Extension(
    "randla._cpu",
    [f"csrc/cpu/{name}" for name in sources],
    include_dirs=["csrc"],
    define_macros=[("RANDLA_X86", str(int(X86)))],
    cxx_std=17,
    extra_compile_args=COMPILE + ([f"-fsanitize={SANITIZE}", "-g", "-fno-omit-frame-pointer"] if SANITIZE else []),
    extra_link_args=["-pthread"] + ([f"-fsanitize={SANITIZE}"] if SANITIZE else []),
    depends=[str(p) for p in Path("csrc").rglob("*") if p.suffix in (".h", ".inl")],
)

ParallelCompile("RANDLA_BUILD_JOBS", default=0).install()
setup(ext_modules=[cpu], cmdclass={"build_ext": BuildExt})
