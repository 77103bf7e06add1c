"""The discrete chain against rational arithmetic, second derivations and simulation (z-scores at fixed seeds)."""

from fractions import Fraction
from itertools import islice, product
from math import comb

import numpy as np
import pytest

from model_collapse import discrete, discrete_simulation
from model_collapse.process import Mixture, generations

ZIPF = 1 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()


def z_score(samples, expected):
    """(Mean - expected) / standard error, along axis 0."""
    samples = np.asarray(samples, dtype=float)
    return (samples.mean(axis=0) - expected) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


def heterozygosity(counts):
    """1 - sum of squared frequencies, along the last axis."""
    return 1 - ((counts / counts.sum(axis=-1, keepdims=True)) ** 2).sum(axis=-1)


def rational_transition(M):
    """The two-state chain in rational arithmetic, straight from the binomial formula."""

    def binomial(p):
        return [comb(M, j) * p**j * (1 - p) ** (M - j) for j in range(M + 1)]

    return [binomial(Fraction(k, M)) for k in range(M + 1)]


def solved(A, b):
    """Gauss-Jordan elimination in rational arithmetic."""
    rows = [[*row, value] for row, value in zip(A, b, strict=True)]
    for c in range(len(rows)):
        pivot = rows[c] = [x / rows[c][c] for x in rows[c]]
        for r, row in enumerate(rows):
            if r != c:
                rows[r] = [x - row[c] * y for x, y in zip(row, pivot, strict=True)]
    return [row[-1] for row in rows]


# Loss of states ------------------------------------------------------------------------


def test_tail_loss_in_rational_arithmetic():
    q = [Fraction(1, 1000), Fraction(1, 7), Fraction(0), Fraction(1)]
    expected = [float((1 - x) ** 500) for x in q]
    np.testing.assert_allclose(discrete.tail_loss([float(x) for x in q], 500), expected, rtol=1e-12)


def test_tail_loss_of_a_rare_state_is_exponential():
    assert discrete.tail_loss(1e-6, 10**6) == pytest.approx(np.exp(-1), rel=1e-6)


def test_survival_in_rational_arithmetic():
    M, q = 7, Fraction(1, 5)
    alive = [Fraction(int(k > 0)) for k in range(M + 1)]
    first = [comb(M, j) * q**j * (1 - q) ** (M - j) for j in range(M + 1)]
    matrix = rational_transition(M)
    for n in range(1, 6):
        expected = float(sum(a * b for a, b in zip(first, alive, strict=True)))
        assert discrete.survival(0.2, M, n) == pytest.approx(expected, rel=1e-12)
        alive = [sum(a * b for a, b in zip(row, alive, strict=True)) for row in matrix]


def test_survival_starts_at_one_and_ends_at_q():
    q = np.array([0.005, 0.05, 0.3, 1.0])
    assert discrete.survival(q, 100, 0).tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(discrete.survival(q, 100, 5_000), q, rtol=1e-12)
    np.testing.assert_allclose(discrete.survival(q, 100, 1), 1 - discrete.tail_loss(q, 100), rtol=1e-12)


def test_survival_shapes():
    q = np.full((2, 3), 0.1)
    assert discrete.survival(q, 10, 4).shape == (2, 3)
    assert discrete.survival(q, 10, [4, 0, 2]).shape == (3, 2, 3)
    assert discrete.survival(0.1, 10, [4, 0, 2])[0] == discrete.survival(0.1, 10, 4)
    assert np.ndim(discrete.survival(0.1, 10, 4)) == 0
    assert discrete.survival_branching(q, 10, [4, 0, 2]).shape == (3, 2, 3)


def test_expected_support_against_simulation():
    counts = discrete.simulate(ZIPF, 50, 100, 4_000, np.random.default_rng(1), lambda c: (c > 0).sum(axis=1))
    n = [1, 3, 10, 30, 100]
    z = z_score(counts[np.array(n) - 1].T, discrete.expected_support(ZIPF, 50, n))
    assert np.abs(z).max() < 4, z


def test_expected_support_of_a_known_case():
    exact = discrete.expected_support(1 / np.arange(1, 1001) / (1 / np.arange(1, 1001)).sum(), 500, [1, 10, 50, 200])
    np.testing.assert_allclose(exact, [210.80, 56.02, 16.17, 4.97], atol=0.006)


def test_branching_is_the_limit_of_large_samples():
    """At fixed M q and n the error falls like 1/M."""
    n, sizes = [1, 5, 20], np.array([125, 250, 500, 1000])
    exact = np.array([discrete.survival(2 / M, int(M), n) for M in sizes])
    limit = np.array([discrete.survival_branching(2 / M, int(M), n) for M in sizes])
    errors = np.abs(exact / limit - 1)
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2, rtol=0.1)


def test_branching_survivors_fall_like_two_over_n():
    kept = discrete.survival_branching(1e-6, 10**6, [1_000, 10_000]) * [500, 5_000]
    assert (np.abs(kept - 1) < [0.01, 0.001]).all()
    assert discrete.survival_branching([0.0, 0.5], 10, 0).tolist() == [0, 1]


# Heterozygosity ------------------------------------------------------------------------


def test_heterozygosity_against_simulation():
    seen = discrete.simulate(ZIPF, 50, 40, 4_000, np.random.default_rng(2), heterozygosity)
    n = np.array([1, 2, 10, 40])
    z = z_score(seen[n - 1].T, discrete.expected_heterozygosity(ZIPF, 50, n))
    assert np.abs(z).max() < 4, z


def test_heterozygosity_from_the_two_state_chain():
    """E 2 X (M - X) / M^2 by powers of the matrix."""
    M, p, k = 30, 0.3, np.arange(31)
    row = np.array([comb(M, j) * p**j * (1 - p) ** (M - j) for j in k])
    for n in (1, 2, 9):
        now = row @ np.linalg.matrix_power(discrete.transition(M), n - 1)
        expected = (now * 2 * k * (M - k) / M**2).sum()
        assert discrete.expected_heterozygosity([p, 1 - p], M, n) == pytest.approx(expected, rel=1e-12)


PAIRINGS = list(product(("fixed", "multinomial"), ("reused", "fresh")))
K, M, COUNTS, ROUNDS = 20, 4, (2, 1, 1), 5  # where the four pairings differ most: by .018 in H, or more


def pairing(shares, points):
    alpha, beta, gamma = np.array(COUNTS) / M
    return Mixture(alpha, beta, gamma, shares, points)


def simulated_pairing(mixture, runs, seed):
    """Heterozygosity of the data of generations 2 to 4, averaged, for each run of the loop of `process`."""

    def original(n, rng):
        return rng.integers(0, K, n)

    def one(rng):
        loop = generations(discrete.family(K), original, rng, mixture=mixture, sizes=M)
        return np.mean([1 - (g.theta**2).sum() for g in islice(loop, 2, ROUNDS)])

    return np.array([one(rng) for rng in np.random.default_rng(seed).spawn(runs)])


@pytest.mark.parametrize("which", PAIRINGS, ids="-".join)
def test_each_pairing_of_mixtures_has_its_own_formula(which):
    """The pairing's formula agrees with the loop, and the other three are rejected by it."""
    seen = simulated_pairing(pairing(*which), 6_000, seed=PAIRINGS.index(which))
    p = np.full(K, 1 / K)
    paths = [discrete.mixture_heterozygosity(p, M, ROUNDS, pairing(*other)) for other in PAIRINGS]
    z = [z_score(seen, path[3:].mean()) for path in paths]
    assert abs(z.pop(PAIRINGS.index(which))) < 4
    assert np.abs(z).min() > 5, z


@pytest.mark.parametrize("which", PAIRINGS, ids="-".join)
def test_mixture_of_the_new_model_alone_is_the_plain_chain(which):
    path = discrete.mixture_heterozygosity(ZIPF, 10, 20, Mixture(1, 0, 0, *which))
    np.testing.assert_allclose(path, discrete.expected_heterozygosity(ZIPF, 10, range(21)), rtol=1e-12)


@pytest.mark.parametrize("shares", ["fixed", "multinomial"])
def test_mixture_of_fresh_original_points_alone_stays(shares):
    path = discrete.mixture_heterozygosity(ZIPF, 10, 5, Mixture(0, 0, 1, shares, "fresh"))
    np.testing.assert_allclose(path[1:], path[0] * (1 - 1 / 10), rtol=1e-12)


def test_closed_forms_with_beta():
    """Fresh and multinomial: H of p_n is H_0 (1 - (1-b)^2/M)^n. Re-used and fixed: a factor of the data a round."""
    M, b, n, H0 = 200, 0.5, 100, 0.95
    p = np.full(20, 1 / 20)
    fresh = discrete.mixture_heterozygosity(p, M, n + 1, Mixture(1 - b, b, 0, "multinomial", "fresh"))
    assert fresh[-1] / (1 - 1 / M) == pytest.approx(H0 * (1 - (1 - b) ** 2 / M) ** n, rel=1e-12)
    reused = discrete.mixture_heterozygosity(p, M, n + 1, Mixture(1 - b, b, 0, "fixed", "reused"))
    factor = 1 - ((1 - b) + b * (1 - b) * M / (M - 1)) / M
    assert reused[-1] == pytest.approx(H0 * (1 - 1 / M) * factor**n, rel=1e-12)


@pytest.mark.parametrize("shares", ["fixed", "multinomial"])
def test_stationary_homozygosity_is_where_the_recursion_ends(shares):
    path = discrete.mixture_heterozygosity(ZIPF, 50, 2_000, Mixture(0.9, 0, 0.1, shares, "fresh"))
    assert 1 - path[-1] == pytest.approx(discrete.stationary_homozygosity(ZIPF, 50, 0.1, shares), rel=1e-12)


def test_diversity_kept_depends_on_fresh_points():
    """(1 - F*) / (1 - F_0) tends to 2 gamma M / (1 + 2 gamma M), with an error like 1/M."""
    F0, c = (ZIPF**2).sum(), 1.5
    kept = np.array([(1 - discrete.stationary_homozygosity(ZIPF, M, c / M)) / (1 - F0) for M in (100, 1_000, 10_000)])
    errors = np.abs(kept - 2 * c / (1 + 2 * c))
    np.testing.assert_allclose(errors[:-1] / errors[1:], 10, rtol=0.1)


def test_fresh_original_points_undo_absorption_and_their_absence_does_not():
    def original(n, rng):
        return rng.integers(0, 2, n)

    def alone(mixture):
        run = generations(discrete.family(2), original, np.random.default_rng(5), mixture=mixture, sizes=5)
        return np.array([g.theta.max() == 1 for g in islice(run, 300)])

    without, fresh = alone(Mixture()), alone(Mixture(0.8, 0, 0.2, "fixed", "fresh"))
    assert without[np.argmax(without) :].all()
    assert fresh.any()
    assert not fresh[np.argmax(fresh) :].all()


# Spectrum and absorption ---------------------------------------------------------------


def test_leading_eigenvalues():
    numeric = np.sort(np.linalg.eigvals(discrete.transition(50)).real)[::-1]
    np.testing.assert_allclose(discrete.spectrum(50)[:20], numeric[:20], rtol=1e-9)


def test_all_eigenvalues_by_traces_in_rational_arithmetic():
    """Sums of the powers of eigenvalues are traces of powers: exact for each of the M + 1."""
    M = 6
    matrix, power = rational_transition(M), rational_transition(M)
    for k in range(1, M + 2):
        trace = float(sum(power[i][i] for i in range(M + 1)))
        assert (discrete.spectrum(M) ** k).sum() == pytest.approx(trace, rel=1e-12)
        columns = list(zip(*matrix, strict=True))
        power = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in power]
    assert (np.diff(discrete.spectrum(M)) <= 0).all()


def test_survival_of_both_states_has_the_tail_of_the_second_eigenvalue():
    """P(both of two states live after n rounds) ~ c(M) p (1 - p) (1 - 1/M)^n, and c(M) tends to 6."""
    p, constants = 0.3, []
    for M in (50, 100, 200, 400):
        n = 10 * M
        both = discrete.survival(p, M, n) + discrete.survival(1 - p, M, n) - 1
        constants.append(both / (p * (1 - p) * (1 - 1 / M) ** n))
    errors = np.abs(np.array(constants) - 6)
    assert (errors[1:] < 0.6 * errors[:-1]).all()
    assert errors[-1] < 0.02 * 6


def test_absorption_times_in_rational_arithmetic():
    M = 12
    matrix = rational_transition(M)
    A = [[int(i == j) - matrix[i][j] for j in range(1, M)] for i in range(1, M)]
    expected = [float(t) for t in solved(A, [Fraction(1)] * (M - 1))]
    np.testing.assert_allclose(discrete.absorption_times(M), [0, *expected, 0], rtol=1e-13)


@pytest.mark.parametrize("M", [1, 2, 200, 2_000])
def test_absorption_times_obey_their_equation(M):
    times = discrete.absorption_times(M)
    residual = times - discrete.transition(M) @ times - 1
    assert np.abs(residual[1:-1]).max(initial=0) < 1e-9
    np.testing.assert_allclose(times, times[::-1], rtol=1e-12)
    assert times[0] == times[-1] == 0


def test_absorption_times_are_sums_of_survival():
    """E T = sum over n of P(T > n), from the two-state survival."""
    M, k = 20, 6
    n = np.arange(1_000)
    both = discrete.survival(k / M, M, n) + discrete.survival(1 - k / M, M, n) - 1
    assert both.sum() == pytest.approx(discrete.absorption_times(M)[k], rel=1e-10)


def test_three_states_contain_two():
    times, two = discrete.absorption_times_three(30), discrete.absorption_times(30)
    for edge in (times[0], times[:, 0], times[::-1].diagonal()):
        np.testing.assert_allclose(edge, two, rtol=1e-11)
    assert np.isnan(times[20, 11])
    assert not np.isnan(times[20, 10])
    np.testing.assert_allclose(times, times.T, rtol=1e-11)


def absorption_rounds(p, M, generations_, replicates, seed):
    """Rounds until one state is left, by simulation; every lineage must have ended."""
    alone = discrete.simulate(p, M, generations_, replicates, np.random.default_rng(seed), lambda c: c.max(axis=1) == M)
    assert alone[-1].all()
    return np.argmax(alone, axis=0) + 1


def test_absorption_times_against_simulation():
    two = absorption_rounds([0.25, 0.75], 40, 2_000, 4_000, seed=11)
    assert abs(z_score(two, discrete.absorption_times(40)[10])) < 4
    three = absorption_rounds([0.5, 0.3, 0.2], 30, 2_000, 4_000, seed=12)
    assert abs(z_score(three, discrete.absorption_times_three(30)[15, 9])) < 4


def test_all_distinct_points_end_when_all_have_one_ancestor():
    """Backwards a lineages throw a balls into M boxes: rounds until one is left, and 2 (M - 1) in the large-M limit."""
    M = 50
    seen = absorption_rounds(np.full(M, 1 / M), M, 4_000, 8_000, seed=13)
    boxes = np.eye(1, M + 1)[0]
    rounds = np.zeros(M + 1)
    for a in range(1, M + 1):
        boxes = boxes * np.arange(M + 1) / M + np.append(0, (boxes * (1 - np.arange(M + 1) / M))[:-1])  # one ball more
        if a > 1:
            rounds[a] = (1 + boxes[:a] @ rounds[:a]) / (1 - boxes[a])
    assert abs(z_score(seen, rounds[M])) < 4
    assert rounds[M] == pytest.approx(2 * (M - 1), rel=0.05)


def test_diffusion_is_the_limit_of_large_samples_from_above():
    ratios = []
    for M in (50, 100, 200, 400):
        ratios.append(discrete.absorption_time_diffusion([0.5, 0.5], M) / discrete.absorption_times(M)[M // 2] - 1)
    assert (np.array(ratios) > 0).all()
    np.testing.assert_allclose(np.array(ratios[:-1]) / ratios[1:], 2, rtol=0.15)
    assert discrete.absorption_time_diffusion([1.0, 0.0], 10) == 0
    assert discrete.absorption_time_diffusion(np.full(10**5, 1e-5), 7) == pytest.approx(14, rel=1e-4)


def test_end_state_is_distributed_as_the_original():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    ends = discrete.simulate(p, 20, 600, 8_000, np.random.default_rng(14), lambda c: c.argmax(axis=1))[-1]
    seen = np.bincount(ends, minlength=4) / 8_000
    z = (seen - p) / np.sqrt(p * (1 - p) / 8_000)
    assert np.abs(z).max() < 4, z


# Simulation ----------------------------------------------------------------------------

COPYING, PACKING = 20, 200  # sample sizes at which three states are simulated by copied points, and by packed counts


@pytest.mark.parametrize(("M", "copies"), [(COPYING, True), (PACKING, False)])
def test_the_two_sizes_run_both_ways_of_simulating(monkeypatch, M, copies):
    called = []
    copied = discrete_simulation._copied
    monkeypatch.setattr(discrete_simulation, "_copied", lambda *a: called.append(1) or copied(*a))
    discrete.simulate([0.2, 0.5, 0.3], M, 6, 100, np.random.default_rng(0))
    assert bool(called) == copies


@pytest.mark.parametrize("M", [COPYING, PACKING])
def test_simulated_counts_have_the_exact_law(M):
    """The count of a state after n rounds against the two-state chain, by chi-square as a z-score."""
    p, R = np.array([0.2, 0.5, 0.3]), 20_000
    counts = discrete.simulate(p, M, 6, R, np.random.default_rng(21))
    law = np.array([comb(M, j) * 0.2**j * 0.8 ** (M - j) for j in range(M + 1)])
    for n in range(1, 7):
        wide = law * R > 5
        seen = np.bincount(counts[n - 1, :, 0], minlength=M + 1)
        chi2 = ((seen - law * R)[wide] ** 2 / (law * R)[wide]).sum()
        assert abs(chi2 - wide.sum()) / np.sqrt(2 * wide.sum()) < 4
        law = law @ discrete.transition(M)


def plain_loop(p, M, generations_, replicates, rng):
    counts = np.empty((generations_, replicates, len(p)), int)
    for r in range(replicates):
        now = np.asarray(p) * M
        for i in range(generations_):
            now = counts[i, r] = np.bincount(rng.choice(len(p), M, p=now / M), minlength=len(p))
    return counts


def statistics(counts):
    """Heterozygosity, support, a count, a product of two, and their squares, for each round and replicate."""
    product_ = counts[..., 1] * counts[..., 2].astype(float)
    first = np.array([heterozygosity(counts), (counts > 0).sum(-1), counts[..., 0], product_])
    return np.concatenate([first, first**2])


def test_simulation_agrees_with_the_plain_loop():
    ours = statistics(discrete.simulate(ZIPF, 60, 60, 1_000, np.random.default_rng(31)))
    loop = statistics(plain_loop(ZIPF, 60, 60, 400, np.random.default_rng(32)))
    noise = np.sqrt(ours.var(-1, ddof=1) / ours.shape[-1] + loop.var(-1, ddof=1) / loop.shape[-1])
    z = (ours.mean(-1) - loop.mean(-1)) / noise
    assert np.abs(z).max() < 4.5, np.abs(z).max()  # the largest of 480


def test_simulation_agrees_with_the_loop_of_process():
    p = np.array([0.6, 0.3, 0.1])
    runs = []
    for rng in np.random.default_rng(41).spawn(500):
        loop = generations(discrete.family(3), lambda n, rng: rng.choice(3, n, p=p), rng, sizes=10)
        runs.append([g.theta for g in islice(loop, 6)])
    ours = discrete.simulate(p, 10, 6, 20_000, np.random.default_rng(42)) / 10
    squares = (np.array(runs) ** 2).mean(axis=2)
    z = z_score(squares, (ours**2).mean(axis=(1, 2)))
    assert np.abs(z).max() < 4, z


@pytest.mark.parametrize("M", [COPYING, 300])
def test_counts_are_counts_and_the_dead_stay_dead(M):
    p = np.append(np.full(30, 1 / 30), 0.0)
    counts = discrete.simulate(p, M, 400, 30, np.random.default_rng(51))
    assert counts.shape == (400, 30, 31)
    assert counts.dtype == np.int32
    assert (counts >= 0).all()
    assert (counts.sum(axis=2) == M).all()
    alive = counts > 0
    assert not (alive[1:] & ~alive[:-1]).any()
    assert not alive[:, :, -1].any()


@pytest.mark.parametrize(("M", "K"), [(5, 3), (20, 3), (300, 4), (300, 40), (1, 5), (50, 1)])
def test_observed_counts_are_the_stored_ones(M, K):
    p = np.full(K, 1 / K)
    stored = discrete.simulate(p, M, 200, 7, np.random.default_rng(61))
    seen = discrete.simulate(p, M, 200, 7, np.random.default_rng(61), lambda counts: counts)
    assert np.array_equal(stored, seen)


def test_observed_counts_are_read_only():
    def spoil(counts):
        counts[0, 0] = 0

    with pytest.raises(ValueError, match="read-only"):
        discrete.simulate([0.5, 0.5], 10, 2, 1, np.random.default_rng(0), spoil)


def test_squares_of_counts_fit_their_type():
    for M in (46_340, 46_341):
        counts = discrete.simulate([1.0], M, 1, 1, np.random.default_rng(0))
        assert int((counts**2)[0, 0, 0]) == M**2


def test_same_seed_same_counts():
    first, second = (discrete.simulate(ZIPF, 50, 30, 5, np.random.default_rng(71)) for _ in range(2))
    assert np.array_equal(first, second)


def test_equally_common_states_are_packed_in_their_own_order():
    """An order that is not stable differs from processor to processor, and so would the draws."""
    cells = np.arange(400).reshape(1, -1)
    _, packed, _ = discrete_simulation._packed(cells, np.tile([1, 2], 200).reshape(1, -1))
    assert packed[0].tolist() == [*range(0, 400, 2), *range(1, 400, 2)]


def test_generation_zero_is_the_first_round():
    counts = discrete.simulate([0.5, 0.5], 4, 1, 40_000, np.random.default_rng(81))[0, :, 0]
    law = np.array([1, 4, 6, 4, 1]) / 16
    z = (np.bincount(counts, minlength=5) / 40_000 - law) / np.sqrt(law * (1 - law) / 40_000)
    assert np.abs(z).max() < 4, z


# Errors --------------------------------------------------------------------------------

HALF = [0.5, 0.5]
RNG = np.random.default_rng(0)
MIX = Mixture(0.5, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discrete.tail_loss(1.1, 10), r"q = 1\.1: probabilities must lie in \[0, 1\]"),
        (lambda: discrete.tail_loss([0.5, np.nan], 10), "q = nan"),
        (lambda: discrete.tail_loss(0.5, 0), "M = 0: must be an integer >= 1"),
        (lambda: discrete.tail_loss(0.5, 10.0), r"M = 10\.0"),
        (lambda: discrete.tail_loss(0.5, True), "M = True"),
        (lambda: discrete.survival(-0.1, 10, 1), r"q = -0\.1"),
        (lambda: discrete.survival(0.1, 10, -1), "n = -1"),
        (lambda: discrete.survival(0.1, 10, 1.5), r"n = 1\.5"),
        (lambda: discrete.survival(0.1, 10, []), r"n = \[\]"),
        (lambda: discrete.survival(0.1, 4_001, 1), "M = 4001: must be an integer from 1 to 4000"),
        (lambda: discrete.survival_branching(2, 10, 1), r"q = 2\.0"),
        (lambda: discrete.survival_branching(0.5, 10, -3), "n = -3"),
        (lambda: discrete.expected_support([0.5, 0.4], 10, 1), r"p sums to 0\.9: probabilities must sum to 1"),
        (lambda: discrete.expected_support([1.5, -0.5], 10, 1), r"p holds -0\.5"),
        (lambda: discrete.expected_support([np.nan, 0.5], 10, 1), "p holds nan"),
        (lambda: discrete.expected_support([np.inf, 0.5], 10, 1), "p holds inf"),
        (lambda: discrete.expected_support([], 10, 1), r"p has shape \(0,\)"),
        (lambda: discrete.expected_support([HALF], 10, 1), r"p has shape \(1, 2\)"),
        (lambda: discrete.expected_heterozygosity(HALF, 0, 1), "M = 0"),
        (lambda: discrete.expected_heterozygosity(HALF, 10, -1), "n = -1"),
        (lambda: discrete.mixture_heterozygosity(HALF, 1, 1, MIX), "M = 1: must be an integer >= 2"),
        (lambda: discrete.mixture_heterozygosity(HALF, 10, -1, MIX), "n = -1"),
        (lambda: discrete.mixture_heterozygosity(HALF, 10, 3, Mixture(0.99, 0, 0.01)), r"gamma = 0\.01"),
        (lambda: discrete.mixture_heterozygosity(HALF, 10, 3, Mixture(points="placed")), "words have no places"),
        (lambda: discrete.stationary_homozygosity(HALF, 10, 0), "gamma = 0: the share"),
        (lambda: discrete.stationary_homozygosity(HALF, 10, float("nan")), "gamma = nan"),
        (lambda: discrete.stationary_homozygosity(HALF, 10, 0.15, "fixed"), r"gamma = 0\.15: under fixed shares"),
        (lambda: discrete.stationary_homozygosity(HALF, 10, 0.1, "odd"), "shares = 'odd'"),
        (lambda: discrete.spectrum(0), "M = 0"),
        (lambda: discrete.absorption_times(0), "M = 0"),
        (lambda: discrete.absorption_times(5_000), "M = 5000"),
        (lambda: discrete.absorption_times_three(51), "M = 51: must be an integer from 1 to 50"),
        (lambda: discrete.absorption_time_diffusion([0.5], 10), r"p sums to 0\.5"),
        (lambda: discrete.absorption_time_diffusion(HALF, 0), "M = 0"),
        (lambda: discrete.simulate([0.3, 0.3], 10, 1, 1, RNG), r"p sums to 0\.6"),
        (lambda: discrete.simulate(HALF, 0, 1, 1, RNG), "M = 0"),
        (lambda: discrete.simulate(HALF, 10, 0, 1, RNG), "generations = 0"),
        (lambda: discrete.simulate(HALF, 10, 1, 0, RNG), "replicates = 0"),
        (lambda: discrete.family(0), "K = 0"),
        (lambda: discrete.family(2).fit(np.array([0, 2]), RNG, None), "symbols must be integers from 0 to K - 1 = 1"),
        (lambda: discrete.family(2).fit(np.array([0, -1]), RNG, None), "data: symbols"),
        (lambda: discrete.family(2).fit(np.array([0.0, 1.0]), RNG, None), "data: symbols"),
    ],
)  # fmt: skip
def test_arguments_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The ends of the ranges


def test_what_was_never_there_does_not_survive():
    assert discrete.survival(0.0, 10, 0) == 0
    assert discrete.survival(0.1, 10, 0) == 1
    assert discrete.survival_branching(1e-18, 1000, 1) == pytest.approx(1e-15, rel=1e-9, abs=0)
    assert discrete.expected_heterozygosity([0.5, 0.5], 1, [0, 1]).tolist() == [0.5, 0.0]


def test_the_transition_matrix_cannot_be_corrupted():
    with pytest.raises(ValueError, match="read-only"):
        discrete.transition(5)[0, 0] = 2


def test_observe_is_called_once_a_round_also_after_the_end():
    calls = []
    discrete.simulate([0.5, 0.5], 2, 60, 3, np.random.default_rng(0), lambda counts: calls.append(counts.copy()) or 0)
    assert len(calls) == 60
    assert (calls[-1].max(axis=1) == 2).all()


def test_many_points_of_many_states_are_copied_evenly():
    M, K = 70_000, 50_000
    counts = discrete.simulate(np.full(K, 1 / K), M, 2, 1, np.random.default_rng(0))[:, 0]
    assert (counts.sum(axis=1) == M).all()
    late = counts[0] * (np.cumsum(counts[0]) > 2**16)  # parents whose number needs more than 16 bits
    share = late.sum() / M
    z = (counts[1][late > 0].sum() / M - share) / np.sqrt(share * (1 - share) / M)
    assert abs(z) < 4


@pytest.mark.parametrize("seed", range(5))
def test_a_state_of_probability_zero_stays_empty_at_any_size(seed):
    p = np.append(np.full(30, 1 / 30), 0.0)
    assert discrete.simulate(p, 2**53, 1, 1, np.random.default_rng(seed))[0, 0, -1] == 0
