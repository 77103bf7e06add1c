"""Time of a generation of the Gaussian mixture, against scikit-learn called as the authors call it; one thread each."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.random import Generator, RandomState
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from bench.timing import Row, seconds
from model_collapse import gmm
from model_collapse.gmm_law import Array, Theta
from model_collapse.settings import Gmm

N, GENERATIONS, ITERATIONS = 1_000, 20, 44


def rows() -> list[Row]:
    """Measure, all in one run: fits to the same points from the same random states, so of as many iterations."""
    ours, authors = seconds(each(family_turn("cold"))), seconds(each(authors_turn))
    warm, kmeans, floor = seconds(each(family_turn("warm"))), seconds(each(kmeans_alone)), seconds(each(arithmetic))
    sizes = f"N = {N:,}, {GENERATIONS} generations"
    return [
        Row("gmm: the family, against scikit-learn as the authors call it", rate(sizes, ours), ours, authors / ours),
        Row("gmm: scikit-learn's fit and draw", rate(sizes, authors), authors),
        Row("gmm: warm starts (another law: not for results)", rate(sizes, warm), warm, authors / warm),
        Row("gmm: k-means of the cold fits alone", sizes, kmeans, authors / kmeans),
        Row("gmm: EM's arithmetic alone, in numpy (the floor)", sizes, floor, authors / floor),
    ]


def rate(sizes: str, taken: float) -> str:
    """Sizes with generations per second."""
    return f"{sizes}: {GENERATIONS / taken:.0f}/s"


def each(turn: Callable[[Array, Generator], object]) -> Callable[[Generator], None]:
    """A run: one turn for each of some sets of original points."""

    def run(rng: Generator) -> None:
        for points, own in zip(rng.standard_normal((GENERATIONS, N, 2)), rng.spawn(GENERATIONS), strict=True):
            turn(points, own)

    return run


def family_turn(start: Literal["cold", "warm"]) -> Callable[[Array, Generator], object]:
    """Our way: fit and draw; a warm start begins at p_0, cut in two."""
    fit, sample, _ = gmm.family(Gmm(n=N, start=start))
    previous = Theta(np.full(2, 0.5), np.array([[-0.5, 0], [0.5, 0]]), np.tile(np.eye(2), (2, 1, 1)))
    return lambda points, rng: sample(fit(points, rng, previous), N, rng)


def authors_turn(points: Array, rng: Generator) -> None:
    """The authors' way: fit and draw."""
    state = RandomState(rng.bit_generator)
    GaussianMixture(2, covariance_type="full", tol=1e-5, max_iter=2000, random_state=state).fit(points).sample(N)


def kmeans_alone(points: Array, rng: Generator) -> None:
    """What begins a cold fit."""
    KMeans(2, n_init=1, random_state=RandomState(rng.bit_generator)).fit(points)


def arithmetic(points: Array, rng: Generator) -> None:
    """As many iterations of EM as the cold fits take on average, and nothing else."""
    theta = Theta(np.full(2, 0.5), points[:2], np.tile(np.eye(2), (2, 1, 1)))
    for _ in range(ITERATIONS):
        theta = em_step(points, theta)


def em_step(points: Array, theta: Theta) -> Theta:
    """One iteration of EM."""
    shares = np.empty((2, len(points)))
    for k in range(2):
        inverse = np.linalg.inv(theta.covariances[k])
        apart = points - theta.means[k]
        scale = theta.weights[k] * np.sqrt(inverse[0, 0] * inverse[1, 1] - inverse[0, 1] ** 2)
        shares[k] = np.exp(-0.5 * ((apart @ inverse) * apart).sum(axis=1)) * scale
    shares /= shares.sum(axis=0)
    sizes = shares.sum(axis=1)
    means = shares @ points / sizes[:, None]
    apart = points - means[:, None]
    covariances = (shares[:, None] * apart.swapaxes(1, 2)) @ apart / sizes[:, None, None] + 1e-6 * np.eye(2)
    return Theta(sizes / len(points), means, covariances)
