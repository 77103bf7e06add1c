r"""Learning with generational data: the process of the paper's section 'Theoretical intuition', and nothing else.

From the data set :math:`\mathcal D_i` of generation i a model is fitted (functional approximation), and the data of the
next generation are drawn from (sampling)

.. math:: p_{i+1} = \alpha_i\, p_{\theta_{i+1}} + \beta_i\, p_i + \gamma_i\, p_0 .

A model enters as a `Family`, the weights as a `Mixture`, and `generations` is the one loop. Generation i, from 0, holds
the data :math:`\mathcal D_i` and the parameters fitted to them (the paper's :math:`\theta_{i+1}`); generation 0 is
therefore the model fitted to original data. Formulas elsewhere count rounds of sampling and fitting: n = 0 is
:math:`p_0` itself, n = 1 the model of generation 0.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from model_collapse.arguments import generator, integer, real
from model_collapse.drawn import Data, checked, joined, taken

Shares = Literal["fixed", "multinomial"]
Points = Literal["reused", "fresh", "placed"]

Theta = Any
Source = Callable[[int, Generator], Data]
STREAMS = ("original", "fit", "share", "sample", "previous", "source")


class Family(NamedTuple):
    """A model family {p_theta} with its fitting procedure F: functions that keep no state.

    Attributes
    ----------
    fit : callable (data, rng, previous) -> theta
        Fit a model to a data set. `previous` is the theta of the generation before (None for generation 0), for
        families that start from it; most ignore it. Must leave `data` as they are.
    sample : callable (theta, n, rng) -> data
        Draw n points from p_theta: n along axis 0, the same dtype and trailing shape as the data fitted.
    sample_at : callable (theta, positions, rng) -> data, optional
        Draw the points that belong at these positions of the data set (integers, ascending), in their order: for
        models that answer to something, such as the block of text that they continue. Asked where points are "placed".

    Examples
    --------
    A biased coin, learned by its frequency of ones:

    >>> import numpy as np
    >>> coin = Family(
    ...     fit=lambda data, rng, previous: data.mean(),
    ...     sample=lambda theta, n, rng: rng.binomial(1, theta, n),
    ... )
    >>> coin.fit(np.array([0, 1, 1, 1]), np.random.default_rng(0), None)
    np.float64(0.75)
    """

    fit: Callable[[Any, Generator, Theta | None], Theta]
    sample: Callable[[Theta, int, Generator], Any]
    sample_at: Callable[[Theta, NDArray[np.intp], Generator], Any] | None = None


@dataclass(frozen=True)
class Mixture:
    r"""The weights of :math:`p_{i+1} = \alpha p_{\theta_{i+1}} + \beta p_i + \gamma p_0`, and how they are meant.

    Attributes
    ----------
    alpha, beta, gamma : float
        Shares of the new model, the previous generation and the original; non-negative, sum 1.
    shares : {"fixed", "multinomial"}
        "fixed": each source gives its share of the points, rounded by largest remainder (what experiments do);
        "multinomial": each point picks its source at random (what the definition says).
    points : {"reused", "fresh", "placed"}
        "reused": the beta and gamma parts are points of the data sets D_i and D_0, drawn without replacement (what
        experiments do); "fresh": they are new draws from the distributions p_i and p_0 (what the definition says);
        "placed": re-used points that stay at their positions, dealt at random to the three sources, so that a point is
        in place of one that the model would have drawn there. Data sets then are arrays of one size.

    Raises
    ------
    ValueError
        A weight that is negative or not finite, weights that do not sum to 1, an unknown name.

    Examples
    --------
    >>> Mixture(alpha=0.9, gamma=0.1).counts(64, np.random.default_rng(0))
    (58, 0, 6)
    """

    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.0
    shares: Shares = "fixed"
    points: Points = "reused"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            if real(getattr(self, name), name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: a weight must be >= 0")
        if abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"alpha + beta + gamma = {sum(self.weights)}: weights must sum to 1, got {self.weights}")
        for name, allowed in (("shares", Shares), ("points", Points)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} = {getattr(self, name)!r}: allowed are {get_args(allowed)}")

    @property
    def weights(self) -> tuple[float, float, float]:
        """The weights (alpha, beta, gamma)."""
        return self.alpha, self.beta, self.gamma

    def counts(self, n: int, rng: Generator) -> tuple[int, int, int]:
        """How many of n points come from the new model, the previous generation and the original.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Drawn from under multinomial shares only.

        Raises
        ------
        ValueError
            n < 0; under fixed shares, a weight above 0 whose count rounds to 0.

        Examples
        --------
        >>> Mixture(0.5, 0.25, 0.25).counts(10, np.random.default_rng(0))
        (5, 3, 2)
        """
        n = integer(n, "n", 0)
        if self.shares == "multinomial":
            return _three(rng.multinomial(n, np.divide(self.weights, sum(self.weights))))
        exact = n * np.array(self.weights)
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
        for name, weight, count in zip(("alpha", "beta", "gamma"), self.weights, counts, strict=True):
            if weight > 0 and count == 0:
                raise ValueError(
                    f"{name} = {weight}: of {n} points its fixed share is 0 points; "
                    "allowed are 0, a larger share, more points, or shares='multinomial'"
                )
        return _three(counts)


class Generation(NamedTuple):
    """One generation: its index i, its data D_i and the parameters fitted to them.

    Examples
    --------
    >>> Generation(index=0, data=np.array([1.0, 3.0]), theta=2.0).theta
    2.0
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    data: Data
    theta: Theta


def generations(
    family: Family,
    original: Data | Source,
    rng: Generator,
    *,
    mixture: Mixture | Callable[[int], Mixture] | None = None,
    sizes: int | Callable[[int], int] | None = None,
) -> Iterator[Generation]:
    """Run the process: an endless iterator of generations 0, 1, 2, ..., one in memory at a time.

    Parameters
    ----------
    family : Family
        What is fitted and sampled in every generation.
    original : array or Drawn, or callable (n, rng) -> array or Drawn
        The original data D_0 (axis 0 counts points), or p_0 itself as something that draws n points; then D_0 is drawn.
    rng : numpy.random.Generator
        Spawned from, not drawn from: the same seed gives the same generations whatever is measured in between and
        however many are asked for.
    mixture : Mixture, or callable i -> Mixture, optional
        How D_{i+1} is drawn; by default from the new model alone. Fresh draws from p_i keep every earlier theta.
    sizes : int, or callable i -> int, optional
        The sample sizes M_i; by default all as large as D_0. Needed where `original` is a callable. For an array M_0 is
        its length.

    Yields
    ------
    Generation
        Index i, data D_i (read-only), theta fitted to D_i.

    Raises
    ------
    ValueError
        Sizes below 1, data that are no data set or hold NaN, samples of another number, shape or dtype than asked,
        fresh points without a p_0 to draw them from, more re-used points than there are.

    Examples
    --------
    >>> from itertools import islice
    >>> coin = Family(lambda data, rng, previous: data.mean(), lambda theta, n, rng: rng.binomial(1, theta, n))
    >>> run = generations(coin, np.array([0, 1] * 10), np.random.default_rng(1))
    >>> [float(g.theta) for g in islice(run, 4)]
    [0.5, 0.65, 0.5, 0.6]
    """
    process = _Process(family, original, rng, Mixture() if mixture is None else mixture, sizes)
    return process.run()


def trace(
    run: Iterable[Generation], observables: Mapping[str, Callable[[Generation], float]], **labels: object
) -> list[dict[str, Any]]:
    """Measure each generation: the rows of one long table (labels, generation, metric, value).

    Parameters
    ----------
    run : iterable of Generation
        A finite run, for example ``itertools.islice(generations(...), 10)``.
    observables : mapping of name to callable
        Functions of a generation that return one number.
    **labels
        Columns that are the same in every row: experiment, setting, seed.

    Examples
    --------
    >>> run = [Generation(0, np.array([1.0, 3.0]), 2.0)]
    >>> trace(run, {"mean": lambda g: g.theta}, seed=0)
    [{'seed': 0, 'generation': 0, 'metric': 'mean', 'value': 2.0}]
    """
    return [
        {**labels, "generation": g.index, "metric": metric, "value": float(measure(g))}
        for g in run
        for metric, measure in observables.items()
    ]


class _Process:
    """The state of one run: the seed of its streams and, for fresh draws from p_i, the thetas so far."""

    def __init__(self, family: Family, original: Data | Source, rng: Generator, mixture: Any, sizes: Any) -> None:
        if not isinstance(family, Family):
            raise ValueError(f"family = {family!r:.80}: must be a Family(fit, sample)")
        self.family = family
        self.mixture = mixture if callable(mixture) else lambda i: mixture
        self.source = original if callable(original) else None
        self.root = _seed_sequence(rng)
        self.bit_generator = type(rng.bit_generator)
        if sizes is None and self.source:
            raise ValueError("sizes = None: where original is a function, sizes must say how many points it draws")
        if not (sizes is None or callable(sizes)):
            integer(sizes, "sizes")
        if callable(original):
            n = _size(sizes, 0)
            original = checked(original(n, self.stream(0, "original")), "original", n)
        self.original = _frozen(joined([checked(original, "original")]))
        self.sizes = len(self.original) if sizes is None else sizes
        self.past: list[tuple[Theta, Mixture]] = []
        first = self._check(self.mixture(0))
        self.remembers = self.source is not None and (callable(mixture) or (first.points == "fresh" and first.beta > 0))

    def run(self) -> Iterator[Generation]:
        data, theta, i = self.original, None, 0
        while True:
            theta = self.family.fit(data, self.stream(i, "fit"), theta)
            yield Generation(i, data, theta)
            data = self.draw(i, data, theta)
            i += 1

    def draw(self, i: int, data: Data, theta: Theta) -> Data:
        """D_{i+1}, from the model, data and distribution of generation i and from the original."""
        mixture, n = self._check(self.mixture(i)), _size(self.sizes, i + 1)
        new, old, first = mixture.counts(n, self.stream(i, "share"))
        if mixture.points == "placed":
            return self.placed(i, data, theta, (new, old, first))
        parts = [self.sample(theta, new, self.stream(i, "sample"))]
        if mixture.points == "reused":
            parts.append(_reused(data, old, self.stream(i, "previous"), f"D_{i}"))
            parts.append(_reused(self.original, first, self.stream(i, "source"), "D_0"))
        else:
            parts.append(self.previous(i, old, self.stream(i, "previous")))
            parts.append(self.fresh(first, self.stream(i, "source")))
        if self.remembers:
            self.past.append((theta, mixture))
        return _frozen(joined(parts))

    def placed(self, i: int, data: Data, theta: Theta, counts: tuple[int, int, int]) -> Data:
        """D_{i+1}, each position from one source: the model's answer there, or the point of D_i or of D_0."""
        if not (isinstance(data, np.ndarray) and isinstance(self.original, np.ndarray)):
            raise ValueError("points = 'placed': positions are those of arrays, and these data are drawn when asked")
        if not len(data) == len(self.original) == sum(counts):
            sizes = f"M_0 = {len(self.original)}, M_{i} = {len(data)}, M_{i + 1} = {sum(counts)}"
            raise ValueError(f"sizes: {sizes}: must be one number where points are placed")
        dealt = self.stream(i, "source").permutation(len(data))
        new, old, _ = (np.sort(part) for part in np.split(dealt, np.cumsum(counts)[:-1]))
        placed = self.original.copy()
        if len(new):
            placed[new] = self.answers(theta, new, self.stream(i, "sample"))
        placed[old] = data[old]
        return _frozen(placed)

    def answers(self, theta: Theta, positions: NDArray[np.intp], rng: Generator) -> Data:
        if self.family.sample_at is None:
            raise ValueError("points = 'placed': the family has no sample_at, which says what the model draws where")
        answers = self.family.sample_at(theta, positions, rng)
        return checked(answers, "family.sample_at", len(positions), self.original)

    def previous(self, i: int, n: int, rng: Generator) -> Data:
        """Draw n points of p_i, by walking down p_i = alpha p_theta + beta p_{i-1} + gamma p_0."""
        parts = [self.nothing]
        while n and i:
            i -= 1
            theta, mixture = self.past[i]
            new, n, first = _three(rng.multinomial(n, np.divide(mixture.weights, sum(mixture.weights))))
            parts += [self.sample(theta, new, rng), self.fresh(first, rng)]
        return joined([*parts, self.fresh(n, rng)])

    def sample(self, theta: Theta, n: int, rng: Generator) -> Data:
        if not n:
            return self.nothing
        return checked(self.family.sample(theta, n, rng), "family.sample", n, self.original)

    def fresh(self, n: int, rng: Generator) -> Data:
        if not n or self.source is None:
            return self.nothing
        return checked(self.source(n, rng), "original", n, self.original)

    @property
    def nothing(self) -> Data:
        return taken(self.original, np.arange(0))

    def stream(self, i: int, purpose: str) -> Generator:
        """The random stream of one generation and purpose: it depends on the seed, not on what was drawn before."""
        key = (*self.root.spawn_key, i, STREAMS.index(purpose))
        return Generator(self.bit_generator(SeedSequence(self.root.entropy, spawn_key=key)))

    def _check(self, mixture: Mixture) -> Mixture:
        if not isinstance(mixture, Mixture):
            raise ValueError(f"mixture = {mixture!r}: allowed are a Mixture, or a function i -> Mixture")
        if mixture.points == "fresh" and mixture.alpha < 1 and self.source is None:
            raise ValueError("points = 'fresh': new draws from p_0 need original as a function (n, rng) -> data")
        return mixture


def _three(counts: NDArray[Any]) -> tuple[int, int, int]:
    new, old, first = counts.tolist()
    return new, old, first


def _seed_sequence(rng: Generator) -> SeedSequence:
    try:
        return generator(rng).bit_generator.seed_seq.spawn(1)[0]  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, TypeError) as error:
        raise ValueError(f"rng = {rng!r}: not seeded by a SeedSequence, so it cannot spawn streams") from error


def _size(sizes: int | Callable[[int], int], i: int) -> int:
    return integer(sizes(i) if callable(sizes) else sizes, f"sizes: M_{i}")


def _frozen(data: Data) -> Data:
    """What a reader does to the data of a generation must not reach the next."""
    if isinstance(data, np.ndarray):
        data.setflags(write=False)
    return data


def _reused(data: Data, n: int, rng: Generator, name: str) -> Data:
    if n > len(data):
        raise ValueError(f"mixture: {n} points of {name} to re-use without replacement, but it has only {len(data)}")
    return taken(data, rng.choice(len(data), n, replace=False))
