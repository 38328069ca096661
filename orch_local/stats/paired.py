"""Two systems on the same questions: McNemar's test, the odds ratio, and the difference with its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from orch_local.stats.proportions import Interval, wilson

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class McNemar(NamedTuple):
    """Result of a paired comparison of two systems on the same questions."""

    gained: int
    """Questions that the first system has right and the second wrong."""
    lost: int
    """Questions that the first system has wrong and the second right."""
    p: float
    """Two-sided exact p-value: how likely a split at least so uneven is between two equal systems."""


class OddsRatio(NamedTuple):
    """How many questions the first system gains for each that it loses."""

    value: float
    """gained / lost; infinite where nothing is lost."""
    low: float
    high: float
    """Infinite where nothing is lost."""


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


def pairs_of(first: npt.NDArray[np.int8], second: npt.NDArray[np.int8]) -> Pairs:
    """Count the four cases over the questions where both systems are scored.

    Parameters
    ----------
    first, second:
        Shape (n,), of the same questions: 1 right, 0 wrong, negative unscored.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    import numpy as np

    if first.shape != second.shape:
        raise ValueError(f"verdicts {first.shape} and {second.shape} are not of the same questions")
    right, right2, wrong, wrong2 = first > 0, second > 0, first == 0, second == 0
    cells = (right & right2, right & wrong2, wrong & right2, wrong & wrong2)
    return Pairs(*(int(np.count_nonzero(cell)) for cell in cells))


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


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """Two-sided mid-p of McNemar's test: what was seen, and its mirror image, count only half.

    The exact test errs on the safe side: it calls equal systems different less often than alpha says. The
    mid-p comes close to alpha; nothing guarantees that it stays below, though it did in all 9,595 cases of
    the second source. Without a differing question nothing speaks against equality, and it is 1.

    Source: Lancaster (1961), JASA 56:223; Fagerland, Lydersen & Laake (2013), BMC Medical Research
    Methodology 13:91. Neither scipy nor statsmodels has it; the binomial distribution is scipy's.
    """
    from scipy.stats import binom

    fewer, n = min(gained, lost), gained + lost
    if n == 0:
        return 1.0
    seen = float(binom.pmf(fewer, n, 0.5))
    # An even split is its own mirror image: everything else is more extreme.
    p = 1 - seen / 2 if gained == lost else 2 * float(binom.cdf(fewer, n, 0.5)) - seen
    return max(p, 0.0)  # the last bits of the smallest floats may fall below


def odds_ratio(gained: int, lost: int, level: float = 0.95) -> OddsRatio | None:
    """Conditional odds ratio ``gained / lost`` of matched pairs, with its exact interval.

    Given how many questions differ, ``gained`` is binomial with probability OR / (1 + OR); the ends of the
    Clopper-Pearson interval of that probability, as odds, are those of the ratio. The interval holds 1 if,
    and only if, the exact test does not reject at 1 - ``level``.

    Returns
    -------
    ``None`` without a differing question. With ``lost`` 0 value and ``high`` are infinite; with ``gained`` 0
    value and ``low`` are 0.

    Source: Breslow & Day (1980), Statistical Methods in Cancer Research 1, chapter 5; Clopper & Pearson
    (1934), Biometrika 26:404. The interval of the probability is that of ``scipy.stats.binomtest``.
    """
    if gained + lost == 0:
        return None
    from scipy.stats import binomtest

    share = binomtest(gained, gained + lost).proportion_ci(level, method="exact")
    return OddsRatio(gained / lost if lost else math.inf, _odds(float(share.low)), _odds(float(share.high)))


def _odds(probability: float) -> float:
    return probability / (1 - probability) if probability < 1 else math.inf


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
