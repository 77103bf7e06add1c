"""A verdict does not depend on the seed: each chapter is executed again at another one.

Where verdicts are of stored runs or of proofs, a page's seed can change none (but for the VAE's check of a theorem by
draws): these chapters only with SEEDS=all.
One class a chapter, so that pytest-xdist spreads them (`--dist loadscope` keeps a class together).
"""

import os
import re
from pathlib import Path

import pytest
from nbformat import NotebookNode

from execute import Chapter, chapters, execute, read_notebook, read_twin
from rules import CLAIMS, outputs

ROOT = Path(__file__).resolve().parent.parent
OTHER_SEEDS = [1]
OF_STORED_RUNS = pytest.mark.skipif(
    os.environ.get("SEEDS") != "all",
    reason="its verdicts are of stored runs, with seeds of their own: make test-all",
)


def verdicts(notebook: NotebookNode | None) -> dict[str, str]:
    """Return the verdict of each claim that a notebook stores, by the claim's name."""
    tables = [x.data[CLAIMS]["claims"] for _, x in outputs(notebook) if CLAIMS in x.get("data", {})] if notebook else []
    return {claim["name"]: claim["verdict"] for table in tables for claim in table}


class VerdictsAtOtherSeeds:
    """The test that each class below runs for its chapter."""

    name: str

    @pytest.mark.parametrize("seed", OTHER_SEEDS)
    def test_every_claim_keeps_its_verdict(self, seed: int) -> None:
        chapter = Chapter(self.name, ROOT)
        stored, again = read_notebook(chapter.notebook), read_twin(chapter.twin)
        lines = [cell for cell in again.cells if re.search(r"^SEED = 0\b", cell.source, re.M)]
        assert len(lines) == 1, f"{self.name}: {len(lines)} cells with the line SEED = 0; there must be one"
        lines[0].source = re.sub(r"^SEED = 0\b", f"SEED = {seed}", lines[0].source, flags=re.M)
        execute(again, chapter)
        old, new = verdicts(stored), verdicts(again)
        changed = {name: (old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)}
        assert old
        assert not changed, f"{self.name}: verdicts at SEED = 0 and {seed}: {changed}"
        assert stored is not None
        assert [x for _, x in outputs(again)] != [x for _, x in outputs(stored)], f"{self.name}: no output uses SEED"


class TestDefinition(VerdictsAtOtherSeeds):
    name = "definition"


class TestDiscrete(VerdictsAtOtherSeeds):
    name = "discrete"


class TestGaussian(VerdictsAtOtherSeeds):
    name = "gaussian"


class TestGmm(VerdictsAtOtherSeeds):
    name = "gmm"


@OF_STORED_RUNS
class TestVae(VerdictsAtOtherSeeds):
    name = "vae"


@OF_STORED_RUNS
class TestLanguage(VerdictsAtOtherSeeds):
    name = "language"


class TestRepetition(VerdictsAtOtherSeeds):
    name = "repetition"


def test_every_chapter_with_claims_is_executed_again() -> None:
    claiming = {chapter.name for chapter in chapters(ROOT) if verdicts(read_notebook(chapter.notebook))}
    assert claiming - {"claims"} == {cls.name for cls in VerdictsAtOtherSeeds.__subclasses__()}
