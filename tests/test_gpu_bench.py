"""benchmarks/gpu.py on the stand-in for CuPy: every path of it runs, though its times mean nothing."""

import importlib
import json
import math
import sys
import time
import types
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

from randla import _backend

ROOT = Path(__file__).resolve().parents[1]


class Event:
    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass


class Generator:
    def __init__(self, seed):
        self.host = np.random.default_rng(seed)

    def standard_normal(self, size=None, dtype=float):
        return fake_cupy.ndarray(self.host.standard_normal(size, dtype))


NAMES = ["sparse", "srht", "dense", "fwht", "butterfly", "kronecker", "passes", "leverage"]
NAMES += [f"lstsq {n} {dtype}" for n in (512, 1024, 2048) for dtype in ("float64", "float32")]
NAMES += ["glm", "svd"]
PROPERTIES = {
    "name": b"stand-in",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 3,
    "l2CacheSize": 1 << 20,
    "totalGlobalMem": 1 << 30,
}


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in with what only measurements need."""
    cupy = fake_cupy.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch", None)
    cupy.__version__, cupy.random = "stand-in", types.SimpleNamespace(default_rng=Generator)
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)
    cupy.cuda.Event = Event
    cupy.cuda.get_elapsed_time = lambda start, stop: 1000 * (stop.at - start.at)
    cupy.cuda.runtime.getDeviceProperties = lambda device: PROPERTIES
    cupy.cuda.runtime.driverGetVersion = cupy.cuda.runtime.runtimeGetVersion = lambda: 13000
    return cupy


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


def words(gpu, path, *more):
    return ["-o", str(path), "--quick", "--no-build", *more]


def test_groups_that_are_listed_are_those_there_are(gpu):
    groups = [name for module in ("gpu_sketch", "gpu_solve", "gpu_learn") for name in importlib.import_module(module).GROUPS]
    assert list(gpu.MEASURED) == groups == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_group_is_measured(gpu, cupy, name):
    found = gpu.measure(name, True, 5.0)
    assert "error" not in found
    assert found["bandwidth"] > 0
    assert found["provenance"]["device"] == "stand-in"
    assert found["figures"]
    for figure in found["figures"]:
        assert set(figure) == {"problem", "ours", "against", "ratio", "goal", "at_least", "headline"}
        assert 0 < figure["ratio"] < math.inf
    for record in found["records"]:
        assert record.get("seconds", 1) > 0
    if name.startswith("lstsq"):
        errors = [r["backward error"] for r in found["records"] if "backward error" in r and r["case"] in ("randla", "QR")]
        assert len(errors) == 4
        assert max(errors) < (1e-6 if name.endswith("float32") else 1e-14)
    json.dumps(found, allow_nan=False)


def commands(gpu, monkeypatch, answers):
    """Plays the processes of steps: `answers` gives what those with a word in their command line say and return."""
    seen = []

    def run(command, limit, **more):
        seen.append(command)
        if "--measure" in command:
            return gpu.main(command[2:]), ""
        for word, answer in answers.items():
            if any(word in part for part in command):
                return answer(command) if callable(answer) else answer
        raise AssertionError(command)

    monkeypatch.setattr(gpu, "run", run)
    return seen


SUITE = """<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1">
<testcase classname="a" name="x"/><testcase classname="a" name="y"><failure/></testcase>
<testcase classname="b" name="z"><error/></testcase></testsuite></testsuites>"""


def pytest_run(command):
    path = next(part.split("=")[1] for part in command if part.startswith("--junitxml="))
    Path(path).write_text(SUITE)
    return 1, "1 failed"


def test_results_are_kept_after_each_step(gpu, cupy, monkeypatch, tmp_path, capsys):
    path = tmp_path / "results.json"
    monkeypatch.setattr(gpu.shutil, "which", lambda name, path: f"/somewhere/{name}")
    said = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    answers = {"print(cupy": (0, "90\n"), "pip": (0, ""), "pytest": pytest_run}
    answers |= {"memcheck": (9, "SUMMARY: 2 errors"), "racecheck": (0, said)}
    seen = commands(gpu, monkeypatch, answers)
    assert gpu.main(["-o", str(path), "--quick", "--only", "build", "tests", "memcheck", "racecheck", "srht"]) == 1
    steps = json.loads(path.read_text())["steps"]
    assert list(steps) == ["build", "tests", "memcheck", "racecheck", "srht"]
    assert steps["build"]["architecture"] == "90"
    assert steps["tests"].items() >= {"passed": 2, "failures": 1, "errors": 1, "skipped": 1}.items()
    assert steps["tests"]["failed"] == ["a::y", "b::z"]
    assert steps["memcheck"]["summary"] == "2 errors"
    assert steps["racecheck"].items() >= {"status": "done", "summary": said.partition("SUMMARY: ")[2]}.items()
    assert any("--target" in command for command in seen)
    table = capsys.readouterr().out
    assert "Tests on the device: 2 passed, 2 failed, 1 skipped." in table
    assert "BlockSRHT" in table
    # Another step leaves the others as they were.
    assert gpu.main(words(gpu, path, "--only", "dense")) == 0
    assert list(json.loads(path.read_text())["steps"]) == ["build", "tests", "memcheck", "racecheck", "srht", "dense"]
    assert not [p for p in tmp_path.iterdir() if p != path]


def test_a_step_that_fails_is_told_and_the_others_run(gpu, cupy, monkeypatch, tmp_path, capsys):
    def failing(bench):
        bench.of_bandwidth("before", 1.0, 8, 0.5)
        raise ArithmeticError("results differ")

    sketches = importlib.import_module("gpu_sketch")
    monkeypatch.setitem(sketches.GROUPS, "srht", failing)
    commands(gpu, monkeypatch, {})
    path = tmp_path / "results.json"
    assert gpu.main(words(gpu, path, "--only", "srht", "dense")) == 1
    steps = json.loads(path.read_text())["steps"]
    assert steps["srht"]["error"] == "ArithmeticError: results differ"
    assert len(steps["srht"]["figures"]) == 1
    assert "error" not in steps["dense"]
    assert "srht: ArithmeticError: results differ." in capsys.readouterr().out


def test_what_is_not_there_is_said(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.shutil, "which", lambda name, path: None)
    commands(gpu, monkeypatch, {"print(cupy": (1, "ImportError: cupy"), "--measure": (3, "broken")})
    path = tmp_path / "results.json"
    assert gpu.main(words(gpu, path, "--only", "memcheck")) == 0
    assert json.loads(path.read_text())["steps"]["memcheck"]["status"] == "compute-sanitizer not found"
    assert gpu.main(["-o", str(path), "--only", "build"]) == 1
    assert json.loads(path.read_text())["steps"]["build"]["status"] == "no device: ImportError: cupy"
    with pytest.raises(ValueError, match=r"--only must name steps of build, tests.*; got 'nothing'"):
        gpu.main(words(gpu, path, "--only", "nothing"))


def test_steps_have_a_limit_of_time(gpu):
    assert gpu.run([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], 0.5) == (None, "begun\n")
    assert gpu.run([sys.executable, "-c", "raise SystemExit(3)"], 60) == (3, "")
    assert gpu.outcome(None) == "past its limit of time"


def test_nothing_measured_shows_nothing(gpu):
    rows_gpu = importlib.import_module("rows_gpu")
    assert rows_gpu.goals_table({}) == rows_gpu.goals_table({"steps": {}}) == ""


def test_wrong_results_are_no_figures(gpu, cupy):
    bench = importlib.import_module("gpu_device").Bench(cupy, quick=True)
    with pytest.raises(ArithmeticError, match=r"results differ by 5\.0e-01, more than 1\.0e-10"):
        bench.difference("a sketch", cupy.ones(3), 2 * cupy.ones(3), 1e-10)


class Calls:
    """A module that remembers which of its functions were called."""

    def __init__(self, inner, called):
        self.inner, self.called = inner, called

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self.inner, name)


def test_every_kernel_is_exercised(gpu, cupy, monkeypatch):
    inner, called = _backend._cuda(), set()
    monkeypatch.setattr(_backend, "_cuda", lambda: Calls(inner, called))
    importlib.import_module("gpu_exercise").everything(cupy)
    rest = {"use", "device_count", "runtime_version"}
    assert {name for name in dir(inner) if not name.startswith("_")} - rest - called == set()
