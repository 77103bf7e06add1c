"""Where a result comes from: settings, processor, threads, versions, commit; and the one file a run is exported to."""

import csv
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from model_collapse.stored import METRICS, Stored, as_json, numbers, replace

PACKAGES = ("model-collapse", "numpy", "scipy", "scikit-learn", "torch")


def environment(torch: bool = True) -> dict[str, Any]:
    """Processor, threads, accelerator and versions that a result depends on.

    Parameters
    ----------
    torch : bool
        Whether the result is torch's (where that is imported): then its threads, instructions and accelerator count.

    Examples
    --------
    >>> list(environment())
    ['processor', 'instructions', 'accelerator', 'threads', 'system', 'python', 'versions', 'commit']
    """
    module = sys.modules.get("torch") if torch else None
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    on_gpu = module is not None and module.cuda.is_available()
    return {
        "processor": _processor(),
        "instructions": module.backends.cpu.get_cpu_capability() if module else (simd.get("found") or ["baseline"])[-1],
        "accelerator": module.cuda.get_device_name() if module and on_gpu else "none",
        "threads": module.get_num_threads() if module else 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _packages() if (found := _version(name))},
        "commit": _commit(),
    }


def note_environment(folder: Path, done: int, say: Callable[[str], object], torch: bool = True) -> None:
    """Note the environment of a run, and say where it is another than that of the generations before.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     note_environment(Path(folder), 0, print)
    ...     len(environments(Path(folder)))
    1
    """
    unfinished, found, now = any(folder.glob("unfinished-*")), environments(folder), environment(torch)
    last = max(numbers(folder), default=-1)
    past = [x for x in found if unfinished or x.get("from_generation", 0) <= last]  # the others finished nothing
    changed = [k for k in now if past and k in past[-1] and past[-1][k] != now[k]]
    if changed:
        what = "; ".join(f"{k} was {past[-1][k]}, is {now[k]}" for k in changed)
        say(f"{folder}: goes on in another environment, so perhaps not bit for bit ({what})")
    entries = [*past, {"from_generation": done, **now}] if changed or not past else past
    if entries != found:
        replace(folder / "environment.json", as_json(entries))


def environments(folder: Path) -> list[dict[str, Any]]:
    """The environments of a run so far, each with the generation it began at; none where they cannot be read.

    Examples
    --------
    >>> environments(Path("no such folder"))
    []
    """
    try:
        found = json.loads((folder / "environment.json").read_bytes())
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def describe(folder: str | Path) -> dict[str, Any]:
    """What a run is: experiment, scale, seed, settings, digest of its data.

    Raises
    ------
    ValueError
        The folder is no run, or its settings are damaged.

    Examples
    --------
    >>> describe("no such folder")
    Traceback (most recent call last):
    ValueError: folder = no such folder: not a run (no settings.json)
    """
    file = Path(folder) / "settings.json"
    if not file.is_file():
        raise ValueError(f"folder = {folder}: not a run (no settings.json)")
    try:
        described: dict[str, Any] = json.loads(file.read_bytes())
        described["settings"]["last_generation"] + described["seed"]  # there, and numbers
        if not isinstance(described["experiment"], str):
            raise TypeError("experiment")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error!r:.200}); remove {folder}, or name another folder") from error
    return described


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """How what was run differs from what is wanted: one phrase for each name that is not in both with one value.

    Examples
    --------
    >>> differences({"n": 50, "tol": 0.1}, {"n": 100, "start": "warm"})
    ['n was 50, is 100', "start was absent, is 'warm'", 'tol was 0.1, is absent']
    """
    names = {**wanted, **found}
    shown = [(name, *(repr(x[name]) if name in x else "absent" for x in (found, wanted))) for name in names]
    return [f"{name} was {old}, is {new}" for name, old, new in shown if old != new]


def export(folder: str | Path, say: Callable[[str], object] = print) -> Path:
    """Write what is finished of a run as one file: provenance in the first line, then a row for each generation.

    Parameters
    ----------
    folder : path
        Of the run; another process may be at work on it.
    say : callable
        Told what is damaged: rows end before it.

    Returns
    -------
    Path
        ``results.csv`` in the folder of the run, to be dropped into ``book/results``. Numbers have nine significant
        digits; those that are not finite are ``nan``, ``inf`` and ``-inf``, which pandas reads.

    Raises
    ------
    ValueError
        The folder is no run, or none of its generations is finished.

    Examples
    --------
    >>> export("no such folder")
    Traceback (most recent call last):
    ValueError: folder = no such folder: not a run (no settings.json)
    """
    folder = Path(folder)
    described, stored = describe(folder), Stored(folder, say)
    rows = [json.loads(stored.read(i, METRICS) or b"") for i in range(len(stored))]
    if not rows:
        raise ValueError(f"folder = {folder}: no generation is finished")
    seconds = round(sum(row["seconds"] for row in rows), 1)
    provenance = {**described, "generations": len(rows), "seconds": seconds, "environment": environments(folder)}
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    text = io.StringIO()
    text.write(f"# {json.dumps(provenance)}\n")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["generation", *names])
    for row in rows:
        table.writerow([row["generation"], *(f"{row['metrics'].get(name, float('nan')):.9g}" for name in names)])
    file = folder / "results.csv"
    replace(file, text.getvalue().encode())
    return file


def _processor() -> str:
    """The processor's name, where the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.partition(":")[2].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        return names[0] if names else platform.machine()
    return platform.processor() or platform.machine()


def _packages() -> tuple[str, ...]:
    """The packages that results depend on: of language models, the library of models too."""
    return (*PACKAGES, "transformers") if "transformers" in sys.modules else PACKAGES


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str:
    """The commit that the library is at, where it is run from its repository; "+" if its files are not as committed."""
    root = Path(__file__).resolve().parents[2]
    if _git(root, "rev-parse", "--show-toplevel") != os.fspath(root):
        return "unknown"
    return _git(root, "rev-parse", "--short=12", "HEAD") + ("+" if _git(root, "status", "--porcelain", "lib") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        command = ["git", "--no-optional-locks", "-C", os.fspath(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
