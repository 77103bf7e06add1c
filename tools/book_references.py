"""Sphinx extension: citations as (author, year), and a list of references in every chapter."""

from dataclasses import dataclass, field
from typing import Any

import pybtex.plugin
import sphinxcontrib.bibtex.plugin
from docutils import nodes
from pybtex.database import Entry
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle


class KeyLabels(BaseLabelStyle):
    """Labels that no two entries of the book share, as every chapter lists its own; the style sheet hides them."""

    def format_labels(self, sorted_entries: list[Entry]) -> list[str]:
        """Return the key of each entry."""
        return [entry.key for entry in sorted_entries]


class Chapter(Style):
    """Lists of references, by author."""

    default_label_style = KeyLabels


def round_brackets() -> BracketStyle:
    """Return the style of brackets that prose has: (author, year)."""
    return BracketStyle(left="(", right=")")


@dataclass
class AuthorYear(AuthorYearReferenceStyle):
    """Citations by author and year in round brackets."""

    bracket_parenthetical: BracketStyle = field(default_factory=round_brackets)
    bracket_textual: BracketStyle = field(default_factory=round_brackets)
    bracket_year: BracketStyle = field(default_factory=round_brackets)


def visit_citation(self: HTML5Translator, node: nodes.citation) -> None:
    """Write a reference as an item of its list: docutils gives it a role that is deprecated, and not allowed there."""
    HTML5Translator.visit_citation(self, node)
    self.body[-1] = self.body[-1].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the styles under the names that _config.yml uses, and how a reference is written."""
    pybtex.plugin.register_plugin("pybtex.style.formatting", "chapter", Chapter)
    sphinxcontrib.bibtex.plugin.register_plugin(
        "sphinxcontrib.bibtex.style.referencing", "author_year_round", AuthorYear
    )
    app.add_node(nodes.citation, override=True, html=(visit_citation, HTML5Translator.depart_citation))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
