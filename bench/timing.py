"""One way to measure: the median of some runs, each with another seed, after one to warm up."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from numpy.random import Generator, default_rng

REPEATS = 5


class Row(NamedTuple):
    """One measurement: seconds, how often faster than the loop it is compared with, and the least ratio wanted."""

    name: str
    sizes: str
    seconds: float
    ratio: float | None = None
    least: float | None = None

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}x"
        least = "" if self.least is None else f"wanted {self.least:g}x: {'yes' if self.ratio >= self.least else 'NO'}"
        return f"{self.name:<62} {self.sizes:<50} {self.seconds:>9.4g} s {ratio:>8}  {least}".rstrip()


def seconds(run: Callable[[Generator], object], repeats: int = REPEATS) -> float:
    """Return the median time of a run of `repeats`, after one more to warm up."""
    times = []
    for seed in range(repeats + 1):
        rng, start = default_rng(seed), time.perf_counter()
        run(rng)
        times.append(time.perf_counter() - start)
    return median(times[1:])
