"""Uncertainty of a score and of the difference between two; pure, with the formulas of scipy and statsmodels.

Both libraries are imported inside the functions: they take seconds to load, and the command line must not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval: of a proportion within 0 and 1, of a difference of two within -1 and 1."""

    low: float
    high: float


class McNemar(NamedTuple):
    """Result of a paired comparison of two systems on the same questions."""

    gained: int
    """Questions that the first system has right and the second wrong."""
    lost: int
    """Questions that the first system has wrong and the second right."""
    p: float
    """Two-sided exact p-value: how likely a split at least so uneven is between two equal systems."""


def wilson(correct: int, n: int, level: float = 0.95) -> Interval | None:
    """Wilson score interval of ``correct / n``; ``None`` without data.

    Source: Wilson (1927), JASA 22:209; method 3 of Newcombe (1998), Statistics in Medicine 17:857.
    Computed by ``statsmodels.stats.proportion.proportion_confint(method="wilson")``.
    """
    if n == 0:
        return None
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    estimate = correct / n
    # At 0 and n the end of the interval is the estimate itself, but for the last bit of the float.
    return Interval(min(float(low), estimate), max(float(high), estimate))


def mcnemar_exact(gained: int, lost: int) -> McNemar:
    """Exact two-sided McNemar test; questions where both are right or both are wrong carry no information.

    Source: McNemar (1947), Psychometrika 12:153; the exact form in Agresti, Categorical Data Analysis,
    section on matched pairs: ``gained`` is binomial with one half. Computed by ``scipy.stats.binomtest``.
    Without a single differing question nothing speaks against equality, and p is 1.
    """
    if gained + lost == 0:
        return McNemar(0, 0, 1.0)
    from scipy.stats import binomtest

    return McNemar(gained, lost, float(binomtest(gained, gained + lost, 0.5).pvalue))


class Pairs(NamedTuple):
    """How two systems did on the same questions: counts of all four cases."""

    both: int
    """Both are right."""
    gained: int
    """The first is right, the second wrong."""
    lost: int
    """The first is wrong, the second right."""
    neither: int

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second; there must be a question."""
        return (self.gained - self.lost) / sum(self)


def paired_interval(pairs: Pairs, level: float = 0.95) -> Interval | None:
    """Confidence interval of :attr:`Pairs.difference`; ``None`` without data.

    Source: method 10 of Newcombe (1998), Statistics in Medicine 17:2635. The Wilson intervals of both
    accuracies are joined by squaring and adding, less what the pairing takes off: the correlation phi of the
    two, whose numerator loses n/2 (but not its sign) where it is positive. Unlike the interval of Wald it has
    a width where no question differs. Neither scipy nor the oldest statsmodels that we accept has it.
    """
    n = sum(pairs)
    first, second = wilson(pairs.both + pairs.gained, n, level), wilson(pairs.both + pairs.lost, n, level)
    if first is None or second is None:
        return None
    p1, p2, phi = (pairs.both + pairs.gained) / n, (pairs.both + pairs.lost) / n, _phi(pairs)
    below = _joined(p1 - first.low, second.high - p2, phi)
    above = _joined(first.high - p1, p2 - second.low, phi)
    return Interval(max(pairs.difference - below, -1.0), min(pairs.difference + above, 1.0))


def _joined(one: float, other: float, phi: float) -> float:
    # Never negative, as |phi| is at most 1, but for the last bit of the float.
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))


def _phi(pairs: Pairs) -> float:
    both, gained, lost, neither = pairs
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not margins:
        return 0.0
    product = both * neither - gained * lost
    corrected = max(product - sum(pairs) / 2, 0.0) if product > 0 else product
    return corrected / math.sqrt(margins)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given: the chance of even one false alarm is bounded.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65. Computed by
    ``statsmodels.stats.multitest.multipletests(method="holm")``.
    """
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]
