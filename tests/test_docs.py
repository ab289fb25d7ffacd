"""Everything the documents promise about themselves: code runs, links lead somewhere, tables are those of the data."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from randla.cli import parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [path for path in DOCUMENTS if "```python" in path.read_text()]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path, language):
    """Line number and text of the blocks of a language."""
    text = path.read_text()
    return [(text.count("\n", 0, m.start(2)), m[2]) for m in FENCE.finditer(text) if m[1] == language]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_in_order(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": path.stem}
    for line, code in blocks(path, "python"):
        # Line numbers of a traceback are those of the document.
        exec(compile("\n" * line + code, str(path), "exec"), names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_to_files_of_this_repository(path):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [t for t in targets if not t.startswith("https://") and not (path.parent / t).exists()]
    assert missing == []


def test_map_of_the_code_names_what_exists():
    text = (ROOT / "README.md").read_text().split("## Map of the code")[1]
    names = [name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) >= 10
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_shown_are_commands_that_parse(path):
    lines = [line for _, code in blocks(path, "sh") for line in code.splitlines() if line.startswith("randla ")]
    for line in lines:
        assert parser().parse_args(shlex.split(line)[1:]).run


def test_first_block_of_the_readme_is_two_independent_lines():
    language, code = FENCE.search((ROOT / "README.md").read_text()).groups()
    demo, tests = code.splitlines()
    assert language == "sh"
    for line in (demo, tests):
        assert line.startswith("python3 -m venv ")
    assert demo.endswith("/randla demo")
    assert tests.endswith("/pytest")


def test_continuous_integration_runs_the_test_line_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r'test_line=\$\(grep -m1 "(.*)" README.md\)', script)[1]
    assert blocks(ROOT / "README.md", "sh")[0][1].splitlines()[1].startswith(pattern.lstrip("^"))
    assert script.rstrip().endswith('bash -euo pipefail -c "$test_line"')


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("report")


def test_tables_are_those_of_the_measurements(report):
    texts = report.rendered(report.RESULTS)
    assert {path.name for path in texts} == {"README.md", "benchmarks.md", "cuda.md"}
    for path, text in texts.items():
        assert path.read_text() == text, f"{path.name}: run python benchmarks/report.py readme"


def test_tables_of_what_was_not_measured_are_left_out(report, tmp_path):
    for text in report.rendered(tmp_path).values():
        assert set(re.findall(r"-- ([\w-]+):start -->\n(.*?)\n?<!-- \1:end", text, re.DOTALL)) == {
            (mark, "") for mark in re.findall(r"<!-- ([\w-]+):start", text)
        }


def test_text_between_markers_is_replaced_and_nothing_else(report):
    text = "a\n<!-- bench:start -->\nold\n<!-- bench:end -->\nz\n"
    once = report.between(text, "bench", "new")
    assert once == "a\n<!-- bench:start -->\nnew\n<!-- bench:end -->\nz\n"
    assert report.between(once, "bench", "new") == once
    with pytest.raises(ValueError, match="bench:start"):
        report.between("no markers", "bench", "new")
