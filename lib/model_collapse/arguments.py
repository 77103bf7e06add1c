"""Checks of arguments that modules share: one clear message that names argument, value and what is allowed."""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


def integer(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """Return the value as an int.

    Raises
    ------
    ValueError
        The value is no integer, or outside `least` to `most`.

    Examples
    --------
    >>> integer(np.int64(3), "M")
    3
    >>> integer(0, "M")
    Traceback (most recent call last):
    ValueError: M = 0: must be an integer >= 1
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole and least <= value and (most is None or value <= most):
        return int(value)
    allowed = f">= {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"{name} = {value!r:.80}: must be an integer {allowed}")


def real(value: Any, name: str) -> float:
    """Return the value as a float.

    Raises
    ------
    ValueError
        The value is no finite real number.

    Examples
    --------
    >>> real(np.float32(0.5), "gamma")
    0.5
    """
    if isinstance(value, int | float | np.integer | np.floating) and np.isfinite(float(value)):
        return float(value)
    raise ValueError(f"{name} = {value!r:.80}: must be a finite real number")


def reals(values: Any, name: str) -> NDArray[np.float64]:
    """Return real numbers as a float64 array of their shape; infinite ones and NaN are left to the caller.

    Raises
    ------
    ValueError
        Anything but real numbers in an array of one shape.

    Examples
    --------
    >>> reals([1, 0.5], "p")
    array([1. , 0.5])
    """
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        array = np.array("")
    if array.dtype.kind not in "iuf" or isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} = {values!r:.80}: must be real numbers, in an array of one shape")
    return array.astype(np.float64)


def generator(rng: Any) -> Generator:
    """Return the random generator.

    Raises
    ------
    ValueError
        It is no `numpy.random.Generator`.

    Examples
    --------
    >>> generator(np.random.default_rng(0)).integers(1)
    np.int64(0)
    """
    if isinstance(rng, Generator):
        return rng
    raise ValueError(f"rng = {rng!r:.80}: must be a numpy.random.Generator, such as numpy.random.default_rng(0)")
