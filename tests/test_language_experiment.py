"""The language models' experiment as a run: what it measures, stores and finds again, with the tiny model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load

from model_collapse import language, runs
from model_collapse.corpus import blocks, corpus
from model_collapse.experiments import build
from model_collapse.language_experiment import experiment, split
from model_collapse.language_measures import block_losses
from model_collapse.pretrained import pretrained
from model_collapse.settings import Lm
from model_collapse.stored import METRICS, SAMPLES, WEIGHTS, Stored

SETTINGS = Lm(
    model="tiny", corpus="wikipedia", blocks=24, validation=4, test=6, epochs=1, batch=8, learning_rate=2e-4,
    last_generation=2, alpha=0.75, gamma=0.25,
)  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    runs.run(SETTINGS, 0, out, build, say=lambda text: None)
    return Stored(runs.folder_of(out, SETTINGS, 0))


def metrics(stored, i):
    return json.loads(stored.read(i, METRICS))["metrics"]


def test_every_generation_has_the_same_finite_metrics_and_the_first_some_more(stored):
    first, *later = [metrics(stored, i) for i in range(3)]
    unknown = {name for m in (first, *later) for name, value in m.items() if not np.isfinite(value)}
    assert unknown == {"perplexity_authors_band", "zero_shot_perplexity_authors_band"}  # a single batch has none
    assert later[0].keys() == later[1].keys()
    assert {name.partition("_")[0] for name in first.keys() - later[0].keys()} == {"zero", "unseen"}


def test_perplexities_are_those_of_the_stored_weights_on_the_real_test_blocks(stored):
    start = pretrained("tiny")
    text = split(blocks(corpus("wikipedia"), start.tokenizer), SETTINGS)
    zero_shot = np.exp(block_losses(start.model, text.test).mean())
    assert metrics(stored, 0)["zero_shot_perplexity"] == pytest.approx(zero_shot, rel=1e-4)
    for i in (0, 2):
        model = language.place(start.model, language.unpack(load(stored.read(i, WEIGHTS))).weights)
        again = np.exp(block_losses(model, text.test).mean())
        assert metrics(stored, i)["perplexity"] == pytest.approx(again, rel=1e-6)


def test_the_original_data_are_evenly_spread_training_blocks_and_a_quarter_of_them_stays(stored):
    train = blocks(corpus("wikipedia"), pretrained("tiny").tokenizer).train
    first, second = (load(stored.read(i, SAMPLES))["data"] for i in (0, 1))
    np.testing.assert_array_equal(first, train[np.arange(24) * len(train) // 24])
    assert (first == second).all(1).sum() == 6


def test_a_generation_is_written_by_the_weights_of_the_one_before(stored):
    """From what is stored alone, the text of generation 2 comes out again, but for the real blocks in it."""
    start, data = pretrained("tiny"), [load(stored.read(i, SAMPLES))["data"] for i in range(3)]
    model = language.place(start.model, language.unpack(load(stored.read(1, WEIGHTS))).weights)
    written = np.flatnonzero(~(data[2] == data[0]).all(1))
    again = language.write(model, data[0][written], np.random.default_rng(0), SETTINGS)
    np.testing.assert_array_equal(again, data[2][written])


def test_a_run_that_goes_on_writes_nothing_anew_of_what_is_stored(stored, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    runs.run(replace(SETTINGS, last_generation=1), 0, out, build, say=lambda text: None)
    short = runs.folder_of(out, replace(SETTINGS, last_generation=1), 0)
    folder = runs.folder_of(out, SETTINGS, 0)
    folder.mkdir()
    for i in range(2):
        (short / f"generation-00{i}").rename(folder / f"generation-00{i}")
    settings = json.loads((short / "settings.json").read_text())
    settings["settings"]["last_generation"] = 2
    (folder / "settings.json").write_text(json.dumps(settings))
    asked = []

    def write(model, prompts, *rest, usual=language.write):
        asked.append(len(prompts))
        return usual(model, prompts, *rest)

    monkeypatch.setattr(language, "write", write)
    runs.run(SETTINGS, 0, out, build, say=lambda text: None)
    assert asked == [1, 18]  # one block to see whether the model can write; and the last generation's
    for i in range(3):
        assert Stored(folder).read(i, WEIGHTS) == stored.read(i, WEIGHTS)
        assert Stored(folder).read(i, SAMPLES) == stored.read(i, SAMPLES)
    assert not list(folder.glob("unfinished-*"))


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"test = 100000: there are only \d+ blocks; 0 stands for all"):
        experiment(replace(SETTINGS, test=100_000))
