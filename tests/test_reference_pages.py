"""The pages around the chapters say what the library, the notebooks and the stored files say."""

import doctest
import importlib
import re
from functools import cache

import pytest
from bs4 import BeautifulSoup
from pybtex.database import BibliographyData, parse_file, parse_string

import book_api
import book_stored
import book_vega
from book_api import ROLE, find, rows
from build import ROOT, build_pages
from execute import chapters, execution, read_notebook
from model_collapse import reference
from model_collapse.results import stored_claims
from test_project import public_names

BOOK = ROOT / "book"
NOTATION = (BOOK / "notation.md").read_text(encoding="utf8")
DIFFERENCES = (BOOK / "differences.md").read_text(encoding="utf8")
API = [path.stem for path in sorted(BOOK.glob("api-*.md"))]


@cache
def page(name):
    """A built page."""
    html = (build_pages().parent / f"{name}.html").read_text(encoding="utf8")
    return BeautifulSoup(html, "html.parser")


def article(name):
    return page(f"book/{name}").select_one("article")


@pytest.mark.parametrize("module", [book_api, book_stored, book_vega], ids=lambda module: module.__name__)
def test_examples_of_the_extensions_hold(module):
    assert doctest.testmod(module).failed == 0


# Notation and API


@pytest.mark.parametrize("name", sorted(set(ROLE.findall(NOTATION))))
def test_a_name_of_the_notation_exists(name):
    assert find(name).entry.startswith("model_collapse.")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(scipy\.[\w.]+)`", NOTATION))))
def test_a_name_of_scipy_exists(name):
    parts = name.split(".")
    assert hasattr(importlib.import_module(".".join(parts[:2])), parts[2])


WRONG = ["nothing.family", "discrete.familly", "process.Mixture.delta", "discrete.survival(m)"]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_found(name):
    with pytest.raises(LookupError, match=name.split(".")[0]):
        find(name)


def test_every_name_of_code_in_the_table_is_one_that_is_looked_up():
    cells = [line.split(" | ")[2] for line in NOTATION.splitlines() if line.count(" | ") == 3]
    names = [name for cell in cells for name in re.findall(r"(\{api\})?`([^`]+)`", cell)]
    assert len(names) > 80
    assert [name for role, name in names if not role and not name.startswith("scipy.")] == []


def test_the_notation_leads_to_the_api_and_back():
    for row in rows(NOTATION):
        for entry in {find(name).entry for name in row.names}:
            anchor = entry if entry.count(".") > 1 else f"module-{entry}"
            ((name, head),) = [(name, found) for name in API if (found := article(name).find(id=anchor))]
            assert article("notation").select(f'a[href="{name}.html#{anchor}"]'), entry
            links = [a["href"] for a in (head.find_parent("dl") or head.find_parent("section")).select("a[href]")]
            assert f"notation.html#{row.label}" in links, f"{entry} does not lead back to {row.label}"
            place = re.search(r"`(?:[^`<]*<)?([\w-]+)>?`|\(([\w-]+)\.ipynb\)", row.place)
            target = place[1] or f"{place[2]}.html"
            assert any(target in link for link in links), f"{entry} does not lead to {target}"


@pytest.mark.parametrize("thing", list(public_names()))
def test_a_public_name_has_an_entry(thing):
    assert thing in documented()


@cache
def documented():
    """All that the API reference describes."""
    names = [e["id"] for name in API for e in article(name).find_all("dt", id=True)]
    assert len(names) == len(set(names)) > 200
    return [find(name.removeprefix("model_collapse.")).thing for name in names]


# Verdicts


def stored():
    found = [c for chapter in chapters(ROOT) if chapter.name != "claims" for c in stored_claims(chapter.notebook)]
    return {c.name: c for c in found}


def listed(heading):
    """Names of claims below a heading of the page of differences."""
    section = re.search(rf"^### {heading}\n(.*?)(?=^##|\Z)", DIFFERENCES, re.M | re.S)
    assert section, heading
    brackets = re.findall(r"\((`[\w-]+`(?:, `[\w-]+`)*)\)$", section[1], re.M)
    return re.findall(r"[\w-]+", " ".join(brackets))


TYPED = ["False as stated", "Proved with a correction", "Reproduced with a correction"]


@pytest.mark.parametrize("heading", TYPED)
def test_claims_stand_below_their_verdict(heading):
    assert sorted(listed(heading)) == sorted(name for name, c in stored().items() if c.verdict == heading.lower())


def test_true_statements_with_a_condition_have_verdicts_in_their_favour():
    names = listed("True, with a condition that goes without saying in the paper")
    verdicts = {stored()[name].verdict for name in names}
    assert verdicts <= {"proved", "reproduced", "seen in the tiny model", "seen in SmolLM2"}


def test_every_other_unfavourable_claim_is_shown_from_its_notebook():
    made = [v.strip() for line in re.findall(r"^```\{verdicts\} (.+)", DIFFERENCES, re.M) for v in line.split(";")]
    good = {"proved", "reproduced", "seen in the tiny model", "seen in SmolLM2"}
    assert {c.verdict for c in stored().values()} <= good | {*made} | {heading.lower() for heading in TYPED}
    words = " ".join(article("differences").text.split())
    counts = {v: len(re.findall(rf"{v.capitalize()}\.(?= |$)", words)) for v in made}
    assert counts == {v: sum(c.verdict == v for c in stored().values()) for v in made}


# Glossary, index, bibliography


def test_the_index_lists_every_term_and_function():

    assert len(article("glossary").select("dl.glossary dt")) > 60
    index = {a["href"] for a in page("genindex").select("article a[href]")}
    for dt in article("glossary").select("dl.glossary dt[id]"):
        assert f"book/glossary.html#{dt['id']}" in index, dt.text
    assert "book/api-process.html#model_collapse.discrete.survival" in index


def test_the_contents_lead_to_the_index():
    assert page("book/discrete").select('nav a[href="../genindex.html"]')


def test_every_doi_is_a_link_in_the_bibliography():
    links = {a["href"].lower() for a in article("bibliography").select("a[href]")}
    entries = parse_file(str(BOOK / "references.bib")).entries
    dois = {key: entry.fields["doi"] for key, entry in entries.items() if "doi" in entry.fields}
    assert len(dois) > 30
    assert [key for key, doi in dois.items() if f"https://doi.org/{doi}".lower() not in links] == []
    assert len(article("bibliography").select("div.citation")) == len(entries)


def test_citations_lead_to_the_list_of_their_own_chapter():
    links = [a["href"] for a in article("discrete").select('a[href*="#id"], a[href*="citation"]')]
    assert not [link for link in links if link.startswith("bibliography")]


# How to cite


def test_the_citation_of_the_paper_is_that_of_the_bibliography():
    (text,) = (t for t in (block.text for block in article("cite").select("pre")) if "@article" in t)
    cited, ours = parse_string(text, "bibtex"), parse_file(str(BOOK / "references.bib"))
    one, other = (plain(data) for data in (cited, BibliographyData({"shumailov2024": ours.entries["shumailov2024"]})))
    assert one == other


def plain(data):
    """The one entry of a bibliography, without braces."""
    (entry,) = data.entries.values()
    people = [str(person) for person in entry.persons["author"]]
    return {name: re.sub("[{}]", "", value) for name, value in entry.fields.items()} | {"author": people}


def test_the_citation_of_the_book_is_that_of_the_file():
    said = (ROOT / "CITATION.cff").read_text()
    words = " ".join(article("cite").text.split())
    for name in ("title", "version", "date-released"):
        value = re.search(rf'^{name}: "?([^"\n]+)', said, re.M)[1]
        assert (value[:4] if name == "date-released" else value) in words


# Status


def table_of(heading):
    section = article("status").find(id=heading)
    return [[" ".join(cell.text.split()) for cell in row.find_all("td")] for row in section.select("tbody tr")]


def test_the_status_page_says_how_long_each_chapter_took_or_that_it_is_not_recorded():
    cells = dict(zip(chapters(ROOT), table_of("chapters"), strict=True))
    for chapter, (_, *shown) in cells.items():
        known = execution(chapter, read_notebook(chapter.notebook)) or {}
        wanted = [str(known.get(key)) for key in ("seconds", "processor_seconds", "processor", "python")]
        assert shown == (wanted if known else ["not recorded", "–", "–", "–"])


def test_the_status_page_lists_what_is_stored_and_what_is_missing():
    missing = {(piece.name, why.replace("missing", "not run")) for piece, _, why in reference.outstanding()}
    (shown,) = article("status").find(id="not-run-or-not-finished").find_all("ul", limit=1)
    assert len(shown.find_all("li")) == len(missing)
    assert all(any(li.code.text == name and why in li.text for li in shown.find_all("li")) for name, why in missing)
    runs = dict(table_of("stored-runs"))
    there = {piece.name for piece in reference.PIECES if any(piece.file(seed).exists() for seed in piece.seeds)}
    assert set(runs) == there
    assert runs["gmm-1000"] == reference.reference("gmm-1000").label


def test_the_status_page_names_the_locked_versions():
    text, lock = article("status").text, (ROOT / "requirements.lock").read_text()
    for name in ("numpy", "torch", "jupyter-book"):
        assert re.search(rf"^{name}==(\S+)", lock, re.M).expand(rf"{name} \1") in text


# Data behind the figures


@pytest.mark.parametrize("chapter", [c.name for c in chapters(ROOT) if c.name != "claims"])
def test_every_chart_offers_its_data_and_its_notebook(chapter):
    figures = [chart.find_parent("figure") for chart in article(chapter).select("div.chart")]
    assert figures
    for figure in figures:
        data, notebook = figure.select("figcaption p.downloads a[download][aria-label]")
        assert data["href"] == f"../data/{figure['id']}.csv"
        assert (build_pages().parent / "data" / f"{figure['id']}.csv").stat().st_size > 20
        assert notebook["href"] == f"../_sources/book/{chapter}.ipynb"
        number = figure.select_one(".caption-number").text.strip()
        assert number in data["aria-label"]
        assert number in notebook["aria-label"]
