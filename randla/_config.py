"""What this installation is made of, and the number of threads it uses."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np
import scipy

from . import _backend, _check, _cpu


def set_num_threads(k: int) -> None:
    """Use k threads in the kernels called from this thread (as omp_set_num_threads does); BLAS has its own setting.

    Parameters
    ----------
    k : int
        At least 1. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        For what is not an integer, and below 1.
    """
    _cpu.set_num_threads(_check.integer(k, "k", 1))


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print versions, instruction set, threads, BLAS and CUDA, or return them.

    Parameters
    ----------
    mode : {"stdout", "dicts"}

    Returns
    -------
    dict or None
        With "dicts", name to value; with "stdout", nothing.

    Raises
    ------
    ValueError
        For another mode.
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts'; got {mode!r}")
    from . import __version__

    devices = _backend.cuda_devices()
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    config = {
        "randla": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "isa": _cpu.isa(),
        "isas available": ", ".join(_cpu.available_isas()),
        "openmp": _cpu.has_openmp(),
        "threads": _cpu.max_threads(),
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "cuda": devices is not None,
        "cuda devices": devices or 0,
    }
    if mode == "dicts":
        return config
    width = max(map(len, config))
    for name, value in config.items():
        print(f"{name:>{width}}: {value}")
    return None
