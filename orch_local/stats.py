"""Uncertainty of a score and of the difference between two; pure, with the formulas of scipy and statsmodels.

Both libraries are imported inside the functions: they take seconds to load, and the command line must not.
"""

from __future__ import annotations

from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval of a proportion, both ends within 0 and 1."""

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
