r"""Mixtures of normal laws: their density, draws, moments, overlap and squared L2 distance, all in closed form.

.. math:: p(x) = \sum_k w_k\, \mathcal N(x;\, m_k, C_k)

Everything rests on one integral, :math:`\int \mathcal N(x; m, C)\,\mathcal N(x; m', C')\,dx = \mathcal N(m - m'; 0,
C + C')`: the density at 0 of the difference of two independent draws.
"""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from model_collapse.arguments import integer, reals

Array = NDArray[np.float64]


class Theta(NamedTuple):
    """Parameters of a mixture of k normal laws in d dimensions.

    Attributes
    ----------
    weights : ndarray of float64, shape (k,)
        Non-negative, sum 1.
    means : ndarray of float64, shape (k, d)
    covariances : ndarray of float64, shape (k, d, d)
    iterations : int
        EM iterations of the fit; 0 for a mixture that was not fitted.

    Examples
    --------
    >>> Theta(np.ones(1), np.zeros((1, 2)), np.eye(2)[None]).means.shape
    (1, 2)
    """

    weights: Array
    means: Array
    covariances: Array
    iterations: int = 0


def sample(theta: Theta, n: int, rng: Generator) -> Array:
    """Draw n independent points: for each a component by its weight, then a point of that component.

    Parameters
    ----------
    theta : Theta
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float64, shape (n, d)
        In no order: any part of them is a smaller sample.

    Examples
    --------
    >>> theta = Theta(np.array([0.5, 0.5]), np.array([[-9.0], [9.0]]), np.ones((2, 1, 1)))
    >>> sample(theta, 4, np.random.default_rng(0)).round().tolist()
    [[8.0], [-9.0], [-8.0], [-8.0]]
    """
    labels = rng.choice(len(theta.weights), integer(n, "n", 0), p=theta.weights)
    noise = rng.standard_normal((n, theta.means.shape[1], 1))
    return theta.means[labels] + (np.linalg.cholesky(theta.covariances)[labels] @ noise)[..., 0]


def log_density(theta: Theta, points: ArrayLike) -> Array:
    """Logarithm of each component's weighted density at points; the mixture's is their log-sum-exp.

    Parameters
    ----------
    theta : Theta
    points : array, shape (n, d)

    Returns
    -------
    ndarray of float64, shape (n, k)

    Examples
    --------
    >>> theta = Theta(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    >>> log_density(theta, [[0, 0]]).round(6).tolist()  # -ln(2 pi)
    [[-1.837877]]
    """
    apart = reals(points, "points")[:, None] - theta.means
    with np.errstate(divide="ignore"):  # a component of weight 0 has density 0
        return _log_normal(apart, theta.covariances) + np.log(theta.weights)


def moments(theta: Theta) -> tuple[Array, Array]:
    r"""Mean and covariance of the mixture as a whole.

    .. math:: \bar m = \sum_k w_k m_k, \qquad V = \sum_k w_k \big[C_k + (m_k - \bar m)(m_k - \bar m)^\top\big]

    Parameters
    ----------
    theta : Theta

    Returns
    -------
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)

    Examples
    --------
    >>> mean, covariance = moments(Theta(np.array([0.5, 0.5]), np.array([[-2.0], [2.0]]), np.ones((2, 1, 1))))
    >>> mean.tolist(), covariance.tolist()  # 1 within, 4 between
    ([0.0], [[5.0]])
    """
    mean = theta.weights @ theta.means
    apart = theta.means - mean
    within = np.tensordot(theta.weights, theta.covariances, 1)
    return mean, within + (theta.weights[:, None] * apart).T @ apart


def log_l2_squared(theta: Theta, other: Theta) -> float:
    r"""Logarithm of the squared L2 distance of two mixtures, which may be too large for a float itself.

    .. math:: \int (p - q)^2 = \sum_{k,l} a_k a_l\, \mathcal N(m_k - m_l;\, 0,\, C_k + C_l)

    over the components of both mixtures together, with :math:`a = (w^p, -w^q)`. The largest term is taken out of the
    sum, so covariances may be as small as floats allow. Nearly equal mixtures cancel: a result below 1e-15 of the
    overlap of p with itself is rounding, and minus infinity (distance 0) where it would be negative.

    Parameters
    ----------
    theta, other : Theta
        In the same dimension; any numbers of components.

    Raises
    ------
    ValueError
        Different dimensions, or a covariance that is not positive definite.

    Examples
    --------
    >>> point = Theta(np.ones(1), np.zeros((1, 2)), 1e-200 * np.eye(2)[None])
    >>> wide = Theta(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    >>> round(log_l2_squared(point, wide), 6)  # -ln(4 pi 1e-200)
    457.985994
    """
    if theta.means.shape[1] != other.means.shape[1]:
        raise ValueError(f"other: {other.means.shape[1]} dimensions, but theta has {theta.means.shape[1]}")
    signed = np.concatenate([theta.weights, -other.weights])
    means = np.concatenate([theta.means, other.means])
    covariances = np.concatenate([theta.covariances, other.covariances])
    logs = _log_normal(means[:, None] - means, covariances[:, None] + covariances)
    peak = logs.max()
    total = signed @ np.exp(logs - peak) @ signed
    return float(peak + np.log(total)) if total > 0 else -np.inf


def l2_squared(theta: Theta, other: Theta) -> float:
    r"""Squared L2 distance of two mixtures, :math:`\int (p - q)^2`: the measure of the authors' code.

    Its unit is that of a density, one over length to the power d. Parameters and errors are those of
    `log_l2_squared`.

    Examples
    --------
    >>> p = Theta(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    >>> q = Theta(np.ones(1), np.full((1, 2), 99.0), np.eye(2)[None])
    >>> l2_squared(p, p), bool(np.isclose(l2_squared(p, q), 2 / (4 * np.pi)))  # far apart: 1 / (4 pi) each
    (0.0, True)
    """
    return float(np.exp(log_l2_squared(theta, other)))


def label_agreement(theta: Theta, other: Theta, points: ArrayLike) -> float:
    """Share of points that two mixtures put into the same component, under the best renaming of components.

    Parameters
    ----------
    theta, other : Theta
        Each point goes to the component with the largest posterior probability.
    points : array, shape (n, d)

    Returns
    -------
    float
        1 if both cut the points into the same groups; for two components never below 1/2.

    Examples
    --------
    >>> theta = Theta(np.array([0.5, 0.5]), np.array([[-2.0], [2.0]]), np.ones((2, 1, 1)))
    >>> swapped = Theta(*(part[::-1] for part in theta[:3]))
    >>> label_agreement(theta, swapped, [[-1.0], [3.0], [0.5]])
    1.0
    """
    a, b = (log_density(mixture, points).argmax(axis=1) for mixture in (theta, other))
    together = np.zeros((len(theta.weights), len(other.weights)))
    np.add.at(together, (a, b), 1)
    return float(together[linear_sum_assignment(-together)].sum() / len(a))


def log_likelihood(theta: Theta, points: ArrayLike) -> float:
    """Mean logarithm of the mixture's density at points.

    Examples
    --------
    >>> theta = Theta(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    >>> round(log_likelihood(theta, [[0, 0], [2, 0]]), 6)
    -2.837877
    """
    return float(np.mean(logsumexp(log_density(theta, points), axis=1)))


def _log_normal(apart: Array, covariances: Array) -> Array:
    """Log density at vectors (..., d) of normal laws with mean 0 and covariances that broadcast, (..., d, d)."""
    try:
        factors = np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "covariances: one is not positive definite, as the covariances of a density must be"
        ) from error
    shape = np.broadcast_shapes(apart.shape, covariances.shape[:-1])
    scaled = np.linalg.solve(factors, np.broadcast_to(apart, shape)[..., None])[..., 0]
    log_det = 2 * np.log(np.diagonal(factors, axis1=-2, axis2=-1)).sum(axis=-1)
    return np.asarray(-0.5 * (np.sum(scaled**2, axis=-1) + log_det + apart.shape[-1] * np.log(2 * np.pi)))
