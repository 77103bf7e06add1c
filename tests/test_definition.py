"""The chapter on the definition counts generations as the library does, and the ledger misses no chapter."""

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import jupytext
import numpy as np
import pytest

from execute import MYST, chapters
from model_collapse import reference
from model_collapse.process import Family, generations
from model_collapse.results import Claim, Claims, proof
from rules import NOT_JUDGING

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "book" / "text"
ROW = re.compile(
    r"^\| (\d+) \| \$\\mathcal D_(\d+)\$.*? \| \$\\mathcal D_(\d+)\$ \| (\d+) \| \$\\theta_(\d+)\$ \| (.*?) \|$", re.M
)


def test_the_table_of_indices_counts_as_the_process_does() -> None:
    """A model that knows only how many fits came before it, itself included, is the oracle for rounds."""
    counter = Family(lambda data, rng, previous: data[0] + 1, lambda theta, n, rng: np.full(n, theta))
    run = list(islice(generations(counter, np.zeros(2, dtype=int), np.random.default_rng(0)), 4))
    rows = ROW.findall((TEXT / "definition.md").read_text(encoding="utf8"))
    assert [[int(x) for x in row[:4]] for row in rows] == [[g.index, g.index, g.index, g.theta] for g in run]
    assert [int(row[4]) for row in rows] == [g.theta for g in run]  # the paper's theta_(i+1)
    assert [row[5] for row in rows] == ["not numbered", "gen 0", "gen 1", "gen 2"]  # trained on synthetic data: gen 0


def first_cell() -> str:
    """The code that reads the ledger."""
    cells = jupytext.reads((TEXT / "claims.md").read_text(encoding="utf8"), fmt=MYST).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def write(folder: Path, name: str, *claims: Claim) -> None:
    """Store claims in a notebook of one cell."""
    cell = {"outputs": [{"data": Claims(claims)._repr_mimebundle_()}] if claims else []}
    (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf8")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a notebook for each chapter that the ledger reads, one claim in each."""
    for name in judging():
        write(tmp_path, name, claim(name))
    monkeypatch.setattr(reference, "BOOK", tmp_path)
    return tmp_path


def judging() -> list[str]:
    return [chapter.name for chapter in chapters(ROOT) if chapter.name not in NOT_JUDGING]


def claim(name: str) -> Claim:
    return Claim(name, "paper", "place", "expected", "measured", proof(True))


def test_the_ledger_holds_every_chapter_that_judges(ledger: Path) -> None:
    names: dict[str, Any] = {}
    exec(first_cell(), names)
    assert {chapter: [c.name for c in stored] for chapter, stored in names["ledger"].items()} == {
        name: [name] for name in judging()
    }
    assert names["verdicts"].loc["proved"].tolist() == [1] * len(judging()) + [len(judging())]
    assert set(re.findall(r"claims\(\*ledger\[\"(\w+)\"\]\)", (TEXT / "claims.md").read_text(encoding="utf8"))) == set(
        judging()
    )


def test_the_ledger_refuses_a_chapter_that_is_missing(ledger: Path) -> None:
    (ledger / "discrete.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match=r"discrete\.ipynb"):
        exec(first_cell(), {})


def test_the_ledger_refuses_a_chapter_without_claims(ledger: Path) -> None:
    write(ledger, "gaussian")
    with pytest.raises(ValueError, match=r"no claims are stored in \['gaussian'\]"):
        exec(first_cell(), {})


def test_the_ledger_refuses_a_name_that_occurs_twice(ledger: Path) -> None:
    write(ledger, "gaussian", claim("discrete"))
    with pytest.raises(ValueError, match="each claim needs a name of its own"):
        exec(first_cell(), {})
