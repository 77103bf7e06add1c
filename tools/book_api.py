"""Sphinx extension: the API reference, and the links between its entries, the notation and the chapters.

The role `api` names a function, class or field of the library as `process.Mixture.beta`, with arguments perhaps in
brackets; it fails the build if there is no such thing, and leads to the entry that describes it. Each entry that the
table of notation names gets a line with its symbols, the section of the table, and the statement that uses it first.
"""

import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

LOGGER = logging.getLogger(__name__)
PACKAGE = "model_collapse"
NOTATION = "book/notation.md"
ROLE = re.compile(r"\{api\}`([^`]+)`")
SECTION = re.compile(r"^\(([\w-]+)\)=\n## (.+)", re.M)


class Found(NamedTuple):
    """What a name of the library stands for: the thing itself, and the dotted name of the entry that describes it."""

    thing: Any
    entry: str


def find(name: str) -> Found:
    """Look up a name of the library, given without the package, with arguments perhaps in brackets.

    Raises
    ------
    LookupError
        There is no such name, or it has no such argument.

    Examples
    --------
    >>> find("process.Mixture.beta").entry, find("discrete.survival(n)").entry
    ('model_collapse.process.Mixture', 'model_collapse.discrete.survival')
    >>> find("discrete.survival(speed)")
    Traceback (most recent call last):
    LookupError: discrete.survival has no argument speed
    """
    dotted, _, inside = name.rstrip(")").partition("(")
    module, *parts = dotted.split(".")
    try:
        thing: Any = importlib.import_module(f"{PACKAGE}.{module}")
    except ModuleNotFoundError as error:
        raise LookupError(f"{dotted}: no module {module} in {PACKAGE}") from error
    path = entry = f"{PACKAGE}.{module}"
    for part in parts:
        if is_dataclass(thing) and part in thing.__dataclass_fields__:
            thing = thing.__dataclass_fields__[part]
        elif hasattr(thing, part):
            thing = getattr(thing, part)
        else:
            raise LookupError(f"{dotted}: {path} has no {part}")
        path += f".{part}"
        entry = path if inspect.isclass(thing) or inspect.isfunction(thing) else entry
    for argument in inside.split(", ") if inside else ():
        if argument not in inspect.signature(thing).parameters:
            raise LookupError(f"{dotted} has no argument {argument}")
    return Found(thing, entry)


class Api(SphinxRole):
    """The role `api`: a name of the library, which leads to its entry."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link, or the bare name after a warning."""
        code = nodes.literal(text=self.text, classes=["py"])
        try:
            entry = find(self.text).entry
        except LookupError as error:
            LOGGER.warning("api: %s", error, location=self.get_location())
            return [code], []
        target = {"refdomain": "py", "reftype": "obj", "reftarget": entry, "refdoc": self.env.docname}
        return [addnodes.pending_xref("", code, refexplicit=True, refwarn=True, **target)], []


class Row(NamedTuple):
    """A line of the table of notation: its symbols, the names in code, where it is used first, and its section."""

    symbols: str
    names: list[str]
    place: str
    section: str
    label: str


def rows(text: str) -> Iterator[Row]:
    r"""Yield the lines of the table of notation that name something of the library.

    Examples
    --------
    >>> page = "(notation-a)=\n## Part A\n| $q$ | chance | {api}`discrete.tail_loss(q)` | {prf:ref}`thm-tail` |"
    >>> [(row.symbols, row.names, row.label) for row in rows(page)]
    [('$q$', ['discrete.tail_loss(q)'], 'notation-a')]
    """
    _, *parts = SECTION.split(text)
    for label, section, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        for line in body.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if len(cells) == 4 and (names := ROLE.findall(cells[2])):
                yield Row(cells[0].strip(), names, cells[3], section, label)


def in_rst(text: str) -> str:
    """Translate a cell of the table, in MyST, into the language of docstrings.

    Examples
    --------
    >>> in_rst("$q$ in {prf:ref}`thm-tail`, [Mixtures](gmm.ipynb)")
    ':math:`q` in :prf:ref:`thm-tail`, :doc:`Mixtures </book/gmm>`'
    """
    text = re.sub(r"\$([^$]+)\$", r":math:`\1`", text)
    text = re.sub(r"\{([\w:]+)\}`", r":\1:`", text)
    return re.sub(r"\[([^\]]+)\]\(([\w-]+)\.\w+\)", r":doc:`\1 </book/\2>`", text)


def read_notation(app: Sphinx) -> None:
    """Sort the lines of the table of notation by the entries that they name."""
    page, found = Path(app.srcdir) / NOTATION, defaultdict(list)
    for row in rows(page.read_text(encoding="utf8")) if page.exists() else ():
        with suppress(LookupError):  # the role says where
            for entry in dict.fromkeys(find(name).entry for name in row.names):
                found[entry].append(row)
    app.config.book_notation = dict(found)


def add_notation(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Say below an entry which symbols stand for it, and where."""
    symbols = defaultdict(list)
    for row in app.config.book_notation.get(name, ()):
        symbols[row.place, f":ref:`{row.section} <{row.label}>`"].append(in_rst(row.symbols))
    for (place, section), together in symbols.items():
        lines += ["", f"Notation: {', '.join(together)} ({section}), first used in {in_rst(place)}.", ""]


def skip_fields(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples: the section 'Attributes' describes them, their own docstring does not."""
    return True if (thing.__doc__ or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_role("api", Api())
    app.add_config_value("book_notation", {}, "")
    app.connect("builder-inited", read_notation)
    app.connect("autodoc-process-docstring", add_notation, priority=900)  # after the sections have been translated
    app.connect("autodoc-skip-member", skip_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
