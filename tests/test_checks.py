"""The self-checks: what passes, what the reader is told; and those of the pages, tried with right and wrong answers."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from execute import chapters, read_notebook
from model_collapse import gaussian
from model_collapse.checks import check, digest
from model_collapse.process import Family

ROOT = Path(__file__).resolve().parent.parent


def said(capsys: pytest.CaptureFixture[str], answer: Any, tests: Any, digits: int = 3) -> str:
    check(answer, tests, "ex", digits)
    return capsys.readouterr().out.removesuffix("\n")


@pytest.mark.parametrize("right", [0.3, -0.3, 0.3004999, 9.5, 2.5e-30, -7.77e20, 299])
def test_a_number_passes_up_to_half_a_unit_of_its_last_digit_and_fails_from_one_and_a_half(capsys, right):
    unit, tests = 10.0 ** (math.floor(math.log10(abs(right))) - 2), {"hint": digest(right, "ex")}
    for off in (-0.49, -0.2, 0, 0.2, 0.49):
        assert said(capsys, right + off * unit, tests) == "Right, by 1 test."
    for off in (-1.51, 1.51):
        assert said(capsys, right + off * unit, tests) == "Not yet: hint"
    assert said(capsys, -right, tests) == "Not yet: hint"


def test_at_a_power_of_ten_it_is_the_answer_s_own_digits_that_count(capsys):
    for right, answer in ((1.0, 0.9996), (0.9996, 1.004), (1.0, 1.004), (-0.9996, -1.0), (1e-30, 1e-30)):
        assert said(capsys, answer, {"hint": digest(right, "ex")}) == "Right, by 1 test."
    for right, answer in ((1.0, 0.998), (1.0, 1.02), (-1.0, 1.0)):
        assert said(capsys, answer, {"hint": digest(right, "ex")}) == "Not yet: hint"


def test_zero_is_passed_by_both_zeros_and_by_nothing_else(capsys):
    tests = {"hint": digest(-0.0, "ex")}
    assert [said(capsys, x, tests) for x in (0, 0.0, -0.0)] == ["Right, by 1 test."] * 3
    assert said(capsys, 1e-300, tests) == "Not yet: hint"


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, np.nan])
def test_what_is_not_finite_passes_no_digest_and_warns_of_nothing(capsys, x):
    assert said(capsys, x, {"hint": digest(0, "ex")}) == "Not yet: hint"
    assert said(capsys, [0, x], {"hint": f"{digest(0, 'ex')} {digest(1, 'ex')}"}) == "Not yet: hint"


def test_several_numbers_are_compared_in_order_and_in_number(capsys):
    tests = {"hint": f"{digest(1, 'ex')} {digest(2, 'ex')}"}
    for right in ([1, 2], (1.0, 2.001), np.array([1, 2])):
        assert said(capsys, right, tests) == "Right, by 1 test."
    for wrong in ([2, 1], [1], [1, 2, 3], [], 1):
        assert said(capsys, wrong, tests) == "Not yet: hint"


def test_salt_and_digits_count(capsys):
    assert digest(0.3, "a") != digest(0.3, "b")
    assert digest(0.3, "a", 2) != digest(0.3, "a", 3)
    assert said(capsys, 0.34, {"hint": digest(0.3, "ex", 1)}, digits=1) == "Right, by 1 test."


def test_the_first_test_that_fails_is_the_one_that_is_told(capsys):
    tests = {"small": lambda x: x < 10, "even": lambda x: x % 2 == 0}
    assert said(capsys, None, tests) == "No answer yet: put yours in the place of None."
    assert said(capsys, 11, tests) == "Not yet: small"
    assert said(capsys, 3, tests) == "Not yet: even"
    assert said(capsys, 4, tests) == "Right, by 2 tests."


def test_an_error_of_the_reader_s_own_is_told_with_the_hint(capsys):
    tests = {"f(0) is 1": lambda f: f(0) == 1}
    assert said(capsys, lambda x: 1 / x, tests) == "Not yet: f(0) is 1 (ZeroDivisionError: division by zero)"
    assert said(capsys, 5, tests) == "Not yet: f(0) is 1 (TypeError: 'int' object is not callable)"
    assert said(capsys, [1, [2, 3]], tests).startswith("Not yet: f(0) is 1 (ValueError: ")
    assert said(capsys, "one", {"a number": digest(1, "ex")}).startswith("Not yet: a number (ValueError: ")


def test_a_reader_who_interrupts_is_not_held_up():
    def forever(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(forever, {"hint": lambda f: f(1)})


def test_an_author_s_slips_are_told():
    with pytest.raises(ValueError, match=r"tests = \{\}: must hold at least one test"):
        check(1, {})
    with pytest.raises(ValueError, match="digits = 0: must be an integer >= 1"):
        check(1, {"hint": ""}, digits=0)
    with pytest.raises(ValueError, match="number = nan: must be finite"):
        digest(math.nan, "ex")


# The self-checks of the pages: each is passed by its solution, and tells a wrong answer why it is wrong.


def pages_with_checks():
    """Of each self-check: label, source of its cell, what that cell shows, and what the cells of its solution show."""
    for chapter in chapters(ROOT):
        cells = read_notebook(chapter.notebook).cells
        for k, cell in enumerate(cells):
            if cell.cell_type == "code" and (call := re.search(r'^check\(mine, \w+, "([\w-]+)"', cell.source, re.M)):
                solved = [c for c in cells[k + 1 :] if re.search(rf'^check\(.*"{call[1]}"', c.source, re.M)]
                yield call[1], cell.source, printed(cell), "".join(map(printed, solved))


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


PAGES = {label: rest for label, *rest in pages_with_checks()}


def asked(label):
    """The tests of a page and their digits, from the self-check's cell alone: no solution has run."""
    found: dict[str, Any] = {}

    def keep(mine, tests, salt, digits=3):
        found.update(tests=tests, digits=digits)

    exec(PAGES[label][0], {"np": np, "gaussian": gaussian, "Family": Family, "SEED": 0, "check": keep})
    return found["tests"], found["digits"]


@pytest.mark.parametrize("label", PAGES)
def test_a_page_awaits_an_answer_and_its_solution_passes(label):
    _, before, after = PAGES[label]
    assert before == "No answer yet: put yours in the place of None.\n"
    assert f"Right, by {len(asked(label)[0])} tests.\n" in after


def poisson(fit=np.mean, sample=lambda theta, n, rng: rng.poisson(theta, n)):
    return Family(lambda data, rng, previous: fit(data), sample)


def one_sided(m):
    """Rounds to one founder if t_b is put on one side of its equation only."""
    hit, t, j = np.eye(1, m + 1)[0], np.zeros(m + 1), np.arange(m + 1)
    for b in range(1, m + 1):
        hit = hit * j / m + np.append(0, (hit * (1 - j / m))[:-1])
        t[b] = 1 + hit[:b] @ t[:b] if b > 1 else 0
    return t[m]


def fresh(power=2, spread=True, unbiased=True):
    def step(a, v, M, gamma):
        w = 1 - gamma
        between = spread * w * gamma * a * (M / (M - 1) if unbiased else 1)
        return w**power * a + (w * v + gamma) / M, w * v + gamma + between

    return step


def share(border):
    def limit(lam, noise, gamma):
        kept = lam - (1 - gamma) / gamma * noise
        return kept if lam > border(noise, gamma) else gamma * lam

    return limit


def nucleus(Q, nu, crossing=True, normalised=True, fixed=None):
    order = np.argsort(-Q, axis=1, kind="stable")
    ranked = np.take_along_axis(Q, order, axis=1)
    before = ranked.cumsum(axis=1) - (ranked if crossing else 0) < nu - 1e-12
    cut = np.zeros_like(Q)
    kept = np.arange(Q.shape[1]) < fixed if fixed else before
    np.put_along_axis(cut, order, np.where(kept, ranked, 0), axis=1)
    return cut / cut.sum(axis=1, keepdims=True) if normalised else cut


def limits(power=1 / 0.8, steps=20_000, real=lambda gamma: gamma):
    found = []
    for gamma in map(real, (0.01, 0.1, 0.3, 0.5)):
        x = 0.6
        for _ in range(steps):
            sharp = x**power / (x**power + (1 - x) ** power)
            x = (1 - gamma) * sharp + gamma * 0.6
        found.append(x)
    return found


k = np.arange(2, 7)
SIGMA = -k / ndtri(ndtr(-k) / 2)
WRONG = {  # an answer, and a word of the hint that it gets
    "ex-poisson": [
        ((lambda x: 1, lambda x: 2), "it is a Family"),
        (poisson(np.sum), "the fit is the mean"),
        (poisson(sample=lambda theta, n, rng: rng.poisson(theta, n + 1)), "n points"),
        (poisson(sample=lambda theta, n, rng: rng.normal(theta, np.sqrt(theta), n)), "whole numbers"),
        (poisson(sample=lambda theta, n, rng: rng.normal(theta, np.sqrt(theta), n).round().astype(int)), "never neg"),
        (poisson(sample=lambda theta, n, rng: rng.binomial(10, theta / 10, n)), "their variance"),
    ],
    "ex-tail": [
        (0.12, "five"),
        (SIGMA, "harder or the easier"),
        (1 - k / np.sqrt(k**2 + 2 * np.log(2)), "not its dens"),
    ],
    "ex-trust": [
        ([0.057, 0.039, 0.034, 0.033, 0.033], "two valleys"),
        ([0.057, 0.039, 0.034, 0.9, 0.9], "better still"),
        ([0.1, 0, 0, 1, 1], "grid fine enough"),
        ([5.7, 3.9, 3.4, 100, 100], "a share"),
    ],
    "ex-discrete-sample": [
        ([298, 29_955, 2_995_730], "too small"),
        ([300, 29_958, 2_995_733], "too large"),
        ([130, 13_010, 1_301_029], "too small"),
        ([298.07, 29_955.8, 2_995_730.8], "whole numbers"),
    ],
    "ex-discrete-ancestor": [
        (lambda m: 2 * (m - 1), "by hand"),
        (one_sided, "a coin"),
        (lambda m: m, "its own founder"),
    ],
    "ex-gaussian-life": [
        ([693_146, 241_980], "not its square"),
        ([241_980, 1_386_292], "which of the two"),
        ([1_386_292, 1_380_000], "far from the median"),
        ([1_386_292, 189_400], "how many deviations"),
    ],
    "ex-gaussian-fresh": [
        (fresh(power=1), "diluted"),
        (fresh(spread=False), "two groups"),
        (fresh(unbiased=False), "divides by M - 1"),
        (lambda a, v, M, gamma: a, "two numbers"),
    ],
    "ex-gmm-early": [(2, "half of the points"), (1, "what else"), (1.5, "variance of a weight"), ([1, 1.25], "single")],
    "ex-vae-share": [
        (lambda lam, noise, gamma: lam - (1 - gamma) / gamma * noise, "never writes"),
        (share(lambda noise, gamma: noise), "put it into the recursion"),
        (lambda lam, noise, gamma: max(lam - noise / gamma, 0), "real images alone"),
    ],
    "ex-lm-points": [
        ([51.8, 61.5], "not levels"),
        ([-0.2, 27.5], "1 to 9"),
        ([20, 28], "1 to 9"),
        ([27.5, 17.8], "smaller"),
    ],
    "ex-repetition-nucleus": [
        (lambda Q, nu: nucleus(Q, nu, crossing=False), "at least nu"),
        (lambda Q, nu: nucleus(Q, nu, normalised=False), "is a law"),
        (lambda Q, nu: nucleus(Q, nu, fixed=7), "smallest such set"),
    ],
    "ex-repetition-fixed": [
        (limits(steps=10), "has it arrived"),
        (limits(power=0.8), "favours the larger"),
        (limits(real=lambda gamma: 1 - gamma), "nearer to 0.6"),
        (np.array(limits()) * 1.002, "four digits"),
    ],
}


def test_each_page_with_a_check_is_tried_with_wrong_answers():
    assert PAGES.keys() == WRONG.keys()


@pytest.mark.parametrize(("label", "answer", "hint"), [(x, *case) for x in WRONG for case in WRONG[x]])
def test_a_wrong_answer_gets_the_hint_that_it_needs(capsys, label, answer, hint):
    tests, digits = asked(label)
    check(answer, tests, label, digits)
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ")
    assert hint in out
