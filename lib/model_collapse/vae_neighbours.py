"""Precision and recall of generated images by nearest neighbours (Kynkäänniemi et al., 2019).

How many generated images lie among real ones, and how many real ones among those generated: the first falls when images
look like nothing real, the second when kinds of real images are no longer written. Both are taken between features,
here the last hidden layer of a classifier.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model_collapse.arguments import integer

ROWS = 1_000  # of a matrix of distances at once: 40 MB against 10,000 points


class PrecisionRecall(NamedTuple):
    """Precision and recall of generated images: shares, from 0 to 1.

    Attributes
    ----------
    precision : float
        Share of generated images among real ones.
    recall : float
        Share of real images among generated ones.

    Examples
    --------
    >>> PrecisionRecall(precision=0.9, recall=0.4).recall
    0.4
    """

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """Precision and recall by nearest neighbours (Kynkäänniemi et al., 2019, equations 1 and 2).

    A point is *among* others if it lies in the ball around one of them that reaches to that one's k-th nearest
    neighbour of its own set. Two sets from one law do not reach 1: of points on a line 1 - 4^-k are among others
    (63 / 64 for k = 3), in more dimensions fewer. Both numbers move with the sizes of the sets: compare at equal sizes.

    Parameters
    ----------
    real, generated : Tensor of floats, shapes (m, d) and (n, d)
        Features; m, n > k.
    k : int
        Which neighbour sets the radius; 3 in the reference.

    Raises
    ------
    ValueError
        Features that are no such tensors, not finite, of two dtypes, devices or dimensions; too few of them for k.

    Examples
    --------
    >>> line = torch.arange(10.0)[:, None]
    >>> precision_recall(line, line[:5])
    PrecisionRecall(precision=1.0, recall=0.8)
    """
    for name, points in (("real", real), ("generated", generated)):
        if not isinstance(points, Tensor) or not points.is_floating_point() or points.ndim != 2:
            raise ValueError(f"{name} = {points!r:.80}: must be a tensor of floats of shape (n, d)")
        if not bool(points.isfinite().all()):
            raise ValueError(f"{name}: every number must be finite")
    if real.shape[1] != generated.shape[1] or real.dtype != generated.dtype or real.device != generated.device:
        kinds = " and ".join(f"{p.shape[1]} {p.dtype} on {p.device}" for p in (real, generated))
        raise ValueError(f"real, generated: features must be of one dimension, dtype and device, got {kinds}")
    fewest = min(len(real), len(generated))
    if fewest < 2:
        raise ValueError(f"real, generated: at least two points of each are needed, got {len(real)}, {len(generated)}")
    integer(k, "k", 1, fewest - 1)
    reach, written = _radii(real, k), torch.zeros(len(real), dtype=torch.bool, device=real.device)
    believable = 0
    for part, own_reach in zip(_rows(generated), _rows(_radii(generated, k)), strict=True):
        distances = _distances(part, real)
        believable += int((distances <= reach).any(1).sum())
        written |= (distances <= own_reach[:, None]).any(0)
    return PrecisionRecall(believable / len(generated), int(written.sum()) / len(real))


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """By differences, not by products: the same number both ways round, and 0 for equal points."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point (n, d) to its k-th nearest neighbour among the others, (n,)."""
    radii = []
    for i, part in enumerate(_rows(points)):
        distances = _distances(part, points)
        distances.diagonal(i * ROWS).fill_(torch.inf)  # no point is its own neighbour
        radii.append(distances.topk(k, largest=False).values[:, -1])
    return torch.cat(radii)


def _rows(points: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = points.split(ROWS)  # type: ignore[no-untyped-call]
    return parts
