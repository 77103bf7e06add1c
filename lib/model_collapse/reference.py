"""Stored reference runs: which there should be, and how chapters read them.

A reference run is what `model_collapse.runs` exported: a CSV whose first line holds settings, seed, hardware, versions
and time. Here stands the list of runs that the book rests on (`PIECES`, the most valuable first); ``make reference``
runs what is missing. A file whose settings are no longer those of its piece is stale, and a test fails.
"""

import io
import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from model_collapse.settings import SCALES, Gmm, Lm, Settings, Vae, scale

_CARRIED = Path(__file__).with_name("book")  # by an installed library; beside `lib` in a copy of the repository
BOOK = _CARRIED if _CARRIED.exists() else Path(__file__).resolve().parents[2] / "book"
RESULTS = BOOK / "results"
SEEDS = (0, 1, 2, 3, 4)
SMALL = replace(scale(Vae, "small"), last_generation=6)
TINY = replace(scale(Lm, "small"), blocks=1_024, validation=256, test=512, epochs=5, last_generation=9)
SMOLLM2 = Lm(  # for a GPU; batch and learning rate are the other pair in the authors' code
    model="smollm2",
    corpus="wikipedia",
    blocks=2_048,
    validation=256,
    test=512,
    batch=16,
    learning_rate=1e-5,
    precision="half",
)
# For a processor: minutes a generation. The learning rate is the better of 1e-5 and 4e-5 by validation, seed 100.
SMOLLM2_64 = replace(SMOLLM2, blocks=64, validation=32, test=192, batch=8, learning_rate=4e-5)
MIXED = replace(TINY, last_generation=4)
REAL_TENTH: dict[str, Any] = {"epochs": 10, "alpha": 0.9, "gamma": 0.1}  # the paper's setting B


class Piece(NamedTuple):
    """Runs that belong together: one setting, several seeds.

    Attributes
    ----------
    name : str
        What chapters ask for.
    settings : Gmm, Vae or Lm
    seeds : tuple of int

    Examples
    --------
    >>> Piece("gmm-1000", Gmm(), (0, 1)).file(1).name
    'gmm-1000-seed1.csv'
    """

    name: str
    settings: Settings
    seeds: tuple[int, ...]

    def file(self, seed: int, folder: Path = RESULTS) -> Path:
        """Where the run with this seed is stored."""
        return folder / f"{self.name}-seed{seed}.csv"


PIECES = (
    Piece("gmm-1000", Gmm(), SEEDS),
    Piece("gmm-500", Gmm(n=500), SEEDS),
    Piece("tiny-a", TINY, SEEDS),
    Piece("tiny-b", replace(TINY, **REAL_TENTH), SEEDS),
    Piece("tiny-sampling", replace(TINY, writing="sampling"), SEEDS),
    Piece("tiny-penalty2", replace(TINY, repetition_penalty=2.0), (0, 1, 2)),
    Piece("tiny-penalty3", replace(TINY, repetition_penalty=3.0), (0, 1)),
    Piece("tiny-fresh", replace(TINY, control="fresh"), (0, 1)),
    Piece("tiny-kept", replace(TINY, control="kept", start="predecessor"), (0, 1)),
    Piece("tiny-predecessor", replace(TINY, start="predecessor"), (0, 1)),
    Piece("tiny-beta50", replace(MIXED, alpha=0.5, beta=0.5), (0, 1)),
    Piece("tiny-gamma50", replace(MIXED, alpha=0.5, gamma=0.5), (0, 1)),
    Piece("tiny-thirds", replace(MIXED, alpha=0.4, beta=0.3, gamma=0.3), (0, 1)),
    Piece("smollm2-64-a", SMOLLM2_64, (0,)),
    Piece("smollm2-64-sampling", replace(SMOLLM2_64, writing="sampling"), (0,)),
    Piece("vae-paper", Vae(), (0,)),
    Piece("vae-small", SMALL, (0, 1, 2)),
    Piece("vae-small-fixed", replace(SMALL, draws="fixed"), (0, 1, 2)),
    Piece("vae-small-bernoulli", replace(SMALL, output="bernoulli"), (0, 1, 2)),
    Piece("vae-small-bernoulli-fixed", replace(SMALL, output="bernoulli", draws="fixed"), (0, 1, 2)),
    Piece("vae-small-real", replace(SMALL, alpha=0.0, gamma=1.0), (0, 1, 2)),
    Piece("vae-small-gamma10", replace(SMALL, alpha=0.9, gamma=0.1), (0, 1)),
    Piece("vae-two-epochs", Vae(epochs=2, last_generation=5), (0,)),
    Piece("gmm-500-floor12", Gmm(n=500, reg_covar=1e-12), SEEDS),
    Piece("gmm-500-floor9", Gmm(n=500, reg_covar=1e-9), SEEDS),
    Piece("gmm-10000", Gmm(n=10_000), SEEDS),
    Piece("gmm-two-blobs", Gmm(blobs=2), SEEDS),
    Piece("gmm-1000-warm", Gmm(start="warm"), SEEDS),
    Piece("vae-small-beta50", replace(SMALL, alpha=0.5, beta=0.5), (0, 1)),
    Piece("vae-small-thirds", replace(SMALL, alpha=0.4, beta=0.3, gamma=0.3), (0, 1)),
    Piece("vae-paper-more", Vae(), (1, 2, 3)),
    Piece("vae-paper-long", Vae(last_generation=20), (4,)),
    Piece("gmm-50000", Gmm(n=50_000), (0,)),
    Piece("vae-paper-fixed", Vae(draws="fixed"), (0, 1)),
    Piece("vae-paper-bernoulli", Vae(output="bernoulli"), (0, 1)),
    Piece("vae-paper-bernoulli-fixed", Vae(output="bernoulli", draws="fixed"), (0, 1)),
    Piece("vae-paper-gamma10", Vae(alpha=0.9, gamma=0.1), (0, 1)),
    Piece("smollm2-a", SMOLLM2, SEEDS),
    Piece("smollm2-b", replace(SMOLLM2, **REAL_TENTH), SEEDS),
    Piece("smollm2-penalty2", replace(SMOLLM2, repetition_penalty=2.0), SEEDS),
    Piece("smollm2-penalty3", replace(SMOLLM2, repetition_penalty=3.0), SEEDS),
    Piece("smollm2-sampling", replace(SMOLLM2, writing="sampling"), SEEDS),
    Piece("smollm2-fresh", replace(SMOLLM2, control="fresh"), SEEDS),
    Piece("smollm2-kept", replace(SMOLLM2, control="kept", start="predecessor"), SEEDS),
    Piece("opt-125m-4096-a", scale(Lm, "colab"), SEEDS),
    Piece("opt-125m-a", Lm(), SEEDS),
    Piece("opt-125m-b", replace(Lm(), **REAL_TENTH), SEEDS),
)


class Reference(NamedTuple):
    """Stored runs of one piece.

    Attributes
    ----------
    table : DataFrame
        Columns seed and generation, and one for each metric.
    provenance : list of dict
        One for each seed: settings, hardware, versions, seconds.

    Examples
    --------
    >>> Reference(pd.DataFrame({"seed": [0], "generation": [0]}), []).table.shape
    (1, 2)
    """

    table: pd.DataFrame
    provenance: list[dict[str, Any]]

    @property
    def label(self) -> str:
        """Scale, generations, seeds, hardware and time in one line, for captions and tables."""
        first = self.provenance[0]
        planned, seeds = first["settings"]["last_generation"], len(self.provenance)
        reached = min(p["generations"] for p in self.provenance) - 1
        part = "" if reached == planned else f" of {planned} planned"
        machines = sorted({_machine(e) for p in self.provenance for e in p["environment"]})
        minutes = max(round(sum(p["seconds"] for p in self.provenance) / 60), 1)
        time = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{minutes} minute{'s' * (minutes > 1)}"
        return (
            f"{_scaled(first)}, generations 0 to {reached}{part}, {seeds} seed{'s' * (seeds > 1)}, "
            f"{' and '.join(machines)}, {time} in all"
        )

    def seeds(self, metric: str, relative: bool = False) -> pd.DataFrame:
        """One metric: a row for each generation, a column for each seed, NaN where a run is shorter.

        Parameters
        ----------
        metric : str
            A column of the table.
        relative : bool
            Whether to divide by generation 0 of the same seed.

        Examples
        --------
        >>> reference("gmm-1000").seeds("trace", relative=True).loc[[0]].to_numpy().tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0]]
        """
        found = self.table.pivot(index="generation", columns="seed", values=metric)
        return found / found.loc[0] if relative else found


def piece(name: str) -> Piece:
    """The piece of this name.

    Raises
    ------
    ValueError
        There is none.

    Examples
    --------
    >>> piece("gmm-1000").settings == Gmm()
    True
    """
    for known in PIECES:
        if known.name == name:
            return known
    raise ValueError(f"name = {name!r}: allowed are {[p.name for p in PIECES]}")


def reference(name: str, folder: Path = RESULTS) -> Reference:
    """Read the stored runs of a piece, those that are there.

    Parameters
    ----------
    name : str
        Of a piece.
    folder : path, optional
        By default ``book/results``, of the repository or as the installed library carries it.

    Raises
    ------
    FileNotFoundError
        None of its runs is stored: not run.
    ValueError
        No such piece, or a stored file with other settings than the piece's.

    Examples
    --------
    >>> reference("gmm-1000").table["generation"].max()
    np.int64(2050)
    """
    wanted = piece(name)
    found = [(seed, wanted.file(seed, folder)) for seed in wanted.seeds]
    runs = [(seed, *read(file)) for seed, file in found if file.exists()]
    if not runs:
        raise FileNotFoundError(f"{name}: not run (no {wanted.file(wanted.seeds[0], folder)}); make reference runs it")
    for seed, provenance, _ in runs:
        if difference := differs(wanted, seed, provenance):
            raise ValueError(f"{wanted.file(seed, folder)}: stale ({difference}); make reference runs it again")
    table = pd.concat([rows.copy().assign(seed=seed) for seed, _, rows in runs], ignore_index=True)
    return Reference(table, [provenance for _, provenance, _ in runs])


def stored(names: Mapping[str, str], folder: Path = RESULTS) -> dict[str, Reference]:
    """The stored runs of several pieces, those that there are; prints what each is, or that it was not run.

    Parameters
    ----------
    names : mapping of str to str
        Names of pieces, and what to call them.
    folder : path, optional
        As in `reference`.

    Raises
    ------
    ValueError
        As in `reference`.

    Examples
    --------
    >>> list(stored({"gmm-1000": "as coded"}, Path("nothing")))
    as coded (gmm-1000): not run
    []
    """
    found = {}
    for name, title in names.items():
        text = "not run"
        with suppress(FileNotFoundError):
            found[name] = reference(name, folder)
            text = found[name].label
        print(textwrap.fill(f"{title} ({name}): {text}", 84, subsequent_indent="    "))
    return found


def read(file: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Provenance and rows of an exported file.

    Raises
    ------
    ValueError
        Not such a file.

    Examples
    --------
    >>> read(piece("gmm-1000").file(0))[0]["scale"]
    'paper'
    """
    first, _, rest = file.read_text(encoding="utf8").partition("\n")
    try:
        if not first.startswith("# "):
            raise ValueError("its first line is no provenance")
        return json.loads(first[2:]), pd.read_csv(io.StringIO(rest))
    except ValueError as error:
        raise ValueError(f"{file}: not an exported run ({error})") from error


def differs(wanted: Piece, seed: int, provenance: dict[str, Any]) -> str:
    """How stored settings differ from those of a piece; empty if they do not.

    Examples
    --------
    >>> differs(Piece("gmm-1000", Gmm(), (0,)), 0, {"seed": 1, "settings": asdict(Gmm(n=50))})
    'seed is 1, should be 0; n is 50, should be 1000'
    """
    settings, stored = asdict(wanted.settings), provenance.get("settings", {})
    pairs: list[tuple[str, Any, Any]] = [("seed", provenance.get("seed"), seed)]
    pairs += [(key, stored.get(key), settings.get(key)) for key in {**settings, **stored}]
    return "; ".join(f"{key} is {is_!r}, should be {should!r}" for key, is_, should in pairs if is_ != should)


def outstanding(folder: Path = RESULTS) -> Iterator[tuple[Piece, int, str]]:
    """What is still to be run, the most valuable first: piece, seed and why.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as nothing:
    ...     next((p.name, seed, why) for p, seed, why in outstanding(Path(nothing)))
    ('gmm-1000', 0, 'missing')
    """
    for wanted in PIECES:
        for seed in wanted.seeds:
            file = wanted.file(seed, folder)
            if not file.exists():
                yield wanted, seed, "missing"
                continue
            provenance, _ = read(file)
            if difference := differs(wanted, seed, provenance):
                yield wanted, seed, f"stale: {difference}"
            elif provenance["generations"] <= wanted.settings.last_generation:
                yield wanted, seed, f"finished as far as generation {provenance['generations'] - 1}"


def _scaled(provenance: dict[str, Any]) -> str:
    """The nearest scale, and which settings are others."""
    stored, others = provenance["settings"], {}
    for (kind, name), known in reversed(SCALES.items()):  # the paper's first
        if kind.__name__ == provenance["experiment"]:
            others[name] = [key for key, value in asdict(known).items() if stored.get(key) != value]
    nearest = min(others, key=lambda name: len(others[name]))
    return f"{nearest} scale" + (f" but for {', '.join(others[nearest])}" if others[nearest] else "")


def _machine(environment: dict[str, Any]) -> str:
    accelerator = environment["accelerator"]
    threads = environment["threads"]
    return (
        accelerator if accelerator != "none" else f"{environment['processor']} ({threads} thread{'s' * (threads > 1)})"
    )
