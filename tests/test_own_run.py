"""A reader's own run: what it says, where it is kept, what it refuses; and that a free T4 is enough for `colab`."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from model_collapse import own_run as module
from model_collapse.experiments import build
from model_collapse.own_run import disk, own_run, plan
from model_collapse.reference import read
from model_collapse.runs import SPARE, folder_of
from model_collapse.scales import minutes_on_t4, operations, operations_by_precision, scale_card
from model_collapse.settings import Gmm, Lm, Vae, scale

SHORT = Gmm(n=50, last_generation=3)


@pytest.fixture
def said():
    return []


@pytest.mark.parametrize("kind", [Gmm, Vae, Lm])
def test_the_small_scale_runs_nothing(kind, tmp_path, said):
    assert own_run(scale(kind, "small"), 0, build, out=tmp_path, say=said.append) is None
    assert said == ["SCALE = 'small': nothing beyond this page is run."]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        (scale(Lm, "colab"), "model-collapse run lm --scale colab, 4 days"),
        (scale(Lm, "paper"), "model-collapse run lm --scale paper, 40 days"),
        (scale(Vae, "paper"), "model-collapse run vae --scale colab (the same as paper), 5.5 hours"),
        (Vae(epochs=3), "33 minutes"),
    ],
)
def test_without_a_gpu_networks_are_left_alone(settings, instead, tmp_path, said, monkeypatch):
    monkeypatch.setattr(module, "_gpu", lambda: False)
    assert own_run(settings, 0, build, out=tmp_path, say=said.append) is None
    assert said == [f"No GPU: the page stays at small scale. Without one: {instead} on one processor core."]


def test_a_run_says_first_what_it_takes_and_gives_its_file(tmp_path, said):
    table = own_run(SHORT, 0, build, out=tmp_path, say=said.append)
    folder = folder_of(tmp_path, SHORT, 0)
    assert said[0] == plan(SHORT, 0, tmp_path)
    assert [line.partition(":")[0] for line in said[0].splitlines()] == [
        "generations",
        "time",
        "memory",
        "disk",
        "kept in",
    ]
    assert said[0].endswith(f"kept in: {folder}")
    assert said[-1] == f"Finished: {folder / 'results.csv'}"
    assert table.equals(read(folder / "results.csv")[1])
    assert table["generation"].tolist() == [0, 1, 2, 3]


def test_what_is_cut_off_goes_on_to_the_same_end(tmp_path, said):
    whole = own_run(SHORT, 0, build, out=tmp_path / "whole", say=said.append)

    def cut_off(settings, rng, tick):
        experiment = build(settings, rng, tick)

        def observe(g, first, rng):
            if g.index == 2:
                raise KeyboardInterrupt
            return experiment.observe(g, first, rng)

        return experiment._replace(observe=observe)

    with pytest.raises(KeyboardInterrupt):
        own_run(SHORT, 0, cut_off, out=tmp_path / "cut", say=said.append)
    said.clear()
    again = own_run(SHORT, 0, build, out=tmp_path / "cut", say=said.append)
    assert f"{folder_of(tmp_path / 'cut', SHORT, 0)}: goes on after generation 1" in said
    assert again.drop(columns="seconds", errors="ignore").equals(whole.drop(columns="seconds", errors="ignore"))


def test_the_drive_is_used_where_it_is_mounted(tmp_path, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DRIVE", tmp_path / "MyDrive")
    own_run(SHORT, 0, build, say=said.append)
    assert (tmp_path / "runs").is_dir()
    (tmp_path / "MyDrive").mkdir()
    own_run(SHORT, 0, build, say=said.append)
    assert folder_of(tmp_path / "MyDrive" / "model-collapse", SHORT, 0).is_dir()


def test_in_colab_without_a_drive_the_loss_is_announced(tmp_path, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "DRIVE", tmp_path / "MyDrive")
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    own_run(SHORT, 0, build, say=said.append)
    assert said[0].startswith("No Drive is mounted: this run is lost with the session.")
    said.clear()
    (tmp_path / "MyDrive").mkdir()
    own_run(SHORT, 0, build, say=said.append)
    assert not any("No Drive" in line for line in said)


CASES = [scale(Vae, "colab"), scale(Lm, "colab"), Vae(batch=4_096), replace(scale(Lm, "colab"), batch=64), Lm(epochs=2)]


@pytest.mark.parametrize("settings", CASES)
def test_too_small_a_memory_names_a_smaller_batch(settings, tmp_path, said, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "_gpu", lambda: True)
    monkeypatch.setattr(module, "speed", lambda numbers: 1e12)
    with pytest.raises(RuntimeError, match=f"batch = {settings.batch}: too large") as error:
        own_run(settings, 0, exhausted, out=tmp_path, say=said.append)
    _, line, argument = str(error.value).splitlines()
    chapter = {"Lm": Lm, "Vae": Vae, "scale": scale}  # what its first cell imports
    exec(line, chapter)
    assert eval(argument, chapter) == replace(settings, batch=settings.batch // 2)
    if settings == scale(Lm, "colab"):
        assert argument == "replace(scale(Lm, 'colab'), batch=64)"


def test_other_errors_are_handed_on(tmp_path, said):
    def broken(*_):
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match=r"^no such thing$"):
        own_run(SHORT, 0, broken, out=tmp_path, say=said.append)


@pytest.mark.parametrize("kind", [Vae, Lm])
def test_a_free_t4_takes_the_colab_scale_in_an_hour(kind):
    """At a tenth of its speed in products, and within its 16 GB."""
    settings = scale(kind, "colab")
    assert 1 < minutes_on_t4(settings) < 60
    assert float(scale_card(settings).loc["memory"].iloc[0].removesuffix(" GB")) < 15


def test_losses_are_counted_in_single_precision():
    """Validation after two epochs, test and data; in the first of four generations test twice more."""
    settings = Lm(blocks=100, validation=10, test=8, epochs=2, precision="half", last_generation=3)
    found = operations_by_precision(settings)
    block = 2 * 125.2e6 * 64
    assert found == pytest.approx({"half": 100 * (6 + 1 + 5) * block, "float32": (20 + 8 + 100 + 4) * block})
    single = replace(settings, precision="float32")
    assert operations_by_precision(single) == pytest.approx({"float32": sum(found.values())})
    assert operations(single) == pytest.approx(operations(settings))


def test_time_is_a_range_from_the_speeds_that_are_measured(monkeypatch):
    monkeypatch.setattr(module, "_gpu", lambda: True)
    monkeypatch.setattr(module, "speed", {"float16": 1e13, "float32": 1e12}.__getitem__)
    needed = 11 * operations(Vae()) / 1e12 / 60
    assert f"time: {2 * needed:.0f} to {10 * needed:.0f} minutes, at 50% to 10% of 1 TFLOP/s" in plan(Vae(), 0, "runs")
    settings = scale(Lm, "colab")
    each = operations_by_precision(settings)
    needed = 10 * (each["half"] / 1e13 + each["float32"] / 1e12) / 60
    text = f"{2 * needed:.0f} to {10 * needed:.0f} minutes, at 50% to 10% of 10 TFLOP/s (half) and 1 TFLOP/s (float32)"
    assert text in plan(settings, 0, "runs")


@pytest.mark.parametrize("kind", [Gmm, Vae, Lm])
def test_the_disk_that_is_announced_is_what_the_run_demands(kind):
    settings = scale(kind, "small")
    built = build(settings, np.random.default_rng(0))
    on_the_way = built.unfinished.size if built.unfinished else 0
    demanded = built.size * (settings.last_generation + 1) + on_the_way + SPARE
    assert disk(settings) == pytest.approx(demanded, rel=0.01)


def test_of_unknown_models_nothing_is_guessed(monkeypatch):
    monkeypatch.setattr(module, "_gpu", lambda: True)
    text = plan(Lm(model="owner/name"), 0, "runs")
    assert "memory: depends on the model\ndisk: depends on the model" in text
