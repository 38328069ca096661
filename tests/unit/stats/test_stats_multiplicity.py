"""Ambiguity and discrepancy: an example by hand, the definitions written out, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.stats import predictive_multiplicity

ROWS = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(-1, 3), min_size=k, max_size=k), min_size=1, max_size=50)
)


def columns(rows: list[list[int]]) -> list[np.ndarray]:
    return list(np.array(rows, np.int32).T)


def test_ambiguity_and_discrepancy_by_hand() -> None:
    # Of the ten questions, the second system differs on five, the third on the other five, the fourth on two.
    baseline = np.zeros(10, np.int32)
    others = np.zeros((3, 10), np.int32)
    others[0, :5], others[1, 5:], others[2, 4:6] = 1, 2, 3
    assert predictive_multiplicity(baseline, others) == (10, 1.0, 0.5)
    assert predictive_multiplicity(baseline, others[:1]) == (10, 0.5, 0.5)
    assert predictive_multiplicity(baseline, others[2:]) == (10, 0.2, 0.2)


@given(rows=ROWS)
def test_ambiguity_and_discrepancy_are_their_definitions(rows: list[list[int]]) -> None:
    baseline, *others = columns(rows)
    result = predictive_multiplicity(baseline, others)
    answered = [row for row in rows if min(row) >= 0]
    if not answered:
        assert result is None
        return
    n = len(answered)
    some = sum(any(other != row[0] for other in row[1:]) for row in answered)
    each = [sum(row[i] != row[0] for row in answered) for i in range(1, len(rows[0]))]
    assert result == (n, some / n, max(each) / n)


@given(rows=ROWS, order=st.randoms())
def test_no_order_matters_and_discrepancy_bounds_ambiguity(rows: list[list[int]], order) -> None:
    baseline, *others = columns(order.sample(rows, len(rows)))
    plain, mixed = columns(rows), predictive_multiplicity(baseline, others[::-1])
    assert predictive_multiplicity(plain[0], plain[1:]) == mixed
    if mixed is not None:
        assert 0 <= mixed.discrepancy <= mixed.ambiguity <= min(1, len(others) * mixed.discrepancy)


@given(rows=ROWS)
def test_one_competitor_more_never_lowers_them_on_the_same_questions(rows: list[list[int]]) -> None:
    baseline, *others = columns([[abs(code) for code in row] for row in rows])
    fewer = predictive_multiplicity(baseline, others)
    more = predictive_multiplicity(baseline, [*others, baseline[::-1]])
    assert fewer is not None
    assert more is not None
    assert more.ambiguity >= fewer.ambiguity
    assert more.discrepancy >= fewer.discrepancy


def test_identical_systems_have_no_multiplicity() -> None:
    answers = np.array([0, 1, 2, -1])
    assert predictive_multiplicity(answers, [answers, answers]) == (3, 0, 0)


def test_without_a_competitor_or_a_question_there_is_none() -> None:
    assert predictive_multiplicity(np.array([0, 1]), []) is None
    assert predictive_multiplicity(np.array([0, -1]), [np.array([-1, 1])]) is None
    assert predictive_multiplicity(np.zeros(0, int), [np.zeros(0, int)]) is None


def test_answers_to_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="same questions"):
        predictive_multiplicity(np.array([0, 1, 2]), [np.array([0])])
