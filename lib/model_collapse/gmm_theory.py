r"""What is proved of chains of Gaussian mixtures: the covariance of the whole, and the plateau that `reg_covar` makes.

Every step of EM leaves the mixture with the mean of the data and, as a whole, with their covariance (divided by M)
plus :math:`r I`, where r is scikit-learn's `reg_covar`. So for M independent points, whatever the number of
components and wherever EM starts or stops, the covariance V of the mixture obeys

.. math:: \mathbb E[V_{n+1} \mid V_n] = \big(1 - \tfrac1M\big) V_n + r I .

With one component more is known: :math:`V_{n+1} = L W L^\top / M + r I` with :math:`LL^\top = V_n` and W from the
Wishart law with M - 1 degrees of freedom, whose stationary law for large M is `plateau_variance` and, in the plane,
`plateau_l2`. Proofs stand in the chapter; n counts rounds of sampling and fitting.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import stats

from model_collapse.arguments import generator, integer, real, reals
from model_collapse.gaussian_simulation import wishart_factors
from model_collapse.gmm_law import Array


def expected_variance(M: int, n: ArrayLike, reg_covar: float = 0.0, variance: float = 1.0) -> Array:
    r"""Expected variance of the mixture in a fixed direction after n rounds, exactly, for any number of components.

    .. math:: \mathbb E\,v_n = r M + \big(1 - \tfrac1M\big)^n (v_0 - r M)

    Parameters
    ----------
    M : int >= 1
        Points per generation.
    n : int or array of ints >= 0
        Rounds: generation i of a run from p_0 has had n = i + 1.
    reg_covar : float >= 0
        r, what the fit adds to the diagonal of a covariance.
    variance : float >= 0
        v_0, that of the original in this direction.

    Returns
    -------
    array of the shape of n

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> expected_variance(1000, [0, 1000, 10**6], reg_covar=1e-6).round(6).tolist()
    [1.0, 0.368328, 0.001]
    """
    rounds, floor = _rounds(M, n), _floor(M, reg_covar)
    return np.asarray(floor + (1 - 1 / M) ** rounds * (_not_negative(variance, "variance") - floor))


def expected_shift(M: int, n: ArrayLike, reg_covar: float = 0.0, variance: float = 1.0) -> Array:
    r"""Expected square of how far the mean of the mixture has moved in a fixed direction after n rounds, exactly.

    .. math:: \mathbb E(\bar m_n - \bar m_0)^2 = \frac1M \sum_{i<n} \mathbb E\,v_i
       = r n + \Big[1 - \big(1 - \tfrac1M\big)^n\Big] (v_0 - r M)

    Parameters, errors and shape are those of `expected_variance`. Without r it stays below v_0, with r it has no bound.

    Examples
    --------
    >>> expected_shift(1000, [1, 1000, 10**6], reg_covar=1e-6).round(6).tolist()
    [0.001, 0.632672, 1.999]
    """
    rounds, floor = _rounds(M, n), _floor(M, reg_covar)
    lost = 1 - (1 - 1 / M) ** rounds
    return np.asarray(reg_covar * rounds + lost * (_not_negative(variance, "variance") - floor))


def plateau_moments(M: int, reg_covar: float = 1e-6) -> tuple[float, float]:
    r"""Mean and standard deviation of the stationary variance in a fixed direction, exactly (one component).

    From :math:`v' = S v + r` with :math:`S \sim \chi^2_{M-1}/M`: the mean is :math:`rM`, the standard deviation
    :math:`rM\sqrt{2M - 2}`, so rare generations carry the mean.

    Raises
    ------
    ValueError
        M < 2, or reg_covar < 0.

    Examples
    --------
    >>> plateau_moments(51)[0] == 51e-6, round(plateau_moments(51)[1] / 51e-6, 6)
    (True, 10.0)
    """
    mean = _floor(integer(M, "M", 2), reg_covar)
    return mean, float(mean * np.sqrt(2 * M - 2))


def plateau_variance(M: int, reg_covar: float = 1e-6) -> Any:
    r"""Stationary law of the variance in a fixed direction for large M (one component): rM divided by Gamma(2, 1).

    Returns
    -------
    scipy.stats frozen distribution
        With the exact mean and an infinite variance (the exact one grows with M: `plateau_moments`).

    Raises
    ------
    ValueError
        M < 1, or reg_covar <= 0: without it nothing is stationary.

    Examples
    --------
    >>> law = plateau_variance(1000)
    >>> round(float(law.mean()), 9), round(float(law.median()), 6)  # the typical value is less than the mean
    (0.001, 0.000596)
    """
    return stats.invgamma(2, scale=_positive_floor(M, reg_covar))


def plateau_l2(M: int, reg_covar: float = 1e-6) -> Any:
    r"""Stationary law of the squared L2 norm of the model, one component in the plane, for large M.

    :math:`\int p^2 = 1/(4\pi\sqrt{\det V})` has the law Gamma(4, 1) over :math:`8\pi r M`, with mean
    :math:`1/(2\pi r M)`: what the authors' distance comes to once the model is narrow, as its other terms, the norm
    of the first model and the overlap, stay of the order of 1.

    Returns
    -------
    scipy.stats frozen distribution

    Raises
    ------
    ValueError
        M < 1, or reg_covar <= 0.

    Examples
    --------
    >>> law = plateau_l2(1000)
    >>> round(float(law.mean()), 4), np.round(law.interval(0.95), 1).tolist()
    (159.1549, [43.4, 348.8])
    """
    return stats.gamma(4, scale=1 / (8 * np.pi * _positive_floor(M, reg_covar)))


def simulate_floor(
    M: int, rounds: int, replicates: int, rng: Generator, reg_covar: float = 1e-6, d: int = 2, start: float = 1.0
) -> Array:
    """Simulate covariances of fits with one component: exact in law, no points are drawn.

    Parameters
    ----------
    M, rounds, replicates, d : int
        M > d points in d dimensions.
    rng : numpy.random.Generator
    reg_covar : float >= 0
    start : float > 0
        The original covariance is this times the identity.

    Returns
    -------
    array of shape (replicates, d, d)
        After the last round.

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> covariances = simulate_floor(50, 300, 400, np.random.default_rng(0), reg_covar=0.02)
    >>> bool(abs(np.median(covariances[:, 0, 0]) - plateau_variance(50, 0.02).median()) < 0.1)
    True
    """
    d, R = integer(d, "d"), integer(replicates, "replicates")
    floor = _not_negative(reg_covar, "reg_covar") * np.eye(d)
    covariances = np.broadcast_to(_not_negative(start, "start") * np.eye(d), (R, d, d))
    k = integer(M, "M", d + 1) - 1
    for _ in range(integer(rounds, "rounds", 0)):
        factors = np.linalg.cholesky(covariances) @ wishart_factors(k, d, R, generator(rng))
        covariances = factors @ np.swapaxes(factors, 1, 2) / M + floor
    return covariances


def _rounds(M: int, n: ArrayLike) -> Array:
    integer(M, "M")
    rounds = reals(n, "n")
    if np.any(rounds < 0):
        raise ValueError(f"n = {rounds.min():g}: must be >= 0")
    return rounds


def _floor(M: int, reg_covar: float) -> float:
    return _not_negative(reg_covar, "reg_covar") * integer(M, "M")


def _positive_floor(M: int, reg_covar: float) -> float:
    if _floor(M, reg_covar) == 0:
        raise ValueError(f"reg_covar = {reg_covar}: must be > 0")
    return _floor(M, reg_covar)


def _not_negative(value: float, name: str) -> float:
    if real(value, name) < 0:
        raise ValueError(f"{name} = {value}: must be >= 0")
    return float(value)
