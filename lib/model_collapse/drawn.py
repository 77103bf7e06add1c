"""Data of a generation: arrays, data that are drawn when asked, and both joined.

A data set is an array whose axis 0 counts points, or an object that stands for points without holding them (`Drawn`):
the authors' VAE, for example, draws each training batch anew from the predecessor. Mixtures take points from data sets
(`taken`) and put them together (`joined`).
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Drawn(Protocol):
    """Data that are drawn when asked: as many points as `len` says, of a shape and dtype, none of them held.

    A family that samples such data must also fit them. Positions mean nothing but which source they belong to.

    Attributes
    ----------
    shape : tuple of int
        Number of points, then the shape of one.
    dtype : numpy.dtype
        Of the points.

    Examples
    --------
    >>> isinstance(np.zeros(3), Drawn), isinstance(Joined((np.zeros(3),)), Drawn)
    (False, True)
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points, then the shape of one."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the points."""

    def __len__(self) -> int: ...

    def at(self, indices: NDArray[np.intp]) -> Any:
        """The data set of the points at these positions."""


Data = NDArray[Any] | Drawn


@dataclass(frozen=True)
class Joined:
    """Data sets one after the other, of which at least one is drawn when asked.

    Attributes
    ----------
    parts : tuple of array or Drawn
        With points of one shape and dtype.

    Examples
    --------
    >>> both = Joined((np.zeros((2, 3)), np.ones((4, 3))))
    >>> both.shape, [len(part) for part in both.at(np.array([5, 0, 2])).parts]
    ((6, 3), [1, 2])
    """

    parts: tuple[Data, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points, then the shape of one."""
        return (len(self), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the points."""
        return self.parts[0].dtype

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def at(self, indices: NDArray[np.intp]) -> "Joined":
        """The data set of the points at these positions, in the order of the parts."""
        ends = np.cumsum([len(part) for part in self.parts])
        starts = ends - [len(part) for part in self.parts]
        chosen = (
            indices[(start <= indices) & (indices < end)] - start for start, end in zip(starts, ends, strict=True)
        )
        return Joined(tuple(taken(part, own) for part, own in zip(self.parts, chosen, strict=True)))


def taken(data: Data, indices: NDArray[np.intp]) -> Data:
    """The data set of the points at these positions.

    Examples
    --------
    >>> taken(np.array([10, 11, 12]), np.array([2, 0]))
    array([12, 10])
    """
    return data[indices] if isinstance(data, np.ndarray) else data.at(indices)


def joined(parts: list[Data]) -> Data:
    """The points of all data sets as one: an array if all are arrays; empty ones are left out.

    Examples
    --------
    >>> joined([np.zeros(2), np.zeros(0), np.ones(1)])
    array([0., 0., 1.])
    """
    filled: list[Data] = []
    for part in parts:
        filled += [p for p in (part.parts if isinstance(part, Joined) else (part,)) if len(p)]
    if not filled:
        return parts[0]
    arrays = [part for part in filled if isinstance(part, np.ndarray)]
    if len(arrays) == len(filled):
        return np.concatenate(arrays)
    return filled[0] if len(filled) == 1 else Joined(tuple(filled))


def checked(data: Data, name: str, n: int | None = None, like: Data | None = None) -> Data:
    """Return the data if they are a data set of n points like others.

    Parameters
    ----------
    data : array or Drawn
    name : str
        What the message calls them.
    n : int, optional
        How many points were asked for.
    like : array or Drawn, optional
        Data of the same shape and dtype of points.

    Raises
    ------
    ValueError
        No data set, an empty one, another number, shape or dtype, objects, NaN.

    Examples
    --------
    >>> checked(np.zeros(3), "original", 4)
    Traceback (most recent call last):
    ValueError: original: 4 points were asked for, got 3
    """
    if not isinstance(data, np.ndarray | Drawn) or len(data.shape) == 0 or len(data) == 0:
        raise ValueError(f"{name}: data must be an array with at least one point along axis 0, got {data!r:.80}")
    if n is not None and len(data) != n:
        raise ValueError(f"{name}: {n} points were asked for, got {len(data)}")
    if like is not None and (data.shape[1:] != like.shape[1:] or data.dtype != like.dtype):
        raise ValueError(
            f"{name}: points must be {like.dtype} of shape {like.shape[1:]} as in the original data, "
            f"got {data.dtype} of shape {data.shape[1:]}"
        )
    if data.dtype.hasobject:
        raise ValueError(f"{name}: data must be numbers or fixed-size symbols, got dtype {data.dtype}")
    if isinstance(data, np.ndarray) and np.issubdtype(data.dtype, np.inexact) and np.isnan(data).any():
        raise ValueError(f"{name}: data hold NaN, allowed are numbers")
    return data
