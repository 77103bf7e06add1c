"""The command line: what it says, what it refuses, its exit statuses; and that the command itself survives a kill."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path

import pytest

import kill
from model_collapse import cli, provenance
from model_collapse.runs import folder_of, run
from model_collapse.settings import Gmm, Lm, Vae, scale

TINY = ("--n", "50", "--last-generation", "3")
COMMAND = (sys.executable, "-m", "model_collapse.cli")
# As people start it, also where tests run in the background, which cannot be interrupted.
HEARING = (
    sys.executable,
    "-c",
    """import signal, sys, model_collapse.cli
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(model_collapse.cli.main())""",
)
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *arguments, status=0):
    """What the command prints; errors are one line on stderr, with nothing of Python's."""
    try:
        found = cli.main(arguments)
    except SystemExit as stop:
        found = stop.code or 0
    out, err = capsys.readouterr()
    assert found == status, err
    if status:
        assert re.fullmatch(r"model-collapse: [^\n]+\n", err), err
        return err
    assert err == ""
    return out


# What is asked for


@pytest.mark.parametrize("name", ["small", "colab", "paper"])
@pytest.mark.parametrize("kind", [Gmm, Vae, Lm])
def test_the_scale_chooses_the_defaults(kind, name):
    asked = cli.parse(["run", kind.__name__.lower(), "--scale", name])
    assert asked.settings == scale(kind, name)
    assert cli.parse(["run", kind.__name__.lower(), f"--scale={name}"]).settings == scale(kind, name)


def test_small_is_the_default_scale():
    assert cli.parse(["run", "vae"]).settings == scale(Vae, "small")
    assert cli.parse(["run", "gmm"]).seed == 0


SHARES = {"alpha": 0.5, "beta": 0.3, "gamma": 0.2}
EM = {"tol": 0.5, "max_iter": 9, "reg_covar": 0.25, "start": "warm"}
ADAM = {"epochs": 7, "batch": 40, "learning_rate": 0.5, "weight_decay": 0.25}
OTHERS = {
    Gmm: {"n": 50, "blobs": 2, "components": 3, "last_generation": 7, **EM, **SHARES},
    Vae: {
        "mnist": "embedded",
        "digits": 100,
        "latents": 3,
        "last_generation": 7,
        "output": "bernoulli",
        "draws": "fixed",
    }
    | ADAM
    | SHARES,
    Lm: {
        "model": "tiny",
        "corpus": "wikipedia",
        "blocks": 100,
        "validation": 8,
        "test": 9,
        "final_rate": 0.125,
        "keep": "last",
        "start": "predecessor",
        "writing": "sampling",
        "beams": 3,
        "repetition_penalty": 2.0,
        "precision": "half",
        "last_generation": 7,
    }
    | ADAM
    | SHARES,
}


@pytest.mark.parametrize("kind", [Gmm, Vae, Lm])
def test_every_field_of_the_settings_is_a_flag(kind):
    values = OTHERS[kind]
    assert values.keys() == {field.name for field in fields(kind)} - {"control"}  # which has no shares
    assert not [name for name, value in values.items() if value == asdict(kind())[name]]
    flags = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.parse(["run", kind.__name__.lower(), "--scale", "paper", *flags]).settings == kind(**values)


@pytest.mark.parametrize("control", ["fresh", "kept"])
def test_controls_of_language_models_are_flags_too(control):
    assert cli.parse(["run", "lm", "--scale", "paper", "--control", control]).settings == Lm(control=control)


def test_the_folder_of_a_corpus_reaches_the_experiment(capsys, here, monkeypatch):
    def build(*arguments, folder):
        raise ValueError(f"asked to read {folder}")

    monkeypatch.setattr(cli, "build", build)
    assert f"asked to read {here}\n" in said(capsys, "run", "lm", "--scale", "paper", "--folder", str(here), status=1)


@pytest.mark.parametrize(("kind", "name"), [(Gmm, "small"), (Vae, "paper"), (Vae, "colab"), (Lm, "colab")])
def test_help_shows_every_setting_with_the_scale_s_default_and_what_it_is(capsys, kind, name):
    text = said(capsys, "run", kind.__name__.lower(), "--scale", name, "--help")
    assert f"Settings default to those of scale {name}" in text
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
    for field, value in asdict(scale(kind, name)).items():
        shown = re.search(rf"--{field.replace('_', '-')} (?:[A-Z]+|{{[a-z0-9,]+}}) (.*?) \(default: ([^)]*)\)", words)
        assert shown, field
        assert shown[2] == str(value)
        assert len(shown[1]) > 5, f"{field} is not described"
        assert not re.match("(paper|code|ours|library)\\b", shown[1]), f"{field} is described by a comment"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Expected one of {run, list, show, export}"),
        ("run", "Expected one of {gmm, vae, lm}"),
        ("run llm", "Unrecognized options: llm"),
        ("run vae --epochs 0", "epochs = 0: must be an integer >= 1"),
        ("run vae --epochs five", "--epochs: invalid literal for int() with base 10: 'five'"),
        (
            "run vae --scale big",
            "invalid choice 'big' for argument '--scale'. Expected one of ('small', 'colab', 'paper')",
        ),
        ("run vae --scale", "'--scale'"),
        ("run vae --draws twice", "invalid choice 'twice' for argument '--draws'. Expected one of ('fresh', 'fixed')"),
        ("run vae --digits 4001", "digits = 4001: must be an integer from 1 to 4000"),
        ("run vae --scale paper --folder nowhere", "folder = nowhere: there is no such folder"),
        ("run vae --folder .", "folder = .: is read for mnist = 'full' only, not for 'embedded'"),
        ("run lm --scale paper --folder nowhere", "folder = nowhere: there is no such folder"),
        ("run lm --folder .", "folder = .: is read for corpus = 'wikitext2' only, not for 'wikipedia'"),
        ("run lm --precision double", "invalid choice 'double' for argument '--precision'"),
        ("run lm --control kept --alpha 0.5 --gamma 0.5", "control = 'kept': a control has alpha = 1, got 0.5"),
        ("run lm --blocks 1", "blocks = 1: must be 0 (all) or at least 2"),
        ("run lm --test 1", "test = 1: must be 0 (all) or at least 2"),
        ("run lm --beams 0", "beams = 0: must be an integer >= 1"),
        ("run lm --repetition-penalty 0", "repetition_penalty = 0.0: must be > 0"),
        ("run lm --final-rate -1", "final_rate = -1.0: must be >= 0"),
        ("run lm --blocks 9 --alpha 0.95 --gamma 0.05", "gamma = 0.05: of 9 points its fixed share is 0 points"),
        ("run gmm --folder .", "options: --folder"),
        ("run gmm --alpha 0.5", "alpha + beta + gamma = 0.5: weights must sum to 1"),
        ("run gmm --tol nan", "tol = nan: must be a finite real number"),
        ("run gmm --seed -1", "seed = -1: must be an integer >= 0"),
        ("run gmm --minutes 0", "minutes = 0.0: must be > 0"),
        ("run gmm --minutes nan", "minutes = nan: must be > 0"),
        ("run gmm --epochs 3", "options: --epochs"),
        ("show", "Missing"),
        ("export a b", "Unrecognized options: b"),
    ],
)
def test_bad_values_are_refused_in_one_line_before_work_starts(capsys, here, arguments, message):
    assert message in said(capsys, *arguments.split(), status=2)
    assert not list(here.iterdir())


def test_nothing_heavy_is_imported_before_an_experiment_is_built():
    heavy = {"torch", "sklearn", "scipy.stats", "pandas", "datasets", "mlxtend"}
    code = f"import sys, model_collapse.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# What is done and said


def test_a_run_says_what_it_will_do_and_what_it_has_done(capsys):
    folder = folder_of("runs", Gmm(n=50, last_generation=3), 1)
    lines = said(capsys, "run", "gmm", *TINY, "--seed", "1").splitlines()
    assert lines[0] == "Gmm, scale small, but n = 50, last_generation = 3"
    assert lines[1] == f"seed 1, generations 0 to 3, in {folder}"
    assert re.fullmatch(r"device: processor, 1 thread; disk: about 0.08 MB in all, [\d.]+ [MG]B free", lines[2])
    assert lines[3] == f"finished: {folder / 'results.csv'}"
    assert len(lines) == 4
    shutil.rmtree(folder / "generation-002")
    lines = said(capsys, "run", "gmm", *TINY, "--seed", "1").splitlines()
    assert lines[2] == f"{folder}: generation-002 missing; to be made again"
    assert lines[4] == f"{folder}: goes on after generation 1"


def test_a_vae_runs(capsys):
    flags = ("--digits", "20", "--epochs", "1", "--batch", "10", "--last-generation", "0")
    lines = said(capsys, "run", "vae", *flags).splitlines()
    assert lines[0] == "Vae, scale small, but digits = 20, epochs = 1, batch = 10, last_generation = 0"
    assert lines[-1].startswith("finished: runs/vae-")


def test_minutes(capsys):
    lines = said(capsys, "run", "gmm", *TINY, "--minutes", "1e-9").splitlines()
    assert (
        lines[-1] == f"{folder_of('runs', Gmm(n=50, last_generation=3), 0)}: stopped after 1e-09 minutes; "
        "the same command goes on"
    )
    assert "finished: " in said(capsys, "run", "gmm", *TINY, "--minutes", "10")


def test_list(capsys, here):
    assert "out = nowhere: there is no such folder" in said(capsys, "list", "--out", "nowhere", status=1)
    for settings, seed in ((kill.SMALL, 0), (Gmm(n=60, last_generation=2), 1)):
        run(settings, seed, "runs", kill.small, say=kill.quiet)
    one, two = folder_of("runs", kill.SMALL, 0), folder_of("runs", Gmm(n=60, last_generation=2), 1)
    shutil.rmtree(one / "generation-003")
    lines = said(capsys, "list").splitlines()
    assert sorted(lines) == sorted(
        [
            f"{one}: Gmm, scale custom, seed 0, 3 of 4 generations, unfinished",
            f"{two}: Gmm, scale custom, seed 1, 3 of 3 generations, finished",
        ]
    )
    file = two / "settings.json"
    text = file.read_text()
    file.write_text(text.replace('"tol": 1e-05', '"patience": 3'))
    line = "written by another version of the settings (tol was absent, is 1e-05; patience was 3, is absent)"
    assert f"{two}: Gmm, scale custom, seed 1, 3 of 3 generations, {line}" in said(capsys, "list")
    assert line in said(capsys, "show", str(two))
    file.write_text(text.replace('"n": 60', '"n": 61'))
    assert "its settings are not those of its name (they belong in gmm-" in said(capsys, "list")
    file.write_text(text.replace('"n": 60', '"n": 1'))
    assert "its settings are not allowed by this version (n = 1: must be" in said(capsys, "list")
    file.write_text(text.replace('"Gmm"', '"Llm"'))
    assert "experiment 'Llm' is not known to this version" in said(capsys, "list")
    file.write_text("{")
    assert f"{file}: damaged (" in said(capsys, "list")
    assert f"{one}: Gmm" in said(capsys, "list")
    assert "damaged" in said(capsys, "show", str(two), status=1)


def test_show(capsys):
    run(kill.SMALL, 0, "runs", kill.small, say=kill.quiet)
    folder = folder_of("runs", kill.SMALL, 0)
    kill.alter(folder / "generation-002/samples.safetensors")
    before = kill.contents(folder)
    text = said(capsys, "show", str(folder))
    assert kill.contents(folder) == before
    for part in (
        f"{folder}: Gmm, scale custom, seed 0\n",
        "settings: n = 50, blobs = 1,",
        "from generation 0: processor = ",
        "generation-002/samples.safetensors: damaged (SHA-256 ",
        "2 of 4 generations finished and whole, in 0 s; ",
        "generation 1: trace = ",
        "nothing = nan",
    ):
        assert part in text
    assert "not a run (no settings.json)" in said(capsys, "show", "runs", status=1)


def test_export(capsys):
    run(kill.SMALL, 0, "runs", kill.small, say=kill.quiet)
    folder = folder_of("runs", kill.SMALL, 0)
    (folder / "results.csv").unlink()
    shutil.rmtree(folder / "generation-003")
    assert said(capsys, "export", str(folder)) == f"{folder / 'results.csv'}\n"
    assert json.loads((folder / "results.csv").read_text().splitlines()[0][2:])["generations"] == 3
    assert "not a run" in said(capsys, "export", "runs", status=1)


def test_what_cannot_be_done_is_said_in_one_line(capsys, here, monkeypatch):
    (here / "file").write_text("")
    assert "file" in said(capsys, "run", "gmm", *TINY, "--out", "file", status=1)
    folder = here / "mnist"
    folder.mkdir()
    paper = ("run", "vae", "--scale", "paper", "--folder", str(folder))
    assert str(folder) in said(capsys, *paper, status=1)

    def build(*arguments, **options):
        raise ModuleNotFoundError("No module named 'sklearn'")

    monkeypatch.setattr(cli, "build", build)
    assert "No module named 'sklearn'" in said(capsys, "run", "gmm", *TINY, status=1)


# The command itself


@contextmanager
def started(*arguments):
    """A process of its own, as people start it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*HEARING, *arguments], env=os.environ | THREADS, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_killed_interrupted_and_started_twice_the_command_ends_as_if_nothing_had_happened(here):
    settings = Gmm(n=300, last_generation=100)
    command = ("run", "gmm", "--n", "300", "--last-generation", "100")
    folder = folder_of("runs", settings, 0)
    with started(*command) as first:
        wait_for(folder / "generation-005", first)
        first.kill()
        assert first.wait() == -signal.SIGKILL
    done = len(list(folder.glob("generation-*")))
    with started(*command) as second:
        wait_for(folder / f"generation-{done + 3:03d}", second)
        os.kill(second.pid, signal.SIGSTOP)  # it holds the lock for as long as the third takes to come
        with started(*command) as third:
            _, err = third.communicate(timeout=60)
        assert (third.returncode, err) == (1, f"model-collapse: {folder}: another process is at work on this run\n")
        os.kill(second.pid, signal.SIGCONT)
        second.send_signal(signal.SIGINT)
        out, err = second.communicate(timeout=60)
        assert err == "model-collapse: interrupted; the same command goes on with what is finished\n"
        assert second.returncode == 130
        assert f"{folder}: goes on after generation " in out
    with started(*command) as last:
        _, err = last.communicate(timeout=60)
        assert (last.returncode, err) == (0, "")
    run(settings, 0, "whole", kill.gmm, say=kill.quiet)
    kill.same(folder, folder_of("whole", settings, 0))
    assert len(provenance.environments(folder)) == 1


def on_a_terminal(*arguments):
    """What people see: stdout and stderr, with colours, frames and bars."""
    here, there = os.openpty()
    environment = os.environ | THREADS | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([*COMMAND, *arguments], stdout=there, stderr=there, env=environment) as process:
        os.close(there)
        seen = b""
        with suppress(OSError):  # when the other side has closed
            while part := os.read(here, 4096):
                seen += part
    os.close(here)
    return process.returncode, seen.decode()


def test_on_a_terminal_too_an_error_is_one_line():
    status, seen = on_a_terminal("run", "gmm", "--n", "5")
    assert (status, seen) == (2, "model-collapse: n = 5: must be an integer >= 10\r\n")


def test_on_a_terminal_a_bar_shows_generation_and_time_left():
    status, seen = on_a_terminal("run", "gmm", *TINY)
    assert status == 0
    assert "generation 3 of 3: 100%" in seen
    assert re.search(r"\[\d\d:\d\d<[\d:?]+,", seen)
    assert "finished: " in seen


def test_the_installed_command():
    script = Path(sys.executable).with_name("model-collapse")
    if not script.exists():
        pytest.skip("not installed with its command")
    done = subprocess.run([script, "run", "gmm", "--n", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "model-collapse: Error parsing --n: invalid literal for int() with base 10: 'x'\n"
