"""Intervals of one share: published examples, statsmodels and scipy, and properties no example can show."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.stats import Interval, binomial_excess, clustered_interval, wilson

WIDE = Interval(-99.0, 99.0)


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


@settings(deadline=None)  # the first call loads statsmodels
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


@settings(deadline=None)  # the first call loads scipy
@given(n=st.integers(1, 60), share=st.fractions(0, 1, max_denominator=20), data=st.data())
def test_binomial_excess_is_the_sum_of_the_upper_tail(n: int, share: Fraction, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    tail = sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(count, n + 1))
    assert binomial_excess(count, n, float(share)) == pytest.approx(float(tail), rel=1e-9)


def test_the_clustered_interval_of_three_clusters_is_that_worked_out_by_hand() -> None:
    # Mean 1/2; the clusters deviate by 1, -1 and 0; se^2 = 3/2 * 2 / 6^2 = 1/12; t(0.975, 2) = 4.3027.
    values, clusters = np.array([1, 1, 0, 0, 1, 0]), np.array([4, 4, 7, 7, 9, 9])
    margin = 4.3027 / 12**0.5
    assert clustered_interval(values, clusters, bounds=WIDE) == pytest.approx(
        (0.5 - margin, 0.5 + margin), abs=1e-4
    )
    assert clustered_interval(values, clusters) == (0, 1)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("kinds", [(0, 1), (-1, 0, 1)])
def test_the_clustered_interval_is_that_of_statsmodels(kinds: tuple[int, ...], level: float) -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    clusters = rng.integers(-1, 40, 500) // 3 * rng.integers(1, 4, 500)  # uneven sizes, some alone
    values = rng.choice(kinds, 500)
    alone = clusters < 0
    assert alone.any()
    groups = np.where(alone, 1000 + np.arange(500), clusters)
    fit = sm.OLS(values, np.ones(500)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    expected = tuple(fit.conf_int(alpha=1 - level)[0])
    assert clustered_interval(values, clusters, level, Interval(-1, 1)) == pytest.approx(expected, rel=1e-9)


def test_the_clustered_error_is_the_sum_over_all_pairs_of_miller_2024() -> None:
    # Miller (2024): the variance of the mean gains the products of all pairs of one cluster.
    rng = np.random.default_rng(1)
    values, clusters = rng.random(60), rng.integers(0, 12, 60)
    off = values - values.mean()
    pairs = sum(off[i] * off[j] for i in range(60) for j in range(60) if clusters[i] == clusters[j])
    groups = len(set(clusters.tolist()))
    error = (pairs / 60**2 * groups / (groups - 1)) ** 0.5
    interval = clustered_interval(values, clusters)
    assert interval is not None
    from scipy.stats import t

    assert interval.high - interval.low == pytest.approx(2 * t.ppf(0.975, groups - 1) * error)


def test_questions_that_share_nothing_give_the_ordinary_t_interval() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(2).random(50)
    expected = ttest_1samp(values, 0).confidence_interval()
    for clusters in (np.full(50, -1), np.arange(50)):
        assert clustered_interval(values, clusters) == pytest.approx((expected.low, expected.high))


def test_the_clustered_interval_covers_where_that_of_independent_questions_does_not() -> None:
    # 60 sources of 10 questions; each source has its own difficulty, 0.7 on average.
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), 10)
    clustered = naive = 0
    for _ in range(400):
        values = (rng.random(600) < np.repeat(rng.beta(1.4, 0.6, 60), 10)).astype(np.int8)
        ours, plain = clustered_interval(values, clusters), wilson(int(values.sum()), 600)
        assert ours is not None
        assert plain is not None
        clustered += ours.low <= 0.7 <= ours.high
        naive += plain.low <= 0.7 <= plain.high
    assert 0.92 <= clustered / 400 <= 0.98
    assert naive / 400 < 0.75


VALUES = st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 5)), min_size=1, max_size=60)


@settings(deadline=None)
@given(rows=VALUES, order=st.randoms())
def test_the_clustered_interval_depends_on_no_order_and_no_name(rows: list[tuple[int, int]], order) -> None:
    mixed = order.sample(rows, len(rows))
    one, other = _interval(rows), _interval([(v, c if c < 0 else 900 - 7 * c) for v, c in mixed])
    assert (one is None) == (other is None)
    assert one is None or one == pytest.approx(other)


@settings(deadline=None)
@given(rows=VALUES)
def test_the_clustered_interval_mirrors_and_holds_the_mean(rows: list[tuple[int, int]]) -> None:
    there, back = _interval(rows), _interval([(-v, c) for v, c in rows])
    if there is None or back is None:
        assert there is back
        return
    assert -1 <= there.low <= sum(v for v, _ in rows) / len(rows) <= there.high <= 1
    assert there == pytest.approx((-back.high, -back.low))


def _interval(rows: list[tuple[int, int]]) -> Interval | None:
    values, clusters = np.array(rows).T
    return clustered_interval(values, clusters, bounds=Interval(-1, 1))


def test_repeating_every_question_within_its_source_adds_no_certainty() -> None:
    values, clusters = np.array([1, 0, 1, 1, 0]), np.array([0, 1, 2, 3, 3])
    assert clustered_interval(values.repeat(9), clusters.repeat(9)) == pytest.approx(
        clustered_interval(values, clusters)
    )


@pytest.mark.parametrize(
    ("values", "clusters"),
    [
        pytest.param([], [], id="no question"),
        pytest.param([1], [-1], id="one question"),
        pytest.param([1, 0, 1], [3, 3, 3], id="one source"),
        pytest.param([1, 1, 1, 1], [0, 0, 1, -1], id="all right"),
        pytest.param([0, 0, 0, 0], [0, 0, 1, -1], id="all wrong, or two systems alike"),
        pytest.param([1, 0, 1, 0], [0, 0, 1, 1], id="sources without a difference"),
    ],
)
def test_there_is_no_clustered_interval_where_no_error_can_be_estimated(
    values: list[int], clusters: list[int]
) -> None:
    assert clustered_interval(np.array(values, float), np.array(clusters, np.int32)) is None


def test_values_and_clusters_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        clustered_interval(np.ones(3), np.zeros(1, int))
