"""Sphinx extension: what pages show of files, made when the pages are built, so that nobody types it.

- ``{verdicts} undecided; not run here``: the claims that the chapters store with these verdicts.
- ``{status} versions``, ``chapters``, ``runs`` or ``outstanding``: the lock, the last execution of each chapter, the
  stored runs, and what is missing of them.
- ``{citation}``: `CITATION.cff` as a sentence and as BibTeX.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from packaging.requirements import Requirement
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book_site import repository
from execute import Chapter, chapters, execution, read_notebook
from model_collapse.reference import PIECES, outstanding, reference
from model_collapse.results import stored_claims


class Stored(SphinxDirective):
    """A directive whose content is Markdown that a function makes from the repository's files."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Parse what the function returns, in the place of the directive."""
        root = Path(self.env.srcdir)
        lines = list(self.lines(root, self.arguments[0] if self.arguments else ""))
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), self.content_offset, node)
        return node.children

    def lines(self, root: Path, argument: str) -> Iterable[str]:
        """Make the Markdown, line by line."""
        raise NotImplementedError


def title(chapter: Chapter) -> str:
    """Return the title of a chapter."""
    found = re.search(r"^# (.+)", chapter.twin.read_text(encoding="utf8"), re.M)
    return found[1] if found else chapter.name


def link(chapter: Chapter) -> str:
    """Return a link to a chapter, with its title as the text."""
    return f"[{title(chapter)}]({chapter.name}.ipynb)"


class Verdicts(Stored):
    """The claims with the given verdicts, chapter by chapter, with what was measured."""

    def lines(self, root: Path, argument: str) -> Iterator[str]:
        """Make a list for each chapter that has one."""
        wanted, found = {verdict.strip() for verdict in argument.split(";")}, False
        for chapter in chapters(root):
            claims = [claim for claim in stored_claims(chapter.notebook) if claim.verdict in wanted]
            if claims and chapter.name != "claims":  # the ledger repeats what the others store
                found = True
                yield from ("", f"{link(chapter)}:", "")
                yield from (
                    f"- **{c.paper}** Expected: {c.expected}. Measured: {c.measured}. *{c.verdict.capitalize()}.*"
                    for c in claims
                )
        if not found:
            yield "None."


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield the lines of a table."""
    names = list(header)
    for row in (names, ["---"] * len(names), *rows):
        yield "| " + " | ".join(map(str, row)) + " |"


def versions(root: Path) -> Iterator[str]:
    """Yield the version of the library, and those of what it and the book ask for, each where it is needed first."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]
    lock = (root / "requirements.lock").read_text(encoding="utf8").splitlines()
    pins = [Requirement(line) for line in lock if line and not line.startswith("#")]
    version = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    yield f"The library is model-collapse {project['version']}."
    yield ""
    rows, named = [], set()
    for part, texts in {"the core": project["dependencies"], **project["optional-dependencies"]}.items():
        names = sorted({Requirement(text).name for text in texts} - named)
        named |= set(names)
        rows += [[part, ", ".join(f"{name} {version[name]}" for name in names)]] if names else []
    yield from table(["for", "packages"], rows)


def executed(root: Path) -> Iterator[str]:
    """Yield a table of the last executions of all chapters."""
    rows = []
    for chapter in chapters(root):
        known = execution(chapter, read_notebook(chapter.notebook))
        keys = ("seconds", "processor_seconds", "processor", "python")
        rows.append([link(chapter), *([known[key] for key in keys] if known else ["not recorded", "–", "–", "–"])])
    yield from table(["chapter", "seconds", "of the processor", "processor", "Python"], rows)


def runs(root: Path) -> Iterator[str]:
    """Yield a table of all stored runs."""
    folder = root / "book" / "results"
    there = [piece for piece in PIECES if any(piece.file(seed, folder).exists() for seed in piece.seeds)]
    rows = ([f"`{piece.name}`", reference(piece.name, folder).label] for piece in there)
    yield from table(["run", "what, where and how long"], rows)


def missing(root: Path) -> Iterator[str]:
    """Yield a list of the runs that are not there, or not to their end."""
    found = defaultdict(list)
    for piece, seed, why in outstanding(root / "book" / "results"):
        found[piece.name, "not run" if why == "missing" else why].append(seed)
    for (name, why), seeds in found.items():
        yield f"- `{name}`, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {why}."
    if not found:
        yield "Nothing: every run of the list is stored."


class Status(Stored):
    """A part of the status page."""

    required_arguments, optional_arguments = 1, 0
    parts: ClassVar = {"versions": versions, "chapters": executed, "runs": runs, "outstanding": missing}

    def lines(self, root: Path, argument: str) -> Iterable[str]:
        """Make the part that is named."""
        if argument not in self.parts:
            raise self.error(f"status: {argument!r} is none of {', '.join(self.parts)}")
        return self.parts[argument](root)


def bibtex(kind: str, key: str, fields: dict[str, str]) -> Iterator[str]:
    """Yield an entry for BibTeX."""
    width = max(map(len, fields))
    yield f"@{kind}{{{key},"
    yield from (f"  {name:{width}} = {{{value}}}," for name, value in fields.items())
    yield "}"


def citation(root: Path) -> Iterator[str]:
    """Yield how to cite the book and its paper, from CITATION.cff."""
    book = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf8"))
    (paper,) = book["references"]
    year, address = str(book["date-released"])[:4], repository(str(root))
    names = " and ".join(author["name"] for author in book["authors"])
    where = f" {address}." if address else ""
    yield from (f"{names} ({year}). *{book['title']}*, version {book['version']}.{where}", "", "```bibtex")
    fields = {"author": f"{{{names}}}", "title": f"{{{book['title']}}}", "year": year}
    fields |= {"note": f"Version {book['version']}"} | ({"url": address} if address else {})
    yield from bibtex("misc", "modelcollapsebook", fields)
    yield from ("```", "", "The paper:", "")
    people = [(a["family-names"], a["given-names"]) for a in paper["authors"]]
    listed = ", ".join(f"{family}, {given[0]}." for family, given in people)
    where = f"{paper['volume']}, {paper['start']}–{paper['end']}. [doi:{paper['doi']}](https://doi.org/{paper['doi']})"
    yield from (f"{listed} ({paper['year']}). {paper['title']}. *{paper['journal']}* {where}", "", "```bibtex")
    fields = {"author": " and ".join(f"{family}, {given}" for family, given in people), "title": paper["title"]}
    fields |= {name: str(paper[name]) for name in ("journal", "volume")}
    fields |= {"pages": f"{paper['start']}--{paper['end']}", "year": str(paper["year"]), "doi": paper["doi"]}
    yield from bibtex("article", "shumailov2024", fields)
    yield "```"


class Citation(Stored):
    """How to cite the book."""

    def lines(self, root: Path, argument: str) -> Iterable[str]:
        """Read it from CITATION.cff."""
        return citation(root)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    for name, directive in (("verdicts", Verdicts), ("status", Status), ("citation", Citation)):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
