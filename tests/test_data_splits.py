"""The division of the Wikipedia articles."""

import hashlib
import json

import pytest

from model_collapse import data_splits
from model_collapse.data_splits import splits
from model_collapse.data_text import articles


def test_parts_are_disjoint_and_make_up_all_articles():
    titles = [title for part in splits() for title, _ in part]
    texts = [text for part in splits() for _, text in part]
    assert len(set(titles)) == len(titles) == len(articles())
    assert len(set(texts)) == len(texts)
    assert sorted(article for part in splits() for article in part) == sorted(articles())


def test_no_paragraph_stands_in_two_parts():
    paragraphs = [{line for _, text in part for line in text.split("\n")} for part in splits()]
    assert sum(map(len, paragraphs)) == len(set.union(*paragraphs))


def test_sizes_and_digests_are_those_stated():
    parts = splits()._asdict()
    assert {name: len(part) for name, part in parts.items()} == data_splits.SIZES
    for name, part in parts.items():
        content = json.dumps([[title, text] for title, text in part], ensure_ascii=False).encode()
        assert hashlib.sha256(content).hexdigest() == data_splits.DIGESTS[name]


def test_another_order_is_refused(monkeypatch):
    monkeypatch.setattr(data_splits, "SEED", 1)
    with pytest.raises(ValueError, match=r"^the part pretraining of the articles is damaged or another version"):
        data_splits.splits.__wrapped__()
