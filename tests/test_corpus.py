"""Text from each of its sources, and the blocks made of it: what is read, and that nothing but the expected is."""

import hashlib
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import PreTrainedTokenizerFast

from hub import ASKED_ONCE, serving
from model_collapse import corpus as module
from model_collapse.corpus import BATCH, HUB, ROWS, Corpus, blocks, corpus
from model_collapse.data_splits import splits
from model_collapse.data_text import articles

SPLITS = ("train", "validation", "test")
FEW = {  # rows as WikiText-2 has them
    "train": ("", " = Café = \n", "", " A paragraph with a \x85 and a \u2028 in it . \n", " Another . \n"),
    "validation": ("", " = Valid = \n", " To choose by . \n"),
    "test": (" = Test = \n", " To judge by . \n"),
}
COUNTS = {split: len(rows) for split, rows in FEW.items()}
DIGEST = hashlib.sha256(json.dumps([FEW[split] for split in SPLITS]).encode()).hexdigest()


@pytest.fixture
def few(monkeypatch):
    """The loader expects a few rows instead of WikiText-2's."""
    monkeypatch.setattr(module, "ROWS", COUNTS)


def parquet(rows, column="text"):
    pq.write_table(pa.table({column: rows}), stream := io.BytesIO())
    return stream.getvalue()


def text(rows):
    """The original lines, of which the hub's rows were made."""
    return "".join(row or " \n" for row in rows).encode()


# Wikipedia


def test_wikipedia_is_the_paragraphs_of_the_splits_articles():
    found = corpus("wikipedia")
    parts = splits()
    for rows, part in zip(found[:3], (parts.train, parts.validation, parts.test), strict=True):
        assert "\n".join(rows) == "\n".join(text for _, text in part)
        assert not any("\n" in row for row in rows)
        assert min(len(row) for row in rows) >= 40  # none is empty
    assert found.digest == module.digest(*found[:3])
    assert found == corpus("wikipedia")


def test_no_paragraph_of_an_article_that_the_model_was_pretrained_on():
    rows = [set(rows) for rows in corpus("wikipedia")[:3]]
    titles = {title for part in splits()[:2] for title, _ in part}
    seen = {row for title, text in articles() if title in titles for row in text.split("\n")}
    assert len(titles) == 48
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not rows[one] & rows[other]
    assert not seen & set.union(*rows)


@pytest.mark.parametrize("name", ["Wikipedia", "wikitext", "", None, 5])
def test_other_names_are_refused(name):
    allowed = re.escape("('wikitext2', 'wikipedia')")
    with pytest.raises(ValueError, match=rf"^corpus = {name!r}: allowed are {allowed}$"):
        corpus(name)


def test_wikipedia_comes_from_no_folder(tmp_path):
    with pytest.raises(ValueError, match=f"^folder = '{tmp_path}': only wikitext2 may be read from a folder$"):
        corpus("wikipedia", tmp_path)


def test_digest_tells_splits_and_rows_apart():
    given = [(("a", "b"), (), ()), (("a",), ("b",), ()), (("ab",), (), ()), (("a", "c"), (), ()), (("b", "a"), (), ())]
    assert len({module.digest(*rows) for rows in given}) == len(given)


# WikiText-2 from the hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def on_hub(hub, few):
    """The hub offers few rows where WikiText-2 is."""
    for split, file in HUB.items():
        hub.add(file, parquet(FEW[split]))
    return hub


def test_where_wikitext2_is():
    revision = "b08601e04326c79dfdd32d625aee71d232d685c3"
    assert [(file.repo, file.revision, file.kind) for file in HUB.values()] == [
        ("Salesforce/wikitext", revision, "dataset")
    ] * 3
    assert [file.path for file in HUB.values()] == [
        f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet" for split in SPLITS
    ]
    assert ROWS == {"train": 36_718, "validation": 3_760, "test": 4_358}


def test_wikitext2_of_the_hub(on_hub, monkeypatch):
    expected = Corpus(FEW["train"], FEW["validation"], FEW["test"], "wikitext2", DIGEST)
    assert corpus("wikitext2") == expected
    assert on_hub.counted() == {request: 3 * n for request, n in ASKED_ONCE.items()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert corpus("wikitext2") == expected
    assert on_hub.counted() == {request: 3 * n for request, n in ASKED_ONCE.items()}


def test_without_network_and_cache(on_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"^{HUB['train']}: not in the cache, and offline mode is on"):
        corpus("wikitext2")
    assert not on_hub.asked


def test_a_renamed_data_set_is_found(on_hub, monkeypatch):
    on_hub.renamed["dataset", "somebody/text"] = "Salesforce/wikitext"
    renamed = {split: file._replace(repo="somebody/text") for split, file in HUB.items()}
    monkeypatch.setattr(module, "HUB", renamed)
    assert corpus("wikitext2").digest == DIGEST


def test_a_busy_hub_is_asked_again(on_hub):
    on_hub.faults["GET", "content"] = [503, 503]
    assert corpus("wikitext2").digest == DIGEST
    assert on_hub.waited == [1.0, 2.0]


@pytest.mark.parametrize("fault", [404, 503, "truncated"])
def test_what_the_hub_does_not_give_is_told_and_not_kept(on_hub, fault):
    on_hub.faults["GET", "content"] = [fault] * 9
    kind = FileNotFoundError if fault == 404 else OSError
    with pytest.raises(kind, match=f"^{HUB['train']}: (the hub does not have it|could not be fetched)") as caught:
        corpus("wikitext2")
    assert isinstance(caught.value, FileNotFoundError) == (fault == 404)
    on_hub.faults.clear()
    assert corpus("wikitext2").digest == DIGEST


def test_another_file_than_announced_is_refused(on_hub):
    on_hub.add(HUB["test"], parquet(FEW["test"]), announced="0" * 64)
    with pytest.raises(
        ValueError, match=f"^{HUB['test']}: .* is damaged or another version: expected SHA-256 {'0' * 64}"
    ):
        corpus("wikitext2")


STRANGE = {
    "html": (b"<html>", "expected a table with a column 'text' "),
    "cut": (parquet(FEW["train"])[:-20], "expected a table with a column 'text' "),
    "column": (parquet(FEW["train"], "sentence"), "expected a table with a column 'text' "),
    "numbers": (parquet([1, 2, 3, 4, 5]), "expected strings only in the column 'text'$"),
    "nothing": (parquet([*FEW["train"][:4], None]), "expected strings only in the column 'text'$"),
    "more": (parquet([*FEW["train"], ""]), "expected the 5 rows of WikiText-2's train split, found 6$"),
    "fewer": (parquet(FEW["train"][1:]), "expected the 5 rows of WikiText-2's train split, found 4$"),
}


@pytest.mark.parametrize("fault", STRANGE)
@pytest.mark.parametrize("source", ["hub", "folder"])
def test_what_is_not_the_table_of_text_is_refused(on_hub, tmp_path, fault, source):
    content, message = STRANGE[fault]
    on_hub.add(HUB["train"], content)
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train\S*\.parquet: {message}"):
        corpus("wikitext2", tmp_path if source == "folder" else None)


# WikiText-2 from a folder


SHORT = {"train": "train", "validation": "valid", "test": "test"}
FORMS = {
    "hub": [f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet" for split in SPLITS],
    "hub's files": [f"{split}-00000-of-00001.parquet" for split in SPLITS],
    "parquet": [f"{split}.parquet" for split in SPLITS],
    "short parquet": [f"{SHORT[split]}.parquet" for split in SPLITS],
    "original": [f"wiki.{SHORT[split]}.raw" for split in SPLITS],
    "text": [f"{split}.txt" for split in SPLITS],
    "short text": [f"{SHORT[split]}.txt" for split in SPLITS],
}


def write(folder, form):
    """Write the three splits; return their paths."""
    paths = [folder / name for name in FORMS[form]]
    for split, path in zip(SPLITS, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(parquet(FEW[split]) if path.suffix == ".parquet" else text(FEW[split]))
    return paths


@pytest.mark.parametrize("form", FORMS)
def test_folder_in_each_form_gives_the_rows_of_the_hub(few, tmp_path, monkeypatch, form):
    monkeypatch.setattr(module, "hub_file", pytest.fail)
    write(tmp_path, form)
    for folder in (tmp_path, str(tmp_path)):
        assert corpus("wikitext2", folder) == (FEW["train"], FEW["validation"], FEW["test"], "wikitext2", DIGEST)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", SPLITS)
def test_a_missing_split_is_named(few, tmp_path, form, split):
    write(tmp_path, form)[SPLITS.index(split)].unlink()
    spellings = (
        rf"wikitext-2-raw-v1/{split}-00000-of-00001\.parquet, .*wiki\.{SHORT[split]}\.raw, .*{SHORT[split]}\.txt$"
    )
    with pytest.raises(
        FileNotFoundError, match=rf"^{tmp_path}: the {split} split is missing: expected one of {spellings}"
    ):
        corpus("wikitext2", tmp_path)


def test_folder_and_hub_do_not_stand_in_for_each_other(on_hub, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=rf"^folder = '{tmp_path}/no': must be an existing folder$"):
        corpus("wikitext2", tmp_path / "no")
    assert not on_hub.asked
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "hub")
    on_hub.faults["HEAD", "resolve"] = [404]
    with pytest.raises(FileNotFoundError, match="the hub does not have it"):
        corpus("wikitext2")


def test_text_of_another_length_or_encoding_is_refused(few, tmp_path):
    path = write(tmp_path, "text")[0]
    path.write_bytes(text(FEW["train"]) + b" \n")
    with pytest.raises(ValueError, match=f"^{path}: expected the 5 rows of WikiText-2's train split, found 6$"):
        corpus("wikitext2", tmp_path)
    path.write_bytes(text(FEW["train"]).decode().encode("latin-1", "replace"))
    with pytest.raises(ValueError, match=rf"^{path}: expected text in UTF-8 \("):
        corpus("wikitext2", tmp_path)


def test_the_digest_tells_altered_text(few, tmp_path):
    path = write(tmp_path, "text")[2]
    path.write_bytes(path.read_bytes().replace(b"judge", b"<unk>"))
    assert corpus("wikitext2", tmp_path).digest != DIGEST


# Blocks


@pytest.fixture(scope="module")
def tokenizer():
    """A real tokenizer that, as OPT's, begins each row with </s>."""
    trained = ByteLevelBPETokenizer()
    rows = corpus("wikipedia").train[:200]
    trained.train_from_iterator(rows, vocab_size=500, special_tokens=["<pad>", "</s>"], show_progress=False)
    trained.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", model_max_length=16
    )


def made(train, other=("A row that fills a block of 64 tokens. " * 20,)):
    return Corpus(tuple(train), other, other, "example", "")


def test_blocks_are_the_text_in_order(tokenizer):
    rows = corpus("wikipedia").validation[:50]
    cut = blocks(made(rows), tokenizer).train
    joined = [token for row in rows for token in [1, *tokenizer.encode(row, add_special_tokens=False)]]
    assert cut.dtype == np.int32
    assert cut.shape == (len(joined) // 64, 64)
    assert cut.ravel().tolist() == joined[: cut.size]
    decoded = tokenizer.decode(cut.ravel())
    assert "</s>".join(["", *rows]).startswith(decoded)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_remainders_are_dropped_after_each_thousand_rows(tokenizer, size):
    assert BATCH == 1_000  # rows that the authors' code, by what its library does unless told, takes together
    rows = [f"Row {k}, {'and so on, ' * (k % 5)}" if k % 3 else "" for k in range(2 * BATCH + 300)]
    cut = blocks(made(rows), tokenizer, size).train
    expected = []
    for batch in (rows[:BATCH], rows[BATCH : 2 * BATCH], rows[2 * BATCH :]):
        joined = [token for row in batch for token in [1, *tokenizer.encode(row, add_special_tokens=False)]]
        expected += joined[: len(joined) // size * size]
    assert cut.ravel().tolist() == expected


def test_an_empty_row_is_a_lone_special_token(tokenizer):
    assert blocks(made([""] * 100), tokenizer, 10).train.tolist() == [[1] * 10] * 10


def test_a_row_ends_with_a_line_where_the_tokenizer_marks_none(tokenizer):
    bare = ByteLevelBPETokenizer()
    bare.train_from_iterator(["some text\n"], vocab_size=300)
    unmarked = PreTrainedTokenizerFast(tokenizer_object=bare._tokenizer)
    rows = ("one row", "another\n", "last")
    cut = blocks(Corpus(rows, rows, rows, "example", ""), unmarked, size=1)
    assert unmarked.decode(cut.train[:, 0]) == "one row\nanother\nlast\n"


def test_each_split_has_its_blocks(tokenizer):
    rows = {split: (f"The {split} split. " * (k + 5),) for k, split in enumerate(SPLITS)}
    cut = blocks(Corpus(*rows.values(), "example", ""), tokenizer, 8)
    for split in SPLITS:
        assert tokenizer.decode(getattr(cut, split)[0]).startswith(f"</s>The {split} "[:12])


@pytest.mark.parametrize("train", [(), ("Few.",), ("",) * 63])
def test_a_split_that_fills_no_block_is_refused(tokenizer, train):
    message = f"^train split of example: {len(train)} rows fill no block of size = 64 tokens$"
    with pytest.raises(ValueError, match=message):
        blocks(made(train), tokenizer)


@pytest.mark.parametrize("size", [0, -64, 64.0, None])
def test_sizes_are_positive_integers(tokenizer, size):
    with pytest.raises(ValueError, match=rf"^size = {size!r}: must be an integer >= 1$"):
        blocks(made(["Some text."] * 99), tokenizer, size)
