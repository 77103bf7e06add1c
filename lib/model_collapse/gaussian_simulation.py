r"""The Gaussian chain of Theorem 3.1 by its sufficient statistics: exact in law, and no points are drawn.

Mean and covariance fitted to M points of :math:`\mathcal N(\mu, LL^\top)` are :math:`\mu + Lz/\sqrt M` and
:math:`LWL^\top/(M - \mathrm{ddof})`, with z standard normal and, independently, W from the Wishart law with M - 1
degrees of freedom. Bartlett's decomposition draws a triangular T with :math:`TT^\top = W`, and the factor of the
next covariance is :math:`LT/\sqrt{M - \mathrm{ddof}}`. Two variants reach what plain simulation cannot: tiny
eigenvalues, and the rare paths that carry the expectations.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model_collapse.arguments import generator, integer
from model_collapse.gaussian_theory import Array, checked_ddof, checked_sizes

LARGEST = 2**53  # sample size: beyond, floats are no longer exact
Sizes = int | Sequence[int] | NDArray[np.integer]


class Weighted(NamedTuple):
    """Chains drawn from another law than their own, and weights that undo it; arrays (n + 1, replicates).

    Examples
    --------
    >>> chains = Weighted(means=np.zeros((1, 2)), variances=np.ones((1, 2)), weights=np.ones((1, 2)))
    >>> np.mean(chains.weights * chains.variances)
    np.float64(1.0)
    """

    means: Array
    variances: Array
    weights: Array


def simulate(
    M: Sizes,
    generations: int,
    replicates: int,
    rng: Generator,
    d: int = 1,
    ddof: int = 1,
) -> tuple[Array, Array]:
    r"""Simulate the chain from :math:`\mathcal N(0, I)` by its sufficient statistics: exact in law, no points drawn.

    Parameters
    ----------
    M : int, or sequence of `generations` ints; each > ddof
        Sample size, for all rounds or for each.
    generations, replicates : int >= 0, int >= 1
        Rounds n, and independent chains R.
    rng : numpy.random.Generator
    d : int >= 1
        Dimension, which may be M or above (the covariance is then singular after one round).
    ddof : {1, 0}
        Unbiased or maximum-likelihood covariances.

    Returns
    -------
    means : array of shape (generations + 1, replicates, d)
    covariances : array of shape (generations + 1, replicates, d, d)
        Row 0 is the original. For d > 1 eigenvalues below 1e-16 of the largest are lost in these matrices'
        rounding: use `simulate_log_eigenvalues`. Variances below 1e-308 become 0.

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> means, covariances = simulate(10, 100, 1000, np.random.default_rng(0))
    >>> means.shape, covariances.shape
    ((101, 1000, 1), (101, 1000, 1, 1))
    >>> float(np.median(covariances[100])) < 1e-4  # the expectation is 1 for ever
    True
    """
    sizes, R, rng = _rounds(M, generations, ddof), integer(replicates, "replicates"), generator(rng)
    if integer(d, "d") == 1:
        means, variances = _simulate_line(sizes, R, rng, ddof)
        return means[..., None], variances[..., None, None]
    means, factors = np.zeros((len(sizes) + 1, R, d)), np.zeros((len(sizes) + 1, R, d, d))
    factors[0] = np.eye(d)
    for i, size in enumerate(sizes):
        step = rng.standard_normal((R, d, 1)) / np.sqrt(size)
        means[i + 1] = means[i] + (factors[i] @ step)[..., 0]
        factors[i + 1] = factors[i] @ wishart_factors(size - 1, d, R, rng) / np.sqrt(size - ddof)
    return means, factors @ np.swapaxes(factors, -1, -2)


def simulate_log_eigenvalues(
    M: Sizes,
    generations: int,
    replicates: int,
    rng: Generator,
    d: int,
    ddof: int = 1,
) -> Array:
    r"""Simulate the logarithms of the covariance's eigenvalues, each to full relative precision, however small.

    The law is that of `simulate`. The covariance is kept as orthonormal directions and log scales, renewed in every
    round by one-sided Jacobi rotations, which (unlike a bidiagonalising SVD) keep small singular values of graded
    columns exact.

    Parameters
    ----------
    M, generations, replicates, rng, d, ddof
        As in `simulate`.

    Returns
    -------
    array of shape (generations + 1, replicates, d), descending; minus infinity beyond the rank

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> logs = simulate_log_eigenvalues(5, 500, 4, np.random.default_rng(0), d=2)
    >>> logs.shape, bool(np.all(logs[-1, :, 0] - logs[-1, :, 1] > 80))  # the ratio of the two is below 1e-34
    ((501, 4, 2), True)
    """
    sizes, R, rng = _rounds(M, generations, ddof), integer(replicates, "replicates"), generator(rng)
    logs = np.full((len(sizes) + 1, R, integer(d, "d")), -np.inf)
    logs[0] = 0
    directions, scales = np.broadcast_to(np.eye(d), (R, d, d)), np.zeros((R, d))
    for i, size in enumerate(sizes):
        rank = min(directions.shape[-1], int(size) - 1)
        T = wishart_factors(int(size) - 1, directions.shape[-1], R, rng)[:, :, :rank] / np.sqrt(size - ddof)
        below = np.exp(np.minimum(scales[:, :, None] - scales[:, None, :rank], 0.0))  # T is 0 above the diagonal
        directions, scales = _graded_svd(directions @ (below * T), scales[:, :rank])
        logs[i + 1, :, :rank] = 2 * scales
    return logs


def simulate_weighted(M: Sizes, generations: int, replicates: int, rng: Generator) -> Weighted:
    r"""Simulate the one-dimensional unbiased chain by importance sampling of the paths that carry its expectations.

    After n rounds with n far above M nearly all of :math:`\mathbb E\sigma_n^2` comes from paths that plain
    simulation never meets. Here each path has a first part of random length, uniform on 0, ..., n, whose rounds are
    size-biased: S is drawn with its density times S, so the variance drifts up as it else drifts down. Expectations
    of the original chain are means of weight times value; no weight exceeds n + 1.

    Parameters
    ----------
    M : int, or sequence of `generations` ints; each >= 2
    generations, replicates : int >= 0, int >= 1
    rng : numpy.random.Generator

    Returns
    -------
    Weighted
        means, variances and weights, each of shape (generations + 1, replicates): for a function of the first i
        rounds, ``np.mean(weights[i] * value)`` estimates its expectation without bias.

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> chains = simulate_weighted(10, 200, 1000, np.random.default_rng(0))
    >>> bool(abs(np.mean(chains.weights[-1] * chains.means[-1] ** 2) / 20 - 1) < 0.3)  # E (mu_n - mu)^2 = n / M
    True
    """
    sizes, R, rng = _rounds(M, generations, 1), integer(replicates, "replicates"), generator(rng)
    n = len(sizes)
    biased = np.arange(n)[:, None] < rng.integers(0, n + 1, R)
    means, variances = _simulate_line(sizes, R, rng, 1, biased)
    before = np.cumsum(variances, axis=0) - variances
    left = n + 1 - np.arange(n + 1)[:, None]
    return Weighted(means, variances, (n + 1) / (before + left * variances))


def wishart_factors(k: int, d: int, replicates: int, rng: Generator) -> Array:
    """Draw triangular T with T T' from the Wishart law with identity scale (Bartlett's decomposition).

    Parameters
    ----------
    k, d, replicates : int
        Degrees of freedom, also where k < d; dimensions; draws.
    rng : numpy.random.Generator

    Returns
    -------
    array of shape (replicates, d, d), lower triangular

    Examples
    --------
    >>> T = wishart_factors(3, 2, 10_000, np.random.default_rng(0))
    >>> (T @ np.swapaxes(T, 1, 2)).mean(axis=0).round(1).tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    """
    T = np.tril(rng.standard_normal((replicates, d, d)), -1)
    freedom = np.maximum(k - np.arange(d), 0)
    T[:, np.arange(d), np.arange(d)] = np.sqrt(2 * rng.standard_gamma(freedom / 2, (replicates, d)))
    T[:, :, k:] = 0  # k points span k dimensions
    return T


def _simulate_line(
    sizes: NDArray[np.int64], R: int, rng: Generator, ddof: int, biased: NDArray[np.bool_] | None = None
) -> tuple[Array, Array]:
    """Return means and variances (n+1, R) of one-dimensional chains, the rounds in `biased` (n, R) size-biased."""
    n, freedom = len(sizes), (sizes[:, None] - 1) / 2
    means, variances = np.empty((n + 1, R)), np.empty((n + 1, R))
    means[0], variances[0] = 0, 1
    if biased is None and n and np.all(sizes == sizes[0]):
        rng.standard_gamma(freedom[0, 0], out=variances[1:])  # one scalar shape is drawn faster
    else:
        rng.standard_gamma(freedom + (0 if biased is None else biased), (n, R), out=variances[1:])
    variances[1:] *= 2 / (sizes[:, None] - ddof)
    np.cumprod(variances, axis=0, out=variances)
    rng.standard_normal(out=means[1:])
    means[1:] *= np.sqrt(variances[:-1] / sizes[:, None])
    return np.cumsum(means, axis=0, out=means), variances


def _rounds(M: Sizes, generations: int, ddof: int) -> NDArray[np.int64]:
    n = integer(generations, "generations", 0)
    given = checked_sizes(M, "M", checked_ddof(ddof) + 1)
    if given.shape not in ((), (n,)) or np.any(given != np.floor(given)) or np.any(given > LARGEST):
        raise ValueError(f"M = {M!r:.80}: an integer up to 2^53 is needed, or one for each of {n} rounds")
    return np.broadcast_to(given, n).astype(np.int64)


def _graded_svd(columns: Array, scales: Array) -> tuple[Array, Array]:
    """Return left singular vectors (R, d, r) and log singular values (R, r), descending, of columns * exp(scales)."""
    columns, scales = _normalised(columns, scales)
    for _ in range(60):  # convergence is quadratic: a handful is the rule
        worst = 0.0
        for p, q in combinations(range(columns.shape[-1]), 2):
            worst = max(worst, _rotate(columns, scales, p, q))
        columns, scales = _normalised(columns, scales)
        if worst < 1e-8:  # and after this last sweep its square
            return columns, scales
    raise ArithmeticError("the Jacobi rotations did not converge in 60 sweeps")


def _rotate(columns: Array, scales: Array, p: int, q: int) -> float:
    """Make columns p and q orthogonal, in place; return the largest cosine there was between them."""
    u, v = columns[..., p], columns[..., q]
    ratio = np.exp(scales[:, q] - scales[:, p])[:, None]
    cosine = np.sum(u * v, axis=-1, keepdims=True)
    gap = 1 - ratio**2
    root = np.where(gap < 0, -1, 1) * np.hypot(gap, 2 * ratio * cosine)
    lean = 2 * cosine / (gap + root + np.finfo(float).tiny)  # tangent of the angle over the ratio: never underflows
    columns[..., p], columns[..., q] = u + ratio**2 * lean * v, v - lean * u
    for j in (p, q):
        length = np.linalg.norm(columns[..., j], axis=-1)
        columns[..., j] /= length[:, None]
        scales[:, j] += np.log(length) - 0.5 * np.log1p((ratio * lean)[:, 0] ** 2)
    return float(np.abs(cosine).max())


def _normalised(columns: Array, scales: Array) -> tuple[Array, Array]:
    """Return the columns with unit length and their log lengths, longest first."""
    length = np.linalg.norm(columns, axis=-2)
    scales = scales + np.log(length)
    order = np.argsort(-scales, axis=-1, kind="stable")
    columns = np.take_along_axis(columns / length[:, None, :], order[:, None, :], axis=-1)
    return columns, np.take_along_axis(scales, order, axis=-1)
