"""The statistics against published worked examples, and properties that no example can show."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.stats import Pairs, holm, mcnemar_exact, paired_interval, wilson

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


@settings(deadline=None)  # the first call loads scipy
@given(gained=COUNTS, lost=COUNTS)
def test_mcnemar_is_symmetric_and_a_probability(gained: int, lost: int) -> None:
    p = mcnemar_exact(gained, lost).p
    assert 0 <= p <= 1
    assert p == mcnemar_exact(lost, gained).p


def test_mcnemar_agrees_with_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[400, 17], [41, 300]], exact=True).pvalue
    assert mcnemar_exact(17, 41).p == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((0, 30, 0, 0), 0.8395, 1.0),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((30, 0, 0, 24), -0.0358, 0.0358),
    ],
)
def test_the_paired_interval_is_that_of_newcombe_1998_table_3(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert paired_interval(Pairs(*cells)) == pytest.approx((low, high), abs=5e-5)


def test_the_paired_interval_is_that_of_fagerland_2017_chapter_8() -> None:
    assert paired_interval(Pairs(59, 6, 16, 80)) == pytest.approx((-0.1186, -0.0046), abs=5e-5)


def test_the_paired_interval_without_data_is_none() -> None:
    assert paired_interval(Pairs(0, 0, 0, 0)) is None


SMALL = st.integers(0, 400)


@settings(deadline=None)
@given(both=SMALL, gained=SMALL, lost=SMALL, neither=st.integers(1, 400))
def test_the_paired_interval_holds_the_estimate_and_mirrors(
    both: int, gained: int, lost: int, neither: int
) -> None:
    there, back = Pairs(both, gained, lost, neither), Pairs(both, lost, gained, neither)
    one, other = paired_interval(there), paired_interval(back)
    assert one is not None
    assert other is not None
    assert -1 <= one.low <= there.difference <= one.high <= 1
    assert one == pytest.approx((-other.high, -other.low))
    assert one == pytest.approx(paired_interval(Pairs(neither, gained, lost, both)))


def test_pairing_makes_the_interval_narrower() -> None:
    alike, crossed = paired_interval(Pairs(45, 5, 5, 45)), paired_interval(Pairs(25, 25, 25, 25))
    assert alike is not None
    assert crossed is not None
    assert alike.high - alike.low < crossed.high - crossed.low


def test_holm_gives_the_adjusted_values_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7]) == [0.7]
    assert holm([]) == []
