"""Sphinx extension: what the chapters store beside text, as the pages show it, without a network.

- A chart (Vega-Lite JSON beside an SVG and a text alternative) becomes a `chart` node: on a page its specification,
  which `charts.js` draws with Vega from the build, and the stored SVG as a file of its own that only readers without
  JavaScript load (inline it would weigh six to thirteen times the specification). Other builders show the SVG.
  Below its caption stand links: to its data, written beside the pages as a CSV file, and to the executed notebook.
- A claim is data for the ledger; the readable table stored beside it is shown, marked for the style sheet.
- Boxes lose the ids that sphinx-proof and sphinx-exercise give to each of them alike; a proof opens in italics.
"""

import csv
import io
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import vl_convert
from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer, load_mime_renders
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from model_collapse.results import MIME as CLAIM

LOGGER = logging.getLogger(__name__)
VEGALITE = [f"application/vnd.vegalite.v{version}+json" for version in (5, 6)]  # of altair 5 and 6
REPEATED = {"proof", "proof-content", "exercise-content", "solution-content"}  # ids given to each box alike
SCRIPT = "vega.js"
DATA = "data"  # the folder of the built pages that holds the data of charts


class chart(nodes.General, nodes.Element):  # noqa: N801  docutils names its nodes so
    """A chart: attribute ``spec`` is its Vega-Lite specification; a child, if any, the picture to show instead."""


class downloads(nodes.General, nodes.Element):  # noqa: N801
    """Links to what is behind a chart: attribute ``spec`` is its specification; the parent is its figure."""


class claim(nodes.Invisible, nodes.Element):  # noqa: N801
    """The mark, in a stored output, that the table beside it is one of claims."""


class Outputs:
    """The plugin that gives myst-nb nodes for charts and claims."""

    mime_priority_overrides: ClassVar = [*(("html", mime, 1) for mime in VEGALITE), ("latex", "image/svg+xml", 1)]

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """Return the nodes of a chart or a claim, and None for everything else."""
        if data.mime_type == CLAIM:
            return [claim()]
        if inline or data.mime_type not in VEGALITE:
            return None
        return [chart(spec=data.content)]


class Bundles(SphinxPostTransform):
    """Put the picture and the text alternative of an output beside its chart, and mark its table of claims.

    Runs before myst-nb keeps the one form of each output that the page shows, and drops the others.
    """

    default_priority = 3
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Look at each stored output that comes in several forms."""
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            for node in list(bundle.findall(chart)):
                self.complete(node, next(bundle.findall(nodes.image), None))
            if next(bundle.findall(claim), None):
                for table in bundle.findall(nodes.table):
                    table["classes"].append("claims")

    def complete(self, node: chart, picture: nodes.image | None) -> None:
        """Move the picture into the chart, described; warn of what is missing (a warning fails the build)."""
        description = node["spec"].get("description")
        if not description or picture is None:
            LOGGER.warning("a chart without a %s", "picture" if description else "description", location=node)
            return
        picture["alt"] = description
        node += picture.deepcopy()
        figure = next((above for above in ancestors(node) if isinstance(above, nodes.figure)), None)
        if figure is not None and figure["ids"]:
            figure += downloads(spec=node["spec"])


class Proofs(SphinxPostTransform):
    """Mend what sphinx-proof and sphinx-exercise leave: ids that repeat within a page, 'Proof.' in plain type."""

    default_priority = 5
    formats = ("html", "latex")

    def run(self, **_: Any) -> None:
        """Look at each theorem's and each proof's content."""
        for node in self.document.findall(nodes.Element):
            node["ids"] = [name for name in node["ids"] if name not in REPEATED]
            if isinstance(node, nodes.admonition) and node["classes"][:2] == ["proof", "proof"]:
                first = next(node.findall(nodes.Text))
                first.parent.replace(first, [nodes.emphasis(text="Proof."), nodes.Text(first.removeprefix("Proof."))])
                node["classes"].append("ends-proof")


def ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the nodes that a node lies in, from within."""
    while node.parent is not None:
        node = node.parent
        yield node


def tables(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables that a chart draws, each with the title of the vertical axis above which it stands first.

    Examples
    --------
    >>> tables({"data": {"name": "d"}, "encoding": {"y": {"title": "left"}}, "datasets": {"d": [{"n": 0}]}})
    {'left': [{'n': 0}]}
    """
    found: dict[str, list[dict[str, Any]]] = {}
    seen = set()
    for node in parts(spec):
        data = node.get("data") or {}
        rows = spec.get("datasets", {}).get(data.get("name"), data.get("values"))
        if rows and json.dumps(rows) not in seen:
            seen.add(json.dumps(rows))
            title = next((t for part in parts(node) if (t := axis_title(part))), "")
            found[title if title and title not in found else f"{title} (table {len(found) + 1})".strip()] = rows
    return found


def parts(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a specification and those inside it, data left out."""
    if isinstance(node, list):
        yield from (part for item in node for part in parts(item))
    if isinstance(node, dict):
        yield node
        yield from (part for key, item in node.items() if key not in ("data", "datasets") for part in parts(item))


def axis_title(node: dict[str, Any]) -> str:
    """Return the title of the vertical axis that a specification sets itself, '' where it sets none."""
    y = node.get("encoding", {}).get("y", {}) if isinstance(node.get("encoding"), dict) else {}
    title = y.get("title", "") if isinstance(y, dict) else ""
    return title if isinstance(title, str) else ""


def as_csv(spec: dict[str, Any]) -> str:
    """Write a chart's data as CSV; the first column, `table`, tells several tables apart.

    Examples
    --------
    >>> print(as_csv({"data": {"values": [{"n": 0, "p": 0.5}, {"n": 1, "p": None}]}}), end="")
    n,p
    0,0.5
    1,
    """
    found = tables(spec)
    lead = ["table"] if len(found) > 1 else []
    names = list(dict.fromkeys(name for rows in found.values() for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(lead + names)
    for title, rows in found.items():
        writer.writerows([title][: len(lead)] + [row.get(name) for name in names] for row in rows)
    return text.getvalue()


def visit_downloads(self: HTML5Translator, node: downloads) -> None:
    """Write the data beside the pages, and the links below the caption."""
    (name, *_), docname = node.parent["ids"], self.builder.current_docname
    folder = Path(self.builder.outdir) / DATA
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.csv").write_text(as_csv(node["spec"]), encoding="utf8")
    number = ".".join(map(str, self.builder.fignumbers.get("figure", {}).get(name, ())))
    up, of = "../" * docname.count("/"), escape(f"of Fig. {number}" if number else f"of {name}")
    source = Path(self.builder.env.doc2path(docname)).suffix
    self.body.append(
        f'<p class="downloads"><a href="{up}{DATA}/{name}.csv" download aria-label="Data {of}, CSV">Data (CSV)</a> '
        f'<a href="{up}_sources/{docname}{source}" download aria-label="Notebook {of}">Notebook</a></p>\n'
    )
    raise nodes.SkipNode


def visit_chart(self: HTML5Translator, node: chart) -> None:
    """Write the specification, and open what stands in for the chart where nothing can draw it."""
    spec = json.dumps(node["spec"], separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    height = node["spec"].get("height")
    room = f' style="min-height: {height}px"' if isinstance(height, int | float) else ""  # so that the page stays put
    self.body.append(f'<div class="chart"{room}>\n<script type="application/json">{spec}</script>\n<noscript>')


def depart_chart(self: HTML5Translator, node: chart) -> None:
    """Close the chart."""
    self.body.append("</noscript>\n</div>\n")


def skip(self: HTML5Translator, node: claim) -> None:
    """Write nothing."""
    raise nodes.SkipNode


def stage_vega(app: Sphinx) -> None:
    """Write Vega, Vega-Lite and vega-embed as one script among the static files of the build."""
    folder = Path(app.doctreedir).parent / "static-vega"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPT).write_text(f"(() => {{{vl_convert.javascript_bundle()}}})();\n", encoding="utf8")
    app.config.html_static_path.append(str(folder))


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document) -> None:
    """Load Vega on the pages that have a chart."""
    if doctree and next(doctree.findall(chart), None):
        for name in (SCRIPT, "charts.js"):
            app.add_js_file(name, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    if Outputs not in load_mime_renders():  # a list that myst-nb caches; its other way in is an installed package
        load_mime_renders().append(Outputs)
    app.add_node(chart, html=(visit_chart, depart_chart))
    app.add_node(claim, html=(skip, None))
    app.add_node(downloads, html=(visit_downloads, None))
    app.add_post_transform(Bundles)
    app.add_post_transform(Proofs)
    app.connect("builder-inited", stage_vega)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
