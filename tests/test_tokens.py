"""Bytes of tokens: against the texts that were tokenised, and against the decoders of tokenizers."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from model_collapse import tokens
from model_collapse.tokens import checked_blocks, text_bytes, token_bytes

TEXTS = [
    "The cat sat on the mat – twice.",
    "Été à Zürich: 25 °C, naïve œuvre.",
    "日本語のテキスト, also 中文 and 🙂🎉.\t(tab)",
    "a  b   c",
]


def byte_level(kinds=320):
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=kinds, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>")


def sentencepiece():
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"Thecatsonm.", "▁c", "at", "▁cat"]
    numbers = {piece: k for k, piece in enumerate(pieces)}
    model = models.BPE(
        numbers, [("▁", "c"), ("a", "t"), ("▁c", "at")], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    built = Tokenizer(model)
    built.normalizer = normalizers.Replace(" ", "▁")
    built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=built, unk_token="<unk>", bos_token="<s>")


KINDS = {"byte-level": byte_level, "SentencePiece": sentencepiece}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_the_tokens_of_a_text_are_its_bytes(tokenizer, text):
    numbers = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(numbers) > 3
    table = token_bytes(tokenizer)
    assert b"".join(table[token] for token in numbers) == text.encode()
    assert text_bytes([numbers], tokenizer) == [text.encode()]


def test_a_block_that_ends_inside_a_character_has_the_bytes_that_decoding_replaces(tokenizer):
    numbers = tokenizer("語", add_special_tokens=False)["input_ids"]
    halves = text_bytes([numbers[:1]], tokenizer)[0], text_bytes([numbers[1:]], tokenizer)[0]
    assert all(halves)
    assert b"".join(halves) == "語".encode()
    assert "\ufffd" in tokenizer.decode(numbers[:1])


def test_alphabet_is_that_of_the_tokenizers_library():
    assert sorted(tokens.BYTES) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(tokens.BYTES.values()) == list(range(256))
    for character, byte in tokens.BYTES.items():
        if byte < 128:
            assert decoders.ByteLevel().decode([character]).encode() == bytes([byte])
    every = "".join(chr(code) for code in (*range(0x80, 0x800), *range(0x1F300, 0x1F400)))
    numbers = byte_level(256 + 2)(every, add_special_tokens=False)["input_ids"]
    assert text_bytes([numbers], byte_level(256 + 2)) == [every.encode()]


def test_special_and_unknown_tokens_have_no_bytes_and_added_words_their_own():
    tokenizer = byte_level()
    plain = tokenizer("Été", add_special_tokens=False)["input_ids"]
    tokenizer.add_tokens([AddedToken("Ünï", special=False), AddedToken("<extra>", special=True)])
    numbers = tokenizer("<s>Ünï</s>Été<extra>")["input_ids"]
    assert numbers == [0, len(tokenizer) - 2, 1, *plain, len(tokenizer) - 1]
    assert text_bytes([[*numbers, 10**6]], tokenizer) == ["ÜnïÉté".encode()]
    assert len(token_bytes(tokenizer)) == len(tokenizer)


def test_pieces_outside_the_alphabet_are_read_as_tokenizers_reads_them():
    pieces = Tokenizer(models.BPE({"日本": 0, "Ġa": 1}, []))
    pieces.decoder = decoders.ByteLevel()
    assert [pieces.decode([0]), pieces.decode([1])] == ["日本", " a"]
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=pieces)) == ["日本".encode(), b" a"]


def test_tokenizers_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"tokenizer: .*not of a ByT5Tokenizer"):
        token_bytes(ByT5Tokenizer())
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "##a": 1}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="tokenizer: bytes can be counted of byte-level and SentencePiece"):
        text_bytes([[1]], PreTrainedTokenizerFast(tokenizer_object=words))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([[0.5, 1.0]], r"T >= 1, got float64 of shape \(1, 2\)"),
        ([1, 2], r"shape \(2,\)"),
        (np.zeros((0, 64), int), r"n >= 1.*shape \(0, 64\)"),
        (np.zeros((3, 0), int), r"shape \(3, 0\)"),
        ([[True, False]], "bool"),
        ([[3, -1]], "tokens must be >= 0, got -1"),
    ],
)
def test_blocks_that_are_none_are_refused(blocks, message):
    with pytest.raises(ValueError, match=f"data: .*{message}"):
        checked_blocks(blocks, "data")


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64])
def test_blocks_of_all_integers_are_taken_and_left_as_they_are(dtype):
    blocks = np.array([[1, 60_000 % np.iinfo(dtype).max]], dtype)
    checked = checked_blocks(blocks, "data")
    assert checked.dtype == np.int64
    checked[:] = 0
    assert blocks.any()
