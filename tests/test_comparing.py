"""The comparison of outputs bites: mutants of a small notebook, run through nbval as the chapters are."""

import base64
import io
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import comparing
from comparing import Tolerance, differences, refusals

ROOT = Path(__file__).resolve().parent.parent
SETUP = """\
import base64, io
import pandas as pd
from IPython.display import display
from PIL import Image
picture = io.BytesIO()
Image.new("RGB", (3, 2), "teal").save(picture, "PNG")
png = base64.b64encode(picture.getvalue()).decode()
name = "data-0123456789abcdef0123456789abcdef"
rows = [{"n": n, "H": 0.75**n, "kind": "exact"} for n in range(3)]
spec = {"mark": "line", "data": {"name": name}, "datasets": {name: rows},
        "encoding": {"x": {"field": "n", "title": "round n"}, "y": {"field": "H"}}}
chart = {"application/vnd.vegalite.v6+json": spec, "image/svg+xml": "<svg/>", "text/plain": "Chart"}
claims = {"claims": [{"name": "absorption", "measured": "0.4321 of 20", "verdict": "proved"}]}"""
CELLS = {
    "text": "print('H =', 0.123456789012345, 'after', 7, 'rounds')",
    "tail": "print(2.5e-20)",
    "two": "display('one'); display('two')",
    "table": "pd.DataFrame({'word': ['the', 'of'], 'share': [0.0625, 0.03125]})",
    "chart": "display(chart, raw=True)",
    "image": "display({'image/png': png}, raw=True)",
    "claims": "display({'application/vnd.model-collapse.claim+json': claims}, raw=True)",
    "quiet": "quiet = 1",
    "warning": "import warnings; print(1); warnings.warn('careful', stacklevel=1)",
    "exception": "1 / 0",
    "machine": "print('seconds', 0.5)",
}
VEGA, CLAIM = "application/vnd.vegalite.v6+json", "application/vnd.model-collapse.claim+json"
Mutation = Callable[[Any], object]


def spec(cell: Any) -> dict[str, Any]:
    return cell.outputs[0].data[VEGA]


def rows(cell: Any) -> list[dict[str, Any]]:
    return next(iter(spec(cell)["datasets"].values()))


def rewrite(old: str, new: str, mime: str = "") -> Mutation:
    """Replace a piece of an output's text, which must be there."""

    def mutate(cell: Any) -> None:
        holder, key = (cell.outputs[0].data, mime) if mime else (cell.outputs[0], "text")
        assert old in holder[key]
        holder[key] = holder[key].replace(old, new)

    return mutate


def repaint(cell: Any) -> None:
    """Change one pixel by one step."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(cell.outputs[0].data["image/png"])))).copy()
    picture[1, 2, 0] += 1
    cell.outputs[0].data["image/png"] = encoded(picture)


def encoded(picture: np.ndarray, **options: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", **options)
    return base64.b64encode(file.getvalue()).decode()


def recompress(cell: Any) -> None:
    """Store the same pixels in other bytes."""
    old = cell.outputs[0].data["image/png"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(old))))
    cell.outputs[0].data["image/png"] = encoded(picture, compress_level=0)
    assert cell.outputs[0].data["image/png"] != old


def rename_data(cell: Any) -> None:
    name = "data-ffffffffffffffffffffffffffffffff"
    spec(cell)["datasets"] = {name: rows(cell)}
    spec(cell)["data"]["name"] = name


def cut_out(cell: Any) -> None:
    """Remove the outputs together with the execution count."""
    cell.outputs, cell.execution_count = [], None


def add_output(cell: Any) -> None:
    cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text="more"))


def drop_warning(cell: Any) -> None:
    """Store what the cell gave before the warning appeared."""
    assert [x.name for x in cell.outputs] == ["stdout", "stderr"]
    del cell.outputs[1]


def widen(**compare: Any) -> Mutation:
    return lambda cell: cell.metadata.update(compare=compare)


def both(*mutations: Mutation) -> Mutation:
    return lambda cell: [mutate(cell) for mutate in mutations]


SWITCHES = ["nbval-skip", "nbval-ignore-output", "raises-exception"]
# name: (cell, what is done to what is stored, what the failure says; None where it must pass)
MUTANTS: dict[str, tuple[str, Mutation, str | None]] = {
    "changed number": ("text", rewrite("0.123456789", "0.123456787"), "output 0, stdout, number 0"),
    "changed integer": ("text", rewrite("7", "8"), "expected: '8'"),
    "changed word": ("text", rewrite("rounds", "round"), "words"),
    "changed tiny number": ("tail", rewrite("2.5e-20", "2.6e-20"), "expected: 2.6e-20"),
    "swapped order": ("two", lambda c: c.outputs.reverse(), "output 1"),
    "missing output": ("text", lambda c: c.outputs.clear(), "expected: None"),
    "one of two missing": ("two", lambda c: c.outputs.pop(), "output 1"),
    "missing output and count": ("text", cut_out, "no execution count"),
    "additional output": ("quiet", add_output, "got:      None"),
    "new warning": ("warning", drop_warning, "careful"),
    "exception": ("exception", lambda c: c.outputs.clear(), "ZeroDivisionError"),
    "stored exception": ("exception", lambda c: c, "ZeroDivisionError"),
    "changed table cell": ("table", rewrite("0.03125", "0.03126", "text/html"), "text/html, number"),
    "changed table word": ("table", rewrite("of", "off", "text/html"), "text/html, words"),
    "changed chart point": ("chart", lambda c: rows(c)[1].update(H=0.7500001), "datasets.data 0[1].H"),
    "changed whole number": ("chart", lambda c: rows(c)[1].update(n=3), "datasets.data 0[1].n"),
    "number for whole number": ("chart", lambda c: rows(c)[1].update(n=1.0), "datasets.data 0[1].n"),
    "missing chart point": ("chart", lambda c: rows(c).pop(), "number of entries"),
    "swapped chart points": ("chart", lambda c: rows(c).reverse(), "datasets.data 0[0].H"),
    "changed category": ("chart", lambda c: rows(c)[0].update(kind="simulation"), "datasets.data 0[0].kind"),
    "changed mark": ("chart", lambda c: spec(c).update(mark="bar"), "chart.mark"),
    "changed axis title": ("chart", lambda c: spec(c)["encoding"]["x"].update(title="year"), "encoding.x.title"),
    "missing MIME type": ("chart", lambda c: c.outputs[0].data.pop("image/svg+xml"), "MIME types"),
    "changed verdict": (
        "claims",
        lambda c: c.outputs[0].data[CLAIM]["claims"][0].update(verdict="undecided"),
        "claims[0].verdict",
    ),
    "changed measurement": (
        "claims",
        lambda c: c.outputs[0].data[CLAIM]["claims"][0].update(measured="0.4322 of 20"),
        "claims[0].measured, number 0",
    ),
    "one pixel": ("image", repaint, "1 pixels, the first at frame, row, column (0, 1, 2)"),
    "missing machine output": ("machine", lambda c: c.outputs.clear(), "expected: None"),
    "switched off by tags": (
        "text",
        both(rewrite("0.123456789", "0.2"), lambda c: c.metadata.update(tags=SWITCHES)),
        "number 0",
    ),
    "beyond a wider tolerance": (
        "text",
        both(rewrite("0.1234", "0.1236"), widen(rtol="1e-3", reason="trained")),
        "tolerance rtol 0.001, atol 0 (trained)",
    ),
    "too wide": ("text", widen(rtol=0.06, reason="trained"), "allowed is at most 0.05"),
    "no reason": ("text", widen(rtol=1e-6), "has no reason"),
    "unchanged chart": ("chart", lambda c: c, None),
    "unchanged table": ("table", lambda c: c, None),
    "unchanged claims": ("claims", lambda c: c, None),
    "unchanged order": ("two", lambda c: c, None),
    "within tolerance": ("text", rewrite("0.123456789012345", "0.123456789012399"), None),
    "within a wider tolerance": (
        "text",
        both(rewrite("0.1234", "0.1235"), widen(rtol=1e-3, reason="trained")),
        None,
    ),
    "chart within tolerance": ("chart", lambda c: rows(c)[2].update(H=0.5625 * (1 + 1e-12)), None),
    "renamed data": ("chart", rename_data, None),
    "other companion": ("chart", lambda c: c.outputs[0].data.update({"image/svg+xml": "<svg></svg>"}), None),
    "same pixels": ("image", recompress, None),
    "other machine": ("machine", rewrite("0.5", "3.5"), None),
}


@pytest.fixture(scope="module")
def executed() -> dict[str, Any]:
    """Each cell as it is stored after execution."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(x) for x in (SETUP, *CELLS.values())])
    NotebookClient(notebook, allow_errors=True, record_timing=False).execute()
    cells = dict(zip(CELLS, notebook.cells[1:], strict=True))
    cells["machine"].metadata["tags"] = ["machine"]
    return {"setup": notebook.cells[0], **cells}


@pytest.fixture(scope="module")
def failures(executed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What nbval says of each mutant, all of them cells of one notebook; empty where it passes."""
    folder = tmp_path_factory.mktemp("mutants")
    cells = [nbformat.from_dict(executed["setup"])]
    for name, mutate, _ in MUTANTS.values():
        cells.append(nbformat.from_dict(executed[name]))
        mutate(cells[-1])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "mutants.ipynb")
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests'} {ROOT / 'tools'}\n")
    options = ["--nbval", "--nbval-current-env", "--junitxml=report.xml", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "mutants.ipynb"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    cases = list(ET.parse(folder / "report.xml").getroot().iter("testcase"))
    assert len(cases) == len(cells), done.stdout + done.stderr
    found = ["".join(part.text or "" for part in case) for case in cases]
    assert found[0] == ""
    return dict(zip(MUTANTS, found[1:], strict=True))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_nbval_finds_the_mutant(mutant: str, failures: dict[str, str]) -> None:
    said = MUTANTS[mutant][2]
    if said is None:
        assert failures[mutant] == ""
    else:
        assert said in failures[mutant]


def test_a_failure_names_notebook_cell_output_expected_got_and_tolerance(failures: dict[str, str]) -> None:
    for said in ("mutants.ipynb, code cell 1 (cell-1), output 0", "expected: 0.123456787", "got:      0.12345678901"):
        assert said in failures["changed number"]
    assert "tolerance rtol 1e-09, atol 0" in failures["changed number"]


def cell_showing(text: str, **compare: Any) -> dict[str, Any]:
    output = {"output_type": "stream", "name": "stdout", "text": text}
    return {"metadata": {"compare": compare}, "outputs": [output]}


@pytest.mark.parametrize(
    ("text", "compare", "said"),
    [
        ("loss 0.25", {"rtol": 1e-3}, "no reason"),
        ("loss 0.25", {"rtol": 0.051, "reason": "drift"}, "at most 0.05"),
        ("loss 0.25", {"rtol": 0.21, "reason": "drift", "trained": True}, "at most 0.2"),
        ("loss 0.25", {"rtol": float("nan"), "reason": "drift"}, "at most 0.05"),
        ("loss 0.25", {"rtol": -1e-3, "reason": "drift"}, "at most 0.05"),
        ("loss 0.25", {"atol": float("inf"), "reason": "drift"}, "finite"),
        ("loss 0.25", {"atol": 0.05, "reason": "drift"}, "swallows"),
        ("loss 250.5 0.001", {"atol": 1.0, "reason": "drift"}, "swallows"),
        ("loss 0.25", {"rtoll": 0.01, "reason": "drift"}, "unknown"),
        ("loss 0.25", {"rtol": "wide", "reason": "drift"}, "could not convert"),
        ("7 words", {"rtol": 0.01, "reason": "drift"}, "no number"),
        ("", {"rtol": 0.01, "reason": "drift"}, "no number"),
        ("loss 0.25", {"rtol": 0.01, "reason": "drift"}, None),
        ("loss 0.25", {"rtol": "1e-6", "reason": "drift"}, None),
        ("loss 0.25", {"rtol": 0.19, "reason": "drift", "trained": True}, None),
        ("error 3e-17 of 0.5", {"atol": 1e-12, "reason": "rounding"}, None),
    ],
)
def test_a_tolerance_that_may_not_stand_is_refused(text: str, compare: dict[str, Any], said: str | None) -> None:
    refused = "".join(refusals(cell_showing(text, **compare)))
    assert said in refused if said else refused == ""


def test_machine_cells_have_no_tolerance() -> None:
    cell = cell_showing("0.5", rtol=1e-6, reason="drift")
    cell["metadata"]["tags"] = ["machine"]
    assert refusals(cell)


def test_columns_that_move_with_a_number_are_not_words() -> None:
    def stream(text: str) -> list[dict[str, Any]]:
        return [{"output_type": "stream", "name": "stdout", "text": text}]

    tolerance = Tolerance(rtol=1e-3, reason="drift")
    assert not list(differences(stream("a   9.9999 b"), stream("a  10.0000 b"), tolerance))
    assert list(differences(stream("a  9.9999 b"), stream("a   9.9999 b"), tolerance))


def test_a_colour_is_no_number() -> None:
    assert list(comparing.in_text("colour", "#009E73", "#090E72", Tolerance()))
    assert not list(comparing.in_text("colour", "#009E73", "#009E73", Tolerance()))
