"""Resolve requirements.lock anew for Python 3.11 to 3.13 on Linux and macOS, and say what changed (`make lock`)."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from stamps import APART

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# The one set of versions that `make book`, `make test` and environment.yml install. Written by `make lock`.
# No hashes, and no accelerator companions of torch: both would tie the lock to one of torch's builds.
"""
# What torch's Linux build for NVIDIA brings along by itself: named here, a CPU build would drag it in too.
ACCELERATOR = re.compile(r"(nvidia-|cuda-|triton)")


def resolve() -> str:
    """Return the text of a fresh lock: the newest versions that pyproject.toml and requirements.in allow.

    What only the group `dev` needs stands at its end, where it makes no notebook stale.
    """
    everything = compiled("--group", "dev")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as same:
        same.writelines(everything)
        same.flush()
        notebooks = compiled("--constraint", same.name)
    return "".join([HEADER, *notebooks, APART, *(line for line in everything if line not in notebooks)])


def compiled(*more: str, python: str = "3.11", extras: Iterable[str] = ()) -> list[str]:
    """Return the lines of a resolution with these options, for this Python or newer; without extras, of all of them."""
    options = "--universal --fork-strategy fewest --no-header --no-annotate --quiet"
    chosen = [f"--extra={name}" for name in extras] or ["--all-extras"]
    command = ["uv", "pip", "compile", *options.split(), "--python-version", python, *chosen, *more]
    command += ["pyproject.toml", "requirements.in"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return [line for line in done.stdout.splitlines(keepends=True) if not ACCELERATOR.match(line)]


def pins(text: str) -> dict[str, str]:
    """Map each package in a lock to its version."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))


def main() -> None:
    """Write the lock and print one line for each package that came, went or moved."""
    old = pins(LOCK.read_text()) if LOCK.exists() else {}
    text = resolve()
    new = pins(text)
    part = LOCK.with_suffix(".part")
    part.write_text(text)
    part.replace(LOCK)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    for name in changed:
        print(f"{name}: {old.get(name, 'absent')} -> {new.get(name, 'gone')}")
    print(f"{LOCK.name}: {len(new)} packages, {len(changed)} changed")


if __name__ == "__main__":
    sys.exit(main())
