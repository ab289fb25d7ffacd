"""Builds randla._cpu with any C++17 compiler, and randla._cuda where nvcc is found.

OpenMP, where the compiler has it, tells the number of threads. RANDLA_CUDA=0 leaves the CUDA module out, 1 makes a missing
nvcc an error; RANDLA_CUDA_ARCHS lists the architectures, such as "80,90".
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
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


CUDA_ARCHS = os.environ.get("RANDLA_CUDA_ARCHS", "80,90,100,120").split(",")
# Contraction would make results differ from those of the processor; where it pays, kernels say fma themselves.
NVCC = ["-O3", "-std=c++17", "--fmad=false", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC,-fvisibility=hidden", "-Icsrc"]
NVCC += ["-Xfatbin=-compress-all"]  # less than half of the size


def cuda_home() -> Path | None:
    """The folder of the CUDA toolkit, None where it is not wanted or not there."""
    wanted = os.environ.get("RANDLA_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        raise SystemExit(f"RANDLA_CUDA must be 0, 1 or auto; got {wanted!r}")
    if wanted == "0":
        return None
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if (folder := os.environ.get(name)) and Path(folder, "bin", "nvcc").exists():
            return Path(folder)
    nvcc = shutil.which("nvcc")
    if nvcc:
        # nvcc on the path may be a script that calls another one: only that one knows where it is.
        told = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False).stderr
        if found := re.search(r"TOP=(\S+)", told):
            return Path(found[1]).resolve()
    if wanted == "1":
        raise SystemExit("RANDLA_CUDA=1 needs nvcc: put it on the path or set CUDA_HOME to the folder of the toolkit")
    return None


CUDA = cuda_home()


class BuildExt(build_ext):
    def build_extensions(self) -> None:
        openmp = self.has_openmp()
        self.remove_stale()
        for ext in self.extensions:
            if ext.name == "randla._cuda":
                ext.extra_objects += self.cuda_objects()
            elif openmp:
                ext.extra_compile_args += ["-fopenmp"]
                ext.extra_link_args += ["-fopenmp"]
            else:
                print("randla: this compiler has no OpenMP; OMP_NUM_THREADS and threadpoolctl will not be heard")
        super().build_extensions()

    def remove_stale(self) -> None:
        """A module that an earlier build left behind would be installed with this one."""
        if CUDA is None:
            for old in Path(self.build_lib, "randla").glob("_cuda.*.so"):
                old.unlink()

    def cuda_objects(self) -> list[str]:
        """Compiles the kernels for all architectures, and for later ones as far as the newest virtual one goes."""
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHS]
        newest = "90" if "90" in CUDA_ARCHS else CUDA_ARCHS[-1]
        targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")

        def compiled(source: Path) -> str:
            made = folder / f"{source.stem}.o"
            command = [str(CUDA / "bin" / "nvcc"), *NVCC, *targets, "-c", str(source), "-o", str(made)]
            if self.force or not made.exists() or made.stat().st_mtime < max(p.stat().st_mtime for p in CUDA_FILES):
                print(" ".join(command))
                subprocess.run(command, check=True)
            return str(made)

        jobs = int(os.environ.get("RANDLA_BUILD_JOBS") or os.cpu_count() or 1)
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(compiled, sorted(Path("csrc/cuda").glob("*.cu"))))

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

modules = [cpu]
CUDA_FILES = [*Path("csrc/cuda").iterdir(), *Path("csrc/common").iterdir()]
if CUDA is not None:
    libraries = next(
        CUDA / name for name in ("lib64", "lib", "targets/x86_64-linux/lib") if (CUDA / name / "libcudart_static.a").exists()
    )
    modules.append(
        Pybind11Extension(
            "randla._cuda",
            [str(p) for p in sorted(Path("csrc/cuda").glob("*.cpp"))],
            include_dirs=["csrc", str(CUDA / "include")],
            library_dirs=[str(libraries)],
            libraries=["cudart_static", "dl", "rt", "pthread"],
            cxx_std=17,
            extra_compile_args=["-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas"],
            extra_link_args=["-Wl,--exclude-libs,ALL", "-Wl,-s"],
            depends=[str(p) for p in CUDA_FILES],
        )
    )

ParallelCompile("RANDLA_BUILD_JOBS", default=0).install()
setup(ext_modules=modules, cmdclass={"build_ext": BuildExt})
