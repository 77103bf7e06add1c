"""Sphinx extension: the book on paper. What a page scrolls, folds or draws with a script, LaTeX gets in another form.

- A chart is its stored SVG, turned into a PDF of vectors by vl-convert; code that a page folds is left out.
- Tables are as wide as what they hold, wrapped where the page is too narrow (latex_tables.py); so are data frames,
  which notebooks store as HTML.
- Works cited stay at the end of their chapter; a proof stands without a box and ends in a square.
- Parts and the numbers of chapters are those of the pages: only a part that `_toc.yml` numbers is numbered.
"""

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.transforms.post_transforms.images import ImageConverter
from sphinx_exercise.nodes import is_exercise_enumerable_node, solution_node

from book_vega import ancestors
from latex_tables import colspec, data_frame, fits, is_long

FONT = "Liberation Sans"  # vl-convert carries it; the pages' list of fonts would depend on the machine
ENTRIES = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.M)  # of a dictionary, which come in another order each time
HANGING = r"\hangindent=1.5em\hangafter=1\noindent "
SQUARE = r"\unskip\hspace*{\fill}\ensuremath{\square}"
WIDTH = "82%"  # of a chart, of the text's; whole ones leave more of a page empty above them
FIRST = "Introduction"  # the first page's title is the book's


class Edition(NamedTuple):
    """What the title page says of an edition: the book's version, the commit, and its time in seconds since 1970."""

    version: str
    commit: str
    time: int


def edition(root: Path) -> Edition:
    """Return which edition this is; without git the time is that of the last release."""
    about = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf8"))
    released = datetime.combine(about["date-released"], datetime.min.time(), UTC)
    commit = git(root, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10")
    return Edition(about["version"], commit, int(git(root, "log", "-1", "--format=%ct") or released.timestamp()))


def git(root: Path, *words: str) -> str:
    """Return what git says of a repository, '' where it is none."""
    try:
        run = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return run.stdout.strip()


def add_edition(app: Sphinx) -> None:
    """Put the version, the commit and its date on the title page."""
    if app.builder.format == "latex":
        version, commit, time = edition(Path(app.srcdir))
        day = f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"
        app.builder.context |= {"release": version, "date": f"Commit {commit}, {day}" if commit else day}


def raw(tex: str) -> nodes.raw:
    """Return LaTeX as a node."""
    return nodes.raw("", tex, format="latex")


class Vectors(ImageConverter):
    """Turn SVG pictures into PDF."""

    conversion_rules = [("image/svg+xml", "application/pdf")]  # noqa: RUF012  as Sphinx declares it

    def is_available(self) -> bool:
        """Say that the converter is there: it is a package of the lock."""
        return True

    def convert(self, _from: str, _to: str) -> bool:
        """Draw the picture anew, the same bytes each time, and say that it was done."""
        svg = re.sub(r'font-family="[^"]*"', f'font-family="{FONT}"', Path(_from).read_text(encoding="utf8"))
        drawn = vl_convert.svg_to_pdf(svg)
        Path(_to).write_bytes(ENTRIES.sub(lambda found: b"".join(sorted(found[0].splitlines(True))), drawn))
        return True


class Outputs(SphinxPostTransform):
    """Leave out code that pages fold, and make tables of data frames; before myst-nb drops their HTML."""

    default_priority = 3
    formats = ("latex",)

    def run(self, **_: Any) -> None:
        """Look at each cell, and at each output that comes in several forms."""
        for node in list(self.document.findall(nodes.container)):
            if node.get("nb_element") == "cell_code_source" and node.parent.get("hide_mode"):
                node.parent.remove(node)
            if node.get("nb_element") == "mime_bundle":
                html = "".join(found.astext() for found in node.findall(nodes.raw) if found["format"] == "html")
                if table := BeautifulSoup(html, "html.parser").table:
                    node.replace_self(data_frame(table))


class Layout(SphinxPostTransform):
    """Set boxes, tables and lists of references as a book has them; before Sphinx gathers all works cited."""

    default_priority = 700
    formats = ("latex",)

    def run(self, **_: Any) -> None:
        """Look at each of them."""
        for node in list(self.document.findall(nodes.Admonition)):
            self.box(node)
        for number in list(self.document.findall(addnodes.number_reference)):
            place = {key: number[key] for key in ("refid", "refuri") if key in number}
            label = "".join(place.values()).rpartition("#")[2]
            if label in self.env.sphinx_exercise_registry:  # LaTeX does not count exercises; Sphinx has
                put(number, [nodes.reference("", "", *number.children, internal=True, **place)])
        for table in list(self.document.findall(nodes.table)):
            self.table(table)
        for figure in self.document.findall(nodes.figure):
            for picture in figure.findall(nodes.image):
                picture["width"] = WIDTH
        for citation in list(self.document.findall(nodes.citation)):
            _, *rest = citation.children
            text = [child for part in rest for child in part.children]
            target = rf"\hypertarget{{cite.{citation['docname']}:{citation['ids'][0]}}}{{}}"  # where citations lead
            put(citation, [nodes.paragraph("", "", raw(target + HANGING), *text)])

    def box(self, node: nodes.Element) -> None:
        """Give an exercise the target of its links; take proofs and solutions out of boxes, which break badly."""
        if is_exercise_enumerable_node(node):
            place = f"{self.env.sphinx_exercise_registry[node['label']]['docname']}:{node['label']}"
            put(node, [raw(rf"\phantomsection\label{{\detokenize{{{place}}}}}"), node])
        elif "realtype" in node:  # a theorem, which sphinx-proof labels without a place to jump to
            put(node, [raw(r"\phantomsection"), node])
        elif isinstance(node, solution_node):
            title, *parts = contents(node)
            put(node, [nodes.rubric("", "", *title.children), *parts])
        elif node["classes"][:2] == ["proof", "proof"]:
            parts = contents(node)
            if not isinstance(parts[-1], nodes.paragraph):
                parts.append(nodes.paragraph("", "", raw(r"\leavevmode")))
            parts[-1] += raw(SQUARE)
            put(node, parts)

    def table(self, table: nodes.table) -> None:
        """Say how wide the columns are, and whether the table breaks over pages."""
        boxed = any(isinstance(above, nodes.Admonition) for above in ancestors(table))
        table["classes"] = [name for name in table["classes"] if not name.startswith("colwidths")]
        table["classes"] += ["longtable"] * (is_long(table) and not boxed)
        new: list[nodes.Node] = [addnodes.tabular_col_spec(spec=colspec(table)), table]
        put(table, new if fits(table) else [raw(r"\begingroup\smalltables"), *new, raw(r"\endgroup")])


def put(node: nodes.Node, new: list[nodes.Node]) -> None:
    """Put nodes in the place of one (docutils' own way would hand its classes to the first of them)."""
    place = node.parent.index(node)
    node.parent[place : place + 1] = new


def contents(node: nodes.Element) -> list[nodes.Node]:
    """Return what a box holds, without the sections and containers that only hold others."""
    return [
        part for child in node.children for part in (child.children if isinstance(child, nodes.section) else [child])
    ]


def arrange(app: Sphinx, doctree: nodes.document) -> None:
    """Make the first page a chapter like the others, and put the parts of the contents after it."""
    if app.builder.format != "latex" or app.env.docname != app.config.root_doc:
        return
    first = next(doctree.findall(nodes.section))
    first["docname"] = app.env.docname  # by which sphinx-proof labels its boxes
    book = nodes.section("", nodes.title(text=app.config.project), first.deepcopy())
    first.replace_self(book)
    title = next(book[1].findall(nodes.title))
    title.replace_self(nodes.title(text=FIRST))
    for toctree in list(book.findall(addnodes.toctree)):
        wrapper = toctree.parent
        wrapper.parent.remove(wrapper)
        depth = 1 if toctree.get("numbered") else -1  # with -1 LaTeX numbers no chapter, and counts none
        name = toctree.attributes.pop("caption", None)  # Sphinx would make it the title of the table of contents
        book += raw((rf"\part{{{name}}}" if name else "") + rf"\setcounter{{secnumdepth}}{{{depth}}}")
        book += wrapper
    book.insert(1, raw(r"\setcounter{secnumdepth}{-1}"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    for transform in (Vectors, Outputs, Layout):
        app.add_post_transform(transform)
    app.connect("builder-inited", add_edition)
    app.connect("doctree-read", arrange, priority=950)  # after chapters and figures have their numbers
    return {"parallel_read_safe": True, "parallel_write_safe": True}
