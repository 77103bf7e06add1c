"""Tables for LaTeX: columns as wide as what they hold, wrapped where a line is too narrow; tables of data frames."""

import re
from itertools import zip_longest

from bs4 import Tag
from docutils import nodes

ROOM = 104  # characters of a table's type in a line
GAP = 3  # between columns
LONG = 14  # lines from which on a table may break over pages
NUMBER = re.compile(r"[-–−+±]?[\d.,]*(e[-+]?\d+)?%?|NaN|nan|inf|-|–|")


def data_frame(html: Tag) -> nodes.table:
    """Return the table that pandas wrote as HTML; a cell over several rows stands in the first, above empty ones."""
    rows, below = [], {}  # below: how many rows a cell from above still reaches into, by its place
    for line in html.find_all("tr"):
        cells = list(line.find_all(["th", "td"]))
        row, place = nodes.row(), 0
        while cells or below.get(place):
            if below.get(place):
                below[place] -= 1
                row += nodes.entry()
                place += 1
                continue
            cell = cells.pop(0)
            row += entry(cell)
            below[place] = int(str(cell.get("rowspan", 1))) - 1
            place += int(str(cell.get("colspan", 1)))
        rows.append(row)
    heads = len(html.thead.find_all("tr")) if html.thead else 0
    wide = max(sum(1 + cell.get("morecols", 0) for cell in row) for row in rows)
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in range(wide)), cols=wide)
    group += [nodes.thead("", *rows[:heads])] if heads else []
    group += nodes.tbody("", *rows[heads:])
    return nodes.table("", group)


def entry(cell: Tag) -> nodes.entry:
    """Return a cell, as wide as in HTML."""
    more = int(str(cell.get("colspan", 1))) - 1
    return nodes.entry("", nodes.paragraph(text=cell.get_text().strip()), **({"morecols": more} if more else {}))


def shown(cell: nodes.Node) -> str:
    r"""Return about what a cell shows: formulas are shorter than their source.

    Examples
    --------
    >>> shown(nodes.entry("", nodes.paragraph("", "", nodes.Text("so "), nodes.math(text=r"\alpha^{2}"))))
    'so xx'
    """
    texts = list(cell.findall(nodes.Text))
    formulas = [isinstance(text.parent, nodes.math) for text in texts]
    return "".join(signs(text) if formula else text for text, formula in zip(texts, formulas, strict=True))


def signs(tex: str) -> str:
    """Return as many letters as a formula shows signs."""
    return "x" * len(re.sub(r"\\[a-z]+", "x", re.sub(r"[{}^_ ]", "", tex)))


def columns(table: nodes.table) -> list[list[str]]:
    """Return the texts of each column; cells that several columns or rows share are left out of the reckoning."""
    wide = next(table.findall(nodes.tgroup))["cols"]
    found: list[list[str]] = [[] for _ in range(wide)]
    for line in table.findall(nodes.row):
        place = wide - sum(1 + cell.get("morecols", 0) for cell in line)  # rows that lack cells lack the first
        for cell in line:
            if not cell.get("morecols"):
                found[place].append(shown(cell))
            place += 1 + cell.get("morecols", 0)
    return found


def fitted(natural: list[int], least: list[int]) -> list[int]:
    """Return widths of columns, in characters, that fit a line if the longest words do; the widest are wrapped.

    Parameters
    ----------
    natural
        Width of each column, unwrapped.
    least
        Length of its longest word.

    Examples
    --------
    >>> fitted([10, 20], [5, 5]), fitted([10, 200, 40], [5, 9, 9])
    ([10, 20], [10, 58, 26])
    """
    room = ROOM - GAP * len(natural)
    if sum(natural) <= room:
        return natural
    fixed: dict[int, int] = {}
    while len(fixed) < len(natural):
        free = [k for k in range(len(natural)) if k not in fixed]
        left = max(room - sum(fixed.values()), 0)
        share = {k: int(left * natural[k] ** 0.5 / sum(natural[j] ** 0.5 for j in free)) for k in free}
        narrow = {k: least[k] for k in free if least[k] > share[k]}
        fixed |= narrow or {k: natural[k] for k in free if natural[k] <= share[k]} or share
    return [fixed[k] for k in range(len(natural))]


def widths(found: list[list[str]]) -> list[int]:
    """Return the widths of columns that hold these texts."""
    natural = [max((len(text) for text in column), default=1) for column in found]
    least = [max((len(word) + 1 for text in column for word in text.split()), default=1) for column in found]
    return fitted(natural, least)


def colspec(table: nodes.table) -> str:
    """Return the columns of a table for LaTeX: numbers to the right, what does not fit a line wrapped."""
    found = columns(table)
    wide = widths(found)
    scale = max(sum(wide) + GAP * len(wide), ROOM)
    spec = ""
    for width, column in zip(wide, found, strict=True):
        number = all(NUMBER.fullmatch(text) for text in column[1:])
        if width >= max(map(len, column), default=0):
            spec += "r" if number else "l"
            continue
        ragged = r"\raggedleft" if number else r"\raggedright"
        spec += rf">{{{ragged}\arraybackslash}}p{{\dimexpr{(width + GAP) / scale:.4f}\linewidth-2\tabcolsep\relax}}"
    return spec


def fits(table: nodes.table) -> bool:
    """Return whether a table fits a line without a word that is cut."""
    found = widths(columns(table))
    return sum(found) + GAP * len(found) <= ROOM


def is_long(table: nodes.table) -> bool:
    """Return whether a table has so many lines that it may break over pages."""
    found = columns(table)
    lines = zip_longest(*found, fillvalue="")
    wide = [max(width, 1) for width in widths(found)]
    return sum(max(-(-len(text) // width) for text, width in zip(line, wide, strict=True)) for line in lines) >= LONG
