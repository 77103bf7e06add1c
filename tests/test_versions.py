"""Other versions than the lock's: what is asked for, and in which Python."""

import sys
from pathlib import Path

import pytest
import yaml

import versions


def test_only_two_sets_of_versions_are_known(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["versions.py", "newest"])
    with pytest.raises(SystemExit, match=r"^versions = 'newest': must be oldest or colab$"):
        versions.main()


def test_a_python_that_does_not_run_is_not_taken(tmp_path, monkeypatch, capsys):
    shim = tmp_path / "python9.9"
    shim.write_text("#!/bin/sh\nexit 1\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    assert versions.python_like("9.9.1") == (f"3.{sys.version_info.minor}", sys.executable)
    assert "no Python 9.9" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    with pytest.raises(SystemExit, match=r"no Python 9\.9 on the PATH, .*: set it up in the workflow$"):
        versions.python_like("9.9.1")
    shim.write_text("#!/bin/sh\nexit 0\n")
    assert versions.python_like("9.9.1") == ("9.9", str(shim))


def test_the_workflow_sets_up_colabs_python_and_that_of_the_lock_as_its_own():
    job = yaml.safe_load((versions.ROOT / ".github/workflows/test-all.yml").read_text())["jobs"]["test-all"]
    (pythons,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    colabs = versions.python_of(versions.LIST.read_text(encoding="utf8"))
    assert pythons.split() == [".".join(colabs.split(".")[:2]), "3.11"]  # the last is what `python3` runs


def test_colabs_versions_are_asked_for_but_not_its_torch(tmp_path, monkeypatch):
    asked = {}

    def compiled(*options, python, extras):
        constraints = Path(options[options.index("--constraint") + 1]).read_text().splitlines()
        asked.update(constraints=constraints, python=python, extras=[*extras])
        return ["numpy==2.1.3\n"]

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(versions, "compiled", compiled)
    monkeypatch.setattr(versions, "install", lambda folder, wanted, python, into: asked.update(versions=wanted))
    monkeypatch.setattr(versions.colab, "editions", lambda *_: [])
    assert versions.colabs([], tmp_path) == {}
    names = {line.partition("==")[0] for line in asked["constraints"]}
    assert {"numpy", "pandas", "transformers"} < names
    assert not names & versions.TIED
    assert not any(name.startswith("nvidia-") for name in names)
    assert {"language", "images"} < {*asked["extras"]}
    assert "book" not in asked["extras"]
    assert asked["versions"] == "numpy==2.1.3\n"


def test_what_is_left_out_are_tests_that_exist():
    assert all((versions.ROOT / "tests" / f"test_{name}.py").exists() for name in versions.APART)


@pytest.mark.parametrize(("programs", "status"), [(("true", "true"), 0), (("true", "false"), 1)])
def test_one_failure_is_enough(programs, status, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "oldest" / "venv" / "bin"
    folder.mkdir(parents=True)
    for name in programs:
        (folder / name).write_text(f"#!/bin/sh\n{name}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(versions, "PLACE", tmp_path)
    monkeypatch.setattr(versions, "oldest", lambda *_: {str(k): [name] for k, name in enumerate(programs)})
    monkeypatch.setattr(sys, "argv", ["versions.py", "oldest"])
    assert versions.main() == status
    assert ("failed" in capsys.readouterr().out) == bool(status)
