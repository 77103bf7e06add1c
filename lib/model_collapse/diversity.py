r"""How varied the text of a generation is: n-grams, repetition, vocabulary, rare words, compression.

Text is given as blocks of tokens, int (n, T). Nearly all of these numbers move with the amount of text: compare
generations at equal numbers of blocks.

A vocabulary that shrinks is what the unigram model of the discrete chapter is about. Beside the share of the vocabulary
that a generation has lost stands therefore what chance alone would lose: if its M tokens were drawn independently, with
the frequencies q of the reference, a token would be absent with probability :math:`(1 - q)^M` (`discrete.tail_loss`).
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from model_collapse.arguments import integer
from model_collapse.discrete import tail_loss
from model_collapse.tokens import checked_blocks, text_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST = 4  # n-grams that are counted
MOST = 2**63  # numbers that int64 holds, from 0
RARE = 5  # occurrences, up to which a token is called rare


def ngrams(blocks: ArrayLike, n: int) -> NDArray[np.int64]:
    """Number the n-grams of blocks (m, T): one number for each place, int64 (m, T - n + 1).

    Equal numbers are equal n-grams, of any vocabulary (nothing is hashed), and greater numbers are n-grams that come
    later in the order of lists of tokens. No n-gram reaches from one block into the next.

    Raises
    ------
    ValueError
        Blocks that are none, or shorter than n.

    Examples
    --------
    >>> ngrams([[0, 1, 0, 2], [2, 2, 2, 1]], 2)
    array([[1, 3, 2],
           [8, 8, 7]])
    """
    tokens = checked_blocks(blocks, "blocks", least=integer(n, "n"))
    if (int(tokens.max()) + 1) ** n > MOST:
        tokens = _ranks(tokens)
    numbers, K = tokens, int(tokens.max()) + 1
    for k in range(1, n):
        if (int(numbers.max()) + 1) * K > MOST:
            numbers = _ranks(numbers)
        numbers = numbers[:, :-1] * K + tokens[:, k:]
    return numbers


def repeated(blocks: ArrayLike, n: int = LONGEST) -> float:
    """The share of a block's n-grams that occurred before in the same block, mean over the blocks.

    0: no n-gram twice; near 1: the block is a loop.

    Raises
    ------
    ValueError
        Blocks that are none, or shorter than n.

    Examples
    --------
    >>> repeated([[1, 2, 1, 2, 1], [1, 2, 3, 4, 5]], n=2)
    0.25
    """
    ordered = np.sort(ngrams(blocks, n), axis=1)
    return float((np.diff(ordered, axis=1) == 0).sum() / ordered.size)


def diversity(blocks: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """How varied the blocks of one generation are, and what of a reference's vocabulary is left in them.

    Parameters
    ----------
    blocks : array of int, shape (n, T)
        Of the generation, T >= 4.
    reference : array of int, shape (m, S)
        Real blocks, as a rule those that generation 0 was trained on.

    Returns
    -------
    dict of str to float
        `distinct_1` to `distinct_4`: distinct n-grams as a share of all;
        `repeated_4`: `repeated` for 4-grams;
        `unique_blocks`: distinct blocks as a share of all;
        `vocabulary`: number of distinct tokens;
        `vocabulary_lost`: share of the reference's distinct tokens that do not occur;
        `rare_recall`: share that does occur of the reference's rare tokens, those that are in it at most 5 times;
        `vocabulary_lost_by_chance`, `rare_recall_by_chance`: the same, as expected of as many tokens that are drawn
        independently with the reference's frequencies;
        `entropy`: of the frequencies of tokens, in bits.

    Raises
    ------
    ValueError
        Blocks that are none, blocks without a 4-gram, a reference without a rare token.

    Examples
    --------
    >>> real = np.array([[1, 2, 3, 4, 5, 1, 2, 3]])
    >>> row = diversity([[1, 2, 1, 2, 1, 2, 1, 6]], real)
    >>> row["distinct_1"], row["distinct_2"], row["repeated_4"], row["vocabulary_lost"], row["rare_recall"]
    (0.375, 0.42857142857142855, 0.4, 0.6, 0.4)
    """
    tokens, real = checked_blocks(blocks, "blocks", least=LONGEST), checked_blocks(reference, "reference")
    kinds = _ranks(np.concatenate([tokens.ravel(), real.ravel()]))
    counts, expected = (np.bincount(part, minlength=kinds.max() + 1) for part in np.split(kinds, [tokens.size]))
    known, rare = expected > 0, (expected > 0) & (expected <= RARE)
    if not rare.any():
        raise ValueError(f"reference: each of its tokens occurs more than {RARE} times, so none is rare")
    absent = tail_loss(expected / expected.sum(), tokens.size)
    return {
        **{f"distinct_{n}": _distinct(ngrams(tokens, n)) for n in range(1, LONGEST + 1)},
        f"repeated_{LONGEST}": repeated(tokens),
        "unique_blocks": len({block.tobytes() for block in tokens}) / len(tokens),
        "vocabulary": float(np.count_nonzero(counts)),
        "vocabulary_lost": float((counts[known] == 0).mean()),
        "vocabulary_lost_by_chance": float(absent[known].mean()),
        "rare_recall": float((counts[rare] > 0).mean()),
        "rare_recall_by_chance": float(1 - absent[rare].mean()),
        "entropy": float(stats.entropy(counts, base=2)),
    }


def compression(blocks: ArrayLike, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Bytes of the text over bytes of the same text compressed by zlib at level 9.

    The text: that of each block, in order, one a line. zlib looks back 32,768 bytes, some 150 blocks of 64 tokens, and
    sees no repetition that is farther away.

    Parameters
    ----------
    blocks : array of int, shape (n, T)
    tokenizer : PreTrainedTokenizerBase
        As in `tokens.token_bytes`.

    Raises
    ------
    ValueError
        Blocks that are none, or of special tokens only; a tokenizer of another kind.

    Examples
    --------
    >>> from tokenizers import Tokenizer, decoders, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> pieces = Tokenizer(models.BPE({"a": 0, "b": 1, "</s>": 2}, []))
    >>> pieces.decoder = decoders.ByteLevel()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>")
    >>> loops, coins = np.zeros((64, 64), int), np.random.default_rng(0).integers(2, size=(64, 64))
    >>> compression(loops, tokenizer) > 30 > 8 > compression(coins, tokenizer)  # coins: at most 8, a bit for a byte
    True
    """
    texts = text_bytes(blocks, tokenizer)
    if not any(texts):
        raise ValueError("blocks: hold special tokens only, and no text to compress")
    text = b"\n".join(texts)
    return len(text) / len(zlib.compress(text, 9))


def _ranks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)


def _distinct(numbers: NDArray[np.int64]) -> float:
    ordered = np.sort(numbers, axis=None)  # np.unique, which hashes, takes ten times as long for millions of numbers
    return float(1 + np.count_nonzero(np.diff(ordered))) / ordered.size
