"""Chapters' Markdown as every notebook viewer understands it: no directive and no role is left.

Numbers, titles and citations are those of the built pages, which are read for them: nothing is counted twice.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bs4 import BeautifulSoup, NavigableString, PageElement, Tag

OPEN = re.compile(r"(`{3,}|:{3,})(?:\{([\w:-]+)\} *(.*)|[\w-]*)")  # of a directive, or of a listing in the text
TARGET = re.compile(r"\(([\w-]+)\)=")
ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`|(`+)(?!`).+?(?<!`)\3(?!`)", re.S)  # or code, which is passed over
CITATION = re.compile(r"\{(cite(?::[tp])?)\}`([^`]+)`")
FORMULA = re.compile(r"\$\$(.+?)\$\$(?: *\(([\w-]+)\))?", re.S)
CHAPTER = re.compile(r"\[([^\[\]]*)\]\(([\w-]+)\.(ipynb|md)\)")
ADMONITIONS = {"admonition", "note", "tip", "hint", "important", "warning"}
CELL, SOLUTION = "\f", "\fsolution"  # lines at which a new cell begins


class Label(NamedTuple):
    """What can be referred to: its page, its text ('Theorem 2.3') and its anchor there."""

    page: str
    text: str
    anchor: str


class Pages:
    """What the built pages say.

    Parameters
    ----------
    folder
        Of the built pages, one file NAME.html for each name.
    names
        Of the chapters.
    address
        Where the book is read, to which links lead; None where that is not known.
    """

    def __init__(self, folder: Path, names: list[str], address: str | None) -> None:
        self.address = address
        self.articles = {name: article(folder / f"{name}.html") for name in names}
        self.labels = {name: label for page, soup in self.articles.items() for name, label in labels(page, soup)}

    def chapter(self, name: str, sources: list[str]) -> "Chapter":
        """Return what turns this chapter's text into plain Markdown; `sources` are its Markdown cells."""
        spans = self.articles[name].select("span.bibtex-citation")
        keys = {entry["id"]: entry_key(entry) for entry in self.entries(name)}
        roles = [(m[1], m[2]) for source in sources for m in CITATION.finditer(source)]
        cited = {}
        for role, span in zip(roles, spans, strict=True):
            if {keys[a["href"].removeprefix("#")] for a in span.select("a")} != set(re.split(r" *, *", role[1])):
                raise ValueError(f"{name}: the page cites {span.text!r} where the text has {role[1]}; build it anew")
            cited[role] = inline(span, keys)
        return Chapter(name, self, cited)

    def entries(self, name: str) -> list[Tag]:
        """Return the works in a page's list of references."""
        return self.articles[name].select("div.citation")


def article(path: Path) -> BeautifulSoup:
    """Read a built page."""
    return BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")


def labels(page: str, soup: BeautifulSoup) -> Iterator[tuple[str, Label]]:
    """Yield what a page numbers, and its sections that have a name, by their names in the text."""
    for element in soup.select("article div[id], article figure[id], article span[id^='sec-']"):
        anchor = element["id"]
        title = element.find_next_sibling() if element.name == "span" else element.select_one(".caption-number, .eqno")
        if title:
            yield anchor.removeprefix("equation-"), Label(page, title.text.strip().rstrip("#"), anchor)


def entry_key(entry: Tag) -> str:
    """Return the key of a work in a list of references."""
    return entry.select_one("span.label").text.strip("[]")


def inline(element: PageElement, keys: dict[str, str]) -> str:
    """Write a part of a page as Markdown: text, emphasis and links, those to works by their keys."""
    if isinstance(element, NavigableString):
        return re.sub(r"([*_$\\<])", r"\\\1", str(element))
    inner = "".join(inline(child, keys) for child in element.children)
    if element.name == "a":
        href = element["href"]
        return f"[{inner}](#{keys[href[1:]]})" if href.startswith("#") else f"[{inner}]({href})"
    marks = {"em": "*", "strong": "**"}.get(element.name, "")
    return f"{marks}{inner}{marks}"


class Chapter:
    """One chapter's way to plain Markdown.

    Parameters
    ----------
    name
        The chapter.
    pages
        What the built pages say.
    cited
        The text of each citation, by role and keys.
    """

    def __init__(self, name: str, pages: Pages, cited: dict[tuple[str, str], str]) -> None:
        self.name, self.pages, self.cited = name, pages, cited

    def plain(self, source: str) -> str:
        """Return a cell's text as plain Markdown, with a line `CELL` or `SOLUTION` where a new cell begins.

        Raises
        ------
        ValueError
            A directive or a role that is not known here, or a label that the pages do not have.
        """
        text = "\n".join(self.blocks(source.splitlines()))
        text = ROLE.sub(self.role, FORMULA.sub(self.formula, text))
        return CHAPTER.sub(lambda m: self.link(*m.groups()), text)

    def blocks(self, lines: list[str]) -> Iterator[str]:
        """Yield the lines of a text, with every directive resolved."""
        rest = iter(enumerate(lines))
        for number, line in rest:
            if target := TARGET.fullmatch(line):
                yield anchor(target[1])
            elif not (opened := OPEN.fullmatch(line)):
                yield line
            else:
                end = lines.index(opened[1], number + 1)
                body = lines[number + 1 : end]
                yield from self.directive(opened[2], opened[3], body) if opened[2] else lines[number : end + 1]
                for _ in body:
                    next(rest)
                next(rest)

    def directive(self, name: str, title: str, body: list[str]) -> Iterator[str]:
        """Yield what a directive becomes."""
        options: dict[str, str] = {}
        while body and (option := re.fullmatch(r":(\w+): *(.*)", body[0])):
            options[option[1]], body = option[2], body[1:]
        if name == "prf:proof":
            yield from ("*Proof.* " + "\n".join(self.blocks(body)).strip(), "", "∎")
        elif name.startswith("prf:"):
            yield from boxed(self.heading(options["label"], title, "**{}**"), self.blocks(body))
        elif name in ADMONITIONS:
            yield from boxed(f"**{title or name.capitalize()}**", self.blocks(body))
        elif name == "exercise-start":
            yield from (CELL, self.heading(options["label"], title, "### {}"), "", *self.blocks(body))
        elif name == "solution-start":
            yield from (SOLUTION, f"#### Solution of {self.label(title).text}", SOLUTION, *self.blocks(body))
        elif name in ("exercise-end", "solution-end"):
            yield from [CELL] if name == "solution-end" else []
        elif name == "bibliography":
            yield from self.bibliography()
        else:
            raise ValueError(f"{self.name}: the directive {name!r} has no plain form; give it one in {__name__}.py")

    def heading(self, label: str, title: str, form: str) -> str:
        """Return the number and the title of a box."""
        text = self.label(label).text + (f" ({title})" if title else "")
        return form.format(anchor(label) + text)

    def bibliography(self) -> Iterator[str]:
        """Yield the chapter's list of references."""
        for entry in self.pages.entries(self.name):
            yield f"- {anchor(entry_key(entry))}{inline(entry.p, {})}"

    def formula(self, match: re.Match[str]) -> str:
        """Give a formula that has a label its number."""
        if match[2] not in self.pages.labels:
            return match[0]
        return f"{anchor(match[2])}\n$${match[1].rstrip()} \\tag{{{self.label(match[2]).text.strip('()')}}}\n$$"

    def role(self, match: re.Match[str]) -> str:
        """Return the text and the link that a role stands for; code as it is."""
        name, content = match[1], match[2]
        if name is None:
            return match[0]
        if name in ("cite", "cite:t", "cite:p"):
            return self.cited[name, content]
        if name not in ("prf:ref", "ref", "numref", "eq"):
            raise ValueError(f"{self.name}: the role {name!r} has no plain form; give it one in {__name__}.py")
        titled = re.fullmatch(r"(.+?)\s*<(.+)>", content, re.S)
        title, target = titled.groups() if titled else (None, content)
        label = self.label(target)
        link = f"#{target}" if label.page == self.name else self.address(label.page, f"#{label.anchor}")
        return f"[{title or label.text}]({link})"

    def label(self, name: str) -> Label:
        """Return what a label stands for."""
        if name not in self.pages.labels:
            raise ValueError(f"{self.name}: the built pages have nothing labelled {name!r}")
        return self.pages.labels[name]

    def link(self, title: str, page: str, kind: str) -> str:
        """Return a link to another page; where there are no pages, only chapters can be led to."""
        return f"[{title}]({self.address(page)})" if kind == "ipynb" or self.pages.address else title

    def address(self, chapter: str, anchor: str = "") -> str:
        """Return the address of a chapter: of its page, or of the notebook beside this one."""
        return f"{self.pages.address}/book/{chapter}.html{anchor}" if self.pages.address else f"{chapter}.ipynb"


def anchor(name: str) -> str:
    """Return what links within the notebook lead to."""
    return f'<a name="{name}"></a>'


def boxed(title: str, lines: Iterator[str]) -> list[str]:
    """Set text apart; not by '>' before each line, which viewers take for a part of formulas."""
    return ["<blockquote>", "", title, "", "\n".join(lines).strip(), "", "</blockquote>"]
