"""Runs on disk that survive: killed at any moment and started again, a run ends as if nothing had happened.

A run is a folder named by the digest of its settings and seed::

    vae-3f2a9c51d07b/
        settings.json             experiment, settings, seed, digest of the original data
        environment.json          processor, threads, versions; one entry for each change on the way
        generation-000/           weights.safetensors, samples.safetensors, metrics.json, digests.json
        unfinished-001-...        what is kept of a generation on the way, by families that take long for one
        generation-001/ ...
        results.csv               when finished: what `model_collapse.results.reference` reads

Nothing is half written: a generation is a folder that gets its name after all its files are on the disk. Going on is
replaying: the one loop runs again from its seed, with stored parameters in place of fits, so that every stream of
random numbers is where it would have been. Parameters always pass through their stored form, so that not even their
order in memory tells a resumed run from an uninterrupted one. On the same kind of processor, with as many threads and
the same versions, both end bit-identical; elsewhere a run goes on and says so.
"""

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from safetensors.numpy import load, save
from tqdm import tqdm

from model_collapse.arguments import integer
from model_collapse.drawn import Data, taken
from model_collapse.process import Family, Generation, Source, Theta, generations
from model_collapse.provenance import describe, differences, export, note_environment
from model_collapse.settings import Gmm, Lm, Settings, Vae, digest, mixture, scale_of
from model_collapse.stored import METRICS, SAMPLES, WEIGHTS, Stored, alone, as_json, remove_leftovers, replace
from model_collapse.unfinished import Unfinished, remove_unfinished

Arrays = Mapping[str, NDArray[Any]]
Say = Callable[[str], object]
OBSERVE, BUILD = 1, 2  # keys of the streams beside the loop's, which has 0
SPARE = 50_000_000  # bytes left free beside what the run needs


class Experiment(NamedTuple):
    """What a run has to know of a model: how it learns, from what, and what is kept of each generation.

    Attributes
    ----------
    family : Family
    original : array, or callable (n, rng) -> array
        As in `process.generations`.
    n : int
        Points per generation.
    observe : callable (generation, first theta, rng) -> (metrics, arrays)
        Numbers of a generation, and small arrays to keep, such as some of its points.
    pack, unpack : callable
        Parameters to named arrays, and back.
    work : int
        Ticks per generation of the progress bar.
    size : int
        Bytes per generation on disk, about.
    unfinished : Unfinished, optional
        Where the family keeps a generation on the way; it is told the folder of the run.
    origin : mapping, optional
        Digests or revisions of what the run starts from beside its data, such as a pretrained model; they are noted,
        and a run goes on with the same only.

    Examples
    --------
    >>> coin = Family(lambda data, rng, previous: data.mean(), lambda theta, n, rng: rng.binomial(1, theta, n))
    >>> experiment = Experiment(
    ...     coin, np.array([0, 1] * 10), 20, observe=lambda g, first, rng: ({"p": g.theta}, {}),
    ...     pack=lambda theta: {"p": np.array(theta)}, unpack=lambda arrays: float(arrays["p"]), work=1, size=10_000,
    ... )
    >>> experiment.pack(0.5)
    {'p': array(0.5)}
    """

    family: Family
    original: Data | Source
    n: int
    observe: Callable[[Generation, Theta, Generator], tuple[dict[str, float], Arrays]]
    pack: Callable[[Theta], Arrays]
    unpack: Callable[[Arrays], Theta]
    work: int
    size: int
    unfinished: Unfinished | None = None
    origin: Mapping[str, str] = MappingProxyType({})


Build = Callable[[Settings, Generator, Callable[[int], object]], Experiment]


def folder_of(out: str | Path, settings: Settings, seed: int) -> Path:
    """The folder of a run.

    Examples
    --------
    >>> from model_collapse.settings import Vae
    >>> folder_of("runs", Vae(), 0).name[:4]
    'vae-'
    """
    integer(seed, "seed", 0)
    return Path(out) / f"{type(settings).__name__.lower()}-{digest(settings, seed=seed)[:12]}"


def run(
    settings: Settings,
    seed: int,
    out: str | Path,
    build: Build,
    *,
    until: float | None = None,
    progress: bool | None = None,
    say: Say = tqdm.write,
) -> Path | None:
    """Run an experiment, or go on with it where it stands.

    Parameters
    ----------
    settings : Gmm, Vae or Lm
    seed : int
        The one seed of everything that is drawn.
    out : path
        Where runs are kept; their folders are made in it.
    build : callable (settings, rng, tick) -> Experiment
        Such as `experiments.build`; `rng` is a stream of its own, `tick(k)` moves the progress bar.
    until : float, optional
        A time (of `time.monotonic`) after which no further generation is begun.
    progress : bool, optional
        Whether to draw a bar on stderr; by default where that is a terminal.
    say : callable
        Told what is worth knowing: damage found, another environment, where it goes on.

    Returns
    -------
    Path or None
        The exported ``results.csv`` of the finished run; None if `until` came first.

    Raises
    ------
    ValueError
        The folder was written with other settings, by another version of them, or from other data.
    BlockingIOError
        Another process is at work on this run.
    OSError
        The disk is full, or will be; finished generations are kept.

    Examples
    --------
    >>> import tempfile
    >>> from model_collapse.experiments import build
    >>> from model_collapse.settings import Gmm
    >>> with tempfile.TemporaryDirectory() as out:
    ...     file = run(Gmm(n=50, last_generation=2), 0, out, build)
    ...     file.name, sorted(p.name for p in file.parent.glob("generation-*"))
    ('results.csv', ['generation-000', 'generation-001', 'generation-002'])
    """
    unfinished = _Run(folder_of(out, settings, seed), settings, seed, say)
    unfinished.refuse_other_versions()
    unfinished.folder.mkdir(parents=True, exist_ok=True)
    with alone(unfinished.folder):
        remove_leftovers(unfinished.folder)
        stored = Stored(unfinished.folder, say)
        unfinished.refuse_others(stored)
        if len(stored) <= settings.last_generation:
            with _bar(settings, progress) as bar:
                if not unfinished.finish(stored, build, until, bar):
                    return None
        remove_unfinished(unfinished.folder)
        return export(unfinished.folder, say)


@dataclass(frozen=True)
class _Run:
    """What a run is, and how it is brought to its end."""

    folder: Path
    settings: Settings
    seed: int
    say: Say

    @property
    def identity(self) -> dict[str, Any]:
        kind, scale = type(self.settings).__name__, scale_of(self.settings)
        return {"experiment": kind, "scale": scale, "seed": self.seed, "settings": asdict(self.settings)}

    def refuse_others(self, stored: Stored) -> None:
        """Refuse a folder in which something else was run."""
        if (self.folder / "settings.json").exists():
            self.compare(describe(self.folder))
        elif stored.digests:
            raise ValueError(f"{self.folder}: has generations, but no settings.json; remove it or name another folder")

    def refuse_other_versions(self) -> None:
        """Refuse to begin anew what another version of the settings has begun; its folder has another name."""
        for file in self.folder.parent.glob(f"{type(self.settings).__name__.lower()}-*/settings.json"):
            try:
                found = describe(file.parent)
            except ValueError:
                continue  # damaged: whatever it was
            ours, theirs = self.identity["settings"], found["settings"]
            shared = ours.keys() & theirs.keys()
            if (
                ours.keys() != theirs.keys()
                and found["seed"] == self.seed
                and all(ours[name] == theirs[name] for name in shared)
            ):
                raise ValueError(
                    f"{file.parent}: this run, begun by another version of the settings "
                    f"({'; '.join(differences(theirs, ours))}); finish it with that version, remove it, "
                    "or name another folder"
                )

    def compare(self, found: Mapping[str, Any], **more: str) -> None:
        """Refuse what was found if it is something else."""
        wanted = {**self.identity, **more}
        names = ("experiment", "seed", *more)
        differing = differences({k: found.get(k) for k in names}, {k: wanted[k] for k in names})
        differing += [f"settings.{text}" for text in differences(found["settings"], wanted["settings"])]
        if differing:
            what = "; ".join(differing)
            raise ValueError(f"{self.folder}: not this run ({what}); remove it or name another folder")

    def finish(self, stored: Stored, build: Build, until: float | None, bar: Any) -> bool:
        """Make what is missing of the generations; False if the time was up before."""
        experiment = build(self.settings, default_rng(SeedSequence(self.seed, spawn_key=(BUILD,))), bar.update)
        begun = {"data": _data_digest(experiment.original)}
        begun |= experiment.origin
        file = self.folder / "settings.json"
        if file.exists():
            self.compare(describe(self.folder), **begun)
        indices = range(self.settings.last_generation + 1)
        on_the_way = experiment.unfinished.size if experiment.unfinished else 0
        _require_room(self.folder, experiment.size * sum(not stored.whole(i) for i in indices) + on_the_way)
        if not file.exists():
            replace(file, as_json({**self.identity, **begun}))
        note_environment(self.folder, len(stored), self.say, torch=not isinstance(self.settings, Gmm))
        if len(stored):
            self.say(f"{self.folder}: goes on after generation {len(stored) - 1}")
        bar.reset(total=experiment.work * len(indices))
        known = sum(WEIGHTS in stored.digests.get(i, {}) for i in indices)  # takes no time, so counts for no rate
        bar.initial = bar.n = bar.last_print_n = experiment.work * known
        loop = self.generations(experiment, stored)
        for i in indices:
            if until is not None and time.monotonic() > until:
                return False
            bar.set_description(f"generation {i} of {indices[-1]}", refresh=False)
            next(loop)
            bar.update(max(experiment.work * (i + 1) - bar.n, 0))  # not every generation writes text
        return True

    def generations(self, experiment: Experiment, stored: Stored) -> Iterator[Generation]:
        """The loop, with what is stored in place of fits and answers; what is new is stored before it is passed on."""
        made, weights, first = 0, b"", None  # the generation that is made

        def fit(data: Data, rng: Generator, previous: Theta | None) -> Theta:
            nonlocal weights
            self.begin(experiment, stored, made)
            known = stored.read(made, WEIGHTS)
            weights = known or _bytes(experiment.pack(experiment.family.fit(data, rng, previous)))
            return experiment.unpack(load(weights))

        def sample_at(theta: Theta, positions: NDArray[np.intp], rng: Generator) -> Data:
            self.begin(experiment, stored, made)
            if known := stored.read(made, SAMPLES):
                return taken(load(known)["data"], positions)
            assert experiment.family.sample_at is not None  # asked of families that have it
            answers: Data = experiment.family.sample_at(theta, positions, rng)
            return answers

        family = Family(fit, experiment.family.sample, experiment.family.sample_at and sample_at)
        rng = default_rng(self.seed)
        loop = generations(family, experiment.original, rng, mixture=mixture(self.settings), sizes=experiment.n)
        began = time.monotonic()
        for g in loop:
            first = g.theta if g.index == 0 else first
            if not stored.whole(g.index):
                rng = default_rng(SeedSequence(self.seed, spawn_key=(OBSERVE, g.index)))
                metrics, arrays = experiment.observe(g, first, rng)
                numbers = {name: float(value) for name, value in metrics.items()}
                spent = time.monotonic() - began + (experiment.unfinished.spent if experiment.unfinished else 0)
                row = {"generation": g.index, "seconds": round(spent, 3), "metrics": numbers}
                stored.write(g.index, {WEIGHTS: weights, SAMPLES: _bytes(arrays), METRICS: as_json(row)})
            made = g.index + 1
            yield g
            began = time.monotonic()

    def begin(self, experiment: Experiment, stored: Stored, made: int) -> None:
        """Tell a family that keeps unfinished generations which one is made."""
        if experiment.unfinished and not stored.whole(made):
            experiment.unfinished.begin(self.folder, made, stored.parent(made))


@contextmanager
def _bar(settings: Settings, progress: bool | None) -> Iterator[Any]:
    unit = {Gmm: "fit", Vae: "image", Lm: "block"}[type(settings)]
    disable = None if progress is None else not progress
    columns, lines = shutil.get_terminal_size()  # where a terminal does not know, tqdm would draw nothing
    with tqdm(unit=unit, unit_scale=True, smoothing=0.05, disable=disable, ncols=columns, nrows=lines) as bar:
        yield bar


def _bytes(arrays: Arrays) -> bytes:
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _data_digest(original: Data | Source) -> str:
    if not isinstance(original, np.ndarray):
        return "drawn"
    return hashlib.sha256(np.ascontiguousarray(original).reshape(-1).view(np.uint8).data).hexdigest()


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        shown = f"{free / 1e6:.0f} MB are free, the run needs about {(needed + SPARE) / 1e6:.0f} MB"
        raise OSError(errno.ENOSPC, f"{folder}: {shown}")
