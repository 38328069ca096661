"""Calibration: values of other libraries, examples by hand, the definitions written out, and properties."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.stats import abstain_threshold, aurc, brier, ece, reliability, risk_coverage, thinned

# A thousand answers, 591 of them right; no confidence lies on the edge of a bin, and no two are the same.
# What other libraries say of exactly these stands at each test.
_K = np.arange(1000)
CONFIDENCE = (_K * 0.6180339887498949 + 0.1234) % 1
CORRECT = 0.5 + 0.4 * np.sin(9 * CONFIDENCE) > (_K * 0.7548776662466927) % 1

ANSWERS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60)


def arrays(answers: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Confidences in twentieths: many ties, many on an edge of ten bins."""
    return np.array([c / 20 for c, _ in answers]), np.array([right for _, right in answers], bool)


@pytest.mark.parametrize(
    ("bins", "error"), [(15, 0.3244900526907952), (10, 0.32882090220468385), (5, 0.3191073856367896)]
)
def test_the_calibration_error_is_that_of_torchmetrics_and_netcal(bins: int, error: float) -> None:
    # torchmetrics 1.9.0: binary_calibration_error(norm="l1"); netcal 1.4.0: metrics.ECE.
    assert ece(reliability(CONFIDENCE, CORRECT, bins)) == pytest.approx(error, rel=1e-12)


def test_the_bins_are_those_of_scikit_learn() -> None:
    # scikit-learn 1.9.1: calibration.calibration_curve(n_bins=5).
    found = reliability(CONFIDENCE, CORRECT, 5)
    assert [b.correct / b.n for b in found] == pytest.approx([0.775, 0.65, 0.17, 0.52, 0.84])
    assert [b.confidence for b in found] == pytest.approx(
        [0.10032493, 0.30035006, 0.50048894, 0.70030347, 0.9004195], abs=5e-9
    )


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    # scikit-learn 1.9.1: metrics.brier_score_loss.
    assert brier(CONFIDENCE, CORRECT) == pytest.approx(0.33190052558284416, rel=1e-12)


def test_the_risks_and_their_area_are_those_of_torch_uncertainty() -> None:
    # torch-uncertainty 0.13.0: the error rates of metrics.classification.AURC, and their mean.
    curve = risk_coverage(CONFIDENCE, CORRECT)
    assert curve.risk[[0, 9, 99, 499, 999]] == pytest.approx([1, 0.4, 0.22, 0.428, 0.409])
    assert curve.coverage == pytest.approx(np.arange(1, 1001) / 1000)
    assert aurc(curve) == pytest.approx(0.35518189698300023, rel=1e-12)


def test_bins_error_and_score_by_hand() -> None:
    confidence, correct = np.array([0, 0.5, 0.5, 0.6, 1.0]), np.array([0, 1, 0, 1, 1], bool)
    assert reliability(confidence, correct, 2) == [
        (0, 0.5, 3, pytest.approx(1 / 3), 1),
        (0.5, 1, 2, pytest.approx(0.8), 2),
    ]
    assert ece(reliability(confidence, correct, 2)) == pytest.approx(0 * 3 / 5 + 0.2 * 2 / 5)
    assert brier(confidence, correct) == pytest.approx((0 + 0.25 + 0.25 + 0.16 + 0) / 5)


@given(answers=ANSWERS, bins=st.integers(1, 20))
def test_a_confidence_on_an_edge_belongs_to_the_lower_bin(answers: list[tuple[int, bool]], bins: int) -> None:
    expected: dict[int, list[tuple[int, bool]]] = {}
    for twentieths, right in answers:
        place = max(math.ceil(Fraction(twentieths, 20) * bins) - 1, 0)
        expected.setdefault(place, []).append((twentieths, right))
    found = reliability(*arrays(answers), bins)
    assert [(round(b.low * bins), b.n, b.correct) for b in found] == [
        (place, len(group), sum(right for _, right in group)) for place, group in sorted(expected.items())
    ]
    for b, (_, group) in zip(found, sorted(expected.items()), strict=True):
        assert b.confidence == pytest.approx(sum(c for c, _ in group) / 20 / len(group))
        assert b.low <= b.confidence <= b.high


@pytest.mark.parametrize("bins", [3, 10, 15, 49, 98, 1000])  # 49 * (1 / 49) is below 1
def test_the_edges_are_the_fractions_themselves(bins: int) -> None:
    edges = np.arange(1, bins + 1) / bins
    assert [b.n for b in reliability(edges, edges > 0, bins)] == [1] * bins


@given(answers=ANSWERS, bins=st.integers(1, 20), order=st.randoms())
def test_calibration_depends_on_no_order_and_stays_in_bounds(
    answers: list[tuple[int, bool]], bins: int, order
) -> None:
    mixed = arrays(order.sample(answers, len(answers)))
    error, score = ece(reliability(*arrays(answers), bins)), brier(*arrays(answers))
    assert error == pytest.approx(ece(reliability(*mixed, bins)), abs=1e-12)
    assert score == pytest.approx(brier(*mixed), abs=1e-12)
    assert 0 <= error <= 1
    # Jensen: the calibration error cannot exceed the root of the mean squared distance.
    assert error**2 <= score + 1e-12
    assert score <= 1


@given(answers=ANSWERS)
def test_the_opposite_outcome_and_confidence_have_the_same_score(answers: list[tuple[int, bool]]) -> None:
    confidence, correct = arrays(answers)
    assert brier(1 - confidence, ~correct) == pytest.approx(brier(confidence, correct))


def test_a_perfect_confidence_has_no_error() -> None:
    correct = np.array([1, 0, 1, 1], bool)
    assert (brier(correct.astype(float), correct), ece(reliability(correct.astype(float), correct))) == (0, 0)
    assert aurc(risk_coverage(correct.astype(float), correct)) == pytest.approx(0.25 * 0.25)


@given(answers=ANSWERS)
def test_risk_and_coverage_are_their_definitions(answers: list[tuple[int, bool]]) -> None:
    confidence, correct = arrays(answers)
    curve = risk_coverage(confidence, correct)
    assert list(curve.threshold) == sorted({c / 20 for c, _ in answers}, reverse=True)
    for threshold, coverage, risk in zip(*curve, strict=True):
        answered = [right for c, right in answers if c / 20 >= threshold]
        assert coverage == len(answered) / len(answers)
        assert risk == answered.count(False) / len(answered)
    assert curve.coverage[-1] == 1
    assert (np.diff(curve.coverage) > 0).all()


@given(answers=ANSWERS)
def test_the_area_is_the_mean_over_questions_of_the_risk_at_their_threshold(
    answers: list[tuple[int, bool]],
) -> None:
    at_least = {c: [right for d, right in answers if d >= c] for c, _ in answers}
    risks = [at_least[c].count(False) / len(at_least[c]) for c, _ in answers]
    assert aurc(risk_coverage(*arrays(answers))) == pytest.approx(sum(risks) / len(risks))


def test_the_area_of_the_best_order_is_that_of_geifman_2019() -> None:
    # A share r of errors, all last: the area tends to r + (1 - r) ln(1 - r), the paper's yardstick.
    n, r = 100_000, 0.3
    order = np.arange(n)
    best = aurc(risk_coverage(1 - order / n, order < (1 - r) * n))
    assert best == pytest.approx(r + (1 - r) * math.log(1 - r), abs=1e-5)


def test_a_confidence_that_is_always_the_same_has_one_point_and_the_overall_risk() -> None:
    curve = risk_coverage(np.full(8, 0.7), np.array([1, 1, 1, 0, 0, 1, 1, 1], bool))
    assert [list(part) for part in curve] == [[0.7], [1.0], [0.25]]
    assert aurc(curve) == 0.25


@pytest.mark.parametrize(("right", "risk"), [(True, 0.0), (False, 1.0)])
def test_all_right_and_all_wrong(right: bool, risk: float) -> None:
    curve = risk_coverage(CONFIDENCE, np.full(1000, right))
    assert set(curve.risk) == {risk}
    assert aurc(curve) == pytest.approx(risk)
    assert abstain_threshold(curve, 0.05) == (999 if right else None)


@given(answers=ANSWERS, target=st.floats(0, 1))
def test_the_abstain_threshold_is_the_largest_coverage_that_keeps_the_risk(
    answers: list[tuple[int, bool]], target: float
) -> None:
    curve = risk_coverage(*arrays(answers))
    kept = [i for i, risk in enumerate(curve.risk) if risk <= target]
    assert abstain_threshold(curve, target) == (max(kept) if kept else None)


def test_a_higher_target_never_covers_less() -> None:
    curve = risk_coverage(CONFIDENCE, CORRECT)
    places = [abstain_threshold(curve, target) for target in np.linspace(0.2, 1, 30)]
    known = [place for place in places if place is not None]
    assert known == sorted(known)
    assert known[-1] == 999


@pytest.mark.parametrize("points", [2, 3, 50, 200, 999, 1000, 5000])
def test_a_thinned_curve_keeps_its_ends_and_is_even_in_coverage(points: int) -> None:
    curve = risk_coverage(CONFIDENCE, CORRECT)
    thin = thinned(curve, points)
    assert len(thin.risk) == min(points, 1000)
    places = np.searchsorted(curve.coverage, thin.coverage)
    for whole, part in zip(curve, thin, strict=True):
        assert (whole[places] == part).all()
        assert (part[0], part[-1]) == (whole[0], whole[-1])
    assert np.diff(thin.coverage).max() <= 0.999 / (min(points, 1000) - 1) + 0.0011


def test_a_curve_with_one_huge_tie_is_thinned_too() -> None:
    confidence = np.concatenate([np.full(900, 0.999), np.linspace(0, 0.99, 600)])
    thin = thinned(risk_coverage(confidence, confidence > 0.5), 100)
    assert len(thin.coverage) <= 100
    assert (thin.coverage[0], thin.coverage[-1]) == (0.6, 1)
    assert (np.diff(thin.coverage) > 0).all()


def test_a_curve_of_one_point_is_no_curve() -> None:
    with pytest.raises(ValueError, match="too few"):
        thinned(risk_coverage(CONFIDENCE, CORRECT), 1)


def test_without_a_question_there_are_no_bins_no_curve_and_no_score() -> None:
    nothing = np.zeros(0), np.zeros(0, bool)
    curve = risk_coverage(*nothing)
    assert reliability(*nothing) == []
    assert [part.size for part in curve] == [0, 0, 0]
    assert abstain_threshold(curve, 0.5) is None
    assert thinned(curve) is curve
    for call in (lambda: ece([]), lambda: brier(*nothing), lambda: aurc(curve)):
        with pytest.raises(ValueError, match="without a question"):
            call()


@pytest.mark.parametrize("function", [reliability, brier, risk_coverage])
@pytest.mark.parametrize("confidence", [[0.5, math.nan], [0.5, 1.01], [-0.01, 0.5], [0.5], [[0.5, 0.5]]])
def test_what_is_no_confidence_is_refused(function, confidence) -> None:
    with pytest.raises(ValueError, match="confidence"):
        function(np.array(confidence), np.array([True, False]))


def test_no_bins_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one bin"):
        reliability(CONFIDENCE, CORRECT, 0)
