r"""Exact results on the Gaussian chain of Theorem 3.1, with their equations.

One round draws :math:`M_i` points from :math:`\mathcal N(\mu_i, \sigma_i^2)` and fits mean and variance to them:

.. math:: \mu_{i+1} = \mu_i + \frac{\sigma_i}{\sqrt{M_i}} Z_i, \qquad \sigma_{i+1}^2 = \sigma_i^2 S_i, \qquad
   S_i \sim \frac{\chi^2_{M_i-1}}{M_i - \mathrm{ddof}},

all :math:`Z_i \sim \mathcal N(0, 1)` and :math:`S_i` independent. ``ddof`` is numpy's: 1 for the unbiased variance
of the theorem, 0 for the maximum-likelihood one. ``sizes`` are :math:`M_0, \dots, M_{n-1}`, one for each of n
rounds; the formulas are smooth in M, so real numbers are taken too. W2 is the 2-Wasserstein distance to the
original :math:`\mathcal N(\mu, \sigma^2)`. The paper states the theorem; the finite-n results here are derived in
the chapter.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from model_collapse.arguments import real, reals

Array = NDArray[np.float64]

SERIES_FROM = 50  # degrees of freedom from which an asymptotic series (error < 1e-14) replaces a difference


def c4(M: ArrayLike) -> Array:
    r"""Return :math:`c_4(M)`: by what factor the sample standard deviation falls short of sigma, on average.

    :math:`\mathbb E\,s = c_4(M)\,\sigma` for M Gaussian points and the unbiased variance :math:`s^2`, where
    :math:`c_4(M) = \sqrt{2/(M-1)}\;\Gamma(M/2) / \Gamma((M-1)/2)`.

    Parameters
    ----------
    M : float or array of floats >= 2

    Raises
    ------
    ValueError
        A size below 2.

    Examples
    --------
    >>> round(float(c4(2)), 6), round(float(c4(100)), 6)
    (0.797885, 0.997478)
    """
    return np.exp(_log_c4(checked_sizes(M, "M") - 1))


def expected_w2(sizes: ArrayLike, sigma: float = 1.0, ddof: int = 1) -> float:
    r"""Return the expected squared W2 distance to the original after ``len(sizes)`` rounds, exactly (one dimension).

    .. math:: \mathbb E\,W_2^2 = \sigma^2\Big[\sum_i \frac1{M_i} + 2\Big(1 - \prod_i c_4(M_i)\Big)\Big]

    for unbiased fits, and :math:`2\sigma^2(1 - \prod_i c_4(M_i)\sqrt{1 - 1/M_i})` for maximum-likelihood ones.

    Parameters
    ----------
    sizes : array of shape (n,), each >= 2 (>= 1 for ddof = 0)
        :math:`M_0, \dots, M_{n-1}`. None of them: distance 0.
    sigma : float > 0
        Standard deviation of the original.
    ddof : {1, 0}
        Which variance estimator is fitted.

    Raises
    ------
    ValueError
        A size or sigma out of range, or another ddof.

    Examples
    --------
    >>> round(expected_w2([100] * 50), 6)
    0.73723
    >>> expected_w2([1e8])
    1.500000004375e-08
    """
    return float(expected_w2_path(sizes, sigma, ddof)[-1])


def expected_w2_path(sizes: ArrayLike, sigma: float = 1.0, ddof: int = 1) -> Array:
    """Return `expected_w2` after 0, 1, ..., n rounds: an array of shape (n+1,).

    Parameters and errors are those of `expected_w2`.

    Examples
    --------
    >>> expected_w2_path([5, 5]).round(6)
    array([0.      , 0.320029, 0.632854])
    """
    M = checked_rounds(sizes, ddof)
    if real(sigma, "sigma") <= 0:
        raise ValueError(f"sigma = {sigma}: a standard deviation must be > 0")
    logs = np.cumsum(_log_c4(M - 1) + 0.5 * log_bias(M, ddof))
    means = np.cumsum(1 / M) if ddof else np.zeros(len(M))  # ddof = 0: E (mu_n - mu)^2 + E sigma_n^2 = sigma^2
    return np.concatenate([[0.0], sigma**2 * (means - 2 * np.expm1(logs))])


def w2_bounds(sizes: ArrayLike, trace: float = 1.0) -> tuple[float, float]:
    r"""Return bounds on the expected squared W2 distance in any dimension, for unbiased fits.

    :math:`\mathrm{tr}\,\Sigma \sum_i 1/M_i \le \mathbb E\,W_2^2 \le \mathrm{tr}\,\Sigma\,(2 + \sum_i 1/M_i)`,
    whatever the law of the original data.

    Parameters
    ----------
    sizes : array of shape (n,), each >= 2
    trace : float > 0
        Trace of the original covariance.

    Raises
    ------
    ValueError
        A size or trace out of range.

    Examples
    --------
    >>> w2_bounds([100] * 50, trace=3)
    (1.5, 7.5)
    """
    if real(trace, "trace") <= 0:
        raise ValueError(f"trace = {trace}: the trace of a covariance must be > 0")
    lower = float(trace * np.sum(1 / checked_rounds(sizes, 1)))
    return lower, lower + 2 * trace


def w2_moments(sizes: ArrayLike, ddof: int = 1) -> tuple[float, float]:
    r"""Return mean and variance of the squared W2 distance after n rounds, for sigma = 1 (one dimension).

    By a recursion in :math:`\mathbb E\sigma_i^a`, :math:`\mathbb E[\mu_i^2\sigma_i^a]` and :math:`\mathbb
    E\mu_i^4`: a second way to `expected_w2`. Terms of order 1 cancel, so that absolute errors are about 1e-15 a round.

    Parameters
    ----------
    sizes : array of shape (n,), each >= 2 (>= 1 for ddof = 0)
    ddof : {1, 0}

    Raises
    ------
    ValueError
        A size out of range, or another ddof.

    Examples
    --------
    >>> mean, variance = w2_moments([4000] * 5)
    >>> round(mean * 4000, 3), round(variance * 4000**2, 2)
    (7.5, 62.59)
    """
    sd, shifted, fourth = np.ones(5), np.zeros(3), 0.0  # E sigma^a, E mu^2 sigma^a, E mu^4
    for M in checked_rounds(sizes, ddof):
        factor = _powers_of_sd(M, ddof)
        fourth += 6 * shifted[2] / M + 3 * sd[4] / M**2
        shifted = factor[:3] * (shifted + sd[2:] / M)
        sd = factor * sd
    mean = shifted[0] + sd[2] - 2 * sd[1] + 1
    square = fourth + 2 * (shifted @ [1, -2, 1]) + sd @ [1, -4, 6, -4, 1]
    return float(mean), float(square - mean**2)


def preprint_w2(sizes: ArrayLike) -> tuple[float, float]:
    r"""Return the leading orders of the squared W2 distance's mean and variance as the preprint has them, sigma = 1.

    :math:`1/M_0 + \dots + 1/M_{n-2} + 3/(2M_{n-1})` and
    :math:`2/M_0^2 + \dots + 3/M_{n-1}^2 + \sum_{i\ne j} 3/(M_iM_j)`, known to us from pictures of the
    formulas only. From the second round on the one is too small, the other too large:
    :math:`\frac32\sum 1/M_i` and :math:`\frac52(\sum 1/M_i)^2` are right (compare `w2_moments`).

    Parameters
    ----------
    sizes : array of shape (n,), n >= 1, each >= 2

    Raises
    ------
    ValueError
        No size, or one out of range.

    Examples
    --------
    >>> preprint_w2([8, 8]) == (2.5 / 8, 11 / 8**2)
    True
    """
    x = 1 / checked_rounds(sizes, 1, least=1)
    pairs = np.sum(x) ** 2 - np.sum(x**2)
    return float(np.sum(x) + x[-1] / 2), float(2 * np.sum(x**2) + x[-1] ** 2 + 3 * pairs)


def _powers_of_sd(M: float, ddof: int) -> Array:
    """Return E S^(a/2) for a = 0, ..., 4: the moments of one round's change of the standard deviation."""
    k = M - 1
    if k == 0:
        return np.array([1.0, 0, 0, 0, 0])
    r, c = np.sqrt(k / (M - ddof)), float(c4(M))
    return np.asarray(np.array([1.0, c, 1.0, c * (k + 1) / k, (k + 2) / k]) * r ** np.arange(5))


def checked_sizes(sizes: ArrayLike, name: str, smallest: int = 2) -> Array:
    """Return sample sizes as floats, or raise ValueError for one that is not finite or too small."""
    M = reals(sizes, name)
    bad = M[~(np.isfinite(M) & (smallest <= M))]
    if bad.size:
        raise ValueError(f"{name}: every sample size must be a finite number >= {smallest}, got {bad[0]}")
    return M


def checked_rounds(sizes: ArrayLike, ddof: int, least: int = 0, smallest: int | None = None) -> Array:
    """Return the sizes of at least `least` rounds as a one-dimensional array; by default ddof + 1 is allowed."""
    M = checked_sizes(sizes, "sizes", checked_ddof(ddof) + 1 if smallest is None else smallest)
    if M.ndim != 1 or len(M) < least:
        raise ValueError(f"sizes: a one-dimensional array of at least {least} sizes is needed, got shape {M.shape}")
    return M


def checked_ddof(ddof: int) -> int:
    """Return ddof, or raise ValueError unless it is 0 or 1."""
    if ddof not in (0, 1):
        raise ValueError(f"ddof = {ddof}: allowed are 1 (unbiased) and 0 (maximum likelihood)")
    return int(ddof)


def log_bias(M: Array, ddof: int) -> Array:
    """Return ln((M - 1) / (M - ddof)), the log of the expected variance ratio of one round."""
    with np.errstate(divide="ignore"):  # M = 1 leaves no variance: -inf is right
        return np.log1p(-(1 - ddof) / M)


def _log_c4(k: Array) -> Array:
    """Return ln c4 from the degrees of freedom k = M - 1; minus infinity for k = 0."""
    series = k >= SERIES_FROM
    x, small = np.where(series, k, 1.0), np.where(series, 1.0, k)
    with np.errstate(divide="ignore"):
        exact = 0.5 * np.log(2 / np.where(small > 0, small, 1)) + gammaln((small + 1) / 2) - gammaln(small / 2)
    return np.where(series, (-1 / 4 + (1 / 24 + (-1 / 20 + 17 / 112 / x**2) / x**2) / x**2) / x, exact)
