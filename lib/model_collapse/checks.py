"""Self-checks: what a reader found is tested, and the answer does not stand on the page.

A test is a property that every right answer has, or the salted digest of a right number, rounded. The digest hides the
number from a glance, not from a program: there are only nine hundred numbers of three digits to a power of ten.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from model_collapse.arguments import integer


def check(answer: Any, tests: Mapping[str, Callable[[Any], Any] | str], salt: str = "", digits: int = 3) -> None:
    """Print the hint of the first test that an answer does not pass, or that it passes all of them.

    Parameters
    ----------
    answer : object
        What the reader found: a number, several (a list or a tuple gets to the tests as an array), a function.
        None: nothing yet.
    tests : mapping of str to (callable or str)
        Hints in the order of the tests. A callable gets the answer and returns whether it is right in this respect; if
        it raises, which is how a function of the reader's may fail too, the answer does not pass, and the error stands
        after the hint. A string holds the digests of the right numbers (`digest`), with spaces between.
    salt : str
        What the digests were made with: the label of the exercise.
    digits : int
        Significant digits that are compared by digest; an answer that is off by half a unit of its last one passes.

    Raises
    ------
    ValueError
        There is no test, or `digits` is no integer >= 1.

    Examples
    --------
    >>> tests = {"it is a probability": lambda p: 0 <= p <= 1, "of which event?": digest(0.3, "ex-coin")}
    >>> check(None, tests, "ex-coin")
    No answer yet: put yours in the place of None.
    >>> check(1.7, tests, "ex-coin")
    Not yet: it is a probability
    >>> check("0.3", tests, "ex-coin")
    Not yet: it is a probability (TypeError: '<=' not supported between instances of 'int' and 'str')
    >>> check(0.7, tests, "ex-coin")
    Not yet: of which event?
    >>> check(0.3, tests, "ex-coin")
    Right, by 2 tests.
    """
    integer(digits, "digits")
    if not tests:
        raise ValueError(f"tests = {tests!r}: must hold at least one test")
    if answer is None:
        print("No answer yet: put yours in the place of None.")
        return
    for hint, test in tests.items():
        try:
            passed, error = _passes(answer, test, salt, digits), ""
        except Exception as raised:  # by the reader's own code, or by an answer of another kind
            passed, error = False, f" ({type(raised).__name__}: {raised})"
        if not passed:
            print(f"Not yet: {hint}{error}")
            return
    print(f"Right, by {len(tests)} test{'s' if len(tests) > 1 else ''}.")


def digest(number: float, salt: str, digits: int = 3) -> str:
    """Return the digest of a right number, for a test of `check`.

    Parameters
    ----------
    number : float
        The right answer, finite. A right answer of 0 is passed by 0 alone.
    salt : str
        The label of the exercise.
    digits : int
        Significant digits that the number is rounded to.

    Raises
    ------
    ValueError
        The number is not finite, or `digits` is no integer >= 1.

    Examples
    --------
    >>> digest(0.3, "ex-coin"), digest(0.3004, "ex-coin"), digest(0.301, "ex-coin")
    ('f37c653f78a0', 'f37c653f78a0', 'eab9d0f280d4')
    """
    if not math.isfinite(number):
        raise ValueError(f"number = {number!r}: must be finite")
    rounded = f"{number + 0.0:.{integer(digits, 'digits') - 1}e}"  # + 0.0: -0.0 is 0
    return hashlib.sha256(f"{salt}:{rounded}".encode()).hexdigest()[:12]


def _passes(answer: Any, test: Callable[[Any], Any] | str, salt: str, digits: int) -> bool:
    given = np.array(answer) if type(answer) in (list, tuple) else answer  # a Family is a tuple too, and stays one
    if callable(test):
        return bool(test(given))
    numbers, right = [float(x) for x in np.ravel(given)], test.split()
    if len(numbers) != len(right):
        return False
    return all(r in _near(x, salt, digits) for x, r in zip(numbers, right, strict=True))


def _near(x: float, salt: str, digits: int) -> set[str]:
    """Digests of a number, and of those half a unit of its last digit away."""
    if not math.isfinite(x):
        return set()
    unit = 10.0 ** (math.floor(math.log10(abs(x))) - digits + 1) if x else 0.0
    return {digest(x + off * unit, salt, digits) for off in (-0.5, 0.0, 0.5)}
