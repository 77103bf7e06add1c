"""Blocks of tokens: what they must look like, and the bytes of text that they stand for.

Models of different tokenizers can only be compared per byte of text, so bytes are counted exactly. A token of a
byte-level vocabulary may be a part of a character, which decoding would replace; so each token's bytes are read from
the vocabulary itself.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE = "\u2581"  # a space in the vocabularies of SentencePiece
PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # bytes that stand for themselves, as Latin 1
HIDDEN = sorted(set(range(256)) - set(PRINTED))  # the others are written with characters from U+0100 on
BYTES = {chr(byte): byte for byte in PRINTED} | {chr(256 + k): byte for k, byte in enumerate(HIDDEN)}


def checked_blocks(blocks: ArrayLike, name: str, least: int = 1) -> NDArray[np.int64]:
    """Return blocks as int64 if they are such: integers >= 0 of shape (n, T), n >= 1, T >= least.

    Raises
    ------
    ValueError
        Anything else.

    Examples
    --------
    >>> checked_blocks([[5, 6, 7]], "blocks", least=4)
    Traceback (most recent call last):
    ValueError: blocks: must be integers of shape (n, T), n >= 1, T >= 4, got int64 of shape (1, 3)
    """
    array = np.asarray(blocks)
    if array.dtype.kind not in "iu" or array.ndim != 2 or not len(array) or array.shape[1] < least:
        raise ValueError(
            f"{name}: must be integers of shape (n, T), n >= 1, T >= {least}, got {array.dtype} of shape {array.shape}"
        )
    if array.min() < 0:
        raise ValueError(f"{name}: tokens must be >= 0, got {array.min()}")
    return array.astype(np.int64)


def token_bytes(tokenizer: "PreTrainedTokenizerBase") -> list[bytes]:
    r"""The bytes of text that each token stands for, by its number.

    Special tokens stand for no text: where OPT's </s> begins a row, the end of the row before is not counted as a byte
    either. A space at the start of a piece counts, also where the tokenizer itself has put it before a text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a byte-level vocabulary (GPT-2, OPT, SmolLM2, ...) or one of SentencePiece (Llama 2, Gemma, ...), of which
        bytes are written as <0x0A>.

    Raises
    ------
    ValueError
        A tokenizer of another kind.

    Examples
    --------
    >>> from tokenizers import Tokenizer, decoders, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> pieces = Tokenizer(models.BPE({"a": 0, "Ġa": 1, "Ã": 2, "©": 3, "</s>": 4}, []))
    >>> pieces.decoder = decoders.ByteLevel()
    >>> token_bytes(PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>"))
    [b'a', b' a', b'\xc3', b'\xa9', b'']
    """
    decoder = str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    if "ByteLevel" not in decoder and SPACE not in decoder:
        kind = type(tokenizer).__name__
        raise ValueError(
            f"tokenizer: bytes can be counted of byte-level and SentencePiece vocabularies, not of a {kind}"
        )
    read = _byte_level if "ByteLevel" in decoder else _sentencepiece
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    special = {token for token, what in added.items() if what.special}
    table = [b""] * (max(vocabulary.values()) + 1)
    for piece, token in vocabulary.items():
        if token not in special:
            table[token] = piece.encode() if token in added else read(piece)
    return table


def text_bytes(blocks: ArrayLike, tokenizer: "PreTrainedTokenizerBase") -> list[bytes]:
    """The text of each block (n, T) as bytes, which need not begin or end at a whole character.

    Special tokens, and numbers beyond the vocabulary (models have more than their tokenizer uses), leave nothing.

    Raises
    ------
    ValueError
        Blocks that are none; a tokenizer of another kind than `token_bytes` knows.

    Examples
    --------
    >>> from tokenizers import Tokenizer, decoders, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> pieces = Tokenizer(models.BPE({"a": 0, "Ġa": 1, "Ã": 2, "©": 3, "</s>": 4}, []))
    >>> pieces.decoder = decoders.ByteLevel()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>")
    >>> [text.decode() for text in text_bytes([[4, 0, 1, 1], [0, 2, 3, 5]], tokenizer)]
    ['a a a', 'aé']
    """
    tokens = checked_blocks(blocks, "blocks")
    known = token_bytes(tokenizer)
    table = known + [b""] * (int(tokens.max()) + 1 - len(known))
    return [b"".join([table[token] for token in block]) for block in tokens.tolist()]


def _byte_level(piece: str) -> bytes:
    known = all(character in BYTES for character in piece)  # if not, it stands for itself, as tokenizers decodes it
    return bytes(BYTES[character] for character in piece) if known else piece.encode()


def _sentencepiece(piece: str) -> bytes:
    is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
    return bytes([int(piece[3:5], 16)]) if is_byte else piece.replace(SPACE, " ").encode()
