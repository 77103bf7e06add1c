"""What is kept of a generation on the way: found again whole, or not at all."""

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


def test_what_must_be_kept_now_is(tmp_path):
    kept_in(tmp_path, every=60.0).save("text", one, now=True)
    assert kept_in(tmp_path).load("text") is not None


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
