"""Uncertainty of one share: of independent questions (Wilson), and of questions that share a source."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Interval(NamedTuple):
    """A confidence interval: of a proportion within 0 and 1, of a difference of two within -1 and 1."""

    low: float
    high: float


UNIT = Interval(0.0, 1.0)
_NEGLIGIBLE = 1e-17
"""Share of a sum below which its falling terms no longer change a float."""
_NO_ERROR = 1e-12
"""A standard error below is what the rounding of floats leaves of zero."""


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


def binomial_excess(count: int, n: int, share: float) -> float:
    """Probability of ``count`` or more of ``n``, where each is one with probability ``share``.

    The one-sided exact binomial test, as ``scipy.stats.binomtest(alternative="greater")``. It is summed here
    because `orch-local plan` needs it and would take a second to import scipy.

    Raises
    ------
    ValueError
        If ``count`` is not within 0 and ``n``, or ``share`` not within 0 and 1.
    """
    if not 0 <= count <= n or not 0 <= share <= 1:
        raise ValueError(f"no binomial count: {count} of {n}, with a share of {share}")
    if count == 0 or share == 1:
        return 1.0
    if share == 0:
        return 0.0
    odds = share / (1 - share)
    if count > n * share:
        return _tail(n, share, count, ((n - k) / (k + 1) * odds for k in range(count, n)))
    return 1.0 - _tail(n, share, count - 1, (k / (n - k + 1) / odds for k in range(count - 1, 0, -1)))


def _tail(n: int, share: float, first: int, ratios: Iterable[float]) -> float:
    """Sum of binomial probabilities from ``first`` on; ``ratios`` are of each to the one before, and fall."""
    ways = math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
    term = math.exp(ways + first * math.log(share) + (n - first) * math.log1p(-share))
    total = term
    for ratio in ratios:
        term *= ratio
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return min(total, 1.0)


def clustered_interval(
    values: npt.NDArray[Any],
    clusters: npt.NDArray[np.integer[Any]],
    level: float = 0.95,
    bounds: Interval = UNIT,
) -> Interval | None:
    """Interval of the mean of ``values`` where questions of one source may be right or wrong together.

    The standard error is that of an intercept-only regression with the cluster-robust covariance CR1; with
    G clusters the interval is mean +- t(G - 1) * se. It trusts in many clusters: with fewer than some 30 to
    50 it is too narrow, most of all where their sizes are very uneven.

    Parameters
    ----------
    values:
        Shape (m,), finite: 0 and 1 for an accuracy; -1, 0 and 1 for the difference of two systems.
    clusters:
        Shape (m,), whole numbers: the source of each; -1 for a question that shares its source with none.
    level:
        Of confidence.
    bounds:
        What the interval is cut to: (-1, 1) for a difference.

    Returns
    -------
    ``None`` where no standard error can be estimated: with fewer than two clusters, or where all clusters
    deviate by nothing (all right, all wrong, no difference at all). A width of zero would claim certainty.

    Raises
    ------
    ValueError
        If the shapes differ.

    Source: Liang & Zeger (1986), Biometrika 73:13; CR1 and t(G - 1) as in Cameron & Miller (2015), Journal of
    Human Resources 50:317. For language models: Miller (2024), arXiv 2411.00640.
    The same numbers as statsmodels ``OLS(values, ones).fit(cov_type="cluster", use_t=True)``.
    """
    import numpy as np
    from scipy.special import stdtrit

    if values.ndim != 1 or values.shape != clusters.shape:
        raise ValueError(
            f"values {values.shape} and clusters {clusters.shape} must be two equally long vectors"
        )
    if not values.size:
        return None
    mean = float(np.mean(values, dtype=np.float64))
    sums = _cluster_sums(values - mean, clusters)
    groups = sums.size
    if groups < 2:
        return None
    error = float(np.sqrt(groups / (groups - 1) * np.square(sums).sum())) / values.size
    if error < _NO_ERROR:
        return None
    margin = float(stdtrit(groups - 1, (1 + level) / 2)) * error
    return Interval(max(mean - margin, bounds.low), min(mean + margin, bounds.high))


def _cluster_sums(
    deviations: npt.NDArray[np.float64], clusters: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """Sum of the deviations of each cluster, in no order of meaning."""
    import numpy as np

    shared = clusters >= 0
    _, places = np.unique(clusters[shared], return_inverse=True)
    return np.concatenate([np.bincount(places, weights=deviations[shared]), deviations[~shared]])
