"""Closed forms of the Gaussian chain: each against a second derivation, reference numbers, and simulation."""

import numpy as np
import pytest
from scipy import integrate, linalg, stats

from model_collapse.gaussian import (
    accumulated_variance,
    c4,
    expected_w2,
    expected_w2_path,
    fresh_fraction,
    log_variance_cdf,
    log_variance_drift,
    log_variance_quantile,
    log_variance_sd,
    lyapunov_exponents,
    mean_limit_cdf,
    mean_limit_quantile,
    preprint_w2,
    simulate,
    w2,
    w2_bounds,
    w2_moments,
)


def z_score(sample, exact, axis=0):
    """How many standard errors the mean of a sample lies from the exact value."""
    return (np.mean(sample, axis) - exact) / (np.std(sample, axis, ddof=1) / np.sqrt(np.shape(sample)[axis]))


# By 50-digit arithmetic from the Gamma function itself.
@pytest.mark.parametrize(
    ("M", "drift", "w2_once"),
    [
        (2, -1.2703628454614782, 0.9042308783942692),
        (10, -0.11520647041674517, 0.15468145175682351),
        (100, -0.010135018848272835, 0.015044047857472978),
        (10**8, -1.0000000133333334e-08, 1.500000004375e-08),
    ],
)
def test_reference_numbers(M, drift, w2_once):
    assert log_variance_drift(M) == pytest.approx(drift, rel=1e-12)
    assert expected_w2([M]) == pytest.approx(w2_once, rel=1e-11)


def test_series_and_gamma_function_meet():
    """Beyond 50 degrees of freedom a series is used: no step where it begins, and the recurrence of c4 holds across."""
    M = np.arange(40, 64)
    np.testing.assert_allclose(c4(M) * c4(M + 1), np.sqrt((M - 1) / M), rtol=1e-13)  # Gamma(x + 1) = x Gamma(x)
    step = 2 / (M - 1) - np.log((M + 1) / (M - 1))  # psi(x + 1) = psi(x) + 1 / x
    np.testing.assert_allclose(log_variance_drift(M + 2), log_variance_drift(M) + step, rtol=1e-12)


@pytest.mark.parametrize("M", [2, 3, 7, 40])
def test_one_round_by_quadrature(M):
    def mean(f):
        return integrate.quad(lambda s: f(s / (M - 1)) * stats.chi2.pdf(s, M - 1), 0, np.inf, limit=200)[0]

    assert expected_w2([M]) == pytest.approx(1 / M + mean(lambda s: (np.sqrt(s) - 1) ** 2), rel=1e-7)
    assert c4(M) == pytest.approx(mean(np.sqrt), rel=1e-7)
    assert log_variance_drift(M) == pytest.approx(mean(np.log), rel=1e-6)
    assert log_variance_sd(M) ** 2 == pytest.approx(mean(lambda s: np.log(s) ** 2) - mean(np.log) ** 2, rel=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("sizes", [[2], [30] * 30, [5] * 4, [3, 10, 1000], [100] * 50])
def test_expected_w2_is_the_moment_recursion(sizes, ddof):
    assert expected_w2(sizes, ddof=ddof) == pytest.approx(w2_moments(sizes, ddof)[0], rel=1e-10)


def test_expected_w2_of_paths_scales_and_limits():
    path = expected_w2_path([5, 10, 20], sigma=2)
    np.testing.assert_allclose(path, [0, *(4 * expected_w2([5, 10, 20][:n]) for n in (1, 2, 3))], rtol=1e-13)
    assert expected_w2([]) == 0
    assert expected_w2([100] * 10_000, ddof=0) == pytest.approx(2, rel=1e-12)  # the biased chain stays near
    low, high = w2_bounds([7] * 40, trace=9)
    assert low == pytest.approx(9 * 40 / 7)
    assert low <= 9 * expected_w2([7] * 40) <= high == pytest.approx(low + 18)


@pytest.mark.parametrize(("M", "n", "ddof"), [(5, 4, 1), (30, 30, 1), (12, 10, 0)])
def test_w2_moments_against_simulation(M, n, ddof):
    means, covariances = simulate(M, n, 200_000, np.random.default_rng(1), ddof=ddof)
    distance = w2(means[-1], covariances[-1], np.zeros(1), np.eye(1))
    mean, variance = w2_moments([M] * n, ddof)
    assert abs(z_score(distance, mean)) < 4
    if n < M:  # else the square is too heavy-tailed to be averaged
        assert abs(z_score((distance - mean) ** 2, variance)) < 4


def test_preprint_expansion_is_right_for_one_round_only():
    for n in (1, 2, 5):
        mean, variance = w2_moments([4000] * n)
        assert mean * 4000 == pytest.approx(1.5 * n, rel=2e-3)
        assert variance * 4000**2 == pytest.approx(2.5 * n**2, rel=2e-3 * (n + 1))
    np.testing.assert_allclose(np.multiply(preprint_w2([4000] * 5), [4000, 4000**2]), [5.5, 71])  # not 7.5, 62.5


@pytest.mark.parametrize(("M", "d", "ddof"), [(12, 3, 1), (9, 4, 0)])
def test_lyapunov_exponents_add_to_the_log_determinant(M, d, ddof):
    _, covariances = simulate(M, 4, 20_000, np.random.default_rng(2), d=d, ddof=ddof)
    determinants = np.linalg.slogdet(covariances)[1]
    assert abs(z_score(determinants[4] - determinants[2], 2 * lyapunov_exponents(M, d, ddof).sum())) < 4


def test_lyapunov_exponents_values():
    rates = lyapunov_exponents(12, 3)
    np.testing.assert_allclose(rates, [-0.09365494, -0.19863042, -0.31587717], rtol=1e-7)
    assert rates[0] == pytest.approx(log_variance_drift(12))
    np.testing.assert_array_equal(np.isneginf(lyapunov_exponents(4, 6)), [False] * 3 + [True] * 3)
    np.testing.assert_allclose(lyapunov_exponents(12, 3, ddof=0), rates + np.log(11 / 12))
    np.testing.assert_allclose(lyapunov_exponents(10**6, 3), -np.arange(1, 4) / (10**6 - 1), rtol=1e-5)


@pytest.mark.parametrize("M", [2, 3, 10, 1000])
def test_law_of_one_round_is_chi_square(M):
    q = np.linspace(0.001, 0.999, 9)
    np.testing.assert_allclose(log_variance_cdf(np.log(stats.chi2.ppf(q, M - 1) / (M - 1)), [M]), q, atol=1e-11)
    np.testing.assert_allclose(log_variance_cdf(np.log(stats.chi2.ppf(q, M - 1) / M), [M], ddof=0), q, atol=1e-11)


def test_law_of_two_rounds_by_quadrature():
    def below(s, x):
        return stats.chi2.pdf(s, 4) * stats.chi2.cdf(np.exp(x) * 4 / s * 8, 8)

    for x in (-3.0, -0.5, 0.7):
        exact = integrate.quad(below, 0, np.inf, args=(x,), epsabs=1e-12, limit=200)[0]
        assert log_variance_cdf(x, [5, 9]) == pytest.approx(exact, abs=1e-11)


def test_law_of_many_rounds_against_simulation():
    _, covariances = simulate(20, 200, 20_000, np.random.default_rng(3))
    for p in (0.05, 0.5, 0.95):
        x = log_variance_quantile(p, [20] * 200)
        assert log_variance_cdf(x, [20] * 200) == pytest.approx(p, abs=1e-9)
        assert abs(z_score(np.log(covariances[-1, :, 0, 0]) <= x, p)) < 4


@pytest.mark.parametrize("ddof", [0, 1])
def test_where_the_mean_dies(ddof):
    """The limit in M is universal: at M = 100, after 30 M rounds, its distribution function is within 0.01."""
    means, _ = simulate(100, 3000, 4000, np.random.default_rng(4), ddof=ddof)
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        x = mean_limit_quantile(p, ddof)
        assert mean_limit_cdf(x, ddof) == pytest.approx(p)
        assert abs(np.mean(means[-1] <= x) - p) < 0.01 + 4 * np.sqrt(p * (1 - p) / 4000)


def test_mean_limit_variances():
    """E mu_inf^2 is infinite for unbiased fits and 1 for maximum-likelihood ones: quadrature of quantiles."""
    p = (np.arange(10**6) + 0.5) / 10**6
    assert np.mean(mean_limit_quantile(p, ddof=0) ** 2) == pytest.approx(1, rel=0.01)
    assert mean_limit_quantile(1 - 1e-9) * np.sqrt(2e-9) == pytest.approx(1, rel=1e-6)  # P(> x) ~ 1/(2 x^2)


@pytest.mark.parametrize("shares", ["fixed", "multinomial"])
def test_fresh_fraction_against_drawn_points(shares):
    """At M = 6 the two readings of the share differ by many standard errors, so each is tested against its own."""
    M, gamma, R, rng = 6, 0.5, 150_000, np.random.default_rng(5)
    mean, variance = np.zeros((R, 1)), np.ones((R, 1))
    for _ in range(12):
        fresh = rng.random((R, M)) < gamma if shares == "multinomial" else np.arange(M) < gamma * M
        points = rng.standard_normal((R, M))
        points = np.where(fresh, points, mean + np.sqrt(variance) * points)
        mean, variance = points.mean(1, keepdims=True), points.var(1, ddof=1, keepdims=True)
    a, v = fresh_fraction(M, gamma, shares)
    assert abs(z_score(mean[:, 0] ** 2, a)) < 4
    assert abs(z_score(variance[:, 0], v)) < 4
    other = fresh_fraction(M, gamma, "fixed" if shares == "multinomial" else "multinomial")
    assert abs(z_score(mean[:, 0] ** 2, other[0])) > 4


def test_fresh_fraction_edges():
    a, v = fresh_fraction(50, 1.0)
    assert (a, v) == pytest.approx((1 / 50, 1))
    threshold = 1 - np.sqrt(1 - 1 / 50)
    assert np.isinf(fresh_fraction(50, threshold * 0.999)).all()
    assert np.isfinite(fresh_fraction(50, threshold * 1.001)).all()


@pytest.mark.parametrize("N", [4, 10])
def test_accumulated_variance_against_drawn_points(N):
    R, rounds, rng = 20_000, 12, np.random.default_rng(6)
    pool = rng.standard_normal((R, N))
    for t in range(1, rounds + 1):
        mean, sd = pool.mean(1, keepdims=True), pool.std(1, keepdims=True)
        assert abs(z_score(sd[:, 0] ** 2, accumulated_variance(N, t))) < 4
        assert abs(z_score(mean[:, 0] ** 2, 1 - accumulated_variance(N, t))) < 4
        pool = np.concatenate([pool, mean + sd * rng.standard_normal((R, N))], axis=1)
    assert accumulated_variance(N, 10**6) == pytest.approx(accumulated_variance(N), rel=1e-6)
    assert accumulated_variance(N, 0) == 1


def test_w2_against_the_textbook_formula():
    rng = np.random.default_rng(7)
    for d in (1, 2, 5):
        a, b = rng.standard_normal((2, d, d + 2))
        A, B, m0, m1 = a @ a.T, b @ b.T, rng.standard_normal(d), rng.standard_normal(d)
        root = linalg.sqrtm(A)
        exact = np.sum((m0 - m1) ** 2) + np.trace(A + B - 2 * linalg.sqrtm(root @ B @ root).real)
        assert w2(m0, A, m1, B) == pytest.approx(exact, rel=1e-9)
        assert w2(m1, B, m0, A) == pytest.approx(exact, rel=1e-9)


def test_w2_of_singular_equal_and_nearly_equal_laws():
    line, cross = np.diag([4.0, 0, 0]), np.diag([0, 9.0, 0])
    zero = np.zeros(3)
    assert w2(zero, line, zero, cross) == pytest.approx(13)
    assert w2(zero, line, zero, np.zeros((3, 3))) == pytest.approx(4)
    assert w2(zero, line, zero, line) == pytest.approx(0, abs=1e-15)
    a = np.random.default_rng(8).standard_normal((3, 3))
    assert w2(zero, a @ a.T, zero, a @ a.T * (1 + 1e-9) ** 2) == pytest.approx(1e-18 * np.trace(a @ a.T), rel=1e-4)
    assert w2(0, 1, 0, (1 + 1e-9) ** 2) == pytest.approx(1e-18, rel=1e-5)


def test_w2_broadcasts():
    means, covariances = simulate(4, 3, 2, np.random.default_rng(9), d=3)
    together = w2(means, covariances, np.zeros(3), np.eye(3))
    assert together.shape == (4, 2)
    assert together[3, 1] == pytest.approx(float(w2(means[3, 1], covariances[3, 1], np.zeros(3), np.eye(3))))
    np.testing.assert_allclose(w2([0, 3.0], [1, 4.0], 0, 1), [0, 10])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_w2([10, 1]), "sizes"),
        (lambda: expected_w2([np.nan]), "sizes"),
        (lambda: expected_w2(10), "sizes"),
        (lambda: expected_w2([10], sigma=0), "sigma"),
        (lambda: expected_w2([10], ddof=2), "ddof"),
        (lambda: w2_bounds([10], trace=-1), "trace"),
        (lambda: preprint_w2([]), "sizes"),
        (lambda: c4(1), "M"),
        (lambda: log_variance_drift(1), "M"),
        (lambda: log_variance_sd(0), "M"),
        (lambda: lyapunov_exponents(1, 1), "M"),
        (lambda: lyapunov_exponents(5, 0), "d"),
        (lambda: log_variance_cdf(0.0, []), "sizes"),
        (lambda: log_variance_cdf(np.inf, [5]), "x"),
        (lambda: log_variance_quantile(1.0, [5]), "p"),
        (lambda: mean_limit_quantile(0), "p"),
        (lambda: mean_limit_cdf(0, ddof=3), "ddof"),
        (lambda: fresh_fraction(1, 0.1), "M"),
        (lambda: fresh_fraction(10, 1.1), "gamma"),
        (lambda: fresh_fraction(10, 0.1, "equal"), "shares"),
        (lambda: accumulated_variance(0), "M"),
        (lambda: accumulated_variance(5, -1), "rounds"),
        (lambda: w2(0, -1, 0, 1), "cov0"),
        (lambda: w2(0, 1, 0, np.nan), "cov1"),
        (lambda: w2(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "shapes"),
        (lambda: w2(np.zeros(2), np.eye(2), 0, 1), "shapes"),
        (lambda: w2(np.zeros(2), [[1, 2], [0, 1]], np.zeros(2), np.eye(2)), "cov0"),
        (lambda: w2(np.zeros(2), np.eye(2), np.zeros(2), -np.eye(2)), "cov1"),
    ],
)
def test_arguments_out_of_range(call, message):
    with pytest.raises(ValueError, match=f"^{message}\\b"):
        call()


def test_the_preprint_s_expansion_singles_out_the_last_round():
    mean, variance = preprint_w2([8, 4])
    assert mean == pytest.approx(1 / 8 + 3 / (2 * 4))
    assert variance == pytest.approx(2 / 8**2 + 3 / 4**2 + 2 * 3 / (8 * 4))


def test_slightly_asymmetric_covariances_and_inexact_sizes_are_refused():
    tilted = np.array([[1, 1e-6], [0, 1]])
    with pytest.raises(ValueError, match="cov1"):
        w2([0, 0], np.eye(2), [0, 0], tilted)
    with pytest.raises(ValueError, match="M = "):
        simulate(2**60, 1, 1, np.random.default_rng(0))
