"""The chain without points must agree with the loop that draws them, with theory, and with itself at the extremes."""

from itertools import islice

import numpy as np
import pytest

from model_collapse.gaussian import (
    accumulated_variance,
    expected_w2,
    family,
    fresh_fraction,
    log_variance_drift,
    lyapunov_exponents,
    simulate,
    simulate_log_eigenvalues,
    simulate_weighted,
)
from model_collapse.gaussian_simulation import _graded_svd
from model_collapse.process import Mixture, generations


def z_score(sample, exact):
    return (np.mean(sample, 0) - exact) / (np.std(sample, 0, ddof=1) / np.sqrt(len(sample)))


def z_between(one, two):
    error = np.sqrt(np.var(one, 0, ddof=1) / len(one) + np.var(two, 0, ddof=1) / len(two))
    return (np.mean(one, 0) - np.mean(two, 0)) / error


def statistics(mean, cov):
    """Bounded or logarithmic statistics of fitted laws (R, d), (R, d, d) that pin down scale, shape and dependence."""
    trace = np.trace(cov, axis1=-2, axis2=-1)
    length = np.sqrt(np.sum(mean**2, axis=-1))
    shape = np.sum(cov**2, axis=(-1, -2)) / trace**2
    return np.column_stack(
        [np.log(trace), np.log(trace) ** 2, shape, mean[:, 0] / (1 + length), length / (1 + length),
         length * np.log(trace) / (1 + length), cov[:, 0, 0] / trace, cov[:, 0, -1] / trace]
    )  # fmt: skip


@pytest.mark.parametrize(("d", "M", "ddof"), [(1, 5, 1), (1, 3, 0), (2, 6, 1), (3, 4, 0), (4, 3, 1)])
def test_agrees_in_law_with_the_loop_that_draws_points(d, M, ddof):
    rounds, R, rng = 3, 1000, np.random.default_rng(10)
    shape = (M, d)
    thetas = []
    for _ in range(R):
        run = generations(family(ddof), lambda n, r: r.standard_normal((n, *shape[1:])), rng, sizes=M)
        thetas.append(next(islice(run, rounds - 1, None)).theta)  # generation i is round i + 1
    drawn = statistics(np.array([t.mean for t in thetas]), np.array([t.cov for t in thetas]))
    means, covariances = simulate(M, rounds, 20_000, rng, d=d, ddof=ddof)
    used = np.std(drawn, axis=0) > 1e-9  # in one dimension some are constant
    assert np.all(np.abs(z_between(drawn[:, used], statistics(means[-1], covariances[-1])[:, used])) < 4)


@pytest.mark.parametrize(("d", "M"), [(1, 2), (1, 50), (3, 12), (5, 3)])
def test_one_round_has_the_moments_of_the_wishart_law(d, M):
    means, covariances = simulate(M, 1, 100_000, np.random.default_rng(11), d=d)
    cov, k = covariances[1], M - 1
    assert np.all(np.abs(z_score(means[1] ** 2, 1 / M)) < 4)
    assert np.all(np.abs(z_score(cov, np.eye(d))) < 4)
    assert np.all(np.abs(z_score(cov**2, np.eye(d) + (1 + np.eye(d)) / k)) < 4)  # Var W_ij = k (1 + [i = j])
    if d > 1:
        assert abs(z_score(cov[:, 0, 0] * cov[:, 1, 1], 1)) < 4
        assert abs(z_score(cov[:, 0, 1] * cov[:, 0, 0], 0)) < 4


def test_sizes_by_round_and_biased_fits():
    sizes, rng = [4, 9, 30], np.random.default_rng(12)
    for d in (1, 2):
        means, covariances = simulate(sizes, 3, 100_000, rng, d=d)
        assert np.all(np.abs(z_score(means[-1] ** 2, sum(1 / np.array(sizes)))) < 4)
        assert np.all(np.abs(z_score(covariances[-1], np.eye(d))) < 4)
        _, biased = simulate(sizes, 3, 100_000, rng, d=d, ddof=0)
        assert np.all(np.abs(z_score(biased[-1], np.eye(d) * np.prod(1 - 1 / np.array(sizes)))) < 4)
        logs = np.log(np.diagonal(covariances[-1], axis1=-2, axis2=-1))
        assert np.all(np.abs(z_score(logs, log_variance_drift(sizes).sum())) < 4)


def test_shapes_first_row_and_determinism():
    for d in (1, 3):
        means, covariances = simulate(6, 4, 5, np.random.default_rng(13), d=d)
        assert means.shape == (5, 5, d)
        assert covariances.shape == (5, 5, d, d)
        np.testing.assert_array_equal(means[0], 0)
        np.testing.assert_array_equal(covariances[0], np.broadcast_to(np.eye(d), (5, d, d)))
        np.testing.assert_array_equal(covariances, simulate(6, 4, 5, np.random.default_rng(13), d=d)[1])
    assert simulate(6, 0, 5, np.random.default_rng(13))[0].shape == (1, 5, 1)
    _, covariances = simulate(1, 2, 5, np.random.default_rng(13), d=2, ddof=0)
    np.testing.assert_array_equal(covariances[1:], 0)  # one point has no variance


def test_dimensions_beyond_the_sample_have_deficient_rank():
    _, covariances = simulate(3, 2, 20, np.random.default_rng(14), d=5)
    assert np.all(np.linalg.matrix_rank(covariances[1:], hermitian=True) == 2)
    logs = simulate_log_eigenvalues(3, 2, 20, np.random.default_rng(14), d=5)
    assert np.all(np.isneginf(logs[1:, :, 2:]))
    assert np.all(np.isfinite(logs[:, :, :2]))


@pytest.mark.parametrize(("M", "d", "ddof"), [(12, 3, 1), (4, 2, 0), (3, 4, 1)])
def test_log_eigenvalues_have_the_law_of_simulate(M, d, ddof):
    rng, rank, rounds = np.random.default_rng(15), min(d, M - 1), 4
    _, covariances = simulate(M, rounds, 20_000, rng, d=d, ddof=ddof)
    plain = np.log(np.linalg.eigvalsh(covariances[-1])[:, ::-1][:, :rank])
    logs = simulate_log_eigenvalues(M, rounds, 20_000, rng, d, ddof)[-1, :, :rank]
    assert np.all(np.abs(z_between(plain, logs)) < 4)
    assert np.all(np.abs(z_between(plain**2, logs**2)) < 4)


@pytest.mark.parametrize(("M", "d"), [(12, 3), (3, 2), (4, 6)])
def test_lyapunov_spectrum_far_below_machine_precision(M, d):
    """Increments after the start: eigenvalues down to e^-200 and below, whose ratio no float64 matrix could hold."""
    rank, n = min(d, M - 1), 600
    logs = simulate_log_eigenvalues(M, n, 200, np.random.default_rng(16), d)[:, :, :rank]
    slopes = (logs[n] - logs[n // 2]) / (n - n // 2)
    assert np.all(np.abs(z_score(slopes, lyapunov_exponents(M, d)[:rank])) < 4)
    assert logs[n].min() < -200


def test_graded_singular_values_are_exact():
    rng = np.random.default_rng(17)
    columns, mild = rng.standard_normal((50, 4, 4)), np.array([[0.0, -1, -3, -4]])
    vectors, logs = _graded_svd(columns, np.repeat(mild, 50, axis=0))
    np.testing.assert_allclose(np.exp(logs), np.linalg.svd(columns * np.exp(mild[:, None]))[1], rtol=1e-11)
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors, np.broadcast_to(np.eye(4), (50, 4, 4)), atol=1e-13)
    steep = np.array([[0.0, -50, -400, -3000]])  # then the j-th singular value is the j-th pivot of QR, to rounding
    _, logs = _graded_svd(columns, np.repeat(steep, 50, axis=0))
    pivots = np.log(np.abs(np.diagonal(np.linalg.qr(columns)[1], axis1=1, axis2=2)))
    np.testing.assert_allclose(logs, pivots + steep, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [5, 300, 1500])
def test_weighted_paths_estimate_what_plain_ones_cannot(n):
    M, R = 10, 4000
    chains = simulate_weighted(M, n, R, np.random.default_rng(18))
    means, variances, weights = (values[-1] for values in chains)
    assert abs(z_score(weights, 1)) < 4
    assert abs(z_score(weights * variances, 1)) < 4
    assert abs(z_score(weights * means**2, n / M)) < 4
    assert abs(z_score(weights * (means**2 + (np.sqrt(variances) - 1) ** 2), expected_w2([M] * n))) < 4
    half = [values[n // 2] for values in chains]
    assert abs(z_score(half[2] * half[0] ** 2, n // 2 / M)) < 4
    assert chains.weights.max() <= n + 1
    if n > 100 * M:
        plain, _ = simulate(M, n, R, np.random.default_rng(18))
        assert np.mean(plain[-1] ** 2) < 0.5 * n / M


def test_weighted_paths_with_sizes_by_round():
    sizes = [4, 40, 8, 3]
    _, variances, weights = (values[-1] for values in simulate_weighted(sizes, 4, 50_000, np.random.default_rng(19)))
    assert abs(z_score(weights * variances, 1)) < 4
    assert abs(z_score(weights * np.log(variances), log_variance_drift(sizes).sum())) < 4


def test_family_fits_and_samples():
    fit, sample, _ = family()
    rng = np.random.default_rng(20)
    data = rng.standard_normal((50, 3))
    theta = fit(data, rng, None)
    np.testing.assert_allclose(theta.mean, data.mean(axis=0))
    np.testing.assert_allclose(theta.cov, np.cov(data.T))
    np.testing.assert_allclose(family(ddof=0).fit(data, rng, None).cov, np.cov(data.T, bias=True))
    points = sample(theta, 100_000, rng)
    assert np.all(np.abs(z_score(points, theta.mean)) < 4)
    rest = points - theta.mean
    assert np.all(np.abs(z_score(rest[:, :, None] * rest[:, None, :], theta.cov)) < 4)
    flat = sample(fit(data[:2], rng, None), 10, rng)  # two points span a line, and so do the samples
    assert np.linalg.matrix_rank(flat - flat.mean(axis=0), tol=1e-6) == 1
    assert sample(fit(data[:, 0].astype(np.float32), rng, None), 4, rng).dtype == np.float32


def test_kept_data_through_the_process():
    """Fresh fractions and accumulation, drawn by the paper's process with a mixture that may depend on i."""
    rng = np.random.default_rng(21)

    def original(n, r):
        return r.standard_normal(n)

    for shares in ("fixed", "multinomial"):
        mixture = Mixture(alpha=0.5, gamma=0.5, shares=shares, points="fresh")
        run = generations(family(), original, rng, mixture=mixture, sizes=6)
        thetas = [g.theta for g in islice(run, 20, 4020)]
        blocks = np.array([(t.mean**2, t.cov) for t in thetas]).reshape(100, 40, 2).mean(axis=1)  # longer than memory
        assert np.all(np.abs(z_score(blocks, fresh_fraction(6, 0.5, shares))) < 4)

    def keep(i):
        return Mixture(alpha=1 / (i + 2), beta=(i + 1) / (i + 2))

    last = []
    for _ in range(300):
        run = generations(family(ddof=0), original, rng, mixture=keep, sizes=lambda i: 4 * (i + 1))
        last.append(next(islice(run, 4, None)).theta)  # the fifth fit
    exact = accumulated_variance(4, 5)
    assert np.all(np.abs(z_score(np.array([(t.cov, t.mean**2) for t in last]), [exact, 1 - exact])) < 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: simulate(1, 3, 2, rng), "M"),
        (lambda rng: simulate(2.5, 3, 2, rng), "M"),
        (lambda rng: simulate([5, 5], 3, 2, rng), "M"),
        (lambda rng: simulate(0, 3, 2, rng, ddof=0), "M"),
        (lambda rng: simulate(5, -1, 2, rng), "generations"),
        (lambda rng: simulate(5, 3, 0, rng), "replicates"),
        (lambda rng: simulate(5, 3, 2, rng, d=0), "d"),
        (lambda rng: simulate(5, 3, 2, rng, ddof=2), "ddof"),
        (lambda rng: simulate_log_eigenvalues(5, 3, 2, rng, 0), "d"),
        (lambda rng: simulate_weighted(1, 3, 2, rng), "M"),
        (lambda rng: family(ddof=2), "ddof"),
        (lambda rng: family().fit(np.zeros(1), rng, None), "data"),
        (lambda rng: family().fit(np.zeros((4, 2, 2)), rng, None), "data"),
    ],
)
def test_arguments_out_of_range(call, message):
    with pytest.raises(ValueError, match=f"^{message}\\b"):
        call(np.random.default_rng(0))
