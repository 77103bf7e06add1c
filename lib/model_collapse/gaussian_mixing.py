r"""What is left of a Gaussian when original or earlier data are kept: stationary values in closed form.

Notation as in `model_collapse.gaussian_theory`, for an original :math:`\mathcal N(0, 1)`. The results are derived in
the chapter on the Gaussian theorem.
"""

from typing import get_args

import numpy as np

from model_collapse.arguments import integer, real
from model_collapse.process import Shares


def fresh_fraction(M: int, gamma: float, shares: Shares = "fixed") -> tuple[float, float]:
    r"""Return the stationary means of :math:`\mu_n^2` and :math:`\sigma_n^2` where a share gamma stays original.

    Each data set holds M points: a share gamma of new draws from the original :math:`\mathcal N(0, 1)`, the rest from
    the model; mean and variance are fitted unbiasedly to all of them. With :math:`w = 1 - \gamma`: for fixed counts
    :math:`a = (1/M)/(1 - w^2 M/(M-1))`, :math:`v = 1 + wa\,M/(M-1)`; for multinomial ones
    :math:`a = (1/M)/(1 - w^2 - w/M)`, :math:`v = 1 + wa`. Infinite where the denominator is not positive.

    Parameters
    ----------
    M : int >= 2
    gamma : float in [0, 1]
        A process with fixed counts has an integer gamma M; in between the formula is its smooth continuation.
    shares : {"fixed", "multinomial"}

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> [round(value, 5) for value in fresh_fraction(50, 0.1)]
    [0.11529, 1.10588]
    >>> fresh_fraction(50, 0.005)
    (inf, inf)
    """
    size = integer(M, "M", 2)
    if not 0 <= real(gamma, "gamma") <= 1:
        raise ValueError(f"gamma = {gamma}: a share must lie between 0 and 1")
    if shares not in get_args(Shares):
        raise ValueError(f"shares = {shares!r}: allowed are {get_args(Shares)}")
    w, inflate = 1 - gamma, size / (size - 1) if shares == "fixed" else 1.0
    room = 1 - w**2 * inflate if shares == "fixed" else 1 - w**2 - w / size
    if room <= 0:
        return np.inf, np.inf
    return 1 / size / room, 1 + inflate * w / size / room


def accumulated_variance(M: int, rounds: int | None = None) -> float:
    r"""Return the expected variance, in units of the original's, when all data are kept: fits to everything so far.

    Each round adds M points drawn from the maximum-likelihood fit to all points before: :math:`\mathbb E \sigma_T^2
    = \prod_{t=1}^T (1 - \frac1{Mt^2}) \to \frac{\sin(\pi/\sqrt M)}{\pi/\sqrt M}`, and the expected square of the
    mean's error is what is missing to 1. The variant is the second one-dimensional experiment of the authors' code.

    Parameters
    ----------
    M : int >= 1
        Points in the original data, and added by each round.
    rounds : int >= 0, optional
        T, how many fits; by default the limit.

    Raises
    ------
    ValueError
        An argument out of range.

    Examples
    --------
    >>> round(accumulated_variance(10, 1), 6), round(accumulated_variance(10), 6)
    (0.9, 0.843436)
    """
    size = integer(M, "M")
    if rounds is None:
        return float(np.sinc(1 / np.sqrt(size)))
    t = np.arange(1, integer(rounds, "rounds", 0) + 1, dtype=float)
    return float(np.prod(1 - 1 / (size * t**2)))
