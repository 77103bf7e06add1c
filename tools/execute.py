"""Make each chapter's notebook from its text twin, executing those whose outputs are out of date.

    python tools/execute.py [--check] [CHAPTER ...]

Chapters are named as in _toc.yml, without folder (`discrete`), and run in its order: a page that reads the stored
outputs of others stands after them. Two executions give the same notebook; how long the last one took, and where,
stands in a file of its own, book/executed.json. A chapter with a cell that fails, or that writes a warning, keeps its
old notebook; the others still run, and the exit status is 1.
"""

import argparse
import inspect
import json
import os
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

from changes import changed_outputs
from model_collapse.provenance import environment
from stamps import code_cells, files_read, reasons_stale, stamp, watch

ROOT = Path(__file__).resolve().parent.parent
EXECUTED = "book/executed.json"
MYST = {"extension": ".md", "format_name": "myst"}
CELL_SECONDS = 1200
# Results may not depend on the number of threads: sums are added in one order.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Chapter(NamedTuple):
    """One executed page: its name in the table of contents, and the repository."""

    name: str
    root: Path

    @property
    def notebook(self) -> Path:
        """The executed notebook, with stored outputs."""
        return self.root / "book" / f"{self.name}.ipynb"

    @property
    def twin(self) -> Path:
        """The text that people edit."""
        return self.root / "book" / "text" / f"{self.name}.md"


class NotExecutedError(Exception):
    """A chapter that could not be executed; the message says where and why."""


def chapters(root: Path) -> list[Chapter]:
    """List the chapters of the table of contents, in its order; pages without cells are left out."""
    pages = re.findall(r"book/([\w-]+)\s*$", "\n".join(files_in(yaml.safe_load((root / "_toc.yml").read_text()))), re.M)
    return [Chapter(name, root) for name in pages if not (root / "book" / f"{name}.md").exists()]


def files_in(contents: Any) -> list[str]:
    """Return the pages that a table of contents names, in order, however deep."""
    if isinstance(contents, list):
        return [name for entry in contents for name in files_in(entry)]
    if not isinstance(contents, dict):
        return []
    own = [contents[key] for key in ("root", "file") if key in contents]
    return own + [name for value in contents.values() for name in files_in(value)]


# From text to notebook


def read_notebook(path: Path) -> NotebookNode | None:
    """Read a stored notebook; None where there is none."""
    return nbformat.read(path, as_version=4) if path.exists() else None


def read_twin(twin: Path) -> NotebookNode:
    """Make the notebook without outputs that a text describes."""
    notebook = jupytext.reads(twin.read_text(encoding="utf8"), fmt=MYST)
    notebook.metadata["jupytext"].pop("text_representation", None)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def with_outputs_of(source: NotebookNode, stored: NotebookNode) -> NotebookNode:
    """Put the stored outputs and stamp of a fresh notebook under the cells of its text."""
    for cell, old in zip(code_cells(source), code_cells(stored), strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    source.metadata["stamp"] = stored.metadata["stamp"]
    return source


def bytes_of(notebook: NotebookNode) -> bytes:
    """Write a notebook as the bytes of its file."""
    nbformat.validate(notebook)
    return (nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n").encode()


def text_of(notebook: NotebookNode) -> str:
    """Write the text that jupytext makes from a notebook's file, in which the keys of metadata are sorted."""
    return jupytext.writes(nbformat.reads(bytes_of(notebook).decode(), as_version=4), fmt=MYST)


def replace(path: Path, content: bytes) -> bool:
    """Write a file in one step, if it changes; tell whether it did."""
    if path.exists() and path.read_bytes() == content:
        return False
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
    return True


# Execution


def execute(notebook: NotebookNode, chapter: Chapter, prelude: str = "", **environment: str) -> list[str]:
    """Execute a notebook in place and return the files that it read.

    Parameters
    ----------
    notebook, chapter
        What is executed, and the chapter that it is: the kernel runs in the chapter's folder.
    prelude
        Code that the kernel runs before the first cell, unseen.
    environment
        Variables that are added to the kernel's environment.

    Raises
    ------
    NotExecutedError
        If a cell fails, takes too long, kills the kernel, or leaves a warning.
    """
    library = str(chapter.root / "lib")  # this tree's modules, whatever else is installed
    with tempfile.NamedTemporaryFile() as log:
        folder = {"metadata": {"path": chapter.notebook.parent}}
        client = NotebookClient(notebook, timeout=CELL_SECONDS, record_timing=False, resources=folder)
        client.extra_arguments = ["--log-level=ERROR"]  # its advice on encryption is not about the chapter
        client.on_notebook_start = partial(
            prepare, client, f"{inspect.getsource(watch)}\nwatch({log.name!r})\ndel watch\n{prelude}"
        )
        try:
            client.execute(env={**os.environ, **THREADS, "PYTHONPATH": library, **environment})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise NotExecutedError(failure(notebook, error)) from error
        tidy(notebook)
        return files_read(Path(log.name), chapter.root, chapter.notebook)


async def prepare(client: NotebookClient, code: str, notebook: NotebookNode) -> None:
    """Run code in the kernel before the first cell, without an execution count."""
    reply = await client.kc.execute_interactive(code, silent=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"the kernel cannot be prepared: {reply['content']}")


def tidy(notebook: NotebookNode) -> None:
    """Take out of an executed notebook what changes from one execution to the next; refuse warnings."""
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}  # without the version
    for cell in code_cells(notebook):
        cell.outputs = coalesce_streams(cell.outputs)  # the kernel cuts streams by time
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise NotExecutedError(f"{cell.id} writes a warning, which may not be stored:\n{output.text}")


def failure(notebook: NotebookNode, error: Exception) -> str:
    """Say which cell failed, with its code and the traceback."""
    failed = [c for c in code_cells(notebook) if any(x.output_type == "error" for x in c.get("outputs", []))]
    if not failed:
        begun = [cell.id for cell in code_cells(notebook) if cell.execution_count]
        return f"{begun[-1] if begun else 'the kernel'}, or the cell after it, fails: {type(error).__name__}: {error}"
    traceback = next(x.traceback for x in failed[0].outputs if x.output_type == "error")
    return ESCAPES.sub("", f"{failed[0].id} fails:\n{failed[0].source}\n\n" + "\n".join(traceback))


# One chapter, and all


def bring_up_to_date(chapter: Chapter) -> None:
    """Write the chapter's notebook, executing it if it is stale, and report what changed.

    Raises
    ------
    NotExecutedError
        If it cannot be executed; the notebook is then as it was.
    """
    if not chapter.twin.exists():
        raise NotExecutedError(f"{chapter.twin} is missing")
    source, stored = read_twin(chapter.twin), read_notebook(chapter.notebook)
    if replace(chapter.twin, text_of(source).encode()):  # now: the text may be edited meanwhile
        print(f"{chapter.name}: text put in jupytext's standard form")
    reasons = reasons_stale(stored, source, chapter.root)
    if reasons:
        print(f"{chapter.name}: stale ({', '.join(reasons)}), executing", flush=True)
        start, worked = time.perf_counter(), kernels_seconds()
        source.metadata["stamp"] = stamp_of_execution(source, chapter)
        changes = changed_outputs(stored, source) if stored else []
        print("".join(changes), end="")
        seconds = time.perf_counter() - start
        note_execution(chapter, source, seconds, kernels_seconds() - worked)
        news = f"{seconds:.1f} s, outputs changed: {len(changes) if stored else 'all new'}"
    else:
        source, news = with_outputs_of(source, stored), "text updated"
    written = replace(chapter.notebook, bytes_of(source))
    print(f"{chapter.name}: {news if written or reasons else 'fresh'}", flush=True)


def kernels_seconds() -> float:
    """Return the processor's time that kernels took until now: unlike the clock it hardly minds other programs."""
    spent = os.times()
    return spent.children_user + spent.children_system


def note_execution(chapter: Chapter, notebook: NotebookNode, seconds: float, worked: float) -> None:
    """Note how long an execution took, where, and which outputs it gave; a line for each chapter."""
    where = environment(torch=False)
    entry = {
        "seconds": round(seconds, 1),
        "processor_seconds": round(worked, 1),
        **{key: where[key] for key in ("processor", "system", "python")},
    }
    known = executions(chapter.root) | {chapter.name: entry | {"outputs": notebook.metadata["stamp"]["outputs"]}}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known))
    replace(chapter.root / EXECUTED, f"{{\n{lines}\n}}\n".encode())


def executions(root: Path) -> dict[str, Any]:
    """Read what was noted of the last execution of each chapter."""
    file = root / EXECUTED
    return json.loads(file.read_text(encoding="utf8")) if file.exists() else {}


def execution(chapter: Chapter, notebook: NotebookNode | None) -> dict[str, Any] | None:
    """Return what was noted of the execution that gave the stored outputs; None where none was, or of others."""
    noted = executions(chapter.root).get(chapter.name)
    stored = notebook.metadata.get("stamp", {}).get("outputs") if notebook else None
    return noted if noted and noted["outputs"] == stored else None


def stamp_of_execution(source: NotebookNode, chapter: Chapter) -> dict[str, Any]:
    """Execute a notebook and return its stamp, in which the code is as it was when execution began."""
    before = stamp(source, chapter.root, [])
    after = stamp(source, chapter.root, execute(source, chapter))
    return after | {part: before[part] for part in ("cells", "modules", "lock")}


def complaint(chapter: Chapter) -> str | None:
    """Say what `make book` would do to this chapter, without doing it; None if nothing."""
    if not chapter.twin.exists():
        return f"{chapter.twin} is missing"
    source, stored = read_twin(chapter.twin), read_notebook(chapter.notebook)
    if reasons := reasons_stale(stored, source, chapter.root):
        return f"stale: {', '.join(reasons)}"
    if bytes_of(with_outputs_of(source, stored)) != chapter.notebook.read_bytes():
        return f"{chapter.notebook.name} does not say what {chapter.twin.name} says"
    if text_of(source) != chapter.twin.read_text(encoding="utf8"):
        return f"{chapter.twin.name} is not in jupytext's standard form"
    return None


def chosen(names: list[str], root: Path) -> list[Chapter]:
    """Return the chapters of these names and those that read them, or all; exit with one line if there is none."""
    known = chapters(root)
    if unknown := set(names) - {chapter.name for chapter in known}:
        sys.exit(f"no chapter {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in known)}")
    picked: list[Chapter] = []
    for chapter in known:
        if not names or chapter.name in names or reads(chapter, picked):
            picked.append(chapter)
    return picked


def reads(chapter: Chapter, others: list[Chapter]) -> bool:
    """Tell whether a chapter, when it was executed, read one of these others' notebooks."""
    stored = read_notebook(chapter.notebook)
    files = stored.metadata.get("stamp", {}).get("files", {}) if stored else {}
    return any(other.notebook.relative_to(chapter.root).as_posix() in files for other in others)


def main() -> int:
    """Bring the chosen chapters up to date, or only check them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapter", nargs="*", help="name in _toc.yml, with those that read it; all if none is given")
    parser.add_argument("--check", action="store_true", help="execute nothing: report what is stale or out of step")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: where this file lies)")
    arguments = parser.parse_args()
    failed = False
    for chapter in chosen(arguments.chapter, arguments.root.resolve()):
        try:
            if arguments.check and (problem := complaint(chapter)):
                raise NotExecutedError(problem)
            if not arguments.check:
                bring_up_to_date(chapter)
        except (NotExecutedError, SyntaxError) as error:
            print(f"{chapter.name}: {error}", file=sys.stderr, flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
