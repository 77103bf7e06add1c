"""Diversity of text: plain Python twins, exact cases, and what chance alone loses by simulation."""

import zlib
from collections import Counter
from math import log2

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from model_collapse.diversity import compression, diversity, ngrams, repeated

BIG = 2**31 - 2  # tokens of any size are told apart


def text(rng, n=40, T=24, K=9):
    """Blocks with frequent and rare tokens, loops and copies."""
    blocks = rng.zipf(1.6, (n, T)) % K
    blocks[::5, T // 2 :] = np.tile(blocks[::5, :3], (1, T))[:, : T - T // 2]
    blocks[7] = blocks[1]
    return blocks


CASES = {
    "few tokens": text(np.random.default_rng(0)).astype(np.int32),
    "many tokens": text(np.random.default_rng(1), K=300),
    "large numbers": BIG - text(np.random.default_rng(2), n=8, K=50),
    "larger numbers": 2**62 + text(np.random.default_rng(2), n=8, K=50),
    "one block": text(np.random.default_rng(3), n=8)[5:6],
    "shortest": text(np.random.default_rng(4), n=30, T=4),
    "constant": np.full((5, 8), 3),
}


def grams(block, n):
    return [tuple(block[i : i + n]) for i in range(len(block) - n + 1)]


def plain(blocks, reference):
    blocks, reference = (np.asarray(part).tolist() for part in (blocks, reference))
    row = {}
    for n in (1, 2, 3, 4):
        every = [gram for block in blocks for gram in grams(block, n)]
        row[f"distinct_{n}"] = len(set(every)) / len(every)
    shares = []
    for block in blocks:
        four = grams(block, 4)
        shares.append(sum(gram in four[:i] for i, gram in enumerate(four)) / len(four))
    row["repeated_4"] = sum(shares) / len(shares)
    row["unique_blocks"] = len({tuple(block) for block in blocks}) / len(blocks)
    counts, real = (Counter(token for block in part for token in block) for part in (blocks, reference))
    rare = [token for token, count in real.items() if count <= 5]
    M, N = counts.total(), real.total()
    row["vocabulary"] = len(counts)
    row["vocabulary_lost"] = sum(token not in counts for token in real) / len(real)
    row["vocabulary_lost_by_chance"] = sum((1 - count / N) ** M for count in real.values()) / len(real)
    row["rare_recall"] = sum(token in counts for token in rare) / len(rare)
    row["rare_recall_by_chance"] = sum(1 - (1 - real[token] / N) ** M for token in rare) / len(rare)
    row["entropy"] = sum(count / M * log2(M / count) for count in counts.values())
    return row


@pytest.mark.parametrize("case", CASES)
def test_measures_are_those_of_the_plain_loops(case):
    blocks, reference = CASES[case], np.array([[0, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4, 500, 501]])
    before = blocks.copy()
    row = diversity(blocks, reference)
    expected = plain(blocks, reference)
    assert list(row) == list(expected)
    assert row == pytest.approx(expected, rel=1e-12)
    assert all(type(value) is float for value in row.values())
    np.testing.assert_array_equal(blocks, before)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_numbers_of_ngrams_are_in_their_order(case, n):
    every = [grams(block, n) for block in CASES[case].tolist()]
    order = {gram: rank for rank, gram in enumerate(sorted({gram for block in every for gram in block}))}
    numbers = ngrams(CASES[case], n)
    assert numbers.dtype == np.int64
    ranks = np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape)
    assert ranks.tolist() == [[order[gram] for gram in block] for block in every]


def test_many_large_tokens_do_not_collide():
    """65,536 distinct tokens: more than three of them do not fit into 63 bits. Each n-gram occurs twice."""
    blocks = np.random.default_rng(0).permutation(2**16).reshape(1024, 64) * (BIG // 2**16)
    row = diversity(np.tile(blocks, (2, 1)), [[0]])
    assert [row[f"distinct_{n}"] for n in (1, 2, 3, 4)] == [0.5] * 4
    assert row["repeated_4"] == 0
    other = blocks.copy()
    other[:, 0] = np.roll(blocks[:, 0], 1)  # differs from the first in nothing else
    for n in (2, 3, 4, 5, 6):
        assert len(np.unique(ngrams(np.vstack([blocks, other]), n))) == 1024 * (65 - n + 1)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_repetition_is_that_of_the_plain_loops(n):
    for blocks in (CASES["few tokens"], CASES["large numbers"]):
        shares = [1 - len(set(grams(block, n))) / len(grams(block, n)) for block in blocks.tolist()]
        assert 0 < np.mean(shares) < 1
        assert repeated(blocks, n) == pytest.approx(np.mean(shares), rel=1e-12)


def test_a_loop_and_a_text_without_repetition():
    loop, walk = np.tile([5, 6], (3, 32)), np.arange(192).reshape(3, 64)
    row = diversity(loop, walk)
    assert (row["repeated_4"], row["unique_blocks"], row["vocabulary"]) == (59 / 61, 1 / 3, 2)
    assert (row["distinct_4"], row["entropy"]) == (2 / 183, 1)
    assert (row["vocabulary_lost"], row["rare_recall"]) == (190 / 192, 2 / 192)
    row = diversity(walk, walk)
    assert (row["repeated_4"], row["unique_blocks"], row["vocabulary"]) == (0, 1, 192)
    assert (row["distinct_4"], row["entropy"]) == (1, pytest.approx(log2(192)))
    assert (row["vocabulary_lost"], row["rare_recall"]) == (0, 1)


def test_rare_means_at_most_five_times():
    reference = [[1] * 5 + [2] * 6 + [3] * 4]
    assert diversity([[1, 2, 2, 2]], reference)["rare_recall"] == 1 / 2
    assert diversity([[2, 2, 2, 2]], reference)["rare_recall"] == 0


def test_tokens_drawn_with_the_frequencies_of_the_reference_lose_what_chance_loses():
    rng = np.random.default_rng(0)
    reference = (rng.zipf(1.5, (30, 64)) % 400).astype(np.int32)
    rows = [diversity(rng.permuted(rng.choice(reference.ravel(), (20, 64))), reference) for _ in range(300)]
    for name in ("vocabulary_lost", "rare_recall"):
        exact = {row[f"{name}_by_chance"] for row in rows}
        assert len(exact) == 1
        seen = np.array([row[name] for row in rows])
        assert 0.05 < seen.mean() < 0.95
        assert abs((seen.mean() - exact.pop()) / (seen.std(ddof=1) / np.sqrt(len(seen)))) < 4


# Compression


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = Tokenizer(models.BPE({piece: k for k, piece in enumerate([*alphabet, "</s>"])}, []))
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>")


def test_compression_is_that_of_the_lines(tokenizer):
    rng, speech = np.random.default_rng(0), "to be or not that is the question – whether ’tis nobler été 語"
    rows = [tokenizer(" ".join(rng.choice(speech.split(), 30)))["input_ids"][:63] for _ in range(60)]
    blocks = np.array([[tokenizer.eos_token_id, *row] for row in rows])
    whole = [row for row in rows if "\ufffd" not in tokenizer.decode(row)]
    assert 30 < len(whole) < 60
    text = b"\n".join(tokenizer.decode(row).encode() for row in whole)
    blocks = blocks[[row in whole for row in rows]]
    assert len(zlib.compress(text, 1)) > len(zlib.compress(text, 9))
    assert compression(blocks, tokenizer) == len(text) / len(zlib.compress(text, 9))


def test_compression_tells_loops_and_copies_from_varied_text(tokenizer):
    rng = np.random.default_rng(0)
    varied = rng.integers(256, size=(100, 64))
    copies, loops = np.tile(varied[:1], (100, 1)), np.tile(varied[:, :4], (1, 16))
    ratios = [compression(blocks, tokenizer) for blocks in (varied, loops, copies)]
    assert ratios[0] == pytest.approx(1, abs=0.01)  # random bytes cannot be compressed
    assert 1.01 < ratios[1] < ratios[2]


# What is refused


def test_what_has_no_ngram_or_no_rare_token_is_refused(tokenizer):
    blocks = np.arange(12).reshape(3, 4)
    for call in (lambda: diversity(blocks[:, :3], blocks), lambda: repeated(blocks[:, :3])):
        with pytest.raises(ValueError, match=r"blocks: must be .*T >= 4, got int64 of shape \(3, 3\)"):
            call()
    with pytest.raises(ValueError, match=r"T >= 5"):
        ngrams(blocks, 5)
    with pytest.raises(ValueError, match="n = 0: must be an integer >= 1"):
        ngrams(blocks, 0)
    with pytest.raises(ValueError, match=r"reference: .*shape \(0, 4\)"):
        diversity(blocks, blocks[:0])
    with pytest.raises(ValueError, match="reference: each of its tokens occurs more than 5 times"):
        diversity(blocks, [[1] * 6, [2] * 6])
    with pytest.raises(ValueError, match="blocks: hold special tokens only"):
        compression(np.full((2, 4), tokenizer.eos_token_id), tokenizer)
