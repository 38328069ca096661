"""Predictive multiplicity: how much the answers depend on which of several good systems is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Ambiguity(NamedTuple):
    """How often competing systems answer otherwise than the baseline."""

    n: int
    """Questions that all of them answered."""
    ambiguity: float
    """Share of these that at least one competing system answers otherwise."""
    discrepancy: float
    """The largest share of these that one competing system answers otherwise."""


def predictive_multiplicity(
    baseline: npt.NDArray[np.integer[Any]], others: Sequence[npt.NDArray[np.integer[Any]]]
) -> Ambiguity | None:
    """Ambiguity and discrepancy of a baseline system and those that compete with it.

    Which systems compete (accuracy within a tolerance of the baseline's) is the caller's choice. Gold plays
    no part: two different wrong answers differ too.

    Parameters
    ----------
    baseline:
        Shape (n,): the code of each answer; negative for none.
    others:
        The same of each competing system.

    Returns
    -------
    ``None`` without a competing system, or without a question that all answered.

    Raises
    ------
    ValueError
        If the shapes differ.

    Source: Marx, Calmon & Ustun (2020), ICML, arXiv 1909.06677, definitions of ambiguity and discrepancy;
    here over the systems at hand instead of over all models of a class. Hsu & Calmon (2022), NeurIPS, arXiv
    2206.01295, and Watson-Daniels, Parkes & Ustun (2023), AAAI, arXiv 2206.01131, carry them on to scores.
    """
    import numpy as np

    if any(other.shape != baseline.shape for other in others):
        raise ValueError("the answers are not to the same questions")
    if not len(others):  # may be the rows of one array
        return None
    answered = np.logical_and.reduce([codes >= 0 for codes in (baseline, *others)])
    n = int(np.count_nonzero(answered))
    if not n:
        return None
    any_differs, most = np.zeros_like(answered), 0
    for other in others:
        differs = answered & (other != baseline)
        any_differs |= differs
        most = max(most, int(np.count_nonzero(differs)))
    return Ambiguity(n, int(np.count_nonzero(any_differs)) / n, most / n)
