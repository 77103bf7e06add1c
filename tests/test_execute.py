"""Chapters are executed when, and only when, something changed that their outputs depend on."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

import execute
import stamps
from changes import LINES, changed_outputs

HEADER = """\
---
jupytext:
  formats: book///ipynb,book/text///md:myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Title

"""
CELL = "```{{code-cell}} ipython3\n{}\n```\n"
MODULE = '''\
def f(x):
    """Old words."""
    from .indirect import k

    return k * x
'''
FILES = {
    "_toc.yml": "root: book/one\nchapters:\n- file: book/two\n- file: book/reader\n- file: book/plain\n",
    "requirements.lock": f"numpy==2\n{stamps.APART}pre-commit==4\n",
    "book/plain.md": "# No cells\n",
    "book/results/numbers.csv": "3,4\n",
    "lib/model_collapse/__init__.py": "",
    "lib/model_collapse/direct.py": MODULE,
    "lib/model_collapse/indirect.py": "k = 2.5  # a remark\n",
    "lib/model_collapse/unused.py": "k = 1\n",
    "book/text/one.md": HEADER
    + CELL.format("from model_collapse import direct")
    + "\nText.\n\n"
    + CELL.format("print(direct.f(3.0))"),
    "book/text/two.md": HEADER
    + CELL.format("---\nmystnb:\n  figure: {name: fig-b, caption: A.}\n---\nopen('results/numbers.csv').read()"),
    "book/text/reader.md": HEADER
    + CELL.format(
        "import json\nlen(json.load(open('one.ipynb'))['cells'])\nprint(sorted(set(dir()) & {'watch', 'note'}))"
    ),
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose three chapters are executed: not to be changed."""
    root = tmp_path_factory.mktemp("project")
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert run(root)[0] == 0
    return root


@pytest.fixture
def project(executed: Path, tmp_path: Path) -> Path:
    """A copy of the executed project."""
    return shutil.copytree(executed, tmp_path / "project")


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Run the program and return its exit status and what it printed."""
    command = [sys.executable, execute.__file__, "--root", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new, 1))


def stale(root: Path) -> dict[str, str]:
    """Why each stale chapter is stale."""
    problems = {chapter.name: execute.complaint(chapter) for chapter in execute.chapters(root)}
    return {name: problem for name, problem in problems.items() if problem and problem.startswith("stale")}


def bytes_of_book(root: Path) -> dict[str, bytes]:
    """All files but the one with times."""
    paths = [path for path in (root / "book").glob("**/*.*") if path != root / execute.EXECUTED]
    return {path.name: path.read_bytes() for path in paths}


EDITS = {
    "value in a module": ("lib/model_collapse/direct.py", "k * x", "k + x", {"one": "module direct changed"}),
    "value in an indirect module": ("lib/model_collapse/indirect.py", "2.5", "3.5", {"one": "module indirect changed"}),
    "module that nobody uses": ("lib/model_collapse/unused.py", "1", "2", {}),
    "comment": ("lib/model_collapse/indirect.py", "a remark", "another", {}),
    "docstring": ("lib/model_collapse/direct.py", '"""Old words."""', '"""New\n    words."""', {}),
    "layout": ("lib/model_collapse/direct.py", "return k * x", "return (\n        k*x\n    )", {}),
    "text": ("book/text/one.md", "Text.", "Other text.", {}),
    "title": ("book/text/two.md", "# Title", "# New title", {}),
    "code": ("book/text/one.md", "3.0", "4.0", {"one": "code cells changed"}),
    "result": ("book/results/numbers.csv", "3", "5", {"two": "file book/results/numbers.csv changed"}),
    "stored output": (
        "book/one.ipynb",
        "7.5",
        "8.5",
        {"one": "stored outputs were altered", "reader": "file book/one.ipynb changed"},
    ),
    "text of a notebook that is read": ("book/one.ipynb", "Text.", "Other text.", {}),
    "lock": ("requirements.lock", "2", "3", dict.fromkeys(("one", "two", "reader"), "requirements.lock changed")),
    "lock of what no notebook needs": ("requirements.lock", "4", "5", {}),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_stale_exactly_what_depends_on_it(name: str, project: Path) -> None:
    *change, expected = EDITS[name]
    edit(project, *change)
    assert stale(project) == {chapter: f"stale: {reason}" for chapter, reason in expected.items()}


def test_a_new_import_or_a_lost_file_makes_stale(project: Path) -> None:
    edit(project, "lib/model_collapse/indirect.py", "k =", "from . import unused\n\nk =")
    (project / "book/results/numbers.csv").unlink()
    assert stale(project).keys() == {"one", "two"}
    assert "module unused changed" in stale(project)["one"]


def test_a_run_after_an_edit_executes_the_stale_and_prints_old_and_new(project: Path) -> None:
    before = bytes_of_book(project)
    edit(project, "lib/model_collapse/indirect.py", "2.5", "3.0")
    edit(project, "book/text/two.md", "# Title", "# New title")
    status, said = run(project)
    assert status == 0
    assert "one: stale (module indirect changed), executing" in said
    assert "-stdout: 7.5" in said
    assert "+stdout: 9.0" in said
    assert "two: text updated" in said
    assert "reader: stale (file book/one.ipynb changed), executing" in said
    after = bytes_of_book(project)
    assert b"# New title" in after["two.ipynb"]
    assert b"3,4" in after["two.ipynb"]
    assert after["one.md"] == before["one.md"]
    assert run(project, "--check") == (0, "")


def test_a_chapter_brings_along_those_that_read_it(project: Path) -> None:
    assert run(project, "one") == (0, "one: fresh\nreader: fresh\n")
    assert run(project, "two") == (0, "two: fresh\n")


def test_a_second_run_changes_nothing(project: Path) -> None:
    before = bytes_of_book(project)
    assert run(project) == (0, "one: fresh\ntwo: fresh\nreader: fresh\n")
    assert bytes_of_book(project) == before


def test_executing_again_gives_the_same_bytes_and_watching_leaves_no_trace(project: Path) -> None:
    before = bytes_of_book(project)
    for chapter in execute.chapters(project):
        chapter.notebook.unlink()
    assert run(project)[0] == 0
    assert bytes_of_book(project) == before
    reader = nbformat.read(project / "book/reader.ipynb", as_version=4)
    assert [cell.execution_count for cell in stamps.code_cells(reader)] == [1]
    assert reader.cells[-1].outputs[-1].text == "[]\n"
    assert list(reader.metadata["stamp"]["files"]) == ["book/one.ipynb"]


def test_the_time_of_an_execution_is_noted_and_goes_with_its_outputs(project: Path) -> None:
    one, two = (execute.Chapter(name, project) for name in ("one", "two"))
    noted = execute.execution(one, execute.read_notebook(one.notebook))
    assert noted is not None
    assert 0 < noted["seconds"] < 600
    assert 0 < noted["processor_seconds"] < 600
    assert noted["processor"]
    before = execute.executions(project)
    edit(project, "lib/model_collapse/indirect.py", "2.5", "3.0")
    assert run(project, "one")[0] == 0
    after = execute.executions(project)
    assert after["two"] == before["two"], "a chapter that was fresh keeps what was noted"
    assert after["one"]["outputs"] != before["one"]["outputs"]
    edit(project, "book/two.ipynb", '"outputs": "', '"outputs": "0')
    assert execute.execution(two, execute.read_notebook(two.notebook)) is None, "other outputs: not recorded"


def test_a_failing_cell_leaves_the_old_notebook_and_the_others_run(project: Path) -> None:
    before = bytes_of_book(project)
    edit(project, "book/text/one.md", "print(direct.f(3.0))", "print(direct.f(1 / 0))")
    edit(project, "book/results/numbers.csv", "3", "5")
    status, said = run(project)
    assert status == 1
    for words in ("one: cell-3 fails", "ZeroDivisionError: division by zero", "print(direct.f(1 / 0))"):
        assert words in said
    assert re.search(r"two: .* outputs changed: 1", said)
    assert bytes_of_book(project)["one.ipynb"] == before["one.ipynb"]
    assert not list(project.glob("**/*.part"))


def test_a_warning_is_not_stored(project: Path) -> None:
    edit(project, "book/text/two.md", "open", "import warnings\nwarnings.warn('careful')\nopen")
    status, said = run(project, "two")
    assert status == 1
    assert "two: cell-1 writes a warning" in said
    assert "careful" in said


def test_check_reports_a_pair_out_of_step_and_changes_nothing(project: Path) -> None:
    edit(project, "book/text/two.md", "# Title", "# New title")
    before = bytes_of_book(project)
    assert run(project, "--check", "two") == (1, "two: two.ipynb does not say what two.md says\n")
    edit(project, "book/one.ipynb", "# Title", "# Changed in the notebook")
    assert "one.ipynb does not say" in run(project, "--check", "one")[1]
    assert bytes_of_book(project)["two.ipynb"] == before["two.ipynb"]


def test_the_notebook_gives_back_its_text(project: Path) -> None:
    for chapter in execute.chapters(project):
        notebook = nbformat.read(chapter.notebook, as_version=4)
        assert jupytext.writes(notebook, fmt=execute.MYST) == chapter.twin.read_text()
    assert "caption: A." in (project / "book/text/two.md").read_text()


def test_an_unknown_chapter_is_one_line(project: Path) -> None:
    assert run(project, "three") == (1, "no chapter three; there are one, two, reader\n")


def test_long_changes_are_cut_and_counted() -> None:
    def notebook(text: str) -> nbformat.NotebookNode:
        output = nbformat.v4.new_output("stream", name="stdout", text=text)
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])

    lines = [f"{n}" for n in range(100)]
    (said,) = changed_outputs(notebook("\n".join(lines)), notebook("\n".join(lines[:50]) + "x" * 1000))
    assert f"... and {1 + 50 + 1 - LINES} more changed lines" in said
    (said,) = changed_outputs(notebook("a"), notebook("x" * 1000))
    assert re.search(r"x \.\.\. and \d+ more characters", said)
    assert changed_outputs(notebook("a"), notebook("a")) == []


def test_an_inserted_cell_does_not_make_the_others_look_changed() -> None:
    def cell(source: str, text: str) -> nbformat.NotebookNode:
        return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("stream", name="stdout", text=text)])

    old = nbformat.v4.new_notebook(cells=[cell("a", "1"), cell("b", "2")])
    new = nbformat.v4.new_notebook(cells=[cell("a", "1"), cell("new", "5"), cell("b", "2")])
    (said,) = changed_outputs(old, new)
    assert "+stdout: 5" in said


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("x = 1  # one", "x = (1)", True),
        ('class A:\n    """Doc."""\n    x = 1', "class A:\n    x = 1", True),
        ("x = 1", "x = 1.0", False),
        ("x = None", "x = []", False),
        ("f(*a)", "f(**a)", False),
        ("{**a}", "{}", False),
        ("def f(x, *, y): pass", "def f(x, y): pass", False),
        ("x = 'a'", "x = b'a'", False),
    ],
)
def test_a_module_is_digested_by_what_it_does(old: str, new: str, same: bool) -> None:
    assert (stamps.outline(ast.parse(old)) == stamps.outline(ast.parse(new))) == same
