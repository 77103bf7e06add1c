"""Runs that differ in their seed alone: intervals over seeds, and verdicts that rest on them.

A table here is one metric of such runs, as `reference.Reference.seeds` gives it: a row for each generation, a column
for each seed, NaN where a run is shorter.
"""

from typing import Literal

import pandas as pd
from scipy import stats

from model_collapse.results import Verdict, beyond


def interval(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with 95% t intervals.

    Parameters
    ----------
    table : DataFrame
        Rows of anything, such as generations; a column for each seed.

    Returns
    -------
    DataFrame
        Columns mean, half (of the interval; infinite for a single seed) and seeds (their number), in rows as given.

    Examples
    --------
    >>> interval(pd.DataFrame({0: [1.0, 5.0], 1: [3.0, None]}))["half"].round(2).tolist()
    [12.71, inf]
    """
    n = table.count(axis=1)
    half = stats.t.ppf(0.975, (n - 1).clip(lower=1)) * table.sem(axis=1)
    return pd.DataFrame({"mean": table.mean(axis=1), "half": half.where(n > 1, float("inf")), "seeds": n})


def bars(table: pd.DataFrame, **labels: str) -> pd.DataFrame:
    """Rows of `figures.stored`: means with 95% t intervals; of two seeds from one to the other, of one the mark alone.

    Parameters
    ----------
    table : DataFrame
        Rows of generations; a column for each seed.
    **labels : str
        What all these rows have in common, such as ``runs="setting A"``.

    Returns
    -------
    DataFrame
        Columns generation, value, low, high, seeds (their number) and the labels.

    Examples
    --------
    >>> bars(pd.DataFrame({0: [1.0], 1: [3.0]}, index=pd.Index([7], name="generation")), runs="a").to_dict("records")
    [{'generation': 7, 'value': 2.0, 'low': 1.0, 'high': 3.0, 'seeds': 2, 'runs': 'a'}]
    """
    found = interval(table)
    spread = (table.max(axis=1) - table.min(axis=1)) / 2
    half = found["half"].where(found["seeds"] > 2, spread)
    rows = {"value": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half}
    return pd.DataFrame(rows).assign(seeds=found["seeds"], **labels).dropna().reset_index()


def latest(table: pd.DataFrame) -> pd.Series:
    """The seeds' values at the last generation that three of them have, or that all have where they are fewer.

    Parameters
    ----------
    table : DataFrame
        Rows of generations; a column for each seed.

    Returns
    -------
    Series
        Its name is the generation, its index the seeds; empty if the table is.

    Examples
    --------
    >>> latest(pd.DataFrame({0: [1, 2, 3, 4], 1: [1, 2, 3, None], 2: [1, 2, None, None]})).name
    1
    """
    n = table.count(axis=1)
    reached = table[n >= max(1, min(3, n.max()))]
    return reached.iloc[-1].dropna() if len(reached) else pd.Series(dtype=float)


def judged(values: pd.Series, threshold: float, side: Literal["above", "below"] = "above") -> tuple[str, Verdict]:
    """What was measured over seeds, in words, and the verdict of a claim that it lies above (below) a threshold.

    Parameters
    ----------
    values : Series
        One value for each seed; named by the generation that they are of, if they are of one (see `latest`).
    threshold : float
        In the units of the values; the verdict compares their 95% t interval with it.
    side : {"above", "below"}
        Where the claim puts the quantity.

    Returns
    -------
    measured : str
        "not run" without values.
    verdict : Verdict
        Of a single seed "undecided", of none "not run here".

    Raises
    ------
    ValueError
        Another side.

    Examples
    --------
    >>> judged(pd.Series([1.2, 1.3, 1.4], name=9), 1)
    ('1.300 (1.052 to 1.548), generation 9, 3 seeds', 'reproduced')
    >>> judged(pd.Series([1.2]), 1)
    ('1.200, 1 seed', 'undecided')
    """
    if values.empty:
        return "not run", "not run here"
    mean, half, n = interval(values.to_frame().T).iloc[0]
    when = "" if values.name is None else f", generation {values.name}"
    said = f"{mean:.3f}"
    if n > 1:
        said += f" ({mean - half:.3f} to {mean + half:.3f})"
    return f"{said}{when}, {n:.0f} seed{'s' * (n > 1)}", beyond(mean - half, mean + half, threshold, side)
