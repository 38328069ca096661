"""How errors go together: values of other libraries, examples by hand, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.stats import Pairs, disagreement, phi, yule_q

PAIRS = st.builds(Pairs, *[st.integers(0, 10**6)] * 4)


def test_the_three_measures_are_those_of_deslib_and_scikit_learn() -> None:
    # deslib 0.3.7: Q_statistic, correlation_coefficient and disagreement_measure of util.diversity, of these
    # 2,000 answers; scikit-learn 1.9.1: metrics.matthews_corrcoef gives 0.45258159389600056 too.
    pairs = Pairs(both=1070, gained=279, lost=215, neither=436)
    assert yule_q(pairs) == pytest.approx(0.7721389160596767, rel=1e-12)
    assert phi(pairs) == pytest.approx(0.4525815938960005, rel=1e-12)
    assert disagreement(pairs) == pytest.approx(0.247, rel=1e-12)


@pytest.mark.parametrize(
    ("pairs", "q", "correlation", "differ"),
    [
        # Ten questions, three systems right on six each. Two of three are right on nine, none on one: ...
        pytest.param(Pairs(3, 3, 3, 1), -6 / 12, -6 / 24, 0.6, id="errors spread as well as can be"),
        # ... and all three on four, one of three on six.
        pytest.param(Pairs(4, 2, 2, 2), 4 / 12, 4 / 24, 0.4, id="errors wasted"),
        pytest.param(Pairs(6, 0, 0, 4), 1, 1, 0, id="the same errors"),
        pytest.param(Pairs(0, 5, 5, 0), -1, -1, 1, id="opposite errors"),
        pytest.param(Pairs(12, 4, 3, 1), 0, 0, 0.35, id="independent: 16/20 and 15/20 right"),
    ],
)
def test_the_three_measures_by_hand(pairs: Pairs, q: float, correlation: float, differ: float) -> None:
    assert (yule_q(pairs), phi(pairs), disagreement(pairs)) == pytest.approx((q, correlation, differ))


@settings(deadline=None, max_examples=50)
@given(pairs=st.builds(Pairs, *[st.integers(1, 60)] * 4))
def test_the_measures_agree_with_numpy_and_statsmodels(pairs: Pairs) -> None:
    from statsmodels.stats.contingency_tables import Table2x2

    first, second = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], pairs, axis=0).T  # the errors
    assert phi(pairs) == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert disagreement(pairs) == np.mean(first != second)
    odds = Table2x2(np.reshape(pairs, (2, 2))).oddsratio
    assert yule_q(pairs) == pytest.approx((odds - 1) / (odds + 1))


@given(pairs=PAIRS)
def test_the_measures_are_symmetric_bounded_and_ordered(pairs: Pairs) -> None:
    swapped = Pairs(pairs.both, pairs.lost, pairs.gained, pairs.neither)
    inverted = Pairs(pairs.neither, pairs.gained, pairs.lost, pairs.both)
    for measure in (phi, yule_q, disagreement):
        assert measure(pairs) == measure(swapped) == measure(inverted)
    q, correlation, differ = yule_q(pairs), phi(pairs), disagreement(pairs)
    assert q is None or -1 <= q <= 1
    assert differ is None or 0 <= differ <= 1
    if correlation is not None:
        assert q is not None
        assert abs(correlation) <= abs(q) + 1e-12
        assert correlation * q >= 0


def test_nothing_can_be_said_of_a_system_that_never_or_always_errs() -> None:
    for pairs in (Pairs(7, 0, 3, 0), Pairs(0, 0, 3, 7), Pairs(9, 0, 0, 0)):
        assert phi(pairs) is None
        assert yule_q(pairs) is None
    assert (phi(Pairs(0, 0, 0, 0)), yule_q(Pairs(0, 0, 0, 0)), disagreement(Pairs(0, 0, 0, 0))) == (None,) * 3
    assert disagreement(Pairs(7, 0, 3, 0)) == 0.3
