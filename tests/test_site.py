"""How pages are made from stored outputs: buttons, freshness, and what the Sphinx extensions do with an output."""

import shutil
import subprocess
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from book_site import add_buttons, from_remote, repository
from book_vega import CLAIM, VEGALITE
from build import ROOT, build_pages, digest, pack_pictures


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://github.com/owner/name", "owner/name"),
        ("https://github.com/owner/name.git", "owner/name"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("ssh://git@github.com/owner/na.me.git", "owner/na.me"),
        ("https://token@github.com/owner/name/", "owner/name"),
        ("/srv/git/name.git", None),
        ("https://example.org/owner/name", None),
        ("", None),
    ],
)
def test_name_of_the_repository_in_a_remote_address(address, name):
    assert from_remote(address) == name


def options_for(folder):
    config = SimpleNamespace(html_theme_options={"repository_url": "", "logo": {}})
    add_buttons(SimpleNamespace(srcdir=folder), config)
    return config.html_theme_options


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def test_without_an_address_there_is_no_button(clone):
    assert options_for(clone) == {"logo": {}}


def test_the_buttons_lead_to_the_remote_origin(clone):
    subprocess.run(["git", "-C", clone, "remote", "add", "origin", "git@github.com:owner/fork.git"], check=True)
    options = options_for(clone)
    assert options["repository_url"] == "https://github.com/owner/fork"
    assert options["use_repository_button"]
    assert "launch_buttons" not in options  # the theme's own would open the notebooks as they are on main


def test_a_workflow_knows_its_repository(clone, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/other")
    assert repository(str(clone)) == "https://github.com/owner/other"


# A book of one page, with each kind of output


SPEC = {
    "description": "A <b>rising</b> point.",
    "height": 99,
    "width": "container",
    "mark": "point",
    "data": {"values": []},
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
TEXT = """# Title

{prf:ref}`thm` and {numref}`fig-one` and {cite:t}`shumailov2024`.

```{prf:theorem} Name
:label: thm
Statement.
```

```{prf:proof}
By inspection.
```

```{bibliography}
:filter: docname in docnames
```
"""
FIGURE = {"mystnb": {"figure": {"name": "fig-one", "caption": "A finding."}}}
CLAIMS = {CLAIM: {"claims": []}, "text/markdown": "| claim | verdict |\n|---|---|\n| a | $p$ |", "text/plain": "claims"}


def output(**data):
    return [nbformat.v4.new_output("display_data", data={k.replace("__", "/"): v for k, v in data.items()})]


def notebook(chart, text=TEXT):
    cells = [
        nbformat.v4.new_markdown_cell(text),
        nbformat.v4.new_code_cell("show()", metadata=FIGURE, execution_count=1, outputs=output(**chart)),
        nbformat.v4.new_code_cell("claims()", execution_count=2, outputs=output(**CLAIMS)),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=kernel))


CHART = {VEGALITE[1]: SPEC, "image/svg+xml": SVG, "text/plain": "Chart"}


@pytest.fixture
def book(tmp_path):
    """Return a function that writes the book with this chart and text, under this project's configuration."""
    for name in ("_config.yml", "requirements.lock", "tools", "book/assets", "book/references.bib"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/one\n")

    def write(chart=CHART, text=TEXT):
        (tmp_path / "book" / "one.ipynb").write_text(notebook(chart, text))
        return tmp_path

    return write


def test_outputs_become_a_page(book):
    html = (build_pages(book()).parent / "book" / "one.html").read_text()
    page = BeautifulSoup(html, "html.parser")
    figure = page.select_one("figure#fig-one")
    assert figure.select_one("figcaption").text.strip().startswith("Fig. 1 A finding.")
    assert "Fig. 1" in page.select_one("article p").text
    assert "Theorem 1" in page.select_one("article p").text
    assert "Shumailov et al. (2024)" in page.select_one("article p").text
    assert figure.select_one(".chart > script").text.count("\\u003cb>") == 1
    assert figure.select_one(".chart > noscript > img")["alt"] == SPEC["description"]
    assert page.select_one("table.claims td span.math")
    assert page.select_one("div.proof em").text == "Proof."
    ids = [e["id"] for e in page.find_all(id=True)]
    assert len(ids) == len(set(ids))


def test_the_data_of_a_chart_can_be_downloaded(book):
    left = {"data": {"name": "a"}, "encoding": {"y": {"field": "p", "title": "share"}}}
    right = {"data": {"name": "b"}, "layer": [{"encoding": {"y": {"field": "q", "title": "a, b"}}}]}
    datasets = {"a": [{"n": 0, "p": 0.1}, {"n": 1, "p": None}], "b": [{"n": 2, "q": "x"}]}
    spec = {"description": "Two.", "hconcat": [left, right], "datasets": datasets, "width": 9}
    folder = build_pages(book({**CHART, VEGALITE[1]: spec})).parent
    page = BeautifulSoup((folder / "book" / "one.html").read_text(), "html.parser")
    data, source = page.select("figure#fig-one figcaption p.downloads a")
    table = 'table,n,p,q\nshare,0,0.1,\nshare,1,,\n"a, b",2,,x\n'
    assert (folder / "book" / data["href"]).read_text() == table
    assert (folder / "book" / source["href"]).read_bytes() == (folder.parents[1] / "book" / "one.ipynb").read_bytes()
    assert data["aria-label"] == "Data of Fig. 1, CSV"


def test_the_buttons_open_the_branch_colab_where_the_repository_is_known(book, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    page = BeautifulSoup((build_pages(book()).parent / "book" / "one.html").read_text(), "html.parser")
    links = [a["href"] for a in page.select("a[href*='colab.research']")]
    branch = "https://colab.research.google.com/github/owner/name/blob/colab"
    assert links == [f"{branch}/one.ipynb", f"{branch}/student/one.ipynb"]
    assert page.select("img[src$='logo_colab.png']")


def test_without_an_address_the_notebook_is_offered_as_a_download(book, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    page = BeautifulSoup((build_pages(book()).parent / "book" / "one.html").read_text(), "html.parser")
    assert not page.select("a[href*='colab'], a[href*='github.com']")
    assert page.select_one("a.btn-download-source-button")["href"].endswith("one.ipynb")


@pytest.mark.parametrize("lost", ["description", "picture"])
def test_a_chart_needs_a_text_alternative_and_a_picture(lost, book, capfd):
    chart = {**CHART, VEGALITE[1]: {**SPEC, "description": ""}} if lost == "description" else {VEGALITE[1]: SPEC}
    with pytest.raises(SystemExit, match="the build failed"):
        build_pages(book(chart))
    assert f"a chart without a {lost}" in capfd.readouterr().err


def test_a_missing_reference_fails_the_build(book, capfd):
    with pytest.raises(SystemExit, match="the build failed"):
        build_pages(book(text=TEXT + "\n{prf:ref}`nowhere`\n"))
    assert "nowhere" in capfd.readouterr().err


def test_pages_are_built_again_only_if_something_changed(book):
    folder = book()
    index = build_pages(folder)
    built, before = index.stat().st_mtime_ns, digest(folder)
    (folder / "README.md").write_text("not a part of the pages")
    assert build_pages(folder).stat().st_mtime_ns == built
    sources = ("_config.yml", "book/references.bib", "book/assets/book.css", "book/one.ipynb", "tools/book_vega.py")
    for name in (*sources, "book/page.md"):
        with (folder / name).open("a") as file:
            file.write("\n")
        assert digest(folder) != before, name
        before = digest(folder)
    assert build_pages(folder).stat().st_mtime_ns > built


def test_pictures_are_packed_without_losing_a_pixel(tmp_path):
    picture = Image.fromarray(np.add.outer(np.arange(200) % 7, np.arange(300) % 5).astype(np.uint8))
    (tmp_path / "_images").mkdir()
    file = tmp_path / "_images" / "digits.png"
    picture.save(file, compress_level=1)
    before = file.stat().st_size
    pack_pictures(tmp_path)
    assert file.stat().st_size < before
    with Image.open(file) as packed:
        assert np.array_equal(np.asarray(packed), np.asarray(picture))
