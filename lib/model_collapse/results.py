"""Claims of the paper and their verdicts, and the ledger that gathers them from executed notebooks.

A claim is stored in a notebook as an output of its own type beside a readable table, so that it is compared like every
other output and can be read back without running anything. A verdict is computed: by a proof whose formula the numbers
must not contradict, or by an interval that lies on one side of a threshold or not.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

MIME = "application/vnd.model-collapse.claim+json"
Verdict = Literal[
    "proved",
    "proved with a correction",
    "false as stated",
    "reproduced",
    "reproduced with a correction",
    "not reproduced",
    "seen in the tiny model",
    "not seen in the tiny model",
    "seen in SmolLM2",
    "not seen in SmolLM2",
    "undecided",
    "not run here",
]
BY_PROOF: dict[str, Verdict] = {
    "true": "proved",
    "corrected": "proved with a correction",
    "false": "false as stated",
}
OF_RUNS = ("reproduced", "not reproduced", "undecided", "not run here")
SEEN_IN = {"tiny": "the tiny model", "smollm2": "SmolLM2", "facebook/opt-125m": None}  # None: the paper's own


@dataclass(frozen=True)
class Claim:
    """One claim of the paper (or a correction of it), what was expected and measured, and the verdict.

    Attributes
    ----------
    name : str
        Identifier, unique in the book, such as ``"discrete-absorption"``.
    paper, place : str
        The claim in our words, and where it stands: section, figure or theorem.
    expected, measured : str
        What theory or the paper gives, and what this run gave. Markdown and mathematics allowed.
    verdict : Verdict
        From `proof`, `agreement` or `beyond`; of another model than the paper's, through `seen`.

    Raises
    ------
    ValueError
        An empty field, or a verdict that is none of `Verdict`.

    Examples
    --------
    >>> Claim("coin", "Coins are fair.", "section 2", "0.5", "0.51", agreement(0.4)).verdict
    'reproduced'
    """

    name: str
    paper: str
    place: str
    expected: str
    measured: str
    verdict: Verdict

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if not value:
                raise ValueError(f"{field} = {value!r}: a claim needs every field")
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"verdict = {self.verdict!r}: allowed are {get_args(Verdict)}")


def mean_and_error(samples: ArrayLike) -> tuple[Any, Any]:
    """Mean over replicates, and its standard error.

    Parameters
    ----------
    samples : array, shape (..., R)
        R >= 2 independent replicates along the last axis.

    Returns
    -------
    mean, error : float or ndarray of the leading shape

    Raises
    ------
    ValueError
        Fewer than two replicates.

    Examples
    --------
    >>> mean_and_error([1.0, 2.0, 3.0])
    (np.float64(2.0), np.float64(0.5773502691896258))
    """
    values = np.asarray(samples)
    if values.ndim == 0 or values.shape[-1] < 2:
        raise ValueError(f"samples: shape {values.shape}; at least two replicates along the last axis are needed")
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def proof(agrees: bool, stated: Literal["true", "corrected", "false"] = "true") -> Verdict:
    """Verdict of a claim that a proof settles: as stated, with a correction, or false as stated.

    Parameters
    ----------
    agrees : bool
        Whether the computation agrees with what is proved.
    stated : {"true", "corrected", "false"}
        What the proof says of the claim as it is worded.

    Raises
    ------
    ValueError
        Another value of an argument; or the computation contradicts the proof: then one of the two is wrong.

    Examples
    --------
    >>> proof(abs(2**0.5 - 1.41421) < 1e-5, stated="corrected")
    'proved with a correction'
    """
    if stated not in BY_PROOF:
        raise ValueError(f"stated = {stated!r}: allowed are {tuple(BY_PROOF)}")
    if not isinstance(agrees, bool | np.bool_):
        raise ValueError(f"agrees = {agrees!r}: allowed are True and False")
    if not agrees:
        raise ValueError("agrees = False: the computation contradicts the proof; allowed is True")
    return BY_PROOF[stated]


def agreement(z: ArrayLike, limit: float = 4.0, *, corrected: bool = False) -> Verdict:
    """Verdict of a claim that a quantity has a value: every z-score of measured against claimed is within the limit.

    Parameters
    ----------
    z : float or array
        Differences in standard errors.
    limit : float
        What still counts as agreement.
    corrected : bool
        Whether the value is that of a corrected form of the claim.

    Raises
    ------
    ValueError
        No z-score, or one that is NaN.

    Examples
    --------
    >>> agreement([0.3, -1.2]), agreement([0.3, -7.0])
    ('reproduced', 'not reproduced')
    """
    scores = np.abs(np.asarray(z, dtype=float))
    if np.isnan(scores).any() or scores.size == 0:
        raise ValueError(f"z = {scores}: allowed are numbers, at least one")
    if (scores >= limit).any():
        return "not reproduced"
    return "reproduced with a correction" if corrected else "reproduced"


def beyond(low: float, high: float, threshold: float, side: Literal["above", "below"] = "above") -> Verdict:
    """Verdict of a claim that a quantity lies above (below) a threshold, from an interval for it.

    Parameters
    ----------
    low, high : float
        Interval for the quantity; undecided if the threshold lies in it.
    threshold : float
        In the units of the interval.
    side : {"above", "below"}
        Where the claim puts the quantity.

    Raises
    ------
    ValueError
        Another side, low > high, or NaN.

    Examples
    --------
    >>> beyond(1.2, 1.4, 1.0), beyond(0.9, 1.4, 1.0), beyond(0.9, 1.4, 2.0)
    ('reproduced', 'undecided', 'not reproduced')
    """
    if side not in ("above", "below"):
        raise ValueError(f"side = {side!r}: allowed are 'above', 'below'")
    if not low <= high or np.isnan(threshold):
        raise ValueError(f"low = {low}, high = {high}, threshold = {threshold}: needed are low <= high and a number")
    if low <= threshold <= high:
        return "undecided"
    return "reproduced" if (low > threshold) == (side == "above") else "not reproduced"


def seen(verdict: Verdict, model: str) -> Verdict:
    """The verdict of runs of a model: of another than the paper's it is whether the effect was seen in it.

    Parameters
    ----------
    verdict : Verdict
        From `agreement`, `beyond` or `seeds.judged`.
    model : {"tiny", "smollm2", "facebook/opt-125m"}
        As in `settings.Lm`. The paper's own model can reproduce a claim; the others cannot.

    Raises
    ------
    ValueError
        Another model, or the verdict of a proof.

    Examples
    --------
    >>> seen(beyond(1.2, 1.4, 1.0), "smollm2"), seen(beyond(1.2, 1.4, 1.0), "facebook/opt-125m")
    ('seen in SmolLM2', 'reproduced')
    """
    if model not in SEEN_IN:
        raise ValueError(f"model = {model!r}: allowed are {tuple(SEEN_IN)}")
    if verdict not in OF_RUNS:
        raise ValueError(f"verdict = {verdict!r}: allowed are {OF_RUNS}")
    if SEEN_IN[model] is None or verdict in ("undecided", "not run here"):
        return verdict
    return cast(Verdict, f"{'seen' if verdict == 'reproduced' else 'not seen'} in {SEEN_IN[model]}")


class Claims:
    """A table of claims, as a notebook shows and stores it (see `claims`).

    Attributes
    ----------
    rows : list of Claim

    Examples
    --------
    >>> Claims([Claim("coin", "Coins are fair.", "section 2", "0.5", "0.51", "reproduced")]).rows[0].place
    'section 2'
    """

    def __init__(self, rows: Iterable[Claim]) -> None:
        self.rows = list(rows)

    def __repr__(self) -> str:
        return "\n".join(f"{c.name}: {c.verdict}" for c in self.rows)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        lines = ["| claim | where | expected | measured | verdict |", "|---|---|---|---|---|"]
        for c in self.rows:
            cells = (c.paper, c.place, c.expected, c.measured, f"**{c.verdict}**")
            lines.append("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
        return {
            MIME: {"claims": [asdict(c) for c in self.rows]},
            "text/markdown": "\n".join(lines),
            "text/plain": repr(self),
        }


def claims(*rows: Claim) -> Claims:
    r"""Show claims as a table and store them in the notebook.

    Parameters
    ----------
    *rows : Claim
        In the order of the table.

    Returns
    -------
    Claims
        Displays as a table; its JSON form is what `stored_claims` reads back.

    Raises
    ------
    ValueError
        Two claims of one name, or a ``|`` in a text (it would end the table's cell; write ``\lvert`` in mathematics).

    Examples
    --------
    >>> claims(Claim("coin", "Coins are fair.", "section 2", "0.5", "0.51", agreement(0.4)))
    coin: reproduced
    """
    names = [c.name for c in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"names = {names}: each claim needs a name of its own")
    for c in rows:
        for field, text in asdict(c).items():
            if "|" in text:
                raise ValueError(f"{field} of {c.name} = {text!r}: allowed is text without '|'")
    return Claims(rows)


def stored_claims(notebook: str | Path) -> list[Claim]:
    """Read the claims stored in an executed notebook, in order.

    Parameters
    ----------
    notebook : path
        An .ipynb file.

    Raises
    ------
    ValueError
        The file is no notebook, or a stored claim has fields that `Claim` has not.

    Examples
    --------
    >>> import tempfile
    >>> claim = Claim("coin", "Coins are fair.", "section 2", "0.5", "0.51", "reproduced")
    >>> cell = {"outputs": [{"data": claims(claim)._repr_mimebundle_()}]}
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".ipynb") as notebook:
    ...     print(json.dumps({"cells": [cell]}), file=notebook, flush=True)
    ...     stored_claims(notebook.name) == [claim]
    True
    """
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf8"))["cells"]
        outputs = [o.get("data", {}) for cell in cells for o in cell.get("outputs", [])]
        return [Claim(**row) for data in outputs if MIME in data for row in data[MIME]["claims"]]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"notebook = {notebook}: not an executed notebook with claims of this library ({error})"
        ) from error
