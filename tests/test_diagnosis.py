"""The report on any family: against exact laws, plain twins, families whose fate is known, and bad input."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from model_collapse import discrete, gaussian
from model_collapse.diagnosis import MEASURES, Diagnosis, diagnose, median_interval
from model_collapse.figures import MAX_ROWS, MIME
from model_collapse.process import Family, Mixture
from model_collapse.vae_neighbours import precision_recall


def normal(n, rng):
    return rng.standard_normal((n, 2))


def rng(seed=0):
    return np.random.default_rng(seed)


def faithful(law):
    """A family that always returns the original law."""
    return Family(lambda data, rng, previous: None, lambda theta, n, rng: law(n, rng))


def remembering(factor):
    """A family whose draws are its data, times a factor."""
    return Family(lambda data, rng, previous: data, lambda theta, n, rng: factor * theta)


def wide(found, measure):
    """Values of one measure: a row for each generation, a column for each chain."""
    return found.values.query("measure == @measure").pivot(index="generation", columns="chain", values="value")


def z(values, expected):
    """How many standard errors the means over chains lie from what is expected."""
    return (values.mean(axis=1) - expected) / values.sem(axis=1)


# What is lost of what is known


@pytest.mark.parametrize("law", [normal, lambda n, rng: rng.poisson(3, n)], ids=["points", "symbols"])
def test_a_family_that_returns_the_original_law_changes_nothing(law):
    found = diagnose(faithful(law), law, rng(1), last=2, chains=400, size=50)
    for measure in MEASURES:
        values = wide(found, measure)
        assert (z(values.sub(values.loc[0]).loc[1:], 0).abs() < 4).all(), measure
    if law is normal:
        assert abs(z(wide(found, "distance"), 0)[0]) < 4  # without bias, where total variation has one
        assert abs(z(wide(found, "variance"), 1 + 1 / 49)[0]) < 4  # E 1 / chi^2 with 98 degrees of freedom


def test_a_change_is_claimed_in_at_most_five_percent_of_reports_without_one():
    stream, wrong, reports = rng(2), 0, 100
    for _ in range(reports):
        found = diagnose(faithful(normal), normal, stream, last=1, chains=6, size=20)
        wrong += np.count_nonzero(found.changes["verdict"] != "undecided")
    assert wrong / (reports * 4) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / (reports * 4))
    assert wrong > 0  # an interval that decides nothing would pass, too


def test_the_variance_of_normal_models_follows_its_exact_law():
    M, last, chains = 20, 12, 250
    found = diagnose(gaussian.family(), rng(3).standard_normal(M), rng(4), last=last, chains=chains)
    variance = wide(found, "variance")
    assert (z(variance.loc[:3], 1).abs() < 4).all()  # the mean stays ...
    exact = [np.exp(gaussian.log_variance_quantile(0.5, np.full(n + 1, M))) for n in (0, 5, last)]
    below = variance.loc[[0, 5, last]].lt(exact, axis=0).sum(axis=1)
    assert (abs(below - chains / 2) < 4 * np.sqrt(chains) / 2).all()  # ... and the median falls
    drift = gaussian.log_variance_drift(M) * np.arange(1, last + 2)
    assert (z(np.log(variance), drift).abs() < 4).all()
    assert found.changes.loc["variance", "verdict"] == "falls"


def test_symbols_survive_and_differ_as_theory_has_it():
    M, last = 60, 5
    original = rng(5).choice(12, M, p=np.arange(1, 13) / 78)
    found = diagnose(discrete.family(12), original, rng(6), last=last, chains=250)
    p = np.bincount(original, minlength=12) / M
    rounds = np.arange(1, last + 2)
    alive = np.array([discrete.survival(p[p > 0], M, n).mean() for n in rounds])
    assert (z(wide(found, "support"), alive).abs() < 4).all()
    assert (z(wide(found, "variance"), (1 - 1 / M) ** rounds).abs() < 4).all()
    assert (z(wide(found, "tail"), 1).abs() < 4).all()  # frequencies keep their mean
    draws = np.arange(M + 1)
    law = stats.binom.pmf(draws[:, None], M, p)
    apart = np.einsum("xk,yk,xy->", law, law, np.abs(draws[:, None] - draws)) / (2 * M)
    assert abs(z(wide(found, "distance"), apart)[0]) < 4  # the noise floor: two samples of one model


def test_what_shrinks_by_half_in_each_generation():
    original = normal(40, rng(7))
    found = diagnose(remembering(0.5), original - original.mean(axis=0), rng(), last=4, chains=6)
    for k, values in enumerate(wide(found, "variance").to_numpy()):
        assert values == pytest.approx(0.25 ** (k + 1))
    assert (wide(found, "tail").loc[1:] == 0).all(axis=None)
    assert (wide(found, "distance").loc[0] == wide(found, "distance").loc[0, 0]).all()
    assert all((b > a).all() for a, b in pairwise(wide(found, "distance").to_numpy()))
    assert found.changes["verdict"].tolist() == ["undecided", "falls", "falls", "rises"]


def test_a_model_of_one_symbol_has_lost_all():
    still = Family(lambda data, rng, previous: len(data), lambda theta, n, rng: np.full(n, 3))
    original = np.repeat(np.arange(8), np.arange(1, 9))
    found = diagnose(still, original, rng(), last=1, chains=6)
    last = found.table.query("generation == 1").set_index("measure")["value"]
    assert last.to_dict() == {"tail": 0, "support": 1 / 8, "variance": 0, "distance": 0}


def test_a_mixture_reaches_the_chain():
    """A family that doubles its data, with nothing but original data for each fit, stays as it was in generation 0."""
    original = normal(30, rng(8))
    kept = diagnose(remembering(2.0), original, rng(), last=3, chains=6, mixture=Mixture(alpha=0, gamma=1))
    assert wide(kept, "variance").to_numpy() == pytest.approx(4)
    alone = diagnose(remembering(2.0), original, rng(), last=3, chains=6)
    assert wide(alone, "variance").loc[3].to_numpy() == pytest.approx(4**4)


# Each measure against a plain twin


def measured(original, drawn, index=1):
    """The measures of these draws, from a family that returns them after others in generation 0."""
    family = Family(lambda data, rng, previous: 1 if previous is None else 2, lambda t, n, rng: drawn[t - 1])
    found = diagnose(family, original, rng(), last=1, chains=6)
    return found.table.query("generation == @index").set_index("measure")["value"]


def test_recall_is_that_of_the_chapter_on_images():
    original, drawn = normal(60, rng(9)), normal(60, rng(10)) / 2
    real, generated = torch.tensor(original), torch.tensor(drawn)
    assert measured(original, [drawn] * 2)["support"] == precision_recall(real, generated).recall


def test_recall_of_repeated_points_counts_those_that_are_equal():
    original = normal(20, rng(9))
    assert measured(original, [original[[0] * 10 + [1] * 10]] * 2)["support"] == 2 / 20


def test_the_distance_of_points_is_the_mean_over_pairs():
    x, y = normal(20, rng(11)), 3 + 2 * normal(20, rng(12))

    def mean(a, b, least):
        pairs = [(i, j) for i in range(20) for j in range(20) if least < 0 or i != j]
        return np.mean([np.hypot(*(a[i] - b[j])) for i, j in pairs])

    between = mean(x, y, -1)
    expected = (2 * between - mean(x, x, 0) - mean(y, y, 0)) / (2 * between)
    assert measured(x, [x, y])["distance"] == pytest.approx(expected)


def test_the_tail_of_points_is_beyond_the_95_percent_that_are_nearest_to_the_mean():
    original = np.r_[np.zeros(19), np.arange(19) - 9.0, 100, -100] + 5
    original = np.append(original, np.full(60, 5.0))  # of 100 points the five furthest are two far ones and three ties
    drawn = np.full(100, 5.0)
    drawn[:7] = [5 - 9, 5 + 9, 5 + 8.9, 1000, -1000, 5, 13]
    found = diagnose(Family(lambda d, r, p: 0, lambda t, n, r: drawn), original, rng(), last=1, chains=6)
    assert found.rare == 0.06  # +9 and -9 lie on the border with the two at 8, as the mean is 5
    assert found.table.set_index("measure").loc["tail", "value"].tolist() == pytest.approx([6 / 6] * 2)


def test_the_tail_of_symbols_does_not_depend_on_their_names():
    original = rng(13).zipf(1.5, 200)
    names = rng(14).permutation(original.max() + 1)

    def resampled(data):
        return Family(lambda d, r, p: d, lambda t, n, r: t[r.integers(len(t), size=n)])

    one, other = (diagnose(resampled(x), x, rng(), last=2, chains=6) for x in (original, names[original]))
    pd.testing.assert_frame_equal(one.values, other.values)
    assert one.rare == other.rare == np.count_nonzero(np.bincount(original)[original] == 1) / 200
    strings = diagnose(resampled(None), original.astype("U9"), rng(), last=2, chains=6)
    pd.testing.assert_frame_equal(one.values, strings.values)


def test_symbols_that_the_original_lacks_are_in_the_tail():
    original = np.repeat([0, 1, 2], [60, 37, 3])
    found = measured(original, [np.repeat([0, 9, 2], [60, 34, 6])] * 2)
    assert found["tail"] == pytest.approx(40 / 3)  # 3% is the nearest to 5% from below
    assert found["support"] == pytest.approx(2 / 3)


def test_data_that_stand_in_an_order_are_compared_whole():
    def sorted_normal(n, rng):
        return np.sort(rng.standard_normal(n))

    found = diagnose(faithful(sorted_normal), normal(2_500, rng(15))[:, 0], rng(), last=1, chains=6)
    last = found.table.set_index(["measure", "generation"])["value"]
    assert last["support", 1] > 0.95
    assert abs(last["distance", 1]) < 0.01


def test_images_are_read_as_vectors_and_in_single_precision():
    original = normal(30, rng(16)).astype(np.float32)
    flat = diagnose(remembering(np.float32(0.5)), original, rng(), last=2, chains=6)
    images = diagnose(remembering(np.float32(0.5)), original.reshape(-1, 1, 2), rng(), last=2, chains=6)
    pd.testing.assert_frame_equal(flat.values, images.values)


# Intervals


@pytest.mark.parametrize(("R", "coverage"), [(6, 1 - 2 / 64), (10, 1 - 22 / 1024), (12, 1 - 158 / 4096)])
def test_the_interval_holds_the_median_of_any_law_as_often_as_the_binomial_law_says(R, coverage):
    for law in (stats.cauchy, stats.expon):
        sample = law.rvs(size=(20_000, R), random_state=rng(R)) - law.median()
        _, low, high = median_interval(sample)
        assert abs(np.mean((low <= 0) & (high >= 0)) - coverage) < 4 * np.sqrt(0.04 / 20_000)
    assert coverage > 0.95


def test_changes_are_taken_within_chains():
    start = np.arange(6.0) * 100
    rows = [(k, n, name, start[k] - n * (k + 1)) for k in range(6) for n in (0, 1) for name in MEASURES]
    found = Diagnosis(pd.DataFrame(rows, columns=["chain", "generation", "measure", "value"]), 0.05)
    assert found.changes.loc["tail"].tolist() == [-3.5, -6, -1, "falls"]
    assert found.table.iloc[0][["value", "low", "high", "chains"]].tolist() == [250, 0, 500, 6]
    assert found.words().splitlines()[:2] == [
        "tail: falls by 3.500 (1.000 to 6.000)",
        "  generation 0: 250.000 (0.000 to 500.000), generation 1: 246.500 (-1.000 to 494.000)",
    ]


# The report


def report(last=3, seed=0, **options):
    coin = Family(lambda data, rng, previous: data.mean(0), lambda theta, n, rng: theta + rng.standard_normal((n, 2)))
    return diagnose(coin, normal, rng(seed), last=last, size=20, chains=6, **options)


def test_one_object_shows_charts_and_words():
    found = report()
    bundle = found._repr_mimebundle_()
    assert set(bundle) == {MIME, "image/svg+xml", "text/plain"}
    assert bundle["text/plain"] == repr(found) == found.words()
    assert [line.split(":")[0] for line in found.words().splitlines()[::2]] == list(MEASURES)
    text = bundle[MIME]["description"]
    assert text.startswith("Four small charts against generation n, medians over 6 chains with 95% intervals. tail: ")
    assert all(line.strip() in text for line in found.words().splitlines())
    panels = bundle[MIME]["concat"]
    assert [panel["title"]["text"] for panel in panels] == list(MEASURES)
    assert all(panel["title"]["subtitle"] in found.words() for panel in panels)
    drawn = [row["value"] for rows in bundle[MIME]["datasets"].values() for row in rows if "generation" in row]
    assert drawn == found.table["value"].tolist()


def test_long_chains_are_thinned_in_the_chart_with_both_ends():
    found = report(last=150)
    spec = found.figure().spec
    assert sum(map(len, spec["datasets"].values())) <= MAX_ROWS
    shown = [row["generation"] for rows in spec["datasets"].values() for row in rows if "generation" in row]
    assert {0, 150} <= set(shown)
    assert len(found.table) == 4 * 151


def test_the_same_seed_gives_the_same_report_and_longer_chains_begin_alike():
    pd.testing.assert_frame_equal(report().values, report().values)
    assert report().figure().spec == report().figure().spec
    assert not report(seed=1).values.equals(report().values)
    first = report(last=5).values.query("generation <= 3").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, report().values)


# Bad input

GOOD = rng(17).standard_normal(30)


@pytest.mark.parametrize(
    ("original", "options", "message"),
    [
        (GOOD, {"chains": 5}, "chains = 5: must be an integer >= 6"),
        (GOOD, {"last": 0}, "last = 0: must be an integer >= 1"),
        (GOOD, {"rng": 0}, r"rng = 0: must be a numpy\.random\.Generator"),
        (GOOD[:19], {}, "original: M = 19: must be at least 20 points"),
        (np.ones(30), {}, "original: all points are equal, so there is nothing to lose"),
        (np.zeros(30, int), {}, "original: all points are equal"),
        (np.arange(30), {}, "original: no point is rarer"),
        (np.array([-1.0, 1.0] * 15), {}, "original: no point is rarer"),
        (np.zeros((30, 2), int), {}, r"original: int64 of shape \(30, 2\); allowed are symbols"),
        (GOOD + 0j, {}, r"original: complex128 of shape \(30,\); allowed are symbols"),
        (np.append(GOOD, np.inf), {}, "original: points must be finite"),
        (normal, {}, "sizes = None: where original is a function"),
        (list(GOOD), {}, "original: data must be an array"),
        (GOOD, {"family": None}, r"family = None: must be a Family\(fit, sample\)"),
    ],
)
def test_bad_input_is_refused(original, options, message):
    with pytest.raises(ValueError, match=message):
        diagnose(**{"family": remembering(1.0), "original": original, "rng": rng(), "last": 2, "chains": 6} | options)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (lambda theta, n, rng: theta[1:], r"family\.sample, generation 0: float64 of shape \(29, 1\); must be as"),
        (lambda theta, n, rng: theta > 0, r"family\.sample, generation 0: bool of shape \(30,\); must be as"),
        (lambda theta, n, rng: theta * np.inf, r"family\.sample, generation 0: points must be finite"),
        (lambda theta, n, rng: theta * 1e200, r"family\.sample, generation 1: points must be finite"),
    ],
)
def test_a_family_that_draws_something_else_is_refused(sample, message):
    family = Family(lambda data, rng, previous: data, sample)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match=message):
        diagnose(family, GOOD, rng(), last=2, chains=6)


def test_an_interval_needs_six_replicates():
    with pytest.raises(ValueError, match=r"values: shape \(3, 5\); at least 6 replicates"):
        median_interval(np.ones((3, 5)))
