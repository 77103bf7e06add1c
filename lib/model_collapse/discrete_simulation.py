"""Fast simulation of the discrete chain: many lineages of the neutral Wright-Fisher model at once.

While many states live, a round copies points (M random parents in each lineage, counted by `numpy.bincount`); when few
are left, it is one `Generator.multinomial` over the living states, packed into as few columns. Both have the law of the
plain loop, and the second spends no time on states that died out and lineages that ended.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from model_collapse.arguments import generator, integer
from model_collapse.discrete_theory import Floats, checked_frequencies

Counts = NDArray[np.int64]
LARGEST = 2**53  # sample size: beyond, frequencies are no longer exact
POINTS_FOR_A_STATE = 20  # copying 20 points costs about as much as drawing the count of one living state
MOST_POINTS = 2**22  # of all lineages together, beyond which points are not held


class Block(NamedTuple):
    """Some successive rounds: counts[i] stand at positions `cells` of the flattened (replicates, K) after the i-th.

    Everywhere else the count is 0, but at `settled` and those of earlier blocks: there a lineage has ended, with M.
    """

    settled: Counts
    cells: Counts | slice
    counts: Counts


def simulate(
    p: ArrayLike,
    M: int,
    generations: int,
    replicates: int,
    rng: Generator,
    observe: Callable[[Counts], Any] | None = None,
) -> NDArray[Any]:
    """Simulate independent lineages of the discrete chain, all data drawn from the newest model (alpha = 1).

    The law is that of the loop ``counts = rng.multinomial(M, counts / M)`` for each replicate and round; states that
    died out and lineages that ended cost nothing more.

    Parameters
    ----------
    p : array, shape (K,)
        Original distribution p_0.
    M : int
        Sample size of every generation.
    generations : int
        Rounds; row i holds the counts after i + 1 rounds, the data of generation i.
    replicates : int
        Independent lineages R.
    rng : numpy.random.Generator
        Source of all randomness.
    observe : callable (counts) -> number or array, optional
        Called once a round, in order, with the counts (int64, shape (R, K), read-only, overwritten by the next round);
        for runs whose counts would not fit in memory.

    Returns
    -------
    ndarray
        Counts of shape (generations, R, K), int32 where M^2 fits in it and int64 above; or the results of `observe`,
        stacked along a first axis of length generations.

    Raises
    ------
    ValueError
        p not a distribution; M, generations or replicates below 1.

    Examples
    --------
    >>> simulate([0.5, 0.3, 0.2], 10, 3, 1, np.random.default_rng(0)).sum(axis=2).ravel()
    array([10, 10, 10])
    >>> simulate(np.full(100, 0.01), 100, 3, 2, np.random.default_rng(0), lambda counts: (counts > 0).sum(axis=1))
    array([[65, 62],
           [49, 50],
           [38, 36]])
    """
    p, M, rng = checked_frequencies(p), integer(M, "M", 1, LARGEST), generator(rng)
    generations = integer(generations, "generations", 1)
    replicates = integer(replicates, "replicates", 1)
    blocks = _blocks(p / p.sum(), M, generations, replicates, rng)
    if observe is not None:
        return _observed(blocks, generations, (replicates, len(p)), observe)
    counts = np.zeros((generations, replicates, len(p)), np.int32 if M**2 < 2**31 else np.int64)
    flat, done = counts.reshape(generations, -1), 0
    for settled, cells, block in blocks:
        flat[done:, settled] = M
        flat[done : done + len(block), cells] = block
        done += len(block)
    return counts


def _observed(blocks: Iterator[Block], generations: int, shape: tuple[int, int], observe: Any) -> NDArray[Any]:
    counts = np.zeros(shape, np.int64)
    flat, view = counts.reshape(-1), counts.view()
    view.setflags(write=False)
    seen = []
    for _, cells, block in blocks:
        for row in block:
            flat[cells] = row
            seen.append(np.array(observe(view)))
    seen += [np.array(observe(view)) for _ in range(generations - len(seen))]  # every lineage has ended
    return np.stack(seen)


def _blocks(p: Floats, M: int, generations: int, replicates: int, rng: Generator) -> Iterator[Block]:
    none, done = np.zeros(0, np.int64), 1
    cells = np.arange(replicates * len(p)).reshape(replicates, -1)
    order = np.argsort(p, kind="stable")  # numpy gives what rounding leaves over to the last state: a common one
    counts = np.empty(cells.shape, np.int64)
    counts[:, order] = rng.multinomial(M, p[order], size=replicates)
    yield Block(none, slice(None), counts.reshape(1, -1))
    if replicates * M <= MOST_POINTS:
        points = np.repeat(cells.ravel(), counts.ravel()).reshape(replicates, M)
        while done < generations and POINTS_FOR_A_STATE * (np.count_nonzero(counts) - replicates) > replicates * M:
            points = _copied(points, rng)
            counts = np.bincount(points.ravel(), minlength=cells.size).reshape(cells.shape)
            yield Block(none, slice(None), counts.reshape(1, -1))
            done += 1
    while done < generations and len(counts):
        settled, cells, counts = _packed(cells, counts)
        rounds = np.empty((min(generations - done, 1 + done // 8), *counts.shape), np.int64)
        for i in range(len(rounds)):
            rounds[i] = counts = rng.multinomial(M, counts / M)
        yield Block(settled, cells, rounds)
        done += len(rounds)


def _copied(points: Counts, rng: Generator) -> Counts:
    """M points for each lineage (a row), copies of random ones of its M points."""
    replicates, M = points.shape
    parents = rng.integers(0, M, points.shape, dtype=np.uint16 if M < 2**16 else np.int64)
    copied: Counts = points.take(parents + M * np.arange(replicates)[:, None])
    return copied


def _packed(cells: Counts, counts: Counts) -> tuple[Counts, Counts, Counts]:
    """Where lineages have ended; of the others the positions and counts of the living states, the most common last."""
    living = np.count_nonzero(counts, axis=1)
    settled = cells[living == 1][counts[living == 1] > 0]
    cells, counts = cells[living > 1], counts[living > 1]
    columns = np.argsort(counts, axis=1, kind="stable")[:, counts.shape[1] - living.max() :]
    return settled, np.take_along_axis(cells, columns, 1), np.take_along_axis(counts, columns, 1)
