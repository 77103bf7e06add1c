"""Time of the Gaussian chain's simulation by sufficient statistics, against the loop that draws the points."""

import numpy as np
from numpy.random import Generator

from bench.timing import Row, seconds
from model_collapse.gaussian import simulate

M, REPLICATES, GENERATIONS = 1_000, 100, 200
SIZES = f"M = {M:,}, {REPLICATES} replicates, {GENERATIONS} generations"


def rows() -> list[Row]:
    """Measure, all in one run."""
    ours = seconds(lambda rng: simulate(M, GENERATIONS, REPLICATES, rng))
    loop, points, floor = seconds(plain_loop), seconds(points_alone), seconds(statistics_alone)
    return [
        Row("gaussian: simulate, against the loop that draws points", SIZES, ours, loop / ours, 300),
        Row("gaussian: that loop's draws alone", SIZES, points, loop / points),
        Row("gaussian: simulate's draws alone (the floor)", SIZES, floor, loop / floor),
    ]


def plain_loop(rng: Generator) -> None:
    """A reader's loop: draw M points, take mean and variance, again and again."""
    for _ in range(REPLICATES):
        mean, variance = 0.0, 1.0
        for _ in range(GENERATIONS):
            points = rng.normal(mean, np.sqrt(variance), M)
            mean, variance = points.mean(), points.var(ddof=1)


def points_alone(rng: Generator) -> None:
    """The points of that loop, and nothing else."""
    for _ in range(REPLICATES * GENERATIONS):
        rng.standard_normal(M)


def statistics_alone(rng: Generator) -> None:
    """The draws of the simulation, and nothing else."""
    rng.standard_gamma((M - 1) / 2, (GENERATIONS, REPLICATES))
    rng.standard_normal((GENERATIONS, REPLICATES))
