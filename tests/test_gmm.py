"""Gaussian mixtures: fits against scikit-learn's, closed forms against integration, theory against chains."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from sklearn.mixture import GaussianMixture

from model_collapse import gmm, gmm_theory, runs
from model_collapse.gmm import Theta
from model_collapse.process import Generation, generations
from model_collapse.settings import Gmm

LINE = Theta(np.array([0.3, 0.7]), np.array([[-1.0], [2.0]]), np.array([[[0.25]], [[1.5]]]))
PLANE = Theta(
    np.array([0.4, 0.6]), np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0], [0, 2]]])
)
TRUTH = gmm.original_theta(Gmm())


def z_score(sample, exact):
    """How many standard errors the mean of a sample lies from the exact value."""
    return (np.mean(sample) - exact) / (np.std(sample, ddof=1) / np.sqrt(len(sample)))


def density(theta, *x):
    """The mixture's density at one point, by scipy."""
    parts = zip(*theta[:3], strict=True)
    return sum(w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in parts)


def points(seed, n=300, settings=None):
    return gmm.original(settings or Gmm())(n, np.random.default_rng(seed))


# The law


def test_l2_squared_is_the_integral_in_one_dimension():
    other = Theta(np.ones(1), np.array([[0.5]]), np.array([[[2.0]]]))
    exact = integrate.quad(lambda x: (density(LINE, x) - density(other, x)) ** 2, -20, 20, epsabs=1e-13, limit=200)[0]
    assert gmm.l2_squared(LINE, other) == pytest.approx(exact, rel=1e-9)


def test_l2_squared_is_the_integral_in_the_plane():
    grid = np.stack(np.meshgrid(np.arange(-12, 12, 0.05), np.arange(-12, 12, 0.05)), axis=-1)
    both = [np.exp(gmm.log_density(theta, grid.reshape(-1, 2))).sum(axis=1) for theta in (PLANE, TRUTH)]
    assert gmm.l2_squared(PLANE, TRUTH) == pytest.approx(0.05**2 * np.sum((both[0] - both[1]) ** 2), rel=1e-9)


def test_l2_squared_is_a_squared_distance():
    assert gmm.l2_squared(PLANE, TRUTH) == pytest.approx(gmm.l2_squared(TRUTH, PLANE), rel=1e-13)
    assert gmm.l2_squared(PLANE, Theta(*(part[::-1] for part in PLANE[:3]))) < 1e-15
    near, twice = (PLANE._replace(weights=PLANE.weights + np.array([h, -h])) for h in (1e-4, 2e-4))
    assert gmm.l2_squared(twice, PLANE) == pytest.approx(4 * gmm.l2_squared(near, PLANE), rel=1e-6)  # second order


@pytest.mark.parametrize("scale", [1e-3, 1e-30, 1e-150])
def test_log_l2_of_points_as_small_as_floats_allow(scale):
    """Lengths times s multiply the square of a density, integrated over the plane, by 1 / s^2."""
    small = [Theta(t.weights, t.means * scale, t.covariances * scale**2) for t in (PLANE, TRUTH)]
    assert gmm.log_l2_squared(*small) == pytest.approx(np.log(gmm.l2_squared(PLANE, TRUTH)) - 2 * np.log(scale))


def test_log_density_and_likelihood_against_scipy():
    x = points(1, 20)
    expected = np.array([density(PLANE, *row) for row in x])
    np.testing.assert_allclose(np.exp(gmm.log_density(PLANE, x)).sum(axis=1), expected, rtol=1e-12)
    assert gmm.log_likelihood(PLANE, x) == pytest.approx(np.mean(np.log(expected)), rel=1e-12)
    dead = Theta(np.array([0.0, 1.0]), *PLANE[1:3])
    assert np.all(gmm.log_density(dead, x)[:, 0] == -np.inf)


def test_samples_have_the_moments_and_come_in_no_order():
    drawn, (mean, covariance) = gmm.sample(PLANE, 40_000, np.random.default_rng(2)), gmm.moments(PLANE)
    for part in (drawn, drawn[:5_000]):
        assert np.all(np.abs([z_score(part[:, j], mean[j]) for j in range(2)]) < 4)
    apart = drawn - mean
    z = [z_score(apart[:, i] * apart[:, j], covariance[i, j]) for i, j in ((0, 0), (0, 1), (1, 1))]
    assert np.all(np.abs(z) < 4)


def test_label_agreement_does_not_see_names():
    x = points(3, 500, Gmm(blobs=2))
    theta = gmm.original_theta(Gmm(blobs=2))
    assert gmm.label_agreement(theta, Theta(*(part[::-1] for part in theta[:3])), x) == 1
    across = theta._replace(means=theta.means[:, ::-1])  # cuts at y = 0 instead of x = 0
    share = np.mean((x[:, 0] > 0) == (x[:, 1] > 0))
    assert gmm.label_agreement(theta, across, x) == pytest.approx(max(share, 1 - share))
    assert gmm.label_agreement(theta, TRUTH, x) == pytest.approx(max(np.mean(x[:, 0] > 0), np.mean(x[:, 0] <= 0)))


def test_errors_of_the_law():
    with pytest.raises(ValueError, match="other: 1 dimensions, but theta has 2"):
        gmm.l2_squared(PLANE, LINE)
    with pytest.raises(ValueError, match="covariances: one is not positive definite"):
        gmm.l2_squared(PLANE, TRUTH._replace(covariances=np.zeros((1, 2, 2))))


# The family


@pytest.mark.parametrize("blobs", [1, 2])
def test_a_cold_fit_is_scikit_learns(blobs):
    settings, x = Gmm(blobs=blobs), points(4, 200, Gmm(blobs=blobs))
    theta = gmm.family(settings).fit(x, np.random.default_rng(5), TRUTH)
    state = np.random.RandomState(np.random.default_rng(5).bit_generator)
    plain = GaussianMixture(n_components=2, covariance_type="full", tol=1e-5, max_iter=2000, random_state=state).fit(x)
    for ours, theirs in zip(theta, (plain.weights_, plain.means_, plain.covariances_, plain.n_iter_), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_warm_fit_begins_where_the_last_ended():
    x = points(6)
    settings, rng = Gmm(start="warm"), np.random.default_rng(7)
    first = gmm.family(settings).fit(x, rng, None)
    again = gmm.family(settings).fit(x, rng, first)
    assert again.iterations <= 2 < first.iterations
    np.testing.assert_allclose(again.means, first.means, atol=1e-2)
    cold = gmm.family(Gmm()).fit(x, np.random.default_rng(7), first)
    np.testing.assert_array_equal(cold.means, first.means)


def test_a_fit_that_does_not_converge_says_so_by_its_iterations():
    theta = gmm.family(Gmm(max_iter=1)).fit(points(8), np.random.default_rng(0), None)  # warnings are errors in tests
    assert theta.iterations == 1


def test_a_fit_leaves_data_and_says_when_it_is_done():
    x, told = points(9, 50), []
    before = x.copy()
    x.setflags(write=False)
    fit, sample, _ = gmm.family(Gmm(), told.append)
    a, b = (fit(x, np.random.default_rng(1), None) for _ in range(2))
    assert told == [1, 1]
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(a.covariances, b.covariances)
    assert sample(a, 7, np.random.default_rng(1)).shape == (7, 2)
    with pytest.raises(ValueError, match="n = -1"):
        sample(a, -1, np.random.default_rng(1))


def test_scikit_learns_error_names_the_cure():
    with pytest.raises(ValueError, match="reg_covar"):
        gmm.family(Gmm(reg_covar=0.0)).fit(np.zeros((20, 2)), np.random.default_rng(0), None)


def test_original_points_are_as_coded_or_as_described():
    one, two = (points(10, 20_000, Gmm(blobs=blobs)) for blobs in (1, 2))
    assert stats.kstest(np.sum(one**2, axis=1), "chi2", args=(2,)).pvalue > 1e-4
    assert abs(z_score(two[:, 0] ** 2, 5)) < 4
    assert abs(z_score(two[:, 1] ** 2, 1)) < 4


# Measures


def test_shares_beyond_the_original_radii():
    theta, n = TRUTH, 20_000
    row = gmm.measure(Generation(0, points(11, n), theta), theta, Gmm())
    for share, name in ((0.1, "beyond_90"), (0.03, "beyond_97"), (0.01, "beyond_99")):
        assert abs(row[name] - share) < 4 * np.sqrt(share * (1 - share) / n)
    assert row["l2_first"] == row["l2_original"] == row["moved"] == row["log_det"] == 0
    assert (row["trace"], row["thinnest"], row["labels"]) == (2, 1, 1)


def test_measures_of_another_model():
    small = PLANE._replace(covariances=PLANE.covariances * 0.25)
    x = gmm.sample(small, 500, np.random.default_rng(12))
    row = gmm.measure(Generation(3, x, small), PLANE, Gmm(blobs=2))
    mean, covariance = gmm.moments(small)
    assert row["l2_first"] == pytest.approx(gmm.l2_squared(small, PLANE))
    assert row["l2_original"] == pytest.approx(gmm.l2_squared(small, gmm.original_theta(Gmm(blobs=2))))
    assert row["trace"] == pytest.approx(np.trace(covariance))
    assert row["log_det"] == pytest.approx(np.log(np.linalg.det(covariance)))
    assert row["moved"] == pytest.approx(np.linalg.norm(mean))
    assert row["thinnest"] == pytest.approx(min(np.linalg.eigvalsh(c)[0] for c in small.covariances))
    near = np.minimum(*(np.hypot(x[:, 0] - side, x[:, 1]) for side in (-2, 2)))
    assert row["beyond_90"] == np.mean(near > np.sqrt(stats.chi2(2).ppf(0.9)))


def test_parameters_are_read_back():
    row = gmm.parameters(PLANE) | {"generation": 7, "iterations": 12.0}
    again = gmm.theta_of(row)
    for ours, read in zip(PLANE[:3], again[:3], strict=True):
        np.testing.assert_array_equal(ours, read)
    assert again.iterations == 12
    with pytest.raises(ValueError, match="no parameters of a mixture among"):
        gmm.theta_of({"generation": 1})


# Theory


@pytest.mark.parametrize("settings", [Gmm(max_iter=1), Gmm(components=3), Gmm(start="warm"), Gmm(components=1)])
def test_em_keeps_mean_and_covariance_of_the_data(settings):
    """Exactly, for any number of components, wherever EM starts and stops."""
    x = points(13) * [3, 0.1]
    start = PLANE if settings.start == "warm" else None
    mean, covariance = gmm.moments(gmm.fitted(x, np.random.default_rng(0), settings, start))
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(covariance, np.cov(x.T, ddof=0) + 1e-6 * np.eye(2), rtol=1e-10)


def test_expected_variance_and_shift_of_mixtures():
    """Two components, EM stopped after two iterations to save time: the theorem does not mind."""
    settings, M, n = Gmm(n=10, max_iter=2, reg_covar=0.02), 10, 3
    rows = []
    for seed in range(300):
        run = generations(gmm.family(settings), gmm.original(settings), np.random.default_rng(seed), sizes=M)
        mean, covariance = gmm.moments(next(islice(run, n - 1, None)).theta)
        rows.append([np.trace(covariance) / 2, mean @ mean / 2])
    variance, shift = np.array(rows).T
    assert abs(z_score(variance, gmm_theory.expected_variance(M, n, 0.02))) < 4
    assert abs(z_score(shift, gmm_theory.expected_shift(M, n, 0.02))) < 4


@pytest.mark.parametrize(("M", "r"), [(7, 0.0), (7, 0.1), (500, 1e-6)])
def test_expectations_by_their_recursion(M, r):
    v, shift, n = 2.5, 0.0, 40
    for _ in range(n):
        shift, v = shift + v / M, (1 - 1 / M) * v + r
    assert gmm_theory.expected_variance(M, n, r, 2.5) == pytest.approx(v, rel=1e-12)
    assert gmm_theory.expected_shift(M, n, r, 2.5) == pytest.approx(shift, rel=1e-12)
    np.testing.assert_array_equal(gmm_theory.expected_variance(M, [0, 1], r), [1, (1 - 1 / M) * (1 - r * M) + r * M])


@pytest.mark.parametrize("M", [2, 3, 50])
def test_plateau_moments_solve_their_equations(M):
    mean, sd = gmm_theory.plateau_moments(M, 0.3)
    S = stats.chi2(M - 1, scale=1 / M)
    assert mean == pytest.approx(S.mean() * mean + 0.3)
    second = mean**2 + sd**2
    assert second == pytest.approx((S.var() + S.mean() ** 2) * second + 2 * 0.3 * S.mean() * mean + 0.3**2)


def test_plateau_moments_are_reached():
    v = gmm_theory.simulate_floor(20, 150, 40_000, np.random.default_rng(14), 0.05, d=1)[:, 0, 0]
    mean, sd = gmm_theory.plateau_moments(20, 0.05)
    assert abs(z_score(v, mean)) < 4
    assert sd == pytest.approx(mean * np.sqrt(38))


def test_the_chain_with_a_floor_is_the_fit_with_one_component():
    settings, M = Gmm(n=12, components=1, reg_covar=0.1), 12
    runs = (
        generations(gmm.family(settings), gmm.original(settings), np.random.default_rng(s), sizes=M) for s in range(300)
    )
    fits = np.array([next(islice(run, 1, None)).theta.covariances[0] for run in runs])
    fast = gmm_theory.simulate_floor(M, 2, 100_000, np.random.default_rng(15), 0.1)
    for f in (lambda C: np.linalg.slogdet(C)[1], lambda C: np.log(C[:, 0, 0]), lambda C: C[:, 0, 1] ** 2):
        assert abs(z_score(f(fits), f(fast).mean())) < 4


def test_laws_of_the_plateau_for_large_samples():
    """Stationary chains against the limit laws, at nine levels each; errors of order 1/M are below the noise."""
    M, R, levels = 200, 4_000, np.arange(0.1, 1, 0.1)
    C = gmm_theory.simulate_floor(M, 5 * M, R, np.random.default_rng(16), 1 / M, start=0.6)
    l2 = 1 / (4 * np.pi * np.sqrt(np.linalg.det(C)))
    along = C[:, 0, 0]
    for sample, law in ((l2, gmm_theory.plateau_l2(M, 1 / M)), (along, gmm_theory.plateau_variance(M, 1 / M))):
        below = np.mean(sample < law.ppf(levels)[:, None], axis=1)
        assert np.all(np.abs(below - levels) < 4 * np.sqrt(levels * (1 - levels) / R))
    assert gmm_theory.plateau_l2(M, 1 / M).mean() == pytest.approx(1 / (2 * np.pi))
    assert abs(z_score(l2, 1 / (2 * np.pi))) < 4


def test_the_plateau_of_l2_is_that_of_the_norm():
    """What plateau_l2 leaves out, the norm of the first model and the overlap, is small."""
    narrow = Theta(np.ones(1), np.array([[0.3, -0.4]]), 1e-5 * np.eye(2)[None])
    whole = gmm.l2_squared(narrow, TRUTH)
    assert whole == pytest.approx(1 / (4 * np.pi * 1e-5), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gmm_theory.expected_variance(0, 1), "M = 0"),
        (lambda: gmm_theory.expected_variance(10, [1, -1]), "n = -1: must be >= 0"),
        (lambda: gmm_theory.expected_shift(10, 1, -1e-6), "reg_covar = -1e-06: must be >= 0"),
        (lambda: gmm_theory.expected_shift(10, 1, variance=-1), "variance = -1: must be >= 0"),
        (lambda: gmm_theory.plateau_moments(1), "M = 1"),
        (lambda: gmm_theory.plateau_variance(10, 0), "reg_covar = 0: must be > 0"),
        (lambda: gmm_theory.simulate_floor(2, 1, 1, np.random.default_rng(0)), "M = 2: must be an integer >= 3"),
    ],
)
def test_errors_of_the_theory(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Runs on disk


def test_a_run_on_disk_is_the_run_in_memory(tmp_path):
    settings = Gmm(n=60, last_generation=3)
    file = runs.run(
        settings, 3, tmp_path, lambda s, rng, tick: gmm.experiment(s, tick), progress=False, say=lambda _: 0
    )
    table = pd.read_csv(file, comment="#").set_index("generation")
    assert table.columns.is_unique
    first = gmm.theta_of(table.loc[0])
    for i, row in table.iterrows():
        theta = gmm.theta_of(row)
        assert theta.weights.sum() == pytest.approx(1, abs=1e-8)
        assert gmm.l2_squared(theta, first) == pytest.approx(row["l2_first"], rel=1e-5, abs=1e-12), i
    packed = gmm.experiment(settings).pack(PLANE._replace(iterations=5))
    again = gmm.experiment(settings).unpack(packed)
    for ours, read in zip(PLANE[:3], again[:3], strict=True):
        np.testing.assert_array_equal(ours, read)
    assert again.iterations == 5
