"""A reader's own run: what it says, where it is kept, what it refuses; and that a free T4 is enough for `colab`."""

import pytest
import torch

from model_collapse import own_run as module
from model_collapse.experiments import build
from model_collapse.own_run import own_run, plan
from model_collapse.reference import read
from model_collapse.runs import folder_of
from model_collapse.scales import T4, operations, scale_card
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_networks_are_left_alone(tmp_path, said):
    assert own_run(scale(Vae, "colab"), 0, build, out=tmp_path, say=said.append) is None
    (line,) = said
    assert line == "No GPU: the page stays at small scale (without one: model-collapse run vae --scale paper)."


def test_a_run_says_first_what_it_takes_and_gives_its_file(tmp_path, said):
    table = own_run(SHORT, 0, build, out=tmp_path, say=said.append)
    folder = folder_of(tmp_path, SHORT, 0)
    assert said[0] == plan(SHORT, 0, tmp_path)
    assert [line.partition(":")[0] for line in said[0].splitlines()] == ["generations", "time", "memory", "kept in"]
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


def test_too_small_a_memory_names_a_smaller_batch(tmp_path, said, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "_gpu", lambda: True)
    monkeypatch.setattr(module, "speed", lambda numbers: 1e12)
    with pytest.raises(RuntimeError, match=r"batch = 256: too large .* replace\(settings, batch=128\)"):
        own_run(Vae(), 0, exhausted, out=tmp_path, say=said.append)


def test_other_errors_are_handed_on(tmp_path, said):
    def broken(*_):
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match=r"^no such thing$"):
        own_run(SHORT, 0, broken, out=tmp_path, say=said.append)


@pytest.mark.parametrize("kind", [Vae, Lm])
def test_a_free_t4_takes_the_colab_scale_in_an_hour(kind):
    """At a tenth of its speed in products, and within its 16 GB."""
    settings = scale(kind, "colab")
    speed = T4[getattr(settings, "precision", "float32")]
    minutes = (settings.last_generation + 1) * operations(settings) / (0.1 * speed) / 60
    assert 1 < minutes < 60
    assert float(scale_card(settings).loc["memory"].iloc[0].removesuffix(" GB")) < 15


def test_time_is_a_range_from_the_speed_that_is_measured(monkeypatch):
    monkeypatch.setattr(module, "_gpu", lambda: True)
    monkeypatch.setattr(module, "speed", {"float16": 1e13, "float32": 1e12}.__getitem__)
    needed = 11 * operations(Vae()) / 1e12 / 60
    assert f"time: {2 * needed:.0f} to {10 * needed:.0f} minutes, at 50% to 10% of 1 TFLOP/s" in plan(Vae(), 0, "runs")
    assert "of 10 TFLOP/s" in plan(scale(Lm, "colab"), 0, "runs")
