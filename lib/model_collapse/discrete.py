r"""The discrete chain: a distribution over K states, fitted exactly and sampled M points at a time.

With :math:`\mathcal F(p) = p` (the paper's 'Discrete distributions with exact approximation') the counts of a data set
are multinomial, :math:`n' \sim \mathrm{Mult}(M, n / M)`: the neutral Wright-Fisher model of population genetics, with M
points for M gene copies and states for alleles. Everything about it is offered here: the model family and the loss in
one generation (below), the exact chain (`discrete_theory`), heterozygosity with and without mixtures
(`discrete_mixing`) and a fast simulation (`discrete_simulation`).

Rounds n count sampling and fitting: n = 0 is p_0 itself, n = 1 the frequencies in the data of generation 0.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py

from model_collapse.arguments import integer
from model_collapse.discrete_mixing import expected_heterozygosity, mixture_heterozygosity, stationary_homozygosity
from model_collapse.discrete_simulation import simulate
from model_collapse.discrete_theory import (
    Floats,
    absorption_time_diffusion,
    absorption_times,
    absorption_times_three,
    checked_probabilities,
    expected_support,
    spectrum,
    survival,
    survival_branching,
    transition,
)
from model_collapse.process import Family

__all__ = [
    "absorption_time_diffusion",
    "absorption_times",
    "absorption_times_three",
    "expected_heterozygosity",
    "expected_support",
    "family",
    "mixture_heterozygosity",
    "simulate",
    "spectrum",
    "stationary_homozygosity",
    "survival",
    "survival_branching",
    "tail_loss",
    "transition",
]


def family(K: int) -> Family:
    """The unigram model: theta are the frequencies of K symbols, fitted by counting.

    Parameters
    ----------
    K : int
        Number of states; data are int64 symbols 0..K-1, shape (M,), theta is float64 of shape (K,).

    Raises
    ------
    ValueError
        K < 1; in `fit`, data that are not integers in 0..K-1.

    Examples
    --------
    >>> family(3).fit(np.array([0, 2, 2, 2]), np.random.default_rng(0), None)
    array([0.25, 0.  , 0.75])
    """
    K = integer(K, "K", 1)

    def fit(data: NDArray[Any], rng: Generator, previous: Any) -> Floats:
        if data.ndim != 1 or data.dtype.kind not in "iu" or data.min() < 0 or data.max() >= K:
            raise ValueError(f"data: symbols must be integers from 0 to K - 1 = {K - 1}, got {data!r:.80}")
        return np.bincount(data, minlength=K) / len(data)

    def sample(theta: Floats, n: int, rng: Generator) -> NDArray[np.int64]:
        return rng.choice(K, n, p=theta).astype(np.int64, copy=False)

    return Family(fit, sample)


def tail_loss(q: ArrayLike, M: int) -> Any:
    """Probability (1 - q)^M that a state of probability q is absent from one sample of M points.

    Parameters
    ----------
    q : float or array
        Probabilities of states.
    M : int
        Sample size.

    Returns
    -------
    float or ndarray of the shape of q

    Raises
    ------
    ValueError
        q outside [0, 1], M < 1.

    Examples
    --------
    >>> float(round(tail_loss(0.01, 100), 4))
    0.366
    """
    M, q = integer(M, "M", 1), checked_probabilities(q)
    return np.exp(xlog1py(M, -q))[()]
