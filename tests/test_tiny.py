"""The tiny language model that is shipped: it is what its model card says, and its script makes it."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

import pretrain
from model_collapse.corpus import Blocks, Corpus, blocks
from model_collapse.data_splits import DIGESTS
from model_collapse.data_text import WIKIPEDIA_SHA256, articles
from model_collapse.language_measures import bits_per_byte, block_losses, perplexity
from model_collapse.pretrained import pretrained
from model_collapse.torch_random import drawing_from

FOLDER = pretrain.FOLDER
CARD = json.loads((FOLDER / pretrain.CARD).read_bytes())
README = (FOLDER / pretrain.README).read_text(encoding="utf-8")
SMALL = pretrain.SHAPE | {"vocab_size": 300, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32}


@cache
def start():
    return pretrained("tiny")


@cache
def measured():
    return blocks(pretrain.texts(), start().tokenizer)


def test_files_are_those_of_the_card():
    files = {path.name for path in FOLDER.iterdir()} - {pretrain.CARD, pretrain.README}
    assert CARD["sha256"] == {name: pretrain.sha256(FOLDER / name) for name in files}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} < files
    assert start().revision == CARD["sha256"]["model.safetensors"]


def test_the_card_says_what_was_measured():
    assert pretrain.card(CARD) == README
    assert README.count("https://en.wikipedia.org/wiki/") == 42
    assert "CC BY-SA 3.0" in README
    for name in ("model.safetensors", "tokenizer.json"):
        assert f"`{CARD['sha256'][name]}`" in README


def test_data_are_those_of_the_card():
    assert CARD["wikipedia_sha256"] == WIKIPEDIA_SHA256
    assert CARD["articles_sha256"].items() <= DIGESTS.items()
    block = CARD["training"]["block"]
    assert blocks(pretrain.texts(), start().tokenizer, block).train.size == CARD["tokens"]


def test_the_shipped_model_was_trained_as_the_script_trains():
    training = dict(CARD["training"])
    assert len(training.pop("validation_perplexity")) == training["epochs"]
    assert training == pretrain.Training()._asdict()


@pytest.mark.parametrize(("name", "part"), [("pretraining_validation", "validation"), ("test", "test")])
def test_stated_perplexity_is_its_perplexity(name, part):
    rows, stated = getattr(measured(), part), CARD["measured"][name]
    losses = block_losses(start().model, rows)
    assert len(rows) == stated["blocks"]
    assert perplexity(losses).corpus == pytest.approx(stated["perplexity"], rel=1e-4)
    assert bits_per_byte(losses, rows, start().tokenizer) == pytest.approx(stated["bits_per_byte"], rel=1e-4)


def test_perplexity_by_hand():
    """The measure, on a few blocks, from logits in double precision."""
    rows = torch.tensor(measured().test[:8], dtype=torch.int64)
    with torch.no_grad():
        chances = start().model(rows).logits.double().log_softmax(-1)[:, :-1]
    losses = -chances.gather(-1, rows[:, 1:, None]).mean((1, 2))
    np.testing.assert_allclose(block_losses(start().model, measured().test[:8]), losses, rtol=1e-5)


def test_size_and_numbers_of_the_special_tokens():
    config, tokenizer = start().model.config, start().tokenizer
    assert sum(weights.numel() for weights in start().model.parameters()) == CARD["parameters"]
    assert 1e6 < CARD["parameters"] < 3e6
    assert (FOLDER / "model.safetensors").stat().st_size < 4e6
    assert tokenizer.convert_tokens_to_ids(pretrain.SPECIAL) == [0, 1, 2, 3]
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (2, 1, 2)
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (2, 1, 2)
    assert len(tokenizer) == config.vocab_size == 4096


def test_all_positions_were_trained():
    """A long text is predicted no worse where it is long."""
    block = CARD["training"]["block"]
    assert block == start().model.config.max_position_embeddings
    rows = torch.tensor(blocks(pretrain.texts(), start().tokenizer, block).test[:24], dtype=torch.int64)
    with torch.no_grad():
        chances = torch.cat([start().model(some).logits.log_softmax(-1)[:, :-1] for some in rows.split(8)])
    losses = -chances.gather(-1, rows[:, 1:, None])[..., 0].double().mean(0)
    early, late = losses[1:64], losses[-64:]
    assert (late.mean() - early.mean()) / (late.var() / 64 + early.var() / 63).sqrt() < 4


@pytest.mark.parametrize("text", ["Plain.", " two  spaces , and\ttabs\n", "Ångström – 日本 🙂", "it's </s> 1905"])
def test_tokenizer_gives_text_back_and_begins_it_with_the_end_token(text):
    tokens = start().tokenizer(text)["input_ids"]
    assert tokens[0] == start().tokenizer.eos_token_id
    assert start().tokenizer.decode(tokens[1:]) == text


def test_tokenizer_gives_every_article_back():
    texts = [text for _, text in articles()]
    assert start().tokenizer.batch_decode(start().tokenizer(texts)["input_ids"], skip_special_tokens=True) == texts


def test_tokenizer_is_made_anew_byte_for_byte(tmp_path):
    pretrain.tokenizer_of(pretrain.texts().train).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_check_names_what_differs(tmp_path, monkeypatch):
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert pretrain.check(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(pretrain, "texts", lambda: Corpus(("other text",) * 9, (), (), "", ""))
    message = f"{tmp_path}: not as the model card states: config.json, tokenizer.json"
    assert pretrain.check(tmp_path) == message


def small(folder, seed):
    """Train a small model for two short epochs, and save it."""
    text = pretrain.texts().train[:200]
    tokenizer = pretrain.tokenizer_of(text, SMALL["vocab_size"])
    cut = blocks(Corpus(text, text, text, "small", ""), tokenizer, 64)
    rows = Blocks(*(part[:24] for part in cut))
    training = pretrain.Training(seed=seed, epochs=2, block=64)
    model, history = pretrain.train(SMALL, rows.train, rows, training)
    pretrain.save(folder, model, tokenizer)
    return history, {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_follows_from_the_seed_and_learns(tmp_path, capsys):
    state = torch.get_rng_state()
    once, again, other = (small(tmp_path / name, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert torch.equal(torch.get_rng_state(), state)
    assert once == again
    assert once[1]["model.safetensors"] != other[1]["model.safetensors"]
    for (first, second), _ in (once, other):
        assert second < first < SMALL["vocab_size"] * 1.1
    assert "epoch 2 of 2: perplexity" in capsys.readouterr().out


def test_training_is_adamw_with_decay_cut_gradients_and_the_rate_of_each_step():
    """Without dropout, in the same order of blocks, a plain loop of torch ends with the same weights."""
    shape = SMALL | {"dropout": 0.0}
    rows = np.random.default_rng(0).integers(4, 300, (10, 16)).astype(np.int32)
    training = pretrain.Training(seed=3, epochs=1, block=16, warm_up=0.5, decay=0.5, clip=0.1)
    ours, _ = pretrain.train(shape, rows, Blocks(rows, rows, rows), training)
    with drawing_from(torch.Generator().manual_seed(3)):
        plain = OPTForCausalLM(OPTConfig(bos_token_id=2, eos_token_id=2, pad_token_id=1, **shape)).train()
        batches = torch.tensor(rows, dtype=torch.int64)[torch.randperm(10)].split(4)
    optimiser = torch.optim.AdamW(plain.parameters(), weight_decay=0.5)
    for batch, share in zip(batches, (2 / 3, 3 / 4, 0), strict=True):  # of the highest rate, in steps 1 to 3 of 3
        optimiser.param_groups[0]["lr"] = 3e-3 * share
        optimiser.zero_grad()
        plain(input_ids=batch, labels=batch).loss.backward()
        assert torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1) > 0.1
        optimiser.step()
    for name, value in plain.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), value, rtol=1e-5, atol=1e-6)


def test_learning_rate_rises_and_falls():
    training = pretrain.Training(warm_up=0.1)
    assert [pretrain.height(progress, training) for progress in (0, 0.05, 0.1, 0.55, 1)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0]
    )


def test_shipped_model_is_not_replaced_by_a_trial(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pretrain.py", "--epochs", "1"])
    with pytest.raises(SystemExit):
        pretrain.main()
    assert "the shipped model has 8" in capsys.readouterr().err
