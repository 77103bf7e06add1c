r"""Normal laws as a model family, the distance between them, and everything that is known of their chain.

The chain is that of Theorem 3.1: mean and covariance are fitted to M points, the next M points are drawn from the
normal law with that mean and covariance. Here are its `family` for the process that draws points and the distance
`w2`; what can be imported from here beside them stands in `gaussian_simulation` (the chain without points),
`gaussian_theory` (the expected distance), `gaussian_law` (rates and laws) and `gaussian_mixing` (data that are
kept).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from model_collapse.arguments import reals
from model_collapse.gaussian_law import (
    log_variance_cdf,
    log_variance_drift,
    log_variance_quantile,
    log_variance_sd,
    lyapunov_exponents,
    mean_limit_cdf,
    mean_limit_quantile,
)
from model_collapse.gaussian_mixing import accumulated_variance, fresh_fraction
from model_collapse.gaussian_simulation import Weighted, simulate, simulate_log_eigenvalues, simulate_weighted
from model_collapse.gaussian_theory import (
    Array,
    c4,
    checked_ddof,
    expected_w2,
    expected_w2_path,
    preprint_w2,
    w2_bounds,
    w2_moments,
)
from model_collapse.process import Family, Theta

__all__ = [
    "Normal",
    "Weighted",
    "accumulated_variance",
    "c4",
    "expected_w2",
    "expected_w2_path",
    "family",
    "fresh_fraction",
    "log_variance_cdf",
    "log_variance_drift",
    "log_variance_quantile",
    "log_variance_sd",
    "lyapunov_exponents",
    "mean_limit_cdf",
    "mean_limit_quantile",
    "preprint_w2",
    "simulate",
    "simulate_log_eigenvalues",
    "simulate_weighted",
    "w2",
    "w2_bounds",
    "w2_moments",
]


class Normal(NamedTuple):
    """Parameters of a normal law: for data of shape (M, d) a mean (d,) and covariance (d, d), for (M,) two scalars.

    Examples
    --------
    >>> float(Normal(mean=np.float64(0), cov=np.float64(4)).cov)
    4.0
    """

    mean: NDArray[np.floating]
    cov: NDArray[np.floating]


def family(ddof: int = 1) -> Family:
    """Return the normal laws, fitted by sample mean and sample covariance.

    Parameters
    ----------
    ddof : {1, 0}
        1: the unbiased covariance of Theorem 3.1 (two points are needed); 0: maximum likelihood, which the authors'
        code uses.

    Returns
    -------
    Family
        For data of shape (M,) or (M, d), float; theta is a `Normal`.

    Raises
    ------
    ValueError
        Another ddof; when fitting, data of another shape or fewer than ddof + 1 points.

    Examples
    --------
    >>> normal = family()
    >>> theta = normal.fit(np.array([1.0, 2.0, 3.0]), np.random.default_rng(0), None)
    >>> theta.mean, theta.cov
    (np.float64(2.0), np.float64(1.0))
    >>> normal.sample(theta, 5, np.random.default_rng(0)).shape
    (5,)
    """
    checked_ddof(ddof)

    def fit(data: NDArray[Any], rng: Generator, previous: Theta | None) -> Normal:
        if data.ndim not in (1, 2) or len(data) <= ddof:
            raise ValueError(f"data: shape (M,) or (M, d) with M > {ddof} is needed, got shape {data.shape}")
        mean = data.mean(axis=0)
        rest = data - mean
        return Normal(mean, rest.T @ rest / (len(data) - ddof))

    return Family(fit, _sample)


def _sample(theta: Theta, n: int, rng: Generator) -> NDArray[Any]:
    factor = np.sqrt(theta.cov) if theta.cov.ndim == 0 else _root(theta.cov, "theta.cov")
    noise = rng.standard_normal((n, *np.shape(theta.mean)))
    points = theta.mean + (noise * factor if factor.ndim == 0 else noise @ factor)
    return np.asarray(points, dtype=theta.mean.dtype)


def w2(mean0: ArrayLike, cov0: ArrayLike, mean1: ArrayLike, cov1: ArrayLike) -> Array:
    r"""Return the squared 2-Wasserstein distance between two normal laws; covariances may be singular.

    :math:`\lVert m_0 - m_1\rVert^2 + \mathrm{tr}(C_0 + C_1 - 2(C_0^{1/2} C_1 C_0^{1/2})^{1/2})`, computed as
    :math:`\lVert C_0^{1/2} - C_1^{1/2} U\rVert_F^2` with the best rotation U, so that nearly equal laws do not
    cancel.

    Parameters
    ----------
    mean0, mean1 : floats, or arrays of shape (..., d)
    cov0, cov1 : variances (floats, or arrays of one dimension), or covariances of shape (..., d, d)
        Leading dimensions broadcast. Variances of a one-dimensional array belong to as many one-dimensional laws.

    Returns
    -------
    array
        The leading shape; a scalar array for two single laws.

    Raises
    ------
    ValueError
        Shapes that do not fit, numbers not finite, a covariance that is not symmetric or has a negative eigenvalue.

    Examples
    --------
    >>> float(w2(0.0, 1.0, 3.0, 4.0))  # (0 - 3)^2 + (1 - 2)^2
    10.0
    >>> float(w2([0, 0], np.eye(2), [1, 0], np.diag([4, 0])))
    3.0
    """
    names = ("mean0", "cov0", "mean1", "cov1")
    m0, c0, m1, c1 = (reals(x, name) for name, x in zip(names, (mean0, cov0, mean1, cov1), strict=True))
    for name, value in zip(names, (m0, c0, m1, c1), strict=True):
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name}: every number must be finite")
    if c0.ndim < 2 and c1.ndim < 2:
        return _w2_line(m0, c0, m1, c1)
    sides = {*m0.shape[-1:], *m1.shape[-1:], *c0.shape[-2:], *c1.shape[-2:]}
    if min(m0.ndim, m1.ndim, c0.ndim - 1, c1.ndim - 1) < 1 or len(sides) > 1:
        shapes = ", ".join(str(x.shape) for x in (m0, c0, m1, c1))
        raise ValueError(f"shapes: means (..., d) and covariances (..., d, d) of one d are needed, got {shapes}")
    if sides == {1}:
        return _w2_line(m0[..., 0], c0[..., 0, 0], m1[..., 0], c1[..., 0, 0])
    root0, root1 = _root(c0, "cov0"), _root(c1, "cov1")
    left, _, right = np.linalg.svd(np.swapaxes(root1, -1, -2) @ root0)
    gap = root0 - root1 @ left @ right
    return np.asarray(np.sum((m0 - m1) ** 2, axis=-1) + np.sum(gap**2, axis=(-1, -2)))


def _w2_line(m0: Array, c0: Array, m1: Array, c1: Array) -> Array:
    for name, variance in (("cov0", c0), ("cov1", c1)):
        if np.any(variance < 0):
            raise ValueError(f"{name}: a variance must be >= 0, got {variance.min()}")
    both = np.sqrt(c0) + np.sqrt(c1)
    return np.asarray((m0 - m1) ** 2 + ((c0 - c1) / np.where(both > 0, both, 1)) ** 2)


def _root(cov: Array, name: str) -> Array:
    """Return the symmetric square root of covariances, or raise ValueError where one is no covariance."""
    values, vectors = np.linalg.eigh(cov)
    slack = 1e-10 * np.abs(values).max(axis=-1, keepdims=True)
    if np.any(np.abs(cov - np.swapaxes(cov, -1, -2)) > slack[..., None]) or np.any(values < -slack):
        raise ValueError(f"{name}: a covariance must be symmetric without negative eigenvalues")
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2))
