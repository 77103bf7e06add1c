"""Charts: theme, text alternative, limits, and the marks that tell theory from simulation."""

import altair as alt
import pandas as pd
import pytest

from model_collapse.figures import COLOURS, GREY, MIME, curve, points, show, stored, trajectory

X, Y = alt.X("n:Q", title="round n"), alt.Y("H:Q", title="diversity H", scale=alt.Scale(type="log"))


def table(*kinds):
    rows = [{"n": n, "H": 0.9**n, "kind": kind, "setting": "a"} for kind in kinds for n in range(3)]
    return pd.DataFrame(rows).assign(low=lambda t: t.H / 2, high=lambda t: t.H * 2)


def test_exact_solid_approximation_dashed_simulation_points_with_interval():
    spec = trajectory(table("exact", "approximation", "simulation"), X, Y).to_dict()
    lines, rule, point = spec["layer"]
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["line", "rule", "point"]
    dash = lines["encoding"]["strokeDash"]["scale"]
    assert (dash["domain"], dash["range"]) == (["exact", "approximation"], [[1, 0], [7, 5]])
    assert (rule["encoding"]["y"]["field"], rule["encoding"]["y2"]["field"]) == ("low", "high")
    assert rule["encoding"]["y"]["scale"] == point["encoding"]["y"]["scale"] == {"type": "log"}


def test_points_have_an_interval_of_95_percent_and_curves_none():
    rows = points([1, 2], [0.5, 0.4], [0.1, 0.0], ["a", "b"])
    assert rows["low"].tolist() == pytest.approx([0.304, 0.4])
    assert rows["high"].tolist() == pytest.approx([0.696, 0.4])
    assert rows["kind"].tolist() == ["simulation"] * 2
    assert curve([1], [2], "a", "approximation").to_dict("records") == [
        {"x": 1, "value": 2, "setting": "a", "kind": "approximation"}
    ]


def test_only_the_marks_that_the_table_needs():
    assert [layer.mark.type for layer in trajectory(table("exact"), X, Y).layer] == ["line"]
    assert [layer.mark.type for layer in trajectory(table("simulation"), X, Y).layer] == ["rule", "point"]


@pytest.mark.parametrize("kinds", [(), ("guess",)])
def test_unknown_kinds_are_refused(kinds):
    with pytest.raises(ValueError, match="allowed are 'exact'"):
        trajectory(table("exact").assign(kind=kinds[0]) if kinds else table("exact").drop(columns="kind"), X, Y)


def test_stored_runs_are_grey_with_bars_and_what_others_published_is_hollow():
    rows = {
        "generation": [0, 0],
        "value": [1.0, 2.0],
        "low": [0.5, 1.5],
        "high": [1.5, 2.5],
        "runs": ["ours", "theirs"],
    }
    rule, point = stored(pd.DataFrame(rows), "perplexity", hollow="theirs", width=99).to_dict()["layer"]
    fill = point["encoding"]["fill"]
    assert fill["condition"] == [{"test": {"field": "runs", "equal": "theirs"}, "value": "transparent"}]
    assert fill["value"] == point["mark"]["stroke"] == rule["mark"]["color"] == GREY
    assert (rule["encoding"]["y"]["field"], rule["encoding"]["y2"]["field"]) == ("low", "high")
    assert point["encoding"]["shape"]["field"] == point["encoding"]["xOffset"]["field"] == "runs"


def test_a_shown_chart_has_data_picture_and_text():
    bundle = show(trajectory(table("exact"), X, Y), "H falls\n from 1.")._repr_mimebundle_()
    assert set(bundle) == {MIME, "image/svg+xml", "text/plain"}
    assert bundle["text/plain"] == "Chart: H falls from 1."
    assert bundle[MIME]["description"] == "H falls from 1."
    assert bundle[MIME]["width"] == "container"
    assert bundle["image/svg+xml"].startswith("<svg")
    assert COLOURS[0].lower() in bundle["image/svg+xml"].lower()


def test_the_same_chart_has_the_same_bytes():
    first, second = (show(trajectory(table("exact"), X, Y), "x")._repr_mimebundle_() for _ in range(2))
    assert first == second


def test_a_width_that_the_author_sets_is_kept():
    assert show(trajectory(table("exact"), X, Y).properties(width=200), "x").spec["width"] == 200
    assert "width" not in show(alt.hconcat(trajectory(table("exact"), X, Y)), "x").spec


def test_colab_gets_html(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "google.colab", object())
    assert "vegaEmbed" in show(trajectory(table("exact"), X, Y), "x")._repr_mimebundle_()["text/html"]


def test_no_text_alternative_or_too_many_rows():
    with pytest.raises(ValueError, match="text alternative"):
        show(trajectory(table("exact"), X, Y), "  ")
    with pytest.raises(ValueError, match="501 rows of data, allowed are 500"):
        show(alt.Chart(pd.DataFrame({"n": range(501)})).mark_point().encode(x="n:Q"), "x")


def test_each_layer_takes_its_own_kinds_and_tooltips_are_short_numbers():
    lines, rule, point = trajectory(table("exact", "approximation", "simulation"), X, Y).to_dict()["layer"]
    assert lines["transform"] == [{"filter": "datum.kind != 'simulation'"}]
    assert rule["transform"] == point["transform"] == [{"filter": "datum.kind == 'simulation'"}]
    assert {"field": "H", "format": ".4~g", "type": "quantitative"} in point["encoding"]["tooltip"]


def test_the_theme_goes_before_a_chart_s_own_settings():
    chart = trajectory(table("exact"), X, Y).configure(background="red", padding=3)
    spec = show(chart, "x").spec
    assert (spec["config"]["background"], spec["config"]["padding"]) == ("transparent", 3)


def test_five_hundred_rows_are_allowed():
    show(alt.Chart(pd.DataFrame({"n": range(500)})).mark_point().encode(x="n:Q"), "x")
