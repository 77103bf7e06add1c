"""The process: mixtures, sizes, streams, checks, and the contract that every family keeps."""

from itertools import islice

import numpy as np
import pytest

from model_collapse import discrete, gaussian
from model_collapse.process import Family, Generation, Mixture, generations, trace

COIN = Family(lambda data, rng, previous: data.mean(), lambda theta, n, rng: rng.binomial(1, theta, n))
# A model that only counts: it learns one more than the largest number it was shown, so each point names its generation.
COUNTER = Family(lambda data, rng, previous: data.max() + 1, lambda theta, n, rng: np.full(n, theta))
FAMILIES = {
    "coin": (COIN, np.array([0, 1, 1, 1, 0, 1])),
    "counter": (COUNTER, np.zeros(6, dtype=int)),
    "discrete": (discrete.family(4), np.array([0, 1, 1, 3, 0, 1])),
    "gaussian": (gaussian.family(), np.random.default_rng(5).normal(size=(8, 2))),
    "gaussian, biased": (gaussian.family(ddof=0), np.random.default_rng(6).normal(size=(8, 1))),
}


def zeros(n, rng):
    return np.zeros(n, dtype=int)


def run(family, original, seed, count=4, **options):
    return list(islice(generations(family, original, np.random.default_rng(seed), **options), count))


def rng():
    return np.random.default_rng(0)


# The contract of a family


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def test_family_same_stream_same_result(family):
    model, data = family
    thetas = [model.fit(data, np.random.default_rng(1), None) for _ in range(2)]
    samples = [model.sample(theta, 7, np.random.default_rng(2)) for theta in thetas]
    np.testing.assert_equal(thetas[0], thetas[1])
    np.testing.assert_array_equal(*samples)


def test_family_leaves_data_and_theta_unchanged(family):
    model, data = family
    before = data.copy()
    theta = model.fit(data, rng(), None)
    kept = repr(theta)
    model.sample(theta, 7, rng())
    np.testing.assert_array_equal(data, before)
    assert repr(theta) == kept


def test_family_fits_afresh(family):
    model, data = family
    theta = model.fit(data, rng(), None)
    model.fit(data[::-1].copy(), rng(), theta)
    np.testing.assert_equal(model.fit(data, rng(), None), theta)


@pytest.mark.parametrize("n", [1, 5, 64])
def test_family_samples_have_number_dtype_and_shape(family, n):
    model, data = family
    sample = model.sample(model.fit(data, rng(), None), n, rng())
    assert (len(sample), sample.shape[1:], sample.dtype) == (n, data.shape[1:], data.dtype)


def test_family_runs_in_the_loop(family):
    model, data = family
    mixture = Mixture(alpha=0.5, beta=0.25, gamma=0.25, shares="multinomial")
    assert [g.index for g in run(model, data, 1, mixture=mixture)] == [0, 1, 2, 3]


# Generations


def test_generation_zero_is_fitted_to_the_original():
    data = np.array([0, 1, 1, 1])
    first = next(generations(COIN, data, rng()))
    assert (first.index, first.theta) == (0, 0.75)
    np.testing.assert_array_equal(first.data, data)


def test_parameters_are_those_of_the_data_of_the_same_generation():
    assert all(g.theta == g.data.mean() for g in run(COIN, np.array([0, 1] * 20), 3, count=6))


def test_new_data_come_from_the_latest_model():
    assert [g.data.max() for g in run(COUNTER, np.zeros(5, dtype=int), 0)] == [0, 1, 2, 3]


def test_previous_theta_is_passed_on():
    seen = []
    family = Family(lambda data, rng, previous: seen.append(previous) or len(seen), lambda theta, n, rng: np.ones(n))
    run(family, np.ones(3), 0)
    assert seen == [None, 1, 2, 3]


def test_same_seed_same_generations_whatever_is_measured_in_between():
    stream = np.random.default_rng(7)
    measured = []
    for g in islice(generations(COIN, np.array([0, 1] * 20), stream), 5):
        stream.normal(size=g.index + 3)
        stream.spawn(1)
        measured.append(g.theta)
    assert measured == [g.theta for g in run(COIN, np.array([0, 1] * 20), 7, count=5)]


def test_more_generations_do_not_change_the_first():
    short, long = (run(COIN, np.array([0, 1] * 20), 7, count=c) for c in (3, 9))
    assert [g.theta for g in short] == [g.theta for g in long[:3]]


def test_two_runs_from_one_generator_differ_and_so_do_seeds():
    stream = np.random.default_rng(1)
    runs = [[g.theta for g in islice(generations(COIN, np.array([0, 1] * 50), stream), 5)] for _ in range(2)]
    runs.append([g.theta for g in run(COIN, np.array([0, 1] * 50), 2, count=5)])
    assert runs[0] != runs[1] != runs[2] != runs[0]


def test_generations_are_drawn_independently():
    """One stream reused in every generation would give the same draws each time: variances would not add up."""
    walk = Family(lambda data, rng, previous: data.mean(), lambda theta, n, rng: theta + rng.normal(size=n))
    ends = [run(walk, np.zeros(4), seed, count=5)[-1].theta for seed in range(400)]
    z = (np.var(ends) - 4 / 4) / (np.sqrt(2 / 400) * 4 / 4)  # four rounds, each of variance 1 / 4
    assert abs(z) < 4


def test_every_purpose_of_every_generation_has_a_stream_of_its_own():
    states = []

    def noted(rng):
        states.append(str(rng.bit_generator.state))
        return rng

    family = Family(
        lambda data, rng, previous: noted(rng).random(), lambda theta, n, rng: noted(rng).integers(2, size=n)
    )
    mixture = Mixture(alpha=0.5, beta=0.25, gamma=0.25, shares="multinomial", points="fresh")
    list(
        islice(generations(family, lambda n, rng: noted(rng).integers(2, size=n), rng(), mixture=mixture, sizes=12), 4)
    )
    fits, samples, sources = 4, 3, 1 + 3
    assert len(set(states)) >= fits + samples + sources


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox])
def test_streams_are_of_the_kind_of_the_generator(kind):
    seen = []
    family = Family(lambda data, rng, previous: seen.append(type(rng.bit_generator)), lambda theta, n, rng: np.ones(n))
    next(generations(family, np.ones(3), np.random.Generator(kind(1))))
    assert seen == [kind]


def test_a_source_may_return_its_own_buffer():
    buffer = np.arange(10)
    first = next(generations(COUNTER, lambda n, rng: buffer, rng(), sizes=10))
    buffer[:] = -1
    assert first.data.min() == 0


def test_sizes_may_vary():
    sizes = [len(g.data) for g in run(COIN, zeros, 0, sizes=lambda i: 10 * (i + 1))]
    assert sizes == [10, 20, 30, 40]
    assert [len(g.data) for g in run(COIN, np.array([0, 1, 1]), 0, sizes=5)] == [3, 5, 5, 5]


def test_accumulation_keeps_every_generation():
    mixture = lambda i: Mixture(alpha=1 / (i + 2), beta=(i + 1) / (i + 2))  # noqa: E731
    last = run(COUNTER, np.zeros(5, dtype=int), 0, mixture=mixture, sizes=lambda i: 5 * (i + 1))[-1]
    assert sorted(last.data) == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


# Mixtures


@pytest.mark.parametrize(
    ("weights", "n", "expected"),
    [
        ((1, 0, 0), 7, (7, 0, 0)),
        ((0.9, 0, 0.1), 64, (58, 0, 6)),
        ((1 / 3, 1 / 3, 1 / 3), 10, (4, 3, 3)),
        ((0.7, 0.2, 0.1), 10, (7, 2, 1)),
        ((0.1 + 0.2, 0.7, 0), 10, (3, 7, 0)),
        ((0.5, 0.25, 0.25), 5, (3, 1, 1)),
    ],
)
def test_fixed_counts_by_largest_remainder(weights, n, expected):
    assert Mixture(*weights).counts(n, rng()) == expected


def test_multinomial_counts_have_the_weights_as_means():
    mixture = Mixture(0.7, 0.2, 0.1, shares="multinomial")
    stream = rng()
    counts = np.array([mixture.counts(50, stream) for _ in range(2000)])
    assert (counts.sum(1) == 50).all()
    deviation = np.sqrt(50 * np.array([0.7 * 0.3, 0.2 * 0.8, 0.1 * 0.9]) / 2000)
    assert (abs((counts.mean(0) - 50 * np.array([0.7, 0.2, 0.1])) / deviation) < 4).all()
    assert (counts.std(0) > 1).all()


def test_reused_points_are_points_without_replacement():
    original = np.arange(100)
    family = Family(lambda data, rng, previous: None, lambda theta, n, rng: np.full(n, -1))
    generation = run(family, original, 0, mixture=Mixture(alpha=0.5, gamma=0.5), count=2)[1]
    kept = generation.data[generation.data >= 0]
    assert len(kept) == len(set(kept)) == 50
    assert sorted(kept) != list(range(50))


def test_reused_previous_points_come_from_the_previous_data():
    generation = run(COUNTER, np.zeros(8, dtype=int), 0, mixture=Mixture(alpha=0.5, beta=0.5), count=4)[3]
    assert sorted(generation.data)[-4:] == [3] * 4
    assert len(generation.data) == 8
    assert max(sorted(generation.data)[:4]) <= 2


def test_fresh_previous_points_come_from_the_distribution_of_the_previous_generation():
    """Unrolled, p_3 = .5 (theta_2) + .25 (theta_1) + .125 (theta_0) + .125 (p_0): so are the beta points of D_4."""
    mixture = Mixture(alpha=0.5, beta=0.5, points="fresh")
    data = run(COUNTER, zeros, 1, count=5, mixture=mixture, sizes=20000)[4].data
    assert (data == 4).sum() == 10000  # the new model's fixed share
    counts = np.bincount(data, minlength=5)[:4]
    expected = 10000 * np.array([0.125, 0.125, 0.25, 0.5])
    assert (abs(counts - expected) / np.sqrt(expected * (1 - expected / 10000)) < 4).all()


def test_fresh_original_points_are_new_draws():
    source = lambda n, rng: rng.normal(size=n)  # noqa: E731
    family = Family(lambda data, rng, previous: None, lambda theta, n, rng: np.zeros(n))
    runs = run(family, source, 1, mixture=Mixture(alpha=0.5, gamma=0.5, points="fresh"), sizes=10)
    values = np.concatenate([g.data[g.data != 0] for g in runs])
    assert len(set(values)) == len(values) == 10 + 3 * 5


# Measuring


def test_trace_gives_one_long_table():
    rows = trace(islice(generations(COIN, np.array([0, 1]), rng()), 3), {"mean": lambda g: g.theta}, seed=4)
    assert [sorted(row) for row in rows] == [["generation", "metric", "seed", "value"]] * 3
    assert [row["generation"] for row in rows] == [0, 1, 2]


def test_a_reader_plugs_in_a_model_in_ten_lines():
    def fit(data, rng, previous):
        return data.mean()

    def sample(theta, n, rng):
        return rng.exponential(theta, n)

    exponential = Family(fit, sample)
    source = lambda n, rng: rng.exponential(1.0, n)  # noqa: E731
    runs = generations(exponential, source, np.random.default_rng(0), sizes=10)
    means = [g.theta for g in islice(runs, 200)]
    assert means[-1] < means[0] / 10  # E log(mean of 10) < 0: the scale is lost


# Errors: the argument, its value, what is allowed


def mixed(**options):
    return lambda: run(COIN, np.array([0, 1] * 5), 0, mixture=Mixture(**options))


def family_of(sample, original=None):
    model = Family(lambda data, rng, previous: 0.5, sample)
    return lambda: run(model, np.zeros((10, 2)) if original is None else original, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (mixed(alpha=1.5, beta=-0.5), "beta = -0.5: a weight must be >= 0"),
        (mixed(alpha=float("nan")), "alpha = nan: must be a finite real number"),
        (mixed(alpha=0.5), "weights must sum to 1"),
        (mixed(alpha=0.5, beta=0.499), "weights must sum to 1"),
        (mixed(shares="even"), "shares = 'even': allowed are"),
        (mixed(points="old"), "points = 'old': allowed are"),
        (mixed(alpha=0.99, gamma=0.01), "gamma = 0.01: of 10 points its fixed share is 0 points"),
        (mixed(alpha=0.5, gamma=0.5, points="fresh"), "points = 'fresh': new draws from p_0 need original"),
        (lambda: run(COIN, zeros, 0), "sizes = None"),
        (lambda: run(COIN, zeros, 0, sizes=0), "sizes = 0: must be an integer >= 1"),
        (lambda: run(COIN, np.array([0, 1]), 0, sizes=-3), "sizes = -3"),
        (lambda: run(COIN, np.array([0, 1]), 0, sizes=2.0), "sizes = 2.0: must be an integer"),
        (lambda: run(COIN, zeros, 0, sizes=lambda i: 3 - i), "sizes: M_3 = 0: must be an integer >= 1"),
        (lambda: run(COIN, zeros, 0, sizes=True), "sizes = True"),
        (lambda: run(COIN, [0, 1], 0), "original: data must be an array"),
        (lambda: run(COIN, lambda n, rng: np.zeros(n + 1), 0, sizes=10), "original: 10 points were asked for, got 11"),
        (lambda: run(COIN, np.array([None, 1]), 0), "original: data must be numbers or fixed-size symbols"),
        (lambda: run((COIN.fit, COIN.sample), np.array([0, 1]), 0), "must be a Family(fit, sample)"),
        (lambda: generations(COIN, np.array([0, 1]), rng(), sizes=0), "sizes = 0: must be an integer >= 1"),
        (lambda: run(COIN, np.array([]), 0), "original: data must be an array with at least one point"),
        (lambda: run(COIN, np.array([0.0, np.nan]), 0), "original: data hold NaN"),
        (lambda: run(COIN, np.array([0, 1]), 0, mixture=0.5), "mixture = 0.5: allowed are a Mixture"),
        (
            lambda: run(COIN, np.array([0, 1]), 0, sizes=8, mixture=Mixture(alpha=0.5, gamma=0.5)),
            "4 points of D_0 to re-use without replacement, but it has only 2",
        ),
        (lambda: generations(COIN, np.array([0, 1]), 5), "rng = 5: must be a numpy.random.Generator"),
        (lambda: generations(COIN, np.array([0, 1]), np.random.Generator(Unseeded())), "cannot spawn"),
        (family_of(lambda theta, n, rng: np.zeros((n + 1, 2))), "family.sample: 10 points were asked for, got 11"),
        (family_of(lambda theta, n, rng: np.zeros((n, 3))), "points must be float64 of shape (2,)"),
        (family_of(lambda theta, n, rng: np.zeros((n, 2), dtype="f4")), "got float32 of shape (2,)"),
        (family_of(lambda theta, n, rng: np.full((n, 2), np.nan)), "family.sample: data hold NaN"),
        (family_of(lambda theta, n, rng: [0] * n), "family.sample: data must be an array"),
    ],
)
def test_bad_input_raises_one_clear_error(call, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    assert message in str(caught.value)


class Unseeded(np.random.PCG64):
    """A bit generator that does not know its seed."""

    seed_seq = None


def test_measuring_in_place_does_not_reach_the_next_generation():
    original = np.array([0, 1] * 5)
    first = next(generations(COIN, original, rng(), mixture=Mixture(alpha=0.5, gamma=0.5)))
    second = run(COIN, original, 0, mixture=Mixture(alpha=0.5, beta=0.5), count=2)[1]
    for generation in (first, second):
        with pytest.raises(ValueError, match="read-only"):
            generation.data.sort()
    original[:] = 7
    assert set(first.data) == {0, 1}


def test_a_mixture_may_turn_to_fresh_points_of_the_generation_before():
    later = Mixture(alpha=0.5, beta=0.5, points="fresh")
    last = run(COUNTER, zeros, 0, count=5, mixture=lambda i: Mixture() if i < 3 else later, sizes=10)[-1]
    assert sorted(last.data) == [3] * 5 + [4] * 5  # p_3 is the model of generation 2 alone


def test_errors_come_before_the_first_generation():
    with pytest.raises(ValueError, match="sizes = None"):
        generations(COIN, zeros, rng())  # not even asked for a generation


def test_generation_is_a_tuple():
    assert Generation(0, None, 1).theta == 1


# Points that keep their places

ECHO = Family(  # a model whose points name their generation (tens) and their position (ones)
    lambda data, rng, previous: (0 if previous is None else previous) + 10,
    lambda theta, n, rng: theta + np.arange(n),
    lambda theta, positions, rng: theta + positions,
)


def test_placed_points_keep_their_positions_and_come_from_the_source_they_were_dealt():
    mixture = Mixture(0.5, 0.3, 0.2, points="placed")
    first, second, third = (g.data for g in run(ECHO, np.arange(10), 1, 3, mixture=mixture))
    np.testing.assert_array_equal(first, np.arange(10))
    np.testing.assert_array_equal(third % 10, np.arange(10))
    assert np.bincount(second // 10).tolist() == [5, 5]  # the old and the original are one in generation 1
    new = third // 10 == 2
    assert new.sum() == 5
    assert set(third[~new] // 10) <= {0, 1}
    assert (third[~new] == second[~new]).sum() >= 3  # the old part


def test_placed_points_are_dealt_anew_in_every_generation():
    mixture = Mixture(0.5, 0.0, 0.5, points="placed")
    data = [g.data for g in run(ECHO, np.arange(10), 1, 6, mixture=mixture)]
    assert len({tuple(d // 10 > 0) for d in data[1:]}) > 1


def test_placed_original_points_are_of_the_original_whatever_stood_there_since():
    mixture = Mixture(0.5, 0.0, 0.5, points="placed")
    for g in run(ECHO, np.arange(10), 1, 6, mixture=mixture)[1:]:
        assert sorted(g.data // 10) == [0] * 5 + [g.index] * 5


def test_placed_points_are_drawn_from_another_stream_in_every_generation():
    noise = ECHO._replace(sample_at=lambda theta, positions, rng: rng.integers(10**9, size=len(positions)))
    data = [g.data for g in run(noise, np.arange(10), 1, 4, mixture=Mixture(points="placed"))]
    assert len({point for d in data for point in d.tolist()}) == 40


def test_placed_points_with_no_share_of_the_model_ask_it_nothing():
    def refuse(theta, positions, rng):
        raise AssertionError("asked")

    kept = run(ECHO._replace(sample_at=refuse), np.arange(4), 0, 3, mixture=Mixture(0, 1, 0, points="placed"))
    assert all((g.data == np.arange(4)).all() for g in kept)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (COUNTER, {}, "the family has no sample_at"),
        (ECHO, {"sizes": lambda i: 4 + i}, "M_0 = 4, M_0 = 4, M_1 = 5: must be one number"),
        (ECHO._replace(sample_at=lambda theta, positions, rng: np.zeros(3, int)), {}, "family.sample_at: 4 points"),
        (ECHO._replace(sample_at=lambda theta, positions, rng: positions / 2), {}, "sample_at: points must be int"),
    ],
)
def test_what_cannot_be_placed_is_refused(family, options, message):
    with pytest.raises(ValueError, match=message):
        run(family, np.arange(4), 0, 2, mixture=Mixture(points="placed"), **options)
