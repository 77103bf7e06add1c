"""The language models' experiment as a run: what it measures, stores and finds again, with the tiny model."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load

from model_collapse import language, runs
from model_collapse.corpus import Blocks, Corpus, blocks, corpus
from model_collapse.diversity import compression, diversity
from model_collapse.experiments import build
from model_collapse.language_experiment import Observer, experiment, split
from model_collapse.language_measures import bits_per_byte, block_losses, tail
from model_collapse.pretrained import TINY_SHA256, pretrained
from model_collapse.process import Generation
from model_collapse.scales import scale_card
from model_collapse.settings import Lm, scale
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


# What is measured, on a few blocks


PARTS = np.random.default_rng(0).integers(5, 4096, (4, 8, 64)).astype(np.int32)  # no two of them have a block in common


@pytest.fixture(scope="module")
def thetas():
    """Of generation 0 and 1, by no means the pretrained one; each of an epoch that was not the last."""
    weights = language.packed(pretrained("tiny").model)
    shrunk = [{name: value * share for name, value in weights.items()} for share in (0.9, 0.8)]
    return [language.Theta(w, np.array([5.0, 4.0, 6.0]) + i, 2) for i, w in enumerate(shrunk)]


@pytest.fixture(scope="module")
def observed(thetas):
    """Metrics of generations 0 and 1: original data that are not all of the training blocks, and written ones."""
    train, validation, test, written = PARTS
    observer = Observer(pretrained("tiny"), Blocks(train, validation, test), train[:6])
    data = train[:6], written[:6]
    return [observer(Generation(i, data[i], thetas[i]), thetas[0])[0] for i in range(2)]


def losses(theta, rows):
    return block_losses(language.place(pretrained("tiny").model, theta.weights), rows)


@pytest.mark.parametrize("i", [0, 1])
def test_the_model_is_measured_on_test_blocks_and_by_the_epoch_that_was_kept(observed, thetas, i):
    of_test = losses(thetas[i], PARTS[2])
    assert observed[i]["perplexity"] == pytest.approx(np.exp(of_test.mean()), rel=1e-6)
    bits = bits_per_byte(of_test, PARTS[2], pretrained("tiny").tokenizer)
    assert observed[i]["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert (observed[i]["epoch"], observed[i]["validation_perplexity"]) == (2, np.exp(4.0 + i))


@pytest.mark.parametrize(("name", "i", "part"), [("tail", 0, 0), ("tail", 1, 3), ("unseen", 0, 2)])
def test_text_is_measured_under_the_model_of_generation_0_and_against_the_original_data(
    observed, thetas, name, i, part
):
    rows = PARTS[part] if name == "unseen" else PARTS[part][:6]
    expected = tail(losses(thetas[0], rows), losses(thetas[0], PARTS[0][:6]))
    found = {key: observed[i][f"{name}_{key}"] for key in expected}
    assert found == pytest.approx(expected, rel=1e-5)


def test_variety_is_that_of_the_written_blocks_beside_the_original_data(observed):
    expected = diversity(PARTS[3][:6], PARTS[0][:6])
    assert {name: observed[1][name] for name in expected} == expected
    assert observed[1]["compression"] == compression(PARTS[3][:6], pretrained("tiny").tokenizer)


def test_each_part_is_cut_from_its_own_blocks_evenly():
    ten = np.arange(10, dtype=np.int32)[:, None].repeat(64, 1)
    few = split(Blocks(ten, ten + 10, ten + 20), Lm(validation=5, test=2))
    assert [part[:, 0].tolist() for part in few] == [[*range(10)], [10, 12, 14, 16, 18], [20, 25]]


def test_what_a_run_starts_from_is_noted(monkeypatch):
    numbers = (" ".join(map(str, range(1_000))),)
    few = Corpus(numbers, numbers, numbers, "few", "a digest")
    monkeypatch.setattr("model_collapse.language_experiment.corpus", lambda *_: few)
    settings, start = replace(SETTINGS, blocks=4, validation=2, test=2), pretrained("tiny")
    assert experiment(settings, start=start).origin == {"revision": TINY_SHA256}
    of_hub = experiment(replace(settings, corpus="wikitext2"), start=start)
    assert of_hub.origin == {"revision": TINY_SHA256, "corpus": "a digest"}


def test_the_scale_card_counts_short_batches_and_every_pass_over_the_blocks():
    """Three epochs of three products, the prompt, five beams; losses of validation, test (at first thrice), data."""
    small = scale(Lm, "small")
    assert scale_card(replace(small, blocks=250)).iloc[:, 0]["steps a generation"] == "48"
    passes = 3 * (15 * 256 + 3 * 64 + 128 + 256) + 2 * 128
    assert scale_card(small).iloc[:, 0]["time, one seed"] == f"{2 * 1.35e6 * 64 * passes / 4e10 / 60:.2g} minutes"


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"test = 100000: there are only \d+ blocks; 0 stands for all"):
        experiment(replace(SETTINGS, test=100_000))
