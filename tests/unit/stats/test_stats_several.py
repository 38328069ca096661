"""Several systems and several comparisons: published examples, the formulas written out, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.stats import cochran_q, holm

CONOVER = "111 111 010 110 000 111 111 110 001 010 111 111"
FROM_SAS = {"000": 6, "100": 2, "001": 16, "101": 4, "010": 2, "110": 6, "011": 4, "111": 6}
PATTERNS = " ".join(" ".join([pattern] * count) for pattern, count in FROM_SAS.items())


def verdicts(rows: str) -> list[np.ndarray]:
    """Rows of 0, 1 and - (unscored), a question each; the verdicts of each system."""
    known = {"0": 0, "1": 1, "-": -1}
    return list(np.array([[known[c] for c in row] for row in rows.split()], np.int8).T)


@pytest.mark.parametrize(
    ("rows", "statistic", "p"),
    [
        pytest.param(CONOVER, 2.8, 0.246597, id="Conover, Practical Nonparametric Statistics; NIST Dataplot"),
        pytest.param(PATTERNS, 8.4706, 0.0145, id="SAS, as in the tests of statsmodels"),
    ],
)
def test_cochran_q_gives_the_published_values(rows: str, statistic: float, p: float) -> None:
    result = cochran_q(verdicts(rows))
    assert result is not None
    assert (result.statistic, result.p) == (
        pytest.approx(statistic, abs=5e-5),
        pytest.approx(p, abs=5e-5),
    )
    assert (result.df, result.n, result.systems) == (2, len(rows.split()), 3)


ROWS = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(-1, 1), min_size=k, max_size=k), min_size=1, max_size=40)
)


@settings(deadline=None)
@given(rows=ROWS)
def test_cochran_q_is_the_formula_of_the_paper(rows: list[list[int]]) -> None:
    result = cochran_q(list(np.array(rows, np.int8).T))
    scored = [row for row in rows if min(row) >= 0]
    k = len(rows[0])
    if not scored:
        assert result is None
        return
    assert result is not None
    assert (result.n, result.systems, result.df) == (len(scored), k, k - 1)
    columns = [sum(column) for column in zip(*scored, strict=True)]
    spread = sum(sum(row) * (k - sum(row)) for row in scored)
    mean = sum(columns) / k
    expected = k * (k - 1) * sum((c - mean) ** 2 for c in columns) / spread if spread else 0
    assert result.statistic == pytest.approx(expected)
    from scipy.stats import chi2

    assert result.p == pytest.approx(chi2.sf(expected, k - 1))


def test_cochran_q_of_two_systems_is_the_uncorrected_mcnemar_test() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[40, 17], [41, 30]], exact=False, correction=False)
    result = cochran_q(verdicts("11 " * 40 + "10 " * 17 + "01 " * 41 + "00 " * 30))
    assert result is not None
    assert (result.statistic, result.p) == pytest.approx((expected.statistic, expected.pvalue))


@settings(deadline=None)
@given(rows=ROWS, order=st.randoms())
def test_cochran_q_depends_on_no_order(rows: list[list[int]], order) -> None:
    there = cochran_q(list(np.array(rows, np.int8).T))
    mixed = np.array(order.sample(rows, len(rows)), np.int8).T
    back = cochran_q(list(mixed[::-1]))
    assert (there is None) == (back is None)
    assert there is None or there == pytest.approx(back)


def test_cochran_q_looks_only_at_questions_where_all_are_scored_and_some_differ() -> None:
    plain, more = cochran_q(verdicts(CONOVER)), cochran_q(verdicts(CONOVER + " 111 000 000 -01 1-0 10-"))
    assert plain is not None
    assert more is not None
    assert (more.statistic, more.p) == pytest.approx((plain.statistic, plain.p))
    assert more.n == plain.n + 3


def test_cochran_q_of_equal_systems_has_nothing_against_equality() -> None:
    assert cochran_q(verdicts("111 000 111")) == (0, 2, 1, 3, 3)
    assert cochran_q(verdicts("100 010 001")) == (0, 2, 1, 3, 3)


def test_cochran_q_needs_two_systems_and_a_question() -> None:
    assert cochran_q([]) is None
    assert cochran_q(verdicts("1 0 1")) is None
    assert cochran_q(verdicts("1- -0")) is None
    assert cochran_q([np.zeros(0, np.int8)] * 3) is None


def test_cochran_q_of_different_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="same questions"):
        cochran_q([np.ones(3, np.int8), np.ones(1, np.int8)])


def test_holm_gives_the_adjusted_values_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7]) == [0.7]
    assert holm([]) == []


def test_holm_gives_the_values_of_the_manual_of_pingouin() -> None:
    assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])


@settings(deadline=None, max_examples=20)  # statsmodels collects garbage at every call: 0.1 s
@given(p_values=st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_the_running_maximum_of_the_paper(p_values: list[float]) -> None:
    expected, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, (len(p_values) - rank) * p_values[i])
        expected[i] = min(worst, 1.0)
    found = holm(p_values)
    assert found == pytest.approx(expected)
    for p, adjusted in zip(p_values, found, strict=True):
        assert p <= adjusted <= min(1, len(p_values) * p) + 1e-12  # Bonferroni
