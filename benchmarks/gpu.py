"""Everything that wants a CUDA device, in one command: builds randla there, runs its tests, looks for errors, and measures.

python benchmarks/gpu.py -o results.json                     all of it, kept after each step
python benchmarks/gpu.py -o results.json --only passes fwht  some steps again, the others stay

Needs CuPy, pybind11, setuptools, pytest and nvcc; torch joins the rivals where it is there. Nothing is downloaded. Every step
runs in a process of its own, with a limit of time, so that one that fails leaves the others alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "gpu"  # where the build is put, away from what is installed
STEPS = ("build", "tests", "memcheck", "racecheck")
MEASURED = (
    "sparse",
    "srht",
    "dense",
    "fwht",
    "butterfly",
    "kronecker",
    "passes",
    "leverage",
    *(f"lstsq {n} {dtype}" for n in (512, 1024, 2048) for dtype in ("float64", "float32")),
    "glm",
    "svd",
)
LIMITS = {"build": 900.0, "tests": 900.0, "memcheck": 300.0, "racecheck": 300.0}
LIMIT = 90.0  # seconds of a group of measurements


def environment() -> dict[str, str]:
    """That of a step: it finds what was built here first."""
    path = [str(SITE)] if SITE.exists() else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])])}


def run(command: list[str], limit: float, **more: str) -> tuple[int | None, str]:
    """The exit status, None past the limit, and what was said."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit,
            cwd=ROOT,
            env={**environment(), **more},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        return None, said.decode(errors="replace") if isinstance(said, bytes) else said
    return done.returncode, done.stdout


def outcome(status: int | None) -> str:
    return "done" if status == 0 else "past its limit of time" if status is None else f"failed with status {status}"


def build(args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """For the architecture of this device only."""
    capability = "import cupy; print(cupy.cuda.Device(0).compute_capability)"
    status, arch = run([sys.executable, "-c", capability], 60)
    if status != 0:
        return {"status": f"no device: {arch.strip()[-300:]}"}
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--upgrade",
        "--target",
        str(SITE),
        ".",
    ]
    status, said = run(command, limit, RANDLA_CUDA="1", RANDLA_CUDA_ARCHS=arch.strip())
    return {"status": outcome(status), "architecture": arch.strip(), **({} if status == 0 else {"said": said[-3000:]})}


def tests(args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """All that are marked gpu, of which none may be skipped for want of a device."""
    report = args.output.with_suffix(".junit.xml")
    # Plugins that the options of the project name may not be there.
    options = ["-m", "gpu", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "-W", "default", f"--junitxml={report}"]
    # -P: the tests are for what was installed, not for the sources beside them.
    command = [sys.executable, "-P", "-m", "pytest", *options, *(["tests/test_cuda_fwht.py"] if args.quick else ["tests"])]
    status, said = run(command, limit, RANDLA_REQUIRE_CUDA="1")
    found: dict[str, Any] = {"status": outcome(status)}
    if report.exists():
        suite = ElementTree.parse(report).getroot().find("testsuite")
        if suite is not None:
            counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
            found |= {**counts, "passed": counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]}
            failed = [case for case in suite.iter("testcase") if {"failure", "error"} & {child.tag for child in case}]
            found["failed"] = [f"{case.get('classname')}::{case.get('name')}" for case in failed[:200]]
        report.unlink()
    return found if status == 0 else found | {"said": said[-6000:]}


def sanitized(tool: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """What compute-sanitizer says to a call of every kernel."""
    home = [str(Path(os.environ[name], "bin")) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ["PATH"], *home, "/usr/local/cuda/bin"]))
    if sanitizer is None:
        return {"status": "compute-sanitizer not found"}
    script = str(ROOT / "benchmarks" / "gpu_exercise.py")
    status, said = run([sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, script], limit)
    summary = re.findall(r"SUMMARY: (.*)", said)
    found = {"status": outcome(status), "summary": summary[-1] if summary else "none"}
    return found if status == 0 else found | {"said": said[-6000:]}


def measured(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A group of measurements."""
    kept = args.output.with_suffix(".part.json")
    kept.unlink(missing_ok=True)
    options = ["--measure", name, "-o", str(kept), "--limit", str(limit), *(["--quick"] if args.quick else [])]
    # What is measured ends by itself; the limit is for what hangs.
    status, said = run([sys.executable, str(Path(__file__).resolve()), *options], 2 * limit + 30)
    found = json.loads(kept.read_text()) if kept.exists() else {}
    kept.unlink(missing_ok=True)
    return {"status": outcome(status), **found} if status == 0 else {"status": outcome(status), **found, "said": said[-3000:]}


def measure(name: str, quick: bool, limit: float) -> dict[str, Any]:
    """One group, in this process."""
    import cupy
    import gpu_device
    import gpu_learn
    import gpu_sketch
    import gpu_solve

    groups = {**gpu_sketch.GROUPS, **gpu_solve.GROUPS, **gpu_learn.GROUPS}
    bench = gpu_device.Bench(cupy, quick=quick, budget=limit)
    begin = time.monotonic()
    try:
        with warnings.catch_warnings():
            # A rival's, or that a rank is below n: what is recorded says so.
            warnings.simplefilter("ignore")
            groups[name](bench)
        failed = {}
    except Exception as error:  # what was measured until then is kept
        failed = {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": time.monotonic() - begin, "provenance": gpu_device.provenance(cupy), **failed, **bench.result()}


def commit() -> str | None:
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+changes", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def steps(only: list[str] | None) -> list[str]:
    """Names of steps: all, or those that are a word of `only` or begin with one and a space."""
    names = [*STEPS, *MEASURED]
    if only is None:
        return names
    for word in only:
        if not any(f"{name} ".startswith(f"{word} ") for name in names):
            raise ValueError(f"--only must name steps of {', '.join(names)}; got {word!r}")
    return [name for name in names if any(f"{name} ".startswith(f"{word} ") for word in only)]


def save(path: Path, found: dict[str, Any]) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(found, indent=1) + "\n")
    scratch.replace(path)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file of the results; what it has is kept")
    parser.add_argument("--only", nargs="+", metavar="STEP", help=f"of {', '.join([*STEPS, *MEASURED])}; lstsq means all of it")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the machinery")
    parser.add_argument("--no-build", action="store_true", help="take the randla that is there")
    parser.add_argument("--limit", type=float, help=f"seconds for each step (default {LIMIT:g}, and more for tests and builds)")
    parser.add_argument("--commit", default=None, help="what was built, where git cannot tell")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    args.output = args.output.resolve()
    if args.measure:
        save(args.output, measure(args.measure, args.quick, args.limit))
        return 0
    found = json.loads(args.output.read_text()) if args.output.exists() else {"steps": {}}
    found["commit"] = args.commit or commit()
    calls: dict[str, Callable[[argparse.Namespace, float], dict[str, Any]]] = {
        "build": build,
        "tests": tests,
        "memcheck": lambda args, limit: sanitized("memcheck", args, limit),
        "racecheck": lambda args, limit: sanitized("racecheck", args, limit),
        **{name: lambda args, limit, name=name: measured(name, args, limit) for name in MEASURED},
    }
    wanted = [name for name in steps(args.only) if not (args.no_build and name == "build")]
    for name in wanted:
        print(f"{name}: ", end="", flush=True)
        begin = time.monotonic()
        result = calls[name](args, args.limit or LIMITS.get(name, LIMIT))
        result["seconds"] = round(time.monotonic() - begin, 1)
        found["steps"][name] = {"commit": found["commit"], "date": time.strftime("%Y-%m-%d"), **result}
        save(args.output, found)
        last = result.get("said", "").strip().splitlines()[-1:]
        print(result.get("error") or result["status"], f"({result['seconds']} s)", *last, flush=True)
        if name == "build" and result["status"] != "done":
            print(result.get("said", ""))
            return 1
    print(text(found))
    return 0 if all(passed(found["steps"][name]) for name in wanted) else 1


def passed(step: dict[str, Any]) -> bool:
    return step["status"] in ("done", "compute-sanitizer not found") and "error" not in step


def text(found: dict[str, Any]) -> str:
    """The figures beside their goals, as a table."""
    if SITE.exists() and str(SITE) not in sys.path:
        sys.path.insert(0, str(SITE))
    import rows_gpu

    return rows_gpu.goals_table(found)


if __name__ == "__main__":
    sys.exit(main())
