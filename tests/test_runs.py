"""Runs that survive: kills, full disks, damaged files, two processes, other settings, other data, other machines."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, make_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

import kill
from kill import DAMAGES, SEED, SMALL, contents
from model_collapse import provenance, runs, settings, stored
from model_collapse.provenance import environments, export
from model_collapse.runs import folder_of
from model_collapse.stored import Stored

KILLS = int(os.environ.get("KILLS", "20"))  # make test-all: 200
MEMORY = Path("/dev/shm")  # where there is a disk in memory, thousands of small files are not written to a real one


@pytest.fixture
def out():
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    runs.run(SMALL, SEED, out, kill.small, say=kill.quiet)
    return folder_of(out, SMALL, SEED)


@pytest.fixture
def copy(whole, out):
    """A copy of it."""
    return shutil.copytree(whole, folder_of(out, SMALL, SEED))


class Counting:
    """`kill.small`, with counts of how often it was built and fitted."""

    def __init__(self, **changes):
        self.changes, self.built, self.fitted = changes, 0, 0

    def __call__(self, settings, rng, tick):
        self.built += 1
        return kill.small(settings, rng, self.tick)._replace(**self.changes)

    def tick(self, k):
        self.fitted += 1


def run(folder, build=kill.small, **options):
    """Go on with the run in this folder; return what was said."""
    said = []
    runs.run(SMALL, SEED, folder.parent, build, say=said.append, **options)
    return said


def driver(*arguments, timeout=300, prefix=()):
    command = [*prefix, sys.executable, kill.__file__, *map(str, arguments)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | threads)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Kills


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("small", KILLS), ("gmm", KILLS // 5), ("vae", KILLS // 10), ("digits", KILLS // 20), ("language", KILLS // 5)],
)
def test_killed_at_random_moments_a_run_ends_as_if_nothing_had_happened(out, kind, kills):
    assert f"{kills} kills" in driver("moments", kind, out, kills, 0, timeout=60 + 10 * kills)


def test_killed_at_every_operation_on_files_a_run_ends_as_if_nothing_had_happened(out):
    kills = json.loads(driver("points", out))
    assert kills.keys() == DAMAGES.keys()
    assert kills["none, new"] > 35  # folders, halves of files, syncs, renames: none is passed over
    assert min(kills.values()) >= 4


def test_parameters_pass_through_their_stored_form(whole):
    """Otherwise `kill.small`, whose samples depend on their order in memory, would go another way when resumed."""
    theta = kill.small(SMALL, np.random.default_rng(0), kill.quiet).family.fit(np.eye(2), np.random.default_rng(0), 0)
    assert not theta.flags.c_contiguous


# Damage


AGAIN = {  # what is said of the damage, and how many generations are fitted again
    "none, new": ([], 4),
    "none, finished": ([], 0),
    "metrics altered": (["generation-001/metrics.json: damaged (SHA-256"], 0),
    "samples missing": (["generation-002/samples.safetensors: damaged (SHA-256 none, it is missing"], 0),
    "weights truncated": (["generation-001/weights.safetensors: damaged (SHA-256"], 1),
    "weights altered, twice": ([f"generation-00{i}/weights.safetensors: damaged (SHA-256" for i in (0, 2)], 2),
    "digests missing": (["generation-001/digests.json: damaged (FileNotFoundError"], 1),
    "a gap": (["generation-001 missing; to be made again"], 1),
    "an empty folder": (["generation-001/digests.json: damaged (FileNotFoundError"], 1),
    "the last missing": ([], 1),
    "one of another run": (["generation-002: does not follow from the weights of generation 1", "generation-003:"], 1),
    "all but one of another run": (["generation-001: does not follow from the weights of generation 0"], 3),
    "leftovers": ([], 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_only_that_is_made_again(copy, whole, name):
    if "another run" in name:
        runs.run(SMALL, SEED + 1, copy.parent.with_name("other"), kill.small, say=kill.quiet)
    DAMAGES[name](copy)
    build = Counting()
    said, (expected, fits) = run(copy, build), AGAIN[name]
    damage = [line for line in said if "goes on after" not in line]
    assert len(damage) == len(expected)
    assert all(text in line for line, text in zip(damage, expected, strict=True)), damage
    assert build.fitted == fits
    assert contents(copy) == contents(whole)
    if "another run" in name:
        shutil.rmtree(copy.parent.with_name("other"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'"x"', b"\xff", b'{"parent": ""}'])
def test_damaged_digests(copy, whole, content):
    (copy / "generation-001/digests.json").write_bytes(content)
    assert "generation-001/digests.json: damaged" in run(copy)[0]
    assert contents(copy) == contents(whole)


def test_weights_that_come_out_otherwise_take_what_followed_along(copy, whole):
    """As on another machine: the one that was damaged, and all after it, but nothing before."""

    def other(settings, rng, tick):
        built = kill.small(settings, rng, tick)
        return built._replace(family=built.family._replace(fit=lambda *a: built.family.fit(*a) * (1 + 1e-15)))

    (copy / "generation-001/weights.safetensors").unlink()
    run(copy, other)
    one, two = contents(copy), contents(whole)
    differing = {name for name in one if "weights" in name and one[name] != two[name]}
    assert differing == {f"generation-00{i}/weights.safetensors" for i in (1, 2, 3)}
    assert kill.check(copy) == []


def test_a_file_that_changes_while_it_is_in_use(copy):
    kept = Stored(copy, kill.quiet)
    kill.alter(copy / "generation-000/weights.safetensors")
    with pytest.raises(OSError, match="changed while it was in use"):
        kept.read(0, "weights.safetensors")


def test_names_that_drives_give_to_copies_are_no_generations(copy, whole):
    for name in ("generation-001 (1)", "generation-abc", "generation-007.bak"):
        (copy / name).mkdir()
    assert run(copy) == []
    assert contents(copy) == contents(whole)


# Disks


def failing(monkeypatch, at):
    """From its `at`-th file on, the disk is full: half a file is written."""
    usual, calls = stored._write, iter(range(1, 1000))

    def write(path, content, sync=True):
        if next(calls) >= at:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(path, content, sync)

    monkeypatch.setattr(stored, "_write", write)


@pytest.mark.parametrize("at", range(1, 20))
def test_a_full_disk_is_said_and_costs_what_was_not_finished(out, whole, monkeypatch, at):
    folder = folder_of(out, SMALL, SEED)
    with monkeypatch.context() as patch:
        failing(patch, at)
        with pytest.raises(OSError, match=r"could not be written .*No space left on device") as caught:
            run(folder)
    assert caught.value.errno == errno.ENOSPC
    done = (at - 3) // 4  # after settings and environment, four files each
    name = {1: "settings.json", 2: "environment.json", 19: "results.csv"}.get(at)
    kept = f"; generations 0 to {done - 1} are kept" if done > 0 else "; no generation was finished"
    assert (name or f"generation-{done:03d}") in str(caught.value)
    assert name or str(caught.value).endswith(kept)
    assert not list(folder.rglob("*.part"))
    run(folder)
    assert contents(folder) == contents(whole)


NAMESPACE = ("unshare", "-Urm", "sh", "-c")


def mounts(tmp_path):
    command = [*NAMESPACE, f"mount -t tmpfs none {tmp_path}"]
    return shutil.which("unshare") and subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_small_disk_that_fills_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounts(disk):
        pytest.skip("this system lets nobody mount a small disk")
    said = driver("full", disk, prefix=[*NAMESPACE, f'mount -t tmpfs -o size=30k none {disk} && exec "$@"', "sh"])
    assert said.splitlines()[0].startswith(f"{errno.ENOSPC} ")
    assert "generation-001: could not be written (No space left on device); generations 0 to 0 are kept" in said
    assert said.splitlines()[1] == "1 []"


def test_room_is_required_before_anything_is_done(out, monkeypatch):
    build = Counting(size=10**12)
    folder = folder_of(out, SMALL, SEED)
    with pytest.raises(OSError, match=r"MB are free, the run needs about 4000050 MB"):
        run(folder, build)
    assert build.fitted == 0
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_drive_without_locks_and_without_synced_folders(out, whole, monkeypatch):
    import fcntl

    usual = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        usual(descriptor)

    def flock(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(fcntl, "flock", flock)
    folder = folder_of(out, SMALL, SEED)
    run(folder)
    assert contents(folder) == contents(whole)
    with stored.alone(folder), pytest.raises(BlockingIOError, match=r"if none is, remove .*\.held\)$"):
        run(folder)


# Two at a time


def test_the_second_of_two_leaves_and_the_first_is_not_disturbed(copy, whole):
    with stored.alone(copy), pytest.raises(BlockingIOError, match=r"another process is at work on this run$"):
        run(copy)
    assert contents(copy) == contents(whole)
    assert run(copy) == []


def test_the_lock_is_given_back_by_a_run_that_fails_or_is_interrupted(out, whole):
    folder = folder_of(out, SMALL, SEED)

    def interrupted(settings, rng, tick):
        def tick(k):
            if len(list(folder.glob("generation-*"))) == 2:
                raise KeyboardInterrupt

        return kill.small(settings, rng, tick)

    with pytest.raises(KeyboardInterrupt):
        run(folder, interrupted)
    assert run(folder) == [f"{folder}: goes on after generation 1"]
    assert contents(folder) == contents(whole)


# Other settings, versions, data, machines


def edit(file, **changes):
    content = json.loads(file.read_text())
    for name, value in changes.items():
        place = content["settings"] if name in content["settings"] or name == "new" else content
        place.pop(name) if value is None else place.update({name: value})
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 51}, "settings.n was 51, is 50"),
        ({"new": 3}, "settings.new was 3, is absent"),
        ({"tol": None}, "settings.tol was absent, is 1e-05"),
        ({"seed": 4}, "seed was 4, is 3"),
        ({"experiment": "Vae"}, "experiment was 'Vae', is 'Gmm'"),
    ],
)
def test_a_folder_that_other_settings_wrote_is_refused_with_what_differs(copy, whole, change, said):
    edit(copy / "settings.json", **change)
    before, build = contents(copy), Counting()
    with pytest.raises(ValueError, match=r"(not this run|another version).*or name another folder") as caught:
        run(copy, build)
    assert said.removeprefix("settings.") in str(caught.value)
    assert str(copy) in str(caught.value)
    assert contents(copy) == before
    assert build.built == 0


def test_other_data_are_refused(copy):
    (copy / "generation-003/metrics.json").unlink()
    build = Counting(original=np.zeros((50, 2)))
    with pytest.raises(ValueError, match=r"not this run \(data was '[0-9a-f]{64}', is '[0-9a-f]{64}'\)"):
        run(copy, build)
    assert build.fitted == 0


def test_another_model_to_start_from_is_refused(out):
    first, other = (Counting(origin={"revision": revision}) for revision in "ab")
    folder = folder_of(out, SMALL, SEED)
    run(folder, first)
    assert json.loads((folder / "settings.json").read_text())["revision"] == "a"
    (folder / "generation-003/metrics.json").unlink()
    with pytest.raises(ValueError, match=r"not this run \(revision was 'a', is 'b'\)"):
        run(folder, other)
    assert other.fitted == 0
    run(folder, first)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"seed": 3}', b'{"experiment": "Gmm", "settings": {}, "seed": 3}']
)
def test_damaged_settings(copy, content):
    (copy / "settings.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"settings.json: damaged \(.*remove .* or name another folder"):
        run(copy)


def test_missing_settings(copy):
    (copy / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"has generations, but no settings\.json"):
        run(copy)


def test_a_run_that_another_version_of_the_settings_began(out, whole):
    """A new field gives the folder a new name: the old one is found all the same."""
    old = shutil.copytree(whole, out / "gmm-0123456789ab")
    edit(old / "settings.json", tol=None, new=1)
    with pytest.raises(ValueError, match="begun by another version of the settings") as caught:
        run(folder_of(out, SMALL, SEED))
    assert f"{old}: " in str(caught.value)
    assert "(tol was absent, is 1e-05; new was 1, is absent)" in str(caught.value)
    assert [path.name for path in out.iterdir()] == [old.name]
    for change in ({"seed": 4}, {"seed": 3, "n": 70}):  # another run
        edit(old / "settings.json", **change)
        run(folder_of(out, SMALL, SEED))


def test_the_settings_of_a_new_version_have_another_name(monkeypatch):
    newer = make_dataclass("Gmm", [("new", int, 3)], bases=(settings.Gmm,), frozen=True)
    assert folder_of(".", newer(**asdict(SMALL)), 0) != folder_of(".", SMALL, 0)


def test_another_machine_is_noted_and_said(copy):
    shutil.rmtree(copy / "generation-002")
    file = copy / "environment.json"
    file.write_text(file.read_text().replace('"python": "', '"python": "2.7 and '))
    (said,) = [line for line in run(copy) if "environment" in line]
    assert "goes on in another environment, so perhaps not bit for bit (python was 2.7 and 3." in said
    assert [entry["from_generation"] for entry in environments(copy)] == [0, 2]
    shutil.rmtree(copy / "generation-003")
    assert not [line for line in run(copy) if "environment" in line]
    assert len(environments(copy)) == 2


def test_a_machine_that_finished_nothing_is_forgotten(copy):
    for k in (2, 3):
        shutil.rmtree(copy / f"generation-{k:03}")
    file = copy / "environment.json"
    idle = json.loads(file.read_text())[0] | {"from_generation": 2, "python": "2.7"}
    file.write_text(json.dumps([*json.loads(file.read_text()), idle]))
    assert not [line for line in run(copy) if "environment" in line]
    assert [(entry["from_generation"], entry["python"] == "2.7") for entry in environments(copy)] == [(0, False)]


def test_a_machine_that_finished_later_generations_is_kept(copy):
    file = copy / "environment.json"
    other = json.loads(file.read_text())[0] | {"from_generation": 3, "python": "2.7"}
    file.write_text(json.dumps([*json.loads(file.read_text()), other]))
    (copy / "generation-002" / "metrics.json").write_text("damaged")
    run(copy)
    assert [(entry["from_generation"], entry["python"] == "2.7") for entry in environments(copy)] == [
        (0, False), (3, True), (2, False)]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_damaged_environment_is_noted_anew(copy, whole, content):
    shutil.rmtree(copy / "generation-002")
    (copy / "environment.json").write_bytes(content)
    run(copy)
    assert [entry["from_generation"] for entry in environments(copy)] == [2]
    assert contents(copy) == contents(whole)


def test_what_the_environment_says():
    found = provenance.environment(torch=False)
    assert found["threads"] == 1
    assert found["versions"]["numpy"] == np.__version__
    assert found["commit"] == "unknown" or len(found["commit"].rstrip("+")) == 12


# Time, ends, and what is exported


def test_until_begins_no_generation_too_many(out, whole, monkeypatch):
    folder, clock = folder_of(out, SMALL, SEED), time.monotonic
    for fits, done in (
        (0, 0),
        (1, 1),
        (2, 3),
        (0, 3),
    ):  # after so many fits the clock jumps past the time that is given
        build = Counting()
        monkeypatch.setattr(runs.time, "monotonic", lambda b=build, n=fits: clock() + 1000 * (b.fitted >= n))
        assert runs.run(SMALL, SEED, out, build, until=clock() + 500, say=kill.quiet) is None
        assert (build.fitted, len(Stored(folder))) == (fits, done)
    monkeypatch.undo()
    run(folder, until=clock() + 500)
    assert contents(folder) == contents(whole)


def test_a_finished_run_is_not_built_again(copy, whole):
    build = Counting()
    (copy / "results.csv").unlink()
    assert runs.run(SMALL, SEED, copy.parent, build, say=kill.quiet, until=time.monotonic() - 1) == copy / "results.csv"
    assert build.built == 0
    assert contents(copy) == contents(whole)


def test_export_of_what_is_finished(copy):
    kill.alter(copy / "generation-002/metrics.json")
    said = []
    lines = export(copy, said.append).read_text().splitlines()
    described = json.loads(lines[0].removeprefix("# "))
    assert described["settings"] == asdict(SMALL)
    assert (described["seed"], described["generations"], described["scale"]) == (SEED, 2, "custom")
    assert described["environment"] == environments(copy)
    assert lines[1] == "generation,trace,data,first,noise,nothing"
    assert [line.partition(",")[0] for line in lines[2:]] == ["0", "1"]
    assert "generation-002/metrics.json: damaged" in said[0]
    shutil.rmtree(copy / "generation-000")
    with pytest.raises(ValueError, match="no generation is finished"):
        export(copy, kill.quiet)


def test_exported_numbers(out):
    """In the order of generations, also beyond 999, with nine digits; what is no number comes back as such."""
    (out / "settings.json").write_text(json.dumps({"experiment": "Gmm", "seed": 0, "settings": asdict(SMALL)}))
    kept, values = Stored(out), {999: np.inf, 1000: -np.inf, 1001: np.nan}
    for i in range(1002):
        row = {"generation": i, "seconds": 0.1, "metrics": {"a, b": values.get(i, i / 3)}}
        kept.write(i, {"weights.safetensors": b"", "samples.safetensors": b"", "metrics.json": stored.as_json(row)})
    table = pd.read_csv(export(out), comment="#")
    assert table["generation"].tolist() == list(range(1002))
    assert table["a, b"][:999].to_numpy() == pytest.approx(np.arange(999) / 3, rel=1e-8)
    assert np.array_equal(table["a, b"][999:], list(values.values()), equal_nan=True)


def test_the_bar_is_drawn_where_it_is_asked_for(copy, capsys):
    shutil.rmtree(copy / "generation-003")
    run(copy)
    assert capsys.readouterr().err == ""
    shutil.rmtree(copy / "generation-003")
    run(copy, progress=True)
    bar = capsys.readouterr().err
    assert "generation 3 of 3" in bar
    assert "4.00/4.00" in bar
    assert "fit/s" in bar


def test_nothing_to_keep_of_a_generation(out):
    def build(settings, rng, tick):
        return kill.small(settings, rng, tick)._replace(observe=lambda g, first, rng: ({"n": len(g.data)}, {}))

    runs.run(replace(SMALL, last_generation=0), 0, out, build, say=kill.quiet)
    (row,) = pd.read_csv(next(out.glob("*/results.csv")), comment="#").to_dict("records")
    assert row == {"generation": 0, "n": 50}
