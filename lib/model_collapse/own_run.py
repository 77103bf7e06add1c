"""A reader's own, larger run from a notebook: it says first what it will take, and it survives a disconnect."""

from math import isnan
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pandas as pd
from tqdm import tqdm

from model_collapse.reference import read
from model_collapse.runs import Build, Say, folder_of, run
from model_collapse.scales import operations, scale_card
from model_collapse.settings import Gmm, Lm, Settings, scale_of

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
        kind = type(settings).__name__.lower()
        say(f"No GPU: the page stays at small scale (without one: model-collapse run {kind} --scale paper).")
        return None
    if out is None:
        out = DRIVE / "model-collapse" if DRIVE.is_dir() else "runs"
    say(plan(settings, seed, out))
    try:
        file = run(settings, seed, out, build, progress=True, say=say)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        batch = settings.batch  # type: ignore[union-attr]  # mixtures have none, and take no GPU
        smaller = f"settings = replace(settings, batch={max(batch // 2, 1)}), which is a run of its own"
        raise RuntimeError(f"batch = {batch}: too large for this GPU's memory; smaller: {smaller}") from error
    assert file is not None  # no time limit was given
    say(f"Finished: {file}")
    return read(file)[1]


def plan(settings: Settings, seed: int, out: str | Path) -> str:
    """What a run will do, in lines: generations, time on this machine, memory, and where it is kept.

    Time is the number of operations over the speed that this device reaches in a large product, measured now, of which
    training reaches a part only: the range is of a half to a tenth. A run that is begun already takes less.

    Examples
    --------
    >>> print(plan(Gmm(), 0, "runs").splitlines()[0])
    generations: 0 to 2,050, seed 0
    """
    card = scale_card(settings).iloc[:, 0]
    lines = {"generations": f"{card['generations']}, seed {seed}", "time": _time(settings, card["time, one seed"])}
    lines |= {"memory": card["memory"], "kept in": str(folder_of(out, settings, seed))}
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _time(settings: Settings, on_a_core: Any) -> str:
    if isinstance(settings, Gmm) or isnan(needed := operations(settings)):
        return f"{on_a_core} on one processor core"
    reached = speed("float16" if isinstance(settings, Lm) and settings.precision == "half" and _gpu() else "float32")
    low, high = ((settings.last_generation + 1) * needed / reached / share / 60 for share in SHARES)
    return f"{low:.0f} to {high:.0f} minutes, at {SHARES[0]:.0%} to {SHARES[1]:.0%} of {reached / 1e12:.2g} TFLOP/s"


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
