"""Show that other versions will do: the oldest that the bounds allow, and those that Colab has installed.

    python tools/versions.py oldest [CHAPTER ...]    unit tests, and the notebooks
    python tools/versions.py colab [CHAPTER ...]     the published notebooks, whose first cell installs the library

Notebooks must run without an error; outputs are compared under the lock only. Torch is the lock's in both. Environments
lie in `_build/versions`; what differs in them from the lock is printed first. The exit status is 1 if anything failed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat

import colab
import environment
from colab_packages import LIST, extras, preinstalled, python_of
from execute import ROOT, THREADS, Chapter, chosen
from lock import ACCELERATOR, LOCK, compiled, pins

PLACE = ROOT / "_build" / "versions"
# These are about the repository, its pages and its lock, or compare outputs; the rest is about the library.
APART = ["chapters", "claims", "colab", "environment", "execute", "matrix", "pages", "pdf", "project"]
APART += ["reference_pages", "site", "teaching"]
PYTEST = "pytest tests lib -n 2 --dist loadscope -q -o filterwarnings=default"
JUPYTER = "ipykernel\nnbclient\n"  # what executes a notebook from outside
TIED = {"torch", "torchvision", "torchaudio", "setuptools"}  # Colab's torch to its GPUs, its setuptools to that torch
Jobs = dict[str, list[str | Path]]


def oldest(chapters: list[Chapter], folder: Path) -> Jobs:
    """Install the oldest versions of what pyproject.toml names, the newest of the rest that fit, and the library."""
    install(folder, "".join(compiled("--resolution", "lowest-direct")), sys.executable, environment.install)
    tests: Jobs = {
        "tests": [
            *PYTEST.split(),
            "--ignore=tests/pagechecks.py",
            *(f"--ignore=tests/test_{name}.py" for name in APART),
        ]
    }
    return tests | {chapter.name: ["jupyter", "execute", chapter.notebook] for chapter in chapters}


def colabs(chapters: list[Chapter], folder: Path) -> Jobs:
    """Install Colab's versions of what the chapters need, without the library; publish the notebooks."""
    listed = LIST.read_text(encoding="utf8")
    fixed = {n: v for n, v in preinstalled(listed).items() if n not in TIED and not ACCELERATOR.match(n)}
    with tempfile.TemporaryDirectory() as place:
        constraints, jupyter = Path(place, "constraints.txt"), Path(place, "requirements.in")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in fixed.items()))
        jupyter.write_text(JUPYTER)
        python, wanted = python_like(python_of(listed))
        options = ["--constraint", str(constraints), str(jupyter)]
        versions = "".join(compiled(*options, python=python, extras=extras()))
    install(folder, versions, wanted, fresh)
    source = f"git+file://localhost{ROOT}@{colab.commit(ROOT)}"
    published = dict(colab.editions(ROOT, source, None))
    for chapter in chapters:
        nbformat.write(published[f"{chapter.name}.ipynb"], folder / f"{chapter.name}.ipynb")
    return {chapter.name: ["jupyter", "execute", folder / f"{chapter.name}.ipynb"] for chapter in chapters}


def fresh(inside: str, file: str) -> None:
    """Install versions, and take out a library of before: the first cell of a notebook installs it."""
    environment.install(inside, file, library=False)
    environment.run([inside, "-m", "pip", "uninstall", "--yes", "--quiet", "model-collapse"])


def python_like(version: str) -> tuple[str, str]:
    """Version and path of a Python like this one, if the PATH has one that runs, else of the one that runs this.

    Raises
    ------
    SystemExit
        There is none, and nobody is there to read that another was taken: in continuous integration.
    """
    named = ".".join(version.split(".")[:2])
    found = shutil.which(f"python{named}")
    if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
        return named, found
    missing = f"versions: no Python {named} on the PATH"
    if os.environ.get("CI") == "true":
        raise SystemExit(f"{missing}, and with another this would not be Colab's: set it up in the workflow")
    print(f"{missing}, so {sys.executable}")
    return ".".join(map(str, sys.version_info[:2])), sys.executable


def install(folder: Path, versions: str, python: str, into: Callable[[str, str], None]) -> None:
    """Make an environment in a folder, and say what differs in it from the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text(versions)
    named, newest = pins(versions), pins(LOCK.read_text())
    print(", ".join(f"{name} {named[name]}" for name in sorted(named) if named[name] != newest.get(name)), flush=True)
    into(environment.make_venv(python, str(folder / "venv")), str(folder / "requirements.txt"))


def main() -> int:
    """Install, test, execute."""
    which, *names = sys.argv[1:] or [""]
    if which not in ("oldest", "colab"):
        sys.exit(f"versions = {which!r}: must be oldest or colab")
    folder = PLACE / which
    jobs = {"oldest": oldest, "colab": colabs}[which](chosen(names, ROOT), folder)
    programs = folder / "venv" / "bin"
    here = os.environ | dict.fromkeys(THREADS, "1") | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    failed = []
    for name, (program, *arguments) in jobs.items():
        done = subprocess.run([programs / program, *arguments], cwd=ROOT, env=here)
        failed += [name] if done.returncode else []
        print(f"{which}: {name} {'failed' if done.returncode else 'passed'}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
