"""Which stored outputs an execution changed, old and new, for people to read."""

import difflib
import hashlib
import json
from itertools import chain, zip_longest

from nbformat import NotebookNode

LINES, WIDTH = 30, 160  # of one output's changes that are shown; what is cut is counted


def changed_outputs(old: NotebookNode, new: NotebookNode) -> list[str]:
    """Describe each output that differs between two versions of a notebook: a heading, then - old and + new lines."""
    return [
        description
        for before, after in paired_cells(old, new)
        for number, (a, b) in enumerate(zip_longest(*(c.get("outputs", []) if c else [] for c in (before, after))))
        if (description := described(a, b, f"{(after or before).id}, output {number}"))
    ]


def paired_cells(old: NotebookNode, new: NotebookNode) -> list[tuple[NotebookNode | None, NotebookNode | None]]:
    """Pair the code cells of two versions: same code with same code, and what stands between in order."""
    cells = [[cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (old, new)]
    sources = [[cell.source for cell in side] for side in cells]
    blocks = difflib.SequenceMatcher(None, *sources, autojunk=False).get_opcodes()
    return list(chain.from_iterable(zip_longest(cells[0][a:b], cells[1][c:d]) for _, a, b, c, d in blocks))


def described(old: NotebookNode | None, new: NotebookNode | None, place: str) -> str:
    """Describe the change of one output; empty if there is none."""
    before, after = (lines(output) if output else [] for output in (old, new))
    if before == after:
        return ""
    changes = [x for x in list(difflib.unified_diff(before, after, n=0))[2:] if not x.startswith("@@")]
    shown = [shortened(line) for line in changes[:LINES]]
    if len(changes) > LINES:
        shown.append(f"... and {len(changes) - LINES} more changed lines")
    return "".join(f"  {line}\n" for line in [f"{place}:", *shown])


def shortened(line: str) -> str:
    """Cut a long line, saying how much is cut."""
    return line if len(line) <= WIDTH else f"{line[:WIDTH]} ... and {len(line) - WIDTH} more characters"


def lines(output: NotebookNode) -> list[str]:
    """Write an output as lines of text: data as indented JSON, pictures as a digest, streams as they are."""
    if output.output_type == "stream":
        return [f"{output.name}: {line}" for line in output.text.splitlines()]
    if output.output_type == "error":
        return [f"error: {output.ename}: {output.evalue}"]
    chart = any("vegalite" in mime for mime in output.data)
    return [
        f"{mime}: {line}"
        for mime, content in sorted(output.data.items())
        if not (chart and mime.startswith("image/"))  # a chart's picture changes with its data
        for line in readable(mime, content)
    ]


def readable(mime: str, content: object) -> list[str]:
    """Write one form of an output as lines of text."""
    if mime.startswith("image/"):
        return ["picture with digest " + hashlib.sha256(str(content).encode()).hexdigest()[:16]]
    if isinstance(content, str):
        return content.splitlines()
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
