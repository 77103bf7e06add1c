"""Intervals and verdicts over seeds, against closed forms and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from model_collapse.seeds import bars, interval, judged, latest

TABLE = pd.DataFrame({0: [1.0, 2.0, 6.0], 1: [3.0, 4.0, np.nan], 2: [5.0, np.nan, np.nan]})


def test_the_interval_is_that_of_a_t_test_on_the_seeds_that_there_are():
    found = interval(TABLE)
    test = stats.ttest_1samp([1.0, 3.0, 5.0], 0).confidence_interval(0.95)
    assert (found["mean"] - found["half"])[0] == pytest.approx(test.low)
    assert (found["mean"] + found["half"])[0] == pytest.approx(test.high)
    assert found["mean"].tolist() == [3, 3, 6]
    assert found["seeds"].tolist() == [3, 2, 1]
    assert found["half"][1] == pytest.approx(12.706, abs=1e-3)
    assert np.isinf(found["half"][2])


def test_the_interval_holds_the_mean_in_95_of_100_tables():
    rows = interval(pd.DataFrame(np.random.default_rng(100).standard_normal((20_000, 3))))
    assert np.mean(rows["mean"].abs() < rows["half"]) == pytest.approx(0.95, abs=0.005)


def test_bars_of_two_seeds_go_from_one_to_the_other_and_one_seed_has_none():
    table = TABLE.rename_axis("generation")
    rows = bars(table, runs="A", model="tiny")
    half = 4.302653 * 2 / 3**0.5
    assert rows["low"].tolist() == pytest.approx([3 - half, 2, 6])
    assert rows["high"].tolist() == pytest.approx([3 + half, 4, 6])
    assert rows["generation"].tolist() == [0, 1, 2]
    assert set(rows["runs"] + rows["model"]) == {"Atiny"}


def test_bars_leave_out_generations_that_no_seed_has():
    assert bars(pd.DataFrame({0: [1.0, np.nan]}).rename_axis("generation"))["generation"].tolist() == [0]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([9, 9, 9, 4, 4], 9), ([9, 5, 4, 3], 4), ([9, 4], 4), ([9], 9), ([9, 8, 3], 3)],
)
def test_the_latest_generation_is_the_last_of_three_seeds_or_of_all(lengths, expected):
    table = pd.DataFrame({k: pd.Series(np.arange(n + 1.0)) for k, n in enumerate(lengths)})
    found = latest(table)
    assert found.name == expected
    assert (found == expected).all()
    assert len(found) == sum(n >= expected for n in lengths)


def test_a_table_without_seeds_is_not_run():
    assert latest(pd.DataFrame()).empty
    assert judged(latest(pd.DataFrame()), 1) == ("not run", "not run here")


def test_a_verdict_needs_an_interval_on_one_side_of_the_threshold():
    values = pd.Series([1.2, 1.3, 1.4], name=9)
    assert [judged(values, at)[1] for at in (1.0, 1.1, 1.6)] == ["reproduced", "undecided", "not reproduced"]
    assert [judged(values, at, "below")[1] for at in (1.0, 1.6)] == ["not reproduced", "reproduced"]
    assert judged(values.iloc[:2], 1)[1] == "undecided"
    assert judged(values.iloc[:1], 0) == ("1.200, generation 9, 1 seed", "undecided")
    assert judged(values, 1)[0] == "1.300 (1.052 to 1.548), generation 9, 3 seeds"
    with pytest.raises(ValueError, match="side = 'over'"):
        judged(values, 1, "over")
