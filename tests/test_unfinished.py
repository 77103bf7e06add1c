"""What is kept of a generation on the way: found again whole, or not at all."""

import os

import numpy as np
import pytest

from model_collapse.unfinished import Unfinished, remove_unfinished


def kept_in(folder, generation=2, parent="abc", every=0.0):
    kept = Unfinished(every=every)
    kept.begin(folder, generation, parent)
    return kept


def one():
    return {"a": np.arange(3)}


def test_nothing_is_kept_before_a_run_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Unfinished(every=0)
    kept.save("fit", one)
    assert kept.load("fit") is None
    assert not list(tmp_path.iterdir())


def test_another_process_finds_what_was_saved_last(tmp_path):
    kept = kept_in(tmp_path)
    kept.save("fit", one)
    kept.save("fit", lambda: {"a": np.arange(4)})
    kept.save("text", one)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(kept_in(tmp_path).load("fit")["a"], np.arange(4))


@pytest.mark.parametrize("other", [{"generation": 3}, {"parent": "abd"}])
def test_what_belongs_to_something_else_is_removed(tmp_path, other):
    kept_in(tmp_path).save("fit", one)
    assert kept_in(tmp_path, **other).load("fit") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b""])
def test_what_was_altered_is_not_found(tmp_path, damage):
    kept_in(tmp_path).save("fit", one)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert kept_in(tmp_path).load("fit") is None
    assert not list(tmp_path.iterdir())


def test_what_comes_too_soon_is_not_even_made(tmp_path):
    kept_in(tmp_path, every=60.0).save("fit", lambda: pytest.fail("made"))
    assert not list(tmp_path.iterdir())


def test_after_a_write_that_took_long_the_next_waits_for_longer(tmp_path, monkeypatch):
    now, kept = 0.0, kept_in(tmp_path, every=60.0)
    kept.saved = 0.0
    monkeypatch.setattr("model_collapse.unfinished.time.monotonic", lambda: now)

    def slow():
        nonlocal now
        now += 30
        return one()

    now = 60.0
    kept.save("fit", slow)
    now = 90.0 + 599
    kept.save("fit", lambda: pytest.fail("made"))
    now = 90.0 + 600
    kept.save("fit", one)
    assert kept.saved == 690


REMOVALS = {
    "what is replaced": lambda folder, kept: kept.save("fit", lambda: {"a": np.arange(4)}),
    "what was altered": lambda folder, kept: (
        [os.truncate(folder / x, 9) for x in os.listdir(folder)] and kept.load("fit")
    ),
    "another generation's": lambda folder, kept: kept_in(folder, generation=3),
    "a finished run's": lambda folder, kept: remove_unfinished(folder),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_is_removed_is_emptied_before(removal, tmp_path, monkeypatch):
    """A drive that keeps what is removed keeps an empty file."""
    kept = kept_in(tmp_path)
    kept.save("fit", one)
    sizes = []
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, **_: sizes.append(path.stat().st_size))
    REMOVALS[removal](tmp_path, kept)
    assert sizes == [0]


def test_after_a_write_the_next_is_too_soon_again(tmp_path):
    kept = kept_in(tmp_path, every=60.0)
    kept.saved -= 61
    kept.save("fit", one)
    kept.save("fit", lambda: pytest.fail("made"))
    assert kept.load("fit") is not None


def test_what_must_be_kept_now_is(tmp_path):
    kept_in(tmp_path, every=60.0).save("text", one, now=True)
    assert kept_in(tmp_path).load("text") is not None


def test_time_before_a_kill_is_counted_and_that_of_other_generations_is_not(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("model_collapse.unfinished.time.monotonic", lambda: now)
    kept = kept_in(tmp_path)
    now = 100.0
    kept.save("fit", one)
    now = 130.0  # lost with the kill
    kept = kept_in(tmp_path)
    assert kept.spent == 0
    assert set(kept.load("fit")) == {"a"}
    assert kept.spent == 100
    now = 150.0
    kept.save("fit", one)
    kept = kept_in(tmp_path)
    kept.load("fit")
    assert kept.spent == 120
    kept.begin(tmp_path, 2, "abc")  # the same generation, told again
    assert kept.spent == 120
    kept.begin(tmp_path, 3, "abc")
    assert kept.spent == 0


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    kept = kept_in(tmp_path)
    kept.save("fit", one)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model_collapse.unfinished.replace", full)
    with pytest.raises(OSError, match="No space left"):
        kept.save("fit", lambda: {"a": np.arange(4)})
    np.testing.assert_array_equal(kept.load("fit")["a"], np.arange(3))


def test_a_finished_run_keeps_nothing(tmp_path):
    kept_in(tmp_path).save("fit", one)
    remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())
