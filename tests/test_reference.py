"""Stored reference runs: they are the runs that the book names, and what can be recomputed of them is recomputed."""

import json
import tomllib
from dataclasses import asdict
from itertools import islice

import numpy as np
import pytest
from numpy.random import default_rng
from safetensors.numpy import load

import reference_runs
from model_collapse import gmm, reference
from model_collapse.process import generations
from model_collapse.provenance import environment
from model_collapse.settings import Gmm

STORED = sorted(reference.RESULTS.glob("*.csv"))
WEIGHTS = sorted(reference.RESULTS.glob("*.safetensors"))
KEYS = {"experiment", "scale", "seed", "settings", "data", "generations", "seconds", "environment"}
MACHINE = {*environment(), "from_generation"}


def test_there_are_stored_runs_and_shipped_weights():
    assert STORED
    assert WEIGHTS


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.stem)
def test_a_stored_run_is_one_that_the_book_names_with_its_settings(file):
    name, _, seed = file.stem.rpartition("-seed")
    provenance, table = reference.read(file)
    piece = reference.piece(name)
    assert int(seed) in piece.seeds
    assert not reference.differs(piece, int(seed), provenance)
    assert provenance.keys() == KEYS
    assert all(machine.keys() == MACHINE for machine in provenance["environment"])
    assert table["generation"].tolist() == list(range(provenance["generations"]))
    assert np.isfinite(table.to_numpy()).all()


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
    again = reference_runs.recomputed(
        load(file.read_bytes()), load((reference.RESULTS / f"{stem}-generation0.safetensors").read_bytes())
    )
    assert again.keys() == stored.keys()
    for name, value in stored.items():
        assert again[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("file", WEIGHTS, ids=lambda file: file.stem)
def test_shipped_weights_are_those_of_the_run(file):
    """Rounded to float16 and on other digits, the bound of a generation stays near the one that its run stored."""
    stem, _, generation = file.stem.rpartition("-generation")
    stored = json.loads((reference.RESULTS / f"{stem}-weights.json").read_text())[generation]
    _, table = reference.read(reference.RESULTS / f"{stem}.csv")
    assert stored["elbo"] == pytest.approx(table.set_index("generation")["elbo"][int(generation)], rel=0.03)
    assert float(load(file.read_bytes())["loss"]) == pytest.approx(
        table.set_index("generation")["training_loss"][int(generation)], rel=1e-3
    )


@pytest.mark.parametrize("name", ["gmm-500", "gmm-1000"])
def test_the_first_generations_of_a_mixture_come_out_again(name):
    piece = reference.piece(name)
    stored = reference.reference(name).table.query("seed == 0").set_index("generation")
    run = generations(gmm.family(piece.settings), gmm.original(piece.settings), default_rng(0), sizes=piece.settings.n)
    first = None
    for g in islice(run, 4):
        first = first or g.theta
        for metric, value in gmm.measure(g, first, piece.settings).items():
            assert value == pytest.approx(stored[metric][g.index], rel=1e-5, abs=1e-9), (g.index, metric)


def test_what_is_missing_stale_or_unfinished_is_outstanding(tmp_path):
    piece = reference.piece("gmm-1000")
    provenance = {"seed": 0, "settings": asdict(Gmm(n=50)), "generations": 2051}
    (tmp_path / "gmm-1000-seed0.csv").write_text(f"# {json.dumps(provenance)}\ngeneration\n0\n")
    provenance = {"seed": 1, "settings": asdict(piece.settings), "generations": 7}
    (tmp_path / "gmm-1000-seed1.csv").write_text(f"# {json.dumps(provenance)}\ngeneration\n0\n")
    provenance = {"seed": 2, "settings": asdict(piece.settings), "generations": 2051}
    (tmp_path / "gmm-1000-seed2.csv").write_text(f"# {json.dumps(provenance)}\ngeneration\n0\n")
    found = {(p.name, seed): why for p, seed, why in reference.outstanding(tmp_path)}
    assert found["gmm-1000", 0] == "stale: n is 50, should be 1000"
    assert found["gmm-1000", 1] == "finished as far as generation 6"
    assert ("gmm-1000", 2) not in found
    assert found["gmm-1000", 3] == "missing"
    with pytest.raises(ValueError, match=r"gmm-1000-seed0\.csv: stale"):
        reference.reference("gmm-1000", tmp_path)


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
    assert len(paper["gmm"]["n"]) == len(paper["gmm"]["l2_squared"])
