"""The command line: ``model-collapse run | list | show | export``; ``--help`` after any of them tells the rest.

What can be set is what the dataclasses in `model_collapse.settings` hold, and they refuse what is not allowed.
"""

import io
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from numpy.random import Generator
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes, Positional, subcommand

from model_collapse.arguments import integer
from model_collapse.experiments import build, device
from model_collapse.provenance import describe, differences, environments, export
from model_collapse.runs import Experiment, folder_of, run
from model_collapse.settings import EXPERIMENTS, Gmm, Lm, Scale, Settings, Vae, scale
from model_collapse.stored import METRICS, Stored, numbers

DESCRIPTION = "Run the experiments of the book, in runs that survive: killed and started again, they go on."
RULE = re.compile(r"[─-]{5,}|[╭╰].*|")  # what tyro says of an error stands in a frame, before the first rule in it
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every experiment is told beside its settings.

    Examples
    --------
    >>> Run(settings=Gmm(), seed=-1)
    Traceback (most recent call last):
    ValueError: seed = -1: must be an integer >= 0
    """

    seed: int = 0
    """The one seed of everything that is drawn."""
    scale: Scale = "small"
    """What the other flags default to; small runs on two processor cores, colab on a free T4, paper is the paper's."""
    out: Path = Path("runs")
    """Folder in which runs are kept; each makes one of its own."""
    minutes: float = math.inf
    """Begin no further generation after so many minutes; the same command goes on later."""
    settings: OmitArgPrefixes[Settings]

    def __post_init__(self) -> None:
        integer(self.seed, "seed", 0)
        if not self.minutes > 0:
            raise ValueError(f"minutes = {self.minutes}: must be > 0")

    def execute(self) -> None:
        """Say what will be done, and do it."""
        folder = folder_of(self.out, self.settings, self.seed)
        defaults = asdict(scale(type(self.settings), self.scale))  # type: ignore[type-var]
        changed = {name: value for name, value in asdict(self.settings).items() if value != defaults[name]}
        _say(f"{type(self.settings).__name__}, scale {self.scale}{', but ' * bool(changed)}{_named(changed)}")
        _say(f"seed {self.seed}, generations 0 to {self.settings.last_generation}, in {folder}")
        until = time.monotonic() + 60 * self.minutes
        file = run(self.settings, self.seed, self.out, self.build, until=until, say=_say)
        if file is None:
            _say(f"{folder}: stopped after {self.minutes:g} minutes; the same command goes on")
        else:
            _say(f"finished: {file}")

    def build(self, settings: Settings, rng: Generator, tick: Callable[[int], object]) -> Experiment:
        """Build the experiment, and say what it needs."""
        experiment = build(settings, rng, tick, folder=getattr(self, "folder", None))
        on_the_way = experiment.unfinished.size if experiment.unfinished else 0
        needed = experiment.size * (settings.last_generation + 1) + on_the_way
        free = shutil.disk_usage(self.out).free
        _say(f"device: {device(settings)}; disk: about {_size(needed)} in all, {_size(free)} free")
        return experiment


@dataclass(frozen=True, kw_only=True)
class RunGmm(Run):
    """Gaussian mixtures, each fitted to points of its predecessor.

    Examples
    --------
    >>> RunGmm(settings=Gmm()).minutes
    inf
    """

    settings: OmitArgPrefixes[Gmm]


@dataclass(frozen=True, kw_only=True)
class RunVae(Run):
    """Variational autoencoders on MNIST, each trained on images of its predecessor.

    Examples
    --------
    >>> RunVae(settings=scale(Vae, "small"), folder=Path("."))
    Traceback (most recent call last):
    ValueError: folder = .: is read for mnist = 'full' only, not for 'embedded'
    """

    settings: OmitArgPrefixes[Vae]
    folder: Path | None = None
    """Of the original MNIST files (idx); without it the full MNIST comes from the hub."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folder and self.settings.mnist != "full":
            raise ValueError(f"folder = {self.folder}: is read for mnist = 'full' only, not for 'embedded'")
        _is_folder(self.folder)


@dataclass(frozen=True, kw_only=True)
class RunLm(Run):
    """Language models, each fine-tuned on text of its predecessor.

    Examples
    --------
    >>> RunLm(settings=scale(Lm, "small"), folder=Path("."))
    Traceback (most recent call last):
    ValueError: folder = .: is read for corpus = 'wikitext2' only, not for 'wikipedia'
    """

    settings: OmitArgPrefixes[Lm]
    folder: Path | None = None
    """Of WikiText-2; without it the corpus comes from the hub."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folder and self.settings.corpus != "wikitext2":
            raise ValueError(f"folder = {self.folder}: is read for corpus = 'wikitext2' only, not for 'wikipedia'")
        _is_folder(self.folder)


@dataclass(frozen=True)
class List:
    """List runs: experiment, scale, seed, and how far each is. Only `show` reads what is in the files.

    Examples
    --------
    >>> List(Path("no such folder")).execute()
    Traceback (most recent call last):
    ValueError: out = no such folder: there is no such folder
    """

    out: Path = Path("runs")
    """Folder in which runs are kept."""

    def execute(self) -> None:
        """Print a line for each run."""
        if not self.out.is_dir():
            raise ValueError(f"out = {self.out}: there is no such folder")
        for folder in sorted(file.parent for file in self.out.glob("*/settings.json")):
            try:
                found = describe(folder)
            except ValueError as error:
                _say(str(error))
                continue
            done = len(numbers(folder))
            total = found["settings"]["last_generation"] + 1
            state = _objection(folder, found) or ("finished" if done == total else "unfinished")
            what = f"{found['experiment']}, scale {found.get('scale')}, seed {found['seed']}"
            _say(f"{folder}: {what}, {done} of {total} generations, {state}")


@dataclass(frozen=True)
class Show:
    """Show a run: its settings, how far it is, what is damaged, where it was computed, its last generation.

    Examples
    --------
    >>> Show(Path("no such folder")).execute()
    Traceback (most recent call last):
    ValueError: folder = no such folder: not a run (no settings.json)
    """

    folder: Positional[Path]
    """Of the run."""

    def execute(self) -> None:
        """Print what is known of it, all files read and compared with their digests."""
        found = describe(self.folder)
        _say(f"{self.folder}: {found['experiment']}, scale {found.get('scale')}, seed {found['seed']}")
        if wrong := _objection(self.folder, found):
            _say(wrong)
        _say(f"settings: {_named(found['settings'])}; data: {found.get('data', 'unknown')}")
        for entry in environments(self.folder):
            versions = ", ".join(f"{name} {number}" for name, number in entry.pop("versions", {}).items())
            _say(f"from generation {entry.pop('from_generation', '?')}: {_named(entry)}; {versions}")
        stored, used = Stored(self.folder, _say), sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())
        rows = [json.loads(stored.read(i, METRICS) or b"") for i in range(len(stored))]
        seconds = sum(row["seconds"] for row in rows)
        total = found["settings"]["last_generation"] + 1
        _say(f"{len(rows)} of {total} generations finished and whole, in {seconds:.0f} s; {_size(used)}")
        if rows:
            _say(f"generation {len(rows) - 1}: {_named({k: f'{v:.5g}' for k, v in rows[-1]['metrics'].items()})}")


@dataclass(frozen=True)
class Export:
    """Write what is finished of a run as one file, which can be dropped into book/results.

    Examples
    --------
    >>> Export(Path("no such folder")).execute()
    Traceback (most recent call last):
    ValueError: folder = no such folder: not a run (no settings.json)
    """

    folder: Positional[Path]
    """Of the run, finished or not."""

    def execute(self) -> None:
        """Write ``results.csv`` into the folder of the run."""
        _say(str(export(self.folder, _say)))


def _objection(folder: Path, found: dict[str, Any]) -> str:
    """Why a run cannot be gone on with by this version of the library; empty if it can."""
    if found["experiment"] not in EXPERIMENTS:
        return f"experiment {found['experiment']!r} is not known to this version"
    kind = EXPERIMENTS[found["experiment"]]
    now, then = asdict(kind()), found["settings"]
    alone = [{k: v for k, v in one.items() if k not in other} for one, other in ((then, now), (now, then))]
    if any(alone):
        return f"written by another version of the settings ({'; '.join(differences(*alone))})"
    try:
        name = folder_of(folder.parent, kind(**then), found["seed"]).name
    except ValueError as error:
        return f"its settings are not allowed by this version ({error})"
    return "" if name == folder.resolve().name else f"its settings are not those of its name (they belong in {name})"


def _is_folder(folder: Path | None) -> None:
    if folder and not folder.is_dir():
        raise ValueError(f"folder = {folder}: there is no such folder")


def _named(values: dict[str, Any]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _size(n: float) -> str:
    """Bytes for people."""
    return f"{n / 1e9:.3g} GB" if n >= 1e9 else f"{n / 1e6:.3g} MB"


def _say(text: str) -> None:
    """Print a line at once, past a progress bar."""
    tqdm.write(text)
    sys.stdout.flush()


def _commands(name: Scale) -> Any:
    """The commands, with settings that default to those of a scale."""
    shown = f"Settings default to those of scale {name}."
    gmm = subcommand("gmm", default=RunGmm(settings=scale(Gmm, name)), description=f"Gaussian mixtures. {shown}")
    vae = subcommand("vae", default=RunVae(settings=scale(Vae, name)), description=f"Autoencoders. {shown}")
    lm = subcommand("lm", default=RunLm(settings=scale(Lm, name)), description=f"Language models. {shown}")
    experiments: Any = Annotated[RunGmm, gmm] | Annotated[RunVae, vae] | Annotated[RunLm, lm]
    what = "Run an experiment, or go on with it where it stands."
    return (
        Annotated[Any, subcommand("run", description=what, constructor=experiments)]
        | Annotated[List, subcommand("list")]
        | Annotated[Show, subcommand("show")]
        | Annotated[Export, subcommand("export")]
    )


def parse(arguments: Sequence[str]) -> Run | List | Show | Export:
    """What the arguments ask for; what is wrong with them is said in one line.

    Raises
    ------
    SystemExit
        With status 2 for arguments that are not allowed, 0 after help.

    Examples
    --------
    >>> parse(["run", "vae", "--scale", "paper", "--epochs", "5"]).settings == Vae(epochs=5)
    True
    """
    given = re.findall(r"--scale[ =](\S+)", " ".join(arguments))
    known: Scale = given[-1] if given and given[-1] in get_args(Scale) else "small"  # tyro refuses anything else
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            asked: Run | List | Show | Export = tyro.cli(
                _commands(known), prog="model-collapse", description=DESCRIPTION, args=arguments
            )
    except SystemExit as stop:
        if stop.code:
            print(_complaint(said.getvalue()), file=sys.stderr)
        raise
    except ValueError as error:  # of the settings; newer versions of tyro make it one of theirs
        print(f"model-collapse: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    return asked


def _complaint(box: str) -> str:
    """The message in one of tyro's boxes, in one line."""
    lines = [line.strip("│ ") for line in COLOUR.sub("", box).splitlines()]
    sections = [" ".join(group) for rule, group in groupby(lines, lambda line: bool(RULE.fullmatch(line))) if not rule]
    message = sections[0 if "╭" in box else 1]  # without frames, the first is the title
    return f"model-collapse: {re.sub(r'^Error parsing __tyro.*?: ', '', message)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments ask for; return the exit status: 1 if it could not be done, 130 if it was interrupted.

    Examples
    --------
    >>> main(["list", "--out", "lib"])
    0
    """
    try:
        parse(sys.argv[1:] if arguments is None else arguments).execute()
    except (ValueError, OSError, ImportError, ArithmeticError) as error:
        message = error.strerror if isinstance(error, OSError) and not error.filename else None
        print(f"model-collapse: {message or error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be imported
            raise
        print(
            f"model-collapse: the GPU's memory is too small; try a smaller batch, or half precision ({error})",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("model-collapse: interrupted; the same command goes on with what is finished", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
