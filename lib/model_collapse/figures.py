"""The book's charts: one theme, one renderer, and the chart form that sets theory against simulation.

Exact results are solid lines, approximations dashed lines, simulations points with an interval, in every chapter.
"""

import hashlib
import json
import re
import sys
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

# Dark and saturated enough for a contrast of 3 : 1 or so on white and on near-black; told apart under colour blindness.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A6761D", "#56B4E9"]
GREY = "#7F7F7F"  # what is given, not learned: the original, a reference
LINES = alt.Legend(title=None, symbolType="stroke", symbolSize=700)  # long enough to show a dash
DASHES = {"exact": [1, 0], "approximation": [7, 5]}
STACKED = {"top": {"anchor": "start", "direction": "vertical"}}  # Vega's, for pictures: no legend runs off the edge
MAX_ROWS = 500
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif",
    "view": {"stroke": None},
    "range": {"category": COLOURS},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "gridOpacity": 0.35,
        "labelSeparation": 6,
    },
    "legend": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
    },
    "header": {"labelFontSize": 12, "titleFontSize": 13},
}
VEGALITE = alt.SCHEMA_VERSION.lstrip("v").split(".")
MIME = f"application/vnd.vegalite.v{VEGALITE[0]}+json"


class Figure:
    """A chart with its text alternative, as a notebook shows and stores it (see `show`).

    Attributes
    ----------
    spec : dict
        The Vega-Lite specification, with the data.

    Examples
    --------
    >>> sorted(Figure({"mark": "point", "data": {"values": []}, "description": "x"})._repr_mimebundle_())[-1]
    'text/plain'
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"Chart: {self.spec['description']}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        config = self.spec.get("config", {})
        stacked = {**config, "legend": {**config.get("legend", {}), "layout": STACKED}}
        fixed = {**self.spec, "background": "white", "config": stacked}
        if fixed.get("width") == "container":
            fixed["width"] = 600
        bundle = {
            MIME: self.spec,
            "image/svg+xml": _svg(fixed),
            "text/plain": repr(self),
        }
        if "google.colab" in sys.modules:  # Colab draws charts from HTML alone
            bundle["text/html"] = alt.Chart.from_dict(self.spec).to_html()
        return bundle


def show(chart: Any, alt_text: str) -> Figure:
    """Give a chart the book's theme and a text alternative.

    Parameters
    ----------
    chart : altair chart
        A single or layered chart takes the width of the page unless it sets one; concatenated and faceted charts must
        set theirs.
    alt_text : str
        What the chart shows, for readers who do not see it: axes, series and finding.

    Returns
    -------
    Figure
        Displays as Vega-Lite, as SVG where a viewer has no Vega, and as its text alternative.

    Raises
    ------
    ValueError
        An empty text alternative, or more than 500 rows of data.

    Examples
    --------
    >>> chart = alt.Chart(pd.DataFrame({"n": [0, 1], "H": [0.9, 0.8]})).mark_line().encode(x="n:Q", y="H:Q")
    >>> show(chart, "Diversity H falls from 0.9 to 0.8 in one generation n.")
    Chart: Diversity H falls from 0.9 to 0.8 in one generation n.
    """
    if not alt_text.strip():
        raise ValueError(f"alt_text = {alt_text!r}: a chart needs a text alternative")
    spec = chart.to_dict()
    rows = sum(len(values) for values in spec.get("datasets", {}).values())
    if rows > MAX_ROWS:
        raise ValueError(f"chart: {rows} rows of data, allowed are {MAX_ROWS}; thin out or summarise the table")
    if isinstance(chart, (alt.Chart, alt.LayerChart)):
        spec = {"width": "container", "height": 320, **spec}
    spec["config"] = {**spec.get("config", {}), **CONFIG}
    spec["description"] = " ".join(alt_text.split())
    return Figure(spec)


def curve(x: Any, value: Any, setting: Any, kind: str = "exact") -> pd.DataFrame:
    """Rows of `trajectory`'s table, without intervals: a result of theory, or a simulated value that stands alone.

    Parameters
    ----------
    x, value : float or array, shape (n,)
        Positions and values.
    setting : str or sequence of str
        What tells the series apart.
    kind : {"exact", "approximation", "simulation"}

    Returns
    -------
    DataFrame
        Columns x, value, setting, kind.

    Examples
    --------
    >>> curve([0, 1], [0.9, 0.8], "M = 10")["kind"].tolist()
    ['exact', 'exact']
    """
    return pd.DataFrame({"x": x, "value": value, "setting": setting, "kind": kind})


def points(x: Any, mean: Any, error: Any, setting: Any) -> pd.DataFrame:
    """Rows of `trajectory`'s table for a simulation: means with 95% intervals, 1.96 standard errors to both sides.

    Parameters
    ----------
    x, mean, error : float or array, shape (n,)
        Positions, means and their standard errors (`results.mean_and_error` gives these two).
    setting : str or sequence of str
        What tells the series apart.

    Returns
    -------
    DataFrame
        Columns x, value, setting, kind, low, high.

    Examples
    --------
    >>> points([1], [0.8], [0.01], "M = 10")[["low", "high"]].round(4).to_numpy().tolist()
    [[0.7804, 0.8196]]
    """
    half = 1.96 * np.asarray(error)
    return curve(x, mean, setting, "simulation").assign(low=np.asarray(mean) - half, high=np.asarray(mean) + half)


def trajectory(table: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color | None = None) -> alt.LayerChart:
    """Theory and simulation in one chart: solid line = exact, dashed line = approximation, points = simulation.

    Parameters
    ----------
    table : DataFrame
        Long table with the fields of `x` and `y`, a column ``kind`` ("exact", "approximation" or "simulation"), for
        simulations optionally ``low`` and ``high`` (an interval, in the units of y), and optionally ``setting``.
    x, y : altair.X, altair.Y
        Encodings with a title (and unit, and scale); y of every layer.
    colour : altair.Color, optional
        By default the column ``setting``, where there is one.

    Raises
    ------
    ValueError
        A missing column, or a kind that is none of the three.

    Examples
    --------
    >>> table = pd.DataFrame({"n": [0, 1, 1], "H": [0.9, 0.8, 0.79], "kind": ["exact", "exact", "simulation"]})
    >>> chart = trajectory(table, alt.X("n:Q", title="round n"), alt.Y("H:Q", title="diversity H"))
    >>> [layer.mark.type for layer in chart.layer]
    ['line', 'point']
    """
    kinds = set(table["kind"]) if "kind" in table else set()
    if not kinds or not kinds <= {"exact", "approximation", "simulation"}:
        raise ValueError(f"table: kind = {sorted(kinds)}; allowed are 'exact', 'approximation', 'simulation'")
    if colour is None and "setting" in table:
        colour = alt.Color("setting:N", title=None, sort=None, scale=alt.Scale(range=COLOURS))
    base = alt.Chart(table).encode(x=x, color=alt.Undefined if colour is None else colour, tooltip=_tooltips(table))
    layers: list[alt.Chart] = []
    if kinds & {"exact", "approximation"}:
        drawn = [kind for kind in DASHES if kind in kinds]
        dash = alt.Scale(domain=drawn, range=[DASHES[kind] for kind in drawn])
        lines = base.transform_filter("datum.kind != 'simulation'").mark_line(clip=True)
        layers.append(lines.encode(y=y, strokeDash=alt.StrokeDash("kind:N", scale=dash, legend=LINES)))
    if "simulation" in kinds:
        points = base.transform_filter("datum.kind == 'simulation'")
        if "low" in table:
            low = y.copy()
            low.shorthand = "low:Q"
            layers.append(points.mark_rule(strokeWidth=1.5, clip=True).encode(y=low, y2="high:Q"))
        shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=["simulation"], range=["circle"]))
        layers.append(points.mark_point(filled=True, size=45, opacity=1, clip=True).encode(y=y, shape=shape))
    return alt.LayerChart(layer=layers)


def stored(table: pd.DataFrame, title: str, shape: str = "runs", hollow: str = "", **size: int) -> alt.LayerChart:
    """Stored runs against generations: grey marks with intervals, side by side, of a shape for each kind of run.

    Parameters
    ----------
    table : DataFrame
        From `seeds.bars`: columns generation, value, low, high, and what tells the runs apart.
    title : str
        Of the vertical axis, with the unit.
    shape : str
        The column that sets the shape.
    hollow : str, optional
        A value in that column whose marks are not filled: what others published.
    **size : int
        Width and height in pixels; needed where charts stand side by side.

    Examples
    --------
    >>> table = pd.DataFrame({"generation": [0], "value": [1.0], "low": [0.9], "high": [1.1], "runs": ["setting A"]})
    >>> [layer.mark.type for layer in stored(table, "perplexity").layer]
    ['rule', 'point']
    """
    base = alt.Chart(table).encode(
        alt.X("generation:O", title="generation n", axis=alt.Axis(labelAngle=0)),
        alt.XOffset(f"{shape}:N", sort=None),
        tooltip=_tooltips(table),
    )
    y, low = (alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False)) for field in ("value", "low"))
    bars = base.mark_rule(strokeWidth=1.5, color=GREY).encode(low, alt.Y2("high:Q"))
    filled = alt.when(alt.FieldEqualPredicate(field=shape, equal=hollow)).then(alt.value("transparent"))
    legend = alt.Legend(columns=2, symbolFillColor=GREY)
    marks = base.mark_point(size=55, opacity=1, stroke=GREY, strokeWidth=1.5).encode(
        y, alt.Shape(f"{shape}:N", title=None, sort=None, legend=legend), fill=filled.otherwise(alt.value(GREY))
    )
    chart: alt.LayerChart = (bars + marks).properties(**size)
    return chart


def _svg(spec: dict[str, Any]) -> str:
    """Draw the chart, with ids that depend on it alone (the renderer counts on from chart to chart)."""
    svg = vl_convert.vegalite_to_svg(spec, vl_version=".".join(VEGALITE[:2]))
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]
    order = {name: f"c{digest}-{k}" for k, name in enumerate(dict.fromkeys(re.findall(r'id="([^"]+)"', svg)))}
    return re.sub(r'(?<=id=")[^"]+|(?<=url\(#)[^)]+', lambda m: order.get(m[0], m[0]), svg)


def _tooltips(table: pd.DataFrame) -> list[alt.Tooltip]:
    """All columns, numbers to four digits."""
    numbers = table.select_dtypes("number").columns
    return [alt.Tooltip(f"{name}:Q", format=".4~g") if name in numbers else alt.Tooltip(f"{name}:N") for name in table]
