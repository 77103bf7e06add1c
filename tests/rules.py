"""The rules that every chapter keeps: each takes an executed notebook and says what is wrong, and where.

`COMMON` holds for every page with cells, `CHAPTER` for those that teach: not for the introduction and the ledger;
`JUDGING` for those that also judge claims of the paper: not for the lab, which asks about the reader's model.
"""

import ast
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from comparing import CHART, is_chart, refusals
from model_collapse.results import MIME as CLAIMS
from stamps import code_cells

MAX_LINES, MAX_ROWS, MAX_CHART_BYTES = 25, 500, 500_000
MIN_EXERCISES, MAX_OBJECTIVES, SUMMARY_SENTENCES = 4, 4, 5
NOT_TEACHING, NOT_JUDGING = ("intro", "claims"), ("intro", "lab", "claims")
UNSEEN = {"remove-cell", "remove-input", "hide-cell", "hide-input"}
FORBIDDEN_TAGS = re.compile(r"nbval-.*|raises-exception|skip-execution")
FORBIDDEN_COMMENTS = re.compile(r"#\s*(NBVAL_\w+|PYTEST_VALIDATE\w+)")
ANCHORS = "|".join(map(re.escape, {str(Path.home()), tempfile.gettempdir(), "/home/", "/Users/", "/root/"}))
SEEDED = re.compile(r"\b(default_rng|SeedSequence|RandomState|seed|manual_seed)$")
LOCAL = re.compile(rf"(?<![\w.])({ANCHORS})|\b0x[0-9a-f]{{6,}}\b|[A-Z]:\\\\")
Rule = Callable[[NotebookNode], Iterator[str]]


def outputs(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    """Yield every cell with each of its outputs."""
    yield from ((cell, output) for cell in code_cells(notebook) for output in cell.outputs)


def charts(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, dict[str, Any]]]:
    """Yield every cell with each of its Vega-Lite specifications."""
    for cell, output in outputs(notebook):
        yield from ((cell, spec) for mime, spec in output.get("data", {}).items() if CHART.fullmatch(mime))


def tags(cell: NotebookNode) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.metadata.get("tags", []))


def document(notebook: NotebookNode) -> str:
    """Return the page as one text, in which every code cell begins with a line '<code>'."""
    return "\n\n".join(("<code>\n" if c.cell_type == "code" else "") + c.source for c in notebook.cells)


# Every page


def is_executed(notebook: NotebookNode) -> Iterator[str]:
    """Every code cell has run once, in order, without an error or a warning."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}"
    for cell, output in outputs(notebook):
        if output.get("execution_count", cell.execution_count) != cell.execution_count:
            yield f"{cell.id} stores an output of another execution"
        if output.output_type == "error":
            yield f"{cell.id} stores the error {output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            yield f"{cell.id} stores a warning: {output.text[:200]}"


def shows_what_it_displays(notebook: NotebookNode) -> Iterator[str]:
    """A cell that ends in an expression stores an output."""
    for cell in code_cells(notebook):
        body = ast.parse(cell.source).body
        if not cell.outputs and body and isinstance(body[-1], ast.Expr) and not cell.source.rstrip().endswith(";"):
            yield f"{cell.id} ends in {ast.unparse(body[-1])[:60]!r} but stores no output"


def is_compared(notebook: NotebookNode) -> Iterator[str]:
    """Nothing switches the comparison off, and no tolerance is too wide to fail."""
    for cell in code_cells(notebook):
        yield from (f"{cell.id} has the tag {x}" for x in sorted(tags(cell)) if FORBIDDEN_TAGS.fullmatch(x))
        yield from (f"{cell.id} has the comment {x}" for x in FORBIDDEN_COMMENTS.findall(cell.source))
        yield from (f"{cell.id}: {reason}" for reason in refusals(cell))


def has_one_machine_cell_at_most(notebook: NotebookNode) -> Iterator[str]:
    """What a machine changes stands in one cell at most, which is one call of the library."""
    machine = [cell for cell in code_cells(notebook) if "machine" in tags(cell)]
    if len(machine) > 1:
        yield f"{len(machine)} cells are tagged machine: {[cell.id for cell in machine]}"
    for cell in machine:
        body = ast.parse(cell.source).body
        if len(body) != 1 or not isinstance(body[0], ast.Expr) or not isinstance(body[0].value, ast.Call):
            yield f"{cell.id} is tagged machine and is not a single call"
        for output in cell.outputs:
            if results := [mime for mime in output.get("data", {}) if mime == CLAIMS or CHART.fullmatch(mime)]:
                yield f"{cell.id} is tagged machine and holds results: {results}"


def claims_exactly(notebook: NotebookNode) -> Iterator[str]:
    """Claims are compared at the default tolerance."""
    for cell, output in outputs(notebook):
        if CLAIMS in output.get("data", {}) and "compare" in cell.metadata:
            yield f"{cell.id} holds claims and widens its tolerance"


def has_short_cells(notebook: NotebookNode) -> Iterator[str]:
    """No cell is long, and prose stands between the code that readers see."""
    for cell in code_cells(notebook):
        if (length := len(cell.source.splitlines())) > MAX_LINES:
            yield f"{cell.id} has {length} lines; allowed are {MAX_LINES}"
    for a, b in zip(notebook.cells, notebook.cells[1:], strict=False):
        if {a.cell_type, b.cell_type} == {"code"} and not (tags(a) | tags(b)) & UNSEEN:
            yield f"{a.id} and {b.id} are code cells without a sentence between them"


def has_described_figures(notebook: NotebookNode) -> Iterator[str]:
    """Every chart has a text alternative, a caption, a label and its picture; every image a text alternative."""
    for cell, output in outputs(notebook):
        charted = is_chart(output.get("data", {}))
        settings = cell.metadata.get("mystnb", {})
        figure = settings.get("figure", {})
        if charted and "image/svg+xml" not in output.data:
            yield f"{cell.id}: the chart has no SVG for viewers without Vega"
        if charted:
            yield from (
                f"{cell.id}: the chart has no mystnb.figure.{x}" for x in ("caption", "name") if x not in figure
            )
        elif any(mime.startswith("image/") for mime in output.get("data", {})) and "alt" not in settings.get(
            "image", {}
        ):
            yield f"{cell.id}: the image has no mystnb.image.alt"
    for cell, spec in charts(notebook):
        if not str(spec.get("description", "")).strip():
            yield f"{cell.id}: the chart has no description"


def is_light(notebook: NotebookNode) -> Iterator[str]:
    """A chart has 500 rows at most, all charts of a page 500 kB."""
    total = 0
    for cell, spec in charts(notebook):
        total += len(json.dumps(spec))
        rows = sum(len(values) for values in spec.get("datasets", {}).values()) + inline_rows(spec)
        if rows > MAX_ROWS:
            yield f"{cell.id}: the chart has {rows} rows; allowed are {MAX_ROWS}"
    if total > MAX_CHART_BYTES:
        yield f"the charts hold {total} bytes of JSON; allowed are {MAX_CHART_BYTES}"


def inline_rows(spec: Any) -> int:
    """Count the rows of data that stand inside a specification."""
    if isinstance(spec, list):
        return sum(map(inline_rows, spec))
    if not isinstance(spec, dict):
        return 0
    own = spec.get("data")
    values = own.get("values", []) if isinstance(own, dict) else []
    return len(values) + sum(inline_rows(value) for name, value in spec.items() if name not in ("data", "datasets"))


def names_no_place_of_this_machine(notebook: NotebookNode) -> Iterator[str]:
    """No output holds an absolute path or the address of an object."""
    for cell, output in outputs(notebook):
        if match := LOCAL.search(json.dumps(output)):
            yield f"{cell.id} shows {match[0]!r}"


COMMON: list[Rule] = [
    is_executed,
    shows_what_it_displays,
    is_compared,
    has_one_machine_cell_at_most,
    claims_exactly,
    has_short_cells,
    has_described_figures,
    is_light,
    names_no_place_of_this_machine,
]

# Chapters that teach

AGAINST = "a section 'Against the paper'"  # of chapters that judge claims (see `stores_claims`)
SKELETON = {
    "a title": r"\A# \S.*$",
    "a paragraph with the chapter's claim": r"^[^\s#`<*(:][^\n]{20,}$",
    "an admonition 'Objectives'": r"^(`{3,}|:{3,})\{admonition\} Objectives",
    "a line '**Before you start.**' with a link": r"^\*\*Before you start\.\*\*(.|\n(?!\n))*?(\]\(|\{(doc|ref)\})",
    "a line '**Time and scale.**'": r"^\*\*Time and scale\.\*\*",
    "a cell with imports": r"^<code>\n(.+\n)*?(import|from) ",
    "a numbered definition or theorem": r"^(`{3,}|:{3,})\{prf:\w+\}",
    AGAINST: r"^## Against the paper$",
    "a section 'Summary'": r"^## Summary$",
    "a section 'Exercises'": r"^## Exercises$",
    "a section 'References' with a bibliography": r"^## References\n(\s*\n)*(`{3,}|:{3,})\{bibliography\}",
}


def has_the_skeleton(notebook: NotebookNode) -> Iterator[str]:
    """The parts of a chapter stand in their order."""
    text, end, before = document(notebook), 0, "the beginning"
    for part, pattern in SKELETON.items():
        if match := re.compile(pattern, re.M).search(text, end):
            end, before = match.end(), part
        elif part != AGAINST or re.search(pattern, text, re.M):
            yield f"{part} is missing: it comes after {before} (see CONTRIBUTING.md, 'How a chapter is written')"


def section(notebook: NotebookNode, title: str) -> str:
    """Return the text of a section of level two, code cells included."""
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", document(notebook), re.M | re.S)
    return found[1] if found else ""


def is_as_long_as_it_should_be(notebook: NotebookNode) -> Iterator[str]:
    """At most four objectives; a summary of five sentences, one a line."""
    block = re.search(r"\{admonition\} Objectives\n(.*?)^(?:`{3,}|:{3,})$", document(notebook), re.M | re.S)
    goals = re.findall(r"^\s*(?:[-*]|\d+\.) ", block[1] if block else "", re.M)
    if not 1 <= len(goals) <= MAX_OBJECTIVES:
        yield f"{len(goals)} objectives, as a list; allowed are 1 to {MAX_OBJECTIVES}"
    sentences = [
        line for line in section(notebook, "Summary").splitlines() if line.strip() and not line.startswith("(")
    ]
    if len(sentences) != SUMMARY_SENTENCES:
        yield f"the summary has {len(sentences)} lines; it has {SUMMARY_SENTENCES} sentences, one a line"


def has_labels(notebook: NotebookNode) -> Iterator[str]:
    """Every definition, theorem and exercise can be referred to."""
    text = document(notebook)
    for match in re.finditer(r"^(?:`{3,}|:{3,})\{(prf:(?!proof)\w+|exercise(?:-start)?)\}.*\n((?::.*\n)*)", text, re.M):
        if ":label:" not in match[2]:
            yield f"{match[0].strip()[:80]!r} has no :label:"


def has_solved_exercises(notebook: NotebookNode) -> Iterator[str]:
    """Four exercises or more, each with a hidden solution that holds code."""
    text = section(notebook, "Exercises")
    labels = re.findall(r"\{exercise(?:-start)?\}.*\n(?::(?!label).*\n)*:label: *(\S+)", text)
    if len(labels) < MIN_EXERCISES:
        yield f"{len(labels)} exercises with a label; needed are {MIN_EXERCISES}"
    solutions = re.findall(r"\{solution-start\} *(\S+)\n(.*?)\{solution-end\}", text, re.S)
    yield from (f"exercise {x} has no solution" for x in labels if x not in dict(solutions))
    for label, body in solutions:
        if not re.search(r"^:class:.*dropdown", body, re.M):
            yield f"the solution of {label} is not hidden (:class: dropdown)"
        if "<code>" not in body:
            yield f"the solution of {label} has no code cell"


def draws_from_its_seed(notebook: NotebookNode) -> Iterator[str]:
    """`SEED = 0` stands in the first or second code cell, and no generator is made without it."""
    cells = code_cells(notebook)
    if not any(re.search(r"^SEED = 0\b", cell.source, re.M) for cell in cells[:2]):
        yield "neither of the first two code cells has the line SEED = 0"
    for cell in cells:
        for call in (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)):
            made = ast.unparse(call)
            if SEEDED.search(ast.unparse(call.func)) and not re.search(r"\bSEED\b", made):
                yield f"{cell.id}: {made} does not derive from SEED"


def stores_claims(notebook: NotebookNode) -> Iterator[str]:
    """The section 'Against the paper' stores claims as outputs of their own type."""
    found = [cell.id for cell, output in outputs(notebook) if output.get("data", {}).get(CLAIMS, {}).get("claims")]
    after = document(notebook).split("## Against the paper", 1)[-1]
    if not found or not any(cell.source in after for cell in code_cells(notebook) if cell.id in found):
        yield f"no claims are stored under '## Against the paper' (claims in {found or 'no cell'})"


CHAPTER: list[Rule] = [
    has_the_skeleton,
    is_as_long_as_it_should_be,
    has_labels,
    has_solved_exercises,
    draws_from_its_seed,
]
JUDGING: list[Rule] = [stores_claims]
