"""Compare the outputs of an executed notebook cell with the stored ones: everything, in order.

Text must be equal but for its numbers, which are compared within a tolerance (integers exactly); charts are compared
datum by datum from their Vega-Lite JSON, images as decoded pixels, other JSON value by value. Not compared: the picture
that a chart carries for viewers without Vega, and what a cell tagged `machine` shows, as long as it has the same form.

A cell widens its tolerance in its metadata, `compare: {rtol: 1.0e-4, reason: ...}`, optionally with `atol`, and with
`trained: true` where it summarises trainings. `refusals` says why a tolerance may not stand.
"""

import base64
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageSequence

RTOL, ATOL = 1e-9, 0.0  # no absolute tolerance: a probability of 1e-20 is compared like any other number
WIDEST, WIDEST_TRAINED = 0.05, 0.20
ZERO = 1e-9  # what an absolute tolerance may take for zero
SHOWN = 20  # differences of a cell that a failure lists; the rest is counted
NUMBER = re.compile(r"(?<![\w.#])[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w|\.\d)")
INTEGER = re.compile(r"[-+]?\d+")
CHART = re.compile(r"application/vnd\.vegalite\.v\d+\+json")
HASHED = re.compile(r"(?<![0-9A-Za-z])(data|view|param)[-_][0-9a-f]{16,}")  # names that altair makes from content
Output = dict[str, Any]


class Difference(NamedTuple):
    """One place where a new output is not the stored one."""

    place: str
    expected: object
    got: object

    @property
    def relative(self) -> float:
        """Distance relative to the larger of two numbers; infinite for anything else."""
        a, b = self.expected, self.got
        if not (isinstance(a, float) and isinstance(b, float)) or not math.isfinite(a - b):
            return math.inf
        return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


@dataclass(frozen=True)
class Tolerance:
    """How far a number may lie from the stored one: the larger of `rtol` times the larger of the two, and `atol`.

    Raises
    ------
    ValueError
        If it is wider than the default without a reason, negative, or wider than 5% (20% for summaries of training).
    """

    rtol: float = RTOL
    atol: float = ATOL
    reason: str = ""
    trained: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rtol <= self.widest:
            raise ValueError(f"compare: rtol = {self.rtol}; allowed is at most {self.widest}")
        if not 0 <= self.atol < math.inf:
            raise ValueError(f"compare: atol = {self.atol}; allowed are finite numbers from 0")
        if (self.rtol, self.atol) != (RTOL, ATOL) and not str(self.reason).strip():
            raise ValueError(f"compare: {self} has no reason")

    @classmethod
    def of(cls, metadata: dict[str, Any]) -> "Tolerance":
        """Read a cell's tolerance from its metadata."""
        given = dict(metadata.get("compare", {}))
        if unknown := given.keys() - cls.__dataclass_fields__.keys():
            raise ValueError(f"compare: {sorted(unknown)} unknown; allowed are {list(cls.__dataclass_fields__)}")
        for name in given.keys() & {"rtol", "atol"}:
            given[name] = float(given[name])  # YAML reads 1e-6 as a string
        return cls(**given)

    @property
    def widest(self) -> float:
        """The largest share of a number that may be tolerated."""
        return WIDEST_TRAINED if self.trained else WIDEST

    def __str__(self) -> str:
        return f"tolerance rtol {self.rtol:g}, atol {self.atol:g}" + (f" ({self.reason})" if self.reason else "")

    def accepts(self, a: float, b: float) -> bool:
        """Tell whether two numbers count as equal."""
        return math.isclose(a, b, rel_tol=self.rtol, abs_tol=self.atol) or (math.isnan(a) and math.isnan(b))


def failures(where: str, cell: dict[str, Any], got: list[Output]) -> list[str]:
    """Compare new outputs with a stored cell's; describe each failure, with place, expected, got and tolerance."""
    stored = cell["outputs"]
    if "machine" in cell["metadata"].get("tags", []):
        stored, got = form(stored), form(got)
    elif refused := refusals(cell):
        return [f"{where}: {reason}" for reason in refused]
    tolerance = Tolerance.of(cell["metadata"])
    found = list(differences(stored, got, tolerance))
    described = [
        f"{where}, {x.place}\n  expected: {shortened(x.expected)}\n  got:      {shortened(x.got)}\n  {tolerance}"
        for x in found[:SHOWN]
    ]
    return described + [f"{where}: {len(found) - SHOWN} more differences"] * (len(found) > SHOWN)


def shortened(value: object) -> str:
    """Write a value in at most 500 characters."""
    text = repr(value)
    return text if len(text) <= 500 else f"{text[:500]}... ({len(text) - 500} more characters)"


def form(outputs: list[Output]) -> list[Output]:
    """Return the outputs without what they say: their kinds and MIME types."""
    return [{"output_type": "form", "name": kind(x), "data": dict.fromkeys(x.get("data", ()), "")} for x in outputs]


def kind(output: Output) -> str:
    """Name what an output is: a result, a display, an error, or one of the two streams."""
    return output.get("name", output["output_type"])


def differences(expected: list[Output], got: list[Output], tolerance: Tolerance) -> Iterator[Difference]:
    """Yield every difference between two lists of outputs, in order."""
    for number, (a, b) in enumerate(itertools.zip_longest(expected, got)):
        place = f"output {number}"
        if a is None or b is None or kind(a) != kind(b):
            yield Difference(place, a and (kind(a), text_of(a)), b and (kind(b), text_of(b)))
        elif "data" in a:
            yield from in_forms(f"{place}, ", a["data"], b["data"], tolerance)
            yield from in_values(f"{place}, metadata", a.get("metadata", {}), b.get("metadata", {}), tolerance)
        else:
            yield from in_text(f"{place}, {kind(a)}", text_of(a), text_of(b), tolerance)


def text_of(output: Output) -> str:
    """Return what an output says."""
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}"
    return output["text"] if "text" in output else output["data"].get("text/plain", f"{list(output['data'])}")


def in_forms(place: str, expected: dict[str, Any], got: dict[str, Any], tolerance: Tolerance) -> Iterator[Difference]:
    """Compare the MIME types of two displays, then each type in its own way."""
    if sorted(expected) != sorted(got):
        yield Difference(f"{place}MIME types", sorted(expected), sorted(got))
    for mime in sorted(expected.keys() & got.keys()):
        a, b = expected[mime], got[mime]
        if CHART.fullmatch(mime):
            yield from in_values(f"{place}chart", renamed(a), renamed(b), tolerance)
        elif not mime.startswith("image/"):
            yield from in_values(f"{place}{mime}", a, b, tolerance)
        elif not is_chart(expected):
            yield from in_image(f"{place}{mime}", a, b, tolerance)


def is_chart(forms: Iterable[str]) -> bool:
    """Tell whether an output is a chart, so that its picture is only a companion."""
    return any(map(CHART.fullmatch, forms))


def in_values(place: str, expected: Any, got: Any, tolerance: Tolerance) -> Iterator[Difference]:
    """Compare two JSON values: floating-point numbers within tolerance, strings as text, the rest exactly."""
    if type(expected) is not type(got) and not (isinstance(expected, dict) and isinstance(got, dict)):
        yield Difference(place, expected, got)
    elif isinstance(expected, dict):
        if sorted(expected) != sorted(got):
            yield Difference(f"{place}, names", sorted(expected), sorted(got))
        for name in sorted(expected.keys() & got.keys()):
            yield from in_values(f"{place}.{name}", expected[name], got[name], tolerance)
    elif isinstance(expected, list):
        if len(expected) != len(got):
            yield Difference(f"{place}, number of entries", len(expected), len(got))
        for number, (a, b) in enumerate(zip(expected, got, strict=False)):
            yield from in_values(f"{place}[{number}]", a, b, tolerance)
    elif isinstance(expected, str):
        yield from in_text(place, expected, got, tolerance)
    elif not (tolerance.accepts(expected, got) if isinstance(expected, float) else expected == got):
        yield Difference(place, expected, got)


def in_text(place: str, expected: str, got: str, tolerance: Tolerance) -> Iterator[Difference]:
    """Compare two texts: words exactly, integers exactly, other numbers within tolerance.

    Where a number is printed in another width, runs of blanks count as one, as columns move with it.
    """
    pairs = list(itertools.zip_longest(NUMBER.findall(expected), NUMBER.findall(got), fillvalue=""))
    moved = any(len(a) != len(b) for a, b in pairs)
    words = [[re.sub(" +", " ", x) if moved else x for x in NUMBER.split(text)] for text in (expected, got)]
    if words[0] != words[1]:
        yield Difference(f"{place}, words", expected, got)
        return
    for number, (a, b) in enumerate(pairs):
        if INTEGER.fullmatch(a) or INTEGER.fullmatch(b):
            if a != b:
                yield Difference(f"{place}, number {number}", a, b)
        elif not tolerance.accepts(float(a), float(b)):
            yield Difference(f"{place}, number {number}", float(a), float(b))


def renamed(chart: dict[str, Any]) -> dict[str, Any]:
    """Name a chart's data sets, views and parameters by order of use: altair names them by a hash of their content."""
    text = json.dumps({key: value for key, value in chart.items() if key != "datasets"}, sort_keys=True)
    names = dict.fromkeys(match[0] for match in HASHED.finditer(text))
    ordered = {name: f"{re.split('[-_]', name)[0]} {number}" for number, name in enumerate(names)}
    datasets = {ordered.get(name, name): rows for name, rows in chart.get("datasets", {}).items()}
    return {**json.loads(HASHED.sub(lambda match: ordered[match[0]], text)), "datasets": datasets}


def in_image(place: str, expected: str, got: str, tolerance: Tolerance) -> Iterator[Difference]:
    """Compare two images as decoded pixels; drawings in SVG as text."""
    if place.endswith("svg+xml"):
        yield from in_text(place, expected, got, tolerance)
        return
    a, b = pixels(expected), pixels(got)
    if a.shape != b.shape:
        yield Difference(f"{place}, frames x height x width x channels", a.shape, b.shape)
    elif (changed := (a != b).any(axis=-1)).any():
        first = tuple(map(int, np.argwhere(changed)[0]))
        where = f"{changed.sum()} pixels, the first at frame, row, column {first}"
        yield Difference(f"{place}, {where}", a[first].tolist(), b[first].tolist())


def pixels(encoded: str) -> np.ndarray:
    """Decode an image: frames x height x width x RGBA."""
    frames = ImageSequence.Iterator(Image.open(io.BytesIO(base64.b64decode(encoded))))
    return np.stack([np.asarray(frame.convert("RGBA")) for frame in frames])


# Tolerances that may not stand


def refusals(cell: dict[str, Any]) -> list[str]:
    """Say why a cell's tolerance is refused: no reason, too wide, nothing that it applies to, or too blunt to fail.

    Too blunt: some number could move by three tolerances without a failure, or the absolute tolerance swallows more
    than the allowed share of a number that is shown.
    """
    own, is_machine = "compare" in cell["metadata"], "machine" in cell["metadata"].get("tags", [])
    if is_machine:
        return ["compare: a cell tagged machine is not compared"] * own
    try:
        tolerance = Tolerance.of(cell["metadata"])
    except (TypeError, ValueError) as error:
        return [str(error)]
    sizes, noticed = three_tolerances_away(cell["outputs"], tolerance)
    smallest = min((x for x in sizes if x > ZERO), default=ZERO)
    found = []
    if own and not sizes:
        found.append("compare: the cell shows no number but integers, which are compared exactly")
    elif tolerance.atol > tolerance.widest * smallest:
        found.append(f"compare: atol = {tolerance.atol:g} swallows more than {tolerance.widest:.0%} of {smallest:g}")
    if noticed < len(sizes):
        found.append(f"compare: {len(sizes) - noticed} numbers can move by three tolerances and pass")
    return found


def three_tolerances_away(outputs: list[Output], tolerance: Tolerance) -> tuple[list[float], int]:
    """Move every number but integers by three tolerances; return their sizes, and how many moves are noticed."""
    sizes: list[float] = []

    def move(x: float) -> float:
        sizes.append(abs(x))
        return x + (3 * max(tolerance.rtol * abs(x), tolerance.atol) or ZERO)

    shown = [without_pictures(output) for output in outputs]
    away = moved(shown, move)
    return sizes, len(list(differences(shown, away, tolerance)))


def without_pictures(output: Output) -> Output:
    """Return an output without its images, in which there are no numbers to move."""
    data = {mime: content for mime, content in output.get("data", {}).items() if not mime.startswith("image/")}
    return {**output, "data": data} if "data" in output else dict(output)


def moved(value: Any, move: Callable[[float], float]) -> Any:
    """Copy a JSON value, moving every number that is no integer, in text too."""
    if isinstance(value, dict):
        return {name: moved(entry, move) for name, entry in value.items()}
    if isinstance(value, list):
        return [moved(entry, move) for entry in value]
    if isinstance(value, float) and math.isfinite(value):
        return move(value)
    if isinstance(value, str):
        return NUMBER.sub(lambda x: x[0] if INTEGER.fullmatch(x[0]) else repr(move(float(x[0]))), value)
    return value
