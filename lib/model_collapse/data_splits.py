"""Which Wikipedia articles pretrain the tiny language model, and which the experiment is made with.

Articles are never cut: each of the 96 that `model_collapse.data.articles` gives belongs to one part as a whole.
Fine-tuning thus sees nothing that the model was pretrained on, and is tested on articles that it has never seen.
"""

import hashlib
import json
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from model_collapse.data_files import same_digest
from model_collapse.data_text import articles

Article = tuple[str, str]  # title, text

SEED = 0  # of the permutation of the articles; not looked for
SIZES = {"pretraining": 42, "pretraining_validation": 6, "train": 36, "validation": 3, "test": 9}  # articles
DIGESTS = {
    "pretraining": "1d69d893abe0138b1528f544ecdd8a69ec6fe91860b915dde1562b671b8d9623",
    "pretraining_validation": "b58d5008c194773891b4e4d6e467946d63a3a7d6069fb050e98f295e0e0b2062",
    "train": "32008640d681133ed77f501401379f162918e2cc385f9f9e2337b5eb90e2a14e",
    "validation": "a4b71823b2dc57db8137817d97560888ed3fab1f64fd971da7037d601a6ed294",
    "test": "a613b3776f23887a93c7cdef2225fcd03aeb95d340aa7b0694c3247c6ee2476b",
}


class Splits(NamedTuple):
    """The parts of the corpus, disjoint by article; each is a tuple of pairs (title, text).

    Attributes
    ----------
    pretraining, pretraining_validation : tuple of (str, str)
        42 articles that the tiny model's tokenizer and weights were trained on, and 6 that its training was watched on.
    train, validation, test : tuple of (str, str)
        36, 3 and 9 articles of the experiment: to fine-tune on, to choose the epoch by, and to report.

    Examples
    --------
    >>> Splits(*[()] * 5).test
    ()
    """

    pretraining: tuple[Article, ...]
    pretraining_validation: tuple[Article, ...]
    train: tuple[Article, ...]
    validation: tuple[Article, ...]
    test: tuple[Article, ...]


@cache
def splits() -> Splits:
    """Divide the articles: a permutation drawn from numpy's generator at seed 0, cut into 42, 6, 36, 3 and 9 of them.

    Within a part the articles stand in the permutation's order.

    Returns
    -------
    Splits
        The five parts, whose digests have been compared with those that are known.

    Raises
    ------
    ModuleNotFoundError, FileNotFoundError, ValueError
        As `model_collapse.data.articles`; or a part has another digest than `DIGESTS` says.

    Examples
    --------
    >>> [len(part) for part in splits()]
    [42, 6, 36, 3, 9]
    >>> [title for title, _ in splits().validation]
    ['Aristotle', 'Aardvark', 'Articles of Confederation']
    """
    given = articles()
    order = np.random.default_rng(SEED).permutation(len(given))
    ends = np.cumsum([0, *SIZES.values()])
    parts = Splits(*(tuple(given[k] for k in order[a:b]) for a, b in pairwise(ends)))
    for name, part in zip(SIZES, parts, strict=True):
        same_digest(f"the part {name} of the articles", digest(part), DIGESTS[name])
    return parts


def digest(part: tuple[Article, ...]) -> str:
    """SHA-256 of a part: of its titles and texts, as a JSON list of pairs in UTF-8.

    Examples
    --------
    >>> digest(()) == hashlib.sha256(b"[]").hexdigest()
    True
    """
    return hashlib.sha256(json.dumps(part, ensure_ascii=False).encode()).hexdigest()
