"""The compiled CUDA module: what it holds, seen from outside, and how it fails without a device."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from emulated import Memory, OnDevice

cuda = pytest.importorskip("randla._cuda", reason="randla was built without CUDA")

# Kernels whose speed is that of memory must load 16 bytes at a time: all of them, or those for rows on whole packs.
WIDE_LOADS = dict.fromkeys(
    ["ColumnPass", "RunTile", "SliceGradient", "SquaresByColumns", "SquaresOfRows", "Transform", "Windowed"], all
)
WIDE_LOADS |= {"Gather": any, "RowPass": any, "Spread": any}
# Of libraries, not ours.
FOREIGN = ("cub",)


def tool():
    found = os.environ.get("RANDLA_CUOBJDUMP") or shutil.which("cuobjdump")
    if not found:
        pytest.skip("cuobjdump is not there; RANDLA_CUOBJDUMP names it")
    return found


def dumped(*options):
    environment = {**os.environ, "PATH": f"{os.path.dirname(tool())}{os.pathsep}{os.environ['PATH']}"}
    command = [tool(), *options, cuda.__file__]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def machine_code():
    """The instructions of every kernel for one architecture, by its mangled name."""
    arch = sorted(re.findall(r"sm_(\d+)", dumped("--list-elf")))[-1]
    parts = re.split(r"Function : (\S+)", dumped("--dump-sass", "-arch", f"sm_{arch}"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_it_imports_and_counts_devices_without_a_driver():
    assert cuda.device_count() >= 0
    assert re.fullmatch(r"\d+\.\d+", cuda.runtime_version())


def test_a_call_without_a_device_raises():
    if cuda.device_count():
        pytest.skip("there is a device")
    cuda.use(lambda: 0, Memory)
    with pytest.raises(RuntimeError, match="cudaError"):
        cuda.dense_sketch(0, 4, 1, OnDevice(np.empty((4, 4))), 0, 0)


def test_arrays_of_the_host_are_refused():
    with pytest.raises(TypeError, match=r"out must be a device array; got .*numpy"):
        cuda.dense_sketch(0, 4, 1, np.empty((4, 4)), 0, 0)


def test_all_architectures_are_there():
    wanted = set(os.environ.get("RANDLA_CUDA_ARCHS", "80,90,100,120").split(","))
    assert set(re.findall(r"sm_(\d+)", dumped("--list-elf"))) == wanted
    assert ".ptx" in dumped("--list-ptx")


def test_nothing_is_spilled(machine_code):
    spilled = [name for name, code in machine_code.items() if re.search(r"\b(LDL|STL)\b", code)]
    assert [name for name in spilled if not any(word in name for word in FOREIGN)] == []


def test_no_floats_are_added_atomically(machine_code):
    added = [name for name, code in machine_code.items() if re.search(r"ATOMS\.CAST|RED[G.]?.*\.F(32|64)", code)]
    assert added == []


@pytest.mark.parametrize("kernel", WIDE_LOADS)
def test_loads_are_of_128_bits(machine_code, kernel):
    members = [code for name, code in machine_code.items() if re.search(rf"\d{kernel}(?=[IE])", name)]
    assert members
    assert WIDE_LOADS[kernel](re.search(r"LDG\.\S*128", code) for code in members)
