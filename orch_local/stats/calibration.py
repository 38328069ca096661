"""How far a confidence can be believed: reliability, ECE, Brier score, risk against coverage.

Throughout, ``confidence`` has the shape (n,) and lies within 0 and 1, without NaN; ``correct`` has the same
shape and tells whether the answer is right. Unscored questions are left out before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]


class ReliabilityBin(NamedTuple):
    """The questions whose confidence is above ``low`` and at most ``high``; 0 belongs to the first bin."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean."""
    correct: int
    """How many are right."""


class RiskCoverage(NamedTuple):
    """What answering only from a threshold on would give; each distinct confidence once, highest first."""

    threshold: Floats
    """Questions of at least this confidence are answered."""
    coverage: Floats
    """Share of the questions answered: rises to 1."""
    risk: Floats
    """Share of wrong answers among those."""


def reliability(confidence: Floats, correct: Bools, bins: int = 15) -> list[ReliabilityBin]:
    """Bins of equal width of the confidence, without the empty ones; ``[]`` without data.

    Bin k of K holds the confidences in ((k-1)/K, k/K]: one on an inner edge belongs to the lower bin, and 0
    to the first.

    Raises
    ------
    ValueError
        If the shapes differ, a confidence is outside 0 and 1 or NaN, or ``bins`` is not positive.

    Source: Guo, Pleiss, Sun & Weinberger (2017), ICML, arXiv 1706.04599, section 2.
    """
    import numpy as np

    _check(confidence, correct)
    if bins < 1:
        raise ValueError(f"there must be at least one bin, not {bins}")
    # k / bins is the float nearest to the edge, as the confidence is to its own value: np.linspace is not.
    edges = np.arange(bins + 1) / bins
    places = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    counts = np.bincount(places, minlength=bins)
    sums = np.bincount(places, weights=confidence, minlength=bins)
    right = np.bincount(places[correct], minlength=bins)
    # Rounding must not carry the mean of a bin out of it.
    means = np.clip(sums / np.maximum(counts, 1), edges[:-1], edges[1:])
    return [
        ReliabilityBin(float(edges[k]), float(edges[k + 1]), int(counts[k]), float(means[k]), int(right[k]))
        for k in np.flatnonzero(counts)
    ]


def ece(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: distance of accuracy and mean confidence of a bin, averaged over questions.

    It depends on the bins, and with few questions it is above 0 even for a perfect confidence.

    Raises
    ------
    ValueError
        Without data.

    Source: Guo et al. (2017), arXiv 1706.04599, equation 3; Naeini, Cooper & Hauskrecht (2015), AAAI.
    """
    n = sum(b.n for b in bins)
    if not n:
        raise ValueError("without a question there is no calibration error")
    return sum(abs(b.correct - b.n * b.confidence) for b in bins) / n


def brier(confidence: Floats, correct: Bools) -> float:
    """Mean squared distance of the confidence from 1 (right) or 0 (wrong): 0 is best, always 0.5 gives 0.25.

    Brier's own score sums over both outcomes and is twice this.

    Raises
    ------
    ValueError
        Without data; if the shapes differ, or a confidence is outside 0 and 1 or NaN.

    Source: Brier (1950), Monthly Weather Review 78:1, for one event.
    """
    import numpy as np

    _check(confidence, correct)
    if not confidence.size:
        raise ValueError("without a question there is no Brier score")
    return float(np.mean(np.square(confidence - correct)))


def risk_coverage(confidence: Floats, correct: Bools) -> RiskCoverage:
    """Risk against coverage for each distinct confidence as threshold, from the most confident questions on.

    Questions of equal confidence come together: no threshold parts them. Without data the arrays are empty.

    Raises
    ------
    ValueError
        If the shapes differ, or a confidence is outside 0 and 1 or NaN.

    Source: El-Yaniv & Wiener (2010), JMLR 11:1605; Geifman & El-Yaniv (2017), NeurIPS, arXiv 1705.08500,
    section 2: selective risk and coverage.
    """
    import numpy as np

    _check(confidence, correct)
    levels, places, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places[~correct], minlength=levels.size)
    answered = np.cumsum(counts[::-1])
    return RiskCoverage(
        levels[::-1], answered / max(confidence.size, 1), np.cumsum(wrong[::-1]) / np.maximum(answered, 1)
    )


def aurc(curve: RiskCoverage) -> float:
    """Area under the risk-coverage curve: the mean over all questions of the risk at their own threshold.

    Without ties these are the n risks of the n coverages 1/n ... 1. Tied questions all count with the risk
    of answering all of them, so the area does not depend on their order. 0 is best; a confidence that says
    nothing gives about the share of wrong answers.

    Raises
    ------
    ValueError
        Without data.

    Source: Geifman, Uziel & El-Yaniv (2019), ICLR, arXiv 1805.08206.
    """
    import numpy as np

    if not curve.risk.size:
        raise ValueError("without a question there is no risk-coverage curve")
    return float(np.diff(curve.coverage, prepend=0.0) @ curve.risk)


def abstain_threshold(curve: RiskCoverage, target: float) -> int | None:
    """Place in the curve of the largest coverage whose risk is at most ``target``; ``None`` where none is.

    It is chosen on the questions it is measured on: on new ones the risk tends to be a little higher, more so
    with small coverage.

    Source: the empirical form of Geifman & El-Yaniv (2017), arXiv 1705.08500, section 3, without their bound.
    """
    import numpy as np

    kept = np.flatnonzero(curve.risk <= target)
    return int(kept[-1]) if kept.size else None


def thinned(curve: RiskCoverage, points: int = 200) -> RiskCoverage:
    """At most ``points`` places of a curve: the first, the last, and those evenly spaced in coverage between.

    Raises
    ------
    ValueError
        If ``points`` is below 2.
    """
    import numpy as np

    if points < 2:
        raise ValueError(f"a curve has a first and a last point: {points} is too few")
    if curve.coverage.size <= points:
        return curve
    wanted = np.linspace(curve.coverage[0], curve.coverage[-1], points)
    kept = np.unique(np.searchsorted(curve.coverage, wanted).clip(0, curve.coverage.size - 1))
    return RiskCoverage(curve.threshold[kept], curve.coverage[kept], curve.risk[kept])


def _check(confidence: Floats, correct: Bools) -> None:
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(
            f"confidence {confidence.shape} and correct {correct.shape} must be equally long vectors"
        )
    if confidence.size and not (confidence.min() >= 0 and confidence.max() <= 1):
        raise ValueError("a confidence is outside 0 and 1, or is not a number")
