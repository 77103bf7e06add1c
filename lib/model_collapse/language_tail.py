"""The distribution of perplexity over the blocks of a text: quantiles, tail, histogram.

The paper shows, of each generation's training text, the histogram of perplexities of single sequences under the model
of generation 0, and finds more of low perplexity and a longer tail. Its code stores losses of batches, so that its
sequences are single ones only where a batch is one block; here they always are.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_collapse.arguments import integer, reals

BINS = 10 ** (np.arange(41) / 10)  # edges of 40 bins of perplexity, from 1 to 10,000
BINS.flags.writeable = False
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
UPPER = 20  # the tail is the upper twentieth


def hill(losses: ArrayLike, k: int) -> float:
    r"""Hill's estimate of the tail index of perplexity, from the k blocks of highest loss (Hill, 1975).

    .. math:: \hat\xi = \frac1k \sum_{i = 1}^k \log\frac{P_{(i)}}{P_{(k + 1)}}
        = \frac1k \sum_{i = 1}^k L_{(i)} - L_{(k + 1)},

    where :math:`P_{(1)} \ge P_{(2)} \ge \dots` are the perplexities of blocks and L their logarithms, the losses. If
    the share of blocks with a perplexity above x falls as :math:`x^{-1 / \xi}` (some call :math:`\alpha = 1 / \xi` the
    tail index), the estimate is near :math:`\xi`, with a standard error of :math:`\xi / \sqrt k`. A larger number is a
    longer tail; 0 says that the k + 1 highest losses are equal.

    Raises
    ------
    ValueError
        Losses that are none; k outside 1 to n - 1.

    Examples
    --------
    >>> hill([0.0, 1.0, 2.0, 4.0], k=2)
    2.0
    """
    known = np.sort(checked_losses(losses, "losses"))
    if len(known) < 2:
        raise ValueError(f"losses: a tail needs at least 2, got {len(known)}")
    highest = integer(k, "k", 1, len(known) - 1)
    return float((known[-highest:] - known[-highest - 1]).mean())


def tail(losses: ArrayLike, reference_losses: ArrayLike) -> dict[str, float]:
    """The distribution of block perplexity in numbers, and what of it lies outside the range of a reference.

    Parameters
    ----------
    losses : array of float, shape (n,), n >= 2
        Of the blocks of a generation, under generation 0's model.
    reference_losses : array of float, shape (m,)
        Of real blocks, under the same model.

    Returns
    -------
    dict of str to float
        `q01`, `q05`, `q25`, `q50`, `q75`, `q95`, `q99`: quantiles of block perplexity, in hundredths;
        `index`: the tail index, by `hill` of the upper 5% (rounded up);
        `beyond`, `below`: shares of blocks above the reference's largest and below its smallest perplexity.

    Raises
    ------
    ValueError
        Losses that are none, or too few.

    Examples
    --------
    >>> row = tail(np.log([1, 2, 4, 8, 64]), np.log([2, 10]))
    >>> round(row["q50"], 6), row["beyond"], row["below"]
    (4.0, 0.2, 0.2)
    """
    known, real = checked_losses(losses, "losses"), checked_losses(reference_losses, "reference_losses")
    quantiles = np.quantile(np.exp(known), LEVELS).tolist()
    return {
        **{f"q{round(100 * p):02d}": value for p, value in zip(LEVELS, quantiles, strict=True)},
        "index": hill(known, -(-len(known) // UPPER)),
        "beyond": float((known > real.max()).mean()),
        "below": float((known < real.min()).mean()),
    }


def histogram(losses: ArrayLike) -> NDArray[np.float64]:
    """Shares of blocks by perplexity in 40 bins, ten to a factor of ten; their edges are `BINS`, 1 to 10,000.

    A bin holds its lower edge. The last one has no upper end: it takes all from 7,943 on.

    Raises
    ------
    ValueError
        Losses that are none.

    Examples
    --------
    >>> shares = histogram(np.log([1.1, 3, 3.1, 1e6]))
    >>> shares[0], shares[4], shares[39]
    (np.float64(0.25), np.float64(0.5), np.float64(0.25))
    """
    known = checked_losses(losses, "losses")
    bins = np.searchsorted(np.log(BINS[1:-1]), known, side="right")
    return np.bincount(bins, minlength=len(BINS) - 1) / len(known)


def checked_losses(losses: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return losses as float64 if they are such: at least one, of shape (n,), all finite and >= 0.

    Raises
    ------
    ValueError
        Anything else.

    Examples
    --------
    >>> checked_losses([1.0, float("nan")], "losses")
    Traceback (most recent call last):
    ValueError: losses = [1.0, nan]: must be at least one number, all finite and >= 0, of shape (n,)
    """
    known = reals(losses, name)
    if known.ndim != 1 or not known.size or not (np.isfinite(known) & (known >= 0)).all():
        raise ValueError(f"{name} = {losses!r:.80}: must be at least one number, all finite and >= 0, of shape (n,)")
    return known
