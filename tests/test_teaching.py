"""The teacher's page and the exercises say the same: which there are, of which level, with what solution and check."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from execute import chapters, files_in
from model_collapse import reference

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "teaching.md").read_text(encoding="utf8")
LEVELS = {"warm-up": 4, "standard": 6, "hard": 8, "research-sized": 12}
GUIDE = PAGE.partition("\n## Marking guide\n")[2].partition("\n## ")[0]
ROW = re.compile(r"^\| \{numref\}`(ex-[\w-]+)` \| ([\w-]+), (\d+)(, check)? \| (.+) \| (.+) \|$", re.M)


class Exercise(NamedTuple):
    """One exercise as its chapter has it."""

    chapter: str
    title: str
    question: str  # to the end of the exercise
    between: str  # from there to its solution
    solution: str


def exercises():
    """All exercises of the book by label, in its order."""
    start = r"\{exercise-start\} *([^\n]*)\n:label: (\S+)\n(.*?)\{exercise-end\}"
    pattern = start + r"(.*?)\{solution-start\} (\S+)\n(.*?)\{solution-end\}"
    found = {}
    for chapter in chapters(ROOT):
        for match in re.finditer(pattern, chapter.twin.read_text(encoding="utf8"), re.S):
            title, label, question, between, solved, solution = match.groups()
            assert label == solved, f"{chapter.name}: after {label} comes the solution of {solved}"
            found[label] = Exercise(chapter.name, title, question, between, solution)
    return found


EXERCISES = exercises()
MARKED = {match[1]: match for match in ROW.finditer(GUIDE)}
CHECKED = [label for label, exercise in EXERCISES.items() if "check(mine," in exercise.between]


def test_no_exercise_is_overlooked_here():
    labels = [x for c in chapters(ROOT) for x in re.findall(r"^:label: (ex-\S+)", c.twin.read_text("utf8"), re.M)]
    assert list(EXERCISES) == labels


def test_the_book_has_forty_exercises_ten_self_checks_and_every_level():
    levels = [MARKED[label][2] for label in EXERCISES]
    assert len(EXERCISES) >= 40
    assert len(CHECKED) >= 10
    assert {*levels} == {*LEVELS}


def test_the_marking_guide_marks_every_exercise_and_no_other_in_the_order_of_the_book():
    rows = re.findall(r"^\| \{numref\}`(.+?)`", GUIDE, re.M)
    assert rows == list(EXERCISES)
    assert rows == list(MARKED), "rows that are not 'exercise | level, points | full answer | partial answers'"


@pytest.mark.parametrize("label", EXERCISES)
def test_level_and_points_agree_with_the_exercise(label):
    level, points, check, whole = MARKED[label].group(2, 3, 4, 5)
    assert LEVELS[level] == int(points)
    assert (level == "research-sized") == ("(research-sized)" in EXERCISES[label].title)
    assert bool(check) == (label in CHECKED)
    parts = re.findall(r"\((\d+)\)", re.sub(r"\$.*?\$", "", whole))
    assert sum(map(int, parts)) == int(points), "the parts of a full answer"


def numbers(text):
    """Numbers of three digits or with a decimal point, as (value, decimals, percentage), without points in brackets."""
    bare = re.sub(r"\(\d+\)", "", text).replace("{,}", ",")
    found = re.findall(r"(?<![\w.,])(\d+(?:,\d{3})*(?:\.\d+)?)(\s*\\?%)?", bare)
    wanted = [(x, bool(percent)) for x, percent in found if "." in x or len(x) > 2]
    return [(float(x.replace(",", "")), len(x.partition(".")[2]), percent) for x, percent in wanted]


def solved(label):
    """What an exercise and its solution show on the page, outputs and all."""
    notebook = json.loads((ROOT / "book" / f"{EXERCISES[label].chapter}.ipynb").read_text("utf8"))
    shown = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if not shown:
            source = source.partition(f":label: {label}\n")[2]
        if source and cell["cell_type"] == "markdown":  # a number in code is not yet one that came out
            shown.append(source)
        if shown:
            plain = (out.get("text") or out.get("data", {}).get("text/plain", []) for out in cell.get("outputs", []))
            shown += ["".join(lines) for lines in plain]
        if shown and "{solution-end}" in source:
            return "\n".join(shown)
    raise AssertionError(f"{label}: no solution in the notebook")


@pytest.mark.parametrize("label", EXERCISES)
def test_numbers_of_the_marking_guide_are_those_of_the_solution(label):
    shown = [float(x.replace(",", "")) for x in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", solved(label))]
    for value, decimals, percent in numbers(MARKED[label][5]):
        near = 0.5 * 10**-decimals + 1e-9
        assert any(abs(y * unit - value) <= near for y in shown for unit in ((1, 100) if percent else (1,))), value


def test_many_numbers_of_the_marking_guide_are_compared():
    assert sum(len(numbers(match[5])) for match in MARKED.values()) > 60


@pytest.mark.parametrize("label", EXERCISES)
def test_an_exercise_has_a_hidden_solution_that_computes(label):
    solution = EXERCISES[label].solution
    assert ":class: dropdown" in solution
    assert "```{code-cell}" in solution
    if label in CHECKED:
        assert re.search(rf'^check\(.+, "{label}"', solution, re.M), "the solution passes the check"


def test_what_the_page_names_exists():
    texts = "".join(chapter.twin.read_text(encoding="utf8") for chapter in chapters(ROOT))
    figures = re.findall(r"^ +name: (fig-\S+)", texts, re.M)
    named = {*re.findall(r"\{numref\}`(?:%s <)?([\w-]+)>?`", PAGE)}
    assert named <= {*EXERCISES, *figures}, named - {*EXERCISES, *figures}
    assert len(re.findall(r"\bex-", PAGE)) == len(re.findall(r"\{numref\}`(?:%s <)?ex-", PAGE)), "a label, not a link"
    assert {*re.findall(r"\((\w+)\.ipynb\)", PAGE)} <= {chapter.name for chapter in chapters(ROOT)}
    targets = re.findall(r"`make ([a-z-]+)", PAGE)
    assert {*targets} <= {*re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M)}


def test_the_page_gives_the_times_that_the_chapters_give():
    rows = re.findall(r"^\| \[.+?\]\((\w+)\.ipynb\) \| ([^|]+) \|", PAGE, re.M)
    assert [name for name, _ in rows] == [chapter.name for chapter in chapters(ROOT) if chapter.name != "claims"]
    for name, time in rows:
        text = (ROOT / "book" / "text" / f"{name}.md").read_text(encoding="utf8")
        own = re.search(r"^\*\*Time and scale\.\*\* (.+?)[.;,]", text, re.M)
        assert name == "intro" or time.removeprefix("one ") in own[1].lower(), f"{name}: {own[1]}, here {time}"


def test_the_seeds_that_chapters_draw_are_those_that_the_book_lists():
    said = re.findall(r"((?:`[\w-]+` and )?`[\w-]+`) ha(?:s|ve) the seeds? (\d(?:, \d)*)", PAGE)
    seeds = {name: tuple(map(int, row.split(", "))) for names, row in said for name in re.findall(r"`(.+?)`", names)}
    assert {*seeds} == {"gmm-1000", "vae-paper", "opt-125m-4096-a", "opt-125m-a"}  # what `own_run` makes
    assert seeds == {name: reference.piece(name).seeds for name in seeds}


def test_an_exam_for_marks_knows_what_to_do_with_every_question():
    before = PAGE.partition("\n## Ten exam questions\n")[2].partition("\n**1.")[0]
    change, derived = re.search(r"For marks, (.+)\nQuestions (.+?) are derivations", before).groups()
    named = [*re.findall(r" in (\d+)", change), *re.findall(r"\d+", derived)]
    assert sorted(map(int, named)) == [*range(1, 11)]


SHORT = ("definition", "discrete", "gaussian", "mixtures", "VAE", "language", "decoding", "lab")
HEADS = {
    "Objectives by chapter": SHORT,
    "Prerequisites by chapter": SHORT,
    "Cells to run live": tuple("Gaussian" if x == "gaussian" else x for x in SHORT),
}


def test_every_chapter_has_objectives_prerequisites_and_a_cell_to_run_live():
    parts = {name: PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0] for name in HEADS}
    for name, part in parts.items():
        assert all(f"| {short}" in part for short in HEADS[name]), name


def test_exam_questions_are_ten_of_ten_points_each():
    exam = PAGE.partition("\n## Ten exam questions\n")[2]
    answers = re.findall(r"\*Answer\.\*(.*?)(?=\n\*\*\d+\.|\Z)", exam, re.S)
    assert len(answers) == len(re.findall(r"^\*\*(\d+)\.", exam, re.M)) == 10
    points = [sum(map(int, re.findall(r"\((\d+)\)", answer))) for answer in answers]
    assert points == [10] * 10


def test_the_page_stands_in_the_contents_and_quotes_no_stored_run():
    assert "book/teaching" in files_in(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert not re.search(r"\d\$?\*(?!\*)", PAGE), "a number with a star: stored runs change"
