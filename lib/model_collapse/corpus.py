"""Text to train language models on, from one source that the caller names, and the blocks of tokens made of it.

WikiText-2 is by Stephen Merity, Caiming Xiong, James Bradbury and Richard Socher, "Pointer sentinel mixture models"
(2016), https://arxiv.org/abs/1609.07843, from articles by Wikipedia's contributors, under CC BY-SA 3.0
(https://creativecommons.org/licenses/by-sa/3.0/). None of it is part of this repository.
"""

import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from model_collapse import settings
from model_collapse.arguments import integer
from model_collapse.data_files import HubFile, hub_file
from model_collapse.data_splits import Article, splits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rows = tuple[str, ...]
Tokens = NDArray[np.int32]

SPLITS = ("train", "validation", "test")
REPOSITORY, REVISION = "Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3"
CONFIGURATION = "wikitext-2-raw-v1"
ROWS = {"train": 36_718, "validation": 3_760, "test": 4_358}  # as the data set's card says; no digest is known to us
HUB = {split: HubFile(REPOSITORY, REVISION, f"{CONFIGURATION}/{split}-00000-of-00001.parquet") for split in SPLITS}
SHORT = {"train": "train", "validation": "valid", "test": "test"}

BATCH = 1_000  # rows, after which the authors' code drops what fills no block


class Corpus(NamedTuple):
    """Rows of text, in three splits.

    Attributes
    ----------
    train, validation, test : tuple of str
        The rows: paragraphs, headings or empty.
    name : str
        Which corpus it is.
    digest : str
        SHA-256 of the three splits, as `digest` computes it.

    Examples
    --------
    >>> rows = ("Real text.", "More of it."), ("To choose by.",), ("To judge by.",)
    >>> Corpus(*rows, "example", digest(*rows)).test
    ('To judge by.',)
    """

    train: Rows
    validation: Rows
    test: Rows
    name: str
    digest: str


class Blocks(NamedTuple):
    """Blocks of tokens, in three splits.

    Attributes
    ----------
    train, validation, test : ndarray of int32, shape (n, size)
        Token numbers, in the order of the text.

    Examples
    --------
    >>> Blocks(*(np.zeros((n, 64), np.int32) for n in (8, 2, 1))).train.shape
    (8, 64)
    """

    train: Tokens
    validation: Tokens
    test: Tokens


def corpus(name: settings.Corpus, folder: str | Path | None = None) -> Corpus:
    r"""Text of one named corpus.

    Parameters
    ----------
    name : {"wikipedia", "wikitext2"}
        "wikipedia": the paragraphs of real articles that gensim's wheel carries, no network needed; which articles are
        for training, `data_splits.splits` says.
        "wikitext2": the data set that the authors fine-tune on, Salesforce/wikitext in its configuration
        wikitext-2-raw-v1, at a pinned revision of the hub (`data_files.hub_file` says how to choose the cache, another
        hub, or no network), or from a folder.
    folder : path, optional
        Of "wikitext2" only, which is then read from here and not from the hub. Of each split one file, the first of:
        the hub's parquet file, in a folder wikitext-2-raw-v1 or not; train.parquet; the original wiki.train.raw;
        train.txt. (validation and valid may both be written.) A text file is UTF-8 with one row a line. Nothing but the
        digest tells whether it is the raw text: in WikiText-2's other version rare words are replaced by <unk>.

    Returns
    -------
    Corpus
        As on the hub, a row of WikiText-2 is " = Heading = \n", " Paragraph . \n" or "".

    Raises
    ------
    ModuleNotFoundError
        gensim, or huggingface_hub or pyarrow, is not installed.
    FileNotFoundError
        A file is not there; or offline mode is on, and it is not in the hub's cache.
    OSError
        The hub cannot be reached, stays busy, or breaks off.
    ValueError
        Another name; a folder with a corpus that has none; a file that is damaged or another one. Known of WikiText-2
        are its revision, its column and its numbers of rows; the hub's files are compared with the digests that it
        announces, for none is known to us.

    Examples
    --------
    >>> text = corpus("wikipedia")
    >>> text.name, all(row.strip() for row in text.train + text.validation + text.test)
    ('wikipedia', True)
    """
    if name not in get_args(settings.Corpus):
        raise ValueError(f"corpus = {name!r}: allowed are {get_args(settings.Corpus)}")
    if name == "wikipedia":
        if folder is not None:
            raise ValueError(f"folder = {str(folder)!r}: only wikitext2 may be read from a folder")
        parts = splits()
        rows = [_paragraphs(part) for part in (parts.train, parts.validation, parts.test)]
    else:
        rows = [_wikitext2(split, None if folder is None else Path(folder)) for split in SPLITS]
    train, validation, test = rows
    return Corpus(train, validation, test, name, digest(train, validation, test))


def digest(train: Rows, validation: Rows, test: Rows) -> str:
    """Compute the SHA-256 of three splits, written as one list of three lists of strings in ASCII JSON.

    Examples
    --------
    >>> digest(("a",), (), ()) == hashlib.sha256(b'[["a"], [], []]').hexdigest()
    True
    """
    return hashlib.sha256(json.dumps([train, validation, test]).encode()).hexdigest()


def blocks(corpus: Corpus, tokenizer: "PreTrainedTokenizerBase", size: int = 64) -> Blocks:
    """Cut a corpus into blocks of tokens, as the authors' code does.

    Each row is tokenised by itself, with the special tokens that the tokenizer adds (OPT's begins each row with </s>,
    of which an empty row consists); the rows of 1,000 are joined and cut, and what then fills no block is dropped.
    Where a tokenizer adds none, a row that has no end of line gets one.

    Parameters
    ----------
    corpus : Corpus
        The text.
    tokenizer : PreTrainedTokenizerBase
        Of the model that is to read the blocks.
    size : int
        Tokens in a block.

    Raises
    ------
    ValueError
        The size is not positive, or a split fills no block.

    Examples
    --------
    >>> from transformers import ByT5Tokenizer
    >>> text = Corpus(("Some text, ", "and more."), ("Other text.",), ("Still another.",), "example", "")
    >>> cut = blocks(text, ByT5Tokenizer(), size=8)
    >>> cut.train.shape, cut.train.dtype, [bytes((block[block > 2] - 3).tolist()) for block in cut.train]
    ((2, 8), dtype('int32'), [b'Some tex', b't, and '])
    """
    integer(size, "size")
    made = []
    for split in SPLITS:
        rows: Rows = getattr(corpus, split)
        cut = np.concatenate(
            [_cut(rows[begin : begin + BATCH], tokenizer, size) for begin in range(0, len(rows), BATCH)]
            or [np.empty((0, size), np.int32)]
        )
        if not len(cut):
            raise ValueError(
                f"{split} split of {corpus.name}: {len(rows):,} rows fill no block of size = {size:,} tokens"
            )
        made.append(cut)
    return Blocks(*made)


def _cut(rows: Rows, tokenizer: "PreTrainedTokenizerBase", size: int) -> Tokens:
    marked = tokenizer("")["input_ids"]
    ended = list(rows) if marked else [row if row.endswith("\n") else f"{row}\n" for row in rows]
    tokens = tokenizer(ended, return_attention_mask=False, verbose=False)["input_ids"]
    joined = np.fromiter(chain.from_iterable(tokens), np.int32)
    return joined[: len(joined) // size * size].reshape(-1, size)


def _paragraphs(part: tuple[Article, ...]) -> Rows:
    return tuple(paragraph for _, text in part for paragraph in text.split("\n"))


def _wikitext2(split: str, folder: Path | None) -> Rows:
    path = hub_file(HUB[split]) if folder is None else _file(folder, split)
    rows = _parquet(path) if path.suffix == ".parquet" else _lines(path)
    if len(rows) != ROWS[split]:
        raise ValueError(
            f"{path}: expected the {ROWS[split]:,} rows of WikiText-2's {split} split, found {len(rows):,}"
        )
    return rows


def _file(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder = {str(folder)!r}: must be an existing folder")
    names = dict.fromkeys((split, SHORT[split]))
    spellings = [
        f"{CONFIGURATION}/{split}-00000-of-00001.parquet",
        f"{split}-00000-of-00001.parquet",
        *(f"{name}.parquet" for name in names),
        f"wiki.{SHORT[split]}.raw",
        *(f"{name}.txt" for name in names),
    ]
    for spelling in spellings:
        if (folder / spelling).is_file():
            return folder / spelling
    raise FileNotFoundError(f"{folder}: the {split} split is missing: expected one of {', '.join(spellings)}")


def _parquet(path: Path) -> Rows:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        column = read_table(path)["text"].to_pylist()
    except (ArrowException, KeyError, OSError) as error:
        raise ValueError(f"{path}: expected a table with a column 'text' ({error})") from error
    if not all(isinstance(row, str) for row in column):
        raise ValueError(f"{path}: expected strings only in the column 'text'")
    return tuple(column)


def _lines(path: Path) -> Rows:
    """Rows as the hub's were made of these lines: blank ones are empty, others keep their end."""
    try:
        with path.open(encoding="utf-8") as lines:
            return tuple(line if line.strip() else "" for line in lines)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8 ({error})") from error
