"""Time of the discrete chain's simulation, against the loops a reader would write."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from bench.timing import Row, seconds
from model_collapse.data import word_counts
from model_collapse.discrete import simulate

K = M = 1_000
REPLICATES = 20


def rows() -> Iterator[Row]:
    """Measure, one after the other."""
    yield from against_loops(200, 10)
    yield from against_loops(1_000, 25)
    yield many_lineages()
    yield whole_vocabulary()


def against_loops(generations: int, least: float) -> list[Row]:
    """Our simulation, the plain loop, the same loop by multinomial draws, and the random draws alone, as the floor."""
    p, sizes = np.full(K, 1 / K), f"K = M = {K}, {REPLICATES} replicates, {generations} generations"
    widths = living(generations)
    ours = seconds(lambda rng: simulate(p, M, generations, REPLICATES, rng))
    seen = seconds(lambda rng: simulate(p, M, generations, REPLICATES, rng, lambda counts: (counts > 0).sum(axis=1)))
    loop = seconds(lambda rng: plain_loop(p, generations, rng, choice_draw))
    multinomial = seconds(lambda rng: plain_loop(p, generations, rng, multinomial_draw))
    floor = seconds(lambda rng: draws_alone(widths, rng))
    return [
        Row("discrete: simulate, against choice + bincount", sizes, ours, loop / ours, least),
        Row("discrete: simulate, against a loop of multinomial", sizes, ours, multinomial / ours),
        Row("discrete: simulate with observe, against choice + bincount", sizes, seen, loop / seen),
        Row("discrete: its multinomial draws alone (the floor)", sizes, floor, loop / floor),
    ]


def many_lineages() -> Row:
    """A thousand lineages of a thousand words for a thousand generations, the surviving words counted in each."""
    p = np.full(1_000, 1e-3)
    time_ = seconds(lambda rng: simulate(p, 1_000, 1_000, 1_000, rng, lambda counts: (counts > 0).sum(axis=1)), 1)
    return Row("discrete: 1,000 replicates", "K = M = 1,000, 1,000 generations", time_)


def whole_vocabulary() -> Row:
    """One lineage of the whole vocabulary, with as many points as the articles have words."""
    counts = word_counts().counts
    total = int(counts.sum())
    time_ = seconds(lambda rng: simulate(counts / total, total, 1_000, 1, rng, lambda c: (c > 0).sum(axis=1)), 3)
    return Row("discrete: one lineage of all words", f"K = {len(counts)}, M = {total}, 1,000 generations", time_)


def plain_loop(p: Any, generations: int, rng: Generator, draw: Callable[..., Any]) -> Any:
    """A reader's loop: each replicate and generation by itself, the counts kept."""
    kept = np.empty((generations, REPLICATES, K), np.int64)
    for r in range(REPLICATES):
        counts = p * M
        for i in range(generations):
            counts = kept[i, r] = draw(counts, rng)
    return kept


def choice_draw(counts: Any, rng: Generator) -> Any:
    """Draw M symbols and count them."""
    return np.bincount(rng.choice(K, M, p=counts / M), minlength=K)


def multinomial_draw(counts: Any, rng: Generator) -> Any:
    """Draw the counts at once."""
    return rng.multinomial(M, counts / M)


def living(generations: int) -> list[Any]:
    """For each generation the frequencies of one run's living states, packed: what a multinomial draw needs."""
    counts = simulate(np.full(K, 1 / K), M, generations, REPLICATES, default_rng(0))
    packed = np.sort(counts, axis=2)
    return [now[:, now.any(axis=0)] / M for now in packed]


def draws_alone(frequencies: list[Any], rng: Generator) -> None:
    """The multinomial draws of a run whose states are known beforehand."""
    for now in frequencies:
        rng.multinomial(M, now)
