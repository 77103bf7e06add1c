"""Make the notebooks that Colab opens: `make colab` writes them into _build/colab, students' editions into student/.

    python tools/colab.py [--source WHAT-PIP-INSTALLS]

Each is a chapter with its stored outputs, its text in plain Markdown (colab_markdown.py), and two cells before it: the
first installs the library at the commit that the notebook was made from, the second mounts Drive, if asked to. A
student's edition leaves the solutions out. The same commit gives the same bytes.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book_site import pages_address, repository
from build import ROOT, build_pages
from colab_markdown import CELL, SOLUTION, Chapter, Pages, anchor
from colab_packages import extras
from execute import bytes_of, chapters, read_notebook

METADATA = {
    "colab": {"toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
INSTALL = """\
# The book's library, at the commit that this notebook was made from; of Colab's own packages none is changed.
%pip install -q "{}\""""
DRIVE = """\
# Your Google Drive, for files that should outlast this session: put True, and run the cell.
DRIVE = False
if DRIVE:
    from google.colab import drive

    drive.mount("/content/drive")"""


def requirement(root: Path, source: str) -> str:
    """Return what the first cell installs."""
    return f"model-collapse[{','.join(extras(root))}] @ {source}"


def published(notebook: NotebookNode, chapter: Chapter, install: str, student: bool = False) -> NotebookNode:
    """Return the edition of an executed notebook that Colab opens.

    Parameters
    ----------
    notebook
        As stored, with outputs.
    chapter
        What turns its text into plain Markdown.
    install
        The requirement that the first cell installs.
    student
        Whether solutions are left out.
    """
    cells = [new_code_cell(INSTALL.format(install), id="install"), new_code_cell(DRIVE, id="drive")]
    cells += [cell for cell, solution in rendered(notebook, chapter) if not (student and solution)]
    return new_notebook(cells=cells, metadata=METADATA | {"colab": METADATA["colab"] | closed(cells)})


def closed(cells: list[NotebookNode]) -> dict[str, list[str]]:
    """Give the solutions' headings the ids by which Colab knows cells, and return what closes their sections.

    A section ends at the next heading of its own level or above: that of the next exercise, or of the chapter.
    """
    headings = [cell for cell in cells if cell.source.startswith("#### Solution of ")]
    for cell in headings:
        cell.metadata["id"] = cell.id
    return {"collapsed_sections": [cell.id for cell in headings]} if headings else {}


def rendered(notebook: NotebookNode, chapter: Chapter) -> Iterator[tuple[NotebookNode, bool]]:
    """Yield the cells in plain Markdown, each with whether it belongs to a solution."""
    solution = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield from ((new, solution) for new in code(cell, chapter))
            continue
        for part, text in enumerate(f"\n{chapter.plain(cell.source)}".split(f"\n{CELL}")):
            if part:
                solution = text.startswith(SOLUTION.removeprefix(CELL))
                text = text.partition("\n")[2]
            if text.strip():
                yield new_markdown_cell(text.strip(), id=f"{cell.id}-{part}" if part else cell.id), solution


def code(cell: NotebookNode, chapter: Chapter) -> Iterator[NotebookNode]:
    """Yield a code cell with its outputs, and the caption of its figure; code that the page hides is folded here."""
    settings: dict[str, Any] = cell.metadata.get("mystnb", {}).get("figure", {})
    hidden = {"hide-input", "remove-input", "remove-cell"} & set(cell.metadata.get("tags", []))
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}} if hidden else {}
    count, outputs = cell.execution_count, cell.outputs
    yield new_code_cell(cell.source, id=cell.id, execution_count=count, outputs=outputs, metadata=folded)
    if settings:
        name, caption = settings["name"], chapter.plain(settings["caption"])
        text = f"{anchor(name)}*{chapter.label(name).text}.* {caption}"
        yield new_markdown_cell(text, id=f"{cell.id}-caption")


def editions(root: Path, source: str, address: str | None) -> Iterator[tuple[str, NotebookNode]]:
    """Yield every notebook to be published, with its path below the folder of all.

    Parameters
    ----------
    root
        The repository.
    source
        Where pip gets the library: an address such as git+https://...@COMMIT.
    address
        Where the pages are read, to which links lead; None where that is not known.
    """
    names = [chapter.name for chapter in chapters(root)]
    pages = Pages(build_pages(root).parent / "book", names, address)
    for name in names:
        notebook = read_notebook(root / "book" / f"{name}.ipynb")
        if notebook is None:
            raise SystemExit(f"colab: book/{name}.ipynb is missing; make book")
        chapter = pages.chapter(name, [cell.source for cell in notebook.cells if cell.cell_type == "markdown"])
        for folder, student in (("", False), ("student/", True)):
            yield f"{folder}{name}.ipynb", published(notebook, chapter, requirement(root, source), student)


def commit(root: Path) -> str:
    """Return the commit that the repository is at; warn if the library or the chapters are not as committed."""
    git = ["git", "-C", str(root)]
    changed = subprocess.run([*git, "status", "--porcelain", "lib", "book"], capture_output=True, text=True, check=True)
    if changed.stdout:
        print("colab: lib/ or book/ is not as committed; the notebooks will install what is", file=sys.stderr)
    return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def write(root: Path, source: str, address: str | None) -> Path:
    """Write all notebooks into _build/colab, in the place of those that were there, and return the folder."""
    folder, part = root / "_build" / "colab", root / "_build" / "colab.part"
    shutil.rmtree(part, ignore_errors=True)
    for path, notebook in editions(root, source, address):
        nbformat.validate(notebook)
        (part / path).parent.mkdir(parents=True, exist_ok=True)
        (part / path).write_bytes(bytes_of(notebook))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def main() -> int:
    """Write the notebooks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="what the first cell installs; default: this commit of the repository")
    source, home = parser.parse_args().source, repository(str(ROOT))
    if not (source or home):
        print("colab: where this repository lives is not known: set GITHUB_REPOSITORY=owner/name", file=sys.stderr)
        return 1
    folder = write(ROOT, source or f"git+{home}@{commit(ROOT)}", pages_address(home) if home else None)
    print(f"notebooks: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
