r"""Heterozygosity of the discrete chain, exactly: H = 1 - sum p_i^2, the chance that two random points differ.

With data of the newest model alone it shrinks by 1 - 1/M a round; with earlier and original data mixed in, the second
moments obey linear recursions, one for each reading of the mixture: shares as fixed counts or multinomial, beta and
gamma parts as re-used points or fresh draws. `model_collapse.discrete` offers all of it; the derivations are ours.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from model_collapse.arguments import integer, real
from model_collapse.discrete_theory import (
    Floats,
    Rounds,
    checked_frequencies,
    checked_rounds,
    per_round,
)
from model_collapse.process import Mixture


def expected_heterozygosity(p: ArrayLike, M: int, n: Rounds) -> Any:
    """Expected heterozygosity H = 1 - sum p_i^2 of the frequencies after n rounds: H_0 (1 - 1/M)^n.

    Parameters
    ----------
    p : array, shape (K,)
        Original distribution.
    M : int
        Sample size.
    n : int or 1-d sequence of int
        Rounds.

    Returns
    -------
    float, or ndarray of the length of n

    Raises
    ------
    ValueError
        p not a distribution, M < 1, n < 0.

    Examples
    --------
    >>> expected_heterozygosity([0.5, 0.5], 10, [0, 1, 2])
    array([0.5  , 0.45 , 0.405])
    """
    H, M, rounds = _heterozygosity(p), integer(M, "M", 1), checked_rounds(n)
    kept = np.exp(rounds * np.log1p(-1 / M)) if M > 1 else (rounds == 0).astype(float)
    return per_round(H * kept, n)


def mixture_heterozygosity(p: ArrayLike, M: int, n: int, mixture: Mixture) -> Floats:
    """Expected heterozygosity after 0, ..., n rounds with data drawn by a mixture, under each of its four pairings.

    Original points are drawn from p; every generation has M points. Exact: for re-used points a recursion of the
    probabilities that two random points differ, for fresh draws of those for two draws from (model, p_i, p_0).

    Parameters
    ----------
    p : array, shape (K,)
        Original distribution p_0.
    M : int
        Sample size, at least 2.
    n : int
        Rounds.
    mixture : Mixture
        Weights, shares and points.

    Returns
    -------
    ndarray of float64, shape (n+1,)

    Raises
    ------
    ValueError
        p not a distribution, M < 2, n < 0, fixed shares that round to no point, points that are placed.

    Examples
    --------
    >>> mixture_heterozygosity([0.5, 0.5], 10, 2, Mixture(alpha=0.5, beta=0.5, shares="multinomial", points="fresh"))
    array([0.5    , 0.45   , 0.43875])
    """
    H, M, n = _heterozygosity(p), integer(M, "M", 2), integer(n, "n", 0)
    if not isinstance(mixture, Mixture):
        raise ValueError(f"mixture = {mixture!r:.80}: must be a Mixture")
    if mixture.points == "placed":
        raise ValueError("points = 'placed': words have no places; allowed are 'reused' and 'fresh'")
    after = _reused_points if mixture.points == "reused" else _fresh_points
    return np.array([H, *after(H, M, n, mixture)])[: n + 1]


def stationary_homozygosity(p: ArrayLike, M: int, gamma: float, shares: str = "multinomial") -> float:
    """Expected sum of squared frequencies in the long run, with a share gamma of fresh original points.

    Parameters
    ----------
    p : array, shape (K,)
        Original distribution p_0.
    M : int
        Sample size.
    gamma : float
        Share of points drawn anew from p_0, the others from the newest model, 0 < gamma <= 1.
    shares : {"multinomial", "fixed"}
        Each point picks its source, or gamma M points (a whole number) come from p_0.

    Returns
    -------
    float
        F*, from 1 (a delta) down to sum p^2 + (1 - sum p^2)/M (all points original).

    Raises
    ------
    ValueError
        Arguments out of range; gamma M not whole under fixed shares.

    Examples
    --------
    >>> p = np.full(50, 1 / 50)
    >>> [round(stationary_homozygosity(p, 200, 0.1, shares), 5) for shares in ("multinomial", "fixed")]
    [0.04525, 0.04519]
    """
    F0, M = 1 - _heterozygosity(p), integer(M, "M", 1)
    if not 0 < real(gamma, "gamma") <= 1:
        raise ValueError(f"gamma = {gamma}: the share of fresh original points must be above 0 and at most 1")
    fresh = gamma * (2 - gamma)  # of two points at least one is original
    if shares == "multinomial":
        original = (1 - 1 / M) * fresh  # two distinct ones, and so
        return float((1 / M + original * F0) / (1 / M + original))
    if shares != "fixed":
        raise ValueError(f"shares = {shares!r}: allowed are 'multinomial' and 'fixed'")
    if abs(gamma * M - round(gamma * M)) > 1e-9:
        raise ValueError(f"gamma = {gamma}: under fixed shares gamma * M = {gamma * M} must be a whole number")
    return float((fresh * F0 + (1 - gamma * F0) / M) / (fresh + (1 - gamma) / M))


def _reused_points(H: float, M: int, n: int, mixture: Mixture) -> list[float]:
    """Heterozygosity of the data D_0, ..., D_(n-1): P(two points drawn with replacement differ).

    F: two distinct points of D_i differ; C: a point of D_i and one of D_0. A new point copies a random one of D_i.
    """
    pairs, original = _pairs(mixture, M), _shares(mixture, M)[2]
    other = 1 - 1 / M  # P(the second of two points drawn with replacement is another one)
    F, C, heterozygosity = H, other * H, []
    for _ in range(n):
        J = other * F
        heterozygosity.append(J)
        differ = np.array([[J, J, C], [J, F, C], [C, C, H]])  # by the sources (new, previous, original) of two points
        F, C = float((pairs * differ).sum()), (1 - original) * C + original * other * H
    return heterozygosity


def _pairs(mixture: Mixture, M: int) -> Floats:
    """P(two distinct points of a generation come from sources s and t), s and t of (new, previous, original)."""
    if mixture.shares == "multinomial":
        return np.outer(mixture.weights, mixture.weights)
    counts = M * _shares(mixture, M)
    return (np.outer(counts, counts) - np.diag(counts)) / (M * (M - 1))


def _shares(mixture: Mixture, M: int) -> Floats:
    """The expected shares of the three sources among M points; fixed shares are rounded to whole points."""
    if mixture.shares == "multinomial":
        return np.array(mixture.weights)
    return np.array(mixture.counts(M, np.random.default_rng(0))) / M  # fixed shares draw nothing from the generator


def _fresh_points(H: float, M: int, n: int, mixture: Mixture) -> list[float]:
    """Heterozygosity of the data D_0, ..., D_(n-1).

    From P(a draw from one differs from a draw from the other) for each two of (model, p_i, p_0). Given the past the
    model of the next generation has mean `shares` of the three, and its p_(i+1) is `weights` of them.
    """
    shares = _shares(mixture, M)
    step = np.array([shares, mixture.weights, (0, 0, 1)])
    differ = np.full((3, 3), H)
    differ[0, 0] *= 1 - 1 / M
    heterozygosity = []
    for _ in range(n):
        heterozygosity.append(float(differ[0, 0]))
        within = shares @ differ.diagonal()  # fixed counts: sampling noise within each source only
        differ = step @ differ @ step.T
        differ[0, 0] -= (differ[0, 0] if mixture.shares == "multinomial" else within) / M
    return heterozygosity


def _heterozygosity(p: ArrayLike) -> float:
    p = checked_frequencies(p)
    return float((p * (1 - p)).sum())
