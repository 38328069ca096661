"""Two systems on the same questions: published examples, statsmodels, enumeration, and properties."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orch_local.stats import Pairs, mcnemar_exact, mcnemar_mid_p, odds_ratio, paired_interval, pairs_of

COUNTS = st.integers(0, 5000)
SMALL = st.integers(0, 400)
VERDICTS = st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), max_size=80)


@given(rows=VERDICTS)
def test_pairs_are_counted_where_both_are_scored(rows: list[tuple[int, int]]) -> None:
    first, second = np.array(rows, np.int8).reshape(-1, 2).T
    seen = Counter(rows)
    assert pairs_of(first, second) == (seen[1, 1], seen[1, 0], seen[0, 1], seen[0, 0])
    there, back = pairs_of(first, second), pairs_of(second, first)
    assert there == (back.both, back.lost, back.gained, back.neither)


def test_pairs_are_python_integers_that_cannot_overflow() -> None:
    pairs = pairs_of(np.ones(3, np.int8), np.zeros(3, np.int8))
    assert [type(count) for count in pairs] == [int] * 4


def test_pairs_of_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="same questions"):
        pairs_of(np.ones(3, np.int8), np.ones(1, np.int8))


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        pytest.param(86, 150, 3.716e-05, id="Agresti 1990, p. 350: approval ratings"),
        pytest.param(5, 0, 2 * 0.5**5, id="by hand: both tails of five coins"),
        pytest.param(35, 28, 0.4500, id="Aoki: support of the cabinet, R binom.test(c(35, 28))"),
        pytest.param(6, 16, 0.052479, id="Cavo 2012, R contingencytables"),
        pytest.param(12, 2, 0.0129, id="Armitage & Berry 1994, p. 127, StatsDirect"),
    ],
)
def test_mcnemar_gives_the_known_exact_p(gained: int, lost: int, p: float) -> None:
    result = mcnemar_exact(gained, lost)
    assert (result.gained, result.lost) == (gained, lost)
    assert result.p == pytest.approx(p, rel=4e-3 if p == 0.0129 else 2e-4)


def test_mcnemar_without_a_differing_question_says_nothing_against_equality() -> None:
    assert mcnemar_exact(0, 0) == (0, 0, 1.0)
    assert mcnemar_mid_p(0, 0) == 1.0


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
    ("gained", "lost", "p"),
    [
        # Fagerland, Lydersen & Laake (2013), table 1 and supplement: 2 * P(X <= 1) - P(X = 1) of 8 coins.
        pytest.param(1, 7, 10 / 256, id="Bentur 2009: airway hyper-responsiveness"),
        pytest.param(6, 16, 0.034690, id="Cavo 2012, R contingencytables McNemar_midP_test_paired_2x2"),
        pytest.param(3, 3, 1 - 0.5 * 20 / 64, id="an even split: 1 - P(X = 3) / 2, as in the supplement"),
    ],
)
def test_mid_p_gives_the_published_values(gained: int, lost: int, p: float) -> None:
    assert mcnemar_mid_p(gained, lost) == pytest.approx(p, abs=5e-7)


@settings(deadline=None)
@given(gained=st.integers(0, 25), lost=st.integers(0, 25))
def test_mid_p_is_what_is_more_extreme_and_half_of_what_is_as_extreme(gained: int, lost: int) -> None:
    n = gained + lost
    if n == 0:
        return
    ways = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    distance = abs(gained - lost)
    expected = sum(
        (w for k, w in enumerate(ways) if abs(2 * k - n) > distance), start=Fraction(0)
    ) + Fraction(1, 2) * sum(w for k, w in enumerate(ways) if abs(2 * k - n) == distance)
    assert mcnemar_mid_p(gained, lost) == pytest.approx(float(expected))


@settings(deadline=None)
@example(gained=1, lost=1074)  # beyond the smallest ordinary floats
@given(gained=COUNTS, lost=COUNTS)
def test_mid_p_is_symmetric_and_below_the_exact_p(gained: int, lost: int) -> None:
    p = mcnemar_mid_p(gained, lost)
    assert 0 <= p <= mcnemar_exact(gained, lost).p + 1e-12
    assert p == mcnemar_mid_p(lost, gained)


@pytest.mark.parametrize(
    ("gained", "lost", "value", "low", "high"),
    [
        pytest.param(12, 2, 6, 1.335744, 55.197091, id="Armitage & Berry 1994, p. 127, StatsDirect"),
        pytest.param(25, 2, 12.5, 3.1169, 108.8892, id="Ezra 2010, R contingencytables"),
    ],
)
def test_the_odds_ratio_has_the_published_interval(
    gained: int, lost: int, value: float, low: float, high: float
) -> None:
    assert odds_ratio(gained, lost) == pytest.approx((value, low, high), abs=5e-5)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("gained", "lost"), [(1, 1), (3, 40), (700, 650), (0, 4)])
def test_the_odds_ratio_agrees_with_the_beta_quantiles_of_statsmodels(
    gained: int, lost: int, level: float
) -> None:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(gained, gained + lost, alpha=1 - level, method="beta")
    expected = (gained / lost, low / (1 - low), high / (1 - high))
    assert odds_ratio(gained, lost, level) == pytest.approx(expected, rel=1e-6)


def test_the_odds_ratio_is_infinite_where_nothing_is_lost_and_none_where_nothing_differs() -> None:
    ratio = odds_ratio(4, 0)
    assert ratio is not None
    # Both tails by hand: 0.025 = share**4 at the lower end.
    assert ratio == (math.inf, pytest.approx(0.025**0.25 / (1 - 0.025**0.25)), math.inf)
    assert odds_ratio(0, 0) is None


@settings(deadline=None)
@given(gained=st.integers(0, 300), lost=st.integers(0, 300))
def test_the_odds_ratio_inverts_with_the_systems_and_agrees_with_the_test(gained: int, lost: int) -> None:
    there, back = odds_ratio(gained, lost), odds_ratio(lost, gained)
    if there is None or back is None:
        assert gained + lost == 0
        return
    assert there.low <= there.value <= there.high
    assert there.low * back.high == pytest.approx(1, rel=1e-6) or there.low == 0
    assert (there.low <= 1 <= there.high) == (mcnemar_exact(gained, lost).p > 0.05)


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
