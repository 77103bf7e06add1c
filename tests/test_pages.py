"""Every page of the built book in headless Chromium, without a network; and its files: links, sizes, downloads.

axe-core looks at one chapter, and with PAGES=all at every page. When pages first showed something is reported at the
end. Without a browser the pages are left out, and pytest says so; under CI=true their absence fails.
"""

import ast
import os
from functools import cache
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from browser import NAMES, find, launched, served, settle
from build import ROOT, build_pages
from execute import files_in, read_notebook
from pagechecks import (
    DESK,
    PAINT,
    accessible,
    answering,
    copied,
    cost,
    described,
    narrow,
    opened,
    printed,
    standing,
    themed,
    unscripted,
    watched,
)
from stamps import code_cells

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CONTENTS = files_in(TOC)
CHAPTERS = [name for name in CONTENTS if (ROOT / f"{name}.ipynb").exists()]
PAGES = [*CONTENTS, "genindex", "search"]
JUDGED = PAGES if os.environ.get("PAGES") == "all" else ["book/lab"]  # by axe-core
CHECKS = [standing, themed, printed, opened, described, answering, narrow]  # narrow: with everything opened
BYTES = 500_000  # of a page's own data: what it loads beside what all pages share
TRANSFER = 4_000_000  # of a page and all that it loads, uncompressed
UNSEEN = {"remove-cell", "remove-input"}


@pytest.fixture(scope="module")
def site():
    """The folder of the built pages, built if anything has changed."""
    return build_pages().parent


def require(browser):
    """Leave out what needs a browser where there is none; under CI fail."""
    if browser is None:
        missing = f"the pages were not opened: no browser here (any of {', '.join(NAMES)})"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)


@pytest.fixture(scope="module")
def chromium():
    require(find())
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def bases(site):
    with served(site) as address:
        yield {"file": site.as_uri(), "http": address}


@pytest.fixture
def context(chromium):
    with chromium.new_context(viewport=DESK, color_scheme="light") as fresh:
        yield fresh


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["file", "http"])
def test_page_comes_up_and_answers(name, scheme, site, bases, context, record_property):
    page, faults = watched(context, bases[scheme])
    page.goto(f"{bases[scheme]}/{name}.html")
    settle(page)
    for check in CHECKS if scheme == "file" else [standing]:
        faults += check(page)
    if scheme == "http":
        size, paint = cost(page)
        record_property(PAINT, paint)
        faults += [f"with all that it loads {size} bytes; allowed are {TRANSFER}"] if size > TRANSFER else []
        faults += uncopied(page, name)
    assert not faults, "\n".join([f"{name} ({scheme}):", *faults])


def uncopied(page, name):
    """Press every copy button: it must give a chapter's cell as it is, and an example without prompts and outputs."""
    if name not in CHAPTERS:
        texts = copied(page, ".highlight-python, .highlight:has(.gp)")
        missing = ["no example has a copy button"] if name.startswith("book/api-") and not texts else []
        return missing + [f"copied, this is no code: {text[:80]!r}" for text in texts if not parses(text)]
    cells = code_cells(read_notebook(ROOT / f"{name}.ipynb"))
    shown = [cell.source for cell in cells if not UNSEEN & set(cell.metadata.get("tags", []))]
    texts = copied(page, ".cell_input")
    wrong = [f"copied {new[:80]!r}, not {old[:80]!r}" for old, new in zip(shown, texts, strict=False) if old != new]
    return wrong + ([f"{len(texts)} buttons copy {len(shown)} cells"] if len(texts) != len(shown) else [])


def parses(text):
    """Whether it is Python: a prompt or a traceback that is left is not."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize("name", JUDGED)
def test_page_is_accessible(name, bases, context):
    page, _ = watched(context, bases["file"])
    page.goto(f"{bases['file']}/{name}.html")
    settle(page)
    faults = [*opened(page), *accessible(page)]
    assert not faults, "\n".join([f"{name}:", *faults])


@pytest.mark.parametrize("name", CHAPTERS)
def test_page_without_scripts_shows_the_stored_pictures(name, site, chromium):
    with chromium.new_context(java_script_enabled=False) as context:
        assert unscripted(context, f"{site.as_uri()}/{name}.html") == []


def test_first_page_leads_into_the_book(site, bases, context):
    page, faults = watched(context, bases["file"])
    page.goto(f"{bases['file']}/index.html")
    page.wait_for_url(f"**/{CHAPTERS[0]}.html")
    assert not faults


def test_search_finds(site, bases, context):
    page, faults = watched(context, bases["file"])
    page.goto(f"{bases['file']}/search.html?q=generation")
    page.wait_for_selector("ul.search li a")
    assert not faults


def test_without_a_browser_the_pages_are_left_out_but_not_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="the pages were not opened"):
        require(None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="the pages were not opened"):
        require(None)


# The files


@cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")


def html_files(site):
    return [path for path in site.rglob("*.html") if "_static" not in path.parts]


def broken_links(site):
    """Lines 'page: address' for each address in a page to which nothing in the site answers."""
    pages = {path: parsed(path) for path in html_files(site)}
    names = {
        path: {e[k] for k in ("id", "name") for e in soup.find_all(attrs={k: True})} for path, soup in pages.items()
    }
    broken = []
    for path, soup in pages.items():
        for element in soup.find_all(["a", "link", "script", "img", "source"]):
            address, fragment = urldefrag(element.get("href") or element.get("src") or "")
            if urlsplit(address).scheme or (not address and fragment in ("", "top")):
                continue  # another site (or data within the address); the page itself
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            if not target.exists() or (fragment and target in names and unquote(fragment) not in names[target]):
                broken.append(f"{path.relative_to(site)}: {address}#{fragment}".rstrip("#"))
    return broken


def own_bytes(path):
    """Bytes of a page and of the pictures that it loads (with scripts: not those that stand in for charts)."""
    pictures = {i["src"] for i in parsed(path).find_all("img", src=True) if not i.find_parent("noscript")}
    local = [path.parent / src for src in pictures if not urlsplit(src).scheme and "_static" not in src]
    return sum(file.stat().st_size for file in [path, *local])


def test_no_link_within_the_book_is_broken(site):
    assert broken_links(site) == []


@pytest.mark.parametrize("name", CONTENTS)
def test_page_is_light(name, site):
    assert own_bytes(site / f"{name}.html") <= BYTES


@pytest.mark.parametrize("name", [name for name in CHAPTERS if (ROOT / f"{name}.ipynb").exists()])
def test_page_offers_the_executed_notebook(name, site):
    (link,) = parsed(site / f"{name}.html").select("a.btn-download-source-button")
    offered = (site / f"{name}.html").parent / link["href"]
    assert offered.read_bytes() == (ROOT / f"{name}.ipynb").read_bytes()


# The checks bite: one fault at a time in a small page that is otherwise good


CHART = """<div class="chart"><script type="application/json">{
"width": "container", "height": 120, "description": "Two points.", "mark": "point",
"data": {"values": [{"x": 1, "y": 1}, {"x": 2, "y": 3}]},
"params": [{"name": "dot", "value": 10, "bind": {"input": "range", "min": 10, "max": 90}}],
"encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"},
"size": {"value": {"expr": "dot"}}}}</script>
<noscript><img alt="Two points." src="_static/logo.svg"></noscript></div>"""
GOOD = f"""<!DOCTYPE html><html lang="en" data-theme="light"><meta charset="utf-8"><title>A page</title>
<link rel="stylesheet" href="_static/book.css">
<script>matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
  (e) => {{ document.documentElement.dataset.theme = e.matches ? "dark" : "light"; }});</script>
<script defer src="_static/vega.js"></script><script defer src="_static/charts.js"></script>
<script defer src="_static/pages.js"></script>
<style>body {{ margin: 0; background: var(--pst-color-background, white); color: var(--pst-color-text-base, black) }}
a {{ color: inherit }}</style><body><article class="bd-article">
<p id="here">Text and <a href="#here">a link</a>.</p>{CHART}
<details><summary>More</summary>{CHART}</details></article></body></html>"""
WIDE = '<div style="width: 900px">wide</div>'


def opened_narrow(page):
    return opened(page) + narrow(page)


END = "</article>"
FAULTS = {  # what is changed in the good page, into what, the check that must find it, and its words
    "another site": (END, f'<img src="https://example.org/x.png">{END}', standing, "a request to https://example.org"),
    "console": (END, f"<script>console.error('oops')</script>{END}", standing, "console: oops"),
    "exception": (END, f"<script>null.x</script>{END}", standing, "script: "),
    "broken image": (END, f'<img src="nothing.png">{END}', standing, "broken image"),
    "undrawn chart": ('"mark": "point"', '"mark": "nonsense"', standing, "chart 1 is not drawn"),
    "empty chart": ('{"x": 1, "y": 1}, {"x": 2, "y": 3}', "", standing, "chart 1 is empty"),
    "cut off": ('"field": "x"', f'"title": "{"long" * 99}", "field": "x"', standing, "cut off at the edge"),
    "no alternative": ('"description": "Two points.",', "", standing, "chart 1 has no text alternative"),
    "formula": (END, f'<span class="math">\\(x\\)</span>{END}', standing, "1 formulas are not drawn"),
    "raw source": ("Text", "Text {ref}`fig-1`", standing, "raw source in the text"),
    "wide": (END, WIDE + END, narrow, "scrolls sideways at 360 pixels"),
    "wide inside": ("</summary>", f"</summary>{WIDE}", opened_narrow, "scrolls sideways at 360 pixels"),
    "unreadable": (END, f"<style>.chart svg text {{fill: #999 !important}}</style>{END}", themed, "hardly readable"),
    "dark on dark": ("_static/book.css", "_static/narrow.css", themed, "charts look the same in light and dark"),
    "dead slider": ('"size": {"value": {"expr": "dot"}}', '"size": {"value": 30}', answering, "changes nothing"),
    "hidden chart": ('<div class="chart">', '<div class="chart" aria-hidden="true">', described, "is 0 images"),
    "mute chart": ("Two points.", "Chart", described, "not one with a description"),
    "no keyboard": ('<div class="chart">', '<div class="chart" inert>', described, "the keyboard does not reach"),
    "no name": (END, f"<button></button>{END}", accessible, "light: critical: Buttons must have discernible text"),
    "pale": (END, f'<p style="color: #999; background: #eee">pale</p>{END}', accessible, "light: serious: Elements"),
    "pale in dark": (END, f'<p style="color: #222">dim</p>{END}', accessible, "dark: serious: Elements must meet"),
    "out of reach": (
        END,
        f'<p style="overflow: auto; white-space: nowrap">{"wide " * 99}</p>{END}',
        accessible,
        "phone: serious: Scrollable",
    ),
    "prints dark": ("_static/pages.js", "_static/charts.js", printed, "prints dark"),
}


@pytest.fixture
def small(site, tmp_path):
    """Write a page that has the site's styles and scripts, and return its address."""
    (tmp_path / "_static").symlink_to(site / "_static")

    def write(html):
        (tmp_path / "index.html").write_text(html, encoding="utf8")
        return tmp_path

    return write


def faults_of(context, folder, *checks):
    page, faults = watched(context, folder.parent.as_uri())
    page.goto((folder / "index.html").as_uri())
    settle(page, seconds=1)
    for check in checks:
        faults += check(page)
    return faults


def test_a_good_page_has_no_fault(context, small):
    folder = small(GOOD)
    assert faults_of(context, folder, *CHECKS, accessible) == []
    assert broken_links(folder) == []


def test_pointing_at_a_mark_shows_its_numbers(context, small):
    page = context.new_page()
    page.goto(
        (small(GOOD.replace('"mark": "point"', '"mark": {"type": "point", "tooltip": true}')) / "index.html").as_uri()
    )
    settle(page)
    page.locator(".chart .mark-symbol path").first.hover()
    assert page.locator("#vg-tooltip-element.book-theme").inner_text().split() == ["x", "1", "y", "1"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, context, small):
    old, new, check, complaint = FAULTS[fault]
    assert old in GOOD
    faults = faults_of(context, small(GOOD.replace(old, new)), check)
    assert any(complaint in line for line in faults), faults


@pytest.mark.parametrize("address", ["missing.html", "#nowhere", "index.html#nowhere", "_static/nothing.js"])
def test_a_broken_link_is_found(address, small):
    folder = small(GOOD.replace("#here", address))
    assert len(broken_links(folder)) == 1


def test_a_heavy_page_is_found(small):
    folder = small(GOOD + '<img src="heavy.svg">')
    (folder / "heavy.svg").write_text("x" * BYTES)
    assert own_bytes(folder / "index.html") > BYTES


def test_a_heavy_transfer_is_found(context, small):
    folder = small(GOOD + '<img src="heavy.svg" alt="">')
    (folder / "heavy.svg").write_text("x" * TRANSFER)
    with served(folder) as address:
        page = context.new_page()
        page.goto(f"{address}/index.html")
        size, paint = cost(page)
    assert size > TRANSFER
    assert paint > 0


EXAMPLE = """<div class="highlight"><pre><span class="gp">&gt;&gt;&gt; </span>def f(x):
<span class="gp">... </span>    return 1 / x
<span class="gt">Traceback (most recent call last):</span>
ZeroDivisionError: division by zero
<span class="gp">&gt;&gt;&gt; </span>f(1)
<span class="go">1.0</span>
</pre></div>"""
SCRIPTS = ("documentation_options", "clipboard.min", "copybutton")
COPYING = "".join(f'<script src="_static/{name}.js"></script>' for name in SCRIPTS)


def test_a_copied_example_has_neither_prompts_nor_outputs(context, small):
    page = context.new_page()
    page.goto((small(GOOD.replace(END, EXAMPLE + END).replace("</html>", f"{COPYING}</html>")) / "index.html").as_uri())
    page.wait_for_selector("button.copybtn", state="attached")
    assert copied(page, ".highlight") == ["def f(x):\n    return 1 / x\nf(1)"]


def test_a_missing_picture_is_found(chromium, small):
    with chromium.new_context(java_script_enabled=False) as context:
        folder = small(GOOD.replace("_static/logo.svg", "nothing.svg"))
        with pytest.raises(Exception, match="decode"):
            unscripted(context, (folder / "index.html").as_uri())
