r"""Gaussian mixtures as a model family: fitted by scikit-learn's EM algorithm, as in the authors' code.

The experiment: points in the plane, a mixture fitted to them, new points from the mixture, and so on. `family` and
`original` go through the process, `measure` says what becomes of a generation, `experiment` puts them together for
runs on disk. The laws themselves (`Theta`, `l2_squared` and more) stand in `gmm_law`, what is proved of the chain in
`gmm_theory`; all can be imported from here.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.random import Generator
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import ThreadpoolController

from model_collapse.drawn import Data
from model_collapse.gmm_law import (
    Array,
    Theta,
    l2_squared,
    label_agreement,
    log_density,
    log_l2_squared,
    log_likelihood,
    moments,
    sample,
)
from model_collapse.process import Family, Generation, Source
from model_collapse.runs import Arrays, Experiment
from model_collapse.settings import Gmm

__all__ = [
    "Theta",
    "experiment",
    "family",
    "fitted",
    "l2_squared",
    "label_agreement",
    "log_density",
    "log_l2_squared",
    "log_likelihood",
    "measure",
    "moments",
    "original",
    "original_theta",
    "parameters",
    "sample",
    "theta_of",
]

TAILS = (0.90, 0.97, 0.99)  # the authors print these percentiles (their "99th" is the 97th)
ENTRIES = ("weight", "x", "y", "xx", "xy", "yy")  # of a component in the plane
KEPT = 200  # points of each generation


def original_theta(settings: Gmm) -> Theta:
    """p_0: the law of the original points.

    Parameters
    ----------
    settings : Gmm
        ``blobs = 1``: the standard normal law in the plane, as coded. ``blobs = 2``: as described, two of them of
        equal weight, at (-2, 0) and (2, 0); the places are ours, no source gives them.

    Examples
    --------
    >>> original_theta(Gmm(blobs=2)).means.tolist()
    [[-2.0, 0.0], [2.0, 0.0]]
    """
    means = np.array([[0.0, 0.0]] if settings.blobs == 1 else [[-2.0, 0.0], [2.0, 0.0]])
    k = len(means)
    return Theta(np.full(k, 1 / k), means, np.tile(np.eye(2), (k, 1, 1)))


def original(settings: Gmm) -> Source:
    """p_0 as something that draws points.

    Examples
    --------
    >>> original(Gmm())(500, np.random.default_rng(0)).shape
    (500, 2)
    """
    theta = original_theta(settings)
    return lambda n, rng: sample(theta, n, rng)


def family(settings: Gmm, tick: Callable[[int], object] = lambda fits: None) -> Family:
    """Gaussian mixtures with full covariances, fitted by scikit-learn; theta is a `Theta`.

    A cold fit begins with k-means, as the authors' code does; a warm one with the predecessor's parameters (and
    generation 0 with k-means). A fit that stops at `max_iter` is told by `Theta.iterations`, not by a warning. All runs
    on one thread: the arrays are too small for more.

    Parameters
    ----------
    settings : Gmm
    tick : callable
        Told 1 after each fit: for progress bars.

    Returns
    -------
    Family
        For data of shape (n, d), float64.

    Raises
    ------
    ValueError
        When fitting, by scikit-learn: fewer points than components, or a covariance that is singular, which
        `reg_covar` > 0 prevents.

    Examples
    --------
    >>> mixtures = family(Gmm(n=500))
    >>> theta = mixtures.fit(original(Gmm())(500, np.random.default_rng(0)), np.random.default_rng(1), None)
    >>> theta.means.shape, 0 < theta.iterations < 2000
    ((2, 2), True)
    >>> mixtures.sample(theta, 10, np.random.default_rng(2)).shape
    (10, 2)
    """

    def fit(data: Data, rng: Generator, previous: Theta | None) -> Theta:
        theta = fitted(np.asarray(data), rng, settings, previous if settings.start == "warm" else None)
        tick(1)
        return theta

    return Family(fit, sample)


def fitted(points: Array, rng: Generator, settings: Gmm, start: Theta | None = None) -> Theta:
    """One fit, from k-means or from a given mixture.

    Parameters
    ----------
    points : array, shape (n, d)
    rng : numpy.random.Generator
        For the centres that k-means begins with.
    settings : Gmm
    start : Theta, optional
        Where EM begins; by default at the clusters of k-means.

    Examples
    --------
    >>> points = np.array([[0.0, 0], [1, 0], [0, 1], [9, 9], [8, 9], [9, 8]])
    >>> fitted(points, np.random.default_rng(0), Gmm(n=10)).weights.tolist()
    [0.5, 0.5]
    """
    begin: dict[str, Any] = {"random_state": np.random.RandomState(rng.bit_generator)}
    if start is not None:
        precisions = np.linalg.inv(start.covariances)
        symmetric = (precisions + np.swapaxes(precisions, 1, 2)) / 2
        begin |= {"weights_init": start.weights, "means_init": start.means, "precisions_init": symmetric}
    mixture = GaussianMixture(
        settings.components, tol=settings.tol, max_iter=settings.max_iter, reg_covar=settings.reg_covar, **begin
    )
    with (
        _libraries().limit(limits=1),
        config_context(assume_finite=True, skip_parameter_validation=True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    return Theta(mixture.weights_, mixture.means_, mixture.covariances_, mixture.n_iter_)


def measure(generation: Generation, first: Theta, settings: Gmm) -> dict[str, float]:
    """What became of one generation, in numbers.

    Parameters
    ----------
    generation : Generation
        Of a run in the plane.
    first : Theta
        The model of generation 0.
    settings : Gmm

    Returns
    -------
    dict of str to float
        ``l2_first``, ``l2_original``: squared L2 distance of the model to `first` (the authors' measure) and to p_0;
        ``trace``, ``log_det``: of the mixture's covariance (1 + 1 and 0 for one blob);
        ``thinnest``: the smallest eigenvalue of a component's covariance;
        ``moved``: distance of the mixture's mean from that of p_0;
        ``beyond_90``, ``beyond_97``, ``beyond_99``: share of the generation's data farther from every centre of p_0
        than 90%, 97%, 99% of a blob's points are;
        ``labels``: agreement of the model's labels with those of `first`, on the generation's data;
        ``iterations``: of EM.

    Examples
    --------
    >>> theta, rng = original_theta(Gmm()), np.random.default_rng(0)
    >>> row = measure(Generation(0, original(Gmm())(1000, rng), theta), theta, Gmm())
    >>> row["l2_first"], row["trace"], row["beyond_90"]
    (0.0, 2.0, 0.106)
    """
    theta, data, truth = generation.theta, np.asarray(generation.data), original_theta(settings)
    mean, covariance = moments(theta)
    near = np.linalg.norm(data[:, None] - truth.means, axis=-1).min(axis=1)
    radii = np.sqrt(-2 * np.log1p(-np.array(TAILS)))  # the squared radius of a normal point in the plane is chi2(2)
    beyond = {f"beyond_{100 * p:.0f}": float(np.mean(near > r)) for p, r in zip(TAILS, radii, strict=True)}
    return {
        "l2_first": l2_squared(theta, first),
        "l2_original": l2_squared(theta, truth),
        "trace": float(np.trace(covariance)),
        "log_det": float(np.linalg.slogdet(covariance)[1]),
        "thinnest": float(np.linalg.eigvalsh(theta.covariances).min()),
        "moved": float(np.linalg.norm(mean - moments(truth)[0])),
        **beyond,
        "labels": label_agreement(theta, first, data),
        "iterations": float(theta.iterations),
    }


def experiment(settings: Gmm, tick: Callable[[int], object] = lambda fits: None) -> Experiment:
    """The experiment as `model_collapse.runs` runs it.

    Of each generation `measure` and `parameters` are kept as numbers, and its first 200 points.

    Parameters
    ----------
    settings : Gmm
    tick : callable
        Told 1 after each fit.

    Examples
    --------
    >>> built = experiment(Gmm(n=50))
    >>> theta = original_theta(Gmm())
    >>> metrics, arrays = built.observe(Generation(0, np.zeros((50, 2)), theta), theta, np.random.default_rng(0))
    >>> metrics["x_1"], arrays["points"].shape, built.unpack(built.pack(theta)).means.tolist()
    (0.0, (50, 2), [[0.0, 0.0]])
    """

    def observe(generation: Generation, first: Theta, rng: Generator) -> tuple[dict[str, float], Arrays]:
        points = np.asarray(generation.data)[:KEPT].astype(np.float32)
        return measure(generation, first, settings) | parameters(generation.theta), {"points": points}

    return Experiment(family(settings, tick), original(settings), settings.n, observe, _pack, _unpack, 1, 20_000)


def parameters(theta: Theta) -> dict[str, float]:
    """A mixture in the plane as named numbers, six for each component; `theta_of` reads them back.

    Examples
    --------
    >>> parameters(original_theta(Gmm()))
    {'weight_1': 1.0, 'x_1': 0.0, 'y_1': 0.0, 'xx_1': 1.0, 'xy_1': 0.0, 'yy_1': 1.0}
    """
    named: dict[str, float] = {}
    for k, (weight, mean, covariance) in enumerate(zip(*theta[:3], strict=True), 1):
        values = (weight, *mean, covariance[0, 0], covariance[0, 1], covariance[1, 1])
        named |= {f"{name}_{k}": float(value) for name, value in zip(ENTRIES, values, strict=True)}
    return named


def theta_of(row: Any) -> Theta:
    """The mixture whose `parameters` stand in a row, a mapping that may hold other things too.

    Raises
    ------
    ValueError
        The row has no parameters of a mixture.

    Examples
    --------
    >>> theta_of(parameters(original_theta(Gmm(blobs=2))) | {"generation": 0}).weights.tolist()
    [0.5, 0.5]
    """
    count = sum(str(name).startswith("weight_") for name in row.keys())  # noqa: SIM118  # a row of a table, too
    if not count:
        raise ValueError(f"row: no parameters of a mixture among {list(row.keys())}")
    weight, x, y, xx, xy, yy = (np.array([float(row[f"{name}_{k + 1}"]) for k in range(count)]) for name in ENTRIES)
    covariances = np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)
    return Theta(weight, np.stack([x, y], -1), covariances, int(row.get("iterations", 0)))


def _pack(theta: Theta) -> Arrays:
    return {name: np.asarray(value) for name, value in theta._asdict().items()}


def _unpack(arrays: Arrays) -> Theta:
    return Theta(arrays["weights"], arrays["means"], arrays["covariances"], int(arrays["iterations"]))


@cache
def _libraries() -> ThreadpoolController:
    """The loaded libraries with threads of their own, found once: finding them takes longer than a fit."""
    return ThreadpoolController()
