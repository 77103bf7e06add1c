"""The book on paper: tables that fit, and, where XeLaTeX is, a PDF with vector charts and no broken reference."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes

import pdf
from book_latex import Vectors
from build import ROOT
from latex_tables import ROOM, colspec, data_frame, fits, is_long
from test_site import CHART, TEXT, book, output  # noqa: F401  `book` is a fixture

NEEDS_TEX = pytest.mark.skipif(bool(pdf.missing()), reason=f"the PDF is not set: no {', '.join(pdf.missing())}")


def must_be_set(environment):
    """Whether the PDF must not be passed over: make test-all, in continuous integration."""
    return environment.get("CI") == "true" and "WHOLE" in environment


def table(rows):
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return data_frame(BeautifulSoup(f"<table><tbody>{cells}</tbody></table>", "html.parser").table)


def test_narrow_columns_are_as_wide_as_what_they_hold_and_numbers_stand_to_the_right():
    assert colspec(table([["name", "n"], ["a", "-1.5e-3"]])) == "lr"


def test_wide_columns_are_wrapped_into_the_line():
    found = table([["word " * 60, "12", "one two " * 30]])
    shares = [float(share) for share in re.findall(r"dimexpr([\d.]+)", colspec(found))]
    assert len(shares) == 2
    assert sum(shares) < 1
    assert fits(found)


def test_a_table_whose_words_do_not_fit_is_scaled_and_said_not_to_fit():
    found = table([["x" * ROOM, "y " * ROOM]])
    assert sum(float(share) for share in re.findall(r"dimexpr([\d.]+)", colspec(found))) < 1
    assert not fits(found)


def test_long_tables_break_over_pages():
    assert is_long(table([["a"]] * 20))
    assert is_long(table([["word " * 500]]))
    assert not is_long(table([["a"]] * 3))


def test_cells_of_a_data_frame_keep_their_places():
    html = (
        "<table><thead><tr><th></th><th colspan='2'>m</th></tr></thead><tr><th rowspan='2'>i</th><td>1</td><td>2</td>"
    )
    html += "</tr><tr><td>3</td><td>4</td></tr></table>"
    found = data_frame(BeautifulSoup(html, "html.parser").table)
    assert [cell.get("morecols") for cell in found.findall(nodes.entry)][:2] == [None, 1]
    texts = [[cell.astext() for cell in row.findall(nodes.entry)] for row in found.findall(nodes.row)]
    assert texts == [["", "m"], ["i", "1", "2"], ["", "3", "4"]]
    assert len(list(found.findall(nodes.thead))) == 1
    assert colspec(found) == "lrr"


def test_a_chart_is_drawn_as_vectors_with_the_same_bytes_each_time(tmp_path):
    drawn = set()
    for name in map(str, range(5)):
        Vectors.convert(None, ROOT / "book" / "figure.svg", tmp_path / name)
        drawn.add((tmp_path / name).read_bytes())
    (picture,) = drawn
    assert picture.startswith(b"%PDF")
    assert b"/Subtype /Image" not in picture


def test_what_is_missing_is_said_with_the_packages(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "xindy" else name)
    with pytest.raises(SystemExit, match=r"no xindy; on Debian: apt-get install .*xindy") as error:
        pdf.build_pdf()
    assert "\n" not in str(error.value)


def test_without_tex_only_the_integration_of_everything_fails():
    assert must_be_set({"CI": "true", "WHOLE": "1"})
    assert not any(map(must_be_set, [{}, {"CI": "true"}, {"WHOLE": "1"}]))


def test_the_workflow_of_everything_installs_what_sets_the_pdf():
    job = yaml.safe_load((ROOT / ".github/workflows/test-all.yml").read_text())["jobs"]["test-all"]
    commands = [step.get("run", "") for step in job["steps"]]
    (installs,) = [command for command in commands if "apt-get install" in command]
    assert {*pdf.PACKAGES.split(), "fontconfig", "poppler-utils"} <= {*installs.split()}
    assert commands.index(installs) < commands.index("make test-all")


EXERCISE = """
{ref}`ex` and, by number, {numref}`ex`.

```{exercise} Count
:label: ex
How many?
```

```{solution} ex
:class: dropdown
None.
```
"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20">
<text x="5" y="15" font-family="x">share</text></svg>"""


@pytest.fixture
def small(book):  # noqa: F811
    folder = book({**CHART, "image/svg+xml": SVG}, TEXT + EXERCISE)
    shutil.copy(ROOT / "CITATION.cff", folder)
    notebook = folder / "book" / "one.ipynb"
    content = json.loads(notebook.read_text())
    frame = {"text/html": "<table><tr><td>cellone</td></tr></table>", "text/plain": "hidden"}
    shown = json.loads(json.dumps(output(**{"text__html": frame["text/html"], "text__plain": frame["text/plain"]})))
    folded = {"tags": ["hide-input"]}
    new = {"cell_type": "code", "id": "frame", "source": "folded_code()", "metadata": folded, "execution_count": 3}
    content["cells"].append(new | {"outputs": shown})
    notebook.write_text(json.dumps(content))
    return folder


def words(path):
    text = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, text=True, check=True).stdout
    return " ".join(text.split())


@NEEDS_TEX
def test_the_book_is_set_with_vector_charts_and_without_broken_references(small):
    made = pdf.build_pdf(small)
    tex = (small / "_build/latex/_build/latex/model-collapse.tex").read_text()
    (name,) = re.findall(r"sphinxincludegraphics\[.*?\]\{\{(.+?)\}\.pdf\}", tex)
    picture = (small / f"_build/latex/_build/latex/{name}.pdf").read_bytes()
    assert b"/Subtype /Image" not in picture
    assert b"LiberationSans" in picture
    log = (small / "_build/latex/_build/latex/model-collapse.log").read_text()
    assert "undefined" not in log
    assert "Missing character" not in log
    first = made.read_bytes()
    assert pdf.build_pdf(small).read_bytes() == first
    if shutil.which("pdftotext") is None:
        pytest.skip("what the PDF says is not read: no pdftotext (poppler-utils)")
    text = words(made)
    assert "??" not in text
    for said in ("Fig. 1: A finding.", "Theorem 1 (Name)", "Statement.", "Proof. By inspection.", "Exercise 1 (Count)"):
        assert said in text
    assert "Solution to Exercise 1" in text
    assert "cellone" in text
    assert "the contributors" in text
    assert "Version 0.1.0" in text
    assert not re.search("folded_code|hidden|Show the code", text)


@pytest.mark.skipif("WHOLE" not in os.environ, reason="takes minutes: make test-all")
def test_the_whole_book_is_set():
    if pdf.missing() and not must_be_set(os.environ):
        pytest.skip(f"the PDF is not set: no {', '.join(pdf.missing())}")
    pdf.build_pdf()  # says what is missing
    log = (ROOT / "_build/latex/_build/latex/model-collapse.log").read_text(errors="replace")
    assert not re.findall(r"Warning: .*undefined|Missing character.*", log)
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert max(wide, default=0) < 5, "a line runs into the margin: see the log"
