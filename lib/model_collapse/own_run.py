"""A reader's own, larger run from a notebook: it says first what it will take, and it survives a disconnect."""

import sys
from dataclasses import asdict
from math import isnan
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pandas as pd
from tqdm import tqdm

from model_collapse.reference import read
from model_collapse.runs import SPARE, Build, Say, folder_of, run
from model_collapse.scales import ARCHITECTURES, LENGTH, blocks_of, minutes_at, operations_by_precision, scale_card
from model_collapse.settings import SCALES, Gmm, Lm, Settings, Vae, scale_of

DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts a reader's Drive
SHARES = 0.5, 0.1  # of a device's speed in large products, what training may reach: the shortest and the longest time


def own_run(
    settings: Settings, seed: int, build: Build, *, out: str | Path | None = None, say: Say = tqdm.write
) -> pd.DataFrame | None:
    """Run what `SCALE` asks for beyond the small scale, or go on with it; nothing is run twice.

    What it will do, how long and with how much memory, is said before it starts. It is kept on the reader's Drive
    where that is mounted in Colab, so that it goes on there after a disconnect. The file of the finished run is named
    in the end; dropped into ``book/results`` it is drawn and judged like the book's own.

    Parameters
    ----------
    settings : Gmm, Vae or Lm
        At small scale nothing is run. Networks are not run without a GPU: the command line does that.
    seed : int
    build : callable (settings, rng, tick) -> Experiment
        As in `runs.run`.
    out : path, optional
        Where runs are kept; by default ``model-collapse`` on the Drive, or ``runs`` where none is mounted.
    say : callable
        As in `runs.run`.

    Returns
    -------
    DataFrame or None
        A row for each generation; None where nothing was run.

    Raises
    ------
    RuntimeError
        The GPU's memory is too small; the message names a smaller batch.

    Examples
    --------
    >>> from model_collapse.experiments import build
    >>> from model_collapse.settings import scale
    >>> own_run(scale(Gmm, "small"), 0, build, say=print)
    SCALE = 'small': nothing beyond this page is run.
    """
    if scale_of(settings) == "small":
        say("SCALE = 'small': nothing beyond this page is run.")
        return None
    if not isinstance(settings, Gmm) and not _gpu():
        say(_without_gpu(settings))
        return None
    if out is None:
        out = _place(say)
    say(plan(settings, seed, out))
    try:
        file = run(settings, seed, out, build, progress=True, say=say)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise RuntimeError(_too_large(settings)) from error  # type: ignore[arg-type]  # mixtures take no GPU
    assert file is not None  # no time limit was given
    say(f"Finished: {file}")
    return read(file)[1]


def _without_gpu(settings: Settings) -> str:
    """What to do instead, with the time that the card gives."""
    kind, takes = type(settings).__name__.lower(), scale_card(settings).loc["time, one seed"].iloc[0]
    name, *same = _scales(settings) or [""]  # none of settings of a reader's own
    command = f"model-collapse run {kind} --scale {name}{''.join(f' (the same as {other})' for other in same)}, "
    command = command if name else ""
    return f"No GPU: the page stays at small scale. Without one: {command}{takes} on one processor core."


def _scales(settings: Settings, **changed: Any) -> list[str]:
    """The scales whose settings these are, but for what was changed."""
    known = {name: found for (kind, name), found in SCALES.items() if kind is type(settings)}
    return [name for name, found in known.items() if asdict(found) | changed == asdict(settings)]


def _place(say: Say) -> Path:
    """Where runs are kept by default; in Colab without a Drive a warning is said."""
    if DRIVE.is_dir():
        return DRIVE / "model-collapse"
    if "google.colab" in sys.modules:
        say("No Drive is mounted: this run is lost with the session. To keep it, mount Drive by the second cell first.")
    return Path("runs")


def _too_large(settings: Vae | Lm) -> str:
    """What to put in the place of the first argument of `own_run` when the memory of the GPU is too small."""
    batch = settings.batch
    names = _scales(settings, batch=batch)
    whole = f"scale({type(settings).__name__}, {names[0]!r})" if names else repr(settings)
    smaller = f"from dataclasses import replace\nreplace({whole}, batch={max(batch // 2, 1)})"
    return (
        f"batch = {batch}: too large for this GPU's memory. Smaller, as a run of its own, by this argument:\n{smaller}"
    )


def plan(settings: Settings, seed: int, out: str | Path) -> str:
    """What a run will do, in lines: generations, time on this machine, memory, disk, and where it is kept.

    Time is the number of operations over the speed that this device reaches in a large product, measured now, of which
    training reaches a part only: the range is of a half to a tenth. A run that is begun already takes less.

    Examples
    --------
    >>> print(plan(Gmm(), 0, "runs").splitlines()[0])
    generations: 0 to 2,050, seed 0
    """
    card = scale_card(settings).iloc[:, 0]
    lines = {"generations": f"{card['generations']}, seed {seed}", "time": _time(settings, card["time, one seed"])}
    room = disk(settings)
    lines |= {"memory": card["memory"], "disk": "depends on the model" if isnan(room) else f"{room / 1e9:.1f} GB"}
    lines["kept in"] = str(folder_of(out, settings, seed))
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def disk(settings: Settings) -> float:
    """Bytes that a run wants on disk, about: of all generations, of one on the way, and what is left free.

    It is what `runs.run` demands before it begins, from settings alone.

    Examples
    --------
    >>> f"{disk(Vae()):.1e}, {disk(Lm()):.1e}"
    '8.3e+07, 6.2e+09'
    """
    generation, unfinished = (20e3 if isinstance(settings, Gmm) else 3e6), 0.0
    if isinstance(settings, Lm):  # float16 weights and the blocks; float32 weights, two moments, the best: old and new
        parameters = ARCHITECTURES[settings.model][0] if settings.model in ARCHITECTURES else float("nan")
        generation, unfinished = 2 * parameters + 4 * LENGTH * blocks_of(settings)[0] + 50e3, 28 * parameters
    return (settings.last_generation + 1) * generation + unfinished + SPARE


def _time(settings: Settings, on_a_core: Any) -> str:
    if isinstance(settings, Gmm) or isnan(sum(operations_by_precision(settings).values())):
        return f"{on_a_core} on one processor core"
    kinds = {"half": "float16" if _gpu() else "float32", "float32": "float32"}
    reached = {precision: speed(kinds[precision]) for precision in operations_by_precision(settings)}
    low, high = (minutes_at(settings, reached) / share for share in SHARES)
    shown = " and ".join(f"{each / 1e12:.2g} TFLOP/s ({precision})" for precision, each in reached.items())
    return f"{low:.0f} to {high:.0f} minutes, at {SHARES[0]:.0%} to {SHARES[1]:.0%} of {shown}"


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def speed(numbers: str = "float32") -> float:
    """Operations per second that this device, a GPU if there is one, reaches in the product of two large matrices.

    Parameters
    ----------
    numbers : str
        Name of a type of torch.

    Returns
    -------
    float
        By the median time of three products, after one more to warm up.

    Examples
    --------
    >>> 1e8 < speed() < 1e16
    True
    """
    import torch

    size, device = (8_192, "cuda") if _gpu() else (2_048, "cpu")
    matrix, times = torch.ones(size, size, device=device, dtype=getattr(torch, numbers)), []
    for _ in range(4):
        start = perf_counter()
        float((matrix @ matrix)[0, 0])  # reading one number waits for the device
        times.append(perf_counter() - start)
    return 2 * size**3 / median(times[1:])
