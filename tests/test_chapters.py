"""Every chapter is in step with its text, executed, fresh, and keeps the rules of `rules`; and the rules bite."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

import rules
from execute import MYST, Chapter, chapters, complaint, read_notebook
from model_collapse.figures import Figure
from stamps import code_cells

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = {chapter.name: chapter for chapter in chapters(ROOT)}
TEACHING = [name for name in CHAPTERS if name not in rules.NOT_TEACHING]
JUDGING = [name for name in CHAPTERS if name not in rules.NOT_JUDGING]
MAX_BYTES = 4_000_000


def stored(chapter: Chapter) -> NotebookNode:
    notebook = read_notebook(chapter.notebook)
    assert notebook is not None, f"{chapter.notebook} is missing: make book CHAPTER={chapter.name}"
    return notebook


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_pair_is_in_step_and_the_stamp_is_fresh(name: str) -> None:
    problem = complaint(CHAPTERS[name])
    assert problem is None, f"{name}: {problem}; make book CHAPTER={name}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_notebook_gives_its_text_and_the_text_its_notebook(name: str) -> None:
    chapter, notebook = CHAPTERS[name], stored(CHAPTERS[name])
    text = chapter.twin.read_text(encoding="utf8")
    assert jupytext.writes(notebook, fmt=MYST) == text, f"book/{name}.ipynb and its text differ: make book"
    cells = jupytext.reads(text, fmt=MYST).cells
    assert [(c.cell_type, c.source, c.metadata) for c in notebook.cells] == [
        (c.cell_type, c.source, c.metadata) for c in cells
    ]


def complaints(name: str, rule: rules.Rule) -> str:
    """What a rule says of a chapter, with the line of the text at which a cell begins; '' if it keeps the rule."""
    notebook, text = stored(CHAPTERS[name]), CHAPTERS[name].twin.read_text(encoding="utf8")
    return located("; ".join(rule(notebook)), notebook, text, f"book/text/{name}.md")


def located(problems: str, notebook: NotebookNode, text: str, file: str) -> str:
    """Put before the problems the file in which they lie, and after each cell's name its line there."""
    starts = {cell.id: text.find(cell.source) for cell in notebook.cells if cell.source}
    lines = {name: text.count("\n", 0, start) + 1 for name, start in starts.items() if start >= 0}
    named = re.sub(rf"\b({'|'.join(lines)})\b", lambda name: f"{name[0]} (line {lines[name[0]]})", problems)
    return problems and f"{file}: {named}"


# Every cell that widens its tolerance, so that a new one is seen in review: (chapter, cell, rtol).
WIDENED = {
    **{("vae", f"cell-{k}"): rtol for k, rtol in {15: 0.05, 17: 0.1}.items()},  # live chains of trained networks
    **{("language", f"cell-{k}"): rtol for k, rtol in {20: 0.1, 22: 0.1, 24: 0.1}.items()},  # likewise
    **{("language", f"cell-{k}"): 1e-5 for k in (7, 9, 11, 67, 69, 71)},  # losses, in float32
    **{("repetition", f"cell-{k}"): 1e-3 for k in (34, 38, 46, 80)} | {("repetition", "cell-36"): 1e-4},  # likewise
    ("repetition", "cell-40"): 0.01,  # differences of such losses
    **{("repetition", f"cell-{k}"): 0.1 for k in (56, 78)},  # texts that are written live
}


def test_widened_tolerances_are_those_that_were_agreed() -> None:
    found = {
        (name, cell.id): float(cell.metadata["compare"].get("rtol", 0))
        for name, chapter in CHAPTERS.items()
        for cell in code_cells(stored(chapter))
        if "compare" in cell.metadata
    }
    assert found == WIDENED, "a cell widens its tolerance: if that must be, enter it in WIDENED"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_stamp_is_whole(name: str) -> None:
    assert set(stored(CHAPTERS[name]).metadata["stamp"]) == {"cells", "modules", "files", "lock", "outputs"}


def test_the_ledger_depends_on_every_chapter_that_judges() -> None:
    read = set(stored(CHAPTERS["claims"]).metadata["stamp"]["files"])
    assert read == {f"book/{name}.ipynb" for name in JUDGING}


@pytest.mark.parametrize("name", CHAPTERS)
def test_pictures_say_what_their_charts_say(name: str) -> None:
    """Fonts differ between machines, so it is the words of the pictures that are compared, in order."""
    for cell, output in rules.outputs(stored(CHAPTERS[name])):
        specs = [content for mime, content in output.get("data", {}).items() if rules.CHART.fullmatch(mime)]
        for spec in specs:
            drawn = Figure(spec)._repr_mimebundle_()["image/svg+xml"]
            assert words(output.data["image/svg+xml"]) == words(drawn), f"{name}, {cell.id}: make book"


def words(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize("rule", rules.COMMON, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", CHAPTERS)
def test_every_page(name: str, rule: rules.Rule) -> None:
    assert not complaints(name, rule), complaints(name, rule)


@pytest.mark.parametrize("rule", rules.CHAPTER, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", TEACHING)
def test_every_chapter_that_teaches(name: str, rule: rules.Rule) -> None:
    assert not complaints(name, rule), complaints(name, rule)


@pytest.mark.parametrize("rule", rules.JUDGING, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", JUDGING)
def test_every_chapter_that_judges(name: str, rule: rules.Rule) -> None:
    assert not complaints(name, rule), complaints(name, rule)


def test_every_notebook_has_a_text_and_a_place_in_the_contents() -> None:
    notebooks = {path.stem for path in (ROOT / "book").glob("*.ipynb")}
    texts = {path.stem for path in (ROOT / "book" / "text").glob("*.md")}
    assert notebooks == texts == set(CHAPTERS), "book/*.ipynb, book/text/*.md and _toc.yml name different chapters"


def test_no_file_is_over_4_megabytes() -> None:
    top = [path for path in ROOT.iterdir() if not path.name.startswith((".", "_build", "runs"))]
    files = [file for path in top for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    assert [str(file) for file in files if file.stat().st_size > MAX_BYTES] == []


# The rules bite: a chapter that keeps all of them, and changes that break one.

EXERCISES = """
````{exercise-start}
:label: ex-%d
````
Draw again.
````{exercise-end}
````

````{solution-start} ex-%d
:class: dropdown
````

```{code-cell} ipython3
draw(%d)
```

````{solution-end}
````
"""
GOOD = (
    """\
# A title

The claim of this chapter is that a good chapter breaks no rule.

```{admonition} Objectives
- **Keep** the rules.
```

**Before you start.** Read the [introduction](intro.ipynb).

**Time and scale.** One second.

```{code-cell} ipython3
import numpy as np

SEED = 0
```

````{prf:theorem} Nothing
:label: thm-nothing

Nothing follows.
````

```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-one
    caption: Nothing happens.
---
chart
```

It stays so.

```{code-cell} ipython3
:tags: [machine]

environment()
```

## Against the paper

```{code-cell} ipython3
claims()
```

## Summary

One.
Two.
Three.
Four.
Five.

## Exercises
"""
    + "".join(EXERCISES % (n, n, n) for n in range(4))
    + """
## References

```{bibliography}
:filter: docname in docnames
```
"""
)
SPEC = {"data": {"name": "d"}, "datasets": {"d": [{"x": 0.5}] * 500}, "description": "A line."}
CHART = {"application/vnd.vegalite.v6+json": SPEC, "image/svg+xml": "<svg/>", "text/plain": "Chart"}
DISPLAYS: dict[str, dict[str, Any]] = {"chart": CHART, "claims()": {rules.CLAIMS: {"claims": [{"name": "a"}]}}}


def notebook_of(text: str) -> NotebookNode:
    """Make a notebook and give its cells outputs, as if it had been executed."""
    notebook = jupytext.reads(text, fmt=MYST)
    for count, cell in enumerate(rules.code_cells(notebook), 1):
        cell.execution_count = count
        if "import" not in cell.source:
            data = nbformat.from_dict(DISPLAYS.get(cell.source, {"text/plain": "0.5"}))
            cell.outputs = [nbformat.v4.new_output("display_data", data)]
    return notebook


def broken(text: str, change: Any = None) -> set[str]:
    """Name the rules that a chapter breaks."""
    notebook = notebook_of(text)
    if change:
        change(notebook)
    return {rule.__name__ for rule in rules.COMMON + rules.CHAPTER + rules.JUDGING if list(rule(notebook))}


def test_a_good_chapter_breaks_no_rule() -> None:
    assert broken(GOOD) == set()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("# A title", "A title", "has_the_skeleton"),
        ("The claim of this chapter is that a good chapter breaks no rule.\n", "", "has_the_skeleton"),
        ("Objectives", "Aims", "has_the_skeleton"),
        ("[introduction](intro.ipynb)", "introduction", "has_the_skeleton"),
        ("**Time and scale.**", "**Time.**", "has_the_skeleton"),
        ("prf:theorem", "note", "has_the_skeleton"),
        ("{bibliography}", "{note}", "has_the_skeleton"),
        ("## Summary", "## Summing up", "has_the_skeleton"),
        ("- **Keep** the rules.", "- **Keep** the rules.\n" * 5, "is_as_long_as_it_should_be"),
        ("Five.\n", "", "is_as_long_as_it_should_be"),
        (":label: thm-nothing\n", "", "has_labels"),
        (EXERCISES % (3, 3, 3), "", "has_solved_exercises"),
        ("{solution-start} ex-3", "{solution-start} ex-9", "has_solved_exercises"),
        (":class: dropdown\n", "", "has_solved_exercises"),
        ("```{code-cell} ipython3\ndraw(0)\n```\n", "", "has_solved_exercises"),
        ("SEED = 0", "SEED = 1", "draws_from_its_seed"),
        ("draw(2)", "np.random.default_rng(5)", "draws_from_its_seed"),
        ("draw(2)", "s = 7\nnp.random.default_rng(seed=s)", "draws_from_its_seed"),
        ("draw(2)", "legacy.seed(3)", "draws_from_its_seed"),
        ("draw(2)", "np.random.default_rng()", "draws_from_its_seed"),
        ("claims()", "table()", "stores_claims"),
        ("It stays so.\n", "", "has_short_cells"),
        ("draw(1)", "draw(1)\n" * 26, "has_short_cells"),
        ("draw(1)", "# NBVAL_SKIP\ndraw(1)", "is_compared"),
        (":tags: [machine]", ":tags: [nbval-ignore-output]", "is_compared"),
        (":tags: [machine]", ":tags: [raises-exception]", "is_compared"),
        (":tags: [machine]", "---\ncompare: {rtol: 1.0e-3}\n---", "is_compared"),
        ("environment()", "print(environment(), time())\nx", "has_one_machine_cell_at_most"),
        (
            "```{code-cell} ipython3\ndraw(1)",
            "```{code-cell} ipython3\n:tags: [machine]\n\ndraw(1)",
            "has_one_machine_cell_at_most",
        ),
        ("    caption: Nothing happens.\n", "", "has_described_figures"),
        ("    name: fig-one\n", "", "has_described_figures"),
    ],
)
def test_a_rule_finds_what_the_text_breaks(old: str, new: str, rule: str) -> None:
    assert old in GOOD
    assert rule in broken(GOOD.replace(old, new, 1))


def test_a_complaint_says_what_is_missing_and_where_to_look() -> None:
    text = GOOD.replace("## Summary", "## Summing up").replace("draw(1)", "draw(1)\n" * 26, 1)
    notebook = notebook_of(text)
    (missing,) = rules.has_the_skeleton(notebook)
    assert missing.startswith(
        "a section 'Summary' is missing: it comes after a section 'Against the paper' (see CONTRIBUTING"
    )
    (long,) = rules.has_short_cells(notebook)
    line = text.splitlines().index("draw(1)") + 1
    assert re.fullmatch(rf"one.md: \S+ \(line {line}\) has 26 lines.*", located(long, notebook, text, "one.md"))


def test_a_section_against_the_paper_stands_in_its_place_or_nowhere() -> None:
    section = "## Against the paper\n\n```{code-cell} ipython3\nclaims()\n```\n\n"
    assert broken(GOOD.replace(section, "")) == {"stores_claims"}
    moved = GOOD.replace(section, "").replace("## References", section + "## References")
    assert broken(moved) == {"has_the_skeleton"}


CLAIM = nbformat.v4.new_output("display_data", data={rules.CLAIMS: {"claims": []}, "text/plain": "x"})


def holding(notebook: NotebookNode, tag: str) -> NotebookNode:
    return next(cell for cell in rules.code_cells(notebook) if tag in cell.metadata.get("tags", []))


def chart_of(notebook: NotebookNode) -> NotebookNode:
    return next(output.data for _, output in rules.outputs(notebook) if "image/svg+xml" in output.get("data", {}))


def spec_of(notebook: NotebookNode) -> NotebookNode:
    return chart_of(notebook)["application/vnd.vegalite.v6+json"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda n: n.cells[-2].update(execution_count=None, outputs=[]), "is_executed"),
        (lambda n: rules.code_cells(n)[0].update(execution_count=7), "is_executed"),
        (lambda n: add(n, "execute_result", data={"text/plain": "x"}, execution_count=99), "is_executed"),
        (lambda n: holding(n, "machine").outputs.append(CLAIM), "has_one_machine_cell_at_most"),
        (
            lambda n: (
                rules.code_cells(n)[-1].outputs.append(CLAIM)
                or rules.code_cells(n)[-1].metadata.update(compare={"rtol": 0.01})
            ),
            "claims_exactly",
        ),
        (lambda n: add(n, "error", ename="E", evalue="e", traceback=[]), "is_executed"),
        (lambda n: add(n, "stream", name="stderr", text="careful"), "is_executed"),
        (lambda n: rules.code_cells(n)[1].outputs.clear(), "shows_what_it_displays"),
        (lambda n: spec_of(n).update(description=" "), "has_described_figures"),
        (lambda n: chart_of(n).pop("image/svg+xml"), "has_described_figures"),
        (lambda n: add(n, "display_data", data={"image/png": ""}), "has_described_figures"),
        (lambda n: spec_of(n).datasets.d.append({}), "is_light"),
        (lambda n: spec_of(n).update(layer=[{"data": {"values": [{}]}}]), "is_light"),
        (lambda n: spec_of(n).update(title="x" * 500_000), "is_light"),
        (lambda n: add(n, "stream", name="stdout", text="/home/me/x"), "names_no_place_of_this_machine"),
        (lambda n: add(n, "stream", name="stdout", text="<f at 0x7f71b34>"), "names_no_place_of_this_machine"),
    ],
)
def test_a_rule_finds_what_the_outputs_break(change: Any, rule: str) -> None:
    assert rule in broken(GOOD, change)


def add(notebook: NotebookNode, kind: str, **content: Any) -> None:
    rules.code_cells(notebook)[-1].outputs.append(nbformat.v4.new_output(kind, **content))
