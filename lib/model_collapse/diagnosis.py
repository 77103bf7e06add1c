r"""What a chain of models has lost, whatever its family: one report of four measures, from samples alone.

Several chains are run, and in each generation the model draws as many points as there are original ones. Nothing but
these draws is looked at, so any `process.Family` can be diagnosed: of symbols (integers or short strings, one axis) or
of points in space (floats; images and other shapes are read as vectors, with Euclidean distances).

============  ========================================================  =============================================
measure       symbols                                                   points in space
============  ========================================================  =============================================
tail          share of draws outside the original's bulk, over the      the same, where the bulk are the 95% of the
              original's own share; the bulk are its commonest symbols  original points that lie nearest to their mean
support       share of the original's symbols that are drawn            share of the original points that lie among
                                                                        the draws (recall, Kynkäänniemi et al., 2019)
variance      probability that two draws differ, over the original's    trace of the covariance, over the original's
distance      total variation between the draws and draws of            energy distance between the same, over its
              generation 0's model                                      largest value (Székely and Rizzo, 2013)
============  ========================================================  =============================================

The original is the sample that the first model was fitted to: a model that only remembers it has tail and variance 1.
One that knows the law draws symbols that the sample lacks, which count as tail, and misses some that it has: its tail
is above 1 and its support below, without any loss. And two samples of one law have a total variation above 0, the more
so the more symbols there are. So what counts is the change since generation 0, whose distance is taken to a second
sample of its own model.

A chain that collapses has a skewed law (the mean of the variance may stay while nearly all chains lose it): values are
medians over chains, with intervals from their ranks, which hold for every law. Changes are taken within each chain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from model_collapse import figures
from model_collapse.arguments import generator, integer
from model_collapse.process import Family, Mixture, generations

MEASURES = ("tail", "support", "variance", "distance")
RARE = 0.05  # share of the original that is its tail, as nearly as ties allow
NEIGHBOUR = 3  # whose distance sets the radius of a point, in recall
MOST = 1_000  # points that are compared with one another, pair by pair
LEAST_CHAINS, LEAST_POINTS = 6, 20  # fewer have no such interval, and no tail of 5%
SHOWN = 60  # generations in a chart, at most
ORIGINAL = {"tail": 1.0, "support": 1.0, "variance": 1.0, "distance": 0.0}  # where nothing is lost
Array = NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What was found: displays in a notebook as four charts with words; printed, as the words alone.

    Attributes
    ----------
    values : DataFrame
        Columns chain, generation, measure, value: one row for each chain, generation and measure.
    rare : float
        Share of the original that is its tail, mean over chains: 5% for points; for symbols at most that, unless the
        rarest ones alone, which are tied, have more.

    Examples
    --------
    >>> rows = [(k, n, name, 1 - n * (0.1 + k / 100)) for k in range(6) for n in (0, 1) for name in MEASURES]
    >>> found = Diagnosis(pd.DataFrame(rows, columns=["chain", "generation", "measure", "value"]), rare=0.05)
    >>> found.words().splitlines()[0]
    'tail: falls by 0.125 (0.100 to 0.150)'
    """

    values: pd.DataFrame
    rare: float

    @property
    def table(self) -> pd.DataFrame:
        """Columns measure, generation, value (median over chains), low, high (95% interval), chains."""
        wide = self._wide()
        value, low, high = median_interval(wide.to_numpy())
        return wide.index.to_frame(index=False).assign(value=value, low=low, high=high, chains=wide.shape[1])

    @property
    def changes(self) -> pd.DataFrame:
        """From generation 0 to the last, within each chain: change (median), low, high (95% interval), verdict."""
        wide = self._wide()
        first, last = (wide.xs(n, level="generation") for n in (0, self.values["generation"].max()))
        change, low, high = median_interval((last - first).to_numpy())
        verdict = np.select([low > 0, high < 0], ["rises", "falls"], "undecided")
        return pd.DataFrame({"change": change, "low": low, "high": high, "verdict": verdict}, index=first.index)

    def words(self) -> str:
        """Two lines for each measure: the change; the first and the last value, all with intervals."""
        lines, table = [], self.table
        for name in MEASURES:
            rows = table[table["measure"] == name].iloc[[0, -1]]
            seen = zip(rows["generation"], rows["value"], rows["low"], rows["high"], strict=True)
            ends = [f"generation {n}: {_range(*interval)}" for n, *interval in seen]
            lines += [f"{name}: {self._said(name)}", f"  {', '.join(ends)}"]
        return "\n".join(lines)

    def figure(self) -> figures.Figure:
        """Four charts with intervals, each with its change in words; grey is what the original has."""
        table = self.table.assign(kind="simulation")
        last = int(table["generation"].max())
        shown = np.unique(np.linspace(0, last, min(last + 1, SHOWN)).round())
        table = table[table["generation"].isin(shown)]
        chains = int(table["chains"].iloc[0])
        return figures.show(
            alt.concat(*(self._panel(table[table["measure"] == name], name) for name in MEASURES), columns=2),
            f"Four small charts against generation n, medians over {chains} chains with 95% intervals. "
            + self.words().replace("\n  ", ", ").replace("\n", "; ")
            + ".",
        )

    def __repr__(self) -> str:
        return self.words()

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {**self.figure()._repr_mimebundle_(), "text/plain": repr(self)}

    def _wide(self) -> pd.DataFrame:
        """Rows of measure (in their order) and generation, a column for each chain."""
        wide = self.values.pivot(index=["measure", "generation"], columns="chain", values="value")
        return wide.reindex(list(MEASURES), level="measure")

    def _said(self, name: str) -> str:
        changes = self.changes
        change, low, high = changes.loc[[name], ["change", "low", "high"]].to_numpy(dtype=float)[0]
        verdict = str(changes.loc[name, "verdict"])
        if verdict == "undecided":
            return f"undecided, {_range(change, low, high)}"
        return f"{verdict} by {_range(abs(change), *sorted((abs(low), abs(high))))}"

    def _panel(self, rows: pd.DataFrame, name: str) -> Any:
        scale = alt.Scale(padding=8, nice=False)
        x = alt.X("generation:Q", title="generation n", scale=scale, axis=alt.Axis(tickMinStep=1, format="d"))
        titles = {
            "tail": f"tail, original's {self.rare:.1%} = 1",
            "support": "support, share drawn",
            "variance": "variance, original's = 1",
            "distance": "distance to generation 0",
        }
        y = alt.Y("value:Q", title=titles[name], scale=alt.Scale(zero=True))
        rule = alt.Chart(pd.DataFrame({"value": [ORIGINAL[name]]})).mark_rule(color=figures.GREY, strokeWidth=2)
        title = alt.Title(name, subtitle=self._said(name), anchor="start")
        colour = alt.Color("kind:N", legend=None, scale=alt.Scale(range=figures.COLOURS))
        chart = rule.encode(y=y) + figures.trajectory(rows.drop(columns="measure"), x, y, colour)
        return chart.properties(width=265, height=170, title=title)


def diagnose(
    family: Family,
    original: Array | Callable[[int, Generator], Any],
    rng: Generator,
    *,
    last: int = 9,
    chains: int = 12,
    mixture: Mixture | None = None,
    size: int | None = None,
) -> Diagnosis:
    """Run several chains of a family, and measure what the model of each generation has lost.

    Parameters
    ----------
    family : Family
        The reader's model; `fit` and `sample` are all that is asked of it.
    original : array, or callable (n, rng) -> array
        Original data, shape (M,) of symbols (integers, booleans, strings) or (M, ...) of floats; or the law that draws
        them, then anew for each chain. With an array the intervals speak of these data alone, not of their law.
    rng : numpy.random.Generator
        Spawned from: the same seed gives the same report, and the same chains whatever `last` is.
    last : int
        Index of the last generation.
    chains : int
        Independent chains, over which medians and intervals are taken; at least 6.
    mixture : Mixture, optional
        As in `process.generations`; what is measured is the model, not the mixture.
    size : int, optional
        M, where the original is a law.

    Raises
    ------
    ValueError
        Fewer than 6 chains or 20 points, data that are neither symbols on one axis nor finite floats, an original
        without spread or without a tail, and what `process.generations` refuses.

    Examples
    --------
    >>> waits = Family(lambda data, rng, previous: data.mean(), lambda theta, n, rng: rng.exponential(theta, n))
    >>> original = np.random.default_rng(1).exponential(1, 20)
    >>> found = diagnose(waits, original, np.random.default_rng(0), last=100)
    >>> found.changes["verdict"].tolist()
    ['undecided', 'falls', 'falls', 'rises']
    """
    integer(chains, "chains", LEAST_CHAINS)
    integer(last, "last")
    rows: list[tuple[int, int, str, float]] = []
    shares = []
    for k, stream in enumerate(generator(rng).spawn(chains)):
        own, draws, subsets = stream.spawn(3)
        measure: _Symbols | _Points | None = None
        for g in islice(generations(family, original, own, mixture=mixture, sizes=size), last + 1):
            if measure is None:
                measure = _reference(_checked(g.data, "original"), subsets)
                first = _drawn(family, g.theta, measure.original, draws, 0)
                shares.append(measure.rare)
            found = measure(first, _drawn(family, g.theta, measure.original, draws, g.index))
            rows += [(k, g.index, name, float(found[name])) for name in MEASURES]
    values = pd.DataFrame(rows, columns=["chain", "generation", "measure", "value"])
    return Diagnosis(values, float(np.mean(shares)))


def median_interval(values: ArrayLike) -> tuple[Array, Array, Array]:
    """Median over replicates, and the interval between two of their ranks that holds the law's median in 95% or more.

    The number of replicates below the median is binomial, whatever their law; ties make the interval only wider. Of 12
    replicates it goes from the third to the tenth (96.1%), of 6 from the least to the largest (96.9%).

    Parameters
    ----------
    values : array, shape (..., R)
        R >= 6 independent replicates along the last axis.

    Returns
    -------
    median, low, high : arrays of the leading shape

    Raises
    ------
    ValueError
        Fewer than six replicates, which have no such interval.

    Examples
    --------
    >>> [float(x) for x in median_interval(np.arange(12) ** 2)]
    [30.5, 4.0, 81.0]
    """
    ranked = np.sort(np.asarray(values, dtype=float), axis=-1)
    if ranked.ndim == 0 or ranked.shape[-1] < LEAST_CHAINS:
        raise ValueError(f"values: shape {ranked.shape}; at least {LEAST_CHAINS} replicates along the last axis")
    below = int(stats.binom.ppf(0.025, ranked.shape[-1], 0.5))
    return np.median(ranked, axis=-1), ranked[..., below - 1], ranked[..., -below]


def _range(value: float, low: float, high: float) -> str:
    return f"{value:z.3f} ({low:z.3f} to {high:z.3f})"


def _checked(data: Any, name: str) -> Array:
    """Symbols on one axis, or finite floats as vectors."""
    array = np.asarray(data)
    if array.ndim == 1 and array.dtype.kind in "iubUS":
        return array
    if array.dtype.kind != "f" or array.ndim == 0:
        raise ValueError(
            f"{name}: {array.dtype} of shape {array.shape}; allowed are symbols (integers, strings) of shape (M,), and "
            "floats of shape (M, ...): turn quantities into floats, rows of symbols into one symbol each"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: points must be finite")
    return array.reshape(len(array), -1).astype(float)


def _drawn(family: Family, theta: Any, original: Array, rng: Generator, index: int) -> Array:
    """As many points of a model as there are original ones."""
    name = f"family.sample, generation {index}"
    drawn = _checked(family.sample(theta, len(original), rng), name)
    if drawn.shape != original.shape or drawn.dtype.kind != original.dtype.kind:
        raise ValueError(f"{name}: {drawn.dtype} of shape {drawn.shape}; must be as the original, {original.shape}")
    return drawn


def _reference(original: Array, subsets: Generator) -> "_Symbols | _Points":
    if len(original) < LEAST_POINTS:
        raise ValueError(f"original: M = {len(original)}: must be at least {LEAST_POINTS} points")
    if (original == original[0]).all():
        raise ValueError("original: all points are equal, so there is nothing to lose")
    return _Symbols(original) if original.ndim == 1 else _Points(original, subsets)


def _tail(beyond: float) -> float:
    if beyond == 1:
        raise ValueError("original: no point is rarer (or further out) than any other, so there is no tail to measure")
    return float(beyond)


class _Symbols:
    """The measures of symbols, against one original."""

    def __init__(self, original: Array) -> None:
        self.original = original
        self.symbols, counts = np.unique(original, return_counts=True)
        levels, tied = np.unique(counts, return_counts=True)
        within = int(np.count_nonzero(np.cumsum(levels * tied) <= RARE * len(original)))
        limit = levels[max(within, 1) - 1]  # no symbol of the bulk is as rare as one outside it
        self.bulk = self.symbols[counts > limit]
        self.rare = _tail(counts[counts <= limit].sum() / len(original))
        self.differ = _differ(counts)

    def __call__(self, first: Array, drawn: Array) -> dict[str, float]:
        symbols, codes = np.unique(np.concatenate([first, drawn]), return_inverse=True)
        q, r = (np.bincount(half, minlength=len(symbols)) for half in np.split(codes, 2))
        return {
            "tail": r[~np.isin(symbols, self.bulk)].sum() / len(drawn) / self.rare,
            "support": np.isin(self.symbols, drawn).mean(),
            "variance": _differ(r) / self.differ,
            "distance": np.abs(q - r).sum() / (2 * len(drawn)),
        }


def _differ(counts: Array) -> float:
    """Probability that two draws from these frequencies differ."""
    return float(1 - ((counts / counts.sum()) ** 2).sum())


class _Points:
    """The measures of points in space, against one original."""

    def __init__(self, original: Array, subsets: Generator) -> None:
        self.original, self.subsets, self.centre = original, subsets, original.mean(axis=0)
        far = self.far(original)
        self.limit = np.sort(far)[-ceil(RARE * len(original))]
        self.rare = _tail((far >= self.limit).mean())
        self.spread = original.var(axis=0, ddof=1).sum()
        self.few = self.some(original)

    def far(self, x: Array) -> Array:
        distances: Array = np.linalg.norm(x - self.centre, axis=1)
        return distances

    def some(self, x: Array) -> Array:
        """At most `MOST` points, chosen at random: data may stand in an order."""
        return x if len(x) <= MOST else x[self.subsets.choice(len(x), MOST, replace=False)]

    def __call__(self, first: Array, drawn: Array) -> dict[str, float]:
        few = self.some(drawn)
        return {
            "tail": (self.far(drawn) >= self.limit).mean() / self.rare,
            "support": _recall(self.few, few),
            "variance": drawn.var(axis=0, ddof=1).sum() / self.spread,
            "distance": _energy(self.some(first), few),
        }


def _recall(original: Array, drawn: Array) -> float:
    """Share of original points in the ball of some drawn point that reaches to that one's third neighbour."""
    radius = np.partition(cdist(drawn, drawn), NEIGHBOUR, axis=1)[:, NEIGHBOUR]  # the nearest is itself
    return float((cdist(original, drawn) <= radius).any(axis=1).mean())


def _energy(x: Array, y: Array) -> float:
    """Energy distance over twice the mean distance of a pair: 0 in the mean for equal laws, at most 1."""
    between = cdist(x, y).mean()
    within = sum(cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(1 - within / (2 * between)) if between > 0 else 0.0
