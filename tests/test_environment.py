"""Setting up: what goes wrong on a new machine ends in one line that says what to do."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import environment  # noqa: E402


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing here touches the real environment."""
    monkeypatch.setattr(environment, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(environment, "LOG", str(tmp_path / "install.log"))


def failing(word):
    """Stand in for running commands: those that hold this word fail."""
    return lambda command: int(any(word in part for part in command))


def stops(action, *words):
    with pytest.raises(SystemExit) as caught:
        action()
    message = str(caught.value.code)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_this_python_is_used_if_it_is_in_the_range():
    assert environment.interpreter() == sys.executable


def test_another_python_on_the_path_is_taken(monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(environment.shutil, "which", lambda name: sys.executable if name == "python3.12" else None)
    assert environment.interpreter() == sys.executable


@pytest.mark.parametrize("version", [(3, 10, 2), (3, 14, 0), (2, 7, 18)])
def test_a_python_outside_the_range(monkeypatch, version):
    monkeypatch.setattr(environment.sys, "version_info", version)
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    stops(environment.interpreter, f"Python {version[0]}.{version[1]}", "3.11 to 3.13", "PYTHON=")


def test_a_missing_venv_module(monkeypatch):
    monkeypatch.setattr(environment, "run", failing("ensurepip"))
    stops(lambda: environment.make_venv("python3"), "no venv module", "python3-venv")


def test_a_venv_that_cannot_be_made(monkeypatch):
    monkeypatch.setattr(environment, "run", lambda command: int(command[1:3] == ["-m", "venv"]))
    stops(lambda: environment.make_venv("python3"), "could not create", "install.log")


def test_a_broken_download(monkeypatch):
    monkeypatch.setattr(environment, "run", failing("requirements.lock"))
    stops(lambda: environment.install("python"), "requirements.lock failed", "make again", "install.log")


def test_a_library_that_cannot_be_installed(monkeypatch):
    monkeypatch.setattr(environment, "run", failing("--editable"))
    stops(lambda: environment.install("python"), "the library itself", "install.log")


def test_a_broken_venv_is_made_anew(monkeypatch, tmp_path):
    inside = tmp_path / ".venv" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.write_text("not a program")
    commands = []
    monkeypatch.setattr(environment, "run", lambda command: commands.append(command) or int(command[0] == str(inside)))
    assert environment.make_venv("python3.11") == str(inside)
    assert commands[-1][:3] == ["python3.11", "-m", "venv"]
    assert not inside.exists()


@pytest.mark.parametrize("broken", ["version_info", "--version"])
def test_a_venv_of_another_python_or_without_pip_is_made_anew(monkeypatch, tmp_path, broken):
    inside = tmp_path / ".venv" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(sys.executable)
    commands = []
    fails = failing(broken)
    monkeypatch.setattr(environment, "run", lambda command: commands.append(command) or fails(command))
    environment.make_venv("python3.11")
    assert commands[-1][:3] == ["python3.11", "-m", "venv"]


def test_a_working_venv_is_kept(monkeypatch, tmp_path):
    inside = tmp_path / ".venv" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(sys.executable)
    assert environment.make_venv("no such python") == str(inside)


def test_an_old_python_can_read_the_program_that_refuses_it():
    ast.parse((ROOT / "tools" / "environment.py").read_text(), feature_version=(3, 4))
