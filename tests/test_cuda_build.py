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
OPCODE = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
# Additions of floats, in hardware or as a loop around a compare and swap: their order changes from run to run.
UNORDERED = re.compile(r"(ATOM|RED)[GS]?\.\S*(CAS|F\d|BF\d)")


def tool():
    found = os.environ.get("RANDLA_CUOBJDUMP") or shutil.which("cuobjdump")
    if not found:
        pytest.skip("cuobjdump is not there; RANDLA_CUOBJDUMP names it")
    return found


def command(*options):
    environment = {**os.environ, "PATH": f"{os.path.dirname(tool())}{os.pathsep}{os.environ['PATH']}"}
    return {"args": [tool(), *options, cuda.__file__], "env": environment, "text": True}


def dumped(*options):
    return subprocess.run(**command(*options), capture_output=True, check=True).stdout


def architectures():
    return set(re.findall(r"sm_(\d+[a-z]?)", dumped("--list-elf")))


def opcodes(arch):
    """Of every kernel, by its mangled name; the text has 100 MB and is read as it comes."""
    kernels, code = {}, set()
    with subprocess.Popen(**command("--dump-sass", "-arch", f"sm_{arch}"), stdout=subprocess.PIPE) as dump:
        for line in dump.stdout:
            if found := OPCODE.match(line):
                code.add(found[1])
            elif "Function : " in line:
                code = kernels.setdefault(line.split()[-1], set())
    assert dump.returncode == 0
    return kernels


@pytest.fixture(scope="module")
def machine_code():
    """The instructions of every kernel, by mangled name, for every architecture."""
    return {f"sm_{arch}": opcodes(arch) for arch in architectures()}


def kernels_with(code, holds):
    return {(arch, name) for arch, kernels in code.items() for name, ops in kernels.items() if any(map(holds, ops))}


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
    assert architectures() == wanted
    assert ".ptx" in dumped("--list-ptx")


def ours(name):
    return not any(word in name for word in FOREIGN)


def test_every_architecture_has_every_kernel(machine_code):
    first, *others = [set(filter(ours, kernels)) for kernels in machine_code.values()]
    assert first
    assert all(names == first for names in others)


def test_nothing_is_spilled(machine_code):
    spilled = kernels_with(machine_code, lambda op: op.startswith(("LDL", "STL")))
    assert {(arch, name) for arch, name in spilled if ours(name)} == set()


def test_no_floats_are_added_atomically(machine_code):
    assert kernels_with(machine_code, UNORDERED.match) == set()


@pytest.mark.parametrize("kernel", WIDE_LOADS)
def test_loads_are_of_128_bits(machine_code, kernel):
    wide = kernels_with(machine_code, re.compile(r"LDG\..*128").match)
    for arch, kernels in machine_code.items():
        members = [name for name in kernels if re.search(rf"\d{kernel}(?=[IE])", name)]
        assert members
        assert WIDE_LOADS[kernel]((arch, name) in wide for name in members), arch
