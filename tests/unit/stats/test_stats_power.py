"""Power of the exact McNemar test: enumeration of all tables, published values, and properties."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orch_local.errors import InputError
from orch_local.stats import mcnemar_exact, mcnemar_power, minimum_detectable, questions_needed


@cache
def exact_p(gained: int, lost: int) -> float:
    return mcnemar_exact(gained, lost).p


def enumerated_power(n: int, gained: float, lost: float, alpha: float) -> float:
    """The probabilities of all tables that the test rejects, summed."""
    rest, total = max(1 - gained - lost, 0.0), 0.0
    for g in range(n + 1):
        for k in range(n + 1 - g):
            if exact_p(g, k) <= alpha + 1e-12:
                ways = math.comb(n, g) * math.comb(n - g, k)
                total += ways * gained**g * lost**k * rest ** (n - g - k)
    return total


@pytest.mark.parametrize("n", [1, 5, 6, 13, 24])
@pytest.mark.parametrize(
    ("gained", "lost"), [(0.3, 0.1), (0.1, 0.3), (0.2, 0.2), (0.7, 0.3), (0.5, 0.0), (0.0, 1.0), (0.01, 0.02)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.0625, 0.2])  # 0.0625 is the p of five against none
def test_power_is_the_sum_over_all_tables(n: int, gained: float, lost: float, alpha: float) -> None:
    expected = enumerated_power(n, gained, lost, alpha)
    assert mcnemar_power(n, gained, lost, alpha) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(
    ("n", "gained", "lost", "alpha", "power", "digits"),
    [
        pytest.param(100, 0.20, 0.10, 0.05, 0.373077084, 5e-10, id="R pwrss, checked there against PASS"),
        pytest.param(249, 0.20, 0.10, 0.05, 0.801446921, 5e-10, id="R pwrss, checked there against PASS"),
        pytest.param(144, 0.25, 0.45, 0.05, 0.80, 5e-3, id="R MESS, exact"),
        # One-sided 0.05 there, and a sum cut off earlier, which costs 1.4e-5.
        pytest.param(50, 0.08, 0.32, 0.10, 0.839343, 2e-5, id="O'Brien 2002; G*Power manual, chapter 5"),
    ],
)
def test_power_gives_the_published_values(
    n: int, gained: float, lost: float, alpha: float, power: float, digits: float
) -> None:
    assert mcnemar_power(n, gained, lost, alpha) == pytest.approx(power, abs=digits)


def test_power_of_many_questions_comes_close_to_the_normal_formula_of_connor_1987() -> None:
    from scipy.stats import norm

    n, gained, lost = 100_000, 0.104, 0.1
    difference, discordant = gained - lost, gained + lost
    z = norm.ppf(0.975)
    expected = norm.cdf((difference * n**0.5 - z * discordant**0.5) / (discordant - difference**2) ** 0.5)
    assert 0.5 < expected < 0.9
    assert mcnemar_power(n, gained, lost) == pytest.approx(expected, abs=0.005)


SHARES = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5))


@settings(deadline=None)
@example(n=3, shares=(0.0, 1e-308), alpha=0.5)  # scipy cannot do so small a share
@given(n=st.integers(0, 3000), shares=SHARES, alpha=st.floats(0.001, 0.5))
def test_power_is_symmetric_and_a_probability(n: int, shares: tuple[float, float], alpha: float) -> None:
    there, back = mcnemar_power(n, *shares, alpha), mcnemar_power(n, *shares[::-1], alpha)
    assert 0 <= there <= 1
    assert there == pytest.approx(back, abs=1e-9)


@settings(deadline=None)
@given(n=st.integers(1, 3000), share=st.floats(0.001, 0.5), alpha=st.floats(0.001, 0.5))
def test_equal_systems_are_called_different_at_most_as_often_as_alpha_says(
    n: int, share: float, alpha: float
) -> None:
    assert mcnemar_power(n, share, share, alpha) <= alpha + 1e-9


def test_power_rises_with_the_difference_the_questions_and_alpha() -> None:
    by_difference = [mcnemar_power(500, 0.1 + d, 0.1 - d) for d in np.linspace(0, 0.06, 7)]
    by_questions = [mcnemar_power(n, 0.15, 0.1) for n in (50, 100, 200, 400, 800, 1600)]
    by_alpha = [mcnemar_power(500, 0.15, 0.1, alpha) for alpha in (0.001, 0.01, 0.05, 0.2)]
    for powers in (by_difference, by_questions, by_alpha):
        assert powers == sorted(set(powers))


def test_nothing_shows_without_questions_or_without_differences() -> None:
    assert mcnemar_power(0, 0.3, 0.1) == 0
    assert mcnemar_power(100, 0, 0) == 0
    assert mcnemar_power(5, 1, 0) == 0  # five against none has p = 0.0625
    assert mcnemar_power(6, 1, 0) == pytest.approx(1)


@pytest.mark.parametrize(("n", "discordant", "power"), [(6, 1.0, 0.8), (12, 0.7, 0.5), (20, 0.5, 0.8)])
def test_the_minimum_detectable_difference_is_where_enumeration_reaches_the_power(
    n: int, discordant: float, power: float
) -> None:
    found = minimum_detectable(n, discordant, power)
    assert found is not None

    def enumerated(difference: float) -> float:
        return enumerated_power(n, (discordant + difference) / 2, (discordant - difference) / 2, 0.05)

    assert enumerated(found) >= power - 1e-9
    assert enumerated(found - 1e-6) < power


def test_the_minimum_detectable_difference_of_pwrss() -> None:
    # R pwrss: 0.20 against 0.10 on 249 questions has a power of 0.801446921.
    assert minimum_detectable(249, 0.30, 0.801446921) == pytest.approx(0.10, abs=1e-8)


def test_no_difference_is_detectable_with_too_few_questions() -> None:
    assert minimum_detectable(0, 0.5) is None
    assert minimum_detectable(5, 1.0) is None
    assert minimum_detectable(20, 0.01) is None


@pytest.mark.parametrize(
    ("difference", "discordant", "power"),
    [(1.0, 1.0, 0.8), (0.9, 1.0, 0.9), (0.7, 0.8, 0.5), (0.6, 0.6, 0.8), (0.8, 0.99, 0.7)],
)
def test_the_questions_needed_are_the_last_too_few_of_enumeration_and_one(
    difference: float, discordant: float, power: float
) -> None:
    shares = (discordant + difference) / 2, (discordant - difference) / 2
    short = [n for n in range(41) if enumerated_power(n, *shares, 0.05) < power - 1e-12]
    assert short[-1] < 35
    assert questions_needed(difference, discordant, power) == short[-1] + 1


def test_the_questions_needed_of_pwrss() -> None:
    assert questions_needed(0.10, 0.30) == 249


@settings(deadline=None, max_examples=25)
@given(discordant=st.floats(0.02, 1), share=st.floats(0.2, 1), power=st.floats(0.3, 0.99))
def test_the_questions_needed_are_enough_and_one_less_is_not(
    discordant: float, share: float, power: float
) -> None:
    difference = share * discordant
    n = questions_needed(difference, discordant, power)
    assert n is not None
    shares = (discordant + difference) / 2, (discordant - difference) / 2
    enough = [mcnemar_power(m, *shares) >= power - 1e-9 for m in range(n, n + 10)]
    assert all(enough)
    assert mcnemar_power(n - 1, *shares) < power + 1e-9


def test_no_number_of_questions_shows_no_difference() -> None:
    assert questions_needed(0, 0.2) is None
    assert questions_needed(1e-5, 0.5) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: mcnemar_power(10, -0.1, 0.2),
        lambda: mcnemar_power(10, 0.6, 0.5),
        lambda: mcnemar_power(-1, 0.1, 0.2),
        lambda: mcnemar_power(10, 0.1, 0.2, alpha=0),
        lambda: mcnemar_power(10, math.nan, 0.2),
        lambda: minimum_detectable(10, 0),
        lambda: minimum_detectable(10, 1.2),
        lambda: minimum_detectable(10, math.nan),
        lambda: minimum_detectable(10, 0.5, power=1),
        lambda: minimum_detectable(10, 0.5, power=0.05),
        lambda: questions_needed(0.3, 0.2),
        lambda: questions_needed(-0.1, 0.2),
        lambda: questions_needed(math.nan, 0.2),
        lambda: questions_needed(0.1, 0.2, alpha=1.5),
    ],
)
def test_impossible_shares_are_refused(call) -> None:
    with pytest.raises(InputError):
        call()


def test_shares_that_sum_to_one_but_for_the_last_bit_are_fine() -> None:
    assert 0.9 + 0.1 + 2e-16 > 1
    assert mcnemar_power(30, 0.9 + 2e-16, 0.1) == pytest.approx(mcnemar_power(30, 0.9, 0.1))
