"""Anything but what is allowed ends in a ValueError that names the argument."""

import numpy as np
import pytest

from model_collapse import arguments, discrete, gaussian
from model_collapse.process import Mixture

NO_NUMBERS = (None, "1", "x", {}, [1, [2]], [None], 1j, np.ma.masked_array([0.5], [True]))


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_reals_refuses(value):
    with pytest.raises(ValueError, match=r"(?s)p = .*must be real numbers"):
        arguments.reals(value, "p")


@pytest.mark.parametrize("value", [*NO_NUMBERS, np.nan, np.inf, np.array([1.0])], ids=repr)
def test_real_refuses(value):
    with pytest.raises(ValueError, match=r"(?s)gamma = .*must be a finite real number"):
        arguments.real(value, "gamma")


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, 11, 2.0, True, np.float64(3)], ids=repr)
def test_integer_refuses(value):
    with pytest.raises(ValueError, match=r"(?s)M = .*must be an integer from 1 to 10"):
        arguments.integer(value, "M", 1, 10)


@pytest.mark.parametrize("rng", [None, 0, np.random.RandomState(0), np.random.PCG64(0)])
def test_generator_refuses(rng):
    with pytest.raises(ValueError, match=r"must be a numpy.random.Generator"):
        arguments.generator(rng)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("p", lambda: discrete.expected_support("x", 10, 1)),
        ("q", lambda: discrete.survival(None, 10, 1)),
        ("gamma", lambda: discrete.stationary_homozygosity([0.5, 0.5], 10, None)),
        ("mixture", lambda: discrete.mixture_heterozygosity([0.5, 0.5], 10, 1, None)),
        ("rng", lambda: discrete.simulate([0.5, 0.5], 10, 1, 1, None)),
        ("M", lambda: discrete.simulate([0.5, 0.5], 10**30, 1, 1, np.random.default_rng(0))),
        ("sizes", lambda: gaussian.expected_w2("x")),
        ("sigma", lambda: gaussian.expected_w2([5], sigma=None)),
        ("trace", lambda: gaussian.w2_bounds([5], trace="1")),
        ("M", lambda: gaussian.lyapunov_exponents([5], 2)),
        ("M", lambda: gaussian.simulate(10**30, 1, 1, np.random.default_rng(0))),
        ("rng", lambda: gaussian.simulate(10, 1, 1, 7)),
        ("gamma", lambda: gaussian.fresh_fraction(10, "0.1")),
        ("mean0", lambda: gaussian.w2("0", 1, 0, 1)),
        ("p", lambda: gaussian.log_variance_quantile([0.5], [10])),
        ("alpha", lambda: Mixture("1")),
    ],
)
def test_errors_name_the_argument(name, call):
    with pytest.raises(ValueError, match=f"{name} = "):
        call()


# Precision at the ends of the ranges


def test_small_heterozygosity_keeps_its_digits():
    exact = 0.5 * 0.9**500
    assert discrete.mixture_heterozygosity([0.5, 0.5], 10, 500, Mixture())[-1] == pytest.approx(exact, rel=1e-12, abs=0)
    assert discrete.expected_heterozygosity([0.5, 0.5], 10**9, 10**9) == pytest.approx(
        0.5 * np.exp(-1 - 0.5e-9), rel=1e-12, abs=0
    )


def test_survival_of_very_many_rounds_is_the_final_state():
    assert discrete.survival([0.01, 0.3], 100, 10**7) == pytest.approx([0.01, 0.3], abs=1e-12)


def test_moments_of_large_samples_do_not_cancel():
    mean, variance = gaussian.w2_moments([1e5] * 3)
    assert mean == pytest.approx(gaussian.expected_w2([1e5] * 3), abs=1e-14)
    assert variance == pytest.approx(2.5 * (3e-5) ** 2, rel=1e-4, abs=0)
    assert gaussian.w2_moments([1], ddof=0) == (2.0, 2.0)


def test_distance_of_nearly_equal_variances():
    assert float(gaussian.w2(0, 1, 0, 1 + 1e-9)) == pytest.approx(0.25e-18, rel=1e-6, abs=0)
