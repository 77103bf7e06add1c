"""Verdicts are computed, and claims survive being stored."""

import json

import numpy as np
import pytest

from model_collapse.results import MIME, Claim, agreement, beyond, claims, mean_and_error, proof, seen, stored_claims

CLAIM = Claim("absorption", "Every chain ends\nin one word.", "section 3", "$P = 1$", "20 of 20", "proved")


def test_a_proof_that_the_numbers_contradict_is_no_verdict():
    assert [proof(True, stated) for stated in ("true", "corrected", "false")] == [
        "proved",
        "proved with a correction",
        "false as stated",
    ]
    with pytest.raises(ValueError, match="contradicts the proof"):
        proof(False)
    with pytest.raises(ValueError, match="agrees = 'yes': allowed are True and False"):
        proof("yes")
    with pytest.raises(ValueError, match="stated = 'no'"):
        proof(True, "no")


def test_agreement():
    assert agreement(3.9) == "reproduced"
    assert agreement([0, -4.0]) == "not reproduced"
    assert agreement(1.0, corrected=True) == "reproduced with a correction"
    assert agreement(9.0, corrected=True) == "not reproduced"
    for bad in (np.nan, []):
        with pytest.raises(ValueError, match="allowed are numbers"):
            agreement(bad)


def test_what_is_measured_in_another_model_says_in_which():
    assert seen(beyond(1, 2, 0.5), "tiny") == "seen in the tiny model"
    assert seen(beyond(1, 2, 3), "smollm2") == "not seen in SmolLM2"
    assert seen(beyond(1, 2, 1.5), "smollm2") == "undecided"
    assert seen("not run here", "smollm2") == "not run here"
    assert seen(beyond(1, 2, 3), "facebook/opt-125m") == "not reproduced"
    with pytest.raises(ValueError, match="verdict = 'proved': allowed are"):
        seen("proved", "smollm2")
    with pytest.raises(ValueError, match="model = 'gpt2': allowed are"):
        seen("reproduced", "gpt2")


def test_mean_and_error_are_those_of_replicates():
    mean, error = mean_and_error([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert mean.tolist() == [2, 5]
    assert error == pytest.approx([np.sqrt(1 / 3), 0])
    for few in (1.0, [1.0]):
        with pytest.raises(ValueError, match="at least two replicates"):
            mean_and_error(few)


def test_beyond():
    assert beyond(1, 2, 0.5) == "reproduced"
    assert beyond(1, 2, 1.5) == beyond(1, 2, 1) == "undecided"
    assert beyond(1, 2, 3) == "not reproduced"
    assert beyond(1, 2, 3, side="below") == "reproduced"
    assert beyond(1, 2, 0.5, side="below") == "not reproduced"
    bad = (
        ((2, 1, 0), "low <= high"),
        ((np.nan, 1, 0), "low <= high"),
        ((0, 1, 2, "left"), "side"),
        ((0, 1, np.nan), "a number"),
    )
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            beyond(*arguments)


def test_claims_are_a_table_and_data():
    bundle = claims(CLAIM)._repr_mimebundle_()
    assert bundle["text/markdown"].splitlines()[2] == (
        "| Every chain ends in one word. | section 3 | $P = 1$ | 20 of 20 | **proved** |"
    )
    assert Claim(**bundle[MIME]["claims"][0]) == CLAIM


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paper": ""}, "paper = ''"),
        ({"verdict": "true"}, "verdict = 'true': allowed are"),
        ({"measured": "|x|"}, "'|'"),
    ],
)
def test_incomplete_claims_are_refused(change, message):
    with pytest.raises(ValueError, match=r"allowed|needs") as caught:
        claims(Claim(**{**CLAIM.__dict__, **change}))
    assert message in str(caught.value)


def test_names_are_unique():
    with pytest.raises(ValueError, match="a name of its own"):
        claims(CLAIM, CLAIM)


def test_stored_claims_are_read_back(tmp_path):
    notebook = tmp_path / "x.ipynb"
    outputs = [{"output_type": "stream", "text": "x"}, {"data": claims(CLAIM)._repr_mimebundle_()}]
    notebook.write_text(json.dumps({"cells": [{"source": "text"}, {"outputs": outputs}]}))
    assert stored_claims(notebook) == [CLAIM]
    notebook.write_text("{}")
    with pytest.raises(ValueError, match="not an executed notebook"):
        stored_claims(notebook)


def test_no_claim_is_left_out():
    many = [Claim(**{**CLAIM.__dict__, "name": f"claim-{k}"}) for k in range(80)]
    bundle = claims(*many)._repr_mimebundle_()
    assert len(bundle[MIME]["claims"]) == 80
    assert len(bundle["text/markdown"].splitlines()) == 82
