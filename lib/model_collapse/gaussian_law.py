r"""Rates and laws of the Gaussian chain: how fast the variance dies, how it is spread, and where the mean ends.

Notation and ``ddof`` as in `model_collapse.gaussian_theory`. The results are derived in the chapter on the Gaussian
theorem.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import digamma, gammaln, loggamma, polygamma, stdtr, stdtrit

from model_collapse.arguments import integer, real, reals
from model_collapse.gaussian_theory import (
    SERIES_FROM,
    Array,
    checked_ddof,
    checked_rounds,
    checked_sizes,
    log_bias,
)


def log_variance_drift(M: ArrayLike, ddof: int = 1) -> Array:
    r"""Return the almost-sure rate per round of :math:`\ln\sigma_n^2`: :math:`\mathbb E \ln S < 0`.

    :math:`\psi(\frac{M-1}2) + \ln 2 - \ln(M - \mathrm{ddof})`, about :math:`-1/(M-1)` (twice that for ddof = 0).

    Parameters
    ----------
    M : float or array of floats >= 2
    ddof : {1, 0}

    Raises
    ------
    ValueError
        A size below 2, or another ddof.

    Examples
    --------
    >>> log_variance_drift([5, 10, 100]).round(6)
    array([-0.270363, -0.115206, -0.010135])
    """
    sizes = checked_sizes(M, "M")
    return _digamma_minus_log(sizes - 1) + log_bias(sizes, checked_ddof(ddof))


def log_variance_sd(M: ArrayLike) -> Array:
    r"""Return the standard deviation of :math:`\ln S`, one round's change of the log variance.

    :math:`\sqrt{\psi'((M-1)/2)}`, about :math:`\sqrt{2/M}`, for either ddof.

    Parameters
    ----------
    M : float or array of floats >= 2

    Raises
    ------
    ValueError
        A size below 2.

    Examples
    --------
    >>> round(float(log_variance_sd(100)), 4)
    0.1429
    """
    return np.sqrt(polygamma(1, (checked_sizes(M, "M") - 1) / 2))


def lyapunov_exponents(M: float, d: int, ddof: int = 1) -> Array:
    r"""Return the almost-sure rates per round of the log eigenvalues of the covariance, in d dimensions.

    :math:`\lambda_j = \psi(\frac{M-j}2) + \ln 2 - \ln(M - \mathrm{ddof})` for j = 1, ..., d: about
    :math:`-j/(M-1)` when d is far below M, and minus infinity from j = M on (a fitted covariance has
    rank M - 1 at most).

    Parameters
    ----------
    M : float >= 2
    d : int >= 1
    ddof : {1, 0}

    Returns
    -------
    array of shape (d,), descending

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> lyapunov_exponents(12, 3).round(4)
    array([-0.0937, -0.1986, -0.3159])
    >>> lyapunov_exponents(3, 4)
    array([-0.57721566, -1.96351003,        -inf,        -inf])
    """
    size = float(checked_sizes(real(M, "M"), "M"))
    j = np.arange(1, integer(d, "d") + 1)
    rates = np.full(len(j), -np.inf)
    bias = log_bias(np.array(size), checked_ddof(ddof))
    alive = j[j < size]
    freedom = np.asarray(size - alive, dtype=float)
    rates[: len(alive)] = _digamma_minus_log(freedom) + np.log1p(-(alive - 1) / (size - 1)) + bias
    return rates


def log_variance_cdf(x: ArrayLike, sizes: ArrayLike, ddof: int = 1) -> Array:
    r"""Return :math:`P(\ln(\sigma_n^2/\sigma^2) \le x)` after n rounds, exactly.

    The log variance is a sum of independent log chi-squares; their characteristic functions are ratios of Gamma
    functions, inverted here by Gil-Pelaez' formula (error below 1e-10 for sizes up to 1e5).

    Parameters
    ----------
    x : float or array of floats
    sizes : array of shape (n,), n >= 1, each >= 2
    ddof : {1, 0}

    Returns
    -------
    array with the shape of x

    Raises
    ------
    ValueError
        No size, one out of range, x not finite, or another ddof.

    Examples
    --------
    One round at M = 3 is an exponential law, S = chi2_2 / 2:

    >>> log_variance_cdf(0.0, [3]).round(8) == round(1 - np.exp(-1), 8)
    np.True_
    """
    M, points = checked_rounds(sizes, ddof, least=1, smallest=2), reals(x, "x")
    if not np.all(np.isfinite(points)):
        raise ValueError(f"x = {x!r}: must be finite")
    distinct, counts = np.unique(M, return_counts=True)
    a, scale = (distinct - 1) / 2, np.log(2 / (distinct - checked_ddof(ddof)))

    def log_cf(t: Array) -> NDArray[np.complex128]:
        terms = loggamma(a + 1j * t[:, None]) - gammaln(a) + 1j * t[:, None] * scale
        return np.asarray(terms @ counts, dtype=np.complex128)

    sd = np.sqrt(np.sum(counts * polygamma(1, a)))
    centre = np.sum(counts * (digamma(a) + scale))
    stop = 1 / sd
    while log_cf(np.array([stop]))[0].real > -40:  # |cf| < 1e-17: nothing is left to integrate
        stop *= 2
    reach = float(np.max(np.abs(points - centre), initial=0.0)) + 12 * sd + 40 / a.min()
    step = 2 * np.pi / reach  # what this step folds back lies further than `reach` from x
    t = step * (np.arange(max(1, int(np.ceil(stop / step)))) + 0.5)
    waves = np.exp(log_cf(t) - 1j * points[..., None] * t).imag / t
    return np.asarray(np.clip(0.5 - step / np.pi * waves.sum(axis=-1), 0.0, 1.0))


def log_variance_quantile(p: float, sizes: ArrayLike, ddof: int = 1) -> float:
    r"""Return the p-quantile of :math:`\ln(\sigma_n^2/\sigma^2)` after n rounds (p = 0.5: the typical path).

    Parameters
    ----------
    p : float in (0, 1), not closer to either end than 1e-8
    sizes : array of shape (n,), n >= 1, each >= 2
    ddof : {1, 0}

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> round(log_variance_quantile(0.5, [100] * 1000), 3)  # the mean of the variance is still 1
    -10.132
    """
    if not 1e-8 <= real(p, "p") <= 1 - 1e-8:
        raise ValueError(f"p = {p}: a probability between 1e-8 and 1 - 1e-8 is needed")
    M = checked_rounds(sizes, ddof, least=1, smallest=2)
    centre = float(np.sum(log_variance_drift(M, ddof)))
    reach = 8 * float(np.sqrt(np.sum(log_variance_sd(M) ** 2))) + 40 / float(M.min() - 1)
    return float(brentq(lambda x: float(log_variance_cdf(x, M, ddof)) - p, centre - reach, centre + reach, xtol=1e-11))


def mean_limit_cdf(x: ArrayLike, ddof: int = 1) -> Array:
    r"""Return the limiting distribution function of :math:`(\mu_\infty - \mu)/\sigma` as M grows: where the mean dies.

    Student's t with 2 degrees of freedom for unbiased fits (infinite variance), and with 4 degrees, divided by
    :math:`\sqrt2`, for maximum-likelihood ones (variance 1).

    Parameters
    ----------
    x : float or array of floats
    ddof : {1, 0}

    Raises
    ------
    ValueError
        Another ddof.

    Examples
    --------
    >>> round(float(mean_limit_cdf(2.92)), 4)
    0.95
    """
    degrees, scale = (2, 1.0) if checked_ddof(ddof) else (4, np.sqrt(0.5))
    return np.asarray(stdtr(degrees, reals(x, "x") / scale))


def mean_limit_quantile(p: ArrayLike, ddof: int = 1) -> Array:
    """Return quantiles of the law in `mean_limit_cdf`.

    Parameters
    ----------
    p : float or array of floats in (0, 1)
    ddof : {1, 0}

    Raises
    ------
    ValueError
        A probability out of range, or another ddof.

    Examples
    --------
    >>> mean_limit_quantile([0.75, 0.95]).round(3)
    array([0.816, 2.92 ])
    """
    q = reals(p, "p")
    if not np.all((q > 0) & (q < 1)):
        raise ValueError(f"p = {p!r}: probabilities must lie between 0 and 1")
    degrees, scale = (2, 1.0) if checked_ddof(ddof) else (4, np.sqrt(0.5))
    return np.asarray(scale * stdtrit(degrees, q))


def _digamma_minus_log(k: Array) -> Array:
    """Return psi(k/2) - ln(k/2), the expected log of chi2_k / k."""
    series = k >= SERIES_FROM
    x, small = np.where(series, k, 1.0), np.where(series, 1.0, k)
    tail = -1 / x - (1 / 3 - (2 / 15 - (16 / 63 - 16 / 15 / x**2) / x**2) / x**2) / x**2
    return np.where(series, tail, digamma(small / 2) - np.log(small / 2))
