"""Colab's own packages, as data with their date (colab_packages.txt), and whether the library changes one of them.

python tools/colab_packages.py      # fetch the list that Colab publishes, and say what changed
"""

import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".txt")
PUBLISHED = "https://raw.githubusercontent.com/googlecolab/backend-info/main/"
TOOLS = {"book", "test"}  # extras that the chapters do not import


def extras(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the library's extras that the chapters need, each with its requirements."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return {name: needed for name, needed in project["optional-dependencies"].items() if name not in TOOLS}


def requirements(root: Path = ROOT) -> list[Requirement]:
    """Return all that the first cell of a published notebook asks for, beside the library itself."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return [
        Requirement(x) for x in [*project["dependencies"], *(x for needed in extras(root).values() for x in needed)]
    ]


def preinstalled(text: str) -> dict[str, str]:
    r"""Return the version of each package in a list such as `pip freeze` writes, also of those that came from a URL.

    Examples
    --------
    >>> preinstalled("# a list\nnumpy==2.1.3\nTorch_X @ https://host/torch_x-2.11.0%2Bcu128-cp313-cp313-linux_x86_64.whl")
    {'numpy': '2.1.3', 'torch-x': '2.11.0'}
    """
    found = {}
    for line in text.splitlines():
        name, _, place = line.partition(" @ ")
        if pinned := re.fullmatch(r"([\w.-]+)==(\S+)", line):
            found[canonicalize_name(pinned[1])] = pinned[2]
        elif place:
            file = unquote(place.partition("#")[0].rpartition("/")[2])
            parse = parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename
            found[canonicalize_name(name)] = parse(file)[1].public
    return found


def python_of(text: str) -> str:
    """Return the version of Python that the list names in its first line."""
    return re.search(r"Python ([\d.]+)", text)[1]


def conflicts(needed: Iterable[Requirement], listed: dict[str, str], python: str) -> Iterator[str]:
    """Yield what would change a preinstalled package: requirements that its version does not meet.

    What is not preinstalled would be added; the requirements of such a package are followed as the version says that
    is installed here, which is the lock's.

    Parameters
    ----------
    needed
        Where to begin.
    listed
        Preinstalled packages and their versions.
    python
        The version of Python there.
    """
    there = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "extra": ""}
    there |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
    todo, followed = [("the library", requirement) for requirement in needed], set()
    while todo:
        by, requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(there):
            continue
        if name in listed:
            if not requirement.specifier.contains(listed[name], prereleases=True):
                yield f"{by} needs {requirement}, and Colab has {listed[name]}"
        elif name not in followed:
            followed.add(name)
            todo += [(name, Requirement(text)) for text in metadata.requires(name) or []]


def main() -> int:
    """Fetch the list anew, write it with its date and print what changed; return the exit status."""
    freeze, system = (fetch(PUBLISHED + name) for name in ("pip-freeze.txt", "os-info.txt"))
    old, new = preinstalled(LIST.read_text(encoding="utf8")), preinstalled(freeze)
    head = (
        f"# Packages on Colab (GPU runtime), Python {python_of(system)}, as published on {datetime.now(UTC):%Y-%m-%d}"
    )
    part = LIST.with_suffix(".part")
    part.write_text("\n".join([head, *(f"{name}=={new[name]}" for name in sorted(new)), ""]), encoding="utf8")
    part.replace(LIST)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'gone')}")
    return 0


def fetch(address: str) -> str:
    """Return the text at an address."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode()


if __name__ == "__main__":
    sys.exit(main())
