"""The `randla` command as a user meets it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import randla
from randla import cli, datasets
from randla.bench import picture, report


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch, tmp_path):
    """An empty working folder and no real data."""
    monkeypatch.delenv("RANDLA_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def problem():
    return datasets.least_squares(400, 12, cond=1e3, rng=1)


@pytest.fixture
def files(problem):
    np.save("A.npy", problem.A)
    np.save("b.npy", problem.b)
    return problem


def run(*words):
    return cli.main([str(word) for word in words])


def listing():
    return sorted(path.name for path in Path().iterdir())


# info, version, usage


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"randla {randla.__version__}\n"


def test_info_prints_the_configuration(capsys):
    assert run("info") == 0
    shown = capsys.readouterr().out
    randla.show_config()
    assert shown == capsys.readouterr().out
    assert randla.__version__ in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: command"),
        (["nonsense"], "'nonsense'"),
        (["solve"], "required: A, -o"),
        (["demo", "--size", "3x4"], "--size: '3x4': a size needs rows >= columns >= 1"),
        (["demo", "--rng", "-1"], "--rng: must be at least 0; got -1"),
        (["demo", "--rng", "x"], "--rng: 'x' is not an integer"),
        (["bench", "--sizes", "huge"], "--sizes: 'huge' is not a size"),
        (["bench", "--sizes", "20x2,"], "--sizes: '' is not a size"),
        (["bench", "--rounds", "0"], "--rounds: must be at least 1; got 0"),
        (["bench", "--methods", "auto,nope"], "--methods: 'nope' is not a method; known are auto, direct"),
    ],
)
def test_wrong_usage_exits_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert "usage: randla" in shown
    assert message in shown


@pytest.mark.parametrize("command", ["demo", "solve", "bench", "info"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    assert command in capsys.readouterr().out


def test_module_and_closed_pipe():
    folder = Path(randla.__file__).parents[1]
    command = [sys.executable, "-m", "randla", "info"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert randla.__version__ in done.stdout
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, env=environment, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""


# solve


def test_solve_writes_x_and_reports(files, capsys):
    assert run("solve", "A.npy", "b.npy", "-o", "x.npy", "--rng", 3) == 0
    x = np.load("x.npy")
    assert np.linalg.norm(x - files.x) < 1e-10
    shown = dict(re.findall(r"^(.*?): +(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert shown["rank"] == "12 of 12"
    assert float(shown["backward error"]) < 1e-14
    assert float(shown["residual norm"]) == pytest.approx(np.linalg.norm(files.b - files.A @ x), rel=1e-3)
    assert shown["status"].split(":")[0] in randla.Status.__members__
    assert shown["written"] == "x.npy"
    assert listing() == ["A.npy", "b.npy", "x.npy"]


def test_solve_writes_csv_with_all_digits(files):
    assert run("solve", "A.npy", "b.npy", "-o", "x.csv", "--method", "direct") == 0
    assert np.array_equal(np.loadtxt("x.csv"), randla.lstsq(files.A, files.b, method="direct").x)


@pytest.mark.parametrize("columns", [None, 2])
def test_complex_csv_is_read_again(files, columns):
    b = files.b * (1 + 2j) if columns is None else np.column_stack([files.b * (1 - 2j), files.b])
    np.save("c.npy", b)
    assert run("solve", "A.npy", "c.npy", "-o", "x.csv", "--method", "direct") == 0
    expected = randla.lstsq(files.A, b, method="direct").x
    assert np.array_equal(datasets.read("x.csv")[0], expected.reshape(12, -1))


def test_options_reach_the_solver(files, capsys):
    assert run("solve", "A.npy", "b.npy", "-o", "x.npy", "--method", "spir", "--ridge", 0.5, "--rng", 8) == 0
    expected = randla.lstsq(files.A, files.b, method="spir", ridge=0.5, rng=8)
    assert np.array_equal(np.load("x.npy"), expected.x)
    assert re.search(rf"seed: +{expected.seed}\n", capsys.readouterr().out)


@pytest.mark.parametrize("form", ["mtx", "npz", "csv", "svm"])
def test_solve_reads_every_format(problem, form):
    A, b = problem.A, problem.b
    words = [f"A.{form}", "b.csv"]
    np.savetxt("b.csv", b)
    if form == "mtx":
        scipy.io.mmwrite("A.mtx", sp.csr_array(A))
        scipy.io.mmwrite("b.mtx", b[:, None])
        words = ["A.mtx", "b.mtx"]
    elif form == "npz":
        np.savez("A.npz", A=A, b=b)
        words = ["A.npz"]
    elif form == "csv":
        np.savetxt("A.csv", A, delimiter=",")
    else:
        rows = (" ".join(f"{j + 1}:{float(v)!r}" for j, v in enumerate(row)) for row in A)
        Path("A.svm").write_text("\n".join(f"{float(y)!r} {row}" for y, row in zip(b, rows, strict=True)))
        words = ["A.svm"]
    assert run("solve", *words, "-o", "x.npy") == 0
    assert np.load("x.npy").shape == (12,)
    assert np.linalg.norm(np.load("x.npy") - problem.x) < 1e-9


def test_several_right_hand_sides(files, capsys):
    np.save("b.npy", np.column_stack([files.b, np.ones(400)]))
    assert run("solve", "A.npy", "b.npy", "-o", "x.npy") == 0
    assert np.load("x.npy").shape == (12, 2)
    assert "2 right-hand sides" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.npy", "b.npy", "-o", "x.npy"], "nothing.npy: no such file"),
        (["A.npy", "-o", "x.npy"], "A.npy holds no right-hand side"),
        (["A.npy", "b.npy", "-o", "x.txt"], "must end in .npy or .csv"),
        (["A.npy", "b.npy", "-o", "no/x.npy"], "does not exist"),
        (["A.npy", "b.npy", "-o", "folder.npy"], "not a regular file"),
        (["A.npy", "short.npy", "-o", "x.npy"], "b must"),
        (["A.npy", "nan.npy", "-o", "x.npy"], "finite"),
        (["A.npy", "b.npy", "-o", "x.npy", "--ridge", "-1"], "ridge"),
        (["broken.npz", "b.npy", "-o", "x.npy"], "broken.npz"),
    ],
)
def test_solve_that_fails_says_why_in_one_line_and_leaves_nothing(files, words, message, capsys):
    Path("folder.npy").mkdir()
    np.save("short.npy", files.b[:-1])
    np.save("nan.npy", np.where(np.arange(400) == 7, np.nan, files.b))
    Path("broken.npz").write_bytes(b"PK\x03\x04 and no more")
    before = listing()
    assert run("solve", *words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("randla: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert listing() == before


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_an_input_is_never_overwritten(files, link, capsys):
    output = Path("b.npy" if link == "same" else "other.npy")
    if link == "symbolic":
        output.symlink_to("b.npy")
    elif link == "hard":
        output.hardlink_to("b.npy")
    before = Path("b.npy").read_bytes()
    assert run("solve", "A.npy", "b.npy", "-o", output) == 1
    assert "is also an input" in capsys.readouterr().err
    assert Path("b.npy").read_bytes() == before


@pytest.mark.parametrize("trouble", [OSError("disk full"), KeyboardInterrupt(), SystemExit(143)])
def test_interrupted_writing_keeps_the_old_output_and_leaves_no_temporary_file(files, trouble, monkeypatch, capsys):
    Path("x.npy").write_bytes(b"old")
    before = listing()

    def save(file, x):
        file.write(b"half of it")
        raise trouble

    monkeypatch.setattr(cli.np, "save", save)
    if isinstance(trouble, SystemExit):
        with pytest.raises(SystemExit):
            run("solve", "A.npy", "b.npy", "-o", "x.npy")
    else:
        assert run("solve", "A.npy", "b.npy", "-o", "x.npy") == (1 if isinstance(trouble, OSError) else 130)
        assert "Traceback" not in capsys.readouterr().err
    assert listing() == before
    assert Path("x.npy").read_bytes() == b"old"


def test_request_to_end_during_a_solve_leaves_nothing_behind(files, monkeypatch):
    def solve(A, b, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr(randla, "lstsq", solve)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run("solve", "A.npy", "b.npy", "-o", "x.npy")
    assert stop.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler
    assert listing() == ["A.npy", "b.npy"]


def test_output_gets_the_usual_permissions_and_keeps_those_it_had(files):
    umask = os.umask(0o027)
    try:
        assert run("solve", "A.npy", "b.npy", "-o", "x.npy") == 0
        assert Path("x.npy").stat().st_mode & 0o777 == 0o640
        Path("x.npy").chmod(0o604)
        assert run("solve", "A.npy", "b.npy", "-o", "x.npy") == 0
        assert Path("x.npy").stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(umask)


def test_output_through_a_symbolic_link_replaces_what_it_points_to(files):
    Path("store").mkdir()
    Path("store/x.npy").write_bytes(b"old")
    Path("x.npy").symlink_to("store/x.npy")
    assert run("solve", "A.npy", "b.npy", "-o", "x.npy") == 0
    assert Path("x.npy").is_symlink()
    assert np.load("store/x.npy").shape == (12,)


def test_rank_deficiency_is_one_line_of_warning(files, capsys):
    np.save("A.npy", np.hstack([files.A, files.A[:, :1]]))
    assert run("solve", "A.npy", "b.npy", "-o", "x.npy") == 0
    out, err = capsys.readouterr()
    assert "12 of 13" in out
    assert re.fullmatch(r"randla: warning: .*rank.*\n", err)


def test_solution_short_of_the_accuracy_aimed_for_is_written_with_status_3(files, monkeypatch, capsys):
    solver = randla.lstsq
    monkeypatch.setattr(randla, "lstsq", lambda A, b, **options: solver(A, b, **options | {"maxiter": 1}))
    assert run("solve", "A.npy", "b.npy", "-o", "x.npy", "--method", "spir", "--rng", 0) == 3
    assert np.load("x.npy").shape == (12,)
    assert "ITERATION_LIMIT" in capsys.readouterr().out


# demo and bench


def test_demo_prints_a_table_and_draws_a_picture(capsys, monkeypatch):
    assert run("demo", "--size", "1500x20") == 0
    out, _ = capsys.readouterr()
    for name in ("randla.lstsq spir", "numpy.linalg.lstsq", "scipy gelsd", "scipy gelsy", "scipy lsqr"):
        assert re.search(rf"^{name} .*\d (s|ms|us) ", out, re.MULTILINE)
    for column in ("time", "backward error", "forward error", "passes"):
        assert column in out
    assert out.isascii()
    assert Path("randla-demo.png").read_bytes().startswith(b"\x89PNG")
    assert listing() == ["randla-demo.png"]


def test_demo_takes_covertype_where_it_is(capsys, monkeypatch):
    A, y, _ = datasets.least_squares(900, 8, rng=0)
    np.savez("covtype.npz", X=A, y=y)
    monkeypatch.setenv("RANDLA_DATA", ".")
    assert run("demo", "--size", "1500x20", "-o", "demo.svg") == 0
    assert "covertype: 900 x 8" in capsys.readouterr().out
    assert "<svg" in Path("demo.svg").read_text()


def test_demo_says_what_it_left_out_where_the_folder_lacks_covertype(capsys, monkeypatch):
    monkeypatch.setenv("RANDLA_DATA", ".")
    assert run("demo", "--size", "1500x20", "-o", "demo.svg") == 0
    assert "Left out: data set 'covtype'" in capsys.readouterr().out


def test_demo_without_matplotlib_says_so(capsys, monkeypatch):
    monkeypatch.setattr(picture, "available", lambda: False)
    assert run("demo", "--size", "300x5") == 0
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert listing() == []


@pytest.mark.parametrize("what", ["lstsq", "sketch", "leverage"])
def test_bench_writes_one_self_contained_page_and_its_data(what, capsys):
    words = ["bench", what, "--sizes", "600x10,1000x20", "--rounds", 2, "--order", "F", "--dtype", "float32"]
    assert run(*words, "-o", "report.html", "--json", "data.json") == 0
    page, data = Path("report.html").read_text(), json.loads(Path("data.json").read_text())
    assert page.count("<table>") == page.count("<svg") == 2
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(https?:", page)
    assert data["provenance"]["cpu"] in page
    assert [(r["m"], r["n"], r["order"], r["dtype"]) for r in data["records"]] == [
        (600, 10, "F", "float32"),
        (1000, 20, "F", "float32"),
    ]
    assert "Report: report.html\n" in capsys.readouterr().out


def test_bench_says_when_the_page_has_no_plots(capsys, monkeypatch):
    monkeypatch.setattr(picture, "available", lambda: False)
    assert run("bench", "sketch", "--sizes", "300x5", "--rounds", 1, "-o", "report.html") == 0
    assert "Report: report.html, without plots: matplotlib is not installed\n" in capsys.readouterr().out
    assert "<svg" not in Path("report.html").read_text()


def test_bench_refuses_a_bad_output_before_it_measures(capsys):
    assert run("bench", "-o", "report.pdf") == 1
    assert run("bench", "--json", "no/data.json") == 1
    assert capsys.readouterr().err.count("randla: error: ") == 2


def test_bench_out_of_memory_is_an_error_message(capsys):
    assert run("bench", "--sizes", "1000000000000x1000") == 1
    assert "not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 12])
def test_tables_are_whole_on_a_terminal_of_any_width(width, monkeypatch, capsys):
    table = report.Table(
        "Title", ["name", "time"], [["a [b]", "1 s"], ["a longer name", "2 s"]], notes=["A note that is long."]
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    cli.show(table)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[1:5] == ["name           time", "─────────────  ────", "a [b]           1 s", "a longer name   2 s"]
    assert ("A note that is long." in lines) == (width == 60)  # prose wraps, figures do not


def test_progress_is_text_when_there_is_no_terminal(capsys):
    with cli.Progress(every=0) as progress:
        progress("one")
        progress("two")
    assert capsys.readouterr().err == "one\ntwo\n"
