"""The statistics against published worked examples, and properties that no example can show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.stats import mcnemar_exact, wilson

COUNTS = st.integers(0, 5000)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_intervals_of_newcombe_1998_table_1(
    correct: int, n: int, low: float, high: float
) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_without_data_is_none() -> None:
    assert wilson(0, 0) is None


@given(n=st.integers(1, 10**7), data=st.data())
def test_wilson_lies_in_the_unit_interval_and_holds_the_estimate(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    interval = wilson(correct, n)
    assert interval is not None
    assert 0 <= interval.low <= correct / n <= interval.high <= 1


@given(n=st.integers(1, 10**4), data=st.data())
def test_wilson_of_the_errors_mirrors_that_of_the_hits(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    hits, errors = wilson(correct, n), wilson(n - correct, n)
    assert hits is not None
    assert errors is not None
    assert (1 - errors.high, 1 - errors.low) == pytest.approx(hits)


def test_a_higher_level_gives_a_wider_interval() -> None:
    narrow, wide = wilson(30, 100, 0.9), wilson(30, 100, 0.99)
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        pytest.param(86, 150, 3.716e-05, id="Agresti 1990, p. 350: approval ratings"),
        pytest.param(5, 0, 2 * 0.5**5, id="by hand: both tails of five coins"),
        pytest.param(35, 28, 0.4500, id="Aoki: support of the cabinet, R binom.test(c(35, 28))"),
    ],
)
def test_mcnemar_gives_the_known_exact_p(gained: int, lost: int, p: float) -> None:
    result = mcnemar_exact(gained, lost)
    assert (result.gained, result.lost) == (gained, lost)
    assert result.p == pytest.approx(p, rel=2e-4)


def test_mcnemar_without_a_differing_question_says_nothing_against_equality() -> None:
    assert mcnemar_exact(0, 0) == (0, 0, 1.0)


@given(gained=COUNTS, lost=COUNTS)
def test_mcnemar_is_symmetric_and_a_probability(gained: int, lost: int) -> None:
    p = mcnemar_exact(gained, lost).p
    assert 0 <= p <= 1
    assert p == mcnemar_exact(lost, gained).p


def test_mcnemar_agrees_with_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[400, 17], [41, 300]], exact=True).pvalue
    assert mcnemar_exact(17, 41).p == pytest.approx(expected)
