"""The `randla` command: demo, solve, bench, info."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

import randla
from randla import datasets
from randla._files import atomic_output, check_output, write_text
from randla.lstsq import METHODS

if TYPE_CHECKING:
    from randla.bench.report import Table

SIZES = {"structured": [(1_024, 64), (4_096, 512)], "lowrank": [(20_000, 1_000)]}  # that `bench` takes by default
EXIT_FAILED, EXIT_USAGE, EXIT_INACCURATE = 1, 2, 3
EXIT_CODES = """
exit status:
  0  done
  1  failed: an input could not be read or used, or an output could not be written
  2  wrong usage
  3  solve: x was written, but the solver did not reach the accuracy it aims for
"""


class Progress:
    """Says on standard error what is going on: a live line on a terminal, else a line of text every few seconds."""

    def __init__(self, every: float = 5.0) -> None:
        self.every, self.last = every, time.monotonic()
        self.status: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self.status = Console(stderr=True).status("starting")
            self.status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, text: str) -> None:
        if self.status is not None:
            self.status.update(text)
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            print(text, file=sys.stderr, flush=True)


def show(table: Table) -> None:
    """Print a table: with rich on a terminal, as plain text elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table.rich(), crop=False)
    else:
        print(table.text() + "\n")


def whole(low: int) -> Callable[[str], int]:
    """Integers from `low` on, as the words of an option."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}; got {value}")
        return value

    return parse


def size(text: str) -> tuple[int, int]:
    """'200000x500' as (200000, 500)."""
    try:
        m, n = (int(float(part)) for part in text.lower().replace("_", "").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 200000x500") from None
    if not m >= n >= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a size needs rows >= columns >= 1")
    return m, n


def sizes(text: str) -> list[tuple[int, int]]:
    return [size(part) for part in text.split(",")]


def methods(text: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in METHODS:
            raise argparse.ArgumentTypeError(f"{word!r} is not a method; known are {', '.join(METHODS)}")
    return words


def demo(args: argparse.Namespace) -> int:
    """Real least squares beside LAPACK: a table for each problem, and one picture."""
    from randla.bench import lstsq, picture, report

    m, n = args.size or ((20_000, 200) if args.quick else (100_000, 500))
    output = Path(args.output)
    check_output(output, suffixes=(".png", ".pdf", ".svg"))
    solvers = [*lstsq.randla_solvers(seed=args.rng), *lstsq.peers(lsqr_iterations=100)]
    records, notes = [], []
    with Progress() as progress:
        progress("warming up")
        small = datasets.least_squares(2_000, 20, rng=args.rng)
        for solver in solvers:  # threads start and libraries load outside of the timing
            solver.solve(small.A, small.b)
        cases: list[Callable[[], lstsq.Case]] = [lambda: generated(m, n, args.rng)]
        if not args.quick and datasets.data_dir() is not None:
            cases.append(covertype)
        for make in cases:
            progress("making the problem")
            try:
                case = make()
            except FileNotFoundError as error:
                notes.append(f"Left out: {error}.")
                continue
            records.append(lstsq.run(case, solvers, rounds=3, least=1, budget=10, warmup=False, progress=progress))
    print("min ||A x - b||. Backward error: the relative change of A for which x is exact.\n")
    for record in records:
        show(report.lstsq_table(record))
    for note in notes:
        print(note)
    if not picture.available():
        print("No picture: matplotlib is not installed (pip install matplotlib).")
        return 0
    with atomic_output(output) as file:
        picture.time_accuracy(records).savefig(file, format=output.suffix[1:].lower(), dpi=150)
    print(f"Picture: {output}")
    return 0


def covertype() -> Any:
    """Forest cover types as least squares: 581,012 x 54, rank 53, badly scaled."""
    from randla.bench.lstsq import Case

    A, y = datasets.load("covtype")
    return Case("covertype", A, np.asarray(y))


def generated(m: int, n: int, rng: int, **options: Any) -> Any:
    from randla.bench.lstsq import Case

    problem = datasets.least_squares(m, n, rng=rng, **options)
    name = f"generated, cond {options.get('cond', 1e6):.0e}, residual {options.get('residual', 0.1):.3g} of b"
    return Case(name.replace("e+0", "e").replace("e+", "e"), *problem)


def solve(args: argparse.Namespace) -> int:
    """Read A and b, solve, write x, and say how good it is."""
    inputs = [Path(args.A)] + ([Path(args.b)] if args.b else [])
    output = Path(args.output)
    check_output(output, inputs, suffixes=(".npy", ".csv"))
    with Progress() as progress:
        progress(f"reading {inputs[0]}")
        A, b = datasets.read(inputs[0])
        if args.b:
            progress(f"reading {inputs[1]}")
            b, _ = datasets.read(inputs[1])
        if b is None:
            raise ValueError(f"{inputs[0]} holds no right-hand side: name a second file for b")
        b = b.toarray() if not isinstance(b, np.ndarray) else b
        if b.ndim == 2 and (b.shape[1] == 1 or (b.shape[0] == 1 and A.shape[0] != 1)):
            b = b.ravel()  # text formats know no 1-D arrays

        def iteration(intermediate_result: Any) -> None:
            progress(f"solving: {intermediate(intermediate_result)}")

        progress("solving")
        start = time.perf_counter()
        result = randla.lstsq(A, b, ridge=args.ridge, method=args.method, tol=args.tol, rng=args.rng, callback=iteration)
        elapsed = time.perf_counter() - start
    with atomic_output(output) as file:
        if output.suffix.lower() == ".npy":
            np.save(file, result.x)
        else:
            number = "%.17g%+.17gj" if np.iscomplexobj(result.x) else "%.17g"
            columns = result.x.shape[1] if result.x.ndim == 2 else 1
            np.savetxt(file, result.x, fmt=",".join([number] * columns))
    m, n = A.shape
    facts = {
        "problem": f"{m:,} x {n:,}" + (f", {b.shape[1]} right-hand sides" if b.ndim == 2 else ""),
        "method": result.method,
        "time": f"{elapsed:.3g} s",
        "residual norm": figure(result.residual_norm),
        "backward error": figure(result.backward_error),
        "forward error bound": figure(result.error_bound),
        "rank": f"{result.rank} of {min(m, n)}",
        "condition": figure(result.cond),
        "iterations": figure(result.iterations),
        "passes over A": figure(result.passes),
        "seed": str(result.seed),
        "status": f"{result.status.name}: {result.message}",
        "written": str(output),
    }
    for key, value in facts.items():
        print(f"{key + ':':21}{value}")
    return 0 if result.success else EXIT_INACCURATE


def intermediate(result: Any) -> str:
    """What a callback of lstsq is told, in a few words."""
    words = [f"iteration {result.iteration}"]
    if result.backward_error is not None:
        words.append(f"backward error {np.max(result.backward_error):.1e}")
    return ", ".join(words)


def figure(value: Any) -> str:
    """One number to four digits; the largest of several."""
    if value is None:
        return "-"
    return f"{float(np.max(value)):.4g}" + (" (largest)" if np.size(value) > 1 else "")


def bench(args: argparse.Namespace) -> int:
    """Time randla and its peers, print tables, and write what was asked for."""
    from randla.bench import leverage, lowrank, lstsq, measure, optimize, picture, sketch, structured
    from randla.bench.report import facts

    html, archive = (Path(p) if p else None for p in (args.output, args.json))
    for path, suffix in ((html, ".html"), (archive, ".json")):
        if path is not None:
            check_output(path, suffixes=(suffix,))
    records: list[dict[str, Any]] = []
    with Progress() as progress:
        for m, n in args.sizes or SIZES.get(args.what, [(100_000, 100)]):
            progress(f"making {m} x {n}")
            limits = {"rounds": args.rounds, "budget": args.budget, "progress": progress}
            if args.what == "optimize":
                X, y = optimize.classification(m, n, args.rng, args.dtype, args.order)
                records.append(optimize.run("generated", X, y, seed=args.rng, **limits))
                continue
            if args.what == "structured":
                records.append(structured.run(m, n, dtype=args.dtype, seed=args.rng, **limits))
                continue
            if args.what == "lowrank":
                records.append(lowrank.run(m, n, k=args.rank or min(50, n - 1), dtype=args.dtype, seed=args.rng, **limits))
                continue
            options = {"dtype": args.dtype, "order": args.order, "cond": args.cond, "residual": args.residual}
            case = generated(m, n, args.rng, **options)
            if args.what == "lstsq":
                solvers = [*lstsq.randla_solvers(args.methods, args.rng), *lstsq.peers()]
                records.append(lstsq.run(case, solvers, **limits))
            elif args.what == "leverage":
                records.append(leverage.run(case.A, seed=args.rng, **limits))
            else:
                records.append(sketch.run(case.A, min(args.sketch_size or 4 * n, m), **limits))
        if args.what == "optimize" and datasets.data_dir() is not None:
            with contextlib.suppress(FileNotFoundError):
                X, labels = datasets.load("ijcnn1")
                X = np.asarray(X, dtype=np.dtype(args.dtype), order=args.order)
                records.append(optimize.run("ijcnn1", X, np.asarray(labels) > 0, seed=args.rng, **limits))
    data = {"kind": args.what, "provenance": measure.provenance(), "records": records}
    table, _ = drawn_as(args.what)
    for record in records:
        show(table(record))
    print(facts(data["provenance"]))
    if archive is not None:
        write_text(archive, json.dumps(data, indent=1, default=plain) + "\n")
        print(f"Data: {archive}")
    if html is not None:
        write_text(html, page(data))
        print(f"Report: {html}" + ("" if picture.available() else ", without plots: matplotlib is not installed"))
    return 0


def drawn_as(kind: str) -> tuple[Any, Any]:
    """What makes a table and a picture of a record of this kind."""
    from randla.bench import lowrank, picture, report, structured

    return {
        "lstsq": (report.lstsq_table, picture.time_accuracy),
        "sketch": (report.sketch_table, picture.sketches),
        "leverage": (report.leverage_table, picture.scores),
        "optimize": (report.optimize_table, picture.descents),
        "structured": (structured.table, structured.drawn),
        "lowrank": (lowrank.table, lowrank.drawn),
    }[kind]


def page(data: dict[str, Any]) -> str:
    """The HTML report of what `bench` measured; without matplotlib it holds the tables only."""
    from randla.bench import picture, report

    table, draw = drawn_as(data["kind"])
    sections = [(table(r), picture.to_svg(draw([r])) if picture.available() else "") for r in data["records"]]
    return report.html_page(f"randla bench {data['kind']}", data["provenance"], sections)


def plain(value: Any) -> Any:
    """NumPy scalars and arrays, and enumerations, for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def info(args: argparse.Namespace) -> int:
    randla.show_config()
    return 0


def demo_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--size", type=size, metavar="MxN", help="size of the generated problem (default 100000x500)")
    p.add_argument("--quick", action="store_true", help="a small problem, a few seconds")
    p.add_argument(
        "-o",
        "--output",
        default="randla-demo.png",
        metavar="FILE",
        help="the picture: .png, .pdf or .svg (default %(default)s)",
    )
    p.add_argument("--rng", type=whole(0), default=0, metavar="SEED", help="seed (default %(default)s)")


def solve_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("A", help="the matrix")
    p.add_argument("b", nargs="?", help="the right-hand side; may be left out where the first file holds it (.svm, .npz)")
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="where x goes: .npy or .csv")
    p.add_argument("--ridge", type=float, default=0.0, help="weight of ||x||^2 (default %(default)s)")
    p.add_argument("--method", choices=METHODS, default="auto", help="default %(default)s")
    p.add_argument("--tol", type=float, default=None, help="backward error to reach (default: what the precision allows)")
    p.add_argument("--rng", type=whole(0), default=None, metavar="SEED", help="seed; the same seed gives the same x")


def bench_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "what",
        nargs="?",
        choices=("lstsq", "sketch", "leverage", "optimize", "structured", "lowrank"),
        default="lstsq",
        help="what to measure (default %(default)s)",
    )
    p.add_argument(
        "--sizes",
        type=sizes,
        metavar="MxN,...",
        help="problem sizes (default 100000x100, lowrank 20000x1000); structured: 2^k rows x vectors (1024x64,4096x512)",
    )
    p.add_argument("-o", "--output", metavar="FILE.html", help="write tables and plots as one HTML file")
    p.add_argument("--json", metavar="FILE.json", help="write the raw data")
    p.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    p.add_argument("--order", choices=("C", "F"), default="C", help="memory order (default %(default)s)")
    p.add_argument("--cond", type=float, default=1e6, help="condition number (default %(default).0e)")
    p.add_argument("--residual", type=float, default=0.1, help="||b - A x|| / ||b|| (default %(default)s)")
    p.add_argument(
        "--methods",
        type=methods,
        default="auto,spir,fossils,cholqr,lsqr",
        metavar="NAME,...",
        help="lstsq: methods of randla (default %(default)s)",
    )
    p.add_argument("--sketch-size", type=whole(1), metavar="D", help="sketch: rows of the sketch (default 4 per column)")
    p.add_argument(
        "--rank", type=whole(1), metavar="K", help="lowrank: rank of the decompositions, less than columns (default 50 at most)"
    )
    p.add_argument(
        "--rounds", type=whole(1), default=5, metavar="K", help="rounds, each running everything once (default %(default)s)"
    )
    p.add_argument(
        "--budget",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="seconds per size after which no round starts (default %(default)s)",
    )
    p.add_argument("--rng", type=whole(0), default=0, metavar="SEED", help="seed (default %(default)s)")


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="randla", description="Randomized numerical linear algebra.", epilog=EXIT_CODES, formatter_class=raw
    )
    top.add_argument("--version", action="version", version=f"randla {randla.__version__}")
    commands = top.add_subparsers(dest="command", metavar="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=more, formatter_class=raw
        )
        sub.set_defaults(run=run)
        return sub

    demo_options(command("demo", demo, "solve least-squares problems beside LAPACK; prints a table, writes a picture"))
    files = f"files: {', '.join(datasets.SUFFIXES)}\n{EXIT_CODES}"
    solve_options(command("solve", solve, "solve min ||A x - b||^2 + ridge ||x||^2 for matrices in files", files))
    bench_options(command("bench", bench, "measure against LAPACK and installed peers"))
    command("info", info, "print version, instruction set, threads, BLAS, CUDA")
    return top


@contextlib.contextmanager
def unwinding_on_terminate() -> Iterator[None]:
    """A request to end becomes an exception, so that temporary files go away."""

    def stop(number: int, frame: Any) -> NoReturn:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = parser().parse_args(argv)

    def warn(message: Warning | str, *where: Any, **more: Any) -> None:
        print(f"randla: warning: {message}", file=sys.stderr)

    try:
        with unwinding_on_terminate(), warnings.catch_warnings():
            warnings.showwarning = warn
            warnings.simplefilter("always", randla.LstsqWarning)
            code: int = args.run(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader went away; python must not complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("randla: interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"randla: error: not enough memory: {error}".rstrip(": "), file=sys.stderr)
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError, np.linalg.LinAlgError) as error:
        print(f"randla: error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    return EXIT_FAILED
