"""Real text, read from a package that carries it, so that nothing is downloaded.

The real articles of the English Wikipedia in a test file of gensim's wheel (an old dump of the first articles in
the alphabet, shortened by gensim's authors). Wikipedia's text is by its contributors, licensed CC BY-SA 3.0
(https://creativecommons.org/licenses/by-sa/3.0/); each article's title names the page and its history its authors.
"""

import bz2
import io
import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_collapse.data_files import carried, verified

WIKIPEDIA = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
WIKIPEDIA_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
ARTICLES, WORDS, VOCABULARY = 96, 442_891, 32_628  # what the rules below make of that file

SHORTEST_ARTICLE, SHORTEST_LINE = 2_000, 40  # characters: below are stubs and redirects; list entries and labels
QUOTES = re.compile("'{2,}")  # wiki markup of bold and italic
HEADING = re.compile("=.*=$")
LEFTOVER = re.compile(r"[|{}]")  # of tables, templates, captions of images
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


class Vocabulary(NamedTuple):
    """The distinct words of a text, most frequent first (ties in alphabetical order), and how often each occurs.

    Attributes
    ----------
    words : tuple of str
        K distinct words.
    counts : ndarray of int64, shape (K,)
        Occurrences, descending.

    Examples
    --------
    >>> Vocabulary(("the", "of"), np.array([3, 1])).words
    ('the', 'of')
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]


def articles(path: Path | str | None = None) -> list[tuple[str, str]]:
    """Real Wikipedia articles: titles and cleaned text, in the order of the file (about 2 s the first time).

    gensim takes the wiki markup off. Of what it leaves, runs of quotes (bold, italic) and leading list marks are
    removed; then headings, lines shorter than 40 characters and lines with leftover markup (one of ``|{}``:
    tables, captions) are dropped, and so are articles of 2,000 characters or fewer.

    Parameters
    ----------
    path : path, optional
        The bz2 file; by default the one in gensim's wheel, found without importing gensim.

    Returns
    -------
    list of (str, str)
        96 pairs (title, text); a text's lines are paragraphs, in Unicode's composed form (NFC).

    Raises
    ------
    ModuleNotFoundError
        gensim is not installed.
    FileNotFoundError
        The file is not there.
    ValueError
        The file is not the expected one, by its SHA-256.

    Notes
    -----
    Source: Wikipedia's contributors, CC BY-SA 3.0. Repeated calls in one process parse the file once.

    Examples
    --------
    >>> title, text = articles()[0]
    >>> title, text[:44]
    ('Anarchism', 'Anarchism is a political philosophy that adv')
    """
    return list(_articles(Path(path) if path else wikipedia_file()))


def words(text: str) -> list[str]:
    """The words of a text: runs of letters, with apostrophes inside, in lower case.

    Digits, hyphens and all other signs separate words; a typographic apostrophe counts as a plain one.

    Examples
    --------
    >>> words("Einstein’s E = mc2: the best-known équation of 1905.")
    ["einstein's", 'e', 'mc', 'the', 'best', 'known', 'équation', 'of']
    """
    return WORD.findall(text.replace("’", "'").lower())


def word_counts(path: Path | str | None = None) -> Vocabulary:
    """Count the words of all cleaned articles together: 442,891 words, of which 32,628 are distinct.

    Parameters and errors are those of `articles`.

    Returns
    -------
    Vocabulary
        Words by falling frequency, and their counts.

    Examples
    --------
    >>> vocabulary = word_counts()
    >>> vocabulary.words[:3], vocabulary.counts[:3].tolist(), int(vocabulary.counts.sum())
    (('the', 'of', 'and'), [33340, 18026, 14136], 442891)
    """
    counted = Counter(word for _, text in articles(path) for word in words(text))
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return Vocabulary(tuple(word for word, _ in ranked), np.array([count for _, count in ranked], dtype=np.int64))


def wikipedia_file() -> Path:
    """Where gensim's wheel keeps the file, found without importing gensim.

    Raises
    ------
    ModuleNotFoundError
        gensim is not installed.

    Examples
    --------
    >>> wikipedia_file().name
    'enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'
    """
    return carried("gensim", WIKIPEDIA, "the Wikipedia articles come")


@cache
def _articles(path: Path) -> tuple[tuple[str, str], ...]:
    compressed = verified(path, WIKIPEDIA_SHA256, "reinstall gensim")
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki  # slow to import, needed nowhere else

    with bz2.open(io.BytesIO(compressed)) as pages:
        cleaned = [(title, _clean(filter_wiki(markup))) for title, markup, _ in extract_pages(pages, ("0",))]
    return tuple((title, text) for title, text in cleaned if len(text) > SHORTEST_ARTICLE)


def _clean(text: str) -> str:
    lines = (QUOTES.sub("", line).strip() for line in unicodedata.normalize("NFC", text).splitlines())
    bare = (line.lstrip("*#:; ") for line in lines if not HEADING.match(line))
    return "\n".join(line for line in bare if len(line) >= SHORTEST_LINE and not LEFTOVER.search(line))
