r"""The neutral Wright-Fisher model, exactly: one state of the discrete chain against all others.

From k of M points a round leads to Binomial(M, k/M) points, so that everything about one state follows from an
(M+1) x (M+1) matrix, and much about K states by adding over them; absorption times of three states follow from the same
equations on their triangle of counts. Approximations stand beside under other names. `model_collapse.discrete` offers
all of it; source: W. J. Ewens, *Mathematical Population Genetics* (2004), chapters 1, 3 and 5, proofs in the book.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from scipy.special import gammaln, xlog1py, xlogy
from scipy.stats import binom

from model_collapse.arguments import integer, reals

Floats = NDArray[np.float64]
Rounds = int | Sequence[int] | NDArray[np.integer]
LARGEST_MATRIX = 4_000  # M of the two-state matrix: 128 MB
LARGEST_THREE = 50  # M of the three-state chain: C(52, 2) = 1,326 states


def transition(M: int) -> Floats:
    """The two-state chain: T[k, j] = P(j of M points next | k of M now), a Binomial(M, k/M) in each row.

    Parameters
    ----------
    M : int
        Sample size, 1 to 4,000.

    Returns
    -------
    ndarray of float64, shape (M+1, M+1), read-only

    Raises
    ------
    ValueError
        M < 1, or too large for a matrix.

    Examples
    --------
    >>> transition(2)
    array([[1.  , 0.  , 0.  ],
           [0.25, 0.5 , 0.25],
           [0.  , 0.  , 1.  ]])
    """
    return _transition(integer(M, "M", 1, LARGEST_MATRIX))


def survival(q: ArrayLike, M: int, n: Rounds) -> Any:
    """Probability that a state of original frequency q still has a count above 0 after n rounds, exactly.

    A state against all others is a two-state chain whatever the others do, so this holds for any K.

    Parameters
    ----------
    q : float or array
        Original frequencies.
    M : int
        Sample size, at most 4,000 (above that see `survival_branching`). A round costs a product with the matrix of
        `transition`, at most some 37 M of them.
    n : int or 1-d sequence of int
        Rounds; 0 gives 1 (and 0 for q = 0, which was never there).

    Returns
    -------
    float or ndarray
        The shape of q, with one axis for n before it where n is a sequence.

    Raises
    ------
    ValueError
        q outside [0, 1], M out of range, n < 0.

    Examples
    --------
    >>> [round(float(1 - s), 4) for s in survival(0.01, 100, [1, 10, 100, 5000])]
    [0.366, 0.8386, 0.977, 0.99]
    """
    M, q, rounds = integer(M, "M", 1, LARGEST_MATRIX), checked_probabilities(q), checked_rounds(n)
    distinct, where = np.unique(q, return_inverse=True)
    present = np.append(0.0, np.ones(M))  # P(count above 0 after so many more rounds | count k)
    alive, done = {0: (distinct > 0).astype(float)}, 1
    for i in sorted({*rounds.tolist()} - {0}):
        while done < i:
            before, present, done = present, _transition(M) @ present, done + 1
            if np.abs(present - before).max() <= 1e-16:  # absorbed: nothing changes any more
                done = i
        alive[i] = _average_over_first_round(distinct, M, present)
    return per_round(np.array([alive[i][where].reshape(q.shape) for i in rounds.tolist()]), n)


def survival_branching(q: ArrayLike, M: int, n: Rounds) -> Any:
    """Approximate `survival` for large M: 1 - exp(-M q a_n), a_1 = 1, a_(n+1) = 1 - exp(-a_n).

    M a_n is the number of original points that still have descendants; a_n is the survival probability of a branching
    process with Poisson(1) offspring, about 2/n. Exact in the limit of large M at fixed M q and n.

    Parameters, errors and shapes are those of `survival`, but any M >= 1 is allowed.

    Examples
    --------
    >>> [round(float(s), 4) for s in survival_branching(0.001, 1000, [1, 100])]
    [0.6321, 0.0194]
    """
    M, q, rounds = integer(M, "M", 1), checked_probabilities(q), checked_rounds(n)
    founders = [np.inf]  # n = 0: every original point, of infinitely many
    for _ in range(rounds.max(initial=0)):
        founders.append(-np.expm1(-founders[-1]))
    share = np.array(founders)[rounds].reshape(-1, *(1,) * q.ndim)
    with np.errstate(invalid="ignore"):  # 0 * inf, for q = 0 at n = 0
        alive = np.where(q > 0, -np.expm1(-M * q * share), 0.0)
    return per_round(alive, n)


def expected_support(p: ArrayLike, M: int, n: Rounds) -> Any:
    """Expected number of states still present after n rounds: the sum of `survival` over the states, exact for any K.

    Parameters
    ----------
    p : array, shape (K,)
        Original distribution.
    M, n
        As in `survival`.

    Returns
    -------
    float, or ndarray of the length of n

    Raises
    ------
    ValueError
        p not a distribution, M out of range, n < 0.

    Examples
    --------
    >>> float(round(expected_support(np.full(1000, 0.001), 1000, 1), 2))
    632.3
    """
    frequencies, repeats = np.unique(checked_frequencies(p), return_counts=True)
    return (survival(frequencies, M, n) @ repeats)[()]


def spectrum(M: int) -> Floats:
    """The eigenvalues of the two-state chain: lambda_j = prod_(k<j) (1 - k/M), j = 0..M, descending.

    lambda_0 = lambda_1 = 1 belong to the two absorbing states, lambda_2 = 1 - 1/M to the slowest loss (Ewens 2004,
    section 3.2; proved in the book).

    Parameters
    ----------
    M : int
        Sample size.

    Returns
    -------
    ndarray of float64, shape (M+1,)

    Raises
    ------
    ValueError
        M < 1.

    Examples
    --------
    >>> spectrum(4)
    array([1.     , 1.     , 0.75   , 0.375  , 0.09375])
    """
    M = integer(M, "M", 1)
    return np.cumprod(np.append(1.0, 1 - np.arange(M) / M))


def absorption_times(M: int) -> Floats:
    """Expected rounds until one of two states is lost, by the starting count: the fundamental matrix, (I - Q)^-1 1.

    Parameters
    ----------
    M : int
        Sample size, at most 4,000.

    Returns
    -------
    ndarray of float64, shape (M+1,)
        Entry k: from k points of the first state; 0 at both ends.

    Raises
    ------
    ValueError
        M out of range.

    Examples
    --------
    >>> float(round(absorption_times(10)[5], 3))
    12.591
    """
    moving = transition(M)[1:-1, 1:-1]  # Q: from and to states where both are present
    times = np.zeros(M + 1)
    if M > 1:
        times[1:-1] = solve(np.eye(M - 1) - moving, np.ones(M - 1))
    return times


def absorption_times_three(M: int) -> Floats:
    """Expected rounds until one of three states is alone, by the starting counts, by the same linear equations.

    Parameters
    ----------
    M : int
        Sample size, at most 50 (the chain has (M+1)(M+2)/2 states).

    Returns
    -------
    ndarray of float64, shape (M+1, M+1)
        Entry i, j: from counts (i, j, M-i-j); NaN where i + j > M, 0 in the three corners.

    Raises
    ------
    ValueError
        M out of range.

    Examples
    --------
    >>> float(round(absorption_times_three(9)[3, 3], 4))
    13.2612
    """
    M = integer(M, "M", 1, LARGEST_THREE)
    states = np.array([(i, j, M - i - j) for i in range(M + 1) for j in range(M + 1 - i)])
    moving = states[states.max(axis=1) < M]
    log_choose = gammaln(M + 1) - gammaln(moving + 1).sum(axis=1)
    Q = np.exp(log_choose + xlogy(moving[None], moving[:, None] / M).sum(axis=2))
    times = np.where(np.add.outer(np.arange(M + 1), np.arange(M + 1)) > M, np.nan, 0.0)
    if len(moving):
        times[moving[:, 0], moving[:, 1]] = solve(np.eye(len(moving)) - Q, np.ones(len(moving)))
    return times


def absorption_time_diffusion(p: ArrayLike, M: int) -> float:
    """Approximate expected rounds until one state is left: -2 M sum (1 - p_i) ln(1 - p_i), for any K.

    The diffusion limit of large M; slightly too long at finite M (13.86 for 12.59 at M = 10 and two equal states).

    Parameters
    ----------
    p : array, shape (K,)
        Original distribution.
    M : int
        Sample size.

    Raises
    ------
    ValueError
        p not a distribution, M < 1.

    Examples
    --------
    >>> round(absorption_time_diffusion([0.5, 0.5], 10), 3)
    13.863
    """
    p, M = checked_frequencies(p), integer(M, "M", 1)
    return float(2 * M * -xlog1py(1 - p, -p).sum()) + 0.0  # no -0.0


@lru_cache(maxsize=4)
def _transition(M: int) -> Floats:
    counts = np.arange(M + 1)
    matrix = np.asarray(binom.pmf(counts, M, counts[:, None] / M))
    matrix.setflags(write=False)
    return matrix


def _average_over_first_round(q: Floats, M: int, value: Floats) -> Floats:
    """E value[X], X ~ Binomial(M, q), for each q; in parts, so that the memory stays small."""
    parts = np.array_split(q, 1 + q.size * M // 2**22)
    return np.concatenate([binom.pmf(np.arange(M + 1), M, part[:, None]) @ value for part in parts])


def checked_frequencies(p: ArrayLike) -> Floats:
    """The distribution p as a float64 array of shape (K,), or a ValueError."""
    p = reals(p, "p")
    if p.ndim != 1 or p.size == 0:
        raise ValueError(f"p has shape {p.shape}: a distribution is a 1-d array of at least one probability")
    if not (np.isfinite(p).all() and p.min() >= 0):
        raise ValueError(f"p holds {p[~(p >= 0) | np.isinf(p)][0]}: probabilities must be finite and >= 0")
    if abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"p sums to {p.sum():.12g}: probabilities must sum to 1")
    return p


def checked_rounds(n: Rounds) -> NDArray[np.int64]:
    """The rounds as a 1-d array, or a ValueError unless they are integers >= 0."""
    rounds = np.atleast_1d(np.asarray(n))
    if rounds.ndim == 1 and rounds.size and rounds.dtype.kind in "iu" and rounds.min() >= 0:
        return rounds.astype(np.int64)
    raise ValueError(f"n = {n!r}: rounds must be an integer >= 0, or a sequence of such")


def checked_probabilities(q: ArrayLike) -> Floats:
    """The probabilities as a float64 array, or a ValueError unless all lie in [0, 1]."""
    q = reals(q, "q")
    if not ((q >= 0) & (q <= 1)).all():
        raise ValueError(f"q = {q[~((q >= 0) & (q <= 1))].flat[0]}: probabilities must lie in [0, 1]")
    return q


def per_round(values: NDArray[Any], n: Rounds) -> Any:
    """Drop the leading axis of rounds where a single round was asked for."""
    return values[0] if np.ndim(n) == 0 else values
